"""A VM as its VMM has it, step by step: the guest is told what to touch and call, and every exit is shown.

The lines are framed as hvabi's protocol frames them; the commands are this bench's own. Standard library only.
"""

import kvm_iut
import private_vm
import vcpu
from kvm_iut import Refusal


class Session(kvm_iut.Session):
    """One conversation with a VMM that sits outside."""

    def do_hello(self, command):
        return {"ok": {"bench": 1}}

    def do_open(self, command):
        """Make a VM: ``kind`` 1 has private memory, ``slots`` are gpa, bytes, and whether they can be private."""
        self._drop()
        slots = [(int(gpa, 0), int(size, 0), private) for gpa, size, private in command["slots"]]
        self.guest = private_vm.PrivateVm(self.parameters, slots, command["kind"])
        self.guest.enable(self.parameters["capability"], 1 << self.parameters["nr"])
        return {"ok": {}}

    def do_check(self, command):
        """Ask KVM_CHECK_EXTENSION of the VM."""
        return {"ok": {"value": hex(self._vm().check(int(command["capability"], 0)))}}

    def do_read(self, command):
        """Let the guest read a word."""
        vm = self._vm()
        vm.own.area.put(private_vm.LIST, int(command["gpa"], 0).to_bytes(8, "little"))
        vm.begin(private_vm.READ, rsi=private_vm.BASE + private_vm.LIST, rdi=private_vm.BASE + private_vm.FOUND, rcx=1)
        return self._go()

    def do_write(self, command):
        """Let the guest write a word."""
        self._vm().begin(private_vm.WRITE, rdi=int(command["gpa"], 0), rax=int(command["value"], 0))
        return self._go()

    def do_hypercall(self, command):
        """Let the guest make a hypercall."""
        regs = {name: int(value, 0) for name, value in command["regs"].items()}
        self._vm().begin(vcpu.CALLS[self.call] + private_vm.OUT, **regs)
        return self._go()

    def do_go(self, command):
        """Write into the run page and let the guest go on."""
        for offset, data in command.get("mem") or ():
            self._vm().answer(int(offset, 0), bytes.fromhex(data))
        return self._go()

    def do_set(self, command):
        """Call KVM_SET_MEMORY_ATTRIBUTES."""
        return {"ok": {"ret": hex(self._vm().set_attributes(bytes.fromhex(command["data"])) % 2**64)}}

    def do_host_read(self, command):
        """Read a word as the host."""
        return {"ok": {"value": self._vm().host_read(int(command["gpa"], 0), 8).hex()}}

    def do_host_write(self, command):
        """Write a word as the host."""
        self._vm().host_write(int(command["gpa"], 0), bytes.fromhex(command["data"]))
        return {"ok": {}}

    def _vm(self):
        if self.guest is None:
            raise Refusal("error", "there is no VM: `open` comes first")
        return self.guest

    def _go(self):
        vm = self._vm()
        try:
            end, page = vm.go()
        except vcpu.Ended as ended:
            return {"ok": {"end": "stop", "reason": ended.reason}}
        if end == "done":
            regs = vm.registers()
            return {"ok": {"end": "done", "rax": hex(regs["rax"])}}
        ret = -vm.errno if end == "fault" else 0
        return {"ok": {"end": end, "ret": hex(ret % 2**64), "page": page.hex()}}
