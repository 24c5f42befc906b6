"""Text laid out for a terminal: wrapped paragraphs and tables whose last column wraps."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from hvabi.cli.console import escape, paint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


def wrap(text: str, width: int, *, indent: str = "", hang: str | None = None) -> list[str]:
    """Return text as lines of at most `width` columns; words longer than a line stay whole."""
    lines = textwrap.wrap(
        escape(text),
        max(width, 20),
        initial_indent=indent,
        subsequent_indent=indent if hang is None else hang,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return lines or [indent.rstrip()]


def heading(text: str) -> str:
    """Return a heading."""
    return paint(text, bold=True)


def titled(name: str, rest: str, width: int, *, indent: str = "") -> list[str]:
    """Return a heading and what follows it in the same line, wrapped."""
    lines = wrap(f"{name}  {rest}", width, indent=indent, hang=indent + "    ")
    shown = escape(name)
    return [lines[0].replace(shown, heading(shown), 1), *lines[1:]]


def dim(text: str) -> str:
    """Return text of less weight."""
    return paint(text, dim=True)


def table(
    rows: Sequence[Sequence[str]],
    width: int,
    *,
    header: Sequence[str] | None = None,
    indent: str = "",
    style: Callable[[int, str], str] | None = None,
    widest: int = 34,
    room: int = 20,
) -> Iterator[str]:
    """Yield the lines of a table: columns as wide as they need, the last one wrapped to what is left.

    Where a cell is wider than `widest`, or less than `room` columns are left, the last cell goes under its row.
    `style` takes the number of a column
    and the padded cell.
    """
    cells = [[escape(cell) for cell in row] for row in rows]
    every = [*([list(header)] if header else []), *cells]
    if not every:
        return
    count = max(map(len, every))
    columns = [max((len(row[at]) for row in every if at < len(row) and len(row[at]) <= widest), default=0)
               for at in range(count - 1)]  # fmt: skip
    left = len(indent) + sum(columns) + 2 * len(columns)
    # Where little is left for the text, it goes under the row.
    under = width - left < room
    if header:
        yield dim(_line(indent, columns, list(header), None)).rstrip()
    for row in cells:
        lead, last = row[:-1], row[-1]
        wide = any(len(cell) > columns[at] for at, cell in enumerate(lead))
        if under or wide:
            yield _line(indent, columns, lead, style).rstrip()
            if last:
                hang = indent + "    " if under else " " * left
                yield from (style(count - 1, line) if style else line for line in wrap(last, width, indent=hang))
            continue
        parts = wrap(last, width - left) if last else [""]
        yield _line(indent, columns, [*lead, parts[0]], style).rstrip()
        for part in parts[1:]:
            yield " " * left + (style(count - 1, part) if style else part)


def _line(indent: str, columns: Sequence[int], cells: Sequence[str], style: Callable[[int, str], str] | None) -> str:
    out = []
    for at, cell in enumerate(cells):
        padded = f"{cell:<{columns[at]}}" if at < len(columns) else cell
        out.append(style(at, padded) if style else padded)
    return indent + "  ".join(out)
