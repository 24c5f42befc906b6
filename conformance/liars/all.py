"""Every liar, in a fixed order."""

from __future__ import annotations

import itertools
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cache, partial
from importlib import resources
from typing import TYPE_CHECKING

import yaml

from hvabi.abi.errors import HvAbiError
from hvabi.abi.registry import abi_ids, bundled, load
from hvabi.abi.specification import SPEC_PROFILE
from hvabi.conformance.generate.all import known_elsewhere
from hvabi.conformance.liars import model
from hvabi.conformance.liars.historic import historic
from hvabi.conformance.liars.liar import Liar
from hvabi.conformance.liars.of_guests import GuestLies
from hvabi.conformance.liars.of_hosts import HostLies

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hvabi.abi.calls import Call
    from hvabi.abi.specification import Abi
    from hvabi.conformance.case import Role
    from hvabi.conformance.liars.made import Made


def liars(abi: str | None = None, role: str | None = None) -> tuple[Liar, ...]:
    """Return all liars of one ABI, or of all that are no drafts, of one role or of both.

    Raises `UsageError` for an unknown ABI, `HvAbiError` ``stale-equivalent`` where a reason for an equivalence is about
    no liar.
    """
    found: list[Liar] = []
    for name in abi_ids() if abi is None else (abi,):
        if abi is None and bundled(name).draft:
            continue
        found += _of(name)
    return tuple(liar for liar in found if role in (None, liar.role))


@cache
def _of(abi: str) -> tuple[Liar, ...]:
    every = [*_generated(abi), *historic(abi)]
    seen: set[str] = set()
    for liar in every:
        if liar.id in seen:
            raise HvAbiError(f"two liars have the id {liar.id}", code="twice")
        seen.add(liar.id)
    return tuple(_with_reasons(abi, every))


def _generated(abi: str) -> Iterator[Liar]:
    for revision in bundled(abi).revisions:
        resolved = load(abi, revision=revision).abi
        for transport, call in itertools.product(resolved.transports.values(), resolved.served_calls):
            if call.request not in transport.placements:
                continue
            # What has its cases in another revision has its liars there.
            if any(call.outcomes.values()) and not known_elsewhere(
                abi, revision, transport.name, SPEC_PROFILE, call.name
            ):
                for made in _host_lies(resolved, transport.name, call):
                    yield _liar(abi, revision, transport.name, "host", _as_policy(resolved, transport.name, made))
            if call.convert is not None and call.guest is not None and call.response is not None:
                for made in _guest_lies(resolved, transport.name, call):
                    yield _liar(abi, revision, transport.name, "guest", made)


def _host_lies(resolved: Abi, transport: str, call: Call) -> Iterator[Made]:
    """Yield the host liars of one call. Those of a call beside the one that converts carry its name."""
    if call is resolved.convert_call:
        yield from HostLies(resolved, transport).all()
        return
    for made in HostLies(model.narrowed(resolved, call.name), transport).all():
        # An engine is wrong in every call that converts: one liar of it is enough.
        if call.convert is None or made.planted.spec is not None:
            yield _in_call(made, call)


def _guest_lies(resolved: Abi, transport: str, call: Call) -> Iterator[Made]:
    """Yield the guest liars of one call; of a call that follows the one that converts, what it does not look at."""
    if call is resolved.convert_call:
        yield from GuestLies(resolved, transport).all()
        return
    for made in GuestLies(model.narrowed(resolved, call.name), transport).rules_skipped():
        yield _in_call(made, call)


def _in_call(made: Made, call: Call) -> Made:
    """Return a liar about a call beside the one that converts: its id has the name of the call."""
    planted = made.planted
    if planted.spec is not None:
        planted = replace(planted, spec=partial(model.in_call, call=call.name, change=planted.spec))
    return replace(made, kind=f"{call.name}-{made.kind}", planted=planted)


def _as_policy(resolved: Abi, transport: str, made: Made) -> Made:
    """Return the liar with a reason where it is what another value of an open policy asks for on its transport."""
    if made.equivalent is not None or made.planted.spec is None or made.planted.host is not None:
        return made
    wrong = _on(made.planted.spec(resolved), transport)
    for policy in resolved.policies.values():
        for value in policy.values:
            if not policy.open or value == policy.default:
                continue
            other = load(resolved.id, revision=resolved.revision, policies={policy.name: value}).abi
            if _on(other, transport) == wrong:
                return replace(made, equivalent=f"it is what {value} of the open policy {policy.name} asks for")
    return made


def _on(abi: Abi, transport: str) -> tuple[object, ...]:
    """Return what of an ABI holds on a transport."""
    calls = {
        name: replace(call, rules=tuple(rule for rule in call.rules if rule.guard.serves(transport)))
        for name, call in abi.calls.items()
    }
    return calls, abi.messages, abi.transports[transport]


def _liar(abi: str, revision: str, transport: str, role: Role, made: Made) -> Liar:
    return Liar(
        id=f"{abi}@{revision}.{role}.{transport}.{made.kind}.{made.name}",
        abi=abi,
        revision=revision,
        transport=transport,
        role=role,
        family="generated",
        what=made.what,
        planted=made.planted,
        equivalent=made.equivalent,
        hints=made.hints,
    )


@cache
def _reasons() -> tuple[tuple[str, str, str], ...]:
    """Return ``(glob of ids, reason, kind)`` of the liars with an excuse: ``equivalent`` or ``exempt``."""
    text = resources.files("hvabi.conformance.liars").joinpath("equivalent.yaml").read_text("utf-8")
    return tuple(
        (row["id"], " ".join(row["why"].split()), kind) for kind, rows in yaml.safe_load(text).items() for row in rows
    )


def _with_reasons(abi: str, every: list[Liar]) -> Iterator[Liar]:
    used: set[str] = set()
    reasons = [row for row in _reasons() if row[0].startswith(f"{abi}@")]
    for liar in every:
        hit = next((row for row in reasons if fnmatchcase(liar.id, row[0])), None)
        if hit is None:
            yield liar
            continue
        used.add(hit[0])
        yield replace(liar, equivalent=hit[1]) if hit[2] == "equivalent" else replace(liar, exempt=hit[1])
    stale = [pattern for pattern, _, _ in reasons if pattern not in used]
    if stale:
        raise HvAbiError(
            f"the reason for {stale[0]} is about no liar",
            code="stale-equivalent",
            hint="take it out of equivalent.yaml",
        )


__all__ = ["liars"]
