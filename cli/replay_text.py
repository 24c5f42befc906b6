"""The summary of a replay as text, one screen of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvabi.cli.console import paint
from hvabi.cli.tables import heading, table, wrap

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hvabi.traces.analysis.results import CallPlace, FlipSummary, PoolSummary
    from hvabi.traces.report import ReadReport
    from hvabi.traces.summary import SeenGroup, TraceSummary

_FINAL = 4
_READS = 3
_WARNED = 4
_WORDS = {
    "hidden-call": "pages not shown",
    "other-call": "convert nothing",
    "unplaced": "no guest address",
    "failure": "failed",
    "fault": "wrong access",
    "terminated": "guest gave up",
    "exit": "exits",
    "launch": "pages at launch",
    "dma-map": "DMA mappings",
    "orphan": "begin not shown",
}
_LOUD = ("failure", "fault", "terminated")


def show(summary: TraceSummary, width: int) -> Iterator[str]:
    """Yield the lines of the summary."""
    for read in summary.reads[:_READS]:
        yield from _read(read, width)
    if len(summary.reads) > _READS:
        yield f"and {len(summary.reads) - _READS} more sources"
    yield ""
    yield from _warnings(summary, width)
    yield from table(list(_rows(summary)), width, style=lambda at, text: heading(text) if at == 0 else text)
    yield ""
    yield heading(
        f"not private at the end: {plural(len(summary.final), 'range')}, {plural(summary.final_pages, 'page')}"
    )
    shown = summary.final if len(summary.final) <= _FINAL + 1 else summary.final[:_FINAL]
    for item in shown:
        yield f"  {item.gpa:#014x} to {item.end:#014x}  {(item.end - item.gpa) >> 12:>8} pages  {item.state.value}"
    if len(summary.final) > len(shown):
        yield f"  and {len(summary.final) - len(shown)} more; --json lists all"


def _read(read: ReadReport, width: int) -> Iterator[str]:
    events = ", ".join(f"{count} {name or 'unnamed'}" for name, count in read.events.items())
    text = f"{read.source}: {plural(read.lines, 'line')}, {events or 'no'} calls"
    if read.packing:
        text = f"{read.source} ({read.packing}): {plural(read.lines, 'line')}, {events or 'no'} calls"
    if read.malformed:
        text += f", {read.malformed} could not be read"
    yield from wrap(text, width)
    for item in read.first_malformed[:2]:
        yield from wrap(f"! line {item.line}: {item.reason}: {item.excerpt}", width, indent="  ", hang="    ")
    for note in read.notes[:3]:
        where = f" (line {note.line})" if note.line is not None else ""
        yield from wrap(f"note: {note.text}{where}", width, indent="  ", hang="    ")


def _warnings(summary: TraceSummary, width: int) -> Iterator[str]:
    texts = [
        f"{rule.rule} ({rule.abi}) is broken by {plural(rule.calls, 'call')}, first {_place(rule.first)}"
        for rule in summary.broken_rules
    ]
    texts += [
        f"{refusal.status.value}: {plural(refusal.calls, 'call')} could not be done, first {_place(refusal.first)}"
        for refusal in summary.refused
    ]
    if summary.failed_calls:
        texts.append(f"{plural(summary.failed_calls, 'call')} failed or ended early, as the trace shows")
    for storm in summary.retries.worst[:1] if summary.retries.storms else ():
        texts.append(
            f"{plural(summary.retries.storms, 'storm')} of retries, the worst {storm.retries} answers to"
            f" {_place(storm.call)}, {storm.stalls} in a row without progress"
        )
    texts += [_seen(group) for group in summary.seen if group.kind in _LOUD]
    for text in texts[:_WARNED]:
        for line in wrap(f"! {text}", width, hang="    "):
            yield paint(line, fg="yellow")
    if len(texts) > _WARNED:
        yield paint(f"! and {len(texts) - _WARNED} more; --json lists all", fg="yellow")


def _seen(group: SeenGroup) -> str:
    result = f": {group.result}" if group.result else ""
    first = _at(group.first.source, group.first.line)
    return f"{_WORDS[group.kind]}: {group.name}{result}, {plural(group.lines, 'line')}, first {first}"


def _rows(summary: TraceSummary) -> Iterator[tuple[str, str]]:
    yield (
        "calls",
        f"{summary.calls}: {summary.share_calls} to shared, {summary.unshare_calls} to private" + _ended(summary),
    )
    yield from _odd(summary)
    yield from _rhythm(summary)
    if summary.ambiguity.calls:
        shown = ", ".join(
            f"{item.text} is {item.pages} or {item.other_pages} pages"
            if item.pages != item.other_pages
            else f"{item.field} {item.text} is {item.to} or {item.other_to}"
            for item in summary.ambiguity.readings[:3]
        )
        shown = shown.replace(" pages, ", ", ")
        other = summary.ambiguity.readings[0]
        by = other.chosen if other.by in summary.read_as else other.by
        yield "open", f"{plural(summary.ambiguity.calls, 'call')}: {shown}; --read-as {by} takes the other"
    quiet = [group for group in summary.seen if group.kind not in _LOUD]
    if quiet:
        quiet.sort(key=lambda group: -group.lines)
        text = ", ".join(
            f"{group.lines} {group.name}{f' {group.result}' if group.result else ''} ({_WORDS[group.kind]})"
            for group in quiet[:3]
        )
        yield "also", text + (f", {len(quiet) - 3} more kinds" if len(quiet) > 3 else "")
    yield from _pages(summary.flips)
    yield from _memory(summary)
    pool = _pool(summary.pool)
    if pool:
        yield "a pool", pool


def _ended(summary: TraceSummary) -> str:
    if not summary.attempts:
        return "; all ends shown" if summary.calls else ""
    which = "no end is shown" if summary.attempts == summary.calls else f"{summary.attempts} without an end shown"
    return f"; {which}, taken as done"


def _odd(summary: TraceSummary) -> Iterator[tuple[str, str]]:
    odd = []
    if summary.no_op_calls:
        call = summary.no_ops[0] if summary.no_ops else None
        first = f" (first {_at(call.place.source, call.place.line)})" if call is not None else ""
        odd.append(f"{summary.no_op_calls} without effect{first}")
    if summary.shape.repeated_calls:
        odd.append(f"{summary.shape.repeated_calls} the same as the one before")
    if summary.unexpected:
        odd.append(f"{summary.unexpected} of pages that should have been in that state: lines are missing before")
    if summary.echoes:
        odd.append(f"{summary.echoes} lines more say the same, from a lower layer")
    if summary.retries.answers:
        odd.append(f"{summary.retries.answers} answers to go on, for {plural(summary.retries.calls, 'call')}")
    if odd:
        yield "", "; ".join(odd)


def _rhythm(summary: TraceSummary) -> Iterator[tuple[str, str]]:
    timing, shape = summary.timing, summary.shape
    parts = []
    if timing.calls_per_second is not None:
        parts.append(f"{timing.calls_per_second:.1f} a second over {timing.span_seconds:.3f} s")
        parts += [f"at most {rate.most_calls} in {_time(rate.window_seconds)}" for rate in shape.highest_rates[1:2]]
        if shape.bursts:
            longest = f"{shape.longest_burst_calls} calls in {_time(shape.longest_burst_seconds)}"
            parts.append(f"{plural(shape.bursts, 'burst')}, the longest {longest}")
    if timing.backwards:
        parts.append(f"the clock went back {timing.backwards} times")
    if parts:
        yield "rate", "; ".join(parts)
    if shape.sizes:
        common = sorted(shape.sizes, key=lambda item: (-item.calls, item.pages))[:4]
        text = ", ".join(f"{item.calls} of {plural(item.pages, 'page')}" for item in common)
        rest = len(shape.sizes) - len(common)
        text += f", {rest} more sizes" if rest else ""
        if shape.joinable_calls:
            text += f"; {shape.joinable_calls} go on where the one before ended, {shape.longest_chain} in a row"
        yield "sizes", text


def _pages(flips: FlipSummary) -> Iterator[tuple[str, str]]:
    about = "about " if flips.one_in > 1 else ""
    text = f"{about}{flips.changed_pages} changed, {flips.page_changes} times in all"
    text += f"; {about}{flips.flip_flop_pages} back again"
    if flips.top:
        run = flips.top[0]
        every = f", every {_time(run.period_seconds)}" if run.period_seconds else ""
        text += f", the most {plural(run.pages, 'page')} at {run.gpa:#x}, {run.changes} times{every}"
    yield "pages", text
    if flips.one_in > 1:
        text = f"more than {flips.exact_runs} pages have histories of their own: one page in {flips.one_in} is followed"
        yield "", f"{text} from there on, so numbers of pages are estimates"
    if flips.shared_for:
        shared = ", ".join(f"{item.pages} {_up_to(item.up_to_seconds)}" for item in flips.shared_for[:4])
        yield "", f"shared until private again: {shared}"


def _memory(summary: TraceSummary) -> Iterator[tuple[str, str]]:
    ranges, foot = summary.ranges, summary.footprint
    where = f" ({_at(ranges.peak_at.place.source, ranges.peak_at.place.line)})" if ranges.peak_at is not None else ""
    yield "ranges", f"at most {ranges.peak}{where}, {ranges.final} at the end"
    of = "as stated" if foot.guest_bytes_from == "stated" else "up to the highest page"
    xarrays = f"{size(foot.xarray_shared.peak_bytes)} or {size(foot.xarray_private.peak_bytes)}"
    text = f"of {size(foot.guest_bytes)}, {of}: {size(foot.peak_bytes)} as ranges, {size(foot.rb_tree.peak_bytes)}"
    text += f" as rb-tree, {size(foot.bitmap_bytes)} as bitmap, {xarrays} as xarray of shared or private pages"
    yield "memory", text


def _pool(pool: PoolSummary) -> str:
    whole = next((cell for cell in pool.cells if cell.pages is None and cell.hold_seconds is None), None)
    if whole is None or not whole.at_most:
        return ""
    # The smallest that saves nine tenths of what any would.
    cell = next(
        each
        for each in pool.cells
        if 10 * each.at_most >= 9 * whole.at_most and 10 * each.at_least >= 9 * whole.at_least
    )
    pages = "without a bound" if cell.pages is None else f"of {plural(cell.pages, 'page')}"
    held = ", held for ever" if cell.hold_seconds is None else f", held for {_time(cell.hold_seconds)}"
    held = held if len({each.hold_seconds for each in pool.cells}) > 1 else ""
    text = f"{pages}{held}, would save {cell.at_least} to {cell.at_most} of {pool.calls} calls"
    if pool.keeps:
        kept = pool.keeps[0]
        text += f"; most for {plural(kept.pages, 'page')} at {kept.gpa:#x}"
    return text


def _place(call: CallPlace) -> str:
    return f"{_at(call.place.source, call.place.line)}, {plural(call.pages, 'page')} at {call.gpa:#x}"


def _at(source: str, line: int) -> str:
    return f"line {line}" if len(source) > 16 else f"{source}:{line}"


def _up_to(seconds: float | None) -> str:
    return "longer" if seconds is None else f"up to {_time(seconds)}"


def _time(seconds: float) -> str:
    for unit, name in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if seconds >= unit * 0.9995:
            return f"{seconds / unit:.4g} {name}"
    return f"{seconds * 1e9:.4g} ns"


def size(count: int) -> str:
    """Return bytes in the unit that fits."""
    for unit, name in ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= unit:
            shown = f"{count / unit:.1f}".removesuffix(".0")
            return f"{shown} {name}"
    return f"{count} bytes"


def plural(count: int, word: str) -> str:
    """Return a number and its noun."""
    return f"{count} {word}{'' if count == 1 else 's'}"


__all__: Sequence[str] = ["plural", "show", "size"]
