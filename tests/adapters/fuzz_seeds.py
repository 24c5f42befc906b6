"""Requests that the generator of cases tries for a rule, as inputs of the fuzz tests; which of them hit it is open."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvabi.abi.errors import HvAbiError
from hvabi.backend import PageState
from hvabi.conformance.generate.basis import Basis, Question
from hvabi.conformance.generate.rules import bases
from hvabi.conformance.generate.variants import names_in, variants
from hvabi.conformance.generate.worked import other_lists, with_lists
from tests.fuzzing import Combo, Input

if TYPE_CHECKING:
    from collections.abc import Iterator

_MOST = 200
"""Most requests for one rule, revision, transport and profile."""


def tried(number: int, combo: Combo, rule_id: str) -> Iterator[Input]:
    """Yield them for one combination, which has this number."""
    call = next(call for call in combo.calls.values() if call.rule(rule_id) is not None)
    rule = call.rule(rule_id)
    assert rule is not None  # that is how the call was found
    basis = Basis(combo.spec, combo.transport.name, call.name)
    left = _MOST
    for question in (*with_lists(basis, other_lists(basis, rule, names_in(basis, rule))), *bases(basis)):
        for _, changed in variants(basis, question, rule):
            given = _input(number, combo, basis, changed) if left else None
            if given is not None:
                left -= 1
                yield given


def _input(number: int, combo: Combo, basis: Basis, question: Question) -> Input | None:
    """Return a question as an input, None where it cannot be sent or other calls come before it."""
    if question.way:
        return None
    try:
        regs, mem = basis.wire(question)
    except HvAbiError:
        return None
    setup = question.setup
    return Input(
        combo=number,
        call=basis.call.name,
        config=tuple(sorted({**dict(combo.configs[0]), **setup.config}.items())),
        regs=regs,
        mem=mem,
        cpl=question.cpl,
        enabled=setup.enabled,
        slots=setup.memory,
        before=tuple((start, end, PageState(state)) for start, end, state in question.before),
        facts=tuple((name, start, end) for name, rows in question.facts.items() for start, end in rows),
        max_ranges=setup.max_ranges,
    )
