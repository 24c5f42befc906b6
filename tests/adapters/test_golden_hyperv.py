"""Golden bytes of the Hyper-V calls: codecs both ways, hosts, guests, and decoders of bytes that are wrong.

Every byte here is typed from public headers, OpenVMM and the TLFS; tests/data/golden/README.md says which.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from hvabi.abi import expr as expressions
from hvabi.abi.errors import CodecError
from hvabi.abi.registry import load
from hvabi.abi.values import plain
from hvabi.abi.wire import Wire
from hvabi.adapters.registry import guest_class, host_class
from hvabi.adapters.values import GuestCall, GuestReply, HostAnswer, Injection
from hvabi.backend import Backend, Conversion, GuestMemory, MemoryLayout, PageState
from tests.abi.test_foreigners import check_both_ways, part, q

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hvabi.adapters.host import Host

SELF = "ffffffffffffffff"
VISIBILITY, QUERY, ACCEPT = "hyperv-host-visibility", "hyperv-query-visibility", "hyperv-accept-pages"

# -- the codec of 0x00DB ------------------------------------------------------------------------------------------

SHARE = {"visibility": {"host_visibility": "READ_WRITE"}, "gpa_page_list": [0x1234]}
HYPERV_BLOCKS = {
    "share-1": (SHARE, 0x1_0000_00DB, "ffffffffffffffff03000000000000003412000000000000"),
    "private-3": (
        {"visibility": {"host_visibility": "NOT_VISIBLE"}, "gpa_page_list": [0x1234, 0x1236, 0x100000]},
        0x3_0000_00DB,
        "ffffffffffffffff0000000000000000341200000000000036120000000000000000100000000000",
    ),
    "read-only": (
        {"visibility": {"host_visibility": "READ_ONLY"}, "gpa_page_list": [0x1234]},
        0x1_0000_00DB,
        "ffffffffffffffff01000000000000003412000000000000",
    ),
    "visibility-2": (
        {"visibility": {"host_visibility": 2}, "gpa_page_list": [0x1234]},
        0x1_0000_00DB,
        "ffffffffffffffff02000000000000003412000000000000",
    ),
    "partition-2": ({**SHARE, "partition_id": 2}, 0x1_0000_00DB, "020000000000000003000000000000003412000000000000"),
    "no-element": (
        {"visibility": {"host_visibility": "READ_WRITE"}, "gpa_page_list": []},
        0x0000_00DB,
        "ffffffffffffffff0300000000000000",
    ),
    "variable-header": (
        {**SHARE, "control": {"call_code": 0xDB, "variable_header_size": 1, "rep_count": 1}},
        0x1_0002_00DB,
        "ffffffffffffffff03000000000000003412000000000000",
    ),
    "reserved0": (
        {"visibility": {"host_visibility": "READ_WRITE", "reserved0": 1}, "gpa_page_list": [0x1234]},
        0x1_0000_00DB,
        "ffffffffffffffff07000000000000003412000000000000",
    ),
    "control-bit-27": (
        {**SHARE, "control": {"call_code": 0xDB, "reserved0": 1, "rep_count": 1}},
        0x1_0800_00DB,
        "ffffffffffffffff03000000000000003412000000000000",
    ),
    "control-bit-44": (
        {**SHARE, "control": {"call_code": 0xDB, "rep_count": 1, "reserved1": 1}},
        0x1001_0000_00DB,
        "ffffffffffffffff03000000000000003412000000000000",
    ),
    "control-bit-60": (
        {**SHARE, "control": {"call_code": 0xDB, "rep_count": 1, "reserved2": 1}},
        0x1000_0001_0000_00DB,
        "ffffffffffffffff03000000000000003412000000000000",
    ),
    "second-of-two": (
        {
            "visibility": {"host_visibility": "READ_WRITE"},
            "gpa_page_list": [0x1234, 0x1236],
            "control": {"call_code": 0xDB, "rep_count": 2, "rep_start": 1},
        },
        0x1_0002_0000_00DB,
        "ffffffffffffffff030000000000000034120000000000003612000000000000",
    ),
    "most": (
        {"visibility": {"host_visibility": "READ_WRITE"}, "gpa_page_list": list(range(0x80000, 0x801FE))},
        0x1FE_0000_00DB,
        SELF + "0300000000000000" + q(*range(0x80000, 0x801FE)),
    ),
}


@pytest.mark.parametrize(("value", "control", "block"), HYPERV_BLOCKS.values(), ids=HYPERV_BLOCKS)
def test_hyperv_input_block(value: dict[str, Any], control: int, block: str) -> None:
    spec = load("hyperv-host-visibility")
    check_both_ways(
        spec,
        "request",
        {"input_gpa": 0x5000, **value},
        {"rcx": control, "rdx": 0x5000, "r8": 0},
        ((0x5000, block),),
        transport="memory64",
    )


def test_hyperv_most_elements_fill_the_page() -> None:
    block = bytes.fromhex(HYPERV_BLOCKS["most"][2])
    assert len(block) == 4096
    assert block[-8:].hex() == "fd01080000000000"


def test_hyperv_32_bit_registers() -> None:
    check_both_ways(
        load("hyperv-host-visibility"),
        "request",
        {"input_gpa": 0x1_2345_6000, **SHARE},
        {"rdx": 1, "rax": 0xDB, "rbx": 1, "rcx": 0x2345_6000, "rdi": 0, "rsi": 0},
        ((0x1_2345_6000, SELF + q(3, 0x1234)),),
        transport="memory32",
    )


def test_hyperv_block_in_registers() -> None:
    check_both_ways(
        load("hyperv-host-visibility"),
        "request",
        {"visibility": {"host_visibility": "READ_WRITE"}, "gpa_page_list": [0x1234, 0x1235, 0x1236]},
        {"rcx": 0x3_0001_00DB, "rdx": 0xFFFF_FFFF_FFFF_FFFF, "r8": 3, "xmm0": 0x1235 << 64 | 0x1234, "xmm1": 0x1236},
        (),
        transport="fast64",
    )


def test_hyperv_tdvmcall() -> None:
    check_both_ways(
        load("hyperv-host-visibility"),
        "request",
        {"input_gpa": 0x5000, **SHARE},
        {"rax": 0, "rcx": 0x0D04, "r10": 0x1_0000_00DB, "rdx": 0x5000, "r8": 0},
        ((0x5000, SELF + q(3, 0x1234)),),
        transport="tdvmcall",
    )


def test_hyperv_tdvmcall_pointer_may_carry_the_boundary_bit() -> None:
    codec = load("hyperv-host-visibility").message("request", transport="tdvmcall", config={"boundary_bits": 47})
    wire = codec.encode(input_gpa=1 << 47 | 0x5000, **SHARE)
    assert wire.regs["rdx"] == 1 << 47 | 0x5000
    assert [gpa for gpa, _ in wire.mem] == [0x5000]


def test_hyperv_ghcb_page() -> None:
    tail = "0000000000000000" + "db00000001000000" + "0000020001000000"
    image = SELF + q(3, 0x1234) + "00" * (0xFE8 - 24) + tail
    check_both_ways(
        load("hyperv-host-visibility"),
        "request",
        {"ghcb_gpa": 0x3000, **SHARE},
        {"msr_c0010130": 0x3000},
        ((0x3000, image),),
        transport="ghcb-page",
    )


HYPERV_RESULTS = {
    "share-1": (0x1_0000_0000, "SUCCESS", 1),
    "private-3": (0x3_0000_0000, "SUCCESS", 3),
    "most": (0x1FE_0000_0000, "SUCCESS", 510),
    "code": (0x2, "INVALID_HYPERCALL_CODE", 0),
    "input": (0x3, "INVALID_HYPERCALL_INPUT", 0),
    "alignment": (0x4, "INVALID_ALIGNMENT", 0),
    "parameter": (0x5, "INVALID_PARAMETER", 0),
    "access": (0x6, "ACCESS_DENIED", 0),
    "operation-after-7": (0x7_0000_0008, "OPERATION_DENIED", 7),
    "timeout-after-1": (0x1_0000_0078, "TIMEOUT", 1),
}


@pytest.mark.parametrize(("number", "status", "reps"), HYPERV_RESULTS.values(), ids=HYPERV_RESULTS)
def test_hyperv_result_word(number: int, status: str, reps: int) -> None:
    spec = load("hyperv-host-visibility")
    value = spec.layout("hv-result").decode(number.to_bytes(8, "little"))
    assert part(plain(value), {"status": "", "reps_completed": 0}) == {"status": status, "reps_completed": reps}
    assert spec.layout("hv-result").encode(status=status, reps_completed=reps) == number.to_bytes(8, "little")
    request = spec.message("request", transport="memory64").decode(
        Wire(regs={"rcx": 0x1_0000_00DB, "rdx": 0x5000}, mem=((0x5000, bytes.fromhex(SELF + q(3, 0x1234))),))
    )
    answer = spec.message("response", transport="memory64").decode({"rax": number}, request=request)
    assert plain(answer.result.status) == status


@pytest.mark.parametrize(
    ("transport", "gpa", "most"),
    [
        ("memory64", 0x5000, 510),
        ("memory32", 0x5000, 510),
        ("tdvmcall", 0x5000, 510),
        ("memory64", 0x5800, 254),
        ("memory64", 0x5FE8, 1),
        ("memory64", 0x5FF0, 0),
        ("fast64", 0, 12),
        ("ghcb-page", 0, 507),
    ],
)
def test_hyperv_most_elements(transport: str, gpa: int, most: int) -> None:
    abi = load("hyperv-host-visibility").abi
    env = {name: constant.value for name, constant in abi.constants.items()}
    env |= {name: limit.value for name, limit in abi.transports[transport].limits.items()}
    found = expressions.evaluate(abi.calls["modify"].define["max_reps"].expr, {**env, "input_gpa": gpa}, "int")
    assert found == most


# -- hosts --------------------------------------------------------------------------------------------------------


def host_of(
    abi: str,
    transport: str = "memory64",
    *,
    profile: str = "spec",
    shared: Sequence[tuple[int, int]] = (),
    slots: Sequence[tuple[int, int]] | None = None,
    config: dict[str, int] | None = None,
) -> Host:
    """A host with pages that are shared at first and slots of memory, both as (first page, end page)."""
    spec = load(abi, profile=profile)
    layout = MemoryLayout(slots)
    backend = Backend(facts=spec.abi.facts, layout=layout)
    for start, end in shared:
        backend.convert(Conversion(start, end - start, PageState.SHARED), absent="allow")
    memory = GuestMemory(layout)
    return host_class(abi)(spec, transport=transport, backend=backend, memory=memory, config=config or {})


def shared_of(host: Host) -> list[tuple[int, int]]:
    assert all(run.state is PageState.SHARED for run in host.backend.query())
    return [(run.start, run.end) for run in host.backend.query()]


def called(host: Host, control: int, block: str, *, at: int = 0x5000, output: int = 0, **more: Any) -> HostAnswer:
    """Make a call by the hypercall page with these bytes as input block."""
    host.memory.poke(at, bytes.fromhex(block))
    return host.answer({"rcx": control, "rdx": at, "r8": output}, **more)


SHARED_1 = SELF + "03000000000000003412000000000000"
VISIBILITY_ROWS = {
    "share one": (0x1_0000_00DB, SHARED_1, "spec", 0x1_0000_0000, [(0x1234, 0x1235)]),
    "read-only": (0x1_0000_00DB, SELF + "01000000000000003412000000000000", "openhcl", 5, []),
    "visibility 2": (0x1_0000_00DB, SELF + "02000000000000003412000000000000", "openhcl", 5, []),
    "partition 2": (0x1_0000_00DB, "020000000000000003000000000000003412000000000000", "openhcl", 6, []),
    "no element": (0xDB, SELF + "0300000000000000", "spec", 3, []),
    "no element, OpenHCL": (0xDB, SELF + "0300000000000000", "openhcl", 3, []),
    "variable header": (0x1_0002_00DB, SHARED_1, "spec", 3, []),
    "variable header, OpenHCL": (0x1_0002_00DB, SHARED_1, "openhcl", 3, []),
    "reserved bit 2": (
        0x1_0000_00DB,
        SELF + "07000000000000003412000000000000",
        "openhcl",
        0x1_0000_0000,
        [(0x1234, 0x1235)],
    ),
    "control bit 27": (0x1_0800_00DB, SHARED_1, "spec", 3, []),
    "control bit 44": (0x1001_0000_00DB, SHARED_1, "spec", 3, []),
    "control bit 60": (0x1000_0001_0000_00DB, SHARED_1, "spec", 3, []),
    "control bit 27, OpenHCL": (0x1_0800_00DB, SHARED_1, "openhcl", 0x1_0000_0000, [(0x1234, 0x1235)]),
    "control bit 44, OpenHCL": (0x1001_0000_00DB, SHARED_1, "openhcl", 0x1_0000_0000, [(0x1234, 0x1235)]),
    "control bit 60, OpenHCL": (0x1000_0001_0000_00DB, SHARED_1, "openhcl", 0x1_0000_0000, [(0x1234, 0x1235)]),
    "lock, not query": (0x1_0000_00DC, SHARED_1, "spec", 2, []),
    "the last of ten": (
        0xA_0000_00DB | 9 << 48,
        SELF + q(3, *range(0x20, 0x2A)),
        "spec",
        0xA_0000_0000,
        [(0x29, 0x2A)],
    ),
    "wraps to a page that there is": (0x1_0000_00DB, SELF + q(3, 0x10_0000_0000_1234), "openhcl", 8, []),
}


@pytest.mark.parametrize(
    ("control", "block", "profile", "result", "after"), VISIBILITY_ROWS.values(), ids=VISIBILITY_ROWS
)
def test_visibility_host(control: int, block: str, profile: str, result: int, after: list[tuple[int, int]]) -> None:
    host = host_of(VISIBILITY, profile=profile)
    answer = called(host, control, block)
    assert (answer.end, dict(answer.regs), answer.mem) == ("return", {"rax": result}, ())
    assert shared_of(host) == after


def test_three_pages_to_private() -> None:
    host = host_of(VISIBILITY, shared=[(0x1234, 0x1237), (0x100000, 0x100001)])
    block = "ffffffffffffffff0000000000000000341200000000000036120000000000000000100000000000"
    assert dict(called(host, 0x3_0000_00DB, block).regs) == {"rax": 0x3_0000_0000}
    assert shared_of(host) == [(0x1235, 0x1236)]


@pytest.mark.parametrize(("profile", "refusal"), [("spec", 4), ("openhcl", 3), ("openvmm-whp", 3)])
def test_a_page_holds_510_and_not_511(profile: str, refusal: int) -> None:
    host = host_of(VISIBILITY, profile=profile)
    assert dict(called(host, 0x1FE_0000_00DB, SELF + q(3, *range(0x80000, 0x801FE))).regs) == {"rax": 0x1FE_0000_0000}
    assert shared_of(host) == [(0x80000, 0x801FE)]
    assert dict(called(host, 0x1FF_0000_00DB, SELF + q(3, *range(0x90000, 0x901FF))).regs) == {"rax": refusal}
    assert shared_of(host) == [(0x80000, 0x801FE)]


@pytest.mark.parametrize(("profile", "result"), [("spec", 4), ("openhcl", 3)])
def test_the_whole_list_counts_also_behind_rep_start(profile: str, result: int) -> None:
    # 2 elements at 0x5fe8 end at 0x6008; the one that is left would fit.
    host = host_of(VISIBILITY, profile=profile)
    answer = called(host, 0x1_0002_0000_00DB, SELF + q(3, 0x1234, 0x1236), at=0x5FE8)
    assert dict(answer.regs) == {"rax": result}


def test_misaligned_and_straddling_is_straddling_for_openvmm() -> None:
    assert dict(called(host_of(VISIBILITY), 0x1_0000_00DB, SHARED_1, at=0x5004).regs) == {"rax": 4}
    both = host_of(VISIBILITY, profile="openhcl")
    assert dict(called(both, 0x1_0000_00DB, SHARED_1, at=0x5FF4).regs) == {"rax": 3}


def test_only_the_hypercall_page_of_openhcl_knows_the_call() -> None:
    host = host_of(VISIBILITY, "tdvmcall", profile="openhcl")
    host.memory.poke(0x5000, bytes.fromhex(SHARED_1))
    regs = {"rax": 0, "rcx": 0xD04, "r10": 0x1_0000_00DB, "rdx": 0x5000, "r8": 0}
    assert dict(host.answer(regs).regs) == {"r11": 2}
    assert dict(host_of(VISIBILITY, "tdvmcall").answer(regs).regs) != {"r11": 2}


def test_prevalidation_and_order_of_elements() -> None:
    slots = [(0, 0x1000), (0x1234, 0x1235)]
    block = SELF + q(3, 0x1234, 0x1236)
    for profile, result, after in (("openhcl", 8, []), ("spec", 0x1_0000_0008, [(0x1234, 0x1235)])):
        host = host_of(VISIBILITY, profile=profile, slots=slots)
        assert dict(called(host, 0x2_0000_00DB, block).regs) == {"rax": result}, profile
        assert shared_of(host) == after


def test_whp_denies_a_page_that_is_not_accepted_where_it_comes() -> None:
    host = host_of(VISIBILITY, profile="openvmm-whp")
    host.backend.set_fact("unaccepted", 0x1236, 0x1237, True)
    assert dict(called(host, 0x3_0000_00DB, SELF + q(3, 0x1234, 0x1236, 0x1238)).regs) == {"rax": 0x1_0000_0008}
    assert shared_of(host) == [(0x1234, 0x1235)]


def test_a_stop_is_executed_again_or_a_timeout() -> None:
    block = SELF + q(3, 0x1234, 0x1236)
    memory = host_of(VISIBILITY)
    first = called(memory, 0x2_0000_00DB, block, inject=Injection(stop_after=1))
    assert (first.end, dict(first.regs), shared_of(memory)) == (
        "replay",
        {"rcx": 0x1_0002_0000_00DB},
        [(0x1234, 0x1235)],
    )
    again = memory.answer({"rcx": 0x1_0002_0000_00DB, "rdx": 0x5000, "r8": 0})
    assert (dict(again.regs), shared_of(memory)) == ({"rax": 0x2_0000_0000}, [(0x1234, 0x1235), (0x1236, 0x1237)])
    for profile, end, regs in (
        ("spec", "return", {"r11": 0x1_0000_0078}),
        ("openhcl", "return", {"r11": 2}),
        ("openvmm-whp", "return", {"r11": 0x1_0000_0078}),
    ):
        td = host_of(VISIBILITY, "tdvmcall", profile=profile)
        td.memory.poke(0x5000, bytes.fromhex(block))
        asked = {"rax": 0, "rcx": 0xD04, "r10": 0x2_0000_00DB, "rdx": 0x5000, "r8": 0}
        answer = td.answer(asked, inject=Injection(stop_after=1))
        assert (answer.end, dict(answer.regs)) == (end, regs)


def test_openvmm_repeats_a_tdvmcall_with_the_control_in_r10() -> None:
    spec = load(VISIBILITY, policies={"tdvmcall-timeout": "replay"})
    host = host_class(VISIBILITY)(spec, transport="tdvmcall", backend=Backend(facts=spec.abi.facts))
    host.memory.poke(0x5000, bytes.fromhex(SELF + q(3, 0x1234, 0x1236)))
    regs = {"rax": 0, "rcx": 0xD04, "r10": 0x2_0000_00DB, "rdx": 0x5000, "r8": 0}
    answer = host.answer(regs, inject=Injection(stop_after=1))
    assert (answer.end, dict(answer.regs)) == ("replay", {"r11": 0x78, "r10": 0x1_0002_0000_00DB})


def test_ghcb_page_is_overwritten_by_the_result() -> None:
    host = host_of(VISIBILITY, "ghcb-page")
    host.memory.poke(0x3000, bytes.fromhex(SHARED_1))
    host.memory.poke(0x3FE8, bytes.fromhex("0000000000000000db000000010000000000020001000000"))
    answer = host.answer({"msr_c0010130": 0x3000})
    assert (answer.end, answer.mem, shared_of(host)) == (
        "return",
        ((0x3FF0, bytes.fromhex("0000000001000000")),),
        [(0x1234, 0x1235)],
    )


def test_tdvmcall_pointer_with_and_without_the_boundary_bit() -> None:
    for pointer in (0x5000, 1 << 47 | 0x5000):
        host = host_of(VISIBILITY, "tdvmcall", config={"boundary_bits": 47})
        host.memory.poke(0x5000, bytes.fromhex(SHARED_1))
        regs = {"rax": 0, "rcx": 0xD04, "r10": 0x1_0000_00DB, "rdx": pointer, "r8": 0}
        assert dict(host.answer(regs).regs) == {"r11": 0x1_0000_0000}


# -- 0x011C -------------------------------------------------------------------------------------------------------

ASK_2 = SELF + "34120000000000003512000000000000"


def test_query_host() -> None:
    for profile in ("spec", "openhcl"):
        host = host_of(QUERY, profile=profile, shared=[(0x1234, 0x1235)])
        answer = called(host, 0x2_0000_011C, ASK_2, output=0x6000)
        assert (dict(answer.regs), answer.mem) == ({"rax": 0x2_0000_0000}, ((0x6000, bytes([3, 0])),))
        assert shared_of(host) == [(0x1234, 0x1235)]


@pytest.mark.parametrize(("profile", "refusal"), [("spec", 4), ("openhcl", 3)])
def test_query_511_fit_a_page(profile: str, refusal: int) -> None:
    host = host_of(QUERY, profile=profile, shared=[(0x80001, 0x80002)])
    answer = called(host, 0x1FF_0000_011C, SELF + q(*range(0x80000, 0x801FF)), output=0x6000)
    assert dict(answer.regs) == {"rax": 0x1FF_0000_0000}
    assert answer.mem == ((0x6000, b"\0\3" + bytes(509)),)
    answer = called(host, 0x200_0000_011C, SELF + q(*range(0x80000, 0x80200)), output=0x6000)
    assert (dict(answer.regs), answer.mem) == ({"rax": refusal}, ())


def test_query_of_no_memory_says_where() -> None:
    host = host_of(QUERY, slots=[(0, 0x1235)])
    assert dict(called(host, 0x2_0000_011C, ASK_2, output=0x6000).regs) == {"rax": 0x1_0000_0008}


def test_query_codec_both_ways() -> None:
    check_both_ways(
        load(QUERY),
        "request",
        {"input_gpa": 0x5000, "output_gpa": 0x6000, "gpa_page_list": [0x1234, 0x1235]},
        {"rcx": 0x2_0000_011C, "rdx": 0x5000, "r8": 0x6000},
        ((0x5000, ASK_2), (0x6000, "0000")),
        transport="memory64",
    )


# -- 0x00D9 -------------------------------------------------------------------------------------------------------

ACCEPT_ROWS = {
    "sixteen private": (
        0x10_0000_00D9,
        SELF + "01000000000000000000100000000000",
        "spec",
        0x10_0000_0000,
        [],
        (0x100000, 16),
    ),
    "a boot shim's": (
        0x1FD_0000_00D9,
        SELF + "01040000000000000080000000000000",
        "spec",
        0x1FD_0000_0000,
        [],
        (0x8000, 509),
    ),
    "one shared": (
        0x1_0000_00D9,
        SELF + "c1000000000000000002000000000000",
        "openvmm-whp",
        0x1_0000_0000,
        [(0x200, 0x201)],
        (0x200, 1),
    ),
    "VTL 2 with all": (
        0x1_0000_00D9,
        SELF + "0004000000000f000002000000000000",
        "openvmm-whp",
        0x1_0000_0000,
        [],
        (0x200, 1),
    ),
    "VTL 2 with write only": (0x1_0000_00D9, SELF + "00040000000002000002000000000000", "openvmm-whp", 5, [], None),
    "read-only": (0x1_0000_00D9, SELF + "41000000000000000002000000000000", "openvmm-whp", 5, [], None),
    "twelve of sixteen": (
        0x4_0010_0000_00D9,
        SELF + "01000000000000000000100000000000",
        "spec",
        0x10_0000_0000,
        [],
        (0x100004, 12),
    ),
    "510": (0x1FE_0000_00D9, SELF + "01000000000000000080000000000000", "openvmm-whp", 3, [], None),
}


@pytest.mark.parametrize(
    ("control", "block", "profile", "result", "shared", "accepted"), ACCEPT_ROWS.values(), ids=ACCEPT_ROWS
)
def test_accept_host(
    control: int, block: str, profile: str, result: int, shared: list[tuple[int, int]], accepted: tuple[int, int] | None
) -> None:
    host = host_of(ACCEPT, profile=profile)
    answer = called(host, control, block)
    assert (dict(answer.regs), answer.mem, shared_of(host)) == ({"rax": result}, (), shared)
    runs = [(run.start, run.end - run.start) for run in host.backend.fact_runs("accepted")]
    assert runs == ([accepted] if accepted else [])


def test_accept_codec_both_ways() -> None:
    check_both_ways(
        load(ACCEPT),
        "request",
        {
            "control": {"call_code": 0xD9, "rep_count": 509},
            "input_gpa": 0x5000,
            "attributes": {"memory_type": "RAM", "host_visibility": "NOT_VISIBLE", "vtl_set": 4},
            "gpa_page_base": 0x8000,
        },
        {"rcx": 0x1FD_0000_00D9, "rdx": 0x5000, "r8": 0},
        ((0x5000, SELF + "01040000000000000080000000000000"),),
        transport="memory64",
    )


# -- guests -------------------------------------------------------------------------------------------------------


def asked_by(
    abi: str, transport: str, gpa: int, pages: int, to: PageState, *answers: dict[str, int]
) -> list[GuestCall]:
    """Return the calls of a guest that converts, given these answers."""
    conversation = guest_class(abi)(load(abi), transport=transport, scratch=(5, 7)).convert(gpa, pages, to)
    calls = []
    step = next(conversation)
    for answer in answers:
        assert isinstance(step, GuestCall)
        calls.append(step)
        try:
            step = conversation.send(GuestReply(regs=answer))
        except StopIteration as end:
            result = end.value
    assert result.done
    return calls


def test_guest_fills_a_page_and_goes_on_behind_a_timeout() -> None:
    first, second = asked_by(
        VISIBILITY, "memory64", 0x80000000, 512, PageState.SHARED, {"rax": 0x1FE_0000_0000}, {"rax": 0x2_0000_0000}
    )
    assert (dict(first.regs), first.mem) == (
        {"rcx": 0x1FE_0000_00DB, "rdx": 0x5000, "r8": 0},
        ((0x5000, bytes.fromhex(SELF + q(3, *range(0x80000, 0x801FE)))),),
    )
    assert (second.regs["rcx"], second.mem) == (
        0x2_0000_00DB,
        ((0x5000, bytes.fromhex(SELF + q(3, 0x801FE, 0x801FF))),),
    )
    calls = asked_by(
        VISIBILITY, "tdvmcall", 0x1234000, 2, PageState.PRIVATE, {"r11": 0x1_0000_0078}, {"r11": 0x2_0000_0000}
    )
    assert [call.regs["r10"] for call in calls] == [0x2_0000_00DB, 0x1_0002_0000_00DB]
    assert {call.mem for call in calls} == {((0x5000, bytes.fromhex(SELF + q(0, 0x1234, 0x1235))),)}


def test_guest_accepts_509_pages_at_a_time() -> None:
    calls = asked_by(
        ACCEPT, "memory64", 0x8000000, 510, PageState.PRIVATE, {"rax": 0x1FD_0000_0000}, {"rax": 0x1_0000_0000}
    )
    assert [call.regs["rcx"] for call in calls] == [0x1FD_0000_00D9, 0x1_0000_00D9]
    assert [call.mem for call in calls] == [
        ((0x5000, bytes.fromhex(SELF + "0100000000000000" + q(base))),) for base in (0x8000, 0x81FD)
    ]


# -- bytes that are wrong -----------------------------------------------------------------------------------------


def test_another_call_code_or_form_is_another_message() -> None:
    codec = load(VISIBILITY).message("request", transport="memory64")
    mem = ((0x5000, bytes.fromhex(SHARED_1)),)
    for control in (0x1_0000_011C, 0x1_0000_00DC, 0x1_0001_00DB, 0xDB00_0000_0100_0000):
        with pytest.raises(CodecError) as error:
            codec.decode(Wire(regs={"rcx": control, "rdx": 0x5000, "r8": 0}, mem=mem))
        assert (error.value.code, error.value.path.partition(".")[0]) == ("const-mismatch", "control")
    with pytest.raises(CodecError) as error:
        codec.decode(Wire(regs={"rcx": 0x2_0000_00DB, "rdx": 0x5000, "r8": 0}, mem=mem))
    assert error.value.code == "truncated"


def test_ghcb_page_alone_is_a_body() -> None:
    page = bytearray(4096)
    page[:24] = bytes.fromhex(SHARED_1)
    page[0xFE8:] = bytes.fromhex("0000000000000000db000000010000000000020001000000")
    spec = load(VISIBILITY)
    request = spec.message("request", transport="ghcb-page").decode(bytes(page))
    assert request.gpa_page_list == (0x1234,)
    for wrong in (bytes(page[:-1]), bytes(page) + b"\0"):
        with pytest.raises(CodecError) as error:
            spec.message("request", transport="ghcb-page").decode(wrong)
        assert error.value.code in {"truncated", "oversized"}
    page[0xFF0:0xFF8] = bytes.fromhex("0000000001000000")
    answer = spec.message("response", transport="ghcb-page").decode(bytes(page))
    assert plain(answer.result)["reps_completed"] == 1


CODES = {VISIBILITY: 0xDB, QUERY: 0x11C, ACCEPT: 0xD9}


@pytest.mark.parametrize(("abi", "code"), CODES.items(), ids=list(CODES))
def test_call_codes(abi: str, code: int) -> None:
    names = [
        name
        for name in load(abi).abi.constants
        if name in ("HV_MODIFY_VISIBILITY", "HV_QUERY_VISIBILITY", "HV_ACCEPT_PAGES")
    ]
    assert [load(abi).abi.constants[name].value for name in names] == [code]
