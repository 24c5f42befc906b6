"""The analyses against counting page by page, and against numbers worked out by hand."""

from __future__ import annotations

import gzip
import io
import random
from pathlib import Path
from typing import Any

import pytest

from hvabi.backend import Change, PageState, Status
from hvabi.traces import Sighting, Trace, TraceEvent, TraceSummary, replay, replay_sources
from hvabi.traces.analysis.footprint import complement, xarray_nodes
from hvabi.traces.analysis.pool import HOLDS, SIZES, Pool
from hvabi.traces.analysis.timeline import MAX_COLUMNS, MAX_ROWS, Timeline
from hvabi.traces.scan import starts
from hvabi.traces.synthetic import CORPORA, lines
from hvabi.traces.text import is_blank, is_elision
from tests.traces.test_formats import CASES

P, S = PageState.PRIVATE, PageState.SHARED
ROOT = Path(__file__).parent.parent.parent
SEED = ROOT / "tests" / "data" / "traces" / "page_enc_status_hc.log"


def call(line: int, page: int, pages: int, to: PageState, time: float | None = None, **extra: Any) -> TraceEvent:
    event = TraceEvent("t", line, time, "an-abi", page << 12, pages, to, True, clock="boot")
    return event._replace(**extra)


# The pool: by hand for the seed, by brute force for random calls


def cell(found: TraceSummary, pages: int | None, hold: float | None) -> tuple[int, int]:
    return next(
        (each.at_least, each.at_most) for each in found.pool.cells if (each.pages, each.hold_seconds) == (pages, hold)
    )


def test_the_pool_of_the_seed() -> None:
    """Any pages: blocks 3 to 5 take the two pages of the block before (4 calls each).

    21 takes two that do not do for it but spares the two calls that freed them, 24 takes one of the 100 of call 23
    and 25 the other 99. The same pages: 25 after 23.
    """
    found = replay_sources([SEED])
    assert found.pool.calls == 23
    assert cell(found, None, None) == (2, 12 + 2 + 1 + 1)
    # Of one page: the page freed last, in blocks 3, 4, 5 and at 21, and one of the 100.
    assert cell(found, 1, None) == (0, 3 * 2 + 1 + 1)
    # Between call 23 and 25 lie 262 microseconds.
    assert cell(found, 256, 1e-3) == (2, 2)
    assert [(each.gpa, each.pages, each.saved_calls) for each in found.pool.keeps] == [(0x1D767000, 100, 2)]


def brute_any(calls: list[tuple[float, int, bool]], size: float, hold: float) -> int:
    """Play one pool of pages, newest on top; count the calls to shared that it serves and those to private undone."""
    pool: list[tuple[float, int]] = []  # time, which call freed it
    freed: dict[int, int] = {}
    saved = 0
    for number, (now, pages, to_private) in enumerate(calls):
        pool = [item for item in pool if now - item[0] <= hold]
        if to_private:
            pool += [(now, number)] * pages
            freed[number] = pages
            pool = pool[max(0, len(pool) - int(min(size, 1e9))) :]
            continue
        taken = [pool.pop() for _ in range(min(pages, len(pool)))]
        saved += len(taken) == pages
        for _, of in taken:
            freed[of] -= 1
            saved += freed[of] == 0
    return saved


def brute_same(calls: list[tuple[float, int, int, bool]], size: float, hold: float) -> int:
    pool: list[tuple[float, int, int]] = []
    saved = 0
    for now, start, pages, to_private in calls:
        pool = [item for item in pool if now - item[0] <= hold]
        if to_private:
            pool.append((now, start, pages))
            continue
        for index, (_, first, count) in enumerate(pool):
            if (first, count) == (start, pages):
                if sum(item[2] for item in pool[index:]) <= size:
                    saved += 2
                del pool[index]
                break
    return saved


@pytest.mark.parametrize("seed", range(4))
def test_the_pool_against_playing_each_one(seed: int) -> None:
    rng = random.Random(seed)
    pool, now = Pool(), 0.0
    any_calls: list[tuple[float, int, bool]] = []
    same_calls: list[tuple[float, int, int, bool]] = []
    shared: list[tuple[int, int]] = []
    for _ in range(300):
        now += rng.choice([1e-4, 2e-3, 0.03, 0.4])
        if shared and rng.random() < 0.5:
            start, pages = shared.pop(rng.randrange(len(shared)))
            pool.unshare(start, pages, now)
            to_private = True
        else:
            start = rng.choice([x for x in range(0, 4000, 100) if all(x != s for s, _ in shared)])
            pages = 1 + start // 100 % 7
            shared.append((start, pages))
            pool.share(start, pages, now)
            to_private = False
        any_calls.append((now, pages, to_private))
        same_calls.append((now, start, pages, to_private))
    for found in pool.summary(3).cells:
        size = float("inf") if found.pages is None else found.pages
        hold = float("inf") if found.hold_seconds is None else found.hold_seconds
        assert found.at_most == brute_any(any_calls, size, hold), (size, hold)
        assert found.at_least == brute_same(same_calls, size, hold), (size, hold)
    assert len(pool.summary(3).cells) == (len(SIZES) + 1) * (len(HOLDS) + 1)


# XArrays


def brute_nodes(pages: set[int]) -> int:
    nodes, level = 0, {page >> 6 for page in pages}
    while level:
        nodes += len(level)
        if level == {0}:
            break
        level = {index >> 6 for index in level}
    return nodes


@pytest.mark.parametrize("seed", range(5))
def test_xarray_nodes_equal_a_count(seed: int) -> None:
    rng = random.Random(seed)
    cuts = sorted(rng.sample(range(20_000), 40))
    ranges = list(zip(cuts[::2], cuts[1::2], strict=True))
    pages = {page for start, end in ranges for page in range(start, end)}
    assert xarray_nodes(ranges) == brute_nodes(pages)
    others = complement(ranges, 19_000)
    assert xarray_nodes(others) == brute_nodes(set(range(19_000)) - pages)


# Sizes, neighbours, repeats, bursts


def test_the_shape_of_calls() -> None:
    times = [0.0, 0.0001, 0.0002, 0.5, 0.5004, 3.0, 3.2]
    calls = [(0, 2, S), (2, 2, S), (4, 2, S), (9, 1, S), (9, 1, S), (9, 1, P), (8, 1, P)]
    found = replay(call(n, *each, time=when) for n, (each, when) in enumerate(zip(calls, times, strict=True), 1)).shape
    assert {item.pages: item.calls for item in found.sizes} == {1: 4, 2: 3}
    # 2 and 3 go on upwards, 7 downwards.
    assert (found.joinable_calls, found.longest_chain) == (3, 3)
    assert (found.repeated_calls, found.longest_repeat) == (1, 1)
    assert found.first_repeat is not None
    assert found.first_repeat.place.line == 5
    assert (found.bursts, found.longest_burst_calls, found.longest_burst_seconds) == (2, 3, 0.0002)
    rates = {rate.window_seconds: (rate.most_calls, rate.at_seconds) for rate in found.highest_rates}
    assert rates[1.0] == (5, 0.0)
    assert rates[0.001] == (3, 0.0)


def test_bursts_and_periods_of_the_seed() -> None:
    found = replay_sources([SEED])
    assert (found.shape.bursts, found.shape.longest_burst_calls, found.shape.longest_burst_seconds) == (6, 6, 0.001172)
    # 100 pages: shared at .459276, private at .460037, shared at .460299: two changes take .001023.
    top = found.flips.top[0]
    assert (top.pages, top.period_seconds) == (100, 0.001023)
    # Shared for 38, 41, 26 and 28 us, 28 and 31, 42 and 32 us (eight pages); 100 pages 761 us, 1e501 232 us.
    assert [(each.up_to_seconds, each.pages) for each in found.flips.shared_for] == [(1e-4, 8), (1e-3, 101)]
    assert [(each.up_to_seconds, each.pages) for each in found.flips.private_for] == [(1e-3, 100)]


# Ends


def test_what_failed_changes_nothing_but_what_was_done_before() -> None:
    found = replay(
        [
            call(1, 0, 8, S, attempt=False),
            call(2, 100, 8, S, attempt=False, outcome=Status.FAILED),
            call(3, 200, 8, S, attempt=False, outcome=Status.PARTIAL, done_pages=3),
            call(4, 300, 8, S),
        ]
    )
    assert (found.calls, found.done_calls, found.failed_calls, found.attempts) == (4, 1, 2, 1)
    assert [(each.gpa >> 12, each.end >> 12) for each in found.final] == [(0, 8), (200, 203), (300, 308)]


def test_a_lower_layer_is_an_echo_and_counts_once() -> None:
    found = replay(
        [
            call(1, 0, 1024, S, format="edk2-tdx"),
            call(2, 0, 512, S, format="qemu-hypercall"),
            call(3, 512, 512, S, format="qemu-hypercall"),
            call(4, 0, 512, S, format="qemu-hypercall"),
            call(5, 0, 1024, S, format="edk2-tdx"),
        ]
    )
    # The last call comes from the top again: without effect, and no echo.
    assert (found.calls, found.echoes, found.no_op_calls) == (2, 3, 1)


def test_a_call_with_an_effect_is_never_an_echo() -> None:
    found = replay(
        [
            call(1, 0, 8, S, format="kvm_hypercall"),
            call(2, 0, 1, P, format="qemu-hypercall"),
            call(3, 0, 1, S, format="qemu-hypercall"),
        ]
    )
    assert (found.calls, found.echoes, found.final_pages) == (3, 0, 8)


def test_a_storm_of_retries() -> None:
    found = replay(
        [
            call(1, 0, 64, S, retries=40, stalls=0),
            call(2, 0, 64, P, retries=4, stalls=3, abi="tdx-map-gpa"),
            call(3, 0, 1, S, retries=2),
        ]
    ).retries
    assert (found.calls, found.answers, found.stalled_calls, found.storms) == (3, 46, 1, 2)
    # The specification of MapGPA lets a guest accept two answers without progress in a row.
    assert [(each.call.place.line, each.allowed_stalls) for each in found.worst] == [(2, 2), (1, None)]


# Columns and the memory map


def test_columns_join_and_lose_nothing() -> None:
    rng, timeline = random.Random(1), Timeline()
    now, shared, most = 0.0, set[int](), 0
    for _ in range(3000):
        now += rng.random() * 0.01
        page = rng.randrange(2000)
        to = P if page in shared else S
        shared ^= {page}
        most = max(most, len(shared))
        timeline.add(now, to, [Change(page, page + 1, S if to is P else P, to)], len(shared), timed=True)
    found = timeline.summary()
    assert found.columns[-1].index < MAX_COLUMNS
    assert sum(column.shares + column.unshares for column in found.columns) == 3000
    assert (
        max(column.most_ranges for column in found.columns) == max(c.most_shared_pages for c in found.columns) == most
    )
    assert found.columns[-1].shared_pages == len(shared)
    assert found.map is not None
    assert len(found.map.blocks) <= MAX_ROWS
    assert sum(each.calls for each in found.map.cells) == 3000
    last = {each.block: each.shared_pages for each in found.map.cells}
    for row, address in enumerate(found.map.blocks):
        first = address >> 12
        assert last[row] == len(shared & set(range(first, first + found.map.block_pages)))


def test_a_map_of_the_whole_address_space_is_small() -> None:
    found = replay([call(1, 0, 2**52 - 1, S, 0.0), *(call(n, 2 * n, 1, P, n / 10) for n in range(2, 300))]).timeline
    assert found.map is not None
    assert len(found.map.blocks) <= MAX_ROWS


# The quick way through a block is the same as the slow one


def test_lines_are_counted_as_one_by_one() -> None:
    rng = random.Random(3)
    words = [
        b"",
        b" ",
        b">",
        b"> >",
        b"....",
        b"> ....",
        b"<snip>",
        b" [...] ",
        b"-- snip --",
        b"a",
        b"[ 1.0] b",
        b"...x",
        b"snippet",
        b"\t",
    ]
    words += [
        b"  <...>-1 [000] x",
        "\u2026".encode(),
        b"From a b 2020",
        b"Content-Transfer-Encoding: x",
        b"*snip*",
        b"\r",
        b"( ... )",
    ]
    for _ in range(300):
        chosen = [rng.choice(words) for _ in range(rng.randrange(1, 12))]
        found = starts(b"\n" + b"\n".join(chosen) + b"\n")
        assert found.blank == sum(map(is_blank, chosen)), chosen
        assert len(found.elisions) == sum(map(is_elision, chosen)), chosen


@pytest.mark.parametrize("seed", range(3))
def test_the_quick_way_finds_what_the_slow_way_finds(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(seed)
    parts = [case.text for case in CASES.values()] + ["hello", "", "....", "> quoted", "  x = 1"]
    text = "\n".join(rng.choice(parts) for _ in range(400)) + "\n"

    def found() -> tuple[list[TraceEvent | Sighting], dict[str, object]]:
        trace = Trace(io.BytesIO(text.encode()), name="t")
        records = list(trace)
        report = trace.report()
        return records, {
            name: getattr(report, name)
            for name in ("lines", "malformed", "elisions", "blank_lines", "unrecognised_lines", "seen")
        }

    quick = found()
    monkeypatch.setattr("hvabi.traces.reader.has_long_line", lambda _: True)
    assert found() == quick


# Synthetic corpora


@pytest.mark.parametrize("name", CORPORA)
def test_the_corpora_are_what_their_generator_makes(name: str) -> None:
    packed = ROOT / "examples" / "traces" / f"synthetic-{name}.log.gz"
    text = gzip.decompress(packed.read_bytes()).decode()
    assert text == "".join(line + "\n" for line in lines(name))
    assert text.startswith("# SYNTHETIC")


def test_the_corpora_have_the_published_numbers() -> None:
    found = {name: replay_sources([ROOT / "examples" / "traces" / f"synthetic-{name}.log.gz"]) for name in CORPORA}
    assert found["sev-boot-19479"].calls == 19_479
    tdvf = found["tdvf-boot-5000"]
    assert tdvf.calls == 5_000
    assert sum(item.calls for item in tdvf.shape.sizes if item.pages < 8) > 2_500
    swiotlb = found["swiotlb-60-ranges"]
    assert (swiotlb.ranges.final, swiotlb.echoes) == (60, 0)
    # 6 % of 16 GiB, in whole pieces of 2 MiB
    assert max(item.end - item.gpa for item in swiotlb.final) == 491 * (2 << 20)
