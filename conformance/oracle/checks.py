"""The checks of the specification language a second time, on plain integers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hvabi.abi.expr import Attr, Name
from hvabi.conformance.oracle.held import is_handle
from hvabi.conformance.oracle.pages import inside
from hvabi.conformance.oracle.walk import Names, Undefined, value

if TYPE_CHECKING:
    from hvabi.abi.calls import Rule
    from hvabi.abi.model import Enum
    from hvabi.conformance.oracle.asked import Asked as Request

LAST_PAGE = 1 << 52


def holds(rule: Rule, request: Request) -> bool:
    """Whether the request keeps the rule. Raises `Undefined` where an operand has no value."""
    names = request.names
    if rule.when is not None and not value(rule.when, names):
        return True
    if "each" not in rule.words:
        return _holds(rule, request, names)
    inside = [names.plus(it=item, index=number) for number, item in enumerate(names.of(rule.words["each"]))]
    if rule.check == "disjoint":
        return _apart(rule, inside)
    return not [one for one in inside if not _holds(rule, request, one)]


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


def _holds(rule: Rule, request: Request, names: Names) -> bool:
    def every(key: str) -> list[int]:
        return [value(expr, names) for expr in rule.operands[key]]

    def only(key: str) -> int:
        return int(value(rule.operands[key][0], names))

    match rule.check:
        case "aligned":
            to = only("to")
            return not [x for x in every("of") if x % to]
        case "non-empty":
            return 0 not in every("of")
        case "no-wrap":
            return (only("start") + only("length")) >> only("width") == 0
        case "below":
            return max(every("of")) < only("limit")
        case "at-most" | "count-at-most":
            return max(every("of")) <= only("limit")
        case "within":
            return min(every("of")) >= only("low") and max(every("of")) < only("high")
        case "ordered":
            return only("high") - only("low") > 0
        case "same-half":
            return len({x // 2 ** only("bit") % 2 for x in every("of")}) == 1
        case "equals":
            return set(every("of")) == {only("to")}
        case "bits-set":
            return all(only("mask") & ~x == 0 for x in every("of"))
        case "reserved":
            return set(every("of")) <= {0}
        case "known-value":
            return set(every("of")) <= _known(rule, request)
        case "fits-buffer":
            return only("size") - only("length") >= 0
        case "enabled":
            return bool(names.of("enabled"))
        case "privileged":
            return bool(names.of("cpl") == 0)
        case "selected":
            return request.is_selected({expr.name for expr in rule.operands.get("of", ()) if isinstance(expr, Name)})
        case "readable":
            return request.is_readable(rule.words["of"])
        case "within-memory" | "in-state" | "fact":
            return _pages(rule, request, only)
        case "handle":
            return is_handle(request, only("of"), rule.words["is"])
        case "expr":
            return bool(only("expr"))
    raise Undefined(f"no check {rule.check}")


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


def _pages(rule: Rule, request: Request, only: Any) -> bool:
    start, length = only("start"), only("length")
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
    return request.facts.all_are(name, first, end, bool(only("is")))
