"""Bytes of a trace out of a file or a stream: unpacked where they are packed, waited for where more will come.

Nothing here raises for bytes that are broken: what can be read is handed on, and `problem` says why it ended there.
"""

from __future__ import annotations

import bz2
import io
import lzma
import os
import stat
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Protocol

from hvabi.traces.errors import TraceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHUNK = 1 << 18
"""Most bytes that a source hands on at once."""

_PACKED = 1 << 10
"""Packed bytes that are unpacked at once: zstd knows no bound on what comes out of them but a factor of 32768."""

_WAIT = 0.2
"""Seconds between two looks at a file that is followed."""


class Unpacker(Protocol):
    """What the unpackers of the standard library have in common."""

    @property
    def eof(self) -> bool:
        """Whether the end of the packed data was seen."""
        ...

    @property
    def unused_data(self) -> bytes:
        """What came behind the end."""
        ...

    def decompress(self, data: bytes) -> bytes:
        """Return what comes out."""
        ...


class Packing(NamedTuple):
    """A way to pack files: its first bytes, its name, and what makes an unpacker."""

    magic: bytes
    name: str
    make: Callable[[], Unpacker]


def _gzip() -> Unpacker:
    return zlib.decompressobj(31)


def _zstd() -> Unpacker:
    try:
        from compression import zstd  # type: ignore[import-not-found,unused-ignore]  # Python 3.14 and later
    except ImportError:
        try:
            import zstandard
        except ImportError as error:
            raise TraceError(
                "this is a zstd file, and there is nothing to unpack it with",
                code="no-zstd",
                hint="pip install zstandard, or unpack it first: zstdcat FILE > trace.log",
            ) from error
        # A window of 128 MiB is what `zstd --long` makes; more would not fit into the memory that a replay may take.
        made: Unpacker = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj()
        return made
    unpacker: Unpacker = zstd.ZstdDecompressor()
    return unpacker


PACKINGS = (
    Packing(b"\x1f\x8b", "gzip", _gzip),
    Packing(b"\x28\xb5\x2f\xfd", "zstd", _zstd),
    Packing(b"\xfd7zXZ\0", "xz", lzma.LZMADecompressor),
    Packing(b"BZh", "bzip2", bz2.BZ2Decompressor),
)
_BROKEN = (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError)
_ZSTD = ("zstandard", "compression")


class Source:
    """A stream in pieces. Iterate once: bytes, or None where a file that is followed has no more just now.

    Args:
        stream: a stream in binary mode; the caller closes it.
        name: how messages call it.

    Attributes:
        position: bytes taken from the stream, packed where it is packed.
        packing: name of the packing, or None.
        problem: why the bytes ended too early, or None.

    Raises:
        TraceError: from the iterator, ``no-zstd``; ``unreadable-trace`` where not a byte can be read.

    """

    def __init__(self, stream: BinaryIO, *, name: str) -> None:
        self.name = name
        self.position = 0
        self.packing: str | None = None
        self.problem: str | None = None
        self._stream = stream

    def __iter__(self) -> Iterator[bytes | None]:
        pieces = self._pieces(CHUNK)
        first: bytes | None = b""
        for piece in pieces:
            if piece is None:
                yield None
                continue
            first = (first or b"") + piece
            if len(first) >= 6:  # the longest magic
                break
        if not first:
            return
        packing = next((each for each in PACKINGS if first.startswith(each.magic)), None)
        if packing is None:
            yield first
            yield from pieces
            return
        self.packing = packing.name
        yield from self._unpacked(packing, first)

    def _pieces(self, size: int) -> Iterator[bytes | None]:
        """Yield what the stream gives, as soon as it gives it."""
        read = getattr(self._stream, "read1", self._stream.read)
        while True:
            try:
                piece: bytes | None = read(size)
            except (OSError, EOFError, ValueError) as error:
                reason = getattr(error, "strerror", None) or str(error)
                if not self.position:
                    raise TraceError(
                        f"{self.name}: cannot be read: {reason}", code="unreadable-trace", source=self.name
                    ) from error
                self.problem = f"reading stopped after {self.position} bytes: {reason}"
                return
            if piece == b"":
                return
            if piece is not None:
                self.position += len(piece)
            yield piece

    def _unpacked(self, packing: Packing, first: bytes) -> Iterator[bytes]:
        ready: list[bytes] = []
        size = 0
        for piece in self._guarded(packing, first):
            ready.append(piece)
            size += len(piece)
            if size >= CHUNK:
                yield b"".join(ready)
                ready, size = [], 0
        if ready:
            yield b"".join(ready)

    def _guarded(self, packing: Packing, first: bytes) -> Iterator[bytes]:
        """Yield what comes out until the end or something that is broken."""
        try:
            yield from self._members(packing, first)
        except Exception as error:  # zstandard's own error has no base class but Exception
            if not isinstance(error, _BROKEN) and type(error).__module__.split(".")[0] not in _ZSTD:
                raise
            self.problem = f"the {packing.name} data is broken: {error}"

    def _members(self, packing: Packing, first: bytes) -> Iterator[bytes]:
        unpacker = packing.make()
        for data in self._packed(first):
            rest = data
            while rest:
                if unpacker.eof:
                    # Files packed one after another are one file; tools pad with zeros.
                    if not rest.strip(b"\0"):
                        break
                    if rest[:1] != packing.magic[:1]:
                        self.problem = f"behind the end of the {packing.name} data there is something else"
                        return
                    unpacker = packing.make()
                yield unpacker.decompress(rest)
                rest = unpacker.unused_data if unpacker.eof else b""
        if not unpacker.eof and self.problem is None:
            self.problem = f"the {packing.name} file ends too early: it was cut off"

    def _packed(self, first: bytes) -> Iterator[bytes]:
        for at in range(0, len(first), _PACKED):
            yield first[at : at + _PACKED]
        for piece in self._pieces(CHUNK):
            if piece is not None:
                for at in range(0, len(piece), _PACKED):
                    yield piece[at : at + _PACKED]


def open_trace(path: str | Path) -> BinaryIO:
    """Open a trace file for reading.

    Raises:
        TraceError: ``unreadable-trace``.

    """
    try:
        if stat.S_ISDIR(Path(path).stat().st_mode):
            raise TraceError(
                f"{path}: this is a folder", code="unreadable-trace", hint="name the files in it", source=str(path)
            )
        return Path(path).open("rb")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise TraceError(f"{path}: cannot be opened: {reason}", code="unreadable-trace", source=str(path)) from error


class Following(io.RawIOBase):
    """A file that somebody else is still writing, as ``tail -F`` reads it.

    At its end a read gives None, after a short wait. A file that became shorter is read from its start, one that was
    replaced (log rotation) is opened again.

    Args:
        path: the file.
        idle_seconds: how long to wait for more before the file counts as ended, or None for ever.
        waiting: called whenever there is nothing more for now.

    Raises:
        TraceError: as `open_trace`.

    """

    def __init__(
        self, path: str | Path, *, idle_seconds: float | None = None, waiting: Callable[[], None] | None = None
    ) -> None:
        super().__init__()
        self._waiting = waiting
        self._path = Path(path)
        self._file = open_trace(path)
        self._idle_seconds = idle_seconds
        self._idle_since: float | None = None

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def read1(self, size: int) -> bytes | None:
        """Return bytes; None where there are none now; empty where none will come."""
        data = self._file.read(size)
        if data:
            self._idle_since = None
            return data
        now = time.monotonic()
        if self._idle_since is None:
            self._idle_since = now
        elif self._idle_seconds is not None and now - self._idle_since >= self._idle_seconds:
            return b""
        if self._waiting is not None:
            self._waiting()
        if not self._reopened():
            time.sleep(_WAIT)
        return None

    def _reopened(self) -> bool:
        try:
            new = self._path.stat()
        except OSError:
            return False
        mine = os.fstat(self._file.fileno())
        if (new.st_ino, new.st_dev) != (mine.st_ino, mine.st_dev):
            self._file.close()
            self._file = open_trace(self._path)
            return True
        if new.st_size < self._file.tell():
            self._file.seek(0)
            return True
        return False

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()
