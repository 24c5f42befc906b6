"""How often each page changed its state, in bounded memory and time."""

from __future__ import annotations

import heapq
from bisect import bisect_right
from itertools import islice
from typing import TYPE_CHECKING

from hvabi.backend import PAGE_SHIFT, RangeMap
from hvabi.traces.summary import FlipRun, FlipSummary

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hvabi.backend import Change, PageState
    from hvabi.traces.event import Place

MAX_RUNS = 1 << 16
"""Runs of pages with the same number of changes that are kept; counts are exact up to there."""

WORK_PER_CALL = 64
WORK_AT_ONCE = 1 << 20
"""Runs that calls may update: so many each on average, and so many above that."""


class FlipCounter:
    """Counts the changes of every page, kept as runs of pages with equal counts.

    Exact until more than `max_runs` runs would be needed, or calls update many more runs than calls of real guests
    do; from there on what does not fit is not counted, so each count is a lower bound.
    """

    def __init__(self, *, max_runs: int = MAX_RUNS) -> None:
        self.max_runs = max_runs
        self._map: RangeMap[int] = RangeMap(0)
        self._page_changes = 0
        self._work_left = WORK_AT_ONCE
        self._inexact_from: Place | None = None

    def add(self, changes: Iterable[Change[PageState]], place: Place) -> None:
        """Count the changes of one call."""
        self._work_left += WORK_PER_CALL
        for change in changes:
            self._page_changes += change.end - change.start
            runs = tuple(islice(self._map.runs(change.start, change.end), self._work_left + 1))
            whole = len(runs) <= self._work_left
            self._work_left -= min(len(runs), self._work_left)
            for run in runs if whole else ():
                if self._has_room(run.start, run.end, run.state + 1):
                    self._map.set(run.start, run.end, run.state + 1)
                else:
                    whole = False
            if not whole and self._inexact_from is None:
                self._inexact_from = place

    def _has_room(self, start: int, end: int, count: int) -> bool:
        # A set adds two runs at most, so far below the bound there is nothing to work out.
        if self._map.count + 2 <= self.max_runs:
            return True
        return self._map.would_count(start, end, count) <= self.max_runs

    def summary(self, top: int) -> FlipSummary:
        """Return the counts; `top` is the number of runs to single out."""
        runs = tuple(
            FlipRun(gpa=run.start << PAGE_SHIFT, pages=run.end - run.start, changes=run.state) for run in self._map
        )
        again = [run for run in runs if run.changes > 1]
        return FlipSummary(
            page_changes=self._page_changes,
            changed_pages=sum(run.pages for run in runs),
            flip_flop_pages=sum(run.pages for run in again),
            top=tuple(heapq.nsmallest(top, again, key=lambda run: (-run.changes, run.gpa))),
            runs=runs,
            max_runs=self.max_runs,
            inexact_from=self._inexact_from,
        )


def changes_of(summary: FlipSummary, gpa: int) -> int:
    """Return how often the page at a guest physical address changed its state."""
    index = bisect_right(summary.runs, gpa, key=lambda run: run.gpa) - 1
    if index < 0:
        return 0
    run = summary.runs[index]
    return run.changes if gpa < run.gpa + (run.pages << PAGE_SHIFT) else 0
