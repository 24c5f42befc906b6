"""Platforms whose guests convert pages by calls of other ABIs: their row in the table, with the evidence."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from hvabi.abi.ready import read_plain, spec_root

if TYPE_CHECKING:
    from collections.abc import Mapping

FOLDERS = ("vmware",)
"""Folders of the files of platforms, in the order in which they are listed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """A call of a platform's own that is no conversion, told by the values of registers."""

    name: str
    isa: str
    instruction: str
    registers: Mapping[str, int]
    source: str
    doc: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """A hypervisor without a conversion call of its own.

    Attributes:
        calls_of: ids of the ABIs that its guests use.
        evidence: ``(source, finding)``: why it is believed to have none.
        sources: ``(id, title, revision)``.

    """

    id: str
    title: str
    vendor: str
    doc: str
    calls_of: tuple[str, ...]
    evidence: tuple[tuple[str, str], ...]
    sources: tuple[tuple[str, str, str], ...]
    leaves: tuple[Leaf, ...] = field(default=())


@lru_cache(maxsize=1)
def platforms() -> dict[str, Platform]:
    """Return every bundled platform by id. Raises `SpecError` for a file that cannot be read."""
    root = spec_root()
    found = [_read(read_plain(path)) for folder in FOLDERS for path in sorted((root / folder).glob("*.yaml"))]
    return {platform.id: platform for platform in found}


def _read(data: Any) -> Platform:
    return Platform(
        id=data["platform"],
        title=data["title"],
        vendor=data["vendor"],
        doc=data["doc"],
        calls_of=tuple(data["calls-of"]),
        evidence=tuple((item["source"], item["text"]) for item in data["evidence"]),
        sources=tuple((key, item["title"], str(item["revision"])) for key, item in data["sources"].items()),
        leaves=tuple(Leaf(**item) for item in data.get("leaves", ())),
    )


def leaves_of(regs: Mapping[str, int]) -> list[tuple[Platform, Leaf]]:
    """Return the calls of platforms that registers are, all registers of a call being given with its values."""
    return [
        (platform, leaf)
        for platform in platforms().values()
        for leaf in platform.leaves
        if all(regs.get(name) == value for name, value in leaf.registers.items())
    ]


__all__ = ["Leaf", "Platform", "leaves_of", "platforms"]
