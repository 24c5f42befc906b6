"""The text of a rule and where it comes from, for people who have only its id."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from hvabi.abi.errors import HvAbiError
from hvabi.abi.registry import bundled

if TYPE_CHECKING:
    from hvabi.abi.specification import Source
    from hvabi.conformance.result import CaseResult


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleText:
    """A rule for reports. `url` is empty where the source has none."""

    id: str
    level: str
    binds: str
    text: str
    source: str
    url: str = ""


def rules_of(result: CaseResult) -> tuple[RuleText, ...]:
    """Return the rules that bear on a result: those of its findings, else the one that the case is about."""
    case = result.case
    ids = dict.fromkeys(finding.rule for finding in result.findings if finding.rule)
    if not ids and case.rules:
        ids = {case.rules[0]: None}
    found = (rule_text(case.abi, case.revision, name) for name in ids)
    return tuple(rule for rule in found if rule is not None)


@lru_cache(maxsize=4096)
def rule_text(abi: str, revision: str, rule: str) -> RuleText | None:
    """Return a rule of a bundled ABI, or None where there is no such ABI or rule."""
    try:
        spec = bundled(abi)
    except HvAbiError:
        return None
    known = [item for call in spec.calls.values() for item in call.rules if item.id == rule]
    # One id may stand for two forms of a rule; the one of this revision is meant.
    mine = [item for item in known if item.guard.revisions is None or revision in item.guard.revisions]
    for item in (*mine, *known):
        source = spec.sources.get(item.source)
        return RuleText(
            id=item.id,
            level=item.level,
            binds=item.binds,
            text=item.text,
            source=_source(source) if source else item.source,
            url=(source.url or "") if source else "",
        )
    return None


def _source(source: Source) -> str:
    return f"{source.title}, {source.revision}" if source.revision else source.title
