from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvabi.conformance.bytesmap import Bytes, Spans
from hvabi.conformance.case import Expected
from hvabi.conformance.judge import Judged, Seen, judge, state_differences

SENT = {"r10": 0, "r11": 0x10001, "r12": 0x1000}
BEFORE = ((0x1000, bytes(range(16))),)


def judged(expected: Expected | tuple[Expected, ...], **seen: Any) -> Judged:
    alternatives = expected if isinstance(expected, tuple) else (expected,)
    return judge(alternatives, Seen(**{"end": "return", **seen}), sent=SENT, before=Bytes(BEFORE), step=3)


def found(expected: Expected, **seen: Any) -> list[tuple[str, str, str]]:
    return [(one.what, one.expected, one.found) for one in judged(expected, **seen).findings]


@pytest.mark.parametrize(
    ("expected", "regs", "findings"),
    [
        ({"regs": {"r10": 1}}, {"r10": 1}, []),
        ({"regs": {"r10": 0}}, {}, []),
        ({"regs": {"r10": 1}}, {}, [("register r10", "0x1", "0x0")]),
        ({"regs": {"r10": 1}}, {"r10": 1, "r11": 0x10001, "r9": 0}, []),
        ({"regs": {"r10": 1}}, {"r10": 1, "r11": 7}, [("register r11", "0x10001, as it was", "0x7")]),
        ({"regs": {"r10": 1}, "may_change": ("r11",)}, {"r10": 1, "r11": 7}, []),
        ({"nonzero": (("r10", 0xFF),)}, {"r10": 0x40}, []),
        ({"nonzero": (("r10", 0xFF),)}, {"r10": 0x100},
         [("register r10", "0x0, as it was", "0x100"), ("register r10", "not 0", "0")]),
        ({"nonzero": (("r10", 0xFF00),), "regs": {"r10": 3}}, {"r10": 0x1203}, []),
        ({"nonzero": (("r10", 0xFF),)}, {}, [("register r10", "not 0", "0")]),
        ({"regs": {"rax": 2**63}}, {"rax": 0}, [("register rax", "0x8000000000000000", "0x0")]),
    ],
)  # fmt: skip
def test_registers(expected: dict[str, Any], regs: dict[str, int], findings: list[tuple[str, str, str]]) -> None:
    assert found(Expected(**expected), regs=regs) == findings


def test_bits_of_a_register_that_differ() -> None:
    (finding,) = judged(Expected(regs={"r10": 0xF0}), regs={"r10": 0x0F0000F0 ^ 0x10}).findings
    assert finding.bits == (27, 4)
    assert finding.step == 3


@pytest.mark.parametrize(
    ("expected", "mem", "findings"),
    [
        ({}, (), []),
        ({}, ((0x1000, bytes(range(16))),), []),
        ({}, ((0x5000, b"\0\0"),), []),
        ({}, ((0x5000, b"\0\1"),), [("memory 0x5001", "00, as it was", "01")]),
        ({"mem": ((0x1004, b"\xff"),)}, ((0x1004, b"\xff"),), []),
        ({"mem": ((0x1004, b"\4"),)}, (), []),
        ({"mem": ((0x1004, b"\xff"),)}, (), [("memory 0x1004", "ff", "04")]),
        ({"mem": ((0x1004, b"\xff"),)}, ((0x1004, b"\xff\xff"),), [("memory 0x1005", "05, as it was", "ff")]),
        ({"may_change_mem": ((0x1000, 4),)}, ((0x1000, b"\7\7\7\7"),), []),
        ({"may_change_mem": ((0x1000, 4),)}, ((0x1000, b"\7\7\7\7\7"),), [("memory 0x1004", "04, as it was", "07")]),
        ({"mem": ((0xFFE, b"abcd"),)}, ((0xFFE, b"ab"), (0x1000, b"cd")), []),
        ({}, ((2**64 - 1, b"\1"),), [("memory 0xffffffffffffffff", "00, as it was", "01")]),
    ],
)
def test_memory(expected: dict[str, Any], mem: Any, findings: list[tuple[str, str, str]]) -> None:
    assert found(Expected(**expected), mem=mem) == findings


def test_many_differences_in_memory_are_not_all_listed() -> None:
    mem = tuple((0x2000 + 16 * n, b"\1") for n in range(1000))
    assert len(judged(Expected(), mem=mem).findings) == 5
    assert len(found(Expected(), mem=((0, b"\1" * 100_000),))) == 1


@pytest.mark.parametrize(
    ("expected", "seen", "findings"),
    [
        ({"end": "fault", "fault": "gp"}, {"end": "fault", "fault": "gp"}, []),
        ({"end": "fault", "fault": "gp"}, {"end": "fault", "fault": "ud"}, [("fault", "gp", "ud")]),
        ({"end": "fault", "fault": "gp"}, {"end": "return"}, [("end", "fault gp", "return")]),
        ({"end": "fault"}, {"end": "fault", "fault": "ud"}, []),
        ({"end": "stop"}, {"end": "stop", "regs": {"r10": 5}}, []),
        ({"end": "replay", "regs": {"r12": 1}}, {"end": "replay", "regs": {"r12": 1}}, []),
        ({"end": "return", "regs": {"r10": 9}}, {"end": "replay"}, [("end", "return", "replay")]),
    ],
)
def test_ends(expected: dict[str, Any], seen: dict[str, Any], findings: list[tuple[str, str, str]]) -> None:
    assert found(Expected(**expected), **seen) == findings


@pytest.mark.parametrize(
    ("expected", "seen", "findings"),
    [
        ({}, {"state": None}, []),
        ({}, {"state": ()}, []),
        ({"state": ((1, 3, "shared"),)}, {"state": ((1, 3, "shared"),)}, []),
        ({"state": ((1, 3, "shared"),)}, {"state": ((1, 2, "shared"),)}, [("pages 0x2 to 0x2", "shared", "private")]),
        ({"state": ((1, 3, "shared"),)}, {"state": ((1, 4, "shared"),)}, [("pages 0x3 to 0x3", "private", "shared")]),
        ({"state": ((1, 9, "shared"),), "loose": ((2, 9),)}, {"state": ((1, 2, "shared"),)}, []),
        ({"state": ((1, 9, "shared"),), "loose": ((2, 8),)}, {"state": ((1, 2, "shared"),)},
         [("pages 0x8 to 0x8", "shared", "private")]),
        ({"state": ((1, 2, "shared"),)}, {"state": ((1, 2, "shared-read-only"),)},
         [("pages 0x1 to 0x1", "shared", "shared-read-only")]),
        ({}, {"state": (), "facts": {"accepted": ((4, 6),)}}, [("fact accepted of pages 0x4 to 0x5", "false", "true")]),
        ({"facts": {"accepted": ((4, 6),)}}, {"state": ()}, [("fact accepted of pages 0x4 to 0x5", "true", "false")]),
        ({"facts": {"accepted": ((4, 6),)}, "loose": ((0, 9),)}, {"state": ()}, []),
    ],
)  # fmt: skip
def test_state_and_facts(expected: dict[str, Any], seen: dict[str, Any], findings: list[tuple[str, str, str]]) -> None:
    assert found(Expected(**expected), **seen) == findings


def test_the_best_alternative_wins_and_the_nearest_is_told() -> None:
    one = Expected(regs={"r10": 1, "r11": 2, "r12": 3}, rule="A")
    other = Expected(regs={"r10": 5}, rule="B")
    fault = Expected(end="fault", fault="gp", rule="C")
    assert judged((one, other, fault), regs={"r10": 5}).findings == ()
    near = judged((one, fault, other), regs={"r10": 6})
    assert [(finding.what, finding.rule) for finding in near.findings] == [("register r10", "B")]


@pytest.mark.parametrize(
    ("policies", "value", "shown"),
    [
        ([{"p": "1"}, {"p": "2"}], 0, {"p": "1"}),
        ([{"p": "1"}, {"p": "2"}], 1, {"p": "2"}),
        ([{"p": "1", "q": "1"}, {"p": "1", "q": "2"}], 1, {"q": "2"}),
        ([{"p": "1"}, {"p": "1"}], 1, {}),
        ([{"p": "1"}], 0, {}),
        ([{}, {"p": "2"}], 1, {}),
    ],
)
def test_policies_that_an_answer_shows(policies: list[dict[str, str]], value: int, shown: dict[str, str]) -> None:
    alternatives = tuple(Expected(regs={"r10": n}, policies=one) for n, one in enumerate(policies))
    assert judged(alternatives, regs={"r10": value}).policies == shown


RUNS = st.lists(
    st.tuples(st.integers(0, 30), st.integers(1, 6), st.sampled_from(["shared", "shared-read-only"])), max_size=5
)


def as_pages(runs: list[tuple[int, int, str]]) -> dict[int, str]:
    return {page: state for start, count, state in runs for page in range(start, start + count)}


def as_ranges(pages: dict[int, str]) -> tuple[tuple[int, int, str], ...]:
    out: list[tuple[int, int, str]] = []
    for page in sorted(pages):
        if out and out[-1][1] == page and out[-1][2] == pages[page]:
            out[-1] = (out[-1][0], page + 1, pages[page])
        else:
            out.append((page, page + 1, pages[page]))
    return tuple(out)


@given(RUNS, RUNS, st.lists(st.tuples(st.integers(0, 30), st.integers(0, 6)), max_size=4))
def test_state_differences_are_those_of_single_pages(one: Any, other: Any, loose: Any) -> None:
    left, right = as_pages(one), as_pages(other)
    free = {page for start, count in loose for page in range(start, start + count)}
    spans = tuple((start, start + count) for start, count in loose)
    differences = state_differences(as_ranges(left), as_ranges(right), spans, "private")
    told = {page: (a, b) for start, end, a, b in differences for page in range(start, end)}
    assert told == {
        page: (left.get(page, "private"), right.get(page, "private"))
        for page in range(40)
        if left.get(page) != right.get(page) and page not in free
    }


@given(*[st.lists(st.tuples(st.integers(0, 40), st.integers(0, 8)), max_size=6)] * 2)
def test_spans_are_sets(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> None:
    def of(rows: list[tuple[int, int]]) -> tuple[Spans, set[int]]:
        return Spans((a, a + n) for a, n in rows), {x for a, n in rows for x in range(a, a + n)}

    (a, in_a), (b, in_b) = of(one), of(other)
    assert {x for low, high in a.minus(b).spans for x in range(low, high)} == in_a - in_b
    assert a.within(b) is (in_a <= in_b)
    assert bool(a) is bool(in_a)
