"""Replaying a trace: what the calls did to the state of the pages."""

from __future__ import annotations

from dataclasses import replace as replaced
from typing import TYPE_CHECKING

from hvabi.backend import GPA_PAGES, PAGE_SHIFT, PAGE_SIZE, RANGE_BYTES, PageState, RangeMap, Status
from hvabi.traces.analysis.echoes import Echoes
from hvabi.traces.analysis.flips import FlipCounter
from hvabi.traces.analysis.footprint import RB_NODE_BYTES, XA_NODE_BYTES, complement, xarray_nodes
from hvabi.traces.analysis.history import Clock, RangeCounter
from hvabi.traces.analysis.pool import Pool
from hvabi.traces.analysis.results import CallPlace, Footprint, Structure
from hvabi.traces.analysis.retries import Retries
from hvabi.traces.analysis.shape import Shape
from hvabi.traces.analysis.timeline import Timeline
from hvabi.traces.errors import TraceError
from hvabi.traces.event import RADIXES, Place, Sighting, TraceEvent
from hvabi.traces.summary import (
    AmbiguitySummary,
    BrokenRule,
    FinalRange,
    OpenReading,
    Refusal,
    SeenGroup,
    TraceSummary,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hvabi.backend import Change
    from hvabi.traces.event import Ambiguity, Radix
    from hvabi.traces.report import ReadReport

MAX_RANGES = 1 << 18
"""Most ranges that a replay keeps. Real guests have tens of ranges."""

KEPT_NO_OPS = 100
"""Calls without effect that a summary lists; all are counted."""

KEPT_READINGS = 16
"""Different open readings that a summary lists."""

KEPT_GROUPS = 256
"""Groups of sightings that are counted apart."""

TOP = 10
"""Runs of flip-flop pages, and ranges of a pool, that a summary singles out."""


_Done = tuple["TraceEvent", float, bool, "tuple[Change[PageState], ...] | None", int]
"""A call that was done: when, whether the trace has a clock, what changed, how many ranges there are then."""


class Replay:
    """A replay in progress: feed it what a trace shows, ask it for a summary at any time.

    Args:
        radix: how numbers of unknown radix are read.
        read_as: other readings to choose, by `Ambiguity.by`.
        memory_bytes: size of the guest's memory in bytes, for the bitmap; by default the highest address seen.
        max_ranges: bound on the ranges that are not private; a call that needs more is refused.
        by_calls: whether pictures count calls and not time; by default where the trace has no clock.
        with_map: whether the memory map over time is worked out.

    Raises:
        TraceError: ``bad-radix``, ``bad-memory``.

    """

    def __init__(
        self,
        *,
        radix: Radix = "decimal",
        read_as: Iterable[str] = (),
        memory_bytes: int | None = None,
        max_ranges: int = MAX_RANGES,
        by_calls: bool | None = None,
        with_map: bool = True,
    ) -> None:
        if radix not in RADIXES:
            raise TraceError(
                f"{radix!r} is no radix", code="bad-radix", hint=f"say {' or '.join(RADIXES)}", radix=radix
            )
        if memory_bytes is not None and memory_bytes <= 0:
            raise TraceError(
                f"a guest has more memory than {memory_bytes} bytes", code="bad-memory", memory_bytes=memory_bytes
            )
        self.read_as = tuple(dict.fromkeys((*(["hex"] if radix == "hex" else []), *read_as)))
        self.memory_bytes = memory_bytes
        self._max_ranges = max_ranges
        self._map: RangeMap[PageState] = RangeMap()
        self._calls = self._share = self._unshare = self._attempts = self._no_op = 0
        self._done = self._failed = self._implicit = self._echoed = self._unexpected = 0
        self._no_ops: list[CallPlace] = []
        self._refused: dict[Status, Refusal] = {}
        self._broken: dict[tuple[str | None, str], BrokenRule] = {}
        self._ambiguous = 0
        self._readings: dict[tuple[str, ...], OpenReading] = {}
        self._seen: dict[tuple[str, str, str], list[int]] = {}
        self._seen_first: dict[tuple[str, str, str], tuple[Place, str]] = {}
        self._highest_end = 0
        self._snapped = 0
        self._xarray_peak = (0, 0)
        self._flips = FlipCounter()
        self._ranges = RangeCounter()
        self._clock = Clock()
        self._echoes = Echoes()
        self._shape = Shape()
        self._pool = Pool()
        self._retries = Retries()
        self._timeline = Timeline(by_calls=by_calls, with_map=with_map)

    @property
    def calls(self) -> int:
        """Calls so far."""
        return self._calls

    @property
    def ranges(self) -> int:
        """Ranges that are not private now."""
        return self._map.count

    def feed(self, event: TraceEvent | Sighting) -> None:
        """Do one call, or note what else was seen. A call that is impossible is refused and counted, never an error."""
        self.feed_all((event,))

    def feed_all(self, events: Iterable[TraceEvent | Sighting]) -> None:
        """Do the same for many, one after another.

        The calls are done first and then looked at by one analysis after the other: each stays in the processor's
        caches so, which makes a long log a fifth faster.
        """
        done = [call for call in map(self._do, events) if call is not None]
        add = self._shape.add
        for event, now, timed, _, _ in done:
            add(event, now, timed=timed)
        flips, pool = self._flips.add, self._pool
        for event, now, _, changed, _ in done:
            if changed:
                flips(changed, now, event)
        for event, now, _, changed, _ in done:
            if changed:
                (pool.unshare if event.to is PageState.PRIVATE else pool.share)(
                    event.gpa >> PAGE_SHIFT, event.pages, now
                )
        note = self._timeline.add
        for event, now, timed, changed, ranges in done:
            note(now, event.to, changed or (), ranges, timed=timed)

    def _do(self, event: TraceEvent | Sighting) -> _Done | None:
        """Do one call and count it; None for what is no call, and for an echo of one."""
        if isinstance(event, Sighting):
            self._note_seen(event)
            return None
        if event.ambiguous is not None:
            self._note_ambiguity(event, event.ambiguous)
            event = event.read_as(*self.read_as)
        if event.time_seconds is not None:
            self._clock.add(event.time_seconds, event.clock)
        changed = self._convert(event)
        if changed is not None and not changed and self._echoes.is_echo(event):
            self._echoed += 1
            return None
        self._echoes.note(event)
        self._calls += 1
        if event.attempt:
            self._attempts += 1
        elif event.outcome is Status.DONE:
            self._done += 1
        else:
            self._failed += 1
        if event.to is PageState.PRIVATE:
            self._unshare += 1
        elif event.to is not None:
            self._share += 1
        if event.broken:
            for rule in event.broken:
                self._note_broken(event, rule)
        if event.implicit:
            self._implicit += 1
        if event.retries or event.done_pages is not None:
            self._retries.add(event)
        if changed is not None and not changed:
            self._note_no_op(event)
        ranges = self._map.count
        self._ranges.add(event, ranges)
        return event, self._clock.now, self._clock.timed, changed, ranges

    def _convert(self, event: TraceEvent) -> tuple[Change[PageState], ...] | None:
        """Return what a call changed, or None where it could not be done or was not."""
        start, pages, to = event.gpa >> PAGE_SHIFT, event.pages, event.to
        if event.refused is not None or to is None:
            self._refuse(event, event.refused or Status.INVALID)
            return None
        if not event.attempt and event.outcome is not Status.DONE:
            pages = event.done_pages or 0
            if not pages:
                return None
        end = start + pages
        if end > GPA_PAGES:
            self._refuse(event, Status.OUT_OF_RANGE)
            return None
        states = self._map
        count = states.count
        if count + 2 > self._max_ranges and states.would_count(start, end, to) > self._max_ranges:
            self._refuse(event, Status.LIMIT)
            return None
        if count > self._snapped * 1.1 and count == self._ranges.peak:
            self._snap()
        if pages and end << PAGE_SHIFT > self._highest_end:
            self._highest_end = end << PAGE_SHIFT
        return states.set(start, end, to)

    # -- notes --------------------------------------------------------------------------------------------------

    def _note_no_op(self, event: TraceEvent) -> None:
        if event.implicit:
            self._unexpected += 1
            return
        self._no_op += 1
        if len(self._no_ops) < KEPT_NO_OPS:
            self._no_ops.append(_call_place(event))

    def _refuse(self, event: TraceEvent, status: Status) -> None:
        known = self._refused.get(status)
        self._refused[status] = (
            replaced(known, calls=known.calls + 1)
            if known
            else Refusal(status=status, calls=1, first=_call_place(event))
        )

    def _note_broken(self, event: TraceEvent, rule: str) -> None:
        known = self._broken.get((event.abi, rule))
        self._broken[event.abi, rule] = (
            replaced(known, calls=known.calls + 1)
            if known
            else BrokenRule(abi=event.abi, rule=rule, calls=1, first=_call_place(event))
        )

    def _note_ambiguity(self, event: TraceEvent, open_: Ambiguity) -> None:
        self._ambiguous += 1
        key = (open_.field, open_.text, open_.by)
        known = self._readings.get(key)
        if known is not None:
            self._readings[key] = replaced(known, calls=known.calls + 1)
        elif len(self._readings) < KEPT_READINGS:
            self._readings[key] = OpenReading(
                field=open_.field,
                text=open_.text,
                chosen=open_.chosen,
                by=open_.by,
                pages=event.pages,
                to=event.to,
                other_pages=open_.other.pages,
                other_to=open_.other.to,
                calls=1,
            )

    def _note_seen(self, sighting: Sighting) -> None:
        key: tuple[str, str, str] = (sighting.kind, sighting.name, sighting.result)
        counted = self._seen.get(key)
        if counted is None and len(self._seen) >= KEPT_GROUPS:
            key = (sighting.kind, "others", "")
            counted = self._seen.get(key)
        if counted is None:
            self._seen[key] = [1]
            self._seen_first[key] = (_place(sighting), sighting.text)
        else:
            counted[0] += 1

    def _snap(self) -> None:
        """Work out the XArrays now, when there are about as many ranges as there ever were."""
        self._snapped = self._map.count
        self._xarray_peak = self._xarrays()

    def _xarrays(self) -> tuple[int, int]:
        shared = [(run.start, run.end) for run in self._map]
        return xarray_nodes(shared), xarray_nodes(complement(shared, self._guest_pages))

    @property
    def _guest_pages(self) -> int:
        return -(-(self._highest_end if self.memory_bytes is None else self.memory_bytes) // PAGE_SIZE)

    # -- results ------------------------------------------------------------------------------------------------

    def summary(self, reads: Iterable[ReadReport] = ()) -> TraceSummary:
        """Return what was found so far; `reads` goes into it unchanged."""
        final = tuple(
            FinalRange(gpa=run.start << PAGE_SHIFT, end=run.end << PAGE_SHIFT, state=run.state) for run in self._map
        )
        timed = self._clock.timed
        return TraceSummary(
            reads=tuple(reads),
            read_as=self.read_as,
            calls=self._calls,
            share_calls=self._share,
            unshare_calls=self._unshare,
            attempts=self._attempts,
            done_calls=self._done,
            failed_calls=self._failed,
            implicit_calls=self._implicit,
            echoes=self._echoed,
            unexpected=self._unexpected,
            no_op_calls=self._no_op,
            no_ops=tuple(self._no_ops),
            seen=tuple(
                SeenGroup(kind=kind, name=name, result=result, lines=count[0], first=place, text=text)
                for ((kind, name, result), count), (place, text) in zip(
                    self._seen.items(), self._seen_first.values(), strict=True
                )
            ),
            refused=tuple(self._refused.values()),
            broken_rules=tuple(self._broken.values()),
            ambiguity=AmbiguitySummary(calls=self._ambiguous, readings=tuple(self._readings.values())),
            flips=self._flips.summary(TOP, timed=timed),
            ranges=self._ranges.history(),
            footprint=self._footprint(),
            final=final,
            final_pages=sum(run.end - run.gpa for run in final) >> PAGE_SHIFT,
            timing=self._clock.timing(),
            shape=self._shape.summary(),
            retries=self._retries.summary(),
            pool=self._pool.summary(TOP, timed=timed),
            timeline=self._timeline.summary(),
        )

    def _footprint(self) -> Footprint:
        ranges = self._ranges.history()
        guest_bytes = self._highest_end if self.memory_bytes is None else self.memory_bytes
        shared, private = self._xarrays()
        at_peak, snapped = self._xarray_peak, self._snapped
        if self._map.count > snapped:
            at_peak, snapped = (shared, private), self._map.count
        return Footprint(
            guest_bytes=guest_bytes,
            guest_bytes_from="highest-gpa" if self.memory_bytes is None else "stated",
            highest_end=self._highest_end,
            bitmap_bytes=-(-self._guest_pages // 8),
            bytes_per_range=RANGE_BYTES,
            peak_bytes=ranges.peak * RANGE_BYTES,
            final_bytes=ranges.final * RANGE_BYTES,
            rb_tree=Structure(peak_bytes=ranges.peak * RB_NODE_BYTES, final_bytes=ranges.final * RB_NODE_BYTES),
            xarray_shared=Structure(
                peak_bytes=max(at_peak[0], shared) * XA_NODE_BYTES, final_bytes=shared * XA_NODE_BYTES
            ),
            xarray_private=Structure(
                peak_bytes=max(at_peak[1], private) * XA_NODE_BYTES, final_bytes=private * XA_NODE_BYTES
            ),
            xarray_ranges=snapped,
        )


def _place(sighting: Sighting) -> Place:
    return Place(source=sighting.source, line=sighting.line)


def _call_place(event: TraceEvent) -> CallPlace:
    return CallPlace(place=event.place, gpa=event.gpa, pages=event.pages, to=event.to)
