"""Seeded mutators of right requests, of what is around them, and of their registers and bytes.

Numbers come from the specification (constants, enums, limits, literals of rules) and from the request itself; a
number is changed by one, by a page, by a bit, becomes what another field is, or what a rule that is aimed at compares
with. Fields that a sender works out from a changed one follow it or not, so that sums, lengths and offsets can agree.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hvabi.abi.errors import CodecError, HvAbiError
from hvabi.abi.expr import Attr, Name, names, walk
from hvabi.abi.scope import Fields, Scope
from hvabi.adapters.values import Injection
from hvabi.backend import PageState
from tests.fuzzing import AREA, SCRATCH, SHAPES, Combo, Input, Memory, Ranges, fields_of, numbers_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from random import Random

    from hvabi.abi.calls import Rule
    from hvabi.abi.codec import MessageCodec
    from hvabi.abi.expr import Expr
    from hvabi.abi.model import Field
    from hvabi.abi.specification import Abi

STATES = (PageState.SHARED, PageState.PRIVATE)
_ERRNOS = (1, 2, 4, 7, 11, 12, 14, 16, 17, 22, 28, 38, 95, 524, 4095)
_AROUND = {"in-state": 0, "privileged": 3, "enabled": 4, "readable": 5, "within-memory": 5, "fact": 6}
"""By check of a rule, the number of what changes its surroundings, see `Mutator.surroundings`."""
_ALL_SHARED: Ranges = ((AREA[0] - 8, AREA[1] + 8, PageState.SHARED),)
_MOST_BYTES = 1 << 14
"""Longest memory of a generated request, in bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """A rule that is to be hit: its call, the fields and facts that it looks at, and what of the surroundings.

    `exprs` are what it compares, `widths` the bits of a sum that must not wrap, `looked` the fields that stand in it.
    """

    rule: str
    call: str
    fields: frozenset[str]
    exprs: tuple[Expr, ...]
    widths: tuple[Expr, ...]
    looked: frozenset[str]
    facts: frozenset[str]
    around: int | None

    @classmethod
    def at(cls, abi: Abi, rule: Rule) -> Aim:
        """Return the aim of a rule: fields through definitions, for a rule about elements the list too."""
        call = next(call for call in abi.calls.values() if rule in call.rules)
        todo = [expr for exprs in rule.operands.values() for expr in exprs]
        todo += [rule.when] if rule.when is not None else []
        seen: set[str] = set()
        while todo:
            for node in walk(todo.pop()):
                name = node.name if isinstance(node, Name | Attr) else None
                if name is not None and name not in seen:
                    seen.add(name)
                    todo += [call.define[name].expr] if name in call.define else []
        looked = frozenset(seen)
        if call.each is not None and "it" in seen:
            seen.add(call.each)
        facts = frozenset({rule.words["name"]} if rule.check == "fact" else ())
        return cls(
            rule=rule.id,
            call=call.name,
            fields=frozenset(seen),
            exprs=(*(expr for exprs in rule.operands.values() for expr in exprs), *rule.tries),
            widths=rule.operands.get("width", ()),
            looked=looked,
            facts=facts,
            around=_AROUND.get(rule.check),
        )


class Mutator:
    """Changes fields, registers, bytes and surroundings; everything comes from one seeded generator."""

    def __init__(self, abi: str, rng: Random) -> None:
        self.abi = abi
        self.rng = rng
        self.numbers = numbers_of(abi)
        self.aim: Aim | None = None

    def pick(self, choices: Iterable[str], wanted: Collection[str]) -> str:
        """Return one of the names, half of the time one of the wanted where there are any."""
        every = list(choices)
        aimed = [name for name in every if name in wanted]
        return self.rng.choice(aimed if aimed and self.rng.random() < 0.5 else every)

    @property
    def _aimed(self) -> Collection[str]:
        return self.aim.fields if self.aim is not None else ()

    # -- numbers and fields -------------------------------------------------------------------------------------

    def number(self, item: Field, old: int, others: Sequence[int]) -> int:
        """Return another value for a field."""
        rng, top = self.rng, (1 << item.bits) - 1
        match rng.randrange(12):
            case 0 | 1:
                new = rng.choice(self.numbers)
            case 2 | 3:
                new = old + rng.choice((1, -1, 2, -2, 0x800, 0xFFF, 0x1000, -0x1000, 8, -8, 16))
            case 4 | 5:
                new = old ^ 1 << rng.randrange(item.bits)
            case 6:
                new = rng.choice((0, 1, top, top & ~0xFFF, top >> 1, top ^ top >> 1))
            case 7 | 8 if others:
                other = rng.choice(others)
                new = rng.choice(
                    (other, other + 1, other - 1, (1 << 64) - other, (1 << item.bits) - other, other << 12)
                )
            case 9 if item.enum is not None:
                new = rng.choice([value.value for value in item.enum.values.values()])
            case 10:
                new = rng.randrange(AREA[0] - 4, AREA[1]) << rng.choice((0, 12, 12))
            case _:
                new = rng.getrandbits(rng.randint(1, item.bits))
        return new & top

    def part(self, item: Field, old: Any, others: Sequence[int]) -> Any:
        """Return another value for a scalar or a word, of which one part changes."""
        if item.word is None or not isinstance(old, dict):
            return self.number(item, int(old), others)
        name = self.pick(item.word.fields, self._aimed)
        return {**old, name: self.part(item.word.fields[name], old[name], others)}

    def compared(self, codec: MessageCodec, fields: Mapping[str, Any], it: Any = None) -> list[int]:
        """Return what the rule that is aimed at compares in this request, and what is then left up to a wrap."""
        if self.aim is None:
            return []
        known = {**fields} if it is None else {**fields, "it": it}
        scope = Scope(codec.static, request=Fields(known, known.__getitem__))
        found = [number for expr in self.aim.exprs for number in _number_of(scope, expr)]
        rooms = [1 << width for expr in self.aim.widths for width in _number_of(scope, expr)]
        return [*found, *(room - number for room in rooms for number in found if number)]

    def followed(self, codec: MessageCodec, fields: dict[str, Any], changed: str) -> dict[str, Any]:
        """Return the fields with those worked out anew that follow a changed one; sometimes only those aimed at."""
        derived = [name for name in codec.message.fields if _is_worked_out(codec, name)]
        if self.aim is not None and self.aim.looked & set(derived) and self.rng.random() < 0.5:
            derived = [name for name in derived if name in self.aim.looked]
        left = {name: value for name, value in fields.items() if name == changed or name not in derived}
        return fields_of(codec.complete(left)) if len(left) < len(fields) else fields

    def fields(self, codec: MessageCodec, fields: dict[str, Any]) -> dict[str, Any]:
        """Return the fields of a request with one of them changed, and what follows it."""
        message = codec.message
        name = self.pick(message.fields, self._aimed)
        item = message.fields[name]
        others = [value for value in fields.values() if isinstance(value, int) and value]
        if not item.is_list:
            numbers = self.compared(codec, fields)
            if item.word is None and numbers and self.rng.random() < 0.6:
                new = self.rng.choice(numbers) + self.rng.choice((0, 0, 0, 0, 1, -1, 16, -16))
                changed = {**fields, name: new & (1 << item.bits) - 1}
            else:
                changed = {**fields, name: self.part(item, fields[name], others)}
            return self.followed(codec, changed, name) if self.rng.random() < 0.25 else changed
        old = fields[name]
        new = self._list(codec, item, old, others, fields)
        changed = {**fields, name: new}
        if self.rng.random() < (0.8 if len(new) != len(old) else 0.4):
            # Let what counts the list follow it: defaults that are worked out, and numbers in its own count.
            counts = names(item.count) if item.count is not None else frozenset()
            for other in counts & {*message.fields}:
                if isinstance(changed[other], int) and not _is_worked_out(codec, other):
                    changed[other] = max(changed[other] + len(new) - len(old), 0)
            changed = self.followed(codec, changed, name)
            if item.items is not None and self.rng.random() < 0.3:
                # What an element and the whole message both have, they may have in common.
                same = {part: changed[part] for part in item.items.fields if isinstance(changed.get(part), int)}
                changed[name] = tuple({**part, **same} for part in changed[name])
        return changed

    def _list(
        self, codec: MessageCodec, item: Field, old: tuple[Any, ...], others: Sequence[int], fields: Mapping[str, Any]
    ) -> Any:
        rng = self.rng
        at = rng.randrange(len(old)) if old else 0
        elements = self.aim is not None and "it" in self.aim.looked and rng.random() < 0.5
        match (4 if elements else rng.randrange(8)) if old else 7:
            case 0:
                return (*old[:at], *old[at + 1 :])
            case 1:
                return (*old[: at + 1], *old[at:])
            case 2:
                return old[:1] * rng.randint(2, 20)
            case 3:
                return old[:at] if rng.random() < 0.5 else old[at:]
            case 7:
                part: Any = self.number(item, rng.randrange(*AREA), others)
                if item.items is not None:
                    part = {
                        name: fields[name] if isinstance(fields.get(name), int) and rng.random() < 0.8 else
                        self.number(inner, 0, others) if rng.random() < 0.5 else 0
                        for name, inner in item.items.fields.items()
                    }  # fmt: skip
                return (*old[:at], part, *old[at:])
            case _:
                part = old[at]
                if item.items is not None:
                    name = self.pick(item.items.fields, self._aimed)
                    inner, numbers = item.items.fields[name], self.compared(codec, fields, part)
                    if inner.word is None and numbers and rng.random() < 0.5:
                        new = rng.choice(numbers) & (1 << inner.bits) - 1
                    else:
                        new = self.part(inner, part[name], [*others, *_flat(old[0])])
                    part = {**part, name: new}
                else:
                    part = self.number(item, part, others)
                return (*old[:at], part, *old[at + 1 :])

    def request(self, combo: int, found: Combo) -> Input | None:
        """Return a right request with up to three fields changed, in changed surroundings; None for a dead end."""
        rng = self.rng
        config = found.configs[0] if rng.random() < 0.6 else rng.choice(found.configs)
        calls = list(found.calls.values())
        main = found.abi.convert_call
        call = main if main is not None and rng.random() < 0.75 else rng.choice(calls)
        if self.aim is not None:
            call = found.calls.get(self.aim.call, call)
        each = call.convert is not None and call.convert.each is not None
        # Long lists take long; a few are enough. Where an element can be large, many pages are no long list.
        large = call.guest is not None and len(call.guest.element_pages) > 1
        short = each and rng.random() < (0.75 if large else 0.97)
        shape = rng.choice((0, 1, 1, 1, 2) if short else range(len(SHAPES)))
        # A call may be for one state alone.
        made = (found.base(call, config, shape, to) for to in rng.sample(STATES, len(STATES)))
        fields = next((fields for fields in made if fields is not None), None)
        if fields is None:
            return None
        codec = found.codec(call.request, config)
        try:
            for _ in range(rng.choice((0, 1, 1, 1, 2, 3) if self.aim is None else (1, 1, 1, 1, 2, 3))):
                fields = self.fields(codec, fields)
            crossing = rng.random() < (0.3 if self.aim is not None and self.aim.around == _AROUND["readable"] else 0.05)
            if crossing:
                fields = self.over_a_page(codec, fields)
            wire = codec.encode(fields)
        except CodecError:
            return None
        if sum(len(data) for _, data in wire.mem) > _MOST_BYTES:
            return None
        # What would lie beyond the last address is not there.
        mem = tuple((at, data[: (1 << 64) - at]) for at, data in wire.mem if 0 <= at < 1 << 64)
        given = Input(combo=combo, call=call.name, config=config, regs=wire.regs, mem=mem)
        if crossing:
            given = replace(given, slots=self.slots(given))
        times = rng.choice((0, 0, 1, 2)) if self.aim is None or self.aim.around is None else rng.choice((0, 1, 1, 2))
        return self.surroundings(found, given, times)

    def over_a_page(self, codec: MessageCodec, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields with a block that a field names moved so that it ends behind the end of its page."""
        rng = self.rng
        named = [b.at.name for b in codec.placer.blocks.values() if isinstance(b.at, Name) and b.at.name in fields]
        if not named:
            return dict(fields)
        name = rng.choice(named)
        return {**fields, name: (fields[name] | 0xFFF) + 1 - rng.choice((8, 16, rng.randint(1, 64)))}

    # -- what is around a request -------------------------------------------------------------------------------

    def surroundings(self, found: Combo, given: Input, times: int) -> Input:
        """Return the call with other states, memory, privilege, switches, faults or configuration."""
        rng = self.rng
        changes: dict[str, Any] = {}
        for _ in range(times):
            what = rng.randrange(10)
            if self.aim is not None and self.aim.around is not None and rng.random() < 0.5:
                what = self.aim.around
            match what:
                case 0 | 1 | 2:
                    changes["before"] = self.ranges()
                case 3:
                    changes["cpl"] = rng.choice((0, 0, 1, 3))
                case 4:
                    changes["enabled"] = rng.random() < 0.4
                case 5:
                    changes["slots"] = self.slots(given)
                case 6 if found.abi.facts:
                    start = AREA[0] + rng.choice((-8, 0, 0, 1, 2, 100))
                    name = self.pick(found.abi.facts, self.aim.facts if self.aim is not None else ())
                    changes["facts"] = ((name, start, start + rng.choice((1, 2, 16, 600))),)
                    if self.aim is not None and self.aim.facts and rng.random() < 0.3:
                        # Many facts only stop what would be possible: taking back pages that are shared.
                        changes["before"] = _ALL_SHARED
                case 7:
                    changes["max_ranges"] = rng.choice((None, 0, 1, 2, 3, 6))
                case 8:
                    changes["config"] = rng.choice(found.configs)
                case _:
                    changes["inject"] = self.injection(found, given)
        changes["exits"] = rng.random() < 0.1
        bound = changes.get("max_ranges", given.max_ranges)
        before = changes.get("before", given.before)
        if bound is not None:
            # What is there at first keeps the bound: facts count too, each by itself.
            changes["max_ranges"] = bound = max(bound, len(changes.get("facts", given.facts)))
            changes["before"] = before[:bound]
        return replace(given, **changes)

    def ranges(self) -> Ranges:
        """Return up to six ranges that are not private, in and about the area of requests."""
        rng = self.rng
        if rng.random() < 0.1:
            # What is to be taken back must have been shared first.
            return _ALL_SHARED
        out: list[tuple[int, int, PageState]] = []
        at = AREA[0] - rng.randrange(8)
        for _ in range(rng.randrange(7)):
            at += rng.choice((1, 1, 2, 5, 300))
            end = at + rng.choice((1, 1, 3, 16, 600))
            out.append((at, end, rng.choice((PageState.SHARED, PageState.SHARED, PageState.SHARED_READ_ONLY))))
            at = end
        return tuple(out)

    def slots(self, given: Input) -> tuple[tuple[int, int], ...] | None:
        """Return where memory is: everything, nothing, with a hole, without the request's own pages."""
        rng = self.rng
        own = {page for address, data in given.mem for page in (address >> 12, (address + len(data) - 1) >> 12)}
        hole = rng.choice((*own, AREA[0], AREA[0] + 1, AREA[0] + rng.randrange(600)))
        match rng.randrange(5):
            case 0:
                return None
            case 1:
                return () if rng.random() < 0.2 else (SCRATCH,)
            case 2:
                return ((0, 1 << 20),)
            case _:
                return tuple(pair for pair in ((0, hole), (hole + 1, 1 << 40)) if pair[0] < pair[1])

    def injection(self, found: Combo, given: Input) -> Injection:
        """Return faults that the call may have."""
        rng = self.rng
        call = found.calls[given.call]
        kinds = ["none", "flips"] if given.mem else ["none"]
        kinds += ["vmm"] * 3 if call.vmm is not None else []
        # A host that cannot say how far it came is not stopped half way.
        partial = [answer for answer in call.outcomes.get("partial", ()) if answer.cannot is None]
        kinds += ["stop"] * 3 if partial else []
        kinds += ["event"] * 3 if call.progress is not None and call.progress.chunk is not None else []
        match rng.choice(kinds):
            case "vmm":
                return Injection(vmm_errno=rng.choice(_ERRNOS))
            case "stop":
                return Injection(stop_after=rng.choice((0, 1, 2, 3, 15, 16, 511, 512, 513, 1 << 40)))
            case "event":
                return Injection(event_after=rng.choice((1, 1, 2, 3, 1 << 40)))
            case "flips":
                address, data = rng.choice(given.mem)
                at = rng.randrange(len(data))
                return Injection(flips=((address + at, rng.randbytes(min(rng.randint(1, 64), len(data) - at))),))
            case _:
                return Injection()

    # -- the wire -----------------------------------------------------------------------------------------------

    def wire(self, given: Input) -> Input:
        """Return the call with a register or some bytes changed, whatever they mean."""
        rng = self.rng
        if given.mem and rng.random() < 0.6:
            return replace(given, mem=self.bytes_of(given.mem))
        if not given.regs:
            return given
        name = rng.choice(list(given.regs))
        return replace(given, regs={**given.regs, name: self.register(given.regs[name])})

    def register(self, old: int) -> int:
        """Return another value of a 64-bit register."""
        rng = self.rng
        match rng.randrange(5):
            case 0:
                new = rng.choice(self.numbers)
            case 1:
                new = rng.getrandbits(64)
            case 2:
                new = old + rng.choice((1, -1, 0x1000, -0x1000, 0xFFF))
            case _:
                new = old ^ 1 << rng.randrange(64)
        return new & (1 << 64) - 1

    def bytes_of(self, mem: Memory) -> Memory:
        """Return memory with a few bytes changed, most of them where there is something."""
        rng = self.rng
        piece = rng.randrange(len(mem))
        address, data = mem[piece]
        out = bytearray(data)
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            at = rng.randrange(len(out))
            if rng.random() < 0.7:
                filled = [n for n in range(at, min(at + 512, len(out))) if out[n]]
                at = filled[0] if filled else at
            out[at] = rng.choice((0, 0xFF, out[at] ^ 1 << rng.randrange(8), rng.randrange(256)))
        return (*mem[:piece], (address, bytes(out)), *mem[piece + 1 :])


def _is_worked_out(codec: MessageCodec, name: str) -> bool:
    """Whether a sender works a field out from others of the message."""
    default = codec.message.fields[name].default
    return default is not None and bool(names(default) & {*codec.message.fields})


def _number_of(scope: Scope, expr: Expr) -> tuple[int, ...]:
    """Return the value of an expression, nothing where it has none here."""
    try:
        return (scope.int(expr),)
    except (HvAbiError, KeyError, AttributeError, TypeError):
        return ()


def _flat(value: Any) -> list[int]:
    if isinstance(value, dict):
        return [part for part in value.values() if isinstance(part, int)]
    return [value] if isinstance(value, int) else []
