"""Bit diagrams as text: for Markdown, reStructuredText and mail. Names that do not fit have a letter and a legend."""

from __future__ import annotations

from string import ascii_lowercase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hvabi.publish.drawing import Box, Drawing, Strip

_COLUMNS = 64
"""Characters between the edges of a strip."""


def draw(drawing: Drawing) -> str:
    """Return the drawing as lines of ASCII, without a trailing line break."""
    margin = max((len(strip.label) for strip in drawing.strips), default=0)
    lines: list[str] = []
    legend: list[str] = []
    previous: Strip | None = None
    edge = ""
    for strip in drawing.strips:
        pad = " " * margin + " "
        if previous is not None and previous.group != strip.group:
            lines += [pad + edge, ""]
            edge = ""
        if all(box.kind == "note" for box in strip.boxes):
            lines.append(pad + " ".join(box.name for box in strip.boxes))
            previous = strip
            continue
        rule = _numbers(strip)
        border = _border(strip)
        if rule and (previous is None or rule != _numbers(previous) or not edge):
            if edge:
                lines.append(pad + edge)
            lines += [(pad + rule).rstrip(), pad + border]
        else:
            lines.append(pad + (_merged(edge, border) if edge else border))
        lines.append(strip.label.rjust(margin) + " " + _names(strip, legend))
        edge = border
        previous = strip
    lines.append(" " * margin + " " + edge)
    if legend:
        lines += ["", *legend]
    return "\n".join(lines)


def _at(strip: Strip, bit: int) -> int:
    """Return the column of an edge between bits."""
    return bit * _COLUMNS // strip.bits


def _border(strip: Strip) -> str:
    line = ["-"] * (_COLUMNS + 1)
    for box in strip.boxes:
        line[_at(strip, box.start)] = line[_at(strip, box.start + box.bits)] = "+"
    return "".join(line)


def _merged(one: str, other: str) -> str:
    return "".join("+" if "+" in pair else "-" for pair in zip(one, other, strict=True))


def _numbers(strip: Strip) -> str:
    if all(not box.left for box in strip.boxes):
        return ""
    line = [" "] * (_COLUMNS + 8)
    for box in strip.boxes:
        first, last = _at(strip, box.start) + 1, _at(strip, box.start + box.bits)
        if box.left == box.right or len(box.left) + len(box.right) + 1 > last - first:
            _put(line, first, box.left if box.left == box.right else f"{box.left}:{box.right}", last)
        else:
            _put(line, first, box.left, last)
            _put(line, last - len(box.right), box.right, last)
    return "".join(line).rstrip()


def _put(line: list[str], at: int, text: str, last: int) -> None:
    """Put numbers over a box, unless they would reach over the next one: the legend has those."""
    if at + len(text) <= last:
        line[at : at + len(text)] = list(text)


def _names(strip: Strip, legend: list[str]) -> str:
    line = [" "] * (_COLUMNS + 1)
    for box in strip.boxes:
        first, last = _at(strip, box.start), _at(strip, box.start + box.bits)
        line[first] = line[last] = "|"
        room = last - first - 1
        name = box.name
        if len(name) > room:
            name = _letter(legend, box)
        _put(line, first + 1, name.center(room), last)
    return "".join(line)


def _letter(legend: list[str], box: Box) -> str:
    """Return the letter that stands for a name; the legend says what it is."""
    where = box.left if box.left == box.right else f"{box.left}:{box.right}"
    number = len(legend)
    letter = ascii_lowercase[number % 26].upper() if number >= 26 else ascii_lowercase[number]
    legend.append(f"{letter}: {box.name}" + (f" ({where})" if where else ""))
    return letter
