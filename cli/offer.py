"""What an implementation says about itself before the run: which ABIs it has, and which profile it declares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hvabi.abi.errors import UsageError
from hvabi.abi.registry import bundled
from hvabi.cli.choice import with_cases
from hvabi.conformance.run import declared_profile

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hvabi.conformance.answer import Hello
    from hvabi.conformance.connect import Connector

CHEAP = ("cmd:", "py:", "builtin")
"""Connectors of which a session can be opened and closed at no cost; others may serve one session only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is tested.

    Attributes:
        abis: ABIs as given, or those that the implementation has; empty for all.
        profile: the profile to judge by.
        left_out: ABIs that it does not have.
        unknown: ABIs that it has and hvabi does not know, or only as a draft.

    """

    abis: tuple[str, ...]
    profile: str
    left_out: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


def plan(abis: tuple[str, ...], profile: str | None, hello: Hello | None) -> Plan:
    """Return what to test of what is asked for.

    Raises `UsageError` where the implementation has nothing that hvabi has cases for, and where it declares several
    profiles and none was asked for: a run is judged by one.
    """
    if hello is None:
        return Plan(abis=abis, profile=profile or "spec")
    known = with_cases()
    offered = tuple(abi for abi in known if abi in hello.abis)
    unknown = tuple(sorted(set(hello.abis) - set(known)))
    if not abis and not offered:
        what = f"only {', '.join(unknown)}" if unknown else "no ABI"
        raise UsageError(
            f"{hello.peer} offers {what}; there are no cases for that",
            code="nothing-offered",
            hint=f"name one of these in hello.abis: {', '.join(known)}",
        )
    chosen = abis or offered
    left_out = tuple(abi for abi in known if abi not in offered) if not abis else ()
    return Plan(
        abis=chosen,
        profile=profile or _declared(chosen, hello),
        left_out=left_out,
        unknown=unknown,
    )


def _declared(abis: Iterable[str], hello: Hello) -> str:
    by_profile: dict[str, list[str]] = {}
    for text in abis:
        abi = text.partition("@")[0]
        offer = hello.abis.get(abi)
        if offer is None or offer.profile is None:
            continue
        if offer.profile != "spec" and offer.profile not in bundled(abi).profiles:
            raise UsageError.unknown(f"profile of {abi} declared in hello", offer.profile, bundled(abi).profiles)
        by_profile.setdefault(declared_profile(hello, abi), []).append(abi)
    names = sorted(set(by_profile) - {"spec"})
    if len(names) > 1:
        runs = "; ".join(f"{' '.join(by_profile[name])} --profile {name}" for name in names)
        raise UsageError(
            f"{hello.peer} declares {len(names)} profiles, and a run is judged by one",
            code="several-profiles",
            hint=f"run hvabi conform once with each of: {runs}",
        )
    return names[0] if names else "spec"


def ask(connector: Connector, timeout: float, features: Iterable[str]) -> tuple[Connector, Hello]:
    """Return the connector to run with and what the implementation says.

    `features` are those that the run may ask for. Raises what a session raises.
    """
    from hvabi.conformance.greet import Greeter
    from hvabi.conformance.run import probe

    if connector.name.startswith(CHEAP):
        return connector, probe(connector, timeout=timeout)
    greeter = Greeter(connector, timeout=timeout, features=features)
    return greeter, greeter.greet()


def recorded(path: str) -> Hello | None:
    """Return the hello of a transcript, None where it has none. Raises `UsageError` for a file that is none."""
    from hvabi.abi.errors import HvAbiError
    from hvabi.conformance import frame
    from hvabi.conformance.answer import Hello, read_offer, read_words
    from hvabi.conformance.transcript import read_transcript

    for record in read_transcript(path):
        if record.dir != "<":
            continue
        try:
            answer: Any = frame.parse_line(record.line)
            body = answer["ok"]
            return Hello(
                name=str(body["name"]),
                version=str(body["version"]),
                abis={name: read_offer(name, item) for name, item in body["abis"].items()},
                features=frozenset(read_words(body.get("features", []), "features")),
            )
        except (HvAbiError, KeyError, TypeError, AttributeError):
            return None
    return None


__all__ = ["CHEAP", "Plan", "ask", "plan", "recorded"]
