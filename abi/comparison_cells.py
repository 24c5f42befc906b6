"""The questions of the comparison matrix, and those about what a call leaves behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvabi.abi.comparison import Aspect, Cell, unstated
from hvabi.abi.comparison_judged import errors, order, statuses
from hvabi.abi.comparison_named import (
    ASKS,
    byte_order,
    form,
    granule,
    made_by,
    maximum,
    page_size,
    polarity,
    roles,
    unit,
)
from hvabi.abi.expr_readable import readable
from hvabi.abi.words import joined

if TYPE_CHECKING:
    from hvabi.abi.called import Called
    from hvabi.abi.calls import Answer

RESUME = {
    "reissue": "the caller sends a new request for the rest",
    "reexecute": "the caller executes the same call again",
    "same-buffer": "the caller sends the same buffer again",
    "fragment": "the caller sends the next fragment",
}
"""How a call goes on, in words, by the key ``resume`` of its progress."""
CONTENTS = {
    "kept": "kept",
    "zeroed": "zeroed",
    "lost": "lost: nothing is promised",
    "separate": "each state has its own",
}
"""What becomes of the bytes of a page, in words, by the key ``is`` of the contents."""


def _progress(at: Called) -> Cell:
    call = at.call
    if call.convert is None:
        return unstated(ASKS)
    if call.progress is None:
        why = tuple(answer.cannot for answer in call.outcomes.get("partial", ()) if answer.cannot)
        return Cell(lines=("all or nothing", *why), data={"unit": None, "resume": None})
    progress = call.progress
    replays = sorted(
        {
            name
            for answer in call.outcomes.get("partial", ())
            if answer.end == "replay"
            for name in (answer.guard.transports or [item.name for item in at.transports])
        }
    )
    text = f"in {progress.unit}s: {readable(progress.completed)}"
    again = f"the host has the call executed again ({', '.join(replays)})" if replays else None
    lines = (text, RESUME[progress.resume], *((again,) if again else ()))
    data = {
        "unit": progress.unit,
        "completed": readable(progress.completed),
        "done_when": readable(progress.done_when),
        "again_when": readable(progress.again_when),
        "next": {name: readable(expr) for name, expr in progress.next.items()},
        "resume": progress.resume,
        "replayed_on": replays,
        "stalls": progress.stalls,
        "bound": readable(progress.bound),
    }
    return Cell(lines=lines, data=data)


def _already(at: Called) -> Cell:
    if at.call.convert is None:
        return unstated(ASKS)
    answers = at.call.outcomes.get("already", ())
    if not answers:
        return unstated()
    lines, data = [], []
    for answer in answers:
        if answer.cannot is not None:
            lines += ["success", answer.cannot]
            data.append({"success": True, "text": answer.cannot})
            continue
        found = list(statuses(at, answer))
        good = all(number == 0 for _, number, _ in found) and answer.end == "return"
        named = ", ".join(name for _, _, name in found)
        under = f" under {_under(answer)}" if answer.guard.policy else ""
        lines.append(("success" if good else f"an error: {named or answer.end}") + under)
        data.append({"success": good, "text": named})
    return Cell(lines=tuple(lines), data=data)


def _under(answer: Answer) -> str:
    return ", ".join(f"{name}: {value}" for name, value in answer.guard.policy.items())


def _contents(at: Called) -> Cell:
    convert = at.call.convert
    if convert is None:
        return unstated(ASKS)
    if not convert.contents:
        return unstated()
    lines = tuple(f"{name}: {CONTENTS[item.kind]}" for name, item in convert.contents.items())
    data = {name: {"is": item.kind, "doc": item.doc, "source": item.source} for name, item in convert.contents.items()}
    return Cell(lines=lines, data=data)


def _failed(at: Called) -> Cell:
    call = at.call
    if call.convert is None:
        return unstated(ASKS)
    if call.progress is None:
        return Cell(lines=("nothing has changed",), data={"footprint": "none"})
    if call.progress.footprint == "exact":
        text = "exactly what it reports as done has changed"
    else:
        text = "the failing part may have changed"
    first = [item.value == "true" for item in call.prevalidate]
    lines = [text]
    if call.convert.each is not None and first:
        lines.append("all elements are checked first" if first[0] else "elements are checked one by one")
    return Cell(lines=tuple(lines), data={"footprint": call.progress.footprint, "prevalidates": first[:1] == [True]})


def _local(at: Called) -> Cell:
    guest = at.call.guest
    if guest is None or not (guest.steps_before or guest.steps_after):
        return unstated()
    lines = []
    for state in guest.states:
        before, after = guest.steps_before.get(state), guest.steps_after.get(state)
        if before or after:
            lines.append(f"{state}: " + ", ".join(filter(None, [before, "call", after])))
    return Cell(lines=tuple(lines), data={"before": dict(guest.steps_before), "after": dict(guest.steps_after)})


def _query(at: Called) -> Cell:
    asking = [call.name for call in at.abi.calls.values() if call.query is not None]
    return Cell(lines=(joined(asking),) if asking else ("no",), data=asking)


ASPECTS = (
    Aspect(
        name="roles",
        title="Who asks whom",
        group="Who calls, and how",
        doc="Which side makes the call, which answers.",
        answer=roles,
    ),
    Aspect(
        name="made_by",
        title="Made by",
        group="Who calls, and how",
        doc="The instruction or system call, by transport.",
        answer=made_by,
    ),
    Aspect(name="form", title="Names", group="What is named", doc="What one request can name.", answer=form),
    Aspect(
        name="unit", title="Unit", group="What is named", doc="In what units start and length are counted.", answer=unit
    ),
    Aspect(
        name="granule",
        title="Granule",
        group="What is named",
        doc="The smallest piece of memory that can be named.",
        answer=granule,
    ),
    Aspect(
        name="page_size",
        title="Page size",
        group="What is named",
        doc="Whether a request says how large the pages shall be, and whether that is a hint only.",
        answer=page_size,
    ),
    Aspect(
        name="maximum",
        title="Most per call",
        group="What is named",
        doc="The most that one call can name, as the guest's side of the specification has it.",
        answer=maximum,
    ),
    Aspect(
        name="polarity",
        title="Polarity",
        group="How it is said and judged",
        doc="How the request says private or shared.",
        answer=polarity,
    ),
    Aspect(
        name="byte_order",
        title="Byte order",
        group="Who calls, and how",
        doc="Byte order of what lies in memory.",
        answer=byte_order,
    ),
    Aspect(
        name="order",
        title="Order of checks",
        group="How it is said and judged",
        doc="The checks of the host as they stand, and whether that order is promised, less those that only some make.",
        answer=order,
    ),
    Aspect(
        name="errors",
        title="Error signs",
        group="How it is said and judged",
        doc="Whether an error is a negative number, a positive one, or one with the top bit set.",
        answer=errors,
    ),
    Aspect(
        name="progress",
        title="Progress",
        group="What it leaves behind",
        doc="How an answer says how far the call came, and how it goes on.",
        answer=_progress,
    ),
    Aspect(
        name="already",
        title="Already so",
        group="What it leaves behind",
        doc="What a request gets for pages that are in the state already.",
        answer=_already,
    ),
    Aspect(
        name="contents",
        title="Contents after",
        group="What it leaves behind",
        doc="What becomes of the bytes of a page.",
        answer=_contents,
    ),
    Aspect(
        name="failed",
        title="After a failure",
        group="What it leaves behind",
        doc="What has changed after a call that fails.",
        answer=_failed,
    ),
    Aspect(
        name="local",
        title="The caller's own half",
        group="What it leaves behind",
        doc="What the caller does to its own page tables, before or after the call.",
        answer=_local,
    ),
    Aspect(
        name="query",
        title="State query",
        group="Who calls, and how",
        doc="Whether there is a call that asks for the state of a page.",
        answer=_query,
    ),
)
"""Every question, in the order of the matrix."""
