"""The backend: the state of a guest's pages, which every ABI's host role changes."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Literal, TypeVar, get_args

from hvabi.backend.facts import FactOutcome, Facts
from hvabi.backend.generations import Generations
from hvabi.backend.model import (
    GPA_PAGES,
    Change,
    Conversion,
    ModelError,
    Outcome,
    PageState,
    Run,
    Status,
)
from hvabi.backend.rangemap import RANGE_BYTES, RangeMap
from hvabi.backend.slots import MemoryLayout
from hvabi.backend.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

#: What a conversion of pages that are not memory gets: `refuse` answers out-of-range, `allow` does it,
#: `allow-shared` does it unless the pages shall become private (a firmware that shares its MMIO window).
Absent = Literal["refuse", "allow", "allow-shared"]
_ABSENT = get_args(Absent)

#: Ranges of the generation map unless the caller says otherwise.
DEFAULT_GENERATIONS = 4096

S = TypeVar("S", bool, PageState)


class Backend:
    """Page states, page facts, memory slots, bounds and epochs of one guest.

    Args:
        layout: what is memory; None means everything.
        max_ranges: bound on the ranges that are not private.
        max_fact_ranges: bound on the true ranges of each fact; that of `max_ranges` unless it is given.
        max_bytes: budget for all these ranges together, `RANGE_BYTES` each (a guest that donates the room).
        facts: the names of the declared facts; every fact is false for every page at first.
        max_generations: bound on the ranges that remember epochs; at it, they merge.
        elsewhere: whoever has to convert the pages too, and first: it is asked after everything was checked here, and
            where it says that it did fewer pages, the conversion ends there.

    What an operation does not report as done has not changed. Any thread may call any method at any
    time; each is atomic for all others. Page numbers lie in [0, 2**52]; `ModelError` `bad-pages` else.

    """

    def __init__(
        self,
        *,
        layout: MemoryLayout | None = None,
        max_ranges: int | None = None,
        max_fact_ranges: int | None = None,
        max_bytes: int | None = None,
        facts: Iterable[str] = (),
        max_generations: int = DEFAULT_GENERATIONS,
        elsewhere: Callable[[Conversion], Outcome] | None = None,
    ) -> None:
        for name, bound in (("max_ranges", max_ranges), ("max_bytes", max_bytes)):
            if bound is not None and bound < 0:
                raise ModelError("bad-bound", f"{name} must not be negative, got {bound}", **{name: bound})
        self._layout = layout if layout is not None else MemoryLayout(None)
        self._max_ranges = max_ranges
        self._max_total = None if max_bytes is None else max_bytes // RANGE_BYTES
        self._map: RangeMap[PageState] = RangeMap()
        self._facts = Facts(facts, max_ranges if max_fact_ranges is None else max_fact_ranges)
        self._generations = Generations(max_generations)
        self._lock = threading.Lock()
        self._elsewhere = elsewhere

    # Conversion

    def convert(self, conversion: Conversion, *, absent: Absent = "refuse") -> Outcome:
        """Do a conversion as a whole or not at all; only where it is also done elsewhere it may end in the middle.

        Judged in this order: no pages is `DONE`; pages that are not memory are `OUT_OF_RANGE` unless
        `absent` allows them; a conversion that would add a range beyond a bound is `LIMIT`. One that adds
        no range always passes, so making pages private works at the bound wherever it splits no range.
        Pages that are in the state already are `DONE` with `changed` empty.
        """
        if absent not in _ABSENT:
            raise ModelError("bad-policy", f"absent must be one of {_ABSENT}, not {absent!r}", absent=absent)
        start, end, to = conversion.start, conversion.end, conversion.to
        if start == end:
            return Outcome(Status.DONE, 0, start)
        with self._lock:
            must_exist = absent == "refuse" or (absent == "allow-shared" and to is PageState.PRIVATE)
            if must_exist and not self._layout.contains(start, end):
                return Outcome(Status.OUT_OF_RANGE, 0, start)
            if not self._has_room(start, end, to):
                return Outcome(Status.LIMIT, 0, start)
            if self._elsewhere is None:
                return Outcome(Status.DONE, conversion.page_count, end, self._apply(start, end, to))
            there = self._elsewhere(conversion)
            middle = start + there.pages_done
            return Outcome(there.status, there.pages_done, middle, self._apply(start, middle, to))

    def convert_whole(
        self, start: int, end: int, to: PageState, absent: Absent
    ) -> tuple[Change[PageState], ...] | None:
        """Do what `convert` does and return what changed, or None where it would not be `DONE`; nothing changed then.

        For callers that have checked 0 <= start < end <= 2**52, and do it again with `convert` after a None. Where
        pages are converted elsewhere too, it is always None.
        """
        with self._lock:
            if self._elsewhere is not None:
                return None
            must_exist = absent == "refuse" or (absent == "allow-shared" and to is PageState.PRIVATE)
            if must_exist and not self._layout.contains(start, end):
                return None
            return self._apply(start, end, to) if self._has_room(start, end, to) else None

    def _has_room(self, start: int, end: int, to: PageState) -> bool:
        if self._is_far(self._map.count):
            return True
        return self._fits(self._map.would_count(start, end, to), self._facts.count)

    def _is_far(self, count: int) -> bool:
        # A set adds two ranges at most, so far below the bounds there is nothing to work out.
        if self._max_ranges is not None and count + 2 > self._max_ranges:
            return False
        return self._max_total is None or count + self._facts.count + 2 <= self._max_total

    def _fits(self, count: int, fact_count: int) -> bool:
        # The bounds hold at every moment, so what adds no range fits without being asked for.
        if self._max_ranges is not None and count > self._max_ranges:
            return False
        return self._max_total is None or count + fact_count <= self._max_total

    def _apply(self, start: int, end: int, to: PageState) -> tuple[Change[PageState], ...]:
        changes = self._map.set(start, end, to)
        if changes:
            self._generations.next_epoch()
            for change in changes:
                self._generations.stamp(change.start, change.end)
        return changes

    # Queries

    def query(self) -> tuple[Run[PageState], ...]:
        """All pages that are not private, merged and sorted."""
        with self._lock:
            return tuple(self._map)

    def runs(self, start: int, end: int) -> tuple[Run[PageState], ...]:
        """Return the runs that make up [start, end), private ones too."""
        _check_pages(start, end)
        with self._lock:
            return tuple(self._map.runs(start, end))

    def state_at(self, page: int) -> PageState:
        """Return the state of one page."""
        _check_pages(page, page + 1)
        with self._lock:
            return self._map.state_at(page)

    def run_at(self, start: int, end: int) -> tuple[PageState, int]:
        """Return the state of page `start`, and how many pages up to `end` have this state and the same facts.

        `ModelError` `bad-pages` for an empty interval too.
        """
        _check_pages(start, max(end, start + 1))
        with self._lock:
            run = next(self._map.runs(start, end))
            last = run.end
            for name in self._facts:
                last = next(self._facts.map_of(name).runs(start, last)).end
            return run.state, last - start

    def uniform(self, start: int, end: int, state: PageState) -> bool:
        """Tell whether every page of [start, end) is in `state`; true for an empty interval."""
        _check_pages(start, end)
        with self._lock:
            return self._map.uniform(start, end, state)

    def first_other(self, start: int, end: int, state: PageState) -> int | None:
        """Return the first page of [start, end) that is not in `state`, or None where all are."""
        _check_pages(start, end)
        with self._lock:
            return self._map.first_other(start, end, state)

    @property
    def count(self) -> int:
        """The number of ranges that are not private."""
        return self._map.count

    @property
    def has_spare(self) -> bool:
        """Whether a conversion here, whichever it is, stays within the bounds; False where pages are elsewhere too."""
        with self._lock:
            return self._elsewhere is None and self._is_far(self._map.count)

    @property
    def max_fact_ranges(self) -> int | None:
        """The bound on the true ranges of each fact, or None."""
        return self._facts.max_ranges

    @property
    def max_ranges(self) -> int | None:
        """The bound on `count`, or None."""
        return self._max_ranges

    @property
    def memory_bytes(self) -> int:
        """Bytes that states, facts and generations take in this process."""
        with self._lock:
            return self._map.memory_bytes + self._facts.memory_bytes + self._generations.memory_bytes

    # Facts

    @property
    def fact_names(self) -> tuple[str, ...]:
        """The declared facts."""
        return self._facts.names

    def set_fact(self, name: str, start: int, end: int, value: bool) -> FactOutcome:
        """Make a fact true or false for [start, end), as a whole or, at a bound, not at all (`LIMIT`).

        Pages need not be memory. `ModelError` `unknown-fact` for a name that was not declared.
        """
        _check_pages(start, end)
        with self._lock:
            if self._max_total is not None:
                each = self._facts.map_of(name)
                added = each.would_count(start, end, value) - each.count
                if added > 0 and self._map.count + self._facts.count + added > self._max_total:
                    return FactOutcome(Status.LIMIT)
            return self._facts.set(name, start, end, value)

    def fact_uniform(self, name: str, start: int, end: int, value: bool) -> bool:
        """Tell whether a fact has this value for every page of [start, end); true for an empty interval."""
        _check_pages(start, end)
        with self._lock:
            return self._facts.uniform(name, start, end, value)

    def fact_first_other(self, name: str, start: int, end: int, value: bool) -> int | None:
        """Return the first page of [start, end) for which a fact does not have this value, or None."""
        _check_pages(start, end)
        with self._lock:
            return self._facts.first_other(name, start, end, value)

    def fact_runs(self, name: str) -> tuple[Run[bool], ...]:
        """Return the ranges for which a fact is true, merged and sorted."""
        with self._lock:
            return self._facts.runs(name)

    # Memory slots

    @property
    def layout(self) -> MemoryLayout:
        """What is memory now. A `GuestMemory` has a layout of its own; keep the two in step."""
        return self._layout

    def plug(self, start: int, end: int) -> None:
        """Add a slot of memory; `ModelError` `slot-overlap` where there is some already."""
        with self._lock:
            self._layout = self._layout.plug(start, end)

    def unplug(self, start: int, end: int) -> Outcome:
        """Take memory away; its pages become private and lose their facts.

        What is plugged there later is new memory. `LIMIT`, and nothing changed, where forgetting would
        split a range beyond a bound; `ModelError` `not-memory` where there is none.
        """
        with self._lock:
            layout = self._layout.unplug(start, end)
            end = min(end, GPA_PAGES)
            if start >= end:
                self._layout = layout
                return Outcome(Status.DONE, 0, start)
            after = self._map.would_count(start, end, PageState.PRIVATE)
            maps = [self._facts.map_of(name) for name in self._facts]
            fact_counts = [each.would_count(start, end, False) for each in maps]
            bound = self._facts.max_ranges
            too_many = any(bound is not None and n > bound for n in fact_counts)
            if too_many or not self._fits(after, sum(fact_counts)):
                return Outcome(Status.LIMIT, 0, start)
            for each in maps:
                each.set(start, end, False)
            self._layout = layout
            return Outcome(Status.DONE, end - start, end, self._apply(start, end, PageState.PRIVATE))

    # Reset and snapshots

    def reset(
        self,
        ranges: Iterable[tuple[int, int, PageState]] = (),
        facts: Mapping[str, Iterable[tuple[int, int]]] | None = None,
    ) -> None:
        """Set the state of all pages: `ranges` as given, all else private; facts true where listed.

        Both are lists of (start, end, …), sorted and disjoint; pages need not be memory. The memory
        layout stays. Every page counts as changed afterwards. Nothing happens on an error.

        Raises:
            ModelError: `bad-ranges` (with field `where`) for a list that is not sorted and disjoint,
                `too-many-ranges` when it exceeds a bound, `unknown-fact`, `bad-pages`.

        """
        self._adopt(ranges, facts or {}, 0)

    def snapshot(self) -> Snapshot:
        """Return the states and facts of this moment, and its epoch."""
        with self._lock:
            facts = {name: tuple((run.start, run.end) for run in self._facts.runs(name)) for name in self._facts}
            return Snapshot(tuple(self._map), facts, self._generations.epoch)

    def restore(self, snapshot: Snapshot) -> None:
        """Put back a snapshot, of this or of another backend.

        A declared fact that the snapshot lacks becomes false. The epoch goes on above both sides' and
        every page counts as changed. Errors as for `reset`; nothing happens on an error.
        """
        self._adopt(snapshot.ranges, snapshot.facts, snapshot.epoch)

    def to_json(self) -> dict[str, object]:
        """`snapshot()` as JSON values."""
        return self.snapshot().to_json()

    def from_json(self, document: object) -> None:
        """`restore()` what `to_json` gave; `ModelError` `bad-snapshot` for anything else."""
        self.restore(Snapshot.from_json(document))

    def _adopt(
        self,
        ranges: Iterable[tuple[int, int, PageState]],
        facts: Mapping[str, Iterable[tuple[int, int]]],
        epoch: int,
    ) -> None:
        new_map: RangeMap[PageState] = RangeMap()
        _fill(new_map, ranges, "ranges", self._max_ranges)
        new_facts = Facts(self._facts.names, self._facts.max_ranges)
        for name, pairs in facts.items():
            rows = ((start, end, True) for start, end in pairs)
            _fill(new_facts.map_of(name), rows, f"facts.{name}", new_facts.max_ranges)
        if not self._fits(new_map.count, new_facts.count):
            raise ModelError(
                "too-many-ranges",
                f"{new_map.count} ranges and {new_facts.count} fact ranges exceed the backend's bound",
                count=new_map.count,
                fact_count=new_facts.count,
            )
        with self._lock:
            self._map, self._facts = new_map, new_facts
            self._generations.everything_changed(epoch)

    # Epochs

    @property
    def epoch(self) -> int:
        """A number that grows with each conversion that changes something, and with reset and restore."""
        return self._generations.epoch

    def changed_since(self, epoch: int) -> tuple[tuple[int, int], ...]:
        """Return the page ranges (start, end) that may have changed after `epoch`, merged and sorted.

        It may say too much and never too little. A page that changed and changed back is in it: its
        content is lost. `ModelError` `bad-epoch` for an epoch that has not begun.
        """
        with self._lock:
            return self._generations.changed_since(epoch)


def _check_pages(start: int, end: int) -> None:
    if not 0 <= start <= end <= GPA_PAGES:
        raise ModelError(
            "bad-pages",
            f"[{start:#x}, {end:#x}) is no page interval with 0 <= start <= end <= 2**52",
            start=start,
            end=end,
        )


def _fill(new: RangeMap[S], rows: Iterable[tuple[int, int, S]], where: str, bound: int | None) -> None:
    previous = 0
    for index, (start, end, state) in enumerate(rows):
        _check_pages(start, end)
        if not isinstance(state, type(new.default)):
            raise ModelError(
                "bad-ranges", f"{where}[{index}] has no page state but {state!r}", where=f"{where}[{index}]"
            )
        if start < previous:
            raise ModelError(
                "bad-ranges",
                f"{where}[{index}] starts at page {start:#x}, the one before it ends at {previous:#x}",
                where=f"{where}[{index}]",
                start=start,
            )
        new.set(start, end, state)
        previous = end
        if bound is not None and new.count > bound:
            raise ModelError("too-many-ranges", f"{where} has more than max_ranges = {bound} ranges", bound=bound)
