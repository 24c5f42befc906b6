"""A request as generators vary it, and decoded requests as plain fields."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hvabi.conformance.case import Held, Inject, Pages, Ranges, Setup

if TYPE_CHECKING:
    from collections.abc import Mapping

PLACE = 0x200
"""First page of the ranges that are converted: aligned to 2 MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A request with all that bears on its answer; what generators vary.

    `way` are requests that are sent before it, from the state `before` on and under the same setup: they give the
    handles that it is about. `held` is what the host then keeps under handles.
    """

    fields: Mapping[str, Any]
    setup: Setup = field(default_factory=Setup)
    cpl: int = 0
    regs: Mapping[str, int] = field(default_factory=dict)
    before: Ranges = ()
    facts: Mapping[str, Pages] = field(default_factory=dict)
    inject: Inject | None = None
    call: str | None = None
    way: tuple[Question, ...] = ()
    held: Held = field(default_factory=Held)


def as_fields(value: Any) -> dict[str, Any]:
    """Return a decoded request as the mapping that oracle and codec take."""
    return {name: _open(item) for name, item in zip(value._fields, value, strict=True)}


def _open(item: Any) -> Any:
    if hasattr(item, "_fields"):
        return {name: _open(part) for name, part in zip(item._fields, item, strict=True)}
    if isinstance(item, tuple):
        return tuple(_open(part) for part in item)
    return int(item)


__all__ = ["PLACE", "Question", "as_fields"]
