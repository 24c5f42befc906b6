"""``hvabi docs``: the manual."""

from __future__ import annotations

import click

from hvabi.cli import console

EPILOG = """\b
Examples:
  hvabi docs -o site
  hvabi docs -o site tdx-map-gpa ghcb-psc
  hvabi vectors -o vectors && hvabi docs -o site --vectors vectors
  hvabi docs -o Documentation/hvabi --format rst

A static site: open site/index.html, no server and no network needed. A page per ABI with bit diagrams, rules in order,
answers, progress, examples and an encoder and decoder that runs in the page; across ABIs the comparison, the statuses,
the bugs, a glossary and a search. DIR is replaced as a whole where an earlier run wrote it, and left alone where it
holds anything else. The same specifications give the same bytes.
"""


@click.command(epilog=EPILOG)
@click.argument("abis", metavar="[ABI]...", nargs=-1)
@click.option("-o", "--output", "folder", metavar="DIR", required=True, help="The folder; it is made if need be.")
@click.option(
    "--format", "form", type=click.Choice(["html", "md", "rst"]), default="html", show_default=True,
    help="A site, Markdown, or reStructuredText as a kernel tree has it.",
)  # fmt: skip
@click.option("--vectors", metavar="DIR", help="List these test vectors, as hvabi vectors writes them (html only).")
@click.option("--json", "as_json", is_flag=True, help="For programs: the files and their sizes.")
def command(abis: tuple[str, ...], folder: str, *, form: str, vectors: str | None, as_json: bool) -> int:
    """Write the manual of the ABIs: diagrams, rules, answers, examples, comparison."""
    from hvabi.abi.errors import UsageError

    if vectors is not None and form != "html":
        raise UsageError(
            "only the HTML manual lists vectors", code="vectors-format", hint="leave --vectors or --format"
        )
    with console.Progress("docs") as progress:
        progress("writing")
        from hvabi.publish.docs import write_manual

        files = write_manual(folder, abis, form, vectors=vectors)  # type: ignore[arg-type]  # one of the choices
    if as_json:
        console.dump({"directory": folder, "format": form, "files": files})
        return console.GOOD
    start = f"{folder}/index.{form}"
    console.say(console.escape(f"{start}: {len(files)} files, {sum(files.values()) / 1e6:.1f} MB"))
    return console.GOOD
