"""The report for a terminal: counts, failures with what differs and why, and one line as the verdict."""

from __future__ import annotations

import sys
import textwrap
from typing import TYPE_CHECKING

from hvabi.conformance.report.compared import compared
from hvabi.conformance.report.rules import rules_of
from hvabi.conformance.report.summary import (
    COLUMNS,
    TITLES,
    breakdown,
    by_rule,
    column,
    failures,
    groups,
    representatives,
    totals,
    verdict_line,
    verdict_word,
)
from hvabi.conformance.report.text import bit_list, cut, one_line, plural, tail
from hvabi.conformance.result import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

    from hvabi.conformance.report.comparison import Compared, Part
    from hvabi.conformance.report.summary import Column
    from hvabi.conformance.result import CaseResult, Finding, RunResult

FAILURES = 10
"""Failures that are shown in full unless asked otherwise."""

Line = tuple[str, str]
"""A line of text and its style, empty for none."""

_FINDINGS = 4
_WARNINGS = 5
_RULES = 8
_LOG_LINES = 6
_INDENT = "      "
_STYLES: dict[str, str] = {
    "bad": "bold red",
    "good": "bold green",
    "head": "bold",
    "dim": "dim",
    "warn": "yellow",
    "code": "cyan",
}


def render(run: RunResult, *, width: int = 80, limit: int = FAILURES) -> str:
    """Return the report as plain text.

    Args:
        run: the run.
        width: columns; text is wrapped to it, commands and case ids never are.
        limit: most failures that are shown in full.

    """
    return "".join(f"{text}\n" for text, _ in _lines(run, width, limit))


def show(run: RunResult, *, stream: TextIO | None = None, width: int = 80, limit: int = FAILURES, color: bool) -> None:
    """Write the report to a stream, by default standard output, with `color` in colour."""
    out = stream or sys.stdout
    if not color:
        out.write(render(run, width=width, limit=limit))
        return
    # rich takes longer to import than a report takes to make: only who wants colour pays.
    from rich.console import Console
    from rich.text import Text

    console = Console(file=out, force_terminal=True, color_system="standard", width=max(width, 20))
    for text, style in _lines(run, width, limit):
        console.print(Text(text, style=_STYLES.get(style, "")), soft_wrap=True, highlight=False)


def _lines(run: RunResult, width: int, limit: int) -> Iterator[Line]:
    width = max(width, 40)
    peer = one_line(run.peer, 200) or "an implementation without a name"
    for line in _wrap(f"{peer} over {one_line(run.connector, 400)}, profile {run.profile}, seed {run.seed}", width):
        yield line, "dim"
    yield "", ""
    yield from _table(run, width)
    bad = failures(run)
    started = [result for result in bad if result.verdict is not Verdict.NOT_RUN]
    shown = representatives(started, limit)
    for result in shown:
        yield "", ""
        yield from _failure(result, width)
    ids = {result.case.id for result in shown}
    yield from _rest([result for result in started if result.case.id not in ids], limit)
    yield from _not_run(bad[len(started) :], width)
    yield from _warnings(run, width)
    yield from _problems(run, width)
    yield "", ""
    word = verdict_word(run)
    style = "good" if word == "PASSED" else "bad"
    for line in _wrap(verdict_line(run), width, hang="  "):
        yield line, style


# -- counts -----------------------------------------------------------------------------------------------------


def _table(run: RunResult, width: int) -> Iterator[Line]:
    counts = totals(run.results)
    if not counts:
        yield "No case was run.", "bad"
        return
    shown: list[Column] = [name for name in COLUMNS if name in counts or name in ("pass", "fail")]
    found = groups(run)
    label = max([len("in all"), *(len(f"  {group.role:<5} {group.transport}") for group in found)])
    titles = [TITLES[name] if name != "unseen" else "unseen" for name in shown]
    widths = [max(len(title), 4) for title in titles]
    gap = "  " if label + sum(widths) + 2 * len(widths) <= width else " "

    def row(head: str, numbers: list[str]) -> str:
        cells = "".join(f"{gap}{number:>{size}}" for number, size in zip(numbers, widths, strict=True))
        return f"{cut(head, label):<{label}}{cells}".rstrip()

    yield row("", titles), "dim"
    last = ""
    for group in found:
        name = f"{group.abi}@{group.revision}"
        if name != last:
            yield name, "head"
            last = name
        numbers = [str(group.counts.get(key, 0) or "-") for key in shown]
        bad = any(key in group.counts for key in ("fail", "broke", "not-run"))
        yield row(f"  {group.role:<5} {group.transport}", numbers), "bad" if bad else ""
    if len(found) > 1:
        yield row("in all", [str(counts.get(key, 0) or "-") for key in shown]), "head"
    broke = breakdown(run.results)
    if broke:
        for line in _wrap(f"broke: {broke}", width):
            yield line, "dim"
    if "unseen" in counts:
        text = "unseen: the answers are right, but without the command query the state was not seen"
        for line in _wrap(text, width):
            yield line, "dim"


# -- one failure ------------------------------------------------------------------------------------------------


def _failure(result: CaseResult, width: int) -> Iterator[Line]:
    yield f"{result.verdict.value.upper()}  {result.case.id}", "bad"
    if result.message and not (result.findings and result.message.startswith(str(result.findings[0]))):
        yield from ((line, "") for line in _wrap(one_line(result.message, 600), width, indent=_INDENT))
    steps = compared(result)
    if steps and result.case.role == "host":
        worst = next((step for step in steps if step.differs), steps[-1])
        if worst.means:
            text = f"call: {one_line(worst.means, 200)}"
            yield from ((line, "") for line in _wrap(text, width, indent=_INDENT, hang=_INDENT + "  "))
    yield from _findings(result, steps, width)
    if result.findings:
        for rule in rules_of(result)[:2]:
            text = f"{rule.id} ({rule.level}): {rule.text}"
            yield from ((line, "") for line in _wrap(text, width, indent=_INDENT, hang=_INDENT + "  "))
            text = f"source: {rule.source}"
            yield from ((line, "dim") for line in _wrap(text, width, indent=_INDENT + "  "))
    elif result.case.why:
        text = f"case: {one_line(result.case.why, 400)}"
        yield from ((line, "dim") for line in _wrap(text, width, indent=_INDENT, hang=_INDENT + "  "))
    if result.case.reference:
        text = f"seen before: {one_line(result.case.reference, 300)}"
        yield from ((line, "dim") for line in _wrap(text, width, indent=_INDENT))
    yield from _logs(result, width)
    if result.reproduce:
        yield f"{_INDENT}$ {one_line(result.reproduce)}", "code"


def _findings(result: CaseResult, steps: tuple[Compared, ...], width: int) -> Iterator[Line]:
    """Yield what differs: each finding, with the name of a value where its register is one field of the message."""
    many = any(finding.step for finding in result.findings)
    named: set[tuple[int, str]] = set()
    for finding in result.findings[:_FINDINGS]:
        parts = _parts(steps, finding)
        named |= {(finding.step, part.path) for part in parts}
        part = parts[0] if len(parts) == 1 else None
        lead = f"step {finding.step}, " if many else ""
        name = f" ({part.path})" if part is not None else ""
        bits = bit_list(part.difference) if part is not None else _bits(finding)
        yield f"{_INDENT}{lead}{one_line(finding.what, 120)}{name}:", ""
        expected = _with_name(finding.expected, part.expected if part else "")
        found = _with_name(finding.found, part.found if part else "") + (f"  {bits}" if bits else "")
        for head, text, style in (("expected", expected, ""), ("found   ", found, "warn")):
            indent = f"{_INDENT}  {head} "
            lines = _wrap(one_line(text, 600) or "nothing", width, indent=indent, hang=" " * len(indent))
            yield from ((line, style) for line in lines)
    if len(result.findings) > _FINDINGS:
        yield f"{_INDENT}and {plural(len(result.findings) - _FINDINGS, 'more difference')}", "dim"
    yield from _decoded(steps, named, width)


def _parts(steps: tuple[Compared, ...], finding: Finding) -> list[Part]:
    """Return the fields that lie in the register that a finding speaks of."""
    found = [step for step in steps if step.number == finding.step]
    return [
        part
        for step in found
        for part in step.parts
        if finding.what == f"register {part.where.split(' ')[0]}" and part.status == "differs" and part.depth == 0
        and not part.path.startswith("register ")
    ]  # fmt: skip


def _bits(finding: Finding) -> str:
    if finding.bits is None:
        return ""
    hi, lo = finding.bits
    return f"bit {hi}" if hi == lo else f"bits {hi} to {lo}"


def _with_name(value: str, shown: str) -> str:
    """Return a value of a finding with the name that the field's enum has for it."""
    name, bracket, _ = shown.partition(" (0x")
    return f"{value} {name}" if bracket else value


def _decoded(steps: tuple[Compared, ...], named: set[tuple[int, str]], width: int) -> Iterator[Line]:
    """Yield the fields that differ and that no finding names."""
    left = _FINDINGS
    for step in steps:
        for part in step.parts:
            if part.status != "differs" or (step.number, part.path) in named or part.path.startswith("register "):
                continue
            if not part.expected or not left:
                continue
            left -= 1
            text = f"{part.path} in {part.where}: expected {part.expected}, found {part.found or 'nothing'}"
            yield from ((line, "") for line in _wrap(text, width, indent=_INDENT, hang=_INDENT + "  "))


def _logs(result: CaseResult, width: int) -> Iterator[Line]:
    if result.verdict not in (Verdict.CRASH, Verdict.TIMEOUT, Verdict.PROTOCOL, Verdict.ERROR):
        return
    for name, text in (("log", result.log), ("stderr", result.stderr)):
        for line in tail(text, lines=_LOG_LINES, characters=_LOG_LINES * 400):
            yield cut(f"{_INDENT}{name} | {line}", max(width, 60)), "dim"


# -- what follows the failures ----------------------------------------------------------------------------------


def _rest(rest: list[CaseResult], limit: int) -> Iterator[Line]:
    if not rest:
        return
    yield "", ""
    head = f"{plural(len(rest), 'more failure')}" if limit else plural(len(rest), "failure")
    yield f"{head}, by rule:", "bad"
    counts = by_rule(rest)
    for rule, count, first in counts[:_RULES]:
        yield f"  {count:>5}  {rule}, first {first}", ""
    if len(counts) > _RULES:
        more = sum(count for _, count, _ in counts[_RULES:])
        yield f"  {more:>5}  under {plural(len(counts) - _RULES, 'more rule')}", ""


def _not_run(results: tuple[CaseResult, ...], width: int) -> Iterator[Line]:
    if not results:
        return
    yield "", ""
    yield f"{plural(len(results), 'case')} not run, the first {results[0].case.id}", "bad"
    if results[0].message:
        yield from ((line, "") for line in _wrap(one_line(results[0].message, 300), width, indent=_INDENT))


def _warnings(run: RunResult, width: int) -> Iterator[Line]:
    found = [result for result in run.results if column(result) == "warn"]
    if not found:
        return
    yield "", ""
    yield f"{plural(len(found), 'warning')}:", "warn"
    for result in found[:_WARNINGS]:
        yield f"  {result.case.id}", ""
        text = result.message or (str(result.findings[0]) if result.findings else "")
        if text:
            yield from ((line, "") for line in _wrap(one_line(text, 400), width, indent=_INDENT))
    if len(found) > _WARNINGS:
        yield f"  and {len(found) - _WARNINGS} more", "dim"


def _problems(run: RunResult, width: int) -> Iterator[Line]:
    if run.problems:
        yield "", ""
        yield "Problems of the run:", "bad"
        for problem in run.problems:
            yield from ((line, "") for line in _wrap(one_line(problem, 1000), width, indent="  ", hang="    "))
    if not run.complete:
        yield "", ""
        text = "The run was given up: the report has every case, but not every case was run."
        yield from ((line, "bad") for line in _wrap(text, width))


def _wrap(text: str, width: int, *, indent: str = "", hang: str | None = None) -> list[str]:
    lines = textwrap.wrap(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=indent if hang is None else hang,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return lines or [indent.rstrip()]
