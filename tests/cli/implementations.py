"""Small implementations under test as scripts: the bundled session with one line of it gone wrong."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

SCRIPT = """\
import sys
from hvabi.conformance.iut import Session
session = Session()
for line in sys.stdin:
    answer = session.handle(line.rstrip("\\n"))
    if answer is not None:
        sys.stdout.write({change})
        sys.stdout.flush()
    if '"cmd":"stop"' in line.replace(" ", ""):
        break
"""

RIGHT = "answer"
MISALIGNED_IS_INVALID = """answer.replace('"r10":"0x8000000000000002"', '"r10":"0x8000000000000000"')"""
"""Breaks TDX-MAPGPA-06, a must."""
UNKNOWN_LEAF_IS_BUSY = """answer.replace('"r10":"0x8000000000000003"', '"r10":"0x8000000000000001"')"""
"""Breaks TDX-MAPGPA-07, a should."""
DECLARES_KVM = """answer.replace('"tdx-map-gpa":{', '"tdx-map-gpa":{"profile":"linux-kvm-6.16",')"""
ONE_ABI = """answer if '"abis"' not in answer else answer.replace('"ghcb-psc"', '"our-own"').replace('"kvm-', '"my-')"""


def write_iut(folder: Path, change: str = RIGHT, name: str = "iut.py") -> str:
    """Write an implementation whose answers go through an expression, and return its connector."""
    path = folder / name
    path.write_text(SCRIPT.format(change=change))
    return f"cmd:{shlex.quote(sys.executable)} {shlex.quote(str(path))}"
