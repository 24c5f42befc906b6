"""Hosts that do or tell a part only: right where the ABI lets them and they say so, wrong anywhere else."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import pytest

from hvabi.adapters.values import HostAnswer, Injection
from hvabi.backend import Backend, PageState
from hvabi.conformance.case import Setup
from hvabi.conformance.generate import cases
from hvabi.conformance.liars import Liar
from hvabi.conformance.liars.hosts import LyingHost
from hvabi.conformance.liars.liar import Planted
from hvabi.conformance.liars.smoke import supervised
from hvabi.conformance.oracle import Oracle
from hvabi.conformance.result import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hvabi.adapters.host import Host
    from hvabi.conformance.case import Case
    from hvabi.conformance.result import CaseResult

ANDROID = ("pkvm-mem-share", "android", "hvc")
CCA = ("cca-ipa-state", "rmm-1.1", "smc")
TDX = ("tdx-map-gpa", "ghci-1.5", "tdcall")


class StopsAfter(LyingHost):
    """Stops by itself after a few pages, and says so."""

    pages: ClassVar[int] = 1

    def faults(self, inject: Injection) -> Injection:
        """Stop where no other fault is asked for."""
        return replace(inject, stop_after=self.pages) if inject == Injection() else inject


class StopsAfterTwo(StopsAfter):
    """Does two pages a call."""

    pages = 2


class SaysTooLittle(StopsAfter):
    """Does two pages a call and says that it did one."""

    pages = 2

    def changed(self, answer: HostAnswer, regs: Mapping[str, int]) -> HostAnswer:
        """Leave one out."""
        moved = answer.regs.get("x1", 0) == 2
        return replace(answer, regs={**answer.regs, "x1": 1}) if moved else answer


class ShortRuns(Backend):
    """Tells of one page, however many are alike."""

    def run_at(self, start: int, end: int) -> tuple[PageState, int]:
        """Cut the run."""
        return super().run_at(start, end)[0], 1


class TellsShortRuns(LyingHost):
    """Answers a question for the first page only."""

    backend_class = ShortRuns


def run(place: tuple[str, str, str], host: type[Host], chosen: list[Case]) -> Iterator[CaseResult]:
    abi, revision, transport = place
    liar = Liar(
        id="early", abi=abi, revision=revision, transport=transport, role="host", family="generated", what="",
        planted=Planted(host=host),
    )  # fmt: skip
    return supervised(liar, chosen)


def some(place: tuple[str, str, str], *words: str) -> list[Case]:
    abi, revision, transport = place
    found = cases(abi, revision=revision, transport=transport, role="host")
    return [case for case in found if any(word in case.id for word in words) and "many" not in case.id]


@pytest.mark.parametrize("host", [StopsAfter, StopsAfterTwo])
@pytest.mark.parametrize(
    ("place", "words"),
    [
        (ANDROID, (".done.three", ".done.twice", ".done.mixed", ".done.across", "RANGE-11")),
        (CCA, (".done.three", ".done.twice", ".done.mixed", ".done.across", "RIPAS-08.page")),
    ],
    ids=["pkvm", "cca"],
)
def test_a_host_that_stops_by_itself_is_right(
    host: type[Host], place: tuple[str, str, str], words: tuple[str, ...]
) -> None:
    chosen = some(place, *words)
    assert len(chosen) > 12
    results = list(run(place, host, chosen))
    assert [result.case.id for result in results if result.verdict is not Verdict.PASS] == []


def test_what_it_says_is_compared_with_what_it_did() -> None:
    chosen = some(ANDROID, ".done.three", ".done.across")
    assert {result.verdict for result in run(ANDROID, SaysTooLittle, chosen)} == {Verdict.FAIL}


def test_a_later_step_finds_the_state_that_it_expects() -> None:
    """The call is made again after the whole is done: what is shared already is an error."""
    (case,) = some(ANDROID, ".done.twice-to-shared")
    (result,) = run(ANDROID, StopsAfter, [case])
    assert (result.verdict, len(case.steps)) == (Verdict.PASS, 2)
    assert [step.got_regs["x0"] for step in result.exchanged] == [0, 0xFFFFFFFFFFFFFFFD]


def test_elsewhere_a_host_does_the_whole() -> None:
    chosen = some(TDX, ".done.three")
    assert {result.verdict for result in run(TDX, StopsAfter, chosen)} == {Verdict.FAIL}


def test_a_question_may_be_answered_for_a_first_part() -> None:
    chosen = some(CCA, ".get-done.", "RIPAS-34", "RIPAS-35")
    assert len(chosen) > 10
    assert {result.verdict for result in run(CCA, TellsShortRuns, chosen)} == {Verdict.PASS}


# -- a replay that the guest never sees -------------------------------------------------------------------------------


class NeverReplays(LyingHost):
    """Maps a page by itself before it shares it."""

    def faults(self, inject: Injection) -> Injection:
        """Map everything first."""
        self.backend.set_fact("unmapped", 0, 1 << 40, False)
        return inject


class AlwaysReplays(LyingHost):
    """Asks for the call again and never maps the page."""

    def changed(self, answer: HostAnswer, regs: Mapping[str, int]) -> HostAnswer:
        """Take the page away again."""
        if answer.end == "replay":
            self.backend.set_fact("unmapped", regs["x1"] >> 12, (regs["x1"] >> 12) + 1, True)
        return answer


class RefusesUnmapped(LyingHost):
    """Takes a page that is not mapped for an error."""

    def changed(self, answer: HostAnswer, regs: Mapping[str, int]) -> HostAnswer:
        """Refuse."""
        return replace(answer, end="return", regs={"x0": 0xFFFFFFFFFFFFFFFD}) if answer.end == "replay" else answer


@pytest.mark.parametrize(
    ("host", "verdict"),
    [
        (LyingHost, Verdict.PASS),
        (NeverReplays, Verdict.PASS),
        (AlwaysReplays, Verdict.NO_PROGRESS),
        (RefusesUnmapped, Verdict.FAIL),
    ],
)
def test_a_page_that_is_not_mapped(host: type[Host], verdict: Verdict) -> None:
    place = ("pkvm-mem-share", "upstream", "hvc")
    chosen = [case for case in some(place, "PKVM-SHARE-08.") if case.id.endswith(("fact-true", "fact-true-to-shared"))]
    assert chosen
    assert {result.verdict for result in run(place, host, chosen)} == {verdict}


def test_the_oracle_says_what_the_guest_sees_in_the_end() -> None:
    oracle = Oracle("pkvm-mem-share", "upstream", "hvc", Setup())
    fields = {"function": 0xC6000003, "function_high": 0, "base": 0x40001000, "arg2": 0, "arg3": 0}
    (answer,) = oracle.answers(fields, call="share", facts={"unmapped": ((0x40001, 0x40003),)})
    assert (answer.end, answer.regs["x0"], answer.replayed) == ("return", 0, ("PKVM-SHARE-08",))
    assert answer.state == ((0x40001, 0x40002, "shared"),)
    assert dict(answer.facts) == {"unmapped": ((0x40002, 0x40003),)}
