"""The same conversion printed by two layers of one machine: the call at the top, the work below it."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from hvabi.traces.readers import LAYERS

if TYPE_CHECKING:
    from hvabi.traces.event import TraceEvent

REMEMBERED = 64
"""Calls in which the one from above is looked for."""


class Echoes:
    """Remembers the last calls.

    A call is an echo where it changes nothing and one of an upper layer asked for all of its pages. So a wrong guess
    can never change the state of a page: at worst a call without effect counts as an echo.
    """

    def __init__(self) -> None:
        self._last: deque[tuple[int, TraceEvent]] = deque(maxlen=REMEMBERED)
        self._top = len(LAYERS)

    def note(self, event: TraceEvent) -> None:
        """Remember a call."""
        layer = LAYERS.get(event.format)
        if layer is not None:
            if layer < self._top:
                self._top = layer
            self._last.append((layer, event))

    def is_echo(self, event: TraceEvent) -> bool:
        """Tell whether a call without effect only says what an upper layer said before."""
        layer = LAYERS.get(event.format)
        if layer is None or layer <= self._top:
            return False
        start, end = event.gpa, event.gpa + (event.pages << 12)
        return any(
            above < layer and other.to is event.to and other.gpa <= start and end <= other.gpa + (other.pages << 12)
            for above, other in self._last
        )
