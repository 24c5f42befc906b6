"""The checks of the specification language a second time, on plain integers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hvabi.abi.expr import Attr, Name
from hvabi.abi.values import by_identity
from hvabi.conformance.oracle.held import is_handle
from hvabi.conformance.oracle.pages import inside
from hvabi.conformance.oracle.walk import Names, Undefined, meaning, value

if TYPE_CHECKING:
    from collections.abc import Callable

    from hvabi.abi.calls import Rule
    from hvabi.abi.model import Enum
    from hvabi.conformance.oracle.asked import Asked as Request

    Judge = Callable[[Request, Names], bool]
    Value = Callable[[Names], Any]

LAST_PAGE = 1 << 52


def holds(rule: Rule, request: Request) -> bool:
    """Whether the request keeps the rule. Raises `Undefined` where an operand has no value."""
    return _judge(rule)(request, request.names)


@by_identity
def _judge(rule: Rule) -> Judge:
    """Return what tells whether a request keeps a rule, once for each rule."""
    judge = _of_elements(rule, rule.words["each"]) if "each" in rule.words else _of_one(rule)
    if rule.when is None:
        return judge
    when = meaning(rule.when)
    return lambda request, names: not when(names) or judge(request, names)


def _of_elements(rule: Rule, each: str) -> Judge:
    """Return the check of a rule over the elements of a list: all are looked at, also behind one that breaks it."""
    if rule.check == "disjoint":
        return lambda request, names: _apart(rule, names.inside(names.of(each)))
    judge = _of_one(rule)
    return lambda request, names: False not in [judge(request, one) for one in names.inside(names.of(each))]


def _apart(rule: Rule, elements: list[Names]) -> bool:
    """Whether no byte belongs to two elements: the ends of all ranges are counted from the lowest up."""
    edges: list[tuple[int, int]] = []
    for names in elements:
        start, length = value(rule.operands["start"][0], names), value(rule.operands["length"][0], names)
        if length > 0:
            edges += [(start, 1), (start + length, -1)]
    over = 0
    for _, step in sorted(edges):
        over += step
        if over > 1:
            return False
    return True


def _of_one(rule: Rule) -> Judge:
    """Return the check of a rule over the names of the call, or of one element."""

    def only(key: str) -> Value:
        return meaning(rule.operands[key][0])

    def every(key: str) -> Callable[[Names], list[int]]:
        each = [meaning(expr) for expr in rule.operands[key]]
        first = each[0]
        return (lambda names: [first(names)]) if len(each) == 1 else lambda names: [one(names) for one in each]

    match rule.check:
        case "aligned":
            of, to = every("of"), only("to")
            return lambda request, names: _are_multiples(to(names), of(names))
        case "non-empty":
            of = every("of")
            return lambda request, names: 0 not in of(names)
        case "no-wrap":
            start, length, width = only("start"), only("length"), only("width")
            return lambda request, names: (start(names) + length(names)) >> width(names) == 0
        case "below":
            of, limit = every("of"), only("limit")
            return lambda request, names: max(of(names)) < limit(names)
        case "at-most" | "count-at-most":
            of, limit = every("of"), only("limit")
            return lambda request, names: max(of(names)) <= limit(names)
        case "within":
            of, low, high = every("of"), only("low"), only("high")
            return lambda request, names: min(of(names)) >= low(names) and max(of(names)) < high(names)
        case "ordered":
            low, high = only("low"), only("high")
            return lambda request, names: high(names) - low(names) > 0
        case "same-half":
            of, bit = every("of"), only("bit")
            return lambda request, names: len({x // 2 ** bit(names) % 2 for x in of(names)}) == 1
        case "equals":
            of, to = every("of"), only("to")
            return lambda request, names: set(of(names)) == {to(names)}
        case "bits-set":
            of, mask = every("of"), only("mask")
            return lambda request, names: all(mask(names) & ~x == 0 for x in of(names))
        case "reserved":
            of = every("of")
            return lambda request, names: set(of(names)) <= {0}
        case "known-value":
            of = every("of")
            return lambda request, names: set(of(names)) <= _known(rule, request)
        case "fits-buffer":
            size, length = only("size"), only("length")
            return lambda request, names: size(names) - length(names) >= 0
        case "enabled":
            return lambda request, names: bool(names.of("enabled"))
        case "privileged":
            return lambda request, names: bool(names.of("cpl") == 0)
        case "selected":
            named = {expr.name for expr in rule.operands.get("of", ()) if isinstance(expr, Name)}
            return lambda request, names: request.is_selected(named)
        case "readable":
            return lambda request, names: request.is_readable(rule.words["of"])
        case "within-memory" | "in-state" | "fact":
            start, length = only("start"), only("length")
            return lambda request, names: _pages(rule, request, names, start(names), length(names))
        case "handle":
            number = only("of")
            return lambda request, names: is_handle(request, number(names), rule.words["is"])
        case "expr":
            truth = only("expr")
            return lambda request, names: bool(truth(names))
    raise Undefined(f"no check {rule.check}")


def _are_multiples(to: int, numbers: list[int]) -> bool:
    return not [x for x in numbers if x % to]


def first_failing(rule: Rule, request: Request, low: int, high: int) -> int | None:
    """Return the first page of [low, high) that breaks a rule about single pages, None where all keep it."""
    names = request.names
    if rule.when is not None and not value(rule.when, names):
        return None
    start, length = value(rule.operands["start"][0], names), value(rule.operands["length"][0], names)
    if length <= 0:
        return None
    low, high = max(low, start // 4096), min(high, -(-(start + length) // 4096), LAST_PAGE)
    # Nothing changes between two edges, so the pages at the edges stand for all of them.
    for page in sorted({low, *(edge for edge in _edges(rule, request) if low < edge < high)}):
        if page < high and not _page_holds(rule, request, page):
            return page
    return None


def _edges(rule: Rule, request: Request) -> list[int]:
    if rule.check == "within-memory":
        return [edge for slot in request.memory or () for edge in slot]
    laid = request.pages if rule.check == "in-state" else request.facts.of(rule.words["name"])
    return [edge for start, end, _ in laid.ranges() for edge in (start, end)]


def _page_holds(rule: Rule, request: Request, page: int) -> bool:
    if rule.check == "within-memory":
        return inside(request.memory, page, page + 1)
    if rule.check == "in-state":
        return request.pages.state(page) == rule.words["state"]
    wanted = bool(value(rule.operands["is"][0], request.names))
    return request.facts.all_are(rule.words["name"], page, page + 1, wanted)


def _known(rule: Rule, request: Request) -> set[int]:
    if "values" in rule.operands:
        return {value(expr, request.names) for expr in rule.operands["values"]}
    enum: Enum | None = None
    fields = request.message.fields
    match rule.operands["of"][0]:
        case Name(name) if name in fields:
            enum = fields[name].enum
        case Attr(Name("it"), name):
            layout = fields[request.each].items if request.each else None
            enum = layout.fields[name].enum if layout else None
        case Name("it"):
            enum = fields[request.each].enum if request.each else None
        case Attr(Name(word), name) if word in fields:
            layout = fields[word].word
            enum = layout.fields[name].enum if layout else None
        case _:
            pass
    if enum is None:
        raise Undefined(f"{rule.id} names no field with an enum")
    return {item.value for item in enum.values.values()}


def _pages(rule: Rule, request: Request, names: Names, start: int, length: int) -> bool:
    first = start // 4096
    end = first if length <= 0 else -(-(start + length) // 4096)
    if not 0 <= first <= end <= LAST_PAGE:
        return False
    if rule.check == "within-memory":
        return inside(request.memory, first, end)
    if rule.check == "in-state":
        return request.pages.all_in(first, end, rule.words["state"])
    name = rule.words["name"]
    if "is" not in rule.operands:
        return request.facts.all_are(name, first, end, True) or request.facts.all_are(name, first, end, False)
    return request.facts.all_are(name, first, end, bool(value(rule.operands["is"][0], names)))
