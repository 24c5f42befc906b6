"""Bugs of a host's engine, each a class to be laid over the bundled host."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hvabi.abi.errors import CodecError, HvAbiError
from hvabi.adapters.asking import Asking
from hvabi.adapters.host import Host, _HostCall
from hvabi.adapters.values import Injection
from hvabi.adapters.work import Work
from hvabi.backend import (
    Backend,
    CallMemory,
    Conversion,
    ModelError,
    Status,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hvabi.abi.calls import Answer, Rule
    from hvabi.abi.expr import Expr
    from hvabi.abi.scope import Scope
    from hvabi.adapters.host import Account, HostCall
    from hvabi.adapters.values import HostAnswer


class LyingHost(Host):
    """A host whose calls are of another class, and whose answers are changed at the end."""

    call_class: ClassVar[type[_HostCall]] = _HostCall
    backend_class: ClassVar[type[Backend] | None] = None
    asks: ClassVar[bool] = True
    bounded: ClassVar[bool] = True

    def __init__(self, *args: Any, backend: Backend, **keywords: Any) -> None:
        super().__init__(*args, backend=backend, **keywords)
        if self.backend_class is not None or not self.bounded:
            made = self.backend_class or Backend
            bound = backend.max_ranges if self.bounded else None
            self.backend = made(
                layout=backend.layout,
                max_ranges=bound,
                max_fact_ranges=backend.max_fact_ranges,
                facts=self.abi.facts,
            )

    def call(
        self,
        regs: Mapping[str, int],
        *,
        cpl: int = 0,
        inject: Injection | None = None,
        exits: bool = False,
    ) -> HostCall:
        """Do the call the wrong way."""
        faults = self.faults(inject or Injection())
        answer = yield from self.call_class(self, regs, cpl, faults, exits=exits and self.asks).run()
        return self.changed(answer, regs)

    def faults(self, inject: Injection) -> Injection:
        """Return the faults that this host takes notice of."""
        return inject

    def changed(self, answer: HostAnswer, regs: Mapping[str, int]) -> HostAnswer:
        """Return the answer as this host gives it."""
        return answer


# -- answers --------------------------------------------------------------------------------------------------------


def clobbers(register: str) -> type[Host]:
    """Return a host that changes a register that is no output."""

    class Clobbers(LyingHost):
        def changed(self, answer: HostAnswer, regs: Mapping[str, int]) -> HostAnswer:
            """Change the register."""
            return replace(answer, regs={**answer.regs, register: regs.get(register, 0) ^ 0x5A5A})

    return Clobbers


def reads_low_half(register: str) -> type[Host]:
    """Return a host that looks at the low 32 bits of a register only."""

    class LowHalf(_HostCall):
        def register(self, name: str) -> int:
            """Cut it."""
            value = super().register(name)
            return value & 0xFFFFFFFF if name == register else value

    class ReadsLowHalf(LyingHost):
        call_class = LowHalf

    return ReadsLowHalf


def writes_low_half(register: str) -> type[Host]:
    """Return a host that answers the low 32 bits of a register only."""

    class WritesLowHalf(LyingHost):
        def changed(self, answer: HostAnswer, regs: Mapping[str, int]) -> HostAnswer:
            """Cut it."""
            if register not in answer.regs:
                return answer
            return replace(answer, regs={**answer.regs, register: answer.regs[register] & 0xFFFFFFFF})

    return WritesLowHalf


# -- what changes although the answer says that it did not ------------------------------------------------------------


class _ConvertsFirst(_HostCall):
    """Converts what is asked for and then refuses."""

    element_rules: ClassVar[bool] = False

    def refuse(self, rule: Rule, scope: Scope, work: Account | None = None) -> HostAnswer:
        """Refuse behind the work."""
        if (rule.scope != "call") == self.element_rules and rule.check not in ("readable", "selected"):
            _convert_next(self, work)
        return super().refuse(rule, scope, work)


class _ConvertsElement(_ConvertsFirst):
    element_rules = True


def _convert_next(call: _HostCall, work: Account | None) -> None:
    """Convert the first page that is not done yet, whatever is wrong with the request."""
    convert = call.definition.convert
    if convert is None or isinstance(work, Asking):
        return
    try:
        at = work or Work(call, convert)
        if convert.bits is not None:
            part = next(iter(at.parts()))
        elif convert.each is None:
            part = at._part(0, None, call.scope)
        else:
            index = at.index if work is not None else at._first()
            item = call.fields[convert.each][index]
            part = at._part(index, item, call.scope.with_locals(it=item, index=index))
        done = at.part_done if convert.each is not None else at.done
        if part.pages <= done:
            return
        if part.to is not None:
            call.host.backend.convert(Conversion(part.start + done, 1, part.to), absent="allow")
        elif convert.facts:
            at._set_facts(part, part.start + done, 1)
    except (HvAbiError, ModelError, IndexError, StopIteration):
        return


def reads_bits_backwards(block: str) -> type[Host]:
    """Return a host that takes the highest bit of each byte of a block for the first."""

    class Backwards(_HostCall):
        def read(self, block_: str, address: int, size: int) -> bytes:
            """Turn every byte round."""
            data = super().read(block_, address, size)
            return bytes(int(f"{byte:08b}"[::-1], 2) for byte in data) if block_ == block else data

    class ReadsBitsBackwards(LyingHost):
        """Takes the highest bit of each byte for the first page."""

        call_class = Backwards

    return ReadsBitsBackwards


class ConvertsRefused(LyingHost):
    """Changes pages although it refuses the call."""

    call_class = _ConvertsFirst


class ConvertsRefusedElement(LyingHost):
    """Changes pages of an element that it refuses."""

    call_class = _ConvertsElement


class _DoesMore(_HostCall):
    statuses: ClassVar[frozenset[Status]] = frozenset({Status.PARTIAL})

    def encode(
        self,
        answer: Answer,
        scope: Scope,
        *,
        status: Status,
        rule: str | None = None,
        work: Account | None = None,
    ) -> HostAnswer:
        """Do one page more than is said."""
        if work is not None and rule is None and status in self.statuses:
            _convert_next(self, work)
        return super().encode(answer, scope, status=status, rule=rule, work=work)


class _DoesRefused(_DoesMore):
    statuses = frozenset(Status) - {Status.DONE, Status.PARTIAL}


class DoesMoreThanItSays(LyingHost):
    """Stops on the way and has done a page more than it says."""

    call_class = _DoesMore


class ChangesWhatWasRefused(LyingHost):
    """Changes a page of the piece that could not be done."""

    call_class = _DoesRefused


# -- rules about single pages ------------------------------------------------------------------------------------------


class _JudgesPagesFirst(_HostCall):
    def first_bad_page(self, scope: Scope, low: int, high: int) -> tuple[int, Rule] | None:
        """Stop where it begins if any page is bad."""
        found = super().first_bad_page(scope, low, high)
        return None if found is None else (low, found[1])


class _DoesBadPage(_HostCall):
    def first_bad_page(self, scope: Scope, low: int, high: int) -> tuple[int, Rule] | None:
        """Stop one page too late."""
        found = super().first_bad_page(scope, low, high)
        return None if found is None else (found[0] + 1, found[1])


class _JudgesFirstPage(_HostCall):
    def first_bad_page(self, scope: Scope, low: int, high: int) -> tuple[int, Rule] | None:
        """Look at one page."""
        return super().first_bad_page(scope, low, low + 1)


class JudgesPagesFirst(LyingHost):
    """Judges every page before it changes any, although the pages before the bad one are to be done."""

    call_class = _JudgesPagesFirst


class DoesBadPage(LyingHost):
    """Changes the page that breaks a rule and stops behind it."""

    call_class = _DoesBadPage


class JudgesFirstPage(LyingHost):
    """Judges the first page of a range only."""

    call_class = _JudgesFirstPage


# -- memory -----------------------------------------------------------------------------------------------------------


class _ReadsAgain(_HostCall):
    def first_broken(self, kind: Literal["call", "element"], scope: Scope) -> Rule | None:
        """Judge what was read, and use what is read again."""
        found = super().first_broken(kind, scope)
        if kind == "call" and found is None:
            for name in self.fields.names:
                with contextlib.suppress(HvAbiError, ModelError):
                    self.fields[name]
            self.memory = CallMemory(self.host.memory)
            self.open(self.definition)
        return found

    def write_fields(self, fields: Mapping[str, Expr], scope: Scope) -> None:
        """Leave out what does not fit: a number that was read the second time can be anything."""
        with contextlib.suppress(CodecError):
            super().write_fields(fields, scope)


class ReadsTwice(LyingHost):
    """Judges what it reads first and does what it reads the second time."""

    call_class = _ReadsAgain


# -- faults -----------------------------------------------------------------------------------------------------------


class IgnoresVmm(LyingHost):
    """Does what its user space has refused."""

    asks = False

    def faults(self, inject: Injection) -> Injection:
        """Hear no refusal."""
        return replace(inject, vmm_errno=None)


class IgnoresEvents(LyingHost):
    """Does not look for pending interrupts."""

    def faults(self, inject: Injection) -> Injection:
        """See no event."""
        return replace(inject, event_after=None)


class EventOneChunkLate(LyingHost):
    """Looks for pending interrupts one chunk too late."""

    def faults(self, inject: Injection) -> Injection:
        """See the event late."""
        return inject if inject.event_after is None else replace(inject, event_after=inject.event_after + 1)
