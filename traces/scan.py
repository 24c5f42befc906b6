"""The few lines of interest in a block of many.

Each reader names marks: bytes of which each of its lines has at least one. To look for twenty marks one after another
would cost twenty passes over every byte, so they are grouped by a letter that they share and that is rare in logs, and
each group is one pass of one regular expression; a letter that a block does not have costs almost nothing.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable

PIVOTS = b"_VP<{+"
"""Letters by which marks are grouped, the first that a mark has. A mark needs one of them."""

# What begins a line: nothing but marks of quotes, or words that say that lines are missing (as `is_elision` knows
# them), or the head of a mail. The two looks ahead are what makes it fast: most lines begin with none of these
# letters.
_SNIP = rb"[sS][nN][iI][pP]"
_DOTS = rb"\.{3,}+|\xe2\x80\xa6"
_ELISION = rb"(?:%b|[<\[({-]++[ \t\r]*+(?:%b|%b(?:[pP][eE][dD])?)[ \t\r]*+[>\])}-]++|\*?%b\*?)"
_FIRST = rb"[\n.\xe2*<({sSFCc-]|\[[^ 0-9]"
_START = re.compile(
    rb"\n(?=[ \t\r\f\v>]|%b)[ \t\r\f\v>]*+(?=%b)(?:(%b[ \t\r\f\v]*+)?(?=\n)|(From |[Cc][Oo][Nn][Tt][Ee][Nn][Tt]-[Tt]))"
    % (_FIRST, _FIRST, _ELISION % (_DOTS, _DOTS, _SNIP, _SNIP))
)

T = TypeVar("T")


class Starts(NamedTuple):
    """What lines of a block begin with: how many are blank, where those stand that say that some are missing, mail."""

    blank: int
    elisions: tuple[int, ...]
    header: bool


def starts(block: bytes) -> Starts:
    """Return what the lines of a block begin with."""
    blank, header = 0, False
    elisions: list[int] = []
    for match in _START.finditer(block):
        if match.group(2):
            header = True
        elif match.group(1):
            elisions.append(match.start() + 1)
        else:
            blank += 1
    return Starts(blank, tuple(elisions), header)


class Scanner(Generic[T]):
    """Finds marks in blocks. `marks` gives each mark what a find of it shall return."""

    def __init__(self, marks: Iterable[tuple[bytes, T]]) -> None:
        families: dict[int, dict[bytes, list[tuple[bytes, int, T]]]] = {}
        for mark, owner in marks:
            at, pivot = _pivot(mark)
            families.setdefault(pivot, {}).setdefault(mark[at:], []).append((mark, at, owner))
        self._families = [
            # The longest first: where one mark is the beginning of another, both are looked at.
            (bytes((pivot,)), _expression(pivot, tails), tails)
            for pivot, tails in families.items()
        ]

    def find(self, block: bytes) -> list[tuple[int, T]]:
        """Return where marks stand, in order, with what belongs to each."""
        found: list[tuple[int, T]] = []
        mixed = False
        for pivot, expression, tails in self._families:
            if pivot not in block:
                continue
            mixed = mixed or bool(found)
            for match in expression.finditer(block):
                at = match.start()
                for mark, before, owner in tails[match.group()]:
                    if block.startswith(mark, at - before):
                        found.append((at, owner))
                        break
        if mixed:
            found.sort(key=lambda item: item[0])
        return found


def _pivot(mark: bytes) -> tuple[int, int]:
    for pivot in PIVOTS:
        at = mark.find(pivot)
        if at >= 0:
            return at, pivot
    raise ValueError(f"the mark {mark!r} has none of {PIVOTS!r}")


def _expression(pivot: int, tails: Iterable[bytes]) -> re.Pattern[bytes]:
    rests = sorted((tail[1:] for tail in tails), key=len, reverse=True)
    first = re.escape(bytes((pivot,)))
    return re.compile(first + b"(?:" + b"|".join(map(re.escape, rests)) + b")")
