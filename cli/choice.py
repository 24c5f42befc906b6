"""Which cases `hvabi conform` and its neighbours take: names checked, ABIs narrowed, and why nothing was selected."""

from __future__ import annotations

import difflib
from dataclasses import replace
from typing import TYPE_CHECKING

from hvabi.abi.errors import UsageError
from hvabi.abi.registry import abi_ids, bundled, load
from hvabi.conformance.selection import Selection

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hvabi.conformance.case import Case

_OPTIONS = {
    "abis": "",
    "roles": "--role ",
    "transports": "--transport ",
    "rules": "--rule ",
    "levels": "--level ",
    "ids": "--id ",
}
"""The option behind each part of a selection."""
_GLOB = frozenset("*?[")


def with_cases() -> list[str]:
    """Return the ABIs that have cases: all that are no drafts."""
    return [abi for abi in abi_ids() if not bundled(abi).draft]


def check_abis(texts: Iterable[str]) -> tuple[str, ...]:
    """Return ABIs as given, each once. Raises `UsageError` for an unknown ABI or revision, and for a draft."""
    for text in texts:
        name, at, revision = text.partition("@")
        if name not in abi_ids():
            raise UsageError.unknown("abi", name, abi_ids())
        if bundled(name).draft:
            hint = f"ABIs with cases: {', '.join(with_cases())}"
            raise UsageError(f"{name} is a draft: it has no cases yet", code="draft", hint=hint)
        if at:
            load(name, revision=revision)
    return tuple(dict.fromkeys(texts))


def check_names(selection: Selection) -> None:
    """Raise `UsageError` with the nearest names for a transport or rule that the chosen ABIs do not have."""
    chosen = [text.partition("@")[0] for text in selection.abis] or with_cases()
    transports = {name for abi in chosen for name in bundled(abi).transports}
    for name in selection.transports:
        if name not in transports:
            raise UsageError.unknown("transport", name, transports)
    for name in selection.rules:
        owner = rule_owner(name)
        if owner in chosen:
            continue
        if owner is not None:
            raise UsageError(f"{name} is a rule of {owner}", code="unknown-rule", hint=f"leave {', '.join(chosen)} out")
        raise UsageError.unknown("rule", name, [rule for abi in chosen for rule in rules_of(abi)])


def rules_of(abi: str) -> list[str]:
    """Return the ids of an ABI's rules."""
    return [rule.id for call in bundled(abi).calls.values() for rule in call.rules]


def rule_owner(rule: str) -> str | None:
    """Return the ABI that has a rule; one with cases before a draft."""
    return next((abi for abi in [*with_cases(), *abi_ids()] if rule in rules_of(abi)), None)


def narrowed(selection: Selection) -> tuple[str, ...]:
    """Return the ABIs whose cases are to be generated: making those of all takes seconds."""
    if selection.abis:
        return selection.abis
    if selection.rules:
        return tuple(dict.fromkeys(owner for rule in selection.rules if (owner := rule_owner(rule)) in with_cases()))
    return abis_of(selection.ids) if selection.ids else ()


def abis_of(patterns: Iterable[str]) -> tuple[str, ...]:
    """Return the ABIs that globs of case ids name; empty, which means all, where one is open."""
    names = []
    for pattern in patterns:
        name = pattern.partition("@")[0]
        if "@" not in pattern or _GLOB & set(name) or name not in with_cases():
            return ()
        names.append(name)
    return tuple(dict.fromkeys(names))


def nothing(cases: Sequence[Case], selection: Selection, profile: str) -> UsageError:
    """Return the error for a selection that takes no case: it says which part of it is in the way."""
    usable = [case for case in cases if case.profile in (None, profile)]
    for name in selection.ids:
        if not _GLOB & set(name) and name not in {case.id for case in usable}:
            return unknown_case(name, [case.id for case in usable])
    given = [name for name in _OPTIONS if getattr(selection, name)]
    asked = " ".join(f"{_OPTIONS[name]}{value}" for name in given for value in getattr(selection, name))
    hints = []
    for name in given:
        left = sum(map(replace(selection, **{name: ()}).takes, usable)) if len(given) > 1 else 0
        if left:
            words = " ".join(f"{_OPTIONS[name]}{value}" for value in getattr(selection, name))
            hints.append(f"without {words}: {left} case{'' if left == 1 else 's'}")
    for name in given if not hints and len(given) > 1 else ():
        left = sum(map(Selection(**{name: getattr(selection, name)}).takes, usable))
        words = " ".join(f"{_OPTIONS[name]}{value}" for value in getattr(selection, name))
        hints.append(f"{words} alone: {left} case{'' if left == 1 else 's'}")
    return UsageError(
        f"no case is selected: none of {len(usable)} under profile {profile} fits {asked or 'this'}",
        code="nothing-selected",
        hint="; ".join(hints) or "hvabi coverage lists the rules with their cases, hvabi explain GLOB the cases",
    )


def unknown_case(name: str, ids: Sequence[str]) -> UsageError:
    """Return the error for a case id that does not exist, with the nearest ones."""
    begins = [ident for ident in ids if ident.startswith(name)] if len(name) > 8 else []
    near = begins[:3] or difflib.get_close_matches(name[:200], ids, n=3, cutoff=0.7)
    if near:
        hint = f"did you mean {' or '.join(near)}?"
    else:
        hint = "an id is ABI@REVISION.ROLE.TRANSPORT.RULE.NAME; globs may be used: hvabi explain 'tdx-map-gpa@*'"
    return UsageError(f"unknown case {name[:200]!r}", code="unknown-case", hint=hint)


__all__ = [
    "abis_of",
    "check_abis",
    "check_names",
    "narrowed",
    "nothing",
    "rule_owner",
    "rules_of",
    "unknown_case",
    "with_cases",
]
