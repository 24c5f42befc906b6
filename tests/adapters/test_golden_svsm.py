"""Golden bytes of SVSM_CORE_PVALIDATE, typed by hand from Linux 6.12 asm/sev.h, COCONUT-SVSM and EDK2 Svsm.h.

A request is RAX, RCX, the GHCB MSR, byte 0 of the calling area and the list in guest memory. The list lies behind the
first 8 bytes of the calling area, as all known guests have it, unless a row says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from hvabi.abi.registry import load
from hvabi.abi.wire import Wire
from hvabi.adapters.registry import guest_class, host_class
from hvabi.adapters.values import GuestCall, GuestReply, Injection
from hvabi.backend import Backend, GuestMemory, MemoryLayout, PageState

CAA = 0x10000
LIST = 0x10008
Pages = tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One call: list bytes, where the list lies, result in RAX, header afterwards, validated pages before and after."""

    id: str
    body: str
    rax: int
    header: str
    at: int = LIST
    before: Pages = ()
    after: Pages = ()
    split: Pages = ()
    profile: str = "spec"
    memory: tuple[tuple[int, int], ...] | None = None
    inject: Injection = field(default_factory=Injection)


ROWS = [
    Row(id="validate-4k", body="01000000000000000450341200000000", rax=0, header="01000100",
        after=((0x12345000, 1),)),
    Row(id="rescind-2m", body="01000000000000000100004000000000", rax=0, header="01000100",
        before=((0x40000000, 512),)),
    Row(id="validate-2m-ignore-cf", body="01000000000000000d00004000000000", rax=0, header="01000100",
        before=((0x40000000, 512),), after=((0x40000000, 512),)),
    Row(id="reserved-bit-4", body="01000000000000001450341200000000", rax=0x80000005, header="01000000"),
    Row(id="reserved-bit-11", body="01000000000000000458341200000000", rax=0x80000005, header="01000000"),
    Row(id="no-entries", body="0000000000000000", rax=0x80000005, header="00000000"),
    Row(id="page-size-2", body="01000000000000000650341200000000", rax=0x80000005, header="01000000"),
    Row(id="page-size-3", body="01000000000000000750341200000000", rax=0x80000005, header="01000000"),
    Row(id="2m-misaligned", body="01000000000000000510004000000000", rax=0x80000005, header="01000000"),
    Row(id="already-validated", body="01000000000000000450341200000000", rax=0x80001010, header="01000000",
        before=((0x12345000, 1),), after=((0x12345000, 1),), profile="coconut-svsm"),
    Row(id="511-entries-at-8", body="ff01000000000000", rax=0x80000005, header="ff010000"),
    Row(id="list-at-4-mod-8", body="01000000000000000450341200000000", rax=0x80000005, header="01000000", at=0x1000C),
    Row(id="list-at-caa", body="01000000000000000450341200000000", rax=0x80000003, header="00000000", at=CAA,
        profile="coconut-svsm"),
    Row(id="entry-is-caa", body="01000000000000000400010000000000", rax=0x80000003, header="01000000",
        profile="coconut-svsm"),
    Row(id="entry-no-memory", body="01000000000000000450341200000000", rax=0x80000003, header="01000000",
        memory=((0, 0x100),)),
    Row(id="done-already", body="01000100000000000450341200000000", rax=0x80000005, header="01000100"),
    Row(id="second-entry-bad", body="030000000000000004503412000000001460341200000000" "0470341200000000",
        rax=0x80000005, header="03000100", after=((0x12345000, 1),)),
    Row(id="size-mismatch", body="020000000000000004503412000000000500004000000000", rax=0x80001006, header="02000100",
        after=((0x12345000, 1),), split=((0x40000000, 512),)),
    Row(id="from-the-second", body="020001000000000004503412000000000460341200000000", rax=0, header="02000200",
        after=((0x12346000, 1),)),
    Row(id="stopped", body="020000000000000004503412000000000460341200000000", rax=0x80000000, header="02000100",
        after=((0x12345000, 1),), inject=Injection(stop_after=1)),
    Row(id="last-page", body="0100000000000000" "04f0ffffffffffff", rax=0x80000003, header="01000000"),
]  # fmt: skip


@pytest.mark.parametrize("form", ["vmgexit-msr", "vmgexit-ghcb"])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_host(row: Row, form: str) -> None:
    spec = load("svsm-pvalidate", profile=row.profile)
    backend = Backend(layout=MemoryLayout(row.memory), facts=spec.abi.facts)
    for name, pieces in (("validated", row.before), ("split", row.split)):
        for gpa, pages in pieces:
            backend.set_fact(name, gpa >> 12, (gpa >> 12) + pages, True)
    memory = GuestMemory(backend.layout)
    host = host_class("svsm-pvalidate")(spec, transport=form, backend=backend, memory=memory)
    memory.poke(CAA, b"\x01")
    memory.poke(row.at, bytes.fromhex(row.body))
    regs = {"rax": 1, "rcx": row.at, "msr_c0010130": 0x16}
    if form == "vmgexit-ghcb":
        memory.poke(0x1390, bytes.fromhex("180000800000000000000000000000000000000000000000"))
        regs["msr_c0010130"] = 0x1000
    answer = host.answer(regs, inject=row.inject)
    assert answer.end == "return"
    assert answer.regs["rax"] == row.rax
    assert memory.peek(row.at, 4).hex() == row.header
    assert memory.peek(CAA, 1) == b"\x00"  # call_pending
    if form == "vmgexit-msr":
        assert answer.regs["msr_c0010130"] == 0x17
    else:
        assert memory.peek(0x1398, 8) == bytes(8)  # SW_EXITINFO1
    validated = tuple((run.start << 12, run.end - run.start) for run in backend.fact_runs("validated"))
    assert validated == row.after
    assert not list(backend.query())  # no page changed between private and shared


def test_codec_both_ways() -> None:
    codec = load("svsm-pvalidate").message("request", transport="vmgexit-msr")
    entries = [{"pfn": 0x12345, "action": 1}, {"pfn": 0x40000, "page_size": 1, "action": 0}]
    wire = codec.encode({"entries": entries})
    assert wire.regs == {"rax": 1, "rcx": LIST, "msr_c0010130": 0x16}
    assert bytes(wire).hex() == "020000000000000004503412000000000100004000000000"
    back = codec.decode(Wire(regs=wire.regs, mem=wire.mem))
    assert (back.num_entries, back.next_index, back.call_pending) == (2, 0, 1)
    assert [(item.page_size, item.action, item.ignore_cf, item.pfn) for item in back.entries] == [
        (0, 1, 0, 0x12345),
        (1, 0, 0, 0x40000),
    ]


def test_not_taken() -> None:
    """Without an SVSM nothing is written, and RAX is still the call."""
    spec = load("svsm-pvalidate")
    host = host_class("svsm-pvalidate")(spec, enabled=False)
    host.memory.poke(CAA, b"\x01")
    host.memory.poke(LIST, bytes.fromhex("01000000000000000450341200000000"))
    answer = host.answer({"rax": 1, "rcx": LIST, "msr_c0010130": 0x16})
    assert (answer.regs, answer.mem) == ({}, ())


# -- the guest --------------------------------------------------------------------------------------------------------


def play(first: int, pages: int, to: PageState, answers: list[tuple[int, int]]) -> tuple[list[str], bool, Pages]:
    """Let a guest convert against (rax, next index) answers; return its lists, its verdict and what it believes."""
    guest = guest_class("svsm-pvalidate")(load("svsm-pvalidate"), transport="vmgexit-msr")
    talk = guest.convert(first << 12, pages, to)
    lists: list[str] = []
    shown = next(talk)
    for rax, index in answers:
        assert isinstance(shown, GuestCall)
        assert shown.regs == {"rax": 1, "rcx": LIST, "msr_c0010130": 0x16}
        memory = {at + n: byte for at, piece in shown.mem for n, byte in enumerate(piece)}
        assert memory[CAA] == 1
        count = memory[LIST] | memory[LIST + 1] << 8
        lists.append(bytes(memory[LIST + n] for n in range(8 + 8 * min(count, 3))).hex())
        reply = GuestReply(
            regs={"rax": rax, "msr_c0010130": 0x17},
            mem=((CAA, b"\x00"), (LIST + 2, index.to_bytes(2, "little"))),
        )
        try:
            shown = talk.send(reply)
        except StopIteration as end:
            return lists, end.value.done, end.value.ranges
    talk.close()
    return lists, False, ()


def test_guest_validates_and_rescinds() -> None:
    lists, done, believed = play(0x12345, 2, PageState.PRIVATE, [(0, 2)])
    assert lists == ["020000000000000004503412000000000460341200000000"]
    assert (done, believed) == (True, ((0x12345, 0x12347),))
    lists, done, _ = play(0x40000, 512, PageState.SHARED, [(0, 1)])
    assert (lists, done) == (["01000000000000000100004000000000"], True)


def test_guest_goes_on_with_the_same_list() -> None:
    lists, done, believed = play(0x12345, 3, PageState.PRIVATE, [(0x80000000, 1), (0x80000007, 1), (0, 3)])
    assert [text[:16] for text in lists] == ["0300000000000000", "0300010000000000", "0300010000000000"]
    assert (done, believed) == (True, ((0x12345, 0x12348),))


def test_guest_splits_a_large_page() -> None:
    """A small page, a large one that is a size mismatch, a small one: 512 pages follow in two lists, then the rest."""
    answers = [(0x80001006, 1), (0, 510), (0, 2), (0, 1)]
    lists, done, believed = play(0x3FFFF, 514, PageState.PRIVATE, answers)
    assert lists[0] == "030000000000000004f0ff3f0000000005000040000000000400204000000000"
    assert lists[1].startswith("fe0100000000000004000040000000000410004000000000")
    assert lists[2] == "020000000000000004e01f400000000004f01f4000000000"
    assert lists[3] == "01000000000000000400204000000000"
    assert (done, believed) == (True, ((0x3FFFF, 0x40201),))


@pytest.mark.parametrize(
    ("rax", "index", "believed"),
    [(0x80000005, 1, ((0x12345, 0x12346),)), (0x80001006, 1, ((0x12345, 0x12346),)), (0x80000003, 0, ()),
     (0x80000000, 4, ()), (0x100000000, 3, ())],
    ids=["invalid", "mismatch-of-a-small-page", "address", "index-outside", "upper-half"],
)  # fmt: skip
def test_guest_gives_up(rax: int, index: int, believed: Pages) -> None:
    _, done, found = play(0x12345, 3, PageState.PRIVATE, [(rax, index)] * 2)
    assert (done, found) == (False, believed)
