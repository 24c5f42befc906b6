"""Calls that only ask: runs, facts, bitmaps and lists of answers, by a small specification of their own.

Answers are worked out here by hand; a random test compares host and oracle, which share no evaluator.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hvabi.abi.lint import lint_paths
from hvabi.abi.registry import Spec, read_abi
from hvabi.adapters.batch import plan
from hvabi.adapters.errors import AdapterError
from hvabi.adapters.guest import Guest
from hvabi.adapters.host import Host
from hvabi.adapters.values import HostAnswer, Injection
from hvabi.backend import Backend, MemoryLayout, PageState
from hvabi.conformance.case import Inject, Setup
from hvabi.conformance.oracle import Oracle
from hvabi.conformance.oracle.answers import Request

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PATH = Path(__file__).parents[1] / "data" / "small-questions.yaml"
S, P = "shared", "private"
SLOTS = ((0, 0x4000),)


@pytest.fixture(scope="module")
def spec() -> Spec:
    return Spec(read_abi(PATH).resolve(revision="v1"))


def test_the_specification_is_clean() -> None:
    assert lint_paths([PATH]) == []


def test_a_rule_about_single_pages_is_for_conversions(tmp_path: Path) -> None:
    """A question goes through no pages one after the other, so there is none at which such a rule could end it."""
    rule = (
        "{id: T-20, binds: host, scope: page, check: fact, name: lost, start: first * 4096, length: pages * 4096, "
        "is: 0, means: denied, level: must, source: here, answer: {status: 1}, text: No page is lost.}"
    )
    text = PATH.read_text(encoding="utf-8")
    assert text.count("    rules: []\n") == 1
    path = tmp_path / PATH.name
    path.write_text(text.replace("    rules: []\n", f"    rules:\n      - {rule}\n"), encoding="utf-8")
    assert [found.id for found in lint_paths([path])] == ["rule-page"]


def host_of(spec: Spec, ranges: Sequence[tuple[int, int, str]] = (), facts: Mapping[str, Any] | None = None) -> Host:
    backend = Backend(facts=spec.abi.facts, layout=MemoryLayout(SLOTS))
    backend.reset([(start, end, PageState(state)) for start, end, state in ranges], facts or {})
    return Host(spec, backend=backend)


def asked(host: Host, regs: dict[str, int], **more: Any) -> HostAnswer:
    before = host.backend.query()
    answer = host.answer(regs, **more)
    assert host.backend.query() == before
    return answer


def run(spec: Spec, base: int, end: int, *ranges: tuple[int, int, str], **facts: Any) -> dict[str, int]:
    regs = {"rax": 1, "rbx": base << 12, "rcx": end << 12}
    return dict(asked(host_of(spec, ranges, facts), regs).regs)


def test_a_run_ends_where_state_or_facts_change_or_the_question_ends(spec: Spec) -> None:
    assert run(spec, 16, 20) == {"rax": 0, "rbx": 20 << 12, "rcx": 0}
    assert run(spec, 16, 20, (17, 19, S)) == {"rax": 0, "rbx": 17 << 12, "rcx": 0}
    assert run(spec, 17, 20, (17, 19, S)) == {"rax": 0, "rbx": 19 << 12, "rcx": 1}
    assert run(spec, 17, 20, (10, 30, S)) == {"rax": 0, "rbx": 20 << 12, "rcx": 1}
    assert run(spec, 17, 20, (17, 18, "shared-read-only"), (18, 20, S)) == {"rax": 0, "rbx": 18 << 12, "rcx": 2}
    assert run(spec, 16, 20, pinned=[(18, 19)]) == {"rax": 0, "rbx": 18 << 12, "rcx": 0}
    assert run(spec, 18, 20, (18, 20, S), pinned=[(18, 19)]) == {"rax": 0, "rbx": 19 << 12, "rcx": 1}


def test_a_rule_may_tell_what_was_found(spec: Spec) -> None:
    found = run(spec, 16, 20, (10, 18, S), lost=[(16, 19)])
    assert found == {"rax": 0, "rbx": 18 << 12, "rcx": 8}


def test_a_question_without_an_answer(spec: Spec) -> None:
    assert run(spec, 20, 20) == {"rax": 1}
    # No page has these numbers; the call has no outcome for it but `invalid`.
    assert bits(spec, (1 << 52) - 1, 2) == (1, {})


def bits(spec: Spec, first: int, pages: int, *ranges: tuple[int, int, str]) -> tuple[int, dict[int, bytes]]:
    answer = asked(host_of(spec, ranges), {"rax": 2, "rbx": first, "rcx": pages, "rdx": 0x1000})
    return answer.regs["rax"], dict(answer.mem)


def test_a_bitmap_has_the_first_page_lowest_and_zeros_behind_the_last(spec: Spec) -> None:
    assert bits(spec, 16, 8) == (0, {0x1000: b"\xff"})
    assert bits(spec, 16, 1) == (0, {0x1000: b"\x01"})
    assert bits(spec, 16, 9, (16, 17, S)) == (0, {0x1000: b"\xfe\x01"})
    assert bits(spec, 16, 20, (18, 33, S)) == (0, {0x1000: b"\x03\x00\x0e"})
    assert bits(spec, 3, 16, (4, 5, S), (18, 40, S)) == (0, {0x1000: b"\xfd\x7f"})
    assert bits(spec, 16, 0) == (0, {})


def test_a_bitmap_longer_than_any_message_is_refused_at_once(spec: Spec) -> None:
    assert bits(spec, 0, (8 << 20) + 1)[0] == 4
    assert bits(spec, 0, 1 << 45)[0] == 4


def each(
    spec: Spec, gfns: Sequence[int], first: int = 0, stop: int | None = None
) -> tuple[dict[str, int], dict[int, bytes]]:
    host = host_of(spec, ((16, 17, S), (18, 19, "shared-read-only")))
    host.memory.write(0x1000, b"".join(gfn.to_bytes(8, "little") for gfn in gfns))
    regs = {"rax": 3, "rcx": len(gfns), "rsi": first, "rdx": 0x1000}
    answer = asked(host, regs, inject=Injection(stop_after=stop))
    return dict(answer.regs), dict(answer.mem)


def test_a_list_has_an_answer_for_each_element_from_the_first_that_is_asked_for(spec: Spec) -> None:
    assert each(spec, [16, 17, 18]) == ({"rax": 0, "rbx": 3}, {0x2000: b"\x02\x01\x06"})
    assert each(spec, [18, 16, 16]) == ({"rax": 0, "rbx": 3}, {0x2000: b"\x04\x03\x04"})
    assert each(spec, [17, 17, 16], first=2) == ({"rax": 0, "rbx": 3}, {0x2002: b"\x04"})
    assert each(spec, [16, 17, 18], stop=2) == ({"rax": 2, "rbx": 2}, {0x2000: b"\x02\x01"})
    assert each(spec, [16, 17, 18], stop=0) == ({"rax": 2, "rbx": 0}, {})
    assert each(spec, [16, 0x4000, 18]) == ({"rax": 5, "rbx": 1}, {})
    assert each(spec, [16, 1 << 52]) == ({"rax": 5, "rbx": 1}, {})


def test_a_guest_makes_requests_and_cannot_convert(spec: Spec) -> None:
    guest = Guest(spec, call="each", scratch=(0x10, 0x14))
    assert [batch.request.gfns for batch in plan(guest, 0x20, 18, PageState.PRIVATE)] == [
        tuple(range(0x20, 0x30)),
        (0x30, 0x31),
    ]
    assert guest.can_name(0x20000, 1, PageState.SHARED)
    with pytest.raises(AdapterError):
        Guest(spec)


def _random_state(rng: random.Random) -> list[tuple[int, int, str]]:
    edges = sorted(rng.sample(range(8, 40), 8))
    states = [rng.choice([P, S, "shared-read-only"]) for _ in edges[:-1]]
    return [(low, high, state) for low, high, state in zip(edges, edges[1:], states, strict=False) if state != P]


def _random_facts(rng: random.Random) -> dict[str, tuple[tuple[int, int], ...]]:
    return {
        name: ((low := rng.randrange(8, 40), low + rng.randrange(1, 8)),)
        for name in ("pinned", "lost")
        if rng.random() < 0.5
    }


def _random_question(rng: random.Random) -> tuple[str, dict[str, Any], dict[str, int], dict[int, bytes]]:
    base, pages, at = rng.randrange(8, 40), rng.randrange(0, 20), 0x1000
    match rng.choice(["run", "bits", "each"]):
        case "run":
            fields: dict[str, Any] = {"nr": 1, "base": base << 12, "end": base + pages << 12}
            return "run", fields, {"rax": 1, "rbx": fields["base"], "rcx": fields["end"]}, {}
        case "bits":
            return (
                "bits",
                {"nr": 2, "first": base, "pages": pages, "at": at},
                {"rax": 2, "rbx": base, "rcx": pages, "rdx": at},
                {},
            )
        case _:
            gfns = tuple(
                rng.choice([base, base + 1, base + 2, 0x4000, 1 << 52]) if rng.random() < 0.1 else rng.randrange(8, 40)
                for _ in range(pages)
            )
            first = rng.randrange(0, 3)
            raw = b"".join(gfn.to_bytes(8, "little") for gfn in gfns)
            fields = {"nr": 3, "begin": first, "count": len(gfns), "at": at, "gfns": gfns}
            return "each", fields, {"rax": 3, "rcx": len(gfns), "rsi": first, "rdx": at}, {at: raw}


@pytest.mark.parametrize("seed", range(300))
def test_host_and_oracle_agree(spec: Spec, seed: int) -> None:
    rng = random.Random(seed)
    state, facts = _random_state(rng), _random_facts(rng)
    call, fields, regs, mem = _random_question(rng)
    stop = rng.choice([None, None, 0, 1, 3]) if call == "each" else None
    host = host_of(spec, state, facts)
    for start, data in mem.items():
        host.memory.write(start, data)
    answer = asked(host, regs, inject=Injection(stop_after=stop))
    inject = None if stop is None else Inject(fault="stop-after", arguments={"pages": stop})
    oracle = Oracle("small-questions", "v1", "insn", Setup(memory=SLOTS))
    right = next(Request(oracle, spec.abi, call, fields, 0, inject, tuple(state), facts, regs).answers({}))
    assert (answer.end, dict(answer.regs), answer.mem) == (right.end, dict(right.regs), right.mem)
    assert right.status == (answer.status.value if answer.status else None)
