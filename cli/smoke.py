"""``hvabi smoke``: the test of the kit by liars."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from hvabi.cli import console

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hvabi.conformance.liars import Caught, Liar, SmokeReport

_STATES = ("caught", "equivalent", "exempt", "survived", "refuted")

EPILOG = """\b
Examples:
  hvabi smoke tdx-map-gpa
  hvabi smoke --role guest
  hvabi smoke ghcb-psc --all
  hvabi smoke --json

A liar is a bundled adapter with exactly one planted bug: a historic one, or one made of the specification (a rule
skipped, two checks swapped, a status exchanged, progress off by one). Every liar must be caught by a case, or there
must be a reason why nobody can tell it from a right implementation (equivalent), or why no case is made for it
(exempt). Exit code 1 where one survives.
"""


@click.command(epilog=EPILOG)
@click.argument("abis", metavar="[ABI]...", nargs=-1)
@click.option("--role", type=click.Choice(["host", "guest"]), help="Only this role.")
@click.option("--all", "show_all", is_flag=True, help="Every liar with every case that caught it.")
@click.option("--json", "as_json", is_flag=True, help="For programs: every liar with the cases that caught it.")
def command(abis: tuple[str, ...], role: str | None, *, show_all: bool, as_json: bool) -> int:
    """Test the kit itself: plant one bug after another and see which case catches it."""
    from hvabi.cli.choice import check_abis, with_cases
    from hvabi.conformance.catalogue import every_case
    from hvabi.conformance.liars import liars, smoke

    names = list(dict.fromkeys(text.partition("@")[0] for text in check_abis(abis))) or with_cases()
    with console.Progress("smoke") as progress:
        progress("the liars")
        zoo: list[Liar] = [liar for abi in names for liar in liars(abi, role)]
        progress("the cases")
        cases = list(every_case(names, role=role))
        done = survived = 0

        def tell(entry: Caught) -> None:
            nonlocal done, survived
            done += 1
            survived += not entry.good
            wrong = f", {survived} bad" if survived else ""
            progress(f"{done} of {len(zoo)}{wrong}, {entry.liar.id}")

        report = smoke(zoo, cases, progress=tell)
    if not report.entries:
        from hvabi.abi.errors import UsageError

        hint = "leave --role out, or name another ABI"
        raise UsageError(f"there is no liar of {', '.join(names)}, role {role}", code="nothing-selected", hint=hint)
    if as_json:
        console.dump(_plain(report))
    else:
        _show(report, everything=show_all)
    return console.GOOD if report.good else console.FOUND


def _plain(report: SmokeReport) -> dict[str, Any]:
    return {
        "good": report.good,
        "counts": {
            "liars": len(report.entries),
            "caught": len(report.caught),
            "survivors": len(report.survivors),
            "equivalent": len(report.equivalent),
            "exempt": len(report.exempt),
            "refuted": len(report.refuted),
        },
        "liars": [
            {
                "id": entry.liar.id,
                "family": entry.liar.family,
                "what": entry.liar.what,
                "reference": entry.liar.reference,
                "state": _state(entry),
                "equivalent": entry.liar.equivalent,
                "exempt": entry.liar.exempt,
                "caught_by": [
                    {"case": catch.case, "verdict": catch.verdict.value, "message": catch.message} for catch in entry.by
                ],
                "tried": entry.tried,
                "skipped": entry.skipped,
            }
            for entry in report.entries
        ],
    }


def _state(entry: Caught) -> str:
    if entry.liar.excuse is not None:
        return "refuted" if entry.by else "exempt" if entry.liar.equivalent is None else "equivalent"
    return "caught" if entry.by else "survived"


def _show(report: SmokeReport, *, everything: bool) -> None:
    from hvabi.cli.tables import dim, heading, table

    width = console.width()
    for abi in dict.fromkeys(entry.liar.abi for entry in report.entries):
        own = [entry for entry in report.entries if entry.liar.abi == abi]
        states = [_state(entry) for entry in own]
        counts = [f"{states.count(state)} {state}" for state in _STATES if state in states]
        console.say(heading(abi) + dim(f"  {len(own)} liars: {', '.join(counts)}"))
        shown = own if everything else [entry for entry in own if entry.good and entry.by]
        cells = [(_short(entry), _by(entry, everything=everything)) for entry in shown]
        for line in table(cells, width, indent="  ", widest=58, room=40):
            console.say(line)
    _reasons("Equivalent to a right implementation", report.equivalent, width)
    _reasons("Exempt: a case could tell them, and none is made", report.exempt, width)
    for title, entries in (
        ("Survived: no case catches them, so a case is missing", report.survivors),
        ("Caught, although a reason says that none is: the reason is wrong", report.refuted),
        ("They only fell over, which is not their bug: nothing was shown", [e for e in report.entries if e.broken]),
    ):
        _bad(title, entries, width)
    console.say()
    good = console.paint("good", fg="green", bold=True) if report.good else console.paint("FAILED", fg="red", bold=True)
    console.say(
        f"{good}: {len(report.entries)} liars, {len(report.caught)} caught, {len(report.equivalent)} equivalent, "
        f"{len(report.exempt)} exempt, {len(report.survivors)} survived, {len(report.refuted)} wrongly excused, "
        f"{report.seconds:.1f} s"
    )


def _short(entry: Caught) -> str:
    """Return the id without the ABI, which is the heading."""
    return entry.liar.id.removeprefix(f"{entry.liar.abi}@")


def _by(entry: Caught, *, everything: bool) -> str:
    prefix = f"{entry.liar.abi}@{entry.liar.revision}.{entry.liar.role}.{entry.liar.transport}."
    names = [catch.case.removeprefix(prefix) + ("" if catch.verdict == "fail" else f" ({catch.verdict})")
             for catch in entry.by]  # fmt: skip
    if not names:
        return "not caught"
    if everything:
        return ", ".join(names)
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def _reasons(title: str, entries: Sequence[Caught], width: int) -> None:
    """Print the liars that have an excuse, those of one reason together."""
    from hvabi.cli.tables import heading, wrap

    if not entries:
        return
    console.say()
    console.say(heading(title))
    by_reason: dict[str, list[str]] = {}
    for entry in entries:
        by_reason.setdefault(entry.liar.excuse or "", []).append(entry.liar.id)
    for reason, ids in by_reason.items():
        for line in wrap(reason, width, indent="  "):
            console.say(line)
        for ident in ids:
            console.say(f"    {ident}")


def _bad(title: str, entries: Sequence[Caught], width: int) -> None:
    from hvabi.cli.tables import wrap

    if not entries:
        return
    console.say()
    console.say(console.paint(f"{title}:", fg="red", bold=True))
    for entry in entries:
        console.say(f"  {entry.liar.id}")
        for line in wrap(
            f"{entry.liar.what} ({entry.tried} cases tried, {entry.skipped} skipped)", width, indent="    "
        ):
            console.say(line)
        if entry.by:
            console.say(f"    caught by {entry.by[0].case}")
            said = f"the reason was: {entry.liar.excuse}" if entry.liar.excuse else entry.by[0].message
            for line in wrap(said, width, indent="    "):
                console.say(line)
        if entry.liar.reference:
            for line in wrap(f"seen in: {entry.liar.reference}", width, indent="    "):
                console.say(line)
