"""What an annotated message is made of: rows, words bit by bit, problems. `hvabi.abi.annotate` makes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from hvabi.abi.wire import register_bits

if TYPE_CHECKING:
    from collections.abc import Mapping

Kind = Literal["fixed", "field", "word", "list", "element", "part"]
"""What a row stands for: a register that selects the call, a field, a word with parts, a list, one element of
a list, or a part of a word or element."""

Level = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something in the bytes that is not as the specification has it.

    `code` is ``const-mismatch``, ``fixed-mismatch``, ``reserved-bits``, ``unknown-value`` or ``unread-bits``;
    `level` is ``error`` where a receiver refuses it or it is another message, ``warning`` where a sender must
    not do it, ``note`` where the number merely has no name or the bits are not read.
    """

    code: str
    level: Level
    path: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One field, word, element or register.

    Attributes:
        path: the field inside the message, for example ``entries[0].operation``.
        name: its last part.
        depth: 0 for a field of the message, 1 for a part of a word or an element, and so on.
        register: the register it lies in (``r4:r5`` for a pair), or None.
        block: the block it lies in, or None.
        offset: byte offset in the block, or None.
        hi: highest bit in the register, or in the integer at `offset`.
        lo: lowest bit there.
        bits: width in bits; for a list the width of one element.
        raw: what is there as an unsigned integer; for a list the number of elements.
        value: the same, signed where the field is.
        symbol: the name of the number in the field's enum, or None.
        meaning: the value in words, or empty.
        const: the value that the field must have, or None.
        given: False where nothing was given for it and `value` is the constant, the default or 0.

    """

    path: str
    name: str
    depth: int
    kind: Kind
    doc: str
    register: str | None = None
    block: str | None = None
    offset: int | None = None
    hi: int = 63
    lo: int = 0
    bits: int = 64
    raw: int = 0
    value: int = 0
    enum: str | None = None
    symbol: str | None = None
    meaning: str = ""
    unit: str | None = None
    const: int | None = None
    reserved: bool = False
    optional: bool = False
    given: bool = True
    problem: Problem | None = None

    @property
    def where(self) -> str:
        """The place in words: ``r12``, ``rax 31:0``, ``psc+0x8`` or ``psc+0x8 55:52``."""
        if self.register is not None:
            whole = self.lo == 0 and self.hi + 1 >= _width(self.register)
            return self.register if whole else f"{self.register} {_bits(self.hi, self.lo)}"
        if self.offset is None:
            return _bits(self.hi, self.lo)
        place = f"{self.block}+{self.offset:#x}" if self.block else f"+{self.offset:#x}"
        whole = self.kind in ("list", "element") or (self.lo == 0 and self.bits % 8 == 0 and self.hi + 1 == self.bits)
        return place if whole else f"{place} {_bits(self.hi, self.lo)}"

    @property
    def hex(self) -> str:
        """`raw` as hex, as many digits as the width has; a list's number of elements in decimal."""
        return str(self.raw) if self.kind == "list" else f"{self.raw:#0{2 + (self.bits + 3) // 4}x}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BitRun:
    """Bits hi:lo of a word that belong together: their binary digits, whose they are and what they mean."""

    hi: int
    lo: int
    digits: str
    name: str
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """The bit-level view of one register, word or element: runs from the highest bit down, without a gap."""

    path: str
    where: str
    bits: int
    raw: int
    runs: tuple[BitRun, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """A message as rows.

    Attributes:
        label: ``abi/message``, or the name of a layout.
        transport: name of the transport; empty for a layout.
        rows: fixed registers first, then the fields in order.
        words: every register that several fields share, and every word and element, bit by bit.
        value: the decoded named tuple.
        sizes: size in bytes of each block of memory that the message reads.
        unused: registers that were given and that the message does not have.
        missing: fields that must be known and for which nothing was given.
        left_out: elements of lists that have no rows because there are too many.

    """

    label: str
    transport: str
    doc: str
    rows: tuple[Row, ...]
    words: tuple[Word, ...]
    value: Any
    problems: tuple[Problem, ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    left_out: int = 0


def _bits(hi: int, lo: int) -> str:
    return str(hi) if hi == lo else f"{hi}:{lo}"


def _width(register: str) -> int:
    return 64 if ":" in register else register_bits(register)
