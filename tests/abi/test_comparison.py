"""The comparison matrix: cells that are known from elsewhere, and that each follows what the specification says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from hvabi.abi import comparison
from hvabi.abi.comparison import NOT_STATED, Row, as_data, compare
from hvabi.abi.comparison_cells import ASPECTS
from hvabi.abi.model import BlockPlace
from hvabi.abi.registry import abi_ids, bundled

ROWS = compare(map(bundled, abi_ids()))
BY_ABI = {row.abi: row for row in reversed(ROWS)}

KNOWN = [
    # abi, aspect, what must stand in it; from the headers and documents that the specifications cite
    ("tdx-map-gpa", "polarity", "0x1 shared, 0x0 private"),
    ("tdx-map-gpa", "unit", "gpa in bytes; size in bytes"),
    ("tdx-map-gpa", "errors", "status: top bit set"),
    ("tdx-map-gpa", "progress", "in bytes: next_gpa - gpa"),
    ("tdx-map-gpa", "byte_order", "registers only"),
    ("kvm-map-gpa-range", "polarity", "attributes.encrypted: 0x1 private, 0x0 shared"),
    ("kvm-map-gpa-range", "unit", "gpa in bytes; npages in pages"),
    ("kvm-map-gpa-range", "errors", "status: negative and positive"),
    ("kvm-map-gpa-range", "progress", "all or nothing"),
    ("kvm-map-gpa-range", "maximum", "2^32 - 1 pages (vmcall32)"),
    ("kvm-map-gpa-range", "page_size", "a hint: attributes.page_size (SIZE_4K, SIZE_2M, SIZE_1G)"),
    ("kvm-exit-hypercall", "errors", "ret: positive"),
    ("kvm-memory-attributes", "errors", "ret: negative"),
    ("kvm-memory-attributes", "contents", "private: each state has its own"),
    ("kvm-page-enc-status", "polarity", "enc: 0x0 shared, else private"),
    ("ghcb-psc", "maximum", "253 elements of up to 2 MiB"),
    ("ghcb-psc", "page_size", "size of the element: entries[].pagesize"),
    ("ghcb-psc", "failed", "the failing part may have changed"),
    ("ghcb-psc", "local", "shared: rescind, call, map"),
    ("ghcb-msr-psc", "form", "one page"),
    ("hyperv-host-visibility", "maximum", "12 elements (fast64)"),
    ("hyperv-host-visibility", "maximum", "507 elements (ghcb-page)"),
    ("hyperv-host-visibility", "contents", "private: zeroed"),
    ("cca-ipa-state", "unit", "base in bytes; top in bytes"),
    ("cca-ipa-state", "query", "get"),
    ("ffa-mem-share", "already", "an error"),
    ("ffa-mem-share", "contents", "shared: kept"),
    ("s390-uv-share", "byte_order", "memory, big endian"),
    ("cove-memory-region", "already", "an error: INVALID_PARAM"),
]


@pytest.mark.parametrize(("abi", "aspect", "text"), KNOWN)
def test_known_cells(abi: str, aspect: str, text: str) -> None:
    assert text in BY_ABI[abi].cells[aspect].text


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.label)
def test_every_cell_answers_or_says_that_it_does_not(row: Row) -> None:
    assert list(row.cells) == [aspect.name for aspect in ASPECTS]
    rules = {rule.id for call in bundled(row.abi).calls.values() for rule in call.rules}
    for name, cell in row.cells.items():
        assert cell.lines, name
        assert all(line.strip() for line in cell.lines), name
        assert (cell.text != NOT_STATED) or not cell.stated, name
        assert set(cell.rules) <= rules
        json.dumps(cell.data)


def test_every_abi_has_a_row_and_labels_are_unique() -> None:
    assert {row.abi for row in ROWS} == set(abi_ids())
    assert len({row.label for row in ROWS}) == len(ROWS)


def test_as_data_is_plain_and_whole() -> None:
    data = json.loads(json.dumps(as_data(ROWS)))
    assert set(data["aspects"]) == set(data["rows"][0]["cells"])
    assert len(data["rows"]) == len(ROWS)


def test_what_no_source_says_is_not_stated() -> None:
    cell = BY_ABI["tdx-map-gpa"].cells["contents"]
    assert (cell.text, cell.stated, cell.data) == (NOT_STATED, False, None)


def test_cells_follow_the_specification() -> None:
    """Each change of the model shows in its cell and in no other."""
    abi = bundled("s390-uv-share").resolve()
    call = abi.convert_call
    assert call is not None
    assert call.convert is not None
    assert call.convert.to is not None
    assert call.progress is not None
    other = {"shared": "private", "private": "shared"}
    states = {number: other[state or ""] for number, state in call.convert.to.states.items()}
    uvc = abi.transports["uvc"]
    place = uvc.placements["request"]
    little = replace(place, blocks={name: replace(block, endian="little") for name, block in place.blocks.items()})
    changes = {
        "polarity": replace(call, convert=replace(call.convert, to=replace(call.convert.to, states=states))),
        "progress": replace(call, progress=replace(call.progress, resume="reissue")),
        "failed": replace(call, progress=replace(call.progress, footprint="exact")),
        "order": replace(call, order="stated"),
    }
    before = compare([abi])[0]
    for aspect, changed in changes.items():
        after = compare([replace(abi, calls={**abi.calls, call.name: changed})])[0]
        assert {name for name in before.cells if before.cells[name] != after.cells[name]} == {aspect}
    turned = replace(abi, transports={"uvc": replace(uvc, placements={**uvc.placements, "request": little})})
    after = compare([turned])[0]
    assert {name for name in before.cells if before.cells[name] != after.cells[name]} == {"byte_order"}
    assert any(isinstance(item, BlockPlace) for places in place.place.values() for item in places)


@pytest.mark.parametrize("abi", abi_ids())
def test_no_cell_is_typed_by_hand(abi: str) -> None:
    """The same specification under a name that nobody knows has the same cells, but for the name."""
    known = bundled(abi).resolve()
    told = [row.cells for row in compare([known])]
    assert told == [row.cells for row in compare([replace(known, id="x", title="x", vendor="x")])]


def test_the_comparison_knows_no_abi() -> None:
    folder = Path(comparison.__file__).parent
    sources = sorted(folder.glob("comparison*.py"))
    assert len(sources) > 3
    words = {word for abi in abi_ids() for word in (abi, bundled(abi).vendor)}
    for path in sources:
        found = {word for word in words if f'"{word}"' in path.read_text(encoding="utf-8")}
        assert not found, path.name
