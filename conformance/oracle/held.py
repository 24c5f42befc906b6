"""What a host remembers from one call to the next: a second time, worked out from the specification alone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hvabi.abi.model import PairPlace, RegisterPlace
from hvabi.conformance.case import Handle, Held, Region
from hvabi.conformance.oracle.walk import Names, Undefined, value

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hvabi.abi.calls import Answer, HandleUse, Rule
    from hvabi.abi.model import Message, Place, Placement
    from hvabi.conformance.oracle.asked import Asked


def found(request: Asked) -> Region | None:
    """Return what is kept under the handle that a request names, None where nothing is."""
    use = request.call.handle
    if use is None or use.of is None:
        return None
    number = request.names.fields.get(use.of)
    return next((region for region in request.held.regions if region.number == number), None)


def is_handle(request: Asked, number: int, state: str) -> bool:
    """Whether a number is a handle that is alive, and in this state."""
    return any(one.number == number and one.complete == (state == "complete") for one in request.held.regions)


def names_of(request: Asked, use: HandleUse) -> Names:
    """Return the names of a request and those of the handle that it uses; what has no value is left out."""
    regions, region = request.held.regions, found(request)
    names = request.names.plus(handles=len(regions), held=sum(len(one.items) for one in regions))
    try:
        own = list(names.fields[use.list]) if use.list is not None and use.list in names.fields else []
    except Undefined:
        return names  # the elements lie where there is no memory
    if use.does == "open":
        numbers: dict[str, int] = {}
        for name, expr in use.keep.items():
            try:
                numbers[name] = int(value(expr, names))
            except Undefined:
                continue
        names = names.plus(gathered=own, parts=1, kept=numbers)
    elif region is not None:
        more = use.does == "continue"
        names = names.plus(gathered=[*region.items, *own], parts=region.parts + more, kept=dict(region.kept))
    else:
        return names
    try:
        return names.plus(complete=1 if use.complete is None else int(bool(value(use.complete, names))))
    except Undefined:
        return names


def number_of(request: Asked, use: HandleUse) -> int:
    """Return the handle that a call is about: for a new one the number that the model gives next."""
    if use.of is not None:
        return int(request.names.fields.get(use.of, 0))
    assert request.abi.handles is not None  # lint holds it: a call that uses handles has them
    return int(value(request.abi.handles.first, request.names)) + request.held.given


def after(request: Asked, answer: Answer, status: str, rule: Rule | None) -> Held:
    """Return what the host remembers behind an answer."""
    use, held, names = request.call.handle, request.held, request.names
    if use is None or answer.end != "return":
        return held
    number = number_of(request, use)
    others = tuple(region for region in held.regions if region.number != number)
    if rule is not None:
        return replace(held, regions=others) if rule.drops else held
    if status != "done":
        # A list that is whole and cannot be done can never be done: nothing is added to it any more.
        lost = use.does == "continue" and names.local.get("complete")
        return replace(held, regions=others) if lost else held
    if use.does == "close":
        return replace(held, regions=others)
    region = Region(
        number=number,
        kept=names.of("kept"),
        items=tuple(names.of("gathered")),
        parts=names.of("parts"),
        complete=bool(names.of("complete")),
    )
    return Held(regions=(*others, region), given=held.given + (use.does == "open"))


def chosen(message: Message, placement: Placement, values: dict[str, Any]) -> tuple[Handle, ...]:
    """Return where the handles of an answer lie: every implementation gives its own numbers there."""
    return tuple(
        Handle(number=number, places=places_of(placement.place.get(name, ())))
        for name, number in values.items()
        if message.fields[name].chosen_by_host
    )


def places_of(places: Iterable[Place]) -> tuple[tuple[str, int, int, int], ...]:
    """Return the registers of a field: each with its lowest bit, bits, and the lowest bit of the value there."""
    for place in places:
        match place:
            case PairPlace(high=high, low=low):
                return ((low, 0, 32, 0), (high, 0, 32, 32))
            case RegisterPlace(register=register, hi=hi, lo=lo):
                return ((register, lo, 64 - lo if hi is None else hi - lo + 1, 0),)
            case _:
                return ()
    return ()
