"""Where the fields of a message lie: registers, bits and bytes exist, are wide enough, and do not overlap."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from hvabi.abi.errors import ExprError
from hvabi.abi.expr import evaluate
from hvabi.abi.lint_context import answers_of
from hvabi.abi.model import BlockPlace, Guard, PairPlace, RegisterPlace
from hvabi.abi.schema import near
from hvabi.abi.scope import enum_names
from hvabi.abi.wire import register_bits

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hvabi.abi.expr import Expr
    from hvabi.abi.lint_context import Context
    from hvabi.abi.model import Block, Field, Message, Place, Placement, Pointer, Transport

IDS: Mapping[str, str] = {
    "unknown-field": "A field that is named does not exist.",
    "unknown-block": "A block that is named does not exist.",
    "unknown-register": "A register does not exist on the ISA of the transport.",
    "place-kind": "A list does not lie in a block, or a single field has a stride.",
    "place-width": "A field does not fit its place, or bits lie outside a register.",
    "place-overlap": "Two fields of a message lie in the same bits.",
    "block-layout": "A field of a block is named and the block has no layout, or one larger than the block.",
}
"""Every id of this module, with one sentence each."""

_REGISTERS: Mapping[str, str] = {
    "x86-64": r"r[abcd]x|r[sd]i|r[sb]p|r([89]|1[0-5])|x?mm([0-9]|[12][0-9]|3[01])|msr_[0-9a-f]{8}|rip|rflags",
    "arm64": r"x([0-9]|[12][0-9]|30)|sp|pc",
    "s390x": r"r([0-9]|1[0-5])|cc",
    "ppc64": r"r([0-9]|[12][0-9]|3[01])|cr|lr|ctr|xer",
    "riscv64": r"a[0-7]|t[0-6]|s([0-9]|1[01])|ra|sp|gp|tp",
    "ioctl": r"[a-z][a-z0-9_]*",
    "kvm-run": r"[a-z][a-z0-9_]*",
}
_REGISTER_HINTS: Mapping[str, str] = {
    "x86-64": "rax to r15, xmm0 to xmm31, msr_c0010130",
    "arm64": "x0 to x30",
    "s390x": "r0 to r15, cc",
    "ppc64": "r0 to r31",
    "riscv64": "a0 to a7",
}


class _Part(NamedTuple):
    """Bits of a register or of a block that a field takes."""

    home: str
    lo: int
    hi: int
    field: str
    guard: Guard
    pointer: Pointer


def blocks_of(context: Context, transport: Transport, message: str) -> dict[str, Block]:
    """Return the blocks of a message on a transport; a response has those of its request too."""
    blocks: dict[str, Block] = {}
    for call in context.abi.calls.values():
        sent = transport.placements.get(call.request)
        if call.response == message and sent is not None:
            blocks.update(sent.blocks)
    placement = transport.placements.get(message)
    blocks.update(placement.blocks if placement else {})
    return blocks


def known_register(transport: Transport, name: str) -> bool:
    """Whether the ISA of the transport has a register of this name."""
    return is_register(transport.isa, name)


def is_register(isa: str, name: str) -> bool:
    """Whether an ISA has a register of this name."""
    return re.fullmatch(_REGISTERS[isa], name) is not None


def check_output(context: Context, name: str, transports: list[Transport], message: str, where: Pointer) -> None:
    """Check a member of ``may-change``: a register, a block, or BLOCK.FIELD on one of the transports."""
    block_name, _, inner = name.partition(".")
    layouts = []
    for transport in transports:
        block = blocks_of(context, transport, message).get(block_name)
        if block is not None:
            if not inner or (block.layout is not None and inner in block.layout.fields):
                return
            layouts.append(block.layout)
        elif not inner and known_register(transport, name):
            return
    if any(layout is None for layout in layouts):
        context.report.error(where, "block-layout", f"block `{block_name}` has no layout")
    elif layouts:
        known = [each for layout in layouts if layout for each in layout.fields]
        context.report.error(where, "unknown-field", f"block `{block_name}` has no field `{inner}`", near(inner, known))
    else:
        context.report.error(where, "unknown-block", f"`{block_name}` is no block and no register here")


class PlaceChecks:
    """The places of one message on one transport."""

    def __init__(self, context: Context, transport: Transport, placement: Placement, message: Message) -> None:
        self.context = context
        self.report = context.report
        self.transport = transport
        self.placement = placement
        self.message = message
        self.blocks = blocks_of(context, transport, message.name)
        self.where = placement.pointer
        self.numbers = {
            **{name: value for name, value in enum_names(context.abi).items() if isinstance(value, int)},
            **{name: constant.value for name, constant in context.abi.constants.items()},
            **{name: limit.value for name, limit in transport.limits.items()},
        }

    def number(self, expr: Expr) -> int | None:
        """Return the value of an expression over constants and limits, None where it depends on fields."""
        try:
            return evaluate(expr, self.numbers, "int")
        except ExprError:
            return None

    def check_register(self, name: str, where: Pointer, *, key: str | None = None) -> bool:
        """Report a register that the ISA does not have; return whether it has it."""
        if known_register(self.transport, name):
            return True
        isa = self.transport.isa
        self.report.error(
            where,
            "unknown-register",
            f"{isa} has no register `{name}`",
            f"registers are {_REGISTER_HINTS.get(isa, '')}",
            key=key,
        )
        return False

    def roles(self) -> set[str]:
        """Return whether calls use the message as their request, as their response, or both."""
        return {
            role
            for call in self.context.abi.calls.values()
            for role, name in (("request", call.request), ("response", call.response))
            if name == self.message.name
        }

    def parts(self) -> Iterator[list[_Part]]:
        """Yield the bits that each field takes, and report places that do not fit."""
        for register in self.placement.fixed:
            where = (*self.where, "fixed", register)
            yield [_Part(register, 0, register_bits(register) - 1, f"fixed {register}", Guard(), where)]
        for name, places in self.placement.place.items():
            item = self.message.fields.get(name)
            for place in places if item is not None else ():
                assert item is not None  # the loop is empty otherwise
                found = self._place(item, place)
                guard = Guard(revisions=place.guard.revisions or item.guard.revisions, policy=place.guard.policy)
                yield [_Part(home, lo, hi, name, guard, place.pointer) for home, lo, hi in found]

    def _place(self, item: Field, place: Place) -> list[tuple[str, int, int]]:
        if item.is_list and not isinstance(place, BlockPlace):
            self.report.error(place.pointer, "place-kind", f"list `{item.name}` must lie in a block")
            return []
        match place:
            case RegisterPlace(register=register):
                if not self.check_register(register, place.pointer):
                    return []
                return self._register_bits(item, place)
            case PairPlace(high=high, low=low):
                known = [self.check_register(each, place.pointer) for each in (high, low)]
                if item.bits > 64:
                    self._too_wide(item, place, "two halves of 32 bits")
                return [(high, 0, 31), (low, 0, 31)] if all(known) else []
            case BlockPlace():
                return self._block_bits(item, place)

    def _register_bits(self, item: Field, place: RegisterPlace) -> list[tuple[str, int, int]]:
        width = register_bits(place.register)
        if place.hi is None:
            if item.bits > width:
                self._too_wide(item, place, f"the {width} bits of {place.register}")
            return [(place.register, 0, width - 1)]
        if not place.lo <= place.hi < width:
            self.report.error(
                place.pointer,
                "place-width",
                f"bits [{place.hi}, {place.lo}] do not lie in the {width} bits of {place.register}",
            )
            return []
        if place.hi - place.lo + 1 > item.bits:
            self.report.error(
                place.pointer,
                "place-width",
                f"bits [{place.hi}, {place.lo}] are more than the {item.bits} bits of `{item.name}`",
            )
        return [(place.register, place.lo, place.hi)]

    def _too_wide(self, item: Field, place: Place, where: str) -> None:
        self.report.error(place.pointer, "place-width", f"`{item.name}` has {item.bits} bits and does not fit {where}")

    def _block_bits(self, item: Field, place: BlockPlace) -> list[tuple[str, int, int]]:
        block = self.blocks.get(place.block)
        if block is None:
            hint = near(place.block, self.blocks)
            self.report.error(place.pointer, "unknown-block", f"there is no block `{place.block}`", hint)
            return []
        if (place.stride is not None) != item.is_list and place.stride is not None:
            self.report.error((*place.pointer, "stride"), "place-kind", f"`{item.name}` is no list and has no stride")
        if place.layout_field is not None:
            return self._layout_bits(item, place, block)
        if place.hi is not None and place.size is not None and place.hi >= place.size * 8:
            self.report.error(
                (*place.pointer, "bits"),
                "place-width",
                f"bits [{place.hi}, {place.lo}] do not lie in {place.size} bytes",
            )
            return []
        at = self.number(place.at)
        if at is None or item.is_list:
            return []
        bits = item.bits if place.hi is None else place.hi - place.lo + 1
        size = self.number(block.size)
        if size is not None and at * 8 + place.lo + bits > size * 8:
            self._too_wide(item, place, f"block `{block.name}` of {size} bytes at offset {at:#x}")
        whole = (place.size or (place.lo + bits + 7) // 8) * 8
        lo = place.lo if block.endian == "little" else whole - place.lo - bits
        return [(place.block, at * 8 + lo, at * 8 + lo + bits - 1)]

    def _layout_bits(self, item: Field, place: BlockPlace, block: Block) -> list[tuple[str, int, int]]:
        if block.layout is None:
            self.report.error(place.pointer, "block-layout", f"block `{block.name}` has no layout")
            return []
        inner = block.layout.fields.get(place.layout_field or "")
        if inner is None:
            self.report.error(
                place.pointer,
                "unknown-field",
                f"layout `{block.layout.name}` has no field `{place.layout_field}`",
                near(place.layout_field, block.layout.fields),
            )
            return []
        if item.bits > inner.bits and not item.is_list:
            self._too_wide(item, place, f"the {inner.bits} bits of {block.name}.{inner.name}")
        lo = inner.at * 8 + (inner.lo if block.layout.endian == "little" else inner.size * 8 - inner.lo - inner.bits)
        return [(place.block, lo, lo + inner.bits - 1)]

    def check_overlap(self, parts: list[_Part]) -> None:
        """Report bits that two fields take in one message."""
        together = self._written_together()
        for number, part in enumerate(parts):
            for other in parts[:number]:
                if (
                    part.home == other.home
                    and part.field != other.field
                    and part.lo <= other.hi
                    and other.lo <= part.hi
                    and _meet(part.guard, other.guard)
                    and (together is None or any({part.field, other.field} <= fields for fields in together))
                ):
                    shared = min(part.hi, other.hi) - max(part.lo, other.lo) + 1
                    self.report.error(
                        part.pointer,
                        "place-overlap",
                        f"`{part.field}` and `{other.field}` share {shared} bits of {part.home}",
                        "give `bits` where a register or a word holds several fields",
                    )

    def _written_together(self) -> list[set[str]] | None:
        """Return the sets of fields that answers write at once; None for a message that is sent as a whole.

        The same bits of an answer may be one field or another, but never both in one answer.
        """
        calls = [call for call in self.context.abi.calls.values() if call.response == self.message.name]
        if not calls:
            return None
        return [
            {name.partition(".")[0] for name in answer.fields}
            for call in calls
            for answer in answers_of(call)
            if answer.guard.serves(self.transport.name)
        ]


def _meet(one: Guard, other: Guard) -> bool:
    """Whether two guards can hold at the same time."""
    if one.revisions is not None and other.revisions is not None and not set(one.revisions) & set(other.revisions):
        return False
    return all(other.policy.get(name, value) == value for name, value in one.policy.items())
