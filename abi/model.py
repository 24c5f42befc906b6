"""The shape of messages: fields, layouts, placements and transports, as read from a specification file.

All values are frozen. ``pointer`` is the path of keys and indices in the file, so that a diagnostic can name line
and column. Widths are in bits, offsets and sizes in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hvabi.abi.expr import Expr

Pointer = tuple[str | int, ...]
Endian = Literal["little", "big"]
Access = Literal["in", "out", "inout"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """When an item of a specification holds: revisions and transports (None: all), and policy values."""

    revisions: tuple[str, ...] | None = None
    transports: tuple[str, ...] | None = None
    policy: Mapping[str, str] = field(default_factory=dict)

    def holds(self, revision: str, policies: Mapping[str, str]) -> bool:
        """Whether the item exists in this revision under these policy values."""
        if self.revisions is not None and revision not in self.revisions:
            return False
        return all(policies.get(name) == value for name, value in self.policy.items())

    def serves(self, transport: str) -> bool:
        """Whether the item concerns this transport."""
        return self.transports is None or transport in self.transports


ALWAYS = Guard()


@dataclass(frozen=True, slots=True, kw_only=True)
class EnumValue:
    """One named number of an enum; `by_revision` has the number in revisions where it is another one."""

    name: str
    value: int
    doc: str
    mirrors: str | None = None
    note: str | None = None
    by_revision: Mapping[str, int] = field(default_factory=dict)
    guard: Guard = ALWAYS
    pointer: Pointer = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Enum:
    """An open set of named numbers of `bits` bits; `elsewhere` are numbers that only other revisions have."""

    name: str
    bits: int
    doc: str
    signed: bool
    values: Mapping[str, EnumValue]
    elsewhere: frozenset[int] = frozenset()
    pointer: Pointer = ()

    def name_of(self, number: int) -> str | None:
        """Return the name of a number, or None where the specification has none."""
        for value in self.values.values():
            if value.value == number:
                return value.name
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """A named number; `mirrors` is the symbol of a public header that has the same value."""

    name: str
    value: int
    doc: str
    mirrors: str | None = None
    pointer: Pointer = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserved:
    """What a sender puts into reserved bits and what a receiver does with them."""

    send: Literal["zero", "any"]
    receive: Literal["reject", "ignore", "preserve"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Default:
    """What an encoder takes in some revisions for a field that it is not given."""

    expr: Expr
    guard: Guard
    pointer: Pointer = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field of a layout or a message.

    Attributes:
        bits: width; for a list the width of one element.
        lo: lowest bit in its integer (layouts only; 0 for a whole integer).
        at: byte offset of its integer in the layout (layouts only).
        size: bytes of its integer in the layout (layouts only).
        word: the layout of the bit fields inside it, or None.
        items: for a list, the layout of an element, or None for plain integers.
        is_list: whether it is a list; then `count` says how many.
        defaults: the default of each revision that has one of its own; `default` is the one of this revision.
        others: where numbers of the field stand for calls: (first, last) numbers of other calls, of which the
            specification says nothing.

    """

    name: str
    doc: str
    bits: int
    lo: int = 0
    at: int = 0
    size: int = 0
    signed: bool = False
    enum: Enum | None = None
    unit: str | None = None
    const: Expr | None = None
    default: Expr | None = None
    defaults: tuple[Default, ...] = ()
    reserved: Reserved | None = None
    word: Layout | None = None
    items: Layout | None = None
    is_list: bool = False
    count: Expr | None = None
    chosen_by_host: bool = False
    others: tuple[tuple[int, int], ...] = ()
    guard: Guard = ALWAYS
    pointer: Pointer = ()

    @property
    def hi(self) -> int:
        """Highest bit in its integer."""
        return self.lo + self.bits - 1

    def is_another_call(self, number: int) -> bool:
        """Whether a number of this field stands for a call of which the specification says nothing."""
        return any(first <= number <= last for first, last in self.others)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A word with bit fields or a structure of fixed size."""

    name: str
    size: int
    endian: Endian
    doc: str
    fields: Mapping[str, Field]
    partial: bool = False
    pointer: Pointer = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A logical message: named fields, no places. `body` is the block that is the message in bytes."""

    name: str
    doc: str
    fields: Mapping[str, Field]
    body: str | None = None
    guard: Guard = ALWAYS
    pointer: Pointer = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterPlace:
    """A field in bits hi:lo of a register; hi None means as wide as the field."""

    register: str
    hi: int | None = None
    lo: int = 0
    sign_extend: bool = False
    guard: Guard = ALWAYS
    pointer: Pointer = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PairPlace:
    """A field in the low 32 bits of two registers."""

    high: str
    low: str
    guard: Guard = ALWAYS
    pointer: Pointer = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockPlace:
    """A field in a block: at a byte offset, `size` bytes, bits hi:lo of them; lists have a stride in bytes."""

    block: str
    at: Expr
    size: int | None = None
    hi: int | None = None
    lo: int = 0
    stride: Expr | None = None
    layout_field: str | None = None
    guard: Guard = ALWAYS
    pointer: Pointer = ()


Place = RegisterPlace | PairPlace | BlockPlace


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Bytes that a message uses: guest memory at `at`, or registers taken as bytes.

    `space` is None for guest memory, else the name of another address space, such as ``kvm-run``.
    """

    name: str
    doc: str
    at: Expr | None
    size: Expr
    endian: Endian
    access: Access
    layout: Layout | None = None
    registers: tuple[str, ...] = ()
    space: str | None = None
    guard: Guard = ALWAYS
    pointer: Pointer = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where the fields of one message lie on one transport.

    `fixed` are registers, and `parts` fields of words (``control.fast``), whose values select this call on this
    transport.
    """

    message: str
    fixed: Mapping[str, Expr]
    blocks: Mapping[str, Block]
    place: Mapping[str, tuple[Place, ...]]
    absent: tuple[str, ...] = ()
    may_change: tuple[str, ...] = ()
    parts: Mapping[str, Expr] = field(default_factory=dict)
    pointer: Pointer = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Transport:
    """One way to make the calls of an ABI: an instruction, its registers and memory."""

    name: str
    doc: str
    isa: str
    mode: Literal["32", "64"]
    shows_cpl: bool
    instruction: str | None
    instruction_bytes: str | None
    limits: Mapping[str, Constant]
    placements: Mapping[str, Placement]
    guard: Guard = ALWAYS
    pointer: Pointer = ()
