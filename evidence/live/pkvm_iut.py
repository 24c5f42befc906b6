"""A protected VM as an implementation under test: hvabi's line protocol on one side, the machine's line on the other.

    python -m hvabi.evidence.live.pkvm_iut SOCKET RELEASE [PROFILE]

A page is private where the host cannot read it and shared where it can; pages that a case names are touched by the
guest first, so that they are its own. What only the kernel sees, a call that is made again while a page is mapped, is
not shown.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hvabi.abi.registry import load
from hvabi.conformance.frame import PREFIX
from hvabi.evidence.live.errors import LiveError
from hvabi.evidence.live.pkvm import ABI, REVISION, Vm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

PAGE = 4096
NEAR = 2
"""Pages on both sides of what a case names that are looked at too."""
BLOCK = 1 << 20
"""Bytes of the slots that are made where everything is memory: those that a case touches."""
_ABORT = {0x21, 0x25}
_EXTERNAL = 0x10
_EFAULT = 14


class Refusal(Exception):  # not an error of ours: an answer
    """A command that cannot be done; `kind` is ``unsupported`` or ``error``."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Session:
    """One conversation with a runner.

    Args:
        vm: the machine's line.
        release: what the kernel is called.
        profile: the profile that it has, or None.

    """

    def __init__(self, vm: Vm, release: str, profile: str | None) -> None:
        spec = load(f"{ABI}@{REVISION}").abi
        self.vm = vm
        self.release = release
        self.profile = profile
        self.config = tuple(spec.config)
        functions = spec.enums["share-function"].values
        self.share = functions["MEM_SHARE"].value
        self.changing = {item.value for item in functions.values()}
        (self.bits,) = vm.do("limit")
        self.memory: list[tuple[int, int]] | None = None
        self.enabled: bool | None = None
        self.ranges: list[tuple[int, int]] = []
        self.opened = False
        self.slots: list[tuple[int, int]] = []
        self.watched: set[int] = set()

    def answer(self, command: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to a command, without its id."""
        method: Callable[[dict[str, Any]], dict[str, Any]] | None = getattr(self, f"do_{command.get('cmd')}", None)
        if method is None:
            return {"unsupported": {"message": f"there is no command {command.get('cmd')!r} here"}}
        try:
            return {"ok": method(command)}
        except Refusal as refusal:
            return {refusal.kind: {"message": str(refusal)}}
        except LiveError as error:
            self.opened = False
            if error.code == "no-answer":
                raise
            return {"error": {"message": error.message}}

    def do_hello(self, command: dict[str, Any]) -> dict[str, Any]:
        """Introduce the kernel."""
        if not command["min"] <= 1 <= command["max"]:
            raise Refusal("unsupported", "this is version 1 of the protocol")
        offer: dict[str, Any] = {"revisions": [REVISION], "transports": ["hvc"], "roles": ["host"]}
        if self.profile is not None:
            offer["profile"] = self.profile
        return {
            "protocol": 1, "name": "Linux pKVM", "version": f"{self.release}, VM type protected", "abis": {ABI: offer},
            "features": [],
        }  # fmt: skip

    def do_configure(self, command: dict[str, Any]) -> dict[str, Any]:
        """Take a configuration that this machine can have."""
        config = command.get("config") or {}
        wanted = {"abi": ABI, "revision": REVISION, "transport": "hvc", "role": "host"}
        for key, value in wanted.items():
            if command.get(key) != value:
                raise Refusal("unsupported", f"pKVM here has no {key} {command.get(key)!r}")
        if config.get("profile") not in (None, self.profile):
            raise Refusal("unsupported", f"this kernel is {self.profile}")
        own = {"granule": PAGE, "ipa_bits": self.bits}
        for key, value in config.items():
            if key not in ("profile", "enabled", "memory", *self.config):
                raise Refusal("unsupported", f"pKVM here has no {key}")
            if key in own and int(value, 0) != own[key]:
                raise Refusal("unsupported", f"here {key} is {own[key]}")
        memory = config.get("memory")
        self.memory = None if memory is None else [(int(gpa, 0), int(pages, 0) * PAGE) for gpa, pages in memory]
        self.enabled = bool(config.get("enabled", True))
        self.opened, self.ranges = False, []
        return {}

    def do_reset(self, command: dict[str, Any]) -> dict[str, Any]:
        """Begin with a new VM. One that is not protected has no states of pages: they are not asked for either."""
        if self.enabled is None:
            raise Refusal("error", "`reset` before `configure`")
        if any(command.get("facts") or ()):
            raise Refusal("unsupported", "whether the host has mapped a page is the kernel's own affair, and not shown")
        ranges = command.get("ranges") or []
        if any(state not in ("private", "shared") for _, _, state in ranges):
            raise Refusal("unsupported", "pKVM has pages that are private or shared, and no more")
        found = [(int(gpa, 0) // PAGE, int(pages, 0)) for gpa, pages, state in ranges if state == "shared"]
        if any((first + count) * PAGE > 1 << self.bits for first, count in found):
            raise Refusal("unsupported", f"a guest has addresses of {self.bits} bits here")
        memory = self.memory
        if memory is not None and any(
            not any(gpa <= page * PAGE < gpa + size for gpa, size in memory)
            for first, count in found
            for page in range(first, first + count)
        ):
            raise Refusal("unsupported", "a page that is no memory cannot be shared to begin with")
        self.opened, self.ranges = False, found
        return {}

    def do_call(self, command: dict[str, Any]) -> dict[str, Any]:
        """Let the guest make the call."""
        if self.enabled is None:
            raise Refusal("error", "`call` before `configure`")
        regs = {name: int(value, 0) for name, value in (command.get("regs") or {}).items()}
        values = [regs.pop(f"x{number}", 0) for number in range(4)]
        if any(regs.values()):
            raise Refusal("unsupported", "only x0 to x3 can be set here")
        self._need()
        base = values[1]
        if base >= 1 << self.bits and base < 1 << 48 and values[0] & 0xFFFFFFFF in self.changing:
            raise Refusal("unsupported", f"a guest has addresses of {self.bits} bits here")
        if base < 1 << self.bits:
            self._see(base // PAGE, 1)
        word, found = self.vm.ask("call", *values)
        if word == "abort":
            code = found[0]
            if code >> 26 not in _ABORT or code & 0x3F != _EXTERNAL:
                raise Refusal("error", f"the guest took an exception with syndrome {code:#x}")
            return {"end": "fault", "fault": "abort"}
        if word != "ret":
            raise Refusal("error", f"the run ended by {word} {' '.join(map(hex, found))}")
        out = {f"x{number}": hex(value) for number, value in enumerate(found) if value != values[number] or not number}
        return {"end": "return", "regs": out, "mem": []}

    def do_query(self, command: dict[str, Any]) -> dict[str, Any]:
        """Say which pages the host can read."""
        if self.enabled is None:
            raise Refusal("error", "`query` before `configure`")
        if not self.enabled:
            raise Refusal("unsupported", "the host of a VM that is not protected reads every page")
        self._need()
        shared = [page for page in sorted(self.watched) if self._readable(page)]
        return {"ranges": [[hex(first * PAGE), hex(count), "shared"] for first, count in runs(shared)], "facts": {}}

    def do_stop(self, command: dict[str, Any]) -> dict[str, Any]:
        """End."""
        self.vm.do("close")
        return {}

    # -- one case -----------------------------------------------------------------------------------------------

    def _need(self) -> None:
        if self.opened:
            return
        self.vm.do("open", int(bool(self.enabled)), self.bits)
        self.opened, self.slots, self.watched = True, [], set()
        for gpa, size in self.memory or ():
            if gpa < 1 << self.bits:
                self._slot(gpa, min(size, (64 << 20)))
        for first, count in self.ranges if self.enabled else ():
            self._see(first, count)

    def _slot(self, gpa: int, size: int) -> None:
        self.vm.do("slot", gpa, size)
        self.slots.append((gpa, size))

    def _in_slot(self, page: int) -> bool:
        return any(gpa <= page * PAGE < gpa + size for gpa, size in self.slots)

    def _see(self, first: int, count: int) -> None:
        """Watch pages and some around them: the guest touches those that are new, and shares those of `reset`."""
        end = (1 << self.bits) // PAGE
        new = set(range(max(first - NEAR, 0), min(first + count + NEAR, end))) - self.watched
        if self.memory is None:
            for page in sorted(new):
                if not self._in_slot(page):
                    self._slot(page * PAGE // BLOCK * BLOCK, BLOCK)
        new = {page for page in new if self._in_slot(page)}
        self.watched |= new
        if not self.enabled:
            return
        for start, size in runs(sorted(new)):
            self.vm.do("touch", start * PAGE, size)
        shared = sorted(page for page in new if any(low <= page < low + size for low, size in self.ranges))
        for start, size in runs(shared):
            found = self.vm.do("each", self.share, start * PAGE, size)
            if found[0]:
                raise Refusal("error", f"pages cannot be shared to begin with: {found[0]:#x}")

    def _readable(self, page: int) -> bool:
        word, found = self.vm.ask("peek", page * PAGE)
        if word == "err" and found != (_EFAULT,):
            raise Refusal("error", f"the host cannot look at {page * PAGE:#x}: errno {found[0]}")
        return word == "ok"


def runs(pages: list[int]) -> list[tuple[int, int]]:
    """Return sorted pages as runs of first page and count."""
    out: list[tuple[int, int]] = []
    for page in pages:
        if out and sum(out[-1]) == page:
            out[-1] = (out[-1][0], out[-1][1] + 1)
        else:
            out.append((page, 1))
    return out


def serve(lines: Iterable[str], write: Callable[[str], None], session: Session) -> None:
    """Answer command lines until ``stop`` or the end of input."""
    last = None
    for line in lines:
        if not line.startswith(PREFIX):
            continue
        command: Any = None
        try:
            command = json.loads(line[len(PREFIX) :])
            last = number = command["id"]
            found = session.answer(command)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            number, found = last, {"error": {"message": f"no command: {error!r}"}}
        write(PREFIX + json.dumps({"id": number, **found}, separators=(",", ":")) + "\n")
        if isinstance(command, dict) and command.get("cmd") == "stop":
            return


def main(words: list[str]) -> int:
    """Serve on standard input and output."""
    line, release, *profile = words

    def put(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    try:
        with Vm(Path(line)) as vm:
            serve(sys.stdin, put, Session(vm, release, profile[0] if profile else None))
    except LiveError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
