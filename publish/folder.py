"""A folder of generated files, written as a whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hvabi.abi.errors import HvAbiError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_LISTED = 3


class FolderError(HvAbiError):
    """A folder cannot be written: it holds what is not ours, or cannot be replaced."""

    code = "folder"


def write_folder(directory: Path | str, files: Mapping[str, bytes], *, manifest: str, about: Mapping[str, Any]) -> None:
    """Write the files into a folder of their own, in place of what an earlier run wrote.

    Everything is written beside the folder first and then takes its name, so that a reader finds the old files or the
    new ones. The file `manifest` is added; it says what the folder is (`about`) and has the SHA-256 of every file.

    Raises:
        FolderError: ``folder-not-ours`` where the folder has files that no earlier run wrote, ``folder-in-use``
            where it is the current folder, a symbolic link or no folder.
        OSError: where nothing can be written beside it.

    """
    folder = Path(directory)
    _check(folder, manifest, dict(about))
    where = folder.resolve()
    where.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=f".{where.name}.", dir=where.parent))
    try:
        sums = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())}
        text = json.dumps({**about, "files": sums}, indent=1) + "\n"
        for name, data in {**files, manifest: text.encode()}.items():
            path = stage / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        umask = os.umask(0)
        os.umask(umask)
        stage.chmod(0o777 & ~umask)
        _take_place(stage, where)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _take_place(stage: Path, where: Path) -> None:
    if not where.exists():
        stage.rename(where)
        return
    # The old files go into the stage's parent under a name of their own, and come back where the new ones fail.
    old = Path(tempfile.mkdtemp(prefix=f".{where.name}.old.", dir=where.parent))
    try:
        where.rename(old / "files")
        try:
            stage.rename(where)
        except OSError:
            (old / "files").rename(where)
            raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _check(folder: Path, manifest: str, about: dict[str, Any]) -> None:
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise FolderError(f"{folder} is no folder", code="folder-in-use", hint="name one that can be made or replaced")
    if not folder.exists():
        return
    if folder.resolve() in (Path.cwd(), *Path.cwd().parents):
        raise FolderError(
            f"{folder} is the current folder, which cannot be replaced", code="folder-in-use", hint="name one below it"
        )
    known = _known(folder / manifest, about)
    # No more than what the message shows: the folder may be anything, and large.
    foreign = list(islice(_foreign(folder, {*known, manifest} if known else set()), _LISTED + 1))
    if foreign:
        shown = ", ".join(foreign[:_LISTED]) + (" and more" if len(foreign) > _LISTED else "")
        raise FolderError(
            f"{folder} is not empty, and these files are not ours: {shown}",
            code="folder-not-ours",
            hint="name a new folder, or one that this command wrote and nobody else",
        )


def _foreign(folder: Path, known: set[str]) -> Iterator[str]:
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if name not in known and (path.is_symlink() or not path.is_dir()):
            yield name


def _known(path: Path, about: dict[str, Any]) -> set[str]:
    """Return the files that an earlier run says it wrote; none where the manifest is not of the same kind."""
    try:
        data: Any = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return set()
    if not isinstance(data, dict) or data.get("kind") != about.get("kind") or not isinstance(data.get("files"), dict):
        return set()
    return {name for name in data["files"] if isinstance(name, str)}
