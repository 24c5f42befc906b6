"""All of `hvabi bench`: the groups of workloads, their report as a table and as JSON.

    python -m benchmarks.suite [--quick] [--json] [GROUP ...]

Exit code 1 where a goal is missed. Why a goal may be missed is said beside it, in `WHY`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import platform
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from benchmarks.measure import FULL, OURS, QUICK, Goal, Report

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

GROUPS = {
    "codec": "a page state change buffer, bulk arrays, registers",
    "calls": "whole calls from registers to answer",
    "tracking": "the range map and its peers, storms, memory",
    "boots": "boot logs replayed from text",
    "kit": "making cases, start-up, conformance over pipes",
}

WHY = {
    "the boot of 19,479 calls from text": (
        "a fifth of the time is reading lines, a third conversions, echoes and counts, the rest flips, pools,"
        " rates and pictures, call by call in Python; the parse reads four integers out of bytes that are ready"
    ),
    "range map, 60 ranges: faster than intervaltree": (
        "a small tree is fast; ours takes 9 bytes a boundary, so that each look into an array makes an integer,"
        " and returns what every set changed"
    ),
    "range map, 1,000 ranges: faster than intervaltree": "as with 60 ranges; from 50,000 on it is faster by more",
    "against pyroaring": "pyroaring is C and keeps pages only: it counts no ranges and says not what changed",
    "hvabi decode from start to end": (
        "importing click and making the classes of the model take most of it; construct and YAML are not imported"
    ),
    "whole call of": "most of it is the two range maps, states and epochs, and the answer's own fields",
}
"""Why a goal that is missed may be missed, by the beginning or a part of its text."""


def run(
    groups: Sequence[str] = (), *, quick: bool = False, progress: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Run groups of workloads, all by default, and return what was found as JSON values."""
    report = Report()
    for group in groups or GROUPS:
        progress(f"{group}: {GROUPS[group]}")
        importlib.import_module(f"benchmarks.{group}").run(report, QUICK if quick else FULL)
    return {
        "quick": quick,
        "machine": {"python": platform.python_version(), "cpus": os.cpu_count(), "system": platform.machine()},
        "peers": versions(),
        "rows": [asdict(row) for row in report.rows],
        "goals": [{**goal.to_json(), "reason": why(goal)} for goal in report.goals],
        "notes": report.notes,
    }


def versions() -> dict[str, str | None]:
    """Return the versions of all peers, None for one that is not installed."""
    found: dict[str, str | None] = {}
    for name in ("construct", "numpy", "kaitaistruct", "intervaltree", "portion", "sortedcontainers", "pyroaring"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def why(goal: Goal) -> str | None:
    """Return why a goal is missed, or could not be measured."""
    if goal.met:
        return None
    if goal.met is None:
        return goal.note or "a peer is not installed: pip install hvabi[bench]"
    return next((text for key, text in WHY.items() if key in goal.text), goal.note or "not known")


def table(found: dict[str, Any]) -> list[str]:
    """Return the report for people: goals first, then each workload with its ratios."""
    lines = ["goals (ratios of this run)"]
    for goal in found["goals"]:
        word = {True: "met   ", False: "MISSED", None: "absent"}[goal["met"]]
        measured = "-" if goal["measured"] is None else f"{goal['measured']:.2f}"
        sign = "at least" if goal["at_least"] else "at most"
        lines.append(f"  {word} {measured:>9} {goal['unit']}, {sign} {goal['limit']:g}: {goal['text']}")
        if goal["reason"]:
            lines.append(f"         because {goal['reason']}")
    workload = ""
    for row in found["rows"]:
        if row["workload"] != workload:
            workload = row["workload"]
            lines += ["", workload]
        if row["microseconds"] is None:
            lines.append(f"  {'absent':>9}             {row['name']}: {row['note']}")
            continue
        ratio = "       " if row["ratio"] is None else f"{row['ratio']:6.2f}x"
        note = f" ({row['note']})" if row["note"] else ""
        shown = "us" if row["name"] == OURS else f"us {ratio}"
        lines.append(f"  {row['microseconds']:11.2f} {shown:10} a {row['unit']}, {row['name']}{note}")
    if found["notes"]:
        lines += ["", *found["notes"]]
    return lines


def main(arguments: Sequence[str]) -> int:
    names = [each for each in arguments if not each.startswith("-")]
    found = run(names, quick="--quick" in arguments, progress=lambda text: print(text, file=sys.stderr))
    print(json.dumps(found, indent=1) if "--json" in arguments else "\n".join(table(found)))
    return int(any(goal["met"] is False for goal in found["goals"]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
