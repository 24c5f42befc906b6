"""hvabi decode: bytes or registers in, fields and every other reading out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Ran, Run

PSC = "0000000000000000 00e0001f00002000"
MSR = "14e0001f00002000"
NR12 = ["rax=12", "rbx=0x1f018000", "rcx=1", "rdx=1"]


def line(ran: Ran, *words: str) -> str:
    """The first line that has all the words."""
    return next(text for text in ran.out.splitlines() if all(word in text for word in words))


def fields(ran: Ran, number: int = 0) -> dict[str, Any]:
    return {item["path"]: item for item in json.loads(ran.out)["readings"][number]["fields"]}


def test_list_of_words(hv: Run) -> None:
    ran = hv("decode", "ghcb-psc", PSC)
    assert ran.code == 0
    assert ran.out.startswith(
        "ghcb-psc@ghcb-2/request, transport vmgexit, block psc\nmake shared: 1 page at 0x1f00e000\n"
    )
    assert line(ran, "gfn").split()[:4] == ["psc+0x8", "51:12", "gfn", "0x1f00e"]
    assert "SHARED: Give the page to the hypervisor." in line(ran, "operation")
    assert "16 bytes, hex digits, from the arguments" in ran.out


def test_bits(hv: Run) -> None:
    ran = hv("decode", "ghcb-psc", PSC, "--bits")
    assert line(ran, "0000000000000000000000011111000000001110").split()[0] == "51:12"
    assert line(ran, "0010", "operation").split() == ["55:52", "0010", "operation", "SHARED"]


def test_number_twelve_shows_both_readings(hv: Run) -> None:
    for args in (NR12, ["kvm-map-gpa-range", *NR12], ["kvm-page-enc-status", *NR12]):
        ran = hv("decode", *args)
        assert ran.code == 0
        flat = " ".join(ran.out.split())
        assert "make private: 1 page at 0x1f018000" in flat
        assert "make shared: 1 page at 0x1f018000, preferred page size 2 MiB" in flat
        assert "kvm-map-gpa-range" in flat
        assert "kvm-page-enc-status" in flat


def test_json(hv: Run) -> None:
    ran = hv("decode", "kvm-map-gpa-range", *NR12, "--json")
    found = json.loads(ran.out)
    assert fields(ran)["attributes.page_size"]["symbol"] == "SIZE_2M"
    assert fields(ran)["gpa"] | {"doc": "", "meaning": ""} == {
        "path": "gpa", "kind": "field", "register": "rbx", "block": None, "offset": None, "bits": [63, 0],
        "raw": "0x1f018000", "value": "0x1f018000", "symbol": None, "enum": None, "unit": "byte", "meaning": "",
        "doc": "", "given": True, "problem": None,
    }  # fmt: skip
    assert {item["abi"] for item in found["others"]} >= {"kvm-page-enc-status"}


def test_the_best_message_is_found(hv: Run) -> None:
    ran = hv("decode", "ghcb-msr-psc", "1500000000000080")
    assert ran.out.startswith("ghcb-msr-psc@ghcb-2/response")


def test_registers_and_memory_of_an_encoded_message(hv: Run) -> None:
    made = json.loads(hv("encode", "ghcb-psc", "entries[0].gfn=7", "entries[0].operation=PRIVATE", "--json").out)
    tokens = [f"{name}={value}" for name, value in made["regs"].items()]
    ran = hv("decode", *tokens, *(f"mem[{at}]={data}" for at, data in made["mem"]))
    assert "make private: 1 page at 0x7000" in ran.out
    assert "sure as far as constants go: exit_code is 0x80000010" in ran.out


def test_a_response_with_its_request(hv: Run) -> None:
    ran = hv("decode", "ghcb-psc/response", "--request", PSC, "0100000000000000 01e0001f00002000", "--json")
    assert fields(ran)["cur_entry"]["raw"] == "0x1"
    assert fields(ran)["entries"]["raw"] == "0x1"


def test_a_layout(hv: Run) -> None:
    ran = hv("decode", "ghcb-psc/psc-entry", "01e0001f00002000")
    assert ran.code == 0
    assert line(ran, "gfn").split()[:3] == ["51:12", "gfn", "0x1f00e"]


def test_problems_are_found(hv: Run) -> None:
    ran = hv("decode", "ghcb-psc", "00000000 01000000", "00e0001f00002000")
    assert ran.code == 1
    assert "! must be zero" in line(ran, "psc+0x4")


def test_a_register_that_selects_another_call(hv: Run) -> None:
    ran = hv("decode", "tdx-map-gpa", "rax=1", "r11=0x10001", "r12=0x1000", "r13=0x1000")
    assert ran.code == 1
    assert "! is 0x1, this call has 0x0" in line(ran, "rax", "Selects")


def test_wrong_byte_order_is_said(hv: Run) -> None:
    ran = hv("decode", "ghcb-psc", "0000000000000000 002000001f00e000")
    assert "hint: with the bytes of each 8-byte word reversed this is ghcb-psc/request" in " ".join(ran.out.split())


def test_configuration(hv: Run) -> None:
    regs = ["r11=0x10001", "r12=0x8000000001000", "r13=0x1000"]
    assert "make private: 1 page at 0x8000000001000" in hv("decode", "tdx-map-gpa", *regs).out
    assert "make shared: 1 page at 0x1000" in hv("decode", "tdx-map-gpa", *regs, "--set", "gpaw=52").out


@pytest.mark.parametrize(
    ("content", "args", "said"),
    [
        (bytes.fromhex(MSR), [], "8 bytes, raw"),
        (MSR.encode(), [], "8 bytes, hex digits"),
        (b"# a comment\n14e0001f\n00002000\n", [], "8 bytes, hex digits"),
        (b"14:e0:00:1f:00:00:20:00\n", [], "8 bytes, hex digits"),
        (b"msr_c0010130=0x2000001f00e014\n", [], "msr_c0010130"),
        (b"14e0001f", ["--raw"], "8 bytes, raw"),
    ],
    ids=["raw", "hex", "comment", "colons", "registers", "forced raw"],
)
def test_a_file_is_told_by_its_content(hv: Run, tmp_path: Path, content: bytes, args: list[str], said: str) -> None:
    file = tmp_path / "msr.bin"
    file.write_bytes(content)
    ran = hv("decode", "ghcb-msr-psc", str(file), *args, "--json")
    assert json.loads(ran.out)["input"].startswith(said)
    assert str(file) in json.loads(ran.out)["input"]
    if not args:
        assert fields(ran)["gfn"]["raw"] == "0x1f00e"


def test_standard_input(hv: Run) -> None:
    for given in (bytes.fromhex(MSR), MSR.encode()):
        ran = hv("decode", "ghcb-msr-psc", "-", given=given)
        assert "from standard input" in ran.out
        assert "make shared: 1 page at 0x1f00e000" in ran.out


def test_long_lists_are_cut_unless_asked_for(hv: Run) -> None:
    data = "0000640000000000" + "00e0001f00002000" * 101
    short, whole = hv("decode", "ghcb-psc", data), hv("decode", "ghcb-psc", data, "--all")
    assert "entries[15]" in short.out
    assert "entries[16]" not in short.out
    assert "85 more elements; --all shows them" in short.out
    assert "entries[100]" in whole.out


BAD: dict[str, tuple[list[str], str]] = {
    "nothing": ([], "give hex digits"),
    "no data": (["tdx-map-gpa"], "give hex digits"),
    "empty data": (["tdx-map-gpa", ""], "give hex digits"),
    "separators only": (["tdx-map-gpa", "::"], "pairs of digits"),
    "truncated": (["tdx-map-gpa", "0000"], "48 bytes"),
    "truncated in a block": (["ghcb-psc", "00000000"], "give all bytes"),
    "oversized": (["ghcb-psc", PSC + "00"], "the message ends after 16 bytes"),
    "odd": (["ghcb-msr-psc", "14e0001f0000200"], "a digit is missing or one too many"),
    "no hex": (["ghcb-msr-psc", "14e0001f000020zz"], "xxd -p FILE"),
    "no hex in the second": (["ghcb-msr-psc", "14e0001f", "zz"], "xxd -p FILE"),
    "layout of the wrong size": (["ghcb-psc/psc-entry", "00"], "give all bytes"),
    "layout from registers": (["ghcb-psc/psc-entry", "rax=1"], "hex digits"),
    "unknown abi": (["tdx-map-gap", "00"], "did you mean tdx-map-gpa?"),
    "unknown message": (["tdx-map-gpa/respons", "00"], "did you mean response?"),
    "unknown revision": (["tdx-map-gpa@2", "00"], "known: ghci-1.5"),
    "unknown transport": (["tdx-map-gpa", "-t", "tdcal", "00"], "did you mean tdcall?"),
    "no such message there": (["hyperv-host-visibility/request", "-t", "smc", "00"], "known: "),
    "unknown config key": (["tdx-map-gpa", "--set", "gpw=1", "00"], "did you mean gpaw?"),
    "bad register value": (["rax=1f"], "0x1f"),
    "register too wide": (["rax=0x10000000000000000"], "16 hex digits at most"),
    "register twice": (["rax=1", "rax=2"], "leave one out"),
    "half a register": (["rax=1", "zz"], "write all of it as registers"),
    "registers of nobody": (["tdx-map-gpa", "zzz=1"], "uses rax"),
    "memory without an address": (["rax=1", "mem[]=00"], "0x1000"),
    "memory of odd length": (["rax=1", "mem[0]=000"], "a digit is missing"),
    "no reading": (["00"], "name the ABI"),
    "no such file": (["ghcb-psc", "./nofile.bin"], "or give the data as hex digits"),
    "dash among others": (["ghcb-psc", "-", "00"], "pipe all of the data in"),
    "request of a request": (["tdx-map-gpa/request", "--request", "00", "00"], "name the response"),
    "unknown option": (["--bitts"], "hvabi decode --help"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_usage(hv: Run, name: str) -> None:
    args, hint = BAD[name]
    ran = hv("decode", *args)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: ")
    assert hint in ran.err
    assert len(ran.err.splitlines()) <= 20


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (b"", "give hex digits"),
        (b"\n \n", "give hex digits"),
        (b"hello world\n", "xxd -p FILE"),
        (bytes(range(256)) * 5000, "cut out the bytes"),
        (b"00" * (3 << 20), "cut out the bytes"),
    ],
    ids=["empty", "blank", "text", "large binary", "large hex"],
)
def test_bad_files(hv: Run, tmp_path: Path, content: bytes, hint: str) -> None:
    file = tmp_path / "data"
    file.write_bytes(content)
    ran = hv("decode", "ghcb-psc", str(file))
    assert (ran.code, ran.out) == (2, "")
    assert hint in ran.err
    assert str(file) in ran.err


def test_a_folder(hv: Run, tmp_path: Path) -> None:
    ran = hv("decode", "ghcb-psc", str(tmp_path))
    assert ran.code == 2
    assert "is a folder" in ran.err


def test_a_file_named_like_hex_digits_needs_a_path(hv: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "abcdef").write_bytes(bytes.fromhex(MSR))
    assert "found 3" in hv("decode", "ghcb-msr-psc", "abcdef").err
    assert "make shared" in hv("decode", "ghcb-msr-psc", "./abcdef").out
