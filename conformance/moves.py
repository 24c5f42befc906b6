"""A model of a host's state over several calls, and the moves that are made on it.

Moves are plain data that do not depend on what came before, so that any of them can be left out; the model works out
what a move asks for where it stands. Expected answers are the oracle's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from random import Random
from typing import TYPE_CHECKING, Any, Literal

from hvabi.abi.errors import HvAbiError
from hvabi.conformance.case import Held, Inject, Setup
from hvabi.conformance.generate.basis import PLACE, Question, basis_of, host_rules
from hvabi.conformance.generate.followup import next_fields
from hvabi.conformance.generate.hosts import basis_int, next_step
from hvabi.conformance.generate.rules import RuleCases
from hvabi.conformance.handle_moves import Regions
from hvabi.conformance.oracle.walk import Undefined

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hvabi.conformance.case import Expected, HostStep, Pages, Ranges
    from hvabi.conformance.generate.basis import Basis

What = Literal["convert", "broken", "resume", "repeat", "reset", "begin", "more", "back"]

_ARENA = (PLACE - 16, PLACE + 48)
"""Pages about which conversions lie: few, so that they meet, join and split ranges; a 2 MiB boundary is inside."""
_SIZES = (1, 1, 1, 2, 2, 3, 4, 5, 8, 16)
_BOUNDS = (2, 3, 5)
_ERRNOS = (11, 22)
"""The answers of user space that the documents know; a host may take any other for anything."""
_MOVES: tuple[What, ...] = ("convert",) * 10 + ("broken",) * 3 + ("resume",) * 5 + ("repeat",) * 2 + ("reset",)
_HANDLE_MOVES: tuple[What, ...] = (
    ("convert",) * 6 + ("broken",) * 2 + ("begin",) * 3 + ("more",) * 5 + ("back",) * 5 + ("repeat",) * 2 + ("reset",)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One thing that is done.

    Attributes:
        what: ``convert`` a range; send a request that breaks rule number `broken`; ``resume`` where the last call
            stopped on the way; ``repeat`` the last request; ``reset`` to the first state; of regions with handles
            ``begin`` one with a first part, bring ``more`` of one, take one ``back``.
        start, pages, to: the range and the state of a conversion.
        broken: which of the requests that break a rule, or of the regions, counted round.
        vcpu: the virtual CPU that calls.
        inject: fault for the call.

    """

    what: What
    start: int = 0
    pages: int = 0
    to: str = ""
    broken: int = 0
    vcpu: int = 0
    inject: Inject | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a seed gives: the configuration, the pages that are not private at first, and the moves."""

    seed: int
    setup: Setup
    before: Ranges
    moves: tuple[Move, ...]


class Model:
    """The state that a right host has after each call.

    Args:
        basis: the ABI.
        setup: how the host is configured.
        before: pages that are not private at first and after a reset.

    """

    def __init__(self, basis: Basis, setup: Setup, before: Ranges) -> None:
        self.basis = basis
        self.setup = setup
        self.before = before
        self.state: Ranges = before
        self.facts: Mapping[str, Pages] = {}
        self.held = Held()
        self._regions = Regions(basis) if basis.call.handle is not None else None
        self._fresh = False
        self._last: Question | None = None
        self._rest: Mapping[str, Any] | None = None
        self._unsure = False

    def step(self, move: Move) -> HostStep | None:
        """Return the step that a move makes, and go on to the state behind it; None where it makes none here."""
        if move.what == "reset" or (self._unsure and move.what != "resume"):
            self._reset()
        asked = self._question(move)
        if asked is None:
            return None
        basis = self.basis if asked.call is None else self.basis.of_call(asked.call)
        question = replace(
            asked, setup=self.setup, before=self.state, facts=self.facts, inject=move.inject, call=basis.call.name,
            way=(), held=self.held,
        )  # fmt: skip
        try:
            answers = basis.answers(question)
            resumed = move.what == "resume"
            step = next_step(basis, question, answers) if resumed else basis.step(question, answers)
            step = replace(step, vcpu=move.vcpu, fresh=self._fresh)
        except (HvAbiError, Undefined):
            return None
        if not answers:
            return None
        self._fresh = False
        self._go_on(basis, question, answers)
        return step

    def _reset(self) -> None:
        self.state, self.facts, self.held = self.before, {}, Held()
        if self._regions is not None:
            self._regions.forget()
        self._fresh = True
        self._unsure = False
        self._last = self._rest = None

    def _go_on(self, basis: Basis, question: Question, answers: Sequence[Expected]) -> None:
        first = answers[0]
        rest = None
        progress = basis.call.progress
        # However it is said, a call that is executed again is the same call.
        again = progress is not None and progress.resume == "reexecute" and len({one.status for one in answers}) == 1
        if (len(answers) == 1 or again) and first.rule is None and first.status in ("partial", "retry"):
            rest = next_fields(basis, question, first)
        told = all(
            answer.end in ("return", "fault") and (answer.state, answer.facts) == (first.state, first.facts)
            for answer in answers
        )
        if basis.call.handle is not None and basis.call.handle.of is not None:
            # A host that gave no handle is not asked about it; one that gave it must still have it, or must not.
            told = told and all(answer.held == first.held for answer in answers)
        loose = any(answer.loose for answer in answers)
        if not told or (loose and rest is None):
            # Which of the right states the host is in cannot be told: the next call begins anew.
            self._reset()
            return
        self.state, self.facts, self.held = first.state, first.facts, first.held
        self._last, self._rest = question, rest
        # Pages that may be either way are all named again by the request that goes on, and by no other.
        self._unsure = loose

    def _question(self, move: Move) -> Question | None:
        match move.what:
            case "convert":
                fields = self._request(move)
                return Question(fields=fields) if fields is not None else None
            case "broken":
                known = () if self.setup.config else _broken(*_key(self.basis))
                return known[move.broken % len(known)] if known else None
            case "resume" if self._last is not None and self._rest is not None:
                return replace(self._last, fields={**self._last.fields, **self._rest})
            case "repeat":
                return self._last
            case _ if self._regions is not None:
                return self._regions.question(move, self.held, self.setup)
            case _:
                return None

    def _request(self, move: Move) -> dict[str, Any] | None:
        granule = self.basis.granule()
        start, pages = move.start // granule * granule, -(-move.pages // granule) * granule
        try:
            return self.basis.request(start, pages, move.to, config=self.setup.config)
        except HvAbiError:
            return None


def _key(basis: Basis) -> tuple[str, str, str, str]:
    return basis.spec.id, basis.abi.revision, basis.transport, basis.abi.profile


@cache
def _broken(abi: str, revision: str, transport: str, profile: str) -> tuple[Question, ...]:
    """Return requests that break one ``must`` rule each, whatever the state of pages is, without another setup."""
    basis = basis_of(abi, revision, transport, profile)
    found = RuleCases(basis).found
    return tuple(
        question.question
        for rule in host_rules(basis)
        for _, _, question in found[rule.id]
        if rule.level == "must" and question.question.setup == Setup() and not question.question.regs
    )


def plan_of(basis: Basis, seed: int, most_moves: int) -> Plan:
    """Return what a seed gives. Only odd seeds have faults, so that hosts without ``inject`` run the other half."""
    rng = Random(f"hvabi stateful {basis.prefix} {basis.transport} {seed}")
    setup = _setup(basis, rng)
    before = _before(basis, rng, setup.max_ranges)
    faults = _faults(basis) if seed % 2 else []
    moves = tuple(_move(basis, rng, faults) for _ in range(rng.randint(min(3, most_moves), most_moves)))
    return Plan(seed=seed, setup=setup, before=before, moves=moves)


def _setup(basis: Basis, rng: Random) -> Setup:
    config: dict[str, int] = {}
    for key in basis.abi.config.values():
        if key.choices and rng.random() < 0.1:
            config[key.name] = rng.choice(key.choices)
    memory = None
    if rng.random() < 0.15:
        hole = rng.randrange(_ARENA[0], _ARENA[1])
        memory = ((0, hole), (hole + rng.choice((1, 8)), 1 << 30))
    bound = rng.choice(_BOUNDS) if {"shared", "private"} <= set(basis.states()) and rng.random() < 0.2 else None
    return Setup(config=config, memory=memory, max_ranges=bound)


def _before(basis: Basis, rng: Random, bound: int | None) -> Ranges:
    """Return up to four ranges that are not private."""
    states = [state for state in basis.states() if state != "private"]
    out: list[tuple[int, int, str]] = []
    at = _ARENA[0]
    granule = basis.granule()
    for _ in range(min(rng.randrange(5), bound if bound is not None else 4) if states else 0):
        start = at + granule * rng.randint(1, 6)
        at = start + granule * rng.choice((1, 1, 2, 5, 12))
        out.append((start, at, rng.choice(states)))
    return tuple(out)


def _faults(basis: Basis) -> list[Inject]:
    """Return the faults that this ABI can have."""
    call, found = basis.call, []
    if call.vmm is not None:
        found += [Inject(fault="vmm-error", arguments={"errno": errno}) for errno in _ERRNOS]
    if call.reports_parts(basis.transport):
        found += [Inject(fault="stop-after", arguments={"pages": pages}) for pages in (0, 1, 2, 5, 512)]
        if call.progress is not None and call.progress.chunk is not None:
            found += [Inject(fault="event-pending", arguments={"after": after}) for after in (1, 2)]
    return found


def _move(basis: Basis, rng: Random, faults: list[Inject]) -> Move:
    chunk = _chunk(basis)
    big = rng.random() < 0.08
    sizes = (chunk + 1, 2 * chunk + 3, chunk) if big and chunk else (512, 513) if big else _SIZES
    return Move(
        what=rng.choice(_MOVES if basis.call.handle is None else _HANDLE_MOVES),
        start=rng.randrange(*_ARENA),
        pages=rng.choice(sizes),
        to=rng.choice(basis.states()),
        broken=rng.randrange(1 << 16),
        vcpu=rng.choice((0, 0, 1, 2)),
        inject=rng.choice(faults) if faults and rng.random() < 0.3 else None,
    )


def _chunk(basis: Basis) -> int:
    """Return the pages after which a host looks for events, 0 where it does not."""
    progress = basis.call.progress
    if progress is None or progress.chunk is None:
        return 0
    return basis_int(basis, progress.chunk)


__all__ = ["Model", "Move", "Plan", "plan_of"]
