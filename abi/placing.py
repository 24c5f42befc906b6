"""Fetch and store single fields where a transport has placed them."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from hvabi.abi.errors import CodecError
from hvabi.abi.model import BlockPlace, PairPlace, RegisterPlace
from hvabi.abi.straight_layout import layout_code, whole_number
from hvabi.abi.values import number_of, opener
from hvabi.abi.wire import register_bits

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hvabi.abi.model import Block, Field, Message, Place, Placement
    from hvabi.abi.scope import Scope
    from hvabi.abi.wire import Sink, Source

MAX_LIST_BYTES = 1 << 20
"""Longest list that a message may hold, in bytes: the frame limit of the line protocol."""


class Placer:
    """The fields of one message on one transport. `blocks` are those of the request, for a response too."""

    def __init__(self, message: Message, placement: Placement, blocks: Mapping[str, Block], label: str) -> None:
        self.message = message
        self.placement = placement
        self.blocks = blocks
        self.label = label
        self._openers: dict[str, Callable[[int], Any] | None] = {}

    def place_of(self, name: str) -> Place | None:
        """Return where a field lies, or None where this transport has no place for it."""
        places = self.placement.place.get(name)
        return places[0] if places else None

    @cached_property
    def registers(self) -> tuple[str, ...]:
        """The registers of the message in the order of the specification, fixed ones first."""
        found = dict.fromkeys(self.placement.fixed)
        for name in self.message.fields:
            match self.place_of(name):
                case RegisterPlace(register=register):
                    found[register] = None
                case PairPlace(high=high, low=low):
                    found[high] = found[low] = None
                case BlockPlace(block=block):
                    found.update(dict.fromkeys(self.blocks[block].registers))
                case _:
                    pass
        return tuple(found)

    # -- reading ------------------------------------------------------------------------------------------------

    def fetch(self, name: str, scope: Scope, source: Source) -> Any:
        """Return the value of a field. Raises `CodecError` where the bytes are not there."""
        field = self.message.fields[name]
        place = self.place_of(name)
        if place is None:
            return self.default(field, scope)
        if field.is_list:
            return self._fetch_list(field, place, scope, source)
        number = self._fetch_number(field, place, scope, source)
        if number is None:
            return self.default(field, scope)
        number &= (1 << field.bits) - 1
        if field.signed and number >> (field.bits - 1):
            number -= 1 << field.bits
        return self._open(field, number)

    def _open(self, field: Field, number: int) -> Any:
        """Return the typed value of a number."""
        if field.name not in self._openers:
            code = layout_code(field.word).from_int if field.word else opener(field.enum) if field.enum else None
            self._openers[field.name] = code
        opened = self._openers[field.name]
        return opened(number) if opened is not None else number

    def default(self, field: Field, scope: Scope) -> Any:
        """Return a field's constant or default, else zero or the empty list."""
        expr = field.const or field.default
        if expr is not None:
            number = scope.int(expr)
        elif field.is_list:
            return ()
        else:
            number = 0
        return self._open(field, number)

    def _fetch_number(self, field: Field, place: Place, scope: Scope, source: Source) -> int | None:
        if isinstance(place, RegisterPlace):
            value = source.register(place.register)
            if value is None:
                return None
            value >>= place.lo
            width = field.bits if place.hi is None else place.hi - place.lo + 1
            value &= (1 << width) - 1
            # A signed field read from fewer bits: the sign is the top bit that was there.
            if field.signed and width < field.bits and value >> (width - 1):
                value -= 1 << width
            return value
        if isinstance(place, PairPlace):
            high, low = source.register(place.high), source.register(place.low)
            if high is None or low is None:
                return None
            return (high & 0xFFFFFFFF) << 32 | (low & 0xFFFFFFFF)
        offset, size, lo, bits = self.span(field, place, scope)
        raw = self._read(place.block, offset, size, scope, source, field.name)
        if raw is None:
            return None
        return int.from_bytes(raw, self.blocks[place.block].endian) >> lo & ((1 << bits) - 1)

    def span(self, field: Field, place: BlockPlace, scope: Scope) -> tuple[int, int, int, int]:
        """Return byte offset in the block, bytes, lowest bit and bits of a field."""
        block = self.blocks[place.block]
        if place.layout_field is not None:
            if block.layout is None:
                raise CodecError("unknown-field", f"block {block.name} has no layout", message_name=self.label)
            inner = block.layout.fields[place.layout_field]
            return inner.at, inner.size, inner.lo, inner.bits
        bits = field.bits if place.hi is None else place.hi - place.lo + 1
        size = place.size if place.size is not None else (place.lo + bits + 7) // 8
        return scope.int(place.at), size, place.lo, bits

    def address(self, block: Block, scope: Scope) -> int:
        """Return the address of a block's first byte in its space."""
        if block.at is None:
            return 0
        return scope.int(block.at)

    def _read(self, name: str, offset: int, size: int, scope: Scope, source: Source, path: str) -> bytes | None:
        block = self.blocks[name]
        if block.registers:
            return self._from_registers(block, offset, size, source, path)
        return source.read(name, self.address(block, scope) + offset, size)

    def _from_registers(self, block: Block, offset: int, size: int, source: Source, path: str) -> bytes | None:
        data = bytearray()
        for register in block.registers:
            value = source.register(register)
            if value is None:
                return None
            data += value.to_bytes(register_bits(register) // 8, "little")
            if len(data) >= offset + size:
                return bytes(data[offset : offset + size])
        raise CodecError(
            "truncated",
            "the registers hold fewer bytes",
            message_name=self.label,
            path=path,
            byte_offset=offset,
            expected=f"{size} bytes at offset {offset}",
            found=max(len(data) - offset, 0),
        )

    def _fetch_list(self, field: Field, place: Place, scope: Scope, source: Source) -> Any:
        if not isinstance(place, BlockPlace) or field.count is None:
            raise CodecError("wrong-type", "a list lies in a block", message_name=self.label, path=field.name)
        count = scope.int(field.count)
        size = field.bits // 8
        stride = scope.int(place.stride) if place.stride is not None else size
        if count <= 0:
            return ()
        self._check_list(field, count, stride, size)
        block = self.blocks[place.block]
        offset = scope.int(place.at)
        raw = self._read(place.block, offset, (count - 1) * stride + size, scope, source, field.name)
        if raw is None:
            return ()
        if field.items is not None:
            return layout_code(field.items).many(raw, count, stride)
        pieces = [raw[start : start + size] for start in range(0, count * stride, stride)]
        return tuple([int.from_bytes(piece, block.endian, signed=field.signed) for piece in pieces])

    def _check_list(self, field: Field, count: int, stride: int, size: int) -> None:
        if stride < size or count * stride > MAX_LIST_BYTES:
            raise CodecError(
                "oversized",
                "the list is longer than any message may be" if stride >= size else "the elements overlap",
                message_name=self.label,
                path=field.name,
                expected=f"at most {MAX_LIST_BYTES} bytes, elements of {size} bytes at least as far apart",
                found=count * stride,
            )

    # -- writing ------------------------------------------------------------------------------------------------

    def store(self, name: str, given: Any, scope: Scope, sink: Sink) -> None:
        """Write a field. Raises `CodecError` where the value does not fit; a field without a place is not written."""
        field = self.message.fields[name]
        place = self.place_of(name)
        if place is None:
            return
        if field.is_list:
            self._store_list(field, place, given, scope, sink)
            return
        number = self.number(field, given)
        if isinstance(place, RegisterPlace):
            width = field.bits if place.hi is None else place.hi - place.lo + 1
            if place.sign_extend and number < 0:
                width = register_bits(place.register) - place.lo
            self._check_fits(field, number, width, (place.lo + width - 1, place.lo))
            # Bits above the field are 0 unless another field of the message fills them.
            mask = ((1 << width) - 1) << place.lo
            sink.set_register(place.register, (number << place.lo) & mask, mask)
        elif isinstance(place, PairPlace):
            number &= (1 << 64) - 1
            low = 0xFFFFFFFF
            sink.set_register(place.high, number >> 32, low)
            sink.set_register(place.low, number & low, low)
        else:
            offset, size, lo, bits = self.span(field, place, scope)
            self._check_fits(field, number, bits, (lo + bits - 1, lo))
            block = self.blocks[place.block]
            if bits != size * 8:
                raise CodecError(
                    "wrong-type", "part of a word cannot be written alone", message_name=self.label, path=name
                )
            raw = (number & ((1 << bits) - 1)).to_bytes(size, block.endian)
            self.write(block, offset, raw, scope, sink)

    def write(self, block: Block, offset: int, raw: bytes, scope: Scope, sink: Sink) -> None:
        """Write bytes of a block, into memory or into the registers that make it up."""
        if not block.registers:
            sink.write(block.name, self.address(block, scope) + offset, raw)
            return
        at = 0
        for register in block.registers:
            size = register_bits(register) // 8
            first, last = max(offset, at), min(offset + len(raw), at + size)
            if first < last:
                part = int.from_bytes(raw[first - offset : last - offset], "little")
                shift = (first - at) * 8
                sink.set_register(register, part << shift, ((1 << (last - first) * 8) - 1) << shift)
            at += size
        if offset + len(raw) > at:
            raise CodecError(
                "oversized",
                "does not fit the registers",
                message_name=self.label,
                byte_offset=offset,
                expected=f"at most {at} bytes",
                found=offset + len(raw),
            )

    def number(self, field: Field, given: Any) -> int:
        """Return what was given for a scalar field as an integer, signed as it is meant."""
        if field.word is not None:
            return whole_number(field.word, given, field.name)
        number = number_of(field.enum, given, message=self.label, path=field.name)
        self._check_fits(field, number, field.bits, None)
        return number

    def _check_fits(self, field: Field, number: int, width: int, bit_range: tuple[int, int] | None) -> None:
        # A signed field may be given as either reading of its bits, and cut to a narrower register.
        low = -(1 << (field.bits - 1)) if field.signed else 0
        high = 1 << (field.bits if field.signed else width)
        if not low <= number < high:
            raise CodecError(
                "value-too-large",
                f"does not fit {width} bits",
                message_name=self.label,
                path=field.name,
                bit_range=bit_range,
                expected=f"{low:#x} to {high - 1:#x}",
                found=number,
            )

    def store_part(self, name: str, first: int, given: Any, scope: Scope, sink: Sink) -> None:
        """Write elements of a list, the first of them at index `first`; the others are not touched."""
        place = self.place_of(name)
        if place is not None:
            self._store_list(self.message.fields[name], place, given, scope, sink, first=first)

    def _store_list(self, field: Field, place: Place, given: Any, scope: Scope, sink: Sink, *, first: int = 0) -> None:
        if not isinstance(place, BlockPlace):
            raise CodecError("wrong-type", "a list lies in a block", message_name=self.label, path=field.name)
        if not isinstance(given, (list, tuple)):
            raise CodecError("wrong-type", "is a list", message_name=self.label, path=field.name, found=given)
        if not given:
            return
        size = field.bits // 8
        stride = scope.int(place.stride) if place.stride is not None else size
        self._check_list(field, first + len(given), stride, size)
        block, at = self.blocks[place.block], scope.int(place.at) + first * stride
        items = [self.element_bytes(field, item, block, f"{field.name}[{n}]") for n, item in enumerate(given)]
        if stride == size:
            self.write(block, at, b"".join(items), scope, sink)
            return
        # What lies between two elements belongs to other fields.
        for number, raw in enumerate(items):
            self.write(block, at + number * stride, raw, scope, sink)

    def element_bytes(self, field: Field, item: Any, block: Block, path: str) -> bytes:
        """Return one element of a list as its bytes."""
        size = field.bits // 8
        if field.items is not None:
            word = whole_number(field.items, item, path)
            return word.to_bytes(size, field.items.endian)
        if isinstance(item, bool) or not isinstance(item, int) or item < 0 or item >> field.bits:
            raise CodecError(
                "wrong-type" if not isinstance(item, int) else "value-too-large",
                f"does not fit {field.bits} bits",
                message_name=self.label,
                path=path,
                found=item,
            )
        return item.to_bytes(size, block.endian)
