from __future__ import annotations

import os
import socket
import sys
import threading
import time
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvabi.abi.errors import UsageError
from hvabi.conformance.connect import PeerLost, PeerStart, PeerTimeout, parse_connector
from hvabi.conformance.frame import MAX_LINE
from hvabi.conformance.iut import serve
from hvabi.conformance.process import ProcessConnection
from hvabi.conformance.run import run_cases
from hvabi.conformance.stream import TAIL, LineFinder, Tail
from tests.conformance.peers import host_cases

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


# -- lines out of noise -------------------------------------------------------------------------------------------

NOISE = st.sampled_from(
    [b"", b"@", b"@hvab", b"x", b" @hvabi {}", b"@hvabi{}", b"\r", b"@hvabj ", b"\0\xff", b"@@hvabi x"]
)
LINES = st.lists(st.one_of(NOISE, st.sampled_from([b"@hvabi {}", b"@hvabi ", b"@hvabi [1]\r"])), max_size=12)


@given(LINES, st.lists(st.integers(1, 20), min_size=1))
def test_lines_are_found_however_the_stream_is_cut(lines: list[bytes], cuts: list[int]) -> None:
    data = b"".join(line + b"\n" for line in lines)
    log = Tail()
    finder = LineFinder(log)
    found: list[bytes | None] = []
    at = number = 0
    while at < len(data):
        size = cuts[number % len(cuts)]
        found += finder.feed(data[at : at + size])
        at, number = at + size, number + 1
    finder.finish()
    assert found == [line for line in lines if line.startswith(b"@hvabi ")]
    rest = b"".join(line + b"\n" for line in lines if not line.startswith(b"@hvabi "))
    assert log.take() == rest.decode("utf-8", "replace")


def test_a_line_may_be_as_long_as_the_protocol_allows_and_no_longer() -> None:
    finder = LineFinder(Tail())
    longest = b"@hvabi " + b"x" * (MAX_LINE - 7)
    assert finder.feed(longest + b"\n") == [longest]
    assert finder.feed(longest + b"x\n@hvabi {}\n") == [None, b"@hvabi {}"]


def test_a_tail_keeps_the_end_and_says_what_it_dropped() -> None:
    tail = Tail()
    for number in range(100_000):
        tail.add(b"%d\n" % number)
    text = tail.take()
    assert text.endswith("99999\n")
    assert text.startswith("[")
    assert TAIL <= len(text) < TAIL + 40
    assert tail.take() == ""


# -- connectors as text -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["", "cmd", "cmd:", "cmd:'", "shell:ls", "unix:", "unix:" + "x" * 200, "tcp:", "tcp:localhost", "tcp:localhost:0",
     "tcp:localhost:65536", "tcp:localhost:x", "tcp::1", "tcp:listen:5", "serial:", "serial:/dev/ttyS0,fast",
     "serial:/dev/ttyS0,123", "py:", "py:a-b", "py:hvabi.conformance.iut:Nothing", "py:math:pi", "py:operator:add",
     "builtin:x"],
)  # fmt: skip
def test_bad_connectors(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_connector(text).open()
    assert caught.value.code == "bad-connector"
    assert caught.value.hint


def test_a_module_that_cannot_be_imported() -> None:
    with pytest.raises(PeerStart, match="No module named"):
        parse_connector("py:hvabi.no_such_module")


def quick(text: str) -> Any:
    return parse_connector(text, connect_seconds=0.2, accept_seconds=0.2)


@pytest.mark.parametrize(
    ("text", "words"),
    [("unix:{}/none.sock", "nobody answers"), ("tcp:127.0.0.1:1", "nobody answers"), ("tcp:no.host.invalid:1", "nob"),
     ("unix:listen:{}/a.sock", "nobody connected"), ("unix:listen:{}/none/a.sock", "cannot listen"),
     ("serial:{}/tty", "cannot be opened"), ("serial:{}", "is no device"), ("cmd:{}/none", "No such file")],
)  # fmt: skip
def test_nobody_there(tmp_path: Path, text: str, words: str) -> None:
    connector = quick(text.format(tmp_path))
    with pytest.raises(PeerStart, match=words):
        connector.open()
    connector.close()


# -- every kind of connection, with the bundled session behind it -------------------------------------------------


def serve_socket(peer: socket.socket) -> None:
    with peer, peer.makefile("rb") as source, peer.makefile("wb") as sink:
        serve(source, sink)


def server(family: int, address: Any) -> tuple[socket.socket, Callable[[], None]]:
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.bind(address)
    listener.listen()

    def accept() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve_socket, args=(peer,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener, listener.close


def dial(family: int, address: Any) -> None:
    def run() -> None:
        for _ in range(100):
            peer = socket.socket(family, socket.SOCK_STREAM)
            try:
                peer.connect(address)
            except OSError:
                time.sleep(0.02)
                continue
            serve_socket(peer)
            return

    threading.Thread(target=run, daemon=True).start()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(params=["unix", "tcp", "unix:listen", "tcp:listen", "serial", "py-class", "py-object", "py-function",
                        "py-factory", "builtin", "cmd"])  # fmt: skip
def reachable(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    kind = request.param
    path, port = str(tmp_path / "s"), free_port()
    if kind in ("unix", "tcp"):
        family, address = (socket.AF_UNIX, path) if kind == "unix" else (socket.AF_INET, ("127.0.0.1", port))
        _, stop = server(family, address)
        yield f"unix:{path}" if kind == "unix" else f"tcp:127.0.0.1:{port}"
        stop()
    elif kind == "unix:listen":
        dial(socket.AF_UNIX, path)
        yield f"unix:listen:{path}"
    elif kind == "tcp:listen":
        dial(socket.AF_INET, ("127.0.0.1", port))
        yield f"tcp:listen:127.0.0.1:{port}"
    elif kind == "serial":
        ours, theirs = os.openpty()
        source, sink = os.fdopen(ours, "rb", buffering=0), os.fdopen(os.dup(ours), "wb", buffering=0)
        threading.Thread(target=serve, args=(source, sink), daemon=True).start()
        yield f"serial:{os.ttyname(theirs)},9600"
        os.close(theirs)
    elif kind.startswith("py-"):
        from hvabi.conformance.iut import Session

        module = types.ModuleType("hv_test_target")
        session = Session()
        for name, value in (("cls", Session), ("object", session), ("function", session.handle),
                            ("factory", lambda: Session())):  # fmt: skip
            setattr(module, name, value)
        monkeypatch.setitem(sys.modules, "hv_test_target", module)
        yield "py:hv_test_target:" + kind.removeprefix("py-").replace("class", "cls")
    else:
        yield "builtin" if kind == "builtin" else f"cmd:{sys.executable} -m hvabi.cli.main iut"


def test_every_connector_carries_a_run(reachable: str) -> None:
    from itertools import islice

    from hvabi.conformance.generate import cases

    some = list(islice(cases("tdx-map-gpa", role="host"), 8))
    run = run_cases(some, reachable, jobs=1)
    assert [result.message for result in run.results if result.verdict.bad] == []
    assert run.good
    assert run.peer.startswith("hvabi bundled")


def test_a_listening_socket_is_removed_and_a_stale_one_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    dial(socket.AF_UNIX, str(path))
    connector = quick(f"unix:listen:{path}")
    connector._seconds = 5
    connector.open().close()
    connector.close()
    assert not path.exists()


# -- one process --------------------------------------------------------------------------------------------------

SH = ["sh", "-c"]


@pytest.mark.parametrize(
    ("script", "how"),
    [("exit 0", "exited with code 0"), ("exit 255", "exited with code 255"), ("kill -TERM $$", "was killed by SIGTERM"),
     ("kill -KILL $$", "was killed by SIGKILL")],
)  # fmt: skip
def test_how_a_process_ended(script: str, how: str) -> None:
    connection = ProcessConnection([*SH, f"read line; echo log; echo err >&2; {script}"])
    connection.send("@hvabi {}\n", 5)
    with pytest.raises(PeerLost) as caught:
        connection.receive(5)
    assert caught.value.fields["how"] == how
    assert (connection.take_log(), connection.take_stderr()) == ("log\n", "err\n")
    connection.close()
    connection.close()
    with pytest.raises(PeerLost):
        connection.send("@hvabi {}\n", 1)


def test_a_process_that_does_not_read_is_a_timeout() -> None:
    connection = ProcessConnection([*SH, "sleep 60"])
    started = time.monotonic()
    with pytest.raises(PeerTimeout):
        connection.send("@hvabi " + "x" * 1_000_000 + "\n", 0.3)
    connection.close()
    assert time.monotonic() - started < 5


def test_a_process_that_writes_while_it_is_written_to_does_not_deadlock() -> None:
    script = (
        "import sys; sys.stdout.write('@hvabi {}\\n' + 'noise\\n' * 400000); sys.stdout.flush(); "
        "sys.stdin.readline(); print('@hvabi 1')"
    )
    connection = ProcessConnection([sys.executable, "-I", "-S", "-c", script])
    connection.send("@hvabi " + "x" * 900_000 + "\n", 10)
    assert connection.receive(10) == "@hvabi {}"
    assert connection.receive(10) == "@hvabi 1"
    connection.close()


def test_the_runner_is_killed_and_nothing_survives_it() -> None:
    code = (
        "from hvabi.conformance.process import ProcessConnection; import os\n"
        "c = ProcessConnection(['sh', '-c', 'sleep 100 & sleep 100'])\n"
        "print(c.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    import subprocess

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=False)
    session = int(done.stdout)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and _alive(session):
        time.sleep(0.02)
    assert not _alive(session)


def _alive(session: int) -> bool:
    try:
        os.killpg(session, 0)
    except ProcessLookupError:
        return False
    return True


def test_nothing_is_left_open() -> None:
    def count() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = count()
    run_cases(host_cases(2), "cmd:false")
    run_cases(host_cases(2), "cmd:/nonexistent")
    ProcessConnection(["cat"]).close()
    assert count() == before


# -- in process ---------------------------------------------------------------------------------------------------


def in_process(monkeypatch: pytest.MonkeyPatch, handle: Callable[[str], Any]) -> Any:
    module = types.ModuleType("hv_test_target")
    module.handle = handle  # type: ignore[attr-defined]  # what the connector looks for
    monkeypatch.setitem(sys.modules, "hv_test_target", module)
    return parse_connector("py:hv_test_target").open()


def test_a_handle_that_never_returns_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = threading.Event()
    connection = in_process(monkeypatch, lambda line: stop.wait(20) and None)
    connection.send("@hvabi {}\n", 1)
    with pytest.raises(PeerTimeout):
        connection.receive(0.1)
    connection.close()
    stop.set()


@pytest.mark.parametrize(
    ("handle", "how"),
    [(lambda line: 1 // 0, "raised ZeroDivisionError"), (lambda line: sys.exit(3), "raised SystemExit: 3"),
     (lambda line: b"bytes", "raised TypeError: handle\\(\\) returned a bytes")],
    ids=["raises", "exits", "bytes"],
)  # fmt: skip
def test_a_handle_that_breaks_is_a_crash(
    monkeypatch: pytest.MonkeyPatch, handle: Callable[[str], Any], how: str
) -> None:
    connection = in_process(monkeypatch, handle)
    connection.send("@hvabi {}\n", 1)
    with pytest.raises(PeerLost, match=how):
        connection.receive(1)
    assert "Error" in connection.take_stderr() or "SystemExit" in how


def test_a_handle_may_log_and_stay_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = in_process(monkeypatch, lambda line: "log\n@hvabi {}\n" if "1" in line else None)
    connection.send("@hvabi 1\n", 1)
    assert connection.receive(1) == "@hvabi {}"
    assert connection.take_log() == "log\n"
    connection.send("@hvabi 2\n", 1)
    with pytest.raises(PeerTimeout, match="without an answer"):
        connection.receive(1)
