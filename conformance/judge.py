"""Expected against found: what one call should have left behind and what it did. Pure functions, no input or output."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hvabi.conformance.bytesmap import Bytes, Spans
from hvabi.conformance.result import Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from hvabi.conformance.case import Expected, Memory, Pages, Ranges

    Add = Callable[..., None]

_LISTED = 4
"""Most byte or page ranges of one kind that a step reports."""
_SHOWN = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What came back from a call, and the state after it; `state` is None where nobody could ask."""

    end: str
    regs: Mapping[str, int] = field(default_factory=dict)
    mem: Memory = ()
    fault: str | None = None
    state: Ranges | None = None
    facts: Mapping[str, Pages] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The outcome of one step.

    Attributes:
        findings: what is wrong against the nearest right answer; empty where the answer is right.
        nearest: that answer.
        policies: policy values that this answer shows: those that hold in every right answer that matches and
            not in all that do not.

    """

    findings: tuple[Finding, ...]
    nearest: Expected
    policies: Mapping[str, str]


def judge(expected: Sequence[Expected], seen: Seen, *, sent: Mapping[str, int], before: Bytes, step: int) -> Judged:
    """Compare an answer with every right one.

    Args:
        expected: the right answers, one at least.
        seen: what came.
        sent: the registers of the call; one left out is 0.
        before: memory as it was when the call began.
        step: number of the step, for the findings.

    """
    judged = [(findings_of(one, seen, sent=sent, before=before, step=step), one) for one in expected]
    matching = [one for findings, one in judged if not findings]
    if matching:
        rest = [one for findings, one in judged if findings]
        return Judged(findings=(), nearest=matching[0], policies=shown_policies(matching, rest))
    findings, nearest = min(judged, key=lambda item: _distance(item[0]))
    return Judged(findings=findings, nearest=nearest, policies={})


def _distance(findings: Sequence[Finding]) -> tuple[int, int]:
    """How far off an answer is: the way it ended counts most."""
    return sum(finding.what == "end" for finding in findings), len(findings)


def combinations(expected: Expected) -> tuple[Mapping[str, str], ...]:
    """Return every combination of policy values under which an answer is right."""
    return (expected.policies, *expected.also)


def shown_policies(matching: Sequence[Expected], rest: Sequence[Expected]) -> dict[str, str]:
    """Return the policy values that tell the matching answers from the rest."""
    if not rest:
        return {}
    ours = [combination for one in matching for combination in combinations(one)]
    theirs = [combination for one in rest for combination in combinations(one)]
    shown: dict[str, str] = {}
    for name in dict.fromkeys(name for combination in ours for name in combination):
        values = {combination.get(name) for combination in ours}
        value = values.pop()
        if values or value is None:
            continue
        if any(combination.get(name, value) != value for combination in theirs):
            shown[name] = value
    return shown


def findings_of(
    expected: Expected, seen: Seen, *, sent: Mapping[str, int], before: Bytes, step: int
) -> tuple[Finding, ...]:
    """Return every difference between one right answer and what came; empty where there is none."""
    out: list[Finding] = []

    def add(what: str, wanted: str, found: str, bits: tuple[int, int] | None = None) -> None:
        out.append(Finding(what=what, expected=wanted, found=found, step=step, rule=expected.rule, bits=bits))

    if expected.end != seen.end:
        add("end", _ending(expected.end, expected.fault), _ending(seen.end, seen.fault))
    elif expected.end == "fault" and expected.fault is not None and expected.fault != seen.fault:
        add("fault", expected.fault, seen.fault or "no name")
    elif expected.end != "stop":
        _registers(expected, seen, sent, add)
        _memory(expected, seen, before, add)
    if seen.state is not None and expected.end != "stop":
        _state(expected, seen.state, add)
        _facts(expected, seen.facts, add)
    return tuple(out)


def _ending(end: str, fault: str | None) -> str:
    return f"{end} {fault}" if end == "fault" and fault else end


def _registers(expected: Expected, seen: Seen, sent: Mapping[str, int], add: Add) -> None:
    if expected.regs == seen.regs and not expected.nonzero:
        return
    masks: dict[str, int] = {}
    for name, mask in expected.nonzero:
        masks[name] = masks.get(name, 0) | mask
    for name in sorted({*expected.regs, *seen.regs, *masks}):
        if name in expected.may_change:
            continue
        before = sent.get(name, 0)
        found = seen.regs.get(name, before)
        wanted = expected.regs.get(name, before)
        different = (found ^ wanted) & ~masks.get(name, 0)
        if different:
            text = hex(wanted) if name in expected.regs else f"{wanted:#x}, as it was"
            add(f"register {name}", text, hex(found), (different.bit_length() - 1, _lowest(different)))
    for name, mask in expected.nonzero:
        if not seen.regs.get(name, sent.get(name, 0)) & mask and name not in expected.may_change:
            add(f"register {name}", "not 0", "0", (mask.bit_length() - 1, _lowest(mask)))


def _lowest(number: int) -> int:
    return (number & -number).bit_length() - 1


def _memory(expected: Expected, seen: Seen, before: Bytes, add: Add) -> None:
    if expected.mem == seen.mem:
        return
    after = Bytes()
    wanted = Bytes()
    touched = Spans((at, at + len(data)) for pieces in (expected.mem, seen.mem) for at, data in pieces)
    for start, end in touched.spans:
        base = (start, before.read(start, end - start))
        after.lay([base])
        wanted.lay([base])
    after.lay(seen.mem)
    wanted.lay(expected.mem)
    named = Spans((at, at + len(data)) for at, data in expected.mem)
    loose = Spans((at, at + size) for at, size in expected.may_change_mem)
    shown = 0
    for start, end in touched.minus(loose).spans:
        for low, high in _runs(wanted.read(start, end - start), after.read(start, end - start), start):
            shown += 1
            if shown > _LISTED:
                add("memory", "no more differences", "more differences, not listed")
                return
            is_named = Spans([(low, high)]).within(named)
            text = _hex(wanted.read(low, min(high - low, _SHOWN)), high - low)
            found = _hex(after.read(low, min(high - low, _SHOWN)), high - low)
            add(f"memory {low:#x}", text if is_named else f"{text}, as it was", found)


def _runs(one: bytes, other: bytes, base: int) -> Iterable[tuple[int, int]]:
    """Yield address ranges where two images differ; gaps of up to 3 equal bytes are taken in."""
    if one == other:
        return
    start: int | None = None
    last = 0
    for at, (left, right) in enumerate(zip(one, other, strict=True)):
        if left == right:
            continue
        if start is not None and at - last > 4:
            yield base + start, base + last + 1
            start = None
        if start is None:
            start = at
        last = at
    if start is not None:
        yield base + start, base + last + 1


def _hex(data: bytes, size: int) -> str:
    return data.hex() + ("…" if size > len(data) else "")


def state_differences(
    wanted: Iterable[tuple[int, int, str]], found: Iterable[tuple[int, int, str]], loose: Pages, default: str
) -> list[tuple[int, int, str, str]]:
    """Return ``(first page, end page, wanted, found)`` where two lists of page states differ, outside `loose`."""
    one, other = list(wanted), list(found)
    if one == other:
        return []
    bounds = [(start, end) for start, end, _ in (*one, *other)]
    edges = sorted({edge for start, end in (*bounds, *loose) for edge in (start, end)})
    out: list[tuple[int, int, str, str]] = []
    i = j = k = 0
    free = Spans(loose).spans
    for low, high in itertools.pairwise(edges):
        while i < len(one) and one[i][1] <= low:
            i += 1
        while j < len(other) and other[j][1] <= low:
            j += 1
        while k < len(free) and free[k][1] <= low:
            k += 1
        if k < len(free) and free[k][0] <= low:
            continue
        left = one[i][2] if i < len(one) and one[i][0] <= low else default
        right = other[j][2] if j < len(other) and other[j][0] <= low else default
        if left == right:
            continue
        if out and out[-1][1] == low and out[-1][2:] == (left, right):
            out[-1] = (out[-1][0], high, left, right)
        else:
            out.append((low, high, left, right))
    return out


def _state(expected: Expected, found: Ranges, add: Add) -> None:
    for number, (start, end, wanted, have) in enumerate(
        state_differences(expected.state, found, expected.loose, "private")
    ):
        if number == _LISTED:
            add("pages", "no more differences", "more differences, not listed")
            return
        add(f"pages {start:#x} to {end - 1:#x}", wanted, have)


def _facts(expected: Expected, found: Mapping[str, Pages], add: Add) -> None:
    for name in sorted({*expected.facts, *found}):
        wanted = [(start, end, "true") for start, end in expected.facts.get(name, ())]
        have = [(start, end, "true") for start, end in found.get(name, ())]
        for start, end, left, right in state_differences(wanted, have, expected.loose, "false")[:_LISTED]:
            add(f"fact {name} of pages {start:#x} to {end - 1:#x}", left, right)


__all__ = ["Judged", "Seen", "combinations", "findings_of", "judge", "shown_policies", "state_differences"]
