"""Our own format: lossless there and back, exactly as its schema says, and never trusted."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from hvabi.traces import replay_sources
from hvabi.traces.ndjson import Writer
from hvabi.traces.synthetic import CORPORA, lines
from tests.traces.test_formats import CASES

SCHEMA = json.loads((Path(__file__).parent.parent.parent / "traces" / "ndjson.schema.json").read_text(encoding="utf-8"))
VALID = Draft202012Validator(SCHEMA)

# Everything that the readers know, one after another, with lines that nobody knows between.
ALL = "\nhello\n".join(case.text for case in CASES.values()) + "\n"


def written(name: str, data: bytes) -> tuple[str, dict[str, object]]:
    out = io.StringIO()
    summary = replay_sources([(name, io.BytesIO(data))], writer=Writer(out)).to_json()
    del summary["reads"]
    return out.getvalue(), summary


@pytest.mark.parametrize("name", ["formats", *CORPORA])
def test_there_and_back(name: str) -> None:
    text = (
        ALL if name == "formats" else "\n".join(line for line, _ in zip(lines(name), range(2000), strict=False)) + "\n"
    )
    first, summary = written("a.log", text.encode())
    second, again = written("first.ndjson", first.encode())
    assert second == first
    assert again == summary


def test_every_line_keeps_the_schema() -> None:
    text, _ = written("a.log", ALL.encode())
    kinds = set()
    for line in text.splitlines():
        value = json.loads(line)
        kinds.add(value["hvabi"])
        assert next(iter(value)) == "hvabi"
        VALID.validate(value)
    assert kinds == {"trace", "call", "seen", "malformed", "source"}


def test_the_format_is_the_one_that_the_page_shows() -> None:
    page = (Path(__file__).parent.parent.parent / "docs" / "traces.md").read_text(encoding="utf-8")
    shown = [line for line in page.splitlines() if line.startswith('{"hvabi":')]
    text, _ = written(
        "boot.log", b"x\n[   56.146336] page_enc_status_hc invoked, gpa = 1f018000, npages  = 1, enc = 1\n"
    )
    assert text.splitlines()[:2] == shown


GOOD = '{"hvabi":"call","source":"a","line":1,"gpa":"0x1000","pages":1,"to":"shared","attempt":true'
BAD = {
    "no-json": ('{"hvabi":"call"', "this is no JSON"),
    "no-kind": ('{"hvabi":"other"}', "no record of the kind"),
    "later-version": ('{"hvabi":"trace","version":2}', "version 2"),
    "missing": ('{"hvabi":"call","source":"a"}', "`gpa` is missing"),
    "unknown-key": (GOOD + ',"x":1}', "`x` is no key"),
    "address": (GOOD.replace('"0x1000"', '"4096"') + "}", "`gpa` is no address"),
    "address-is-a-number": (GOOD.replace('"0x1000"', "4096") + "}", "`gpa` is no address"),
    "digits": (GOOD.replace('"0x1000"', '"0xzz"') + "}", "invalid literal"),
    "not-whole-pages": (GOOD.replace('"0x1000"', '"0x1001"') + "}", "no number of whole pages"),
    "too-many-pages": (GOOD.replace('"pages":1', '"pages":9999999999999999') + "}", "no number of whole pages"),
    "pages-below-zero": (GOOD.replace('"pages":1', '"pages":-1') + "}", "`pages` is no number"),
    "state": (GOOD.replace("shared", "mine") + "}", "mine"),
    "outcome": (GOOD + ',"outcome":"fine"}', "fine"),
    "time": (GOOD + ',"time":"now"}', "`time` is no number"),
    "infinite-time": (GOOD + ',"time":1e999}', "`time` is no number"),
    "clock": (GOOD + ',"clock":"mine"}', "`clock` has no such value"),
    "attempt": (GOOD.replace("true", "1") + "}", "`attempt` is not true or false"),
    "open": (GOOD + ',"open":1}', "`open` is no object"),
    "broken": (GOOD + ',"broken":[1]}', "`broken` is no list of rules"),
    "kind": ('{"hvabi":"seen","source":"a","line":1,"kind":"x","name":"","text":""}', "`kind` has no such value"),
    "deep": ('{"hvabi":"call","open":' + "[" * 5000, "this is no JSON"),
}


@pytest.mark.parametrize(("line", "reason"), BAD.values(), ids=BAD.keys())
def test_what_is_not_of_the_format_is_malformed(line: str, reason: str) -> None:
    found = replay_sources([("t", io.BytesIO((GOOD + "}\n" + line + "\n").encode()))])
    (read,) = found.reads
    assert (found.calls, read.malformed) == (1, 1)
    assert reason in read.first_malformed[0].reason
