"""The walk-through of CONTRIBUTING.md, done to the letter: its YAML is written down and its commands are run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

TEXT = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
WALK = TEXT[TEXT.index("## Add an ABI in an hour") : TEXT.index("## House rules")]
YAML = re.findall(r"^```yaml\n(.*?)^```$", WALK, re.M | re.S)
SHELL = re.findall(r"^```sh\n(.*?)^```$", WALK, re.M | re.S)
COMMANDS = [line.partition(" #")[0].strip() for line in SHELL[0].splitlines() if line.startswith("hvabi ")]


def run(folder: Path, command: str, **more: str) -> subprocess.CompletedProcess[str]:
    words = shlex.split(command)
    assert words[0] == "hvabi"
    script = "from hvabi.cli.main import run; raise SystemExit(run())"
    env = {**os.environ, "HVABI_SPEC": str(folder), **more}
    return subprocess.run(
        [sys.executable, "-c", script, *words[1:]],
        cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("acme")
    (made / "acme-window.yaml").write_text(YAML[0], encoding="utf-8")
    return made


def test_the_page_has_one_file_and_the_commands() -> None:
    assert (len(YAML), len(SHELL)) == (1, 1)
    assert "export HVABI_SPEC=$PWD" in SHELL[0]
    assert [shlex.split(line)[1] for line in COMMANDS] == [
        "lint", "show", "decode", "verify", "conform", "coverage", "smoke",
    ]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_good(folder: Path, command: str) -> None:
    done = run(folder, command)
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-1000:]}"
    assert "acme-window" in done.stdout or command.startswith("hvabi lint"), done.stdout


def test_what_is_decoded(folder: Path) -> None:
    """16 KiB granules, 1 is shared: two granules are eight pages."""
    (decode,) = [command for command in COMMANDS if "decode" in command]
    assert "make shared: 8 pages at 0x40000000" in run(folder, decode).stdout


@pytest.mark.parametrize(
    ("old", "new", "command", "told"),
    [
        ("to: GRANULE, means", "to: GRANUL, means", "hvabi lint acme-window.yaml", "did you mean `GRANULE`?"),
        (
            'map: {"1": shared, "0": private}',
            'map: {"0": shared, "1": private}',
            "hvabi verify acme-window",
            "open two granules: pages that are not private",
        ),
    ],
    ids=["typing-error", "polarity"],
)
def test_a_mistake_is_found(tmp_path: Path, old: str, new: str, command: str, told: str) -> None:
    assert YAML[0].count(old) == 1
    (tmp_path / "acme-window.yaml").write_text(YAML[0].replace(old, new), encoding="utf-8")
    done = run(tmp_path, command)
    assert done.returncode == 1, done.stdout
    assert told in " ".join((done.stdout + done.stderr).split())


def test_a_folder_that_is_none_and_a_name_that_is_taken(tmp_path: Path) -> None:
    missing = run(tmp_path, "hvabi list", HVABI_SPEC=str(tmp_path / "nowhere"))
    assert missing.returncode == 2
    assert "HVABI_SPEC" in missing.stderr
    (tmp_path / "tdx-map-gpa.yaml").write_text(YAML[0], encoding="utf-8")
    taken = run(tmp_path, "hvabi list")
    assert taken.returncode == 2
    assert "tdx-map-gpa" in taken.stderr
    assert "Traceback" not in missing.stderr + taken.stderr
