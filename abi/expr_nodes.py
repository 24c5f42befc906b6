"""The syntax tree of the expression language: a closed set of frozen nodes, and what can be read off it.

Every consumer (evaluator, C, Rust and JavaScript printers, lint) matches on these classes and on nothing
else. Positional arguments are in reading order, so ``case Binary("+", left, right)`` works. Nodes compare and
hash by meaning: the column in the text and the base of a literal do not count.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

UnaryOp = Literal["-", "not"]
BinaryOp = Literal["+", "-", "*", "//", "%", "&", "|", "<<", ">>"]
CompareOp = Literal["==", "!=", "<", "<=", ">", ">="]
BoolOp = Literal["and", "or"]
Function = Literal["min", "max", "sum", "all", "any", "len"]

FUNCTIONS: tuple[Function, ...] = ("all", "any", "len", "max", "min", "sum")
COMPREHENSIONS: tuple[Function, ...] = ("all", "any", "sum")
"""The functions that also take ``EXPR for NAME in LIST``."""
KEYWORDS = frozenset({"and", "or", "not", "in", "for", "true", "false", "True", "False", "None"})
"""Words that are no names; the last three so that nobody takes them for constants."""

IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _check_identifier(text: str) -> None:
    if not IDENTIFIER.fullmatch(text) or text in KEYWORDS:
        raise ValueError(f"not an identifier: {text!r}")


@dataclass(frozen=True, slots=True)
class _Node:
    column: int = field(default=0, compare=False, repr=False, kw_only=True)
    """1-based column of the node in its text, 0 when it was not parsed."""


@dataclass(frozen=True, slots=True)
class Int(_Node):
    """A literal, zero or more; `base` (2, 10 or 16) remembers how it was written."""

    value: int
    base: int = field(default=10, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.value < 0 or isinstance(self.value, bool):
            raise ValueError("a literal is an integer of zero or more; write Unary('-', Int(n))")


@dataclass(frozen=True, slots=True)
class Truth(_Node):
    """``true`` or ``false``."""

    value: bool


@dataclass(frozen=True, slots=True)
class Name(_Node):
    """A name of the environment, or the variable of an enclosing comprehension."""

    name: str

    def __post_init__(self) -> None:
        _check_identifier(self.name)


@dataclass(frozen=True, slots=True)
class Attr(_Node):
    """``base.name``."""

    base: Expr
    name: str

    def __post_init__(self) -> None:
        _check_identifier(self.name)


@dataclass(frozen=True, slots=True)
class Index(_Node):
    """``base[index]``; the index counts from 0 and is never negative."""

    base: Expr
    index: Expr


@dataclass(frozen=True, slots=True)
class ListLiteral(_Node):
    """``[a, b, c]``."""

    items: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Unary(_Node):
    """``-operand`` (integer) or ``not operand`` (truth value)."""

    op: UnaryOp
    operand: Expr


@dataclass(frozen=True, slots=True)
class Binary(_Node):
    """Integer arithmetic; ``//`` and ``%`` round towards minus infinity."""

    op: BinaryOp
    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True)
class Compare(_Node):
    """A comparison of two integers."""

    op: CompareOp
    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True)
class Bool(_Node):
    """``and`` or ``or``; the right side is evaluated only when needed; the result is a truth value."""

    op: BoolOp
    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True)
class In(_Node):
    """``item in list``; ``item not in list`` is parsed as ``not (item in list)``."""

    item: Expr
    list: Expr


@dataclass(frozen=True, slots=True)
class Call(_Node):
    """A function on one list; ``min`` and ``max`` also on two or more integers."""

    function: Function
    args: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Comprehension(_Node):
    """``function(body for variable in list)`` with function ``all``, ``any`` or ``sum``."""

    function: Function
    body: Expr
    variable: str
    list: Expr

    def __post_init__(self) -> None:
        _check_identifier(self.variable)


Expr: TypeAlias = (
    Int | Truth | Name | Attr | Index | ListLiteral | Unary | Binary | Compare | Bool | In | Call | Comprehension
)


def children(expr: Expr) -> tuple[Expr, ...]:
    """Return the direct sub-expressions in the order in which they are evaluated."""
    match expr:
        case Int() | Truth() | Name():
            return ()
        case Attr(base, _):
            return (base,)
        case Index(base, index):
            return (base, index)
        case ListLiteral(items):
            return items
        case Unary(_, operand):
            return (operand,)
        case Binary(_, left, right) | Compare(_, left, right) | Bool(_, left, right) | In(left, right):
            return (left, right)
        case Call(_, args):
            return args
        case Comprehension(_, body, _, source):
            return (source, body)


def walk(expr: Expr) -> Iterator[Expr]:
    """Yield the expression and every sub-expression, parents first, in reading order of evaluation."""
    todo = [expr]
    while todo:
        node = todo.pop()
        yield node
        todo.extend(reversed(children(node)))


def depth(expr: Expr) -> int:
    """Return the height of the tree; a literal or a name is 1."""
    level, height = [expr], 0
    while level:
        height += 1
        level = [child for node in level for child in children(node)]
    return height


def names(expr: Expr) -> frozenset[str]:
    """Return the root names that evaluation may ask the environment for, without comprehension variables."""
    found: set[str] = set()
    todo: list[tuple[Expr, frozenset[str]]] = [(expr, frozenset())]
    while todo:
        node, bound = todo.pop()
        match node:
            case Name(name):
                if name not in bound:
                    found.add(name)
            case Comprehension(_, body, variable, source):
                todo += [(source, bound), (body, bound | {variable})]
            case _:
                todo += [(child, bound) for child in children(node)]
    return frozenset(found)


def paths(expr: Expr) -> frozenset[str]:
    """Return the dotted paths that the expression reads, each as long as it is written.

    An element of a list is ``[]``: both ``entries[i].op`` and ``sum(e.op for e in entries)`` read
    ``entries[].op``. A variable over a list that is no path itself adds nothing.
    """
    found: set[str] = set()
    todo: list[tuple[Expr, dict[str, str | None]]] = [(expr, {})]
    while todo:
        node, bound = todo.pop()
        path = _path(node, bound)
        if path is not None:
            found.add(path)
        match node:
            case Name():
                pass
            case Attr(base, _):
                # Only the longest path counts; indexes inside it are expressions of their own.
                todo += _inside(base, bound, is_path=path is not None)
            case Index(base, index):
                todo.append((index, bound))
                todo += _inside(base, bound, is_path=path is not None)
            case Comprehension(_, body, variable, source):
                over = _path(source, bound)
                todo += [(source, bound), (body, {**bound, variable: None if over is None else f"{over}[]"})]
            case _:
                todo += [(child, bound) for child in children(node)]
    return frozenset(found)


def _inside(base: Expr, bound: dict[str, str | None], *, is_path: bool) -> list[tuple[Expr, dict[str, str | None]]]:
    if not is_path:
        return [(base, bound)]
    found = []
    while isinstance(base, Attr | Index):
        if isinstance(base, Index):
            found.append((base.index, bound))
        base = base.base
    return found


def _path(expr: Expr, bound: dict[str, str | None]) -> str | None:
    tail = ""
    while True:
        match expr:
            case Name(name):
                root = bound.get(name, name)
                return None if root is None else root + tail
            case Attr(base, name):
                tail = f".{name}{tail}"
                expr = base
            case Index(base, _):
                tail = f"[]{tail}"
                expr = base
            case _:
                return None


# Binding strength, weakest first; the parser and every printer share it.
OR, AND, NOT, COMPARE, BIT_OR, BIT_AND, SHIFT, SUM, PRODUCT, NEGATE, POSTFIX = range(1, 12)

PRECEDENCE: dict[str, int] = {
    "or": OR,
    "and": AND,
    **dict.fromkeys(("==", "!=", "<", "<=", ">", ">=", "in"), COMPARE),
    "|": BIT_OR,
    "&": BIT_AND,
    **dict.fromkeys(("<<", ">>"), SHIFT),
    **dict.fromkeys(("+", "-"), SUM),
    **dict.fromkeys(("*", "//", "%"), PRODUCT),
}
"""Binding strength of each infix operator, as in Python. All go left to right; comparisons never chain."""


def precedence(expr: Expr) -> int:
    """Return how strongly the outermost operator of an expression binds."""
    match expr:
        case Binary(op, _, _) | Compare(op, _, _) | Bool(op, _, _):
            return PRECEDENCE[op]
        case In():
            return COMPARE
        case Unary("not", _):
            return NOT
        case Unary():
            return NEGATE
        case _:
            return POSTFIX


def to_text(expr: Expr) -> str:
    """Return the canonical text, with the fewest parentheses; ``parse(to_text(e)) == e`` for every tree."""
    match expr:
        case Int(value, base):
            if base == 2:
                return f"0b{value:b}"
            # Long decimal numbers are unreadable, and Python refuses to print very long ones.
            return f"0x{value:x}" if base == 16 or value.bit_length() > 128 else str(value)
        case Truth(value):
            return "true" if value else "false"
        case Name(name):
            return name
        case Attr(base_expr, name):
            text = f"({to_text(base_expr)})" if isinstance(base_expr, Int) else _wrap(base_expr, POSTFIX)
            return f"{text}.{name}"
        case Index(base_expr, index):
            return f"{_wrap(base_expr, POSTFIX)}[{to_text(index)}]"
        case ListLiteral(items):
            return f"[{', '.join(map(to_text, items))}]"
        case Unary("not", operand):
            return f"not {_wrap(operand, NOT)}"
        case Unary(_, operand):
            return f"-{_wrap(operand, NEGATE)}"
        case Compare(op, left, right):
            return f"{_wrap(left, COMPARE + 1)} {op} {_wrap(right, COMPARE + 1)}"
        case In(item, source):
            return f"{_wrap(item, COMPARE + 1)} in {_wrap(source, COMPARE + 1)}"
        case Binary(op, left, right) | Bool(op, left, right):
            strength = PRECEDENCE[op]
            return f"{_wrap(left, strength)} {op} {_wrap(right, strength + 1)}"
        case Call(function, args):
            return f"{function}({', '.join(map(to_text, args))})"
        case Comprehension(function, body, variable, source):
            # The list ends at the closing parenthesis, the body at `for`: neither needs parentheses.
            return f"{function}({to_text(body)} for {variable} in {to_text(source)})"


def _wrap(expr: Expr, least: int) -> str:
    text = to_text(expr)
    return text if precedence(expr) >= least else f"({text})"
