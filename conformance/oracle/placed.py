"""Where an expected answer lies: response fields as registers and bytes, and what is not compared.

Only the codec's placing of single fields is shared with the rest of hvabi; the values come from the oracle.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hvabi.abi.model import BlockPlace, PairPlace, RegisterPlace
from hvabi.abi.placing import Placer
from hvabi.abi.scope import Fields, Scope, static_names
from hvabi.abi.wire import WireSink, merge
from hvabi.conformance.oracle.held import chosen
from hvabi.conformance.oracle.walk import Names, value

if TYPE_CHECKING:
    from hvabi.abi.calls import Answer
    from hvabi.conformance.case import Handle, Memory
    from hvabi.conformance.oracle.question import Questioned as Request


@dataclass(slots=True)
class Placed:
    """An answer on the wire."""

    regs: dict[str, int] = field(default_factory=dict)
    mem: Memory = ()
    may_change: tuple[str, ...] = ()
    nonzero: tuple[tuple[str, int], ...] = ()
    may_change_mem: tuple[tuple[int, int], ...] = ()
    chosen: tuple[Handle, ...] = ()


def place_answer(request: Request, answer: Answer, names: Names) -> Placed:
    """Encode the fields of an answer, the marks of elements, and what may change."""
    call, transport = request.call, request.transport
    scope = _scope(request)
    sink = WireSink()
    _place_marks(request, scope, sink)
    placed = Placed()
    if call.response is None or call.response not in transport.placements:
        placed.mem = merge(sink.mem)
        return placed
    placement = transport.placements[call.response]
    blocks = {**request.placement.blocks, **placement.blocks}
    placer = Placer(request.abi.messages[call.response], placement, blocks, f"{request.abi.id}/{call.response}")
    if answer.end != "stop":
        values = _values(answer, names, placer)
        for name, item in values.items():
            placer.store(name, item, scope, sink)
        placed.chosen = chosen(placer.message, placement, values)
        for name, (first, answers) in request.lists.items():
            placer.store_part(name, first, answers, scope, sink)
    registers: list[str] = []
    areas: list[tuple[int, int]] = []
    for name in placement.may_change:
        _loosen(name, placer, scope, registers, areas)
    # What this answer writes is an output here, whatever the transport leaves open elsewhere.
    registers = [name for name in registers if name not in sink.regs]
    for name in answer.may_change:
        _loosen(name, placer, scope, registers, areas)
    nonzero: list[tuple[str, int]] = []
    for name in answer.nonzero if request.abi.profile == "spec" else ():
        place = placer.place_of(name)
        if isinstance(place, RegisterPlace):
            bits = placer.message.fields[name].bits
            nonzero.append((place.register, ((1 << bits) - 1) << place.lo))
    placed.regs = sink.regs
    placed.mem = sink.mem
    placed.may_change = tuple(dict.fromkeys(registers))
    placed.nonzero = tuple(nonzero)
    placed.may_change_mem = tuple(sorted(set(areas)))
    return placed


def _scope(request: Request) -> Scope:
    known = request.placed.fields
    static = static_names(request.abi, request.transport, request.config)
    return Scope(
        static,
        define=request.names.define,
        request=Fields(known, known.__getitem__),
        local={"cpl": request.names.local["cpl"], "enabled": request.names.local["enabled"]},
    )


def _values(answer: Answer, names: Names, placer: Placer) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for path, expr in answer.fields.items():
        name, _, inner = path.partition(".")
        if inner:
            values.setdefault(name, {})[inner] = value(expr, names)
        else:
            values[name] = value(expr, names)
    touched = {place.register for name in values if isinstance(place := placer.place_of(name), RegisterPlace)}
    for name, item in placer.message.fields.items():
        place = placer.place_of(name)
        fixed = item.const if item.const is not None else item.default
        if name not in values and fixed is not None and isinstance(place, RegisterPlace) and place.register in touched:
            values[name] = value(fixed, names)
    return values


def _place_marks(request: Request, scope: Scope, sink: WireSink) -> None:
    """Write the elements that the host brings up to date."""
    if not request.marks or request.each is None:
        return
    placer = Placer(request.message, request.placement, request.placement.blocks, request.abi.id)
    place = placer.place_of(request.each)
    if not isinstance(place, BlockPlace):
        return
    item_field = request.message.fields[request.each]
    block = placer.blocks[place.block]
    for number, updates in request.marks:
        item = request.names.fields[request.each][number]
        known = dict(item) if isinstance(item, dict) else dict(zip(item._fields, item, strict=True))
        raw = placer.element_bytes(item_field, {**known, **updates}, block, request.each)
        stride = value(place.stride, request.names) if place.stride is not None else len(raw)
        placer.write(block, value(place.at, request.names) + number * stride, raw, scope, sink)


def _loosen(name: str, placer: Placer, scope: Scope, registers: list[str], areas: list[tuple[int, int]]) -> None:
    """Add what a name of ``may-change`` stands for: a response field, a register, a block, a block's field."""
    block_name, _, inner = name.partition(".")
    if name in placer.message.fields:
        match placer.place_of(name):
            case RegisterPlace(register=register):
                registers.append(register)
            case PairPlace(high=high, low=low):
                registers.extend((high, low))
            case BlockPlace() as place:
                block = placer.blocks[place.block]
                offset, size, _, _ = placer.span(placer.message.fields[name], place, scope)
                areas.append((placer.address(block, scope) + offset, size))
            case None:
                pass
    elif block_name in placer.blocks:
        block = placer.blocks[block_name]
        base = placer.address(block, scope)
        if inner and block.layout is not None:
            item = block.layout.fields[inner]
            areas.append((base + item.at, item.size))
        elif block.registers:
            registers.extend(block.registers)
        else:
            areas.append((base, max(scope.int(block.size), 0)))
    else:
        registers.append(name)
