"""What goes into a host and comes out: requests, answers, and what is asked of its user space."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hvabi.backend import Change, PageState, Status

End = Literal["return", "replay", "fault", "stop"]
Memory = tuple[tuple[int, bytes], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HostAnswer:
    """How a host call ended.

    Attributes:
        end: ``return`` (the guest goes on), ``replay`` (it executes the call again), ``fault`` or ``stop``.
        regs: registers that the host wrote.
        mem: after-image of the bytes that the host wrote, sorted and joined.
        fault: name of the exception with ``fault``.
        reason: why, with ``stop``.
        rule: id of the rule that was broken, or None.
        status: the member of the common taxonomy behind the answer.
        done_pages: 4 KiB pages that this call has done.
        changes: what changed in the page states, in order.

    """

    end: End
    regs: Mapping[str, int] = field(default_factory=dict)
    mem: Memory = ()
    fault: str | None = None
    reason: str | None = None
    rule: str | None = None
    status: Status | None = None
    done_pages: int = 0
    changes: tuple[Change[PageState], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class VmmRequest:
    """What a split host asks of its user space: a message of another ABI. The answer is sent back as `VmmReply`."""

    abi: str
    regs: Mapping[str, int]
    mem: Memory


@dataclass(frozen=True, slots=True, kw_only=True)
class VmmReply:
    """What user space answered: what it wrote, over the request; or a positive errno given directly."""

    regs: Mapping[str, int] = field(default_factory=dict)
    mem: Memory = ()
    errno: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Injection:
    """Faults for the next call, see PROTOCOL: each is None or empty when not injected.

    Attributes:
        vmm_errno: user space refuses the first request of the call with this positive errno.
        stop_after: the host stops after that many 4 KiB pages, rounded down to what the ABI can report.
        event_after: an interrupt becomes pending once that many chunks are finished.
        flips: ``(gpa, bytes)`` that replace what the host has read, right after its first read.

    """

    vmm_errno: int | None = None
    stop_after: int | None = None
    event_after: int | None = None
    flips: Memory = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestCall:
    """One call that a guest makes: all registers of the call and the blocks in memory that it uses."""

    regs: Mapping[str, int]
    mem: Memory


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestStep:
    """A local half of the guest's work: accept, rescind or map pages, as ``(first page, end page)`` ranges."""

    step: str
    ranges: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestReply:
    """What the host changed: registers, and bytes over what the guest wrote."""

    regs: Mapping[str, int] = field(default_factory=dict)
    mem: Memory = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestResult:
    """What a guest believes at the end.

    Attributes:
        to: the state asked for.
        done: whether the whole range is converted.
        ranges: the converted pages, ``(first page, end page)``, sorted and joined.
        calls: how many calls were made.
        reason: why it gave up, in words, or None.
        rule: id of the guest rule that the answer broke, or None.

    """

    to: PageState
    done: bool
    ranges: tuple[tuple[int, int], ...]
    calls: int
    reason: str | None = None
    rule: str | None = None
