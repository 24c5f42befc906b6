"""Where the fields of a message lie on a transport: as rows of a table and as a drawing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hvabi.abi.errors import CodecError, ExprError
from hvabi.abi.expr import Binary, names
from hvabi.abi.expr_readable import readable
from hvabi.abi.model import BlockPlace, PairPlace, RegisterPlace
from hvabi.abi.scope import Scope, static_names
from hvabi.abi.wire import register_bits
from hvabi.publish.drawing import (
    NARROW,
    WIDE,
    Box,
    Drawing,
    Span,
    Strip,
    bits_text,
    kind_of,
    layers,
    memory_strips,
    title_of,
    word_strips,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hvabi.abi.expr import Expr
    from hvabi.abi.model import Block, Field, Message, Place, Placement, Transport
    from hvabi.abi.specification import Abi
    from hvabi.publish.drawing import Grid


_BASE = 44
"""Longest offset in words that a drawing shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One field or fixed register of a message on a transport: where it lies, and what may be said beside it."""

    name: str
    where: str
    href: str
    doc: str
    made_of: str = ""
    value: str = ""
    reserved: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockRow:
    """One block of a message: where it begins, how long it is."""

    name: str
    at: str
    size: str
    endian: str
    access: str
    doc: str
    space: str
    shared: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A message on a transport. `revisions` are those that have these places, none where all have."""

    message: str
    doc: str
    rows: tuple[Row, ...]
    blocks: tuple[BlockRow, ...]
    absent: tuple[str, ...]
    may_change: tuple[str, ...]
    wide: Drawing
    narrow: Drawing
    revisions: tuple[str, ...] = ()


def blocks_of(abi: Abi, transport: Transport, placement: Placement) -> dict[str, Block]:
    """Return the blocks of a message: a response uses those of its request too."""
    blocks: dict[str, Block] = {}
    for call in abi.calls.values():
        if call.response == placement.message and call.request in transport.placements:
            blocks.update(transport.placements[call.request].blocks)
            break
    blocks.update(placement.blocks)
    return blocks


def placed(abi: Abi, transport: Transport) -> tuple[Placed, ...]:
    """Return the messages of a transport of an unresolved ABI, once for all revisions that place them alike."""
    found: list[Placed] = []
    for name in transport.placements:
        seen: dict[tuple[object, ...], tuple[Placed, list[str]]] = {}
        carried = [
            revision for revision in abi.revisions
            if transport.guard.revisions is None or revision in transport.guard.revisions
        ]  # fmt: skip
        for revision in carried:
            shown = abi.resolve(revision=revision)
            if name not in shown.messages:
                continue
            item = _placed(shown, shown.transports[transport.name], name)
            key = (item.rows, item.blocks, item.absent, item.wide.strips)
            if key in seen:
                seen[key][1].append(revision)
            else:
                seen[key] = item, [revision]
        many = len(seen) > 1
        for item, revisions in seen.values():
            found.append(_with_revisions(item, tuple(revisions)) if many else item)
    return tuple(found)


def _with_revisions(item: Placed, revisions: tuple[str, ...]) -> Placed:
    return replace(item, revisions=revisions)


def _placed(abi: Abi, transport: Transport, name: str) -> Placed:
    placement, message = transport.placements[name], abi.messages[name]
    blocks = blocks_of(abi, transport, placement)
    drawer = _Drawer(abi, transport, placement, message, blocks)
    title = f"{abi.id}, {name} over {transport.name}"
    return Placed(
        message=name,
        doc=message.doc,
        rows=tuple(drawer.rows()),
        blocks=tuple(_block(block, shared=key not in placement.blocks) for key, block in blocks.items()
                     if key in placement.blocks or drawer.uses(key)),
        absent=placement.absent,
        may_change=placement.may_change,
        wide=Drawing(title=title, strips=tuple(drawer.strips(WIDE))),
        narrow=Drawing(title=title, strips=tuple(drawer.strips(NARROW))),
    )  # fmt: skip


def _block(block: Block, *, shared: bool) -> BlockRow:
    return BlockRow(
        name=block.name,
        at=f"registers {', '.join(block.registers)}" if block.at is None else readable(block.at),
        size=readable(block.size),
        endian=block.endian,
        access={"in": "read", "out": "written", "inout": "read and written"}[block.access],
        doc=block.doc,
        space=block.space or "",
        shared=shared,
    )


class _Drawer:
    def __init__(
        self, abi: Abi, transport: Transport, placement: Placement, message: Message, blocks: Mapping[str, Block]
    ) -> None:
        self._abi = abi
        self._placement = placement
        self._message = message
        self._blocks = blocks
        self._static = static_names(abi, transport, {})

    def _placed(self) -> Iterator[tuple[Field, Place]]:
        for name, item in self._message.fields.items():
            places = self._placement.place.get(name)
            if places:
                yield item, places[0]

    def uses(self, block: str) -> bool:
        return any(isinstance(place, BlockPlace) and place.block == block for _, place in self._placed())

    def _href(self, item: Field) -> str:
        return f"#field-{self._message.name}-{item.name}"

    # -- the table ----------------------------------------------------------------------------------------------

    def rows(self) -> Iterator[Row]:
        for register, expr in self._placement.fixed.items():
            yield Row(name=register, where=register, href="", doc="Selects the call.", value=readable(expr))
        for path, expr in self._placement.parts.items():
            href = f"#field-{self._message.name}-{path.partition('.')[0]}"
            yield Row(name=path, where="", href=href, doc="Selects the call.", value=readable(expr))
        for item, place in self._placed():
            value = readable(item.const) if item.const is not None else ""
            yield Row(name=item.name, where=self._where(item, place), href=self._href(item), doc=item.doc,
                      made_of=_made_of(item), value=value, reserved=item.reserved is not None)  # fmt: skip

    def _where(self, item: Field, place: Place) -> str:
        if isinstance(place, RegisterPlace):
            hi = place.lo + item.bits - 1 if place.hi is None else place.hi
            hi = min(hi, register_bits(place.register) - 1)
            whole = place.lo == 0 and place.hi is None and item.bits >= 64
            return place.register if whole else f"{place.register} {bits_text(hi, place.lo)}"
        if isinstance(place, PairPlace):
            return f"{place.high}:{place.low}"
        span, base = self._span(item, place)
        at = f"{base} + {span.at:#x}" if base and span.at else base or f"{span.at:#x}"
        if span.stride:
            return f"{place.block} at {at}, every {span.stride}"
        whole = span.lo == 0 and span.bits == span.size * 8
        return f"{place.block} at {at}" + ("" if whole else f" {bits_text(span.lo + span.bits - 1, span.lo)}")

    # -- the drawing --------------------------------------------------------------------------------------------

    def strips(self, grid: Grid) -> Iterator[Strip]:
        registers: dict[str, list[Span]] = {}
        for register, expr in self._placement.fixed.items():
            text = readable(expr)
            registers[register] = [
                Span(name=f"= {text}", at=0, size=8, lo=0, bits=register_bits(register), kind="fixed", href="",
                     title=f"{register} is {text}: it selects the call")
            ]  # fmt: skip
        memory: dict[str, dict[str, list[Span]]] = {name: {"": []} for name in self._placement.blocks}
        for item, place in self._placed():
            if isinstance(place, RegisterPlace):
                registers.setdefault(place.register, []).extend(self._in_register(item, place))
            elif isinstance(place, PairPlace):
                for register, lo in ((place.high, 32), (place.low, 0)):
                    registers.setdefault(register, []).extend(self._half(item, lo))
            else:
                span, base = self._span(item, place)
                memory.setdefault(place.block, {}).setdefault(base, []).append(span)
        for register, spans in registers.items():
            for number, layer in enumerate(layers(spans)):
                label = f"or {register}" if number else register
                # A result that is no register of the machine, such as a condition code, is as wide as its field.
                own = len(spans) == 1 and spans[0].name == register
                yield from word_strips(layer, spans[0].bits if own else register_bits(register), grid, label=label)
        for name, parts in memory.items():
            yield from self._memory(self._blocks[name], parts, grid)

    def _memory(self, block: Block, parts: Mapping[str, list[Span]], grid: Grid) -> Iterator[Strip]:
        sizes = [(name, register_bits(name) // 8) for name in block.registers]
        for base, spans in parts.items():
            if not spans:
                continue
            if base:
                words = base if len(base) <= _BASE else "an offset that the table has"
                note = Box(start=0, bits=grid.row * 8, name=f"{block.name} at {words}", kind="note", title=f"at {base}")
                yield Strip(label="", bits=grid.row * 8, boxes=(note,), group=f"{block.name} {base}")
            size = self._number(block.size) if not base and not any(span.stride for span in spans) else None
            for number, layer in enumerate(layers(spans)):
                for strip in memory_strips(layer, block.endian, grid, base=base, size=size, registers=sizes):
                    shown = replace(strip, group=block.name) if sizes else _labelled(strip, block.name, base)
                    yield (
                        replace(shown, label=f"or {shown.label}", group=f"{shown.group} {number}") if number else shown
                    )

    def _in_register(self, item: Field, place: RegisterPlace) -> list[Span]:
        top = register_bits(place.register)
        width = item.bits if place.hi is None else place.hi - place.lo + 1
        width = min(width, top - place.lo)
        if item.word is not None:
            return self._inside(item, 0, width, place.lo)
        hi = place.lo + width - 1
        return [Span(name=item.name, at=0, size=8, lo=place.lo, bits=width, kind=kind_of(item), href=self._href(item),
                     title=title_of(item, f"{place.register} {bits_text(hi, place.lo)}"))]  # fmt: skip

    def _inside(self, item: Field, first: int, width: int, lo: int) -> list[Span]:
        """Return the parts of a word of which `width` bits from bit `first` on lie at bit `lo` of a register."""
        assert item.word is not None  # the callers have looked
        found = []
        for part in item.word.fields.values():
            at = part.at if item.word.endian == "little" else item.word.size - part.at - part.size
            low = at * 8 + part.lo
            start, end = max(low, first), min(low + part.bits, first + width)
            if start < end:
                found.append(
                    Span(name=part.name, at=0, size=8, lo=start - first + lo, bits=end - start, kind=kind_of(part),
                         title=title_of(part, f"{item.name} {bits_text(part.hi, part.lo)}"),
                         href=f"#layout-{item.word.name}-{part.name}")
                )  # fmt: skip
        return found

    def _half(self, item: Field, lo: int) -> list[Span]:
        if item.word is not None:
            return self._inside(item, lo, 32, 0)
        bits = min(max(item.bits - lo, 0), 32)
        if not bits:
            return []
        name = f"{item.name} {bits_text(lo + bits - 1, lo)}"
        return [Span(name=name, at=0, size=8, lo=0, bits=bits, kind=kind_of(item), href=self._href(item),
                     title=title_of(item, name))]  # fmt: skip

    def _span(self, item: Field, place: BlockPlace) -> tuple[Span, str]:
        """Return a field in a block, and the part of its offset that only a message can tell."""
        block = self._blocks[place.block]
        base = ""
        if place.layout_field is not None and block.layout is not None:
            inner = block.layout.fields[place.layout_field]
            at, size, lo, bits = inner.at, inner.size, inner.lo, inner.bits
        else:
            base, at = self._offset(place.at)
            bits = item.bits if place.hi is None else place.hi - place.lo + 1
            lo = place.lo
            size = place.size if place.size is not None else (lo + bits + 7) // 8
        stride, count = 0, ""
        if item.is_list:
            size, lo, bits = item.bits // 8, 0, item.bits
            stride = (self._number(place.stride) if place.stride is not None else None) or size
            count = readable(item.count) if item.count is not None else ""
        where = f"{block.name} at {base + ' + ' if base else ''}{at:#x}"
        return Span(name=item.name, at=at, size=size, lo=lo, bits=bits, kind=kind_of(item), href=self._href(item),
                    title=title_of(item, where), stride=stride, count=count), base  # fmt: skip

    def _offset(self, expr: Expr) -> tuple[str, int]:
        """Return an offset as what only a message can tell, in words, and what is known."""
        known, rest = 0, []
        todo: list[Expr] = [expr]
        while todo:
            part = todo.pop()
            number = self._number(part)
            if number is not None:
                known += number
            elif isinstance(part, Binary) and part.op == "+":
                todo += [part.right, part.left]
            else:
                rest.append(readable(part))
        return " + ".join(rest), known

    def _number(self, expr: Expr) -> int | None:
        if not names(expr) <= self._static.keys():
            return None
        try:
            return Scope(self._static).int(expr)
        except (ExprError, CodecError):
            return None


def _labelled(strip: Strip, block: str, base: str) -> Strip:
    label = strip.label.removeprefix(base)
    return replace(strip, label=f"{'…' if base else f'{block} '}{label}", group=f"{block} {base}")


def _made_of(item: Field) -> str:
    if item.is_list:
        return f"list of {item.items.name if item.items is not None else f'u{item.bits}'}"
    if item.word is not None:
        return item.word.name
    return f"{'i' if item.signed else 'u'}{item.bits}"


def registers_of(items: Sequence[Row]) -> list[str]:
    """Return the registers that a table names first, each once."""
    return list(dict.fromkeys(row.where.split()[0] for row in items))
