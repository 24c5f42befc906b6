"""``hvabi iut``: serve the bundled adapters."""

from __future__ import annotations

import click

EPILOG = """\b
Examples:
  hvabi iut
  echo '@hvabi {"id":1,"cmd":"hello","min":1,"max":1,"runner":"me"}' | hvabi iut

One line is one command, with the prefix "@hvabi ". End of input ends it.
"""


@click.command(epilog=EPILOG)
@click.option("--exits", is_flag=True, help="Show what a host asks of its VMM (feature exits).")
@click.option("--local-steps", is_flag=True, help="Show what a guest does itself (feature local-steps).")
def command(*, exits: bool, local_steps: bool) -> int:
    """Serve the bundled adapters over the line protocol, on standard input and output."""
    import sys

    from hvabi.conformance.iut import serve

    return serve(sys.stdin.buffer, sys.stdout.buffer, exits=exits, local_steps=local_steps)
