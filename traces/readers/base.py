"""What every reader of a format is: it is offered the lines that have one of its marks, and makes records of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple

from hvabi.abi.diagnostics import escape
from hvabi.traces.event import Malformed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hvabi.traces.event import Record, TraceEvent
    from hvabi.traces.report import Note

_EXCERPT = 100

REMEMBERED = 1 << 14
"""Records that a reader keeps as it has read them: guests convert the same pages over and over."""


class Line(NamedTuple):
    """A line of a trace as readers see it: clean text, without quote marks.

    `cut` says that the line is too long and only its beginning is here.
    """

    source: str
    number: int
    text: str
    cut: bool = False


class LineReader:
    """A reader of the lines of one program. Made anew for each source; may keep what it needs, in bounded memory.

    Attributes:
        name: name of the reader, for `formats=`.
        title: what prints such lines, in words.
        marks: bytes of which each of its lines has at least one: other lines are not offered.
        waiting: whether a call is held back whose end may still come; `settle` gives it.

    """

    name: ClassVar[str]
    title: ClassVar[str]
    marks: ClassVar[tuple[bytes, ...]]
    waiting: bool = False

    def read(self, line: Line) -> Iterable[Record | None]:
        """Return the records of a line in order; nothing where it is not of this format after all.

        None stands for a line that is understood and has no record (yet): more may come about its call.
        """
        raise NotImplementedError

    def known(self, source: str, number: int, data: bytes) -> TraceEvent | None:
        """Return the only record of a line that says nothing new but its time: what `read` would give, and quickly."""
        return None

    def settle(self) -> Iterable[Record]:
        """Return the calls that were held back: nothing more will come, or somebody else's call comes first."""
        return ()

    def carried(self) -> Iterable[Mapping[str, object]]:
        """Return the reports on other sources that the source carries."""
        return ()

    def notes(self) -> Iterable[Note]:
        """Return what is to be said about the source at its end."""
        return ()


def malformed(line: Line, reason: str, at: int = 0) -> Malformed:
    """Return a record for a line that cannot be read; `at` is where in its text the trouble begins."""
    return Malformed(source=line.source, line=line.number, reason=reason, excerpt=escape(line.text[at : at + _EXCERPT]))
