"""The saved traces, replayed: calls, pages and state as worked out by hand from what is posted."""

from __future__ import annotations

from pathlib import Path

import pytest

from hvabi.abi.registry import abi_ids
from hvabi.backend import PageState, Status
from hvabi.traces import TraceSummary, replay_sources

DATA = Path(__file__).parent.parent / "data" / "traces"
S = PageState.SHARED


def replayed(name: str) -> TraceSummary:
    return replay_sources([DATA / name])


def test_edk2_shares_its_mmio_window_and_is_told_to_go_on() -> None:
    """0x60000000 bytes are 393216 pages; the answer brought 0x4000000 bytes, 16384 pages."""
    found = replayed("edk2_tdx_mapgpa_retry.log")
    assert (found.calls, found.share_calls, found.attempts, found.no_op_calls) == (1, 1, 1, 0)
    assert [(each.gpa, each.end, each.state) for each in found.final] == [(0x80000000, 0xE0000000, S)]
    assert found.final_pages == 393216
    retries = found.retries
    assert (retries.calls, retries.answers, retries.stalled_calls, retries.storms) == (1, 1, 0, 0)
    assert (retries.pages_per_answer, retries.partial_calls) == (16384, 1)
    (read,) = found.reads
    assert (read.lines, read.events, read.unrecognised_lines) == (3, {"edk2-tdx": 1}, 1)


def test_msr_words_of_which_one_is_legal() -> None:
    """Page 0 becomes shared; operations 3 and 4 do not exist in the MSR protocol."""
    found = replayed("kvm_vmgexit_msr_protocol_enter.log")
    assert (found.calls, found.share_calls, found.unshare_calls, found.attempts) == (3, 1, 0, 3)
    assert [(each.status, each.calls, each.first.place.line) for each in found.refused] == [(Status.INVALID, 2, 3)]
    assert [(each.abi, each.rule, each.calls) for each in found.broken_rules] == [
        ("ghcb-msr-psc", "GHCB-MSR-PSC-04", 2)
    ]
    assert [(each.gpa, each.end) for each in found.final] == [(0, 0x1000)]


def test_what_a_guest_begins_with_is_no_conversion() -> None:
    found = replayed("qemu_snp_launch_update.log")
    assert (found.calls, found.final) == (0, ())
    assert {group.name: group.lines for group in found.seen} == {
        "Normal page": 2,
        "Zero page": 4,
        "Secrets page": 1,
        "Cpuid page": 1,
    }
    assert all(group.kind == "launch" for group in found.seen)
    assert found.seen[0].text == "1024 pages at 0xffc00000"


@pytest.mark.skipif("kvm-exit-memory-fault" not in abi_ids(), reason="no specification of a memory fault's flags")
def test_faults_that_ask_for_private_pages() -> None:
    """Four faults, one of them with the work on the same line; one VMM does not know the exit and stops.

    The pages are private in a fresh replay, so each access shows that lines are missing before.
    """
    found = replayed("qemu_memory_fault.log")
    assert (found.calls, found.unshare_calls, found.implicit_calls, found.failed_calls) == (4, 4, 4, 1)
    assert (found.unexpected, found.no_op_calls, found.echoes, found.final) == (3, 0, 0, ())
    assert found.refused == ()
