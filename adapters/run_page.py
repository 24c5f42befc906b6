"""From a run page to an ioctl: what a VMM passes to KVM_SET_MEMORY_ATTRIBUTES for an exit that asks it to convert.

    page = run[:104]                               # the head of struct kvm_run, as KVM_RUN left it
    call = attributes_call(page, result=-14)       # a memory fault: KVM_RUN failed with EFAULT; 0 for a hypercall
    ioctl(vm_fd, call.command, call.argument)      # struct kvm_memory_attributes, 32 bytes

Nothing here knows an offset or a bit: the exits are read by `kvm-exit-hypercall` and `kvm-exit-memory-fault`, the
ioctl is written by `kvm-memory-attributes`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hvabi.abi.errors import HvAbiError
from hvabi.abi.registry import load
from hvabi.abi.wire import WireSource
from hvabi.adapters.errors import AdapterError
from hvabi.adapters.host import Host, _HostCall
from hvabi.adapters.registry import guest_class
from hvabi.adapters.values import GuestCall, Injection
from hvabi.adapters.work import Work
from hvabi.backend import PAGE_SHIFT, PageState

if TYPE_CHECKING:
    from hvabi.abi.registry import Spec

EXITS = ("kvm-exit-hypercall", "kvm-exit-memory-fault")
"""The ABIs whose requests lie in the run page."""
ATTRIBUTES = "kvm-memory-attributes"
_WIDTH = 1 << 64


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributesCall:
    """One call of KVM_SET_MEMORY_ATTRIBUTES.

    Attributes:
        exit: id of the ABI that the run page was read by.
        gpa: first byte of the range.
        size: bytes.
        to: the state that the guest wants.
        command: number of the ioctl, on the file descriptor of the VM.
        argument: struct kvm_memory_attributes.

    """

    exit: str
    gpa: int
    size: int
    to: PageState
    command: int
    argument: bytes


def attributes_call(page: bytes, *, result: int = 0) -> AttributesCall:
    """Return the ioctl with which a VMM does what an exit asks of it.

    Args:
        page: the run page, or its head up to the end of the exit's fields.
        result: what KVM_RUN returned, a negative errno where it failed.

    Raises `AdapterError`: ``not-a-conversion`` where the run page holds no exit that asks for one, ``refused`` where
    the request breaks a rule (its id is in `rule`), ``short-page`` where bytes are missing.

    """
    for name in EXITS:
        spec = load(name)
        if _is_for(spec, page, result):
            return _read(spec, page, result)
    raise AdapterError(
        "the run page holds no exit that asks for a conversion",
        code="not-a-conversion",
        hint="pass what KVM_RUN returned as `result`: a memory fault comes with -14 (EFAULT) only",
    )


def _source(page: bytes, result: int, spec: Spec) -> WireSource:
    return WireSource({"ret": result % _WIDTH}, ((0, page),), message=spec.id)


def _is_for(spec: Spec, page: bytes, result: int) -> bool:
    """Whether the exit reason is that of the ABI, and KVM_RUN ended as this exit wants it."""
    codec = spec.message(next(iter(spec.abi.calls.values())).request)
    block = next(iter(codec.placer.blocks.values()))
    _, scope = codec.reader(_source(page, result, spec))
    size = scope.int(block.size)
    reason = codec.placer.fetch("exit_reason", scope, _source(page.ljust(size, b"\0"), result, spec))
    field = codec.message.fields["exit_reason"]
    if field.const is None or reason != scope.int(field.const) or ("result" in codec.fields) != (result != 0):
        return False
    if len(page) < size:
        text = f"{spec.id} needs {size} bytes of the run page, there are {len(page)}"
        raise AdapterError(text, code="short-page", wanted=size, found=len(page))
    return True


def _read(spec: Spec, page: bytes, result: int) -> AttributesCall:
    """Judge the request as a VMM does and turn it into the ioctl. Raises `AdapterError` ``refused``."""
    host = Host(spec)
    host.memory.poke(0, page)
    call = _HostCall(host, {"ret": result % _WIDTH}, 0, Injection(), exits=False)
    call.dispatch()
    broken = call.first_broken("call", call.scope)
    convert = call.definition.convert
    if broken is not None or convert is None:
        why = broken.text if broken is not None else "it converts nothing"
        raise AdapterError(f"{spec.id}: {why}", code="refused", rule=broken.id if broken is not None else None)
    (part,) = Work(call, convert).parts()
    if part.to is None:
        raise AdapterError(f"{spec.id}: the request has no direction", code="refused", rule=None)
    return _ask(spec.id, part.start << PAGE_SHIFT, part.pages, part.to)


def _ask(name: str, gpa: int, pages: int, to: PageState) -> AttributesCall:
    """Let the asker of the attributes ABI make its call."""
    guest = guest_class(ATTRIBUTES)(load(ATTRIBUTES))
    try:
        shown = next(guest.convert(gpa, pages, to))
    except StopIteration as end:
        raise AdapterError(f"{ATTRIBUTES} cannot name this range", code="refused", rule=None) from end
    if not isinstance(shown, GuestCall):  # its guest has no local steps
        raise HvAbiError(f"{ATTRIBUTES} made no call", code="internal")
    ((_, argument),) = shown.mem
    return AttributesCall(
        exit=name, gpa=gpa, size=pages << PAGE_SHIFT, to=to, command=shown.regs["cmd"], argument=argument
    )


__all__ = ["AttributesCall", "attributes_call"]
