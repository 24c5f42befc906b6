"""The bundled guest talks to the bundled host over every transport, with stops on the way, and the state is checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hvabi.abi.errors import HvAbiError
from hvabi.adapters.converse import converse
from hvabi.adapters.registry import guest_class, host_class
from hvabi.adapters.values import Injection
from hvabi.backend import PAGE_SHIFT, Backend, Conversion, PageState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hvabi.abi.registry import Spec
    from hvabi.abi.specification import Abi
    from hvabi.adapters.guest import Guest

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


Runs = list[tuple[int, int, PageState]]


def _before(start: int, pages: int, to: PageState) -> Runs:
    """Return what is not private before: what shall be private is shared, with a page on either side."""
    return [(start - 1, start + pages + 1, PageState.SHARED)] if to is PageState.PRIVATE else []


def _expected(start: int, pages: int, to: PageState) -> Runs:
    """Return what is not private after a conversion."""
    if to is PageState.PRIVATE:
        return [(start - 1, start, PageState.SHARED), (start + pages, start + pages + 1, PageState.SHARED)]
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
        for low, high, state in _before(start, pages, to):
            host.backend.convert(Conversion(low, high - low, state), absent="allow")
        if _only_facts(guest) and to is not PageState.PRIVATE:
            converse(guest, host, start << PAGE_SHIFT, pages, PageState.PRIVATE)  # what is taken back was given before
        stops = [] if stop is None else [Injection(stop_after=stop)]
        result = converse(guest, host, start << PAGE_SHIFT, pages, to, stops)
    except HvAbiError as error:
        talked.failures.append(f"{label}: {error}")
        return
    talked.count += 1
    found = [(run.start, run.end, run.state) for run in host.backend.query()]
    wanted = _before(start, pages, to) if _only_facts(guest) else _expected(start, pages, to)
    if stop == 0 and not result.done and not result.ranges and found == _before(start, pages, to):
        return  # an ABI that has no way to say "nothing yet": a refusal, and nothing has changed
    if not result.done:
        talked.failures.append(f"{label}: the guest gave up: {result.reason}")
    elif found != wanted:
        talked.failures.append(f"{label}: the host's pages are {found}")
    elif result.ranges != ((start, start + pages),):
        talked.failures.append(f"{label}: the guest believes {result.ranges}")


def _only_facts(guest: Guest) -> bool:
    """Whether the call changes what is known of pages, and not whether they are private or shared."""
    convert = guest.definition.convert
    return convert is not None and convert.to is None


__all__ = ["SCRATCH", "Talked", "talk_all"]
