"""The manual: a folder of HTML, Markdown or reStructuredText, made from the specifications and written as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from hvabi.publish.book import Book, read_book
from hvabi.publish.folder import write_folder
from hvabi.publish.marked import Markdown, Rst, wrapped
from hvabi.publish.pages import abi_parts, groups, html_pages, statuses
from hvabi.publish.render import environment, plain_helpers
from hvabi.publish.vector_list import read_vectors

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

Form = Literal["html", "md", "rst"]

MANIFEST = "hvabi-docs.json"
"""The file that says that a folder was written by this module, with the sums of its files."""


def manual(book: Book, form: Form = "html", *, vectors: Path | str | None = None) -> dict[str, bytes]:
    """Return every file of the manual by its name; the same specifications give the same bytes.

    `vectors` is a folder of test vectors that an HTML manual lists and has copies of. Raises `VectorError` for a
    folder that is none.
    """
    if form == "html":
        listed, copied = read_vectors(vectors) if vectors is not None else ({}, {})
        known = {abi.id for abi in book.abis}
        pages = html_pages(book, {abi: found for abi, found in listed.items() if abi in known})
        return {**{name: text.encode() for name, text in pages.items()}, **copied}
    return {name: text.encode() for name, text in _plain(book, Markdown if form == "md" else Rst).items()}


def _plain(book: Book, form: type[Markdown | Rst]) -> dict[str, str]:
    engine = environment(html=False)
    pages = {}
    for abi in book.abis:
        helpers = plain_helpers(form(book.names[abi.id]))
        pages[f"{abi.id}.{form.suffix}"] = engine.get_template("abi.txt.j2").render(**abi_parts(book, abi), **helpers)
    helpers = plain_helpers(form(book.names[""]))
    given = {"book": book, "groups": groups(), "statuses": list(statuses(book))}
    pages[f"index.{form.suffix}"] = engine.get_template("index.txt.j2").render(**given, **helpers)
    return {name: f"{wrapped(text).rstrip()}\n" for name, text in pages.items()}


def write_manual(
    directory: Path | str, abis: Iterable[str] = (), form: Form = "html", *, vectors: Path | str | None = None
) -> dict[str, int]:
    """Write the manual of some ABIs, by default of all, and return its files with their sizes.

    Raises `UsageError` ``unknown-abi``, `FolderError` for a folder that is not ours, `VectorError`, `OSError`.
    """
    book = read_book(abis)
    files = manual(book, form, vectors=vectors)
    about = {"kind": "hvabi docs", "format": form, "version": book.version, "specifications": book.digest}
    write_folder(directory, files, manifest=MANIFEST, about=about)
    return {name: len(data) for name, data in sorted(files.items())}
