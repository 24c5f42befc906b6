"""Host cases of calls beside the one that converts, where a request needs nothing but what stands in the specification.

Such a call asks what the host offers, or converts without naming a range. One that only asks and has no rule for the
host is left out: its answer is the host's own. Calls with a range are made by the guest that the specification gives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hvabi.conformance.generate.basis import Basis, as_fields
from hvabi.conformance.generate.edges import edge_cases
from hvabi.conformance.generate.hosts import done_cases, fault_cases, reserved_cases
from hvabi.conformance.generate.judged import judge
from hvabi.conformance.generate.more_edges import edge_cases as more_edge_cases
from hvabi.conformance.generate.rules import RuleCases

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hvabi.abi.calls import Call
    from hvabi.abi.registry import Spec
    from hvabi.conformance.case import Case
    from hvabi.conformance.generate.basis import Question


class PlainBasis(Basis):
    """A call of which every request is the same: its fields have constants or defaults, or are reserved."""

    def __init__(self, spec: Spec, transport: str, call: Call) -> None:
        super().__init__(spec, transport)
        self.call = call

    def states(self) -> list[str]:
        """Return the states that the call converts to."""
        to = self.call.convert.to if self.call.convert else None
        if to is None:
            return []
        return sorted({state for state in (*to.states.values(), to.otherwise) if state not in (None, "none")})

    def request(
        self, start: int, pages: int, to: str, *, config: Mapping[str, int] | None = None
    ) -> dict[str, Any] | None:
        """Return the fields of the request, whatever pages it is to be about."""
        codec = self.spec.message(self.call.request, transport=self.transport, config=config)
        return as_fields(codec.complete({}))

    def case(self, question: Question, group: str, name: str, **more: Any) -> Case:
        """Return a host case; what is about no rule has the name of the call in its id."""
        own = self.call.rule(group) is not None
        return super().case(question, group, name if own else f"{self.call.name}-{name}", **more)


def other_cases(spec: Spec, transport: str) -> Iterator[Case]:
    """Yield the cases of every such call of an ABI on a transport."""
    for call in spec.abi.calls.values():
        if call is spec.abi.convert_call or call.guest is not None or call.query is not None:
            continue
        if call.request not in spec.abi.transports[transport].placements or not any(call.outcomes.values()):
            continue
        fields = spec.abi.messages[call.request].fields.values()
        if call.convert is None and not any(rule.binds == "host" for rule in call.rules):
            continue
        if all(item.const is not None or item.default is not None or item.reserved is not None for item in fields):
            yield from _of(PlainBasis(spec, transport, call))


def _of(basis: PlainBasis) -> Iterator[Case]:
    if basis.call.convert is None:
        yield from _asked(basis)
    else:
        yield from done_cases(basis)
    rules = RuleCases(basis)
    yield from rules.cases()
    yield from edge_cases(basis, rules)
    yield from more_edge_cases(basis)
    yield from reserved_cases(basis)
    yield from fault_cases(basis)


def _asked(basis: PlainBasis) -> Iterator[Case]:
    """Yield the call as it is."""
    question = basis.question()
    judged = judge(basis, question) if question is not None else None
    if judged is not None and judged.accepted:
        yield basis.case(
            judged.question, "done", "asked", rules=[], kind="done", expected=judged.answers,
            why="The call is made as it stands; no page changes.",
        )  # fmt: skip


__all__ = ["PlainBasis", "other_cases"]
