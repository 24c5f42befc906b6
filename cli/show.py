"""``hvabi show``: everything about one ABI, to read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hvabi.cli import console
from hvabi.cli.tables import dim, heading, table, titled, wrap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from hvabi.abi.calls import Call
    from hvabi.abi.model import Block, Field, Layout, Transport
    from hvabi.abi.platforms import Leaf, Platform
    from hvabi.abi.specification import Abi

EPILOG = """\b
Examples:
  hvabi show tdx-map-gpa
  hvabi show kvm-page-enc-status@v10 rules outcomes
  hvabi show ghcb-psc --json

Sections: transports, messages, words, enums, calls, rules, outcomes, progress, policies, config, examples, sources.
"""


@click.command(epilog=EPILOG)
@click.argument("abi", metavar="ABI[@REV]")
@click.argument("sections", metavar="[SECTION]...", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="For programs: as in hvabi list --json, with rules and answers.")
def command(abi: str, sections: tuple[str, ...], *, as_json: bool) -> int:
    """Show an ABI: how it is called, its fields, rules, answers, progress, policies, profiles and examples."""
    from hvabi.abi.errors import UsageError
    from hvabi.abi.platforms import platforms
    from hvabi.abi.registry import bundled
    from hvabi.cli.target import target

    if abi in platforms():
        return _platform(platforms()[abi], as_json=as_json)
    wanted = target(abi)
    for name in sections:
        if name not in SECTIONS:
            raise UsageError.unknown("section", name, SECTIONS)
    if as_json:
        from hvabi.cli import catalogue

        console.dump(catalogue.details(wanted.spec.abi if wanted.revision_given else bundled(wanted.spec.id)))
        return console.GOOD
    shown = wanted.spec.abi
    width = console.width()
    if not sections:
        for line in _head(shown, width):
            console.say(line)
    for number, name in enumerate(sections or SECTIONS):
        lines = list(SECTIONS[name](shown, width))
        if lines:
            if number or not sections:
                console.say()
            console.say(heading(name.upper()))
            for line in lines:
                console.say(line)
    return console.GOOD


def _platform(platform: Platform, *, as_json: bool) -> int:
    """Show a platform without a call of its own."""
    if as_json:
        from hvabi.cli import catalogue

        console.dump(catalogue.platform_entry(platform))
        return console.GOOD
    width = console.width()
    for line in titled(platform.id, f"{platform.title}: no call of its own", width):
        console.say(line)
    for line in wrap(platform.doc, width):
        console.say(line)
    rows = [("vendor", platform.vendor), ("guests use", ", ".join(platform.calls_of))]
    parts = [
        ("", rows),
        ("EVIDENCE", [(source, text) for source, text in platform.evidence]),
        ("CALLS THAT ARE NO CONVERSION", [(f"{leaf.name}, {_leaf(leaf)}", leaf.doc) for leaf in platform.leaves]),
        ("SOURCES", [(key, f"{title}, {revision}") for key, title, revision in platform.sources]),
    ]
    for title, lines in parts:
        if lines:
            console.say()
        if title and lines:
            console.say(heading(title))
        for line in table(lines, width, indent="  " if title else ""):
            console.say(line)
    return console.GOOD


def _leaf(leaf: Leaf) -> str:
    return ", ".join(f"{name} {value:#x}" for name, value in leaf.registers.items())


def _head(abi: Abi, width: int) -> Iterator[str]:
    yield from titled(f"{abi.id}@{abi.revision}", abi.title, width)
    yield from wrap(abi.doc, width)
    yield ""
    others = [name for name in abi.revisions if name != abi.revision]
    rows = [
        ("vendor", abi.vendor),
        ("asks", abi.roles.get("guest", "")),
        ("answers", abi.roles.get("host", "")),
        (f"revision {abi.revision}", abi.revisions[abi.revision].doc),
    ]
    if others:
        rows.append(("other revisions", ", ".join(f"{abi.id}@{name}" for name in others)))
    yield from table(rows, width)


def _transports(abi: Abi, width: int) -> Iterator[str]:
    for item in abi.transports.values():
        made = item.instruction or item.isa
        code = f" ({item.instruction_bytes})" if item.instruction_bytes else ""
        cpl = ", the caller's privilege is visible" if item.shows_cpl else ""
        yield from titled(item.name, f"{made}{code}, {item.isa} {item.mode}-bit{cpl}", width)
        yield from wrap(item.doc, width, indent="  ")
        yield from table(list(_places(abi, item)), width, indent="  ")
        limits = [(f"limit {name}", f"{limit.value:#x}: {limit.doc}") for name, limit in item.limits.items()]
        yield from table(limits, width, indent="  ")


def _places(abi: Abi, item: Transport) -> Iterator[tuple[str, str]]:
    from hvabi.abi.expr import to_text
    from hvabi.cli.catalogue import all_blocks, place_of

    for name, placement in item.placements.items():
        blocks = all_blocks(item, placement)
        lone = [f"{register} = {to_text(expr)}" for register, expr in placement.fixed.items()]
        inside: dict[str, list[str]] = {}
        for key, places in placement.place.items():
            if key not in abi.messages[name].fields:  # not in this revision
                continue
            field = abi.messages[name].fields[key]
            where = place_of(field, places[0], blocks)
            if "block" in where:
                inside.setdefault(str(where["block"]), []).append(f"{key} {_inside(where, field)}")
            else:
                lone.append(f"{key} in {_register(where)}")
        rows = ["; ".join(lone)] if lone else []
        for block in dict.fromkeys([*placement.blocks, *inside]):
            rows.append(_block(blocks[block], inside.get(block, [])))
        if placement.may_change:
            rows.append(f"may change: {', '.join(placement.may_change)}")
        for number, text in enumerate(rows or ["nothing"]):
            yield name if number == 0 else "", text


def _block(block: Block, fields: list[str]) -> str:
    from hvabi.abi.expr import to_text

    at = f"in {', '.join(block.registers)}" if block.at is None else f"at {to_text(block.at)}"
    space = f" of {block.space}" if block.space else ""
    size = f"{to_text(block.size)} bytes, {block.endian} endian"
    return f"block {block.name} {at}{space}, {size}: {', '.join(fields) or 'nothing'}"


def _register(place: dict[str, object]) -> str:
    pair, bits = place.get("pair"), place.get("bits")
    if isinstance(pair, dict):
        return f"{pair['high']}:{pair['low']}"
    hi, lo = bits if isinstance(bits, list) else (63, 0)
    return f"{place['register']}" + ("" if lo == 0 and hi in (63, 127) else f" {hi}:{lo}")


def _inside(place: dict[str, object], field: Field) -> str:
    offset = str(place["offset"])
    at = f"+{int(offset):#x}" if offset.isdigit() else f"+{offset}"
    if field.is_list:
        return f"{at} every {place['stride']}"
    bits, size = place.get("bits"), place.get("size")
    hi, lo = bits if isinstance(bits, list) else (63, 0)
    return at if isinstance(size, int) and hi - lo + 1 == size * 8 else f"{at} {hi}:{lo}"


def _messages(abi: Abi, width: int) -> Iterator[str]:
    from hvabi.abi import words

    for item in abi.messages.values():
        yield from wrap(f"{item.name}: {item.doc}", width)
        rows = [(field.name, words.made_of(field), words.text_of(field)) for field in item.fields.values()]
        yield from table(rows, width, indent="  ", widest=28)


def _words(abi: Abi, width: int) -> Iterator[str]:
    for layout in _used_layouts(abi):
        yield from wrap(f"{layout.name}: {layout.size} bytes, {layout.endian} endian. {layout.doc}", width)
        yield from table(list(_layout_rows(layout)), width, indent="  ", widest=28)


def _used_layouts(abi: Abi) -> list[Layout]:
    found: dict[str, Layout] = {}

    def add(layout: Layout | None) -> None:
        if layout is not None and layout.name not in found:
            found[layout.name] = layout
            for field in layout.fields.values():
                add(field.word)

    for message in abi.messages.values():
        for field in message.fields.values():
            add(field.word)
            add(field.items)
    return list(found.values())


def _layout_rows(layout: Layout) -> Iterator[tuple[str, ...]]:
    from hvabi.abi import words

    word = all(field.at == 0 and field.size == layout.size for field in layout.fields.values())
    for field in sorted(layout.fields.values(), key=lambda item: (item.at, -item.hi)):
        bits = f"{field.hi}:{field.lo}" if field.bits > 1 else str(field.lo)
        whole = field.lo == 0 and field.bits == field.size * 8
        where = bits if word else f"+{field.at:#x}" + ("" if whole else f" {bits}")
        yield where, field.name, words.made_of(field), words.text_of(field)


def _enums(abi: Abi, width: int) -> Iterator[str]:
    used: set[str] = set()
    fields: list[Field] = [field for message in abi.messages.values() for field in message.fields.values()]
    fields += [field for layout in _used_layouts(abi) for field in layout.fields.values()]
    used = {field.enum.name for field in fields if field.enum is not None}
    for enum in abi.enums.values():
        if enum.name not in used:
            continue
        yield from wrap(f"{enum.name}: {enum.doc}", width)
        rows = []
        for value in enum.values.values():
            if value.guard.revisions is not None and abi.revision not in value.guard.revisions:
                continue
            number = str(value.value) if -10000 < value.value < 10 else f"{value.value:#x}"
            rows.append((number, value.name, f"{value.doc} {f'({value.note})' if value.note else ''}".strip()))
        yield from table(rows, width, indent="  ")


def _calls(abi: Abi, width: int) -> Iterator[str]:
    from hvabi.abi import words
    from hvabi.abi.expr import to_text

    for call in abi.calls.values():
        answered = f", answered by {call.response}" if call.response else ""
        yield from titled(call.name, f"{call.request}{answered}", width)
        yield from wrap(call.doc, width, indent="  ")
        rows = [(f"{item.name} is", f"{to_text(item.expr)} ({item.doc.rstrip('.')})") for item in call.define.values()]
        if call.convert is not None:
            rows += list(words.convert(call.convert))
        if call.query is not None:
            rows += [("asks about", f"{to_text(call.query.pages)} pages at {to_text(call.query.start)}")]
        rows += [("no memory", f"{item.value} {words.guard(item.guard)}".strip()) for item in call.absent]
        yield from table(rows, width, indent="  ")


def _rules(abi: Abi, width: int) -> Iterator[str]:
    from hvabi.abi import words

    order = {
        "stated": "in the order in which they are judged",
        "per-profile": "judged in an order that is the implementation's own",
        "undefined": "in no order: of two faults either may be answered",
    }
    for call in abi.calls.values():
        if not call.rules:
            continue
        yield from wrap(f"{call.name}: {order[call.order]}", width)
        for rule in call.rules:
            held = words.guard(rule.guard)
            about = f"{rule.binds}, {rule.level}, {rule.source}" + (f"; {held}" if held else "")
            yield from titled(rule.id, about, width, indent="  ")
            yield from wrap(rule.text, width, indent="    ")
            yield from map(dim, wrap(words.check(rule), width, indent="    ", hang="      "))
            if rule.answer is not None:
                yield from wrap(f"else: {words.answer(rule.answer)}", width, indent="    ", hang="      ")


def _outcomes(abi: Abi, width: int) -> Iterator[str]:
    from hvabi.abi import words

    for call in abi.calls.values():
        if not call.outcomes:
            continue
        yield f"{call.name}"
        rows = [
            (name if number == 0 else "", words.answer(item) + (f" {item.doc}" if item.doc else ""))
            for name, choices in call.outcomes.items()
            for number, item in enumerate(choices)
        ]
        yield from table(rows, width, indent="  ")


def _progress(abi: Abi, width: int) -> Iterator[str]:
    from hvabi.abi import words

    for call in abi.calls.values():
        if call.progress is not None:
            yield f"{call.name}"
            for name, text in words.progress(call.progress):
                yield from (
                    wrap(text, width, indent="  ") if not name else table([(f"{name:<12}", text)], width, indent="  ")
                )
        elif _asks(call):
            yield f"{call.name}: one call does all or nothing"


def _asks(call: Call) -> bool:
    return call.convert is not None


def _policies(abi: Abi, width: int) -> Iterator[str]:
    for policy in abi.policies.values():
        which = "any is right" if policy.open else f"{policy.default} is right"
        yield from wrap(f"{policy.name}: {policy.doc} Under profile spec {which}.", width)
        yield from table(list(policy.values.items()), width, indent="  ")
    for profile in abi.profiles.values():
        chosen = ", ".join(f"{name} is {value}" for name, value in profile.policies.items())
        yield from table([(f"profile {profile.name}", f"{profile.doc}{f' ({chosen})' if chosen else ''}")], width)


def _config(abi: Abi, width: int) -> Iterator[str]:
    rows = []
    for key in abi.config.values():
        allowed = ", ".join(map(str, key.choices)) if key.choices else f"{key.minimum:#x} to {key.maximum:#x}"
        rows.append((key.name, f"{key.doc} Default {key.default:#x}, allowed {allowed}." if not key.choices else
                     f"{key.doc} Default {key.default}, allowed {allowed}."))  # fmt: skip
    rows += [(f"fact {name}", doc) for name, doc in abi.facts.items()]
    yield from table(rows, width)


def _examples(abi: Abi, width: int) -> Iterator[str]:
    yield from table(_numbered((item.name, item.provenance) for item in abi.examples), width, widest=60)


def _numbered(rows: Iterable[tuple[str, str]]) -> Sequence[Sequence[str]]:
    return [(str(number), f"{name}. From {origin}.") for number, (name, origin) in enumerate(rows, 1)]


def _sources(abi: Abi, width: int) -> Iterator[str]:
    rows = [
        (item.name, f"{item.title}, {item.revision}. {item.note or ''} {item.url or ''}".strip())
        for item in abi.sources.values()
    ]
    yield from table(rows, width)


SECTIONS: dict[str, Callable[[Abi, int], Iterator[str]]] = {
    "transports": _transports,
    "messages": _messages,
    "words": _words,
    "enums": _enums,
    "calls": _calls,
    "rules": _rules,
    "outcomes": _outcomes,
    "progress": _progress,
    "policies": _policies,
    "config": _config,
    "examples": _examples,
    "sources": _sources,
}
"""Every part of the page, in order."""
