"""A KVM guest of a few instructions: it makes the hypercall that it is told and stops. Standard library only.

Numbers here are KVM's general API (linux/kvm.h); those of the ABI under test come in as parameters.
"""

import contextlib
import ctypes
import fcntl
import mmap
import os
import signal
import struct

KVM_CREATE_VM = 0xAE01
KVM_CHECK_EXTENSION = 0xAE03
KVM_GET_VCPU_MMAP_SIZE = 0xAE04
KVM_GET_SUPPORTED_CPUID = 0xC008AE05
KVM_CREATE_VCPU = 0xAE41
KVM_SET_USER_MEMORY_REGION = 0x4020AE46
KVM_RUN = 0xAE80
KVM_GET_REGS, KVM_SET_REGS = 0x8090AE81, 0x4090AE82
KVM_GET_SREGS, KVM_SET_SREGS = 0x8138AE83, 0x4138AE84
KVM_SET_CPUID2 = 0x4008AE90
EXIT_IO = 2

REGISTERS = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp", *(f"r{n}" for n in range(8, 16)), "rip", "rflags")
_REGS = struct.Struct("<18Q")
_SEGMENT = struct.Struct("<QIH8B2B")
_TABLE = struct.Struct("<QH6x")
_TAIL = struct.Struct("<7Q32x")

MEMORY = 1 << 20
CODE, PML4, PDPT, PD = 0x1000, 0x2000, 0x3000, 0x4000
PORT = 0x10
CALLS = {"vmcall": b"\x0f\x01\xc1", "vmmcall": b"\x0f\x01\xd9"}
CR0_PE, CR0_ET, CR0_PG = 1, 1 << 4, 1 << 31
CR4_PAE = 1 << 5
EFER_LME, EFER_LMA = 1 << 8, 1 << 10
RFLAGS = 2 | 3 << 12  # IOPL 3: OUT is allowed at every privilege

MODES = ("long", "prot32", "compat", "real")


class Timeout(Exception):
    """KVM_RUN did not come back."""


class Ended(Exception):
    """The guest left by an exit that no answer belongs to."""

    def __init__(self, reason):
        super().__init__(reason)
        self.reason = reason


def instruction():
    """Return the hypercall instruction of this processor's vendor."""
    with open("/proc/cpuinfo") as info:
        text = info.read(4096)
    return "vmmcall" if "AuthenticAMD" in text or "HygonGenuine" in text else "vmcall"


class Guest:
    """One VM with one vCPU.

    Args:
        parameters: `run_size`, bytes of the run page that belong to the exit.
        device: KVM's device.

    """

    def __init__(self, parameters, device="/dev/kvm"):
        self.parameters = parameters
        self.kvm = os.open(device, os.O_RDWR | os.O_CLOEXEC)
        self.vm = fcntl.ioctl(self.kvm, KVM_CREATE_VM, 0)
        self.memory = mmap.mmap(-1, MEMORY)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        fcntl.ioctl(self.vm, KVM_SET_USER_MEMORY_REGION, struct.pack("<IIQQQ", 0, 0, 0, MEMORY, address))
        self.vcpu = fcntl.ioctl(self.vm, KVM_CREATE_VCPU, 0)
        self.run_page = mmap.mmap(self.vcpu, fcntl.ioctl(self.kvm, KVM_GET_VCPU_MMAP_SIZE, 0))
        self._cpuid()
        self.first = self._get(KVM_GET_SREGS, 312)
        self._tables()
        self._mode = None
        signal.signal(signal.SIGALRM, lambda *_: None)  # so that KVM_RUN returns

    def close(self):
        """Give everything back. Memory that KVM pins goes with the process."""
        for handle in (self.vcpu, self.vm, self.kvm):
            with contextlib.suppress(OSError):
                os.close(handle)

    def check(self, capability):
        """Return what KVM_CHECK_EXTENSION answers."""
        return fcntl.ioctl(self.vm, KVM_CHECK_EXTENSION, capability)

    def enable(self, capability, mask):
        """Enable a capability of the VM with args[0]. Raises OSError."""
        fcntl.ioctl(self.vm, self.parameters["enable_cap"], struct.pack("<II4Q64x", capability, 0, mask, 0, 0, 0))

    def start(self, mode, cpl, regs, call):
        """Set the vCPU before a hypercall."""
        self._enter(mode, cpl)
        self.memory[CODE : CODE + 6] = CALLS[call] + bytes((0xE6, PORT, 0xF4))
        values = dict.fromkeys(REGISTERS, 0)
        values.update({name: value for name, value in regs.items() if name in values})
        values.update(rip=CODE, rflags=RFLAGS)
        self._set(KVM_SET_REGS, _REGS.pack(*(values[name] for name in REGISTERS)))

    def run(self, seconds=10):
        """Run until the guest has its answer or user space is asked.

        Returns the bytes of the run page for an exit of a hypercall, or None where the guest reports. Raises
        `Ended` for any other exit, `Timeout` where there is none.
        """
        signal.alarm(seconds)
        try:
            fcntl.ioctl(self.vcpu, KVM_RUN, 0)
        except InterruptedError:
            raise Timeout from None
        except OSError as error:
            raise Ended(f"KVM_RUN: {os.strerror(error.errno)}") from error
        finally:
            signal.alarm(0)
        reason = struct.unpack_from("<I", self.run_page, 8)[0]
        if reason == self.parameters["exit_hypercall"]:
            return bytes(self.run_page[: self.parameters["run_size"]])
        if reason == EXIT_IO:
            return None
        raise Ended(f"KVM exit {reason}")

    def answer(self, offset, data):
        """Write user space's answer into the run page."""
        self.run_page[offset : offset + len(data)] = data

    def registers(self):
        """Return the registers."""
        return dict(zip(REGISTERS, _REGS.unpack(self._get(KVM_GET_REGS, _REGS.size)), strict=True))

    # -- state of the processor ---------------------------------------------------------------------------------

    def _cpuid(self):
        entries = 256
        table = bytearray(struct.pack("<II", entries, 0) + bytes(40 * entries))
        fcntl.ioctl(self.kvm, KVM_GET_SUPPORTED_CPUID, table)
        fcntl.ioctl(self.vcpu, KVM_SET_CPUID2, table)  # a bytearray: bytes may have 1024 at most

    def _tables(self):
        """Map the first GiB one to one, for every privilege, in pages of 2 MiB."""
        self.memory[PML4 : PML4 + 8] = struct.pack("<Q", PDPT | 7)
        self.memory[PDPT : PDPT + 8] = struct.pack("<Q", PD | 7)
        self.memory[PD : PD + 4096] = b"".join(struct.pack("<Q", n << 21 | 0x87) for n in range(512))

    def _enter(self, mode, cpl):
        if self._mode == (mode, cpl):
            return
        self._mode = (mode, cpl)
        sregs = bytearray(self.first)
        real, paged = mode == "real", mode in ("long", "compat")
        limit, wide = (0xFFFF, 0) if real else (0xFFFFFFFF, 1)
        selector = 0 if real else 0x8 | cpl
        code = _SEGMENT.pack(0, limit, selector, 0xB, 1, cpl, wide and mode != "long", 1, mode == "long", wide, 0, 0, 0)
        data = _SEGMENT.pack(0, limit, 0 if real else 0x10 | cpl, 0x3, 1, cpl, wide, 1, 0, wide, 0, 0, 0)
        task = _SEGMENT.pack(0, 0xFFFF, 0, 0xB, 1, 0, 0, 0, 0, 0, 0, 0, 0)
        none = _SEGMENT.pack(0, 0xFFFF, 0, 0x2, 1, 0, 0, 0, 0, 0, 0, 0, 0)
        sregs[:192] = code + data * 5 + task + none
        sregs[192:224] = _TABLE.pack(0, 0) * 2
        cr0 = CR0_ET | (0 if real else CR0_PE) | (CR0_PG if paged else 0)
        values = list(_TAIL.unpack(sregs[224:]))
        values[0], values[2] = cr0, PML4 if paged else 0
        values[3], values[5] = (CR4_PAE, EFER_LME | EFER_LMA) if paged else (0, 0)
        sregs[224:280] = struct.pack("<7Q", *values)
        self._set(KVM_SET_SREGS, bytes(sregs))

    def _get(self, request, size):
        return fcntl.ioctl(self.vcpu, request, bytes(size))

    def _set(self, request, data):
        fcntl.ioctl(self.vcpu, request, data)
