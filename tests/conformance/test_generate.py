"""The generated cases: permanent ids, every rule on both sides of its limit, pairs, progress, roles and transports."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from functools import cache
from typing import TYPE_CHECKING

import pytest

from hvabi.abi.registry import abi_ids, bundled, load
from hvabi.conformance.catalogue import every_case
from hvabi.conformance.coverage import coverage
from hvabi.conformance.generate import cases
from hvabi.conformance.generate.basis import Basis, basis_of
from hvabi.conformance.generate.handled import names_at
from hvabi.conformance.generate.judged import judge, read_fields
from hvabi.conformance.generate.question import Question
from hvabi.conformance.generate.rules import bases
from hvabi.conformance.generate.way import at_the_end
from hvabi.conformance.oracle.walk import Undefined, value
from hvabi.conformance.stories import regression_cases
from tests.conformance.case_ids import listed_ids

if TYPE_CHECKING:
    from hvabi.abi.calls import Call, Rule
    from hvabi.conformance.case import Case, HostStep

SERVED = [abi for abi in abi_ids() if not bundled(abi).draft]
CONVERTING = [abi for abi in SERVED if bundled(abi).convert_call is not None]
"""Those that convert; the others only ask, and have no guest's side in the line protocol."""
ID = re.compile(
    r"(?P<abi>[a-z0-9-]+)@(?P<revision>[a-z0-9.-]+)\.(?P<role>host|guest)\.(?P<transport>[a-z0-9-]+)"
    r"\.(?P<group>[A-Za-z0-9-]+)\.(?P<name>[a-z0-9-]+)"
)
LIMITED = {"aligned", "non-empty", "no-wrap", "below", "at-most", "count-at-most", "within", "same-half"}
"""Checks of a number against a limit: a right number next to it is a case too."""


@cache
def cases_of(abi: str, profile: str = "spec") -> tuple[Case, ...]:
    return tuple(cases(abi, profile=profile))


def all_spec() -> list[Case]:
    return [case for abi in SERVED for case in cases_of(abi)]


@pytest.fixture(scope="module")
def everything() -> list[Case]:
    """Return the generated cases under every profile, and the regression collection."""
    found = list(every_case())
    for profile in sorted({name for abi in SERVED for name in bundled(abi).profiles}):
        found += every_case(profile=profile)
    return found


def host_rules(abi: str) -> dict[str, str]:
    """Return the checks of the rules that a host answers a call by, by id."""
    rules = [rule for call in bundled(abi).served_calls for rule in call.rules]
    return {rule.id: rule.check for rule in rules if rule.binds == "host" and rule.on == "request"}


def bases_of(abi: str, profile: str = "spec") -> list[Basis]:
    """Return what cases are made from: every call over every transport that carries it, in every revision."""
    found = []
    for revision in bundled(abi).revisions:
        spec = load(abi, revision=revision).abi
        for transport in spec.transports.values():
            for call in spec.served_calls:
                if call.request in transport.placements:
                    name = None if call is spec.convert_call else call.name
                    found.append(basis_of(abi, revision, transport.name, profile, name))
    return found


def asked(case: Case) -> HostStep:
    """Return the call that a case about a rule is about: with handles, calls that give them come before it."""
    return case.steps[-1] if bundled(case.abi).handles is not None else case.steps[0]


def met_by_right_requests(abi: str) -> set[str]:
    """Return the rules at whose limit right requests are: a length that is worked out, an offset that is a header's."""
    return {
        rule.id
        for profile in ("spec", *bundled(abi).profiles)
        for basis in bases_of(abi, profile)
        for question in bases(basis)
        for rule in basis.call.rules
        if rule.binds == "host" and rule.on == "request" and _is_at_limit(rule, basis, question)
    }


def _is_at_limit(rule: Rule, basis: Basis, question: Question) -> bool:
    names = names_at(basis, question)
    try:
        numbers = [value(expr, names) for expr in rule.operands.get("of", ())]
        if rule.check == "aligned":
            return any(number % (2 * value(rule.operands["to"][0], names)) for number in numbers)
        if rule.check in ("at-most", "count-at-most"):
            return any(number == value(rule.operands["limit"][0], names) for number in numbers)
    except Undefined:
        pass  # what the rule looks at is not there
    return False


# -- numbers of calls ----------------------------------------------------------------------------------------

_KVM = {*range(1, 12)}
_EXITS = {0x72, 0x7B, 0x7C, *range(0x80000001, 0x80000006), 0x80000011, 0x80000012, 0x80000013, 0x8000FFFD, 0x8000FFFE}
OTHERS = {
    ("kvm-map-gpa-range", "nr"): _KVM,
    ("kvm-map-gpa-range", "exit_code"): {*_EXITS, 0x80000010, 0x80000018},
    ("kvm-page-enc-status", "nr"): _KVM,
    ("kvm-exit-hypercall", "nr"): _KVM,
    ("tdx-map-gpa", "standard"): {*_KVM, 12},
    ("tdx-map-gpa", "leaf"): {10, 12, 30, 31, 32, 48, 54, 0x10000, 0x10002, 0x10003, 0x10004, 0x10005},
    ("ghcb-psc", "exit_code"): {*_EXITS, 0x81, 0x80000018},
    ("ghcb-msr-psc", "info"): {0x000, 0x002, 0x004, 0x006, 0x010, 0x012, 0x016, 0x080, 0x100},
    ("svsm-pvalidate", "call_id"): {0, 2, 3, 4, 5, 6, 7},
    ("svsm-pvalidate", "protocol"): {1, 2, 3},
    ("hyperv-host-visibility", "control.call_code"): {0x0001, 0x000B, 0x00D9, 0x00DA, 0x00DC, 0x011C, 0x8001},
    ("hyperv-query-visibility", "control.call_code"): {0x0001, 0x000B, 0x00DB, 0x011B, 0x011D, 0x8001},
    ("hyperv-accept-pages", "control.call_code"): {0x0001, 0x000B, 0x00D8, 0x00DA, 0x00DB, 0x8001},
    ("s390-uv-share", "cmd"): {0x0001, 0x1020, 0x1031, 0x1033, 0x1034, 0x1035},
    ("pkvm-mem-share", "function"): {0x86000001, 0xC6000007, 0xC6000040, 0xC6000041},
}
"""Calls that a real host may have beside the one that is tested, from the documents: whoever has them answers them."""


@pytest.mark.parametrize(("abi", "path"), OTHERS)
def test_no_case_makes_another_call_of_the_same_interface(abi: str, path: str) -> None:
    sent: set[int] = set()
    name, _, part = path.partition(".")
    for case in (*cases_of(abi), *regression_cases(abi)):
        first = load(abi, revision=case.revision).abi.served_calls[0]
        for step in case.steps:
            basis = basis_of(abi, case.revision, case.transport, "spec", step.call or case.call)
            if basis.call.name != first.name or not basis.carries(name):
                continue
            fields = read_fields(basis, Question(fields={}, setup=case.setup), dict(step.regs), step.mem)
            if fields is not None:
                sent.add(fields[name][part] if part else fields[name])
    assert len(sent) > 1, "numbers that are nobody's are sent"
    assert sent & OTHERS[abi, path] == set()


# -- ids -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("abi", SERVED)
def test_ids_are_unique_and_of_the_permanent_form(abi: str) -> None:
    count = Counter(case.id for case in cases_of(abi))
    assert [ident for ident, times in count.items() if times > 1] == []
    rules = {rule.id for call in bundled(abi).calls.values() for rule in call.rules}
    for case in cases_of(abi):
        found = ID.fullmatch(case.id)
        assert found is not None, case.id
        assert found.groupdict() == {
            "abi": case.abi, "revision": case.revision, "role": case.role, "transport": case.transport,
            "group": found["group"], "name": found["name"],
        }  # fmt: skip
        if found["group"].isupper():
            assert found["group"] in rules, case.id
            # A case of kind `edge` can be about a rule whose guard is off: then another one may decide.
            assert case.kind == "edge" or found["group"] == case.rules[0], case.id


def test_the_ids_of_regressions_and_of_generated_cases_do_not_meet(everything: list[Case]) -> None:
    told = {case.id for case in everything if case.kind == "regression"}
    assert told
    assert told.isdisjoint(case.id for case in everything if case.kind != "regression")


def test_no_id_is_lost(everything: list[Case]) -> None:
    """See tests/conformance/case_ids.py for what to do about a difference."""
    listed = listed_ids()
    assert listed == sorted(set(listed))
    now = {case.id for case in everything if case.kind != "regression"}
    lost = [ident for ident in listed if ident not in now]
    assert lost == [], "removed or renamed; if it is meant: python -m tests.conformance.case_ids"


@pytest.mark.parametrize("abi", SERVED)
def test_the_same_seed_gives_the_same_cases(abi: str) -> None:
    basis_of.cache_clear()
    assert tuple(cases(abi, seed=0)) == cases_of(abi)


@pytest.mark.parametrize("abi", SERVED)
def test_a_part_is_a_part_of_the_whole(abi: str) -> None:
    whole = cases_of(abi)
    transport = next(iter(bundled(abi).transports))
    assert list(cases(abi, transport=transport)) == [case for case in whole if case.transport == transport]
    assert list(cases(abi, role="guest")) == [case for case in whole if case.role == "guest"]


# -- what a case says ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("abi", SERVED)
def test_every_case_is_complete(abi: str) -> None:
    spec = bundled(abi)
    known = {rule.id for call in spec.calls.values() for rule in call.rules}
    for case in cases_of(abi):
        assert case.abi == abi
        assert set(case.rules) <= known, case.id
        assert len(set(case.rules)) == len(case.rules)
        assert re.fullmatch(r"[A-Z][^\n]*[.]", case.why), (case.id, case.why)
        assert " " in case.why.strip()
        assert case.profile is None
        assert case.level in ("must", "should", "may", "unspecified")
        if case.role == "host":
            assert case.script is None
            assert case.steps, case.id
            assert all(step.expected for step in case.steps), case.id
            assert ("inject" in case.features) == any(step.inject is not None for step in case.steps)
        else:
            assert case.steps == ()
            assert case.script is not None


@pytest.mark.parametrize("abi", SERVED)
def test_a_case_under_a_profile_has_one_answer(abi: str) -> None:
    for profile in bundled(abi).profiles:
        found = cases_of(abi, profile)
        assert found
        for case in found:
            assert case.profile == profile
            for step in case.steps:
                assert len(step.expected) == 1, case.id


@pytest.mark.parametrize("abi", SERVED)
def test_what_is_observed_is_asserted_under_a_profile_only(abi: str) -> None:
    observed = {rule.id for call in bundled(abi).served_calls for rule in call.rules if rule.level == "observed"}
    for case in cases_of(abi):
        assert not {answer.rule for step in case.steps for answer in step.expected} & observed, case.id


# -- what is covered -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("abi", SERVED)
def test_every_transport_and_revision_has_both_roles(abi: str) -> None:
    found = {(case.revision, case.transport, case.role) for case in cases_of(abi)}
    # Of some revisions only a call that asks is known.
    whole = {(one.abi.revision, one.transport, role) for one in bases_of(abi) for role in ("host", "guest")}
    assert found == {row for row in whole if row[2] == "host" or row[0] in converting(abi)}


def converting(abi: str) -> list[str]:
    """Return the revisions that have a call that converts."""
    return [name for name in bundled(abi).revisions if load(abi, revision=name).abi.convert_call is not None]


@pytest.mark.parametrize("abi", CONVERTING)
def test_every_state_is_asked_for_and_done(abi: str) -> None:
    spec = bundled(abi)
    for revision in converting(abi):
        for transport in spec.transports:
            basis = basis_of(abi, revision, transport, "spec")
            prefix = f"{basis.prefix}.host.{transport}.done."
            names = {case.id.removeprefix(prefix) for case in cases_of(abi) if case.id.startswith(prefix)}
            for state in basis.states():
                assert {f"one-page-to-{state}", f"already-{state}", f"twice-to-{state}"} <= names


@pytest.mark.parametrize("abi", SERVED)
def test_every_rule_with_a_limit_has_cases_on_both_sides(abi: str) -> None:
    broken: defaultdict[str, int] = defaultdict(int)
    kept: defaultdict[str, int] = defaultdict(int)
    for profile in ("spec", *bundled(abi).profiles):
        for case in cases_of(abi, profile):
            if case.kind == "rule":
                side = kept if case.id.endswith("-kept") else broken
                side[case.rules[0]] += 1
    met = met_by_right_requests(abi) if bundled(abi).handles is not None else set()
    for rule, check in host_rules(abi).items():
        # The other side of nothing, of one bit and of the only version is every right request; that of a full list is
        # one of those done.
        one_sided = check == "non-empty" or rule in ("KVM-MEMATTR-04", "SVSM-PVAL-11", "COMMON-06", "COMMON-09")
        one_sided |= rule in met
        # A list of half a megabyte is no case.
        one_sided |= rule in ("KVM-ENCBMAP-04", "KVM-ENCBMAP-12", "KVM-ENCBMAP-34", "KVM-ENCBMAP-42", "KVM-SHLIST-13")
        assert check not in LIMITED or (broken[rule] and (kept[rule] or one_sided)), (rule, broken[rule], kept[rule])


@pytest.mark.parametrize(
    ("abi", "names"),
    [
        ("tdx-map-gpa", ["TDX-MAPGPA-06.edge-size-plus-1", "TDX-MAPGPA-06.edge-gpa-plus-1",
                         "TDX-MAPGPA-09.edge-gpa-limit", "TDX-MAPGPA-03.edge-gpa-to-the-wrap",
                         "TDX-MAPGPA-05.gpa-half-minus-page-kept"]),
        ("kvm-memory-attributes", ["KVM-MEMATTR-07.edge-size-plus-1", "KVM-MEMATTR-07.edge-address-plus-1"]),
        ("kvm-map-gpa-range", [f"KVM-MAPGPA-05.edge-valid-bitmap-without-bit-{n}" for n in (25, 63, 114, 115, 116)]),
        ("ghcb-psc", ["GHCB-PSC-10.edge-cur-page-limit-plus-1", "GHCB-PSC-10.edge-cur-page-limit-kept",
                      "GHCB-PSC-07.edge-sw-scratch-high", "GHCB-PSC-07.edge-sw-scratch-low-minus-1",
                      "GHCB-PSC-07.edge-sw-scratch-low-plus-1-kept", "GHCB-PSC-09.edge-end-entry-limit",
                      "GHCB-PSC-12.edge-operation-unknown", "GHCB-PSC-17.edge-cur-entry-limit-plus-1"]),
    ],
)  # fmt: skip
def test_limits_that_an_engineer_would_look_for_are_there(abi: str, names: list[str]) -> None:
    """One operand behind another, elements of lists, each bit of a mask."""
    found = {".".join(case.id.rsplit(".", 2)[1:]) for case in cases_of(abi)}
    assert set(names) <= found


# Cases about single pages: where the bad page is, where the host stops, and whether it then comes to the bad page.
KEPT = re.compile(r".*-kept|page-does-not-matter-.*|page-around-.*|page-middle-stop-after-[12]-.*")


@pytest.mark.parametrize("abi", SERVED)
def test_what_breaks_a_rule_is_answered_by_it_and_what_keeps_it_is_not(abi: str) -> None:
    for case in cases_of(abi):
        if case.kind != "rule":
            continue
        name = case.id.rpartition(".")[2]
        decided = {ident for answer in asked(case).expected for ident in (answer.rule, *answer.replayed)}
        rule = case.rules[name.startswith("page-later-")]
        if KEPT.fullmatch(name):
            assert rule not in decided, case.id
        elif rule not in decided:
            # Under another value of a policy another rule gives the very same answer, and one of them is named.
            assert any(answer.also for answer in asked(case).expected), case.id
            assert decided - {None}, case.id


@pytest.mark.parametrize("abi", SERVED)
def test_pairs_show_which_rule_is_judged_first(abi: str) -> None:
    every = {rule.id: call for call in bundled(abi).calls.values() for rule in call.rules}
    pairs = [case for case in cases_of(abi) if case.kind == "pair"]
    for case in pairs:
        first, second = case.rules
        call = every[first]
        order = [rule.id for rule in call.rules]
        assert order.index(first) < order.index(second)
        default, *others = asked(case).expected
        assert first in (default.rule, *default.replayed), case.id
        if call.order == "stated":
            # Another value of a policy may switch the first rule off, and nothing else may bring up the second.
            assert all(one.policies != default.policies for one in others if one.rule == second), case.id
    if any(call.order == "stated" for call in bundled(abi).served_calls):
        assert pairs


@pytest.mark.parametrize("abi", CONVERTING)
def test_every_kind_of_progress_is_stopped_and_gone_on_with(abi: str) -> None:
    for revision in converting(abi):
        call = load(abi, revision=revision).abi.convert_call
        assert call is not None
        _progress(call, [case for case in cases_of(abi) if case.revision == revision])


def _progress(call: Call, found: list[Case]) -> None:
    progress = call.progress
    stopped = [case for case in found if case.kind == "progress" and case.call is None]
    guests = [case for case in found if case.role == "guest" and ".progress." in case.id]
    # Where every such answer is a replay, the guest's processor makes the call again and the guest sees nothing of it.
    seen = any(answer.end == "return" for answer in call.outcomes.get("partial", ()) if answer.cannot is None)
    again = progress is not None and progress.resume == "reexecute"
    if progress is not None and progress.resume == "fragment":
        # A host does such a list whole or not at all: it does not stop on the way, it asks for what is still to come.
        assert not call.reports_parts(found[0].transport)
        assert progress.chunk is None
        assert not stopped
        assert not guests
        _parts(found)
        return
    assert bool(stopped) == (progress is not None)
    assert bool(guests) == (progress is not None and (seen or again))
    if progress is None:
        return
    faults = {step.inject.fault for case in stopped for step in case.steps if step.inject is not None}
    assert faults == ({"stop-after", "event-pending"} if progress.chunk is not None else {"stop-after"})
    gone_on = [case for case in stopped if len(case.steps) == 2]
    assert gone_on
    for case in gone_on:
        assert case.steps[1].expected[0].status == "done"
        assert case.steps[1].inject is None
    once = "again-once" if again else "none-once"
    for name in ("none-for-ever", "one-at-a-time", once) if guests else ():
        assert any(f".progress.{name}-" in case.id for case in guests)


def _parts(found: list[Case]) -> None:
    """A list in parts: gone on with to its end, left at every place, in disorder, twice; and what a guest believes."""
    host, guest = (
        {case.id.rpartition(f".{group}.")[2]: case for case in found if case.role == role and f".{group}." in case.id}
        for role, group in (("host", "handles"), ("guest", "parts"))
    )
    (more,) = {step.call for step in host["three-parts"].steps[1:3]}
    *parts, last, closed = host["three-parts"].steps
    for step in parts:
        assert step.expected[0].status == "done"
        assert step.expected[0].state == ()
        assert step.inject is None
    assert (last.call, last.expected[0].status) == (more, "done")
    assert last.expected[0].state != ()
    assert closed.expected[0].state == ()
    for name in ("a-part-twice", "last-part-twice", "two-at-once", "a-part-for-nobody", "closed-too-early"):
        assert any(step.call == more for step in host[name].steps)
    refused = {name for name, case in host.items() if case.steps[-1].expected[0].rule is not None}
    assert {"last-part-twice"} <= refused
    assert any(name.startswith("never-finished-") for name in refused)
    assert any(name.startswith("too-many-parts-") for name, case in host.items())
    ends = {name.rpartition("-to-")[0] for name in guest}
    assert ends >= {"several", "done-too-early", "never-enough", "second-refused", "third-refused"}


def test_units_of_progress_that_are_at_hand() -> None:
    units = {call.progress.unit for abi in SERVED for call in bundled(abi).calls.values() if call.progress is not None}
    assert units >= {"byte", "element", "page"}


@pytest.mark.parametrize("abi", SERVED)
def test_right_requests_are_right(abi: str) -> None:
    """What every other case begins with breaks no rule and changes the pages that it names."""
    for basis in bases_of(abi):
        found = bases(basis)
        assert found or basis.call.convert is None, basis.call.name
        for question in found:
            judged = judge(basis, question)
            assert judged is not None
            # Another value of an open policy may refuse it.
            right = [answer for answer in judged.answers if answer.rule is None]
            assert judged.answers[0] in right
            returned = [answer for answer in right if answer.end == "return"]
            there = at_the_end(basis, question)
            changed = {(answer.state, answer.facts) != (there.before, there.facts) for answer in returned}
            assert changed <= {basis.call.convert is not None}


# -- coverage ------------------------------------------------------------------------------------------------


def test_no_must_is_without_a_case(everything: list[Case]) -> None:
    assert [row.rule for row in coverage(everything) if row.missing] == []


def test_a_must_whose_last_case_goes_away_is_missing(everything: list[Case]) -> None:
    whole = everything
    rows = coverage(whole)
    by_abi = {abi: [case for case in whole if case.abi == abi] for abi in SERVED}
    for row in rows:
        if row.level != "must" or row.exempt is not None:
            continue
        left = [case for case in by_abi[row.abi] if row.rule not in case.rules]
        (found,) = [one for one in coverage(left, [row.abi]) if one.rule == row.rule]
        assert found.missing
        assert found.cases == 0


def test_coverage_counts_every_rule_of_every_call_once() -> None:
    rows = coverage(all_spec())
    rules = [(abi, rule.id) for abi in SERVED for call in bundled(abi).calls.values() for rule in call.rules]
    assert [(row.abi, row.rule) for row in rows] == rules
    assert sum(row.cases for row in rows) == sum(len(case.rules) for case in all_spec())


def test_a_profile_that_an_abi_has_not_gives_no_cases() -> None:
    assert list(cases("tdx-map-gpa", profile="openvmm")) == []
    assert load("tdx-map-gpa").abi.profiles.keys() == {"linux-kvm-6.16", "linux-kvm-7.3"}
