"""``hvabi replay``: what the calls in a boot log did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import click

from hvabi.cli import console

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hvabi.traces.event import Radix
    from hvabi.traces.replay import Source
    from hvabi.traces.report import ReadReport
    from hvabi.traces.summary import CallPlace, TraceSummary

EPILOG = """\b
Examples:
  hvabi replay boot.log
  hvabi replay --radix hex --memory 8G boot.log
  dmesg | hvabi replay -

Exit code 1 where calls break a rule or could not be done.
"""

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_LISTED = 12


@click.command(epilog=EPILOG)
@click.argument("traces", metavar="TRACE...", nargs=-1, required=True)
@click.option(
    "--radix", type=click.Choice(["decimal", "hex"]), default="decimal", help="How a number is read that does not say."
)
@click.option("--memory", metavar="SIZE", help="Memory of the guest, for example 8G; else up to the highest page.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def command(traces: tuple[str, ...], radix: str, memory: str | None, *, as_json: bool) -> int:
    """Find the conversions in boot logs, track the state of every page, and say what is odd."""
    import sys

    from hvabi.traces.replay import replay_sources

    size = _size(memory) if memory is not None else None
    sources: list[Source] = [("standard input", sys.stdin.buffer) if name == "-" else name for name in traces]
    with console.Progress("replay") as progress:
        summary = replay_sources(
            sources,
            radix=cast("Radix", radix),
            memory_bytes=size,
            progress=lambda name, done: progress(f"{name}, {done >> 20} MiB"),
        )
    if as_json:
        console.dump(summary.to_json())
    else:
        _show(summary)
    return console.FOUND if summary.refused or summary.broken_rules else console.GOOD


def _size(text: str) -> int:
    from hvabi.abi.errors import UsageError
    from hvabi.cli.target import integer

    digits = text.strip().lower().removesuffix("ib").removesuffix("b") if not text.lower().startswith("0x") else text
    unit = digits[-1:] if digits[-1:] in _UNITS and not digits.startswith("0x") else ""
    size = integer(digits.removesuffix(unit) if unit else digits, "--memory") * _UNITS[unit]
    if not 0 < size <= 1 << 64:
        raise UsageError(f"--memory {text[:40]} is no size of a guest", code="bad-memory", hint="for example 8G")
    return size


def _show(summary: TraceSummary) -> None:
    from hvabi.cli.tables import heading, table, wrap

    width = console.width()
    for read in summary.reads:
        for line in _read(read, width):
            console.say(line)
    console.say()
    console.say(heading("calls"))
    for line in table(list(_counts(summary)), width, indent="  "):
        console.say(line)
    for rule in summary.broken_rules:
        text = f"! {rule.rule} ({rule.abi}) is broken by {_calls(rule.calls)}, first {_place(rule.first)}"
        for line in wrap(text, width, indent="  ", hang="    "):
            console.say(console.paint(line, fg="yellow"))
    for refusal in summary.refused:
        text = f"! {refusal.status.value}: {_calls(refusal.calls)} could not be done, first {_place(refusal.first)}"
        for line in wrap(text, width, indent="  ", hang="    "):
            console.say(console.paint(line, fg="yellow"))
    console.say()
    console.say(heading("pages"))
    for line in table(list(_pages(summary)), width, indent="  "):
        console.say(line)
    for run in summary.flips.top[:5]:
        pages = f"{run.pages} page{'' if run.pages == 1 else 's'}"
        console.say(f"  {pages} at {run.gpa:#x} changed {run.changes} times each")
    console.say()
    console.say(heading(f"not private at the end: {len(summary.final)} ranges, {summary.final_pages} pages"))
    for item in summary.final[:_LISTED]:
        console.say(
            f"  {item.gpa:#014x} to {item.end:#014x}  {(item.end - item.gpa) >> 12:>8} pages  {item.state.value}"
        )
    if len(summary.final) > _LISTED:
        console.say(f"  and {len(summary.final) - _LISTED} more; --json lists all")


def _read(read: ReadReport, width: int) -> Iterator[str]:
    from hvabi.cli.tables import wrap

    formats = ", ".join(f"{count} {name}" for name, count in read.events.items() if count)
    text = f"{read.source}: {read.lines} lines, {formats or 'no'} calls"
    if read.malformed:
        text += f", {read.malformed} could not be read"
    yield from wrap(text, width)
    for item in read.first_malformed[:3]:
        yield from wrap(f"! line {item.line}: {item.reason}: {item.excerpt}", width, indent="  ", hang="    ")
    for note in read.notes:
        where = f" (line {note.line})" if note.line is not None else ""
        yield from wrap(f"note: {note.text}{where}", width, indent="  ", hang="    ")


def _calls(count: int) -> str:
    return f"{count} call{'' if count == 1 else 's'}"


def _place(call: CallPlace) -> str:
    return f"{call.place.source}:{call.place.line}, {call.pages} pages at {call.gpa:#x}"


def _counts(summary: TraceSummary) -> Iterator[tuple[str, str]]:
    yield "all", f"{summary.calls}: {summary.share_calls} to shared, {summary.unshare_calls} to private"
    if summary.no_op_calls:
        first = f", first {_place(summary.no_ops[0])}" if summary.no_ops else ""
        yield "without effect", f"{summary.no_op_calls}{first}"
    if summary.attempts:
        yield "end not shown", f"{summary.attempts}, taken as done"
    timing = summary.timing
    if timing.calls_per_second is not None:
        yield "per second", f"{timing.calls_per_second:.1f}, over {timing.span_seconds:.3f} s"
    if timing.backwards:
        yield "clock", f"went back {timing.backwards} times"
    if summary.ambiguity.calls:
        shown = ", ".join(
            f"{item.text} is {item.decimal_pages} or {item.hex_pages}" for item in summary.ambiguity.readings[:4]
        )
        yield "ambiguous", f"{_calls(summary.ambiguity.calls)}, read as {summary.radix}; {shown}; try --radix"


def _pages(summary: TraceSummary) -> Iterator[tuple[str, str]]:
    flips, ranges, foot = summary.flips, summary.ranges, summary.footprint
    inexact = " or more" if flips.inexact_from is not None else ""
    yield "changed", f"{flips.changed_pages}{inexact} pages, {flips.page_changes} changes"
    yield "back and forth", f"{flips.flip_flop_pages}{inexact} pages"
    peak: Any = ranges.peak_at
    where = f", first at {peak.place.source}:{peak.place.line}" if peak is not None else ""
    yield "ranges", f"at most {ranges.peak}{where}; {ranges.final} at the end"
    of = "as stated" if foot.guest_bytes_from == "stated" else "up to the highest page"
    bitmap = f"{foot.bitmap_bytes} as a bitmap of {foot.guest_bytes / (1 << 20):.0f} MiB, {of}"
    yield "memory for it", f"{foot.peak_bytes} bytes as ranges at the most; {bitmap}"
