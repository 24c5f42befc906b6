"""The number of ranges and the clock over a replay, in bounded memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvabi.traces.analysis.results import RangeHistory, RangeSample, Timing

if TYPE_CHECKING:
    from hvabi.traces.event import Clock as Kind
    from hvabi.traces.event import TraceEvent

MAX_SAMPLES = 1024
"""Samples kept of the number of ranges; at it, neighbours are joined to the higher one."""


class RangeCounter:
    """Follows the number of ranges. No sample hides a peak: each is the highest of its calls."""

    def __init__(self, *, max_samples: int = MAX_SAMPLES) -> None:
        self.peak = 0
        self._max_samples = max_samples
        self._samples: list[RangeSample] = []
        self._per_sample = 1
        self._in_last = 0
        self._peak: RangeSample | None = None
        self._calls = 0
        self._now = 0

    def add(self, event: TraceEvent, ranges: int) -> None:
        """Note how many ranges there are after a call."""
        self._calls += 1
        self._now = ranges
        if self._in_last < self._per_sample and self._samples and ranges <= self._samples[-1].ranges:
            self._in_last += 1
            return
        sample = RangeSample(call=self._calls, place=event.place, time_seconds=event.time_seconds, ranges=ranges)
        if self._peak is None or ranges > self.peak:
            self._peak, self.peak = sample, ranges
        if self._samples and self._in_last < self._per_sample:
            self._samples[-1] = sample
            self._in_last += 1
            return
        if len(self._samples) == self._max_samples:
            self._samples = [
                first if first.ranges >= second.ranges else second
                for first, second in zip(self._samples[::2], self._samples[1::2], strict=True)
            ]
            self._per_sample *= 2
        self._samples.append(sample)
        self._in_last = 1

    def history(self) -> RangeHistory:
        """Return what was seen so far."""
        return RangeHistory(
            peak=self.peak,
            peak_at=self._peak,
            final=self._now,
            samples=tuple(self._samples),
            calls_per_sample=self._per_sample,
        )


class Clock:
    """Follows the times of events.

    Attributes:
        now: seconds since the first time, on a clock that never goes back.
        kind: what the times count from. Times of another clock in the same trace are passed over.

    """

    def __init__(self) -> None:
        self.now = 0.0
        self.kind: Kind | None = None
        self._calls = 0
        self._first: float | None = None
        self._part_start = self._last = 0.0
        self._before = 0.0
        self._backwards = 0

    def add(self, time: float | None, kind: Kind | None = None) -> None:
        """Note the time of a call; one without a time is passed over."""
        if time is None or (kind is not self.kind and self._first is not None and kind != self.kind):
            return
        if self._first is None:
            self._first = self._part_start = time
            self.kind = kind
        elif time < self._last:
            self._backwards += 1
            self._before += self._last - self._part_start
            self._part_start = time
        self._last = time
        self._calls += 1
        self.now = self._before + time - self._part_start

    @property
    def timed(self) -> bool:
        """Whether there was a time."""
        return self._first is not None

    def timing(self) -> Timing:
        """Return what was seen so far."""
        # Traces have nanoseconds at best; the rest is noise of the subtraction.
        span = round(self.now, 9)
        return Timing(
            timed_calls=self._calls,
            first_seconds=self._first,
            last_seconds=None if self._first is None else self._last,
            span_seconds=span,
            backwards=self._backwards,
            calls_per_second=self._calls / span if span > 0 else None,
        )
