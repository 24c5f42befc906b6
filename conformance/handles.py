"""Handles that an implementation gives out: learnt from its answers, sent in later requests, never compared.

Cases have the model's numbers. Each stands for whatever the implementation gave in its place.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hvabi.conformance.case import Held

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hvabi.conformance.case import Expected, Handle


class Handles:
    """The implementation's handles of one case so far, by the model's numbers."""

    def __init__(self) -> None:
        self._known: dict[int, int] = {}
        self._held = Held()

    def sent(self, regs: Mapping[str, int], handles: tuple[Handle, ...]) -> dict[str, int] | None:
        """Return the registers of a request with the implementation's handles.

        None where one was never given, or where a number that must be no handle is one here: of another region.
        """
        out = dict(regs)
        for handle in handles:
            if handle.number not in self._known:
                return None
            number = self._known[handle.number] ^ handle.flipped
            meant = handle.number if not handle.flipped else -1
            if number in self._alive(self._held, meant):
                return None
            _place(out, handle, number)
        return out

    def expected(self, one: Expected, got: Mapping[str, int], sent: Mapping[str, int]) -> Expected:
        """Return a right answer with the implementation's handles; of a new handle every number is right."""
        if not one.chosen:
            return one
        regs = dict(one.regs)
        for handle in one.chosen:
            _place(regs, handle, self._known.get(handle.number, _taken(handle, {**sent, **got})))
        return replace(one, regs=regs)

    def learn(self, one: Expected, got: Mapping[str, int], sent: Mapping[str, int]) -> str | None:
        """Take the handles out of an answer that is right; return what is wrong with a new one, or None."""
        self._held = one.held
        for handle in one.chosen:
            if handle.number in self._known and self._is_alive(handle.number, one.held):
                continue
            number = _taken(handle, {**sent, **got})
            twin = [other for other in self._alive(one.held, handle.number) if other == number]
            self._known[handle.number] = number
            if twin:
                return f"{number:#x}, which another region has"
        return None

    def _alive(self, held: Held, but: int) -> list[int]:
        return [
            self._known[region.number]
            for region in held.regions
            if region.number != but and region.number in self._known
        ]

    @staticmethod
    def _is_alive(number: int, held: Held) -> bool:
        return any(region.number == number for region in held.regions)


def _taken(handle: Handle, regs: Mapping[str, int]) -> int:
    """Return the number that lies where a handle lies."""
    number = 0
    for register, lo, bits, at in handle.places:
        number |= (regs.get(register, 0) >> lo & (1 << bits) - 1) << at
    return number


def _place(regs: dict[str, int], handle: Handle, number: int) -> None:
    """Lay a number where a handle lies."""
    for register, lo, bits, at in handle.places:
        mask = (1 << bits) - 1 << lo
        regs[register] = (regs.get(register, 0) & ~mask) | (number >> at << lo & mask)


__all__ = ["Handles"]
