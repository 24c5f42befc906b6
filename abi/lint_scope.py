"""Which names an expression may use at a place, of what type they are, and where it goes wrong.

A name that exists elsewhere gets a hint that says where, so that `index` outside an element, or a field of the
response in a rule about the request, is not just "unknown".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

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
    names,
    to_text,
)
from hvabi.abi.schema import near
from hvabi.abi.scope import STATE_NUMBERS
from hvabi.abi.values import ident

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hvabi.abi.lint_context import Context
    from hvabi.abi.model import Enum, Field, Layout, Message, Pointer, Transport
    from hvabi.abi.specification import Handles

IDS: Mapping[str, str] = {
    "expr-unknown-name": "An expression uses a name that does not exist, or not at this place.",
    "expr-ambiguous-name": "A name stands for different numbers in two enums.",
    "expr-unknown-field": "An expression asks for a field that a word, an element or a message does not have.",
    "expr-type": "An expression uses a list or a structure as a number, or a number as a list.",
    "expr-revision": "An expression uses a field or value that does not exist in every revision it holds for.",
}
"""Every id of this module, with one sentence each."""

WHERE = {
    "it": "in element scope",
    "index": "in element scope",
    "cpl": "in rules",
    "enabled": "in rules",
    "to": "in outcomes, vmm and guest",
    "done_pages": "in outcomes",
    "done_bytes": "in outcomes",
    "part_pages": "in outcomes and mark-part",
    "errno": "in outcomes and vmm.errno",
    "piece_start": "in vmm",
    "piece_pages": "in vmm",
    "piece_hint": "in vmm",
    "scratch": "in guest",
    "scratch_pages": "in guest",
    "attempt": "in guest",
    "count": "in guest",
    "response": "where there is a response",
    "state_of": "in answers of a query",
    "run_pages": "in answers of a query about one range, and of each element",
    "request": "in calls",
    "gathered": "in calls that use a handle",
    "kept": "in calls that use a handle",
    "parts": "in calls that use a handle",
    "complete": "in calls that use a handle",
    "handles": "in calls that use a handle",
    "held": "in calls that use a handle",
    "handle": "in outcomes and guest of calls that use a handle",
}
"""Where the names of run time are known."""


@dataclass(frozen=True, slots=True)
class Type:
    """What an expression gives: a number, a list, or something with fields. `unknown` stops follow-on errors."""

    kind: Literal["int", "list", "struct", "unknown"]
    item: Type | None = None
    fields: Mapping[str, Entry] = field(default_factory=dict)
    what: str = ""


INT = Type("int")
UNKNOWN = Type("unknown")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One name: its type, the revisions that have it (None: all), what it needs, and whether it is ambiguous."""

    type: Type = INT
    revisions: frozenset[str] | None = None
    needs: frozenset[str] = frozenset()
    enums: tuple[str, ...] = ()


def layout_type(layout: Layout) -> Type:
    """Return the type of a word or element with this layout."""
    return Type("struct", fields=entries(layout.fields), what=f"layout `{layout.name}`")


def message_type(message: Message, role: str) -> Type:
    """Return the type of ``request`` or ``response``."""
    return Type("struct", fields=entries(message.fields), what=f"the {role} (message `{message.name}`)")


def field_type(item: Field) -> Type:
    """Return the type of a field's value."""
    if item.is_list:
        return Type("list", item=layout_type(item.items) if item.items else INT)
    return layout_type(item.word) if item.word else INT


def entries(fields: Mapping[str, Field]) -> dict[str, Entry]:
    """Return the fields of a message or layout as names."""
    return {
        name: Entry(
            type=field_type(item),
            revisions=None if item.guard.revisions is None else frozenset(item.guard.revisions),
        )
        for name, item in fields.items()
    }


def handle_entries(handles: Handles) -> dict[str, Entry]:
    """Return the names that a call knows which uses a handle."""
    numbers = Type("struct", fields={name: Entry() for name in handles.keep}, what="what is kept under a handle")
    return {
        "gathered": Entry(type=Type("list", item=layout_type(handles.items))),
        "kept": Entry(type=numbers),
        **{name: Entry() for name in ("parts", "complete", "handles", "held")},
    }


def static_entries(context: Context, transports: Iterable[Transport] = ()) -> dict[str, Entry]:
    """Return constants, config, enum values, states and the limits that all of the transports have."""
    abi = context.abi
    found: dict[str, Entry] = {name: Entry() for name in STATE_NUMBERS}
    values: dict[str, list[tuple[Enum, int, tuple[str, ...] | None]]] = {}
    for enum in abi.enums.values():
        found[ident(enum.name)] = Entry(
            type=Type(
                "struct",
                fields={v.name: Entry(revisions=_set(v.guard.revisions)) for v in enum.values.values()},
                what=f"enum `{enum.name}`",
            )
        )
        for value in enum.values.values():
            values.setdefault(value.name, []).append((enum, value.value, value.guard.revisions))
    for name, uses in values.items():
        clash = len({number for _, number, _ in uses}) > 1
        found[name] = Entry(
            revisions=_set(uses[0][2]) if len(uses) == 1 else None,
            enums=tuple(ident(enum.name) for enum, _, _ in uses) if clash else (),
        )
    found.update((name, Entry()) for name in (*abi.constants, *abi.config))
    limits = [set(transport.limits) for transport in transports]
    if limits:
        found.update((name, Entry()) for name in set.intersection(*limits))
    return found


def _set(revisions: tuple[str, ...] | None) -> frozenset[str] | None:
    return None if revisions is None else frozenset(revisions)


@dataclass(slots=True, kw_only=True)
class NameScope:
    """The names of one place, weakest first overwritten by stronger."""

    context: Context
    entries: Mapping[str, Entry]
    revisions: tuple[str, ...]
    elsewhere: Mapping[str, str] = field(default_factory=lambda: WHERE)

    def with_names(self, more: Mapping[str, Entry], *, revisions: tuple[str, ...] | None = None) -> NameScope:
        """Return a scope with stronger names added, for fewer revisions where given."""
        return NameScope(
            context=self.context,
            entries={**self.entries, **more},
            revisions=self.revisions if revisions is None else revisions,
            elsewhere=self.elsewhere,
        )

    def check(self, pointer: Pointer) -> Type:
        """Check the expression at a place of the file and return its type."""
        expr = self.context.exprs.get(pointer)
        if expr is None:
            return UNKNOWN
        return Checker(self, pointer).type_of(expr)

    def check_int(self, pointer: Pointer) -> None:
        """Check an expression that must give a number or a truth value."""
        expr = self.context.exprs.get(pointer)
        if expr is not None:
            Checker(self, pointer).number(expr)


class Checker:
    """Checks one expression; every finding points at the name at fault."""

    def __init__(self, scope: NameScope, pointer: Pointer) -> None:
        self.scope = scope
        self.pointer = pointer
        self.bound: dict[str, Type] = {}

    def type_of(self, expr: Expr) -> Type:
        """Return the type of an expression, `UNKNOWN` after a finding."""
        match expr:
            case Int() | Truth():
                return INT
            case Name(name):
                return self._name(expr, name)
            case Attr(base, name):
                return self._attr(expr, base, name)
            case Index(base, index):
                self.number(index)
                return self._items(base)
            case ListLiteral(items):
                for each in items:
                    self.number(each)
                return Type("list", item=INT)
            case Unary(_, operand):
                self.number(operand)
            case Binary(_, left, right) | Compare(_, left, right) | Bool(_, left, right):
                self.number(left)
                self.number(right)
            case In(item, source):
                self.number(item)
                self._items(source)
            case Call(_, args):
                if len(args) > 1:
                    for arg in args:
                        self.number(arg)
                else:
                    self._items(args[0])
            case Comprehension(_, body, variable, source):
                outer = self.bound
                self.bound = {**outer, variable: self._items(source)}
                self.number(body)
                self.bound = outer
        return INT

    def number(self, expr: Expr) -> None:
        """Check an expression that must be a number."""
        kind = self.type_of(expr)
        if kind.kind in {"list", "struct"}:
            hint = f"it has {', '.join(list(kind.fields)[:8])}" if kind.fields else "use len(…) or an index"
            what = f"{kind.what} is no number" if kind.what else "a list is no number"
            self._error(expr, "expr-type", f"`{to_text(expr)[:60]}`: {what}", hint)

    def _items(self, expr: Expr) -> Type:
        kind = self.type_of(expr)
        if kind.kind == "unknown":
            return UNKNOWN
        if kind.kind != "list" or kind.item is None:
            self._error(expr, "expr-type", f"`{to_text(expr)[:60]}` is no list")
            return UNKNOWN
        return kind.item

    def _name(self, expr: Expr, name: str) -> Type:
        if name in self.bound:
            return self.bound[name]
        entry = self.scope.entries.get(name)
        self.scope.context.used.add(name)
        if entry is None:
            self._unknown(expr, name)
            return UNKNOWN
        if entry.enums:
            choices = " or ".join(f"`{enum}.{name}`" for enum in entry.enums)
            self._error(expr, "expr-ambiguous-name", f"`{name}` has different values", f"write {choices}")
            return UNKNOWN
        self._in_revisions(expr, name, entry)
        for need in sorted(entry.needs):
            if need not in self.scope.entries:
                known = self.scope.elsewhere.get(need)
                where = f", which is known {known} only" if known else ", which is not known here"
                self._error(expr, "expr-unknown-name", f"`{name}` needs `{need}`{where}")
                return UNKNOWN
        return entry.type

    def _attr(self, expr: Expr, base: Expr, name: str) -> Type:
        kind = self.type_of(base)
        if kind.kind == "unknown":
            return UNKNOWN
        if kind.kind != "struct":
            text = to_text(base)[:60]
            hint = None
            if isinstance(base, Name) and any(ident(enum) == base.name for enum in self.scope.context.abi.enums):
                hint = f"`{base.name}` is a field here and not the enum; write `{name}`"
            self._error(expr, "expr-unknown-field", f"`{text}` is a {_plain(kind)} and has no fields", hint)
            return UNKNOWN
        entry = kind.fields.get(name)
        if entry is None:
            self._error(expr, "expr-unknown-field", f"{kind.what} has no `{name}`", near(name, kind.fields), name=name)
            return UNKNOWN
        if kind.what.startswith("enum"):
            self.scope.context.used.add(name)
        self._in_revisions(expr, name, entry)
        return entry.type

    def _in_revisions(self, expr: Expr, name: str, entry: Entry) -> None:
        if entry.revisions is None:
            return
        missing = [revision for revision in self.scope.revisions if revision not in entry.revisions]
        if missing:
            self._error(
                expr,
                "expr-revision",
                f"`{name}` does not exist in revision {' and '.join(missing)}",
                "limit this to the revisions that have it",
            )

    def _unknown(self, expr: Expr, name: str) -> None:
        where = self.scope.elsewhere.get(name)
        hint = f"it is known {where} only" if where else near(name, self.scope.entries)
        if where is None and hint is not None and not hint.startswith("did"):
            hint = None
        self._error(expr, "expr-unknown-name", f"`{name}` is not known here", hint)

    def _error(self, expr: Expr, id_: str, message: str, hint: str | None = None, *, name: str | None = None) -> None:
        offset = expr.column - 1 if expr.column else None
        text = to_text(expr)
        if name is not None and offset is not None:
            offset += max(text.rfind(name), 0)
            text = name
        self.scope.context.report.error(self.pointer, id_, message, hint, offset=offset, length=min(len(text), 60))


def _plain(kind: Type) -> str:
    return "number" if kind.kind == "int" else "list"


def defined_entries(definitions: Mapping[str, Expr], known: Mapping[str, Entry]) -> dict[str, Entry]:
    """Return the names of ``define:``, each with what it needs of its place, through other definitions too.

    `known` are the names that every place of the call has; all others (`it`, fields of the response, `to`, …) are
    needs.
    """
    return {
        name: Entry(
            type=UNKNOWN if isinstance(expr, Name | Attr | Index | ListLiteral) else INT,
            needs=frozenset(_roots(name, definitions) - set(known) - set(definitions)),
        )
        for name, expr in definitions.items()
    }


def _roots(name: str, definitions: Mapping[str, Expr]) -> set[str]:
    """Return every name that a definition reads, directly or through others."""
    found: set[str] = set()
    todo, seen = [name], {name}
    while todo:
        for each in names(definitions[todo.pop()]):
            found.add(each)
            if each in definitions and each not in seen:
                seen.add(each)
                todo.append(each)
    return found
