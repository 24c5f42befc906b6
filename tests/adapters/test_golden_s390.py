"""Golden bytes of the s390 ultravisor calls, both directions, through the host and from the guest.

Typed by hand from ``struct uv_cb_share``, ``uv_cb_cts`` and ``uv_cb_qui`` of Linux 6.12 (arch/s390/include/asm/uv.h,
compiled) and from what kvm-unit-tests s390x/uv-guest.c (1b642bf) asserts. No example was run on a machine.
"""

from __future__ import annotations

from typing import Any

import pytest

from hvabi.abi.registry import load
from hvabi.abi.values import plain
from hvabi.abi.wire import Wire
from hvabi.adapters.registry import guest_class, host_class
from hvabi.adapters.values import GuestCall, GuestReply, GuestResult, HostAnswer, Injection
from hvabi.backend import Backend, Conversion, GuestMemory, MemoryLayout, PageState

ABI = "s390-uv-share"
BLOCK = 0x8000
PAGE = 0x12345000

# The three lines of 16 bytes as they lie in memory.
SHARE = (
    "0030 1000 0000 0000 0000000000000000"
    "0000000000000000 0000000000000000"
    "0000000012345000 0000000000000000"
).replace(" ", "")  # fmt: skip
SHARED_OK = "00301000 0001 0000".replace(" ", "") + SHARE[16:]
UNSHARE = "0030100100000000" + SHARE[16:]
UNSHARED_OK = "0030100100010000" + SHARE[16:]
BAD_LENGTH = "0028100000000000" + SHARE[16:]
BAD_LENGTH_ANSWER = "0028100000050000" + SHARE[16:]
PIN = "0030034100000000" + SHARE[16:]
PIN_ANSWER = "0030034100020000" + SHARE[16:]
OUTSIDE = "0030100000000000" + "00" * 24 + "0000000020001000" + "00" * 8
OUTSIDE_ANSWER = "0030100001010000" + OUTSIDE[16:]
UNPIN = "00280342" + "00" * 12 + "00" * 8 + "deadbeef00001000" + "0000000012345000"  # what a host sends, 40 bytes


def uvcb(text: str) -> bytes:
    data = bytes.fromhex(text)
    assert len(data) == 48
    return data


REQUESTS = {
    "share": ({"cmd": "SHARE", "paddr": PAGE}, SHARE),
    "unshare": ({"cmd": "UNSHARE", "paddr": PAGE}, UNSHARE),
    "wrong-length": ({"cmd": "SHARE", "length": 0x28, "paddr": PAGE}, BAD_LENGTH),
    "address-of-8-bytes": (
        {"cmd": "SHARE", "paddr": 0x0102030405060000},
        "0030100000000000" + "00" * 24 + "0102030405060000" + "00" * 8,
    ),
}


@pytest.mark.parametrize(("value", "block"), REQUESTS.values(), ids=REQUESTS)
def test_request_both_ways(value: dict[str, Any], block: str) -> None:
    codec = load(ABI).message("request")
    wire = codec.encode({"uvcb_gpa": BLOCK, **value})
    assert (dict(wire.regs), wire.mem) == ({"r1": 0, "r2": BLOCK}, ((BLOCK, uvcb(block)),))
    found = plain(codec.decode(Wire(regs={"r1": 0, "r2": BLOCK}, mem=((BLOCK, uvcb(block)),)), strict=True))
    assert {name: found[name] for name in value} == value
    assert (found["rc"], found["rrc"], found["reserved0"], found["reserved3"]) == (0, 0, 0, 0)


ANSWERS = {
    "done": (SHARE, 0, SHARED_OK, "OK", "EXECUTED"),
    "length": (BAD_LENGTH, 1, BAD_LENGTH_ANSWER, "ERROR", "INV_LEN"),
    "command": (PIN, 1, PIN_ANSWER, "ERROR", "INV_CMD"),
    "storage": (OUTSIDE, 1, OUTSIDE_ANSWER, "ERROR", "INV_STORAGE"),
}


@pytest.mark.parametrize(("sent", "cc", "after", "name", "rc"), ANSWERS.values(), ids=ANSWERS)
def test_answer_both_ways(sent: str, cc: int, after: str, name: str, rc: str) -> None:
    spec = load(ABI)
    request = spec.message("request").decode(Wire(regs={"r1": 0, "r2": BLOCK}, mem=((BLOCK, uvcb(sent)),)))
    codec = spec.message("response")
    answer = codec.decode(Wire(regs={"cc": cc}, mem=((BLOCK, uvcb(after)),)), request=request)
    assert (plain(answer.cc), plain(answer.rc), answer.rrc) == (name, rc, 0)
    wire = codec.encode({"cc": cc, "rc": rc, "rrc": 0}, request=request)
    assert (dict(wire.regs), wire.mem) == ({"cc": cc}, ((BLOCK + 4, uvcb(after)[4:8]),))


def call(
    block: str, *, before: bool = False, memory: int | None = None, cpl: int = 0, inject: Injection | None = None
) -> tuple[HostAnswer, bytes, list[tuple[int, int]]]:
    """Make a call; return the answer, the block after it, and the shared pages as (gpa, pages)."""
    layout = MemoryLayout() if memory is None else MemoryLayout([(0, memory >> 12)])
    backend = Backend(layout=layout)
    if before:
        backend.convert(Conversion(PAGE >> 12, 1, PageState.SHARED), absent="allow")
    ram = GuestMemory(layout)
    ram.poke(BLOCK, bytes.fromhex(block))
    host = host_class(ABI)(load(ABI), backend=backend, memory=ram)
    answer = host.answer({"r1": 0, "r2": BLOCK}, cpl=cpl, inject=inject)
    return answer, ram.read(BLOCK, 48), [(run.start << 12, run.end - run.start) for run in backend.query()]


def test_host_shares_and_takes_back() -> None:
    answer, block, shared = call(SHARE)
    assert (answer.end, dict(answer.regs), block.hex(), shared) == ("return", {"cc": 0}, SHARED_OK, [(PAGE, 1)])
    assert answer.mem == ((BLOCK + 4, bytes.fromhex("00010000")),)
    answer, block, shared = call(UNSHARE, before=True)
    assert (answer.end, dict(answer.regs), block.hex(), shared) == ("return", {"cc": 0}, UNSHARED_OK, [])


@pytest.mark.parametrize(
    ("block", "after", "memory"),
    [(BAD_LENGTH, BAD_LENGTH_ANSWER, None), (PIN, PIN_ANSWER, None), (OUTSIDE, OUTSIDE_ANSWER, 0x20000000)],
    ids=["length", "command", "storage"],
)
def test_host_refuses(block: str, after: str, memory: int | None) -> None:
    answer, found, shared = call(block, memory=memory)
    assert (answer.end, dict(answer.regs), found.hex(), shared) == ("return", {"cc": 1}, after, [])


def test_problem_state_is_an_exception() -> None:
    answer, block, shared = call(SHARE, cpl=3)
    assert (answer.end, answer.fault, block.hex(), shared) == ("fault", "privileged-operation", SHARE, [])


def test_a_host_that_stops_asks_for_the_same_call_again() -> None:
    answer, block, shared = call(SHARE, inject=Injection(stop_after=0))
    assert (answer.end, dict(answer.regs), shared) == ("return", {"cc": 3}, [])
    assert block.hex() == SHARE


# -- query ------------------------------------------------------------------------------------------------------------


def query(length: int) -> tuple[HostAnswer, bytes]:
    ram = GuestMemory(MemoryLayout())
    ram.poke(BLOCK, length.to_bytes(2, "big") + bytes.fromhex("0001"))
    host = host_class(ABI)(load(ABI), backend=Backend(), memory=ram)
    return host.answer({"r1": 0, "r2": BLOCK}), ram.read(BLOCK, 0xA8)


def test_query_tells_both_calls() -> None:
    answer, block = query(0xA8)
    assert dict(answer.regs) == {"cc": 0}
    assert block[:8].hex() == "00a8000100010000"
    # Bits 8 and 9 of a list that counts from the left: the two highest of the second byte.
    assert block[0x11] == 0xC0
    assert block[0x10] & 0x7F == 0
    assert block[0x12] & 0x0E == 0
    assert block[0x80:0x88].hex() == "0000010000000000"


def test_query_of_0xa0_bytes_is_too_short() -> None:
    answer, block = query(0xA0)
    assert dict(answer.regs) == {"cc": 1}
    assert block[:8].hex() == "00a0000100050000"
    assert not any(block[8:])


def test_query_counts_bits_from_the_left() -> None:
    spec = load(ABI)
    block = bytearray(0xA8)
    block[0x00:0x04] = bytes.fromhex("00a80001")
    request = spec.message("query-request").decode(Wire(regs={"r2": BLOCK}, mem=((BLOCK, bytes(block)),)))
    block[0x05] = 0x01
    block[0x10:0x13] = bytes.fromhex("80c00e")  # bit 0, bits 8 and 9, bits 20 to 22
    block[0x80:0x88] = bytes.fromhex("0000010000000000")

    def read() -> Any:
        return spec.message("query-response").decode(
            Wire(regs={"cc": 0}, mem=((BLOCK, bytes(block)),)), request=request
        )

    answer = read()
    assert plain(answer.calls_0) == {"query": 1}
    assert plain(answer.calls_1) == {"share": 1, "unshare": 1, "host_calls": 0}
    assert plain(answer.calls_2) == {"unshare_all": 1, "pin": 1, "unpin": 1}
    assert answer.max_guest_stor_addr == 0x10000000000
    block[0x11] = 0x80
    answer = read()
    assert (answer.calls_1.share, answer.calls_1.unshare) == (1, 0)


def test_unpin_block_of_a_host() -> None:
    codec = load(ABI).layout("uv-cb-cts")
    value = {"length": 0x28, "cmd": "UNPIN_PAGE", "guest_handle": 0xDEADBEEF00001000, "gaddr": PAGE}
    assert codec.encode(value).hex() == UNPIN
    found = plain(codec.decode(bytes.fromhex(UNPIN), strict=True))
    assert {name: found[name] for name in value} == value


# -- the guest --------------------------------------------------------------------------------------------------------

Reply = tuple[int, str]
"""Condition code, and the block as the ultravisor leaves it, as hex."""


def convert(replies: list[Reply], *, pages: int = 1) -> tuple[list[str], GuestResult]:
    """Let a guest share pages from `PAGE` on; return the blocks that it called with and what it believes."""
    guest = guest_class(ABI)(load(ABI), scratch=(8, 16))
    conversation = guest.convert(PAGE, pages, PageState.SHARED)
    blocks: list[str] = []
    waiting = list(replies)
    try:
        shown = next(conversation)
        while True:
            assert isinstance(shown, GuestCall)
            assert dict(shown.regs) == {"r1": 0, "r2": BLOCK}
            ((at, data),) = shown.mem
            assert at == BLOCK
            blocks.append(data.hex())
            cc, after = waiting.pop(0) if len(waiting) > 1 else waiting[0]
            shown = conversation.send(GuestReply(regs={"cc": cc}, mem=((BLOCK, bytes.fromhex(after)),)))
    except StopIteration as end:
        return blocks, end.value


def test_guest_executes_the_same_block_again() -> None:
    # The ultravisor keeps something in the block: response and reason code, and reserved bytes.
    kept = "0030100000070123" + "00" * 8 + "1122334455667788" + SHARE[48:]
    blocks, result = convert([(2, SHARE), (3, kept), (2, kept), (0, SHARED_OK)])
    assert blocks == [SHARE, SHARE, kept, kept]
    assert (result.done, result.ranges) == (True, ((0x12345, 0x12346),))


def test_guest_makes_each_page_s_block_anew() -> None:
    second = SHARE.replace("12345000", "12346000")
    blocks, result = convert([(0, SHARED_OK), (0, SHARED_OK.replace("12345000", "12346000"))], pages=2)
    assert blocks == [SHARE, second]
    assert (result.done, result.ranges) == (True, ((0x12345, 0x12347),))


def test_guest_gives_up_on_an_ultravisor_that_stays_busy() -> None:
    blocks, result = convert([(2, SHARE)])
    assert 1 < len(blocks) <= 1000
    assert (result.done, result.ranges) == (False, ())


@pytest.mark.parametrize(
    ("cc", "after"),
    [(1, OUTSIDE_ANSWER), (1, SHARED_OK), (0, SHARE), (0, BAD_LENGTH_ANSWER)],
    ids=["refused", "cc-1-with-rc-1", "cc-0-without-rc", "cc-0-with-an-error"],
)
def test_guest_believes_only_cc_0_with_rc_1(cc: int, after: str) -> None:
    blocks, result = convert([(cc, after)])
    assert len(blocks) == 1
    assert (result.done, result.ranges) == (False, ())


def test_guest_gives_up_where_the_block_has_become_another_request() -> None:
    other = SHARE.replace("12345000", "12399000")
    blocks, result = convert([(2, other), (0, SHARED_OK)])
    assert blocks == [SHARE]
    assert (result.done, result.ranges) == (False, ())
