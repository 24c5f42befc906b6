"""What a message says, in one line: ``make shared: 1 page at 0x1f00e000``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvabi.abi.annotate import plural
from hvabi.abi.errors import CodecError, ExprError
from hvabi.abi.scope import Fields, Scope

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hvabi.abi.annotation import Annotation, Row
    from hvabi.abi.calls import Call, Convert, HandleUse, Query
    from hvabi.abi.codec import MessageCodec
    from hvabi.abi.specification import Abi
    from hvabi.abi.values import Value

_SHOWN = 3
"""Most elements or fields that one line names."""

_SIZES = {512: "2 MiB", 512 * 512: "1 GiB"}


def meaning(abi: Abi, codec: MessageCodec, annotation: Annotation) -> str:
    """Return what a message says, one line; never fails: a message that contradicts itself is told by its fields."""
    name = codec.message.name
    for call in abi.calls.values():
        about = call.convert or call.query
        if call.request == name and about is not None:
            try:
                return _request(call, about, codec, annotation.value)
            except (ExprError, CodecError, KeyError, IndexError):
                break
    return _fields(codec, annotation)


def _request(call: Call, about: Convert | Query, codec: MessageCodec, value: Value) -> str:
    known = dict(zip(value._fields, value, strict=True))
    scope = Scope(
        codec.static,
        define={key: item.expr for key, item in call.define.items()},
        request=Fields(known, known.__getitem__),
        local={"cpl": 0, "enabled": 1},
    )
    if about.each is None:
        return _part(about, scope)
    items = known[about.each]
    if call.handle is not None:
        scope = _opened(call.handle, scope, items)
        if not scope["complete"]:
            return f"the first {plural(len(items), 'element')} of a list that is sent in parts; {_uncapped(call.doc)}"
    parts = list(_parts(about, scope, items))
    shown = "; ".join(parts[:_SHOWN])
    more = len(parts) - _SHOWN
    if not parts:
        return f"no element to do; {_uncapped(call.doc)}"
    return shown + (f"; and {more} more" if more > 0 else "")


def _uncapped(doc: str) -> str:
    return f"{doc[:1].lower()}{doc[1:].rstrip('.')}"


def _opened(use: HandleUse, scope: Scope, items: Value) -> Scope:
    """Return the scope of a request that gets a handle. Raises `KeyError` for one about an earlier handle."""
    if use.does != "open":
        raise KeyError(use.of)
    kept = {name: scope.int(expr) for name, expr in use.keep.items()}
    scope = scope.with_locals(gathered=items, kept=kept, parts=1)
    return scope.with_locals(complete=1 if use.complete is None else int(scope.true(use.complete)))


def _parts(about: Convert | Query, scope: Scope, items: Value) -> Iterator[str]:
    first = max(scope.int(about.first), 0) if about.first is not None else 0
    last = scope.int(about.count) if about.count is not None else len(items)
    for index in range(first, min(last, len(items))):
        yield _part(about, scope.with_locals(it=items[index], index=index))


def _part(about: Convert | Query, scope: Scope) -> str:
    pages = scope.int(about.pages)
    start = scope.int(about.start)
    where = (
        f"{plural(pages, 'page')} at {start:#x}" if pages >= 0 else f"a range that ends before it begins, at {start:#x}"
    )
    to = getattr(about, "to", None)
    if getattr(about, "bits", None) is not None:
        return f"set each by its bit: {where}"
    if to is None:
        facts = ", ".join(f"{key} {scope.int(expr)}" for key, expr in getattr(about, "facts", {}).items())
        return f"set {facts}: {where}" if facts else f"ask for the state: {where}"
    number = scope.int(to.of)
    if number in to.states:
        state = to.states[number]
    elif to.has_otherwise:
        state = to.otherwise
    else:
        return f"no known state ({number:#x}): {where}"
    hint = scope.int(about.hint) if getattr(about, "hint", None) is not None else 0  # type: ignore[union-attr,arg-type]  # a query has none
    size = f", preferred page size {_SIZES[hint]}" if hint in _SIZES else ""
    return f"make {state}: {where}{size}" if state is not None else f"change nothing: {where}"


def _fields(codec: MessageCodec, annotation: Annotation) -> str:
    rows = [
        row
        for row in annotation.rows
        if row.depth == 0 and row.given and row.const is None and not row.reserved and row.kind != "fixed"
    ]
    shown = ", ".join(map(_field, rows[:_SHOWN]))
    doc = codec.message.doc.split(". ")[0].rstrip(".")
    return f"{doc}: {shown}" if shown else doc


def _field(row: Row) -> str:
    if row.kind == "list":
        return f"{plural(row.raw, 'element')} in {row.name}"
    return f"{row.name} {row.symbol or (f'{row.value:#x}' if row.value >= 0 else row.value)}"
