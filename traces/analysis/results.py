"""What the analyses find, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from hvabi.backend import PageState
    from hvabi.traces.event import Place


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPlace:
    """One call: where it stands, its pages (`pages` of 4 KiB from `gpa` on) and the state asked for."""

    place: Place
    gpa: int
    pages: int
    to: PageState | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FlipRun:
    """Pages, `pages` of 4 KiB from `gpa` on, that changed their state `changes` times each.

    `period_seconds` is the mean time of two changes, there and back; None with fewer than three changes or no clock.
    """

    gpa: int
    pages: int
    changes: int
    period_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PagesByChanges:
    """How many pages changed from `least` to `most` times."""

    least: int
    most: int
    pages: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PagesByTime:
    """How many changes of pages came after a time up to `up_to_seconds` (None: any longer one), in pages."""

    up_to_seconds: float | None
    pages: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FlipSummary:
    """How often pages changed their state.

    Attributes:
        page_changes: changes over all pages and calls; always exact.
        changed_pages: pages that changed at least once.
        flip_flop_pages: pages that changed at least twice, so that they changed back.
        one_in: 1 where every page was followed; else one page of so many was, and all numbers of pages but
            `page_changes` are estimates.
        exact_runs: up to so many runs of pages with different histories every page is followed.
        sampled_from: the first call at which that was not enough, or None.
        by_changes: pages by the number of their changes, in powers of two.
        shared_for: how long pages were shared before they became private again.
        private_for: how long pages were private before they became shared again.
        top: the runs of flip-flop pages with the most changes, most first, then by address.
        runs: all pages that changed (or of the sample), as runs of equal counts, by address. See
            `hvabi.traces.analysis.flips.changes_of`.

    """

    page_changes: int
    changed_pages: int
    flip_flop_pages: int
    one_in: int
    exact_runs: int
    sampled_from: Place | None
    by_changes: tuple[PagesByChanges, ...]
    shared_for: tuple[PagesByTime, ...]
    private_for: tuple[PagesByTime, ...]
    top: tuple[FlipRun, ...]
    runs: tuple[FlipRun, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallsBySize:
    """How many calls were about so many pages."""

    pages: int
    calls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """The most calls in a window of time that begins at a multiple of its width, `at_seconds` after the first call."""

    window_seconds: float
    most_calls: int
    at_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeSummary:
    """What calls have in common with the one before.

    Attributes:
        sizes: calls by their number of pages, smallest first.
        other_sizes: calls of further sizes.
        joinable_calls: calls whose pages lie beside those of the call before, to the same state: one call would do.
        longest_chain: the most such calls in a row, the first one too; 0 where there are none.
        repeated_calls: calls that are the same as the one before.
        longest_repeat: the most of them in a row.
        first_repeat: the first of them.
        burst_gap_seconds: a burst is calls with less than so much time from one to the next, two at least.
        bursts: how many there are.
        longest_burst_calls: calls of the longest.
        longest_burst_seconds: time from its first to its last call.
        highest_rates: the most calls in windows of time; empty without a clock.

    """

    sizes: tuple[CallsBySize, ...]
    other_sizes: int
    joinable_calls: int
    longest_chain: int
    repeated_calls: int
    longest_repeat: int
    first_repeat: CallPlace | None
    burst_gap_seconds: float
    bursts: int
    longest_burst_calls: int
    longest_burst_seconds: float
    highest_rates: tuple[Rate, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Storm:
    """A call that was answered "go on" many times, or without progress.

    `allowed_stalls` is how many answers without progress a guest accepts in a row, where its ABI says.
    """

    call: CallPlace
    retries: int
    stalls: int
    allowed_stalls: int | None
    done_pages: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrySummary:
    """Calls that were done in parts.

    Attributes:
        calls: calls that were answered "go on" at least once.
        answers: all such answers.
        partial_calls: calls of which the trace shows that only a part was done.
        stalled_calls: calls with an answer that brought nothing.
        storms: calls with `storm_answers` such answers or more, or with more without progress than the ABI allows.
        storm_answers: the bound for a storm.
        pages_per_answer: mean pages that such an answer brought, or None.
        worst: the calls with the most answers without progress, then the most answers.

    """

    calls: int
    answers: int
    partial_calls: int
    stalled_calls: int
    storms: int
    storm_answers: int
    pages_per_answer: float | None
    worst: tuple[Storm, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolCell:
    """Calls that a pool of `pages` pages saves that holds a page for `hold_seconds`; None is without a bound.

    `at_least`: where a call can use only the very range that it names. `at_most`: where any pages will do.
    """

    pages: int | None
    hold_seconds: float | None
    at_least: int
    at_most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptPages:
    """A range that a pool would keep, and the calls that this saves at the least, in a pool without bounds."""

    gpa: int
    pages: int
    saved_calls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSummary:
    """What a pool of freed pages would save; see `hvabi.traces.analysis.pool`.

    Attributes:
        calls: calls that changed something, of which pools can save some.
        cells: by size and time.
        keeps: the ranges that come back most often.

    """

    calls: int
    cells: tuple[PoolCell, ...]
    keeps: tuple[KeptPages, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A stretch of a trace: `index` times the width on; numbers of calls, ranges and shared pages."""

    index: int
    shares: int
    unshares: int
    without_effect: int
    most_ranges: int
    ranges: int
    most_shared_pages: int
    shared_pages: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MapCell:
    """A block of memory (by its place in `MapSummary.blocks`) in a column in which calls changed something of it."""

    block: int
    column: int
    most_shared_pages: int
    shared_pages: int
    calls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MapSummary:
    """The memory map over time.

    Attributes:
        block_pages: pages of a block.
        blocks: addresses of the blocks in which something changed.
        cells: by block and column; between two cells of a block nothing changes.

    """

    block_pages: int
    blocks: tuple[int, ...]
    cells: tuple[MapCell, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineSummary:
    """A trace in columns of equal width; columns without a call are left out.

    Attributes:
        axis: ``seconds`` since the first call, or ``calls`` where the trace has no clock.
        column_width: in that unit.
        length: where the last call lies.
        columns: by index.
        map: the memory map, where it was asked for.

    """

    axis: Literal["seconds", "calls"]
    column_width: float
    length: float
    columns: tuple[Column, ...]
    map: MapSummary | None


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
class Structure:
    """Bytes of one way to keep the state: at the most, and at the end."""

    peak_bytes: int
    final_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Bytes to keep the state of all pages of a guest, by structure.

    Attributes:
        guest_bytes: memory that is covered, from address 0.
        guest_bytes_from: ``stated`` by the caller, or ``highest-gpa``: the end of the highest page that a call is
            about, which is less than the guest has, or more where that page is no memory.
        highest_end: the address behind the highest page that a call is about, 0 without calls.
        bitmap_bytes: one bit for each 4 KiB page of it, rounded up to bytes.
        bytes_per_range: what a range is charged here.
        peak_bytes: as ranges, for the most that there were at once.
        final_bytes: as ranges, at the end.
        rb_tree: as an interval tree of Linux, a node for each range.
        xarray_shared: as an XArray of Linux with an entry for each page that is shared.
        xarray_private: the same with an entry for each page that is private, as KVM keeps memory attributes.
        xarray_ranges: how many ranges there were when the two XArrays were looked at for their peak: within a
            tenth of the most, as that is work. At the end they are looked at too.

    """

    guest_bytes: int
    guest_bytes_from: Literal["stated", "highest-gpa"]
    highest_end: int
    bitmap_bytes: int
    bytes_per_range: int
    peak_bytes: int
    final_bytes: int
    rb_tree: Structure
    xarray_shared: Structure
    xarray_private: Structure
    xarray_ranges: int


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
