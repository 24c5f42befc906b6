"""Guest cases of several calls: what is sent in parts under a handle, and taken back with it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hvabi.abi.expr import to_text
from hvabi.conformance.case import Case, GuestScript, GuestTurn, Setup
from hvabi.conformance.generate.basis import PLACE, SCRATCH, Basis
from hvabi.conformance.generate.guests import lies, outcome_words, sent_rules
from hvabi.conformance.generate.handled import names_at
from hvabi.conformance.generate.judged import judge
from hvabi.conformance.oracle.walk import value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hvabi.abi.calls import Rule
    from hvabi.conformance.case import Level, Pages

_LONG = (PLACE + 1, 511)
"""A range that no element of 2 MiB fits into: the longest list of single pages."""
_SHORT = (PLACE, 3)


def conversation_cases(basis: Basis) -> Iterator[Case]:
    """Yield all of them, for a call that gives handles."""
    use = basis.call.handle
    if use is None or use.does != "open" or basis.call.guest is None:
        return
    calls = {call.handle.does: call.name for call in basis.abi.calls.values() if call.handle and call.guest}
    for to in basis.states():
        talk = _Talk(basis, to)
        if "continue" in calls:
            yield from talk.in_parts(basis.of_call(calls["continue"]))
        if "close" in calls:
            yield from talk.taken_back(basis.of_call(calls["close"]))


class _Talk:
    """The conversations about one state."""

    def __init__(self, basis: Basis, to: str) -> None:
        self.basis = basis
        self.to = to
        #: Whether it is the first of the states: what has nothing to do with the state is asked for once.
        self.first = to == basis.states()[0]

    def case(self, group: str, name: str, script: GuestScript, why: str, rules: list[str], **more: object) -> Case:
        basis = self.basis
        case = Case(
            id=f"{basis.prefix}.guest.{basis.transport}.{group}.{name}-to-{self.to}",
            abi=basis.spec.id,
            revision=basis.abi.revision,
            role="guest",
            transport=basis.transport,
            rules=tuple(dict.fromkeys(rules)),
            level="must",
            why=why,
            kind="guest",
            setup=Setup(scratch=SCRATCH),
            script=script,
            profile=None if basis.abi.profile == "spec" else basis.abi.profile,
        )
        return replace(case, **more)  # type: ignore[arg-type]  # fields of a case

    def script(self, span: tuple[int, int], *turns: GuestTurn, fails: bool = False) -> GuestScript:
        """Return a conversion of pages from the first on; one that `fails` has nothing to believe."""
        start, pages = span
        whole: Pages = ((start, start + pages),)
        done = GuestScript(gpa=start << 12, pages=pages, to=self.to, turns=turns, must_believe=whole)
        return replace(done, done=False, must_believe=(), must_not_believe=whole) if fails else done

    def is_done(self, span: tuple[int, int]) -> bool:
        """Whether a host under this profile does the first request of a conversion."""
        question = self.basis.question(*span, self.to)
        judged = judge(self.basis, question) if question is not None else None
        return judged is not None and judged.usual

    # -- in parts -----------------------------------------------------------------------------------------------

    def in_parts(self, more: Basis) -> Iterator[Case]:
        """Yield conversions that one request does not hold."""
        if not self.is_done(_LONG):
            return
        sent = [*sent_rules(self.basis), *sent_rules(more)]
        yield self.case("parts", "several", self.script(_LONG), "The list is longer than one request.", sent)
        if not self.first:
            return
        for rule in (*self.basis.call.rules, *more.call.rules):
            if rule.binds == "guest" and rule.on == "response" and rule.when is not None:
                yield from self._lied_to(more, rule)
        progress = self.basis.call.progress
        if progress is None:
            return
        again, done = (to_text(expr) for expr in (progress.again_when, progress.done_when))
        whole, rest = _two_answers(self.basis)
        if whole and rest:
            early = GuestTurn(say=whole, when=again)
            yield self.case(
                "parts", "done-too-early", self.script(_LONG, early, fails=True),
                "The host says that all is done, and elements were never sent: the guest must not believe it.", sent,
            )  # fmt: skip
            late = replace(self.script(_LONG, GuestTurn(say=rest, when=done), fails=True), repeat_last=True)
            yield self.case(
                "parts", "never-enough", late,
                "The host asks for more than there is: the guest must give up within its bound.", sent,
            )  # fmt: skip
        refusal = outcome_words(more, "failed")
        if refusal:
            for name, before in (("second", 1), ("third", 2)):
                turns = (*[GuestTurn()] * before, GuestTurn(say=refusal, when="1"))
                yield self.case(
                    "parts", f"{name}-refused", self.script(_LONG, *turns, fails=True),
                    "A later request of several is refused: nothing is converted.", sent,
                )  # fmt: skip

    def _lied_to(self, more: Basis, rule: Rule) -> Iterator[Case]:
        """Yield answers for more that break a rule of what a guest must check."""
        before = [] if self.basis.call.rule(rule.id) is not None else [GuestTurn()]
        basis = more if before else self.basis
        level: Level = rule.level
        for name, *turns in lies(basis, rule):
            told = [replace(turn, when=to_text(rule.when)) for turn in turns]  # type: ignore[arg-type]  # the caller has looked
            yield self.case(
                rule.id, name, self.script(_LONG, *before, *told, fails=True),
                f"The answer breaks this rule: {rule.text}", [rule.id], level=level,
            )  # fmt: skip

    # -- taking back --------------------------------------------------------------------------------------------

    def taken_back(self, closing: Basis) -> Iterator[Case]:
        """Yield conversions back of what was converted before."""
        guest = closing.call.guest
        if guest is None or not guest.states or not self.is_done(_SHORT):
            return
        back = guest.states[0]
        sent = sent_rules(closing)
        start, pages = _SHORT
        there = self.script(_SHORT)

        def again(span: tuple[int, int], *, fails: bool = False, then: GuestScript | None = None) -> GuestScript:
            return replace(self.script(span, fails=fails), to=back, then=then)

        yield self.case(
            "back", "whole", replace(there, then=again(_SHORT)), "What was converted is taken back.", sent,
        )  # fmt: skip
        if not self.first:
            return
        other = (start + 8, 2)
        beside = (start + pages, 2)
        yield self.case(
            "back", "one-of-two",
            replace(there, then=replace(self.script(other), then=again(other))),
            "Two regions, and the second is taken back: the first stays as it is.", sent,
        )  # fmt: skip
        yield self.case(
            "back", "both-at-once",
            replace(there, then=replace(self.script(beside), then=again((start, pages + 2)))),
            "Two regions side by side are taken back together.", sent,
        )  # fmt: skip
        yield self.case(
            "back", "and-there-again",
            replace(there, then=again(_SHORT, then=replace(there, then=again(_SHORT)))),
            "What was taken back is converted once more, and taken back once more.", sent,
        )  # fmt: skip
        yield self.case(
            "back", "a-part", replace(there, then=again((start, pages - 1), fails=True)),
            "A region comes back as a whole: a part of it cannot be taken back.", sent,
        )  # fmt: skip
        yield self.case(
            "back", "twice",
            replace(there, then=again(_SHORT, then=replace(again(_SHORT), done=None, must_believe=()))),
            "What is taken back already has no handle any more.", sent,
        )  # fmt: skip
        yield self.case(
            "back", "never-there",
            again(_SHORT, fails=True), "Pages were converted before the guest began: it has no handle for them.", sent,
            before=((start, start + pages, self.to),),
        )  # fmt: skip
        for fact in _refusing(closing):
            yield self.case(
                "back", fact, replace(there, then=again(_SHORT, fails=True)),
                "The host does not give the pages back: they stay as they are.", sent,
                facts={fact: ((start, start + pages),)},
            )  # fmt: skip


def _two_answers(basis: Basis) -> tuple[dict[str, int | str], dict[str, int | str]]:
    """Return the answers where all is done, and where more is to come: as EXPRs, empty where there is none."""
    whole: dict[str, int | str] = {}
    rest: dict[str, int | str] = {}
    for answer in basis.call.outcomes.get("done", ()):
        if answer.guard.serves(basis.transport):
            words = {name: to_text(expr) for name, expr in answer.fields.items()}
            if answer.when is None:
                whole = whole or dict(words)
            else:
                rest = rest or dict(words)
    return whole, rest


def _refusing(closing: Basis) -> Iterator[str]:
    """Yield facts of which one page has the host refuse to close a handle."""
    question = closing.question(*_SHORT, "private")
    if question is None:
        return
    for rule in closing.call.rules:
        if rule.binds != "host" or rule.check != "fact":
            continue
        if not value(rule.operands["is"][0], names_at(closing, question)):
            yield rule.words["name"]


__all__ = ["conversation_cases"]
