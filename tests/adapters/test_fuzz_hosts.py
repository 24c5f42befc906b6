"""Hosts under 100 000 calls each, mutated from right ones: a listed answer, and pages that change as it says.

Inputs that reach a rule are kept and mutated again, so that every rule is reached often; a rule that is not reached
by itself begins with the requests that the generator of cases tries for it. What an answer reports is
read back from registers and bytes with the codec of the response; the pages that it reports must have changed, and
no others. One call in `SAMPLE` is also put to the conformance oracle.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING

import pytest

from hvabi.abi.errors import HvAbiError
from hvabi.abi.registry import abi_ids, bundled
from hvabi.abi.wire import register_bits
from hvabi.adapters.values import Injection, VmmReply
from hvabi.backend import Backend, GuestMemory, MemoryLayout, ModelError, OutsideMemory, PageState, Status
from hvabi.conformance.bytesmap import Bytes, Spans
from hvabi.conformance.case import Inject, Setup
from hvabi.conformance.judge import Seen, judge
from hvabi.conformance.oracle import Oracle
from tests.adapters.fuzz_reading import Reading, endings, laid, registers_of
from tests.adapters.fuzz_seeds import tried
from tests.fuzzing import Input, Memory, combos, host_rules, mending, opened
from tests.mutating import Aim, Mutator

if TYPE_CHECKING:
    from hvabi.adapters.host import Host
    from hvabi.adapters.values import HostAnswer

CALLS = 100_000
"""Calls for each ABI, in all its chunks together."""
CHUNKS = 10
HITS = 100
"""Least answers by each rule, in all chunks together."""
SAMPLE = {"hyperv-host-visibility": 400, "ffa-mem-share": 400, "ghcb-psc": 250}
"""One call in so many, by default one in 50, is compared with the oracle, which tries every open policy and so takes
up to a hundred times as long as the host."""
_LONGEST = 32
"""Longest list that the oracle is given: it goes through some lists for each of their elements."""
_MOST_PAGES = 1 << 16
"""Most pages that the oracle is asked about: it goes from chunk to chunk."""
_KEPT = 64
_SEEDED = 4096
"""Calls after which rules that were not reached are begun with requests that the generator of cases tries."""
_EVERYTHING = MemoryLayout(None)

SERVED = [abi for abi in abi_ids() if not bundled(abi).draft]

_NO_HANDLE = "each call is the first one of its host, so no handle is alive"

_WHICH_SET = "where the number cannot be read nobody can tell which SET it is, and `set` answers the same"

UNREACHABLE: dict[str, dict[str, str]] = {
    "kvm-shared-pages-list": {"KVM-SHLIST-32": _WHICH_SET},
    "ffa-mem-share": {
        **{f"FFA-FRAG-{number:02}": _NO_HANDLE for number in range(8, 20)},
        **dict.fromkeys(("FFA-RECLAIM-02", "FFA-SHARE-52"), _NO_HANDLE),
    },
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
        return any(end > start for (_, end), (start, _) in pairwise(log))


class Fuzzer:
    """A run of seeded calls against the hosts of one ABI, and the account of what they hit."""

    def __init__(self, abi: str, seed: int) -> None:
        self.rng = Random(f"{abi} {seed}")
        self.combos = combos(abi)
        self.mutator = Mutator(abi, self.rng)
        self.kept: dict[str | None, list[Input]] = {}
        self.hits: Counter[str] = Counter(dict.fromkeys(sorted(host_rules(abi)), 0))
        self.accepted = 0
        self.compared = 0
        self.rare: list[str] = []
        """Kept rules that were hit least."""
        self.missing: list[tuple[Aim, list[int]]] = []
        """Rules that were hit hardly or not at all, and the combinations that have them."""

    def next_input(self) -> Input:
        """Return a new mutation of a right request, or one of an input that reached something rare."""
        rng = self.rng
        what = rng.random()
        if what < 0.35 or not self.kept:
            for _ in range(64):
                made = self._new_request()
                if made is not None:
                    return made
        known = self.kept.get(None)
        if known and what < 0.6:
            found = rng.choice(known)
        else:
            found = rng.choice(
                self.kept[rng.choice(self.rare) if self.rare and what < 0.9 else rng.choice(list(self.kept))]
            )
        if rng.random() < 0.75:
            found = self.mutator.surroundings(self.combos[found.combo], found, rng.choice((0, 1, 1, 2)))
        return self.mutator.wire(found) if rng.random() < 0.4 else found

    def _new_request(self) -> Input | None:
        """Return a mutated right request, more often than not one that may hit a rule which was hit too seldom."""
        rng = self.rng
        combo, aim = rng.randrange(len(self.combos)), None
        if self.missing and rng.random() < 0.6:
            aim, having = rng.choice(self.missing)
            combo = rng.choice(having)
        self.mutator.aim = aim
        try:
            return self.mutator.request(combo, self.combos[combo])
        finally:
            self.mutator.aim = None

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
            if number == _SEEDED:
                self._seed()
            self._try(self.next_input(), compare=number % sample == 0)

    def _try(self, given: Input, *, compare: bool = False) -> None:
        try:
            answer = self.one(given, compare=compare)
        except Exception as error:
            error.add_note(f"{self.combos[given.combo]}\n{given.shown()}")
            raise
        self.keep(given, answer)

    def _seed(self) -> None:
        """Make the calls that the generator of cases tries for each rule that was not reached."""
        for aim, having in self.missing:
            for given in (one for number in having for one in tried(number, self.combos[number], aim.rule)):
                if self.hits[aim.rule] >= HITS // CHUNKS:
                    break
                self._try(given)

    def _look_around(self) -> None:
        order = sorted((rule for rule in self.kept if rule is not None), key=lambda rule: self.hits[rule])
        self.rare = order[: max(len(order) // 4, 1)] if order else []
        self.missing = []
        low = {rule for rule, hits in self.hits.items() if hits < HITS // CHUNKS}
        for ident in sorted(low - set(UNREACHABLE.get(self.combos[0].spec.id, {}))):
            having = [n for n, combo in enumerate(self.combos) if ident in {rule.id for rule in combo.rules()}]
            if having:
                combo = self.combos[having[0]]
                rule = next(rule for rule in combo.rules() if rule.id == ident)
                self.missing.append((Aim.at(combo.abi, rule), having))

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
        host.reset()
        memory = WatchedMemory(_EVERYTHING if own_space else layout, given.mem)
        host.memory = memory
        first = answer = self._ask(given, host)
        reading = Reading(combo, given, answer)
        self._check_answer(reading, memory)
        after = [(run.start, run.end, run.state) for run in host.backend.query()]
        self._check_pages(reading, after, host.backend)
        while mending(combo, answer) is not None:
            answer = self._ask(replace(given, inject=Injection()), host)
            reading = Reading(combo, given, answer)
            after = [(run.start, run.end, run.state) for run in host.backend.query()]
        if compare and not given.exits:
            self._compare(reading, after, host.backend, memory)
        return first

    def _ask(self, given: Input, host: Host) -> HostAnswer:
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
        pytest.fail("a host asked its user space 64 times")

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
            areas = Spans(reading.blocks("out", "inout"))
            written = Spans((address, address + len(data)) for address, data in answer.mem)
            assert written.within(areas), "written outside"

    def _check_pages(self, reading: Reading, after: list[tuple[int, int, PageState]], backend: Backend) -> None:
        given = reading.given
        before = laid(list(given.before), [])
        answer = reading.answer
        # Registers may hold what reads as success before the call: an answer that writes nothing says nothing.
        silent = not answer.regs and not answer.mem
        broken = reading.call.rule(answer.rule) if answer.rule is not None else None
        # What is observed of one host may read as success and be none.
        odd = broken is not None and broken.level == "observed" and broken.scope == "call"
        refused = answer.rule is not None and (reading.call.progress is None or silent or odd)
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
            rule = mending(reading.combo, reading.answer)
            if rule is not None and rule.words["name"] == fact:
                start, pages, truth_now = reading.mended(rule)
                truth = laid(truth, [(start, pages, PageState.SHARED if truth_now else PageState.PRIVATE)])
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


def test_an_aim_is_what_a_rule_looks_at() -> None:
    abi = bundled("svsm-pvalidate")
    rules = {rule.id: rule for rule in abi.calls["pvalidate"].rules}
    last, split = Aim.at(abi, rules["SVSM-PVAL-16"]), Aim.at(abi, rules["SVSM-PVAL-20"])
    assert last.fields >= {"entries", "pfn", "page_size"}
    assert not last.fields & {"call_id", "ignore_cf", "list_gpa"}
    assert (set(last.facts), last.around) == (set(), None)
    assert set(split.facts) == {"split"}
    assert split.around is not None


@pytest.mark.parametrize("chunk", [0, *(pytest.param(chunk, marks=pytest.mark.slow) for chunk in range(1, CHUNKS))])
@pytest.mark.parametrize("abi", SERVED)
def test_a_host_answers_mutated_calls_legally_and_does_what_it_says(abi: str, chunk: int) -> None:
    fuzzer = Fuzzer(abi, chunk)
    fuzzer.run(CALLS // CHUNKS)
    missed = {rule for rule, hits in fuzzer.hits.items() if hits < HITS // CHUNKS}
    assert missed == set(UNREACHABLE.get(abi, {})), fuzzer.hits
    assert not any(fuzzer.hits[rule] for rule in missed), "reached, but too seldom"
    assert fuzzer.accepted >= CALLS // CHUNKS // 10
