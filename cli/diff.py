"""``hvabi diff``: what changed between two specifications."""

from __future__ import annotations

import click

from hvabi.cli import console

EPILOG = """\b
Examples:
  hvabi diff old/spec spec
  hvabi diff ghcb-psc.orig.yaml spec/amd/ghcb-psc.yaml
  git archive v0.1.0 spec | tar -x -C /tmp/old && hvabi diff /tmp/old/spec spec

breaking: bytes or answers may be other than before, or somebody is asked for something else. compatible: something was
added that those who know the rest need not know; examples count as that. documentation: only texts and sources.
Exit code 0 where nothing or only documentation changed, 1 where anything else did, 2 for a file that is not there.
"""


@click.command(epilog=EPILOG)
@click.argument("old", metavar="OLD")
@click.argument("new", metavar="NEW")
@click.option("--json", "as_json", is_flag=True, help="For programs: each change with class, path, file and line.")
def command(old: str, new: str, *, as_json: bool) -> int:
    """Say what changed between two specification files or folders, each change with its class, file and line."""
    from dataclasses import asdict

    from hvabi.abi.difference import CLASSES, differences

    found = differences(old, new)
    counts = {effect: sum(change.effect == effect for change in found) for effect in CLASSES}
    if as_json:
        console.dump({"counts": counts, "changes": [asdict(change) for change in found]})
    else:
        for effect in CLASSES:
            for change in found:
                if change.effect == effect:
                    at = f"{change.abi} {change.path}".rstrip()
                    console.say(console.escape(f"{change.file}:{change.line}: {effect}: {at}: {change.message}"))
        console.say(", ".join(f"{count} {effect}" for effect, count in counts.items()))
    return console.FOUND if counts["breaking"] or counts["compatible"] else console.GOOD
