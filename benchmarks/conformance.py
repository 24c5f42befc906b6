"""How fast the kit runs cases: in process, and over pipes against echoing the same lines through the same pipes.

    python benchmarks/conformance.py [--abi ABI]... [--role host|guest] [--runs N] [--inside]

Prints medians of several runs and the ratios, as wall time and as the time of this process; on a machine that does
other things too, only the second says how fast the kit is. In process the bundled adapters are given objects; over
lines, in process too, is what the pipe is compared with. The pipe's own cost is measured with a process that sends
back, for every line it gets, the line that the bundled implementation answered then. With --inside only the first is
measured, for each ABI and role by itself too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hvabi.conformance.catalogue import every_case
from hvabi.conformance.connect import SimpleConnector
from hvabi.conformance.frame import PREFIX
from hvabi.conformance.inprocess import DirectConnection
from hvabi.conformance.iut import Session
from hvabi.conformance.run import run_cases

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hvabi.conformance.case import Case

ECHO = """
import sys
answers = open(sys.argv[1], "rb").read().splitlines(keepends=True)
for line, answer in zip(sys.stdin.buffer, answers):
    sys.stdout.buffer.write(answer)
    sys.stdout.buffer.flush()
"""


@dataclass(frozen=True, slots=True)
class Taken:
    """Seconds on the clock, and seconds that this process was at work."""

    wall: float
    cpu: float

    def rate(self, count: int) -> str:
        """Return the cases per second, by both."""
        return f"{count / self.wall:8.0f} cases/s, {count / self.cpu:8.0f} by CPU time"


def timed(cases: Sequence[Case], connector: str | SimpleConnector, transcript: Path | None = None) -> Taken:
    """Return the time that the cases take."""
    begun, at_work = time.perf_counter(), time.process_time()
    run = run_cases(cases, connector, profile="spec", transcript=transcript)
    taken = Taken(time.perf_counter() - begun, time.process_time() - at_work)
    assert run.good, run.problems
    return taken


def median(cases: Sequence[Case], connector: str | SimpleConnector, runs: int) -> Taken:
    """Return the medians of several runs."""
    found = [timed(cases, connector) for _ in range(runs)]
    return Taken(statistics.median(one.wall for one in found), statistics.median(one.cpu for one in found))


def exchanged(transcript: Path) -> tuple[list[bytes], list[bytes]]:
    """Return the lines that were sent and those that were answered, in order."""
    sent: list[bytes] = []
    answered: list[bytes] = []
    for row in map(json.loads, transcript.read_text(encoding="utf-8").splitlines()):
        line = row.get("line", "")
        if line.startswith(PREFIX):
            (sent if row.get("dir") in (">", "sent", "to") else answered).append(line.encode() + b"\n")
    return sent, answered


def echo(sent: list[bytes], answers: Path) -> float:
    """Return the seconds that the same lines take through the same pipes with nothing behind them."""
    begun = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-c", ECHO, str(answers)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as peer:
        assert peer.stdin is not None
        assert peer.stdout is not None
        for line in sent:
            peer.stdin.write(line)
            peer.stdin.flush()
            peer.stdout.readline()
        peer.stdin.close()
    return time.perf_counter() - begun


def inside(cases: Sequence[Case], runs: int) -> None:
    """Print how fast the cases of each ABI and role are in process, and all of them."""
    timed(cases, "builtin")  # warm
    groups: dict[tuple[str, str], list[Case]] = {}
    for case in cases:
        groups.setdefault((case.abi, case.role), []).append(case)
    for (abi, role), group in groups.items():
        print(f"{abi:26} {role:5} {len(group):6} cases  {median(group, 'builtin', runs).rate(len(group))}")
    print(f"{'in process':32} {len(cases):6} cases  {median(cases, 'builtin', runs).rate(len(cases))}")


def over_pipes(cases: Sequence[Case], runs: int) -> None:
    """Print how fast the cases are in process, over lines and over pipes, and the ratios."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "transcript.ndjson"
        over_lines = SimpleConnector("lines", lambda: DirectConnection(Session().handle, "lines"))
        timed(cases, "builtin", log)  # warm, and the lines
        sent, answered = exchanged(log)
        answers = Path(folder) / "answers"
        answers.write_bytes(b"".join(answered))
        direct = median(cases, "builtin", runs)
        lines = median(cases, over_lines, runs)
        piped = median(cases, f"cmd:{sys.executable} -m hvabi.cli.main iut", runs).wall
        bare = statistics.median(echo(sent, answers) for _ in range(runs))
    print(f"{len(cases)} cases, {len(sent)} lines each way, medians of {runs} runs")
    print(f"in process           {direct.wall:7.3f} s  {direct.rate(len(cases))}")
    print(f"in process, lines    {lines.wall:7.3f} s  {lines.rate(len(cases))}")
    print(f"echo through pipes   {bare:7.3f} s")
    print(f"bundled over stdio   {piped:7.3f} s  {piped / (bare + lines.wall):8.2f} x (echo + in process, lines)")


def main() -> None:
    """Measure what the options say."""
    parser = argparse.ArgumentParser(description="How fast the kit runs cases.")
    parser.add_argument("--abi", action="append", default=[], help="only this ABI; may be given again")
    parser.add_argument("--role", choices=("host", "guest"), help="only this role")
    parser.add_argument("--runs", type=int, default=5, help="runs of which the median is printed")
    parser.add_argument("--inside", action="store_true", help="in process only, each ABI and role by itself")
    options = parser.parse_args()
    begun, at_work = time.perf_counter(), time.process_time()
    cases = list(every_case(options.abi, role=options.role))
    made = Taken(time.perf_counter() - begun, time.process_time() - at_work)
    print(f"{len(cases)} cases made in {made.wall:.1f} s, {made.cpu:.1f} s of CPU time", flush=True)
    (inside if options.inside else over_pipes)(cases, options.runs)


if __name__ == "__main__":
    main()
