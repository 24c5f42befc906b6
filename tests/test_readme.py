"""What the README shows is what the commands print, and its Python example runs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from hvabi.publish.tables import fill

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"```\n\$ (hvabi .*?)\n(.*?)\n```", README, flags=re.S)


@pytest.mark.parametrize(("line", "output"), SHOWN, ids=[line.split()[1] for line, _ in SHOWN])
def test_the_output_shown_is_what_the_command_prints(line: str, output: str) -> None:
    words = [sys.executable, "-m", "hvabi.cli.main", *shlex.split(line)[1:]]
    done = subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False, env={"COLUMNS": "100", "PATH": ""}
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip() == output


def test_two_commands_are_shown() -> None:
    assert len(SHOWN) == 2


def test_the_python_example_runs() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    names: dict[str, object] = {}
    exec(code, names)
    assert names["wire"].hex() == "000000000000000000e0001f00002000"  # type: ignore[attr-defined]  # a Wire


def test_generated_parts_are_up_to_date() -> None:
    assert fill(README, "README.md") == README
