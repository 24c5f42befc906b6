"""Golden bytes of the common call, typed by hand from the tables of its manual page, and a second reading of its text.

The call is our own, so there is no other code to compare it with. `Plain` below is a host written from the sentences of
the specification with `struct` and sets of pages: it uses no codec, no expression and no rule of the project.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field

import pytest

from hvabi.abi.registry import load
from hvabi.adapters.registry import guest_class, host_class
from hvabi.adapters.values import GuestCall, GuestReply, HostAnswer, Injection
from hvabi.backend import Backend, Conversion, GuestMemory, MemoryLayout, PageState

LIST = 0x1000
DONE, PARTIAL, RETRY, INVALID, MISALIGNED, OUT_OF_RANGE, LIMIT, DENIED, UNSUPPORTED = 0, 1, 2, -1, -2, -3, -4, -5, -6
PRIVATE, SHARED, READ_ONLY = 0, 1, 2
STATES = {PageState.PRIVATE: PRIVATE, PageState.SHARED: SHARED, PageState.SHARED_READ_ONLY: READ_ONLY}
# By form: number of the call, register of the list or of the first word, register of the answer.
LISTS = {"x86-list": ("rax", 0x43560001, "rbx"), "arm64-list": ("x0", 0xC5000041, "x1")}
# Number of the call, four registers of the entry, next, count.
REGISTERS = {
    "x86-registers": (0x43560004, ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "r8")),
    "arm64-registers": (0xC5000044, ("x0", "x1", "x2", "x3", "x4", "x5", "x6")),
}

Entry = tuple[int, int, int, int]
"""Address, pages, pages done, state."""


def packed(entries: list[Entry], *, next_: int = 0, version: int = 1) -> bytes:
    head = struct.pack("<IIII", version, len(entries), next_, 0)
    return head + b"".join(struct.pack("<QQQBB6x", gpa, pages, done, to, 0) for gpa, pages, done, to in entries)


def unpacked(data: bytes) -> tuple[int, list[int]]:
    """Return `next` and what is done of every entry."""
    _, count, next_, _ = struct.unpack_from("<IIII", data)
    return next_, [struct.unpack_from("<Q", data, 16 + 32 * number + 16)[0] for number in range(count)]


def signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


@dataclass
class Plain:
    """The call in plain words: a page is in the state in which the last entry that reached it has left it."""

    memory: tuple[int, int]
    pages: dict[int, int] = field(default_factory=dict)

    def convert(self, entries: list[Entry], next_: int, *, stop_after: int | None = None) -> tuple[int, int, list[int]]:
        """Return status, next and what is done of every entry."""
        done = [entry[2] for entry in entries]
        count = 0
        for number in range(next_, len(entries)):
            gpa, pages, already, to = entries[number]
            if to > READ_ONLY or not pages or already > pages:
                return (MISALIGNED if gpa % 4096 and to <= READ_ONLY else INVALID), number, done
            if gpa % 4096:
                return MISALIGNED, number, done
            first, last = gpa // 4096 + already, gpa // 4096 + pages
            if last > 1 << 40:
                return OUT_OF_RANGE, number, done
            # What the host does at once: all that is left of the entry, or as far as it comes before it stops.
            reached = last if stop_after is None else min(last, first + stop_after - count)
            if first < reached and not self.memory[0] <= first <= reached <= self.memory[1]:
                return OUT_OF_RANGE, number, done
            self.pages.update(dict.fromkeys(range(first, reached), to))
            count += reached - first
            done[number] += reached - first
            if reached < last:
                return (PARTIAL if count else RETRY), number, done
        return DONE, len(entries), done

    def shown(self) -> dict[int, int]:
        return {page: state for page, state in self.pages.items() if state != PRIVATE}


class Real:
    """The bundled host over one form, called with raw registers and bytes."""

    def __init__(self, form: str, *, max_ranges: int | None = None, config: dict[str, int] | None = None) -> None:
        self.form = form
        layout = MemoryLayout(((0, 0x1000),))
        self.backend = Backend(layout=layout, max_ranges=max_ranges)
        self.memory = GuestMemory(layout)
        spec = load("common-convert")
        self.host = host_class("common-convert")(
            spec, transport=form, backend=self.backend, memory=self.memory, config=config
        )

    def list(self, body: bytes, *, stop_after: int | None = None, cpl: int = 0) -> tuple[int, bytes]:
        """Poke a list, make the call; return the status and the list as it came back."""
        number, call, where = LISTS[self.form]
        self.memory.poke(LIST, body)
        answer = self.host.answer({number: call, where: LIST}, inject=Injection(stop_after=stop_after), cpl=cpl)
        assert answer.end == "return"
        assert set(answer.regs) == {number}
        return signed(answer.regs[number]), self.memory.peek(LIST, len(body))

    def pages(self) -> dict[int, int]:
        runs = self.backend.query()
        return {page: STATES[run.state] for run in runs for page in range(run.start, run.end)}


ROWS = [
    # id, list, stop after, status, `next` and `done` of each entry afterwards, pages that are not private
    ("one page", "01000000010000000000000000000000" "00e00000000000000100000000000000"
     "00000000000000000100000000000000",
     None, DONE, 1, [1], {0xE: SHARED}),
    ("two ranges", "01000000020000000000000000000000" "00002000000000000200000000000000"
     "00000000000000000100000000000000"
     "00003000000000000300000000000000" "00000000000000000200000000000000",
     None, DONE, 2, [2, 3], {0x200: SHARED, 0x201: SHARED, 0x300: READ_ONLY, 0x301: READ_ONLY, 0x302: READ_ONLY}),
    ("stopped in the second", "01000000020000000000000000000000" "00002000000000000200000000000000"
     "00000000000000000100000000000000" "00003000000000000300000000000000" "00000000000000000100000000000000",
     3, PARTIAL, 1, [2, 1], {0x200: SHARED, 0x201: SHARED, 0x300: SHARED}),
    ("nothing now", "01000000010000000000000000000000" "00002000000000000200000000000000"
     "00000000000000000100000000000000",
     0, RETRY, 0, [0], {}),
    ("from the middle", "01000000020000000100000000000000" "00002000000000000200000000000000"
     "02000000000000000100000000000000" "00003000000000000300000000000000" "01000000000000000100000000000000",
     None, DONE, 2, [2, 3], {0x301: SHARED, 0x302: SHARED}),
    ("all done before", "01000000010000000100000000000000" "00002000000000000200000000000000"
     "02000000000000000100000000000000", None, DONE, 1, [2], {}),
    ("version 0", "00000000010000000000000000000000" "00002000000000000200000000000000"
     "00000000000000000100000000000000",
     None, UNSUPPORTED, 0, [0], {}),
    ("version 2", "02000000010000000000000000000000" "00002000000000000200000000000000"
     "00000000000000000100000000000000",
     None, UNSUPPORTED, 0, [0], {}),
    ("reserved word", "01000000010000000000000001000000" "00002000000000000200000000000000"
     "00000000000000000100000000000000", None, INVALID, 0, [0], {}),
    ("next behind the end", "01000000010000000200000000000000" "00002000000000000200000000000000"
     "00000000000000000100000000000000", None, INVALID, 2, [0], {}),
    ("highest reserved byte of an entry", "01000000010000000000000000000000" "00002000000000000200000000000000"
     "00000000000000000100000000000080", None, INVALID, 0, [0], {}),
    ("state 3", "01000000010000000000000000000000" "00002000000000000200000000000000"
     "00000000000000000300000000000000",
     None, INVALID, 0, [0], {}),
    ("order changes nothing", "01000000010000000000000000000000" "00002000000000000200000000000000"
     "000000000000000001ff000000000000", None, DONE, 1, [2], {0x200: SHARED, 0x201: SHARED}),
    ("no pages in the second", "01000000020000000000000000000000" "00002000000000000100000000000000"
     "00000000000000000100000000000000" "00003000000000000000000000000000" "00000000000000000100000000000000",
     None, INVALID, 1, [1, 0], {0x200: SHARED}),
    ("more done than there is", "01000000010000000000000000000000" "00002000000000000200000000000000"
     "03000000000000000100000000000000", None, INVALID, 0, [3], {}),
    ("half a page", "01000000010000000000000000000000" "00082000000000000200000000000000"
     "00000000000000000100000000000000",
     None, MISALIGNED, 0, [0], {}),
    ("no memory behind the first page", "01000000010000000000000000000000" "00f0ff00000000000200000000000000"
     "00000000000000000100000000000000", None, OUT_OF_RANGE, 0, [0], {}),
    ("2^64 pages less one", "01000000010000000000000000000000" "0010000000000000ffffffffffffffff"
     "00000000000000000100000000000000", None, OUT_OF_RANGE, 0, [0], {}),
]  # fmt: skip


@pytest.mark.parametrize("form", LISTS)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_list(row: tuple[str, str, int | None, int, int, list[int], dict[int, int]], form: str) -> None:
    _, body, stop, status, next_, done, pages = row
    real = Real(form)
    found, back = real.list(bytes.fromhex(body), stop_after=stop)
    assert (found, *unpacked(back)) == (status, next_, done)
    assert real.pages() == pages
    # Nothing of the list but `next` and `done` is the host's to write.
    mine, theirs = bytearray(bytes.fromhex(body)), bytearray(back)
    for at in (slice(8, 12), *(slice(32 * n + 32, 32 * n + 40) for n in range(len(done)))):
        mine[at] = theirs[at] = bytes(at.stop - at.start)
    assert mine == theirs


@pytest.mark.parametrize(
    ("regs", "status"),
    [({"rbx": 0x1004}, MISALIGNED), ({"rbx": 0xFFFFF8}, OUT_OF_RANGE), ({"rbx": 1 << 52}, OUT_OF_RANGE),
     ({"rax": 0x43560005}, UNSUPPORTED)],
    ids=["the list not at a multiple of 8", "the list leaves memory", "no memory at all", "another number"],
)  # fmt: skip
def test_where_the_list_lies(regs: dict[str, int], status: int) -> None:
    real = Real("x86-list")
    real.memory.poke(LIST, packed([(0x200000, 1, 0, SHARED)]))
    answer = real.host.answer({"rax": 0x43560001, "rbx": LIST, **regs})
    assert (signed(answer.regs["rax"]), answer.mem, real.pages()) == (status, (), {})


def test_a_list_of_126_entries_fits_and_one_more_does_not() -> None:
    for count, status in ((126, DONE), (127, INVALID), (0, INVALID)):
        real = Real("x86-list")
        found, _ = real.list(packed([(0x200000 + 0x2000 * n, 1, 0, SHARED) for n in range(count)]))
        assert (found, len(real.pages())) == (status, count if status == DONE else 0)


def test_a_program_is_denied_and_not_on_arm() -> None:
    body = packed([(0x200000, 1, 0, SHARED)])
    assert Real("x86-list").list(body, cpl=3)[0] == DENIED
    assert Real("arm64-list").list(body, cpl=3)[0] == DONE


def test_the_bound_refuses_one_range_more_and_nothing_else() -> None:
    real = Real("x86-list", max_ranges=1)
    status, back = real.list(packed([(0x200000, 4, 0, SHARED), (0x300000, 1, 0, SHARED)]))
    assert (status, *unpacked(back)) == (LIMIT, 1, [4, 0])
    assert real.list(packed([(0x204000, 1, 0, SHARED)]))[0] == DONE  # grows the range
    assert real.list(packed([(0x201000, 1, 0, PRIVATE)]))[0] == LIMIT  # splits it
    assert real.list(packed([(0x200000, 5, 0, PRIVATE)]))[0] == DONE
    assert real.pages() == {}


def test_read_only_where_it_is_not_offered() -> None:
    real = Real("x86-list", config={"read_only": 0})
    status, back = real.list(packed([(0x200000, 1, 0, SHARED), (0x300000, 1, 0, READ_ONLY)]))
    assert (status, *unpacked(back)) == (UNSUPPORTED, 1, [1, 0])


@pytest.mark.parametrize("form", LISTS)
def test_the_list_is_the_token(form: str) -> None:
    """The bytes that came back, sent as they are to another host with the same pages, from every stopping point."""
    entries = [(0x200000, 3, 0, SHARED), (0x201000, 1, 0, PRIVATE), (0x300000, 4, 0, READ_ONLY)]
    for stop in range(9):
        first, plain = Real(form), Plain((0, 0x1000))
        status, back = first.list(packed(entries), stop_after=stop)
        expected = plain.convert(entries, 0, stop_after=stop)
        assert (status, *unpacked(back)) == expected, stop
        assert first.pages() == plain.shown(), stop
        if status == DONE:
            assert stop == 8
            continue
        second = Real(form)  # the machine that the guest has moved to
        for run in first.backend.query():
            assert (
                second.backend.convert(Conversion(start=run.start, page_count=run.end - run.start, to=run.state)).status
                == "done"
            )
        status, again = second.list(back)
        assert (status, *unpacked(again)) == (DONE, 3, [3, 1, 4])
        assert second.pages() == {0x200: SHARED, 0x202: SHARED, **dict.fromkeys(range(0x300, 0x304), READ_ONLY)}


@pytest.mark.parametrize("form", REGISTERS)
def test_the_registers_are_the_token(form: str) -> None:
    call, names = REGISTERS[form]
    for stop in range(5):
        real = Real(form)
        regs = dict(zip(names, (call, 0x200000, 4, 0, SHARED, 0, 1), strict=True))
        answer = real.host.answer(regs, inject=Injection(stop_after=stop))
        after = {**regs, **answer.regs}
        status = DONE if stop == 4 else PARTIAL if stop else RETRY
        assert [after[name] for name in names] == [status, 0x200000, 4, stop, SHARED, int(stop == 4), 1]
        assert real.pages() == dict.fromkeys(range(0x200, 0x200 + stop), SHARED)
        answer = real.host.answer({**after, names[0]: call})
        after.update(answer.regs)
        assert [after[name] for name in names] == [DONE, 0x200000, 4, 4, SHARED, 1, 1]
        assert real.pages() == dict.fromkeys(range(0x200, 0x204), SHARED)


@pytest.mark.parametrize("seed", range(60))
def test_random_lists_by_a_second_reading(seed: int) -> None:
    """Right and wrong entries, started anywhere and stopped anywhere, sent again until the host has no more to do."""
    choose = random.Random(seed)
    real, plain = Real(choose.choice(list(LISTS))), Plain((0, 0x1000))
    for _ in range(6):
        entries: list[Entry] = []
        for _ in range(choose.randrange(1, 6)):
            pages = choose.choice((1, 2, 3, 9, 0, 600))
            gpa = choose.randrange(0x200, 0x240) * 4096 + (choose.random() < 0.05) * choose.choice((1, 2048))
            gpa = choose.choice((gpa,) * 12 + (0xFFF000, (1 << 52) - 4096))
            done = choose.choice((0,) * 8 + (1, 2, 9))
            entries.append((gpa, pages, done, choose.choice((0, 1, 1, 1, 2, 2, *((3,) if seed % 3 == 0 else ())))))
        next_ = choose.choice((0, 0, 0, len(entries)))
        body = packed(entries, next_=next_)
        for _ in range(4):
            stop = choose.choice((None, 0, 1, 2, 5, 20))
            status, body = real.list(body, stop_after=stop)
            expected = plain.convert(entries, next_, stop_after=stop)
            assert (status, *unpacked(body)) == expected, (entries, next_, stop)
            assert real.pages() == plain.shown()
            next_, done_now = unpacked(body)
            entries = [(gpa, pages, n, to) for (gpa, pages, _, to), n in zip(entries, done_now, strict=True)]


# -- questions --------------------------------------------------------------------------------------------------------


def state(real: Real, gpa: int, pages: int) -> tuple[int, int | None, int | None]:
    """Return status, pages of the run and its state."""
    regs = {"rax": 0x43560002, "rbx": gpa, "rcx": pages} if real.form == "x86-list" else {
        "x0": 0xC5000042, "x1": gpa, "x2": pages}  # fmt: skip
    answer: HostAnswer = real.host.answer(regs)
    status, run = ("rax", "rdx") if real.form == "x86-list" else ("x0", "x1")
    if run not in answer.regs:
        return signed(answer.regs[status]), None, None
    return signed(answer.regs[status]), answer.regs[run] & ((1 << 56) - 1), answer.regs[run] >> 56


@pytest.mark.parametrize("form", LISTS)
def test_a_new_kernel_learns_what_is_shared(form: str) -> None:
    """From 0 upwards, one question for each run: what kexec needs."""
    real = Real(form)
    real.list(packed([(0x200000, 3, 0, SHARED), (0x203000, 1, 0, READ_ONLY), (0xFFF000, 1, 0, SHARED)]))
    runs, at = [], 0
    while at < 0x1000:
        status, pages, found = state(real, at * 4096, 0x1000 - at)
        assert status == DONE
        assert pages
        runs.append((at, pages, found))
        at += pages
    assert runs == [(0, 0x200, 0), (0x200, 3, 1), (0x203, 1, 2), (0x204, 0xDFB, 0), (0xFFF, 1, 1)]


@pytest.mark.parametrize(
    ("gpa", "pages", "status"),
    [(0x200800, 1, MISALIGNED), (0x200000, 0, INVALID), (0x1000000, 1, OUT_OF_RANGE), (0xFFF000, 2, OUT_OF_RANGE),
     ((1 << 52) - 4096, 2, OUT_OF_RANGE)],
)  # fmt: skip
def test_questions_that_are_wrong(gpa: int, pages: int, status: int) -> None:
    assert state(Real("x86-list"), gpa, pages) == (status, None, None)


@pytest.mark.parametrize(
    ("which", "status", "value"),
    [(0, DONE, 1), (1, DONE, 7), (2, DONE, 4096), (3, DONE, 126), (4, DONE, 3), (5, DONE, 0), (6, DONE, 0),
     (7, UNSUPPORTED, None), (2**64 - 1, UNSUPPORTED, None)],
)  # fmt: skip
def test_capabilities(which: int, status: int, value: int | None) -> None:
    answer = Real("x86-list").host.answer({"rax": 0x43560003, "rbx": which})
    assert (signed(answer.regs["rax"]), answer.regs.get("rdx")) == (status, value)


# -- the guest --------------------------------------------------------------------------------------------------------


def test_guest_sends_the_list_that_came_back() -> None:
    guest = guest_class("common-convert")(load("common-convert"), transport="x86-list")
    talk = guest.convert(0x200000, 3, PageState.SHARED)
    shown = next(talk)
    assert isinstance(shown, GuestCall)
    assert shown.regs["rax"] == 0x43560001
    ((where, body),) = shown.mem
    assert where == shown.regs["rbx"]
    assert body == packed([(0x200000, 1, 0, SHARED), (0x201000, 1, 0, SHARED), (0x202000, 1, 0, SHARED)])
    # The host has done the first entry: it writes `done` and `next`, and the guest sends what it finds.
    theirs = ((where + 8, struct.pack("<I", 1)), (where + 32, struct.pack("<Q", 1)))
    shown = talk.send(GuestReply(regs={"rax": PARTIAL}, mem=theirs))
    assert isinstance(shown, GuestCall)
    again = packed([(0x200000, 1, 1, SHARED), (0x201000, 1, 0, SHARED), (0x202000, 1, 0, SHARED)], next_=1)
    memory = {at + n: byte for at, piece in shown.mem for n, byte in enumerate(piece)}
    kept = {where + n: byte for n, byte in enumerate(again)}
    assert {at: memory[at] for at in memory} == {at: kept[at] for at in memory}
    last = ((where + 8, struct.pack("<I", 3)), (where + 64, struct.pack("<Q", 1)), (where + 96, struct.pack("<Q", 1)))
    with pytest.raises(StopIteration) as end:
        talk.send(GuestReply(regs={"rax": DONE}, mem=last))
    assert (end.value.value.done, end.value.value.ranges) == (True, ((0x200, 0x203),))


@pytest.mark.parametrize(
    ("status", "next_", "believed"),
    [(DONE, 1, ()), (INVALID, 1, ((0x200, 0x201),)), (LIMIT, 0, ()), (9, 2, ()), (PARTIAL, 3, ())],
    ids=["done that is not", "invalid in the second", "limit at once", "unknown", "beyond the list"],
)
def test_guest_gives_up(status: int, next_: int, believed: tuple[tuple[int, int], ...]) -> None:
    guest = guest_class("common-convert")(load("common-convert"), transport="x86-list")
    talk = guest.convert(0x200000, 2, PageState.SHARED)
    shown = next(talk)
    assert isinstance(shown, GuestCall)
    where = shown.regs["rbx"]
    theirs = [(where + 8, struct.pack("<I", next_))]
    theirs += [(where + 32 + 32 * n, struct.pack("<Q", 1)) for n in range(min(next_, 2))]
    with pytest.raises(StopIteration) as end:
        talk.send(GuestReply(regs={"rax": status % (1 << 64)}, mem=tuple(theirs)))
    assert (end.value.value.done, end.value.value.ranges) == (False, believed)
