"""The pages of the HTML manual: which there are, and what each is given."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from hvabi.abi.called import Called
from hvabi.abi.calls import STATUS_DOCS
from hvabi.abi.comparison_cells import ASPECTS
from hvabi.abi.glossary import LEVELS
from hvabi.publish import drawing, index
from hvabi.publish.book import VENDORS, Book, source_path
from hvabi.publish.codec_model import as_json, codec_model
from hvabi.publish.conversation import conversation
from hvabi.publish.placed import placed
from hvabi.publish.render import environment, html_helpers, inline, policy, text_of
from hvabi.publish.trimmed import is_shared

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hvabi.abi.model import Field, Layout
    from hvabi.abi.specification import Abi
    from hvabi.publish.drawing import Drawing
    from hvabi.publish.vector_list import AbiVectors

MENU = (
    ("index.html", "ABIs"),
    ("compare.html", "Comparison"),
    ("statuses.html", "Statuses"),
    ("bugs.html", "Bugs"),
    ("glossary.html", "Glossary"),
)
"""The pages about all ABIs, in the order of the menu."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutRow:
    """A row of a layout's table: a field, or bits of nobody."""

    where: str
    field: Field | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownLayout:
    """A layout with its drawings and rows."""

    layout: Layout
    word: bool
    wide: Drawing
    narrow: Drawing
    rows: tuple[LayoutRow, ...]


def html_pages(book: Book, vectors: Mapping[str, AbiVectors] = MappingProxyType({})) -> dict[str, str]:
    """Return every page by its file name; with vectors also a list of them for each ABI that has some."""
    pages = {f"{abi.id}.html": _abi_page(book, abi, vectors.get(abi.id)) for abi in book.abis}
    for name, listed in vectors.items():
        given = {"abi": name, "vectors": listed}
        pages[f"{name}.vectors.html"] = _page(book, f"{name}.vectors.html", "", given, template="vectors.html.j2")
    pages["index.html"] = _page(book, "index.html", "", {})
    pages["compare.html"] = _page(book, "compare.html", "", {"groups": groups()}, scripts=("filter.js",))
    pages["statuses.html"] = _page(book, "statuses.html", "", {"statuses": list(statuses(book))})
    pages["bugs.html"] = _page(book, "bugs.html", "", {})
    terms = {"glossary": index.glossary(book), "levels": LEVELS, "statuses": STATUS_DOCS}
    pages["glossary.html"] = _page(book, "glossary.html", "", terms)
    found = {"index": inline(index.as_json(book))}
    pages["search.html"] = _page(book, "search.html", "", found, scripts=("search.js",))
    return pages


def _page(
    book: Book, name: str, abi: str, given: Mapping[str, Any], *, scripts: tuple[str, ...] = (), template: str = ""
) -> str:
    style = text_of("style.css")
    code = [text_of(script) for script in scripts]
    engine = environment(html=True)
    return engine.get_template(template or f"{name}.j2").render(
        book=book,
        here=name,
        menu=MENU,
        style=inline(style),
        scripts=[inline(script) for script in code],
        policy=policy(code, style),
        **html_helpers(book.names[abi]),
        **given,
    )


def _abi_page(book: Book, abi: Abi, vectors: AbiVectors | None) -> str:
    given = {
        **abi_parts(book, abi),
        "vectors": vectors,
        "model": inline(as_json(codec_model(abi, book.samples[abi.id]))),
    }
    scripts = ("codec.js", "decoder.js")
    return _page(book, f"{abi.id}.html", abi.id, given, scripts=scripts, template="abi.html.j2")


def abi_parts(book: Book, abi: Abi) -> dict[str, Any]:
    """Return what the page of an ABI is made of, in any format."""
    return {
        "abi": abi,
        "pages": {other.id for other in book.abis},
        "vendor": VENDORS.get(abi.vendor, abi.vendor),
        "path": source_path(abi),
        "aspects": ASPECTS,
        "cells": book.cells(abi),
        "placements": {name: placed(abi, transport) for name, transport in abi.transports.items()},
        # What belongs to the ABI itself comes before what it shares with others.
        "layouts": [_layout(item) for item in sorted(abi.layouts.values(), key=lambda item: is_shared(item.pointer))],
        "calls": list(_calls(abi)),
        "samples": book.samples[abi.id],
        "stories": book.stories[abi.id],
    }


def _layout(layout: Layout) -> ShownLayout:
    return ShownLayout(
        layout=layout,
        word=drawing.is_word(layout),
        wide=drawing.draw_layout(layout, drawing.WIDE),
        narrow=drawing.draw_layout(layout, drawing.NARROW),
        rows=tuple(layout_rows(layout)),
    )


def layout_rows(layout: Layout) -> Iterator[LayoutRow]:
    """Yield the fields of a layout, words from the highest bit down, structures by offset, with what is between."""
    if drawing.is_word(layout):
        top = layout.size * 8
        for item in sorted(layout.fields.values(), key=lambda field: -field.lo):
            if item.hi + 1 < top:
                yield LayoutRow(where=drawing.bits_text(top - 1, item.hi + 1), field=None)
            yield LayoutRow(where=drawing.bits_text(item.hi, item.lo), field=item)
            top = item.lo
        if top > 0:
            yield LayoutRow(where=drawing.bits_text(top - 1, 0), field=None)
        return
    at = 0
    for item in sorted(layout.fields.values(), key=lambda field: (field.at, -field.hi)):
        if item.at > at:
            yield LayoutRow(where=f"{at:#x} to {item.at - 1:#x}", field=None)
        whole = item.lo == 0 and item.bits == item.size * 8
        yield LayoutRow(
            where=f"{item.at:#x}" + ("" if whole else f" {drawing.bits_text(item.hi, item.lo)}"), field=item
        )
        at = max(at, item.at + item.size)
    if at < layout.size:
        yield LayoutRow(where=f"{at:#x} to {layout.size - 1:#x}", field=None)


def _calls(abi: Abi) -> Iterator[dict[str, Any]]:
    plain = abi.resolve()
    for call in abi.calls.values():
        resolved = plain.calls.get(call.name)
        yield {
            "call": call,
            "rules": [(side, [rule for rule in call.rules if rule.binds == side]) for side in ("host", "guest")],
            "conversation": conversation(Called(plain, resolved)) if resolved is not None else None,
        }


def groups() -> list[dict[str, Any]]:
    """Return the tables of the comparison and the questions in each; the order of checks has a place of its own."""
    found: dict[str, list[Any]] = {}
    for aspect in ASPECTS:
        if aspect.name != "order":
            found.setdefault(aspect.group, []).append(aspect)
    return [{"id": name.lower().replace(" ", "-"), "name": name, "aspects": items} for name, items in found.items()]


def statuses(book: Book) -> Iterator[dict[str, Any]]:
    """Yield the common statuses, each with what every host answers."""
    for status, doc in STATUS_DOCS.items():
        rows = []
        for abi in book.abis:
            plain = abi.resolve()
            for call in plain.calls.values():
                answers = call.outcomes.get(status, ())
                if answers and call.convert is not None:
                    only = sum(other.convert is not None for other in plain.calls.values()) == 1
                    label = abi.id if only else f"{abi.id}/{call.name}"
                    rows.append({"abi": abi.id, "call": call.name, "label": label, "answers": answers})
        yield {"name": status, "doc": doc, "rows": rows}
