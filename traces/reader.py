"""Reading a trace: the lines of a source offered to the readers of all formats.

A format is one small module with one class that satisfies `LineReader`; `FORMATS` lists them. A reader is made anew for
each source and may keep what it needs between lines, in bounded memory.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from hvabi.abi.errors import UsageError
from hvabi.traces.errors import TraceError
from hvabi.traces.event import Malformed, TraceEvent
from hvabi.traces.page_enc_status import PageEncStatusReader
from hvabi.traces.quoted_printable import QuotedPrintable
from hvabi.traces.report import Note, ReadReport
from hvabi.traces.text import LineSource, clean, is_blank, is_elision, without_colours

KEPT_MALFORMED = 10
"""Malformed records that a report shows; all are counted."""

Progress = Callable[[int], None]


class Line(NamedTuple):
    """A line of a trace as readers see it: clean text, without quote marks. `cut` as in `RawLine`."""

    source: str
    number: int
    text: str
    cut: bool


class LineReader(Protocol):
    """What every format implements."""

    @property
    def format(self) -> str:
        """Name of the format, for `formats=` and for reports."""
        ...

    @property
    def title(self) -> str:
        """What prints such lines, in words."""
        ...

    @property
    def marks(self) -> tuple[bytes, ...]:
        """Bytes of which each line of the format has at least one: other lines are not offered."""
        ...

    def read(self, line: Line) -> Iterable[TraceEvent | Malformed]:
        """Return the records of a line in order; none where it is not of this format after all."""
        ...

    def notes(self) -> Iterable[Note]:
        """Return what is to be said about the source at its end."""
        ...


FORMATS: dict[str, Callable[[], LineReader]] = {
    PageEncStatusReader.format: PageEncStatusReader,
}
"""Every format by name, in the order in which they are asked; the first that knows a line has it."""


class Trace:
    """The events of one source. Iterate once; `report()` says at any time what was read so far.

    Args:
        stream: a buffered stream in binary mode; the caller closes it.
        name: how events and messages call the source.
        formats: names of the formats to look for; all by default.
        progress: called with the bytes read so far, about once a MiB and at the end.

    Raises:
        UsageError: ``unknown-format``.
        TraceError: from the iterator, as `LineSource`.

    """

    def __init__(
        self,
        stream: BinaryIO,
        *,
        name: str,
        formats: Iterable[str] | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.name = name
        self._lines = LineSource(stream, name=name, progress=progress)
        self._decoder = QuotedPrintable()
        self._readers = [_reader(name) for name in (FORMATS if formats is None else formats)]
        self._events: dict[str, int] = {reader.format: 0 for reader in self._readers}
        self._malformed = 0
        self._kept: list[Malformed] = []
        self._elisions = self._blank = self._unrecognised = 0
        self._first_elision: int | None = None

    def __iter__(self) -> Iterator[TraceEvent]:
        offers = [(mark, reader) for reader in self._readers for mark in reader.marks]
        for raw in self._decoder.decode(self._lines):
            data = without_colours(raw.data)
            for mark, reader in offers:
                if mark in data:
                    records = tuple(reader.read(Line(self.name, raw.number, clean(data), raw.cut)))
                    if records:
                        yield from self._sort(reader, records)
                        break
            else:
                self._count_other(raw.number, data)

    def _sort(self, reader: LineReader, records: tuple[TraceEvent | Malformed, ...]) -> Iterator[TraceEvent]:
        for record in records:
            if isinstance(record, Malformed):
                self._malformed += 1
                if len(self._kept) < KEPT_MALFORMED:
                    self._kept.append(record)
            else:
                self._events[reader.format] += 1
                yield record

    def _count_other(self, number: int, data: bytes) -> None:
        if is_blank(data):
            self._blank += 1
        elif is_elision(data):
            self._elisions += 1
            self._first_elision = self._first_elision or number
        else:
            self._unrecognised += 1

    def report(self) -> ReadReport:
        """Return what was read so far."""
        return ReadReport(
            source=self.name,
            bytes_read=self._lines.bytes_read,
            lines=self._lines.lines,
            events=dict(self._events),
            malformed=self._malformed,
            first_malformed=tuple(self._kept),
            elisions=self._elisions,
            blank_lines=self._blank,
            unrecognised_lines=self._unrecognised,
            quoted_printable=(self._decoder.declared or self._decoder.detected) is not None,
            notes=tuple(self._notes()),
        )

    def _notes(self) -> Iterator[Note]:
        lines, decoder = self._lines, self._decoder
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
            text = (
                "lines were left out of the trace: counts are lower bounds, and a call that seems to change"
                " nothing may follow one that is missing"
            )
            yield Note(code="elisions", text=text, count=self._elisions, line=self._first_elision)
        for reader in self._readers:
            yield from reader.notes()


def open_trace(path: str | Path) -> BinaryIO:
    """Open a trace file for reading.

    Raises:
        TraceError: ``unreadable-trace``.

    """
    try:
        if stat.S_ISDIR(Path(path).stat().st_mode):
            raise TraceError(
                f"{path}: this is a folder", code="unreadable-trace", hint="name the files in it", source=str(path)
            )
        return Path(path).open("rb")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise TraceError(f"{path}: cannot be opened: {reason}", code="unreadable-trace", source=str(path)) from error


def _reader(name: str) -> LineReader:
    if name not in FORMATS:
        raise UsageError.unknown("format", name, FORMATS)
    return FORMATS[name]()
