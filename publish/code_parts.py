"""What generated C and Rust are made of: names, numbers, and which bits of which byte a field has.

Byte order is dissolved here: a field is a list of `Piece`, one for each byte that it touches, so both languages read
and write bytes only and neither needs to know the order of the machine or an alignment.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hvabi.abi.errors import HvAbiError
from hvabi.abi.expr import evaluate
from hvabi.abi.model import RegisterPlace
from hvabi.abi.scope import enum_names
from hvabi.abi.wire import register_bits

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hvabi.abi.expr import Expr
    from hvabi.abi.model import Enum, Field, Guard, Layout
    from hvabi.abi.specification import Abi

WIDEST = 128
"""Bits of the widest field that has accessors."""


class CodeError(HvAbiError):
    """Code cannot be generated: two things of an ABI have the same name in it."""

    code = "gen"


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Bits `mask` of the byte at `at`. The byte goes `shift` bits up (or down, where negative) into the field."""

    at: int
    mask: int
    shift: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One field as code has it: in a layout, or in a register.

    Attributes:
        at: offset of its integer in bytes (layouts only).
        size: size of that integer in bytes; 8 for a register.
        lo: lowest bit in that integer.
        shift: lowest bit in the whole layout or register taken as one integer.
        extend: the register's bits above the field are copies of its sign.
        value: the only value that it may have, or None.
        pieces: where its bits are in the bytes of the layout.

    """

    name: str
    doc: str
    bits: int
    at: int = 0
    size: int = 8
    lo: int = 0
    shift: int = 0
    signed: bool = False
    extend: bool = False
    value: int | None = None
    endian: str = "little"
    pieces: tuple[Piece, ...] = ()

    @property
    def max(self) -> int:
        """The field with all bits set, at bit 0."""
        return (1 << self.bits) - 1

    @property
    def whole(self) -> bool:
        """Whether it is all of its integer."""
        return self.bits == self.size * 8

    def half(self, number: int) -> tuple[Piece, ...]:
        """Return the pieces that have bits of the lower (0) or upper (1) 64 bits, shifts into that half."""
        return tuple(pieces(self.at, self.size, self.lo + number * 64, min(64, self.bits - number * 64),
                            self.endian))  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The slots of a layout, or of a message in registers. `size` is 0 for a message.

    `covered` has a 1 for each bit of the layout that some field has.
    """

    name: str
    doc: str
    slots: tuple[Slot, ...]
    size: int = 0
    endian: str = ""
    covered: int = 0

    @property
    def word(self) -> bool:
        """Whether it fits an integer of 64 bits, so that there are accessors for the value in a register."""
        return 0 < self.size <= 8

    @property
    def load(self) -> tuple[Piece, ...]:
        """The pieces of a word as a whole."""
        return tuple(pieces(0, self.size, 0, self.size * 8, self.endian))


def pieces(at: int, size: int, lo: int, bits: int, endian: str) -> Iterator[Piece]:
    """Yield the pieces of bits `lo` and up of an integer, lowest byte first."""
    for number in range(lo // 8, (lo + bits - 1) // 8 + 1):
        first, last = max(lo, number * 8), min(lo + bits, number * 8 + 8)
        mask = (1 << (last - number * 8)) - (1 << (first - number * 8))
        byte = number if endian == "little" else size - 1 - number
        yield Piece(at=at + byte, mask=mask, shift=number * 8 - lo)


def layout_group(layout: Layout) -> Group:
    """Return a layout of fixed size."""
    slots = tuple(_layout_slot(item, layout) for item in layout.fields.values())
    covered = 0
    for slot in slots:
        covered |= slot.max << slot.shift
    return Group(name=layout.name, doc=layout.doc, slots=slots, size=layout.size, endian=layout.endian,
                 covered=covered)  # fmt: skip


def _layout_slot(item: Field, layout: Layout) -> Slot:
    first = item.at if layout.endian == "little" else layout.size - item.at - item.size
    return Slot(
        name=item.name,
        doc=item.doc,
        bits=item.bits,
        at=item.at,
        size=item.size,
        lo=item.lo,
        shift=first * 8 + item.lo,
        signed=item.signed,
        value=evaluate(item.const, {}, "int") if item.const is not None else None,
        endian=layout.endian,
        pieces=tuple(pieces(item.at, item.size, item.lo, item.bits, layout.endian)),
    )


def register_groups(abi: Abi) -> Iterator[Group]:
    """Yield for each message and transport the fields that are part of a register, or that have one value.

    A field that is a whole register needs no code. A register that selects the call is a slot ``fixed_REGISTER``.
    """
    names = {**enum_names(abi), **{name: item.value for name, item in abi.constants.items()}}
    for transport in abi.transports.values():
        for name, placement in transport.placements.items():
            slots = []
            for register, expr in placement.fixed.items():
                value = _number(expr, names)
                if value is not None and (bits := register_bits(register)) <= 64:
                    doc = f"{register} selects the call."
                    slots.append(Slot(name=f"fixed_{register}", doc=doc, bits=bits, value=value))
            message = abi.messages[name]
            for key, places in placement.place.items():
                if (item := message.fields.get(key)) is None or item.is_list:
                    continue
                ours = [place for place in places if isinstance(place, RegisterPlace)]
                value = _number(item.const, names) if item.const is not None else None
                for place in ours:
                    hi = place.lo + item.bits - 1 if place.hi is None else place.hi
                    part = place.lo > 0 or hi < 63
                    if hi > 63 or not (part or value is not None):
                        continue
                    suffix = f"_{place.register}" if len(ours) > 1 else ""
                    slots.append(
                        Slot(name=f"{key}{suffix}", doc=f"{place.register} {hi}:{place.lo}: {item.doc}",
                             bits=hi - place.lo + 1, lo=place.lo, shift=place.lo, signed=item.signed,
                             extend=place.sign_extend and hi < 63, value=value)
                    )  # fmt: skip
            if slots:
                yield Group(name=f"{transport.name}_{name}", doc=f"{name} on {transport.name}: {message.doc}",
                            slots=_distinct(slots))  # fmt: skip


def _distinct(slots: Iterable[Slot]) -> tuple[Slot, ...]:
    """Return each slot once: a place that two revisions share is one; one that moved has its bit in its name."""
    kept: dict[str, Slot] = {}
    for slot in slots:
        name = slot.name
        if (old := kept.get(name)) is not None and (old.shift, old.bits) != (slot.shift, slot.bits):
            name = f"{slot.name}_at_{slot.shift}"
        kept.setdefault(name, slot)
    return tuple(replace(slot, name=name) for name, slot in kept.items())


def _number(expr: Expr, names: dict[str, object]) -> int | None:
    """Return the value of an expression that needs no configuration and no other field, else None."""
    try:
        return evaluate(expr, names, "int")
    except (HvAbiError, KeyError):
        return None


def values_of(enum: Enum) -> Iterator[tuple[str, int, str]]:
    """Yield name, value and text of every value; the text says where it holds."""
    for item in enum.values.values():
        only = _only(item.guard)
        others = ", ".join(f"{value:#x} in {revision}" for revision, value in item.by_revision.items())
        text = f"{item.doc}{f' ({only})' if only else ''}{f' ({others})' if others else ''}"
        yield item.name, item.value, text


def _only(guard: Guard) -> str:
    held = [f"{', '.join(guard.revisions)} only"] if guard.revisions is not None else []
    return "; ".join([*held, *(f"{name} {value}" for name, value in guard.policy.items())])
