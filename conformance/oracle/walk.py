"""The second evaluator: walks the tree of an expression, one node at a time, on Python integers."""

from __future__ import annotations

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
from hvabi.abi.values import ident

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hvabi.abi.model import Transport
    from hvabi.abi.specification import Abi

STATES = {"private": 0, "shared": 1, "shared_read_only": 2}


class Undefined(Exception):  # an answer, not an error: the request names something that is not there
    """An expression has no value for this request: an index outside a list, a division by zero."""


class Names:
    """What a name means, looked up the slow way, in the order that docs/spec-language.md states."""

    def __init__(
        self,
        abi: Abi,
        transport: Transport,
        config: Mapping[str, int],
        define: Mapping[str, Expr],
        fields: Mapping[str, Any],
        **local: Any,
    ) -> None:
        self.abi = abi
        self.transport = transport
        self.config = config
        self.define = define
        self.fields = fields
        self.local = local

    def plus(self, **local: Any) -> Names:
        """Return the same names and some more."""
        return Names(self.abi, self.transport, self.config, self.define, self.fields, **{**self.local, **local})

    def of(self, name: str) -> Any:
        """Return what a name means. Raises `Undefined` where nothing has it."""
        if name in self.local:
            return self.local[name]
        if name in self.define:
            return value(self.define[name], self)
        if name in self.fields:
            return self.fields[name]
        if name == "request":
            return self.fields
        if name in self.transport.limits:
            return self.transport.limits[name].value
        if name in self.config:
            return self.config[name]
        if name in self.abi.constants:
            return self.abi.constants[name].value
        for enum in self.abi.enums.values():
            if name in enum.values:
                return enum.values[name].value
        for enum in self.abi.enums.values():
            if name == ident(enum.name):
                return {item.name: item.value for item in enum.values.values()}
        if name in STATES:
            return STATES[name]
        raise Undefined(f"nothing is called {name}")


def value(expr: Expr, names: Names) -> Any:
    """Return the value of an expression. Raises `Undefined`."""
    match expr:
        case Int(number, _):
            return number
        case Truth(truth):
            return int(truth)
        case Name(name):
            return names.of(name)
        case Attr(base, name):
            return _part(value(base, names), name)
        case Index(base, index):
            return _element(value(base, names), value(index, names))
        case ListLiteral(items):
            return [value(item, names) for item in items]
        case Unary("-", operand):
            return -value(operand, names)
        case Unary(_, operand):
            return int(not value(operand, names))
        case Binary(op, left, right):
            return _calculate(op, value(left, names), value(right, names))
        case Compare(op, left, right):
            return int(_compare(op, value(left, names), value(right, names)))
        case Bool("and", left, right):
            return int(bool(value(left, names)) and bool(value(right, names)))
        case Bool(_, left, right):
            return int(bool(value(left, names)) or bool(value(right, names)))
        case In(item, items):
            return int(value(item, names) in list(value(items, names)))
        case Call("len", (only,)):
            return len(value(only, names))
        case Call(function, args):
            values = [value(arg, names) for arg in args]
            return _fold(function, list(values[0]) if len(values) == 1 else values)
        case Comprehension(function, body, variable, source):
            return _fold(function, [value(body, names.plus(**{variable: one})) for one in value(source, names)])
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


def _calculate(op: str, left: int, right: int) -> int:
    if op in ("//", "%") and right == 0:
        raise Undefined("division by zero")
    if op in ("<<", ">>") and not 0 <= right <= 4096:
        raise Undefined("shift out of bounds")
    table = {
        "+": lambda: left + right,
        "-": lambda: left - right,
        "*": lambda: left * right,
        "//": lambda: left // right,
        "%": lambda: left % right,
        "&": lambda: left & right,
        "|": lambda: left | right,
        "<<": lambda: left << right,
        ">>": lambda: left >> right,
    }
    return int(table[op]())


def _compare(op: str, left: int, right: int) -> bool:
    signs = {"==": {0}, "!=": {-1, 1}, "<": {-1}, "<=": {-1, 0}, ">": {1}, ">=": {0, 1}}
    return (left > right) - (left < right) in signs[op]


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
