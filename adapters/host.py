"""The host role of any ABI: a request comes in, the state of pages changes, an answer goes out.

Everything about one ABI comes from its specification: which rule a request breaks first and what that is answered,
which pages it names, how far the host came and how it says so. An adapter module overrides only what its
specification cannot say.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Literal

from hvabi.abi.calls import GATHERED
from hvabi.abi.errors import CodecError, ExprError
from hvabi.abi.expr import Name
from hvabi.abi.model import PairPlace, RegisterPlace
from hvabi.abi.scope import Fields, Scope, definitions
from hvabi.abi.specification import SPEC_PROFILE
from hvabi.abi.values import by_identity
from hvabi.adapters.asking import Asking, found_at
from hvabi.adapters.checks import Context, check_of, element_enums, first_bad, pages_of
from hvabi.adapters.errors import AdapterError
from hvabi.adapters.straight import straight_calls
from hvabi.adapters.values import HostAnswer, Injection, VmmReply, VmmRequest
from hvabi.adapters.work import Stopped, Work
from hvabi.backend import Backend, CallMemory, GuestMemory, ModelError, OutsideMemory, Status

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hvabi.abi.calls import Answer, Call, Query, Rule
    from hvabi.abi.calls import Scope as RuleScope
    from hvabi.abi.expr import Expr
    from hvabi.abi.model import Enum, Message
    from hvabi.abi.placing import Placer
    from hvabi.abi.registry import Spec
    from hvabi.adapters.checks import Check

Account = Work | Asking
"""What a call did of its work: the answer tells of it."""

HostCall = Generator[VmmRequest, VmmReply, HostAnswer]
"""A call in progress: yields what it asks of user space, returns its answer."""


class Host:
    """One host of one guest, on one transport.

    Args:
        spec: the ABI as one revision under one profile.
        transport: name of the transport, the first by default.
        config: the ABI's own configuration keys that differ from their defaults.
        backend: the state of the guest's pages; it also says what is memory.
        memory: the bytes of the guest's memory; made with the backend's layout when left out.
        enabled: whether the call has been switched on.

    """

    def __init__(
        self,
        spec: Spec,
        *,
        transport: str | None = None,
        config: Mapping[str, int] | None = None,
        backend: Backend | None = None,
        memory: GuestMemory | None = None,
        enabled: bool = True,
    ) -> None:
        self.spec = spec
        self.abi = spec.abi
        if self.abi.handles is not None and type(self).has_handle is Host.has_handle:
            raise AdapterError(f"{self.abi.id} keeps handles and has no adapter of its own", code="no-adapter")
        self.transport = spec.transport(transport)
        self.config = spec.config(config)
        self.backend = backend if backend is not None else Backend(facts=spec.abi.facts)
        own_space = any(
            block.space is not None
            for placement in self.transport.placements.values()
            for block in placement.blocks.values()
        )
        # Blocks of another space, such as the run page, are not guest memory: no layout limits them.
        self.memory = memory or GuestMemory(None if own_space else self.backend.layout)
        self.enabled = enabled
        self.static = spec.names(self.transport, self.config)
        self._placers: dict[str, Placer] = {}
        self._rules: dict[tuple[str, RuleScope], tuple[Rule, ...]] = {}
        self._checks: dict[tuple[str, RuleScope], tuple[tuple[Rule, Check], ...]] = {}
        self._enums: dict[str, Mapping[str, Enum | None]] = {}

    def call(
        self, regs: Mapping[str, int], *, cpl: int = 0, inject: Injection | None = None, exits: bool = False
    ) -> HostCall:
        """Begin a call: drive the generator, answering each `VmmRequest` with a `VmmReply`.

        Args:
            regs: the caller's registers; one left out is 0.
            cpl: the caller's privilege, 0 the most; ignored where the transport does not show it.
            inject: faults for this call.
            exits: whether requests to user space are yielded; else user space agrees to everything, unless
                `inject` refuses the first.

        """
        return _HostCall(self, regs, cpl, inject or Injection(), exits=exits).run()

    def placer(self, message: str) -> Placer:
        """Return where the fields of a message lie; made once."""
        if message not in self._placers:
            codec = self.spec.message(message, transport=self.transport.name, config=self.config)
            self._placers[message] = codec.placer
        return self._placers[message]

    def rules(self, call: Call, scope: RuleScope) -> tuple[Rule, ...]:
        """Return the rules of a request that this host judges: of the call, of an element or of a page; made once."""
        key = (call.name, scope)
        if key not in self._rules:
            self._rules[key] = tuple(
                rule
                for rule in call.rules
                if rule.binds == "host"
                and rule.on == "request"
                and rule.scope == scope
                and (rule.level != "observed" or self.abi.profile != SPEC_PROFILE)
                and rule.guard.serves(self.transport.name)
            )
        return self._rules[key]

    def checks(self, call: Call, scope: RuleScope) -> tuple[tuple[Rule, Check], ...]:
        """Return those rules, each with its check; made once."""
        key = (call.name, scope)
        if key not in self._checks:
            self._checks[key] = tuple((rule, check_of(rule)) for rule in self.rules(call, scope))
        return self._checks[key]

    def enums(self, call: Call) -> Mapping[str, Enum | None]:
        """Return the enums of the elements of a call's list; made once."""
        if call.name not in self._enums:
            self._enums[call.name] = element_enums(self.abi.messages[call.request], call.each)
        return self._enums[call.name]

    def more_names(self, call: _HostCall) -> Fields | None:
        """Return names of expressions that this host knows besides those of the specification, None for none."""
        return None

    def has_handle(self, number: int, state: str) -> bool:
        """Whether a number is a handle that this host has given out, and in the state ``open`` or ``complete``."""
        return False

    def ended(self, call: _HostCall, answer: HostAnswer) -> None:
        """Take note of a call that has ended; an adapter with state besides pages and memory overrides this."""

    def reset(self) -> None:
        """Forget what earlier calls left behind besides pages and memory; an adapter with such state overrides this."""

    def answer(self, regs: Mapping[str, int], *, cpl: int = 0, inject: Injection | None = None) -> HostAnswer:
        """Do a whole call with user space that agrees to everything."""
        if inject is None and type(self) is Host and type(self.backend) is Backend:
            straight = straight_calls(self.spec).of(self)
            if straight is not None:
                shown = cpl if self.transport.shows_cpl else 0
                plain: HostAnswer | None = straight(regs, shown, int(self.enabled), self.backend)
                if plain is not None:
                    return plain
        call = self.call(regs, cpl=cpl, inject=inject)
        try:
            next(call)
        except StopIteration as end:
            answer: HostAnswer = end.value
            return answer
        raise AdapterError("a call without exits asked its user space", code="unexpected-exit")


class _HostCall:
    """One call: what was read of it, and the steps of its judgement. It knows no ABI."""

    def __init__(self, host: Host, regs: Mapping[str, int], cpl: int, inject: Injection, *, exits: bool) -> None:
        self.host = host
        self.regs = regs
        self.inject = inject
        self.exits = exits
        self.cpl = cpl if host.transport.shows_cpl else 0
        self.memory = CallMemory(host.memory, flips=inject.flips)
        self.out_regs: dict[str, int] = {}

    # -- source and sink of the codec ---------------------------------------------------------------------------

    def register(self, name: str) -> int:
        """Return a register of the caller."""
        return self.regs.get(name, 0)

    def read(self, block: str, address: int, size: int) -> bytes:
        """Read memory, each byte once per call."""
        return self.memory.read(address, size)

    def set_register(self, name: str, value: int, mask: int) -> None:
        """Set bits of a register; bits that the answer does not set are 0."""
        self.out_regs[name] = (self.out_regs.get(name, 0) & ~mask) | (value & mask)

    def write(self, block: str, address: int, data: bytes) -> None:
        """Write memory."""
        self.memory.write(address, data)

    # -- the call -----------------------------------------------------------------------------------------------

    def open(self, call: Call) -> None:
        """Prepare fields and names for a call of the ABI."""
        self.definition = call
        message = self.host.abi.messages[call.request]
        self.placer = self.host.placer(call.request)
        self.fields = Fields(message.fields, lambda name: self.placer.fetch(name, self.scope, self))
        self.more = self.host.more_names(self)
        self.scope = Scope(
            self.host.static,
            define=definitions(call),
            request=self.fields,
            local={"cpl": self.cpl, "enabled": int(self.host.enabled)},
            more=self.more,
        )
        self.context = Context(
            backend=self.host.backend,
            readable=self.readable,
            selected=self.selected,
            message=message,
            element=self.host.enums(call),
            handle=self.host.has_handle,
        )

    def list_name(self, each: str | None) -> str:
        """Return the name under which the scope has the elements that the call goes through."""
        return GATHERED if self.definition.handle is not None else each or ""

    def items(self, each: str) -> Any:
        """Return those elements."""
        return self.scope[self.list_name(each)]

    def known_items(self, each: str) -> Any:
        """Return them as far as they have been asked for before."""
        known = self.more.known if self.definition.handle is not None and self.more is not None else self.fields.known
        return known.get(self.list_name(each), ())

    def run(self) -> HostCall:
        """Do the call, and have the host keep what it is to know in later ones."""
        answer = yield from self.judged()
        self.host.ended(self, answer)
        return answer

    def judged(self) -> HostCall:
        """Judge the rules in order, do the work, and answer."""
        self.dispatch()
        call = self.definition
        try:
            broken = self.first_broken("call", self.scope)
        except (OutsideMemory, ModelError, CodecError, ExprError) as error:
            return self.unreadable(error)
        if broken is not None:
            return self.refuse(broken, self.scope)
        if call.query is not None:
            return self.ask(call.query)
        if call.convert is None:
            return self.finish(Status.DONE, self.scope)
        work = Work(self, call.convert)
        try:
            yield from work.run()
        except Stopped as stop:
            scope = work.scope(stop.to)
            if stop.rule is not None:
                return self.refuse(stop.rule, scope, work)
            if stop.answer is not None:
                return self.encode(stop.answer, scope, status=stop.status, work=work)
            return self.finish(stop.status, scope, work)
        except (OutsideMemory, CodecError, ExprError) as error:
            return self.unreadable(error, work)
        return self.finish(Status.DONE, work.scope(work.last_to), work)

    def ask(self, query: Query) -> HostAnswer:
        """Find what is asked for, and answer."""
        asking = Asking(self, query)
        try:
            asking.run()
        except Stopped as stop:
            if stop.rule is not None:
                return self.refuse(stop.rule, asking.scope(), asking)
            return self.finish(stop.status, asking.scope(), asking)
        except (OutsideMemory, CodecError, ExprError) as error:
            return self.unreadable(error, asking)
        return self.finish(Status.DONE, asking.scope(), asking)

    def dispatch(self) -> None:
        """Choose the call of the ABI that the fixed registers and constants select.

        Where none does, it is the one whose constants are right, else the first.
        """
        calls = [call for call in self.host.abi.calls.values() if call.request in self.host.transport.placements]
        for fixed in (True, False) if len(calls) > 1 else ():
            for call in calls:
                self.open(call)
                try:
                    if self.selected((), everything=True, fixed=fixed):
                        return
                except (OutsideMemory, ModelError, CodecError):
                    continue
        self.open(calls[0])

    def selected(self, operands: tuple[Expr, ...], *, everything: bool = False, fixed: bool = True) -> bool:
        """Whether the fixed registers and constant fields have the values that select this call."""
        named = {operand.name for operand in operands if isinstance(operand, Name)}
        for name, const in _constants(self.placer.message):
            if named and name not in named:
                continue
            place = self.placer.place_of(name)
            if place is None or not (named or everything or isinstance(place, RegisterPlace)):
                continue
            if self.fields[name] != self.scope.int(const):
                return False
        if named or not fixed:
            return True
        for path, expr in self.placer.placement.parts.items():
            name, _, part = path.partition(".")
            if not (everything or isinstance(self.placer.place_of(name), RegisterPlace | PairPlace)):
                continue
            if getattr(self.fields[name], part) != self.scope.int(expr):
                return False
        return all(
            self.register(register) == self.scope.int(expr) for register, expr in self.placer.placement.fixed.items()
        )

    def readable(self, name: str) -> bool:
        """Whether every byte of a block is memory; nothing is read."""
        block = self.placer.blocks.get(name)
        if block is None or block.registers:
            return True
        try:
            size = self.scope.int(block.size)
            self.host.memory.require(self.placer.address(block, self.scope), max(size, 0))
        except (OutsideMemory, ModelError, CodecError):
            return False
        return True

    def first_broken(self, kind: Literal["call", "element"], scope: Scope) -> Rule | None:
        """Return the first rule of the call, or of an element, that the request breaks."""
        for rule, keeps in self.host.checks(self.definition, kind):
            if not keeps(scope, self.context):
                return rule
        return None

    def first_bad_page(self, scope: Scope, low: int, high: int) -> tuple[int, Rule] | None:
        """Return the first page of [low, high) that breaks a rule about pages, and the first rule that it breaks."""
        found: tuple[int, Rule] | None = None
        for rule in self.host.rules(self.definition, "page"):
            page = first_bad(rule, scope, self.context, low, high)
            if page is not None:
                # Only a page further down can come before this one, whatever the later rules say of it.
                found, high = (page, rule), page
        return found

    # -- answers ------------------------------------------------------------------------------------------------

    def refuse(self, rule: Rule, scope: Scope, work: Account | None = None) -> HostAnswer:
        """Answer a request that breaks a rule."""
        if rule.answer is None:
            raise AdapterError(f"{rule.id} binds the host and has no answer", code="no-answer", rule=rule.id)
        query = self.definition.query
        if query is not None and query.each is None:
            scope = scope.with_locals(**found_at(self.host.backend, query, scope, self.inject.stop_after))
        status = Status(rule.means) if rule.means else Status.INVALID
        if rule.check == "fact" and rule.answer.end == "replay" and not self.mend(rule, scope):
            return self.finish(Status.LIMIT, scope, work)
        return self.encode(rule.answer, scope, status=status, rule=rule.id, work=work)

    def mend(self, rule: Rule, scope: Scope) -> bool:
        """Make the fact true to the rule on its pages, so that the call goes on when it comes again."""
        span = pages_of(rule, scope)
        if span is None:
            return False
        wanted = scope.true(rule.operands["is"][0])
        return self.host.backend.set_fact(rule.words["name"], *span, wanted).status is Status.DONE

    def finish(self, status: Status, scope: Scope, work: Account | None = None) -> HostAnswer:
        """Answer with the ABI's outcome for a status; one that it cannot show becomes failed, then invalid."""
        if work is None:
            scope = scope.with_locals(done_pages=0, done_bytes=0, part_pages=0, index=0, errno=0)
        for choice in (status, Status.FAILED, Status.INVALID):
            for answer in self.definition.outcomes.get(choice.value, ()):
                if answer.cannot is not None or not answer.guard.serves(self.host.transport.name):
                    continue
                if answer.when is None or scope.true(answer.when):
                    return self.encode(answer, scope, status=status, work=work)
        raise AdapterError(
            f"{self.host.abi.id} has no answer for {status.value}", code="no-outcome", status=status.value
        )

    def unreadable(self, error: Exception, work: Account | None = None) -> HostAnswer:
        """Answer a request whose bytes are not there or make no sense."""
        scope = self.scope if work is None else work.scope(None)
        rules = [rule for rule in self.host.rules(self.definition, "call") if rule.check == "readable"]
        # Bytes that make no sense lie in memory all the same: then the first rule has to do.
        for rule in sorted(rules, key=lambda rule: self.readable(rule.words["of"])):
            return self.refuse(rule, scope, work)
        return self.finish(Status.INVALID, scope, work)

    def encode(
        self,
        answer: Answer,
        scope: Scope,
        *,
        status: Status,
        rule: str | None = None,
        work: Account | None = None,
    ) -> HostAnswer:
        """Write the answer's fields and return how the call ended."""
        reason = answer.reason
        if answer.fields and answer.end != "stop":
            try:
                self.write_fields(answer.fields, scope)
                if isinstance(work, Asking) and rule is None and status in (Status.DONE, Status.PARTIAL):
                    self.write_lists(work, scope)
            except OutsideMemory as error:
                return HostAnswer(end="stop", reason=f"the answer cannot be written: {error}", status=status)
        return HostAnswer(
            end=answer.end,
            regs=dict(self.out_regs),
            mem=self.memory.written,
            fault=answer.fault,
            reason=reason,
            rule=rule,
            status=status,
            done_pages=work.done if work is not None else 0,
            changes=tuple(work.changes) if work is not None else (),
        )

    def write_fields(self, fields: Mapping[str, Expr], scope: Scope) -> None:
        """Encode response fields, and the constants that share a register with one of them."""
        call = self.definition
        if call.response is None:
            raise AdapterError(f"call {call.name} has no response to answer with", code="no-response")
        message = self.host.abi.messages[call.response]
        placer = self.host.placer(call.response)
        values = field_values(fields, scope)
        touched = {place.register for name in values if isinstance(place := placer.place_of(name), RegisterPlace)}
        for name, field in message.fields.items():
            place = placer.place_of(name)
            fixed = field.const is not None or field.default is not None
            if name not in values and fixed and isinstance(place, RegisterPlace) and place.register in touched:
                values[name] = placer.default(field, scope)
        for name, value in values.items():
            placer.store(name, value, scope, self)

    def write_lists(self, asking: Asking, scope: Scope) -> None:
        """Encode the answers per element, from the first element that was asked about."""
        placer = self.host.placer(self.definition.response or "")
        for name, (first, answers) in asking.lists.items():
            placer.store_part(name, first, answers, scope, self)


@by_identity
def _constants(message: Message) -> tuple[tuple[str, Expr], ...]:
    """Return the fields of a message that are constant, with what they are."""
    return tuple((name, field.const) for name, field in message.fields.items() if field.const is not None)


def field_values(fields: Mapping[str, Expr], scope: Scope) -> dict[str, Any]:
    """Evaluate answer fields; ``word.field`` names gather into a mapping of the word's fields."""
    values: dict[str, Any] = {}
    for path, expr in fields.items():
        name, _, inner = path.partition(".")
        number = scope.int(expr)
        if inner:
            values.setdefault(name, {})[inner] = number
        else:
            values[name] = number
    return values


__all__ = ["Host", "HostCall", "field_values"]
