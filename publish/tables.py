"""Markdown tables from the specifications, kept up to date inside files of the repository."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hvabi.abi.errors import UsageError
from hvabi.abi.platforms import platforms
from hvabi.abi.registry import abi_ids, bundled

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from hvabi.abi.platforms import Platform
    from hvabi.abi.specification import Abi
from hvabi.abi.whole_file import write_whole

FILES = ("README.md",)
"""Files of the repository with generated parts."""


def abi_table() -> str:
    """Return the table of all ABIs as Markdown."""
    rows = ["| ABI | what it is | who asks whom | transports | rules |", "|---|---|---|---|---|"]
    rows += [_row(bundled(name)) for name in abi_ids()]
    rows += [_without(platform) for platform in platforms().values()]
    return "\n".join(rows)


def _without(platform: Platform) -> str:
    """Return the row of a platform that has no call of its own."""
    used = ", ".join(f"`{name}`" for name in platform.calls_of)
    return f"| *{platform.id}* | {platform.title} has no call of its own: its guests use {used} | | | |"


def _row(abi: Abi) -> str:
    revisions = " · ".join(abi.revisions) if len(abi.revisions) > 1 else ""
    name = f"`{abi.id}`" + (f" ({revisions})" if revisions else "") + (" *draft*" if abi.draft else "")
    rules = {rule.id for call in abi.calls.values() for rule in call.rules}
    transports = ", ".join(f"`{transport}`" for transport in abi.transports)
    return f"| {name} | {abi.title} | {abi.roles['guest']} → {abi.roles['host']} | {transports} | {len(rules)} |"


def parts() -> Mapping[str, str]:
    """Return every generated part by the name in its markers."""
    return {"abis": abi_table()}


def fill(text: str, path: str) -> str:
    """Return a file's text with its generated parts renewed.

    Raises `UsageError` ``unknown-part`` for a marker that names no part.
    """
    known = parts()

    def renewed(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in known:
            raise UsageError.unknown("part", name, known)
        return f"<!-- generated: {name} -->\n{known[name]}\n<!-- end -->"

    return re.sub(r"<!-- generated: ([a-z-]+) -->\n.*?<!-- end -->", renewed, text, flags=re.S)


def stale(root: Path, *, write: bool) -> list[str]:
    """Return the files below `root` whose generated parts are out of date; with `write` bring them up to date."""
    found = []
    for name in FILES:
        path = root / name
        if not path.is_file():
            raise UsageError(f"{path} does not exist", code="no-repository", hint="run this in a checkout of hvabi")
        old = path.read_text(encoding="utf-8")
        new = fill(old, name)
        if new != old:
            found.append(name)
            if write:
                write_whole(path, new)
    return found
