"""Annotated messages as text and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hvabi.cli.console import paint
from hvabi.cli.tables import dim, heading, table, wrap

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hvabi.abi.annotation import Annotation, Problem, Row, Word
    from hvabi.abi.readings import Reading

FEW = 16
"""Elements of a list that are shown unless all are asked for."""


def lines(
    annotation: Annotation,
    width: int,
    *,
    every: bool = False,
    origins: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """Yield the table of a message: where, field, value, meaning."""
    shown: list[tuple[str, ...]] = []
    hidden = annotation.left_out
    bad: set[int] = set()
    for row in annotation.rows:
        if origins is None and not row.given:
            continue
        if not every and row.depth and _element(row) >= FEW:
            hidden += row.kind == "element"
            continue
        if row.problem is not None and row.problem.level != "note":
            bad.add(len(shown))
        origin = "" if origins is None else origins.get(row.path, "")
        text = f"[{origin}] {what(row)}" if origin else what(row)
        shown.append((row.where, "  " * row.depth + row.name.rpartition(".")[2], value(row), text))
    for line in table(shown, width, header=("where", "field", "value", "meaning"), widest=22):
        yield paint(line, fg="yellow") if "! " in line else line
    if hidden:
        yield dim(f"… and {hidden} more elements; --all shows them")
    if origins is None and (absent := [row for row in annotation.rows if not row.given and row.depth == 0]):
        names = ", ".join(f"{row.name}={row.symbol or row.hex}" if row.kind != "list" else row.name for row in absent)
        yield from map(dim, wrap(f"Not given, taken as their default: {names}.", width))
    for problem in annotation.problems:
        if problem.code == "unread-bits":
            yield from wrap(f"! {problem.path}: {problem.message}", width)
    if annotation.unused:
        yield from wrap(f"! not used by this message: {', '.join(annotation.unused)}", width)


def _element(row: Row) -> int:
    _, bracket, rest = row.path.partition("[")
    return int(rest.partition("]")[0]) if bracket else 0


def value(row: Row) -> str:
    """Return a row's value: its name, else a short number."""
    if row.kind == "list":
        return str(row.raw)
    if row.value < 0 and row.symbol is None:
        return str(row.value)
    return f"{row.raw:#x}" if row.raw > 9 or row.bits > 8 else str(row.raw)


def what(row: Row) -> str:
    """Return what a row means, in words."""
    parts = []
    if row.symbol is not None:
        parts.append(f"{row.symbol}: {row.meaning}" if row.meaning else row.symbol)
    else:
        if row.meaning:
            parts.append(f"{row.meaning}.")
        parts.append(row.doc)
    if row.problem is not None and row.problem.level != "note":
        parts.insert(0, f"! {row.problem.message}.")
    return " ".join(parts)


def bit_lines(words: tuple[Word, ...], width: int) -> Iterator[str]:
    """Yield words bit by bit."""
    for word in words:
        yield ""
        yield (
            heading(f"{word.path}" + (f" ({word.where})" if word.where != word.path else ""))
            + f" {word.raw:#0{2 + word.bits // 4}x}"
        )
        rows = [
            (
                f"{run.hi}:{run.lo}" if run.hi != run.lo else str(run.hi),
                _digits(run.digits),
                f"{run.name} {run.meaning}",
            )
            for run in word.runs
        ]
        yield from table(rows, width, indent="  ", widest=64)


def _digits(text: str) -> str:
    if len(text) <= 40:
        return text
    return f"{text[:8]}…{text[-24:]}" if set(text[8:-24]) == {"0"} else f"{int(text, 2):#x}"


def hexdump(address: int, data: bytes, *, every: bool = False) -> Iterator[str]:
    """Yield a piece of memory, 16 bytes a line; runs of zero lines are left out unless `every`."""
    skipped = 0
    for at in range(0, len(data), 16):
        piece = data[at : at + 16]
        if not every and not any(piece) and len(data) > 64:
            skipped += 1
            continue
        if skipped:
            yield dim(f"      … {skipped * 16} zero bytes")
            skipped = 0
        yield f"  {address + at:#010x}  {piece[:8].hex(' ')}  {piece[8:].hex(' ')}".rstrip()
    if skipped:
        yield dim(f"      … {skipped * 16} zero bytes")


def problem_json(problem: Problem | None) -> dict[str, str] | None:
    """Return a problem for programs."""
    if problem is None:
        return None
    return {"code": problem.code, "level": problem.level, "path": problem.path, "message": problem.message}


def row_json(row: Row) -> dict[str, Any]:
    """Return a row for programs: numbers are 0x strings, bits are [hi, lo]."""
    return {
        "path": row.path,
        "kind": row.kind,
        "register": row.register,
        "block": row.block,
        "offset": row.offset,
        "bits": [row.hi, row.lo],
        "raw": f"{row.raw:#x}",
        "value": f"{row.value:#x}",
        "symbol": row.symbol,
        "enum": row.enum,
        "unit": row.unit,
        "meaning": row.meaning,
        "doc": row.doc,
        "given": row.given,
        "problem": problem_json(row.problem),
    }


def word_json(word: Word) -> dict[str, Any]:
    """Return the bits of a word for programs."""
    runs = [
        {"bits": [run.hi, run.lo], "digits": run.digits, "name": run.name, "meaning": run.meaning} for run in word.runs
    ]
    return {"path": word.path, "where": word.where, "bits": word.bits, "raw": f"{word.raw:#x}", "runs": runs}


def annotation_json(annotation: Annotation) -> dict[str, Any]:
    """Return a message for programs."""
    return {
        "fields": [row_json(row) for row in annotation.rows],
        "words": [word_json(word) for word in annotation.words],
        "problems": [problem_json(problem) for problem in annotation.problems],
        "missing": list(annotation.missing),
        "unused": list(annotation.unused),
        "left_out": annotation.left_out,
    }


def reading_json(reading: Reading, *, whole: bool = True) -> dict[str, Any]:
    """Return a reading for programs; without `whole` leaving out its fields."""
    head = {
        "abi": reading.abi,
        "revision": reading.revision,
        "message": reading.message,
        "transport": reading.transport,
        "form": reading.form,
        "means": reading.means,
        "sure": reading.sure,
        "because": reading.because,
    }
    return {**head, **annotation_json(reading.annotation)} if whole else head
