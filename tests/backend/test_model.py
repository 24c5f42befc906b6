"""The values of the common conversion."""

from __future__ import annotations

import dataclasses

import pytest

import hvabi.backend as backend
from hvabi.backend import GPA_PAGES, PAGE_SHIFT, PAGE_SIZE, Conversion, ModelError, Outcome, PageState, Status

P, S = PageState.PRIVATE, PageState.SHARED


def test_the_words_are_those_of_the_line_protocol() -> None:
    assert [str(state) for state in PageState] == ["private", "shared", "shared-read-only"]
    assert [str(status) for status in Status] == [
        "done",
        "partial",
        "retry",
        "invalid",
        "misaligned",
        "out-of-range",
        "already",
        "limit",
        "denied",
        "busy",
        "unsupported",
        "failed",
    ]
    assert (PAGE_SIZE, PAGE_SHIFT) == (4096, 12)


def test_a_conversion_knows_its_end_and_address() -> None:
    wish = Conversion(0x1F018, 2, S, 0x200000)
    assert (wish.start, wish.end, wish.start_gpa, wish.page_size_hint) == (
        0x1F018,
        0x1F01A,
        0x1F018000,
        0x200000,
    )
    assert Conversion(2**52, 0, P).end == 2**52
    assert Conversion(0, 2**52, S).end == GPA_PAGES
    with pytest.raises(dataclasses.FrozenInstanceError):
        wish.start = 1  # type: ignore[misc] # that it is refused is what this line shows


BAD = {
    "negative-start": (-1, 1, S, None),
    "negative-count": (0, -1, S, None),
    "one-too-far": (2**52, 1, S, None),
    "far-too-far": (2**40, 2**70, S, None),
    "text-state": (0, 1, "shared", None),
    "fraction": (0.0, 1, S, None),
    "text": ("0", 1, S, None),
    "hint-too-small": (0, 1, S, 2048),
    "hint-no-power-of-two": (0, 1, S, 12288),
}


@pytest.mark.parametrize("arguments", BAD.values(), ids=BAD.keys())
def test_an_impossible_conversion_is_the_callers_mistake(arguments: tuple[object, ...]) -> None:
    with pytest.raises(ModelError) as caught:
        Conversion(*arguments)  # type: ignore[arg-type] # some of them are of the wrong type on purpose
    assert caught.value.code == "bad-conversion"
    assert caught.value.fields["start"] == arguments[0]
    assert str(arguments[0]) in str(caught.value)


def test_an_outcome_is_a_value() -> None:
    assert Outcome(Status.DONE, 2, 7) == Outcome(status=Status.DONE, pages_done=2, next=7, changed=())


def test_all_names_exist_and_are_sorted_out() -> None:
    assert len(set(backend.__all__)) == len(backend.__all__)
    assert all(hasattr(backend, name) for name in backend.__all__)
