"""The way to a request that is about a handle: the calls before it, and what the host then keeps."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hvabi.adapters.batch import plan
from hvabi.backend import PageState
from hvabi.conformance.case import Handle, Setup
from hvabi.conformance.generate.question import as_fields
from hvabi.conformance.oracle.answers import Request
from hvabi.conformance.oracle.held import places_of
from hvabi.conformance.oracle.walk import Undefined, value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hvabi.conformance.case import Expected, Held, HostStep, Memory
    from hvabi.conformance.generate.basis import Basis
    from hvabi.conformance.generate.question import Question

FIRST_PART = 1
"""Elements of a first request of several."""


def continued(basis: Basis, start: int, pages: int, to: str) -> Question | None:
    """Return a right request about a handle, with the one before it that gives the handle; None where there is none."""
    opening = basis.opening()
    use = basis.call.handle
    assert use is not None  # the caller has looked
    assert use.of is not None  # as above
    given: dict[str, Any] = {use.of: first_handle(basis)}
    if use.does == "close":
        asked = opening.question(start, pages, opening.states()[0])
    else:
        # A page before those that are asked for comes first, so that there is something to go on with.
        asked, rest = in_parts(opening, start - 1, pages + 1, to)
        if use.list is not None:
            given[use.list] = rest
    if asked is None or (use.list is not None and not given[use.list]):
        return None
    fields = basis.codec(asked.setup).complete(given)
    return replace(asked, fields=as_fields(fields), call=basis.call.name, way=(asked,))


def in_parts(opening: Basis, start: int, pages: int, to: str) -> tuple[Question | None, tuple[Any, ...]]:
    """Return a first request that brings a part of its elements, and the other elements."""
    whole = opening.question(start, pages, to)
    if whole is None:
        return None, ()
    guest = opening.guest()
    guest.part_limit = FIRST_PART
    batch = next(plan(guest, start, pages, PageState(to)))
    return replace(whole, fields=as_fields(batch.request)), batch.rest


def first_handle(basis: Basis) -> int:
    """Return the first handle of the model."""
    handles = basis.abi.handles
    assert handles is not None  # the caller has looked: a call uses them
    names = Request(basis.oracle(Setup()), basis.abi, basis.call.name, {}, 0, None, (), {}, None).names
    return int(value(handles.first, names))


def at_the_end(basis: Basis, question: Question) -> Question:
    """Return the question with the state, the facts and the handles that its way leads to, and no way.

    Raises `Undefined` where a call on the way is refused.
    """
    if not question.way:
        return question
    for known, end in basis.ends:
        if known is question:
            return end
    there = question
    for asked in question.way:
        answer = _answer(basis, _here(asked, there))
        if answer.status != "done" or answer.rule is not None:
            raise Undefined("a call on the way is refused")
        there = replace(there, before=answer.state, facts=answer.facts, held=answer.held)
    there = replace(there, way=())
    basis.ends.append((question, there))
    return there


def _here(asked: Question, there: Question) -> Question:
    """Return a call on the way at the place that the way has come to."""
    return replace(asked, setup=there.setup, before=there.before, facts=there.facts, held=there.held, way=())


def _answer(basis: Basis, asked: Question) -> Expected:
    """Return the likeliest right answer to a call on the way."""
    other = basis.of_call(asked.call)
    regs, _ = other.wire(asked)
    request = Request(
        other.oracle(asked.setup), other.abi, asked.call, asked.fields, 0, None, asked.before, asked.facts, regs,
        asked.held,
    )  # fmt: skip
    return next(request.answers({}))


def way_steps(basis: Basis, question: Question) -> tuple[HostStep, ...]:
    """Return the steps that lead to a question."""
    steps: list[HostStep] = []
    there = question
    for asked in question.way:
        here = _here(asked, there)
        other = basis.of_call(asked.call)
        steps.append(other.step(here, other.answers(here)))
        answer = _answer(basis, here)
        there = replace(there, before=answer.state, facts=answer.facts, held=answer.held)
    return tuple(steps)


def way_memory(basis: Basis, question: Question) -> Memory:
    """Return the bytes that the way has placed."""
    placed: list[tuple[int, bytes]] = []
    for asked in question.way:
        placed += basis.of_call(asked.call).wire(replace(asked, setup=question.setup))[1]
    return tuple(placed)


def handles_of(basis: Basis, fields: Mapping[str, Any], held: Held) -> tuple[Handle, ...]:
    """Return the handle in a request: one that was given, or bits of such a one the other way round."""
    use = basis.call.handle
    if use is None or use.of is None or not held.given:
        return ()
    number, first = fields[use.of], first_handle(basis)
    base = number if first <= number < first + held.given else first
    place = basis.abi.transports[basis.transport].placements[basis.call.request].place.get(use.of, ())
    return (Handle(number=base, places=places_of(place), flipped=number ^ base),)


__all__ = ["at_the_end", "continued", "first_handle", "handles_of", "in_parts", "way_memory", "way_steps"]
