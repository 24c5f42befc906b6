"""The second evaluator: turns each node of an expression into one Python function, on Python integers.

It shares the tree with `hvabi.abi.expr`, and neither code nor runtime: where the two differ, one of them is wrong.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

from hvabi.abi.expr import (
    Attr,
    Binary,
    Bool,
    Call,
    Compare,
    Comprehension,
    Expr,
    In,
    Index,
    Int,
    ListLiteral,
    Name,
    Truth,
    Unary,
)
from hvabi.abi.values import by_identity, ident

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hvabi.abi.model import Transport
    from hvabi.abi.specification import Abi

STATES = {"private": 0, "shared": 1, "shared_read_only": 2}


class Undefined(Exception):  # an answer, not an error: the request names something that is not there
    """An expression has no value for this request: an index outside a list, a division by zero."""


class Unread(Undefined):
    """A field of the request lies where there is no memory: nobody can know its value."""


class Read(dict[str, Any]):
    """The fields of a request that can be read."""

    def __missing__(self, name: str) -> Any:
        """Raise: there is nothing to read."""
        raise Unread(f"{name} lies where there is no memory")


class PartlyRead(Read):
    """The fields of a request; those that cannot be read are known to be fields, and have no value."""

    def __init__(self, fields: Mapping[str, Any], unread: frozenset[str]) -> None:
        super().__init__({name: item for name, item in fields.items() if name not in unread})
        self.unread = unread

    def __contains__(self, name: object) -> bool:
        """Whether the request has such a field."""
        return super().__contains__(name) or name in self.unread


class Names:
    """What a name means, looked up the slow way, in the order that docs/spec-language.md states."""

    __slots__ = ("_defined", "_inside", "abi", "config", "define", "fields", "local", "transport")

    def __init__(
        self,
        abi: Abi,
        transport: Transport,
        config: Mapping[str, int],
        define: Mapping[str, Expr],
        fields: Mapping[str, Any],
        local: Mapping[str, Any] | None = None,
    ) -> None:
        self.abi = abi
        self.transport = transport
        self.config = config
        self.define = define
        self.fields = fields
        self.local: Mapping[str, Any] = {} if local is None else local
        self._defined: dict[str, Any] = {}
        self._inside: tuple[Sequence[Any], list[Names]] | None = None

    def plus(self, **local: Any) -> Names:
        """Return the same names and some more."""
        return Names(self.abi, self.transport, self.config, self.define, self.fields, {**self.local, **local})

    def inside(self, items: Sequence[Any]) -> list[Names]:
        """Return the names within each element of a list, with `it` and `index`; made once for the last such list."""
        if self._inside is None or self._inside[0] is not items:
            self._inside = items, [self.plus(it=item, index=number) for number, item in enumerate(items)]
        return self._inside[1]

    def with_fields(self, fields: Mapping[str, Any]) -> Names:
        """Return the same names with other fields of the request."""
        return Names(self.abi, self.transport, self.config, self.define, fields, self.local)

    def of(self, name: str) -> Any:
        """Return what a name means. Raises `Undefined` where nothing has it."""
        if name in self.local:
            return self.local[name]
        if name in self.define:
            if name not in self._defined:
                self._defined[name] = value(self.define[name], self)
            return self._defined[name]
        if name in self.fields:
            return self.fields[name]
        if name == "request":
            return self.fields
        if name in self.transport.limits:
            return self.transport.limits[name].value
        if name in self.config:
            return self.config[name]
        static = _static_names(self.abi)
        if name in static:
            return static[name]
        raise Undefined(f"nothing is called {name}")


@by_identity
def _static_names(abi: Abi) -> dict[str, Any]:
    """Return what stays the same for an ABI: constants, enum values, enums, states; an earlier one hides a later."""
    names: dict[str, Any] = {name: constant.value for name, constant in abi.constants.items()}
    for enum in abi.enums.values():
        for item in enum.values.values():
            names.setdefault(item.name, item.value)
    for enum in abi.enums.values():
        names.setdefault(ident(enum.name), {item.name: item.value for item in enum.values.values()})
    return {**STATES, **names}


def value(expr: Expr, names: Names) -> Any:
    """Return the value of an expression. Raises `Undefined`."""
    found = _known.get(id(expr))
    return (found[1] if found is not None else meaning(expr))(names)


_known: dict[int, tuple[Expr, Callable[[Names], Any]]] = {}
_MOST_KNOWN = 1 << 14


def meaning(expr: Expr) -> Callable[[Names], Any]:
    """Return the function of an expression, kept by the tree's identity, as hashing would take longer than this."""
    found = _known.get(id(expr))
    if found is not None:
        return found[1]
    if len(_known) >= _MOST_KNOWN:
        _known.clear()
    function = _function(expr)
    _known[id(expr)] = expr, function  # the tree too, so that its id is not given to another one
    return function


def _function(expr: Expr) -> Callable[[Names], Any]:
    """Return what an expression does: a function for each node, made once."""
    match expr:
        case Int(number, _):
            return lambda names: number
        case Truth(truth):
            return lambda names: int(truth)
        case Name(name):
            return lambda names: names.local[name] if name in names.local else names.of(name)
        case Attr(base, name):
            of = _function(base)
            return lambda names: _part(of(names), name)
        case Index(base, index):
            items, at = _function(base), _function(index)
            return lambda names: _element(items(names), at(names))
        case ListLiteral(literal):
            each = [_function(item) for item in literal]
            return lambda names: [item(names) for item in each]
        case Unary(op, operand):
            of = _function(operand)
            return (lambda names: -of(names)) if op == "-" else (lambda names: int(not of(names)))
        case Binary(op, left, Int(number, _)):
            one, calculate = _function(left), _CALCULATE[op]
            return lambda names: int(calculate(one(names), number))
        case Binary(op, left, right):
            one, two, calculate = _function(left), _function(right), _CALCULATE[op]
            return lambda names: int(calculate(one(names), two(names)))
        case Compare(op, left, Int(number, _)):
            one, compare = _function(left), _COMPARE[op]
            return lambda names: int(compare(one(names), number))
        case Compare(op, left, right):
            one, two, compare = _function(left), _function(right), _COMPARE[op]
            return lambda names: int(compare(one(names), two(names)))
        case Bool("and", left, right):
            one, two = _function(left), _function(right)
            return lambda names: int(bool(one(names)) and bool(two(names)))
        case Bool(_, left, right):
            one, two = _function(left), _function(right)
            return lambda names: int(bool(one(names)) or bool(two(names)))
        case In(item, source):
            one, items = _function(item), _function(source)
            return lambda names: int(one(names) in list(items(names)))
        case Call("len", (only,)):
            items = _function(only)
            return lambda names: len(items(names))
        case Call(function, (only,)):
            items = _function(only)
            return lambda names: _fold(function, list(items(names)))
        case Call(function, args):
            each = [_function(arg) for arg in args]
            return lambda names: _fold(function, [arg(names) for arg in each])
        case Comprehension(function, body, variable, source):
            items, inner = _function(source), _function(body)
            return lambda names: _fold(function, [inner(names.plus(**{variable: one})) for one in items(names)])
    raise Undefined(f"no such expression: {expr}")


def _part(base: Any, name: str) -> Any:
    if isinstance(base, dict):
        if name in base:
            return base[name]
    elif hasattr(base, name):
        return getattr(base, name)
    raise Undefined(f"no field {name}")


def _element(base: Any, index: int) -> Any:
    if not 0 <= index < len(base):
        raise Undefined(f"no element {index}")
    return base[index]


def _divisor(number: int) -> int:
    if number == 0:
        raise Undefined("division by zero")
    return number


def _distance(number: int) -> int:
    if not 0 <= number <= 4096:
        raise Undefined("shift out of bounds")
    return number


_CALCULATE: Mapping[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "//": lambda left, right: left // _divisor(right),
    "%": lambda left, right: left % _divisor(right),
    "&": operator.and_,
    "|": operator.or_,
    "<<": lambda left, right: left << _distance(right),
    ">>": lambda left, right: left >> _distance(right),
}
_COMPARE: Mapping[str, Callable[[int, int], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def _fold(function: str, values: list[Any]) -> int:
    if function in ("min", "max") and not values:
        raise Undefined("no element")
    if function == "sum":
        total = 0
        for item in values:
            total += item
        return total
    if function == "all":
        return int(not any(not item for item in values))
    if function == "any":
        return int(any(bool(item) for item in values))
    best = values[0]
    for item in values[1:]:
        if (item < best) == (function == "min") and item != best:
            best = item
    return int(best)
