"""Connectors: how an implementation under test is reached, written as one string.

- ``cmd:COMMAND LINE`` starts a program and speaks over its standard input and output. Words are split as a shell
  does; no shell is started.
- ``unix:PATH``, ``tcp:HOST:PORT``: the runner connects, trying again for some seconds.
- ``unix:listen:PATH``, ``tcp:listen:HOST:PORT``: the runner listens and waits for the implementation.
- ``serial:PATH[,BAUD]``: a serial line or a pseudo terminal, 115200 by default, raw, no flow control.
- ``py:pkg.mod[:attr]``: in this process, see `hvabi.conformance.inprocess`.
- ``builtin``: the bundled adapters, in this process.
- ``replay:PATH``: answers from a transcript, see `hvabi.conformance.transcript`.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
import stat
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hvabi.abi.errors import UsageError
from hvabi.conformance.stream import Connection, PeerLost, PeerStart, PeerTimeout, StreamConnection

if TYPE_CHECKING:
    from collections.abc import Callable

CONNECT_SECONDS = 5.0
"""How long a connection that is refused is tried again: a VM may still be starting."""
ACCEPT_SECONDS = 30.0
"""How long the runner waits for an implementation to connect."""
KINDS = ("cmd", "unix", "tcp", "serial", "py", "builtin", "replay")


class Connector(Protocol):
    """A way to an implementation, from which connections are opened one after another, or several at once."""

    name: str
    #: Whether several connections may be open at once.
    parallel: bool

    def open(self) -> Connection:
        """Open a connection. Raises `PeerStart`."""
        ...

    def close(self) -> None:
        """Give back what the connector itself holds, such as a listening socket."""
        ...


class SimpleConnector:
    """A connector that is one function."""

    def __init__(self, name: str, opener: Callable[[], Connection], *, parallel: bool = True) -> None:
        self.name = name
        self.parallel = parallel
        self._opener = opener

    def open(self) -> Connection:
        """Open a connection."""
        return self._opener()

    def close(self) -> None:
        """Nothing is held."""


def parse_connector(
    text: str, *, connect_seconds: float = CONNECT_SECONDS, accept_seconds: float = ACCEPT_SECONDS
) -> Connector:
    """Return the connector that a string names; nothing is started yet.

    Raises `UsageError` ``bad-connector``, or for a transcript ``no-file`` or ``bad-transcript``.
    """
    kind, colon, rest = text.partition(":")
    if kind == "builtin" and not colon:
        return SimpleConnector(text, _builtin)
    if kind not in KINDS or not rest:
        raise _bad(f"`{text}` is no connector", "write cmd:PROGRAM ARGUMENTS, unix:PATH, tcp:HOST:PORT, serial:PATH, "
                   "py:module:attribute or builtin")  # fmt: skip
    if kind == "cmd":
        return _command(text, rest)
    if kind == "serial":
        return _serial(text, rest)
    if kind == "py":
        return _python(text, rest)
    if kind == "replay":
        from hvabi.conformance.transcript import ReplayConnector

        return ReplayConnector(rest)
    listens = rest.startswith("listen:")
    place = rest.removeprefix("listen:")
    family, address = (socket.AF_UNIX, _path(place)) if kind == "unix" else _tcp(place)
    if listens:
        return _Listener(text, family, address, accept_seconds)
    return SimpleConnector(text, lambda: _dial(text, family, address, connect_seconds))


def _bad(message: str, hint: str) -> UsageError:
    return UsageError(message, code="bad-connector", hint=hint)


def _builtin() -> Connection:
    # The adapters are heavy, and only this connector needs them.
    from hvabi.conformance.inprocess import ObjectConnection
    from hvabi.conformance.iut import Session

    return ObjectConnection(Session(), "builtin")


def _command(text: str, rest: str) -> Connector:
    from hvabi.conformance.process import ProcessConnection

    try:
        argv = shlex.split(rest)
    except ValueError as error:
        raise _bad(f"`{text}` cannot be split into words: {error}", "close the quotes") from error
    if not argv or "\0" in rest:
        raise _bad(f"`{text}` names no program", "write cmd:PROGRAM ARGUMENTS")
    return SimpleConnector(text, lambda: ProcessConnection(argv))


def _python(text: str, rest: str) -> Connector:
    from hvabi.conformance.inprocess import find_target

    make, parallel = find_target(rest)
    return SimpleConnector(text, lambda: _in_process(make, text), parallel=parallel)


def _in_process(make: Callable[[], Callable[[str], str | None]], text: str) -> Connection:
    from hvabi.conformance.inprocess import ThreadConnection

    try:
        # The thread of its own is what makes a time limit possible.
        return ThreadConnection(make(), text)
    except UsageError:
        raise
    except Exception as error:  # whatever the user's class raises
        raise PeerStart(f"{text} cannot be made: {type(error).__name__}: {error}") from error


def _path(text: str) -> str:
    if len(os.fsencode(text)) > 100 or "\0" in text:
        raise _bad(f"`{text}` is too long for a socket's path", "a path has at most 100 bytes")
    return text


def _tcp(text: str) -> tuple[socket.AddressFamily, tuple[str, int]]:
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not (port.isascii() and port.isdecimal()) or not 0 < int(port) < 1 << 16:
        raise _bad(f"`{text}` is no HOST:PORT", "write tcp:localhost:5000, or tcp:[::1]:5000")
    return (socket.AF_INET6 if ":" in host else socket.AF_INET), (host, int(port))


Address = str | tuple[str, int]


def _dial(name: str, family: socket.AddressFamily, address: Address, seconds: float) -> Connection:
    """Connect, again and again for some seconds where nobody listens yet."""
    deadline = time.monotonic() + seconds
    while True:
        peer = socket.socket(family, socket.SOCK_STREAM)
        try:
            peer.settimeout(max(deadline - time.monotonic(), 0.1))
            peer.connect(address)
        except OSError as error:
            peer.close()
            if time.monotonic() + 0.05 < deadline and isinstance(error, (ConnectionRefusedError, FileNotFoundError)):
                time.sleep(0.05)
                continue
            reason = error.strerror or str(error)
            raise PeerStart(
                f"{name}: nobody answers: {reason}", hint="start the implementation first", errno=error.errno
            ) from error
        return _over(name, peer)


def _over(name: str, peer: socket.socket) -> Connection:
    if peer.family != socket.AF_UNIX:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return StreamConnection(read=peer.fileno(), write=peer.fileno(), name=name, on_close=peer.close)


class _Listener:
    """Waits for the implementation to connect; each connection is accepted anew."""

    def __init__(self, name: str, family: socket.AddressFamily, address: Address, seconds: float) -> None:
        self.name = name
        self.parallel = True
        self._family, self._address, self._seconds = family, address, seconds
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()

    def _listen(self) -> socket.socket:
        if self._socket is not None:
            return self._socket
        listener = socket.socket(self._family, socket.SOCK_STREAM)
        try:
            if isinstance(self._address, str):
                _remove_stale(self._address)
            else:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(self._address)
            listener.listen(16)
        except OSError as error:
            listener.close()
            raise PeerStart(f"{self.name}: cannot listen: {error.strerror or error}", errno=error.errno) from error
        self._socket = listener
        return listener

    def open(self) -> Connection:
        with self._lock:
            listener = self._listen()
        listener.settimeout(self._seconds)
        try:
            peer, _ = listener.accept()
        except OSError as error:
            raise PeerStart(
                f"{self.name}: nobody connected in {self._seconds:g} s", hint="let the implementation connect there"
            ) from error
        return _over(self.name, peer)

    def close(self) -> None:
        if self._socket is None:
            return
        self._socket.close()
        self._socket = None
        if isinstance(self._address, str):
            with contextlib.suppress(OSError):
                Path(self._address).unlink()


def _remove_stale(path: str) -> None:
    """Remove a socket that nobody listens on any more."""
    place = Path(path)
    if not place.is_socket():
        return
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        probe.connect(path)
    except ConnectionRefusedError:
        place.unlink()
    finally:
        probe.close()


def _serial(text: str, rest: str) -> Connector:
    path, comma, speed = rest.rpartition(",")
    if not comma:
        path, speed = rest, "115200"
    if not path or not speed.isdecimal():
        raise _bad(f"`{text}` has no speed behind the comma", "write serial:/dev/ttyS0,115200")
    import termios

    rate = getattr(termios, "B" + speed, None)
    if rate is None:
        raise _bad(f"{speed} is no speed of a serial line", "usual ones are 9600, 38400, 115200")
    return SimpleConnector(text, lambda: _open_serial(text, path, rate), parallel=False)


def _open_serial(name: str, path: str, rate: int) -> Connection:
    import termios
    import tty

    try:
        if not stat.S_ISCHR(Path(path).stat().st_mode):
            raise PeerStart(f"{name}: {path} is no device", hint="give a serial line or a pseudo terminal")
        fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError as error:
        raise PeerStart(f"{name}: cannot be opened: {error.strerror}", errno=error.errno) from error
    try:
        if os.isatty(fd):
            tty.setraw(fd, termios.TCSANOW)
            mode = termios.tcgetattr(fd)
            mode[2] = mode[2] & ~termios.CRTSCTS | termios.CLOCAL | termios.CREAD
            mode[4] = mode[5] = rate
            termios.tcsetattr(fd, termios.TCSANOW, mode)
    except (OSError, termios.error) as error:
        os.close(fd)
        raise PeerStart(f"{name}: cannot be set up: {error}") from error
    return StreamConnection(read=fd, write=fd, name=name, on_close=lambda: os.close(fd))


__all__ = [
    "ACCEPT_SECONDS",
    "CONNECT_SECONDS",
    "Connection",
    "Connector",
    "PeerLost",
    "PeerStart",
    "PeerTimeout",
    "SimpleConnector",
    "parse_connector",
]
