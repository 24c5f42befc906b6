"""Hosts under 100 000 calls each, mutated from right ones: a listed answer, and pages that change as it says.

Inputs that reach a rule are kept and mutated again, so that every rule is reached often. What an answer reports is
read back from registers and bytes with the codec of the response; the pages that it reports must have changed, and
no others. One call in `SAMPLE` is also put to the conformance oracle.
"""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from hvabi.abi.errors import CodecError, HvAbiError
from hvabi.abi.expr import names
from hvabi.abi.model import BlockPlace, PairPlace, RegisterPlace
from hvabi.abi.registry import abi_ids, bundled
from hvabi.abi.scope import Fields, Scope
from hvabi.abi.wire import merge, register_bits
from hvabi.adapters.host import field_values
from hvabi.adapters.values import HostAnswer, VmmReply
from hvabi.backend import GPA_PAGES, Backend, GuestMemory, MemoryLayout, ModelError, OutsideMemory, PageState, Status
from hvabi.conformance.bytesmap import Bytes
from hvabi.conformance.case import Inject, Setup
from hvabi.conformance.judge import Seen, judge
from hvabi.conformance.oracle import Oracle
from tests.fuzzing import Combo, Input, Memory, Mutator, combos, host_rules, opened

if TYPE_CHECKING:
    from hvabi.abi.calls import Answer, Call
    from hvabi.abi.expr import Expr

CALLS = 100_000
"""Calls for each ABI, in all its chunks together."""
CHUNKS = 4
HITS = 100
"""Least answers by each rule, in all chunks together."""
SAMPLE = {"hyperv-host-visibility": 400, "ffa-mem-share": 400, "ghcb-psc": 100}
"""One call in so many, by default one in 50, is compared with the oracle, which tries every open policy and so takes
up to a hundred times as long as the host."""
_LONGEST = 32
"""Longest list that the oracle is given: it goes through some lists for each of their elements."""
_MOST_PAGES = 1 << 16
"""Most pages that the oracle is asked about: it goes from chunk to chunk."""
_KEPT = 64
_EVERYTHING = MemoryLayout(None)

SERVED = [abi for abi in abi_ids() if not bundled(abi).draft]

_FIRST_CALL = "an id that belongs to no call is answered by the first call of the ABI, by the rule that it has for it"
_BY_PAGE = "rules of scope page are not judged yet: the host does the whole range at once"

UNREACHABLE: dict[str, dict[str, str]] = {
    "cca-ipa-state": {
        "CCA-RIPAS-08": _BY_PAGE,
        "CCA-RIPAS-09": _BY_PAGE,
        "CCA-RIPAS-10": _BY_PAGE,
        "CCA-RIPAS-30": _FIRST_CALL,
    },
    "ffa-mem-share": {"FFA-FRAG-01": _FIRST_CALL, "FFA-RECLAIM-01": _FIRST_CALL},
}
"""Rules that no call is answered by, by ABI, with the reason."""


class WatchedMemory(GuestMemory):
    """Guest memory that notes what is read."""

    def __init__(self, layout: MemoryLayout, mem: Memory) -> None:
        super().__init__(layout)
        self.log: list[tuple[int, int]] = []
        for address, data in mem:
            self.poke(address, data)

    def read(self, gpa: int, size: int) -> bytes:
        data = super().read(gpa, size)
        self.log.append((gpa, gpa + size))
        return data

    def readable(self, areas: list[tuple[int, int]]) -> bool:
        """Whether every byte of some areas is memory."""
        try:
            for start, end in areas:
                self.require(start, end - start)
        except (OutsideMemory, ModelError):
            return False
        return True

    def read_twice(self) -> bool:
        """Whether any byte was read more than once."""
        log = sorted(self.log)
        return any(end > start for (_, end), (start, _) in zip(log, log[1:], strict=False))


class Image:
    """Registers and bytes before or after a call, as a source of the codec: what is not there is 0."""

    def __init__(self, regs: dict[str, int], mem: Memory) -> None:
        self.regs = regs
        self.mem = mem

    def register(self, name: str) -> int:
        return self.regs.get(name, 0)

    def read(self, block: str, address: int, size: int) -> bytes:
        for start, data in self.mem:
            if start <= address and address + size <= start + len(data):
                return data[address - start : address - start + size]
        if size > 1 << 20:
            raise CodecError("truncated", "more than there is", message_name=block)
        out = bytearray(size)
        for start, data in self.mem:
            first, last = max(start, address), min(start + len(data), address + size)
            if first < last:
                out[first - address : last - address] = data[first - start : last - start]
        return bytes(out)


class Reading:
    """What a call asked for and what its answer says, read from the wire."""

    def __init__(self, combo: Combo, given: Input, answer: HostAnswer) -> None:
        self.combo, self.given, self.answer = combo, given, answer
        self.sent = Image(dict(given.regs), given.mem)
        # An answer lies over what was sent; a byte that flipped after it was read is still what was sent.
        self.after = Image({**given.regs, **answer.regs}, merge([*given.mem, *answer.mem]))
        self.call = self._called()
        self.request, self.scope = self._open(self.call, self.sent)

    def _open(self, call: Call, source: Image) -> tuple[Fields, Scope]:
        codec = self.combo.codec(call.request, self.given.config)
        fields = Fields(codec.message.fields, lambda name: codec.placer.fetch(name, scope, source))
        scope = Scope(
            codec.static,
            define={name: item.expr for name, item in call.define.items()},
            request=fields,
            local={"cpl": self.given.cpl, "enabled": int(self.given.enabled)},
        )
        return fields, scope

    def _called(self) -> Call:
        """Return the first call whose constants and fixed registers were sent, else the first of all."""
        calls = list(self.combo.calls.values())
        for call in calls if len(calls) > 1 else ():
            fields, scope = self._open(call, self.sent)
            placement = self.combo.transport.placements[call.request]
            try:
                constants = all(
                    fields[name] == scope.int(item.const)
                    for name, item in self.combo.abi.messages[call.request].fields.items()
                    if item.const is not None and placement.place.get(name)
                )
            except HvAbiError:
                continue
            if constants and all(self.sent.register(reg) == scope.int(e) for reg, e in placement.fixed.items()):
                return call
        return calls[0]

    # -- pages --------------------------------------------------------------------------------------------------

    def parts(self) -> list[tuple[int, int, PageState | None]]:
        """Return what the request names, element by element: first page, pages, the state asked for."""
        convert = self.call.convert
        if convert is None:
            return []
        if convert.each is None:
            return [self._part(self.scope)]
        items = self.request[convert.each]
        first = self.first()
        last = self.scope.int(convert.count) if convert.count is not None else len(items)
        return [
            self._part(self.scope.with_locals(it=item, index=index)) if index >= first else (0, 0, None)
            for index, item in enumerate(items[: max(last, 0)])
        ]

    def first(self) -> int:
        """Return the element that the call begins with."""
        convert = self.call.convert
        return self.scope.int(convert.first) if convert and convert.first is not None else 0

    def _part(self, scope: Scope) -> tuple[int, int, PageState | None]:
        convert = self.call.convert
        assert convert is not None  # the caller has looked
        pages = max(scope.int(convert.pages), 0)
        start = scope.int(convert.start) // 4096
        if convert.to is None:
            return start, pages, None
        word = convert.to.states.get(scope.int(convert.to.of), convert.to.otherwise)
        return start, pages, None if word in (None, "none") else PageState(word)

    def reported(self) -> list[tuple[int, int, PageState | None]]:
        """Return the pages that the answer says are done: first page, pages, state."""
        if self.answer.end == "replay":
            return self._replayed()
        if self.answer.end != "return" or self.call.response is None or self.call.convert is None:
            return []
        scope = self._response_scope()
        progress = self.call.progress
        if progress is None:
            return self.parts() if self._says_done(scope) else []
        if scope.true(progress.done_when):
            return self.parts()
        again = scope.true(progress.again_when)
        counts = progress.counts_when is not None and scope.true(progress.counts_when)
        if not again and not counts and not self._written(progress.completed):
            return []
        done = scope.int(progress.completed)
        if progress.unit == "element":
            parts = self.parts()
            if (not again or done == self.first()) and not self.first() <= done < len(parts):
                return []  # an error before the list was looked at, or an answer that says nothing
            assert self.first() <= done <= len(parts), "progress outside the list"
            out = parts[:done]
            if progress.within is not None and done < len(parts):
                # The element says how far it is in all; what it said before the call was not done by this one.
                start, pages, to = parts[done]
                before = self._response_scope(self.sent)
                within = scope.with_locals(index=done).int(progress.within)
                part = within - before.with_locals(index=done).int(progress.within)
                assert 0 <= part <= pages, "progress outside the element"
                out.append((start, part, to))
            return out
        unit = 4096 if progress.unit == "page" else 1
        if progress.unit == "granule" and progress.granule is not None:
            unit = scope.int(progress.granule)
        ((start, pages, to),) = self.parts()
        if not again and not 0 <= done * unit <= pages * 4096:
            return []
        assert done * unit % 4096 == 0, "progress within a page"
        assert 0 <= done * unit // 4096 <= pages, "progress outside the range"
        return [(start, done * unit // 4096, to)]

    def _written(self, completed: Expr) -> bool:
        """Whether a failing answer of an ABI with an exact footprint says anew how far the host came."""
        progress, response = self.call.progress, self.call.response
        if progress is None or response is None or progress.footprint != "exact":
            return False
        placement = self.combo.transport.placements[response]
        places = [placement.place[name][0] for name in names(completed) if name in placement.place]
        return all(isinstance(place, RegisterPlace) and place.register in self.answer.regs for place in places)

    def _replayed(self) -> list[tuple[int, int, PageState | None]]:
        """Return the pages that the call will not do when it is executed again with the registers it now has."""
        convert = self.call.convert
        if convert is None or convert.first is None:
            return []
        _, scope = self._open(self.call, self.after)
        again = scope.int(convert.first)
        assert self.first() <= again <= len(self.parts()), "replay outside the list"
        return self.parts()[:again]

    def _response_scope(self, source: Image | None = None) -> Scope:
        """Return names over request and response; blocks lie where the request says."""
        assert self.call.response is not None  # the caller has looked
        codec = self.combo.codec(self.call.response, self.given.config)
        image = source or self.after
        response = Fields(codec.message.fields, lambda name: codec.placer.fetch(name, places, image))
        sent = self.request
        both = Fields(sent.names | response.names, lambda name: sent[name] if name in sent else response[name])
        places = Scope(codec.static, request=both, local={"request": sent, "response": response})
        return Scope(
            codec.static,
            define={name: item.expr for name, item in self.call.define.items()},
            request=sent,
            response=response,
            local={"cpl": 0, "enabled": 1, "response": response},
        )

    def _says_done(self, scope: Scope) -> bool:
        """Whether the response is what the outcome `done` answers."""
        local = scope.with_locals(done_pages=0, done_bytes=0, part_pages=0, index=0, errno=0, to=0)
        response = scope["response"]
        for answer in self.call.outcomes["done"]:
            if answer.cannot is None and answer.guard.serves(self.combo.transport.name):
                wanted = field_values(answer.fields, local)
                return all(
                    all(getattr(response[name], inner) == number for inner, number in value.items())
                    if isinstance(value, dict)
                    else response[name] == value
                    for name, value in wanted.items()
                )
        return False

    def fact_after(self, expr: Expr, index: int) -> PageState:
        """Return what a fact becomes on the pages of a part that is done: SHARED stands for true."""
        convert, scope = self.call.convert, self.scope
        if convert is not None and convert.each is not None:
            scope = scope.with_locals(it=self.request[convert.each][index], index=index)
        return PageState.SHARED if scope.true(expr) else PageState.PRIVATE

    # -- bytes --------------------------------------------------------------------------------------------------

    def blocks(self, *access: str) -> list[tuple[int, int]]:
        """Return where the blocks of the call with this access lie: first address, address behind the last byte."""
        blocks = dict(self.combo.transport.placements[self.call.request].blocks)
        if self.call.response is not None:
            blocks.update(self.combo.transport.placements[self.call.response].blocks)
        out = []
        for block in blocks.values():
            if block.access in access and block.at is not None:
                start = self.scope.int(block.at)
                out.append((start, start + max(self.scope.int(block.size), 0)))
        return out


def registers_of(combo: Combo, call: Call) -> set[str]:
    """Return the registers that an answer may write."""
    if call.response is None:
        return set()
    placement = combo.transport.placements[call.response]
    found: set[str] = set()
    for places in placement.place.values():
        match places[0]:
            case RegisterPlace(register=register):
                found.add(register)
            case PairPlace(high=high, low=low):
                found |= {high, low}
            case BlockPlace():
                pass
    blocks = {**combo.transport.placements[call.request].blocks, **placement.blocks}
    return found | {register for block in blocks.values() if block.access != "in" for register in block.registers}


def endings(call: Call) -> set[tuple[str, str | None]]:
    """Return how the call may end: what its rules, outcomes and its user space's errnos say."""
    answers: list[Answer | None] = [rule.answer for rule in call.rules]
    answers += [answer for choices in call.outcomes.values() for answer in choices]
    answers += [row.answer for row in call.vmm.errno] if call.vmm else []
    return {(answer.end, answer.fault) for answer in answers if answer is not None and answer.cannot is None}


def laid(ranges: list[tuple[int, int, PageState]], parts: list[tuple[int, int, PageState | None]]) -> Any:
    """Return sorted and joined ranges that are not private, after parts were given their states one by one."""
    for start, pages, to in parts:
        end = min(start + pages, GPA_PAGES)
        if to is None or start >= end:
            continue
        kept = []
        for first, last, state in ranges:
            if first < start:
                kept.append((first, min(last, start), state))
            if last > end:
                kept.append((max(first, end), last, state))
        ranges = sorted([*kept, (start, end, to)] if to is not PageState.PRIVATE else kept)
    out: list[tuple[int, int, PageState]] = []
    for first, last, state in ranges:
        if first >= last:
            continue
        if out and out[-1][1] == first and out[-1][2] is state:
            out[-1] = (out[-1][0], last, state)
        else:
            out.append((first, last, state))
    return out


class Fuzzer:
    """A run of seeded calls against the hosts of one ABI, and the account of what they hit."""

    def __init__(self, abi: str, seed: int) -> None:
        self.rng = Random(f"{abi} {seed}")
        self.combos = combos(abi)
        self.mutator = Mutator(abi, self.rng)
        self.kept: dict[str | None, list[Input]] = {}
        self.hits: Counter[str] = Counter({rule: 0 for rule in host_rules(abi)})
        self.accepted = 0
        self.compared = 0
        self.rare: list[str] = []
        """Kept rules that were hit least."""
        self.missing: list[int] = []
        """Combinations that have a rule which was hit hardly or not at all."""

    def next_input(self) -> Input:
        """Return a new mutation of a right request, or one of an input that reached something rare."""
        rng = self.rng
        what = rng.random()
        if what < 0.35 or not self.kept:
            for _ in range(64):
                seek = self.missing and rng.random() < 0.6
                combo = rng.choice(self.missing) if seek else rng.randrange(len(self.combos))
                made = self.mutator.request(combo, self.combos[combo])
                if made is not None:
                    return made
        known = self.kept.get(None)
        if known and what < 0.6:
            found = rng.choice(known)
        else:
            found = rng.choice(
                self.kept[rng.choice(self.rare) if self.rare and what < 0.9 else rng.choice(list(self.kept))]
            )
        combo = self.combos[found.combo]
        if rng.random() < 0.75:
            found = self.mutator.surroundings(combo, found, rng.choice((0, 1, 1, 2)))
        return self.mutator.wire(found) if rng.random() < 0.4 else found

    def keep(self, given: Input, answer: HostAnswer) -> None:
        """Count the answer, and keep some inputs of each kind."""
        accepted = answer.rule is None and answer.status in (Status.DONE, Status.PARTIAL)
        self.accepted += accepted
        if answer.rule is not None:
            self.hits[answer.rule] += 1
        elif not accepted:
            return
        kept = self.kept.setdefault(answer.rule, [])
        if len(kept) < _KEPT:
            kept.append(given)
        elif self.rng.random() < 0.05:
            kept[self.rng.randrange(_KEPT)] = given

    def run(self, calls: int) -> None:
        """Make the calls; an assertion or another exception comes with its reproducer."""
        sample = SAMPLE.get(self.combos[0].spec.id, 50)
        for number in range(calls):
            if number % 256 == 0:
                self._look_around()
            given = self.next_input()
            try:
                answer = self.one(given, compare=number % sample == 0)
            except Exception as error:
                error.add_note(f"{self.combos[given.combo]}\n{given.shown()}")
                raise
            self.keep(given, answer)

    def _look_around(self) -> None:
        order = sorted((rule for rule in self.kept if rule is not None), key=lambda rule: self.hits[rule])
        self.rare = order[: max(len(order) // 4, 1)] if order else []
        least = {rule for rule, hits in self.hits.items() if hits < HITS // CHUNKS}
        self.missing = [n for n, combo in enumerate(self.combos) if least & {rule.id for rule in combo.rules()}]

    def one(self, given: Input, *, compare: bool = False) -> HostAnswer:
        """Make one call and check everything about its answer."""
        combo = self.combos[given.combo]
        host = combo.host(given.config, enabled=given.enabled)
        layout = _EVERYTHING if given.slots is None else MemoryLayout(given.slots)
        placements = combo.transport.placements.values()
        own_space = any(block.space for placement in placements for block in placement.blocks.values())
        host.backend = Backend(layout=layout, max_ranges=given.max_ranges, facts=combo.abi.facts)
        facts: dict[str, list[tuple[int, int]]] = {}
        for name, start, end in given.facts:
            facts.setdefault(name, []).append((start, end))
        host.backend.reset(given.before, facts)
        memory = WatchedMemory(_EVERYTHING if own_space else layout, given.mem)
        host.memory = memory
        answer = self._ask(given, host)
        reading = Reading(combo, given, answer)
        self._check_answer(reading, memory)
        after = [(run.start, run.end, run.state) for run in host.backend.query()]
        self._check_pages(reading, after, host.backend)
        if compare and not given.exits:
            self._compare(reading, after, host.backend, memory)
        return answer

    def _ask(self, given: Input, host: Any) -> HostAnswer:
        if not given.exits:
            return host.answer(given.regs, cpl=given.cpl, inject=given.inject)
        call = host.call(given.regs, cpl=given.cpl, inject=given.inject, exits=True)
        try:
            next(call)
            for _ in range(64):
                call.send(self._reply(given))
            call.close()
        except StopIteration as end:
            answer: HostAnswer = end.value
            return answer
        pytest.skip("unreachable")

    def _reply(self, given: Input) -> VmmReply:
        return VmmReply(errno=self.rng.choice((0, 0, 0, 22, 11)))

    def _check_answer(self, reading: Reading, memory: WatchedMemory) -> None:
        answer, call = reading.answer, reading.call
        if not (answer.end == "stop" and (answer.reason or "").startswith("the answer cannot be written")):
            assert (answer.end, answer.fault) in endings(call), "an ending that the call does not have"
        assert set(answer.regs) <= registers_of(reading.combo, call), "a register that is no output"
        for name, value in answer.regs.items():
            assert 0 <= value < 1 << register_bits(name), f"{name} is too wide"
        assert not memory.read_twice(), "a byte was read twice"
        if answer.mem:
            areas = reading.blocks("out", "inout")
            for address, data in answer.mem:
                assert any(lo <= address and address + len(data) <= hi for lo, hi in areas), "written outside"

    def _check_pages(self, reading: Reading, after: list[tuple[int, int, PageState]], backend: Backend) -> None:
        given = reading.given
        before = laid(list(given.before), [])
        refused = reading.answer.rule is not None and reading.call.progress is None
        try:
            # Some hosts refuse with what reads as success; all that counts then is that nothing changed.
            parts = [] if refused else reading.reported()
        except HvAbiError:
            parts = []  # a request that cannot be read names no pages, and an answer to it none that are done
        wanted = laid(before, parts)
        assert after == wanted, f"the answer reports {wanted}, the pages are {after}: {reading.answer}"
        changes = reading.call.convert.facts if reading.call.convert is not None else {}
        for fact in reading.combo.abi.facts:
            truth = laid([(a, b, PageState.SHARED) for name, a, b in given.facts if name == fact], [])
            for index, (start, pages, _) in enumerate(parts if fact in changes else ()):
                truth = laid(truth, [(start, pages, reading.fact_after(changes[fact], index))])
            found = [(run.start, run.end, PageState.SHARED) for run in backend.fact_runs(fact)]
            assert found == truth, f"fact {fact}: the answer reports {truth}, the pages are {found}: {reading.answer}"

    def _compare(
        self, reading: Reading, after: list[tuple[int, int, PageState]], backend: Backend, memory: WatchedMemory
    ) -> None:
        """Compare with what the oracle says: the answer, the pages and the facts."""
        combo, given, answer = reading.combo, reading.given, reading.answer
        if dict(combo.abi.chosen) != combo.abi.policies_of(combo.abi.profile):
            return  # the oracle knows profiles, not single policies
        if given.max_ranges is not None and (given.facts or answer.status is Status.LIMIT):
            return  # to the oracle the bound is about page states alone, and what came before it stays done
        try:
            fields = {name: opened(reading.request[name]) for name in combo.abi.messages[reading.call.request].fields}
        except HvAbiError:
            return  # the oracle wants whole requests
        if not memory.readable(reading.blocks("in", "inout")):
            return  # the oracle takes fields as read, whatever lies where
        if any(len(item) > _LONGEST for item in fields.values() if isinstance(item, tuple)):
            return
        if sum(pages for _, pages, _ in reading.parts()) > _MOST_PAGES:
            return
        facts: dict[str, tuple[tuple[int, int], ...]] = {}
        for name, start, end in given.facts:
            facts[name] = (*facts.get(name, ()), (start, end))
        setup = Setup(config=dict(given.config), memory=given.slots, enabled=given.enabled, max_ranges=given.max_ranges)
        oracle = Oracle(combo.spec.id, combo.abi.revision, combo.transport.name, setup, profile=combo.abi.profile)
        expected = oracle.answers(
            fields,
            call=reading.call.name,
            cpl=given.cpl,
            inject=injected(given),
            before=tuple((start, end, state.value) for start, end, state in given.before),
            facts=facts,
            mem=given.mem,
            regs=given.regs,
        )
        seen = Seen(
            end=answer.end,
            regs=answer.regs,
            mem=answer.mem,
            fault=answer.fault,
            state=tuple((start, end, state.value) for start, end, state in after),
            facts={
                name: runs
                for name in combo.abi.facts
                if (runs := tuple((run.start, run.end) for run in backend.fact_runs(name)))
            },
        )
        judged = judge(expected, seen, sent=given.regs, before=Bytes(given.mem), step=0)
        assert not judged.findings, f"the oracle wants {judged.nearest}: {judged.findings}, answered {answer}"
        self.compared += 1


def injected(given: Input) -> Inject | None:
    """Return the fault of a call in the words of the oracle; a flip does not change what is read first."""
    fault = given.inject
    if fault.vmm_errno is not None:
        return Inject(fault="vmm-error", arguments={"errno": fault.vmm_errno})
    if fault.stop_after is not None:
        return Inject(fault="stop-after", arguments={"pages": fault.stop_after})
    if fault.event_after is not None:
        return Inject(fault="event-pending", arguments={"after": fault.event_after})
    return None


@pytest.mark.parametrize("chunk", [0, *(pytest.param(chunk, marks=pytest.mark.slow) for chunk in range(1, CHUNKS))])
@pytest.mark.parametrize("abi", SERVED)
def test_a_host_answers_mutated_calls_legally_and_does_what_it_says(abi: str, chunk: int) -> None:
    fuzzer = Fuzzer(abi, chunk)
    fuzzer.run(CALLS // CHUNKS)
    missed = {rule for rule, hits in fuzzer.hits.items() if hits < HITS // CHUNKS}
    assert missed == set(UNREACHABLE.get(abi, {})), fuzzer.hits
    assert not any(fuzzer.hits[rule] for rule in missed), "reached, but too seldom"
    assert fuzzer.accepted >= CALLS // CHUNKS // 10
