"""Small changes of expressions: names replaced, numbers moved."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from hvabi.abi.expr import Attr, Binary, Bool, Compare, Expr, Int, Name, names, parse, to_text, walk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

COMPARED = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}
"""Comparisons that are off by one, and what they become."""


def rewrite(expr: Expr, change: Callable[[Expr], Expr | None]) -> Expr:
    """Return the tree with every node for which `change` gives something else replaced, outermost first."""
    found = change(expr)
    if found is not None:
        return found
    updates: dict[str, Any] = {}
    for item in fields(expr):
        value = getattr(expr, item.name)
        new: Any = value
        if isinstance(value, Expr.__args__):
            new = rewrite(value, change)
        elif isinstance(value, tuple):
            new = tuple(rewrite(part, change) for part in value)
        if new is not value:
            updates[item.name] = new
    return replace(expr, **updates) if updates else expr


def moved(expr: Expr, amount: int) -> Expr:
    """Return the expression plus a number, which may be negative."""
    return Binary("+" if amount >= 0 else "-", expr, Int(abs(amount)))


def scaled(expr: Expr, unit: Expr, sign: int) -> Expr:
    """Return the expression one unit further or back."""
    return Binary("+" if sign > 0 else "-", expr, unit)


def moved_names(expr: Expr, wanted: Iterable[str], amount: int) -> Expr:
    """Return the expression with each of these names one step of `amount` off."""
    chosen = set(wanted)
    return rewrite(expr, lambda node: moved(node, amount) if isinstance(node, Name) and node.name in chosen else None)


def reads(expr: Expr, wanted: Iterable[str]) -> bool:
    """Whether the expression reads one of these names."""
    return bool(names(expr) & set(wanted))


def either(one: Expr, other: Expr) -> Expr:
    """Return ``one or other``."""
    return Bool("or", one, other)


def off_by_one(expr: Expr) -> Expr | None:
    """Return the expression with its first ordering comparison off by one, None where it has none."""
    for node in walk(expr):
        if isinstance(node, Compare) and node.op in COMPARED:
            changed = Compare(COMPARED[node.op], node.left, node.right)  # type: ignore[arg-type]  # an operator of the table
            return rewrite(expr, lambda part, node=node, changed=changed: changed if part is node else None)  # type: ignore[misc]  # bound per loop
    return None


__all__ = ["Attr", "either", "moved", "moved_names", "off_by_one", "parse", "reads", "rewrite", "scaled", "to_text"]
