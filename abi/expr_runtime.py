"""What generated expression code calls: checks of types and bounds; errors name the sub-expression."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from hvabi.abi.errors import ExprCode, ExprError, UsageError, show
from hvabi.abi.expr_nodes import names, to_text

if TYPE_CHECKING:
    from hvabi.abi.expr_nodes import Expr

MAX_SHIFT = 4096
"""Largest shift count."""
MAX_BITS = 65536
"""Widest integer that evaluation may produce, in bits."""
MAX_LIST = 65536
"""Longest list that is walked, in elements."""
MAX_STEPS = 1 << 22
"""Most steps of all list walks of one evaluation; an operation on ordinary integers is one step."""

_MISSING = object()
_SUGGESTED = 1000
"""Most names of an environment that are looked through for a similar one."""


class Runtime:
    """The helpers of one compiled expression.

    Args:
        whole: the expression.
        parts: its sub-expressions that may be at fault; each helper's last argument is an index into them.

    """

    def __init__(self, whole: Expr, parts: Sequence[Expr]) -> None:
        self._whole = whole
        self._parts = parts

    def globals(self) -> dict[str, Any]:
        """Return everything that the generated code may name."""
        return {
            "__builtins__": {},
            "Lookup": (KeyError, TypeError, ValueError, AttributeError),
            **{thing.__name__: thing for thing in (all, any, bool, int, max, min, sum, type)},
            "lookup_failed": self.lookup_failed,
            "integer": self.integer,
            "narrow": self.narrow,
            "divide": self.divide,
            "modulo": self.modulo,
            "shift_left": self.shift_left,
            "shift_right": self.shift_right,
            "field": self.field,
            "element": self.element,
            "length": self.length,
            "walk": self.walk,
            "contains": self.contains,
            "sum_of": lambda items, part: sum(self.integers(items, part)),
            "all_of": lambda items, part: all(self.integers(items, part)),
            "any_of": lambda items, part: any(self.integers(items, part)),
            "min_of": lambda items, part: self.pick(min, items, part),
            "max_of": lambda items, part: self.pick(max, items, part),
        }

    def _fail(self, code: ExprCode, reason: str, part: int, hint: str | None = None) -> ExprError:
        return ExprError(code, reason, subexpr=to_text(self._parts[part]), hint=hint)

    def lookup_failed(self, error: Exception, env: object) -> ExprError:
        """Return the error for a name that the environment does not give."""
        name = error.args[0] if isinstance(error, KeyError) and error.args else None
        if isinstance(name, str) and name in names(self._whole):
            return ExprError("expr-unknown-name", "unknown name", subexpr=name, hint=_similar("name", name, env))
        reason = f"looking up a value failed: {type(error).__name__}: {show(str(error))}"
        return ExprError("expr-wrong-type", reason, subexpr=to_text(self._whole))

    def integer(self, value: object, part: int) -> int:
        """Return an integer or truth value as a plain integer; refuse anything else."""
        try:
            number = operator.index(cast("int", value))
        except TypeError:
            reason = f"is {_kind(value)}, an integer is needed"
            raise self._fail("expr-wrong-type", reason, part) from None
        return self.narrow(number, part)

    def integers(self, items: Iterable[object], part: int) -> Iterable[int]:
        """Check the elements of a list one by one, as they are asked for."""
        return (item if type(item) is int else self.integer(item, part) for item in items)

    def narrow(self, value: int, part: int) -> int:
        """Refuse integers wider than `MAX_BITS`."""
        if value.bit_length() > MAX_BITS:
            raise self._fail("expr-too-large", f"is wider than {MAX_BITS} bits", part)
        return value

    def divide(self, a: int, b: int, part: int) -> int:
        """Floor division."""
        if not b:
            raise self._fail("expr-division-by-zero", "division by zero", part)
        return a // b

    def modulo(self, a: int, b: int, part: int) -> int:
        """Remainder with the sign of the divisor."""
        if not b:
            raise self._fail("expr-division-by-zero", "division by zero", part)
        return a % b

    def _shift(self, count: int, part: int) -> int:
        if not 0 <= count <= MAX_SHIFT:
            reason = f"shift by {show(count)}, allowed is 0 to {MAX_SHIFT}"
            raise self._fail("expr-shift", reason, part)
        return count

    def shift_left(self, a: int, count: int, part: int) -> int:
        """Shift by a count that was not known when compiling."""
        return a << self._shift(count, part)

    def shift_right(self, a: int, count: int, part: int) -> int:
        """Shift by a count that was not known when compiling."""
        return a >> self._shift(count, part)

    def field(self, base: object, name: str, part: int) -> object:
        """Return the item of a mapping or the attribute of an object."""
        kind: Any = type(base)
        if _is_mapping(kind):
            try:
                return cast("Mapping[str, object]", base)[name]
            except KeyError:
                raise self._fail(
                    "expr-unknown-field", f"no field {name}", part, _similar("field", name, base)
                ) from None
        if base is None or isinstance(base, (int, float, str, bytes, list)):
            raise self._fail("expr-wrong-type", f"{_kind(base)} has no fields", part)
        # Expressions come from files: the inner life of Python objects is none of their business.
        found = _MISSING if name.startswith("_") else getattr(base, name, _MISSING)
        if found is _MISSING:
            raise self._fail("expr-unknown-field", f"no field {name}", part)
        return found

    def _sequence(self, value: object, reason: str, part: int) -> Sequence[object]:
        kind: Any = type(value)
        if not _is_list(kind):
            raise self._fail("expr-wrong-type", f"{_kind(value)} {reason}", part)
        return cast("Sequence[object]", value)

    def element(self, base: object, index: int, part: int) -> object:
        """Return one element of a list."""
        items = self._sequence(base, "has no elements", part)
        if not 0 <= index < len(items):
            reason = f"index {show(index)} is outside the list of {len(items)}"
            raise self._fail("expr-index", reason, part)
        return items[index]

    def length(self, value: object, part: int) -> int:
        """Return the number of elements of a list."""
        return len(self._sequence(value, "is given, a list is needed", part))

    def walk(self, value: object, cost: int, budget: list[int], part: int) -> Iterable[object]:
        """Return the elements of a list after taking the steps of the whole walk from the budget."""
        items = self._sequence(value, "is given, a list is needed", part)
        size = len(items)
        if size > MAX_LIST:
            raise self._fail("expr-too-large", f"has {size} elements, the limit is {MAX_LIST}", part)
        budget[0] -= 1 + size * cost
        if budget[0] < 0:
            raise self._fail("expr-too-many-steps", f"walking lists takes more than {MAX_STEPS} steps", part)
        # A list type of the caller's own may lie about its length.
        return items if isinstance(items, (list, tuple)) else itertools.islice(items, size)

    def contains(self, item: int, items: Iterable[object], part: int) -> bool:
        """Tell whether a list has an integer."""
        return item in self.integers(items, part)

    def pick(self, function: Callable[[Iterable[int]], int], items: Iterable[object], part: int) -> int:
        """Return the least or greatest element of a list."""
        picked = list(self.integers(items, part))
        if not picked:
            raise self._fail("expr-empty-list", "is empty, min and max need an element", part)
        return function(picked)


@lru_cache(maxsize=1024)
def _is_mapping(kind: type) -> bool:
    return issubclass(kind, Mapping)


@lru_cache(maxsize=1024)
def _is_list(kind: type) -> bool:
    if issubclass(kind, (list, tuple)):
        return True
    return hasattr(kind, "__len__") and hasattr(kind, "__getitem__") and not issubclass(kind, (str, Mapping))


def _similar(kind: str, name: str, known: object) -> str | None:
    if not isinstance(known, Mapping):
        return None
    found = [key for key in itertools.islice(known, _SUGGESTED) if isinstance(key, str)]
    return UsageError.unknown(kind, name, found).hint if found else None


def _kind(value: object) -> str:
    kind: Any = type(value)
    match value:
        case None:
            return "null"
        case bool():
            return "a truth value"
        case int():
            return "an integer"
        case float():
            return "a fraction"
        case str():
            return "text"
        case Mapping():
            return "a group of fields"
        case _ if _is_list(kind):
            return "a list"
        case _:
            return f"a {kind.__name__}"
