"""The JSON Schemas of the line protocol: what they take and refuse, and that real answers keep to them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from hvabi.conformance import frame
from hvabi.conformance.iut import serve
from tests.conformance.exchanges import ERROR, KVM64, SCRIPTS, UNSUPPORTED, Script, inject, kvm, lines_of

FOLDER = Path(__file__).parents[2] / "conformance" / "schema" / "protocol"
COMMANDS = ("hello", "configure", "reset", "call", "convert", "resume", "query", "inject", "stop")
SCHEMAS: dict[str, dict[str, Any]] = {
    path.name: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))
}
REGISTRY: Any = Registry().with_resources([(name, Resource.from_contents(body)) for name, body in SCHEMAS.items()])


def valid(name: str, message: Any) -> bool:
    return Draft202012Validator(SCHEMAS[name + ".json"], registry=REGISTRY).is_valid(message)


def told(name: str, message: Any) -> list[str]:
    validator = Draft202012Validator(SCHEMAS[name + ".json"], registry=REGISTRY)
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(message)]


def test_every_message_has_a_schema() -> None:
    assert set(SCHEMAS) == {
        "common.json",
        "answer-unreadable.json",
        *(f"{kind}-{name}.json" for kind in ("command", "answer") for name in COMMANDS),
    }


@pytest.mark.parametrize("name", SCHEMAS)
def test_schema_is_right_and_its_examples_fit(name: str) -> None:
    Draft202012Validator.check_schema(SCHEMAS[name])
    assert SCHEMAS[name]["$id"] == name
    assert SCHEMAS[name]["title"]
    assert SCHEMAS[name]["description"]
    for example in SCHEMAS[name].get("examples", ()):
        assert told(name.removesuffix(".json"), example) == []


def test_every_property_is_described() -> None:
    def undescribed(where: str, node: Any) -> list[str]:
        if isinstance(node, list):
            return [item for index, part in enumerate(node) for item in undescribed(f"{where}[{index}]", part)]
        if not isinstance(node, dict):
            return []
        found = []
        for name, part in node.get("properties", {}).items():
            told = {"description", "$ref", "const"} & set(part) or not part.get("type")
            found += [] if told else [f"{where}.{name}"]
        return found + [item for key, part in node.items() for item in undescribed(f"{where}.{key}", part)]

    assert undescribed("", SCHEMAS) == []


ROW = ["0x1000", "0x1", "shared"]

GOOD: dict[str, tuple[str, Any]] = {
    "hello-unknown-key": ("command-hello", {"id": 1, "cmd": "hello", "min": 0, "max": 9, "runner": "", "mood": 1}),
    "configure-short": (
        "command-configure",
        {"id": 1, "cmd": "configure", "abi": "a", "revision": "v1", "transport": "t", "role": "host"},
    ),
    "configure-no-memory": (
        "command-configure",
        {
            "id": 1,
            "cmd": "configure",
            "abi": "a",
            "revision": "v1",
            "transport": "t",
            "role": "guest",
            "config": {"memory": [], "scratch": ["0x1000", "0x2"], "max_ranges": "0x1", "profile": "spec"},
        },
    ),
    "reset-empty": ("command-reset", {"id": 1, "cmd": "reset"}),
    "reset-fact": ("command-reset", {"id": 1, "cmd": "reset", "facts": {"accepted": [["0x0", "0x1"]]}}),
    "call-short": ("command-call", {"id": 1, "cmd": "call", "vcpu": 0}),
    "call-wide": ("command-call", {"id": 1, "cmd": "call", "vcpu": 0, "regs": {"xmm0": "0x" + "f" * 32, "cc": "0x2"}}),
    "call-msr": ("command-call", {"id": 1, "cmd": "call", "vcpu": 0, "regs": {"msr_c0010130": "0x1000"}}),
    "convert-unaligned": (
        "command-convert",
        {"id": 1, "cmd": "convert", "gpa": "0x1", "pages": "0x0", "to": "private"},
    ),
    "inject-unknown": ("command-inject", {"id": 1, "cmd": "inject", "fault": "meteor"}),
    "call-replay": ("answer-call", {"id": 1, "ok": {"end": "replay"}}),
    "call-exit": ("answer-call", {"id": 1, "yield": {"exit": {"abi": "kvm-exit-hypercall", "mem": [["0x20", "0c"]]}}}),
    "call-error": ("answer-call", {"id": 1, "error": {"message": ""}}),
    "convert-step": ("answer-convert", {"id": 1, "yield": {"step": "accept", "ranges": [["0x0", "0x1", "private"]]}}),
    "convert-stop": ("answer-convert", {"id": 1, "ok": {"end": "stop", "reason": "the VM is gone"}}),
    "resume-of-a-guest": ("answer-resume", {"id": 1, "ok": {"done": False, "ranges": []}}),
    "resume-of-a-host": ("answer-resume", {"id": 1, "ok": {"end": "return"}}),
    "query-short": ("answer-query", {"id": 1, "ok": {"ranges": [ROW]}}),
    "unreadable": ("answer-unreadable", {"id": None, "error": {"message": "?"}}),
}

BAD: dict[str, tuple[str, Any]] = {
    "hello-no-runner": ("command-hello", {"id": 1, "cmd": "hello", "min": 1, "max": 1}),
    "hello-hex-version": ("command-hello", {"id": 1, "cmd": "hello", "min": "0x1", "max": 1, "runner": ""}),
    "another-command": ("command-query", {"id": 1, "cmd": "stop"}),
    "id-text": ("command-query", {"id": "1", "cmd": "query"}),
    "id-null": ("command-query", {"id": None, "cmd": "query"}),
    "config-number": (
        "command-configure",
        {
            "id": 1,
            "cmd": "configure",
            "abi": "a",
            "revision": "v1",
            "transport": "t",
            "role": "host",
            "config": {"gpaw": 48},
        },
    ),
    "config-enabled-word": (
        "command-configure",
        {
            "id": 1,
            "cmd": "configure",
            "abi": "a",
            "revision": "v",
            "transport": "t",
            "role": "host",
            "config": {"enabled": "0x1"},
        },
    ),
    "reset-unaligned": ("command-reset", {"id": 1, "cmd": "reset", "ranges": [["0x1800", "0x1", "shared"]]}),
    "reset-word": ("command-reset", {"id": 1, "cmd": "reset", "ranges": [["0x1000", "0x1", "grey"]]}),
    "reset-two": ("command-reset", {"id": 1, "cmd": "reset", "ranges": [["0x1000", "0x1"]]}),
    "reset-four": ("command-reset", {"id": 1, "cmd": "reset", "ranges": [[*ROW, 1]]}),
    "call-no-vcpu": ("command-call", {"id": 1, "cmd": "call", "regs": {}}),
    "call-upper-case": ("command-call", {"id": 1, "cmd": "call", "vcpu": 0, "regs": {"rax": "0xC"}}),
    "call-register-name": ("command-call", {"id": 1, "cmd": "call", "vcpu": 0, "regs": {"RAX": "0x0"}}),
    "call-65-bits": ("command-call", {"id": 1, "cmd": "call", "vcpu": 0, "regs": {"rax": "0x10000000000000000"}}),
    "call-odd-hex": ("command-call", {"id": 1, "cmd": "call", "vcpu": 0, "mem": [["0x0", "0"]]}),
    "call-prefixed-hex": ("command-call", {"id": 1, "cmd": "call", "vcpu": 0, "mem": [["0x0", "0x00"]]}),
    "call-mode-number": ("command-call", {"id": 1, "cmd": "call", "vcpu": 0, "cpu": {"mode": 64}}),
    "call-cpl-4": ("command-call", {"id": 1, "cmd": "call", "vcpu": 0, "cpu": {"cpl": 4}}),
    "convert-no-state": ("command-convert", {"id": 1, "cmd": "convert", "gpa": "0x0", "pages": "0x1"}),
    "inject-errno-0": ("command-inject", {"id": 1, "cmd": "inject", "fault": "vmm-error", "errno": "0x0"}),
    "inject-no-errno": ("command-inject", {"id": 1, "cmd": "inject", "fault": "vmm-error"}),
    "inject-after-0": ("command-inject", {"id": 1, "cmd": "inject", "fault": "event-pending", "after": "0x00"}),
    "answer-of-two-kinds": ("answer-reset", {"id": 1, "ok": {}, "error": {"message": ""}}),
    "answer-of-no-kind": ("answer-reset", {"id": 1}),
    "answer-without-id": ("answer-reset", {"ok": {}}),
    "answer-with-a-key-too-many": ("answer-reset", {"id": 1, "ok": {}, "time": 3}),
    "answer-message-missing": ("answer-reset", {"id": 1, "unsupported": {}}),
    "reset-yields": ("answer-reset", {"id": 1, "yield": {}}),
    "reset-says-more": ("answer-reset", {"id": 1, "ok": {"ranges": []}}),
    "hello-role": (
        "answer-hello",
        {
            "id": 1,
            "ok": {
                "protocol": 1,
                "name": "",
                "version": "",
                "features": [],
                "abis": {"a": {"revisions": ["v1"], "transports": ["t"], "roles": ["judge"]}},
            },
        },
    ),
    "hello-protocol-2": (
        "answer-hello",
        {"id": 1, "ok": {"protocol": 2, "name": "", "version": "", "features": [], "abis": {}}},
    ),
    "call-end-word": ("answer-call", {"id": 1, "ok": {"end": "done"}}),
    "call-fault-without-name": ("answer-call", {"id": 1, "ok": {"end": "fault"}}),
    "call-return-with-fault": ("answer-call", {"id": 1, "ok": {"end": "return", "fault": "gp"}}),
    "call-stop-without-reason": ("answer-call", {"id": 1, "ok": {"end": "stop"}}),
    "call-misspelt": ("answer-call", {"id": 1, "ok": {"end": "return", "reg": {}}}),
    "convert-without-ranges": ("answer-convert", {"id": 1, "ok": {"done": True}}),
    "convert-returns": ("answer-convert", {"id": 1, "ok": {"end": "return"}}),
    "convert-unknown-step": ("answer-convert", {"id": 1, "yield": {"step": "dance", "ranges": []}}),
    "query-private": ("answer-query", {"id": 1, "ok": {"ranges": [["0x0", "0x1", "private"]], "facts": {}}}),
    "query-number": ("answer-query", {"id": 1, "ok": {"ranges": [["0x0", 1, "shared"]], "facts": {}}}),
    "unreadable-with-id": ("answer-unreadable", {"id": 1, "error": {"message": "?"}}),
}


@pytest.mark.parametrize("case", GOOD)
def test_good_messages(case: str) -> None:
    assert told(*GOOD[case]) == []


@pytest.mark.parametrize("case", BAD)
def test_bad_messages(case: str) -> None:
    assert not valid(*BAD[case])


def answers(script: Script) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return the bundled session's answers with the commands that they are for; raw lines are left out."""
    sink = io.BytesIO()
    serve(io.BytesIO(lines_of(script)), sink)
    found = [frame.parse_line(line) for line in sink.getvalue().decode().splitlines()]
    by_id = {item["id"]: item for item in found if item is not None}
    return [
        ({"id": number, **what}, by_id[number])
        for number, (what, _) in enumerate(script.turns)
        if isinstance(what, dict) and number in by_id
    ]


@pytest.mark.parametrize("name", SCRIPTS)
def test_real_exchanges_keep_to_the_schemas(name: str) -> None:
    for command, answer in answers(SCRIPTS[name]):
        kind = command.get("cmd")
        if kind not in COMMANDS:
            continue
        assert told(f"answer-{kind}", answer) == []
        # What is taken must be right; what is refused with `error` may be right too, as where it comes out of order.
        if "error" not in answer:
            assert told(f"command-{kind}", command) == []


def test_a_command_that_the_schema_refuses_is_an_error() -> None:
    seen = 0
    for script in SCRIPTS.values():
        for command, answer in answers(script):
            kind = command.get("cmd")
            if kind in COMMANDS and not valid(f"command-{kind}", command):
                assert "error" in answer or "unsupported" in answer
                seen += 1
    assert seen > 30


def test_answers_with_exits_keep_to_the_schemas() -> None:
    hello = {"cmd": "hello", "min": 1, "max": 1, "runner": "test", "features": ["exits"]}
    resume = {"cmd": "resume", "regs": {}, "mem": []}
    turns = ((hello, {}), *KVM64, (kvm(0x8000, 1), {}), (resume, {}), inject("vmm-error", errno=5))
    found = answers(Script(turns=turns))
    assert [key for key in found[3][1] if key != "id"] == ["yield"]
    for command, answer in found:
        assert told(f"command-{command['cmd']}", command) == []
        assert told(f"answer-{command['cmd']}", answer) == []


def test_refusals_fit_every_answer() -> None:
    for name in COMMANDS:
        for refusal in (ERROR, UNSUPPORTED):
            (word,) = refusal
            assert valid(f"answer-{name}", {"id": 1, word: {"message": "no"}})
