"""What came out of a run: a verdict per case, findings with expected and found, and the whole run. Data only."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hvabi.conformance.case import Case


class Verdict(enum.StrEnum):
    """The verdict on one case."""

    #: Everything compared was right, the state too.
    PASS = "pass"
    #: The answers were right; the implementation has no ``query``, so the state was not seen.
    PASS_UNSEEN = "pass-state-not-seen"
    #: A ``should`` was not met; counted apart, fails the run only with ``--strict``.
    WARN = "warn"
    #: A ``may`` or ``unspecified`` behaviour, noted.
    NOTE = "note"
    #: A ``must`` was not met.
    FAIL = "fail"
    #: The implementation says that it does not have this, or the case needs a feature that it lacks.
    SKIP = "skip"
    #: No answer in time.
    TIMEOUT = "timeout"
    #: The process ended in the middle.
    CRASH = "crash"
    #: A line or an answer that the protocol does not allow.
    PROTOCOL = "protocol"
    #: A guest made more calls than its bound, or a host answered replay for ever.
    NO_PROGRESS = "no-progress"
    #: The implementation answered ``error``: it broke.
    ERROR = "error"
    #: Not run: an earlier step of the case, or the whole run, was given up.
    NOT_RUN = "not-run"

    @property
    def bad(self) -> bool:
        """Whether it counts against the implementation."""
        return self in _BAD


_BAD = frozenset(
    {
        Verdict.FAIL,
        Verdict.TIMEOUT,
        Verdict.CRASH,
        Verdict.PROTOCOL,
        Verdict.NO_PROGRESS,
        Verdict.ERROR,
        Verdict.NOT_RUN,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One difference between what was right and what came.

    Attributes:
        what: what was compared, such as ``register r10`` or ``pages``.
        expected, found: as text for people; integers in hex.
        step: number of the step in the case, from 0.
        rule: id of the rule behind the expectation, or None.
        bits: highest and lowest differing bit of a register, for marking, or None.

    """

    what: str
    expected: str
    found: str
    step: int = 0
    rule: str | None = None
    bits: tuple[int, int] | None = None

    def __str__(self) -> str:
        return f"{self.what}: expected {self.expected}, found {self.found}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchanged:
    """What one step sent and got, for reports: registers and memory as the protocol carried them."""

    sent_regs: Mapping[str, int] = field(default_factory=dict)
    sent_mem: tuple[tuple[int, bytes], ...] = ()
    got_end: str = ""
    got_regs: Mapping[str, int] = field(default_factory=dict)
    got_mem: tuple[tuple[int, bytes], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult:
    """The verdict on one case with its reasons.

    Attributes:
        message: one line: why this verdict.
        policies: policy values that the answers showed, by name.
        log: tail of the log text during the case.
        stderr: tail of the standard error during the case.
        seconds: how long it took.
        known: the kind of the known-failures entry that lists it, or None.
        reproduce: the command that runs only this case.

    """

    case: Case
    verdict: Verdict
    message: str = ""
    findings: tuple[Finding, ...] = ()
    exchanged: tuple[Exchanged, ...] = ()
    policies: Mapping[str, str] = field(default_factory=dict)
    log: str = ""
    stderr: str = ""
    seconds: float = 0.0
    known: str | None = None
    reproduce: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """A whole run. `complete` is False where it was given up; then the rest is ``not-run``.

    Attributes:
        peer: name and version that the implementation gave.
        problems: what failed the run besides cases: policy switched in mid-run, stale known failures, nothing selected.

    """

    peer: str
    connector: str
    profile: str
    seed: int
    results: tuple[CaseResult, ...]
    complete: bool = True
    problems: tuple[str, ...] = ()
    seconds: float = 0.0

    def count(self, verdict: Verdict) -> int:
        """Return how many cases got this verdict."""
        return sum(result.verdict is verdict for result in self.results)

    @property
    def good(self) -> bool:
        """Whether the run counts as passed: complete, no problems, and every bad verdict is a known one."""
        return (
            self.complete
            and not self.problems
            and not any(result.verdict.bad and result.known is None for result in self.results)
        )
