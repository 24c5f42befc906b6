"""A guest and a host of one ABI, talking to each other in one process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hvabi.adapters.guest import Refused
from hvabi.adapters.values import GuestCall, GuestReply, GuestResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hvabi.adapters.guest import Guest
    from hvabi.adapters.host import Host
    from hvabi.adapters.values import HostAnswer, Injection
    from hvabi.backend import PageState


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One call of a guest and what the host answered."""

    call: GuestCall
    answer: HostAnswer


def converse(
    guest: Guest,
    host: Host,
    start_gpa: int,
    pages: int,
    to: PageState,
    faults: Iterable[Injection] = (),
    *,
    seen: Callable[[Exchange], None] | None = None,
) -> GuestResult:
    """Let a guest convert 4 KiB pages on a host; `faults` are injected into its first calls.

    A call that the host has executed again is made once more; one that ends in a fault or a stop ends the
    conversation, with what was done before it. `seen` is told of every exchange.
    """
    conversation = guest.convert(start_gpa, pages, to)
    waiting = iter(faults)
    try:
        shown = next(conversation)
        while True:
            if not isinstance(shown, GuestCall):
                shown = conversation.send(GuestReply())
                continue
            for gpa, data in shown.mem:
                host.memory.poke(gpa, data)
            answer = host.answer(shown.regs, inject=next(waiting, None))
            if answer.end == "replay":
                answer = host.answer({**shown.regs, **answer.regs})
            if seen is not None:
                seen(Exchange(call=shown, answer=answer))
            if answer.end != "return":
                # No answer reached the guest: its own registers would read as one. What it believes already stands.
                reason = answer.reason or answer.fault or "the call was not answered"
                conversation.throw(Refused(f"the host: {reason}"))
            shown = conversation.send(GuestReply(regs=answer.regs, mem=answer.mem))
    except StopIteration as end:
        result: GuestResult = end.value
        return result
