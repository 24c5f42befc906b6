"""``hvabi explain``: what a name or a number means."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from hvabi.cli import console
from hvabi.cli.tables import dim, heading, table, wrap

if TYPE_CHECKING:
    from collections.abc import Callable

    from hvabi.abi.glossary import Entry
    from hvabi.conformance.case import Case

EPILOG = """\b
Examples:
  hvabi explain TDX-MAPGPA-05
  hvabi explain INVALID_OPERAND TDVMCALL_STATUS_RETRY
  hvabi explain 0x8000000000000002
  hvabi explain ghcb-psc/cur_entry
  hvabi explain yaml-duplicate-key
  hvabi explain 'tdx-map-gpa@*.TDX-MAPGPA-05.*'
  hvabi explain bug-k10-eagain-is-retry

A case id, or a glob of them in quotes, shows the cases: why each exists, what is sent and what is right.
"""

_FULL = 4
"""Meanings of one name that are shown in full; more are one line each."""

_STORIES = ("bug-", "hazard-")
_LISTED = 40
"""Meanings of one name that are listed at most."""


@click.command(epilog=EPILOG, context_settings={"ignore_unknown_options": True})  # -22 is a name here
@click.argument("names", metavar="[ABI/]NAME...", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def command(names: tuple[str, ...], *, as_json: bool) -> int:
    """Say what a rule, status, constant, field, policy, diagnostic, number, case or bug story means."""
    found = {name: _meanings(name) for name in names}
    if as_json:
        console.dump([{"asked": name, "found": plain} for name, (plain, _) in found.items()])
        return console.GOOD
    for number, (_, show) in enumerate(found.values()):
        if number:
            console.say()
        show()
    return console.GOOD


def _meanings(name: str) -> tuple[list[dict[str, Any]], Callable[[], None]]:
    """Return what a name means as plain data, and a function that shows it."""
    if "@" in name or "*" in name:
        from hvabi.cli.case_page import plain_case, show_cases

        cases = _find_cases(name)
        return [plain_case(case) for case in cases], partial(show_cases, cases, name, console.width(), _LISTED)
    if name.lower().startswith(_STORIES):
        from hvabi.cli.case_page import plain_story, show_story
        from hvabi.conformance.stories import find_story

        story = find_story(name.lower())
        return [plain_story(story)], partial(show_story, story, console.width())
    items = _look_up(name)
    return [_plain(item) for item in items], partial(_show, name, items)


def _find_cases(asked: str) -> list[Case]:
    """Return the cases that an id or glob fits; those of profiles only where there are no others.

    Raises `UsageError` ``unknown-case`` with the nearest ids.
    """
    from hvabi.abi.errors import UsageError
    from hvabi.abi.registry import bundled
    from hvabi.cli.choice import abis_of, unknown_case, with_cases
    from hvabi.conformance.catalogue import every_case
    from hvabi.conformance.selection import matches

    abi = asked.partition("@")[0]
    names = list(abis_of([asked])) or with_cases()
    if "@" in asked:
        names = [name for name in names if matches(name, abi)]
        if not names:  # the cases of all ABIs would take a minute to make, for nothing
            raise UsageError.unknown("abi", abi, with_cases())
    with console.Progress("cases") as progress:
        every: dict[str, Case] = {}
        profiles = sorted({profile for name in names for profile in bundled(name).profiles})
        for profile in ("spec", *profiles):
            progress(profile)
            for case in every_case(names, profile=profile):
                every.setdefault(case.id, case)
            found = [case for ident, case in every.items() if matches(ident, asked)]
            if found:
                return found
    raise unknown_case(asked, list(every))


def _look_up(asked: str) -> list[Entry]:
    """Return every meaning. Raises `UsageError` ``unknown-name`` with the nearest names."""
    from hvabi.abi.errors import UsageError, show
    from hvabi.abi.glossary import codes, entries
    from hvabi.abi.registry import abi_ids, bundled

    abi, slash, rest = asked.partition("/")
    if slash and abi not in abi_ids():
        raise UsageError.unknown("abi", abi, abi_ids())
    name = rest if slash else asked
    known = [item for key in ([abi] if slash else abi_ids()) for item in entries(bundled(key))]
    number = _number(name)
    if number is not None:
        wanted = {number, number - (1 << 64)}
        found = [item for item in known if item.number in wanted]
        if not found:
            raise UsageError(
                f"no status or constant has the value {name[:80]}",
                code="unknown-name",
                hint="hvabi decode reads whole messages",
            )
        return found
    low = name.lower()
    found = [item for item in known if low in (item.name.lower(), *map(str.lower, item.also))]
    if not slash:
        found += [item for item in codes() if item.name == low]
    if found:
        return found
    names = {key for item in known for key in (item.name, *item.also)} | {item.name for item in codes()}
    near = _folded(name, names)
    if not near:
        hint = "hvabi list shows the ABIs, hvabi show ABI their names"
        raise UsageError(f"unknown name {show(name)}", code="unknown-name", hint=hint)
    raise UsageError.unknown("name", name, near)


def _folded(name: str, names: set[str]) -> list[str]:
    """Return the names, those that begin alike first where there are any: a hint shall not list hundreds."""
    begins = [key for key in names if key.lower().startswith(name.lower()[:80])] if len(name) > 2 else []
    if begins:
        return begins
    import difflib

    by_low = {key.lower(): key for key in sorted(names)}
    near = difflib.get_close_matches(name.lower()[:80], list(by_low), n=5, cutoff=0.6)
    return [by_low[key] for key in near]


def _number(text: str) -> int | None:
    try:
        return int(text, 0) if len(text) < 100 else None
    except ValueError:
        return None


def _plain(item: Entry) -> dict[str, object]:
    return {
        "name": item.name,
        "kind": item.kind,
        "abi": item.abi or None,
        "text": item.text,
        "also": list(item.also),
        "number": None if item.number is None else f"{item.number:#x}",
        "details": dict(item.rows),
    }


def _show(name: str, items: list[Entry]) -> None:
    width = console.width()
    merged: dict[tuple[str, str, str], list[Entry]] = {}
    for item in items:
        merged.setdefault((item.name, item.kind, item.text), []).append(item)
    if len(merged) <= _FULL:
        for number, group in enumerate(merged.values()):
            if number:
                console.say()
            one = group[0]
            abis = ", ".join(dict.fromkeys(item.abi for item in group if item.abi))
            console.say(heading(one.name) + dim(f"  {one.kind}" + (f", {abis}" if abis else "")))
            for line in wrap(one.text, width):
                console.say(line)
            for line in table(list(one.rows), width, indent="  "):
                console.say(line)
        return
    console.say(heading(f"{name}: {len(merged)} meanings"))
    rows = [
        (", ".join(dict.fromkeys(item.abi for item in group)), f"{group[0].name}, {group[0].kind}: {group[0].text}")
        for group in merged.values()
    ]
    for line in table(rows[:_LISTED], width, indent="  ", widest=28):
        console.say(line)
    if len(rows) > _LISTED:
        console.say(dim(f"  and {len(rows) - _LISTED} more; ABI/{name} asks one ABI, --json lists all"))
