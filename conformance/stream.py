"""Lines of the protocol out of a noisy byte stream, in bounded time and memory whatever the peer sends."""

from __future__ import annotations

import os
import select
import time
from collections import deque
from typing import TYPE_CHECKING, Protocol

from hvabi.abi.errors import HvAbiError
from hvabi.conformance.frame import MAX_LINE, PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable

TAIL = 64 * 1024
"""Bytes of log text and of standard error that are kept, from their end."""
CHUNK = 1 << 18
"""Bytes that are read at once."""
MOST_QUEUED = 4 << 20
"""Bytes of unread protocol lines after which nothing more is read."""

_PREFIX = PREFIX.encode()
_IN = select.POLLIN | select.POLLHUP | select.POLLERR | select.POLLNVAL


class PeerTimeout(HvAbiError):
    """The peer did not answer, or did not take a line, in `fields["seconds"]`; 0 where none could come any more."""

    code = "timeout"


class PeerLost(HvAbiError):
    """The connection ended. `fields["how"]` says how: an exit code, a signal, a closed stream."""

    code = "lost"


class PeerStart(HvAbiError):
    """The implementation could not be started or reached. `fields` has the argv or address and the errno."""

    code = "start"


class Connection(Protocol):
    """A line connection to one implementation, from its start to its end."""

    def send(self, line: str, seconds: float) -> None:
        """Send one line, its end included. Raises `PeerTimeout` or `PeerLost`."""
        ...

    def receive(self, seconds: float) -> str | None:
        """Return the next protocol line without its end; None for one that is longer than the protocol allows.

        Everything else that arrives is collected as log. Raises `PeerTimeout` or `PeerLost`.
        """
        ...

    def take_log(self) -> str:
        """Return the log text since the last time, at most its last 64 KiB."""
        ...

    def take_stderr(self) -> str:
        """Return the standard error since the last time, at most its last 64 KiB."""
        ...

    def close(self) -> None:
        """End the connection and everything that it has started. May be called again."""
        ...


class PassedOn:
    """A connection laid over another one, to which it passes everything on."""

    def __init__(self, inner: Connection) -> None:
        self._inner = inner

    def send(self, line: str, seconds: float) -> None:
        """Send one line."""
        self._inner.send(line, seconds)

    def receive(self, seconds: float) -> str | None:
        """Return the next protocol line."""
        return self._inner.receive(seconds)

    def take_log(self) -> str:
        """Return the log text since the last time."""
        return self._inner.take_log()

    def take_stderr(self) -> str:
        """Return the standard error since the last time."""
        return self._inner.take_stderr()

    def close(self) -> None:
        """End the connection."""
        self._inner.close()


class Tail:
    """The last bytes of a stream of any length."""

    def __init__(self, limit: int = TAIL) -> None:
        self._limit = limit
        self._data = bytearray()
        self._dropped = 0

    def add(self, data: bytes) -> None:
        """Append bytes; the oldest are dropped beyond the limit."""
        if len(data) > self._limit:
            self._dropped += len(data) - self._limit
            data = data[-self._limit :]
        self._data += data
        if len(self._data) > 2 * self._limit:
            self._cut()

    def _cut(self) -> None:
        excess = max(len(self._data) - self._limit, 0)
        self._dropped += excess
        del self._data[:excess]

    def take(self) -> str:
        """Return the text and forget it."""
        if not self._data and not self._dropped:
            return ""
        self._cut()
        text = self._data.decode("utf-8", "replace")
        dropped, self._dropped = self._dropped, 0
        self._data.clear()
        return f"[{dropped} bytes left out]\n{text}" if dropped else text


class LineFinder:
    """Splits bytes into protocol lines and log text.

    Log text is not split into lines: of 1 GB of it only line ends before an ``@`` are looked at.
    """

    def __init__(self, log: Tail) -> None:
        self._log = log
        #: The begin of a line that may be one of the protocol; None inside a line of log.
        self._open: bytearray | None = bytearray()

    def feed(self, data: bytes) -> list[bytes | None]:
        """Return the protocol lines that are complete now, without their ends; None for one that is too long."""
        out: list[bytes | None] = []
        at = 0
        while at < len(data):
            at = self._line(data, at, out) if self._open is not None else self._skip(data, at)
        return out

    def _skip(self, data: bytes, at: int) -> int:
        """Take log text up to where a protocol line may begin."""
        found = data.find(b"\n@", at)
        if found < 0:
            self._log.add(data[at:])
            if data.endswith(b"\n"):
                self._open = bytearray()
            return len(data)
        self._log.add(data[at : found + 1])
        self._open = bytearray()
        return found + 1

    def _line(self, data: bytes, at: int, out: list[bytes | None]) -> int:
        """Take what follows the begin of a line."""
        line = self._open
        assert line is not None  # the caller has looked
        end = data.find(b"\n", at)
        stop = len(data) if end < 0 else end
        head = bytes(line[: len(_PREFIX)]) + data[at : min(stop, at + len(_PREFIX))]
        if not head.startswith(_PREFIX):
            if end < 0 and _PREFIX.startswith(head):
                line += data[at:stop]
                return stop
            self._log.add(bytes(line))
            self._open = None
            return at
        if len(line) + stop - at > MAX_LINE:
            out.append(None)
            self._open = None
            return stop
        line += data[at:stop]
        if end < 0:
            return stop
        out.append(bytes(line))
        self._open = bytearray()
        return end + 1

    def finish(self) -> None:
        """Take what is open as log: the stream has ended."""
        if self._open:
            self._log.add(bytes(self._open))
        self._open = None


class StreamConnection:
    """A connection over file descriptors: a socket, a serial line, or the pipes of a process.

    Args:
        read, write: descriptors, made non-blocking; may be the same.
        err: standard error of the peer, or None.
        name: what messages call the peer.
        on_close: gives the descriptors back.

    """

    def __init__(self, *, read: int, write: int, name: str, err: int | None = None,
                 on_close: Callable[[], None] | None = None) -> None:  # fmt: skip
        self.name = name
        self._read, self._write, self._err = read, write, err
        self._on_close = on_close
        self._log, self._stderr = Tail(), Tail()
        self._finder = LineFinder(self._log)
        self._queue: deque[bytes | None] = deque()
        self._queued = 0
        self._closed = False
        self._ended = False
        self._poll = select.poll()
        for fd in {read, write, *(() if err is None else (err,))}:
            os.set_blocking(fd, False)
        self._poll.register(read, select.POLLIN)
        if err is not None:
            self._poll.register(err, select.POLLIN)

    # -- lines --------------------------------------------------------------------------------------------------

    def send(self, line: str, seconds: float) -> None:
        """Send one line; what arrives meanwhile is read, so that neither side waits for the other for ever."""
        if self._closed:
            raise PeerLost(f"{self.name} is closed", how="closed")
        left = memoryview(line.encode())
        deadline = time.monotonic() + seconds
        while left:
            try:
                left = left[os.write(self._write, left) :]
                continue
            except BlockingIOError:
                pass
            except OSError as error:
                self._drain()
                raise self._lost() from error
            if self._queued < MOST_QUEUED:
                self._wait(0)
            poll = select.poll()
            poll.register(self._write, select.POLLOUT)
            poll.poll(20)
            if time.monotonic() >= deadline:
                raise PeerTimeout("the line was not taken", seconds=seconds)

    def receive(self, seconds: float) -> str | None:
        """Return the next protocol line."""
        deadline = time.monotonic() + seconds
        while not self._queue:
            if self._closed:
                raise PeerLost(f"{self.name} is closed", how="closed")
            if self._ended:
                raise self._lost()
            left = deadline - time.monotonic()
            if left <= 0:
                raise PeerTimeout("no answer", seconds=seconds)
            self._wait(left)
        line = self._queue.popleft()
        if line is None:
            return None
        self._queued -= len(line)
        return line.decode("utf-8", "replace").rstrip("\r")

    def _wait(self, seconds: float) -> None:
        """Wait for bytes and take one chunk of each stream."""
        for fd, _ in self._poll.poll(seconds * 1000):
            self._take(fd)

    def _take(self, fd: int) -> bool:
        """Read one chunk; return whether there was one."""
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._poll.unregister(fd)
            if fd == self._read:
                self._finder.finish()
                self._ended = True
            else:
                self._err = None
            return False
        if fd != self._read:
            self._stderr.add(data)
            return True
        for line in self._finder.feed(data):
            self._queue.append(line)
            self._queued += len(line or b"")
        return True

    def _drain(self) -> None:
        """Take what is there already, at most some megabytes of each stream."""
        for fd in (self._read, self._err):
            count = 0
            while fd is not None and count < 64 and not (fd == self._read and self._ended):
                if not self._take(fd):
                    break
                count += 1

    def _lost(self) -> PeerLost:
        return PeerLost(f"{self.name} closed the connection", how="closed the connection")

    # -- text and end -------------------------------------------------------------------------------------------

    def take_log(self) -> str:
        """Return the log text since the last time."""
        return self._log.take()

    def take_stderr(self) -> str:
        """Return the standard error since the last time."""
        if self._err is not None and not self._closed:
            count = 0
            while count < 64 and self._err is not None and self._take(self._err):
                count += 1
        return self._stderr.take()

    def close(self) -> None:
        """Give the descriptors back."""
        if self._closed:
            return
        self._closed = True
        if self._on_close is not None:
            self._on_close()
