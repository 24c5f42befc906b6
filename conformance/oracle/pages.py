"""Page states as plain lists of intervals, worked out anew after every change."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hvabi.conformance.case import Pages, Ranges

PRIVATE = "private"


class PageSet:
    """The states of pages: a list of assignments, the last one that covers a page counts."""

    def __init__(self, ranges: Iterable[tuple[int, int, str]] = ()) -> None:
        self._laid: list[tuple[int, int, str]] = list(ranges)
        self._ranges: Ranges | None = None

    def lay(self, start: int, end: int, state: str) -> None:
        """Put [start, end) into a state."""
        if start < end:
            self._laid = [*self.ranges(), (start, end, state)]
            self._ranges = None

    def state(self, page: int) -> str:
        """Return the state of one page."""
        found = PRIVATE
        for start, end, state in self._laid:
            if start <= page < end:
                found = state
        return found

    def ranges(self) -> Ranges:
        """Return what is not private, sorted and joined; worked out once after each change."""
        if self._ranges is None:
            self._ranges = self._joined()
        return self._ranges

    def _joined(self) -> Ranges:
        edges = sorted({edge for start, end, _ in self._laid for edge in (start, end)})
        out: list[tuple[int, int, str]] = []
        for start, end in itertools.pairwise(edges):
            state = self.state(start)
            if state == PRIVATE:
                continue
            if out and out[-1][1] == start and out[-1][2] == state:
                out[-1] = (out[-1][0], end, state)
            else:
                out.append((start, end, state))
        return tuple(out)

    def all_in(self, start: int, end: int, state: str) -> bool:
        """Whether every page of [start, end) is in a state."""
        if start >= end:
            return True
        edges = [edge for lo, hi, _ in self._laid for edge in (lo, hi) if start < edge < end]
        return {self.state(edge) for edge in (start, *edges)} == {state}

    def copy(self) -> PageSet:
        """Return an independent copy."""
        copied = PageSet(self._laid)
        copied._ranges = self._ranges
        return copied


class FactSet:
    """Facts that are true of pages, by name."""

    def __init__(self, facts: Mapping[str, Pages]) -> None:
        self._sets = {name: PageSet((start, end, "true") for start, end in ranges) for name, ranges in facts.items()}

    def of(self, name: str) -> PageSet:
        """Return the pages of a fact."""
        if name not in self._sets:
            self._sets[name] = PageSet()
        return self._sets[name]

    def lay(self, name: str, start: int, end: int, truth: bool) -> None:
        """Make a fact true or false on [start, end)."""
        self.of(name).lay(start, end, "true" if truth else PRIVATE)

    def all_are(self, name: str, start: int, end: int, truth: bool) -> bool:
        """Whether the fact has this value on every page."""
        return self.of(name).all_in(start, end, "true" if truth else PRIVATE)

    def copy(self) -> FactSet:
        """Return an independent copy."""
        return FactSet(self.pages())

    def pages(self) -> dict[str, Pages]:
        """Return the true pages of every fact that has some."""
        found = {name: tuple((start, end) for start, end, _ in one.ranges()) for name, one in self._sets.items()}
        return {name: ranges for name, ranges in found.items() if ranges}


def inside(memory: Pages | None, start: int, end: int) -> bool:
    """Whether every page of [start, end) is memory; None means that everything is."""
    if memory is None or start >= end:
        return True
    at = start
    while at < end:
        reach = max((slot_end for slot_start, slot_end in memory if slot_start <= at < slot_end), default=at)
        if reach <= at:
            return False
        at = reach
    return True
