"""hvabi encode: values in, registers and bytes out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from hvabi.abi.registry import abi_ids, bundled, load

if TYPE_CHECKING:
    from tests.cli.conftest import Run

PSC = "000000000000000000e0001f00002000"

GOLDEN: dict[str, tuple[list[str], str]] = {
    "list of words": (["ghcb-psc", "entries[0].gfn=0x1f00e", "entries[0].operation=SHARED"], PSC),
    "named message": (["ghcb-psc/request", "entries[0].gfn=126990", "entries[0].operation=2"], PSC),
    "whole element as a number": (["ghcb-psc", "entries[0]=0x2000001f00e000"], PSC),
    "layout": (["ghcb-psc/psc-entry", "gfn=0x1f00e", "operation=SHARED", "cur_page=1"], "01e0001f00002000"),
    "register with bit fields": (["ghcb-msr-psc", "gfn=0x1f00e", "operation=SHARED"], "14e0001f00002000"),
    "registers in order": (
        ["kvm-map-gpa-range", "gpa=0x1f018000", "npages=1", "attributes.encrypted=1", "attributes.page_size=SIZE_2M"],
        "0c00000000000000 0080011f00000000 0100000000000000 1100000000000000",
    ),
    "word as a number": (
        ["kvm-map-gpa-range", "gpa=0x1000", "npages=1", "attributes=0x10"],
        "0c00000000000000 0010000000000000 0100000000000000 1000000000000000",
    ),
    "response with its request": (
        ["ghcb-psc/response", "request.entries[0].gfn=1", "exit_info1=INFO1_OK", "exit_info2=PSC_OK", "cur_entry=1",
         "end_entry=0", "entries[0].gfn=1"],
        "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GOLDEN)
def test_hex(hv: Run, name: str) -> None:
    args, expected = GOLDEN[name]
    ran = hv("encode", *args, "--hex")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.strip() == expected.replace(" ", "")


def test_registers_defaults_and_constants_are_shown(hv: Run) -> None:
    ran = hv("encode", "tdx-map-gpa", "gpa=0x800100001000", "size=0x1000")
    assert ran.code == 0
    assert "rax=0x0 r10=0x0 r11=0x10001 rcx=0x3c00 r12=0x800100001000 r13=0x1000" in ran.out
    assert "[constant] Sub-function in R11." in ran.out
    assert "[default]" in ran.out


def test_memory_is_shown_without_its_zeroes(hv: Run) -> None:
    ran = hv("encode", "ghcb-psc", "entries[0].gfn=0x1f00e", "entries[0].operation=SHARED")
    assert "  0x00001800  00 00 00 00 00 00 00 00  00 e0 00 1f 00 00 20 00\n" in ran.out
    assert "zero bytes" in ran.out
    assert len(ran.out.splitlines()) < 60
    assert len(hv("encode", "ghcb-psc", "entries[0].gfn=1", "--all").out.splitlines()) > 256


def test_json(hv: Run) -> None:
    ran = hv("encode", "tdx-map-gpa", "gpa=0x1000", "size=4096", "--set", "gpaw=52", "--json")
    found = json.loads(ran.out)
    assert found["regs"] == {
        "rax": "0x0",
        "r10": "0x0",
        "r11": "0x10001",
        "rcx": "0x3c00",
        "r12": "0x1000",
        "r13": "0x1000",
    }
    assert found["config"]["gpaw"] == "0x34"
    assert found["from"] == {
        "standard": "constant",
        "leaf": "constant",
        "expose_mask": "default",
        "gpa": "given",
        "size": "given",
    }
    assert (found["abi"], found["revision"], found["message"], found["transport"]) == (
        "tdx-map-gpa",
        "ghci-1.5",
        "request",
        "tdcall",
    )


def test_parts_of_a_word_keep_its_default(hv: Run) -> None:
    ran = hv("encode", "hyperv-host-visibility", "gpa_page_list=1,2", "control.rep_start=1", "visibility=3", "--json")
    control = int(json.loads(ran.out)["regs"]["rcx"], 16)
    assert control == 0xDB | 2 << 32 | 1 << 48


def test_a_transport_of_its_own(hv: Run) -> None:
    ran = hv("encode", "kvm-map-gpa-range", "gpa=0x1000", "npages=1", "attributes=0", "-t", "tdvmcall", "--json")
    assert json.loads(ran.out)["regs"]["r10"] == "0xc"


@pytest.mark.parametrize("abi", abi_ids())
def test_every_example_encodes_as_the_library_does(hv: Run, abi: str) -> None:
    """The command adds nothing of its own: plain field values give the same bytes as the codec."""
    for example in bundled(abi).examples[:6]:
        data = example.data
        if "request" not in data or any(isinstance(value, (list, dict)) for value in data["request"].values()):
            continue
        spec = load(abi, revision=data.get("revision"))
        message = spec.abi.calls[data["call"]].request if "call" in data else "request"
        expected = spec.message(message, transport=data["transport"], config=data.get("config")).encode(data["request"])
        ran = hv(
            "encode",
            f"{abi}@{spec.abi.revision}/{message}",
            *(f"{key}={value}" for key, value in data["request"].items()),
            *("-t", data["transport"]),
            *(word for key, value in data.get("config", {}).items() for word in ("--set", f"{key}={value}")),
            "--json",
        )
        assert ran.code == 0, ran.err
        assert json.loads(ran.out)["body"] == expected.hex(), example.name


BAD: dict[str, tuple[list[str], str]] = {
    "unknown abi": (["tdx-map-gap"], "did you mean tdx-map-gpa?"),
    "unknown message": (["tdx-map-gpa/reqest"], "did you mean request?"),
    "unknown revision": (["tdx-map-gpa@1"], "known: ghci-1.5"),
    "half a target": (["tdx-map-gpa/"], "write ABI, ABI@REVISION or ABI/MESSAGE"),
    "unknown transport": (["tdx-map-gpa", "-t", "tdcal"], "did you mean tdcall?"),
    "unknown config key": (["tdx-map-gpa", "--set", "gpa=48"], "did you mean gpaw?"),
    "bad config value": (["tdx-map-gpa", "--set", "gpaw=50"], "one of 48, 52"),
    "setting without a value": (["tdx-map-gpa", "--set", "gpaw"], "--set gpaw=52"),
    "unknown field": (["tdx-map-gpa", "siz=1"], "did you mean size?"),
    "unknown part": (["kvm-map-gpa-range", "attributes.encryptd=1"], "did you mean attributes.encrypted"),
    "part of a number": (["tdx-map-gpa", "gpa.x=1"], "write gpa=VALUE"),
    "index of a number": (["tdx-map-gpa", "gpa[0]=1"], "write gpa=VALUE"),
    "list without an index": (["ghcb-psc", "entries.gfn=1"], "write entries[0]"),
    "hole in a list": (["ghcb-psc", "entries[2].gfn=1"], "from 0 without a gap"),
    "index too large": (["ghcb-psc", "entries[99999].gfn=1"], "at most"),
    "given twice": (["tdx-map-gpa", "gpa=1", "gpa=2"], "give it once"),
    "no value": (["tdx-map-gpa", "gpa"], "FIELD=VALUE"),
    "empty value": (["tdx-map-gpa", "gpa="], "is no number"),
    "hex without 0x": (["tdx-map-gpa", "gpa=1f00e", "size=1"], "0x1f00e"),
    "no path": (["tdx-map-gpa", "g pa=1"], "for example entries[0].gfn"),
    "missing field": (["tdx-map-gpa", "gpa=1"], "give size=VALUE"),
    "too large": (["tdx-map-gpa", "gpa=0x10000000000000000", "size=1"], "in that range"),
    "too large inside": (["ghcb-psc", "entries[0].gfn=0x10000000000"], "in that range"),
    "negative": (["tdx-map-gpa", "gpa=-1", "size=1"], "in that range"),
    "enormous": (["tdx-map-gpa", "gpa=" + "9" * 5000, "size=1"], "write a number"),
    "unknown enum name": (["ghcb-psc", "entries[0].operation=SHRED"], "did you mean SHARED?"),
    "name for a number": (["tdx-map-gpa", "gpa=abc?", "size=1"], "a number of 64 bits"),
    "empty list": (["ghcb-psc"], "give entries[0]"),
    "no place": (["kvm-map-gpa-range", "gpa=0", "npages=0", "attributes=0", "ghcb_gpa=1"], "it has nr, gpa"),
    "request of a request": (["tdx-map-gpa", "request.gpa=1"], "goes with a response"),
    "no arguments": ([], "hvabi encode --help"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_usage(hv: Run, name: str) -> None:
    args, hint = BAD[name]
    ran = hv("encode", *args)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: ")
    assert hint in ran.err
    assert len(ran.err.splitlines()) <= 20
