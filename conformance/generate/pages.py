"""Cases for rules that judge each page alone: a bad page at every place of a range, and stops around it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hvabi.conformance.case import Inject
from hvabi.conformance.generate.basis import NEIGHBOURS, PLACE, Basis, Question, host_rules, vary
from hvabi.conformance.generate.followup import next_fields
from hvabi.conformance.generate.judged import judge
from hvabi.conformance.generate.more_edges import open_rules
from hvabi.conformance.generate.variants import basis_request, field_variants
from hvabi.conformance.oracle.walk import value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hvabi.abi.calls import Rule
    from hvabi.conformance.case import Case, HostStep, Pages

_UNITS = 5
"""Units of a range, in the middle of which a page is bad."""
_LONG = (1 << 36, 1 << 30, 1 << 26)
"""Pages of a range that no host has the time to go through one by one; the first that the ABI can name is taken."""
_STATES = ("private", "shared", "shared-read-only")


def page_cases(basis: Basis) -> Iterator[Case]:
    """Yield all of them."""
    rules = [rule for rule in (*host_rules(basis), *open_rules(basis)) if rule.scope == "page"]
    for rule in rules:
        for to in basis.states():
            yield from _of_rule(basis, rule, to)
    for position, rule in enumerate(rules):
        for other in rules[position + 1 :]:
            yield from _two_rules(basis, rule, other)


def with_bad(basis: Basis, question: Question, rule: Rule, start: int, pages: int, bad: Pages) -> Question | None:
    """Return the question with these of its pages breaking a rule about pages, and no other; None where none can."""
    match rule.check:
        case "fact":
            name, wanted = rule.words["name"], value(rule.operands["is"][0], basis_request(basis, question))
            laid = _without(start - NEIGHBOURS, start + pages + NEIGHBOURS, bad) if wanted else bad
            return vary(question, facts={**question.facts, name: laid})
        case "in-state":
            state = rule.words["state"]
            other = next(word for word in _STATES if word != state)
            kept = _without(start - NEIGHBOURS, start + pages + NEIGHBOURS, bad)
            rows = [(low, high, state) for low, high in kept] + [(low, high, other) for low, high in bad]
            return vary(question, before=tuple(sorted(row for row in rows if row[2] != "private")))
        case "within-memory":
            return vary(question, setup=replace(question.setup, memory=_without(0, start + pages + NEIGHBOURS, bad)))
        case _:
            return None


def _without(start: int, end: int, holes: Pages) -> Pages:
    found: list[tuple[int, int]] = []
    for low, high in sorted(holes):
        if start < low:
            found.append((start, low))
        start = max(start, high)
    return (*found, (start, end)) if start < end else tuple(found)


def _asked(basis: Basis, rules: tuple[Rule, ...], start: int, pages: int, to: str) -> Question | None:
    """Return a right request to which the rules apply, None where none is one field away from what a guest sends."""
    question = basis.question(start, pages, to)
    for rule in rules:
        if question is None:
            return None
        choices = [question, *(changed for _, changed in field_variants(basis, question, rule))]
        question = next((one for one in choices if _applies(basis, one, rule)), None)
    return question


def _applies(basis: Basis, question: Question, rule: Rule) -> bool:
    judged = judge(basis, question)
    if judged is None or not judged.accepted:
        return False
    names = basis_request(basis, judged.question)
    if basis.call.each is not None and judged.question.fields[basis.call.each]:
        names = names.plus(it=judged.question.fields[basis.call.each][0], index=0)
    return rule.when is None or bool(value(rule.when, names))


def _of_rule(basis: Basis, rule: Rule, to: str) -> Iterator[Case]:
    unit = basis.granule()
    start, pages = PLACE + 512 - 2 * unit, _UNITS * unit
    middle = start + 2 * unit
    plain = basis.question(start, pages, to)
    if plain is not None and not _applies(basis, plain, rule):
        asked = with_bad(basis, plain, rule, start, pages, ((middle, middle + 1),))
        if asked is not None:
            yield from _case(basis, rule, f"page-does-not-matter-to-{to}", asked)
    question = _asked(basis, (rule,), start, pages, to)
    if question is None:
        return
    rows: list[tuple[str, Pages, int | None]] = [
        ("first", ((start, start + 1),), None),
        ("middle", ((middle, middle + 1),), None),
        ("last", ((start + pages - 1, start + pages),), None),
        ("two", ((start + unit, start + unit + 1), (start + pages - 1, start + pages)), None),
        ("every", ((start, start + pages),), None),
        ("around", ((start - 1, start), (start + pages, start + pages + 1)), None),
    ]
    if basis.call.reports_parts(basis.transport):
        # A host that stops by itself does so before it comes to the bad page, at it, or would have behind it.
        rows += [(f"middle-stop-after-{stop}", ((middle, middle + 1),), stop * unit) for stop in (1, 2, 3)]
    for name, bad, stop in rows:
        asked = with_bad(basis, question, rule, start, pages, bad)
        if asked is not None:
            inject = None if stop is None else Inject(fault="stop-after", arguments={"pages": stop})
            yield from _case(basis, rule, f"page-{name}-to-{to}", vary(asked, inject=inject))
    for long in _LONG:
        question = _asked(basis, (rule,), PLACE, long, to) if basis.reach(long) == long else None
        if question is None:
            continue
        asked = with_bad(basis, question, rule, PLACE, long, ((PLACE + long - 1, PLACE + long),))
        if asked is not None:
            yield from _case(basis, rule, f"page-last-of-many-to-{to}", asked)
        break


def _two_rules(basis: Basis, rule: Rule, other: Rule) -> Iterator[Case]:
    """Yield ranges of which two pages, or one page, break two rules: the lowest page decides, then the first rule."""
    unit = basis.granule()
    pages = _UNITS * unit
    for to in basis.states():
        question = _asked(basis, (rule, other), PLACE, pages, to)
        if question is None:
            continue
        for name, first, second in (("same", 2, 2), ("earlier", 1, 3), ("later", 3, 1)):
            one, two = PLACE + first * unit, PLACE + second * unit
            asked = with_bad(basis, question, rule, PLACE, pages, ((one, one + 1),))
            both = asked and with_bad(basis, asked, other, PLACE, pages, ((two, two + 1),))
            if both:
                yield from _case(basis, rule, f"page-{name}-as-{other.id.lower()}-to-{to}", both, other)


def _case(basis: Basis, rule: Rule, name: str, question: Question, other: Rule | None = None) -> Iterator[Case]:
    judged = judge(basis, question)
    if judged is None:
        return
    decided = judged.decided
    rules = [one for one in (rule, other) if one is not None]
    if not decided & {one.id for one in rules} and not judged.accepted:
        return
    deciding = next((one for one in rules if one.id in decided), None)
    more: tuple[HostStep, ...] = ()
    follow = next_fields(basis, judged.question, judged.answers[0]) if len(judged.answers) == 1 else None
    if follow is not None:
        answer = judged.answers[0]
        second = judge(basis, vary(question, fields=follow, inject=None, before=answer.state, facts=answer.facts))
        more = (basis.step(second.question, second.answers),) if second is not None else ()
    yield basis.case(
        judged.question, rule.id, name, rules=[one.id for one in rules], kind="rule", expected=judged.answers,
        more=more, level=deciding.level if deciding is not None else "must",
        why=f"The pages before the bad one are done: {rule.text}" if deciding else f"Keeps this rule: {rule.text}",
    )  # fmt: skip


__all__ = ["page_cases", "with_bad"]
