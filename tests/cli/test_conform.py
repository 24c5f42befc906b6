"""hvabi conform: what it selects, runs, prints and writes, and how it ends."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from hvabi.conformance.frame import PREFIX, format_line
from hvabi.conformance.iut import Session
from tests.cli.implementations import (
    DECLARES_KVM,
    MISALIGNED_IS_INVALID,
    ONE_ABI,
    RIGHT,
    UNKNOWN_LEAF_IS_BUSY,
    write_iut,
)

if TYPE_CHECKING:
    from tests.cli.conftest import Run

HVABI = [sys.executable, "-m", "hvabi.cli.main"]
RULE = ("--rule", "TDX-MAPGPA-06")
UNALIGNED = "tdx-map-gpa@ghci-1.5.host.tdcall.TDX-MAPGPA-06.gpa-half-aligned"
GUEST = "tdx-map-gpa@ghci-1.5.guest.tdcall.done.one-page-to-shared"


@pytest.fixture(autouse=True)
def _transcripts_stay_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def transcript_of(out: str) -> Path | None:
    found = re.search(r"^transcript: (.*)$", out, re.MULTILINE)
    return Path(found[1]) if found else None


# -- what is said ----------------------------------------------------------------------------------------------


def test_the_bundled_adapters_are_a_plumbing_check(hv: Run) -> None:
    ran = hv("conform", "--iut", "builtin", "tdx-map-gpa", columns=120)
    assert ran.code == 0, ran.out
    assert ran.out.startswith("Plumbing check: ")
    assert "of tdx-map-gpa, given to hvabi's own adapters." in ran.out
    assert "It tests the kit, nothing else." in ran.out
    assert re.search(r"^PASSED: \d+ cases, \d+ passed$", ran.out, re.MULTILINE)
    assert transcript_of(ran.out) is None


def test_a_broken_host_over_a_pipe(hv: Run, tmp_path: Path) -> None:
    iut = write_iut(tmp_path, MISALIGNED_IS_INVALID)
    ran = hv("conform", "tdx-map-gpa", "--iut", iut, *RULE, "--failures", "2", columns=120)
    assert ran.code == 1
    assert ran.out.startswith("Conformance test: ")
    assert f"FAIL  {UNALIGNED}" in ran.out
    assert "register r10 (status):" in ran.out
    assert "expected 0x8000000000000002 ALIGN_ERROR" in ran.out
    assert "found    0x8000000000000000 INVALID_OPERAND  bit 1" in ran.out
    assert "TDX-MAPGPA-06 (must): Address and size must be multiples of 4 KiB" in ran.out
    assert "more failures, by rule:" in ran.out
    assert ran.out.count("$ hvabi conform") == 2
    assert "FAILED: " in ran.out
    assert f"hvabi explain {UNALIGNED}" in ran.out


def test_the_command_of_a_failure_runs_that_case_alone(hv: Run, tmp_path: Path) -> None:
    iut = write_iut(tmp_path, MISALIGNED_IS_INVALID)
    ran = hv("conform", "--iut", iut, "--id", UNALIGNED, "--timeout", "20")
    line = next(line for line in ran.out.splitlines() if line.strip().startswith("$ hvabi"))
    words = shlex.split(line.strip().removeprefix("$ "))
    assert words[:2] == ["hvabi", "conform"]
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    again = subprocess.run([*HVABI, *words[1:]], capture_output=True, text=True, timeout=60, check=False, env=env)
    assert again.returncode == 1
    assert "FAILED: 1 case, 1 failed" in again.stdout
    assert "--timeout 20" in line
    assert "\x1b" not in again.stdout + again.stderr


def test_a_right_implementation_over_a_pipe(hv: Run, tmp_path: Path) -> None:
    ran = hv("conform", "--iut", write_iut(tmp_path, RIGHT), *RULE)
    assert ran.code == 0, ran.out
    assert "plumbing" not in ran.out.lower()


@pytest.mark.parametrize("columns", [80, 120])
def test_the_report_fits_the_terminal(hv: Run, tmp_path: Path, columns: int) -> None:
    ran = hv("conform", "--iut", write_iut(tmp_path, MISALIGNED_IS_INVALID), *RULE, columns=columns)
    whole = ("$ hvabi", "FAIL  ", "transcript: ", "what a case is about: ")  # to be copied, so never wrapped
    long = [line for line in ran.out.splitlines() if len(line) > columns and not line.strip().startswith(whole)]
    assert not [line for line in long if "@" not in line and str(tmp_path) not in line]


def test_what_is_not_offered_is_said(hv: Run, tmp_path: Path) -> None:
    ran = hv("conform", "--iut", write_iut(tmp_path, ONE_ABI), "--role", "guest", columns=120)
    assert ran.code == 0, ran.out
    assert "It does not offer, so not tested: kvm-exit-hypercall" in ran.out
    assert "It offers, and hvabi has no cases for: my-exit-hypercall" in ran.out
    assert "ghcb-psc@" not in ran.out


def test_progress_and_colour_on_a_terminal_only(tmp_path: Path) -> None:
    pty = pytest.importorskip("pty")
    slow = write_iut(tmp_path, "(__import__('time').sleep(0.05), answer)[1]")
    clean = {key: value for key, value in os.environ.items() if key not in {"NO_COLOR", "COLUMNS"}}
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [*HVABI, "conform", "--iut", slow, *RULE], stdout=child, stderr=child, env={**clean, "TERM": "xterm"}
    )
    os.close(child)
    seen = b""
    try:
        while piece := os.read(parent, 65536):
            seen += piece
    except OSError:
        pass  # how a pseudo terminal says that its other end is closed
    finally:
        os.close(parent)
    assert process.wait(60) == 0
    assert re.search(rb"conform: \d+ of \d+, tdx-map-gpa host tdcall", seen)
    assert b"\x1b[" in seen


# -- what is selected -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "--iut is missing"),
        (["--iut", "foo:bar"], "`foo:bar` is no connector"),
        (["--iut", "builtin", "tdx-mapgpa"], "did you mean tdx-map-gpa?"),
        (["--iut", "builtin", "tdx-map-gpa@ghci-9"], "unknown revision 'ghci-9'"),
        (["--iut", "builtin", "tdx-map-gpa", "--rule", "TDX-MAPGPA-5"], "did you mean TDX-MAPGPA-05"),
        (["--iut", "builtin", "ghcb-psc", "--rule", "TDX-MAPGPA-05"], "TDX-MAPGPA-05 is a rule of tdx-map-gpa"),
        (["--iut", "builtin", "tdx-map-gpa", "--transport", "tdcal"], "did you mean tdcall?"),
        (["--iut", "builtin", "tdx-map-gpa", "--profile", "linux-kvm-7"], "did you mean linux-kvm-7.3"),
        (["--iut", "builtin", "--id", UNALIGNED + "x"], f"did you mean {UNALIGNED}"),
        (["--iut", "builtin", "--id", UNALIGNED[:-3]], f"did you mean {UNALIGNED}"),
        (["--iut", "builtin", "--role", "vmm"], "'vmm' is not one of"),
        (["--iut", "builtin", "--timeout", "0"], "0<x<="),
        (["--iut", "builtin", "--update-expect"], "needs --expect FILE"),
        (["--iut", "builtin", "--junit", "nodir/x.xml"], "there is no folder"),
        (["--iut", "builtin", "--html", "."], "is a folder"),
        (["--iut", "builtin", "--expect", "nofile.yaml"], "known failures cannot be read"),
        (["--replay", "nofile"], "--replay nofile: there is no such file"),
    ],
    ids=lambda item: " ".join(item)[:60] if isinstance(item, list) else "",
)
def test_used_wrongly(hv: Run, args: list[str], said: str) -> None:
    ran = hv("conform", *args, columns=200)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert "hint:" in ran.err


def test_nothing_selected_says_what_is_in_the_way(hv: Run) -> None:
    ran = hv("conform", "--iut", "builtin", *RULE, "--role", "guest")
    assert ran.code == 2
    assert "no case is selected" in ran.err
    assert re.search(r"without --role guest: [1-9]\d* cases; without --rule TDX-MAPGPA-06: [1-9]\d* cases", ran.err)


@pytest.mark.parametrize(
    ("args", "total"),
    [(["--id", UNALIGNED, "--case", GUEST], 2), (["--id", UNALIGNED, "--level", "must"], 1)],
    ids=["two ids", "id and level"],
)
def test_selection(hv: Run, args: list[str], total: int) -> None:
    ran = hv("conform", "--iut", "builtin", *args, "--json", "-")
    assert ran.code == 0
    assert len(json.loads(ran.out)["results"]) == total


def test_a_case_that_the_implementation_has_not_is_no_success(hv: Run, tmp_path: Path) -> None:
    ran = hv("conform", "ghcb-psc", "--iut", write_iut(tmp_path, ONE_ABI), "--id", "ghcb-psc@*.done.one-page-to-shared")
    assert ran.code == 2
    assert "NOTHING TESTED" in ran.out
    assert "it has no ghcb-psc" in ran.out


def test_the_declared_profile_is_taken(hv: Run, tmp_path: Path) -> None:
    iut = write_iut(tmp_path, DECLARES_KVM)
    ran = hv("conform", "tdx-map-gpa", "--iut", iut, "--id", UNALIGNED, columns=200)
    assert "profile linux-kvm-6.16, seed 0" in ran.out
    assert ran.code == 0, ran.out
    ran = hv("conform", "tdx-map-gpa", "--iut", iut, "--id", UNALIGNED, "--profile", "spec", columns=200)
    assert "profile spec, seed 0" in ran.out


def one_session(path: Path, offers: dict[str, object]) -> threading.Thread:
    """Connect to a runner that listens, offer only so much, and serve one session."""

    def serve() -> None:
        with socket.socket(socket.AF_UNIX) as peer:
            while peer.connect_ex(str(path)):
                time.sleep(0.02)
            session = Session()
            with peer.makefile("rw") as stream:
                for line in stream:
                    answer = session.answer(json.loads(line.removeprefix(PREFIX)))
                    if "abis" in answer.get("ok", {}):
                        answer["ok"]["abis"] = offers
                    stream.write(format_line(answer))
                    stream.flush()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return thread


TDX = {"revisions": ["ghci-1.5"], "transports": ["tdcall"], "roles": ["host"], "profile": "linux-kvm-6.16"}


def test_who_connects_is_asked_what_it_offers_before_cases_are_made(hv: Run, tmp_path: Path) -> None:
    place = tmp_path / "s"
    peer = one_session(place, {"tdx-map-gpa": TDX})
    ran = hv("conform", "--iut", f"unix:listen:{place}", "--id", "*.TDX-MAPGPA-06.*")
    said = " ".join(ran.out.split())
    assert ", profile linux-kvm-6.16, seed 0" in said
    assert "It does not offer, so not tested: common-convert, kvm-exit-hypercall" in said
    assert ran.code == 0, ran.out
    peer.join(5)
    assert not peer.is_alive()


def test_who_connects_and_has_nothing_is_let_go(hv: Run, tmp_path: Path) -> None:
    place = tmp_path / "s"
    peer = one_session(place, {"our-own": TDX})
    ran = hv("conform", "--iut", f"unix:listen:{place}")
    assert (ran.code, ran.out) == (2, "")
    assert "offers only our-own; there are no cases for that" in ran.err
    peer.join(5)
    assert not peer.is_alive()
    assert not place.exists()


# -- what is written --------------------------------------------------------------------------------------------


def test_reports(hv: Run, tmp_path: Path) -> None:
    files = {kind: tmp_path / f"out.{kind}" for kind in ("junit", "ktap", "json", "html")}
    options = [word for kind, path in files.items() for word in (f"--{kind}", str(path))]
    ran = hv("conform", "--iut", write_iut(tmp_path, MISALIGNED_IS_INVALID), *RULE, *options)
    assert ran.code == 1
    report = json.loads(files["json"].read_text())
    failed = report["counts"]["fail"]
    assert (report["verdict"], failed > 2) == ("failed", True)
    root = ET.parse(files["junit"]).getroot()
    assert len(root.findall(".//failure")) == failed
    assert len(re.findall(r"^ +not ok ", files["ktap"].read_text(), re.MULTILINE)) == failed
    assert UNALIGNED in files["html"].read_text()
    for kind, path in files.items():
        assert f"{kind}: {path}\n" in ran.out


def test_json_on_standard_output_is_nothing_else(hv: Run) -> None:
    ran = hv("conform", "--iut", "builtin", "--id", UNALIGNED, "--json", "-")
    assert json.loads(ran.out)["good"] is True
    assert ran.err.startswith("Plumbing check: ")


def test_the_report_is_the_same_for_any_number_of_jobs(hv: Run, tmp_path: Path) -> None:
    iut = write_iut(tmp_path, MISALIGNED_IS_INVALID)
    texts = [hv("conform", "tdx-map-gpa", "--iut", iut, "-j", jobs, "--json", "-").out for jobs in ("1", "2")]
    assert texts[0] == texts[1]
    assert json.loads(texts[0])["counts"]["fail"] > 2


def test_strict(hv: Run, tmp_path: Path) -> None:
    args = ("conform", "--iut", write_iut(tmp_path, UNKNOWN_LEAF_IS_BUSY), "--rule", "TDX-MAPGPA-07")
    lax = hv(*args)
    assert lax.code == 0, lax.out
    assert "warned about" in lax.out
    strict = hv(*args, "--strict")
    assert strict.code == 1
    assert "--strict: " in strict.out
    assert "FAILED: " in strict.out


# -- transcripts ------------------------------------------------------------------------------------------------


def test_a_transcript_is_kept_where_the_run_fails(hv: Run, tmp_path: Path) -> None:
    ran = hv("conform", "--iut", write_iut(tmp_path, MISALIGNED_IS_INVALID), "--id", UNALIGNED)
    kept = transcript_of(ran.out)
    assert kept is not None
    lines = kept.read_text().splitlines()
    assert json.loads(lines[0])["hvabi_transcript"] == 1
    assert any('\\"cmd\\":\\"call\\"' in line for line in lines)


def test_replay_judges_again_and_sends_again(hv: Run, tmp_path: Path) -> None:
    place = tmp_path / "run.transcript"
    ran = hv("conform", "--iut", write_iut(tmp_path, MISALIGNED_IS_INVALID), *RULE, "--transcript", str(place))
    assert ran.code == 1
    assert transcript_of(ran.out) == place
    judged = hv("conform", *RULE, "--replay", str(place))
    assert judged.code == 1
    assert judged.out.startswith(f"Replay of {place}")
    assert judged.out.count("FAIL  ") == ran.out.count("FAIL  ") > 2
    assert "$ hvabi" not in judged.out
    same = hv("conform", "--iut", write_iut(tmp_path, MISALIGNED_IS_INVALID), "--replay", str(place))
    assert (same.code, "0 answers differ" in same.out) == (0, True), same.out
    other = hv("conform", "--iut", write_iut(tmp_path, RIGHT, "right.py"), "--replay", str(place))
    assert other.code == 1
    assert '"r10":"0x8000000000000002"' in other.out


# -- implementations that do not start --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (None, "No such file or directory"),
        ("import sys; sys.exit('no licence')", "no licence"),
        ('print(\'@hvabi {"id": 1, "ok": {}}\', flush=True); input()', "hello"),
    ],
    ids=["missing", "ends at once", "bad hello"],
)
def test_an_implementation_that_does_not_start(hv: Run, tmp_path: Path, script: str | None, said: str) -> None:
    path = tmp_path / "iut.py"
    iut = f"cmd:{tmp_path / 'nothing'}"
    if script is not None:
        path.write_text(script)
        iut = f"cmd:{shlex.quote(sys.executable)} {path}"
    ran = hv("conform", "--iut", iut, columns=120)
    assert (ran.code, ran.out) == (3, "")
    assert ran.err.startswith("error: the implementation does not start: ")
    assert said in ran.err
    assert "hint: " in ran.err
    junit = tmp_path / "out.xml"
    ran = hv("conform", "--iut", iut, *RULE, "--junit", str(junit))
    assert ran.code == 3
    assert "INCOMPLETE" in ran.out
    assert ET.parse(junit).getroot() is not None
    assert transcript_of(ran.out) is not None


# -- known failures ---------------------------------------------------------------------------------------------

ENTRY = """\
- case: "{case}"
  kind: {kind}
  reason: "Our VMM answers INVALID_OPERAND."
"""


@pytest.mark.parametrize(
    ("entry", "code", "said"),
    [
        (ENTRY.format(case="tdx-map-gpa@*.TDX-MAPGPA-06.*", kind="xfail"), 0, "known to fail"),
        (ENTRY.format(case=UNALIGNED, kind="wontfix"), 0, "known to fail"),
        (ENTRY.format(case=UNALIGNED, kind="xfail") + "  message: other\n", 1, "fails with another message"),
        (ENTRY.format(case=UNALIGNED, kind="xfail") + '  expires: "2020-01-31"\n', 1, "has expired on 2020-01-31"),
        (ENTRY.format(case=UNALIGNED, kind="xfail") + ENTRY.format(case=GUEST + "x", kind="xfail"), 1, "fits no case"),
    ],
    ids=["glob", "id", "message", "expired", "fits nothing"],
)
def test_known_failures(hv: Run, tmp_path: Path, entry: str, code: int, said: str) -> None:
    file = tmp_path / "known.yaml"
    file.write_text(entry)
    iut = write_iut(tmp_path, MISALIGNED_IS_INVALID)
    ran = hv("conform", "--iut", iut, "--id", UNALIGNED, "--expect", str(file), columns=200)
    assert ran.code == code, ran.out
    assert said in ran.out


def test_a_known_failure_that_passes_fails_the_run(hv: Run, tmp_path: Path) -> None:
    file = tmp_path / "known.yaml"
    file.write_text(ENTRY.format(case=UNALIGNED, kind="xfail"))
    ran = hv("conform", "--iut", "builtin", "--id", UNALIGNED, "--expect", str(file), columns=200)
    assert ran.code == 1
    assert f"{file}:1: {UNALIGNED} is listed as xfail and passes" in " ".join(ran.out.split())


def test_entries_of_other_abis_are_not_stale(hv: Run, tmp_path: Path) -> None:
    file = tmp_path / "known.yaml"
    file.write_text(ENTRY.format(case="kvm-exit-hypercall@v1.host.*", kind="flaky"))
    ran = hv("conform", "tdx-map-gpa", "--iut", "builtin", "--id", UNALIGNED, "--expect", str(file), columns=200)
    assert ran.code == 0, ran.out


def test_a_bad_file_of_known_failures(hv: Run, tmp_path: Path) -> None:
    file = tmp_path / "known.yaml"
    file.write_text("- case: x\n  kind: broken\n  reason: z\n")
    ran = hv("conform", "--iut", "builtin", "--expect", str(file))
    assert (ran.code, ran.out) == (2, "")
    assert f"{file}:2:9" in ran.err
    assert "there is no kind `broken`" in ran.err


def test_known_failures_are_brought_up_to_date(hv: Run, tmp_path: Path) -> None:
    file = tmp_path / "known.yaml"
    iut = write_iut(tmp_path, MISALIGNED_IS_INVALID)
    args = ("conform", "--iut", iut, *RULE, "--expect", str(file))
    first = hv(*args, "--update-expect")
    assert first.code == 0, first.out
    assert re.search(rf"{re.escape(str(file))}: [1-9]\d* added, 0 removed", first.out)
    again = hv(*args)
    assert again.code == 0, again.out
    write_iut(tmp_path, RIGHT)
    stale = hv(*args)
    assert stale.code == 1
    assert "is listed as xfail and passes" in stale.out
    mended = hv(*args, "--update-expect")
    assert (mended.code, "0 added" in mended.out) == (0, True)
    assert file.read_text() == "[]\n"
    assert hv(*args).code == 0
