"""hvabi list, show, explain: what a person and a program look up."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from hvabi.abi.registry import Spec, abi_ids, bundled
from hvabi.cli.show import SECTIONS

if TYPE_CHECKING:
    from tests.cli.conftest import Run


@pytest.fixture(name="catalogue")
def _catalogue(hv: Run) -> dict[str, Any]:
    ran = hv("list", "--json")
    assert (ran.code, ran.err) == (0, "")
    return {item["id"]: item for item in json.loads(ran.out)["abis"]}


def test_list_names_every_abi(hv: Run) -> None:
    ran = hv("list")
    assert ran.code == 0
    for abi in abi_ids():
        assert f"  {abi}  " in ran.out


def test_list_finds_words(hv: Run) -> None:
    ran = hv("list", "SNP", "page form")
    assert "ghcb-psc" in ran.out
    assert "tdx-map-gpa" not in ran.out


def test_list_json_has_what_an_implementer_needs(catalogue: dict[str, Any]) -> None:
    tdx = catalogue["tdx-map-gpa"]
    assert tdx["path"] == "spec/intel/tdx-map-gpa.yaml"
    assert tdx["revisions"]["ghci-1.5"]["default"] is True
    assert tdx["config"]["gpaw"]["default"] == "0x30"
    assert tdx["config"]["gpaw"]["choices"] == ["0x30", "0x34"]
    request = tdx["transports"]["tdcall"]["messages"]["request"]
    assert request["fixed"] == {"rax": "0"}
    assert request["place"]["gpa"] == [{"register": "r12", "bits": [63, 0]}]
    assert tdx["calls"]["map"]["request"] == "request"
    assert tdx["profiles"]["spec"]["policies"]["eagain"] == "retry"
    assert tdx["enums"]["status"]["values"]["ALIGN_ERROR"]["value"] == "0x8000000000000002"


@pytest.mark.parametrize(
    ("abi", "transport", "message", "field", "place"),
    [
        ("ghcb-psc", "vmgexit", "request", "exit_code", {"block": "ghcb", "offset": "912", "size": 8, "bits": [63, 0]}),
        ("ghcb-psc", "vmgexit", "request", "end_entry", {"block": "psc", "offset": "2", "size": 2, "bits": [15, 0]}),
        ("ghcb-psc", "vmgexit", "request", "entries", {"block": "psc", "offset": "PSC_HEADER", "stride": "PSC_ENTRY"}),
        ("ghcb-msr-psc", "vmgexit-msr", "request", "gfn", {"register": "msr_c0010130", "bits": [51, 12]}),
        ("kvm-map-gpa-range", "vmcall32", "request", "nr", {"register": "rax", "bits": [31, 0]}),
        ("hyperv-host-visibility", "memory32", "request", "control", {"pair": {"high": "rdx", "low": "rax"}}),
    ],
)
def test_list_json_places(
    catalogue: dict[str, Any], abi: str, transport: str, message: str, field: str, place: dict[str, Any]
) -> None:
    assert catalogue[abi]["transports"][transport]["messages"][message]["place"][field] == [place]


def test_list_json_has_every_name(catalogue: dict[str, Any]) -> None:
    """Nothing of a specification that an implementer can be asked for is left out."""
    for name in abi_ids():
        abi, found = bundled(name), catalogue[name]
        assert list(found["revisions"]) == list(abi.revisions)
        assert list(found["config"]) == list(abi.config)
        assert list(found["facts"]) == list(abi.facts)
        assert list(found["policies"]) == list(abi.policies)
        assert list(found["profiles"]) == ["spec", *abi.profiles]
        assert list(found["transports"]) == list(abi.transports)
        for key, transport in abi.transports.items():
            for message, placement in transport.placements.items():
                there = found["transports"][key]["messages"][message]
                assert list(there["place"]) == list(placement.place)
                assert all(len(there["place"][field]) == len(ways) for field, ways in placement.place.items())


def test_list_json_is_the_same_each_time_and_names_no_path_of_this_machine(hv: Run) -> None:
    first, second = hv("list", "--json").out, hv("list", "--json").out
    assert first == second
    assert '"path": "/' not in first


@pytest.mark.parametrize("columns", [60, 80, 120])
@pytest.mark.parametrize("abi", abi_ids())
def test_show_fits_the_terminal(hv: Run, abi: str, columns: int) -> None:
    ran = hv("show", abi, columns=columns)
    assert (ran.code, ran.err) == (0, "")
    for line in ran.out.splitlines():
        # A word that is longer than the line stays whole.
        assert len(line) <= columns or len(line.split()) <= 4 or max(map(len, line.split())) > 20, line


@pytest.mark.parametrize("abi", abi_ids())
def test_show_has_every_rule_field_and_example(hv: Run, abi: str) -> None:
    for revision in bundled(abi).revisions:
        spec = Spec(bundled(abi).resolve(revision=revision)).abi
        page = hv("show", f"{abi}@{revision}", columns=120).out
        for call in spec.calls.values():
            for rule in call.rules:
                assert f"  {rule.id}  " in page
        for message in spec.messages.values():
            for field in message.fields:
                assert f"  {field} " in page
        flat = " ".join(page.split())
        for example in spec.examples:
            assert " ".join(example.name.split()) in flat
        for name in [*spec.transports, *spec.policies, *spec.profiles, *spec.config]:
            assert name in page


def test_show_one_section(hv: Run) -> None:
    ran = hv("show", "tdx-map-gpa", "progress")
    assert ran.out.startswith("PROGRESS\n")
    assert "RULES" not in ran.out


def test_show_revisions_differ(hv: Run) -> None:
    old, new = (hv("show", f"kvm-page-enc-status@{name}", "rules").out for name in ("v10", "v12"))
    assert "KVM-PAGEENC-06" in old
    assert "KVM-PAGEENC-06" not in new
    assert "KVM-PAGEENC-13" in new


def test_show_json(hv: Run) -> None:
    assert all(hv("show", f"{abi}@{name}", "--json").code == 0 for abi in abi_ids() for name in bundled(abi).revisions)
    found = json.loads(hv("show", "tdx-map-gpa", "--json").out)
    rule = next(item for item in found["calls"]["map"]["rules"] if item["id"] == "TDX-MAPGPA-05")
    assert rule["level"] == "must"
    assert rule["answer"] == "status = INVALID_OPERAND, next_gpa = gpa"
    assert found["examples"]


EXPLAINED: dict[str, tuple[str, list[str]]] = {
    "rule": ("TDX-MAPGPA-05", ["same SHARED bit", "INVALID_OPERAND", "tdx.c"]),
    "rule in small letters": ("tdx-mapgpa-05", ["same SHARED bit"]),
    "status": ("PSC_INVALID_HDR", ["0x100000001", "VMGEXIT_PSC_ERROR_INVALID_HDR"]),
    "public header": ("TDVMCALL_STATUS_RETRY", ["RETRY  value of status, tdx-map-gpa"]),
    "number": ("0x8000000000000002", ["ALIGN_ERROR", "tdx-map-gpa"]),
    "negative number": ("-1000", ["NEG_KVM_ENOSYS"]),
    "number as 64 bits": ("0xfffffffffffffc18", ["NEG_KVM_ENOSYS"]),
    "constant": ("PSC_MAX_COUNT", ["0xfd"]),
    "field": ("cur_page", ["bits 11:0", "4 KiB pages of this entry"]),
    "field of one abi": ("tdx-map-gpa/gpa", ["SHARED bit says the direction"]),
    "common status": ("limit", ["kvm-memory-attributes", "NEG_ENOMEM"]),
    "policy": ("eagain", ["user space answers EAGAIN"]),
    "profile": ("tdx-map-gpa/linux-kvm-7.3", ["EAGAIN is RETRY"]),
    "transport": ("vmgexit-msr", ["ghcb-msr-psc"]),
    "config key": ("gpaw", ["address width"]),
    "abi": ("ghcb-psc", ["hvabi show ghcb-psc"]),
    "diagnostic": ("yaml-duplicate-key", ["A key is given twice."]),
    "error": ("truncated", ["end before the message does"]),
}


@pytest.mark.parametrize("name", EXPLAINED)
def test_explain(hv: Run, name: str) -> None:
    asked, words = EXPLAINED[name]
    ran = hv("explain", asked)
    assert (ran.code, ran.err) == (0, "")
    flat = " ".join(ran.out.split())
    for word in words:
        assert " ".join(word.split()) in flat


def test_every_rule_can_be_explained(hv: Run) -> None:
    rules = [rule.id for abi in abi_ids() for call in bundled(abi).calls.values() for rule in call.rules]
    ran = hv("explain", *rules, "--json")
    assert ran.code == 0
    assert [item["asked"] for item in json.loads(ran.out)] == rules


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (["explain", "TDX-MAPGPA-99"], "TDX-MAPGPA-"),
        (["explain", "INVALID_OPRAND"], "INVALID_OPERAND"),
        (["explain", "nope/x"], "known: "),
        (["explain", "0x123456789abc"], "hvabi decode"),
        (["explain", "\x1b[31m\udcff"], "hvabi list"),
        (["explain"], "hvabi explain --help"),
        (["show"], "hvabi show --help"),
        (["show", "ghcb-ps"], "did you mean ghcb-psc"),
        (["show", "ghcb-psc", "ruls"], "did you mean rules?"),
        (["show", "ghcb-psc@3"], "known: ghcb-2"),
        (["list", "xyzzy"], "hvabi list"),
        (["frobnicate"], "known: "),
        (["lits"], "did you mean list"),
        (["--frobnicate"], "hvabi --help"),
    ],
    ids=lambda item: " ".join(map(ascii, item)) if isinstance(item, list) else "",
)
def test_bad_usage(hv: Run, args: list[str], hint: str) -> None:
    ran = hv(*args)
    assert ran.code == 2
    assert hint in ran.err
    assert ran.err.startswith("error: ")
    assert "\x1b" not in ran.err
    assert len(ran.err.splitlines()) <= 20


def test_help_names_every_command_and_every_command_has_an_example(hv: Run) -> None:
    from hvabi.cli.main import COMMANDS

    page = hv("--help").out
    for name, text in COMMANDS.items():
        assert f"  {name} " in page
        assert text.split()[0] in page
        ran = hv(name, "--help")
        assert ran.code == 0
        assert "Examples:" in ran.out
        assert f"  hvabi {name}" in ran.out


def test_sections_are_all_in_the_help(hv: Run) -> None:
    page = " ".join(hv("show", "--help").out.split())
    for name in SECTIONS:
        assert name in page
