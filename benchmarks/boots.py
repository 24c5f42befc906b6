"""Boot logs replayed from text, against plain construct that parses the same calls out of ready bytes."""

from __future__ import annotations

import io
import re
import struct
import tracemalloc
from pathlib import Path

import construct

from benchmarks.measure import OURS, Effort, Goal, Report, compare
from hvabi.traces import replay_sources
from hvabi.traces.synthetic import lines

SEED = Path(__file__).parent.parent / "tests" / "data" / "traces" / "lkml-sev-hypercall3.txt"
CALL = re.compile(rb"gpa = ([0-9a-f]+), npages\s+= (\d+), enc = (\d)")
PARSE = "construct, parse of its messages"
BARE = "regular expression over the lines, nothing else"


def messages(data: bytes) -> list[bytes]:
    """Return the registers of each call: number, address, pages, direction."""
    found = filter(None, map(CALL.search, data.splitlines()))
    return [struct.pack("<4Q", 12, int(each[1], 16), int(each[2]), int(each[3])) for each in found]


def request() -> construct.Construct:
    """Return the message as plain construct has it: the direction is one bit with a name."""
    return construct.Struct(
        "nr" / construct.Int64ul,
        "gpa" / construct.Int64ul,
        "npages" / construct.Int64ul,
        "enc" / construct.Enum(construct.Int64ul, SHARED=0, PRIVATE=1),
    )


def run(report: Report, effort: Effort) -> None:
    boot = "".join(f"{line}\n" for line in lines("sev-boot-19479")).encode()
    assert len(messages(boot)) == 19_479
    workload = "boot of 19,479 calls, replayed from text"
    measure(report, effort, workload, boot)
    report.goals.append(
        Goal(
            text="the boot of 19,479 calls from text: against a construct parse of its messages",
            measured=report.ratio(workload, OURS, PARSE),
            limit=0.5,
            note="a replay reads text, tracks states, flips, pools, rates and retries; the parse reads four integers",
        )
    )
    if SEED.is_file():
        times = 10 if effort.quick else 100
        measure(report, effort, f"the seed's log, {times} times", SEED.read_bytes() * times)


def measure(report: Report, effort: Effort, workload: str, data: bytes) -> None:
    plain, raw = request(), messages(data)
    text = data.splitlines()

    def ours() -> None:
        replay_sources([("boot", io.BytesIO(data))])

    def parse() -> None:
        for each in raw:
            plain.parse(each)

    def bare() -> None:
        for line in text:
            CALL.search(line)

    compare(report, workload, {OURS: ours, PARSE: parse, BARE: bare}, effort, units=len(raw), unit="call")
    tracemalloc.start()
    ours()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    report.notes.append(
        f"memory: {workload}: at most {peak / 2**20:.1f} MiB at once, {len(data) / 2**20:.1f} MiB of text"
    )
