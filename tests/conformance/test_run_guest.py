"""Guests against the runner's model host: one right toy, and toys with one mistake each."""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

from hvabi.conformance.case import Case, GuestScript, GuestTurn, Inject, Setup
from hvabi.conformance.connect import SimpleConnector
from hvabi.conformance.inprocess import DirectConnection
from hvabi.conformance.run import run_cases
from hvabi.conformance.supervise import Supervisor

if TYPE_CHECKING:
    from hvabi.conformance.result import CaseResult, RunResult

SHARED_BIT = 1 << 47
SUCCESS, RETRY = 0, 1
PAGE = 4096
Talk = Generator[tuple[str, Any], dict[str, int], None]


class Toy:
    """A right guest: TDCALL with RETRY, written without hvabi. Mistakes override `convert`."""

    features: tuple[str, ...] = ()
    rcx = 0x3C00

    def handle(self, line: str) -> str:
        command = json.loads(line.removeprefix("@hvabi "))
        name = command["cmd"]
        body: dict[str, Any] = {"ok": {}}
        if name == "hello":
            offer = {"revisions": ["ghci-1.5"], "transports": ["tdcall"], "roles": ["guest"]}
            body = {"ok": {"protocol": 1, "name": "toy", "version": "1", "features": list(self.features),
                           "abis": {"tdx-map-gpa": offer}}}  # fmt: skip
        elif name == "configure":
            self.enabled = command["config"].get("enabled", True)
        elif name == "convert":
            self.to = command["to"]
            self.talk = self.convert(int(command["gpa"], 16), int(command["pages"], 16) * PAGE)
            body = self.next(None)
        elif name == "resume":
            body = self.next({key: int(value, 16) for key, value in command["regs"].items()})
        return "@hvabi " + json.dumps({"id": command["id"], **body}) + "\n"

    def next(self, answer: dict[str, int] | None) -> dict[str, Any]:
        kind, value = next(self.talk) if answer is None else self.talk.send(answer)
        return {"yield" if kind in ("call", "step") else "ok": value}

    def call(self, gpa: int, size: int) -> tuple[str, Any]:
        regs = {"rax": 0, "rcx": self.rcx, "r10": 0, "r11": 0x10001, "r12": gpa, "r13": size}
        return "call", {"regs": {name: hex(value) for name, value in regs.items()}, "mem": []}

    def step(self, word: str, gpa: int, size: int) -> tuple[str, Any]:
        return "step", {"step": word, "ranges": self.ranges(gpa, size)}

    def ranges(self, gpa: int, size: int) -> list[list[str]]:
        return [[hex(gpa), hex(size // PAGE), self.to]] if size else []

    def end(self, gpa: int, size: int, *, done: bool) -> tuple[str, Any]:
        return "ok", {"done": done, "ranges": self.ranges(gpa, size)}

    def bit(self) -> int:
        return SHARED_BIT if self.to == "shared" else 0

    def convert(self, gpa: int, size: int) -> Talk:
        if not self.enabled or not size or gpa % PAGE:
            yield self.end(gpa, 0, done=False)
            return
        at, end, stalls = gpa, gpa + size, 0
        while at < end:
            answer = yield self.call(at | self.bit(), end - at)
            if answer["r10"] == SUCCESS:
                break
            next_at = answer.get("r11", 0) & ~SHARED_BIT
            same_half = answer.get("r11", 0) & SHARED_BIT == self.bit()
            if answer["r10"] != RETRY or not same_half or not at <= next_at < end or next_at % PAGE:
                yield self.end(gpa, at - gpa, done=False)
                return
            stalls = stalls + 1 if next_at == at else 0
            if stalls > 3:
                yield self.end(gpa, at - gpa, done=False)
                return
            at = next_at
        yield self.end(gpa, size, done=True)


class RetryIsDone(Toy):
    def convert(self, gpa: int, size: int) -> Talk:
        yield self.call(gpa | self.bit(), size)
        yield self.end(gpa, size, done=True)


class RetryIsFailure(Toy):
    def convert(self, gpa: int, size: int) -> Talk:
        answer = yield self.call(gpa | self.bit(), size)
        done = answer["r10"] == SUCCESS
        yield self.end(gpa, size if done else 0, done=done)


class StartsAgain(Toy):
    def convert(self, gpa: int, size: int) -> Talk:
        while (yield self.call(gpa | self.bit(), size))["r10"] != SUCCESS:
            pass
        yield self.end(gpa, size, done=True)


class NoSharedBit(Toy):
    def bit(self) -> int:
        return 0


class HidesRegisters(Toy):
    rcx = 0


class TooLong(Toy):
    def call(self, gpa: int, size: int) -> tuple[str, Any]:
        return super().call(gpa, size + PAGE)


class WrongLeaf(Toy):
    def call(self, gpa: int, size: int) -> tuple[str, Any]:
        kind, value = super().call(gpa, size)
        value["regs"]["r11"] = "0x10002"
        return kind, value


class NoCall(Toy):
    def convert(self, gpa: int, size: int) -> Talk:
        yield self.end(gpa, size, done=True)


class Unaligned(Toy):
    def call(self, gpa: int, size: int) -> tuple[str, Any]:
        return super().call(gpa + 0x10, size)


class Panics(Toy):
    def convert(self, gpa: int, size: int) -> Talk:
        yield "ok", {"end": "stop", "reason": "BUG: size"}


class ForgetsTheTail(Toy):
    def end(self, gpa: int, size: int, *, done: bool) -> tuple[str, Any]:
        return super().end(gpa, size - PAGE if done else size, done=done)


class BelievesOutside(Toy):
    def end(self, gpa: int, size: int, *, done: bool) -> tuple[str, Any]:
        return super().end(gpa, size + PAGE, done=done)


class CallsTwice(Toy):
    def convert(self, gpa: int, size: int) -> Talk:
        yield self.call(gpa | self.bit(), size)
        yield from super().convert(gpa, size)


class Steps(Toy):
    features: tuple[str, ...] = ("local-steps",)

    def convert(self, gpa: int, size: int) -> Talk:
        if self.to == "shared":
            yield self.step("map", gpa, size)
        yield self.call(gpa | self.bit(), size)
        if self.to == "private":
            yield self.step("accept", gpa, size)
        yield self.end(gpa, size, done=True)


class AcceptsFirst(Steps):
    def convert(self, gpa: int, size: int) -> Talk:
        yield self.step("accept", gpa, size)
        yield self.call(gpa | self.bit(), size)
        yield self.end(gpa, size, done=True)


class AcceptsTheTail(Steps):
    def convert(self, gpa: int, size: int) -> Talk:
        yield self.call(gpa | self.bit(), size)
        yield self.step("accept", gpa + PAGE, size - PAGE)
        yield self.end(gpa, size, done=True)


class StepWithoutFeature(Steps):
    features: tuple[str, ...] = ()


GPA, PAGES = 0x1000000, 8
WHOLE = ((GPA >> 12, (GPA >> 12) + PAGES),)
TAIL = ((WHOLE[0][0] + 3, WHOLE[0][1]),)
PARTIAL = GuestTurn(inject=Inject(fault="stop-after", arguments={"pages": 3}))
REFUSES = GuestTurn(inject=Inject(fault="vmm-error", arguments={"errno": 22}))


def case(
    script: GuestScript | None = None, *, to: str = "shared", features: tuple[str, ...] = (), **changes: Any
) -> Case:
    before = ((WHOLE[0][0] - 1, WHOLE[0][1] + 1, "shared"),) if to == "private" else ()
    values: dict[str, Any] = {
        "id": "tdx-map-gpa@ghci-1.5.guest.tdcall.toy.case",
        "abi": "tdx-map-gpa", "revision": "ghci-1.5", "role": "guest", "transport": "tdcall",
        "rules": (), "level": "must", "why": "A toy.", "kind": "guest",
        "setup": Setup(scratch=(16, 20)), "before": before, "features": features,
    }  # fmt: skip
    return Case(**{**values, "script": script or GuestScript(gpa=GPA, pages=PAGES, to=to), **changes})


def script(*turns: GuestTurn, to: str = "shared", **changes: Any) -> GuestScript:
    return GuestScript(gpa=GPA, pages=PAGES, to=to, turns=turns, **changes)


def run(guest: type[Toy], *cases: Case) -> RunResult:
    return run_cases(cases, SimpleConnector("toy", lambda: DirectConnection(guest().handle, "toy")))


def one(guest: type[Toy], which: Case) -> CaseResult:
    return run(guest, which).results[0]


SAYS_ALL = GuestTurn(kind="say", say={"status": SUCCESS})
SAYS_RETRY = GuestTurn(kind="say", say={"status": RETRY, "next_gpa": "gpa + 4096"})
OVERSHOOTS = GuestTurn(say={"status": RETRY, "next_gpa": "gpa + size + 4096"})
BACKWARDS = GuestTurn(kind="say", say={"status": RETRY, "next_gpa": "gpa - 4096"})
STALLS = GuestTurn(kind="say", say={"status": RETRY, "next_gpa": "gpa"})
OVER_THE_RIGHT = GuestTurn(
    say={"next_gpa": "response.next_gpa - 4096"}, inject=Inject(fault="stop-after", arguments={"pages": 3})
)

CASES = {
    "done": case(),
    "done-private": case(to="private"),
    "partial": case(script(PARTIAL, PARTIAL, calls=(3, 3), must_believe=WHOLE)),
    "refused": case(script(REFUSES, done=False, calls=(1, 1), must_not_believe=WHOLE)),
    "partial-then-refused": case(script(PARTIAL, REFUSES, done=False, must_not_believe=TAIL)),
    "none": case(GuestScript(gpa=GPA + 8, pages=1, to="shared", done=False, calls=(0, 0))),
    "switched-off": case(script(done=False, calls=(0, 0)), setup=Setup(scratch=(16, 20), enabled=False)),
    "overshoots": case(script(OVERSHOOTS, done=False)),
    "backwards": case(script(PARTIAL, BACKWARDS, done=False)),
    "stalls": case(script(STALLS, repeat_last=True, done=False)),
    "said-all": case(script(SAYS_ALL)),
    "said-retry": case(script(SAYS_RETRY, SAYS_RETRY, calls=(3, 3))),
    "said-over-the-right": case(script(OVER_THE_RIGHT, calls=(2, 2))),
    "raw": case(script(GuestTurn(kind="say", regs={"r10": 0, "r11": 0x10001}))),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_right_guest_passes(name: str) -> None:
    result = one(Toy, CASES[name])
    assert (result.verdict.value, result.message) == ("pass", "")
    assert bool(result.exchanged) is (name not in ("none", "switched-off"))


STEP_SCRIPT = script(to="private", local_steps=(("accept", "after", WHOLE),))
LOCAL = ("local-steps",)


@pytest.mark.parametrize(
    ("guest", "which", "verdict", "message"),
    [
        (RetryIsDone, CASES["partial"], "fail", "calls: expected 3, found 1|only what the host has done"),
        (RetryIsDone, CASES["refused"], "fail", "done: expected false, found true"),
        (RetryIsFailure, CASES["partial"], "fail", "done: expected true, found false"),
        (StartsAgain, case(script(PARTIAL, repeat_last=True, done=None)), "no-progress", "bound is|in a row"),
        (StartsAgain, CASES["stalls"], "no-progress", "the bound is 52"),
        (StartsAgain, CASES["said-retry"], "pass", ""),
        (NoSharedBit, CASES["done"], "fail", "state of the request: expected shared, found private"),
        (NoSharedBit, CASES["done-private"], "pass", ""),
        (HidesRegisters, CASES["done"], "fail", "rule TDX-MAPGPA-20"),
        (TooLong, CASES["done"], "fail", "pages of the request"),
        (WrongLeaf, CASES["done"], "fail", "request: expected a call of this ABI"),
        (NoCall, CASES["done"], "fail", "only what the host has done, found 0x1000 to 0x1007"),
        (NoCall, case(script(must_believe=WHOLE), before=((*WHOLE[0], "shared"),)), "pass", ""),
        (Unaligned, CASES["done"], "fail", "done: expected true|pages of the request"),
        (Panics, CASES["done"], "fail", "end of the conversion: expected done, found stop: BUG: size"),
        (Panics, CASES["refused"], "fail", "calls: expected 1, found 0"),
        (ForgetsTheTail, CASES["done"], "fail", "the whole, as done is true"),
        (BelievesOutside, CASES["done"], "fail", "ranges at the end: expected pages of the conversion"),
        (CallsTwice, CASES["done"], "pass", ""),
        (CallsTwice, case(script(calls=(1, 1))), "fail", "calls: expected 1, found 2"),
        (Steps, case(STEP_SCRIPT, to="private", features=LOCAL), "pass", ""),
        (Steps, case(features=LOCAL), "pass", ""),
        (Toy, case(STEP_SCRIPT, to="private", features=LOCAL), "skip", "it has not the feature local-steps"),
        (AcceptsFirst, case(STEP_SCRIPT, to="private", features=LOCAL), "fail", "step accept: expected after"),
        (AcceptsFirst, case(to="private"), "fail", "step accept: expected after"),
        (AcceptsTheTail, case(STEP_SCRIPT, to="private", features=LOCAL), "fail", "step accept: expected 0x1000 to"),
        (StepWithoutFeature, CASES["done"], "protocol", "has not the feature local-steps"),
    ],
)  # fmt: skip
def test_a_mistake_is_caught(guest: type[Toy], which: Case, verdict: str, message: str) -> None:
    result = one(guest, which)
    assert result.verdict.value == verdict, result.message
    assert any(part in result.message for part in message.split("|")), result.message


def test_what_a_guest_reports_of_other_states_is_wrong() -> None:
    class Reports(Toy):
        def ranges(self, gpa: int, size: int) -> list[list[str]]:
            return [[hex(gpa), hex(size // PAGE), "private"]]

    assert "the whole, as done is true" in " ".join(str(finding) for finding in one(Reports, CASES["done"]).findings)


def test_the_level_of_a_rule_that_binds_the_guest() -> None:
    # The rule about RCX is a must, in a case that is otherwise only a may too.
    assert one(HidesRegisters, case(level="may")).verdict.value == "fail"


def test_a_guest_case_ends_and_the_next_one_begins() -> None:
    results = run(WrongLeaf, CASES["done"], case(id="tdx-map-gpa@ghci-1.5.guest.tdcall.toy.other")).results
    assert [result.verdict.value for result in results] == ["fail", "fail"]


def test_a_guest_that_talks_for_ever_ends_by_time() -> None:
    class Endless(Steps):
        def convert(self, gpa: int, size: int) -> Talk:
            while True:
                yield self.step("map", gpa, size)

    supervisor = Supervisor(SimpleConnector("toy", lambda: DirectConnection(Endless().handle, "toy")))
    supervisor.case_seconds = 0.2
    result = supervisor.run(CASES["done"])
    assert result.verdict.value == "timeout"
    assert "the case took longer than 0.2 s" in result.message
