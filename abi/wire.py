"""What travels: registers and bytes in memory, as plain values."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from hvabi.abi.errors import CodecError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def register_bits(name: str) -> int:
    """Return the width of a register in bits: 128 for ``xmm0`` to ``xmm31``, else 64."""
    return 128 if name.startswith("xmm") else 64


@dataclass(frozen=True, slots=True)
class Wire:
    """One message on its transport: register values, and pieces of memory as ``(address, bytes)``.

    ``body`` are the bytes of the message's body block where the message has one, else its registers in order,
    little endian; ``bytes(wire)`` and ``wire.hex()`` give them.
    """

    regs: Mapping[str, int] = field(default_factory=dict)
    mem: tuple[tuple[int, bytes], ...] = ()
    body: bytes = b""

    def __bytes__(self) -> bytes:
        return self.body

    def hex(self) -> str:
        """Return `body` as lower-case hex."""
        return self.body.hex()


class Source(Protocol):
    """Where a decoder reads. None means that there is nothing to read there and the default holds."""

    def register(self, name: str) -> int | None:
        """Return the value of a register, zero or more."""
        ...

    def read(self, block: str, address: int, size: int) -> bytes | None:
        """Return exactly `size` bytes at an address of the space that the block lies in."""
        ...


class Sink(Protocol):
    """Where an encoder writes."""

    def set_register(self, name: str, value: int, mask: int) -> None:
        """Set the bits of `mask` in a register."""
        ...

    def write(self, block: str, address: int, data: bytes) -> None:
        """Write bytes at an address of the space that the block lies in."""
        ...


class WireSource:
    """Reads from a `Wire`: a register that is not there is 0, memory that is not there is an error."""

    def __init__(self, regs: Mapping[str, int], mem: Iterable[tuple[int, bytes]], *, message: str) -> None:
        self._regs = regs
        self._mem = list(mem)
        self._message = message

    def register(self, name: str) -> int | None:
        """Return the register, 0 where it was left out."""
        value = self._regs.get(name, 0)
        if not 0 <= value < 1 << register_bits(name):
            raise CodecError(
                "value-too-large",
                f"does not fit {register_bits(name)} bits",
                message_name=self._message,
                path=name,
                found=value,
            )
        return value

    def read(self, block: str, address: int, size: int) -> bytes | None:
        """Return bytes of one of the pieces, or of several that follow each other."""
        out = bytearray()
        at = address
        while len(out) < size:
            for start, data in self._mem:
                if start <= at < start + len(data):
                    piece = data[at - start : at - start + size - len(out)]
                    out += piece
                    at += len(piece)
                    break
            else:
                raise CodecError(
                    "truncated",
                    f"no byte was given for address {at:#x} of block {block}",
                    message_name=self._message,
                    byte_offset=at - address,
                    expected=f"{size} bytes at {address:#x}",
                    found=len(out),
                )
        return bytes(out)


class BodySource:
    """Reads from the bytes of one block, or of the registers in order; everything else takes its default."""

    def __init__(self, body: bytes, *, block: str | None, base: int, registers: tuple[str, ...], message: str) -> None:
        self._body = body
        self._block = block
        self._base = base
        self._registers = registers
        self._message = message

    def register(self, name: str) -> int | None:
        """Return a register from the bytes, or None where the body is a block."""
        if self._block is not None or name not in self._registers:
            return None
        at = sum(register_bits(other) // 8 for other in self._registers[: self._registers.index(name)])
        size = register_bits(name) // 8
        return int.from_bytes(self._slice(at, size, name), "little")

    def read(self, block: str, address: int, size: int) -> bytes | None:
        """Return bytes of the body block, or None for any other block."""
        if block != self._block:
            return None
        return self._slice(address - self._base, size, block)

    def _slice(self, at: int, size: int, path: str) -> bytes:
        data = self._body[at : at + size] if at >= 0 else b""
        if len(data) < size:
            raise CodecError(
                "truncated",
                "the bytes end too early",
                message_name=self._message,
                path=path,
                byte_offset=at,
                expected=f"{size} bytes at offset {at}",
                found=len(data),
            )
        return data


class WireSink:
    """Collects what is written; overlapping writes merge, later ones win."""

    def __init__(self) -> None:
        self.regs: dict[str, int] = {}
        self._behind: list[tuple[int, bytes]] = []
        self._written: list[tuple[int, bytes]] = []

    def set_register(self, name: str, value: int, mask: int) -> None:
        """Set the bits of `mask`; bits never set are 0."""
        self.regs[name] = (self.regs.get(name, 0) & ~mask) | (value & mask)

    def write(self, block: str, address: int, data: bytes) -> None:
        """Keep bytes at an address."""
        self._written.append((address, data))

    def write_behind(self, address: int, data: bytes) -> None:
        """Keep bytes at an address unless something is written there: zeroes of a block."""
        self._behind.append((address, data))

    @property
    def mem(self) -> tuple[tuple[int, bytes], ...]:
        """Everything written as sorted pieces that neither touch nor overlap."""
        return merge([*self._behind, *self._written])


def merge(pieces: Iterable[tuple[int, bytes]]) -> tuple[tuple[int, bytes], ...]:
    """Lay pieces over each other in order and return them sorted, joined where they touch."""
    pieces = [piece for piece in pieces if piece[1]]
    starts: list[int] = []
    ends: list[int] = []
    for start, end in sorted([(address, address + len(data)) for address, data in pieces]):
        if ends and start <= ends[-1]:
            ends[-1] = max(ends[-1], end)
        else:
            starts.append(start)
            ends.append(end)
    if len(starts) == len(pieces):
        return tuple((address, bytes(data)) for address, data in sorted(pieces))
    spans = [bytearray(end - start) for start, end in zip(starts, ends, strict=True)]
    for address, data in pieces:
        number = bisect_right(starts, address) - 1
        at = address - starts[number]
        spans[number][at : at + len(data)] = data
    return tuple((start, bytes(span)) for start, span in zip(starts, spans, strict=True))


def laid_over(address: int, data: bytes, pieces: Iterable[tuple[int, bytes]]) -> bytes:
    """Return the bytes at an address with what later pieces hold there laid over them; the length stays."""
    out = bytearray(data)
    for start, piece in pieces:
        first, last = max(start, address), min(start + len(piece), address + len(data))
        if first < last:
            out[first - address : last - address] = piece[first - start : last - start]
    return bytes(out)
