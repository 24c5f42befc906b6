"""The migration forms: a bit for each page, and a list of ranges."""

from __future__ import annotations

import random

import pytest

from hvabi.backend import (
    GPA_PAGES,
    Backend,
    Conversion,
    ModelError,
    PageState,
    RangeMap,
    from_bitmap,
    from_list,
    to_bitmap,
    to_list,
)

P, S, R = PageState.PRIVATE, PageState.SHARED, PageState.SHARED_READ_ONLY


def shared(*ranges: tuple[int, int]) -> RangeMap[PageState]:
    out = RangeMap()
    for start, end in ranges:
        out.set(start, end, S)
    return out


# Bit i of the bitmap is page start + i, low bit first, 1 = private. Worked out by hand.
BITMAPS = {
    "all-private": ([], 0, 16, "ffff"),
    "first-page-shared": ([(0, 1)], 0, 8, "fe"),
    "last-page-of-a-byte-shared": ([(7, 8)], 0, 8, "7f"),
    "ninth-page-shared": ([(8, 9)], 0, 16, "fffe"),
    "shared-over-a-byte-border": ([(6, 10)], 0, 16, "3ffc"),
    "shared-over-whole-bytes": ([(4, 28)], 0, 32, "0f0000f0"),
    "two-in-a-byte": ([(1, 2), (4, 6)], 0, 8, "cd"),
    "all-shared": ([(0, 100)], 0, 24, "000000"),
    "start-in-the-middle": ([(6, 10)], 3, 8, "87"),
    "trailing-bits-are-zero": ([(1, 2)], 0, 3, "05"),
    "trailing-bits-of-private": ([], 0, 11, "ff07"),
    "no-pages": ([(0, 5)], 2, 0, ""),
}


@pytest.mark.parametrize(("ranges", "start", "pages", "expected"), BITMAPS.values(), ids=BITMAPS.keys())
def test_bitmap(ranges: list[tuple[int, int]], start: int, pages: int, expected: str) -> None:
    bitmap = to_bitmap(shared(*ranges), start, pages)
    assert bitmap.hex() == expected
    clipped = [(max(a, start), min(b, start + pages)) for a, b in ranges]
    assert list(from_bitmap(bitmap, start, pages)) == [(a, b, S) for a, b in clipped if a < b]


def test_trailing_bits_of_the_caller_are_preserved() -> None:
    # Copying whole bytes over a neighbour's bits corrupted guest pages after migration (series v5).
    assert to_bitmap(shared((1, 2)), 0, 3, into=b"\xf8").hex() == "fd"
    assert to_bitmap(shared((1, 2)), 0, 3, into=b"\xff").hex() == "fd"
    assert to_bitmap(shared((1, 2)), 0, 3, into=b"\x00").hex() == "05"
    assert to_bitmap(shared((1, 2)), 0, 8, into=b"\x00").hex() == "fd"


def test_bits_behind_the_last_page_are_ignored() -> None:
    assert list(from_bitmap(b"\x05", 0, 3)) == [(1, 2, S)]
    assert list(from_bitmap(b"\xfd", 0, 3)) == [(1, 2, S)]
    assert list(from_bitmap(b"\x57", 0, 3)) == []
    assert list(from_bitmap(b"\x05\x00\x00", 0, 3)) == [(1, 2, S)]
    assert list(from_bitmap(b"\x00", 0, 3)) == [(0, 3, S)]


def test_a_backend_exports_too_and_takes_the_import() -> None:
    source = Backend()
    source.convert(Conversion(6, 4, S))
    source.convert(Conversion(10, 2, R))
    assert to_bitmap(source, 0, 16).hex() == "3ff0"  # read-only counts as shared
    assert to_list(source) == ((6, 12),)
    target = Backend()
    target.reset(from_bitmap(to_bitmap(source, 0, 16), 0, 16))
    assert target.query() == ((6, 12, S),)


@pytest.mark.parametrize("seed", range(6))
def test_bitmap_against_single_bits(seed: int) -> None:
    rnd = random.Random(seed)
    for _ in range(60):
        size, start = rnd.randrange(1, 90), rnd.randrange(50)
        states = [rnd.choice([P, P, S]) if rnd.random() < 0.3 else P for _ in range(150)]
        if rnd.random() < 0.5:
            states = [S if state is P else P for state in states]
        subject = RangeMap()
        for page, state in enumerate(states):
            subject.set(page, page + 1, state)
        number = sum(1 << i for i in range(size) if states[start + i] is P)
        bitmap = to_bitmap(subject, start, size)
        assert bitmap == number.to_bytes((size + 7) // 8, "little")
        back = from_bitmap(bitmap, start, size)
        assert [back.state_at(start + i) for i in range(size)] == states[start : start + size]
        assert back.state_at(start + size) is P
        back.check()


def test_a_tebibyte_guest_is_no_loop_over_pages() -> None:
    pages = 1 << 28
    subject = shared(*((i << 12, (i << 12) + 3) for i in range(1000)), (1 << 27, (1 << 27) + (1 << 26)))
    bitmap = to_bitmap(subject, 0, pages)
    back = from_bitmap(bitmap, 0, pages)
    assert len(bitmap) == pages // 8
    assert back == subject


def test_list_is_merged_and_clipped() -> None:
    subject = RangeMap()
    subject.set(4, 8, S)
    subject.set(8, 12, R)
    subject.set(20, 30, S)
    assert to_list(subject) == ((4, 12), (20, 30))
    assert to_list(subject, 6, 25) == ((6, 12), (20, 25))
    assert to_list(subject, 12, 20) == ()


LISTS = {
    "empty": ([], []),
    "sorted": ([(1, 2), (4, 6)], [(1, 2, S), (4, 6, S)]),
    "unsorted": ([(4, 6), (1, 2)], [(1, 2, S), (4, 6, S)]),
    "adjacent": ([(1, 2), (2, 4)], [(1, 4, S)]),
    "overlapping": ([(1, 8), (2, 4), (6, 12)], [(1, 12, S)]),
    "empty-entry": ([(3, 3)], []),
    "everything": ([(0, 2**52)], [(0, 2**52, S)]),
}


@pytest.mark.parametrize(("pairs", "expected"), LISTS.values(), ids=LISTS.keys())
def test_from_list(pairs: list[tuple[int, int]], expected: list[tuple[int, int, PageState]]) -> None:
    assert list(from_list(pairs)) == expected


MISTAKES = {
    "bitmap-beyond-memory": (lambda: to_bitmap(RangeMap(), GPA_PAGES, 1), "bad-pages"),
    "bitmap-negative": (lambda: from_bitmap(b"", 0, -1), "bad-pages"),
    "bitmap-of-everything": (lambda: to_bitmap(RangeMap(), 0, 2**52), "bitmap-too-large"),
    "bitmap-import-of-everything": (lambda: from_bitmap(b"", 0, 2**52), "bitmap-too-large"),
    "bitmap-short": (lambda: from_bitmap(b"\xff", 0, 9), "short-bitmap"),
    "bitmap-into-another-size": (lambda: to_bitmap(RangeMap(), 0, 9, into=b"\0"), "short-bitmap"),
    "bitmap-of-too-many": (lambda: from_bitmap(b"\x55" * 64, 0, 512, max_ranges=255), "too-many-ranges"),
    "list-of-too-many": (lambda: from_list([(0, 1), (2, 3)], max_ranges=1), "too-many-ranges"),
    "list-reversed": (lambda: from_list([(3, 2)]), "bad-pages"),
    "list-too-high": (lambda: from_list([(0, 2**52 + 1)]), "bad-pages"),
}


@pytest.mark.parametrize(("act", "code"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes(act: object, code: str) -> None:
    with pytest.raises(ModelError) as caught:
        act()  # type: ignore[operator] # a callable out of the table
    assert caught.value.code == code


def test_imports_at_their_bound_pass() -> None:
    assert from_bitmap(b"\x55" * 64, 0, 512, max_ranges=256).count == 256
    assert from_list([(0, 1), (2, 3), (1, 2)], max_ranges=2).count == 1
