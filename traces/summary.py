"""What a replay found, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hvabi.traces.report import jsonable

if TYPE_CHECKING:
    from hvabi.backend import PageState, Status
    from hvabi.traces.analysis.results import (
        CallPlace,
        FlipSummary,
        Footprint,
        PoolSummary,
        RangeHistory,
        RetrySummary,
        ShapeSummary,
        TimelineSummary,
        Timing,
    )
    from hvabi.traces.event import Place
    from hvabi.traces.report import ReadReport

FORMAT = "hvabi-trace-summary"
VERSION = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Calls that the replay could not do, by the common status: they changed nothing."""

    status: Status
    calls: int
    first: CallPlace


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenRule:
    """Calls that break a rule for the guest; `rule` is its id in the specification of `abi`."""

    abi: str | None
    rule: str
    calls: int
    first: CallPlace


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenReading:
    """Something that can be read in two ways: what stands there, the two readings, the pages by each, and how often.

    `by` chooses the other reading. `gpa` and `to` are of the first call that has it.
    """

    field: str
    text: str
    chosen: str
    by: str
    pages: int
    to: PageState | None
    other_pages: int
    other_to: PageState | None
    calls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AmbiguitySummary:
    """Calls that can be read in two ways; `readings` lists the first different ones, not all of them."""

    calls: int
    readings: tuple[OpenReading, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenGroup:
    """Lines that are understood and convert no pages that they name; fields as in `Sighting`, `text` of the first."""

    kind: str
    name: str
    result: str
    lines: int
    first: Place
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalRange:
    """Pages [gpa, end), in bytes, and their state at the end; the pages between ranges are private."""

    gpa: int
    end: int
    state: PageState


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceSummary:
    """What a replay found.

    Attributes:
        reads: how each source was read; empty where events were given directly.
        read_as: the readings that were chosen where two are possible.
        calls: all calls whose pages the trace names, without `echoes`.
        share_calls: those that ask for shared pages, read-only ones too.
        unshare_calls: those that ask for private pages.
        attempts: calls of which the trace does not show how they ended; the replay takes them as done.
        done_calls: calls of which it shows that they were done.
        failed_calls: calls of which it shows that they failed, in whole or in part.
        implicit_calls: accesses of the guest that made the host convert, instead of a call.
        echoes: lines that say of a call on its way down through the layers what a line above had said; not in `calls`.
        unexpected: accesses that show a page in another state than the replay has: lines are missing before.
        no_op_calls: calls that were done and changed nothing.
        no_ops: the first of them.
        seen: lines that are understood and convert no pages that they name, by kind.
        refused: calls that the replay could not do.
        broken_rules: rules that calls break.
        ambiguity: calls that can be read in two ways.
        flips: how often pages changed.
        ranges: the number of ranges over the calls.
        footprint: bytes as ranges, against a bitmap.
        final: all pages that are not private at the end.
        final_pages: how many 4 KiB pages that are.
        timing: the trace's clock.
        shape: sizes, neighbours, repeats, bursts, rates.
        retries: calls that were done in parts.
        pool: what a pool of freed pages would save.
        timeline: calls, ranges and shared pages over time, and the memory map.

    """

    reads: tuple[ReadReport, ...]
    read_as: tuple[str, ...]
    calls: int
    share_calls: int
    unshare_calls: int
    attempts: int
    done_calls: int
    failed_calls: int
    implicit_calls: int
    echoes: int
    unexpected: int
    no_op_calls: int
    no_ops: tuple[CallPlace, ...]
    seen: tuple[SeenGroup, ...]
    refused: tuple[Refusal, ...]
    broken_rules: tuple[BrokenRule, ...]
    ambiguity: AmbiguitySummary
    flips: FlipSummary
    ranges: RangeHistory
    footprint: Footprint
    final: tuple[FinalRange, ...]
    final_pages: int
    timing: Timing
    shape: ShapeSummary
    retries: RetrySummary
    pool: PoolSummary
    timeline: TimelineSummary

    def to_json(self) -> dict[str, object]:
        """Return the summary as JSON values; addresses are lower-case 0x strings, ends are exclusive."""
        body = jsonable(self)
        assert isinstance(body, dict)  # a dataclass becomes an object
        return {"format": FORMAT, "version": VERSION, **body}
