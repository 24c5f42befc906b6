"""Sequences of calls, virtual CPUs and faults against a model that remembers: for what shows only after several calls.

A seed gives a plan: how the host is configured, which pages are not private at first, and a list of moves. The model
turns moves into the steps of a case; each step expects what the oracle says of the state that the steps before it
left. The id of a case holds its seed, and the moves that are kept where some have been removed, so `case_of` makes the
same case again: ``tdx-map-gpa@ghci-1.5.host.tdcall.stateful.seed-7-moves-0-3``.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from hvabi.abi.errors import UsageError
from hvabi.abi.registry import abi_ids, bundled, load
from hvabi.abi.specification import SPEC_PROFILE
from hvabi.conformance.case import Case
from hvabi.conformance.connect import parse_connector
from hvabi.conformance.generate.basis import basis_of
from hvabi.conformance.moves import Model, Plan, plan_of
from hvabi.conformance.supervise import Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from hvabi.abi.specification import Abi
    from hvabi.conformance.connect import Connector
    from hvabi.conformance.generate.basis import Basis
    from hvabi.conformance.result import CaseResult

    Fails = Callable[[tuple[int, ...]], bool]

MOST_MOVES = 16
"""Most moves of a sequence, and the number that is drawn from unless another is asked for."""
_ID = re.compile(
    r"(?P<abi>[a-z0-9-]+)@(?P<revision>[^@]+?)\.host\.(?P<transport>[a-z0-9-]+)"
    r"\.stateful\.seed-(?P<seed>[0-9]{1,18})(?:-moves(?P<moves>(?:-[0-9]{1,4})+))?"
)


def case_from(basis: Basis, plan: Plan, kept: Sequence[int] | None = None) -> Case:
    """Return the case of a plan, or of the moves of it with these numbers."""
    numbers = range(len(plan.moves)) if kept is None else kept
    model = Model(basis, plan.setup, plan.before)
    steps = tuple(step for number in numbers if (step := model.step(plan.moves[number])) is not None)
    decided = (answer.rule for step in steps for answer in step.expected)
    moves = "" if kept is None else "-moves" + "".join(f"-{number}" for number in kept)
    return Case(
        id=f"{basis.prefix}.host.{basis.transport}.stateful.seed-{plan.seed}{moves}",
        abi=basis.spec.id,
        revision=basis.abi.revision,
        role="host",
        transport=basis.transport,
        rules=tuple(dict.fromkeys(rule for rule in decided if rule is not None)),
        level="should" if plan.setup.max_ranges is not None or plan.setup.memory is not None else "must",
        why="A sequence of calls: each answer must fit the state that the calls before it left.",
        kind="stateful",
        setup=plan.setup,
        before=plan.before,
        steps=steps,
        profile=None if basis.abi.profile == SPEC_PROFILE else basis.abi.profile,
        features=("inject",) if any(step.inject is not None for step in steps) else (),
    )


def _bases(abi: str, revision: str | None, transport: str | None, profile: str) -> Iterator[Basis]:
    whole = bundled(abi)
    call = whole.convert_call
    if call is None or call.guest is None or not any(call.outcomes.values()):
        return
    for version in whole.revisions if revision is None else (revision,):
        if load(abi, revision=version).abi.convert_call is None:
            continue
        for place in whole.transports if transport is None else (transport,):
            basis = basis_of(abi, version, place, profile)
            if basis.states():
                yield basis


def stateful_cases(
    abi: str | None = None,
    *,
    revision: str | None = None,
    transport: str | None = None,
    profile: str = SPEC_PROFILE,
    seed: int = 0,
    count: int = 20,
    most_moves: int = MOST_MOVES,
) -> Iterator[Case]:
    """Yield `count` sequences for each revision and transport of an ABI, or of all that are no drafts.

    Args:
        abi: id of the ABI.
        revision: only this revision.
        transport: only this transport.
        profile: the profile under which answers are expected.
        seed: seed of the first sequence; the others have the seeds behind it.
        count: sequences for each revision and transport.
        most_moves: most moves of a sequence. A case made again from its id has `MOST_MOVES`.

    """
    for name in [one for one in abi_ids() if not bundled(one).draft] if abi is None else [abi]:
        if profile != SPEC_PROFILE and profile not in bundled(name).profiles:
            continue
        for basis in _bases(name, revision, transport, profile):
            for number in range(seed, seed + count):
                case = case_from(basis, plan_of(basis, number, most_moves))
                if case.steps:
                    yield case


def _why_none(abi: Abi) -> str:
    """Return why there are no sequences of an ABI on a transport."""
    if abi.convert_call is None:
        return "it only asks: no call leaves a state for the next one"
    return "it has no guest to ask as"


def is_stateful(ident: str) -> bool:
    """Whether an id of a case names a sequence, so that `case_of` can make it."""
    return _ID.fullmatch(ident) is not None


def case_of(ident: str, *, profile: str = SPEC_PROFILE) -> Case:
    """Return the case with this id. Raises `UsageError` where no sequence has it."""
    found = _ID.fullmatch(ident)
    if found is None:
        raise UsageError(
            f"{ident} is no id of a sequence",
            code="unknown-case",
            hint="it ends in .stateful.seed-NUMBER, with -moves-NUMBER-NUMBER… behind it where moves are left out",
        )
    whole = bundled(found["abi"])
    for kind, name, known in (
        ("revision", found["revision"], whole.revisions),
        ("transport", found["transport"], whole.transports),
    ):
        if name not in known:
            raise UsageError.unknown(kind, name, known)
    basis = next(_bases(found["abi"], found["revision"], found["transport"], profile), None)
    if basis is None:
        raise UsageError(f"{found['abi']} has no sequences", code="unknown-case", hint=_why_none(whole))
    plan = plan_of(basis, int(found["seed"]), MOST_MOVES)
    if found["moves"] is None:
        return case_from(basis, plan)
    kept = [int(number) for number in found["moves"].split("-")[1:]]
    if kept != sorted(set(kept)) or kept[-1] >= len(plan.moves):
        raise UsageError(
            f"{ident}: seed {plan.seed} has the moves 0 to {len(plan.moves) - 1}",
            code="unknown-case",
            hint="moves stand in rising order, each once",
        )
    return case_from(basis, plan, kept)


def find_failure(
    abi: str,
    connector: str | Connector,
    *,
    revision: str | None = None,
    transport: str | None = None,
    profile: str = SPEC_PROFILE,
    seed: int = 0,
    budget: int = 200,
    timeout: float = 5.0,
) -> CaseResult | None:
    """Run sequences until one fails; return the result of the shortest one that still does, or None.

    One that fails only after others, and not in a session of its own, is returned where no other fails.

    Args:
        abi: id of the ABI.
        connector: a connector, or its text, see `hvabi.conformance.connect`.
        revision: only this revision.
        transport: only this transport.
        profile: the profile to judge by.
        seed: seed of the first sequence.
        budget: sequences in all, spread over revisions and transports; shrinking comes on top of it.
        timeout: seconds for each answer.

    Raises `GivenUp` where the implementation cannot be run, `UsageError` for an ABI without sequences.

    """
    bases = list(_bases(abi, revision, transport, profile))
    if not bases:
        raise UsageError(f"{abi} has no sequences", code="nothing-selected", hint=_why_none(bundled(abi)))
    link = parse_connector(connector) if isinstance(connector, str) else connector
    supervisor = Supervisor(link, profile=profile, timeout=timeout)
    try:
        unrepeated: CaseResult | None = None
        for number in range(budget):
            basis = bases[number % len(bases)]
            plan = plan_of(basis, seed + number // len(bases), MOST_MOVES)
            result = supervisor.run(case_from(basis, plan))
            if result.verdict.bad:
                shortest = _shortest(supervisor, basis, plan, result)
                if shortest is not None:
                    return shortest
                text = f"{result.message} (it does not fail in a session of its own)"
                unrepeated = unrepeated or replace(result, message=text)
        return unrepeated
    finally:
        supervisor.close()
        if isinstance(connector, str):
            link.close()


def _shortest(supervisor: Supervisor, basis: Basis, plan: Plan, first: CaseResult) -> CaseResult | None:
    """Return the result of the fewest moves that end in the same verdict, None where not even all of them do.

    Each try has a session of its own: what the cases before it left behind could be what failed the first.
    """
    best: CaseResult | None = None

    def fails(kept: tuple[int, ...]) -> bool:
        nonlocal best
        supervisor.close()
        result = supervisor.run(case_from(basis, plan, kept))
        if result.verdict is not first.verdict:
            return False
        best = result
        return True

    every = tuple(range(len(plan.moves)))
    if fails(every):
        shrunk(every, fails)
    return replace(best, message=f"{best.message} (found as {first.case.id})") if best is not None else None


def shrunk(moves: tuple[int, ...], fails: Fails) -> tuple[int, ...]:
    """Return moves of which none can be left out, by trying without halves, quarters, and at last single ones."""
    size = max(len(moves) // 2, 1)
    while moves:
        for at in range(0, len(moves), size):
            fewer = moves[:at] + moves[at + size :]
            if fewer and fails(fewer):
                moves = fewer
                size = min(size, max(len(moves) // 2, 1))
                break
        else:
            if size == 1:
                break
            size //= 2
    return moves


__all__ = ["MOST_MOVES", "case_from", "case_of", "find_failure", "is_stateful", "shrunk", "stateful_cases"]
