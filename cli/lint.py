"""``hvabi lint``: check specification files."""

from __future__ import annotations

import click

from hvabi.cli import console

EPILOG = """\b
Examples:
  hvabi lint
  hvabi lint spec/amd/ghcb-psc.yaml
  hvabi lint --format github spec

Exit code 1 where an error was found, 2 where a file cannot be found. hvabi explain ID says what a diagnostic means.
"""


@click.command(epilog=EPILOG)
@click.argument("paths", metavar="[PATH]...", nargs=-1)
@click.option("--format", "form", type=click.Choice(["text", "json", "github"]), default="text", help="How to report.")
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
def command(paths: tuple[str, ...], form: str, *, as_json: bool) -> int:
    """Check specification files or folders; the bundled ones by default."""
    from pathlib import Path

    from hvabi.abi.diagnostics import render_github, render_json
    from hvabi.abi.errors import UsageError
    from hvabi.abi.lint import lint_paths

    for path in paths:
        try:
            there = Path(path).exists()
        except (OSError, ValueError):
            there = False
        if not there:
            raise UsageError(
                f"there is no file or folder {path!r}", code="no-file", hint="name a *.yaml file or a folder"
            )
    found = lint_paths(list(paths) or None)
    errors = sum(item.severity == "error" for item in found)
    form = "json" if as_json else form
    if form == "json":
        console.say(render_json(found))
    elif form == "github":
        console.say(render_github(found)) if found else None
    else:
        for item in found:
            console.say(item.text(color=console.colored()))
        warnings = len(found) - errors
        if found:
            console.say()
        console.say(f"{errors} error{'' if errors == 1 else 's'}, {warnings} warning{'' if warnings == 1 else 's'}")
    return console.FOUND if errors else console.GOOD
