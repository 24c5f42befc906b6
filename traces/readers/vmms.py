"""Cloud Hypervisor, libkrun and OpenVMM: VMMs in Rust, each with a logger of its own."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hvabi.backend import PAGE_SIZE, PageState, Status
from hvabi.traces.clocks import program_time
from hvabi.traces.event import Ambiguity, Reading, Sighting, TraceEvent
from hvabi.traces.lookup import meaning_of
from hvabi.traces.meaning import Meaning
from hvabi.traces.readers.base import LineReader, malformed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hvabi.traces.event import Clock, Record
    from hvabi.traces.readers.base import Line

_CALL = re.compile(
    r"KVM_HC_MAP_GPA_RANGE: address=0x([0-9a-f]{1,16}), pages=(\d{1,20}), attributes=0x([0-9a-f]{1,16})\b"
)
_VALUE = r"\w+(?:=|: )(?:0x[0-9a-f]{1,16}|\d{1,20})"
_FAULT = re.compile(rf"MemoryFault(?:: | \{{ )({_VALUE}(?:, {_VALUE}){{2}})\b")
_PAIR = re.compile(r"(\w+)(?:=|: )(\w+)")
_RELEASE = re.compile(r"Releasing pages: gfn_start: ([0-9a-f]{1,16}), gfn_count: (\d{1,20})\b")
_OPENVMM = re.compile(r"\b(handling|handled|failed) KVM_HC_MAP_GPA_RANGE\b")
_FIELD = re.compile(r"\b(gpa|page_count|map_attributes|flags)(?:=|\"?: ?\"?)(0x[0-9a-fA-F]{1,16}|\d{1,20})\b")
_INACCESSIBLE = re.compile(r"guest accessed inaccessible gpa")
_SHARED = re.compile(r"\bis_shared(?:=|\": ?)(true|false)\b")
_GPA = re.compile(r"\bgpa(?:=|\": ?)(0x[0-9a-fA-F]{1,16}|\d{1,20})\b")

MAX_OPEN = 8
"""Calls of OpenVMM that are held back until their end is printed."""


def _made(line: Line, at: int, meant: Reading, what: str) -> TraceEvent:
    seconds, clock = _time(line, at)
    return TraceEvent(line.source, line.number, seconds, *meant[:4], True, None, *meant[4:], format=what, clock=clock)


def _number(text: str) -> int:
    """Return a number that is decimal unless it begins with 0x, whatever zeros it begins with."""
    return int(text, 16 if text.startswith("0x") else 10)


def _time(line: Line, at: int) -> tuple[float, Clock] | tuple[None, None]:
    return program_time(line.text[:at]) or (None, None)


class RustVmmReader(LineReader):
    """Reads Cloud Hypervisor's debug lines on KVM and on MSHV, and memory faults as Rust prints them.

    Cloud Hypervisor prints before it does the work and has no line for success; where it fails, it ends.
    """

    name = "cloud-hypervisor"
    title = "Cloud Hypervisor debug log (KVM_HC_MAP_GPA_RANGE, VcpuExit::MemoryFault, Releasing pages), libkrun"
    marks = (b"KVM_HC_MAP_GPA_RANGE: address=", b"VcpuExit::MemoryFault: ", b"MemoryFault { ", b"gfn_start: ")

    def __init__(self) -> None:
        self._exit = Meaning("kvm-exit-hypercall")
        self._fault = meaning_of("kvm-exit-memory-fault")

    def read(self, line: Line) -> Iterator[Record]:
        """Return what one line shows."""
        text = line.text
        if match := _CALL.search(text):
            fields = {
                "gpa": int(match.group(1), 16),
                "npages": int(match.group(2)),
                "attributes": int(match.group(3), 16),
            }
            if not self._exit.fits(**fields):
                yield malformed(line, "a number does not fit into its field", match.start())
                return
            yield _made(line, match.start(), self._exit.of(**fields), "cloud-hypervisor")
        elif match := _FAULT.search(text):
            yield from self._faulted(line, match)
        elif match := _RELEASE.search(text):
            gpa, pages = int(match.group(1), 16) * PAGE_SIZE, int(match.group(2))
            event = _made(line, match.start(), Reading(None, gpa, pages, PageState.PRIVATE), "cloud-hypervisor-mshv")
            # The guest took write access back, at least; whether the host may still read is not printed.
            other = Reading(None, gpa, pages, PageState.SHARED_READ_ONLY)
            yield event._replace(
                ambiguous=Ambiguity("host visibility", "not printed", "private", "shared-read-only", other)
            )
        elif "KVM_HC_MAP_GPA_RANGE: address=" in text or "MemoryFault" in text or "Releasing pages: gfn" in text:
            yield malformed(line, "the record is not whole")

    def _faulted(self, line: Line, match: re.Match[str]) -> Iterator[Record]:
        found = {name: _number(number) for name, number in _PAIR.findall(match.group(1))}
        if set(found) != {"flags", "gpa", "size"}:
            yield malformed(line, "expected flags, gpa and size of a memory fault", match.start())
            return
        ours = "VcpuExit::MemoryFault" in line.text
        what = "cloud-hypervisor-fault" if ours else "rust-vmm-fault"
        if self._fault is None:
            seconds, clock = _time(line, match.start())
            text = f"{found['size'] // PAGE_SIZE} pages at {found['gpa']:#x}, flags {found['flags']:#x}"
            yield Sighting(line.source, line.number, seconds, "fault", "memory fault", text, format=what, clock=clock)
            return
        if not self._fault.fits(**found):
            yield malformed(line, "a number does not fit into its field", match.start())
            return
        event = _made(line, match.start(), self._fault.of(**found), what)._replace(implicit=True)
        if "Unexpected exit reason" in line.text:
            # The VMM does not know this exit and stops: nothing was converted.
            event = event._replace(attempt=False, outcome=Status.FAILED)
        yield event


class OpenVmmReader(LineReader):
    """Reads OpenVMM's structured tracing, as text or as JSON. Its numbers are decimal unless they begin with 0x."""

    name = "openvmm"
    title = "OpenVMM tracing (handling/handled/failed KVM_HC_MAP_GPA_RANGE, guest accessed inaccessible gpa)"
    marks = (
        b"handling KVM_HC_MAP_GPA_RANGE",
        b"handled KVM_HC_MAP_GPA_RANGE",
        b"failed KVM_HC_MAP_GPA_RANGE",
        b"is_shared",
    )

    def __init__(self) -> None:
        self._exit = Meaning("kvm-exit-hypercall")
        self._open: dict[tuple[int, int, int], TraceEvent] = {}

    @property
    def waiting(self) -> bool:  # type: ignore[override]  # worked out, not stored
        """Whether a call is held back."""
        return bool(self._open)

    def settle(self) -> Iterator[Record]:
        """Return the calls whose end was not printed."""
        held, self._open = self._open, {}
        yield from held.values()

    def read(self, line: Line) -> Iterator[Record | None]:
        """Return what one line shows."""
        match = _OPENVMM.search(line.text)
        if match is None:
            yield from self._inaccessible(line)
            return
        fields = {name: _number(number) for name, number in _FIELD.findall(line.text)}
        try:
            key = fields["gpa"], fields["page_count"], fields["map_attributes"]
        except KeyError as missing:
            yield malformed(line, f"there is no field {missing.args[0]}", match.start())
            return
        asked = {"gpa": key[0], "npages": key[1], "attributes": key[2]}
        if not self._exit.fits(**asked):
            yield malformed(line, "a number does not fit into its field", match.start())
            return
        word = match.group(1)
        held = self._open.pop(key, None)
        event = held or _made(line, match.start(), self._exit.of(**asked), "openvmm")
        if word != "handling":
            yield event._replace(attempt=False, outcome=Status.DONE if word == "handled" else Status.FAILED)
            return
        if held is not None:
            yield held
            event = _made(line, match.start(), self._exit.of(**asked), "openvmm")
        self._open[key] = event
        yield None
        if len(self._open) > MAX_OPEN:
            yield self._open.pop(next(iter(self._open)))

    def _inaccessible(self, line: Line) -> Iterator[Record]:
        match = _INACCESSIBLE.search(line.text)
        if match is None:
            return
        gpa, shared = _GPA.search(line.text), _SHARED.search(line.text)
        if gpa is None or shared is None:
            yield malformed(line, "there is no gpa or no is_shared", match.start())
            return
        seconds, clock = _time(line, match.start())
        name = f"access to a page as {'shared' if shared.group(1) == 'true' else 'private'} that is not"
        text = f"gpa {_number(gpa.group(1)):#x}, machine check injected"
        yield Sighting(line.source, line.number, seconds, "fault", name, text, format="openvmm", clock=clock)
