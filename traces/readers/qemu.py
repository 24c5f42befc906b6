"""QEMU's trace events and messages about conversions.

A conversion shows up to four times: the exit that asked for it (``kvm_hc_map_gpa_range``, or ``kvm_memory_fault`` where
the guest just touched the page), the work (``kvm_convert_memory``) and the notice to devices
(``ram_block_attributes_state_change``). The first three are printed before anything is done, the last one when KVM has
taken the new attributes. They become one event. ``ram_block_attributes`` counts from the start of a block of
memory, which is no guest physical address, so such a line alone places no page.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hvabi.backend import PAGE_SIZE, PageState, Status
from hvabi.traces.clocks import program_time
from hvabi.traces.event import Reading, Sighting, TraceEvent
from hvabi.traces.lookup import meaning_of
from hvabi.traces.meaning import Meaning
from hvabi.traces.readers.base import LineReader, malformed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hvabi.traces.event import Clock, Kind, Record
    from hvabi.traces.readers.base import Line

_N = r"0x([0-9a-fA-F]{1,16})\b"
_WHAT = re.compile(
    r"kvm_hc_map_gpa_range |kvm_convert_memory |kvm_memory_fault |memory fault: GPA |kvm_sev_snp_launch_update |"
    r"ram_block_attributes_state_change|Converting non guest_memfd backed memory region |"
    r"Failed to notify the listener |KVM_EXIT_MEMORY_FAULT: Unknown flag "
)
_REST = {
    "kvm_hc_map_gpa_range ": re.compile(rf"gpa {_N} size {_N} attributes {_N} flags {_N}"),
    "kvm_convert_memory ": re.compile(rf"start {_N} size {_N} (shared_to_private|private_to_shared)\b"),
    "kvm_memory_fault ": re.compile(rf"start {_N} size {_N} flags {_N}"),
    "memory fault: GPA ": re.compile(rf"{_N} size {_N} flags {_N}"),
    "kvm_sev_snp_launch_update ": re.compile(rf"src {_N} gpa {_N} len {_N} \(([^)]{{1,40}})\)"),
    "ram_block_attributes_state_change": re.compile(
        rf"(?:, (invalid range): offset {_N}, size {_N}|"
        rf" offset {_N} size {_N} from '(\w{{1,20}})' to '(discarded|populated)')"
    ),
    "Converting non guest_memfd backed memory region ": re.compile(rf"\({_N} ,\+ {_N}\) to (private|shared)\b"),
    "Failed to notify the listener ": re.compile(rf"the state change of \({_N} \+ {_N}\) to (private|shared)\b"),
    "KVM_EXIT_MEMORY_FAULT: Unknown flag ": re.compile(r"((?:0x)?[0-9a-f]{1,16})\b"),
}
_BEGINS = re.compile(r",? ?(?:gpa|start|src|offset|from) 0x|0x|$")
_DIRECTION = {"shared_to_private": PageState.PRIVATE, "private_to_shared": PageState.SHARED}
_MEANS = {"discarded": PageState.PRIVATE, "populated": PageState.SHARED}

MAX_OPEN = 8
"""Conversions that are held back because more may come about them; vCPUs may be at work side by side."""


class _Open:
    """A conversion that was seen, and what about it."""

    __slots__ = ("event", "size", "start", "worked")

    def __init__(self, event: TraceEvent, start: int, size: int, *, worked: bool) -> None:
        self.event = event
        self.start = start
        self.size = size
        self.worked = worked


class QemuReader(LineReader):
    """Reads QEMU's trace events of conversions, and its messages when one fails."""

    name = "qemu"
    title = "QEMU trace events (kvm_hc_map_gpa_range, kvm_convert_memory, kvm_memory_fault, ram_block_attributes_*)"
    marks = (
        b"kvm_hc_map_gpa_range ",
        b"kvm_convert_memory ",
        b"kvm_memory_fault ",
        b"memory fault: GPA ",
        b"kvm_sev_snp_launch_update ",
        b"ram_block_attributes_state_change",
        b"guest_memfd backed memory region ",
        b"KVM_EXIT_MEMORY_FAULT: Unknown flag ",
        b" + 0x",
    )

    def __init__(self) -> None:
        self._open: list[_Open] = []
        self._exit = Meaning("kvm-exit-hypercall")
        self._attributes = Meaning("kvm-memory-attributes")
        self._fault = meaning_of("kvm-exit-memory-fault")

    @property
    def waiting(self) -> bool:  # type: ignore[override]  # worked out, not stored
        """Whether a conversion is held back."""
        return bool(self._open)

    def settle(self) -> Iterator[Record]:
        """Return the conversions that were held back."""
        held, self._open = self._open, []
        for each in held:
            yield each.event

    def read(self, line: Line) -> Iterator[Record | None]:
        """Return what one line shows; AMD's QEMU put two records into one."""
        text, behind = line.text, 0
        match = _WHAT.search(text)
        while match is not None:
            word = match.group()
            rest = _REST[word].match(text, match.end())
            if rest is None:
                # The name alone stands in prose; a record goes on with the name of its first number.
                if _BEGINS.match(text, match.end()):
                    yield malformed(line, f"expected all numbers of {word.strip()}", match.start())
            else:
                time = program_time(text[behind : match.start()])
                yield None
                yield from self._record(line, time, word, rest)
                behind = rest.end()
            match = _WHAT.search(text, match.end())

    def _record(self, line: Line, time: tuple[float, Clock] | None, word: str, rest: re.Match[str]) -> Iterator[Record]:
        got = rest.groups()
        if word == "kvm_hc_map_gpa_range ":
            gpa, size, attributes = (int(number, 16) for number in got[:3])
            if size % PAGE_SIZE:
                yield malformed(line, "the size is no number of pages", rest.start())
                return
            meant = self._exit.of(gpa=gpa, npages=size // PAGE_SIZE, attributes=attributes, flags=int(got[3], 16))
            yield from self._hold(self._event(line, time, meant, "qemu-hypercall"), gpa, size)
        elif word == "kvm_convert_memory ":
            yield from self._convert(line, time, int(got[0], 16), int(got[1], 16), _DIRECTION[got[2]])
        elif word in ("kvm_memory_fault ", "memory fault: GPA "):
            start, size, flags = (int(number, 16) for number in got)
            yield from self._faulted(line, time, start, size, flags)
        elif word == "kvm_sev_snp_launch_update ":
            text = f"{int(got[2], 16) // PAGE_SIZE} pages at 0x{got[1]}"
            yield self._sighting(line, time, "launch", got[3], text)
        elif word == "ram_block_attributes_state_change":
            yield from self._block(line, time, got)
        elif word == "KVM_EXIT_MEMORY_FAULT: Unknown flag ":
            yield self._sighting(line, time, "failure", "memory fault with an unknown flag", got[0])
        else:
            start, size = int(got[0], 16), int(got[1], 16)
            name = "no guest_memfd there" if word.startswith("Converting") else "a device could not follow"
            if not self._failed(start, size, PageState(got[2])):
                yield self._sighting(line, time, "failure", name, f"{size // PAGE_SIZE} pages at {start:#x}")

    # -- the parts of one conversion ----------------------------------------------------------------------------

    def _hold(self, event: TraceEvent, start: int, size: int, *, worked: bool = False) -> Iterator[TraceEvent]:
        self._open.append(_Open(event, start, size, worked=worked))
        if len(self._open) > MAX_OPEN:
            yield self._open.pop(0).event

    def _convert(
        self, line: Line, time: tuple[float, Clock] | None, start: int, size: int, to: PageState
    ) -> Iterator[Record]:
        for each in self._open:
            same = each.start == start and each.size == size and not each.worked
            if same and each.event.to in (to, None):
                each.worked = True
                if each.event.to is None and each.event.refused is Status.UNSUPPORTED:
                    each.event = each.event._replace(to=to, refused=None)
                return
        fields = self._attributes.asking(start, size // PAGE_SIZE, to)
        meant = self._attributes.of(**{**fields, "size": size})
        yield from self._hold(self._event(line, time, meant, "qemu-convert"), start, size, worked=True)

    def _faulted(
        self, line: Line, time: tuple[float, Clock] | None, start: int, size: int, flags: int
    ) -> Iterator[Record]:
        if self._fault is not None:
            meant = self._fault.of(gpa=start, size=size, flags=flags)
        else:
            # No specification says what the flags mean: a kvm_convert_memory line may tell.
            meant = Reading("kvm-exit-memory-fault", start, size // PAGE_SIZE, None, Status.UNSUPPORTED)
        # QEMU of AMD's tree warns of a fault, and may trace it as well.
        if any(each.start == start and each.size == size and not each.worked for each in self._open):
            return
        yield from self._hold(self._event(line, time, meant, "qemu-fault")._replace(implicit=True), start, size)

    def _block(self, line: Line, time: tuple[float, Clock] | None, got: tuple[str | None, ...]) -> Iterator[Record]:
        if got[0] is not None:
            size = int(got[2] or "", 16)
            held = next((each for each in self._open if each.size == size and each.worked), None)
            if held is None:
                yield self._sighting(
                    line, time, "failure", "ram_block_attributes, invalid range", f"offset 0x{got[1]}, size {size:#x}"
                )
            else:
                held.event = held.event._replace(attempt=False, outcome=Status.FAILED)
            return
        size, to = int(got[4] or "", 16), _MEANS[got[6] or ""]
        for each in self._open:
            if each.size == size and each.event.to is to and each.worked and each.event.attempt:
                each.event = each.event._replace(attempt=False)
                return
        text = f"{size // PAGE_SIZE} pages at offset 0x{got[3]} of a block, from {got[5]} to {got[6]}"
        yield self._sighting(line, time, "unplaced", f"ram_block_attributes to {to.value}", text)

    def _failed(self, start: int, size: int, to: PageState) -> bool:
        for each in reversed(self._open):
            if each.start == start and each.size == size and each.event.to is to:
                each.event = each.event._replace(attempt=False, outcome=Status.FAILED)
                return True
        return False

    @staticmethod
    def _event(line: Line, time: tuple[float, Clock] | None, meant: Reading, what: str) -> TraceEvent:
        seconds, clock = time or (None, None)
        return TraceEvent(
            line.source, line.number, seconds, *meant[:4], True, None, *meant[4:], format=what, clock=clock
        )

    @staticmethod
    def _sighting(line: Line, time: tuple[float, Clock] | None, kind: Kind, name: str, text: str) -> Sighting:
        seconds, clock = time or (None, None)
        return Sighting(line.source, line.number, seconds, kind, name, text, format="qemu", clock=clock)
