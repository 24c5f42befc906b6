"""Measuring side by side: contenders take turns, each turn counts its own processor time, medians are compared.

The machine may be shared and its clock may change, so no number means much by itself: ratios of one run do.
"""

from __future__ import annotations

import gc
import statistics
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

Work = Callable[[], object]

OURS = "hvabi"


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How long to measure: rounds of turns, and seconds of processor time that a turn should take."""

    rounds: int
    seconds: float
    quick: bool


FULL = Effort(rounds=11, seconds=0.02, quick=False)
QUICK = Effort(rounds=5, seconds=0.004, quick=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one contender took for one unit of one workload; `microseconds` None where it is absent."""

    workload: str
    unit: str
    name: str
    microseconds: float | None
    ratio: float | None
    """How many times as long as we took."""
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """One goal: what was measured against its limit. `at_least` says on which side of the limit it has to lie."""

    text: str
    measured: float | None
    limit: float
    at_least: bool = False
    unit: str = "x"
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether it is met; None where it could not be measured."""
        if self.measured is None:
            return None
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit

    def to_json(self) -> dict[str, object]:
        return {**asdict(self), "met": self.met}


@dataclass(slots=True)
class Report:
    """Everything that one run found."""

    rows: list[Row] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def of(self, workload: str, name: str = OURS) -> float | None:
        return next((r.microseconds for r in self.rows if (r.workload, r.name) == (workload, name)), None)

    def ratio(self, workload: str, over: str, under: str = OURS) -> float | None:
        """Return how many times as long `over` took as `under`."""
        a, b = self.of(workload, over), self.of(workload, under)
        return None if a is None or b is None else a / b


def turns(contenders: dict[str, Work], units: int, effort: Effort) -> dict[str, float]:
    """Return the median microseconds of one unit for each contender; a call of each is `units` units."""
    repeats = {}
    for name, work in contenders.items():
        work()  # the first one pays for caches and generated code
        for _ in range(20):
            work()
            begun = time.process_time()
            work()
            if time.process_time() - begun > effort.seconds:
                break
        took = max(time.process_time() - begun, 1e-6)
        repeats[name] = max(1, round(effort.seconds / took))
    found: dict[str, list[float]] = {name: [] for name in contenders}
    was_on = gc.isenabled()
    gc.disable()
    try:
        for _ in range(effort.rounds):
            for name, work in contenders.items():
                count = repeats[name]
                begun = time.process_time()
                for _ in range(count):
                    work()
                found[name].append((time.process_time() - begun) / (count * units) * 1e6)
            gc.collect()
    finally:
        if was_on:
            gc.enable()
    return {name: statistics.median(times) for name, times in found.items()}


def compare(
    report: Report,
    workload: str,
    contenders: dict[str, Work],
    effort: Effort,
    *,
    units: int = 1,
    unit: str = "call",
    notes: dict[str, str] | None = None,
    absent: dict[str, str] | None = None,
) -> None:
    """Measure and add rows, ours first; peers that are not installed are named as absent."""
    times = turns(contenders, units, effort)
    ours = times.get(OURS)
    for name, took in times.items():
        ratio = took / ours if ours else None
        note = (notes or {}).get(name, "")
        report.rows.append(Row(workload=workload, unit=unit, name=name, microseconds=took, ratio=ratio, note=note))
    for name, why in (absent or {}).items():
        report.rows.append(Row(workload=workload, unit=unit, name=name, microseconds=None, ratio=None, note=why))


def allocated(make: Callable[[], object]) -> tuple[object, int]:
    """Return what was made and the bytes that Python holds for it."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        made = make()
        gc.collect()
        return made, tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
