"""Implementations under test for the runner's own tests: a small one as a script, and what it can do wrong."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from hvabi.conformance.case import Case, Expected, HostStep, Inject

if TYPE_CHECKING:
    from collections.abc import Sequence

# Answers every call with r10 = 0 and every query with nothing; `on_call` may do something else first.
PEER = """
import json, os, signal, subprocess, sys, time
P = "@hvabi "
MARK = %(mark)r
def say(**value):
    sys.stdout.write(P + json.dumps(value) + "\\n")
    sys.stdout.flush()
HELLO = {"protocol": 1, "name": "toy", "version": "1", "features": %(features)r, "abis": {"tdx-map-gpa": {
    "revisions": ["ghci-1.5"], "transports": ["tdcall"], "roles": ["host"]}}}
def plain(command, ident):
    if command == "hello": say(id=ident, ok=HELLO)
    elif command == "call": say(id=ident, ok={"end": "return", "regs": {"r10": "0x0"}})
    elif command == "query": say(id=ident, ok={"ranges": [], "facts": {}})
    else: say(id=ident, ok={})
def on_start():
%(start)s
def on_call(number, ident):
%(body)s
on_start()
for line in sys.stdin:
    if not line.startswith(P):
        continue
    got = json.loads(line[len(P):])
    command, ident = got["cmd"], got["id"]
    if command == "call" and on_call(int(got["regs"]["r12"], 16), ident):
        continue
    plain(command, ident)
    if command == "stop":
        break
"""


def write_peer(
    folder: Path, body: str, *, start: str = "pass", mark: str = "", features: Sequence[str] = ("inject",)
) -> str:
    """Write a peer and return its connector. `body` returns True where it has answered by itself, or never will."""
    path = folder / "peer.py"
    fill = {"mark": mark, "body": _block(body), "start": _block(start), "features": list(features)}
    path.write_text(PEER % fill)
    return f"cmd:{sys.executable} -I -S {path} {mark}".strip()


def _block(code: str) -> str:
    return textwrap.indent(textwrap.dedent(code).strip("\n") or "pass", "    ")


def host_case(number: int, *expected: Expected, inject: Inject | None = None, **changes: object) -> Case:
    """Return a host case whose call has `number` in r12."""
    values: dict[str, object] = {
        "id": f"tdx-map-gpa@ghci-1.5.host.tdcall.TDX-MAPGPA-06.toy-{number}",
        "abi": "tdx-map-gpa",
        "revision": "ghci-1.5",
        "role": "host",
        "transport": "tdcall",
        "rules": ("TDX-MAPGPA-06",),
        "level": "must",
        "why": "A toy.",
        "kind": "rule",
        "steps": (HostStep(regs={"r12": number}, expected=expected or (Expected(regs={"r10": 0}),), inject=inject),),
    }
    return Case(**{**values, **changes})  # type: ignore[arg-type]  # a table of keywords


def host_cases(count: int) -> list[Case]:
    return [host_case(number) for number in range(count)]


def processes_with(mark: str) -> list[int]:
    """Return the ids of live processes that have a word in their command line."""
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            try:
                line = (place / "cmdline").read_bytes()
                state = (place / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if mark.encode() in line.split(b"\0") and state != "Z":
                found.append(int(place.name))
    return found
