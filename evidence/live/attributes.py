"""KVM_SET_MEMORY_ATTRIBUTES of a real kernel: the machine in which it answers, and what its programs need to know."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from hvabi.abi.registry import bundled, load
from hvabi.abi.specification import SPEC_PROFILE
from hvabi.evidence.live import kvm
from hvabi.evidence.live.machine import Machine
from hvabi.evidence.live.model import Model

if TYPE_CHECKING:
    from collections.abc import Callable

    from hvabi.evidence.live.kernels import Kernel

ABI = "kvm-memory-attributes"
FAULT = "kvm-exit-memory-fault"
_FILES = ("attributes_iut.py", "bench.py", "private_vm.py", "kvm_iut.py", "vcpu.py")
HOW = (
    "booted in QEMU TCG with -smp 1 -cpu max, AMD SVM emulated; kvm.ko and kvm-amd.ko built from Debian's source with "
    "CONFIG_KVM_SW_PROTECTED_VM"
)


def profile_of(version: tuple[int, int]) -> str | None:
    """Return the profile of the newest kernel that is not newer than a version, or None before the first."""
    return kvm.newest_profile(bundled(ABI), version)


def model_of(version: tuple[int, int]) -> Model:
    """Return the model of a kernel."""
    return Model(call=kvm.profile_of(version) or SPEC_PROFILE, attributes=profile_of(version) or SPEC_PROFILE)


def parameters(version: tuple[int, int] | None) -> dict[str, Any]:
    """Return what the programs inside the machine take from the specifications."""
    spec, fault = load(ABI).abi, load(FAULT).abi
    constants = {name: item.value for name, item in {**fault.constants, **spec.constants}.items()}
    fields = spec.layouts["kvm-memory-attributes"].fields
    return {
        **kvm.parameters(version, kvm.MODES_32[0]),
        "abi": ABI,
        "revisions": list(spec.revisions),
        "config": list(spec.config),
        "profile": None if version is None else profile_of(version),
        "set_attributes": constants["KVM_SET_MEMORY_ATTRIBUTES"],
        "attrs_size": constants["ATTRS_SIZE"],
        "private": constants["PRIVATE"],
        "exit_memory_fault": constants["KVM_EXIT_MEMORY_FAULT"],
        **{f"{name}_at": fields[name].at for name in ("address", "size", "attributes")},
    }


def emulated(kernel: Kernel, progress: Callable[[object], None]) -> Machine:
    """Return a machine: on its first line the ioctl as an implementation under test, on its second a bench."""
    folder = files("hvabi.evidence.live.guest")
    both = parameters(kernel.version)
    settings = {"parameters1.json": both, "parameters2.json": {**both, "bench": True}}
    return Machine(
        kernel,
        modules=("kvm", "kvm_amd"),
        program={
            **{name: (folder / name).read_bytes() for name in _FILES},
            **{name: json.dumps(value).encode() for name, value in settings.items()},
        },
        words=["/program/parameters1.json", "/dev/ttyS1", "/program/parameters2.json", "/dev/ttyS2"],
        imports=kvm.IMPORTS,
        count=2,
        progress=progress,
    )
