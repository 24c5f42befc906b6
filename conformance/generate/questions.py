"""Cases of calls that ask: every state, runs that end at each page, facts that end a run, lists in any order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hvabi.abi.expr import names as names_of
from hvabi.conformance.generate.basis import NEIGHBOURS, PLACE, Basis, Question, vary
from hvabi.conformance.generate.judged import judge
from hvabi.conformance.generate.variants import basis_request
from hvabi.conformance.oracle.walk import value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hvabi.conformance.case import Case, Ranges

_MOST_ROOM = 4096
"""Largest number that is tried for the size of a place with room for a few runs."""
_PAGES = 4
"""Pages of the questions in which a run ends at each page."""


def asked_cases(basis: Basis) -> Iterator[Case]:
    """Yield questions that are right, over pages of all states."""
    unit = basis.granule()
    spans = [("one-page", unit), ("three-pages", 3 * unit), ("many-pages", max(basis.reach() // unit * unit, unit))]
    for to in basis.states():
        for name, pages in spans:
            question = basis.question(PLACE, pages, to)
            if question is not None:
                why = f"Asks about pages that are {to}; their neighbours are not."
                yield from _case(basis, question, f"{name}-{to}", why)
    yield from _runs(basis, unit)
    yield from _facts(basis, unit)
    yield from _orders(basis, unit)
    yield from _room(basis, unit)


def plain_cases(basis: Basis) -> Iterator[Case]:
    """Yield the one request of a call that is about no pages."""
    question = basis.question()
    if question is not None:
        yield from _case(basis, question, "asked", "The call is made as it stands; no page changes.")


def _case(basis: Basis, question: Question, name: str, why: str) -> Iterator[Case]:
    judged = judge(basis, question)
    if judged is not None and judged.accepted:
        yield basis.case(judged.question, "done", name, rules=[], kind="done", why=why, expected=judged.answers)


def _runs(basis: Basis, unit: int) -> Iterator[Case]:
    """Yield questions about pages of which the first ones are in one state and the others in another."""
    question = basis.question(PLACE, _PAGES * unit, "private")
    if question is None:
        return
    end = PLACE + _PAGES * unit
    for cut in range(PLACE + unit, end, unit):
        at = (cut - PLACE) // unit
        before: Ranges = ((PLACE - NEIGHBOURS, cut, "shared"),)
        why = "The state changes within what is asked about."
        yield from _case(basis, vary(question, before=before), f"shared-until-{at}", why)
        before = ((cut, end + NEIGHBOURS, "shared"),)
        yield from _case(basis, vary(question, before=before), f"private-until-{at}", why)
    before = ((PLACE - NEIGHBOURS, end + NEIGHBOURS, "shared"),)
    why = "The run goes on behind what is asked about."
    yield from _case(basis, vary(question, before=before), "shared-all-around", why)
    yield from _case(basis, vary(question, before=()), "private-all-around", why)
    every_other = tuple((page, page + unit, "shared") for page in range(PLACE, end, 2 * unit))
    yield from _case(basis, vary(question, before=every_other), "every-other", "The states alternate.")


def _facts(basis: Basis, unit: int) -> Iterator[Case]:
    """Yield questions about pages of which a part is different in a fact only."""
    question = basis.question(PLACE, _PAGES * unit, "private")
    if question is None:
        return
    end = PLACE + _PAGES * unit
    for fact in basis.abi.facts:
        for cut in (PLACE + unit, end - unit):
            at = (cut - PLACE) // unit
            label = f"{fact.replace('_', '-')}-until-{at}"
            why = f"What is asked about differs in the fact {fact} only."
            yield from _case(basis, vary(question, before=(), facts={fact: ((PLACE, cut),)}), label, why)
            yield from _case(basis, vary(question, before=(), facts={fact: ((cut, end),)}), f"not-{label}", why)


def _orders(basis: Basis, unit: int) -> Iterator[Case]:
    """Yield lists that are not in the order of their pages, and that name one twice."""
    each = basis.call.each
    question = basis.question(PLACE, _PAGES * unit, "private")
    if each is None or question is None:
        return
    items: tuple[Any, ...] = question.fields[each]
    before: Ranges = ((PLACE, PLACE + unit, "shared"),)
    for name, order in (("backwards", items[::-1]), ("twice-the-same", (items[0], *items[:-1]))):
        changed = vary(question, fields={each: order}, before=before)
        yield from _case(basis, changed, name, "The elements are not in the order of their pages.")


def _room(basis: Basis, unit: int) -> Iterator[Case]:
    """Yield lists of runs that just fit their place, and that just do not."""
    runs = basis.call.query.runs if basis.call.query is not None else None
    question = basis.question(PLACE, unit, "shared")
    if runs is None or question is None:
        return
    before: Ranges = tuple((page, page + unit, "shared") for page in (PLACE, PLACE + 2 * unit, PLACE + 5 * unit))
    for name in sorted(names_of(runs.most) & basis.abi.messages[basis.call.request].fields.keys()):
        for number in range(_MOST_ROOM):
            changed = vary(question, fields={name: number}, before=before)
            if value(runs.most, basis_request(basis, changed)) < len(before):
                continue
            for label, room in (("just-fits", number), ("just-does-not-fit", number - 1)):
                why = f"Three runs, and room for {'all' if label == 'just-fits' else 'two'} of them."
                yield from _case(basis, vary(changed, fields={name: room}), f"{name}-{label}".replace("_", "-"), why)
            break


__all__ = ["asked_cases", "plain_cases"]
