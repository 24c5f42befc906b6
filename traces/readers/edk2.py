"""The debug output of EDK2 (OVMF, TDVF) about conversions.

``SetMemorySharedOrPrivate`` is printed when the work begins; the pages are then converted one page table entry
after another, each by MapGPA, and only answers that say "go on" and failures are printed. So an end is never seen
unless it is bad. ``SetMemoryEncDec`` changes the page table of an SEV guest, which needs no call; an SNP guest then
also asks the hypervisor, and prints ``Address … State = …``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hvabi.abi.registry import load
from hvabi.backend import PAGE_SIZE, PageState, Status
from hvabi.traces.clocks import program_time
from hvabi.traces.event import Ambiguity, Reading, Sighting, TraceEvent
from hvabi.traces.meaning import Meaning
from hvabi.traces.readers.base import LineReader, malformed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hvabi.traces.event import Clock, Kind, Record
    from hvabi.traces.readers.base import Line

TDX = "tdx-map-gpa"
SNP = "ghcb-psc"

_H = r"([0-9a-fA-F]{1,16})"
_RANGE = re.compile(
    rf"(\w{{1,60}}): Cr3Base=0x{_H} Physical=0x{_H} Length=0x{_H} Mode=(Shared|Private|Encrypt|Decrypt)\b"
)
_RETRY = re.compile(rf"TdVmcall\(MAPGPA\) Retry PhysicalAddress is {_H}, MapGpaRetryAddr is {_H}\b", re.IGNORECASE)
_REFUSED = re.compile(
    rf"TdVmcall\(MAPGPA\) failed with (?:MapGpaRetryAddr\({_H}\) less than PhysicalAddress\({_H}\)|{_H}(?![\w(]))",
    re.IGNORECASE,
)
_STATE = re.compile(rf"\w{{0,60}}PageState\w{{0,60}} Address 0x{_H} - 0x{_H} State = (Shared|Private) LargeEntry = \d")
_MAPPING = re.compile(
    rf"Device\(PlainText\)=0x{_H} Crypted=0x{_H} Pages=0x{_H}(?:, ReservedMemBitmap=0x{_H})?(?![\w,])", re.IGNORECASE
)
_TO = {
    "Shared": PageState.SHARED,
    "Decrypt": PageState.SHARED,
    "Private": PageState.PRIVATE,
    "Encrypt": PageState.PRIVATE,
}


class Edk2Reader(LineReader):
    """Reads the DEBUG lines of EDK2's memory encryption libraries, for TDX, SEV and SEV-SNP."""

    name = "edk2"
    title = (
        "EDK2 debug output (SetMemorySharedOrPrivate, TdVmcall(MAPGPA) Retry, SetMemoryEncDec, InternalSetPageState)"
    )
    marks = (b"Physical=0x", b"TdVmcall(MAPGPA)", b"PageState", b"Device(PlainText)=")

    def __init__(self) -> None:
        widths = load(TDX).abi.config["gpaw"].choices or ()
        self._by_width = {width: Meaning(TDX, config={"gpaw": width}) for width in widths}
        self._status = load(TDX).abi.messages["response"].fields["status"].enum
        self._open: TraceEvent | None = None
        self._stalled = 0

    @property
    def waiting(self) -> bool:  # type: ignore[override]  # worked out, not stored
        """Whether a conversion is held back."""
        return self._open is not None

    def settle(self) -> Iterator[Record]:
        """Return the conversion that was held back."""
        held, self._open = self._open, None
        self._stalled = 0
        if held is not None:
            yield held

    def read(self, line: Line) -> Iterator[Record | None]:
        """Return what one line shows."""
        text = line.text
        if match := _RANGE.search(text):
            yield None
            yield from self.settle()
            yield from self._range(line, match)
        elif match := _RETRY.search(text):
            yield None
            yield from self._retry(line, match)
        elif match := _REFUSED.search(text):
            yield from self._refused(line, match)
        elif match := _STATE.search(text):
            yield from self.settle()
            first, end = int(match.group(1), 16), int(match.group(2), 16)
            if end < first or (end - first) % PAGE_SIZE or first % PAGE_SIZE:
                yield malformed(line, "the two addresses are no range of pages", match.start())
                return
            meant = Reading(SNP, first, (end - first) // PAGE_SIZE, _TO[match.group(3)])
            yield self._event(line, match, meant, "edk2-snp")
        elif match := _MAPPING.search(text):
            pool = "from the reserved pool" if int(match.group(4) or "0", 16) else "not from a pool"
            yield self._sighting(line, match, "dma-map", pool, f"{int(match.group(3), 16)} pages")
        elif re.search(r"SetMemory\w{1,40}: Cr3Base=|TdVmcall\(MAPGPA\)", text, re.IGNORECASE):
            yield malformed(line, "the record is not whole")

    def _range(self, line: Line, match: re.Match[str]) -> Iterator[Record]:
        start, length = int(match.group(3), 16), int(match.group(4), 16)
        to = _TO[match.group(5)]
        if match.group(5) in ("Encrypt", "Decrypt"):
            if start % PAGE_SIZE or length % PAGE_SIZE:
                yield malformed(line, "the range is no number of pages", match.start())
                return
            yield self._event(line, match, Reading(None, start, length // PAGE_SIZE, to), "edk2-sev")
            return
        for meaning in self._by_width.values():
            fields = meaning.asking(start, length // PAGE_SIZE, to)
            meant = meaning.of(**{**fields, "size": length})
            if meant.refused is None and meant.to is to:
                break
        self._open = self._event(line, match, meant, "edk2-tdx")

    def _retry(self, line: Line, match: re.Match[str]) -> Iterator[Record]:
        at, following = int(match.group(1), 16), int(match.group(2), 16)
        held = self._open
        inside = held and next(
            (s for s in self._starts(at) if held.gpa <= s.gpa < _end(held) and s.to is held.to), None
        )
        if held is None or not inside:
            yield from self.settle()
            yield from self._alone(line, match, at, following)
            return
        if following <= at:
            self._stalled += 1
            self._open = held._replace(retries=held.retries + 1, stalls=max(held.stalls, self._stalled))
            return
        self._stalled = 0
        done = (inside.gpa + following - at - held.gpa) // PAGE_SIZE
        self._open = held._replace(retries=held.retries + 1, done_pages=min(done, held.pages))

    def _alone(self, line: Line, match: re.Match[str], at: int, following: int) -> Iterator[Record]:
        """Yield an answer of which the trace does not show the call: what it says is done is all that is known."""
        found = self._starts(at)
        if following <= at or not found or (following - at) % PAGE_SIZE:
            yield self._sighting(line, match, "orphan", f"{TDX}, RETRY without progress", f"at {at:#x}")
            return
        pages = (following - at) // PAGE_SIZE
        chosen = found[0]._replace(pages=pages)
        event = self._event(line, match, chosen, "edk2-tdx")
        open_ = None
        if len(found) > 1:
            widths = list(self._by_width)
            other = found[1]._replace(pages=pages)
            open_ = Ambiguity("gpa", f"{at:x}", f"gpaw={widths[0]}", f"gpaw={widths[1]}", other)
        yield event._replace(attempt=False, outcome=Status.PARTIAL, done_pages=pages, retries=1, ambiguous=open_)

    def _starts(self, address: int) -> list[Reading]:
        """Return what an address with a SHARED bit can be, by the width of guest addresses; equal readings once."""
        found: list[Reading] = []
        for width, meaning in self._by_width.items():
            meant = meaning.of(gpa=address, size=PAGE_SIZE)
            # Bits above the width are no address of a guest, whatever a host makes of them.
            if meant.refused is None and meant.gpa < 1 << width and meant[1:4] not in [each[1:4] for each in found]:
                found.append(meant)
        return found

    def _refused(self, line: Line, match: re.Match[str]) -> Iterator[Record]:
        held, self._open = self._open, None
        self._stalled = 0
        if match.group(1) is not None:
            why = "R11 out of range"
        else:
            code = int(match.group(3), 16)
            why = (self._status.name_of(code) if self._status is not None else None) or f"{code:#x}"
        if held is None:
            yield self._sighting(line, match, "failure", f"{TDX}, {why}", "EDK2 gave up a MapGPA call")
            return
        yield held._replace(attempt=False, outcome=Status.FAILED, done_pages=held.done_pages or 0)

    @staticmethod
    def _event(line: Line, match: re.Match[str], meant: Reading, what: str) -> TraceEvent:
        seconds, clock = _time(line, match)
        return TraceEvent(
            line.source, line.number, seconds, *meant[:4], True, None, *meant[4:], format=what, clock=clock
        )

    @staticmethod
    def _sighting(line: Line, match: re.Match[str], kind: Kind, name: str, text: str) -> Sighting:
        seconds, clock = _time(line, match)
        return Sighting(line.source, line.number, seconds, kind, name, text, format="edk2", clock=clock)


def _time(line: Line, match: re.Match[str]) -> tuple[float, Clock] | tuple[None, None]:
    return program_time(line.text[: match.start()]) or (None, None)


def _end(event: TraceEvent) -> int:
    return event.gpa + event.pages * PAGE_SIZE
