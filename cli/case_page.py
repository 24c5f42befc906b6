"""One case for a person: why it exists, what is sent, and what is right. And the story of a historic bug."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from hvabi.cli import console
from hvabi.cli.tables import dim, heading, table, wrap

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hvabi.conformance.case import Case, Expected, GuestScript, GuestTurn, HostStep, Inject, Pages, Ranges
    from hvabi.conformance.report.comparison import Compared, Part
    from hvabi.conformance.story import Story

_PIECES = 8
"""Pieces of memory of a message that are printed when its fields cannot be."""

_BYTES = 16
"""Bytes of an injected fault that are printed."""
_INDEX = re.compile(r"\[\d+\]")
_ENDS = {
    "return": "the call returns",
    "replay": "the guest executes the call again",
    "fault": "the guest takes the exception",
    "stop": "the guest is stopped",
}


def case_lines(case: Case, width: int) -> Iterator[str]:
    """Yield the page of a case."""
    yield heading(case.id)
    yield from wrap(case.why, width, indent="  ")
    yield from table(list(_head(case)), width, indent="  ")
    more = f" --profile {case.profile}" if case.profile else ""
    yield f"  $ hvabi conform --iut CONN --id {case.id}{more}"  # whole, to be copied
    if case.script is not None:
        yield ""
        yield from _script(case, case.script, width)
    for number, step in enumerate(case.steps):
        yield ""
        yield from _step(case, number, step, width)


def _head(case: Case) -> Iterator[tuple[str, str]]:
    from hvabi.abi.glossary import LEVELS
    from hvabi.conformance.report.rules import rule_text
    from hvabi.conformance.vector_words import NOTES

    # The note on faults is written for vectors, which have none injected.
    note = "A refusal by the host's user space." if case.kind == "fault" else NOTES.get(case.kind, "")
    yield "kind", f"{case.kind}: {note}".rstrip(": ")
    yield "level", f"{case.level}: {LEVELS[case.level]}"
    for number, name in enumerate(case.rules):
        rule = rule_text(case.abi, case.revision, name)
        text = f"{name} ({rule.level}, {rule.binds}): {rule.text}" if rule is not None else name
        if number == 0 and rule is not None:
            text += f" Source: {rule.source}."
        yield "rule" if number == 0 else "", text
    if case.reference:
        yield "reference", case.reference
    if case.profile:
        yield "profile", f"{case.profile}: it is run under that profile only"
    if case.features:
        yield "needs", f"the feature {' and '.join(case.features)}; skipped without"
    yield "set up", _setup(case)
    yield "before", _state(case.before, case.facts)


def _setup(case: Case) -> str:
    setup = case.setup
    parts = [f"{name} {value:#x}" for name, value in setup.config.items()]
    if setup.memory is not None:
        parts.append(f"memory {_pages(setup.memory) or 'none'}")
    if not setup.enabled:
        parts.append("not enabled")
    if setup.max_ranges is not None:
        parts.append(f"at most {setup.max_ranges} ranges")
    if setup.scratch is not None:
        parts.append(f"the guest's own area {_pages([setup.scratch])}")
    return ", ".join(parts) or "as by default: all is memory, the call is enabled"


def _pages(pages: Pages | Sequence[tuple[int, int]]) -> str:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(pages):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return ", ".join(f"{start << 12:#x} to {end << 12:#x}" for start, end in merged)


def _state(ranges: Ranges, facts: Mapping[str, Pages]) -> str:
    parts = [f"{start << 12:#x} to {end << 12:#x} {state}" for start, end, state in ranges]
    parts += [f"{name}: {_pages(pages)}" for name, pages in facts.items() if pages]
    return ", ".join(parts) + "; the rest private" if parts else "all private"


# -- calls to a host --------------------------------------------------------------------------------------------


def _step(case: Case, number: int, step: HostStep, width: int) -> Iterator[str]:
    shown = _decoded(case, number)
    again = ", from the state before again" if step.fresh and number else ""
    count = f"Call {number + 1} of {len(case.steps)}" if len(case.steps) > 1 else "The call"
    means = f": {shown.means}" if shown is not None and shown.means else ""
    yield from map(heading, wrap(f"{count}{again}{means}", width, hang="  "))
    if step.cpl:
        yield f"  made unprivileged, at privilege {step.cpl}"
    if step.inject is not None:
        arguments = ", ".join(f"{name} {_shown(value)}" for name, value in step.inject.arguments.items())
        text = f"with the fault {step.inject.fault}{': ' if arguments else ''}{arguments}"
        yield from wrap(text, width, indent="  ", hang="    ")
    if shown is not None and shown.sent:
        yield from table(list(_sent_rows(shown)), width, indent="  ", room=24)
    else:
        regs = ", ".join(f"{name} {value:#x}" for name, value in step.regs.items())
        yield from wrap(f"registers: {regs}", width, indent="  ", hang="    ")
        for at, data in step.mem[:_PIECES]:
            yield from wrap(f"memory {at:#x}: {data[:64].hex()}", width, indent="  ", hang="    ")
    for note in shown.notes if shown is not None else ():
        yield from wrap(note, width, indent="  ")
    yield from _answers(step.expected, shown, width)


def _sent_rows(shown: Compared) -> Iterator[tuple[str, str, str, str]]:
    """Yield the fields of a call; what a part of an element is for is said once."""
    seen: set[str] = set()
    for item in shown.sent:
        name = _INDEX.sub("", item.path)
        text = "" if item.depth and name in seen else item.text
        seen.add(name)
        yield item.where, "  " * item.depth + item.path, item.value, text


def _value(value: int | bytes) -> str:
    """Return an argument of a fault as the protocol writes it."""
    return value.hex() if isinstance(value, bytes) else f"{value:#x}"


def _shown(value: int | bytes) -> str:
    """Return an argument of a fault for people: long bytes are cut."""
    if isinstance(value, bytes) and len(value) > _BYTES:
        return f"{value[:_BYTES].hex()}… ({len(value)} bytes)"
    return _value(value)


def _answers(answers: tuple[Expected, ...], shown: Compared | None, width: int) -> Iterator[str]:
    from hvabi.conformance.alternatives import differing_policies

    if len(answers) > 1:
        text = f"Right is any of {len(answers)} answers; an implementation keeps to its choice in the whole run."
        yield from wrap(text, width, indent="  ")
    for number, one in enumerate(answers):
        policies = " and ".join(f"{name} is {value}" for name, value in differing_policies(one, answers).items())
        title = "Right" if len(answers) == 1 else f"Answer {number + 1}"
        how = f"{_ENDS[one.end]} {one.fault}" if one.end == "fault" else _ENDS[one.end]
        by = f", by {one.rule}" if one.rule else ""
        text = f"{title}: {how}{by}" + (f", where {policies}" if policies else "")
        yield from wrap(text, width, indent="  ", hang="    ")
        if one.why:
            yield from wrap(one.why, width, indent="    ")
        rows = list(_answer_rows(one, shown if number == 0 else None))
        yield from table(rows, width, indent="    ", room=24)
        yield from wrap(f"pages afterwards: {_state(one.state, one.facts)}", width, indent="    ", hang="      ")
        if one.loose:
            yield from wrap(f"not compared: pages {_pages(one.loose)}", width, indent="    ", hang="      ")


def _answer_rows(one: Expected, shown: Compared | None) -> Iterator[tuple[str, ...]]:
    """Yield what the answer has: decoded fields where there are any, else registers and memory."""
    parts = [part for part in shown.parts if part.expected] if shown is not None else []
    if parts:
        sent = {item.path: item.value for item in shown.sent} if shown is not None else {}
        # Of elements only what changes: a buffer may have hundreds.
        changed = [part for part in parts if not part.depth or part.expected != sent.get(part.path, _zero(part))]
        for part in changed:
            yield part.where, "  " * part.depth + part.path, part.expected
        if len(changed) < len(parts):
            yield "all else", "", "as it was sent"
    else:
        for name, value in one.regs.items():
            yield name, "", f"{value:#x}"
        for at, data in one.mem[:_PIECES]:
            yield "memory", f"{at:#x}", data[:64].hex()
    if one.may_change:
        yield "not compared", "", ", ".join(one.may_change)


def _zero(part: Part) -> str:
    return part.expected if part.expected_raw == 0 else ""


def _decoded(case: Case, number: int) -> Compared | None:
    """Return a step decoded, as if the first right answer had come."""
    from hvabi.conformance.report.compared import compared
    from hvabi.conformance.result import CaseResult, Exchanged, Verdict

    made = []
    for step in case.steps[: number + 1]:
        right = step.expected[0] if step.expected else None
        made.append(
            Exchanged(
                sent_regs=step.regs, sent_mem=step.mem, got_end=right.end if right else "",
                got_regs=right.regs if right else {}, got_mem=right.mem if right else (),
            )
        )  # fmt: skip
    found = compared(CaseResult(case=case, verdict=Verdict.PASS, exchanged=tuple(made)))
    return next((item for item in found if item.number == number), None)


# -- a guest ----------------------------------------------------------------------------------------------------


def _script(case: Case, script: GuestScript, width: int) -> Iterator[str]:
    span = _pages([(script.gpa >> 12, (script.gpa >> 12) + script.pages)])
    exact = f" (gpa {script.gpa:#x})" if script.gpa & 0xFFF else ""
    count = f"{script.pages} page{'' if script.pages == 1 else 's'}"
    yield from map(heading, wrap(f"The guest is asked: make {script.to}: {count}, {span}{exact}", width, hang="  "))
    for number, turn in enumerate(script.turns, 1):
        yield from wrap(f"its call {number}: {_turn(turn)}", width, indent="  ", hang="    ")
    if script.repeat_last and script.turns:
        yield "  every call after that: the same again, for ever"
    else:
        yield f"  {'every call' if not script.turns else 'calls after that'}: the host does it and answers rightly"
    yield "  Right:"
    rows = [("says", {True: "all is done", False: "not all is done", None: "either"}[script.done])]
    if script.calls is not None:
        low, high = script.calls
        rows.append(("calls", "none" if high == 0 else f"{low}" if low == high else f"{low} to {high}"))
    if script.must_believe:
        rows.append(("reports", f"as converted at least {_pages(script.must_believe)}, if it says that all is done"))
    if script.must_not_believe:
        rows.append(("never", f"reports as converted {_pages(script.must_not_believe)}"))
    rows += [(word, f"{when} the calls: {_pages(pages)}") for word, when, pages in script.local_steps]
    yield from table(rows, width, indent="    ")


def _turn(turn: GuestTurn) -> str:
    text = "the host does it" if turn.kind == "serve" else "the host does nothing"
    if turn.inject is not None:
        arguments = ", ".join(f"{name} {_shown(value)}" for name, value in turn.inject.arguments.items())
        text += f" under the fault {turn.inject.fault} ({arguments})"
    said = [f"{name} = {value if isinstance(value, str) else hex(value)}" for name, value in turn.say.items()]
    said += [f"register {name} = {value:#x}" for name, value in turn.regs.items()]
    said += [f"bytes {data.hex()} at {block}+{offset:#x}" for block, offset, data in turn.mem_at]
    return text + (f", and the answer says {', '.join(said)}" if said else ", and answers rightly")


# -- stories ----------------------------------------------------------------------------------------------------


def story_lines(story: Story, width: int) -> Iterator[str]:
    """Yield the page of a historic bug."""
    yield heading(story.id) + dim(f"  {story.abi}, {story.role}")
    yield from wrap(story.title, width, indent="  ")
    yield from wrap(story.text, width, indent="  ")
    rows = [("known", "a commit, mail or review says so" if story.tag == "confirmed" else
             "found by reading the code; no product is named")]  # fmt: skip
    rows += [("reference" if number == 0 else "", text) for number, text in enumerate(story.reference)]
    rows += [("rules", ", ".join(story.rules))] if story.rules else []
    rows += [("case" if number == 0 else "", retold.case.id) for number, retold in enumerate(story.cases)]
    if story.cases:
        rows.append(("more", f"hvabi explain {story.cases[0].case.id}"))
    yield from table(rows, width, indent="  ")


def show_cases(cases: Sequence[Case], asked: str, width: int, most: int) -> None:
    """Print one case in full, several as a list."""
    if len(cases) == 1:
        for line in case_lines(cases[0], width):
            console.say(line)
        return
    console.say(heading(f"{asked}: {len(cases)} cases"))
    for case in cases[:most]:
        console.say(f"  {case.id}")
        for line in wrap(case.why, width, indent="      "):
            console.say(dim(line))
    if len(cases) > most:
        console.say(dim(f"  and {len(cases) - most} more; --json lists all"))


def show_story(story: Story, width: int) -> None:
    """Print a story."""
    for line in story_lines(story, width):
        console.say(line)


# -- for programs -----------------------------------------------------------------------------------------------


def plain_case(case: Case) -> dict[str, Any]:
    """Return a case as plain data: a test of a vector file, and what vectors do not have."""
    from hvabi.conformance.vector_case import vector
    from hvabi.conformance.vector_words import config_of

    found = vector(case)
    for number, step in enumerate(case.steps):
        if step.inject is not None:
            found["steps"][number]["inject"] = _injected(step.inject)
    for number, turn in enumerate(case.script.turns if case.script is not None else ()):
        if turn.inject is not None:
            found["script"]["turns"][number]["inject"] = _injected(turn.inject)
    where = {"abi": case.abi, "revision": case.revision, "role": case.role, "transport": case.transport}
    return {"name": case.id, "kind": "case", **where, "config": config_of(case), **found}


def _injected(inject: Inject) -> dict[str, Any]:
    return {"fault": inject.fault, **{name: _value(value) for name, value in inject.arguments.items()}}


def plain_story(story: Story) -> dict[str, Any]:
    """Return a story as plain data."""
    return {
        "name": story.id,
        "kind": "story",
        "abi": story.abi,
        "role": story.role,
        "title": story.title,
        "text": story.text,
        "tag": story.tag,
        "numbers": list(story.numbers),
        "reference": list(story.reference),
        "rules": list(story.rules),
        "cases": [retold.case.id for retold in story.cases],
    }


__all__ = ["case_lines", "plain_case", "plain_story", "show_cases", "show_story", "story_lines"]
