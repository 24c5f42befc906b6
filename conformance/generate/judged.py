"""What the oracle says of a question: which rules it breaks, alone or with others, and what is right to answer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from dataclasses import fields as fields_of
from typing import TYPE_CHECKING, Any

from hvabi.abi.errors import CodecError, HvAbiError
from hvabi.abi.expr import Attr, Name, paths
from hvabi.abi.scope import Fields, Scope
from hvabi.abi.wire import laid_over
from hvabi.conformance.case import Held
from hvabi.conformance.generate.basis import Basis, Question, as_fields, basis_of, host_rules, vary
from hvabi.conformance.generate.way import at_the_end, way_memory
from hvabi.conformance.oracle.answers import Request, same
from hvabi.conformance.oracle.walk import Names, Undefined, Unread, value

if TYPE_CHECKING:
    from hvabi.abi.calls import Call
    from hvabi.abi.expr import Expr
    from hvabi.abi.model import Field
    from hvabi.conformance.case import Case, Expected, Memory

MOST_BYTES = 1 << 16
"""Longest block that a generated request has, in bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A question with what the oracle says of it: ids of the broken rules of the whole call, and the answers."""

    question: Question
    broken: tuple[str, ...]
    answers: tuple[Expected, ...]

    @property
    def rule(self) -> str | None:
        """The rule behind the first answer."""
        first = self.answers[0]
        return first.replayed[0] if first.replayed else first.rule

    @property
    def decided(self) -> set[str | None]:
        """Every rule behind an answer, None where the request was judged right."""
        return {answer.replayed[0] if answer.replayed else answer.rule for answer in self.answers}

    def breaks_only(self, rule: str) -> bool:
        """Whether this rule decides and no other is broken; under an open policy it may also not hold at all."""
        return rule in self.decided and set(self.broken) <= {rule}

    def first_breaks(self, rule: str) -> bool:
        """Whether this rule decides, others being broken too."""
        return self.decided == {rule}

    @property
    def usual(self) -> bool:
        """Whether no rule is broken under the usual values of open policies; under others one may be."""
        return self.answers[0].rule is None

    @property
    def accepted(self) -> bool:
        """Whether no rule is broken under any policy."""
        return self.decided == {None}


class _Zeroes:
    """A source over what was placed: everything else is zero."""

    def __init__(self, regs: dict[str, int], mem: Memory) -> None:
        self._regs = regs
        self._mem = mem

    def register(self, name: str) -> int | None:
        return self._regs.get(name, 0)

    def read(self, block: str, address: int, size: int) -> bytes | None:
        if size > MOST_BYTES or address < 0:
            raise HvAbiError("too long to generate", code="too-long")
        return laid_over(address, bytes(size), self._mem)


def normal(basis: Basis, question: Question, memory: Memory = ()) -> Question | None:
    """Return the question as a host reads it from registers and memory, None where it cannot be sent.

    `memory` is what calls before it have placed, beside those of its way.
    """
    try:
        regs, mem = basis.wire(question)
    except HvAbiError:
        return None
    fields = read_fields(basis, question, regs, (*memory, *way_memory(basis, question), *mem))
    return None if fields is None else vary(question, fields=fields)


def read_fields(basis: Basis, question: Question, regs: dict[str, int], mem: Memory) -> dict[str, Any] | None:
    """Return the fields that a host reads from registers and memory, None where there are too many bytes."""
    if sum(len(data) for _, data in mem) > MOST_BYTES:
        return None
    codec = basis.codec(question.setup)
    source = _Zeroes(regs, mem)
    fields = Fields(codec.message.fields, lambda name: codec.placer.fetch(name, scope, source))
    scope = Scope(codec.static, request=fields)
    for name, field in codec.message.fields.items():
        try:
            fields[name]
        except CodecError:
            if not field.is_list:
                return None
            fields.put(name, ())  # more elements than there is room for: only a rule can say what that gets
        except HvAbiError:
            return None
    return as_fields(codec.value_class._make([fields[name] for name in codec.message.fields]))


def _is_cut(basis: Basis, question: Question) -> bool:
    """Whether a list of the request has fewer elements than the request says."""
    names = basis_names(basis, question)
    for name, field in basis.abi.messages[basis.call.request].fields.items():
        if not field.is_list or field.count is None or not basis.carries(name):
            continue
        if len(question.fields[name]) < value(field.count, names):
            return True
    return False


def basis_names(basis: Basis, question: Question) -> Names:
    """Return what names mean for a question, as far as no rule and no definition is needed."""
    transport = basis.abi.transports[basis.transport]
    return Names(basis.abi, transport, basis.spec.config(question.setup.config), {}, dict(question.fields))


def _is_this_call(basis: Basis, question: Question) -> bool:
    """Whether every part of a word that selects the call is as it must be, or a rule looks at it.

    With another value, where no rule says what it gets, the request belongs to another call or transport.
    """
    parts = basis.abi.transports[basis.transport].placements[basis.call.request].parts
    if not parts:
        return True
    judged = {
        path for rule in host_rules(basis) for exprs in rule.operands.values() for e in exprs for path in paths(e)
    }
    names = basis_names(basis, question)
    for path, expr in parts.items():
        name, _, part = path.partition(".")
        if path not in judged and question.fields[name][part] != value(expr, names):
            return False
    return True


def _is_of_others(request: Request) -> bool:
    """Whether a number in the request is that of another call, which the specification says nothing of.

    A host may have that call too, and then answers it.
    """
    found: list[tuple[Field, Expr, Expr | None]] = []
    for name, field in request.message.fields.items():
        found.append((field, Name(name), field.const))
        parts = field.word.fields if field.word is not None else {}
        own = request.placement.parts
        found += [(part, Attr(Name(name), key), own.get(f"{name}.{key}")) for key, part in parts.items()]
    for item, path, expr in found:
        if not item.others:
            continue
        try:
            number = value(path, request.names)
        except Unread:
            continue
        if item.is_another_call(number) and (expr is None or number != value(expr, request.names)):
            return True
    return False


def _is_another_call(basis: Basis, question: Question, regs: dict[str, int], mem: Memory) -> bool:
    """Whether a request is one of another call of the ABI, by its constants and fixed registers."""
    placements = basis.abi.transports[basis.transport].placements
    for call in basis.abi.calls.values():
        if call.request not in placements:
            continue
        if call.name == basis.call.name:
            if _selects(basis, question, call, regs, mem):
                return False
        elif _selects(basis, question, call, regs, mem):
            return True
    return False


def _selects(basis: Basis, question: Question, call: Call, regs: dict[str, int], mem: Memory) -> bool:
    codec = basis.spec.message(call.request, transport=basis.transport, config=question.setup.config)
    fields, scope = codec.reader(_Zeroes(regs, mem))
    try:
        fixed = codec.placer.placement.fixed.items()
        constants = {name: item.const for name, item in codec.message.fields.items() if item.const is not None}
        return all(regs.get(register, 0) == scope.int(expr) for register, expr in fixed) and all(
            fields[name] == scope.int(expr) for name, expr in constants.items()
        )
    except HvAbiError:
        return False


def judge(basis: Basis, question: Question) -> Judged | None:
    """Return what the oracle says, None where the question cannot be sent or has no answer that is laid down."""
    try:
        regs, mem = basis.wire(question)
    except HvAbiError:
        return None
    if basis.judged is None:
        return _judge(basis, question, regs, mem)
    # A host sees registers and memory, not our fields: equal ones are read and answered equally.
    key = (
        tuple(sorted(regs.items())),
        mem,
        question.call,
        question.cpl,
        question.before,
        *(
            repr(part)
            for part in (question.setup, question.regs, question.facts, question.inject, question.way, question.held)
        ),
    )
    if key not in basis.judged:
        basis.judged[key] = _judge(basis, question, regs, mem)
    found: Judged | None = basis.judged[key]
    return found


def _judge(basis: Basis, question: Question, regs: dict[str, int], mem: Memory) -> Judged | None:
    fields = read_fields(basis, question, regs, (*way_memory(basis, question), *mem))
    if fields is None:
        return None
    # The question as a host reads it, and what a guest would send for that.
    sent = vary(question, fields=fields)
    if not _is_this_call(basis, sent):
        return None
    regs, mem = wire = basis.wire(sent)
    if _is_another_call(basis, sent, regs, mem):
        return None
    try:
        there = at_the_end(basis, sent)
        request = Request(
            basis.oracle(sent.setup),
            basis.abi,
            sent.call,
            sent.fields,
            sent.cpl,
            sent.inject,
            there.before,
            there.facts,
            regs,
            there.held,
        )
        if _is_of_others(request):
            return None
        answers = basis.answers(sent, wire)
        broken = tuple(request.broken())
    except (HvAbiError, Undefined):
        return None
    if not answers or (_is_cut(basis, sent) and any(answer.rule is None for answer in answers)):
        return None
    basis.keep_wire(sent, wire)
    return Judged(question=sent, broken=broken, answers=answers)


def keeps(basis: Basis, judged: Judged, rule: str) -> bool:
    """Whether a request is right and this rule has no say in it.

    What goes on with a handle is refused under an open policy by which nobody gets one: that tells nothing of the rule.
    """
    return judged.accepted or (basis.continues and judged.usual and rule not in judged.decided)


def right_under(case: Case, profile: str) -> bool:
    """Whether the oracle gives the same answers to a host case under a profile.

    A guest case whose conversion is served to its end is left out: the host that is played for it would have to offer
    the call under that profile too.
    """
    if case.script is not None and case.script.done:
        return False
    main = basis_of(case.abi, case.revision, case.transport, profile, case.call)
    state, facts, held = case.before, case.facts, Held()
    mem: Memory = ()
    for step in case.steps:
        if step.fresh:
            state, facts, held, mem = case.before, case.facts, Held(), ()
        basis = main if step.call is None else main.of_call(step.call)
        mem = (*mem, *step.mem)
        question = Question(fields={}, setup=case.setup)
        fields = read_fields(basis, question, dict(step.regs), mem)
        if fields is None:
            return False
        oracle = basis.oracle(case.setup)
        answers = oracle.answers(
            fields,
            call=basis.call.name,
            cpl=step.cpl,
            inject=step.inject,
            before=state,
            facts=facts,
            mem=step.mem,
            regs=step.regs,
            held=held,
        )
        agreeing = [one for one in step.expected if any(same(one, other) for other in answers)]
        if not agreeing:
            return False
        state, facts, held = agreeing[0].state, agreeing[0].facts, agreeing[0].held
    return True


def compose(base: Question, one: Question, other: Question) -> Question | None:
    """Return the base with the changes of both questions, None where they change the same thing."""
    fields: dict[str, Any] = dict(base.fields)
    for name in base.fields:
        merged = _merge(base.fields[name], one.fields[name], other.fields[name])
        if merged is _CLASH:
            return None
        fields[name] = merged
    setup = base.setup
    for item in fields_of(setup):
        merged = _merge(getattr(base.setup, item.name), getattr(one.setup, item.name), getattr(other.setup, item.name))
        if merged is _CLASH:
            return None
        setup = replace(setup, **{item.name: merged})
    changes: dict[str, Any] = {}
    for name in ("cpl", "regs", "before", "facts", "way"):
        merged = _merge(getattr(base, name), getattr(one, name), getattr(other, name))
        if merged is _CLASH:
            return None
        changes[name] = merged
    return replace(base, fields=fields, setup=setup, **changes)


_CLASH = object()


def _merge(base: Any, one: Any, other: Any) -> Any:
    if one == base:
        return other
    if other == base or one == other:
        return one
    if isinstance(base, dict) and isinstance(one, dict) and isinstance(other, dict):
        out = {}
        for key in {**base, **one, **other}:
            part = _merge(base.get(key), one.get(key), other.get(key))
            if part is _CLASH:
                return _CLASH
            if part is not None:
                out[key] = part
        return out
    if isinstance(base, tuple) and len(base) == len(one) == len(other):
        parts = [_merge(a, b, c) for a, b, c in zip(base, one, other, strict=True)]
        return _CLASH if any(part is _CLASH for part in parts) else tuple(parts)
    return _CLASH
