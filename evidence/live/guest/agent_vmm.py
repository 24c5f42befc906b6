"""A VMM for hvabi's agent (examples/agent): KVM, a 16550 serial line, and a user space that agrees to every hypercall.

Standard library only. Usage: ``agent_vmm.py PARAMETERS.json DEVICE …``, in pairs: one VM for each serial line of this
machine, whose bytes are those of the VM's own serial line.
"""

import ctypes
import fcntl
import json
import mmap
import os
import select
import struct
import sys
import tty

import vcpu

KVM_CAP_COALESCED_MMIO = 15
KVM_CAP_COALESCED_PIO = 162
KVM_REGISTER_COALESCED_MMIO = 0x4010AE67
KVM_FEATURES = 0x40000001  # CPUID leaf
PT_LOAD, PT_NOTE = 1, 4
XEN_ELFNOTE_PHYS32_ENTRY = 18
START_INFO, COMMAND_LINE = 0x6000, 0x7000
START_MAGIC = 0x336EC578
PAGE = 4096
SERIAL = 0x3F8
DATA, INTERRUPTS, IDENTITY, LINE, _, STATUS = range(6)
TRIGGER = 14


class BadFile(Exception):
    """A file that is no agent."""


def read_elf(data):
    """Return the entries of an ELF file, for PVH and in 64-bit mode, and its pieces: address, bytes, size in memory."""
    if data[:6] != b"\x7fELF\x02\x01":
        raise BadFile("no ELF file of 64 bits")
    offset, size, count = struct.unpack_from("<Q", data, 32)[0], *struct.unpack_from("<HH", data, 54)
    pieces, entry = [], None
    for number in range(count):
        kind, _, at, _, address, length, whole, _ = struct.unpack_from("<IIQQQQQQ", data, offset + number * size)
        if kind == PT_LOAD:
            pieces.append((address, data[at : at + length], whole))
        elif kind == PT_NOTE and length >= 24:
            name, _, what = struct.unpack_from("<III", data, at)
            if data[at + 12 : at + 16] == b"Xen\0" and (name, what) == (4, XEN_ELFNOTE_PHYS32_ENTRY):
                entry = struct.unpack_from("<Q", data, at + 16)[0]
    if entry is None or not pieces:
        raise BadFile("no PVH entry")
    return entry, struct.unpack_from("<Q", data, 24)[0], pieces


class Serial:
    """A 16550 with its buffers: what the VM reads comes from a file descriptor, what it writes goes there."""

    def __init__(self, handle):
        self.handle = handle
        self.received = bytearray()
        self.sent = bytearray()
        self.line = 0

    def read(self, register, count):
        """Return what the VM reads. Where it has nothing to do but wait, this waits."""
        if register == DATA and not self.line & 0x80:
            out = bytes(self.received[:count])
            del self.received[:count]
            return out.ljust(count, b"\0")
        if register in (IDENTITY, STATUS):
            self._fill(wait=register == IDENTITY and not self.received)
        if register == IDENTITY:
            return bytes([0xC4 if len(self.received) >= TRIGGER else 0xCC if self.received else 0xC1])
        if register == STATUS:
            return bytes([0x61 if self.received else 0x60])
        return bytes(count)

    def write(self, register, data):
        """Take what the VM writes."""
        if register == LINE:
            self.line = data[-1]
        elif register == DATA and not self.line & 0x80:
            self.sent += data

    def flush(self):
        """Write out what was sent."""
        while self.sent:
            del self.sent[: os.write(self.handle, self.sent)]

    def _fill(self, *, wait):
        self.flush()
        if wait or len(self.received) < TRIGGER:
            ready, _, _ = select.select([self.handle], [], [], 1.0 if wait else 0)
            if ready:
                self.received += os.read(self.handle, 4096)


class Vm(vcpu.Guest):
    """One VM that runs the agent.

    Args:
        parameters: numbers from the specifications; `enabled`, whether the hypercall is, and is announced; `entry64`,
            whether the agent is entered in 64-bit mode instead of by PVH.
        elf: the agent.
        serial: its serial line.

    """

    def __init__(self, parameters, elf, serial):
        self.features = 1 << parameters["feature"] if parameters["enabled"] else 0
        super().__init__(parameters)
        self.serial = serial
        entry, entry64, pieces = read_elf(elf)
        self.extra = []
        for slot, (address, data, whole) in enumerate(pieces, 1):
            start, end = address & -PAGE, (address + whole + PAGE - 1) & -PAGE
            memory = mmap.mmap(-1, end - start)
            memory[address - start : address - start + len(data)] = data
            self._slot(slot, start, memory)
        self.memory[START_INFO : START_INFO + 56] = struct.pack(
            "<IIIIQQQQII", START_MAGIC, 1, 0, 0, 0, COMMAND_LINE, 0, 0, 0, 0
        )
        self.memory[COMMAND_LINE : COMMAND_LINE + 1] = b"\0"
        wide = parameters["entry64"]
        self._enter("long" if wide else "prot32", 0)
        values = dict.fromkeys(vcpu.REGISTERS, 0)
        values.update(rip=entry64 if wide else entry, rbx=START_INFO, rflags=2)
        self._set(vcpu.KVM_SET_REGS, vcpu._REGS.pack(*(values[name] for name in vcpu.REGISTERS)))
        if parameters["enabled"]:
            self.enable(parameters["capability"], 1 << parameters["nr"])
        self._coalesce()

    def serve(self):
        """Run for ever. Raises `vcpu.Ended`."""
        while True:
            try:
                fcntl.ioctl(self.vcpu, vcpu.KVM_RUN, 0)
            except InterruptedError:
                continue
            self._drain()
            reason = struct.unpack_from("<I", self.run_page, 8)[0]
            if reason == vcpu.EXIT_IO:
                self._port()
            elif reason == self.parameters["exit_hypercall"]:
                self.answer(self.parameters["ret_offset"], bytes(8))
            else:
                raise vcpu.Ended(f"KVM exit {reason}")

    def _port(self):
        out, size, port, count, offset = struct.unpack_from("<BBHIQ", self.run_page, 32)
        total = size * count
        known = SERIAL <= port < SERIAL + 8
        if out:
            if known:
                self.serial.write(port - SERIAL, self.run_page[offset : offset + total])
        else:
            data = self.serial.read(port - SERIAL, total) if known else b"\xff" * total
            self.run_page[offset : offset + total] = data[:total].ljust(total, b"\0")

    def _drain(self):
        """Take what was written to the data port since the last exit."""
        if self.ring is None:
            return
        first, last = struct.unpack_from("<II", self.run_page, self.ring)
        while first != last:
            at = self.ring + 8 + first * 24
            length = struct.unpack_from("<I", self.run_page, at + 8)[0]
            self.serial.write(DATA, self.run_page[at + 16 : at + 16 + length])
            first = (first + 1) % ((PAGE - 8) // 24)
        struct.pack_into("<I", self.run_page, self.ring, first)

    def _coalesce(self):
        """Let KVM gather what the VM writes to the data port, where it can: an exit for each byte is slow."""
        self.ring = None
        page = self.check(KVM_CAP_COALESCED_MMIO)
        if page and self.check(KVM_CAP_COALESCED_PIO):
            fcntl.ioctl(self.vm, KVM_REGISTER_COALESCED_MMIO, struct.pack("<QII", SERIAL, 1, 1))
            self.ring = page * PAGE

    def _slot(self, slot, address, memory):
        host = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        fcntl.ioctl(
            self.vm, vcpu.KVM_SET_USER_MEMORY_REGION, struct.pack("<IIQQQ", slot, 0, address, len(memory), host)
        )
        self.extra.append(memory)

    def _cpuid(self):
        """As KVM can do it, with KVM's own features, and the hypercall where it is enabled."""
        entries = 256
        table = bytearray(struct.pack("<II", entries, 0) + bytes(40 * entries))
        fcntl.ioctl(self.kvm, vcpu.KVM_GET_SUPPORTED_CPUID, table)
        for number in range(struct.unpack_from("<I", table)[0]):
            at = 8 + number * 40
            if struct.unpack_from("<I", table, at)[0] == KVM_FEATURES:
                value = struct.unpack_from("<I", table, at + 12)[0]
                struct.pack_into("<I", table, at + 12, value & ~(1 << self.parameters["feature"]) | self.features)
        fcntl.ioctl(self.vcpu, vcpu.KVM_SET_CPUID2, table)


def main(words):
    """Serve every pair of words."""
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "agent.elf"), "rb") as file:
        elf = file.read()
    for settings, device in zip(words[::2], words[1::2], strict=True):
        with open(settings) as file:
            parameters = json.load(file)
        if os.fork() == 0:
            try:
                handle = os.open(device, os.O_RDWR | os.O_NOCTTY)
                tty.setraw(handle)
                Vm(parameters, elf, Serial(handle)).serve()
            except (OSError, BadFile, vcpu.Ended) as error:
                print(f"HVABI AGENT {device}: {error}", flush=True)
            os._exit(1)
    print("HVABI READY", os.uname().release, flush=True)
    while True:
        os.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
