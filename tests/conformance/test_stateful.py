"""Sequences of calls: the same for a seed, right for the bundled hosts; they find what shows after several calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hvabi.abi.errors import UsageError
from hvabi.abi.registry import abi_ids, bundled, load
from hvabi.conformance.case import Inject, Setup
from hvabi.conformance.connect import SimpleConnector
from hvabi.conformance.generate.basis import basis_of
from hvabi.conformance.inprocess import DirectConnection
from hvabi.conformance.iut import Session
from hvabi.conformance.moves import Move, Plan
from hvabi.conformance.result import Verdict
from hvabi.conformance.run import run_cases
from hvabi.conformance.stateful import case_from, case_of, find_failure, is_stateful, shrunk, stateful_cases
from hvabi.conformance.supervise import Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hvabi.conformance.case import Case

SERVED = [abi for abi in abi_ids() if not bundled(abi).draft]
ASKING = [abi for abi in SERVED if bundled(abi).convert_call is None]
"""ABIs that change nothing: no call of theirs leaves a state for the next one to meet."""
CHANGING = [abi for abi in SERVED if abi not in ASKING]
SEQUENCES = 200
"""Sequences for each ABI under one profile."""
OPEN_SEQUENCES = 12
"""Sequences for each ABI under ``spec``, where every open policy is worked out for every step."""


def stop_after(pages: int) -> Inject:
    return Inject(fault="stop-after", arguments={"pages": pages})


def profile_of(abi: str) -> str:
    """Return a profile, under which nothing is open, which is much faster; ``spec`` where there is none."""
    return next(iter(bundled(abi).profiles), "spec")


def some(count: int, abi: str | None = None, *, seed: int = 40) -> list[Case]:
    abis = CHANGING if abi is None else [abi]
    return [case for one in abis for case in stateful_cases(one, profile=profile_of(one), seed=seed, count=count)]


# -- what a seed gives ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("abi", CHANGING)
def test_the_same_seed_gives_the_same_sequences(abi: str) -> None:
    first = some(2, abi)
    assert first == some(2, abi)
    assert first != some(2, abi, seed=41)


@pytest.mark.parametrize("abi", CHANGING)
def test_every_revision_and_transport_has_sequences_with_ids_of_their_own(abi: str) -> None:
    cases = some(3, abi)
    places = {(case.revision, case.transport) for case in cases}
    converting = [r for r in bundled(abi).revisions if load(abi, revision=r).abi.convert_call is not None]
    assert places == {(r, t) for r in converting for t in bundled(abi).transports}
    assert len({case.id for case in cases}) == len(cases)
    for case in cases:
        seed = case.id.rpartition("-")[2]
        assert case.id == f"{abi}@{case.revision}.host.{case.transport}.stateful.seed-{seed}"
        assert is_stateful(case.id)
        assert case.kind == "stateful"
        assert case.why.endswith(".")


@pytest.mark.parametrize("abi", CHANGING)
def test_a_case_is_made_again_from_its_id(abi: str) -> None:
    for case in some(2, abi):
        assert case_of(case.id, profile=profile_of(abi)) == case
        part = case_of(f"{case.id}-moves-0-2", profile=profile_of(abi))
        assert part.id == f"{case.id}-moves-0-2"
        assert len(part.steps) <= 2


@pytest.mark.parametrize("abi", ASKING)
def test_an_abi_that_only_asks_has_no_sequences_and_that_is_said(abi: str) -> None:
    assert all(call.query is not None for call in bundled(abi).calls.values())
    assert list(stateful_cases(abi, count=3)) == []
    transport = next(iter(bundled(abi).transports))
    ident = f"{abi}@{next(iter(bundled(abi).revisions))}.host.{transport}.stateful.seed-1"
    for look in (lambda: find_failure(abi, "builtin"), lambda: case_of(ident)):
        with pytest.raises(UsageError, match="only asks"):
            look()


def test_sequences_have_what_they_are_for() -> None:
    """Several calls, virtual CPUs, faults, refusals, resets on the way, bounds, holes and other configurations."""
    cases = some(6)
    steps = [step for case in cases for step in case.steps]
    assert all(step.expected for step in steps)
    assert sum(len(case.steps) >= 3 for case in cases) > len(cases) * 3 // 4
    assert {step.vcpu for step in steps} == {0, 1, 2}
    faults = {step.inject.fault for step in steps if step.inject is not None}
    assert faults == {"vmm-error", "stop-after", "event-pending"}
    statuses = {answer.status for step in steps for answer in step.expected}
    assert statuses >= {"done", "partial", "invalid", "misaligned", "limit", "failed"}
    assert any(step.fresh for case in cases for step in case.steps[1:])
    assert any(case.setup.max_ranges is not None for case in cases)
    assert any(case.setup.memory is not None for case in cases)
    assert any(case.setup.config for case in cases)
    assert any(case.before for case in cases)


def test_half_of_the_sequences_need_no_faults() -> None:
    for case in some(2):
        seed = int(case.id.rpartition("-")[2])
        assert seed % 2 or not case.features
        assert ("inject" in case.features) == any(step.inject is not None for step in case.steps)


def test_a_call_goes_on_from_the_state_that_the_one_before_it_left() -> None:
    """Worked out by hand: three conversions of a TD, one of them refused, then a reset."""
    basis = basis_of("tdx-map-gpa", "ghci-1.5", "tdcall", "spec")
    refused = Inject(fault="vmm-error", arguments={"errno": 22})
    moves = (
        Move(what="convert", start=0x200, pages=4, to="shared"),
        Move(what="convert", start=0x201, pages=1, to="private", vcpu=1),
        Move(what="convert", start=0x210, pages=4, to="shared", inject=stop_after(1)),
        Move(what="resume", vcpu=2),
        Move(what="convert", start=0x200, pages=1, to="private", inject=refused),
        Move(what="reset"),
        Move(what="convert", start=0x300, pages=1, to="shared"),
    )  # fmt: skip
    before = ((0x100, 0x101, "shared"),)
    case = case_from(basis, Plan(seed=0, setup=Setup(), before=before, moves=moves))
    pair = ((0x200, 0x201, "shared"), (0x202, 0x204, "shared"))
    assert [step.expected[0].state for step in case.steps] == [
        (*before, (0x200, 0x204, "shared")),
        (*before, *pair),
        (*before, *pair, (0x210, 0x211, "shared")),
        (*before, *pair, (0x210, 0x214, "shared")),
        (*before, *pair, (0x210, 0x214, "shared")),
        (*before, (0x300, 0x301, "shared")),
    ]
    assert [step.fresh for step in case.steps] == [False] * 5 + [True]
    shared = 1 << 47
    assert (case.steps[3].regs["r12"], case.steps[3].regs["r13"]) == (shared | 0x211000, 0x3000)


@pytest.mark.parametrize(
    "ident",
    [
        "tdx-map-gpa@ghci-1.5.host.tdcall.TDX-MAPGPA-05.size-unaligned",
        "tdx-map-gpa@ghci-1.5.guest.tdcall.stateful.seed-1",
        "tdx-map-gpa@ghci-1.5.host.tdcall.stateful.seed-",
        "tdx-map-gpa@ghci-1.5.host.tdcall.stateful.seed-1-moves-",
        "tdx-map-gpa@ghci-1.5.host.tdcall.stateful.seed-1-moves-999",
        "tdx-map-gpa@ghci-1.5.host.tdcall.stateful.seed-1-moves-2-1",
        "tdx-map-gpa@ghci-1.5.host.tdcall.stateful.seed-1-moves-1-1",
        "tdx-map-gpa@ghci-9.host.tdcall.stateful.seed-1",
        "tdx-map-gpa@ghci-1.5.host.vmcall.stateful.seed-1",
        "no-such-abi@1.host.tdcall.stateful.seed-1",
        "",
        "stateful.seed-1" * 1000,
    ],
)
def test_an_id_that_no_sequence_has_is_an_error(ident: str) -> None:
    with pytest.raises(UsageError):
        case_of(ident)


# -- shrinking -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("needed", [{3}, {0, 9}, {2, 7}, {0, 1, 2}, {4, 5, 6, 11}, set(range(12))])
def test_shrinking_leaves_what_is_needed(needed: set[int]) -> None:
    tried: list[tuple[int, ...]] = []

    def fails(kept: tuple[int, ...]) -> bool:
        tried.append(kept)
        return needed <= set(kept)

    assert set(shrunk(tuple(range(12)), fails)) == needed
    assert len(tried) < 150
    assert all(kept == tuple(sorted(kept)) for kept in tried)


def test_shrinking_what_never_fails_again_changes_nothing() -> None:
    assert shrunk((0, 1, 2), lambda kept: False) == (0, 1, 2)
    assert shrunk((), lambda kept: True) == ()


# -- the bundled hosts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("abi", CHANGING)
def test_the_bundled_host_keeps_every_sequence_under_a_profile(abi: str) -> None:
    profile = profile_of(abi)
    loose = profile == "spec" and any(policy.open for policy in bundled(abi).policies.values())
    assert find_failure(abi, "builtin", profile=profile, budget=SEQUENCES // 4 if loose else SEQUENCES) is None


@pytest.mark.parametrize("abi", CHANGING)
def test_the_bundled_host_keeps_every_sequence(abi: str) -> None:
    assert find_failure(abi, "builtin", seed=1000, budget=OPEN_SEQUENCES) is None


MOVES = st.builds(
    Move,
    what=st.sampled_from(["convert", "convert", "broken", "resume", "repeat", "reset"]),
    start=st.integers(0x1F0, 0x210),
    pages=st.sampled_from([1, 2, 5, 16]),
    to=st.sampled_from(["shared", "private"]),
    broken=st.integers(0, 99),
    vcpu=st.integers(0, 2),
    inject=st.none() | st.builds(stop_after, st.integers(0, 5)),
)


@pytest.mark.parametrize(
    ("abi", "revision", "transport", "profile"),
    [("tdx-map-gpa", "ghci-1.5", "tdcall", "linux-kvm-7.3"), ("ghcb-psc", "ghcb-2", "vmgexit", "linux-kvm-7.3")],
)
def test_the_bundled_host_keeps_sequences_of_any_moves(abi: str, revision: str, transport: str, profile: str) -> None:
    basis = basis_of(abi, revision, transport, profile)
    supervisor = Supervisor(over(Session), profile=profile)

    @settings(max_examples=60, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(MOVES, max_size=12))
    def check(moves: list[Move]) -> None:
        case = case_from(basis, Plan(seed=0, setup=Setup(), before=(), moves=tuple(moves)))
        result = supervisor.run(case)
        assert result.verdict is Verdict.PASS, (result.message, result.findings)

    try:
        check()
    finally:
        supervisor.close()


# -- planted bugs --------------------------------------------------------------------------------------------


class ForgetsEveryThird(Session):
    """Answers every call rightly, and takes back what every third one since the reset has changed."""

    calls = 0

    def _do_reset(self, command: Mapping[str, Any]) -> dict[str, Any]:
        self.calls = 0
        return super()._do_reset(command)

    def _do_call(self, command: Mapping[str, Any]) -> dict[str, Any]:
        self.calls += 1
        host = self._require_host("call")
        kept = [(run.start, run.end, run.state) for run in host.backend.query()]
        answer = super()._do_call(command)
        if self.calls % 3 == 0:
            host.backend.reset(kept, {})
        return answer


class StatePerVcpu(Session):
    """Keeps the pages per virtual CPU: what one has converted the others do not see."""

    def __init__(self) -> None:
        super().__init__()
        self.first: Any = []
        self.kept: dict[int, Any] = {}
        self.last = 0

    def ranges(self) -> list[Any]:
        return [(run.start, run.end, run.state) for run in self._require_host("call").backend.query()]

    def _do_reset(self, command: Mapping[str, Any]) -> dict[str, Any]:
        answer = super()._do_reset(command)
        self.first, self.kept, self.last = self.ranges(), {}, 0
        return answer

    def _do_call(self, command: Mapping[str, Any]) -> dict[str, Any]:
        vcpu = command["vcpu"]
        if vcpu != self.last:
            self.kept[self.last] = self.ranges()
            self._require_host("call").backend.reset(self.kept.get(vcpu, self.first), {})
            self.last = vcpu
        return super()._do_call(command)


class FaultStays(Session):
    """A fault stays for the call after the next one too."""

    old: Any = None

    def _do_call(self, command: Mapping[str, Any]) -> dict[str, Any]:
        now = self._inject
        if self.old is not None:
            self._inject, self.old = self.old, None
        elif now.vmm_errno is not None:
            self.old = now
        return super()._do_call(command)

    def _do_reset(self, command: Mapping[str, Any]) -> dict[str, Any]:
        self.old = None
        return super()._do_reset(command)


class ForgetsReset(Session):
    """Lays down the state of a reset over what there is, from the second reset on."""

    resets = 0

    def _do_configure(self, command: Mapping[str, Any]) -> dict[str, Any]:
        self.resets = 0
        return super()._do_configure(command)

    def _do_reset(self, command: Mapping[str, Any]) -> dict[str, Any]:
        self.resets += 1
        host = self._require_host("reset")
        kept = [(run.start, run.end, run.state) for run in host.backend.query()]
        answer = super()._do_reset(command)
        if self.resets > 1 and not command.get("ranges"):
            host.backend.reset(kept, {})
        return answer


def over(make: Callable[[], Session]) -> SimpleConnector:
    return SimpleConnector("planted", lambda: DirectConnection(make().handle, "planted"))


@pytest.mark.parametrize(
    ("abi", "bug", "calls"),
    [
        ("tdx-map-gpa", ForgetsEveryThird, 3),
        ("ghcb-psc", ForgetsEveryThird, 3),
        ("kvm-memory-attributes", ForgetsEveryThird, 3),
        ("ghcb-msr-psc", StatePerVcpu, 2),
        ("kvm-map-gpa-range", StatePerVcpu, 2),
        ("tdx-map-gpa", FaultStays, 2),
    ],
)
def test_a_bug_that_shows_after_several_calls_is_found_shrunk_and_replayed(
    abi: str, bug: type[Session], calls: int
) -> None:
    profile = next(name for name in bundled(abi).profiles if name.startswith("linux-kvm"))
    found = find_failure(abi, over(bug), profile=profile, budget=60)
    assert found is not None
    assert found.verdict is Verdict.FAIL
    assert found.findings
    case = found.case
    assert len(case.steps) == calls, [step.fields for step in case.steps]
    assert found.findings[0].step == calls - 1
    again = case_of(case.id, profile=profile)
    assert again == case
    assert run_cases([again], over(bug), profile=profile).results[0].verdict is Verdict.FAIL
    assert run_cases([again], "builtin", profile=profile).results[0].verdict is Verdict.PASS
    assert f"--case {case.id}" in found.reproduce


def test_a_host_that_keeps_pages_over_a_reset_is_found() -> None:
    found = find_failure("tdx-map-gpa", over(ForgetsReset), profile="linux-kvm-7.3", budget=60)
    assert found is not None
    assert found.verdict is Verdict.FAIL
    assert len(found.case.steps) <= 2


class Crashes(Session):
    """Ends in the middle of the second call since a reset."""

    calls = 0

    def _do_reset(self, command: Mapping[str, Any]) -> dict[str, Any]:
        self.calls = 0
        return super()._do_reset(command)

    def _do_call(self, command: Mapping[str, Any]) -> dict[str, Any]:
        self.calls += 1
        if self.calls == 2:
            raise RuntimeError("the second call")
        return super()._do_call(command)


def test_a_crash_is_found_and_shrunk_too() -> None:
    found = find_failure("ghcb-msr-psc", over(Crashes), profile="linux-kvm-7.3", budget=20)
    assert found is not None
    assert found.verdict is Verdict.CRASH
    assert len(found.case.steps) == 2


def test_an_abi_without_sequences_is_an_error() -> None:
    with pytest.raises(UsageError):
        find_failure("s390-uv-share", "builtin", transport="no-such")


class LeaksBetweenCases(Session):
    """Is wrong from the 41st reset on, whatever is asked."""

    resets = 0

    def _do_reset(self, command: Mapping[str, Any]) -> dict[str, Any]:
        self.resets += 1
        return super()._do_reset(command)

    def _do_call(self, command: Mapping[str, Any]) -> dict[str, Any]:
        answer = super()._do_call(command)
        if self.resets > 40:
            answer["ok"]["regs"] = {"rbp": "0x1"}
        return answer


def test_what_fails_only_after_other_cases_is_said_to() -> None:
    found = find_failure("ghcb-msr-psc", over(LeaksBetweenCases), profile="linux-kvm-7.3", budget=60)
    assert found is not None
    assert found.verdict is Verdict.FAIL
    assert "does not fail in a session of its own" in found.message
    assert "-moves-" not in found.case.id
