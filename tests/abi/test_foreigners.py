"""The ABIs that are farthest from registers and one range, against bytes worked out by hand.

Every expected byte here comes from a header, a fact or an independent packer, never from the codecs or from the
examples in the specifications.
"""

from __future__ import annotations

from typing import Any

import pytest

from hvabi.abi.lint import lint_paths
from hvabi.abi.registry import Spec, abi_files, bundled, load
from hvabi.abi.values import plain
from hvabi.abi.wire import Wire

FOREIGNERS = ("ffa-mem-share",)


def q(*numbers: int) -> str:
    """Return 64-bit numbers as little-endian hex."""
    return "".join(number.to_bytes(8, "little").hex() for number in numbers)


def check_both_ways(
    spec: Spec,
    message: str,
    value: dict[str, Any],
    regs: dict[str, int],
    mem: tuple[tuple[int, str], ...],
    *,
    transport: str | None = None,
    config: dict[str, int] | None = None,
) -> None:
    """Encode the value and compare; decode the golden bytes, compare with the value, and encode that again."""
    codec = spec.message(message, transport=transport, config=config)
    golden = tuple((gpa, bytes.fromhex(text)) for gpa, text in mem)
    wire = codec.encode(value)
    assert dict(wire.regs) == regs
    assert wire.mem == golden
    decoded = codec.decode(Wire(regs=regs, mem=golden))
    found = plain(decoded)
    for name, expected in value.items():
        assert part(found[name], expected) == expected, name
    again = codec.encode(decoded)
    assert dict(again.regs) == regs
    assert again.mem == golden


def part(found: Any, expected: Any) -> Any:
    """Return what the expected value speaks of: of a group only the fields that it names."""
    if isinstance(expected, dict):
        return {name: part(found[name], item) for name, item in expected.items()}
    if isinstance(expected, list):
        return [part(one, item) for one, item in zip(found, expected, strict=True)]
    return found


@pytest.mark.parametrize("abi", FOREIGNERS)
def test_every_revision_and_profile_loads(abi: str) -> None:
    whole = bundled(abi)
    for revision in whole.revisions:
        for profile in ("spec", *whole.profiles):
            spec = load(abi, revision=revision, profile=profile)
            assert spec.abi.convert_call is not None
            assert spec.message(spec.abi.convert_call.request).fields


@pytest.mark.parametrize("abi", FOREIGNERS)
def test_lint_finds_nothing(abi: str) -> None:
    assert [diagnostic.text() for diagnostic in lint_paths([abi_files()[abi]])] == []


# -- FF-A -------------------------------------------------------------------------------------------------------

RANGES = [{"address": 0x80000000, "page_count": 1}, {"address": 0x80002000, "page_count": 2}]
COMPOSITE = """
    03 00 00 00 02 00 00 00 00 00 00 00 00 00 00 00
    00 00 00 80 00 00 00 00 01 00 00 00 00 00 00 00
    00 20 00 80 00 00 00 00 02 00 00 00 00 00 00 00
"""
FFA_SHARES = {
    "v1.0": (
        {"composite_offset": 0x30},
        0x60,
        """
        01 00 2f 00 00 00 00 00 00 00 00 00 00 00 00 00
        00 00 00 00 00 00 00 00 00 00 00 00 01 00 00 00
        01 80 02 00 30 00 00 00 00 00 00 00 00 00 00 00
        """
        + COMPOSITE,
    ),
    "v1.1": (
        {"emad_size": 16, "emad_offset": 0x30, "composite_offset": 0x40},
        0x70,
        """
        01 00 2f 00 00 00 00 00 00 00 00 00 00 00 00 00
        00 00 00 00 00 00 00 00 10 00 00 00 01 00 00 00
        30 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00
        01 80 02 00 40 00 00 00 00 00 00 00 00 00 00 00
        """
        + COMPOSITE,
    ),
    "v1.2": (
        {"emad_size": 32, "emad_offset": 0x30, "composite_offset": 0x50},
        0x80,
        """
        01 00 2f 00 00 00 00 00 00 00 00 00 00 00 00 00
        00 00 00 00 00 00 00 00 20 00 00 00 01 00 00 00
        30 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00
        01 80 02 00 50 00 00 00 00 00 00 00 00 00 00 00
        00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00
        """
        + COMPOSITE,
    ),
}


@pytest.mark.parametrize(("revision", "row"), FFA_SHARES.items(), ids=FFA_SHARES)
def test_ffa_share(revision: str, row: tuple[dict[str, int], int, str]) -> None:
    where, length, text = row
    value = {
        "sender": 1,
        "receiver": 0x8001,
        "permissions": {"data": "RW", "instruction": 0},
        "attributes": {"shareability": "INNER", "cacheability": 3, "type": "NORMAL"},
        "ranges": RANGES,
        **where,
    }
    check_both_ways(
        load("ffa-mem-share", revision=revision),
        "request",
        value,
        {"x0": 0x84000073, "x1": length, "x2": length, "x3": 0, "x4": 0},
        ((0x2000, text.replace(" ", "").replace("\n", "")),),
        config={"tx_buffer": 0x2000},
    )


def test_ffa_share_by_default_is_the_one_of_version_1_1() -> None:
    wire = load("ffa-mem-share").message("request", config={"tx_buffer": 0x2000}).encode(ranges=RANGES)
    assert wire.mem == ((0x2000, bytes.fromhex(FFA_SHARES["v1.1"][2])),)


def test_ffa_64_bit_form() -> None:
    wire = load("ffa-mem-share").message("request").encode(smc64=1, ranges=RANGES)
    assert wire.regs["x0"] == 0xC4000073


def test_ffa_two_receivers_in_version_1_1() -> None:
    codec = load("ffa-mem-share").message("request", config={"tx_buffer": 0x2000})
    value = codec.complete(
        emad_count=2,
        more_receivers=[{"receiver": 0x8002, "permissions": {"data": "RO"}, "composite_offset": 0x50}],
        more_reserved=[0],
        ranges=RANGES[:1],
    )
    data = codec.encode(value).mem[0][1]
    assert len(data) == 48 + 2 * 16 + 16 + 16
    assert data[0x1C:0x20].hex() == "02000000"
    assert data[0x30:0x50].hex() == "01800200500000000000000000000000" + "02800100500000000000000000000000"
    assert codec.decode(Wire(regs=codec.encode(value).regs, mem=((0x2000, data),))) == value


@pytest.mark.parametrize(
    ("regs", "expected"),
    [
        ((0x84000061, 0, 1, 0x80000000), {"reply": "FFA_SUCCESS", "handle": 0x8000_0000_0000_0001}),
        ((0x84000060, 0, 0xFFFFFFFE, 0), {"reply": "FFA_ERROR", "error": "INVALID_PARAMETERS"}),
        ((0x84000060, 0, 0xFFFFFFFA, 0), {"reply": "FFA_ERROR", "error": "DENIED"}),
        (
            (0x8400007A, 1, 0x80000000, 0x60),
            {"reply": "FFA_MEM_FRAG_RX", "fragment_handle": 0x8000_0000_0000_0001, "next_offset": 0x60},
        ),
    ],
    ids=["success", "invalid", "denied", "next-fragment"],
)
def test_ffa_answer(regs: tuple[int, ...], expected: dict[str, Any]) -> None:
    spec = load("ffa-mem-share")
    request = spec.message("request").complete(ranges=RANGES)
    value = spec.message("response").decode({f"x{n}": item for n, item in enumerate(regs)}, request=request)
    assert part(plain(value), expected) == expected


def test_ffa_reclaim() -> None:
    check_both_ways(
        load("ffa-mem-share"),
        "reclaim-request",
        {"handle": 0x8000_0000_0000_0001, "flags": 0},
        {"x0": 0x84000077, "x1": 1, "x2": 0x80000000, "x3": 0},
        (),
    )


def test_ffa_fragment() -> None:
    check_both_ways(
        load("ffa-mem-share"),
        "fragment-request",
        {"handle": 0x8000_0000_0000_0001, "ranges": RANGES[1:]},
        {"x0": 0x8400007B, "x1": 1, "x2": 0x80000000, "x3": 16, "x4": 0},
        ((0x2000, "00200080000000000200000000000000"),),
        config={"tx_buffer": 0x2000},
    )
