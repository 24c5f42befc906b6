"""Replaying a trace into a backend: what the calls did to the state of the pages."""

from __future__ import annotations

from dataclasses import replace as replaced
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from hvabi.backend import (
    GPA_PAGES,
    PAGE_SHIFT,
    PAGE_SIZE,
    RANGE_BYTES,
    Backend,
    Conversion,
    PageState,
    Status,
)
from hvabi.traces.errors import TraceError
from hvabi.traces.event import RADIXES
from hvabi.traces.flips import FlipCounter
from hvabi.traces.history import Clock, RangeCounter
from hvabi.traces.reader import FORMATS, Trace, open_trace
from hvabi.traces.summary import (
    AmbiguitySummary,
    BrokenRule,
    CallPlace,
    FinalRange,
    Footprint,
    Reading,
    Refusal,
    TraceSummary,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hvabi.traces.event import Ambiguity, Radix, TraceEvent
    from hvabi.traces.report import ReadReport

Source = str | Path | tuple[str, BinaryIO]
"""A file by its path, or a name and a buffered binary stream, which the caller closes."""

MAX_RANGES = 1 << 18
"""Bound of the backend that a replay makes for itself. Real guests have tens of ranges."""

KEPT_NO_OPS = 100
"""Calls without effect that a summary lists; all are counted."""

KEPT_READINGS = 16
"""Different ambiguous numbers that a summary lists."""

TOP = 10
"""Runs of flip-flop pages that a summary singles out."""


class Replay:
    """A replay in progress: feed it events, ask it for a summary at any time.

    Args:
        radix: how ambiguous numbers are read.
        memory_bytes: size of the guest's memory in bytes, for the bitmap; by default the highest address seen.
        backend: where the calls are done; by default a fresh one of `MAX_RANGES` ranges on which all is memory.

    Raises:
        TraceError: ``bad-radix``, ``bad-memory``.

    """

    def __init__(
        self,
        *,
        radix: Radix = "decimal",
        memory_bytes: int | None = None,
        backend: Backend | None = None,
    ) -> None:
        if radix not in RADIXES:
            raise TraceError(
                f"{radix!r} is no radix", code="bad-radix", hint=f"say {' or '.join(RADIXES)}", radix=radix
            )
        if memory_bytes is not None and memory_bytes <= 0:
            raise TraceError(
                f"a guest has more memory than {memory_bytes} bytes", code="bad-memory", memory_bytes=memory_bytes
            )
        self.radix = radix
        self.memory_bytes = memory_bytes
        self.backend = backend if backend is not None else Backend(max_ranges=MAX_RANGES)
        self._calls = self._share = self._unshare = self._attempts = self._no_op = 0
        self._no_ops: list[CallPlace] = []
        self._refused: dict[Status, Refusal] = {}
        self._broken: dict[tuple[str, str], BrokenRule] = {}
        self._ambiguous = 0
        self._readings: dict[str, Reading] = {}
        self._highest_end = 0
        self._flips = FlipCounter()
        self._ranges = RangeCounter()
        self._clock = Clock()

    def feed(self, event: TraceEvent) -> None:
        """Do one call. One that is impossible is refused and counted, never an error."""
        if event.ambiguous is not None:
            self._note_ambiguity(event, event.ambiguous)
            event = event.read_as(self.radix)
        self._calls += 1
        self._attempts += event.attempt
        self._clock.add(event.time_seconds)
        if event.to is PageState.PRIVATE:
            self._unshare += 1
        elif event.to is not None:
            self._share += 1
        for rule in event.broken:
            self._note_broken(event, rule)
        self._convert(event)
        self._ranges.add(event, self.backend.count)

    def _convert(self, event: TraceEvent) -> None:
        start = event.gpa >> PAGE_SHIFT
        if event.refused is not None or event.to is None:
            self._refuse(event, event.refused or Status.INVALID)
            return
        if start + event.pages > GPA_PAGES:
            self._refuse(event, Status.OUT_OF_RANGE)
            return
        # A trace shows what was done, so pages outside the memory that the backend knows (MMIO) count too.
        outcome = self.backend.convert(Conversion(start, event.pages, event.to), absent="allow")
        if outcome.status is not Status.DONE:
            self._refuse(event, outcome.status)
            return
        if event.pages:
            self._highest_end = max(self._highest_end, start + event.pages << PAGE_SHIFT)
        if outcome.changed:
            self._flips.add(outcome.changed, event.place)
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

    def _note_ambiguity(self, event: TraceEvent, other: Ambiguity) -> None:
        self._ambiguous += 1
        known = self._readings.get(other.text)
        if known is not None:
            self._readings[other.text] = replaced(known, calls=known.calls + 1)
        elif len(self._readings) < KEPT_READINGS:
            self._readings[other.text] = Reading(
                text=other.text, decimal_pages=event.pages, hex_pages=other.in_hex.pages, calls=1
            )

    def summary(self, reads: Iterable[ReadReport] = ()) -> TraceSummary:
        """Return what was found so far; `reads` goes into it unchanged."""
        final = tuple(
            FinalRange(gpa=run.start << PAGE_SHIFT, end=run.end << PAGE_SHIFT, state=run.state)
            for run in self.backend.query()
        )
        ranges = self._ranges.history()
        guest_bytes = self._highest_end if self.memory_bytes is None else self.memory_bytes
        pages = -(-guest_bytes // PAGE_SIZE)
        return TraceSummary(
            reads=tuple(reads),
            radix=self.radix,
            calls=self._calls,
            share_calls=self._share,
            unshare_calls=self._unshare,
            attempts=self._attempts,
            no_op_calls=self._no_op,
            no_ops=tuple(self._no_ops),
            refused=tuple(self._refused.values()),
            broken_rules=tuple(self._broken.values()),
            ambiguity=AmbiguitySummary(calls=self._ambiguous, readings=tuple(self._readings.values())),
            flips=self._flips.summary(TOP),
            ranges=ranges,
            footprint=Footprint(
                guest_bytes=guest_bytes,
                guest_bytes_from="highest-gpa" if self.memory_bytes is None else "stated",
                highest_end=self._highest_end,
                bitmap_bytes=-(-pages // 8),
                bytes_per_range=RANGE_BYTES,
                peak_bytes=ranges.peak * RANGE_BYTES,
                final_bytes=ranges.final * RANGE_BYTES,
            ),
            final=final,
            final_pages=sum(run.end - run.gpa for run in final) >> PAGE_SHIFT,
            timing=self._clock.timing(),
        )


def _call_place(event: TraceEvent) -> CallPlace:
    return CallPlace(place=event.place, gpa=event.gpa, pages=event.pages, to=event.to)


def replay(
    events: Iterable[TraceEvent],
    *,
    radix: Radix = "decimal",
    memory_bytes: int | None = None,
    backend: Backend | None = None,
) -> TraceSummary:
    """Replay events and return what they did; arguments as for `Replay`."""
    run = Replay(radix=radix, memory_bytes=memory_bytes, backend=backend)
    for event in events:
        run.feed(event)
    return run.summary()


def replay_sources(
    sources: Iterable[Source],
    *,
    radix: Radix = "decimal",
    memory_bytes: int | None = None,
    backend: Backend | None = None,
    formats: Iterable[str] | None = None,
    progress: Callable[[str, int], None] | None = None,
) -> TraceSummary:
    """Read traces one after another as one log, replay them, and return what they did.

    Args:
        sources: files or streams, in the order of time.
        radix: as for `Replay`.
        memory_bytes: as for `Replay`.
        backend: as for `Replay`.
        formats: names of the formats to look for, all by default.
        progress: called with a source's name and the bytes read of it so far.

    Raises:
        TraceError: ``unreadable-trace``, ``binary-trace``; ``empty-trace`` when there is not a byte, ``no-events`` when
            no line could be read; ``bad-radix``, ``bad-memory``.
        UsageError: ``unknown-format``.

    """
    run = Replay(radix=radix, memory_bytes=memory_bytes, backend=backend)
    wanted = None if formats is None else tuple(formats)
    reads: list[ReadReport] = []
    for source in sources:
        if isinstance(source, tuple):
            reads.append(_read(run, source[1], source[0], wanted, progress))
        else:
            with open_trace(source) as stream:
                reads.append(_read(run, stream, str(source), wanted, progress))
    if not any(read.event_count for read in reads):
        raise _nothing(reads, wanted)
    return run.summary(reads)


def _read(
    run: Replay,
    stream: BinaryIO,
    name: str,
    formats: tuple[str, ...] | None,
    progress: Callable[[str, int], None] | None,
) -> ReadReport:
    on_bytes = None if progress is None else (lambda done: progress(name, done))
    trace = Trace(stream, name=name, formats=formats, progress=on_bytes)
    for event in trace:
        run.feed(event)
    return trace.report()


def _nothing(reads: list[ReadReport], formats: tuple[str, ...] | None) -> TraceError:
    names = ", ".join(read.source for read in reads[:3]) + (", …" if len(reads) > 3 else "")
    if not any(read.bytes_read for read in reads):
        return TraceError(
            f"{names}: nothing to read" if reads else "no trace was given",
            code="empty-trace",
            hint="the file is empty; look at what should have written it" if reads else "name a file",
        )
    lines = sum(read.lines for read in reads)
    problem = f"{names}: no call found in {lines} line{'' if lines == 1 else 's'}"
    malformed = sum(read.malformed for read in reads)
    for read in reads:
        if read.first_malformed:
            first = read.first_malformed[0]
            problem += f"; {malformed} could not be read, first in line {first.line}: {first.reason}"
            break
    known = "; ".join(f"{name}: {FORMATS[name]().title}" for name in (FORMATS if formats is None else formats))
    hints = [note.text for read in reads for note in read.notes if note.code == "base64"][:1]
    hints.append(f"lines looked for: {known}")
    return TraceError(problem, code="no-events", hint="; ".join(hints), lines=lines, malformed=malformed)


__all__ = ["Replay", "Source", "replay", "replay_sources"]
