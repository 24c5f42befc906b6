"""What a host must answer and what then must be true of the pages, under every policy that is left open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hvabi.abi.model import RegisterPlace
from hvabi.abi.registry import load
from hvabi.abi.specification import SPEC_PROFILE
from hvabi.conformance.case import Expected
from hvabi.conformance.oracle.checks import holds
from hvabi.conformance.oracle.pages import FactSet, PageSet, inside
from hvabi.conformance.oracle.placed import place_answer
from hvabi.conformance.oracle.walk import STATES, Names, Undefined, value

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hvabi.abi.calls import Answer, Call, Rule
    from hvabi.abi.expr import Expr
    from hvabi.abi.model import Transport
    from hvabi.abi.specification import Abi
    from hvabi.conformance.case import Inject, Memory, Pages, Ranges, Setup

_PAGE = 4096
_LAST_PAGE = 1 << 52


class Oracle:
    """Right answers of a host of one ABI on one transport, from the specification alone.

    Args:
        abi: id of the ABI.
        revision: its revision.
        transport: the transport.
        setup: configuration, memory, whether the call is switched on, bound on ranges.
        profile: the profile that the implementation declares; under ``spec`` open policies give alternatives.

    """

    def __init__(self, abi: str, revision: str, transport: str, setup: Setup, *, profile: str = SPEC_PROFILE) -> None:
        self.id = abi
        self.revision = revision
        self.transport_name = transport
        self.setup = setup
        self.profile = profile

    def answers(
        self,
        fields: Mapping[str, Any],
        *,
        call: str | None = None,
        cpl: int = 0,
        inject: Inject | None = None,
        before: Ranges = (),
        facts: Mapping[str, Pages] | None = None,
        mem: Memory = (),
        regs: Mapping[str, int] | None = None,
    ) -> tuple[Expected, ...]:
        """Return every right answer to a request.

        Args:
            fields: the whole request: integers, words as mappings or integers, lists as sequences of those.
            call: the call of the ABI, the first by default.
            cpl: privilege of the caller, as far as the transport shows it.
            inject: fault for this call.
            before: pages that are not private.
            facts: facts that are true.
            mem: bytes as placed, for what an answer leaves unchanged.
            regs: registers as sent, for the same and for the selection of the call.

        """
        found: list[Expected] = []
        for policies in self._choices():
            abi = load(self.id, revision=self.revision, profile=self.profile, policies=policies).abi
            request = Request(self, abi, call, fields, cpl, inject, before, facts or {}, regs)
            for answer in request.answers(policies):
                if not any(_same(answer, other) for other in found):
                    found.append(answer)
        return tuple(found)

    def _choices(self) -> Iterator[dict[str, str]]:
        """Return the values of open policies: the defaults first, then each other value alone.

        Two policies that only together make a third answer are not known; every combination would cost too much.
        """
        abi = load(self.id, revision=self.revision, profile=self.profile).abi
        if self.profile != SPEC_PROFILE:
            yield {}
            return
        open_ones = [policy for policy in abi.policies.values() if policy.open]
        defaults = {policy.name: policy.default for policy in open_ones}
        yield defaults
        for policy in open_ones:
            for other in policy.values:
                if other != policy.default:
                    yield {**defaults, policy.name: other}


def _same(one: Expected, other: Expected) -> bool:
    """Whether two expectations ask for the same, policies and words aside."""
    return all(
        getattr(one, name) == getattr(other, name)
        for name in (
            "end",
            "regs",
            "mem",
            "may_change",
            "nonzero",
            "may_change_mem",
            "fault",
            "state",
            "facts",
            "loose",
        )
    )


class _End(Exception):  # how the brute-force work ends early
    def __init__(self, status: str, rule: Rule | None = None, answer: Answer | None = None) -> None:
        super().__init__(status)
        self.status = status
        self.rule = rule
        self.answer = answer


class Request:
    """One request under one set of policies."""

    def __init__(
        self,
        oracle: Oracle,
        abi: Abi,
        call: str | None,
        fields: Mapping[str, Any],
        cpl: int,
        inject: Inject | None,
        before: Ranges,
        facts: Mapping[str, Pages],
        regs: Mapping[str, int] | None,
    ) -> None:
        self.oracle = oracle
        self.abi = abi
        self.transport: Transport = abi.transports[oracle.transport_name]
        self.call: Call = abi.calls[call] if call else next(iter(abi.calls.values()))
        self.message = abi.messages[self.call.request]
        self.placement = self.transport.placements[self.call.request]
        self.memory = oracle.setup.memory
        self.inject = inject
        self.regs = regs
        self.pages = PageSet(before)
        self.facts = FactSet(facts)
        convert = self.call.convert
        self.each = convert.each if convert else self.call.query.each if self.call.query else None
        config = {key.name: key.default for key in abi.config.values()}
        if abi.profile != SPEC_PROFILE:
            config.update(abi.profiles[abi.profile].config)
        config.update(oracle.setup.config)
        self.config = config
        self.names = Names(
            abi,
            self.transport,
            config,
            {name: item.expr for name, item in self.call.define.items()},
            dict(fields),
            cpl=cpl if self.transport.shows_cpl else 0,
            enabled=int(oracle.setup.enabled),
        )
        self.done = 0
        self.part = 0
        self.index = 0
        self.errno = 0
        self.to: str | None = None
        self.marks: list[tuple[int, dict[str, int]]] = []

    # -- what rules ask -----------------------------------------------------------------------------------------

    def is_selected(self, named: set[str]) -> bool:
        """Whether the constants (those named, or all that lie in registers) and fixed registers match."""
        for name, field in self.message.fields.items():
            if field.const is None or (named and name not in named):
                continue
            place = self.placement.place.get(name, (None,))[0]
            if place is None or not (named or isinstance(place, RegisterPlace)):
                continue
            if self.names.fields[name] != value(field.const, self.names):
                return False
        if named or self.regs is None:
            return True
        return all(
            self.regs.get(register, 0) == value(expr, self.names) for register, expr in self.placement.fixed.items()
        )

    def is_readable(self, name: str) -> bool:
        """Whether every byte of a block is memory."""
        block = self.placement.blocks.get(name)
        if block is None or block.at is None or block.space is not None:
            return True
        start, size = value(block.at, self.names), max(value(block.size, self.names), 0)
        if start < 0 or start + size > 1 << 64 or size > 1 << 20:
            return False
        return inside(self.memory, start // _PAGE, -(-(start + size) // _PAGE) if size else start // _PAGE)

    def _rules(self, scope: str) -> Iterator[Rule]:
        for rule in self.call.rules:
            if rule.binds != "host" or rule.on != "request" or (rule.scope == "call") != (scope == "call"):
                continue
            if rule.level == "observed" and self.abi.profile == SPEC_PROFILE:
                continue
            if rule.guard.transports is None or self.transport.name in rule.guard.transports:
                yield rule

    def _breaks(self, rule: Rule, names: Names) -> bool:
        kept = self.names
        self.names = names
        try:
            return not holds(rule, self)
        except Undefined:
            return False
        finally:
            self.names = kept

    # -- answers ------------------------------------------------------------------------------------------------

    def broken(self) -> list[str]:
        """Return the ids of all rules of the whole call that the request breaks, in the order of the specification."""
        return [rule.id for rule in self._rules("call") if self._breaks(rule, self.names)]

    def answers(self, policies: Mapping[str, str]) -> Iterator[Expected]:
        """Yield the right answers: one, or one per broken rule where the order is not laid down."""
        broken = [rule for rule in self._rules("call") if self._breaks(rule, self.names)]
        if broken:
            for rule in broken[:1] if self.call.order == "stated" or self.abi.profile != SPEC_PROFILE else broken:
                yield self._refused(rule, policies)
            return
        if self.call.convert is None:
            yield self._outcome("done", policies)
            return
        try:
            self._work()
        except _End as end:
            if end.rule is not None:
                yield self._refused(end.rule, policies)
            elif end.answer is not None:
                yield self._expected(end.answer, end.status, policies)
            else:
                yield self._outcome(end.status, policies)
            return
        except Undefined:
            yield self._outcome("invalid", policies)
            return
        yield self._outcome("done", policies)

    def _local(self) -> Names:
        local: dict[str, Any] = {
            "done_pages": self.done,
            "done_bytes": self.done * _PAGE,
            "part_pages": self.part,
            "index": self.index,
            "errno": self.errno,
        }
        if self.to is not None:
            local["to"] = STATES[self.to.replace("-", "_")]
        if self.each is not None and self.index < len(self.names.fields.get(self.each, ())):
            local["it"] = self.names.fields[self.each][self.index]
        return self.names.plus(**local)

    def _refused(self, rule: Rule, policies: Mapping[str, str]) -> Expected:
        assert rule.answer is not None  # lint holds it: a rule that binds the host has an answer
        return self._expected(rule.answer, rule.means or "invalid", policies, rule)

    def _outcome(self, status: str, policies: Mapping[str, str]) -> Expected:
        names = self._local()
        for name in (status, "failed", "invalid"):
            for answer in self.call.outcomes.get(name, ()):
                if answer.cannot is not None:
                    continue
                if answer.guard.transports is not None and self.transport.name not in answer.guard.transports:
                    continue
                if answer.when is None or value(answer.when, names):
                    return self._expected(answer, status, policies)
        raise Undefined(f"{self.abi.id} has no answer for {status}")

    def _expected(self, answer: Answer, status: str, policies: Mapping[str, str], rule: Rule | None = None) -> Expected:
        placed = place_answer(self, answer, self._local())
        return Expected(
            end=answer.end,
            regs=placed.regs,
            mem=placed.mem,
            may_change=placed.may_change,
            nonzero=placed.nonzero,
            may_change_mem=placed.may_change_mem,
            fault=answer.fault,
            state=self.pages.ranges(),
            facts=self.facts.pages(),
            loose=self._loose(status, rule),
            policies=dict(policies),
            rule=rule.id if rule else None,
            status=status,
            why=rule.text if rule else self._why(status),
        )

    def _why(self, status: str) -> str:
        if status == "done":
            return "The request is right and is done as a whole."
        return f"The host's outcome is `{status}` after {self.done} pages."

    def _loose(self, status: str, rule: Rule | None) -> Pages:
        """Return the pages of which nothing is said after a call that failed on the way."""
        progress = self.call.progress
        if status == "done" or rule is not None or self.call.convert is None:
            return ()
        if progress is not None and progress.footprint == "exact":
            return ()
        return self._rest

    _rest: Pages = ()

    # -- the work, by brute force -------------------------------------------------------------------------------

    def _elements(self) -> list[tuple[int, Any, Names]]:
        convert = self.call.convert
        assert convert is not None  # the caller has looked
        if convert.each is None:
            return [(0, None, self.names)]
        items = self.names.fields[convert.each]
        first = value(convert.first, self.names) if convert.first is not None else 0
        last = value(convert.count, self.names) if convert.count is not None else len(items)
        self.index = first
        return [
            (number, items[number], self.names.plus(it=items[number], index=number))
            for number in range(first, min(last, len(items)))
        ]

    def _wanted(self, names: Names) -> tuple[int, int, str | None, bool]:
        """Return first page, pages, state asked for and whether the direction is known at all."""
        convert = self.call.convert
        assert convert is not None  # the caller has looked
        start, pages = value(convert.start, names) // _PAGE, max(value(convert.pages, names), 0)
        if convert.to is None:
            return start, pages, None, True
        number = value(convert.to.of, names)
        if number in convert.to.states:
            word = convert.to.states[number]
        elif convert.to.has_otherwise:
            word = convert.to.otherwise
        else:
            return start, pages, None, False
        return start, pages, None if word in (None, "none") else word, True

    def _work(self) -> None:
        convert = self.call.convert
        assert convert is not None  # the caller has looked
        elements = self._elements()
        begin = self.index
        wanted = [self._wanted(names) for _, _, names in elements]
        self._rest = tuple((start, start + pages) for start, pages, to, _ in wanted if to and pages)
        prevalidate = self.call.prevalidate and self.call.prevalidate[0].value == "true"
        if prevalidate:
            for (number, _, names), (start, pages, to, _) in zip(elements, wanted, strict=True):
                self.index = number
                for rule in self._rules("element"):
                    if self._breaks(rule, names):
                        self.index = begin
                        raise _End(rule.means or "invalid", rule)
                if to is not None and pages and not self._present(start, pages, to):
                    self.index = begin
                    raise _End("out-of-range")
        budget = self._budget()
        for position, ((number, item, names), (start, pages, to, known)) in enumerate(
            zip(elements, wanted, strict=True)
        ):
            self.index, self.part = number, 0
            if not prevalidate:
                for rule in self._rules("element"):
                    if self._breaks(rule, names):
                        raise _End(rule.means or "invalid", rule)
            self.to = to or self.to
            if not known and pages:
                raise _End("invalid")
            if pages and (to is not None or convert.facts):
                self._convert_one(start, pages, to, budget, names, item, last=position == len(elements) - 1)
            self._mark(number, item, names)
            self.index, self.part = number + 1, 0

    def _budget(self) -> int | None:
        if self.inject is None or self.inject.fault != "stop-after":
            return None
        return int(self.inject.arguments["pages"])

    def _convert_one(
        self, start: int, pages: int, to: str | None, budget: int | None, names: Names, item: Any, *, last: bool
    ) -> None:
        progress = self.call.progress
        chunk = value(progress.chunk, self.names) if progress and progress.chunk is not None else None
        done_here = 0
        asked_first = self.done == 0
        chunks = getattr(self, "_chunks", 0)
        while done_here < pages:
            size = pages - done_here if chunk is None else min(chunk, pages - done_here)
            if budget is not None and budget - self.done < size:
                size = self._rounded(budget - self.done)
                if size <= 0:
                    self._mark_part(item, names)
                    raise _End("partial")
            if asked_first and self.inject is not None and self.inject.fault == "vmm-error":
                self._vmm_error(names)
            asked_first = False
            self._change(start + done_here, size, to, names)
            done_here += size
            self.done += size
            self.part = done_here
            chunks += 1
            self._chunks = chunks
            whole = done_here == pages
            if self._event_due(chunks, chunk) and not (whole and last):
                if whole:
                    self._mark(self.index, item, names)
                    self.index, self.part = self.index + 1, 0
                else:
                    self._mark_part(item, names)
                raise _End("partial")

    _chunks = 0

    def _event_due(self, chunks: int, chunk: int | None) -> bool:
        if chunk is None or self.inject is None or self.inject.fault != "event-pending":
            return False
        return chunks >= int(self.inject.arguments["after"])

    def _rounded(self, left: int) -> int:
        progress = self.call.progress
        if progress is None or (progress.unit == "element" and not progress.mark_part):
            return 0
        unit = 1
        if progress.unit == "granule" and progress.granule is not None:
            unit = max(value(progress.granule, self.names) // _PAGE, 1)
        return left // unit * unit

    def _vmm_error(self, names: Names) -> None:
        vmm = self.call.vmm
        errno = int(self.inject.arguments["errno"]) if self.inject else 0
        if vmm is None or not errno:
            return
        self.errno = errno
        for row in vmm.errno:
            if row.errno not in (None, errno):
                continue
            if row.guard.transports is None or self.transport.name in row.guard.transports:
                raise _End(row.outcome or "failed", answer=row.answer)
        raise _End("failed")

    def _present(self, start: int, pages: int, to: str) -> bool:
        absent = self.call.absent[0].value if self.call.absent else "allow"
        if absent == "allow" or (absent == "allow-shared" and to != "private"):
            return True
        return inside(self.memory, start, start + pages)

    def _change(self, start: int, pages: int, to: str | None, names: Names) -> None:
        if to is not None:
            if start + pages > _LAST_PAGE or not self._present(start, pages, to):
                raise _End("out-of-range")
            after = self.pages.copy()
            after.lay(start, start + pages, to)
            bound = self.oracle.setup.max_ranges
            count = len(after.ranges())
            if bound is not None and count > bound and count > len(self.pages.ranges()):
                raise _End("limit")
            self.pages = after
        for name, expr in self.call.convert.facts.items() if self.call.convert else ():
            self.facts.lay(name, start, start + pages, bool(value(expr, names.plus(**self._local().local))))

    def _mark(self, number: int, item: Any, names: Names) -> None:
        progress = self.call.progress
        if item is not None and progress is not None and progress.mark:
            self.marks.append((number, self._updates(progress.mark, names)))

    def _mark_part(self, item: Any, names: Names) -> None:
        progress = self.call.progress
        if item is not None and progress is not None and progress.mark_part and self.part:
            self.marks.append((self.index, self._updates(progress.mark_part, names.plus(part_pages=self.part))))

    @staticmethod
    def _updates(fields: Mapping[str, Expr], names: Names) -> dict[str, int]:
        return {name: int(value(expr, names)) for name, expr in fields.items()}


__all__ = ["Oracle", "Request"]
