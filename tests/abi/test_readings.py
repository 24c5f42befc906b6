"""Every legal reading of the same registers or bytes, and what they would be the other way round."""

from __future__ import annotations

import random

import pytest

from hvabi.abi import readings as module
from hvabi.abi.diagnostics import Diagnostic
from hvabi.abi.errors import CodecError, SpecError
from hvabi.abi.given import Given
from hvabi.abi.readings import Readings, from_bytes, legal, naming, read, readings, specs, swapped
from hvabi.abi.registry import abi_ids, bundled, load
from hvabi.abi.scope import Scope

PSC = bytes.fromhex("000000000000000000e0001f00002000")
MSR = bytes.fromhex("14e0001f00002000")
# A control block of s390 as a machine of the other byte order would lay it out.
UVCB_LITTLE = bytes.fromhex("3000001000000000" + "00" * 24 + "0050341200000000" + "00" * 8)


def hypercall(attributes: int) -> Given:
    return Given(regs={"rax": 12, "rbx": 0x1F018000, "rcx": 1, "rdx": attributes})


def said(found: Readings) -> set[tuple[str, str]]:
    return {(item.abi, item.means) for item in found.readings if item.sure == "constants-matched"}


@pytest.mark.parametrize(
    ("attributes", "old", "new"),
    [
        (0x0, "make shared: 1 page at 0x1f018000", "make shared: 1 page at 0x1f018000"),
        (0x1, "make private: 1 page at 0x1f018000", "make shared: 1 page at 0x1f018000, preferred page size 2 MiB"),
        (0x10, "make private: 1 page at 0x1f018000", "make private: 1 page at 0x1f018000"),
        (0x12, "make private: 1 page at 0x1f018000", "make private: 1 page at 0x1f018000, preferred page size 1 GiB"),
    ],
)
def test_number_twelve_has_two_readings(attributes: int, old: str, new: str) -> None:
    assert said(readings(hypercall(attributes))) == {("kvm-page-enc-status", old), ("kvm-map-gpa-range", new)}


def test_every_revision_and_transport_is_a_reading() -> None:
    found = {(item.abi, item.revision, item.transport) for item in readings(hypercall(1)).readings}
    assert found == {
        ("kvm-map-gpa-range", "v1", "vmcall64"),
        ("kvm-map-gpa-range", "v1", "vmcall32"),
        ("kvm-page-enc-status", "v10", "vmmcall"),
        ("kvm-page-enc-status", "v12", "vmmcall"),
    }


def test_a_constant_that_is_wrong_is_no_reading() -> None:
    assert not readings(Given(regs={"rax": 13, "rbx": 0x1000, "rcx": 1, "rdx": 0})).readings


def test_a_constant_says_why() -> None:
    best = readings(MSR).readings[0]
    assert (best.abi, best.message, best.sure, best.because) == (
        "ghcb-msr-psc",
        "request",
        "constants-matched",
        "info is 0x14",
    )
    assert best.means == "make shared: 1 page at 0x1f00e000"


def test_without_a_constant_nothing_contradicts() -> None:
    (found,) = [item for item in readings(PSC).readings if item.abi == "ghcb-psc" and item.message == "request"]
    assert (found.sure, found.form, found.means) == (
        "nothing-contradicts",
        "block psc",
        "make shared: 1 page at 0x1f00e000",
    )


def test_a_number_without_a_name_makes_it_unlikely() -> None:
    (found,) = readings(bytes(8) + bytes.fromhex("00e0001f00009000"), abis=["ghcb-psc"]).readings[:1]
    assert (found.sure, found.because) == ("unlikely", "entries[0].operation has no name in operation")


def test_what_has_nothing_to_be_wrong_comes_last() -> None:
    """Four words without a name fit any registers: a call whose number has a name and whose rest is 0 is likelier."""
    share = Given(regs={"x0": 0xC6000003, "x1": 0x80000000, "x2": 0, "x3": 0})
    found = [item.message for item in readings(share, abis=["pkvm-mem-share"]).readings]
    assert found[0] == "request"
    assert {"features-response", "uid-response"} == set(found[-4:])


def test_a_range_that_ends_before_it_begins() -> None:
    """An early version of the text had a size in X2 where the end of the range is now."""
    regs = Given(regs={"x0": 0xC4000197, "x1": 0x80000000, "x2": 0x4000, "x3": 0})
    best = readings(regs).readings[0]
    assert (best.abi, best.means) == ("cca-ipa-state", "make shared: a range that ends before it begins, at 0x80000000")


@pytest.mark.parametrize(
    ("data", "kind", "abi"),
    [
        (MSR[::-1], "reversed-8", "ghcb-msr-psc"),
        (MSR[3::-1] + MSR[:3:-1], "reversed-4", "ghcb-msr-psc"),
        (UVCB_LITTLE, "other-endian", "s390-uv-share"),
        (MSR + b"\x00", "longer", "ghcb-msr-psc"),
        (MSR + b"junkjunk!", "longer", "ghcb-msr-psc"),
        (Given(regs={"rax": 12 << 56, "rbx": 0, "rcx": 1 << 56, "rdx": 0}), "reversed-8", "kvm-map-gpa-range"),
    ],
    ids=["8-byte words", "4-byte words", "every field", "one byte behind", "text behind", "registers"],
)
def test_hints(data: bytes | Given, kind: str, abi: str) -> None:
    hints = readings(data).hints
    assert [(hint.kind, hint.reading.abi) for hint in hints] == [(kind, abi)]
    assert f"{abi}/request" in hints[0].text


def test_a_hint_within_one_abi_needs_no_constant() -> None:
    (hint,) = readings(bytes(8) + PSC[:7:-1], abis=["ghcb-psc"]).hints
    assert (hint.kind, hint.reading.means) == ("reversed-8", "make shared: 1 page at 0x1f00e000")


def test_no_hint_where_a_constant_matches() -> None:
    assert readings(MSR).hints == ()


def test_the_shared_bit_follows_the_configuration() -> None:
    regs = Given(regs={"rax": 0, "r10": 0, "r11": 0x10001, "r12": 0x8000000001000, "r13": 0x1000})
    narrow, wide = (readings(regs, abis=["tdx-map-gpa"], config={"gpaw": bits}).readings[0].means for bits in (48, 52))
    assert narrow == "make private: 1 page at 0x8000000001000"
    assert wide == "make shared: 1 page at 0x1000"


@pytest.mark.parametrize("data", [b"", b"\x00", bytes(3), Given(), Given(regs={"zzz": 1})], ids=repr)
def test_nothing_to_read(data: bytes | Given) -> None:
    assert readings(data).readings == ()


def test_a_specification_that_cannot_be_read_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> object:
        if name == "kvm-page-enc-status":
            raise SpecError([Diagnostic(id="x", path="x.yaml", message="broken")])
        return bundled(name)

    monkeypatch.setattr(module, "bundled", broken)
    found = readings(hypercall(1))
    assert found.skipped == ("kvm-page-enc-status",)
    assert {item.abi for item in found.readings} == {"kvm-map-gpa-range"}


@pytest.mark.parametrize("abi", abi_ids())
def test_every_example_is_among_the_readings_of_its_registers(abi: str) -> None:
    checked = 0
    for example in bundled(abi).examples:
        data = example.data
        if "request" not in data or "transport" not in data or data.get("profile"):
            continue
        spec = load(abi, revision=data.get("revision"))
        message = spec.abi.calls[data["call"]].request if "call" in data else "request"
        codec = spec.message(message, transport=data["transport"], config=data.get("config"))
        wire = codec.encode(data["request"])
        found = readings(Given(regs=wire.regs, mem=wire.mem), config=data.get("config")).readings
        ways = {(item.abi, item.revision, item.message, item.transport) for item in found}
        fixed = any(
            name in data.get("request", {}) for name, item in codec.message.fields.items() if item.const is not None
        )
        if not fixed:
            assert (abi, spec.abi.revision, message, data["transport"]) in ways, example.name
            checked += 1
    assert checked or not bundled(abi).examples


@pytest.mark.parametrize("abi", abi_ids())
def test_ruling_out_by_registers_leaves_out_no_reading(abi: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(abi)
    spec = load(abi)
    messages = [(name, message) for name, item in spec.abi.transports.items() for message in item.placements]
    ruled_out = 0
    for name, message in rng.sample(messages, min(4, len(messages))):
        placer = spec.message(message, transport=name).placer
        scope = Scope(spec.message(message, transport=name).static)
        right = {key: scope.int(expr) for key, expr in placer.placement.fixed.items()}
        for _ in range(3):
            regs = {key: rng.choice((0, 1, 2, 12, 0x1000, rng.getrandbits(32))) for key in placer.registers} | right
            for key in rng.sample(sorted(regs), rng.randrange(len(regs) + 1) // 2):
                del regs[key]
            if rng.random() < 0.3:
                regs[rng.choice(("rax", "rcx", "x0", "r3", "a0", "dr7"))] = rng.choice((0, 12))
            mem = ((0x1000, rng.randbytes(64)),) if rng.random() < 0.3 else ()
            if not regs:
                continue
            given = Given(regs=regs, mem=mem)
            found = legal(specs(naming(regs))[0], given)
            with monkeypatch.context() as patch:
                patch.setattr(module, "_hopeless", lambda *_: False)
                wanted = legal(specs(naming(regs))[0], given)
            assert found == wanted, regs
            ruled_out += sum(
                module._hopeless(each.message(m, transport=t.name), given)
                for each in specs(naming(regs))[0]
                for t in each.abi.transports.values()
                for m in t.placements
            )
    assert ruled_out or not any(spec.message(m, transport=t).placer.registers for t, m in messages)


@pytest.mark.parametrize("abi", abi_ids())
def test_leaving_out_files_leaves_out_no_reading(abi: str) -> None:
    for transport in load(abi).abi.transports.values():
        for message in transport.placements:
            codec = load(abi).message(message, transport=transport.name)
            blocks = [name for block in codec.placer.blocks.values() for name in block.registers]
            for register in [*codec.placer.registers, *blocks]:
                assert abi in naming([register]), (transport.name, message, register)
    assert naming(["rxx"]) == []


@pytest.mark.parametrize(
    ("size", "code"), [(0, "truncated"), (15, "truncated"), (17, "oversized")], ids=["none", "short", "long"]
)
def test_registers_from_bytes_need_all_bytes(size: int, code: str) -> None:
    with pytest.raises(CodecError) as caught:
        from_bytes(["rax", "rbx"], bytes(size), "x/request")
    assert caught.value.code == code


def test_registers_are_little_endian_in_order_and_wide_ones_are_wide() -> None:
    data = bytes(range(24))
    assert from_bytes(["rdx", "xmm0"], data, "x") == {
        "rdx": 0x0706050403020100,
        "xmm0": 0x17161514131211100F0E0D0C0B0A0908,
    }


@pytest.mark.parametrize(
    ("data", "width", "expected"),
    [
        (b"\x01\x02\x03\x04", 4, b"\x04\x03\x02\x01"),
        (b"\x01\x02\x03\x04", 2, b"\x02\x01\x04\x03"),
        (b"\x01\x02\x03", 2, None),
        (b"", 8, None),
        (Given(regs={"rax": 0x0C00000000000000}), 8, Given(regs={"rax": 0xC})),
        (Given(regs={"rax": 1}), 4, None),
    ],
    ids=repr,
)
def test_swapped(data: bytes | Given, width: int, expected: bytes | Given | None) -> None:
    assert swapped(data, width) == expected


@pytest.mark.parametrize("size", [6, 30, 47])
def test_a_block_that_ends_too_early_has_no_reading(size: int) -> None:
    data = bytes.fromhex("0030100000000000" + "00" * 24 + "0000000012345000" + "00" * 8)
    codec = load("s390-uv-share").message("request")
    assert read(codec, data)[0] == "block uvcb"
    for message in ("request", "response"):
        with pytest.raises(CodecError) as error:
            read(load("s390-uv-share").message(message), data[:size])
        assert error.value.code == "truncated"
