"""What the calls look like one after another: sizes, neighbours, repeats, bursts and rates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvabi.traces.analysis.results import CallPlace, CallsBySize, Rate, ShapeSummary

if TYPE_CHECKING:
    from hvabi.backend import PageState
    from hvabi.traces.event import TraceEvent

BURST_GAP = 1e-3
"""Seconds without a call that end a burst."""

WINDOWS = (1e-3, 1e-2, 1e-1, 1.0)
"""Widths in seconds of the windows in which calls are counted for the highest rate."""

MAX_SIZES = 1024
"""Different sizes that are counted one by one; others are counted together."""


class Shape:
    """Counts what calls have in common with the one before."""

    def __init__(self) -> None:
        self._sizes: dict[int, int] = {}
        self._other_sizes = 0
        self._last: tuple[int, int, PageState | None] = (-1, -1, None)
        self._chain = self._longest_chain = 1
        self._joinable = 0
        self._repeats = self._repeated = self._longest_repeat = 0
        self._first_repeat: CallPlace | None = None
        self._burst_start = self._burst_last = 0.0
        self._burst_calls = self._bursts = 0
        self._longest = (0, 0.0, 0.0)  # calls, start, end
        self._timed = 0
        self._window = [(-1, 0)] * len(WINDOWS)  # its number, and how many calls there were before it
        self._window_end = 0.0  # of the one that ends first, less what rounding may do
        self._rates = [(0, 0.0)] * len(WINDOWS)

    def add(self, event: TraceEvent, now: float, *, timed: bool) -> None:
        """Note a call at a time in seconds."""
        pages = event.pages
        count = self._sizes.get(pages)
        if count is not None:
            self._sizes[pages] = count + 1
        elif len(self._sizes) < MAX_SIZES:
            self._sizes[pages] = 1
        else:
            self._other_sizes += 1
        self._neighbours(event)
        if timed:
            self._times(now)

    def _neighbours(self, event: TraceEvent) -> None:
        gpa, to = event.gpa, event.to
        end = gpa + (event.pages << 12)
        last_gpa, last_end, last_to = self._last
        self._last = (gpa, end, to)
        if to is not last_to:
            self._chain = 1
            self._repeated = 0
        elif gpa == last_gpa and end == last_end:
            self._chain = 1
            self._repeats += 1
            self._repeated += 1
            self._longest_repeat = max(self._longest_repeat, self._repeated)
            if self._first_repeat is None:
                self._first_repeat = CallPlace(place=event.place, gpa=gpa, pages=event.pages, to=to)
        elif gpa == last_end or end == last_gpa:
            self._repeated = 0
            self._joinable += 1
            self._chain += 1
            self._longest_chain = max(self._longest_chain, self._chain)
        else:
            self._chain = 1
            self._repeated = 0

    def _times(self, now: float) -> None:
        if self._burst_calls and now - self._burst_last < BURST_GAP:
            self._burst_calls += 1
        else:
            self._end_burst()
            self._burst_start, self._burst_calls = now, 1
        if not self._burst_last <= now < self._window_end:
            self._next_windows(now)
        self._burst_last = now
        self._timed += 1

    def _next_windows(self, now: float) -> None:
        ends = []
        for index, width in enumerate(WINDOWS):
            number = int(now / width)
            at, before = self._window[index]
            if number != at:
                calls = self._timed - before
                if calls > self._rates[index][0]:
                    self._rates[index] = (calls, at * width)
                self._window[index] = (number, self._timed)
            ends.append((number + 1) * width)
        self._window_end = min(ends) * (1 - 1e-12)

    def _end_burst(self) -> None:
        if self._burst_calls > 1:
            self._bursts += 1
        if self._burst_calls > self._longest[0]:
            self._longest = (self._burst_calls, self._burst_start, self._burst_last)

    def summary(self) -> ShapeSummary:
        """Return what was seen so far."""
        bursts, longest = self._bursts, self._longest
        if self._burst_calls > 1:
            bursts += 1
        if self._burst_calls > longest[0]:
            longest = (self._burst_calls, self._burst_start, self._burst_last)
        rates = []
        for index, width in enumerate(WINDOWS):
            at, before = self._window[index]
            best = max(self._rates[index], (self._timed - before, at * width), key=lambda item: item[0])
            if best[0]:
                rates.append(Rate(window_seconds=width, most_calls=best[0], at_seconds=round(best[1], 9)))
        return ShapeSummary(
            sizes=tuple(CallsBySize(pages=pages, calls=self._sizes[pages]) for pages in sorted(self._sizes)),
            other_sizes=self._other_sizes,
            joinable_calls=self._joinable,
            longest_chain=self._longest_chain if self._joinable else 0,
            repeated_calls=self._repeats,
            longest_repeat=self._longest_repeat,
            first_repeat=self._first_repeat,
            burst_gap_seconds=BURST_GAP,
            bursts=bursts,
            longest_burst_calls=longest[0] if bursts else 0,
            longest_burst_seconds=round(longest[2] - longest[1], 9) if bursts else 0.0,
            highest_rates=tuple(rates),
        )
