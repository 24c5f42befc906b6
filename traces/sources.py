"""Reading traces from files and streams into a replay."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from hvabi.traces.errors import TraceError
from hvabi.traces.reader import Trace
from hvabi.traces.readers import READERS
from hvabi.traces.replay import Replay
from hvabi.traces.streams import Following, open_trace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hvabi.traces.event import Sighting, TraceEvent
    from hvabi.traces.ndjson import Writer
    from hvabi.traces.report import ReadReport
    from hvabi.traces.summary import TraceSummary

Source = str | Path | tuple[str, BinaryIO]
"""A file by its path, or a name and a binary stream, which the caller closes."""


def replay(events: Iterable[TraceEvent | Sighting], **options: object) -> TraceSummary:
    """Replay events and return what they did; options as for `Replay`."""
    run = Replay(**options)  # type: ignore[arg-type]  # Replay's own check
    for event in events:
        run.feed(event)
    return run.summary()


def replay_sources(
    sources: Iterable[Source],
    *,
    formats: Iterable[str] | None = None,
    progress: Callable[[str, int], None] | None = None,
    writer: Writer | None = None,
    failed: Callable[[TraceError], None] | None = None,
    **options: object,
) -> TraceSummary:
    """Read traces one after another as one log, replay them, and return what they did.

    Args:
        sources: files or streams, in the order of time.
        formats: names of the readers to use, all by default.
        progress: called with a source's name and the bytes read of it so far.
        writer: gets everything that is found, in our own format.
        failed: called for a source that cannot be read; without it, and where it is the only one, the error is raised.
        options: as for `Replay`.

    Raises:
        TraceError: ``unreadable-trace``, ``binary-trace``, ``no-zstd``; ``empty-trace`` when there is not a byte,
            ``no-events`` when no line is of use; ``bad-radix``, ``bad-memory``.
        UsageError: ``unknown-format``.

    """
    run = Replay(**options)  # type: ignore[arg-type]  # Replay's own check
    wanted = None if formats is None else tuple(formats)
    every = list(sources)
    reads: list[ReadReport] = []
    for source in every:
        try:
            reads.append(_read_source(run, source, wanted, progress, writer))
        except TraceError as error:
            if failed is None or len(every) == 1:
                raise
            failed(error)
    if not any(read.event_count or read.seen for read in reads):
        raise _nothing(reads, wanted)
    return run.summary(reads)


def _read_source(
    run: Replay,
    source: Source,
    formats: tuple[str, ...] | None,
    progress: Callable[[str, int], None] | None,
    writer: Writer | None,
) -> ReadReport:
    if isinstance(source, tuple):
        return read_into(run, source[1], source[0], formats=formats, progress=progress, writer=writer)
    with open_trace(source) as stream:
        return read_into(run, stream, str(source), formats=formats, progress=progress, writer=writer)


def read_into(
    run: Replay,
    stream: BinaryIO | Following,
    name: str,
    *,
    formats: tuple[str, ...] | None = None,
    progress: Callable[[str, int], None] | None = None,
    writer: Writer | None = None,
    interruptible: bool = False,
) -> ReadReport:
    """Read one stream into a replay and return how that went; arguments as for `replay_sources`.

    With `interruptible`, a `KeyboardInterrupt` ends the stream and is no error.
    """
    on_bytes = None if progress is None else (lambda done: progress(name, done))
    trace = Trace(
        stream,  # type: ignore[arg-type]  # Following has what is used of a stream
        name=name,
        formats=formats,
        progress=on_bytes,
        malformed=None if writer is None else writer.record,
    )
    try:
        if interruptible or writer is not None:
            _feed(run, trace, writer)
        else:
            for piece in trace.pieces():
                run.feed_all([*piece])
    except KeyboardInterrupt:
        if not interruptible:
            raise
        _feed(run, trace.settle(), writer)
    report = trace.report()
    if writer is not None:
        writer.report(report)
    return report


def _feed(run: Replay, records: Iterable[TraceEvent | Sighting], writer: Writer | None) -> None:
    feed = run.feed
    if writer is None:
        for record in records:
            feed(record)
    else:
        for record in records:
            writer.record(record)
            feed(record)


def _nothing(reads: list[ReadReport], formats: tuple[str, ...] | None) -> TraceError:
    names = ", ".join(read.source for read in reads[:3]) + (", …" if len(reads) > 3 else "")
    if not any(read.bytes_read for read in reads):
        problem = next((note.text for read in reads for note in read.notes if note.code == "cut-short"), None)
        return TraceError(
            f"{names}: nothing to read" + (f": {problem}" if problem else "") if reads else "no trace was given",
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
    known = "; ".join(f"{name}: {READERS[name].title}" for name in (READERS if formats is None else formats))
    hints = [note.text for read in reads for note in read.notes if note.code in ("base64", "cut-short")][:1]
    hints.append(f"lines looked for: {known}")
    return TraceError(problem, code="no-events", hint="; ".join(hints), lines=lines, malformed=malformed)
