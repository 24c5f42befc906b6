"""Straight-line encoders of whole messages, generated from the specification's model.

As with `hvabi.abi.straight_decode`, None means that the reference has to be asked: it knows every error.
"""

from __future__ import annotations

from struct import pack
from typing import TYPE_CHECKING, Any

from hvabi.abi.model import BlockPlace, PairPlace, RegisterPlace
from hvabi.abi.placing import MAX_LIST_BYTES
from hvabi.abi.straight_decode import ASK_REFERENCE
from hvabi.abi.straight_layout import WORDS, array_format, covered, layout_code
from hvabi.abi.straight_names import Names, Unsupported
from hvabi.abi.wire import merge, register_bits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hvabi.abi.codec import MessageCodec
    from hvabi.abi.model import Field

MAX_FILLED = 1 << 20
"""Largest block that is filled with zeroes behind its fields, in bytes."""


def pieces(
    numbers: Sequence[int], stride: int, size: int, endian: Any, *, plain: bool
) -> Sequence[tuple[int, bytes]] | None:
    """Return integers at equal distances as (offset, bytes); None where one is no plain integer.

    What lies between two elements belongs to other fields.
    """
    if plain and not all(type(each) is int for each in numbers):
        return None
    if stride == size and size in WORDS:
        return ((0, pack(array_format(endian, len(numbers), size), *numbers)),)
    items = [each.to_bytes(size, endian) for each in numbers]
    if stride == size:
        return ((0, b"".join(items)),)
    return list(zip(range(0, len(items) * stride, stride), items, strict=True))


def found(mem: Sequence[tuple[int, bytes]], base: int, size: int) -> bytes:
    """Return what lies at an address, as much of it as there is, up to `size` bytes."""
    for start, data in mem:
        if start <= base < start + len(data):
            return data[base - start : base - start + size]
    return b""


class Encoder:
    """Writes the encoder of one message. Raises `Unsupported` where it needs what is not written here."""

    def __init__(self, codec: MessageCodec, *, sent: bool) -> None:
        self.codec = codec
        self.placer = codec.placer
        self.message = codec.message
        request = codec.request.message if sent and codec.request is not None else None
        self.names = Names(codec.message, codec.static, sent=request, need=self._need)
        self.lines: list[str] = []
        self.scope: dict[str, Any] = {
            "known": frozenset(codec.message.fields),
            "pieces": pieces,
            "merge": merge,
            "found": found,
            "Ask": ASK_REFERENCE,
            "MISSING": object(),
        }
        self._done: set[str] = set()
        self._open: set[str] = set()
        self._set: dict[str, list[tuple[str, str]]] = {}
        self._addresses: dict[str, str] = {}

    def function(self) -> Callable[..., Any]:
        """Return ``encode(given, request)``: registers, memory and body of a dict of fields, or None."""
        for name in self.message.fields:
            self._need(name)
        for register, expr in self.placer.placement.fixed.items():
            self._put(register, self.names.code(expr), f"{(1 << register_bits(register)) - 1:#x}")
        for name, item in self.message.fields.items():
            self._store(item, self.placer.place_of(name))
        if self.codec.request is None:
            self._fill()
        self._finish()
        head = [f"s_{name} = request.{name}" for name in sorted(self.names.used_sent)]
        source = "\n".join(
            [
                "def encode(given, request):",
                "    if not known.issuperset(given): return None",
                f"    {self.names.budget}",
                "    behind = []; written = []",
                "    try:",
                *(f"        {line}" for line in (*head, *self.lines)),
                "    except Ask:",
                "        return None",
            ]
        )
        builtins = {"len": len, "isinstance": isinstance, "tuple": tuple, "list": list, "bytes": bytes}
        scope = {**self.names.globals(), **self.scope, **builtins, "__builtins__": {}}
        exec(compile(source, f"<hvabi {self.codec.label}>", "exec"), scope)
        function: Callable[..., Any] = scope["encode"]
        return function

    # -- values -------------------------------------------------------------------------------------------------

    def _need(self, name: str) -> None:
        if name in self._done:
            return
        if name in self._open:
            raise Unsupported(f"{name} depends on itself")
        self._open.add(name)
        item = self.message.fields[name]
        variable = f"f_{name}"
        expr = item.const or item.default
        if item.is_list:
            if expr is not None or item.reserved is not None:
                raise Unsupported(f"a default of list {name}")
            self._list(item, variable)
        else:
            default = None if expr is None else self.names.code(expr)
            if default is None and item.reserved is not None:
                default = "0"
            self._scalar(item, variable, default)
        self._open.discard(name)
        self._done.add(name)

    def _scalar(self, item: Field, variable: str, default: str | None) -> None:
        self.lines.append(f"{variable} = given.get({item.name!r}, MISSING)")
        missing = "return None" if default is None else f"{variable} = {default}"
        self.lines.append(f"if {variable} is MISSING: {missing}")
        if item.word is not None:
            self.scope[f"int_{item.name}"] = layout_code(item.word).to_int
            self.lines += [f"else: {variable} = int_{item.name}({variable})", f"if {variable} is None: return None"]
            if item.word.partial:  # bits of no field are lost
                self.lines.append(f"{variable} &= {covered(item.word):#x}")
        else:
            self.lines += [
                f"elif type({variable}) is not int:",
                f"    if not isinstance({variable}, int): return None",
                f"    {variable} = int({variable})",
            ]
        low = -(1 << (item.bits - 1)) if item.signed else 0
        self.lines.append(f"if not {low} <= {variable} < {1 << item.bits:#x}: return None")

    def _list(self, item: Field, variable: str) -> None:
        self.lines.append(f"{variable} = given.get({item.name!r}, ())")
        self.lines.append(f"if type({variable}) is not tuple and type({variable}) is not list: return None")
        if item.items is not None:
            self.scope[f"ints_{item.name}"] = layout_code(item.items).ints
            self.lines.append(f"w_{item.name} = ints_{item.name}({variable})")
            self.lines.append(f"if w_{item.name} is None: return None")
            if item.items.partial:
                self.lines.append(f"w_{item.name} = [w & {covered(item.items):#x} for w in w_{item.name}]")
        else:
            self.lines.append(f"w_{item.name} = {variable}")

    # -- places -------------------------------------------------------------------------------------------------

    def _put(self, register: str, value: str, mask: str) -> None:
        self._set.setdefault(register, []).append((value, mask))

    def _store(self, item: Field, place: Any) -> None:
        variable = f"f_{item.name}"
        if place is None:
            return
        if item.is_list:
            self._store_list(item, place)
        elif isinstance(place, RegisterPlace):
            width = item.bits if place.hi is None else place.hi - place.lo + 1
            if not item.signed and width < item.bits:
                self.lines.append(f"if {variable} >> {width}: return None")
            mask = f"{((1 << width) - 1) << place.lo:#x}"
            if place.sign_extend:
                wide = f"{((1 << (register_bits(place.register) - place.lo)) - 1) << place.lo:#x}"
                self.lines.append(f"m_{item.name} = {wide} if {variable} < 0 else {mask}")
                mask = f"m_{item.name}"
            value = f"{variable} << {place.lo}" if place.lo else variable
            self._put(place.register, f"({value}) & {mask}", mask)
        elif isinstance(place, PairPlace):
            low = "0xffffffff"
            self._put(place.high, f"({variable} & 0xffffffffffffffff) >> 32", low)
            self._put(place.low, f"{variable} & {low}", low)
        else:
            self._store_number(item, place)

    def _store_number(self, item: Field, place: BlockPlace) -> None:
        block = self.placer.blocks[place.block]
        if block.registers:
            raise Unsupported(f"registers of {block.name}")
        if place.layout_field is not None:
            if block.layout is None:
                raise Unsupported(place.block)
            inner = block.layout.fields[place.layout_field]
            offset, size, bits = str(inner.at), inner.size, inner.bits
        else:
            bits = item.bits if place.hi is None else place.hi - place.lo + 1
            size = place.size if place.size is not None else (place.lo + bits + 7) // 8
            offset = self.names.code(place.at)
        if bits != size * 8:
            raise Unsupported(f"{item.name} is part of a word")
        variable = f"f_{item.name}"
        if not item.signed and bits < item.bits:
            self.lines.append(f"if {variable} >> {bits}: return None")
        raw = f"({variable} & {(1 << bits) - 1:#x}).to_bytes({size}, {block.endian!r})"
        self.lines.append(f"written.append(({self._address(block.name)} + {offset}, {raw}))")

    def _store_list(self, item: Field, place: Any) -> None:
        if not isinstance(place, BlockPlace) or item.bits % 8:
            raise Unsupported(item.name)
        block = self.placer.blocks[place.block]
        if block.registers:
            raise Unsupported(f"registers of {block.name}")
        size = item.bits // 8
        stride = str(size) if place.stride is None else self.names.code(place.stride)
        endian = item.items.endian if item.items is not None else block.endian
        numbers = f"w_{item.name}"
        address, offset = self._address(block.name), self.names.code(place.at)
        self.lines += [
            f"if {numbers}:",
            f"    t = {stride}",
            f"    if t < {size} or len({numbers}) * t > {MAX_LIST_BYTES}: return None",
            f"    d = pieces({numbers}, t, {size}, {endian!r}, plain={item.items is None})",
            "    if d is None: return None",
            f"    t = {address} + {offset}",
            "    written += [(t + at, raw) for at, raw in d]",
        ]

    def _address(self, name: str) -> str:
        if name not in self._addresses:
            block = self.placer.blocks[name]
            code = "0" if block.at is None else self.names.code(block.at)
            self._addresses[name] = f"a{len(self._addresses)}"
            self.lines.append(f"{self._addresses[name]} = {code}")
        return self._addresses[name]

    def _fill(self) -> None:
        """Give every block its whole size: bytes that no field covers are 0."""
        for block in self.placer.blocks.values():
            if block.at is None:
                continue
            self.lines.append(f"n = {self.names.code(block.size)}")
            self.lines.append(f"if 0 < n <= {MAX_FILLED}: behind.append(({self._address(block.name)}, bytes(n)))")

    def _finish(self) -> None:
        variables = {register: f"q{number}" for number, register in enumerate(self._set)}
        for register, parts in self._set.items():
            code = "0"
            for value, mask in parts:
                code = f"(({code}) & ~{mask}) | (({value}) & {mask})" if code != "0" else f"({value}) & {mask}"
            self.lines.append(f"{variables[register]} = {code}")
        pairs = ", ".join(f"{register!r}: {variable}" for register, variable in variables.items())
        self.lines.append(f"regs = {{{pairs}}}")
        self.lines.append("mem = merge([*behind, *written])" if self._addresses else "mem = ()")
        body = self.codec.body
        if body is None:
            pieces = [
                f"({variables.get(name, '0')}).to_bytes({register_bits(name) // 8}, 'little'), "
                for name in self.placer.registers
            ]
            self.lines.append(f"return regs, mem, b''.join(({''.join(pieces)}))")
            return
        block = self.placer.blocks[body]
        if block.registers:
            raise Unsupported("registers as the body")
        size = self.names.code(block.size)
        self.lines.append(f"return regs, mem, found(mem, {self._address(body)}, max({size}, 0))")
