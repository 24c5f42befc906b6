"""Pieces of memory laid over each other, against a map from address to byte."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hvabi.abi.wire import merge

pieces = st.lists(st.tuples(st.integers(0, 40), st.binary(max_size=9)), max_size=8)


@given(pieces)
def test_later_pieces_win_and_what_touches_is_joined(given_pieces: list[tuple[int, bytes]]) -> None:
    wanted = {address + at: byte for address, data in given_pieces for at, byte in enumerate(data)}
    merged = merge(given_pieces)
    assert {address + at: byte for address, data in merged for at, byte in enumerate(data)} == wanted
    ends = [address + len(data) for address, data in merged]
    assert all(data for _, data in merged)
    assert all(end < start for end, (start, _) in zip(ends, merged[1:], strict=False))
