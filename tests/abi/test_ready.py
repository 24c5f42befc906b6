"""Specifications read beforehand: the same as the YAML, and never in its way."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from hvabi.abi import ready
from hvabi.abi.errors import SpecError
from hvabi.abi.registry import bundled
from hvabi.abi.source import load_file, plain
from hvabi.conformance.verify import _changed

if TYPE_CHECKING:
    from pathlib import Path

FILES = sorted(ready.spec_root().glob("*/*.yaml"))


@pytest.fixture
def specs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the specifications, in place of the bundled ones, with its ready files."""
    root = tmp_path / "spec"
    shutil.copytree(ready.spec_root(), root, ignore=shutil.ignore_patterns(ready.FOLDER))
    monkeypatch.setattr(ready, "spec_root", lambda: root)
    assert ready.renew(write=True)
    return root


def in_order(value: object) -> object:
    """Mappings as lists of pairs: the order of keys counts too."""
    if isinstance(value, dict):
        return [(key, in_order(item)) for key, item in value.items()]
    return [in_order(item) for item in value] if isinstance(value, list) else value


def test_ready_files_hold_what_the_yaml_holds(specs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    yaml = {path: plain(load_file(path).root) for path in sorted(specs.glob("*/*.yaml"))}
    monkeypatch.setattr("hvabi.abi.source.load_file", None)  # the YAML is not read
    assert len(yaml) == len(FILES) > 20
    for path, data in yaml.items():
        assert in_order(ready.read_plain(path)) == in_order(data), path


def test_an_edited_file_counts_at_once(specs: Path) -> None:
    path = specs / "intel" / "tdx-map-gpa.yaml"
    path.write_text(path.read_text().replace("abi: tdx-map-gpa", "abi: tdx-map-gpb", 1))
    found = ready.read_plain(path)
    assert isinstance(found, dict)
    assert found["abi"] == "tdx-map-gpb"
    path.write_text("abi: [")
    with pytest.raises(SpecError):
        ready.read_plain(path)


def test_a_file_elsewhere_is_read_itself(specs: Path, tmp_path: Path) -> None:
    path = tmp_path / "tdx-map-gpa.yaml"
    path.write_text("abi: mine")
    assert ready.read_plain(path) == {"abi": "mine"}


@pytest.mark.parametrize("text", ["", '{"abi": "tdx', "\xff"], ids=["empty", "half", "no JSON"])
def test_a_damaged_ready_file_is_no_ready_file(specs: Path, text: str) -> None:
    for path in (specs / ready.FOLDER).iterdir():
        path.write_text(text, encoding="latin-1")
    path = specs / "intel" / "tdx-map-gpa.yaml"
    assert ready.read_plain(path) == plain(load_file(path).root)


def test_what_differs_is_found_and_renewed(specs: Path) -> None:
    assert not ready.renew(write=False)
    folder = specs / ready.FOLDER
    first = sorted(folder.iterdir())[0]
    first.write_text(json.dumps({"abi": "another"}))
    assert ready.renew(write=False)
    assert ready.renew(write=True)
    assert not ready.renew(write=False)
    path = specs / "intel" / "tdx-map-gpa.yaml"
    path.write_text(path.read_text() + "# more\n")
    assert ready.renew(write=False)
    assert ready.renew(write=True)
    assert len(list(folder.iterdir())) == len(FILES)  # the old one went away


def test_without_ready_files_there_is_nothing_to_say(specs: Path) -> None:
    shutil.rmtree(specs / ready.FOLDER)
    assert not ready.renew(write=False)
    assert not (specs / ready.FOLDER).exists()


def test_verify_says_where_somebody_changed_a_ready_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    abi = bundled("ghcb-psc")
    monkeypatch.setattr(ready, "FOLDER", str(tmp_path))  # an absolute path stays one
    for name, text in ready.ready_files().items():
        (tmp_path / name).write_text(text)
    assert _changed(abi) == []
    for name, text in ready.ready_files().items():
        (tmp_path / name).write_text(text.replace("0xff0", "0xff8").replace("4080", "4088"))
    assert {path.name for path in _changed(abi)} & {"ghcb-psc.yaml", "ghcb.yaml"}


def test_decode_reads_no_yaml(tmp_path: Path) -> None:
    (tmp_path / "ready").mkdir()
    for name, text in ready.ready_files().items():
        (tmp_path / "ready" / name).write_text(text)
    code = (
        "import sys\nfrom hvabi.abi import ready\nready.FOLDER = sys.argv.pop(1)\n"
        "from hvabi.cli.main import cli\ntry:\n    cli(sys.argv[1:])\n"
        "except SystemExit as end:\n    print('END', end.code)\n"
        "print('MODULES', *sys.modules)"
    )
    args = ["decode", "tdx-map-gpa", "r10=0", "r11=0x10001", "r12=0x800100001000", "r13=0x1000"]
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "ready"), *args], capture_output=True, timeout=60, check=True
    )
    said, _, modules = ran.stdout.decode().partition("END 0\nMODULES ")
    assert "make shared: 1 page at 0x100001000" in said
    assert not {"yaml", "construct", "jsonschema", "hvabi.abi.source"} & set(modules.split())
    assert "hvabi.abi.readings" in modules.split()
