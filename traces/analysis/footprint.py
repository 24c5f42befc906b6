"""Bytes to keep the state of a guest's pages: as ranges, as a bitmap, as the structures of a kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

RB_NODE_BYTES = 64
"""A node of Linux's interval tree on 64-bit machines, as kmalloc gives it out: struct interval_tree_node has 48 bytes,
an rb_node of 24 and 8 each for start, last and the subtree's last."""

XA_NODE_BYTES = 576
"""A node of Linux's XArray on 64-bit machines (struct xa_node with 64 slots of 8 bytes)."""

XA_SLOT_BITS = 6

Pages = tuple[int, int]
"""Pages [start, end)."""


def xarray_nodes(ranges: Iterable[Pages]) -> int:
    """Return how many nodes an XArray has with an entry for every page of sorted, disjoint ranges."""
    level = list(ranges)
    nodes = 0
    while level:
        above: list[Pages] = []
        for start, end in level:
            first, last = start >> XA_SLOT_BITS, (end - 1 >> XA_SLOT_BITS) + 1
            if above and first <= above[-1][1]:
                above[-1] = (above[-1][0], max(last, above[-1][1]))
            else:
                above.append((first, last))
        nodes += sum(end - start for start, end in above)
        if above == [(0, 1)]:
            break
        level = above
    return nodes


def complement(ranges: Sequence[Pages], pages: int) -> list[Pages]:
    """Return the pages of [0, pages) that are in none of the sorted, disjoint ranges."""
    out: list[Pages] = []
    at = 0
    for start, end in ranges:
        if start >= pages:
            break
        if start > at:
            out.append((at, start))
        at = max(at, end)
    if at < pages:
        out.append((at, pages))
    return out
