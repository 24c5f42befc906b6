"""KTAP: every line is held against the grammar of version 1."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from hvabi.conformance.report import ktap
from tests.conformance.report_runs import every_verdict, hostile, passing

if TYPE_CHECKING:
    from hvabi.conformance.result import RunResult

RESULT = re.compile(
    r"(?P<ok>ok|not ok) (?P<n>\d+) (?P<name>[^#]+?)(?: # (?P<directive>SKIP|TODO|XFAIL|TIMEOUT|ERROR)(?: .*)?)?"
)
RUNS = [every_verdict(), hostile(), passing(), passing(0), replace(passing(), complete=False)]
IDS = ["every verdict", "hostile", "good", "empty", "given up"]


def results_at(lines: list[str], indent: str) -> list[re.Match[str]]:
    own = [line.removeprefix(indent) for line in lines if line.startswith(indent) and line[len(indent)] != " "]
    return [found for line in own if (found := RESULT.fullmatch(line))]


@pytest.mark.parametrize("run", RUNS, ids=IDS)
def test_grammar(run: RunResult) -> None:
    lines = ktap.render(run).splitlines()
    assert lines[0] == "KTAP version 1"
    for line in lines:
        assert line.isprintable()
        body = line[2:] if line.startswith("  ") else line
        assert (
            body == "KTAP version 1"
            or re.fullmatch(r"1\.\.\d+", body)
            or body.startswith("# ")
            or RESULT.fullmatch(body)
        ), line
    plan = re.fullmatch(r"1\.\.(\d+)", lines[1])
    assert plan is not None
    outer = results_at(lines, "")
    assert [int(found["n"]) for found in outer] == list(range(1, int(plan[1]) + 1))


@pytest.mark.parametrize("run", RUNS[:3], ids=IDS[:3])
def test_each_subtest_has_its_plan_and_its_result(run: RunResult) -> None:
    text = ktap.render(run)
    blocks = re.split(r"^  KTAP version 1\n", text, flags=re.MULTILINE)[1:]
    assert blocks
    for block in blocks:
        lines = block.splitlines()
        assert lines[0].startswith("  # Subtest: ")
        plan = re.fullmatch(r"  1\.\.(\d+)", lines[1])
        assert plan is not None
        inner = results_at(lines, "  ")
        assert [int(found["n"]) for found in inner] == list(range(1, int(plan[1]) + 1))
        outer = next(found for line in lines if (found := RESULT.fullmatch(line)))
        assert outer["name"] == lines[0].removeprefix("  # Subtest: ")
        assert (outer["ok"] == "ok") is all(found["ok"] == "ok" for found in inner)


@pytest.mark.parametrize(
    ("name", "ok", "directive"),
    [
        ("pass", True, None),
        ("unseen", True, None),
        ("should", True, None),
        ("size-unaligned", False, None),
        ("known", True, "XFAIL"),
        ("skip", True, "SKIP"),
        ("slow", False, "TIMEOUT"),
        ("boom", False, "ERROR"),
        ("resume", False, None),
        ("left", False, "ERROR"),
    ],
)
def test_verdicts(name: str, ok: bool, directive: str | None) -> None:
    (found,) = [
        f for f in results_at(ktap.render(every_verdict()).splitlines(), "  ") if f["name"].endswith(f".{name}")
    ]
    assert (found["ok"] == "ok", found["directive"]) == (ok, directive)


def test_what_explains_a_failure_stands_before_it() -> None:
    lines = ktap.render(every_verdict()).splitlines()
    place = next(n for n, line in enumerate(lines) if line.startswith("  not ok") and "size-unaligned" in line)
    before = lines[place - 5 : place]
    assert any("register r10: expected 0x8000000000000002" in line for line in before)
    assert any(line.startswith("  # $ hvabi conform") for line in before)


def test_problems_and_an_incomplete_run_are_not_ok() -> None:
    lines = ktap.render(replace(passing(), complete=False)).splitlines()
    assert "not ok 2 hvabi.run" in lines
    assert "ok 1 tdx-map-gpa@ghci-1.5" in lines


def test_nobody_can_forge_a_result() -> None:
    names = [found["name"] for found in results_at(ktap.render(hostile()).splitlines(), "  ")]
    assert all(name.startswith(("tdx-map-gpa@", "no-such-abi@")) for name in names)
