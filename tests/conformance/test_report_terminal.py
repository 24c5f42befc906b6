"""The report for a terminal."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from hvabi.conformance.report import terminal
from tests.conformance.report_runs import every_verdict, failed, hostile, passing, tdx_case

if TYPE_CHECKING:
    from hvabi.conformance.result import RunResult

ANSI = re.compile(r"\x1b\[[0-9;]*m")


def test_a_good_run_is_short_and_ends_with_the_verdict() -> None:
    lines = terminal.render(passing(5)).splitlines()
    assert lines[-1] == "PASSED: 5 cases, 5 passed"
    assert len(lines) < 10
    (row,) = [line for line in lines if line.startswith("  host")]
    assert row.split() == ["host", "tdcall", "5", "-"]


def test_a_failure_has_all_that_one_needs() -> None:
    text = terminal.render(every_verdict())
    for piece in (
        "FAIL  tdx-map-gpa@ghci-1.5.host.tdcall.TDX-MAPGPA-06.size-unaligned\n",
        "register r10 (status):\n",
        "expected 0x8000000000000002 ALIGN_ERROR\n",
        "found    0x8000000000000000 INVALID_OPERAND  bit 1\n",
        "TDX-MAPGPA-06 (must): Address and size must be multiples of 4 KiB",
        "source: Linux arch/x86/kvm/vmx/tdx.c",
        "      $ hvabi conform tdx-map-gpa --iut 'cmd:./toy-vmm' --case "
        "'tdx-map-gpa@ghci-1.5.host.tdcall.TDX-MAPGPA-06.size-unaligned'\n",
        "the process ended with SIGSEGV\n      call: make shared: 1 page at 0x40101000\n",
        "stderr | AddressSanitizer: SEGV on unknown address 0x000000000000\n",
        "seen before: https://github.com/tianocore/edk2/issues/9431\n",
        "policy unknown-leaf: answered as",
        "FAILED: 14 cases, 2 failed, 5 broke, 1 not run",
    ):
        assert piece in text


def test_the_table_counts_what_is_apart() -> None:
    lines = terminal.render(every_verdict()).splitlines()
    head = next(line for line in lines if "unseen" in line)
    total = next(line for line in lines if line.startswith("in all"))
    assert head.split("  ")[-1].strip() == "skip"
    assert total.split()[2:] == ["1", "1", "1", "1", "2", "5", "1", "1", "1"]
    assert "broke: 1 timeout, 1 crash, 1 protocol, 1 no-progress, 1 error" in lines


@pytest.mark.parametrize("run", [every_verdict(), hostile(), passing(0)], ids=["every verdict", "hostile", "empty"])
def test_plain_text_has_no_control_character(run: RunResult) -> None:
    text = terminal.render(run)
    assert all(line.isprintable() for line in text.split("\n"))
    assert "\x1b" not in text


def test_lines_fit_80_columns_but_for_what_people_copy() -> None:
    for line in terminal.render(every_verdict()).splitlines():
        whole = line.startswith("      $ ") or "tdx-map-gpa@" in line or "ghcb-psc@" in line
        assert len(line) <= 80 or whole, line


def test_only_the_first_failures_are_shown_and_the_rest_is_counted_by_rule() -> None:
    run = replace(passing(0), results=tuple(failed(f"n{number}") for number in range(30)))
    text = terminal.render(run, limit=2)
    assert text.count("FAIL  tdx-map-gpa@") == 2
    assert "28 more failures, by rule:" in text
    assert "     28  TDX-MAPGPA-06, first tdx-map-gpa@ghci-1.5.host.tdcall.TDX-MAPGPA-06.n2" in text
    bare = failed(findings=(), case=tdx_case("bare", rules=()))
    text = terminal.render(replace(run, results=(*run.results, bare)), limit=0)
    assert f"      1  no rule, first {bare.case.id}" in text
    assert "30 failures, by rule:" in terminal.render(run, limit=0)


def test_colour_changes_nothing_but_colour() -> None:
    out = io.StringIO()
    terminal.show(every_verdict(), stream=out, color=True)
    shown = out.getvalue()
    assert "\x1b[1;31m" in shown
    assert ANSI.sub("", shown) == terminal.render(every_verdict())
    plain = io.StringIO()
    terminal.show(every_verdict(), stream=plain, color=False)
    assert plain.getvalue() == terminal.render(every_verdict())


def test_nothing_hostile_steers_the_terminal_in_colour_either() -> None:
    out = io.StringIO()
    terminal.show(hostile(), stream=out, color=True)
    assert "\x1b" not in ANSI.sub("", out.getvalue())
    assert "\x1b]" not in out.getvalue()


def test_plain_reports_do_not_import_rich() -> None:
    code = (
        "import sys; from hvabi.conformance.report import terminal, junit, ktap, json, html; "
        "print([name for name in sys.modules if name.split('.')[0] == 'rich'])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
