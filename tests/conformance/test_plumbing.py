"""The plumbing check: every case on the bundled adapters, in one process or several."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hvabi.abi.registry import bundled
from hvabi.conformance import catalogue, plumbing, verify
from hvabi.conformance.catalogue import every_case
from hvabi.conformance.plumbing import Checked, check_all, check_cases, tasks

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

    from hvabi.conformance.case import Case, Expected

ABI = "ghcb-msr-psc"


def test_the_bundled_adapters_pass() -> None:
    found = check_cases(ABI, "spec")
    assert found.failures == ()
    assert found.cases == {"ghcb-2": len(list(every_case([ABI])))}


def test_several_processes_find_the_same() -> None:
    assert check_all([ABI], jobs=2) == check_all([ABI], jobs=1)


def test_without_processes_it_runs_in_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no semaphores here")

    monkeypatch.setattr(plumbing, "ProcessPoolExecutor", refuse)
    told: list[str] = []
    found = check_all([ABI], jobs=2, progress=told.append)
    assert len(told) == len(found) == len(tasks([ABI]))


def test_profiles_that_ask_for_the_same_are_checked_once() -> None:
    for abi, profile in tasks():
        assert profile == "spec" or profile in bundled(abi).profiles
    every = [(abi, name) for abi, _ in tasks() for name in bundled(abi).profiles]
    policies = {(abi, tuple(bundled(abi).policies_of(name).items())) for abi, name in every}
    assert policies == {(abi, tuple(bundled(abi).policies_of(name).items())) for abi, name in tasks() if name != "spec"}


def test_a_wrong_answer_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def bad(one: Expected) -> Expected:
        return replace(one, regs=dict.fromkeys(one.regs, 0xBAD))

    def wrong(abis: list[str], *, profile: str) -> Iterator[Case]:
        for case in every_case(abis, profile=profile):
            steps = tuple(replace(step, expected=tuple(map(bad, step.expected))) for step in case.steps)
            yield replace(case, steps=steps)

    monkeypatch.setattr(catalogue, "every_case", wrong)
    found = check_cases(ABI, "spec")
    assert found.failures
    revision, text = found.failures[0]
    assert revision == "ghcb-2"
    assert "fail: " in text


def test_failures_are_in_the_row_of_verify(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = Checked(abi=ABI, profile="spec", cases={"ghcb-2": 7}, failures=(("ghcb-2", "a case: fail"),))
    monkeypatch.setattr(verify, "check_all", lambda abis, progress: (bad,))
    report = verify.verify()
    row = next(row for row in report.rows if row.abi == ABI)
    assert (row.cases, row.failures[-1]) == (7, "a case: fail")
    assert not report.good
