"""``hvabi replay``: what the calls in a boot log or trace did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import click

from hvabi.cli import console

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from hvabi.traces.errors import TraceError
    from hvabi.traces.event import Radix
    from hvabi.traces.ndjson import Writer
    from hvabi.traces.summary import TraceSummary

EPILOG = """\b
Examples:
  hvabi replay boot.log
  hvabi replay --plot boot.html --memory 8G boot.log.gz qemu.log
  dmesg | hvabi replay --read-as hex -
  hvabi replay --follow --ndjson calls.ndjson /var/log/ovmf.log

Reads dmesg, ftrace, perf script, QEMU, EDK2, Cloud Hypervisor and OpenVMM logs, mixed and quoted as they come, packed
or not; docs/traces.md says how to make them. Exit code 1 where calls failed or break a rule, or a file is cut short.
"""

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_BAD = ("failure", "terminated", "fault")


@click.command(epilog=EPILOG)
@click.argument("traces", metavar="TRACE...", nargs=-1, required=True)
@click.option(
    "--radix", type=click.Choice(["decimal", "hex"]), default="decimal", help="How a number is read that does not say."
)
@click.option(
    "--read-as",
    "read_as",
    metavar="READING",
    multiple=True,
    help="Choose the other reading where the summary shows two, by the name that it shows.",
)
@click.option("--memory", metavar="SIZE", help="Memory of the guest, for example 8G; else up to the highest page.")
@click.option("--only", metavar="FORMAT", multiple=True, help="Use only this reader: kvm-trace, qemu, edk2 …")
@click.option("--plot", metavar="FILE", multiple=True, help="Draw pictures into FILE: one .svg, or one .html.")
@click.option(
    "--axis",
    type=click.Choice(["time", "calls"]),
    help="What pictures have from left to right; else time, if there is any.",
)
@click.option(
    "--ndjson", metavar="FILE", help="Write all that was found as JSON lines, which this command reads again."
)
@click.option("--follow", is_flag=True, help="Go on reading as the file grows, until Ctrl-C.")
@click.option(
    "--idle", metavar="SECONDS", type=click.FloatRange(0), help="With --follow: end after so long without more."
)
@click.option("--json", "as_json", is_flag=True, help="For programs: everything, with what is behind the pictures.")
def command(
    traces: tuple[str, ...],
    radix: str,
    read_as: tuple[str, ...],
    memory: str | None,
    only: tuple[str, ...],
    plot: tuple[str, ...],
    axis: str | None,
    ndjson: str | None,
    idle: float | None,
    *,
    follow: bool,
    as_json: bool,
) -> int:
    """Find the conversions in boot logs and traces, track the state of every page, and say what is odd."""
    from hvabi.abi.errors import UsageError
    from hvabi.cli.replay_text import show

    if follow and (len(traces) > 1 or traces[0] == "-"):
        raise UsageError(
            "--follow takes one file", code="bad-follow", hint="a pipe needs no --follow: it is read until it ends"
        )
    if idle is not None and not follow:
        raise UsageError("--idle belongs to --follow", code="bad-follow", hint="add --follow")
    if ndjson == "-" and as_json:
        raise UsageError(
            "--ndjson - and --json both want standard output", code="bad-output", hint="give --ndjson a file"
        )
    drawers = [_drawer(name) for name in plot]
    options: dict[str, Any] = {
        "radix": cast("Radix", radix),
        "read_as": read_as,
        "memory_bytes": _size(memory) if memory is not None else None,
        "by_calls": None if axis is None else axis == "calls",
        "with_map": as_json or bool(plot),
    }
    failed: list[TraceError] = []
    with _writer(ndjson, live=follow) as writer:
        if follow:
            summary = _follow(traces[0], only or None, writer, idle, options)
        else:
            summary = _read(traces, only or None, writer, failed.append, options)
    for name, draw in drawers:
        _write(name, draw(summary))
    if as_json:
        console.dump(summary.to_json())
    elif ndjson != "-":
        for line in show(summary, console.width()):
            console.say(line)
    for error in failed:
        console.fail(error.message, error.hint)
    if failed:
        return console.USAGE
    return console.FOUND if _found(summary) else console.GOOD


def _found(summary: TraceSummary) -> bool:
    return bool(
        summary.refused
        or summary.broken_rules
        or summary.failed_calls
        or summary.retries.storms
        or any(group.kind in _BAD for group in summary.seen)
        or not all(read.complete for read in summary.reads)
    )


def _read(
    traces: tuple[str, ...],
    only: tuple[str, ...] | None,
    writer: Writer | None,
    failed: Callable[[TraceError], None],
    options: dict[str, Any],
) -> TraceSummary:
    import sys

    from hvabi.traces.sources import Source, replay_sources

    sources: list[Source] = [("standard input", sys.stdin.buffer) if name == "-" else name for name in traces]
    with console.Progress("replay") as progress:
        bar = _Bar(traces, progress)
        return replay_sources(sources, formats=only, progress=bar, writer=writer, failed=failed, **options)


def _follow(
    trace: str, only: tuple[str, ...] | None, writer: Writer | None, idle: float | None, options: dict[str, Any]
) -> TraceSummary:
    from hvabi.traces.replay import Replay
    from hvabi.traces.sources import read_into
    from hvabi.traces.streams import Following

    run = Replay(**options)
    with console.Progress(f"following {trace}, Ctrl-C ends") as progress:

        def waiting() -> None:
            if writer is not None:
                writer.flush()
            progress(f"{run.calls} calls, {run.ranges} ranges")

        with Following(trace, idle_seconds=idle, waiting=waiting) as stream:
            report = read_into(run, stream, trace, formats=only, writer=writer, interruptible=True)
    return run.summary([report])


class _Bar:
    """How far the reading is, as a bar where the sizes of all files are known."""

    def __init__(self, names: tuple[str, ...], progress: console.Progress) -> None:
        from pathlib import Path

        self._progress = progress
        self._total: int | None = 0
        self._sizes: dict[str, int] = {}
        for name in names:
            try:
                found = Path(name)
                size = found.stat().st_size if name != "-" and found.is_file() else None
            except (OSError, ValueError):
                size = None
            self._sizes[name] = size or 0
            self._total = None if size is None or self._total is None else self._total + size
        self._before = 0
        self._name = ""

    def __call__(self, name: str, done: int) -> None:
        if name != self._name:
            self._before += self._sizes.get(self._name, 0)
            self._name = name
        at = self._before + done
        if not self._total:
            self._progress(f"{at >> 20} MiB, {name}")
            return
        part = min(at / self._total, 1.0)
        bar = "#" * int(part * 20)
        self._progress(f"[{bar:<20}] {part:4.0%} of {self._total >> 20} MiB, {name}")


def _writer(name: str | None, *, live: bool) -> AbstractContextManager[Writer | None]:
    from contextlib import contextmanager

    @contextmanager
    def opened() -> Iterator[Writer | None]:
        if name is None:
            yield None
            return
        import io
        import sys
        from pathlib import Path

        from hvabi.abi.whole_file import writing_whole
        from hvabi.traces.ndjson import Writer

        if name == "-":
            yield Writer(sys.stdout)
            sys.stdout.flush()
            return
        if live:
            # Others read along: line by line, each of them whole.
            with Path(name).open("w", encoding="utf-8", newline="\n", buffering=1) as stream:
                yield Writer(stream)
            return
        with writing_whole(name) as raw:
            text = io.TextIOWrapper(raw, encoding="utf-8", newline="\n")
            yield Writer(text)
            text.flush()
            text.detach()

    return opened()


def _drawer(name: str) -> tuple[str, Callable[[TraceSummary], str]]:
    from hvabi.abi.errors import UsageError

    def svg(summary: TraceSummary) -> str:
        from hvabi.traces.plot.page import picture

        return picture(summary)

    def html(summary: TraceSummary) -> str:
        from hvabi.traces.plot.page import page

        return page(summary)

    for end, draw in ((".svg", svg), (".html", html), (".htm", html)):
        if name.lower().endswith(end):
            return name, draw
    raise UsageError(
        f"--plot {name[:80]}: the name says no kind of picture", code="bad-plot", hint="end it in .svg or .html"
    )


def _write(name: str, text: str) -> None:
    from hvabi.abi.whole_file import write_whole

    write_whole(name, text)


def _size(text: str) -> int:
    from hvabi.abi.errors import UsageError
    from hvabi.cli.target import integer

    digits = text.strip().lower().removesuffix("ib").removesuffix("b") if not text.lower().startswith("0x") else text
    unit = digits[-1:] if digits[-1:] in _UNITS and not digits.startswith("0x") else ""
    size = integer(digits.removesuffix(unit) if unit else digits, "--memory") * _UNITS[unit]
    if not 0 < size <= 1 << 64:
        raise UsageError(f"--memory {text[:40]} is no size of a guest", code="bad-memory", hint="for example 8G")
    return size
