"""Sequences of calls: the same for a seed, right for the bundled hosts, and they find what shows after several calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hvabi.abi.errors import UsageError
from hvabi.abi.registry import abi_ids, bundled
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
SEQUENCES = 200
"""Sequences for each ABI under one profile."""
OPEN_SEQUENCES = 24
"""Sequences for each ABI under ``spec``, where every open policy is worked out for every step."""


def some(count: int, abi: str | None = None) -> list[Case]:
    return list(stateful_cases(abi, seed=40, count=count))


# -- what a seed gives ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("abi", SERVED)
def test_the_same_seed_gives_the_same_sequences(abi: str) -> None:
    first = some(2, abi)
    assert first == some(2, abi)
    assert first != list(stateful_cases(abi, seed=41, count=2))


@pytest.mark.parametrize("abi", SERVED)
def test_every_revision_and_transport_has_sequences_with_ids_of_their_own(abi: str) -> None:
    cases = some(3, abi)
    places = {(case.revision, case.transport) for case in cases}
    assert places == {(r, t) for r in bundled(abi).revisions for t in bundled(abi).transports}
    assert len({case.id for case in cases}) == len(cases)
    for case in cases:
        seed = case.id.rpartition("-")[2]
        assert case.id == f"{abi}@{case.revision}.host.{case.transport}.stateful.seed-{seed}"
        assert is_stateful(case.id)
        assert case.kind == "stateful"
        assert case.why.endswith(".")


@pytest.mark.parametrize("abi", SERVED)
def test_a_case_is_made_again_from_its_id(abi: str) -> None:
    for case in some(2, abi):
        assert case_of(case.id) == case
        part = case_of(f"{case.id}-moves-0-2")
        assert part.id == f"{case.id}-moves-0-2"
        assert len(part.steps) <= 2


def test_sequences_have_what_they_are_for() -> None:
    """Several calls, virtual CPUs, faults, refusals, resets on the way, bounds, holes and other configurations."""
    cases = some(12)
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
    for case in some(6):
        seed = int(case.id.rpartition("-")[2])
        assert seed % 2 or not case.features
        assert ("inject" in case.features) == any(step.inject is not None for step in case.steps)


def test_a_call_goes_on_from_the_state_that_the_one_before_it_left() -> None:
    """Worked out by hand: three conversions of a TD, one of them refused, then a reset."""
    basis = basis_of("tdx-map-gpa", "ghci-1.5", "tdcall", "spec")
    moves = (
        Move(what="convert", start=0x200, pages=4, to="shared"),
        Move(what="convert", start=0x201, pages=1, to="private", vcpu=1),
        Move(what="convert", start=0x210, pages=4, to="shared", inject=Inject(fault="stop-after", arguments={"pages": 1})),
        Move(what="resume", vcpu=2),
        Move(what="convert", start=0x200, pages=1, to="private", inject=Inject(fault="vmm-error", arguments={"errno": 22})),
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


@pytest.mark.parametrize("abi", SERVED)
def test_the_bundled_host_keeps_every_sequence_under_a_profile(abi: str) -> None:
    profile = next(iter(bundled(abi).profiles))
    assert find_failure(abi, "builtin", profile=profile, budget=SEQUENCES) is None


@pytest.mark.parametrize("abi", SERVED)
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
    inject=st.none() | st.builds(Inject, fault=st.just("stop-after"), arguments=st.fixed_dictionaries({"pages": st.integers(0, 5)})),
)  # fmt: skip


@pytest.mark.parametrize(
    ("abi", "revision", "transport", "profile"),
    [("tdx-map-gpa", "ghci-1.5", "tdcall", "linux-kvm-7.3"), ("ghcb-psc", "ghcb-2", "vmgexit", "linux-kvm-7.3")],
)
def test_the_bundled_host_keeps_sequences_of_any_moves(abi: str, revision: str, transport: str, profile: str) -> None:
    basis = basis_of(abi, revision, transport, profile)
    supervisor = Supervisor(
        SimpleConnector("builtin", lambda: DirectConnection(Session().handle, "builtin")), profile=profile
    )

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
        self.kept: dict[int, Any] = {}
        self.last = 0

    def _do_reset(self, command: Mapping[str, Any]) -> dict[str, Any]:
        self.kept, self.last = {}, 0
        return super()._do_reset(command)

    def _do_call(self, command: Mapping[str, Any]) -> dict[str, Any]:
        host, vcpu = self._require_host("call"), command["vcpu"]
        if vcpu != self.last:
            self.kept[self.last] = [(run.start, run.end, run.state) for run in host.backend.query()]
            host.backend.reset(self.kept.get(vcpu, self.kept.get(self.last)) if vcpu in self.kept else (), {})
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


@pytest.mark.parametrize("abi", ["tdx-map-gpa", "ghcb-psc", "kvm-map-gpa-range"])
@pytest.mark.parametrize(
    ("bug", "calls"), [(ForgetsEveryThird, 3), (StatePerVcpu, 2), (FaultStays, 2)], ids=lambda value: str(value)
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
    """Ends in the middle of the second call."""

    calls = 0

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
