"""Parts of a story: rows of pages and bytes, and a request read back from the wire."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from hvabi.abi.errors import HvAbiError, show
from hvabi.abi.schema import near
from hvabi.abi.scope import Fields, Scope

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hvabi.abi.codec import MessageCodec
    from hvabi.abi.model import Pointer
    from hvabi.conformance.case import Memory, Pages, Ranges
    from hvabi.conformance.story import LocalStep

    Facts = Mapping[str, Pages]


class StoryError(HvAbiError):
    """A story does not fit its ABI. `pointer` leads to the place inside the story."""

    code = "story-value"

    def __init__(self, message: str, pointer: Pointer, *, code: str = "story-value", hint: str | None = None) -> None:
        super().__init__(message, code=code, hint=hint)
        self.pointer = pointer


class _Zeroes:
    """A source over what was placed: everything else is zero."""

    def __init__(self, regs: Mapping[str, int], mem: Memory) -> None:
        self._regs = regs
        self._mem = mem

    def register(self, name: str) -> int | None:
        return self._regs.get(name, 0)

    def read(self, block: str, address: int, size: int) -> bytes | None:
        out = bytearray(size)
        for start, data in self._mem:
            first, last = max(start, address), min(start + len(data), address + size)
            if first < last:
                out[first - address : last - address] = data[first - start : last - start]
        return bytes(out)


def read_back(codec: MessageCodec, regs: Mapping[str, int], mem: Memory) -> dict[str, Any]:
    """Return the fields of a request as a host finds them on the wire: integers, mappings, tuples of those."""
    source = _Zeroes(regs, mem)
    fields = Fields(codec.message.fields, lambda name: codec.placer.fetch(name, scope, source))
    scope = Scope(codec.static, request=fields)
    return {name: _open(fields[name]) for name in codec.message.fields}


def _open(item: Any) -> Any:
    if hasattr(item, "_fields"):
        return {name: _open(part) for name, part in zip(item._fields, item, strict=True)}
    if isinstance(item, tuple):
        return tuple(_open(part) for part in item)
    return int(item)


def memory_of(rows: Iterable[Any]) -> Memory:
    """Return raw bytes: rows of address, hex and how often."""
    return tuple((row[0], bytes.fromhex(row[1]) * (row[2] if len(row) > 2 else 1)) for row in rows)


def pages_of(rows: Iterable[Any], pointer: Pointer) -> Pages:
    """Return page ranges: rows of address and number. Raises `StoryError` where they are not sorted."""
    out = []
    for index, (gpa, pages) in enumerate(rows):
        _whole(gpa, (*pointer, index))
        out.append((gpa >> 12, (gpa >> 12) + pages))
    _sorted(out, pointer)
    return tuple(out)


def facts_of(given: Mapping[str, Any], known: Iterable[str], pointer: Pointer) -> Facts:
    """Return the pages of each fact. Raises `StoryError` for one that the ABI does not have, or rows not sorted."""
    names = tuple(known)
    for name in given:
        if name not in names:
            hint = near(name, names)
            raise StoryError(f"there is no fact {show(name)}", (*pointer, name), code="story-unknown", hint=hint)
    return {name: pages for name, rows in given.items() if (pages := pages_of(rows, (*pointer, name)))}


def ranges_of(rows: Iterable[Any], pointer: Pointer) -> Ranges:
    """Return page states: rows of address, number and state. Raises `StoryError` where they are not sorted."""
    out = []
    for index, (gpa, pages, state) in enumerate(rows):
        _whole(gpa, (*pointer, index))
        out.append((gpa >> 12, (gpa >> 12) + pages, state))
    _sorted([row[:2] for row in out], pointer)
    return tuple(out)


def _whole(gpa: int, pointer: Pointer) -> None:
    if gpa % 4096:
        raise StoryError(f"{gpa:#x} is not a multiple of 4 KiB", pointer)


def _sorted(rows: list[tuple[int, int]], pointer: Pointer) -> None:
    for one, other in pairwise(rows):
        if other[0] < one[1]:
            raise StoryError("the ranges are not sorted, or they overlap", pointer, code="story-order")


def local_of(rows: Iterable[Any], pointer: Pointer) -> tuple[LocalStep, ...]:
    """Return the local steps of a guest."""
    return tuple(
        (row["step"], row["when"], pages_of(row["pages"], (*pointer, index, "pages"))) for index, row in enumerate(rows)
    )
