"""``hvabi list``: the ABIs."""

from __future__ import annotations

import click

from hvabi.cli import console

EPILOG = """\b
Examples:
  hvabi list
  hvabi list snp
  hvabi list --json | jq '.abis[].transports | keys'

--json has every name that an implementation needs: revisions, transports with the place of every field, config
keys, facts, profiles and policies.
"""


@click.command(epilog=EPILOG)
@click.argument("words", metavar="[WORD]...", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="For programs: all names and places.")
def command(words: tuple[str, ...], *, as_json: bool) -> int:
    """List the ABIs, or those whose id, title, vendor or roles have all the words."""
    from hvabi.abi.errors import SpecError
    from hvabi.abi.registry import abi_ids, bundled
    from hvabi.cli import catalogue
    from hvabi.cli.tables import dim, heading, table

    abis, broken = [], []
    for name in abi_ids():
        try:
            abis.append(bundled(name))
        except SpecError:
            broken.append(name)
    chosen = [
        abi
        for abi in abis
        if all(
            word.lower() in f"{abi.id} {abi.title} {abi.vendor} {' '.join(abi.roles.values())}".lower()
            for word in words
        )
    ]
    if as_json:
        console.dump({"format": "hvabi-list", "version": 1, "abis": [catalogue.entry(abi) for abi in chosen]})
    else:
        vendor = ""
        for abi in chosen:
            if abi.vendor != vendor:
                console.say(heading(abi.vendor) if not vendor else "\n" + heading(abi.vendor))
                vendor = abi.vendor
            revisions = ", ".join(name + ("*" if name == abi.default_revision else "") for name in abi.revisions)
            ways = ", ".join(abi.transports)
            draft = " (draft)" if getattr(abi, "draft", False) else ""
            for line in table([(abi.id, abi.title + draft)], console.width(), indent="  "):
                console.say(line)
            for line in table([("", f"revisions {revisions}; transports {ways}")], console.width(), indent="    "):
                console.say(dim(line))
    for name in broken:
        console.note(f"{name}: its specification cannot be read; hvabi lint says why")
    if not chosen:
        console.fail(f"no ABI has {' and '.join(words)}", "hvabi list shows all of them")
    return console.GOOD if chosen and not broken else console.USAGE
