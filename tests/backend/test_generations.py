"""Epochs: what changed since. It may say too much, never too little."""

from __future__ import annotations

import random

import pytest

from hvabi.backend import GPA_PAGES, Backend, Conversion, Generations, ModelError, PageState

P, S, R = PageState.PRIVATE, PageState.SHARED, PageState.SHARED_READ_ONLY
SIZE = 64


def pages_of(ranges: tuple[tuple[int, int], ...]) -> set[int]:
    return {page for start, end in ranges for page in range(start, end)}


def test_a_flip_pair_counts_as_changed() -> None:
    backend = Backend()
    backend.convert(Conversion(10, 10, S))
    epoch = backend.epoch
    backend.convert(Conversion(12, 2, P))
    backend.convert(Conversion(12, 2, S))
    assert backend.query() == ((10, 20, S),)  # as before
    assert backend.changed_since(epoch) == ((12, 14),)
    assert backend.changed_since(0) == ((10, 20),)
    assert backend.changed_since(backend.epoch) == ()


def test_what_changes_nothing_makes_no_epoch() -> None:
    backend = Backend(max_ranges=1)
    backend.convert(Conversion(10, 10, S))
    epoch = backend.epoch
    backend.convert(Conversion(12, 2, S))
    backend.convert(Conversion(12, 0, P))
    backend.convert(Conversion(50, 1, S))  # limit
    backend.convert(Conversion(60, 9, P))
    assert backend.epoch == epoch


def test_only_the_pages_that_changed_are_named() -> None:
    backend = Backend()
    backend.convert(Conversion(10, 10, S))
    epoch = backend.epoch
    backend.convert(Conversion(5, 20, S))
    assert backend.changed_since(epoch) == ((5, 10), (20, 25))


@pytest.mark.parametrize("bound", [1, 2, 3, 4, 7, 16, 1000])
@pytest.mark.parametrize("seed", range(4))
def test_against_an_epoch_for_each_page(seed: int, bound: int) -> None:
    rnd = random.Random(seed)
    backend = Backend(max_generations=bound)
    states = [P] * SIZE
    last = [0] * SIZE
    for _ in range(300):
        start = rnd.randrange(SIZE)
        end = min(SIZE, start + rnd.choice([1, 1, 2, 3, SIZE]))
        to = rnd.choice([P, S, R])
        changed = [page for page in range(start, end) if states[page] is not to]
        before = backend.epoch
        backend.convert(Conversion(start, end - start, to))
        assert backend.epoch == before + bool(changed)
        for page in changed:
            states[page], last[page] = to, backend.epoch
        for epoch in {0, backend.epoch, *(rnd.randrange(backend.epoch + 1) for _ in range(4))}:
            said = pages_of(backend.changed_since(epoch))
            truth = {page for page in range(SIZE) if last[page] > epoch}
            assert truth <= said
            if bound == 1000:
                assert truth == said
            assert backend._generations.count <= bound


def test_at_the_bound_neighbours_merge_to_the_newest() -> None:
    generations = Generations(max_ranges=2)
    for start, end in ((0, 1), (10, 11), (100, 101)):
        generations.next_epoch()
        generations.stamp(start, end)
    # A merge leaves three quarters of the room in use: one range of two.
    assert generations.count == 1
    assert generations.changed_since(2) == ((0, 101),)
    assert generations.changed_since(3) == ()


def test_a_merge_closes_the_smallest_gaps() -> None:
    generations = Generations(max_ranges=4)
    for start in (0, 1000, 1010, 2000, 5000):
        generations.next_epoch()
        generations.stamp(start, start + 1)
    assert generations.changed_since(0) == ((0, 1), (1000, 2001), (5000, 5001))
    assert generations.changed_since(3) == ((1000, 2001), (5000, 5001))  # the newest of the merged three
    assert generations.changed_since(4) == ((5000, 5001),)


def test_reset_and_restore_count_as_a_change_of_everything() -> None:
    backend = Backend()
    backend.convert(Conversion(1, 1, S))
    saved = backend.snapshot()
    epoch = backend.epoch
    backend.reset()
    assert backend.epoch > epoch
    assert backend.changed_since(epoch) == ((0, GPA_PAGES),)
    assert backend.changed_since(backend.epoch) == ()
    epoch = backend.epoch
    backend.convert(Conversion(7, 1, S))
    assert backend.changed_since(epoch) == ((7, 8),)
    backend.restore(saved)
    assert backend.changed_since(epoch) == ((0, GPA_PAGES),)
    other = Backend()
    for _ in range(50):
        other.convert(Conversion(0, 1, S))
        other.convert(Conversion(0, 1, P))
    backend.restore(other.snapshot())
    assert backend.epoch > other.epoch == 100


def test_an_epoch_that_has_not_begun_is_a_mistake() -> None:
    for epoch in (-1, 1):
        with pytest.raises(ModelError) as caught:
            Generations(4).changed_since(epoch)
        assert caught.value.code == "bad-epoch"
