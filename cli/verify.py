"""``hvabi verify``: the specifications, codecs and bundled adapters are what they say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hvabi.cli import console

if TYPE_CHECKING:
    from hvabi.conformance.verify import VerifyReport

EPILOG = """\b
Examples:
  hvabi verify
  hvabi verify tdx-map-gpa
  hvabi verify --json

The cases are a plumbing check: hvabi's own adapters answer hvabi's own cases. hvabi conform tests yours.

Exit code 1 where a check failed.
"""

_SHOWN = 3
"""Failures of one revision that are printed."""


@click.command(epilog=EPILOG)
@click.argument("abis", nargs=-1, metavar="[ABI]...")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def command(*, abis: tuple[str, ...], as_json: bool) -> int:
    """Check specifications, codecs, examples and bundled adapters, and run every case on them."""
    from hvabi.conformance.verify import verify

    with console.Progress("verify") as progress:
        report = verify(progress=progress, abis=abis)
    if as_json:
        _dump(report)
    else:
        _show(report)
    return console.GOOD if report.good else console.FOUND


def _dump(report: VerifyReport) -> None:
    from dataclasses import asdict

    console.dump({"good": report.good, **asdict(report)})


def _show(report: VerifyReport) -> None:
    from hvabi.cli.tables import table, wrap

    width = console.width()
    errors = [item for item in report.diagnostics if item.severity == "error"]
    for item in errors:
        console.say(item.text(color=console.colored()))
    rows = []
    for row in report.rows:
        state = "FAILED" if row.failures else "draft" if row.draft else "ok"
        counts = (
            row.rules,
            row.codecs,
            row.examples,
            row.host_examples,
            row.conversations,
            row.cases,
            len(row.failures),
        )
        rows.append((f"{row.abi}@{row.revision}", *map(str, counts), f"{row.seconds:.2f}", state))
    header = ("abi", "rules", "codecs", "examples", "by host", "talks", "cases", "failed", "s", "")
    for line in table(rows, max(width, 80), header=header, widest=44, room=6):
        bad = line.endswith("FAILED")
        console.say(console.paint(line, fg="red") if bad else line)
    for row in report.rows:
        for failure in row.failures[:_SHOWN]:
            for line in wrap(f"{row.abi}@{row.revision}: {failure}", width, hang="    "):
                console.say(line)
        if len(row.failures) > _SHOWN:
            console.say(f"    and {len(row.failures) - _SHOWN} more; --json has all")
    parts = ((row.codecs, row.examples, row.host_examples, row.conversations, row.cases) for row in report.rows)
    checks = sum(map(sum, parts))
    cases = sum(row.cases for row in report.rows)
    failed = len(errors) + sum(len(row.failures) for row in report.rows)
    drafts = sum(row.draft for row in report.rows)
    console.say()
    if cases:
        console.say(f"plumbing check: {cases} cases on the bundled adapters, under every set of policies")
    verdict = (
        console.paint("good", fg="green", bold=True) if report.good else console.paint("FAILED", fg="red", bold=True)
    )
    more = f", {drafts} drafts without an adapter" if drafts else ""
    console.say(
        f"{verdict}: {len(report.rows)} revisions, {checks} checks, {failed} failed{more}, {report.seconds:.1f} s"
    )
