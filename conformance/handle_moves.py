"""Moves of a sequence that are about handles: bring a part of a region, bring more of one, take one back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hvabi.conformance.generate.question import Question, as_fields
from hvabi.conformance.generate.way import first_handle, in_parts

if TYPE_CHECKING:
    from hvabi.conformance.case import Held, Setup
    from hvabi.conformance.generate.basis import Basis
    from hvabi.conformance.moves import Move

_MOST_AT_ONCE = 3


class Regions:
    """What the caller still has to bring for regions that it began.

    Args:
        basis: that of the call that gives handles.

    """

    def __init__(self, basis: Basis) -> None:
        self.basis = basis
        self.first = first_handle(basis)
        calls = {call.handle.does: call.name for call in basis.abi.calls.values() if call.handle is not None}
        self._more = basis.of_call(calls["continue"]) if "continue" in calls else None
        self._closing = basis.of_call(calls["close"]) if "close" in calls else None
        #: Elements of each region that no call has brought yet, by the model's number.
        self._rest: dict[int, tuple[Any, ...]] = {}

    def forget(self) -> None:
        """Begin anew."""
        self._rest.clear()

    def question(self, move: Move, held: Held, setup: Setup) -> Question | None:
        """Return the request of a move, None where it makes none here."""
        match move.what:
            case "begin":
                return self._begin(move, held)
            case "more" if self._more is not None:
                unfinished = [region.number for region in held.regions if not region.complete]
                return self._go_on(self._more, move, unfinished, setup)
            case "back" if self._closing is not None and held.given:
                numbers = [region.number for region in held.regions]
                if not numbers or move.broken % 4 == 0:
                    numbers = list(range(self.first, self.first + held.given))
                return self._with(self._closing, setup, numbers[move.broken // 4 % len(numbers)])
            case _:
                return None

    def _begin(self, move: Move, held: Held) -> Question | None:
        question, rest = in_parts(self.basis, move.start, max(move.pages, 2), move.to)
        if question is None or not rest:
            return None
        self._rest[self.first + held.given] = rest
        return question

    def _go_on(self, more: Basis, move: Move, unfinished: list[int], setup: Setup) -> Question | None:
        if not unfinished:
            return None
        number = unfinished[move.broken % len(unfinished)]
        at_once = 1 + move.pages % _MOST_AT_ONCE
        items, left = self._rest.get(number, ())[:at_once], self._rest.get(number, ())[at_once:]
        if not items:
            return None
        self._rest[number] = left
        use = more.call.handle
        return self._with(more, setup, number, **{use.list or "": items} if use is not None else {})

    @staticmethod
    def _with(basis: Basis, setup: Setup, number: int, **more: Any) -> Question:
        use = basis.call.handle
        assert use is not None  # it is found by that
        fields = basis.codec(setup).complete({use.of or "": number, **more})
        return Question(fields=as_fields(fields), call=basis.call.name)


__all__ = ["Regions"]
