"""An implementation in this process: a Python object that answers lines.

``py:pkg.mod:attr`` names one of

- a class, made anew without arguments for every connection, with ``handle(line: str) -> str | None``;
- an object with such a method, used as it is by every connection, so by one at a time;
- a function of one argument, ``handle`` itself;
- a function without arguments that returns an object with ``handle``.

Without ``:attr`` the module's ``Session``, else its ``handle``. `handle` is given one line with its prefix and without
its end, and returns one line, or several where some are log text, or None for no answer. An exception is a crash. It
runs in a thread of its own, so that one that never returns is a timeout; that thread cannot be ended, only left alone.
"""

from __future__ import annotations

import importlib
import inspect
import queue
import threading
import traceback
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from hvabi.abi.errors import UsageError
from hvabi.conformance.frame import MAX_LINE, PREFIX
from hvabi.conformance.stream import PeerLost, PeerStart, PeerTimeout, Tail

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Handle = Callable[[str], str | None]


class Peer(Protocol):
    """An implementation that takes a command as a line or as the object of one."""

    def handle(self, line: str) -> str | None:
        """Return the answer to a line."""
        ...

    def answer(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to a command."""
        ...


class DirectConnection:
    """Calls `handle` in the caller's thread: for implementations that are known to return."""

    def __init__(self, handle: Handle, name: str) -> None:
        self.name = name
        self._handle = handle
        self._lines: deque[str | None] = deque()
        self._log, self._stderr = Tail(), Tail()
        self._how: str | None = None

    def send(self, line: str, seconds: float) -> None:
        """Hand over one line; the answer waits."""
        if self._how is not None:
            raise self._lost()
        try:
            answer = self._handle(line.rstrip("\n"))
        except Exception as error:  # what an implementation raises is its crash, whatever it is
            self._crash(error)
        else:
            self._took(answer)

    def _took(self, answer: object) -> None:
        if answer is None:
            return
        if not isinstance(answer, str):
            self._crash(TypeError(f"handle() returned a {type(answer).__name__}, not a string or None"))
            return
        for part in answer.removesuffix("\n").split("\n"):
            if not part.startswith(PREFIX):
                self._log.add(part.encode("utf-8", "replace") + b"\n")
            else:
                self._lines.append(part.rstrip("\r") if len(part) <= MAX_LINE else None)

    def _crash(self, error: BaseException) -> None:
        self._how = f"raised {type(error).__name__}: {error}"
        text = "".join(traceback.format_exception(error, limit=-20))
        self._stderr.add(text.encode("utf-8", "replace"))

    def _lost(self) -> PeerLost:
        return PeerLost(f"{self.name} {self._how}", how=self._how)

    def receive(self, seconds: float) -> str | None:
        """Return what was answered. Where there is nothing, nothing will come."""
        if self._lines:
            return self._lines.popleft()
        if self._how is not None:
            raise self._lost()
        raise PeerTimeout("handle() returned without an answer", seconds=0.0)

    def take_log(self) -> str:
        """Return the log text since the last time."""
        return self._log.take()

    def take_stderr(self) -> str:
        """Return the traceback of an exception."""
        return self._stderr.take()

    def close(self) -> None:
        """Nothing is left to end."""
        self._how = self._how or "is closed"


class ObjectConnection(DirectConnection):
    """Asks an implementation of ours in the caller's thread, with the objects of the lines instead of their text.

    Args:
        peer: answers a command with an answer, both as JSON objects, or a line with a line: the same to the same.

    """

    def __init__(self, peer: Peer, name: str) -> None:
        super().__init__(peer.handle, name)
        self._peer = peer

    def ask(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to a command. Raises `PeerLost`."""
        if self._how is not None:
            raise self._lost()
        try:
            return self._peer.answer(command)
        except Exception as error:
            self._crash(error)
            raise self._lost() from error


class ThreadConnection(DirectConnection):
    """Calls `handle` in a thread of its own, so that one that never returns costs its time limit only."""

    def __init__(self, handle: Handle, name: str) -> None:
        super().__init__(handle, name)
        self._in: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._out: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._waiting = 0
        threading.Thread(target=self._serve, name=f"hvabi {name}", daemon=True).start()

    def _serve(self) -> None:
        while (line := self._in.get()) is not None:
            try:
                answer: object = self._handle(line)
            except BaseException as error:  # SystemExit must not end the thread unseen
                answer = error
            self._out.put(answer)

    def send(self, line: str, seconds: float) -> None:
        """Hand over one line."""
        if self._how is not None:
            raise self._lost()
        self._waiting += 1
        self._in.put(line.rstrip("\n"))

    def receive(self, seconds: float) -> str | None:
        """Wait for what is answered."""
        if not self._lines and self._how is None and self._waiting:
            try:
                answer = self._out.get(timeout=seconds)
            except queue.Empty:
                raise PeerTimeout("no answer", seconds=seconds) from None
            self._waiting -= 1
            if isinstance(answer, BaseException):
                self._crash(answer)
            else:
                self._took(answer)
        return super().receive(seconds)

    def close(self) -> None:
        """Let the thread end once `handle` returns."""
        super().close()
        self._in.put(None)


def find_target(text: str) -> tuple[Callable[[], Handle], bool]:
    """Return what makes a `handle` for a connection, and whether several connections may be open at once.

    Raises `UsageError` for a name that is not there or has no `handle`, `PeerStart` where the import fails.
    """
    module_name, _, path = text.partition(":")
    if not module_name or not all(part.isidentifier() for part in module_name.split(".")):
        raise UsageError(f"py:{text} names no module", code="bad-connector", hint="write py:package.module:attribute")
    try:
        target: Any = importlib.import_module(module_name)
    except Exception as error:  # whatever the user's module raises
        raise PeerStart(f"module {module_name} cannot be imported: {type(error).__name__}: {error}") from error
    if not path:
        path = "Session" if hasattr(target, "Session") else "handle"
    for part in path.split("."):
        if not hasattr(target, part):
            raise UsageError(
                f"{module_name} has no {path}", code="bad-connector", hint="name a class, an object or a function"
            )
        target = getattr(target, part)
    if inspect.isclass(target) or _takes(target, 0):
        return lambda: _handle_of(target(), text), inspect.isclass(target)
    handle = _handle_of(target, text)
    return lambda: handle, False


def _handle_of(target: Any, text: str) -> Handle:
    handle = getattr(target, "handle", target)
    if not callable(handle) or not _takes(handle, 1):
        raise UsageError(
            f"py:{text} has no handle(line)", code="bad-connector", hint="give it handle(line: str) -> str | None"
        )
    found: Handle = handle
    return found


def _takes(function: Any, count: int) -> bool:
    if not callable(function):
        return False
    try:
        inspect.signature(function).bind(*[""] * count)
    except (TypeError, ValueError):
        return False
    return True
