"""Long random runs of RangeMap against a page array, and its room and time with a million ranges."""

from __future__ import annotations

import random
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from hvabi.backend import CHUNK_SIZE, RANGE_BYTES, PageState, RangeMap

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

P, S, R = STATES = (PageState.PRIVATE, PageState.SHARED, PageState.SHARED_READ_ONLY)
CODES = [bytes([code]) for code in range(3)]


def same(subject: RangeMap[PageState], pages: bytearray) -> bool:
    """Whether the map's ranges, written into fresh pages, give the oracle's pages."""
    mine = bytearray(len(pages))
    for start, end, state in subject:
        mine[start:end] = CODES[STATES.index(state)] * (end - start)
    return mine == pages


def walk(seed: int, steps: int, size: int, chunk_size: int, every: int, rare: int = 256) -> int:
    """Random sets on `size` pages; returns the largest number of ranges on the way.

    On every step: the changes that set() returned must be as many pages as changed in the oracle, and
    count must be what would_count() said before. On every `every`-th step and at the end: check() and the
    whole content.
    """
    rnd = random.Random(seed)
    subject = RangeMap(chunk_size=chunk_size)
    pages = bytearray(size)
    peak = 0
    for step in range(1, steps + 1):
        start = int(rnd.random() * size)
        # Mostly short intervals, so that many ranges live; a long one now and then.
        length = int(rnd.random() * (size if step % rare == 0 else 6))
        end = min(size, start + length)
        code = int(rnd.random() * 3)
        would = subject.would_count(start, end, STATES[code])
        changes = subject.set(start, end, STATES[code])
        old = pages[start:end]
        pages[start:end] = CODES[code] * (end - start)
        assert sum([c.end - c.start for c in changes]) == (end - start) - old.count(code)
        assert subject.count == would
        peak = max(peak, would)
        if step % every == 0 or step == steps:
            subject.check()
            assert same(subject, pages)
    return peak


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("chunk_size", [2, 7])
def test_100_000_steps_each_fully_checked(seed: int, chunk_size: int) -> None:
    assert walk(seed, 10_000, 48, chunk_size, every=1) > 10


@pytest.mark.parametrize(
    ("size", "chunk_size", "every", "rare"),
    [(96, 4, 500, 256), (4096, 16, 500, 4096), (4096, CHUNK_SIZE, 500, 4096), (65536, 64, 10_000, 100_000)],
    ids=["small", "many-chunks", "default-chunks", "large"],
)
def test_a_million_steps(size: int, chunk_size: int, every: int, rare: int) -> None:
    # 4 × 250 000 steps; check() and the whole content on every `every`-th step and at the end.
    assert walk(size + chunk_size, 250_000, size, chunk_size, every, rare) > size // 5


ORDERS: dict[str, Callable[[int], Sequence[int]]] = {
    "upward": lambda n: range(n),
    "downward": lambda n: range(n - 1, -1, -1),
    "anywhere": lambda n: random.Random(3).sample(range(4 * n), n),
}


@pytest.mark.parametrize("order", ORDERS)
def test_memory_a_range(order: str) -> None:
    ranges = 10_000
    pages = ORDERS[order](ranges)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        subject = RangeMap()
        for page in pages:
            subject.set(2 * page, 2 * page + 1, S)
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert subject.count == ranges
    assert taken / ranges <= RANGE_BYTES
    assert 0.9 <= subject.memory_bytes / taken <= 1.1  # memory_bytes is honest
    for page in pages:
        subject.set(2 * page, 2 * page + 1, P)
    subject.check()
    assert subject.count == 0
    assert subject.memory_bytes < 10_000  # an emptied map gives the room back


def test_a_million_ranges_fit_the_stated_bytes() -> None:
    subject: RangeMap[PageState] = RangeMap()
    for i in range(1_000_000):
        subject.set(i << 20, (i << 20) + 2, S)
    assert subject.count == 1_000_000
    assert subject.memory_bytes / 1_000_000 <= RANGE_BYTES
