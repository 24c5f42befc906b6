"""The request with which a guest goes on after an answer, worked out from the specification's progress."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hvabi.abi.errors import HvAbiError
from hvabi.abi.wire import Wire, merge
from hvabi.conformance.generate.basis import Basis, Question, as_fields
from hvabi.conformance.generate.variants import basis_request
from hvabi.conformance.oracle.walk import Undefined, value

if TYPE_CHECKING:
    from hvabi.conformance.case import Expected


def response_fields(basis: Basis, question: Question, answer: Expected) -> dict[str, Any] | None:
    """Return the response as the guest reads it after an expected answer, None where it cannot be read."""
    if basis.call.response is None:
        return None
    regs, mem = basis.wire(question)
    codec = basis.spec.message(basis.call.response, transport=basis.transport, config=question.setup.config)
    request = basis.codec(question.setup).complete(dict(question.fields))
    try:
        wire = Wire(regs={**regs, **answer.regs}, mem=merge([*mem, *answer.mem]))
        return as_fields(codec.decode(wire, request=request))
    except HvAbiError:
        return None


def executed_again(basis: Basis, question: Question, answer: Expected) -> dict[str, Any] | None:
    """Return the request as the host finds it when the guest executes the same instruction again."""
    from hvabi.conformance.generate.judged import read_fields

    regs, mem = basis.wire(question)
    return read_fields(basis, question, {**regs, **answer.regs}, merge([*mem, *answer.mem]))


def next_fields(basis: Basis, question: Question, answer: Expected) -> dict[str, Any] | None:
    """Return the changed fields of the request that follows a partial answer, None where there is none."""
    progress = basis.call.progress
    response = response_fields(basis, question, answer)
    if progress is None or response is None:
        return None
    names = basis_request(basis, question).plus(response=response)
    hidden = set(question.fields)
    names = names.plus(**{name: item for name, item in response.items() if name not in hidden})
    try:
        if not value(progress.again_when, names):
            return None
        changed: dict[str, Any] = {}
        for path, expr in progress.next.items():
            name, _, inner = path.partition(".")
            number = value(expr, names)
            if inner:
                changed[name] = {**changed.get(name, question.fields[name]), inner: number}
            else:
                changed[name] = number
    except Undefined:
        return None
    if progress.resume == "same-buffer":
        # The buffer is sent again as the host left it; what lies elsewhere is made anew.
        kept = _beside_the_list(basis)
        changed.update({name: item for name, item in response.items() if name in question.fields and name in kept})
    return changed


def _beside_the_list(basis: Basis) -> set[str]:
    """Return the response fields that lie in the block of the list."""
    transport = basis.abi.transports[basis.transport]
    sent, answered = transport.placements[basis.call.request], transport.placements[basis.call.response or ""]
    blocks = {getattr(place, "block", None) for place in sent.place.get(basis.call.each or "", ())[:1]}
    return {name for name, places in answered.place.items() if places and getattr(places[0], "block", "") in blocks}
