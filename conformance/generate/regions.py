"""Sequences of calls about regions that are kept under handles: opened, brought in parts, closed, never finished."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hvabi.adapters.batch import plan
from hvabi.backend import PageState
from hvabi.conformance.case import Case, Held, Setup
from hvabi.conformance.generate.judged import normal
from hvabi.conformance.generate.question import PLACE, Question, as_fields
from hvabi.conformance.generate.way import first_handle

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hvabi.conformance.case import Expected, HostStep, Level, Memory, Pages, Ranges
    from hvabi.conformance.generate.basis import Basis

_HIGH = PLACE + (1 << 24)
"""A page above 4 GiB."""
_FEW = 2
"""Bounds on regions and parts in cases that go beyond them."""


class Sequence:
    """Calls one after another, each expected to be answered as the ones before it leave the host.

    Args:
        basis: that of the call that gives handles.
        setup: how the host is configured.
        before: pages that are not private at first.

    """

    def __init__(self, basis: Basis, setup: Setup | None = None, before: Ranges = ()) -> None:
        self.basis = basis
        self.setup = setup or Setup()
        self.before = self.state = before
        self.facts: Mapping[str, Pages] = {}
        self.held = Held()
        self.steps: list[HostStep] = []
        self.memory: Memory = ()
        self.rules: list[str] = []

    def add(self, basis: Basis, fields: Mapping[str, Any], *, vcpu: int = 0) -> Expected:
        """Make a call, and go on to the state behind its likeliest answer, which is returned."""
        question = Question(
            fields=fields, setup=self.setup, before=self.state, facts=self.facts, call=basis.call.name, held=self.held
        )
        sent = normal(basis, question, self.memory)
        assert sent is not None  # the calls are right ones, or nearly
        answers = basis.answers(sent)
        self.steps.append(replace(basis.step(sent, answers), vcpu=vcpu))
        self.memory = (*self.memory, *basis.wire(sent)[1])
        self.rules += [answer.rule for answer in answers if answer.rule is not None]
        self.state, self.facts, self.held = answers[0].state, answers[0].facts, answers[0].held
        return answers[0]

    @property
    def limited(self) -> bool:
        """Whether a call so far was one too many for the host."""
        return any(step.expected[0].status == "limit" for step in self.steps)

    def case(self, name: str, why: str, level: Level = "must") -> Case:
        """Return the case."""
        basis = self.basis
        return Case(
            id=f"{basis.prefix}.host.{basis.transport}.handles.{name}",
            abi=basis.spec.id,
            revision=basis.abi.revision,
            role="host",
            transport=basis.transport,
            rules=tuple(dict.fromkeys(self.rules)),
            level=level,
            why=why,
            kind="handles",
            setup=self.setup,
            before=self.before,
            steps=tuple(self.steps),
            profile=None if basis.abi.profile == "spec" else basis.abi.profile,
        )


class Regions:
    """The sequences of one ABI: everything comes from the calls that its specification says use handles."""

    def __init__(self, opening: Basis) -> None:
        self.opening = opening
        calls = {call.handle.does: call.name for call in opening.abi.calls.values() if call.handle is not None}
        self.more = opening.of_call(calls["continue"]) if "continue" in calls else None
        self.closing = opening.of_call(calls["close"])
        self.first = first_handle(opening)
        self.to = opening.states()[0]

    def parts(self, start: int, sizes: tuple[int, ...]) -> list[Mapping[str, Any]]:
        """Return requests that bring pages from `start` on in parts of that many elements, a page each.

        The first gives the handle, for which the first one of the model stands; `sizes` has two parts or more.
        """
        guest = self.opening.guest()
        guest.part_limit = sizes[0]
        # From an odd page on, so that no element has more pages than one.
        batch = next(plan(guest, start | 1, sum(sizes), PageState(self.to)))
        out: list[Mapping[str, Any]] = [as_fields(batch.request)]
        at = 0
        for size in sizes[1:]:
            out.append(self.going_on(self.first, batch.rest[at : at + size]))
            at += size
        return out

    def going_on(self, handle: int, items: tuple[Any, ...]) -> Mapping[str, Any]:
        """Return a request that brings more elements of a region."""
        assert self.more is not None  # the callers have looked
        use = self.more.call.handle
        assert use is not None  # it is that call
        fields = self.more.codec(Setup()).complete({use.of or "": handle, use.list or "": items})
        return as_fields(fields)

    def whole(self, start: int, pages: int) -> Mapping[str, Any]:
        """Return a request that shares pages at once."""
        found = self.opening.request(start, pages, self.to)
        assert found is not None  # a guest has such a call
        return found

    def close(self, handle: int) -> Mapping[str, Any]:
        """Return a request that ends a region."""
        use = self.closing.call.handle
        assert use is not None  # it is that call
        return as_fields(self.closing.codec(Setup()).complete({use.of or "": handle}))

    def new(self, **config: int) -> Sequence:
        """Return a sequence on a host with this configuration."""
        return Sequence(self.opening, Setup(config=config))


def region_cases(basis: Basis) -> Iterator[Case]:
    """Yield all sequences."""
    use = basis.call.handle
    if use is None or use.does != "open" or not basis.states():
        return
    regions = Regions(basis)
    yield from _opened_and_closed(regions)
    if regions.more is not None and regions.new().add(basis, regions.parts(PLACE, (1, 1))[0]).rule is None:
        yield from _in_parts(regions, regions.more)
        yield from _too_much(regions, regions.more)
        yield from _full_part(regions, regions.more)
    yield from _full(regions)


def _opened_and_closed(regions: Regions) -> Iterator[Case]:
    opening, closing, first = regions.opening, regions.closing, regions.first
    one = regions.new()
    one.add(opening, regions.whole(PLACE, 3))
    one.add(closing, regions.close(first), vcpu=1)
    one.add(opening, regions.whole(PLACE, 3))
    one.add(closing, regions.close(first))
    yield one.case("closed-and-opened-again", "A region is closed and opened again; the first handle is worth nothing.")
    two = regions.new()
    two.add(opening, regions.whole(PLACE, 3))
    two.add(opening, regions.whole(PLACE + 3, 2), vcpu=1)
    two.add(closing, regions.close(first))
    two.add(closing, regions.close(first + 1))
    yield two.case("two-side-by-side", "Two regions that touch are closed one by one: each handle has its own pages.")
    between = Sequence(opening, Setup(max_ranges=1))
    for number in range(3):
        between.add(opening, regions.whole(PLACE + 2 * number, 2))
    between.add(closing, regions.close(first + 1))
    between.add(closing, regions.close(first))
    if between.limited:
        why = "Taking back the middle of three regions would split a range beyond the bound; then the first goes back."
        yield between.case("bound-on-taking-back", why, "should")
    last = regions.new()
    last.add(opening, regions.whole(PLACE, 1))
    last.add(opening, regions.whole(PLACE + 8, 1))
    last.add(closing, regions.close(first + 1))
    last.add(closing, regions.close(first))
    yield last.case("last-one-first", "The region that was opened last is closed first.")


def _in_parts(regions: Regions, more: Basis) -> Iterator[Case]:
    opening, closing, first = regions.opening, regions.closing, regions.first
    parts = regions.parts(PLACE, (1, 2, 1))
    three = regions.new()
    three.add(opening, parts[0])
    three.add(more, parts[1], vcpu=1)
    three.add(more, parts[2])
    three.add(closing, regions.close(first))
    yield three.case("three-parts", "A list comes in three parts; nothing changes before the last one.")
    high = regions.new()
    for fields, basis in zip(regions.parts(_HIGH, (1, 1)), (opening, more), strict=True):
        high.add(basis, fields)
    high.add(closing, regions.close(first))
    yield high.case("parts-above-4g", "The pages of all parts lie above 4 GiB.")
    early = regions.new()
    early.add(opening, parts[0])
    early.add(closing, regions.close(first))
    early.add(more, parts[1])
    early.add(more, parts[2])
    yield early.case("closed-too-early", "A region is closed before its last part has come, which then comes.")
    late = regions.new()
    for fields, basis in ((parts[0], opening), (parts[1], more), (parts[2], more), (parts[2], more)):
        late.add(basis, fields)
    yield late.case("last-part-twice", "The last part comes once more: nothing is missing any more.")
    twice = regions.new()
    for fields, basis in ((parts[0], opening), (parts[1], more), (parts[1], more)):
        twice.add(basis, fields)
    yield twice.case("a-part-twice", "A part comes twice in place of the one behind it.")
    others = [{**fields, use: first + 1} for fields in regions.parts(PLACE + 32, (2, 2))[1:] if (use := _of(more))]
    both = regions.new()
    both.add(opening, parts[0])
    both.add(opening, regions.parts(PLACE + 32, (2, 2))[0])
    both.add(more, others[0])
    both.add(more, parts[1])
    both.add(more, parts[2])
    both.add(closing, regions.close(first))
    yield both.case("two-at-once", "The parts of two regions come in turns; each handle gathers its own.")
    wrong = regions.new()
    wrong.add(opening, parts[0])
    wrong.add(more, {**parts[1], _of(more): first + 1})
    wrong.add(more, parts[1])
    wrong.add(more, parts[2])
    yield wrong.case("a-part-for-nobody", "A part that names no region is refused, and harms none.", "should")
    shared = Sequence(opening, before=((PLACE + 2, PLACE + 3, regions.to),))
    shared.add(opening, parts[0])
    shared.add(more, parts[1])
    answer = shared.add(more, parts[2])
    if answer.rule is not None:
        yield shared.case("a-page-is-taken", "A page of an earlier part cannot be done: the last part is refused.")


def _too_much(regions: Regions, more: Basis) -> Iterator[Case]:
    """Yield regions that are never finished, up to what the host keeps and beyond."""
    opening, first = regions.opening, regions.first
    for key in opening.abi.config.values():
        if key.choices or not key.accepts(_FEW):
            continue
        never = regions.new(**{key.name: _FEW})
        for number in range(_FEW + 1):
            never.add(opening, regions.parts(PLACE + 16 * number, (1, 1))[0])
        if never.limited:
            never.add(opening, regions.parts(PLACE + 16 * _FEW, (1, 1))[0])
            name = f"never-finished-{key.name.replace('_', '-')}"
            why = "Regions are begun and never finished until the host keeps no more; it goes on answering."
            yield never.case(name, why, "should")
        pieces = regions.parts(PLACE, (1, 1, 1, 1))
        many = regions.new(**{key.name: _FEW})
        for fields, basis in zip(pieces, (opening, more, more, more), strict=True):
            many.add(basis, fields)
        if many.limited:
            name = f"too-many-parts-{key.name.replace('_', '-')}"
            yield many.case(name, "A list comes in more parts than the host takes.", "should")
    bounded = Sequence(opening, Setup(max_ranges=0))
    for fields, basis in zip(regions.parts(PLACE, (1, 1)), (opening, more), strict=True):
        bounded.add(basis, fields)
    bounded.add(regions.closing, regions.close(first))
    yield bounded.case(
        "bound-on-ranges", "The last part would add a range beyond the bound: the region ends.", "should"
    )
    excess = regions.new()
    parts = regions.parts(PLACE, (1, 1))
    excess.add(opening, parts[0])
    excess.add(more, regions.going_on(first, regions.parts(PLACE, (1, 3))[1][_list(more)]))
    if excess.rules:
        yield excess.case("more-than-announced", "More elements come than the first part says.", "should")


def _full(regions: Regions) -> Iterator[Case]:
    """Yield a list that just fits one call, and one that is an element too long."""
    opening = regions.opening
    guest = opening.guest()
    most = len(as_fields(next(plan(guest, PLACE | 1, 20000, PageState(regions.to))).request)[_list(opening)])
    for label, count in (("fits", most), ("is-one-too-long", most + 1)):
        guest.part_limit = count
        one = regions.new()
        one.add(opening, as_fields(next(plan(guest, PLACE | 1, count, PageState(regions.to))).request))
        yield one.case(f"list-that-{label}", "A list as long as one call can bring, or an element longer.")


def _full_part(regions: Regions, more: Basis) -> Iterator[Case]:
    """Yield a later part as long as one call can bring, and one that is an element too long."""
    guest = more.call.guest
    if guest is None or guest.part_elements is None:
        return
    most = more.guest().scope().int(guest.part_elements)
    for label, count in (("fits", most), ("is-one-too-long", most + 1)):
        parts = regions.parts(PLACE, (1, count, 1))
        late = regions.new()
        late.add(regions.opening, parts[0])
        late.add(more, parts[1])
        yield late.case(f"later-part-that-{label}", "A later part as long as one call can bring, or an element longer.")


def _of(basis: Basis) -> str:
    use = basis.call.handle
    return use.of or "" if use is not None else ""


def _list(basis: Basis) -> str:
    use = basis.call.handle
    return use.list or "" if use is not None else ""


__all__ = ["Regions", "Sequence", "region_cases"]
