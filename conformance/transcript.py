"""Transcripts: everything that went over the wire, one JSON object a line, and their replay.

The first line is ``{"hvabi_transcript": 1, "connector": …}``. Every other line is
``{"t": MICROSECONDS, "conn": NUMBER, "dir": "…", "line": "…"}`` with dir ``>`` (sent), ``<`` (received) or ``#``
(an event: opened, closed, how it ended, the id of the case that begins). Log text is not in it; reports have its tail.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hvabi.abi.errors import UsageError
from hvabi.conformance.frame import PREFIX
from hvabi.conformance.stream import Connection, PassedOn, PeerLost, PeerTimeout

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from hvabi.conformance.connect import Connector

VERSION = 1
_LONGEST = 3 << 20
"""Longest line of a transcript in characters: a protocol line, escaped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One line of a transcript; `t` in microseconds since its begin, `number` of its line in the file."""

    t: int
    conn: int
    dir: str
    line: str
    number: int = 0


class Recorder:
    """Writes a transcript while a run goes on; may be shared by threads.

    Every line is on its way to the file before the run goes on, so that a transcript of a run that was killed is
    whole up to there. Raises `UsageError` where the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], *, connector: str) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._start = time.monotonic()
        self._connections = 0
        try:
            self._file = self.path.open("w", encoding="utf-8", buffering=1)
        except OSError as error:
            raise UsageError(f"the transcript {path} cannot be written: {error.strerror}", code="no-file") from error
        self._write({"hvabi_transcript": VERSION, "connector": connector})

    def _write(self, value: object) -> None:
        self._file.write(json.dumps(value, separators=(",", ":")) + "\n")

    def number(self) -> int:
        """Return a number for a new connection."""
        with self._lock:
            self._connections += 1
            return self._connections

    def add(self, conn: int, direction: str, line: str) -> None:
        """Record one line or event."""
        with self._lock:
            if not self._file.closed:
                now = int((time.monotonic() - self._start) * 1_000_000)
                self._write({"t": now, "conn": conn, "dir": direction, "line": line.rstrip("\n")})

    def close(self) -> None:
        """Finish the file."""
        with self._lock:
            self._file.close()


class Recorded(PassedOn):
    """A connection whose lines are recorded."""

    def __init__(self, inner: Connection, recorder: Recorder) -> None:
        super().__init__(inner)
        self._recorder = recorder
        self._number = recorder.number()
        self._open = True
        self.note("opened")

    def note(self, text: str) -> None:
        """Record an event."""
        self._recorder.add(self._number, "#", text)

    def send(self, line: str, seconds: float) -> None:
        """Send one line."""
        self._recorder.add(self._number, ">", line)
        super().send(line, seconds)

    def receive(self, seconds: float) -> str | None:
        """Return the next protocol line."""
        try:
            line = super().receive(seconds)
        except Exception as error:
            self.note(str(error))
            raise
        if line is None:
            self.note("a line that is too long")
        else:
            self._recorder.add(self._number, "<", line)
        return line

    def close(self) -> None:
        """End the connection."""
        super().close()
        if self._open:
            self._open = False
            self.note("closed")


# -- replay -----------------------------------------------------------------------------------------------------


def read_transcript(path: str | os.PathLike[str]) -> Iterator[Record]:
    """Yield the records of a transcript. Raises `UsageError` ``bad-transcript`` with the line."""

    def bad(number: int, reason: str) -> UsageError:
        return UsageError(f"{path}:{number}: {reason}", code="bad-transcript", hint="give a file that a run wrote")

    try:
        file = Path(path).open(encoding="utf-8", errors="replace")  # noqa: SIM115  # the `with` follows
    except OSError as error:
        raise UsageError(f"the transcript {path} cannot be read: {error.strerror}", code="no-file") from error
    with file:
        number = 0
        while text := file.readline(_LONGEST):
            number += 1
            try:
                value: Any = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise bad(number, "is no JSON") from error
            if not isinstance(value, dict):
                raise bad(number, "is no JSON object")
            if number == 1:
                if value.get("hvabi_transcript") != VERSION:
                    raise bad(1, f"is no transcript of version {VERSION}")
                continue
            row: list[Any] = [value.get(key) for key in ("t", "conn", "dir", "line")]
            if [type(item) for item in row] != [int, int, str, str] or row[2] not in (">", "<", "#"):
                raise bad(number, "has not t, conn, dir and line")
            yield Record(t=row[0], conn=row[1], dir=row[2], line=row[3], number=number)


def without_id(line: str) -> Any:
    """Return the object of a protocol line without its id, or the text where it holds none."""
    try:
        value = json.loads(line.removeprefix(PREFIX))
    except (ValueError, RecursionError):
        return line
    if isinstance(value, dict):
        value.pop("id", None)
    return value


class ReplayConnector:
    """Answers from a transcript instead of from an implementation: the n-th connection from the n-th in it.

    Every line that is sent must be the one that was sent then, ids aside; else the connection is lost and says so.
    """

    parallel = False

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name = f"replay:{path}"
        self._lines: dict[int, list[Record]] = {}
        for record in read_transcript(path):
            if record.dir in "<>":
                self._lines.setdefault(record.conn, []).append(record)
        self._order = deque(sorted(self._lines))

    def open(self) -> Connection:
        """Open the next recorded connection."""
        return _Replay(self.name, self._lines[self._order.popleft()] if self._order else [])

    def close(self) -> None:
        """Nothing is held."""


class _Replay:
    def __init__(self, name: str, records: list[Record]) -> None:
        self.name = name
        self._left = deque(records)
        self._answers: deque[str] = deque()

    def send(self, line: str, seconds: float) -> None:
        record = self._left.popleft() if self._left else None
        if record is None:
            raise PeerLost(f"{self.name} has ended", how="has ended")
        if without_id(record.line) != without_id(line.rstrip("\n")):
            text = f"{self.name}:{record.number}: another command was sent then"
            raise PeerLost(text, how=f"has another command at line {record.number}", sent=line, recorded=record.line)
        ours, theirs = _id_of(line), _id_of(record.line)
        while self._left and self._left[0].dir == "<":
            answer = self._left.popleft().line
            # An answer to this command carries the id of today; late ones stay as they were.
            self._answers.append(_with_id(answer, ours) if theirs is not None and _id_of(answer) == theirs else answer)

    def receive(self, seconds: float) -> str | None:
        if self._answers:
            return self._answers.popleft()
        raise PeerLost(f"{self.name} has no answer to this", how="has no answer")

    def take_log(self) -> str:
        return ""

    def take_stderr(self) -> str:
        return ""

    def close(self) -> None:
        self._left.clear()


def _id_of(line: str) -> Any:
    try:
        value = json.loads(line.removeprefix(PREFIX))
    except (ValueError, RecursionError):
        return None
    return value.get("id") if isinstance(value, dict) else None


def _with_id(line: str, ident: Any) -> str:
    value = json.loads(line.removeprefix(PREFIX))
    return PREFIX + json.dumps({**value, "id": ident}, separators=(",", ":"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """An answer that is not the recorded one; `number` is the line of the transcript, `found` may be how it failed."""

    number: int
    sent: str
    recorded: str
    found: str


def resend(path: str | os.PathLike[str], connector: Connector, *, timeout: float = 5.0) -> Iterator[Difference]:
    """Send the lines of a transcript to an implementation and yield every answer that differs from the recorded one.

    Recorded connections are opened one after another. One that fails is given up with its rest.
    """
    connections: dict[int, list[Record]] = {}
    for record in read_transcript(path):
        if record.dir in "<>":
            connections.setdefault(record.conn, []).append(record)
    for number in sorted(connections):
        connection = connector.open()
        try:
            yield from _resend_one(connections[number], connection, timeout)
        finally:
            connection.close()


def _resend_one(records: list[Record], connection: Connection, timeout: float) -> Iterator[Difference]:
    sent = ""
    for record in records:
        found = ""
        try:
            if record.dir == ">":
                sent = record.line
                connection.send(sent + "\n", timeout)
                continue
            answer = connection.receive(timeout)
            if answer is not None and without_id(answer) == without_id(record.line):
                continue
            found = answer if answer is not None else "a line that is too long"
        except (PeerLost, PeerTimeout) as error:
            found = str(error)
        yield Difference(number=record.number, sent=sent, recorded=record.line, found=found)
        if not found.startswith(PREFIX):
            return
