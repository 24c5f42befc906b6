"""``hvabi gen``: C headers and Rust modules."""

from __future__ import annotations

import click

from hvabi.cli import console

EPILOG = """\b
Examples:
  hvabi gen c -o include/hvabi
  hvabi gen rust -o src/hvabi ghcb-psc tdx-map-gpa

One file per ABI: constants, named numbers, sizes and offsets, and functions that take a field from bytes or from a
register and put it there. The C is C99 and the Rust is no_std; neither needs a library, an allocation or the byte order
of the machine, and C has no bit-fields. License: MIT OR GPL-2.0, so that a kernel can take it. Nothing in them checks a
rule of an ABI. DIR is replaced as a whole where an earlier run wrote it, and left alone where it holds anything else.
The same specifications give the same bytes.
"""


@click.command(epilog=EPILOG)
@click.argument("language", type=click.Choice(["c", "rust"]))
@click.argument("abis", metavar="[ABI]...", nargs=-1)
@click.option("-o", "--output", "folder", metavar="DIR", required=True, help="The folder; it is made if need be.")
@click.option("--json", "as_json", is_flag=True, help="For programs: the files and their sizes.")
def command(language: str, abis: tuple[str, ...], folder: str, *, as_json: bool) -> int:
    """Write the ABIs as C headers or Rust modules; by default all of them."""
    from hvabi.publish.code import write_code

    files = write_code(folder, abis, language)  # type: ignore[arg-type]  # one of the choices
    if as_json:
        console.dump({"directory": folder, "language": language, "files": files})
        return console.GOOD
    console.say(console.escape(f"{folder}: {len(files)} files, {sum(files.values()) / 1e6:.1f} MB"))
    return console.GOOD
