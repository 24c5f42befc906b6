"""What the encoder and decoder in a page knows of an ABI: the specification as JSON, expressions as trees.

Numbers that may pass 2**53 are ``0x`` strings. An expression is a list: an operator and its operands. The page chooses
revision, profile, transport and configuration itself, so everything keeps its guard.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from hvabi.abi.expr import (
    Attr,
    Binary,
    Bool,
    Call,
    Compare,
    Comprehension,
    Expr,
    In,
    Index,
    Int,
    ListLiteral,
    Name,
    Truth,
    Unary,
    evaluate,
)
from hvabi.abi.model import PairPlace, RegisterPlace
from hvabi.abi.scope import STATE_NUMBERS, enum_names
from hvabi.abi.specification import SPEC_PROFILE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hvabi.abi.calls import Call as AbiCall
    from hvabi.abi.calls import Convert, HandleUse, Query
    from hvabi.abi.model import Block, Enum, Field, Guard, Layout, Place, Placement, Transport
    from hvabi.abi.specification import Abi
    from hvabi.publish.samples import Sample

Data = dict[str, Any]

_ZEROES = re.compile(rb"\x00{16,}")


def codec_model(abi: Abi, samples: Iterable[Sample] = ()) -> Data:
    """Return an unresolved ABI for the page: messages, places, names, examples."""
    return {
        "abi": abi.id,
        "revision": abi.default_revision,
        "revisions": list(abi.revisions),
        "profiles": {
            name: {
                "policies": abi.policies_of(name),
                "config": {key: number(value) for key, value in abi.profiles[name].config.items()}
                if name != SPEC_PROFILE else {},
            }
            for name in (SPEC_PROFILE, *abi.profiles)
        },
        "config": {
            key.name: {
                "default": number(key.default),
                "choices": [number(value) for value in key.choices],
                "min": number(key.minimum) if key.minimum is not None else None,
                "max": number(key.maximum) if key.maximum is not None else None,
                "doc": key.doc,
            }
            for key in abi.config.values()
        },
        "names": _names(abi),
        "renamed": _renamed(abi),
        "enums": {name: _enum(item) for name, item in abi.enums.items()},
        "layouts": {name: _layout(item) for name, item in abi.layouts.items()},
        "messages": {
            name: {"doc": item.doc, "body": item.body, "fields": [_field(part) for part in item.fields.values()],
                   **_guard(item.guard)}
            for name, item in abi.messages.items()
        },
        "transports": {name: _transport(item) for name, item in abi.transports.items()},
        "calls": [
            {
                "request": call.request,
                "response": call.response,
                "doc": call.doc,
                "define": {name: tree(item.expr) for name, item in call.define.items()},
                "about": _about(call.convert or call.query) if _is_alone(call) else None,
                "opens": _opens(call.handle) if call.handle is not None and call.handle.does == "open" else None,
                **_guard(call.guard),
            }
            for call in abi.calls.values()
        ],
        "examples": [{"name": item.name, **_load(item.load)} for item in samples],
    }  # fmt: skip


def _load(given: Mapping[str, Any]) -> Data:
    """Return an example with the long runs of zeroes in its memory as a count of bytes between stars."""
    if "mem" not in given:
        return dict(given)
    return {**given, "mem": [[at, _squeezed(bytes.fromhex(text))] for at, text in given["mem"]]}


def _squeezed(data: bytes) -> str:
    out, at = "", 0
    for run in _ZEROES.finditer(data):
        out += f"{data[at : run.start()].hex()}*{len(run[0])}*"
        at = run.end()
    return out + data[at:].hex()


def as_json(data: Data) -> str:
    """Return the model for a script element: one line, nothing in it ends the element."""
    return json.dumps(data, separators=(",", ":"), ensure_ascii=True).replace("<", "\\u003c")


def number(value: int) -> str:
    """Return an integer as the page reads it."""
    return f"{value:#x}"


def tree(expr: Expr) -> list[Any]:
    """Return an expression as nested lists."""
    match expr:
        case Int(value, _):
            return ["i", number(value)]
        case Truth(value):
            return ["i", "0x1" if value else "0x0"]
        case Name(name):
            return ["n", name]
        case Attr(base, name):
            return [".", tree(base), name]
        case Index(base, index):
            return ["[]", tree(base), tree(index)]
        case ListLiteral(items):
            return ["l", *map(tree, items)]
        case Unary("-", operand):
            return ["neg", tree(operand)]
        case Unary(_, operand):
            return ["not", tree(operand)]
        case Binary(op, left, right) | Compare(op, left, right) | Bool(op, left, right):
            return [op, tree(left), tree(right)]
        case In(item, source):
            return ["in", tree(item), tree(source)]
        case Call(function, args):
            return ["call", function, *map(tree, args)]
        case Comprehension(function, body, variable, source):
            return ["for", function, tree(body), variable, tree(source)]


def _names(abi: Abi) -> Data:
    known: Mapping[str, Any] = {
        **STATE_NUMBERS,
        **enum_names(abi),
        **{name: item.value for name, item in abi.constants.items()},
    }
    return {
        name: {key: number(part) for key, part in value.items()} if isinstance(value, dict) else number(value)
        for name, value in known.items()
    }


def _renamed(abi: Abi) -> Data:
    """Return, by revision, what differs there: numbers of names, and all values of enums."""
    usual, found = _names(abi), {}
    for revision in abi.revisions:
        resolved = abi.resolve(revision=revision)
        names = {name: value for name, value in _names(resolved).items() if usual[name] != value}
        enums = {name: _enum(item)["values"] for name, item in resolved.enums.items() if item != abi.enums[name]}
        if names or enums:
            found[revision] = {"names": names, "enums": enums}
    return found


def _guard(guard: Guard) -> Data:
    found: Data = {}
    if guard.revisions is not None:
        found["revisions"] = list(guard.revisions)
    if guard.policy:
        found["policy"] = dict(guard.policy)
    return found


def _enum(item: Enum) -> Data:
    return {"bits": item.bits, "values": {key: number(value.value) for key, value in item.values.items()},
            "docs": {key: value.doc for key, value in item.values.items()}}  # fmt: skip


def _layout(item: Layout) -> Data:
    return {"size": item.size, "endian": item.endian, "fields": [_field(part) for part in item.fields.values()]}


def _field(item: Field) -> Data:
    found: Data = {"name": item.name, "bits": item.bits, "doc": item.doc}
    if item.size:  # in a layout; the value where it is left out is a number already
        found |= {"at": item.at, "size": item.size, "lo": item.lo}
        given = item.const or item.default
        found |= {"value": number(evaluate(given, {}, "int"))} if given is not None else {}
    else:
        found |= {"const": tree(item.const)} if item.const is not None else {}
        if item.defaults:
            found["defaults"] = [{"is": tree(choice.expr), **_guard(choice.guard)} for choice in item.defaults]
        elif item.default is not None:
            found["default"] = tree(item.default)
    if item.signed:
        found["signed"] = True
    if item.enum is not None:
        found["enum"] = item.enum.name
    if item.unit is not None:
        found["unit"] = item.unit
    if item.reserved is not None:
        found["reserved"] = item.reserved.send
    if item.word is not None:
        found["word"] = item.word.name
    if item.is_list:
        found["list"] = True
        found["items"] = item.items.name if item.items is not None else None
        found["count"] = tree(item.count) if item.count is not None else None
    return {**found, **_guard(item.guard)}


def _transport(item: Transport) -> Data:
    return {
        "doc": item.doc,
        "limits": {name: number(limit.value) for name, limit in item.limits.items()},
        "messages": {name: _placement(place) for name, place in item.placements.items()},
        **_guard(item.guard),
    }


def _placement(item: Placement) -> Data:
    return {
        "fixed": {register: tree(expr) for register, expr in item.fixed.items()},
        "parts": {path: tree(expr) for path, expr in item.parts.items()},
        "blocks": {name: _block(block) for name, block in item.blocks.items()},
        "place": {name: [_place(place) for place in places] for name, places in item.place.items()},
    }


def _block(item: Block) -> Data:
    return {
        "at": tree(item.at) if item.at is not None else None,
        "size": tree(item.size),
        "endian": item.endian,
        "layout": item.layout.name if item.layout is not None else None,
        "registers": list(item.registers),
        **_guard(item.guard),
    }


def _place(item: Place) -> Data:
    if isinstance(item, RegisterPlace):
        found: Data = {"register": item.register, "lo": item.lo}
        found |= {"hi": item.hi} if item.hi is not None else {}
        found |= {"extend": True} if item.sign_extend else {}
    elif isinstance(item, PairPlace):
        found = {"high": item.high, "low": item.low}
    else:
        found = {"block": item.block, "at": tree(item.at), "lo": item.lo}
        found |= {"hi": item.hi} if item.hi is not None else {}
        found |= {"size": item.size} if item.size is not None else {}
        found |= {"stride": tree(item.stride)} if item.stride is not None else {}
        found |= {"field": item.layout_field} if item.layout_field is not None else {}
    return {**found, **_guard(item.guard)}


def _is_alone(call: AbiCall) -> bool:
    """Whether a request says by itself what it is about: not what is kept under the handle of an earlier one."""
    return (call.convert or call.query) is not None and (call.handle is None or call.handle.does == "open")


def _opens(use: HandleUse) -> Data:
    return {
        "list": use.list,
        "kept": {name: tree(expr) for name, expr in use.keep.items()},
        "complete": tree(use.complete) if use.complete is not None else None,
    }


def _about(item: Convert | Query | None) -> Data:
    assert item is not None  # the caller has looked
    found: Data = {"start": tree(item.start), "pages": tree(item.pages), "each": item.each}
    found |= {"first": tree(item.first)} if item.first is not None else {}
    found |= {"count": tree(item.count)} if item.count is not None else {}
    to = getattr(item, "to", None)
    if getattr(item, "bits", None) is not None:
        found["bits"] = True
    elif to is not None:
        found["to"] = {
            "of": tree(to.of),
            "states": {str(value): state for value, state in to.states.items()},
            "otherwise": to.otherwise,
            "has_otherwise": to.has_otherwise,
        }
    facts = getattr(item, "facts", {})
    if facts:
        found["facts"] = {name: tree(expr) for name, expr in facts.items()}
    hint = getattr(item, "hint", None)
    if hint is not None:
        found["hint"] = tree(hint)
    return found
