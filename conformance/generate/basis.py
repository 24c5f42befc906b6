"""Right requests to begin from: what the specification's own guest would send, on one transport."""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from hvabi.abi.calls import GATHERED
from hvabi.abi.registry import Spec, bundled, load
from hvabi.abi.values import plain
from hvabi.adapters.batch import plan
from hvabi.adapters.registry import guest_class
from hvabi.backend import PageState
from hvabi.conformance.case import Case, Expected, HostStep, Level, Memory, Ranges, Setup
from hvabi.conformance.generate.question import PLACE, Question, as_fields
from hvabi.conformance.generate.way import at_the_end, continued, handles_of, way_steps
from hvabi.conformance.oracle import Oracle
from hvabi.conformance.oracle.answers import Request
from hvabi.conformance.oracle.checks import holds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from hvabi.abi.calls import Rule
    from hvabi.abi.codec import MessageCodec
    from hvabi.adapters.guest import Guest

SCRATCH = (0x10, 0x14)
"""Pages where structures in memory lie: below every range that is converted."""
_LAST = 4
"""Questions of which a basis remembers what it worked out."""
NEIGHBOURS = 2
"""Pages on each side of a converted range whose state is laid down and must not change."""


class Basis:
    """One revision of one ABI on one transport under one profile: codec, oracle and right requests.

    Args:
        spec: the ABI, resolved.
        transport: the transport.
        call: name of the call, the one that converts by default.

    """

    def __init__(self, spec: Spec, transport: str, call: str | None = None) -> None:
        self.spec = spec
        self.abi = spec.abi
        self.transport = transport
        found = self.abi.calls[call] if call is not None else self.abi.convert_call
        assert found is not None  # generators look first
        self.call = found
        self.prefix = f"{spec.id}@{self.abi.revision}"
        self._codecs: dict[tuple[tuple[str, int], ...], MessageCodec] = {}
        #: Where the ways of the last questions lead to: each is looked at several times in a row.
        self.ends: deque[tuple[Question, Question]] = deque(maxlen=_LAST)
        self.judged: dict[tuple[object, ...], Any] | None = None
        """What `judge` found for each request, by all that bears on it; None outside of `remembering`."""
        self._wires: dict[int, tuple[Question, tuple[dict[str, int], Memory]]] = {}

    @contextmanager
    def remembering(self) -> Iterator[None]:
        """Keep what was judged while cases are made: most requests come up for several rules."""
        self.judged = {}
        try:
            yield
        finally:
            self.judged = None
            self._wires.clear()

    def codec(self, setup: Setup) -> MessageCodec:
        """Return the codec of the request under a setup."""
        key = tuple(sorted(setup.config.items()))
        if key not in self._codecs:
            self._codecs[key] = self.spec.message(self.call.request, transport=self.transport, config=setup.config)
        return self._codecs[key]

    @property
    def single_pages(self) -> bool:
        """Whether requests are lists with one page in each element: a long list then takes long, and shows no more."""
        guest = self.call.guest
        return self.call.each is not None and guest is not None and guest.element_pages in ((), (1,))

    def carries(self, name: str) -> bool:
        """Whether a field of the request has a place on this transport."""
        return bool(self.abi.transports[self.transport].placements[self.call.request].place.get(name))

    def states(self) -> list[str]:
        """Return the states that can be asked for; for a question, those that it can find."""
        if self.call.query is not None:
            return ["private", "shared"] if self.call.guest is not None else []
        if self.call.handle is not None and self.call.handle.does == "continue":
            return self.opening().states()
        if self.call.guest is not None:
            return list(self.call.guest.states)
        to = self.call.convert.to if self.call.convert else None
        return (
            sorted({state for state in (*to.states.values(), to.otherwise) if state not in (None, "none")})
            if to
            else []
        )

    def request(
        self, start: int, pages: int, to: str, *, config: Mapping[str, int] | None = None
    ) -> dict[str, Any] | None:
        """Return the fields of the first request that converts [start, start + pages), None where none can.

        A call with one request only has it, whatever pages it is to be about.
        """
        if self.continues:
            return None
        if self.call.guest is None:
            codec = self.spec.message(self.call.request, transport=self.transport, config=config)
            return as_fields(codec.complete({})) if self.abi.is_plain(self.call) else None
        guest = self.guest(config=config)
        if not guest.can_name(start << 12, pages, PageState(to)):
            return None
        return as_fields(self.first_request(guest, start, pages, to))

    def guest(self, *, config: Mapping[str, int] | None = None, scratch: tuple[int, int] = SCRATCH) -> Guest:
        """Return a guest that makes this call. Only where the call has a guest's side."""
        make = guest_class(self.spec.id)
        return make(self.spec, transport=self.transport, config=config or {}, scratch=scratch, call=self.call.name)

    @staticmethod
    def first_request(guest: Guest, start: int, pages: int, to: str) -> Any:
        """Return the value of the first request with which a guest converts [start, start + pages)."""
        return next(plan(guest, start, pages, PageState(to))).request

    def reach(self, pages: int = 1024) -> int:
        """Return the most pages that one request names, up to `pages`."""
        if self.call.guest is None or self.continues or not self.states():
            return 0
        guest = self.guest()
        return next(plan(guest, PLACE, pages, PageState(self.states()[0]))).pages

    def most_elements(self) -> int:
        """Return the most elements that a guest puts into one request, 1 where the call has no list."""
        fields = self.request(PLACE + 1, 20000, self.states()[0])
        each = self.call.each
        return len(fields[each]) if fields is not None and each is not None else 1

    def question(self, start: int = PLACE, pages: int = 1, to: str = "shared") -> Question | None:
        """Return a right request amid pages of the other state, or None where the ABI cannot ask for it.

        A question is asked about pages that are in state `to`, amid pages of the other state.
        """
        if self.continues:
            return continued(self, start, pages, to)
        fields = self.request(start, pages, to)
        if fields is None:
            return None
        if self.call.query is not None:
            end = start + pages
            before: Ranges = ((start, end, to),)
            if to == "private":
                before = ((start - NEIGHBOURS, start, "shared"), (end, end + NEIGHBOURS, "shared"))
            return Question(fields=fields, before=before, call=self.call.name)
        return Question(fields=fields, **self.laid(start, pages, to), call=self.call.name)

    def laid(self, start: int, pages: int, to: str) -> dict[str, Any]:
        """Return `before` and `facts` in which a conversion of [start, start + pages) changes every page.

        Where a call changes facts only, the pages have the other facts and the states say nothing.
        """
        wanted = self.stands_for(to)
        if not wanted:
            return {"before": around(start, pages, to)}
        facts = {}
        for name, value in wanted.items():
            edges = ((start - NEIGHBOURS, start - 1), (start + pages + 1, start + pages + NEIGHBOURS))
            facts[name] = edges if value else ((start - NEIGHBOURS, start + pages + NEIGHBOURS),)
        return {"facts": facts}

    def stands_for(self, to: str) -> Mapping[str, bool]:
        """Return the facts that a state stands for, none where the call changes states."""
        return self.call.convert.stands_for.get(to, {}) if self.call.convert else {}

    @property
    def continues(self) -> bool:
        """Whether the call is about a handle that an earlier one gave."""
        return self.call.handle is not None and self.call.handle.of is not None

    def elements(self, rule: Rule) -> str | None:
        """Return the list field of the request whose elements a rule is about, None where there is none."""
        name = rule.words.get("each", self.call.each)
        if name == GATHERED:
            name = self.call.handle.list if self.call.handle is not None else None
        return name

    def opening(self) -> Basis:
        """Return the basis of the call that gives handles."""
        name = next(call.name for call in self.abi.calls.values() if call.handle and call.handle.does == "open")
        return self.of_call(name)

    def of_call(self, name: str | None) -> Basis:
        """Return the basis of another call of the ABI, None standing for the one that converts."""
        first = self.abi.convert_call
        other = None if first is not None and name == first.name else name
        return basis_of(self.spec.id, self.abi.revision, self.transport, self.abi.profile, other)

    def usual(self, pages: int = 1) -> Question | None:
        """Return a right request about that many pages, rounded up, in the first state that can be asked for."""
        unit = self.granule()
        states = self.states()
        if not states and not self.abi.is_plain(self.call):
            return None
        return self.question(PLACE, -(-pages // unit) * unit, *states[:1])

    def granule(self) -> int:
        """Return the least pages that one conversion has."""
        guest = self.call.guest
        if guest is None or guest.granule is None:
            return 1
        codec = self.codec(Setup())
        _, scope = codec.reader(_Empty())
        return max(scope.int(guest.granule) // 4096, 1)

    def oracle(self, setup: Setup) -> Oracle:
        """Return the oracle under a setup."""
        return Oracle(self.spec.id, self.abi.revision, self.transport, setup, profile=self.abi.profile)

    def wire(self, question: Question) -> tuple[dict[str, int], Memory]:
        """Return registers and memory of a request; bytes behind the last address cannot be placed."""
        known = self._wires.get(id(question))
        if known is not None:
            return dict(known[1][0]), known[1][1]
        wire = self.codec(question.setup).encode(question.fields)
        mem = tuple((start, data[: (1 << 64) - start]) for start, data in wire.mem if 0 <= start < 1 << 64)
        return {**wire.regs, **question.regs}, mem

    def keep_wire(self, question: Question, wire: tuple[dict[str, int], Memory]) -> None:
        """Keep registers and memory of a request that was judged: its cases need them again."""
        if self.judged is not None:
            self._wires[id(question)] = question, wire  # the question too, so that its id is not given to another one

    def answers(self, question: Question, wire: tuple[dict[str, int], Memory] | None = None) -> tuple[Expected, ...]:
        """Return every right answer; `wire` are the question's registers and memory where they are known."""
        regs, mem = wire or self.wire(question)
        there = at_the_end(self, question)
        return self.oracle(question.setup).answers(
            question.fields,
            call=question.call,
            cpl=question.cpl,
            inject=question.inject,
            before=there.before,
            facts=there.facts,
            mem=mem,
            regs=regs,
            held=there.held,
        )

    def may_be_asked(self, question: Question) -> bool:
        """Whether pages are in such states that a guest may make the call at all: else no answer is laid down."""
        rules = [
            rule
            for rule in self.call.rules
            if rule.binds == "guest" and rule.check == "in-state" and rule.level == "must"
        ]
        if not rules:
            return True
        asked = Request(
            self.oracle(question.setup), self.abi, question.call, question.fields, 0, None, question.before, {}, None
        )
        return all(holds(rule, asked) for rule in rules)

    def step(self, question: Question, expected: tuple[Expected, ...]) -> HostStep:
        """Return a step that asks the question, its way left out."""
        regs, mem = self.wire(question)
        return HostStep(
            handles=handles_of(self, question.fields, at_the_end(self, question).held),
            call=self.call.name,
            regs=regs,
            mem=mem,
            cpl=question.cpl,
            inject=question.inject,
            expected=expected,
            fields=plain_fields(question.fields),
        )

    def case(
        self,
        question: Question,
        group: str,
        name: str,
        *,
        rules: Iterable[str],
        why: str,
        kind: str,
        level: Level = "must",
        expected: tuple[Expected, ...] | None = None,
        more: tuple[HostStep, ...] = (),
    ) -> Case:
        """Return a host case of one question, or of one and the steps after it."""
        answers = self.answers(question) if expected is None else expected
        first = self.step(question, answers)
        way = way_steps(self, question)
        if not self.may_be_asked(question) or (more and not self.may_be_asked(vary(question, before=answers[0].state))):
            level = "unspecified"
        uses_faults = any(step.inject is not None for step in (first, *more))
        if self.call.convert is None:
            # A question has no state that is asked for: the names speak of the state that is found.
            name = name.replace("-to-", "-of-")
        if self.call.convert is None or self.call is not self.abi.convert_call:
            # A rule of another value of an open policy is a rule of the call all the same.
            about_rule = bundled(self.spec.id).calls[self.call.name].rule(group) is not None
            group = group if about_rule else f"{self.call.name}-{group}"
        return Case(
            id=f"{self.prefix}.host.{self.transport}.{group}.{name}",
            abi=self.spec.id,
            revision=self.abi.revision,
            role="host",
            transport=self.transport,
            rules=tuple(dict.fromkeys(rules)),
            level=level,
            why=why,
            kind=kind,
            setup=question.setup,
            before=question.before,
            facts=question.facts,
            steps=(*way, first, *more),
            call=None if self.call is self.abi.convert_call else self.call.name,
            profile=None if self.abi.profile == "spec" else self.abi.profile,
            features=("inject",) if uses_faults else (),
        )


def host_rules(basis: Basis) -> Iterator[Rule]:
    """Yield the rules that bind the host on this transport, in order."""
    for rule in basis.call.rules:
        if rule.binds != "host" or rule.on != "request" or not rule.guard.serves(basis.transport):
            continue
        if rule.level == "observed" and basis.abi.profile == "spec":
            continue
        yield rule


class _Empty:
    def register(self, name: str) -> int | None:
        return None

    def read(self, block: str, address: int, size: int) -> bytes | None:
        return None


def plain_fields(fields: Mapping[str, Any]) -> dict[str, object]:
    """Return fields for people."""
    return {name: plain(item) for name, item in fields.items()}


def around(start: int, pages: int, to: str) -> Ranges:
    """Return a state in which every page of [start, end) is in the other state, and so are its neighbours."""
    if to == "private":
        return ((start - NEIGHBOURS, start + pages + NEIGHBOURS, "shared"),)
    # The outermost neighbours show that nothing beyond the range is touched.
    return ((start - NEIGHBOURS, start - 1, "shared"), (start + pages + 1, start + pages + NEIGHBOURS, "shared"))


def vary(question: Question, **changes: Any) -> Question:
    """Return the question with some of it changed; ``fields`` are laid over the old ones."""
    fields = changes.pop("fields", None)
    if fields is not None:
        changes["fields"] = {**question.fields, **fields}
    return replace(question, **changes)


@cache
def basis_of(abi: str, revision: str, transport: str, profile: str, call: str | None = None) -> Basis:
    """Return the basis, made once."""
    return Basis(load(abi, revision=revision, profile=profile), transport, call)


__all__ = [
    "NEIGHBOURS",
    "PLACE",
    "SCRATCH",
    "Basis",
    "Question",
    "around",
    "as_fields",
    "basis_of",
    "plain_fields",
    "vary",
]
