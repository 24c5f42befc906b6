"""Golden bytes of FF-A memory sharing, through the codecs, the host and the guest.

Typed by hand from the layouts in Linux include/linux/arm_ffa.h (versions 1.1 and 1.2) and from reading Hafnium 21bfbdc
and Xen 00c4db5 (version 1.0, and every answer). No example was run on a machine.
"""

from __future__ import annotations

import gc
import struct
import tracemalloc
from dataclasses import dataclass
from itertools import permutations

import pytest

from hvabi.abi.registry import load
from hvabi.adapters.ffa_mem_share import GuestAdapter, HostAdapter
from hvabi.adapters.values import GuestCall, GuestReply, GuestResult
from hvabi.backend import Backend, MemoryLayout, PageState

ABI = "ffa-mem-share"
TX = 0x2000
SHARE, SHARE64, RECLAIM, FRAG_TX = 0x84000073, 0xC4000073, 0x84000077, 0x8400007B
ERROR, SUCCESS, FRAG_RX = 0x84000060, 0x84000061, 0x8400007A
NOT_SUPPORTED, INVALID, NO_MEMORY, DENIED = 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFD, 0xFFFFFFFA
HANDLE = (1, 0x80000000)
"""Low and high half of the first handle: bit 63 says that a hypervisor chose it."""

RANGES = """
    03 00 00 00 02 00 00 00 00 00 00 00 00 00 00 00
    00 00 00 80 00 00 00 00 01 00 00 00 00 00 00 00
    00 20 00 80 00 00 00 00 02 00 00 00 00 00 00 00
"""
DESCRIPTORS = {
    "v1.0": """
        01 00 2f 00 00 00 00 00 00 00 00 00 00 00 00 00
        00 00 00 00 00 00 00 00 00 00 00 00 01 00 00 00
        01 80 02 00 30 00 00 00 00 00 00 00 00 00 00 00
    """
    + RANGES,
    "v1.1": """
        01 00 2f 00 00 00 00 00 00 00 00 00 00 00 00 00
        00 00 00 00 00 00 00 00 10 00 00 00 01 00 00 00
        30 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00
        01 80 02 00 40 00 00 00 00 00 00 00 00 00 00 00
    """
    + RANGES,
    "v1.2": """
        01 00 2f 00 00 00 00 00 00 00 00 00 00 00 00 00
        00 00 00 00 00 00 00 00 20 00 00 00 01 00 00 00
        30 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00
        01 80 02 00 50 00 00 00 00 00 00 00 00 00 00 00
        00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00
    """
    + RANGES,
}
LENGTHS = {"v1.0": 0x60, "v1.1": 0x70, "v1.2": 0x80}
SHARED = [(0x80000, 0x80001, "shared"), (0x80002, 0x80004, "shared")]


def raw(revision: str) -> bytearray:
    return bytearray.fromhex(DESCRIPTORS[revision])


@dataclass
class Relayer:
    """The bundled host, with a transmit buffer to write to."""

    revision: str = "v1.1"
    profile: str = "spec"
    config: dict[str, int] | None = None
    layout: MemoryLayout | None = None

    def __post_init__(self) -> None:
        spec = load(ABI, revision=self.revision, profile=self.profile)
        self.backend = Backend(layout=self.layout, facts=spec.abi.facts)
        self.host = HostAdapter(spec, config=self.config or {}, backend=self.backend)

    def call(self, *words: int, tx: bytes | bytearray = b"") -> tuple[int, ...]:
        """Return W0 to W3 of the answer to a call."""
        if tx:
            self.host.memory.poke(TX, bytes(tx))
        regs = {f"x{n}": word for n, word in enumerate((*words, 0, 0, 0, 0, 0)[:5])}
        answer = self.host.answer(regs)
        assert answer.end == "return"
        return tuple({**regs, **answer.regs}[f"x{n}"] for n in range(4))

    def share(self, tx: bytes | bytearray, *, total: int | None = None, length: int | None = None) -> tuple[int, ...]:
        length = len(tx) if length is None else length
        return self.call(SHARE, len(tx) if total is None else total, length, tx=tx)

    def pages(self) -> list[tuple[int, int, str]]:
        return [(run.start, run.end, run.state.value) for run in self.backend.query()]


def piece(address: int, pages: int) -> bytes:
    return struct.pack("<QII", address, pages, 0)


def first_fragment(announced: int, total_pages: int, *ranges: bytes) -> bytes:
    """Return a first fragment of version 1.1 whose composite descriptor promises more than it brings."""
    tx = raw("v1.1")[:0x50]
    struct.pack_into("<II", tx, 0x40, total_pages, announced)
    return bytes(tx) + b"".join(ranges)


# -- the examples of the sources --------------------------------------------------------------------------------------


@pytest.mark.parametrize("revision", DESCRIPTORS)
def test_share_and_reclaim(revision: str) -> None:
    relayer = Relayer(revision)
    assert len(raw(revision)) == LENGTHS[revision]
    assert relayer.share(raw(revision)) == (SUCCESS, 0, *HANDLE)
    assert relayer.pages() == SHARED
    assert relayer.call(RECLAIM, *HANDLE, 0)[0] == SUCCESS
    assert relayer.pages() == []


@pytest.mark.parametrize("revision", DESCRIPTORS)
def test_bytes_both_ways(revision: str) -> None:
    codec = load(ABI, revision=revision).message("request")
    wire = codec.encode(ranges=[{"address": 0x80000000, "page_count": 1}, {"address": 0x80002000, "page_count": 2}])
    assert wire.mem == ((TX, bytes(raw(revision))),)
    length = LENGTHS[revision]
    assert dict(wire.regs) == {"x0": SHARE, "x1": length, "x2": length, "x3": 0, "x4": 0}
    value = codec.decode(wire, strict=True)
    assert (value.sender, value.receiver, value.emad_count, value.composite_offset) == (1, 0x8001, 1, length - 0x30)
    assert [(item.address, item.page_count) for item in value.ranges] == [(0x80000000, 1), (0x80002000, 2)]
    assert (value.total_page_count, value.range_count, value.more_receivers) == (3, 2, ())


def test_64_bit_form() -> None:
    relayer = Relayer()
    assert relayer.call(SHARE64, 0x70, 0x70, tx=raw("v1.1")) == (SUCCESS, 0, *HANDLE)
    assert relayer.pages() == SHARED


def test_share_with_oneself() -> None:
    tx = raw("v1.1")
    tx[0x30:0x32] = b"\x01\x00"
    relayer = Relayer()
    assert relayer.share(tx)[:3] == (ERROR, 0, INVALID)
    assert relayer.pages() == []


def test_reclaim_twice() -> None:
    relayer = Relayer()
    relayer.share(raw("v1.1"))
    assert relayer.call(RECLAIM, *HANDLE)[0] == SUCCESS
    assert relayer.call(RECLAIM, *HANDLE)[:3] == (ERROR, 0, INVALID)


def test_reclaim_of_what_a_receiver_still_has() -> None:
    relayer = Relayer()
    relayer.share(raw("v1.1"))
    relayer.backend.set_fact("retrieved", 0x80002, 0x80003, True)
    assert relayer.call(RECLAIM, *HANDLE)[:3] == (ERROR, 0, DENIED)
    assert relayer.pages() == SHARED
    relayer.backend.set_fact("retrieved", 0x80002, 0x80003, False)
    assert relayer.call(RECLAIM, *HANDLE)[0] == SUCCESS
    assert relayer.pages() == []


def test_read_only_share() -> None:
    tx = raw("v1.1")
    tx[0x32] = 0x01
    relayer = Relayer()
    assert relayer.share(tx)[0] == SUCCESS
    assert relayer.pages() == [(start, end, "shared-read-only") for start, end, _ in SHARED]


def test_handle_is_for_its_region_alone() -> None:
    relayer = Relayer()
    relayer.share(first_fragment(1, 1, piece(0x40000000, 1)))
    second = relayer.share(first_fragment(1, 1, piece(0x50000000, 1)))
    assert second == (SUCCESS, 0, 2, 0x80000000)
    assert relayer.call(RECLAIM, *HANDLE)[0] == SUCCESS
    assert relayer.pages() == [(0x50000, 0x50001, "shared")]


# (byte offset, bytes, answer of Hafnium, answer of Xen): one change of the descriptor of version 1.1
CHANGES = {
    "sender": (0x00, "0200", DENIED, INVALID),
    "attributes-not-write-back": (0x02, "2b00", DENIED, NOT_SUPPORTED),
    "attributes-non-secure": (0x02, "6f00", INVALID, NOT_SUPPORTED),
    "attributes-device-gre": (0x02, "1f00", DENIED, NOT_SUPPORTED),
    "attributes-outer": (0x02, "2e00", DENIED, NOT_SUPPORTED),
    "attributes-of-no-type": (0x02, "0300", None, NOT_SUPPORTED),
    "flag-clear": (0x04, "01000000", INVALID, None),
    "flag-time-slice": (0x04, "02000000", INVALID, None),
    "receiver-size": (0x18, "18000000", INVALID, None),
    "no-receiver": (0x1C, "00000000", INVALID, NOT_SUPPORTED),
    "three-receivers": (0x1C, "03000000", INVALID, NOT_SUPPORTED),
    "receivers-in-the-header": (0x20, "20000000", INVALID, None),
    "reserved-of-the-header": (0x2C, "01000000", INVALID, None),
    "permissions-none": (0x32, "00", INVALID, NOT_SUPPORTED),
    "permissions-reserved": (0x32, "03", INVALID, NOT_SUPPORTED),
    "permissions-execute": (0x32, "0a", INVALID, NOT_SUPPORTED),
    "composite-not-aligned": (0x34, "48000000", INVALID, None),
    "composite-behind-the-end": (0x34, "70000000", INVALID, NOT_SUPPORTED),
    "reserved-of-the-receiver": (0x38, "01", INVALID, None),
    "total-of-one-more": (0x40, "04000000", INVALID, INVALID),
    "no-range": (0x44, "00000000", INVALID, INVALID),
    "one-range-of-two": (0x44, "01000000", INVALID, INVALID),
    "address": (0x50, "0008008000000000", INVALID, None),
    "address-of-the-last-page": (0x50, "00f0ffffffffffff", DENIED, DENIED),
    "overlap": (0x60, "0000008000000000", INVALID, None),
}


@pytest.mark.parametrize("change", CHANGES)
def test_one_change_for_hafnium(change: str) -> None:
    at, text, wanted, _ = CHANGES[change]
    tx = raw("v1.1")
    tx[at : at + len(text) // 2] = bytes.fromhex(text)
    relayer = Relayer(profile="hafnium")
    answer = relayer.share(tx)
    assert answer[0] == SUCCESS if wanted is None else answer[:3] == (ERROR, 0, wanted)
    assert relayer.pages() == (SHARED if wanted is None else [])


@pytest.mark.parametrize("change", [name for name, row in CHANGES.items() if row[3] is not None])
def test_one_change_for_xen(change: str) -> None:
    at, text, _, wanted = CHANGES[change]
    tx = raw("v1.1")
    tx[at : at + len(text) // 2] = bytes.fromhex(text)
    relayer = Relayer(profile="xen")
    assert relayer.share(tx)[:3] == (ERROR, 0, wanted)
    assert relayer.pages() == []


def test_xen_tells_a_success_that_is_none() -> None:
    """Xen leaves early for a fragment that does not fit the buffer: success with handle 0, and nothing is shared."""
    relayer = Relayer(profile="xen")
    assert relayer.share(raw("v1.1"), total=0x1010, length=0x1010) == (SUCCESS, 0, 0, 0)
    assert relayer.pages() == []


def test_xen_takes_the_page_that_an_address_lies_in() -> None:
    """get_shm_pages() of ffa_shm.c at 00c4db5 looks pages up by number, and no other line looks at the low bits."""
    tx = raw("v1.1")
    tx[0x50:0x58] = bytes.fromhex("0008008000000000")
    relayer = Relayer(profile="xen")
    assert relayer.share(tx)[0] == SUCCESS
    assert relayer.pages() == SHARED
    assert relayer.call(RECLAIM, *HANDLE)[0] == SUCCESS
    assert relayer.pages() == []


def test_hafnium_looks_at_one_range_after_another() -> None:
    """constituents_get_mode() finds no pages for the first range and does not come to the second, not aligned one."""
    tx = raw("v1.1")
    tx[0x50:0x58] = bytes.fromhex("00f0ffffffffffff")
    tx[0x60:0x68] = bytes.fromhex("0028008000000000")
    assert Relayer(profile="hafnium").share(tx)[:3] == (ERROR, 0, DENIED)
    tx[0x50:0x58], tx[0x60:0x68] = bytes.fromhex("0008008000000000"), bytes.fromhex("00e0ffffffffffff")
    assert Relayer(profile="hafnium").share(tx)[:3] == (ERROR, 0, INVALID)


def test_xen_shares_at_most_255_pages() -> None:
    relayer = Relayer(profile="xen")
    assert relayer.share(first_fragment(1, 256, piece(0x40000000, 256)))[:3] == (ERROR, 0, NO_MEMORY)
    assert relayer.share(first_fragment(1, 255, piece(0x40000000, 255)))[0] == SUCCESS


# -- cut, and too much ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("revision", DESCRIPTORS)
@pytest.mark.parametrize("profile", ["spec", "hafnium", "xen"])
def test_descriptor_cut_at_every_byte(revision: str, profile: str) -> None:
    """W1 and W2 both say a length that is too short: nothing is shared, and no byte behind it is looked at."""
    for length in range(LENGTHS[revision]):
        relayer = Relayer(revision, profile)
        answer = relayer.share(bytes(raw(revision)[:length]) + b"\xff" * 64, total=length, length=length)
        assert answer[:2] == (ERROR, 0), length
        assert answer[2] in ((INVALID,) if profile != "xen" else (INVALID, NOT_SUPPORTED)), length
        assert relayer.pages() == [], length
        assert relayer.host.handle_count() == 0


@pytest.mark.parametrize("revision", DESCRIPTORS)
def test_first_fragment_cut_at_every_byte(revision: str) -> None:
    """W2 alone is short: only where a whole range is there has the host something to wait for."""
    whole = LENGTHS[revision]
    for length in range(whole):
        relayer = Relayer(revision)
        answer = relayer.share(bytes(raw(revision)), total=whole, length=length)
        if length == whole - 0x10:
            assert answer == (FRAG_RX, *HANDLE, length)
        else:
            assert answer[:3] == (ERROR, 0, INVALID), length
        assert relayer.pages() == []


def test_buffer_that_ends_within_the_descriptor() -> None:
    layout = MemoryLayout([(0, 3), (0x80000, 0x90000)])
    relayer = Relayer(config={"tx_buffer": TX, "tx_size": 0x2000}, layout=layout)
    assert relayer.call(SHARE, 0x1010, 0x1010)[0] == ERROR
    assert relayer.pages() == []


@pytest.mark.parametrize("profile", ["spec", "hafnium", "xen"])
@pytest.mark.parametrize("more", [1 << 28, 1 << 31, (1 << 32) - 0x1000])
def test_range_count_times_its_size_is_no_32_bit_product(profile: str, more: int) -> None:
    tx = raw("v1.1")
    struct.pack_into("<I", tx, 0x44, (2 + more) & 0xFFFFFFFF)
    relayer = Relayer(profile=profile)
    assert relayer.share(tx)[:3] == (ERROR, 0, INVALID)
    assert relayer.pages() == []
    assert relayer.host.held() == 0


@pytest.mark.parametrize("count", [0x10000001, 0x08000001, 0xFFFFFFFF])
def test_receiver_count_times_its_size_is_no_32_bit_product(count: int) -> None:
    tx = raw("v1.1")
    struct.pack_into("<I", tx, 0x1C, count)
    relayer = Relayer(config={"max_receivers": 255})
    assert relayer.share(tx)[:3] == (ERROR, 0, INVALID)
    assert relayer.pages() == []


@pytest.mark.parametrize("offset", [0xFFFFFFF0, 0xFFFFFFC0, 0x80000000, 0x60, 0x68])
def test_composite_offset_behind_everything(offset: int) -> None:
    tx = raw("v1.1")
    struct.pack_into("<I", tx, 0x34, offset)
    relayer = Relayer()
    assert relayer.share(tx)[:3] == (ERROR, 0, INVALID)
    assert relayer.pages() == []


@pytest.mark.parametrize("profile", ["hafnium", "xen"])
def test_range_that_ends_behind_the_last_address(profile: str) -> None:
    """Neither looks at the sum: Hafnium finds no mode of mapping for the range, Xen no page for its first number."""
    relayer = Relayer(profile=profile)
    tx = first_fragment(1, 2, piece(0xFFFFFFFFFFFFF000, 2))
    assert relayer.share(tx)[:3] == (ERROR, 0, DENIED)
    assert relayer.pages() == []


# -- fragments --------------------------------------------------------------------------------------------------------

PARTS = [piece(0x40000000, 1), piece(0x40010000, 2), piece(0x40020000, 3)]
PAGES = [(0x40000, 0x40001, "shared"), (0x40010, 0x40012, "shared"), (0x40020, 0x40023, "shared")]


def fragment(relayer: Relayer, tx: bytes, handle: tuple[int, int] = HANDLE) -> tuple[int, ...]:
    return relayer.call(FRAG_TX, *handle, len(tx), 0, tx=tx)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_fragments_in_every_order(order: tuple[int, ...]) -> None:
    """A fragment says nothing of its place: the ranges are those that came, in whatever order."""
    relayer = Relayer()
    first, second, third = (PARTS[n] for n in order)
    assert relayer.share(first_fragment(3, 6, first), total=0x80) == (FRAG_RX, *HANDLE, 0x60)
    assert relayer.pages() == []
    assert fragment(relayer, second) == (FRAG_RX, *HANDLE, 0x70)
    assert relayer.pages() == []
    assert fragment(relayer, third) == (SUCCESS, 0, *HANDLE)
    assert relayer.pages() == PAGES


def test_fragment_that_comes_twice() -> None:
    relayer = Relayer()
    relayer.share(first_fragment(3, 5, PARTS[0]), total=0x80)
    assert fragment(relayer, PARTS[1])[0] == FRAG_RX
    assert fragment(relayer, PARTS[1])[:3] == (ERROR, 0, INVALID)
    assert relayer.pages() == []
    # It could never be finished any more, so it is gone.
    assert fragment(relayer, PARTS[2])[:3] == (ERROR, 0, INVALID)
    assert relayer.call(RECLAIM, *HANDLE)[:3] == (ERROR, 0, INVALID)
    assert relayer.host.handle_count() == 0


def test_fragment_behind_the_last() -> None:
    relayer = Relayer()
    relayer.share(first_fragment(2, 3, PARTS[0]), total=0x70)
    assert fragment(relayer, PARTS[1])[0] == SUCCESS
    assert fragment(relayer, PARTS[2])[:3] == (ERROR, 0, INVALID)
    assert relayer.pages() == PAGES[:2]
    assert relayer.call(RECLAIM, *HANDLE)[0] == SUCCESS


def test_fragment_before_any_share() -> None:
    relayer = Relayer()
    assert fragment(relayer, PARTS[0])[:3] == (ERROR, 0, INVALID)


def test_fragment_for_another_handle() -> None:
    relayer = Relayer()
    relayer.share(first_fragment(2, 3, PARTS[0]), total=0x70)
    for handle in ((2, 0x80000000), (1, 0), (0, 0x80000000), (0x80000000, 1)):
        assert fragment(relayer, PARTS[1], handle)[:3] == (ERROR, 0, INVALID)
    assert fragment(relayer, PARTS[1]) == (SUCCESS, 0, *HANDLE)


def test_reclaim_of_what_was_never_finished() -> None:
    relayer = Relayer()
    relayer.share(first_fragment(2, 3, PARTS[0]), total=0x70)
    assert relayer.call(RECLAIM, *HANDLE)[:3] == (ERROR, 0, INVALID)
    assert fragment(relayer, PARTS[1])[0] == SUCCESS


def test_fragments_of_two_regions_between_each_other() -> None:
    relayer = Relayer()
    relayer.share(first_fragment(2, 3, PARTS[0]), total=0x70)
    assert relayer.share(first_fragment(2, 2, piece(0x50000000, 1)), total=0x70) == (FRAG_RX, 2, 0x80000000, 0x60)
    assert fragment(relayer, piece(0x50010000, 1), (2, 0x80000000))[0] == SUCCESS
    assert relayer.pages() == [(0x50000, 0x50001, "shared"), (0x50010, 0x50011, "shared")]
    assert fragment(relayer, PARTS[1])[0] == SUCCESS
    assert relayer.call(RECLAIM, 2, 0x80000000)[0] == SUCCESS
    assert relayer.pages() == PAGES[:2]


def test_more_fragments_than_there_may_be() -> None:
    """The first one counts: with 20 of them the nineteenth behind it is the last that can come."""
    relayer = Relayer()
    pieces = [piece(0x40000000 + 0x1000 * n, 1) for n in range(21)]
    relayer.share(first_fragment(21, 21, pieces[0]), total=0x50 + 21 * 16)
    for one in pieces[1:20]:
        assert fragment(relayer, one)[0] == FRAG_RX
    assert fragment(relayer, pieces[20])[:3] == (ERROR, 0, NO_MEMORY)
    assert relayer.host.handle_count() == 0
    assert relayer.pages() == []


@pytest.mark.parametrize("length", [0, 8, 24, 0x1010])
def test_fragment_of_a_wrong_length(length: int) -> None:
    relayer = Relayer()
    relayer.share(first_fragment(2, 3, PARTS[0]), total=0x70)
    assert relayer.call(FRAG_TX, *HANDLE, length, 0, tx=PARTS[1])[:3] == (ERROR, 0, INVALID)
    assert fragment(relayer, PARTS[1])[0] == SUCCESS


@pytest.mark.parametrize("length", range(16))
def test_second_fragment_cut_at_every_byte(length: int) -> None:
    relayer = Relayer()
    relayer.share(first_fragment(2, 3, PARTS[0]), total=0x70)
    assert relayer.call(FRAG_TX, *HANDLE, length, 0, tx=PARTS[1])[:3] == (ERROR, 0, INVALID)
    assert relayer.pages() == []


def test_reset_forgets_every_handle() -> None:
    relayer = Relayer()
    relayer.share(raw("v1.1"))
    relayer.share(first_fragment(2, 3, PARTS[0]), total=0x70)
    relayer.host.reset()
    assert relayer.host.handle_count() == relayer.host.held() == 0
    assert relayer.call(RECLAIM, *HANDLE)[:3] == (ERROR, 0, INVALID)
    assert fragment(relayer, PARTS[1], (2, 0x80000000))[:3] == (ERROR, 0, INVALID)


# -- bounds -----------------------------------------------------------------------------------------------------------


def test_regions_that_are_never_finished_hold_no_more_and_more_memory() -> None:
    relayer = Relayer()
    full = b"".join(piece(0x40000000 + 0x2000 * n, 1) for n in range(251))
    tx = first_fragment(5000, 5000, full)
    answers = [relayer.share(tx, total=0x50 + 5000 * 16)[0] for _ in range(100)]
    kept = relayer.host.held(), relayer.host.handle_count()
    assert answers.count(FRAG_RX) == kept[1] == 0x4000 // 251
    tracemalloc.start()
    try:
        for _ in range(20):
            assert relayer.share(tx, total=0x50 + 5000 * 16)[:3] == (ERROR, 0, NO_MEMORY)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(200):
            assert relayer.share(tx, total=0x50 + 5000 * 16)[:3] == (ERROR, 0, NO_MEMORY)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert (relayer.host.held(), relayer.host.handle_count()) == kept
    assert grown < 64 << 10


def test_small_regions_that_are_never_finished() -> None:
    relayer = Relayer()
    answers = [relayer.share(first_fragment(2, 3, PARTS[0]), total=0x70) for _ in range(300)]
    assert [answer[0] for answer in answers] == [FRAG_RX] * 100 + [ERROR] * 200
    assert {answer[2] for answer in answers[100:]} == {NO_MEMORY}
    assert relayer.host.handle_count() == relayer.host.held() == 100
    # What is finished and taken back makes room.
    assert fragment(relayer, PARTS[1])[0] == SUCCESS
    assert relayer.share(first_fragment(1, 1, piece(0x60000000, 1)))[2] == NO_MEMORY
    assert relayer.call(RECLAIM, *HANDLE)[0] == SUCCESS
    assert relayer.share(first_fragment(1, 1, piece(0x60000000, 1)))[0] == SUCCESS


# -- the guest --------------------------------------------------------------------------------------------------------


def converse(
    guest: GuestAdapter, relayer: Relayer, gpa: int, pages: int, to: PageState
) -> tuple[list[GuestCall], GuestResult]:
    """Return the calls that a guest makes to the bundled host, and what it believes."""
    conversation = guest.convert(gpa, pages, to)
    calls: list[GuestCall] = []
    try:
        shown = next(conversation)
        while True:
            assert isinstance(shown, GuestCall)
            calls.append(shown)
            for at, data in shown.mem:
                relayer.host.memory.poke(at, data)
            answer = relayer.host.answer(dict(shown.regs))
            shown = conversation.send(GuestReply(regs=answer.regs, mem=answer.mem))
    except StopIteration as end:
        return calls, end.value


def test_guest_shares_and_takes_back() -> None:
    relayer, guest = Relayer(), GuestAdapter(load(ABI))
    calls, result = converse(guest, relayer, 0x80000000, 3, PageState.SHARED)
    assert result.done
    assert relayer.pages() == [(0x80000, 0x80003, "shared")]
    (call,) = calls
    assert call.mem[0][0] == TX
    assert call.mem[0][1].hex(" ", 4) == (
        "01002f00 00000000 00000000 00000000 00000000 00000000 10000000 01000000 30000000 00000000 00000000 00000000 "
        "01800200 40000000 00000000 00000000 03000000 03000000 00000000 00000000 00000080 00000000 01000000 00000000 "
        "00100080 00000000 01000000 00000000 00200080 00000000 01000000 00000000"
    )
    assert dict(call.regs) == {"x0": SHARE, "x1": 0x80, "x2": 0x80, "x3": 0, "x4": 0}
    calls, result = converse(guest, relayer, 0x80000000, 3, PageState.PRIVATE)
    assert result.done
    assert [dict(call.regs) for call in calls] == [{"x0": RECLAIM, "x1": 1, "x2": 0x80000000, "x3": 0}]
    assert relayer.pages() == []


def test_guest_sends_fragments() -> None:
    relayer, guest = Relayer(), GuestAdapter(load(ABI))
    calls, result = converse(guest, relayer, 0x80001000, 511, PageState.SHARED)
    assert result.done
    assert relayer.pages() == [(0x80001, 0x80200, "shared")]
    assert [(call.regs["x0"], call.regs["x2"], call.regs["x3"]) for call in calls] == [
        (SHARE, 0x1000, 0), (FRAG_TX, 0x80000000, 0x1000), (FRAG_TX, 0x80000000, 0x40),
    ]  # fmt: skip
    assert calls[0].regs["x1"] == 0x50 + 511 * 16
    assert calls[2].mem[0][1][:16].hex() == "00c01f80000000000100000000000000"


def test_guest_cannot_take_back_a_part_or_what_it_has_not_shared() -> None:
    relayer, guest = Relayer(), GuestAdapter(load(ABI))
    converse(guest, relayer, 0x80000000, 3, PageState.SHARED)
    for gpa, pages in ((0x80000000, 2), (0x80001000, 2), (0x80000000, 4), (0x90000000, 1)):
        calls, result = converse(guest, relayer, gpa, pages, PageState.PRIVATE)
        assert (calls, result.done, result.ranges) == ([], False, ())
    guest.reset()
    calls, result = converse(guest, relayer, 0x80000000, 3, PageState.PRIVATE)
    assert (calls, result.done) == ([], False)
