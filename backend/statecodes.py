"""State codes: a small number for each state of a RangeMap, so that a boundary needs one byte for it."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Hashable, Iterable, MutableSequence
from typing import Generic, TypeVar

S = TypeVar("S", bound=Hashable)
Codes = MutableSequence[int]


def _wide(codes: Iterable[int]) -> array[int]:
    return array("I", tuple(codes))  # array() would take a bytearray for the raw bytes of its items


class StateCodes(Generic[S]):
    """The states of one map and their codes. Code 0 is the default state for good.

    `states` and `code_of` are the two directions, `free` the codes without a state, and `pack` makes a
    sequence of codes: one byte each while no code is above 255, four bytes each from then on.
    """

    __slots__ = ("_sweep_at", "code_of", "free", "pack", "states")

    def __init__(self, default: S) -> None:
        self.states: list[S] = [default]
        self.code_of: dict[S, int] = {default: 0}
        self.free: list[int] = []
        self.pack: Callable[[Iterable[int]], Codes] = bytearray
        self._sweep_at = 256

    def add(self, state: S, chunks: list[Codes]) -> int:
        """Give a new state a code; `chunks` hold all codes in use and may be replaced by wider ones."""
        if not self.free and len(self.states) >= self._sweep_at:
            self._sweep(chunks)
        if self.free:
            code = self.free.pop()
            self.states[code] = state
        else:
            code = len(self.states)
            self.states.append(state)
            if code == 256:
                self.pack = _wide
                chunks[:] = [_wide(codes) for codes in chunks]
        self.code_of[state] = code
        return code

    def copy(self) -> StateCodes[S]:
        """Return a table of its own with the same codes."""
        new = StateCodes(self.states[0])
        new.states = self.states[:]
        new.code_of = self.code_of.copy()
        new.free = self.free[:]
        new.pack = self.pack
        new._sweep_at = self._sweep_at
        return new

    def _sweep(self, chunks: list[Codes]) -> None:
        """Free the codes that no range has any more; a map of epochs sees a new state with every set."""
        used = {0}
        for codes in chunks:
            used.update(codes)
        for code, state in enumerate(self.states):
            if code not in used:
                del self.code_of[state]
                self.states[code] = self.states[0]
                self.free.append(code)
        self._sweep_at = max(256, 2 * len(used))
