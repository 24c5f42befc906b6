"""``hvabi vectors``: the cases as test vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hvabi.cli import console

if TYPE_CHECKING:
    from hvabi.conformance.case import Case
    from hvabi.conformance.vectors import Form

EPILOG = """\b
Examples:
  hvabi vectors -o vectors
  hvabi vectors -o vectors ghcb-psc tdx-map-gpa
  hvabi vectors -o vectors --check
  hvabi vectors -o headers --format c kvm-map-gpa-range

One file per ABI, revision and role, and a manifest with SHA-256 sums; of JSON a schema too. ndjson has one test a line,
each whole in itself; c has constant data for a test program in C, of hosts only. Cases that need fault injection are
left out. The same version gives the same bytes. Files of an earlier set that are not written again are removed;
nothing else in DIR is touched. --check writes nothing: exit code 1 where DIR is not what would be written, or where
the version of the set does not tell of what has changed since: major where an id is gone or wants something else, minor
where ids are new, patch where only words are other.
"""


@click.command(epilog=EPILOG)
@click.argument("abis", metavar="[ABI[@REV]]...", nargs=-1)
@click.option("-o", "--output", "folder", metavar="DIR", required=True, help="The folder; it is made if need be.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["json", "ndjson", "c"]),
    default="json",
    show_default=True,
    help="The form of the files.",
)
@click.option("--check", "only_check", is_flag=True, help="Compare DIR with what would be written, by the same ABIs.")
@click.option("--json", "as_json", is_flag=True, help="For programs: the manifest, or the problems.")
def command(abis: tuple[str, ...], folder: str, *, form: Form, only_check: bool, as_json: bool) -> int:
    """Write every case that needs no fault injection as JSON, NDJSON or C, for use without hvabi."""
    from hvabi.cli.choice import check_abis
    from hvabi.conformance.vector_check import check
    from hvabi.conformance.vectors import MANIFEST, write_vectors

    cases = _cases(check_abis(abis))
    with console.Progress("vectors") as progress:
        if only_check:
            progress("checking")
            problems = check(folder, cases)
            if as_json:
                console.dump({"good": not problems, "problems": list(problems)})
                return console.FOUND if problems else console.GOOD
            for problem in problems:
                console.say(console.escape(problem))
            count = f"{len(problems)} problem{'' if len(problems) == 1 else 's'}"
            console.say(f"FAILED: {count}; hvabi vectors -o {folder} writes it anew" if problems else
                        f"good: {folder} is what this version writes")  # fmt: skip
            return console.FOUND if problems else console.GOOD
        progress("writing")
        manifest = write_vectors(folder, cases, form)
    if as_json:
        console.dump(manifest)
        return console.GOOD
    from hvabi.cli.tables import table

    rows = [(entry["name"], str(entry["numberOfTests"]), f"{entry['size']} bytes") for entry in manifest["files"]
            if "numberOfTests" in entry]  # fmt: skip
    for line in table(rows, max(console.width(), 60), header=("file", "tests", "size"), widest=48, room=8):
        console.say(line)
    console.say()
    left = len(cases) - manifest["numberOfTests"]
    why = "that need a fault injected, or are of guests" if form == "c" else "that need a fault injected"
    tests = f"{manifest['numberOfTests']} tests in {len(rows)} files"
    console.say(f"{folder}: {tests}, and {MANIFEST}; {left} cases left out {why}")
    return console.GOOD


def _cases(abis: tuple[str, ...]) -> list[Case]:
    from hvabi.cli.choice import with_cases
    from hvabi.conformance.catalogue import every_case

    found: list[Case] = []
    with console.Progress("cases") as progress:
        for abi in abis or with_cases():
            progress(abi)
            found += every_case([abi])
    return found
