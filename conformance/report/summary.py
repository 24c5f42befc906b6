"""A run in numbers: counts per ABI, role and transport, what is bad, and one sentence as the verdict."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from hvabi.conformance.report.text import plural
from hvabi.conformance.result import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from hvabi.conformance.result import CaseResult, RunResult

BROKE = (Verdict.TIMEOUT, Verdict.CRASH, Verdict.PROTOCOL, Verdict.NO_PROGRESS, Verdict.ERROR)
"""Verdicts on an implementation that did not get as far as a wrong answer."""

Column = Literal["pass", "unseen", "warn", "note", "fail", "broke", "not-run", "known", "skip"]
COLUMNS: tuple[Column, ...] = ("pass", "unseen", "warn", "note", "fail", "broke", "not-run", "known", "skip")
"""Columns of the table of counts, in order. Every case counts in exactly one."""

TITLES: Mapping[Column, str] = {
    "pass": "pass",
    "unseen": "state not seen",
    "warn": "warn",
    "note": "note",
    "fail": "fail",
    "broke": "broke",
    "not-run": "not run",
    "known": "known",
    "skip": "skip",
}
MEANINGS: Mapping[Column, str] = {
    "pass": "everything that was compared is right, the state too",
    "unseen": "the answers are right; the implementation has no query, so the state was not seen",
    "warn": "a should is not met",
    "note": "a may or unspecified behaviour, noted",
    "fail": "a must is not met",
    "broke": "timeout, crash, protocol violation, no progress or an error of the implementation",
    "not-run": "the run was given up before this case ended",
    "known": "bad, and listed as a known failure",
    "skip": "the implementation says that it does not have this",
}

_COLUMN_OF: Mapping[Verdict, Column] = {
    Verdict.PASS: "pass",
    Verdict.PASS_UNSEEN: "unseen",
    Verdict.WARN: "warn",
    Verdict.NOTE: "note",
    Verdict.FAIL: "fail",
    Verdict.NOT_RUN: "not-run",
    Verdict.SKIP: "skip",
}


def column(result: CaseResult) -> Column:
    """Return the column in which a case counts."""
    if result.verdict.bad and result.known is not None:
        return "known"
    return _COLUMN_OF.get(result.verdict, "broke")


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The cases of one ABI, revision, role and transport, counted."""

    abi: str
    revision: str
    role: str
    transport: str
    counts: Mapping[Column, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Number of cases."""
        return sum(self.counts.values())


def groups(run: RunResult) -> tuple[Group, ...]:
    """Return the groups in the order in which they first appear."""
    found: dict[tuple[str, str, str, str], Counter[Column]] = {}
    for result in run.results:
        case = result.case
        key = (case.abi, case.revision, case.role, case.transport)
        found.setdefault(key, Counter())[column(result)] += 1
    return tuple(
        Group(abi=abi, revision=revision, role=role, transport=transport, counts=_in_order(counts))
        for (abi, revision, role, transport), counts in found.items()
    )


def totals(results: Iterable[CaseResult]) -> dict[Column, int]:
    """Return the counts of all columns that are not 0."""
    return _in_order(Counter(map(column, results)))


def _in_order(counts: Counter[Column]) -> dict[Column, int]:
    return {name: counts[name] for name in COLUMNS if counts[name]}


def failures(run: RunResult) -> tuple[CaseResult, ...]:
    """Return the cases that count against the implementation: bad and not known; those not run come last."""
    bad = [result for result in run.results if result.verdict.bad and result.known is None]
    return tuple(sorted(bad, key=lambda result: result.verdict is Verdict.NOT_RUN))


def about(result: CaseResult) -> str:
    """Return the rule that a result is about: that of its first finding with one, else the first one of the case."""
    return (
        next((finding.rule for finding in result.findings if finding.rule), None) or (*result.case.rules, "no rule")[0]
    )


def by_rule(results: Iterable[CaseResult]) -> tuple[tuple[str, int, str], ...]:
    """Return each rule that results are about, how many are, and the id of the first case; the most first."""
    counts: Counter[str] = Counter()
    first: dict[str, str] = {}
    for result in results:
        rule = about(result)
        counts[rule] += 1
        first.setdefault(rule, result.case.id)
    return tuple((rule, counts[rule], first[rule]) for rule in sorted(counts, key=lambda name: (-counts[name], name)))


def representatives(results: Sequence[CaseResult], most: int) -> tuple[CaseResult, ...]:
    """Return at most `most` results in their order: one of each verdict on each rule before a second one of any."""
    seen: Counter[tuple[Verdict, str]] = Counter()
    ranked: list[tuple[int, int]] = []
    for number, result in enumerate(results):
        key = (result.verdict, about(result))
        ranked.append((seen[key], number))
        seen[key] += 1
    return tuple(results[number] for number in sorted(number for _, number in sorted(ranked)[: max(most, 0)]))


def breakdown(results: Iterable[CaseResult]) -> str:
    """Return the verdicts behind the column ``broke``: ``2 crash, 1 timeout``. Empty where there are none."""
    counts = Counter(result.verdict for result in results if column(result) == "broke")
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in BROKE if counts[verdict])


Word = Literal["PASSED", "FAILED", "INCOMPLETE", "NOTHING TESTED"]


def verdict_word(run: RunResult) -> Word:
    """Return the verdict on the run. A run of nothing but skipped cases has tested nothing."""
    if not run.complete:
        return "INCOMPLETE"
    if not run.good:
        return "FAILED"
    if all(result.verdict is Verdict.SKIP for result in run.results):
        return "NOTHING TESTED"
    return "PASSED"


def verdict_line(run: RunResult) -> str:
    """Return the verdict on the run in one line, the word first."""
    counts = totals(run.results)
    parts = [f"{plural(len(run.results), 'case')}"]
    words: Mapping[Column, str] = {
        "fail": "failed", "broke": "broke", "not-run": "not run", "pass": "passed",
        "unseen": "passed with the state not seen",
        "warn": "warned about", "note": "noted", "known": "known to fail", "skip": "skipped",
    }  # fmt: skip
    parts += [f"{counts[name]} {text}" for name, text in words.items() if name in counts]
    if run.problems:
        parts.append(plural(len(run.problems), "problem") + " of the run")
    return f"{verdict_word(run)}: {', '.join(parts)}"
