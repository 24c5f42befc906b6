"""The backend: conversions, bounds, memory policies, facts, hot-plug, reset."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvabi.backend import (
    GPA_PAGES,
    RANGE_BYTES,
    Backend,
    Change,
    Conversion,
    MemoryLayout,
    ModelError,
    Outcome,
    PageState,
    Status,
)

if TYPE_CHECKING:
    from collections.abc import Callable

P, S, R = PageState.PRIVATE, PageState.SHARED, PageState.SHARED_READ_ONLY


def convert(backend: Backend, start: int, end: int, to: PageState) -> Outcome:
    return backend.convert(Conversion(start, end - start, to))


def test_a_conversion_is_done_as_a_whole() -> None:
    backend = Backend()
    assert convert(backend, 4, 9, S) == Outcome(Status.DONE, 5, 9, (Change(4, 9, P, S),))
    assert convert(backend, 6, 12, R) == Outcome(Status.DONE, 6, 12, (Change(6, 9, S, R), Change(9, 12, P, R)))
    assert backend.query() == ((4, 6, S), (6, 12, R))
    assert convert(backend, 6, 12, R) == Outcome(Status.DONE, 6, 12, ())  # there already
    assert backend.runs(3, 8) == ((3, 4, P), (4, 6, S), (6, 8, R))
    assert (backend.state_at(5), backend.state_at(12), backend.count) == (S, P, 2)
    assert backend.uniform(6, 12, R)
    assert not backend.uniform(5, 12, R)
    assert convert(backend, 0, GPA_PAGES, P).status is Status.DONE
    assert backend.query() == ()


MEMORY = MemoryLayout([(10, 20), (20, 30), (40, 50)])

# range, target, and the status under refuse, allow, allow-shared
POLICIES = {
    "memory-to-shared": (12, 15, S, "done", "done", "done"),
    "memory-to-private": (12, 15, P, "done", "done", "done"),
    "over-adjacent-slots": (15, 25, S, "done", "done", "done"),
    "over-a-hole-to-shared": (25, 45, S, "out-of-range", "done", "done"),
    "over-a-hole-to-read-only": (25, 45, R, "out-of-range", "done", "done"),
    "over-a-hole-to-private": (25, 45, P, "out-of-range", "done", "out-of-range"),
    "no-memory-to-shared": (60, 61, S, "out-of-range", "done", "done"),
    "no-memory-to-private": (60, 61, P, "out-of-range", "done", "out-of-range"),
    "no-pages-of-no-memory": (60, 60, P, "done", "done", "done"),
}


@pytest.mark.parametrize(
    ("start", "end", "to", "refuse", "allow", "allow_shared"), POLICIES.values(), ids=POLICIES.keys()
)
def test_pages_that_are_not_memory(
    start: int, end: int, to: PageState, refuse: str, allow: str, allow_shared: str
) -> None:
    for absent, status in (("refuse", refuse), ("allow", allow), ("allow-shared", allow_shared)):
        backend = Backend(layout=MEMORY)
        backend.reset([(0, 100, R if to is S else S)])
        before = backend.query()
        outcome = backend.convert(Conversion(start, end - start, to), absent=absent)  # type: ignore[arg-type] # a plain str out of the table
        assert outcome.status == status
        if status == "done":
            assert (outcome.pages_done, outcome.next) == (end - start, end)
            assert backend.uniform(start, end, to)
        else:
            assert outcome == Outcome(Status.OUT_OF_RANGE, 0, start)
            assert backend.query() == before


# Two ranges at a bound of two: [10, 20) and [30, 40).
AT_THE_BOUND = {
    "third-range": (50, 51, S, "limit"),
    "split-by-private": (12, 14, P, "limit"),
    "split-by-read-only": (12, 14, R, "limit"),
    "neighbour-in-another-state": (20, 22, R, "limit"),
    "shrink-from-the-left": (10, 14, P, "done"),
    "shrink-from-the-right": (14, 20, P, "done"),
    "shrink-over-the-edge": (14, 25, P, "done"),
    "remove": (10, 20, P, "done"),
    "remove-all": (0, 100, P, "done"),
    "extend": (20, 25, S, "done"),
    "join": (20, 30, S, "done"),
    "no-change": (12, 14, S, "done"),
    "private-already": (50, 60, P, "done"),
    "swap-state-of-a-whole-range": (10, 20, R, "done"),
    "swallow-both": (5, 45, R, "done"),
}


@pytest.mark.parametrize("bound", [{"max_ranges": 2}, {"max_bytes": 2 * RANGE_BYTES + 7}], ids=["ranges", "bytes"])
@pytest.mark.parametrize(("start", "end", "to", "status"), AT_THE_BOUND.values(), ids=AT_THE_BOUND.keys())
def test_at_the_bound(bound: dict[str, int], start: int, end: int, to: PageState, status: str) -> None:
    backend = Backend(**bound)  # type: ignore[arg-type] # keywords out of the table
    backend.reset([(10, 20, S), (30, 40, S)])
    epoch = backend.epoch
    outcome = convert(backend, start, end, to)
    assert outcome.status == status
    if status == "limit":
        assert outcome == Outcome(Status.LIMIT, 0, start)
        assert backend.query() == ((10, 20, S), (30, 40, S))
        assert backend.epoch == epoch
    else:
        assert backend.uniform(start, end, to)
        assert backend.count <= 2


def test_a_bound_of_zero_lets_nothing_be_shared() -> None:
    for backend in (Backend(max_ranges=0), Backend(max_bytes=RANGE_BYTES - 1)):
        assert convert(backend, 0, 1, S).status is Status.LIMIT
        assert convert(backend, 0, 1, P).status is Status.DONE
        assert backend.query() == ()


STEP = st.tuples(st.integers(0, 11), st.integers(0, 12), st.sampled_from([P, S, R]))


@settings(derandomize=True, deadline=None, max_examples=400)
@given(st.integers(0, 4), st.lists(STEP, max_size=30))
def test_bounded_conversions_against_pages(bound: int, steps: list[tuple[int, int, PageState]]) -> None:
    def ranges(pages: list[PageState]) -> int:
        return sum(1 for i, page in enumerate(pages) if page is not P and (i == 0 or pages[i - 1] is not page))

    backend = Backend(max_ranges=bound)
    pages = [P] * 24
    for start, length, to in steps:
        end = min(24, start + length)
        wanted = pages[:start] + [to] * (end - start) + pages[end:]
        if ranges(wanted) > bound and ranges(wanted) > ranges(pages):
            assert convert(backend, start, end, to) == Outcome(Status.LIMIT, 0, start)
        else:
            assert convert(backend, start, end, to).status is Status.DONE
            pages = wanted
        assert [backend.state_at(page) for page in range(24)] == pages
        assert backend.count == ranges(pages) <= bound


def test_plugged_memory_starts_private_and_unplugged_pages_are_forgotten() -> None:
    backend = Backend(layout=MemoryLayout([(0, 10)]), facts=["accepted"])
    assert convert(backend, 8, 12, S).status is Status.OUT_OF_RANGE
    backend.plug(10, 20)
    assert convert(backend, 8, 12, S).status is Status.DONE
    backend.set_fact("accepted", 5, 15, True)
    epoch = backend.epoch
    assert backend.unplug(10, 20) == Outcome(Status.DONE, 10, 20, (Change(10, 12, S, P),))
    assert backend.query() == ((8, 10, S),)
    assert backend.fact_runs("accepted") == ((5, 10, True),)
    assert backend.changed_since(epoch) == ((10, 12),)
    assert convert(backend, 8, 12, S).status is Status.OUT_OF_RANGE
    backend.plug(10, 20)
    assert backend.uniform(10, 20, P)
    with pytest.raises(ModelError) as caught:
        backend.plug(19, 21)
    assert caught.value.code == "slot-overlap"
    with pytest.raises(ModelError) as caught:
        backend.unplug(15, 25)
    assert caught.value.code == "not-memory"
    assert backend.layout == MemoryLayout([(0, 10), (10, 20)])


def test_unplug_keeps_the_bound_too() -> None:
    for fact in (False, True):
        backend = Backend(max_ranges=1, facts=["accepted"])
        if fact:
            backend.set_fact("accepted", 0, 100, True)
        else:
            convert(backend, 0, 100, S)
        assert backend.unplug(40, 50) == Outcome(Status.LIMIT, 0, 40)
        assert backend.layout == MemoryLayout(None)
        assert backend.unplug(50, 2**60).status is Status.DONE
        assert len(backend.query() if not fact else backend.fact_runs("accepted")) == 1


def test_reset_sets_everything() -> None:
    backend = Backend(facts=["accepted", "pinned"], max_ranges=3)
    convert(backend, 50, 60, S)
    backend.set_fact("pinned", 1, 2, True)
    backend.reset([(1, 2, S), (2, 3, S), (3, 4, R)], {"accepted": [(0, 8), (9, 10)]})
    assert backend.query() == ((1, 3, S), (3, 4, R))
    assert backend.fact_runs("accepted") == ((0, 8, True), (9, 10, True))
    assert backend.fact_runs("pinned") == ()
    assert backend.fact_uniform("accepted", 0, 8, True)
    backend.reset()
    assert (backend.query(), backend.fact_runs("accepted")) == ((), ())


RESET_MISTAKES = {
    "unsorted": ([(5, 6, S), (1, 2, S)], {}, "bad-ranges"),
    "overlapping": ([(1, 5, S), (4, 6, S)], {}, "bad-ranges"),
    "no-state": ([(1, 5, "shared")], {}, "bad-ranges"),
    "reversed": ([(5, 1, S)], {}, "bad-pages"),
    "too-high": ([(0, GPA_PAGES + 1, S)], {}, "bad-pages"),
    "too-many": ([(0, 1, S), (2, 3, S), (4, 5, S)], {}, "too-many-ranges"),
    "unknown-fact": ([], {"pined": [(0, 1)]}, "unknown-fact"),
    "unsorted-fact": ([], {"pinned": [(5, 6), (0, 1)]}, "bad-ranges"),
    "too-many-of-a-fact": ([], {"pinned": [(0, 1), (2, 3), (4, 5)]}, "too-many-ranges"),
    "too-many-together": ([(0, 1, S), (2, 3, S)], {"pinned": [(0, 1), (2, 3)]}, "too-many-ranges"),
}


@pytest.mark.parametrize(("ranges", "facts", "code"), RESET_MISTAKES.values(), ids=RESET_MISTAKES.keys())
def test_a_refused_reset_changes_nothing(ranges: object, facts: object, code: str) -> None:
    backend = Backend(facts=["pinned"], max_ranges=2, max_bytes=3 * RANGE_BYTES)
    convert(backend, 7, 9, S)
    backend.set_fact("pinned", 7, 8, True)
    epoch = backend.epoch
    with pytest.raises(ModelError) as caught:
        backend.reset(ranges, facts)  # type: ignore[arg-type] # wrong on purpose
    assert caught.value.code == code
    assert backend.query() == ((7, 9, S),)
    assert backend.fact_runs("pinned") == ((7, 8, True),)
    assert backend.epoch == epoch


def test_other_mistakes() -> None:
    backend = Backend()
    acts: dict[str, Callable[[], object]] = {
        "bad-policy": lambda: backend.convert(Conversion(0, 1, S), absent="maybe"),  # type: ignore[arg-type] # wrong on purpose
        "bad-pages": lambda: backend.uniform(0, GPA_PAGES + 1, P),
        "unknown-fact": lambda: backend.set_fact("x", 0, 1, True),
        "bad-bound": lambda: Backend(max_ranges=-1),
        "bad-epoch": lambda: backend.changed_since(1),
    }
    for code, act in acts.items():
        with pytest.raises(ModelError) as caught:
            act()
        assert caught.value.code == code
    with pytest.raises(ModelError):
        Backend(max_generations=0)
