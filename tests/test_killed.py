"""hvabi killed at any moment leaves no half-written file. `.ci/slow` tries every moment of every command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from tests.killed import COMMANDS

ROOT = Path(__file__).parents[1]
KILLED = "import sys; from tests.killed import tried; print(*tried(sys.argv[1], int(sys.argv[2])))"


def killed(name: str, every: int) -> str:
    """Return moments and what was wrong. In a process of its own: a fork of this one would have its threads."""
    words = [sys.executable, "-c", KILLED, name, str(every)]
    ran = subprocess.run(words, capture_output=True, text=True, timeout=900, check=False, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr[-2000:]
    return ran.stdout


def test_a_command_that_is_killed_leaves_the_old_files_or_the_new_ones() -> None:
    moments, _, wrong = killed("gen", 4).strip().partition(" ")
    assert int(moments) >= 4
    assert wrong == "[]"


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_every_moment_of_every_command(name: str) -> None:
    moments, _, wrong = killed(name, 1).strip().partition(" ")
    assert int(moments) > 15
    assert wrong == "[]"


PLANTED = """
from pathlib import Path
import tests.killed as killed
from hvabi.abi import whole_file
def write_whole(path, text):
    Path(path).write_text(text)
whole_file.write_whole = write_whole
killed.COMMANDS = {"replay": tuple([*words[:2], "--plot", "OUT/r.svg"] for words in killed.COMMANDS["replay"])}
print(killed.tried("replay"))
"""


def test_a_command_that_writes_into_its_file_is_found() -> None:
    words = [sys.executable, "-c", PLANTED]
    ran = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False, cwd=ROOT)
    assert "is opened for writing" in ran.stdout, ran.stderr[-2000:]


WRITER = """
import sys
from hvabi.abi.whole_file import writing_whole
print("ready", flush=True)
sys.stdin.readline()
for turn in range(10**6):
    with writing_whole(sys.argv[1]) as stream:
        for part in range(64):
            stream.write(bytes([turn % 251]) * 4096)
"""


def test_a_writer_that_is_killed_leaves_a_whole_file(tmp_path: Path) -> None:
    rng = Random(1)
    place = tmp_path / "file"
    for _ in range(6):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdin is not None
            assert writer.stdout is not None
            writer.stdout.readline()
            writer.stdin.write(b"\n")
            writer.stdin.flush()
            with pytest.raises(subprocess.TimeoutExpired):
                writer.wait(0.02 + rng.random() * 0.2)
            writer.kill()
        if place.exists():
            data = place.read_bytes()
            assert (len(data), len(set(data))) == (64 * 4096, 1), "a mixture of two, or a part of one"
    assert place.exists()


SIGNS = ("write_text(", "write_bytes(", 'open("w', 'open("a', "os.fdopen(")


def test_nothing_writes_a_file_any_other_way() -> None:
    """What people keep is written as a whole. The rest is named here, with what it is."""
    streams = {
        "cli/replay.py": "--follow is read along, line by line",
        "conformance/transcript.py": "line by line: a run that was killed shows how far it came",
        "publish/folder.py": "a folder that takes its name when it is whole",
        "abi/whole_file.py": "the way itself",
    }
    root = ROOT
    found = set()
    for top in ("abi", "adapters", "backend", "cli", "conformance", "publish", "traces"):
        for path in (root / top).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            if any(sign in text for sign in SIGNS):
                found.add(path.relative_to(root).as_posix())
    assert found == streams.keys(), found ^ streams.keys()
