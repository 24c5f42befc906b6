"""Columns of numpy against the codecs: the same numbers for every layout, and clear errors."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from hvabi.abi.bulk import BulkLayout, register_columns
from hvabi.abi.errors import CodecError, UsageError
from hvabi.abi.registry import abi_ids, bundled, load
from tests.fuzzing import opened

numpy = pytest.importorskip("numpy", reason="numpy is not installed")


def leaves(value: Any, prefix: str = "") -> dict[str, int]:
    found: dict[str, int] = {}
    for name, each in value.items():
        if isinstance(each, dict):
            found.update(leaves(each, f"{prefix}{name}."))
        else:
            found[prefix + name] = each
    return found


@pytest.mark.parametrize(("abi", "name"), [(abi, name) for abi in abi_ids() for name in bundled(abi).layouts])
def test_columns_are_what_the_codec_reads(abi: str, name: str) -> None:
    codec = load(abi).layout(name)
    try:
        bulk = BulkLayout(codec)
    except UsageError:
        # Only what is wider than 8 bytes has none.
        assert any(item.bits > 64 for item in codec.layout.fields.values())
        return
    rng = Random(name)
    rows = [bytes(codec.size), b"\xff" * codec.size, *(rng.randbytes(codec.size) for _ in range(40))]
    columns = bulk.decode(b"".join(rows))
    expected = [leaves(opened(codec.decode(row))) for row in rows]
    assert {key: column.tolist() for key, column in columns.items()} == {
        key: [each[key] for each in expected] for key in bulk.names
    }
    again = bulk.encode(columns)
    assert again == b"".join(codec.encode(codec.decode(row)) for row in rows)


def test_registers_of_many_calls() -> None:
    codec = load("kvm-map-gpa-range").message("request")
    rng = Random(1)
    rows = [{"rax": 12, **{name: rng.getrandbits(64) for name in ("rbx", "rcx", "rdx")}} for _ in range(50)]
    columns = register_columns(codec, {name: numpy.array([row[name] for row in rows], "u8") for name in rows[0]})
    expected = [leaves(opened(codec.decode(row))) for row in rows]
    assert {"gpa", "npages", "attributes.encrypted"} <= columns.keys()
    for name, column in columns.items():
        assert column.tolist() == [each[name] for each in expected], name


def test_errors() -> None:
    bulk = BulkLayout(load("ghcb-psc").layout("psc-entry"))
    with pytest.raises(CodecError) as caught:
        bulk.decode(bytes(17))
    assert (caught.value.code, caught.value.byte_offset) == ("truncated", 16)
    with pytest.raises(CodecError) as caught:
        bulk.encode({"gfn": [1, 1 << 40]})
    assert (caught.value.code, caught.value.path) == ("value-too-large", "[1].gfn")
    for columns, code in (
        ({"gfx": [1]}, "unknown-field"),
        ({}, "missing-field"),
        ({"gfn": [1], "operation": [1, 2]}, "wrong-type"),
        ({"gfn": [1.5]}, "wrong-type"),
        ({"gfn": [-1]}, "value-too-large"),
    ):
        with pytest.raises(CodecError) as caught:
            bulk.encode(columns)
        assert caught.value.code == code
