"""Cases: what is sent to an implementation, and every answer that is right. Plain frozen data, no behaviour of an ABI.

A host case is a sequence of steps; after each call the answer is compared with the alternatives, and then the state.
A guest case is one conversion against a scripted host. Integers and bytes are Python's own here; the runner writes
them as the protocol wants.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

Memory = tuple[tuple[int, bytes], ...]
Ranges = tuple[tuple[int, int, str], ...]
"""``(first page, end page, state)``, sorted, disjoint, private left out."""
Pages = tuple[tuple[int, int], ...]
Level = Literal["must", "should", "may", "unspecified", "observed"]
Role = Literal["host", "guest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """How the implementation is configured: the protocol's ``configure``.

    Attributes:
        config: the ABI's own keys.
        memory: slots as page ranges; None: everything is memory.
        enabled: whether the call is switched on.
        max_ranges: bound on the ranges, or None.
        scratch: the guest's own area as (first page, end page), or None for hosts.

    """

    config: Mapping[str, int] = field(default_factory=dict)
    memory: Pages | None = None
    enabled: bool = True
    max_ranges: int | None = None
    scratch: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """What a host keeps under one handle.

    Attributes:
        number: the handle of the model; an implementation gives its own.
        kept: numbers of the call that opened it.
        items: the elements, as far as they have come.
        parts: calls that have brought elements.
        complete: whether all are there.

    """

    number: int
    kept: Mapping[str, int]
    items: tuple[object, ...]
    parts: int
    complete: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What a host keeps under handles: those that are alive, and how many it has given out."""

    regions: tuple[Region, ...] = ()
    given: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Handle:
    """A handle in registers.

    Attributes:
        number: the handle of the model. The implementation's own takes its place: it is learnt where an answer
            has it, and sent where a request has it. Two that are equal here are equal there.
        places: ``(register, lowest bit, bits, lowest bit of the value)``.
        flipped: bits of the handle that are sent the other way round, so that it is no handle of the host.

    """

    number: int
    places: tuple[tuple[str, int, int, int], ...]
    flipped: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """One right answer to a call.

    Attributes:
        end: how the call ends.
        regs: registers and their values after the call; a register that is in neither `regs` nor `may_change`
            must be as it was sent.
        mem: bytes after the call; bytes that are in neither `mem` nor `may_change_mem` must be as they were.
        may_change: registers that are not compared.
        nonzero: (register, mask): these bits may have any value but 0.
        may_change_mem: (address, size) areas that are not compared.
        fault: name of the exception with end ``fault``.
        state: pages that are not private afterwards.
        facts: facts that are true afterwards, by name.
        loose: pages whose state is not compared.
        chosen: handles in the answer, which the implementation chooses.
        held: what the model remembers under handles afterwards.
        policies: the policy values under which this answer is the right one.
        also: further policy values under which the same answer is right.
        rule: id of the rule that this answer comes from, or None.
        replayed: ids of rules for which a host may replay the call before it comes to this answer.
        status: the member of the common taxonomy behind it.
        why: one sentence for the report.

    """

    end: Literal["return", "replay", "fault", "stop"] = "return"
    regs: Mapping[str, int] = field(default_factory=dict)
    mem: Memory = ()
    may_change: tuple[str, ...] = ()
    nonzero: tuple[tuple[str, int], ...] = ()
    may_change_mem: tuple[tuple[int, int], ...] = ()
    fault: str | None = None
    state: Ranges = ()
    facts: Mapping[str, Pages] = field(default_factory=dict)
    loose: Pages = ()
    chosen: tuple[Handle, ...] = ()
    held: Held = field(default_factory=Held)
    policies: Mapping[str, str] = field(default_factory=dict)
    also: tuple[Mapping[str, str], ...] = ()
    rule: str | None = None
    replayed: tuple[str, ...] = ()
    status: str = "done"
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inject:
    """A fault for the next call in the protocol's words: vmm-error, stop-after, event-pending, memory-flip."""

    fault: str
    arguments: Mapping[str, int | bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostStep:
    """One call to a host.

    Attributes:
        regs: all registers of the call.
        mem: bytes placed before the call.
        cpl: privilege of the caller.
        inject: fault for this call.
        expected: every right answer, the likeliest first; more than one only where policies or an undefined
            order of checks leave it open.
        fields: the request's fields by name, for people.
        fresh: begin from `HostCase.before` again (a reset) instead of from the state of the step before.
        handles: handles in the request that an earlier answer gave. Where it gave none, the step and those behind it
            are left out.
        call: the call of the ABI, None for that of the case.

    """

    regs: Mapping[str, int]
    mem: Memory = ()
    cpl: int = 0
    inject: Inject | None = None
    expected: tuple[Expected, ...] = ()
    fields: Mapping[str, object] = field(default_factory=dict)
    fresh: bool = False
    vcpu: int = 0
    handles: tuple[Handle, ...] = ()
    call: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestTurn:
    """How the scripted host answers the guest's call number n: what it does and what it says.

    Attributes:
        kind: ``serve`` (the model host does the work and answers rightly, under `inject`; then `say` and `regs` are
            laid over its answer), or ``say`` (the model host does nothing; only `say` and `regs` are answered).
        inject: fault for a served call.
        say: response fields to encode: integers, or EXPRs over the guest's actual request and, for ``serve``, the
            right response (``response.next_gpa + 4096``). The run-time names of outcomes (`done_pages`,
            `done_bytes`, `part_pages`, `index`, `errno`) are 0, `to` is the state asked for, and the call's
            definitions can be used.
        regs: raw registers to answer.
        mem_at: raw bytes to answer as (block name, offset in it, bytes).
        above: None, or the turn is for calls that name more 4 KiB pages than this; others are served rightly.
        when: an EXPR over the request and the right response of a served call: only where it holds is anything laid
            over that. Where no such turn ever had its word, as a guest may ask in another way, the conversation is
            judged as one that was served.

    """

    kind: Literal["serve", "say"] = "serve"
    inject: Inject | None = None
    say: Mapping[str, int | str] = field(default_factory=dict)
    regs: Mapping[str, int] = field(default_factory=dict)
    mem_at: tuple[tuple[str, int, bytes], ...] = ()
    above: int | None = None
    when: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestScript:
    """One conversion that a guest is asked for, and how the host behaves.

    Attributes:
        gpa, pages, to: the conversion; pages of 4 KiB.
        turns: for call n the turn n; after the last one the host serves rightly.
        repeat_last: the last turn is repeated for ever instead.
        done: True, False, or None where both are right.
        calls: the fewest and most calls that are right (``(0, 0)``: none may be made).
        must_not_believe: pages that the guest must not report as converted.
        must_believe: pages that the guest must report where `done` is true or ends so.
        then: a conversion that the guest is asked for behind this one, with nothing forgotten in between; only where
            this one ended as it should.
        local_steps: ``(word, when, pages)``: the guest's local steps with this word together cover exactly these
            pages; when ``before``, no call has named a page of the step yet; when ``after``, answers have said that
            every page of the step is done. Only where the guest has the feature ``local-steps``.

    """

    gpa: int
    pages: int
    to: str
    turns: tuple[GuestTurn, ...] = ()
    repeat_last: bool = False
    done: bool | None = True
    calls: tuple[int, int] | None = None
    must_not_believe: Pages = ()
    must_believe: Pages = ()
    local_steps: tuple[tuple[str, str, Pages], ...] = ()
    then: GuestScript | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One case with a permanent id: ``ABI@REVISION.ROLE.TRANSPORT.RULE.NAME``.

    Attributes:
        rules: ids of the rules that it covers, the first one being what it is about.
        level: the strictest level of what it asserts.
        why: one sentence: why this case exists.
        profile: the profile that it needs, or None for all; `observed` cases have one.
        kind: where it comes from: ``rule``, ``pair``, ``progress``, ``reserved``, ``footprint``, ``example``,
            ``regression``, ``guest``.
        features: protocol features without which it is skipped: ``inject``, ``exits``, ``local-steps``.
        call: the call of the ABI, None for the one that converts.

    """

    id: str
    abi: str
    revision: str
    role: Role
    transport: str
    rules: tuple[str, ...]
    level: Level
    why: str
    kind: str
    setup: Setup = field(default_factory=Setup)
    before: Ranges = ()
    facts: Mapping[str, Pages] = field(default_factory=dict)
    steps: tuple[HostStep, ...] = ()
    script: GuestScript | None = None
    profile: str | None = None
    features: tuple[str, ...] = ()
    reference: str | None = None
    call: str | None = None
