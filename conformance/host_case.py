"""Runs one host case: calls in order, exits answered, replays repeated, every answer and the state after it judged."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hvabi.abi.errors import HvAbiError
from hvabi.abi.registry import load
from hvabi.abi.specification import SPEC_PROFILE
from hvabi.abi.wire import Wire, merge
from hvabi.conformance.answer import CallEnd, Exit, PeerUnsupported
from hvabi.conformance.ask import Reader, Unreadable
from hvabi.conformance.bytesmap import Bytes
from hvabi.conformance.early import MOST_CALLS, Early
from hvabi.conformance.handles import Handles
from hvabi.conformance.judge import Seen, judge
from hvabi.conformance.outcome import Outcome, Unseen
from hvabi.conformance.result import Exchanged, Finding, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hvabi.conformance.case import Case, HostStep, Memory, Pages, Ranges
    from hvabi.conformance.client import Client

LEAST_REPLAYS = 16
"""Replays of one call that are followed where the ABI states no bound."""
MOST_REPLAYS = 1 << 16
_MOST_EXITS = 1 << 18


class HostCase:
    """One host case against one session.

    Args:
        client: a session that is configured for the case.
        case: the case.
        profile: the profile under which it is judged.
        features: the features of the session.
        can_query: whether the implementation answers ``query``; set to False once it says that it does not.
        check_time: raises where the case has taken too long.

    """

    def __init__(
        self,
        client: Client,
        case: Case,
        *,
        profile: str,
        features: frozenset[str],
        can_query: bool,
        check_time: Callable[[], None],
    ) -> None:
        self.client = client
        self.case = case
        self.features = features
        self.can_query = can_query
        self.check_time = check_time
        self.outcome = Outcome(case=case, profile=profile)
        self.mode = load(case.abi, revision=case.revision).transport(case.transport).mode
        self._memory = Bytes()
        self._handles = Handles()
        self._errno: int | None = None
        self._number = 0
        self._early = Early(case, case.profile or SPEC_PROFILE)
        #: Whether what follows was worked out from a state that a host which stops by itself has not reached.
        self._cut = False

    def run(self) -> Outcome:
        """Run all steps. Raises what the client raises, and `Unseen`."""
        self._reset()
        for number, step in enumerate(self.case.steps):
            self._number = number
            if step.fresh and number:
                self._reset()
            elif self.outcome.failed or self._cut:
                # What follows was worked out from the state that this step should have left behind.
                continue
            sent = step
            if step.handles:
                regs = self._handles.sent(step.regs, step.handles)
                if regs is None:
                    # The host has the right not to give the handle that all that follows is about.
                    break
                sent = replace(step, regs=regs)
            stopped = self._step(sent)
            left = MOST_CALLS
            while stopped is not None and left and not self.outcome.failed:
                left -= 1
                self.check_time()
                stopped = self._step(stopped, again=True)
            self._cut = stopped is not None
        return self.outcome

    def _reset(self) -> None:
        self.client.reset(self.case.before, self.case.facts)
        self._memory = Bytes()
        self._handles = Handles()
        self._state, self._facts = self.case.before, self.case.facts
        self._cut = False

    def _step(self, step: HostStep, *, again: bool = False) -> HostStep | None:
        """Do one step and judge it; return the step with which to go on where the host rightly did a part."""
        self._memory.lay(step.mem)
        before, state_before, facts_before = self._memory, self._state, self._facts
        answer = self._whole_call(step)
        state: Ranges | None = None
        facts: Mapping[str, Pages] = {}
        if answer.end != "stop":
            state, facts = self._query()
        seen = Seen(end=answer.end, regs=answer.regs, mem=answer.mem, fault=answer.fault, state=state, facts=facts)
        expected = tuple(self._handles.expected(one, answer.regs, step.regs) for one in step.expected)
        judged = judge(expected, seen, sent=step.regs, before=before, step=self._number)
        following = None
        part = False
        sent = self._early.sent(step, before.pieces(), state_before, facts_before) if judged.findings else None
        if sent is not None:
            right = self._early.right(sent, answer)
            other = judge(right, seen, sent=step.regs, before=before, step=self._number) if right else judged
            part = not other.findings
            judged = other if part else judged
            following = self._early.following(sent, judged.nearest) if part else None
        self._state, self._facts = judged.nearest.state, judged.nearest.facts
        for finding in judged.findings:
            self.outcome.add(finding)
        if not judged.findings:
            twin = self._handles.learn(judged.nearest, answer.regs, step.regs)
            if twin is not None:
                text = "one that names no other region"
                self.outcome.add(Finding(what="handle", expected=text, found=twin, step=self._number), "must")
        for policy, value in judged.policies.items() if not part else ():
            self.outcome.show(policy, value)
        if not again:
            self.outcome.exchanged.append(
                Exchanged(
                    sent_regs=step.regs,
                    sent_mem=step.mem,
                    got_end=f"fault {answer.fault}" if answer.end == "fault" else answer.end,
                    got_regs=answer.regs,
                    got_mem=answer.mem,
                )
            )
        inject = step.inject
        if inject is not None and inject.fault == "memory-flip":
            gpa, data = inject.arguments["gpa"], inject.arguments["hex"]
            if isinstance(gpa, int) and isinstance(data, bytes):
                self._memory.lay([(gpa, data)])
        self._memory.lay(answer.mem)
        return following

    def _query(self) -> tuple[Ranges | None, Mapping[str, Pages]]:
        if not self.can_query:
            self.outcome.seen = False
            return None, {}
        try:
            return self.client.query()
        except PeerUnsupported:
            self.can_query = self.outcome.seen = False
            return None, {}

    # -- one call -----------------------------------------------------------------------------------------------

    def _whole_call(self, step: HostStep) -> CallEnd:
        """Make the call and follow its replays to the end, unless a replay is what is expected."""
        inject = step.inject
        self._errno = None
        if inject is not None:
            errno = inject.arguments.get("errno")
            # Where the VMM's part is shown, the runner is the VMM and refuses by itself.
            shown = "exits" in self.features and shows_exits(self.case)
            if inject.fault == "vmm-error" and shown and isinstance(errno, int):
                self._errno = errno
            if self._errno is None or "inject" in self.features:
                self.client.inject(inject)
        answer = self._one_call(step, step.regs, step.mem)
        if any(one.end == "replay" for one in step.expected):
            return answer
        written: list[tuple[int, bytes]] = list(answer.mem)
        changed = dict(answer.regs)
        bound = 0
        count = 0
        while answer.end == "replay":
            self._errno = None
            bound = bound or self._bound(step)
            count += 1
            if count > bound:
                raise Unseen(Verdict.NO_PROGRESS, f"the host answered replay {count} times to one call")
            self.check_time()
            answer = self._one_call(step, {**step.regs, **changed}, ())
            written += answer.mem
            changed.update(answer.regs)
        return replace(answer, regs=changed, mem=merge(written)) if count else answer

    def _one_call(self, step: HostStep, regs: Mapping[str, int], mem: Memory) -> CallEnd:
        answer = self.client.call(regs, mem, vcpu=step.vcpu, mode=self.mode, cpl=step.cpl)
        exits = 0
        while isinstance(answer, Exit):
            exits += 1
            if exits > _MOST_EXITS:
                raise Unseen(Verdict.NO_PROGRESS, f"the host asked its VMM {exits} times in one call")
            self.check_time()
            answer = self.client.answer_exit(*self._vmm(answer))
        return answer

    def _vmm(self, exit_: Exit) -> tuple[dict[str, int], Memory]:
        """Check an exit and answer it as a VMM that agrees, or that refuses the first one where the case says so."""
        errno, self._errno = self._errno, None
        try:
            spec = load(exit_.abi)
            call = spec.abi.convert_call or next(iter(spec.abi.calls.values()))
            wire = Wire(regs=exit_.regs, mem=exit_.mem)
            request = spec.message(call.request).decode(wire)
            if call.response is None:
                return {}, ()
            codec = spec.message(call.response)
            fields: dict[str, object] = {
                name: () if item.is_list else 0 for name, item in codec.message.fields.items() if item.default is None
            }
            if "ret" in codec.fields:
                fields["ret"] = errno or 0
            answer = codec.encode(fields, request=request)
        except HvAbiError as error:
            found = Finding(
                what=f"exit {exit_.abi}",
                expected="bytes that this ABI's request decodes from",
                found=str(error),
                step=self._number,
            )
            self.outcome.add(found, "must")
            return {}, ()
        return dict(answer.regs), answer.mem

    def _bound(self, step: HostStep) -> int:
        """Return how many replays the specification allows for this request."""
        case = self.case
        try:
            reader = Reader(case.abi, case.revision, case.transport, case.setup, profile="spec")
            found = reader.bound(reader.read(step.regs, self._memory.pieces()))
        except (HvAbiError, Unreadable):
            found = None
        return min(max(found or 0, LEAST_REPLAYS), MOST_REPLAYS)


def shows_exits(case: Case) -> bool:
    """Whether a host of the case's ABI asks its VMM by a message that the runner can answer."""
    call = load(case.abi, revision=case.revision).abi.convert_call
    return call is not None and call.vmm is not None and call.vmm.abi is not None


__all__ = ["HostCase", "shows_exits"]
