"""The straight-line calls against the host that judges step by step: the same answers and the same pages."""

from __future__ import annotations

import sys
import threading
from functools import cache
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvabi.abi.errors import CodecError, ExprError
from hvabi.abi.registry import abi_ids, bundled, load
from hvabi.adapters.host import Host
from hvabi.adapters.straight import straight_calls
from hvabi.backend import Backend, MemoryLayout, PageState
from tests.fuzzing import combos
from tests.mutating import Mutator

if TYPE_CHECKING:
    from tests.fuzzing import Combo

SERVED = [abi for abi in abi_ids() if not bundled(abi).draft]
STRAIGHT = {"kvm-map-gpa-range", "kvm-page-enc-status", "tdx-map-gpa", "ghcb-msr-psc", "pef-uv-share"}
"""The ABIs whose conversion is one range in registers, without facts."""


class Slow(Host):
    """A host that never takes the short way: it is not the class itself."""


@cache
def reached(abi: str) -> list[tuple[Combo, Any]]:
    found = []
    for combo in combos(abi):
        host = combo.host(combo.configs[0], enabled=True)
        function = straight_calls(combo.spec).of(host, now=True)
        if function is not None:
            found.append((combo, function))
    return found


def test_which_calls_there_are() -> None:
    assert {abi for abi in SERVED if reached(abi)} >= STRAIGHT


@pytest.mark.parametrize("abi", SERVED)
@given(seed=st.integers(0, 1 << 32), bound=st.sampled_from([None, 0, 1, 2, 5]), holes=st.booleans())
@settings(max_examples=40, deadline=None)
def test_same_answer_and_same_pages(abi: str, seed: int, bound: int | None, holes: bool) -> None:
    if not reached(abi):
        pytest.skip("no call of it is written in straight lines")
    rng = Random(seed)
    combo, _ = rng.choice(reached(abi))
    config = rng.choice(combo.configs)
    layout = MemoryLayout([(0, 0x280), (0x300, 0x380), (0x400, 1 << 40)] if holes else None)
    pair = [
        kind(
            combo.spec,
            transport=combo.transport.name,
            config=dict(config),
            backend=Backend(layout=layout, max_ranges=bound, facts=combo.abi.facts),
        )
        for kind in (Host, Slow)
    ]
    fast, slow = pair
    straight_calls(combo.spec).of(fast, now=True)
    mutator = Mutator(abi, rng)
    calls = [(name, call) for name, call in combo.calls.items() if call.convert is not None]
    for _ in range(30):
        _, call = rng.choice(calls)
        base = combo.base(call, config, rng.randrange(3), rng.choice([PageState.SHARED, PageState.PRIVATE]))
        if base is None:
            continue
        codec = combo.codec(call.request, config)
        for _ in range(rng.choice((0, 0, 1, 2))):
            base = mutator.fields(codec, base)
        try:
            regs = dict(codec.encode(base).regs)
        except (CodecError, ExprError):  # a mutated field that does not fit: there is no such request
            continue
        if regs and rng.random() < 0.2:
            name = rng.choice([*regs])
            regs[name] = rng.choice((-1, 1 << 64, rng.getrandbits(64), mutator.register(regs[name])))
        if regs and rng.random() < 0.1:
            del regs[rng.choice([*regs])]
        cpl, enabled = rng.choice((0, 0, 0, 3)), rng.random() < 0.9
        fast.enabled = slow.enabled = enabled
        assert repr(fast.answer(regs, cpl=cpl)) == repr(slow.answer(regs, cpl=cpl)), (str(combo), config, regs)
        assert fast.backend.query() == slow.backend.query()
        assert fast.backend.epoch == slow.backend.epoch


@pytest.mark.parametrize("abi", sorted(STRAIGHT))
def test_the_short_way_is_taken(abi: str) -> None:
    taken = 0
    for combo, function in reached(abi):
        for call in combo.calls.values():
            base = combo.base(call, combo.configs[0], 0, PageState.SHARED) if call.convert is not None else None
            if base is None:
                continue
            regs = combo.codec(call.request, combo.configs[0]).encode(base).regs
            taken += function(regs, 0, 1, Backend()) is not None
    assert taken


def test_threads_on_one_backend() -> None:
    """Hosts of several vCPUs answer at once; what is left is what each of them did last."""
    spec = load("tdx-map-gpa")
    codec = spec.message("request")
    backend = Backend(max_ranges=1000)
    before = sys.getswitchinterval()
    failures: list[BaseException] = []

    def vcpu(number: int) -> None:
        try:
            host = Host(spec, backend=backend)
            straight_calls(spec).of(host, now=True)
            for turn in range(301):
                for page in range(number, 64, 4):
                    shared = (turn + page) % 2 == 0
                    regs = codec.encode(gpa=page << 13 | shared << 47, size=0x1000).regs
                    assert host.answer(regs).done_pages == 1
        except BaseException as failure:
            failures.append(failure)

    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=vcpu, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert not failures
    backend._map.check()
    assert [run.start for run in backend.query()] == [2 * page for page in range(64) if (300 + page) % 2 == 0]
