"""The bundled session to the letter of the line protocol, sentence by sentence."""

from __future__ import annotations

import contextlib
import io
import json
import random
import subprocess
import sys
from typing import Any

import pytest

from hvabi.abi.registry import abi_ids, bundled
from hvabi.conformance import frame
from hvabi.conformance.frame import MAX_LINE, ProtocolError, format_line, parse_line
from hvabi.conformance.iut import FEATURES, Session, serve

PREFIX = "@hvabi "

MAP = {"abi": "kvm-map-gpa-range", "revision": "v1", "transport": "vmcall64", "role": "host"}
MAP32 = {**MAP, "transport": "vmcall32"}
TDX = {"abi": "tdx-map-gpa", "revision": "ghci-1.5", "transport": "tdcall", "role": "host"}
PSC = {"abi": "ghcb-psc", "revision": "ghcb-2", "transport": "vmgexit", "role": "host"}
MSR = {"abi": "ghcb-msr-psc", "revision": "ghcb-2", "transport": "vmgexit-msr", "role": "host"}
ATTRS = {"abi": "kvm-memory-attributes", "revision": "v1", "transport": "ioctl", "role": "host"}
ACCEPT = {"abi": "hyperv-accept-pages", "revision": "tlfs", "role": "host"}
VIS = {"abi": "hyperv-host-visibility", "revision": "tlfs", "role": "host"}


def guest(what: dict[str, str]) -> dict[str, str]:
    return {**what, "role": "guest"}


class Line:
    """A session and the ids of its commands, and a second one that is given the objects of the same lines."""

    def __init__(self, **features: bool) -> None:
        self.session = Session(**features)
        self.twin = Session(**features)
        self.last = 0

    def raw(self, line: str) -> dict[str, Any]:
        answer = self.session.handle(line)
        assert answer is not None
        assert answer.startswith(PREFIX)
        assert answer.endswith("\n")
        assert answer.count("\n") == 1
        assert len(answer.encode()) <= MAX_LINE
        value = json.loads(answer.removeprefix(PREFIX))
        assert isinstance(value, dict)
        assert len(value) == 2
        assert set(value) - {"id"} <= {"ok", "yield", "unsupported", "error"}
        with contextlib.suppress(ProtocolError):
            command = parse_line(line)
            assert command is not None
            whole = self.twin.answer(command)
            assert whole == value or len(format_line(whole)) > frame.MAX_LINE
        for word in ("unsupported", "error"):
            if word in value:
                assert set(value[word]) == {"message"}
                assert isinstance(value[word]["message"], str)
                assert value[word]["message"]
        return value

    def __call__(self, cmd: str, **arguments: Any) -> tuple[str, dict[str, Any]]:
        self.last += 1
        value = self.raw(PREFIX + json.dumps({"id": self.last, "cmd": cmd, **arguments}))
        assert value.pop("id") == self.last
        ((word, content),) = value.items()
        return word, content

    def ok(self, cmd: str, **arguments: Any) -> dict[str, Any]:
        word, content = self(cmd, **arguments)
        assert word == "ok", content
        return content

    def yields(self, cmd: str, **arguments: Any) -> dict[str, Any]:
        word, content = self(cmd, **arguments)
        assert word == "yield", content
        return content

    def refused(self, expected: str, cmd: str, **arguments: Any) -> str:
        word, content = self(cmd, **arguments)
        assert word == expected, content
        return str(content["message"])

    def configure(self, what: dict[str, str], **config: Any) -> Line:
        assert self.ok("configure", **what, config=config) == {}
        return self

    def call(self, regs: dict[str, int] | None = None, **more: Any) -> dict[str, Any]:
        return self.ok("call", vcpu=0, regs=hexed(regs or {}), **more)

    def shared(self) -> list[tuple[int, int, str]]:
        found = self.ok("query")
        return [(int(gpa, 16), int(pages, 16), state) for gpa, pages, state in found["ranges"]]


def hexed(regs: dict[str, int]) -> dict[str, str]:
    return {name: hex(value) for name, value in regs.items()}


def share(gpa: int = 0x5000, npages: int = 1, attributes: int = 0) -> dict[str, int]:
    return {"rax": 12, "rbx": gpa, "rcx": npages, "rdx": attributes}


def host(what: dict[str, str] = MAP, **config: Any) -> Line:
    return Line().configure(what, **config)


# -- frame ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("", id="empty"),
        pytest.param("[    0.000000] Linux version", id="dmesg"),
        pytest.param('{"id":1,"cmd":"hello"}', id="json-without-prefix"),
        pytest.param("@hvabi", id="prefix-without-space"),
        pytest.param('@hvabi\t{"id":1}', id="prefix-with-tab"),
        pytest.param(' @hvabi {"id":1,"cmd":"stop"}', id="space-before"),
        pytest.param('@HVABI {"id":1,"cmd":"stop"}', id="upper-case"),
        pytest.param("\x00\xff\ufffd", id="binary"),
    ],
)
def test_any_other_line_is_log_text(line: str) -> None:
    session = Session()
    assert session.handle(line) is None
    assert not session.stopped


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("", id="nothing"),
        pytest.param("hello", id="word"),
        pytest.param("{", id="open-brace"),
        pytest.param("{'id': 1}", id="single-quotes"),
        pytest.param('{"id":1,"cmd":"hello"', id="cut"),
        pytest.param('{"id":1}{"id":2}', id="two-objects"),
        pytest.param("[]", id="list"),
        pytest.param('[{"id":1,"cmd":"stop"}]', id="list-of-object"),
        pytest.param("null", id="null"),
        pytest.param("1", id="number"),
        pytest.param('"stop"', id="string"),
        pytest.param("[" * 200_000, id="deep"),
        pytest.param('{"a":' * 100_000, id="deep-objects"),
        pytest.param("9" * 10_000, id="long-number"),
        pytest.param('{"id":' + "9" * 10_000 + "}", id="long-id"),
    ],
)
def test_prefixed_line_that_is_no_json_object(body: str) -> None:
    line = Line()
    value = line.raw(PREFIX + body)
    assert value["id"] is None
    assert "error" in value
    assert line.ok("hello", min=1, max=1, runner="t")["protocol"] == 1


@pytest.mark.parametrize("ident", [None, "1", "0x1", [1], {}, True], ids=repr)
def test_id_is_a_number(ident: Any) -> None:
    value = Line().raw(PREFIX + json.dumps({"id": ident, "cmd": "stop"}))
    assert (value["id"], "error" in value) == (None, True)


def test_id_is_missing() -> None:
    value = Line().raw(PREFIX + json.dumps({"cmd": "stop"}))
    assert (value["id"], "error" in value) == (None, True)


@pytest.mark.parametrize("ident", [0, 1, 7, 2**31, 2**53, 2**64])
def test_the_answer_has_the_same_id(ident: int) -> None:
    value = Line().raw(PREFIX + json.dumps({"id": ident, "cmd": "hello", "min": 1, "max": 1, "runner": "t"}))
    assert value["id"] == ident
    assert "ok" in value


def test_ids_need_not_count_up() -> None:
    line = Line()
    for ident in (5, 5, 1):
        assert line.raw(PREFIX + json.dumps({"id": ident, "cmd": "nonsense"}))["id"] == ident


def test_spaces_and_keys_in_any_order_do_not_matter() -> None:
    assert "ok" in Line().raw(PREFIX + '  { "runner" : "t", "max":1 ,"min": 1, "cmd":"hello", "id" : 3 }  ')


def test_unknown_keys_are_ignored() -> None:
    line = Line()
    assert line.ok("hello", min=1, max=1, runner="t", more={"a": [1, 2]}, Cmd=7)["protocol"] == 1
    line.ok("configure", **MAP, extra=1)
    assert (
        line.ok("call", vcpu=0, regs=hexed(share()), cpu={"mode": "64", "cpl": 0, "sockets": 2}, x=None)["end"]
        == "return"
    )
    assert line.ok("query", everything=True)["ranges"] == [["0x5000", "0x1", "shared"]]


@pytest.mark.parametrize(
    "cmd", ["", "helo", "HELLO", "hello ", "_advance", "do_hello", "__init__", "end conversation", "é"]
)
def test_unknown_command(cmd: str) -> None:
    host().refused("unsupported", cmd)


def test_command_that_is_no_string_or_missing() -> None:
    line = Line()
    commands: list[Any] = [None, 1, ["stop"], {}]
    for cmd in commands:
        assert "error" in line.raw(PREFIX + json.dumps({"id": 1, "cmd": cmd}))
    assert "error" in line.raw(PREFIX + '{"id":1}')


# -- serve: lines in, lines out ---------------------------------------------------------------------------------------


def served(data: bytes, **features: bool) -> list[dict[str, Any]]:
    sink = io.BytesIO()
    assert serve(io.BytesIO(data), sink, **features) == 0
    lines = sink.getvalue().decode("ascii").splitlines()
    assert all(line.startswith(PREFIX) for line in lines)
    return [json.loads(line.removeprefix(PREFIX)) for line in lines]


HELLO = b'@hvabi {"id":1,"cmd":"hello","min":1,"max":1,"runner":"t"}\n'
STOP = b'@hvabi {"id":2,"cmd":"stop"}\n'


def test_end_of_input_ends_with_0() -> None:
    assert served(b"") == []
    assert [item["id"] for item in served(HELLO)] == [1]


def test_last_line_without_its_end_counts() -> None:
    assert [item["id"] for item in served(HELLO + STOP.rstrip())] == [1, 2]


def test_stop_is_answered_and_ends() -> None:
    assert [item["id"] for item in served(STOP + HELLO)] == [2]
    assert served(STOP)[0]["ok"] == {}


def test_carriage_returns_of_a_serial_line() -> None:
    assert [item["id"] for item in served(HELLO.replace(b"\n", b"\r\n"))] == [1]


def test_log_text_between() -> None:
    data = b"boot\n\xff\xfe binary \x00\n" + HELLO + b"[  1.0] text @hvabi {}\n" + STOP
    assert [item["id"] for item in served(data)] == [1, 2]


@pytest.mark.parametrize(
    ("size", "fits"),
    [
        pytest.param(MAX_LINE - 1, True, id="one-less"),
        pytest.param(MAX_LINE, True, id="exactly"),
        pytest.param(MAX_LINE + 1, False, id="one-more"),
        pytest.param(MAX_LINE * 3, False, id="three-times"),
    ],
)
def test_longest_line(size: int, fits: bool) -> None:
    line = HELLO.replace(b'"t"', b'"' + b"t" * (size - len(HELLO) + 1) + b'"')
    assert len(line) == size
    first, second = served(line + STOP)
    assert (first["id"], "ok" in first) == ((1, True) if fits else (None, False))
    assert second["id"] == 2


def test_log_text_may_be_longer_than_any_line() -> None:
    assert [item["id"] for item in served(b"x" * (3 * MAX_LINE) + b"\n" + STOP)] == [2]
    assert [item["id"] for item in served(b"x" * (MAX_LINE + 1 - len(STOP)) + STOP + STOP)] == [2]


def test_bytes_that_are_no_utf_8() -> None:
    answers = served(b'@hvabi {"id":1,"cmd":"\xff\xff"}\n' + STOP)
    assert [item["id"] for item in answers] == [1, 2]
    assert set(answers[0]) & {"error", "unsupported"}


def test_every_line_is_flushed() -> None:
    class Sink(io.BytesIO):
        flushed: int = 0

        def flush(self) -> None:
            self.flushed += 1

    sink = Sink()
    serve(io.BytesIO(HELLO * 3), sink)
    assert sink.flushed == 3


# -- hello ------------------------------------------------------------------------------------------------------------


def test_hello() -> None:
    told = Line().ok("hello", min=1, max=1, runner="test 1.0")
    assert told["protocol"] == 1
    assert isinstance(told["name"], str)
    assert isinstance(told["version"], str)
    assert told["features"] == ["inject"]
    for abi, offer in told["abis"].items():
        assert abi in abi_ids()
        assert set(offer) <= {"revisions", "transports", "roles", "profile"}
        assert offer["revisions"]
        assert offer["transports"]
        assert set(offer["roles"]) <= {"host", "guest"}
        assert offer["roles"]
    for what in (MAP, TDX, PSC, MSR, ATTRS):
        offer = told["abis"][what["abi"]]
        assert what["revision"] in offer["revisions"]
        assert what["transport"] in offer["transports"]
        assert offer["roles"] == ["host", "guest"]


@pytest.mark.parametrize(
    ("low", "high", "word"), [(1, 1, "ok"), (0, 9, "ok"), (2, 9, "unsupported"), (0, 0, "unsupported")]
)
def test_versions(low: int, high: int, word: str) -> None:
    assert Line()("hello", min=low, max=high, runner="t")[0] == word


@pytest.mark.parametrize("missing", ["min", "max", "runner"])
def test_hello_without_an_argument(missing: str) -> None:
    arguments: dict[str, Any] = {"min": 1, "max": 1, "runner": "t"}
    del arguments[missing]
    Line().refused("error", "hello", **arguments)


@pytest.mark.parametrize("value", ["0x1", "1", 1.5, None, True, -1], ids=repr)
def test_versions_are_json_numbers(value: Any) -> None:
    Line().refused("error", "hello", min=value, max=1, runner="t")


@pytest.mark.parametrize(
    ("made", "features"),
    [
        ({}, ["inject"]),
        ({"exits": True}, ["exits", "inject"]),
        ({"local_steps": True}, ["inject", "local-steps"]),
        ({"exits": True, "local_steps": True}, ["exits", "inject", "local-steps"]),
    ],
)
def test_features(made: dict[str, bool], features: list[str]) -> None:
    assert Line(**made).ok("hello", min=1, max=1, runner="t")["features"] == features


@pytest.mark.parametrize("words", [["telepathy"], [], [1, None, {}], "inject", None, {}], ids=repr)
def test_feature_words_that_are_not_known_are_ignored(words: Any) -> None:
    assert Line().ok("hello", min=1, max=1, runner="t", features=words)["features"] == ["inject"]


# -- configure --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["abi", "revision", "transport", "role"])
def test_configure_without_an_argument(missing: str) -> None:
    arguments = {name: value for name, value in MAP.items() if name != missing}
    Line().refused("error", "configure", **arguments)


def test_config_may_be_left_out() -> None:
    line = Line()
    assert line.ok("configure", **MAP) == {}
    assert line.call(share())["regs"] == {"rax": "0x0"}


UNSUPPORTED: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("abi", {"abi": "kvm-map"}, {}),
    ("abi-empty", {"abi": ""}, {}),
    ("abi-with-revision", {"abi": "kvm-map-gpa-range@v1"}, {}),
    ("abi-path", {"abi": "../kvm-map-gpa-range"}, {}),
    ("revision", {"revision": "v2"}, {}),
    ("revision-empty", {"revision": ""}, {}),
    ("transport", {"transport": "vmgexit"}, {}),
    ("transport-empty", {"transport": ""}, {}),
    ("role", {"role": "hypervisor"}, {}),
    ("role-empty", {"role": ""}, {}),
    ("profile", {}, {"profile": "vmware"}),
    ("profile-empty", {}, {"profile": ""}),
    ("config-key", {}, {"gpaw": "0x30"}),
    ("config-key-case", {}, {"Enabled": True}),
    ("config-value", {}, {"error_value": "0x2"}),
]


@pytest.mark.parametrize(("change", "config"), [row[1:] for row in UNSUPPORTED], ids=[row[0] for row in UNSUPPORTED])
def test_what_is_not_there_is_unsupported(change: dict[str, Any], config: dict[str, Any]) -> None:
    line = host()
    line.call(share())
    line.refused("unsupported", "configure", **{**MAP, **change}, config=config)
    # The one before still holds.
    assert line.shared() == [(0x5000, 1, "shared")]


MISTAKES: list[tuple[str, Any]] = [
    ("config-list", []),
    ("config-null", None),
    ("config-text", "gpaw=48"),
    ("number-as-number", {"error_value": 22}),
    ("number-upper-case", {"error_value": "0X16"}),
    ("number-upper-hex", {"error_value": "0x1A"}),
    ("number-decimal", {"error_value": "22"}),
    ("number-empty", {"error_value": "0x"}),
    ("number-negative", {"error_value": "-0x1"}),
    ("number-65-bits", {"max_ranges": "0x10000000000000000"}),
    ("max-ranges-as-number", {"max_ranges": 3}),
    ("enabled-as-number", {"enabled": 1}),
    ("enabled-as-text", {"enabled": "true"}),
    ("profile-as-number", {"profile": 1}),
    ("memory-as-text", {"memory": "0x0"}),
    ("memory-null", {"memory": None}),
    ("memory-flat", {"memory": ["0x0", "0x1"]}),
    ("memory-triple", {"memory": [["0x0", "0x1", "shared"]]}),
    ("memory-unsorted", {"memory": [["0x2000", "0x1"], ["0x0", "0x1"]]}),
    ("memory-overlap", {"memory": [["0x0", "0x2"], ["0x1000", "0x1"]]}),
    ("memory-twice", {"memory": [["0x0", "0x1"], ["0x0", "0x1"]]}),
    ("memory-unaligned", {"memory": [["0x800", "0x1"]]}),
    ("memory-numbers", {"memory": [[0, 1]]}),
    ("memory-past-2-64", {"memory": [["0xfffffffffffff000", "0x2"]]}),
    ("scratch-as-list-of-lists", {"scratch": [["0x1000", "0x2"]]}),
    ("scratch-empty", {"scratch": ["0x1000", "0x0"]}),
    ("scratch-unaligned", {"scratch": ["0x1001", "0x2"]}),
]


@pytest.mark.parametrize("config", [row[1] for row in MISTAKES], ids=[row[0] for row in MISTAKES])
def test_mistakes_in_config_are_errors(config: Any) -> None:
    line = host()
    line.refused("error", "configure", **MAP, config=config)
    assert line.call(share())["end"] == "return"


@pytest.mark.parametrize("value", [1, None, ["v1"], {}], ids=repr)
@pytest.mark.parametrize("name", ["abi", "revision", "transport", "role"])
def test_names_are_strings(name: str, value: Any) -> None:
    Line().refused("error", "configure", **{**MAP, name: value})


def test_every_abi_of_hello_can_be_configured_in_every_way_it_says() -> None:
    line = Line()
    for abi, offer in line.ok("hello", min=1, max=1, runner="t")["abis"].items():
        for revision in offer["revisions"]:
            served = 0
            for transport in offer["transports"]:
                for role in offer["roles"]:
                    what = {"abi": abi, "revision": revision, "transport": transport, "role": role}
                    word, _ = line("configure", **what, config={"scratch": ["0x10000", "0x10"]})
                    # Some transports are not in every revision.
                    assert word in ("ok", "unsupported")
                    served += word == "ok"
                    if word == "ok":
                        assert line.ok("reset") == {}
            assert served
    for abi in set(abi_ids()) - set(line.ok("hello", min=1, max=1, runner="t")["abis"]):
        line.refused("unsupported", "configure", abi=abi, revision="v1", transport="x", role="host")


def test_configure_again_leaves_an_empty_state() -> None:
    line = host()
    line.call(share(), mem=[["0x9000", "aa"]])
    line.ok("inject", fault="vmm-error", errno="0x16")
    line.configure(MAP)
    assert line.ok("query") == {"ranges": [], "facts": {}}
    assert line.call(share())["regs"] == {"rax": "0x0"}


def test_configure_in_the_middle_of_a_conversation() -> None:
    line = Line().configure(guest(TDX))
    line.yields("convert", gpa="0x5000", pages="0x1", to="shared")
    line.configure(TDX)
    line.refused("error", "resume")
    assert line.shared() == []


def test_profile() -> None:
    line = host(TDX, profile="linux-kvm-6.16")
    line.ok("inject", fault="vmm-error", errno="0xb")
    regs = {"r11": 0x10001, "r12": 0x5000, "r13": 0x1000}
    assert line.call(regs)["regs"]["r10"] == "0x8000000000000000"
    line.configure(TDX, profile="linux-kvm-7.3")
    line.ok("inject", fault="vmm-error", errno="0xb")
    assert line.call(regs)["regs"] == {"r10": "0x1", "r11": "0x5000"}
    line.configure(TDX, profile="spec")
    assert line.call(regs)["regs"]["r10"] == "0x0"


def test_enabled() -> None:
    line = host(MAP, enabled=False)
    assert line.call(share())["regs"] == {"rax": "0xfffffffffffffc18"}
    line.configure(MAP, enabled=True)
    assert line.call(share())["regs"] == {"rax": "0x0"}


def test_config_of_the_abi() -> None:
    line = host(TDX, gpaw="0x34")
    line.call({"r11": 0x10001, "r12": 1 << 51 | 0x5000, "r13": 0x1000})
    assert line.shared() == [(0x5000, 1, "shared")]


def test_max_ranges() -> None:
    line = host(MAP, max_ranges="0x2")
    assert [line.call(share(gpa))["regs"]["rax"] for gpa in (0x1000, 0x3000, 0x5000)] == ["0x0", "0x0", "0x16"]
    assert line.shared() == [(0x1000, 1, "shared"), (0x3000, 1, "shared")]
    assert line.call(share(0x2000))["regs"]["rax"] == "0x0"
    assert line.shared() == [(0x1000, 3, "shared")]
    line.configure(MAP, max_ranges="0x0")
    assert line.call(share())["regs"]["rax"] == "0x16"


def test_max_ranges_is_no_bound_on_facts() -> None:
    line = host({**ACCEPT, "transport": "fast64"}, max_ranges="0x1")
    accepted = [["0x1f0000", "0x1"], ["0x1f8000", "0x1"]]
    line.ok("reset", facts={"accepted": accepted})
    done = line.call({"rcx": 0x1_0001_00D9, "rdx": 2**64 - 1, "r8": 0xC1, "xmm0": 0x200})
    assert done["regs"]["rax"] == "0x100000000"
    found = line.ok("query")
    assert found["facts"] == {"accepted": [*accepted, ["0x200000", "0x1"]]}
    assert found["ranges"] == [["0x200000", "0x1", "shared"]]


def test_reset_beyond_max_ranges_is_an_error() -> None:
    line = host(MAP, max_ranges="0x1")
    line.refused("error", "reset", ranges=[["0x0", "0x1", "shared"], ["0x2000", "0x1", "shared"]])
    assert line.ok("reset", ranges=[["0x0", "0x1", "shared"]]) == {}


# -- memory -----------------------------------------------------------------------------------------------------------

REFUSE = "openvmm"  # refuses pages that are no memory


def test_memory_left_out_is_everything_and_empty_is_none() -> None:
    line = host(MAP, profile=REFUSE)
    assert line.call(share(1 << 51))["regs"]["rax"] == "0x0"
    line.configure(MAP, profile=REFUSE, memory=[])
    assert line.call(share())["regs"]["rax"] == "0x1"
    line.configure(MAP, profile=REFUSE, memory=[["0x5000", "0x1"], ["0x6000", "0x1"], ["0x8000", "0x0"]])
    assert line.call(share(0x5000, 2))["regs"]["rax"] == "0x0"
    assert line.call(share(0x5000, 3))["regs"]["rax"] == "0x1"
    assert line.call(share(0x8000))["regs"]["rax"] == "0x1"


def test_bytes_outside_memory_cannot_be_read_by_the_host() -> None:
    line = host(ATTRS, memory=[["0x1000", "0x1"]])
    body = "00500000000000000010000000000000" + "00" * 16
    regs = {"cmd": 0x4020AED2, "arg": 0x8000}
    # -EFAULT
    assert line.call(regs, mem=[["0x8000", body]])["regs"] == {"ret": "0xfffffffffffffff2"}
    assert line.shared() == []
    assert line.call({**regs, "arg": 0x1000}, mem=[["0x1000", body]])["regs"] == {"ret": "0x0"}
    assert line.shared() == [(0x5000, 1, "shared")]


def test_mem_is_written_first_and_stays_until_reset() -> None:
    line = host(ATTRS)
    regs = {"cmd": 0x4020AED2, "arg": 0x1000}
    assert line.call(regs)["regs"] == {"ret": "0xffffffffffffffea"}
    line.call(regs, mem=[["0x1000", "00500000000000000010000000000000"]])
    line.call(regs, mem=[["0x1000", "0070"]])
    assert line.shared() == [(0x5000, 1, "shared"), (0x7000, 1, "shared")]
    line.ok("reset")
    assert line.call(regs)["regs"] == {"ret": "0xffffffffffffffea"}


MEM: list[tuple[str, Any]] = [
    ("odd", [["0x1000", "abc"]]),
    ("upper-case", [["0x1000", "AB"]]),
    ("prefix", [["0x1000", "0xab"]]),
    ("spaces", [["0x1000", "ab cd"]]),
    ("newline", [["0x1000", "ab\n"]]),
    ("number", [["0x1000", 5]]),
    ("gpa-number", [[4096, "ab"]]),
    ("gpa-upper-case", [["0x1A00", "ab"]]),
    ("triple", [["0x1000", "ab", "cd"]]),
    ("flat", ["0x1000", "ab"]),
    ("object", {"0x1000": "ab"}),
    ("null", None),
    ("unsorted", [["0x2000", "ab"], ["0x1000", "ab"]]),
    ("overlap", [["0x1000", "abab"], ["0x1001", "ab"]]),
    ("past-2-64", [["0xffffffffffffffff", "abab"]]),
]


@pytest.mark.parametrize("mem", [row[1] for row in MEM], ids=[row[0] for row in MEM])
def test_mistakes_in_mem(mem: Any) -> None:
    line = host(ATTRS)
    line.refused("error", "call", vcpu=0, mem=mem)
    line.refused("error", "resume", mem=mem)
    assert line.call({"cmd": 0x4020AED2, "arg": 0x1000})["end"] == "return"


def test_mem_pieces_that_touch_and_empty_pieces() -> None:
    line = host(ATTRS)
    body = [
        ["0x1000", "0050000000000000"],
        ["0x1008", "0010000000000000"],
        ["0x1010", ""],
        ["0xffffffffffffffff", "00"],
    ]
    line.call({"cmd": 0x4020AED2, "arg": 0x1000}, mem=body)
    assert line.shared() == [(0x5000, 1, "shared")]


def test_more_memory_than_the_session_holds_is_an_error() -> None:
    line = host(MAP)
    line.refused("error", "call", vcpu=0, mem=[[hex(page << 12), "00"] for page in range(20_000)])
    line.ok("reset")
    assert line.call(share())["end"] == "return"


def test_after_image_of_what_the_host_wrote() -> None:
    line = host(PSC)
    answer = line.call({"msr_c0010130": 0x7000}, mem=psc_mem(0x7000, 0x5))
    assert answer["regs"] == {}
    # both infos, cur_entry, and the entry with cur_page 1
    assert dict(map(tuple, answer["mem"])) == {
        "0x7398": "00" * 16,
        "0x7800": "0100",
        "0x7808": "0150000000002000",
    }


def psc_mem(ghcb: int, *gfns: int) -> list[list[str]]:
    """The GHCB page of a request to share 4 KiB pages, field by field."""
    entries = b"".join((2 << 52 | gfn << 12).to_bytes(8, "little") for gfn in gfns)
    header = bytes(2) + (len(gfns) - 1).to_bytes(2, "little") + bytes(4)
    return [
        [hex(ghcb + 0x390), "1000008000000000" + "00" * 16 + (ghcb + 0x800).to_bytes(8, "little").hex()],
        [hex(ghcb + 0x3F0), "00" * 14 + "3c00"],
        [hex(ghcb + 0x800), (header + entries).hex()],
        [hex(ghcb + 0xFFA), "020000000000"],
    ]


# -- registers, vcpu, cpu ---------------------------------------------------------------------------------------------

REGS: list[tuple[str, Any]] = [
    ("number", {"rax": 12}),
    ("upper-case", {"rax": "0xC0FFEE"}),
    ("upper-x", {"rax": "0XC"}),
    ("decimal", {"rax": "12"}),
    ("underscore", {"rax": "0x1_0"}),
    ("empty", {"rax": ""}),
    ("negative", {"rax": "-0x1"}),
    ("65-bits", {"rax": "0x10000000000000000"}),
    ("null", {"rax": None}),
    ("list", ["rax"]),
    ("regs-null", None),
    ("upper-case-name", {"RAX": "0x0"}),
    ("empty-name", {"": "0x0"}),
    ("129-bits", {"xmm0": "0x1" + "0" * 32}),
    ("very-long", {"rax": "0x" + "0" * 100_000 + "c"}),
]


@pytest.mark.parametrize("regs", [row[1] for row in REGS], ids=[row[0] for row in REGS])
def test_mistakes_in_regs(regs: Any) -> None:
    line = host()
    line.refused("error", "call", vcpu=0, regs=regs)
    assert line.shared() == []


def test_registers_left_out_are_0() -> None:
    line = host()
    assert line.ok("call", vcpu=0)["regs"] == {"rax": "0xfffffffffffffc18"}
    line.configure(TDX)
    # gpa 0, R10 0, RAX 0
    assert line.call({"r11": 0x10001, "r13": 0x1000})["regs"]["r10"] == "0x0"
    assert line.shared() == []


def test_registers_that_the_call_does_not_use_are_taken() -> None:
    assert host().call({**share(), "r15": 5, "xmm0": 2**128 - 1, "x0": 1})["regs"] == {"rax": "0x0"}


@pytest.mark.parametrize("vcpu", ["0x0", "0", None, -1, 1.5, True, [0]], ids=repr)
def test_vcpu_is_a_json_number(vcpu: Any) -> None:
    host().refused("error", "call", vcpu=vcpu, regs=hexed(share()))


def test_call_needs_a_vcpu_and_state_belongs_to_the_guest() -> None:
    line = host()
    line.refused("error", "call", regs=hexed(share()))
    line.ok("call", vcpu=0, regs=hexed(share(0x1000)))
    line.ok("call", vcpu=7, regs=hexed(share(0x2000)))
    assert line.shared() == [(0x1000, 2, "shared")]


CPU_ERRORS: list[Any] = [
    [],
    "64",
    {"mode": "16"},
    {"mode": 64},
    {"cpl": "0x0"},
    {"cpl": "3"},
    {"cpl": 4},
    {"cpl": -1},
    {"cpl": True},
    {"cpl": None},
]


@pytest.mark.parametrize("cpu", CPU_ERRORS, ids=repr)
def test_mistakes_in_cpu(cpu: Any) -> None:
    host().refused("error", "call", vcpu=0, regs=hexed(share()), cpu=cpu)


def test_cpl() -> None:
    line = host()
    for cpl in (1, 2, 3):
        assert line.call(share(), cpu={"cpl": cpl})["regs"] == {"rax": "0xffffffffffffffff"}
    assert line.shared() == []
    assert line.call(share(), cpu={"mode": "64", "cpl": 0})["regs"] == {"rax": "0x0"}
    # not shown by the transport: ignored
    line.configure(MSR)
    assert line.call({"msr_c0010130": 0x0020000000005014}, cpu={"cpl": 3})["regs"] == {"msr_c0010130": "0x15"}


def test_mode() -> None:
    line = host(MAP32)
    regs = {"rax": 12, "rbx": 0xFFFFFFFF00005000, "rcx": 0xFFFFFFFF00000001, "rdx": 0xFFFFFFFF00000000}
    assert line.call(regs, cpu={"mode": "32", "cpl": 0})["regs"] == {"rax": "0x0"}
    assert line.shared() == [(0x5000, 1, "shared")]
    # the upper half of an output is zero
    assert line.call({**regs, "rbx": 1}, cpu={"mode": "32"})["regs"] == {"rax": "0xffffffea"}
    line.refused("unsupported", "call", vcpu=0, regs=hexed(regs), cpu={"mode": "64"})
    line.configure(MAP)
    line.refused("unsupported", "call", vcpu=0, regs=hexed(regs), cpu={"mode": "32"})
    assert line.call(share(), cpu={})["regs"] == {"rax": "0x0"}


# -- reset and query --------------------------------------------------------------------------------------------------


def test_reset_sets_states_and_leaves_the_rest_private() -> None:
    line = host()
    line.call(share(0x100000))
    line.ok("reset", ranges=[["0x1000", "0x2", "shared"], ["0x3000", "0x1", "shared"], ["0x5000", "0x1", "private"]])
    # merged, sorted, and private is not named
    assert line.ok("query") == {"ranges": [["0x1000", "0x3", "shared"]], "facts": {}}
    line.ok("reset", ranges=[["0x0", "0x10000000000000", "shared"]])
    assert line.ok("query")["ranges"] == [["0x0", "0x10000000000000", "shared"]]
    assert line.ok("reset") == {}
    assert line.ok("query") == {"ranges": [], "facts": {}}


def test_an_answer_that_does_not_fit_a_line_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    line = host()
    line.ok("reset", ranges=[[hex(page << 13), "0x1", "shared"] for page in range(100)])
    monkeypatch.setattr(frame, "MAX_LINE", 1000)
    line.refused("error", "query")
    assert line.ok("reset") == {}
    assert line.shared() == []


def test_query_is_merged_and_sorted() -> None:
    line = host()
    for gpa in (0x9000, 0x1000, 0x3000, 0x2000):
        line.call(share(gpa))
    assert line.shared() == [(0x1000, 3, "shared"), (0x9000, 1, "shared")]


def test_reset_may_set_single_pages_whatever_the_unit() -> None:
    line = host(PSC)
    line.ok("reset", ranges=[["0x1000", "0x1", "shared"]])
    assert line.shared() == [(0x1000, 1, "shared")]


RANGES: list[tuple[str, Any, str]] = [
    ("unsorted", [["0x2000", "0x1", "shared"], ["0x1000", "0x1", "shared"]], "error"),
    ("overlap", [["0x1000", "0x2", "shared"], ["0x2000", "0x1", "shared"]], "error"),
    ("unaligned", [["0x1800", "0x1", "shared"]], "error"),
    ("no-state", [["0x1000", "0x1"]], "error"),
    ("unknown-state", [["0x1000", "0x1", "public"]], "error"),
    ("unknown-state-no-pages", [["0x1000", "0x0", "public"]], "error"),
    ("state-case", [["0x1000", "0x1", "Shared"]], "error"),
    ("state-underscore", [["0x1000", "0x1", "shared_read_only"]], "error"),
    ("state-number", [["0x1000", "0x1", 1]], "error"),
    ("state-list", [["0x1000", "0x1", []]], "error"),
    ("state-null", [["0x1000", "0x1", None]], "error"),
    ("numbers", [[4096, 1, "shared"]], "error"),
    ("past-2-64", [["0xfffffffffffff000", "0x2", "shared"]], "error"),
    ("text", "shared", "error"),
    ("null", None, "error"),
    ("state-that-the-abi-cannot-show", [["0x1000", "0x1", "shared-read-only"]], "unsupported"),
]


@pytest.mark.parametrize(("ranges", "word"), [row[1:] for row in RANGES], ids=[row[0] for row in RANGES])
def test_mistakes_in_ranges(ranges: Any, word: str) -> None:
    line = host()
    line.call(share())
    line.refused(word, "reset", ranges=ranges)
    assert line.shared() == [(0x5000, 1, "shared")]


def test_state_that_another_abi_can_show() -> None:
    line = Line()
    offer = line.ok("hello", min=1, max=1, runner="t")["abis"].get(VIS["abi"])
    if offer is None:
        pytest.skip("no ABI with a third state is served: it is a draft")
    transport = offer["transports"][0]
    line.ok("configure", **VIS, transport=transport)
    line.ok("reset", ranges=[["0x1000", "0x1", "shared"], ["0x2000", "0x2", "shared-read-only"]])
    # next to each other, and not merged: they are two states
    assert line.shared() == [(0x1000, 1, "shared"), (0x2000, 2, "shared-read-only")]


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        ({"accepted": []}, "unsupported"),
        ({"": []}, "unsupported"),
        ([], "error"),
        (None, "error"),
        ("accepted", "error"),
    ],
    ids=repr,
)
def test_mistakes_in_facts(facts: Any, word: str) -> None:
    host().refused(word, "reset", facts=facts)


def abi_with_facts(line: Line) -> tuple[dict[str, str], str] | None:
    """An ABI that declares a fact, and its name, found by asking every one."""
    for abi, offer in line.ok("hello", min=1, max=1, runner="t")["abis"].items():
        facts = tuple(bundled(abi).facts)
        if facts and "host" in offer["roles"]:
            what = {"abi": abi, "revision": offer["revisions"][0], "transport": offer["transports"][0], "role": "host"}
            return what, facts[0]
    return None


def test_facts() -> None:
    line = Line()
    found = abi_with_facts(line)
    if found is None:
        pytest.skip("no ABI that is served declares a fact: those that do are drafts")
    what, fact = found
    line.ok("configure", **what)
    assert line.ok("query")["facts"] == {}
    line.ok("reset", facts={fact: [["0x1000", "0x1"], ["0x2000", "0x1"], ["0x8000", "0x1"]]})
    assert line.ok("query") == {"ranges": [], "facts": {fact: [["0x1000", "0x2"], ["0x8000", "0x1"]]}}
    mistakes: list[Any] = [
        [["0x2000", "0x1"], ["0x1000", "0x1"]],
        [["0x1", "0x1"]],
        [["0x1000", "0x1", "shared"]],
        {},
        None,
    ]
    for rows in mistakes:
        line.refused("error", "reset", facts={fact: rows})
    line.refused("unsupported", "reset", facts={"beautiful": [["0x1000", "0x1"]]})
    assert line.ok("query")["facts"]
    line.ok("reset")
    assert line.ok("query")["facts"] == {}


# -- order of commands ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cmd", "arguments"),
    [
        ("reset", {}),
        ("call", {"vcpu": 0}),
        ("convert", {"gpa": "0x0", "pages": "0x1", "to": "shared"}),
        ("resume", {}),
        ("query", {}),
        ("inject", {"fault": "vmm-error", "errno": "0x16"}),
    ],
)
def test_before_configure(cmd: str, arguments: dict[str, Any]) -> None:
    line = Line()
    line.refused("error", cmd, **arguments)
    assert line.configure(MAP).call(share())["end"] == "return"


def test_commands_of_the_other_role() -> None:
    line = host()
    line.refused("error", "convert", gpa="0x0", pages="0x1", to="shared")
    line.refused("error", "resume")
    line.configure(guest(MAP))
    line.refused("error", "call", vcpu=0)
    line.refused("error", "query")
    line.refused("error", "inject", fault="vmm-error", errno="0x16")
    line.refused("error", "resume")
    assert line.ok("reset") == {}


@pytest.mark.parametrize(
    ("cmd", "arguments"),
    [
        ("convert", {"gpa": "0x0", "pages": "0x1", "to": "shared"}),
        ("call", {"vcpu": 0}),
        ("query", {}),
        ("inject", {"fault": "stop-after", "pages": "0x1"}),
    ],
)
def test_commands_in_the_middle_of_a_conversation(cmd: str, arguments: dict[str, Any]) -> None:
    line = Line().configure(guest(TDX))
    line.yields("convert", gpa="0x5000", pages="0x1", to="shared")
    line.refused("error", cmd, **arguments)
    # The conversation goes on.
    assert line.ok("resume", regs={"r10": "0x0"})["done"] is True


def test_reset_ends_a_conversation_in_any_role() -> None:
    line = Line().configure(guest(TDX))
    line.yields("convert", gpa="0x5000", pages="0x1", to="shared")
    assert line.ok("reset") == {}
    line.refused("error", "resume", regs={"r10": "0x0"})
    line = Line(exits=True).configure(MAP)
    line.yields("call", vcpu=0, regs=hexed(share()))
    assert line.ok("reset") == {}
    line.refused("error", "resume")
    assert line.shared() == []


def test_refused_reset_does_not_end_a_conversation() -> None:
    line = Line().configure(guest(TDX))
    line.yields("convert", gpa="0x5000", pages="0x1", to="shared")
    line.refused("error", "reset", ranges=5)
    assert line.ok("resume", regs={"r10": "0x0"})["done"] is True


def test_stop_in_the_middle_of_a_conversation() -> None:
    line = Line().configure(guest(TDX))
    line.yields("convert", gpa="0x5000", pages="0x1", to="shared")
    assert line.ok("stop") == {}
    assert line.session.stopped


# -- the ends of a call -----------------------------------------------------------------------------------------------


def test_end_stop_has_a_reason() -> None:
    line = host(MSR, profile="linux-kvm-7.3")
    line.ok("inject", fault="vmm-error", errno="0x5")
    answer = line.call({"msr_c0010130": 0x0020000000005014})
    assert answer["end"] == "stop"
    assert answer["reason"]
    assert "fault" not in answer
    line.ok("reset")
    assert line.call({"msr_c0010130": 0x0020000000005014})["end"] == "return"


def test_end_return_has_no_reason() -> None:
    assert set(host().call(share())) == {"end", "regs", "mem"}


# -- inject -----------------------------------------------------------------------------------------------------------


def test_inject_is_for_the_next_call_only() -> None:
    line = host()
    assert line.ok("inject", fault="vmm-error", errno="0x16") == {}
    assert [line.call(share())["regs"]["rax"] for _ in range(2)] == ["0x16", "0x0"]


def test_any_call_uses_it_up() -> None:
    line = host()
    line.ok("inject", fault="vmm-error", errno="0x16")
    # refused before the VMM is asked
    assert line.call(share(0x5001))["regs"]["rax"] == "0xffffffffffffffea"
    assert line.call(share())["regs"]["rax"] == "0x0"


def test_a_later_one_replaces_the_earlier() -> None:
    line = host()
    line.ok("inject", fault="vmm-error", errno="0x16")
    line.ok("inject", fault="vmm-error", errno="0xb")
    assert line.call(share())["regs"]["rax"] == "0xb"
    line.configure(TDX)
    line.ok("inject", fault="vmm-error", errno="0x16")
    line.ok("inject", fault="stop-after", pages="0x1")
    assert line.call({"r11": 0x10001, "r12": 0x5000, "r13": 0x2000})["regs"] == {"r10": "0x1", "r11": "0x6000"}


def test_a_refused_inject_replaces_nothing() -> None:
    line = host()
    line.ok("inject", fault="vmm-error", errno="0x16")
    line.refused("error", "inject", fault="vmm-error")
    line.refused("unsupported", "inject", fault="earthquake")
    assert line.call(share())["regs"]["rax"] == "0x16"


def test_reset_clears_it() -> None:
    line = host()
    line.ok("inject", fault="vmm-error", errno="0x16")
    line.ok("reset")
    assert line.call(share())["regs"]["rax"] == "0x0"


def test_query_does_not_use_it_up() -> None:
    line = host()
    line.ok("inject", fault="vmm-error", errno="0x16")
    line.ok("query")
    assert line.call(share())["regs"]["rax"] == "0x16"


INJECTIONS: list[tuple[str, dict[str, str], dict[str, Any], str]] = [
    ("no-fault", MAP, {}, "error"),
    ("fault-number", MAP, {"fault": 1}, "error"),
    ("unknown", MAP, {"fault": "meteor"}, "unsupported"),
    ("vmm-error-no-errno", MAP, {"fault": "vmm-error"}, "error"),
    ("vmm-error-number", MAP, {"fault": "vmm-error", "errno": 22}, "error"),
    ("vmm-error-negative", MAP, {"fault": "vmm-error", "errno": "-0x16"}, "error"),
    ("vmm-error-zero", MAP, {"fault": "vmm-error", "errno": "0x0"}, "error"),
    ("vmm-error-without-vmm", ATTRS, {"fault": "vmm-error", "errno": "0x16"}, "unsupported"),
    ("stop-after-no-pages", TDX, {"fault": "stop-after"}, "error"),
    ("stop-after-number", TDX, {"fault": "stop-after", "pages": 1}, "error"),
    ("stop-after-without-progress", MAP, {"fault": "stop-after", "pages": "0x1"}, "unsupported"),
    ("stop-after-msr", MSR, {"fault": "stop-after", "pages": "0x0"}, "unsupported"),
    ("event-zero", TDX, {"fault": "event-pending", "after": "0x0"}, "error"),
    ("event-number", TDX, {"fault": "event-pending", "after": 1}, "error"),
    ("event-nothing", TDX, {"fault": "event-pending"}, "error"),
    ("event-without-chunks", PSC, {"fault": "event-pending", "after": "0x1"}, "unsupported"),
    ("flip-no-hex", PSC, {"fault": "memory-flip", "gpa": "0x0"}, "error"),
    ("flip-no-gpa", PSC, {"fault": "memory-flip", "hex": "00"}, "error"),
    ("flip-odd", PSC, {"fault": "memory-flip", "gpa": "0x0", "hex": "0"}, "error"),
    ("flip-past-2-64", PSC, {"fault": "memory-flip", "gpa": "0xffffffffffffffff", "hex": "0000"}, "error"),
    ("flip-without-memory", TDX, {"fault": "memory-flip", "gpa": "0x0", "hex": "00"}, "unsupported"),
]


@pytest.mark.parametrize(
    ("what", "arguments", "word"), [row[1:] for row in INJECTIONS], ids=[row[0] for row in INJECTIONS]
)
def test_injections_that_cannot_be(what: dict[str, str], arguments: dict[str, Any], word: str) -> None:
    line = host(what)
    line.refused(word, "inject", **arguments)
    assert line.ok("call", vcpu=0)["end"] == "return"


def test_stop_after() -> None:
    line = host(PSC)
    for pages, cur, shared in ((0, 0, []), (1, 1, [(0x5000, 1, "shared")]), (2, 2, None), (9, 2, None)):
        line.ok("reset")
        line.ok("inject", fault="stop-after", pages=hex(pages))
        answer = line.call({"msr_c0010130": 0x7000}, mem=psc_mem(0x7000, 5, 9))
        assert dict(map(tuple, answer["mem"])).get("0x7800", "0000") == f"0{cur}00"
        assert line.shared() == (shared if shared is not None else [(0x5000, 1, "shared"), (0x9000, 1, "shared")])


def test_event_pending() -> None:
    line = host(TDX)
    regs = {"r11": 0x10001, "r12": 1 << 47 | 0x1000, "r13": 0x600000}
    line.ok("inject", fault="event-pending", after="0x1")
    assert line.call(regs)["regs"] == {"r10": "0x1", "r11": "0x800000201000"}
    line.ok("inject", fault="event-pending", after="0x3")
    assert line.call(regs)["regs"]["r10"] == "0x0"
    line.ok("inject", fault="event-pending", after="0xffffffffffffffff")
    assert line.call(regs)["regs"]["r10"] == "0x0"


def test_memory_flip() -> None:
    line = host(PSC)
    # end_entry becomes 0xffff right after it was read; the flip is not in mem, and the write-backs are as of the read
    line.ok("inject", fault="memory-flip", gpa="0x7802", hex="ffff")
    answer = line.call({"msr_c0010130": 0x7000}, mem=psc_mem(0x7000, 5, 9))
    assert dict(map(tuple, answer["mem"])) == {
        "0x7398": "00" * 16,
        "0x7800": "0200",
        "0x7808": "01500000000020000190000000002000",
    }
    assert line.shared() == [(0x5000, 1, "shared"), (0x9000, 1, "shared")]
    # It has happened: the next call sees it, unless mem is written again.
    line.call({"msr_c0010130": 0x7000}, mem=[["0x7390", "1000008000000000" + "00" * 16], ["0x73fe", "3c"]])
    assert line.call({"msr_c0010130": 0x7000}, mem=psc_mem(0x7000, 5, 9))["end"] == "return"


# -- exits ------------------------------------------------------------------------------------------------------------


def test_exits() -> None:
    line = Line(exits=True).configure(TDX)
    regs = {"r11": 0x10001, "r12": 1 << 47 | 0x1000, "r13": 0x201000}
    first = line.yields("call", vcpu=0, regs=hexed(regs))["exit"]
    assert (first["abi"], first["regs"]) == ("kvm-exit-hypercall", {})
    ((start, data),) = first["mem"]
    assert start == "0x0"
    # reason at 8; number, address, pages, attributes from 32 on; ret at 88, flags at 96
    assert data[16:24] == "03000000"
    assert data[64:128] == "0c00000000000000001000000000000000020000000000000000000000000000"
    assert data[176:] == "00000000000000000100000000000000"
    second = line.yields("resume", mem=[["0x58", "0000000000000000"]])["exit"]
    assert second["mem"][0][1][80:112] == "00102000000000000100000000000000"
    answer = line.ok("resume", mem=[["0x58", "1600000000000000"]])
    assert (answer["end"], answer["regs"]) == ("return", {"r10": "0x8000000000000000", "r11": "0x800000201000"})
    assert line.shared() == [(0x1000, 512, "shared")]
    line.refused("error", "resume")


def test_exits_carry_the_id_of_the_resume() -> None:
    line = Line(exits=True).configure(MAP)
    line.yields("call", vcpu=0, regs=hexed(share()))
    value = line.raw(PREFIX + json.dumps({"id": 77, "cmd": "resume"}))
    assert (value["id"], "ok" in value) == (77, True)


def test_a_call_that_asks_nobody_does_not_yield() -> None:
    assert Line(exits=True).configure(MAP).call(share(0x5001))["end"] == "return"


def test_without_exits_nothing_is_yielded() -> None:
    assert host().call(share())["end"] == "return"


# -- guests -----------------------------------------------------------------------------------------------------------


def test_convert() -> None:
    line = Line().configure(guest(TDX))
    call = line.yields("convert", gpa="0x5000", pages="0x3", to="shared")
    assert call == {
        "regs": {
            "rax": "0x0",
            "rcx": "0x3c00",
            "r10": "0x0",
            "r11": "0x10001",
            "r12": "0x800000005000",
            "r13": "0x3000",
        },
        "mem": [],
    }
    again = line.yields("resume", regs={"r10": "0x1", "r11": "0x800000006000"})
    assert (again["regs"]["r12"], again["regs"]["r13"]) == ("0x800000006000", "0x2000")
    # r10 and r11 left out are as sent: R10 is 0, which is success
    assert line.ok("resume") == {"done": True, "ranges": [["0x5000", "0x3", "shared"]]}


def test_convert_that_fails_says_what_is_done() -> None:
    line = Line().configure(guest(TDX))
    line.yields("convert", gpa="0x5000", pages="0x3", to="private")
    line.yields("resume", regs={"r10": "0x1", "r11": "0x6000"})
    assert line.ok("resume", regs={"r10": "0x8000000000000000"}) == {
        "done": False,
        "ranges": [["0x5000", "0x1", "private"]],
    }
    line.refused("error", "resume")


@pytest.mark.parametrize(
    "what", [MAP, MAP32, TDX, PSC, MSR, ATTRS], ids=lambda what: f"{what['abi']}-{what['transport']}"
)
@pytest.mark.parametrize(
    ("gpa", "pages"),
    [
        pytest.param("0x5000", "0x0", id="zero-pages"),
        pytest.param("0x5001", "0x1", id="unaligned"),
        pytest.param("0x5800", "0x0", id="both"),
        pytest.param("0xfffffffffffff000", "0x2", id="past-2-64"),
        pytest.param("0x0", "0xffffffffffffffff", id="more-than-there-is"),
    ],
)
def test_convert_without_a_call(what: dict[str, str], gpa: str, pages: str) -> None:
    line = Line(local_steps=True).configure(guest(what))
    assert line.ok("convert", gpa=gpa, pages=pages, to="shared") == {"done": False, "ranges": []}


def test_convert_where_the_call_is_not_offered() -> None:
    line = Line(local_steps=True).configure(guest(TDX), enabled=False)
    assert line.ok("convert", gpa="0x5000", pages="0x1", to="shared") == {"done": False, "ranges": []}


CONVERTS: list[tuple[str, dict[str, Any], str]] = [
    ("no-gpa", {"pages": "0x1", "to": "shared"}, "error"),
    ("no-pages", {"gpa": "0x1000", "to": "shared"}, "error"),
    ("no-state", {"gpa": "0x1000", "pages": "0x1"}, "error"),
    ("gpa-number", {"gpa": 4096, "pages": "0x1", "to": "shared"}, "error"),
    ("pages-number", {"gpa": "0x1000", "pages": 1, "to": "shared"}, "error"),
    ("pages-upper-case", {"gpa": "0x1000", "pages": "0xA", "to": "shared"}, "error"),
    ("unknown-state", {"gpa": "0x1000", "pages": "0x1", "to": "open"}, "error"),
    ("state-that-cannot-be", {"gpa": "0x1000", "pages": "0x1", "to": "shared-read-only"}, "unsupported"),
]


@pytest.mark.parametrize(("arguments", "word"), [row[1:] for row in CONVERTS], ids=[row[0] for row in CONVERTS])
def test_mistakes_in_convert(arguments: dict[str, Any], word: str) -> None:
    line = Line().configure(guest(TDX))
    line.refused(word, "convert", **arguments)
    line.yields("convert", gpa="0x5000", pages="0x1", to="shared")


def test_a_mistake_in_resume_leaves_the_conversation_open() -> None:
    line = Line().configure(guest(TDX))
    line.yields("convert", gpa="0x5000", pages="0x1", to="shared")
    line.refused("error", "resume", regs={"r10": 0})
    assert line.ok("resume", regs={"r10": "0x0"})["done"] is True


def test_scratch() -> None:
    line = Line().configure(guest(PSC), scratch=["0x123000", "0x2"])
    call = line.yields("convert", gpa="0x5000", pages="0x1", to="shared")
    assert call["regs"] == {"msr_c0010130": "0x123000"}
    ((start, data),) = call["mem"]
    assert (start, len(data)) == ("0x123000", 2 * 4096)
    assert data[2 * 0x3A8 : 2 * 0x3B0] == "0038120000000000"
    assert data[2 * 0x800 : 2 * 0x810] == "00000000000000000050000000002000"
    # The host's bytes lie over what the guest wrote.
    assert line.ok("resume", mem=[["0x123800", "01"]]) == {"done": True, "ranges": [["0x5000", "0x1", "shared"]]}


STEPS: list[tuple[str, dict[str, str], str, list[Any]]] = [
    ("tdx-shared", TDX, "shared", ["map", "call"]),
    ("tdx-private", TDX, "private", ["call", "accept"]),
    ("psc-shared", PSC, "shared", ["rescind", "call", "map"]),
    ("psc-private", PSC, "private", ["map", "call", "accept"]),
    ("hypercall-private", MAP, "private", ["map", "call"]),
    ("hypercall-shared", MAP, "shared", ["map", "call"]),
]


@pytest.mark.parametrize(("what", "to", "expected"), [row[1:] for row in STEPS], ids=[row[0] for row in STEPS])
def test_local_steps(what: dict[str, str], to: str, expected: list[str]) -> None:
    line = Line(local_steps=True).configure(guest(what), scratch=["0x10000", "0x2"])
    seen = []
    word, content = line("convert", gpa="0x5000", pages="0x2", to=to)
    while word == "yield":
        if "step" in content:
            seen.append(content["step"])
            # the state that is asked for, whatever the step does
            assert content == {"step": seen[-1], "ranges": [["0x5000", "0x2", to]]}
            word, content = line("resume")
        else:
            seen.append("call")
            answers: dict[str, Any] = {
                TDX["abi"]: {"regs": {"r10": "0x0"}},
                PSC["abi"]: {"mem": [["0x10800", "0200"]]},
                MAP["abi"]: {"regs": {"rax": "0x0"}},
            }
            word, content = line("resume", **answers[what["abi"]])
    assert (word, content) == ("ok", {"done": True, "ranges": [["0x5000", "0x2", to]]})
    assert seen == expected


def test_without_the_feature_there_are_no_steps() -> None:
    line = Line().configure(guest(TDX))
    assert "regs" in line.yields("convert", gpa="0x5000", pages="0x1", to="private")
    assert line.ok("resume", regs={"r10": "0x0"})["done"] is True


# -- anything at all --------------------------------------------------------------------------------------------------

NUMBERS = [
    "0x0",
    "0x1",
    "0x5000",
    "0x5001",
    "0x7000",
    "0x200000",
    "0xfffffffffffff000",
    "0xffffffffffffffff",
    "0x800000005000",
]
WORDS: list[Any] = [
    *NUMBERS, 0, 1, -1, 2**70, 1.5, True, None, "", "0X1", "private", "shared", "shared-read-only", "accepted", "00",
    "zz", "\ud800", "é", [], {}, [[]], [["0x1000", "0x1"]], [["0x1000", "0x1", "shared"]], [["0x7800", "00" * 64]],
    {"rax": "0xc"},
    {"r11": "0x10001", "r13": "0x1000"}, {"msr_c0010130": "0x7000"}, {"mode": "64", "cpl": 3}, {"profile": "spec"},
]  # fmt: skip
ARGUMENTS = {
    "hello": ["min", "max", "runner", "features"],
    "configure": ["abi", "revision", "transport", "role", "config"],
    "reset": ["ranges", "facts"],
    "call": ["vcpu", "cpu", "regs", "mem"],
    "convert": ["gpa", "pages", "to"],
    "resume": ["regs", "mem"],
    "query": [],
    "inject": ["fault", "errno", "pages", "after", "gpa", "hex"],
}
GOOD: dict[str, Any] = {
    "min": 1, "max": 1, "runner": "t", "vcpu": 0, "gpa": "0x5000", "pages": "0x1", "to": "shared", "errno": "0x16",
    "after": "0x1", "hex": "ff",
}  # fmt: skip


def noise(rng: random.Random, offers: dict[str, Any]) -> str:
    """A line that a broken or hostile runner might send: mostly well-formed, often wrong."""
    kind = rng.random()
    if kind < 0.03:
        return rng.choice(["", "log", PREFIX, PREFIX + "{", PREFIX + "[]", PREFIX + '{"id":"x"}', "@hvabi"])
    cmd = rng.choice([*ARGUMENTS, "call", "call", "convert", "resume", "resume", "configure", "nothing"])
    command: dict[str, Any] = {"id": rng.randrange(100), "cmd": cmd}
    if cmd == "configure":
        abi = rng.choice(list(offers))
        offer = offers[abi]
        command |= {"abi": abi, "config": {}}
        command |= {key: rng.choice(offer[f"{key}s"]) for key in ("revision", "transport", "role")}
        if rng.random() < 0.3:
            keys = ["memory", "profile", "enabled", "max_ranges", "scratch", "gpaw", "snp", "x"]
            values = [[], [["0x0", "0x10"]], "spec", True, False, "0x1", ["0x7000", "0x2"], *WORDS]
            command["config"] = {rng.choice(keys): rng.choice(values)}
    elif cmd in ("call", "resume"):
        names = [
            "rax",
            "rbx",
            "rcx",
            "rdx",
            "r8",
            "r10",
            "r11",
            "r12",
            "r13",
            "x0",
            "x1",
            "x2",
            "r2",
            "r3",
            "msr_c0010130",
        ]
        regs: dict[str, Any] = {name: rng.choice(NUMBERS) for name in names if rng.random() < 0.5}
        for name, value in (("rax", "0xc"), ("r11", "0x10001"), ("r10", "0x0"), ("rcx", "0x1"), ("r13", "0x1000")):
            if rng.random() < 0.3:
                regs[name] = value
        gpas = sorted(rng.sample([0x1000, 0x5000, 0x7390, 0x73F0, 0x7800, 0x7FFA, 0x10000, 0x10398, 0x10800], 3))
        command |= {
            "vcpu": 0,
            "regs": regs,
            "mem": [[hex(gpa), rng.randbytes(rng.randrange(0x10)).hex()] for gpa in gpas] if rng.random() < 0.5 else [],
        }
    elif cmd == "inject":
        command["fault"] = rng.choice(["vmm-error", "stop-after", "event-pending", "memory-flip", "other"])
        command |= {name: GOOD[name] for name in ("errno", "pages", "after", "gpa", "hex")}
    else:
        command |= {name: GOOD[name] for name in ARGUMENTS.get(cmd, []) if name in GOOD}
    if rng.random() < 0.3:
        name = rng.choice(ARGUMENTS.get(cmd) or ["x"])
        command[name] = rng.choice(WORDS)
    if rng.random() < 0.05 and len(command) > 1:
        del command[rng.choice(list(command))]
    return PREFIX + json.dumps(command)


@pytest.mark.parametrize("seed", range(12))
def test_random_lines_are_answered_once_each_and_never_raise(seed: int) -> None:
    rng = random.Random(seed)
    line = Line(exits=bool(seed & 1), local_steps=bool(seed & 2))
    offers = line.ok("hello", min=1, max=1, runner="t")["abis"]
    words: dict[str, int] = {}
    for _ in range(400):
        text = noise(rng, offers)
        if not text.startswith(PREFIX):
            assert line.session.handle(text) is None
            continue
        value = line.raw(text)
        try:
            sent = json.loads(text.removeprefix(PREFIX))
            ident = sent.get("id") if isinstance(sent, dict) else None
        except ValueError:
            ident = None
        assert value["id"] == (ident if isinstance(ident, int) and not isinstance(ident, bool) else None)
        ((word, _),) = ((key, item) for key, item in value.items() if key != "id")
        words[word] = words.get(word, 0) + 1
    assert words.keys() >= {"ok", "error", "unsupported"}
    assert line.ok("hello", min=1, max=1, runner="t")["protocol"] == 1


@pytest.mark.parametrize("seed", range(6))
def test_random_calls_to_every_abi(seed: int) -> None:
    """Requests built from the fixed registers of each transport with the rest at random: a defined end, always."""
    rng = random.Random(1000 + seed)
    line = Line(exits=bool(seed & 1))
    for abi, offer in line.ok("hello", min=1, max=1, runner="t")["abis"].items():
        for transport in offer["transports"]:
            what = {"abi": abi, "revision": rng.choice(offer["revisions"]), "transport": transport, "role": "guest"}
            if (
                "guest" not in offer["roles"]
                or line("configure", **what, config={"scratch": ["0x10000", "0x10"]})[0] != "ok"
            ):
                continue
            word, call = line("convert", gpa=hex(rng.choice([0x200000, 0x400000, 0x5000])), pages="0x200", to="shared")
            if word != "yield":
                continue
            line.ok("configure", **{**what, "role": "host"})
            for _ in range(12):
                regs = dict(call["regs"])
                mem = [[gpa, data] for gpa, data in call["mem"]]
                if regs and rng.random() < 0.7:
                    regs[rng.choice(list(regs))] = rng.choice([*NUMBERS, hex(rng.getrandbits(64))])
                if mem and rng.random() < 0.7:
                    gpa, data = rng.choice(mem)
                    raw = bytearray.fromhex(data)
                    for _ in range(rng.randrange(1, 9)):
                        raw[rng.randrange(len(raw))] = rng.choice([0, 1, 0xFF, rng.randrange(256)])
                    mem[mem.index([gpa, data])][1] = bytes(raw).hex()
                word, answer = line("call", vcpu=0, regs=regs, mem=mem)
                turns = 0
                while word == "yield" and turns < 40:
                    turns += 1
                    word, answer = line("resume", mem=[["0x58", rng.choice(["00", "16", "0b", "05"]) + "00" * 7]])
                if word == "yield":
                    assert line.ok("reset") == {}
                    continue
                assert word == "ok", (what, regs, answer)
                assert answer["end"] in ("return", "replay", "fault", "stop")
                assert ("fault" in answer) == (answer["end"] == "fault")
                assert ("reason" in answer) == (answer["end"] == "stop")
                line.ok("query")


# -- a real process ---------------------------------------------------------------------------------------------------

SERVE = "import sys; from hvabi.conformance.iut import serve; sys.exit(serve(sys.stdin.buffer, sys.stdout.buffer))"
PROCESSES = [
    pytest.param(["-c", SERVE], ["inject"], id="serve"),
    pytest.param(["-m", "hvabi.cli.main", "iut", "--exits", "--local-steps"], list(FEATURES), id="hvabi-iut"),
]


@pytest.mark.parametrize(("command_line", "features"), PROCESSES)
def test_over_pipes(command_line: list[str], features: list[str]) -> None:
    with subprocess.Popen(
        [sys.executable, *command_line], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        answers: list[dict[str, Any]] = []

        def ask(cmd: str, **arguments: Any) -> dict[str, Any]:
            # One request at a time: the answer must come without the next line being there.
            line = PREFIX + json.dumps({"id": len(answers), "cmd": cmd, **arguments})
            process.stdin.write(f"some log\n{line}\n".encode())  # type: ignore[union-attr]  # asserted above
            process.stdin.flush()  # type: ignore[union-attr]  # asserted above
            answer: dict[str, Any] = json.loads(process.stdout.readline().decode().removeprefix(PREFIX))  # type: ignore[union-attr]  # the same
            assert answer.pop("id") == len(answers)
            answers.append(answer)
            return answer

        try:
            assert ask("hello", min=1, max=1, runner="t")["ok"]["features"] == features
            assert ask("configure", **MAP, config={}) == {"ok": {}}
            assert ask("reset") == {"ok": {}}
            answer = ask("call", vcpu=0, regs=hexed(share()))
            if "exits" in features:
                assert answer["yield"]["exit"]["abi"] == "kvm-exit-hypercall"
                answer = ask("resume")
            assert answer == {"ok": {"end": "return", "regs": {"rax": "0x0"}, "mem": []}}
            assert ask("query")["ok"]["ranges"] == [["0x5000", "0x1", "shared"]]
            rest, errors = process.communicate((PREFIX + '{"id":9,"cmd":"stop"}\n').encode(), timeout=30)
        finally:
            process.kill()
    assert json.loads(rest.decode().removeprefix(PREFIX)) == {"id": 9, "ok": {}}
    assert (process.returncode, errors) == (0, b"")


def test_process_ends_with_0_at_the_end_of_input() -> None:
    done = subprocess.run([sys.executable, "-c", SERVE], input=HELLO, capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout.decode().removeprefix(PREFIX))["id"] == 1
