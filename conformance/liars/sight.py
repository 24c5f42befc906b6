"""What of an ABI bears on its host liars: the rules that are judged, the fields that are read, what can be answered."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from hvabi.abi.expr import Attr, Binary, Int, Name, names
from hvabi.abi.scope import enum_names
from hvabi.conformance.liars import model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hvabi.abi.calls import Answer, Call, Direction, Rule
    from hvabi.abi.expr import Expr
    from hvabi.abi.model import Field, Message, Transport
    from hvabi.abi.specification import Abi


class Changing(Protocol):
    """Changes one answer of an ABI."""

    def __call__(self, abi: Abi, *, change: Callable[[Answer], Answer]) -> Abi:
        """Return the ABI with the answer changed."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One answer of a host: its name, words for people, hints, how to change it, and why it may never be seen."""

    name: str
    words: str
    hints: tuple[str, ...]
    answer: Answer
    change: Changing
    never: str | None = None


class Sight:
    """One resolved ABI on one transport, as its host sees it."""

    def __init__(self, abi: Abi, transport: str) -> None:
        self.abi = abi
        self.transport: Transport = abi.transports[transport]
        self.call: Call = model.the_call(abi)
        self.request: Message = abi.messages[self.call.request]
        self.response: Message | None = abi.messages[self.call.response] if self.call.response else None
        self.rules = [rule for rule in self.call.rules if self._judged(rule)]

    def _judged(self, rule: Rule) -> bool:
        return (
            rule.binds == "host"
            and rule.on == "request"
            and rule.level != "observed"
            and rule.guard.serves(self.transport.name)
        )

    def answers(self) -> Iterator[Told]:
        """Yield every answer of a rule or an outcome that a host gives on this transport."""
        for rule in self.rules:
            if rule.answer is not None and rule.answer.end in ("return", "replay"):
                change = partial(_change_rule, rule.id)
                yield Told(name=rule.id, words=rule.id, hints=(rule.id,), answer=rule.answer, change=change)
        shown = self.shown()
        for status in self.call.outcomes:
            for number, answer in model.answers_of(self.call.outcomes, status, self.transport.name)[:1]:
                if answer.end in ("return", "replay"):
                    yield Told(
                        name=status,
                        words=f"the outcome `{status}`",
                        hints=(f".{status}",),
                        answer=answer,
                        change=partial(_change_outcome, status, number),
                        never=None if status in shown else f"nothing makes this model host say `{status}`",
                    )

    def shown(self) -> set[str]:
        """Return the statuses that a host of this ABI can be made to answer."""
        vmm, convert = self.call.vmm, self.call.convert
        # The bound is on the ranges of pages that are not private: a question, or a call that changes facts, adds none.
        adds = self.call.query is None and (convert is None or self.adds_ranges)
        # Taking a region back from the middle of others splits a range.
        adds = adds or self.call.handle is not None
        # A list of runs that is too long for its place is beyond a limit too.
        adds = adds or (self.call.query is not None and self.call.query.runs is not None)
        found = {"done", "limit"} if adds else {"done"}
        if self.call.reports_parts(self.transport.name):
            found.add("partial")
        if vmm is not None:
            for row in vmm.errno:
                if row.guard.serves(self.transport.name):
                    found |= {row.outcome} if row.outcome else set()
        if convert is not None and self.call.absent and self.call.absent[0].value != "allow":
            found.add("out-of-range")
        if convert is not None and convert.to is not None and not convert.to.has_otherwise:
            bits = 1 if convert.bits is not None else self.width(convert.to.of)
            bits = 0 if isinstance(convert.to.of, Int) else bits
            if (bits is None or len(convert.to.states) < 1 << bits) and not self._direction_is_judged(convert.to):
                found.add("invalid")
        if convert is not None and "limit" not in self.call.outcomes:
            found.add("failed")
        return found

    @property
    def adds_ranges(self) -> bool:
        """Whether the call can put a page into another state than private."""
        to = self.call.convert.to if self.call.convert is not None else None
        return to is not None and not {*to.states.values(), to.otherwise} <= {"private", "none", None}

    def _direction_is_judged(self, to: Direction) -> bool:
        """Whether a rule lets only directions pass that the specification knows."""
        numbers = enum_names(self.abi)
        for rule in self.rules:
            if rule.check != "known-value" or rule.when is not None or to.of not in rule.operands["of"]:
                continue
            field = self.request.fields.get(to.of.name) if isinstance(to.of, Name) else None
            if "values" in rule.operands:
                known = {numbers.get(expr.name) if isinstance(expr, Name) else None for expr in rule.operands["values"]}
            else:
                known = {item.value for item in field.enum.values.values()} if field and field.enum else {None}
            if known <= set(to.states):
                return True
        return False

    def width(self, expr: Expr) -> int | None:
        """Return the bits of the one field that an expression is, or of what it masks, None where it is neither."""
        match expr:
            case Attr(Name(word), name) if word in self.request.fields:
                layout = self.request.fields[word].word
                return layout.fields[name].bits if layout is not None and name in layout.fields else None
            case Name(name) if name in self.request.fields:
                return self.request.fields[name].bits
            case Binary("&", _, Int(mask)) if mask & (mask + 1) == 0:
                return mask.bit_length()
            case _:
                return None

    def widest(self, expr: Expr) -> int:
        """Return the bits of the widest field that an expression reads on this transport, 0 where it reads none."""
        todo, seen = set(names(expr)), set()
        widest = 0
        while todo:
            name = todo.pop()
            seen.add(name)
            if name in self.call.define:
                todo |= names(self.call.define[name].expr) - seen
            if name == "it":
                widest = 64
            if name in self.request.fields:
                place = self.transport.placements[self.call.request].place.get(name, (None,))[0]
                hi = getattr(place, "hi", None)
                widest = max(widest, self.request.fields[name].bits if hi is None else hi - getattr(place, "lo", 0) + 1)
        return widest

    def placed(self, answer: Answer) -> dict[str, Expr]:
        """Return the fields of an answer that this transport carries."""
        assert self.call.response is not None  # there is an answer
        told = self.transport.placements[self.call.response].place
        return {path: expr for path, expr in answer.fields.items() if told.get(path.partition(".")[0])}

    def response_field(self, path: str) -> Field | None:
        """Return a field of the response, or of a word of it, by its path."""
        name, _, inner = path.partition(".")
        if self.response is None or name not in self.response.fields:
            return None
        field = self.response.fields[name]
        if not inner:
            return field
        return field.word.fields.get(inner) if field.word is not None else None

    def read_fields(self) -> set[str]:
        """Return the fields of the request that a host looks at."""
        exprs: list[Expr] = []
        for rule in self.rules:
            exprs += [expr for operand in rule.operands.values() for expr in operand]
            exprs += [rule.when] if rule.when is not None else []
            exprs += rule.answer.fields.values() if rule.answer is not None else []
            if rule.check == "selected" and "of" not in rule.operands:
                exprs += [Name(name) for name, field in self.request.fields.items() if field.const is not None]
        meaning, convert = self.call.meaning, self.call.convert
        if meaning is not None:
            exprs += [expr for expr in (meaning.start, meaning.pages, meaning.first, meaning.count) if expr is not None]
            exprs += [Name(meaning.each)] if meaning.each is not None else []
        exprs += [convert.to.of] if convert is not None and convert.to is not None else []
        exprs += self.call.query.answer_each.values() if self.call.query is not None else []
        for answers in self.call.outcomes.values():
            exprs += [expr for answer in answers for expr in answer.fields.values()]
        for block in self.transport.placements[self.call.request].blocks.values():
            exprs += [expr for expr in (block.at, block.size) if expr is not None]
        exprs += [field.count for field in self.request.fields.values() if field.count is not None]
        todo = {name for expr in exprs for name in names(expr)}
        seen: set[str] = set()
        while todo:
            name = todo.pop()
            seen.add(name)
            if name in self.call.define:
                todo |= names(self.call.define[name].expr) - seen
        return seen


def _change_rule(rule_id: str, abi: Abi, change: Callable[[Answer], Answer]) -> Abi:
    return model.with_rule_answer(abi, rule_id, change)


def _change_outcome(status: str, number: int, abi: Abi, change: Callable[[Answer], Answer]) -> Abi:
    return model.with_outcome(abi, status, number, change)
