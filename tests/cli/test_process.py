"""hvabi as a process: pipes, signals, streams that are closed, and what it imports."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

HVABI = [sys.executable, "-m", "hvabi.cli.main"]
CLEAN = {key: value for key, value in os.environ.items() if key not in {"NO_COLOR", "HVABI_TRACEBACK", "COLUMNS"}}


def run(
    *args: str, env: dict[str, str] | None = None, given: bytes | None = None
) -> subprocess.CompletedProcess[bytes]:
    whole = {**CLEAN, **(env or {})}
    return subprocess.run([*HVABI, *args], capture_output=True, input=given, timeout=60, check=False, env=whole)


def test_version() -> None:
    ran = run("--version")
    assert ran.returncode == 0
    assert ran.stdout.startswith(b"hvabi ")


def test_decode_of_standard_input() -> None:
    ran = run("decode", "ghcb-msr-psc", "-", given=bytes.fromhex("14e0001f00002000"))
    assert ran.returncode == 0
    assert b"make shared: 1 page at 0x1f00e000" in ran.stdout


def test_no_colour_and_no_progress_in_a_pipe() -> None:
    ran = run("decode", "ghcb-psc", "00000000 01000000 00e0001f00002000", env={"TERM": "xterm-256color"})
    assert ran.returncode == 1
    assert b"\x1b" not in ran.stdout + ran.stderr


@pytest.mark.parametrize(
    ("env", "colour"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)], ids=str
)
def test_colour_on_a_terminal(env: dict[str, str], colour: bool) -> None:
    pty = pytest.importorskip("pty")
    parent, child = pty.openpty()
    try:
        subprocess.run(
            [*HVABI, "encode", "ghcb-psc/psc-entry", "gfn=1"],
            stdout=child,
            timeout=60,
            check=True,
            env={**CLEAN, "TERM": "xterm", **env},
        )
        assert (b"\x1b[1m" in os.read(parent, 65536)) is colour
    finally:
        os.close(parent)
        os.close(child)


def test_a_reader_that_goes_away_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as sink:
        ran = subprocess.run([*HVABI, "list", "--json"], stdout=sink, stderr=subprocess.PIPE, timeout=60, check=False)
    assert (ran.returncode, ran.stderr) == (141, b"")


def test_interrupt_ends_quietly() -> None:
    with subprocess.Popen(
        [*HVABI, "iut"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b'@hvabi {"id":1,"cmd":"nothing"}\n')
        process.stdin.flush()
        process.stdout.readline()
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")  # noqa: PTH110  # before any fixture
def test_a_full_disk_is_said() -> None:
    with open("/dev/full", "wb") as sink:  # noqa: PTH123  # a device
        ran = subprocess.run([*HVABI, "list"], stdout=sink, stderr=subprocess.PIPE, timeout=60, check=False)
    assert ran.returncode == 2
    assert b"Traceback" not in ran.stderr


def test_closed_streams() -> None:
    for streams in ("<&-", ">&-", "2>&-"):
        command = f'"{sys.executable}" -m hvabi.cli.main decode ghcb-msr-psc 14e0001f00002000 {streams}'
        ran = subprocess.run(["sh", "-c", command], capture_output=True, timeout=60, check=False)
        assert ran.returncode == 0, ran.stderr


def test_a_terminal_that_knows_ascii_only() -> None:
    env = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    ran = run("encode", "ghcb-psc", "entries[0].gfn=1", env=env)
    assert ran.returncode == 0
    assert run("explain", "caf\u00e9", env=env).returncode == 2


def test_an_internal_error_is_one_line_unless_asked_for() -> None:
    code = "import hvabi.cli.list as m, hvabi.cli.main as main; m.console.say = lambda *_: 1 // 0; main.run()"
    plain = subprocess.run(
        [sys.executable, "-c", code, "list"], capture_output=True, timeout=60, check=False, env=CLEAN
    )
    assert plain.returncode == 3
    assert b"Traceback" not in plain.stderr
    assert b"ZeroDivisionError" in plain.stderr
    assert b"HVABI_TRACEBACK=1" in plain.stderr
    loud = subprocess.run(
        [sys.executable, "-c", code, "list"],
        capture_output=True,
        timeout=60,
        check=False,
        env={**CLEAN, "HVABI_TRACEBACK": "1"},
    )
    assert loud.returncode == 3
    assert b"Traceback" in loud.stderr


@pytest.mark.parametrize(
    ("args", "absent"),
    [
        (["--help"], ["hvabi.abi.registry", "yaml", "construct", "jsonschema", "rich", "hvabi.cli.decode"]),
        (
            ["decode", "ghcb-msr-psc", "14e0001f00002000"],
            ["jsonschema", "rich", "hvabi.adapters", "hvabi.abi.lint", "hvabi.cli.show"],
        ),
        (["encode", "tdx-map-gpa", "gpa=0", "size=1"], ["jsonschema", "rich", "hvabi.adapters", "hvabi.abi.readings"]),
        (["iut"], ["rich", "hvabi.traces", "hvabi.cli.decode"]),
    ],
    ids=lambda item: item[0],
)
def test_only_what_is_used_is_imported(args: list[str], absent: list[str]) -> None:
    code = (
        "import sys\nfrom hvabi.cli.main import cli\ntry:\n    cli(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "print('MODULES', *sorted(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, input=b"", timeout=60, check=False)
    modules = ran.stdout.decode().rpartition("MODULES ")[2].split()
    assert "click" in modules
    assert not set(absent) & set(modules)
