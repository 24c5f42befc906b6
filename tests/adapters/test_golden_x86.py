"""Golden bytes of the x86 ABIs, both directions and through the host. tests/data/golden/README.md says where from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from hvabi.abi.registry import Spec, load
from hvabi.abi.wire import Wire
from hvabi.adapters.registry import host_class
from hvabi.adapters.values import HostAnswer, VmmReply, VmmRequest
from hvabi.backend import Backend, Conversion, GuestMemory, MemoryLayout, PageState

if TYPE_CHECKING:
    from hvabi.adapters.host import Host

Range = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One worked example: fields and registers of the request, the answer, the pages before and after.

    `before` and `after` are the shared pages as (gpa, 4 KiB pages).
    """

    id: str
    abi: str
    transport: str
    fields: dict[str, Any]
    regs: dict[str, int]
    answer: dict[str, int]
    response: dict[str, Any]
    revision: str | None = None
    profile: str = "spec"
    config: dict[str, int] = field(default_factory=dict)
    enabled: bool = True
    cpl: int = 0
    before: tuple[Range, ...] = ()
    after: tuple[Range, ...] = ()
    exit: str | None = None


def spec_of(case: Case) -> Spec:
    return load(case.abi, revision=case.revision, profile=case.profile)


def backend_with(*ranges: Range) -> Backend:
    backend = Backend()
    for gpa, pages in ranges:
        backend.convert(Conversion(gpa >> 12, pages, PageState.SHARED), absent="allow")
    return backend


def shared_of(backend: Backend) -> tuple[Range, ...]:
    assert all(run.state is PageState.SHARED for run in backend.query())
    return tuple((run.start << 12, run.end - run.start) for run in backend.query())


def run_page(nr: str, gpa: str, npages: str, attributes: str, flags: str) -> str:
    """The 104 bytes of struct kvm_run that the exit uses, in hex: reason 3 at 8, nr 32, args 40, ret 88, flags 96."""
    return (
        "0000000000000000"
        "03000000"
        "00000000" + "00" * 16 + nr + gpa + npages + attributes + "00" * 24 + ("0000000000000000" + flags)
    )


NR_12 = "0c00000000000000"
LONG_MODE = "0100000000000000"
NO_FLAGS = "0000000000000000"

# The exit of one page to private, as one literal: what stands at 0x20, 0x28, 0x30, 0x38, 0x58 and 0x60.
EXIT_PRIVATE_1F018 = (
    "0000000000000000030000000000000000000000000000000000000000000000"
    "0c000000000000000080011f0000000001000000000000001000000000000000"
    "0000000000000000000000000000000000000000000000000000000000000000"
    "0100000000000000"
)
EXIT_SHARED_2M = run_page(NR_12, "0000008000000000", "0002000000000000", "0100000000000000", LONG_MODE)
EXIT_TDX_SHARED = run_page(NR_12, "0010000001000000", "0100000000000000", "0000000000000000", LONG_MODE)
EXIT_TDX_PRIVATE = run_page(NR_12, "0010000001000000", "0002000000000000", "1000000000000000", LONG_MODE)
EXIT_MSR_PRIVATE = run_page(NR_12, "0080011f00000000", "0100000000000000", "1000000000000000", NO_FLAGS)
EXIT_MSR_SHARED = run_page(NR_12, "00e0001f00000000", "0100000000000000", "0000000000000000", NO_FLAGS)
EXIT_MSR_ZERO = run_page(NR_12, "0000000000000000", "0100000000000000", "1000000000000000", NO_FLAGS)
EXIT_PSC_REST = run_page(NR_12, "0000108000000000", "0001000000000000", "0100000000000000", NO_FLAGS)


def enc_status(id_: str, gpa: int, npages: int, enc: int, rax: int, **more: Any) -> Case:
    status = rax - (1 << 64) if rax >> 63 else rax
    return Case(
        id=id_,
        abi="kvm-page-enc-status",
        transport="vmmcall",
        fields={"gpa": gpa, "npages": npages, "enc": enc},
        regs={"rax": 0xC, "rbx": gpa, "rcx": npages, "rdx": enc},
        answer={"rax": rax},
        response={"status": status},
        **more,
    )


def map_gpa(id_: str, regs: tuple[int, int, int, int], size: int, encrypted: int, rax: int, **more: Any) -> Case:
    transport = more.pop("transport", "vmcall64")
    top = 1 << (64 if transport == "vmcall64" else 32)
    return Case(
        id=id_,
        abi="kvm-map-gpa-range",
        transport=transport,
        fields={"gpa": regs[1], "npages": regs[2], "attributes": {"page_size": size, "encrypted": encrypted}},
        regs={"rax": regs[0], "rbx": regs[1], "rcx": regs[2], "rdx": regs[3]},
        answer={"rax": rax},
        response={"status": rax - top if rax >= top // 2 else rax},
        **more,
    )


def msr_psc(id_: str, msr: int, gfn: int, operation: int, answer: int, **more: Any) -> Case:
    return Case(
        id=id_,
        abi="ghcb-msr-psc",
        transport="vmgexit-msr",
        fields={"gfn": gfn, "operation": operation},
        regs={"msr_c0010130": msr},
        answer={"msr_c0010130": answer},
        response={"info": 0x15, "reserved": 0, "error": 0x80000000 if answer >> 63 else 0},
        **more,
    )


def map_gpa_tdx(id_: str, r12: int, r13: int, answer: dict[str, int], **more: Any) -> Case:
    return Case(
        id=id_,
        abi="tdx-map-gpa",
        transport="tdcall",
        fields={"gpa": r12, "size": r13},
        regs={"rax": 0, "rcx": 0x3C00, "r10": 0, "r11": 0x10001, "r12": r12, "r13": r13},
        answer=answer,
        response={"status": answer["r10"], "next_gpa": answer.get("r11", 0x10001)},
        **more,
    )


PAGE_18 = (0x1F018000, 1)
PAGE_0E = (0x1F00E000, 1)

CASES = [
    # -- kvm-page-enc-status: the log of 2020 ---------------------------------------------------------------------
    enc_status("enc-1-v10", 0x1F018000, 1, 1, 0, revision="v10", before=(PAGE_18,)),
    enc_status("enc-1-v12", 0x1F018000, 1, 1, 0, revision="v12", before=(PAGE_18,)),
    enc_status("enc-2-v7", 0x1F00E000, 1, 0, 0, revision="v10", profile="series-v7", after=(PAGE_0E,)),
    enc_status("enc-2-v12", 0x1F00E000, 1, 0, 0, revision="v12", after=(PAGE_0E,)),
    enc_status("enc-3-decimal", 0x1D767000, 0x64, 0, 0, revision="v12", after=((0x1D767000, 100),)),
    enc_status("enc-3-hex", 0x1D767000, 0x100, 0, 0, revision="v12", after=((0x1D767000, 256),)),
    enc_status("enc-5-v10", 0x1F018000, 0, 1, 0, revision="v10", before=(PAGE_18,), after=(PAGE_18,)),
    enc_status("enc-5-v12", 0x1F018000, 0, 1, 0xFFFFFFFFFFFFFFEA, revision="v12", before=(PAGE_18,), after=(PAGE_18,)),
    enc_status("enc-cpl3", 0x1F00E000, 1, 0, 0xFFFFFFFFFFFFFFFF, revision="v12", cpl=3),
    enc_status("enc-off", 0x1F00E000, 1, 0, 0xFFFFFFFFFFFFFC18, revision="v12", enabled=False),
    enc_status("enc-not-sev", 0x1F00E000, 1, 0, 0xFFFFFFFFFFFFFFEA, revision="v10", config={"sev": 0}),
    # -- kvm-map-gpa-range ----------------------------------------------------------------------------------------
    map_gpa("map-1", (0xC, 0x1F018000, 1, 0x10), 0, 1, 0, before=(PAGE_18,), exit=EXIT_PRIVATE_1F018),
    map_gpa("map-2", (0xC, 0x80000000, 0x200, 1), 1, 0, 0, after=((0x80000000, 512),), exit=EXIT_SHARED_2M),
    map_gpa("map-3", (0xC, 0x1F018800, 1, 0x10), 0, 1, 0xFFFFFFFFFFFFFFEA, before=(PAGE_18,), after=(PAGE_18,)),
    map_gpa("map-3-32bit", (0xC, 0x1F018800, 1, 0x10), 0, 1, 0xFFFFFFEA, transport="vmcall32"),
    map_gpa("map-4", (0xC, 0x1F018000, 0, 0x10), 0, 1, 0xFFFFFFFFFFFFFFEA),
    map_gpa("map-5", (0xC, 0x1F018000, 1, 0x10), 0, 1, 0xFFFFFFFFFFFFFC18, enabled=False),
    map_gpa("map-5-32bit", (0xC, 0x1F018000, 1, 0x10), 0, 1, 0xFFFFFC18, enabled=False, transport="vmcall32"),
    map_gpa("map-6", (0xC, 0x1F018800, 1, 0x10), 0, 1, 0xFFFFFFFFFFFFFC18, enabled=False),
    map_gpa("map-7", (0xC, 0x1F018000, 1, 0x10), 0, 1, 0xFFFFFFFFFFFFFFFF, cpl=3, before=(PAGE_18,), after=(PAGE_18,)),
    map_gpa("map-7-32bit", (0xC, 0x1F018000, 1, 0x10), 0, 1, 0xFFFFFFFF, cpl=3, transport="vmcall32"),
    map_gpa("map-wrap", (0xC, 0xFFFFFFFFFFFFF000, 0xFFF0000000000001, 0x10), 0, 1, 0xFFFFFFFFFFFFFFEA),
    # -- GHCB MSR protocol ----------------------------------------------------------------------------------------
    msr_psc("msr-1", 0x001000001F018014, 0x1F018, 1, 0x15, before=(PAGE_18,), exit=EXIT_MSR_PRIVATE),
    msr_psc("msr-1-error", 0x001000001F018014, 0x1F018, 1, 1 << 63 | 0x15, enabled=False),
    msr_psc("msr-2", 0x002000001F00E014, 0x1F00E, 2, 0x15, after=(PAGE_0E,), exit=EXIT_MSR_SHARED),
    msr_psc("msr-2-error", 0x002000001F00E014, 0x1F00E, 2, 1 << 63 | 0x15, enabled=False),
    msr_psc("msr-op3", 0x003000001F00E014, 0x1F00E, 3, 1 << 63 | 0x15),
    msr_psc("msr-op4", 0x004000001F00E014, 0x1F00E, 4, 1 << 63 | 0x15),
    msr_psc("msr-5", 0x0010000000000014, 0, 1, 0x15, before=((0, 1),), exit=EXIT_MSR_ZERO),
    # -- TDX MapGPA -----------------------------------------------------------------------------------------------
    map_gpa_tdx("tdx-1", 0x0000800100001000, 0x1000, {"r10": 0}, after=((0x100001000, 1),), exit=EXIT_TDX_SHARED),
    map_gpa_tdx("tdx-2", 0x100001000, 0x200000, {"r10": 0}, before=((0x100001000, 512),), exit=EXIT_TDX_PRIVATE),
    map_gpa_tdx(
        "tdx-1-gpaw52", 0x0008000100001000, 0x1000, {"r10": 0}, config={"gpaw": 52}, after=((0x100001000, 1),),
        exit=EXIT_TDX_SHARED,
    ),
    map_gpa_tdx("tdx-5", 0x0000800040101000, 0, {"r10": 0x8000000000000000, "r11": 0x0000800040101000}),
    map_gpa_tdx("tdx-6", 0x0000800040101800, 0x1000, {"r10": 0x8000000000000002, "r11": 0x0000800040101800}),
    map_gpa_tdx(
        "tdx-10", 0x0000800040101000, 0x1000, {"r10": 0x8000000000000003, "r11": 0x0000800040101000}, enabled=False
    ),
    map_gpa_tdx("tdx-10-bad", 0x0000800040101800, 0, {"r10": 0x8000000000000003, "r11": 0x800040101800}, enabled=False),
    Case(
        id="tdx-11", abi="kvm-map-gpa-range", transport="tdvmcall",
        fields={"gpa": 0x1F018000, "npages": 1, "attributes": 0x10},
        regs={"rax": 0, "rcx": 0x3C00, "r10": 12, "r11": 0x1F018000, "r12": 1, "r13": 0x10},
        answer={"r10": 0}, response={"status": 0}, before=(PAGE_18,), exit=EXIT_PRIVATE_1F018,
    ),
]  # fmt: skip


def by_id(case: Case) -> str:
    return case.id


def number(value: Any) -> Any:
    """A decoded value as numbers only, names of enums gone."""
    if hasattr(value, "_fields"):
        return {name: number(getattr(value, name)) for name in value._fields}
    if isinstance(value, tuple):
        return [number(item) for item in value]
    return int(value)


def like(found: Any, expected: Any) -> Any:
    if isinstance(expected, dict):
        return {name: found[name] for name in expected}
    if isinstance(expected, int) and isinstance(found, dict):
        return {0x10: {"page_size": 0, "encrypted": 1, "reserved": 0}}[expected] == found and expected
    return found


@pytest.mark.parametrize("case", CASES, ids=by_id)
def test_request_encodes(case: Case) -> None:
    codec = spec_of(case).message("request", transport=case.transport, config=case.config)
    assert dict(codec.encode(case.fields).regs) == case.regs


@pytest.mark.parametrize("case", CASES, ids=by_id)
def test_request_decodes(case: Case) -> None:
    codec = spec_of(case).message("request", transport=case.transport, config=case.config)
    found = number(codec.decode(case.regs, strict=True))
    for name, expected in case.fields.items():
        assert like(found[name], expected) == expected, name


@pytest.mark.parametrize("case", CASES, ids=by_id)
def test_response_both_ways(case: Case) -> None:
    spec = spec_of(case)
    codec = spec.message("response", transport=case.transport, config=case.config)
    request = spec.message("request", transport=case.transport, config=case.config).decode(case.regs)
    found = number(codec.decode({**case.regs, **case.answer}, request=request, strict=True))
    assert {name: found[name] for name in case.response} == case.response
    encoded = dict(codec.encode(case.response, request=request).regs)
    assert {name: encoded[name] for name in case.answer} == case.answer


def finish(host: Host, case: Case) -> tuple[HostAnswer, list[VmmRequest]]:
    call = host.call(case.regs, cpl=case.cpl, exits=True)
    asked: list[VmmRequest] = []
    try:
        asked.append(next(call))
        while True:
            asked.append(call.send(VmmReply()))
    except StopIteration as end:
        return end.value, asked


@pytest.mark.parametrize("case", CASES, ids=by_id)
def test_host_answers(case: Case) -> None:
    host = host_class(case.abi)(
        spec_of(case),
        transport=case.transport,
        config=case.config,
        backend=backend_with(*case.before),
        enabled=case.enabled,
    )
    answer, asked = finish(host, case)
    assert (answer.end, dict(answer.regs), answer.mem) == ("return", case.answer, ())
    assert shared_of(host.backend) == case.after
    found = [(item.abi, dict(item.regs), [(at, data.hex()) for at, data in item.mem]) for item in asked]
    assert found == ([("kvm-exit-hypercall", {}, [(0, case.exit)])] if case.exit else [])


# -- GHCB page form ---------------------------------------------------------------------------------------------------

GHCB = 0x7000


def ghcb_page(body: str, *, offset: int = 0x800, **over: str) -> bytes:
    """A GHCB page as a guest leaves it, from literal offsets: only `over` differs from a good request."""
    page = bytearray(4096)
    fields = {
        "exit_code": (0x390, "1000008000000000"),
        "exit_info1": (0x398, "0000000000000000"),
        "exit_info2": (0x3A0, "0000000000000000"),
        "scratch": (0x3A8, (GHCB + offset).to_bytes(8, "little").hex()),
        "valid": (0x3F0, "00000000000000000000000000003c00"),
        "version": (0xFFA, "0200"),
        "usage": (0xFFC, "00000000"),
    }
    for name, (at, text) in fields.items():
        raw = bytes.fromhex(over.get(name, text))
        page[at : at + len(raw)] = raw
    raw = bytes.fromhex(body)
    page[offset : offset + len(raw)] = raw
    return bytes(page)


PRIVATE, SHARED, PSMASH, UNSMASH = 1, 2, 3, 4

# name, hex of the qword in memory, the qword, (cur_page, gfn, operation, pagesize)
ENTRIES = [
    ("1-private-4k", "0080011f00001000", 0x001000001F018000, (0, 0x1F018, PRIVATE, 0)),
    ("2-shared-4k", "00e0001f00002000", 0x002000001F00E000, (0, 0x1F00E, SHARED, 0)),
    ("3-private-2m", "0000008000001001", 0x0110000080000000, (0, 0x80000, PRIVATE, 1)),
    ("4-private-2m-complete", "0002008000001001", 0x0110000080000200, (512, 0x80000, PRIVATE, 1)),
    ("5-shared-2m-half", "0001008000002001", 0x0120000080000100, (256, 0x80000, SHARED, 1)),
    ("6-max-gfn", "00f0ffffffff2f00", 0x002FFFFFFFFFF000, (0, 0xFFFFFFFFFF, SHARED, 0)),
    ("7-psmash", "0000008000003001", 0x0130000080000000, (0, 0x80000, PSMASH, 1)),
    ("7-unsmash", "0000008000004001", 0x0140000080000000, (0, 0x80000, UNSMASH, 1)),
    ("8-misaligned-2m", "0010008000001001", 0x0110000080001000, (0, 0x80001, PRIVATE, 1)),
]
HEADERS = [
    ("one", "0000000000000000", (0, 0)),
    ("253", "0000fc0000000000", (0, 252)),
    ("254", "0000fd0000000000", (0, 253)),
    ("past-end", "0300020000000000", (3, 2)),
]


@pytest.mark.parametrize(("raw", "word", "parts"), [row[1:] for row in ENTRIES], ids=[row[0] for row in ENTRIES])
def test_psc_entry(raw: str, word: int, parts: tuple[int, int, int, int]) -> None:
    codec = load("ghcb-psc").layout("psc-entry")
    cur_page, gfn, operation, pagesize = parts
    assert bytes.fromhex(raw) == word.to_bytes(8, "little")
    assert number(codec.decode(bytes.fromhex(raw), strict=True)) == {
        "cur_page": cur_page, "gfn": gfn, "operation": operation, "pagesize": pagesize, "reserved": 0
    }  # fmt: skip
    assert codec.encode(cur_page=cur_page, gfn=gfn, operation=operation, pagesize=pagesize).hex() == raw
    # The qword with only bits 51:12 left is the address itself.
    assert word & 0x000FFFFFFFFFF000 == gfn << 12


@pytest.mark.parametrize(("raw", "parts"), [row[1:] for row in HEADERS], ids=[row[0] for row in HEADERS])
def test_psc_header(raw: str, parts: tuple[int, int]) -> None:
    codec = load("ghcb-psc").layout("psc-header")
    assert number(codec.decode(bytes.fromhex(raw), strict=True)) == {
        "cur_entry": parts[0], "end_entry": parts[1], "reserved": 0
    }  # fmt: skip
    assert codec.encode(cur_entry=parts[0], end_entry=parts[1]).hex() == raw


def test_psc_request_page_both_ways() -> None:
    codec = load("ghcb-psc").message("request")
    entries = [{"gfn": 0x1F018, "operation": PRIVATE}, {"gfn": 0x80000, "operation": SHARED, "pagesize": 1}]
    golden = ghcb_page("00000100000000000080011f000010000000008000002001")
    wire = codec.encode(ghcb_gpa=GHCB, entries=entries)
    assert (dict(wire.regs), wire.mem) == ({"msr_c0010130": 0x7000}, ((GHCB, golden),))
    assert wire.hex() == "00000100000000000080011f000010000000008000002001"
    found = number(codec.decode(Wire(regs={"msr_c0010130": 0x7000}, mem=((GHCB, golden),)), strict=True))
    assert {name: found[name] for name in ("exit_code", "sw_scratch", "valid_bitmap", "protocol_version")} == {
        "exit_code": 0x80000010,
        "sw_scratch": 0x7800,
        "valid_bitmap": 0x003C << 112,
        "protocol_version": 2,
    }
    assert (found["cur_entry"], found["end_entry"]) == (0, 1)
    assert [(item["gfn"], item["operation"], item["pagesize"]) for item in found["entries"]] == [
        (0x1F018, 1, 0),
        (0x80000, 2, 1),
    ]


# SW_EXITINFO1 and SW_EXITINFO2 as they lie in memory
OK = "00000000000000000000000000000000"
INVALID_HDR = "00000000000000000100000001000000"
INVALID_ENTRY = "00000000000000000200000001000000"
GENERIC = "00000000000000000000000000010000"


def malformed(code: int) -> str:
    return "0200000000000000" + f"{code:02x}00000000000000"


@dataclass(frozen=True, kw_only=True)
class Psc:
    """A request body, and what the GHCB holds afterwards."""

    id: str
    body: str
    infos: str
    left: str
    offset: int = 0x800
    over: dict[str, str] = field(default_factory=dict)
    profile: str = "spec"
    config: dict[str, int] = field(default_factory=dict)
    enabled: bool = True
    before: tuple[Range, ...] = ()
    after: tuple[Range, ...] = ()
    exits: tuple[str, ...] | None = None


HALF = (0x80100000, 256)
TWO_MB = (0x80000000, 512)
ONE = "0000000000000000"

PSC = [
    Psc(id="1", body=ONE + "0080011f00001000", infos=OK, left="0100000000000000" "0180011f00001000", before=(PAGE_18,),
        exits=(EXIT_MSR_PRIVATE,)),
    Psc(id="2", body=ONE + "00e0001f00002000", infos=OK, left="0100000000000000" "01e0001f00002000", after=(PAGE_0E,),
        exits=(EXIT_MSR_SHARED,)),
    Psc(id="3", body=ONE + "0000008000001001", infos=OK, left="0100000000000000" "0002008000001001", before=(TWO_MB,)),
    Psc(id="4-skipped", body=ONE + "0002008000001001", infos=OK, left="0100000000000000" "0002008000001001",
        before=(TWO_MB,), after=(TWO_MB,), exits=()),
    Psc(id="5-rest", body=ONE + "0001008000002001", infos=OK, left="0100000000000000" "0002008000002001",
        after=(HALF,), exits=(EXIT_PSC_REST,)),
    Psc(id="6-max-gfn", body=ONE + "00f0ffffffff2f00", infos=OK, left="0100000000000000" "01f0ffffffff2f00",
        after=((0xFFFFFFFFFF000, 1),)),
    Psc(id="7-psmash", body=ONE + "0000008000003001", infos=OK, left="0100000000000000" "0002008000003001", exits=()),
    Psc(id="7-unsmash", body=ONE + "0000008000004001", infos=OK, left="0100000000000000" "0002008000004001", exits=()),
    Psc(id="8-misaligned", body=ONE + "0010008000001001", infos=INVALID_ENTRY, left=ONE + "0010008000001001", exits=()),
    Psc(id="8-misaligned-psmash", body=ONE + "0010008000003001", infos=INVALID_ENTRY, left=ONE + "0010008000003001"),
    Psc(id="8-misaligned-unsmash", body=ONE + "0010008000004001", infos=INVALID_ENTRY, left=ONE + "0010008000004001"),
    Psc(id="hdr-254", body="0000fd0000000000", infos=INVALID_HDR, left="0000fd0000000000", exits=()),
    Psc(id="hdr-past-end", body="0300020000000000", infos=OK, left="0300020000000000", exits=()),
    Psc(id="hdr-0x808-252", body="0000fc0000000000", infos=INVALID_HDR, left="0000fc0000000000", offset=0x808),
    Psc(id="hdr-0x808-251", body="0000fb0000000000", infos=OK, offset=0x808, exits=(),
        left="fc00fb0000000000" + "0100000000000000" * 252),
    Psc(id="scratch-0xfe8", body=ONE, infos=INVALID_HDR, left=ONE, offset=0xFE8),
    Psc(id="scratch-0xfe9", body="", infos=malformed(3), left="", offset=0xFE9),
    Psc(id="info1-not-registered", body=ONE + "00e0001f00002000", infos=malformed(1), left=ONE, enabled=False),
    Psc(id="info2-usage", body=ONE + "00e0001f00002000", infos=malformed(2), left=ONE, over={"usage": "01000000"}),
    Psc(id="info3-scratch-zero", body=ONE + "00e0001f00002000", infos=malformed(3), left=ONE,
        over={"scratch": "0000000000000000"}),
    Psc(id="info4-valid-bits", body=ONE + "00e0001f00002000", infos=malformed(4), left=ONE,
        over={"valid": "00000000000000000000000000001c00"}),
    Psc(id="info6-not-snp", body=ONE + "00e0001f00002000", infos=malformed(6), left=ONE, config={"snp": 0}),
    Psc(id="info6-unknown-exit-code", body=ONE + "00e0001f00002000", infos=malformed(6), left=ONE,
        over={"exit_code": "cdab008000000000"}),
    Psc(id="exits-off", body=ONE + "00e0001f00002000", infos=GENERIC, left=ONE + "00e0001f00002000",
        config={"exit_hypercall": 0}, exits=()),
    # cur_page of a finished 4 KiB entry may be 1: it is skipped.
    Psc(id="cur-page-1-of-4k", body=ONE + "01e0001f00002000", infos=OK, left="0100000000000000" "01e0001f00002000",
        exits=()),
    Psc(id="cur-page-2-of-4k", body=ONE + "02e0001f00002000", infos=INVALID_ENTRY, left=ONE + "02e0001f00002000"),
    Psc(id="cur-page-513-of-2m", body=ONE + "0102008000002001", infos=INVALID_ENTRY, left=ONE + "0102008000002001"),
    # reserved bits of header and entry are not looked at
    Psc(id="reserved-bits", body="00000000ffffffff" "00e0001f000020fe", infos=OK,
        left="01000000ffffffff" "01e0001f000020fe", after=(PAGE_0E,)),
    # SW_EXITINFO2 of the request is not a length
    Psc(id="exit-info2-ignored", body=ONE + "00e0001f00002000", infos=OK, left="0100000000000000" "01e0001f00002000",
        over={"exit_info2": "0020000000000000"}, after=(PAGE_0E,)),
]  # fmt: skip


@pytest.mark.parametrize("case", PSC, ids=lambda case: case.id)
def test_psc_host(case: Psc) -> None:
    backend = backend_with(*case.before)
    page = ghcb_page(case.body, offset=case.offset, **case.over)
    memory = GuestMemory(count_reads=True)
    memory.poke(GHCB, page)
    host = host_class("ghcb-psc")(
        load("ghcb-psc", profile=case.profile), config=case.config, backend=backend, memory=memory, enabled=case.enabled
    )
    call = host.call({"msr_c0010130": GHCB}, exits=True)
    asked: list[str] = []
    try:
        shown = next(call)
        while True:
            ((at, data),) = shown.mem
            assert at == 0
            asked.append(data.hex())
            shown = call.send(VmmReply())
    except StopIteration as end:
        answer: HostAnswer = end.value
    assert (answer.end, dict(answer.regs)) == ("return", {})
    left = bytearray(page)
    left[0x398:0x3A8] = bytes.fromhex(case.infos)
    left[case.offset : case.offset + len(bytes.fromhex(case.left))] = bytes.fromhex(case.left)
    assert memory.peek(GHCB, 4096).hex() == bytes(left).hex()
    assert shared_of(backend) == case.after
    if case.exits is not None:
        assert tuple(asked) == case.exits
    assert max(memory.reads_of(gpa) for gpa in range(GHCB, GHCB + 4096)) <= 1


# -- the other messages of the MSR protocol ---------------------------------------------------------------------------

MSR = [
    ("6-sev-info-request", "sev-info-request", 0x2, {}),
    ("6-sev-info", "sev-info-response", 0x0002000133000001, {"max_version": 2, "min_version": 1, "c_bit": 51}),
    ("7-register", "register-request", 0x0000000001234012, {"gfn": 0x1234}),
    ("7-registered", "register-response", 0x0000000001234013, {"gfn": 0x1234}),
    ("9-terminate-psc", "terminate-request", 0x0000000000011100, {"reason_set": 1, "reason_code": 1}),
    ("9-terminate", "terminate-request", 0x0000000000000100, {"reason_set": 0, "reason_code": 0}),
    ("preferred-none", "preferred-ghcb-response", 0xFFFFFFFFFFFFF011, {"gfn": 0xFFFFFFFFFFFFF}),
    ("cpuid-edx", "cpuid-request", 0x8000001FC0000004, {"function": 0x8000001F, "register": 3}),
    ("cpuid-answer", "cpuid-response", 0x12345678C0000005, {"value": 0x12345678, "register": 3}),
    ("run-vmpl-1", "run-vmpl-request", 0x0000000100000016, {"vmpl": 1}),
    ("features", "hv-features-response", 0x3081, {"sev_snp": 1, "ap_creation": 1}),
    ("psc-error", "response", 0x8000000000000015, {"error": 0x80000000}),
]


@pytest.mark.parametrize(("message", "value", "fields"), [row[1:] for row in MSR], ids=[row[0] for row in MSR])
def test_msr_message(message: str, value: int, fields: dict[str, int]) -> None:
    codec = load("ghcb-msr-psc").message(message)
    found = number(codec.decode({"msr_c0010130": value}))
    assert {name: found[name] for name in fields} == fields
    rest = {name: 0 for name in codec.fields if name not in fields and name != "info"}
    assert {name: found[name] for name in rest} == rest
    assert dict(codec.encode({**rest, **fields}).regs) == {"msr_c0010130": value}


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        pytest.param(0x2, 0x0002000133000001, id="sev-info"),
        pytest.param(0x0000000001234012, 0x0000000001234013, id="register"),
        pytest.param(0x10, 0xFFFFFFFFFFFFF011, id="preferred"),
        pytest.param(0x80, 0x3081, id="features"),
    ],
)
def test_msr_host(asked: int, told: int) -> None:
    host = host_class("ghcb-msr-psc")(load("ghcb-msr-psc"))
    assert dict(host.answer({"msr_c0010130": asked}).regs) == {"msr_c0010130": told}


@pytest.mark.parametrize("request_", [0x0000000000011100, 0x0000000000000100], ids=["psc", "general"])
def test_msr_termination_ends_the_guest(request_: int) -> None:
    assert host_class("ghcb-msr-psc")(load("ghcb-msr-psc")).answer({"msr_c0010130": request_}).end == "stop"


def test_msr_unknown_request_leaves_the_msr() -> None:
    answer = host_class("ghcb-msr-psc")(load("ghcb-msr-psc")).answer({"msr_c0010130": 0x1FFF})
    assert (answer.end, dict(answer.regs)) == ("return", {})


# -- KVM's host side --------------------------------------------------------------------------------------------------

ATTRIBUTES = [
    ("private", "0080011f00000000001000000000000008000000000000000000000000000000", 0x1F018000, 0x1000, 1),
    ("shared-2m", "0000008000000000000020000000000000000000000000000000000000000000", 0x80000000, 0x200000, 0),
]


@pytest.mark.parametrize(
    ("raw", "address", "size", "private"), [row[1:] for row in ATTRIBUTES], ids=[row[0] for row in ATTRIBUTES]
)
def test_memory_attributes(raw: str, address: int, size: int, private: int) -> None:
    spec = load("kvm-memory-attributes")
    codec = spec.message("request")
    wire = codec.encode(address=address, size=size, attributes={"is_private": private})
    assert (wire.hex(), wire.regs["cmd"]) == (raw, 0x4020AED2)
    found = number(codec.decode(bytes.fromhex(raw), strict=True))
    assert (found["address"], found["size"], found["attributes"]["is_private"]) == (address, size, private)
    memory = GuestMemory(count_reads=True)
    memory.poke(0x5000, bytes.fromhex(raw))
    before = ((address, size >> 12),) if private else ()
    host = host_class(spec.id)(spec, backend=backend_with(*before), memory=memory)
    answer = host.answer({"cmd": 0x4020AED2, "arg": 0x5000})
    assert (answer.end, dict(answer.regs), answer.mem) == ("return", {"ret": 0}, ())
    assert shared_of(host.backend) == (() if private else ((address, size >> 12),))
    assert max(memory.reads_of(gpa) for gpa in range(0x5000, 0x5020)) == 1


ATTRIBUTE_ERRORS = [
    ("flags", "0080011f00000000001000000000000008000000000000000100000000000000", 0xFFFFFFFFFFFFFFEA),
    ("unsupported", "0080011f00000000001000000000000009000000000000000000000000000000", 0xFFFFFFFFFFFFFFEA),
    ("empty", "0080011f00000000000000000000000008000000000000000000000000000000", 0xFFFFFFFFFFFFFFEA),
    ("to-2-64", "00f0ffffffffffff001000000000000008000000000000000000000000000000", 0xFFFFFFFFFFFFFFEA),
    ("unaligned", "0088011f00000000001000000000000008000000000000000000000000000000", 0xFFFFFFFFFFFFFFEA),
]


@pytest.mark.parametrize(
    ("raw", "ret"), [row[1:] for row in ATTRIBUTE_ERRORS], ids=[row[0] for row in ATTRIBUTE_ERRORS]
)
def test_memory_attributes_refused(raw: str, ret: int) -> None:
    host = host_class("kvm-memory-attributes")(load("kvm-memory-attributes"), backend=backend_with(PAGE_18))
    host.memory.poke(0x5000, bytes.fromhex(raw))
    assert dict(host.answer({"cmd": 0x4020AED2, "arg": 0x5000}).regs) == {"ret": ret}
    assert shared_of(host.backend) == (PAGE_18,)


def test_memory_attributes_that_cannot_be_read() -> None:
    backend = Backend(layout=MemoryLayout([(0, 5)]))
    host = host_class("kvm-memory-attributes")(load("kvm-memory-attributes"), backend=backend)
    # -EFAULT is -14; the structure begins in memory and ends outside.
    assert dict(host.answer({"cmd": 0x4020AED2, "arg": 0x4FF0}).regs) == {"ret": 0xFFFFFFFFFFFFFFF2}


EXITS = [
    ("private-4k", EXIT_PRIVATE_1F018, 0x1F018000, 1, 0, 1, 1),
    ("shared-2m", EXIT_SHARED_2M, 0x80000000, 512, 1, 0, 1),
    ("psc-rest", EXIT_PSC_REST, 0x80100000, 256, 1, 0, 0),
]


@pytest.mark.parametrize(
    ("raw", "gpa", "npages", "size", "encrypted", "long_mode"),
    [row[1:] for row in EXITS],
    ids=[row[0] for row in EXITS],
)
def test_exit_hypercall(raw: str, gpa: int, npages: int, size: int, encrypted: int, long_mode: int) -> None:
    spec = load("kvm-exit-hypercall")
    codec = spec.message("request")
    attributes = {"page_size": size, "encrypted": encrypted}
    wire = codec.encode(gpa=gpa, npages=npages, attributes=attributes, flags={"long_mode": long_mode})
    assert wire.hex() == raw
    assert len(raw) == 2 * 104
    found = number(codec.decode(bytes.fromhex(raw), strict=True))
    assert (found["exit_reason"], found["nr"], found["gpa"], found["npages"]) == (3, 12, gpa, npages)
    assert found["attributes"] == {"page_size": size, "encrypted": encrypted, "reserved": 0}
    assert found["flags"]["long_mode"] == long_mode
    before = ((gpa, npages),) if encrypted else ()
    host = host_class(spec.id)(spec, backend=backend_with(*before))
    # What a VMM finds in ret before it writes is of no matter.
    host.memory.poke(0, bytes.fromhex(raw))
    host.memory.poke(0x58, bytes.fromhex("efbeadde00000000"))
    answer = host.answer({})
    assert (answer.end, answer.mem) == ("return", ((0x58, bytes(8)),))
    assert shared_of(host.backend) == (() if encrypted else ((gpa, npages),))


RET = [("ok", "0000000000000000", 0), ("einval", "1600000000000000", 22), ("eagain", "0b00000000000000", 11)]


@pytest.mark.parametrize(("raw", "ret"), [row[1:] for row in RET], ids=[row[0] for row in RET])
def test_exit_hypercall_ret(raw: str, ret: int) -> None:
    spec = load("kvm-exit-hypercall")
    codec = spec.message("response")
    request = spec.message("request").decode(bytes.fromhex(EXIT_PRIVATE_1F018))
    wire = codec.encode(request=request, ret=ret)
    assert wire.mem == ((0x58, bytes.fromhex(raw)),)
    page = bytearray.fromhex(EXIT_PRIVATE_1F018)
    page[0x58:0x60] = bytes.fromhex(raw)
    assert int(codec.decode(Wire(mem=((0, bytes(page)),)), request=request).ret) == ret


CONSTANTS = [
    ("kvm-memory-attributes", "KVM_SET_MEMORY_ATTRIBUTES", 0x4020AED2),
    ("kvm-memory-attributes", "KVM_CAP_MEMORY_ATTRIBUTES", 233),
    ("kvm-map-gpa-range", "KVM_CAP_EXIT_HYPERCALL", 201),
    ("kvm-map-gpa-range", "KVM_ENABLE_CAP", 0x4068AEA3),
    ("kvm-map-gpa-range", "MSR_KVM_MIGRATION_CONTROL", 0x4B564D08),
    ("kvm-map-gpa-range", "EXIT_HYPERCALL_MASK", 0x1000),
    ("kvm-exit-hypercall", "KVM_EXIT_HYPERCALL", 3),
    ("tdx-map-gpa", "LEAF", 0x10001),
]


@pytest.mark.parametrize(("abi", "name", "value"), CONSTANTS, ids=[row[1] for row in CONSTANTS])
def test_constant(abi: str, name: str, value: int) -> None:
    assert load(abi).abi.constants[name].value == value


def test_kvm_errno_numbers() -> None:
    names = {"SUCCESS": 0, "NEG_EPERM": -1, "NEG_EINVAL": -22, "NEG_KVM_ENOSYS": -1000}
    values = load("kvm-map-gpa-range").abi.enums["hypercall-result"].values
    assert {name: values[name].value for name in names} == names


WORDS = [("10", 0, 1), ("11", 1, 1), ("12", 2, 1), ("00", 0, 0), ("01", 1, 0)]


@pytest.mark.parametrize(("raw", "size", "encrypted"), WORDS, ids=[row[0] for row in WORDS])
def test_attribute_word(raw: str, size: int, encrypted: int) -> None:
    codec = load("kvm-map-gpa-range").layout("map-gpa-attributes")
    data = bytes.fromhex(raw + "00000000000000")
    assert number(codec.decode(data, strict=True)) == {"page_size": size, "encrypted": encrypted, "reserved": 0}
    assert codec.encode(page_size=size, encrypted=encrypted) == data
