"""Every name of the ABIs as plain data: what `hvabi list --json` prints and implementers read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hvabi.abi.expr import to_text
from hvabi.abi.model import BlockPlace, PairPlace, RegisterPlace
from hvabi.abi.wire import register_bits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hvabi.abi.calls import Call
    from hvabi.abi.expr import Expr
    from hvabi.abi.model import Block, Enum, Field, Guard, Layout, Place, Placement, Transport
    from hvabi.abi.platforms import Platform
    from hvabi.abi.specification import Abi, ConfigKey

Data = dict[str, Any]


def entry(abi: Abi) -> Data:
    """Return one ABI: all its revisions, keys always in this order. Numbers of the ABI are ``0x`` strings."""
    return {
        "id": abi.id,
        "title": abi.title,
        "vendor": abi.vendor,
        "path": _short(abi.path),
        "draft": getattr(abi, "draft", False),
        "doc": abi.doc,
        "roles": dict(abi.roles),
        "revisions": {
            key: {"default": key == abi.default_revision, "doc": item.doc} for key, item in abi.revisions.items()
        },
        "config": {key: _config(item) for key, item in abi.config.items()},
        "facts": dict(abi.facts),
        "messages": {
            key: {
                "doc": item.doc,
                "body": item.body,
                "fields": {name: field(part) for name, part in item.fields.items()},
            }
            for key, item in abi.messages.items()
        },
        "transports": {key: _transport(abi, item) for key, item in abi.transports.items()},
        "calls": {key: _call(item) for key, item in abi.calls.items()},
        "enums": {key: _enum(item) for key, item in abi.enums.items()},
        "layouts": {key: _layout(item) for key, item in abi.layouts.items()},
        "constants": {key: {"value": _number(item.value), "doc": item.doc} for key, item in abi.constants.items()},
        "policies": {
            key: {"default": item.default, "open": item.open, "doc": item.doc, "values": dict(item.values)}
            for key, item in abi.policies.items()
        },
        "profiles": {
            "spec": {
                "doc": "What the specification itself says.",
                "policies": abi.policies_of("spec"),
                "config": {},
                "enabled": None,
            },
            **{
                key: {
                    "doc": item.doc,
                    "policies": abi.policies_of(key),
                    "config": {name: _number(value) for name, value in item.config.items()},
                    "enabled": item.enabled,
                }
                for key, item in abi.profiles.items()
            },
        },
    }  # fmt: skip


def platform_entry(platform: Platform) -> Data:
    """Return a platform without a call of its own."""
    return {
        "id": platform.id,
        "title": platform.title,
        "vendor": platform.vendor,
        "doc": platform.doc,
        "calls_of": list(platform.calls_of),
        "evidence": [{"source": source, "text": text} for source, text in platform.evidence],
        "sources": {key: {"title": title, "revision": revision} for key, title, revision in platform.sources},
        "leaves": [
            {
                "name": leaf.name,
                "instruction": leaf.instruction,
                "registers": {name: _number(value) for name, value in leaf.registers.items()},
                "doc": leaf.doc,
            }
            for leaf in platform.leaves
        ],
    }


def _short(path: str) -> str:
    """Return the path inside the package: the same on every machine."""
    return "/".join(path.replace("\\", "/").split("/")[-3:])


def _number(value: int) -> str:
    return f"{value:#x}"


def _text(expr: Expr | None) -> str | None:
    return None if expr is None else to_text(expr)


def _guard(guard: Guard) -> Data:
    found: Data = {}
    if guard.revisions is not None:
        found["revisions"] = list(guard.revisions)
    if guard.transports is not None:
        found["transports"] = list(guard.transports)
    if guard.policy:
        found["policy"] = dict(guard.policy)
    return found


def _config(key: ConfigKey) -> Data:
    found: Data = {"default": _number(key.default)}
    if key.choices:
        found["choices"] = [_number(value) for value in key.choices]
    else:
        found["min"] = None if key.minimum is None else _number(key.minimum)
        found["max"] = None if key.maximum is None else _number(key.maximum)
    return {**found, "doc": key.doc}


def field(item: Field) -> Data:
    """Return a field of a message: width, meaning, and what it is made of."""
    found: Data = {"bits": item.bits, "doc": item.doc}
    if item.signed:
        found["signed"] = True
    if item.enum is not None:
        found["enum"] = item.enum.name
    if item.unit is not None:
        found["unit"] = item.unit
    if item.const is not None:
        found["const"] = _text(item.const)
    if item.default is not None:
        found["default"] = _text(item.default)
    if item.reserved is not None:
        found["reserved"] = {"send": item.reserved.send, "receive": item.reserved.receive}
    if item.word is not None:
        found["word"] = item.word.name
    if item.is_list:
        found["list"] = item.items.name if item.items is not None else f"u{item.bits}"
        found["count"] = _text(item.count)
    if item.chosen_by_host:
        found["chosen_by"] = "host"
    if item.others:
        found["others"] = [[_number(first), _number(last)] for first, last in item.others]
    return {**found, **_guard(item.guard)}


def _enum(item: Enum) -> Data:
    values = {
        key: {"value": _number(value.value), "doc": value.doc, **_guard(value.guard)}
        for key, value in item.values.items()
    }
    return {"bits": item.bits, "signed": item.signed, "doc": item.doc, "values": values}


def _layout(item: Layout) -> Data:
    return {
        "size": item.size,
        "endian": item.endian,
        "doc": item.doc,
        "fields": {
            key: {"offset": part.at, "size": part.size, "bit_range": [part.hi, part.lo], **field(part)}
            for key, part in item.fields.items()
        },
    }


def _transport(abi: Abi, item: Transport) -> Data:
    return {
        "doc": item.doc,
        "isa": item.isa,
        "mode": item.mode,
        "instruction": item.instruction,
        "instruction_bytes": item.instruction_bytes,
        "shows_cpl": item.shows_cpl,
        **_guard(item.guard),
        "limits": {key: {"value": _number(limit.value), "doc": limit.doc} for key, limit in item.limits.items()},
        "messages": {key: _placement(abi, item, place) for key, place in item.placements.items()},
    }


def _placement(abi: Abi, transport: Transport, item: Placement) -> Data:
    blocks = all_blocks(transport, item)
    message = abi.messages[item.message]
    return {
        "fixed": {key: _text(expr) for key, expr in item.fixed.items()},
        "blocks": {key: _block(block) for key, block in item.blocks.items()},
        "place": {
            key: [place_of(message.fields[key], place, blocks) for place in places]
            for key, places in item.place.items()
            if key in message.fields
        },
        "absent": list(item.absent),
        "may_change": list(item.may_change),
    }


def all_blocks(transport: Transport, item: Placement) -> dict[str, Block]:
    """Return the blocks of a message: a response uses those of its request too."""
    blocks: dict[str, Block] = {}
    for other in transport.placements.values():
        blocks.update(other.blocks)
    blocks.update(item.blocks)
    return blocks


def _block(item: Block) -> Data:
    return {
        "at": _text(item.at),
        "size": _text(item.size),
        "endian": item.endian,
        "access": item.access,
        "layout": item.layout.name if item.layout else None,
        "registers": list(item.registers),
        "space": item.space,
        "doc": item.doc,
        **_guard(item.guard),
    }


def place_of(item: Field, place: Place, blocks: Mapping[str, Block]) -> Data:
    """Return where a field lies: register and bits, a pair, or block, offset and bits; offsets are expressions."""
    if isinstance(place, RegisterPlace):
        hi = min(place.lo + item.bits, register_bits(place.register)) - 1 if place.hi is None else place.hi
        return {"register": place.register, "bits": [hi, place.lo], **_guard(place.guard)}
    if isinstance(place, PairPlace):
        return {"pair": {"high": place.high, "low": place.low}, **_guard(place.guard)}
    return {**_in_block(item, place, blocks), **_guard(place.guard)}


def _in_block(item: Field, place: BlockPlace, blocks: Mapping[str, Block]) -> Data:
    layout = blocks[place.block].layout if place.block in blocks else None
    if place.layout_field is not None and layout is not None:
        inner = layout.fields[place.layout_field]
        return {"block": place.block, "offset": str(inner.at), "size": inner.size, "bits": [inner.hi, inner.lo]}
    if item.is_list:
        stride = _text(place.stride) if place.stride is not None else str(item.bits // 8)
        return {"block": place.block, "offset": _text(place.at), "stride": stride}
    hi = place.lo + item.bits - 1 if place.hi is None else place.hi
    size = place.size if place.size is not None else (hi + 8) // 8
    return {"block": place.block, "offset": _text(place.at), "size": size, "bits": [hi, place.lo]}


def _call(item: Call) -> Data:
    return {
        "doc": item.doc,
        "request": item.request,
        "response": item.response,
        "converts": item.convert is not None,
        "asks": item.query is not None,
        "rules": [rule.id for rule in item.rules],
        **_guard(item.guard),
    }


def details(abi: Abi) -> Data:
    """Return one ABI as `entry` does, with the rules, outcomes, progress, examples and sources in full."""
    from hvabi.abi import words

    found = entry(abi)
    for name, call in abi.calls.items():
        found["calls"][name] |= {
            "order": call.order,
            "define": {key: {"expr": to_text(item.expr), "doc": item.doc} for key, item in call.define.items()},
            "convert": dict(words.convert(call.convert)) if call.convert is not None else None,
            "rules": [
                {
                    "id": rule.id,
                    "binds": rule.binds,
                    "about": rule.on,
                    "scope": rule.scope,
                    "level": rule.level,
                    "source": rule.source,
                    "check": words.check(rule),
                    "answer": words.answer(rule.answer) if rule.answer is not None else None,
                    "means": rule.means,
                    "text": rule.text,
                    **_guard(rule.guard),
                }
                for rule in call.rules
            ],
            "outcomes": {key: [words.answer(item) for item in items] for key, items in call.outcomes.items()},
            "progress": {key: text for key, text in words.progress(call.progress) if key} if call.progress else None,
        }
    found["examples"] = [
        {"name": item.name, "provenance": item.provenance, **_guard(item.guard)} for item in abi.examples
    ]
    found["sources"] = {
        key: {"title": item.title, "revision": item.revision, "url": item.url, "note": item.note}
        for key, item in abi.sources.items()
    }
    return found
