"""Which call a register or an exit code is: asked of the specifications, so that a new ABI needs no new reader."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from hvabi.abi.errors import ExprError, UsageError
from hvabi.abi.model import BlockPlace, RegisterPlace
from hvabi.abi.readings import naming, specs
from hvabi.abi.registry import load
from hvabi.abi.scope import Fields, Scope
from hvabi.adapters.checks import Context, element_enums, keeps
from hvabi.traces.meaning import Meaning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from hvabi.abi.calls import Call
    from hvabi.abi.model import Placement, Transport
    from hvabi.abi.registry import Spec
    from hvabi.traces.event import Reading

_ISA = "x86-64"


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A message that lies in registers only, and what tells it from others: `value` in the bits `mask` of one of them.

    `call` is the call of which it is the request or the response, by `role`; None where it is neither.
    """

    spec: Spec
    transport: str
    message: str
    places: Mapping[str, RegisterPlace]
    mask: int
    value: int
    call: Call | None
    role: str

    @property
    def converts(self) -> bool:
        """Whether it asks for the conversion of one range."""
        call = self.call
        return (
            self.role == "request"
            and call is not None
            and call.convert is not None
            and call.convert.each is call.convert.bits is None
        )

    def fields(self, registers: Mapping[str, int]) -> dict[str, int]:
        """Return the fields as numbers."""
        widths = self.spec.abi.messages[self.message].fields
        found = {}
        for name, place in self.places.items():
            bits = widths[name].bits if place.hi is None else place.hi - place.lo + 1
            found[name] = registers[place.register] >> place.lo & ((1 << bits) - 1)
        return found

    def meaning(self) -> Meaning:
        """Return what its fields mean, for a request that converts."""
        assert self.call is not None
        return _meaning(self.spec.id, self.spec.abi.revision, self.transport, self.call.name)

    def text(self, registers: Mapping[str, int]) -> str:
        """Return the fields that say something, for people."""
        value = self.spec.message(self.message, transport=self.transport).decode(dict(registers))
        shown = []
        for name, field in self.spec.abi.messages[self.message].fields.items():
            if field.const is None and field.reserved is None:
                each = getattr(value, name)
                shown.append(f"{name} {getattr(each, 'name', None) or f'{each:#x}'}")
        return ", ".join(shown) or self.message


@cache
def _meaning(abi: str, revision: str, transport: str, call: str) -> Meaning:
    return Meaning(abi, revision=revision, transport=transport, call=call)


@cache
def forms(number: str, given: tuple[str, ...]) -> tuple[Form, ...]:
    """Return every message that constants in register `number` tell and that lies in registers that are given."""
    found, _ = specs(naming([number]), tolerant=True)
    return tuple(form for spec in found for form in _forms(spec, number, given))


def _forms(spec: Spec, number: str, given: tuple[str, ...]) -> Iterator[Form]:
    for transport in spec.abi.transports.values():
        if transport.isa != _ISA or transport.mode != "64":
            continue
        static = spec.names(transport, spec.config())
        scope = Scope(static)
        for name, placement in transport.placements.items():
            places = _places(spec, name, placement, given)
            if places is None or not set(placement.fixed) <= set(given):
                continue
            mask = value = 0
            for field, place in places.items():
                const = spec.abi.messages[name].fields[field].const
                if const is not None and place.register == number:
                    bits = spec.abi.messages[name].fields[field].bits if place.hi is None else place.hi - place.lo + 1
                    mask |= ((1 << bits) - 1) << place.lo
                    value |= scope.int(const) << place.lo
            if mask:
                call, role = _call(spec, name)
                yield Form(
                    spec=spec,
                    transport=transport.name,
                    message=name,
                    places=places,
                    mask=mask,
                    value=value,
                    call=call,
                    role=role,
                )


def _places(spec: Spec, message: str, placement: Placement, given: tuple[str, ...]) -> dict[str, RegisterPlace] | None:
    """Return where the fields lie, or None where one of them does not lie in a register that is given."""
    out: dict[str, RegisterPlace] = {}
    for name in spec.abi.messages[message].fields:
        places = placement.place.get(name)
        if not places:
            continue
        if not isinstance(places[0], RegisterPlace) or places[0].register not in given:
            return None
        out[name] = places[0]
    return out


def _call(spec: Spec, message: str) -> tuple[Call | None, str]:
    for call in spec.abi.calls.values():
        if call.request == message:
            return call, "request"
        if call.response == message:
            return call, "response"
    return None, ""


def readings(number: str, registers: Mapping[str, int]) -> list[Reading]:
    """Return what a call in registers converts, by every ABI that knows it; readings with the same result once."""
    found: list[Reading] = []
    for form in matching(number, registers):
        if not form.converts:
            continue
        reading = form.meaning().of(**form.fields(registers))
        if not any(each[1:4] == reading[1:4] for each in found):
            found.append(reading)
    return found


def matching(number: str, registers: Mapping[str, int]) -> list[Form]:
    """Return the messages that registers can be."""
    word = registers[number]
    return [form for form in forms(number, tuple(sorted(registers))) if word & form.mask == form.value]


def failure(call: Call, spec: Spec, request: Mapping[str, int], response: Mapping[str, int]) -> str | None:
    """Return why a guest takes an answer for a failure, or None for one that shows none.

    A call that goes on in pieces has failed where it is neither done nor to be gone on with; any other, where a
    rule says that the guest must not accept the answer. What needs a field that is not given is not asked.
    """
    assert call.response is not None
    message = spec.abi.messages[call.response]
    sent = Fields(request, request.__getitem__)
    got = Fields(response, response.__getitem__)
    place = next(t for t in spec.abi.transports.values() if call.response in t.placements)
    scope = Scope(
        spec.names(place, spec.config()), request=got, response=sent, local={"request": sent, "response": got}
    )
    if call.progress is not None:
        fine = (call.progress.again_when, call.progress.done_when)
        return None if any(_known(scope.true, expr) for expr in fine) else "failed"
    context = Context(
        backend=None,
        readable=lambda _: True,
        selected=lambda _: True,
        message=message,
        element=element_enums(message, None),
    )
    for rule in call.rules:
        binds = rule.binds == "guest" and rule.on == "response" and rule.level in ("must", "should")
        if binds and _known(lambda each: keeps(each, scope, context), rule) is False:
            return rule.id
    return None


def _known(ask: Callable[[Any], bool], what: Any) -> bool | None:
    """Return an answer, or None where it depends on something that is not known."""
    try:
        return ask(what)
    except (KeyError, ExprError):
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """A call through the GHCB page, known by its exit code.

    Attributes:
        whole: False where the call has other constants, which a trace of the exit code does not show.
        info1: the field of the answer that lies in the first exit information, or None.
        info2: the same for the second.

    """

    spec: Spec
    call: Call
    whole: bool
    info1: str | None
    info2: str | None

    @property
    def converts(self) -> bool:
        """Whether it converts pages."""
        return self.call.convert is not None

    def failure(self, info1: int, info2: int) -> str | None:
        """Return the name of an answer that is no success, or None for one that shows no error."""
        got = {name: value for name, value in ((self.info1, info1), (self.info2, info2)) if name is not None}
        reason = failure(self.call, self.spec, {}, got)
        if reason is None:
            return None
        enum = self.spec.abi.messages[self.call.response or ""].fields[self.info2].enum if self.info2 else None
        return (enum.name_of(info2) if enum is not None and info2 else None) or reason


@cache
def exits() -> Mapping[int, Exit]:
    """Return every call through a GHCB page by its exit code."""
    found: dict[int, Exit] = {}
    every, _ = specs(naming(["ghcb"]), tolerant=True)
    for spec in every:
        for transport in spec.abi.transports.values():
            for call in spec.abi.calls.values():
                code = _exit_code(spec, transport, call.request)
                if code is not None and (call.convert is not None or code not in found):
                    found.setdefault(code, _exit(spec, transport, call))
    return found


def _exit_code(spec: Spec, transport: Transport, message: str) -> int | None:
    at = _at(transport, message, "sw_exitcode")
    const = spec.abi.messages[message].fields[at].const if at else None
    return None if const is None else Scope(spec.names(transport, spec.config())).int(const)


def _at(transport: Transport, message: str | None, layout_field: str) -> str | None:
    """Return the field of a message that lies in a field of the GHCB page."""
    placement = transport.placements.get(message or "")
    for name, places in placement.place.items() if placement else ():
        if places and isinstance(places[0], BlockPlace) and places[0].layout_field == layout_field:
            return name
    return None


def _exit(spec: Spec, transport: Transport, call: Call) -> Exit:
    placed = transport.placements[call.request].place
    fields = spec.abi.messages[call.request].fields
    return Exit(
        spec=spec,
        call=call,
        whole=sum(1 for name, field in fields.items() if field.const is not None and name in placed) == 1,
        info1=_at(transport, call.response, "sw_exitinfo1"),
        info2=_at(transport, call.response, "sw_exitinfo2"),
    )


def msr_register() -> str:
    """Return the name of the GHCB MSR, as the specification of the MSR protocol has it."""
    spec = load("ghcb-msr-psc")
    return spec.message("request").placer.registers[0]


def meaning_of(abi: str, **options: Any) -> Meaning | None:
    """Return the meaning of an ABI's calls, or None where no bundled specification has that ABI."""
    try:
        return Meaning(abi, **options)
    except UsageError:
        return None
