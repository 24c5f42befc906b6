"""Guests against scripted hosts, honest, odd and hostile: what they believe, and that they end.

Every host of these tests keeps a set of the pages that its answers claim, read from the registers and bytes by hand.
A guest may believe those and no others.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from hvabi.abi.registry import load
from hvabi.adapters.converse import converse
from hvabi.adapters.registry import guest_class, host_class
from hvabi.adapters.values import GuestCall, GuestReply, GuestResult, GuestStep, Injection
from hvabi.backend import PageState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from hvabi.adapters.guest import Guest

SHARED, PRIVATE = PageState.SHARED, PageState.PRIVATE
SCRATCH = (0x10, 0x20)


@dataclass
class Talk:
    """What was said in one conversation."""

    calls: list[GuestCall] = field(default_factory=list)
    steps: list[GuestStep] = field(default_factory=list)
    claimed: set[int] = field(default_factory=set)
    result: GuestResult | None = None

    @property
    def pages(self) -> set[int]:
        assert self.result is not None
        return {page for start, end in self.result.ranges for page in range(start, end)}

    @property
    def done(self) -> bool:
        assert self.result is not None
        return self.result.done


def guest_of(abi: str, *, steps: bool = False, **more: Any) -> Guest:
    transport, config = more.pop("transport", None), more.pop("config", None)
    return guest_class(abi)(load(abi, **more), transport=transport, config=config, scratch=SCRATCH, steps=steps)


def drive(
    guest: Guest,
    first: int,
    pages: int,
    to: PageState,
    host: Callable[[Talk, GuestCall], GuestReply],
    *,
    most: int = 5000,
) -> Talk:
    """Let a guest talk to a host and check what holds whatever the host says."""
    talk = Talk()
    conversation = guest.convert(first << 12, pages, to)
    try:
        shown = next(conversation)
        while True:
            if isinstance(shown, GuestStep):
                talk.steps.append(shown)
                shown = conversation.send(GuestReply())
                continue
            talk.calls.append(shown)
            assert len(talk.calls) <= most, "the guest does not end"
            shown = conversation.send(host(talk, shown))
    except StopIteration as end:
        talk.result = end.value
    assert talk.result is not None
    whole = set(range(first, first + pages))
    assert talk.pages <= talk.claimed & whole
    assert talk.done == (talk.pages == whole and pages > 0)
    assert talk.result.calls == len(talk.calls)
    assert (talk.result.reason is None) == talk.done
    return talk


# -- TDX MapGPA -------------------------------------------------------------------------------------------------------

TD_FIRST, TD_PAGES = 0x100001, 8
TD_GPA = TD_FIRST << 12

Regs = dict[str, int]


def ok(regs: Regs) -> Regs:
    return {"r10": 0}


def retry(delta: int) -> Callable[[Regs], Regs]:
    """RETRY with R11 so many bytes behind R12."""
    return lambda regs: {"r10": 1, "r11": (regs["r12"] + delta) % 2**64}


def at(gpa: int) -> Callable[[Regs], Regs]:
    return lambda regs: {"r10": 1, "r11": gpa}


def raw(**written: int) -> Callable[[Regs], Regs]:
    return lambda regs: written


def td_claims(regs: Regs, answer: Regs, shared_bit: int) -> set[int]:
    """The pages that a MapGPA answer says are done, by the letter of the interface."""
    start, size = regs["r12"], regs["r13"]
    if answer.get("rax", 0):
        return set()
    end = start
    if answer.get("r10", regs["r10"]) == 0:
        end = start + size
    elif answer.get("r10") == 1 and start <= answer.get("r11", regs["r11"]) <= start + size:
        end = answer.get("r11", regs["r11"])
    return {((gpa & ~shared_bit) >> 12) for gpa in range(start, end - end % 4096, 4096)}


def td_host(script: Sequence[Callable[[Regs], Regs]], *, shared_bit: int) -> Callable[[Talk, GuestCall], GuestReply]:
    """A host that answers in turn, its last answer for ever."""

    def answer(talk: Talk, call: GuestCall) -> GuestReply:
        regs = dict(call.regs)
        assert (regs["rax"], regs["r10"], regs["r11"]) == (0, 0, 0x10001)
        assert regs["rcx"] & 0x3C00 == 0x3C00
        assert regs["rcx"] & 0x13 == 0  # RAX, RCX and RSP cannot be passed
        assert call.mem == ()
        written = script[min(len(talk.calls), len(script)) - 1](regs)
        talk.claimed |= td_claims(regs, written, shared_bit)
        return GuestReply(regs=written)

    return answer


@dataclass(frozen=True, kw_only=True)
class Td:
    """A script of answers, and what must come of it: done, number of calls, pages believed from the start."""

    id: str
    script: Sequence[Callable[[Regs], Regs]]
    done: bool
    calls: int
    believed: int


S47 = 1 << 47
ONE = 0x1000

TD = [
    Td(id="all-at-once", script=[ok], done=True, calls=1, believed=8),
    Td(id="page-by-page", script=[*[retry(ONE)] * 7, ok], done=True, calls=8, believed=8),
    Td(id="two-equal-accepted", script=[*[retry(0)] * 2, ok], done=True, calls=3, believed=8),
    Td(id="third-equal-gives-up", script=[*[retry(0)] * 3, ok], done=False, calls=3, believed=0),
    Td(
        id="progress-resets-the-count",
        script=[*[*[retry(0)] * 2, retry(ONE)] * 3, *[retry(0)] * 2, ok],
        done=True,
        calls=12,
        believed=8,
    ),
    Td(
        id="stalls-after-progress",
        script=[*[retry(0)] * 2, retry(ONE), *[retry(0)] * 3, ok],
        done=False,
        calls=6,
        believed=1,
    ),
    Td(id="slowest-allowed", script=[*[*[retry(0)] * 2, retry(ONE)] * 7, ok], done=True, calls=22, believed=8),
    Td(id="backward", script=[retry(-ONE), ok], done=False, calls=1, believed=0),
    Td(id="backward-after-progress", script=[retry(4 * ONE), retry(-ONE), ok], done=False, calls=2, believed=4),
    Td(id="back-to-the-start", script=[retry(4 * ONE), at(S47 | TD_GPA), ok], done=False, calls=2, believed=4),
    Td(id="last-page", script=[retry(7 * ONE), ok], done=True, calls=2, believed=8),
    # Whether the very end is legal is not stated: Linux and EDK2 refuse it.
    Td(id="at-the-end", script=[retry(8 * ONE), ok], done=False, calls=1, believed=0),
    Td(id="past-the-end", script=[retry(9 * ONE), ok], done=False, calls=1, believed=0),
    Td(id="last-byte", script=[retry(8 * ONE - 1), ok], done=False, calls=1, believed=0),
    Td(id="zero", script=[at(0), ok], done=False, calls=1, believed=0),
    Td(id="all-ones", script=[at(2**64 - 1), ok], done=False, calls=1, believed=0),
    Td(id="without-shared-bit", script=[at(TD_GPA + ONE), ok], done=False, calls=1, believed=0),
    Td(id="unaligned", script=[retry(0x800), ok], done=False, calls=1, believed=0),
    Td(id="unaligned-after-progress", script=[retry(2 * ONE), retry(ONE + 1), ok], done=False, calls=2, believed=2),
    Td(id="leaf-left-in-r11", script=[raw(r10=1), ok], done=False, calls=1, believed=0),
    Td(id="status-2", script=[raw(r10=2, r11=S47 | TD_GPA + ONE), ok], done=False, calls=1, believed=0),
    Td(id="status-retry-high-half", script=[raw(r10=1 << 32 | 1), ok], done=False, calls=1, believed=0),
    Td(id="status-high-half", script=[raw(r10=1 << 32), ok], done=False, calls=1, believed=0),
    Td(id="invalid-operand", script=[raw(r10=1 << 63, r11=S47 | TD_GPA), ok], done=False, calls=1, believed=0),
    Td(id="gpa-in-use", script=[raw(r10=1 << 63 | 1), ok], done=False, calls=1, believed=0),
    Td(id="align-error", script=[raw(r10=1 << 63 | 2), ok], done=False, calls=1, believed=0),
    Td(id="unsupported", script=[raw(r10=1 << 63 | 3), ok], done=False, calls=1, believed=0),
    Td(id="status-all-ones", script=[raw(r10=2**64 - 1), ok], done=False, calls=1, believed=0),
    Td(id="error-after-progress", script=[retry(3 * ONE), raw(r10=1 << 63)], done=False, calls=2, believed=3),
    Td(id="rax", script=[raw(rax=1, r10=0), ok], done=False, calls=1, believed=0),
    Td(id="rax-high", script=[raw(rax=0xC000_0000_0000_0000, r10=0)], done=False, calls=1, believed=0),
    Td(id="rax-with-retry", script=[raw(rax=1, r10=1, r11=S47 | TD_GPA + ONE)], done=False, calls=1, believed=0),
    Td(
        id="other-registers-garbage",
        script=[
            raw(r10=1, r11=S47 | TD_GPA + ONE, r12=0xDEAD000, r13=7, r14=9, rcx=0, rdx=5, rbx=5, r8=5),
            raw(r10=0, r11=0xBAD, r12=0xDEAD000, r13=0, rcx=0),
        ],
        done=True,
        calls=2,
        believed=8,
    ),
]


@pytest.mark.parametrize("case", TD, ids=lambda case: case.id)
def test_tdx(case: Td) -> None:
    talk = drive(guest_of("tdx-map-gpa"), TD_FIRST, TD_PAGES, SHARED, td_host(case.script, shared_bit=S47))
    assert (talk.done, len(talk.calls)) == (case.done, case.calls)
    assert talk.pages == set(range(TD_FIRST, TD_FIRST + case.believed))


@pytest.mark.parametrize("gpaw", [48, 52])
@pytest.mark.parametrize("to", [SHARED, PRIVATE], ids=["shared", "private"])
def test_tdx_goes_on_where_it_stopped(gpaw: int, to: PageState) -> None:
    bit = 1 << gpaw - 1
    start = TD_GPA | (bit if to is SHARED else 0)
    script = [retry(0x3000), retry(0), retry(0x1000), ok]
    talk = drive(
        guest_of("tdx-map-gpa", config={"gpaw": gpaw}), TD_FIRST, TD_PAGES, to, td_host(script, shared_bit=bit)
    )
    assert [(call.regs["r12"], call.regs["r13"]) for call in talk.calls] == [
        (start, 0x8000),
        (start + 0x3000, 0x5000),
        (start + 0x3000, 0x5000),
        (start + 0x4000, 0x4000),
    ]
    assert talk.done


@pytest.mark.parametrize("gpaw", [48, 52])
def test_tdx_shared_bit_in_the_answer_to_a_private_call(gpaw: int) -> None:
    bit = 1 << gpaw - 1
    guest = guest_of("tdx-map-gpa", config={"gpaw": gpaw})
    talk = drive(guest, TD_FIRST, TD_PAGES, PRIVATE, td_host([at(bit | TD_GPA + ONE), ok], shared_bit=bit))
    assert (talk.done, len(talk.calls), talk.pages) == (False, 1, set())


def test_tdx_retry_at_the_end_under_the_other_policy() -> None:
    guest = guest_of("tdx-map-gpa", policies={"retry-at-end": "accept"})
    talk = drive(guest, TD_FIRST, TD_PAGES, SHARED, td_host([retry(8 * ONE)], shared_bit=S47))
    assert (talk.done, len(talk.calls)) == (True, 1)


def test_tdx_accepts_the_whole_range_after_a_retry_and_nothing_after_a_failure() -> None:
    script = [retry(4 * ONE), ok]
    talk = drive(guest_of("tdx-map-gpa", steps=True), TD_FIRST, TD_PAGES, PRIVATE, td_host(script, shared_bit=S47))
    assert [(step.step, step.ranges) for step in talk.steps] == [("accept", ((TD_FIRST, TD_FIRST + TD_PAGES),))]
    script = [retry(4 * ONE), raw(r10=1 << 63)]
    talk = drive(guest_of("tdx-map-gpa", steps=True), TD_FIRST, TD_PAGES, PRIVATE, td_host(script, shared_bit=S47))
    assert talk.steps == []


def test_tdx_changes_its_map_before_it_asks_for_shared() -> None:
    seen: list[int] = []

    def host(talk: Talk, call: GuestCall) -> GuestReply:
        seen.append(len(talk.steps))
        talk.claimed |= set(range(TD_FIRST, TD_FIRST + TD_PAGES))
        return GuestReply(regs={"r10": 0})

    talk = drive(guest_of("tdx-map-gpa", steps=True), TD_FIRST, TD_PAGES, SHARED, host)
    assert [step.step for step in talk.steps] == ["map"]
    assert seen == [1]


def test_tdx_slow_host_on_a_long_range_stays_in_the_bound() -> None:
    script = [retry(0), retry(0), retry(0), retry(ONE)]
    turn = 0

    def host(talk: Talk, call: GuestCall) -> GuestReply:
        nonlocal turn
        turn += 1
        written = script[turn % 4](dict(call.regs))
        talk.claimed |= td_claims(dict(call.regs), written, S47)
        return GuestReply(regs=written)

    talk = drive(guest_of("tdx-map-gpa"), TD_FIRST, 100, SHARED, host)
    assert len(talk.calls) <= 404


# -- GHCB page state change -------------------------------------------------------------------------------------------

GHCB = SCRATCH[0] << 12


@dataclass(frozen=True)
class Entry:
    """One entry of the list, taken apart by hand."""

    cur_page: int
    gfn: int
    operation: int
    pagesize: int

    @property
    def pages(self) -> int:
        return 512 if self.pagesize else 1


def entry_of(word: int) -> Entry:
    assert word >> 57 == 0
    return Entry(word & 0xFFF, word >> 12 & (1 << 40) - 1, word >> 52 & 0xF, word >> 56 & 1)


def word_of(entry: Entry) -> int:
    return entry.cur_page | entry.gfn << 12 | entry.operation << 52 | entry.pagesize << 56


@dataclass
class Page:
    """The GHCB page of a call, by literal offsets."""

    raw: bytearray

    @classmethod
    def of(cls, call: GuestCall) -> Page:
        assert dict(call.regs) == {"msr_c0010130": GHCB}
        ((start, data),) = call.mem
        assert (start, len(data)) == (GHCB, 4096)
        page = cls(bytearray(data))
        # What a host asks of every call, the first and the ones after it.
        assert page.get(0x390, 8) == 0x80000010
        assert page.get(0x398, 8) == page.get(0x3A0, 8) == 0
        assert page.get(0x3A8, 8) == GHCB + 0x800
        assert page.get(0x3F0, 16) == 0x3C << 112
        assert (page.get(0xFFA, 2), page.get(0xFFC, 4)) == (2, 0)
        assert page.get(0x804, 4) == 0
        assert 0 <= page.end_entry <= 252
        return page

    def get(self, offset: int, size: int) -> int:
        return int.from_bytes(self.raw[offset : offset + size], "little")

    def put(self, offset: int, size: int, value: int) -> None:
        self.raw[offset : offset + size] = value.to_bytes(size, "little")

    @property
    def cur_entry(self) -> int:
        return self.get(0x800, 2)

    @property
    def end_entry(self) -> int:
        return self.get(0x802, 2)

    @property
    def entries(self) -> list[Entry]:
        return [entry_of(self.get(0x808 + 8 * index, 8)) for index in range(self.end_entry + 1)]


@dataclass(frozen=True, kw_only=True)
class Says:
    """An answer to a page state change: None leaves the bytes as the guest sent them."""

    cur: int | None = None
    end: int | None = None
    info1: int = 0
    info2: int = 0
    reserved: int = 0
    cur_pages: tuple[tuple[int, int], ...] = ()
    words: tuple[tuple[int, int], ...] = ()

    def apply(self, page: Page) -> Page:
        left = Page(bytearray(page.raw))
        left.put(0x398, 8, self.info1)
        left.put(0x3A0, 8, self.info2)
        left.put(0x800, 2, page.cur_entry if self.cur is None else self.cur)
        left.put(0x802, 2, page.end_entry if self.end is None else self.end)
        left.put(0x804, 4, self.reserved)
        for index, cur_page in self.cur_pages:
            left.put(0x808 + 8 * index, 8, page.get(0x808 + 8 * index, 8) & ~0xFFF | cur_page)
        for index, word in self.words:
            left.put(0x808 + 8 * index, 8, word)
        return left


PARTLY_TRUE = (0x1_0000_0002, 0x100_0000_0000)


def psc_claims(sent: Page, left: Page) -> set[int]:
    """The pages that an answer says are done: entries before cur_entry, and cur_page of the one at it.

    An error is about the entry at cur_entry: nothing of that one is done by it, and there must be such an entry.
    """
    claimed: set[int] = set()
    result = left.get(0x3A0, 8)
    if left.get(0x398, 4) or result not in (0, *PARTLY_TRUE) or (result and left.cur_entry > sent.end_entry):
        return claimed
    for index, entry in enumerate(sent.entries):
        done = entry.pages if index < left.cur_entry else 0
        if index == left.cur_entry and result == 0:
            done = min(left.get(0x808 + 8 * index, 8) & 0xFFF, entry.pages)
        claimed |= set(range(entry.gfn, entry.gfn + done))
    return claimed


def psc_host(script: Sequence[Says]) -> Callable[[Talk, GuestCall], GuestReply]:
    def answer(talk: Talk, call: GuestCall) -> GuestReply:
        page = Page.of(call)
        left = script[min(len(talk.calls), len(script)) - 1].apply(page)
        talk.claimed |= psc_claims(page, left)
        return GuestReply(mem=((GHCB, bytes(left.raw)),))

    return answer


@dataclass(frozen=True, kw_only=True)
class Psc:
    """A script of answers for `pages` pages from `first` on, and what must come of it."""

    id: str
    script: Sequence[Says]
    done: bool
    calls: int
    believed: int
    first: int = 0x101
    pages: int = 3


INVALID_HDR, INVALID_ENTRY, GENERIC = 0x1_0000_0001, 0x1_0000_0002, 0x100_0000_0000
DONE = Says(cur=3)
STALL = Says()

PSC = [
    Psc(id="all-at-once", script=[DONE], done=True, calls=1, believed=3),
    Psc(id="entry-by-entry", script=[Says(cur=1), Says(cur=2), DONE], done=True, calls=3, believed=3),
    Psc(id="no-progress", script=[STALL], done=False, calls=4, believed=0),
    Psc(id="three-stalls-then-done", script=[STALL, STALL, STALL, DONE], done=True, calls=4, believed=3),
    Psc(
        id="progress-resets-the-count",
        script=[STALL, STALL, STALL, Says(cur=1), *[STALL] * 3, Says(cur=2), *[STALL] * 3, DONE],
        done=True,
        calls=12,
        believed=3,
    ),
    Psc(id="stalls-after-progress", script=[Says(cur=2), STALL], done=False, calls=5, believed=2),
    Psc(id="end-entry-grows", script=[Says(cur=1, end=3)], done=False, calls=1, believed=0),
    Psc(id="end-entry-ffff", script=[Says(cur=0, end=0xFFFF)], done=False, calls=1, believed=0),
    Psc(id="end-entry-grows-later", script=[Says(cur=1), Says(cur=2, end=252)], done=False, calls=2, believed=1),
    # cur_entry is behind the host's end_entry, not behind the guest's.
    Psc(id="end-entry-shrinks", script=[Says(cur=1, end=0), DONE], done=True, calls=2, believed=3),
    Psc(id="end-entry-shrinks-for-ever", script=[Says(cur=1, end=0)], done=False, calls=5, believed=1),
    Psc(id="reserved", script=[Says(cur=3, reserved=1)], done=False, calls=1, believed=0),
    Psc(id="reserved-later", script=[Says(cur=1), Says(cur=3, reserved=1 << 31)], done=False, calls=2, believed=1),
    Psc(id="cur-entry-backwards", script=[Says(cur=2), Says(cur=1), DONE], done=False, calls=2, believed=2),
    Psc(id="cur-entry-back-to-0", script=[Says(cur=2), Says(cur=0), DONE], done=False, calls=2, believed=2),
    # Behind the end is done, as Linux and EDK2 see it too.
    Psc(id="cur-entry-beyond-end", script=[Says(cur=4)], done=True, calls=1, believed=3),
    Psc(id="cur-entry-ffff", script=[Says(cur=0xFFFF)], done=True, calls=1, believed=3),
    Psc(id="info1-1", script=[Says(cur=3, info1=1)], done=False, calls=1, believed=0),
    Psc(id="info1-2", script=[Says(cur=3, info1=2, info2=4)], done=False, calls=1, believed=0),
    Psc(id="info1-2-info2-0", script=[Says(cur=3, info1=2)], done=False, calls=1, believed=0),
    Psc(id="info1-later", script=[Says(cur=1), Says(cur=3, info1=2, info2=6)], done=False, calls=2, believed=1),
    Psc(id="info1-unknown", script=[Says(cur=3, info1=0x80000000)], done=False, calls=1, believed=0),
    Psc(id="info1-high-half", script=[Says(cur=3, info1=1 << 32)], done=True, calls=1, believed=3),
    *[
        Psc(id=f"{name}-at-{k}", script=[Says(cur=k, info2=code)], done=False, calls=1, believed=believed)
        for name, code, counts in (
            ("invalid-entry", INVALID_ENTRY, True),
            ("generic", GENERIC, True),
            ("invalid-hdr", INVALID_HDR, False),
            ("draft-code", 0x3_0000_0002, False),
            ("low-half-only", 1, False),
            ("all-ones", 2**64 - 1, False),
        )
        for k, believed in ((0, 0), (1, counts * 1), (2, counts * 2))
    ],
    Psc(id="generic-later", script=[Says(cur=1), Says(cur=2, info2=GENERIC)], done=False, calls=2, believed=2),
    Psc(id="generic-backwards", script=[Says(cur=2), Says(cur=1, info2=GENERIC)], done=False, calls=2, believed=2),
    Psc(id="generic-behind-end", script=[Says(cur=3, info2=GENERIC)], done=False, calls=1, believed=0),
    Psc(id="generic-far-behind-end", script=[Says(cur=7, info2=GENERIC)], done=False, calls=1, believed=0),
    Psc(id="cur-page-too-large", script=[Says(cur=1, cur_pages=((1, 2),))], done=False, calls=1, believed=0),
    Psc(id="cur-page-4095", script=[Says(cur=0, cur_pages=((0, 0xFFF),))], done=False, calls=1, believed=0),
    Psc(id="cur-page-counts", script=[Says(cur=0, cur_pages=((0, 1),)), STALL], done=False, calls=5, believed=1),
    Psc(
        id="2m-halves",
        script=[Says(cur=0, cur_pages=((0, 256),)), Says(cur=1)],
        done=True,
        calls=2,
        believed=512,
        first=0x400,
        pages=512,
    ),
    Psc(
        id="2m-513",
        script=[Says(cur=0, cur_pages=((0, 513),))],
        done=False,
        calls=1,
        believed=0,
        first=0x400,
        pages=512,
    ),
    Psc(
        id="2m-cur-page-backwards",
        script=[Says(cur=0, cur_pages=((0, 256),)), Says(cur=0, cur_pages=((0, 128),)), Says(cur=1)],
        done=False,
        calls=2,
        believed=256,
        first=0x400,
        pages=512,
    ),
    Psc(id="error-entry-marked", script=[Says(info2=GENERIC, cur_pages=((0, 1),))], done=False, calls=1, believed=0),
    Psc(
        id="2m-generic-in-the-middle",
        script=[Says(cur=0, cur_pages=((0, 256),)), Says(info2=GENERIC, cur_pages=((0, 512),))],
        done=False,
        calls=2,
        believed=256,
        first=0x400,
        pages=512,
    ),
    Psc(
        id="2m-error-in-the-middle",
        script=[Says(cur=0, cur_pages=((0, 256),)), Says(info2=INVALID_HDR)],
        done=False,
        calls=2,
        believed=256,
        first=0x400,
        pages=512,
    ),
]


@pytest.mark.parametrize("case", PSC, ids=lambda case: case.id)
def test_psc(case: Psc) -> None:
    talk = drive(guest_of("ghcb-psc"), case.first, case.pages, SHARED, psc_host(case.script))
    assert (talk.done, len(talk.calls)) == (case.done, case.calls)
    assert talk.pages == set(range(case.first, case.first + case.believed))


def test_psc_page_by_page_of_a_large_entry() -> None:
    script = [Says(cur=0, cur_pages=((0, done),)) for done in range(1, 513)]
    talk = drive(guest_of("ghcb-psc"), 0x400, 512, SHARED, psc_host([*script[:-1], Says(cur=1)]))
    assert (talk.done, len(talk.calls)) == (True, 512)


def pieces(call: GuestCall) -> list[tuple[int, int, int, int]]:
    return [(item.gfn, item.pages, item.operation, item.cur_page) for item in Page.of(call).entries]


SPLITS: list[tuple[str, int, int, list[list[tuple[int, int]]]]] = [
    ("one-page", 0x101, 1, [[(0x101, 1)]]),
    ("2m-aligned", 0x400, 512, [[(0x400, 512)]]),
    ("2m-unaligned", 0x401, 512, [[(page, 1) for page in range(0x401, 0x401 + 253)],
                                  [(page, 1) for page in range(0x4FE, 0x4FE + 253)],
                                  [(page, 1) for page in range(0x5FB, 0x601)]]),
    ("around-2m", 0x3FF, 514, [[(0x3FF, 1), (0x400, 512), (0x600, 1)]]),
    ("511-aligned", 0x400, 3, [[(0x400, 1), (0x401, 1), (0x402, 1)]]),
    ("253", 0x101, 253, [[(page, 1) for page in range(0x101, 0x1FE)]]),
    ("254", 0x101, 254, [[(page, 1) for page in range(0x101, 0x1FE)], [(0x1FE, 1)]]),
    ("254-large", 0x400, 254 * 512, [[(0x400 + 512 * n, 512) for n in range(253)], [(0x400 + 512 * 253, 512)]]),
    ("two-large", 0x400, 1024, [[(0x400, 512), (0x600, 512)]]),
]  # fmt: skip


@pytest.mark.parametrize(("to", "operation"), [(PRIVATE, 1), (SHARED, 2)], ids=["private", "shared"])
@pytest.mark.parametrize(("first", "pages", "batches"), [row[1:] for row in SPLITS], ids=[row[0] for row in SPLITS])
def test_psc_batches(
    first: int, pages: int, batches: list[list[tuple[int, int]]], to: PageState, operation: int
) -> None:
    def host(talk: Talk, call: GuestCall) -> GuestReply:
        page = Page.of(call)
        left = Says(cur=page.end_entry + 1).apply(page)
        talk.claimed |= psc_claims(page, left)
        return GuestReply(
            mem=((GHCB + 0x398, bytes(left.raw[0x398:0x3A8])), (GHCB + 0x800, bytes(left.raw[0x800:0xFF0])))
        )

    talk = drive(guest_of("ghcb-psc"), first, pages, to, host)
    assert talk.done
    assert [pieces(call) for call in talk.calls] == [
        [(gfn, count, operation, 0) for gfn, count in batch] for batch in batches
    ]


def test_psc_failure_in_the_second_batch_keeps_the_first() -> None:
    script = [Says(cur=253), Says(cur=1), Says(cur=1, info2=GENERIC)]
    talk = drive(guest_of("ghcb-psc"), 0x101, 256, PRIVATE, psc_host(script))
    assert (talk.done, len(talk.calls)) == (False, 3)
    assert talk.pages == set(range(0x101, 0x101 + 254))


OTHERS = [
    ("gfn", Entry(0, 0x5000, 2, 0)),
    ("operation", Entry(0, 0x103, 1, 0)),
    ("done-mark", Entry(1, 0x103, 2, 0)),
    ("psmash", Entry(0, 0x103, 3, 0)),
    ("size", Entry(0, 0x200, 2, 1)),
    ("cur-page", Entry(0xFFF, 0x103, 2, 0)),
]


@pytest.mark.parametrize("other", [row[1] for row in OTHERS], ids=[row[0] for row in OTHERS])
def test_psc_entries_that_the_host_rewrites_are_not_sent_again(other: Entry) -> None:
    # The last entry changes while the host says that only the first is done.
    scribble = Says(cur=1, words=((2, word_of(other)),))
    talk = drive(guest_of("ghcb-psc"), 0x101, 3, SHARED, psc_host([scribble, DONE]))
    assert talk.done
    assert pieces(talk.calls[1])[1:] == [(0x102, 1, 2, 0), (0x103, 1, 2, 0)]
    assert Page.of(talk.calls[1]).cur_entry == 1


@pytest.mark.parametrize("other", [row[1] for row in OTHERS], ids=[row[0] for row in OTHERS])
def test_psc_honest_host_behind_scribbled_memory_is_believed_only_for_what_it_did(other: Entry) -> None:
    """The host does what the page says, one entry a call; somebody scribbles over the last entry in between."""
    did: set[int] = set()

    def host(talk: Talk, call: GuestCall) -> GuestReply:
        page = Page.of(call)
        entry = page.entries[page.cur_entry]
        if entry.cur_page > entry.pages or entry.gfn % entry.pages:
            left = Says(info2=INVALID_ENTRY).apply(page)
        else:
            if entry.operation == 2:
                did.update(range(entry.gfn + entry.cur_page, entry.gfn + entry.pages))
            left = Says(cur=page.cur_entry + 1, cur_pages=((page.cur_entry, entry.pages),)).apply(page)
        talk.claimed |= psc_claims(page, left)
        if left.cur_entry < 2:
            left.put(0x818, 8, word_of(other))
        return GuestReply(mem=((GHCB, bytes(left.raw)),))

    talk = drive(guest_of("ghcb-psc"), 0x101, 3, SHARED, host)
    assert talk.pages <= did
    assert talk.done
    assert did == {0x101, 0x102, 0x103}


def test_psc_fields_of_the_page_that_the_host_rewrites_are_set_anew() -> None:
    def host(talk: Talk, call: GuestCall) -> GuestReply:
        page = Page.of(call)  # looks at every field, each time
        left = Says(cur=page.cur_entry + 1).apply(page)
        talk.claimed |= psc_claims(page, left)
        for offset, size in ((0x390, 8), (0x3A8, 8), (0x3F0, 16), (0xFFA, 2), (0xFFC, 4)):
            left.put(offset, size, (1 << 8 * size) - 1)
        return GuestReply(mem=((GHCB, bytes(left.raw)),))

    assert drive(guest_of("ghcb-psc"), 0x101, 3, SHARED, host).done


STEPS = [
    ("ghcb-psc", SHARED, ["rescind"], []),
    ("ghcb-psc", PRIVATE, [], ["accept"]),
    ("ghcb-msr-psc", SHARED, ["rescind"], []),
    ("ghcb-msr-psc", PRIVATE, [], ["accept"]),
]


@pytest.mark.parametrize(("abi", "to", "before", "after"), STEPS, ids=[f"{row[0]}-{row[1].value}" for row in STEPS])
def test_snp_validates_on_the_right_side_of_the_call(
    abi: str, to: PageState, before: list[str], after: list[str]
) -> None:
    seen: list[list[str]] = []

    def host(talk: Talk, call: GuestCall) -> GuestReply:
        seen.append([step.step for step in talk.steps if step.step != "map"])
        talk.claimed.add(0x101)
        if abi == "ghcb-msr-psc":
            return GuestReply(regs={"msr_c0010130": 0x15})
        return GuestReply(mem=((GHCB, bytes(Says(cur=1).apply(Page.of(call)).raw)),))

    talk = drive(guest_of(abi, steps=True), 0x101, 1, to, host)
    assert seen == [before]
    assert [step.step for step in talk.steps if step.step != "map"] == before + after
    assert all(step.ranges == ((0x101, 0x102),) for step in talk.steps)


# -- GHCB MSR protocol ------------------------------------------------------------------------------------------------

MSR = "msr_c0010130"

# answers in turn, done, calls, pages believed
MSR_CASES: list[tuple[str, dict[str, Any], list[int | None], bool, int, int]] = [
    ("good", {}, [0x15, 0x15], True, 2, 2),
    ("own-request-left", {}, [None], False, 1, 0),
    ("second-left", {}, [0x15, None], False, 2, 1),
    ("request-code", {}, [0x14], False, 1, 0),
    ("other-response", {}, [0x13], False, 1, 0),
    ("zero", {}, [0], False, 1, 0),
    ("info-0x815", {}, [0x815], False, 1, 0),
    ("kvm-error", {}, [0x8000000000000015], False, 1, 0),
    ("error-1", {}, [0x0000000100000015], False, 1, 0),
    ("error-all-ones", {}, [0xFFFFFFFF00000015], False, 1, 0),
    ("second-error", {}, [0x15, 0x0000000100000015], False, 2, 1),
    ("junk-linux", {"profile": "linux-guest-7.3"}, [0xFFFFF015, 0x1015], True, 2, 2),
    ("junk-svsm", {"profile": "coconut-svsm"}, [0x1015], False, 1, 0),
    ("junk-openvmm", {"profile": "openhcl-boot"}, [0x80000015], False, 1, 0),
    ("junk-and-error", {"profile": "linux-guest-7.3"}, [0x8000000000001015], False, 1, 0),
]


@pytest.mark.parametrize(
    ("spec", "script", "done", "calls", "believed"), [row[1:] for row in MSR_CASES], ids=[row[0] for row in MSR_CASES]
)
def test_msr_psc(spec: dict[str, Any], script: list[int | None], done: bool, calls: int, believed: int) -> None:
    def host(talk: Talk, call: GuestCall) -> GuestReply:
        number = len(talk.calls) - 1
        # op 2 in 55:52, the page's own address in 51:12, code 0x014
        assert dict(call.regs) == {MSR: 0x0020000000101014 + 0x1000 * number}
        answer = script[number]
        if answer is None:
            return GuestReply()
        if answer & 0xFFF == 0x15 and answer >> 32 == 0:
            talk.claimed.add(0x101 + number)
        return GuestReply(regs={MSR: answer})

    talk = drive(guest_of("ghcb-msr-psc", **spec), 0x101, 2, SHARED, host)
    assert (talk.done, len(talk.calls), len(talk.pages)) == (done, calls, believed)


# -- KVM hypercall 12 -------------------------------------------------------------------------------------------------

HYPERCALL: list[tuple[str, str, int, bool]] = [
    ("success", "vmcall64", 0, True),
    ("eperm", "vmcall64", 2**64 - 1, False),
    ("einval", "vmcall64", 2**64 - 22, False),
    ("enosys", "vmcall64", 2**64 - 1000, False),
    ("positive-einval", "vmcall64", 22, False),
    ("positive-eagain", "vmcall64", 11, False),
    ("openvmm", "vmcall64", 1, False),
    ("high-half", "vmcall64", 1 << 32, False),
    ("sign-bit", "vmcall64", 1 << 63, False),
    ("number-left", "vmcall64", 12, False),
    ("success-32", "vmcall32", 0, True),
    ("einval-32", "vmcall32", 0xFFFFFFEA, False),
    ("enosys-32", "vmcall32", 0xFFFFFC18, False),
    ("positive-32", "vmcall32", 22, False),
    # A 32-bit guest does not see the upper half.
    ("high-half-32", "vmcall32", 1 << 32, True),
    ("success-td", "tdvmcall", 0, True),
    ("einval-td", "tdvmcall", 2**64 - 22, False),
    ("positive-td", "tdvmcall", 22, False),
]


@pytest.mark.parametrize(
    ("transport", "told", "done"), [row[1:] for row in HYPERCALL], ids=[row[0] for row in HYPERCALL]
)
def test_hypercall(transport: str, told: int, done: bool) -> None:
    result = "r10" if transport == "tdvmcall" else "rax"

    def host(talk: Talk, call: GuestCall) -> GuestReply:
        if transport == "tdvmcall":
            expected = {"rax": 0, "rcx": 0x3C00, "r10": 12, "r11": 0x101000, "r12": 3, "r13": 0x10}
        else:
            expected = {"rax": 12, "rbx": 0x101000, "rcx": 3, "rdx": 0x10}
        assert dict(call.regs) == expected
        if done:
            talk.claimed |= {0x101, 0x102, 0x103}
        return GuestReply(regs={result: told, "r9": 77})

    talk = drive(guest_of("kvm-map-gpa-range", transport=transport), 0x101, 3, PRIVATE, host)
    assert (talk.done, len(talk.calls)) == (done, 1)
    assert len(talk.pages) == 3 * done


GHCB_CALL: list[tuple[str, int, int, int, bool]] = [
    ("success", 0, 0, 0, True),
    ("einval", 2**64 - 22, 0, 0, False),
    ("positive", 22, 0, 0, False),
    ("malformed", 0, 2, 4, False),
    ("exception", 0, 1, 0, False),
]


@pytest.mark.parametrize(
    ("rax", "info1", "info2", "done"), [row[1:] for row in GHCB_CALL], ids=[row[0] for row in GHCB_CALL]
)
def test_hypercall_through_the_ghcb(rax: int, info1: int, info2: int, done: bool) -> None:
    def host(talk: Talk, call: GuestCall) -> GuestReply:
        ((start, data),) = call.mem
        page = Page(bytearray(data))
        assert (start, call.regs[MSR], page.get(0x390, 8)) == (GHCB, GHCB, 0x81)
        # RAX, RBX, RCX, RDX and CPL, and the valid bits 25, 63, 97, 98, 99, 114, 115 and 116
        assert [page.get(at, 8) for at in (0x1F8, 0x318, 0x308, 0x310)] == [12, 0x101000, 3, 0]
        assert data[0x3F0:0x400].hex() == "00000002000000800000" + "00000e00" + "1c00"
        page.put(0x1F8, 8, rax)
        page.put(0x398, 8, info1)
        page.put(0x3A0, 8, info2)
        if done:
            talk.claimed |= {0x101, 0x102, 0x103}
        return GuestReply(mem=((GHCB, bytes(page.raw)),))

    talk = drive(guest_of("kvm-map-gpa-range", transport="ghcb-vmmcall"), 0x101, 3, SHARED, host)
    assert (talk.done, len(talk.calls)) == (done, 1)


ENC = [
    ("success", "v12", 0, True),
    ("einval", "v12", 2**64 - 22, False),
    ("positive", "v12", 22, False),
    ("enomem", "v10", 2**64 - 12, False),
    ("success-v10", "v10", 0, True),
]


@pytest.mark.parametrize(("revision", "rax", "done"), [row[1:] for row in ENC], ids=[row[0] for row in ENC])
def test_page_enc_status(revision: str, rax: int, done: bool) -> None:
    def host(talk: Talk, call: GuestCall) -> GuestReply:
        assert dict(call.regs) == {"rax": 12, "rbx": 0x101000, "rcx": 3, "rdx": 1}
        if done:
            talk.claimed |= {0x101, 0x102, 0x103}
        return GuestReply(regs={"rax": rax})

    talk = drive(guest_of("kvm-page-enc-status", revision=revision), 0x101, 3, PRIVATE, host)
    assert (talk.done, len(talk.calls)) == (done, 1)


# -- every ABI of these -----------------------------------------------------------------------------------------------

X86 = [
    "kvm-page-enc-status",
    "kvm-map-gpa-range",
    "kvm-exit-hypercall",
    "kvm-memory-attributes",
    "ghcb-psc",
    "ghcb-msr-psc",
    "tdx-map-gpa",
]

NOTHING: list[tuple[str, int, int]] = [
    ("empty", 0x101000, 0),
    ("unaligned", 0x101800, 1),
    ("off-by-one", 0x101001, 1),
    ("past-2-64", 0xFFFFFFFFFFFFF000, 2),
    ("huge", 0, 2**64 - 1),
]


@pytest.mark.parametrize("abi", X86)
@pytest.mark.parametrize(("gpa", "pages"), [row[1:] for row in NOTHING], ids=[row[0] for row in NOTHING])
@pytest.mark.parametrize("to", [SHARED, PRIVATE], ids=["shared", "private"])
def test_no_call_for_what_cannot_be_named(abi: str, gpa: int, pages: int, to: PageState) -> None:
    for steps in (False, True):
        with pytest.raises(StopIteration) as end:
            next(guest_of(abi, steps=steps).convert(gpa, pages, to))
        assert (end.value.value.done, end.value.value.ranges, end.value.value.calls) == (False, (), 0)


@pytest.mark.parametrize("abi", X86)
def test_no_call_where_it_is_not_offered(abi: str) -> None:
    guest = guest_class(abi)(load(abi), scratch=SCRATCH, enabled=False)
    with pytest.raises(StopIteration) as end:
        next(guest.convert(0x101000, 1, SHARED))
    assert (end.value.value.done, end.value.value.calls) == (False, 0)


TOP = [("tdx-map-gpa", (1 << 47) >> 12), ("ghcb-psc", 1 << 40), ("ghcb-msr-psc", 1 << 40)]


@pytest.mark.parametrize(("abi", "top"), TOP, ids=[row[0] for row in TOP])
def test_the_last_page_that_can_be_named(abi: str, top: int) -> None:
    call = next(guest_of(abi).convert((top - 1) << 12, 1, SHARED))
    assert isinstance(call, GuestCall)
    with pytest.raises(StopIteration):
        next(guest_of(abi).convert((top - 1) << 12, 2, SHARED))


@pytest.mark.parametrize("abi", ["tdx-map-gpa", "ghcb-msr-psc", "ghcb-psc"])
def test_nothing_is_believed_where_the_host_ends_the_virtual_machine(abi: str) -> None:
    # Linux 7.3 cannot run the vCPU on after errno 5. The guest's own R10 of 0 must not read as success.
    spec = load(abi, profile="linux-kvm-7.3")
    guest, host = guest_class(abi)(spec, scratch=SCRATCH), host_class(abi)(spec)
    result = converse(guest, host, 0x101000, 3, SHARED, [Injection(vmm_errno=5)])
    assert (result.done, result.ranges, result.calls) == (False, (), 1)
    assert result.reason


EDGES = (0, 1, 2, 3, 11, 22, 0x14, 0x15, 1 << 32, 1 << 47, 1 << 63, 2**64 - 1, 2**64 - 22)


def noise(rng: random.Random, words: Iterable[int]) -> int:
    """A number that a hostile host may write: an edge, one near what the guest sent, or anything."""
    near = rng.choice([*words, 0])
    kind = rng.randrange(4)
    if kind == 0:
        return rng.choice(EDGES)
    if kind == 1:
        return rng.getrandbits(64)
    return (near + rng.choice((-4096, -1, 0, 0, 1, 0x800, 4096, 8192, 1 << 47))) % 2**64


@pytest.mark.parametrize("seed", range(150))
def test_tdx_random_host(seed: int) -> None:
    rng = random.Random(seed)

    def host(talk: Talk, call: GuestCall) -> GuestReply:
        regs = dict(call.regs)
        written = {"r10": rng.choice((0, 1, 1, 1, 1, 1, noise(rng, (1,)))), "r11": noise(rng, (regs["r12"],))}
        if rng.random() < 0.6:
            written["r11"] = regs["r12"] + 4096 * rng.randrange(0, 3)
        if rng.random() < 0.1:
            written["rax"] = noise(rng, (0,))
        talk.claimed |= td_claims(regs, written, S47)
        return GuestReply(regs=written)

    pages = rng.choice((1, 2, 9))
    talk = drive(guest_of("tdx-map-gpa"), TD_FIRST, pages, rng.choice((SHARED, PRIVATE)), host, most=4 * pages + 4)
    assert talk.result is not None


@pytest.mark.parametrize("seed", range(150))
def test_psc_random_host(seed: int) -> None:
    rng = random.Random(seed)

    def host(talk: Talk, call: GuestCall) -> GuestReply:
        page = Page.of(call)
        says = Says(
            cur=rng.choice((page.cur_entry, page.cur_entry + 1, page.cur_entry + rng.randrange(3), rng.randrange(8))),
            end=rng.choice((None, None, None, None, None, rng.randrange(6))),
            info1=rng.choice((0,) * 12 + (1, 2, 1 << 32)),
            info2=rng.choice((0,) * 9 + (GENERIC, INVALID_ENTRY, INVALID_HDR, 7)),
            reserved=rng.choice((0,) * 15 + (1,)),
        )
        left = says.apply(page)
        for index in range(page.end_entry + 1):
            if rng.random() < 0.3:
                left.put(0x808 + 8 * index, 8, rng.getrandbits(57) if rng.random() < 0.5 else left.get(0x808, 8) ^ 1)
        talk.claimed |= psc_claims(page, left)
        for index, entry in enumerate(page.entries):
            # Whatever was scribbled, the guest names its own pages only, and has done no other.
            assert first <= entry.gfn < first + pages
            assert entry.operation == 2
            assert index >= page.cur_entry or entry.cur_page <= 0xFFF
        return GuestReply(mem=((GHCB, bytes(left.raw)),))

    first, pages = rng.choice(((0x101, 4), (0x3FF, 514), (0x400, 512)))
    count = 4 if pages == 4 else 3 if pages == 514 else 1
    drive(guest_of("ghcb-psc"), first, pages, SHARED, host, most=4 * (pages + count) + 8)


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize(
    ("abi", "transport"),
    [("kvm-map-gpa-range", "vmcall64"), ("kvm-map-gpa-range", "vmcall32"), ("kvm-map-gpa-range", "ghcb-vmmcall"),
     ("ghcb-msr-psc", None), ("kvm-memory-attributes", None), ("kvm-exit-hypercall", None)],
)  # fmt: skip
def test_one_call_for_each_request_whatever_is_answered(abi: str, transport: str | None, seed: int) -> None:
    rng = random.Random(seed)

    def host(talk: Talk, call: GuestCall) -> GuestReply:
        talk.claimed |= {0x101, 0x102, 0x103}  # what is claimed differs by ABI; the tables above have that
        regs = {name: noise(rng, (value,)) for name, value in call.regs.items() if rng.random() < 0.7}
        mem = tuple((start, rng.randbytes(len(data))) for start, data in call.mem if rng.random() < 0.5)
        return GuestReply(regs=regs, mem=mem)

    drive(guest_of(abi, transport=transport), 0x101, 3, SHARED, host, most=3)
