"""Sparse bytes: a byte for every address, stored page by page where one was written, and sets of addresses."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

from hvabi.backend.model import PAGE_SHIFT, PAGE_SIZE, ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator


class SparseBytes:
    """A store of bytes over 64-bit addresses.

    A byte that was never put is taken from `fill`, repeated over the address space from address 0. At
    most `max_pages` pages of 4 KiB are stored; `ModelError` `memory-full` beyond that.
    """

    def __init__(self, fill: bytes = b"\0", max_pages: int = 1 << 14) -> None:
        if not 1 <= len(fill) <= PAGE_SIZE or PAGE_SIZE % len(fill):
            raise ModelError("bad-fill", f"fill must have 1, 2, 4 … 4096 bytes, not {len(fill)}", size=len(fill))
        # A length that divides the page makes every fresh page the same.
        self._fresh = fill * (PAGE_SIZE // len(fill))
        self._max_pages = max_pages
        self._pages: dict[int, bytearray] = {}

    @property
    def page_count(self) -> int:
        """The number of pages stored."""
        return len(self._pages)

    def get(self, address: int, size: int) -> bytes:
        """Return the `size` bytes from `address` on."""
        page, offset = address >> PAGE_SHIFT, address & (PAGE_SIZE - 1)
        if offset + size <= PAGE_SIZE:
            return bytes(self._pages.get(page, self._fresh)[offset : offset + size])
        last = (address + size - 1) >> PAGE_SHIFT
        whole = b"".join(self._pages.get(each, self._fresh) for each in range(page, last + 1))
        return whole[offset : offset + size]

    def put(self, address: int, data: bytes) -> None:
        """Store bytes from `address` on; all of them or, when the store is full, none."""
        if not data:
            return
        first, last = address >> PAGE_SHIFT, (address + len(data) - 1) >> PAGE_SHIFT
        if first == last and (first in self._pages or len(self._pages) < self._max_pages):
            offset = address & (PAGE_SIZE - 1)
            stored = self._pages.get(first)
            if stored is None:
                stored = self._pages[first] = bytearray(self._fresh)
            stored[offset : offset + len(data)] = data
            return
        new = sum(1 for page in range(first, last + 1) if page not in self._pages)
        if len(self._pages) + new > self._max_pages:
            raise ModelError(
                "memory-full",
                f"writing {len(data)} bytes at {address:#x} needs more than {self._max_pages} stored pages",
                gpa=address,
                size=len(data),
            )
        done = 0
        for page in range(first, last + 1):
            offset = (address + done) & (PAGE_SIZE - 1)
            part = data[done : done + PAGE_SIZE - offset]
            stored = self._pages.get(page)
            if stored is None:
                stored = self._pages[page] = bytearray(self._fresh)
            stored[offset : offset + len(part)] = part
            done += len(part)

    def clear(self) -> None:
        """Forget everything that was put."""
        self._pages.clear()


class ByteSet:
    """A set of addresses: the sorted edges of its spans, so at an odd place a span ends."""

    __slots__ = ("_edges",)

    def __init__(self) -> None:
        self._edges: list[int] = []

    def add(self, start: int, end: int) -> None:
        """Take in [start, end), which is not empty."""
        edges = self._edges
        i, j = bisect_left(edges, start), bisect_right(edges, end)
        edges[i:j] = [*(() if i & 1 else (start,)), *(() if j & 1 else (end,))]

    def gaps(self, start: int, end: int) -> list[tuple[int, int]]:
        """Return what of [start, end) is not in the set, in order."""
        edges = self._edges
        i = bisect_right(edges, start)
        j = bisect_left(edges, end, i)
        bounds = [*(() if i & 1 else (start,)), *edges[i:j], *(() if j & 1 else (end,))]
        return list(zip(bounds[::2], bounds[1::2], strict=True))

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Return the spans [start, end), joined and in order."""
        return iter(list(zip(self._edges[::2], self._edges[1::2], strict=True)))
