from __future__ import annotations

import json
from itertools import islice
from typing import TYPE_CHECKING

import pytest

from hvabi.abi.errors import UsageError
from hvabi.conformance.connect import parse_connector
from hvabi.conformance.generate import cases
from hvabi.conformance.run import run_cases
from hvabi.conformance.transcript import ReplayConnector, read_transcript, resend
from tests.conformance.peers import host_cases, write_peer

if TYPE_CHECKING:
    from pathlib import Path

    from hvabi.conformance.result import RunResult


def told(run: RunResult) -> list[tuple[str, str, str]]:
    return [(result.case.id, result.verdict.value, result.message) for result in run.results]


def test_a_transcript_has_both_directions_and_how_it_ended(tmp_path: Path) -> None:
    path = tmp_path / "run.ndjson"
    connector = write_peer(tmp_path, "print('noise', flush=True)\nif number == 1: os._exit(5)")
    run_cases(host_cases(3), connector, transcript=path)
    rows = list(read_transcript(path))
    assert json.loads(path.read_text().splitlines()[0]) == {"hvabi_transcript": 1, "connector": connector}
    assert [row.t for row in rows] == sorted(row.t for row in rows)
    assert {row.conn for row in rows} == {1, 2}
    words = [row.line for row in rows if row.dir == "#"]
    assert words == ["opened", "peer.py exited with code 5", "closed", "opened", "closed"] or words[1].endswith(
        "code 5"
    )
    sent = [json.loads(row.line.removeprefix("@hvabi ")) for row in rows if row.dir == ">"]
    assert [row["cmd"] for row in sent] == [
        "hello", "configure", "reset", "call", "query", "reset", "call",
        "hello", "configure", "reset", "call", "query", "stop"]  # fmt: skip
    assert [row["id"] for row in sent] == list(range(1, 14))
    answered = [json.loads(row.line.removeprefix("@hvabi "))["id"] for row in rows if row.dir == "<"]
    assert answered == [1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13]
    assert "noise" not in path.read_text()


def test_a_replay_gives_the_same_verdicts(tmp_path: Path) -> None:
    path = tmp_path / "run.ndjson"
    some = [*islice(cases("tdx-map-gpa", role="host"), 20), *islice(cases("tdx-map-gpa", role="guest"), 10)]
    first = run_cases(some, "builtin", transcript=path)
    again = run_cases(some, f"replay:{path}", jobs=4)
    assert told(again) == told(first)
    assert again.good


def test_a_replay_of_other_cases_says_so(tmp_path: Path) -> None:
    path = tmp_path / "run.ndjson"
    run_cases(host_cases(1), "builtin", transcript=path)
    run = run_cases(host_cases(2)[1:], ReplayConnector(path))
    assert run.results[0].verdict.value == "crash"
    assert "another command was sent" in run.results[0].message


def test_lines_sent_again_give_the_same_answers_or_say_where_not(tmp_path: Path) -> None:
    path = tmp_path / "run.ndjson"
    run_cases(islice(cases("tdx-map-gpa", role="host"), 5), "builtin", transcript=path)
    assert list(resend(path, parse_connector("builtin"))) == []
    lines = path.read_text().splitlines()
    place = next(number for number, line in enumerate(lines) if '\\"end\\"' in line)
    lines[place] = lines[place].replace("return", "fault")
    path.write_text("\n".join(lines) + "\n")
    (difference,) = resend(path, parse_connector("builtin"))
    assert difference.number == place + 1
    assert '"cmd":"call"' in difference.sent
    assert '"fault"' in difference.recorded
    assert '"return"' in difference.found


def test_lines_sent_again_to_one_that_breaks(tmp_path: Path) -> None:
    path = tmp_path / "run.ndjson"
    run_cases(host_cases(3), write_peer(tmp_path, "pass"), transcript=path)
    found = list(resend(path, parse_connector(write_peer(tmp_path, "if number == 1: os._exit(2)")), timeout=5))
    assert len(found) == 1
    assert found[0].found.endswith("exited with code 2")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", None),
        ("{}\n", "1: is no transcript"),
        ("[]\n", "1: is no JSON object"),
        ("\0\xff\n", "1: is no JSON"),
        ('{"hvabi_transcript":2}\n', "1: is no transcript of version 1"),
        ('{"hvabi_transcript":1}\n{"t":0,"conn":1,"dir":"?","line":""}\n', "2: has not"),
        ('{"hvabi_transcript":1}\n{"t":0,"conn":1,"dir":">"}\n', "2: has not"),
        ('{"hvabi_transcript":1}\n{"t":0,"co', "2: is no JSON"),
        ('{"hvabi_transcript":1}\n' + "[" * 100_000, "2: is no JSON"),
    ],
    ids=["empty", "no-header", "list", "binary", "version", "direction", "line", "cut", "deep"],
)
def test_bad_transcripts(tmp_path: Path, text: str, reason: str | None) -> None:
    path = tmp_path / "run.ndjson"
    path.write_text(text)
    if reason is None:
        assert list(read_transcript(path)) == []
        return
    with pytest.raises(UsageError, match=reason):
        list(read_transcript(path))


def test_a_transcript_that_cannot_be_written_or_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        run_cases(host_cases(1), "builtin", transcript=tmp_path / "none" / "x")
    with pytest.raises(UsageError, match="cannot be read"):
        ReplayConnector(tmp_path / "none")
