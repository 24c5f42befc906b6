"""What the two kinds of cases share: the steps of a verdict, and how strict a finding is."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from hvabi.abi.registry import bundled
from hvabi.conformance.result import Exchanged, Finding, Verdict

if TYPE_CHECKING:
    from hvabi.conformance.case import Case

LEVELS = ("unspecified", "may", "observed", "should", "must")
"""Levels, weakest first."""


class Unseen(Exception):  # how a case ends that cannot be judged further
    """The case cannot go on; its verdict is `verdict`."""

    def __init__(self, verdict: Verdict, message: str) -> None:
        super().__init__(message)
        self.verdict = verdict
        self.message = message


@dataclass(slots=True)
class Outcome:
    """What a case has shown so far."""

    case: Case
    profile: str
    findings: list[tuple[Finding, str]] = field(default_factory=list)
    exchanged: list[Exchanged] = field(default_factory=list)
    policies: dict[str, str] = field(default_factory=dict)
    seen: bool = True

    def add(self, finding: Finding, level: str | None = None) -> None:
        """Note a finding. Its level is that of its rule, never above that of the case."""
        self.findings.append((finding, level or self.level_of(finding.rule)))

    def level_of(self, rule: str | None) -> str:
        """Return how strict an expectation is: that of its rule, at most that of the case."""
        own = rule_levels(self.case.abi).get(rule, self.case.level) if rule is not None else self.case.level
        return min(own, self.case.level, key=LEVELS.index)

    def show(self, policy: str, value: str) -> None:
        """Note a policy value; two different ones in one case are a finding."""
        before = self.policies.setdefault(policy, value)
        if before != value:
            text = Finding(what=f"policy {policy}", expected=f"{before}, as before", found=value)
            self.findings.append((text, "must"))

    @property
    def failed(self) -> bool:
        """Whether there is a finding that fails the case."""
        return any(self.verdict_of(level) is Verdict.FAIL for _, level in self.findings)

    def verdict_of(self, level: str) -> Verdict:
        """Return what a finding of a level comes to."""
        if level == "must" or (level == "observed" and self.profile != "spec"):
            return Verdict.FAIL
        return Verdict.WARN if level == "should" else Verdict.NOTE

    def verdict(self) -> tuple[Verdict, str]:
        """Return the verdict and one line that says why."""
        for wanted in (Verdict.FAIL, Verdict.WARN, Verdict.NOTE) if self.findings else ():
            found = [finding for finding, level in self.findings if self.verdict_of(level) is wanted]
            if found:
                more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
                return wanted, f"{found[0]}{more}"
        return (Verdict.PASS, "") if self.seen else (Verdict.PASS_UNSEEN, "the implementation has no query")


@lru_cache(maxsize=64)
def rule_levels(abi: str) -> dict[str | None, str]:
    """Return the level of every rule of an ABI."""
    return {rule.id: rule.level for call in bundled(abi).calls.values() for rule in call.rules}


__all__ = ["LEVELS", "Outcome", "Unseen", "rule_levels"]
