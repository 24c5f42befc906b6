"""Checks of transports: every field has a place, places exist and do not overlap, blocks can be found in order."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from hvabi.abi.errors import ExprError
from hvabi.abi.expr import evaluate, names
from hvabi.abi.lint_context import answers_of
from hvabi.abi.lint_messages import check_constants, codec_entries
from hvabi.abi.lint_scope import NameScope, static_entries
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
    "unknown-message": "A message that is named does not exist.",
    "unknown-field": "A field that is named does not exist.",
    "unknown-block": "A block that is named does not exist.",
    "unknown-register": "A register does not exist on the ISA of the transport.",
    "message-unplaced": "No transport places a message that a call uses.",
    "response-unplaced": "A transport places a request and not its response.",
    "field-unplaced": "A field has no place on a transport, no value of its own, and is not listed as absent.",
    "field-absent": "A field is listed as absent and has a place, or has no default to take.",
    "place-kind": "A list does not lie in a block, or a single field has a stride.",
    "place-width": "A field does not fit its place, or bits lie outside a register.",
    "place-overlap": "Two fields of a message lie in the same bits.",
    "block-layout": "A field of a block is named and the block has no layout, or one larger than the block.",
    "block-order": "The address of a block depends on a field that lies in this block or a later one.",
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


def check_transports(context: Context) -> None:
    """Check every transport and every message on it."""
    abi, report = context.abi, context.report
    for transport in abi.transports.values():
        check_constants(transport.limits.values(), report)
        for placement in transport.placements.values():
            message = abi.messages.get(placement.message)
            if message is None:
                report.error(
                    placement.pointer[:-1],
                    "unknown-message",
                    f"there is no message `{placement.message}`",
                    near(placement.message, abi.messages),
                    key=placement.message,
                )
            else:
                _Placing(context, transport, placement, message).check()
    _check_messages_placed(context)


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
    return re.fullmatch(_REGISTERS[transport.isa], name) is not None


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


def _check_messages_placed(context: Context) -> None:
    abi, report = context.abi, context.report
    for call in abi.calls.values():
        for key, name in (("request", call.request), ("response", call.response)):
            if name is None:
                continue
            if name not in abi.messages:
                report.error(
                    (*call.pointer, key),
                    "unknown-message",
                    f"there is no message `{name}`",
                    near(name, abi.messages),
                )
            elif not any(name in transport.placements for transport in abi.transports.values()):
                report.error((*call.pointer, key), "message-unplaced", f"no transport places message `{name}`")
        if call.response is None or call.response not in abi.messages:
            continue
        for transport in abi.transports.values():
            sent, answered = (name in transport.placements for name in (call.request, call.response))
            if sent and not answered:
                report.error(
                    transport.pointer,
                    "response-unplaced",
                    f"transport `{transport.name}` places `{call.request}` and not its response `{call.response}`",
                )
    for message in abi.messages.values():
        if message.body is not None and not any(
            message.body in blocks_of(context, transport, message.name) for transport in abi.transports.values()
        ):
            report.error((*message.pointer, "body"), "unknown-block", f"no transport has a block `{message.body}`")


class _Placing:
    """Checks one message on one transport."""

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

    def check(self) -> None:
        """Run all checks."""
        self._check_names()
        self._check_exprs()
        self._check_fields()
        self._check_overlap([part for parts in self._parts() for part in parts])
        self._check_blocks()

    def _number(self, expr: Expr) -> int | None:
        try:
            return evaluate(expr, self.numbers, "int")
        except ExprError:
            return None

    def _check_names(self) -> None:
        known = self.message.fields
        for key, names_ in (("place", self.placement.place), ("absent", self.placement.absent)):
            for name in names_:
                if name not in known:
                    self.report.error(
                        (*self.where, key),
                        "unknown-field",
                        f"message `{self.message.name}` has no field `{name}`",
                        near(name, known),
                        key=name,
                    )
        for register in self.placement.fixed:
            self._check_register(register, (*self.where, "fixed"), key=register)
        for number, name in enumerate(self.placement.may_change):
            check_output(self.context, name, [self.transport], self.message.name, (*self.where, "may-change", number))

    def _check_register(self, name: str, where: Pointer, *, key: str | None = None) -> bool:
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

    def _check_exprs(self) -> None:
        static = static_entries(self.context, [self.transport])
        revisions = self.context.revisions_of(self.transport.guard)
        outer = NameScope(context=self.context, entries=static, revisions=revisions)
        for register in self.placement.fixed:
            outer.check_int((*self.where, "fixed", register))
        scope = outer.with_names(codec_entries(self.context, self.message))
        for block in self.placement.blocks.values():
            inside = scope.with_names({}, revisions=self.context.revisions_of(self.transport.guard, block.guard))
            inside.check_int((*block.pointer, "at"))
            inside.check_int((*block.pointer, "size"))
        for places in self.placement.place.values():
            for place in places:
                if isinstance(place, BlockPlace) and place.layout_field is None:
                    inside = scope.with_names(
                        {}, revisions=self.context.revisions_of(self.transport.guard, place.guard)
                    )
                    inside.check_int((*place.pointer, "at"))
                    inside.check_int((*place.pointer, "stride"))

    def _check_fields(self) -> None:
        for item in self.message.fields.values():
            places = self.placement.place.get(item.name, ())
            absent = item.name in self.placement.absent
            own_value = item.const is not None or item.default is not None
            if absent and places:
                self.report.error(
                    (*self.where, "place"),
                    "field-absent",
                    f"field `{item.name}` is listed as absent and has a place",
                    key=item.name,
                )
            elif absent and not (own_value or item.reserved or item.is_list) and "request" in self._roles():
                self.report.error(
                    (*self.where, "absent"),
                    "field-absent",
                    f"field `{item.name}` is absent on transport `{self.transport.name}` and has no default",
                    "give the field a default",
                )
            elif not places and not absent and not own_value:
                self._unplaced(item, "")
            elif places and not own_value:
                guards = [place.guard for place in places]
                for revision in self.context.revisions_of(self.transport.guard, item.guard):
                    if not any(g.revisions is None or revision in g.revisions for g in guards):
                        self._unplaced(item, f" in revision {revision}")

    def _roles(self) -> set[str]:
        return {
            role
            for call in self.context.abi.calls.values()
            for role, name in (("request", call.request), ("response", call.response))
            if name == self.message.name
        }

    def _unplaced(self, item: Field, when: str) -> None:
        self.report.error(
            self.where,
            "field-unplaced",
            f"field `{item.name}` of message `{self.message.name}` has no place on transport "
            f"`{self.transport.name}`{when}",
            "place it, give it a const or default, or list it in absent",
        )

    def _parts(self) -> Iterator[list[_Part]]:
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
                if not self._check_register(register, place.pointer):
                    return []
                return self._register_bits(item, place)
            case PairPlace(high=high, low=low):
                known = [self._check_register(each, place.pointer) for each in (high, low)]
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
        at = self._number(place.at)
        if at is None or item.is_list:
            return []
        bits = item.bits if place.hi is None else place.hi - place.lo + 1
        size = self._number(block.size)
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

    def _check_overlap(self, parts: list[_Part]) -> None:
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
        return [{name.partition(".")[0] for name in answer.fields} for call in calls for answer in answers_of(call)]

    def _check_blocks(self) -> None:
        order = list(self.blocks)
        homes: dict[str, set[str]] = {}
        for name, places in self.placement.place.items():
            homes[name] = {place.block for place in places if isinstance(place, BlockPlace)}
        for block in self.placement.blocks.values():
            for number, register in enumerate(block.registers):
                self._check_register(register, (*block.pointer, "registers", number))
            size = self._number(block.size)
            if block.layout is not None and size is not None and block.layout.size > size:
                self.report.error(
                    (*block.pointer, "size"),
                    "block-layout",
                    f"block `{block.name}` has {size} bytes, its layout `{block.layout.name}` {block.layout.size}",
                )
            if block.at is None:
                continue
            for name in sorted(names(block.at)):
                for home in sorted(homes.get(name, ())):
                    if home in order and order.index(home) >= order.index(block.name):
                        self.report.error(
                            (*block.pointer, "at"),
                            "block-order",
                            f"block `{block.name}` is found through `{name}`, which lies in block `{home}`",
                            "use fields in registers or in blocks that stand earlier",
                        )


def _meet(one: Guard, other: Guard) -> bool:
    """Whether two guards can hold at the same time."""
    if one.revisions is not None and other.revisions is not None and not set(one.revisions) & set(other.revisions):
        return False
    return all(other.policy.get(name, value) == value for name, value in one.policy.items())
