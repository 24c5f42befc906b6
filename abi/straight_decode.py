"""Straight-line decoders of whole messages, generated from the specification's model.

A generated decoder gives the value that the reference in `hvabi.abi.codec` gives, or None: then the reference is asked,
which knows the right answer and every error. Nothing is read twice and nothing is changed on the way.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from hvabi.abi.errors import CodecError, ExprError
from hvabi.abi.expr import Attr, Name
from hvabi.abi.model import BlockPlace, PairPlace, RegisterPlace
from hvabi.abi.placing import MAX_LIST_BYTES
from hvabi.abi.straight_layout import WORDS, array_format, layout_code, typed
from hvabi.abi.straight_names import Names, Unsupported
from hvabi.abi.wire import register_bits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hvabi.abi.codec import MessageCodec
    from hvabi.abi.expr import Expr
    from hvabi.abi.model import Block, Field

ASK_REFERENCE = (ExprError, CodecError, TypeError, ValueError, OverflowError, LookupError, struct.error)
"""What the generated code may run into: the reference finds the same and says it properly."""


def piece(mem: Sequence[tuple[int, bytes]], address: int, size: int) -> bytes | None:
    """Return bytes that lie in one piece of memory, the first that has the address; else None."""
    for start, data in mem:
        if start <= address < start + len(data):
            found = data[address - start : address - start + size]
            return found if len(found) == size else None
    return None


def integers(raw: bytes, count: int, stride: int, size: int, endian: Any, signed: bool) -> tuple[int, ...]:
    """Return plain integers at equal distances."""
    if stride == size and size in WORDS:
        form = array_format(endian, count, size)
        return struct.unpack(form.lower() if signed else form, raw)
    starts = range(0, count * stride, stride)
    return tuple([int.from_bytes(raw[at : at + size], endian, signed=signed) for at in starts])


class Decoder:
    """Writes the decoder of one message: from registers and memory, or with `base` from its body's bytes.

    Raises `Unsupported` where the message needs what is not written here.
    """

    def __init__(self, codec: MessageCodec, *, sent: bool, base: int | None = None, body: bool = False) -> None:
        self.codec = codec
        self.placer = codec.placer
        self.message = codec.message
        self.body = codec.body if body else None
        self.from_body = body
        self.base = base
        request = codec.request.message if sent and codec.request is not None else None
        self.names = Names(codec.message, codec.static, sent=request, need=self._need)
        self.lines: list[str] = []
        self.scope: dict[str, Any] = {
            "new": tuple.__new__,
            "cls": codec.value_class,
            "piece": piece,
            "integers": integers,
            "from_bytes": int.from_bytes,
            "Ask": ASK_REFERENCE,
        }
        self._typed: dict[str, str] = {}
        self._open: set[str] = set()
        self._registers: dict[str, str] = {}
        self._addresses: dict[str, str] = {}
        self._register_blocks: dict[str, str] = {}
        if body and self.body is not None and self.placer.blocks[self.body].registers:
            raise Unsupported("registers as the body")

    def function(self) -> Callable[..., Any]:
        """Return ``decode(regs, mem, request)``, or ``decode(body)``."""
        self._check_fixed()
        for name in self.message.fields:
            self._need(name)
        self._check_constants()
        if self.from_body:
            self._check_size()
        value = "".join(f"{self._typed[name]}, " for name in self.message.fields)
        body = [*self.lines, f"return new(cls, ({value}))"]
        head = [f"s_{name} = request.{name}" for name in sorted(self.names.used_sent)]
        source = "\n".join(
            [
                "def decode(body):" if self.from_body else "def decode(regs, mem, request):",
                f"    {self.names.budget}",
                "    try:",
                *(f"        {line}" for line in (*head, *self._loads(), *body)),
                "    except Ask:",
                "        return None",
            ]
        )
        scope = {**self.names.globals(), **self.scope, "__builtins__": {}, "len": len}
        exec(compile(source, f"<hvabi {self.codec.label}>", "exec"), scope)
        function: Callable[..., Any] = scope["decode"]
        return function

    # -- registers ----------------------------------------------------------------------------------------------

    def _register(self, name: str) -> str:
        return self._registers.setdefault(name, f"r{len(self._registers)}")

    def _loads(self) -> list[str]:
        """Return the lines that fetch all registers and refuse values that are too wide, first of all."""
        lines = []
        if self.from_body and self._registers:
            at, places = 0, {}
            for name in self.placer.registers:
                places[name] = at
                at += register_bits(name) // 8
            for name, variable in self._registers.items():
                size = register_bits(name) // 8
                lines.append(f"{variable} = from_bytes(body[{places[name]}:{places[name] + size}], 'little')")
            return [f"if len(body) != {at}: return None", *lines]
        lines = [f"{variable} = regs.get({name!r}, 0)" for name, variable in self._registers.items()]
        by_width: dict[int, list[str]] = {}
        for name, variable in self._registers.items():
            by_width.setdefault(register_bits(name), []).append(variable)
        for width, variables in by_width.items():
            # A negative number leaves -1 behind, one that is too wide its upper bits.
            lines.append(f"if ({' | '.join(variables)}) >> {width}: return None")
        return lines

    def _given(self, name: str) -> bool:
        """Whether the source has this register at all: a body that is a block has none."""
        return not self.from_body or (self.body is None and name in self.placer.registers)

    def _check_fixed(self) -> None:
        if self.from_body:
            return
        for register, expr in self.placer.placement.fixed.items():
            expected = self.names.code(expr)
            self.lines.append(f"if regs.get({register!r}, {expected}) != {expected}: return None")

    # -- fields -------------------------------------------------------------------------------------------------

    def _need(self, name: str) -> None:
        """Write the lines that fetch a field, those of the fields that it depends on before it."""
        if name in self._typed:
            return
        if name in self._open:
            raise Unsupported(f"{name} depends on itself")
        self._open.add(name)
        item = self.message.fields[name]
        place = self.placer.place_of(name)
        absent = place is None or (
            self.from_body
            and (
                (isinstance(place, BlockPlace) and place.block != self.body)
                or (isinstance(place, RegisterPlace) and not self._given(place.register))
                or (isinstance(place, PairPlace) and not (self._given(place.high) and self._given(place.low)))
            )
        )
        if absent and isinstance(place, BlockPlace) and self.placer.blocks[place.block].registers and self.body is None:
            absent = False  # the registers are the body
        if item.is_list:
            self._list(item, place, absent=absent)
        elif absent:
            self._default(item)
        else:
            assert place is not None
            self._scalar(item, place)
        self._open.discard(name)

    def _set(self, item: Field, code: str, *, in_range: bool = True) -> None:
        variable = f"f_{item.name}"
        self.lines.append(f"{variable} = {code}")
        self._typed[item.name] = typed(variable, item, item.name, self.scope, in_range=in_range)

    def _default(self, item: Field) -> None:
        expr = item.const or item.default
        self._set(item, "0" if expr is None else self.names.code(expr), in_range=False)

    def _scalar(self, item: Field, place: Any) -> None:
        mask = (1 << item.bits) - 1
        sign = item.bits
        if isinstance(place, RegisterPlace):
            width = item.bits if place.hi is None else place.hi - place.lo + 1
            sign = min(width, item.bits)
            mask = (1 << sign) - 1
            register = self._register(place.register)
            code = f"{register} >> {place.lo} & {mask:#x}" if place.lo else f"{register} & {mask:#x}"
        elif isinstance(place, PairPlace):
            high, low = self._register(place.high), self._register(place.low)
            code = f"(({high} & 0xffffffff) << 32 | {low} & 0xffffffff) & {mask:#x}"
        else:
            code = self._from_block(item, place, mask)
        if item.signed:
            code = f"(({code}) ^ {1 << (sign - 1):#x}) - {1 << (sign - 1):#x}"
        self._set(item, code)

    def _from_block(self, item: Field, place: BlockPlace, mask: int) -> str:
        block = self.placer.blocks[place.block]
        offset, size, lo, bits = self._span(item, place, block)
        self._read(block, offset, str(size))
        # The bits of the place come first, then as many as the field has.
        both = min(bits, item.bits)
        mask = (1 << both) - 1
        whole = f"from_bytes(d, {block.endian!r})"
        return f"{whole} >> {lo} & {mask:#x}" if lo else f"{whole} & {mask:#x}"

    def _span(self, item: Field, place: BlockPlace, block: Block) -> tuple[str, int, int, int]:
        if place.layout_field is not None:
            if block.layout is None:
                raise Unsupported(place.block)
            inner = block.layout.fields[place.layout_field]
            return str(inner.at), inner.size, inner.lo, inner.bits
        bits = item.bits if place.hi is None else place.hi - place.lo + 1
        size = place.size if place.size is not None else (place.lo + bits + 7) // 8
        return self.names.code(place.at), size, place.lo, bits

    def _read(self, block: Block, offset: str, size: str) -> None:
        """Write lines that put bytes of a block into ``d``."""
        if block.registers:
            self.lines.append(f"d = {self._register_bytes(block)}[{offset} : {offset} + {size}]")
        elif self.from_body:
            address = self._address(block)
            self.lines.append(f"o = {address} + {offset} - {self.base}")
            self.lines.append("if o < 0: return None")
            self.lines.append(f"d = body[o : o + {size}]")
        else:
            self.lines.append(f"d = piece(mem, {self._address(block)} + {offset}, {size})")
            self.lines.append("if d is None: return None")
            return
        self.lines.append(f"if {offset} < 0 or len(d) != {size}: return None")

    def _register_bytes(self, block: Block) -> str:
        if block.name not in self._register_blocks:
            variable = self._register_blocks[block.name] = f"b{len(self._register_blocks)}"
            whole, at = [], 0
            for name in block.registers:
                whole.append(f"{self._register(name)} << {at}" if at else self._register(name))
                at += register_bits(name)
            self.lines.append(f"{variable} = ({' | '.join(whole)}).to_bytes({at // 8}, 'little')")
        return self._register_blocks[block.name]

    def _address(self, block: Block) -> str:
        if block.name not in self._addresses:
            code = "0" if block.at is None else self.names.code(block.at)
            variable = f"a{len(self._addresses)}"
            self.lines.append(f"{variable} = {code}")
            self._addresses[block.name] = variable
        return self._addresses[block.name]

    def _list(self, item: Field, place: Any, *, absent: bool) -> None:
        variable = f"f_{item.name}"
        if absent:
            if item.const is not None or item.default is not None:
                raise Unsupported(f"a default of list {item.name}")
            if place is None:
                self.lines.append(f"{variable} = ()")
                self._typed[item.name] = variable
                return
        if not isinstance(place, BlockPlace) or item.count is None or item.bits % 8:
            raise Unsupported(item.name)
        block = self.placer.blocks[place.block]
        size = item.bits // 8
        count = self.names.code(item.count)
        stride = str(size) if place.stride is None else self.names.code(place.stride)
        offset = self.names.code(place.at)
        if block.at is not None and not absent:
            self.names.code(block.at)  # the fields that it needs are fetched in any case
        self.lines.append(f"n = {count}; t = {stride}")
        guarded, self.lines = self.lines, []
        self.lines.append(f"if t < {size} or n * t > {MAX_LIST_BYTES}: return None")
        if absent:
            self.lines.append(f"{variable} = ()")
        else:
            self._read(block, offset, f"((n - 1) * t + {size})")
            if item.items is not None:
                self.scope[f"many_{item.name}"] = layout_code(item.items).many
                code = f"many_{item.name}(d, n, t)"
            else:
                code = f"integers(d, n, t, {size}, {block.endian!r}, {item.signed})"
            self.lines.append(f"{variable} = {code}")
        # The block's address is worked out for elements only, as the reference does; nothing else may use it later.
        inner, self.lines = self.lines, guarded
        self.lines += ["if n <= 0:", f"    {variable} = ()", "else:", *(f"    {line}" for line in inner)]
        self._addresses.pop(block.name, None)
        self._register_blocks.pop(block.name, None)
        self._typed[item.name] = variable

    # -- checks behind the fields -------------------------------------------------------------------------------

    def _check_constants(self) -> None:
        for name, item in self.message.fields.items():
            if item.const is None or self.placer.place_of(name) is None:
                continue
            if item.word is not None or item.is_list:
                raise Unsupported(f"a constant {name}")
            self._differs(f"f_{name}", item.const)
        for path, expr in self.placer.placement.parts.items():
            self._differs(self._path(path), expr)

    def _path(self, path: str) -> str:
        name, _, part = path.partition(".")
        return self.names.code(Attr(Name(name), part))

    def _differs(self, found: str, expected: Expr) -> None:
        self.lines.append(f"if {found} != {self.names.code(expected)}: return None")

    def _check_size(self) -> None:
        if self.body is None:
            size = str(sum(register_bits(name) // 8 for name in self.placer.registers))
        else:
            size = self.names.code(self.placer.blocks[self.body].size)
        self.lines.append(f"if len(body) > {size}: return None")
