"""The bundled guest talks to the bundled host over every transport, with stops on the way, and the state is checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hvabi.abi.errors import HvAbiError
from hvabi.adapters.registry import guest_class, host_class
from hvabi.adapters.values import GuestCall, GuestReply, GuestResult, Injection
from hvabi.backend import PAGE_SHIFT, Backend, Conversion, PageState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hvabi.abi.registry import Spec
    from hvabi.abi.specification import Abi
    from hvabi.adapters.guest import Guest
    from hvabi.adapters.host import Host

SCRATCH = (0x10, 0x20)
"""Pages of the guest's own area."""
SPANS = ((0x100, 1), (0x1FF, 3), (0x200, 512), (0x1FF, 1100))
"""First page and pages of the ranges that are converted: single, across a 2 MiB boundary, aligned, long."""
STOPS = (None, 0, 1, 5, 512)
"""Where the first call of a conversation is stopped, in pages."""


@dataclass(slots=True)
class Talked:
    """How many conversations took place, what was left out and why, and what went wrong."""

    count: int = 0
    skipped: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def converse(
    guest: Guest, host: Host, start_gpa: int, pages: int, to: PageState, stops: list[Injection]
) -> GuestResult:
    """Let a guest convert a range on a host; `stops` are faults for its first calls. A host's stop ends it."""
    conversation = guest.convert(start_gpa, pages, to)
    waiting = list(stops)
    calls = 0
    try:
        shown = next(conversation)
        while True:
            if not isinstance(shown, GuestCall):
                shown = conversation.send(GuestReply())
                continue
            calls += 1
            for gpa, data in shown.mem:
                host.memory.poke(gpa, data)
            answer = host.answer(shown.regs, inject=waiting.pop(0) if waiting else None)
            if answer.end == "replay":
                answer = host.answer({**shown.regs, **answer.regs})
            if answer.end != "return":
                # No answer reached the guest: its own registers would read as one.
                conversation.close()
                reason = answer.reason or answer.fault or "the call was not answered"
                return GuestResult(to=to, done=False, ranges=(), calls=calls, reason=f"the host: {reason}")
            shown = conversation.send(GuestReply(regs=answer.regs, mem=answer.mem))
    except StopIteration as end:
        result: GuestResult = end.value
        return result


def _expected(start: int, pages: int, to: PageState) -> list[tuple[int, int, PageState]]:
    """Return what is not private after a conversion by a guest that had [start-1, end+1) in the other state."""
    around = (start - 1, start + pages + 1)
    if to is PageState.PRIVATE:
        return [(around[0], start, PageState.SHARED), (start + pages, around[1], PageState.SHARED)]
    return [(start, start + pages, to)]


def talk_all(spec: Spec) -> Talked:
    """Run every span, state and stop over every transport of an ABI."""
    talked = Talked()
    call = spec.abi.convert_call
    if call is None or call.guest is None:
        talked.skipped.append("no guest role")
        return talked
    for transport in spec.abi.transports:
        for state in call.guest.states:
            for start, pages, stop in _plan(spec.abi, transport):
                _one(spec, transport, start, pages, PageState(state), stop, talked)
    return talked


def _plan(abi: Abi, transport: str) -> Iterator[tuple[int, int, int | None]]:
    call = abi.convert_call
    partial = call is not None and call.reports_parts(transport)
    for start, pages in SPANS:
        for stop in STOPS if partial else (None,):
            yield start, pages, stop


def _one(spec: Spec, transport: str, start: int, pages: int, to: PageState, stop: int | None, talked: Talked) -> None:
    label = f"{transport} {to.value} {pages} pages at {start << PAGE_SHIFT:#x} stop {stop}"
    try:
        guest = guest_class(spec.id)(spec, transport=transport, scratch=SCRATCH)
        if not guest.can_name(start << PAGE_SHIFT, pages, to):
            return
        host = host_class(spec.id)(spec, transport=transport, backend=Backend(facts=spec.abi.facts))
        if to is PageState.PRIVATE:
            host.backend.convert(Conversion(start - 1, pages + 2, PageState.SHARED), absent="allow")
        stops = [] if stop is None else [Injection(stop_after=stop)]
        result = converse(guest, host, start << PAGE_SHIFT, pages, to, stops)
    except HvAbiError as error:
        talked.failures.append(f"{label}: {error}")
        return
    talked.count += 1
    found = [(run.start, run.end, run.state) for run in host.backend.query()]
    if not result.done:
        talked.failures.append(f"{label}: the guest gave up: {result.reason}")
    elif found != _expected(start, pages, to):
        talked.failures.append(f"{label}: the host's pages are {found}")
    elif result.ranges != ((start, start + pages),):
        talked.failures.append(f"{label}: the guest believes {result.ranges}")


__all__ = ["SCRATCH", "Talked", "converse", "talk_all"]
