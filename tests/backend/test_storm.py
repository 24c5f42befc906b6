"""The alternate-page storm: a hostile guest that shares every second page, a million times."""

from __future__ import annotations

import tracemalloc

from hvabi.backend import Backend, Conversion, Outcome, PageState, Status

P, S = PageState.PRIVATE, PageState.SHARED
BOUND = 1024
CALLS = 1_000_000


def test_a_million_alternate_pages_hold_memory_flat() -> None:
    backend = Backend(max_ranges=BOUND)
    for i in range(BOUND):
        assert backend.convert(Conversion(2 * i, 1, S)).status is Status.DONE
    full = backend.query()
    assert len(full) == BOUND
    epoch, own = backend.epoch, backend.memory_bytes

    wrong = 0
    for i in range(BOUND, CALLS):
        if backend.convert(Conversion(2 * i, 1, S)) != Outcome(Status.LIMIT, 0, 2 * i):
            wrong += 1
        # Tracing makes calls slower, so a part of them stands for all: what does one call leave behind?
        if i == CALLS // 2:
            tracemalloc.start()
            before = tracemalloc.get_traced_memory()[0]
        if i == CALLS // 2 + 50_000:
            left, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
    assert wrong == 0
    assert left - before < 2_000
    assert peak - before < 20_000
    assert backend.query() == full
    assert (backend.epoch, backend.memory_bytes) == (epoch, own)

    # Splitting a range in two would add one; making pages private elsewhere always works.
    backend.convert(Conversion(1, 1, S))  # joins pages 0, 1, 2 and makes room for one
    assert backend.count == BOUND - 1
    assert backend.convert(Conversion(5000, 3, S)).status is Status.DONE
    assert backend.convert(Conversion(1, 1, P)) == Outcome(Status.LIMIT, 0, 1)
    assert backend.convert(Conversion(5001, 1, P)) == Outcome(Status.LIMIT, 0, 5001)
    assert backend.convert(Conversion(0, 1, P)).status is Status.DONE
    assert backend.convert(Conversion(5002, 1, P)).status is Status.DONE
    for i in range(2, BOUND):
        assert backend.convert(Conversion(2 * i, 1, P)).status is Status.DONE
    assert backend.query() == ((1, 3, S), (5000, 5002, S))


def test_a_storm_of_flips_keeps_the_generations_bounded() -> None:
    backend = Backend(max_ranges=64, max_generations=32)
    sizes = []
    for i in range(20_000):
        page = (i * 7919) % 100_000
        backend.convert(Conversion(page, 1, S))
        backend.convert(Conversion(page, 1, P))
        if i % 1000 == 999:
            sizes.append(backend.memory_bytes)
    assert backend.count == 0
    assert max(sizes) < 40_000
    assert backend.epoch == 40_000
