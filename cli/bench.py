"""``hvabi bench``: our speed beside that of others, on the same work in one run."""

from __future__ import annotations

from typing import Any

import click

from hvabi.cli import console

EPILOG = """\b
Examples:
  hvabi bench --quick
  hvabi bench codec tracking
  hvabi bench --json > bench.json

Groups: codec, calls, tracking, boots, kit; all by default. Times are medians of processor time, in turns with the
peers; ratios are what counts. Peers: pip install 'hvabi[bench]'; one that is not there is said to be absent. It needs
a checkout: the workloads lie in benchmarks/. Exit code 1 where a goal is missed, 4 without a checkout.
"""


@click.command(epilog=EPILOG)
@click.argument("groups", metavar="[GROUP]...", nargs=-1)
@click.option("--quick", is_flag=True, help="Fewer and shorter rounds: half a minute, and rougher.")
@click.option("--json", "as_json", is_flag=True, help="For programs: every row and goal.")
@click.option(
    "--root", metavar="DIR", default=".", type=click.Path(file_okay=False), help="The checkout; this folder by default."
)
def command(groups: tuple[str, ...], root: str, *, quick: bool, as_json: bool) -> int:
    """Measure codecs, calls, tracking, replay and the kit beside their peers."""
    import importlib
    import sys
    from pathlib import Path

    from hvabi.abi.errors import UsageError

    if not (Path(root) / "benchmarks" / "suite.py").is_file():
        console.say(f"skipped: {Path(root).resolve()} is no checkout with benchmarks/; give --root DIR")
        return console.SKIPPED
    sys.path.insert(0, str(Path(root).resolve()))
    suite: Any = importlib.import_module("benchmarks.suite")
    for group in groups:
        if group not in suite.GROUPS:
            raise UsageError.unknown("group", group, suite.GROUPS)
    with console.Progress("bench") as progress:
        found: dict[str, Any] = suite.run(groups, quick=quick, progress=progress)
    if as_json:
        console.dump(found)
    else:
        for line in suite.table(found):
            console.say(line)
    return console.FOUND if any(goal["met"] is False for goal in found["goals"]) else console.GOOD
