"""The benchmark: contenders agree, what is missing is named, goals say why they are missed. No speed is judged."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from hvabi.cli.main import cli

ROOT = Path(__file__).parent.parent


@pytest.fixture
def suite(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.suite")


def test_a_goal_knows_its_side(suite: Any) -> None:
    goal = sys.modules["benchmarks.measure"].Goal
    assert goal(text="a", measured=3.0, limit=2).met is False
    assert goal(text="a", measured=2.0, limit=2).met is True
    assert goal(text="a", measured=3.0, limit=2, at_least=True).met is True
    assert goal(text="a", measured=None, limit=2).met is None
    assert suite.why(goal(text="a", measured=1.0, limit=2)) is None
    assert "not installed" in suite.why(goal(text="a", measured=None, limit=2))
    assert suite.why(goal(text="bulk: no such reason", measured=3.0, limit=2))


def test_contenders_agree_on_the_pages(suite: Any) -> None:
    tracking = importlib.import_module("benchmarks.tracking")
    there, absent = tracking.installed()
    tracking.agree(there)
    assert {kind.name for kind in there} | absent.keys() == {kind.name for kind in tracking.KINDS}
    assert {"hvabi", "bitmap"} <= {kind.name for kind in there}

    class Forgetful(tracking.Bitmap):  # type: ignore[misc, name-defined]  # a script's class
        def unshare(self, start: int, end: int) -> None:
            super().unshare(start, end - 1)

    with pytest.raises(AssertionError):
        tracking.agree([*there, Forgetful])


def test_the_command(suite: Any) -> None:
    ran = CliRunner().invoke(cli, ["bench", "--quick", "--json", "--root", str(ROOT), "calls"], prog_name="hvabi")
    assert ran.exit_code in (0, 1), ran.output
    found = json.loads(ran.stdout)
    assert found["quick"] is True
    assert {goal["met"] for goal in found["goals"]} <= {True, False}
    assert all(goal["reason"] for goal in found["goals"] if not goal["met"])
    assert all(row["microseconds"] > 0 for row in found["rows"])
    assert (ran.exit_code == 1) is any(goal["met"] is False for goal in found["goals"])
    lines = suite.table(found)
    assert any("whole call of tdx-map-gpa" in line for line in lines)


def test_errors(tmp_path: Path) -> None:
    ran = CliRunner().invoke(cli, ["bench", "--root", str(tmp_path)], prog_name="hvabi")
    assert (ran.exit_code, "no checkout" in ran.output) == (4, True)
    ran = CliRunner().invoke(cli, ["bench", "--root", str(ROOT), "speed"], prog_name="hvabi")
    assert ran.exit_code == 2
    assert "unknown group" in ran.output
