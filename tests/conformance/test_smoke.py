"""The smoke run: liars are caught by named cases, or are equivalent with a reason."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import pytest

from hvabi.abi.registry import abi_ids, bundled
from hvabi.conformance.generate import cases
from hvabi.conformance.liars import SmokeReport, liars, smoke
from hvabi.conformance.liars.smoke import MORE_TRIES, MOST_CATCHES, supervised
from hvabi.conformance.result import CaseResult, Verdict
from hvabi.conformance.stories import regression_cases

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hvabi.conformance.case import Case
    from hvabi.conformance.liars import Liar

ABIS = [abi for abi in abi_ids() if not bundled(abi).draft and bundled(abi).convert_call is not None]
HOST = "tdx-map-gpa@ghci-1.5.host.tdcall"
GUEST = "tdx-map-gpa@ghci-1.5.guest.tdcall"


@cache
def all_cases(abi: str) -> tuple[Case, ...]:
    """Return generated cases and stories of an ABI."""
    return (*cases(abi), *regression_cases(abi))


@cache
def whole(abi: str) -> SmokeReport:
    """Return the smoke report of all liars of an ABI."""
    return smoke(liars(abi), all_cases(abi))


def some(*names: str) -> list[Liar]:
    """Return liars by id."""
    known = {liar.id: liar for liar in liars("tdx-map-gpa")}
    return [known[name] for name in names]


CAUGHT_BY = [
    (f"{HOST}.rule-skipped.TDX-MAPGPA-05", "TDX-MAPGPA-05"),
    (f"{HOST}.rules-swapped.TDX-MAPGPA-05-TDX-MAPGPA-06", "TDX-MAPGPA-06"),
    (f"{HOST}.progress.partial-next_gpa-one-more", "stop-after"),
    (f"{HOST}.meaning.polarity", ".done."),
    (f"{HOST}.bug.K10", "k10"),
    (f"{HOST}.bug.V9", "TDX-MAPGPA-"),
    (f"{GUEST}.progress.partial-is-done", "progress"),
    (f"{GUEST}.progress.loops", "none-for-ever"),
    (f"{GUEST}.bug.T3", "t3"),
    (f"{GUEST}.bug.T4", "t4"),
]


@pytest.mark.parametrize(("name", "by"), CAUGHT_BY, ids=[row[0].partition("@")[2] for row in CAUGHT_BY])
def test_liar_is_caught_by_a_case_about_its_bug(name: str, by: str) -> None:
    report = smoke(some(name), all_cases("tdx-map-gpa"))
    assert report.good
    assert any(by.lower() in catch.case.lower() for catch in report.caught[0].by)


def test_liar_without_cases_is_not_caught_and_fails_the_run() -> None:
    report = smoke(some(f"{HOST}.meaning.polarity"), ())
    assert not report.good
    assert [entry.liar.id for entry in report.survivors] == [f"{HOST}.meaning.polarity"]
    assert next(report.lines()).startswith("NOT CAUGHT")


def test_no_liars_are_no_success() -> None:
    assert not smoke((), all_cases("tdx-map-gpa")).good


def test_reason_that_a_case_refutes_fails_the_run() -> None:
    liar = replace(some(f"{HOST}.meaning.polarity")[0], equivalent="nobody looks")
    report = smoke([liar], all_cases("tdx-map-gpa"))
    assert not report.good
    assert [entry.liar for entry in report.refuted] == [liar]
    assert next(report.lines()).startswith("WRONGLY EXCUSED")


def test_equivalent_liar_is_listed_with_its_reason() -> None:
    report = smoke(some(f"{HOST}.rule-skipped.TDX-MAPGPA-03"), all_cases("tdx-map-gpa"))
    assert report.good
    assert "TDX-MAPGPA-04 refuses" in next(report.lines())


def test_it_stops_early_and_names_a_few_cases() -> None:
    run: list[str] = []

    def counting(liar: Liar, chosen: Iterable[Case]) -> Iterator[CaseResult]:
        for case in chosen:
            run.append(case.id)
            yield CaseResult(case=case, verdict=Verdict.FAIL)

    report = smoke(some(f"{HOST}.meaning.polarity"), all_cases("tdx-map-gpa"), counting)
    assert len(run) == MOST_CATCHES == len(report.caught[0].by)


def test_it_does_not_look_long_for_more_cases() -> None:
    run: list[str] = []

    def once(liar: Liar, chosen: Iterable[Case]) -> Iterator[CaseResult]:
        for case in chosen:
            run.append(case.id)
            yield CaseResult(case=case, verdict=Verdict.FAIL if len(run) == 1 else Verdict.PASS)

    smoke(some(f"{HOST}.meaning.polarity"), all_cases("tdx-map-gpa"), once)
    assert len(run) == MORE_TRIES + 1


def test_policy_switched_in_mid_run_catches_a_liar() -> None:
    values = iter(["retry", "invalid"] * 1000)

    def both(liar: Liar, chosen: Iterable[Case]) -> Iterator[CaseResult]:
        for case in chosen:
            yield CaseResult(case=case, verdict=Verdict.PASS, policies={"eagain": next(values)})

    report = smoke(some(f"{HOST}.meaning.polarity"), all_cases("tdx-map-gpa"), both)
    assert [catch.case for catch in report.caught[0].by] == ["the whole run"]


def test_likely_cases_come_first() -> None:
    seen: list[str] = []

    def first(liar: Liar, chosen: Iterable[Case]) -> Iterator[CaseResult]:
        for result in supervised(liar, chosen):
            seen.append(result.case.id)
            yield result

    smoke(some(f"{HOST}.rule-skipped.TDX-MAPGPA-05"), all_cases("tdx-map-gpa"), first)
    assert "TDX-MAPGPA-05" in seen[0]


@pytest.mark.slow
@pytest.mark.parametrize("abi", ABIS)
def test_no_reason_is_wrong_and_no_liar_just_breaks(abi: str) -> None:
    report = whole(abi)
    assert [(entry.liar.id, entry.by[0].case) for entry in report.refuted] == []
    assert [entry.liar.id for entry in report.entries if entry.broken] == []


@pytest.mark.slow
@pytest.mark.parametrize("abi", ABIS)
def test_every_liar_is_caught_or_excused(abi: str) -> None:
    survivors = whole(abi).survivors
    assert [f"{entry.liar.id}: {entry.liar.what}" for entry in survivors] == []
