"""Hosts that stop by themselves, where the ABI lets a host stop anywhere: as right as one that does the whole.

A case expects the whole. Where a host answers that it did a part, the oracle is asked what is right after just that
part, and the runner goes on as a guest would, so that what follows in the case finds the state that it expects.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvabi.abi.errors import HvAbiError
from hvabi.abi.registry import load
from hvabi.abi.wire import Wire, merge
from hvabi.conformance.ask import Reader, Unreadable
from hvabi.conformance.case import HostStep, Inject
from hvabi.conformance.generate.basis import Question, basis_of, vary
from hvabi.conformance.generate.followup import next_fields
from hvabi.conformance.generate.judged import judge, read_fields
from hvabi.conformance.oracle.walk import Undefined

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hvabi.conformance.answer import CallEnd
    from hvabi.conformance.case import Case, Expected, Memory, Pages, Ranges

MOST_CALLS = 600
"""Calls with which the runner goes on after a host that stopped early, for one step of a case."""


class Early:
    """What is right for a host of one case that stops early.

    Attributes:
        allowed: whether the ABI lets a host stop anywhere; else nothing here is to be asked.

    """

    def __init__(self, case: Case, profile: str) -> None:
        call = load(case.abi, revision=case.revision, profile=profile).abi.convert_call
        self.allowed = call is not None and call.progress is not None and call.progress.anywhere
        if self.allowed:
            self.basis = basis_of(case.abi, case.revision, case.transport, profile)
            self.reader = Reader(case.abi, case.revision, case.transport, case.setup, profile=profile)
        self.case = case

    def question(self, step: HostStep, memory: Memory, state: Ranges, facts: Mapping[str, Pages]) -> Question | None:
        """Return what a step asks, None where it is another call or cannot be read."""
        try:
            asked = self.reader.read(step.regs, memory)
        except (HvAbiError, Unreadable):
            return None
        if asked.call is not self.basis.call:
            return None
        question = Question(
            fields={}, setup=self.case.setup, cpl=step.cpl, before=state, facts=facts, call=self.basis.call.name
        )
        fields = read_fields(self.basis, question, dict(step.regs), memory)
        return None if fields is None else vary(question, fields=fields)

    def right(self, step: HostStep, answer: CallEnd, question: Question, memory: Memory) -> tuple[Expected, ...]:
        """Return what is right after the part that an answer says is done; nothing where it names no such part."""
        if answer.end != "return" or step.inject is not None:
            return ()
        try:
            asked = self.reader.read(step.regs, memory)
            wire = Wire(regs={**step.regs, **answer.regs}, mem=merge([*memory, *answer.mem]))
            done = sum(end - start for start, end in self.reader.said_done(asked, wire))
            whole = sum(end - start for start, end, _ in asked.pages)
            if not 0 < done < whole:
                return ()
            stopped = judge(self.basis, vary(question, inject=Inject(fault="stop-after", arguments={"pages": done})))
        except (HvAbiError, Unreadable, Undefined):
            return ()
        return () if stopped is None else tuple(one for one in stopped.answers if one.status == "partial")

    def following(self, question: Question, answer: Expected) -> HostStep | None:
        """Return the step with which a guest goes on, None where it does not."""
        fields = next_fields(self.basis, question, answer)
        if fields is None:
            return None
        second = judge(self.basis, vary(question, fields=fields, before=answer.state, facts=answer.facts))
        return None if second is None else self.basis.step(second.question, second.answers)


__all__ = ["MOST_CALLS", "Early"]
