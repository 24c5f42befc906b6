"""What a replay found, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hvabi.traces.report import jsonable

if TYPE_CHECKING:
    from hvabi.backend import PageState, Status
    from hvabi.traces.event import Place, Radix
    from hvabi.traces.report import ReadReport

FORMAT = "hvabi-trace-summary"
VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPlace:
    """One call: where it stands, its pages (`pages` of 4 KiB from `gpa` on) and the state asked for."""

    place: Place
    gpa: int
    pages: int
    to: PageState | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Calls that the replay could not do, by the common status: they changed nothing."""

    status: Status
    calls: int
    first: CallPlace


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenRule:
    """Calls that break a rule for the guest; `rule` is its id in the specification of `abi`."""

    abi: str
    rule: str
    calls: int
    first: CallPlace


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A number that can be read in two ways: its digits, the pages by reading, and how many calls have it."""

    text: str
    decimal_pages: int
    hex_pages: int
    calls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AmbiguitySummary:
    """Calls whose page count depends on the radix; `readings` lists the first different numbers, not all of them."""

    calls: int
    readings: tuple[Reading, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FlipRun:
    """Pages, `pages` of 4 KiB from `gpa` on, that changed their state `changes` times each."""

    gpa: int
    pages: int
    changes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FlipSummary:
    """How often pages changed their state.

    Attributes:
        page_changes: changes over all pages and calls; always exact.
        changed_pages: pages that changed at least once.
        flip_flop_pages: pages that changed at least twice, so that they changed back.
        top: the runs of flip-flop pages with the most changes, most first, then by address.
        runs: all pages that changed, as runs of equal counts, by address. See `hvabi.traces.flips.changes_of`.
        max_runs: the bound on `runs`.
        inexact_from: None when all counts are exact; else the first call that was not counted in full, from which
            all but `page_changes` are lower bounds.

    """

    page_changes: int
    changed_pages: int
    flip_flop_pages: int
    top: tuple[FlipRun, ...]
    runs: tuple[FlipRun, ...]
    max_runs: int
    inexact_from: Place | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeSample:
    """The most ranges that there were after any of a few calls that follow each other.

    `call` counts calls from 1 and is, like `place` and `time_seconds`, the first one that reached that number.
    """

    call: int
    place: Place
    time_seconds: float | None
    ranges: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeHistory:
    """The number of ranges that are not private, over the calls.

    Attributes:
        peak: the highest number, 0 without calls.
        peak_at: the first call that reached it, or None without calls.
        final: the number at the end.
        samples: one sample for every `calls_per_sample` calls, in order; the last one may stand for fewer.
        calls_per_sample: 1 for a short trace, else a power of two.

    """

    peak: int
    peak_at: RangeSample | None
    final: int
    samples: tuple[RangeSample, ...]
    calls_per_sample: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Bytes to keep the state as ranges, against a bitmap with one bit for each page of the same guest.

    Attributes:
        guest_bytes: memory that the bitmap covers, from address 0.
        guest_bytes_from: ``stated`` by the caller, or ``highest-gpa``: the end of the highest page that a call is
            about, which is less than the guest has, or more where that page is no memory.
        highest_end: the address behind the highest page that a call is about, 0 without calls.
        bitmap_bytes: one bit for each 4 KiB page of it, rounded up to bytes.
        bytes_per_range: what a range is charged.
        peak_bytes: for the most ranges that there were at once.
        final_bytes: for the ranges at the end.

    """

    guest_bytes: int
    guest_bytes_from: Literal["stated", "highest-gpa"]
    highest_end: int
    bitmap_bytes: int
    bytes_per_range: int
    peak_bytes: int
    final_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalRange:
    """Pages [gpa, end), in bytes, and their state at the end; the pages between ranges are private."""

    gpa: int
    end: int
    state: PageState


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """The trace's own clock.

    Attributes:
        timed_calls: calls with a time.
        first_seconds: time of the first of them, or None.
        last_seconds: time of the last of them, or None.
        span_seconds: time between first and last; where the clock went back, the sum over the parts between.
        backwards: how often the clock went back: another boot, another machine, or lines out of order.
        calls_per_second: `timed_calls` by `span_seconds`, or None where no time passes. A lower bound where lines
            were left out.

    """

    timed_calls: int
    first_seconds: float | None
    last_seconds: float | None
    span_seconds: float
    backwards: int
    calls_per_second: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceSummary:
    """What a replay found.

    Attributes:
        reads: how each source was read; empty where events were given directly.
        radix: how ambiguous numbers were read.
        calls: all calls.
        share_calls: those that ask for shared pages, read-only ones too.
        unshare_calls: those that ask for private pages.
        attempts: calls of which the trace does not show how they ended; the replay takes them as done.
        no_op_calls: calls that were done and changed nothing.
        no_ops: the first of them.
        refused: calls that the replay could not do.
        broken_rules: rules for the guest that calls break.
        ambiguity: calls whose page count depends on the radix.
        flips: how often pages changed.
        ranges: the number of ranges over the calls.
        footprint: bytes as ranges, against a bitmap.
        final: all pages that are not private at the end.
        final_pages: how many 4 KiB pages that are.
        timing: the trace's clock.

    """

    reads: tuple[ReadReport, ...]
    radix: Radix
    calls: int
    share_calls: int
    unshare_calls: int
    attempts: int
    no_op_calls: int
    no_ops: tuple[CallPlace, ...]
    refused: tuple[Refusal, ...]
    broken_rules: tuple[BrokenRule, ...]
    ambiguity: AmbiguitySummary
    flips: FlipSummary
    ranges: RangeHistory
    footprint: Footprint
    final: tuple[FinalRange, ...]
    final_pages: int
    timing: Timing

    def to_json(self) -> dict[str, object]:
        """Return the summary as JSON values; addresses are lower-case 0x strings, ends are exclusive."""
        body = jsonable(self)
        assert isinstance(body, dict)  # a dataclass becomes an object
        return {"format": FORMAT, "version": VERSION, **body}
