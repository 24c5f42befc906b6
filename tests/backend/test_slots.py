"""Memory slots: where there is memory, where not, hot-plug and unplug."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvabi.backend import PAGE_LIMIT, MemoryLayout, ModelError

# Two adjacent slots, a hole, a third: [0,10) [10,20) hole [30,40).
THREE = MemoryLayout([(30, 40), (0, 10), (10, 20)])

CASES = {
    "inside-one": (2, 5, True, True, None),
    "exactly-one": (0, 10, True, True, None),
    "over-adjacent-slots": (8, 12, True, False, None),
    "both-adjacent-slots": (0, 20, True, False, None),
    "into-the-hole": (15, 21, False, False, 20),
    "over-the-hole": (15, 35, False, False, 20),
    "in-the-hole": (22, 25, False, False, 22),
    "out-of-the-hole": (25, 35, False, False, 25),
    "behind-the-end": (40, 41, False, False, 40),
    "empty-in-the-hole": (22, 22, True, True, None),
}


@pytest.mark.parametrize(("start", "end", "inside", "one", "hole"), CASES.values(), ids=CASES.keys())
def test_where_there_is_memory(start: int, end: int, inside: bool, one: bool, hole: int | None) -> None:
    assert THREE.contains(start, end) is inside
    assert THREE.covers_in_one_slot(start, end) is one
    assert THREE.first_hole(start, end) == hole


def test_adjacent_slots_stay_two() -> None:
    assert list(THREE) == [(0, 10), (10, 20), (30, 40)]
    assert (THREE.slot_of(9), THREE.slot_of(10), THREE.slot_of(20)) == ((0, 10), (10, 20), None)


def test_none_is_everything_and_empty_is_nothing() -> None:
    everything, nothing = MemoryLayout(None), MemoryLayout([])
    assert everything.contains(0, PAGE_LIMIT)
    assert everything.covers_in_one_slot(2**51, 2**52)
    assert nothing.first_hole(0, 1) == 0
    assert nothing.slot_of(0) is None
    assert nothing.contains(5, 5)


def test_plug_gives_a_new_layout() -> None:
    plugged = THREE.plug(20, 30)
    assert plugged.contains(0, 40)
    assert not THREE.contains(0, 40)
    assert plugged == MemoryLayout([(0, 10), (10, 20), (20, 30), (30, 40)])
    assert hash(plugged) == hash(THREE.plug(20, 30))


UNPLUGS = {
    "a-whole-slot": (10, 20, [(0, 10), (30, 40)]),
    "the-middle": (3, 5, [(0, 3), (5, 10), (10, 20), (30, 40)]),
    "the-front": (30, 33, [(0, 10), (10, 20), (33, 40)]),
    "the-back": (33, 40, [(0, 10), (10, 20), (30, 33)]),
    "over-a-border": (5, 15, [(0, 5), (15, 20), (30, 40)]),
}


@pytest.mark.parametrize(("start", "end", "left"), UNPLUGS.values(), ids=UNPLUGS.keys())
def test_unplug_cuts_slots(start: int, end: int, left: list[tuple[int, int]]) -> None:
    assert list(THREE.unplug(start, end)) == left


MISTAKES = {
    "overlap": (lambda: MemoryLayout([(0, 10), (9, 12)]), "slot-overlap"),
    "twice": (lambda: MemoryLayout([(0, 10), (0, 10)]), "slot-overlap"),
    "empty-slot": (lambda: MemoryLayout([(4, 4)]), "bad-slot"),
    "reversed-slot": (lambda: MemoryLayout([(5, 4)]), "bad-slot"),
    "negative-slot": (lambda: MemoryLayout([(-1, 4)]), "bad-slot"),
    "above-the-limit": (lambda: MemoryLayout([(0, PAGE_LIMIT + 1)]), "bad-slot"),
    "plug-on-memory": (lambda: THREE.plug(19, 25), "slot-overlap"),
    "plug-where-all-is-memory": (lambda: MemoryLayout(None).plug(0, 1), "slot-overlap"),
    "unplug-a-hole": (lambda: THREE.unplug(15, 35), "not-memory"),
    "unplug-nothing": (lambda: THREE.unplug(5, 5), "bad-slot"),
}


@pytest.mark.parametrize(("act", "code"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes(act: object, code: str) -> None:
    with pytest.raises(ModelError) as caught:
        act()  # type: ignore[operator] # a callable out of the table
    assert caught.value.code == code


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20), st.integers(1, 6)), max_size=12))
def test_plugging_and_unplugging_against_a_page_set(steps: list[tuple[bool, int, int]]) -> None:
    layout, pages = MemoryLayout([]), set[int]()
    for plug, start, length in steps:
        span = set(range(start, start + length))
        allowed = not span & pages if plug else span <= pages
        try:
            layout = (layout.plug if plug else layout.unplug)(start, start + length)
        except ModelError:
            assert not allowed
            continue
        assert allowed
        pages = pages | span if plug else pages - span
        assert {page for slot in layout for page in range(*slot)} == pages
        for a in range(27):
            assert (layout.slot_of(a) is not None) == (a in pages)
            for b in range(a, 27):
                holes = [page for page in range(a, b) if page not in pages]
                assert layout.first_hole(a, b) == (holes[0] if holes else None)
