"""Test vectors as the manual lists them: read from a folder that ``hvabi vectors`` has written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from hvabi.conformance.vector_check import check
from hvabi.conformance.vectors import VectorError

if TYPE_CHECKING:
    from collections.abc import Mapping

FOLDER = "vectors"
"""Where the files stand in the site."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorFile:
    """One file: an ABI in one revision and role."""

    name: str
    href: str
    revision: str
    role: str
    tests: int
    notes: Mapping[str, str]
    groups: tuple[tuple[str, tuple[Mapping[str, Any], ...]], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AbiVectors:
    """The vectors of one ABI."""

    count: int
    files: tuple[VectorFile, ...]


def read_vectors(directory: Path | str) -> tuple[dict[str, AbiVectors], dict[str, bytes]]:
    """Return the vectors by ABI, and every file of the folder by its place in the site.

    Raises `VectorError` ``no-manifest`` for a folder that is no set of vectors, ``vectors`` for one that is damaged.
    """
    folder = Path(directory)
    problems = check(folder)
    if problems:
        more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise VectorError(f"{folder} is damaged: {problems[0]}{more}", hint=f"hvabi vectors -o {folder} writes it anew")
    copied: dict[str, bytes] = {}
    found: dict[str, list[VectorFile]] = {}
    for path in sorted(folder.glob("*.json")):
        data = path.read_bytes()
        copied[f"{FOLDER}/{path.name}"] = data
        content: dict[str, Any] = json.loads(data)
        if "groups" in content and "abi" in content:
            found.setdefault(content["abi"], []).append(_file(path.name, content))
    return {
        abi: AbiVectors(count=sum(item.tests for item in files), files=tuple(files)) for abi, files in found.items()
    }, copied


def _file(name: str, content: Mapping[str, Any]) -> VectorFile:
    groups = []
    for group in content["groups"]:
        config = ", ".join(
            f"{key} = {value}" for key, value in group["config"].items() if isinstance(value, (str, int))
        )
        groups.append((group["transport"] + (f", {config}" if config else ""), tuple(group["tests"])))
    return VectorFile(
        name=name,
        href=quote(name),
        revision=content["revision"],
        role=content["role"],
        tests=content["numberOfTests"],
        notes={flag: note["description"] for flag, note in content["notes"].items()},
        groups=tuple(groups),
    )
