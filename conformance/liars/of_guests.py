"""Guest liars made from a specification."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from hvabi.abi.expr import Attr, Int, Name, Truth, names, paths
from hvabi.abi.scope import Scope, static_names
from hvabi.conformance.liars import guests, model
from hvabi.conformance.liars.exprs import either, moved_names, rewrite, scaled
from hvabi.conformance.liars.liar import Planted
from hvabi.conformance.liars.made import Made

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from hvabi.abi.calls import Call, Progress, Rule
    from hvabi.abi.expr import Expr
    from hvabi.abi.model import Field, Message, Transport
    from hvabi.abi.specification import Abi
    from hvabi.adapters.guest import Guest

_FOR_EVER = Int(1 << 40)


class GuestLies:
    """Makes the guest liars of one resolved ABI on one transport."""

    def __init__(self, abi: Abi, transport: str) -> None:
        self.abi = abi
        self.transport: Transport = abi.transports[transport]
        self.call: Call = model.the_call(abi)
        self.request: Message = abi.messages[self.call.request]
        granule = self.call.guest.granule if self.call.guest is not None else None
        known = static_names(abi, self.transport, {key.name: key.default for key in abi.config.values()})
        self.unit = max(Scope(known).int(granule) // 4096, 1) if granule is not None else 1

    def all(self) -> Iterator[Made]:
        """Yield every liar."""
        yield from self.requests()
        yield from self.beliefs()
        for made in (*self.rules_skipped(), *self.progress()):
            yield replace(made, equivalent=made.equivalent or self._never_stopped(made))

    def _never_stopped(self, made: Made) -> str | None:
        """Say why a guest is never shown that the host stopped on the way, where the lie is about that."""
        partial = model.answers_of(self.call.outcomes, "partial", self.transport.name)
        if not partial or partial[0][1].end != "replay":
            return None
        rule = self.call.rule(made.name)
        if made.kind == "progress" or (rule is not None and rule.check == "at-most" and rule.when is not None):
            return "a host that stops on the way has the call executed again, which the guest is not shown"
        return None

    def requests(self) -> Iterator[Made]:
        """Yield guests that ask for the wrong thing."""
        guest = self.call.guest
        assert guest is not None  # liars are made of ABIs with a guest
        if len(guest.states) > 1:
            yield _engine("request", "polarity", guests.OtherState, "It asks for the other state.")
        yield _engine("request", "one-page-more", guests.OnePageMore, "It asks for the page behind the range too.")
        yield _engine("request", "one-page-less", guests.OnePageLess, "It forgets the last page and believes it done.")
        yield _engine("request", "no-call", guests.NeverCalls, "It makes no call and believes that all is done.")
        yield _engine(
            "request",
            "switched-off",
            guests.CallsWhereSwitchedOff,
            "It makes the call where it is not offered.",
            "none",
        )
        yield _engine("request", "unaligned", guests.RoundsUnaligned, "It rounds an unaligned address down.", "none")
        if guest.granule is not None and self.unit > 1:
            what = "It widens a range to whole granules."
            yield _engine("request", "granule", guests.RoundsToGranule, what, "none")
        yield _engine("request", "nothing", guests.CallsForNothing, "It takes an empty range for one page.", "none")
        if guest.max_elements is not None:
            yield _engine(
                "request", "full-batches-only", guests.FullBatchesOnly, "It makes the call only once the list is full."
            )
        most = guest.max_pages
        if guest.max_elements is not None or isinstance(most, Int):
            yield _engine(
                "request", "last-batch-forgotten", guests.ForgetsLastBatch, "It forgets the last, short request."
            )
        placed = self.transport.placements[self.call.request].place
        for path in _sent_reserved(self.request, self.call.convert.each if self.call.convert else None):
            if not placed.get(path.partition(".")[0]):
                continue
            yield Made(
                kind="request",
                name=f"reserved-{path}",
                what=f"It sends a bit in {path}, which is reserved.",
                planted=Planted(guest=guests.sends(path)),
            )
        for path, expr in guest.request.items():
            if "start" in names(expr):
                wrong = moved_names(expr, ("start",), 4096 * self.unit)
                yield self._sent(f"{path}-one-page-on", f"Its {path} is one page too far.", path, wrong)
        for path, expr in guest.element.items():
            if "start" in names(expr):
                element = {**guest.element, path: moved_names(expr, ("start",), 4096 * self.unit)}
                yield Made(
                    kind="request",
                    name=f"element-{path}-one-page-on",
                    what=f"{path} of its elements is one page too far.",
                    planted=Planted(spec=partial(_with_guest, element=element)),
                )

    def _sent(self, name: str, what: str, path: str, expr: Expr) -> Made:
        guest = self.call.guest
        assert guest is not None  # as above
        return Made(
            kind="request",
            name=name,
            what=what,
            planted=Planted(spec=partial(_with_guest, request={**guest.request, path: expr})),
        )

    def beliefs(self) -> Iterator[Made]:
        """Yield guests that draw the wrong conclusion from an answer."""
        yield _engine(
            "belief",
            "all-after-failure",
            guests.BelievesAll,
            "It believes everything done after a failure.",
            "refused",
            "none-for-ever",
        )
        yield _engine(
            "belief", "done-after-failure", guests.SaysDone, "It calls a failure a success.", "refused", "none-for-ever"
        )
        yield _engine("belief", "answer-ignored", guests.IgnoresAnswers, "It does not look at the answer.", "refused")
        if self.call.guest is not None and self.call.guest.steps_after:
            yield _engine(
                "belief",
                "tail-accepted",
                guests.AcceptsTail,
                "It does its local half for the last piece only.",
                "progress",
                equivalent=None
                if self.call.progress is not None or self.call.guest.max_pages == Int(1)
                else "one call does the whole range, so the last piece is the whole",
            )

    def rules_skipped(self) -> Iterator[Made]:
        """Yield a guest per rule of the answer that it does not look at."""
        progress = self.call.progress
        for rule in self.call.rules:
            if rule.binds != "guest" or rule.on != "response" or rule.level not in ("must", "should"):
                continue
            if not rule.guard.serves(self.transport.name):
                continue
            lenient = progress is not None and _about_progress(rule, progress)
            yield Made(
                kind="rule-skipped",
                name=rule.id,
                what=f"It does not look at {rule.id}: {rule.text}",
                planted=Planted(
                    # Where there is no progress, a guest would see by the outcome that something is wrong.
                    spec=partial(model.without_rule if progress is not None else _without_check, rule_id=rule.id),
                    # What the guest's own account of progress would catch anyway, it must not catch here.
                    guest=guests.Lenient if lenient else None,
                ),
                hints=(rule.id,),
            )

    def progress(self) -> Iterator[Made]:
        """Yield guests that go on wrongly."""
        progress = self.call.progress
        if self.call.guest is not None and self.call.guest.smaller_when is not None:
            yield Made(
                kind="progress",
                name="never-smaller",
                what="It gives up where the host wants smaller pieces.",
                planted=Planted(spec=partial(_with_guest, smaller_when=None)),
                hints=("smaller",),
            )
        if progress is None:
            return
        yield self._other(
            "partial-is-done",
            "It takes an answer that asks to go on for success.",
            lambda p: replace(p, done_when=either(p.done_when, p.again_when)),
        )
        yield self._other(
            "partial-is-failure",
            "It gives up on an answer that asks to go on.",
            lambda p: replace(p, again_when=Truth(False)),
        )
        yield self._other(
            "loops",
            "It goes on for ever without progress.",
            lambda p: replace(p, stalls=1 << 40, bound=_FOR_EVER),
            "none-for-ever",
        )
        if progress.counts_when is not None:
            yield self._other(
                "failed-counts-nothing",
                "After an error it forgets what was done before it.",
                lambda p: replace(p, counts_when=None),
                "refused",
            )
        if progress.next:
            yield self._other(
                "restarts", "It sends the same request again after a part was done.", lambda p: replace(p, next={})
            )
            unit = "page" if progress.unit == "byte" else progress.unit
            for sign, word in ((1, "late"), (-1, "early")):
                changed = _off(progress, sign, self._answered())
                if changed is not None:
                    yield self._other(
                        f"resumes-one-{word}",
                        f"It goes on one {unit} too {word}.",
                        partial(_with_next, changed=changed),
                    )
        if progress.resume == "reexecute":
            what = "It makes the call anew instead of executing it again."
            yield _engine("progress", "executes-anew", guests.ExecutesAnew, what, "again")
        if progress.resume == "same-buffer":
            yield _engine(
                "progress", "resumes-one-late", guests.OneElementLate, "It goes on one element too late.", "progress"
            )
            yield _engine(
                "progress", "resumes-one-early", guests.OneElementEarly, "It goes on one element too early.", "progress"
            )
            yield _engine(
                "progress",
                "buffer-taken-over",
                guests.TakesBuffer,
                "It goes on with all that the host wrote into its buffer.",
                "lie",
            )
        yield Made(
            kind="progress",
            name="backwards-accepted",
            what="It takes any progress that it is told, backwards too.",
            hints=tuple(rule.id for rule in self.call.rules if _about_progress(rule, progress)),
            planted=Planted(guest=guests.Forgetful, spec=_without_checks_of_progress),
        )

    def _answered(self) -> Mapping[str, Field]:
        return {} if self.call.response is None else self.abi.messages[self.call.response].fields

    def _other(self, name: str, what: str, change: Callable[[Progress], Progress], *hints: str) -> Made:
        return Made(
            kind="progress",
            name=name,
            what=what,
            hints=hints or ("progress",),
            planted=Planted(spec=partial(model.with_progress, change=change)),
        )


def _engine(kind: str, name: str, bug: type[Guest], what: str, *hints: str, equivalent: str | None = None) -> Made:
    return Made(
        kind=kind, name=name, what=what, planted=Planted(guest=bug), hints=hints or ("done",), equivalent=equivalent
    )


def _with_guest(abi: Abi, **changes: object) -> Abi:
    call = model.the_call(abi)
    assert call.guest is not None  # the caller has looked
    return model.with_call(abi, replace(call, guest=replace(call.guest, **changes)))  # type: ignore[arg-type]  # fields of Guest


def _with_next(progress: Progress, changed: dict[str, Expr]) -> Progress:
    return replace(progress, next=changed)


def _off(progress: Progress, sign: int, answered: Mapping[str, Field]) -> dict[str, Expr] | None:
    """Return the following request with every number that the answer gave one unit off."""
    read = names(progress.completed)
    unit: Expr = Int(4096) if progress.unit == "byte" else Int(1)
    if progress.granule is not None and any(answered[name].unit == "byte" for name in read & set(answered)):
        unit = progress.granule

    def change(node: Expr) -> Expr | None:
        match node:
            case Name(name) if name in answered and name in read:
                return scaled(node, unit, sign)
            case Attr(Name(base), _) if (base in answered and base in read) or base == "response":
                return scaled(node, unit, sign)
            case _:
                return None

    changed = {name: rewrite(expr, change) for name, expr in progress.next.items()}
    return changed if changed != dict(progress.next) else None


def _without_checks_of_progress(abi: Abi) -> Abi:
    """Return the ABI without all that would stop a guest that follows any progress."""
    call = model.the_call(abi)
    progress = call.progress
    assert progress is not None  # the caller has looked
    rules = tuple(rule for rule in call.rules if rule.on != "response" or not _about_progress(rule, progress))
    endless = replace(progress, stalls=1 << 40, bound=_FOR_EVER)
    return model.with_call(abi, replace(call, rules=rules, progress=endless))


def _without_check(abi: Abi, rule_id: str) -> Abi:
    """Return the ABI without a rule, and with an outcome `done` that does not show what the rule is about."""
    call = model.the_call(abi)
    rule = call.rule(rule_id)
    assert rule is not None  # the caller took the id from this ABI
    looked = _looked_at(rule)
    done = tuple(
        replace(answer, fields={name: expr for name, expr in answer.fields.items() if name not in looked})
        for answer in call.outcomes.get("done", ())
    )
    changed = replace(call, outcomes={**call.outcomes, "done": done})
    return model.without_rule(model.with_call(abi, changed), rule_id)


def _looked_at(rule: Rule) -> set[str]:
    """Return the fields, without ``response.``, that a rule looks at."""
    exprs = [expr for operand in rule.operands.values() for expr in operand]
    return {path.removeprefix("response.") for expr in exprs for path in paths(expr)}


def _about_progress(rule: Rule, progress: Progress) -> bool:
    """Whether a rule looks at what the guest's account of progress looks at too."""
    counted = {path.removeprefix("response.") for path in paths(progress.completed)}
    looked = _looked_at(rule)
    return bool(counted & looked)


def _sent_reserved(message: Message, each: str | None) -> Iterator[str]:
    for name, field in message.fields.items():
        if field.reserved is not None and field.reserved.send == "zero" and not field.is_list:
            yield name
        layout = field.word or (field.items if name == each else None)
        for inner, part in layout.fields.items() if layout is not None else ():
            if part.reserved is not None and part.reserved.send == "zero":
                yield f"{name}.{inner}"


__all__ = ["GuestLies"]
