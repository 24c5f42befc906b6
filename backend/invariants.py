"""The invariants of a RangeMap, executable."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hvabi.backend.statecodes import S, StateCodes


class InvariantError(AssertionError):
    """A RangeMap is broken: a bug in this package. `code` names the invariant."""

    def __init__(self, code: str) -> None:
        super().__init__(f"the range map breaks its invariant {code!r}")
        self.code = code


def check_chunks(
    firsts: Sequence[int],
    all_bounds: Sequence[Sequence[int]],
    all_codes: Sequence[Sequence[int]],
    chunk_size: int,
    count: int,
) -> None:
    """Prove boundaries sorted, neighbours different, chunks well filled, and the count right."""
    _require("chunks", len(firsts) == len(all_bounds) == len(all_codes) >= 1)
    _require("first-chunk", firsts[0] == -1)
    previous, left, ranges, size_before = -1, 0, 0, 0
    for c, (first, bounds, codes) in enumerate(zip(firsts, all_bounds, all_codes, strict=True)):
        _require("columns", len(bounds) == len(codes))
        _require("chunk-size", len(bounds) <= chunk_size)
        if c:
            _require("chunk-first", len(bounds) > 0 and bounds[0] == first)
            _require("chunk-fill", size_before + len(bounds) > chunk_size // 2)
        size_before = len(bounds)
        for bound, code in zip(bounds, codes, strict=True):
            _require("sorted", bound > previous)
            _require("coalesced", code != left)
            previous, left = bound, code
            ranges += code != 0
    _require("count", ranges == count)


def check_table(table: StateCodes[S], all_codes: Sequence[Sequence[int]]) -> None:
    """Prove that each live state has one code and each stored code a live state."""
    free = set(table.free)
    live = {code: state for code, state in enumerate(table.states) if code not in free}
    _require("states", table.code_of == {state: code for code, state in live.items()})
    _require("codes", all(code in live for codes in all_codes for code in set(codes)))


def _require(code: str, holds: bool) -> None:
    if not holds:
        raise InvariantError(code)
