"""Whole calls: registers in, rules judged, pages changed, answer out; against a construct parse of the request."""

from __future__ import annotations

import struct

import construct

from benchmarks.codec import kvm_request
from benchmarks.measure import OURS, Effort, Goal, Report, compare
from hvabi.abi.registry import load
from hvabi.adapters.registry import host_class
from hvabi.backend import Backend, Conversion, PageState

PARSE = "construct, parse of the request alone"
BARE = "its conversions by the backend alone"


def msr_request() -> construct.Construct:
    return construct.ByteSwapped(
        construct.BitStruct(
            "reserved" / construct.BitsInteger(8),
            "operation" / construct.Enum(construct.BitsInteger(4), PRIVATE=1, SHARED=2),
            "gfn" / construct.BitsInteger(40),
            "code" / construct.BitsInteger(12),
        )
    )


def tdx_request() -> construct.Construct:
    return construct.Struct(*(name / construct.Int64ul for name in ("rcx", "r10", "r11", "r12", "r13")))


def requests() -> list[tuple[str, list[dict[str, int]], construct.Construct, bytes]]:
    """Return for each ABI its calls that make one page shared and private again, and the same for construct."""
    kvm = load("kvm-map-gpa-range").message("request")
    tdx = load("tdx-map-gpa").message("request")
    msr = load("ghcb-msr-psc").message("request")
    page = 0x9_0000_9000
    kvm_regs = [dict(kvm.encode(gpa=page, npages=1, attributes={"encrypted": e}).regs) for e in (0, 1)]
    tdx_regs = [dict(tdx.encode(gpa=page | shared << 47, size=0x1000).regs) for shared in (1, 0)]
    msr_regs = [dict(msr.encode(gfn=page >> 12, operation=operation).regs) for operation in (2, 1)]
    msr_word = next(iter(msr_regs[0].values()))
    tdx_words = [tdx_regs[0][name] for name in ("rcx", "r10", "r11", "r12", "r13")]
    return [
        ("kvm-map-gpa-range", kvm_regs, kvm_request(), struct.pack("<4Q", 12, page, 1, 0)),
        ("tdx-map-gpa", tdx_regs, tdx_request(), struct.pack("<5Q", *tdx_words)),
        ("ghcb-msr-psc", msr_regs, msr_request(), struct.pack("<Q", msr_word)),
    ]


def run(report: Report, effort: Effort) -> None:
    for abi, regs, plain, raw in requests():
        backend = Backend(facts=load(abi).abi.facts)
        backend.reset((index << 10, (index << 10) + 2, PageState.SHARED) for index in range(60))
        host = host_class(abi)(load(abi), backend=backend)
        share, unshare = regs
        assert host.answer(share).done_pages == host.answer(unshare).done_pages == 1
        plain.parse(raw)

        def both(host=host, share=share, unshare=unshare) -> None:
            host.answer(share)
            host.answer(unshare)

        def parse(plain=plain, raw=raw) -> None:
            plain.parse(raw)
            plain.parse(raw)

        workload = f"whole call of {abi}, at 60 ranges"
        compare(report, workload, {OURS: both, PARSE: parse}, effort, units=2)
        report.goals.append(
            Goal(
                text=f"whole call of {abi}: against a construct parse of its request (aim: 0.5)",
                measured=report.ratio(workload, OURS, PARSE),
                limit=1,
            )
        )
    listed(report, effort)


def listed(report: Report, effort: Effort) -> None:
    """A call with 253 entries: no goal stands for it, it is here to be seen."""
    from benchmarks.codec import ENTRIES, plain_buffer

    spec = load("ghcb-psc")
    codec = spec.message("request")
    wires = [codec.encode(entries=[{"gfn": 0x1000 + 2 * n, "operation": op} for n in range(ENTRIES)]) for op in (2, 1)]
    host = host_class("ghcb-psc")(spec)
    plain = plain_buffer()

    def both() -> None:
        for wire in wires:
            for address, data in wire.mem:
                host.memory.poke(address, data)
            assert host.answer(wire.regs).done_pages == ENTRIES

    def parse() -> None:
        for wire in wires:
            plain.parse(bytes(wire))

    bare = Backend()

    def convert() -> None:
        for to in (PageState.SHARED, PageState.PRIVATE):
            for page in range(0x1000, 0x1000 + 2 * ENTRIES, 2):
                bare.convert(Conversion(page, 1, to, None), absent="allow")

    workload = f"whole call of ghcb-psc, {ENTRIES} entries, every other page"
    compare(report, workload, {OURS: both, PARSE: parse, BARE: convert}, effort, units=2)
    part = report.ratio(workload, BARE)
    report.notes.append(
        "entries of a call that follow each other are not joined before they reach the backend: all that it does is"
        f" {part or 0:.0%} of a call of {ENTRIES} entries"
    )
