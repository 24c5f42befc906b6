"""A whole run: cases against a connector, in several sessions at once where asked, and everything that failed it."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hvabi.abi.errors import UsageError
from hvabi.abi.registry import bundled
from hvabi.conformance.connect import parse_connector
from hvabi.conformance.result import CaseResult, RunResult, Verdict
from hvabi.conformance.selection import Selection, select
from hvabi.conformance.supervise import GivenUp, Supervisor
from hvabi.conformance.transcript import Recorder

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Sequence

    from hvabi.conformance.answer import Hello
    from hvabi.conformance.case import Case
    from hvabi.conformance.connect import Connector
    from hvabi.conformance.known import KnownFailures

    Progress = Callable[[CaseResult, int, int], None]

MOST_JOBS = 256
_CHUNK = 64
"""Most cases that a worker takes at once."""


def run_cases(
    cases: Iterable[Case],
    connector: str | Connector,
    *,
    selection: Selection | None = None,
    profile: str = "spec",
    timeout: float = 5.0,
    jobs: int = 1,
    seed: int = 0,
    known: KnownFailures | None = None,
    progress: Progress | None = None,
    transcript: str | os.PathLike[str] | None = None,
    features: Iterable[str] = (),
) -> RunResult:
    """Run cases against an implementation and return everything that came out, whatever it did.

    Args:
        cases: all cases, as generated under `profile`; `selection` chooses among them.
        connector: a connector, or its text, see `hvabi.conformance.connect`.
        selection: which cases are run; all of this profile by default.
        profile: the profile to judge by; ABIs that do not have it are judged by ``spec``. `declared_profile` says
            what an implementation declares.
        timeout: seconds for each answer, more than 0.
        jobs: sessions at once; 1 where the connector allows one only. The report is the same for any number, as long
            as the implementation keeps nothing from case to case.
        seed: the seed that the cases were generated with, for the report.
        known: known failures, matched against all `cases`, selected or not.
        progress: called with each result, how many are done and how many there are, from one thread at a time.
        transcript: file for the transcript, or None for none.
        features: protocol features to ask for besides those that the cases need: ``exits``, ``local-steps``.

    Results are in the order of the cases. Raises `UsageError` for arguments that make no run: no case selected, a bad
    connector, a transcript that cannot be written. What the implementation does is never an exception.

    """
    if timeout <= 0 or not 1 <= jobs <= MOST_JOBS:
        raise UsageError(f"timeout is above 0 and jobs are 1 to {MOST_JOBS}", code="bad-option")
    every = list(cases)
    chosen = select(every, selection or Selection(), profile=profile)
    _check_profile(profile, chosen)
    link = parse_connector(connector) if isinstance(connector, str) else connector
    recorder = Recorder(transcript, connector=link.name) if transcript is not None else None
    started = time.monotonic()
    try:
        run = _Run(chosen, link, profile, timeout, recorder, progress, frozenset(features))
        run.work(jobs if link.parallel else 1)
    finally:
        link.close()
        if recorder is not None:
            recorder.close()
    results = run.finished()
    problems = [*run.problems, *switched_policies(results)]
    if known is not None:
        results, stale = known.apply(results, every)
        problems += stale
    return RunResult(
        peer=run.peer,
        connector=link.name,
        profile=profile,
        seed=seed,
        results=tuple(results),
        complete=run.complete,
        problems=tuple(problems),
        seconds=time.monotonic() - started,
    )


def _check_profile(profile: str, cases: Sequence[Case]) -> None:
    """Refuse a profile that no ABI of the run has."""
    if profile == "spec":
        return
    known = {name for abi in {case.abi for case in cases} for name in bundled(abi).profiles}
    if profile not in known:
        raise UsageError.unknown("profile", profile, ["spec", *sorted(known)])


def probe(connector: str | Connector, *, timeout: float = 5.0) -> Hello:
    """Start an implementation, say hello and end it again; for what it offers and declares.

    Raises `PeerStart` and what a session raises.
    """
    link = parse_connector(connector) if isinstance(connector, str) else connector
    supervisor = Supervisor(link, timeout=timeout)
    try:
        return supervisor.open()
    finally:
        supervisor.close()
        if isinstance(connector, str):
            link.close()


def declared_profile(hello: Hello, abi: str) -> str:
    """Return the profile that an implementation declares for an ABI, ``spec`` where it declares none that is known."""
    offer = hello.abis.get(abi)
    name = offer.profile if offer is not None else None
    return name if name is not None and name in bundled(abi).profiles else "spec"


@dataclass(slots=True)
class _Chunk:
    """Cases that follow each other and need the same configuration, with the number of the first."""

    first: int
    cases: list[Case]


class _Run:
    """The shared state of the workers."""

    def __init__(
        self,
        cases: Sequence[Case],
        connector: Connector,
        profile: str,
        timeout: float,
        recorder: Recorder | None,
        progress: Progress | None,
        features: frozenset[str],
    ) -> None:
        self.cases = cases
        self.connector = connector
        self.profile = profile
        self.timeout = timeout
        self.recorder = recorder
        self.progress = progress
        self.peer = ""
        self.complete = True
        self.problems: list[str] = []
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        self._results: dict[int, CaseResult] = {}
        self._reason = ""
        self._features = features | {word for case in cases for word in case.features if word != "inject"}
        self._chunks = deque(_chunks(cases))

    def work(self, jobs: int) -> None:
        """Let workers run all chunks. One worker works in this thread, so that an interrupt ends it."""
        if jobs == 1 or len(self._chunks) == 1:
            self._worker()
            return
        threads = [
            threading.Thread(target=self._worker, name=f"hvabi worker {number}", daemon=True)
            for number in range(min(jobs, len(self._chunks)))
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except BaseException:
            self._give_up("interrupted")
            for thread in threads:
                thread.join(2 * self.timeout)
            raise

    def _worker(self) -> None:
        supervisor = Supervisor(
            self.connector,
            profile=self.profile,
            timeout=self.timeout,
            ids=self._ids,
            features=self._features,
            recorder=self.recorder,
        )
        try:
            while (chunk := self._next()) is not None:
                for number, case in enumerate(chunk.cases, chunk.first):
                    if not self._one(supervisor, number, case):
                        return
        finally:
            supervisor.close()

    def _next(self) -> _Chunk | None:
        with self._lock:
            return self._chunks.popleft() if self._chunks and self.complete else None

    def _one(self, supervisor: Supervisor, number: int, case: Case) -> bool:
        """Run one case; return whether the run goes on."""
        if not self.complete:
            return False
        try:
            result = supervisor.run(case)
        except GivenUp as error:
            self._give_up(error.message)
            return False
        with self._lock:
            if supervisor.hello is not None:
                self.peer = self.peer or supervisor.hello.peer
            self._results[number] = result
            if self.progress is not None:
                self.progress(result, len(self._results), len(self.cases))
        if supervisor.exhausted:
            self._give_up("the implementation broke in too many cases in a row")
            return False
        return True

    def _give_up(self, reason: str) -> None:
        with self._lock:
            if self.complete:
                self.complete = False
                self._reason = reason
                self.problems.append(f"the run was given up: {reason}")

    def finished(self) -> list[CaseResult]:
        """Return a result for every case in order; those that were not reached are not run."""
        out: list[CaseResult] = []
        for number, case in enumerate(self.cases):
            result = self._results.get(number)
            if result is None:
                result = CaseResult(case=case, verdict=Verdict.NOT_RUN, message=self._reason or "not reached")
            if result.verdict is Verdict.NOT_RUN and result.message.startswith("the runner failed"):
                self.problems.append(f"{case.id}: {result.message}")
            out.append(result)
        return out


def _chunks(cases: Sequence[Case]) -> list[_Chunk]:
    chunks: list[_Chunk] = []
    last: object = None
    for number, case in enumerate(cases):
        key = (case.abi, case.revision, case.transport, case.role)
        if key != last or len(chunks[-1].cases) >= _CHUNK:
            chunks.append(_Chunk(number, []))
            last = key
        chunks[-1].cases.append(case)
    return chunks


def switched_policies(results: Iterable[CaseResult]) -> list[str]:
    """Return a problem for every policy of which an implementation has shown two values in one run."""
    first: dict[tuple[str, str, str], tuple[str, str]] = {}
    problems: dict[tuple[str, str, str], str] = {}
    for result in results:
        case = result.case
        for policy, value in result.policies.items():
            key = (f"{case.abi}@{case.revision}", case.role, policy)
            before, where = first.setdefault(key, (value, case.id))
            if before != value and key not in problems:
                problems[key] = (
                    f"{key[0]} {case.role}: policy {policy} was {before} in {where} and {value} in {case.id}"
                )
    return list(problems.values())


__all__ = ["MOST_JOBS", "Selection", "declared_profile", "probe", "run_cases", "switched_policies"]
