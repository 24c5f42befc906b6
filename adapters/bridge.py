"""The host role of one ABI driving the guest role of another: whatever a guest asks, somebody else's hypervisor does.

What the near host cannot do by itself, it asks of the far one, piece by piece; how far that came, the near host says in
its own ABI's way. Where the near ABI can only say all or nothing, what the far one did is taken back.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hvabi.abi.registry import load
from hvabi.adapters.converse import Exchange, converse
from hvabi.adapters.errors import AdapterError
from hvabi.adapters.registry import guest_class, host_class
from hvabi.adapters.values import Injection, VmmReply, VmmRequest
from hvabi.backend import Backend, Conversion, Outcome, Status

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hvabi.abi.registry import Spec
    from hvabi.adapters.guest import Guest
    from hvabi.adapters.host import Host
    from hvabi.adapters.values import HostAnswer

SCRATCH = (0x10, 0x20)
"""Pages where the far guest keeps its structures: first and end."""


@dataclass(slots=True, kw_only=True)
class Far:
    """The far side: a guest of one ABI and the host that it talks to.

    Attributes:
        guest: makes the calls.
        host: answers them; it keeps the pages' states.
        exchanges: every call and its answer, in order.
        faults: injected into the calls to come, one each.

    """

    guest: Guest
    host: Host
    exchanges: list[Exchange] = field(default_factory=list)
    faults: list[Injection] = field(default_factory=list)

    def __call__(self, conversion: Conversion) -> Outcome:
        """Do a conversion there; the outcome says how many pages from its start were done."""
        faults, self.faults = self.faults, []
        result = converse(
            self.guest, self.host, conversion.start_gpa, conversion.page_count, conversion.to, faults,
            seen=self.exchanges.append,
        )  # fmt: skip
        if result.done:
            return Outcome(Status.DONE, conversion.page_count, conversion.end)
        # Only pages from the start on can be told; a far guest that gave up may have done others.
        end = next((high for low, high in result.ranges if low == conversion.start), conversion.start)
        self._put_back(result.ranges, end, conversion)
        pages = end - conversion.start
        return Outcome(Status.PARTIAL if pages else Status.FAILED, pages, end)

    def _put_back(self, ranges: tuple[tuple[int, int], ...], end: int, conversion: Conversion) -> None:
        for low, high in ranges:
            if low >= end:
                for run in self.host.backend.runs(low, high):
                    if run.state is not conversion.to:
                        converse(self.guest, self.host, run.start << 12, run.end - run.start, run.state)


class Bridge:
    """A near host whose pages another host keeps.

    Args:
        near: the ABI that is served; with revision where it is not the default.
        far: the ABI that is spoken.
        near_transport, far_transport: the first ones by default.
        near_config, far_config: configuration keys that differ from their defaults.
        max_ranges: bound of the far host.

    Raises `AdapterError` ``no-guest-role`` where the far ABI has no guest, ``no-convert`` where one of them makes no
    page private or shared.

    """

    def __init__(
        self,
        near: str | Spec,
        far: str | Spec,
        *,
        near_transport: str | None = None,
        far_transport: str | None = None,
        near_config: Mapping[str, int] | None = None,
        far_config: Mapping[str, int] | None = None,
        max_ranges: int | None = None,
    ) -> None:
        near, far = (load(spec) if isinstance(spec, str) else spec for spec in (near, far))
        for spec in (near, far):
            call = spec.abi.convert_call
            if call is None or call.convert is None or call.convert.to is None:
                raise AdapterError(f"{spec.id} makes no page private or shared", code="no-convert")
        backend = Backend(facts=far.abi.facts, max_ranges=max_ranges)
        self.far = Far(
            guest=guest_class(far.id)(far, transport=far_transport, config=far_config, scratch=SCRATCH),
            host=host_class(far.id)(far, transport=far_transport, config=far_config, backend=backend),
        )
        self.near = host_class(near.id)(
            near,
            transport=near_transport,
            config=near_config,
            backend=Backend(facts=near.abi.facts, elsewhere=self.far),
        )


def split(host: Host, user_space: Mapping[str, Host], regs: Mapping[str, int]) -> HostAnswer:
    """Do a call of a host that is split in two, each request to its user space answered by the host of that ABI.

    Raises `AdapterError` ``no-user-space`` for an ABI that is not among them.
    """
    call = host.call(regs, exits=True)
    try:
        request = next(call)
        while True:
            request = call.send(_answered(request, user_space))
    except StopIteration as end:
        answer: HostAnswer = end.value
        return answer


def _answered(request: VmmRequest, user_space: Mapping[str, Host]) -> VmmReply:
    host = user_space.get(request.abi)
    if host is None:
        raise AdapterError(f"there is no user space that answers {request.abi}", code="no-user-space", abi=request.abi)
    for gpa, data in request.mem:
        host.memory.poke(gpa, data)
    answer = host.answer(request.regs)
    return VmmReply(regs=answer.regs, mem=answer.mem)


def kvm(front: str = "kvm-map-gpa-range", *, transport: str | None = None) -> tuple[Host, Mapping[str, Host], Far]:
    """Return KVM as it is built: a call of the guest, the exit that the VMM sees, and the ioctl that it makes.

    `front` is what the guest calls: ``kvm-map-gpa-range``, ``ghcb-psc``, ``ghcb-msr-psc`` or ``tdx-map-gpa``. To be
    used with `split`: the host of the front, the user space that answers its exits, and the far side, KVM's own
    attributes.
    """
    vmm = Bridge("kvm-exit-hypercall", "kvm-memory-attributes")
    spec = load(front)
    return host_class(spec.id)(spec, transport=transport), {"kvm-exit-hypercall": vmm.near}, vmm.far
