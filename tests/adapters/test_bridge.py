"""Any ABI in front of any other: the same pages in the same state on both sides, whatever happens in between."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hvabi.abi.registry import abi_ids, bundled, load
from hvabi.adapters.bridge import Bridge, kvm, split
from hvabi.adapters.converse import converse
from hvabi.adapters.errors import AdapterError
from hvabi.adapters.losses import LOSSES, Powers, losses, powers
from hvabi.adapters.registry import guest_class
from hvabi.adapters.values import GuestCall, GuestReply, HostAnswer, Injection
from hvabi.backend import PAGE_SIZE, PageState
from hvabi.traces import Trace, TraceEvent

if TYPE_CHECKING:
    from hvabi.adapters.guest import Guest
    from hvabi.adapters.host import Host


def _speaks(abi: str) -> bool:
    call = bundled(abi).convert_call
    if bundled(abi).draft or call is None or call.guest is None or call.convert is None:
        return False
    # Others change facts about pages only, or are the guest's own half of what another call has done.
    return call.convert.to is not None and abi != "hyperv-accept-pages"


ABIS = [abi for abi in abi_ids() if _speaks(abi)]
# One page at a time, or in elements of one size: these never ask for a granule that is larger than theirs.
BY_PAGE = {"ghcb-msr-psc", "ghcb-psc", "hyperv-host-visibility", "s390-uv-share", "pkvm-mem-share", "ffa-mem-share"}
BY_SIZE = {*BY_PAGE, "common-convert", "kvm-shared-pages-list"}
LARGE = {"pef-uv-share": BY_PAGE | {"kvm-shared-pages-list"}, "kvm-page-enc-bitmap": BY_SIZE | {"pef-uv-share"}}
"""ABIs with a large granule, and those whose requests may have smaller pieces."""
# A near side that goes page by page makes a region of each.
ROOMY = {"ffa-mem-share": {"max_shares": 0x1000}}
PAIRS = [(near, far) for near in ABIS for far in ABIS if near not in LARGE.get(far, ()) or near == far]
FIRST = 0x4000  # pages: behind every scratch area, aligned to any granule
ROOM = 0x400


@cache
def powers_of(abi: str) -> Powers:
    return powers(load(abi))


def states(host: Host) -> list[tuple[int, int, PageState]]:
    return [(run.start, run.end, run.state) for run in host.backend.query()]


def guest_of(abi: str) -> Guest:
    return guest_class(abi)(load(abi), scratch=(0x30, 0x40))


def sequence(near: str, far: str, seed: str, count: int) -> list[tuple[int, int, PageState]]:
    """Random conversions that avoid only what the losses of the pair name."""
    choose = random.Random(f"{near} {far} {seed}")
    here, there = powers_of(near), powers_of(far)
    lost = {loss.name for loss in losses(here, there)}
    granule = max(here.granule, there.granule if "granule" in lost else 0) // PAGE_SIZE
    wanted = here.states & there.states if {"read-only", "one-way"} & lost else here.states
    fresh = "idempotence" in lost or not here.idempotent
    pages: dict[int, str] = {}
    out: list[tuple[int, int, PageState]] = []
    for _ in range(100 * count):
        if len(out) == count:
            break
        start = FIRST + choose.randrange(ROOM // granule) * granule
        length = choose.choice((1, 1, 2, 3, 8, 40)) * granule
        to = choose.choice(sorted(wanted))
        touched = range(start, start + length)
        if fresh and any(pages.get(page, "private") == to for page in touched):
            to = next(
                (state for state in sorted(wanted) if state not in {pages.get(p, "private") for p in touched}), ""
            )
            if not to:
                continue
        pages.update(dict.fromkeys(touched, to))
        out.append((start, length, PageState(to)))
    # A pair that can only share, and each page once, may run out of pages before.
    assert len(out) == count or (out and len(wanted) == 1)
    return out


@pytest.mark.parametrize(("near", "far"), PAIRS, ids=lambda abi: abi)
def test_random_sequences_leave_both_sides_the_same(near: str, far: str) -> None:
    bridge, guest = Bridge(near, far, far_config=ROOMY.get(far)), guest_of(near)
    pages: dict[int, PageState] = {}
    for start, length, to in sequence(near, far, "a", 10):
        result = converse(guest, bridge.near, start * PAGE_SIZE, length, to)
        assert result.done, result.reason
        pages.update(dict.fromkeys(range(start, start + length), to))
    assert states(bridge.near) == states(bridge.far.host)
    found = {page: state for low, high, state in states(bridge.near) for page in range(low, high)}
    assert found == {page: state for page, state in pages.items() if state is not PageState.PRIVATE}


class Failing:
    """A far host that stops in its first call after some pages, is gone in the next, and works from then on."""

    def __init__(self, host: Host, pages: int) -> None:
        self.answer_of = host.answer
        self.pages = pages
        self.calls = 0
        self.again = False  # the same call once more, after a host that had it executed again

    def answer(self, regs: Any, *, inject: Injection | None = None, **more: Any) -> HostAnswer:
        self.calls += not self.again
        if self.calls == 2 and not self.again:
            return HostAnswer(end="stop", reason="gone")
        first = self.calls == 1 and not self.again
        answer = self.answer_of(regs, inject=Injection(stop_after=self.pages) if first else inject, **more)
        self.again = answer.end == "replay"
        return answer


@pytest.mark.parametrize(("near", "far"), PAIRS, ids=lambda abi: abi)
def test_where_the_far_side_ends_the_near_one_says_so(near: str, far: str) -> None:
    here, there = powers_of(near), powers_of(far)
    granule = max(here.granule, there.granule) // PAGE_SIZE
    whole = 4 * granule
    for stop in range(0, whole + 1, granule):
        bridge, guest = Bridge(near, far), guest_of(near)
        failing = Failing(bridge.far.host, stop)
        bridge.far.host.answer = failing.answer  # type: ignore[method-assign]  # a host that fails
        result = converse(guest, bridge.near, FIRST * PAGE_SIZE, whole, PageState.SHARED)
        believed = [(low, high, PageState.SHARED) for low, high in result.ranges]
        assert states(bridge.near) == states(bridge.far.host), stop
        if here.partial or result.done:
            # Whoever can say how far it came has said just that.
            assert states(bridge.near) == believed, stop
        if result.done:
            assert believed == [(FIRST, FIRST + whole, PageState.SHARED)]


@pytest.mark.parametrize(("near", "far"), PAIRS, ids=lambda abi: abi)
def test_where_the_far_side_stops_and_goes_on_the_near_one_is_done(near: str, far: str) -> None:
    """Partial answers and ones without progress there, at every stopping point: all of it is done here in the end."""
    here, there = powers_of(near), powers_of(far)
    granule = max(here.granule, there.granule) // PAGE_SIZE
    whole = 4 * granule
    for stop in range(0, whole + 1, granule):
        bridge, guest = Bridge(near, far), guest_of(near)
        # The first call there does `stop` pages, the second nothing, the third one granule: then nothing is in the way.
        bridge.far.faults = [Injection(stop_after=pages) for pages in (stop, 0, granule)]
        result = converse(guest, bridge.near, FIRST * PAGE_SIZE, whole, PageState.SHARED)
        if not there.partial and not result.done:
            # Such a host says no where it stops: then nothing may be told as done that is not.
            assert states(bridge.near) == states(bridge.far.host), stop
            continue
        assert result.done, (stop, result.reason)
        assert states(bridge.near) == states(bridge.far.host) == [(FIRST, FIRST + whole, PageState.SHARED)], stop


LOG = Path(__file__).parent.parent / "data" / "traces" / "lkml-sev-hypercall3.txt"
# What stays shared at the end of the log in the mail, worked out by hand in tests/traces/test_replay_seed.py.
AT_THE_END = [(0x1D767, 0x1D767 + 100), (0x1F00E, 0x1F00F), (0x1F018, 0x1F019)]


@pytest.mark.parametrize("middle", [abi for abi in ABIS if abi not in LARGE and "private" in powers_of(abi).states])
def test_the_log_of_the_thread_in_every_abi_and_back(middle: str) -> None:
    """Every call of the boot log in the mail, through an ABI and from there back into the first one."""
    with LOG.open("rb") as stream:
        log = [event for event in Trace(stream, name="mail") if isinstance(event, TraceEvent)]
    assert len(log) == 26
    first, back = Bridge("kvm-page-enc-status", middle), Bridge(middle, "kvm-page-enc-status")
    for event in log:
        assert event.to is not None
        page = event.gpa // PAGE_SIZE
        if not powers_of(middle).idempotent and first.near.backend.uniform(page, page + event.pages, event.to):
            continue  # the loss `idempotence`: the log has three calls that change nothing
        assert converse(guest_of("kvm-page-enc-status"), first.near, event.gpa, event.pages, event.to).done
    for exchange in first.far.exchanges:
        for gpa, data in exchange.call.mem:
            back.near.memory.poke(gpa, data)
        assert back.near.answer(exchange.call.regs).end == "return"
    wanted = [(low, high, PageState.SHARED) for low, high in AT_THE_END]
    assert states(first.near) == states(first.far.host) == states(back.near) == states(back.far.host) == wanted


@pytest.mark.parametrize("front", ["kvm-map-gpa-range", "ghcb-psc", "ghcb-msr-psc", "tdx-map-gpa"])
def test_kvm_as_it_is_built(front: str) -> None:
    host, user_space, far = kvm(front)
    conversation = guest_of(front).convert(FIRST * PAGE_SIZE, 5, PageState.SHARED)
    result = None
    shown = next(conversation)
    while result is None:
        assert isinstance(shown, GuestCall)
        for gpa, data in shown.mem:
            host.memory.poke(gpa, data)
        answer = split(host, user_space, shown.regs)
        try:
            shown = conversation.send(GuestReply(regs=answer.regs, mem=answer.mem))
        except StopIteration as end:
            result = end.value
    assert result.done
    assert states(far.host) == states(host) == [(FIRST, FIRST + 5, PageState.SHARED)]


def test_kvm_refuses_what_its_ioctl_refuses() -> None:
    """The hypercall lets a range through that ends at 2^64 bytes; the ioctl does not, as real kernels have shown."""
    host, user_space, far = kvm("kvm-map-gpa-range")
    answer = split(host, user_space, {"rax": 12, "rbx": 2**64 - 4096, "rcx": 1, "rdx": 0x10})
    assert answer.regs["rax"] != 0
    assert states(far.host) == []


def test_an_exit_that_nobody_answers() -> None:
    host, _, _ = kvm("kvm-map-gpa-range")
    with pytest.raises(AdapterError) as error:
        split(host, {}, {"rax": 12, "rbx": 0x1000, "rcx": 1})
    assert error.value.code == "no-user-space"


def test_the_losses_are_from_the_closed_list() -> None:
    for near, far in PAIRS:
        found = [loss.name for loss in losses(powers_of(near), powers_of(far))]
        assert set(found) <= set(LOSSES)
        assert len(found) == len(set(found))
        assert near != far or not found


@pytest.mark.parametrize(
    ("near", "far", "name"),
    [
        ("ghcb-psc", "tdx-map-gpa", "list"),
        ("ghcb-psc", "tdx-map-gpa", "size-hint"),
        ("ghcb-psc", "kvm-map-gpa-range", "progress"),
        ("common-convert", "ghcb-psc", "read-only"),
        ("kvm-map-gpa-range", "tdx-map-gpa", "range"),
        ("kvm-map-gpa-range", "s390-uv-share", "idempotence"),
        ("common-convert", "ghcb-msr-psc", "reasons"),
        ("kvm-page-enc-status", "kvm-shared-pages-list", "one-way"),
        ("kvm-page-enc-status", "kvm-page-enc-bitmap", "granule"),
    ],
)
def test_what_the_sources_say_is_lost(near: str, far: str, name: str) -> None:
    assert name in {loss.name for loss in losses(powers_of(near), powers_of(far))}
