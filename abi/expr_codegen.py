"""Python source for an expression tree.

The source is safe to run because the tree is closed: operators come from a table, names are quoted
identifiers, and everything else goes through the helpers of `hvabi.abi.expr_runtime`. Checks that the tree's
form makes needless are left out: a literal divisor is not tested for zero, a short result is not measured.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Literal, NamedTuple

from hvabi.abi.errors import ExprError, show
from hvabi.abi.expr_nodes import (
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
    children,
    depth,
)
from hvabi.abi.expr_runtime import MAX_BITS, MAX_LIST, MAX_SHIFT, MAX_STEPS

FIELD_BITS = 256
"""Widest integer that an environment is expected to hold, in bits."""

Want = Literal["any", "int", "bool"]

_WORD_BITS = 2048
"""Integers up to this width cost about as much as small ones."""
_SHALLOW = 16
"""Greatest height with type checks in line; higher trees would nest too deeply for Python's parser."""

_INFIX = frozenset(["+", "-", "*", "//", "%", "&", "|", "<<", ">>", "==", "!=", "<", "<=", ">", ">=", "and", "or"])
_CHECKED_INFIX = {"//": "divide", "%": "modulo", "<<": "shift_left", ">>": "shift_right"}
_ON_LISTS = {"sum": "sum_of", "min": "min_of", "max": "max_of", "all": "all_of", "any": "any_of"}


class Variable(NamedTuple):
    """A variable of the generated code: its Python name and the widest integer that it may hold, in bits.

    A `plain` one is known to hold an integer.
    """

    python: str
    width: int
    plain: bool = False


_Scope = Mapping[str, Variable]


def generate(expr: Expr, want: Want) -> tuple[str, tuple[Expr, ...]]:
    """Return the source of a function ``evaluate(E)`` and the sub-expressions that it names by number."""
    generator = _Generator(inline=depth(expr) <= _SHALLOW)
    if want == "any":
        body = generator.value(expr, {})
    else:
        body = generator.integer(expr, {})
        if not (_is_truth(expr) if want == "bool" else _is_plain_integer(expr)):
            body = f"{want}({body})"
    lines = [
        "def evaluate(E):",
        f"    B = [{MAX_STEPS}]" if generator.walks else "",
        "    try:",
        f"        return {body}",
        "    except Lookup as error:",
        "        raise lookup_failed(error, E) from error",
    ]
    return "\n".join(lines), tuple(generator.parts)


class Inliner:
    """Writes expressions into one larger function, whose names are variables of it.

    The function needs the line `budget` at its beginning and everything that `parts` and
    `hvabi.abi.expr_runtime.Runtime` give; it raises `ExprError` and what lookups raise.
    """

    def __init__(self) -> None:
        self._generator = _Generator(inline=False)

    @property
    def budget(self) -> str:
        """The first line of the function, once all expressions are written."""
        return f"B = [{MAX_STEPS}]" if self._generator.walks else "pass"

    @property
    def parts(self) -> tuple[Expr, ...]:
        """The sub-expressions that the code names by number."""
        return tuple(self._generator.parts)

    def code(self, expr: Expr, want: Want, scope: _Scope) -> str:
        """Return code for an integer or a truth value; every name must be in `scope`."""
        body = self._generator.integer(expr, scope)
        if want == "any" or (_is_truth(expr) if want == "bool" else _is_plain_integer(expr)):
            return body
        return f"{want}({body})"


class _Generator:
    """Writes the code of one tree. `parts` lists the sub-expressions that errors may name."""

    def __init__(self, *, inline: bool) -> None:
        self.parts: list[Expr] = []
        self.walks = False
        self._inline = inline
        self._variables = itertools.count()

    def _part(self, expr: Expr) -> int:
        self.parts.append(expr)
        return len(self.parts) - 1

    def value(self, expr: Expr, scope: _Scope) -> str:
        """Return code for a value of any type."""
        match expr:
            case Name(name):
                return scope[name].python if name in scope else f"E[{name!r}]"
            case Attr(base, name):
                return f"field({self.value(base, scope)}, {name!r}, {self._part(expr)})"
            case Index(base, index):
                code = f"{self.value(base, scope)}, {self.integer(index, scope)}"
                return f"element({code}, {self._part(expr)})"
            case ListLiteral(items):
                return f"[{', '.join(self.value(item, scope) for item in items)}]"
            case _:
                return self.integer(expr, scope)

    def integer(self, expr: Expr, scope: _Scope) -> str:
        """Return code for an integer or a truth value; it raises on anything else."""
        match expr:
            case Int(value, _):
                return hex(value)
            case Truth(value):
                return str(bool(value))
            case Name() | Attr() | Index() | ListLiteral():
                return self._checked(expr, scope)
            case Unary("not", operand):
                return f"(not {self.integer(operand, scope)})"
            case Unary("-", operand):
                return f"(-{self.integer(operand, scope)})"
            case Binary():
                return self._narrow(expr, self._binary(expr, scope), scope)
            case Compare(op, left, right):
                return f"({self.integer(left, scope)} {_infix(op)} {self.integer(right, scope)})"
            case Bool(op, left, right):
                code = f"({self.integer(left, scope)} {_infix(op)} {self.integer(right, scope)})"
                return code if _is_truth(left) and _is_truth(right) else f"(not not {code})"
            case In(item, ListLiteral(items)):
                code = self.integer(item, scope)
                listed = "".join(f"{self.integer(element, scope)}, " for element in items)
                return f"({code} in ({listed}))"
            case In(item, source):
                code = self.integer(item, scope)
                return f"contains({code}, {self._walk(source, scope, 1)}, {self._part(source)})"
            case Call():
                return self._narrow(expr, self._call(expr, scope), scope)
            case Comprehension():
                return self._narrow(expr, self._comprehension(expr, scope), scope)
        raise ExprError("expr-syntax", f"not a node of the expression language: {show(expr)}")

    def _checked(self, expr: Expr, scope: _Scope) -> str:
        code = self.value(expr, scope)
        if isinstance(expr, Name) and expr.name in scope and scope[expr.name].plain:
            return code
        part = self._part(expr)
        if code.isidentifier():
            return f"({code} if type({code}) is int else integer({code}, {part}))"
        if self._inline:
            return f"(V if type(V := {code}) is int else integer(V, {part}))"
        return f"integer({code}, {part})"

    def _narrow(self, expr: Expr, code: str, scope: _Scope) -> str:
        return code if _widest(expr, scope) <= MAX_BITS else f"narrow({code}, {self._part(expr)})"

    def _binary(self, expr: Binary, scope: _Scope) -> str:
        op = _infix(expr.op)
        left, right = self.integer(expr.left, scope), self.integer(expr.right, scope)
        match expr.right:
            case Int(value, _) if op in {"//", "%"}:
                safe = value > 0
            case Int(value, _) if op in {"<<", ">>"}:
                safe = value <= MAX_SHIFT
            case _:
                safe = op not in _CHECKED_INFIX
        return f"({left} {op} {right})" if safe else f"{_CHECKED_INFIX[op]}({left}, {right}, {self._part(expr)})"

    def _call(self, expr: Call, scope: _Scope) -> str:
        match expr:
            case Call("min" | "max", args) if len(args) > 1:
                return f"{expr.function}({', '.join(self.integer(arg, scope) for arg in args)})"
            case Call("len", (source,)):
                return f"length({self.value(source, scope)}, {self._part(source)})"
            case Call(function, (source,)) if function in _ON_LISTS:
                return f"{_ON_LISTS[function]}({self._walk(source, scope, 1)}, {self._part(source)})"
        reason = f"{show(expr.function)} with {len(expr.args)} values is not in the language"
        raise ExprError("expr-syntax", reason)

    def _comprehension(self, expr: Comprehension, scope: _Scope) -> str:
        if expr.function not in {"sum", "all", "any"}:
            raise ExprError("expr-syntax", f"{show(expr.function)} takes no `for`")
        variable = Variable(f"x{next(self._variables)}", _width(expr.list, scope))
        inner = {**scope, expr.variable: variable}
        # Python allows no assignment expression where a comprehension names its list.
        inline, self._inline = self._inline, False
        source = self._walk(expr.list, scope, _cost(expr.body, inner))
        self._inline = inline
        return f"{expr.function}({self.integer(expr.body, inner)} for {variable.python} in {source})"

    def _walk(self, source: Expr, scope: _Scope, cost: int) -> str:
        self.walks = True
        return f"walk({self.value(source, scope)}, {cost}, B, {self._part(source)})"


def _infix(op: str) -> str:
    # What is printed into the code is one of ours, even if the tree was made by hand.
    if op not in _INFIX:
        raise ExprError("expr-syntax", f"{show(op)} is not an operator of the language")
    return op


def _is_truth(expr: Expr) -> bool:
    """Whether the code of `_Generator.integer` always gives a bool."""
    match expr:
        case Truth() | Compare() | In() | Bool() | Unary("not", _):
            return True
        case Call(function, _) | Comprehension(function, _, _, _):
            return function in {"all", "any"}
        case _:
            return False


def _is_plain_integer(expr: Expr) -> bool:
    """Whether the code of `_Generator.integer` never gives a bool."""
    match expr:
        case Int() | Name() | Attr() | Index() | Unary("-", _) | Call("sum" | "len", _):
            return True
        case Binary(op, _, _):
            return op not in {"&", "|"}
        case _:
            return False


def _width(expr: Expr, scope: _Scope) -> int:
    """Return the widest result in bits that the checks let through."""
    return min(_widest(expr, scope), MAX_BITS)


def _widest(expr: Expr, scope: _Scope) -> int:
    """Return the widest result in bits, were it not checked."""
    match expr:
        case Int(value, _):
            return value.bit_length()
        case Name(name) if name in scope:
            return scope[name].width
        case Name() | Attr():
            return FIELD_BITS
        case Index(base, _):
            return _width(base, scope)
        case ListLiteral(items):
            return max((_width(item, scope) for item in items), default=1)
        case Unary("-", operand):
            return _width(operand, scope)
        case Binary(op, left, right):
            a, b = _width(left, scope), _width(right, scope)
            if op == "<<":
                return a + (right.value if isinstance(right, Int) else MAX_SHIFT)
            return {"*": a + b, ">>": a, "%": b}.get(op, max(a, b) + 1)
        case Call("len", _):
            return MAX_LIST.bit_length()
        case Call("sum", args):
            return max((_width(arg, scope) for arg in args), default=1) + MAX_LIST.bit_length()
        case Call("min" | "max", args):
            return max((_width(arg, scope) for arg in args), default=1)
        case Comprehension("sum", body, variable, source):
            inner = {**scope, variable: Variable("", _width(source, scope))}
            return _width(body, inner) + MAX_LIST.bit_length()
        case _:
            return 1


def _cost(expr: Expr, scope: _Scope) -> int:
    """Return the steps of one evaluation; the list walks inside count their own."""
    match expr:
        case Comprehension(_, _, _, source):
            return 1 + _cost(source, scope)
        case Binary(op, left, right):
            words = 1 + max(_width(left, scope), _width(right, scope)) // _WORD_BITS
            steps = words * words if op in {"*", "//", "%"} else words
            return steps + _cost(left, scope) + _cost(right, scope)
        case _:
            return 1 + sum(_cost(child, scope) for child in children(expr))
