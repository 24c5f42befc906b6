"""Each liar has one bug, and a session without one has none."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from hvabi.abi.errors import HvAbiError, UsageError
from hvabi.abi.registry import abi_ids, bundled, load
from hvabi.conformance.generate import cases
from hvabi.conformance.liars import Liar, liars
from hvabi.conformance.liars import all as all_module
from hvabi.conformance.liars.historic import _bugs, _changed
from hvabi.conformance.liars.liar import Planted
from hvabi.conformance.liars.smoke import supervised
from hvabi.conformance.result import Verdict

if TYPE_CHECKING:
    from hvabi.conformance.liars.liar import LyingSession

ABIS = [abi for abi in abi_ids() if not bundled(abi).draft and bundled(abi).convert_call is not None]
ID = re.compile(r"[a-z0-9-]+@[a-z0-9.-]+\.(host|guest)\.[a-z0-9-]+\.[a-z-]+\.[A-Za-z0-9._-]+")


def find(name: str) -> Liar:
    """Return the liar with an id."""
    return next(liar for liar in liars(name.partition("@")[0]) if liar.id == name)


def ask(session: LyingSession, cmd: str, **arguments: Any) -> dict[str, Any]:
    """Send a command, return the answer."""
    answer = session.handle("@hvabi " + json.dumps({"id": 1, "cmd": cmd, **arguments}))
    assert answer is not None
    found: dict[str, Any] = json.loads(answer.removeprefix("@hvabi "))
    return found


def called(name: str, regs: dict[str, str], **reset: Any) -> dict[str, Any]:
    """Return what a host liar answers to one call, and the pages afterwards."""
    liar = find(name)
    session = liar.make()
    place = {"abi": liar.abi, "revision": liar.revision, "transport": liar.transport, "role": liar.role}
    assert ask(session, "configure", **place)["ok"] == {}
    for fault in reset.pop("inject", ()):
        ask(session, "inject", **fault)
    answer = ask(session, "call", vcpu=0, regs=regs)["ok"]
    return {**answer, "ranges": ask(session, "query")["ok"]["ranges"]}


@pytest.mark.parametrize("abi", ABIS)
def test_ids_are_permanent_and_there_is_one_of_each(abi: str) -> None:
    found = [liar.id for liar in liars(abi)]
    assert len(found) == len(set(found))
    assert [name for name in found if not ID.fullmatch(name)] == []


@pytest.mark.parametrize("abi", ABIS)
def test_every_liar_has_something_planted(abi: str) -> None:
    for liar in liars(abi):
        planted = liar.planted
        right = load(liar.abi, revision=liar.revision).abi
        assert planted.host or planted.guest or planted.spec, liar.id
        if planted.spec is not None:
            assert planted.spec(right) != right, liar.id
        assert liar.what.endswith("."), liar.id


@pytest.mark.parametrize("abi", ABIS)
def test_both_roles_and_every_transport_have_liars(abi: str) -> None:
    roles = {"host", "guest"}
    wanted = {(transport, role) for transport in bundled(abi).transports for role in roles}
    assert {(liar.transport, liar.role) for liar in liars(abi)} == wanted


def test_one_role_can_be_asked_for() -> None:
    assert {liar.role for liar in liars("tdx-map-gpa", "guest")} == {"guest"}


def test_unknown_abi_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="nothing"):
        liars("nothing")


@pytest.mark.parametrize("role", ["host", "guest"])
def test_session_without_a_bug_passes_every_case(role: str) -> None:
    liar = next(iter(liars("tdx-map-gpa", role)))
    honest = replace(liar, planted=Planted())
    some = [case for case in cases("tdx-map-gpa", role=role) if case.profile is None]
    bad = [(r.case.id, r.message) for r in supervised(honest, some) if r.verdict not in (Verdict.PASS, Verdict.SKIP)]
    assert some
    assert bad == []


def test_liar_offers_only_its_own_place() -> None:
    session = find("tdx-map-gpa@ghci-1.5.host.tdcall.rule-skipped.TDX-MAPGPA-05").make()
    hello = ask(session, "hello", min=1, max=1, runner="test")["ok"]
    assert hello["abis"] == {"tdx-map-gpa": {"revisions": ["ghci-1.5"], "transports": ["tdcall"], "roles": ["host"]}}
    other = {"abi": "ghcb-psc", "revision": "ghcb-2", "transport": "vmgexit", "role": "host"}
    assert "unsupported" in ask(session, "configure", **other)


SHARE = {"rcx": "0x3c00", "r11": "0x10001", "r12": "0x800100001000", "r13": "0x2000"}
SHARED = [["0x100001000", "0x2", "shared"]]
LIES = [
    ("rule-skipped.TDX-MAPGPA-05", {**SHARE, "r12": "0x7ffffffff000"}, {"r10": "0x0"}, None),
    ("rule-skipped.TDX-MAPGPA-06", {**SHARE, "r12": "0x800100001800"}, {"r10": "0x0"}, None),
    ("status-swapped.done-status-RETRY", SHARE, {"r10": "0x1"}, SHARED),
    ("status-swapped.TDX-MAPGPA-02-status-SUCCESS", {**SHARE, "r13": "0x0"}, {"r10": "0x0"}, []),
    ("meaning.polarity", SHARE, {"r10": "0x0"}, []),
    ("meaning.start-low-half", SHARE, {"r10": "0x0"}, [["0x1000", "0x2", "shared"]]),
    ("work.last-page-forgotten", SHARE, {"r10": "0x0"}, [["0x100001000", "0x1", "shared"]]),
    ("work.one-page-too-many", SHARE, {"r10": "0x0"}, [["0x100001000", "0x3", "shared"]]),
    ("work.does-nothing", SHARE, {"r10": "0x0"}, []),
    ("footprint.refused-but-changed", {**SHARE, "r12": "0x800100001800"}, {"r10": "0x8000000000000002"}, None),
    ("bug.V9", {**SHARE, "r12": "0x800100001800"}, {"r10": "0x8000000000000002"}, None),
]


@pytest.mark.parametrize(("name", "regs", "wrong", "ranges"), LIES, ids=[row[0] for row in LIES])
def test_host_liar_lies(name: str, regs: dict[str, str], wrong: dict[str, str], ranges: list[Any] | None) -> None:
    answer = called(f"tdx-map-gpa@ghci-1.5.host.tdcall.{name}", regs)
    assert wrong.items() <= answer["regs"].items()
    if ranges is not None:
        assert answer["ranges"] == ranges
    if name.startswith(("footprint", "bug.V9")):
        assert answer["ranges"] != []


def test_k10_answers_invalid_operand_to_eagain() -> None:
    eagain = ({"fault": "vmm-error", "errno": "0xb"},)
    answer = called("tdx-map-gpa@ghci-1.5.host.tdcall.bug.K10", SHARE, inject=eagain)
    assert answer["regs"]["r10"] == "0x8000000000000000"


@pytest.mark.parametrize("row", _bugs(), ids=lambda row: f"{row['abi']}-{row['bug']}")
def test_historic_bug_fits_its_abi(row: dict[str, Any]) -> None:
    found = [liar for liar in liars(row["abi"]) if liar.id.endswith(f".bug.{row['bug']}")]
    assert found
    assert all(liar.family == "historic" and liar.role == row["role"] for liar in found)


WRONG_ROWS = [
    ([{"nonsense": 1}], "unknown-change"),
    ([{"skip-rule": "TDX-MAPGPA-99"}], "no-change"),
    ([{"rule": "TDX-MAPGPA-99", "limit": "1"}], "unknown-rule"),
]


@pytest.mark.parametrize(("rows", "code"), WRONG_ROWS, ids=[row[1] for row in WRONG_ROWS])
def test_wrong_change_of_a_historic_bug_is_an_error(rows: list[dict[str, Any]], code: str) -> None:
    with pytest.raises(HvAbiError) as caught:
        _changed(load("tdx-map-gpa").abi, rows)
    assert caught.value.code == code


def test_reason_about_no_liar_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(all_module, "_reasons", lambda: (("tdx-map-gpa@*.no-such-liar", "because", "equivalent"),))
    with pytest.raises(HvAbiError, match="no-such-liar") as caught:
        list(all_module._with_reasons("tdx-map-gpa", []))
    assert caught.value.code == "stale-equivalent"
