"""One session for asking and for running: what the implementation sees, and when it must be asked again."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

import pytest

from hvabi.conformance.answer import ProtocolViolation
from hvabi.conformance.client import Client
from hvabi.conformance.connect import parse_connector
from hvabi.conformance.generate import cases
from hvabi.conformance.greet import Greeter
from hvabi.conformance.iut import Session
from hvabi.conformance.run import run_cases
from hvabi.conformance.stream import PeerLost, PeerStart

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HELLO = '"cmd":"hello"'


class Server:
    """Serves the bundled session on a socket, so often and no more, and keeps what it was sent.

    With `hangs_up` the first session ends after so many lines.
    """

    def __init__(
        self, path: Path, *, sessions: int, answer: Callable[[str], str | None] | None = None, hangs_up: int = 0
    ) -> None:
        self.lines: list[str] = []
        self.sessions = 0
        self.gone = threading.Event()
        self._answer = answer
        self._hangs_up = hangs_up
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._serve, args=(sessions,), daemon=True).start()

    def _serve(self, sessions: int) -> None:
        for _ in range(sessions):
            peer, _ = self._listener.accept()
            self.sessions += 1
            handle = self._answer or Session().handle
            with peer, peer.makefile("rw") as stream:
                for line in stream:
                    self.lines.append(line)
                    stream.write(handle(line.rstrip("\n")) or "")
                    stream.flush()
                    if len(self.lines) == self._hangs_up:
                        break
            self.gone.set()
        self._listener.close()


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "s"
    yield place
    place.unlink(missing_ok=True)


def test_a_server_of_one_session_is_asked_and_then_tested(path: Path) -> None:
    server = Server(path, sessions=1)
    greeter = Greeter(parse_connector(f"unix:{path}"), features=("local-steps",))
    assert "tdx-map-gpa" in greeter.greet().abis
    chosen = list(cases("tdx-map-gpa"))[:40]
    run = run_cases(chosen, greeter)
    assert [result.message for result in run.results if result.verdict.bad] == []
    assert len(run.results) == 40
    assert run.peer.startswith("hvabi bundled")
    assert (server.sessions, sum(HELLO in line for line in server.lines)) == (1, 1)


def test_the_transcript_has_the_hello_that_was_said_before(path: Path, tmp_path: Path) -> None:
    Server(path, sessions=1)
    greeter = Greeter(parse_connector(f"unix:{path}"))
    greeter.greet()
    place = tmp_path / "t"
    live = run_cases(list(cases("tdx-map-gpa", role="host"))[:8], greeter, transcript=place)
    again = run_cases(list(cases("tdx-map-gpa", role="host"))[:8], f"replay:{place}")
    assert [result.verdict for result in again.results] == [result.verdict for result in live.results]
    assert again.peer == live.peer


def test_who_wants_more_features_asks_again(path: Path) -> None:
    server = Server(path, sessions=1)
    greeter = Greeter(parse_connector(f"unix:{path}"))
    assert "exits" not in greeter.greet().features
    client = Client(greeter.open())
    assert "exits" in client.hello({"exits"}).features
    assert sum(HELLO in line for line in server.lines) == 2


def test_the_known_answer_carries_the_id_that_asks_for_it(path: Path) -> None:
    Server(path, sessions=1)
    greeter = Greeter(parse_connector(f"unix:{path}"))
    first = greeter.greet()
    assert Client(greeter.open(), ids=iter([7])).hello() == first


def test_a_command_other_than_hello_goes_through(path: Path) -> None:
    server = Server(path, sessions=1)
    greeter = Greeter(parse_connector(f"unix:{path}"))
    greeter.greet()
    Client(greeter.open()).stop()
    assert '"cmd":"stop"' in server.lines[-1]


def test_later_sessions_are_new_ones(path: Path) -> None:
    server = Server(path, sessions=2)
    greeter = Greeter(parse_connector(f"unix:{path}"))
    greeter.greet()
    greeter.open().close()
    Client(greeter.open()).hello()
    assert server.sessions == 2


def test_a_session_that_is_not_used_is_ended(path: Path) -> None:
    server = Server(path, sessions=1)
    greeter = Greeter(parse_connector(f"unix:{path}"))
    greeter.greet()
    greeter.close()
    greeter.close()
    assert server.gone.wait(5)


def test_a_session_that_ends_while_the_cases_are_made_is_opened_again(path: Path) -> None:
    server = Server(path, sessions=2, hangs_up=1)
    greeter = Greeter(parse_connector(f"unix:{path}"))
    greeter.greet()
    assert server.gone.wait(5)
    run = run_cases(list(cases("tdx-map-gpa", role="host"))[:4], greeter)
    assert [result.message for result in run.results if result.verdict.bad] == []
    assert server.sessions == 2


def test_nobody_there_and_nonsense(path: Path) -> None:
    quick = parse_connector(f"unix:{path}", connect_seconds=0.1)
    with pytest.raises(PeerStart, match="nobody answers"):
        Greeter(quick).greet()
    server = Server(path, sessions=1, answer=lambda _: 'boot noise\n@hvabi {"id":1,"ok":{"protocol":9}}\n')
    with pytest.raises(ProtocolViolation, match="protocol is 9") as caught:
        Greeter(quick).greet()
    assert caught.value.__notes__ == ["boot noise\n"]
    assert server.gone.wait(5)


def test_one_that_hangs_up_is_lost(path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    threading.Thread(target=lambda: listener.accept()[0].close(), daemon=True).start()
    with pytest.raises(PeerLost):
        Greeter(parse_connector(f"unix:{path}")).greet()
    listener.close()
