"""Calls that were done in parts: how many answers said "go on", and how many of them brought nothing."""

from __future__ import annotations

import heapq
from functools import cache
from typing import TYPE_CHECKING

from hvabi.abi.errors import UsageError
from hvabi.abi.registry import load
from hvabi.traces.analysis.results import CallPlace, RetrySummary, Storm

if TYPE_CHECKING:
    from hvabi.traces.event import TraceEvent

KEPT = 10
"""Calls that a summary singles out."""

STORM = 16
"""Answers that say "go on" to one call, from which it counts as a storm."""


@cache
def patience(abi: str | None) -> int | None:
    """Return how many answers without progress a guest accepts in a row, as the ABI says; None where it does not."""
    if abi is None:
        return None
    try:
        call = load(abi).abi.convert_call
    except UsageError:
        return None
    return call.progress.stalls if call is not None and call.progress is not None else None


class Retries:
    """Counts answers that say "go on"."""

    def __init__(self) -> None:
        self._calls = self._answers = self._stalled = self._storms = self._partial = 0
        self._done_pages = 0
        self._kept: list[tuple[int, int, int, Storm]] = []

    def add(self, event: TraceEvent) -> None:
        """Note a call that was answered so, or that was done in part."""
        if event.done_pages is not None and event.done_pages < event.pages:
            self._partial += 1
        if not event.retries:
            return
        self._calls += 1
        self._answers += event.retries
        self._done_pages += event.done_pages or 0
        limit = patience(event.abi)
        stuck = limit is not None and event.stalls > limit
        self._stalled += event.stalls > 0
        if event.retries < STORM and not stuck and not event.stalls:
            return
        self._storms += event.retries >= STORM or stuck
        storm = Storm(
            call=CallPlace(place=event.place, gpa=event.gpa, pages=event.pages, to=event.to),
            retries=event.retries,
            stalls=event.stalls,
            allowed_stalls=limit,
            done_pages=event.done_pages,
        )
        item = (event.stalls, event.retries, -self._calls, storm)
        if len(self._kept) < KEPT:
            heapq.heappush(self._kept, item)
        else:
            heapq.heappushpop(self._kept, item)

    def summary(self) -> RetrySummary:
        """Return what was seen so far."""
        return RetrySummary(
            calls=self._calls,
            answers=self._answers,
            partial_calls=self._partial,
            stalled_calls=self._stalled,
            storms=self._storms,
            storm_answers=STORM,
            pages_per_answer=self._done_pages / self._answers if self._answers else None,
            worst=tuple(item[3] for item in sorted(self._kept, reverse=True)),
        )
