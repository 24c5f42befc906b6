"""Questions of the comparison matrix about the call itself: who makes it, what it names, in which units."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvabi.abi.comparison import Cell, unstated
from hvabi.abi.expr_readable import readable
from hvabi.abi.words import size_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hvabi.abi.called import Called
    from hvabi.abi.model import Field, Transport

_PAGE = 4096
ASKS = "changes no page"
"""The answer of a call that only asks or tells."""


def _grouped(answers: Mapping[str, str]) -> tuple[str, ...]:
    """Return answers by transport as lines: one where all agree, else each with its transports."""
    by_text: dict[str, list[str]] = {}
    for transport, text in answers.items():
        by_text.setdefault(text, []).append(transport)
    if len(by_text) == 1:
        return tuple(by_text)
    return tuple(f"{text} ({', '.join(transports)})" for text, transports in by_text.items())


def roles(at: Called) -> Cell:
    """Answer which side makes the call, which answers."""
    guest, host = at.abi.roles.get("guest", ""), at.abi.roles.get("host", "")
    return Cell(lines=(f"{guest} → {host}",), data={"guest": guest, "host": host})


def made_by(at: Called) -> Cell:
    """Answer by which instruction or system call it is made, by transport."""
    data = {item.name: {"isa": item.isa, "mode": item.mode, "instruction": item.instruction} for item in at.transports}
    return Cell(lines=_grouped({item.name: _made(item) for item in at.transports}), data=data)


def _made(item: Transport) -> str:
    mode = f", {item.mode}-bit" if item.mode != "64" else ""
    return f"{item.instruction} on {item.isa}{mode}" if item.instruction else item.isa


# -- what is named ----------------------------------------------------------------------------------------------


def form(at: Called) -> Cell:
    """Answer what one request can name."""
    about = at.call.convert or at.call.query
    if about is None:
        return unstated("names no pages")
    one = at.constant(about.pages) == 1
    if about.each is None:
        return Cell(lines=("one page" if one else "one range",), data={"list": False, "one_page": one})
    if about.each not in at.request.fields:
        return Cell(lines=("a handle",), data={"list": False, "one_page": False, "handle": True})
    item = at.request.fields[about.each]
    what = f"{item.items.name}, {item.bits // 8} bytes each" if item.items is not None else f"{item.bits}-bit numbers"
    kind = "pages" if one else "ranges"
    data = {"list": True, "one_page": one, "element_bits": item.bits, "of": item.items.name if item.items else None}
    return Cell(lines=(f"list of {kind}", what), data=data)


def _units(at: Called, fields: Mapping[str, Field]) -> list[tuple[str, str]]:
    return [(at.shown(path), item.unit) for path, item in fields.items() if item.unit is not None]


def unit(at: Called) -> Cell:
    """Answer in what units start and length are counted."""
    about = at.call.convert or at.call.query
    if about is None:
        return unstated("names no pages")
    start = at.fields(about.start)
    length = {path: item for path, item in at.fields(about.pages).items() if path not in start}
    parts = {"start": _units(at, start), "length": _units(at, length)}
    if not parts["start"] and not parts["length"]:
        return unstated()
    lines = tuple(f"{name} in {unit}s" for part in parts.values() for name, unit in part)
    data = {key: [{"field": name, "unit": unit} for name, unit in part] for key, part in parts.items()}
    return Cell(lines=lines, data=data)


def granule(at: Called) -> Cell:
    """Answer what the smallest piece of memory is that can be named."""
    about = at.call.convert or at.call.query
    if about is None:
        return unstated("names no pages")
    guest = at.call.guest
    if guest is not None and guest.granule is not None:
        size = at.number(guest.granule)
        by_config = bool(at.paths(guest.granule)) and at.constant(guest.granule) is None
        if size is None:
            return Cell(lines=(readable(guest.granule),), data={"bytes": None})
        note = (f"by {readable(guest.granule)}",) if by_config else ()
        return Cell(lines=(size_of(size), *note), data={"bytes": size})
    sizes: dict[int, str] = {}
    start = set(at.fields(about.start))
    for rule in at.call.rules:
        if rule.check != "aligned" or rule.level not in ("must", "should"):
            continue
        of = {path for expr in rule.operands.get("of", ()) for path in at.fields(expr)}
        to = at.constant(rule.operands["to"][0]) if rule.operands.get("to") else None
        if of & start and to is not None and to >= _PAGE:
            sizes[to] = rule.id
    if sizes:
        size = max(sizes)
        return Cell(lines=(size_of(size),), data={"bytes": size}, rules=(sizes[size],))
    if any(unit == "page" for _, unit in _units(at, at.fields(about.start))):
        return Cell(lines=(size_of(_PAGE),), data={"bytes": _PAGE})
    return unstated()


def page_size(at: Called) -> Cell:
    """Answer whether a request says how large the pages shall be, and whether that is a hint only."""
    convert = at.call.convert
    if convert is None:
        return unstated(ASKS)
    if convert.hint is None:
        return Cell(lines=("none",), data=None)
    counted = set(at.fields(convert.pages))
    lines, data = [], []
    for path, item in at.fields(convert.hint).items():
        if item.enum is None and item.bits > 8:
            continue  # the length itself, not a size
        names = list(item.enum.values) if item.enum is not None else []
        kind = "size of the element" if path in counted else "a hint"
        lines.append(f"{kind}: {at.shown(path)}" + (f" ({', '.join(names)})" if names else ""))
        data.append({"field": at.shown(path), "hint_only": path not in counted, "values": names})
    return Cell(lines=tuple(lines), data=data) if lines else unstated()


def polarity(at: Called) -> Cell:
    """Answer how the request says private or shared."""
    convert = at.call.convert
    if convert is None:
        return unstated(ASKS)
    if convert.to is None:
        facts = {name: readable(expr) for name, expr in convert.facts.items()}
        lines = tuple(f"{name} = {text}" for name, text in facts.items())
        return Cell(lines=lines, data={"facts": facts}) if facts else unstated()
    to = convert.to
    fields = at.fields(to.of)
    paths = at.paths(to.of)
    item = fields[paths[0]] if len(paths) == 1 and readable(to.of) in (paths[0], *at.call.define) and fields else None
    enum = item.enum if item is not None else None
    names = {number: enum.name_of(number) if enum is not None else None for number in to.states}
    other = f", else {to.otherwise or 'no change'}" if to.has_otherwise else ""
    parts = [f"{names[number] or f'{number:#x}'} {state or 'no change'}" for number, state in to.states.items()]
    data = {
        "of": readable(to.of),
        "states": [{"value": f"{n:#x}", "name": names[n], "state": state} for n, state in to.states.items()],
        "otherwise": to.otherwise if to.has_otherwise else None,
    }
    return Cell(lines=(f"{at.shown(readable(to.of))}: {', '.join(parts)}{other}",), data=data)


def byte_order(at: Called) -> Cell:
    """Byte order of what lies in memory."""
    data: dict[str, list[str]] = {}
    shown: dict[str, str] = {}
    for transport in at.transports:
        blocks = transport.placements[at.call.request].blocks.values()
        orders = sorted({f"{block.endian} endian" for block in blocks if not block.registers})
        packed = sorted({f"{block.endian} endian" for block in blocks if block.registers})
        data[transport.name] = sorted({block.endian for block in blocks})
        shown[transport.name] = (
            f"memory, {' and '.join(orders)}" if orders else
            f"registers taken as bytes, {' and '.join(packed)}" if packed else "registers only"
        )  # fmt: skip
    return Cell(lines=_grouped(shown), data=data)


def maximum(at: Called) -> Cell:
    """Answer how much one call can name, as the guest's side of the specification has it."""
    guest, convert = at.call.guest, at.call.convert
    if convert is None:
        return unstated(ASKS)
    if guest is None or (guest.max_elements is None and guest.max_pages is None):
        if convert.each is None and at.constant(convert.pages) == 1:
            return Cell(lines=("1 page",), data={item.name: {"pages": 1} for item in at.transports})
        return unstated()
    shown, data = {}, {}
    most = guest.element_pages[0] if guest.element_pages else 1
    for transport in at.transports:
        if guest.max_elements is not None:
            count = at.number(guest.max_elements, transport)
            pages = count * most if count is not None else None
            of = f" of up to {size_of(most * _PAGE)}" if most > 1 else ""
            shown[transport.name] = readable(guest.max_elements) if count is None else f"{count} elements{of}"
        else:
            count, pages = None, at.number(guest.max_pages, transport)
            text = readable(guest.max_pages) if guest.max_pages is not None else ""
            shown[transport.name] = text if pages is None else _pages(pages)
        data[transport.name] = {"elements": count, "pages": pages}
    rules = tuple(rule.id for rule in at.call.rules if rule.check in ("count-at-most", "fits-buffer"))
    return Cell(lines=_grouped(shown), data=data, rules=rules)


def _pages(count: int) -> str:
    if count == 1:
        return "1 page"
    whole = (count & (count - 1)) == 0
    if count.bit_length() >= 32:
        power = (count - 1).bit_length()
        return f"2^{power} pages" if whole else f"2^{power} - {(1 << power) - count:,} pages"
    return f"{count} pages" + (f" ({size_of(count * _PAGE)})" if whole else "")
