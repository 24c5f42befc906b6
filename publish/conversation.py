"""A conversion as a conversation: who says what to whom, drawn from the progress of a call and from its guest's side.

The steps are symbolic: the expressions of the specification, not the numbers of one run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hvabi.abi.comparison_cells import RESUME
from hvabi.abi.expr_readable import readable
from hvabi.abi.words import answer as answer_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from hvabi.abi.called import Called
    from hvabi.abi.calls import Answer
    from hvabi.abi.expr import Expr

Lane = Literal["guest", "host", "vmm"]
_REFUSED = ("invalid", "misaligned", "out-of-range", "limit", "denied", "busy", "failed", "unsupported")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step: a message from one lane to another, or work in one lane where `to` is None.

    `lines` are code, `note` is a sentence. `again` marks what is repeated until the call is done.
    """

    lane: Lane
    to: Lane | None
    title: str
    lines: tuple[str, ...] = ()
    note: str = ""
    again: bool = False
    bad: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """The steps of a conversion, and the names of the lanes that they use."""

    lanes: Mapping[Lane, str]
    steps: tuple[Step, ...]


def conversation(at: Called) -> Conversation | None:
    """Return the conversation of a call that changes pages, or None for another."""
    if at.call.convert is None or at.response is None:
        return None
    lanes: dict[Lane, str] = {"guest": at.abi.roles.get("guest", "guest"), "host": at.abi.roles.get("host", "host")}
    if at.call.vmm is not None:
        lanes["vmm"] = f"user space, by {at.call.vmm.abi}" if at.call.vmm.abi else "user space"
    return Conversation(lanes=lanes, steps=tuple(_steps(at)))


def _steps(at: Called) -> Iterator[Step]:
    call, guest, progress = at.call, at.call.guest, at.call.progress
    yield from _local(guest.steps_before if guest else {}, "before the first call")
    yield Step(lane="guest", to="host", title=f"{call.request}", lines=tuple(_request(at)))
    judged = sum(rule.binds == "host" for rule in call.rules)
    if judged:
        how = {"stated": "in the order in which they stand", "per-profile": "in an order of its own",
               "undefined": "in any order"}[call.order]  # fmt: skip
        first = [item.value == "true" for item in call.prevalidate][:1] == [True]
        more = "; every element before the first is changed" if first and call.convert and call.convert.each else ""
        yield Step(lane="host", to=None, title=f"judges by {judged} rules, {how}{more}")
    yield from _inner(at)
    if progress is not None:
        partial = [item for status in ("partial", "retry") for item in call.outcomes.get(status, ())]
        shown = [item for item in partial if item.cannot is None]
        if shown:
            again = (f"again when {readable(progress.again_when)}",)
            yield Step(lane="host", to="guest", title="stopped early", lines=(*_answers(shown), *again), again=True)
            yield from _goes_on(at)
    done = [item for item in call.outcomes.get("done", ()) if item.cannot is None]
    until = (f"done when {readable(progress.done_when)}",) if progress is not None else ()
    yield Step(lane="host", to="guest", title="done", lines=(*_answers(done), *until))
    yield from _refusals(at)
    yield from _local(guest.steps_after if guest else {}, "after the last call")


def _local(steps: Mapping[str, str], when: str) -> Iterator[Step]:
    if steps:
        text = "; ".join(f"to {state}: {word} the pages" for state, word in steps.items())
        yield Step(lane="guest", to=None, title=f"its own half, {when}", note=text)


def _request(at: Called) -> Iterator[str]:
    guest = at.call.guest
    if guest is None:
        return
    yield from _assigned(guest.request)
    if guest.element:
        convert = at.call.convert
        each = convert.each if convert is not None and convert.each is not None else "element"
        if set(guest.element) == {"value"}:
            yield f"{each}[] = {readable(guest.element['value'])}"
        else:
            yield f"{each}[]: " + ", ".join(_assigned(guest.element))
    if guest.max_elements is not None:
        yield f"at most {readable(guest.max_elements)} elements"
    elif guest.max_pages is not None:
        yield f"at most {readable(guest.max_pages)} pages"


def _assigned(items: Mapping[str, Expr]) -> Iterator[str]:
    yield from (f"{name} = {readable(expr)}" for name, expr in items.items())


def _inner(at: Called) -> Iterator[Step]:
    call, progress = at.call, at.call.progress
    chunk = ""
    if progress is not None and progress.chunk is not None:
        chunk = f"pieces of {readable(progress.chunk)} pages, and a look at pending events between them"
    if call.vmm is None:
        yield Step(lane="host", to=None, title="converts the pages", note=chunk)
        return
    asked = tuple(_assigned(call.vmm.request))
    yield Step(lane="host", to="vmm", title="for each piece", lines=asked, note=chunk)
    lines = []
    for row in call.vmm.errno:
        number = "any other errno" if row.errno is None else _errno(at, row.errno)
        result = row.outcome or (answer_words(row.answer) if row.answer is not None else "")
        policy = "".join(f", where {name} is {value}" for name, value in row.guard.policy.items())
        lines.append(f"{number}: {result}{policy}")
    yield Step(lane="vmm", to="host", title="0, or an errno", lines=tuple(lines))


def _errno(at: Called, number: int) -> str:
    """Return the name of an errno where the specification has it."""
    names = (item.name for item in at.abi.constants.values() if item.value == number and item.name.startswith("E"))
    return next(names, f"errno {number}")


def _goes_on(at: Called) -> Iterator[Step]:
    progress = at.call.progress
    assert progress is not None  # the only caller has looked
    stalls = f"{progress.stalls} answers in a row without progress" if progress.stalls else "no answer without progress"
    note = f"{RESUME[progress.resume]}; at most {readable(progress.bound)} requests, and {stalls} are accepted"
    lines = tuple(_assigned(progress.next)) or (f"from {readable(progress.completed)} on",)
    yield Step(lane="guest", to="host", title="goes on", lines=lines, note=note, again=True)


def _answers(items: Iterable[Answer]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(answer_words(item) for item in items))


def _refusals(at: Called) -> Iterator[Step]:
    call, progress = at.call, at.call.progress
    by_answer: dict[str, list[str]] = {}
    for status in _REFUSED:
        for item in call.outcomes.get(status, ()):
            if item.cannot is None:
                by_answer.setdefault(answer_words(item), []).append(status)
    if not by_answer:
        return
    lines = [f"{', '.join(dict.fromkeys(statuses))}: {text}" for text, statuses in by_answer.items()]
    note = ""
    if progress is None:
        note = "nothing has changed"
    elif progress.counts_when is not None:
        note = f"what it says of its progress is true when {readable(progress.counts_when)}"
    elif progress.footprint == "exact":
        note = "exactly what it reports as done has changed"
    yield Step(lane="host", to="guest", title="or refused", lines=tuple(lines), note=note, bad=True)
