"""Verdicts of two implementations on the same cases: where one ends differently from the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Results = list[dict[str, Any]]
"""Results as in the JSON of ``hvabi conform``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A case that ends differently with a real host, or seen by the agent, and with the bundled host adapter."""

    case: str
    real: str
    bundled: str

    @property
    def bad(self) -> bool:
        """Whether one of the two is a failure; a warning beside a pass is not."""
        return not {self.real, self.bundled} <= {"pass", "warn", "note"}

    def __str__(self) -> str:
        """Return it as a line."""
        return f"{self.case}: {self.real}, bundled {self.bundled}"


def differences(
    real: Iterable[Mapping[str, Any]], bundled: Iterable[Mapping[str, Any]]
) -> tuple[int, list[Difference]]:
    """Compare results with those of the bundled host adapter, case by case.

    A case that either did not run is left out. Whether the state was seen is no difference: a guest cannot see it.

    Args:
        real: results of one run, or of several one after another.
        bundled: results of the bundled host adapter.

    Returns:
        How many cases both ran, and those that ended differently.

    """
    ran, known = _verdicts(real), _verdicts(bundled)
    both = [case for case in ran if case in known]
    found = [Difference(case=case, real=ran[case], bundled=known[case]) for case in both if ran[case] != known[case]]
    return len(both), found


def _verdicts(results: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the verdict of each case that was run."""
    seen = {"pass-state-not-seen": "pass"}
    return {
        row["id"]: seen.get(row["verdict"], row["verdict"])
        for row in results
        if row["verdict"] not in ("skip", "not-run")
    }
