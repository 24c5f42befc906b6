"""Cases from rules: each rule broken alone, kept just at its limit, and broken together with a later one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvabi.conformance.generate.basis import PLACE, Basis, Question, host_rules
from hvabi.conformance.generate.judged import Judged, compose, judge
from hvabi.conformance.generate.variants import variants

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hvabi.abi.calls import Rule
    from hvabi.conformance.case import Case, Level

MOST_BROKEN = 4
"""Most cases that break one rule alone by one field, per transport."""
MOST_BROKEN_AGAIN = 2
"""The same on the transports behind the first, which carry the same fields."""
MOST_ALONE = 12
"""Most cases that break one rule alone, per transport."""
MOST_KEPT = 6
"""Most cases that keep one rule just at its limit, per transport."""
_SHAPES = ((PLACE, 1, "shared"), (PLACE, 3, "private"), (PLACE, 512, "shared"))
_SMALL_THEN_LARGE = (PLACE + 511, 513, "private")
_EDGES = ("limit", "low", "high", "wrap", "unit", "aligned", "half", "wanted", "size", "fact")


def _changed(question: Question, changed: Question) -> tuple[str, ...]:
    """Return the fields in which two questions differ: parts of words, and lists that differ behind element 0."""
    found: list[str] = []
    for name, item in question.fields.items():
        other = changed.fields.get(name)
        if isinstance(item, dict) and isinstance(other, dict):
            found += [f"{name}.{part}" for part in item if other.get(part) != item[part]]
        elif isinstance(item, tuple) and isinstance(other, tuple) and item[:1] == other[:1] and item != other:
            found.append(f"{name}[1:]")
        elif other != item:
            found.append(name)
    return tuple(found)


def bases(basis: Basis) -> list[Question]:
    """Return right requests of several shapes."""
    granule = basis.granule()
    found = []
    guest = basis.call.guest
    sizes = guest.element_pages if guest is not None else ()
    # Where elements have several sizes, a large one that is not the first.
    for start, pages, to in (*_SHAPES, *((_SMALL_THEN_LARGE,) if len(sizes) > 1 else ())):
        if pages > 3 and basis.single_pages:
            continue
        question = basis.question(start, -(-pages // granule) * granule, to)
        if question is not None:
            found.append(question)
    return found


def _level(rule: Rule) -> Level:
    return rule.level


class RuleCases:
    """Finds, for one basis, requests that break or just keep each rule."""

    def __init__(self, basis: Basis) -> None:
        self.basis = basis
        carrying = [t.name for t in basis.abi.transports.values() if basis.call.request in t.placements]
        self.first = basis.transport == carrying[0]
        self.most = MOST_BROKEN if self.first else MOST_BROKEN_AGAIN
        self.bases = bases(basis)
        self.found: dict[str, list[tuple[str, Question, Judged]]] = {}
        self.kept: dict[str, list[tuple[str, Judged]]] = {}
        for rule in host_rules(basis):
            self._search(rule)

    def _search(self, rule: Rule) -> None:
        alone: list[tuple[str, Question, Judged]] = []
        first: list[tuple[str, Question, Judged]] = []
        kept: list[tuple[str, Judged]] = []
        names: set[str] = set()
        asked: list[Question] = []
        quota: dict[tuple[str, ...], int] = {}
        for question in self.bases:
            for name, changed in variants(self.basis, question, rule):
                # Each field has its share, or the first operand of a rule would use up all cases; and so has the last
                # element of a list, before which something is done.
                share = (*_changed(question, changed), "last" * name.startswith("last-"))
                if name in names or quota.get(share, 0) >= self.most or len(alone) >= MOST_ALONE:
                    continue
                judged = judge(self.basis, changed)
                if judged is None or judged.question in asked:
                    continue
                asked.append(judged.question)
                if judged.breaks_only(rule.id):
                    names.add(name)
                    quota[share] = quota.get(share, 0) + 1
                    alone.append((name, question, judged))
                elif judged.first_breaks(rule.id):
                    first.append((name, question, judged))
                elif judged.accepted and any(edge in name for edge in _EDGES) and len(kept) < MOST_KEPT:
                    names.add(name)
                    kept.append((name, judged))
        self.found[rule.id] = alone or first[:1]
        self.kept[rule.id] = kept

    def cases(self) -> Iterator[Case]:
        """Yield all cases of the rules."""
        for rule in host_rules(self.basis):
            for name, _, judged in self.found[rule.id]:
                yield self.basis.case(
                    judged.question,
                    rule.id,
                    name,
                    rules=[rule.id],
                    why=f"Breaks this rule: {rule.text}",
                    kind="rule",
                    level=_level(rule),
                    expected=judged.answers,
                )
            for name, judged in self.kept[rule.id]:
                yield self.basis.case(
                    judged.question,
                    rule.id,
                    f"{name}-kept",
                    rules=[rule.id],
                    why=f"Just keeps this rule: {rule.text}",
                    kind="rule",
                    level="must",
                    expected=judged.answers,
                )
        yield from self.pairs()

    def pairs(self) -> Iterator[Case]:
        """Yield requests that break two rules at once, where the order of judgement shows.

        Where the order is not laid down either answer is right: one transport is enough to say so.
        """
        if self.basis.call.order == "undefined" and not self.first:
            return
        rules = [rule for rule in host_rules(self.basis) if self.found[rule.id]]
        for position, earlier in enumerate(rules):
            for later in rules[position + 1 :]:
                judged = self._both(earlier, later)
                if judged is None:
                    continue
                stated = self.basis.call.order == "stated" or self.basis.abi.profile != "spec"
                yield self.basis.case(
                    judged.question,
                    earlier.id,
                    f"before-{later.id.lower()}",
                    rules=[earlier.id, later.id],
                    why=(
                        f"Breaks {earlier.id} and {later.id} at once: the first decides."
                        if stated
                        else f"Breaks {earlier.id} and {later.id} at once: either answer is right."
                    ),
                    kind="pair",
                    level="must" if "must" == earlier.level == later.level else "should",
                    expected=judged.answers,
                )

    def _both(self, earlier: Rule, later: Rule) -> Judged | None:
        for _, base, one in self.found[earlier.id][:3]:
            for _, other_base, other in self.found[later.id][:3]:
                if base is not other_base or not _answers_differ(one, other):
                    continue
                both = compose(base, one.question, other.question)
                if both is None or both in (one.question, other.question):
                    continue
                judged = judge(self.basis, both)
                if judged is None:
                    continue
                decided = judged.decided
                if judged.rule == earlier.id and {earlier.id, later.id} <= set(judged.broken):
                    return judged
                if decided == {earlier.id} and (later.id in judged.broken or later.scope != "call"):
                    return judged
                # Either may decide where the order is open, and none of both under an open policy.
                if earlier.id in decided and decided <= {earlier.id, later.id, None} and len(decided) > 1:
                    return judged
        return None


def _answers_differ(one: Judged, other: Judged) -> bool:
    first, second = one.answers[0], other.answers[0]
    return (first.end, first.regs, first.mem, first.fault) != (second.end, second.regs, second.mem, second.fault)
