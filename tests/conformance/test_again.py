"""Calls that are executed again: guests written without hvabi, one right and some with one mistake each."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from hvabi.conformance.connect import SimpleConnector
from hvabi.conformance.generate.all import cases
from hvabi.conformance.inprocess import DirectConnection
from hvabi.conformance.stories import regression_cases
from hvabi.conformance.supervise import Supervisor

if TYPE_CHECKING:
    from collections.abc import Generator

    Talk = Generator[dict[str, Any], dict[str, Any], bool]

ABI = "s390-uv-share"
CASES = [*cases(ABI, role="guest"), *(case for case in regression_cases(ABI) if case.role == "guest")]
PAGE = 4096


class Toy:
    """A guest of s390 that shares page by page and keeps its control block in memory of its own."""

    def __init__(self) -> None:
        self.talk: Talk | None = None
        self.block = bytearray(48)
        self.at = 0
        self.enabled = True
        self.done: list[int] = []

    def fill(self, page: int, command: int) -> None:
        self.block[:] = (
            (48).to_bytes(2, "big")
            + command.to_bytes(2, "big")
            + bytes(28)
            + (page * PAGE).to_bytes(8, "big")
            + bytes(8)
        )

    def call(self) -> dict[str, Any]:
        return {"regs": {"r1": "0x0", "r2": hex(self.at)}, "mem": [[hex(self.at), self.block.hex()]]}

    def again(self, page: int, command: int) -> None:
        """What is done before the call is executed again: nothing."""

    def convert(self, first: int, pages: int, to: str) -> Talk:
        command = 0x1000 if to == "shared" else 0x1001
        for page in range(first, first + pages):
            self.fill(page, command)
            for _ in range(100):
                answer = yield self.call()
                for at, text in answer.get("mem", []):
                    data, start = bytes.fromhex(text), int(at, 16) - self.at
                    for offset, byte in enumerate(data):
                        if 0 <= start + offset < 48:
                            self.block[start + offset] = byte
                code = int(answer.get("regs", {}).get("cc", "0x0"), 16)
                if code < 2:
                    break
                self.again(page, command)
            if code != 0 or self.block[4:6] != b"\0\1":
                return False
            self.done.append(page)
        return True

    def handle(self, line: str) -> str:
        command = json.loads(line.removeprefix("@hvabi "))
        name = command["cmd"]
        body: dict[str, Any] = {"ok": {}}
        if name == "hello":
            offer = {"revisions": ["uv-1"], "transports": ["uvc"], "roles": ["guest"]}
            body = {"ok": {"protocol": 1, "name": "toy", "version": "1", "features": [], "abis": {ABI: offer}}}
        elif name == "configure":
            config = command.get("config", {})
            self.enabled = config.get("enabled", True)
            self.at = int(config["scratch"][0], 16)
        elif name == "convert":
            gpa, pages = int(command["gpa"], 16), int(command["pages"], 16)
            self.to, self.done = command["to"], []
            if gpa % PAGE or not pages or not self.enabled:
                body = {"ok": {"done": False, "ranges": []}}
            else:
                self.talk = self.convert(gpa // PAGE, pages, command["to"])
                body = self.go(None)
        elif name == "resume":
            body = self.go(command)
        return "@hvabi " + json.dumps({"id": command["id"], **body})

    def go(self, answer: dict[str, Any] | None) -> dict[str, Any]:
        assert self.talk is not None
        try:
            return {"yield": next(self.talk) if answer is None else self.talk.send(answer)}
        except StopIteration as end:
            ranges = [[hex(page * PAGE), "0x1", self.to] for page in self.done]
            return {"ok": {"done": end.value, "ranges": merged(ranges)}}


def merged(rows: list[list[str]]) -> list[list[str]]:
    out: list[list[str]] = []
    for gpa, _, state in rows:
        if out and int(out[-1][0], 16) + int(out[-1][1], 16) * PAGE == int(gpa, 16):
            out[-1][1] = hex(int(out[-1][1], 16) + 1)
        else:
            out.append([gpa, "0x1", state])
    return out


class MakesAnew(Toy):
    def again(self, page: int, command: int) -> None:
        self.fill(page, command)


class ClearsTheResponse(Toy):
    def again(self, page: int, command: int) -> None:
        self.block[4:8] = bytes(4)


class OtherBlock(Toy):
    def again(self, page: int, command: int) -> None:
        self.at += 0x100


class GivesUp(Toy):
    def again(self, page: int, command: int) -> None:
        self.block[4:6] = b"\0\7"


def run(guest: type[Toy]) -> dict[str, str]:
    """Return what was said of each case that a guest does not pass."""
    toy = guest()
    supervisor = Supervisor(SimpleConnector("toy", lambda: DirectConnection(toy.handle, "toy")))
    try:
        results = [supervisor.run(case) for case in CASES]
    finally:
        supervisor.close()
    return {result.case.id: result.message for result in results if result.verdict.value != "pass"}


def test_a_right_guest_passes() -> None:
    assert run(Toy) == {}
    assert sum("again" in case.id for case in CASES) == 6


@pytest.mark.parametrize("guest", [MakesAnew, ClearsTheResponse, OtherBlock])
def test_a_guest_that_changes_the_call_is_caught(guest: type[Toy]) -> None:
    found = run(guest)
    assert any("again-as-left" in case for case in found)
    assert any("of the call that is executed again" in text for text in found.values())


def test_a_guest_that_gives_up_is_caught() -> None:
    assert sum("again" in case for case in run(GivesUp)) == 6
