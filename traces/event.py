"""The one event that every trace reader makes: somebody asked to convert pages."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hvabi.backend import PageState

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
    """A number that can be read in two ways with two results.

    Attributes:
        field: name of the field in the ABI.
        text: the digits as they stand in the trace.
        pages: how many 4 KiB pages the call is about, by reading.

    """

    field: str
    text: str
    pages: Mapping[Radix, int]


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
        ambiguous: the readings of the page count where there is more than one, else None.
        broken: ids of the rules for the guest that the call breaks, in the order of the specification.

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
    broken: tuple[str, ...] = ()

    @property
    def place(self) -> Place:
        """Where the event stands."""
        return Place(source=self.source, line=self.line)

    def read_as(self, radix: Radix) -> TraceEvent:
        """Return the event under one reading; the same event where nothing is ambiguous."""
        if self.ambiguous is None or self.ambiguous.pages[radix] == self.pages:
            return self
        return replace(self, pages=self.ambiguous.pages[radix])


@dataclass(frozen=True, slots=True, kw_only=True)
class Malformed:
    """A record that a reader knows by its words but cannot read; nothing is guessed from it.

    `excerpt` is the piece of the line, shortened, with everything escaped that could steer a terminal.
    """

    source: str
    line: int
    reason: str
    excerpt: str
