"""The bundled specification files read beforehand: their plain data as JSON, so that a command need not read YAML.

The YAML stays the only truth. A ready file is named for the SHA-256 of the YAML that it was made from: one that was
edited since has another digest, finds no ready file and is read itself. An installation makes them, `hvabi generate`
renews those of a checkout; without them everything is the same, and slower.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import hvabi.spec

if TYPE_CHECKING:
    from hvabi.abi.source import Plain

FOLDER = "ready"
"""Where the files lie, below the folder of the specifications."""


def spec_root() -> Path:
    """Return the folder of the bundled specification files."""
    return Path(hvabi.spec.__file__).parent


def read_plain(path: Path) -> Plain:
    """Return the plain data of a specification file. Raises `SpecError` for one that cannot be read."""
    root = spec_root()
    if root in path.parents:
        try:
            return json.loads((root / FOLDER / _name(path.read_bytes())).read_bytes())  # type: ignore[no-any-return]  # of `ready_files`
        except (OSError, ValueError):
            pass  # not made, or made by somebody else: the YAML itself says what is so, and what is wrong with it
    from hvabi.abi.source import load_file, plain

    return plain(load_file(path).root)


def _name(yaml: bytes) -> str:
    return f"{hashlib.sha256(yaml).hexdigest()}.json"


def differs(path: Path) -> bool:
    """Whether what was read beforehand is not what a specification file says: somebody has changed it by hand."""
    from hvabi.abi.source import load_file, plain

    return read_plain(path) != plain(load_file(path).root)


def ready_files() -> dict[str, str]:
    """Return the text of every ready file by name, made from the YAML. Raises `SpecError` for a file that is wrong."""
    from hvabi.abi.source import load_text, plain

    found: dict[str, str] = {}
    for path in sorted(spec_root().glob("*/*.yaml")):
        data = path.read_bytes()
        found[_name(data)] = json.dumps(plain(load_text(data, str(path)).root), separators=(",", ":"))
    return found


def renew(*, write: bool) -> bool:
    """Return whether the ready files, if there are any, differ from the YAML; with `write` make them the same.

    A file that nothing asks for any more is removed.
    """
    from hvabi.abi.whole_file import write_whole

    folder = spec_root() / FOLDER
    found = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.json")}
    wanted = ready_files()
    if found == wanted or not (found or write):
        return False
    if write:
        folder.mkdir(exist_ok=True)
        for name, text in wanted.items():
            if found.get(name) != text:
                write_whole(folder / name, text)
        for name in found.keys() - wanted.keys():
            (folder / name).unlink(missing_ok=True)
    return True
