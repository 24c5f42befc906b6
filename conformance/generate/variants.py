"""Small changes of a right request, each with a name: boundary values, single bits, wrong settings."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hvabi.abi.calls import GATHERED
from hvabi.abi.expr import Name, paths
from hvabi.abi.expr import names as names_of
from hvabi.conformance.generate.basis import SCRATCH, Basis, Question, vary
from hvabi.conformance.generate.handled import handle_variants, limit_variants, list_variants, names_at
from hvabi.conformance.generate.worked import other_lists
from hvabi.conformance.oracle.walk import Undefined, value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hvabi.abi.calls import Rule
    from hvabi.abi.expr import Expr
    from hvabi.abi.model import Block, Field
    from hvabi.conformance.case import Pages

MOST_CONFIGURATIONS = 8
"""Most configurations under which one rule is tried."""
_AWAY = SCRATCH[1] - 1
"""A page where a structure can lie instead."""
Variant = tuple[str, Question]
"""A name for people and ids, and the changed request."""


def variants(basis: Basis, question: Question, rule: Rule) -> Iterator[Variant]:
    """Yield changes that bear on a rule; which of them break it is for the caller to find out."""
    match rule.check:
        case "enabled":
            yield "switched-off", vary(question, setup=replace(question.setup, enabled=False))
        case "privileged":
            yield "cpl-3", vary(question, cpl=3)
            yield "cpl-1", vary(question, cpl=1)
        case "readable":
            yield from _unreadable(basis, question, rule)
        case "within-memory":
            yield from _memory(basis, question)
        case "selected":
            yield from _selected(basis, question, rule)
        case "in-state" | "fact":
            yield from _states(basis, question, rule)
        case "handle":
            yield from handle_variants(basis, question, rule)
        case "disjoint":
            yield from _overlapping(basis, question, rule)
        case "expr" if not names_in(basis, rule):
            yield "always", question
        case _:
            pass
    yield from limit_variants(basis, question, rule, names_in(basis, rule))
    yield from field_variants(basis, question, rule)
    for name, configured in configurations(basis, question, rule):
        if not name:
            continue
        yield name, configured
        for inner, changed in field_variants(basis, configured, rule):
            yield f"{inner}-{name}", changed
    yield from list_variants(basis, question, rule)


def names_in(basis: Basis, rule: Rule) -> set[str]:
    """Return every name that a rule looks at, through definitions."""
    operands = [expr for exprs in rule.operands.values() for expr in exprs]
    todo = {name for expr in operands for name in names_of(expr)}
    todo |= {name for expr in operands for name in _kept_names(basis, expr)}
    if rule.when is not None:
        todo |= names_of(rule.when)
    todo.add(rule.words["of"]) if rule.check == "readable" else None
    if rule.check == "readable":
        block = basis.abi.transports[basis.transport].placements[basis.call.request].blocks.get(rule.words["of"])
        if block is not None and block.at is not None:
            todo |= names_of(block.at)
    seen: set[str] = set()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in basis.call.define:
            todo |= names_of(basis.call.define[name].expr)
    return seen


def _kept_names(basis: Basis, expr: Expr) -> Iterator[str]:
    """Yield what an expression looks at through `gathered`, and through `kept` where this request says what is kept."""
    use = basis.call.handle
    if use is None:
        return
    for path in paths(expr):
        kept = path.removeprefix("kept.")
        if path == GATHERED and use.list is not None:
            yield use.list
        elif kept != path and kept in use.keep:
            yield from names_of(use.keep[kept])


def _roots(basis: Basis, rule: Rule) -> tuple[set[str], bool]:
    """Return the request fields that a rule looks at, through definitions, and whether at elements."""
    seen = names_in(basis, rule)
    return seen & set(basis.abi.messages[basis.call.request].fields), bool(seen & {"it", GATHERED})


def field_variants(basis: Basis, question: Question, rule: Rule) -> Iterator[Variant]:
    """Yield the request with one field, or one field of one element, changed."""
    fields, elements = _roots(basis, rule)
    message = basis.abi.messages[basis.call.request]
    interesting = _thresholds(basis, question, rule)
    for name in message.fields:
        if name not in fields:
            continue
        field = message.fields[name]
        if field.is_list or not basis.carries(name):
            continue
        for label, number in _numbers(field, question.fields[name], interesting):
            yield f"{_dashed(name)}-{label}", vary(question, fields={name: number})
    each = basis.elements(rule)
    if elements and each is not None and question.fields.get(each):
        yield from _element_variants(basis, question, each, interesting)
    for name in other_lists(basis, rule, fields):
        if name != each and question.fields.get(name):
            for label, changed in _element_variants(basis, question, name, interesting):
                yield f"{_dashed(name)}-{label}", changed


def _element_variants(
    basis: Basis, question: Question, each: str, interesting: list[tuple[str, int]]
) -> Iterator[Variant]:
    field = basis.abi.messages[basis.call.request].fields[each]
    items = question.fields[each]
    last = len(items) - 1
    for number in sorted({0, last}):
        where = "" if last == 0 else "first-" if number == 0 else "last-"
        if field.items is None:
            parts: list[tuple[str, Field | None]] = [("", None)]
        else:
            parts = [(name, item) for name, item in field.items.fields.items()]
        for name, part in parts:
            old = items[number] if part is None else items[number][name]
            for label, new in _numbers(part or field, old, interesting):
                item = new if part is None else {**items[number], name: new}
                changed = (*items[:number], item, *items[number + 1 :])
                tag = f"{_dashed(name)}-" if name else ""
                yield f"{where}{tag}{label}", vary(question, fields={each: changed})


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _numbers(field: Field, old: Any, interesting: list[tuple[str, int]]) -> Iterator[tuple[str, int | dict[str, Any]]]:
    """Yield named values of a field other than the one that it has."""
    if field.word is not None:
        yield from _word_numbers(field, old)
        return
    top = (1 << field.bits) - 1
    seen = {old}
    candidates: list[tuple[str, int]] = [*interesting]
    if field.enum is not None:
        candidates += [(item.name.lower().replace("_", "-"), item.value) for item in field.enum.values.values()]
        known = {*(item.value for item in field.enum.values.values()), *field.enum.elsewhere}
        candidates += [("unknown", next(n for n in range(top + 1) if n not in known))] if len(known) <= top else []
    candidates += [
        ("zero", 0),
        ("one", 1),
        ("plus-1", old + 1),
        ("minus-1", old - 1),
        ("plus-0x800", old + 0x800),
        ("plus-0xfff", old + 0xFFF),
        ("plus-page", old + 0x1000),
        ("plus-256", old + 256),
        ("plus-6-kib", old + 0x1800),
        ("all-ones", top),
        ("top-page", top & ~0xFFF),
        ("top-bit", old | 1 << (field.bits - 1)),
        ("lowest-bit-flipped", old ^ 1),
    ]
    if field.bits > 64:
        candidates += [(f"without-bit-{bit}", old & ~(1 << bit)) for bit in range(field.bits) if old >> bit & 1]
    for label, number in candidates:
        if 0 <= number <= top and number not in seen:
            seen.add(number)
            yield label, number


def _word_numbers(field: Field, old: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    assert field.word is not None  # the caller has looked
    parts = dict(old) if isinstance(old, dict) else {}
    for name, part in field.word.fields.items():
        for label, number in _numbers(part, parts.get(name, 0), []):
            yield f"{_dashed(name)}-{label}", {**parts, name: number}


def _thresholds(basis: Basis, question: Question, rule: Rule) -> list[tuple[str, int]]:
    """Return named numbers just at the limits that a rule compares with, worked out for this request."""
    request = basis_request(basis, question)
    found: list[tuple[str, int]] = []

    def number(key: str) -> int | None:
        if key not in rule.operands:
            return None
        try:
            result = value(rule.operands[key][0], request)
        except Undefined:
            return None
        return result if isinstance(result, int) else None

    def near(label: str, limit: int | None) -> None:
        if limit is not None:
            found.extend([(f"{label}-minus-page", limit - 4096)] if limit >= 4096 else [])
            found.extend([(f"{label}-minus-1", limit - 1), (label, limit), (f"{label}-plus-1", limit + 1)])

    near("limit", number("limit"))
    near("low", number("low"))
    near("high", number("high"))
    near("size", number("size"))
    width, start = number("width"), number("start")
    if width is not None and start is not None:
        room = (1 << width) - start
        near("wrap", room)
        for unit in (4096, 1 << 16):
            found += [
                (f"last-unit-of-{unit}", (room - 1) // unit * unit),
                (f"wrap-unit-of-{unit}", room // unit * unit),
                (f"past-wrap-unit-of-{unit}", room // unit * unit + unit),
            ]
    bit = number("bit")
    if bit is not None:
        near("half", 1 << bit)
        found += [("page-below-half", (1 << bit) - 4096), ("two-pages", 8192)]
    mask = number("mask")
    if mask is not None:
        found += [(f"only-bit-{n}", 1 << n) for n in range(mask.bit_length()) if mask >> n & 1][:2]
        found += [(f"without-bit-{n}", mask & ~(1 << n)) for n in range(mask.bit_length()) if mask >> n & 1]
    to = number("to")
    if to is not None and rule.check == "aligned" and to > 1:
        found += [("aligned", to), ("half-aligned", to // 2), ("three-half", to + to // 2)]
    if to is not None and rule.check == "equals":
        near("wanted", to)
    for position, expr in enumerate(rule.tries):
        try:
            found.append((f"try-{position}", int(value(expr, request))))
        except Undefined:
            continue
    return [(label, item) for label, item in found if item >= 0]


def basis_request(basis: Basis, question: Question) -> Any:
    """Return the names of the oracle for a question."""
    return names_at(basis, question)


def configurations(basis: Basis, question: Question, rule: Rule) -> Iterator[Variant]:
    """Yield the question under every configuration that bears on a rule, the default one first under no name."""
    used = names_in(basis, rule)
    keys = [key for key in basis.abi.config.values() if key.name in used and key.choices]
    for choice in itertools.islice(itertools.product(*(key.choices for key in keys)), MOST_CONFIGURATIONS):
        given = {key.name: number for key, number in zip(keys, choice, strict=True)}
        other = {
            name: number
            for name, number in given.items()
            if number != question.setup.config.get(name, basis.abi.config[name].default)
        }
        label = "-".join(f"{_dashed(name)}-{number}" for name, number in other.items())
        config = {**question.setup.config, **other}
        yield label, vary(question, setup=replace(question.setup, config=config)) if other else question


def _unreadable(basis: Basis, question: Question, rule: Rule) -> Iterator[Variant]:
    placement = basis.abi.transports[basis.transport].placements[basis.call.request]
    block = placement.blocks.get(rule.words["of"])
    if block is None or block.at is None:
        return
    try:
        page = value(block.at, basis_request(basis, question)) >> 12
    except Undefined:
        return
    yield "no-memory", vary(question, setup=replace(question.setup, memory=_without(page)))
    small = value(block.size, basis_request(basis, question)) < 4096
    if small and isinstance(block.at, Name) and isinstance(question.fields.get(block.at.name), int):
        # The block begins in memory and ends where there is none; one of a page never lies across two.
        fields = {block.at.name: (page + 1 << 12) - 8}
        behind = _without(page + 1)
        yield "no-memory-behind", vary(question, fields=fields, setup=replace(question.setup, memory=behind))
    # Where another block begins in the same page, which of the two is missed is not clear: one of them goes elsewhere.
    together = [other for other in placement.blocks.values() if _page_of(basis, question, other) == page]
    for other in together if len(together) > 1 else ():
        match other.at:
            case Name(name) if name in question.fields:
                there = vary(question, fields={name: _AWAY << 12 | question.fields[name] & 0xFFF})
                missing = _AWAY if other is block else page
                label = f"{_dashed(name)}-elsewhere-no-memory"
                yield label, vary(there, setup=replace(question.setup, memory=_without(missing)))
            case _:
                continue


def _without(page: int) -> Pages:
    return tuple(pair for pair in ((0, page), (page + 1, 1 << 40)) if pair[0] < pair[1])


def _page_of(basis: Basis, question: Question, block: Block) -> int | None:
    """Return the page in which a block begins."""
    if block.at is None:
        return None
    try:
        return int(value(block.at, basis_request(basis, question))) >> 12
    except Undefined:
        return None


def _memory(basis: Basis, question: Question) -> Iterator[Variant]:
    yield "no-memory", vary(question, setup=replace(question.setup, memory=(SCRATCH,)))


def _selected(basis: Basis, question: Question, rule: Rule) -> Iterator[Variant]:
    placement = basis.abi.transports[basis.transport].placements[basis.call.request]
    message = basis.abi.messages[basis.call.request]
    named = {name for expr in rule.operands.get("of", ()) for name in names_of(expr)}
    for name, field in message.fields.items():
        if field.const is None or (named and name not in named):
            continue
        old = question.fields[name]
        choices = [value(expr, basis_request(basis, question)) for expr in rule.tries] or [
            (1 << min(field.bits, 16)) - 1
        ]
        for number in choices:
            if number != old:
                yield f"{_dashed(name)}-{number:#x}", vary(question, fields={name: number})
    if not named:
        for register in placement.fixed:
            yield f"{register}-other", vary(question, regs={register: 0x7777})


def _states(basis: Basis, question: Question, rule: Rule) -> Iterator[Variant]:
    for where, request in _places(basis, question, rule):
        try:
            start = value(rule.operands["start"][0], request) >> 12
            pages = max(value(rule.operands["length"][0], request) >> 12, 1)
        except Undefined:
            continue
        if rule.check == "fact":
            yield from _facts(question, rule.words["name"], where, start, pages)
            continue
        for state in basis.states():
            laid = () if state == "private" else ((start, start + pages, state),)
            yield f"{where}all-{state}", vary(question, before=laid)


def _places(basis: Basis, question: Question, rule: Rule) -> Iterator[tuple[str, Any]]:
    """Yield the names for a rule: of the call, or of its first and its last element."""
    request = basis_request(basis, question)
    if rule.scope == "call" or basis.call.each is None:
        yield "", request
        return
    found = request.local.get(GATHERED) if basis.call.handle is not None else None
    items = question.fields.get(basis.call.each, ()) if found is None else found
    for number in sorted({0, len(items) - 1}) if items else ():
        where = "" if number == 0 else "last-"
        yield where, request.plus(it=items[number], index=number)


def _facts(question: Question, name: str, where: str, start: int, pages: int) -> Iterator[Variant]:
    """Yield a fact true and false on all pages of a range, and true on the first and the last page only."""
    others = {other: pieces for other, pieces in question.facts.items() if other != name}
    yield f"{where}fact-true", vary(question, facts={**others, name: ((start, start + pages),)})
    yield f"{where}fact-false", vary(question, facts=others)
    if pages > 1:
        yield f"{where}fact-of-the-first", vary(question, facts={**others, name: ((start, start + 1),)})
        last = start + pages - 1
        yield f"{where}fact-of-the-last", vary(question, facts={**others, name: ((last, last + 1),)})


def _overlapping(basis: Basis, question: Question, rule: Rule) -> Iterator[Variant]:
    """Yield the last element where the first one is, and where its end is."""
    each = basis.elements(rule)
    items = question.fields.get(each or "", ())
    if each is None or len(items) < 2:
        return
    names = basis_request(basis, question).plus(it=items[0], index=0)
    fields = [path.partition(".")[2] for path in paths(rule.operands["start"][0]) if path.startswith("it.")]
    try:
        start, length = (int(value(rule.operands[key][0], names)) for key in ("start", "length"))
    except Undefined:
        return
    for name in fields:
        for label, number in (("the-same", start), ("last-byte", start + length - 1), ("next-to-it", start + length)):
            last = {**items[-1], name: number}
            yield f"last-{_dashed(name)}-{label}", vary(question, fields={each: (*items[:-1], last)})
