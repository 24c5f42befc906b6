"""All cases of an ABI, in a fixed order, every id once."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from hvabi.abi.registry import abi_ids, bundled, load
from hvabi.abi.specification import SPEC_PROFILE
from hvabi.conformance.generate.basis import Basis, basis_of
from hvabi.conformance.generate.conversations import conversation_cases
from hvabi.conformance.generate.edges import edge_cases
from hvabi.conformance.generate.guests import guest_cases
from hvabi.conformance.generate.hosts import done_cases, fault_cases, progress_cases, reserved_cases
from hvabi.conformance.generate.more_edges import edge_cases as more_edge_cases
from hvabi.conformance.generate.more_guests import more_guest_cases
from hvabi.conformance.generate.pages import page_cases
from hvabi.conformance.generate.questions import asked_cases, plain_cases
from hvabi.conformance.generate.regions import region_cases
from hvabi.conformance.generate.rules import RuleCases

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hvabi.conformance.case import Case


def cases(
    abi: str | None = None,
    *,
    revision: str | None = None,
    role: str | None = None,
    transport: str | None = None,
    profile: str | None = None,
    seed: int = 0,
) -> Iterator[Case]:
    """Yield the generated cases of one ABI, or of all that are no drafts.

    Args:
        abi: id of the ABI.
        revision: only this revision.
        role: ``host`` or ``guest``.
        transport: only this transport.
        profile: the profile under which answers are expected; its own rules are asserted too.
        seed: kept for generators that draw; these cases are all fixed.

    """
    for name in abi_ids() if abi is None else (abi,):
        found = bundled(name)
        if abi is None and found.draft:
            continue
        if profile not in (None, SPEC_PROFILE) and profile not in found.profiles:
            continue
        for version in found.revisions if revision is None else (revision,):
            spec = load(name, revision=version, profile=profile or SPEC_PROFILE)
            for place in spec.abi.transports if transport is None else (transport,):
                yield from _of(name, version, place, role, profile or SPEC_PROFILE)


def _of(abi: str, revision: str, transport: str, role: str | None, profile: str) -> Iterator[Case]:
    seen: set[str] = set()
    for case in _in_order(abi, revision, transport, role, profile):
        if case.id not in seen:
            seen.add(case.id)
            yield case


def _in_order(abi: str, revision: str, transport: str, role: str | None, profile: str) -> Iterator[Case]:
    spec = load(abi, revision=revision, profile=profile).abi
    carried = spec.transports[transport].placements
    for call in spec.served_calls:
        if call.request in carried:
            # The converting call has no name of its own here: it is made once, whoever asks for it.
            name = None if call is spec.convert_call else call.name
            basis = basis_of(abi, revision, transport, profile, name)
            known = known_elsewhere(abi, revision, transport, profile, call.name)
            with basis.remembering():
                yield from _rules_alone(basis, role) if known else _of_call(basis, role)


@cache
def known_elsewhere(abi: str, revision: str, transport: str, profile: str, call: str) -> bool:
    """Whether a call that goes on with a handle is in every way the one of the default revision, which has its cases.

    Here each of its rules is broken alone then, no more: what gives the handle differs and has all cases.
    """
    whole = bundled(abi)
    if revision == whole.default_revision:
        return False
    ours, theirs = (load(abi, revision=one, profile=profile).abi for one in (revision, whole.default_revision))
    item, other = ours.calls[call], theirs.calls.get(call)
    if item.handle is None or item.handle.of is None or item != other or transport not in theirs.transports:
        return False
    here, there = ours.transports[transport].placements, theirs.transports[transport].placements
    names = [name for name in (item.request, item.response) if name is not None]
    return all(ours.messages[name] == theirs.messages[name] and here[name] == there[name] for name in names)


def _rules_alone(basis: Basis, role: str | None) -> Iterator[Case]:
    if role in (None, "host"):
        yield from RuleCases(basis).alone()
        yield from more_edge_cases(basis)


def _of_call(basis: Basis, role: str | None) -> Iterator[Case]:
    if role in (None, "host") and any(basis.call.outcomes.values()):
        yield from _right_cases(basis)
        rules = RuleCases(basis)
        yield from rules.cases()
        yield from edge_cases(basis, rules)
        yield from more_edge_cases(basis)
        yield from page_cases(basis)
        yield from reserved_cases(basis)
        yield from progress_cases(basis)
        yield from fault_cases(basis)
        yield from region_cases(basis)
    if basis.continues:
        return  # What a guest does with a handle belongs to the conversion for which it got it.
    if role in (None, "guest") and basis.call.guest is not None and basis.call.convert is not None:
        yield from guest_cases(basis)
        yield from more_guest_cases(basis)
        yield from conversation_cases(basis)


def _right_cases(basis: Basis) -> Iterator[Case]:
    """Yield requests that are right, by what the call is for."""
    if basis.call.convert is not None:
        return done_cases(basis)
    return asked_cases(basis) if basis.call.query is not None else plain_cases(basis)
