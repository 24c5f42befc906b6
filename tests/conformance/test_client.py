from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from hvabi.conformance.answer import (
    CallEnd,
    Converted,
    Exit,
    GuestAsk,
    LocalStep,
    PeerError,
    PeerUnsupported,
    ProtocolViolation,
)
from hvabi.conformance.case import Inject, Setup
from hvabi.conformance.client import Client
from hvabi.conformance.stream import PeerTimeout

if TYPE_CHECKING:
    from collections.abc import Callable

P = "@hvabi "


class Line:
    """A connection whose answers are written down; ``ID`` in one stands for the id of the last command."""

    def __init__(self, *answers: str | None) -> None:
        self.answers = list(answers)
        self.sent: list[dict[str, Any]] = []
        self.raw: list[str] = []

    def send(self, line: str, seconds: float) -> None:
        assert line.startswith(P)
        assert line.endswith("\n")
        self.raw.append(line[:-1])
        self.sent.append(json.loads(line[len(P) :]))

    def receive(self, seconds: float) -> str | None:
        if not self.answers:
            raise PeerTimeout("no answer", seconds=seconds)
        answer = self.answers.pop(0)
        return (
            answer if answer is None else answer.replace("ID", str(self.sent[-1]["id"])).replace("ECHO", self.raw[-1])
        )

    def take_log(self) -> str:
        return ""

    def take_stderr(self) -> str:
        return ""

    def close(self) -> None:
        pass


def ok(body: str = "{}") -> str:
    return P + '{"id":ID,"ok":' + body + "}"


def shown(body: str) -> str:
    return P + '{"id":ID,"yield":' + body + "}"


HELLO = """{"protocol":1,"name":"n","version":"2","extra":[],"features":["exits","new"],"abis":{"ghcb-psc":
{"revisions":["ghcb-2"],"transports":["vmgexit"],"roles":["guest","host"],"profile":"p"}}}""".replace("\n", "")


def test_commands_as_the_protocol_writes_them() -> None:
    line = Line(ok(HELLO), *[ok()] * 5, ok('{"ranges":[]}'), ok())
    client = Client(line)
    hello = client.hello(["exits"])
    assert hello.peer == "n 2"
    assert hello.features == {"exits", "new"}
    assert hello.abis["ghcb-psc"].profile == "p"
    setup = Setup(config={"gpaw": 52}, memory=((0, 16), (16, 32)), enabled=False, max_ranges=3, scratch=(16, 20))
    client.configure("a", "r", "t", "host", setup, profile="p")
    client.configure("a", "r", "t", "guest", Setup())
    client.reset(((1, 3, "shared"),), {"accepted": ((0, 1),)})
    client.inject(Inject(fault="memory-flip", arguments={"gpa": 0x1802, "hex": b"\xff\0"}))
    client.inject(Inject(fault="event-pending", arguments={"after": 1}))
    assert client.query() == ((), {})
    client.stop()
    assert [row.pop("id") for row in line.sent] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert line.sent == [
        {"cmd": "hello", "min": 1, "max": 1, "runner": "hvabi", "features": ["exits"]},
        {"cmd": "configure", "abi": "a", "revision": "r", "transport": "t", "role": "host", "config": {
            "gpaw": "0x34", "memory": [["0x0", "0x10"], ["0x10000", "0x10"]], "enabled": False, "max_ranges": "0x3",
            "scratch": ["0x10000", "0x4"], "profile": "p"}},
        {"cmd": "configure", "abi": "a", "revision": "r", "transport": "t", "role": "guest", "config": {}},
        {"cmd": "reset", "ranges": [["0x1000", "0x2", "shared"]], "facts": {"accepted": [["0x0", "0x1"]]}},
        {"cmd": "inject", "fault": "memory-flip", "gpa": "0x1802", "hex": "ff00"},
        {"cmd": "inject", "fault": "event-pending", "after": "0x1"},
        {"cmd": "query"},
        {"cmd": "stop"},
    ]  # fmt: skip


def test_calls_and_exits() -> None:
    line = Line(
        shown('{"exit":{"abi":"x","regs":{"rax":"0x1"},"mem":[["0x10","00"]]}}'),
        ok('{"end":"return","regs":{"xmm0":"0x100000000000000000000000000000000"}}'),
        ok('{"end":"fault","fault":"gp","unknown":1}'),
        ok('{"end":"stop","reason":"bad\\u001b[0m"}'),
    )
    client = Client(line)
    assert client.call({"r10": 1}, ((0x10, b"\1"),), vcpu=1, mode="32", cpl=3) == Exit(
        abi="x", regs={"rax": 1}, mem=((0x10, b"\0"),)
    )
    with pytest.raises(ProtocolViolation, match="register xmm0 is a"):
        client.answer_exit({"rax": 0})
    assert client.call({}) == CallEnd(end="fault", fault="gp")
    assert client.call({}) == CallEnd(end="stop", reason="bad\\x1b[0m")
    assert {key: line.sent[0][key] for key in ("vcpu", "cpu", "regs", "mem")} == {
        "vcpu": 1, "cpu": {"mode": "32", "cpl": 3}, "regs": {"r10": "0x1"}, "mem": [["0x10", "01"]]}  # fmt: skip


def test_conversions() -> None:
    line = Line(
        shown('{"step":"rescind","ranges":[["0x1000","0x1","shared"]]}'),
        shown('{"regs":{"r12":"0x1"},"mem":[]}'),
        ok('{"done":true,"ranges":[["0x1000","0x1","shared"]]}'),
        ok('{"end":"stop","reason":"panic"}'),
    )
    client = Client(line)
    assert client.convert(0x1000, 1, "shared") == LocalStep(step="rescind", ranges=((1, 2, "shared"),))
    assert client.resume() == GuestAsk(regs={"r12": 1}, mem=())
    assert client.resume({"r10": 0}) == Converted(done=True, ranges=((1, 2, "shared"),))
    assert client.convert(0, 1, "private") == Converted(done=False, stop="panic")


def test_unsupported_and_error() -> None:
    client = Client(Line(P + '{"id":ID,"unsupported":{"message":"no"}}', P + '{"id":ID,"error":{"message":""}}'))
    with pytest.raises(PeerUnsupported, match="no"):
        client.query()
    with pytest.raises(PeerError, match="error"):
        client.query()


def call(client: Client) -> object:
    return client.call({})


def convert(client: Client) -> object:
    return client.convert(0x1000, 1, "shared")


def query(client: Client) -> object:
    return client.query()


def hello(client: Client) -> object:
    return client.hello()


@pytest.mark.parametrize(
    ("command", "answer", "reason"),
    [
        (query, shown("{}"), "not answered with yield"),
        (query, ok(), "`ranges` is missing"),
        (query, ok('{"ranges":{}}'), "list of lists"),
        (query, ok('{"ranges":[["0x0","0x1","mapped"]]}'), "no page state"),
        (query, ok('{"ranges":[["0x0","0x1",["shared"]]]}'), "no page state"),
        (query, ok('{"ranges":[["0x0","0x1","private"]]}'), "only what is not private"),
        (query, ok('{"ranges":[["0x0","0x1","shared"],["0x1000","0x1","shared"]]}'), "not merged at 0x1000"),
        (query, ok('{"ranges":[["0x2000","0x1","shared"],["0x0","0x1","shared"]]}'), "not sorted"),
        (query, ok('{"ranges":[["0x800","0x1","shared"]]}'), "no whole 4 KiB pages"),
        (query, ok('{"ranges":[[0,1,"shared"]]}'), "lower-case"),
        (query, ok('{"ranges":[],"facts":[]}'), "facts is an object"),
        (query, ok('{"ranges":[],"facts":{"a":[["0x0"]]}}'), "list of lists of 2"),
        (call, ok('{"end":1}'), "end is a string"),
        (call, ok('{"end":"fault"}'), "`fault` is missing"),
        (call, ok('{"end":"stop"}'), "`reason` is missing"),
        (call, ok('{"end":"return","regs":[]}'), "regs is an object"),
        (call, ok('{"end":"return","regs":{"R10":"0x0"}}'), "no register name"),
        (call, ok('{"end":"return","regs":{"r10":"0x10000000000000000"}}'), "does not fit 64 bits"),
        (call, ok('{"end":"return","mem":[["0x1","0000"],["0x2","00"]]}'), "not sorted and disjoint"),
        (call, ok('{"end":"return","mem":[["0xffffffffffffffff","0000"]]}'), "not sorted"),
        (call, shown('{"regs":{}}'), "`exit` is missing"),
        (call, shown('{"exit":[]}'), "exit is an object"),
        (convert, ok(), "`done` is missing"),
        (convert, ok('{"done":1,"ranges":[]}'), "done is true or false"),
        (convert, ok('{"done":true}'), "`ranges` is missing"),
        (convert, ok('{"end":"return"}'), "ends with done or with end stop"),
        (convert, shown("{}"), "`regs` is missing"),
        (convert, shown('{"step":"jump","ranges":[]}'), "step is one of"),
        (hello, ok('{"protocol":true,"name":"","version":"","abis":{}}'), "protocol is true"),
        (hello, ok('{"protocol":1,"version":"","abis":{}}'), "`name` is missing"),
        (hello, ok('{"protocol":1,"name":"","version":"","abis":{},"features":"exits"}'), "features is a list"),
        (query, None, "longer than"),
        (query, P + '{"id":"1","ok":{}}', "no JSON number"),
        (query, P + '{"id":true,"ok":{}}', "no JSON number"),
        (query, P + '{"id":99,"ok":{}}', "the answer is for id 99, not for 1"),
        (query, P + '{"id":0,"ok":{}}', "the answer is for id 0"),
        (query, P + '{"id":-1,"ok":{}}', "the answer is for id -1"),
    ],
)
def test_violations_say_what_and_where(command: Callable[[Client], object], answer: str | None, reason: str) -> None:
    with pytest.raises(ProtocolViolation, match=reason) as caught:
        command(Client(Line(answer)))
    assert caught.value.fields["line"] == ("" if answer is None else answer.replace("ID", "1")[:300])


def test_a_late_answer_is_dropped_and_a_second_one_is_not() -> None:
    line = Line()
    client = Client(line)
    with pytest.raises(PeerTimeout, match="`query`: no answer in 5 s"):
        client.query()
    line.answers = [P + '{"id":1,"ok":{}}', ok('{"ranges":[]}')]
    assert client.query() == ((), {})
    line.answers = [P + '{"id":1,"ok":{}}']
    with pytest.raises(ProtocolViolation):
        client.query()


def test_answers_from_before_a_restart_are_dropped() -> None:
    ids = iter(range(10, 20))
    line = Line(P + '{"id":7,"ok":{}}', ok('{"ranges":[]}'))
    assert Client(line, ids=ids).query() == ((), {})


def test_late_answers_for_ever_end() -> None:
    class Late(Line):
        def receive(self, seconds: float) -> str:
            return P + '{"id":7,"ok":{}}'

    with pytest.raises(PeerTimeout, match="only late answers"):
        Client(Late(), ids=iter([10]), timeout=0.05).query()


def test_a_console_that_echoes() -> None:
    assert Client(Line("ECHO", ok('{"ranges":[]}'))).query() == ((), {})
