"""All pictures together: one SVG, or one HTML page that needs nothing else."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from hvabi.traces.plot import svg
from hvabi.traces.plot.panels import panels
from hvabi.traces.plot.scale import size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hvabi.traces.summary import TraceSummary

_CSS = """
:root{color-scheme:light dark}
body{font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;max-width:980px;
margin:0 auto;padding:1rem;background:#fff;color:#1f2328}
h1{font-size:1.35rem}
h2{font-size:1.1rem;margin-top:2rem}
figure{margin:1.5rem 0}
svg{width:100%;height:auto;display:block}
.narrow{display:none}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.2rem 1rem}
dt{font-weight:600}
dd{margin:0}
table{border-collapse:collapse}
th,td{padding:.25rem .6rem;text-align:right;border-bottom:1px solid #d1d9e0}
th:first-child{text-align:left}
.scroll{overflow-x:auto}
.note{color:#59636e}
@media (max-width:640px){
.wide{display:none}.narrow{display:block}
dl{grid-template-columns:1fr}dd{margin:0 0 .4rem}
}
@media (prefers-color-scheme:dark){
body{background:#0d1117;color:#e6edf3}th,td{border-color:#30363d}.note{color:#9198a1}
}
"""


def title_of(summary: TraceSummary) -> str:
    """Return what the pictures are of."""
    names = [read.source.rsplit("/", 1)[-1] for read in summary.reads]
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return (", ".join(names[:2]) or "events") + more


def picture(summary: TraceSummary, width: float = svg.WIDE) -> str:
    """Return all pictures as one SVG document."""
    y, out = 8.0, []
    for panel in panels(summary, width):
        out.append(f'<g transform="translate(0 {svg.number(y)})">{panel.body}</g>')
        y += panel.height + 14
    return svg.document(width, max(y, 40.0), "".join(out), title=f"Conversions in {title_of(summary)}")


def page(summary: TraceSummary) -> str:
    """Return all pictures and the most important numbers as one HTML document."""
    name = escape(title_of(summary))
    body = "".join(_body(summary))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><title>Conversions in {name}</title>'
        f"<style>{_CSS}{svg.STYLE}</style></head><body><h1>Conversions in {name}</h1>{body}</body></html>\n"
    )


def _body(summary: TraceSummary) -> Iterator[str]:
    yield "<dl>"
    for word, value in _facts(summary):
        yield f"<dt>{escape(word)}</dt><dd>{escape(value)}</dd>"
    yield "</dl>"
    notes = [f"{read.source}: {note.text}" for read in summary.reads for note in read.notes]
    if notes:
        yield "".join(f'<p class="note">{escape(note)}</p>' for note in notes[:10])
    drawn = zip(panels(summary, svg.WIDE), panels(summary, svg.NARROW), strict=True)
    for wide, narrow in drawn:
        yield "<figure>"
        for panel, width, cls in ((wide, svg.WIDE, "wide"), (narrow, svg.NARROW, "narrow")):
            image = svg.document(width, panel.height, panel.body, title=panel.title, inline=True)
            yield f'<div class="{cls}">{image}</div>'
        yield "</figure>"
    yield from _pool(summary)
    yield from _final(summary)


def _facts(summary: TraceSummary) -> Iterator[tuple[str, str]]:
    yield "calls", f"{summary.calls:,}: {summary.share_calls:,} to shared, {summary.unshare_calls:,} to private"
    yield "without effect", f"{summary.no_op_calls:,}"
    shown = f"{summary.done_calls:,} done, {summary.failed_calls:,} failed"
    yield "how they ended", f"{shown}, {summary.attempts:,} not shown and taken as done"
    if summary.timing.calls_per_second is not None:
        yield "rate", f"{summary.timing.calls_per_second:,.1f} calls a second over {summary.timing.span_seconds:.3f} s"
    about = "about " if summary.flips.one_in > 1 else ""
    yield (
        "pages",
        f"{about}{summary.flips.changed_pages:,} changed, {about}{summary.flips.flip_flop_pages:,} back again",
    )
    yield "ranges", f"at most {summary.ranges.peak:,}, {summary.ranges.final:,} at the end"
    foot = summary.footprint
    yield (
        "memory for the state",
        (
            f"{size(foot.peak_bytes)} as ranges, {size(foot.rb_tree.peak_bytes)} as rb-tree,"
            f" {size(foot.bitmap_bytes)} as bitmap of {size(foot.guest_bytes)}"
        ),
    )


def _pool(summary: TraceSummary) -> Iterator[str]:
    cells = summary.pool.cells
    if not any(cell.at_most for cell in cells):
        return
    holds = list(dict.fromkeys(cell.hold_seconds for cell in cells))
    yield "<h2>What a pool of freed pages would save</h2>"
    yield (
        f'<p class="note">Calls saved of {summary.pool.calls:,} that changed something, by the size of the pool and'
        " by how long it holds a page. The first number is for a pool whose ranges come out as they went in, the"
        " second for one that gives any pages; the truth lies between them.</p>"
    )
    yield '<div class="scroll"><table><tr><th>pages</th>'
    yield "".join(f"<th>{_hold(hold)}</th>" for hold in holds) + "</tr>"
    for at in range(0, len(cells), len(holds)):
        row = cells[at : at + len(holds)]
        yield f"<tr><th>{'any number' if row[0].pages is None else f'{row[0].pages:,}'}</th>"
        yield "".join(f"<td>{cell.at_least:,} to {cell.at_most:,}</td>" for cell in row) + "</tr>"
    yield "</table></div>"


def _hold(seconds: float | None) -> str:
    if seconds is None:
        return "for ever"
    return f"{seconds:g} s" if seconds >= 1 else f"{seconds * 1000:g} ms"


def _final(summary: TraceSummary) -> Iterator[str]:
    yield f"<h2>Not private at the end: {summary.final_pages:,} pages in {len(summary.final):,} ranges</h2>"
    if not summary.final:
        return
    yield '<div class="scroll"><table><tr><th>from</th><th>to</th><th>pages</th><th>state</th></tr>'
    for item in summary.final[:100]:
        pages = (item.end - item.gpa) >> 12
        yield f"<tr><th>{item.gpa:#x}</th><td>{item.end:#x}</td><td>{pages:,}</td><td>{item.state.value}</td></tr>"
    yield "</table></div>"
    if len(summary.final) > 100:
        yield f'<p class="note">and {len(summary.final) - 100:,} more</p>'
