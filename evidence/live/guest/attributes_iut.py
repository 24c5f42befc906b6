"""KVM's memory attributes as an implementation under test, over hvabi's line protocol. Standard library only.

Usage: ``attributes_iut.py PARAMETERS.json DEVICE …``, in pairs, on serial lines, for ever. What KVM keeps is asked of
the guest itself: a page is private where its guest does not see what the host wrote into the shared memory.
"""

import ctypes
import os
import sys

import bench
import kvm_iut
import private_vm
from kvm_iut import Refusal
from private_vm import PAGE

MOST_PAGES = 1 << 18
"""Pages of one call: KVM does its work per page, and a call for more would keep it busy."""
NEAR = 2
"""Pages on both sides of what a case names that are looked at too."""
LOW = 64 << 20
"""Bytes at the bottom for which there are slots from the start; for pages above one is made to look at them."""


class Session(kvm_iut.Session):
    """One conversation about KVM_SET_MEMORY_ATTRIBUTES."""

    def __init__(self, parameters):
        super().__init__(parameters)
        self.ranges = []
        self.watched = set()
        self.buffer = private_vm.Area(2 * PAGE)
        # The second page cannot be read: a structure may end before it or lie in it.
        private_vm.libc.mprotect(ctypes.c_void_p(self.buffer.address + PAGE), PAGE, 0)

    def do_hello(self, command):
        if not command["min"] <= 1 <= command["max"]:
            raise Refusal("unsupported", "this is version 1 of the protocol")
        parameters = self.parameters
        profile = {"profile": parameters["profile"]} if parameters.get("profile") else {}
        offer = {"revisions": parameters["revisions"], "transports": ["ioctl"], "roles": ["host"], **profile}
        return {
            "ok": {
                "protocol": 1, "name": "Linux KVM", "version": f"{os.uname().release}, VM type sw-protected",
                "abis": {parameters["abi"]: offer}, "features": [],
            }
        }  # fmt: skip

    def do_configure(self, command):
        parameters, config = self.parameters, command.get("config") or {}
        checks = (("abi", [parameters["abi"]]), ("revision", parameters["revisions"]),
                  ("transport", ["ioctl"]), ("role", ["host"]))  # fmt: skip
        for key, known in checks:
            if command.get(key) not in known:
                raise Refusal("unsupported", f"KVM here has no {key} {command.get(key)!r}")
        if config.get("profile") not in (None, parameters.get("profile")):
            raise Refusal("unsupported", f"this kernel is {parameters.get('profile')}")
        for key in config:
            if key not in ("profile", "enabled", "memory", *parameters["config"]):
                raise Refusal("unsupported", f"KVM here has no {key}")
        if not config.get("enabled", True):
            raise Refusal("unsupported", "the call needs no switching on")
        supported = int(config.get("supported", hex(parameters["private"])), 0)
        if supported not in (0, parameters["private"]):
            raise Refusal("unsupported", f"no VM here has attributes {supported:#x}")
        self.protected = supported != 0
        memory = config.get("memory")
        self.memory = None if memory is None else [(int(gpa, 0), int(pages, 0) * PAGE) for gpa, pages in memory]
        self._drop()
        self.configured = {"transport": "ioctl"}
        return {"ok": {}}

    def do_reset(self, command):
        if self.configured is None:
            raise Refusal("error", "`reset` before `configure`")
        states = {"private", "shared"}
        if command.get("facts") or any(state not in states for _, _, state in command.get("ranges") or ()):
            raise Refusal("unsupported", "KVM has pages that are private or shared, and no more")
        self._drop()
        self.ranges = [(int(gpa, 0) // PAGE, int(pages, 0)) for gpa, pages, state in command.get("ranges") or ()
                       if state == "shared"]  # fmt: skip
        return {"ok": {}}

    def do_inject(self, command):
        raise Refusal("unsupported", f"KVM here cannot show {command.get('fault')!r}")

    def do_call(self, command):
        if self.configured is None:
            raise Refusal("error", "`call` before `configure`")
        parameters = self.parameters
        regs = {name: int(value, 0) for name, value in (command.get("regs") or {}).items()}
        if regs.get("cmd") != parameters["set_attributes"]:
            raise Refusal("unsupported", "another ioctl is not looked at here")
        argument, size = regs.get("arg", 0), parameters["attrs_size"]
        data = bytearray(size)
        for at, text in command.get("mem") or ():
            for offset, byte in enumerate(bytes.fromhex(text), int(at, 0) - argument):
                if 0 <= offset < size:
                    data[offset] = byte
        self._watch(data)
        found = self.guest.set_attributes(self._lay(argument, bytes(data)))
        if found == 0 and self.beyond:
            self._drop()
            raise Refusal("unsupported", "KVM does it, and a guest of this machine cannot look at pages so high")
        return {"ok": {"end": "return", "regs": {"ret": hex(found % 2**64)}, "mem": []}}

    def do_resume(self, command):
        raise Refusal("error", "`resume` without a conversation")

    def do_query(self, command):
        if not self.protected:
            raise Refusal("unsupported", "a VM without private memory has pages of one kind only")
        self._need()
        shared = runs(self._look(sorted(self.watched)))
        return {"ok": {"ranges": [[hex(first * PAGE), hex(count), "shared"] for first, count in shared], "facts": {}}}

    # -- one case -----------------------------------------------------------------------------------------------

    def _need(self):
        if self.guest is None:
            memory = [(0, LOW)] if self.memory is None else self.memory
            slots = [(gpa, min(size, LOW - gpa), self.protected) for gpa, size in memory if gpa < LOW and size]
            kind = private_vm.SW_PROTECTED_VM if self.protected else private_vm.DEFAULT_VM
            self.guest = private_vm.PrivateVm(self.parameters, slots, kind)
            self.watched = set()
            for first, count in self.ranges:
                self._see(first, count)

    def _watch(self, data):
        """Bring the pages of a request, and some around them, into the state that they are said to have."""
        self._need()
        start, size = (int.from_bytes(data[self.parameters[at] :][:8], "little") for at in ("address_at", "size_at"))
        self.beyond = start + size > private_vm.TOP
        if size // PAGE > MOST_PAGES and start + size < 2**64:
            raise Refusal("unsupported", f"KVM would be busy for long with {size // PAGE} pages")
        pages = -(-size // PAGE)
        for first, count in ((start // PAGE, min(pages, 4096)), ((start + size) // PAGE, 1)):
            self._see(first, count)

    def _see(self, first, count):
        """Watch pages; those that are new become private, but for those of `reset`."""
        if not self.protected:
            return
        top, own = private_vm.TOP // PAGE, private_vm.BASE // PAGE
        ground = range(own, own + private_vm.SIZE // PAGE)
        low, high = max(first - NEAR, 0), min(first + count + NEAR, top)
        new = {page for page in range(low, high) if page not in ground} - self.watched
        shared = {page for page in new if any(low <= page < low + size for low, size in self.ranges)}
        for run_first, run_count in runs(sorted(new - shared)):
            self._make_private(run_first * PAGE, run_count * PAGE)
        self.watched |= new

    def _make_private(self, start, size):
        data = bytearray(self.parameters["attrs_size"])
        for at, value in (("address_at", start), ("size_at", size), ("attributes_at", self.parameters["private"])):
            data[self.parameters[at] : self.parameters[at] + 8] = value.to_bytes(8, "little")
        found = self.guest.set_attributes(bytes(data))
        if found:
            raise Refusal("error", f"pages cannot be made private to begin with: {os.strerror(-found)}")

    def _lay(self, argument, data):
        """Return the address of a structure in this process, of which as much can be read as at `argument`."""
        memory = self.memory
        can = len(data) if memory is None else 0
        while can < len(data) and any(gpa <= argument + can < gpa + size for gpa, size in memory or ()):
            can += 1
        address = self.buffer.address + PAGE - can
        ctypes.memmove(address, data[:can], can)
        return address

    def _look(self, pages):
        """Return those of some pages that the guest sees as shared: where the host's word is."""
        made = [self.guest.add(first * PAGE, count * PAGE, True) for first, count in
                runs([page for page in pages if self.guest.slot_of(page * PAGE) is None])]  # fmt: skip
        for page in pages:
            self.guest.host_write(page * PAGE, mark(page).to_bytes(8, "little"))
        words, end = self.guest.read([page * PAGE for page in pages])
        for slot in made:
            self.guest.remove(slot)
        if words is None:
            raise Refusal("error", f"the guest could not look at its pages: {end[0]}, run page {end[1].hex()}")
        strange = [page for page, word in zip(pages, words, strict=True) if word not in (0, mark(page))]
        if strange:
            raise Refusal("error", f"the guest sees what nobody wrote at {strange[0] * PAGE:#x}")
        return [page for page, word in zip(pages, words, strict=True) if word]


def mark(page):
    """Return the word that the host writes into the shared memory of a page; never 0."""
    return 0x5A << 56 | page


def runs(pages):
    """Return sorted pages as runs of first page and count."""
    out = []
    for page in pages:
        if out and sum(out[-1]) == page:
            out[-1] = (out[-1][0], out[-1][1] + 1)
        else:
            out.append((page, 1))
    return out


def session(parameters):
    """Return the session that the parameters ask for."""
    return bench.Session(parameters) if parameters.get("bench") else Session(parameters)


def main(words):
    """Serve."""
    return kvm_iut.main(words, session)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
