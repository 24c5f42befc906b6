"""hvabi smoke: what it prints of a report, and a real run of a few liars."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from hvabi.conformance import liars as zoo
from hvabi.conformance.liars import Catch, Caught, Liar, SmokeReport
from hvabi.conformance.liars.liar import Planted
from hvabi.conformance.result import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Run

ABI = "tdx-map-gpa"
PREFIX = f"{ABI}@ghci-1.5.host.tdcall"


def liar(name: str, **more: Any) -> Liar:
    return Liar(
        id=f"{PREFIX}.{name}", abi=ABI, revision="ghci-1.5", transport="tdcall", role="host", family="generated",
        what=f"It is wrong about {name}.", planted=Planted(), **more,
    )  # fmt: skip


def catch(name: str, verdict: Verdict = Verdict.FAIL) -> Catch:
    return Catch(case=f"{PREFIX}.{name}", verdict=verdict, message="register r10")


CAUGHT = Caught(liar=liar("rule-skipped.A"), by=(catch("A.one"), catch("A.two", Verdict.WARN)), tried=9)
EQUIVALENT = Caught(liar=liar("status.B", equivalent="nobody can see it"), tried=9)
EXEMPT = Caught(liar=liar("limit.E", exempt="no case is so long"), tried=9)
SURVIVOR = Caught(liar=liar("rules-swapped.C", reference="Linux 0123456789ab"), tried=9, skipped=2)
REFUTED = Caught(liar=liar("status.D", equivalent="it was thought so"), by=(catch("D.one"),), tried=1)


def report(hv: Run, monkeypatch: pytest.MonkeyPatch, *entries: Caught, args: tuple[str, ...] = ()) -> Any:
    monkeypatch.setattr(zoo, "liars", lambda abi, role: tuple(entry.liar for entry in entries))
    made = SmokeReport(entries=entries, seconds=1.5)

    def smoke(liars: object, cases: object, *, progress: Callable[[Caught], None]) -> SmokeReport:
        for entry in entries:
            progress(entry)
        return made

    monkeypatch.setattr(zoo, "smoke", smoke)
    return hv("smoke", ABI, *args, columns=120)


def test_caught_equivalent_and_exempt_are_good(hv: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = report(hv, monkeypatch, CAUGHT, EQUIVALENT, EXEMPT)
    assert ran.code == 0
    assert "tdx-map-gpa  3 liars: 1 caught, 1 equivalent, 1 exempt\n" in ran.out
    assert "  ghci-1.5.host.tdcall.rule-skipped.A  A.one and 1 more\n" in ran.out
    assert f"  nobody can see it\n    {PREFIX}.status.B\n" in ran.out
    assert f"and none is made\n  no case is so long\n    {PREFIX}.limit.E\n" in ran.out
    assert ran.out.endswith("good: 3 liars, 1 caught, 1 equivalent, 1 exempt, 0 survived, 0 wrongly excused, 1.5 s\n")
    assert "A.one, A.two (warn)" in report(hv, monkeypatch, CAUGHT, args=("--all",)).out


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (SURVIVOR, ["Survived: ", "rules-swapped.C", "(9 cases tried, 2 skipped)", "seen in: Linux 0123456789ab"]),
        (REFUTED, ["the reason is wrong:", "status.D", f"caught by {PREFIX}.D.one", "it was thought so"]),
    ],
    ids=["survivor", "refuted"],
)
def test_what_fails(hv: Run, monkeypatch: pytest.MonkeyPatch, entry: Caught, said: list[str]) -> None:
    ran = report(hv, monkeypatch, CAUGHT, entry)
    assert ran.code == 1
    assert all(text in ran.out for text in said)
    assert "\nFAILED: 2 liars, 1 caught" in ran.out


def test_json(hv: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = report(hv, monkeypatch, CAUGHT, EQUIVALENT, EXEMPT, SURVIVOR, REFUTED, args=("--json",))
    found = json.loads(ran.out)
    assert (ran.code, found["good"]) == (1, False)
    assert [item["state"] for item in found["liars"]] == ["caught", "equivalent", "exempt", "survived", "refuted"]
    assert found["liars"][0]["caught_by"][1] == {
        "case": f"{PREFIX}.A.two", "verdict": "warn", "message": "register r10",
    }  # fmt: skip


def test_no_liar_is_an_error(hv: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = report(hv, monkeypatch)
    assert (ran.code, ran.out) == (2, "")
    assert "there is no liar" in ran.err


def test_unknown_abi(hv: Run) -> None:
    ran = hv("smoke", "tdx-mapgpa")
    assert (ran.code, ran.out) == (2, "")
    assert "did you mean tdx-map-gpa?" in ran.err


def test_real_liars_are_caught_by_named_cases(hv: Run) -> None:
    ran = hv("smoke", ABI, "--role", "guest", "--json")
    caught = [item for item in json.loads(ran.out)["liars"] if item["state"] == "caught"]
    assert len(caught) > 10
    assert all(item["caught_by"][0]["case"].startswith(f"{ABI}@ghci-1.5.guest.tdcall.") for item in caught)
