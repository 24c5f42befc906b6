"""Host liars that get rules wrong: not judged, off by one, in the wrong order."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from hvabi.abi.expr import Binary, Int, names
from hvabi.conformance.liars import model
from hvabi.conformance.liars.exprs import moved, off_by_one
from hvabi.conformance.liars.liar import Planted
from hvabi.conformance.liars.made import Made
from hvabi.conformance.liars.sight import Sight

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hvabi.abi.calls import Answer, Rule
    from hvabi.abi.specification import Abi

    Changing = Callable[[Abi, Callable[[Answer], Answer]], Abi]


_LIMITS = {"below": "limit", "at-most": "limit", "count-at-most": "limit", "within": "high", "fits-buffer": "size"}
"""The operand of a check that is an upper limit."""


class RuleLies(Sight):
    """Makes them."""

    def rules_skipped(self) -> Iterator[Made]:
        """Yield a host per rule that does not look at it."""
        for rule in self.rules:
            same = [
                other.id
                for other in self.rules
                if other is not rule
                and other.answer is not None
                and rule.answer is not None
                and _demands(other) == _demands(rule)
                and model.said(other.answer) == model.said(rule.answer)
            ]
            yield Made(
                kind="rule-skipped",
                name=rule.id,
                what=f"It does not look at {rule.id}: {rule.text}",
                planted=Planted(spec=partial(model.without_rule, rule_id=rule.id)),
                hints=(rule.id,),
                equivalent=f"{same[0]} asks for the same with the same answer" if same else None,
            )

    def rules_off_by_one(self) -> Iterator[Made]:
        """Yield hosts whose limits are off by one, whose alignment is halved, or that test the first operand only."""
        for rule in self.rules:
            key = _LIMITS.get(rule.check)
            if key is not None:
                for amount, word in ((1, "more"), (-1, "less")):
                    operands = {**rule.operands, key: (moved(rule.operands[key][0], amount),)}
                    yield self._other_rule(rule, f"limit-one-{word}", f"the limit is one {word}", operands=operands)
            if rule.check in ("within", "ordered"):
                operands = {**rule.operands, "low": (moved(rule.operands["low"][0], 1),)}
                yield self._other_rule(rule, "low-one-more", "the lower limit is one more", operands=operands)
            if rule.check == "aligned":
                to = rule.operands["to"][0]
                operands = {**rule.operands, "to": (Binary("//", Binary("+", to, Int(1)), Int(2)),)}
                yield self._other_rule(rule, "half-alignment", "half the alignment is enough", operands=operands)
            if rule.check == "no-wrap":
                operands = {**rule.operands, "length": (moved(rule.operands["length"][0], -1),)}
                yield self._other_rule(rule, "end-allowed", "a range may end at the very end", operands=operands)
            if rule.check == "expr" and (changed := off_by_one(rule.operands["expr"][0])) is not None:
                operands = {**rule.operands, "expr": (changed,)}
                yield self._other_rule(rule, "off-by-one", "its comparison is off by one", operands=operands)
            operands_of = rule.operands.get("of", ())
            if len(operands_of) > 1 and rule.check != "same-half":
                for number in range(len(operands_of)):
                    left = (*operands_of[:number], *operands_of[number + 1 :])
                    operands = {**rule.operands, "of": left}
                    yield self._other_rule(
                        rule, f"without-operand-{number}", "one operand is not tested", operands=operands
                    )
            if rule.when is not None:
                yield self._other_rule(rule, "always", "it is tested where it does not hold", when=None)

    def _other_rule(self, rule: Rule, name: str, what: str, **changes: object) -> Made:
        changed = replace(rule, **changes)  # type: ignore[arg-type]  # fields of the rule
        return Made(
            kind="rule-wrong",
            name=f"{rule.id}-{name}",
            what=f"Of {rule.id} {what}: {rule.text}",
            planted=Planted(spec=partial(model.with_rule, rule=changed)),
            hints=(rule.id,),
        )

    def rules_swapped(self) -> Iterator[Made]:
        """Yield a host per pair of neighbours that it tests in the wrong order, where the order is stated."""
        if self.call.order != "stated":
            return
        for one, other in zip(self.rules, self.rules[1:], strict=False):
            if one.answer is None or other.answer is None or one.scope != other.scope:
                continue
            if model.said(one.answer) == model.said(other.answer):
                continue
            yield Made(
                kind="rules-swapped",
                name=f"{one.id}-{other.id}",
                what=f"It tests {other.id} before {one.id}.",
                planted=Planted(spec=partial(model.swapped, one=one.id, other=other.id)),
                hints=(one.id, other.id),
                equivalent=_disjoint(one, other) or self._unread(one, other) or _allowed(one, other),
            )

    def _unread(self, one: Rule, other: Rule) -> str | None:
        """Say that a field of a block cannot be judged where the block cannot be read, or None."""
        if other.check == "readable":
            one, other = other, one
        if one.check != "readable":
            return None
        inside = model.blocks_of(self.transport.placements[self.call.request]).get(one.words["of"], [])
        looked = {name for exprs in other.operands.values() for expr in exprs for name in names(expr)}
        if looked & set(inside):
            return f"{one.id} fails where {one.words['of']} cannot be read, and then {other.id} has nothing to judge"
        return None


def _demands(rule: Rule) -> tuple[object, ...]:
    operands = tuple(sorted((name, tuple(map(str, exprs))) for name, exprs in rule.operands.items()))
    return rule.check, operands, tuple(sorted(rule.words.items())), str(rule.when)


def _disjoint(one: Rule, other: Rule) -> str | None:
    """Say why two rules cannot fail together, as far as their checks show it."""
    same = one.operands.get("of") == other.operands.get("of")
    if {one.check, other.check} == {"aligned", "non-empty"} and same:
        return "zero is aligned: both cannot fail together"
    if one.check == other.check == "enabled" and one.when is None and other.when is None:
        return "both ask the same, so the first answers always"
    return None


def _allowed(one: Rule, other: Rule) -> str | None:
    """Say why the answer of the later rule is right for the earlier one too, or None."""
    right, wrong = one.answer, other.answer
    assert right is not None  # the caller has looked
    assert wrong is not None  # as above
    extra = set(wrong.fields) - set(right.fields)
    same = right.end == wrong.end and all(wrong.fields.get(name) == expr for name, expr in right.fields.items())
    if same and extra and extra <= set(right.may_change):
        return f"{one.id} leaves {', '.join(sorted(extra))} to the host, and the rest is the same"
    return None
