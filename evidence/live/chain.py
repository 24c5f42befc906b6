"""From the guest's hypercall to KVM's page attributes, through hvabi's adapters as the VMM in between.

A guest calls; its exit is read by the host of `kvm-exit-hypercall`, which has `kvm-memory-attributes` say to the kernel
what to do, and answers the guest by what the kernel answered. A memory fault goes the same way by
`kvm-exit-memory-fault`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

from hvabi.abi.registry import load
from hvabi.adapters.bridge import SCRATCH, Far
from hvabi.adapters.registry import guest_class, host_class
from hvabi.adapters.values import HostAnswer
from hvabi.backend import Backend, Conversion, Outcome, Status

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hvabi.adapters.host import Host
    from hvabi.adapters.values import Injection
    from hvabi.evidence.live.scenarios import Scenario, Step

ATTRIBUTES, HYPERCALL, FAULT = "kvm-memory-attributes", "kvm-exit-hypercall", "kvm-exit-memory-fault"
CALL = "kvm-map-gpa-range"
Event = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """What ended a run of the guest.

    Attributes:
        kind: ``done``, ``exit`` (a hypercall), ``fault`` (of private memory), ``mmio`` or ``stop``.
        rax: the guest's register, when done.
        ret: what KVM_RUN returned, a number of 64 bits.
        page: the head of the run page.
        reason: why, with ``stop``.

    """

    kind: str
    rax: int = 0
    ret: int = 0
    page: bytes = b""
    reason: str = ""


class Kernel(Protocol):
    """A VM as its VMM has it: a real one, or a model."""

    def open(self, slots: tuple[tuple[int, int, bool], ...], *, protected: bool) -> None:
        """Make a VM; its slots as gpa, bytes, and whether they have private memory."""

    def check(self, capability: int) -> int:
        """Ask KVM_CHECK_EXTENSION of the VM."""

    def read(self, gpa: int) -> End:
        """Let the guest read a word; it is in `rax`."""

    def write(self, gpa: int, value: int) -> End:
        """Let the guest write a word."""

    def hypercall(self, regs: Mapping[str, int]) -> End:
        """Let the guest make a hypercall."""

    def go(self, mem: tuple[tuple[int, bytes], ...]) -> End:
        """Write into the run page and let the guest go on."""

    def set_attributes(self, data: bytes) -> int:
        """Call KVM_SET_MEMORY_ATTRIBUTES; returns the result as a number of 64 bits."""

    def host_read(self, gpa: int) -> int:
        """Read a word of a slot's shared memory."""

    def host_write(self, gpa: int, value: int) -> None:
        """Write a word of a slot's shared memory."""


class _Remote:
    """The kernel in the place of a host of `kvm-memory-attributes`."""

    def __init__(self, kernel: Kernel, events: list[Event]) -> None:
        self.kernel = kernel
        self.events = events
        self.memory = self
        self._data = b""

    def poke(self, gpa: int, data: bytes) -> None:
        """Take the structure that the VMM has written."""
        self._data = data

    def answer(self, regs: Mapping[str, int], *, inject: Injection | None = None) -> HostAnswer:
        """Make the ioctl."""
        ret = self.kernel.set_attributes(self._data)
        self.events.append({"ioctl": self._data.hex(), "ret": hex(ret)})
        return HostAnswer(end="return", regs={"ret": ret})


class Vmm:
    """Does the steps of scenarios on a kernel and notes what happens.

    The words of a step: ``host-write gpa value``, ``host-read gpa`` (shared memory), ``read gpa``, ``write gpa value``,
    ``call gpa pages attributes`` (the guest), ``set address size attributes flags`` (the ioctl), ``check``, ``refuse``
    (the next conversion that the guest asks for), ``go`` (back into the guest after a fault).
    """

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.events: list[Event] = []
        self._refuse = False
        attributes = load(ATTRIBUTES)
        self.constants = {
            name: item.value for one in (load(CALL), attributes) for name, item in one.abi.constants.items()
        }
        self._ask = attributes.message("request")
        guest = guest_class(ATTRIBUTES)(attributes, scratch=SCRATCH)
        self._far = Far(guest=guest, host=cast("Host", _Remote(kernel, self.events)))
        self._near = {name: host_class(name)(load(name), backend=Backend(elsewhere=self._convert))
                      for name in (HYPERCALL, FAULT)}  # fmt: skip

    def play(self, scenario: Scenario, slots: tuple[tuple[int, int, bool], ...]) -> list[list[Event]]:
        """Return what happened at each step."""
        self.kernel.open(slots, protected=scenario.protected)
        return [self._step(step) for step in scenario.steps]

    def _step(self, step: Step) -> list[Event]:
        word, *args = step
        self.events.clear()
        getattr(self, f"_do_{word.replace('-', '_')}")(*args)
        return list(self.events)

    def _convert(self, conversion: Conversion) -> Outcome:
        if self._refuse:
            self._refuse = False
            return Outcome(Status.DENIED, 0, conversion.start)
        return self._far(conversion)

    # -- steps --------------------------------------------------------------------------------------------------

    def _do_host_write(self, gpa: int, value: int) -> None:
        self.kernel.host_write(gpa, value)

    def _do_host_read(self, gpa: int) -> None:
        self.events.append({"host": hex(self.kernel.host_read(gpa))})

    def _do_check(self) -> None:
        self.events.append({"value": hex(self.kernel.check(self.constants["KVM_CAP_MEMORY_ATTRIBUTES"]))})

    def _do_set(self, address: int, size: int, attributes: int, flags: int) -> None:
        data = b"".join(value.to_bytes(8, "little") for value in (address, size, attributes, flags))
        self.events.append({"ioctl": data.hex(), "ret": hex(self.kernel.set_attributes(data))})

    def _do_refuse(self) -> None:
        self._refuse = True

    def _do_read(self, gpa: int) -> None:
        self._through(self.kernel.read(gpa), "word")

    def _do_write(self, gpa: int, value: int) -> None:
        self._through(self.kernel.write(gpa, value), None)

    def _do_go(self) -> None:
        self._through(self.kernel.go(()), None)

    def _do_call(self, gpa: int, pages: int, attributes: int) -> None:
        regs = {"rax": self.constants["KVM_HC_MAP_GPA_RANGE"], "rbx": gpa, "rcx": pages, "rdx": attributes}
        self._through(self.kernel.hypercall(regs), "rax")

    def _through(self, end: End, shows: str | None) -> None:
        """Deal with the guest's exits; a fault that comes again leaves the vCPU where it is."""
        faults = 0
        while True:
            if end.kind == "exit":
                end = self._answer(HYPERCALL, end)
            elif end.kind == "fault" and not faults:
                faults += 1
                end = self._answer(FAULT, end)
            else:
                break
        if end.kind == "fault":
            self.events.append({"again": shown(FAULT, end.page), "ret": hex(end.ret)})
        elif end.kind == "mmio":
            self.events.append({"mmio": True})
            self.kernel.go(())
        elif end.kind == "stop":
            self.events.append({"stop": end.reason})
        else:
            self.events.append({"done": True} if shows is None else {shows: hex(end.rax)})

    def _answer(self, name: str, end: End) -> End:
        """Let the VMM's adapter answer an exit, and go back into the guest."""
        self.events.append({"exit" if name == HYPERCALL else "fault": shown(name, end.page), "ret": hex(end.ret)})
        near = self._near[name]
        near.memory.poke(0, end.page)
        answer = near.answer({"ret": end.ret})
        written = [[hex(at), data.hex()] for at, data in answer.mem]
        self.events.append({"answer": {"end": answer.end, "regs": dict(answer.regs), "mem": written}})
        if answer.end != "return":
            return End(kind="stop", reason=answer.reason or answer.end)
        return self.kernel.go(answer.mem)


def shown(name: str, page: bytes) -> dict[str, str]:
    """Return the fields of an exit as KVM wrote them, without those that are the VMM's."""
    abi = load(name).abi
    layout = abi.layouts["kvm-run-hypercall" if name == HYPERCALL else "kvm-run-memory-fault"]
    return {
        field: hex(int.from_bytes(page[item.at : item.at + item.size], "little"))
        for field, item in layout.fields.items()
        if field != "ret"
    }
