"""Small parts of the runner's model of a host: what a guest wrote, what the host chooses, what is not done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvabi.conformance.bytesmap import Bytes, Spans

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hvabi.conformance.case import Expected, Memory, Pages, Ranges


def undone(state: Ranges, believed: Spans, to: str) -> list[tuple[int, int]]:
    """Return the believed pages that are not in the state."""
    if to != "private":
        return believed.minus(Spans((start, end) for start, end, word in state if word == to)).spans
    others = Spans((start, end) for start, end, _ in state)
    return believed.minus(believed.minus(others)).spans


def untrue(facts: Mapping[str, Pages], believed: Spans, wanted: Mapping[str, bool]) -> list[tuple[int, int]]:
    """Return the believed pages that have not the facts for which the conversion stands."""
    found: list[tuple[int, int]] = []
    for name, value in wanted.items():
        true = Spans(facts.get(name, ()))
        without = believed.minus(true)
        found += (without if value else believed.minus(without)).spans
    return Spans(found).spans


def visible(mem: Memory, memory: Bytes) -> Memory:
    """Return the pages that the guest wrote to now, with what lies there from before."""
    pages = Spans((at & ~0xFFF, (at + len(data) + 0xFFF) & ~0xFFF) for at, data in mem)
    return tuple((start, memory.read(start, end - start)) for start, end in pages.spans)


def with_chosen(expected: Expected) -> dict[str, int]:
    """Return the registers of an answer; what the host may choose, and must not be 0, is 1."""
    regs = dict(expected.regs)
    for name, mask in expected.nonzero:
        if not regs.get(name, 0) & mask:
            regs[name] = regs.get(name, 0) | (mask & -mask)
    return regs


__all__ = ["undone", "untrue", "visible", "with_chosen"]
