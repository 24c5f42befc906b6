"""A liar before it has its place: what the makers of liars yield."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hvabi.conformance.liars.liar import Planted

if TYPE_CHECKING:
    from hvabi.adapters.host import Host


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A liar without its place: kind and name for its id, what is wrong, the bug, and why it may be equivalent."""

    kind: str
    name: str
    what: str
    planted: Planted
    equivalent: str | None = None
    hints: tuple[str, ...] = ()


def engine(kind: str, name: str, bug: type[Host], *hints: str, equivalent: str | None = None) -> Made:
    """Return a liar whose host is of a class of hosts.py; its docstring says what is wrong."""
    what = (bug.__doc__ or "").strip()
    return Made(
        kind=kind,
        name=name,
        what=f"It {what[0].lower()}{what[1:]}",
        planted=Planted(host=bug),
        hints=hints,
        equivalent=equivalent,
    )
