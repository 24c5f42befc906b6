"""What was expected and what was found, field by field. Expected numbers are written out by hand."""

from __future__ import annotations

from dataclasses import replace

from hvabi.conformance.case import Case, Expected, HostStep
from hvabi.conformance.report.compared import MAX_ROWS, compared, nearest
from hvabi.conformance.report.rules import rule_text
from hvabi.conformance.result import CaseResult, Exchanged, Finding, Verdict
from tests.conformance.report_runs import ALIGN_ERROR, SENT, failed, guest_failure, psc_failure, tdx_case


def test_a_register_is_shown_as_its_field() -> None:
    (step,) = compared(failed())
    parts = {part.path: part for part in step.parts}
    status = parts["status"]
    assert (status.where, status.status, status.difference) == ("r10", "differs", 2)
    assert status.expected == "ALIGN_ERROR (0x8000000000000002)"
    assert status.found == "INVALID_OPERAND (0x8000000000000000)"
    assert parts["next_gpa"].status == "same"
    assert step.means == "make shared: 1 page at 0x40101000"
    assert [item.path for item in step.sent if item.depth == 0][-2:] == ["gpa", "size"]


def test_a_register_outside_the_answer_must_be_as_it_was() -> None:
    (step,) = compared(failed())
    (rcx,) = [part for part in step.parts if part.path == "register rcx"]
    assert rcx.expected == "0x0000000000003c00, as it was"
    assert (rcx.found_raw, rcx.difference) == (0, 0x3C00)


def test_what_may_change_is_not_compared() -> None:
    loose = replace(ALIGN_ERROR, may_change=("r10", "rcx"))
    case = tdx_case(steps=(HostStep(regs=SENT, expected=(loose,)),))
    (step,) = compared(failed(case=case))
    assert {part.path: part.status for part in step.parts} == {
        "status": "open", "next_gpa": "same", "module_status": "same"
    }  # fmt: skip
    assert not step.differs


def test_any_value_but_zero() -> None:
    loose = Expected(regs={"r10": 0, "r11": 0}, nonzero=(("r10", (1 << 64) - 1),), may_change=("r11", "rcx"))
    case = tdx_case(steps=(HostStep(regs=SENT, expected=(loose,)),))
    for value, status in ((5, "same"), (0, "differs")):
        got = Exchanged(sent_regs=SENT, got_end="return", got_regs={"r10": value})
        (step,) = compared(failed(case=case, exchanged=(got,)))
        assert [part.status for part in step.parts if part.path == "status"] == [status]
        assert step.parts[0].expected == "anything but 0"


def test_an_answer_in_memory_is_decoded_and_its_bytes_are_shown() -> None:
    (step,) = compared(psc_failure())
    differing = {part.path: part for part in step.parts if part.status == "differs"}
    assert list(differing) == ["exit_info1", "exit_info2"]
    assert differing["exit_info1"].expected.startswith("INFO1_MALFORMED")
    assert differing["exit_info1"].found.startswith("INFO1_OK")
    assert (step.memory[0].expected[8], step.memory[0].found[8]) == (2, 0)
    assert [line.address for line in step.memory] == [0x10390, 0x103A0]
    assert step.others == ("return, where other is x, by GHCB-PSC-02",)


def test_memory_that_may_change_is_not_shown() -> None:
    bad = psc_failure()
    one = replace(bad.case.steps[0].expected[0], may_change_mem=((0x10398, 16),))
    case = replace(bad.case, steps=(replace(bad.case.steps[0], expected=(one,)),))
    (step,) = compared(replace(bad, case=case))
    assert step.memory == ()
    assert {part.status for part in step.parts} == {"open"}


def test_another_end_than_expected() -> None:
    fault = Expected(end="fault", fault="gp", rule="TDX-MAPGPA-06")
    case = tdx_case(steps=(HostStep(regs=SENT, expected=(fault,)),))
    got = Exchanged(sent_regs=SENT, got_end="stop")
    (step,) = compared(failed(case=case, exchanged=(got,)))
    assert (step.expected_end, step.found_end, step.differs) == ("fault gp", "stop", True)
    (same,) = compared(failed(case=case, exchanged=(replace(got, got_end="fault gp"),)))
    assert not same.differs


def test_the_nearest_of_several_right_answers_is_shown() -> None:
    near = Expected(regs={"r10": 1, "r11": 2})
    far = Expected(regs={"r10": 7, "r11": 8}, rule="TDX-MAPGPA-02")
    got = Exchanged(got_end="return", got_regs={"r10": 1, "r11": 3})
    assert nearest((far, near), got) is near
    findings = [Finding(what="register r10", expected="0x7", found="0x1", rule="TDX-MAPGPA-02")]
    assert nearest((far, near), got, findings) is far
    assert nearest((), got) is None


def test_steps_behind_a_failed_one_are_not_mistaken_for_it() -> None:
    later = {**SENT, "r13": 0x2800}
    case = tdx_case(
        steps=(
            HostStep(regs=SENT, expected=(ALIGN_ERROR,)),
            HostStep(regs={**SENT, "r13": 0x3800}, expected=(ALIGN_ERROR,)),
            HostStep(regs=later, expected=(ALIGN_ERROR,), fresh=True),
        )
    )
    # The second step was not made, since the first one failed.
    got = (
        Exchanged(sent_regs=SENT, got_end="return", got_regs={"r10": 0}),
        Exchanged(sent_regs=later, got_end="return", got_regs={"r10": 0}),
    )
    assert [step.number for step in compared(failed(case=case, exchanged=got, findings=()))] == [0, 2]


def test_a_guest_s_calls_are_decoded_with_the_answers() -> None:
    first, second = compared(guest_failure())
    assert first.means == second.means == "make shared: 1024 pages at 0x40000000"
    assert [(item.path, item.value) for item in first.answer][:2] == [
        ("status", "RETRY (0x0000000000000001)"),
        ("next_gpa", "0x0000800040200000"),
    ]
    assert second.answer == ()


def test_the_call_at_which_it_broke_is_decoded() -> None:
    crashed = CaseResult(case=tdx_case(), verdict=Verdict.CRASH)
    (step,) = compared(crashed)
    assert step.means == "make shared: 1 page at 0x40101000"
    assert (step.parts, step.memory) == ((), ())
    assert not step.differs
    assert step.notes == ("No answer to this call was recorded.",)
    assert compared(replace(crashed, verdict=Verdict.SKIP)) == ()


def test_nothing_stops_the_decoding() -> None:
    unknown = replace(failed(), case=replace(tdx_case(), abi="no-such-abi"))
    (step,) = compared(unknown)
    assert step.notes
    assert [part.path for part in step.parts] == ["register r10", "register rcx"]
    odd = Exchanged(sent_regs={}, got_end="return", got_regs={"r10": 1 << 64, "nonsense": 5})
    assert compared(failed(exchanged=(odd,)))[0].notes
    assert compared(failed(exchanged=())) == ()
    nowhere = replace(tdx_case(), transport="no-such-transport")
    assert compared(failed(case=nowhere))[0].notes


def test_ten_thousand_pieces_of_memory_take_no_time() -> None:
    got = Exchanged(
        sent_regs=SENT, got_end="return", got_regs={"r10": 0}, got_mem=tuple((n * 64, b"\xff") for n in range(10_000))
    )
    (step,) = compared(failed(exchanged=(got,)))
    assert "10000 pieces" in step.notes[0]
    assert len(step.memory) == 16


def test_a_long_list_is_cut_and_the_difference_stays() -> None:
    # The page with its buffer in it: header at 0x800, 200 entries, none done; the host says that all are done.
    page = bytearray(4096)
    page[0x390:0x398] = (0x80000010).to_bytes(8, "little")
    page[0x3A8:0x3B0] = (0x10800).to_bytes(8, "little")
    page[0x802:0x804] = (199).to_bytes(2, "little")
    for n in range(200):
        page[0x808 + 8 * n : 0x810 + 8 * n] = ((n + 0x200) << 12 | 2 << 52).to_bytes(8, "little")
    wrong = bytearray(page[0x808 : 0x808 + 1600])
    wrong[8 * 150] = 1  # the current page of entry 150
    case = Case(
        id="ghcb-psc@ghcb-2.host.vmgexit.x.y", abi="ghcb-psc", revision="ghcb-2", role="host", transport="vmgexit",
        rules=(), level="must", why="Many entries.", kind="progress",
        steps=(HostStep(regs={"msr_c0010130": 0x10000}, mem=((0x10000, bytes(page)),), expected=(Expected(),)),),
    )  # fmt: skip
    got = Exchanged(
        sent_regs={"msr_c0010130": 0x10000}, sent_mem=((0x10000, bytes(page)),), got_end="return",
        got_mem=((0x10808, bytes(wrong)),),
    )  # fmt: skip
    (step,) = compared(CaseResult(case=case, verdict=Verdict.FAIL, exchanged=(got,)))
    assert len(step.sent) <= MAX_ROWS
    assert len(step.parts) <= MAX_ROWS
    assert any("more fields" in note for note in step.notes)
    assert [line.address for line in step.memory] == [0x10808 + 8 * 150 & ~15]


def test_rule_texts_come_from_the_specification() -> None:
    rule = rule_text("tdx-map-gpa", "ghci-1.5", "TDX-MAPGPA-06")
    assert rule is not None
    assert rule.text.startswith("Address and size must be multiples of 4 KiB")
    assert "tdx.c" in rule.source
    assert rule_text("tdx-map-gpa", "ghci-1.5", "NO-RULE") is None
    assert rule_text("no-such-abi", "1", "NO-RULE") is None
