"""What a booted machine needs to run Python: this interpreter, the modules that a program imports, their libraries."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hvabi.evidence.live.errors import LiveError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hvabi.evidence.live.archive import Archive

_LDD = re.compile(r"(?:=>\s*)?(/\S+)\s+\(0x")

_LIST = """
import sys, json
for name in sys.argv[1:]:
    __import__(name)
files = [m.__file__ for m in list(sys.modules.values()) if getattr(m, "__file__", None)]
print(json.dumps(files))
"""


def add_python(archive: Archive, modules: Iterable[str]) -> str:
    """Add the running interpreter and what the modules of the standard library import; return its path there.

    Raises `LiveError` ``no-userland`` where the interpreter cannot be taken apart.
    """
    binary = Path(sys.executable).resolve()
    environment = {"PYTHONHOME": sys.base_prefix, "PATH": os.defpath, "LC_ALL": "C"}
    try:
        # Encodings and the like are imported at start only: -S and -I show the same set that the machine will need.
        command = [
            str(binary),
            "-I",
            "-S",
            "-c",
            _LIST,
            "encodings.utf_8",
            "encodings.latin_1",
            "encodings.ascii",
            *modules,
        ]
        listed = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=60)
        files = [Path(name).resolve() for name in json.loads(listed.stdout)]
        needed = {binary, *files}
        for path in [binary, *(path for path in files if path.suffix == ".so")]:
            needed |= _libraries(path)
        for path in sorted(needed):
            archive.file(str(path), path.read_bytes(), executable=path.suffix != ".py")
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise LiveError(
            f"this Python cannot be put into a machine: {error}", code="no-userland", hint="try the system's python3"
        ) from error
    _add_marker(archive)
    return str(binary)


def _add_marker(archive: Archive) -> None:
    """Add what Python looks for to find its library: the folder of compiled modules must exist."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for folder in (Path(sys.base_prefix, "lib", version), Path(sys.base_exec_prefix, "lib", version, "lib-dynload")):
        archive.folder(str(folder.resolve()))


def _libraries(path: Path) -> set[Path]:
    """Return the shared libraries of a file, under the names by which they are looked for."""
    result = subprocess.run(["ldd", str(path)], capture_output=True, text=True, check=False, timeout=30)
    return {Path(name) for name in _LDD.findall(result.stdout)}
