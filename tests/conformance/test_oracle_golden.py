"""Right answers worked out by hand, against the oracle: wire to wire, so that it is not only compared with adapters.

Requests and answers are from the documents and code that the specifications name: Linux 7.3, 6.16 and 6.12 (KVM's
hypercalls, sev.c, tdx.c), the KVM API document, and the posts of the SEV migration series. No number here was printed
by hvabi. Where the documents leave it open, a row is asked under the profile of the implementation that was read.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from hvabi.abi.registry import load
from hvabi.abi.scope import Fields, Scope
from hvabi.conformance.case import Inject, Setup
from hvabi.conformance.oracle import Oracle
from tests.conformance.test_oracle import Sent, bytes_of
from tests.fuzzing import opened

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hvabi.conformance.case import Expected, Pages, Ranges

K73, K612, K616 = "linux-kvm-7.3", "linux-kvm-6.12", "linux-kvm-6.16"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A call and its right answer: `mem` and `after_mem` bytes in hex by address, `after` what is not private then."""

    id: str
    abi: str
    transport: str
    regs: Mapping[str, int]
    mem: Mapping[int, str] = field(default_factory=dict)
    profile: str = "spec"
    revision: str | None = None
    setup: Setup = field(default_factory=Setup)
    cpl: int = 0
    inject: Inject | None = None
    before: Ranges = ()
    end: str = "return"
    answer: Mapping[str, int] = field(default_factory=dict)
    after_mem: Mapping[int, str] = field(default_factory=dict)
    after: Ranges = ()
    loose: Pages = ()
    """Pages of the part that failed, where nothing is said of them."""
    free: tuple[str, ...] = ()
    """Registers of which nothing is said, besides those of the transport that are never outputs to look at."""


def vmm(errno: int) -> Inject:
    return Inject(fault="vmm-error", arguments={"errno": errno})


def stop(pages: int) -> Inject:
    return Inject(fault="stop-after", arguments={"pages": pages})


def event(after: int) -> Inject:
    return Inject(fault="event-pending", arguments={"after": after})


OFF = Setup(enabled=False)

# -- hypercall 12 as KVM_HC_MAP_GPA_RANGE --------------------------------------------------------------------


def map12(id: str, rbx: int, rcx: int, rdx: int, rax: int, transport: str = "vmcall64", **more: Any) -> Row:
    """RAX 12, RBX address, RCX pages, RDX attributes; the answer is in RAX."""
    regs = {"rax": 12, "rbx": rbx, "rcx": rcx, "rdx": rdx}
    return Row(id=id, abi="kvm-map-gpa-range", transport=transport, regs=regs, answer={"rax": rax}, **more)


def td12(id: str, r11: int, r12: int, r13: int, r10: int, **more: Any) -> Row:
    """The same from a TD: R10 12, R11 address, R12 pages, R13 attributes; the answer is in R10."""
    regs = {"rax": 0, "rcx": 0x3C00, "r10": 12, "r11": r11, "r12": r12, "r13": r13}
    return Row(id=id, abi="kvm-map-gpa-range", transport="tdvmcall", regs=regs, answer={"r10": r10}, **more)


ONE = ((0x1F018, 0x1F019, "shared"),)
ONE_PAGE = ((0x1F018, 0x1F019),)
MINUS_22, MINUS_1000, MINUS_1 = 0xFFFFFFFFFFFFFFEA, 0xFFFFFFFFFFFFFC18, 0xFFFFFFFFFFFFFFFF

MAP_GPA_RANGE = [
    map12("one page to private", 0x1F018000, 1, 0x10, 0, before=ONE),
    map12("512 pages to shared, 2M hint", 0x80000000, 0x200, 0x01, 0, after=((0x80000, 0x80200, "shared"),)),
    map12("pages are 4K whatever the hint", 0x8000, 1, 0x02, 0, after=((8, 9, "shared"),)),
    map12("address not aligned", 0x1F018800, 1, 0x10, MINUS_22, before=ONE, after=ONE),
    map12("address not aligned, 32-bit", 0x1F018800, 1, 0x10, 0xFFFFFFEA, "vmcall32"),
    map12("no pages", 0x1F018000, 0, 0x10, MINUS_22),
    map12("exit not enabled", 0x1F018000, 1, 0x10, MINUS_1000, setup=OFF, before=ONE, after=ONE),
    map12("exit not enabled, 32-bit", 0x1F018000, 1, 0x10, 0xFFFFFC18, "vmcall32", setup=OFF),
    map12("exit not enabled, before alignment", 0x1F018800, 1, 0x10, MINUS_1000, setup=OFF),
    map12("CPL 3", 0x1F018000, 1, 0x10, MINUS_1, cpl=3, before=ONE, after=ONE),
    map12("CPL 3, before not enabled", 0x1F018000, 1, 0x10, MINUS_1, cpl=3, setup=OFF),
    map12("CPL 3, 32-bit", 0x1F018000, 1, 0x10, 0xFFFFFFFF, "vmcall32", cpl=3),
    map12("user space says EINVAL, which is positive", 0x1F018000, 1, 0x10, 0x16, inject=vmm(22), profile=K73,
        before=ONE, after=ONE, loose=ONE_PAGE),
    map12("user space says EAGAIN, copied", 0x1F018000, 1, 0x10, 0xB, inject=vmm(11), profile=K73, before=ONE,
        after=ONE, loose=ONE_PAGE),
    map12("user space says anything, copied", 0x1F018000, 1, 0x10, 1, inject=vmm(1), profile=K73, before=ONE,
        after=ONE, loose=ONE_PAGE),
    map12("reserved bits are passed on", 0x8000, 1, 0xFFFFFFFFFFFFFFF0, 0, profile=K73, before=((8, 9, "shared"),)),
    map12("reserved bits, OpenVMM says 1", 0x8000, 1, 0x100, 1, profile="openvmm", before=((8, 9, "shared"),),
        after=((8, 9, "shared"),)),
    map12("frames reach 2^64", 0x8000, 0xFFFFFFFFFFFFFFF8, 0x10, MINUS_22, profile=K73),
    map12("frames end just below 2^64", 0x8000, 0xFFFFFFFFFFFFFFF7, 0x10, 0, profile=K73, before=((8, 9, "shared"),
        )),
    map12("most pages of a 32-bit call", 0x8000, 0xFFFFFFFF, 0x10, 0, "vmcall32", profile="linux-kvm-6.1",
        before=((8, 9, "shared"),)),
    map12("memory is not looked at", 0x10000000, 1, 0, 0, profile=K73, setup=Setup(memory=((0, 16),)),
        after=((0x10000, 0x10001, "shared"),)),
    map12("one page to shared amid shared ones", 0x9000, 1, 0, 0, before=((8, 9, "shared"), (10, 11, "shared")),
        after=((8, 11, "shared"),)),
    map12("one page to private amid shared ones", 0x9000, 1, 0x10, 0, before=((8, 11, "shared"),), after=((8, 9,
        "shared"), (10, 11, "shared"))),
    td12("from a TD", 0x1F018000, 1, 0x10, 0, before=ONE),
    td12("from a TD, 16 pages", 0x1F018000, 0x10, 0, 0, after=((0x1F018, 0x1F028, "shared"),)),
    td12("from a TD, not cut to 32 bits", 0x1F018000, 0, 0x10, MINUS_22),
]  # fmt: skip

# -- hypercall 12 as KVM_HC_PAGE_ENC_STATUS ------------------------------------------------------------------


def enc12(id: str, revision: str, rbx: int, rcx: int, rdx: int, rax: int, **more: Any) -> Row:
    regs = {"rax": 12, "rbx": rbx, "rcx": rcx, "rdx": rdx}
    return Row(
        id=f"{revision} {id}",
        abi="kvm-page-enc-status",
        revision=revision,
        transport="vmmcall",
        regs=regs,
        answer={"rax": rax},
        **more,
    )


PAGE_ENC_STATUS = [
    enc12("log line 1", "v10", 0x1F018000, 1, 1, 0, profile="series-v7", before=ONE),
    enc12("log line 2", "v10", 0x1F00E000, 1, 0, 0, profile="series-v7", after=((0x1F00E, 0x1F00F, "shared"),)),
    enc12("no pages is success", "v10", 0x1F018000, 0, 1, 0, before=ONE, after=ONE),
    enc12("no pages is an error", "v12", 0x1F018000, 0, 1, MINUS_22, before=ONE, after=ONE),
    enc12("low bits of the address are ignored", "v10", 0x1F018FFF, 1, 1, 0, before=ONE),
    enc12("low bits of the address are refused", "v12", 0x1F018FFF, 1, 1, MINUS_22, before=ONE, after=ONE),
    enc12("anything but 0 is private", "v10", 0x1F018000, 1, 0x10, 0, before=ONE),
    enc12("not an SEV guest", "v10", 0x1F018000, 1, 1, MINUS_22, setup=Setup(config={"sev": 0}), before=ONE,
        after=ONE),
    enc12("no handler", "v10", 0x1F018000, 1, 1, MINUS_1000, setup=OFF, before=ONE, after=ONE),
    enc12("no handler, before not an SEV guest", "v10", 0x1F018000, 1, 1, MINUS_1000, setup=Setup(enabled=False,
        config={"sev": 0})),
    enc12("not enabled, before the arguments", "v12", 0x1F018FFF, 0, 1, MINUS_1000, setup=OFF),
    enc12("CPL 3", "v10", 0x1F018000, 1, 1, MINUS_1, cpl=3, before=ONE, after=ONE),
    enc12("not an SEV guest, before no pages", "v10", 0x1F018000, 0, 1, MINUS_22, setup=Setup(config={"sev": 0})),
]  # fmt: skip

# -- TDG.VP.VMCALL<MapGPA> -----------------------------------------------------------------------------------

SHARED48, SHARED52 = 0x0000800000000000, 0x0008000000000000
INVALID, MISALIGNED, UNSUPPORTED = 0x8000000000000000, 0x8000000000000002, 0x8000000000000003


def tdx(id: str, r12: int, r13: int, r10: int, r11: int | None = None, **more: Any) -> Row:
    """R11 None: nothing is said of it."""
    regs = {"rax": 0, "rcx": 0x3C00, "r10": 0, "r11": 0x10001, "r12": r12, "r13": r13}
    answer = {"r10": r10} if r11 is None else {"r10": r10, "r11": r11}
    free = ("r11",) if r11 is None and more.get("end") is None else ()
    return Row(id=id, abi="tdx-map-gpa", transport="tdcall", regs=regs, answer=answer, free=free, **more)


LONG = SHARED48 | 0x201000
"""A start that is no multiple of 2 MiB: pieces count from it."""

MAP_GPA = [
    tdx("one page to shared", SHARED48 | 0x100001000, 0x1000, 0, after=((0x100001, 0x100002, "shared"),)),
    tdx("2 MiB to private", 0x100001000, 0x200000, 0, before=((0x100000, 0x100300, "shared"),), after=((0x100000,
        0x100001, "shared"), (0x100201, 0x100300, "shared"))),
    tdx("wide guest: bit 51", SHARED52 | 0x40101000, 0x1000, 0, setup=Setup(config={"gpaw": 52}), after=((0x40101,
        0x40102, "shared"),)),
    tdx("size 0", SHARED48 | 0x40101000, 0, INVALID, SHARED48 | 0x40101000),
    tdx("size 0, before alignment", SHARED48 | 0x40101800, 0, INVALID, SHARED48 | 0x40101800),
    tdx("address not aligned", SHARED48 | 0x40101800, 0x1000, MISALIGNED, SHARED48 | 0x40101800),
    tdx("size not aligned", SHARED48 | 0x40101000, 0x1800, MISALIGNED, SHARED48 | 0x40101000),
    tdx("wraps, before alignment", 0xFFFFFFFFFFFFF800, 0x1000, INVALID, 0xFFFFFFFFFFFFF800),
    tdx("reaches 2^64", 0xFFFFFFFFFFFFF000, 0x1000, INVALID, 0xFFFFFFFFFFFFF000),
    tdx("runs across the SHARED bit", SHARED48 - 0x1000, 0x2000, INVALID, SHARED48 - 0x1000),
    tdx("last page below the SHARED bit", SHARED48 - 0x1000, 0x1000, 0, before=((0x7FFFFFFFE, 0x800000000,
        "shared"),), after=((0x7FFFFFFFE, 0x7FFFFFFFF, "shared"),)),
    tdx("address above MAXPHYADDR", 1 << 52, 0x1000, INVALID, 1 << 52),
    tdx("not enabled", SHARED48 | 0x40101800, 0, UNSUPPORTED, SHARED48 | 0x40101800, setup=OFF),
    tdx("user space says EAGAIN at first", LONG, 0x400000, 1, LONG, inject=vmm(11)),
    tdx("6.16 takes EAGAIN for an error", LONG, 0x400000, INVALID, LONG, inject=vmm(11), profile=K616),
    tdx("user space says EINVAL at first", LONG, 0x400000, INVALID, LONG, inject=vmm(22)),
    tdx("7.3 stops at another errno", LONG, 0x1000, 0, inject=vmm(5), profile=K73, end="stop"),
    tdx("6.16 takes another errno for an error", LONG, 0x1000, INVALID, LONG, inject=vmm(5), profile=K616),
    tdx("event behind the first 2 MiB, counted from the start", LONG, 0x201000, 1, LONG + 0x200000, inject=event(1),
        after=((0x201, 0x401, "shared"),)),
    tdx("no look for events behind the last piece", LONG, 0x200000, 0, inject=event(1), after=((0x201, 0x401,
        "shared"),)),
    tdx("stopped after three pages", LONG, 0x5000, 1, LONG + 0x3000, inject=stop(3), after=((0x201, 0x204,
        "shared"),)),
    tdx("stopped at once", LONG, 0x5000, 1, LONG, inject=stop(0)),
    tdx("shared already", LONG, 0x1000, 0, before=((0x201, 0x202, "shared"),), after=((0x201, 0x202, "shared"),)),
    tdx("no memory there", LONG, 0x1000, 0, profile=K73, setup=Setup(memory=((0, 16),)), after=((0x201, 0x202,
        "shared"),)),
]  # fmt: skip

# -- GHCB MSR protocol ---------------------------------------------------------------------------------------

MSR = "msr_c0010130"
DONE, ERROR = 0x0000000000000015, 0x8000000000000015


def msr(id: str, request: int, answer: int | None, profile: str = K73, **more: Any) -> Row:
    """`answer` None: the MSR is left alone."""
    changed = {} if answer is None else {MSR: answer}
    return Row(
        id=id, abi="ghcb-msr-psc", transport="vmgexit-msr", regs={MSR: request}, answer=changed, profile=profile, **more
    )


GHCB_MSR = [
    msr("page to private", 0x001000001F018014, DONE, "spec", before=ONE),
    msr("page to shared", 0x002000001F00E014, DONE, "spec", after=((0x1F00E, 0x1F00F, "shared"),)),
    msr("page 0 to private", 0x0010000000000014, DONE, "spec"),
    msr("highest frame to shared", 0x002FFFFFFFFFF014, DONE, after=((0xFFFFFFFFFF, 0x10000000000, "shared"),)),
    msr("PSMASH is an error here", 0x003000001F018014, ERROR, before=ONE, after=ONE),
    msr("operation 0", 0x000000001F018014, ERROR, before=ONE, after=ONE),
    msr("exit not enabled", 0x001000001F018014, ERROR, setup=OFF, before=ONE, after=ONE),
    msr("user space says EINVAL", 0x001000001F018014, ERROR, inject=vmm(22), before=ONE, after=ONE, loose=ONE_PAGE),
    msr("EAGAIN is not retried", 0x001000001F018014, ERROR, inject=vmm(11), before=ONE, after=ONE, loose=ONE_PAGE),
    msr("7.3 stops at another errno", 0x001000001F018014, None, inject=vmm(5), end="stop", before=ONE, after=ONE,
        loose=ONE_PAGE),
    msr("6.12 takes another errno for an error", 0x001000001F018014, ERROR, K612, inject=vmm(5), before=ONE,
        after=ONE, loose=ONE_PAGE),
    msr("reserved bits are ignored", 0xFF1000001F018014, DONE, "spec", before=ONE),
    msr("not an SNP guest", 0x003000001F018014, None, setup=Setup(config={"snp": 0}), end="stop"),
    msr("unknown request is left alone", 0x0000000000000FFF, None),
]  # fmt: skip

# -- GHCB page -----------------------------------------------------------------------------------------------

INFO1, INFO2 = 0x1398, 0x13A0
ZERO8 = "00" * 8
INVALID_HDR, INVALID_ENTRY, GENERIC = "0100000001000000", "0200000001000000", "0000000000010000"


def psc(
    id: str,
    header: str,
    entries: list[str],
    info1: int,
    info2: str,
    *,
    scratch: int = 0x1800,
    cur: str | None = None,
    marks: Mapping[int, str] | None = None,
    ghcb: Mapping[int, str] | None = None,
    **more: Any,
) -> Row:
    """`header` and `entries` in hex; `cur` is what cur_entry becomes, `marks` the entries that change, by number."""
    mem = {
        0x1390: "1000008000000000",
        INFO1: ZERO8,
        INFO2: ZERO8,
        0x13A8: scratch.to_bytes(8, "little").hex(),
        0x13F0: "00" * 14 + "3c00",
        0x1FFA: "0200",
        0x1FFC: "00000000",
        scratch: header + "".join(entries),
        **(ghcb or {}),
    }
    after = {INFO1: f"{info1:02x}" + "00" * 7, INFO2: info2}
    if cur is not None:
        after[scratch] = cur
    after.update({scratch + 8 + 8 * number: text for number, text in (marks or {}).items()})
    if more.get("end") == "stop":
        after = {}
    return Row(id=id, abi="ghcb-psc", transport="vmgexit", regs={MSR: 0x1000}, mem=mem, after_mem=after, **more)


PRIVATE_4K, PRIVATE_4K_DONE = "0080011f00001000", "0180011f00001000"
SHARED_4K, SHARED_4K_DONE = "00e0001f00002000", "01e0001f00002000"
PRIVATE_2M, PRIVATE_2M_DONE = "0000008000001001", "0002008000001001"
HALF_2M, HALF_2M_DONE = "0001008000002001", "0002008000002001"
E00 = ((0x1F00E, 0x1F00F, "shared"),)

GHCB_PAGE = [
    psc("one page to private", "0000000000000000", [PRIVATE_4K], 0, ZERO8, cur="0100", marks={0: PRIVATE_4K_DONE},
        before=ONE),
    psc("one page to shared", "0000000000000000", [SHARED_4K], 0, ZERO8, cur="0100", marks={0: SHARED_4K_DONE},
        after=E00),
    psc("2 MiB to private", "0000000000000000", [PRIVATE_2M], 0, ZERO8, cur="0100", marks={0: PRIVATE_2M_DONE},
        before=((0x7FFFF, 0x80201, "shared"),), after=((0x7FFFF, 0x80000, "shared"), (0x80200, 0x80201, "shared"))),
    psc("half of 2 MiB is done already", "0000000000000000", [HALF_2M], 0, ZERO8, cur="0100",
        marks={0: HALF_2M_DONE}, after=((0x80100, 0x80200, "shared"),)),
    psc("highest frame", "0000000000000000", ["00f0ffffffff2f00"], 0, ZERO8, cur="0100",
        marks={0: "01f0ffffffff2f00"}, after=((0xFFFFFFFFFF, 0x10000000000, "shared"),)),
    psc("PSMASH changes nothing", "0000000000000000", ["0000008000003001"], 0, ZERO8, cur="0100",
        marks={0: "0002008000003001"}, before=((0x80000, 0x80200, "shared"),), after=((0x80000, 0x80200, "shared"),
        )),
    psc("UNSMASH changes nothing", "0000000000000000", ["0000008000004001"], 0, ZERO8, cur="0100",
        marks={0: "0002008000004001"}),
    psc("2 MiB not aligned", "0000000000000000", ["0010008000001001"], 0, INVALID_ENTRY),
    psc("2 MiB not aligned, before the operation", "0000000000000000", ["0010008000003001"], 0, INVALID_ENTRY),
    psc("more done than the entry has", "0000000000000000", ["0280011f00001000"], 0, INVALID_ENTRY, before=ONE,
        after=ONE),
    psc("a done entry is skipped", "0000000000000000", [PRIVATE_4K_DONE], 0, ZERO8, cur="0100", before=ONE,
        after=ONE),
    psc("the second entry is bad", "0000010000000000", [SHARED_4K, "0010008000001001"], 0, INVALID_ENTRY,
        cur="0100", marks={0: SHARED_4K_DONE}, after=E00),
    psc("end_entry of 253 is too many", "0000fd0000000000", [PRIVATE_4K], 0, INVALID_HDR, before=ONE, after=ONE),
    psc("end_entry of 252 is too many at 0x808", "0000fc0000000000", [PRIVATE_4K], 0, INVALID_HDR, scratch=0x1808,
        before=ONE, after=ONE),
    psc("the header only fits at 0xfe8", "0000000000000000", [], 0, INVALID_HDR, scratch=0x1FE8),
    psc("the header does not fit at 0xfe9", "00000000000000", [], 2, "0300000000000000", scratch=0x1FE9),
    psc("scratch below the buffer", "0000000000000000", [PRIVATE_4K], 2, "0300000000000000", scratch=0x17F8,
        before=ONE, after=ONE),
    psc("cur_entry behind end_entry is success", "0300020000000000", [PRIVATE_4K] * 3, 0, ZERO8, profile=K73,
        before=ONE, after=ONE),
    psc("first entry left out", "0100010000000000", [PRIVATE_4K, SHARED_4K], 0, ZERO8, cur="0200",
        marks={1: SHARED_4K_DONE}, before=ONE, after=(*E00, *ONE)),
    psc("user space says EINVAL", "0000000000000000", [PRIVATE_4K], 0, GENERIC, inject=vmm(22), profile=K73,
        before=ONE, after=ONE, loose=ONE_PAGE),
    psc("EAGAIN is not retried", "0000000000000000", [PRIVATE_4K], 0, GENERIC, inject=vmm(11), profile=K73,
        before=ONE, after=ONE, loose=ONE_PAGE),
    psc("7.3 stops at another errno", "0000000000000000", [PRIVATE_4K], 0, ZERO8, inject=vmm(5), profile=K73,
        end="stop", before=ONE, after=ONE, loose=ONE_PAGE),
    psc("6.12 takes another errno for an error", "0000000000000000", [PRIVATE_4K], 0, GENERIC, inject=vmm(5),
        profile=K612, before=ONE, after=ONE, loose=ONE_PAGE),
    psc("not registered", "0000000000000000", [PRIVATE_4K], 2, "0100000000000000", setup=OFF),
    psc("not registered, before the usage", "0000000000000000", [PRIVATE_4K], 2, "0100000000000000", setup=OFF,
        ghcb={0x1FFC: "01000000"}),
    psc("6.12 stops where it is not registered", "0000000000000000", [PRIVATE_4K], 0, ZERO8, setup=OFF,
        profile=K612, end="stop"),
    psc("usage is not 0", "0000000000000000", [PRIVATE_4K], 2, "0200000000000000", ghcb={0x1FFC: "01000000"}),
    psc("scratch is not marked valid", "0000000000000000", [PRIVATE_4K], 2, "0400000000000000",
        ghcb={0x13F0: "00" * 14 + "1c00"}),
    psc("unknown exit code", "0000000000000000", [PRIVATE_4K], 2, "0600000000000000",
        ghcb={0x1390: "cdab008000000000"}),
    psc("not an SNP guest", "0000000000000000", [PRIVATE_4K], 2, "0600000000000000", setup=Setup(config={"snp": 0}),
        profile=K73),
    psc("6.12: not an SNP guest", "0000000000000000", [PRIVATE_4K], 2, "0400000000000000",
        setup=Setup(config={"snp": 0}), profile=K612),
    psc("exit not switched on", "0000000000000000", [PRIVATE_4K], 0, GENERIC,
        setup=Setup(config={"exit_hypercall": 0}), before=ONE, after=ONE),
    psc("stopped after one of two", "0000010000000000", [SHARED_4K, PRIVATE_4K], 0, ZERO8, inject=stop(1),
        cur="0100", marks={0: SHARED_4K_DONE}, before=ONE, after=(*E00, *ONE), loose=((0x1F018, 0x1F019),)),
    psc("stopped within 2 MiB", "0000000000000000", [PRIVATE_2M], 0, ZERO8, inject=stop(256),
        marks={0: "0001008000001001"}, before=((0x80000, 0x80200, "shared"),), after=((0x80100, 0x80200, "shared"),
        ), loose=((0x80100, 0x80200),)),
    psc("an unknown operation is marked complete", "0000000000000000", ["0080011f0000f000"], 0, ZERO8, profile=K73,
        cur="0100", marks={0: "0180011f0000f000"}, before=ONE, after=ONE),
]  # fmt: skip

# -- KVM_SET_MEMORY_ATTRIBUTES -------------------------------------------------------------------------------

IOCTL = 0x4020AED2


def attributes(id: str, body: str, ret: int, **more: Any) -> Row:
    """The 32 bytes of the structure in hex: address, size, attributes, flags."""
    return Row(
        id=id,
        abi="kvm-memory-attributes",
        transport="ioctl",
        regs={"cmd": IOCTL, "arg": 0x5000},
        mem={0x5000: body.replace(" ", "")},
        answer={"ret": ret},
        **more,
    )


MEMORY_ATTRIBUTES = [
    attributes("one page to private", "0080011f00000000 0010000000000000 0800000000000000 0000000000000000", 0,
        before=ONE),
    attributes("2 MiB to shared", "0000008000000000 0000200000000000 0000000000000000 0000000000000000", 0,
        after=((0x80000, 0x80200, "shared"),)),
    attributes("flags", "0080011f00000000 0010000000000000 0800000000000000 0100000000000000", MINUS_22, before=ONE,
        after=ONE),
    attributes("unknown attribute", "0080011f00000000 0010000000000000 0900000000000000 0000000000000000", MINUS_22),
    attributes("no size", "0080011f00000000 0000000000000000 0800000000000000 0000000000000000", MINUS_22),
    attributes("reaches 2^64", "00f0ffffffffffff 0010000000000000 0800000000000000 0000000000000000", MINUS_22),
    attributes("address not aligned", "0080011f00000000 0008000000000000 0800000000000000 0000000000000000",
        MINUS_22),
    attributes("size not aligned", "0088011f00000000 0010000000000000 0800000000000000 0000000000000000", MINUS_22),
    attributes("default VM has no private memory",
        "0080011f00000000 0010000000000000 0800000000000000 0000000000000000", MINUS_22,
        profile="linux-kvm-default-vm"),
    attributes("shared already", "0080011f00000000 0010000000000000 0000000000000000 0000000000000000", 0,
        before=ONE, after=ONE),
]  # fmt: skip

ROWS = [*MAP_GPA_RANGE, *PAGE_ENC_STATUS, *MAP_GPA, *GHCB_MSR, *GHCB_PAGE, *MEMORY_ATTRIBUTES]


def answers_of(row: Row) -> tuple[Expected, ...]:
    """Read the request off the wire and ask the oracle."""
    spec = load(row.abi, revision=row.revision, profile=row.profile)
    call = spec.abi.convert_call
    assert call is not None
    codec = spec.message(call.request, transport=row.transport, config=row.setup.config)
    mem = tuple((at, bytes.fromhex(text)) for at, text in sorted(row.mem.items()))
    source = Sent(row.regs, mem)
    fields = Fields(codec.message.fields, lambda name: codec.placer.fetch(name, scope, source))
    scope = Scope(codec.static, request=fields)
    return Oracle(row.abi, spec.abi.revision, row.transport, row.setup, profile=row.profile).answers(
        {name: opened(fields[name]) for name in codec.message.fields},
        cpl=row.cpl,
        inject=row.inject,
        before=row.before,
        mem=mem,
        regs=row.regs,
    )


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.abi}: {row.id}")
def test_the_oracle_knows_answers_that_were_worked_out_by_hand(row: Row) -> None:
    answers = answers_of(row)
    assert len(answers) == 1, [one.policies for one in answers]
    (answer,) = answers
    assert answer.end == row.end
    assert answer.state == row.after
    assert answer.loose == row.loose
    assert set(row.free) <= set(answer.may_change)
    if row.end == "stop":
        return
    unchanged = {name: value for name, value in row.regs.items() if name not in answer.may_change}
    assert {**unchanged, **answer.regs} == {**unchanged, **row.answer}
    assert not set(row.answer) & set(answer.may_change), "an output that is not compared says nothing"
    assert not any(register in row.answer for register, _ in answer.nonzero), "an output that may have many values"
    before = bytes_of((at, bytes.fromhex(text)) for at, text in row.mem.items())
    wanted = before | bytes_of((at, bytes.fromhex(text)) for at, text in row.after_mem.items())
    assert before | bytes_of(answer.mem) == wanted


OPEN: list[Any] = [
    ("tdx leaf", "tdx-map-gpa", "tdcall", {"r10": 0, "r11": 0x1FFFF, "r12": 0x201000, "r13": 0x1000, "rcx": 0x3C00},
        {}, [{"r10": UNSUPPORTED}, {"r10": INVALID}]),
    ("MSR error code", "ghcb-msr-psc", "vmgexit-msr", {MSR: 0x003000001F018014}, {}, [{MSR: ERROR}]),
    ("past 2^64 bytes", "kvm-map-gpa-range", "vmcall64", {"rax": 12, "rbx": 0xFFFFFFFFFFFFF000, "rcx": 2,
        "rdx": 0x10}, {}, [{"rax": 0}, {"rax": 22}]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "abi", "transport", "regs", "mem", "wanted"), OPEN, ids=[row[0] for row in OPEN])
def test_what_the_documents_leave_open_has_every_answer(
    name: str, abi: str, transport: str, regs: dict[str, int], mem: dict[int, str], wanted: list[dict[str, int]]
) -> None:
    answers = answers_of(Row(id=name, abi=abi, transport=transport, regs=regs, mem=mem))
    outputs = {register for one in wanted for register in one}
    found = [
        {name: value for name, value in one.regs.items() if name in outputs} for one in answers if one.end == "return"
    ]
    assert all(one in wanted for one in found)
    assert all(one in found for one in wanted)


def test_the_error_code_of_the_msr_form_is_any_number_but_0() -> None:
    (answer,) = answers_of(Row(id="", abi="ghcb-msr-psc", transport="vmgexit-msr", regs={MSR: 0x003000001F018014}))
    assert answer.nonzero == ((MSR, 0xFFFFFFFF00000000),)


# -- blocks that are no memory -------------------------------------------------------------------------------

VIS = {0x5000: "ff" * 8 + "0300000000000000" + "3412000000000000"}
"""An input block of HvCallModifySparseGpaPageHostVisibility: share page 0x1234 of the own partition."""
VIS_REGS = {"rcx": 0x1000000DB, "rdx": 0x5000, "r8": 0}
VIS_TDCALL = {"rax": 0, "r10": 0x1000000DB, "rdx": 0x5000, "r8": 0, "rcx": 0xD04}
VIS_GHCB = {
    0x3000: "ff" * 8 + "0300000000000000" + "3412000000000000",
    0x3FF0: "db00000001000000",
    0x3FFA: "020001000000",
}
HOLE_5 = Setup(memory=((0, 5), (6, 1 << 40)))
HOLE_3 = Setup(memory=((0, 3), (4, 1 << 40)))


def ends(answers: tuple[Expected, ...], register: str) -> set[tuple[str, int | None]]:
    """How the answers end, with a register where they return."""
    return {(one.end, one.regs.get(register) if one.end == "return" else None) for one in answers}


@pytest.mark.parametrize(
    ("transport", "regs", "result"), [("memory64", VIS_REGS, "rax"), ("tdvmcall", VIS_TDCALL, "r11")]
)
def test_an_input_block_that_is_no_memory_is_refused_or_intercepted_and_never_read(
    transport: str, regs: dict[str, int], result: str
) -> None:
    """OpenVMM: 0x0003 with a count of 0; TLFS: a memory intercept. What lies there does not count."""
    for body in (VIS, {0x5000: "02" + "00" * 7 + VIS[0x5000][16:]}):
        row = Row(id="", abi="hyperv-host-visibility", transport=transport, regs=regs, mem=body, setup=HOLE_5)
        answers = answers_of(row)
        assert ends(answers, result) == {("return", 3), ("stop", None)}
        assert all(answer.state == () for answer in answers)
        (openvmm,) = answers_of(replace(row, profile="openvmm-whp"))
        assert (openvmm.end, openvmm.regs[result]) == ("return", 3)


def test_the_next_page_of_memory_makes_the_input_block_readable() -> None:
    row = Row(id="", abi="hyperv-host-visibility", transport="memory64", regs=VIS_REGS, mem=VIS, setup=HOLE_3)
    assert ("return", 0x100000000) in ends(answers_of(row), "rax")


def test_a_ghcb_page_that_is_no_memory_gets_no_answer() -> None:
    """The result would lie in the page itself, and nobody can know what was asked."""
    row = Row(
        id="", abi="hyperv-host-visibility", transport="ghcb-page", regs={MSR: 0x3000}, mem=VIS_GHCB, setup=HOLE_3
    )
    answers = answers_of(row)
    assert {one.end for one in answers} == {"stop"}
    assert all(answer.state == () for answer in answers)
    there = answers_of(replace(row, setup=Setup()))
    assert (0x3FF0, bytes.fromhex("0000000001000000")) in {piece for one in there for piece in one.mem}


def test_a_list_of_the_common_call_that_ends_where_no_memory_is_does_nothing() -> None:
    """The head and the first entry lie in memory, the second does not: OUT_OF_RANGE (-3), and nothing is done."""
    head = "01000000020000000000000000000000"
    entry = "0000340000000000010000000000000000000000000000000100000000000000"
    regs = {"rax": 0x43560001, "rbx": 0x4FD0}
    row = Row(id="", abi="common-convert", transport="x86-list", regs=regs, mem={0x4FD0: head + entry * 2})
    (done,) = answers_of(row)
    assert (done.end, done.regs["rax"], done.state) == ("return", 0, ((0x340, 0x341, "shared"),))
    (refused,) = answers_of(replace(row, setup=HOLE_5))
    assert (refused.end, refused.regs["rax"], refused.state, refused.mem) == ("return", (1 << 64) - 3, (), ())
