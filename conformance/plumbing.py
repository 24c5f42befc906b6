"""The plumbing check: every case against the bundled adapters, under every profile, in several processes.

It shows that generators, oracle, runner and adapters fit together. It says nothing about any other implementation, and
it is no proof of the specification: both sides read the same files.
"""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hvabi.abi.registry import abi_ids, bundled
from hvabi.conformance.stories import stories

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from hvabi.abi.specification import Abi

MOST_PROCESSES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """The cases of one ABI under one profile.

    Attributes:
        cases: number of cases that ran, by revision.
        failures: ``(revision, what went wrong)``.

    """

    abi: str
    profile: str
    cases: dict[str, int]
    failures: tuple[tuple[str, str], ...] = ()


def tasks(abis: Iterable[str] | None = None) -> list[tuple[str, str]]:
    """Return every ABI that is no draft with ``spec`` and its profiles; of profiles that say the same, the first."""
    names = abis if abis is not None else [abi for abi in abi_ids() if not bundled(abi).draft]
    return [(abi, profile) for abi in names for profile in ("spec", *_distinct(bundled(abi)))]


def _distinct(abi: Abi) -> Iterator[str]:
    """Yield the profiles that differ in what they ask for, and those that a story names."""
    named = {retold.case.profile for story in stories(abi.id) for retold in story.cases}
    seen: list[object] = []
    for name, profile in abi.profiles.items():
        asks = (abi.policies_of(name), dict(profile.config), profile.enabled)
        if asks not in seen or name in named:
            seen.append(asks)
            yield name


def check_cases(abi: str, profile: str) -> Checked:
    """Run the cases of one ABI under one profile against the bundled adapters."""
    from hvabi.conformance.catalogue import every_case
    from hvabi.conformance.run import run_cases

    chosen = list(every_case([abi], profile=profile))
    if not chosen:
        return Checked(abi=abi, profile=profile, cases={})
    run = run_cases(chosen, "builtin", profile=profile)
    under = f" under {profile}" if profile != "spec" else ""
    failures = [
        (result.case.revision, f"{result.case.id}{under}: {result.verdict.value}: {result.message}")
        for result in run.results
        if result.verdict.bad
    ]
    failures += [(chosen[0].revision, f"{problem}{under}") for problem in run.problems]
    counts = Counter(result.case.revision for result in run.results)
    return Checked(abi=abi, profile=profile, cases=dict(counts), failures=tuple(failures))


def check_all(
    abis: Iterable[str] | None = None, *, progress: Callable[[str], None] | None = None, jobs: int | None = None
) -> tuple[Checked, ...]:
    """Run all tasks, in the order of `tasks`, in up to `jobs` processes; by default one per processor, at most 4."""
    todo = tasks(abis)
    tell = progress or (lambda name: None)
    count = min(jobs if jobs is not None else processors(), MOST_PROCESSES, len(todo))
    if count > 1:
        try:
            return _in_processes(todo, count, tell)
        except (OSError, BrokenProcessPool):
            pass  # no processes to be had here: in this one then
    found = []
    for number, (abi, profile) in enumerate(todo, 1):
        tell(f"cases of {abi}, {profile} ({number} of {len(todo)})")
        found.append(check_cases(abi, profile))
    return tuple(found)


def _in_processes(todo: list[tuple[str, str]], count: int, tell: Callable[[str], None]) -> tuple[Checked, ...]:
    with ProcessPoolExecutor(count) as pool:
        # The largest first, so that no process is left with a long one at the end.
        order = sorted(range(len(todo)), key=lambda number: -_weight(todo[number][0]))
        waiting = {pool.submit(check_cases, *todo[number]): number for number in order}
        found: dict[int, Checked] = {}
        for done in as_completed(waiting):
            number = waiting[done]
            found[number] = done.result()
            tell(f"cases of {todo[number][0]}, {todo[number][1]} ({len(found)} of {len(todo)})")
    return tuple(found[number] for number in range(len(todo)))


def _weight(abi: str) -> int:
    """Return a guess at the work: cases grow with revisions, transports and rules."""
    found = bundled(abi)
    return len(found.revisions) * len(found.transports) * sum(len(call.rules) for call in found.calls.values())


def processors() -> int:
    """Return how many processors this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


__all__ = ["MOST_PROCESSES", "Checked", "check_all", "check_cases", "processors", "tasks"]
