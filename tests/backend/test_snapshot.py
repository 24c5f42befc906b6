"""Snapshots as values and as JSON, and every way in which the JSON can be wrong."""

from __future__ import annotations

import contextlib
import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvabi.backend import Backend, Conversion, ModelError, PageState, Snapshot

P, S, R = PageState.PRIVATE, PageState.SHARED, PageState.SHARED_READ_ONLY

GOOD: dict[str, Any] = {
    "format": "hvabi-backend-snapshot",
    "version": 1,
    "epoch": "0x2",
    "ranges": [["0x1d767", "0x1d7cb", "shared"], ["0x1d7cb", "0x1f00e", "shared-read-only"]],
    "facts": {"accepted": [["0x0", "0x10"], ["0x20", "0x10000000000000"]]},
}


def sample() -> Backend:
    backend = Backend(facts=["accepted"])
    backend.convert(Conversion(0x1D767, 100, S))
    backend.convert(Conversion(0x1D7CB, 0x1F00E - 0x1D7CB, R))
    backend.set_fact("accepted", 0, 0x10, True)
    backend.set_fact("accepted", 0x20, 2**52, True)
    return backend


def test_the_json_form() -> None:
    assert sample().to_json() == GOOD
    assert Snapshot.from_json(json.loads(json.dumps(GOOD))) == sample().snapshot()


def test_a_restored_backend_is_the_same() -> None:
    source, target = sample(), Backend(facts=["accepted", "pinned"])
    target.convert(Conversion(0, 9, S))
    target.set_fact("pinned", 0, 9, True)
    target.from_json(source.to_json())
    assert target.query() == source.query()
    assert target.fact_runs("accepted") == source.fact_runs("accepted")
    assert target.fact_runs("pinned") == ()


def test_a_snapshot_does_not_move_with_the_backend() -> None:
    backend = sample()
    saved = backend.snapshot()
    backend.convert(Conversion(0, 2**52, P))
    backend.set_fact("accepted", 0, 2**52, False)
    assert backend.query() == ()
    backend.restore(saved)
    assert backend.to_json()["ranges"] == GOOD["ranges"]
    assert backend.to_json()["facts"] == GOOD["facts"]
    assert backend.epoch == 4


def test_restore_keeps_the_targets_bounds_and_facts() -> None:
    for target, code in (
        (Backend(max_ranges=1, facts=["accepted"]), "too-many-ranges"),
        (Backend(), "unknown-fact"),
    ):
        with pytest.raises(ModelError) as caught:
            target.restore(sample().snapshot())
        assert caught.value.code == code
        assert target.query() == ()


WRONG: dict[str, tuple[tuple[Any, ...], object, str]] = {
    "not-an-object": ((), [], "snapshot"),
    "other-format": (("format",), "qcow2", "format"),
    "no-format": (("format",), None, "format"),
    "other-version": (("version",), 2, "version"),
    "version-true": (("version",), True, "version"),
    "unknown-key": (("extra",), 1, "'extra'"),
    "epoch-number": (("epoch",), 2, "epoch"),
    "epoch-negative": (("epoch",), "-0x2", "epoch"),
    "epoch-huge": (("epoch",), "0x" + "f" * 100_000, "epoch"),
    "ranges-object": (("ranges",), {}, "ranges"),
    "ranges-missing": (("ranges",), None, "ranges"),
    "row-short": (("ranges", 0), ["0x1", "0x2"], "ranges[0]"),
    "row-text": (("ranges", 1), "0x1", "ranges[1]"),
    "state-unknown": (("ranges", 1, 2), "public", "ranges[1][2]"),
    "state-list": (("ranges", 1, 2), [[[]]], "ranges[1][2]"),
    "start-decimal": (("ranges", 0, 0), "12", "ranges[0][0]"),
    "start-upper-case": (("ranges", 0, 0), "0x1D767", "ranges[0][0]"),
    "start-leading-zero": (("ranges", 0, 0), "0x01d767", "ranges[0][0]"),
    "start-underscore": (("ranges", 0, 0), "0x1_0", "ranges[0][0]"),
    "start-empty": (("ranges", 0, 0), "0x", "ranges[0][0]"),
    "end-too-high": (("ranges", 1, 1), "0x10000000000001", "ranges[1][1]"),
    "empty-range": (("ranges", 0, 1), "0x1d767", "ranges[0]"),
    "overlap": (("ranges", 1, 0), "0x1d7ca", "ranges[1]"),
    "facts-list": (("facts",), [], "facts"),
    "fact-row": (("facts", "accepted", 1), ["0x20"], "facts.accepted[1]"),
    "fact-unsorted": (("facts", "accepted", 0), ["0x30", "0x40"], "facts.accepted[1]"),
}


@pytest.mark.parametrize(("path", "value", "where"), WRONG.values(), ids=WRONG.keys())
def test_wrong_json_is_refused_with_the_place(path: tuple[Any, ...], value: object, where: str) -> None:
    document: Any = copy.deepcopy(GOOD)
    if path:
        at = document
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = value
    else:
        document = value
    backend = sample()
    with pytest.raises(ModelError) as caught:
        backend.from_json(document)
    assert caught.value.code == "bad-snapshot"
    assert caught.value.fields["where"] == where
    assert f"at {where}:" in str(caught.value)
    assert len(str(caught.value)) < 300
    assert backend.to_json() == GOOD


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6) | st.sampled_from(["0x1", "0x2", "shared"]),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=4), each, max_size=3),
    max_leaves=8,
)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.sampled_from(sorted(GOOD)), JUNK)
def test_junk_is_refused_or_read_but_never_crashes(key: str, junk: object) -> None:
    for document in (junk, {**GOOD, key: junk}):
        # Anything but a ModelError fails the test.
        with contextlib.suppress(ModelError):
            assert Snapshot.from_json(document).to_json() == document
