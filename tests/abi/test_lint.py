"""Lint of specification files: one bad file per diagnostic, and good files that get none."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from hvabi.abi import lint
from hvabi.abi.diagnostics import Diagnostic, render_text
from hvabi.abi.lint import ALL_IDS, YAML_IDS, lint_paths
from hvabi.abi.registry import spec_root
from hvabi.abi.source import load_file, plain

FOLDER = Path(__file__).parent / "bad_specs"
FIXTURES = sorted(path for path in FOLDER.glob("*.yaml") if path.stem != "good")
GOOD = FOLDER / "good.yaml"
SPEC_FILES = sorted(spec_root().rglob("*.yaml"))

SEVERAL_FILES = {"abi-duplicate", "no-files", "too-many-problems"}
"""Ids that one file cannot have; each has a test of its own below."""


def expected(path: Path) -> list[tuple[str, int]]:
    """Return what the first lines of a fixture promise."""
    return [(id_, int(line)) for id_, line in re.findall(r"^# expect: (\S+) at line (\d+)$", path.read_text(), re.M)]


def changed(tmp_path: Path, *edits: tuple[str, str]) -> list[Diagnostic]:
    """Return the findings in the good file with some text replaced."""
    text = GOOD.read_text()
    for old, new in edits:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path = tmp_path / "good.yaml"
    path.write_text(text)
    return lint_paths([path])


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_bad_file_gets_exactly_its_diagnostics(path: Path) -> None:
    wanted = expected(path)
    assert wanted
    found = lint_paths([path])
    assert [(d.id, d.line) for d in found] == wanted, render_text(found)
    assert all(d.source_line and d.message and not d.message.endswith(".") for d in found)


def test_every_id_has_a_fixture() -> None:
    covered = {id_ for path in FIXTURES for id_, _ in expected(path)}
    assert set(ALL_IDS) - set(YAML_IDS) - SEVERAL_FILES - covered == set()
    assert covered <= set(ALL_IDS)


def test_ids_of_the_yaml_reader_are_those_that_it_uses() -> None:
    abi = Path(lint.__file__).parent
    used = {id_ for file in abi.glob("source*.py") for id_ in re.findall(r'"(yaml-[a-z0-9-]+)"', file.read_text())}
    assert used == set(YAML_IDS)
    tests = "".join(file.read_text() for file in Path(__file__).parent.glob("test_source*.py"))
    assert [id_ for id_ in YAML_IDS if id_ not in tests] == []


@pytest.mark.parametrize("id_", ALL_IDS)
def test_every_id_is_explained(id_: str) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", id_)
    assert re.fullmatch(r"[A-Z`].*\.", ALL_IDS[id_])


def test_good_file_is_clean() -> None:
    assert lint_paths([GOOD]) == []


@pytest.mark.parametrize("path", SPEC_FILES, ids=lambda path: path.stem)
def test_bundled_specification_is_clean(path: Path) -> None:
    found = lint_paths([path])
    assert found == [], render_text(found)


def test_bundled_specifications_together_are_clean() -> None:
    found = lint_paths()
    assert found == [], render_text(found)


# -- what a person is told --------------------------------------------------------------------------------------

WORDS = {
    "gap": (
        ("gfn: {bits: [51, 0]", "gfn: {bits: [47, 0]"),
        "layout-gap", "bits [51, 48] of layout `entry` belong to no field: 4 bits between gfn and op", "partial",
    ),
    "gap at the end": (
        ("bits: [63, 56]", "bits: [62, 56]"), "layout-gap", "1 bits after rest", "reserved bits are fields",
    ),
    "overlap": (
        ("op: {bits: [55, 52]", "op: {bits: [55, 50]"),
        "layout-overlap", "bits [55, 50] of entry.op overlap gfn (bits [51, 0]) by 2 bits", None,
    ),
    "beyond the integer": (("bits: [63, 56]", "bits: [64, 56]"), "layout-bits", "1 bits beyond its 8 bytes", None),
    "wrong way round": (("bits: [63, 56]", "bits: [56, 63]"), "layout-bits", "[56, 63]", "write [hi, lo]"),
    "case of a name": (("{of: it.op, map", "{of: it.OP, map"), "expr-unknown-field", "no `OP`", "did you mean `op`?"),
    "typo in an enum value": (
        ("done-when: status == OK", "done-when: status == OKAY"), "expr-unknown-name", "`OKAY`", None,
    ),
    "typo in a field": (("completed: done\n", "completed: doen\n"), "expr-unknown-name", "`doen`", "`done`?"),
    "element name outside an element": (
        ("max-elements: 16", "max-elements: index"), "expr-unknown-name", "`index`", "known in element scope only",
    ),
    "run-time name at the wrong place": (
        ("completed: done\n", "completed: done_pages\n"), "expr-unknown-name", "`done_pages`", "known in outcomes only",
    ),
    "response in a rule about the request": (
        ("of: count, limit: 16", "of: done, limit: 16"), "expr-unknown-name", "`done`", "known for the response only",
    ),
    "list as a number": (("bound: 4 * count + 4", "bound: entries + 4"), "expr-type", "a list is no number", "len"),
    "element as a number": (("start: it.gfn * PAGE", "start: it * PAGE"), "expr-type", "layout `entry`", "it has gfn"),
    "field of a number": (
        ("bound: 4 * count + 4", "bound: count.low"), "expr-unknown-field", "`count` is a number", None,
    ),
    "enum hidden by a field": (
        ("done-when: status == OK", "done-when: status == status.OK"),
        "expr-unknown-field", "`status` is a number", "write `OK`",
    ),
    "member of the taxonomy": (
        ("      failed: {answer: {status: BAD, done: index}}\n", ""), "outcome-missing", "`failed`", "cannot",
    ),
    "typo in a revision": (
        ("v2: {doc: The second.}", "v2: {doc: The second.}\n  v3: {doc: A third., default: true}"),
        "revision-default", "v1 and v3 are the default", "exactly one",
    ),
    "example with a register that is not used": (
        ("regs: {rax: 12,", "regs: {rdi: 0, rax: 12,"), "example-mismatch", "rdi is no register of the request", None,
    ),
    "prevalidation that is said twice": (
        ("    progress:\n", "    prevalidate: [{is: true}, {is: false}]\n    progress:\n"),
        "outcome-unreachable", "`prevalidate`: an earlier alternative", None,
    ),
    "example off by one byte": (
        ('mem: [[0x1000, "0500000000001000"]]', 'mem: [[0x1000, "0500000000001100"]]'),
        "example-mismatch", "the byte at 0x1006 encodes to 10, not 11", None,
    ),
    "example that decodes otherwise": (
        ("response: {status: OK, done: 1}", "response: {status: OK, done: 2}"),
        "example-mismatch", "done decodes to 1, the example has 2", None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WORDS)
def test_finding_says_what_is_wrong(case: str, tmp_path: Path) -> None:
    edit, id_, message, hint = WORDS[case]
    found = changed(tmp_path, edit)
    told = next((d for d in found if d.id == id_ and message in d.message), None)
    assert told is not None, render_text(found)
    assert hint is None or hint in (told.hint or "")


def test_definition_that_needs_an_element(tmp_path: Path) -> None:
    edits = ("{expr: 1 << width, doc", "{expr: it.gfn, doc"), ("max-elements: 16", "max-elements: limit")
    (told,) = changed(tmp_path, *edits)
    assert told.message == "`limit` needs `it`, which is known in element scope only"


def test_caret_stands_under_the_name(tmp_path: Path) -> None:
    (told,) = changed(
        tmp_path, ("again-when: status == BAD and done < count", "again-when: status == BAD and doen < count")
    )
    assert told.source_line is not None
    assert told.source_line[told.column - 1 : told.end_column - 1] == "doen"


def test_all_errors_of_a_file_at_once(tmp_path: Path) -> None:
    found = changed(
        tmp_path,
        ("{expr: 1 << width, doc", "{expr: 1 <<, doc"),
        ("gfn: {bits: [51, 0]", "gfn: {bits: [50, 0]"),
        ("enum: status, doc", "enum: stats, doc"),
        ("list_gpa: rbx", "list_gpa: rbxx"),
        ("completed: done\n", "completed: doen\n"),
        ("default: told", "default: tld"),
    )
    assert {d.id for d in found} >= {
        "expr-syntax", "layout-gap", "unknown-enum", "unknown-register", "expr-unknown-name", "unknown-policy-value",
    }  # fmt: skip


def test_errors_of_a_shared_file_are_shown_there(tmp_path: Path) -> None:
    shared, vendor = tmp_path / "shared", tmp_path / "test"
    shared.mkdir()
    vendor.mkdir()
    text = (spec_root() / "shared" / "errno.yaml").read_text()
    (shared / "errno.yaml").write_text(text.replace("EINVAL: {value: 22,", "EINVAL: {vlaue: 22,"))
    (vendor / "good.yaml").write_text(GOOD.read_text())
    found = lint_paths([vendor])
    assert {d.id for d in found} == {"schema-unknown-key", "schema-missing-key"}
    assert {Path(d.path).name for d in found} == {"errno.yaml"}


def test_rules_of_several_files_have_different_ids(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text(GOOD.read_text().replace("abi: good", f"abi: {name}"))
    found = lint_paths([tmp_path])
    assert {d.id for d in found} == {"rule-duplicate-id"}
    assert {Path(d.path).name for d in found} == {"two.yaml"}
    assert len(found) == 3


def test_abi_described_twice(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "good.yaml").write_text(GOOD.read_text())
    assert "abi-duplicate" in {d.id for d in lint_paths([tmp_path])}


def test_folder_without_files(tmp_path: Path) -> None:
    assert [d.id for d in lint_paths([tmp_path])] == ["no-files"]


def test_file_that_does_not_exist(tmp_path: Path) -> None:
    assert [d.id for d in lint_paths([tmp_path / "none.yaml"])] == ["yaml-unreadable"]


def test_findings_are_bounded(tmp_path: Path) -> None:
    rows = "".join(f"      v{n}: {{value: {1 << 40}, doc: x}}\n" for n in range(1500))
    found = changed(tmp_path, ("      OK: {value: 0", rows + "      OK: {value: 0"))
    assert len(found) == 1001
    assert found[-1].id == "too-many-problems"


@pytest.mark.parametrize("seed", range(40))
def test_mangled_file_gets_diagnostics_and_no_traceback(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    data: Any = plain(load_file(GOOD).root)
    places: list[tuple[Any, Any]] = []
    todo = [data]
    while todo:
        item = todo.pop()
        keys = list(item) if isinstance(item, dict) else range(len(item))
        for key in keys:
            places.append((item, key))
            if isinstance(item[key], (dict, list)):
                todo.append(item[key])
    values = [item[key] for item, key in places if isinstance(item[key], (str, int))]
    for _ in range(chance.choice([1, 2, 4])):
        item, key = chance.choice(places)
        if isinstance(item, dict) and chance.random() < 0.3:
            item.pop(key, None)
        elif not isinstance(item, list) or key < len(item):
            item[key] = chance.choice([*chance.sample(values, 4), None, [], {}, -1, 1 << 100, "1 // 0", "it.x[index]"])
    path = tmp_path / "good.yaml"
    path.write_text("# SPDX-License-Identifier: MIT\n" + json.dumps(data))
    for told in lint_paths([path]):
        assert told.id in ALL_IDS
        assert told.text()
