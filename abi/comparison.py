"""The comparison matrix: the same questions asked of every ABI, each answer derived from its specification.

No answer is written by hand. Where the specification says nothing, the cell says "not stated"; where a question
makes no sense for a call, it says so. `hvabi.abi.comparison_cells` has the questions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from hvabi.abi.called import Called
    from hvabi.abi.specification import Abi

NOT_STATED = "not stated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One answer.

    Attributes:
        lines: the answer in words, most important first; short enough for a table.
        data: the same for programs: plain JSON. None where it is not stated.
        stated: False where the specification says nothing.
        rules: the ids of the rules that it rests on.

    """

    lines: tuple[str, ...]
    data: Any = None
    stated: bool = True
    rules: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The whole answer in one line."""
        return "; ".join(self.lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Aspect:
    """One question: a column of the matrix. `group` is the table that it stands in."""

    name: str
    title: str
    group: str
    doc: str
    answer: Callable[[Called], Cell] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The answers of one call of one ABI, by the names of the aspects."""

    abi: str
    revision: str
    call: str
    title: str
    vendor: str
    draft: bool
    only_call: bool
    cells: Mapping[str, Cell]

    @property
    def label(self) -> str:
        """The ABI's id, and the call where the ABI has several that change pages."""
        return self.abi if self.only_call else f"{self.abi}/{self.call}"


def unstated(*lines: str) -> Cell:
    """Return the cell of a question that the specification does not answer."""
    return Cell(lines=lines or (NOT_STATED,), stated=False)


def compare(abis: Iterable[Abi]) -> tuple[Row, ...]:
    """Return the rows of the matrix, one for each call that changes pages.

    An ABI that only asks or tells has one row. An unresolved ABI is taken as its default revision under the
    profile ``spec``.
    """
    from hvabi.abi.called import main_calls
    from hvabi.abi.comparison_cells import ASPECTS

    rows = []
    for abi in abis:
        shown = abi if abi.revision else abi.resolve()
        calls = main_calls(shown)
        rows += [
            Row(
                abi=shown.id,
                revision=shown.revision,
                call=item.call.name,
                title=shown.title,
                vendor=shown.vendor,
                draft=shown.draft,
                only_call=len(calls) == 1,
                cells={aspect.name: aspect.answer(item) for aspect in ASPECTS},
            )
            for item in calls
        ]
    return tuple(rows)


def as_data(rows: Iterable[Row]) -> dict[str, Any]:
    """Return the matrix for programs: the questions, then the rows with text and data of every cell."""
    from hvabi.abi.comparison_cells import ASPECTS

    return {
        "aspects": {item.name: {"title": item.title, "group": item.group, "doc": item.doc} for item in ASPECTS},
        "rows": [
            {
                "abi": row.abi,
                "revision": row.revision,
                "call": row.call,
                "draft": row.draft,
                "cells": {
                    name: {"text": cell.text, "stated": cell.stated, "data": cell.data, "rules": list(cell.rules)}
                    for name, cell in row.cells.items()
                },
            }
            for row in rows
        ],
    }
