"""Strict YAML by tables: what is read, what is refused, and where it points."""

from __future__ import annotations

import inspect
import os
import pickle
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from hvabi.abi import source, source_scalar, source_text
from hvabi.abi.errors import SpecError, UsageError
from hvabi.abi.expr import parse
from hvabi.abi.source import find, key_node, load_file, load_text, plain

if TYPE_CHECKING:
    from hvabi.abi.diagnostics import Diagnostic

GOOD = """\
# a comment
abi: tdx-map-gpa
bits: [51, 13]
0: zero
0x10: sixteen
negative: -5
plus: +5
hex: 0xFF
octal: 0o17
largest: 0x100000000000000000000000000000000
nothing: null
yes-no: [true, false]
formula: 0xff0 - offset
folded text: foo
  bar
literal: |
  a + b
  c + d
folded: >
  one
  two
single: 'it''s'
double: "tab\\té"
a/b~c: {x: 1, "y": "yes"}
'on': "off"
ratio: a:b
version: 1.2.3
digits: 7.x
dashes: --
unicode: 漢字 # comment
empty: ["", [], {}]
nested:
  - a: 1
    b:
      - 2
  - 3
"""
GOOD_DATA = {
    "abi": "tdx-map-gpa",
    "bits": [51, 13],
    "0": "zero",
    "0x10": "sixteen",
    "negative": -5,
    "plus": 5,
    "hex": 255,
    "octal": 15,
    "largest": 1 << 128,
    "nothing": None,
    "yes-no": [True, False],
    "formula": "0xff0 - offset",
    "folded text": "foo bar",
    "literal": "a + b\nc + d\n",
    "folded": "one two\n",
    "single": "it's",
    "double": "tab\té",
    "a/b~c": {"x": 1, "y": "yes"},
    "on": "off",
    "ratio": "a:b",
    "version": "1.2.3",
    "digits": "7.x",
    "dashes": "--",
    "unicode": "漢字",
    "empty": ["", [], {}],
    "nested": [{"a": 1, "b": [2]}, 3],
}


@pytest.fixture(params=["C", "Python"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both parsers of PyYAML; the C parser may be missing where hvabi is installed."""
    if request.param == "C" and not hasattr(yaml, "CSafeLoader"):
        pytest.skip("PyYAML was built without libyaml")
    loader = yaml.CSafeLoader if request.param == "C" else yaml.SafeLoader
    monkeypatch.setattr(source_text, "LOADER", loader)
    return str(request.param)


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize("data", [GOOD, GOOD.encode(), GOOD.replace("\n", "\r\n"), "---\n" + GOOD + "...\n"])
def test_good_file(data: str | bytes) -> None:
    file = load_text(data, "good.yaml")
    found = plain(file.root)
    assert found == GOOD_DATA
    assert repr(found) == repr(GOOD_DATA)  # tells True from 1


# text, then the diagnostics as (id, line, column, end column)
Row = tuple[str, list[tuple[str, int, int, int]]]
BAD: dict[str, Row] = {
    **{
        f"word-{word}": (f"a: {word}", [("yaml-ambiguous-word", 1, 4, 4 + len(word))])
        for word in ("yes", "No", "ON", "off", "y", "N", "True", "FALSE", "Null", "~", "=")
    },
    **{
        f"word-key-{word}": (f"{word}: 1", [("yaml-ambiguous-word", 1, 1, 1 + len(word))])
        for word in ("yes", "on", "off", "n", "~", "True")
    },
    "word-in-flow": (
        "a: [on, {b: off}]",
        [("yaml-ambiguous-word", 1, 5, 7), ("yaml-ambiguous-word", 1, 13, 16)],
    ),
    "non-string-key-true": ("true: 1", [("yaml-non-string-key", 1, 1, 5)]),
    "non-string-key-null": ("null: 1", [("yaml-non-string-key", 1, 1, 5)]),
    "base-60": ("bits: 51:12", [("yaml-base-60", 1, 7, 12)]),
    "base-60-out-of-range": ("bits: 63:60", [("yaml-base-60", 1, 7, 12)]),
    "base-60-long": ("a: 1:2:3", [("yaml-base-60", 1, 4, 9)]),
    "base-60-key": ("51:12: x", [("yaml-base-60", 1, 1, 6)]),
    "leading-zero": ("a: 010", [("yaml-leading-zero", 1, 4, 7)]),
    "leading-zero-decimal": ("a: -09", [("yaml-leading-zero", 1, 4, 7)]),
    "leading-zero-key": ("010: a", [("yaml-leading-zero", 1, 1, 4)]),
    "float": ("a: 6.16", [("yaml-float", 1, 4, 8)]),
    "float-exponent": ("a: 1e5", [("yaml-float", 1, 4, 7)]),
    "float-dot": ("a: .5", [("yaml-float", 1, 4, 6)]),
    "float-infinity": (
        "a: [.inf, -.INF, .NaN]",
        [("yaml-float", 1, 5, 9), ("yaml-float", 1, 11, 16), ("yaml-float", 1, 18, 22)],
    ),
    "float-key": ("6.16: a", [("yaml-float", 1, 1, 5)]),
    "timestamp": ("a: 2026-11-22", [("yaml-timestamp", 1, 4, 14)]),
    "timestamp-with-time": ("a: 2001-12-14t21:59:43.10-05:00", [("yaml-timestamp", 1, 4, 32)]),
    "binary": ("a: 0b101", [("yaml-ambiguous-number", 1, 4, 9)]),
    "separators": ("a: 1_000", [("yaml-ambiguous-number", 1, 4, 9)]),
    "hex-separators": ("a: 0x8000_0000", [("yaml-ambiguous-number", 1, 4, 15)]),
    "hex-upper": ("a: 0XFF", [("yaml-ambiguous-number", 1, 4, 8)]),
    "hex-negative": ("a: -0x10", [("yaml-ambiguous-number", 1, 4, 9)]),
    "integer-range": (f"a: {(1 << 128) + 1}", [("yaml-integer-range", 1, 4, 43)]),
    "integer-range-negative": (f"a: -{(1 << 128) + 1}", [("yaml-integer-range", 1, 4, 44)]),
    "integer-range-digits": ("a: " + "9" * 5000, [("yaml-integer-range", 1, 4, 5004)]),
    "tag": ("a: !x 1", [("yaml-tag", 1, 4, 8)]),
    "tag-standard": ("a: !!str 1", [("yaml-tag", 1, 4, 11)]),
    "tag-binary": ("a: !!binary aGk=", [("yaml-tag", 1, 4, 17)]),
    "tag-python": ("a: !!python/object/apply:os.system [id]", [("yaml-tag", 1, 4, 37)]),
    "tag-bare": ("a: ! b", [("yaml-tag", 1, 4, 7)]),
    "tag-on-list": ("a: !!set {}", [("yaml-tag", 1, 4, 11)]),
    "anchor": ("a: &b 1", [("yaml-anchor", 1, 4, 8)]),
    "anchor-on-key": ("&b a: 1", [("yaml-anchor", 1, 1, 5)]),
    "alias": ("a: *b", [("yaml-alias", 1, 4, 6)]),
    "alias-as-key": ("*b : 1\nc: 2", [("yaml-alias", 1, 1, 3)]),
    "alias-in-list": ("a: [1, *b]", [("yaml-alias", 1, 8, 10)]),
    "merge-key": ("<<: {a: 1}", [("yaml-merge-key", 1, 1, 3)]),
    "merge-value": ("a: <<", [("yaml-merge-key", 1, 4, 6)]),
    "duplicate-key": ("a: 1\nb: 2\na: 3", [("yaml-duplicate-key", 3, 1, 2)]),
    "duplicate-key-quoted": ("0: 1\n'0': 2", [("yaml-duplicate-key", 2, 1, 4)]),
    "duplicate-key-number": ("16: 1\n0x10: 2", [("yaml-duplicate-key", 2, 1, 5)]),
    "duplicate-key-in-flow": ("{a: 1, a: 2}", [("yaml-duplicate-key", 1, 8, 9)]),
    "duplicate-key-with-bad-value": (
        "a: 1\na: {b: on}\nc: off",
        [
            ("yaml-duplicate-key", 2, 1, 2),
            ("yaml-ambiguous-word", 2, 8, 10),
            ("yaml-ambiguous-word", 3, 4, 7),
        ],
    ),
    "complex-key": ("? [a]\n: 1\nb: on", [("yaml-complex-key", 1, 3, 4), ("yaml-ambiguous-word", 3, 4, 6)]),
    "complex-key-mapping": ("{{a: 1}: 2}", [("yaml-complex-key", 1, 2, 3)]),
    "empty-key": ("? \n: 1\nb: 2", [("yaml-empty-key", 1, 2, 2)]),
    "empty-value": ("a:\nb: 1", [("yaml-empty-value", 1, 1, 2)]),
    "empty-value-in-list": ("- \n- 1", [("yaml-empty-value", 1, 2, 2)]),
    "empty-value-without-colon": ("{a, b: 1}", [("yaml-empty-value", 1, 2, 3)]),
    "control-escape": ('a: "\\0"', [("yaml-control-character", 1, 4, 8)]),
    "control-escape-in-key": ('"\\e[31m": 1', [("yaml-control-character", 1, 1, 9)]),
    "control-escape-return": ('a: "x\\ry"', [("yaml-control-character", 1, 4, 10)]),
    "control-raw": (
        "a: x\x07y\nb: \x1b",
        [("yaml-control-character", 1, 5, 6), ("yaml-control-character", 2, 4, 5)],
    ),
    "control-nul": ("a: \x00", [("yaml-control-character", 1, 4, 5)]),
    "control-bidi": ("a: x # \u202e", [("yaml-control-character", 1, 8, 9)]),
    "control-line-separator": ("a: x\u2028b: on", [("yaml-control-character", 1, 5, 6)]),
    "control-next-line": ("a: x\x85", [("yaml-control-character", 1, 5, 6)]),
    "control-byte-order-mark": ("\ufeffa: 1", [("yaml-control-character", 1, 1, 2)]),
    "directive": ("%YAML 1.1\n---\na: 1", [("yaml-directive", 1, 1, 2)]),
    "directive-after": ("a: 1\n...\n# x\n%TAG ! x\n---\n", [("yaml-directive", 4, 1, 2)]),
    "documents": ("a: 1\n---\nb: 2", [("yaml-multiple-documents", 2, 1, 4)]),
    "documents-after-end": ("a: 1\n...\n---\nb: 2", [("yaml-multiple-documents", 3, 1, 4)]),
    "no-document": ("", [("yaml-empty-document", 0, 0, 0)]),
    "only-comments": ("# x\n\n# y", [("yaml-empty-document", 0, 0, 0)]),
    "too-deep": ("[" * 41 + "]" * 41, [("yaml-too-deep", 1, 41, 42)]),
    "scalar-too-long": (f"a: '{'x' * 65537}'", [("yaml-scalar-too-long", 1, 4, 65543)]),
    "key-too-long": (f"? {'x' * 65537}\n: 1", [("yaml-scalar-too-long", 1, 3, 65540)]),
    "several": (
        "a: on\nb: 010\nc: {d: 1.5, d: 2}\ne: &f 1",
        [
            ("yaml-ambiguous-word", 1, 4, 6),
            ("yaml-leading-zero", 2, 4, 7),
            ("yaml-float", 3, 8, 11),
            ("yaml-duplicate-key", 3, 13, 14),
            ("yaml-anchor", 4, 4, 8),
        ],
    ),
    "then-syntax": ("a: on\nb: [", [("yaml-ambiguous-word", 1, 4, 6), ("yaml-syntax", 2, 4, 5)]),
}


def problems(data: str | bytes) -> tuple[Diagnostic, ...]:
    with pytest.raises(SpecError) as caught:
        load_text(data, "bad.yaml")
    return caught.value.diagnostics


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize(("text", "rows"), BAD.values(), ids=BAD.keys())
def test_refused(text: str, rows: list[tuple[str, int, int, int]]) -> None:
    found = problems(text)
    lines = re.split("\r\n|\n", text)
    places = [(item.id, item.line, item.column, item.end_column) for item in found]
    assert places == rows
    for item in found:
        assert item.severity == "error"
        assert item.hint
        assert item.path == "bad.yaml"
        assert item.source_line == (lines[item.line - 1] if item.line else None)


# The words differ between the two parsers; the place must be useful in both.
SYNTAX = {
    "colon-in-text": ("a: b: c", 1, "`: `"),
    "tab": ("a:\n\tb: 1", 2, "tabs"),
    "open-list": ("x: 1\na: [1,\n", 2, "closed"),
    "open-mapping": ("a: {b: 1\n", 1, "closed"),
    "open-quote": ("a: 'x\n\n", 1, "quote"),
    "indentation": ("a:\n    b: 1\n  c: 2", 3, "indentation"),
    "list-then-mapping": ("- a\nb: c", 2, "indentation"),
    "at": ("a: @x", 1, "quotes"),
    "backtick": ("a: `x`", 1, "quotes"),
    "dash-value": ("a: -\n", 1, "quotes"),
    "bad-escape": (r'a: "\q"', 1, "single quotes"),
    "missing-colon": ("a: 1\nb\nc: 2", None, "key needs"),
    "closing": ("a: ]", 1, None),
    "after-the-end": ("a: 1\n...\n] x", 3, None),
    "undefined-tag": ("a: !x!y 1", 1, None),
}


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize(("text", "line", "hint"), SYNTAX.values(), ids=SYNTAX.keys())
def test_syntax_error(text: str, line: int | None, hint: str | None) -> None:
    found = problems(text)
    assert [item.id for item in found] == ["yaml-syntax"]
    assert line is None or found[0].line == line
    assert hint is None or hint in (found[0].hint or "")


BYTES = {
    "latin-1": (b"a: 1\nb: caf\xe9", "yaml-not-utf8", 2, 7),
    "utf-16": ("a: 1".encode("utf-16"), "yaml-not-utf8", 1, 1),
    "cut": ("a: é".encode()[:-1], "yaml-not-utf8", 1, 4),
    "surrogate": (b"a: \xed\xa0\x80", "yaml-not-utf8", 1, 4),
    "overlong": (b"a: \xc0\x80", "yaml-not-utf8", 1, 4),
    "utf-8-mark": (b"\xef\xbb\xbfa: 1", "yaml-control-character", 1, 1),
    "utf-16-without-mark": ("a: 1".encode("utf-16-le"), "yaml-control-character", 1, 2),
}


@pytest.mark.parametrize(("data", "id", "line", "column"), BYTES.values(), ids=BYTES.keys())
def test_bytes_that_are_no_text(data: bytes, id: str, line: int, column: int) -> None:
    first = problems(data)[0]
    assert (first.id, first.line, first.column) == (id, line, column)
    assert "�" not in first.text() or id == "yaml-not-utf8"


def test_lone_surrogate_in_text() -> None:
    first = problems("a: 1\nb: \ud800")[0]
    assert (first.id, first.line, first.column) == ("yaml-not-utf8", 2, 4)


@pytest.mark.parametrize("text", [r'a: "\ud800"', r'a: "\UFFFFFFFF"', r'a: "\U00110000"'])
@pytest.mark.usefixtures("parser")
def test_escapes_that_are_no_characters(text: str) -> None:
    assert problems(text)[0].id in {"yaml-syntax", "yaml-control-character"}


@pytest.mark.parametrize("data", ["#" * (1 << 20) + "\n", b"#" * (1 << 20) + b"\n", "#" + "é" * (1 << 19)])
def test_large_file_is_refused(data: str | bytes) -> None:
    assert [item.id for item in problems(data)] == ["yaml-file-too-large"]


def test_too_many_nodes() -> None:
    assert [item.id for item in problems("[" + "a," * 100_001 + "]")] == ["yaml-too-many-nodes"]
    load_text("[" + "a," * 99_999 + "]")


def test_depth_at_the_limit_is_read() -> None:
    load_text("[" * 40 + "]" * 40)


def test_every_diagnostic_has_a_bad_example() -> None:
    emitted: set[str] = set()
    for module in (source, source_text, source_scalar):
        emitted |= set(re.findall(r'"(yaml-[a-z0-9-]+)"', inspect.getsource(module)))
    shown = {row[0] for _, rows in BAD.values() for row in rows} | {row[1] for row in BYTES.values()}
    shown |= {"yaml-syntax", "yaml-file-too-large", "yaml-too-many-nodes", "yaml-unreadable"}  # own tests
    assert emitted == shown


HINTS = {
    "a: off": 'write false, or "off" in quotes for text',
    "on: 1": 'write "on" in quotes if it is the name of a key',
    "a: 51:12": 'write [51, 12] for a range of bits, or "51:12" in quotes for text',
    "a: 010": 'write 10 if it is decimal, 0o10 if it is octal, or "010" in quotes for text',
    "a: 6.16": 'write "6.16" in quotes for text',
    "a: ~": 'write null, or "~" in quotes for text',
    "a:": 'write null, "", [] or {}',
}


@pytest.mark.parametrize("text", HINTS)
def test_hint_says_what_to_write(text: str) -> None:
    assert problems(text)[0].hint == HINTS[text]


def test_hints_are_right() -> None:
    for text in ["a: false", 'a: "off"', '"on": 1', "a: [51, 12]", "a: 0o10", 'a: "6.16"', "a: null"]:
        load_text(text)


def test_duplicate_key_names_both_lines() -> None:
    item = problems("a: 1\nb: 2\na: 3")[0]
    assert (item.line, item.source_line) == (3, "a: 3")
    assert "first at line 1" in item.message


PLACES: dict[tuple[str | int, ...], tuple[int, int, int, str]] = {
    (): (2, 1, 17, ""),
    ("abi",): (2, 6, 17, "/abi"),
    ("bits",): (3, 7, 15, "/bits"),
    ("bits", 1): (3, 12, 14, "/bits/1"),
    ("folded text",): (14, 14, 17, "/folded text"),
    ("literal",): (16, 10, 11, "/literal"),
    ("single",): (22, 9, 16, "/single"),
    ("a/b~c", "x"): (24, 12, 13, "/a~1b~0c/x"),
    ("unicode",): (30, 10, 12, "/unicode"),
    ("nested", 0, "b", 0): (35, 9, 10, "/nested/0/b/0"),
    ("nested", "1"): (36, 5, 6, "/nested/1"),
}


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize("path", PLACES)
def test_place_of_a_value(path: tuple[str | int, ...]) -> None:
    node = find(load_text(GOOD, "good.yaml").root, path)
    assert (node.line, node.column, node.end_column, node.pointer) == PLACES[path]
    assert node.path == "good.yaml"


def test_place_of_a_key() -> None:
    root = load_text(GOOD).root
    key = key_node(root, "on")
    assert (key.line, key.column, key.end_column, key.value) == (25, 1, 5, "on")


@pytest.mark.parametrize(
    "path", [("abx",), ("bits", 2), ("bits", -1), ("bits", "x"), ("abi", "x"), ("bits", 0, 0), ("bits", "²")]
)
def test_find_of_what_is_not_there(path: tuple[str | int, ...]) -> None:
    with pytest.raises(UsageError) as caught:
        find(load_text(GOOD).root, path)
    assert caught.value.code == "unknown-key"


def test_key_node_of_what_is_not_there() -> None:
    with pytest.raises(UsageError, match="did you mean abi"):
        key_node(load_text(GOOD).root, "abj")


OFFSETS = {
    "plain": ("rule: a + / b", ("rule",), 4, (1, 11)),
    "single": ("rule: 'a + / b'", ("rule",), 4, (1, 12)),
    "double": ('rule: "a + / b"', ("rule",), 4, (1, 12)),
    "literal": ("rule: |\n  a +\n    / b\n", ("rule",), 6, (3, 5)),
    "literal-first-line": ("rule: |\n   a + / b\n", ("rule",), 4, (2, 8)),
    "in-list": ("- [x, a + / b]", (0, 1), 4, (1, 11)),
    "escaped-falls-back": ('rule: "a\\t+ / b"', ("rule",), 4, (1, 7)),
    "folded-falls-back": ("rule: >\n  a + / b\n", ("rule",), 4, (1, 7)),
    "lines-fall-back": ("rule: a +\n  / b\n", ("rule",), 4, (1, 7)),
    "past-the-end": ("rule: abc", ("rule",), 99, (1, 10)),
}


@pytest.mark.parametrize(("text", "path", "offset", "place"), OFFSETS.values(), ids=OFFSETS.keys())
def test_diagnostic_points_into_text(text: str, path: Any, offset: int, place: tuple[int, int]) -> None:
    file = load_text(text, "x.yaml")
    item = file.diagnostic(find(file.root, path), "bad-rule", "bad", "mend it", offset=offset)
    assert (item.line, item.column) == place
    assert item.source_line == text.split("\n")[place[0] - 1]


def test_diagnostic_of_an_expression_error() -> None:
    file = load_text("rules:\n  - check: 'gpa / 4096 == 0'\n", "x.yaml")
    node = find(file.root, ("rules", 0, "check"))
    with pytest.raises(Exception, match="//") as caught:
        parse(str(node.value))
    error: Any = caught.value
    item = file.diagnostic(node, error.code, error.reason, error.hint, offset=error.column - 1)
    assert item.text() == (
        "x.yaml:2:17: error[expr-syntax]: expected an operator or the end, found `/`\n"
        "    2 |   - check: 'gpa / 4096 == 0'\n"
        "      |                 ^\n"
        "hint: write // for division that rounds down"
    )


def test_diagnostic_of_a_node() -> None:
    file = load_text("a:\n  bits: [51, 13]\n", "x.yaml")
    item = file.diagnostic(find(file.root, ("a", "bits")), "bits-overlap", "bits overlap", severity="warning")
    assert item.text().split("\n")[1:] == ["    2 |   bits: [51, 13]", "      |         ^~~~~~~~"]
    assert item.severity == "warning"


def test_file(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(GOOD.encode())
    file = load_file(path)
    assert plain(file.root) == GOOD_DATA
    assert file.path == str(path)
    assert file.line(2) == "abi: tdx-map-gpa"
    assert file.line(0) is None
    again = pickle.loads(pickle.dumps(file))
    assert find(again.root, ("bits", 0)).pointer == "/bits/0"


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "device", "nul-in-name"])
def test_unreadable_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.yaml"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path = Path("/dev/zero")
    elif kind == "nul-in-name":
        path = Path("a\0b")
    with pytest.raises(SpecError) as caught:
        load_file(path)
    assert [item.id for item in caught.value.diagnostics] == ["yaml-unreadable"]
    assert "\0" not in str(caught.value)


def test_large_file_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(SpecError) as caught:
        load_file(path)
    assert [item.id for item in caught.value.diagnostics] == ["yaml-file-too-large"]


@pytest.mark.skipif(not hasattr(yaml, "CSafeLoader"), reason="the bound is for the C parser")
def test_a_thousand_lines_load_in_60_ms() -> None:
    entry = (
        "  f{0}: {{bits: [51, 13], enum: status, text: 'some words {0}', level: must}}\n"
        "  # a comment\n  g{0}:\n    text: some longer text for a person\n    level: must\n"
    )
    text = "messages:\n" + "".join(entry.format(number) for number in range(200))
    best = 1.0
    for _ in range(5):
        start = time.perf_counter()
        load_text(text)
        best = min(best, time.perf_counter() - start)
    assert best < 0.06
