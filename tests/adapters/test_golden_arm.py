"""Registers of the Arm calls, typed by hand: worked examples, and what Linux 7.3.4's own pKVM answered.

CCA: TF-RMM 9a7f8ef and the compliance suite 5d83304, by reading. pKVM: Linux and Android sources by reading, and the
answers of a protected VM under Linux 7.3.4 (`-M virt,virtualization=on`, kvm-arm.mode=protected), observed 2026-11-22.
No number here was printed by hvabi.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from hvabi.abi.registry import load
from hvabi.abi.values import plain
from hvabi.abi.wire import Wire
from hvabi.adapters.registry import host_class
from hvabi.adapters.values import HostAnswer, Injection
from hvabi.backend import Backend, GuestMemory, MemoryLayout, PageState

MINUS_1 = 0xFFFFFFFFFFFFFFFF
MINUS_3 = 0xFFFFFFFFFFFFFFFD
SHARED = PageState.SHARED
Regs = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One call: x0, x1, … in and out, shared pages as (gpa, 4 KiB pages), slots as (gpa, pages)."""

    id: str
    sent: Regs
    answer: Regs = ()
    revision: str | None = None
    profile: str = "spec"
    config: dict[str, int] = field(default_factory=dict)
    before: tuple[tuple[int, int], ...] = ()
    after: tuple[tuple[int, int], ...] = ()
    facts: dict[str, tuple[int, int]] = field(default_factory=dict)
    memory: tuple[tuple[int, int], ...] | None = None
    stop_after: int | None = None
    enabled: bool = True
    end: str = "return"


def registers(values: Regs) -> dict[str, int]:
    return {f"x{number}": value for number, value in enumerate(values)}


def ask(abi: str, row: Row) -> tuple[HostAnswer, Any]:
    spec = load(abi, revision=row.revision, profile=row.profile)
    slots = None if row.memory is None else [(gpa >> 12, (gpa >> 12) + pages) for gpa, pages in row.memory]
    layout = MemoryLayout(slots)
    backend = Backend(layout=layout, facts=spec.abi.facts)
    backend.reset(
        [(gpa >> 12, (gpa >> 12) + pages, SHARED) for gpa, pages in row.before],
        {name: [(gpa >> 12, (gpa >> 12) + pages)] for name, (gpa, pages) in row.facts.items()},
    )
    host = host_class(abi)(
        spec, backend=backend, memory=GuestMemory(layout), config=row.config, enabled=row.enabled
    )  # fmt: skip
    return host.answer(registers(row.sent), inject=Injection(stop_after=row.stop_after)), host


def check(abi: str, row: Row) -> None:
    answer, host = ask(abi, row)
    assert answer.end == row.end
    for name, value in registers(row.answer).items():
        assert answer.regs[name] == value, name
    found = [(run.start << 12, run.end - run.start) for run in host.backend.query()]
    assert found == sorted(row.after)


# -- CCA --------------------------------------------------------------------------------------------------------------

IPA_40 = {"ipa_width": 40}
SET, GET = 0xC4000197, 0xC4000198
G = 0x80000000

CCA = [
    Row(id="1-share-16k", sent=(SET, G, G + 0x4000, 0, 1), answer=(0, G + 0x4000, 0), after=((G, 4),)),
    Row(id="2-one-granule", sent=(SET, G, G + 0x4000, 0, 1), answer=(0, G + 0x1000, 0), after=((G, 1),), stop_after=1),
    Row(id="2-reissued", sent=(SET, G + 0x1000, G + 0x4000, 0, 1), answer=(0, G + 0x4000, 0), before=((G, 1),),
        after=((G, 4),)),
    Row(id="3-nothing", sent=(SET, G, G + 0x4000, 0, 1), answer=(0, G, 0), stop_after=0),
    Row(id="to-ram", sent=(SET, G, G + 0x4000, 1, 1), answer=(0, G + 0x4000, 0), before=((G, 4),)),
    Row(id="6-base-align", sent=(SET, G + 1, G + 0x4000, 0, 0), answer=(1, 0, 0)),
    Row(id="top-align", sent=(SET, G, G + 0x4001, 0, 0), answer=(1, 0, 0)),
    Row(id="7-size-valid", sent=(SET, G, G, 0, 0), answer=(1, 0, 0)),
    Row(id="10-ripas-valid", sent=(SET, G, G + 0x1000, 2, 0), answer=(1, 0, 0)),
    Row(id="ripas-dev", sent=(SET, G, G + 0x1000, 3, 0), answer=(1, 0, 0)),
    Row(id="12-alias", sent=(SET, 0x8080000000, 0x8080001000, 0, 0), answer=(1, 0, 0)),
    Row(id="rgn-bound", sent=(SET, 0x7FFFFFF000, 0x8000001000, 0, 0), answer=(1, 0, 0)),
    Row(id="last-page", sent=(SET, 0x7FFFFFF000, 0x8000000000, 0, 0), answer=(0, 0x8000000000, 0),
        after=((0x7FFFFFF000, 1),)),
    Row(id="sve-hint", sent=(0xC4010197, G, G + 0x1000, 0, 0), answer=(0, G + 0x1000, 0), after=((G, 1),)),
    Row(id="unknown", sent=(0xC40001A9, G, G + 0x1000, 0, 0), answer=(MINUS_1,)),
    Row(id="high-bits-of-x3-are-dropped", sent=(SET, G, G + 0x1000, 0x1_0000_0001, 0), answer=(0, G + 0x1000, 0),
        before=((G, 1),), profile="tf-rmm-0.9"),
    Row(id="middle-bits-of-x3-are-not", sent=(SET, G, G + 0x1000, 0x101, 0), answer=(1, 0, 0), before=((G, 1),),
        after=((G, 1),), profile="tf-rmm-0.9"),
    Row(id="flag-3-is-no-flag", sent=(SET, G, G + 0x1000, 1, 3), answer=(0, G), facts={"destroyed": (G, 1)},
        before=((G, 1),), after=((G, 1),), profile="tf-rmm-0.9"),
    Row(id="flag-with-bit-32-is-one", sent=(SET, G, G + 0x1000, 1, 0x1_0000_0001), answer=(0, G + 0x1000, 0),
        facts={"destroyed": (G, 1)}, before=((G, 1),), profile="tf-rmm-0.9"),
    Row(id="destroyed-to-empty-0.9", sent=(SET, G, G + 0x3000, 0, 0), answer=(0, G + 0x3000, 0), after=((G, 3),),
        facts={"destroyed": (G + 0x1000, 1)}, profile="tf-rmm-0.9"),
    Row(id="destroyed-to-empty-0.7", sent=(SET, G, G + 0x3000, 0, 0), answer=(0, G + 0x1000, 0), after=((G, 1),),
        facts={"destroyed": (G + 0x1000, 1)}, profile="tf-rmm-0.7", revision="rmm-1.0"),
    Row(id="device-stays", sent=(SET, G, G + 0x3000, 1, 1), answer=(0, G + 0x2000), before=((G, 3),),
        after=((G + 0x2000, 1),), facts={"device": (G + 0x2000, 1)}, profile="tf-rmm-0.9"),
    Row(id="get-empty", sent=(GET, G, G + 0x1000), answer=(0, G + 0x1000, 0), before=((G, 1),), after=((G, 1),)),
    Row(id="get-ram", sent=(GET, G, G + 0x1000), answer=(0, G + 0x1000, 1)),
    Row(id="get-clipped", sent=(GET, G, G + 0x3000), answer=(0, G + 0x3000, 1), before=((G + 0x4000, 1),),
        after=((G + 0x4000, 1),)),
    Row(id="get-run", sent=(GET, G, G + 0x4000), answer=(0, G + 0x2000, 0), before=((G, 2),), after=((G, 2),)),
    Row(id="get-destroyed", sent=(GET, G, G + 0x4000), answer=(0, G + 0x2000, 2), facts={"destroyed": (G, 2)}),
    Row(id="get-until-destroyed", sent=(GET, G, G + 0x4000), answer=(0, G + 0x1000, 1),
        facts={"destroyed": (G + 0x1000, 1)}),
    Row(id="get-device", sent=(GET, G, G + 0x1000), answer=(0, G + 0x1000, 3), facts={"device": (G, 1)}),
    Row(id="get-unaligned", sent=(GET, G + 0x800, G + 0x1000), answer=(1, 0, 0)),
    Row(id="get-empty-range", sent=(GET, G, G), answer=(1, 0, 0)),
    Row(id="get-alias", sent=(GET, 0x8080000000, 0x8080001000), answer=(1, 0, 0)),
]  # fmt: skip


@pytest.mark.parametrize("row", CCA, ids=lambda row: row.id)
def test_cca(row: Row) -> None:
    check("cca-ipa-state", Row(**{**vars(row), "config": IPA_40}))


REQUESTS: dict[str, tuple[dict[str, Any], Regs]] = {
    "share": (
        {"base": G, "top": G + 0x4000, "ripas": "EMPTY", "change_destroyed": 1, "sve_hint": 0},
        (SET, G, G + 0x4000, 0, 1),
    ),
    "destroyed": (
        {"base": G, "top": G + 0x1000, "ripas": "DESTROYED", "change_destroyed": 0},
        (SET, G, G + 0x1000, 2, 0),
    ),
    "upper-bits": (
        {"base": G, "top": G + 0x1000, "ripas": "RAM", "ripas_middle": 1, "ripas_high": 1, "change_destroyed": 1,
         "flags": 1},
        (SET, G, G + 0x1000, 0x1_0000_0101, 3),
    ),
    "sve-hint": (
        {"sve_hint": 1, "base": G, "top": G + 0x1000, "ripas": "RAM", "change_destroyed": 0},
        (0xC4010197, G, G + 0x1000, 1, 0),
    ),
}  # fmt: skip


@pytest.mark.parametrize("revision", ["rmm-1.0", "rmm-1.1"])
@pytest.mark.parametrize(("value", "regs"), REQUESTS.values(), ids=REQUESTS)
def test_cca_request_both_ways(revision: str, value: dict[str, Any], regs: Regs) -> None:
    codec = load("cca-ipa-state", revision=revision).message("request")
    assert dict(codec.encode(value).regs) == registers(regs)
    found = plain(codec.decode(Wire(regs=registers(regs), mem=())))
    assert {name: found[name] for name in value} == value


@pytest.mark.parametrize(
    ("regs", "status", "new_base", "said"),
    [
        ((0, G + 0x4000, 0), "RSI_SUCCESS", G + 0x4000, "ACCEPT"),
        ((0, G, 1), "RSI_SUCCESS", G, "REJECT"),
        ((1, 0, 0), "RSI_ERROR_INPUT", 0, "ACCEPT"),
        ((MINUS_1, 0, 0), "SMC_UNKNOWN", 0, "ACCEPT"),
    ],
    ids=["done", "reject", "input", "unknown"],
)
def test_cca_answer_both_ways(regs: Regs, status: str, new_base: int, said: str) -> None:
    codec = load("cca-ipa-state").message("response")
    expected = {"status": status, "new_base": new_base, "host_response": said, "reserved": 0}
    assert plain(codec.decode(registers(regs))) == expected
    assert dict(codec.encode(expected).regs) == registers(regs)


def test_cca_get_request_both_ways() -> None:
    codec = load("cca-ipa-state").message("get-request")
    assert dict(codec.encode({"base": G, "end": G + 0x4000}).regs) == registers((GET, G, G + 0x4000))


def test_cca_host_sees_the_range() -> None:
    """The exit for the first example: 4 at 0x800, then 0x80000000, 0x80004000 and 0 from 0xd00 on."""
    spec = load("cca-ipa-state")
    raw = bytes.fromhex("0000008000000000" + "0040008000000000" + "00")
    assert spec.layout("rec-exit-ripas").encode(ripas_base=G, ripas_top=G + 0x4000, ripas_value="EMPTY") == raw
    assert spec.layout("rec-exit-reason").encode(reason="RIPAS_CHANGE") == bytes.fromhex("0400000000000000")
    assert spec.layout("rec-enter-flags").encode(ripas_response="REJECT") == bytes.fromhex("1000000000000000")
    offsets = {
        name: spec.abi.constants[name].value for name in ("REC_ENTER_FLAGS", "REC_EXIT_REASON", "REC_EXIT_RIPAS")
    }
    assert offsets == {"REC_ENTER_FLAGS": 0x0, "REC_EXIT_REASON": 0x800, "REC_EXIT_RIPAS": 0xD00}


def test_cca_a_host_that_refuses() -> None:
    """A change to RAM is rejected; one to EMPTY never is, it makes no progress."""
    spec = load("cca-ipa-state")
    for ripas, said in ((1, 1), (0, 0)):
        host = host_class("cca-ipa-state")(spec, backend=Backend(facts=spec.abi.facts))
        answer = host.answer(registers((SET, G, G + 0x4000, ripas, 1)), inject=Injection(vmm_errno=22))
        assert [answer.regs[name] for name in ("x0", "x1", "x2")] == [0, G, said]
        assert host.backend.query() == ()


# -- pKVM -------------------------------------------------------------------------------------------------------------

FEATURES, UID, MEMINFO, SHARE, UNSHARE = 0x86000000, 0x8600FF01, 0xC6000002, 0xC6000003, 0xC6000004
P = 0x40001000
LINUX, OLD, ANDROID = "linux-7.3", "linux-03313ef", "android"
RAM = ((0x40000000, 0x1000),)

PKVM = [
    # Worked examples: upstream, then Android.
    Row(id="1-meminfo", sent=(MEMINFO, 0, 0, 0), answer=(0x1000, 0)),
    Row(id="1-meminfo-android", sent=(MEMINFO, 0, 0, 0), answer=(0x1000, 1), revision="android"),
    Row(id="2-meminfo-mbz", sent=(MEMINFO, 0, 1, 0), answer=(MINUS_3, 0)),
    Row(id="3-share", sent=(SHARE, P, 0, 0), answer=(0, 0), after=((P, 1),)),
    Row(id="3-share-android", sent=(SHARE, P, 0, 0), answer=(0, 1), after=((P, 1),), revision="android"),
    Row(id="5-unaligned", sent=(SHARE, P + 0x800, 0, 0), answer=(MINUS_3, 0)),
    Row(id="5-unaligned-android", sent=(SHARE, P + 0x800, 0, 0), answer=(MINUS_3, 0), revision="android"),
    Row(id="7-unshare", sent=(UNSHARE, P, 0, 0), answer=(0, 0), before=((P, 1),)),
    Row(id="7-unshare-android", sent=(UNSHARE, P, 0, 0), answer=(0, 1), before=((P, 1),), revision="android"),
    Row(id="7-unshare-before-it-was-there", sent=(UNSHARE, P, 0, 0), answer=(MINUS_1,), before=((P, 1),),
        after=((P, 1),), profile=OLD),
    Row(id="9-relinquish-upstream", sent=(0xC6000009, 0x40002000, 0, 0), answer=(MINUS_1,)),
    Row(id="10-mmio-guard-upstream", sent=(0xC6000007, 0x09000000, 0, 0), answer=(MINUS_1,)),
    Row(id="uid", sent=(UID,), answer=(0xB66FB428, 0xE911C52E, 0x564BCAA9, 0x743A004D)),
    Row(id="features-before-unshare", sent=(FEATURES,), answer=(0x0D,), profile=OLD),
    Row(id="features-android", sent=(FEATURES,), answer=(0xFFD,), profile=ANDROID, revision="android"),
    Row(id="range", sent=(SHARE, P, 4, 0), answer=(0, 4), after=((P, 4),), revision="android"),
    Row(id="range-stopped", sent=(SHARE, P, 4, 0), answer=(0, 2), after=((P, 2),), revision="android", stop_after=2),
    Row(id="range-stopped-at-once", sent=(SHARE, P, 4, 0), answer=(MINUS_3, 0), revision="android", stop_after=0),
    Row(id="range-x3", sent=(SHARE, P, 4, 1), answer=(MINUS_3, 0), revision="android"),
    Row(id="range-shared-already", sent=(SHARE, P, 2, 0), answer=(MINUS_3, 0), revision="android",
        before=((P + 0x1000, 1),), after=((P + 0x1000, 1),)),
    Row(id="range-up-to-the-shared-one", sent=(SHARE, P, 2, 0), answer=(0, 1), revision="android", profile=ANDROID,
        before=((P + 0x1000, 1),), after=((P, 2),)),
    Row(id="range-pinned", sent=(UNSHARE, P, 2, 0), answer=(MINUS_3, 0), revision="android", before=((P, 2),),
        after=((P, 2),), facts={"pinned": (P + 0x1000, 1)}),
    Row(id="granule-16k", sent=(SHARE, 0x40004000, 0, 0), answer=(0, 0), after=((0x40004000, 4),),
        config={"granule": 0x4000}),
    Row(id="granule-64k-unaligned", sent=(SHARE, 0x40004000, 0, 0), answer=(MINUS_3, 0), config={"granule": 0x10000}),
    Row(id="granule-64k", sent=(MEMINFO, 0, 0, 0), answer=(0x10000, 0), config={"granule": 0x10000}),
    # What Linux 7.3.4 answered to a protected VM.
    Row(id="live-features", sent=(FEATURES,), answer=(0x1D,), profile=LINUX),
    Row(id="live-features-of-a-normal-vm", sent=(FEATURES,), answer=(0x3,), profile=LINUX, enabled=False),
    Row(id="live-meminfo", sent=(MEMINFO, 0, 0, 0), answer=(0x1000,), profile=LINUX),
    *(
        Row(id=f"live-meminfo-arg-{number}", sent=(MEMINFO, *[0] * (number - 1), 1), answer=(MINUS_3,), profile=LINUX)
        for number in (1, 2, 3)
    ),
    Row(id="live-share", sent=(SHARE, P, 0, 0), answer=(0,), after=((P, 1),), profile=LINUX, memory=RAM),
    Row(id="live-share-again", sent=(SHARE, P, 0, 0), answer=(MINUS_3,), before=((P, 1),), after=((P, 1),),
        profile=LINUX, memory=RAM),
    Row(id="live-ipa-plus-1", sent=(SHARE, P + 1, 0, 0), answer=(MINUS_3,), profile=LINUX, memory=RAM),
    Row(id="live-ipa-plus-800", sent=(SHARE, P + 0x800, 0, 0), answer=(MINUS_3,), profile=LINUX, memory=RAM),
    Row(id="live-arg-2", sent=(SHARE, P, 1, 0), answer=(MINUS_3,), profile=LINUX, memory=RAM),
    Row(id="live-arg-3", sent=(SHARE, P, 0, 1), answer=(MINUS_3,), profile=LINUX, memory=RAM),
    Row(id="live-unshare", sent=(UNSHARE, P, 0, 0), answer=(0,), before=((P, 1),), profile=LINUX, memory=RAM),
    Row(id="live-unshare-private", sent=(UNSHARE, P, 0, 0), answer=(MINUS_3,), profile=LINUX, memory=RAM),
    Row(id="live-unshare-never-touched", sent=(UNSHARE, P, 0, 0), answer=(MINUS_3,), profile=LINUX, memory=RAM,
        facts={"unmapped": (P, 1)}),
    Row(id="live-unshare-beyond-the-slot", sent=(UNSHARE, 0x80000000, 0, 0), answer=(MINUS_3,), profile=LINUX,
        memory=RAM),
    Row(id="live-unshare-unaligned", sent=(UNSHARE, P + 1, 0, 0), answer=(MINUS_3,), profile=LINUX, memory=RAM),
    Row(id="live-unshare-arg-2", sent=(UNSHARE, P, 1, 0), answer=(MINUS_3,), before=((P, 1),), after=((P, 1),),
        profile=LINUX, memory=RAM),
    *(
        Row(id=f"live-no-slot-{ipa:#x}", sent=(SHARE, ipa, 0, 0), end="fault", profile=LINUX, memory=RAM)
        for ipa in (0, 0x09000000, 0x80000000)
    ),
    *(
        Row(id=f"live-no-ipa-{ipa:#x}", sent=(SHARE, ipa, 0, 0), answer=(MINUS_3,), profile=LINUX, memory=RAM)
        for ipa in (1 << 48, 0xFFFFFFFFFFFFF000)
    ),
    Row(id="live-upper-half-of-x0", sent=(0x1_0000_0000 | SHARE, P, 0, 0), answer=(0,), after=((P, 1),), profile=LINUX,
        memory=RAM),
    *(
        Row(id=f"live-unknown-{number:#x}", sent=(number, P, 0, 0), answer=(MINUS_1,), profile=LINUX, memory=RAM)
        for number in (0x86000003, 0xC6000005, 0xC6000040)
    ),
    *(
        Row(id=f"live-normal-vm-{number:#x}", sent=(number, P, 0, 0), answer=(MINUS_1,), profile=LINUX, memory=RAM,
            enabled=False)
        for number in (SHARE, UNSHARE, MEMINFO)
    ),
]  # fmt: skip


@pytest.mark.parametrize("row", PKVM, ids=lambda row: row.id)
def test_pkvm(row: Row) -> None:
    check("pkvm-mem-share", row)


def test_pkvm_no_slot_is_an_abort() -> None:
    row = Row(id="", sent=(SHARE, 0x09000000, 0, 0), memory=RAM)
    assert ask("pkvm-mem-share", row)[0].fault == "abort"


def test_pkvm_a_page_that_is_not_mapped_is_mapped_and_the_call_comes_again() -> None:
    row = Row(id="", sent=(SHARE, P, 0, 0), facts={"unmapped": (P, 2)}, memory=RAM)
    answer, host = ask("pkvm-mem-share", row)
    assert (answer.end, answer.regs, host.backend.query()) == ("replay", {}, ())
    assert [(run.start, run.end) for run in host.backend.fact_runs("unmapped")] == [(0x40002, 0x40003)]
    again = host.answer(registers(row.sent))
    assert (again.end, again.regs["x0"]) == ("return", 0)
    assert [(run.start, run.end) for run in host.backend.query()] == [(0x40001, 0x40002)]
    # The page is shared now: the call is not idempotent.
    assert host.answer(registers(row.sent)).regs["x0"] == MINUS_3


def test_pkvm_a_range_is_mapped_as_a_whole() -> None:
    row = Row(id="", sent=(SHARE, P, 4, 0), facts={"unmapped": (P + 0x1000, 2)}, revision="android")
    answer, host = ask("pkvm-mem-share", row)
    assert (answer.end, host.backend.fact_runs("unmapped")) == ("replay", ())
    assert host.answer(registers(row.sent)).regs["x1"] == 4


def test_pkvm_bits_of_functions() -> None:
    layout = load("pkvm-mem-share").layout("functions")
    observed = plain(layout.decode(bytes.fromhex("1d000000")))
    assert {name for name, bit in observed.items() if bit} == {"features", "hyp_meminfo", "mem_share", "mem_unshare"}
