"""The agent of examples/agent in guests of a real KVM: two virtual machines of a booted kernel, on two serial lines."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from hvabi.abi.registry import load
from hvabi.evidence.live import kvm
from hvabi.evidence.live.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Callable

    from hvabi.evidence.live.kernels import Kernel

_IMPORTS = (
    "contextlib",
    "ctypes",
    "fcntl",
    "json",
    "mmap",
    "os",
    "select",
    "signal",
    "struct",
    "sys",
    "tty",
    "termios",
)
_FILES = ("agent_vmm.py", "vcpu.py")
HOSTS = ("hypercall on", "hypercall off")
"""What the virtual machines are, in the order of the lines: one with KVM_CAP_EXIT_HYPERCALL enabled, one without."""


def parameters(version: tuple[int, int], *, enabled: bool) -> dict[str, Any]:
    """Return what the VMM inside the machine takes from the specifications.

    Each of the two guests is entered in another way, so that both ways are used.
    """
    constants = load(kvm.ABI).abi.constants
    return {
        **kvm.parameters(version, kvm.MODES_32[0]),
        "enabled": enabled,
        "entry64": not enabled,
        "feature": constants["KVM_FEATURE_HC_MAP_GPA_RANGE"].value,
    }


def emulated(kernel: Kernel, elf: bytes, progress: Callable[[object], None]) -> Machine:
    """Return a machine whose KVM runs the agent twice, on the lines as in `HOSTS`.

    Args:
        kernel: what to boot.
        elf: the agent, an ELF file of 64 bits with an entry for PVH.
        progress: told what is going on.

    """
    folder = files("hvabi.evidence.live.guest")
    settings = {
        f"agent{number}.json": json.dumps(parameters(kernel.version, enabled=enabled)).encode()
        for number, enabled in enumerate((True, False), 1)
    }
    return Machine(
        kernel,
        modules=("kvm", "kvm_amd"),
        program={**{name: (folder / name).read_bytes() for name in _FILES}, **settings, "agent.elf": elf},
        words=[word for number in (1, 2) for word in (f"/program/agent{number}.json", f"/dev/ttyS{number}")],
        imports=_IMPORTS,
        count=len(HOSTS),
        progress=progress,
    )
