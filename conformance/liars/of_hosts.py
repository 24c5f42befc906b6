"""Host liars made from a specification: one per rule, pair, status, number and place that can be got wrong."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from hvabi.abi.expr import Attr, Binary, Int, Name, Unary, names
from hvabi.abi.model import PairPlace, RegisterPlace
from hvabi.conformance.liars import hosts, model
from hvabi.conformance.liars.exprs import moved, moved_names, off_by_one
from hvabi.conformance.liars.liar import Planted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hvabi.abi.calls import Answer, Call, Convert, Rule
    from hvabi.abi.expr import Expr
    from hvabi.abi.model import Enum, Field, Message, Transport
    from hvabi.abi.specification import Abi

PROGRESS_NAMES = ("done_pages", "done_bytes", "part_pages", "index")
_LIMITS = {"below": "limit", "at-most": "limit", "count-at-most": "limit", "within": "high", "fits-buffer": "size"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A liar without its place: kind and name for its id, what is wrong, the bug, and why it may be equivalent."""

    kind: str
    name: str
    what: str
    planted: Planted
    equivalent: str | None = None
    hints: tuple[str, ...] = ()


class HostLies:
    """Makes the host liars of one resolved ABI on one transport."""

    def __init__(self, abi: Abi, transport: str) -> None:
        self.abi = abi
        self.transport: Transport = abi.transports[transport]
        self.call: Call = model.convert_call(abi)
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

    def all(self) -> Iterator[Made]:
        """Yield every liar."""
        yield from self.rules_skipped()
        yield from self.rules_off_by_one()
        yield from self.rules_swapped()
        yield from self.statuses()
        yield from self.numbers()
        yield from self.conversions()
        yield from self.places()
        yield from self.reserved()
        yield from self.engines()

    # -- rules --------------------------------------------------------------------------------------------------

    def rules_skipped(self) -> Iterator[Made]:
        """Yield a host per rule that does not look at it."""
        for rule in self.rules:
            same = [
                other.id
                for other in self.rules
                if other is not rule
                and other.answer is not None
                and rule.answer is not None
                and _demands(other) == _demands(rule)
                and model.said(other.answer) == model.said(rule.answer)
            ]
            yield Made(
                kind="rule-skipped",
                name=rule.id,
                what=f"It does not look at {rule.id}: {rule.text}",
                planted=Planted(spec=partial(model.without_rule, rule_id=rule.id)),
                hints=(rule.id,),
                equivalent=f"{same[0]} asks for the same with the same answer" if same else None,
            )

    def rules_off_by_one(self) -> Iterator[Made]:
        """Yield hosts whose limits are off by one, whose alignment is halved, or that test the first operand only."""
        for rule in self.rules:
            key = _LIMITS.get(rule.check)
            if key is not None:
                for amount, word in ((1, "more"), (-1, "less")):
                    operands = {**rule.operands, key: (moved(rule.operands[key][0], amount),)}
                    yield self._other_rule(rule, f"limit-one-{word}", f"the limit is one {word}", operands=operands)
            if rule.check in ("within", "ordered"):
                operands = {**rule.operands, "low": (moved(rule.operands["low"][0], 1),)}
                yield self._other_rule(rule, "low-one-more", "the lower limit is one more", operands=operands)
            if rule.check == "aligned":
                to = rule.operands["to"][0]
                operands = {**rule.operands, "to": (Binary("//", Binary("+", to, Int(1)), Int(2)),)}
                yield self._other_rule(rule, "half-alignment", "half the alignment is enough", operands=operands)
            if rule.check == "no-wrap":
                operands = {**rule.operands, "length": (moved(rule.operands["length"][0], -1),)}
                yield self._other_rule(rule, "end-allowed", "a range may end at the very end", operands=operands)
            if rule.check == "expr" and (changed := off_by_one(rule.operands["expr"][0])) is not None:
                operands = {**rule.operands, "expr": (changed,)}
                yield self._other_rule(rule, "off-by-one", "its comparison is off by one", operands=operands)
            operands_of = rule.operands.get("of", ())
            if len(operands_of) > 1 and rule.check != "same-half":
                for number in range(len(operands_of)):
                    left = (*operands_of[:number], *operands_of[number + 1 :])
                    operands = {**rule.operands, "of": left}
                    yield self._other_rule(
                        rule, f"without-operand-{number}", "one operand is not tested", operands=operands
                    )
            if rule.when is not None:
                yield self._other_rule(rule, "always", "it is tested where it does not hold", when=None)

    def _other_rule(self, rule: Rule, name: str, what: str, **changes: object) -> Made:
        changed = replace(rule, **changes)  # type: ignore[arg-type]  # fields of the rule
        return Made(
            kind="rule-wrong",
            name=f"{rule.id}-{name}",
            what=f"Of {rule.id} {what}: {rule.text}",
            planted=Planted(spec=partial(model.with_rule, rule=changed)),
            hints=(rule.id,),
        )

    def rules_swapped(self) -> Iterator[Made]:
        """Yield a host per pair of neighbours that it tests in the wrong order, where the order is stated."""
        if self.call.order != "stated":
            return
        for one, other in zip(self.rules, self.rules[1:], strict=False):
            if one.answer is None or other.answer is None or (one.scope == "call") != (other.scope == "call"):
                continue
            if model.said(one.answer) == model.said(other.answer):
                continue
            yield Made(
                kind="rules-swapped",
                name=f"{one.id}-{other.id}",
                what=f"It tests {other.id} before {one.id}.",
                planted=Planted(spec=partial(model.swapped, one=one.id, other=other.id)),
                hints=(one.id, other.id),
                equivalent=_disjoint(one, other) or self._unread(one, other) or _allowed(one, other),
            )

    def _unread(self, one: Rule, other: Rule) -> str | None:
        """Say that a field of a block cannot be judged where the block cannot be read, or None."""
        if other.check == "readable":
            one, other = other, one
        if one.check != "readable":
            return None
        inside = model.blocks_of(self.transport.placements[self.call.request]).get(one.words["of"], [])
        looked = {name for exprs in other.operands.values() for expr in exprs for name in names(expr)}
        if looked & set(inside):
            return f"{one.id} fails where {one.words['of']} cannot be read, and then {other.id} has nothing to judge"
        return None

    # -- answers ------------------------------------------------------------------------------------------------

    def _answers(
        self,
    ) -> Iterator[
        tuple[str, str, tuple[str, ...], Answer, Callable[[Abi, Callable[[Answer], Answer]], Abi], str | None]
    ]:
        """Yield name, words for it, hints, the answer, how to change it, and why it may never be seen."""
        for rule in self.rules:
            if rule.answer is not None and rule.answer.end in ("return", "replay"):
                yield rule.id, rule.id, (rule.id,), rule.answer, partial(_change_rule, rule.id), None
        shown = self.shown()
        for status in self.call.outcomes:
            for number, answer in model.answers_of(self.call.outcomes, status, self.transport.name)[:1]:
                never = (
                    None
                    if status in shown
                    else f"no request and no fault of the protocol makes this model host say `{status}`"
                )
                if answer.end in ("return", "replay"):
                    yield (
                        status,
                        f"the outcome `{status}`",
                        (f".{status}",),
                        answer,
                        partial(_change_outcome, status, number),
                        never,
                    )

    def shown(self) -> set[str]:
        """Return the statuses that a host of this ABI can be made to answer."""
        found = {"done", "limit"}
        progress, vmm, convert = self.call.progress, self.call.vmm, self.call.convert
        if progress is not None:
            found.add("partial")
        if vmm is not None:
            for row in vmm.errno:
                if row.guard.serves(self.transport.name):
                    found |= {row.outcome} if row.outcome else set()
        if self.call.absent and self.call.absent[0].value != "allow":
            found.add("out-of-range")
        if convert is not None and convert.to is not None and not convert.to.has_otherwise:
            bits = self._width(convert.to.of)
            if bits is None or len(convert.to.states) < 1 << bits:
                found.add("invalid")
        if "limit" not in self.call.outcomes:
            found.add("failed")
        return found

    def _width(self, expr: Expr) -> int | None:
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

    def _widest(self, expr: Expr) -> int:
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

    def statuses(self) -> Iterator[Made]:
        """Yield a host per status in an answer that answers another of the same enum."""
        for name, words, hints, answer, change, never in self._answers():
            for path, expr in self._placed(answer).items():
                enum = self._enum(path)
                other = None if enum is None else self._other(enum, expr)
                if other is None:
                    continue
                yield Made(
                    kind="status-swapped",
                    name=f"{name}-{path}-{other[0]}",
                    what=f"For {words} it answers {other[0]} in {path}.",
                    planted=Planted(
                        spec=partial(change, change=partial(model.with_answer_field, field=path, expr=other[1]))
                    ),
                    hints=hints,
                    equivalent=never or self._not_compared(answer, path),
                )

    def _placed(self, answer: Answer) -> dict[str, Expr]:
        """Return the fields of an answer that this transport carries."""
        assert self.call.response is not None  # there is an answer
        told = self.transport.placements[self.call.response].place
        return {path: expr for path, expr in answer.fields.items() if told.get(path.partition(".")[0])}

    def _not_compared(self, answer: Answer, path: str) -> str | None:
        if path in answer.may_change or path in answer.nonzero:
            return f"the specification lets the host choose {path} here"
        return None

    def _enum(self, path: str) -> Enum | None:
        field = self._response_field(path)
        return field.enum if field is not None else None

    def _response_field(self, path: str) -> Field | None:
        name, _, inner = path.partition(".")
        if self.response is None or name not in self.response.fields:
            return None
        field = self.response.fields[name]
        if not inner:
            return field
        return field.word.fields.get(inner) if field.word is not None else None

    def _other(self, enum: Enum, expr: Expr) -> tuple[str, Expr] | None:
        """Return another value of the enum than the one that an expression names."""
        now = enum.values[expr.name].value if isinstance(expr, Name) and expr.name in enum.values else None
        for value in enum.values.values():
            if value.value != now and (now is not None or value.value != 0):
                return value.name, _number(value.value)
        return None

    def numbers(self) -> Iterator[Made]:
        """Yield hosts whose account of progress is off by one, or that leave a field of an answer out."""
        unit = {"done_bytes": 4096}
        for name, words, hints, answer, change, never in self._answers():
            placed = self._placed(answer)
            for path, expr in placed.items():
                used = sorted(names(expr) & set(PROGRESS_NAMES))
                for local in used:
                    for sign, word in ((1, "more"), (-1, "less")):
                        wrong = moved_names(expr, (local,), sign * unit.get(local, 1))
                        if sign < 0 and names(expr) == {local}:
                            # A count below zero is no number of any field; such an engine would stay at 0.
                            wrong = _floored(expr, local, unit.get(local, 1))
                        yield Made(
                            kind="progress",
                            name=f"{name}-{path}-one-{word}",
                            what=f"For {words} {path} says one {_unit_word(local)} {word} than was done.",
                            planted=Planted(
                                spec=partial(change, change=partial(model.with_answer_field, field=path, expr=wrong))
                            ),
                            hints=hints,
                            equivalent=never,
                        )
            for path in placed:
                if len(placed) > 1 and "." not in path:
                    yield Made(
                        kind="field-left-out",
                        name=f"{name}-{path}",
                        what=f"For {words} it does not write {path}.",
                        planted=Planted(spec=partial(change, change=partial(_without_field, path=path))),
                        hints=hints,
                        equivalent=never or self._not_compared(answer, path),
                    )
        progress = self.call.progress
        if progress is None:
            return
        for key in ("mark", "mark_part"):
            for field, expr in getattr(progress, key).items():
                yield Made(
                    kind="progress",
                    name=f"{key.replace('_', '-')}-{field}-one-more",
                    what=f"{field} of an element says one page more than was done.",
                    planted=Planted(spec=partial(_with_mark, key=key, field=field, expr=moved(expr, 1))),
                )
        if progress.mark:
            yield Made(
                kind="progress", name="no-marks", what="It does not write into the elements how far it came.",
                planted=Planted(spec=partial(model.with_progress, change=_unmarked)),
            )  # fmt: skip
        if progress.chunk is not None:
            for amount, word in ((1, "more"), (-1, "less")):
                yield Made(
                    kind="progress", name=f"chunk-one-page-{word}", what=f"Its pieces are one page {word}.",
                    planted=Planted(spec=partial(_with_chunk, expr=moved(progress.chunk, amount))),
                    hints=("event",),
                )  # fmt: skip
            yield _engine("progress", "event-ignored", hosts.IgnoresEvents, "event")
            yield _engine("progress", "event-one-chunk-late", hosts.EventOneChunkLate, "event")

    # -- meaning ------------------------------------------------------------------------------------------------

    def conversions(self) -> Iterator[Made]:
        """Yield hosts that take the request for another one."""
        convert = self.call.convert
        assert convert is not None  # it is the call that converts
        to = convert.to
        if to is not None and len({state for state in to.states.values() if state}) > 1:
            yield self._meaning("polarity", "It takes shared for private and private for shared.", _inverted)
            for number, state in to.states.items():
                other = "shared" if state != "shared" else "private"
                changed = replace(to, states={**to.states, number: other})
                yield self._meaning(
                    f"direction-{number}", f"It takes direction {number} ({state or 'no change'}) for {other}.",
                    partial(_replaced, to=changed),
                )  # fmt: skip
        if to is not None and to.has_otherwise and to.otherwise in (None, "none"):
            # bug Q8: whatever is not private is shared
            yield self._meaning(
                "direction-otherwise", "It takes every direction that it does not know for shared.",
                partial(_replaced, to=replace(to, otherwise="shared")),
                "unspecified-direction",
            )  # fmt: skip
        for key in ("start", "pages"):
            if self._widest(getattr(convert, key)) <= 32:
                continue
            yield self._meaning(
                f"{key}-low-half", f"It keeps the low 32 bits of the {key} only.",
                partial(_replaced, **{key: Binary("&", getattr(convert, key), Int(0xFFFFFFFF, 16))}),
            )  # fmt: skip
        yield self._meaning(
            "start-one-page-more", "It begins one page too late.", partial(_replaced, start=moved(convert.start, 4096))
        )
        if convert.hint is not None:
            yield self._meaning(
                "hint-as-count", "It takes the size hint for a factor of the count.",
                partial(_replaced, pages=Binary("*", convert.pages, convert.hint)),
            )  # fmt: skip
        if convert.each is not None:
            if convert.first is not None:
                yield self._meaning(
                    "first-one-more", "It skips the first element.", partial(_replaced, first=moved(convert.first, 1))
                )
                yield self._meaning(
                    "first-zero",
                    "It begins with the first element, whatever is asked for.",
                    partial(_replaced, first=Int(0)),
                )
            if convert.count is not None:
                yield self._meaning(
                    "count-one-less", "It forgets the last element.", partial(_replaced, count=moved(convert.count, -1))
                )

    def _meaning(self, name: str, what: str, change: Callable[[Convert], Convert], hint: str = "done") -> Made:
        return Made(
            kind="meaning",
            name=name,
            what=what,
            hints=(hint,),
            planted=Planted(spec=partial(model.with_convert, change=change)),
        )

    # -- places -------------------------------------------------------------------------------------------------

    def places(self) -> Iterator[Made]:
        """Yield hosts that read or write registers and bytes the wrong way."""
        at = self.transport.name
        asked = self.transport.placements[self.call.request]
        read = self._read()
        for name, field in self.request.fields.items():
            place = asked.place.get(name, (None,))[0]
            if name not in read:
                # A host that does not look at a field at all cannot look at it the wrong way.
                continue
            if isinstance(place, RegisterPlace) and field.bits == 64 and (place.hi is None or place.hi - place.lo > 32):
                yield Made(
                    kind="truncated", name=f"{name}", what=f"It looks at the low 32 bits of {name} only.",
                    planted=Planted(host=hosts.reads_low_half(place.register)),
                )  # fmt: skip
            if isinstance(place, PairPlace):
                yield Made(
                    kind="truncated", name=f"{name}", what=f"It does not look at the upper half of {name}.",
                    planted=Planted(
                        spec=partial(model.with_place, transport=at, message=self.call.request, field=name,
                                     place=RegisterPlace(register=place.low, hi=31))),
                )  # fmt: skip
            if field.is_list and field.items is not None and field.items.size > 1:
                yield Made(
                    kind="endian", name=f"{name}", what=f"It reads the elements of {name} in the other byte order.",
                    planted=Planted(spec=partial(model.with_list_endian, message=self.call.request, name=name)),
                )  # fmt: skip
        for block, inside in model.blocks_of(asked).items():
            yield Made(
                kind="endian", name=f"block-{block}", what=f"It reads the integers of {block} in the other byte order.",
                planted=Planted(spec=partial(model.with_block_endian, transport=at, message=self.call.request, block=block)),
                hints=tuple(inside),
            )  # fmt: skip
        if self.call.response is None:
            return
        told = self.transport.placements[self.call.response]
        registers = model.registers_of(told)
        spare = _spare(self.transport, self.call)
        for name, register in registers.items():
            place = told.place[name][0]
            if isinstance(place, RegisterPlace) and spare is not None:
                yield Made(
                    kind="register", name=f"{name}-in-{spare}", what=f"It writes {name} to {spare} and not to {register}.",
                    planted=Planted(spec=partial(model.with_place, transport=at, message=self.call.response, field=name,
                                                 place=replace(place, register=spare))),
                    equivalent=self._never_told(name),
                )  # fmt: skip
            field = self.response.fields[name] if self.response else None
            if isinstance(place, RegisterPlace) and place.hi is None and field is not None and field.bits == 64:
                yield Made(
                    kind="truncated", name=f"response-{name}", what=f"It answers the low 32 bits of {name} only.",
                    planted=Planted(host=hosts.writes_low_half(register)),
                    equivalent=self._never_told(name) or self._never_wide(name),
                )  # fmt: skip
        for register in _clobbered(self.transport, self.call):
            yield Made(
                kind="register", name=f"{register}-clobbered", what=f"It changes {register}, which is no output.",
                planted=Planted(host=hosts.clobbers(register)),
            )  # fmt: skip

    def _read(self) -> set[str]:
        """Return the fields of the request that a host looks at."""
        exprs: list[Expr] = []
        for rule in self.rules:
            exprs += [expr for operand in rule.operands.values() for expr in operand]
            exprs += [rule.when] if rule.when is not None else []
            exprs += rule.answer.fields.values() if rule.answer is not None else []
            if rule.check == "selected" and "of" not in rule.operands:
                exprs += [Name(name) for name, field in self.request.fields.items() if field.const is not None]
        convert = self.call.convert
        assert convert is not None  # it is the call that converts
        exprs += [expr for expr in (convert.start, convert.pages, convert.first, convert.count) if expr is not None]
        exprs += [convert.to.of] if convert.to is not None else []
        exprs += [Name(convert.each)] if convert.each is not None else []
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

    def _never_told(self, name: str) -> str | None:
        """Say why a field of the response is never written by a host, or None."""
        told = [rule.answer for rule in self.rules if rule.answer is not None]
        told += [
            answer
            for status in self.call.outcomes
            for _, answer in model.answers_of(self.call.outcomes, status, self.transport.name)
        ]
        if any(path.partition(".")[0] == name for answer in told for path in answer.fields):
            return None
        return f"no answer of the host writes {name}"

    def _never_wide(self, name: str) -> str | None:
        field = self._response_field(name)
        if (
            field is not None
            and field.enum is not None
            and all(0 <= value.value >> 32 == 0 for value in field.enum.values.values())
        ):
            return f"every value of {name} fits 32 bits"
        return None

    def reserved(self) -> Iterator[Made]:
        """Yield hosts that refuse reserved bits that are to be ignored."""
        refusal = next(
            (
                rule
                for rule in self.rules
                if rule.answer is not None
                and rule.scope == "call"
                and rule.answer.end == "return"
                and rule.answer.fields
            ),
            None,
        )
        element = next(
            (rule for rule in self.rules if rule.answer is not None and rule.scope != "call" and rule.answer.fields),
            refusal,
        )
        convert = self.call.convert
        each = convert.each if convert is not None else None
        placed = self.transport.placements[self.call.request].place
        for path, expr in _reserved_paths(self.request, each):
            if not placed.get((each or "") if path.startswith("it.") else path.partition(".")[0]):
                continue
            pattern = element if path.startswith("it.") else refusal
            if pattern is None:
                continue
            rule = replace(
                pattern, id=f"{pattern.id}-RESERVED", check="reserved", operands={"of": (expr,)}, words={}, when=None,
                scope="element" if path.startswith("it.") else "call",
            )  # fmt: skip
            yield Made(
                kind="reserved", name=path.replace("it.", f"{each}."), what=f"It refuses reserved bits in {path}, which a receiver ignores.",
                planted=Planted(spec=partial(model.with_added_rule, rule=rule)),
                hints=("reserved",),
            )  # fmt: skip

    # -- engines ------------------------------------------------------------------------------------------------

    def engines(self) -> Iterator[Made]:
        """Yield hosts whose work is done the wrong way."""
        yield _engine("work", "does-nothing", hosts.DoesNothing, "done")
        yield _engine("work", "last-page-forgotten", hosts.ForgetsLastPage, "done")
        yield _engine("work", "first-page-forgotten", hosts.StartsOnePageLate, "done")
        yield _engine("work", "one-page-too-many", hosts.OverrunsByOne, "done")
        convert = self.call.convert
        assert convert is not None  # it is the call that converts
        if convert.each is None and self._widest(convert.pages):
            yield _engine("work", "first-range-only", hosts.FirstRangeOnly, "done")
        yield _engine("work", "bound-ignored", hosts.IgnoresBound, "limit")
        if any(rule.scope == "call" for rule in self.rules):
            yield _engine("footprint", "refused-but-changed", hosts.ConvertsRefused)
        if any(rule.scope != "call" for rule in self.rules):
            yield _engine("footprint", "element-refused-but-changed", hosts.ConvertsRefusedElement)
        exact = self.call.progress is not None and self.call.progress.footprint == "exact"
        if self.call.progress is not None:
            why = None if exact else "the specification says nothing of the pages of a call that failed on the way"
            yield _engine("footprint", "more-than-reported", hosts.DoesMoreThanItSays, "stop-after", equivalent=why)
        if self.call.vmm is not None:
            yield _engine("vmm", "refusal-ignored", hosts.IgnoresVmm, "errno")
        why = None if exact else "the specification says nothing of the pages of a call that failed on the way"
        yield _engine("footprint", "failed-but-changed", hosts.ChangesWhatWasRefused, "limit", equivalent=why)
        if any(
            block.space is None and block.at is not None
            for block in self.transport.placements[self.call.request].blocks.values()
        ):
            yield _engine("memory", "read-twice", hosts.ReadsTwice, "memory-flip")
        for number, row in enumerate(self.call.vmm.errno if self.call.vmm else ()):
            if row.guard.serves(self.transport.name):
                yield Made(
                    kind="vmm", name=f"errno-row-{number}",
                    what=f"It does not know errno {row.errno if row.errno is not None else 'in general'} of its user space.",
                    planted=Planted(spec=partial(_without_errno, number=number)),
                    hints=("errno",),
                    equivalent=_same_errno(self.call, number),
                )  # fmt: skip


# -- pieces ---------------------------------------------------------------------------------------------------------


def _engine(kind: str, name: str, bug: type[hosts.LyingHost], *hints: str, equivalent: str | None = None) -> Made:
    what = (bug.__doc__ or "").strip()
    return Made(
        kind=kind,
        name=name,
        what=f"It {what[0].lower()}{what[1:]}",
        planted=Planted(host=bug),
        hints=hints,
        equivalent=equivalent,
    )


def _demands(rule: Rule) -> tuple[object, ...]:
    return (rule.check, tuple(sorted((k, tuple(map(str, v))) for k, v in rule.operands.items())), str(rule.when))


def _disjoint(one: Rule, other: Rule) -> str | None:
    """Say why two rules cannot fail together, as far as their checks show it."""
    same = one.operands.get("of") == other.operands.get("of")
    if {one.check, other.check} == {"aligned", "non-empty"} and same:
        return "zero is aligned: both cannot fail together"
    if one.check == other.check == "enabled" and one.when is None and other.when is None:
        return "both ask the same, so the first answers always"
    return None


def _allowed(one: Rule, other: Rule) -> str | None:
    """Say why the answer of the later rule is right for the earlier one too, or None."""
    right, wrong = one.answer, other.answer
    assert right is not None and wrong is not None  # the caller has looked
    extra = set(wrong.fields) - set(right.fields)
    same = right.end == wrong.end and all(wrong.fields.get(name) == expr for name, expr in right.fields.items())
    if same and extra and extra <= set(right.may_change):
        return f"{one.id} leaves {', '.join(sorted(extra))} to the host, and the rest is the same"
    return None


def _number(value: int) -> Expr:
    return Int(value) if value >= 0 else Unary("-", Int(-value))


def _floored(expr: Expr, local: str, unit: int) -> Expr:
    """Return the expression with a name one unit less, but never below zero."""
    from hvabi.conformance.liars.exprs import parse, rewrite

    less = parse(f"max({local} - {unit}, 0)")
    return rewrite(expr, lambda node: less if isinstance(node, Name) and node.name == local else None)


def _unit_word(local: str) -> str:
    return "element" if local == "index" else "page"


def _change_rule(rule_id: str, abi: Abi, change: Callable[[Answer], Answer]) -> Abi:
    return model.with_rule_answer(abi, rule_id, change)


def _change_outcome(status: str, number: int, abi: Abi, change: Callable[[Answer], Answer]) -> Abi:
    return model.with_outcome(abi, status, number, change)


def _without_field(answer: Answer, path: str) -> Answer:
    return replace(answer, fields={name: expr for name, expr in answer.fields.items() if name != path})


def _with_mark(abi: Abi, key: str, field: str, expr: Expr) -> Abi:
    return model.with_progress(
        abi, lambda progress: replace(progress, **{key: {**getattr(progress, key), field: expr}})
    )


def _with_chunk(abi: Abi, expr: Expr) -> Abi:
    return model.with_progress(abi, lambda progress: replace(progress, chunk=expr))


def _unmarked(progress: object) -> object:
    return replace(progress, mark={}, mark_part={})  # type: ignore[type-var]  # a Progress


def _inverted(convert: Convert) -> Convert:
    assert convert.to is not None  # the caller has looked
    other = {"private": "shared", "shared": "private"}
    states = {number: other.get(state or "", state) for number, state in convert.to.states.items()}
    return replace(convert, to=replace(convert.to, states=states))


def _replaced(convert: Convert, **changes: object) -> Convert:
    return replace(convert, **changes)  # type: ignore[arg-type]  # fields of Convert


def _spare(transport: Transport, call: Call) -> str | None:
    """Return a register that the call does not write."""
    return next(iter(_clobbered(transport, call)), None)


def _clobbered(transport: Transport, call: Call) -> tuple[str, ...]:
    """Return registers of the request that are no output and may not change."""
    asked = transport.placements[call.request]
    told = transport.placements[call.response] if call.response else None
    used = set(model.registers_of(told).values()) | set(told.may_change) if told else set()
    mine = dict.fromkeys((*asked.fixed, *model.registers_of(asked).values()))
    return tuple(register for register in mine if register not in used)[:2]


def _reserved_paths(message: Message, each: str | None) -> Iterator[tuple[str, Expr]]:
    from hvabi.conformance.liars.exprs import parse

    for name, field in message.fields.items():
        if field.reserved is not None and field.reserved.receive == "ignore":
            yield name, parse(name)
        layout = field.word or (field.items if name == each else None)
        for inner, part in layout.fields.items() if layout is not None else ():
            if part.reserved is not None and part.reserved.receive == "ignore":
                path = f"{name}.{inner}" if field.word is not None else f"it.{inner}"
                yield path, parse(path)


def _without_errno(abi: Abi, number: int) -> Abi:
    call = model.convert_call(abi)
    assert call.vmm is not None  # the caller has looked
    rows = (*call.vmm.errno[:number], *call.vmm.errno[number + 1 :])
    return model.with_call(abi, replace(call, vmm=replace(call.vmm, errno=rows)))


def _same_errno(call: Call, number: int) -> str | None:
    """Say which later row answers the same, so that nobody misses this one."""
    assert call.vmm is not None  # the caller has looked
    row = call.vmm.errno[number]
    for later in call.vmm.errno[number + 1 :]:
        if later.errno is None:
            same = (later.outcome or "failed") == (row.outcome or "failed") and later.answer == row.answer
            outcomes = call.outcomes
            alike = (
                row.answer is None
                and later.answer is None
                and [model.said(a) for a in outcomes.get(row.outcome or "failed", ())]
                == [model.said(a) for a in outcomes.get(later.outcome or "failed", ())]
            )
            return "the row for every other errno answers the same" if same or alike else None
    if row.errno is None:
        return (
            "an errno that no row has is `failed` too"
            if (row.outcome or "failed") == "failed" and row.answer is None
            else None
        )
    return None
