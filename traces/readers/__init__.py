"""The readers of trace formats: one module for the lines of one program, or of a few that are alike.

`READERS` lists them. A line is offered to those of whose marks it has one, in this order; the first that knows it
has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvabi.traces.readers.edk2 import Edk2Reader
from hvabi.traces.readers.kvm import KvmReader
from hvabi.traces.readers.messages import MessagesReader
from hvabi.traces.readers.ndjson import NdjsonReader
from hvabi.traces.readers.page_enc_status import PageEncStatusReader
from hvabi.traces.readers.qemu import QemuReader
from hvabi.traces.readers.vmms import OpenVmmReader, RustVmmReader

if TYPE_CHECKING:
    from hvabi.traces.readers.base import LineReader

READERS: dict[str, type[LineReader]] = {
    reader.name: reader
    for reader in (
        PageEncStatusReader,
        KvmReader,
        QemuReader,
        Edk2Reader,
        RustVmmReader,
        OpenVmmReader,
        MessagesReader,
        NdjsonReader,
    )
}
"""Every reader by name."""

LAYERS: dict[str, int] = {
    "edk2-sev": 0,
    "edk2-snp": 1,
    "edk2-tdx": 1,
    "page-enc-status": 2,
    "kvm_hypercall": 2,
    "vmgexit-msr": 2,
    "qemu-hypercall": 3,
    "qemu-fault": 3,
    "qemu-convert": 4,
    "cloud-hypervisor": 3,
    "cloud-hypervisor-fault": 3,
    "cloud-hypervisor-mshv": 3,
    "rust-vmm-fault": 3,
    "openvmm": 3,
}
"""Where each kind of line of a call is printed on the way from the guest's page table (0) down to the host's work (4).

The same conversion may be printed at several of them.
"""

__all__ = ["LAYERS", "READERS"]
