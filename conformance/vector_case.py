"""One case as a test of a vector file."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from hvabi.conformance.alternatives import differing_policies
from hvabi.conformance.frame import hex_mem, hex_pages, hex_regs
from hvabi.conformance.vector_set import source_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from hvabi.conformance.case import Case, Expected, GuestScript, GuestTurn, Handle, HostStep, Memory, Pages, Ranges

_GAP = 32
"""Zero bytes in a row from which on a piece of memory is cut in two: memory is zero after a reset."""
_LONG_GAP = re.compile(rb"\x00{%d,}" % _GAP)


def usable(case: Case) -> bool:
    """Whether a case can be a vector: no fault is injected, and a scripted host does not calculate its answers."""
    if "inject" in case.features or any(step.inject is not None for step in case.steps):
        return False
    if case.script is None:
        return bool(case.steps) and all(step.expected for step in case.steps)
    return all(
        turn.inject is None and turn.when is None and not any(isinstance(value, str) for value in turn.say.values())
        for script in _scripts(case.script)
        for turn in script.turns
    )


def _scripts(script: GuestScript | None) -> Iterator[GuestScript]:
    """Yield a script and those behind it."""
    while script is not None:
        yield script
        script = script.then


def vector(case: Case) -> dict[str, Any]:
    """Return a case as plain data for JSON."""
    out: dict[str, Any] = {
        "id": case.id,
        "comment": case.why,
        "flags": [case.kind],
        "rules": list(case.rules),
        "source": source_of(case),
        "level": case.level,
        "result": "either" if any(len(step.expected) > 1 for step in case.steps) else "valid",
    }
    out |= {"profile": case.profile} if case.profile else {}
    out |= {"features": list(case.features)} if case.features else {}
    out |= {"reference": case.reference} if case.reference else {}
    if case.script is not None:
        return {**out, "before": _state(case.before, case.facts), "script": _script(case.script)}
    return {**out, "steps": [_step(case, number, step) for number, step in enumerate(case.steps)]}


def _step(case: Case, number: int, step: HostStep) -> dict[str, Any]:
    first = step.fresh or number == 0
    out: dict[str, Any] = {"before": _state(case.before, case.facts)} if first else {}
    out |= {"vcpu": step.vcpu} if step.vcpu else {}
    out |= {"cpl": step.cpl} if step.cpl else {}
    out |= {"regs": hex_regs(step.regs)}
    if step.mem:
        out["mem"] = hex_mem(_nonzero(step.mem) if first else step.mem)
    if step.fields:
        out["fields"] = _plain(step.fields)
    if step.handles:
        out["handles"] = [_handle(one) for one in step.handles]
    out["expect"] = [_expect(one, step.expected) for one in step.expected]
    return out


def _nonzero(mem: Memory) -> Iterable[tuple[int, bytes]]:
    """Yield the pieces of memory without their long runs of zeroes."""
    for start, data in mem:
        at = 0
        for gap in [*_LONG_GAP.finditer(data), None]:
            end = gap.start() if gap is not None else len(data)
            if end > at:
                yield start + at, data[at:end]
            at = gap.end() if gap is not None else end


def _expect(one: Expected, alternatives: tuple[Expected, ...]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    policies = differing_policies(one, alternatives)
    out |= {"policies": dict(sorted(policies.items()))} if policies else {}
    out |= {"end": one.end}
    out |= {"fault": one.fault} if one.fault else {}
    out |= {"regs": hex_regs(one.regs)}
    out |= {"mem": hex_mem(one.mem)} if one.mem else {}
    out |= {"chosen": [_handle(handle) for handle in one.chosen]} if one.chosen else {}
    out |= {"may_change": list(one.may_change)} if one.may_change else {}
    out |= {"nonzero": [[name, f"{mask:#x}"] for name, mask in one.nonzero]} if one.nonzero else {}
    if one.may_change_mem:
        out["may_change_mem"] = [[f"{start:#x}", f"{size:#x}"] for start, size in one.may_change_mem]
    after = _state(one.state, one.facts)
    out["after"] = {**after, "loose": hex_pages(one.loose)} if one.loose else after
    out["status"] = one.status
    out |= {"rule": one.rule} if one.rule else {}
    out |= {"why": one.why} if one.why else {}
    return out


def _handle(handle: Handle) -> dict[str, Any]:
    out: dict[str, Any] = {"number": f"{handle.number:#x}", "places": [list(place) for place in handle.places]}
    return {**out, "flipped": f"{handle.flipped:#x}"} if handle.flipped else out


def _state(ranges: Ranges, facts: Mapping[str, Pages]) -> dict[str, Any]:
    out: dict[str, Any] = {
        "ranges": [[f"{start << 12:#x}", f"{end - start:#x}", state] for start, end, state in ranges]
    }
    known = {name: hex_pages(pages) for name, pages in sorted(facts.items()) if pages}
    return {**out, "facts": known} if known else out


def _script(script: GuestScript) -> dict[str, Any]:
    out: dict[str, Any] = {
        "convert": {"gpa": f"{script.gpa:#x}", "pages": f"{script.pages:#x}", "to": script.to},
        "turns": [_turn(turn) for turn in script.turns],
        "then": "repeat" if script.repeat_last and script.turns else "serve",
        "expect": {"done": script.done},
    }
    if script.local_steps:
        out["local_steps"] = [[word, when, hex_pages(pages)] for word, when, pages in script.local_steps]
    expect = out["expect"]
    if script.calls is not None:
        expect["calls"] = list(script.calls)
    for name, pages in (("must_not_believe", script.must_not_believe), ("must_believe", script.must_believe)):
        if pages:
            expect[name] = hex_pages(pages)
    if script.then is not None:
        out["next"] = _script(script.then)
    return out


def _turn(turn: GuestTurn) -> dict[str, Any]:
    out: dict[str, Any] = {"do": turn.kind}
    out |= {"fields": _plain(turn.say)} if turn.say else {}
    out |= {"regs": hex_regs(turn.regs)} if turn.regs else {}
    if turn.mem_at:
        out["mem_at"] = [[block, f"{offset:#x}", data.hex()] for block, offset, data in turn.mem_at]
    out |= {"above": f"{turn.above:#x}"} if turn.above is not None else {}
    return out


def _plain(value: object) -> Any:
    """Return fields for JSON: integers as hex strings, at any depth."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return f"{value:#x}" if value >= 0 else f"-{-value:#x}"
    if isinstance(value, bytes):
        return value.hex()
    if hasattr(value, "_fields"):
        return {name: _plain(item) for name, item in zip(value._fields, value, strict=True)}  # type: ignore[call-overload]  # a named tuple
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "items"):
        return {str(name): _plain(item) for name, item in value.items()}
    return str(value)
