"""The one event that every trace reader makes: somebody asked to convert pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from hvabi.backend import PageState, Status

Radix = Literal["decimal", "hex"]
"""How a number is read whose radix the trace does not state."""

RADIXES: tuple[Radix, ...] = get_args(Radix)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where something stands: `line` counts the lines of `source` as they lie in the file, from 1."""

    source: str
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ambiguity:
    """A number that can be read in two ways with two results; the event that has it is the decimal reading.

    Attributes:
        field: name of the field in the ABI.
        text: the digits as they stand in the trace.
        in_hex: the same event when they are hexadecimal.

    """

    field: str
    text: str
    in_hex: TraceEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceEvent:
    """One call that a trace shows.

    Attributes:
        source: name of the trace.
        line: the line in it, from 1; the first one where an event spans several.
        time_seconds: the trace's own clock, or None where it has none.
        abi: id of the ABI whose call it is.
        gpa: guest physical address of the first page, without alias bits; a multiple of 4096.
        pages: number of 4 KiB pages; the decimal reading where the number is ambiguous.
        to: the state asked for, or None where the call asks for none that is known.
        attempt: True where the trace shows that the call was made, and not how it ended.
        ambiguous: the other reading where a number has two, else None.
        refused: how the ABI refuses such a call whatever the state of the pages is, or None.
        broken: ids of the rules that the call breaks: those for the guest, then the one by which it is refused.

    """

    source: str
    line: int
    time_seconds: float | None
    abi: str
    gpa: int
    pages: int
    to: PageState | None
    attempt: bool
    ambiguous: Ambiguity | None = None
    refused: Status | None = None
    broken: tuple[str, ...] = ()

    @property
    def place(self) -> Place:
        """Where the event stands."""
        return Place(source=self.source, line=self.line)

    def read_as(self, radix: Radix) -> TraceEvent:
        """Return the event under one reading; the same event where nothing is ambiguous."""
        return self.ambiguous.in_hex if self.ambiguous is not None and radix == "hex" else self


@dataclass(frozen=True, slots=True, kw_only=True)
class Malformed:
    """A record that a reader knows by its words but cannot read; nothing is guessed from it.

    `excerpt` is the piece of the line, shortened, with everything escaped that could steer a terminal.
    """

    source: str
    line: int
    reason: str
    excerpt: str
