"""hvabi coverage: the table, what fails it, and JSON."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from hvabi.conformance import catalogue
from hvabi.conformance.catalogue import every_case

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hvabi.conformance.case import Case
    from tests.cli.conftest import Run

ABI = "tdx-map-gpa"


def test_every_must_of_one_abi_has_a_case(hv: Run) -> None:
    ran = hv("coverage", ABI)
    assert ran.code == 0
    assert re.search(r"^ +TDX-MAPGPA-06 +must +host +[1-9]\d*$", ran.out, re.MULTILINE)
    assert ran.out.splitlines()[-1].startswith("good: ")


def without(rule: str) -> object:
    def fewer(*args: object, **more: object) -> Iterator[Case]:
        return (case for case in every_case(*args, **more) if rule not in case.rules)  # type: ignore[arg-type]  # passed on

    return fewer


def test_the_last_case_of_a_must_is_missed(hv: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "every_case", without("TDX-MAPGPA-06"))
    ran = hv("coverage", ABI)
    assert ran.code == 1
    assert re.search(r"TDX-MAPGPA-06 +must +host +- +NO CASE, and it is a must", ran.out)
    assert "\nFAILED: " in ran.out
    assert "1 must without a case: TDX-MAPGPA-06" in " ".join(ran.out.split())
    found = json.loads(hv("coverage", ABI, "--json", "--uncovered").out)
    assert found["good"] is False
    assert {"TDX-MAPGPA-06"} == {row["rule"] for row in found["rules"] if row["state"] == "missing"}


def test_a_rule_that_is_no_must_is_no_failure(hv: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "every_case", without("TDX-MAPGPA-07"))
    ran = hv("coverage", ABI, "--uncovered")
    assert ran.code == 0
    assert "no case, and it is no must" in " ".join(ran.out.split())
    assert "TDX-MAPGPA-06" not in ran.out


def test_exempt_rules_say_why(hv: Run) -> None:
    ran = hv("coverage", "ghcb-msr-psc", "--uncovered", "--json")
    exempt = [row for row in json.loads(ran.out)["rules"] if row["state"] == "exempt"]
    assert ran.code == 0
    assert exempt
    assert all(row["exempt"] for row in exempt)
    text = hv("coverage", exempt[0]["abi"], "--uncovered", columns=200).out
    assert f"exempt: {exempt[0]['exempt']}" in " ".join(text.split())


@pytest.mark.parametrize(
    ("args", "said"),
    [(["tdx-mapgpa"], "did you mean tdx-map-gpa?"), (["--nothing"], "--help")],
    ids=["unknown", "option"],
)
def test_used_wrongly(hv: Run, args: list[str], said: str) -> None:
    ran = hv("coverage", *args)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_it_fits_the_terminal(hv: Run, columns: int) -> None:
    ran = hv("coverage", ABI, columns=columns)
    assert max(map(len, ran.out.splitlines())) <= columns
