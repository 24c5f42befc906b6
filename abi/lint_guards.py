"""Checks of what guards and headings name: revisions, transports, policies, profiles, sources, config."""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING

from hvabi.abi.lint_context import is_shared
from hvabi.abi.model import Guard
from hvabi.abi.schema import near
from hvabi.abi.specification import SPEC_PROFILE, Abi

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hvabi.abi.lint_context import Context
    from hvabi.abi.model import Field, Pointer

IDS: Mapping[str, str] = {
    "revision-default": "Not exactly one revision is the default.",
    "unknown-revision": "A revision that is named does not exist.",
    "unknown-transport": "A transport that is named does not exist.",
    "unknown-policy": "A policy that is named does not exist.",
    "unknown-policy-value": "A policy does not have the value that is named.",
    "policy-unused": "Nothing in the file depends on a policy.",
    "policy-value-unused": "Two values of a policy do not differ in anything.",
    "profile-name": "A profile has the name `spec`, which every ABI has.",
    "unknown-config": "A config key that is named does not exist.",
    "config-range": "A config value is not one that the key allows.",
    "unknown-source": "A source that is cited does not exist.",
    "source-unused": "A source is cited nowhere.",
    "shared-unused": "Nothing of a shared file in `uses:` is used.",
}
"""Every id of this module, with one sentence each."""


def guards(item: object, pointer: Pointer = ()) -> Iterator[tuple[Guard, Pointer]]:
    """Yield every guard of a model with the place of the item that it limits."""
    here: Pointer = getattr(item, "pointer", pointer)
    if isinstance(item, Guard):
        if item.revisions is not None or item.transports is not None or item.policy:
            yield item, here
    elif is_dataclass(item) and not isinstance(item, type):
        for each in fields(item):
            yield from guards(getattr(item, each.name), here)
    elif isinstance(item, dict):
        for value in item.values():
            yield from guards(value, here)
    elif isinstance(item, tuple):
        for value in item:
            yield from guards(value, here)


def check_guards(context: Context) -> None:
    """Check that revisions, transports and policies that items are limited to exist, and that all are used."""
    abi, report = context.abi, context.report
    defaults = [name for name, revision in abi.revisions.items() if revision.default]
    if len(defaults) != 1:
        found = "none is" if not defaults else f"{' and '.join(defaults)} are"
        report.error(("revisions",), "revision-default", f"{found} the default", "write `default: true` on exactly one")
    used: dict[str, set[str]] = {name: set() for name in abi.policies}
    seen: set[tuple[Pointer, str]] = set()
    for guard, pointer in guards(abi):
        for name in guard.revisions or ():
            if name not in abi.revisions and (pointer, name) not in seen:
                seen.add((pointer, name))
                report.error(
                    (*pointer, "revisions"),
                    "unknown-revision",
                    f"there is no revision `{name}`",
                    near(name, abi.revisions),
                )
        for name in guard.transports or ():
            if name not in abi.transports:
                report.error(
                    (*pointer, "transports"),
                    "unknown-transport",
                    f"there is no transport `{name}`",
                    near(name, abi.transports),
                )
        _check_policies(context, guard.policy, (*pointer, "policy"))
        for name, value in guard.policy.items():
            used.setdefault(name, set()).add(value)
    for policy in abi.policies.values():
        where = ("policies", policy.name)
        if policy.default not in policy.values:
            report.error(
                (*where, "default"),
                "unknown-policy-value",
                f"policy `{policy.name}` has no value `{policy.default}`",
                near(policy.default, policy.values),
            )
        idle = [value for value in policy.values if value not in used[policy.name]]
        if not used[policy.name]:
            report.warning(
                ("policies",),
                "policy-unused",
                f"nothing depends on policy `{policy.name}`",
                "limit rules, outcomes or errno entries by `policy:`, or say in its doc why it only documents",
                key=policy.name,
            )
        elif len(idle) > 1:
            report.warning(
                (*where, "values"),
                "policy-value-unused",
                f"values {' and '.join(idle)} of policy `{policy.name}` do not differ",
                key=idle[1],
            )


def _check_policies(context: Context, chosen: Mapping[str, str], where: Pointer) -> None:
    for name, value in chosen.items():
        policy = context.abi.policies.get(name)
        if policy is None:
            context.report.error(
                where,
                "unknown-policy",
                f"there is no policy `{name}`",
                near(name, context.abi.policies),
                key=name,
            )
        elif value not in policy.values:
            context.report.error(
                (*where, name),
                "unknown-policy-value",
                f"policy `{name}` has no value `{value}`",
                near(value, policy.values),
            )


def check_config(context: Context, values: Mapping[str, object], where: Pointer) -> None:
    """Check config keys and values that a profile or an example sets."""
    for name, value in values.items():
        key = context.abi.config.get(name)
        if key is None:
            context.report.error(
                where,
                "unknown-config",
                f"there is no config key `{name}`",
                near(name, context.abi.config),
                key=name,
            )
        elif not isinstance(value, int) or not key.accepts(value):
            allowed = ", ".join(map(str, key.choices)) if key.choices else f"{key.minimum} to {key.maximum}"
            context.report.error((*where, name), "config-range", f"config {name} cannot be {value}", f"it is {allowed}")


def check_profiles(context: Context) -> None:
    """Check config defaults, and the policies and config values that profiles set."""
    abi, report = context.abi, context.report
    for key in abi.config.values():
        if key.minimum is not None and key.maximum is not None and key.minimum > key.maximum:
            report.error(
                (*key.pointer, "min"),
                "config-range",
                f"no value is at least {key.minimum} and at most {key.maximum}",
            )
        elif not key.accepts(key.default):
            report.error(
                (*key.pointer, "default"),
                "config-range",
                f"default {key.default} of config {key.name} is not allowed",
            )
    for profile in abi.profiles.values():
        if profile.name == SPEC_PROFILE:
            report.error(("profiles",), "profile-name", "the profile `spec` is implicit", "rename it", key=SPEC_PROFILE)
        _check_policies(context, profile.policies, (*profile.pointer, "policies"))
        check_config(context, profile.config, (*profile.pointer, "config"))


def check_sources(context: Context) -> None:
    """Check that every source cited exists, and that every source of the file is cited."""
    abi, report = context.abi, context.report
    cited: set[str] = set()
    places = [(profile.source, profile.pointer) for profile in abi.profiles.values()]
    places += [(rule.source, rule.pointer) for call in abi.calls.values() for rule in call.rules]
    places += [
        (item.source, item.pointer)
        for call in abi.calls.values()
        for item in (call.convert.contents.values() if call.convert else ())
    ]
    for name, pointer in places:
        cited.add(name)
        if name not in abi.sources:
            report.error(
                (*pointer, "source"),
                "unknown-source",
                f"there is no source `{name}`",
                near(name, abi.sources),
            )
    texts = " ".join(example.provenance for example in abi.examples)
    cited |= set(re.findall(r"[a-z0-9]+(?:[.-][a-z0-9]+)*", texts))
    for name, source in abi.sources.items():
        if name not in cited:
            report.warning(
                source.pointer[:-1],
                "source-unused",
                f"source `{name}` is cited nowhere",
                "cite it in a rule, a profile or a provenance, or remove it",
                key=name,
            )


def check_uses(context: Context, shared: Mapping[str, Mapping[str, object]]) -> None:
    """Warn about shared files of which nothing is used. To be called when all expressions have been seen."""
    abi: Abi = context.abi
    layouts = set(_layouts(abi))
    enums = {item.enum.name for item in _own_fields(abi) if item.enum}
    tables = [item for key in ("messages", "layouts") for item in _table(context.data, key).values()]
    fields = [item for table in tables for item in _table(table, "fields").values()]
    enums |= {str(name) for item in fields if isinstance(item, dict) for name in item.get("others", ())}
    errnos = {str(row["is"]) for call in context.data["calls"].values() for row in call.get("vmm", {}).get("errno", ())}
    for number, name in enumerate(context.data.get("uses", ())):
        part = shared.get(name)
        if part is None:
            continue
        values = {v for item in _table(part, "enums").values() for v in _table(item, "values")}
        constants = set(_table(part, "constants"))
        if not (
            (constants | values) & (context.used | errnos)
            or set(_table(part, "enums")) & enums
            or set(_table(part, "layouts")) & layouts
            or set(_table(part, "sources")) & {rule.source for c in abi.calls.values() for rule in c.rules}
        ):
            context.report.warning(("uses", number), "shared-unused", f"nothing of `{name}` is used", "remove it")


def _table(part: object, key: str) -> Mapping[str, object]:
    found = part.get(key, {}) if isinstance(part, dict) else {}
    return found if isinstance(found, dict) else {}


def _own_fields(abi: Abi) -> Iterator[Field]:
    for message in abi.messages.values():
        yield from message.fields.values()
    for layout in abi.layouts.values():
        if not is_shared(layout.pointer):
            yield from layout.fields.values()


def _layouts(abi: Abi) -> Iterator[str]:
    for item in _own_fields(abi):
        yield from (each.name for each in (item.word, item.items) if each)
    for transport in abi.transports.values():
        for placement in transport.placements.values():
            yield from (block.layout.name for block in placement.blocks.values() if block.layout)
    for example in abi.examples:
        yield str(example.data.get("layout", ""))
