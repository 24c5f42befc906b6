"""The quick ways through a log against the slow ones: the same report, whatever the log and however it comes."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest

from hvabi.traces import replay_sources
from hvabi.traces.analysis.shape import WINDOWS, Shape
from hvabi.traces.clocks import printk_time, stamp_time
from hvabi.traces.errors import TraceError
from hvabi.traces.reader import Trace
from hvabi.traces.readers.page_enc_status import PageEncStatusReader
from hvabi.traces.replay import Replay
from hvabi.traces.synthetic import lines

if TYPE_CHECKING:
    from hvabi.traces.event import Sighting, TraceEvent
    from hvabi.traces.readers.base import LineReader
    from hvabi.traces.summary import TraceSummary

SAMPLES = sorted((Path(__file__).parent.parent / "data" / "traces").glob("*.*"))
OTHERS = [line for path in SAMPLES for line in path.read_bytes().splitlines() if b"page_enc" not in line]
HOLDING = [number for number, line in enumerate(OTHERS) if b"Cr3Base" in line or b"memory fault: GPA" in line]
BOOT = "".join(f"{line}\n" for line in lines("sev-boot-19479")).encode()


class Pieces(io.BytesIO):
    """A stream that gives at most so many bytes at once: as many blocks, of which each sees what the last ones had."""

    def __init__(self, data: bytes, size: int) -> None:
        super().__init__(data)
        self.size = size

    def read1(self, size: int | None = -1) -> bytes:
        return self.read(self.size)


def damaged(data: bytes, rng: Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((0, 1, 30, 300))):
        at = rng.randrange(len(out))
        match rng.randrange(6):
            case 0:
                out[at] = rng.randrange(256)
            case 1:
                del out[at : at + rng.randrange(1, 60)]
            case 2:
                out[at:at] = out[at : at + rng.randrange(200)]
            case 3:
                out[at:at] = rng.choice((b"\n", b"\r\n", b"> ", b"\n...\n", b"\n\n", b"] ", b"\xff"))
            case 4:
                out[at:at] = b"\n[    9.999999] page_enc_status_hc invoked, gpa = 1f018000, npages  = 100, enc = 1\n"
            case _:  # another program's, which may hold a call back
                first = rng.choice((rng.randrange(len(OTHERS)), *HOLDING))
                out[at:at] = b"\n%b\n" % b"\n".join(OTHERS[first : first + rng.randrange(1, 4)])
    return bytes(out)


def kept(events: list[TraceEvent | Sighting]) -> TraceSummary:
    run = Replay()
    for event in events:
        run.feed(event)
    return run.summary()


@pytest.mark.parametrize("name", ["boot", *(path.name for path in SAMPLES)])
def test_the_same_report(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = BOOT[:300_000] if name == "boot" else next(path for path in SAMPLES if path.name == name).read_bytes()
    rng = Random(name)
    quick = 0
    for turn in range(12):
        text = damaged(data if name == "boot" else data * 8, rng) if turn else data
        size = rng.choice((1 << 10, 1 << 13, 1 << 16))
        with monkeypatch.context() as patch:  # no line is known from before
            patch.setattr(PageEncStatusReader, "known", lambda *_: None)
            patch.setattr(PageEncStatusReader, "read", forgetting(PageEncStatusReader.read))
            trace = Trace(Pieces(text, size), name="log")
            events = list(trace)
            wanted = trace.report()
        trace = Trace(Pieces(text, size), name="log")
        found: list[TraceEvent | Sighting] = []
        for piece in trace.pieces():
            quick += trace._repeats is not None
            found += piece
        assert found == events
        assert trace.report() == wanted
        try:
            at_once = replay_sources([("log", Pieces(text, size))])
        except TraceError:
            assert not any(events)
            continue
        assert replace(at_once, reads=()) == kept(events)
    assert quick or name != "boot"


def forgetting(read: object) -> object:
    def forgets(self: PageEncStatusReader, line: object) -> object:
        self._known.clear()
        return read(self, line)  # type: ignore[operator]  # the method

    return forgets


@pytest.mark.parametrize(
    "stamp",
    ["[   56.146336", "[    0.000000", "[99999.999999", "[123456789012.146336", "[56.1463", "56.146336", "[  a.146336",
     "[ 1_6.146336", "[ -1.146336", "[  5 .146336", "[<6>56.146336", "[", "", "[1e5.146336",
     "[   56.146336][   57.146336", "[\xb2.146336", "[    56,146336"],
)  # fmt: skip
def test_the_time_of_a_stamp(stamp: str) -> None:
    found = stamp_time(stamp.encode())
    assert found is None or found == printk_time(f"{stamp}] ")
    assert stamp_time(b"[   56.146336") == 56.146336


def test_rates_of_windows() -> None:
    """Counted anew from all times, window by window, also where a time lies on the edge of one."""
    rng = Random(3)
    times, now = [], 0.0
    for _ in range(4000):
        now += rng.choice((0.0, 1e-6, 1e-4, 1e-3, 1e-3, 0.01, 0.1, 1.0)) * rng.choice((0, 1, 1, 3))
        times.append(now)
    shape = Shape()
    for time in times:
        shape._times(time)
    for index, rate in enumerate(shape.summary().highest_rates):
        counts: dict[int, int] = {}
        for time in times:
            number = int(time / WINDOWS[index])
            counts[number] = counts.get(number, 0) + 1
        assert rate.most_calls == max(counts.values())
        first = next(number for number, count in counts.items() if count == rate.most_calls)
        assert rate.at_seconds == round(first * WINDOWS[index], 9)


def test_a_boot_takes_the_quick_way(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    again = Trace._again

    def noted(self: Trace, block: bytes, reader: LineReader) -> object:
        taken.append(block.count(b"\n"))
        return again(self, block, reader)

    monkeypatch.setattr(Trace, "_again", noted)
    assert replay_sources([("boot", io.BytesIO(BOOT))]).calls == 19_479
    assert sum(taken) > 15_000
