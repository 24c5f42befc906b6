"""Replaying events: counts, bounds, refusals, times and files."""

from __future__ import annotations

import io
import json
import random
from typing import TYPE_CHECKING, get_args

import pytest

from hvabi.abi.errors import UsageError
from hvabi.backend import Change, PageState, Status
from hvabi.traces import Place, Replay, TraceError, TraceEvent, changes_of, replay, replay_sources
from hvabi.traces.analysis.flips import FlipCounter
from hvabi.traces.analysis.history import Clock, RangeCounter
from hvabi.traces.event import RADIXES, Radix

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

P, S, R = PageState.PRIVATE, PageState.SHARED, PageState.SHARED_READ_ONLY
LINE = "page_enc_status_hc invoked, gpa = {:x}, npages  = {}, enc = {}\n"


def event(
    line: int,
    page: int,
    pages: int,
    to: PageState | None,
    *,
    time: float | None = None,
    attempt: bool = True,
    refused: Status | None = None,
    broken: tuple[str, ...] = (),
) -> TraceEvent:
    return TraceEvent(
        source="t",
        line=line,
        time_seconds=time,
        abi="an-abi",
        gpa=page << 12,
        pages=pages,
        to=to,
        attempt=attempt,
        refused=refused,
        broken=broken,
    )


def test_radixes() -> None:
    assert get_args(Radix) == RADIXES == ("decimal", "hex")


def test_no_events() -> None:
    found = replay([])
    assert (found.calls, found.ranges.peak, found.ranges.peak_at, found.ranges.samples) == (0, 0, None, ())
    assert (found.final, found.footprint.guest_bytes, found.footprint.bitmap_bytes) == ((), 0, 0)
    assert (found.timing.first_seconds, found.timing.span_seconds, found.timing.calls_per_second) == (None, 0, None)
    assert found.flips.runs == ()


def test_directions_and_attempts() -> None:
    found = replay(
        [
            event(1, 0, 4, S),
            event(2, 1, 1, R, attempt=False),
            event(3, 1, 1, R),
            event(4, 0, 4, P),
            event(5, 9, 0, S),
        ]
    )
    assert (found.calls, found.share_calls, found.unshare_calls, found.attempts) == (5, 4, 1, 4)
    # 3 is read-only shared already; 5 is about no pages.
    assert [each.place.line for each in found.no_ops] == [3, 5]
    # 1: [0,4). 2: [0,1) [1,2) [2,4).
    assert (found.ranges.peak, found.ranges.final) == (3, 0)
    # Page 1: shared, read-only, private. The others: shared, private.
    assert {page: changes_of(found.flips, page << 12) for page in range(5)} == {0: 2, 1: 3, 2: 2, 3: 2, 4: 0}
    # A call about no pages does not say how much memory there is: pages 0 to 3.
    assert found.footprint.highest_end == 0x4000


def test_a_peak_hidden_by_later_calls_is_kept_with_its_first_place() -> None:
    found = replay([event(1, 0, 1, S), event(2, 2, 1, S), event(3, 0, 3, S), event(4, 5, 1, S), event(5, 0, 9, P)])
    assert [sample.ranges for sample in found.ranges.samples] == [1, 2, 1, 2, 0]
    assert found.ranges.peak_at is not None
    assert (found.ranges.peak, found.ranges.peak_at.place.line) == (2, 2)


def test_refusals_change_nothing_and_are_counted() -> None:
    found = replay(
        [
            event(1, 0, 1, S),
            event(2, 2, 1, S),
            event(3, 4, 1, S),  # a third range
            event(4, 6, 1, S),
            event(5, 2**52 - 1, 2, S),  # behind the last page
            event(6, 1, 1, None),  # asks for no known state
            event(7, 1, 1, S, refused=Status.INVALID),
            event(8, 1, 1, S),  # joins the two
        ],
        max_ranges=2,
    )
    assert [(each.status, each.calls, each.first.place.line) for each in found.refused] == [
        (Status.LIMIT, 2, 3),
        (Status.OUT_OF_RANGE, 1, 5),
        (Status.INVALID, 2, 6),
    ]
    assert [(each.gpa, each.end) for each in found.final] == [(0, 0x3000)]
    assert (found.calls, found.no_op_calls) == (8, 0)
    assert found.footprint.highest_end == 0x3000


def test_broken_rules_are_counted_with_their_first_call() -> None:
    calls = [event(1, 0, 1, S), event(2, 0, 0, S, broken=("A-1", "A-2")), event(3, 0, 0, S, broken=("A-2",))]
    found = replay(calls).broken_rules
    assert [(each.abi, each.rule, each.calls, each.first.place.line) for each in found] == [
        ("an-abi", "A-1", 1, 2),
        ("an-abi", "A-2", 2, 2),
    ]


def test_only_the_first_no_ops_are_listed() -> None:
    found = replay(event(line, 0, 1, P) for line in range(1, 151))
    assert (found.no_op_calls, len(found.no_ops)) == (150, 100)
    assert found.no_ops[-1].place.line == 100


FAULTS = {
    "radix": ({"radix": "octal"}, "bad-radix"),
    "no-memory": ({"memory_bytes": 0}, "bad-memory"),
    "negative-memory": ({"memory_bytes": -1}, "bad-memory"),
}


@pytest.mark.parametrize(("options", "code"), FAULTS.values(), ids=FAULTS.keys())
def test_mistakes_of_the_caller(options: dict[str, object], code: str) -> None:
    with pytest.raises(TraceError) as caught:
        Replay(**options)  # type: ignore[arg-type]  # the mistake under test
    assert caught.value.code == code


CLOCKS = {
    # times -> timed calls, first, last, span, went back, calls per second
    "none": ([None, None], (0, None, None, 0.0, 0, None)),
    "one": ([5.0], (1, 5.0, 5.0, 0.0, 0, None)),
    "three": ([5.0, 5.5, 7.0], (3, 5.0, 7.0, 2.0, 0, 1.5)),
    "some-without": ([5.0, None, 7.0], (2, 5.0, 7.0, 2.0, 0, 1.0)),
    "at-zero": ([0.0, 4.0], (2, 0.0, 4.0, 4.0, 0, 0.5)),
    # another boot: 2 s of the first, 1 s of the second
    "back": ([100.0, 102.0, 1.0, 2.0], (4, 100.0, 2.0, 3.0, 1, 4 / 3)),
    "same": ([3.0, 3.0], (2, 3.0, 3.0, 0.0, 0, None)),
}


@pytest.mark.parametrize(("times", "expected"), CLOCKS.values(), ids=CLOCKS.keys())
def test_the_clock(times: list[float | None], expected: tuple[object, ...]) -> None:
    clock = Clock()
    for time in times:
        clock.add(time)
    found = clock.timing()
    assert (
        found.timed_calls,
        found.first_seconds,
        found.last_seconds,
        found.span_seconds,
        found.backwards,
        found.calls_per_second,
    ) == expected


def test_samples_are_joined_to_the_higher_one() -> None:
    counter = RangeCounter(max_samples=4)
    numbers = [1, 2, 9, 4, 3, 3, 5, 1, 0, 0, 7]
    for call, ranges in enumerate(numbers, 1):
        counter.add(event(call, 0, 1, S), ranges)
    found = counter.history()
    # By two from the fifth call on: (1,2) (9,4) (3,3) (5,1), by four from the ninth: (1,2,9,4) (3,3,5,1) (0,0,7).
    assert found.calls_per_sample == 4
    assert [(sample.call, sample.ranges) for sample in found.samples] == [(3, 9), (7, 5), (11, 7)]
    assert (found.peak, found.final) == (9, 7)
    assert found.peak_at == found.samples[0]


def test_of_equal_samples_the_first_is_kept() -> None:
    counter = RangeCounter(max_samples=2)
    for call in range(1, 6):
        counter.add(event(call, 0, 1, S), 5)
    found = counter.history()
    # (1) (2), then (1,2) (3,4), then (1,2,3,4) (5)
    assert [(sample.call, sample.ranges) for sample in found.samples] == [(1, 5), (5, 5)]


def naive_flips(calls: list[tuple[int, int, PageState]]) -> dict[int, int]:
    state: dict[int, PageState] = {}
    flips: dict[int, int] = {}
    for page, pages, to in calls:
        for each in range(page, page + pages):
            if state.get(each, P) is not to:
                state[each] = to
                flips[each] = flips.get(each, 0) + 1
    return flips


@pytest.mark.parametrize("seed", range(5))
def test_flips_equal_a_count_page_by_page(seed: int) -> None:
    rng = random.Random(seed)
    calls = [(rng.randrange(40), rng.randrange(1, 12), rng.choice([P, S, R])) for _ in range(200)]
    wanted = naive_flips(calls)
    found = replay(event(line, *call) for line, call in enumerate(calls, 1)).flips
    assert (found.one_in, found.sampled_from) == (1, None)
    assert {page: changes_of(found, page << 12) for page in range(60)} == {
        page: wanted.get(page, 0) for page in range(60)
    }
    assert found.page_changes == sum(wanted.values())
    assert found.changed_pages == len(wanted)
    assert found.flip_flop_pages == sum(count > 1 for count in wanted.values())


def change(start: int, end: int, to: PageState) -> Change[PageState]:
    return Change(start, end, S if to is P else P, to)


def place(line: int) -> Place:
    return Place(source="t", line=line)


def test_up_to_the_bound_every_page_is_counted() -> None:
    counter = FlipCounter(exact_runs=4)
    for line, (page, to) in enumerate([(0, S), (2, S), (4, S), (6, S), (0, P), (2, P), (0, S)], 1):
        counter.add([change(page, page + 1, to)], 0.0, event(line, 0, 1, S))
    flips = counter.summary(10)
    assert (flips.one_in, flips.exact_runs, flips.sampled_from) == (1, 4, None)
    assert [(run.gpa >> 12, run.changes) for run in flips.runs] == [(0, 3), (2, 2), (4, 1), (6, 1)]


@pytest.mark.parametrize("seed", range(3))
def test_beyond_the_bound_a_sample_is_counted_and_says_so(seed: int) -> None:
    """1000 pages that lie apart, each with 1 to 4 changes at random, in room for 100."""
    rng = random.Random(seed)
    pages = rng.sample(range(0, 1 << 20, 2), 1000)
    wanted = {page: rng.randrange(1, 5) for page in pages}
    counter = FlipCounter(exact_runs=100)
    calls = [page for page in pages for _ in range(wanted[page])]
    rng.shuffle(calls)
    state: dict[int, PageState] = {}
    for line, page in enumerate(calls, 1):
        state[page] = P if state.get(page) is S else S
        counter.add([change(page, page + 1, state[page])], 0.0, event(line, 0, 1, S))
    flips = counter.summary(10)
    assert flips.page_changes == len(calls)
    assert flips.one_in in (16, 32, 64)  # 1000 pages in room for 100, 50 at least
    assert flips.sampled_from is not None
    # What is in the sample is counted from its first change on.
    assert flips.runs
    assert all(run.pages % flips.one_in == 0 for run in flips.runs)
    assert all(run.changes == wanted[run.gpa >> 12] for run in flips.runs)
    # 30 pages or more are followed: the estimate is off by a third at the most, with some luck.
    assert abs(flips.changed_pages - 1000) < 500


def test_a_sample_of_a_large_range_is_as_large_as_its_part() -> None:
    counter = FlipCounter(exact_runs=8)
    counter.add([change(0, 1 << 40, S)], 0.0, event(1, 0, 1, S))
    for line in range(2, 12):
        counter.add([change(2 * line, 2 * line + 1, P)], 0.0, event(line, 0, 1, S))
    flips = counter.summary(1)
    assert flips.one_in > 1
    assert flips.changed_pages == 1 << 40  # a power of two, and the interval is aligned to itself


def test_the_sample_is_without_favour() -> None:
    """Of the even pages it takes about half of its pages, of every other pattern its part."""
    counter = FlipCounter(exact_runs=4096)
    for page in range(0, 1 << 15, 2):
        counter.add([change(page, page + 1, S)], 0.0, event(1, 0, 1, S))
    flips = counter.summary(1)
    assert flips.one_in > 1
    assert abs(flips.changed_pages - (1 << 14)) < (1 << 14) * 0.1


def test_flips_of_calls_that_cost_too_much_thin_the_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hvabi.traces.analysis.flips.WORK_AT_ONCE", 3)
    monkeypatch.setattr("hvabi.traces.analysis.flips.WORK_PER_CALL", 3)
    counter = FlipCounter()
    for line, page in enumerate((0, 2, 4), 1):
        counter.add([change(page, page + 1, S)], 0.0, event(line, 0, 1, S))
    # [0, 6) is six runs from here on: 1 0 1 0 1 0 changes. The first call over all may cost 6: 3 + 3.
    counter.add([change(0, 6, S)], 0.0, event(4, 0, 1, S))
    assert counter.summary(1).one_in == 1
    counter.add([change(0, 6, P)], 0.0, event(5, 0, 1, S))
    found = counter.summary(1)
    assert (found.one_in, found.sampled_from) == (2, place(5))
    assert found.page_changes == 3 * 1 + 2 * 6


def storm(calls: int) -> Iterator[TraceEvent]:
    """Every other page shared, then all memory flipped again and again: the dearest calls that there are."""
    for line in range(1, calls + 1):
        yield event(line, 2 * line, 1, S)
    for line in range(calls + 1, 2 * calls + 1):
        yield event(line, 0, 2**40, P if line % 2 else S)


def test_a_hostile_trace_takes_bounded_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the bound, 2000 flips of all memory over 4000 runs would update 8 million runs."""
    monkeypatch.setattr("hvabi.traces.analysis.flips.WORK_AT_ONCE", 1000)
    updates = 0
    real = FlipCounter._update

    def counted(self: FlipCounter, *rest: object) -> None:
        nonlocal updates
        updates += 1
        real(self, *rest)  # type: ignore[arg-type]  # passed on as it came

    monkeypatch.setattr(FlipCounter, "_update", counted)
    found = replay(storm(2000))
    assert found.flips.one_in > 1
    # 64 for each of 4000 calls, and 1000 and one call over all for each time that the sample becomes half as large.
    assert updates < 64 * 4000 + 5 * (1000 + 4001)
    assert found.flips.page_changes > 2000 * 2**39


# Files


def test_several_files_are_one_log(tmp_path: Path) -> None:
    first, second = tmp_path / "a.log", tmp_path / "b.log"
    first.write_text("[ 1.0] " + LINE.format(0x1000, 1, 0))
    second.write_text("hello\n[ 2.0] " + LINE.format(0x1000, 1, 0) + "[ 3.0] " + LINE.format(0x1000, 1, 1))
    seen: list[tuple[str, int]] = []
    found = replay_sources([first, str(second)], progress=lambda name, done: seen.append((name, done)))
    assert (found.calls, found.no_op_calls, found.final) == (3, 1, ())
    assert found.no_ops[0].place == Place(source=str(second), line=2)
    assert [(read.source, read.event_count) for read in found.reads] == [(str(first), 1), (str(second), 2)]
    assert found.timing.span_seconds == 2.0
    assert seen == [(str(first), first.stat().st_size), (str(second), second.stat().st_size)]


def test_a_file_without_calls_beside_one_with_calls_is_no_error(tmp_path: Path) -> None:
    empty, log = tmp_path / "empty", tmp_path / "log"
    empty.touch()
    log.write_text(LINE.format(0x1000, 1, 0))
    assert [read.event_count for read in replay_sources([empty, log]).reads] == [0, 1]


NOTHING = {
    "empty": (b"", "empty-trace", "t: nothing to read", "empty"),
    "no-known-line": (b"hello\nworld\n", "no-events", "no call found in 2 lines", "page-enc-status"),
    "one-line": (b"hello", "no-events", "no call found in 1 line ", "page-enc-status"),
    "only-malformed": (
        b"hello\npage_enc_status_hc invoked\n",
        "no-events",
        "1 could not be read, first in line 2: expected",
        "page-enc-status",
    ),
    "base64": (
        b"Content-Transfer-Encoding: base64\n\naGVsbG8=\n",
        "no-events",
        "no call found",
        "save the decoded text",
    ),
    "binary": (bytes(5000), "binary-trace", "binary data", "as text"),
}


@pytest.mark.parametrize(("data", "code", "message", "hint"), NOTHING.values(), ids=NOTHING.keys())
def test_a_trace_that_shows_nothing(data: bytes, code: str, message: str, hint: str) -> None:
    with pytest.raises(TraceError) as caught:
        replay_sources([("t", io.BytesIO(data))])
    assert caught.value.code == code
    assert message in str(caught.value)
    assert caught.value.hint is not None
    assert hint in caught.value.hint


def test_mistakes_with_sources(tmp_path: Path) -> None:
    with pytest.raises(TraceError) as no_source:
        replay_sources([])
    assert no_source.value.code == "empty-trace"
    with pytest.raises(TraceError) as missing:
        replay_sources([tmp_path / "none"])
    assert missing.value.code == "unreadable-trace"
    with pytest.raises(UsageError) as unknown:
        replay_sources([("t", io.BytesIO(b""))], formats=["nothing"])
    assert unknown.value.code == "unknown-format"


def test_json_is_json_and_complete() -> None:
    text = "[ 1.5] " + LINE.format(0x1000, "10", 0) + "> ....\n" + LINE.format(0x1001, 0, 2) + LINE.format(0, "x", 1)
    found = replay_sources([("t", io.BytesIO(text.encode()))], memory_bytes=1 << 20)
    document = json.loads(json.dumps(found.to_json()))
    assert (document["format"], document["version"], document["read_as"]) == ("hvabi-trace-summary", 2, [])
    assert document["final"] == [{"gpa": "0x1000", "end": "0xb000", "state": "shared"}]
    assert document["no_ops"] == [{"place": {"source": "t", "line": 3}, "gpa": "0x1000", "pages": 0, "to": "private"}]
    assert document["ranges"]["peak_at"] == {
        "call": 1,
        "place": {"source": "t", "line": 1},
        "time_seconds": 1.5,
        "ranges": 1,
    }
    assert document["footprint"] == {
        "guest_bytes": 1 << 20,
        "guest_bytes_from": "stated",
        "highest_end": "0xb000",
        "bitmap_bytes": 32,
        "bytes_per_range": 24,
        "peak_bytes": 24,
        "final_bytes": 24,
        "rb_tree": {"peak_bytes": 64, "final_bytes": 64},
        # Pages 1 to 10 lie in one node; of 256 private pages but these, the first 64 lie in one, the rest in three
        # more, and one node is above the four.
        "xarray_shared": {"peak_bytes": 576, "final_bytes": 576},
        "xarray_private": {"peak_bytes": 5 * 576, "final_bytes": 5 * 576},
        "xarray_ranges": 1,
    }
    assert [each["rule"] for each in document["broken_rules"]] == ["KVM-PAGEENC-20", "KVM-PAGEENC-21", "KVM-PAGEENC-22"]
    (read,) = document["reads"]
    assert (read["malformed"], read["first_malformed"][0]["line"], read["elisions"]) == (1, 4, 1)
    assert read["events"] == {"page-enc-status": 2}
    assert document["ambiguity"]["readings"] == [
        {
            "field": "npages",
            "text": "10",
            "chosen": "decimal",
            "by": "hex",
            "pages": 10,
            "to": "shared",
            "other_pages": 16,
            "other_to": "shared",
            "calls": 1,
        }
    ]
