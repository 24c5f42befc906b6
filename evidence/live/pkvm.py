"""pKVM on arm64: a protected VM in an emulated machine, whose calls the hypervisor at EL2 answers."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
from importlib.resources import as_file, files
from typing import TYPE_CHECKING

from hvabi.evidence.live.archive import Archive
from hvabi.evidence.live.errors import LiveError
from hvabi.evidence.live.machine import Board, Machine

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

    from hvabi.evidence.live.kernels import Kernel, Store

ABI = "pkvm-mem-share"
REVISION = "upstream"
SUITE, ARCHITECTURE = "trixie-backports", "arm64"
OLDEST = (7, 2)
"""The oldest kernel that was observed to make protected VMs and answer as the newer ones do."""
HOW = "booted in QEMU TCG with -smp 1 -cpu cortex-a76, virtualization=on, kvm-arm.mode=protected"
VIRT = Board(
    qemu="qemu-system-aarch64",
    package="qemu-system-arm",
    options=("-M", "virt,virtualization=on,gic-version=3", "-cpu", "cortex-a76", "-m", "1024", "-smp", "1"),
    append="console=ttyAMA0 quiet panic=-1 kvm-arm.mode=protected rdinit=/init",
    serial="pci-serial",
)
_COMPILER = "aarch64-linux-gnu-gcc"
_PROGRAM = "pkvm_vmm.c"
_SECONDS = 60.0
_LONGEST = 4096


def newest(store: Store) -> str:
    """Return the newest kernel package that has protected VMs. Raises `LiveError` ``no-kernel``."""
    found = usable(store)
    if not found:
        raise LiveError(
            f"apt offers no arm64 kernel from {'.'.join(map(str, OLDEST))} on",
            code="no-kernel",
            hint="another --suite may have one",
        )
    return found[-1]


def usable(store: Store) -> list[str]:
    """Return the kernel packages from the first on that has protected VMs, oldest first."""
    return [name for name in store.names() if "-cloud-" not in name and _version(name) >= OLDEST]


def _version(name: str) -> tuple[int, int]:
    match = re.search(r"-(\d+)\.(\d+)", name)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def profile_of(version: tuple[int, int]) -> str | None:
    """Return the profile of a kernel, or None for one before the first that was observed."""
    return "linux-7.3" if version >= OLDEST else None


def compiler() -> str:
    """Return the path of the compiler. Raises `LiveError` ``no-build``."""
    path = shutil.which(_COMPILER)
    if path is None:
        raise LiveError(
            f"{_COMPILER} is not installed",
            code="no-build",
            hint="apt-get install --no-install-recommends gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
        )
    return path


class PkvmMachine(Machine):
    """A machine whose first program is the VMM of a protected VM; its serial line is spoken by `Vm`."""

    def build(self, path: Path) -> None:
        """Compile the program and write it as the whole file system."""
        binary = self.folder / "init"
        with as_file(files("hvabi.evidence.live.guest") / _PROGRAM) as source:
            command = [compiler(), "-O2", "-static", "-o", str(binary), str(source)]
            try:
                result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
            except (OSError, subprocess.TimeoutExpired) as error:
                raise LiveError(f"{_COMPILER} does not work: {error}", code="no-build") from error
        if result.returncode:
            lines = [line for line in result.stderr.splitlines() if "rror" in line] or [result.stderr.strip()]
            raise LiveError(
                f"the program of the machine cannot be built: {lines[0][-300:]}",
                code="no-build",
                hint="apt-get install --no-install-recommends libc6-dev-arm64-cross",
            )
        with path.open("wb") as file:
            archive = Archive(file)
            for folder in ("proc", "dev", "sys", "tmp"):
                archive.folder(folder)
            archive.device("dev/console", 5, 1)
            archive.file("init", binary.read_bytes(), executable=True)
            archive.end()


def emulated(kernel: Kernel, progress: Callable[[object], None]) -> Machine:
    """Return a machine with one line."""
    return PkvmMachine(kernel, program={}, board=VIRT, progress=progress)


def served(kernel: Kernel, line: Path) -> list[str]:
    """Return the command that serves the line as an implementation under test, over standard input and output."""
    profile = profile_of(kernel.version)
    command = [sys.executable, "-m", "hvabi.evidence.live.pkvm_iut", str(line), kernel.release]
    return [*command, *([profile] if profile else [])]


class Vm:
    """The line to the machine's program: words and numbers there and back. A context manager.

    Raises `LiveError` ``no-answer`` where the machine does not answer, ``refused`` with an errno where it cannot do it.
    """

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_SECONDS)
        self._rest = b""
        try:
            self._socket.connect(str(path))
        except OSError as error:
            raise LiveError(f"the machine does not answer: {error}", code="no-answer") from error

    def __enter__(self) -> Vm:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def ask(self, word: str, *numbers: int) -> tuple[str, tuple[int, ...]]:
        """Give an order; return the first word and the numbers of the answer, also where it is ``err``."""
        try:
            self._socket.sendall(" ".join([word, *(f"{number:x}" for number in numbers)]).encode() + b"\n")
            while not (line := self._line()).startswith("> "):
                pass
            first, *rest = line[2:].split()
            return first, tuple(int(number, 16) for number in rest)
        except (OSError, ValueError) as error:
            raise LiveError(f"the machine does not answer: {error or 'nothing came'}", code="no-answer") from error

    def do(self, word: str, *numbers: int) -> tuple[int, ...]:
        """Give an order that has to be done; return the numbers of its answer."""
        first, found = self.ask(word, *numbers)
        if first not in ("ok", "ret"):
            raise LiveError(f"the machine cannot do {word}: {first} {' '.join(map(hex, found))}", code="refused")
        return found

    def _line(self) -> str:
        while b"\n" not in self._rest:
            data = self._socket.recv(_LONGEST)
            if not data or len(self._rest) > _LONGEST:
                raise LiveError("the machine does not answer any more", code="no-answer")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode("ascii", "replace").strip()
