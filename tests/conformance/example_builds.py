"""Builds the example implementations and drives them over pipes."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.exchanges import NOTHING, PREFIX, Script, matches, sent

EXAMPLES = Path(__file__).parents[2] / "examples"
LANGUAGES = ("gcc", "clang", "rust")
C_FLAGS = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O0")
SECONDS = 60.0
"""Longest time of a build or of a run."""


def tool(language: str) -> str:
    """Return the compiler of a language; skip the test where it is not installed."""
    name = {"rust": "rustc"}.get(language, language)
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def build(language: str, folder: Path, *, bug: str | None = None) -> str:
    """Build an example, with a planted bug if one is named as in examples/README.md, and return its path."""
    out = folder / f"my-vmm-{language}-{bug or 'good'}"
    if language == "rust":
        flags = [] if bug is None else ["--cfg", f'bug="{bug}"']
        command = [
            tool(language),
            "-D",
            "warnings",
            "-C",
            "opt-level=1",
            *flags,
            str(EXAMPLES / "rust/my_vmm.rs"),
            "-o",
            str(out),
        ]
    else:
        flags = [] if bug is None else ["-DBUG_" + bug.upper().replace("-", "_")]
        command = [tool(language), *C_FLAGS, *flags, str(EXAMPLES / "c/my_vmm.c"), "-o", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, f"the compiler warns:\n{done.stderr}"
    return str(out)


def run(program: str, data: bytes) -> list[dict[str, Any]]:
    """Give a program all of its input at once; return its answers. It must end well and print whole frames only."""
    done = subprocess.run([program], input=data, capture_output=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    return parse(done.stdout)


def parse(output: bytes) -> list[dict[str, Any]]:
    """Return the objects of answer lines."""
    text = output.decode("utf-8")
    assert not text or text.endswith("\n")
    lines = text.splitlines()
    assert all(line.startswith(PREFIX) for line in lines)
    return [json.loads(line[len(PREFIX) :]) for line in lines]


def differences(script: Script, answers: list[dict[str, Any]]) -> list[tuple[int, dict[str, Any]]]:
    """Return turn number and answer of every answer that is not the expected one."""
    expected = [(number, turn) for number, turn in enumerate(script.turns) if turn[1] != NOTHING]
    assert len(answers) == len(expected), f"{len(answers)} answers to {len(expected)} commands"
    wrong = []
    for (number, (what, wanted)), found in zip(expected, answers, strict=True):
        body, want = dict(found), dict(wanted)
        ident = body.pop("id")
        # A raw line carries an id of its own, or none.
        right_id = ident == want.pop("id", number if isinstance(what, dict) else ident)
        if not right_id or not (want == {"ok": ...} or matches(body, want)):
            wrong.append((number, body))
    return wrong


class Peer:
    """A running example, one command at a time: it must answer each without waiting for more input."""

    def __init__(self, program: str) -> None:
        self.process = subprocess.Popen(
            [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self.count = 0

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def ask(self, command: dict[str, Any]) -> dict[str, Any]:
        """Send a command and return its answer without the id."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.count += 1
        self.process.stdin.write(sent(command, self.count))
        self.process.stdin.flush()
        (answer,) = parse(self.process.stdout.readline())
        assert answer.pop("id") == self.count
        return answer

    def ok(self, command: dict[str, Any]) -> dict[str, Any]:
        """Send a command that must be done."""
        answer = self.ask(command)
        assert "ok" in answer, answer
        found: dict[str, Any] = answer["ok"]
        return found
