"""Reading a trace: the lines of a source offered to the readers of all formats."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

from hvabi.abi.errors import UsageError
from hvabi.traces.blocks import IDLE, Blocks, LineSource, has_long_line
from hvabi.traces.event import Malformed, Sighting, TraceEvent
from hvabi.traces.quoted_printable import QuotedPrintable
from hvabi.traces.readers import READERS
from hvabi.traces.readers.base import Line, LineReader
from hvabi.traces.report import Note, ReadReport
from hvabi.traces.scan import Scanner, Starts, starts
from hvabi.traces.text import clean, is_blank, is_elision, without_colours

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from hvabi.traces.event import Record

KEPT_MALFORMED = 10
"""Malformed records that a report shows; all are counted."""


class Trace:
    """The events of one source. Iterate once; `report()` says at any time what was read so far.

    Args:
        stream: a stream in binary mode; the caller closes it. Packed ones are unpacked.
        name: how events and messages call the source.
        formats: names of the readers to use; all by default.
        progress: called with the bytes read so far (packed, where packed), about once a MiB and at the end.
        malformed: called with each malformed record.

    Raises:
        UsageError: ``unknown-format``.
        TraceError: from the iterator, as `Blocks`.

    """

    def __init__(
        self,
        stream: BinaryIO,
        *,
        name: str,
        formats: Iterable[str] | None = None,
        progress: Callable[[int], None] | None = None,
        malformed: Callable[[Malformed], None] | None = None,
    ) -> None:
        self.name = name
        self._blocks = Blocks(stream, name=name, progress=progress)
        self._lines = LineSource()
        self._decoder = QuotedPrintable()
        self._readers = [_reader(name) for name in (READERS if formats is None else formats)]
        self._waiters = [reader for reader in self._readers if type(reader).waiting is not LineReader.waiting]
        self._scanner = Scanner([(mark, reader) for reader in self._readers for mark in reader.marks])
        self._offers = [(mark, reader) for reader in self._readers for mark in reader.marks]
        self._repeats: LineReader | None = None  # that knew most lines of the last block before
        self._on_malformed = malformed
        self._events: dict[str, int] = {}
        self._malformed = self._seen = 0
        self._kept: list[Malformed] = []
        self._elisions = self._blank = self._unrecognised = 0
        self._first_elision: int | None = None
        self._last_record = 0

    def __iter__(self) -> Iterator[TraceEvent | Sighting]:
        for piece in self.pieces():
            yield from piece

    def pieces(self) -> Iterator[Iterator[TraceEvent | Sighting]]:
        """Yield the events block by block; each is to be used up before the next one is asked for."""
        for block in self._blocks:
            if block is IDLE:
                yield self.settle()
                continue
            begins = starts(block)
            if b"\x1b" in block or has_long_line(block) or not self._decoder.passes(block, header=begins.header):
                yield self._slowly(block)
            elif self._repeats is not None and b"\r" not in block:
                yield self._again(block, self._repeats)
            else:
                yield self._quickly(block, begins)
        for raw in self._decoder.flush():
            yield self._offer(raw.number, raw.data, cut=raw.cut)
        yield self.settle()

    def _quickly(self, block: bytes, begins: Starts) -> Iterator[TraceEvent | Sighting]:
        """Look at the lines that have a mark; the others are only counted."""
        before = self._lines.lines
        self._lines.skip(block)
        known, counted, number, end = 0, 0, before, -1
        again, knows = 0, None
        for at, reader in self._scanner.find(block):
            if at < end:
                continue  # the line had an earlier mark
            start = block.rfind(b"\n", 0, at) + 1
            end = block.find(b"\n", at)
            number += block.count(b"\n", counted, start)
            counted = start
            data = block[start:end].rstrip(b"\r")
            event = reader.known(self.name, number, data)
            if event is not None:
                again, knows = again + 1, reader
                records: tuple[Record | None, ...] = (event,)
            else:
                line = Line(self.name, number, clean(data))
                records = tuple(reader.read(line))
                if not records:
                    reader, records = self._others(reader, line, block[start:end])
            if records:
                known += 1
                only = records[0]
                if len(records) == 1 and type(only) is TraceEvent and not self._waits():
                    # Nearly all lines are so, and there may be millions of them.
                    self._last_record = number
                    self._events[only.format] = self._events.get(only.format, 0) + 1
                    yield only
                else:
                    yield from self._sort(reader, records, number)
        self._repeats = knows if again * 2 > self._lines.lines - before else None
        self._blank += begins.blank
        if begins.elisions:
            self._elisions += len(begins.elisions)
            if self._first_elision is None:
                self._first_elision = before + block.count(b"\n", 0, begins.elisions[0])
        self._unrecognised += self._lines.lines - before - known - begins.blank - len(begins.elisions)

    def _again(self, block: bytes, reader: LineReader) -> Iterator[TraceEvent | Sighting]:
        """Look at every line, where nearly all say what one reader knows already; what is new goes the usual way."""
        before = self._lines.lines
        self._lines.skip(block)
        every = self._lines.lines
        new: list[bytes] = []
        waits, again = self._waits(), 0
        for number, data in enumerate(block[1:-1].split(b"\n"), before + 1):
            event = reader.known(self.name, number, data)
            if event is None:
                new.append(data)
                continue
            if new:
                yield from self._new(new, number - 1 - len(new))
                self._lines.lines = every
                waits, new = self._waits(), []
            again += 1
            if waits:
                yield from self._sort(reader, (event,), number)
                waits = self._waits()
                continue
            self._last_record = number
            self._events[event.format] = self._events.get(event.format, 0) + 1
            yield event
        if new:
            yield from self._new(new, every - len(new))
        self._repeats = reader if again * 2 > every - before else None

    def _new(self, lines: list[bytes], before: int) -> Iterator[TraceEvent | Sighting]:
        """Look at lines in the middle of a block, of which `before` come earlier."""
        self._lines.lines = before
        part = b"\n%b\n" % b"\n".join(lines)
        yield from self._quickly(part, starts(part))

    def _waits(self) -> bool:
        """Tell whether any reader holds a call back that others must not overtake."""
        for reader in self._waiters:  # noqa: SIM110  # a generator takes twice as long
            if reader.waiting:
                return True
        return False

    def _others(self, asked: LineReader, line: Line, data: bytes) -> tuple[LineReader, tuple[Record | None, ...]]:
        """Offer a line that a reader did not know to the others."""
        for mark, reader in self._offers:
            if reader is not asked and mark in data:
                records = tuple(reader.read(line))
                if records:
                    return reader, records
        return asked, ()

    def _slowly(self, block: bytes) -> Iterator[TraceEvent | Sighting]:
        """Look at every line: something must be decoded first, or a line is too long."""
        for line in self._lines.split(block):
            for raw in self._decoder.feed(line):
                yield from self._offer(raw.number, raw.data, cut=raw.cut)

    def _offer(self, number: int, data: bytes, *, cut: bool) -> Iterator[TraceEvent | Sighting]:
        data = without_colours(data)
        for mark, reader in self._offers:
            if mark in data:
                records = tuple(reader.read(Line(self.name, number, clean(data), cut)))
                if records:
                    yield from self._sort(reader, records, number)
                    return
        if is_blank(data):
            self._blank += 1
        elif is_elision(data):
            self._elisions += 1
            self._first_elision = self._first_elision or number
        else:
            self._unrecognised += 1

    def _sort(
        self, reader: LineReader, records: tuple[Record | None, ...], number: int
    ) -> Iterator[TraceEvent | Sighting]:
        self._last_record = number
        for record in records:
            if record is None:
                continue
            if type(record) is TraceEvent:
                # What another program holds back began before this.
                if self._waits():
                    yield from self._count(
                        _held(other for other in self._readers if other.waiting and other is not reader)
                    )
                self._events[record.format] = self._events.get(record.format, 0) + 1
                yield record
            else:
                yield from self._count((record,))

    def _count(self, records: Iterable[Record]) -> Iterator[TraceEvent | Sighting]:
        for record in records:
            if isinstance(record, Malformed):
                self._malformed += 1
                if len(self._kept) < KEPT_MALFORMED:
                    self._kept.append(record)
                if self._on_malformed is not None:
                    self._on_malformed(record)
                continue
            if isinstance(record, Sighting):
                self._seen += 1
            else:
                self._events[record.format] = self._events.get(record.format, 0) + 1
            yield record

    def settle(self) -> Iterator[TraceEvent | Sighting]:
        """Yield the calls that are held back because their end may still come."""
        yield from self._count(_held(self._readers))

    def report(self) -> ReadReport:
        """Return what was read so far."""
        return ReadReport(
            source=self.name,
            bytes_read=self._blocks.bytes_read,
            lines=self._lines.lines,
            packing=self._blocks.packing,
            events=dict(self._events),
            seen=self._seen,
            malformed=self._malformed,
            first_malformed=tuple(self._kept),
            elisions=self._elisions,
            blank_lines=self._blank,
            unrecognised_lines=self._unrecognised,
            quoted_printable=(self._decoder.declared or self._decoder.detected) is not None,
            complete=self._blocks.problem is None,
            notes=tuple(self._notes()),
            carried=tuple(each for reader in self._readers for each in reader.carried()),
        )

    def _notes(self) -> Iterator[Note]:
        lines, decoder = self._lines, self._decoder
        if self._blocks.problem is not None:
            text = f"{self._blocks.problem}; what was read before is used"
            yield Note(code="cut-short", text=text, count=1, line=lines.lines)
        if self._blocks.unfinished and self._last_record == lines.lines:
            text = "the last line has no end: if the file was cut there, its last number may be cut too"
            yield Note(code="unfinished-line", text=text, count=1, line=lines.lines)
        cut = lines.cut_lines + decoder.cut_lines
        if cut:
            first = min(number for number in (lines.first_cut, decoder.first_cut) if number is not None)
            yield Note(
                code="line-cut", text="a line is too long: only its beginning was looked at", count=cut, line=first
            )
        if decoder.declared is not None:
            text = "a mail header says quoted-printable: decoded, broken lines joined"
            yield Note(code="quoted-printable", text=text, count=decoder.soft_breaks, line=decoder.declared)
        elif decoder.detected is not None:
            text = "the text is in quoted-printable, as its equals signs show: decoded, broken lines joined"
            yield Note(code="quoted-printable", text=text, count=decoder.soft_breaks, line=decoder.detected)
        if decoder.base64 is not None:
            text = "a mail header says base64: save the decoded text of the mail and read that"
            yield Note(code="base64", text=text, count=1, line=decoder.base64)
        if self._elisions:
            text = "lines were left out: counts are lower bounds, and what changes nothing may follow a call not here"
            yield Note(code="elisions", text=text, count=self._elisions, line=self._first_elision)
        for reader in self._readers:
            yield from reader.notes()


def _held(readers: Iterable[LineReader]) -> list[Record]:
    """Return what readers hold back, in the order of its lines."""
    return sorted((record for reader in readers for record in reader.settle()), key=lambda record: record.line)


def _reader(name: str) -> LineReader:
    if name not in READERS:
        raise UsageError.unknown("format", name, READERS)
    return READERS[name]()
