"""What a split host asks of its own user space: a message of another ABI, and what its answer means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvabi.abi.registry import load
from hvabi.abi.wire import Wire, merge
from hvabi.adapters.errors import AdapterError
from hvabi.adapters.values import VmmReply, VmmRequest

if TYPE_CHECKING:
    from hvabi.abi.calls import Vmm
    from hvabi.abi.scope import Scope


def ask(vmm: Vmm, scope: Scope) -> VmmRequest:
    """Return the request for one piece; `scope` knows the piece."""
    assert vmm.abi is not None  # the caller has looked
    spec = load(vmm.abi)
    codec = spec.message(spec.abi.calls[vmm.call].request if vmm.call else "request")
    wire = codec.encode({name: scope.int(expr) for name, expr in vmm.request.items()})
    return VmmRequest(abi=vmm.abi, regs=wire.regs, mem=wire.mem)


def errno_of(vmm: Vmm, request: VmmRequest, reply: VmmReply) -> int:
    """Return the errno in user space's reply, 0 for success.

    Raises `AdapterError` ``bad-reply`` where the answer has no field ``ret`` to read it from.
    """
    if reply.errno is not None:
        return reply.errno
    assert vmm.abi is not None  # or nothing would have been asked
    spec = load(vmm.abi)
    codec = spec.message(spec.abi.calls[vmm.call].response or "response" if vmm.call else "response")
    if "ret" not in codec.fields:
        raise AdapterError(f"{vmm.abi} has no field `ret`", code="bad-reply")

    wire = Wire(regs={**request.regs, **reply.regs}, mem=merge([*request.mem, *reply.mem]))
    return int(codec.decode(wire).ret)
