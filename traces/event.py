"""What every trace reader makes: somebody asked to convert pages, or something else that a person must see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from hvabi.backend import PageState, Status

Radix = Literal["decimal", "hex"]
"""How a number is read whose radix the trace does not state."""

RADIXES: tuple[Radix, ...] = get_args(Radix)

Clock = Literal["boot", "wall", "process"]
"""Where a trace's times count from: a machine's start, 1970, or the start of a program."""

Kind = Literal[
    "hidden-call", "other-call", "unplaced", "failure", "fault", "terminated", "exit", "launch", "dma-map", "orphan"
]
"""What a sighting is.

hidden-call: a call that converts pages and the trace does not say which.
other-call: a call that converts nothing.
unplaced: a conversion whose address is not a guest physical one.
failure: a conversion failed, and which one is not shown.
fault: the guest touched a page in the wrong state.
terminated: the guest gave up.
exit: a vCPU left to its VMM.
launch: pages that the guest begins with.
dma-map: a buffer was mapped for a device.
orphan: the end of a call whose begin the trace does not show.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where something stands: `line` counts the lines of `source` as they lie in the file, from 1."""

    source: str
    line: int


class Reading(NamedTuple):
    """What a call asks for: `pages` of 4 KiB from the byte address `gpa` on, and the rest as in `TraceEvent`."""

    abi: str | None
    gpa: int
    pages: int
    to: PageState | None
    refused: Status | None = None
    broken: tuple[str, ...] = ()


class Ambiguity(NamedTuple):
    """Something in a call that can be read in two ways with two results.

    Attributes:
        field: name of the field that is open.
        text: what stands in the trace.
        chosen: the reading that the event is.
        by: the other one, by which `--read-as` asks for it: ``hex``, or the id of an ABI.
        other: what the call asks for when read so.

    """

    field: str
    text: str
    chosen: str
    by: str
    other: Reading


class TraceEvent(NamedTuple):
    """One call that a trace shows.

    Attributes:
        source: name of the trace.
        line: the line in it, from 1; the first one where an event spans several.
        time_seconds: the trace's own clock, or None where it has none.
        abi: id of the ABI whose call it is, or None where it is no call of an ABI but what a program does itself.
        gpa: guest physical address of the first page, without alias bits; a multiple of 4096.
        pages: number of 4 KiB pages.
        to: the state asked for, or None where the call asks for none that is known.
        attempt: True where the trace shows that the call was made, and not how it ended.
        ambiguous: the other reading where there are two, else None.
        refused: how the ABI refuses such a call whatever the state of the pages is, or None.
        broken: ids of the rules that the call breaks: those for the guest, then the one by which it is refused.
        format: what printed it; see `hvabi.traces.readers.LAYERS`.
        clock: what `time_seconds` counts from, or None.
        outcome: how it ended; with `attempt`, what a replay takes it for.
        done_pages: pages that were done where that is not all and known, else None.
        retries: answers that said "go on", shown by the trace.
        stalls: the most of them in a row that brought nothing.
        implicit: True for an access that made the host convert, instead of a call.
        vcpu: the virtual processor, or None.

    """

    # A tuple and not a frozen dataclass: a long log makes millions of them.
    source: str
    line: int
    time_seconds: float | None
    abi: str | None
    gpa: int
    pages: int
    to: PageState | None
    attempt: bool
    ambiguous: Ambiguity | None = None
    refused: Status | None = None
    broken: tuple[str, ...] = ()
    format: str = ""
    clock: Clock | None = None
    outcome: Status = Status.DONE
    done_pages: int | None = None
    retries: int = 0
    stalls: int = 0
    implicit: bool = False
    vcpu: int | None = None

    @classmethod
    def plain(cls, *fields: Any) -> TraceEvent:
        """Return an event whose end is not shown, from its fields up to `clock`; the quick way to make one."""
        return tuple.__new__(cls, (*fields, Status.DONE, None, 0, 0, False, None))

    @property
    def place(self) -> Place:
        """Where the event stands."""
        return Place(source=self.source, line=self.line)

    def read_as(self, *chosen: str) -> TraceEvent:
        """Return the event under the readings chosen; the same event where none of them is open."""
        open_ = self.ambiguous
        if open_ is None or open_.by not in chosen:
            return self
        return self._replace(**open_.other._asdict())


class Sighting(NamedTuple):
    """A line that is understood and converts no pages that it names; fields as in `TraceEvent`.

    Attributes:
        kind: see `Kind`.
        name: stable name of what it is, within its kind.
        text: one line for people.
        result: how it ended, in the words of its ABI, or empty where the trace does not say.

    """

    source: str
    line: int
    time_seconds: float | None
    kind: Kind
    name: str
    text: str
    result: str = ""
    format: str = ""
    clock: Clock | None = None
    vcpu: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Malformed:
    """A record that a reader knows by its words but cannot read; nothing is guessed from it.

    `excerpt` is the piece of the line, shortened, with everything escaped that could steer a terminal.
    """

    source: str
    line: int
    reason: str
    excerpt: str


Record = TraceEvent | Sighting | Malformed
"""What a reader finds in a line."""
