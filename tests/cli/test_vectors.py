"""hvabi vectors: what is written, and what --check finds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Run

ABI = "tdx-map-gpa"


def test_vectors_are_written_and_checked(hv: Run, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "vectors"
    ran = hv("vectors", "-o", str(folder), ABI)
    assert ran.code == 0
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "manifest.json", "vectors.schema.json", f"{ABI}@ghci-1.5.host.json", f"{ABI}@ghci-1.5.guest.json",
    }  # fmt: skip
    manifest = json.loads((folder / "manifest.json").read_text())
    assert f"{manifest['numberOfTests']} tests in 2 files" in ran.out
    good = hv("vectors", "-o", str(folder), ABI, "--check")
    assert (good.code, good.out) == (0, f"good: {folder} is what this version writes\n")


def test_a_changed_file_is_found(hv: Run, tmp_path: Path) -> None:
    assert hv("vectors", "-o", str(tmp_path), ABI).code == 0
    file = tmp_path / f"{ABI}@ghci-1.5.host.json"
    file.write_text(file.read_text().replace("0x1000", "0x2000", 1))
    ran = hv("vectors", "-o", str(tmp_path), ABI, "--check")
    assert ran.code == 1
    assert f"{file.name} is not the file that the manifest names" in ran.out
    assert "FAILED: " in ran.out
    assert json.loads(hv("vectors", "-o", str(tmp_path), ABI, "--check", "--json").out)["good"] is False
    assert hv("vectors", "-o", str(tmp_path), ABI).code == 0
    assert hv("vectors", "-o", str(tmp_path), ABI, "--check").code == 0


def test_json_is_the_manifest(hv: Run, tmp_path: Path) -> None:
    ran = hv("vectors", "-o", str(tmp_path), ABI, "--json")
    assert json.loads(ran.out) == json.loads((tmp_path / "manifest.json").read_text())


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "Missing option '-o'"),
        (["-o", "x", "tdx-mapgpa"], "did you mean tdx-map-gpa?"),
        (["-o", "{empty}", ABI, "--check"], "has no manifest.json"),
        (["-o", "{file}", ABI], "{file}: "),
    ],
    ids=["no folder", "unknown abi", "no manifest", "a file"],
)
def test_used_wrongly(hv: Run, tmp_path: Path, args: list[str], said: str) -> None:
    file = tmp_path / "file"
    file.write_text("")
    (tmp_path / "empty").mkdir()
    fill = {"empty": str(tmp_path / "empty"), "file": str(file)}
    ran = hv("vectors", *(text.format(**fill) for text in args))
    assert (ran.code, ran.out) == (2, "")
    assert said.format(**fill) in ran.err
