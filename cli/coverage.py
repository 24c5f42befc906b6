"""``hvabi coverage``: the rules and how many cases each has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hvabi.cli import console

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hvabi.conformance.case import Case
    from hvabi.conformance.coverage import RuleCoverage

EPILOG = """\b
Examples:
  hvabi coverage
  hvabi coverage ghcb-psc --uncovered
  hvabi coverage --json

Cases are counted over all revisions, transports and profiles. Exit code 1 where a rule that is a must has no case and
no reason why there can be none.
"""


@click.command(epilog=EPILOG)
@click.argument("abis", metavar="[ABI]...", nargs=-1)
@click.option("--uncovered", is_flag=True, help="Only rules without a case.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def command(abis: tuple[str, ...], *, uncovered: bool, as_json: bool) -> int:
    """Show which rules have cases, and which have none."""
    from hvabi.cli.choice import check_abis, with_cases
    from hvabi.conformance.coverage import coverage

    names = list(dict.fromkeys(text.partition("@")[0] for text in check_abis(abis))) or with_cases()
    rows = coverage(_cases(names), names)
    if as_json:
        _dump(rows, uncovered=uncovered)
    else:
        _show(rows, uncovered=uncovered)
    return console.FOUND if any(row.missing for row in rows) else console.GOOD


def _cases(abis: Sequence[str]) -> Iterator[Case]:
    """Yield the cases of the ABIs under ``spec`` and every profile."""
    from hvabi.abi.registry import bundled
    from hvabi.conformance.catalogue import every_case

    tasks = [(abi, profile) for abi in abis for profile in ("spec", *bundled(abi).profiles)]
    with console.Progress("coverage") as progress:
        for number, (abi, profile) in enumerate(tasks, 1):
            progress(f"{abi}, {profile} ({number} of {len(tasks)})")
            yield from every_case([abi], profile=profile)


def _state(row: RuleCoverage) -> str:
    if row.cases:
        return "covered"
    if row.missing:
        return "missing"
    return "exempt" if row.exempt is not None else "none"


def _dump(rows: Sequence[RuleCoverage], *, uncovered: bool) -> None:
    console.dump(
        {
            "good": not any(row.missing for row in rows),
            "rules": [
                {
                    "abi": row.abi, "rule": row.rule, "binds": row.binds, "level": row.level, "check": row.check,
                    "where": row.where or None, "cases": row.cases, "first": row.first, "exempt": row.exempt,
                    "state": _state(row),
                }
                for row in rows
                if not (uncovered and row.cases)
            ],
        }
    )  # fmt: skip


def _show(rows: Sequence[RuleCoverage], *, uncovered: bool) -> None:
    from hvabi.cli.tables import dim, heading, table

    width = console.width()
    for abi in dict.fromkeys(row.abi for row in rows):
        own = [row for row in rows if row.abi == abi]
        with_some = sum(bool(row.cases) for row in own)
        shown = [row for row in own if not row.cases] if uncovered else own
        if not shown:
            continue
        console.say(heading(abi) + dim(f"  {with_some} of {len(own)} rules have cases"))
        cells = [(row.rule, row.level, row.binds, str(row.cases or "-"), _note(row)) for row in shown]
        for line in table(cells, width, header=("rule", "level", "binds", "cases", ""), indent="  ", room=24):
            console.say(console.paint(line, fg="red", bold=True) if _MISSING in line else line)
        console.say()
    _verdict(rows)


_MISSING = "NO CASE, and it is a must"


def _note(row: RuleCoverage) -> str:
    if row.missing:
        return _MISSING
    parts = [f"only {row.where}"] if row.where else []
    if not row.cases:
        parts.append(f"exempt: {row.exempt}" if row.exempt is not None else "no case, and it is no must")
    return "; ".join(parts)


def _verdict(rows: Sequence[RuleCoverage]) -> None:
    from hvabi.cli.tables import wrap

    missing = [row for row in rows if row.missing]
    exempt = sum(not row.cases and row.exempt is not None for row in rows)
    others = sum(not row.cases for row in rows) - exempt - len(missing)
    musts = sum(row.level == "must" for row in rows)
    word = console.paint("FAILED", fg="red", bold=True) if missing else console.paint("good", fg="green", bold=True)
    parts = [f"{len(rows)} rules, {musts} of them must", f"{sum(bool(row.cases) for row in rows)} have cases"]
    parts += [f"{exempt} exempt"] if exempt else []
    parts += [f"{others} without a case that are no must"] if others else []
    parts += [f"{len(missing)} must without a case: {', '.join(row.rule for row in missing)}"] if missing else []
    for number, line in enumerate(wrap(", ".join(parts), console.width() - 8, hang="  ")):
        console.say(line if number else f"{word}: {line}")
