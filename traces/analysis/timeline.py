"""A trace cut into columns of equal width, as many as a picture has room for, whatever its length turns out to be.

A column begins narrow; when the trace runs out of the last one, every two become one. Above the columns lies the memory
map: how many pages of a block of memory were shared at the most, and how many calls changed any.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvabi.backend import PAGE_SHIFT, PageState
from hvabi.traces.analysis.results import Column, MapCell, MapSummary, TimelineSummary

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hvabi.backend import Change

MAX_COLUMNS = 512
MAX_ROWS = 96
"""Blocks of memory that a map has; above it, every two neighbours become one."""

_FIRST_SECONDS = 1e-6
_SHARES, _UNSHARES, _IDLE, _MOST_RANGES, _RANGES, _MOST_SHARED, _SHARED = range(7)


class Timeline:
    """The columns. The horizontal axis is time where the first call has one, else the number of the call."""

    def __init__(self, *, by_calls: bool | None = None, with_map: bool = True) -> None:
        self.by_calls = by_calls
        self.map = MemoryMap() if with_map else None
        self._width = 0.0
        self._columns: dict[int, list[int]] = {}
        self._calls = 0
        self._shared = 0
        self._last = 0.0
        self._index = 0
        self._column: list[int] = []
        self._column_end = 0.0  # less what rounding may do

    def add(
        self, now: float, to: PageState | None, changes: Iterable[Change[PageState]], ranges: int, *, timed: bool
    ) -> None:
        """Note a call: its time, what it asked for and changed, and how many ranges there are after it."""
        if not self._width:
            self.by_calls = not timed if self.by_calls is None else self.by_calls
            self._width = 1.0 if self.by_calls else _FIRST_SECONDS
        at = float(self._calls) if self.by_calls else now
        self._calls += 1
        if not self._last <= at < self._column_end:
            self._turn_to(at)
        self._last = at
        column = self._column
        for start, end, before, after in changes:
            if before is PageState.PRIVATE:
                self._shared += end - start
            elif after is PageState.PRIVATE:
                self._shared -= end - start
        if not changes:
            column[_IDLE] += 1
        column[_UNSHARES if to is PageState.PRIVATE else _SHARES] += 1
        column[_RANGES] = ranges
        if ranges > column[_MOST_RANGES]:
            column[_MOST_RANGES] = ranges
        column[_SHARED] = self._shared
        if self._shared > column[_MOST_SHARED]:
            column[_MOST_SHARED] = self._shared
        if self.map is not None and changes:
            self.map.add(self._index, changes)

    def _turn_to(self, at: float) -> None:
        index = int(at / self._width)
        while index >= MAX_COLUMNS:
            self._halve()
            index = int(at / self._width)
        column = self._columns.get(index)
        if column is None:
            column = self._columns[index] = [0, 0, 0, 0, 0, self._shared, self._shared]
        self._index, self._column = index, column
        self._column_end = (index + 1) * self._width * (1 - 1e-12)

    def _halve(self) -> None:
        wider: dict[int, list[int]] = {}
        for index, column in self._columns.items():  # in order
            kept = wider.get(index >> 1)
            if kept is None:
                wider[index >> 1] = column
                continue
            for part in (_SHARES, _UNSHARES, _IDLE):
                kept[part] += column[part]
            for part in (_MOST_RANGES, _MOST_SHARED):
                kept[part] = max(kept[part], column[part])
            for part in (_RANGES, _SHARED):
                kept[part] = column[part]
        self._columns = wider
        self._width *= 2
        if self.map is not None:
            self.map.halve_columns()

    def summary(self) -> TimelineSummary:
        """Return the columns in which there was a call; between them nothing changes."""
        return TimelineSummary(
            axis="calls" if self.by_calls else "seconds",
            column_width=self._width,
            length=self._last,
            columns=tuple(
                Column(
                    index=index,
                    shares=column[_SHARES],
                    unshares=column[_UNSHARES],
                    without_effect=column[_IDLE],
                    most_ranges=column[_MOST_RANGES],
                    ranges=column[_RANGES],
                    most_shared_pages=column[_MOST_SHARED],
                    shared_pages=column[_SHARED],
                )
                for index, column in sorted(self._columns.items())
            ),
            map=self.map.summary() if self.map is not None else None,
        )


class MemoryMap:
    """Pages that are shared, by block of memory and column of time; only cells in which something changed."""

    def __init__(self) -> None:
        self._shift = 0
        self._level: dict[int, int] = {}  # shared pages of a block now
        self._cells: dict[int, dict[int, list[int]]] = {}  # by block and column: most shared, shared at the end, calls

    def add(self, column: int, changes: Iterable[Change[PageState]]) -> None:
        """Note what a call changed."""
        for start, end, before, after in changes:
            gained = (after is not PageState.PRIVATE) - (before is not PageState.PRIVATE)
            while ((end - 1) >> self._shift) - (start >> self._shift) >= MAX_ROWS:
                self._halve_rows()
            shift = self._shift
            first, last = start >> shift, end - 1 >> shift
            for block in range(first, last + 1):
                pages = end - start
                if first != last:
                    pages = min(end, block + 1 << shift) - max(start, block << shift)
                level = self._level.get(block, 0)
                now = level + gained * pages
                cells = self._cells.get(block)
                if cells is None:
                    cells = self._cells[block] = {}
                cell = cells.get(column)
                if cell is None:
                    cells[column] = [max(level, now), now, 1]
                else:
                    if now > cell[0]:
                        cell[0] = now
                    cell[1] = now
                    cell[2] += 1
                self._level[block] = now
            while len(self._cells) > MAX_ROWS:
                self._halve_rows()

    def _halve_rows(self) -> None:
        """Make every two neighbours one block. The most of the two together is not known: their sum is no less."""
        self._shift += 1
        blocks: dict[int, dict[int, list[int]]] = {}
        for block in sorted(self._cells):
            other = blocks.get(block >> 1)
            blocks[block >> 1] = self._cells[block] if other is None else _joined(other, self._cells[block])
        self._cells = blocks
        levels: dict[int, int] = {}
        for block, level in self._level.items():
            levels[block >> 1] = levels.get(block >> 1, 0) + level
        self._level = levels

    def halve_columns(self) -> None:
        """Make every two neighbouring columns one."""
        for block, cells in self._cells.items():
            wider: dict[int, list[int]] = {}
            for column in sorted(cells):
                cell = cells[column]
                kept = wider.get(column >> 1)
                if kept is None:
                    wider[column >> 1] = cell
                else:
                    kept[0] = max(kept[0], cell[0])
                    kept[1] = cell[1]
                    kept[2] += cell[2]
            self._cells[block] = wider

    def summary(self) -> MapSummary:
        """Return the cells in which something changed, by block and column."""
        return MapSummary(
            block_pages=1 << self._shift,
            blocks=tuple(block << self._shift + PAGE_SHIFT for block in sorted(self._cells)),
            cells=tuple(
                MapCell(block=row, column=column, most_shared_pages=most, shared_pages=level, calls=calls)
                for row, block in enumerate(sorted(self._cells))
                for column, (most, level, calls) in sorted(self._cells[block].items())
            ),
        )


def _joined(first: dict[int, list[int]], second: dict[int, list[int]]) -> dict[int, list[int]]:
    out: dict[int, list[int]] = {}
    levels = [0, 0]
    for column in sorted({*first, *second}):
        cells = (first.get(column), second.get(column))
        most = calls = 0
        for side, cell in enumerate(cells):
            most += cell[0] if cell is not None else levels[side]
            if cell is not None:
                levels[side] = cell[1]
                calls += cell[2]
        out[column] = [most, sum(levels), calls]
    return out
