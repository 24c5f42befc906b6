"""What a protected VM and its host do, step by step, on a real kernel and on the bundled host of `pkvm-mem-share`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from hvabi.abi.registry import load
from hvabi.adapters.registry import host_class
from hvabi.backend import PAGE_SHIFT, Backend, MemoryLayout, PageState
from hvabi.evidence.live.observations import Observation
from hvabi.evidence.live.pkvm import ABI, REVISION

if TYPE_CHECKING:
    from hvabi.evidence.live.pkvm import Vm

SHARE, UNSHARE = 0xC6000003, 0xC6000004
MEMORY = (0x200000, 0x10000)
"""The one slot of a step's VM: gpa and bytes."""
BITS = 40
"""Bits of a guest's address: what the emulated processor offers."""
_FIRST, _SECOND = 0x1111111111111111, 0x2222222222222222
Step = tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """Steps on one VM: the guest's ``call``, ``read`` and ``write``, the host's ``peek`` and ``poke``."""

    name: str
    steps: tuple[Step, ...]
    protected: bool = True


def _calls(*rows: tuple[int, ...]) -> tuple[Step, ...]:
    return tuple(("call", *(*row, 0, 0, 0)[:4]) for row in rows)


STEPS = (
    Steps(
        name="what there is",
        steps=_calls(
            (0x86000000,), (0x8600FF01,), (0xC6000002,), (0xC6000002, 1), (0xC6000002, 0, 1), (0xC6000002, 0, 0, 1),
            (0x86000003, 0x200000), (0xC6000005, 0x200000), (0xC6000040, 0x200000),
        ),
    ),
    Steps(
        name="a page goes there and back",
        steps=(
            ("write", 0x200000, _FIRST), ("peek", 0x200000), ("poke", 0x200000, _SECOND), *_calls((SHARE, 0x200000)),
            ("peek", 0x200000), ("poke", 0x200000, _SECOND), ("read", 0x200000), *_calls((UNSHARE, 0x200000)),
            ("peek", 0x200000), ("poke", 0x200000, _FIRST), ("read", 0x200000), *_calls((SHARE, 0x200000)),
            ("peek", 0x200000),
        ),
    ),
    Steps(
        name="nothing is idempotent",
        steps=(
            ("write", 0x200000, _FIRST),
            *_calls((UNSHARE, 0x200000), (SHARE, 0x200000), (SHARE, 0x200000)),
            *_calls((UNSHARE, 0x200000), (UNSHARE, 0x200000)),
            ("peek", 0x200000), ("read", 0x200000),
        ),
    ),
    Steps(
        name="pages that were never touched",
        steps=(
            ("peek", 0x203000), *_calls((UNSHARE, 0x203000), (SHARE, 0x203000)), ("peek", 0x203000), ("peek", 0x204000),
            ("write", 0x203000, _FIRST), ("peek", 0x203000), ("poke", 0x204000, _SECOND), ("read", 0x204000),
            ("peek", 0x204000),
        ),
    ),
    Steps(
        name="neighbours",
        steps=(
            *(("write", 0x205000 + 0x1000 * n, _FIRST + n) for n in range(3)), *_calls((SHARE, 0x206000)),
            *(("peek", 0x205000 + 0x1000 * n) for n in range(3)), *_calls((UNSHARE, 0x206000)),
            *(("read", 0x205000 + 0x1000 * n) for n in range(3)),
        ),
    ),
    Steps(
        name="refusals",
        steps=(
            ("write", 0x200000, _FIRST),
            *_calls(
                (SHARE, 0x200001), (SHARE, 0x200800), (SHARE, 0x200FFF), (SHARE, 0x200000, 1), (SHARE, 0x200000, 0, 1),
                (SHARE, 0x200000, 1 << 63), (UNSHARE, 0x200000, 1), (UNSHARE, 0x200800), (SHARE, 1 << 40),
                (SHARE, 1 << 48), (SHARE, 2**64 - 0x1000), (UNSHARE, 1 << 48), (UNSHARE, 2**64 - 0x1000),
                (UNSHARE, 0), (UNSHARE, 0x80000000), (SHARE, 0x800, 1), (SHARE, 1 << 48, 1),
            ),
            ("peek", 0x200000), ("read", 0x200000),
        ),
    ),
    Steps(
        name="no memory there",
        steps=(
            *_calls((SHARE, 0), (SHARE, 0x9000000), (SHARE, 0x80000000), (SHARE, (1 << 40) - 0x1000)),
            *_calls((SHARE, 0x9000000, 1), (SHARE, 0x9000800), (SHARE, 0x200000), (UNSHARE, 0x9000000)),
            ("peek", 0x200000),
        ),
    ),
    Steps(
        name="only the lower half is the function",
        steps=(
            ("write", 0x200000, _FIRST), *_calls((1 << 32 | SHARE, 0x200000)), ("peek", 0x200000),
            *_calls((1 << 63 | UNSHARE, 0x200000)), ("peek", 0x200000),
        ),
    ),
    Steps(
        name="a VM that is not protected",
        protected=False,
        steps=(
            ("write", 0x200000, _FIRST),
            *_calls((0x86000000,), (0x8600FF01,), (0xC6000002,)),
            *_calls((SHARE, 0x200000), (UNSHARE, 0x200000), (SHARE, 0x800)),
            ("peek", 0x200000),
        ),
    ),
)  # fmt: skip
"""All of them; the numbers are literals on purpose, so that what is observed depends on no specification."""


class Side(Protocol):
    """Who takes the steps."""

    def open(self, *, protected: bool) -> None:
        """Make a VM."""

    def step(self, word: str, *numbers: int) -> tuple[str, tuple[int, ...]]:
        """Take a step: ``ret`` with registers, ``abort`` with nothing, ``ok`` with a word, or ``err`` with an errno."""


class Real:
    """A machine's VM."""

    def __init__(self, vm: Vm) -> None:
        self._vm = vm

    def open(self, *, protected: bool) -> None:
        """Make a VM."""
        self._vm.do("open", int(protected), BITS)
        self._vm.do("slot", *MEMORY)

    def step(self, word: str, *numbers: int) -> tuple[str, tuple[int, ...]]:
        """Take a step."""
        first, found = self._vm.ask(word, *numbers)
        if first == "abort":
            return f"abort {found[0]:#x}", ()
        if word in ("read", "write"):
            return first, found[:1] if word == "read" else ()
        return first, found


class Model:
    """The bundled host; the host machine reads what is shared, and what the guest has not got yet.

    Args:
        profile: the profile of the kernel.

    """

    def __init__(self, profile: str) -> None:
        self._spec = load(f"{ABI}@{REVISION}", profile=profile)

    def open(self, *, protected: bool) -> None:
        """Make a VM whose pages the host has all, and has not mapped for the guest."""
        first, end = MEMORY[0] >> PAGE_SHIFT, sum(MEMORY) >> PAGE_SHIFT
        backend = Backend(layout=MemoryLayout([(first, end)]), facts=self._spec.abi.facts)
        backend.reset(ranges=[], facts={"unmapped": [(first, end)]})
        self._backend, self._protected = backend, protected
        self._host = host_class(ABI)(self._spec, backend=backend, config={"ipa_bits": BITS}, enabled=protected)
        self._words: dict[int, int] = {}

    def step(self, word: str, *numbers: int) -> tuple[str, tuple[int, ...]]:
        """Take a step."""
        if word == "call":
            return self._call(*numbers)
        gpa, *value = numbers
        page = gpa >> PAGE_SHIFT
        if word in ("read", "write"):
            self._backend.set_fact("unmapped", page, page + 1, value=False)
            if value:
                (self._words[gpa],) = value
                return "ret", ()
            return "ret", (self._words.get(gpa, 0),)
        untouched = self._backend.fact_uniform("unmapped", page, page + 1, value=True)
        if self._protected and not untouched and self._backend.state_at(page) is PageState.PRIVATE:
            return "err", (_EFAULT,)
        if value:
            (self._words[gpa],) = value
            return "ok", (0,)
        return "ok", (self._words.get(gpa, 0),)

    def _call(self, *values: int) -> tuple[str, tuple[int, ...]]:
        regs = {f"x{number}": value for number, value in enumerate(values)}
        answer = self._host.answer(regs)
        if answer.end == "replay":
            page = values[1] >> PAGE_SHIFT
            self._backend.set_fact("unmapped", page, page + 1, value=False)
            answer = self._host.answer({**regs, **answer.regs})
        if answer.end != "return":
            return answer.fault or answer.end, ()
        return "ret", tuple(answer.regs.get(name, 0) for name in regs)


_EFAULT = 14


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One step: what happened on the kernel, and what the bundled host makes of it."""

    observation: Observation
    wanted: list[Any]

    @property
    def differs(self) -> bool:
        """Whether the two are not the same."""
        ours, theirs = self.wanted[0], self.observation.found[0]
        # The syndrome is the processor's word for it; that it is an abort is the hypervisor's.
        return [ours["end"], ours["words"]] != [theirs["end"].split(" ")[0], theirs["words"]]


def rows_of(steps: Steps, real: Side, model: Side) -> list[Row]:
    """Take the steps on both."""
    real.open(protected=steps.protected)
    model.open(protected=steps.protected)
    out = []
    for number, (word, *numbers) in enumerate(steps.steps, 1):
        asked = {"scenario": steps.name, "number": number, "step": [word, *map(hex, numbers)]}
        found, wanted = real.step(word, *numbers), model.step(word, *numbers)
        out.append(
            Row(
                observation=Observation(request=_line(asked), answers=(_line(_words(found)),)),
                wanted=[_words(wanted)],
            )
        )
    return out


def _words(found: tuple[str, tuple[int, ...]]) -> dict[str, Any]:
    return {"end": found[0], "words": [hex(number) for number in found[1]]}


def _line(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
