"""Linux's KVM on x86 as an implementation under test: what its program needs to know, and where it can run."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hvabi.abi.registry import bundled, load
from hvabi.evidence.live.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from hvabi.abi.specification import Abi
    from hvabi.evidence.live.kernels import Kernel

ABI = "kvm-map-gpa-range"
_EXIT = "kvm-exit-hypercall"
IMPORTS = ("contextlib", "ctypes", "fcntl", "json", "mmap", "os", "signal", "struct", "sys", "tty", "termios")
_FILES = ("kvm_iut.py", "vcpu.py")
MODES_32 = ("prot32", "compat", "real")
DEVICE = Path("/dev/kvm")
_PROBE_SECONDS = 30


def profile_of(version: tuple[int, int]) -> str | None:
    """Return the profile of the newest kernel that is not newer than a version, or None before the first."""
    return newest_profile(bundled(ABI), version)


def newest_profile(abi: Abi, version: tuple[int, int]) -> str | None:
    """Return the profile ``linux-kvm-VERSION`` of the newest kernel that is not newer than a version, or None."""
    known = {}
    for name in abi.profiles:
        vendor, _, number = name.rpartition("-")
        if vendor == "linux-kvm":
            major, _, minor = number.partition(".")
            known[int(major), int(minor)] = name
    older = [number for number in known if number <= version]
    return known[max(older)] if older else None


def parameters(version: tuple[int, int] | None, mode_32: str) -> dict[str, Any]:
    """Return what the program inside the machine takes from the specifications."""
    spec, run = load(ABI), load(_EXIT)
    constants = {name: item.value for name, item in {**run.abi.constants, **spec.abi.constants}.items()}
    layout = run.abi.layouts["kvm-run-hypercall"]
    return {
        "abi": ABI,
        "revisions": list(spec.abi.revisions),
        "config": list(spec.abi.config),
        "profile": None if version is None else profile_of(version),
        "mode32": mode_32,
        "exit_abi": _EXIT,
        "nr": constants["KVM_HC_MAP_GPA_RANGE"],
        "capability": constants["KVM_CAP_EXIT_HYPERCALL"],
        "enable_cap": constants["KVM_ENABLE_CAP"],
        "exit_hypercall": constants["KVM_EXIT_HYPERCALL"],
        "run_size": layout.size,
        "ret_offset": layout.fields["ret"].at,
        "refused": -constants["EINVAL"],
        "unknown": -constants["KVM_ENOSYS"],
    }


def program() -> dict[str, bytes]:
    """Return the files of the program, the one to run first."""
    folder = files("hvabi.evidence.live.guest")
    return {name: (folder / name).read_bytes() for name in _FILES}


def native_reason() -> str | None:
    """Return why the machine's own /dev/kvm is of no use, or None where three known calls are answered right."""
    if not DEVICE.exists():
        return "there is no /dev/kvm"
    with native(None, MODES_32[0]) as command:
        try:
            result = subprocess.run(
                [*command, "--probe"], capture_output=True, text=True, timeout=_PROBE_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return f"/dev/kvm did not answer within {_PROBE_SECONDS} s"
    if result.returncode == 0:
        return None
    words = (result.stdout or result.stderr).strip().splitlines()
    return f"/dev/kvm is not usable: {words[-1] if words else f'exit code {result.returncode}'}"


@contextmanager
def native(version: tuple[int, int] | None, mode_32: str) -> Iterator[list[str]]:
    """Lay the program out for this machine; yields the command that serves it over standard input and output."""
    with tempfile.TemporaryDirectory(prefix="hvabi-live-") as folder:
        for name, data in program().items():
            (Path(folder) / name).write_bytes(data)
        settings = Path(folder, "parameters.json")
        settings.write_text(json.dumps(parameters(version, mode_32)))
        yield [sys.executable, "-I", str(Path(folder, _FILES[0])), str(settings)]


def emulated(kernel: Kernel, modes_32: Sequence[str], progress: Callable[[object], None]) -> Machine:
    """Return a machine in which the kernel's own KVM answers, on one serial line per kind of 32-bit mode."""
    settings = {
        f"parameters{number}.json": json.dumps(parameters(kernel.version, mode)).encode()
        for number, mode in enumerate(modes_32, 1)
    }
    words = [word for number in range(1, len(modes_32) + 1) for word in (f"parameters{number}.json", f"ttyS{number}")]
    return Machine(
        kernel,
        modules=("kvm", "kvm_amd"),
        program={**program(), **settings},
        words=[f"/dev/{word}" if word.startswith("ttyS") else f"/program/{word}" for word in words],
        imports=IMPORTS,
        count=len(modes_32),
        progress=progress,
    )
