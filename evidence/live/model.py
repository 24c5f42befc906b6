"""KVM with private memory, put together from the bundled adapters: what a real one is compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvabi.abi.registry import load
from hvabi.adapters.bridge import SCRATCH
from hvabi.adapters.registry import guest_class, host_class
from hvabi.adapters.values import GuestCall, VmmReply
from hvabi.backend import GPA_PAGES, PAGE_SHIFT, Backend, PageState
from hvabi.evidence.live.chain import ATTRIBUTES, CALL, FAULT, End

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hvabi.adapters.host import HostCall

_RUN = 104
"""Bytes of the run page: those of the longest exit."""
_DEFAULT_VM = "linux-kvm-default-vm"
"""The profile of a VM without private memory."""


class Model:
    """A VM made of adapters, see `Kernel`.

    Which pages are private is what the host of `kvm-memory-attributes` says; the exit of a hypercall is that of
    `kvm-map-gpa-range`, a memory fault that of the guest of `kvm-exit-memory-fault`. A page has two memories, as
    `contents` of the specification says.

    Args:
        call: profile of `kvm-map-gpa-range`.
        attributes: profile of `kvm-memory-attributes`, for a VM with private memory.

    """

    def __init__(self, *, call: str, attributes: str) -> None:
        self._profiles = (call, attributes)

    def open(self, slots: tuple[tuple[int, int, bool], ...], *, protected: bool) -> None:
        """Make a VM: everything is shared."""
        call, attributes = self._profiles
        spec = load(ATTRIBUTES, profile=attributes if protected else _DEFAULT_VM)
        self._attributes = host_class(ATTRIBUTES)(spec, backend=Backend(facts=spec.abi.facts))
        self._attributes.backend.reset(ranges=[(0, GPA_PAGES, PageState.SHARED)])
        self._call = host_class(CALL)(load(CALL, profile=call))
        self._slots = slots
        self._memory: dict[tuple[PageState, int], int] = {}
        self._devices: set[int] = set()
        self._waiting: Callable[[], End] | None = None
        self._exit: HostCall | None = None

    def check(self, capability: int) -> int:
        """Answer for the one capability of the ABI."""
        assert capability == self._attributes.abi.constants["KVM_CAP_MEMORY_ATTRIBUTES"].value
        return int(self._attributes.config["supported"])

    def read(self, gpa: int) -> End:
        """Read a word, of the memory that the page has now."""
        return self._touch(gpa, lambda state: self._memory.get((state, gpa), 0))

    def write(self, gpa: int, value: int) -> End:
        """Write a word."""

        def put(state: PageState) -> int:
            self._memory[state, gpa] = value
            return value

        return self._touch(gpa, put)

    def hypercall(self, regs: Mapping[str, int]) -> End:
        """Make a hypercall."""
        self._exit = self._call.call(regs, exits=True)
        return self._further(lambda call: next(call))

    def go(self, mem: tuple[tuple[int, bytes], ...]) -> End:
        """Go on with what was interrupted."""
        if self._waiting is not None:
            return self._waiting()
        return self._further(lambda call: call.send(VmmReply(mem=mem)))

    def set_attributes(self, data: bytes) -> int:
        """Make the ioctl."""
        constants = self._attributes.abi.constants
        place = SCRATCH[0] << PAGE_SHIFT
        self._attributes.memory.poke(place, data)
        answer = self._attributes.answer({"cmd": constants["KVM_SET_MEMORY_ATTRIBUTES"].value, "arg": place})
        return answer.regs["ret"]

    def host_read(self, gpa: int) -> int:
        """Read a word of the shared memory."""
        return self._memory.get((PageState.SHARED, gpa), 0)

    def host_write(self, gpa: int, value: int) -> None:
        """Write a word of the shared memory."""
        self._memory[PageState.SHARED, gpa] = value

    def _further(self, step: Callable[[HostCall], object]) -> End:
        if self._exit is None:
            return End(kind="stop", reason="there is nothing to go on with")
        try:
            request = step(self._exit)
        except StopIteration as end:
            self._exit = None
            return End(kind="done", rax=end.value.regs["rax"])
        page = bytearray(_RUN)
        for at, data in request.mem:  # type: ignore[attr-defined]  # a VmmRequest
            page[at : at + len(data)] = data
        return End(kind="exit", page=bytes(page))

    def _touch(self, gpa: int, access: Callable[[PageState], int]) -> End:
        state = self._attributes.backend.state_at(gpa >> PAGE_SHIFT)
        page = gpa >> PAGE_SHIFT
        slot = next((slot for slot in self._slots if slot[0] <= gpa < slot[0] + slot[1]), None)
        self._waiting = lambda: self._touch(gpa, access)
        # A change of attributes unmaps only what slots hold (Linux 6.12.117 kvm_main.c, kvm_handle_gfn_range()), and an
        # access that meets a page mapped as a device's counts as shared (mmu.c, kvm_mmu_page_fault()).
        if state is PageState.PRIVATE and (slot is None or not slot[2]) and page not in self._devices:
            return self._fault(gpa)
        self._waiting = None
        if slot is None:
            self._devices.add(page)
            self._waiting = lambda: End(kind="done")
            return End(kind="mmio")
        return End(kind="done", rax=access(state))

    @staticmethod
    def _fault(gpa: int) -> End:
        """Return the exit of a page that is private and has no private memory."""
        guest = guest_class(FAULT)(load(FAULT))
        shown = next(guest.convert(gpa >> PAGE_SHIFT << PAGE_SHIFT, 1, PageState.PRIVATE))
        assert isinstance(shown, GuestCall)  # this ABI has no local steps
        page = bytearray(_RUN)
        for at, data in shown.mem:
            page[at : at + len(data)] = data
        return End(kind="fault", ret=shown.regs["ret"], page=bytes(page))
