"""One message of an ABI, in both directions: registers and bytes to typed values and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hvabi.abi.errors import CodecError, UsageError
from hvabi.abi.model import BlockPlace
from hvabi.abi.placing import Placer
from hvabi.abi.scope import Fields, Scope
from hvabi.abi.straight import Straight
from hvabi.abi.straight_layout import layout_code, whole_number
from hvabi.abi.values import check_names, value_class
from hvabi.abi.wire import BodySource, Wire, WireSink, WireSource, register_bits

if TYPE_CHECKING:
    from hvabi.abi.model import Block, Field, Layout, Message, Placement, Transport
    from hvabi.abi.wire import Source

Encodable = Any
"""A decoded value, a mapping of field names, or nothing where keyword arguments are given."""


class LayoutCodec:
    """A word or structure of fixed size: bytes to a named tuple and back."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    @property
    def size(self) -> int:
        """Size in bytes."""
        return self.layout.size

    def decode(self, data: bytes, *, strict: bool = False) -> Any:
        """Decode exactly `size` bytes. With `strict`, reserved bits that are not zero are an error.

        Raises `CodecError` ``truncated``, ``oversized`` or ``reserved-bits``.
        """
        if len(data) != self.size:
            raise CodecError(
                "truncated" if len(data) < self.size else "oversized",
                "has the wrong length",
                message_name=self.layout.name,
                byte_offset=min(len(data), self.size),
                expected=f"{self.size} bytes",
                found=len(data),
            )
        value = layout_code(self.layout).from_bytes(data)
        if strict:
            check_reserved(self.layout.fields, value, self.layout.name, "")
        return value

    def encode(self, value: Encodable = None, /, **fields: Any) -> bytes:
        """Encode a value, a mapping or keyword fields; a field left out is its default or 0."""
        given = fields if value is None else value
        return whole_number(self.layout, given, "").to_bytes(self.size, self.layout.endian)


def check_reserved(fields: Mapping[str, Field], value: Any, message: str, path: str) -> None:
    """Raise `CodecError` ``reserved-bits`` for the first reserved field that is not zero, at any depth."""
    for name, field in fields.items():
        found = getattr(value, name)
        where = f"{path}.{name}" if path else name
        if field.is_list:
            if field.items is not None:
                for number, item in enumerate(found):
                    check_reserved(field.items.fields, item, message, f"{where}[{number}]")
        elif field.word is not None:
            check_reserved(field.word.fields, found, message, where)
        elif field.reserved is not None and field.reserved.send == "zero" and found:
            raise CodecError(
                "reserved-bits",
                "reserved bits are not zero",
                message_name=message,
                path=where,
                bit_range=(field.hi, field.lo),
                expected=0,
                found=found,
                hint="decode without strict to accept them",
            )


class MessageCodec:
    """One message on one transport.

    A response uses the blocks of its request, so decoding one may need the request's value.
    """

    def __init__(
        self,
        message: Message,
        transport: Transport,
        static: Mapping[str, Any],
        *,
        label: str,
        request: MessageCodec | None = None,
    ) -> None:
        self.message = message
        self.transport = transport
        self.label = label
        self.request = request
        self.static = static
        placement: Placement = transport.placements[message.name]
        blocks: dict[str, Block] = dict(request.placer.blocks) if request else {}
        blocks.update(placement.blocks)
        self.placer: Placer = Placer(message, placement, blocks, label)
        self.straight = Straight(self)

    @cached_property
    def value_class(self) -> type[Any]:
        """The named tuple of the message's fields."""
        return value_class(self.message.name, self.fields)

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields in order."""
        return tuple(self.message.fields)

    @cached_property
    def body(self) -> str | None:
        """Name of the block whose bytes are the message, or None where its registers are."""
        if self.message.body is not None and self.message.body in self.placer.blocks:
            return self.message.body
        blocks = {place.block for places in self.placer.placement.place.values() for place in places[:1]
                  if isinstance(place, BlockPlace)}  # fmt: skip
        return next(iter(blocks)) if len(blocks) == 1 and not self.placer.registers else None

    # -- decoding -----------------------------------------------------------------------------------------------

    def reader(self, source: Source, *, request: Any = None) -> tuple[Fields, Scope]:
        """Return the message's fields, each fetched on demand, and a scope of expressions over them.

        A field of the request that the message has too shadows it under ``request.``.
        """
        sent = _request_fields(request)

        def fetch(name: str) -> Any:
            return self.placer.fetch(name, scope, source)

        fields = Fields(self.message.fields, fetch)
        if sent is None:
            scope = Scope(self.static, request=fields)
        else:
            # Blocks lie where the request's fields say; the response's own fields come from `fields`.
            scope = Scope(self.static, request=fields, response=sent, local={"request": sent, "response": fields})
        return fields, scope

    def decode(self, wire: Wire | Mapping[str, int] | bytes, *, request: Any = None, strict: bool = False) -> Any:
        """Decode a `Wire`, a mapping of registers, or the bytes of the body.

        Args:
            wire: what arrived. Bytes are the body block, or all registers in order, 8 bytes little endian each.
            request: for a response, the decoded request that it answers, where a block's place depends on it.
            strict: whether reserved bits that are not zero are an error.

        Raises:
            CodecError: ``truncated``, ``oversized``, ``const-mismatch`` or ``reserved-bits``, with the field.

        """
        if isinstance(wire, (bytes, bytearray, memoryview)):
            body = bytes(wire)
            value = self.straight.decode_body(body) if request is None else None
            if value is None:
                return self.decode_body_by_reference(body, request=request, strict=strict)
            if strict:
                check_reserved(self.message.fields, value, self.label, "")
            return value
        regs, mem = (wire.regs, wire.mem) if isinstance(wire, Wire) else (wire, ())
        value = self.straight.decode(regs, mem, request)
        if value is not None:
            if strict:
                check_reserved(self.message.fields, value, self.label, "")
            return value
        return self.decode_by_reference(regs, mem, request=request, strict=strict)

    def decode_by_reference(
        self, regs: Mapping[str, int], mem: Iterable[tuple[int, bytes]], *, request: Any = None, strict: bool = False
    ) -> Any:
        """Decode registers and memory field by field, as `decode` does where there is no straight-line code."""
        self._check_fixed(regs)
        return self._decode(WireSource(regs, mem, message=self.label), request, strict)

    def _check_fixed(self, regs: Mapping[str, int]) -> None:
        """Raise `CodecError` ``const-mismatch`` where a register that selects the call is given with another value."""
        if not self.placer.placement.fixed:
            return
        scope = Scope(self.static)
        for register, expr in self.placer.placement.fixed.items():
            expected = scope.int(expr)
            if regs.get(register, expected) != expected:
                raise CodecError(
                    "const-mismatch",
                    "selects another call",
                    message_name=self.label,
                    path=register,
                    expected=hex(expected),
                    found=regs[register],
                )

    def decode_body_by_reference(self, body: bytes, *, request: Any = None, strict: bool = False) -> Any:
        """Decode the bytes of the body field by field, as `decode` does where there is no straight-line code."""
        block = self.body
        registers = self.placer.registers
        if block is None and not registers:
            raise UsageError(f"{self.label} has no bytes of its own", code="no-body", hint="give its registers")
        if request is None and self.request is not None:
            # Blocks lie where a request with nothing but defaults would have them.
            request, _ = self.request.reader(_Nothing())
        base = self.base(request)
        source = BodySource(body, block=block, base=base, registers=registers, message=self.label)
        value = self._decode(source, request, strict)
        size = self._body_size(value, request)
        if len(body) > size:
            raise CodecError(
                "oversized",
                "there are bytes behind the message",
                message_name=self.label,
                byte_offset=size,
                expected=f"{size} bytes",
                found=len(body),
            )
        return value

    def base(self, request: Any = None) -> int:
        """Return the address of the body block where all fields have their defaults; 0 without one."""
        if self.body is None:
            return 0
        _, scope = self.reader(_Nothing(), request=request)
        return self.placer.address(self.placer.blocks[self.body], scope)

    def _body_size(self, value: Any, request: Any) -> int:
        if self.body is None:
            return sum(register_bits(name) // 8 for name in self.placer.registers)
        scope = self._scope(value, request)
        return scope.int(self.placer.blocks[self.body].size)

    def _scope(self, value: Any, request: Any) -> Scope:
        own = _request_fields(value)
        sent = _request_fields(request)
        if sent is None:
            return Scope(self.static, request=own)
        return Scope(self.static, request=own, response=sent, local={"request": sent, "response": own})

    def _decode(self, source: Source, request: Any, strict: bool) -> Any:
        fields, scope = self.reader(source, request=request)
        value = self.value_class._make([fields[name] for name in self.message.fields])
        for name, field in self.message.fields.items():
            if field.const is not None and self.placer.place_of(name) is not None:
                expected = scope.int(field.const)
                if fields[name] != expected:
                    raise CodecError(
                        "const-mismatch",
                        "is not this message",
                        message_name=self.label,
                        path=name,
                        expected=hex(expected),
                        found=int(fields[name]),
                    )
        for path, expr in self.placer.placement.parts.items():
            name, _, part = path.partition(".")
            expected, found = scope.int(expr), getattr(fields[name], part)
            if found != expected:
                raise CodecError(
                    "const-mismatch",
                    "is not this message, or not on this transport",
                    message_name=self.label,
                    path=path,
                    expected=hex(expected),
                    found=int(found),
                )
        if strict:
            check_reserved(self.message.fields, value, self.label, "")
        return value

    # -- encoding -----------------------------------------------------------------------------------------------

    def complete(self, value: Encodable = None, /, *, request: Any = None, **fields: Any) -> Any:
        """Return a full value: what is given, and constants and defaults for the rest.

        Raises `CodecError` ``unknown-field``, ``missing-field`` or ``wrong-type``.
        """
        given = _as_mapping(value, fields, self.label)
        check_names(given, self.message.fields, message=self.label)
        scope: Scope

        def fetch(name: str) -> Any:
            field = self.message.fields[name]
            if name in given:
                return self._filled(name, field, given[name])
            if field.const is not None or field.default is not None or field.reserved is not None:
                return self.placer.default(field, scope)
            if field.is_list:
                return ()
            raise CodecError(
                "missing-field",
                "is needed",
                message_name=self.label,
                path=name,
                hint=f"give {name}=VALUE: {field.doc}",
            )

        own = Fields(self.message.fields, fetch)
        sent = _request_fields(request)
        scope = (
            Scope(self.static, request=own)
            if sent is None
            else Scope(self.static, request=own, response=sent, local={"request": sent, "response": own})
        )
        values = []
        for name, field in self.message.fields.items():
            item = own[name]
            if not field.is_list:
                number = self.placer.number(field, item)
                item = layout_code(field.word).from_int(number) if field.word else number
                own.put(name, item)
            elif not isinstance(item, (list, tuple)):
                raise CodecError("wrong-type", "is a list", message_name=self.label, path=name, found=item)
            values.append(item)
        return self.value_class._make(values)

    @staticmethod
    def _filled(name: str, field: Field, given: Any) -> Any:
        """Return a list with whole elements, so that other fields' defaults can look into them."""
        if not field.is_list or not isinstance(given, (list, tuple)):
            return given
        if field.items is None:
            return tuple(given)
        code = layout_code(field.items)
        numbers = code.ints(given)
        if numbers is None:
            numbers = [whole_number(field.items, one, f"{name}[{number}]") for number, one in enumerate(given)]
        return tuple(map(code.from_int, numbers))

    def encode(self, value: Encodable = None, /, *, request: Any = None, **fields: Any) -> Wire:
        """Encode a value, a mapping or keyword fields; fields with a constant or default may be left out.

        Raises `CodecError` ``unknown-field``, ``missing-field``, ``value-too-large`` or ``wrong-type``.
        """
        done = self.straight.encode(_as_mapping(value, fields, self.label), request)
        if done is not None:
            regs, mem, body = done
            return Wire(regs=regs, mem=mem, body=body)
        return self.encode_by_reference(value, request=request, **fields)

    def encode_by_reference(self, value: Encodable = None, /, *, request: Any = None, **fields: Any) -> Wire:
        """Encode field by field, as `encode` does where there is no straight-line code."""
        whole = self.complete(value, request=request, **fields)
        scope = self._scope(whole, request)
        sink = WireSink()
        for register, expr in self.placer.placement.fixed.items():
            sink.set_register(register, scope.int(expr), (1 << register_bits(register)) - 1)
        for name in self.message.fields:
            self.placer.store(name, getattr(whole, name), scope, sink)
        if self.request is None:
            self._fill_blocks(scope, sink)
        mem = sink.mem
        return Wire(regs=sink.regs, mem=mem, body=self._body(scope, sink.regs, mem))

    def _fill_blocks(self, scope: Scope, sink: WireSink) -> None:
        """Give every block its whole size: bytes that no field covers are 0."""
        for block in self.placer.blocks.values():
            if block.at is None:
                continue
            size = scope.int(block.size)
            if 0 < size <= 1 << 20:
                sink.write_behind(self.placer.address(block, scope), bytes(size))

    def _body(self, scope: Scope, regs: Mapping[str, int], mem: Iterable[tuple[int, bytes]]) -> bytes:
        if self.body is None:
            return b"".join(
                regs.get(name, 0).to_bytes(register_bits(name) // 8, "little") for name in self.placer.registers
            )
        block = self.placer.blocks[self.body]
        if block.registers:
            return b"".join(regs.get(name, 0).to_bytes(register_bits(name) // 8, "little") for name in block.registers)[
                : scope.int(block.size)
            ]
        base, size = self.placer.address(block, scope), max(scope.int(block.size), 0)
        for start, data in mem:
            if start <= base < start + len(data):
                return data[base - start : base - start + size]
        return b""


class _Nothing:
    """A source that holds nothing: every field takes its default."""

    def register(self, name: str) -> int | None:
        return None

    def read(self, block: str, address: int, size: int) -> bytes | None:
        return None


def _request_fields(value: Any) -> Fields | None:
    """Return a decoded value as fields for a scope."""
    if value is None:
        return None
    if isinstance(value, Fields):
        return value
    known = dict(zip(value._fields, value, strict=True)) if hasattr(value, "_fields") else dict(value)
    return Fields(known, known.__getitem__)


def _as_mapping(value: Any, fields: Mapping[str, Any], label: str) -> dict[str, Any]:
    if value is None:
        return dict(fields)
    if hasattr(value, "_fields"):
        return {**dict(zip(value._fields, value, strict=True)), **fields}
    if isinstance(value, Mapping):
        return {**value, **fields}
    raise CodecError("wrong-type", "is a mapping of fields or a decoded value", message_name=label, found=value)
