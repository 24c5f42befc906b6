"""Which rules have cases, and which have none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hvabi.abi.registry import abi_ids, bundled

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hvabi.abi.calls import Call, Rule
    from hvabi.conformance.case import Case


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleCoverage:
    """One rule of one ABI and how many cases name it.

    Attributes:
        where: revisions and profiles in which the rule exists, for people.
        cases: number of cases, over all revisions, roles, transports and profiles given.
        first: id of the first case, or None.
        exempt: why no case of the protocol can show it, or None.

    """

    abi: str
    rule: str
    binds: str
    level: str
    check: str
    where: str
    cases: int
    first: str | None
    exempt: str | None = None

    @property
    def missing(self) -> bool:
        """Whether a ``must`` has no case and no reason for it."""
        return self.level == "must" and not self.cases and self.exempt is None


def _exempt(call: Call, rule: Rule) -> str | None:
    if rule.binds == "guest" and (call.guest is None or call.convert is None):
        return "the protocol lets guests convert pages only; this call converts none"
    return None


def coverage(cases: Iterable[Case], abis: Iterable[str] | None = None) -> tuple[RuleCoverage, ...]:
    """Return every rule of the ABIs (all that are no drafts by default) with the number of its cases."""
    counts: dict[tuple[str, str], list[str]] = {}
    for case in cases:
        for covered in case.rules:
            counts.setdefault((case.abi, covered), []).append(case.id)
    rows: list[RuleCoverage] = []
    for name in abis if abis is not None else [abi for abi in abi_ids() if not bundled(abi).draft]:
        for call in bundled(name).calls.values():
            for rule in call.rules:
                ids = counts.get((name, rule.id), [])
                where = [*(rule.guard.revisions or ()), *(f"{key}={value}" for key, value in rule.guard.policy.items())]
                rows.append(
                    RuleCoverage(
                        abi=name,
                        rule=rule.id,
                        binds=rule.binds,
                        level=rule.level,
                        check=rule.check,
                        where=", ".join(where),
                        cases=len(ids),
                        first=ids[0] if ids else None,
                        exempt=_exempt(call, rule),
                    )
                )
    return tuple(rows)
