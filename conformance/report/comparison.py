"""A step of a case as reports show it: what was sent, what was right and what came, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One field of a message that was sent, in words."""

    path: str
    where: str
    depth: int
    value: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One field, or one register outside the message, as it had to be and as it was.

    Attributes:
        where: its place, such as ``r10`` or ``psc+0x8 55:52``.
        expected, found: in words; `expected` is ``anything`` where it is open.
        expected_raw, found_raw: as unsigned integers, or None where there is none.
        lo: number of its lowest bit in the register.
        status: ``open`` where it is not compared.

    """

    path: str
    where: str
    depth: int
    expected: str
    found: str
    bits: int
    lo: int = 0
    expected_raw: int | None = None
    found_raw: int | None = None
    status: Literal["same", "differs", "open"] = "same"

    @property
    def difference(self) -> int:
        """Mask of the bits that differ, counted as in the register."""
        if self.status != "differs" or self.expected_raw is None or self.found_raw is None:
            return 0
        return (self.expected_raw ^ self.found_raw) << self.lo


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryLine:
    """Up to 16 bytes of memory that are not as they had to be. `open` is a mask: bit n for byte n."""

    address: int
    expected: bytes
    found: bytes
    open: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One step of a case.

    Attributes:
        number: from 0.
        means: the call in one line.
        sent: fields of the call.
        answer: for a guest's call: fields of the answer that the host gave.
        expected_end, found_end: how the call had to end and how it ended.
        parts: fields of the answer, and registers outside it that differ.
        memory: bytes that differ.
        others: other answers that would have been right.
        why: why the expected answer is right.
        notes: what could not be decoded, and what is left out.

    """

    number: int
    means: str = ""
    sent: tuple[Item, ...] = ()
    answer: tuple[Item, ...] = ()
    expected_end: str = ""
    found_end: str = ""
    parts: tuple[Part, ...] = ()
    memory: tuple[MemoryLine, ...] = ()
    others: tuple[str, ...] = ()
    why: str = ""
    notes: tuple[str, ...] = ()

    @property
    def differs(self) -> bool:
        """Whether anything here is not as it had to be."""
        ends = bool(self.expected_end) and self.expected_end != self.found_end
        return ends or bool(self.memory) or any(part.status == "differs" for part in self.parts)
