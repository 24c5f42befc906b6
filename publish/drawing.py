"""Bit diagrams before they are drawn: strips of boxes, from words, structures and the places of a message.

One drawing is made for every medium: the SVG and the text form differ in how they show it, not in what it says.
Bits count from 0 at the right. A word is cut into lanes, the highest at the top, as one reads a number. Memory is cut
into rows at rising offsets; in a little-endian row the first byte stands at the right, so that bits line up with those
of the words; in a big-endian row it stands at the left.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from hvabi.abi.model import Endian, Field, Layout

_WORD = 8
"""Bytes up to which a field that fills rows of its own does not say how long it is."""

_COUNT = 24
"""Longest count of a list that a drawing shows; the table has it anyway."""

Kind = Literal["field", "fixed", "reserved", "unused", "more", "note"]
"""A field, a register that selects the call, reserved bits, bits of nobody, further elements of a list, a remark."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A run of bits in a strip.

    Attributes:
        start: bits between the left edge of the strip and the box.
        bits: its width.
        name: what stands in it.
        left: number at its left end, right: at its right end; bit numbers of words, byte offsets of memory.
        title: the explanation. href: where the table has it; empty for bits of nobody.

    """

    start: int
    bits: int
    name: str
    kind: Kind = "field"
    left: str = ""
    right: str = ""
    title: str = ""
    href: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """One row of a drawing, `bits` wide; `label` stands before it: a register, an offset, a range of bits.

    Strips of different `group`, such as the registers and each block, stand a little apart.
    """

    label: str
    bits: int
    boxes: tuple[Box, ...]
    group: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A diagram: its strips from top to bottom, and what it shows in words."""

    title: str
    strips: tuple[Strip, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A field somewhere in a word or structure.

    Attributes:
        at: byte offset of its integer. size: bytes of that integer. lo, bits: its bits there.
        stride: distance of the elements in bytes where it is a list, else 0. count: how many, in words.

    """

    name: str
    at: int
    size: int
    lo: int
    bits: int
    title: str
    href: str
    kind: Kind = "field"
    stride: int = 0
    count: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """How fine a drawing is cut: bits of a lane of a word, bytes of a row of memory."""

    lane: int = 32
    row: int = 8


WIDE = Grid()
_NARROW_ROW = 4
NARROW = Grid(lane=16, row=_NARROW_ROW)
"""For phones: the same drawing in more rows."""


# -- words ------------------------------------------------------------------------------------------------------


def is_word(layout: Layout) -> bool:
    """Whether a layout is one integer with bit fields, and no structure."""
    return layout.size <= 16 and all(item.at == 0 and item.size == layout.size for item in layout.fields.values())


def kind_of(item: Field) -> Kind:
    """Return how a field is drawn."""
    return "reserved" if item.reserved is not None else "field"


def bits_text(hi: int, lo: int) -> str:
    """Return a range of bits as documents write it: ``51:12``, or ``4``."""
    return str(lo) if hi == lo else f"{hi}:{lo}"


def word_strips(spans: Sequence[Span], bits: int, grid: Grid, *, label: str = "") -> list[Strip]:
    """Return the lanes of a word, the highest bits first. The `at` and `size` of the spans do not count."""
    boxes = [(span.lo + span.bits - 1, span.lo, span) for span in spans if span.lo < bits]
    if len(boxes) == 1 and boxes[0][0] + 1 >= bits and boxes[0][1] == 0:
        span = boxes[0][2]
        whole = Box(start=0, bits=bits, name=span.name, kind=span.kind, left=str(bits - 1), right="0",
                    title=span.title, href=span.href)  # fmt: skip
        return [Strip(label=label, bits=bits, boxes=(whole,))]
    lanes = []
    for top in range(bits, 0, -grid.lane):
        low = max(top - grid.lane, 0)
        inside = [_cut(hi, lo, span, top - 1, low) for hi, lo, span in boxes if lo < top and hi >= low]
        if label and boxes and not inside:
            continue  # a part of a register that the message leaves alone
        named = bits_text(top - 1, low) if bits > grid.lane else ""
        title = f"{label} {named}".strip() if label else named
        lanes.append(Strip(label=title, bits=top - low, boxes=tuple(_filled(inside, top - low, top - 1, -1))))
    return lanes


def _cut(hi: int, lo: int, span: Span, top: int, low: int) -> Box:
    first, last = min(hi, top), max(lo, low)
    return Box(start=top - first, bits=first - last + 1, name=span.name, kind=span.kind, left=str(first),
               right=str(last), title=span.title, href=span.href)  # fmt: skip


def _filled(boxes: Iterable[Box], bits: int, first: int, step: int, unit: int = 1) -> Iterator[Box]:
    """Yield boxes from left to right with the bits between them, numbered from `first` on."""
    at = 0
    for box in [*sorted(boxes, key=lambda item: item.start), None]:
        start = box.start if box is not None else bits
        if start > at:
            left, right = first + step * (at // unit), first + step * ((start - 1) // unit)
            mark = "" if unit == 1 else "+"
            yield Box(start=at, bits=start - at, name="", kind="unused", left=f"{mark}{left}", right=f"{mark}{right}",
                      title="not used")  # fmt: skip
        if box is not None:
            yield box
            at = max(at, box.start + box.bits)


def layers(spans: Sequence[Span]) -> list[list[Span]]:
    """Return fields in groups without overlap: a message may read the same bits in several ways."""
    out: list[list[Span]] = []
    for span in spans:
        for layer in out:
            if not any(_overlap(span, other) for other in layer):
                layer.append(span)
                break
        else:
            out.append([span])
    return out


def _overlap(one: Span, other: Span) -> bool:
    (a, b), (c, d) = ((span.at * 8 + span.lo, span.at * 8 + span.lo + span.bits) for span in (one, other))
    return a < d and c < b


# -- memory -----------------------------------------------------------------------------------------------------


def memory_strips(
    spans: Sequence[Span], endian: Endian, grid: Grid, *, base: str = "", size: int | None = None,
    registers: Sequence[tuple[str, int]] = (),
) -> list[Strip]:  # fmt: skip
    """Return the rows of a structure at rising offsets; rows that hold nothing are one.

    Args:
        spans: the fields, at offsets from the structure's start.
        endian: whether the first byte of a row stands at the right (little) or at the left (big).
        grid: the bytes of a row.
        base: what the offsets count from, where it is not the start of the block.
        size: bytes of the structure where they are known: what follows the last field is shown as unused.
        registers: names and sizes in bytes of the registers that the bytes lie in; they name the rows.

    """
    row = grid.row
    strips: list[Strip] = []
    rows: dict[int, list[Box]] = {}
    lists: dict[int, list[Span]] = {}
    for span in spans:
        if span.stride:
            lists.setdefault(span.at // row, []).append(span)
        else:
            for number, box in _rows_of(span, endian, row):
                rows.setdefault(number, []).append(box)
    long = {span.at // row: span for span in spans if not span.stride and _is_long(span, row)}
    done: int | None = 0
    for number in sorted({*rows, *lists}):
        if number in rows and (done is None or number >= done):
            _gap(strips, done, number, row, base, registers)
            if number in long:
                strips.append(_long(long[number], row, base, registers))
                done = number + long[number].size // row
            else:
                first, step = (row - 1, -1) if endian == "little" else (0, 1)
                boxes = _unruled(tuple(_filled(rows[number], row * 8, first, step, unit=8)))
                strips.append(Strip(label=_label(number * row, base, registers), bits=row * 8, boxes=boxes))
                done = number + 1
        for span in lists.get(number, ()):
            _gap(strips, done, number, row, base, registers)
            strips += _list(span, endian, row, base, registers)
            done = None  # how long it is only a message can tell
    if size is not None and size % row == 0:
        _gap(strips, done, size // row, row, base, registers)
    return strips


def _unruled(boxes: tuple[Box, ...]) -> tuple[Box, ...]:
    """Leave out the byte offsets of a box that fills its row."""
    return tuple(replace(box, left="", right="") for box in boxes) if len(boxes) == 1 else boxes


def _is_long(span: Span, row: int) -> bool:
    return span.size >= 2 * row and span.size % row == 0 and span.at % row == 0 and span.bits == span.size * 8


def _long(span: Span, row: int, base: str, registers: Sequence[tuple[str, int]]) -> Strip:
    name = f"{span.name} ({span.size} bytes)" if span.size > _WORD else span.name
    box = Box(start=0, bits=row * 8, name=name, kind=span.kind, title=span.title, href=span.href)
    return Strip(label=_label(span.at, base, registers), bits=row * 8, boxes=(box,))


def _rows_of(span: Span, endian: Endian, row: int) -> Iterator[tuple[int, Box]]:
    """Yield the boxes of a field, with the number of the row of each."""
    width = row * 8
    # The position along the reading direction of the row: from the right in little endian, from the left in big.
    low = span.at * 8 + (span.lo if endian == "little" else span.size * 8 - span.lo - span.bits)
    high = low + span.bits
    at = low
    while at < high:
        number = at // width
        end = min(high, (number + 1) * width)
        inside = at - number * width
        bits = end - at
        start = inside if endian == "big" else width - inside - bits
        first, last = inside // 8, (inside + bits - 1) // 8
        name = span.name if bits == span.bits or at == low else f"{span.name} …"
        if span.bits % 8 == 0 and span.lo % 8 == 0:
            left, right = (f"+{last}", f"+{first}") if endian == "little" else (f"+{first}", f"+{last}")
        else:
            left, right = str(span.lo + span.bits - 1), str(span.lo)
        yield number, Box(start=start, bits=bits, name=name, kind=span.kind, left=left, right=right,
                          title=span.title, href=span.href)  # fmt: skip
        at = end


def _label(at: int, base: str, registers: Sequence[tuple[str, int]]) -> str:
    start = 0
    for name, size in registers:
        if start <= at < start + size:
            return name if at == start else f"{name} +{at - start}"
        start += size
    return f"{base}+{at:#x}" if base else f"+{at:#x}"


def _gap(
    strips: list[Strip], done: int | None, number: int, row: int, base: str, registers: Sequence[tuple[str, int]]
) -> None:
    """Add one strip for all rows between that hold nothing."""
    if done is not None and number > done:
        size = (number - done) * row
        box = Box(start=0, bits=row * 8, name=f"{size} bytes not used", kind="unused", title="not used")
        strips.append(Strip(label=_label(done * row, base, registers), bits=row * 8, boxes=(box,)))


def _list(span: Span, endian: Endian, row: int, base: str, registers: Sequence[tuple[str, int]]) -> list[Strip]:
    """Return a list: its first element, and a strip that stands for the others."""
    first = Span(name=f"{span.name}[0]", at=span.at, size=span.size, lo=0, bits=span.size * 8, title=span.title,
                 href=span.href)  # fmt: skip
    strips = memory_strips([first], endian, Grid(row=row), base=base, registers=registers)
    # Without the gap before it: that is there already.
    strips = [strip for strip in strips if any(box.kind != "unused" for box in strip.boxes)]
    count = f", count {span.count}" if 0 < len(span.count) <= _COUNT else ""
    named = (
        f"{span.name}[1] … every {span.stride} bytes{count}" if row > _NARROW_ROW else f"… every {span.stride} bytes"
    )
    more = Box(start=0, bits=row * 8, name=named, kind="more", title=span.title, href=span.href)
    return [*strips, Strip(label=_label(span.at + span.stride, base, registers), bits=row * 8, boxes=(more,))]


def layout_spans(layout: Layout) -> list[Span]:
    """Return the fields of a layout as spans, with links to its table."""
    return [
        Span(name=item.name, at=item.at, size=item.size, lo=item.lo, bits=item.bits, kind=kind_of(item),
             title=title_of(item, bits_text(item.hi, item.lo)), href=f"#layout-{layout.name}-{item.name}")
        for item in layout.fields.values()
    ]  # fmt: skip


def title_of(item: Field, where: str) -> str:
    """Return what the pointer shows over a box."""
    reserved = (
        f" Reserved: sent as {item.reserved.send}, receivers {item.reserved.receive} it." if item.reserved else ""
    )
    return f"{item.name} ({where}): {item.doc}{reserved}"


def draw_layout(layout: Layout, grid: Grid) -> Drawing:
    """Return the diagram of a word or structure."""
    spans = layout_spans(layout)
    title = f"{layout.name}, {layout.size} bytes, {layout.endian} endian"
    if is_word(layout):
        return Drawing(title=title, strips=tuple(word_strips(spans, layout.size * 8, grid)))
    return Drawing(title=title, strips=tuple(memory_strips(spans, layout.endian, grid, size=layout.size)))


def check(drawing: Drawing) -> None:
    """Raise `ValueError` where the boxes of a strip leave a gap, overlap or pass its end; for tests."""
    for strip in drawing.strips:
        boxes = strip.boxes
        if boxes[0].start != 0 or boxes[-1].start + boxes[-1].bits != strip.bits:
            raise ValueError(f"{drawing.title}: {strip.label} does not cover its bits")
        for one, other in pairwise(boxes):
            if one.start + one.bits != other.start:
                raise ValueError(f"{drawing.title}: {strip.label}: {one.name} and {other.name} do not meet")
