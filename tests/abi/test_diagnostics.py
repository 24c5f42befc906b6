"""Diagnostics: three renderings, safe on a terminal, sorted and bounded."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest

from hvabi.abi.diagnostics import Collector, Diagnostic, escape, render_github, render_json, render_text
from hvabi.abi.errors import SpecError


def make(**given: Any) -> Diagnostic:
    return Diagnostic(**{"id": "bits-overlap", "path": "spec/a.yaml", "message": "bits overlap", **given})


TEXTS = {
    "whole": (
        make(line=41, column=7, end_column=11, hint="move one", source_line="      bits: [51, 13]"),
        "spec/a.yaml:41:7: error[bits-overlap]: bits overlap\n"
        "   41 |       bits: [51, 13]\n"
        "      |       ^~~~\n"
        "hint: move one",
    ),
    "warning": (make(severity="warning"), "spec/a.yaml: warning[bits-overlap]: bits overlap"),
    "no-column": (
        make(line=2, source_line="a: 1"),
        "spec/a.yaml:2: error[bits-overlap]: bits overlap\n    2 | a: 1",
    ),
    "no-source-line": (make(line=2, column=3), "spec/a.yaml:2:3: error[bits-overlap]: bits overlap"),
    "end-unknown": (
        make(line=2, column=4, source_line="a: 1"),
        "spec/a.yaml:2:4: error[bits-overlap]: bits overlap\n    2 | a: 1\n      |    ^",
    ),
    "past-the-line": (
        make(line=2, column=9, source_line="a: 1"),
        "spec/a.yaml:2:9: error[bits-overlap]: bits overlap\n    2 | a: 1\n      |     ^",
    ),
    "control-characters": (
        make(
            path="a\x1b.yaml",
            line=1,
            column=3,
            end_column=4,
            message="\x1b[31mred\n",
            source_line="\x07:\x00",
        ),
        "a\\x1b.yaml:1:3: error[bits-overlap]: \\x1b[31mred\\x0a\n    1 | \\x07:\\x00\n      |      ^~~~",
    ),
    "wide-characters": (
        make(line=1, column=4, end_column=5, source_line="漢字 x"),
        "spec/a.yaml:1:4: error[bits-overlap]: bits overlap\n    1 | 漢字 x\n      |      ^",
    ),
}


@pytest.mark.parametrize(("diagnostic", "text"), TEXTS.values(), ids=TEXTS.keys())
def test_text(diagnostic: Diagnostic, text: str) -> None:
    assert render_text([diagnostic]) == text


def test_color_only_adds_escapes() -> None:
    import re

    diagnostic = TEXTS["whole"][0]
    colored = render_text([diagnostic], color=True)
    assert "\x1b[1;31m" in colored
    assert re.sub(r"\x1b\[[0-9;]*m", "", colored) == TEXTS["whole"][1]


@pytest.mark.parametrize("column", [1, 70, 500, 999, 1000])
def test_long_line_is_cut_around_the_column(column: int) -> None:
    line = "".join(chr(ord("a") + i % 26) for i in range(1000))
    shown, caret = make(line=1, column=column, end_column=1001, source_line=line).text().split("\n")[1:]
    assert len(shown) < 160
    assert len(caret) <= len(shown)
    assert shown[caret.index("^")] == line[column - 1]


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        pytest.param("plain ~", "plain ~", id="ascii"),
        pytest.param("é漢", "é漢", id="letters"),
        pytest.param("\x00\x1b\x7f", r"\x00\x1b\x7f", id="c0"),
        pytest.param("\x9b31m", r"\x9b31m", id="c1"),
        pytest.param("\u202eevil\u2066", r"\u202eevil\u2066", id="bidi"),
        pytest.param("\ud800", r"\ud800", id="surrogate"),
        pytest.param("\u2028", r"\u2028", id="line-separator"),
        pytest.param("\U000e0001", r"\U000e0001", id="tag"),
        pytest.param("a\tb", "a b", id="tab"),
    ],
)
def test_escape(text: str, escaped: str) -> None:
    assert escape(text) == escaped


def test_json() -> None:
    rows = [make(line=1, column=2), make(severity="warning")]
    data = json.loads(render_json(rows))
    assert (data["errors"], data["warnings"]) == (1, 1)
    assert data["diagnostics"][0] == {
        "id": "bits-overlap",
        "path": "spec/a.yaml",
        "message": "bits overlap",
        "severity": "error",
        "line": 1,
        "column": 2,
        "end_column": 0,
        "hint": None,
        "source_line": None,
    }
    assert json.loads(render_json([])) == {"errors": 0, "warnings": 0, "diagnostics": []}


GITHUB = {
    "place": (
        make(line=4, column=2, end_column=5),
        "::error file=spec/a.yaml,line=4,col=2,endColumn=5,title=bits-overlap::bits overlap",
    ),
    "whole-file": (
        make(severity="warning"),
        "::warning file=spec/a.yaml,title=bits-overlap::bits overlap",
    ),
    "escapes": (
        make(path="a,b:c%.yaml", line=1, message="100%: a,b\r\n::error::x", hint="h"),
        "::error file=a%2Cb%3Ac%25.yaml,line=1,title=bits-overlap::100%25: a,b%0A::error::x%0Ahint: h",
    ),
    "control": (
        make(message="\x1b[31m"),
        r"::error file=spec/a.yaml,title=bits-overlap::\x1b[31m",
    ),
}


@pytest.mark.parametrize(("diagnostic", "text"), GITHUB.values(), ids=GITHUB.keys())
def test_github(diagnostic: Diagnostic, text: str) -> None:
    assert render_github([diagnostic]) == text
    assert "\n" not in render_github([diagnostic])


@pytest.mark.parametrize("id", ["", "Bits", "bits_overlap", "bits-", "bits\n", "a b"])
def test_id_must_be_kebab_case(id: str) -> None:
    with pytest.raises(ValueError, match="kebab-case"):
        make(id=id)


def test_diagnostic_pickles() -> None:
    diagnostic = TEXTS["whole"][0]
    assert pickle.loads(pickle.dumps(diagnostic)) == diagnostic


def test_collector_sorts_by_place_and_keeps_repeats_once() -> None:
    collector = Collector()
    later, earlier, other = make(line=10, column=1), make(line=9, column=5), make(path="other.yaml", line=1)
    collector.extend([later, earlier, other, later])
    assert collector.diagnostics == (other, earlier, later)
    assert len(collector) == 3


def test_collector_raises_for_errors_only() -> None:
    collector = Collector()
    collector.add(make(severity="warning"))
    collector.raise_if_errors()
    assert not collector.has_errors
    collector.add(make())
    with pytest.raises(SpecError) as caught:
        collector.raise_if_errors()
    assert [diagnostic.severity for diagnostic in caught.value.diagnostics] == ["warning", "error"]


def test_collector_is_bounded() -> None:
    collector = Collector(limit=3)
    collector.extend(make(line=line) for line in range(1, 11))
    assert [diagnostic.line for diagnostic in collector.diagnostics] == [1, 2, 3, 0]
    assert collector.diagnostics[-1].message == "7 more problems are not shown"


def test_collector_does_not_forget_an_error_beyond_its_limit() -> None:
    collector = Collector(limit=1)
    collector.add(make(severity="warning"))
    collector.add(make())
    with pytest.raises(SpecError):
        collector.raise_if_errors()
