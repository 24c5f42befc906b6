"""Bit diagrams: every bit is drawn once, where the specification has it, and every name can be read."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from hvabi.abi.registry import abi_ids, bundled
from hvabi.publish import ascii, svg
from hvabi.publish.drawing import (
    NARROW,
    WIDE,
    Box,
    Drawing,
    Span,
    Strip,
    check,
    draw_layout,
    memory_strips,
    word_strips,
)
from hvabi.publish.placed import placed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hvabi.abi.specification import Abi


def drawings(abi: Abi) -> Iterator[Drawing]:
    for layout in abi.layouts.values():
        for grid in (WIDE, NARROW):
            yield draw_layout(layout, grid)
    for transport in abi.transports.values():
        for item in placed(abi, transport):
            yield from (item.wide, item.narrow)


@pytest.mark.parametrize("abi", abi_ids())
def test_every_strip_is_covered_without_gap_or_overlap(abi: str) -> None:
    for drawing in drawings(bundled(abi)):
        check(drawing)


@pytest.mark.parametrize("abi", abi_ids())
@pytest.mark.parametrize("grid", [WIDE, NARROW], ids=["wide", "narrow"])
def test_every_bit_of_every_field_is_drawn(abi: str, grid: object) -> None:
    for layout in bundled(abi).layouts.values():
        drawing = draw_layout(layout, WIDE if grid is WIDE else NARROW)
        drawn: dict[str, int] = {}
        for strip in drawing.strips:
            for box in strip.boxes:
                name = re.sub(r" …$| \(\d+ bytes\)$", "", box.name)
                size = re.search(r"\((\d+) bytes\)$", box.name)
                drawn[name] = drawn.get(name, 0) + (int(size[1]) * 8 if size else box.bits)
        for item in layout.fields.values():
            wanted = item.bits
            if (
                grid is NARROW
                and item.bits > 32
                and item.bits % 32 == 0
                and item.name in drawn
                and drawn[item.name] == 32
            ):
                wanted = 32  # one row stands for all of a field that fills several
            assert drawn[item.name] == wanted, (layout.name, item.name)


@pytest.mark.parametrize("abi", abi_ids())
def test_every_name_can_be_read(abi: str) -> None:
    """A name is inside its box at a size that can be read, or hangs below it; none is cut."""
    for drawing in drawings(bundled(abi)):
        for look in (svg.WIDE, svg.NARROW):
            picture = svg.draw(drawing, look, class_="x")
            texts = re.findall(r'<text [^>]*class="name"[^>]*>([^<]*)</text>', picture)
            names = [box.name for strip in drawing.strips for box in strip.boxes if box.name]
            assert sorted(texts) == sorted(text.replace("&", "&amp;") for text in names)
            assert min(float(size) for size in re.findall(r'font-size="([\d.]+)"', picture)) >= 7


def test_the_control_word_of_hyperv() -> None:
    """The 64-bit control word of the TLFS: bits as its table has them."""
    drawing = draw_layout(bundled("hyperv-host-visibility").layouts["hv-control"], WIDE)
    rows = [[(box.name, box.left, box.right) for box in strip.boxes] for strip in drawing.strips]
    assert rows == [
        [("reserved2", "63", "60"), ("rep_start", "59", "48"), ("reserved1", "47", "44"), ("rep_count", "43", "32")],
        [("nested", "31", "31"), ("reserved0", "30", "27"), ("variable_header_size", "26", "17"), ("fast", "16", "16"),
         ("call_code", "15", "0")],
    ]  # fmt: skip
    assert [strip.label for strip in drawing.strips] == ["63:32", "31:0"]


def test_the_page_state_change_entry() -> None:
    """struct psc_entry of Linux: cur_page 12, gfn 40, operation 4, pagesize 1, reserved 7 bits."""
    text = ascii.draw(draw_layout(bundled("ghcb-psc").layouts["psc-entry"], WIDE))
    assert (
        text
        == """\
       63         57   55   52 51                                   32
      +-------------+-+-------+---------------------------------------+
63:32 |   reserved  |a|   b   |                  gfn                  |
      +-------------+-+-------+---------------------------------------+
       31                                   12 11                    0
      +---------------------------------------+-----------------------+
 31:0 |                  gfn                  |        cur_page       |
      +---------------------------------------+-----------------------+

a: pagesize (56)
b: operation (55:52)"""
    )


def test_big_endian_memory_begins_at_the_left() -> None:
    """struct uv_cb_share: length, cmd, rc, rrc from the first byte on."""
    strips = draw_layout(bundled("s390-uv-share").layouts["uv-cb-share"], WIDE).strips
    assert [(box.name, box.left, box.right) for box in strips[0].boxes] == [
        ("length", "+0", "+1"), ("cmd", "+2", "+3"), ("rc", "+4", "+5"), ("rrc", "+6", "+7"),
    ]  # fmt: skip


def test_little_endian_memory_begins_at_the_right() -> None:
    strips = draw_layout(bundled("ghcb-psc").layouts["psc-header"], WIDE).strips
    assert [(box.name, box.left, box.right) for box in strips[0].boxes] == [
        ("reserved", "+7", "+4"), ("end_entry", "+3", "+2"), ("cur_entry", "+1", "+0"),
    ]  # fmt: skip


def span(name: str, at: int, size: int, lo: int = 0, bits: int | None = None) -> Span:
    return Span(name=name, at=at, size=size, lo=lo, bits=size * 8 if bits is None else bits, title="", href="")


@pytest.mark.parametrize("endian", ["little", "big"])
def test_bits_of_an_integer_within_a_row(endian: str) -> None:
    """The high bits of an integer stand to the left of its low bits, in either byte order."""
    spans = [span("low", 2, 2, 0, 4), span("high", 2, 2, 4, 12)]
    strips = memory_strips(spans, "little" if endian == "little" else "big", WIDE)
    names = [box.name for box in strips[0].boxes if box.name]
    assert names == ["high", "low"]
    start = next(box.start for box in strips[0].boxes if box.name == "high")
    assert start == (32 if endian == "little" else 16)


def test_an_integer_over_two_rows() -> None:
    strips = memory_strips([span("x", 6, 4)], "little", WIDE)
    assert [(box.name, box.start, box.bits) for strip in strips for box in strip.boxes if box.name] == [
        ("x", 0, 16), ("x …", 48, 16),
    ]  # fmt: skip


def test_a_word_of_128_bits_has_four_lanes() -> None:
    strips = word_strips([span("a", 0, 16, 0, 1), span("b", 0, 16, 1, 127)], 128, WIDE)
    assert [strip.label for strip in strips] == ["127:96", "95:64", "63:32", "31:0"]


def test_hanging_names_never_cross() -> None:
    """Many narrow boxes side by side: each name hangs free of the lines and names of the others."""
    boxes = tuple(Box(start=n, bits=1, name=f"a_long_name_{n}", left=str(31 - n), right=str(31 - n)) for n in range(32))
    drawing = Drawing(title="x", strips=(Strip(label="", bits=32, boxes=boxes),))
    picture = svg.draw(drawing, svg.WIDE, class_="x")
    lines = [tuple(map(float, found)) for found in re.findall(r'd="M([\d.]+) ([\d.]+)V([\d.]+)h6"', picture)]
    texts = re.findall(r'<text x="([\d.]+)" y="([\d.]+)" font-size="([\d.]+)" class="name"[^>]*>([^<]*)<', picture)
    assert len(lines) == len(texts) == 32
    spots = [(float(x), float(y), float(x) + len(text) * float(size) * 0.61) for x, y, size, text in texts]
    for x, y, end in spots:
        for line_x, top, bottom in lines:
            assert not (x < line_x < end and top < y - 0.1 < bottom - 0.1), (x, y, line_x)
        assert (
            sum(abs(y - other_y) < 1 and x < other_end and other_x < end for other_x, other_y, other_end in spots) == 1
        )
    width = float(re.search(r'viewBox="0 0 ([\d.]+)', picture)[1])  # type: ignore[index]  # it is there
    assert max(end for _, _, end in spots) <= width
