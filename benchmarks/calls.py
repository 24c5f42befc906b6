"""Whole calls: registers in, rules judged, pages changed, answer out; against a construct parse of the request."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import construct

from benchmarks.codec import kvm_request
from benchmarks.measure import OURS, Effort, Goal, Report, Work, compare
from hvabi.abi.registry import load
from hvabi.adapters.registry import host_class
from hvabi.backend import Backend, Conversion, PageState

if TYPE_CHECKING:
    from hvabi.abi.wire import Wire

PARSE = "construct, parse of the request alone"
BARE = "its conversions by the backend alone, one by one"


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


class OneByOne(Backend):
    """Never has room to spare, so that the elements of a list are never converted together."""

    @property
    def has_spare(self) -> bool:
        return False


def listed(report: Report, effort: Effort) -> None:
    """Calls with lists, pages in a row and every other page: no goal stands for them, they are here to be seen."""
    from benchmarks.codec import ENTRIES, plain_buffer

    plain = plain_buffer()
    for step, shape in ((1, "pages in a row"), (2, "every other page")):
        pages = range(0x1000, 0x1000 + step * ENTRIES, step)
        wires = psc(pages)
        contenders = {
            OURS: answering("ghcb-psc", wires, Backend()),
            PARSE: lambda wires=wires: [plain.parse(bytes(wire)) for wire in wires],
            BARE: converting(pages),
        }
        compare(report, f"whole call of ghcb-psc, {ENTRIES} entries, {shape}", contenders, effort, units=2)
        wires = visibility(pages)
        facts = load("hyperv-host-visibility").abi.facts
        contenders = {
            OURS: answering("hyperv-host-visibility", wires, Backend(facts=facts)),
            "the same, one element after the other": answering("hyperv-host-visibility", wires, OneByOne(facts=facts)),
            BARE: converting(pages),
        }
        compare(report, f"whole call of hyperv-host-visibility, {ENTRIES} pages, {shape}", contenders, effort, units=2)
    report.notes.append(
        "elements of a list that adjoin are joined before they reach the map: pages in a row are one change of it."
        " Of a PSC buffer that is what KVM does as well; of other lists it is done where nobody can tell"
    )


def psc(pages: range) -> list[Wire]:
    """Return two PSC buffers: all pages shared, and private again."""
    codec = load("ghcb-psc").message("request")
    return [codec.encode(entries=[{"gfn": page, "operation": operation} for page in pages]) for operation in (2, 1)]


def visibility(pages: range) -> list[Wire]:
    """Return two calls of Hyper-V with a list of pages: all of them visible to the host, and no more."""
    codec = load("hyperv-host-visibility").message("request")
    return [codec.encode(gpa_page_list=list(pages), visibility=shown, input_gpa=0x2000) for shown in (3, 0)]


def answering(abi: str, wires: list[Wire], backend: Backend) -> Work:
    host = host_class(abi)(load(abi), backend=backend)

    def work() -> None:
        for wire in wires:
            for address, data in wire.mem:
                host.memory.poke(address, data)
            assert host.answer(wire.regs).done_pages > 200

    return work


def converting(pages: range) -> Work:
    bare = Backend()

    def work() -> None:
        for to in (PageState.SHARED, PageState.PRIVATE):
            for page in pages:
                bare.convert(Conversion(page, 1, to, None), absent="allow")

    return work
