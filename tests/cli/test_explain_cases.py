"""hvabi explain with case ids, globs of them, and stories of historic bugs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from hvabi.cli.case_page import case_lines
from hvabi.conformance.catalogue import every_case
from hvabi.conformance.stories import stories

if TYPE_CHECKING:
    from tests.cli.conftest import Run

CASE = "tdx-map-gpa@ghci-1.5.host.tdcall.TDX-MAPGPA-06.gpa-half-aligned"


def test_a_host_case(hv: Run) -> None:
    ran = hv("explain", CASE)
    assert ran.code == 0
    for text in (
        "Breaks this rule: Address and size must be multiples of 4 KiB",
        "rule    TDX-MAPGPA-06 (must, host): ",
        f"  $ hvabi conform --iut CONN --id {CASE}\n",
        "The call: make private: 1 page at 0x800\n",
        "r12  gpa          0x0000000000000800",
        "Right: the call returns, by TDX-MAPGPA-06",
        "r10           status         ALIGN_ERROR (0x8000000000000002)",
        "pages afterwards: ",
    ):
        assert text in ran.out


def test_a_guest_case(hv: Run) -> None:
    ran = hv("explain", "tdx-map-gpa@ghci-1.5.guest.tdcall.done.one-page-to-shared")
    assert ran.code == 0
    assert "The guest is asked: make shared: 1 page, " in ran.out
    assert "the host does it and answers rightly" in ran.out
    assert "says     all is done" in ran.out


def test_alternatives_are_told_by_their_policies(hv: Run) -> None:
    ran = hv("explain", "tdx-map-gpa@ghci-1.5.host.tdcall.TDX-MAPGPA-07.leaf-0x1ffff", columns=120)
    assert "Right is any of 2 answers" in ran.out
    assert "by TDX-MAPGPA-07, where unknown-leaf is subfunc-unsupported" in ran.out
    assert "by TDX-MAPGPA-08, where unknown-leaf is invalid-operand" in ran.out


def test_a_glob_lists(hv: Run) -> None:
    ran = hv("explain", "tdx-map-gpa@*.TDX-MAPGPA-06.*")
    assert ran.code == 0
    assert f"  {CASE}\n" in ran.out
    found = json.loads(hv("explain", "--json", "tdx-map-gpa@*.TDX-MAPGPA-06.*").out)[0]["found"]
    assert ran.out.startswith(f"tdx-map-gpa@*.TDX-MAPGPA-06.*: {len(found)} cases\n")
    assert CASE in {item["id"] for item in found}


def test_an_injected_fault_is_in_the_json(hv: Run) -> None:
    case = next(case for case in every_case(["tdx-map-gpa"], role="host") if any(step.inject for step in case.steps))
    found = json.loads(hv("explain", "--json", case.id).out)[0]["found"][0]
    assert any("inject" in step for step in found["steps"])
    assert "with the fault " in hv("explain", case.id).out


def test_a_story(hv: Run) -> None:
    story = next(story for story in stories("tdx-map-gpa") if story.reference)
    ran = hv("explain", story.id, columns=120)
    assert ran.code == 0
    assert story.title in " ".join(ran.out.split())
    assert story.reference[0] in ran.out
    assert story.cases[0].case.id in ran.out
    assert hv("explain", story.cases[0].case.id).code == 0
    assert json.loads(hv("explain", "--json", story.id).out)[0]["found"][0]["kind"] == "story"


def test_every_kind_of_page_fits_any_terminal() -> None:
    cases = every_case(["ghcb-psc", "kvm-page-enc-status"])
    kinds = {(case.abi, case.kind, case.role, case.transport): case for case in cases}
    assert len(kinds) > 12
    for case in kinds.values():
        for columns in (60, 80, 120):
            lines = list(case_lines(case, columns))
            assert len(lines) > 10
            # Cells of a table are never broken; everything else is.
            wide = [line for line in lines if len(line) > columns and "@" not in line and "  " not in line.strip()]
            assert not wide, case.id


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (CASE[:-2], f"did you mean {CASE}"),
        ("tdx-mapgpa@x", "did you mean tdx-map-gpa?"),
        ("tdx-map-gpa@*.nothing.*", "ABI@REVISION.ROLE.TRANSPORT.RULE.NAME"),
        ("bug-k10-eagain-is-retri", "did you mean bug-k10-eagain-is-retry"),
    ],
    ids=["case", "abi", "glob", "story"],
)
def test_unknown(hv: Run, asked: str, said: str) -> None:
    ran = hv("explain", asked)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err


def test_a_rule_says_how_to_test_it(hv: Run) -> None:
    assert "hvabi conform --iut CONN --rule TDX-MAPGPA-06" in hv("explain", "TDX-MAPGPA-06").out
