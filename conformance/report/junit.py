"""The report as JUnit XML, as CI systems read it: a test suite per ABI, revision, role and transport.

A bad verdict is a ``failure`` where an answer was wrong and an ``error`` where the implementation broke or the case
was not run; a known failure and a skip are ``skipped``. What failed the run besides cases is a suite of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from hvabi.conformance.report.rules import rules_of
from hvabi.conformance.report.summary import column
from hvabi.conformance.report.text import cut, tail, xml_text
from hvabi.conformance.result import Verdict

if TYPE_CHECKING:
    from hvabi.conformance.result import CaseResult, RunResult

LOG_LINES = 100
LOG_CHARACTERS = 16384
"""Longest tail of a log that one test case carries."""

_ERRORS = frozenset({Verdict.TIMEOUT, Verdict.CRASH, Verdict.PROTOCOL, Verdict.ERROR, Verdict.NOT_RUN})
_NO_TIME = "0.000"


def render(run: RunResult, *, times: bool = False) -> str:
    """Return the report as an XML document. Without `times` every time is 0, and two equal runs give equal text."""
    suites: dict[str, ET.Element] = {}
    for result in run.results:
        name = suite_name(result)
        if name not in suites:
            suites[name] = ET.Element("testsuite", name=xml_text(name))
            _properties(suites[name], [("peer", run.peer), ("connector", run.connector), ("profile", run.profile),
                                       ("seed", str(run.seed))])  # fmt: skip
        suites[name].append(_case(result, name, times=times))
    problems = list(run.problems)
    if not run.complete:
        problems.append("the run was given up: not every case was run")
    if problems:
        suites["hvabi.run"] = _problems(problems)
    root = ET.Element("testsuites", name="hvabi")
    for suite in suites.values():
        _count(suite, [suite], times=times)
        root.append(suite)
    _count(root, list(suites.values()), times=times)
    if times:
        root.set("time", f"{run.seconds:.3f}")
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def suite_name(result: CaseResult) -> str:
    """Return the suite of a case; no dot separates its parts, since consumers cut names at dots."""
    case = result.case
    return f"{case.abi}@{case.revision}/{case.role}/{case.transport}"


def _properties(parent: ET.Element, pairs: list[tuple[str, str]]) -> None:
    properties = ET.SubElement(parent, "properties")
    for name, value in pairs:
        ET.SubElement(properties, "property", name=name, value=xml_text(cut(value, 2000)))


def _case(result: CaseResult, suite: str, *, times: bool) -> ET.Element:
    case = result.case
    element = ET.Element(
        "testcase",
        classname=xml_text(suite),
        name=xml_text(case.id),
        time=f"{result.seconds:.3f}" if times else _NO_TIME,
    )
    pairs = [("verdict", result.verdict.value), ("level", case.level), ("kind", case.kind)]
    pairs += [("rule", rule) for rule in case.rules]
    pairs += [("profile", case.profile)] if case.profile else []
    pairs += [("known", result.known)] if result.known else []
    pairs += [("reference", case.reference)] if case.reference else []
    _properties(element, pairs)
    message = result.message or (str(result.findings[0]) if result.findings else result.verdict.value)
    message = xml_text(cut(message, 1000))
    if column(result) == "known":
        ET.SubElement(element, "skipped", message=f"known failure ({xml_text(result.known or '')}): {message}")
    elif result.verdict is Verdict.SKIP:
        ET.SubElement(element, "skipped", message=message)
    elif result.verdict.bad:
        kind = "error" if result.verdict in _ERRORS else "failure"
        body = ET.SubElement(element, kind, message=message, type=result.verdict.value)
        body.text = xml_text(_details(result))
    if result.verdict.bad or result.verdict is Verdict.WARN:
        for name, text in (("system-out", _out(result)), ("system-err", _tail(result.stderr))):
            if text:
                ET.SubElement(element, name).text = xml_text(text)
    return element


def _details(result: CaseResult) -> str:
    lines = [result.case.why]
    lines += [f"step {finding.step}: {cut(str(finding), 2000)}" for finding in result.findings]
    for rule in rules_of(result):
        lines += [f"{rule.id} ({rule.level}): {rule.text}", f"source: {rule.source}"]
    if result.reproduce:
        lines.append(f"$ {result.reproduce}")
    return "\n".join(lines)


def _out(result: CaseResult) -> str:
    text = _tail(result.log)
    if result.verdict is Verdict.WARN:
        text = "\n".join(filter(None, [_details(result), text]))
    return text


def _tail(text: str) -> str:
    return "\n".join(tail(text, lines=LOG_LINES, characters=LOG_CHARACTERS))


def _problems(problems: list[str]) -> ET.Element:
    suite = ET.Element("testsuite", name="hvabi.run")
    for number, problem in enumerate(problems, 1):
        case = ET.SubElement(suite, "testcase", classname="hvabi.run", name=f"problem {number}", time=_NO_TIME)
        ET.SubElement(case, "failure", message=xml_text(cut(problem, 1000)), type="problem").text = xml_text(
            cut(problem, 10000)
        )
    return suite


def _count(element: ET.Element, suites: list[ET.Element], *, times: bool) -> None:
    cases = [case for suite in suites for case in suite.iter("testcase")]
    element.set("tests", str(len(cases)))
    for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        element.set(name, str(sum(case.find(tag) is not None for case in cases)))
    seconds = sum(float(case.get("time", "0")) for case in cases)
    element.set("time", f"{seconds:.3f}" if times else _NO_TIME)
