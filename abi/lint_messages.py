"""Checks of enums, layouts and messages: values fit their bits, fields cover their layout exactly once."""

from __future__ import annotations

from keyword import iskeyword
from typing import TYPE_CHECKING, NamedTuple

from hvabi.abi.errors import ExprError
from hvabi.abi.expr import KEYWORDS, evaluate
from hvabi.abi.lint_scope import NameScope, entries, message_type, static_entries
from hvabi.abi.schema import near
from hvabi.abi.scope import STATE_NUMBERS, enum_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from hvabi.abi.expr import Expr
    from hvabi.abi.lint_context import Context, Report
    from hvabi.abi.lint_scope import Entry
    from hvabi.abi.model import Constant, Enum, Field, Layout, Message, Pointer

IDS: Mapping[str, str] = {
    "enum-value-range": "A number of an enum does not fit the enum's bits.",
    "enum-duplicate": "Two names of an enum have the same number in the same revision.",
    "enum-revision": "A number is given for a revision that there is not, or in which the name does not exist.",
    "enum-width": "An enum is wider than the field that uses it.",
    "others-own": "A number is said to be that of another call and is one that the field knows.",
    "others-range": "Numbers of other calls are none, or do not fit the field.",
    "layout-bits": "Bits of a field are the wrong way round or lie outside their integer or layout.",
    "layout-overlap": "Two fields of a layout share bits.",
    "layout-gap": "Bits of a layout belong to no field, and it is not `partial`.",
    "word-size": "A word has more than 16 bytes, or another width than its field.",
    "value-range": "A constant or default does not fit the bits of its field.",
    "default-revisions": "A field does not have exactly one default in every revision that it is in.",
    "field-width": "A field of a message has no width: neither bits, word nor list.",
    "name-reserved": "A name is a word of the expression language.",
    "name-shadowed": "A field has the name of a constant, a config key or a limit, and hides it.",
}
"""Every id of this module, with one sentence each."""

WORD_BYTES = 16
"""Most bytes of a word: what the specification language allows."""

RESERVED_NAMES = frozenset({*STATE_NUMBERS, "it", "index", "request", "response", "to"})
"""Names that expressions read otherwise; a part of a word or an element may have them."""


class _Span(NamedTuple):
    lo: int
    hi: int
    field: Field


def check_enums(enums: Iterable[Enum], report: Report, revisions: Iterable[str] = ("",)) -> None:
    """Check that the numbers of enums fit, in every revision, and are distinct there."""
    known = tuple(revisions)
    for enum in enums:
        low = -(1 << (enum.bits - 1)) if enum.signed else 0
        high = 1 << (enum.bits - enum.signed)
        earlier: dict[tuple[str, int], str] = {}
        for value in enum.values.values():
            check_name(value.name, (*enum.pointer, "values"), report)
            for where, number in [("value", value.value), *value.by_revision.items()]:
                if not low <= number < high:
                    kind = "signed" if enum.signed else "unsigned"
                    report.error(
                        (*value.pointer, *(("value",) if where == "value" else ("by-revision", where))),
                        "enum-value-range",
                        f"{value.name} = {number:#x} does not fit {enum.bits} {kind} bits",
                        f"it must be {low:#x} to {high - 1:#x}",
                    )
                if where != "value" and (where not in known or not value.guard.holds(where, {})):
                    report.error(
                        (*value.pointer, "by-revision"), "enum-revision",
                        f"{value.name} does not exist in a revision `{where}`", near(where, known), key=where,
                    )  # fmt: skip
            others: set[str] = set()
            for revision in known:
                if revision and not value.guard.holds(revision, {}):
                    continue
                number = value.by_revision.get(revision, value.value)
                if (other := earlier.setdefault((revision, number), value.name)) not in {value.name, *others}:
                    others.add(other)
                    report.error(
                        (*value.pointer, "value"),
                        "enum-duplicate",
                        f"{value.name} and {other} of enum `{enum.name}` are both {number:#x}",
                        "keep one name, or limit them to different revisions",
                    )


def check_constants(constants: Iterable[Constant], report: Report) -> None:
    """Check the names of constants and limits."""
    for constant in constants:
        check_name(constant.name, constant.pointer[:-1], report)


def check_name(name: str, where: tuple[str | int, ...], report: Report, *, part: bool = False) -> None:
    """Report a name that expressions cannot use because it means something else there.

    `part` is for names that are only reached as ``word.name`` or ``it.name``.
    """
    if name in KEYWORDS or (name in RESERVED_NAMES and not part):
        report.error(where, "name-reserved", f"`{name}` is a word of the expression language", "rename it", key=name)
    elif iskeyword(name):
        report.error(where, "name-reserved", f"`{name}` is a word of Python", "rename it", key=name)


def check_layouts(layouts: Iterable[Layout], report: Report, revisions: tuple[str, ...] = ("",)) -> None:
    """Check that the fields of layouts lie inside, fit, and cover each bit once in every revision."""
    for layout in layouts:
        spans = [span for item in layout.fields.values() if (span := _span(item, layout, report)) is not None]
        for item in layout.fields.values():
            check_name(item.name, (*layout.pointer, "fields"), report, part=True)
            check_field(item, report)
        guarded = any(item.guard.revisions is not None for item in layout.fields.values())
        for revision in revisions if guarded else revisions[:1]:
            present = [
                span for span in spans if span.field.guard.revisions is None or revision in span.field.guard.revisions
            ]
            where = f" in revision {revision}" if guarded else ""
            _cover(layout, sorted(present, key=lambda span: (span.lo, span.hi)), where, report)


def _span(item: Field, layout: Layout, report: Report) -> _Span | None:
    """Return the bits of a field in the layout taken as one integer, None after a finding."""
    name = f"{layout.name}.{item.name}"
    bits = (*item.pointer, "bits")
    if item.bits < 1:
        report.error(bits, "layout-bits", f"bits of {name} are [{item.hi}, {item.lo}]", "write [hi, lo]")
        return None
    if item.at + item.size > layout.size:
        report.error(
            item.pointer,
            "layout-bits",
            f"{name} ends at byte {item.at + item.size}, layout `{layout.name}` has {layout.size}",
        )
        return None
    if item.hi >= item.size * 8:
        report.error(
            bits,
            "layout-bits",
            f"bits [{item.hi}, {item.lo}] of {name} reach {item.hi - item.size * 8 + 1} bits beyond "
            f"its {item.size} bytes",
        )
        return None
    if item.size < layout.size and item.bits % 8 and item.size > WORD_BYTES:
        report.error(bits, "layout-bits", f"{name} is cut out of more than {WORD_BYTES} bytes")
        return None
    first = item.at if layout.endian == "little" else layout.size - item.at - item.size
    return _Span(first * 8 + item.lo, first * 8 + item.hi, item)


def _cover(layout: Layout, spans: list[_Span], where: str, report: Report) -> None:
    end, last = 0, None
    for span in spans:
        if span.lo < end and last is not None:
            shared = min(end, span.hi + 1) - span.lo
            report.error(
                span.field.pointer,
                "layout-overlap",
                f"{_bits(layout, span.lo, span.hi)} of {layout.name}.{span.field.name} overlap {last.field.name} "
                f"({_bits(layout, last.lo, last.hi)}) by {shared} bit{'s' * (shared != 1)}{where}",
            )
        elif span.lo > end:
            before = last.field.name if last else "the start"
            _gap(layout, end, span.lo, f"between {before} and {span.field.name}{where}", report)
        if span.hi + 1 > end:
            end, last = span.hi + 1, span
    if end < layout.size * 8:
        after = f"after {last.field.name}" if last else "of the whole layout"
        _gap(layout, end, layout.size * 8, f"{after}{where}", report)


def _gap(layout: Layout, lo: int, hi: int, where: str, report: Report) -> None:
    if layout.partial:
        return
    report.error(
        (*layout.pointer, "fields"),
        "layout-gap",
        f"{_bits(layout, lo, hi - 1)} of layout `{layout.name}` belong to no field: {hi - lo} bits {where}",
        "reserved bits are fields; `partial: true` where the rest is of no concern",
    )


def _bits(layout: Layout, lo: int, hi: int) -> str:
    if layout.size <= WORD_BYTES:
        return f"bits [{hi}, {lo}]"
    first, last = lo // 8, hi // 8
    if layout.endian == "big":
        first, last = layout.size - 1 - last, layout.size - 1 - first
    text = f"byte {first:#x}" if first == last else f"bytes {first:#x} to {last:#x}"
    return text if lo % 8 == 0 and hi % 8 == 7 else f"bits {hi % 8}:{lo % 8} of {text}"


def check_field(item: Field, report: Report, values: Mapping[str, int] | None = None) -> None:
    """Check one field of a layout or message; `values` are the numbers of names that its expressions may use."""
    if item.enum is not None and item.enum.bits > item.bits > 0:
        report.error(
            (*item.pointer, "enum"),
            "enum-width",
            f"enum `{item.enum.name}` has {item.enum.bits} bits, field {item.name} has {item.bits}",
        )
    for first, last in item.others:
        if not 0 <= first <= last < 1 << max(item.bits, 0):
            report.error(
                (*item.pointer, "others"),
                "others-range",
                f"{first:#x} to {last:#x} are no numbers of {item.name}, which has {item.bits} bits",
            )
    if item.enum is not None and item.const is None:
        own = [value.name for value in item.enum.values.values() if item.is_another_call(value.value)]
        if own:
            report.error(
                (*item.pointer, "others"),
                "others-own",
                f"{own[0]} of enum `{item.enum.name}` is a call of this file and one of others",
                "take it out of one of the two",
            )
    # A word without fields stands for a layout that could not be built.
    if item.word and item.word.fields and (item.word.size > WORD_BYTES or item.word.size * 8 != item.bits):
        report.error(
            (*item.pointer, "word"),
            "word-size",
            f"layout `{item.word.name}` has {item.word.size} bytes, {item.name} has {item.bits} bits",
            f"a word has at most {WORD_BYTES} bytes",
        )
    low = -(1 << (item.bits - 1)) if item.signed and item.bits > 0 else 0
    high = 1 << max(item.bits, 0)
    given: list[tuple[Pointer, Expr | None]] = [(("const",), item.const)]
    given += [(("default", n, "is"), choice.expr) for n, choice in enumerate(item.defaults)]
    if not item.defaults:
        given.append((("default",), item.default))
    for key, expr in given:
        if expr is None or item.is_list:
            continue
        try:
            number = evaluate(expr, values or {}, "int")
        except ExprError:
            continue  # It depends on other fields.
        if not low <= number < high:
            report.error(
                (*item.pointer, *key),
                "value-range",
                f"{key[0]} {number:#x} of {item.name} does not fit {item.bits} bits",
                f"it must be {low:#x} to {high - 1:#x}",
            )


def check_messages(context: Context) -> None:
    """Check the fields of messages: widths, values, and the names in their expressions."""
    report, abi = context.report, context.abi
    numbers = {name: value for name, value in enum_names(abi).items() if isinstance(value, int)}
    numbers.update((name, constant.value) for name, constant in abi.constants.items())
    hidden = {*abi.constants, *abi.config, *(name for t in abi.transports.values() for name in t.limits)}
    for message in abi.messages.values():
        carriers = [t for t in abi.transports.values() if message.name in t.placements]
        static = static_entries(context, carriers)
        scope = NameScope(
            context=context,
            entries={**static, **codec_entries(context, message)},
            revisions=context.revisions,
        )
        for item in message.fields.values():
            fields = (*message.pointer, "fields")
            check_name(item.name, fields, report)
            if item.name in hidden:
                report.error(
                    fields,
                    "name-shadowed",
                    f"field `{item.name}` has the name of a constant, a config key or a limit",
                    "rename one of them",
                    key=item.name,
                )
            if item.bits == 0 and not item.is_list:
                report.error(item.pointer, "field-width", f"field `{item.name}` needs bits, word or list")
                continue
            check_field(item, report, numbers)
            inside = scope.with_names({}, revisions=context.revisions_of(message.guard, item.guard))
            for key in ("const", "default", "count"):
                inside.check_int((*item.pointer, key))
            _check_defaults(context, item, inside)


def _check_defaults(context: Context, item: Field, scope: NameScope) -> None:
    """Check the defaults of a field that has one for each revision."""
    for number, choice in enumerate(item.defaults):
        of = context.revisions_of(item.guard, choice.guard)
        scope.with_names({}, revisions=of).check_int((*choice.pointer, "is"))
        if not of:
            context.report.error(
                (*item.pointer, "default", number), "default-revisions", "there is no such field in these revisions"
            )
    for revision in context.revisions_of(item.guard) if item.defaults else ():
        found = sum(revision in context.revisions_of(choice.guard) for choice in item.defaults)
        if found != 1:
            context.report.error(
                (*item.pointer, "default"),
                "default-revisions",
                f"field `{item.name}` has {found or 'no'} default{'s' if found > 1 else ''} in revision {revision}",
            )


def codec_entries(context: Context, message: Message) -> dict[str, Entry]:
    """Return the fields that expressions about a message's places see: its own, and ``request`` for a response."""
    from hvabi.abi.lint_scope import Entry

    found = entries(message.fields)
    for role, other in _partners(context, message):
        found[role] = Entry(type=message_type(other, role))
    return found


def _partners(context: Context, message: Message) -> Iterator[tuple[str, Message]]:
    for call in context.abi.calls.values():
        sent = context.abi.messages.get(call.request)
        if message.name in {call.request, call.response} and sent is not None:
            yield "request", sent
        if message.name == call.response:
            yield "response", message
