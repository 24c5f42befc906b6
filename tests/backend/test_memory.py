"""Guest memory: where it is, who reads it how often, and what a hostile guest does between two reads."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvabi.backend import CallMemory, GuestMemory, MemoryLayout, ModelError, OutsideMemory, SparseBytes

# Pages 1 and 2 are two slots, page 4 a third: bytes [0x1000, 0x3000) and [0x4000, 0x5000).
LAYOUT = MemoryLayout([(1, 2), (2, 3), (4, 5)])

OUTSIDE = {
    "below": (0xFFF, 1, 0xFFF),
    "from-below": (0xFFC, 8, 0xFFC),
    "into-the-hole": (0x2FFC, 8, 0x3000),
    "in-the-hole": (0x3010, 4, 0x3010),
    "behind": (0x5000, 1, 0x5000),
    "last-byte-only": (0x4FF9, 8, 0x5000),
    "over-the-hole": (0x2000, 0x3000, 0x3000),
    "huge": (0x1000, 2**40, 0x3000),
    "to-the-end-of-the-address-space": (2**64 - 8, 8, 2**64 - 8),
    "over-the-end-of-the-address-space": (2**64 - 8, 16, 2**64 - 8),
    "beyond-the-address-space": (2**70, 1, 2**70),
}


@pytest.mark.parametrize(("gpa", "size", "first"), OUTSIDE.values(), ids=OUTSIDE.keys())
def test_an_access_outside_memory_names_the_first_such_byte(gpa: int, size: int, first: int) -> None:
    memory = GuestMemory(LAYOUT, count_reads=True)
    for view in (memory, CallMemory(memory)):
        with pytest.raises(OutsideMemory) as caught:
            view.read(gpa, size)
        assert (caught.value.gpa, caught.value.code) == (first, "outside-memory")
        if size < 2**20:
            with pytest.raises(OutsideMemory):
                view.write(gpa, b"x" * size)
    assert memory.reads_of(0x1000) == 0
    assert memory.peek(0x1000, 16) == bytes(16)


INSIDE = {
    "first-byte": (0x1000, 1),
    "over-adjacent-slots": (0x1FFC, 8),
    "all": (0x1000, 0x2000),
    "last-bytes": (0x4FF8, 8),
    "no-bytes": (0x3800, 0),
}


@pytest.mark.parametrize(("gpa", "size"), INSIDE.values(), ids=INSIDE.keys())
def test_an_access_inside_memory(gpa: int, size: int) -> None:
    memory = GuestMemory(LAYOUT)
    data = bytes(i % 251 + 1 for i in range(size))
    memory.write(gpa, data)
    assert memory.read(gpa, size) == data
    assert CallMemory(memory).read(gpa, size) == data


def test_bytes_may_be_placed_outside_memory_but_not_read_there() -> None:
    memory = GuestMemory(LAYOUT)
    memory.poke(0x3000, b"hidden")
    assert memory.peek(0x3000, 6) == b"hidden"
    with pytest.raises(OutsideMemory):
        memory.read(0x3000, 6)
    memory.layout = LAYOUT.plug(3, 4)
    assert memory.read(0x3000, 6) == b"hidden"
    memory.layout = memory.layout.unplug(1, 2)
    with pytest.raises(OutsideMemory):
        memory.read(0x1000, 1)


def test_everything_is_memory_by_default() -> None:
    memory = GuestMemory()
    memory.write(2**64 - 4, b"last")
    assert memory.read(2**64 - 4, 4) == b"last"
    with pytest.raises(OutsideMemory) as caught:
        memory.read(2**64 - 4, 5)
    assert caught.value.gpa == 2**64


def test_fill_pattern_shows_what_was_not_written() -> None:
    memory = GuestMemory(fill=b"\xa5\x5a")
    memory.write(0x1001, b"\0")
    assert memory.read(0x0FFE, 6) == bytes.fromhex("a55aa500a55a")
    memory.clear()
    assert memory.read(0x1000, 2) == b"\xa5\x5a"
    for fill in (b"", b"abc", bytes(8192)):
        with pytest.raises(ModelError) as caught:
            GuestMemory(fill=fill)
        assert caught.value.code == "bad-fill"


HOSTILE_SIZES = {
    "a-terabyte": (0, 2**40, "block-too-large"),
    "all-but-everything": (0, 2**64 - 1, "block-too-large"),
    "one-above": (0, 2**20 + 1, "block-too-large"),
    "negative-size": (0, -1, "bad-address"),
    "negative-gpa": (-1, 4, "bad-address"),
}


@pytest.mark.parametrize(("gpa", "size", "code"), HOSTILE_SIZES.values(), ids=HOSTILE_SIZES.keys())
def test_hostile_sizes_give_an_error_and_allocate_nothing(gpa: int, size: int, code: str) -> None:
    memory = GuestMemory()
    for read in (memory.read, memory.peek, CallMemory(memory).read):
        tracemalloc.start()
        try:
            with pytest.raises(ModelError) as caught:
                read(gpa, size)
            assert tracemalloc.get_traced_memory()[1] < 100_000
        finally:
            tracemalloc.stop()
        assert caught.value.code == code


def test_stored_pages_are_bounded() -> None:
    memory = GuestMemory(max_pages=2)
    memory.write(0x1000, b"a")
    memory.write(0x2FFF, b"b")
    with pytest.raises(ModelError) as caught:
        memory.write(0x2FFF, b"xy")
    assert caught.value.code == "memory-full"
    assert memory.read(0x2FFF, 2) == b"b\0"
    call = CallMemory(GuestMemory(), max_pages=2)
    call.read(0, 0x2000)
    with pytest.raises(ModelError, match="stored pages"):
        call.read(0x2000, 1)


def test_reads_are_counted_byte_by_byte() -> None:
    memory = GuestMemory(count_reads=True)
    memory.read(10, 4)
    memory.read(12, 4)
    memory.peek(10, 10)
    memory.write(10, b"abc")
    assert [memory.reads_of(gpa) for gpa in range(9, 17)] == [0, 1, 1, 2, 2, 1, 1, 0]
    memory.clear_reads()
    assert memory.reads_of(12) == 0
    with pytest.raises(ModelError) as caught:
        GuestMemory().reads_of(0)
    assert caught.value.code == "reads-not-counted"


def test_a_call_fetches_each_byte_once() -> None:
    memory = GuestMemory(count_reads=True)
    memory.poke(0x100, bytes(range(32)))
    call = CallMemory(memory)
    assert call.read(0x108, 8) == bytes(range(8, 16))
    memory.poke(0x100, b"\xff" * 32)  # another vCPU
    assert call.read(0x108, 8) == bytes(range(8, 16))
    assert call.read(0x104, 16) == b"\xff" * 4 + bytes(range(8, 16)) + b"\xff" * 4
    assert call.fetched == ((0x104, 16),)
    assert [memory.reads_of(0x100 + i) for i in range(32)] == [0] * 4 + [1] * 16 + [0] * 12
    assert [call.reads_of(0x100 + i) for i in range(32)] == [0] * 4 + [1] * 16 + [0] * 12
    assert CallMemory(memory).read(0x108, 1) == b"\xff"  # the next call sees the new bytes


def test_a_call_sees_its_own_writes_and_reports_them() -> None:
    memory = GuestMemory(count_reads=True)
    memory.poke(0x100, b"abcdefgh")
    call = CallMemory(memory)
    call.write(0x102, b"XY")
    call.write(0x104, b"Z")
    call.write(0x200, b"")
    call.write(0x300, b"tail")
    call.write(0x103, b"!")
    assert call.read(0x100, 8) == b"abX!Zfgh"
    assert memory.reads_of(0x102) == 0  # no need to fetch what it wrote
    assert call.written == ((0x102, b"X!Z"), (0x300, b"tail"))
    assert memory.peek(0x100, 8) == b"abX!Zfgh"  # written through at once
    memory.poke(0x102, b"???")
    assert call.written == ((0x102, b"X!Z"), (0x300, b"tail"))
    assert call.read(0x100, 8) == b"abX!Zfgh"


def test_memory_flips_after_the_first_read() -> None:
    memory = GuestMemory()
    memory.poke(0x10, b"good")
    call = CallMemory(memory, flips=[(0x10, b"evil")])
    assert memory.peek(0x10, 4) == b"good"
    assert call.read(0x10, 2) == b"go"
    assert memory.peek(0x10, 4) == b"evod"  # byte by byte, as each is read
    assert call.read(0x10, 4) == b"good"
    assert memory.peek(0x10, 4) == b"evil"
    assert call.read(0x10, 4) == b"good"
    assert call.written == ()  # the guest did that, not the host


def test_a_double_fetch_sees_the_flip() -> None:
    memory = GuestMemory()
    memory.poke(0x10, b"good")
    careless = CallMemory(memory, flips=[(0x10, b"evil")], snapshot=False)
    assert careless.read(0x10, 4) == b"good"
    assert careless.read(0x10, 4) == b"evil"
    assert careless.reads_of(0x10) == 2
    careless.write(0x11, b"V")
    assert careless.read(0x10, 4) == b"eVil"
    memory.poke(0x10, b"1234")
    assert careless.read(0x10, 4) == b"1V34"  # its own write stays visible to it
    assert memory.peek(0x10, 4) == b"1234"  # a byte flips once


def test_a_byte_that_the_host_wrote_does_not_flip() -> None:
    memory = GuestMemory()
    memory.poke(0x10, b"good")
    call = CallMemory(memory, flips=[(0x10, b"evil")])
    call.write(0x11, b"HO")
    assert call.read(0x10, 4) == b"gHOd"
    assert memory.peek(0x10, 4) == b"eHOl"
    call.write(0x10, b"T")  # after its flip the host's write wins
    assert memory.peek(0x10, 4) == b"THOl"
    assert call.written == ((0x10, b"THO"),)


def test_flips_are_checked() -> None:
    for gpa in (-1, 2**64 - 1):
        with pytest.raises(ModelError) as caught:
            CallMemory(GuestMemory(), flips=[(gpa, b"ab")])
        assert caught.value.code == "bad-address"


ACCESS = st.tuples(
    st.sampled_from(["read", "write", "poke"]), st.integers(0xFF0, 0x1010), st.binary(min_size=1, max_size=9)
)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.lists(ACCESS, max_size=25), st.lists(st.tuples(st.integers(0xFF0, 0x1010), st.binary(max_size=9))))
def test_a_call_against_a_byte_by_byte_oracle(
    steps: list[tuple[str, int, bytes]], flips: list[tuple[int, bytes]]
) -> None:
    memory = GuestMemory(fill=b"\x11", count_reads=True)
    call = CallMemory(memory, flips=flips)
    real: dict[int, int] = {}  # guest memory
    mine: dict[int, int] = {}  # what the call has read or written
    wrote: set[int] = set()
    fetched: set[int] = set()
    waiting = {gpa + i: byte for gpa, data in flips for i, byte in enumerate(data)}
    for kind, gpa, data in steps:
        if kind == "read":
            for at in range(gpa, gpa + len(data)):
                if at not in mine:
                    mine[at] = real.get(at, 0x11)
                    fetched.add(at)
                    if at in waiting:
                        real[at] = waiting.pop(at)
            assert call.read(gpa, len(data)) == bytes(mine[gpa + i] for i in range(len(data)))
        elif kind == "write":
            call.write(gpa, data)
            for i, byte in enumerate(data):
                real[gpa + i] = mine[gpa + i] = byte
                wrote.add(gpa + i)
        else:
            memory.poke(gpa, data)
            real.update({gpa + i: byte for i, byte in enumerate(data)})
    window = range(0xFE0, 0x1030)
    assert memory.peek(window.start, len(window)) == bytes(real.get(at, 0x11) for at in window)
    assert {at for at in window if memory.reads_of(at)} == fetched
    assert max(memory.reads_of(at) for at in window) <= 1
    assert {start + i: b for start, data in call.written for i, b in enumerate(data)} == {at: mine[at] for at in wrote}
    starts = [start for start, _ in call.written]
    assert starts == sorted(starts)
    assert all(start - 1 not in wrote for start in starts)  # merged
    assert {at for start, size in call.fetched for at in range(start, start + size)} == fetched


def test_sparse_bytes_cross_pages() -> None:
    store = SparseBytes(max_pages=3)
    store.put(0xFFE, b"\1" * 0x1004)
    assert store.page_count == 3
    assert store.get(0xFFD, 0x1006) == b"\0" + b"\1" * 0x1004 + b"\0"
    store.clear()
    assert (store.page_count, store.get(0xFFE, 4)) == (0, bytes(4))
