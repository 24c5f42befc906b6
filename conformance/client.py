"""The runner's side of the line protocol: one method per command, every answer checked before it is believed."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, Any

from hvabi.abi.diagnostics import escape
from hvabi.conformance import frame
from hvabi.conformance.answer import (
    ENDS,
    STEPS,
    CallEnd,
    Converted,
    Exit,
    GuestAsk,
    Hello,
    LocalStep,
    PeerError,
    PeerUnsupported,
    ProtocolViolation,
    read_offer,
    read_ranges,
    read_words,
)
from hvabi.conformance.frame import ProtocolError
from hvabi.conformance.inprocess import ObjectConnection
from hvabi.conformance.stream import PeerTimeout

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from hvabi.conformance.case import Inject, Memory, Pages, Ranges, Setup
    from hvabi.conformance.stream import Connection

    Said = str | dict[str, Any]

_KINDS = ("ok", "yield", "unsupported", "error")
_SHOWN = 300
_HELLO_SECONDS = 10.0


class Client:
    """One session with an implementation.

    Args:
        connection: the line connection.
        timeout: seconds for every answer.
        ids: where command ids come from; shared by the sessions of one run, so that a late answer from
            before a restart is never taken for a new one.

    Every method raises `PeerTimeout`, `PeerLost`, `ProtocolViolation`, `PeerError` or `PeerUnsupported`.

    """

    def __init__(self, connection: Connection, *, timeout: float = 5.0, ids: Iterator[int] | None = None) -> None:
        self.connection = connection
        self._objects = connection if isinstance(connection, ObjectConnection) else None
        self.timeout = timeout
        self._ids = ids if ids is not None else itertools.count(1)
        self._late: set[int] = set()
        self._first: int | None = None

    # -- commands and answers -----------------------------------------------------------------------------------

    def _command(
        self, name: str, *, seconds: float | None = None, **arguments: Any
    ) -> tuple[str, dict[str, Any], Said]:
        """Return kind and body of the answer to a command, and all of it. Raises for ``unsupported`` and ``error``."""
        ident = next(self._ids)
        if self._first is None:
            self._first = ident
        command = {"id": ident, "cmd": name, **arguments}
        said: Said
        if self._objects is not None:
            said = self._objects.ask(command)
            found = self._kind_of(said, ident, said)
            if found is None:
                raise _violation("the answer is for an earlier command", said)
            kind, body = found
        else:
            kind, body, said = self._exchange(name, command, self.timeout if seconds is None else seconds)
        if kind in ("unsupported", "error"):
            message = body.get("message")
            if not isinstance(message, str):
                raise _violation(f"`{kind}` has no message", said)
            text = escape(message[:_SHOWN])
            raise (PeerUnsupported if kind == "unsupported" else PeerError)(text or kind, command=name)
        return kind, body, said

    def _exchange(self, name: str, command: Mapping[str, Any], limit: float) -> tuple[str, dict[str, Any], str]:
        """Send a command as a line; return kind, body and line of its answer."""
        ident = command["id"]
        line = frame.format_line(command)
        deadline = time.monotonic() + limit
        try:
            self.connection.send(line, limit)
            while True:
                answer = self.connection.receive(max(deadline - time.monotonic(), 0.0))
                # A console may echo what is typed into it.
                if answer is None or answer != line[:-1]:
                    found = self._judge(answer, ident)
                    if found is not None:
                        break
                if time.monotonic() >= deadline:
                    raise PeerTimeout("only late answers", seconds=limit)  # noqa: TRY301  # one place ends both
        except PeerTimeout as error:
            self._late.add(ident)
            # The limit, not what was left of it: the same case says the same in every run.
            waited = f" in {limit:g} s" if error.fields.get("seconds") != 0 else ""
            raise PeerTimeout(f"`{name}`: {error.message}{waited}", seconds=limit) from error
        return *found, answer or ""

    def _judge(self, line: str | None, ident: int) -> tuple[str, dict[str, Any]] | None:
        """Return kind and body of an answer, or None for a late one."""
        if line is None:
            raise _violation(f"a line is longer than {frame.MAX_LINE} bytes", "")
        try:
            answer = frame.parse_line(line)
        except ProtocolError as error:
            raise _violation(error.message, line) from error
        if answer is None:
            raise _violation("a line has no prefix", line)
        return self._kind_of(answer, ident, line)

    def _kind_of(self, answer: dict[str, Any], ident: int, line: Said) -> tuple[str, dict[str, Any]] | None:
        """Return kind and body of an answer, or None for a late one; `line` is for the error."""
        found = answer.get("id", "")
        if isinstance(found, bool) or not isinstance(found, (int, type(None))):
            raise _violation("`id` is no JSON number", line)
        # An answer to a command of an earlier session may still be in the line.
        if found is not None and (found in self._late or 1 <= found < (self._first or 0)):
            self._late.discard(found)
            return None
        kinds = [kind for kind in _KINDS if kind in answer]
        if found is None and kinds == ["error"]:
            raise _violation(f"the peer could not read a line: {frame.shown(answer['error'])}", line)
        if found != ident:
            raise _violation(f"the answer is for id {frame.shown(found)}, not for {ident}", line)
        if len(kinds) != 1:
            words = " and ".join(kinds) or "none of them"
            raise _violation(f"an answer has exactly one of ok, yield, unsupported, error; this has {words}", line)
        body = answer[kinds[0]]
        if not isinstance(body, dict):
            raise _violation(f"`{kinds[0]}` is no object", line)
        return kinds[0], body

    def _plain(self, name: str, *, seconds: float | None = None, **arguments: Any) -> tuple[dict[str, Any], Said]:
        """Send a command that is answered with ``ok`` only."""
        kind, body, line = self._command(name, seconds=seconds, **arguments)
        if kind != "ok":
            raise _violation(f"`{name}` is not answered with yield", line)
        return body, line

    # -- commands -----------------------------------------------------------------------------------------------

    def hello(self, features: Iterable[str] = ()) -> Hello:
        """Say hello; `features` are those that the runner would like to see, words that a peer may ignore."""
        wanted = {"features": sorted(features)} if features else {}
        body, line = self._plain(
            "hello",
            min=frame.VERSION,
            max=frame.VERSION,
            runner="hvabi",
            seconds=max(self.timeout, _HELLO_SECONDS),
            **wanted,
        )
        with _Reading("hello", line):
            protocol = body.get("protocol")
            if isinstance(protocol, bool) or protocol != frame.VERSION:
                raise ProtocolError(f"protocol is {frame.shown(protocol)}, and only {frame.VERSION} was offered")
            abis = frame.argument(body, "abis")
            if not isinstance(abis, dict):
                raise ProtocolError("abis is an object")
            return Hello(
                name=escape(frame.word(frame.argument(body, "name"), "name")[:_SHOWN]),
                version=escape(frame.word(frame.argument(body, "version"), "version")[:_SHOWN]),
                abis={name: read_offer(name, item) for name, item in abis.items()},
                features=frozenset(read_words(body.get("features", []), "features")),
            )

    def configure(
        self, abi: str, revision: str, transport: str, role: str, setup: Setup, *, profile: str | None = None
    ) -> None:
        """Configure; `profile` is sent where it is given."""
        config: dict[str, Any] = {name: hex(value) for name, value in setup.config.items()}
        if setup.memory is not None:
            config["memory"] = frame.hex_pages(setup.memory)
        if not setup.enabled:
            config["enabled"] = False
        if setup.max_ranges is not None:
            config["max_ranges"] = hex(setup.max_ranges)
        if setup.scratch is not None:
            config["scratch"] = frame.hex_pages([setup.scratch])[0]
        if profile is not None:
            config["profile"] = profile
        self._plain("configure", abi=abi, revision=revision, transport=transport, role=role, config=config)

    def reset(self, ranges: Ranges = (), facts: Mapping[str, Pages] | None = None) -> None:
        """Put pages and facts into a state."""
        rows = [[hex(start << 12), hex(end - start), state] for start, end, state in ranges]
        self._plain("reset", ranges=rows, facts={n: frame.hex_pages(p) for n, p in (facts or {}).items()})

    def inject(self, inject: Inject) -> None:
        """Inject a fault into the next call."""
        arguments: dict[str, Any] = {
            name: item.hex() if isinstance(item, bytes) else hex(item) for name, item in inject.arguments.items()
        }
        self._plain("inject", fault=inject.fault, **arguments)

    def call(
        self, regs: Mapping[str, int], mem: Memory = (), *, vcpu: int = 0, mode: str = "64", cpl: int = 0
    ) -> CallEnd | Exit:
        """Make a call as the guest."""
        kind, body, line = self._command(
            "call", vcpu=vcpu, cpu={"mode": mode, "cpl": cpl}, regs=frame.hex_regs(regs), mem=frame.hex_mem(mem)
        )
        return self._call_end(kind, body, line)

    def answer_exit(self, regs: Mapping[str, int], mem: Memory = ()) -> CallEnd | Exit:
        """Answer an exit as the VMM."""
        kind, body, line = self._command("resume", regs=frame.hex_regs(regs), mem=frame.hex_mem(mem))
        return self._call_end(kind, body, line)

    def _call_end(self, kind: str, body: dict[str, Any], line: Said) -> CallEnd | Exit:
        with _Reading("call", line):
            if kind == "yield":
                exit_ = frame.argument(body, "exit")
                if not isinstance(exit_, dict):
                    raise ProtocolError("exit is an object")
                return Exit(
                    abi=frame.word(frame.argument(exit_, "abi"), "abi of the exit"),
                    regs=frame.registers(exit_.get("regs", {})),
                    mem=frame.memory(exit_.get("mem", [])),
                )
            end = frame.word(frame.argument(body, "end"), "end")
            if end not in ENDS:
                raise ProtocolError(f"end is one of {', '.join(ENDS)}, not {frame.shown(end)}")
            fault = escape(frame.word(frame.argument(body, "fault"), "fault")[:_SHOWN]) if end == "fault" else None
            reason = escape(frame.word(frame.argument(body, "reason"), "reason")[:_SHOWN]) if end == "stop" else ""
            return CallEnd(
                end=end,
                regs=frame.registers(body.get("regs", {})),
                mem=frame.memory(body.get("mem", [])),
                fault=fault,
                reason=reason,
            )

    def convert(self, gpa: int, pages: int, to: str) -> GuestAsk | LocalStep | Converted:
        """Ask a guest for a conversion."""
        return self._guest_end(*self._command("convert", gpa=hex(gpa), pages=hex(pages), to=to))

    def resume(self, regs: Mapping[str, int] | None = None, mem: Memory = ()) -> GuestAsk | LocalStep | Converted:
        """Answer a guest's call, or let it go on after a local step."""
        return self._guest_end(*self._command("resume", regs=frame.hex_regs(regs or {}), mem=frame.hex_mem(mem)))

    def _guest_end(self, kind: str, body: dict[str, Any], line: Said) -> GuestAsk | LocalStep | Converted:
        with _Reading("convert", line):
            if kind == "yield" and "step" in body:
                step = frame.word(body["step"], "step")
                if step not in STEPS:
                    raise ProtocolError(f"step is one of {', '.join(STEPS)}, not {frame.shown(step)}")
                return LocalStep(step=step, ranges=read_ranges(frame.argument(body, "ranges"), merged=False))
            if kind == "yield":
                return GuestAsk(
                    regs=frame.registers(frame.argument(body, "regs")), mem=frame.memory(body.get("mem", []))
                )
            if "end" in body:
                if body["end"] != "stop":
                    raise ProtocolError(f"a conversion ends with done or with end stop, not {frame.shown(body['end'])}")
                return Converted(done=False, stop=escape(frame.word(frame.argument(body, "reason"), "reason")[:_SHOWN]))
            done = frame.argument(body, "done")
            if not isinstance(done, bool):
                raise ProtocolError("done is true or false")
            return Converted(done=done, ranges=read_ranges(frame.argument(body, "ranges"), merged=False))

    def query(self) -> tuple[Ranges, Mapping[str, Pages]]:
        """Return the pages that are not private, and the facts that are true."""
        body, line = self._plain("query")
        with _Reading("query", line):
            facts = body.get("facts", {})
            if not isinstance(facts, dict):
                raise ProtocolError("facts is an object")
            found = {name: tuple(frame.page_ranges(item, f"fact {name}")) for name, item in facts.items()}
            ranges = read_ranges(frame.argument(body, "ranges"), merged=True)
            return ranges, {name: pages for name, pages in found.items() if pages}

    def stop(self) -> None:
        """Ask the implementation to end itself; one that does not is ended by closing."""
        self._plain("stop", seconds=min(self.timeout, 1.0))


class _Reading:
    """Turns what is wrong in an answer into a `ProtocolViolation` with its line."""

    def __init__(self, command: str, line: Said) -> None:
        self._command = command
        self._line = line

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ProtocolError):
            raise _violation(f"answer to `{self._command}`: {error.message}", self._line) from error


def _violation(message: str, said: Said) -> ProtocolViolation:
    line = said if isinstance(said, str) else frame.format_line(said).rstrip()
    shown = escape(line if len(line) <= _SHOWN else line[:_SHOWN] + "…")
    return ProtocolViolation(escape(message), line=shown)


__all__ = ["Client"]
