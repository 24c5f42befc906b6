"""A program as the peer: started, read, and ended with everything that it has started."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from hvabi.abi.diagnostics import escape
from hvabi.conformance.stream import PeerLost, PeerStart, StreamConnection

if TYPE_CHECKING:
    from collections.abc import Sequence

GRACE = 0.5
"""Seconds between SIGTERM and SIGKILL."""
_LONGEST_END = 6.0
"""Seconds that the keeper may take to end the family after the grace."""
_PIPE_BYTES = 1 << 20


class ProcessConnection(StreamConnection):
    """The standard input and output of a program.

    The program runs in a session of its own under a keeper. When the connection closes, its process group gets
    SIGTERM and after `grace` seconds SIGKILL, as does every process that it has started, also one that left the group.

    Raises `PeerStart` where the program cannot be started.
    """

    def __init__(self, argv: Sequence[str], *, grace: float = GRACE) -> None:
        self.argv = tuple(argv)
        self._grace = grace
        self._how: str | None = None
        self._said = b""
        self._pid = 0
        control, self._control = os.pipe()
        self._status, status = os.pipe()
        keeper = Path(__file__).with_name("keeper.py")
        try:
            self._keeper = subprocess.Popen(
                [sys.executable, "-I", "-S", str(keeper), str(control), str(status), str(int(grace * 1000)), *argv],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(control, status),
                start_new_session=True,
                bufsize=0,
            )
        except (OSError, ValueError) as error:
            for fd in (self._control, self._status):
                os.close(fd)
            raise PeerStart(f"{self._command} cannot be started: {error}", argv=self.argv) from error
        finally:
            for fd in (control, status):
                os.close(fd)
        os.set_blocking(self._status, False)
        streams = (self._keeper.stdin, self._keeper.stdout, self._keeper.stderr)
        stdin, stdout, stderr = (stream.fileno() for stream in streams if stream is not None)
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            with contextlib.suppress(OSError):
                fcntl.fcntl(stdout, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        super().__init__(read=stdout, write=stdin, err=stderr, name=Path(self.argv[0]).name, on_close=self._end)
        self._started()

    @property
    def _command(self) -> str:
        return escape(shlex.join(self.argv))

    @property
    def pid(self) -> int:
        """Process id of the program; 0 where it did not start."""
        return self._pid

    def _started(self) -> None:
        """Wait for the keeper's word that the program runs."""
        deadline = time.monotonic() + 10
        while b"\n" not in self._said and time.monotonic() < deadline:
            if not self._listen(deadline - time.monotonic()):
                break
        words = self._said.decode("utf-8", "replace").split("\n")[0].split(" ", 2)
        if words[0] == "pid":
            self._pid = int(words[1])
            return
        reason = words[2] if words[0] == "spawn" and len(words) == 3 else "its keeper did not start"
        number = int(words[1]) if words[0] == "spawn" and len(words) == 3 and words[1].isdigit() else None
        text = self.take_stderr().strip()
        self.close()
        raise PeerStart(
            f"{self._command} cannot be started: {reason}",
            hint="give a program that can be executed, as cmd:PROGRAM ARGUMENTS",
            argv=self.argv,
            errno=number,
            stderr=text,
        )

    def _listen(self, seconds: float) -> bool:
        """Take what the keeper says; return whether it may say more."""
        poll = select.poll()
        poll.register(self._status, select.POLLIN)
        if not poll.poll(max(seconds, 0) * 1000):
            return True
        data = os.read(self._status, 4096)
        self._said += data
        return bool(data)

    def _lost(self) -> PeerLost:
        """Say how the program ended. Where it only closed its output, that is the news."""
        deadline = time.monotonic() + 1.0
        how = self._ending()
        while how is None and time.monotonic() < deadline and self._listen(deadline - time.monotonic()):
            how = self._ending()
        self._drain()
        how = how or "closed its output and goes on running"
        self._how = how
        return PeerLost(f"{self.name} {how}", how=how)

    def _ending(self) -> str | None:
        for line in self._said.decode("utf-8", "replace").split("\n"):
            kind, _, number = line.partition(" ")
            if kind == "exit":
                return f"exited with code {number}"
            if kind == "signal":
                return f"was killed by {_signal_name(int(number))}"
        return None

    def _end(self) -> None:
        """End the program and its family, and collect the keeper."""
        for stream in (self._keeper.stdin,):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        os.close(self._control)
        try:
            # A full pipe must not keep the program from seeing SIGTERM through: its output is read on.
            self._keeper.wait(0.005)
        except subprocess.TimeoutExpired:
            self._collect()
        for stream in (self._keeper.stdout, self._keeper.stderr):
            if stream is not None:
                stream.close()
        os.close(self._status)

    def _collect(self) -> None:
        deadline = time.monotonic() + self._grace + _LONGEST_END
        while self._keeper.poll() is None and time.monotonic() < deadline:
            self._drain()
            time.sleep(0.002)
        if self._keeper.poll() is None:
            for pid in (self._pid, self._keeper.pid):
                with contextlib.suppress(OSError):
                    os.killpg(pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._keeper.wait(1)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


__all__ = ["GRACE", "ProcessConnection"]
