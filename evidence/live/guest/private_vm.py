"""A KVM guest with private memory of its own: it reads, writes and calls where it is told. Standard library only.

Numbers here are KVM's general API (linux/kvm.h); those of the ABI under test come in as parameters.
"""

import contextlib
import ctypes
import fcntl
import mmap
import os
import signal
import struct

import vcpu

KVM_SET_USER_MEMORY_REGION2 = 0x40A0AE49
KVM_CREATE_GUEST_MEMFD = 0xC040AED4
KVM_MEM_GUEST_MEMFD = 1 << 2
DEFAULT_VM, SW_PROTECTED_VM = 0, 1
EXIT_MMIO = 6
PAGE = 4096
TOP = 1 << 40
"""First address that a guest in QEMU's emulation cannot have."""

# The guest's own page: far from every address of a test, so that no conversion takes the ground from under it.
BASE = 0x7000000000
CODE, PML4, PDPT, LIST, FOUND, SIZE = 0, 0x1000, 0x2000, 0x10000, 0x20000, 0x30000
MOST = (FOUND - LIST) // 8
OUT = bytes((0xE6, vcpu.PORT, 0xF4))
# rsi: a list of addresses, rdi: where their words go, rcx: how many. Then the same for one write.
READ = bytes.fromhex("488b06 488b00 488907 4883c608 4883c708 48ffc9 75ea") + OUT
WRITE = bytes.fromhex("488907") + OUT

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
libc.ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)
PROT_READ, PROT_WRITE, MAP_PRIVATE, MAP_ANONYMOUS, MAP_NORESERVE = 1, 2, 2, 0x20, 0x4000


class Area:
    """Memory of this process that can be given back, which KVM's slots are made of."""

    def __init__(self, size, protection=PROT_READ | PROT_WRITE):
        self.size = size
        self.address = libc.mmap(None, size, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        if self.address in (None, ctypes.c_void_p(-1).value):
            raise OSError(ctypes.get_errno(), "mmap")

    def put(self, offset, data):
        ctypes.memmove(self.address + offset, data, len(data))

    def get(self, offset, size):
        return ctypes.string_at(self.address + offset, size)

    def close(self):
        libc.munmap(self.address, self.size)


class Slot:
    """A memory slot: shared memory, and private memory where there is a file for it."""

    def __init__(self, number, gpa, size, private):
        self.number, self.gpa, self.size, self.private = number, gpa, size, private
        self.area = Area(size)

    def holds(self, gpa):
        return self.gpa <= gpa < self.gpa + self.size

    def close(self):
        self.area.close()
        if self.private is not None:
            os.close(self.private)


class PrivateVm(vcpu.Guest):
    """One VM with one vCPU in 64-bit mode.

    Args:
        parameters: numbers of the ABI under test.
        slots: memory, as ``(gpa, bytes, whether it can be private)``.
        kind: SW_PROTECTED_VM or DEFAULT_VM.

    """

    def __init__(self, parameters, slots=(), kind=SW_PROTECTED_VM, device="/dev/kvm"):
        self.parameters = parameters
        self.slots = []
        self.kvm = os.open(device, os.O_RDWR | os.O_CLOEXEC)
        self.vm = fcntl.ioctl(self.kvm, vcpu.KVM_CREATE_VM, kind)
        self.own = self.add(BASE, SIZE, private=False)
        for gpa, size, private in slots:
            self.add(gpa, size, private)
        self.vcpu = fcntl.ioctl(self.vm, vcpu.KVM_CREATE_VCPU, 0)
        self.run_page = mmap.mmap(self.vcpu, fcntl.ioctl(self.kvm, vcpu.KVM_GET_VCPU_MMAP_SIZE, 0))
        self._cpuid()
        self.first = self._get(vcpu.KVM_GET_SREGS, 312)
        self._mode = None
        self._map()
        signal.signal(signal.SIGALRM, lambda *_: None)  # so that KVM_RUN returns

    def close(self):
        """Give everything back."""
        self.run_page.close()
        for handle in (self.vcpu, self.vm, self.kvm):
            with contextlib.suppress(OSError):
                os.close(handle)
        for slot in self.slots:
            slot.close()

    # -- memory -------------------------------------------------------------------------------------------------

    def add(self, gpa, size, private):
        """Add a slot. Raises OSError."""
        number = max((slot.number for slot in self.slots), default=-1) + 1
        file = None
        if private:
            request = bytearray(struct.pack("<QQ48x", size, 0))
            file = fcntl.ioctl(self.vm, KVM_CREATE_GUEST_MEMFD, request)
        slot = Slot(number, gpa, size, file)
        self.slots.append(slot)
        self._region(slot, size)
        return slot

    def remove(self, slot):
        """Take a slot away."""
        self._region(slot, 0)
        self.slots.remove(slot)
        slot.close()

    def _region(self, slot, size):
        flags = KVM_MEM_GUEST_MEMFD if slot.private is not None else 0
        file = slot.private if slot.private is not None else 0
        request = struct.pack("<IIQQQQI116x", slot.number, flags, slot.gpa, size, slot.area.address, 0, file)
        # Longer than fcntl takes as bytes.
        fcntl.ioctl(self.vm, KVM_SET_USER_MEMORY_REGION2, bytearray(request))

    def slot_of(self, gpa):
        """Return the slot of an address, or None."""
        return next((slot for slot in self.slots if slot.holds(gpa)), None)

    def host_write(self, gpa, data):
        """Write as the host: into the shared memory of a slot."""
        slot = self.slot_of(gpa)
        slot.area.put(gpa - slot.gpa, data)

    def host_read(self, gpa, size):
        """Read as the host."""
        slot = self.slot_of(gpa)
        return slot.area.get(gpa - slot.gpa, size)

    def set_attributes(self, argument):
        """Make the call under test with the address of a structure; returns 0 or a negative errno."""
        result = libc.ioctl(self.vm, self.parameters["set_attributes"], argument)
        return result if result >= 0 else -ctypes.get_errno()

    # -- the guest ----------------------------------------------------------------------------------------------

    def read(self, pages):
        """Let the guest read the first word of each address; returns the words, or None and what ended the run."""
        out = []
        for start in range(0, len(pages), MOST):
            part = pages[start : start + MOST]
            self.own.area.put(LIST, struct.pack(f"<{len(part)}Q", *part))
            self.begin(READ, rsi=BASE + LIST, rdi=BASE + FOUND, rcx=len(part))
            end, page = self.go()
            if end != "done":
                return None, (end, page)
            out += struct.unpack(f"<{len(part)}Q", self.own.area.get(FOUND, 8 * len(part)))
        return out, None

    def begin(self, code, **regs):
        """Set the vCPU before some code."""
        self.own.area.put(CODE, code)
        values = dict.fromkeys(vcpu.REGISTERS, 0)
        values.update(regs, rip=BASE + CODE, rflags=vcpu.RFLAGS)
        self._set(vcpu.KVM_SET_REGS, vcpu._REGS.pack(*(values[name] for name in vcpu.REGISTERS)))

    def go(self, seconds=20):
        """Run on. Returns what ended it (``done``, ``exit``, ``fault``, ``mmio``) and the head of the run page."""
        signal.alarm(seconds)
        errno = 0
        try:
            fcntl.ioctl(self.vcpu, vcpu.KVM_RUN, 0)
        except InterruptedError:
            raise vcpu.Timeout from None
        except OSError as error:
            errno = error.errno
        finally:
            signal.alarm(0)
        page = bytes(self.run_page[: self.parameters["run_size"]])
        reason = struct.unpack_from("<I", page, 8)[0]
        if errno:
            if reason != self.parameters["exit_memory_fault"]:
                raise vcpu.Ended(f"KVM_RUN: {os.strerror(errno)}, exit {reason}")
            self.errno = errno
            return "fault", page
        kinds = {vcpu.EXIT_IO: "done", self.parameters["exit_hypercall"]: "exit", EXIT_MMIO: "mmio"}
        if reason not in kinds:
            raise vcpu.Ended(f"KVM exit {reason}")
        return kinds[reason], page

    def _map(self):
        """Map every address that there is one to one, in pages of 1 GiB."""
        tables = b"".join(struct.pack("<Q", BASE + PDPT + PAGE * n | 7) for n in range(2))
        self.own.area.put(PML4, tables)
        self.own.area.put(PDPT, b"".join(struct.pack("<Q", n << 30 | 0x87) for n in range(1024)))
        self._enter("long", 0)
        sregs = bytearray(self._get(vcpu.KVM_GET_SREGS, 312))
        struct.pack_into("<Q", sregs, 224 + 16, BASE + PML4)  # cr3
        self._set(vcpu.KVM_SET_SREGS, bytes(sregs))
