"""The report as KTAP version 1, as the kernel's tools read it: one subtest per ABI and revision.

A known failure is ``ok … # XFAIL``, as kselftest prints it; what broke is ``not ok … # TIMEOUT`` or ``# ERROR``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvabi.conformance.report.rules import rules_of
from hvabi.conformance.report.summary import column, verdict_line
from hvabi.conformance.report.text import one_line
from hvabi.conformance.result import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hvabi.conformance.result import CaseResult, RunResult

_DIRECTIVES = {
    Verdict.TIMEOUT: "TIMEOUT",
    Verdict.CRASH: "ERROR",
    Verdict.PROTOCOL: "ERROR",
    Verdict.ERROR: "ERROR",
    Verdict.NOT_RUN: "ERROR",
}
_INDENT = "  "


def render(run: RunResult) -> str:
    """Return the report as KTAP text. Diagnostic lines stand before the result that they explain."""
    found: dict[str, list[CaseResult]] = {}
    for result in run.results:
        found.setdefault(f"{result.case.abi}@{result.case.revision}", []).append(result)
    problems = list(run.problems) + ([] if run.complete else ["the run was given up: not every case was run"])
    lines = ["KTAP version 1", f"1..{len(found) + bool(problems)}"]
    lines += [f"# {_plain(run.peer)}, profile {_plain(run.profile)}, seed {run.seed}"]
    for number, (name, results) in enumerate(found.items(), 1):
        lines += _subtest(name, number, results)
    if problems:
        lines += [f"# {_plain(problem)}" for problem in problems]
        lines.append(f"not ok {len(found) + 1} hvabi.run")
    lines.append(f"# {_plain(verdict_line(run))}")
    return "\n".join(lines) + "\n"


def _subtest(name: str, number: int, results: list[CaseResult]) -> Iterator[str]:
    yield f"{_INDENT}KTAP version 1"
    yield f"{_INDENT}# Subtest: {_plain(name)}"
    yield f"{_INDENT}1..{len(results)}"
    for count, result in enumerate(results, 1):
        for line in _case(result, count):
            yield f"{_INDENT}{line}"
    good = all(_ok(result) for result in results)
    skipped = good and all(result.verdict is Verdict.SKIP for result in results)
    yield f"{'ok' if good else 'not ok'} {number} {_plain(name)}" + (" # SKIP nothing was run" if skipped else "")


def _ok(result: CaseResult) -> bool:
    return not result.verdict.bad or column(result) == "known"


def _case(result: CaseResult, number: int) -> Iterator[str]:
    ok = _ok(result)
    if not ok or result.verdict is Verdict.WARN:
        if result.message:
            yield f"# {result.verdict.value}: {_plain(result.message)}"
        for finding in result.findings:
            yield f"# step {finding.step}: {_plain(str(finding))}"
        for rule in rules_of(result):
            yield f"# {rule.id} ({rule.level}): {_plain(rule.text)}"
        if result.reproduce:
            yield f"# $ {_plain(result.reproduce)}"
    line = f"{'ok' if ok else 'not ok'} {number} {_plain(result.case.id).replace('#', '%')}"
    message = _plain(result.message, 200)
    if column(result) == "known":
        yield f"{line} # XFAIL {_plain(result.known or '')}: {message}".rstrip(": ")
    elif result.verdict is Verdict.SKIP:
        yield f"{line} # SKIP {message}".rstrip()
    elif not ok and result.verdict in _DIRECTIVES:
        yield f"{line} # {_DIRECTIVES[result.verdict]} {result.verdict.value}".rstrip()
    else:
        yield line


def _plain(text: str, most: int = 1000) -> str:
    """Return text that stays on its line."""
    return one_line(text, most)
