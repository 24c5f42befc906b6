"""What a manual is made from: the specifications, their comparison, the stories of bugs; read once for all pages."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from hvabi.abi.called import main_calls
from hvabi.abi.comparison import compare
from hvabi.abi.platforms import platforms
from hvabi.abi.registry import abi_ids, bundled, spec_root
from hvabi.conformance.release import release
from hvabi.conformance.stories import left_out, stories
from hvabi.publish.index import items
from hvabi.publish.linked import Names
from hvabi.publish.samples import samples
from hvabi.publish.trimmed import trimmed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hvabi.abi.comparison import Row
    from hvabi.abi.platforms import Platform
    from hvabi.abi.specification import Abi
    from hvabi.conformance.story import LeftOut, Story
    from hvabi.publish.index import Item
    from hvabi.publish.samples import Sample

VENDORS = {
    "kvm": "KVM",
    "amd": "AMD",
    "intel": "Intel",
    "microsoft": "Microsoft",
    "arm": "Arm",
    "ibm": "IBM",
    "riscv": "RISC-V",
    "common": "Common",
}
"""How vendors write themselves; another one is shown as its folder."""


@dataclass(frozen=True)
class Book:
    """Everything that the pages of a manual share."""

    abis: tuple[Abi, ...]

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """The comparison matrix."""
        return compare(self.abis)

    @cached_property
    def names(self) -> Mapping[str, Names]:
        """The names that each page explains, by ABI; under the empty text those of the pages about all."""
        found = {abi.id: Names(abi, self.abis) for abi in self.abis}
        return {**found, "": Names(None, self.abis)}

    @cached_property
    def stories(self) -> Mapping[str, tuple[Story, ...]]:
        """The stories of bugs by ABI."""
        return {abi.id: stories(abi.id) for abi in self.abis}

    @cached_property
    def samples(self) -> Mapping[str, tuple[Sample, ...]]:
        """The worked examples by ABI."""
        return {abi.id: samples(abi) for abi in self.abis}

    @cached_property
    def index(self) -> tuple[Item, ...]:
        """Everything that can be searched for."""
        return tuple(items(self))

    @cached_property
    def left_out(self) -> tuple[LeftOut, ...]:
        """Bugs that have no story."""
        return left_out()

    @cached_property
    def by_vendor(self) -> Mapping[str, tuple[Abi, ...]]:
        """The ABIs by vendor, in listing order."""
        found: dict[str, list[Abi]] = {}
        for abi in self.abis:
            found.setdefault(VENDORS.get(abi.vendor, abi.vendor), []).append(abi)
        return {vendor: tuple(members) for vendor, members in found.items()}

    @cached_property
    def platforms(self) -> tuple[Platform, ...]:
        """The platforms without a call of their own whose guests use one of the ABIs."""
        here = {abi.id for abi in self.abis}
        return tuple(platform for platform in platforms().values() if here & set(platform.calls_of))

    @property
    def version(self) -> str:
        """The version of hvabi."""
        return release()

    @cached_property
    def digest(self) -> str:
        """The first digits of the SHA-256 over the specification files: what the pages were made from."""
        total = hashlib.sha256()
        for path in sorted(spec_root().rglob("*.yaml"), key=lambda path: path.relative_to(spec_root()).as_posix()):
            total.update(path.relative_to(spec_root()).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
        return total.hexdigest()[:12]

    def cells(self, abi: Abi) -> tuple[Row, ...]:
        """Return the rows of the matrix of one ABI."""
        return tuple(row for row in self.rows if row.abi == abi.id)

    def lead(self, abi: Abi) -> str:
        """Return what an ABI is for: the first sentence of its text."""
        return abi.doc.split(". ")[0].rstrip(".") + "."

    def calls(self, abi: Abi) -> int:
        """Return how many calls change pages or ask about them."""
        return len(main_calls(abi))


def read_book(abis: Iterable[str] = ()) -> Book:
    """Return the book of some ABIs, by default of all. Raises `UsageError` ``unknown-abi``."""
    return Book(tuple(trimmed(bundled(name)) for name in (tuple(abis) or abi_ids())))


def source_path(abi: Abi) -> str:
    """Return the path of an ABI's file inside the package, the same on every machine."""
    return "/".join(Path(abi.path).parts[-3:])
