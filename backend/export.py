"""The state of pages in the two forms that migration code has used: a bitmap and a list of ranges.

Logical forms only: one bit per page, and (start, end) pairs. How a particular interface packs them, and
into which structure, is for the specification of that interface.

Both forms know two states. A page that is not private counts as shared, so read-only sharing is lost.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

from hvabi.backend.model import GPA_PAGES, ModelError, PageState, Run
from hvabi.backend.rangemap import RangeMap

if TYPE_CHECKING:
    from collections.abc import Iterable

#: The longest bitmap that is made or read unless the caller says otherwise: 16 TiB of guest, 512 MiB.
MAX_BITMAP_PAGES = 1 << 32

_NOT_ALL_SET = re.compile(rb"[^\xff]")
_NOT_ALL_CLEAR = re.compile(rb"[^\0]")


class HasRuns(Protocol):
    """A `Backend` or a `RangeMap[PageState]`."""

    def runs(self, start: int, end: int) -> Iterable[Run[PageState]]:
        """Return the runs that make up [start, end), private ones too."""
        ...


def to_bitmap(
    source: HasRuns, start: int, pages: int, *, into: bytes | None = None, max_pages: int = MAX_BITMAP_PAGES
) -> bytes:
    """Return the states of pages [start, start + pages) as bits: 1 is private, 0 is not.

    Bit i, counted from the low bit of byte 0 upward, is page start + i. The result has
    ceil(pages / 8) bytes. The bits of the last byte behind the last page are zero, or those of the last
    byte of `into`, a bitmap of the same length that the caller had before.

    Raises:
        ModelError: `bad-pages`; `bitmap-too-large` above `max_pages`; `short-bitmap` for an `into` of
            another length.

    """
    size = _bitmap_size(start, pages, max_pages)
    bitmap = bytearray(b"\xff") * size
    if pages % 8:
        bitmap[-1] = (1 << pages % 8) - 1
    for run in source.runs(start, start + pages):
        if run.state != PageState.PRIVATE:
            _clear_bits(bitmap, run.start - start, run.end - start)
    if into is not None:
        if len(into) != size:
            raise _short(len(into), size)
        if pages % 8:
            bitmap[-1] |= into[-1] & ~((1 << pages % 8) - 1) & 0xFF
    return bytes(bitmap)


def from_bitmap(
    bitmap: bytes,
    start: int,
    pages: int,
    *,
    max_ranges: int | None = None,
    max_pages: int = MAX_BITMAP_PAGES,
) -> RangeMap[PageState]:
    """Read `pages` bits: 0 becomes shared, 1 private. Bits behind the last page are ignored.

    Takes time in the number of ranges and, at memory speed, in the number of bytes.

    Raises:
        ModelError: as for `to_bitmap`; `short-bitmap` when there are fewer bits than pages;
            `too-many-ranges` beyond `max_ranges`.

    """
    size = _bitmap_size(start, pages, max_pages)
    if len(bitmap) < size:
        raise _short(len(bitmap), size)
    found: RangeMap[PageState] = RangeMap()
    shared_from: int | None = None
    byte = 0
    while byte < size:
        # Jump over the bytes that go on with the current state, then take the next byte bit by bit.
        pattern = _NOT_ALL_SET if shared_from is None else _NOT_ALL_CLEAR
        match = pattern.search(bitmap, byte, size)
        if match is None:
            break
        byte = match.start()
        value = bitmap[byte]
        for bit in range(byte * 8, min(byte * 8 + 8, pages)):
            private = value & 1
            value >>= 1
            if private and shared_from is not None:
                _share(found, start + shared_from, start + bit, max_ranges)
                shared_from = None
            elif not private and shared_from is None:
                shared_from = bit
        byte += 1
    if shared_from is not None:
        _share(found, start + shared_from, start + pages, max_ranges)
    return found


def to_list(source: HasRuns, start: int = 0, end: int = GPA_PAGES) -> tuple[tuple[int, int], ...]:
    """Return the ranges (first page, page behind the last) in [start, end) that are not private, merged."""
    out: list[tuple[int, int]] = []
    for run in source.runs(start, end):
        if run.state == PageState.PRIVATE:
            continue
        if out and out[-1][1] == run.start:
            out[-1] = (out[-1][0], run.end)
        else:
            out.append((run.start, run.end))
    return tuple(out)


def from_list(pairs: Iterable[tuple[int, int]], *, max_ranges: int | None = None) -> RangeMap[PageState]:
    """Read a list of shared ranges; unsorted, overlapping and adjacent ones are merged.

    Raises:
        ModelError: `bad-pages` for a pair that is no page interval; `too-many-ranges` beyond `max_ranges`.

    """
    found: RangeMap[PageState] = RangeMap()
    for index, (start, end) in enumerate(pairs):
        if not 0 <= start <= end <= GPA_PAGES:
            raise ModelError("bad-pages", f"entry {index}, ({start:#x}, {end:#x}), is no page interval", index=index)
        _share(found, start, end, max_ranges)
    return found


def _bitmap_size(start: int, pages: int, max_pages: int) -> int:
    if start < 0 or pages < 0 or start + pages > GPA_PAGES:
        raise ModelError(
            "bad-pages", f"{pages} pages from {start:#x} do not lie in [0, 2**52)", start=start, pages=pages
        )
    if pages > max_pages:
        raise ModelError("bitmap-too-large", f"a bitmap of {pages} pages exceeds max_pages = {max_pages}", pages=pages)
    return (pages + 7) // 8


def _short(size: int, wanted: int) -> ModelError:
    return ModelError("short-bitmap", f"a bitmap of {size} bytes where {wanted} are needed", size=size, wanted=wanted)


def _clear_bits(bitmap: bytearray, start: int, end: int) -> None:
    first, last = start >> 3, end >> 3
    head, tail = (1 << (start & 7)) - 1, (0xFF << (end & 7)) & 0xFF
    if first == last:
        bitmap[first] &= head | tail
        return
    bitmap[first] &= head
    bitmap[first + 1 : last] = bytes(last - first - 1)
    if end & 7:
        bitmap[last] &= tail


def _share(found: RangeMap[PageState], start: int, end: int, max_ranges: int | None) -> None:
    if max_ranges is not None and found.would_count(start, end, PageState.SHARED) > max_ranges:
        raise ModelError("too-many-ranges", f"more than max_ranges = {max_ranges} shared ranges", max_ranges=max_ranges)
    found.set(start, end, PageState.SHARED)
