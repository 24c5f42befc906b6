"""What somebody has of a message: registers, memory or one block; and a reader of it for the codecs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hvabi.abi.errors import CodecError
from hvabi.abi.model import BlockPlace
from hvabi.abi.scope import Fields, Scope
from hvabi.abi.wire import register_bits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hvabi.abi.codec import MessageCodec
    from hvabi.abi.values import Value


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What is to be read: registers, pieces of memory, at most one block by name. What is not here is unknown."""

    regs: Mapping[str, int] = field(default_factory=dict)
    mem: tuple[tuple[int, bytes], ...] = ()
    block: tuple[str, bytes] | None = None


class GivenReader:
    """Reads from what was given; None for what was not. `truncated` errors name block and offset."""

    def __init__(self, codec: MessageCodec, given: Given) -> None:
        self._codec = codec
        self._given = given
        self._pieces = given.mem
        if given.block is not None and given.block[0] in codec.placer.blocks:
            # A block given by name lies where the defaults say; nothing else of the message is known then.
            self._pieces = ((_default_base(codec, given.block[0]), given.block[1]), *given.mem)
        self._scope: Scope | None = None

    def base(self, block: str) -> int:
        """Return the address of a block."""
        if self._scope is None:
            raise RuntimeError("the reader has no scope yet")
        return self._codec.placer.address(self._codec.placer.blocks[block], self._scope)

    def register(self, name: str) -> int | None:
        """Return a register, or None where it was not given."""
        value = self._given.regs.get(name)
        if value is not None and not 0 <= value < 1 << register_bits(name):
            raise CodecError("value-too-large", f"does not fit {register_bits(name)} bits", path=name, found=value)
        return value

    def has(self, block: str, offset: int = 0) -> bool:
        """Whether the first byte of a block, or the one at an offset, was given."""
        spec = self._codec.placer.blocks[block]
        if spec.registers:
            return any(name in self._given.regs for name in spec.registers)
        if self._given.block is not None and self._given.block[0] == block:
            return True
        if not self._pieces:
            return False
        base = self.base(block)
        return any(
            start <= base < start + len(data) or start <= base + offset < start + len(data)
            for start, data in self._pieces
        )

    def read(self, block: str, address: int, size: int) -> bytes | None:
        """Return bytes of a block, or None where none of it was given."""
        if not self.has(block, address - self.base(block)):
            return None
        out = bytearray()
        while len(out) < size:
            at = address + len(out)
            for start, data in self._pieces:
                if start <= at < start + len(data):
                    out += data[at - start : at - start + size - len(out)]
                    break
            else:
                offset = address - self.base(block)
                raise CodecError(
                    "truncated",
                    "the bytes end too early",
                    message_name=self._codec.label,
                    path=block,
                    byte_offset=offset,
                    expected=f"{size} bytes at offset {offset}",
                    found=len(out),
                    hint="give all bytes of the message",
                )
        return bytes(out)

    def start(self, request: Fields | Value = None) -> tuple[Fields, Scope]:
        """Begin to read the codec's message: its fields, fetched on demand, and the names of expressions."""
        codec = self._codec
        busy: set[str] = set()

        def fetch(name: str) -> Value:
            if name in busy:
                raise CodecError(
                    "missing-field",
                    "is not known, and what it depends on neither",
                    message_name=codec.label,
                    path=name,
                    hint="give the registers of the message too",
                )
            busy.add(name)
            try:
                return codec.placer.fetch(name, scope, self)
            finally:
                busy.discard(name)

        fields = Fields(codec.message.fields, fetch)
        if request is None:
            scope = Scope(codec.static, request=fields)
        else:
            sent = request if isinstance(request, Fields) else _fields(request)
            scope = Scope(codec.static, request=fields, response=sent, local={"request": sent, "response": fields})
        self._scope = scope
        for name, item in codec.message.fields.items():
            place = codec.placer.place_of(name)
            if item.is_list and isinstance(place, BlockPlace) and not self.has(place.block, scope.int(place.at)):
                # The default of its count may be its length: without bytes there is neither.
                fields.put(name, ())
        return fields, scope


def _fields(value: Value) -> Fields:
    known = dict(zip(value._fields, value, strict=True))
    return Fields(known, known.__getitem__)


def _default_base(codec: MessageCodec, block: str) -> int:
    """Return where a block lies when every field has its default."""
    request = GivenReader(codec.request, Given()).start()[0] if codec.request is not None else None
    _, scope = GivenReader(codec, Given()).start(request)
    return codec.placer.address(codec.placer.blocks[block], scope)
