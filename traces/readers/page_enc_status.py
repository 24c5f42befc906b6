"""The debug print of the 2020 series: ``page_enc_status_hc invoked, gpa = 1f018000, npages  = 1, enc = 1``.

AMD's host kernel of that time printed one such line for every hypercall of the guest, before doing it. The print is
in no posted patch, so its format strings are known from its output only: gpa is hexadecimal without ``0x``; whether
npages is decimal or hexadecimal is not known, ``1`` and ``100`` are all that was posted. A page count that both
readings give differently is reported as ambiguous and carries both.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from hvabi.traces.clocks import printk_time, stamp_time
from hvabi.traces.event import Ambiguity, TraceEvent
from hvabi.traces.meaning import Meaning
from hvabi.traces.readers.base import REMEMBERED, LineReader, malformed
from hvabi.traces.report import Note

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hvabi.traces.event import Malformed
    from hvabi.traces.readers.base import Line

ABI = "kvm-page-enc-status"
REVISION = "v10"
"""The print is of December 2020, when KVM itself kept the state: any value of enc but 0 means private."""

PHRASE = "page_enc_status_hc invoked"

# A value ends where nothing follows that could belong to it. What printk prints next may follow at once.
_PARTS = (
    (re.compile(r",\s{1,8}gpa\s{1,8}=\s{1,8}([0-9a-f]{1,40})(?![\w.])"), "`, gpa = ` and a hexadecimal number"),
    (re.compile(r",\s{1,8}npages\s{1,8}=\s{1,8}([0-9a-f]{1,40})(?![\w.])"), "`, npages  = ` and a number"),
    (re.compile(r",\s{1,8}enc\s{1,8}=\s{1,8}([0-9a-f]{1,40})(?![\w.])"), "`, enc = ` and a number"),
)


class PageEncStatusReader(LineReader):
    """Reads the debug print of the KVM_HC_PAGE_ENC_STATUS series."""

    name = "page-enc-status"
    title = "page_enc_status_hc lines of the 2020 SEV migration series (dmesg of the host)"
    marks = (PHRASE.encode(),)

    def __init__(self) -> None:
        self.hex_only = 0
        self.first_hex_only: int | None = None
        self._meaning = Meaning(ABI, revision=REVISION)
        self._known: dict[bytes, tuple[Any, ...]] = {}

    def known(self, source: str, number: int, data: bytes) -> TraceEvent | None:
        """Return the event of a line with the kernel's time before a record that stood in another line too."""
        stamp, _, record = data.partition(b"] ")
        known = self._known.get(record)
        time = None if known is None else stamp_time(stamp)
        return None if known is None or time is None else TraceEvent.plain(source, number, time, *known)

    def read(self, line: Line) -> Iterator[TraceEvent | Malformed]:
        """Return an event or a malformed record for each time that the phrase stands in the line."""
        text = line.text
        at, behind = text.find(PHRASE), 0
        known = None if line.cut else self._known.get(text[at:].encode())
        if known is not None:
            yield TraceEvent.plain(line.source, line.number, printk_time(text[:at]), *known)
            return
        while at >= 0:
            start = at + len(PHRASE)
            following = text.find(PHRASE, start)
            record = text[start : following if following >= 0 else None]
            found = self._parse(record, last=following < 0 and line.cut)
            if isinstance(found, str):
                yield malformed(line, found, at)
            else:
                time = printk_time(text[behind:at])
                rest = self._rest(line, *found)
                yield TraceEvent.plain(line.source, line.number, time, *rest)
                if following < 0 and not line.cut and found[1].isdecimal():
                    if len(self._known) >= REMEMBERED:
                        self._known.clear()
                    self._known[text[at:].encode()] = rest
            behind, at = start, following

    def notes(self) -> Iterator[Note]:
        """Say what the log shows about the radix of npages."""
        if self.hex_only:
            yield Note(
                code="hex-page-counts",
                text="npages has letters: this log counts pages in hexadecimal, read all of it so",
                count=self.hex_only,
                line=self.first_hex_only,
            )

    def _parse(self, record: str, *, last: bool) -> tuple[str, str, str] | str:
        """Return the three values as text, or the reason why there are none."""
        values: list[str] = []
        at = 0
        for pattern, wanted in _PARTS:
            match = pattern.match(record, at)
            if match is None:
                return f"expected {wanted} after {'npages' if len(values) == 2 else 'gpa' if values else 'the phrase'}"
            values.append(match.group(1))
            at = match.end()
        if last and at == len(record):
            return "the line is too long and was cut in the middle of the record"
        gpa, npages, enc = values
        if not self._meaning.fits(gpa=int(gpa, 16), npages=_least(npages), enc=_least(enc)):
            return "a number does not fit into its field"
        return gpa, npages, enc

    def _rest(self, line: Line, gpa: str, npages: str, enc: str) -> tuple[Any, ...]:
        """Return the fields of the event behind its time."""
        # enc is a truth value: its radix makes no difference.
        address, private = int(gpa, 16), _least(enc)
        open_ = None
        if not npages.isdecimal():
            self.hex_only += 1
            self.first_hex_only = self.first_hex_only or line.number
            meant = self._meaning.of(gpa=address, npages=int(npages, 16), enc=private)
        else:
            meant = self._meaning.of(gpa=address, npages=int(npages), enc=private)
            if self._meaning.fits(npages=int(npages, 16)):
                other = self._meaning.of(gpa=address, npages=int(npages, 16), enc=private)
                if other != meant:
                    open_ = Ambiguity("npages", npages, "decimal", "hex", other)
        abi, start, pages, to, refused, broken = meant
        return abi, start, pages, to, True, open_, refused, broken, self.name, "boot"


def _least(digits: str) -> int:
    """Return the smaller reading of a number of unknown radix."""
    return int(digits) if digits.isdecimal() else int(digits, 16)
