"""What reading a trace gave, apart from its events, and how results become JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hvabi.traces.event import Malformed

_ADDRESSES = frozenset({"gpa", "end", "highest_end", "blocks"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something that a reader of the results should know.

    Attributes:
        code: stable name of the kind.
        text: one sentence for people.
        count: how often it happened.
        line: the first line that it concerns, or None.

    """

    code: str
    text: str
    count: int
    line: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadReport:
    """How one source was read.

    Attributes:
        source: its name.
        bytes_read: its size as far as it was read.
        lines: lines as they lie in the file.
        packing: how it was packed, or None.
        events: number of events by what printed them; see `TraceEvent.format`.
        seen: number of lines that are understood and convert no pages that they name.
        malformed: records that have the words of a format and cannot be read.
        first_malformed: the first few of them.
        elisions: lines which say that lines were left out.
        blank_lines: lines with nothing but spaces and quote marks.
        unrecognised_lines: all other lines without a record.
        quoted_printable: whether quoted-printable was decoded in any part.
        complete: False where the bytes ended too early; a note says why.
        notes: what is to be known about the reading.
        carried: reports on the sources of a trace in our own format, as they stand there.

    """

    source: str
    bytes_read: int
    lines: int
    packing: str | None
    events: Mapping[str, int]
    seen: int
    malformed: int
    first_malformed: tuple[Malformed, ...]
    elisions: int
    blank_lines: int
    unrecognised_lines: int
    quoted_printable: bool
    complete: bool
    notes: tuple[Note, ...]
    carried: tuple[Mapping[str, object], ...] = ()

    @property
    def event_count(self) -> int:
        """The number of calls of all formats."""
        return sum(self.events.values())


def _address(value: object) -> object:
    if isinstance(value, tuple):
        return [_address(item) for item in value]
    return hex(value) if isinstance(value, int) else value


def jsonable(value: object) -> object:
    """Return results as JSON values: dataclasses become objects, addresses lower-case 0x strings."""
    if is_dataclass(value) and not isinstance(value, type):
        found: dict[str, object] = {}
        for field in fields(value):
            item = getattr(value, field.name)
            found[field.name] = _address(item) if field.name in _ADDRESSES else jsonable(item)
        return found
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [jsonable(item) for item in value]
    if isinstance(value, str):
        return str(value)  # the plain text of a StrEnum's member
    return value
