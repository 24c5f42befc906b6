"""A map from page numbers to states, kept as ranges.

`RangeMap` stores where the state changes and to what: a sorted list of boundaries with one state code
each. Pages before the first boundary, and all pages between ranges, have the default state and cost
nothing. Setting an interval is two bisections and one slice assignment; the list is cut into chunks so
that the slice assignment moves a few kilobytes at most, however many ranges there are.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Hashable, Iterable, Iterator
from typing import Any, Generic, TypeVar, overload

from hvabi.backend.invariants import check_chunks, check_table
from hvabi.backend.model import Change, ModelError, PageState, Run
from hvabi.backend.statecodes import Codes, StateCodes

#: A map covers [0, PAGE_LIMIT). A range that ends at PAGE_LIMIT has no closing boundary, so each boundary
#: fits into 64 bits.
PAGE_LIMIT = 1 << 64

#: Boundaries per chunk. Measured at a million ranges: 256 takes 21 bytes a range, 512 takes 19.5 and 1024
#: takes 18.8, with no clear difference in time.
CHUNK_SIZE = 512

#: What a byte budget charges for one range: 18 bytes of boundaries and codes and a share of the spare room.
RANGE_BYTES = 24

S = TypeVar("S", bound=Hashable)

# A named tuple's own constructor takes twice as long.
_change = tuple.__new__


class RangeMap(Generic[S]):
    """Sorted, disjoint, coalesced, half-open ranges of states over page numbers [0, 2**64).

    States are any hashable values; `default` is the state of every page that was never set and is
    stored nowhere. `chunk_size` (at least 2) is the number of boundaries in a chunk; only tests and
    benchmarks have a reason to change it. Do not change a map while iterating over it. A map takes no
    locks; `hvabi.backend.state.Backend` does.

    Every method that takes an interval raises `ModelError` `bad-range` unless
    0 <= start <= end <= 2**64. An empty interval is allowed and means nothing.
    """

    __slots__ = (
        "_bounds",
        "_chunk_size",
        "_code_of",
        "_codes",
        "_count",
        "_firsts",
        "_states",
        "_table",
    )

    @overload
    def __init__(self: RangeMap[PageState], *, chunk_size: int = CHUNK_SIZE) -> None: ...
    @overload
    def __init__(self, default: S, *, chunk_size: int = CHUNK_SIZE) -> None: ...
    def __init__(self, default: Any = PageState.PRIVATE, *, chunk_size: int = CHUNK_SIZE) -> None:
        if chunk_size < 2:
            raise ModelError(
                "bad-chunk-size", f"chunk_size must be at least 2, not {chunk_size}", chunk_size=chunk_size
            )
        self._chunk_size = chunk_size
        self._begin(default)

    def clear(self) -> None:
        """Put every page into the default state."""
        self._begin(self._states[0])

    def _begin(self, default: S) -> None:
        self._use(StateCodes(default))
        # Chunk c holds the boundaries at and above _firsts[c]. The first chunk begins below page 0, so a
        # boundary in any chunk but that one has a left neighbour in its own chunk or is the chunk's first.
        self._firsts: list[int] = [-1]
        self._bounds: list[array[int]] = [array("Q")]
        self._codes: list[Codes] = [bytearray()]
        self._count = 0

    def _use(self, table: StateCodes[S]) -> None:
        # Code 0 is the default state. The two lookups are used in every set, so they stand here too.
        self._table = table
        self._states = table.states
        self._code_of = table.code_of

    # Reading

    @property
    def default(self) -> S:
        """The state of every page that was never set."""
        return self._states[0]

    @property
    def count(self) -> int:
        """The number of ranges that are not in the default state; neighbours in different states are two."""
        return self._count

    def __len__(self) -> int:
        return self._count

    def __bool__(self) -> bool:
        return self._count > 0

    def __iter__(self) -> Iterator[Run[S]]:
        """Return the ranges that are not in the default state, in order."""
        states = self._states
        start, code = 0, 0
        for bounds, codes in zip(self._bounds, self._codes, strict=True):
            for bound, next_code in zip(bounds, codes, strict=True):
                if code:
                    yield Run(start, bound, states[code])
                start, code = bound, next_code
        if code:
            yield Run(start, PAGE_LIMIT, states[code])

    def runs(self, start: int, end: int) -> Iterator[Run[S]]:
        """Return the runs that make up [start, end), default ones too, clipped to the interval."""
        _check_interval(start, end)
        return self._runs(start, end)

    def _runs(self, start: int, end: int) -> Iterator[Run[S]]:
        if start == end:
            return
        states = self._states
        chunk, index = self._find(start)
        code = self._codes[chunk][index - 1] if index else 0
        while chunk < len(self._bounds):
            bounds, codes = self._bounds[chunk], self._codes[chunk]
            for i in range(index, len(bounds)):
                bound = bounds[i]
                if bound >= end:
                    yield Run(start, end, states[code])
                    return
                yield Run(start, bound, states[code])
                start, code = bound, codes[i]
            chunk, index = chunk + 1, 0
        yield Run(start, end, states[code])

    def state_at(self, page: int) -> S:
        """Return the state of one page, 0 <= page < 2**64."""
        if not 0 <= page < PAGE_LIMIT:
            raise _bad_interval(page, page + 1)
        chunk, index = self._find(page)
        return self._states[self._codes[chunk][index - 1] if index else 0]

    def uniform(self, start: int, end: int, state: S) -> bool:
        """Tell whether every page of [start, end) is in `state`; true for an empty interval."""
        _check_interval(start, end)
        if start == end:
            return True
        chunk, index = self._find(start)
        bounds, codes = self._bounds[chunk], self._codes[chunk]
        if self._code_of.get(state) != (codes[index - 1] if index else 0):
            return False
        if index < len(bounds):
            return bounds[index] >= end
        return chunk + 1 == len(self._firsts) or self._firsts[chunk + 1] >= end

    def first_other(self, start: int, end: int, state: S) -> int | None:
        """Return the first page of [start, end) that is not in `state`, or None where all are."""
        _check_interval(start, end)
        # Runs are joined, so the first one decides: it is another state, or what follows it is.
        run = next(self._runs(start, end), None)
        if run is None or run.state != state:
            return None if run is None else start
        return run.end if run.end < end else None

    def page_total(self, state: S) -> int:
        """Count how many pages of [0, 2**64) are in `state`."""
        if state == self._states[0]:
            return PAGE_LIMIT - sum(run.end - run.start for run in self)
        return sum(run.end - run.start for run in self if run.state == state)

    def diff(self, other: RangeMap[S]) -> tuple[Change[S], ...]:
        """Return what would turn this map into `other`: the runs where they differ, in order."""
        out: list[Change[S]] = []
        mine, theirs = self._runs(0, PAGE_LIMIT), other._runs(0, PAGE_LIMIT)
        a, b = next(mine), next(theirs)
        position = 0
        while True:
            end = min(a.end, b.end)
            if a.state != b.state:
                # At every run's end one of the two states changes, so neighbours never need merging.
                out.append(Change(position, end, a.state, b.state))
            if end == PAGE_LIMIT:
                return tuple(out)
            position = end
            if a.end == end:
                a = next(mine)
            if b.end == end:
                b = next(theirs)

    def __eq__(self, other: object) -> bool:
        """Equal maps give every page the same state, however they are stored."""
        if not isinstance(other, RangeMap):
            return NotImplemented
        return (
            self._states[0] == other._states[0]
            and self._count == other._count
            and all(a == b for a, b in zip(self, other, strict=True))
        )

    __hash__ = None  # type: ignore[assignment] # mutable, and typeshed declares __hash__ as a method

    def __repr__(self) -> str:
        return f"<RangeMap: {self._count} ranges, default {self._states[0]!r}>"

    @property
    def memory_bytes(self) -> int:
        """Bytes that the stored ranges take in this process, allocated spare room included."""
        small_int = sys.getsizeof(1 << 40)
        chunks = sum(map(sys.getsizeof, self._bounds)) + sum(map(sys.getsizeof, self._codes))
        lists = sum(map(sys.getsizeof, (self._firsts, self._bounds, self._codes, self._states, self._table.free)))
        return chunks + lists + small_int * len(self._firsts) + sys.getsizeof(self._code_of)

    # Changing

    def set(self, start: int, end: int, state: S) -> tuple[Change[S], ...]:
        """Put [start, end) into `state`; return the runs whose state was another one, in order."""
        if not 0 <= start < end <= PAGE_LIMIT:
            _check_interval(start, end)
            return ()
        try:
            code = self._code_of[state]
        except KeyError:
            code = self._table.add(state, self._codes)
        firsts = self._firsts
        if len(firsts) == 1:
            c = 0
        else:
            c = bisect_left(firsts, start) - 1
            if c + 1 < len(firsts) and firsts[c + 1] <= end:
                return self._set_across(c, start, end, code)
        bounds, codes = self._bounds[c], self._codes[c]
        i = bisect_left(bounds, start)
        left = codes[i - 1] if i else 0
        size = len(bounds)
        if i == size or (first := bounds[i]) > end:
            # The whole interval lies in one run: no boundary is in it, and none goes away.
            if left == code:
                return ()
            bounds.insert(i, start)
            codes.insert(i, code)
            if code:
                self._count += 1
            if end != PAGE_LIMIT:
                bounds.insert(i + 1, end)
                codes.insert(i + 1, left)
                if left:
                    self._count += 1
            if size + 2 > self._chunk_size and len(bounds) > self._chunk_size:
                self._split(c)
            states = self._states
            return (_change(Change, (start, end, states[left], states[code])),)
        j = i + 1
        if first == start and j < size and bounds[j] == end and left == code == codes[j]:
            # Exactly one run, the most frequent case: its pages go back to what is on both sides.
            old = codes[i]
            del bounds[i : j + 1]
            del codes[i : j + 1]
            if old:
                self._count -= 1
            if code:
                self._count -= 1
            if len(firsts) > 1 and (size - 2) * 2 <= self._chunk_size:
                self._join(c)
            states = self._states
            return (_change(Change, (start, end, states[old], states[code])),)
        return self._set_over(c, i, left, start, end, code)

    def _set_over(self, c: int, i: int, left: int, start: int, end: int, code: int) -> tuple[Change[S], ...]:
        """Set an interval with boundaries in it, all of them in chunk c, the first at index i."""
        bounds, codes = self._bounds[c], self._codes[c]
        j = i + 1
        size = len(bounds)
        if j < size and bounds[j] <= end:
            j += 1
            if j < size and bounds[j] <= end:
                j = bisect_right(bounds, end, j)
        right = codes[j - 1]
        if j == i + 2 and left != code != right and bounds[i] == start and bounds[i + 1] == end:
            # Exactly one run gets a state that its neighbours have not: its boundaries stay.
            old = codes[i]
            if old == code:
                return ()
            self._count += bool(code) - bool(old)
            codes[i] = code
            return (_change(Change, (start, end, self._states[old], self._states[code])),)
        inner = codes[i:j]
        changes = self._changes(start, end, left, zip(bounds[i:j], inner, strict=True), code)
        if not changes:
            return ()
        self._count -= j - i - inner.count(0)
        if left == code == right:
            del bounds[i:j]
            del codes[i:j]
        else:
            self._replace(bounds, codes, i, j, self._border(start, end, left, right, code))
        size = len(bounds)
        if size > self._chunk_size:
            self._split(c)
        elif size * 2 <= self._chunk_size and len(self._firsts) > 1:
            self._join(c)
        return changes

    def would_count(self, start: int, end: int, state: S) -> int:
        """Return the `count` that `set(start, end, state)` would leave, without changing anything."""
        _check_interval(start, end)
        if start == end:
            return self._count
        code = self._code_of.get(state, -1)
        c = bisect_left(self._firsts, start) - 1
        d = max(c, bisect_right(self._firsts, end) - 1)
        i = bisect_left(self._bounds[c], start)
        j = bisect_right(self._bounds[d], end)
        left = self._codes[c][i - 1] if i else 0
        right = self._codes[d][j - 1] if j else 0
        removed = 0
        for chunk in range(c, d + 1):
            codes = self._codes[chunk][i if chunk == c else 0 : j if chunk == d else None]
            removed += len(codes) - codes.count(0)
        added = (left != code and code != 0) + (right != code and right != 0 and end != PAGE_LIMIT)
        return self._count - removed + added

    def copy(self) -> RangeMap[S]:
        """Return a map of its own with the same content."""
        new: RangeMap[S] = RangeMap(self._states[0], chunk_size=self._chunk_size)
        new._use(self._table.copy())
        new._firsts = self._firsts[:]
        new._bounds = [bounds[:] for bounds in self._bounds]
        new._codes = [self._table.pack(codes) for codes in self._codes]
        new._count = self._count
        return new

    # The kernel

    def _find(self, page: int) -> tuple[int, int]:
        """Return the chunk and the index behind the last boundary that is <= page."""
        chunk = max(bisect_right(self._firsts, page) - 1, 0)
        return chunk, bisect_right(self._bounds[chunk], page)

    def _changes(
        self, start: int, end: int, left: int, inner: Iterable[tuple[int, int]], code: int
    ) -> tuple[Change[S], ...]:
        """Return what setting [start, end) to `code` changes; `inner` are the boundaries in [start, end]."""
        states = self._states
        out: list[Change[S]] = []
        position, current = start, left
        for bound, next_code in inner:
            if bound > position:
                if current != code:
                    out.append(Change(position, bound, states[current], states[code]))
                position = bound
            current = next_code
        if position < end and current != code:
            out.append(Change(position, end, states[current], states[code]))
        return tuple(out)

    def _border(
        self, start: int, end: int, left: int, right: int, code: int
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return what replaces the boundaries in [start, end], and count the ranges that begin there."""
        closing = right != code and end != PAGE_LIMIT
        if closing and right:
            self._count += 1
        if left == code:
            return ((end,), (right,)) if closing else ((), ())
        if code:
            self._count += 1
        return ((start, end), (code, right)) if closing else ((start,), (code,))

    def _replace(
        self,
        bounds: array[int],
        codes: Codes,
        i: int,
        j: int | None,
        border: tuple[tuple[int, ...], tuple[int, ...]],
    ) -> None:
        new, new_codes = border
        if j == i + 1 and new:
            # One boundary moves, and perhaps a second one comes: no array has to be made for that.
            bounds[i], codes[i] = new[0], new_codes[0]
            if len(new) == 2:
                bounds.insert(j, new[1])
                codes.insert(j, new_codes[1])
            return
        bounds[i:j] = array("Q", new)
        codes[i:j] = self._table.pack(new_codes)

    def _set_across(self, c: int, start: int, end: int, code: int) -> tuple[Change[S], ...]:
        """Set an interval that begins in chunk c and reaches a later one."""
        d = bisect_right(self._firsts, end) - 1
        i = bisect_left(self._bounds[c], start)
        j = bisect_right(self._bounds[d], end)
        left = self._codes[c][i - 1] if i else 0
        right = self._codes[d][j - 1]

        def inner() -> Iterator[tuple[int, int]]:
            for chunk in range(c, d + 1):
                part = slice(i if chunk == c else 0, j if chunk == d else None)
                yield from zip(self._bounds[chunk][part], self._codes[chunk][part], strict=True)

        changes = self._changes(start, end, left, inner(), code)
        if not changes:
            return ()
        self._count -= sum(1 for _, old in inner() if old)
        self._replace(self._bounds[c], self._codes[c], i, None, self._border(start, end, left, right, code))
        del self._bounds[d][:j], self._codes[d][:j]
        gone = d + 1
        if self._bounds[d]:
            self._firsts[d] = self._bounds[d][0]
            gone = d
        for column in (self._firsts, self._bounds, self._codes):
            del column[c + 1 : gone]
        if c + 1 < len(self._firsts):
            self._join(c + 1)
        if len(self._bounds[c]) > self._chunk_size:
            self._split(c)
        else:
            self._join(c)
        return changes

    def _split(self, c: int) -> None:
        bounds, codes = self._bounds[c], self._codes[c]
        # The larger part goes left: the chunk before this one may be empty, the one behind never is.
        half = (len(bounds) + 1) // 2
        self._bounds[c : c + 1] = [bounds[:half], bounds[half:]]
        self._codes[c : c + 1] = [codes[:half], codes[half:]]
        self._firsts.insert(c + 1, bounds[half])

    def _join(self, c: int) -> None:
        """Keep every two neighbouring chunks together larger than half a chunk."""
        room = self._chunk_size // 2
        bounds = self._bounds
        while c + 1 < len(bounds) and len(bounds[c]) + len(bounds[c + 1]) <= room:
            self._join_next(c)
        if c and len(bounds[c - 1]) + len(bounds[c]) <= room:
            self._join_next(c - 1)

    def _join_next(self, c: int) -> None:
        # A sum is allocated to measure, so the room that a shrunken chunk still held is given back.
        self._bounds[c] = self._bounds[c] + self._bounds[c + 1]
        self._codes[c] = self._table.pack([*self._codes[c], *self._codes[c + 1]])
        for column in (self._firsts, self._bounds, self._codes):
            del column[c + 1]

    def check(self) -> None:
        """Prove that the map is well formed; raise `InvariantError` where it is not. Takes linear time."""
        check_chunks(self._firsts, self._bounds, self._codes, self._chunk_size, self._count)
        check_table(self._table, self._codes)


def _check_interval(start: int, end: int) -> None:
    if not 0 <= start <= end <= PAGE_LIMIT:
        raise _bad_interval(start, end)


def _bad_interval(start: int, end: int) -> ModelError:
    return ModelError(
        "bad-range",
        f"[{start:#x}, {end:#x}) is no interval with 0 <= start <= end <= 2**64",
        start=start,
        end=end,
    )
