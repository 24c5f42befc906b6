"""Test vectors: schema, form, sums, drift, and a consumer that knows nothing of hvabi."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import shutil
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from jsonschema import Draft202012Validator

from hvabi.conformance.case import Case, Expected, GuestScript, GuestTurn, HostStep, Inject, Setup
from hvabi.conformance.generate import cases
from hvabi.conformance.vector_case import usable, vector
from hvabi.conformance.vector_check import check
from hvabi.conformance.vector_set import VERSION, difference, least
from hvabi.conformance.vector_words import NOTES
from hvabi.conformance.vectors import MANIFEST, SCHEMA, VectorError, canonical, schema, texts_of, vectors, write_vectors
from tests.conformance.report_runs import ALIGN_ERROR, SENT, tdx_case

if TYPE_CHECKING:
    from types import ModuleType

CONSUMER = Path(__file__).parents[2] / "examples" / "vectors" / "consume.py"
BOTH = replace(
    ALIGN_ERROR,
    regs={"r10": 1 << 63, "r11": 0x800040101000},
    policies={"unknown-leaf": "invalid-operand", "no-memory": "allow"},
)


def guest(**changes: Any) -> Case:
    script = GuestScript(
        gpa=0x200000, pages=2, to="shared", turns=(GuestTurn(kind="say", say={"status": 1}),), **changes
    )
    return Case(
        id="tdx-map-gpa@ghci-1.5.guest.tdcall.TDX-MAPGPA-21.stuck", abi="tdx-map-gpa", revision="ghci-1.5",
        role="guest", transport="tdcall", rules=("TDX-MAPGPA-21",), level="must", why="The host never moves.",
        kind="guest", setup=Setup(scratch=(16, 20)), script=script,
    )  # fmt: skip


@lru_cache(maxsize=1)
def generated() -> tuple[Case, ...]:
    return (*cases("kvm-page-enc-status"), *cases("ghcb-msr-psc"))


def test_a_host_case_as_a_vector() -> None:
    found = vector(tdx_case())
    Draft202012Validator(schema()["$defs"]["test"] | {"$defs": schema()["$defs"]}).validate(found)
    assert found["result"] == "valid"
    step = found["steps"][0]
    assert step["regs"]["r12"] == "0x800040101000"
    assert step["before"] == {"ranges": []}
    assert step["fields"] == {"gpa": "0x800040101000", "size": "0x1800"}
    (one,) = step["expect"]
    assert one["regs"] == {"r10": "0x8000000000000002", "r11": "0x800040101000"}
    assert one["after"] == {"ranges": []}
    assert "policies" not in one


def test_alternatives_carry_the_policies_that_tell_them_apart() -> None:
    case = tdx_case(steps=(HostStep(regs=SENT, expected=(ALIGN_ERROR, BOTH)),))
    found = vector(case)
    assert found["result"] == "either"
    assert [one["policies"] for one in found["steps"][0]["expect"]] == [
        {"unknown-leaf": "subfunc-unsupported"},
        {"unknown-leaf": "invalid-operand"},
    ]


def test_the_state_stands_where_a_step_begins_anew() -> None:
    before = ((16, 20, "shared"),)
    steps = (
        HostStep(regs=SENT, expected=(ALIGN_ERROR,)),
        HostStep(regs=SENT, expected=(ALIGN_ERROR,)),
        HostStep(regs=SENT, expected=(ALIGN_ERROR,), fresh=True),
    )
    found = vector(tdx_case(before=before, steps=steps))["steps"]
    assert ["before" in step for step in found] == [True, False, True]
    assert found[0]["before"] == {"ranges": [["0x10000", "0x4", "shared"]]}


def test_zero_bytes_are_left_out_only_where_memory_is_zero() -> None:
    mem = ((0x10000, bytes(64) + b"\x01\x00\x02" + bytes(100)),)
    steps = (
        HostStep(regs=SENT, mem=mem, expected=(ALIGN_ERROR,)),
        HostStep(regs=SENT, mem=mem, expected=(ALIGN_ERROR,)),
    )
    first, second = vector(tdx_case(steps=steps))["steps"]
    assert first["mem"] == [["0x10040", "010002"]]
    assert second["mem"] == [["0x10000", mem[0][1].hex()]]


def test_a_guest_case_as_a_script() -> None:
    found = vector(guest(repeat_last=True, done=None, calls=(1, 4), must_not_believe=((512, 514),)))
    assert found["script"] == {
        "convert": {"gpa": "0x200000", "pages": "0x2", "to": "shared"},
        "turns": [{"do": "say", "fields": {"status": "0x1"}}],
        "then": "repeat",
        "expect": {"done": None, "calls": [1, 4], "must_not_believe": [["0x200000", "0x2"]]},
    }


@pytest.mark.parametrize(
    ("case", "wanted"),
    [
        (tdx_case(), True),
        (tdx_case(steps=(HostStep(regs=SENT, inject=Inject(fault="stop-after"), expected=(ALIGN_ERROR,)),)), False),
        (tdx_case(features=("inject",)), False),
        (tdx_case(steps=()), False),
        (guest(), True),
        (
            replace(guest(), script=GuestScript(gpa=0, pages=1, to="shared", turns=(GuestTurn(say={"x": "gpa + 1"}),))),
            False,
        ),
        (
            replace(
                guest(),
                script=GuestScript(gpa=0, pages=1, to="shared", turns=(GuestTurn(inject=Inject(fault="vmm-error")),)),
            ),
            False,
        ),
    ],
    ids=["host", "injected step", "needs inject", "no step", "guest", "calculated answer", "injected turn"],
)
def test_which_cases_can_be_vectors(case: Case, wanted: bool) -> None:
    assert usable(case) is wanted


def test_files_manifest_and_schema(tmp_path: Path) -> None:
    manifest = write_vectors(tmp_path, [*generated(), tdx_case(), guest(done=None)])
    names = {entry["name"] for entry in manifest["files"]}
    assert names == {path.name for path in tmp_path.iterdir()} - {MANIFEST}
    assert {"tdx-map-gpa@ghci-1.5.host.json", "kvm-page-enc-status@v10.guest.json", SCHEMA} <= names
    for entry in manifest["files"]:
        data = (tmp_path / entry["name"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == entry["sha256"]
        assert len(data) == entry["size"]
        if entry["name"] != SCHEMA:
            content = json.loads(data)
            Draft202012Validator(schema()).validate(content)
            assert canonical(content).encode() == data
            assert sum(len(group["tests"]) for group in content["groups"]) == entry["numberOfTests"]
    assert manifest["numberOfTests"] == sum(entry.get("numberOfTests", 0) for entry in manifest["files"])
    assert json.loads((tmp_path / MANIFEST).read_text()) == manifest
    assert check(tmp_path) == ()


def test_a_second_run_gives_the_same_bytes_and_no_path(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    write_vectors(one, generated())
    write_vectors(two, iter(generated()))
    for path in one.iterdir():
        data = path.read_bytes()
        assert (two / path.name).read_bytes() == data
        assert str(tmp_path).encode() not in data
        assert str(Path.cwd()).encode() not in data
        assert data.isascii()


def test_rules_and_flags_are_explained() -> None:
    for data in vectors(generated()).values():
        for group in data["groups"]:
            for test in group["tests"]:
                assert set(test["flags"]) <= set(data["notes"])
                assert set(test["rules"]) <= set(data["rules"])
        assert all(data["sources"][rule["source"]]["title"] for rule in data["rules"].values())


def test_every_kind_of_case_has_a_note() -> None:
    assert {case.kind for case in generated()} <= set(NOTES)


def test_what_an_earlier_run_wrote_and_this_one_does_not_is_removed(tmp_path: Path) -> None:
    write_vectors(tmp_path, [tdx_case(), guest()])
    (tmp_path / "mine.txt").write_text("keep")
    write_vectors(tmp_path, [tdx_case()])
    assert not (tmp_path / "tdx-map-gpa@ghci-1.5.guest.json").exists()
    assert (tmp_path / "mine.txt").exists()


def test_a_manifest_cannot_lead_out_of_its_folder(tmp_path: Path) -> None:
    outside = tmp_path / "outside.json"
    outside.write_text("{}")
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / MANIFEST).write_text(json.dumps({"files": [{"name": "../outside.json", "sha256": ""}]}))
    write_vectors(folder, [tdx_case()])
    assert outside.exists()


@pytest.mark.parametrize("bad", [[], [tdx_case(), tdx_case()]], ids=["no-cases", "duplicate-id"])
def test_nothing_is_written_where_the_cases_are_wrong(
    tmp_path: Path, bad: list[Case], request: pytest.FixtureRequest
) -> None:
    with pytest.raises(VectorError) as caught:
        write_vectors(tmp_path / "set", bad)
    assert caught.value.code == request.node.callspec.id
    assert not (tmp_path / "set").exists()


def test_check_finds_drift(tmp_path: Path) -> None:
    write_vectors(tmp_path, [tdx_case(), tdx_case("gone"), guest()])
    assert check(tmp_path, [tdx_case(), tdx_case("gone"), guest()]) == ()
    (found,) = check(tmp_path, [tdx_case(), tdx_case("gone", why="Other words."), guest()])[:1]
    assert found == "tdx-map-gpa@ghci-1.5.host.json is not what the cases give now"
    assert any("TDX-MAPGPA-06.gone is gone" in text for text in check(tmp_path, [tdx_case(), guest()]))
    (tmp_path / "extra.json").write_text("{}")
    (tmp_path / "tdx-map-gpa@ghci-1.5.guest.json").unlink()
    text = "\n".join(check(tmp_path))
    assert "extra.json is not in the manifest" in text
    assert "guest.json cannot be read" in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data["groups"][0]["tests"][0].update(result="either"), "$.groups[0].tests[0]"),
        (lambda data: data["groups"][0]["tests"][0]["steps"][0]["regs"].update(r10="0X1"), "0X1"),
        (lambda data: data.update(numberOfTests=9), "has 1 tests and says 9"),
        (lambda data: data["groups"][0]["tests"].append(data["groups"][0]["tests"][0]), "is in"),
        (lambda data: data["notes"].clear(), "has no note"),
        (lambda data: data["groups"][0]["tests"][0].pop("steps"), "$.groups[0].tests[0]"),
    ],
    ids=["either with one answer", "bad hex", "wrong number", "id twice", "flag without a note", "no steps"],
)
def test_check_refuses_a_file_that_is_wrong(tmp_path: Path, change: Any, words: str) -> None:
    write_vectors(tmp_path, [tdx_case()])
    name = "tdx-map-gpa@ghci-1.5.host.json"
    data = json.loads((tmp_path / name).read_text())
    change(data)
    (tmp_path / name).write_text(json.dumps(data))
    found = check(tmp_path)
    assert any("SHA-256 differs" in text for text in found)
    assert any(words in text for text in found[1:]), found


@pytest.mark.parametrize("content", [None, "no json", "[]", '{"files": [1]}', "[" * 100_000])
def test_check_says_where_there_is_no_manifest(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(VectorError) as caught:
        check(tmp_path)
    assert caught.value.code == "no-manifest"


# -- the consumer -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def consumer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hv_vector_consumer", CONSUMER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def page_enc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vectors")
    write_vectors(folder, cases("kvm-page-enc-status", revision="v12"))
    return folder / "kvm-page-enc-status@v12.host.json"


def test_the_consumer_needs_nothing_but_python() -> None:
    tree = ast.parse(CONSUMER.read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert names <= sys.stdlib_module_names


def test_a_right_host_passes_every_vector(consumer: ModuleType, page_enc: Path) -> None:
    ran, failures = consumer.run(page_enc, consumer.page_enc_status)
    assert failures == []
    assert ran == json.loads(page_enc.read_text())["numberOfTests"] > 40


def _no_privilege(host: Any) -> Any:
    return lambda config, ranges, regs, memory, cpl: host(config, ranges, regs, memory, 0)


def _one_page_less(host: Any) -> Any:
    return lambda config, ranges, regs, memory, cpl: host(
        config, ranges, {**regs, "rcx": max(regs["rcx"] - 1, 0)}, memory, cpl
    )


def _polarity(host: Any) -> Any:
    return lambda config, ranges, regs, memory, cpl: host(config, ranges, {**regs, "rdx": 1 - regs["rdx"]}, memory, cpl)


def _scribbles(host: Any) -> Any:
    def answer(*given: Any) -> Any:
        end, regs, memory, ranges = host(*given)
        return end, {**regs, "rbx": 0}, memory, ranges

    return answer


def _writes(host: Any) -> Any:
    return lambda *given: (*host(*given)[:2], {0x5000: 1}, host(*given)[3])


def _stops(host: Any) -> Any:
    return lambda *given: ("stop", *host(*given)[1:])


@pytest.mark.parametrize(
    "liar", [_no_privilege, _one_page_less, _polarity, _scribbles, _writes, _stops], ids=lambda liar: liar.__name__[1:]
)
def test_a_wrong_host_fails(consumer: ModuleType, page_enc: Path, liar: Any) -> None:
    _, failures = consumer.run(page_enc, liar(consumer.page_enc_status))
    assert failures


def test_a_host_that_changes_its_policy_fails(consumer: ModuleType, tmp_path: Path) -> None:
    step = HostStep(regs=SENT, expected=(ALIGN_ERROR, BOTH))
    write_vectors(tmp_path, [tdx_case("one", steps=(step,)), tdx_case("two", steps=(step,))])
    answers = iter([{"r10": (1 << 63) + 2}, {"r10": 1 << 63}])

    def host(config: Any, ranges: Any, regs: Any, memory: Any, cpl: Any) -> Any:
        return "return", {**next(answers), "r11": regs["r12"]}, {}, ranges

    _, failures = consumer.run(tmp_path / "tdx-map-gpa@ghci-1.5.host.json", host)
    assert failures == [
        "tdx-map-gpa@ghci-1.5.host.tdcall.TDX-MAPGPA-06.two: policy unknown-leaf was subfunc-unsupported and is "
        "invalid-operand now"
    ]


def test_nonzero_and_loose_are_honoured(consumer: ModuleType, tmp_path: Path) -> None:
    right = Expected(
        regs={"r10": 0},
        nonzero=(("r10", 0xFF),),
        may_change_mem=((0x5000, 8),),
        state=((1, 9, "shared"),),
        loose=((4, 6),),
    )
    write_vectors(tmp_path, [tdx_case("x", steps=(HostStep(regs=SENT, expected=(right,)),))])
    path = tmp_path / "tdx-map-gpa@ghci-1.5.host.json"
    shared = [[1, 5, "shared"], [6, 9, "shared"]]
    for r10, stored, after, good in (
        (7, {0x5007: 1}, shared, True),
        (0, {}, shared, False),
        (0x100, {}, shared, False),
        (7, {0x5008: 1}, shared, False),
        (7, {}, [[1, 5, "shared"], [7, 9, "shared"]], False),
    ):
        _, failures = consumer.run(path, lambda *_, r=r10, s=stored, a=after: ("return", {"r10": r}, s, a))
        assert (failures == []) is good, (r10, stored, after)


def _flipped(file: dict[str, Any]) -> dict[str, Any]:
    """Flip a bit of what every test wants: of a register, or of an address where any value of the register is right."""
    out = deepcopy(file)
    for group in out["groups"]:
        for test in group["tests"]:
            for one in test["steps"][0]["expect"]:
                if "nonzero" in one:
                    row = one["after"]["ranges"][0]
                    row[0] = hex(int(row[0], 16) ^ 0x1000)
                else:
                    name = next(iter(one["regs"]))
                    one["regs"][name] = hex(int(one["regs"][name], 16) ^ 1)
    return out


def test_a_flipped_bit_in_any_vector_fails_with_its_id(consumer: ModuleType, page_enc: Path, tmp_path: Path) -> None:
    file = json.loads(page_enc.read_text())
    path = tmp_path / "flipped.json"
    path.write_text(json.dumps(_flipped(file)))
    ids = [test["id"] for group in file["groups"] for test in group["tests"]]
    _, failures = consumer.run(path, consumer.page_enc_status)
    assert [text.partition(":")[0] for text in failures] == ids


# -- other forms ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["ndjson", "c"])
def test_other_forms_have_a_manifest_and_are_checked(tmp_path: Path, form: Any) -> None:
    some = [*cases("kvm-page-enc-status", revision="v10")]
    manifest = write_vectors(tmp_path, some, form)
    assert (manifest["form"], manifest["version"]) == (form, VERSION)
    assert check(tmp_path, some) == ()
    path = next(path for path in tmp_path.iterdir() if path.name.startswith("kvm"))
    path.write_text(path.read_text().replace("0x", "0X", 1))
    assert [text.partition(" ")[0] for text in check(tmp_path, some)] == [path.name, path.name]


def test_lines_say_the_same_as_files(tmp_path: Path) -> None:
    made = vectors(generated())
    write_vectors(tmp_path, generated(), "ndjson")
    for name, data in made.items():
        rows = [json.loads(line) for line in (tmp_path / f"{name.removesuffix('json')}ndjson").read_text().splitlines()]
        assert [row["id"] for row in rows] == [test["id"] for group in data["groups"] for test in group["tests"]]
        first = data["groups"][0]
        assert rows[0] == {
            **{key: data[key] for key in ("abi", "revision", "role")},
            **{key: first[key] for key in ("transport", "config")},
            **first["tests"][0],
        }


def test_headers_are_of_hosts_only(tmp_path: Path) -> None:
    with pytest.raises(VectorError) as caught:
        write_vectors(tmp_path, [guest()], "c")
    assert caught.value.code == "no-cases"
    write_vectors(tmp_path, [guest(), tdx_case()], "c")
    assert {path.name for path in tmp_path.iterdir()} == {
        "hvabi_vectors.h", "tdx-map-gpa@ghci-1.5.host.h", "manifest.json",
    }  # fmt: skip


def _run_c(folder: Path, file: dict[str, Any]) -> tuple[int, list[str]]:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler")
    for name, text in texts_of({"a.json": file}, "c").items():
        (folder / name).write_text(text)
    words = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I", str(folder), '-DVECTORS="a.h"']
    program = folder / "consume"
    subprocess.run([compiler, *words, str(CONSUMER.with_suffix(".c")), "-o", str(program)], check=True, timeout=120)
    ran = subprocess.run([program], capture_output=True, text=True, timeout=60, check=False)
    return ran.returncode, ran.stdout.splitlines()


def test_the_consumer_in_c_passes_every_vector_and_fails_every_flipped_one(page_enc: Path, tmp_path: Path) -> None:
    file = json.loads(page_enc.read_text())
    ids = [test["id"] for group in file["groups"] for test in group["tests"]]
    assert _run_c(tmp_path, file) == (0, [f"0 failed of {len(ids)}"])
    code, said = _run_c(tmp_path, _flipped(file))
    assert code == 1
    assert [line.split()[1].rstrip(":") for line in said[:-1]] == ids


def test_a_header_has_what_c_reads_otherwise_in_octal() -> None:
    case = tdx_case(why='A "quote", a \\, what?\\?/ and an accent é in one.')
    text = texts_of(vectors([case]), "c")["tdx-map-gpa@ghci-1.5.host.h"]
    assert '"A \\042quote\\042, a \\134, what\\077\\134\\077/ and an accent \\303\\251 in one."' in text


# -- versions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "step", "reason"),
    [
        ([tdx_case()], [tdx_case()], "none", ""),
        ([tdx_case()], [tdx_case(why="Other words.")], "patch", "has other words"),
        ([tdx_case()], [tdx_case(), tdx_case("more")], "minor", "TDX-MAPGPA-06.more is new"),
        ([tdx_case(), tdx_case("more")], [tdx_case()], "major", "TDX-MAPGPA-06.more is gone"),
        ([tdx_case()], [tdx_case(before=((16, 20, "shared"),))], "major", "sends or wants something else"),
        ([guest()], [guest(done=None)], "major", "sends or wants something else"),
    ],
    ids=["same", "words", "new id", "id gone", "state", "guest"],
)
def test_how_far_the_version_moves(old: list[Case], new: list[Case], step: str, reason: str) -> None:
    found = difference(vectors(old).values(), vectors(new).values())
    assert found.step == step
    assert reason in "".join(found.reasons[:1])


def test_versions() -> None:
    assert [least("1.2.3", step) for step in ("major", "minor", "patch", "none")] == [
        "2.0.0",
        "1.3.0",
        "1.2.4",
        "1.2.3",
    ]


def test_check_asks_for_the_version_that_a_change_needs(tmp_path: Path) -> None:
    write_vectors(tmp_path, [tdx_case()])
    text = check(tmp_path, [tdx_case(), tdx_case("more")])[-1]
    assert text.startswith(f"the set is {VERSION} and must be {least(VERSION, 'minor')} at least, for the id ")
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    (tmp_path / MANIFEST).write_text(json.dumps({**manifest, "version": "0.9.9"}))
    assert not any("must be" in text for text in check(tmp_path, [tdx_case(), tdx_case("more")]))


def test_where_tests_come_from() -> None:
    data = vectors([tdx_case()])["tdx-map-gpa@ghci-1.5.host.json"]
    (test,) = data["groups"][0]["tests"]
    assert test["source"] == "spec/intel/tdx-map-gpa.yaml#TDX-MAPGPA-06"
    root = Path(__file__).parents[2]
    assert data["provenance"][0]["file"] == "spec/intel/tdx-map-gpa.yaml"
    for item in data["provenance"]:
        assert hashlib.sha256((root / item["file"]).read_bytes()).hexdigest() == item["sha256"]
