"""What a pool would save that holds on to pages instead of making them private again.

In December 2020 David Gilbert asked whether a guest should not keep its DMA pages shared for a while, as the next
buffer wants shared pages again. How much that saves depends on the size of the pool, on how long it holds a page,
and on whether the next buffer can take any page or needs the same one, which a trace does not show. So two pools
are worked out:

`same`: a range that is freed goes into the pool, and comes out only for a call that wants exactly that range. The
least recently freed pages leave it when it is full. What this saves, any pool saves: a lower bound.

`any`: a call that wants n pages gets the n pages that were freed last, wherever they lie. An upper bound.

Both are worked out for all sizes and times at once: for each call that could have been saved, the smallest pool and
the shortest time are found with which it would have been (the pages of a smaller pool are always some of those of a
larger).
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from typing import TYPE_CHECKING

from hvabi.backend import PAGE_SHIFT
from hvabi.traces.analysis.results import KeptPages, PoolCell, PoolSummary

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZES = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536)
"""Sizes of pools in pages; one without a bound comes after them."""

HOLDS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Times in seconds that pools hold a page; one without a bound comes after them."""

MAX_POOLED = 4096
"""Ranges that the pool for the same pages has at most, and runs of pages that the other one has."""

MAX_KEPT = 1 << 14
"""Different ranges for which is counted how often they came out of the pool."""

_Grid = list[list[int]]


def _grid() -> _Grid:
    return [[0] * (len(HOLDS) + 1) for _ in range(len(SIZES) + 1)]


def _note(grid: _Grid, pages: int, age: float) -> None:
    """Count a call that a pool of `pages` pages saves that holds them for `age` seconds."""
    grid[bisect_left(SIZES, pages)][bisect_left(HOLDS, age)] += 1


class _Same:
    """The pool whose ranges come out as they went in, for all sizes: a list in the order of going in."""

    def __init__(self) -> None:
        self.saved = _grid()
        self.kept: dict[tuple[int, int], int] = {}
        self._where: dict[tuple[int, int], int] = {}
        self._pages: list[int] = []
        self._times: list[float] = []

    def free(self, start: int, pages: int, now: float) -> None:
        key = start, pages
        old = self._where.pop(key, None)
        if old is not None:
            self._pages[old] = 0
        self._where[key] = len(self._pages)
        self._pages.append(pages)
        self._times.append(now)
        if len(self._where) > MAX_POOLED:
            first = next(iter(self._where))
            self._pages[self._where.pop(first)] = 0
        if len(self._pages) > 4 * MAX_POOLED:
            self._pack()

    def want(self, start: int, pages: int, now: float) -> None:
        key = start, pages
        at = self._where.pop(key, None)
        if at is None:
            return
        # What went in later lies above it, and leaves it room only in a pool that holds both.
        _note(self.saved, sum(self._pages[at:]), now - self._times[at])
        self._pages[at] = 0
        if key in self.kept or len(self.kept) < MAX_KEPT:
            self.kept[key] = self.kept.get(key, 0) + 1

    def _pack(self) -> None:
        order = list(self._where.items())  # in the order of going in
        self._pages = [self._pages[at] for _, at in order]
        self._times = [self._times[at] for _, at in order]
        self._where = {key: at for at, (key, _) in enumerate(order)}


class _Any:
    """The pool that gives what was freed last: a stack of runs of pages.

    A page at height h of the stack is in a pool of S pages exactly where the stack was never higher than h + S - 1
    since it went in.
    """

    def __init__(self) -> None:
        self.saved_shares = _grid()
        self.saved_unshares = _grid()
        self._height = 0
        # [pages, time, highest stack since, smallest pool for what came out, longest time of what came out]
        self._runs: list[list[float]] = []

    def free(self, pages: int, now: float) -> None:
        self._height += pages
        self._runs.append([pages, now, self._height, 0, 0.0])
        if len(self._runs) > 2 * MAX_POOLED:
            del self._runs[:MAX_POOLED]

    def want(self, pages: int, now: float) -> None:
        needed, age, left = 0.0, 0.0, pages
        runs = self._runs
        while left and runs:
            run = runs[-1]
            pages_of, since, highest, room, longest = run
            taken = pages_of if pages_of < left else left
            # Comparisons in line: this is worked out for every call that makes pages shared.
            if highest - self._height + taken > room:
                room = highest - self._height + taken
            if now - since > longest:
                longest = now - since
            if room > needed:
                needed = room
            if longest > age:
                age = longest
            run[0], run[3], run[4] = pages_of - taken, room, longest
            self._height -= int(taken)
            left -= int(taken)
            if run[0] == 0:
                runs.pop()
                if runs:
                    runs[-1][2] = max(runs[-1][2], run[2])
                _note(self.saved_unshares, int(run[3]), run[4])
        if not left:
            _note(self.saved_shares, int(needed), age)


class Pool:
    """Both pools over the calls of a trace."""

    def __init__(self) -> None:
        self._same = _Same()
        self._any = _Any()
        self._calls = 0

    def share(self, start: int, pages: int, now: float) -> None:
        """Note a call that made pages shared which were not."""
        self._calls += 1
        self._same.want(start, pages, now)
        self._any.want(pages, now)

    def unshare(self, start: int, pages: int, now: float) -> None:
        """Note a call that made pages private which were not."""
        self._calls += 1
        self._same.free(start, pages, now)
        self._any.free(pages, now)

    def summary(self, top: int, *, timed: bool = True) -> PoolSummary:
        """Return what pools would save; `top` is the number of ranges to single out.

        Without a clock, only pools that hold pages for ever.
        """
        kept = heapq.nsmallest(top, self._same.kept.items(), key=lambda item: (-item[1], item[0]))
        return PoolSummary(
            calls=self._calls,
            cells=tuple(cell for cell in self._cells() if timed or cell.hold_seconds is None),
            keeps=tuple(
                KeptPages(gpa=start << PAGE_SHIFT, pages=pages, saved_calls=2 * hits) for (start, pages), hits in kept
            ),
        )

    def _cells(self) -> Iterator[PoolCell]:
        for row, size in enumerate((*SIZES, None)):
            for column, hold in enumerate((*HOLDS, None)):

                def up_to(grid: _Grid, row: int = row, column: int = column) -> int:
                    return sum(sum(line[: column + 1]) for line in grid[: row + 1])

                yield PoolCell(
                    pages=size,
                    hold_seconds=hold,
                    # Out of the pool is a call to shared that is not made, and the one to private before it.
                    at_least=2 * up_to(self._same.saved),
                    at_most=up_to(self._any.saved_shares) + up_to(self._any.saved_unshares),
                )
