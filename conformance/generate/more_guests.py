"""Guest cases beyond the plain ones: other configurations, the guest's own half, a host that rewrites the list."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hvabi.abi.model import BlockPlace
from hvabi.conformance.case import Case, GuestScript, GuestTurn, Inject, Setup
from hvabi.conformance.generate.basis import PLACE, SCRATCH, Basis, Question, vary
from hvabi.conformance.generate.guests import facts_before, states_before
from hvabi.conformance.generate.judged import judge
from hvabi.conformance.generate.variants import basis_request
from hvabi.conformance.oracle.walk import Undefined, value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hvabi.abi.calls import Rule

MOST_ELEMENTS = 600
"""Most elements of a list that these cases fill."""


def more_guest_cases(basis: Basis) -> Iterator[Case]:
    """Yield all of them."""
    yield from _configured(basis)
    yield from _own_half(basis)
    yield from _rewritten(basis)
    yield from _smaller(basis)


def _case(basis: Basis, group: str, name: str, script: GuestScript, why: str, **more: object) -> Case:
    case = Case(
        id=f"{basis.prefix}.guest.{basis.transport}.{group}.{name}",
        abi=basis.spec.id,
        revision=basis.abi.revision,
        role="guest",
        transport=basis.transport,
        rules=(),
        level="must",
        why=why,
        kind="guest",
        setup=Setup(scratch=SCRATCH),
        before=states_before(basis, script),
        script=script,
        facts=facts_before(basis, script),
        profile=None if basis.abi.profile == "spec" else basis.abi.profile,
    )
    return replace(case, **more)  # type: ignore[arg-type]  # fields of a case


def _configured(basis: Basis) -> Iterator[Case]:
    """Yield conversions under every other value of the ABI's own configuration."""
    pages = basis.granule()
    sent = [
        rule.id
        for rule in basis.call.rules
        if rule.binds == "guest" and rule.on == "request" and rule.guard.serves(basis.transport)
    ]
    for key in basis.abi.config.values():
        for choice in key.choices:
            if choice == key.default:
                continue
            for to in basis.states():
                setup = Setup(scratch=SCRATCH, config={key.name: choice})
                fields = basis.request(PLACE, pages, to, config=setup.config)
                if fields is None:
                    continue
                question = Question(fields=fields, setup=setup, **basis.laid(PLACE, pages, to), call=basis.call.name)
                judged = judge(basis, question)
                if judged is None or not judged.accepted:
                    continue
                name = f"{key.name.replace('_', '-')}-{choice}-to-{to}"
                script = GuestScript(gpa=PLACE << 12, pages=pages, to=to, must_believe=((PLACE, PLACE + pages),))
                yield _case(
                    basis, "config", name, script, f"The same under {key.name} = {choice}.", setup=setup,
                    rules=tuple(sent),
                )  # fmt: skip


def _own_half(basis: Basis) -> Iterator[Case]:
    """Yield conversions in which the guest's local half must cover the whole range, however the host stops."""
    guest = basis.call.guest
    if guest is None:
        return
    granule = basis.granule()
    spans: list[tuple[str, int, tuple[GuestTurn, ...]]] = [("plain", 3 * granule, ())]
    if basis.call.reports_parts(basis.transport):
        stop = GuestTurn(inject=Inject(fault="stop-after", arguments={"pages": granule}))
        spans.append(("stopped", 3 * granule, (stop,)))
    if guest.max_elements is not None:
        fields = basis.request(PLACE + 1, 20000, basis.states()[0])
        each = basis.call.each
        if fields is not None and each is not None and len(fields[each]) < MOST_ELEMENTS:
            # From an odd page on, so that every element is one page: one more than a request holds.
            spans.append(("two-requests", 0, ()))
    for to in basis.states():
        steps = [(guest.steps_before.get(to), "before"), (guest.steps_after.get(to), "after")]
        words = [(word, when) for word, when in steps if word is not None]
        for name, pages, turns in spans if words else ():
            start = PLACE + 1 if not pages else PLACE
            count = pages or _one_too_many(basis)
            if basis.request(start, count, to) is None:
                continue
            covered = ((start, start + count),)
            script = GuestScript(
                gpa=start << 12, pages=count, to=to, turns=turns, must_believe=covered,
                local_steps=tuple((word, when, covered) for word, when in words),
            )  # fmt: skip
            yield _case(
                basis, "local-steps", f"{name}-to-{to}", script,
                "The guest's own half covers every page, in the right order.", features=("local-steps",),
            )  # fmt: skip


def _one_too_many(basis: Basis) -> int:
    """Return the pages of one element more than a request holds, from an odd page on, where 2 MiB elements join in."""
    each = basis.call.each
    for pages in range(64, 512):
        fields = basis.request(PLACE + 1, pages, basis.states()[0])
        if fields is not None and each is not None and len(fields[each]) < pages:
            return pages
    return 510


def _rewritten(basis: Basis) -> Iterator[Case]:
    """Yield a partial answer with which the host also rewrites elements that it has not come to yet."""
    each = basis.call.each
    placement = basis.abi.transports[basis.transport].placements[basis.call.request]
    places = placement.place.get(each or "", ())
    partial = basis.call.reports_parts(basis.transport)
    if each is None or not partial or not places or not isinstance(places[0], BlockPlace):
        return
    place = places[0]
    if placement.blocks[place.block].registers:
        return
    for to in basis.states():
        question = basis.question(PLACE + 1, 4, to)
        if question is None or len(question.fields[each]) < 4:
            continue
        names = basis_request(basis, question)
        field = basis.abi.messages[basis.call.request].fields[each]
        block = placement.blocks[place.block]
        stride = value(place.stride, names) if place.stride is not None else field.bits // 8
        codec = basis.codec(question.setup)
        last = question.fields[each][-1]
        if isinstance(last, dict):
            page = next((name for name, item in last.items() if item == PLACE + 4), None)
            if page is None:
                continue
            other: object = {**last, page: PLACE + 0x100}
        else:
            other = last + 0x100
        raw = codec.placer.element_bytes(field, other, block, each)
        turn = GuestTurn(
            inject=Inject(fault="stop-after", arguments={"pages": 1}),
            mem_at=((place.block, value(place.at, names) + 3 * stride, raw),),
        )
        script = GuestScript(gpa=PLACE + 1 << 12, pages=4, to=to, turns=(turn,), done=None)
        yield _case(
            basis, "progress", f"list-rewritten-to-{to}", script,
            "The host rewrites an element that it has not done: the guest must not take it for its own.",
        )  # fmt: skip


def _smaller(basis: Basis) -> Iterator[Case]:
    """Yield conversions of pages that the host will do in the smallest size only, because of a fact of the pages."""
    guest, convert = basis.call.guest, basis.call.convert
    if guest is None or guest.smaller_when is None or convert is None or not guest.element_pages:
        return
    size = guest.element_pages[0]
    spans = (("alone", PLACE, size), ("amid-others", PLACE + size - 1, size + 2))
    for rule in basis.call.rules:
        if rule.binds != "host" or rule.check != "fact" or not rule.guard.serves(basis.transport):
            continue
        for to in basis.states():
            for name, start, pages in spans:
                large = (start if name == "alone" else start + 1, size)
                question = basis.question(start, pages, to)
                if question is None:
                    continue
                facts = {**question.facts, rule.words["name"]: ((large[0], large[0] + size),)}
                if not _asks_for_smaller(basis, vary(question, facts=facts), rule):
                    continue
                script = GuestScript(gpa=start << 12, pages=pages, to=to, must_believe=((start, start + pages),))
                yield _case(
                    basis, "smaller", f"{rule.words['name']}-{name}-to-{to}", script,
                    "The host wants smaller pieces of one part: the guest asks for that part again in pieces.",
                    facts=facts,
                )  # fmt: skip


def _asks_for_smaller(basis: Basis, question: Question, rule: Rule) -> bool:
    """Whether the host refuses by this rule, with an answer after which the guest asks for smaller pieces."""
    judged = judge(basis, question)
    if judged is None or judged.rule != rule.id or rule.answer is None:
        return False
    names = basis_request(basis, judged.question).plus(index=0, done_pages=0, done_bytes=0, part_pages=0, errno=0)
    try:
        response = {name: value(expr, names) for name, expr in rule.answer.fields.items()}
        wanted = basis.call.guest.smaller_when if basis.call.guest else None
        return wanted is not None and bool(value(wanted, names.plus(response=response)))
    except Undefined:
        return False
