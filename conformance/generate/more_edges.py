"""Values just at the limit of a rule for each field that it names, one field at a time, on both sides of the limit.

`rules` looks for any request that breaks a rule and stops after a few; here every operand has its turn: the size as
well as the address, a field of a list's element, each bit of a mask. Rules that only another value of an open policy
switches on are broken too: then more than one answer is right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hvabi.abi.expr import Attr, Expr, Name, to_text
from hvabi.abi.expr import names as names_of
from hvabi.abi.registry import load
from hvabi.abi.specification import SPEC_PROFILE
from hvabi.conformance.generate.agreeing import followed, summed
from hvabi.conformance.generate.basis import Basis, Question, host_rules, vary
from hvabi.conformance.generate.judged import Judged, judge, keeps
from hvabi.conformance.generate.rules import bases
from hvabi.conformance.generate.variants import basis_request, variants
from hvabi.conformance.oracle.walk import Names, Undefined, value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hvabi.abi.calls import Rule
    from hvabi.abi.model import Field
    from hvabi.conformance.case import Case

Edge = tuple[str, int]
"""A name and a number."""
_MOST_PIECES = 1 << 14
MOST_OPEN = 3
"""Most cases that break one rule of an open policy alone, per transport."""


def edge_cases(basis: Basis) -> Iterator[Case]:
    """Yield a case for every field of every rule and every number at its limit."""
    shapes = bases(basis)
    for rule in (*host_rules(basis), *open_rules(basis)):
        seen: set[str] = set()
        for question in shapes:
            for name, changed in _edges(basis, question, rule):
                case = None if name in seen else _case(basis, rule, name, changed)
                if case is not None:
                    seen.add(name)
                    yield case
    yield from _open_cases(basis, shapes)


def _open_cases(basis: Basis, shapes: list[Question]) -> Iterator[Case]:
    """Yield a few requests that break each rule of another value of an open policy: two answers are right."""
    for rule in open_rules(basis):
        if rule.scope == "page":
            continue  # those have cases of their own
        alone: dict[str, Judged] = {}
        among: dict[str, Judged] = {}
        for question in (*shapes, *_flagged(basis, shapes)):
            for name, changed in variants(basis, question, rule):
                judged = judge(basis, changed) if len(alone) < MOST_OPEN and name not in alone else None
                if judged is None or _too_long(basis, judged.question):
                    continue
                if judged.decided == {None, rule.id}:
                    alone[name] = judged
                elif {None, rule.id} <= judged.decided:
                    among[name] = judged  # of several values of a policy, each has an answer of its own
        for name, judged in (alone or dict(list(among.items())[:1])).items():
            yield basis.case(
                judged.question, rule.id, name, rules=[rule.id], kind="rule", level=rule.level,
                expected=judged.answers, why=f"Breaks this rule, which not every host has: {rule.text}",
            )  # fmt: skip


def _flagged(basis: Basis, shapes: list[Question]) -> Iterator[Question]:
    """Yield lists with one flag set in every element: a rule of an open policy may be about elements with a flag."""
    each = basis.call.each
    field = basis.abi.messages[basis.call.request].fields[each] if each is not None else None
    if each is None or field is None or field.items is None:
        return
    for name, part in field.items.fields.items():
        if part.bits == 1 and part.reserved is None:
            for shape in shapes[:2]:
                items = tuple({**item, name: 1 - item[name]} for item in shape.fields[each])
                yield vary(shape, fields={each: items})


def _too_long(basis: Basis, question: Question) -> bool:
    """Whether a host that accepts a request, and works in pieces, would do more of them than there is time for."""
    convert, progress = basis.call.convert, basis.call.progress
    if convert is None or convert.each is not None or progress is None or progress.chunk is None:
        return False
    names = basis_request(basis, question)
    pages: int = value(convert.pages, names)
    return bool(pages // max(value(progress.chunk, names), 1) > _MOST_PIECES)


def open_rules(basis: Basis) -> Iterator[Rule]:
    """Yield the rules of values of open policies that are not the default."""
    if basis.abi.profile != SPEC_PROFILE:
        return
    known = {rule.id for rule in basis.call.rules}
    for policy in basis.abi.policies.values():
        for other in policy.values if policy.open else ():
            abi = load(basis.spec.id, revision=basis.abi.revision, policies={policy.name: other}).abi
            call = abi.calls[basis.call.name]
            for rule in call.rules:
                if rule.id not in known and rule.binds == "host" and rule.guard.serves(basis.transport):
                    known.add(rule.id)
                    yield rule


def _case(basis: Basis, rule: Rule, name: str, changed: Question) -> Case | None:
    judged = judge(basis, changed)
    if judged is None:
        return None
    decided = judged.decided
    # A rule of another value of a policy may ask for the same answer as one of the default: then that one is named.
    twin = rule not in basis.call.rules and len(judged.answers) == 1 and bool(judged.answers[0].also)
    if rule.id in decided or (twin and judged.rule is not None):
        return basis.case(
            judged.question, rule.id, f"edge-{name}", rules=[rule.id], kind="rule", level=rule.level,
            expected=judged.answers, why=f"Just breaks this rule: {rule.text}",
        )  # fmt: skip
    if keeps(basis, judged, rule.id):
        return basis.case(
            judged.question, rule.id, f"edge-{name}-kept", rules=[rule.id], kind="rule", level="must",
            expected=judged.answers, why=f"Just keeps this rule: {rule.text}",
        )  # fmt: skip
    if name.endswith("-at-the-limit") and rule.id not in judged.broken and judged.rule is not None:
        # Where a rule just holds, another one may always be broken: what has room for a header has none for the rest.
        return basis.case(
            judged.question, rule.id, f"edge-{name}-kept", rules=[rule.id, judged.rule], kind="rule", level="should",
            expected=judged.answers, why=f"Just keeps this rule, and breaks {judged.rule}: {rule.text}",
        )  # fmt: skip
    return None


def _edges(basis: Basis, question: Question, rule: Rule) -> Iterator[tuple[str, Question]]:
    message = basis.abi.messages[basis.call.request]
    names = basis_request(basis, question)
    each = basis.elements(rule)
    yield from _room_edges(basis, question, rule)
    yield from _limiting(basis, question, rule)
    for expr in _operands(rule):
        match expr:
            case Name(name) if name in message.fields and not basis.carries(name):
                continue
            case Attr(Name(name), part) if name in message.fields and basis.carries(name):
                word = message.fields[name].word
                old = question.fields[name]
                if word is not None and isinstance(old, dict) and part in word.fields:
                    for label, number in _numbers(rule, part, old[part], names, word.fields[part]):
                        changed = vary(question, fields={name: {**old, part: number}})
                        yield f"{name}-{part}-{label}".replace("_", "-"), changed
            case Name(name) if name in message.fields and not message.fields[name].is_list:
                old = question.fields[name]
                if isinstance(old, int):
                    for label, number in _numbers(rule, name, old, names, message.fields[name]):
                        tag, changed = f"{name}-{label}".replace("_", "-"), vary(question, fields={name: number})
                        yield tag, changed
                        for more, other in (
                            ("followed", followed(basis, changed, name)),
                            ("summed", summed(basis, question, name, number)),
                        ):
                            if other is not None and other != changed:
                                yield f"{tag}-{more}", other
            case Name(name) if name in basis.call.define:
                yield from _page_edges(basis, question, rule, name, names)
            case Attr(Name("it"), name) if each is not None and question.fields.get(each):
                yield from _element_edges(question, rule, each, name, names, message.fields[each])
            case _:
                pass


def _room_edges(basis: Basis, question: Question, rule: Rule) -> Iterator[tuple[str, Question]]:
    """Yield the last address in its page from which what is counted still fits, and the one behind it."""
    if rule.check not in ("count-at-most", "at-most", "fits-buffer"):
        return
    fields = basis.abi.messages[basis.call.request].fields
    buffer = rule.check == "fits-buffer"
    todo, seen = set(names_of(rule.operands["length" if buffer else "limit"][0])), set()
    while todo:
        name = todo.pop()
        seen.add(name)
        if name in basis.call.define:
            todo |= names_of(basis.call.define[name].expr) - seen
    for name in sorted(seen & set(fields)):
        if fields[name].unit != "byte" or not basis.carries(name):
            continue
        page = question.fields[name] >> 12 << 12
        fitting = [at for at in range(page, page + 4096, 8) if _fits(basis, vary(question, fields={name: at}), rule)]
        if fitting and fitting[-1] + 8 < page + 4096:
            yield f"{name}-last-that-fits".replace("_", "-"), vary(question, fields={name: fitting[-1]})
            yield f"{name}-first-too-far".replace("_", "-"), vary(question, fields={name: fitting[-1] + 8})
        if buffer:
            continue
        at_the_end = vary(question, fields={name: page + 4088})
        limit = value(rule.operands["limit"][0], basis_request(basis, at_the_end))
        match rule.operands["of"][0]:
            case Attr(Name(word), part) if limit > 0 and isinstance(question.fields.get(word), dict):
                for label, number in (("limit", limit), ("limit-plus-1", limit + 1)):
                    changed = vary(at_the_end, fields={word: {**question.fields[word], part: number}})
                    yield f"{name}-at-the-end-{label}".replace("_", "-"), changed
            case _:
                pass


def _limiting(basis: Basis, question: Question, rule: Rule) -> Iterator[tuple[str, Question]]:
    """Yield a limit that is a field of the request itself at what it limits, and one below."""
    limit = rule.operands.get("limit", (None,))[0]
    fields = basis.abi.messages[basis.call.request].fields
    if rule.check != "at-most" or not isinstance(limit, Name) or limit.name not in fields:
        return
    try:
        most = max(int(value(expr, basis_request(basis, question))) for expr in rule.operands["of"])
    except Undefined:
        return
    for label, number in (("at-the-limit", most), ("below-the-limit", most - 1)):
        if number != question.fields[limit.name] and 0 <= number < 1 << fields[limit.name].bits:
            yield f"{limit.name}-{label}".replace("_", "-"), vary(question, fields={limit.name: number})


def _fits(basis: Basis, question: Question, rule: Rule) -> bool:
    names = basis_request(basis, question)
    try:
        if rule.check == "fits-buffer":
            return bool(value(rule.operands["length"][0], names) <= value(rule.operands["size"][0], names))
        limit = value(rule.operands["limit"][0], names)
        return all(value(expr, names) <= limit for expr in rule.operands["of"])
    except Undefined:
        return False


def _page_edges(
    basis: Basis, question: Question, rule: Rule, name: str, names: Names
) -> Iterator[tuple[str, Question]]:
    """Yield pages at the limit of what is worked out from one field, such as an address without its SHARED bit."""
    if rule.check != "below":
        return
    try:
        limit = int(value(rule.operands["limit"][0], names))
    except Undefined:
        return
    message = basis.abi.messages[basis.call.request]
    for field in sorted(names_of(basis.call.define[name].expr) & set(message.fields)):
        for label, number in (("limit", limit), ("page-below-limit", limit - 4096)):
            if 0 <= number < 1 << message.fields[field].bits:
                yield f"{field}-{label}".replace("_", "-"), vary(question, fields={field: number})


def _element_edges(
    question: Question, rule: Rule, each: str, name: str, names: Names, field: Field
) -> Iterator[tuple[str, Question]]:
    items = question.fields[each]
    if field.items is None:
        return
    for position, where in ((0, ""), (len(items) - 1, "last-")):
        if where and len(items) == 1:
            continue
        item = items[position]
        local = names.plus(it=item, index=position)
        for label, number in _numbers(rule, f"it.{name}", item[name], local, field.items.fields[name]):
            changed = (*items[:position], {**item, name: number}, *items[position + 1 :])
            # Lists of other lengths have other elements, with limits of their own.
            shape = f"of-{len(items)}-" if len(items) > 1 else ""
            yield f"{shape}{where}{name}-{label}".replace("_", "-"), vary(question, fields={each: changed})


def _operands(rule: Rule) -> list[Expr]:
    """Return what a rule compares: what stands at `of`, and start and length of a range."""
    return [expr for key in ("of", "start", "length") for expr in rule.operands.get(key, ())]


def _numbers(rule: Rule, name: str, old: int, names: Names, field: Field) -> Iterator[Edge]:
    """Yield numbers at the limits of a rule for one field, other than the one that it has."""
    found = [edge for edge in _wanted(rule, name, old, names, field) if edge[1] != old]
    seen: set[int] = set()
    for label, number in found:
        if 0 <= number < 1 << field.bits and number not in seen:
            seen.add(number)
            yield label, number


def _wanted(rule: Rule, name: str, old: int, names: Names, field: Field) -> Iterator[Edge]:
    def number(key: str) -> int:
        found: Any = value(rule.operands[key][0], names)
        return int(found)

    try:
        match rule.check:
            case "aligned" if number("to") > 1:
                to = number("to")
                yield from (
                    ("plus-1", old + 1),
                    ("plus-half", old + to // 2),
                    ("plus-all", old + to),
                    ("minus-1", old - 1),
                )
            case "below":
                yield from (("limit-minus-1", number("limit") - 1), ("limit", number("limit")))
            case "at-most" | "count-at-most":
                yield from (("limit", number("limit")), ("limit-plus-1", number("limit") + 1))
            case "within":
                low, high = number("low"), number("high")
                # Well inside, too: what lies there may be of any alignment.
                yield from (("low-plus-1", low + 1), ("low-plus-8", low + 8))
                yield from (("low-minus-1", low - 1), ("low", low), ("high-minus-1", high - 1), ("high", high))
            case "no-wrap":
                yield from _wrapping(rule, name, number("start"), number("length"), number("width"))
            case "bits-set":
                mask = number("mask")
                yield from ((f"without-bit-{bit}", old & ~(1 << bit)) for bit in range(field.bits) if mask >> bit & 1)
            case "known-value" if field.enum is not None:
                yield from ((f"try-{n}", int(value(expr, names))) for n, expr in enumerate(rule.tries))
                known = {*(item.value for item in field.enum.values.values()), *field.enum.elsewhere}
                free = next((n for n in range(1 << field.bits) if n not in known), None)
                if free is not None:
                    yield "unknown", free
            case _:
                return
    except Undefined:
        return


def _wrapping(rule: Rule, name: str, start: int, length: int, width: int) -> Iterator[Edge]:
    """Yield starts and lengths with which a range ends in the last page below the wrap, and just at it."""
    end = 1 << width
    unit = 4096 if length % 4096 == 0 and length else 1
    if name in _names(rule, "start"):
        yield from (("to-the-wrap", end - length), ("below-the-wrap", end - length - unit))
    if name in _names(rule, "length"):
        yield from (("to-the-wrap", end - start), ("below-the-wrap", end - start - unit))


def _names(rule: Rule, key: str) -> set[str]:
    """Return the fields that stand alone at an operand, those of an element as ``it.NAME``."""
    return {to_text(expr) for expr in rule.operands.get(key, ()) if isinstance(expr, Name | Attr)}


__all__ = ["edge_cases", "open_rules"]
