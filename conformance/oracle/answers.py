"""What a host must answer and what then must be true of the pages, under every policy that is left open."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from hvabi.abi.registry import load
from hvabi.abi.specification import SPEC_PROFILE
from hvabi.conformance.case import Expected
from hvabi.conformance.oracle.asked import PAGE, Shared
from hvabi.conformance.oracle.held import after
from hvabi.conformance.oracle.placed import Placed, place_answer
from hvabi.conformance.oracle.question import Questioned
from hvabi.conformance.oracle.walk import Undefined, Unread, value
from hvabi.conformance.oracle.work import End

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hvabi.abi.calls import Answer, Call, Rule
    from hvabi.abi.calls import End as EndWord
    from hvabi.abi.specification import Abi
    from hvabi.conformance.case import Held, Inject, Memory, Pages, Ranges, Setup


class Oracle:
    """Right answers of a host of one ABI on one transport, from the specification alone.

    Args:
        abi: id of the ABI.
        revision: its revision.
        transport: the transport.
        setup: configuration, memory, whether the call is switched on, bound on ranges.
        profile: the profile that the implementation declares; under ``spec`` open policies give alternatives.

    """

    def __init__(self, abi: str, revision: str, transport: str, setup: Setup, *, profile: str = SPEC_PROFILE) -> None:
        self.id = abi
        self.revision = revision
        self.transport_name = transport
        self.setup = setup
        self.profile = profile

    def answers(
        self,
        fields: Mapping[str, Any],
        *,
        call: str | None = None,
        cpl: int = 0,
        inject: Inject | None = None,
        before: Ranges = (),
        facts: Mapping[str, Pages] | None = None,
        mem: Memory = (),
        regs: Mapping[str, int] | None = None,
        held: Held | None = None,
    ) -> tuple[Expected, ...]:
        """Return every right answer to a request.

        Args:
            fields: the whole request: integers, words as mappings or integers, lists as sequences of those.
            call: the call of the ABI, the first by default.
            cpl: privilege of the caller, as far as the transport shows it.
            inject: fault for this call.
            before: pages that are not private.
            facts: facts that are true.
            mem: bytes as placed, for what an answer leaves unchanged.
            regs: registers as sent, for the same and for the selection of the call.
            held: what the host keeps under handles.

        """
        found: list[Expected] = []
        choices, alike = _choices(self.id, self.revision, self.transport_name, self.profile, call)
        shared = Shared()
        for policies, abi in choices:
            shared = shared if alike else Shared()
            request = Request(self, abi, call, fields, cpl, inject, before, facts or {}, regs, held, shared)
            for answer in request.answers(policies):
                for number, other in enumerate(found):
                    if same(answer, other):
                        found[number] = replace(other, also=(*other.also, answer.policies))
                        break
                else:
                    found.append(answer)
        return tuple(found)


@cache
def _choices(
    abi: str, revision: str, transport: str, profile: str, call: str | None
) -> tuple[tuple[tuple[dict[str, str], Abi], ...], bool]:
    """Return the values of open policies: the defaults first, then each other value that bears on the call, alone.

    Each with the specification under them, and whether all mean the same by a request: its fields, names and places.
    Two policies that only together make a third answer are not known; every combination would cost too much.
    """
    right = load(abi, revision=revision, profile=profile).abi
    if profile != SPEC_PROFILE:
        return (({}, right),), True
    open_ones = [policy for policy in right.policies.values() if policy.open]
    defaults = {policy.name: policy.default for policy in open_ones}
    usual = load(abi, revision=revision, profile=profile, policies=defaults).abi
    found, known = [(defaults, usual)], _asked_of(right, transport, call)
    for policy in open_ones:
        for other in policy.values:
            if other == policy.default:
                continue
            values = {**defaults, policy.name: other}
            changed = load(abi, revision=revision, profile=profile, policies=values).abi
            if _asked_of(changed, transport, call) != known:
                found.append((values, changed))
    meant = _meant_by(usual, transport, call)
    return tuple(found), all(_meant_by(changed, transport, call) == meant for _, changed in found)


def _meant_by(abi: Abi, transport: str, name: str | None) -> tuple[object, ...]:
    """Return all of a resolved ABI that says what a request means before it is judged, and how an answer is placed."""
    call = _call_of(abi, name)
    place = abi.transports[transport]
    return (
        abi.constants, abi.enums, abi.config, abi.messages[call.request], place.limits, place.shows_cpl,
        place.placements[call.request], call.request, call.define, call.convert, call.query,
        call.handle, abi.handles, abi.messages.get(call.response or ""), place.placements.get(call.response or ""),
    )  # fmt: skip


def _asked_of(abi: Abi, transport: str, name: str | None) -> tuple[object, ...]:
    """Return all of a resolved ABI that can bear on a host's answer over one transport."""
    call = _call_of(abi, name)
    rules = [
        rule for rule in call.rules
        if rule.binds == "host" and rule.level != "observed" and rule.guard.serves(transport)
    ]  # fmt: skip
    outcomes = {
        status: [answer for answer in answers if answer.guard.serves(transport)]
        for status, answers in call.outcomes.items()
    }
    absent, prevalidate = ([item.value for item in items] for items in (call.absent, call.prevalidate))
    return (rules, outcomes, absent, prevalidate, call.vmm, abi.transports[transport].placements)


def _call_of(abi: Abi, name: str | None) -> Call:
    return abi.calls[name] if name else abi.convert_call or next(iter(abi.calls.values()))


def same(one: Expected, other: Expected) -> bool:
    """Whether two expectations ask for the same, policies and words aside."""
    return all(
        getattr(one, name) == getattr(other, name)
        for name in (
            "end",
            "regs",
            "mem",
            "may_change",
            "nonzero",
            "may_change_mem",
            "fault",
            "state",
            "facts",
            "loose",
            "chosen",
        )
    )


def mends(rule: Rule) -> bool:
    """Whether a host that replays the call for this rule sees to it that the rule is kept the next time."""
    return rule.check == "fact" and rule.scope == "call" and rule.answer is not None and rule.answer.end == "replay"


class Request(Questioned):
    """One request under one set of policies, and its right answers."""

    def __init__(self, oracle: Oracle, *rest: Any) -> None:
        super().__init__(oracle.setup, oracle.transport_name, *rest)

    # -- answers ------------------------------------------------------------------------------------------------

    def answers(self, policies: Mapping[str, str]) -> Iterator[Expected]:
        """Yield the right answers: one, or one per broken rule where the order is not laid down."""
        faults = self._faults()
        if faults:
            for rule in faults[:1] if self.call.order == "stated" or self.abi.profile != SPEC_PROFILE else faults:
                if rule is None:
                    yield self._unreadable(policies)
                elif mends(rule):
                    for answer in self._mended(rule).answers(policies):
                        yield replace(answer, replayed=(rule.id, *answer.replayed))
                else:
                    yield self._refused_at_once(rule, policies)
            return
        if self.call.convert is None and self.call.query is None:
            yield self._outcome("done", policies)
            return
        try:
            self._work() if self.call.query is None else self._ask()
        except End as end:
            if end.rule is not None:
                yield self._refused(end.rule, policies)
            elif end.answer is not None:
                yield self._expected(end.answer, end.status, policies)
            else:
                yield self._outcome(end.status, policies)
            return
        except Unread:
            yield self._unreadable(policies)
            return
        except Undefined:
            yield self._outcome("invalid", policies)
            return
        yield self._outcome("done", policies)

    def _unreadable(self, policies: Mapping[str, str]) -> Expected:
        rule = self._missed()
        return self._outcome("invalid", policies) if rule is None else self._refused(rule, policies)

    def _mended(self, rule: Rule) -> Request:
        """Return the request as it comes again after a replay: the fact holds, the fault for the call is used up."""
        again = copy(self)
        again.facts = self.facts.copy()
        again.marks = list(self.marks)
        again.inject = None
        again.shared = self.shared.of_request()
        start, length = (value(rule.operands[key][0], self.names) for key in ("start", "length"))
        truth = bool(value(rule.operands["is"][0], self.names))
        again.facts.lay(rule.words["name"], start // PAGE, -(-(start + max(length, 0)) // PAGE), truth)
        return again

    def _refused_at_once(self, rule: Rule, policies: Mapping[str, str]) -> Expected:
        """Return the answer of a rule that is broken before anything is done: the same under all policies."""
        known = self.shared.refused.get(id(rule))
        if known is None:
            known = self.shared.refused[id(rule)] = self._refused(rule, policies)
        return replace(known, policies=dict(policies))

    def _refused(self, rule: Rule, policies: Mapping[str, str]) -> Expected:
        assert rule.answer is not None  # lint holds it: a rule that binds the host has an answer
        return self._expected(rule.answer, rule.means or "invalid", policies, rule)

    def _outcome(self, status: str, policies: Mapping[str, str]) -> Expected:
        names = self._local()
        for name in (status, "failed", "invalid"):
            for answer in self.call.outcomes.get(name, ()):
                if answer.cannot is not None:
                    continue
                if answer.guard.transports is not None and self.transport.name not in answer.guard.transports:
                    continue
                if answer.when is None or value(answer.when, names):
                    return self._expected(answer, status, policies)
        raise Undefined(f"{self.abi.id} has no answer for {status}")

    def _expected(self, answer: Answer, status: str, policies: Mapping[str, str], rule: Rule | None = None) -> Expected:
        if rule is not None or status not in ("done", "partial"):
            self.lists = {}  # answers per element belong to a call that went well so far
        placed, end = self._given(answer)
        return Expected(
            end=end,
            regs=placed.regs,
            mem=placed.mem,
            may_change=placed.may_change,
            nonzero=placed.nonzero,
            may_change_mem=placed.may_change_mem,
            fault=answer.fault if end == answer.end else None,
            state=self.pages.ranges(),
            facts=self.facts.pages(),
            loose=self._loose(status, rule),
            chosen=placed.chosen,
            held=after(self, answer, status, rule),
            policies=dict(policies),
            rule=rule.id if rule else None,
            status=status,
            why=rule.text if rule else self._why(status),
        )

    def _given(self, answer: Answer) -> tuple[Placed, EndWord]:
        """Return an answer on the wire and how the call ends with it.

        One that says what nobody could read, or whose bytes have no memory to lie in, cannot be given: the call does
        not come back.
        """
        try:
            placed = place_answer(self, answer, self._local())
        except Unread:
            return Placed(), "stop"
        return placed, answer.end if all(self.is_writable(at, len(data)) for at, data in placed.mem) else "stop"

    def _why(self, status: str) -> str:
        if status == "done":
            return "The request is right and is done as a whole."
        return f"The host's outcome is `{status}` after {self.done} pages."

    def _loose(self, status: str, rule: Rule | None) -> Pages:
        """Return the pages of which nothing is said after a call that failed on the way."""
        progress = self.call.progress
        if status == "done" or rule is not None or self.call.convert is None:
            return ()
        if progress is not None and progress.footprint == "exact":
            return ()
        # What was done before is done for good.
        left, found = self.done, []
        for start, end in self._rest:
            skipped = min(left, end - start)
            left -= skipped
            if start + skipped < end:
                found.append((start + skipped, end))
        return tuple(found)


__all__ = ["Oracle", "Request", "mends", "same"]
