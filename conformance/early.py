"""Hosts that do or tell a part only, where the ABI lets them: as right as those that do the whole.

A case expects the whole. Where a host answers that it did a part, or tells of a part of what was asked about, the
oracle is asked what is right for just that part. After a conversion the runner goes on as a guest would, so that what
follows in the case finds the state that it expects.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from hvabi.abi.errors import HvAbiError
from hvabi.abi.registry import load
from hvabi.abi.wire import Wire, merge
from hvabi.conformance.ask import Reader, Unreadable
from hvabi.conformance.case import Inject
from hvabi.conformance.generate.basis import Question, basis_of, vary
from hvabi.conformance.generate.followup import next_fields
from hvabi.conformance.generate.judged import judge, read_fields

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hvabi.conformance.answer import CallEnd
    from hvabi.conformance.ask import Asked
    from hvabi.conformance.case import Case, Expected, HostStep, Memory, Pages, Ranges
    from hvabi.conformance.generate.basis import Basis

MOST_CALLS = 600
"""Calls with which the runner goes on after a host that stopped early, for one step of a case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A call of a case that a host may answer in part: what it is on the wire and to the oracle."""

    basis: Basis
    asked: Asked
    question: Question
    wire: Wire


class Early:
    """What is right for a host of one case that does or tells a part only.

    Args:
        case: the case.
        profile: the profile under which it was made.

    """

    def __init__(self, case: Case, profile: str) -> None:
        self.case = case
        self.profile = profile

    @cached_property
    def bases(self) -> dict[str, Basis]:
        """The calls that a host may answer in part."""
        case, found = self.case, {}
        for call in load(case.abi, revision=case.revision, profile=self.profile).abi.served_calls:
            stops = call.progress is not None and call.progress.anywhere
            if stops or (call.query is not None and call.query.told is not None):
                found[call.name] = basis_of(case.abi, case.revision, case.transport, self.profile, call.name)
        return found

    @cached_property
    def reader(self) -> Reader:
        """What reads requests and answers; made where an answer has to be looked at."""
        case = self.case
        return Reader(case.abi, case.revision, case.transport, case.setup, profile=self.profile)

    def sent(self, step: HostStep, memory: Memory, state: Ranges, facts: Mapping[str, Pages]) -> Sent | None:
        """Return the call of a step, None where a host has to answer it as a whole."""
        if not self.bases or step.inject is not None:
            return None
        try:
            asked = self.reader.read(step.regs, memory)
        except (HvAbiError, Unreadable):
            return None
        basis = self.bases.get(asked.call.name)
        if basis is None:
            return None
        question = Question(
            fields={}, setup=self.case.setup, cpl=step.cpl, before=state, facts=facts, call=asked.call.name
        )
        fields = read_fields(basis, question, dict(step.regs), memory)
        if fields is None:
            return None
        return Sent(
            basis=basis, asked=asked, question=vary(question, fields=fields), wire=Wire(regs=step.regs, mem=memory)
        )

    def right(self, sent: Sent, answer: CallEnd) -> tuple[Expected, ...]:
        """Return what is right for the part that an answer names; nothing where it names none."""
        if answer.end != "return":
            return ()
        over = Wire(regs={**sent.wire.regs, **answer.regs}, mem=merge([*sent.wire.mem, *answer.mem]))
        whole = sum(end - start for start, end, _ in sent.asked.pages)
        part = self.reader.told(sent.asked, over)
        if part is None:
            part = sum(end - start for start, end in self.reader.said_done(sent.asked, over))
        if part < 1 or 0 < whole <= part:
            return ()
        inject = Inject(fault="stop-after", arguments={"pages": part})
        judged = judge(sent.basis, vary(sent.question, inject=inject))
        if judged is None:
            return ()
        if sent.asked.call.query is not None:
            return judged.answers
        return tuple(one for one in judged.answers if one.status == "partial")

    @staticmethod
    def following(sent: Sent, answer: Expected) -> HostStep | None:
        """Return the step with which a guest goes on, None where it does not."""
        fields = next_fields(sent.basis, sent.question, answer)
        if fields is None:
            return None
        second = judge(sent.basis, vary(sent.question, fields=fields, before=answer.state, facts=answer.facts))
        return None if second is None else sent.basis.step(second.question, second.answers)


__all__ = ["MOST_CALLS", "Early", "Sent"]
