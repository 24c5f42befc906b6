"""Host liars made from a specification: one per rule, pair, status, number and place that can be got wrong."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from hvabi.abi.expr import Binary, Int
from hvabi.abi.model import BlockPlace
from hvabi.conformance.liars import hosts, keepers, model
from hvabi.conformance.liars.exprs import moved
from hvabi.conformance.liars.liar import Planted
from hvabi.conformance.liars.made import Made, engine
from hvabi.conformance.liars.of_answers import AnswerLies
from hvabi.conformance.liars.of_places import PlaceLies
from hvabi.conformance.liars.of_questions import QuestionLies
from hvabi.conformance.liars.of_rules import RuleLies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hvabi.abi.calls import Answer, Call, Convert, ErrnoAnswer
    from hvabi.abi.specification import Abi

    Changing = Callable[[Abi, Callable[[Answer], Answer]], Abi]


class HostLies(RuleLies, AnswerLies, PlaceLies, QuestionLies):
    """Makes the host liars of one resolved ABI on one transport."""

    def all(self) -> Iterator[Made]:
        """Yield every liar."""
        yield from self.rules_skipped()
        yield from self.rules_off_by_one()
        yield from self.rules_swapped()
        yield from self.statuses()
        yield from self.numbers()
        if self.call.convert is not None:
            yield from self.conversions()
        elif self.call.query is not None:
            yield from self.questions()
        yield from self.places()
        yield from self.reserved()
        if self.call.convert is not None:
            yield from self.engines()
        elif self.call.query is not None:
            yield from self.asking_engines()

    def conversions(self) -> Iterator[Made]:
        """Yield hosts that take the request for another one."""
        convert = self.call.convert
        assert convert is not None  # it is the call that converts
        to = convert.to
        if to is not None and len({state for state in to.states.values() if state}) > 1:
            yield self._meaning("polarity", "It takes shared for private and private for shared.", _inverted)
            for number, state in to.states.items():
                other = "shared" if state != "shared" else "private"
                changed = replace(to, states={**to.states, number: other})
                yield self._meaning(
                    f"direction-{number}",
                    f"It takes direction {number} ({state or 'no change'}) for {other}.",
                    partial(_replaced, to=changed),
                )
        if to is not None and to.has_otherwise and to.otherwise in (None, "none"):
            # bug Q8: whatever is not private is shared
            yield self._meaning(
                "direction-otherwise",
                "It takes every direction that it does not know for shared.",
                partial(_replaced, to=replace(to, otherwise="shared")),
                "unspecified-direction",
            )
        for key in ("start", "pages"):
            if self.widest(getattr(convert, key)) <= 32:
                continue
            low = Binary("&", getattr(convert, key), Int(0xFFFFFFFF, 16))
            change = partial(_replaced, start=low) if key == "start" else partial(_replaced, pages=low)
            yield self._meaning(f"{key}-low-half", f"It keeps the low 32 bits of the {key} only.", change)
        if self.widest(convert.start):  # a call about every page has no other start
            late = partial(_replaced, start=moved(convert.start, 4096))
            yield self._meaning("start-one-page-more", "It begins one page too late.", late)
        if convert.hint is not None:
            yield self._meaning(
                "hint-as-count",
                "It takes the size hint for a factor of the count.",
                partial(_replaced, pages=Binary("*", convert.pages, convert.hint)),
            )
        if convert.each is not None:
            if convert.first is not None:
                yield self._meaning(
                    "first-one-more", "It skips the first element.", partial(_replaced, first=moved(convert.first, 1))
                )
                yield self._meaning(
                    "first-zero",
                    "It begins with the first element, whatever is asked for.",
                    partial(_replaced, first=Int(0)),
                )
            if convert.count is not None:
                yield self._meaning(
                    "count-one-less", "It forgets the last element.", partial(_replaced, count=moved(convert.count, -1))
                )

    def _meaning(self, name: str, what: str, change: Callable[[Convert], Convert], hint: str = "done") -> Made:
        return Made(
            kind="meaning",
            name=name,
            what=what,
            hints=(hint,),
            planted=Planted(spec=partial(model.with_convert, change=change)),
        )

    def engines(self) -> Iterator[Made]:
        """Yield hosts whose work is done the wrong way."""
        yield engine("work", "does-nothing", keepers.DoesNothing, "done")
        yield engine("work", "last-page-forgotten", keepers.ForgetsLastPage, "done")
        yield engine("work", "first-page-forgotten", keepers.StartsOnePageLate, "done")
        yield engine("work", "one-page-too-many", keepers.OverrunsByOne, "done")
        convert = self.call.convert
        assert convert is not None  # it is the call that converts
        place = self.transport.placements[self.call.request].place.get(convert.bits or "", (None,))[0]
        if isinstance(place, BlockPlace):
            yield engine("work", "bits-backwards", hosts.reads_bits_backwards(place.block), "done")
        private = convert.to is None or "private" in {*convert.to.states.values(), convert.to.otherwise}
        if convert.each is None and self.widest(convert.pages) and private:
            yield engine("work", "first-range-only", keepers.FirstRangeOnly, "done")
        why = (
            None if convert.to is not None else "the bound is on pages that are not private, and the call makes none so"
        )
        if convert.to is None or self.adds_ranges:
            yield engine("work", "bound-ignored", keepers.IgnoresBound, "limit", equivalent=why)
        if any(rule.scope == "call" for rule in self.rules):
            yield engine("footprint", "refused-but-changed", hosts.ConvertsRefused)
        if any(rule.scope != "call" for rule in self.rules):
            yield engine("footprint", "element-refused-but-changed", hosts.ConvertsRefusedElement)
        yield from self._page_engines()
        exact = self.call.progress is not None and self.call.progress.footprint == "exact"
        if self.call.reports_parts(self.transport.name):
            why = None if exact else "the specification says nothing of the pages of a call that failed on the way"
            yield engine("footprint", "more-than-reported", hosts.DoesMoreThanItSays, "stop-after", equivalent=why)
        if self.call.vmm is not None:
            yield engine("vmm", "refusal-ignored", hosts.IgnoresVmm, "errno")
        why = None if exact else "the specification says nothing of the pages of a call that failed on the way"
        if not self.shown() - {"done", "partial"}:
            why = "nothing makes this model host fail on the way"
        elif exact and not self.shown() - {"done", "partial", "limit"}:
            why = "a test can only make it fail at the bound on ranges, where one page more cannot change either"
        yield engine("footprint", "failed-but-changed", hosts.ChangesWhatWasRefused, "limit", equivalent=why)
        blocks = self.transport.placements[self.call.request].blocks.values()
        if any(block.space is None and block.at is not None for block in blocks):
            yield engine("memory", "read-twice", hosts.ReadsTwice, "memory-flip")
        for number, row in enumerate(self.call.vmm.errno if self.call.vmm else ()):
            if row.guard.serves(self.transport.name):
                yield Made(
                    kind="vmm",
                    name=f"errno-row-{number}",
                    what=f"It has no row for {'other errnos' if row.errno is None else f'errno {row.errno}'}.",
                    planted=Planted(spec=partial(_without_errno, number=number)),
                    hints=("errno",),
                    equivalent=_same_errno(self.call, number),
                )

    def _page_engines(self) -> Iterator[Made]:
        """Yield hosts that judge single pages at the wrong time."""
        if not any(rule.scope == "page" for rule in self.rules):
            return
        partial_ones = model.answers_of(self.call.outcomes, "partial", self.transport.name)
        prevalidates = bool(self.call.prevalidate) and self.call.prevalidate[0].value == "true"
        whole = "nothing is changed at all where one page is bad" if prevalidates or not partial_ones else None
        yield engine("pages", "judged-first", hosts.JudgesPagesFirst, "page-", equivalent=whole)
        yield engine("pages", "bad-page-done", hosts.DoesBadPage, "page-", equivalent=whole)
        yield engine("pages", "first-page-only", hosts.JudgesFirstPage, "page-")


def _inverted(convert: Convert) -> Convert:
    assert convert.to is not None  # the caller has looked
    other = {"private": "shared", "shared": "private"}
    states = {number: other.get(state or "", state) for number, state in convert.to.states.items()}
    return replace(convert, to=replace(convert.to, states=states))


def _replaced(convert: Convert, **changes: object) -> Convert:
    return replace(convert, **changes)  # type: ignore[arg-type]  # fields of Convert


def _without_errno(abi: Abi, number: int) -> Abi:
    call = model.the_call(abi)
    assert call.vmm is not None  # the caller has looked
    rows = (*call.vmm.errno[:number], *call.vmm.errno[number + 1 :])
    return model.with_call(abi, replace(call, vmm=replace(call.vmm, errno=rows)))


def _same_errno(call: Call, number: int) -> str | None:
    """Say which later row answers the same, so that nobody misses this one."""
    assert call.vmm is not None  # the caller has looked

    def means(item: ErrnoAnswer) -> object:
        if item.answer is not None:
            return model.said(item.answer)
        return [model.said(answer) for answer in call.outcomes.get(item.outcome or "failed", ())]

    row = call.vmm.errno[number]
    for later in call.vmm.errno[number + 1 :]:
        if later.errno is None:
            return "the row for every other errno answers the same" if means(later) == means(row) else None
    failed = [model.said(answer) for answer in call.outcomes.get("failed", ())]
    if row.errno is None and row.answer is None and means(row) == failed:
        return "an errno that no row has is `failed`, which answers the same"
    return None
