"""Guests against hosts that are honest, that spoil their answers, and that answer at random.

A guest ends within its bound, raises nothing, and never claims pages outside of what was asked. Against a host that
does and answers right it claims only what was done, and `done` only when all of it was.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from hvabi.abi.model import BlockPlace, PairPlace, RegisterPlace
from hvabi.abi.registry import abi_ids, bundled
from hvabi.abi.scope import Fields
from hvabi.abi.wire import register_bits
from hvabi.adapters.batch import plan
from hvabi.adapters.registry import guest_class, host_class
from hvabi.adapters.values import GuestCall, GuestReply, GuestResult, Injection
from hvabi.backend import Backend, Conversion, GuestMemory, PageState
from tests.fuzzing import SCRATCH, Combo, combos
from tests.mutating import STATES, Mutator

if TYPE_CHECKING:
    from hvabi.adapters.guest import Guest

CONVERSATIONS = 10_000
"""Conversations for each ABI, in all its chunks together: a third with each kind of host."""
CHUNKS = 10
_FAULTS = 6
"""Calls of a conversation in which a host may have faults: else a long list takes a call for each of its elements."""
_REPLAYS = 64
"""Most times that a call is executed again before the host is taken to hang."""

SERVED = [
    abi
    for abi in abi_ids()
    if not bundled(abi).draft and (call := bundled(abi).convert_call) is not None and call.guest is not None
]


class Hung(Exception):  # not an error: the vCPU does not come back, so the guest sees nothing more
    """The host ended the call with a fault or a stop, or replays it without end."""


class Talk:
    """Conversations of one ABI's guests."""

    def __init__(self, abi: str, seed: int) -> None:
        self.abi = abi
        self.rng = Random(f"{abi} guests {seed}")
        self.mutator = Mutator(abi, self.rng)
        self.combos = [combo for combo in combos(abi) if combo.abi.convert_call is not None]
        self.guests: dict[tuple[int, Any], Guest] = {}
        self.granules: dict[tuple[int, Any], int] = {}
        self.outcomes = {"honest": 0, "spoilt": 0, "random": 0}
        """Conversations that ended done, by kind of host."""

    def guest(self, number: int, config: Any) -> Guest:
        """Return a guest, made once."""
        key = (number, config)
        if key not in self.guests:
            combo = self.combos[number]
            guest = guest_class(self.abi)(
                combo.spec, transport=combo.transport.name, config=dict(config), scratch=SCRATCH
            )
            self.guests[key] = guest
            granule = guest.definition.guest.granule if guest.definition.guest else None
            self.granules[key] = max(guest.scope().int(granule) // 4096, 1) if granule is not None else 1
        return self.guests[key]

    def one(self, kind: str) -> None:
        """Hold one conversation and check what the guest believes."""
        rng = self.rng
        number = rng.randrange(len(self.combos))
        combo = self.combos[number]
        config = combo.configs[0] if rng.random() < 0.7 else rng.choice(combo.configs)
        guest = self.guest(number, config)
        guest.reset()
        granule = self.granules[number, config]
        first = rng.choice((0x200, 0x200, 0x201, 0x1FF, rng.randrange(0x200, 0x600))) // granule * granule
        pages = rng.choice((16, 33, 512, 600) if rng.random() < 0.04 else (1, 1, 2, 3, 5, 8))
        pages = -(-pages // granule) * granule
        to = rng.choice(STATES)
        host = HostSide(self, combo, config, first, pages, to) if kind != "random" else None
        calls, result = self.converse(guest, first, pages, to, host, kind)
        end = first + pages
        assert calls <= self.bound(guest, first, pages, to), f"{calls} calls"
        if result is None:
            return
        assert result.calls == calls
        assert all(first <= start < stop <= end for start, stop in result.ranges), f"claims {result.ranges}"
        assert not result.done or result.ranges == ((first, end),), f"done with {result.ranges}"
        self.outcomes[kind] += result.done
        if kind == "honest" and host is not None:
            for start, stop in result.ranges:
                assert host.has_done(start, stop, to), f"claims {result.ranges}, which was not done"

    def bound(self, guest: Guest, first: int, pages: int, to: PageState) -> int:
        """Return the calls that the specification allows for a range."""
        if not guest.can_name(first << 12, pages, to):
            return 0
        progress = guest.definition.progress
        total = 0
        for batch in plan(guest, first, pages, to):
            known = dict(zip(batch.request._fields, batch.request, strict=True))
            scope = guest.scope(Fields(known, known.__getitem__), start=batch.first << 12, pages=batch.pages)
            total += scope.int(progress.bound) if progress is not None else 1
            if guest.definition.guest is not None and guest.definition.guest.smaller_when is not None:
                total += -(-batch.pages // guest.granule_pages())
        return total

    def converse(
        self, guest: Guest, first: int, pages: int, to: PageState, host: HostSide | None, kind: str
    ) -> tuple[int, GuestResult | None]:
        """Answer the guest until it ends or the host hangs; return the calls and the guest's belief."""
        talk = guest.convert(first << 12, pages, to)
        calls = 0
        try:
            step = next(talk)
            while True:
                assert isinstance(step, GuestCall)
                calls += 1
                try:
                    reply = host.reply(step) if host is not None else self.random_reply(guest, step)
                except Hung:
                    talk.close()
                    return calls, None
                if kind == "spoilt" and self.rng.random() < 0.5:
                    reply = self.spoilt(reply)
                step = talk.send(reply)
        except StopIteration as end:
            return calls, end.value

    # -- answers that are not right -----------------------------------------------------------------------------

    def spoilt(self, reply: GuestReply) -> GuestReply:
        """Return an answer with one register or some bytes changed."""
        regs, mem = dict(reply.regs), reply.mem
        if mem and (not regs or self.rng.random() < 0.6):
            mem = self.mutator.bytes_of(mem)
        elif regs:
            name = self.rng.choice(list(regs))
            regs[name] = self.mutator.register(regs[name])
        return GuestReply(regs=regs, mem=mem)

    def random_reply(self, guest: Guest, call: GuestCall) -> GuestReply:
        """Return random values for the fields of the response: known ones, ones near the request's, any."""
        rng = self.rng
        codec = guest.response
        others = [value for value in call.regs.values() if value]
        regs: dict[str, int] = {}
        for name, item in codec.message.fields.items():
            match codec.placer.place_of(name):
                case RegisterPlace(register=register, lo=lo) if rng.random() < 0.8:
                    old = call.regs.get(register, 0) >> lo & (1 << item.bits) - 1
                    value = self.mutator.number(item, old, others) if rng.random() < 0.7 else 0
                    if item.enum is not None and rng.random() < 0.6:
                        value = rng.choice([known.value for known in item.enum.values.values()])
                    value &= (1 << item.bits) - 1
                    regs[register] = (regs.get(register, 0) | value << lo) & (1 << register_bits(register)) - 1
                case PairPlace(high=high, low=low):
                    regs[high], regs[low] = rng.choice(((0, 0), (0, rng.randrange(4)), (rng.getrandbits(32), 0)))
                case BlockPlace() | RegisterPlace() | None:
                    pass
        mem = call.mem
        for _ in range(rng.choice((0, 1, 1, 3)) if mem else 0):
            mem = self.mutator.bytes_of(mem)
        return GuestReply(regs=regs, mem=mem if rng.random() < 0.9 else ())


class HostSide:
    """An honest host of its own state, with faults that hosts may have."""

    def __init__(self, talk: Talk, combo: Combo, config: Any, first: int, pages: int, to: PageState) -> None:
        rng = talk.rng
        self.rng = rng
        self.combo = combo
        self.backend = Backend(facts=combo.abi.facts, max_ranges=rng.choice((None, None, None, 2)))
        convert = combo.abi.convert_call.convert if combo.abi.convert_call else None
        self.wanted = convert.stands_for.get(to.value, {}) if convert is not None else {}
        """The facts that the conversion stands for, where it changes facts only."""
        for name, value in self.wanted.items():
            self.backend.set_fact(name, first, first + pages, not value)
        if to is PageState.PRIVATE:
            self.backend.convert(Conversion(first, pages, PageState.SHARED), absent="allow")
        elif rng.random() < 0.3:
            self.backend.convert(Conversion(first, min(pages, 2), PageState.SHARED), absent="allow")
        self.host = host_class(talk.abi)(
            combo.spec, transport=combo.transport.name, config=dict(config), backend=self.backend
        )
        call = combo.abi.convert_call
        assert call is not None  # only those are served
        self.progress = call.progress
        self.partial = [answer for answer in call.outcomes.get("partial", ()) if answer.cannot is None]
        self.vmm = call.vmm
        self.calls = 0

    def has_done(self, start: int, end: int, to: PageState) -> bool:
        """Whether every page is in the state, or has the facts that it stands for."""
        if self.wanted:
            return all(self.backend.fact_uniform(name, start, end, value) for name, value in self.wanted.items())
        return self.backend.uniform(start, end, to)

    def injection(self) -> Injection:
        rng = self.rng
        self.calls += 1
        if self.calls > _FAULTS:
            return Injection()
        if self.partial and rng.random() < 0.3:
            return Injection(stop_after=rng.choice((0, 1, 2, 3, 512)))
        if self.progress is not None and self.progress.chunk is not None and rng.random() < 0.3:
            return Injection(event_after=1)
        if self.vmm is not None and rng.random() < 0.1:
            return Injection(vmm_errno=rng.choice((11, 12, 22, 1)))
        return Injection()

    def reply(self, call: GuestCall) -> GuestReply:
        """Do the call, executed again as long as the host wants it."""
        memory = GuestMemory(None)
        for address, data in call.mem:
            memory.poke(address, data)
        self.host.memory = memory
        regs = dict(call.regs)
        inject = self.injection()
        for _ in range(_REPLAYS):
            answer = self.host.answer(regs, inject=inject)
            regs.update(answer.regs)
            inject = Injection()
            if answer.end == "return":
                mem = tuple((address, memory.peek(address, len(data))) for address, data in call.mem)
                return GuestReply(regs=regs, mem=mem)
            if answer.end != "replay":
                break
        raise Hung


@pytest.mark.parametrize("chunk", [0, *(pytest.param(chunk, marks=pytest.mark.slow) for chunk in range(1, CHUNKS))])
@pytest.mark.parametrize("abi", SERVED)
def test_a_guest_claims_no_more_than_was_done(abi: str, chunk: int) -> None:
    talk = Talk(abi, chunk)
    kinds = ("honest", "spoilt", "random")
    total = CONVERSATIONS // CHUNKS
    for number in range(total):
        try:
            talk.one(kinds[number % 3])
        except Exception as error:
            error.add_note(f"conversation {number} of {abi}, chunk {chunk}, a {kinds[number % 3]} host")
            raise
    assert talk.outcomes["honest"] > total // 3 // 4
    assert talk.outcomes["spoilt"] > 0
