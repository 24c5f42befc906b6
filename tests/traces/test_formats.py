"""Every format, line by line: what is read out of it, worked out by hand from the format strings of its source.

A call is (line, format, first byte, pages, state, end); an end is "?" where the line shows an attempt only.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, NamedTuple

import pytest

from hvabi.abi.registry import abi_ids
from hvabi.backend import PageState, Status
from hvabi.traces import READERS, Sighting, Trace, TraceEvent
from hvabi.traces.scan import PIVOTS

if TYPE_CHECKING:
    from collections.abc import Sequence

P, S, R = PageState.PRIVATE, PageState.SHARED, PageState.SHARED_READ_ONLY
MEMORY_FAULT = pytest.mark.skipif(
    "kvm-exit-memory-fault" not in abi_ids(), reason="no specification says what the flags of a memory fault mean"
)


def read(text: str) -> tuple[list[TraceEvent], list[Sighting], Trace]:
    trace = Trace(io.BytesIO(text.encode()), name="t")
    records = list(trace)
    calls = [record for record in records if isinstance(record, TraceEvent)]
    return calls, [record for record in records if isinstance(record, Sighting)], trace


def ends(event: TraceEvent) -> str:
    return "?" if event.attempt else event.outcome.value


class Case(NamedTuple):
    text: str
    calls: Sequence[tuple[int, str, int, int, PageState | None, str]] = ()
    seen: Sequence[tuple[str, str, str]] = ()
    malformed: int = 0


HC = "kvm_hypercall: nr 0x{:x} a0 0x{:x} a1 0x{:x} a2 0x{:x} a3 0x0"
PSC_IN = "kvm_vmgexit_enter: vcpu {}, exit_reason 80000010, exit_info1 0, exit_info2 0"
PSC_OUT = "kvm_vmgexit_exit: vcpu {}, exit_reason 80000010, exit_info1 {:x}, exit_info2 {:x}"
MSR_IN = "kvm_vmgexit_msr_protocol_enter: vcpu {}, ghcb_gpa {:016x}"
MSR_OUT = "kvm_vmgexit_msr_protocol_exit: vcpu {}, ghcb_gpa {:016x}, result {}"
# Operation in bits 55:52 (1 private, 2 shared), frame number in 51:12, 0x014 below; the answer is 0x015, error above.
SHARE_1F00E, PRIVATE_1F00E = 0x0020_0000_1F00_E014, 0x0010_0000_1F00_E014
GOOD, BAD = 0x15, 0x8000_0000_0000_0015

KVM = {
    "private": Case(HC.format(12, 0x1F018000, 1, 0x10), [(1, "kvm_hypercall", 0x1F018000, 1, P, "?")]),
    "shared": Case(HC.format(12, 0x1F018000, 0x200, 0), [(1, "kvm_hypercall", 0x1F018000, 512, S, "?")]),
    "prefix-of-ftrace": Case(
        " qemu-system-x86-2199    [003] d..1.    56.146336: " + HC.format(12, 0x1000, 2, 0),
        [(1, "kvm_hypercall", 0x1000, 2, S, "?")],
    ),
    "prefix-of-perf": Case(
        "CPU 0/KVM  2199 [003]    56.146336123:   kvm:" + HC.format(12, 0x1000, 2, 0),
        [(1, "kvm_hypercall", 0x1000, 2, S, "?")],
    ),
    "trace-cmd-pads": Case(
        "qemu-2199 [003] 56.1: " + HC.format(12, 0x1000, 2, 0).replace(": ", ":        "),
        [(1, "kvm_hypercall", 0x1000, 2, S, "?")],
    ),
    # As posted on the KVM list in June 2022.
    "another-number": Case(
        "     kvm_pv_test-53132: kvm_hypercall: nr 0x0 a0 0x0 a1 0x0 a2 0x0 a3 0x0",
        [],
        [("other-call", "KVM hypercall 0", "")],
    ),
    "wake-up": Case(HC.format(5, 0, 3, 0), [], [("other-call", "KVM hypercall 5", "")]),
    "cut-off": Case("x-1 [0] 1.5: kvm_hypercall: nr 0xc a0 0x1f018000 a1 0x1 a2", [], [], 1),
    "psc-page-form-good": Case(
        PSC_IN.format(3) + "\n" + PSC_OUT.format(3, 0, 0), [], [("hidden-call", "ghcb-psc", "no error shown")]
    ),
    "psc-page-form-bad-entry": Case(
        PSC_IN.format(3) + "\n" + PSC_OUT.format(3, 0, 0x1_0000_0002),
        [],
        [("hidden-call", "ghcb-psc", "PSC_INVALID_ENTRY")],
    ),
    "psc-page-form-generic": Case(
        PSC_IN.format(3) + "\n" + PSC_OUT.format(3, 0, 0x100_0000_0000),
        [],
        [("hidden-call", "ghcb-psc", "PSC_GENERIC")],
    ),
    "psc-page-form-malformed-input": Case(
        PSC_IN.format(3) + "\n" + PSC_OUT.format(3, 2, 3), [], [("hidden-call", "ghcb-psc", "failed")]
    ),
    "psc-page-form-without-an-end": Case(
        PSC_IN.format(0) + "\n" + PSC_IN.format(0),
        [],
        [("hidden-call", "ghcb-psc", ""), ("hidden-call", "ghcb-psc", "")],
    ),
    "psc-page-form-without-a-begin": Case(PSC_OUT.format(0, 0, 0), [], [("orphan", "ghcb-psc", "no error shown")]),
    "two-vcpus-cross": Case(
        "\n".join([PSC_IN.format(0), PSC_IN.format(1), PSC_OUT.format(0, 0, 0x1_0000_0001), PSC_OUT.format(1, 0, 0)]),
        [],
        [("hidden-call", "ghcb-psc", "PSC_INVALID_HDR"), ("hidden-call", "ghcb-psc", "no error shown")],
    ),
    "vmmcall-has-its-arguments-elsewhere": Case(
        "kvm_vmgexit_enter: vcpu 0, exit_reason 81, exit_info1 0, exit_info2 0\n" + HC.format(12, 0x1000, 1, 0),
        [(2, "kvm_hypercall", 0x1000, 1, S, "?")],
        [("other-call", "kvm-map-gpa-range, or another call through VMMCALL", "")],
    ),
    "another-exit": Case(
        "kvm_vmgexit_enter: vcpu 0, exit_reason 72, exit_info1 0, exit_info2 0\n"
        "kvm_vmgexit_exit: vcpu 0, exit_reason 72, exit_info1 0, exit_info2 0",
        [],
        [("other-call", "exit code 0x72", "")],
    ),
    "msr-done": Case(
        MSR_IN.format(0, SHARE_1F00E) + "\n" + MSR_OUT.format(0, GOOD, 1),
        [(1, "vmgexit-msr", 0x1F00E000, 1, S, "done")],
    ),
    "msr-failed": Case(
        MSR_IN.format(0, PRIVATE_1F00E) + "\n" + MSR_OUT.format(0, BAD, 1),
        [(1, "vmgexit-msr", 0x1F00E000, 1, P, "failed")],
    ),
    # KVM asked its VMM: the exit is printed before the answer, with the request still in the register.
    "msr-passed-on": Case(
        MSR_IN.format(0, SHARE_1F00E) + "\n" + MSR_OUT.format(0, SHARE_1F00E, 0),
        [(1, "vmgexit-msr", 0x1F00E000, 1, S, "?")],
    ),
    "msr-without-an-end": Case(
        MSR_IN.format(0, SHARE_1F00E) + "\n" + MSR_IN.format(0, PRIVATE_1F00E),
        [(1, "vmgexit-msr", 0x1F00E000, 1, S, "?"), (2, "vmgexit-msr", 0x1F00E000, 1, P, "?")],
    ),
    "msr-vcpus-end-the-other-way-round": Case(
        "\n".join(
            [
                MSR_IN.format(0, SHARE_1F00E),
                MSR_IN.format(1, PRIVATE_1F00E),
                MSR_OUT.format(1, GOOD, 1),
                MSR_OUT.format(0, BAD, 1),
            ]
        ),
        [(2, "vmgexit-msr", 0x1F00E000, 1, P, "done"), (1, "vmgexit-msr", 0x1F00E000, 1, S, "failed")],
    ),
    "msr-smash": Case(MSR_IN.format(0, 0x0030_0000_1F00_E014), [(1, "vmgexit-msr", 0x1F00E000, 1, None, "?")]),
    "msr-other-messages": Case(
        MSR_IN.format(0, 2) + "\n" + MSR_OUT.format(0, 0x0002_0001_3300_0001, 1) + "\n" + MSR_IN.format(0, 0x100),
        [],
        [("other-call", "ghcb-msr-psc/sev-info-request", ""), ("terminated", "ghcb-msr-psc/terminate-request", "")],
    ),
    "msr-unknown": Case(MSR_IN.format(0, 0xFFF), [], [("other-call", "GHCB MSR, unknown", "")]),
    "msr-with-too-few-digits": Case("kvm_vmgexit_msr_protocol_enter: vcpu 0, ghcb_gpa 14", [], [], 1),
    "exits-to-user-space": Case(
        "kvm_userspace_exit: reason KVM_EXIT_HYPERCALL (3)\nx-1 [001] 5.0: kvm_userspace_exit:   reason error (14)",
        [],
        [("exit", "KVM_EXIT_HYPERCALL (3)", ""), ("exit", "error (14)", "")],
    ),
}

ASKED = "kvm_hc_map_gpa_range gpa 0x{:x} size 0x{:x} attributes 0x{:x} flags 0x1"
WORK = "kvm_convert_memory start 0x{:x} size 0x{:x} {}"
TO_P, TO_S = "shared_to_private", "private_to_shared"
BLOCK = "ram_block_attributes_state_change offset 0x{:x} size 0x{:x} from '{}' to '{}'"

QEMU = {
    "request": Case(ASKED.format(0x80000000, 0x200000, 0x10), [(1, "qemu-hypercall", 0x80000000, 512, P, "?")]),
    # Attribute bit 4 is the direction; 1 in bits 3:0 asks for pages of 2 MiB and is not "private".
    "page-size-is-no-direction": Case(
        ASKED.format(0x80000000, 0x200000, 1), [(1, "qemu-hypercall", 0x80000000, 512, S, "?")]
    ),
    "work-alone": Case(WORK.format(0x4000, 0x2000, TO_S), [(1, "qemu-convert", 0x4000, 2, S, "?")]),
    "request-and-work-are-one": Case(
        ASKED.format(0x4000, 0x1000, 0) + "\n" + WORK.format(0x4000, 0x1000, TO_S),
        [(1, "qemu-hypercall", 0x4000, 1, S, "?")],
    ),
    "the-block-shows-that-it-is-done": Case(
        "\n".join(
            [
                ASKED.format(0x100004000, 0x1000, 0x10),
                WORK.format(0x100004000, 0x1000, TO_P),
                BLOCK.format(0x80004000, 0x1000, "populated", "discarded"),
            ]
        ),
        [(1, "qemu-hypercall", 0x100004000, 1, P, "done")],
    ),
    "a-block-of-another-size-shows-nothing": Case(
        WORK.format(0x4000, 0x1000, TO_P) + "\n" + BLOCK.format(0x4000, 0x2000, "populated", "discarded"),
        [(1, "qemu-convert", 0x4000, 1, P, "?")],
        [("unplaced", "ram_block_attributes to private", "")],
    ),
    "a-block-alone-has-no-guest-address": Case(
        BLOCK.format(0x4000, 0x1000, "mixture", "populated"), [], [("unplaced", "ram_block_attributes to shared", "")]
    ),
    "invalid-range": Case(
        WORK.format(0x4000, 0x1000, TO_S)
        + "\nqemu: ram_block_attributes_state_change, invalid range: offset 0x4000, size 0x1000",
        [(1, "qemu-convert", 0x4000, 1, S, "failed")],
    ),
    "invalid-range-alone": Case(
        "ram_block_attributes_state_change, invalid range: offset 0x4000, size 0x1000",
        [],
        [("failure", "ram_block_attributes, invalid range", "")],
    ),
    "a-device-could-not-follow": Case(
        "\n".join(
            [
                WORK.format(0x4000, 0x1000, TO_S),
                BLOCK.format(0x4000, 0x1000, "discarded", "populated"),
                "qemu: Failed to notify the listener the state change of (0x4000 + 0x1000) to shared",
            ]
        ),
        [(1, "qemu-convert", 0x4000, 1, S, "failed")],
    ),
    "no-guest-memfd": Case(
        WORK.format(0xA0000, 0x1000, TO_P)
        + "\nqemu: Converting non guest_memfd backed memory region (0xa0000 ,+ 0x1000) to private",
        [(1, "qemu-convert", 0xA0000, 1, P, "failed")],
    ),
    "vcpus-side-by-side": Case(
        "\n".join(
            [
                ASKED.format(0x1000, 0x1000, 0),
                ASKED.format(0x9000, 0x1000, 0),
                WORK.format(0x1000, 0x1000, TO_S),
                WORK.format(0x9000, 0x1000, TO_S),
            ]
        ),
        [(1, "qemu-hypercall", 0x1000, 1, S, "?"), (2, "qemu-hypercall", 0x9000, 1, S, "?")],
    ),
    "the-same-twice": Case(
        "\n".join([ASKED.format(0x1000, 0x1000, 0), WORK.format(0x1000, 0x1000, TO_S)] * 2),
        [(1, "qemu-hypercall", 0x1000, 1, S, "?"), (3, "qemu-hypercall", 0x1000, 1, S, "?")],
    ),
    "no-whole-pages": Case(ASKED.format(0x1000, 0x1800, 0), [], [], 1),
    "cut-off": Case("kvm_convert_memory start 0x4000 size 0x10", [], [], 1),
    "cut-in-the-word": Case("kvm_convert_memory start 0x4000 size 0x1000 shared_to_priv", [], [], 1),
    "prose": Case("the patch makes kvm_convert_memory faster; kvm_memory_fault too"),
    "launch": Case(
        "kvm_sev_snp_launch_update src 0x7b8e gpa 0xffc00000 len 0x400000 (Normal page)",
        [],
        [("launch", "Normal page", "")],
    ),
    "unknown-flag": Case(
        "KVM_EXIT_MEMORY_FAULT: Unknown flag 0x10", [], [("failure", "memory fault with an unknown flag", "")]
    ),
}

RANGE = "TdxDxe:SetMemorySharedOrPrivate: Cr3Base=0x0 Physical=0x{:X} Length=0x{:X} Mode={}"
RETRY = "SetOrClearSharedBit: TdVmcall(MAPGPA) Retry PhysicalAddress is {:x}, MapGpaRetryAddr is {:x}"
FAILED = "SetOrClearSharedBit: TdVmcall(MAPGPA) failed with {:x}"
S51, S47 = 1 << 51, 1 << 47

EDK2 = {
    "shared": Case(RANGE.format(0x80000000, 0x60000000, "Shared"), [(1, "edk2-tdx", 0x80000000, 0x60000, S, "?")]),
    "private": Case(RANGE.format(0x7F000000, 0x8000, "Private"), [(1, "edk2-tdx", 0x7F000000, 8, P, "?")]),
    "failed-before-any-page": Case(
        RANGE.format(0x1000, 0x4000, "Shared") + "\n" + FAILED.format(0x8000000000000000),
        [(1, "edk2-tdx", 0x1000, 4, S, "failed")],
    ),
    "failed-alone": Case(FAILED.format(0x8000000000000002), [], [("failure", "tdx-map-gpa, ALIGN_ERROR", "")]),
    "failed-with-an-unknown-code": Case(FAILED.format(0x77), [], [("failure", "tdx-map-gpa, 0x77", "")]),
    "out-of-range": Case(
        "x: TdVmcall(MAPGPA) failed with MapGpaRetryAddr(1000) less than PhysicalAddress(2000) or more than or equal to"
        " EndAddress(3000) ",
        [],
        [("failure", "tdx-map-gpa, R11 out of range", "")],
    ),
    "retry-alone": Case(
        RETRY.format(S51 | 0x80000000, S51 | 0x84000000), [(1, "edk2-tdx", 0x80000000, 0x4000, S, "partial")]
    ),
    "retry-alone-private": Case(RETRY.format(0x80000000, 0x80200000), [(1, "edk2-tdx", 0x80000000, 512, P, "partial")]),
    "retry-alone-without-progress": Case(
        RETRY.format(0x80000000, 0x80000000), [], [("orphan", "tdx-map-gpa, RETRY without progress", "")]
    ),
    "snp": Case(
        "SecMain:InternalSetPageState Address 0x7F000000 - 0x7F003000 State = Shared LargeEntry = 0",
        [(1, "edk2-snp", 0x7F000000, 3, S, "?")],
    ),
    "sev": Case(
        "MpInit:SetMemoryEncDec: Cr3Base=0x0 Physical=0x7E5EB000 Length=0x1000 Mode=Decrypt CacheFlush=1 Mmio=0",
        [(1, "edk2-sev", 0x7E5EB000, 1, S, "?")],
    ),
    "sev-encrypt-without-mmio": Case(
        "X:SetMemoryEncDec: Cr3Base=0x0 Physical=0x7E5EB000 Length=0x2000 Mode=Encrypt CacheFlush=0",
        [(1, "edk2-sev", 0x7E5EB000, 2, P, "?")],
    ),
    "identity-map-is-no-conversion": Case(
        "X:InternalMemEncryptSevCreateIdentityMap1G: Cr3Base=0x0 Physical=0x0 Length=0x40000000"
    ),
    "dma": Case(
        "IoMmuMap: Mapping=0x7E1 Device(PlainText)=0x7E5EB000 Crypted=0x7D000 Pages=0x1, ReservedMemBitmap=0x4\n"
        "IoMmuMap: Mapping=0x7E1 Device(PlainText)=0x7E5EB000 Crypted=0x7D000 Pages=0x1, ReservedMemBitmap=0x0\n"
        "IoMmuMap: Mapping=0x7E1 Device(PlainText)=0x7E5EB000 Crypted=0x7D000 Pages=0x1",
        [],
        [
            ("dma-map", "from the reserved pool", ""),
            ("dma-map", "not from a pool", ""),
            ("dma-map", "not from a pool", ""),
        ],
    ),
    "cut-off": Case("TdxDxe:SetMemorySharedOrPrivate: Cr3Base=0x0 Physical=0x80000000 Length=0x6000", [], [], 1),
}

CALL = "KVM_HC_MAP_GPA_RANGE: address={:#x}, pages={}, attributes={:#x}"
OPEN = "{} KVM_HC_MAP_GPA_RANGE gpa={} page_count={} map_attributes={}"

VMMS = {
    "cloud-hypervisor": Case(
        "cloud-hypervisor:   0.012345s: <vcpu0> DEBUG:hypervisor/src/kvm/mod.rs:2655 -- "
        + CALL.format(0x1F018000, 16, 0x10),
        [(1, "cloud-hypervisor", 0x1F018000, 16, P, "?")],
    ),
    "cloud-hypervisor-pages-are-decimal": Case(
        CALL.format(0x1000, 100, 0), [(1, "cloud-hypervisor", 0x1000, 100, S, "?")]
    ),
    "cloud-hypervisor-cut": Case("KVM_HC_MAP_GPA_RANGE: address=0x1000, pages=10", [], [], 1),
    "cloud-hypervisor-on-mshv": Case(
        "cloud-hypervisor: 1.5s: <vcpu1> DEBUG:hypervisor/src/mshv/mod.rs:747 -- "
        "Releasing pages: gfn_start: 1f018, gfn_count: 16",
        [(1, "cloud-hypervisor-mshv", 0x1F018000, 16, P, "?")],
    ),
    "openvmm": Case(
        "2026-08-30T12:00:00.000000Z DEBUG virt_kvm::arch::x86_64: "
        + OPEN.format("handling", 520192000, 1, 16)
        + " flags=1",
        [(1, "openvmm", 0x1F018000, 1, P, "?")],
    ),
    "openvmm-handled": Case(
        OPEN.format("handling", 4096, 2, 0) + " flags=1\n" + OPEN.format("handled", 4096, 2, 0),
        [(1, "openvmm", 0x1000, 2, S, "done")],
    ),
    "openvmm-failed": Case(
        OPEN.format("handling", 4096, 2, 0)
        + " flags=1\nERROR virt_kvm: "
        + OPEN.format("failed", 4096, 2, 0)
        + ' error="no memory"',
        [(1, "openvmm", 0x1000, 2, S, "failed")],
    ),
    "openvmm-only-errors": Case(OPEN.format("failed", "0x1000", 2, 0), [(1, "openvmm", 0x1000, 2, S, "failed")]),
    "openvmm-json": Case(
        '{"timestamp":"2026-08-30T12:00:00Z","level":"DEBUG","fields":{"message":"handling KVM_HC_MAP_GPA_RANGE",'
        '"gpa":4096,"page_count":2,"map_attributes":16,"flags":1},"target":"virt_kvm"}',
        [(1, "openvmm", 0x1000, 2, P, "?")],
    ),
    "openvmm-without-a-field": Case("handling KVM_HC_MAP_GPA_RANGE gpa=4096 page_count=2", [], [], 1),
    "openvmm-wrong-access": Case(
        "guest accessed inaccessible gpa, injecting MC gpa=4096 is_shared=true ept_info=EptInfo { .. }",
        [],
        [("fault", "access to a page as shared that is not", "")],
    ),
}

MESSAGES = {
    "cpa": Case(
        "[ 1.5] CPA VMM failure to convert memory (addr=00000000c0ffee00, numpages=16) to shared: -5",
        [],
        [("failure", "Linux guest, to shared", "error -5")],
    ),
    "cpa-before-6.11": Case(
        "CPA VMM failure to convert memory (addr=00000000c0ffee00, numpages=1) to private.",
        [],
        [("failure", "Linux guest, to private", "")],
    ),
    "kexec": Case("tdx: Failed to stop shared<->private conversions", [], [("failure", "Linux guest, kexec", "")]),
    "vc": Case(
        "SEV: Unsupported exit-code 0x404 in #VC exception (IP: 0xffffffff81000000)",
        [],
        [("fault", "#VC with exit code 0x404", "")],
    ),
    "terminated": Case(
        "kvm_amd: SEV-ES guest requested termination: 0x1:0x2", [], [("terminated", "SEV-ES guest", "")]
    ),
    "terminated-with-zeros": Case("SEV-ES guest requested termination: 0:0", [], [("terminated", "SEV-ES guest", "")]),
    "terminated-second-form": Case(
        "SEV-ES guest requested termination: reason 0x100 info 0", [], [("terminated", "SEV-ES guest", "")]
    ),
    "not-registered": Case(
        "vmgexit: GHCB GPA [0x7e5eb000] is not registered.", [], [("failure", "KVM, GHCB not registered", "")]
    ),
    "s390": Case(
        "Set UVC failed (rc: 0x2, rrc: 0x0), possible hypervisor bug.",
        [],
        [("failure", "s390 guest", "rc 0x2, rrc 0x0")],
    ),
    "svsm": Case(
        "[SVSM] ERROR: GHCB SnpPageStateChange failed err_high: 0x1 err_low: 0x2",
        [],
        [("failure", "SVSM, ghcb-psc", "PSC_INVALID_ENTRY")],
    ),
    "svsm-unknown-code": Case(
        "GHCB SnpPageStateChange failed err_high: 0x7 err_low: 0x0", [], [("failure", "SVSM, ghcb-psc", "0x700000000")]
    ),
}

CASES = {
    f"{group}-{name}": case
    for group, cases in {"kvm": KVM, "qemu": QEMU, "edk2": EDK2, "vmm": VMMS, "message": MESSAGES}.items()
    for name, case in cases.items()
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_format(case: Case) -> None:
    calls, seen, trace = read(case.text + "\n")
    assert [(call.line, call.format, call.gpa, call.pages, call.to, ends(call)) for call in calls] == list(case.calls)
    assert [(each.kind, each.name, each.result) for each in seen] == list(case.seen)
    report = trace.report()
    assert report.malformed == case.malformed
    assert (sum(report.events.values()), report.seen) == (len(case.calls), len(case.seen))
    if not case.calls and not case.seen and not case.malformed:
        assert report.unrecognised_lines == report.lines


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_format_quoted_and_coloured_among_other_lines(case: Case) -> None:
    """The slow way through a block gives the same as the quick one; the quotes and colours go."""
    lines = ["\x1b[32mhello\x1b[0m", *(f"> > {line}" for line in case.text.split("\n")), "bye"]
    calls, seen, trace = read("\n".join(lines) + "\n")
    found = [(call.line - 1, call.format, call.gpa, call.pages, call.to, ends(call)) for call in calls]
    assert found == list(case.calls)
    assert [(each.kind, each.name, each.result) for each in seen] == list(case.seen)
    assert trace.report().malformed == case.malformed


def test_every_mark_has_a_letter_by_which_it_is_found() -> None:
    for reader in READERS.values():
        for mark in reader.marks:
            assert any(pivot in mark for pivot in PIVOTS), mark


def test_hypercall_12_has_two_meanings_where_they_differ() -> None:
    """a2 = 1: 2 MiB pages, shared, since 2021; private in the series before."""
    (call,), _, _ = read(HC.format(12, 0x1000, 1, 1) + "\n")
    assert call.ambiguous is not None
    assert call.ambiguous[:4] == ("a2", "0x1", "kvm-map-gpa-range", "kvm-page-enc-status")
    assert (call.to, call.read_as("kvm-page-enc-status").to) == (S, P)
    for plain in (0, 0x10, 0x11):
        (call,), _, _ = read(HC.format(12, 0x1000, 1, plain) + "\n")
        assert call.ambiguous is None


def test_a_released_page_may_still_be_readable_by_the_host() -> None:
    (call,), _, _ = read("Releasing pages: gfn_start: 1f, gfn_count: 1\n")
    assert call.ambiguous is not None
    assert call.read_as("shared-read-only").to is R


def test_a_shared_bit_of_unknown_width_is_open() -> None:
    """Bit 47 set: shared with addresses of 48 bits, private at 128 TiB with 52."""
    (call,), _, _ = read(RETRY.format(S47 | 0x1000, S47 | 0x3000) + "\n")
    assert (call.gpa, call.pages, call.to) == (0x1000, 2, S)
    assert call.ambiguous is not None
    other = call.read_as(call.ambiguous.by)
    assert (other.gpa, other.pages, other.to) == (S47 | 0x1000, 2, P)


def test_the_answers_of_one_call_are_counted_with_it() -> None:
    """8 MiB in pieces of 2 MiB, the second of them stalled twice, then it fails: 2 MiB are done."""
    base, step = 0x80000000, 0x200000
    lines = [
        RANGE.format(base, 4 * step, "Shared"),
        RETRY.format(S51 | base, S51 | base + step),
        RETRY.format(S51 | base + step, S51 | base + step),
        RETRY.format(S51 | base + step, S51 | base + step),
        FAILED.format(0x8000000000000000),
    ]
    (call,), seen, _ = read("\n".join(lines) + "\n")
    assert seen == []
    assert (call.retries, call.stalls, call.done_pages, call.outcome) == (3, 2, 512, Status.FAILED)


def test_a_retry_of_another_range_belongs_to_no_open_call() -> None:
    calls, _, _ = read(RANGE.format(0x1000, 0x1000, "Shared") + "\n" + RETRY.format(S51 | 0x9000, S51 | 0xA000) + "\n")
    assert [(call.gpa, call.pages, ends(call)) for call in calls] == [(0x1000, 1, "?"), (0x9000, 1, "partial")]


def test_what_is_held_back_comes_before_what_follows_it() -> None:
    text = "\n".join(
        [RANGE.format(0x1000, 0x1000, "Shared"), ASKED.format(0x2000, 0x1000, 0), HC.format(12, 0x3000, 1, 0)]
    )
    calls, _, _ = read(text + "\n")
    assert [call.line for call in calls] == [1, 2, 3]


def test_rules_are_those_of_the_abi() -> None:
    (call,), _, _ = read(HC.format(12, 0x1800, 1, 0x20) + "\n")
    assert call.refused is Status.MISALIGNED
    assert {"KVM-MAPGPA-30", "KVM-MAPGPA-32"} <= set(call.broken)
    (call,), _, _ = read(MSR_IN.format(0, 0x0030_0000_1F00_E014) + "\n")
    assert (call.refused, call.broken) == (Status.INVALID, ("GHCB-MSR-PSC-04",))


def test_times_and_clocks() -> None:
    calls, _, _ = read(
        " x-1 [003] d..1.    56.146336: " + HC.format(12, 0x1000, 1, 0) + "\n"
        "2199@1612345678.500000:" + WORK.format(0x4000, 0x1000, TO_S) + "\n"
        "cloud-hypervisor: 7ms: <vcpu0> DEBUG:a.rs:1 -- " + CALL.format(0x1000, 1, 0) + "\n"
    )
    assert [(call.time_seconds, call.clock) for call in calls] == [
        (56.146336, "boot"),
        (1612345678.5, "wall"),
        (0.007, "process"),
    ]


FAULTS = {
    "qemu": Case("kvm_memory_fault start 0xd000 size 0x1000 flags 0x8", [(1, "qemu-fault", 0xD000, 1, P, "?")]),
    "qemu-shared": Case("kvm_memory_fault start 0xd000 size 0x2000 flags 0x0", [(1, "qemu-fault", 0xD000, 2, S, "?")]),
    "qemu-and-the-work": Case(
        "kvm_memory_fault start 0xd000 size 0x1000 flags 0x8\n" + WORK.format(0xD000, 0x1000, TO_P),
        [(1, "qemu-fault", 0xD000, 1, P, "?")],
    ),
    # Bit 0 is not the direction.
    "another-bit": Case("kvm_memory_fault start 0xd000 size 0x1000 flags 0x1", [(1, "qemu-fault", 0xD000, 1, S, "?")]),
    "cloud-hypervisor": Case(
        "cloud-hypervisor: 1.0s: <vcpu0> DEBUG:a.rs:1 -- VcpuExit::MemoryFault: flags=0x8, gpa=0xd000, size=0x1000",
        [(1, "cloud-hypervisor-fault", 0xD000, 1, P, "?")],
    ),
    # The VMM does not know the exit, and stops.
    "libkrun": Case(
        "[2024-12-12T06:43:33Z ERROR vmm::linux::vstate] Unexpected exit reason on vcpu run: "
        "MemoryFault { flags: 8, gpa: 4096, size: 4096 }",
        [(1, "rust-vmm-fault", 0x1000, 1, P, "failed")],
    ),
}


@MEMORY_FAULT
@pytest.mark.parametrize("case", FAULTS.values(), ids=FAULTS.keys())
def test_memory_faults(case: Case) -> None:
    calls, _, _ = read(case.text + "\n")
    if case.text.endswith("flags 0x1"):
        assert [(call.gpa, call.to) for call in calls] != [(0xD000, P)]
        return
    assert [(call.line, call.format, call.gpa, call.pages, call.to, ends(call)) for call in calls] == list(case.calls)
    assert all(call.implicit for call in calls)


def test_zeros_before_a_decimal_number_change_nothing() -> None:
    line = "vmm::linux::vstate: VcpuExit::MemoryFault {{ flags: 8, gpa: {}, size: 4096 }}"
    (plain,), _, _ = read(line.format(81920))
    (zeros,), _, _ = read(line.format("0081920"))
    assert zeros == plain
    assert plain.gpa == 81920
