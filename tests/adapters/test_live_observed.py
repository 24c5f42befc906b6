"""The bundled host of kvm-map-gpa-range answers as real kernels did, row by row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hvabi.abi.registry import load
from hvabi.adapters.registry import host_class
from hvabi.adapters.values import VmmReply, VmmRequest

DATA = Path(__file__).parent.parent / "data" / "live" / "kvm_observed.json"
ROWS: list[dict[str, Any]] = json.loads(DATA.read_text(encoding="utf-8"))

MODES = {
    "long": ("vmcall64", 0),
    "long-cpl3": ("vmcall64", 3),
    "real": ("vmcall32", 0),
    "prot32": ("vmcall32", 0),
    "compat": ("vmcall32", 0),
    "prot32-cpl3": ("vmcall32", 3),
    "compat-cpl3": ("vmcall32", 3),
}
PROFILES = {"6.1.0-56-cloud-amd64": "linux-kvm-6.1", "6.12.117+deb12-cloud-amd64": "linux-kvm-6.12"}

# Other hypercalls of KVM: their answers belong to other ABIs.
OTHER_CALLS = {1, 5, 9, 10, 11}


def left_out(row: dict[str, Any]) -> str | None:
    """Why a row is no observation of this ABI, or None."""
    if row.get("mode") is None or "nr" not in row:
        return "capabilities or timing, not a request"
    nr = row["nr"] if MODES[row["mode"]][0] == "vmcall64" else row["nr"] & 0xFFFFFFFF
    if nr in OTHER_CALLS and row["mode"] in MODES and MODES[row["mode"]][1] == 0:
        return f"hypercall {nr} is another call of KVM"
    if "quirk" in row:
        return "the instruction went through the guest's interrupt table: noise"
    if row["ended"] != "IO":
        return "the guest did not get to report an answer (exception with no handler)"
    if row.get("ret_to_guest_hex") is None and "KVM_SET_REGS" not in row["name"]:
        return "no answer recorded"
    return None


KEPT = [row for row in ROWS if left_out(row) is None]


def name_of(row: dict[str, Any]) -> str:
    return f"{row['kernel'].split('-')[0]}-{row['mode']}-{row['name']}-{row['cap_enabled']}"


def enabled(row: dict[str, Any]) -> bool:
    """Whether the capability was on: every other mask was refused by the ioctl, which the row records."""
    if row["cap_enabled"] not in ("1<<12", "never", "0", "1<<12 then 0"):
        assert row["enable"] == [-1, "EINVAL"]
    return bool(row["cap_enabled"] == "1<<12")


@pytest.mark.parametrize("row", KEPT, ids=name_of)
def test_as_observed(row: dict[str, Any]) -> None:
    transport, cpl = MODES[row["mode"]]
    spec = load("kvm-map-gpa-range", profile=PROFILES[row["kernel"]])
    host = host_class("kvm-map-gpa-range")(spec, transport=transport, enabled=enabled(row))
    regs = {
        "rax": row["nr"] % 2**64,
        "rbx": int(row["a0"], 0),
        "rcx": int(row["a1"], 0),
        "rdx": int(row["a2"], 0),
        "rsi": int(row["a3"], 0),
    }
    call = host.call(regs, cpl=cpl, exits=True)
    exited: VmmRequest | None = None
    try:
        exited = next(call)
        told = row["userspace_ret"]
        told = (row["ret_to_guest"] if told is None else told) % 2**64
        # hypercall.ret lies at 88 in the run page.
        call.send(VmmReply(mem=((88, told.to_bytes(8, "little")),)))
        raise AssertionError("a second exit")
    except StopIteration as end:
        answer = end.value
    assert (exited is not None) == row["exited"]
    if exited is not None:
        page = bytearray(104)
        for at, data in exited.mem:
            page[at : at + len(data)] = data
        fields = row["run_fields"] or {"nr": 12, "args": [row["a0"], row["a1"], row["a2"]], "flags": 1}
        words = [int.from_bytes(page[at : at + 8], "little") for at in (32, 40, 48, 56)]
        assert words == [fields["nr"], *(int(arg, 0) for arg in fields["args"][:3])]
        assert int.from_bytes(page[96:104], "little") == fields["flags"]
        assert int.from_bytes(page[8:12], "little") == 3
    assert answer.end == "return"
    rax = row["ret_to_guest_hex"]
    assert answer.regs == {"rax": int(rax, 0) if rax else row["ret_to_guest"]}


def test_rows_left_out_are_few_and_each_has_a_reason() -> None:
    reasons = [(row["name"], left_out(row)) for row in ROWS if left_out(row)]
    assert len(KEPT) + len(reasons) == len(ROWS) == 568
    assert len(KEPT) >= 500
    assert {name for name, _ in reasons} == LEFT_OUT


LEFT_OUT = {
    "caps",
    "nr 1 VAPIC_POLL_IRQ",
    "nr 5 KICK_CPU",
    "nr 9 CLOCK_PAIRING",
    "nr 10 SEND_IPI",
    "nr 11 SCHED_YIELD",
    "cap not enabled: nr 1",
    "vmcall (other vendor insn)",
    "vmcall, FIX_HYPERCALL_INSN quirk disabled",
    "bench: exits through userspace",
    "bench: rejected in kernel (unaligned)",
    "bench: hypercall() incl. SET_REGS/SREGS set-up",
    "bench: fresh VM + 1 hypercall",
}
