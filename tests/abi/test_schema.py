"""The JSON Schemas of specification files, and the words in which their errors are told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hvabi.abi import schema
from hvabi.abi.registry import spec_root
from hvabi.abi.source import find, load_file, load_text, plain

if TYPE_CHECKING:
    from collections.abc import Iterator

GOOD = Path(__file__).parent / "bad_specs" / "good.yaml"
SPEC_FILES = sorted(spec_root().rglob("*.yaml"))
KINDS: tuple[schema.Kind, ...] = ("abi", "shared")

Path_ = tuple[str | int, ...]


def nodes(value: Any, pointer: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    """Yield every part of plain data with its pointer."""
    yield pointer, value
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from nodes(child, (*pointer, key))


def replaced(value: Any, pointer: Path_, new: Any) -> Any:
    """Return a copy of plain data with one part replaced."""
    if not pointer:
        return new
    key, rest = pointer[0], pointer[1:]
    if isinstance(value, dict):
        return {k: replaced(v, rest, new) if k == key else v for k, v in value.items()}
    return [replaced(v, rest, new) if n == key else v for n, v in enumerate(value)]


@pytest.mark.parametrize("kind", KINDS)
def test_schema_is_valid(kind: schema.Kind) -> None:
    schema.validator(kind).check_schema(schema.load(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_every_key_has_a_description(kind: schema.Kind) -> None:
    missing = [
        (*pointer, table, name)
        for pointer, value in nodes(schema.load(kind))
        if isinstance(value, dict) and pointer[-1:] != ("properties",)
        for table in ("properties", "patternProperties", "$defs")
        # Conditions (if, then) only repeat keys that are described elsewhere.
        if isinstance(value.get(table), dict) and "if" not in pointer
        for name, item in value[table].items()
        if not (isinstance(item, dict) and item.get("description"))
    ]
    assert missing == []


@pytest.mark.parametrize("kind", KINDS)
def test_every_mapping_is_closed(kind: schema.Kind) -> None:
    found = [(pointer, value) for pointer, value in nodes(schema.load(kind)) if isinstance(value, dict)]
    objects = [(pointer, value) for pointer, value in found if value.get("type") == "object"]
    assert objects
    assert [pointer for pointer, value in objects if value.get("additionalProperties") is not False] == []
    keyed = [p for p, v in found if isinstance(v.get("patternProperties"), dict) and v.get("type") != "object"]
    assert keyed == []


@pytest.mark.parametrize("kind", KINDS)
def test_every_reference_leads_somewhere(kind: schema.Kind) -> None:
    defined = schema.load("abi")["$defs"]
    references = [str(v) for p, v in nodes(schema.load(kind)) if p[-1:] == ("$ref",)]
    assert references
    assert {r.rpartition("/")[2] for r in references} <= set(defined)


def test_every_definition_is_used() -> None:
    used = {str(v).rpartition("/")[2] for kind in KINDS for p, v in nodes(schema.load(kind)) if p[-1:] == ("$ref",)}
    assert set(schema.load("abi")["$defs"]) - used == set()


@pytest.mark.parametrize("path", SPEC_FILES, ids=lambda path: path.stem)
def test_bundled_files_fit_the_schema(path: Path) -> None:
    assert [d.text() for d in schema.validate(load_file(path))] == []


# What is written in place of what, the id, the line's text, the message and the hint that a person gets.
ERRORS = {
    "unknown key at the top": ("title: A small", "titel: A small", "schema-unknown-key", "titel", "`title`?"),
    "unknown key deep inside": ("limit: 16,", "lmit: 16,", "schema-unknown-key", "lmit", "did you mean `limit`?"),
    "key in snake case": ("done-when:", "done_when:", "schema-unknown-key", "done_when", "did you mean `done-when`?"),
    "missing operand": ("to: {of: it.op, map", "to: {map", "schema-missing-key", "`of`", None),
    "missing operand of a check": ("of: count, limit: 16", "of: count", "schema-missing-key", "check `at-most`", None),
    "number for text": ("title: A small ABI", "title: 5", "schema-type", "must be text", "quote it"),
    "text for number": ("size: 8\n", 'size: "8"\n', "schema-type", "must be an integer", "plain number"),
    "list for place": ("count: rcx", "count: 3", "schema-type", "text, a mapping or a list", None),
    "misspelt word": ("level: must, source: code,\n", "level: most, source: code,\n", "schema-value", "most", "`must`"),
    "wrong rule id": ("id: TEST-01", "id: test-01", "schema-name", "test-01", "Permanent id"),
    "wrong name": ("  convert:\n    doc", "  Convert_it:\n    doc", "schema-name", "Convert_it", "kebab-case"),
    "register in capitals": ("list_gpa: rbx", "list_gpa: RBX", "schema-name", "RBX", "register"),
    "place of two kinds": (
        "count: rcx", "count: {reg: rcx, pair: [rax, rdx]}", "schema-choice", "`reg` and `pair`", "keep one of",
    ),
    "answer in a list": (
        "{answer: {status: BAD, done: index}, policy: {busy: told}}", "{answr: {status: BAD}, policy: {busy: told}}",
        "schema-unknown-key", "answr", "did you mean `answer`?",
    ),
    "stop without reason": ("{end: replay, policy", "{end: stop, policy", "schema-missing-key", "`reason`", None),
    "odd hex": ('raw: "0500000000001000"', 'raw: "05000"', "schema-name", "05000", "hex"),
    "too many members": ("[[0x5000, 1, shared]]", "[[0x5000, 1, shared, 2]]", "schema-length", "4 members", None),
    "empty name": ("title: A small ABI", 'title: ""', "schema-length", "is empty", None),
    "page count of zero": ("[[0x5000, 1, shared]]", "[[0x5000, 0, shared]]", "schema-range", "at least 1", None),
    "state twice": ("[private, shared]", "[private, private]", "schema-duplicate", "'private' twice", None),
}  # fmt: skip


@pytest.mark.parametrize("case", ERRORS)
def test_error_says_what_to_do(case: str) -> None:
    old, new, id_, message, hint = ERRORS[case]
    text = GOOD.read_text()
    assert text.count(old) == 1
    line = text[: text.index(old)].count("\n") + 1
    found = [d for d in schema.validate(load_text(text.replace(old, new), "bad.yaml")) if d.id == id_]
    assert found, schema.validate(load_text(text.replace(old, new)))
    told = found[0]
    # A mapping over several lines is shown by its key, at most a line above.
    assert line - 1 <= told.line <= line + new.count("\n")
    assert message in told.message
    assert told.source_line is not None
    if hint is None:
        assert "any of the given schemas" not in told.message
    else:
        assert hint in (told.hint or "")


def test_all_errors_at_once() -> None:
    text = GOOD.read_text()
    for old, new in (
        ("isa: x86-64", "isa: x86"),
        ("unit: element", "unit: elements"),
        ("endian: little", "endian: Big"),
    ):
        text = text.replace(old, new)
    assert [d.id for d in schema.validate(load_text(text))] == ["schema-value"] * 3


@pytest.mark.parametrize("junk", [None, True, 7, -1, "x y", [], {}, [[]], {"a": []}], ids=repr)
def test_any_value_anywhere_gets_a_readable_error(junk: object) -> None:
    data = plain(load_file(GOOD).root)
    pointers = [pointer for pointer, _ in nodes(data) if pointer]
    for pointer in pointers[len(repr(junk)) % 9 :: 9]:
        for problem in schema.problems(replaced(data, pointer, junk), "abi"):
            assert problem.id in schema.IDS
            assert "schemas" not in problem.message
            assert "{'" not in problem.message


def test_pointer_of_a_problem_is_found() -> None:
    source = load_text(GOOD.read_text().replace("bits: 32", "bits: 0"))
    (told,) = schema.validate(source)
    assert find(source.root, ("enums", "status", "bits")).line == told.line


def test_shared_files_have_their_own_schema() -> None:
    text = "# SPDX-License-Identifier: MIT\nshared: x\ndoc: Some.\nsources: {}\nmessages: {}\n"
    (told,) = schema.validate(load_text(text))
    assert (told.id, told.line) == ("schema-unknown-key", 5)


def test_jsonschema_is_imported_late() -> None:
    code = "import sys, hvabi.abi.lint; sys.exit('jsonschema' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
