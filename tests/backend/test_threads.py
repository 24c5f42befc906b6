"""Several vCPUs at once: a conversion is atomic for readers, and bounds hold."""

from __future__ import annotations

import sys
import threading
from functools import partial
from typing import TYPE_CHECKING

import pytest

from hvabi.backend import Backend, Conversion, PageState, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

P, S, R = PageState.PRIVATE, PageState.SHARED, PageState.SHARED_READ_ONLY


@pytest.fixture(autouse=True)
def _switch_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def together(*works: Callable[[], None]) -> None:
    """Run the works at once; fail with the first exception of any."""
    failures: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def test_a_reader_never_sees_half_a_conversion() -> None:
    backend = Backend()
    stop = threading.Event()
    # Islands of another state, so that one conversion replaces many ranges in several steps.
    pattern = [(i * 10, i * 10 + 5, R) for i in range(600)]
    allowed = {((0, 6000, S),), tuple(pattern), ()}
    seen = set()

    def writer() -> None:
        try:
            for _ in range(40):
                backend.reset(pattern)
                backend.convert(Conversion(0, 6000, S))
                backend.convert(Conversion(0, 6000, P))
        finally:
            stop.set()

    def reader() -> None:
        while not stop.is_set():
            seen.add(backend.query())
            backend.runs(0, 6000)
            backend.uniform(0, 6000, S)
            backend.state_at(5995)
            backend.changed_since(0)

    together(writer, reader, reader)
    assert seen <= allowed
    assert len(seen) > 1


def flip_pages(backend: Backend, number: int) -> None:
    """What vCPU `number` does: conversions on its own thousand pages."""
    for i in range(400):
        page = number * 1000 + i * 7 % 500
        backend.convert(Conversion(page, 2, S))
        if i % 3 == 0:
            backend.convert(Conversion(page, 1, P))


def test_several_vcpus_on_their_own_pages_lose_nothing() -> None:
    backend, alone = Backend(), Backend()
    together(*(partial(flip_pages, backend, number) for number in range(4)))
    for number in range(4):
        flip_pages(alone, number)
    assert backend.query() == alone.query()
    assert backend.epoch == alone.epoch


def share_pages(backend: Backend, number: int, done: list[int]) -> None:
    for i in range(40):
        page = (number * 40 + i) * 2
        if backend.convert(Conversion(page, 1, S)).status is Status.DONE:
            done.append(page)
        backend.set_fact("accepted", page, page + 1, True)


def test_the_bound_holds_against_a_race() -> None:
    for _ in range(20):
        backend = Backend(max_ranges=50, facts=["accepted"])
        done: list[int] = []
        together(*(partial(share_pages, backend, number, done) for number in range(4)))
        assert len(done) == backend.count == 50
        assert sorted(done) == [run.start for run in backend.query()]
        assert len(backend.fact_runs("accepted")) == 50
