"""Generations: when pages were converted last, in bounded room.

Flipping a page twice is not a no-op: its content is lost. So a log of conversions that cancels such pairs
is wrong for migration, and each converted range carries the epoch of its last conversion instead.
"""

from __future__ import annotations

from hvabi.backend.model import GPA_PAGES, ModelError
from hvabi.backend.rangemap import RangeMap


class Generations:
    """The epoch of the last conversion of every page, in at most `max_ranges` ranges.

    When there is no room left, neighbours merge to the newer epoch of the two, over the gap between them.
    So `changed_since` may say too much and never too little.
    """

    def __init__(self, max_ranges: int) -> None:
        if max_ranges < 1:
            raise ModelError(
                "bad-bound", f"max_generations must be at least 1, got {max_ranges}", max_ranges=max_ranges
            )
        self.max_ranges = max_ranges
        self.epoch = 0
        self._base = 0  # everything counts as changed at this epoch
        self._map: RangeMap[int] = RangeMap(0)

    @property
    def count(self) -> int:
        """The number of ranges stored."""
        return self._map.count

    @property
    def memory_bytes(self) -> int:
        """Bytes that the stored ranges take in this process."""
        return self._map.memory_bytes

    def next_epoch(self) -> int:
        """Begin a new epoch and return it."""
        self.epoch += 1
        return self.epoch

    def stamp(self, start: int, end: int) -> None:
        """Note that [start, end) was converted in the current epoch."""
        self._map.set(start, end, self.epoch)
        if self._map.count > self.max_ranges:
            self._merge()

    def everything_changed(self, newer_than: int = 0) -> None:
        """Begin a new epoch, newer than `newer_than` too, in which every page counts as changed."""
        self.epoch = max(self.epoch, newer_than) + 1
        self._base = self.epoch
        self._map.clear()

    def changed_since(self, epoch: int) -> tuple[tuple[int, int], ...]:
        """Return the page ranges (start, end) that may have been converted after `epoch`, merged and sorted.

        Raises:
            ModelError: `bad-epoch`, when `epoch` is negative or has not begun yet.

        """
        if not 0 <= epoch <= self.epoch:
            raise ModelError("bad-epoch", f"epoch {epoch} is not between 0 and the current {self.epoch}", epoch=epoch)
        if epoch < self._base:
            return ((0, GPA_PAGES),)
        out: list[tuple[int, int]] = []
        for run in self._map:
            if run.state <= epoch:
                continue
            if out and out[-1][1] == run.start:
                out[-1] = (out[-1][0], run.end)
            else:
                out.append((run.start, run.end))
        return tuple(out)

    def _merge(self) -> None:
        """Merge the neighbours with the smallest gaps until a quarter of the room is free again."""
        runs = list(self._map)
        excess = len(runs) - max(1, self.max_ranges * 3 // 4)
        by_gap = sorted(range(1, len(runs)), key=lambda i: runs[i].start - runs[i - 1].end)
        joined = set(by_gap[:excess])
        self._map.clear()
        start, end, epoch = runs[0]
        for i, run in enumerate(runs[1:], 1):
            if i in joined:
                end, epoch = run.end, max(epoch, run.state)
            else:
                self._map.set(start, end, epoch)
                start, end, epoch = run
        self._map.set(start, end, epoch)
