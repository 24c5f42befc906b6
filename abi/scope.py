"""Names of expressions: what `it`, a field, a constant or a state means while one message is looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hvabi.abi.errors import CodecError
from hvabi.abi.expr import Expr, Int, compiled, evaluate
from hvabi.abi.values import by_identity, ident

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from hvabi.abi.calls import Call
    from hvabi.abi.model import Transport
    from hvabi.abi.specification import Abi

STATE_NUMBERS = {"private": 0, "shared": 1, "shared_read_only": 2}
"""Page states as expressions compare them."""


def state_number(state: str) -> int:
    """Return the number that stands for a page state in expressions."""
    return STATE_NUMBERS[ident(state)]


def enum_names(abi: Abi) -> dict[str, Any]:
    """Return every enum value by its name, where it means one number, and every enum as a mapping by its own name."""
    names: dict[str, Any] = {}
    clashing: set[str] = set()
    for enum in abi.enums.values():
        names.setdefault(ident(enum.name), {}).update({item.name: item.value for item in enum.values.values()})
        for item in enum.values.values():
            if names.get(item.name, item.value) != item.value:
                clashing.add(item.name)
            names.setdefault(item.name, item.value)
    return {name: value for name, value in names.items() if name not in clashing}


def static_names(abi: Abi, transport: Transport | None, config: Mapping[str, int]) -> dict[str, Any]:
    """Return the names that stay the same for a configured engine, weakest first overwritten by stronger."""
    names = {**_abi_names(abi), **config}
    if transport is not None:
        names.update((name, constant.value) for name, constant in transport.limits.items())
    return names


@by_identity
def _abi_names(abi: Abi) -> Mapping[str, Any]:
    names: dict[str, Any] = {**STATE_NUMBERS, **enum_names(abi)}
    names.update((name, constant.value) for name, constant in abi.constants.items())
    names.update((name, key.default) for name, key in abi.config.items())
    return names


@by_identity
def definitions(call: Call) -> Mapping[str, Expr]:
    """Return the names that a call defines for its expressions."""
    return {name: item.expr for name, item in call.define.items()}


class Fields:
    """A message's fields as attributes, each fetched when it is first asked for."""

    __slots__ = ("_fetch", "_fetching", "_known", "_names")

    def __init__(self, names: Iterable[str], fetch: Callable[[str], Any]) -> None:
        self._names: Collection[str] = names if isinstance(names, dict) else frozenset(names)
        self._fetch = fetch
        self._known: dict[str, Any] = {}
        self._fetching: set[str] = set()

    @property
    def names(self) -> frozenset[str]:
        """The names of all fields."""
        return frozenset(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __getitem__(self, name: str) -> Any:
        if name in self._known:
            return self._known[name]
        if name not in self._names:
            raise KeyError(name)
        if name in self._fetching:
            raise CodecError("missing-field", "depends on itself: a count and its list are both left out", path=name)
        self._fetching.add(name)
        try:
            value = self._known[name] = self._fetch(name)
        finally:
            self._fetching.discard(name)
        return value

    def __getattr__(self, name: str) -> Any:
        # Expressions reach fields by attribute (``response.status``) as well as by item.
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def put(self, name: str, value: Any) -> None:
        """Set a field that was worked out elsewhere."""
        self._known[name] = value

    @property
    def known(self) -> Mapping[str, Any]:
        """The fields fetched so far."""
        return self._known


class Scope:
    """An environment for expressions: locals, definitions, fields of request and response, static names.

    `more` are locals that are worked out only when they are asked for.
    Definitions are evaluated when they are asked for, and again after a change of the locals.
    """

    __slots__ = (
        "_define",
        "_defined",
        "_local",
        "_more",
        "_mores",
        "_request",
        "_requested",
        "_responded",
        "_response",
        "_static",
    )

    def __init__(
        self,
        static: Mapping[str, Any],
        *,
        define: Mapping[str, Expr] | None = None,
        request: Fields | None = None,
        response: Fields | None = None,
        local: Mapping[str, Any] | None = None,
        more: Fields | None = None,
    ) -> None:
        self._static = static
        self._more = more
        self._define = define or {}
        self._request = request
        self._response = response
        # A look into the names themselves, as this is done for every name of every expression.
        self._mores: Collection[str] = more._names if more is not None else ()
        self._requested: Collection[str] = request._names if request is not None else ()
        self._responded: Collection[str] = response._names if response is not None else ()
        self._local: dict[str, Any] = dict(local or {})
        self._defined: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name in self._local:
            return self._local[name]
        if self._more is not None and name in self._mores:
            return self._more[name]
        if name in self._define:
            if name not in self._defined:
                self._defined[name] = evaluate(self._define[name], self)
            return self._defined[name]
        if self._request is not None:
            if name in self._requested:
                return self._request[name]
            if name == "request":
                return self._request
        if self._response is not None:
            if name in self._responded:
                return self._response[name]
            if name == "response":
                return self._response
        return self._static[name]

    def with_locals(self, **local: Any) -> Scope:
        """Return a scope that knows these names too; earlier locals stay unless they have the same name."""
        scope = Scope(
            self._static, define=self._define, request=self._request, response=self._response, more=self._more
        )
        scope._local = {**self._local, **local}
        return scope

    def put(self, **local: Any) -> None:
        """Change locals, or add some."""
        self._local.update(local)
        self._defined.clear()

    def int(self, expr: Expr) -> int:
        """Evaluate an expression to an integer."""
        if type(expr) is Int:
            return expr.value
        return compiled(expr, "int")(self)

    def true(self, expr: Expr) -> bool:
        """Evaluate an expression to a truth value."""
        return compiled(expr, "bool")(self)
