"""RangeMap against pages in a plain list: all states of six pages, and the shapes others got wrong."""

from __future__ import annotations

import itertools
from functools import cache
from typing import TYPE_CHECKING

import pytest

from hvabi.backend import (
    CHUNK_SIZE,
    PAGE_LIMIT,
    Change,
    InvariantError,
    ModelError,
    PageState,
    RangeMap,
    Run,
)

if TYPE_CHECKING:
    from collections.abc import Callable

P, S, R = PageState.PRIVATE, PageState.SHARED, PageState.SHARED_READ_ONLY
Pages = tuple[PageState, ...]


# The oracle: six pages in a tuple. It knows nothing of ranges but how to read them off.


@cache
def runs_of(pages: Pages, base: int) -> tuple[Run[PageState], ...]:
    out = []
    at = base
    for state, group in itertools.groupby(pages):
        length = len(list(group))
        if state is not P:
            out.append(Run(at, at + length, state))
        at += length
    return tuple(out)


def changes_of(pages: Pages, base: int, start: int, end: int, state: PageState) -> tuple[object, ...]:
    out = []
    at = start
    for before, group in itertools.groupby(pages[start:end]):
        length = len(list(group))
        if before is not state:
            out.append(Change(base + at, base + at + length, before, state))
        at += length
    return tuple(out)


@pytest.mark.parametrize("chunk_size", [2, CHUNK_SIZE])
@pytest.mark.parametrize("base", [0, 5, PAGE_LIMIT - 6], ids=["at-zero", "inside", "at-the-top"])
def test_every_set_from_every_state_of_six_pages(base: int, chunk_size: int) -> None:
    intervals = [(a, b) for a in range(7) for b in range(a, 7)]
    done = 0
    for pages in itertools.product((P, S, R), repeat=6):
        origin = RangeMap(chunk_size=chunk_size)
        for i, state in enumerate(pages):
            origin.set(base + i, base + i + 1, state)
        assert tuple(origin) == runs_of(pages, base)
        for (a, b), state in itertools.product(intervals, (P, S, R)):
            after = pages[:a] + (state,) * (b - a) + pages[b:]
            expected = runs_of(after, base)
            subject = origin.copy()
            assert subject.would_count(base + a, base + b, state) == len(expected)
            assert origin.uniform(base + a, base + b, state) == (set(pages[a:b]) <= {state})
            assert subject.set(base + a, base + b, state) == changes_of(pages, base, a, b, state)
            assert tuple(subject) == expected
            assert subject.count == len(expected)
            subject.check()
            done += 1
        assert tuple(origin) == runs_of(pages, base)  # copies are maps of their own
        assert [origin.state_at(base + i) for i in range(6)] == list(pages)
        for a, b in intervals:
            pieces = tuple(origin.runs(base + a, base + b))
            assert [s for r in pieces for s in [r.state] * (r.end - r.start)] == list(pages[a:b])
            assert all(x.state != y.state and x.end == y.start for x, y in itertools.pairwise(pieces))
    assert done == 3**6 * 28 * 3


# Shapes that a range list in a virtual machine monitor got wrong; the expected values are written by hand.

SHAPES = {
    "Q2-add-reaches-over-the-next-range": (
        [(10, 20, S), (30, 40, S), (15, 35, S), (10, 35, P)],
        [(35, 40, S)],
    ),
    "Q2-add-alone": ([(10, 20, S), (30, 40, S), (15, 35, S)], [(10, 40, S)]),
    "Q3-add-starts-left-of-an-overlapping-range": (
        [(20, 30, S), (10, 25, S), (10, 25, P)],
        [(25, 30, S)],
    ),
    "Q3-add-alone": ([(20, 30, S), (10, 25, S)], [(10, 30, S)]),
    "Q2-remove-reaches-over-several-ranges": (
        [(10, 20, S), (30, 40, S), (50, 60, S), (15, 55, P)],
        [(10, 15, S), (55, 60, S)],
    ),
    "Q5-pages-added-downward-are-one-range": ([(6, 7, S), (5, 6, S), (4, 5, S)], [(4, 7, S)]),
    "Q5-pages-added-upward-are-one-range": ([(4, 5, S), (5, 6, S), (6, 7, S)], [(4, 7, S)]),
    "fill-the-gap-between-two": ([(1, 2, S), (3, 4, S), (2, 3, S)], [(1, 4, S)]),
    "cut-a-hole": ([(10, 20, S), (12, 14, P)], [(10, 12, S), (14, 20, S)]),
    "read-only-inside-shared-is-three": (
        [(10, 20, S), (12, 14, R)],
        [(10, 12, S), (12, 14, R), (14, 20, S)],
    ),
    "the-whole-space": ([(0, PAGE_LIMIT, S), (7, 8, P)], [(0, 7, S), (8, PAGE_LIMIT, S)]),
    "the-whole-space-back": ([(3, 4, S), (9, 12, R), (0, PAGE_LIMIT, P)], []),
    "the-last-page": ([(PAGE_LIMIT - 1, PAGE_LIMIT, S)], [(PAGE_LIMIT - 1, PAGE_LIMIT, S)]),
    "twice": ([(5, 9, S), (5, 9, S)], [(5, 9, S)]),
    "nothing": ([(5, 5, S)], []),
}


@pytest.mark.parametrize("chunk_size", [2, 3, CHUNK_SIZE])
@pytest.mark.parametrize(("steps", "expected"), SHAPES.values(), ids=SHAPES.keys())
def test_shape(
    steps: list[tuple[int, int, PageState]], expected: list[tuple[int, int, PageState]], chunk_size: int
) -> None:
    subject = RangeMap(chunk_size=chunk_size)
    for step in steps:
        subject.set(*step)
        subject.check()
    assert list(subject) == expected
    assert subject.count == len(expected)


# The hypercalls that Ashish Kalra logged on 12 December 2020
# (<20201212045603.GA27415@ashkalra_ubuntu_server>): page number, npages read as decimal, enc.
SEED_LOG = """
1f018 1 1, 1f00e 1 0, 1f00e 1 0, 1f018 1 0, 1f008 1 0, 1f006 1 0, 1f008 1 1, 1f006 1 1, 1f007 1 0, 1f005 1 0,
1f007 1 1, 1f005 1 1, 1e83b 1 0, 1e839 1 0, 1e83b 1 1, 1e839 1 1, 1e5eb 1 0, 1e5e9 1 0, 1e5eb 1 1, 1e5e9 1 1,
1d767 100 0, 1e501 1 1, 1d767 100 1, 1e501 1 0, 1d767 100 0, 1e501 1 1
"""


def test_the_log_of_the_seed_thread() -> None:
    subject = RangeMap()
    shares = no_ops = peak = 0
    for line in SEED_LOG.replace("\n", " ").split(","):
        page, pages, enc = line.split()
        start = int(page, 16)
        changed = subject.set(start, start + int(pages), P if enc == "1" else S)
        subject.check()
        shares += enc == "0"
        no_ops += not changed
        peak = max(peak, subject.count)
    assert list(subject) == [(0x1D767, 0x1D7CB, S), (0x1F00E, 0x1F00F, S), (0x1F018, 0x1F019, S)]
    assert (shares, no_ops, peak, subject.page_total(S)) == (14, 3, 4, 102)


def test_changes_name_only_what_changed() -> None:
    subject = RangeMap()
    subject.set(10, 20, S)
    subject.set(30, 40, R)
    assert subject.set(5, 45, S) == (
        Change(5, 10, P, S),
        Change(20, 30, P, S),
        Change(30, 40, R, S),
        Change(40, 45, P, S),
    )
    assert subject.set(5, 45, S) == ()


def test_runs_cover_an_interval_with_the_default_runs() -> None:
    subject = RangeMap()
    subject.set(10, 20, S)
    subject.set(20, 25, R)
    assert list(subject.runs(5, 30)) == [(5, 10, P), (10, 20, S), (20, 25, R), (25, 30, P)]
    assert list(subject.runs(12, 15)) == [(12, 15, S)]
    assert list(subject.runs(0, PAGE_LIMIT))[-1] == (25, PAGE_LIMIT, P)
    assert list(subject.runs(7, 7)) == []


def test_uniform_sees_over_chunk_borders() -> None:
    subject = RangeMap(chunk_size=2)
    for page in range(0, 40, 4):
        subject.set(page, page + 2, S)
    for page in range(0, 40, 4):
        assert subject.uniform(page, page + 2, S)
        assert subject.uniform(page + 2, page + 4, P)
        assert not subject.uniform(page, page + 3, S)
        assert not subject.uniform(page + 1, page + 4, P)
        assert not subject.uniform(page, page + 1, R)
    assert subject.uniform(3, 3, R)
    assert subject.uniform(38, PAGE_LIMIT, P)


def test_diff_turns_one_map_into_the_other() -> None:
    a, b = RangeMap(), RangeMap(chunk_size=2)
    a.set(0, 10, S)
    a.set(20, 30, R)
    b.set(5, 25, S)
    assert a.diff(b) == (Change(0, 5, S, P), Change(10, 20, P, S), Change(20, 25, R, S), Change(25, 30, R, P))
    for change in a.diff(b):
        a.set(change.start, change.end, change.after)
    assert a == b
    assert a.diff(b) == ()


def test_equality_is_about_pages_not_about_history() -> None:
    a, b = RangeMap(), RangeMap(chunk_size=2)
    for page in range(0, 100, 2):
        a.set(page, page + 1, S)
    b.set(0, 100, R)
    for page in range(98, -1, -2):
        b.set(page, page + 1, S)
        b.set(page + 1, page + 2, P)
    assert a == b
    b.set(0, 1, R)
    assert a != b
    assert a != [1]
    assert RangeMap(False) != RangeMap(True)
    with pytest.raises(TypeError):
        hash(a)


def test_totals_and_clear() -> None:
    subject = RangeMap()
    subject.set(10, 20, S)
    subject.set(25, 28, S)
    subject.set(28, 29, R)
    assert (subject.page_total(S), subject.page_total(R)) == (13, 1)
    assert subject.page_total(P) == PAGE_LIMIT - 14
    assert (len(subject), bool(subject)) == (3, True)
    subject.clear()
    subject.check()
    assert (list(subject), subject.count, bool(subject)) == ([], 0, False)


def test_any_hashable_may_be_a_state() -> None:
    subject: RangeMap[str | None] = RangeMap(None)
    subject.set(1, 3, "handle-7")
    subject.set(2, 4, "handle-8")
    assert list(subject) == [(1, 2, "handle-7"), (2, 4, "handle-8")]
    assert subject.default is None


def test_more_than_256_states_live_together() -> None:
    subject: RangeMap[int] = RangeMap(0, chunk_size=8)
    for i in range(1, 2001):
        subject.set(i, i + 1, i)
    subject.check()
    assert list(subject) == [(i, i + 1, i) for i in range(1, 2001)]
    twin = subject.copy()
    subject.set(500, 1500, 7)
    subject.check()
    assert subject.count == 499 + 1 + 501
    assert twin.count == 2000


def test_states_that_are_gone_are_forgotten() -> None:
    subject: RangeMap[int] = RangeMap(0)
    subject.set(100, 200, 1)
    for i in range(2, 100_000):
        subject.set(i % 7, i % 7 + 1, i)
    subject.check()
    assert subject.memory_bytes < 60_000
    assert list(subject.runs(100, 200)) == [(100, 200, 1)]


BAD_INTERVALS = {
    "reversed": (7, 6),
    "negative": (-1, 6),
    "above-the-limit": (0, PAGE_LIMIT + 1),
    "beyond": (PAGE_LIMIT + 1, PAGE_LIMIT + 1),
}


@pytest.mark.parametrize(("start", "end"), BAD_INTERVALS.values(), ids=BAD_INTERVALS.keys())
def test_bad_intervals_are_refused_and_change_nothing(start: int, end: int) -> None:
    subject = RangeMap()
    subject.set(3, 9, S)
    for call in (subject.set, subject.would_count, subject.uniform):
        with pytest.raises(ModelError) as caught:
            call(start, end, R)
        assert caught.value.code == "bad-range"
        assert caught.value.fields == {"start": start, "end": end}
    with pytest.raises(ModelError):
        subject.runs(start, end)
    assert list(subject) == [(3, 9, S)]


def test_other_bad_arguments() -> None:
    for page in (-1, PAGE_LIMIT):
        with pytest.raises(ModelError, match="no interval"):
            RangeMap().state_at(page)
    with pytest.raises(ModelError) as caught:
        RangeMap(chunk_size=1)
    assert caught.value.code == "bad-chunk-size"


def add_an_empty_chunk(subject: RangeMap[PageState]) -> None:
    subject._firsts.append(99)
    subject._bounds.append(subject._bounds[0][:0])
    subject._codes.append(subject._codes[0][:0])


BROKEN: dict[str, Callable[[RangeMap[PageState]], object]] = {
    "sorted": lambda m: m._bounds[0].reverse(),
    "coalesced": lambda m: m._codes[0].__setitem__(1, m._codes[0][0]),
    "columns": lambda m: m._codes[0].append(0),
    "count": lambda m: setattr(m, "_count", 9),
    "chunk-size": lambda m: setattr(m, "_chunk_size", 2),
    "first-chunk": lambda m: m._firsts.__setitem__(0, 0),
    "chunk-first": add_an_empty_chunk,
    "chunk-fill": lambda m: m._split(0),
    "codes": lambda m: m._codes[0].__setitem__(0, 200),
    "states": lambda m: m._code_of.clear(),
    "chunks": lambda m: m._firsts.append(99),
}


@pytest.mark.parametrize("name", BROKEN)
def test_check_finds_a_broken_map(name: str) -> None:
    subject = RangeMap()
    subject.set(1, 2, S)
    subject.set(4, 5, S)
    subject.check()
    BROKEN[name](subject)
    with pytest.raises(InvariantError) as caught:
        subject.check()
    assert caught.value.code == name
