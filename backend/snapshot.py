"""Snapshots of a backend's state, as a value and as JSON."""

from __future__ import annotations

import reprlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hvabi.backend.model import GPA_PAGES, ModelError, PageState, Run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FORMAT = "hvabi-backend-snapshot"
VERSION = 1


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The states and facts of all pages at one moment.

    `ranges` are the pages that are not private and `facts` the pages for which a fact is true, each
    sorted and disjoint. `epoch` is the backend's epoch of that moment: `changed_since(epoch)` of the same
    backend names what this snapshot lacks.
    """

    ranges: tuple[Run[PageState], ...] = ()
    facts: Mapping[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    epoch: int = 0

    def to_json(self) -> dict[str, object]:
        """Return this snapshot as JSON values; page numbers are lower-case 0x strings, ends are exclusive."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "epoch": hex(self.epoch),
            "ranges": [[hex(run.start), hex(run.end), str(run.state)] for run in self.ranges],
            "facts": {name: [[hex(start), hex(end)] for start, end in ranges] for name, ranges in self.facts.items()},
        }

    @classmethod
    def from_json(cls, document: object) -> Snapshot:
        """Read what `to_json` wrote.

        Raises:
            ModelError: `bad-snapshot`, with field `where`, for anything else.

        """
        top = _object(document, "snapshot")
        keys = {"format", "version", "epoch", "ranges", "facts"}
        for key in top:
            if key not in keys:
                raise _bad(reprlib.repr(key), "unknown key")
        if top.get("format") != FORMAT:
            raise _bad("format", f"must be {FORMAT!r}")
        if top.get("version") != VERSION or top.get("version") is True:
            raise _bad("version", f"this program reads version {VERSION}, not {reprlib.repr(top.get('version'))}")
        ranges: list[Run[PageState]] = []
        for where, start, end, row in _rows(top.get("ranges"), "ranges", 3):
            try:
                ranges.append(Run(start, end, PageState(str(row[2]))))
            except (TypeError, ValueError):
                raise _bad(f"{where}[2]", f"{reprlib.repr(row[2])} is no page state") from None
        facts = {
            name: tuple((start, end) for _, start, end, _ in _rows(rows, f"facts.{name[:80]}", 2))
            for name, rows in _object(top.get("facts"), "facts").items()
        }
        return cls(tuple(ranges), facts, _number(top.get("epoch"), "epoch", (1 << 64) - 1))


def _bad(where: str, problem: str) -> ModelError:
    return ModelError("bad-snapshot", f"snapshot, at {where}: {problem}", where=where)


def _object(value: object, where: str) -> dict[str, object]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise _bad(where, "must be an object")
    return value


def _number(value: object, where: str, highest: int) -> int:
    # The length is judged first: int() of a very long text takes quadratic time or fails in its own way.
    if not isinstance(value, str) or not value.startswith("0x") or not 3 <= len(value) <= 18:
        raise _bad(where, 'must be a "0x…" string of up to 64 bits')
    try:
        number = int(value[2:], 16)
    except ValueError:
        raise _bad(where, f"{value!r} is no hexadecimal number") from None
    if hex(number) != value:
        raise _bad(where, f"{value!r} must be written {hex(number)!r}")
    if number > highest:
        raise _bad(where, f"{value} is above {highest:#x}")
    return number


def _rows(value: object, where: str, width: int) -> Iterator[tuple[str, int, int, list[object]]]:
    """Return the rows [start, end, …] of a list, proved sorted and disjoint."""
    if not isinstance(value, list):
        raise _bad(where, "must be a list")
    previous = 0
    for index, row in enumerate(value):
        here = f"{where}[{index}]"
        if not isinstance(row, list) or len(row) != width:
            raise _bad(here, f"must be a list of {width} items")
        start, end = _number(row[0], f"{here}[0]", GPA_PAGES), _number(row[1], f"{here}[1]", GPA_PAGES)
        if start >= end:
            raise _bad(here, f"start {start:#x} must be below end {end:#x}")
        if start < previous:
            raise _bad(here, f"starts at {start:#x}, inside the range before it, which ends at {previous:#x}")
        previous = end
        yield here, start, end, row
