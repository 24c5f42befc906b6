"""The plain success of a call in registers as straight-line code: decode, rules, conversion and answer in one function.

It is written from the specification like everything else. Where a request breaks a rule, or anything is not plain, it
gives None and has changed nothing: then the host judges the request step by step. Tests hold the two equal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from hvabi.abi.errors import HvAbiError
from hvabi.abi.model import RegisterPlace
from hvabi.abi.scope import state_number
from hvabi.abi.straight_decode import ASK_REFERENCE
from hvabi.abi.straight_layout import shift_of
from hvabi.abi.straight_names import Unsupported
from hvabi.abi.wire import register_bits
from hvabi.adapters.straight_rules import Conditions, Reader
from hvabi.adapters.values import HostAnswer
from hvabi.backend import GPA_PAGES, PAGE_SHIFT, PAGE_SIZE, Backend, ModelError, PageState, Status

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hvabi.abi.calls import Answer, Call, Convert
    from hvabi.abi.codec import MessageCodec
    from hvabi.abi.model import Field
    from hvabi.abi.registry import Spec
    from hvabi.adapters.host import Host

WARM = 16
"""Calls of one kind of host before code is written for it."""


class StraightCalls:
    """The functions of one specification, by transport and configuration."""

    def __init__(self) -> None:
        self._uses: dict[tuple[Any, ...], int] = {}
        self._made: dict[tuple[Any, ...], Any] = {}

    def of(self, host: Host, *, now: bool = False) -> Any:
        """Return the function for a host, or None where there is none, or not yet."""
        key = (host.transport.name, *sorted(host.config.items()))
        if key in self._made:
            return self._made[key]
        uses = self._uses[key] = self._uses.get(key, 0) + 1
        if uses < WARM and not now:
            return None
        self._made[key] = _function(host)
        return self._made[key]


def _function(host: Host) -> Any:
    """Return the function of a host, or None where it has nothing in straight lines."""
    calls = [call for call in host.abi.calls.values() if call.request in host.transport.placements]
    chain: list[Any] = []
    useful = False
    for call in calls:
        try:
            chain.append(_Writer(host, call, alone=len(calls) == 1).function())
            useful = True
        except (Unsupported, HvAbiError, ModelError):
            try:
                # Whether it is this call has to be known all the same: the next one is looked at where it is not.
                chain.append(_Writer(host, call, alone=False).function(selects=True))
            except (Unsupported, HvAbiError, ModelError):
                break
    if not useful:
        return None
    if len(calls) == 1:
        return chain[0]

    def straight(regs: Mapping[str, int], cpl: int, enabled: int, backend: Backend) -> HostAnswer | None:
        for function in chain:
            found: HostAnswer | None = function(regs, cpl, enabled, backend)
            if found is not _NEXT:
                return found
        return None

    return straight


_NEXT: Any = object()
"""What a function gives for a request that is another call's."""

_KNOWN: WeakKeyDictionary[Spec, StraightCalls] = WeakKeyDictionary()


def straight_calls(spec: Spec) -> StraightCalls:
    """Return the functions of a specification."""
    found = _KNOWN.get(spec)
    if found is None:
        found = _KNOWN[spec] = StraightCalls()
    return found


class _Writer:
    """Writes the function of one call; `alone` where the host has no other and does not look which one it is."""

    def __init__(self, host: Host, call: Call, *, alone: bool) -> None:
        self.host = host
        self.call = call
        self.alone = alone
        self.reader = Reader(self._codec(self.call.request), self.call)
        self.conditions = Conditions(self.reader)
        self.scope: dict[str, Any] = {
            "Ask": (*ASK_REFERENCE, ModelError),
            "HostAnswer": HostAnswer,
            "DONE": Status.DONE,
            "NEXT": _NEXT,
            "numbers": {state: state_number(state.value) for state in PageState},
        }

    def _codec(self, message: str) -> MessageCodec:
        return self.host.spec.message(message, transport=self.host.transport.name, config=self.host.config)

    def function(self, *, selects: bool = False) -> Any:
        """Return the function; with `selects` one that only tells whether it is this call.

        Raises `Unsupported` where the call needs more than is written here.
        """
        reader = self.reader
        if not self.alone:
            reader.lines.append(f"if not ({self.conditions.selected((), everything=True)}): return NEXT")
        if selects:
            reader.lines.append("return None")
        else:
            self._body()
        source = "\n".join(
            [
                "def straight(regs, cpl, enabled, backend):",
                f"    {reader.names.budget}",
                "    try:",
                *(f"        {line}" for line in (*reader.loads(), *reader.lines)),
                "    except Ask:",
                "        return None",
            ]
        )
        scope = {
            **reader.names.globals(),
            **reader.scope,
            **self.conditions.scope,
            **self.scope,
            "__builtins__": {},
            "len": len,
        }
        exec(compile(source, f"<hvabi {self.host.abi.id}>", "exec"), scope)
        return scope["straight"]

    def _body(self) -> None:
        call = self.call
        convert = call.convert
        if call.query is not None or convert is None or convert.each is not None or convert.facts:
            raise Unsupported("no range")
        if self.host.rules(call, "page"):
            raise Unsupported("rules about pages")
        for rule in self.host.rules(call, "call"):
            self.conditions.rule(rule)
        self._convert(convert)

    # -- the work -----------------------------------------------------------------------------------------------

    def _convert(self, convert: Convert) -> None:
        call, lines = self.call, self.reader.lines
        if convert.to is None:
            raise Unsupported("no direction")

        def state(word: str | None) -> PageState | None:
            return None if word is None or word == "none" else PageState(word)

        self.scope["states"] = {number: state(word) for number, word in convert.to.states.items()}
        self.scope["otherwise"] = state(convert.to.otherwise)
        pages, start, of = (
            self.reader.number(convert.pages),
            self.reader.number(convert.start),
            self.reader.number(convert.to.of),
        )
        absent = call.absent[0].value if call.absent else "allow"
        lines += [
            f"done_pages = {pages}",
            f"start = {start} >> {PAGE_SHIFT}",
            f"if done_pages <= 0 or start < 0 or start + done_pages > {GPA_PAGES}: return None",
            f"state = states.get({of}, otherwise)",
            "if state is None: return None",
        ]
        answer = self._written_answer()
        lines += [*answer[0], f"changed = backend.convert_whole(start, start + done_pages, state, {absent!r})"]
        lines.append("if changed is None: return None")
        lines.append(answer[1])

    # -- the answer ---------------------------------------------------------------------------------------------

    def _written_answer(self) -> tuple[list[str], str]:
        """Return the lines that work out the answer, before any page changes, and the one that returns it."""
        answers = [
            answer
            for answer in self.call.outcomes.get(Status.DONE.value, ())
            if answer.cannot is None and answer.guard.serves(self.host.transport.name)
        ]
        if not answers:
            raise Unsupported("no answer")
        answer = answers[0]
        kept, self.reader.lines = self.reader.lines, []
        if answer.when is not None:
            self.reader.require(self.reader.names.code(answer.when, "bool"))
        registers = "{}"
        if answer.fields and answer.end != "stop":
            registers = self._registers(answer)
        lines, self.reader.lines = self.reader.lines, kept
        used = "\n".join(lines)
        known = {"done_bytes": f"done_pages * {PAGE_SIZE}", "to": "numbers[state]", "index": "1"}
        known.update({"part_pages": "0", "errno": "0"})
        lines = [f"{name} = {code}" for name, code in known.items() if name in used] + lines
        self.scope["end"], self.scope["fault"], self.scope["reason"] = answer.end, answer.fault, answer.reason
        return lines, (
            f"return HostAnswer(end=end, regs={registers}, fault=fault, reason=reason, status=DONE,"
            " done_pages=done_pages, changes=changed)"
        )

    def _registers(self, answer: Answer) -> str:
        """Return code for the registers that the answer sets; the lines before it work out the values."""
        if self.call.response is None:
            raise Unsupported("no response")
        codec = self._codec(self.call.response)
        values: dict[str, Any] = {}
        for path, expr in answer.fields.items():
            name, _, inner = path.partition(".")
            if inner:
                values.setdefault(name, {})[inner] = expr
            else:
                values[name] = expr
        places = {name: codec.placer.place_of(name) for name in codec.message.fields}
        touched = {place.register for name in values if isinstance(place := places[name], RegisterPlace)}
        for name, field in codec.message.fields.items():
            place = places[name]
            fixed = field.const or field.default
            if name in values or fixed is None or not isinstance(place, RegisterPlace):
                continue
            if place.register in touched:
                values[name] = fixed
        out: dict[str, str] = {}
        for name, given in values.items():
            place = places[name]
            if place is None:
                continue
            if not isinstance(place, RegisterPlace):
                raise Unsupported(f"{name} in no register")
            self._field(codec.message.fields[name], place, given, out)
        return "{" + ", ".join(f"{register!r}: {code}" for register, code in out.items()) + "}"

    def _field(self, field: Field, place: RegisterPlace, given: Any, out: dict[str, str]) -> None:
        variable = f"v_{field.name}"
        lines = self.reader.lines
        if isinstance(given, dict):
            if field.word is None or any(part.signed for part in field.word.fields.values()):
                raise Unsupported(field.name)
            terms = []
            for name, part in field.word.fields.items():
                if name not in given:
                    if part.const is not None or part.default is not None:
                        raise Unsupported(f"{field.name}.{name}")
                    continue
                lines.append(f"p = {self.reader.number(given[name])}")
                lines.append(f"if p >> {part.bits}: return None")
                terms.append(f"t_{name}")
                lines.append(f"t_{name} = p << {shift_of(part, field.word)}")
            lines.append(f"{variable} = {' | '.join(terms) or '0'}")
        else:
            lines.append(f"{variable} = {self.reader.number(given)}")
        width = field.bits if place.hi is None else place.hi - place.lo + 1
        low = -(1 << (field.bits - 1)) if field.signed else 0
        high = 1 << (field.bits if field.signed else min(width, field.bits))
        lines.append(f"if not {low} <= {variable} < {high:#x}: return None")
        mask = f"{((1 << width) - 1) << place.lo:#x}"
        if place.sign_extend:
            wide = f"{((1 << (register_bits(place.register) - place.lo)) - 1) << place.lo:#x}"
            mask = f"({wide} if {variable} < 0 else {mask})"
        value = f"({variable} << {place.lo} & {mask})" if place.lo else f"({variable} & {mask})"
        before = out.get(place.register)
        out[place.register] = value if before is None else f"({before} & ~{mask} | {value})"
