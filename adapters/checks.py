"""Whether a request keeps a rule: the checks of the specification language, each one small function."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from hvabi.abi.expr import Attr, Env, Expr, Name, compiled
from hvabi.abi.values import by_identity, ident
from hvabi.adapters.errors import AdapterError
from hvabi.backend import PAGE_SHIFT, PageState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from hvabi.abi.calls import Rule
    from hvabi.abi.model import Enum, Message
    from hvabi.abi.scope import Scope
    from hvabi.backend import Backend

    Check = Callable[[Scope, "Context"], bool]

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
    return check_of(rule)(scope, context)


@by_identity
def check_of(rule: Rule) -> Check:
    """Return what `keeps` asks for a rule: its check with its operands, made once for each rule."""
    make = _CHECKS.get(rule.check)
    if make is None:
        raise AdapterError(f"{rule.id}: there is no check `{rule.check}`", code="unknown-check", rule=rule.id)
    one = check = make(rule)
    if "each" in rule.words and rule.check != "disjoint":

        def check(scope: Scope, context: Context) -> bool:
            return all(one(local, context) for local in _elements(rule, scope))

    if rule.when is None:
        return check
    when = compiled(rule.when, "bool")
    return lambda scope, context: not when(scope) or check(scope, context)


def _elements(rule: Rule, scope: Scope) -> Iterator[Scope]:
    """Yield the names for each element of the list that a rule of the whole call is about."""
    for index, item in enumerate(scope[rule.words["each"]]):
        yield scope.with_locals(it=item, index=index)


def _one(rule: Rule, name: str) -> Callable[[Env], int]:
    if name not in rule.operands:
        raise AdapterError(f"{rule.id}: check `{rule.check}` needs `{name}`", code="no-operand", rule=rule.id)
    return compiled(rule.operands[name][0], "int")


def _all(rule: Rule, name: str = "of") -> Callable[[Env], list[int]]:
    each = [compiled(expr, "int") for expr in rule.operands[name]]
    first = each[0]
    return (lambda scope: [first(scope)]) if len(each) == 1 else lambda scope: [of(scope) for of in each]


def _aligned(rule: Rule) -> Check:
    of, to = _all(rule), _one(rule, "to")
    return lambda scope, context: _are_multiples(to(scope), of(scope))


def _are_multiples(to: int, values: list[int]) -> bool:
    return {value % to for value in values} == {0}


def _non_empty(rule: Rule) -> Check:
    of = _all(rule)
    return lambda scope, context: all(of(scope))


def _no_wrap(rule: Rule) -> Check:
    start, length, width = _one(rule, "start"), _one(rule, "length"), _one(rule, "width")
    return lambda scope, context: start(scope) + length(scope) < 1 << width(scope)


def _below(rule: Rule) -> Check:
    of, limit = _all(rule), _one(rule, "limit")
    return lambda scope, context: limit(scope) > max(of(scope))


def _at_most(rule: Rule) -> Check:
    of, limit = _all(rule), _one(rule, "limit")
    return lambda scope, context: limit(scope) >= max(of(scope))


def _within(rule: Rule) -> Check:
    of, low, high = _all(rule), _one(rule, "low"), _one(rule, "high")

    def check(scope: Scope, context: Context) -> bool:
        least, limit, values = low(scope), high(scope), of(scope)
        return least <= min(values) and max(values) < limit

    return check


def _ordered(rule: Rule) -> Check:
    low, high = _one(rule, "low"), _one(rule, "high")
    return lambda scope, context: low(scope) < high(scope)


def _same_half(rule: Rule) -> Check:
    of, bit = _all(rule), _one(rule, "bit")

    def check(scope: Scope, context: Context) -> bool:
        number = bit(scope)
        return len({value >> number & 1 for value in of(scope)}) == 1

    return check


def _equals(rule: Rule) -> Check:
    of, to = _all(rule), _one(rule, "to")
    return lambda scope, context: {to(scope)}.issuperset(of(scope))


def _bits_set(rule: Rule) -> Check:
    of, mask = _all(rule), _one(rule, "mask")

    def check(scope: Scope, context: Context) -> bool:
        bits = mask(scope)
        return {value & bits for value in of(scope)} == {bits}

    return check


def _reserved(rule: Rule) -> Check:
    of = _all(rule)
    return lambda scope, context: not any(of(scope))


def _known_value(rule: Rule) -> Check:
    if "values" in rule.operands:
        of, allowed = _all(rule), _all(rule, "values")
        return lambda scope, context: set(allowed(scope)).issuperset(of(scope))

    return lambda scope, context: all(
        enum_of(expr, context, rule).name_of(scope.int(expr)) is not None for expr in rule.operands["of"]
    )


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


def _fits_buffer(rule: Rule) -> Check:
    length, size = _one(rule, "length"), _one(rule, "size")
    return lambda scope, context: length(scope) <= size(scope)


def _enabled(rule: Rule) -> Check:
    return lambda scope, context: bool(scope["enabled"])


def _privileged(rule: Rule) -> Check:
    return lambda scope, context: bool(scope["cpl"] == 0)


def _selected(rule: Rule) -> Check:
    return lambda scope, context: context.selected(rule.operands.get("of", ()))


def _readable(rule: Rule) -> Check:
    return lambda scope, context: context.readable(rule.words["of"])


def pages_of(rule: Rule, scope: Scope) -> tuple[int, int] | None:
    """Return the operands start and length in bytes as whole pages, or None where no page can have that number."""
    start, length = _one(rule, "start")(scope), _one(rule, "length")(scope)
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
    start, length = _one(rule, "start")(scope), _one(rule, "length")(scope)
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
            return backend.fact_first_other(rule.words["name"], low, high, bool(_one(rule, "is")(scope)))
    raise AdapterError(f"{rule.id}: check `{rule.check}` looks at no page", code="no-page-check", rule=rule.id)


def _within_memory(rule: Rule) -> Check:
    return _of_pages(rule, lambda backend, first, last, scope: backend.layout.contains(first, last))


def _in_state(rule: Rule) -> Check:
    state = PageState(rule.words["state"])
    return _of_pages(rule, lambda backend, first, last, scope: backend.uniform(first, last, state))


def _fact(rule: Rule) -> Check:
    name = rule.words["name"]
    wanted = _one(rule, "is") if "is" in rule.operands else None

    def uniform(backend: Backend, first: int, last: int, scope: Scope) -> bool:
        values = (bool(wanted(scope)),) if wanted is not None else (True, False)
        return any(backend.fact_uniform(name, first, last, value) for value in values)

    return _of_pages(rule, uniform)


def _of_pages(rule: Rule, right: Callable[[Backend, int, int, Scope], bool]) -> Check:
    """Return a check of the pages of a rule: that they are pages, and right where a backend knows them."""

    def check(scope: Scope, context: Context) -> bool:
        span = pages_of(rule, scope)
        if span is None or context.backend is None:
            return span is not None
        return right(context.backend, *span, scope)

    return check


def _disjoint(rule: Rule) -> Check:
    """Whether no two ranges of the elements share a byte. Sorted first: a guest may send many of them."""
    start, length = _one(rule, "start"), _one(rule, "length")

    def check(scope: Scope, context: Context) -> bool:
        ranges = []
        for local in _elements(rule, scope):
            first, size = start(local), length(local)
            if size > 0:
                ranges.append((first, first + size))
        ranges.sort()
        return all(one[1] <= other[0] for one, other in pairwise(ranges))

    return check


def _handle(rule: Rule) -> Check:
    of = _one(rule, "of")
    return lambda scope, context: context.handle(of(scope), rule.words["is"])


def _expr(rule: Rule) -> Check:
    truth = compiled(rule.operands["expr"][0], "bool")
    return lambda scope, context: truth(scope)


_CHECKS: Mapping[str, Callable[[Rule], Check]] = {
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
