"""``hvabi compare``: the same questions asked of every ABI."""

from __future__ import annotations

import click

from hvabi.cli import console

EPILOG = """\b
Examples:
  hvabi compare
  hvabi compare tdx-map-gpa ghcb-psc kvm-map-gpa-range
  hvabi compare --aspect unit --aspect granule
  hvabi compare --json

No cell is typed by hand: all come from the specifications. Where one says nothing, the cell says "not stated".
"""


@click.command(epilog=EPILOG)
@click.argument("abis", metavar="[ABI]...", nargs=-1)
@click.option("--aspect", "aspects", metavar="NAME", multiple=True, help="Only this question; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def command(abis: tuple[str, ...], aspects: tuple[str, ...], *, as_json: bool) -> int:
    """Compare the ABIs: units, granules, limits, order of checks, progress, errors."""
    from hvabi.abi.comparison import as_data, compare
    from hvabi.abi.comparison_cells import ASPECTS
    from hvabi.abi.errors import UsageError
    from hvabi.abi.registry import abi_ids, bundled
    from hvabi.cli.tables import heading, table

    known = {aspect.name: aspect for aspect in ASPECTS}
    for name in aspects:
        if name not in known:
            raise UsageError.unknown("aspect", name, known)
    rows = compare(bundled(name) for name in abis or abi_ids())
    shown = [known[name] for name in aspects] or list(ASPECTS)
    if as_json:
        data = as_data(rows)
        names = {aspect.name for aspect in shown}
        data["aspects"] = {name: item for name, item in data["aspects"].items() if name in names}
        for row in data["rows"]:
            row["cells"] = {name: cell for name, cell in row["cells"].items() if name in names}
        console.dump(data)
        return console.GOOD
    width = console.width()
    for aspect in shown:
        console.say(heading(aspect.title) + console.paint(f"  {aspect.doc}", dim=True))
        for line in table([(row.label, row.cells[aspect.name].text) for row in rows], width, indent="  "):
            console.say(line)
        console.say()
    return console.GOOD
