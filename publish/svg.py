"""Bit diagrams as SVG: boxes with names, links and explanations; colours come from the page's style.

Nothing is clipped: a name that does not fit its box hangs below it on a line of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hvabi.conformance.report.markup import Markup, join, tag

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hvabi.publish.drawing import Box, Drawing, Strip

_ADVANCE = 0.61
"""Width of a character of a monospaced font, in parts of its size; the widest of the usual fonts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Measures in the units of the drawing, which are pixels where the page is wide enough."""

    width: int
    gutter: int
    font: float
    small: float
    box: int
    thin: int
    ruler: int
    hang: int
    apart: int


WIDE = Look(width=832, gutter=130, font=13, small=10, box=30, thin=20, ruler=15, hang=18, apart=10)
NARROW = Look(width=282, gutter=68, font=11.5, small=9, box=26, thin=18, ruler=13, hang=16, apart=8)


def draw(drawing: Drawing, look: Look, *, class_: str) -> Markup:
    """Return the drawing as an SVG element."""
    parts: list[Markup] = []
    top = 2.0
    overflow = 0.0
    previous = None
    for strip in drawing.strips:
        if previous is not None and previous.group != strip.group:
            top += look.apart
        piece, height, over = _strip(strip, look, top, ruled=_rulers(strip, previous))
        parts.append(piece)
        top += height
        overflow = max(overflow, over)
        previous = strip
    width = look.gutter + look.width + overflow + 2
    return tag(
        "svg",
        tag("title", drawing.title),
        *parts,
        viewBox=f"0 0 {_n(width)} {_n(top + 2)}",
        width=_n(width),
        height=_n(top + 2),
        role="img",
        class_=f"bits {class_}",
    )


def _rulers(strip: Strip, previous: Strip | None) -> bool:
    """Whether the numbers above the boxes are shown: not where they are those of the strip before."""
    if all(not box.left for box in strip.boxes):
        return False
    if previous is None or previous.group != strip.group:
        return True
    return [(box.start, box.bits, box.left) for box in strip.boxes] != [
        (box.start, box.bits, box.left) for box in previous.boxes
    ]


def _n(number: float) -> str:
    text = f"{number:.1f}"
    return text.removesuffix(".0")


def _strip(strip: Strip, look: Look, top: float, *, ruled: bool) -> tuple[Markup, float, float]:
    scale = look.width / strip.bits
    high = look.thin if all(box.kind in ("unused", "note") for box in strip.boxes) else look.box
    y = top + (look.ruler if ruled else 0)
    parts: list[Markup] = []
    parts += _label(strip.label, look, y + high / 2)
    hanging: list[tuple[float, Box]] = []
    for box in strip.boxes:
        x, width = look.gutter + box.start * scale, box.bits * scale
        parts.append(_box(box, x, y, width, high, look, ruled=ruled))
        if box.name and _size_of(box.name, width, look) is None:
            hanging.append((x + width / 2, box))
    below, depth, overflow = _hanging(hanging, y + high, look)
    parts += below
    height = y - top + high + depth
    # Strips of one word or block touch each other; what hangs and what is ruled needs room.
    return join(parts), height + (4 if depth else 0), overflow


def _label(text: str, look: Look, y: float) -> list[Markup]:
    """Write what stands before a strip; in two lines where one would be too small to read."""
    if not text:
        return []
    size = _fitted(text, look)
    first, _, rest = text.rpartition(" ")
    if size >= look.small - 1 or not first:
        return [_text(look.gutter - 8, y, text, size, "label", "end")]
    size = min(_fitted(first, look), look.small)
    return [_text(look.gutter - 8, y + shift, part, size, "label", "end")
            for part, shift in ((first, -look.small / 2), (rest, look.small / 2))]  # fmt: skip


def _fitted(text: str, look: Look) -> float:
    return min(look.font - 1, (look.gutter - 10) / (len(text) * _ADVANCE))


def _size_of(name: str, width: float, look: Look) -> float | None:
    """Return the size of the letters at which a name fits its box, or None."""
    for size in (look.font, look.font - 1, look.small + 0.5):
        if len(name) * size * _ADVANCE + 6 <= width:
            return size
    return None


def _box(box: Box, x: float, y: float, width: float, high: float, look: Look, *, ruled: bool) -> Markup:
    size = _size_of(box.name, width, look) if box.name else None
    parts = [] if box.kind == "note" else [tag("rect", x=_n(x + 0.5), y=_n(y + 0.5), width=_n(width), height=_n(high))]
    if size is not None and box.kind == "note":
        parts.append(_text(x, y + high / 2 + 0.5, box.name, size, "name", "start"))
    elif size is not None:
        parts.append(_text(x + width / 2, y + high / 2 + 0.5, box.name, size, "name", "middle"))
    if ruled:
        parts += _ruler(box, x, y - 4, width, look)
    inside = [tag("title", box.title), *parts] if box.title else parts
    group = tag("g", *inside, class_=f"box {box.kind}")
    return tag("a", group, href=box.href) if box.href else group


def _ruler(box: Box, x: float, y: float, width: float, look: Look) -> list[Markup]:
    if not box.left:
        return []
    both = (len(box.left) + len(box.right)) * look.small * _ADVANCE + 8
    if box.left == box.right or both > width:
        shown = box.left if box.left == box.right else f"{box.left}…{box.right}"
        if len(shown) * look.small * _ADVANCE > width - 1:
            shown = box.right
        return [_text(x + width / 2, y, shown, look.small, "bit", "middle", base="auto")]
    return [
        _text(x + 3, y, box.left, look.small, "bit", "start", base="auto"),
        _text(x + width - 3, y, box.right, look.small, "bit", "end", base="auto"),
    ]


def _text(x: float, y: float, text: str, size: float, class_: str, anchor: str, base: str = "central") -> Markup:
    return tag("text", text, x=_n(x), y=_n(y), font_size=_n(size), class_=class_, text_anchor=anchor,
               dominant_baseline=base)  # fmt: skip


def _hanging(items: Sequence[tuple[float, Box]], y: float, look: Look) -> tuple[list[Markup], float, float]:
    """Draw the names that do not fit: a line down from each box, the name beside its end, so that nothing crosses.

    From right to left: a name reaches over the lines of boxes to its right, so it hangs below their ends.
    """
    placed: list[tuple[float, float, float, int]] = []
    parts: list[Markup] = []
    overflow = 0.0
    for x, box in reversed(items):
        size = look.font - 1
        left, right = x + 3, x + 9 + len(box.name) * size * _ADVANCE
        row = 0
        while any(
            (other_row == row and left < other_right and other_left < right + 6)
            or (left <= other_x <= right and other_row >= row)
            for other_x, other_left, other_right, other_row in placed
        ):
            row += 1
        placed.append((x, left, right, row))
        end = y + 7 + row * look.hang + look.hang / 2
        path = tag("path", d=f"M{_n(x)} {_n(y + 0.5)}V{_n(end)}h6", class_="line")
        name = _text(x + 9, end, box.name, size, "name", "start")
        inside = [tag("title", box.title), path, name] if box.title else [path, name]
        group = tag("g", *inside, class_=f"box {box.kind}")
        parts.append(tag("a", group, href=box.href) if box.href else group)
        overflow = max(overflow, right - look.gutter - look.width)
    depth = 7 + (1 + max(row for *_, row in placed)) * look.hang if placed else 0.0
    return parts, depth, overflow
