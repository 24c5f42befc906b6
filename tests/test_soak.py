"""Mixed work for a long time holds no more memory than at its begin. `.ci/slow` has the long forms."""

from __future__ import annotations

import gc
import json
import sys
import threading
import tracemalloc
from functools import partial
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING

import pytest

from hvabi.abi.registry import MAX_KEPT, load
from hvabi.adapters.registry import host_class
from hvabi.backend import Backend, GuestMemory
from hvabi.conformance.frame import PREFIX
from hvabi.conformance.iut import Session
from tests.entry import Mutator, corpus, take
from tests.entry_points import ENTRIES

if TYPE_CHECKING:
    from collections.abc import Callable

SPARE = 256 << 10
"""Bytes that may be held more at the end: what caches of a fixed size have by chance."""


def holds_flat(some: Callable[[int], object], first: int, count: int) -> None:
    """Do `first` pieces of work, for caches to fill, then twice `count`: what the second half adds is nothing."""
    some(first)
    gc.collect()
    tracemalloc.start()
    try:
        some(count)
        gc.collect()
        middle = tracemalloc.get_traced_memory()[0]
        some(count)
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - middle < SPARE
    finally:
        tracemalloc.stop()


def fuzzed(name: str) -> Callable[[int], None]:
    """Return work: mutated inputs for an entry point, right ones among them."""
    entry = ENTRIES[name]
    mutated = Mutator(Random(5), corpus(name), entry.words, text=entry.text)

    def some(count: int) -> None:
        for _ in range(count):
            take(entry, mutated())

    return some


def test_mixed_calls_hold_memory_flat() -> None:
    holds_flat(fuzzed("adapter"), 2000, 1000)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "count"), [("adapter", 20_000), ("decoder", 50_000), ("protocol", 10_000), ("traces", 1_000)]
)
def test_fuzzed_input_holds_memory_flat_for_long(name: str, count: int) -> None:
    holds_flat(fuzzed(name), count // 10, count)


class Configured:
    """One session of the protocol that is configured for every call, and never twice in the same way."""

    def __init__(self) -> None:
        self.session = Session()
        self.number = 0

    def ask(self, **words: object) -> None:
        answer = self.session.handle(PREFIX + json.dumps({"id": 1, **words}))
        assert answer is not None
        assert '"ok"' in answer

    def __call__(self, count: int) -> None:
        for _ in range(count):
            self.number += 1
            self.ask(cmd="configure", abi="svsm-pvalidate", revision="core-1", transport="vmgexit-msr", role="host",
                     config={"caa_gpa": hex(self.number << 12)})  # fmt: skip
            self.ask(cmd="reset")
            self.ask(cmd="call", vcpu=0, cpu={"cpl": 0}, regs={"rax": hex(self.number)}, mem=[])


def test_a_session_of_many_configurations_holds_memory_flat() -> None:
    # Halves that end where the codecs that are kept are as many.
    holds_flat(Configured(), 2 * MAX_KEPT, 2 * MAX_KEPT)


def on_one_backend(threads: int, calls: int) -> Backend:
    """Let vCPUs answer calls of their own, right and mutated, on one backend; fail with the first exception."""
    spec = load("kvm-map-gpa-range")
    backend = Backend(facts=spec.abi.facts, max_ranges=64)
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            rng = Random(seed)
            host = host_class(spec.id)(spec, transport="vmcall64", backend=backend)
            for _ in range(calls):
                host.memory = GuestMemory(None)
                attributes = rng.choice((0, 0x10, 0x10, rng.getrandbits(64)))
                gpa = rng.choice((rng.randrange(1 << 12) << 12, rng.getrandbits(64)))
                regs = {"rax": 12, "rbx": gpa, "rcx": rng.choice((1, 7, 512)), "rdx": attributes}
                answer = host.answer(regs, cpl=rng.choice((0, 0, 3)))
                assert answer.end == "return"
                assert backend.count <= 64
        except BaseException as failure:
            failures.append(failure)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        started = [threading.Thread(target=partial(work, seed)) for seed in range(threads)]
        for thread in started:
            thread.start()
        for thread in started:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    if failures:
        raise failures[0]
    return backend


def whole(backend: Backend) -> None:
    runs = backend.query()
    assert len(runs) == backend.count
    for one, two in pairwise(runs):
        assert one.start < one.end <= two.start < two.end
        assert one.end < two.start or one.state is not two.state, "neighbours of one state are one range"


def test_calls_of_several_vcpus_on_one_backend() -> None:
    backend = on_one_backend(4, 300)
    assert backend.count
    whole(backend)


@pytest.mark.slow
def test_calls_of_several_vcpus_on_one_backend_for_long() -> None:
    whole(on_one_backend(8, 50_000))
