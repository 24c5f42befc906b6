"""The JSON report against its schema."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from hvabi.conformance.report import json as report
from hvabi.conformance.result import RunResult, Verdict
from tests.conformance.report_runs import every_verdict, hostile, passing

SCHEMA: dict[str, Any] = json.loads(
    files("hvabi.conformance").joinpath("schema", "report.schema.json").read_text(encoding="utf-8")
)
RUNS = [every_verdict(), hostile(), passing(), passing(0), replace(passing(), complete=False)]
IDS = ["every verdict", "hostile", "good", "empty", "given up"]


def objects(schema: Any) -> list[dict[str, Any]]:
    if isinstance(schema, dict):
        own = [schema] if schema.get("type") == "object" else []
        return own + [found for item in schema.values() for found in objects(item)]
    return [found for item in schema for found in objects(item)] if isinstance(schema, list) else []


def test_the_schema_is_one_and_is_closed() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    for item in objects(SCHEMA):
        assert "additionalProperties" in item, item
        for name, key in item.get("properties", {}).items():
            assert "description" in key or "$ref" in key, name


@pytest.mark.parametrize("times", [False, True], ids=["no times", "times"])
@pytest.mark.parametrize("run", RUNS, ids=IDS)
def test_every_report_is_valid(run: RunResult, times: bool) -> None:
    data = json.loads(report.render(run, times=times))
    Draft202012Validator(SCHEMA).validate(data)
    assert [item["id"] for item in data["results"]] == [result.case.id for result in run.results]
    assert data["counts"] == {verdict.value: run.count(verdict) for verdict in Verdict}
    assert data["good"] is run.good
    assert ("seconds" in data) is times


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"verdict": "perfect"},
        {"counts": {"excellent": 1}},
        {"surprise": 1},
        {"results": [{"id": "x"}]},
    ],
    ids=["format", "verdict", "counts", "extra key", "result without keys"],
)
def test_the_schema_refuses(change: dict[str, Any]) -> None:
    data = {**json.loads(report.render(passing())), **change}
    assert list(Draft202012Validator(SCHEMA).iter_errors(data))


def test_two_equal_runs_give_equal_text_whatever_the_time() -> None:
    slow = tuple(replace(result, seconds=result.seconds + 3) for result in every_verdict().results)
    assert report.render(every_verdict()) == report.render(every_verdict(results=slow, seconds=99.0))


def test_wire_values_are_hex_and_sorted() -> None:
    data = json.loads(report.render(every_verdict()))
    (item,) = [one for one in data["results"] if one["id"].endswith("size-unaligned")]
    assert item["exchanged"][0]["got"] == {
        "end": "return",
        "regs": {"r10": "0x8000000000000000", "r11": "0x800040101000", "rcx": "0x0"},
        "mem": [],
    }
    assert item["findings"][0]["bits"] == [1, 1]
    assert item["rule_texts"]["TDX-MAPGPA-06"]["source"].startswith("Linux arch/x86/kvm/vmx/tdx.c")


def test_a_pass_is_short_and_a_huge_log_is_cut() -> None:
    data = json.loads(report.render(passing(1)))
    assert "log" not in data["results"][0]
    text = report.render(hostile())
    assert len(text) < 400_000
    text.encode("utf-8")
