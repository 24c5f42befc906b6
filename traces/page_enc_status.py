"""The debug print of the 2020 series: ``page_enc_status_hc invoked, gpa = 1f018000, npages  = 1, enc = 1``.

AMD's host kernel of that time printed one such line for every hypercall of the guest, before doing it. The print is
in no posted patch, so its format strings are known from its output only: gpa is hexadecimal without ``0x``; whether
npages is decimal or hexadecimal is not known, ``1`` and ``100`` are all that was posted. A page count that both
readings give differently is reported as ambiguous and carries both.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from hvabi.abi.diagnostics import escape
from hvabi.traces.event import Ambiguity, Malformed, TraceEvent
from hvabi.traces.meaning import Meaning
from hvabi.traces.report import Note
from hvabi.traces.text import printk_time

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hvabi.traces.reader import Line

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
_EXCERPT = 100


class PageEncStatusReader:
    """Reads the debug print of the KVM_HC_PAGE_ENC_STATUS series."""

    format = "page-enc-status"
    title = "page_enc_status_hc lines of the 2020 SEV migration series (dmesg of the host)"
    marks = (PHRASE.encode(),)

    def __init__(self) -> None:
        self.hex_only = 0
        self.first_hex_only: int | None = None
        self._meaning = Meaning(ABI, revision=REVISION)

    def read(self, line: Line) -> Iterator[TraceEvent | Malformed]:
        """Return an event or a malformed record for each time that the phrase stands in the line."""
        text, behind = line.text, 0
        at = text.find(PHRASE)
        while at >= 0:
            start = at + len(PHRASE)
            following = text.find(PHRASE, start)
            record = text[start : following if following >= 0 else None]
            found = self._parse(record, last=following < 0 and line.cut)
            if isinstance(found, str):
                yield Malformed(
                    source=line.source,
                    line=line.number,
                    reason=found,
                    excerpt=escape(text[at : at + _EXCERPT]),
                )
            else:
                yield self._event(line, printk_time(text[behind:at]), *found)
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

    def _event(self, line: Line, time: float | None, gpa: str, npages: str, enc: str) -> TraceEvent:
        if not npages.isdecimal():
            self.hex_only += 1
            self.first_hex_only = self.first_hex_only or line.number
            return self._reading(line, time, gpa, int(npages, 16), enc)
        event = self._reading(line, time, gpa, int(npages), enc)
        if int(npages) == int(npages, 16) or not self._meaning.fits(npages=int(npages, 16)):
            return event
        in_hex = self._reading(line, time, gpa, int(npages, 16), enc)
        if in_hex == event:
            return event
        return replace(event, ambiguous=Ambiguity(field="npages", text=npages, in_hex=in_hex))

    def _reading(self, line: Line, time: float | None, gpa: str, npages: int, enc: str) -> TraceEvent:
        # enc is a truth value: its radix makes no difference.
        meant = self._meaning.of(gpa=int(gpa, 16), npages=npages, enc=_least(enc))
        return TraceEvent(
            source=line.source,
            line=line.number,
            time_seconds=time,
            abi=ABI,
            gpa=meant.gpa,
            pages=meant.pages,
            to=meant.to,
            attempt=True,
            refused=meant.refused,
            broken=meant.broken,
        )


def _least(digits: str) -> int:
    """Return the smaller reading of a number of unknown radix."""
    return int(digits) if digits.isdecimal() else int(digits, 16)
