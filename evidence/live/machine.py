"""A machine in an emulator: one kernel, one program on its other serial lines, nothing left behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hvabi.conformance import keeper
from hvabi.evidence.live.archive import Archive
from hvabi.evidence.live.errors import LiveError
from hvabi.evidence.live.userland import add_python

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from hvabi.evidence.live.kernels import Kernel

READY = "HVABI READY"
"""What the program says on the console once it listens."""
BOOT_SECONDS = 120.0
_TAIL = 12

_INIT = """#!{python} -IS
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
for kind, place in (("proc", "/proc"), ("devtmpfs", "/dev"), ("sysfs", "/sys")):
    libc.mount(kind.encode(), place.encode(), kind.encode(), 0, None)
for name in {modules!r}:
    handle = os.open("/modules/" + name + ".ko", os.O_RDONLY)
    if libc.syscall(313, handle, b"", 0):  # finit_module
        print("HVABI MODULE", name, os.strerror(ctypes.get_errno()), flush=True)
    os.close(handle)
sys.path.insert(0, "/program")
__import__("{program}").main({words!r})
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """What QEMU emulates.

    Attributes:
        qemu: its program.
        package: the package of Debian that has it.
        options: machine, processor and memory; always one processor, see `evidence/live` in the tests' data.
        append: the kernel's command line.
        serial: the device of a line where the machine has only one, that of the console.

    """

    qemu: str
    package: str
    options: tuple[str, ...]
    append: str
    serial: str | None = None

    def find(self) -> str:
        """Return the path of QEMU. Raises `LiveError` ``no-qemu``."""
        path = shutil.which(self.qemu)
        if path is None:
            raise LiveError(
                f"{self.qemu} is not installed",
                code="no-qemu",
                hint=f"apt-get install --no-install-recommends {self.package}",
            )
        return path


PC = Board(
    qemu="qemu-system-x86_64",
    package="qemu-system-x86",
    options=("-cpu", "max", "-m", "512", "-smp", "1"),
    append="console=ttyS0 quiet panic=-1 mitigations=off nokaslr random.trust_cpu=on",
)


class Machine:
    """One boot of a kernel in QEMU without hardware virtualisation. A context manager: leaving it kills the machine.

    Args:
        kernel: what to boot.
        modules: modules to load, with what they need.
        program: files by name, put into ``/program``; ``main`` of the first is called with `words`.
        words: arguments of the program.
        imports: modules of the standard library that it imports.
        count: serial lines besides the console, three at most; in the machine ``/dev/ttyS1`` and so on, outside the
            Unix sockets `lines`.
        board: what is emulated.
        progress: told what is going on.

    """

    def __init__(
        self,
        kernel: Kernel,
        *,
        modules: Sequence[str] = (),
        program: Mapping[str, bytes],
        words: Sequence[str] = (),
        imports: Sequence[str] = (),
        count: int = 1,
        board: Board = PC,
        progress: Callable[[object], None],
    ) -> None:
        self.kernel = kernel
        self.modules = modules
        self.program = program
        self.words = words
        self.imports = imports
        self.board = board
        self.progress = progress
        self.folder = Path(tempfile.mkdtemp(prefix="hvabi-live-"))
        self.lines = tuple(self.folder / f"line{number}" for number in range(1, count + 1))
        self.process: subprocess.Popen[bytes] | None = None
        self._control: int | None = None

    @property
    def console(self) -> str:
        """What the kernel and the program said so far."""
        path = self.folder / "console"
        return path.read_text(errors="replace") if path.is_file() else ""

    def __enter__(self) -> Machine:
        try:
            self._boot()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill the machine and delete its files."""
        if self._control is not None:
            os.close(self._control)  # the keeper kills what it keeps
            self._control = None
        if self.process is not None:
            self.process.wait()
            self.process = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def gone(self) -> str | None:
        """Return that the machine does not run any more, with its last words; None while it runs."""
        if self.process is None or self.process.poll() is None:
            return None
        what = "the kernel panicked" if "Kernel panic" in self.console else "QEMU ended"
        tail = self.tail()
        return f"the machine went away: {what} ({self.kernel.release}){': ' + tail[-600:] if tail else ''}"

    def tail(self) -> str:
        """Return the last lines of the console, a panic's own words in place of its registers."""
        lines = [line.strip() for line in self.console.splitlines() if line.strip()]
        panic = next((number for number, line in enumerate(lines) if "Kernel panic" in line), len(lines) - 1)
        return "\n".join(lines[: panic + 1][-_TAIL:])

    def _boot(self) -> None:
        qemu = self.board.find()
        self.progress("building the initial file system")
        initrd = self.folder / "initrd"
        self.build(initrd)
        self.progress(f"booting {self.kernel.release} in QEMU")
        command = [
            qemu, "-accel", "tcg", *self.board.options, "-nodefaults", "-no-user-config",
            "-display", "none", "-no-reboot", "-kernel", str(self.kernel.image), "-initrd", str(initrd),
            "-append", self.board.append, "-serial", f"file:{self.folder / 'console'}",
        ]  # fmt: skip
        for path in self.lines:
            chardev, device = f"socket,id={path.name},path={path},server=on,wait=off", self.board.serial
            place = (
                ["-serial", f"chardev:{path.name}"] if device is None else ["-device", f"{device},chardev={path.name}"]
            )
            command += ["-chardev", chardev, *place]
        self._start(command)
        self._wait()

    def _start(self, command: Sequence[str]) -> None:
        """Start QEMU under a keeper, which ends it where nobody else can any more: it holds the end of a pipe."""
        control, self._control = os.pipe()
        try:
            with (self.folder / "qemu.log").open("wb") as log, Path(os.devnull).open("wb") as nobody:
                fds = (control, nobody.fileno())
                self.process = subprocess.Popen(
                    [sys.executable, "-I", "-S", keeper.__file__, *map(str, fds), "0", *command],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=fds, start_new_session=True,
                )  # fmt: skip
        finally:
            os.close(control)

    def _wait(self) -> None:
        assert self.process is not None  # started just now
        end = time.monotonic() + BOOT_SECONDS
        while READY not in (console := self.console):
            if "HVABI MODULE" in console:
                raise self._failure("a module cannot be loaded")
            if "HVABI NO" in console:
                raise self._failure("the kernel does not have what this needs")
            if "Kernel panic" in console:
                raise self._failure("the kernel panicked")
            if self.process.poll() is not None:
                log = (self.folder / "qemu.log").read_text(errors="replace").strip()
                raise self._failure(f"QEMU ended while the machine booted{': ' + log[-200:] if log else ''}")
            if time.monotonic() > end:
                raise self._failure(f"the machine was not up after {BOOT_SECONDS:.0f} s")
            time.sleep(0.05)

    def _failure(self, what: str) -> LiveError:
        tail = self.tail()
        return LiveError(f"{what} ({self.kernel.release}){': ' + tail[-600:] if tail else ''}", code="no-boot")

    def build(self, path: Path) -> None:
        """Write the initial file system."""
        with path.open("wb") as file:
            archive = Archive(file)
            for folder in ("proc", "dev", "sys", "tmp"):
                archive.folder(folder)
            archive.device("dev/console", 5, 1)
            python = add_python(archive, ["ctypes", *self.imports])
            loaded = self.kernel.with_needs(self.modules)
            for name, data in loaded:
                archive.file(f"modules/{name}.ko", data)
            for name, data in self.program.items():
                archive.file(f"program/{name}", data)
            init = _INIT.format(
                python=python, modules=[name for name, _ in loaded],
                program=next(iter(self.program)).removesuffix(".py"), words=list(self.words),
            )  # fmt: skip
            archive.file("init", init.encode(), executable=True)
            archive.end()
