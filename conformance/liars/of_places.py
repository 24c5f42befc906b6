"""Host liars that read or write the wrong bits, registers and bytes."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from hvabi.abi.model import PairPlace, RegisterPlace
from hvabi.conformance.liars import hosts, model
from hvabi.conformance.liars.exprs import parse
from hvabi.conformance.liars.liar import Planted
from hvabi.conformance.liars.made import Made
from hvabi.conformance.liars.sight import Sight

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hvabi.abi.calls import Answer, Call
    from hvabi.abi.expr import Expr
    from hvabi.abi.model import Message, Transport
    from hvabi.abi.specification import Abi

    Changing = Callable[[Abi, Callable[[Answer], Answer]], Abi]


class PlaceLies(Sight):
    """Makes them."""

    def places(self) -> Iterator[Made]:
        """Yield hosts that read or write registers and bytes the wrong way."""
        at = self.transport.name
        asked = self.transport.placements[self.call.request]
        read = self.read_fields()
        for name, field in self.request.fields.items():
            place = asked.place.get(name, (None,))[0]
            if name not in read:
                # A host that does not look at a field at all cannot look at it the wrong way.
                continue
            if isinstance(place, RegisterPlace) and field.bits == 64 and (place.hi is None or place.hi - place.lo > 32):
                yield Made(
                    kind="truncated",
                    name=f"{name}",
                    what=f"It looks at the low 32 bits of {name} only.",
                    planted=Planted(host=hosts.reads_low_half(place.register)),
                )
            if isinstance(place, PairPlace):
                yield Made(
                    kind="truncated",
                    name=f"{name}",
                    what=f"It does not look at the upper half of {name}.",
                    planted=Planted(
                        spec=partial(
                            model.with_place,
                            transport=at,
                            message=self.call.request,
                            field=name,
                            place=RegisterPlace(register=place.low, hi=31),
                        )
                    ),
                )
            if field.is_list and field.items is not None and field.items.size > 1:
                yield Made(
                    kind="endian",
                    name=f"{name}",
                    what=f"It reads the elements of {name} in the other byte order.",
                    planted=Planted(spec=partial(model.with_list_endian, message=self.call.request, name=name)),
                )
        for block, inside in model.blocks_of(asked).items():
            yield Made(
                kind="endian",
                name=f"block-{block}",
                what=f"It reads the integers of {block} in the other byte order.",
                planted=Planted(
                    spec=partial(model.with_block_endian, transport=at, message=self.call.request, block=block)
                ),
                hints=tuple(inside),
            )
        if self.call.response is None:
            return
        told = self.transport.placements[self.call.response]
        registers = model.registers_of(told)
        spare = _spare(self.transport, self.call)
        for name, register in registers.items():
            place = told.place[name][0]
            if isinstance(place, RegisterPlace) and spare is not None:
                yield Made(
                    kind="register",
                    name=f"{name}-in-{spare}",
                    what=f"It writes {name} to {spare} and not to {register}.",
                    planted=Planted(
                        spec=partial(
                            model.with_place,
                            transport=at,
                            message=self.call.response,
                            field=name,
                            place=replace(place, register=spare),
                        )
                    ),
                    equivalent=self._never_told(name),
                )
            answered = self.response_field(name)
            if isinstance(place, RegisterPlace) and place.hi is None and answered is not None and answered.bits == 64:
                yield Made(
                    kind="truncated",
                    name=f"response-{name}",
                    what=f"It answers the low 32 bits of {name} only.",
                    planted=Planted(host=hosts.writes_low_half(register)),
                    equivalent=self._never_told(name) or self._never_wide(name),
                )
        for register in _clobbered(self.transport, self.call):
            yield Made(
                kind="register",
                name=f"{register}-clobbered",
                what=f"It changes {register}, which is no output.",
                planted=Planted(host=hosts.clobbers(register)),
            )

    def _never_told(self, name: str) -> str | None:
        """Say why a field of the response is never written by a host, or None."""
        told = [rule.answer for rule in self.rules if rule.answer is not None]
        for status in self.call.outcomes:
            told += [answer for _, answer in model.answers_of(self.call.outcomes, status, self.transport.name)]
        if any(path.partition(".")[0] == name for answer in told for path in answer.fields):
            return None
        return f"no answer of the host writes {name}"

    def _never_wide(self, name: str) -> str | None:
        field = self.response_field(name)
        if field is None or field.enum is None:
            return None
        if all(value.value >> 32 == 0 for value in field.enum.values.values()):
            return f"every value of {name} fits 32 bits"
        return None

    def reserved(self) -> Iterator[Made]:
        """Yield hosts that refuse reserved bits that are to be ignored."""
        refusing = [
            rule
            for rule in self.rules
            if rule.answer is not None and rule.answer.end == "return" and rule.answer.fields
        ]
        refusal = next((rule for rule in refusing if rule.scope == "call"), None)
        element = next((rule for rule in refusing if rule.scope != "call"), refusal)
        each = self.call.each
        placed = self.transport.placements[self.call.request].place
        for path, expr in _reserved_paths(self.request, each):
            if not placed.get((each or "") if path.startswith("it.") else path.partition(".")[0]):
                continue
            pattern = element if path.startswith("it.") else refusal
            if pattern is None:
                continue
            rule = replace(
                pattern,
                id=f"{pattern.id}-RESERVED",
                check="reserved",
                operands={"of": (expr,)},
                words={},
                when=None,
                scope="element" if path.startswith("it.") else "call",
            )
            yield Made(
                kind="reserved",
                name=path.replace("it.", f"{each}."),
                what=f"It refuses reserved bits in {path}, which a receiver ignores.",
                planted=Planted(spec=partial(model.with_added_rule, rule=rule)),
                hints=("reserved",),
            )


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
    for name, field in message.fields.items():
        if field.reserved is not None and field.reserved.receive == "ignore":
            yield name, parse(name)
        layout = field.word or (field.items if name == each else None)
        for inner, part in layout.fields.items() if layout is not None else ():
            if part.reserved is not None and part.reserved.receive == "ignore":
                path = f"{name}.{inner}" if field.word is not None else f"it.{inner}"
                yield path, parse(path)
