"""The examples on the protocol page are right: each message fits its schema, and the sessions run as printed."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from hvabi.conformance.frame import parse_line
from hvabi.conformance.iut import serve
from tests.conformance.test_protocol_schema import told

PAGE = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")
BLOCKS = [
    re.sub(r"\n {3}", "", block).splitlines()
    for block in re.findall(r"```\n(.*?)```", PAGE, re.DOTALL)
    if "→" in block or "←" in block
]
MESSAGES = [line for block in BLOCKS for line in block if "…" not in line]

# Commands before a block that does not begin at the beginning.
TDX = {"abi": "tdx-map-gpa", "revision": "ghci-1.5", "transport": "tdcall"}
KVM = {"abi": "kvm-map-gpa-range", "revision": "v1", "transport": "vmcall64"}
HELLO = {"cmd": "hello", "min": 1, "max": 1, "runner": "test", "features": ["exits", "local-steps"]}
SESSIONS: dict[str, list[dict[str, Any]]] = {
    '"reset","ranges":[["0x100000000"': [],
    '"convert","gpa":"0x100001000","pages":"0x4","to":"shared"': [],
    '"fault":"stop-after"': [{"cmd": "configure", **TDX, "role": "host"}],
    '"exit":{"abi"': [HELLO, {"cmd": "configure", **KVM, "role": "host"}],
    '"step":"accept"': [HELLO, {"cmd": "configure", **TDX, "role": "guest"}],
    '"min":2': [],
}


def objects(line: str) -> Any:
    return json.loads(line[1:])


def comparable(answer: dict[str, Any]) -> dict[str, Any]:
    """Leave out what is each implementation's own: texts, and what it says of itself."""
    if "protocol" in answer.get("ok", {}):
        return {"id": answer["id"]}
    return {key: ... if key in ("unsupported", "error") else value for key, value in answer.items()}


def test_there_are_examples() -> None:
    assert len(MESSAGES) > 25


@pytest.mark.parametrize("line", MESSAGES, ids=range(len(MESSAGES)))
def test_message_fits_its_schema(line: str) -> None:
    message = objects(line)
    if line.startswith("→"):
        assert told(f"command-{message['cmd']}", message) == []
    else:
        names = ("hello", "configure", "call", "convert", "query")
        assert any(told(f"answer-{name}", message) == [] for name in names)


@pytest.mark.parametrize("mark", SESSIONS)
def test_session_runs_as_printed(mark: str) -> None:
    (block,) = [block for block in BLOCKS if any(mark in line and "…" not in mark for line in block)][:1]
    before = [{"id": -number, **command} for number, command in enumerate(SESSIONS[mark], 1)]
    commands = [*before, *(objects(line) for line in block if line.startswith("→"))]
    data = "".join(f"@hvabi {json.dumps(command)}\n" for command in commands)
    sink = io.BytesIO()
    serve(io.BytesIO(data.encode()), sink)
    found = [parse_line(line) or {} for line in sink.getvalue().decode().splitlines()][len(before) :]
    printed = [objects(line) if "…" not in line else None for line in block if line.startswith("←")]
    assert len(found) == len(printed)
    for one, other in zip(found, printed, strict=True):
        assert other is None or comparable(one) == comparable(other)
