"""The four pictures: memory map, ranges, calls per second, and how often pages changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hvabi.backend import PAGE_SIZE
from hvabi.traces.plot import svg
from hvabi.traces.plot.scale import Linear, seconds, si, size, ticks, time_unit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hvabi.traces.analysis.results import Column, MapSummary, TimelineSummary
    from hvabi.traces.summary import TraceSummary

TOP = 34
"""Room for a title."""

BOTTOM = 44
"""Room for the numbers of an axis and its name."""

RIGHT = 22
LEVELS = 5
MAX_SEGMENTS = 8000
"""Pieces of a memory map that are drawn; where it has more, columns are drawn together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A picture of a given width: its title, its elements from (0, 0) on, and its height."""

    title: str
    body: str
    height: float


def panels(summary: TraceSummary, width: float) -> list[Panel]:
    """Return the four pictures."""
    found = [memory_map(summary, width), ranges(summary, width), rates(summary, width), flips(summary, width)]
    return [panel for panel in found if panel is not None]


# -- the horizontal axis of the first three -----------------------------------------------------------------------


def _left(width: float) -> float:
    return 118 if width >= svg.WIDE else 96


def _edge(width: float) -> float:
    """Return where titles begin."""
    return _left(width) if width >= svg.WIDE else 8


def _axis(timeline: TimelineSummary, width: float) -> Linear:
    last = timeline.columns[-1].index + 1 if timeline.columns else 1
    return Linear(0, last * timeline.column_width, _left(width), width - RIGHT)


def _below(timeline: TimelineSummary, axis: Linear, top: float, bottom: float, width: float) -> Iterator[str]:
    """Yield the numbers of the horizontal axis, its lines and its name."""
    most = 8 if width >= svg.WIDE else 4
    if timeline.axis == "calls":
        unit, name = 1.0, "number of the call"
    else:
        unit, word = time_unit(axis.high)
        name = f"time since the first call, {word}"
    for tick in ticks(axis.high / unit, most, whole=timeline.axis == "calls"):
        x = axis(tick * unit)
        yield svg.line(x, top, x, bottom, "grid")
        shown = si(tick) if timeline.axis == "calls" else seconds(tick, 1.0)
        yield svg.text(x, bottom + 17, shown, cls="note", anchor="middle")
    yield svg.line(axis.start, bottom, axis.end, bottom, "axis")
    yield svg.text((axis.start + axis.end) / 2, bottom + 36, name, cls="note", anchor="middle")


def _beside(axis: Linear, most: int, left: float, right: float, *, whole: bool = True) -> Iterator[str]:
    """Yield the numbers of a vertical axis and its lines."""
    for tick in ticks(axis.high, most, whole=whole):
        y = axis(tick)
        yield svg.line(left, y, right, y, "grid")
        yield svg.text(left - 8, y + 4, si(tick), cls="note", anchor="end")


def _legend(items: list[tuple[str, str]], right: float, y: float) -> Iterator[str]:
    """Yield coloured squares and what they mean, ending at `right`."""
    x = right
    for cls, words in reversed(items):
        x -= 7.2 * len(words)
        yield svg.text(x, y, words, cls="note")
        x -= 18
        yield svg.rect(x, y - 11, 13, 13, cls)
        x -= 14


# -- memory map ---------------------------------------------------------------------------------------------------


def memory_map(summary: TraceSummary, width: float) -> Panel | None:
    """Return which memory was shared when: a row for each block in which anything changed."""
    timeline = summary.timeline
    found = timeline.map
    if found is None or not found.blocks or not timeline.columns:
        return None
    legend = 0 if width >= svg.WIDE else 20
    top = TOP + 22 + legend
    groups = _groups(found)
    gap = 5.0 if len(groups) < 40 else 2.0
    heights = _heights([len(group) for group in groups])
    height = sum(heights) + gap * (len(groups) - 1)
    axis, left = _axis(timeline, width), _left(width)
    block_bytes = found.block_pages * PAGE_SIZE
    edge = _edge(width)
    out = [svg.text(edge, 20, "Memory that was shared, over time", cls="title")]
    out.append(svg.text(edge, 40, f"a row is {size(block_bytes)}; what never changed is left out", cls="note"))
    out += _scale_of_levels(width - RIGHT, 40 if not legend else 60, edge, narrow=bool(legend))
    places: dict[int, tuple[float, float]] = {}
    y, last_label = float(top), -100.0
    for group, tall in zip(groups, heights, strict=True):
        out.append(svg.rect(left, y, axis.end - left, tall, "row"))
        for index, row in enumerate(group):
            place = y + tall * index / len(group)
            places[row] = (place, tall / len(group))
            if place - last_label >= (48 if index else 15):
                words = f"{found.blocks[row]:#x}"
                middle = place + min(tall / len(group) if index else tall, 16) / 2
                out.append(svg.text(left - 8, middle + 4, words, cls="note", anchor="end"))
                last_label = place
        y += tall + gap
    out += _below(timeline, axis, top, top + height, width)
    out += _levels(found, timeline, axis, places)
    return Panel(title="Memory that was shared, over time", body="".join(out), height=top + height + BOTTOM)


def _heights(rows: list[int]) -> list[float]:
    """Return how high to draw groups of so many rows: large ones higher, though not in proportion."""
    wanted = [14.0 * count**0.6 for count in rows]
    room = 480.0 / sum(wanted)
    return [max(each * min(room, 1.0), 2.0) for each in wanted]


def _groups(found: MapSummary) -> list[list[int]]:
    """Return the rows whose blocks lie side by side."""
    groups: list[list[int]] = []
    last = None
    for row, block in enumerate(found.blocks):
        if last is not None and block == last + found.block_pages * PAGE_SIZE:
            groups[-1].append(row)
        else:
            groups.append([row])
        last = block
    return groups


def _levels(
    found: MapSummary, timeline: TimelineSummary, axis: Linear, places: dict[int, tuple[float, float]]
) -> Iterator[str]:
    end = timeline.columns[-1].index + 1
    grain = 1
    segments = _segments(found, end, grain)
    while len(segments) > MAX_SEGMENTS:
        grain *= 2
        segments = _segments(found, end, grain)
    data: dict[int, list[str]] = {}
    width = timeline.column_width
    for row, first, last, level in segments:
        x = axis(first * width)
        # What was short must be seen all the same.
        right = max(axis(min(last, end) * width), x + 1.5)
        y, tall = places[row]
        data.setdefault(level, []).append(svg.box(x, y, min(right, axis.end) - x, tall))
    for level in sorted(data):
        yield svg.path("".join(data[level]), f"m{level}")


def _segments(found: MapSummary, end: int, grain: int) -> list[tuple[int, int, int, int]]:
    """Return pieces (row, first column, end column, level), `grain` columns drawn as one where anything changes."""
    out: list[tuple[int, int, int, int]] = []

    def add(row: int, first: int, last: int, pages: int) -> None:
        if not pages or first >= last:
            return
        level = min(-(-pages * LEVELS // found.block_pages), LEVELS)
        if out and out[-1][0] == row and out[-1][2] >= first and out[-1][3] == level:
            out[-1] = (row, out[-1][1], max(last, out[-1][2]), level)
        else:
            out.append((row, first, last, level))

    row, level, at, most = -1, 0, 0, 0
    for cell in found.cells:
        if cell.block != row:
            add(row, at, end, level)
            row, level, at = cell.block, 0, 0
        start = cell.column // grain * grain
        if start >= at:
            add(row, at, start, level)
            most = level if start == at else 0
            most = max(most, cell.most_shared_pages)
            at = start + grain
            add(row, start, at, most)
        elif cell.most_shared_pages > most:
            # Another change in the same piece: the higher level is the one to be seen.
            most = cell.most_shared_pages
            if out and out[-1][0] == row and out[-1][2] == at:
                first = out[-1][1]
                out.pop()
                add(row, first, at - grain, level) if first < at - grain else None
            add(row, at - grain, at, most)
        level = cell.shared_pages
    add(row, at, end, level)
    return out


def _scale_of_levels(right: float, y: float, left: float, *, narrow: bool) -> Iterator[str]:
    words = "shared pages of the row: few"
    x = left if narrow else right - 5 * 22 - 30 - 7 * len(words)
    yield svg.text(x, y, words, cls="note")
    x += 7 * len(words) + 6
    for level in range(1, LEVELS + 1):
        yield svg.rect(x, y - 11, 20, 13, f"m{level}")
        x += 22
    yield svg.text(x + 3, y, "all", cls="note")


# -- ranges -------------------------------------------------------------------------------------------------------


def ranges(summary: TraceSummary, width: float) -> Panel | None:
    """Return how many ranges there were: the most in a column as an area, the number at its end as a line."""
    timeline = summary.timeline
    if not timeline.columns:
        return None
    title = "Ranges that are not private, over time"
    height, left = 150.0, _left(width)
    axis = _axis(timeline, width)
    high = max(summary.ranges.peak, 1)
    up = Linear(0, high * 1.05, TOP + height, TOP)
    out = [svg.text(_edge(width), 20, title, cls="title")]
    out += _below(timeline, axis, TOP, TOP + height, width)
    out += _beside(up, 4, left, axis.end)
    area, curve = _steps(timeline.columns, timeline.column_width, axis, up)
    out += [svg.path(area, "most"), svg.path(curve, "line")]
    peak = f"at most {summary.ranges.peak}, {summary.ranges.final} at the end"
    out.append(svg.text(axis.end, 20, peak, cls="note", anchor="end") if width >= svg.WIDE else "")
    return Panel(title=title, body="".join(out), height=TOP + height + BOTTOM)


def _steps(columns: tuple[Column, ...], width: float, axis: Linear, up: Linear) -> tuple[str, str]:
    base = svg.number(up(0))
    area = [f"M{svg.number(axis(0))} {base}"]
    curve = [f"M{svg.number(axis(0))} {base}"]
    last = 0
    for column in columns:
        x = svg.number(axis(column.index * width))
        right = svg.number(axis((column.index + 1) * width))
        area.append(
            f"L{x} {svg.number(up(last))}V{svg.number(up(column.most_ranges))}H{right}V{svg.number(up(column.ranges))}"
        )
        curve.append(f"H{x}V{svg.number(up(column.ranges))}H{right}")
        last = column.ranges
    area.append(f"H{svg.number(axis.end)}V{base}z")
    curve.append(f"H{svg.number(axis.end)}")
    return "".join(area), "".join(curve)


# -- calls per second ---------------------------------------------------------------------------------------------


def rates(summary: TraceSummary, width: float) -> Panel | None:
    """Return how many calls there were, as bars: to shared, to private, and without effect."""
    timeline = summary.timeline
    if not timeline.columns:
        return None
    by_calls = timeline.axis == "calls"
    height, left = 150.0, _left(width)
    axis = _axis(timeline, width)
    grain = max(1, -(-(timeline.columns[-1].index + 1) // (128 if width >= svg.WIDE else 64)))
    bars: dict[int, list[int]] = {}
    for column in timeline.columns:
        bar = bars.setdefault(column.index // grain, [0, 0])
        bar[0] += column.shares
        bar[1] += column.unshares
    span = grain * timeline.column_width
    per = 1.0 if by_calls else span
    high = max(sum(bar) for bar in bars.values()) / per
    up = Linear(0, max(high * 1.05, 1e-9), TOP + height, TOP)
    title = "Conversions per second"
    if by_calls:
        title = "Direction of each call" if span == 1 else f"Directions, in every {si(span)} calls"
    out = [svg.text(_edge(width), 20, title, cls="title")]
    out += _below(timeline, axis, TOP, TOP + height, width)
    out += _beside(up, 4, left, axis.end, whole=by_calls)
    data = {"share": "", "unshare": ""}
    for index, (shares, unshares) in sorted(bars.items()):
        x = axis(index * span)
        right = min(axis((index + 1) * span), axis.end)
        wide = max(right - x - 0.5, 1.0)
        middle, above = up(shares / per), up((shares + unshares) / per)
        data["share"] += svg.box(x, middle, wide, up(0) - middle) if shares else ""
        data["unshare"] += svg.box(x, above, wide, middle - above) if unshares else ""
    out += [svg.path(points, cls) for cls, points in data.items()]
    out += _legend([("share", "to shared"), ("unshare", "to private")], axis.end, 20) if width >= svg.WIDE else ()
    extra = 0.0
    if width < svg.WIDE:
        extra = 22
        out += _legend([("share", "to shared"), ("unshare", "to private")], axis.end, TOP + height + BOTTOM + 10)
    return Panel(title=title, body="".join(out), height=TOP + height + BOTTOM + extra)


# -- flips --------------------------------------------------------------------------------------------------------


def flips(summary: TraceSummary, width: float) -> Panel | None:
    """Return how many pages changed how often."""
    found = summary.flips.by_changes
    if not found:
        return None
    about = f" (one page in {summary.flips.one_in} was followed)" if summary.flips.one_in > 1 else ""
    title = "How often pages changed"
    left = _left(width)
    each, top = 24.0, TOP + 18
    right = width - RIGHT - 90
    most = max(item.pages for item in found)
    scale = Linear(0, most, left, right)
    out = [svg.text(_edge(width), 20, title, cls="title")]
    out.append(svg.text(_edge(width), 40, f"changes, and how many pages have so many{about}", cls="note"))
    for index, item in enumerate(found):
        y = top + index * each
        words = str(item.most) if item.least == item.most else f"{item.least} to {item.most}"
        out.append(svg.text(left - 8, y + 16, words, cls="note", anchor="end"))
        out.append(svg.rect(left, y + 3, max(scale(item.pages) - left, 1.5), each - 7, "bar"))
        out.append(
            svg.text(
                max(scale(item.pages), left + 1.5) + 7, y + 16, f"{item.pages:,} page{'' if item.pages == 1 else 's'}"
            )
        )
    return Panel(title=title, body="".join(out), height=top + each * len(found) + 14)
