"""What follows a run of `hvabi conform`: the reports, the known failures, and the exit code."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hvabi.cli import console

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

    from hvabi.conformance.result import CaseResult, RunResult
    from hvabi.conformance.selection import Selection

PLUMBING = "This was a plumbing check: hvabi's own adapters answered hvabi's own cases. It tests the kit, nothing else."


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The options of one run."""

    iut: str | None
    selection: Selection
    profile: str | None
    expect: str | None
    update_expect: bool
    files: dict[str, str]
    seed: int
    sequences: int
    jobs: int
    timeout: float
    strict: bool
    transcript: str | None
    exits: bool
    replay: str | None
    failures: int
    passing_files: bool = False


def finished(asked: Asked, run: RunResult) -> RunResult:
    """Return the run with what the options make of it: strictness, and commands that repeat all that matters."""
    import shlex

    from hvabi.conformance.result import Verdict

    more = [*(["--exits"] if asked.exits else []), *(["--timeout", f"{asked.timeout:g}"] if asked.timeout != 5 else [])]
    results = run.results
    if asked.replay is not None:
        results = tuple(replace(result, reproduce="") for result in results)
    elif more:
        results = tuple(
            replace(result, reproduce=f"{result.reproduce} {shlex.join(more)}") if result.reproduce else result
            for result in results
        )
    warned = sum(result.verdict is Verdict.WARN and result.known is None for result in results)
    problems = run.problems
    if asked.strict and warned:
        problems = (*problems, f"--strict: {warned} warning{'' if warned == 1 else 's'} that nothing lists as known")
    return replace(run, results=results, problems=problems)


def report(asked: Asked, run: RunResult, out: TextIO, transcript: str | None) -> int:
    """Write all reports and return the exit code."""
    from hvabi.conformance.report import terminal
    from hvabi.conformance.result import Verdict

    color = console.colored(out)
    terminal.show(run, stream=out, width=console.width(), limit=asked.failures, color=color)
    started = any(result.verdict is not Verdict.NOT_RUN for result in run.results)
    skipped = all(result.verdict is Verdict.SKIP for result in run.results)
    code = console.GOOD if run.good else console.FOUND
    prose: list[str] = [PLUMBING] if asked.iut == "builtin" else []
    if skipped:
        prose.append(f"Nothing was tested: {run.results[0].message}.")
    # Paths and commands stay whole, to be copied.
    lines: list[str] = []
    if asked.update_expect:
        text, good = _update(asked, run)
        lines.append(text)
        code = console.GOOD if good else console.FOUND
    announced = not run.good or not asked.passing_files
    lines += [line for line in _write(asked, run) if announced]
    if transcript is not None and announced and (asked.transcript is not None or not run.good):
        lines.append(f"transcript: {transcript}")
    first = next((result.case.id for result in run.results if _is_new(result)), None)
    if first is not None:
        lines.append(f"what a case is about: hvabi explain {first}")
    if prose or lines:
        click.echo(file=out)
    for text in prose:
        say(out, text)
    for text in lines:
        click.echo(console.escape(text), file=out)
    if not started:
        return console.INTERNAL
    return console.USAGE if skipped else code


def _is_new(result: CaseResult) -> bool:
    """Whether a case was run and failed, and no list says so."""
    from hvabi.conformance.result import Verdict

    return result.verdict.bad and result.known is None and result.verdict is not Verdict.NOT_RUN


def _write(asked: Asked, run: RunResult) -> Iterator[str]:
    """Write the report files; yield a line about each."""
    from hvabi.abi.whole_file import write_whole as write
    from hvabi.conformance.report import html, junit, ktap
    from hvabi.conformance.report import json as as_json

    renderers = {"junit": junit.render, "ktap": ktap.render, "json": as_json.render, "html": html.render}
    for kind, path in asked.files.items():
        text = renderers[kind](run)
        if kind == "json" and path == "-":
            click.echo(text, nl=False)
            continue
        write(path, text)
        yield f"{kind}: {path}"


def _update(asked: Asked, run: RunResult) -> tuple[str, bool]:
    """Bring the file of known failures up to date; return what was done and whether the run is good by the new file."""
    from hvabi.conformance.known import KnownFailures, judge_known, load_known, update_known
    from hvabi.conformance.result import Verdict

    assert asked.expect is not None  # _check
    if not run.complete:
        return f"{asked.expect} is as it was, because the run was given up.", False
    before = load_known(asked.expect) if Path(asked.expect).exists() else KnownFailures()
    after = update_known(asked.expect, run.results)
    old, new = set(before.entries), set(after.entries)
    left = {entry.case for entry in new}
    added = sum(entry.case not in {item.case for item in old} for entry in new)
    removed = sum(entry.case not in left for entry in old)
    changed = len({entry.case for entry in new - {replace(item, line=0) for item in old}}) - added
    wrong = [
        result
        for result in run.results
        if (result.verdict.bad and judge_known(after.entry_for(result.case.id), replace(result, known=None))[0] is None)
        or result.verdict is Verdict.NOT_RUN
    ]
    text = f"{asked.expect}: {added} added, {removed} removed"
    return text + (f", {changed} changed" if changed > 0 else ""), not wrong


def say(out: TextIO, text: str) -> None:
    """Write wrapped text; what comes from an implementation is made harmless."""
    from hvabi.cli.tables import wrap

    for line in wrap(text, console.width(), hang="  "):
        click.echo(line, file=out)
