"""What somebody has of a message: registers, memory or one block; and a reader of it for the codecs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hvabi.abi.errors import CodecError
from hvabi.abi.wire import register_bits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hvabi.abi.codec import MessageCodec
    from hvabi.abi.scope import Scope


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What is to be read: registers, pieces of memory, and at most one block by name. What is not here is not known."""

    regs: Mapping[str, int] = field(default_factory=dict)
    mem: tuple[tuple[int, bytes], ...] = ()
    block: tuple[str, bytes] | None = None


class _Nothing:
    """Knows no register and no memory: every field takes its default."""

    def register(self, name: str) -> int | None:
        return None

    def read(self, block: str, address: int, size: int) -> bytes | None:
        return None


class GivenReader:
    """Reads from what was given; None for what was not. `truncated` errors name block and offset."""

    def __init__(self, codec: MessageCodec, given: Given) -> None:
        self._codec = codec
        self._given = given
        self._pieces = given.mem
        if given.block is not None:
            # A block given by name lies where the defaults say; nothing else of the message is known then.
            self._pieces = ((_default_base(codec, given.block[0]), given.block[1]), *given.mem)
        self._scope: Scope | None = None

    def bind(self, scope: Scope) -> None:
        """Take the scope in which addresses of blocks are worked out."""
        self._scope = scope

    def base(self, block: str) -> int:
        """Return the address of a block."""
        if self._scope is None:
            raise RuntimeError("the reader has no scope yet")
        return self._codec.placer.address(self._codec.placer.blocks[block], self._scope)

    def register(self, name: str) -> int | None:
        """Return a register, or None where it was not given."""
        value = self._given.regs.get(name)
        if value is not None and not 0 <= value < 1 << register_bits(name):
            raise CodecError(
                "value-too-large", f"does not fit {register_bits(name)} bits", path=name, found=value
            )
        return value

    def has(self, block: str) -> bool:
        """Whether the first byte of a block was given."""
        spec = self._codec.placer.blocks[block]
        if spec.registers:
            return any(name in self._given.regs for name in spec.registers)
        if self._given.block is not None and self._given.block[0] == block:
            return True
        if not self._pieces:
            return False
        base = self.base(block)
        return any(start <= base < start + len(data) for start, data in self._pieces)

    def read(self, block: str, address: int, size: int) -> bytes | None:
        """Return bytes of a block, or None where none of it was given."""
        if not self.has(block):
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


def _default_base(codec: MessageCodec, block: str) -> int:
    request = codec.request.reader(_Nothing())[0] if codec.request is not None else None
    _, scope = codec.reader(_Nothing(), request=request)
    return codec.placer.address(codec.placer.blocks[block], scope)
