"""Requests about handles that are wrong, limits of what a host keeps, and sequences of calls about one region."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hvabi.abi.expr import Name, paths
from hvabi.abi.expr import names as names_of
from hvabi.adapters.batch import plan
from hvabi.backend import PageState
from hvabi.conformance.case import Setup
from hvabi.conformance.generate.agreeing import followers, worked_out
from hvabi.conformance.generate.question import PLACE, Question, as_fields
from hvabi.conformance.generate.way import at_the_end, in_parts
from hvabi.conformance.oracle.walk import Undefined, value

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hvabi.abi.calls import Rule
    from hvabi.conformance.generate.basis import Basis
    from hvabi.conformance.oracle.walk import Names

_FLIPPED = (0, 31, 32, 63)
"""Bits of a handle that are turned round: those that a shorter field or a wrong half loses among them."""
_ELSEWHERE = 64
"""Pages between a region and the next one."""
_KEPT = frozenset({"handles", "held", "parts"})
"""Names of what a host keeps, of which there is a most."""


def handle_variants(basis: Basis, question: Question, rule: Rule) -> Iterator[tuple[str, Question]]:
    """Yield requests about numbers that are no handle, about handles in the other state and about closed ones."""
    use = basis.call.handle
    if use is None or use.of is None:
        return
    number = question.fields[use.of]
    for bit in _FLIPPED:
        yield f"bit-{bit}-of-the-handle", replace(question, fields={**question.fields, use.of: number ^ 1 << bit})
    yield "never-given", replace(question, way=())
    opening = basis.opening()
    start, pages, to = _span(question, opening)
    whole = opening.question(start, pages, to)
    part, _ = in_parts(opening, start, pages + 1, to)
    other = part if rule.words["is"] == "complete" else whole
    if other is not None:
        yield f"not-{rule.words['is']}", replace(question, way=(other,))
    closing = next((c.name for c in basis.abi.calls.values() if c.handle and c.handle.does == "close"), None)
    if closing is not None and whole is not None:
        closed = basis.of_call(closing).question(start, pages, "private")
        if closed is not None:
            yield "closed", replace(question, way=(whole, replace(closed, way=())))


def _span(question: Question, opening: Basis) -> tuple[int, int, str]:
    """Return a range far from that of a question."""
    return PLACE - _ELSEWHERE, 1, opening.states()[0]


def limit_variants(basis: Basis, question: Question, rule: Rule, used: set[str]) -> Iterator[tuple[str, Question]]:
    """Yield a host whose bound is as much as is asked for and not more, and one that may do one more."""
    limit = rule.operands.get("limit", (None,))[0]
    key = basis.abi.config.get(limit.name) if isinstance(limit, Name) else None
    if key is None or key.choices or not (used & _KEPT or rule.check in ("at-most", "count-at-most")):
        return  # an address that a setting bounds is no number of things
    ways = [("", question)]
    if used & _KEPT and basis.call.handle is not None and basis.call.handle.does == "open" and not question.way:
        start, pages, to = _span(question, basis)
        whole, (part, _) = basis.question(start, pages, to), in_parts(basis, start, pages + 1, to)
        ways += [
            (label, replace(question, way=(way,)))
            for label, way in (("beside-one", whole), ("beside-an-unfinished-one", part))
            if way
        ]
    for label, there in ways:
        try:
            count = int(value(rule.operands["of"][0], names_at(basis, there)))
        except Undefined:
            continue
        for number in (count - 1, count, count + 1):
            if key.accepts(number):
                config = {**there.setup.config, key.name: number}
                name = "-".join(filter(None, (f"limit-{key.name.replace('_', '-')}-{number}", label)))
                yield name, replace(there, setup=replace(there.setup, config=config))


def list_variants(basis: Basis, question: Question, rule: Rule) -> Iterator[tuple[str, Question]]:
    """Yield lists that are as long as one call can bring, parts that bring nothing or too much, and empty elements."""
    use = basis.call.handle
    if use is None or use.list is None:
        return
    if use.does == "open":
        yield from _full(basis, question, rule)
    elif question.way:
        yield from _uneven(basis, question)
    if rule.check == "non-empty":
        yield from _merged(basis, question)


def _full(basis: Basis, question: Question, rule: Rule) -> Iterator[tuple[str, Question]]:
    """Yield a list as long as one call can bring where a rule's limit is just that, and a longer one that fits too."""
    guest = basis.call.guest
    if guest is None or guest.part_elements is None or rule.check not in ("at-most", "count-at-most"):
        return
    count = basis.most_elements()
    full = _single_pages(basis, count)
    if full is None or not _at_limit(basis, full, rule) or _at_limit(basis, question, rule):
        return
    yield "limit-full-list", full
    longer = _single_pages(basis, count + 1)
    if longer is not None:
        yield "full-list-and-one-more", longer
    for key in basis.abi.config.values():
        if key.name in names_of(guest.part_elements) and not key.choices and key.accepts(2 * key.default):
            longer = _single_pages(basis, count + 1, {key.name: 2 * key.default})
            if longer is not None:
                yield f"limit-one-more-{key.name.replace('_', '-')}-{2 * key.default}", longer


def _single_pages(basis: Basis, count: int, config: Mapping[str, int] | None = None) -> Question | None:
    """Return a request for so many pages at once, from an odd one on so that each is an element of its own."""
    to, start = basis.states()[0], PLACE | 1
    guest = basis.guest(config=config)
    guest.part_limit = count
    batch = next(plan(guest, start, count, PageState(to)))
    if batch.rest:
        return None
    setup, laid = Setup(config=config or {}), basis.laid(start, count, to)
    return Question(fields=as_fields(batch.request), setup=setup, **laid, call=basis.call.name)


def _at_limit(basis: Basis, question: Question, rule: Rule) -> bool:
    """Whether what a rule looks at is just as much as it allows."""
    names = names_at(basis, question)
    try:
        return all(value(expr, names) == value(rule.operands["limit"][0], names) for expr in rule.operands["of"])
    except Undefined:
        return False


def _uneven(basis: Basis, question: Question) -> Iterator[tuple[str, Question]]:
    """Yield all elements in the second part, as the first has brought none, and one more than was announced."""
    use, opening = basis.call.handle, basis.opening()
    assert use is not None  # the caller has looked
    assert opening.call.handle is not None  # it gives the handles
    assert opening.call.guest is not None  # the way to the question is that of a guest
    first, fields = question.way[0], opening.abi.messages[opening.call.request].fields
    here, there = opening.call.handle.list or "", use.list or ""
    # What the guest says of the whole list stays; what is worked out from this part of it follows.
    follow = {
        name for name, field in fields.items()
        if field.default is not None and here in names_of(field.default) and name not in opening.call.guest.request
    }  # fmt: skip
    empty = worked_out(opening, replace(first, fields={**first.fields, here: ()}), follow)
    items = (*first.fields[here], *question.fields[there])
    whole = worked_out(basis, replace(question, fields={**question.fields, there: items}), followers(basis, there))
    if empty is not None and whole is not None:
        yield "after-an-empty-part", replace(whole, way=(empty, *question.way[1:]))
    more = (*question.fields[there], question.fields[there][-1])
    longer = worked_out(basis, replace(question, fields={**question.fields, there: more}), followers(basis, there))
    if longer is not None:
        yield "last-one-twice", longer


def _merged(basis: Basis, question: Question) -> Iterator[tuple[str, Question]]:
    """Yield the last element empty, and its pages in the one before it: the sum stays as it is."""
    each, convert = basis.call.each, basis.call.convert
    parts = {path.partition(".")[2] for path in paths(convert.pages)} - {""} if convert is not None else set()
    if each is None or len(parts) != 1 or len(question.fields.get(each, ())) < 2:
        return
    (part,) = parts
    *items, before, last = question.fields[each]
    merged = ({**before, part: before[part] + last[part]}, {**last, part: 0})
    yield "last-one-in-the-one-before", replace(question, fields={**question.fields, each: (*items, *merged)})


def handled_fields(basis: Basis) -> set[str]:
    """Return the fields of a request that say what is done with a handle: it must have the right ones there."""
    use = basis.call.handle
    if use is None:
        return set()
    blocks = basis.abi.transports[basis.transport].placements[basis.call.request].blocks.values()
    exprs = [*use.keep.values(), *([use.complete] if use.complete is not None else []), *(one.size for one in blocks)]
    return {use.of or "", *(name for expr in exprs for name in names_of(expr))}


def names_at(basis: Basis, question: Question) -> Names:
    """Return the names of the oracle for a question, what its way has led to among them."""
    from hvabi.conformance.oracle.answers import Request

    try:
        there = at_the_end(basis, question)
    except Undefined:
        there = question
    request = Request(
        basis.oracle(question.setup), basis.abi, question.call, question.fields, question.cpl, None, (), {}, None,
        there.held,
    )  # fmt: skip
    return request.names
