"""Expressions inside generated functions: every name becomes a number or a variable of the function."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from hvabi.abi.errors import ExprError
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
    Want,
    children,
    evaluate,
)
from hvabi.abi.expr_codegen import FIELD_BITS, Inliner, Variable
from hvabi.abi.expr_runtime import Runtime
from hvabi.abi.straight_layout import shift_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from hvabi.abi.model import Field, Message

EMPTY = Int(0)


class Unsupported(Exception):  # not an error: the reference does it
    """There is no straight-line code for this; the reference serves it."""


class Names:
    """Resolves the names of one function, and writes expressions over them.

    Args:
        message: the message whose fields come first; the variable of field ``x`` is ``f_x``.
        static: names that stay the same; numbers, and enums as mappings.
        sent: the message of the request where it is given as ``request``; its variables are ``s_x``.
        need: called with the name of each field that an expression reads, before its variable is used.
        define: names for expressions.
        local: other names, as variables of the function.

    """

    def __init__(
        self,
        message: Message,
        static: Mapping[str, Any],
        *,
        sent: Message | None = None,
        need: Callable[[str], None] = lambda name: None,
        define: Mapping[str, Expr] | None = None,
        local: Mapping[str, Variable] | None = None,
    ) -> None:
        self.message = message
        self.static = static
        self.sent = sent
        self.need = need
        self.define = define or {}
        self.local = dict(local or {})
        self.used_sent: set[str] = set()
        self._inliner = Inliner()
        self._open: set[str] = set()
        self._scope: dict[str, Variable] = {
            f"f_{name}": _variable(f"f_{name}", item) for name, item in message.fields.items()
        }
        if sent is not None:
            self._scope.update((f"s_{name}", Variable(f"s_{name}", FIELD_BITS)) for name in sent.fields)
        self._scope.update((each.python, each) for each in self.local.values())

    def code(self, expr: Expr, want: Want = "int") -> str:
        """Return code for an expression. Raises `Unsupported`."""
        return self._inliner.code(self.resolved(expr), want, self._scope)

    def globals(self, whole: Expr = EMPTY) -> dict[str, Any]:
        """Return what the generated code needs of the expression language."""
        return Runtime(whole, self._inliner.parts).globals()

    @property
    def budget(self) -> str:
        """The first line of the function, once all expressions are written."""
        return self._inliner.budget

    def resolved(self, expr: Expr, bound: frozenset[str] = frozenset()) -> Expr:
        """Return the expression over numbers and variables only, what is known worked out. Raises `Unsupported`."""
        found = self._resolved(expr, bound)
        if isinstance(found, Binary | Unary) and all(isinstance(child, Int) for child in children(found)):
            # What fails is left as it is, and fails when it is reached.
            with suppress(ExprError):
                return found if found.op == "not" else number(evaluate(found, {}, "int"))
        return found

    def _resolved(self, expr: Expr, bound: frozenset[str]) -> Expr:
        def go(each: Expr) -> Expr:
            return self.resolved(each, bound)

        match expr:
            case Int() | Truth():
                return expr
            case Name(name):
                return expr if name in bound else self._name(name)
            case Attr(base, name):
                return self._attr(base, name, bound)
            case Index(base, index):
                return Index(go(base), go(index))
            case ListLiteral(items):
                return ListLiteral(tuple(map(go, items)))
            case Unary(op, operand):
                return Unary(op, go(operand))
            case Binary(op, left, right):
                return Binary(op, go(left), go(right))
            case Compare(op, left, right):
                return Compare(op, go(left), go(right))
            case Bool(op, left, right):
                return Bool(op, go(left), go(right))
            case In(item, source):
                return In(go(item), go(source))
            case Call(function, args):
                return Call(function, tuple(map(go, args)))
            case Comprehension(function, body, variable, source):
                return Comprehension(function, self.resolved(body, bound | {variable}), variable, go(source))

    def _name(self, name: str) -> Expr:
        if name in self.local:
            return Name(self.local[name].python)
        if name in self.define:
            return self._defined(name)
        if name in self.message.fields:
            self.need(name)
            return Name(f"f_{name}")
        if self.sent is not None and name in self.sent.fields:
            self.used_sent.add(name)
            return Name(f"s_{name}")
        value = self.static.get(name)
        if isinstance(value, int):
            return number(value)
        raise Unsupported(name)

    def _defined(self, name: str) -> Expr:
        if name in self._open:
            raise Unsupported(name)
        self._open.add(name)
        try:
            return self.resolved(self.define[name])
        finally:
            self._open.discard(name)

    def _attr(self, base: Expr, name: str, bound: frozenset[str]) -> Expr:
        match base:
            case Name("request") if "request" not in bound:
                if self.sent is None:
                    return self._field(name)
                return self._sent(name)
            case Name("response") if "response" not in bound:
                if self.sent is None:
                    raise Unsupported("response")
                return self._field(name)
            case Name(word) if word not in bound and word not in self.local and word not in self.define:
                if word in self.message.fields:
                    return self._part(self.message.fields[word], name)
                if self.sent is None or word not in self.sent.fields:
                    value = self.static.get(word)
                    if isinstance(value, Mapping) and isinstance(value.get(name), int):
                        return number(value[name])
                    raise Unsupported(f"{word}.{name}")
            case Attr(Name("request"), word) if "request" not in bound and self.sent is None:
                return self._part(self.message.fields[word], name) if word in self.message.fields else _refuse(word)
            case _:
                pass
        return Attr(self.resolved(base, bound), name)

    def _field(self, name: str) -> Expr:
        if name not in self.message.fields:
            raise Unsupported(name)
        self.need(name)
        return Name(f"f_{name}")

    def _sent(self, name: str) -> Expr:
        if self.sent is None or name not in self.sent.fields:
            raise Unsupported(name)
        self.used_sent.add(name)
        return Name(f"s_{name}")

    def _part(self, item: Field, name: str) -> Expr:
        """Return the bits of a field of a word, of which the variable holds the whole integer."""
        self.need(item.name)
        if item.word is None or item.is_list or name not in item.word.fields:
            raise Unsupported(f"{item.name}.{name}")
        part = item.word.fields[name]
        if part.signed or part.word is not None:
            raise Unsupported(f"{item.name}.{name}")
        whole: Expr = Name(f"f_{item.name}")
        shift = shift_of(part, item.word)
        return Binary("&", Binary(">>", whole, Int(shift)) if shift else whole, Int((1 << part.bits) - 1))


def _variable(python: str, item: Field) -> Variable:
    # A word with fields is held as its whole integer, a list as it is.
    return Variable(python, max(item.bits, 64), plain=not item.is_list)


def number(value: int) -> Expr:
    """Return a literal for any integer."""
    return Int(int(value)) if value >= 0 else Unary("-", Int(-int(value)))


def _refuse(name: str) -> Expr:
    raise Unsupported(name)
