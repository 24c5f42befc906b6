"""The examples and the bundled adapters against each other: guests on hosts both ways, and hosts side by side."""

from __future__ import annotations

import io
import random
from typing import TYPE_CHECKING, Any

import pytest

from hvabi.abi.registry import load
from hvabi.adapters.registry import guest_class, host_class
from hvabi.adapters.values import GuestCall, GuestReply, GuestResult, Injection
from hvabi.backend import PageState
from hvabi.conformance.iut import serve
from tests.conformance.example_builds import LANGUAGES, Peer, build, differences, parse, run
from tests.conformance.exchanges import (
    OK,
    S48,
    S52,
    SCRIPTS,
    Script,
    configure,
    convert,
    kvm,
    lines_of,
    reset,
    tdx,
)

if TYPE_CHECKING:
    from hvabi.adapters.host import Host

ABIS = {"vmcall64": "kvm-map-gpa-range", "vmcall32": "kvm-map-gpa-range", "tdcall": "tdx-map-gpa"}
SPANS = ((0x100, 1), (0x1FF, 3), (0x200, 512), (0x1FF, 1100))
"""First page and pages: single, over a 2 MiB boundary, aligned, long."""
FAULTS: dict[str, list[dict[str, int]]] = {
    "none": [],
    "stops": [{"stop-after": 1}, {"stop-after": 0}, {"stop-after": 2}],
    "events": [{"event-pending": 1}, {"event-pending": 1}],
    "refused": [{"vmm-error": 22}],
    "busy": [{"vmm-error": 11}, {"vmm-error": 11}],
    "stopped-then-refused": [{"stop-after": 1}, {"vmm-error": 22}],
}
PAIRS = [
    (transport, faults)
    for transport in ABIS
    for faults in FAULTS
    if transport == "tdcall" or faults in ("none", "refused", "busy")
]


@pytest.fixture(scope="module", params=LANGUAGES)
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return build(request.param, tmp_path_factory.mktemp(request.param))


def bundled(data: bytes) -> list[dict[str, Any]]:
    """Give the bundled adapters all of an input at once."""
    sink = io.BytesIO()
    assert serve(io.BytesIO(data), sink) == 0
    return parse(sink.getvalue())


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.xfail(reason=script.bundled, strict=True) if script.bundled else [])
        for name, script in SCRIPTS.items()
    ],
)
def test_the_bundled_adapters_answer_as_written_down(name: str) -> None:
    assert differences(SCRIPTS[name], bundled(lines_of(SCRIPTS[name]))) == []


# -- a guest on the other's host ------------------------------------------------------------------------------------


def before(start: int, pages: int, to: PageState) -> list[tuple[int, int]]:
    """What is shared at first: on the way to private more than the range, so that its neighbours can be looked at."""
    return [] if to is PageState.SHARED else [((start - 1) << 12, pages + 2)]


def after(start: int, pages: int, done: int, to: PageState) -> list[list[str]]:
    """What must be shared at the end, if `done` pages from the start are converted."""
    if to is PageState.SHARED:
        spans = [(start, start + done)]
    else:
        spans = [(start - 1, start), (start + done, start + pages + 1)] if done else [(start - 1, start + pages + 1)]
    return [[hex(low << 12), hex(high - low), "shared"] for low, high in spans if high > low]


def expected_pages(faults: str, pages: int) -> int:
    """How much of a range a right guest gets done on a right host."""
    if faults == "refused":
        return 0
    return min(1, pages) if faults == "stopped-then-refused" and pages > 1 else pages


def the_refusal_comes_too_late(faults: str, pages: int) -> bool:
    return faults == "stopped-then-refused" and pages == 1


def injection(fault: dict[str, int]) -> Injection:
    ((name, value),) = fault.items()
    if name == "stop-after":
        return Injection(stop_after=value)
    return Injection(event_after=value) if name == "event-pending" else Injection(vmm_errno=value)


def shown(host: Host) -> list[list[str]]:
    return [[hex(run.start << 12), hex(run.end - run.start), run.state.value] for run in host.backend.query()]


@pytest.mark.parametrize("to", [PageState.SHARED, PageState.PRIVATE], ids=lambda to: to.value)
@pytest.mark.parametrize(("transport", "faults"), PAIRS, ids=lambda word: word)
def test_example_guest_on_the_bundled_host(program: str, transport: str, faults: str, to: PageState) -> None:
    with Peer(program) as peer:
        peer.ok(configure(transport, "guest"))
        for start, pages in SPANS:
            host = host_class(ABIS[transport])(load(ABIS[transport]), transport=transport)
            host.backend.reset(
                ranges=[(gpa >> 12, (gpa >> 12) + n, PageState.SHARED) for gpa, n in before(start, pages, to)]
            )
            peer.ok(reset())
            waiting = list(FAULTS[faults])
            answer = peer.ask(convert(start << 12, pages, to.value))
            while "yield" in answer:
                asked = {name: int(value, 16) for name, value in answer["yield"]["regs"].items()}
                given = host.answer(asked, inject=injection(waiting.pop(0)) if waiting else None)
                regs = {name: hex(value) for name, value in given.regs.items()}
                answer = peer.ask({"cmd": "resume", "regs": regs, "mem": []})
            done = 0 if transport != "tdcall" and faults == "busy" else expected_pages(faults, pages)
            belief = [[hex(start << 12), hex(done), to.value]] if done else []
            assert answer == {"ok": {"done": done == pages, "ranges": belief}}
            assert shown(host) == after(start, pages, done, to)


@pytest.mark.parametrize("to", [PageState.SHARED, PageState.PRIVATE], ids=lambda to: to.value)
@pytest.mark.parametrize(("transport", "faults"), PAIRS, ids=lambda word: word)
def test_bundled_guest_on_the_example_host(program: str, transport: str, faults: str, to: PageState) -> None:
    with Peer(program) as peer:
        peer.ok(configure(transport, "host"))
        for start, pages in SPANS:
            peer.ok(reset(*before(start, pages, to)))
            waiting = list(FAULTS[faults])
            talk = guest_class(ABIS[transport])(load(ABIS[transport]), transport=transport).convert(
                start << 12, pages, to
            )
            reply: GuestReply | None = None
            try:
                while True:
                    step = next(talk) if reply is None else talk.send(reply)
                    assert isinstance(step, GuestCall)
                    if waiting:
                        ((name, value),) = waiting.pop(0).items()
                        words = {"stop-after": "pages", "event-pending": "after", "vmm-error": "errno"}
                        peer.ok({"cmd": "inject", "fault": name, words[name]: hex(value)})
                    regs = {name: hex(value) for name, value in step.regs.items()}
                    found = peer.ok({"cmd": "call", "vcpu": 0, "regs": regs})
                    assert found["end"] == "return"
                    reply = GuestReply(regs={name: int(value, 16) for name, value in found["regs"].items()})
            except StopIteration as end:
                result: GuestResult = end.value
            done = 0 if transport != "tdcall" and faults == "busy" else expected_pages(faults, pages)
            assert (result.done, result.ranges) == (done == pages, ((start, start + done),) if done else ())
            assert peer.ok({"cmd": "query"})["ranges"] == after(start, pages, done, to)


# -- two hosts side by side -----------------------------------------------------------------------------------------

EDGES = (
    0,
    1,
    0xFFF,
    0x1000,
    0x1800,
    0x8000,
    0x200000,
    S48,
    S48 - 0x1000,
    S52,
    S52 - 0x1000,
    1 << 48,
    1 << 52,
    2**64 - 0x1000,
)


def some_number(rng: random.Random) -> int:
    kind = rng.randrange(4)
    if kind == 0:
        return rng.choice(EDGES)
    if kind == 1:
        return rng.getrandbits(64)
    return (rng.randrange(64) << 12) + rng.choice((0, 0, 0, 0, 0x800))


def some_call(rng: random.Random, transport: str) -> dict[str, Any]:
    if transport == "tdcall":
        # Sizes stay small: the bundled host goes through a range chunk by chunk.
        size = rng.choice((0, 0x800, 0x1000, 0x3000, 0x5000, 0x200000, 0x401000, 2**64 - 0x1000, 2**64 - 1))
        leaf = 0x10001 if rng.random() < 0.95 else rng.getrandbits(17)
        return tdx(some_number(rng) | rng.choice((0, S48, S48, S52)), size, leaf=leaf)
    attributes = rng.choice((0, 0x10, 0, 0x10, 1, 0x11, 0x1F, rng.getrandbits(64)))
    pages = rng.choice((0, 1, 2, 5, 0xFFFFFFFF, 1 << 52, 2**64 - 1, 0xFFF0000000000001, rng.getrandbits(64)))
    mode = "32" if transport == "vmcall32" else "64"
    nr = 12 if rng.random() < 0.95 else 0x7FFF
    return kvm(some_number(rng), pages, attributes, nr=nr, cpl=rng.choice((0, 0, 0, 0, 0, 1, 3)), mode=mode)


def some_fault(rng: random.Random) -> dict[str, Any]:
    name, word, values = rng.choice(
        [
            ("vmm-error", "errno", (1, 5, 11, 22)),
            ("stop-after", "pages", (0, 1, 2, 511, 513)),
            ("event-pending", "after", (1, 2, 9)),
        ]
    )
    return {"cmd": "inject", "fault": name, word: hex(rng.choice(values))}


def some_session(seed: int, transport: str) -> Script:
    """Return random commands; nothing is expected of them but that two implementations agree."""
    rng = random.Random(seed)
    config: dict[str, Any] = {}
    if rng.random() < 0.2:
        config["enabled"] = False
    if rng.random() < 0.5:
        config["max_ranges"] = hex(rng.randrange(4))
    if transport == "tdcall":
        config |= {"gpaw": rng.choice(("0x30", "0x34")), "maxphyaddr": rng.choice(("0x30", "0x34"))}
    turns: list[tuple[dict[str, Any] | bytes, dict[str, Any]]] = [(configure(transport, "host", **config), OK)]
    for _ in range(120):
        if rng.random() < 0.3:
            turns.append((some_fault(rng), OK))
        if rng.random() < 0.05:
            first = rng.randrange(64)
            turns.append((reset((first << 12, rng.randrange(9)), ((first + 10) << 12, 2)), OK))
        turns += [(some_call(rng, transport), OK), ({"cmd": "query"}, OK)]
    return Script(turns=tuple(turns))


def comparable(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages are each implementation's own."""
    return [
        {key: ... if key in ("unsupported", "error") else value for key, value in answer.items()} for answer in answers
    ]


@pytest.mark.parametrize("transport", ABIS)
@pytest.mark.parametrize("seed", range(8))
def test_example_and_bundled_host_agree_on_random_calls(program: str, transport: str, seed: int) -> None:
    session = some_session(seed, transport)
    theirs, ours = comparable(run(program, lines_of(session))), comparable(bundled(lines_of(session)))
    for (what, _), their, our in zip(session.turns, theirs, ours, strict=True):
        assert their == our, what
