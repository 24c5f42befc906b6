"""Entry points around a run of cases: what an implementation answers, and the files that runs and vectors leave.

Also the command line as a whole, for the commands that write no file and start no program.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import sys
import zlib
from collections import deque
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch
from xml.etree import ElementTree as ET

from hvabi.abi.errors import HvAbiError, UsageError
from hvabi.cli.main import COMMANDS, cli
from hvabi.cli.offer import plan, recorded
from hvabi.conformance.catalogue import every_case
from hvabi.conformance.frame import PREFIX, parse_line
from hvabi.conformance.inprocess import ObjectConnection
from hvabi.conformance.iut import Session
from hvabi.conformance.report import html, junit, ktap, terminal
from hvabi.conformance.report import json as json_report
from hvabi.conformance.result import CaseResult, RunResult
from hvabi.conformance.stream import LineFinder, PeerLost, PeerTimeout, Tail
from hvabi.conformance.supervise import GivenUp, Supervisor
from hvabi.conformance.transcript import ReplayConnector, read_transcript, resend
from hvabi.conformance.vector_check import check
from hvabi.conformance.vectors import VectorError
from hvabi.evidence.live.observations import changes, from_transcripts, read
from hvabi.publish.vector_list import read_vectors
from tests.entry import Entry, as_file, corpus

if TYPE_CHECKING:
    from hvabi.conformance.case import Case
    from hvabi.conformance.connect import Connector

ABIS = ("kvm-page-enc-status", "tdx-map-gpa", "pef-uv-share", "ghcb-msr-psc", "kvm-exit-memory-fault")
"""Whose cases are run: small ones, of registers, of exits, of both byte orders."""
READ_ONLY = ("list", "show", "explain", "encode", "decode", "translate")
"""Commands that are tried with any arguments: they write no file and start no program."""


@cache
def cases() -> dict[str, Case]:
    """Return the cases that are run, by id."""
    return {case.id: case for case in every_case(ABIS)}


def _case(text: bytes) -> Case:
    """Return the case of that id, else any: the same for the same text."""
    every = cases()
    found = every.get(text.decode("utf-8", "replace"))
    return found or list(every.values())[zlib.crc32(text) % len(every)]


# -- an implementation under test --------------------------------------------------------------------------------


class Peer:
    """Answers the n-th command with the n-th piece; with what is right, where that is empty or there are no more.

    In a piece ``$ID`` is the number of the command. ``!`` is the end of the connection, ``?`` is silence.
    """

    name = "fuzz"
    parallel = False

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = deque(pieces)
        self._open()

    def _open(self) -> None:
        self._session = Session(exits=True, local_steps=True)
        self._log = Tail()
        self._finder = LineFinder(self._log)
        self._queue: deque[bytes | None] = deque()
        self._lost = False

    def open(self) -> Peer:
        self._open()
        return self

    def send(self, line: str, seconds: float) -> None:
        piece = self._pieces.popleft() if self._pieces else b""
        if not piece:
            piece = (self._session.handle(line.rstrip("\n")) or "").encode()
        command = parse_line(line)
        assert command is not None
        self._lost = piece == b"!"
        if piece not in (b"!", b"?"):
            text = piece.replace(b"$ID", str(command["id"]).encode())
            self._queue += self._finder.feed(text if text[-1:] == b"\n" else text + b"\n")

    def receive(self, seconds: float) -> str | None:
        if self._lost:
            raise PeerLost("fuzz closed the connection", how="closed the connection")
        if not self._queue:
            raise PeerTimeout("no answer", seconds=seconds)
        line = self._queue.popleft()
        return None if line is None else line.decode("utf-8", "replace").rstrip("\r")

    def take_log(self) -> str:
        return self._log.take()

    def take_stderr(self) -> str:
        return ""

    def close(self) -> None:
        self._queue.clear()


def _answers(data: bytes) -> None:
    """A case's id, and pieces; each ends with a zero byte. The verdict is put into every report."""
    name, *pieces = data.split(b"\0")
    result = _run(Peer(pieces), _case(name))
    run = RunResult(peer="fuzz", connector="fuzz", profile="spec", seed=0, results=(result,))
    ET.fromstring(junit.render(run))
    json.loads(json_report.render(run))
    for text in (ktap.render(run), terminal.render(run), html.render(run) if len(data) % 32 == 0 else ""):
        text.encode()
        assert "\x1b" not in text


def _run(connector: Connector, case: Case) -> CaseResult:
    supervisor = Supervisor(connector, features=frozenset(("exits", "local-steps")))
    try:
        with patch("time.sleep"):  # before it is started again
            with contextlib.suppress(HvAbiError):  # one that cannot be started; a run says so too, in its own words
                plan((), None, supervisor.open())
            result = supervisor.run(case)
    finally:
        supervisor.close()
    assert not result.message.startswith("the runner failed"), result.message
    return result


# -- files of runs -----------------------------------------------------------------------------------------------


_CASE = re.compile(rb'"connector": *"--case ([^"]*)"')


class _Builtin:
    name, parallel = "builtin", False

    def open(self) -> ObjectConnection:
        return ObjectConnection(Session(), "builtin")

    def close(self) -> None:
        """Nothing is held."""


def _transcript(data: bytes) -> None:
    """As `hvabi conform --replay` reads it, with and without an implementation, and as `hvabi live --observe` does."""
    path = as_file(data, "transcript")
    for _ in read_transcript(path):
        pass
    recorded(str(path))
    for difference in resend(path, _Builtin()):
        assert difference.number
    with contextlib.suppress(UsageError):
        from_transcripts([path])
    name = _CASE.search(data)
    with contextlib.suppress(GivenUp):
        _run(ReplayConnector(path), _case(name[1] if name else b""))


@cache
def _observed() -> Path:
    return as_file(corpus("observations")[0], "before")


def _observations(data: bytes) -> None:
    """As `hvabi live --compare` reads it."""
    after = read(as_file(data))
    for change in changes(read(_observed()), after):
        json.dumps([change.request, change.before, change.after])


VECTORS = "kvm-page-enc-status@v12.host.json"


def _vectors(data: bytes) -> None:
    """A manifest, a zero byte, a file of vectors. ``$SUM`` in the manifest is the right sum of the file."""
    manifest, _, file = data.partition(b"\0")
    manifest = manifest.replace(b"$SUM", hashlib.sha256(file).hexdigest().encode())
    folder = as_file(b"", "vectors/.empty").parent
    as_file(file, f"vectors/{VECTORS}")
    as_file(manifest, "vectors/manifest.json")
    if len(data) % 64 == 0:
        check(folder, _few())
    _, copied = read_vectors(folder)
    assert "vectors/manifest.json" in copied


@cache
def _few() -> tuple[Case, ...]:
    return tuple(case for case in cases().values() if case.id.startswith("kvm-page-enc-status@v12.host."))[:4]


# -- the command line --------------------------------------------------------------------------------------------


def _command(data: bytes) -> None:
    """The words of a command, one a line; what is behind an empty line is standard input."""
    words, _, given = data.partition(b"\n\n")
    name, *arguments = words.decode("utf-8", "surrogateescape").replace("\0", " ").split("\n")
    # A glob over all ABIs makes every case of every profile, which takes most of a minute.
    if (name in COMMANDS and name not in READ_ONLY) or (name == "explain" and "*" in words.decode("latin-1")):
        raise UsageError("this one is not tried", code="not-tried")
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    before = sys.stdin, sys.stdout, sys.stderr, Path.cwd()
    sys.stdin, sys.stdout, sys.stderr = io.TextIOWrapper(io.BytesIO(given)), out, out
    os.chdir(as_file(b"", "vectors/.empty").parent.parent)
    try:
        cli.main([name, *arguments], prog_name="hvabi")
    except SystemExit as end:
        code = end.code
    finally:
        sys.stdin, sys.stdout, sys.stderr = before[:3]
        os.chdir(before[3])
    out.flush()
    said = out.buffer.getvalue().decode()
    assert code in (0, 1, 2), f"exit code {code}: {said[-500:]}"
    assert said, "a command that fails says why"
    assert "\x1b" not in said
    if code == 2:
        raise UsageError("used wrongly", code="bad-option")


_OF_ANSWERS = (PREFIX.encode(), b"$ID", b'"yield":{', b'"ok":{', b'"error":{"message":"', b'"unsupported":', b"!", b"?",
               b"\0", b"1e999", b"[" * 50, b"\x1b[2J", b"NaN")  # fmt: skip
_OF_JSON = (b'"', b"{}", b"[]", b"null", b"NaN", b"[" * 50, b"1e999", b"\\u0000", b"\\ud800", b"-1", b"true")
_OF_COMMANDS = (b"--json", b"--all", b"--bits", b"mem[0x1000]=", b"=", b"0x", b"-", b"\n", b"@", b"/", b"--set")

RUNS = (
    Entry(name="answers", take=_answers, errors=(GivenUp,), words=_OF_ANSWERS),
    Entry(name="transcript", take=_transcript, errors=(UsageError,), words=(b'"t":', b'"dir":', *_OF_JSON)),
    Entry(name="observations", take=_observations, errors=(UsageError,), words=_OF_JSON),
    Entry(name="vectors", take=_vectors, errors=(VectorError,), words=(b"$SUM", *_OF_JSON)),
    Entry(name="command", take=_command, errors=(UsageError,), words=_OF_COMMANDS),
)
