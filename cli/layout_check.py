"""``hvabi layout-check``: the specifications against the headers of installed kernels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hvabi.cli import console

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hvabi.evidence.headers.check import Finding, Report
    from hvabi.evidence.headers.claims import Claim, Unmirrored

EPILOG = """\b
Examples:
  hvabi layout-check
  hvabi layout-check --headers ~/src/linux --verbose
  hvabi layout-check --spec my-spec/amd/ghcb-psc.yaml

Every `mirrors:` of a specification names a constant, a mask, a structure or a member of a public header. They are
compiled as static assertions against each header at hand that has the name. Packages of Debian that help:
linux-libc-dev, linux-headers-*-common (for the headers inside the kernel, of all architectures),
linux-libc-dev-arm64-cross, -s390x-cross, -ppc64-cross. The compiler is $CC, else cc.
Exit code 1 where a header disagrees or does not compile, 4 where there is no compiler or no header.
"""


@click.command(epilog=EPILOG)
@click.option(
    "--headers", "folders", type=click.Path(exists=True, file_okay=False, path_type=Path), multiple=True,
    help="A kernel tree or an include folder, instead of what is installed. Repeatable.",
)  # fmt: skip
@click.option(
    "--spec", "specs", type=click.Path(exists=True, path_type=Path), multiple=True,
    help="A specification file or a folder of them, instead of the bundled ones. Repeatable.",
)  # fmt: skip
@click.option("--verbose", is_flag=True, help="Also list what has no public symbol.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def command(folders: tuple[Path, ...], specs: tuple[Path, ...], *, verbose: bool, as_json: bool) -> int:
    """Compile the specifications' numbers, sizes and offsets against kernel headers."""
    from hvabi.evidence.headers.check import check, compiler
    from hvabi.evidence.headers.claims import read_claims
    from hvabi.evidence.headers.roots import PACKAGES, given, headers, installed

    claims, others = read_claims(_files(specs))
    roots = [given(folder.resolve()) for folder in folders] or installed()
    found = list(headers(roots))
    cc = compiler()
    if cc is None or not found:
        what = "there is no C compiler: install gcc, or set CC"
        if cc is not None:
            what = (
                "none of these folders has a header that is known"
                if folders
                else f"there are no kernel headers: install {PACKAGES}"
            )
        if as_json:
            console.dump({"good": None, "skipped": what})
        else:
            console.note(f"skipped, because {what}")
        return console.SKIPPED
    with console.Progress("layout-check") as progress:
        progress(f"{len(found)} headers")
        report = check(claims, found, roots, cc)
    if as_json:
        _dump(report, others)
    else:
        _show(report, claims, others, verbose=verbose)
    return console.GOOD if report.good else console.FOUND


def _files(specs: Sequence[Path]) -> list[Path]:
    from hvabi.abi.registry import abi_files, spec_root

    if not specs:
        return [*sorted((spec_root() / "shared").glob("*.yaml")), *abi_files().values()]
    return [path for spec in specs for path in (sorted(spec.rglob("*.yaml")) if spec.is_dir() else [spec])]


def _dump(report: Report, others: Sequence[Unmirrored]) -> None:
    console.dump(
        {
            "good": report.good,
            "headers": [{"label": root.label, "path": str(root.path), "kind": root.kind} for root in report.roots],
            "findings": [
                {**_place(item.claim), "header": item.header, "in": item.root, "verdict": item.verdict,
                 "specification": hex(_stated(item.claim)), "found": None if item.found is None else hex(item.found),
                 "message": item.message or None}
                for item in report.findings
            ],
            "absent": [_place(claim) for claim in report.absent],
            "without_symbol": [
                {"name": f"{other.abi}/{other.name}", "file": other.path, "line": other.line} for other in others
            ],
        }
    )  # fmt: skip


def _place(claim: Claim) -> dict[str, object]:
    return {"name": claim.id, "symbol": claim.symbol, "kind": claim.kind, "file": claim.path, "line": claim.line}


def _stated(claim: Claim) -> int:
    return claim.offset if claim.kind == "member" else claim.value


def _show(report: Report, claims: Sequence[Claim], others: Sequence[Unmirrored], *, verbose: bool) -> None:
    from hvabi.cli.tables import heading, table

    width = console.width()
    console.say(heading("headers"))
    rows = []
    for root in report.roots:
        own = [item for item in report.findings if item.root == root.label]
        rows.append((f"{len(own)} checked", f"{sum(item.verdict != 'same' for item in own)} wrong", root.label))
    for line in table(rows, width, indent="  ", widest=60):
        console.say(line)
    for item in report.findings:
        if item.verdict == "differs":
            console.say()
            _show_difference(item)
    unclear = [item for item in report.findings if item.verdict == "unclear"]
    for header, label in dict.fromkeys((item.header, item.root) for item in unclear):
        own = [item for item in unclear if (item.header, item.root) == (header, label)]
        text = f"{header} of {label} cannot be judged for {len(own)} statements"
        console.say()
        console.say(console.paint(text, fg="red", bold=True))
        console.say(f"  the compiler says: {own[0].message}")
    _show_names("no header at hand has the symbol", [(f"{c.id}", c.symbol) for c in report.absent])
    if verbose:
        _show_names("no public symbol named", [(f"{other.abi}/{other.name}", f"line {other.line}") for other in others])
    console.say()
    _verdict(report, claims, others)


def _show_difference(item: Finding) -> None:
    claim = item.claim
    place = f"{claim.path}:{claim.line}"
    word = {"size": "its size", "member": f"its offset in {claim.owner}"}.get(claim.kind, "the value")
    there = "another one" if item.found is None else f"{item.found:#x}"
    if claim.kind == "member" and item.found == claim.offset:
        word, there = "its size", "another one"
    stated = claim.value if word == "its size" else _stated(claim)
    console.say(console.paint(f"{place}: {claim.id} is wrong, or {claim.symbol} is another thing", fg="red", bold=True))
    console.say(f"  the specification says {word} is {stated:#x}; {item.header} of {item.root} has {there}")


def _show_names(title: str, rows: Sequence[tuple[str, str]]) -> None:
    from hvabi.cli.tables import heading, table

    if rows:
        console.say()
        console.say(heading(f"{title}: {len(rows)}"))
        for line in table(rows, console.width(), indent="  ", widest=60):
            console.say(line)


def _verdict(report: Report, claims: Sequence[Claim], others: Sequence[Unmirrored]) -> None:
    wrong = sum(item.verdict != "same" for item in report.findings)
    word = console.paint("FAILED", fg="red", bold=True) if wrong else console.paint("good", fg="green", bold=True)
    checked = len(claims) - len(report.absent)
    console.say(
        f"{word}: {checked} of {len(claims)} statements compiled against at least one header, "
        f"{len(report.findings)} checks, {wrong} wrong; {len(report.absent)} symbols in no header at hand; "
        f"{len(others)} numbers and structures name no symbol"
    )
