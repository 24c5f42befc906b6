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
    from hvabi.abi.platforms import platforms
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
    others = [
        platform
        for platform in platforms().values()
        if all(word.lower() in f"{platform.id} {platform.title} {platform.vendor}".lower() for word in words)
    ]
    if as_json:
        entries = [catalogue.entry(abi) for abi in chosen]
        rows = [catalogue.platform_entry(platform) for platform in others]
        console.dump({"format": "hvabi-list", "version": 1, "abis": entries, "platforms": rows})
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
        for platform in others:
            console.say(("\n" if vendor else "") + heading(platform.vendor))
            vendor = platform.vendor
            for line in table(
                [(platform.id, f"{platform.title} has no such call of its own")], console.width(), indent="  "
            ):
                console.say(line)
            for line in table([("", f"guests use {', '.join(platform.calls_of)}")], console.width(), indent="    "):
                console.say(dim(line))
    for name in broken:
        console.note(f"{name}: its specification cannot be read; hvabi lint says why")
    if not chosen and not others:
        console.fail(f"no ABI has {' and '.join(words)}", "hvabi list shows all of them")
    return console.GOOD if (chosen or others) and not broken else console.USAGE
