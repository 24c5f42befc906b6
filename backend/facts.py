"""Page facts: what an ABI knows of a page beside its state (accepted, validated, pinned)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hvabi.backend.model import Change, ModelError, Run, Status
from hvabi.backend.rangemap import RangeMap

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@dataclass(frozen=True, slots=True)
class FactOutcome:
    """How setting a fact ended: `Status.DONE`, or `Status.LIMIT` and nothing changed.

    `changed` lists the runs whose value is now another one.
    """

    status: Status
    changed: tuple[Change[bool], ...] = ()


class Facts:
    """One bounded map from page numbers to true or false for each declared fact.

    Every fact is false for every page that was never set. `max_ranges` bounds the true ranges of each
    fact by itself; None means no bound. Unknown names raise `ModelError` `unknown-fact`.
    """

    def __init__(self, names: Iterable[str] = (), max_ranges: int | None = None) -> None:
        if max_ranges is not None and max_ranges < 0:
            raise ModelError("bad-bound", f"max_ranges must not be negative, got {max_ranges}", max_ranges=max_ranges)
        self.max_ranges = max_ranges
        self._maps: dict[str, RangeMap[bool]] = {}
        for name in names:
            if not name or name in self._maps:
                raise ModelError("bad-fact", f"a fact's name must be unique and not empty: {name!r}", name=name)
            self._maps[name] = RangeMap(False)

    @property
    def names(self) -> tuple[str, ...]:
        """The declared facts, in the order of their declaration."""
        return tuple(self._maps)

    @property
    def count(self) -> int:
        """The number of ranges stored over all facts."""
        return sum(each.count for each in self._maps.values())

    @property
    def memory_bytes(self) -> int:
        """Bytes that the stored ranges take in this process."""
        return sum(each.memory_bytes for each in self._maps.values())

    def __iter__(self) -> Iterator[str]:
        return iter(self._maps)

    def map_of(self, name: str) -> RangeMap[bool]:
        """Return the map of one fact; changing it by hand goes past the bound."""
        try:
            return self._maps[name]
        except KeyError:
            known = ", ".join(self._maps) or "none"
            raise ModelError("unknown-fact", f"no fact is called {name!r} (declared: {known})", name=name) from None

    def set(self, name: str, start: int, end: int, value: bool) -> FactOutcome:
        """Make a fact true or false for [start, end); at the bound, refuse what would add a range."""
        each = self.map_of(name)
        bound = self.max_ranges
        # The bound holds now, so what adds no range passes without being asked for.
        if bound is not None and each.count + 2 > bound and each.would_count(start, end, value) > bound:
            return FactOutcome(Status.LIMIT)
        return FactOutcome(Status.DONE, each.set(start, end, bool(value)))

    def uniform(self, name: str, start: int, end: int, value: bool) -> bool:
        """Tell whether a fact has this value for every page of [start, end); true for an empty interval."""
        return self.map_of(name).uniform(start, end, value)

    def first_other(self, name: str, start: int, end: int, value: bool) -> int | None:
        """Return the first page of [start, end) for which a fact does not have this value, or None."""
        return self.map_of(name).first_other(start, end, value)

    def runs(self, name: str) -> tuple[Run[bool], ...]:
        """Return the ranges for which a fact is true, merged and sorted."""
        return tuple(self.map_of(name))
