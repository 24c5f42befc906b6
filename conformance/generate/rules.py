"""Cases from rules: each rule broken alone, kept just at its limit, and broken together with a later one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvabi.abi.registry import bundled, load
from hvabi.conformance.generate.basis import PLACE, Basis, Question, host_rules, vary
from hvabi.conformance.generate.judged import Judged, compose, judge, keeps
from hvabi.conformance.generate.variants import names_in, variants
from hvabi.conformance.generate.way import at_the_end
from hvabi.conformance.generate.worked import other_lists, with_lists
from hvabi.conformance.oracle.walk import Undefined

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hvabi.abi.calls import Rule
    from hvabi.conformance.case import Case, Level

MOST_BROKEN = 4
"""Most cases that break one rule alone by one field, per transport."""
MOST_BROKEN_AGAIN = 2
"""The same on the transports behind the first, which carry the same fields, and for a call of many rules."""
MOST_ALONE = 12
"""Most cases that break one rule alone, per transport."""
MANY_RULES = 24
"""Rules of a call from which on each has fewer cases."""
MOST_PAIRS = 4
"""Most pairs of one of many rules with later ones."""
MOST_OPEN_PAIRS = 2
"""The same where either answer is right: such pairs show little."""
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
    guest, states = basis.call.guest, basis.states()
    sizes = guest.element_pages if guest is not None else ()
    # Where elements have several sizes, a large one that is not the first.
    for start, pages, wanted in (*_SHAPES, *((_SMALL_THEN_LARGE,) if len(sizes) > 1 else ())):
        if pages > 3 and basis.single_pages:
            continue
        to = wanted if not states or wanted in states or basis.call.query is not None else states[0]
        question = basis.question(start, -(-pages // granule) * granule, to)
        if question is not None:
            found.append(question if _leads_there(basis, question) else vary(question, way=()))
    return found


def _leads_there(basis: Basis, question: Question) -> bool:
    """Whether the calls before a question are answered as it needs them: under a profile they may be refused."""
    try:
        at_the_end(basis, question)
    except Undefined:
        return False
    return True


def _level(rule: Rule) -> Level:
    return rule.level


class RuleCases:
    """Finds, for one basis, requests that break or just keep each rule."""

    def __init__(self, basis: Basis) -> None:
        self.basis = basis
        carrying = [t.name for t in basis.abi.transports.values() if basis.call.request in t.placements]
        self.first = basis.transport == carrying[0]
        rules = list(host_rules(basis))
        self.most = MOST_BROKEN if self.first and len(rules) < MANY_RULES else MOST_BROKEN_AGAIN
        self.bases = bases(basis)
        self.found: dict[str, list[tuple[str, Question, Judged]]] = {}
        self.kept: dict[str, list[tuple[str, Judged]]] = {}
        self._worked: dict[tuple[str, ...], list[Question]] = {}
        for rule in rules:
            self._search(rule)

    def _search(self, rule: Rule) -> None:
        alone: list[tuple[str, Question, Judged]] = []
        first: list[tuple[str, Question, Judged]] = []
        among: list[tuple[str, Question, Judged]] = []
        kept: list[tuple[str, Judged]] = []
        names: set[str] = set()
        asked: list[Question] = []
        quota: dict[tuple[str, ...], int] = {}
        for question in self._bases_of(rule):
            for name, changed in variants(self.basis, question, rule):
                # Each field has its share, or the first operand of a rule would use up all cases.
                # What changes no field but facts or memory, about the last element of a list, has a share of its own.
                share = _changed(question, changed) or (("last-",) if name.startswith("last-") else ())
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
                elif rule.id in judged.broken and self._any_order:
                    among.append((name, question, judged))
                elif (
                    len(kept) < MOST_KEPT
                    and any(edge in name for edge in _EDGES)
                    and keeps(self.basis, judged, rule.id)
                ):
                    names.add(name)
                    kept.append((name, judged))
        # A rule that is never broken alone, and whose answer others give too, has one case all the same.
        # Where any of them may answer, also one that a host answers by this rule that judges in the order of the file.
        decided = [one for one in among[1:] if one[2].rule == rule.id and among[0][2].rule != rule.id]
        self.found[rule.id] = alone or first[:1] or [*among[:1], *decided[:1]]
        self.kept[rule.id] = kept

    def _bases_of(self, rule: Rule) -> list[Question]:
        """Return right requests for a rule: where it is about a list that is empty in them, also one that has it."""
        lists = other_lists(self.basis, rule, names_in(self.basis, rule))
        if not lists:
            return self.bases
        if tuple(lists) not in self._worked:
            self._worked[tuple(lists)] = with_lists(self.basis, lists)
        return [*self.bases, *self._worked[tuple(lists)]]

    @property
    def _any_order(self) -> bool:
        return self.basis.call.order != "stated" and self.basis.abi.profile == "spec"

    def cases(self) -> Iterator[Case]:
        """Yield all cases of the rules."""
        yield from self.alone()
        yield from self.pairs()

    def alone(self) -> Iterator[Case]:
        """Yield requests that break one rule, or just keep it."""
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

    def pairs(self) -> Iterator[Case]:
        """Yield requests that break two rules at once, where the order of judgement shows.

        Where the order is not laid down either answer is right: one transport is enough to say so.
        """
        if self.basis.call.order == "undefined" and not self.first:
            return
        rules = [rule for rule in host_rules(self.basis) if self.found[rule.id]]
        most = len(rules)
        if most >= MANY_RULES:
            most = MOST_OPEN_PAIRS if self._any_order else MOST_PAIRS
        elsewhere = _of_default_revision(self.basis) if len(rules) >= MANY_RULES else ()
        for position, earlier in enumerate(rules):
            left = most
            for later in rules[position + 1 :]:
                if not left:
                    break
                known = earlier in elsewhere and later in elsewhere
                judged = None if known else self._both(earlier, later)
                if judged is None:
                    continue
                left -= 1
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


def _of_default_revision(basis: Basis) -> tuple[Rule, ...]:
    """Return the rules of the call in the default revision, none for that revision itself."""
    default = bundled(basis.spec.id).default_revision
    if basis.abi.revision == default:
        return ()
    other = load(basis.spec.id, revision=default, profile=basis.abi.profile).abi.calls.get(basis.call.name)
    return other.rules if other is not None else ()


def _answers_differ(one: Judged, other: Judged) -> bool:
    first, second = one.answers[0], other.answers[0]
    return (first.end, first.regs, first.mem, first.fault) != (second.end, second.regs, second.mem, second.fault)
