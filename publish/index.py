"""Every name of the manual with its place: for the glossary and for the search."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hvabi.abi.glossary import entries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hvabi.publish.book import Book

_CUT = 160
"""Longest text that the search shows for a hit."""
_SEARCHED_ONLY = ("rule", "outcome", "revision", "example", "bug", "ABI", "platform")
"""Kinds that a glossary has no use for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A name, what it is, and where: `href` is an address in the site. `more` are other spellings and numbers."""

    name: str
    kind: str
    abi: str
    href: str
    text: str
    more: str = ""


def items(book: Book) -> Iterator[Item]:
    """Yield everything that can be searched for, ABI by ABI."""
    for abi in book.abis:
        seen: set[tuple[str, str]] = set()
        page = f"{abi.id}.html"
        for entry in entries(abi):
            kind = entry.kind.partition(",")[0]
            if (entry.name, kind) in seen:
                continue
            seen.add((entry.name, kind))
            more = list(entry.also)
            if entry.number is not None:
                more += [f"{entry.number:#x}", str(entry.number)]
            href = page if entry.kind == "ABI" else f"{page}#{entry.anchor}"
            yield Item(name=entry.name, kind=kind, abi=abi.id, href=href, text=entry.text, more=" ".join(more))
        for sample in book.samples[abi.id]:
            href = f"{page}#example-{sample.slug}"
            yield Item(name=sample.name, kind="example", abi=abi.id, href=href, text=sample.provenance)
        for story in book.stories[abi.id]:
            more = [*story.numbers, *story.reference]
            href = f"{page}#{story.id}"
            yield Item(name=story.title, kind="bug", abi=abi.id, href=href, text=story.text, more=" ".join(more))
    for platform in book.platforms:
        href = f"index.html#platform-{platform.id}"
        yield Item(name=platform.title, kind="platform", abi=platform.id, href=href, text=platform.doc)


def as_json(book: Book) -> str:
    """Return the index for the search page: rows of name, kind, ABI, place, text and more."""
    rows = [[item.name, item.kind, item.abi, item.href, _cut(item.text), item.more] for item in book.index]
    return json.dumps(rows, separators=(",", ":"), ensure_ascii=True).replace("<", "\\u003c")


def _cut(text: str) -> str:
    return text if len(text) <= _CUT else f"{text[:_CUT]}…"


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """A name of the glossary with each of its meanings."""

    name: str
    meanings: tuple[Item, ...]


def glossary(book: Book) -> dict[str, tuple[Term, ...]]:
    """Return the names by their first letter, in order; meanings that several ABIs share word by word stand once."""
    by_name: dict[str, dict[tuple[str, str], Item]] = {}
    for item in book.index:
        if item.kind not in _SEARCHED_ONLY:
            by_name.setdefault(item.name, {}).setdefault((item.kind, item.text), item)
    found: dict[str, list[Term]] = {}
    for name in sorted(by_name, key=lambda text: (text.lower(), text)):
        first = name[0].upper() if name[0].isalpha() else "#"
        found.setdefault(first, []).append(Term(name=name, meanings=tuple(by_name[name].values())))
    return {first: tuple(found[first]) for first in sorted(found)}
