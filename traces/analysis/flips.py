"""How often each page changed its state, when, and for how long: exact as long as that is possible, then a sample.

Pages with one history are one run. Up to `EXACT_RUNS` runs every page is followed. Beyond, one page is followed of
every 2, then 4, 8, … neighbours, drawn at random once and for all, and numbers of pages are estimates. A range of
pages is a range in the sample too, so that a call costs no more for the pages that it has.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Any

from hvabi.backend import PAGE_SHIFT, PageState
from hvabi.traces.analysis.results import FlipRun, FlipSummary, PagesByChanges, PagesByTime

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hvabi.backend import Change
    from hvabi.traces.event import Place, TraceEvent

EXACT_RUNS = 1 << 17
"""Runs of pages with different histories that are followed; so at least as many pages are followed exactly."""

WORK_PER_CALL = 64
WORK_AT_ONCE = 1 << 20
"""Runs that calls may update: so many each on average, and so many above that. Beyond, the sample gets thinner."""

TIME_BOUNDS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Upper ends of the classes of times, in seconds; the last class has none."""

_END, _COUNT, _FIRST, _LAST = range(4)
_Run = list[Any]
"""End, changes, first and last time."""
_MASK = (1 << 64) - 1


def _draw(level: int, block: int) -> int:
    """Return 0 or 1: which of the two halves of a block is followed. Any fixed mixing of the bits would do."""
    mixed = (block * 0x9E3779B97F4A7C15 + level * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) & _MASK
    mixed = ((mixed ^ (mixed >> 31)) * 0xD6E8FEB86659FD93) & _MASK
    return mixed >> 63


class FlipCounter:
    """Counts the changes of every page."""

    def __init__(self, *, exact_runs: int = EXACT_RUNS) -> None:
        self.exact_runs = exact_runs
        self._runs: dict[int, _Run] = {}  # by start; page numbers, or places in the sample
        self._starts: list[int] = []
        self._level = 0  # one page of 2**level is followed
        self._page_changes = 0
        self._work_left = WORK_AT_ONCE
        self._sampled_from: Place | None = None
        self._shared_for = [0] * (len(TIME_BOUNDS) + 1)
        self._private_for = [0] * (len(TIME_BOUNDS) + 1)

    def add(self, changes: Iterable[Change[PageState]], now: float, call: TraceEvent | None = None) -> None:
        """Count the changes of one call at a time in seconds."""
        work = 0
        for start, end, before, after in changes:
            self._page_changes += end - start
            first, last = (start, end) if not self._level else self._sampled(start, end)
            shared, was_shared = after is not PageState.PRIVATE, before is not PageState.PRIVATE
            run = self._runs.get(first)
            if run is not None and run[_END] == last:
                self._update(run, last - first, now, shared, was_shared)
                work += 1
            elif first < last:
                work += self._touch(first, last, now, shared, was_shared)
        self._work_left += WORK_PER_CALL - work
        if self._work_left < 0 or len(self._runs) > self.exact_runs:
            self._thin(call)
        elif self._work_left > WORK_AT_ONCE:
            self._work_left = WORK_AT_ONCE

    def _update(self, run: _Run, size: int, now: float, shared: bool, was_shared: bool) -> None:
        if run[_COUNT] == 0:
            run[_FIRST] = now
        elif shared != was_shared:
            spent = self._private_for if shared else self._shared_for
            spent[bisect_left(TIME_BOUNDS, now - run[_LAST])] += size << self._level
        run[_COUNT] += 1
        run[_LAST] = now

    def _touch(self, first: int, last: int, now: float, shared: bool, was_shared: bool) -> int:
        """Update the runs in an interval, cut at its ends and filled where there are none; return how many."""
        starts, runs = self._starts, self._runs
        at = bisect_right(starts, first) - 1
        if at >= 0 and starts[at] < first < runs[starts[at]][_END]:
            self._cut(at, first)
        at = bisect_left(starts, first)
        work = 0
        while first < last:
            if at < len(starts) and starts[at] == first:
                if runs[first][_END] > last:
                    self._cut(at, last)
            else:
                end = min(last, starts[at]) if at < len(starts) else last
                runs[first] = [end, 0, now, now]
                starts.insert(at, first)
            run = runs[first]
            self._update(run, run[_END] - first, now, shared, was_shared)
            first = run[_END]
            at += 1
            work += 1
        return work

    def _cut(self, at: int, page: int) -> None:
        run = self._runs[self._starts[at]]
        self._runs[page] = run.copy()
        run[_END] = page
        self._starts.insert(at + 1, page)

    # -- the sample ---------------------------------------------------------------------------------------------

    def _sampled(self, start: int, end: int) -> tuple[int, int]:
        for level in range(self._level):
            start, end = _halved(level, start, end)
        return start, end

    def _thin(self, call: TraceEvent | None) -> None:
        """Follow half as many pages, until there is room again."""
        if self._level == 0:
            self._sampled_from = call.place if call is not None else None
        self._work_left = WORK_AT_ONCE
        while True:
            thinner: dict[int, _Run] = {}
            for start in self._starts:
                run = self._runs[start]
                first, last = _halved(self._level, start, run[_END])
                if first < last:
                    run[_END] = last
                    thinner[first] = run
            self._level += 1
            self._runs, self._starts = thinner, list(thinner)
            if len(thinner) <= self.exact_runs // 2 or self._level >= 52:
                return

    def _page_of(self, place: int) -> int:
        """Return the number of the page that a place in the sample stands for."""
        for level in range(self._level - 1, -1, -1):
            place = 2 * place + _draw(level, place)
        return place

    # -- results ------------------------------------------------------------------------------------------------

    def _merged(self, *, timed: bool) -> Iterator[FlipRun]:
        """Yield neighbours with the same number of changes as one."""
        first = end = count = 0
        weighed = 0.0
        for start in self._starts:
            run = self._runs[start]
            if run[_COUNT] == 0:
                continue
            if count and (start != end or run[_COUNT] != count):
                yield self._flip_run(first, end, count, weighed, timed=timed)
                count = 0
            if not count:
                first, count, weighed = start, run[_COUNT], 0.0
            weighed += (run[_LAST] - run[_FIRST]) * (run[_END] - start)
            end = run[_END]
        if count:
            yield self._flip_run(first, end, count, weighed, timed=timed)

    def _flip_run(self, first: int, end: int, count: int, weighed: float, *, timed: bool) -> FlipRun:
        # There and back is two changes.
        period = 2 * weighed / (end - first) / (count - 1) if timed and count > 2 else None
        return FlipRun(
            gpa=self._page_of(first) << PAGE_SHIFT,
            pages=end - first << self._level,
            changes=count,
            period_seconds=None if period is None else round(period, 9),
        )

    def summary(self, top: int, *, timed: bool = False) -> FlipSummary:
        """Return the counts; `top` is the number of runs to single out."""
        runs = tuple(self._merged(timed=timed))
        by_changes: dict[int, int] = {}
        for run in runs:
            step = (run.changes - 1).bit_length()
            by_changes[step] = by_changes.get(step, 0) + run.pages
        again = [run for run in runs if run.changes > 1]
        return FlipSummary(
            page_changes=self._page_changes,
            changed_pages=sum(run.pages for run in runs),
            flip_flop_pages=sum(run.pages for run in again),
            one_in=1 << self._level,
            exact_runs=self.exact_runs,
            sampled_from=self._sampled_from,
            by_changes=tuple(
                PagesByChanges(least=(1 << step >> 1) + 1, most=1 << step, pages=by_changes[step])
                for step in sorted(by_changes)
            ),
            shared_for=_times(self._shared_for) if timed else (),
            private_for=_times(self._private_for) if timed else (),
            top=tuple(heapq.nsmallest(top, again, key=lambda run: (-run.changes, run.gpa))),
            runs=runs,
        )


def _halved(level: int, start: int, end: int) -> tuple[int, int]:
    """Return the blocks of two of which the half that is followed lies in [start, end)."""
    first = (start >> 1) + (start & 1 and not _draw(level, start >> 1))
    last = (end >> 1) + (end & 1 and not _draw(level, end >> 1))
    return first, max(first, last)


def _times(counts: list[int]) -> tuple[PagesByTime, ...]:
    return tuple(
        PagesByTime(up_to_seconds=bound, pages=count)
        for bound, count in zip((*TIME_BOUNDS, None), counts, strict=True)
        if count
    )


def changes_of(summary: FlipSummary, gpa: int) -> int:
    """Return how often the page at a guest physical address changed its state; 0 for one that is not in the sample."""
    index = bisect_right(summary.runs, gpa, key=lambda run: run.gpa) - 1
    if index < 0:
        return 0
    run = summary.runs[index]
    return run.changes if gpa < run.gpa + (run.pages << PAGE_SHIFT) else 0
