"""What is lost when a request of one ABI is said in another: a closed list, derived from the specifications."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hvabi.adapters.errors import AdapterError
from hvabi.backend import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hvabi.abi.calls import Call
    from hvabi.abi.registry import Spec

LOSSES: Mapping[str, str] = {
    "size-hint": "The size of the guest's own mapping is not passed on.",
    "read-only": "Shared for reading only cannot be asked for.",
    "one-way": "Pages can be made shared there and not private again.",
    "granule": "Ranges that are not multiples of the far granule cannot be converted.",
    "range": "Addresses that the far call cannot name cannot be converted.",
    "list": "A list of ranges becomes one call for each.",
    "progress": "The far call does all or nothing: it cannot say that it came half-way.",
    "page-progress": "The far call says how far it came in units coarser than a page.",
    "idempotence": "A page that is in the state already is an error there.",
    "contents": "What becomes of the bytes of a page is another thing there, or is not stated there.",
    "reasons": "Refusals that the near call tells apart are one and the same there.",
    "facts": "What else the near call says about pages is not passed on.",
}
"""Every loss there is, and what it means."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """One thing that gets lost: its name in `LOSSES`, and what exactly, in words."""

    name: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Powers:
    """What the converting call of an ABI can say, as its specification has it.

    Attributes:
        hint: whether the request carries the size of the guest's mapping.
        states: the states that can be asked for.
        granule: bytes that can be converted at least.
        low, high: bytes that can be named.
        listed: whether one request names several ranges.
        partial: whether an answer can say that a part was done.
        by_page: whether that is counted in pages of 4 KiB.
        idempotent: whether a page that is in the state already is success.
        contents: by state, what becomes of the bytes of a page, where a source says it.
        reasons: members of the taxonomy that are refusals, those in one set with the same answer.
        facts: what it says about pages besides their state.

    """

    hint: bool
    states: frozenset[str]
    granule: int
    low: int
    high: int
    listed: bool
    partial: bool
    by_page: bool
    idempotent: bool
    contents: Mapping[str, str]
    reasons: frozenset[frozenset[str]]
    facts: frozenset[str]


def powers(spec: Spec, transport: str | None = None, config: Mapping[str, int] | None = None) -> Powers:
    """Return what an ABI can say over a transport, the first by default. Raises `AdapterError` ``no-guest-role``."""
    from hvabi.adapters.registry import guest_class

    guest = guest_class(spec.id)(spec, transport=transport, config=config)
    call, definition = guest.definition, guest.definition.guest
    convert = call.convert
    if definition is None or convert is None:
        raise AdapterError(f"{spec.id} has no guest role", code="no-guest-role")
    scope = guest.scope()
    granule = scope.int(definition.granule) if definition.granule is not None else PAGE_SIZE
    low, high = (scope.int(expr) for expr in definition.within) if definition.within is not None else (0, 1 << 64)
    name = guest.transport.name
    partial = _can(call, "partial", name)
    already = [answer for answer in call.outcomes.get("already", ()) if answer.guard.serves(name)]
    return Powers(
        hint=convert.hint is not None,
        states=frozenset(definition.states),
        granule=granule,
        low=low,
        high=high,
        listed=convert.each is not None,
        partial=partial,
        by_page=partial and _by_page(call, granule),
        idempotent=all(answer.cannot is not None for answer in already),
        contents={state: item.kind for state, item in convert.contents.items()},
        reasons=frozenset(_reasons(call, name)),
        facts=frozenset(convert.facts),
    )


def _can(call: Call, status: str, transport: str) -> bool:
    answers = [answer for answer in call.outcomes.get(status, ()) if answer.guard.serves(transport)]
    return call.progress is not None and any(answer.cannot is None for answer in answers)


def _by_page(call: Call, granule: int) -> bool:
    progress = call.progress
    if progress is None or granule > PAGE_SIZE:
        return False
    return progress.unit in ("byte", "page", "granule") or progress.within is not None


_REFUSALS = ("invalid", "misaligned", "out-of-range", "limit", "denied", "unsupported", "failed")


def _reasons(call: Call, transport: str) -> list[frozenset[str]]:
    """Return the refusals that cannot be told apart, each group by what it is answered with first."""
    groups: dict[str, set[str]] = {}
    for status in _REFUSALS:
        answers = [a for a in call.outcomes.get(status, ()) if a.cannot is None and a.guard.serves(transport)]
        if answers:
            groups.setdefault(f"{answers[0].end} {dict(answers[0].fields)}", set()).add(status)
    return [frozenset(group) for group in groups.values()]


def losses(near: Powers, far: Powers) -> tuple[Loss, ...]:
    """Return what gets lost where the host of one ABI drives the guest of another."""
    found = [
        Loss(name="size-hint", detail="the far request has no place for it") if near.hint and not far.hint else None,
        _states(near, far),
        _one_way(near, far),
        _granule(near, far),
        _range(near, far),
        Loss(name="list", detail="each range is a call of its own") if near.listed and not far.listed else None,
        _progress(near, far),
        Loss(name="idempotence", detail="converting again is refused") if near.idempotent > far.idempotent else None,
        _contents(near, far),
        _told_apart(near, far),
        _facts(near, far),
    ]
    return tuple(loss for loss in found if loss is not None)


def _states(near: Powers, far: Powers) -> Loss | None:
    gone = sorted(near.states - far.states - {"private"})
    return Loss(name="read-only", detail=f"not to be had: {', '.join(gone)}") if gone else None


def _one_way(near: Powers, far: Powers) -> Loss | None:
    if "private" not in near.states - far.states:
        return None
    return Loss(name="one-way", detail=f"only {', '.join(sorted(far.states))}")


def _granule(near: Powers, far: Powers) -> Loss | None:
    if far.granule <= near.granule:
        return None
    return Loss(name="granule", detail=f"{far.granule} bytes there, {near.granule} here")


def _range(near: Powers, far: Powers) -> Loss | None:
    if far.low <= near.low and far.high >= near.high:
        return None
    return Loss(name="range", detail=f"there only {far.low:#x} to {far.high - 1:#x}")


def _progress(near: Powers, far: Powers) -> Loss | None:
    if near.partial and not far.partial:
        return Loss(name="progress", detail="all or nothing there")
    if near.by_page and far.partial and not far.by_page:
        return Loss(name="page-progress", detail="coarser than a page there")
    return None


def _contents(near: Powers, far: Powers) -> Loss | None:
    changed = [
        f"{state}: {kind} here, {far.contents.get(state, 'not stated')} there"
        for state, kind in near.contents.items()
        if far.contents.get(state) != kind
    ]
    return Loss(name="contents", detail="; ".join(changed)) if changed else None


def _told_apart(near: Powers, far: Powers) -> Loss | None:
    """Whether two refusals have different answers here and the same one there."""
    one_there = {frozenset((a, b)) for group in far.reasons for a in group for b in group if a < b}
    one_here = {frozenset((a, b)) for group in near.reasons for a in group for b in group if a < b}
    known = {status for group in near.reasons for status in group}
    merged = sorted({status for pair in one_there - one_here if pair <= known for status in pair})
    return Loss(name="reasons", detail=f"one answer there: {', '.join(merged)}") if merged else None


def _facts(near: Powers, far: Powers) -> Loss | None:
    gone = sorted(near.facts - far.facts)
    return Loss(name="facts", detail=", ".join(gone)) if gone else None
