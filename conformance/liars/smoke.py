"""The test of the kit: every liar is run against its cases until one catches it."""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hvabi.conformance.connect import SimpleConnector
from hvabi.conformance.inprocess import DirectConnection
from hvabi.conformance.result import CaseResult, Verdict
from hvabi.conformance.run import switched_policies
from hvabi.conformance.supervise import GivenUp, Supervisor

if TYPE_CHECKING:
    from hvabi.conformance.case import Case
    from hvabi.conformance.liars.liar import Liar

MOST_CATCHES = 5
"""Most cases that are named for a liar."""
MORE_TRIES = 25
"""Cases that are tried behind the first catch, to name more."""

_GOOD = frozenset({Verdict.PASS, Verdict.PASS_UNSEEN, Verdict.SKIP, Verdict.NOT_RUN})

Run = Callable[["Liar", Iterable["Case"]], Iterator[CaseResult]]
"""Runs cases against a liar, one after another, each only when it is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Catch:
    """A case that caught a liar, and its verdict: ``fail``, or ``warn`` and ``note`` for rules that are no ``must``."""

    case: str
    verdict: Verdict
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caught:
    """What became of one liar.

    Attributes:
        by: the cases that caught it, up to `MOST_CATCHES`; empty where it survived.
        tried: how many cases were run.
        skipped: how many of them were skipped, or not run because of a mistake of the runner.

    """

    liar: Liar
    by: tuple[Catch, ...] = ()
    tried: int = 0
    skipped: int = 0

    @property
    def broken(self) -> bool:
        """Whether it only ever fell over, which is not its bug: nothing was shown by catching it."""
        fell = (Verdict.ERROR, Verdict.CRASH)
        return bool(self.by) and not self.liar.breaks and all(catch.verdict in fell for catch in self.by)

    @property
    def good(self) -> bool:
        """Whether the kit was right: a liar that lies is caught, one with an excuse is not."""
        return bool(self.by) == (self.liar.excuse is None) and not self.broken


@dataclass(frozen=True, slots=True, kw_only=True)
class SmokeReport:
    """What became of all liars."""

    entries: tuple[Caught, ...]
    seconds: float = field(default=0.0, compare=False)

    @property
    def caught(self) -> tuple[Caught, ...]:
        """The liars that were caught as they should be."""
        return tuple(entry for entry in self.entries if entry.by and entry.liar.excuse is None)

    @property
    def survivors(self) -> tuple[Caught, ...]:
        """The liars that no case caught: a case is missing for each."""
        return tuple(entry for entry in self.entries if not entry.by and entry.liar.excuse is None)

    @property
    def equivalent(self) -> tuple[Caught, ...]:
        """The liars that nobody can tell from a right implementation, each with its reason, and rightly not caught."""
        return tuple(entry for entry in self.entries if entry.liar.equivalent is not None and not entry.by)

    @property
    def exempt(self) -> tuple[Caught, ...]:
        """The liars that a case could tell and none is made for, each with its reason, and rightly not caught."""
        return tuple(entry for entry in self.entries if entry.liar.exempt is not None and not entry.by)

    @property
    def refuted(self) -> tuple[Caught, ...]:
        """The liars that were caught although a reason says that none is: the reason is wrong."""
        return tuple(entry for entry in self.entries if entry.liar.excuse is not None and entry.by)

    @property
    def good(self) -> bool:
        """Whether every liar was caught or has its excuse, and there was one at all."""
        return bool(self.entries) and all(entry.good for entry in self.entries)

    def lines(self) -> Iterator[str]:
        """Yield the report as text: what is wrong first, then every liar with the cases that caught it."""
        for entry in self.survivors:
            yield f"NOT CAUGHT {entry.liar.id}: {entry.liar.what} ({entry.tried} cases, {entry.skipped} skipped)"
        for entry in self.entries:
            if entry.broken:
                yield f"NO LIAR {entry.liar.id}: it only fell over: {entry.by[0].message}"
        for entry in self.refuted:
            yield f"WRONGLY EXCUSED {entry.liar.id}: {entry.by[0].case} caught it, but: {entry.liar.excuse}"
        for entry in self.caught:
            names = ", ".join(f"{catch.case} ({catch.verdict.value})" for catch in entry.by)
            yield f"caught {entry.liar.id}: {entry.liar.what} By {names}"
        for entry in self.equivalent:
            yield f"equivalent {entry.liar.id}: {entry.liar.equivalent}"
        for entry in self.exempt:
            yield f"exempt {entry.liar.id}: {entry.liar.exempt}"
        yield (
            f"{len(self.entries)} liars: {len(self.caught)} caught, {len(self.survivors)} not caught, "
            f"{len(self.equivalent)} equivalent, {len(self.exempt)} exempt, {len(self.refuted)} wrongly excused"
        )


def supervised(liar: Liar, cases: Iterable[Case]) -> Iterator[CaseResult]:
    """Run cases against a liar in this process, as the runner does it. A liar that cannot go on ends the run early."""
    chosen = list(cases)
    features = frozenset(word for case in chosen for word in case.features if word != "inject")
    connector = SimpleConnector(liar.id, lambda: DirectConnection(liar.make().handle, liar.id))
    supervisor = Supervisor(connector, features=features, ids=itertools.count(1))
    try:
        for case in chosen:
            yield supervisor.run(case)
    except GivenUp as error:
        yield CaseResult(case=chosen[0], verdict=Verdict.CRASH, message=error.message)
    finally:
        supervisor.close()


def smoke(
    liars: Iterable[Liar],
    cases: Iterable[Case],
    run: Run = supervised,
    *,
    progress: Callable[[Caught], None] | None = None,
) -> SmokeReport:
    """Run the cases of each liar's ABI, revision, role and transport against it until one catches it, then a few more.

    Args:
        liars: the liars.
        cases: all cases; those with a profile of their own are left out.
        run: runs cases against a liar.
        progress: called with each liar that is finished.

    """
    started = time.monotonic()
    groups: dict[tuple[str, ...], list[Case]] = defaultdict(list)
    for case in cases:
        if case.profile is None:
            groups[case.abi, case.revision, case.role, case.transport].append(case)
    entries = []
    for liar in liars:
        entry = _one(liar, groups[liar.abi, liar.revision, liar.role, liar.transport], run)
        entries.append(entry)
        if progress is not None:
            progress(entry)
    return SmokeReport(entries=tuple(entries), seconds=time.monotonic() - started)


def _one(liar: Liar, cases: list[Case], run: Run) -> Caught:
    catches: list[Catch] = []
    tried = skipped = more = 0
    results = run(liar, _likely_first(liar, cases))
    shown: list[CaseResult] = []
    for result in results:
        tried += 1
        if result.policies:
            shown.append(result)
        if result.verdict in (Verdict.SKIP, Verdict.NOT_RUN):
            skipped += 1
        elif result.verdict not in _GOOD:
            catches.append(Catch(case=result.case.id, verdict=result.verdict, message=result.message))
        more += bool(catches)
        if len(catches) == MOST_CATCHES or more > MORE_TRIES:
            break
    close = getattr(results, "close", None)
    if close is not None:
        close()
    if not catches:
        # No case alone shows it, but the run does: one implementation cannot have it both ways.
        switched = switched_policies(shown)
        catches += [Catch(case="the whole run", verdict=Verdict.FAIL, message=text) for text in switched]
    return Caught(liar=liar, by=tuple(catches), tried=tried, skipped=skipped)


def _likely_first(liar: Liar, cases: list[Case]) -> list[Case]:
    """Return the cases with those first that the liar's hints name; the order of the rest stays."""
    if not liar.hints:
        return cases
    wanted = set(liar.hints)

    def far(case: Case) -> int:
        if not wanted.isdisjoint(case.rules[:1]):
            return 0
        if not wanted.isdisjoint(case.rules) or any(hint in case.id for hint in liar.hints):
            return 1
        return 2

    return sorted(cases, key=far)


__all__ = ["MOST_CATCHES", "Catch", "Caught", "Run", "SmokeReport", "smoke", "supervised"]
