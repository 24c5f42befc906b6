"""Annotated messages: where every field lies, what it means, and what is wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvabi.abi import annotate as module
from hvabi.abi.annotate import annotate, annotate_layout
from hvabi.abi.codec import LayoutCodec
from hvabi.abi.errors import CodecError
from hvabi.abi.given import Given
from hvabi.abi.registry import Spec, abi_ids, bundled, load

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hvabi.abi.annotation import Annotation, Row
    from hvabi.abi.model import Field

ENTRY = bytes.fromhex("01e0001f00002000")
"""A page state change entry: cur_page 1, gfn 0x1f00e, operation 2, 4 KiB."""


def row(annotation: Annotation, path: str) -> Row:
    return next(item for item in annotation.rows if item.path == path)


def psc(hex_: str, message: str = "request") -> Annotation:
    return annotate(load("ghcb-psc").message(message), Given(block=("psc", bytes.fromhex(hex_))))


@pytest.mark.parametrize(
    ("path", "where", "raw", "symbol"),
    [
        ("cur_page", "11:0", 1, None),
        ("gfn", "51:12", 0x1F00E, None),
        ("operation", "55:52", 2, "SHARED"),
        ("pagesize", "56", 0, "SIZE_4K"),
        ("reserved", "63:57", 0, None),
    ],
)
def test_rows_of_a_layout(path: str, where: str, raw: int, symbol: str | None) -> None:
    found = row(annotate_layout(load("ghcb-psc").layout("psc-entry"), ENTRY), path)
    assert (found.where, found.raw, found.symbol) == (where, raw, symbol)


def test_bits_of_a_layout() -> None:
    (word,) = annotate_layout(load("ghcb-psc").layout("psc-entry"), ENTRY).words
    assert [(run.hi, run.lo, run.digits, run.name) for run in word.runs] == [
        (63, 57, "0000000", "reserved"),
        (56, 56, "0", "pagesize"),
        (55, 52, "0010", "operation"),
        (51, 12, "0000000000000000000000011111000000001110", "gfn"),
        (11, 0, "000000000001", "cur_page"),
    ]


@pytest.mark.parametrize(
    ("path", "where", "raw"),
    [
        ("cur_entry", "psc+0x0", 0),
        ("end_entry", "psc+0x2", 1),
        ("entries", "psc+0x8", 2),
        ("entries[0]", "psc+0x8", 0x002000001F00E001),
        ("entries[1]", "psc+0x10", 0x0110000000200000),
        ("entries[1].operation", "psc+0x10 55:52", 1),
        ("entries[1].pagesize", "psc+0x10 56", 1),
    ],
)
def test_rows_of_a_list(path: str, where: str, raw: int) -> None:
    found = row(psc("0000010000000000 01e0001f00002000 0000200000001001"), path)
    assert (found.where, found.raw) == (where, raw)


def test_big_endian_block() -> None:
    block = bytes.fromhex("0030 1000 0000 0000" + "00" * 24 + "0000000012345000" + "00" * 8)
    found = annotate(load("s390-uv-share").message("request"), Given(block=("uvcb", block)))
    assert (row(found, "cmd").symbol, row(found, "paddr").raw) == ("SHARE", 0x12345000)
    assert row(found, "paddr").where == "uvcb+0x20"


def test_fields_that_share_a_register() -> None:
    codec = load("kvm-map-gpa-range").message("request", transport="vmcall32")
    found = annotate(codec, Given(regs={"rax": 0xFF000000000C, "rbx": 0x1_0000_1000, "rcx": 1, "rdx": 0x10}))
    assert (row(found, "nr").where, row(found, "nr_high").where) == ("rax 31:0", "rax 63:32")
    assert row(found, "attributes.reserved").where == "rdx 31:5"
    assert [(item.code, item.path) for item in found.problems] == [("reserved-bits", "nr_high"), ("unread-bits", "rbx")]
    assert next(word for word in found.words if word.path == "rax").bits == 64


def test_pair_of_registers() -> None:
    codec = load("hyperv-host-visibility").message("request", transport="memory32")
    found = annotate(codec, Given(regs={"rdx": 0x3, "rax": 0xDB}))
    assert row(found, "control").where == "rdx:rax"
    assert row(found, "control").raw == 0x3_0000_00DB


@pytest.mark.parametrize(
    ("regs", "problem"),
    [
        ({"r11": 0x10002}, ("const-mismatch", "error", "leaf")),
        ({"rax": 1}, ("fixed-mismatch", "error", "rax")),
    ],
    ids=["const", "fixed"],
)
def test_another_call_is_a_problem(regs: dict[str, int], problem: tuple[str, str, str]) -> None:
    found = annotate(load("tdx-map-gpa").message("request"), Given(regs=regs))
    assert [(item.code, item.level, item.path) for item in found.problems] == [problem]


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("00e0001f00009000", ("unknown-value", "note", "entries[0].operation")),
        ("00e0001f00002002", ("reserved-bits", "warning", "entries[0].reserved")),
    ],
    ids=["unknown operation", "reserved bits"],
)
def test_odd_entries_are_problems(entry: str, problem: tuple[str, str, str]) -> None:
    found = psc("0000000000000000" + entry)
    assert [(item.code, item.level, item.path) for item in found.problems] == [problem]


def test_reserved_bits_that_receivers_refuse_are_an_error() -> None:
    found = annotate(
        load("kvm-memory-attributes").message("request"), Given(block=("attrs", bytes(24) + b"\x01" + bytes(7)))
    )
    assert [(item.code, item.level, item.path) for item in found.problems] == [("reserved-bits", "error", "flags")]


def test_what_is_not_given_takes_its_default_and_says_so() -> None:
    found = psc("0000000000000000 01e0001f00002000")
    assert not row(found, "exit_code").given
    assert row(found, "sw_scratch").raw == 0x1800
    assert found.missing == ()
    assert found.sizes == {"psc": 16}


def test_what_must_be_known_is_missing() -> None:
    found = annotate(load("tdx-map-gpa").message("request"), Given(regs={"r12": 0x1000, "rsi": 1}))
    assert (found.missing, found.unused) == (("size",), ("rsi",))


def test_a_response_reads_its_request_from_the_same_buffer() -> None:
    found = psc("0100000000000000 01e0001f00002000", "response")
    assert row(found, "entries").raw == 1
    assert found.missing == ("exit_info1", "exit_info2")


@pytest.mark.parametrize("size", [0, 1, 7, 8, 15])
def test_bytes_that_end_too_early(size: int) -> None:
    with pytest.raises(CodecError) as caught:
        annotate(load("ghcb-psc").message("request"), Given(block=("psc", bytes(size))))
    assert caught.value.code == "truncated"
    assert caught.value.message_name == "ghcb-psc/request"


def test_a_list_without_its_count_is_an_error_and_no_endless_loop() -> None:
    codec = load("hyperv-host-visibility").message("request", transport="memory64")
    with pytest.raises(CodecError) as caught:
        annotate(codec, Given(block=("input", bytes(24))))
    assert caught.value.code == "missing-field"


def test_long_lists_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ELEMENTS", 2)
    found = psc("0000020000000000" + "00e0001f00002000" * 3)
    assert found.left_out == 1
    assert row(found, "entries").raw == 3
    assert [item.path for item in found.rows if item.kind == "element"] == ["entries[0]", "entries[1]"]


ROUND = [
    (spec, transport.name, message)
    for name in abi_ids()
    for revision in bundled(name).revisions
    for spec in [Spec(bundled(name).resolve(revision=revision))]
    for transport in spec.abi.transports.values()
    for message in transport.placements
]


@pytest.mark.parametrize(("spec", "transport", "message"), ROUND, ids=lambda item: getattr(item, "id", item))
def test_annotation_and_codec_agree(spec: Spec, transport: str, message: str) -> None:
    """The rows show what the codec decodes: an encoded message comes back, whole and without a problem."""
    codec = spec.message(message, transport=transport)
    request = None
    if codec.request is not None:
        request = codec.request.complete(_smallest(codec.request.message.fields))
    wire = codec.encode(_smallest(codec.message.fields), request=request)
    found = annotate(codec, Given(regs=wire.regs, mem=wire.mem), request=request)
    assert found.value == codec.decode(wire, request=request)
    assert not [item for item in found.problems if item.level == "error"]
    for word in found.words:
        assert "".join(run.digits for run in word.runs) == f"{word.raw:0{word.bits}b}"


def _smallest(fields: Mapping[str, Field]) -> dict[str, object]:
    """Return zero for whatever has no value of its own, and one element for each list."""
    needed = {name: item for name, item in fields.items() if item.const is None and item.default is None}
    return {name: [_zero(item)] if item.is_list else 0 for name, item in needed.items()}


def _zero(item: Field) -> object:
    return LayoutCodec(item.items).decode(bytes(item.items.size)) if item.items is not None else 0


@settings(max_examples=60, deadline=None)
@given(data=st.binary(min_size=8, max_size=8))
def test_bits_cover_every_word(data: bytes) -> None:
    for name in ("psc-entry",):
        annotation = annotate_layout(load("ghcb-psc").layout(name), data)
        (word,) = annotation.words
        assert int("".join(run.digits for run in word.runs), 2) == int.from_bytes(data, "little")
        assert [run.hi for run in word.runs[1:]] == [run.lo - 1 for run in word.runs[:-1]]
        assert (word.runs[0].hi, word.runs[-1].lo) == (63, 0)
