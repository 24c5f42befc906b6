"""The bitmap and the list of the SEV migration series, out of a backend and back in; bytes typed by hand."""

from __future__ import annotations

import pytest

from hvabi.abi.registry import load
from hvabi.abi.wire import Wire
from hvabi.backend import Backend, Conversion, PageState, from_bitmap, from_list, to_bitmap, to_list


def backend(*ranges: tuple[int, int]) -> Backend:
    made = Backend()
    for start, end in ranges:
        made.convert(Conversion(start, end - start, PageState.SHARED), absent="allow")
    return made


@pytest.mark.parametrize(
    ("revision", "get", "set_"),
    [("feb-2020", 0x4018AEC2, 0x4018AEC3), ("v6", 0x4018AEC5, 0x4018AEC6), ("v7", 0x4018AEC6, 0x4018AEC7),
     ("late-2020", 0x4018AEC8, None)],
)  # fmt: skip
def test_numbers_of_the_bitmap_by_post(revision: str, get: int, set_: int | None) -> None:
    spec = load("kvm-page-enc-bitmap", revision=revision)
    transport = "ioctl-words" if revision == "feb-2020" else "ioctl"
    word = revision.upper().replace("-", "_")
    wire = spec.message("get", transport=transport).encode(
        {"command": f"GET_{word}", "start_gfn": 0x40, "num_pages": 9}
    )
    assert wire.regs == {"cmd": get, "arg": 0x1000}
    assert wire.mem[0][1][:24].hex() == "400000000000000009000000000000000020000000000000"
    if set_ is not None:
        values = {"command": f"SET_{word}", "start_gfn": 0x40, "num_pages": 9, "bitmap": [0xFF, 1, 0, 0, 0, 0, 0, 0]}
        assert spec.message("set", transport=transport).encode(values).regs["cmd"] == set_


def test_a_bitmap_goes_out_and_in() -> None:
    """Pages 0x43 and 0x48 of 12 are shared: bits 3 and 8 are 0, 1 is private."""
    source = backend((0x43, 0x44), (0x48, 0x49))
    bits = to_bitmap(source, 0x40, 12)
    assert bits.hex() == "f70e"
    words = bits.ljust(8, b"\0")
    codec = load("kvm-page-enc-bitmap").message("set", transport="ioctl")
    values = {"command": "SET_V7", "start_gfn": 0x40, "num_pages": 12, "bitmap": list(words)}
    wire = codec.encode(values)
    assert bytes(wire).hex() == "f70e000000000000"
    back = codec.decode(Wire(regs=wire.regs, mem=wire.mem))
    found = from_bitmap(bytes(back.bitmap), back.start_gfn, back.num_pages)
    assert to_list(found) == to_list(source)


def test_what_is_read_into_a_bitmap_keeps_the_bits_behind_the_last_page() -> None:
    assert to_bitmap(backend((0x43, 0x44)), 0x40, 12, into=b"\xff\xa0").hex() == "f7af"


def test_a_list_goes_out_and_in() -> None:
    source = backend((0x1D767, 0x1D7CB), (0x1F00E, 0x1F00F))
    regions = [{"gfn_start": start, "gfn_end": end} for start, end in to_list(source)]
    codec = load("kvm-shared-pages-list").message("set")
    wire = codec.encode({"regions": regions})
    assert wire.regs == {"cmd": 0x4018AEC9, "arg": 0x1000}
    assert bytes(wire).hex() == "67d7010000000000cbd70100000000000ef00100000000000ff0010000000000"
    memory = dict(wire.mem)
    assert memory[0x1000].hex() == "001800000000000000200000000000002000000000000000"
    assert memory[0x1800].hex() == "02000000"
    back = codec.decode(Wire(regs=wire.regs, mem=wire.mem))
    found = from_list((item.gfn_start, item.gfn_end) for item in back.regions)
    assert to_list(found) == to_list(source)


def test_two_posts_share_a_number() -> None:
    bitmap = load("kvm-page-enc-bitmap", revision="late-2020").message("get", transport="ioctl")
    regions = load("kvm-shared-pages-list").message("get")
    one = bitmap.encode({"command": "GET_LATE_2020", "start_gfn": 0, "num_pages": 8})
    assert one.regs["cmd"] == regions.encode({"size": 16}).regs["cmd"] == 0x4018AEC8
