"""One call of an ABI as looked at from outside: which fields an expression reads, what it comes to by default.

For tables and pages. Nothing here fails: what cannot be known without a request is None.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hvabi.abi.calls import GATHERED
from hvabi.abi.errors import CodecError, ExprError
from hvabi.abi.expr import Int, Name, names, paths
from hvabi.abi.scope import Fields, Scope, state_number, static_names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hvabi.abi.calls import Call
    from hvabi.abi.expr import Expr
    from hvabi.abi.model import Field, Layout, Message, Transport
    from hvabi.abi.specification import Abi

SCRATCH = 0x10000
"""Where a guest that is imagined keeps its structures."""


class Called:
    """A call of a resolved ABI."""

    def __init__(self, abi: Abi, call: Call) -> None:
        self.abi = abi
        self.call = call

    @property
    def request(self) -> Message:
        """The message of the request."""
        return self.abi.messages[self.call.request]

    @property
    def response(self) -> Message | None:
        """The message of the response, or None."""
        return self.abi.messages[self.call.response] if self.call.response is not None else None

    @property
    def transports(self) -> tuple[Transport, ...]:
        """The transports that carry the request."""
        return tuple(item for item in self.abi.transports.values() if self.call.request in item.placements)

    # -- fields -------------------------------------------------------------------------------------------------

    @property
    def elements(self) -> Layout | None:
        """The layout of the elements that the call goes through; None where these are numbers, or there are none."""
        each = self.call.each
        if each == GATHERED and self.abi.handles is not None:
            return self.abi.handles.items
        item = self.request.fields.get(each) if each is not None else None
        return item.items if item is not None else None

    def field(self, path: str) -> Field | None:
        """Return a field by its dotted path: of the request, with ``it`` of an element, else of the response."""
        first, _, rest = path.replace("[]", "").partition(".")
        about = self.call.convert or self.call.query
        if first == "it" and about is not None and about.each is not None:
            item = self.request.fields.get(about.each)
            layout = self.elements
            return layout.fields.get(rest.partition(".")[0]) if rest and layout is not None else item
        messages = [self.request] if self.response is None else [self.request, self.response]
        if first in ("request", "response") and rest:
            messages = messages[:1] if first == "request" else messages[1:]
            first, _, rest = rest.partition(".")
        for message in messages:
            if first in message.fields:
                return inner(message.fields[first], rest)
        return None

    def fields(self, expr: Expr) -> dict[str, Field]:
        """Return the fields that an expression reads, those behind defined names too, by their dotted paths."""
        found: dict[str, Field] = {}
        for path in self.paths(expr):
            item = self.field(path)
            if item is not None:
                found[path] = item
        return found

    def paths(self, expr: Expr) -> list[str]:
        """Return the dotted paths that an expression reads, defined names followed, in order of the alphabet."""
        found: set[str] = set()
        seen: set[str] = set()
        todo = [expr]
        while todo:
            for path in paths(todo.pop()):
                root = path.partition(".")[0].partition("[")[0]
                if root in self.call.define:
                    if root not in seen:
                        seen.add(root)
                        todo.append(self.call.define[root].expr)
                else:
                    found.add(path)
        return sorted(found)

    def shown(self, path: str) -> str:
        """Return a path as people write it: the element of a list by the name of the list."""
        about = self.call.convert or self.call.query
        root, _, rest = path.partition(".")
        if root == "it" and about is not None and about.each is not None:
            return f"{about.each}[].{rest}" if rest else f"{about.each}[]"
        return path

    # -- numbers ------------------------------------------------------------------------------------------------

    def static(self, transport: Transport | None) -> dict[str, Any]:
        """Return the names that need no message, the configuration at its default."""
        return static_names(self.abi, transport, {})

    def number(self, expr: Expr | None, transport: Transport | None = None, **local: int) -> int | None:
        """Return what an expression comes to for a guest that asks for as little as it can, or None."""
        if expr is None:
            return None
        scope: Scope
        guest = self.call.guest
        state = state_number(guest.states[0]) if guest and guest.states else 0
        known = {"scratch": SCRATCH, "scratch_pages": 16, "start": 0, "pages": 1, "count": 1, "attempt": 0,
                 "to": state, "cpl": 0, "enabled": 1, **local}  # fmt: skip

        def fetch(name: str) -> Any:
            if guest is not None and name in guest.request:
                return outside.int(guest.request[name])
            item = self.request.fields[name]
            if item.is_list:
                return ()
            own = item.const or item.default
            return scope.int(own) if own is not None else 0

        define = {key: item.expr for key, item in self.call.define.items()}
        static = self.static(transport)
        outside = Scope(static, define=define, local=known)
        # A field hides a run-time name: what is asked here is about the message.
        fields = Fields(self.request.fields, fetch)
        scope = Scope(static, define=define, request=fields,
                      local={key: value for key, value in known.items() if key not in fields})  # fmt: skip
        try:
            return scope.int(expr)
        except (ExprError, CodecError):
            return None

    def constant(self, expr: Expr) -> int | None:
        """Return the value of an expression that reads nothing but static names, or None."""
        if isinstance(expr, Int):
            return expr.value
        static = self.static(None)
        if not names(expr) <= static.keys() - self.abi.config.keys():
            return None
        try:
            return Scope(static).int(expr)
        except (ExprError, CodecError):
            return None

    def symbol(self, expr: Expr) -> tuple[str, int] | None:
        """Return name and value where an expression is the name of a constant or enum value."""
        if isinstance(expr, Name):
            value = self.static(None).get(expr.name)
            if isinstance(value, int) and expr.name not in self.abi.config:
                return expr.name, value
        return None


def inner(item: Field, path: str) -> Field:
    """Return a part of a word or element by its dotted path; the field itself where there is no such part."""
    for name in filter(None, path.split(".")):
        layout = item.word or item.items
        if layout is None or name not in layout.fields:
            return item
        item = layout.fields[name]
    return item


def calls_of(abi: Abi) -> Iterator[Called]:
    """Yield every call of a resolved ABI."""
    for call in abi.calls.values():
        yield Called(abi, call)


def main_calls(abi: Abi) -> tuple[Called, ...]:
    """Return the calls that change pages; where there is none, the first that asks, else the first of all.

    A call that only goes on with what another one began is none of them.
    """
    every = tuple(calls_of(abi))
    begin = [item for item in every if item.call.handle is None or item.call.handle.does != "continue"]
    changing = tuple(item for item in begin if item.call.convert is not None)
    asking = tuple(item for item in every if item.call.query is not None)
    return changing or asking[:1] or every[:1]
