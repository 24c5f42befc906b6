"""``hvabi generate``: bring generated parts of the repository up to date."""

from __future__ import annotations

import click

from hvabi.cli import console

EPILOG = """\b
Examples:
  hvabi generate
  hvabi generate --check

Exit code 1 with --check where something is out of date.
"""


@click.command(epilog=EPILOG)
@click.option("--check", is_flag=True, help="Change nothing; say what is out of date.")
@click.option(
    "--root", metavar="DIR", default=".", type=click.Path(file_okay=False), help="The checkout; this folder by default."
)
def command(*, check: bool, root: str) -> int:
    """Renew what comes from the specifications: tables in README.md, and the specifications read beforehand."""
    from pathlib import Path

    from hvabi.abi.ready import renew, spec_root
    from hvabi.publish.tables import FILES, stale

    found = stale(Path(root), write=not check)
    if Path(root, "spec").resolve() == spec_root().resolve() and renew(write=not check):
        found.append("spec/ready")
    for name in found:
        console.say(f"{name}: {'out of date; run hvabi generate' if check else 'renewed'}")
    if not found:
        console.say(f"up to date: {', '.join((*FILES, 'spec/ready'))}")
    return console.FOUND if check and found else console.GOOD
