"""The bundled host answers as real kernels did, call by call, exits included; and how observations are kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hvabi.abi.errors import UsageError
from hvabi.abi.registry import load
from hvabi.adapters.registry import host_class
from hvabi.adapters.values import Injection, VmmReply
from hvabi.evidence.live.kvm import ABI, profile_of
from hvabi.evidence.live.observations import Observation, Observed, changes, from_transcripts, read, write

DATA = Path(__file__).parent.parent / "data" / "live"
FILES = sorted(DATA.glob("*.ndjson"))


def version(kernel: str) -> tuple[int, int]:
    major, minor, *_ = kernel.split(".")
    return int(major), int(minor.split("-")[0])


def answers_of_ours(profile: str, asked: Any) -> list[Any]:
    """What the bundled host yields and answers, in the words of the protocol."""
    spec = load(ABI, profile=profile)
    host = host_class(ABI)(spec, transport=asked["transport"], enabled=asked["enabled"])
    regs = {name: int(value, 0) for name, value in asked["regs"].items()}
    inject = Injection(vmm_errno=int(asked["inject"]["errno"], 0)) if asked["inject"] else Injection()
    call = host.call(regs, cpl=asked["cpu"].get("cpl", 0), inject=inject, exits=True)
    told = [[(int(gpa, 0), bytes.fromhex(data)) for gpa, data in mem] for mem in asked["told"]]
    out: list[Any] = []
    try:
        request = next(call)
        while True:
            out.append(dict(request.mem))
            request = call.send(VmmReply(regs={}, mem=tuple(told[len(out) - 1])))
    except StopIteration as end:
        answer = end.value
        out.append((answer.end, {**regs, **answer.regs}))
    return out


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_as_observed(path: Path) -> None:
    observed = read(path)
    profile = profile_of(version(observed.kernel))
    assert profile is not None
    run = load("kvm-exit-hypercall")
    layout = run.layout("kvm-run-hypercall")
    checked = 0
    for item in observed.observations:
        asked, found = item.asked, item.found
        ours = answers_of_ours(profile, asked)
        assert len(ours) == len(found), item.request
        for mine, theirs in zip(ours, found, strict=True):
            if "yield" in theirs:
                ((_, data),) = theirs["yield"]["exit"]["mem"]
                real, model = layout.decode(bytes.fromhex(data)), layout.decode(mine[0])
                # What hypercall.ret holds before the answer is the kernel's affair, as is the padding of flags.
                names = ("exit_reason", "nr", "gpa", "npages", "attributes")
                assert [getattr(real, name) for name in names] == [getattr(model, name) for name in names], item.request
                assert real.flags & 1 == model.flags & 1
            else:
                end, regs = mine
                assert end == theirs["ok"]["end"], item.request
                seen = {name: int(value, 0) for name, value in theirs["ok"]["regs"].items()}
                before = {name: int(value, 0) for name, value in asked["regs"].items()}
                assert {**before, **seen} == {**before, **regs}, item.request
        checked += 1
    assert checked > 200


def test_three_generations_of_kernels_are_there() -> None:
    assert {version(read(path).kernel) for path in FILES} == {(6, 1), (6, 12), (7, 3)}


def transcript(path: Path, *lines: tuple[str, Any]) -> Path:
    records = [{"hvabi_transcript": 1, "connector": "x"}]
    records += [{"t": 0, "conn": 1, "dir": way, "line": "@hvabi " + json.dumps(line)} for way, line in lines]
    path.write_text("\n".join(json.dumps(record) for record in records) + "\n")
    return path


CONFIGURE = {"id": 1, "cmd": "configure", "transport": "vmcall64", "config": {"enabled": False}}
CALL = {"id": 2, "cmd": "call", "cpu": {"cpl": 3}, "regs": {"rax": "0xc"}}


def test_a_transcript_becomes_observations(tmp_path: Path) -> None:
    path = transcript(
        tmp_path / "t",
        (">", {"id": 0, "cmd": "hello"}), ("<", {"id": 0, "ok": {"version": "6.1, vmmcall, 32-bit mode real"}}),
        (">", CONFIGURE), ("<", {"id": 1, "ok": {}}),
        (">", CALL), ("<", {"id": 2, "yield": {"exit": {"abi": "x"}}}),
        (">", {"id": 3, "cmd": "resume", "mem": [["0x58", "16"]]}), ("<", {"id": 3, "ok": {"end": "return"}}),
        (">", {"id": 4, "cmd": "query"}), ("<", {"id": 4, "unsupported": {"message": "no"}}),
    )  # fmt: skip
    (item,) = from_transcripts([path])
    assert item.asked == {
        "transport": "vmcall64", "enabled": False, "cpu": {"cpl": 3}, "mode": "real", "regs": {"rax": "0xc"},
        "inject": None, "told": [[["0x58", "16"]]],
    }  # fmt: skip
    assert item.found == [{"yield": {"exit": {"abi": "x"}}}, {"ok": {"end": "return"}}]


def test_one_request_with_two_answers_is_no_observation(tmp_path: Path) -> None:
    path = transcript(
        tmp_path / "t",
        (">", CONFIGURE), (">", CALL), ("<", {"id": 2, "ok": {"end": "return", "regs": {"rax": "0x0"}}}),
        (">", CALL), ("<", {"id": 2, "ok": {"end": "return", "regs": {"rax": "0x1"}}}),
    )  # fmt: skip
    with pytest.raises(UsageError) as error:
        from_transcripts([path])
    assert error.value.code == "not-the-same"


HEAD = '{"hvabi_observations": %d}'


def observed(*rows: tuple[int, int]) -> Observed:
    items = tuple(Observation(request=f'{{"n":{n}}}', answers=(f'{{"ok":{a}}}',)) for n, a in rows)
    return Observed(kernel="6.1", how="by hand", abi=ABI, observations=items)


def test_what_two_sets_answer_differently() -> None:
    found = changes(observed((1, 10), (2, 20), (3, 30)), observed((1, 10), (2, 21), (4, 40)))
    assert [(item.request, item.before, item.after) for item in found] == [
        ({"n": 2}, [{"ok": 20}], [{"ok": 21}]), ({"n": 3}, [{"ok": 30}], None), ({"n": 4}, None, [{"ok": 40}]),
    ]  # fmt: skip


def test_written_and_read(tmp_path: Path) -> None:
    write(tmp_path / "o", observed((1, 10)))
    assert changes(read(tmp_path / "o"), observed((1, 10))) == []


@pytest.mark.parametrize(
    "text", ["", "{}", "[1", '{"hvabi_observations": 2}', '{"hvabi_observations": 1}\n{"answers": 1}']
)
def test_a_file_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "o").write_text(text)
    with pytest.raises(UsageError) as error:
        read(tmp_path / "o")
    assert error.value.code == "bad-observations"
