"""A message or layout as rows for people and programs: where each field lies, what is there, what it means.

`annotate` reads what was given through the codec's own placing, but does not stop at a constant that is not
there or at reserved bits that are set: those are `Problem` values of the result. Bytes that end inside a field
are a `CodecError` all the same. Everything is plain data; nothing is printed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hvabi.abi.annotation import Annotation, BitRun, Problem, Row, Word
from hvabi.abi.expr import names as names_of
from hvabi.abi.given import GivenReader
from hvabi.abi.model import BlockPlace, PairPlace, RegisterPlace
from hvabi.abi.straight_layout import whole_number
from hvabi.abi.wire import register_bits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hvabi.abi.codec import LayoutCodec, MessageCodec
    from hvabi.abi.given import Given
    from hvabi.abi.model import Field, Layout, Place
    from hvabi.abi.scope import Fields, Scope
    from hvabi.abi.values import Value

MAX_ELEMENTS = 4096
"""Most elements of one list that get rows of their own."""


def plural(count: int, unit: str) -> str:
    """Return a count with its unit in words: ``1 page``, ``512 pages``."""
    return f"{count} {unit}" + ("" if count == 1 else "s")


def describe(item: Field, number: int) -> tuple[str | None, str]:
    """Return the enum name of a field's value, or None, and the value in words."""
    if item.enum is not None:
        name = item.enum.name_of(number)
        if name is not None:
            return name, item.enum.values[name].doc
        return None, f"no name in {item.enum.name}"
    if number < 0:
        return None, str(number)
    if item.unit is not None and 0 < number < 1 << 32:
        return None, f"{number}, in {item.unit}s"
    return None, str(number) if 9 < number < 1 << 16 else ""


@dataclass(slots=True)
class _Rows:
    rows: list[Row] = field(default_factory=list)
    words: list[Word] = field(default_factory=list)
    left_out: int = 0
    parts_fixed: Mapping[str, int] = field(default_factory=dict)

    def add(self, row: Row) -> Row:
        self.rows.append(row)
        return row

    def scalar(
        self,
        item: Field,
        path: str,
        depth: int,
        raw: int,
        place: dict[str, Any],
        *,
        const: int | None,
        given: bool,
    ) -> Row:
        """Add the row of one integer; a word gets a row for each part too."""
        number = raw - (1 << item.bits) if item.signed and raw >> (item.bits - 1) else raw
        symbol, meaning = describe(item, number)
        row = Row(
            path=path,
            name=item.name,
            depth=depth,
            kind="word" if item.word is not None else "part" if depth else "field",
            doc=item.doc,
            bits=item.bits,
            raw=raw,
            value=number,
            enum=item.enum.name if item.enum else None,
            symbol=symbol,
            meaning="" if item.word is not None else meaning,
            unit=item.unit,
            const=const,
            reserved=item.reserved is not None,
            optional=item.default is not None or item.reserved is not None,
            given=given,
            problem=_problem(item, path, number, symbol, const) if given else None,
            **place,
        )
        self.add(row)
        if item.word is not None:
            self.parts(item.word, path, depth + 1, raw, place, given=given)
        return row

    def parts(self, layout: Layout, path: str, depth: int, word: int, place: dict[str, Any], *, given: bool) -> None:
        """Add the rows of the fields of a word or structure, and its bits."""
        first = len(self.rows)
        spans: list[tuple[int, int, Row]] = []
        for item in layout.fields.values():
            at = item.at if layout.endian == "little" else layout.size - item.at - item.size
            shift = at * 8 + item.lo
            inner = dict(place)
            if place.get("offset") is not None:
                inner.update(offset=place["offset"] + item.at, hi=item.hi, lo=item.lo)
            else:
                lo = place.get("lo", 0) + shift
                inner.update(hi=min(lo + item.bits - 1, place.get("hi", lo + item.bits - 1)), lo=lo)
                if inner["hi"] < lo:
                    continue
            raw = word >> shift & ((1 << item.bits) - 1)
            where = f"{path}.{item.name}" if path else item.name
            row = self.scalar(item, where, depth, raw, inner, const=self.parts_fixed.get(where), given=given)
            spans.append((shift + item.bits - 1, shift, row))
        if layout.size <= 16:
            where = self.rows[first - 1].where if path and first else layout.name
            self.words.append(_word(path or layout.name, where, layout.size * 8, word, spans))


def _problem(item: Field, path: str, number: int, symbol: str | None, const: int | None) -> Problem | None:
    if const is not None and number != const:
        return Problem(
            code="const-mismatch",
            level="error",
            path=path,
            message=f"is {number:#x}, this message has {const:#x}",
        )
    if item.reserved is not None and item.reserved.send == "zero" and number:
        refuses = item.reserved.receive == "reject"
        return Problem(
            code="reserved-bits",
            level="error" if refuses else "warning",
            path=path,
            message="must be zero" + ("; receivers refuse it" if refuses else ""),
        )
    if item.enum is not None and symbol is None:
        return Problem(code="unknown-value", level="note", path=path, message=f"has no name in {item.enum.name}")
    return None


def _word(path: str, where: str, bits: int, raw: int, spans: list[tuple[int, int, Row]]) -> Word:
    runs: list[BitRun] = []
    top = bits - 1

    def run(hi: int, lo: int, name: str, meaning: str) -> None:
        digits = f"{raw >> lo & ((1 << (hi - lo + 1)) - 1):0{hi - lo + 1}b}"
        runs.append(BitRun(hi=hi, lo=lo, digits=digits, name=name, meaning=meaning))

    for hi, lo, row in sorted(spans, key=lambda span: -span[0]):
        if hi < top:
            run(top, hi + 1, "", "not used")
        run(hi, lo, row.name, row.symbol or row.meaning or row.hex)
        top = lo - 1
    if top >= 0:
        run(top, 0, "", "not used")
    return Word(path=path, where=where, bits=bits, raw=raw, runs=tuple(runs))


def annotate(codec: MessageCodec, given: Given, *, request: Value = None) -> Annotation:
    """Return a message as rows.

    Args:
        codec: the message on its transport.
        given: what arrived. A register or block that is not given takes its constant, default or 0.
        request: for a response, the decoded request that it answers; where it is left out, the request is read
            from `given` too, as far as the response needs it.

    Raises:
        CodecError: ``truncated`` or ``oversized`` where the bytes end inside a field.
        ExprError: where the message says impossible things about itself.

    """
    sent = request
    if sent is None and codec.request is not None:
        sent, _ = GivenReader(codec.request, given).start()
    reader = GivenReader(codec, given)
    fields, scope = reader.start(sent)
    out = _Rows()
    out.parts_fixed = {path: scope.int(expr) for path, expr in codec.placer.placement.parts.items()}
    _fixed(codec, given, scope, out)
    shared: dict[str, list[tuple[int, int, Row]]] = {}
    missing: list[str] = []
    unknown: set[str] = set()
    for name, item in codec.message.fields.items():
        place = codec.placer.place_of(name)
        if place is None:
            continue
        known = _is_given(codec, item, place, given, reader, scope)
        if item.is_list:
            _list(codec, item, place, fields, scope, out, given=known)
        else:
            row = _field(codec, item, place, fields, scope, out, given=known)
            if row.register is not None and isinstance(place, RegisterPlace):
                shared.setdefault(row.register, []).append((row.hi, row.lo, row))
        has_bytes = known or (item.is_list and _is_empty(item, scope, unknown))
        if not has_bytes:
            unknown.add(name)
            if item.default is None and item.const is None and item.reserved is None:
                missing.append(name)
    problems = [row.problem for row in out.rows if row.problem is not None]
    _registers(given, shared, out, problems)
    used = {*codec.placer.registers, *(r for block in codec.placer.blocks.values() for r in block.registers)}
    return Annotation(
        label=codec.label,
        transport=codec.transport.name,
        doc=codec.message.doc,
        rows=tuple(out.rows),
        words=tuple(out.words),
        value=codec.value_class._make([fields[name] for name in codec.message.fields]),
        problems=tuple(problems),
        sizes={name: scope.int(block.size) for name, block in codec.placer.blocks.items() if reader.has(name)},
        unused=tuple(name for name in given.regs if name not in used),
        missing=tuple(missing),
        left_out=out.left_out,
    )


def _is_given(codec: MessageCodec, item: Field, place: Place, given: Given, reader: GivenReader, scope: Scope) -> bool:
    if isinstance(place, RegisterPlace):
        return place.register in given.regs
    if isinstance(place, PairPlace):
        return place.high in given.regs and place.low in given.regs
    offset = scope.int(place.at) if item.is_list else codec.placer.span(item, place, scope)[0]
    return reader.has(place.block, offset)


def _is_empty(item: Field, scope: Scope, unknown: set[str]) -> bool:
    """Whether what was given says that a list has no elements: then it needs no bytes."""
    return item.count is not None and not names_of(item.count) & unknown and scope.int(item.count) == 0


def _fixed(codec: MessageCodec, given: Given, scope: Scope, out: _Rows) -> None:
    for register, expr in codec.placer.placement.fixed.items():
        want = scope.int(expr)
        found = given.regs.get(register, want)
        problem = None
        if found != want:
            message = f"is {found:#x}, this call has {want:#x}"
            problem = Problem(code="fixed-mismatch", level="error", path=register, message=message)
        out.add(
            Row(
                path=register,
                name=register,
                depth=0,
                kind="fixed",
                doc="Selects the call.",
                register=register,
                hi=register_bits(register) - 1,
                bits=register_bits(register),
                raw=found,
                value=found,
                const=want,
                given=register in given.regs,
                problem=problem,
            )
        )


def _field(
    codec: MessageCodec, item: Field, place: Place, fields: Fields, scope: Scope, out: _Rows, *, given: bool
) -> Row:
    value = fields[item.name]
    raw = whole_number(item.word, value, item.name) if item.word is not None else int(value)
    if isinstance(place, RegisterPlace):
        hi = place.lo + item.bits - 1 if place.hi is None else place.hi
        where: dict[str, Any] = {"register": place.register, "hi": hi, "lo": place.lo}
    elif isinstance(place, PairPlace):
        where = {"register": f"{place.high}:{place.low}", "hi": 63, "lo": 0}
    else:
        offset, _, lo, bits = codec.placer.span(item, place, scope)
        where = {"block": place.block, "offset": offset, "hi": lo + bits - 1, "lo": lo}
    const = scope.int(item.const) if item.const is not None else None
    return out.scalar(item, item.name, 0, raw & ((1 << item.bits) - 1), where, const=const, given=given)


def _list(
    codec: MessageCodec, item: Field, place: Place, fields: Fields, scope: Scope, out: _Rows, *, given: bool
) -> None:
    if not isinstance(place, BlockPlace):
        return
    values = fields[item.name]
    start = scope.int(place.at)
    stride = scope.int(place.stride) if place.stride is not None else item.bits // 8
    common: dict[str, Any] = {"block": place.block, "bits": item.bits, "hi": item.bits - 1, "given": given}
    count = len(values)
    meaning = plural(count, "element")
    out.add(
        Row(path=item.name, name=item.name, depth=0, kind="list", doc=item.doc, offset=start, raw=count,
            value=count, meaning=meaning, **common)
    )  # fmt: skip
    out.left_out += max(count - MAX_ELEMENTS, 0)
    for number, value in enumerate(values[:MAX_ELEMENTS]):
        path = f"{item.name}[{number}]"
        offset = start + number * stride
        raw = whole_number(item.items, value, path) if item.items is not None else int(value)
        raw &= (1 << item.bits) - 1
        _, words = (None, "") if item.items is not None else describe(item, raw)
        doc = item.items.doc if item.items is not None else item.doc
        out.add(
            Row(path=path, name=path, depth=1, kind="element", doc=doc, offset=offset, raw=raw, value=raw,
                meaning=words, unit=item.unit, **common)
        )  # fmt: skip
        if item.items is not None:
            out.parts(item.items, path, 2, raw, {"block": place.block, "offset": offset}, given=given)


def _registers(
    given: Given, shared: Mapping[str, list[tuple[int, int, Row]]], out: _Rows, problems: list[Problem]
) -> None:
    """Add the bits of registers that fields share, and say where a register has bits that nobody reads."""
    for register, spans in shared.items():
        raw = given.regs.get(register, sum(row.raw << lo for _, lo, row in spans))
        read = 0
        for hi, lo, _ in spans:
            read |= ((1 << (hi - lo + 1)) - 1) << lo
        if raw & ~read:
            message = f"bits {raw & ~read:#x} are not part of the message"
            problems.append(Problem(code="unread-bits", level="note", path=register, message=message))
        if len(spans) > 1:
            out.words.append(_word(register, register, register_bits(register), raw, spans))


def annotate_layout(codec: LayoutCodec, data: bytes) -> Annotation:
    """Return a word or structure of fixed size as rows. Raises `CodecError` for the wrong number of bytes."""
    value = codec.decode(data)
    layout = codec.layout
    out = _Rows()
    place = {"block": None, "offset": 0} if layout.size > 8 else {"lo": 0}
    out.parts(layout, "", 0, int.from_bytes(data, layout.endian), place, given=True)
    return Annotation(
        label=layout.name,
        transport="",
        doc=layout.doc,
        rows=tuple(out.rows),
        words=tuple(out.words),
        value=value,
        problems=tuple(row.problem for row in out.rows if row.problem is not None),
        sizes={layout.name: layout.size},
    )
