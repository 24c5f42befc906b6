"""Sets of addresses against plain sets."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from hvabi.backend.sparse import ByteSet

span = st.tuples(st.integers(0, 40), st.integers(1, 12)).map(lambda pair: (pair[0], sum(pair)))


@given(st.lists(span, max_size=10), span)
def test_a_byte_set_is_a_set_of_addresses(added: list[tuple[int, int]], asked: tuple[int, int]) -> None:
    found = ByteSet()
    wanted: set[int] = set()
    for start, end in added:
        found.add(start, end)
        wanted.update(range(start, end))
    spans = list(found)
    assert {address for start, end in spans for address in range(start, end)} == wanted
    assert all(one[1] < other[0] for one, other in itertools.pairwise(spans))
    gaps = found.gaps(*asked)
    assert [address for start, end in gaps for address in range(start, end)] == sorted(set(range(*asked)) - wanted)
    assert all(start < end for start, end in gaps)
