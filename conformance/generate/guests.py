"""Guest cases: a conversion against a host that serves, stops, refuses, or lies."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hvabi.abi.expr import paths, to_text
from hvabi.abi.model import BlockPlace
from hvabi.conformance.case import Case, GuestScript, GuestTurn, Inject, Setup
from hvabi.conformance.generate.basis import PLACE, SCRATCH, Basis
from hvabi.conformance.generate.judged import judge

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hvabi.abi.calls import Rule
    from hvabi.conformance.case import Level, Pages, Ranges

_SPANS = (
    ("one-page", PLACE, 1),
    ("three-pages", PLACE + 1, 3),
    ("2m-aligned", PLACE, 512),
    ("across-2m", PLACE + 510, 5),
    ("one-more-than-2m", PLACE, 513),
)
_FEW = 8
"""Most pages of a conversion by an ABI that names one page a call."""


def guest_cases(basis: Basis) -> Iterator[Case]:
    """Yield all guest cases of a basis."""
    yield from _served(basis)
    yield from _not_made(basis)
    yield from _partial(basis)
    yield from _refused(basis)
    yield from _lied_to(basis)


def sent_rules(basis: Basis) -> list[str]:
    """Return the rules that bind what a guest sends: every served call shows them."""
    return [
        rule.id
        for rule in basis.call.rules
        if rule.binds == "guest" and rule.on == "request" and rule.guard.serves(basis.transport)
    ]


def _spans(basis: Basis, to: str) -> Iterator[tuple[str, int, int]]:
    granule = basis.granule()
    many_calls = basis.reach() <= granule
    for name, start, pages in _SPANS:
        # Where a call names one page, hundreds of them show nothing that five do not.
        if many_calls and pages > _FEW:
            continue
        yield name, start // granule * granule, -(-pages // granule) * granule
    guest = basis.call.guest
    if guest is not None and guest.max_elements is not None and to == basis.states()[0]:
        # One more element than a request holds: the last, short batch must not be forgotten.
        most = min(basis.most_elements(), 600)
        yield "one-element-more-than-fits", PLACE + 1, most + 1


def facts_before(basis: Basis, script: GuestScript) -> dict[str, Pages]:
    """Return facts under which the host can do what a guest asks; none where the call changes states."""
    if not script.pages or not basis.stands_for(script.to):
        return {}
    facts: dict[str, Pages] = basis.laid(script.gpa >> 12, script.pages, script.to)["facts"]
    return facts


def states_before(basis: Basis, script: GuestScript) -> Ranges:
    """Return a state in which the pages of a script are not yet what they are to become."""
    if script.to != "private" or not script.pages or basis.stands_for(script.to):
        return ()
    first = script.gpa >> 12
    return ((first, first + script.pages, "shared"),)


def _case(
    basis: Basis,
    group: str,
    name: str,
    script: GuestScript,
    *,
    rules: list[str],
    why: str,
    level: Level = "must",
    setup: Setup | None = None,
) -> Case:
    return Case(
        id=f"{basis.prefix}.guest.{basis.transport}.{group}.{name}",
        abi=basis.spec.id,
        revision=basis.abi.revision,
        role="guest",
        transport=basis.transport,
        rules=tuple(dict.fromkeys(rules)),
        level=level,
        why=why,
        kind="guest",
        setup=setup or Setup(scratch=SCRATCH),
        before=states_before(basis, script),
        script=script,
        facts=facts_before(basis, script),
        profile=None if basis.abi.profile == "spec" else basis.abi.profile,
    )


def _served(basis: Basis) -> Iterator[Case]:
    for to in basis.states():
        for name, start, pages in _spans(basis, to):
            if not _can_be_done(basis, start, pages, to):
                continue
            yield _case(
                basis, "done", f"{name}-to-{to}",
                GuestScript(gpa=start << 12, pages=pages, to=to, must_believe=((start, start + pages),)),
                rules=sent_rules(basis),
                why="The host does everything at once: each page must be asked for, and none beside.",
            )  # fmt: skip


def _can_be_done(basis: Basis, start: int, pages: int, to: str) -> bool:
    """Whether the guest can ask for it, and a host under this profile does it."""
    question = basis.question(start, pages, to)
    judged = judge(basis, question) if question is not None else None
    return judged is not None and judged.usual


def _not_made(basis: Basis) -> Iterator[Case]:
    granule = basis.granule()
    for to in basis.states()[:1]:
        rows: tuple[tuple[str, int, int, Setup, str], ...] = (
            ("no-pages", PLACE << 12, 0, Setup(scratch=SCRATCH), "Zero pages: no call."),
            ("gpa-unaligned", (PLACE << 12) + 0x800, granule, Setup(scratch=SCRATCH), "An unaligned address: no call."),
            ("switched-off", PLACE << 12, granule, Setup(scratch=SCRATCH, enabled=False),
             "The call is not offered: no call."),
        )  # fmt: skip
        parts = (
            ("granule-unaligned", (PLACE + 1) << 12, granule, Setup(scratch=SCRATCH), "No whole granules: no call."),
            ("part-of-a-granule", PLACE << 12, granule - 1, Setup(scratch=SCRATCH), "No whole granules: no call."),
        )
        rows += parts if granule > 1 else ()
        for name, gpa, pages, setup, why in rows:
            script = GuestScript(gpa=gpa, pages=pages, to=to, done=False, calls=(0, 0))
            yield _case(basis, "none", name, script, rules=[], why=why, setup=setup)


def _sees_partial(basis: Basis) -> bool:
    """Whether a guest is shown that the host stopped on the way, and not just made to execute the call again."""
    answers = [a for a in basis.call.outcomes.get("partial", ()) if a.guard.serves(basis.transport)]
    return basis.call.reports_parts(basis.transport) and answers[0].end != "replay"


def _partial(basis: Basis) -> Iterator[Case]:
    progress = basis.call.progress
    if progress is None or not _sees_partial(basis):
        return
    granule = basis.granule()
    start, pages = PLACE + 510 // granule * granule, 6 * granule
    for to in basis.states():
        if not _can_be_done(basis, start, pages, to):
            continue
        asked = GuestScript(gpa=start << 12, pages=pages, to=to)
        for stop in (1, 3, 5):
            turn = GuestTurn(inject=Inject(fault="stop-after", arguments={"pages": stop * granule}))
            yield _case(
                basis, "progress", f"stop-after-{stop}-to-{to}",
                replace(asked, turns=(turn,), must_believe=((start, start + pages),)),
                rules=[], why="The host stops early once; the guest must go on where the answer says.",
            )  # fmt: skip
        one = GuestTurn(inject=Inject(fault="stop-after", arguments={"pages": granule}))
        yield _case(
            basis, "progress", f"one-at-a-time-to-{to}",
            replace(asked, turns=(one,), repeat_last=True, must_believe=((start, start + pages),)),
            rules=[], why="The host does one page per call; every answer is progress.",
        )  # fmt: skip
        none = GuestTurn(inject=Inject(fault="stop-after", arguments={"pages": 0}))
        if progress.resume == "reexecute":
            yield from _again(basis, asked, none)
        else:
            yield _case(
                basis, "progress", f"none-once-to-{to}",
                replace(asked, turns=(none,), done=None),
                rules=[], why="One answer without progress; a guest may try again or give up, but not claim success.",
            )  # fmt: skip
        yield _case(
            basis, "progress", f"none-for-ever-to-{to}",
            replace(asked, turns=(none,), repeat_last=True, done=False,
                        must_not_believe=((start, start + pages),)),
            rules=[], why="No answer makes progress: the guest must give up within its bound.",
        )  # fmt: skip


def _again(basis: Basis, asked: GuestScript, none: GuestTurn) -> Iterator[Case]:
    """Yield answers that say to execute the same call again: as the guest made it, and as the host changed it."""
    to, done = asked.to, ((asked.gpa >> 12, (asked.gpa >> 12) + asked.pages),)
    yield _case(
        basis, "progress", f"again-once-to-{to}", replace(asked, turns=(none,), must_believe=done), rules=[],
        why="Nothing visible is done and the answer says to execute the call again: the guest must do so.",
    )  # fmt: skip
    yield _case(
        basis, "progress", f"again-three-times-to-{to}", replace(asked, turns=(none, none, none), must_believe=done),
        rules=[], why="The call is to be executed again three times in a row.",
    )  # fmt: skip
    left = replace(none, say=_told_besides(basis), mem_at=_reserved_bytes(basis))
    if left.say or left.mem_at:
        yield _case(
            basis, "progress", f"again-as-left-to-{to}", replace(asked, turns=(left,), must_believe=done), rules=[],
            why="The host keeps something in the block: the call that is executed again has it as the host left it.",
        )  # fmt: skip


def _told_besides(basis: Basis) -> dict[str, int | str]:
    """Return something for each field of the answer that lies in memory and does not say how far the host came."""
    progress, response = basis.call.progress, basis.call.response
    placed = basis.abi.transports[basis.transport].placements
    if progress is None or response is None or response not in placed:
        return {}
    read = paths(progress.done_when) | paths(progress.again_when)
    return {
        name: 0x55 & ((1 << field.bits) - 1)
        for name, field in basis.abi.messages[response].fields.items()
        if name not in read and f"response.{name}" not in read and not field.is_list and field.word is None
        and (places := placed[response].place.get(name, ())) and isinstance(places[0], BlockPlace)
    }  # fmt: skip


def _reserved_bytes(basis: Basis) -> tuple[tuple[str, int, bytes], ...]:
    """Return bytes for the first reserved field of the request that lies in memory."""
    placement = basis.abi.transports[basis.transport].placements[basis.call.request]
    for name, field in basis.abi.messages[basis.call.request].fields.items():
        places = placement.place.get(name, ())
        if field.reserved is not None and places and isinstance(places[0], BlockPlace) and places[0].layout_field:
            layout = placement.blocks[places[0].block].layout
            if layout is not None:
                inner = layout.fields[places[0].layout_field]
                return ((places[0].block, inner.at, b"\x55" * inner.size),)
    return ()


def _refused(basis: Basis) -> Iterator[Case]:
    granule = basis.granule()
    start, pages = PLACE, 3 * granule
    for to in basis.states():
        if basis.request(start, pages, to) is None:
            continue
        asked = GuestScript(gpa=start << 12, pages=pages, to=to)
        refusals: dict[tuple[tuple[str, str], ...], str] = {}
        for status, answers in basis.call.outcomes.items():
            if status in ("done", "partial", "retry"):
                continue
            for answer in answers:
                if answer.cannot is None and answer.end == "return" and answer.guard.serves(basis.transport):
                    refusals.setdefault(tuple(sorted((n, str(e)) for n, e in answer.fields.items())), status)
        for status in refusals.values():
            turn = GuestTurn(kind="say", say=outcome_words(basis, status))
            if not turn.say:
                continue
            yield _case(
                basis, "refused", f"{status}-to-{to}",
                replace(asked, turns=(turn,), repeat_last=True, done=False,
                            must_not_believe=((start, start + pages),)),
                rules=[], why=f"The host refuses with its answer for `{status}`: nothing is converted.",
            )  # fmt: skip
        yield from _large(basis, replace(asked, must_believe=((start, start + pages),)))
        one_call_each = basis.reach() <= granule
        if (_sees_partial(basis) or one_call_each) and _can_be_done(basis, start, pages, to):
            # Where a call names no more than that, the first is done as a whole.
            stop = Inject(fault="stop-after", arguments={"pages": granule})
            turn = GuestTurn(inject=None if one_call_each else stop)
            last = GuestTurn(kind="say", say=outcome_words(basis, "failed") or outcome_words(basis, "invalid"))
            if last.say:
                yield _case(
                    basis, "refused", f"after-progress-to-{to}",
                    replace(asked, turns=(turn, last), repeat_last=True, done=False,
                                must_not_believe=((start + granule, start + pages),)),
                    rules=[], why="The host stops after a page and then refuses: the rest is not converted.",
                )  # fmt: skip


def _large(basis: Basis, asked: GuestScript) -> Iterator[Case]:
    """Yield a host that refuses what is large and does what is small, where guests are told to ask for less then."""
    guest, convert = basis.call.guest, basis.call.convert
    say = outcome_words(basis, "failed")
    if guest is None or guest.smaller_when is None or convert is None or convert.each is not None or not say:
        return
    turn = GuestTurn(kind="say", say=say, above=basis.granule())
    yield _case(
        basis, "smaller", f"large-ones-to-{asked.to}", replace(asked, turns=(turn,), repeat_last=True), rules=[],
        level="should", why="The host refuses all but the smallest requests: the guest should ask for less at a time.",
    )  # fmt: skip


def outcome_words(basis: Basis, status: str) -> dict[str, int | str]:
    """Return the response fields of an outcome as EXPRs for a script, nothing done."""
    for answer in basis.call.outcomes.get(status, ()):
        if answer.cannot is None and answer.end == "return" and answer.guard.serves(basis.transport):
            return {name: to_text(expr) for name, expr in answer.fields.items()}
    return {}


def _lied_to(basis: Basis) -> Iterator[Case]:
    """Yield answers that break one rule of what a guest must check, as far as a value can be found for it."""
    granule = basis.granule()
    start, pages = PLACE, 4 * granule
    for rule in basis.call.rules:
        if rule.binds != "guest" or rule.on != "response" or not rule.guard.serves(basis.transport):
            continue
        if basis.call.handle is not None and rule.when is not None:
            continue  # The answer for more is one of a longer conversation.
        for to in basis.states()[:2]:
            if basis.request(start, pages, to) is None:
                continue
            for name, *turns in lies(basis, rule):
                yield _case(
                    basis, rule.id, f"{name}-to-{to}",
                    GuestScript(
                        gpa=start << 12, pages=pages, to=to, turns=tuple(turns), repeat_last=True, done=False,
                        must_not_believe=((start + granule, start + pages),),
                    ),
                    rules=[rule.id], level=rule.level, why=f"The answer breaks this rule: {rule.text}",
                )  # fmt: skip


def lies(basis: Basis, rule: Rule) -> Iterator[tuple[str, *tuple[GuestTurn, ...]]]:
    """Yield turns whose answer breaks the rule: a served or stopped answer with one field changed."""
    if basis.call.response is None:
        return
    fields = basis.abi.messages[basis.call.response].fields
    stopped = Inject(fault="stop-after", arguments={"pages": basis.granule()})
    partial = basis.call.reports_parts(basis.transport)

    def turn(field: str, text: str) -> GuestTurn:
        return GuestTurn(inject=stopped if partial else None, say={field: text})

    def text(key: str) -> str:
        return to_text(rule.operands[key][0])

    of = to_text(rule.operands["of"][0]) if "of" in rule.operands else ""
    field = of.removeprefix("response.")
    parts = {f"{name}.{part}" for name, item in fields.items() if item.word is not None for part in item.word.fields}
    if field not in {*fields, *parts} and "of" in rule.operands:
        # An expression over one field of the answer, such as the low half of it: change that field.
        looked_at = {path.removeprefix("response.") for path in paths(rule.operands["of"][0])} & set(fields)
        field = looked_at.pop() if len(looked_at) == 1 else field
    match rule.check:
        case "within" if field in fields:
            # Below zero there is nothing: the field then holds what a host that counted wrong would write.
            mask = (1 << fields[field].bits) - 1
            yield "below", turn(field, f"(({text('low')}) - 4096) & {mask:#x}")
            yield "above", turn(field, f"({text('high')}) + 4096")
        case "below" if field in fields:
            yield "at-limit", turn(field, text("limit"))
        case "at-most" if field in {*fields, *parts}:
            yield "above", turn(field, f"({text('limit')}) + 1")
        case "at-most":
            # The answer is on the other side of the comparison: a field that must not be too small.
            # There must have been progress before, so that there is something to fall behind.
            name = text("limit").removeprefix("response.")
            if name in {*fields, *parts} and _sees_partial(basis):
                yield "backwards", GuestTurn(inject=stopped), turn(name, f"max(({of}) - 1, 0)")
        case "equals" if field in fields:
            yield "other", turn(field, f"({text('to')}) + 1")
        case "known-value" if field in fields:
            yield "unknown", turn(field, "0x7777")
        case "bits-set" if field in fields:
            yield "cleared", turn(field, "0")
        case "reserved" if field in fields:
            yield "lowest-bit", turn(field, "1")
            yield "highest-bit", turn(field, hex(1 << (fields[field].bits - 1)))
        case "aligned" if field in fields:
            yield "odd", turn(field, f"response.{field} + 1")
            yield "half-page", turn(field, f"response.{field} + 0x800")
        case _:
            return
