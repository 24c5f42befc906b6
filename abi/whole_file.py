"""Files written as a whole or not at all: whoever is killed in the middle leaves the old file, or none."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_MODE = 0o666


def write_whole(path: Path | str, text: str) -> None:
    """Write text as UTF-8 into a file, by way of another file beside it and a rename.

    A path that is no regular file, such as ``/dev/stdout`` or a pipe, is written to directly. Raises `OSError` where
    the folder cannot be written to.
    """
    with writing_whole(path) as stream:
        stream.write(text.encode("utf-8", "backslashreplace"))


@contextlib.contextmanager
def writing_whole(path: Path | str) -> Iterator[IO[bytes]]:
    """Return a stream of bytes that becomes the file when the block ends, and nothing where it raises."""
    target = Path(path)
    if target.exists() and not target.is_file():
        with target.open("wb") as direct:
            yield direct
        return
    # A link stays a link: what it points to is replaced.
    target = target.resolve()
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:64]}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        # mkstemp makes files private; what is written here is as open as any other file of this user.
        umask = os.umask(0)
        os.umask(umask)
        Path(name).chmod(target.stat().st_mode & 0o777 if target.exists() else _MODE & ~umask)
        Path(name).replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
