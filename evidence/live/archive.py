"""An initial file system for a kernel: a cpio archive in the format newc, written without tools or privileges."""

from __future__ import annotations

import stat
from pathlib import PurePosixPath
from typing import BinaryIO

_MAGIC = b"070701"
_TRAILER = "TRAILER!!!"


class Archive:
    """Writes a cpio archive. Folders above a file are made by themselves; a file that is added twice stays the first.

    Args:
        file: where the archive goes.

    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._number = 0
        self._names: set[str] = set()

    def folder(self, name: str) -> None:
        """Add a folder and those above it."""
        path = PurePosixPath(name.lstrip("/"))
        for part in [*reversed(path.parents), path]:
            if str(part) not in (".", *self._names):
                self._add(str(part), stat.S_IFDIR | 0o755, b"")

    def file(self, name: str, data: bytes, *, executable: bool = False) -> None:
        """Add a file."""
        self._below(name)
        self._add(name.lstrip("/"), stat.S_IFREG | (0o755 if executable else 0o644), data)

    def link(self, name: str, target: str) -> None:
        """Add a symbolic link."""
        self._below(name)
        self._add(name.lstrip("/"), stat.S_IFLNK | 0o777, target.encode())

    def device(self, name: str, major: int, minor: int) -> None:
        """Add a character device."""
        self._below(name)
        self._add(name.lstrip("/"), stat.S_IFCHR | 0o600, b"", device=(major, minor))

    def end(self) -> None:
        """Write the trailer."""
        self._add(_TRAILER, 0, b"")

    def _below(self, name: str) -> None:
        self.folder(str(PurePosixPath(name.lstrip("/")).parent))

    def _add(self, name: str, mode: int, data: bytes, device: tuple[int, int] = (0, 0)) -> None:
        if name in self._names or name == ".":
            return
        self._names.add(name)
        self._number += 1
        raw = name.encode() + b"\0"
        fields = (self._number, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(raw), 0)
        head = _MAGIC + b"".join(b"%08x" % field for field in fields) + raw
        for part in (head, data):
            self._file.write(part + bytes(-len(part) % 4))
