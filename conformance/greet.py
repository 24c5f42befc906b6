"""Asking an implementation what it is before the cases are made, in the session that then runs them.

A server in a virtual machine may serve one session only, so the one that is opened to ask is kept: the run's first
session goes on in it, and its ``hello`` is answered with what was said already.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from hvabi.conformance import frame
from hvabi.conformance.client import Client
from hvabi.conformance.stream import PassedOn

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hvabi.conformance.answer import Hello
    from hvabi.conformance.connect import Connector
    from hvabi.conformance.stream import Connection


class Greeter:
    """A connector whose first connection has said hello beforehand.

    Args:
        inner: where connections come from.
        timeout: seconds for the answer to ``hello``.
        features: features that the run will ask for, at most; a run that wants others asks again.

    """

    def __init__(self, inner: Connector, *, timeout: float = 5.0, features: Iterable[str] = ()) -> None:
        self.name = inner.name
        self.parallel = inner.parallel
        self._inner = inner
        self._timeout = timeout
        self._features = frozenset(features)
        self._kept: _Greeted | None = None
        self._lock = threading.Lock()

    def greet(self) -> Hello:
        """Open the first connection and say hello. Raises `PeerStart` and what a session raises."""
        connection = _Greeted(self._inner.open(), self._features)
        try:
            hello = Client(connection, timeout=self._timeout).hello(self._features)
        except BaseException as error:
            error.add_note("\n".join(text for text in (connection.take_log(), connection.take_stderr()) if text))
            connection.close()
            raise
        connection.rewind()
        self._kept = connection
        return hello

    def open(self) -> Connection:
        """Return the connection that has said hello, and after it new ones."""
        with self._lock:
            kept, self._kept = self._kept, None
        return kept if kept is not None else self._inner.open()

    def close(self) -> None:
        """End a connection that was not used, and give back what the connector holds."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None
        self._inner.close()


class _Greeted(PassedOn):
    """A connection on which hello has been said: the next one is answered from memory."""

    def __init__(self, inner: Connection, features: frozenset[str]) -> None:
        super().__init__(inner)
        self._features = features
        self._answer: str | None = None
        self._rewound = False
        self._waiting: str | None = None

    def rewind(self) -> None:
        """Let the next hello be answered with the line that came last."""
        self._rewound = True

    def send(self, line: str, seconds: float) -> None:
        """Send one line, unless its answer is known."""
        if self._rewound:
            self._rewound = False
            self._waiting = self._again(frame.parse_line(line.rstrip("\n")))
        if self._waiting is None:
            super().send(line, seconds)

    def _again(self, command: dict[str, Any] | None) -> str | None:
        """Return the known answer, None where something else is asked."""
        answer = frame.parse_line(self._answer or "")
        if command is None or answer is None or command["cmd"] != "hello":
            return None
        if not self._features.issuperset(command.get("features", ())):
            return None
        return frame.format_line({**answer, "id": command["id"]}).rstrip("\n")

    def receive(self, seconds: float) -> str | None:
        """Return the next protocol line."""
        if self._waiting is not None:
            line, self._waiting = self._waiting, None
            return line
        self._answer = super().receive(seconds)
        return self._answer


__all__ = ["Greeter"]
