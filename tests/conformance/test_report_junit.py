"""JUnit XML: read by an XML parser, and held against what CI systems look for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from hvabi.conformance.report import junit
from tests.conformance.report_runs import every_verdict, hostile, passing

if TYPE_CHECKING:
    from hvabi.conformance.result import RunResult

RUNS = [every_verdict(), hostile(), passing(), passing(0), replace(passing(), complete=False)]
IDS = ["every verdict", "hostile", "good", "empty", "given up"]


def parse(run: RunResult) -> ET.Element:
    # As a file is read: from bytes, with the declared encoding.
    return ET.fromstring(junit.render(run).encode("utf-8"))


@pytest.mark.parametrize("run", RUNS, ids=IDS)
def test_it_is_well_formed_and_counts_right(run: RunResult) -> None:
    root = parse(run)
    assert root.tag == "testsuites"
    for element in (root, *root):
        cases = list(element.iter("testcase"))
        assert int(element.get("tests", "")) == len(cases)
        for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert int(element.get(name, "")) == sum(case.find(tag) is not None for case in cases)
        float(element.get("time", ""))
    for case in root.iter("testcase"):
        assert case.get("name")
        assert case.get("classname")
        children = [child.tag for child in case]
        # The order of the common schema: properties, the result, system-out, system-err.
        order = ["properties", "skipped", "error", "failure", "system-out", "system-err"]
        assert children == sorted(children, key=order.index)
        assert len(children) == len(set(children))
        assert sum(tag in ("skipped", "error", "failure") for tag in children) <= 1


@pytest.mark.parametrize(
    ("name", "tag", "kind"),
    [
        ("pass", None, None),
        ("unseen", None, None),
        ("should", None, None),
        ("note", None, None),
        ("size-unaligned", "failure", "fail"),
        ("known", "skipped", None),
        ("skip", "skipped", None),
        ("slow", "error", "timeout"),
        ("boom", "error", "crash"),
        ("garbage", "error", "protocol"),
        ("resume", "failure", "no-progress"),
        ("error", "error", "error"),
        ("left", "error", "not-run"),
    ],
)
def test_verdicts(name: str, tag: str | None, kind: str | None) -> None:
    (case,) = [case for case in parse(every_verdict()).iter("testcase") if case.get("name", "").endswith(f".{name}")]
    found = [child for child in case if child.tag in ("failure", "error", "skipped")]
    assert [child.tag for child in found] == ([tag] if tag else [])
    if found:
        assert found[0].get("message")
        assert found[0].get("type") == kind


def test_a_failure_carries_rules_level_log_and_command() -> None:
    root = parse(every_verdict())
    (case,) = [case for case in root.iter("testcase") if case.get("name", "").endswith(".size-unaligned")]
    pairs = [(item.get("name"), item.get("value")) for item in case.iter("property")]
    for pair in (("verdict", "fail"), ("level", "must"), ("rule", "TDX-MAPGPA-06")):
        assert pair in pairs
    body = case.findtext("failure") or ""
    assert "$ hvabi conform tdx-map-gpa --iut 'cmd:./toy-vmm'" in body
    assert "register r10: expected 0x8000000000000002, found 0x8000000000000000" in body
    assert "Address and size must be multiples of 4 KiB" in body
    assert (case.findtext("system-out") or "").startswith("toy-vmm: MapGPA")
    suite = [(item.get("name"), item.get("value")) for item in root[0].findall("properties/property")]
    assert ("profile", "spec") in suite


def test_problems_of_the_run_turn_it_red() -> None:
    root = parse(replace(passing(), problems=("no entry of the list matches *old*",), complete=False))
    (suite,) = [suite for suite in root if suite.get("name") == "hvabi.run"]
    messages = [failure.get("message") for failure in suite.iter("failure")]
    assert messages == ["no entry of the list matches *old*", "the run was given up: not every case was run"]
    assert root.get("failures") == "2"


def test_names_are_unique_and_permanent_ids() -> None:
    names = [
        case.get("name") for case in parse(every_verdict()).iter("testcase") if case.get("classname") != "hvabi.run"
    ]
    assert len(names) == len(set(names)) == 14
    assert "tdx-map-gpa@ghci-1.5.host.tdcall.TDX-MAPGPA-06.pass" in names


def test_hostile_text_stays_text_and_is_short() -> None:
    text = junit.render(hostile())
    assert "<script" not in text
    assert "\\x1b[31mred" in text
    assert len(text) < 200_000
    text.encode("utf-8")


def test_times_only_where_asked() -> None:
    once, twice = (replace(passing(), seconds=seconds) for seconds in (1.0, 2.0))
    assert junit.render(once) == junit.render(twice)
    root = ET.fromstring(junit.render(once, times=True))
    assert [case.get("time") for case in root.iter("testcase")] == ["0.000", "0.125", "0.250"]
    assert root.get("time") == "1.000"
    assert root[0].get("time") == "0.375"
