"""hvabi lint, verify, replay and iut: what they print and how they end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hvabi.abi.diagnostics import Diagnostic
from hvabi.abi.registry import abi_files
from hvabi.cli.replay_text import show
from hvabi.conformance import verify as verifying
from hvabi.conformance.verify import VerifyReport, VerifyRow
from hvabi.traces import replay_sources

if TYPE_CHECKING:
    from tests.cli.conftest import Run

SEED = Path(__file__).parent.parent / "data" / "traces" / "page_enc_status_hc.log"
LOG = """\
[  181.100000] page_enc_status_hc invoked, gpa = 1f018000, npages  = 1, enc = 1
[  181.200000] page_enc_status_hc invoked, gpa = 1f00e000, npages  = 1, enc = 0
[  181.300000] page_enc_status_hc invoked, gpa = 20000000, npages  = 100, enc = 0
"""


def good_row(**other: Any) -> VerifyRow:
    known: dict[str, Any] = {
        "abi": "x", "revision": "v1", "draft": False, "transports": 1, "rules": 2, "codecs": 3, "examples": 4,
        "host_examples": 5, "conversations": 6, "skipped": (), "failures": (), "seconds": 0.5,
    }  # fmt: skip
    return VerifyRow(**{**known, **other})


def test_lint_of_good_files(hv: Run) -> None:
    ran = hv("lint", str(abi_files()["tdx-map-gpa"]))
    assert (ran.code, ran.out) == (0, "0 errors, 0 warnings\n")


def test_lint_of_a_bad_file(hv: Run, tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("# SPDX-License-Identifier: MIT\nabi: x\nabi: other\n")
    ran = hv("lint", str(file))
    assert ran.code == 1
    assert f"{file}:3:1: error[yaml-duplicate-key]" in ran.out
    found = json.loads(hv("lint", "--json", str(file)).out)
    assert found["errors"] == 1
    assert hv("lint", "--format", "github", str(file)).out.startswith(f"::error file={file},line=3,")


@pytest.mark.parametrize("name", ["nofile.yaml", "no\x00file", "x" * 5000], ids=["missing", "nul", "long"])
def test_lint_of_no_file(hv: Run, name: str) -> None:
    ran = hv("lint", name)
    assert ran.code == 2
    assert "there is no file or folder" in ran.err


@pytest.mark.parametrize(
    ("report", "code", "said"),
    [
        (
            VerifyReport(diagnostics=(), rows=(good_row(),), seconds=1.25),
            0,
            "good: 1 revisions, 18 checks, 0 failed, 1.2 s",
        ),
        (
            VerifyReport(diagnostics=(), rows=(good_row(failures=("a", "b", "c", "d")),), seconds=1.0),
            1,
            "FAILED: 1 revisions, 18 checks, 4 failed, 1.0 s",
        ),
        (
            VerifyReport(diagnostics=(Diagnostic(id="x-y", path="a.yaml", message="bad"),)),
            1,
            "FAILED: 0 revisions, 0 checks, 1 failed, 0.0 s",
        ),
    ],
    ids=["good", "failures", "lint"],
)
def test_verdict_of_verify(
    hv: Run, monkeypatch: pytest.MonkeyPatch, report: VerifyReport, code: int, said: str
) -> None:
    monkeypatch.setattr(verifying, "verify", lambda progress=None: report)
    ran = hv("verify")
    assert (ran.code, ran.out.splitlines()[-1]) == (code, said)
    assert json.loads(hv("verify", "--json").out)["good"] is (code == 0)


def test_verify_shows_a_few_failures(hv: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    report = VerifyReport(diagnostics=(), rows=(good_row(failures=tuple("abcdefgh")),))
    monkeypatch.setattr(verifying, "verify", lambda progress=None: report)
    out = hv("verify").out
    assert "x@v1: a\n" in out
    assert "and 5 more; --json has all" in out


def test_replay(hv: Run, tmp_path: Path) -> None:
    file = tmp_path / "boot.log"
    file.write_text(LOG)
    ran = hv("replay", str(file))
    assert ran.code == 0
    assert "3: 2 to shared, 1 to private" in ran.out
    assert "0x00001f00e000 to 0x00001f00f000         1 pages  shared" in ran.out
    assert "100 is 100 or 256" in ran.out
    assert "to 0x000020064000" in ran.out
    assert "to 0x000020100000" in hv("replay", str(file), "--radix", "hex").out
    assert json.loads(hv("replay", str(file), "--json", "--memory", "8G").out)["footprint"]["guest_bytes"] == 8 << 30


def test_replay_of_standard_input(hv: Run) -> None:
    ran = hv("replay", "-", given=LOG)
    assert ran.out.startswith("standard input: 3 lines")


def test_replay_of_calls_that_break_a_rule(hv: Run) -> None:
    ran = hv("replay", "-", given=LOG.replace("npages  = 1,", "npages  = 0,"))
    assert ran.code == 1
    assert "KVM-PAGEENC-22" in ran.out


@pytest.mark.parametrize(
    ("content", "hint"),
    [(b"", "the file is empty"), (b"hello\n", "lines looked for"), (bytes(range(256)) * 9, "give the log as text")],
    ids=["empty", "no calls", "binary"],
)
def test_replay_of_bad_files(hv: Run, tmp_path: Path, content: bytes, hint: str) -> None:
    file = tmp_path / "x.log"
    file.write_bytes(content)
    ran = hv("replay", str(file))
    assert (ran.code, ran.out) == (2, "")
    assert hint in ran.err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["nofile.log"], "cannot be opened"),
        (["."], "this is a folder"),
        ([], "hvabi replay --help"),
        (["-", "--radix", "roman"], "'roman' is not one of"),
        (["-", "--memory", "8Q"], "is no number"),
        (["-", "--memory", "0"], "for example 8G"),
        (["-", "--memory", "-1G"], "for example 8G"),
        (["-", "--memory", "99999999T"], "for example 8G"),
    ],
    ids=lambda item: " ".join(item) if isinstance(item, list) else "",
)
def test_replay_used_wrongly(hv: Run, args: list[str], said: str) -> None:
    ran = hv("replay", *args, given=LOG)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err


FAILING = "CPA VMM failure to convert memory (addr=0000000012345678, numpages=1) to shared: -5\n"


def test_replay_fits_one_screen() -> None:
    with SEED.open("rb") as stream:
        lines = list(show(replay_sources([("page_enc_status_hc.log", stream)]), 80))
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80


def test_replay_draws(hv: Run, tmp_path: Path) -> None:
    svg, html = tmp_path / "a.svg", tmp_path / "a.html"
    assert hv("replay", "-", "--plot", str(svg), "--plot", str(html), "--axis", "calls", given=LOG).code == 0
    assert svg.read_text(encoding="utf-8").startswith("<svg")
    assert html.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_replay_writes_ndjson_and_reads_it(hv: Run, tmp_path: Path) -> None:
    file = tmp_path / "calls.ndjson"
    first = hv("replay", "-", "--ndjson", str(file), given=LOG)
    again = hv("replay", str(file))
    # What was read differs; what was found does not.
    assert first.out[first.out.index("\ncalls") :] == again.out[again.out.index("\ncalls") :]
    shown = hv("replay", str(file), "--ndjson", "-")
    assert shown.out == file.read_text(encoding="utf-8")


def test_replay_of_a_failure_ends_with_1(hv: Run) -> None:
    ran = hv("replay", "-", given=LOG + FAILING)
    assert ran.code == 1
    assert "! failed: Linux guest, to shared: error -5" in ran.out


def test_replay_goes_on_after_a_file_that_cannot_be_read(hv: Run, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.log", tmp_path / "bad.bin"
    good.write_text(LOG)
    bad.write_bytes(bytes(range(32)) * 1000)
    ran = hv("replay", str(bad), str(good), str(tmp_path / "none"))
    assert ran.code == 2
    assert "3: 2 to shared, 1 to private" in ran.out
    assert "binary data" in ran.err
    assert "cannot be opened" in ran.err


def test_replay_of_a_file_that_is_cut_short(hv: Run, tmp_path: Path) -> None:
    import gzip

    file = tmp_path / "boot.log.gz"
    file.write_bytes(gzip.compress((LOG * 2000).encode())[:-100])
    ran = hv("replay", str(file))
    assert ran.code == 1
    assert "the gzip file ends too early" in ran.out


def test_replay_follows_a_file(hv: Run, tmp_path: Path) -> None:
    file = tmp_path / "boot.log"
    file.write_text(LOG)
    ran = hv("replay", "--follow", "--idle", "0.2", str(file))
    assert ran.code == 0
    assert "3: 2 to shared, 1 to private" in ran.out


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["-", "--plot", "a.png"], "end it in .svg or .html"),
        (["-", "--follow"], "a pipe needs no --follow"),
        (["-", "--idle", "1"], "add --follow"),
        (["-", "--ndjson", "-", "--json"], "both want standard output"),
        (["-", "--only", "qmeu"], "qemu"),
        (["-", "--plot", "/none/a.svg"], "No such file"),
    ],
    ids=lambda item: " ".join(item) if isinstance(item, list) else "",
)
def test_options_of_replay_used_wrongly(hv: Run, args: list[str], said: str) -> None:
    ran = hv("replay", *args, given=LOG)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err


def test_iut_speaks_the_line_protocol(hv: Run) -> None:
    lines = [
        {"id": 1, "cmd": "hello", "min": 1, "max": 1, "runner": "test"},
        {
            "id": 2,
            "cmd": "configure",
            "abi": "tdx-map-gpa",
            "revision": "ghci-1.5",
            "transport": "tdcall",
            "role": "host",
            "config": {},
        },
        {"id": 3, "cmd": "reset"},
        {"id": 4, "cmd": "call", "vcpu": 0, "regs": {"r11": "0x10001", "r12": "0x800100001000", "r13": "0x1000"}},
        {"id": 5, "cmd": "stop"},
    ]
    ran = hv("iut", given="".join(f"@hvabi {json.dumps(item)}\n" for item in lines))
    answers = [json.loads(text.removeprefix("@hvabi ")) for text in ran.out.splitlines()]
    assert ran.code == 0
    assert [item["id"] for item in answers] == [1, 2, 3, 4, 5]
    assert answers[3]["ok"]["end"] == "return"
    assert answers[3]["ok"]["regs"]["r10"] == "0x0"


def test_iut_ends_with_its_input(hv: Run) -> None:
    assert hv("iut", given="").code == 0
