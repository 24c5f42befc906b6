"""Requests about handles that are wrong, limits of what a host keeps, and sequences of calls about one region."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hvabi.abi.expr import Name
from hvabi.abi.expr import names as names_of
from hvabi.conformance.generate.question import PLACE, Question
from hvabi.conformance.generate.way import at_the_end, in_parts
from hvabi.conformance.oracle.walk import Undefined, value

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    """Yield a host that may keep as much as it already does and not more, and one that may keep one more."""
    limit = rule.operands.get("limit", (None,))[0]
    key = basis.abi.config.get(limit.name) if isinstance(limit, Name) else None
    if key is None or key.choices or not used & _KEPT:
        return
    ways = [("", question)]
    if basis.call.handle is not None and basis.call.handle.does == "open" and not question.way:
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
