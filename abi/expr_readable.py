"""Expressions for people: parentheses wherever a reader would have to think about which operator binds tighter."""

from __future__ import annotations

from hvabi.abi.expr_nodes import (
    COMPARE,
    NEGATE,
    POSTFIX,
    Attr,
    Binary,
    Bool,
    Call,
    Compare,
    Comprehension,
    Expr,
    In,
    Index,
    ListLiteral,
    Unary,
    precedence,
    to_text,
)

_PRODUCTS = frozenset(("*", "//", "%"))


def readable(expr: Expr) -> str:
    """Return the text of an expression; ``parse(readable(e)) == e`` for every tree, as with `to_text`."""
    match expr:
        case Attr(base, name):
            return f"{_postfix(base)}.{name}" if isinstance(base, Attr | Index) else to_text(expr)
        case Index(base, index):
            return f"{_postfix(base)}[{readable(index)}]"
        case ListLiteral(items):
            return f"[{', '.join(map(readable, items))}]"
        case Unary("not", In(item, source)):
            return f"{_side(item, COMPARE + 1)} not in {_side(source, COMPARE + 1)}"
        case Unary(op, operand):
            text = readable(operand)
            least = NEGATE if op == "-" else POSTFIX
            return f"{'-' if op == '-' else 'not '}" + (text if precedence(operand) >= least else f"({text})")
        case Compare(op, left, right):
            return f"{_side(left, COMPARE + 1)} {op} {_side(right, COMPARE + 1)}"
        case In(item, source):
            return f"{_side(item, COMPARE + 1)} in {_side(source, COMPARE + 1)}"
        case Binary(op, left, right):
            return f"{_operand(left, op, first=True)} {op} {_operand(right, op, first=False)}"
        case Bool(op, left, right):
            return f"{_condition(left, op, first=True)} {op} {_condition(right, op, first=False)}"
        case Call(function, args):
            return f"{function}({', '.join(map(readable, args))})"
        case Comprehension(function, body, variable, source):
            return f"{function}({readable(body)} for {variable} in {readable(source)})"
        case _:
            return to_text(expr)


def _postfix(expr: Expr) -> str:
    text = readable(expr)
    return text if precedence(expr) >= POSTFIX and not text[:1].isdigit() else f"({text})"


def _side(expr: Expr, least: int) -> str:
    text = readable(expr)
    return text if precedence(expr) >= least else f"({text})"


def _operand(expr: Expr, op: str, *, first: bool) -> str:
    text = readable(expr)
    if isinstance(expr, Binary):
        sums = op in ("+", "-") and (expr.op in _PRODUCTS or (first and expr.op in ("+", "-")))
        same = first and expr.op == op and op in ("+", "*", "|", "&")
        return text if sums or same else f"({text})"
    return text if precedence(expr) >= NEGATE else f"({text})"


def _condition(expr: Expr, op: str, *, first: bool) -> str:
    text = readable(expr)
    if isinstance(expr, Bool):
        return text if first and expr.op == op else f"({text})"
    return text
