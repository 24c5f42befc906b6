"""Whether a request keeps a rule: the checks of the specification language, each one small function."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from hvabi.abi.expr import Attr, Expr, Name
from hvabi.abi.values import ident
from hvabi.adapters.errors import AdapterError
from hvabi.backend import PAGE_SHIFT, PageState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from hvabi.abi.calls import Rule
    from hvabi.abi.model import Enum, Message
    from hvabi.abi.scope import Scope
    from hvabi.backend import Backend

_GPA_PAGES = 1 << 52


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a check may look at besides the fields of the message.

    Attributes:
        backend: the state of the pages; None in the guest role, where no check of state is possible.
        readable: says of a block whether every byte of it is memory.
        selected: says whether the registers and constants that select the call match; given names limit it.
        message: the message that the rule is about, for the enum of a field.
        element: the layout of list elements by the name of the loop variable ``it``, for the same.
        handle: says of a number whether it is a handle that is ``open`` or ``complete``.

    """

    backend: Backend | None
    readable: Callable[[str], bool]
    selected: Callable[[tuple[Expr, ...]], bool]
    message: Message
    element: Mapping[str, Enum | None]
    handle: Callable[[int, str], bool] = lambda number, state: False


def keeps(rule: Rule, scope: Scope, context: Context) -> bool:
    """Return whether the message keeps the rule. A rule whose `when` is false is kept."""
    if rule.when is not None and not scope.true(rule.when):
        return True
    check = _CHECKS.get(rule.check)
    if check is None:
        raise AdapterError(f"{rule.id}: there is no check `{rule.check}`", code="unknown-check", rule=rule.id)
    if "each" not in rule.words or rule.check == "disjoint":
        return check(rule, scope, context)
    return all(check(rule, local, context) for local in _elements(rule, scope))


def _elements(rule: Rule, scope: Scope) -> Iterator[Scope]:
    """Yield the names for each element of the list that a rule of the whole call is about."""
    for index, item in enumerate(scope[rule.words["each"]]):
        yield scope.with_locals(it=item, index=index)


def _one(rule: Rule, scope: Scope, name: str) -> int:
    if name not in rule.operands:
        raise AdapterError(f"{rule.id}: check `{rule.check}` needs `{name}`", code="no-operand", rule=rule.id)
    return scope.int(rule.operands[name][0])


def _all(rule: Rule, scope: Scope, name: str = "of") -> list[int]:
    return [scope.int(expr) for expr in rule.operands[name]]


def _aligned(rule: Rule, scope: Scope, context: Context) -> bool:
    to = _one(rule, scope, "to")
    return all(value % to == 0 for value in _all(rule, scope))


def _non_empty(rule: Rule, scope: Scope, context: Context) -> bool:
    return all(value != 0 for value in _all(rule, scope))


def _no_wrap(rule: Rule, scope: Scope, context: Context) -> bool:
    return _one(rule, scope, "start") + _one(rule, scope, "length") < 1 << _one(rule, scope, "width")


def _below(rule: Rule, scope: Scope, context: Context) -> bool:
    limit = _one(rule, scope, "limit")
    return all(value < limit for value in _all(rule, scope))


def _at_most(rule: Rule, scope: Scope, context: Context) -> bool:
    limit = _one(rule, scope, "limit")
    return all(value <= limit for value in _all(rule, scope))


def _within(rule: Rule, scope: Scope, context: Context) -> bool:
    low, high = _one(rule, scope, "low"), _one(rule, scope, "high")
    return all(low <= value < high for value in _all(rule, scope))


def _ordered(rule: Rule, scope: Scope, context: Context) -> bool:
    return _one(rule, scope, "low") < _one(rule, scope, "high")


def _same_half(rule: Rule, scope: Scope, context: Context) -> bool:
    bit = _one(rule, scope, "bit")
    return len({value >> bit & 1 for value in _all(rule, scope)}) == 1


def _equals(rule: Rule, scope: Scope, context: Context) -> bool:
    to = _one(rule, scope, "to")
    return all(value == to for value in _all(rule, scope))


def _bits_set(rule: Rule, scope: Scope, context: Context) -> bool:
    mask = _one(rule, scope, "mask")
    return all(value & mask == mask for value in _all(rule, scope))


def _reserved(rule: Rule, scope: Scope, context: Context) -> bool:
    return not any(_all(rule, scope))


def _known_value(rule: Rule, scope: Scope, context: Context) -> bool:
    if "values" in rule.operands:
        allowed = {scope.int(expr) for expr in rule.operands["values"]}
        return all(value in allowed for value in _all(rule, scope))
    return all(enum_of(expr, context, rule).name_of(scope.int(expr)) is not None for expr in rule.operands["of"])


def enum_of(expr: Expr, context: Context, rule: Rule) -> Enum:
    """Return the enum of the field that an operand names: ``field``, ``word.field`` or ``it.field``."""
    enum: Enum | None = None
    match expr:
        case Name(name) if name in context.message.fields:
            enum = context.message.fields[name].enum
        case Name("it"):
            enum = context.element.get("")
        case Attr(Name("it"), name):
            enum = context.element.get(name)
        case Attr(Name(word), name) if word in context.message.fields:
            layout = context.message.fields[word].word
            enum = layout.fields[name].enum if layout is not None else None
        case _:
            pass
    if enum is None:
        raise AdapterError(f"{rule.id}: the operand has no enum; give the rule `values`", code="no-enum", rule=rule.id)
    return enum


def _fits_buffer(rule: Rule, scope: Scope, context: Context) -> bool:
    return _one(rule, scope, "length") <= _one(rule, scope, "size")


def _enabled(rule: Rule, scope: Scope, context: Context) -> bool:
    return bool(scope["enabled"])


def _privileged(rule: Rule, scope: Scope, context: Context) -> bool:
    return bool(scope["cpl"] == 0)


def _selected(rule: Rule, scope: Scope, context: Context) -> bool:
    return context.selected(rule.operands.get("of", ()))


def _readable(rule: Rule, scope: Scope, context: Context) -> bool:
    return context.readable(rule.words["of"])


def pages_of(rule: Rule, scope: Scope) -> tuple[int, int] | None:
    """Return the operands start and length in bytes as whole pages, or None where no page can have that number."""
    start, length = _one(rule, scope, "start"), _one(rule, scope, "length")
    first = start >> PAGE_SHIFT
    last = first if length <= 0 else (start + length - 1 >> PAGE_SHIFT) + 1
    return (first, last) if 0 <= first <= last <= _GPA_PAGES else None


def first_bad(rule: Rule, scope: Scope, context: Context, low: int, high: int) -> int | None:
    """Return the first page of [low, high) that does not keep a rule of scope `page`, or None.

    Only pages of the rule's own range are judged. The maps of the backend are asked for the first run that differs,
    so that a range of any length costs the same.

    Args:
        rule: a rule of scope `page`.
        scope: the names of the call, or of the element.
        context: where the state of the pages is.
        low: first page that is about to be changed.
        high: the page behind the last one.

    """
    if rule.when is not None and not scope.true(rule.when):
        return None
    start, length = _one(rule, scope, "start"), _one(rule, scope, "length")
    low = max(low, start >> PAGE_SHIFT)
    high = min(high, (start + length - 1 >> PAGE_SHIFT) + 1 if length > 0 else low, _GPA_PAGES)
    backend = context.backend
    if backend is None or low >= high:
        return None
    match rule.check:
        case "within-memory":
            return backend.layout.first_hole(low, high)
        case "in-state":
            return backend.first_other(low, high, PageState(rule.words["state"]))
        case "fact":
            return backend.fact_first_other(rule.words["name"], low, high, bool(_one(rule, scope, "is")))
    raise AdapterError(f"{rule.id}: check `{rule.check}` looks at no page", code="no-page-check", rule=rule.id)


def _within_memory(rule: Rule, scope: Scope, context: Context) -> bool:
    span = pages_of(rule, scope)
    if span is None or context.backend is None:
        return span is not None
    return context.backend.layout.contains(*span)


def _in_state(rule: Rule, scope: Scope, context: Context) -> bool:
    span = pages_of(rule, scope)
    if span is None or context.backend is None:
        return span is not None
    return context.backend.uniform(*span, PageState(rule.words["state"]))


def _fact(rule: Rule, scope: Scope, context: Context) -> bool:
    span = pages_of(rule, scope)
    if span is None or context.backend is None:
        return span is not None
    name = rule.words["name"]
    values = (bool(_one(rule, scope, "is")),) if "is" in rule.operands else (True, False)
    return any(context.backend.fact_uniform(name, *span, value) for value in values)


def _disjoint(rule: Rule, scope: Scope, context: Context) -> bool:
    """Whether no two ranges of the elements share a byte. Sorted first: a guest may send many of them."""
    ranges = []
    for local in _elements(rule, scope):
        start, length = _one(rule, local, "start"), _one(rule, local, "length")
        if length > 0:
            ranges.append((start, start + length))
    ranges.sort()
    return all(one[1] <= other[0] for one, other in pairwise(ranges))


def _handle(rule: Rule, scope: Scope, context: Context) -> bool:
    return context.handle(_one(rule, scope, "of"), rule.words["is"])


def _expr(rule: Rule, scope: Scope, context: Context) -> bool:
    return scope.true(rule.operands["expr"][0])


_CHECKS: Mapping[str, Callable[[Rule, Scope, Context], bool]] = {
    "aligned": _aligned,
    "non-empty": _non_empty,
    "no-wrap": _no_wrap,
    "below": _below,
    "at-most": _at_most,
    "count-at-most": _at_most,
    "within": _within,
    "ordered": _ordered,
    "same-half": _same_half,
    "equals": _equals,
    "bits-set": _bits_set,
    "reserved": _reserved,
    "known-value": _known_value,
    "fits-buffer": _fits_buffer,
    "enabled": _enabled,
    "privileged": _privileged,
    "selected": _selected,
    "readable": _readable,
    "within-memory": _within_memory,
    "in-state": _in_state,
    "fact": _fact,
    "disjoint": _disjoint,
    "handle": _handle,
    "expr": _expr,
}

CHECKS = tuple(_CHECKS)
"""Every check that a specification may use."""


def element_enums(message: Message, each: str | None) -> dict[str, Enum | None]:
    """Return the enums of the fields of a list's elements, under ``""`` that of a plain element."""
    if each is None or each not in message.fields:
        return {}
    field = message.fields[each]
    enums: dict[str, Enum | None] = {"": field.enum}
    if field.items is not None:
        enums.update((ident(name), item.enum) for name, item in field.items.fields.items())
    return enums
