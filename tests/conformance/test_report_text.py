"""Text, file and summary: the parts that every report shares."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from hvabi.abi.whole_file import write_whole
from hvabi.conformance.report import summary, text
from hvabi.conformance.result import RunResult, Verdict
from tests.conformance.report_runs import CONTROLS, every_verdict, failed, passing, results, tdx_case


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (0, ""),
        (1, "bit 0"),
        (2, "bit 1"),
        (0x3C00, "bits 13:10"),
        (1 << 63 | 1, "bits 63 and 0"),
        (1 << 63 | 0xFF8 | 1, "bits 63, 11:3 and 0"),
        ((1 << 128) - 1, "bits 127:0"),
    ],
)
def test_bit_list(mask: int, words: str) -> None:
    assert text.bit_list(mask) == words


def test_one_line_is_one_harmless_line() -> None:
    shown = text.one_line(f"a{CONTROLS}\nb")
    assert shown.isprintable()
    assert "\x1b" not in shown
    assert "\\x1b[31mred" in shown


def test_long_text_keeps_both_ends() -> None:
    shown = text.cut("a" * 500 + "z" * 500, 100)
    assert len(shown) == 100
    assert shown.startswith("aaa")
    assert shown.endswith("zzz")


@pytest.mark.parametrize("log", ["", "\n\n", "  \n"], ids=["empty", "line breaks", "blanks"])
def test_a_blank_log_has_no_tail(log: str) -> None:
    assert text.tail(log, lines=5, characters=100) == []


def test_the_tail_says_that_it_is_one() -> None:
    rows = text.tail("".join(f"line {n}\n" for n in range(1000)), lines=3, characters=10_000)
    assert rows == ["[… earlier text left out]", "line 997", "line 998", "line 999"]


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "report.txt"
    path.write_text("old")
    path.chmod(0o640)
    write_whole(path, "new \ud800")
    assert path.read_bytes() == b"new \\ud800"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [item.name for item in tmp_path.iterdir()] == ["report.txt"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.txt"
    path.write_text("old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["report.txt"]


def test_a_link_stays_a_link_and_a_device_is_written_to(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    write_whole(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    write_whole("/dev/null", "gone")
    assert not (Path("/dev/null").stat().st_mode & stat.S_IFREG)


def test_every_case_counts_in_exactly_one_column() -> None:
    run = every_verdict()
    counts = summary.totals(run.results)
    assert sum(counts.values()) == len(run.results) == sum(group.total for group in summary.groups(run))
    assert counts == {
        "pass": 1, "unseen": 1, "warn": 1, "note": 1, "fail": 2, "broke": 5, "not-run": 1, "known": 1, "skip": 1
    }  # fmt: skip
    assert {result.verdict for result in run.results} == set(Verdict)


def test_groups_stand_in_order_of_appearance() -> None:
    found = [(group.abi, group.role, group.transport) for group in summary.groups(every_verdict())]
    assert found == [
        ("tdx-map-gpa", "host", "tdcall"),
        ("tdx-map-gpa", "guest", "tdcall"),
        ("ghcb-psc", "host", "vmgexit"),
    ]


def test_a_known_failure_that_passes_counts_as_pass() -> None:
    result = failed(known="xfail", verdict=Verdict.PASS)
    assert summary.column(result) == "pass"


def test_known_failures_are_no_failures() -> None:
    assert [result.known for result in summary.failures(every_verdict())] == [None] * 8


@pytest.mark.parametrize(
    ("run", "word"),
    [
        (passing(), "PASSED"),
        (every_verdict(), "FAILED"),
        (replace(passing(), problems=("stale",)), "FAILED"),
        (replace(passing(), complete=False), "INCOMPLETE"),
        (passing(0), "NOTHING TESTED"),
        (replace(passing(1), results=(failed(verdict=Verdict.SKIP),)), "NOTHING TESTED"),
        (replace(passing(1), results=(failed(known="xfail"),)), "PASSED"),
    ],
    ids=["good", "bad", "problem", "given up", "empty", "all skipped", "all known"],
)
def test_verdict(run: RunResult, word: str) -> None:
    assert summary.verdict_word(run) == word
    assert summary.verdict_line(run).startswith(f"{word}: ")


def test_failures_by_rule_name_the_finding_s_rule() -> None:
    other = failed("other", case=tdx_case("other", rules=("TDX-MAPGPA-02",)))
    bare = failed("bare", findings=(), case=tdx_case("bare", rules=()))
    assert summary.by_rule([*results()[4:5], other, bare]) == (
        ("TDX-MAPGPA-06", 2, failed().case.id),
        ("no rule", 1, bare.case.id),
    )


def test_representatives_show_each_kind_of_failure_before_a_second_of_one() -> None:
    same = [failed(f"n{n}") for n in range(5)]
    other = failed("other", verdict=Verdict.CRASH)
    assert summary.representatives([*same, other], 2) == (same[0], other)
    assert summary.representatives([*same, other], 4) == (*same[:3], other)
    assert summary.representatives([*same, other], 100) == (*same, other)
    assert summary.representatives(same, 0) == ()
