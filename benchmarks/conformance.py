"""How fast the kit runs cases: in process, and over pipes against echoing the same lines through the same pipes.

    python benchmarks/conformance.py [RUNS]

Prints medians of several runs and the ratios. In process the bundled adapters are given objects; over lines, in process
too, is what the pipe is compared with. The pipe's own cost is measured with a process that sends back, for every line
it gets, the line that the bundled implementation answered then.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hvabi.conformance.catalogue import every_case
from hvabi.conformance.connect import SimpleConnector
from hvabi.conformance.frame import PREFIX
from hvabi.conformance.inprocess import DirectConnection
from hvabi.conformance.iut import Session
from hvabi.conformance.run import run_cases

ECHO = """
import sys
answers = open(sys.argv[1], "rb").read().splitlines(keepends=True)
for line, answer in zip(sys.stdin.buffer, answers):
    sys.stdout.buffer.write(answer)
    sys.stdout.buffer.flush()
"""


def timed(connector: str | SimpleConnector, transcript: Path | None = None) -> float:
    """Return the seconds that all cases take."""
    begun = time.perf_counter()
    run = run_cases(CASES, connector, profile="spec", transcript=transcript)
    assert run.good, run.problems
    return time.perf_counter() - begun


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


CASES = list(every_case())


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "transcript.ndjson"
        over_lines = SimpleConnector("lines", lambda: DirectConnection(Session().handle, "lines"))
        timed("builtin", log)  # warm, and the lines
        sent, answered = exchanged(log)
        answers = Path(folder) / "answers"
        answers.write_bytes(b"".join(answered))
        inside = statistics.median(timed("builtin") for _ in range(runs))
        lines = statistics.median(timed(over_lines) for _ in range(runs))
        piped = statistics.median(timed(f"cmd:{sys.executable} -m hvabi.cli.main iut") for _ in range(runs))
        bare = statistics.median(echo(sent, answers) for _ in range(runs))
    print(f"{len(CASES)} cases, {len(sent)} lines each way, medians of {runs} runs")
    print(f"in process           {inside:7.3f} s  {len(CASES) / inside:8.0f} cases/s")
    print(f"in process, lines    {lines:7.3f} s  {len(CASES) / lines:8.0f} cases/s")
    print(f"echo through pipes   {bare:7.3f} s")
    print(f"bundled over stdio   {piped:7.3f} s  {piped / (bare + lines):8.2f} x (echo + in process, lines)")


if __name__ == "__main__":
    main()
