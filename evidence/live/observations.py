"""What a real kernel answered, as data: request and answers of every call of a run, and how two such sets differ."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hvabi.abi.errors import UsageError
from hvabi.abi.whole_file import write_whole
from hvabi.conformance.frame import PREFIX
from hvabi.conformance.transcript import read_transcript

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

VERSION = 1
_OWN_KEYS = ("memory", "profile", "enabled", "max_ranges", "scratch")
"""Keys of a configuration that are the protocol's and no ABI's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One call and what came of it.

    Attributes:
        request: transport, whether the call was switched on, cpu and registers, as the protocol writes them, and in
            ``told`` what user space answered to each exit; where there is any, the memory beside the registers, what is
            memory at all, the ABI's configuration, and the pages' states before. Or a step of a scenario.
        answers: what was yielded and answered in turn, and the pages' states after it where the kernel shows them.

    """

    request: str
    answers: tuple[str, ...]

    @property
    def asked(self) -> Any:
        """The request as a value."""
        return json.loads(self.request)

    @property
    def found(self) -> list[Any]:
        """The answers as values."""
        return [json.loads(answer) for answer in self.answers]


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """A set of observations of one kernel.

    Attributes:
        kernel: what ``uname -r`` says there.
        how: how it was run, in words.
        observations: sorted by request, each once.

    """

    kernel: str
    how: str
    abi: str
    observations: tuple[Observation, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A request that two sets answer differently; None where a set does not have it."""

    request: Any
    before: list[Any] | None
    after: list[Any] | None


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def from_transcripts(paths: Iterable[Path]) -> tuple[Observation, ...]:
    """Return the observations of runs, from what they recorded.

    Raises `UsageError` ``not-the-same`` where one kernel answered the same request in two ways, ``bad-transcript``
    where what was sent or answered is not of the protocol.
    """
    found: dict[str, tuple[str, ...]] = {}
    for path in paths:
        for request, answers in _all_calls(path):
            key, values = _canonical(request), tuple(map(_canonical, answers))
            if found.setdefault(key, values) != values:
                raise UsageError(
                    f"the same request was answered in two ways: {key}", code="not-the-same", hint="run it again"
                )
    return tuple(Observation(request=key, answers=found[key]) for key in sorted(found))


def _all_calls(path: Path) -> list[tuple[Any, list[Any]]]:
    try:
        return list(_calls(path))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(
            f"{path} has lines that are not of the protocol: {type(error).__name__}: {str(error)[:200]}",
            code="bad-transcript",
            hint="give a file that a run wrote",
        ) from error


def _calls(path: Path) -> Iterator[tuple[Any, list[Any]]]:
    """Yield every call that has an end, with its answers. What was injected or told by user space is part of it."""
    hello, fault = "", None
    setting: dict[str, Any] = {}
    states: list[Any] = []
    request: dict[str, Any] | None = None
    ended = False
    sent: dict[str, Any] = {}
    answers: list[Any] = []
    lines = [
        (record.dir, json.loads(record.line[len(PREFIX) :]))
        for record in read_transcript(path)
        if record.dir in "<>" and record.line.startswith(PREFIX)
    ]
    shows = _shows_states(lines)
    for direction, message in lines:
        if direction == ">":
            sent = message
            if request is not None and ended and message.get("cmd") != "query":
                yield request, answers
                request = None
            if message.get("cmd") == "configure":
                setting = message
            elif message.get("cmd") == "inject":
                fault = {key: value for key, value in message.items() if key not in ("id", "cmd")}
            elif message.get("cmd") == "reset":
                states = (message.get("ranges") or []) if shows else []
            elif message.get("cmd") == "call":
                request, answers, ended = _request(message, setting, hello, states, fault, shows=shows), [], False
                fault = None
            continue
        if sent.get("cmd") == "hello" and "ok" in message:
            hello = str(message["ok"].get("version", "")).rpartition(" ")[2]
        if request is None or sent.get("cmd") not in ("call", "resume", "query") or not {"ok", "yield"} & set(message):
            if sent.get("cmd") == "call":
                request = None
            continue
        if sent["cmd"] == "query":
            states = message["ok"].get("ranges") or []
            answers.append({"query": message["ok"]})
            continue
        if sent["cmd"] == "resume":
            request["told"].append(sent.get("mem") or [])
        answers.append({key: value for key, value in message.items() if key != "id"})
        ended = "ok" in message
    if request is not None and ended:
        yield request, answers


def _shows_states(lines: Iterable[tuple[str, Any]]) -> bool:
    """Whether the implementation ever answered what state pages are in: else states are only what was assumed."""
    asked = False
    for direction, message in lines:
        if direction == ">":
            asked = message.get("cmd") == "query"
        elif asked and "ok" in message:
            return True
    return False


def _request(message: Any, setting: Any, hello: str, states: list[Any], fault: Any, *, shows: bool) -> dict[str, Any]:
    config = setting.get("config") or {}
    more = {
        "mem": message.get("mem"), "states": states, "memory": config.get("memory") if shows else None,
        "config": {key: value for key, value in config.items() if key not in _OWN_KEYS},
    }  # fmt: skip
    return {
        "transport": setting.get("transport"), "cpu": message.get("cpu") or {}, "mode": hello,
        "enabled": config.get("enabled", True), "regs": message.get("regs") or {}, "inject": fault, "told": [],
        # Only where there is any: calls that pass all in registers, of hosts that keep no states, need none of it.
        **{key: value for key, value in more.items() if value},
    }  # fmt: skip


def write(path: Path, observed: Observed) -> None:
    """Write a set: a head line, then one line per observation."""
    head = {"hvabi_observations": VERSION, "kernel": observed.kernel, "abi": observed.abi, "how": observed.how}
    lines = [json.dumps(head)]
    for item in observed.observations:
        lines.append(f'{{"request":{item.request},"answers":[{",".join(item.answers)}]}}')
    write_whole(path, "\n".join(lines) + "\n")


def read(path: Path) -> Observed:
    """Read a set. Raises `UsageError` ``bad-observations``."""
    try:
        first, *rest = path.read_text(encoding="utf-8").splitlines()
        head = json.loads(first)
        assert head["hvabi_observations"] == VERSION, "another version"
        rows = [json.loads(line) for line in rest]
        items = [
            Observation(request=_canonical(row["request"]), answers=tuple(map(_canonical, row["answers"])))
            for row in rows
        ]
        kernel, how, abi = (str(head[name]) for name in ("kernel", "how", "abi"))
    except (OSError, ValueError, KeyError, TypeError, AssertionError, RecursionError) as error:
        raise UsageError(
            f"{path} has no observations: {error}",
            code="bad-observations",
            hint="hvabi live kvm --observe FILE writes them",
        ) from error
    return Observed(kernel=kernel, how=how, abi=abi, observations=tuple(items))


def changes(before: Observed, after: Observed) -> list[Change]:
    """Return what two sets answer differently, and what only one of them has."""
    old: Mapping[str, Observation] = {item.request: item for item in before.observations}
    new: Mapping[str, Observation] = {item.request: item for item in after.observations}
    out = []
    for request in sorted(old.keys() | new.keys()):
        one, two = old.get(request), new.get(request)
        if one is None or two is None or one.answers != two.answers:
            out.append(
                Change(
                    request=json.loads(request),
                    before=one.found if one is not None else None,
                    after=two.found if two is not None else None,
                )
            )
    return out
