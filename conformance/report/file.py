"""Report files: written as a whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

_MODE = 0o666


def write(path: Path | str, text: str) -> None:
    """Write text as UTF-8 into a file, by way of another file beside it and a rename.

    A run that is killed in the middle leaves the old file or none. A path that is no regular file, such as
    ``/dev/stdout`` or a pipe, is written to directly. Raises `OSError` where the folder cannot be written to.
    """
    target = Path(path)
    data = text.encode("utf-8", "backslashreplace")
    if target.exists() and not target.is_file():
        target.write_bytes(data)
        return
    # A link stays a link: what it points to is replaced.
    target = target.resolve()
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:64]}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        # mkstemp makes files private; a report is as open as any other file of this user.
        umask = os.umask(0)
        os.umask(umask)
        Path(name).chmod(target.stat().st_mode & 0o777 if target.exists() else _MODE & ~umask)
        Path(name).replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
