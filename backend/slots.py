"""Memory slots: which guest page numbers are memory at all."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, NamedTuple

from hvabi.backend.model import ModelError
from hvabi.backend.rangemap import PAGE_LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Slot(NamedTuple):
    """One piece of guest memory, pages [start, end)."""

    start: int
    end: int


class MemoryLayout:
    """The guest's memory slots: a value. `plug` and `unplug` return a new layout.

    `slots` are (first page, page behind the last) in any order. Adjacent slots stay two slots. None means
    that everything is memory: one slot over all page numbers; an empty list means that nothing is.

    Raises:
        ModelError: `bad-slot` for an empty or impossible slot, `slot-overlap` where two slots share a page.

    """

    __slots__ = ("_area_ends", "_area_starts", "_slots", "_starts")

    def __init__(self, slots: Iterable[tuple[int, int]] | None = None) -> None:
        if slots is None:
            slots = ((0, PAGE_LIMIT),)
        self._slots = tuple(sorted(Slot(start, end) for start, end in slots))
        self._starts = [slot.start for slot in self._slots]
        # Areas are slots with adjacent ones merged, so that a hostile layout of many slots costs nothing.
        self._area_starts: list[int] = []
        self._area_ends: list[int] = []
        for slot in self._slots:
            if not 0 <= slot.start < slot.end <= PAGE_LIMIT:
                raise ModelError(
                    "bad-slot",
                    f"[{slot.start:#x}, {slot.end:#x}) is no slot with 0 <= start < end <= 2**64",
                    start=slot.start,
                    end=slot.end,
                )
            if self._area_ends and slot.start < self._area_ends[-1]:
                raise ModelError(
                    "slot-overlap",
                    f"slot [{slot.start:#x}, {slot.end:#x}) overlaps the one up to {self._area_ends[-1]:#x}",
                    start=slot.start,
                    end=slot.end,
                )
            if self._area_ends and slot.start == self._area_ends[-1]:
                self._area_ends[-1] = slot.end
            else:
                self._area_starts.append(slot.start)
                self._area_ends.append(slot.end)

    @property
    def slots(self) -> tuple[Slot, ...]:
        """All slots in order."""
        return self._slots

    def __iter__(self) -> Iterator[Slot]:
        return iter(self._slots)

    def __eq__(self, other: object) -> bool:
        return self._slots == other._slots if isinstance(other, MemoryLayout) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._slots)

    def __repr__(self) -> str:
        shown = ", ".join(f"({slot.start:#x}, {slot.end:#x})" for slot in self._slots[:8])
        return f"MemoryLayout([{shown}{', …' if len(self._slots) > 8 else ''}])"

    def contains(self, start: int, end: int) -> bool:
        """Tell whether all of [start, end) is memory, in one or in adjacent slots; true for no pages."""
        return self.first_hole(start, end) is None

    def covers_in_one_slot(self, start: int, end: int) -> bool:
        """Tell whether all of [start, end) lies in a single slot; true for no pages."""
        if start >= end:
            return True
        slot = self.slot_of(start)
        return slot is not None and end <= slot.end

    def first_hole(self, start: int, end: int) -> int | None:
        """Return the first page of [start, end) that is not memory, or None."""
        if start >= end:
            return None
        area = bisect_right(self._area_starts, start) - 1
        if area < 0 or self._area_ends[area] <= start:
            return start
        hole = self._area_ends[area]
        return hole if hole < end else None

    def slot_of(self, page: int) -> Slot | None:
        """Return the slot that holds a page, or None where there is no memory."""
        index = bisect_right(self._starts, page) - 1
        if index < 0 or self._slots[index].end <= page:
            return None
        return self._slots[index]

    def plug(self, start: int, end: int) -> MemoryLayout:
        """Return this layout with one more slot; `ModelError` `slot-overlap` where there is memory."""
        return MemoryLayout([*self._slots, (start, end)])

    def unplug(self, start: int, end: int) -> MemoryLayout:
        """Return this layout without the memory in [start, end).

        Slots that reach in are cut, one that reaches over becomes two. `ModelError` `bad-slot` for an
        empty interval, `not-memory` where the interval holds a page that is not memory.
        """
        if not 0 <= start < end <= PAGE_LIMIT:
            raise ModelError("bad-slot", f"nothing to unplug in [{start:#x}, {end:#x})", start=start, end=end)
        hole = self.first_hole(start, end)
        if hole is not None:
            raise ModelError(
                "not-memory",
                f"page {hole:#x} of [{start:#x}, {end:#x}) is not memory, so it cannot be unplugged",
                page=hole,
            )
        first = bisect_right(self._starts, start) - 1
        behind = bisect_left(self._starts, end)
        kept = [*self._slots[:first], *self._slots[behind:]]
        if self._slots[first].start < start:
            kept.append(Slot(self._slots[first].start, start))
        if self._slots[behind - 1].end > end:
            kept.append(Slot(end, self._slots[behind - 1].end))
        return MemoryLayout(kept)
