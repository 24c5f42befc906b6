"""The report as one HTML file: it needs nothing else and asks the network for nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvabi.conformance.report.html_case import details
from hvabi.conformance.report.markup import Markup, join, raw, tag
from hvabi.conformance.report.page import SCRIPT, STYLE
from hvabi.conformance.report.summary import (
    COLUMNS,
    MEANINGS,
    TITLES,
    breakdown,
    by_rule,
    column,
    failures,
    groups,
    totals,
    verdict_line,
    verdict_word,
)
from hvabi.conformance.report.text import cut
from hvabi.conformance.result import Verdict

if TYPE_CHECKING:
    from hvabi.conformance.report.summary import Column
    from hvabi.conformance.result import CaseResult, RunResult

DETAILS = 200
"""Cases that are shown with everything; the table of cases has all of them."""

_OPEN = 3
"""Failures that are open when the page is."""
_MANY = 12
"""From so many failures on they are also counted by rule."""
_BAD: tuple[Column, ...] = ("fail", "broke", "not-run")
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'"


def render(run: RunResult, *, limit: int = DETAILS) -> str:
    """Return the report as an HTML document.

    Args:
        run: the run.
        limit: most cases that are shown with what was sent, expected and found; the failures come first.

    """
    bad = [result for result in failures(run) if result.verdict is not Verdict.NOT_RUN]
    known = [result for result in run.results if column(result) == "known"]
    warned = [result for result in run.results if column(result) == "warn"]
    noted = [result for result in run.results if column(result) == "note"]
    shown = [*bad, *warned, *known, *noted][:limit]
    anchors = {result.case.id: f"case-{number}" for number, result in enumerate(shown, 1)}
    title = f"{verdict_word(run)}: {run.peer or 'implementation'}"
    body = join(
        [
            _head(run),
            _counts(run),
            _section("Failures", "failures", bad, anchors, opened=_OPEN),
            _section("Warnings", "warnings", warned, anchors),
            _section("Known failures", "known", known, anchors),
            _section("Notes", "notes", noted, anchors),
            _cases(run, anchors),
            _words(run),
        ]
    )
    page = tag(
        "html",
        tag(
            "head",
            tag("meta", charset="utf-8"),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
            tag("meta", name="referrer", content="no-referrer"),
            tag("title", cut(title, 120)),
            tag("style", raw(STYLE)),
        ),
        tag("body", body, tag("script", raw(SCRIPT))),
        lang="en",
    )
    return f"<!DOCTYPE html>\n{page}\n"


def _head(run: RunResult) -> Markup:
    good = verdict_word(run) == "PASSED"
    problems = [*run.problems, *([] if run.complete else ["The run was given up: not every case was run."])]
    return join(
        [
            tag("h1", f"Conformance of {cut(run.peer, 200) or 'an implementation without a name'}"),
            tag(
                "p",
                "over ",
                tag("code", cut(run.connector, 500)),
                f", profile {run.profile}, seed {run.seed}",
                class_="dim",
            ),
            tag("p", verdict_line(run), class_=f"verdict {'good' if good else 'bad'}", role="status"),
            tag("ul", *(tag("li", cut(problem, 2000)) for problem in problems), class_="problems")
            if problems
            else None,
        ]
    )


def _counts(run: RunResult) -> Markup:
    counts = totals(run.results)
    if not counts:
        return tag("p", "No case was run.")
    shown = [name for name in COLUMNS if name in counts or name in ("pass", "fail")]

    def cells(numbers: dict[Column, int]) -> list[Markup]:
        return [
            tag("td", str(number or "-"), class_="n" + (" zero" if not number else " red" if name in _BAD else ""))
            for name in shown
            for number in [numbers.get(name, 0)]
        ]

    rows = [
        tag(
            "tr",
            tag("td", f"{group.abi}@{group.revision}", class_="k"),
            tag("td", group.role, class_="k"),
            tag("td", group.transport, class_="k"),
            *cells(dict(group.counts)),
        )
        for group in groups(run)
    ]
    if len(rows) > 1:
        rows.append(tag("tr", tag("td", "in all", class_="k"), tag("td"), tag("td"), *cells(counts), class_="total"))
    head = [tag("th", name, scope="col") for name in ("ABI", "role", "transport")]
    head += [tag("th", TITLES[name], scope="col", class_="n", title=MEANINGS[name]) for name in shown]
    broke = breakdown(run.results)
    return join(
        [
            tag("h2", "Counts", id="counts"),
            tag("div", tag("table", tag("thead", tag("tr", *head)), tag("tbody", *rows)), class_="wide"),
            tag("p", f"broke: {broke}", class_="dim") if broke else None,
        ]
    )


def _section(
    title: str, anchor: str, results: list[CaseResult], anchors: dict[str, str], *, opened: int = 0
) -> Markup | None:
    if not results:
        return None
    shown = [result for result in results if result.case.id in anchors]
    rest = len(results) - len(shown)
    return join(
        [
            tag("h2", f"{title} ({len(results)})", id=anchor),
            _by_rule(results) if anchor == "failures" and len(results) >= _MANY else None,
            *(details(result, anchors[result.case.id], opened=n < opened) for n, result in enumerate(shown)),
            tag("p", f"{rest} more below in the list of cases and in the JSON report.", class_="dim") if rest else None,
        ]
    )


def _by_rule(results: list[CaseResult]) -> Markup:
    head = tag("tr", tag("th", "rule", scope="col"), tag("th", "failures", scope="col", class_="n"))
    rows = [
        tag("tr", tag("td", rule, class_="mono"), tag("td", str(count), class_="n"))
        for rule, count, _ in by_rule(results)
    ]
    return tag("div", tag("table", tag("thead", head), tag("tbody", *rows), class_="narrow"), class_="wide")


def _cases(run: RunResult, anchors: dict[str, str]) -> Markup:
    counts = totals(run.results)
    names = [f"{group.abi}@{group.revision} {group.role} {group.transport}" for group in groups(run)]
    boxes = [
        tag("label", tag("input", type="checkbox", value=name, checked=True), f" {TITLES[name]} ({counts[name]})")
        for name in COLUMNS
        if name in counts
    ]
    form = tag(
        "form",
        tag("input", type="search", name="q", placeholder="words in id or message", aria_label="words to look for"),
        tag(
            "select",
            tag("option", "all ABIs", value=""),
            *(tag("option", name, value=name) for name in names),
            name="group",
            aria_label="ABI, role and transport",
        ),
        *boxes,
        tag("output", id="shown", class_="dim"),
        id="filters",
        class_="filters",
        hidden=True,
    )
    rows = [_row(result, anchors) for result in run.results]
    head = tag("thead", tag("tr", *(tag("th", name, scope="col") for name in ("verdict", "case", "what"))))
    return join(
        [
            tag("h2", f"All cases ({len(run.results)})", id="all"),
            form,
            tag("table", head, tag("tbody", *rows, id="cases"), class_="cases"),
        ]
    )


def _row(result: CaseResult, anchors: dict[str, str]) -> Markup:
    case = result.case
    anchor = anchors.get(case.id)
    name = tag("a", case.id, href=f"#{anchor}", class_="mono") if anchor else tag("span", case.id, class_="mono")
    group = column(result)
    what = result.message or (str(result.findings[0]) if result.findings else case.why)
    return tag(
        "tr",
        tag("td", chip(result)),
        tag("td", name),
        tag("td", cut(what, 300), class_="dim"),
        data_column=group,
        data_group=f"{case.abi}@{case.revision} {case.role} {case.transport}",
    )


def chip(result: CaseResult) -> Markup:
    """Return the verdict as a label."""
    known = f" ({result.known})" if result.known else ""
    return tag("span", f"{result.verdict.value}{known}", class_=f"chip {column(result)}")


def _words(run: RunResult) -> Markup:
    used = [name for name in COLUMNS if name in totals(run.results)]
    return tag(
        "p",
        "Words: ",
        *(join([tag("b", TITLES[name]), f": {MEANINGS[name]}. "]) for name in used),
        "Every case counts once. A failed case is run again alone by the command that stands with it.",
        class_="foot",
    )
