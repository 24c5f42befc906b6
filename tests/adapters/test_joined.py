"""Elements that are converted together against elements one after the other: nobody can tell."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from hvabi.abi.registry import load
from hvabi.adapters.registry import host_class
from hvabi.adapters.values import Injection
from hvabi.backend import Backend, Conversion, MemoryLayout, Outcome, PageState, Status

if TYPE_CHECKING:
    from hvabi.adapters.values import HostAnswer
    from hvabi.backend import Change

BUFFER = 0x2000
FIRST = 0x100
PAGES = 0x60
STATES = [PageState.PRIVATE, PageState.SHARED, PageState.SHARED_READ_ONLY]


class Counting(Backend):
    """Counts what is converted."""

    calls = 0

    def convert(self, conversion: Conversion, **keywords: Any) -> Outcome:
        self.calls += 1
        return super().convert(conversion, **keywords)


class OneByOne(Counting):
    """Never has room to spare, so that nothing is joined."""

    @property
    def has_spare(self) -> bool:
        return False


def common(rng: Random) -> dict[str, Any]:
    """A list of entries: runs that follow each other, in any state, some of them done in part, some wrong."""
    entries: list[dict[str, Any]] = []
    page, to = FIRST, "SHARED"
    for _ in range(rng.randrange(1, 24)):
        if rng.random() < 0.25:
            page, to = FIRST + rng.randrange(PAGES), rng.choice(("PRIVATE", "SHARED", "SHARED_READ_ONLY"))
        pages = rng.choice((1, 1, 1, 2, 3, 0 if rng.random() < 0.1 else 1))
        entries.append({"gpa": page << 12, "pages": pages, "to": to, "order": rng.choice((0, 0, 9))})
        if rng.random() < 0.1:
            entries[-1]["done"] = rng.randrange(pages + 1)
        page += pages
    return {"entries": entries, "next": rng.choice((0, 0, rng.randrange(len(entries) + 1)))}


def hyperv(rng: Random) -> dict[str, Any]:
    """A list of page numbers: runs that follow each other, turns, and numbers that are no memory."""
    pages = [FIRST]
    for _ in range(rng.randrange(40)):
        pages.append(pages[-1] + 1 if rng.random() < 0.8 else FIRST + rng.randrange(PAGES))
    if rng.random() < 0.1:
        pages[rng.randrange(len(pages))] = 1 << rng.choice((40, 52, 63))
    return {"gpa_page_list": pages, "visibility": rng.choice((0, 1, 3))}


KINDS: list[tuple[str, str, dict[str, Any], Any]] = [
    ("common-convert", "x86-list", {"buffer": BUFFER}, common),
    ("common-convert", "arm64-list", {"buffer": BUFFER}, common),
    ("hyperv-host-visibility", "memory64", {"input_gpa": BUFFER}, hyperv),
    ("hyperv-host-visibility", "tdvmcall", {"input_gpa": BUFFER}, hyperv),
]


def merged(changes: tuple[Change[PageState], ...]) -> list[tuple[int, int, PageState, PageState]]:
    out: list[tuple[int, int, PageState, PageState]] = []
    for change in changes:
        if out and out[-1][1:] == (change.start, change.before, change.after):
            out[-1] = (out[-1][0], change.end, change.before, change.after)
        else:
            out.append((change.start, change.end, change.before, change.after))
    return out


def told(answer: HostAnswer) -> tuple[Any, ...]:
    return (answer.end, answer.regs, answer.mem, answer.fault, answer.reason, answer.rule, answer.status,
            answer.done_pages, merged(answer.changes))  # fmt: skip


@pytest.mark.parametrize(("abi", "transport", "fixed", "make"), KINDS, ids=[f"{row[0]}-{row[1]}" for row in KINDS])
def test_nobody_can_tell(abi: str, transport: str, fixed: dict[str, Any], make: Any) -> None:
    rng = Random(abi + transport)
    joined = ended_early = 0
    for _ in range(300):
        policies = {
            name: rng.choice(list(item.values)) for name, item in load(abi).abi.policies.items() if rng.random() < 0.3
        }
        spec = load(abi, policies=policies)
        wire = spec.message("request", transport=transport).encode({**fixed, **make(rng)})
        bound = rng.choice((None, None, 0, 1, 2, 3, 5, 8))
        layout = MemoryLayout([(0, 8), (FIRST, FIRST + 0x30), (FIRST + 0x38, 1 << 30)]) if rng.random() < 0.4 else None
        before = [(FIRST + 6 * n, FIRST + 6 * n + rng.randrange(1, 5), rng.choice(STATES[1:])) for n in range(16)]
        before = before[: rng.choice((0, 3, 16))][: 16 if bound is None else bound]
        facts = {name: [(FIRST + 20, FIRST + 21)] for name in spec.abi.facts if rng.random() < 0.1}
        inject = Injection(stop_after=rng.choice((0, 1, 5, 20))) if rng.random() < 0.1 else None
        hosts = []
        for kind in (Counting, OneByOne):
            backend = kind(layout=layout, max_ranges=bound, facts=spec.abi.facts)
            backend.reset(before, facts if bound is None else None)
            hosts.append(host_class(abi)(spec, transport=transport, backend=backend))
        for _ in range(2):  # the same list once more: what the host wrote into it counts too
            answers = []
            for host in hosts:
                for address, data in wire.mem:
                    host.memory.poke(address, data)
                answers.append(host.answer(wire.regs, inject=inject))
            assert told(answers[0]) == told(answers[1]), (spec.abi.chosen, wire)
            assert hosts[0].backend.query() == hosts[1].backend.query()
            assert hosts[0].backend.changed_since(0) == hosts[1].backend.changed_since(0)
            assert hosts[0].memory.peek(BUFFER, 4096) == hosts[1].memory.peek(BUFFER, 4096)
            ended_early += answers[0].rule is not None or answers[0].status not in (Status.DONE, Status.INVALID)
        fewer, more = hosts[0].backend, hosts[1].backend
        assert isinstance(fewer, Counting)
        assert isinstance(more, Counting)
        joined += fewer.calls < more.calls
    assert joined > 50
    assert ended_early > 50


def test_a_long_list_is_one_change_of_the_map() -> None:
    spec = load("hyperv-host-visibility")
    wire = spec.message("request").encode(
        gpa_page_list=list(range(0x1000, 0x1000 + 400)), visibility=3, input_gpa=BUFFER
    )
    backend = Counting(facts=spec.abi.facts)
    host = host_class(spec.id)(spec, backend=backend)
    for address, data in wire.mem:
        host.memory.poke(address, data)
    answer = host.answer(wire.regs)
    assert (answer.done_pages, backend.calls) == (400, 1)
    assert [tuple(run) for run in backend.query()] == [(0x1000, 0x1190, PageState.SHARED)]


def test_at_the_bound_each_element_is_judged_alone() -> None:
    """Page 9 joins the range behind it, page 8 alone would be a second range: so it is refused first."""
    spec = load("common-convert")
    entries = [{"gpa": page << 12, "pages": 1, "to": "SHARED"} for page in (8, 9)]
    wire = spec.message("request", transport="x86-list").encode(entries=entries, buffer=BUFFER)
    backend = Backend(max_ranges=1)
    backend.reset([(10, 12, PageState.SHARED)])
    host = host_class(spec.id)(spec, transport="x86-list", backend=backend)
    for address, data in wire.mem:
        host.memory.poke(address, data)
    answer = host.answer(wire.regs)
    assert (answer.status, answer.done_pages) == (Status.LIMIT, 0)
    assert [tuple(run) for run in backend.query()] == [(10, 12, PageState.SHARED)]
