"""Which cases of all are run."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from hvabi.abi.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hvabi.conformance.case import Case


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What cases must have; an empty tuple asks for nothing. Values of one attribute are alternatives.

    Attributes:
        abis: ids of ABIs, ``ID`` or ``ID@REVISION``.
        roles, transports, levels, kinds: values of the case's attribute.
        rules: ids of rules that the case covers.
        ids: ids of cases, or globs of them with ``*``, ``?`` and ``[…]``.

    """

    abis: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    transports: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    levels: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()

    def takes(self, case: Case) -> bool:
        """Whether a case is selected."""
        return (
            (not self.abis or case.abi in self.abis or f"{case.abi}@{case.revision}" in self.abis)
            and (not self.roles or case.role in self.roles)
            and (not self.transports or case.transport in self.transports)
            and (not self.rules or not set(self.rules).isdisjoint(case.rules))
            and (not self.levels or case.level in self.levels)
            and (not self.kinds or case.kind in self.kinds)
            and (not self.ids or any(matches(case.id, pattern) for pattern in self.ids))
        )

    def __str__(self) -> str:
        parts = [f"{name} {' or '.join(values)}" for name in self.__slots__ if (values := getattr(self, name))]
        return ", ".join(parts) or "everything"


def matches(ident: str, pattern: str) -> bool:
    """Whether a case id is the pattern or matches it as a glob."""
    return ident == pattern or fnmatchcase(ident, pattern)


def select(cases: Iterable[Case], selection: Selection, *, profile: str = "spec") -> list[Case]:
    """Return the selected cases in their order, those of other profiles left out.

    Raises `UsageError` ``nothing-selected`` where there is none, and ``twice`` where two have the same id.
    """
    found: list[Case] = []
    seen: set[str] = set()
    total = 0
    for case in cases:
        total += 1
        if (case.profile is None or case.profile == profile) and selection.takes(case):
            if case.id in seen:
                raise UsageError(f"two cases have the id {case.id}", code="twice")
            seen.add(case.id)
            found.append(case)
    if not found:
        raise UsageError(
            f"no case is selected by {selection} under profile {profile}",
            code="nothing-selected",
            hint=f"there are {total} cases; loosen the selection",
        )
    return found


__all__ = ["Selection", "matches", "select"]
