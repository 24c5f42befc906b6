"""The number of ranges and the clock over a replay, in bounded memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvabi.traces.summary import RangeHistory, RangeSample, Timing

if TYPE_CHECKING:
    from hvabi.traces.event import TraceEvent

MAX_SAMPLES = 1024
"""Samples kept of the number of ranges; at it, neighbours are joined to the higher one."""


class RangeCounter:
    """Follows the number of ranges. No sample hides a peak: each is the highest of its calls."""

    def __init__(self, *, max_samples: int = MAX_SAMPLES) -> None:
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
        if self._samples and self._in_last < self._per_sample and ranges <= self._samples[-1].ranges:
            self._in_last += 1
            return
        sample = RangeSample(call=self._calls, place=event.place, time_seconds=event.time_seconds, ranges=ranges)
        if self._peak is None or ranges > self._peak.ranges:
            self._peak = sample
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
            peak=self._peak.ranges if self._peak else 0,
            peak_at=self._peak,
            final=self._now,
            samples=tuple(self._samples),
            calls_per_sample=self._per_sample,
        )


class Clock:
    """Follows the times of events."""

    def __init__(self) -> None:
        self._calls = 0
        self._first: float | None = None
        self._part_start = self._last = 0.0
        self._before = 0.0
        self._backwards = 0

    def add(self, time: float | None) -> None:
        """Note the time of a call; one without a time is passed over."""
        if time is None:
            return
        if self._first is None:
            self._first = self._part_start = time
        elif time < self._last:
            self._backwards += 1
            self._before += self._last - self._part_start
            self._part_start = time
        self._last = time
        self._calls += 1

    def timing(self) -> Timing:
        """Return what was seen so far."""
        # Traces have nanoseconds at best; the rest is noise of the subtraction.
        span = round(self._before + self._last - self._part_start, 9)
        return Timing(
            timed_calls=self._calls,
            first_seconds=self._first,
            last_seconds=None if self._first is None else self._last,
            span_seconds=span,
            backwards=self._backwards,
            calls_per_second=self._calls / span if span > 0 else None,
        )
