"""Straight-line codecs against the reference of construct nodes: the same values and errors, for every message."""

from __future__ import annotations

import copy
from functools import cache
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hvabi.abi._compile import layout_node
from hvabi.abi.errors import CodecError, ExprError, UsageError
from hvabi.abi.registry import abi_ids, bundled, load
from hvabi.abi.straight import WARM, Straight
from hvabi.abi.straight_layout import layout_code
from hvabi.abi.wire import Wire, register_bits

if TYPE_CHECKING:
    from collections.abc import Callable

    from hvabi.abi.codec import MessageCodec
    from hvabi.abi.model import Field, Layout

ODD: st.SearchStrategy[Any] = st.sampled_from(
    [-1, True, False, None, "SHARED", "NOWHERE", 1.0, b"\1", (), [], {}, 1 << 64, 1 << 200]
)
"""What no field is meant to get."""
LESS = [HealthCheck.too_slow, HealthCheck.data_too_large]
few = settings(max_examples=20, deadline=None, suppress_health_check=LESS)
many = settings(max_examples=500, deadline=None, suppress_health_check=LESS)


@cache
def layouts() -> dict[str, Layout]:
    return {f"{abi}/{name}": each for abi in abi_ids() for name, each in bundled(abi).layouts.items()}


@cache
def codecs(abi: str) -> dict[str, MessageCodec]:
    """Return codecs of their own, which write their code at the first use."""
    found = {}
    for revision in bundled(abi).revisions:
        spec = load(abi, revision=revision)
        for transport in spec.abi.transports.values():
            for message in transport.placements:
                codec = copy.copy(spec.message(message, transport=transport.name))
                codec.straight = Straight(codec, warm=1)
                found[f"{revision}.{transport.name}.{message}"] = codec
    return found


def outcome(action: Callable[[], Any]) -> tuple[Any, ...]:
    """Return what comes of it, with the types of all values; or the whole error."""
    try:
        value = action()
    except (CodecError, ExprError, UsageError) as error:
        return type(error).__name__, error.code, str(error)
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        # The caller's own mistake: no number, no mapping.
        return (type(error).__name__,)
    return value, repr(value)


def number(item: Field) -> st.SearchStrategy[Any]:
    edges = [0, 1, (1 << item.bits) - 1, 1 << (item.bits - 1), 4096]
    if item.enum is not None:
        edges += [each.value for each in item.enum.values.values()]
    low = -(1 << (item.bits - 1)) if item.signed else 0
    inside = [each for each in edges if low <= each < 1 << item.bits]
    wide = st.integers(low, (1 << item.bits) - 1)
    return st.one_of(st.sampled_from(inside), st.integers(0, 3), wide) if item.bits > 1 else st.integers(0, 1)


def element(item: Field) -> st.SearchStrategy[Any]:
    if item.items is None:
        return st.integers(0, (1 << item.bits) - 1)
    whole = st.fixed_dictionaries({}, optional={name: number(part) for name, part in item.items.fields.items()})
    return st.one_of(whole, st.integers(0, (1 << item.bits) - 1))


@st.composite
def given_fields(draw: st.DrawFn, codec: MessageCodec) -> dict[str, Any]:
    """Draw the fields of a message, most of them right, some left out."""
    out: dict[str, Any] = {}
    for name, item in codec.message.fields.items():
        if item.is_list:
            out[name] = tuple(draw(st.lists(element(item), max_size=3)))
        elif item.const is None and (item.default is None or draw(st.integers(0, 3)) == 0):
            out[name] = draw(number(item))
    if draw(st.integers(0, 7)) == 0:
        out[draw(st.sampled_from([*codec.message.fields, "no_such_field"]))] = draw(ODD)
    return out


@pytest.mark.parametrize("name", layouts())
@given(data=st.data())
@few
def test_layouts(name: str, data: st.DataObject) -> None:
    layout = layouts()[name]
    node, code = layout_node(layout), layout_code(layout)
    if layout.size <= 64:
        raw = data.draw(st.binary(min_size=layout.size, max_size=layout.size))
    else:
        raw = Random(data.draw(st.integers(0, 1 << 32))).randbytes(layout.size)
    value = code.from_bytes(raw)
    reference = node.parse(raw)
    assert outcome(lambda: value) == outcome(lambda: reference)
    assert code.to_int(value) == node.to_int(reference, path="")
    gap = data.draw(st.sampled_from([0, 1, 8]))
    spread = raw + bytes(gap) + raw
    assert code.many(spread, 2, layout.size + gap) == (reference, reference)
    assert code.ints([value, value]) == [node.to_int(reference, path="")] * 2
    # Mappings, wrong values and integers: the same number, or the node is asked.
    mapping = dict(zip(value._fields, value, strict=True))
    if data.draw(st.booleans()):
        mapping[data.draw(st.sampled_from([*mapping, "no_such_field"]))] = data.draw(ODD)
    for given_ in (mapping, value._replace(**{value._fields[0]: data.draw(ODD)}), data.draw(ODD)):
        number_ = code.to_int(given_)
        if number_ is not None:
            assert type(number_) is int
            assert number_ == node.to_int(given_, path="")
        assert code.ints([given_]) == (None if number_ is None else [number_])


@pytest.mark.parametrize("abi", abi_ids())
@given(data=st.data())
@few
def test_messages(abi: str, data: st.DataObject) -> None:
    same_coding(abi, data)


@pytest.mark.slow
@pytest.mark.parametrize("abi", abi_ids())
@given(data=st.data())
@many
def test_messages_at_length(abi: str, data: st.DataObject) -> None:
    same_coding(abi, data)


def same_coding(abi: str, data: st.DataObject) -> None:
    codec = codecs(abi)[data.draw(st.sampled_from([*codecs(abi)]))]
    request = None
    if codec.request is not None and data.draw(st.booleans()):
        try:
            request = codec.request.complete(data.draw(given_fields(codec.request)))
        except (CodecError, ExprError):
            request = None
    fields = data.draw(given_fields(codec))
    fast = outcome(lambda: codec.encode(fields, request=request))
    assert fast == outcome(lambda: codec.encode_by_reference(fields, request=request))
    if isinstance(fast[0], Wire):
        same_decoding(codec, fast[0], request, data)


def same_decoding(codec: MessageCodec, wire: Wire, request: Any, data: st.DataObject) -> None:
    strict = data.draw(st.booleans())
    regs, mem = dict(wire.regs), list(wire.mem)
    check_wire(codec, regs, mem, request, strict=strict)
    # One bit of a register, and one register out of its range; one byte of memory, and a piece cut anywhere.
    for name in regs:
        flipped = {**regs, name: regs[name] ^ 1 << data.draw(st.integers(0, register_bits(name) - 1))}
        check_wire(codec, flipped, mem, request, strict=strict)
    if regs:
        name = data.draw(st.sampled_from([*regs]))
        left = {other: regs[other] for other in regs if other != name}
        for odd in (left, {**regs, name: -1}, {**regs, name: 1 << register_bits(name)}):
            check_wire(codec, odd, mem, request, strict=strict)
    for index, (at, bytes_) in enumerate(mem):
        place = data.draw(st.integers(0, len(bytes_) - 1))
        changed = bytearray(bytes_)
        changed[place] ^= data.draw(st.integers(1, 255))
        split = [(at, bytes_[:place]), (at + place, bytes_[place:])]
        for piece in ([(at, bytes(changed))], [(at, bytes_[:place])], [(at + place, bytes_[place:])], split):
            check_wire(codec, regs, [*mem[:index], *piece, *mem[index + 1 :]], request, strict=strict)
    if codec.body is not None or codec.placer.registers:
        body = bytes(wire)
        cuts = range(len(body) + 2) if len(body) < 64 else {0, 1, 7, 8, len(body) - 1, len(body), len(body) + 1}
        for size in cuts:
            check_body(codec, (body + b"\xff")[:size] if size <= len(body) + 1 else body, request, strict=strict)


def check_wire(codec: MessageCodec, regs: Any, mem: Any, request: Any, *, strict: bool) -> None:
    wire = Wire(regs, tuple(mem))
    fast = outcome(lambda: codec.decode(wire, request=request, strict=strict))
    assert fast == outcome(lambda: codec.decode_by_reference(regs, wire.mem, request=request, strict=strict))


def check_body(codec: MessageCodec, body: bytes, request: Any, *, strict: bool) -> None:
    fast = outcome(lambda: codec.decode(body, request=request, strict=strict))
    assert fast == outcome(lambda: codec.decode_body_by_reference(body, request=request, strict=strict))


@pytest.mark.parametrize("abi", abi_ids())
def test_reserved_bits_and_truncation_at_every_byte(abi: str) -> None:
    """What a message of zeroes and of ones gives, at every length, is what the reference says."""
    for codec in codecs(abi).values():
        if codec.body is None and not codec.placer.registers:
            continue
        for fill in (0, 0xFF):
            for size in range(72):
                for strict in (False, True):
                    check_body(codec, bytes([fill]) * size, None, strict=strict)


def test_nearly_every_message_has_straight_line_code() -> None:
    missing = {
        (abi, name, kind)
        for abi in abi_ids()
        for name, codec in codecs(abi).items()
        for kind in ("decode", "encode")
        if not codec.straight.supported(kind, sent=codec.request is not None)
    }
    # A list in registers is encoded by the reference.
    assert all(name.split(".")[1] in {"fast64", "x86-registers", "arm64-registers"} for _, name, _ in missing), missing
    assert {kind for _, _, kind in missing} <= {"encode"}, missing


def test_code_is_written_when_it_is_worth_it() -> None:
    codec = copy.copy(load("tdx-map-gpa").message("request"))
    codec.straight = Straight(codec)
    regs = dict(codec.encode_by_reference(gpa=0x1000, size=0x1000).regs)
    assert [codec.straight.decode(regs, (), None) is not None for _ in range(WARM + 1)] == [
        *[False] * (WARM - 1),
        True,
        True,
    ]


def test_examples_decode_alike() -> None:
    """Every worked example's bytes go through both, whatever message they are."""
    for abi in abi_ids():
        raws = {bytes.fromhex(text.replace(" ", "")) for text in hex_texts(bundled(abi).examples)}
        for codec in codecs(abi).values():
            for raw in raws:
                check_body(codec, raw, None, strict=False)
                check_body(codec, raw, None, strict=True)


def hex_texts(examples: Any) -> list[str]:
    found: list[str] = []

    def look(value: Any) -> None:
        if isinstance(value, str):
            text = value.replace(" ", "")
            if len(text) >= 8 and len(text) % 2 == 0 and all(char in "0123456789abcdef" for char in text):
                found.append(text)
        elif isinstance(value, dict):
            for each in value.values():
                look(each)
        elif isinstance(value, list | tuple):
            for each in value:
                look(each)

    for example in examples:
        look(dict(example.data))
    return found
