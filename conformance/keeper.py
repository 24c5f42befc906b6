"""Starts one program, keeps its whole family, and lets nothing of it survive. Run as a script by `process`.

It stands between the runner and the program because only a process of its own can adopt orphans (on Linux,
PR_SET_CHILD_SUBREAPER) without taking over those of the runner's other children. It ends the family when the
program ends, and when the control pipe closes, which happens too where the runner itself is killed.

Arguments: control descriptor, status descriptor, grace in milliseconds, then the program and its arguments.
It writes ``pid N``, then ``exit CODE`` or ``signal NUMBER``, or ``spawn ERRNO TEXT``, to the status descriptor.
Uses the standard library only: it starts in 20 ms.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from pathlib import Path

_SET_CHILD_SUBREAPER = 36
_LONGEST_KILL = 5.0
"""Seconds after which processes that do not die, such as those stuck in the kernel, are given up."""


def _adopt_orphans() -> None:
    if sys.platform != "linux":
        return
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _family() -> list[int]:
    """Return the ids of all descendants of this process, from /proc; empty where there is none."""
    children: dict[int, list[int]] = {}
    try:
        names = os.listdir("/proc")  # noqa: PTH208  # pathlib costs milliseconds with many processes
    except OSError:
        return []
    for name in names:
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError, ValueError, IndexError):
            text = Path("/proc", name, "stat").read_text(encoding="ascii", errors="replace")
            # The name in brackets may hold anything, spaces and brackets too.
            parent = int(text.rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(name))
    found: list[int] = []
    waiting = [os.getpid()]
    while waiting:
        for child in children.get(waiting.pop(), ()):
            found.append(child)
            waiting.append(child)
    return found


class Keeper:
    """One program and what it has started."""

    def __init__(self, control: int, status: int, grace: float) -> None:
        self.control = control
        self.status = status
        self.grace = grace
        self.pid = 0
        self.code: int | None = None

    def start(self, argv: list[str]) -> bool:
        """Start the program; say so, or say why not."""
        reset = [signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD]
        try:
            self.pid = os.posix_spawnp(argv[0], argv, os.environ, setsid=True, setsigdef=reset)
        except OSError as error:
            self.say(f"spawn {error.errno} {error.strerror}")
            return False
        self.say(f"pid {self.pid}")
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(nothing, number)
        return True

    def say(self, text: str) -> None:
        """Tell the runner, if it is still there."""
        with contextlib.suppress(OSError):
            os.write(self.status, text.encode("utf-8", "replace") + b"\n")

    def reap(self) -> bool:
        """Collect what has ended; return whether children are left."""
        while True:
            try:
                pid, code = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.pid:
                self.code = code

    def wait(self, wake: int) -> None:
        """Wait until the program ends or the runner wants it to."""
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        poll.register(wake, select.POLLIN)
        deadline: float | None = None
        while True:
            self.reap()
            if self.code is not None:
                return
            left = None if deadline is None else max(deadline - time.monotonic(), 0) * 1000
            events = poll.poll(left)
            if deadline is not None and time.monotonic() >= deadline:
                return
            for fd, _ in events:
                if fd == wake:
                    os.read(wake, 512)
                elif deadline is None:
                    poll.unregister(self.control)
                    deadline = time.monotonic() + self.grace
                    with contextlib.suppress(OSError):
                        os.killpg(self.pid, signal.SIGTERM)

    def end(self) -> None:
        """Kill everything that is left, and collect it."""
        give_up = time.monotonic() + _LONGEST_KILL
        pause = 0.001
        while True:
            family = _family()
            if self.code is None or family:
                with contextlib.suppress(OSError):
                    os.killpg(self.pid, signal.SIGKILL)
            for pid in family:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            left = self.reap()
            if (not left and not family) or time.monotonic() > give_up:
                return
            time.sleep(pause)
            pause = min(pause * 2, 0.05)


def main(arguments: list[str]) -> int:
    """Run one program to its end."""
    control, status, grace = int(arguments[0]), int(arguments[1]), int(arguments[2]) / 1000
    for fd in (control, status):
        os.set_inheritable(fd, False)
    _adopt_orphans()
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    keeper = Keeper(control, status, grace)
    if not keeper.start(arguments[3:]):
        return 1
    keeper.wait(wake)
    keeper.end()
    code = keeper.code
    if code is None:
        keeper.say("stuck")
    elif os.WIFSIGNALED(code):
        keeper.say(f"signal {os.WTERMSIG(code)}")
    else:
        keeper.say(f"exit {os.WEXITSTATUS(code)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
