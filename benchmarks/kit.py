"""The kit itself: making cases, start-up of a command, and conformance over pipes."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import OURS, Effort, Goal, Report, Row, compare
from hvabi.abi.ready import renew
from hvabi.abi.registry import load
from hvabi.conformance.catalogue import every_case

DECODE = ["decode", "tdx-map-gpa", "r10=0", "r11=0x10001", "r12=0x800100001000", "r13=0x1000"]
UNNAMED = ["decode", "rax=12", "rbx=0x1f018000", "rcx=1", "rdx=1"]
OF_BYTES = ["decode", "ghcb-psc", "0000000000000000", "00e0001f00002000"]


def run(report: Report, effort: Effort) -> None:
    generation(report, effort)
    start_up(report, effort)
    if not effort.quick:
        conformance(report)


def generation(report: Report, effort: Effort) -> None:
    abis = ["tdx-map-gpa"] if effort.quick else ["tdx-map-gpa", "kvm-map-gpa-range", "pef-uv-share"]
    for abi in abis:
        load(abi)
        count = len(list(every_case([abi])))
        work = {OURS: lambda abi=abi: list(every_case([abi]))}
        compare(report, f"cases of {abi} generated, {count}", work, effort, units=count, unit="case")


def spent(command: list[str], environment: dict[str, str]) -> float:
    """Return the processor seconds of a process, of its user's side and of the system's."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def start_up(report: Report, effort: Effort) -> None:
    commands = {
        OURS: [sys.executable, "-m", "hvabi.cli.main", *DECODE],
        'python -c "import construct"': [sys.executable, "-c", "import construct"],
        "hvabi decode of registers, no ABI named": [sys.executable, "-m", "hvabi.cli.main", *UNNAMED],
        "hvabi decode of bytes, all ABIs tried": [sys.executable, "-m", "hvabi.cli.main", *OF_BYTES],
        "hvabi --help": [sys.executable, "-m", "hvabi.cli.main", "--help"],
        "python -c pass": [sys.executable, "-c", "pass"],
    }
    # As an installation has it: byte code of all modules is there, and the specifications are read beforehand.
    renew(write=True)
    found: dict[str, list[float]] = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": folder}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for command in commands.values():
            spent(command, environment)
        for _ in range(effort.rounds):
            for name, command in commands.items():
                found[name].append(spent(command, environment))
    times = {name: statistics.median(each) * 1e6 for name, each in found.items()}
    workload = "hvabi decode, a process from start to end"
    for name, took in times.items():
        ratio = took / times[OURS]
        report.rows.append(Row(workload=workload, unit="process", name=name, microseconds=took, ratio=ratio))
    report.goals.append(
        Goal(
            text='hvabi decode from start to end: against a bare "import construct"',
            measured=report.ratio(workload, OURS, 'python -c "import construct"'),
            limit=2.5,
        )
    )


def conformance(report: Report) -> None:
    """Have the benchmark of conformance say what it found, in its own words."""
    script = Path(__file__).parent / "conformance.py"
    done = subprocess.run([sys.executable, str(script), "--runs", "1"], capture_output=True, text=True, check=False)
    report.notes += [f"conformance: {line}" for line in done.stdout.splitlines() if line.strip()]
    if done.returncode:
        report.notes.append(f"conformance: benchmarks/conformance.py ended with {done.returncode}")
