"""What surrounds a host call: privilege, switches, memory, bounds, faults, exits, and memory that changes under it.

Requests are made and answers are read here by hand, from offsets and bits typed into this file.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from hvabi.abi.registry import load
from hvabi.adapters.registry import host_class
from hvabi.adapters.values import HostAnswer, Injection, VmmReply
from hvabi.backend import Backend, Conversion, GuestMemory, MemoryLayout, PageState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hvabi.adapters.host import Host

SHARED, PRIVATE = PageState.SHARED, PageState.PRIVATE
S47 = 1 << 47
GHCB = 0x7000
MSR = "msr_c0010130"

EPERM_64 = 0xFFFFFFFFFFFFFFFF
EINVAL_64 = 0xFFFFFFFFFFFFFFEA
ENOSYS_64 = 0xFFFFFFFFFFFFFC18
PSC_ERROR = 0x8000000000000015
INVALID_OPERAND, ALIGN_ERROR, UNSUPPORTED = 1 << 63, 1 << 63 | 2, 1 << 63 | 3
OK, HDR, ENTRY, GENERIC = (0, 0), (0, 0x1_0000_0001), (0, 0x1_0000_0002), (0, 0x100_0000_0000)


def host_of(
    abi: str, *, slots: Sequence[tuple[int, int]] | None = None, shared: Sequence[tuple[int, int]] = (), **more: Any
) -> Host:
    """A host with slots as (first page, end page) and pages that are shared at first."""
    kept = {name: more.pop(name) for name in ("transport", "config", "enabled") if name in more}
    layout = MemoryLayout(slots)
    backend = more.pop("backend", None) or Backend(layout=layout, max_ranges=more.pop("max_ranges", None))
    for start, end in shared:
        backend.convert(Conversion(start, end - start, SHARED), absent="allow")
    memory = GuestMemory(layout, count_reads=True)
    return host_class(abi)(load(abi, **more), backend=backend, memory=memory, **kept)


def shared_of(host: Host) -> list[tuple[int, int]]:
    return [(run.start, run.end) for run in host.backend.query()]


def pages_of(host: Host) -> set[int]:
    return {page for start, end in shared_of(host) for page in range(start, end)}


def ask_all(host: Host, regs: dict[str, int], answers: Sequence[int] = ()) -> tuple[HostAnswer, list[tuple[int, ...]]]:
    """Do a call, answer its exits in turn with `answers` and then 0; return the exits as (gpa, pages, attributes)."""
    call = host.call(regs, exits=True)
    asked: list[tuple[int, ...]] = []
    left = list(answers)
    try:
        shown = next(call)
        while True:
            assert shown.abi == "kvm-exit-hypercall"
            ((start, data),) = shown.mem
            assert start == 0
            # exit reason 3 at 8, number 12 at 32
            assert (data[8:12].hex(), data[32:40].hex()) == ("03000000", "0c00000000000000")
            asked.append(tuple(int.from_bytes(data[at : at + 8], "little") for at in (40, 48, 56)))
            ret = left.pop(0) if left else 0
            shown = call.send(VmmReply(mem=((88, ret.to_bytes(8, "little")),)))
    except StopIteration as end:
        return end.value, asked


# -- requests by hand -------------------------------------------------------------------------------------------------


def hypercall(gpa: int, npages: int, attributes: int = 0) -> dict[str, int]:
    return {"rax": 12, "rbx": gpa, "rcx": npages, "rdx": attributes}


def map_gpa(gpa: int, size: int) -> dict[str, int]:
    return {"rax": 0, "rcx": 0x3C00, "r10": 0, "r11": 0x10001, "r12": gpa, "r13": size}


def msr_psc(gfn: int, operation: int = 2) -> dict[str, int]:
    return {MSR: operation << 52 | gfn << 12 | 0x14}


def psc_entry(gfn: int, operation: int = 2, size: int = 0, cur_page: int = 0) -> int:
    return size << 56 | operation << 52 | gfn << 12 | cur_page


@dataclass
class Psc:
    """A GHCB page in the host's memory, and the host it is for."""

    host: Host
    offset: int = 0x800
    regs: dict[str, int] = field(default_factory=lambda: {MSR: GHCB})

    def put(self, at: int, value: int, size: int = 8) -> None:
        self.host.memory.poke(GHCB + at, value.to_bytes(size, "little"))

    def get(self, at: int, size: int = 8) -> int:
        return int.from_bytes(self.host.memory.peek(GHCB + at, size), "little")

    def request(
        self, entries: Sequence[int], *, cur: int = 0, end: int | None = None, scratch: int | None = None
    ) -> None:
        self.put(0x390, 0x80000010)
        self.put(0x398, 0)
        self.put(0x3A0, 0)
        self.put(0x3A8, GHCB + self.offset if scratch is None else scratch)
        self.put(0x3F0, 0x3C << 112, 16)
        self.put(0xFFA, 2, 2)
        self.put(0xFFC, 0, 4)
        self.put(self.offset, cur, 2)
        self.put(self.offset + 2, len(entries) - 1 if end is None else end, 2)
        self.put(self.offset + 4, 0, 4)
        for index, word in enumerate(entries):
            self.put(self.offset + 8 + 8 * index, word)

    def again(self) -> None:
        """What a guest does to ask again: the same buffer, exit code, infos and valid bits anew."""
        self.put(0x390, 0x80000010)
        self.put(0x398, 0)
        self.put(0x3A0, 0)
        self.put(0x3F0, 0x3C << 112, 16)

    @property
    def infos(self) -> tuple[int, int]:
        return self.get(0x398), self.get(0x3A0)

    @property
    def cur(self) -> int:
        return self.get(self.offset, 2)

    def word(self, index: int) -> int:
        return self.get(self.offset + 8 + 8 * index)

    def answer(self, **more: Any) -> HostAnswer:
        return self.host.answer(self.regs, **more)


def psc_of(entries: Sequence[int], **more: Any) -> Psc:
    psc = Psc(host_of("ghcb-psc", **more))
    psc.request(entries)
    return psc


# -- privilege and switches -------------------------------------------------------------------------------------------

CPL: list[tuple[str, str, str, dict[str, int], str, int]] = [
    ("map-gpa-64", "kvm-map-gpa-range", "vmcall64", hypercall(0x5000, 1), "rax", EPERM_64),
    ("map-gpa-32", "kvm-map-gpa-range", "vmcall32", hypercall(0x5000, 1), "rax", 0xFFFFFFFF),
    ("enc-status", "kvm-page-enc-status", "vmmcall", hypercall(0x5000, 1), "rax", EPERM_64),
    # Before everything else: bad arguments, another number, the switch.
    ("bad-arguments", "kvm-map-gpa-range", "vmcall64", hypercall(0x5001, 0), "rax", EPERM_64),
    ("other-number", "kvm-map-gpa-range", "vmcall64", {"rax": 99}, "rax", EPERM_64),
]


@pytest.mark.parametrize("cpl", [1, 2, 3])
@pytest.mark.parametrize("enabled", [True, False], ids=["on", "off"])
@pytest.mark.parametrize(
    ("abi", "transport", "regs", "register", "told"), [row[1:] for row in CPL], ids=[row[0] for row in CPL]
)
def test_cpl(abi: str, transport: str, regs: dict[str, int], register: str, told: int, enabled: bool, cpl: int) -> None:
    host = host_of(abi, transport=transport, enabled=enabled)
    assert dict(host.answer(regs, cpl=cpl).regs) == {register: told}
    assert shared_of(host) == []


@pytest.mark.parametrize(
    ("abi", "transport", "regs"),
    [
        pytest.param(
            "kvm-map-gpa-range",
            "tdvmcall",
            {"rcx": 0x3C00, "r10": 12, "r11": 0x5000, "r12": 1, "r13": 0},
            id="tdvmcall-is-always-cpl-0",
        ),
        pytest.param("tdx-map-gpa", "tdcall", map_gpa(S47 | 0x5000, 0x1000), id="mapgpa"),
        pytest.param("ghcb-msr-psc", "vmgexit-msr", msr_psc(5), id="msr"),
    ],
)
def test_cpl_that_does_not_show(abi: str, transport: str, regs: dict[str, int]) -> None:
    host = host_of(abi, transport=transport)
    assert host.answer(regs, cpl=3).end == "return"
    assert shared_of(host) == [(5, 6)]


def ghcb_hypercall(host: Host, *, cpl: int = 0, valid: int | None = None, exit_code: int = 0x81, nr: int = 12) -> None:
    words = {0x1F8: nr, 0x318: 0x5000, 0x308: 1, 0x310: 0, 0x390: exit_code, 0x398: 0, 0x3A0: 0}
    for at, value in words.items():
        host.memory.poke(GHCB + at, value.to_bytes(8, "little"))
    host.memory.poke(GHCB + 0xCB, bytes([cpl]))
    # CPL is bit 25, RAX 63, RCX to RBX 97 to 99, exit code and infos 114 to 116.
    bits = 1 << 25 | 1 << 63 | 7 << 97 | 7 << 114
    host.memory.poke(GHCB + 0x3F0, (bits if valid is None else bits & ~(1 << valid)).to_bytes(16, "little"))
    host.memory.poke(GHCB + 0xFFA, (2).to_bytes(2, "little"))


def ghcb_left(host: Host) -> tuple[int, int, int]:
    return tuple(int.from_bytes(host.memory.peek(GHCB + at, 8), "little") for at in (0x398, 0x3A0, 0x1F8))  # type: ignore[return-value]  # three of them


GHCB_CALLS: list[tuple[str, dict[str, int], tuple[int, int, int]]] = [
    ("good", {}, (0, 0, 0)),
    ("cpl-3", {"cpl": 3}, (0, 0, EPERM_64)),
    ("no-rax", {"valid": 63}, (2, 4, 12)),
    ("no-cpl", {"valid": 25}, (2, 4, 12)),
    ("no-exit-code", {"valid": 114}, (2, 4, 12)),
    ("no-info1", {"valid": 115}, (2, 4, 12)),
    ("no-info2", {"valid": 116}, (2, 4, 12)),
    ("unknown-exit-code", {"exit_code": 0x8000ABCD}, (2, 6, 12)),
    ("other-number", {"nr": 99}, (0, 0, ENOSYS_64)),
]


@pytest.mark.parametrize(("change", "left"), [row[1:] for row in GHCB_CALLS], ids=[row[0] for row in GHCB_CALLS])
def test_hypercall_in_the_ghcb(change: dict[str, int], left: tuple[int, int, int]) -> None:
    host = host_of("kvm-map-gpa-range", transport="ghcb-vmmcall")
    ghcb_hypercall(host, **change)
    assert host.answer({MSR: GHCB}).end == "return"
    assert ghcb_left(host) == left
    assert shared_of(host) == ([(5, 6)] if left == (0, 0, 0) else [])


OFF: list[tuple[str, str, str, dict[str, int], dict[str, int]]] = [
    ("map-gpa", "kvm-map-gpa-range", "vmcall64", hypercall(0x5001, 0), {"rax": ENOSYS_64}),
    ("map-gpa-32", "kvm-map-gpa-range", "vmcall32", hypercall(0x5001, 0), {"rax": 0xFFFFFC18}),
    ("enc-status", "kvm-page-enc-status", "vmmcall", hypercall(0x5001, 0), {"rax": ENOSYS_64}),
    ("mapgpa", "tdx-map-gpa", "tdcall", map_gpa(0x5001, 0), {"r10": UNSUPPORTED, "r11": 0x5001}),
    ("msr", "ghcb-msr-psc", "vmgexit-msr", msr_psc(5), {MSR: PSC_ERROR}),
]


@pytest.mark.parametrize(("abi", "transport", "regs", "left"), [row[1:] for row in OFF], ids=[row[0] for row in OFF])
def test_switched_off_before_the_arguments(
    abi: str, transport: str, regs: dict[str, int], left: dict[str, int]
) -> None:
    host = host_of(abi, transport=transport, enabled=False)
    assert dict(host.answer(regs).regs) == left
    assert shared_of(host) == []


ORDER: list[tuple[str, dict[str, Any], dict[str, int], tuple[int, int]]] = [
    # not registered, usage, not SNP, valid bits, exit code, scratch, exits off, header, in this order
    ("registered-first", {"enabled": False}, {"usage": 1, "valid": 0}, (2, 1)),
    ("usage-before-snp", {"config": {"snp": 0}}, {"usage": 1}, (2, 2)),
    ("snp-before-valid-bits", {"config": {"snp": 0}}, {"valid": 0}, (2, 6)),
    ("valid-bits-before-exit-code", {}, {"valid": 0, "exit_code": 0x8000ABCD}, (2, 4)),
    ("exit-code-before-scratch", {}, {"exit_code": 0x8000ABCD, "scratch": 0}, (2, 6)),
    ("valid-scratch-before-its-value", {}, {"valid": 0x1C, "scratch": 0}, (2, 4)),
    ("scratch-before-exits-off", {"config": {"exit_hypercall": 0}}, {"scratch": 0}, (2, 3)),
    ("exits-off-before-header", {"config": {"exit_hypercall": 0}}, {"end": 0xFFFF}, GENERIC),
    ("6.12-not-snp", {"config": {"snp": 0}, "profile": "linux-kvm-6.12"}, {}, (2, 4)),
]


@pytest.mark.parametrize(("made", "change", "infos"), [row[1:] for row in ORDER], ids=[row[0] for row in ORDER])
def test_psc_order(made: dict[str, Any], change: dict[str, int], infos: tuple[int, int]) -> None:
    psc = psc_of([psc_entry(5)], **made)
    places = {"usage": (0xFFC, 4), "exit_code": (0x390, 8), "scratch": (0x3A8, 8), "end": (0x802, 2)}
    for name, value in change.items():
        if name == "valid":
            psc.put(0x3F0, value << 112, 16)
        else:
            psc.put(places[name][0], value, places[name][1])
    psc.answer()
    assert psc.infos == infos
    assert shared_of(psc.host) == []


# -- memory slots -----------------------------------------------------------------------------------------------------

SLOTS = [(0, 0x10), (0x100, 0x110), (0x110, 0x120)]

# (policy, first page, pages, to private, is refused)
ABSENT: list[tuple[str, str, int, int, int, bool]] = [
    ("allow-hole", "allow", 0x118, 16, 0, False),
    ("refuse-hole", "refuse", 0x118, 16, 0, True),
    ("refuse-hole-private", "refuse", 0x118, 16, 1, True),
    ("refuse-in-one-slot", "refuse", 0x100, 16, 0, False),
    ("refuse-across-adjacent-slots", "refuse", 0x10F, 2, 0, False),
    ("refuse-last-page", "refuse", 0x11F, 1, 0, False),
    ("refuse-behind-last", "refuse", 0x120, 1, 0, True),
    ("allow-shared-hole", "allow-shared", 0x118, 16, 0, False),
    ("allow-shared-hole-private", "allow-shared", 0x118, 16, 1, True),
    ("allow-shared-private-memory", "allow-shared", 0x118, 8, 1, False),
]


@pytest.mark.parametrize(
    ("policy", "first", "pages", "private", "refused"), [row[1:] for row in ABSENT], ids=[row[0] for row in ABSENT]
)
def test_pages_that_are_no_memory(policy: str, first: int, pages: int, private: int, refused: bool) -> None:
    before = [(first, first + pages)] if private else []
    after = before if refused or not private else []
    after = after if private or refused else [(first, first + pages)]
    made: dict[str, Any] = {"slots": SLOTS, "shared": before, "policies": {"no-memory": policy}}

    host = host_of("kvm-map-gpa-range", transport="vmcall64", **made)
    assert dict(host.answer(hypercall(first << 12, pages, private << 4)).regs) == {"rax": 22 if refused else 0}
    assert shared_of(host) == after

    host = host_of("tdx-map-gpa", **made)
    gpa = first << 12 | (0 if private else S47)
    expected = {"r10": INVALID_OPERAND, "r11": gpa} if refused else {"r10": 0}
    assert dict(host.answer(map_gpa(gpa, pages << 12)).regs) == expected
    assert shared_of(host) == after

    psc = psc_of([psc_entry(first + n, 1 if private else 2) for n in range(pages)], **made)
    ask_all(psc.host, psc.regs)
    assert (psc.infos, psc.cur) == ((GENERIC, 0) if refused else (OK, pages))
    assert shared_of(psc.host) == after


def test_msr_page_that_is_no_memory() -> None:
    for policy, operation, told in (
        ("refuse", 2, PSC_ERROR),
        ("allow-shared", 1, PSC_ERROR),
        ("allow-shared", 2, 0x15),
    ):
        host = host_of("ghcb-msr-psc", slots=SLOTS, policies={"no-memory": policy})
        assert dict(host.answer(msr_psc(0x200, operation)).regs) == {MSR: told}


def test_psc_goes_as_far_as_the_hole() -> None:
    entries = [psc_entry(page) for page in (0x100, 0x102, 0x200, 0x104)]
    psc = psc_of(entries, slots=SLOTS, policies={"no-memory": "refuse"})
    psc.answer()
    assert (psc.infos, psc.cur) == (GENERIC, 2)
    assert shared_of(psc.host) == [(0x100, 0x101), (0x102, 0x103)]
    assert [psc.word(n) for n in range(4)] == [entries[0] | 1, entries[1] | 1, entries[2], entries[3]]


def test_mapgpa_goes_as_far_as_the_chunk_with_the_hole() -> None:
    slots = [(0, 0x10), (0x1001, 0x1201), (0x1300, 0x2000)]
    host = host_of("tdx-map-gpa", slots=slots, policies={"no-memory": "refuse"})
    answer = host.answer(map_gpa(S47 | 0x1001000, 0x600000))
    # Chunks are counted from the start address, not from a multiple of 2 MiB.
    assert dict(answer.regs) == {"r10": INVALID_OPERAND, "r11": S47 | 0x1201000}
    assert shared_of(host) == [(0x1001, 0x1201)]


@pytest.mark.parametrize("gpa", [0, 0x20000, 0xFFFFFFFFFFFFF000], ids=["zero", "no-memory", "last-page"])
def test_ghcb_that_cannot_be_mapped_resumes_the_guest(gpa: int) -> None:
    host = host_of("ghcb-psc", slots=SLOTS)
    answer = host.answer({MSR: gpa})
    assert (answer.end, dict(answer.regs), answer.mem) == ("return", {}, ())


# -- the bound on ranges ----------------------------------------------------------------------------------------------

FULL = [(0x100, 0x101), (0x102, 0x103), (0x104, 0x106)]


@dataclass(frozen=True)
class Bounded:
    """How an ABI asks for one page, and what it answers at the bound and otherwise."""

    abi: str
    spec: dict[str, Any]
    limit: dict[str, int]
    good: dict[str, int]

    def regs(self, page: int, to: PageState) -> dict[str, int]:
        private = to is PRIVATE
        if self.abi == "tdx-map-gpa":
            return map_gpa(page << 12 | (0 if private else S47), 0x1000)
        if self.abi == "ghcb-msr-psc":
            return msr_psc(page, 1 if private else 2)
        if self.abi == "kvm-page-enc-status":
            return hypercall(page << 12, 1, int(private))
        return hypercall(page << 12, 1, private << 4)


BOUNDED = [
    Bounded("kvm-map-gpa-range", {"transport": "vmcall64"}, {"rax": 22}, {"rax": 0}),
    Bounded("kvm-map-gpa-range", {"transport": "vmcall64", "profile": "openvmm"}, {"rax": 1}, {"rax": 0}),
    Bounded("kvm-page-enc-status", {"revision": "v10"}, {"rax": 2**64 - 12}, {"rax": 0}),
    Bounded("ghcb-msr-psc", {}, {MSR: PSC_ERROR}, {MSR: 0x15}),
    Bounded("tdx-map-gpa", {}, {"r10": INVALID_OPERAND, "r11": S47 | 0x108000}, {"r10": 0}),
]


@pytest.mark.parametrize("case", BOUNDED, ids=lambda case: "-".join([case.abi, *case.spec.values()]))
def test_at_the_bound(case: Bounded) -> None:
    host = host_of(case.abi, shared=FULL, max_ranges=3, **case.spec)
    assert dict(host.answer(case.regs(0x108, SHARED)).regs) == case.limit
    assert shared_of(host) == FULL
    # What adds no range passes: growing, joining, what is shared already, and private without a cut.
    assert dict(host.answer(case.regs(0x105, SHARED)).regs) == case.good
    assert dict(host.answer(case.regs(0x106, SHARED)).regs) == case.good
    assert dict(host.answer(case.regs(0x101, SHARED)).regs) == case.good
    assert shared_of(host) == [(0x100, 0x103), (0x104, 0x107)]
    assert dict(host.answer(case.regs(0x108, SHARED)).regs) == case.good
    # A cut in the middle adds one.
    refused = dict(host.answer(case.regs(0x105, PRIVATE)).regs)
    assert refused == {**case.limit, **({"r11": 0x105000} if "r11" in case.limit else {})}
    assert shared_of(host) == [(0x100, 0x103), (0x104, 0x107), (0x108, 0x109)]
    assert dict(host.answer(case.regs(0x104, PRIVATE)).regs) == case.good
    assert dict(host.answer(case.regs(0x108, PRIVATE)).regs) == case.good
    assert dict(host.answer(case.regs(0x101, PRIVATE)).regs) == case.good
    assert shared_of(host) == [(0x100, 0x101), (0x102, 0x103), (0x105, 0x107)]


def test_psc_at_the_bound_stops_at_the_entry() -> None:
    entries = [psc_entry(page) for page in (0x106, 0x101, 0x108, 0x10A, 0x107)]
    psc = psc_of(entries, shared=FULL, max_ranges=3)
    psc.answer()
    # 0x106 grows a range, 0x101 joins two, 0x108 takes the free place, 0x10a would be one too many.
    assert (psc.infos, psc.cur) == (GENERIC, 3)
    assert shared_of(psc.host) == [(0x100, 0x103), (0x104, 0x107), (0x108, 0x109)]
    assert [psc.word(n) & 0xFFF for n in range(5)] == [1, 1, 1, 0, 0]
    psc.request([psc_entry(page, 1) for page in (0x100, 0x108, 0x104)])
    psc.answer()
    assert (psc.infos, psc.cur) == (OK, 3)


def test_alternate_pages_end_at_the_bound() -> None:
    host = host_of("ghcb-msr-psc", max_ranges=8)
    told = [host.answer(msr_psc(page)).regs[MSR] for page in range(0x100, 0x200, 2)]
    assert told == [0x15] * 8 + [PSC_ERROR] * 120
    assert len(shared_of(host)) == 8
    assert [host.answer(msr_psc(page, 1)).regs[MSR] for page in range(0x100, 0x200, 2)] == [0x15] * 128


# -- stopping anywhere ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", [SHARED, PRIVATE], ids=["shared", "private"])
@pytest.mark.parametrize("stop", range(7))
def test_mapgpa_stopped_after_any_page(stop: int, to: PageState) -> None:
    first, pages = 0x1FE, 6
    host = host_of("tdx-map-gpa", shared=[(first - 1, first + pages + 1)] if to is PRIVATE else [])
    gpa = first << 12 | (S47 if to is SHARED else 0)
    answer = host.answer(map_gpa(gpa, pages << 12), inject=Injection(stop_after=stop))
    if stop < pages:
        assert dict(answer.regs) == {"r10": 1, "r11": gpa + (stop << 12)}
        done = set(range(first, first + stop))
        others = {first - 1, *range(first + stop, first + pages + 1)}
        assert pages_of(host) == (done if to is SHARED else others)
        answer = host.answer(map_gpa(answer.regs["r11"], (pages - stop) << 12))
    assert dict(answer.regs) == {"r10": 0}
    assert shared_of(host) == (
        [(first, first + pages)] if to is SHARED else [(first - 1, first), (first + pages, first + pages + 1)]
    )


PSC_LIST = [psc_entry(0x3FE), psc_entry(0x3FF), psc_entry(0x400, 2, 1), psc_entry(0x700), psc_entry(0x600)]
PSC_PAGES = [0x3FE, 0x3FF, *range(0x400, 0x600), 0x700, 0x600]


@pytest.mark.parametrize("stop", [*range(6), 100, 256, 257, 258, *range(510, 519)])
def test_psc_stopped_after_any_page(stop: int) -> None:
    psc = psc_of(PSC_LIST)
    psc.answer(inject=Injection(stop_after=stop))
    assert pages_of(psc.host) == set(PSC_PAGES[:stop])
    counts = [1, 1, 512, 1, 1]
    assert psc.infos == OK
    reported = sum(counts[: psc.cur]) + (psc.word(psc.cur) & 0xFFF if psc.cur < 5 else 0)
    assert reported == min(stop, len(PSC_PAGES))
    assert [psc.word(n) & ~0xFFF for n in range(5)] == PSC_LIST
    if psc.cur < 5:
        psc.again()
        psc.answer()
    assert (psc.infos, psc.cur) == (OK, 5)
    assert shared_of(psc.host) == [(0x3FE, 0x601), (0x700, 0x701)]
    assert [psc.word(n) & 0xFFF for n in range(5)] == counts


def test_psc_one_page_at_a_time_to_the_end() -> None:
    psc = psc_of(PSC_LIST)
    calls = 0
    while psc.cur < 5:
        psc.again()
        psc.answer(inject=Injection(stop_after=1))
        calls += 1
        assert psc.infos == OK
        assert sum(end - start for start, end in shared_of(psc.host)) == calls
    assert calls == len(PSC_PAGES)


@pytest.mark.parametrize(
    ("after", "told", "done"),
    [
        pytest.param(1, {"r10": 1, "r11": S47 | 0x1201000}, 512, id="1"),
        pytest.param(2, {"r10": 1, "r11": S47 | 0x1401000}, 1024, id="2"),
        pytest.param(3, {"r10": 1, "r11": S47 | 0x1601000}, 1536, id="3"),
        pytest.param(4, {"r10": 0}, 1537, id="last-is-not-looked-behind"),
        pytest.param(9, {"r10": 0}, 1537, id="9"),
    ],
)
def test_mapgpa_with_an_event(after: int, told: dict[str, int], done: int) -> None:
    host = host_of("tdx-map-gpa")
    request = map_gpa(S47 | 0x1001000, 1537 << 12)
    answer = host.answer(request, inject=Injection(event_after=after))
    assert dict(answer.regs) == told
    assert shared_of(host) == [(0x1001, 0x1001 + done)]
    if told["r10"]:
        rest = request["r12"] + request["r13"] - told["r11"]
        assert dict(host.answer(map_gpa(told["r11"], rest)).regs) == {"r10": 0}
    assert shared_of(host) == [(0x1001, 0x1001 + 1537)]


def test_mapgpa_of_half_the_address_space_takes_no_time() -> None:
    host = host_of("tdx-map-gpa", config={"gpaw": 52})
    for inject in (Injection(), Injection(event_after=2**40), Injection(stop_after=2**39)):
        assert dict(host.answer(map_gpa(1 << 51, 1 << 51), inject=inject).regs) == {"r10": 0}
        assert shared_of(host) == [(0, 1 << 39)]
    answer = host.answer(map_gpa(0, 1 << 51), inject=Injection(event_after=2**29))
    assert dict(answer.regs) == {"r10": 1, "r11": 1 << 50}
    assert shared_of(host) == [(1 << 38, 1 << 39)]
    slots = [(0, 1 << 38), ((1 << 38) + 1, 1 << 39)]
    host = host_of("tdx-map-gpa", config={"gpaw": 52}, slots=slots, policies={"no-memory": "refuse"})
    answer = host.answer(map_gpa(1 << 51, 1 << 51))
    assert dict(answer.regs) == {"r10": INVALID_OPERAND, "r11": 1 << 51 | 1 << 50}
    assert shared_of(host) == [(0, 1 << 38)]


def test_mapgpa_that_adds_no_range_passes_at_the_bound() -> None:
    # The first 2 MiB alone would be one range more; the whole call joins them.
    host = host_of("tdx-map-gpa", shared=[(0x1300, 0x1310)], max_ranges=1)
    assert dict(host.answer(map_gpa(S47 | 0x1000000, 0x400000)).regs) == {"r10": 0}
    assert shared_of(host) == [(0x1000, 0x1400)]


# -- what the VMM's errno becomes -------------------------------------------------------------------------------------

Left = dict[str, int] | None  # None: the vCPU cannot be run on

COPIED: dict[int, Left] = {22: {"rax": 22}, 11: {"rax": 11}, 5: {"rax": 5}, 7: {"rax": 7}}
MATRIX: list[tuple[str, str, str, str, dict[str, int], dict[int, Left]]] = [
    *[
        ("raw", profile, "kvm-map-gpa-range", "vmcall64", hypercall(0x5000, 1), COPIED)
        for profile in ("linux-kvm-6.1", "linux-kvm-6.12", "linux-kvm-6.18", "linux-kvm-7.3")
    ],
    (
        "raw-32",
        "linux-kvm-7.3",
        "kvm-map-gpa-range",
        "vmcall32",
        hypercall(0x5000, 1),
        {22: {"rax": 22}, 11: {"rax": 11}},
    ),
    (
        "raw-td",
        "linux-kvm-7.3",
        "kvm-map-gpa-range",
        "tdvmcall",
        {"rcx": 0x3C00, "r10": 12, "r11": 0x5000, "r12": 1},
        {22: {"r10": 22}, 11: {"r10": 11}, 5: {"r10": 5}},
    ),
    *[
        (
            "msr",
            profile,
            "ghcb-msr-psc",
            "vmgexit-msr",
            msr_psc(5),
            {22: {MSR: PSC_ERROR}, 11: {MSR: PSC_ERROR}, **rest},
        )
        for profile, rest in (
            ("linux-kvm-6.12", {5: {MSR: PSC_ERROR}, 7: {MSR: PSC_ERROR}, 1: {MSR: PSC_ERROR}}),
            ("linux-kvm-7.3", {5: None, 7: None, 1: None}),
        )
    ],
    (
        "mapgpa",
        "linux-kvm-6.16",
        "tdx-map-gpa",
        "tdcall",
        map_gpa(S47 | 0x5000, 0x1000),
        {e: {"r10": INVALID_OPERAND, "r11": S47 | 0x5000} for e in (22, 11, 5, 7, 1)},
    ),
    (
        "mapgpa",
        "linux-kvm-7.3",
        "tdx-map-gpa",
        "tdcall",
        map_gpa(S47 | 0x5000, 0x1000),
        {
            22: {"r10": INVALID_OPERAND, "r11": S47 | 0x5000},
            11: {"r10": 1, "r11": S47 | 0x5000},
            5: None,
            7: None,
            1: None,
        },
    ),
]


@pytest.mark.parametrize("by", ["injection", "exit"])
@pytest.mark.parametrize(
    ("profile", "abi", "transport", "regs", "answers"),
    [row[1:] for row in MATRIX],
    ids=[f"{row[0]}-{row[1]}" for row in MATRIX],
)
def test_errno_of_the_vmm(
    profile: str, abi: str, transport: str, regs: dict[str, int], answers: dict[int, Left], by: str
) -> None:
    for errno, left in answers.items():
        host = host_of(abi, transport=transport, profile=profile)
        if by == "injection":
            answer = host.answer(regs, inject=Injection(vmm_errno=errno))
        else:
            answer, asked = ask_all(host, regs, [errno])
            assert len(asked) == 1
        if left is None:
            assert (answer.end, answer.mem) == ("stop", ())
            assert answer.reason
        else:
            assert (answer.end, dict(answer.regs)) == ("return", left)
        assert shared_of(host) == []


PSC_MATRIX = [
    ("linux-kvm-6.12", {22: GENERIC, 11: GENERIC, 5: GENERIC, 7: GENERIC, 1: GENERIC}),
    ("linux-kvm-7.3", {22: GENERIC, 11: GENERIC, 5: None, 7: None, 1: None}),
    ("spec", {22: GENERIC, 11: GENERIC}),
]


@pytest.mark.parametrize(("profile", "answers"), PSC_MATRIX, ids=[row[0] for row in PSC_MATRIX])
def test_errno_of_the_vmm_in_psc(profile: str, answers: dict[int, tuple[int, int] | None]) -> None:
    for errno, infos in answers.items():
        # The first two are one exit, the third another; that one is refused.
        entries = [psc_entry(5), psc_entry(6), psc_entry(9), psc_entry(20)]
        psc = psc_of(entries, profile=profile)
        answer, asked = ask_all(psc.host, psc.regs, [0, errno])
        assert asked == [(0x5000, 2, 0), (0x9000, 1, 0)]
        assert shared_of(psc.host) == [(5, 7)]
        if infos is None:
            assert answer.end == "stop"
        else:
            assert (answer.end, psc.infos, psc.cur) == ("return", infos, 2)
            assert [psc.word(n) & 0xFFF for n in range(4)] == [1, 1, 0, 0]


def test_raw_hypercall_shows_all_of_ret_or_its_low_half() -> None:
    for transport, told in (("vmcall64", 0xAB_0000_0016), ("vmcall32", 0x16)):
        host = host_of("kvm-map-gpa-range", transport=transport)
        answer, _ = ask_all(host, hypercall(0x5000, 1), [0xAB_0000_0016])
        assert dict(answer.regs) == {"rax": told}


def test_mapgpa_errno_in_the_second_chunk() -> None:
    for profile, errno, status in (
        ("linux-kvm-7.3", 11, 1),
        ("linux-kvm-7.3", 22, INVALID_OPERAND),
        ("linux-kvm-6.16", 11, INVALID_OPERAND),
    ):
        host = host_of("tdx-map-gpa", profile=profile)
        answer, asked = ask_all(host, map_gpa(S47 | 0x1001000, 0x600000), [0, errno])
        assert asked == [(0x1001000, 512, 0), (0x1201000, 512, 0)]
        assert dict(answer.regs) == {"r10": status, "r11": S47 | 0x1201000}
        assert shared_of(host) == [(0x1001, 0x1201)]


# -- exits ------------------------------------------------------------------------------------------------------------

MERGES: list[tuple[str, list[int], list[tuple[int, int, int]]]] = [
    ("adjacent", [psc_entry(5, 1), psc_entry(6, 1), psc_entry(7, 1)], [(0x5000, 3, 0x10)]),
    ("operation", [psc_entry(5, 1), psc_entry(6, 2)], [(0x5000, 1, 0x10), (0x6000, 1, 0)]),
    ("gap", [psc_entry(5), psc_entry(7)], [(0x5000, 1, 0), (0x7000, 1, 0)]),
    ("descending", [psc_entry(6), psc_entry(5)], [(0x6000, 1, 0), (0x5000, 1, 0)]),
    ("same-page", [psc_entry(5), psc_entry(5)], [(0x5000, 1, 0), (0x5000, 1, 0)]),
    ("size", [psc_entry(0x3FF), psc_entry(0x400, 2, 1), psc_entry(0x600)],
     [(0x3FF000, 1, 0), (0x400000, 512, 1), (0x600000, 1, 0)]),
    ("large", [psc_entry(0x400, 1, 1), psc_entry(0x600, 1, 1)], [(0x400000, 1024, 0x11)]),
    ("finished-entry-splits", [psc_entry(5), psc_entry(6, 2, 0, 1), psc_entry(7)], [(0x5000, 1, 0), (0x7000, 1, 0)]),
    ("partly-done-does-not-join", [psc_entry(0x400, 2, 1), psc_entry(0x600, 2, 1, 8)],
     [(0x400000, 512, 1), (0x608000, 504, 1)]),
    ("psmash-splits", [psc_entry(5), psc_entry(6, 3), psc_entry(7)], [(0x5000, 1, 0), (0x7000, 1, 0)]),
    ("unsmash-large", [psc_entry(0x400, 4, 1)], []),
    ("unknown-operation", [psc_entry(5, 0), psc_entry(6, 15)], []),
    ("two-groups", [psc_entry(5), psc_entry(6), psc_entry(20), psc_entry(21)], [(0x5000, 2, 0), (0x14000, 2, 0)]),
    ("up-to-the-bad-one", [psc_entry(5), psc_entry(6), psc_entry(0x401, 2, 1), psc_entry(7)], [(0x5000, 2, 0)]),
    ("all-253", [psc_entry(0x100 + n) for n in range(253)], [(0x100000, 253, 0)]),
]  # fmt: skip


@pytest.mark.parametrize(("entries", "exits"), [row[1:] for row in MERGES], ids=[row[0] for row in MERGES])
def test_psc_exits(entries: list[int], exits: list[tuple[int, int, int]]) -> None:
    psc = psc_of(entries)
    _, asked = ask_all(psc.host, psc.regs)
    assert asked == exits
    bad = next((n for n, word in enumerate(entries) if word >> 56 & 1 and word >> 12 & 0x1FF), None)
    assert (psc.infos, psc.cur) == ((OK, len(entries)) if bad is None else (ENTRY, bad))
    sizes = [512 if word >> 56 & 1 else 1 for word in entries]
    done = sizes if bad is None else [*sizes[:bad], *[0] * (len(sizes) - bad)]
    assert [psc.word(n) & 0xFFF for n in range(len(entries))] == done


def test_psc_refused_batch_is_undone_as_a_whole() -> None:
    psc = psc_of([psc_entry(1), psc_entry(5), psc_entry(6), psc_entry(7)])
    _, asked = ask_all(psc.host, psc.regs, [0, 22])
    assert asked == [(0x1000, 1, 0), (0x5000, 3, 0)]
    assert (psc.infos, psc.cur) == (GENERIC, 1)
    assert shared_of(psc.host) == [(1, 2)]


CHUNKS: list[tuple[str, int, int, list[tuple[int, int, int]]]] = [
    ("one-page", S47 | 0x100001000, 0x1000, [(0x100001000, 1, 0)]),
    ("2m-unaligned", 0x100001000, 0x200000, [(0x100001000, 512, 0x10)]),
    ("2m-and-a-page", 0x100000000, 0x201000, [(0x100000000, 512, 0x10), (0x100200000, 1, 0x10)]),
    ("three", S47 | 0x1000, 0x5FF000, [(0x1000, 512, 0), (0x201000, 512, 0), (0x401000, 511, 0)]),
]


@pytest.mark.parametrize(("gpa", "size", "exits"), [row[1:] for row in CHUNKS], ids=[row[0] for row in CHUNKS])
def test_mapgpa_exits(gpa: int, size: int, exits: list[tuple[int, int, int]]) -> None:
    _, asked = ask_all(host_of("tdx-map-gpa"), map_gpa(gpa, size))
    assert asked == exits


PASSED: list[tuple[str, str, dict[str, int], list[tuple[int, int, int]], int]] = [
    ("attributes-raw", "vmcall64", hypercall(0x5000, 1, 0xFFFFFFFFFFFFFFEF), [(0x5000, 1, 0xFFFFFFFFFFFFFFEF)], 0),
    ("low-halves", "vmcall32", {"rax": 12, "rbx": 0xA_00005000, "rcx": 0xB_00000002, "rdx": 0xC_00000010},
     [(0x5000, 2, 0x10)], 0),
    ("not-aligned", "vmcall64", hypercall(0x5001, 1), [], EINVAL_64),
    ("no-pages", "vmcall64", hypercall(0x5000, 0), [], EINVAL_64),
    ("wrap", "vmcall64", hypercall(0xFFFFFFFFFFFFF000, 0xFFF0000000000001), [], EINVAL_64),
    ("all-pages", "vmcall64", hypercall(0x1000, 2**64 - 1), [], EINVAL_64),
]  # fmt: skip


@pytest.mark.parametrize(
    ("transport", "regs", "exits", "rax"), [row[1:] for row in PASSED], ids=[row[0] for row in PASSED]
)
def test_hypercall_exits(transport: str, regs: dict[str, int], exits: list[tuple[int, int, int]], rax: int) -> None:
    answer, asked = ask_all(host_of("kvm-map-gpa-range", transport=transport), regs)
    assert asked == exits
    assert dict(answer.regs) == {"rax": rax}


def test_range_past_2_64_bytes_goes_to_the_vmm_unchanged() -> None:
    """K17's companion: the frame numbers do not wrap, so KVM passes it on; the VMM must refuse it itself."""
    host = host_of("kvm-map-gpa-range", profile="linux-kvm-7.3")
    answer, asked = ask_all(host, hypercall(0xFFFFFFFFFFFFF000, 2), [22])
    assert asked == [(0xFFFFFFFFFFFFF000, 2, 0)]
    assert dict(answer.regs) == {"rax": 22}
    assert shared_of(host) == []


# -- memory that changes between reads --------------------------------------------------------------------------------

# What is flipped behind the first read: header at 0x800, entries at 0x808 and 0x810, GHCB fields.
FLIPS: list[tuple[str, list[tuple[int, str]]]] = [
    ("end-entry", [(0x802, "ffff")]),
    ("cur-entry", [(0x800, "ffff")]),
    ("header", [(0x800, "ffffffffffffffff")]),
    ("gfn", [(0x808, "00f0ff0000002000")]),
    ("operation", [(0x80E, "10")]),
    ("page-size", [(0x80F, "01"), (0x817, "01")]),
    ("cur-page", [(0x808, "ff0f")]),
    ("all-entries", [(0x808, "ff" * 16)]),
    ("exit-code", [(0x390, "0304000000000000")]),
    ("scratch", [(0x3A8, "0000000000000000")]),
    ("valid-bitmap", [(0x3F0, "00" * 16)]),
    ("usage", [(0xFFC, "01000000")]),
    ("everything", [(0x390, "ff" * 32), (0x3F0, "ff" * 16), (0x800, "ff" * 24)]),
]


@pytest.mark.parametrize("flips", [row[1] for row in FLIPS], ids=[row[0] for row in FLIPS])
@pytest.mark.parametrize(
    "entries", [[psc_entry(5), psc_entry(9)], [psc_entry(5), psc_entry(6)]], ids=["apart", "merged"]
)
def test_psc_reads_each_byte_once(flips: list[tuple[int, str]], entries: list[int]) -> None:
    psc = psc_of(entries)
    call = psc.host.call(
        psc.regs, exits=True, inject=Injection(flips=tuple((GHCB + at, bytes.fromhex(text)) for at, text in flips))
    )
    asked = []
    try:
        shown = next(call)
        while True:
            asked.append(int.from_bytes(shown.mem[0][1][40:48], "little") >> 12)
            shown = call.send(VmmReply())
    except StopIteration as end:
        answer: HostAnswer = end.value
    assert answer.end == "return"
    assert asked == ([5] if entries[1] == psc_entry(6) else [5, 9])
    assert pages_of(psc.host) == {5, 6 if entries[1] == psc_entry(6) else 9}
    # What the host writes back is made of what it read first.
    written = dict(answer.mem)
    image = bytearray(4096)
    mask = bytearray(4096)
    for start, data in written.items():
        image[start - GHCB : start - GHCB + len(data)] = data
        mask[start - GHCB : start - GHCB + len(data)] = b"\1" * len(data)
    assert bytes(image[0x398:0x3A8]) == bytes(16)
    assert int.from_bytes(image[0x800:0x802], "little") == 2
    assert [int.from_bytes(image[at : at + 8], "little") for at in (0x808, 0x810)] == [word | 1 for word in entries]
    # end_entry and the reserved half are the guest's.
    assert not any(mask[0x802:0x808])
    assert max(psc.host.memory.reads_of(GHCB + at) for at in range(4096)) == 1


def test_flips_reach_the_memory() -> None:
    psc = psc_of([psc_entry(5)])
    psc.answer(inject=Injection(flips=((GHCB + 0x802, b"\xff\xff"),)))
    assert psc.get(0x802, 2) == 0xFFFF


@pytest.mark.parametrize("scratch", [0x9000, GHCB - 8, 0], ids=["other-page", "before", "zero"])
def test_psc_never_reads_a_structure_outside(scratch: int) -> None:
    psc = psc_of([psc_entry(5)])
    psc.put(0x3A8, scratch)
    psc.put(0x3A0, 24)
    psc.host.memory.poke(0x9000, bytes.fromhex("00000a0000000000") + psc_entry(5).to_bytes(8, "little") * 11)
    before = psc.host.memory.peek(0x9000, 0x100)
    psc.answer()
    assert psc.infos == (2, 3)
    assert sum(psc.host.memory.reads_of(gpa) for gpa in (*range(0x9000, 0x9100), *range(GHCB - 8, GHCB))) == 0
    assert psc.host.memory.peek(0x9000, 0x100) == before


READS: list[tuple[str, str, str | None]] = [
    ("psc", "ghcb-psc", None),
    ("ghcb-hypercall", "kvm-map-gpa-range", "ghcb-vmmcall"),
    ("attributes", "kvm-memory-attributes", None),
    ("exit", "kvm-exit-hypercall", None),
]


@pytest.mark.parametrize(("abi", "transport"), [row[1:] for row in READS], ids=[row[0] for row in READS])
def test_no_byte_is_read_twice(abi: str, transport: str | None) -> None:
    host = host_of(abi, transport=transport)
    regs, base = {MSR: GHCB}, GHCB
    if abi == "ghcb-psc":
        Psc(host).request([psc_entry(0x100 + 2 * n) for n in range(253)])
    elif abi == "kvm-map-gpa-range":
        ghcb_hypercall(host)
    elif abi == "kvm-memory-attributes":
        host.memory.poke(GHCB, bytes.fromhex("00500000000000000010000000000000" + "00" * 16))
        regs = {"cmd": 0x4020AED2, "arg": GHCB}
    else:
        base = 0
        host.memory.poke(8, bytes.fromhex("03000000"))
        host.memory.poke(32, bytes.fromhex("0c0000000000000000500000000000000100000000000000"))
    assert host.answer(regs).end == "return"
    assert shared_of(host)
    assert {host.memory.reads_of(base + at) for at in range(4096)} == {0, 1}


def test_psc_with_a_second_vcpu_that_scribbles() -> None:
    """K5 with real threads: whatever the other vCPU writes, only pages of the two lists are ever named."""
    psc = psc_of([psc_entry(0x400, 2, 1), psc_entry(0x700)])
    stop = threading.Event()
    words = [psc_entry(0x400, 2, 1), psc_entry(0x401, 2, 0), psc_entry(0x400, 1, 1)]

    def scribble() -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            psc.put(0x808, words[turn % 3])
            psc.put(0x802, (1, 0, 0xFFFF)[turn % 3], 2)

    other = threading.Thread(target=scribble)
    other.start()
    try:
        for _ in range(300):
            psc.put(0x390, 0x80000010)
            psc.put(0x3F0, 0x3C << 112, 16)
            psc.put(0x800, 0, 2)
            answer = psc.answer()
            assert answer.end == "return"
            assert psc.infos in (OK, HDR, ENTRY)
            for start, end in shared_of(psc.host):
                assert all(0x400 <= page < 0x600 or page == 0x700 for page in (start, end - 1))
            # A 4 KiB entry is never marked with 512 pages.
            for _, data in answer.mem:
                if len(data) == 8 and data[7] & 1 == 0 and data[6]:
                    assert int.from_bytes(data, "little") & 0xFFF <= 1
    finally:
        stop.set()
        other.join()


# -- SW_SCRATCH and the header ----------------------------------------------------------------------------------------

# id, offset of the structure or a whole address, cur_entry, end_entry, SW_EXITINFO2 sent, infos, cur_entry left
SCRATCH: list[tuple[str, int | None, int | None, int, int, int, tuple[int, int], int | None]] = [
    ("K1-outside", None, 0x9000, 0, 10, 24, (2, 3), None),
    ("K2-0xfe8-end-0", 0xFE8, None, 0, 0, 0, HDR, 0),
    ("K2-0xc00-end-200", 0xC00, None, 0, 200, 0, HDR, 0),
    ("K2-0xc00-end-125", 0xC00, None, 0, 125, 0, HDR, 0),
    ("K2-0xc00-end-124", 0xC00, None, 0, 124, 0, OK, 125),
    ("K3-exit-info2-8", 0xC00, None, 0, 200, 8, HDR, 0),
    ("K4-exit-info2-0x2000", 0x800, None, 0, 3, 0x2000, OK, 4),
    ("K4-exit-info2-all-ones", 0x800, None, 0, 3, 2**64 - 1, OK, 4),
    ("K6-exit-info2-0", 0x800, None, 0, 3, 0, OK, 4),
    ("K8-wraps", None, 2**64 - 8, 0, 0, 0, (2, 3), None),
    ("K8-last-byte", None, 2**64 - 1, 0, 0, 0, (2, 3), None),
    ("zero", None, 0, 0, 0, 0, (2, 3), None),
    ("page-start", 0, None, 0, 0, 0, (2, 3), None),
    ("before-the-buffer", 0x7F8, None, 0, 0, 0, (2, 3), None),
    ("one-byte-before", 0x7FF, None, 0, 0, 0, (2, 3), None),
    ("0x800-252", 0x800, None, 0, 252, 0, OK, 253),
    ("0x800-253", 0x800, None, 0, 253, 0, HDR, 0),
    ("0x801-251", 0x801, None, 0, 251, 0, OK, 252),
    ("0x801-252", 0x801, None, 0, 252, 0, HDR, 0),
    ("0x808-251", 0x808, None, 0, 251, 0, OK, 252),
    ("0x808-252", 0x808, None, 0, 252, 0, HDR, 0),
    ("0xfdf-0", 0xFDF, None, 0, 0, 0, OK, 1),
    ("0xfe0-0", 0xFE0, None, 0, 0, 0, OK, 1),
    ("0xfe0-1", 0xFE0, None, 0, 1, 0, HDR, 0),
    ("0xfe1-0", 0xFE1, None, 0, 0, 0, HDR, 0),
    ("0xfe9", 0xFE9, None, 0, 0, 0, (2, 3), None),
    ("0xff0", 0xFF0, None, 0, 0, 0, (2, 3), None),
    ("0xff8", 0xFF8, None, 0, 0, 0, (2, 3), None),
    ("next-page", None, GHCB + 0x1000, 0, 0, 0, (2, 3), None),
    ("end-ffff", 0x800, None, 0, 0xFFFF, 0, HDR, 0),
    # INVALID_HDR is tested before cur_entry is compared with end_entry.
    ("K13-bad-end-and-cur-past-it", 0x800, None, 300, 253, 0, HDR, 300),
    ("K13-cur-past-end", 0x800, None, 3, 2, 0, OK, 3),
    ("K13-cur-ffff", 0x800, None, 0xFFFF, 2, 0, OK, 0xFFFF),
    ("K13-cur-past-end-no-room", 0xFE8, None, 1, 0, 0, HDR, 1),
]


@pytest.mark.parametrize(
    ("offset", "scratch", "cur", "end", "info2", "infos", "left"),
    [row[1:] for row in SCRATCH],
    ids=[row[0] for row in SCRATCH],
)
def test_scratch_and_header(
    offset: int | None,
    scratch: int | None,
    cur: int,
    end: int,
    info2: int,
    infos: tuple[int, int],
    left: int | None,
) -> None:
    psc = Psc(host_of("ghcb-psc"))
    psc.request([], end=0)
    at = GHCB + offset if offset is not None else scratch
    assert at is not None
    psc.put(0x3A8, at)
    psc.put(0x3A0, info2)
    entries = [psc_entry(0x100 + n) for n in range(min(end, 252) + 1)]
    body = cur.to_bytes(2, "little") + end.to_bytes(2, "little") + bytes(4)
    body += b"".join(word.to_bytes(8, "little") for word in entries)
    room = max(GHCB + 0xFF0 - at, 8) if GHCB <= at < GHCB + 0x1000 else 0x1000
    # Behind the buffer lie entries too, for a host that reads too far.
    if at + len(body) < 1 << 64 and (offset is None or 0x800 <= offset <= 0xFE8):
        psc.host.memory.poke(at, body[:room])
        psc.host.memory.poke(GHCB + 0x1000, psc_entry(0xBAD).to_bytes(8, "little") * 512)
    psc.answer()
    assert psc.infos == infos
    done = infos == OK and cur <= end
    assert shared_of(psc.host) == ([(0x100 + cur, 0x100 + end + 1)] if done else [])
    if left is not None:
        assert int.from_bytes(psc.host.memory.peek(at, 2), "little") == left
    assert psc.host.memory.peek(GHCB + 0x1000, 8) in (bytes(8), psc_entry(0xBAD).to_bytes(8, "little"))
    # Nothing behind the buffer or in the next page was read.
    assert not any(psc.host.memory.reads_of(GHCB + far) for far in range(0xFF0, 0xFFA))
    assert not any(psc.host.memory.reads_of(GHCB + far) for far in range(0x1000, 0x2000))


# K13: which entry is refused and what is done before it
BAD: list[tuple[str, list[int], tuple[int, int], int, list[tuple[int, int]]]] = [
    ("cur-page-1-of-1-is-skipped", [psc_entry(5, 2, 0, 1), psc_entry(9)], OK, 2, [(9, 10)]),
    ("cur-page-2-of-1", [psc_entry(5), psc_entry(6, 2, 0, 2), psc_entry(9)], ENTRY, 1, [(5, 6)]),
    ("cur-page-4095-of-1", [psc_entry(6, 2, 0, 0xFFF)], ENTRY, 0, []),
    ("cur-page-512-is-skipped", [psc_entry(0x400, 2, 1, 512), psc_entry(9)], OK, 2, [(9, 10)]),
    ("cur-page-513", [psc_entry(9), psc_entry(0x400, 2, 1, 513)], ENTRY, 1, [(9, 10)]),
    ("cur-page-511", [psc_entry(0x400, 2, 1, 511)], OK, 1, [(0x5FF, 0x600)]),
    ("2m-unaligned", [psc_entry(9), psc_entry(0x401, 2, 1)], ENTRY, 1, [(9, 10)]),
    ("2m-off-by-256", [psc_entry(0x500, 2, 1)], ENTRY, 0, []),
    ("2m-unaligned-and-complete", [psc_entry(0x401, 2, 1, 512)], ENTRY, 0, []),
    ("2m-unaligned-psmash", [psc_entry(0x401, 3, 1)], ENTRY, 0, []),
    ("first-is-bad", [psc_entry(0x401, 2, 1), psc_entry(9)], ENTRY, 0, []),
    ("op-0", [psc_entry(5, 0)], OK, 1, []),
    ("op-5", [psc_entry(5, 5), psc_entry(6)], OK, 2, [(6, 7)]),
    ("op-15", [psc_entry(5, 15)], OK, 1, []),
    ("psmash", [psc_entry(5, 3), psc_entry(0x400, 4, 1)], OK, 2, []),
]


@pytest.mark.parametrize(("entries", "infos", "cur", "shared"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_entries(entries: list[int], infos: tuple[int, int], cur: int, shared: list[tuple[int, int]]) -> None:
    psc = psc_of(entries)
    psc.answer()
    assert (psc.infos, psc.cur) == (infos, cur)
    assert shared_of(psc.host) == shared
    assert [psc.word(n) for n in range(cur, len(entries))] == entries[cur:]


def test_entries_start_at_cur_entry() -> None:
    psc = psc_of([psc_entry(0x401, 2, 1), psc_entry(5), psc_entry(6)])
    psc.put(0x800, 1, 2)
    psc.answer()
    assert (psc.infos, psc.cur) == (OK, 3)
    assert shared_of(psc.host) == [(5, 7)]
    assert psc.word(0) == psc_entry(0x401, 2, 1)


# -- several vCPUs ----------------------------------------------------------------------------------------------------


def run_all(*jobs: Any) -> None:
    failures: list[BaseException] = []

    def guarded(job: Any) -> None:
        try:
            job()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures, failures[0]


def test_two_vcpus_at_once_on_one_host() -> None:
    """One backend, one GHCB page for each vCPU, interleaved pages: no call's pages are lost."""
    host = host_of("ghcb-psc")
    bases = (0x10000, 0x20000)

    def vcpu(number: int) -> None:
        base = bases[number]
        for turn in range(60):
            first = 0x1000 + 2 * turn + number
            page = bytearray(4096)
            page[0x390:0x398] = (0x80000010).to_bytes(8, "little")
            page[0x3A8:0x3B0] = (base + 0x800).to_bytes(8, "little")
            page[0x3FE] = 0x3C
            page[0x808:0x810] = psc_entry(first).to_bytes(8, "little")
            page[0xFFA] = 2
            host.memory.poke(base, bytes(page))
            answer = host.answer({MSR: base})
            assert answer.end == "return"
            assert all(base <= start < base + 4096 for start, _ in answer.mem)
            assert host.memory.peek(base + 0x398, 16) == bytes(16)
            assert host.backend.state_at(first) is SHARED

    run_all(lambda: vcpu(0), lambda: vcpu(1))
    assert shared_of(host) == [(0x1000, 0x1078)]


def test_conversions_are_whole_for_readers() -> None:
    backend = Backend()
    hosts = [host_of("kvm-map-gpa-range", transport="vmcall64", backend=backend) for _ in range(2)]
    done = threading.Event()

    def vcpu(host: Host) -> None:
        for turn in range(150):
            assert dict(host.answer(hypercall(0x100000, 512, 0x10 * (turn % 2))).regs) == {"rax": 0}

    def both() -> None:
        run_all(*(lambda host=host: vcpu(host) for host in hosts))
        done.set()

    def reader() -> None:
        while not done.is_set():
            assert [(run.start, run.end) for run in backend.query()] in ([], [(0x100, 0x300)])

    run_all(both, reader)


def test_two_vcpus_at_the_bound() -> None:
    backend = Backend(max_ranges=10)
    hosts = [host_of("ghcb-msr-psc", backend=backend) for _ in range(2)]
    told: list[int] = []

    def vcpu(number: int) -> None:
        for turn in range(40):
            told.append(hosts[number].answer(msr_psc(0x1000 + 4 * turn + 2 * number)).regs[MSR])
            assert backend.count <= 10

    run_all(lambda: vcpu(0), lambda: vcpu(1))
    assert sorted(told) == [0x15] * 10 + [PSC_ERROR] * 70
    assert backend.count == 10
