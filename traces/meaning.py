"""What the fields of a traced call mean: the specification's own conversion and its rules."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from hvabi.abi.codec import LayoutCodec
from hvabi.abi.errors import UsageError
from hvabi.abi.expr import Name, evaluate
from hvabi.abi.expr_nodes import children
from hvabi.abi.registry import Spec, load
from hvabi.abi.scope import Scope, state_number
from hvabi.adapters.checks import Context, element_enums, keeps
from hvabi.adapters.work import direction
from hvabi.backend import Status
from hvabi.traces.event import Reading

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hvabi.abi.calls import Call, Rule
    from hvabi.abi.expr import Expr
    from hvabi.backend import PageState

_CACHE = 1 << 13
"""Calls whose meaning is kept: guests convert the same pages over and over."""

_FEW = 64
"""Values of fields for which a rule remembers what it said: an attribute has few, an address has many."""

_BINDING = ("must", "should")


class _Names(dict[str, Any]):
    """What a name means in the expressions about one call: a `Scope` for a message whose fields are all at hand.

    Logs have millions of calls, and a scope that reads its fields from bytes takes much longer.
    """

    __slots__ = ("_meaning",)

    def __init__(self, meaning: Meaning) -> None:
        super().__init__(cpl=0, enabled=1)
        self._meaning = meaning

    def __missing__(self, name: str) -> Any:
        value = self[name] = self._meaning.missing(name, self)
        return value

    def int(self, expr: Expr) -> int:
        """Evaluate an expression to an integer."""
        return evaluate(expr, self, "int")

    def true(self, expr: Expr) -> bool:
        """Evaluate an expression to a truth value."""
        return evaluate(expr, self, "bool")


class _Check:
    """A rule, and what it said for the values of the fields that it looks at, as long as these are few."""

    def __init__(self, rule: Rule, fields: tuple[str, ...] | None) -> None:
        self.rule = rule
        self._fields = fields or ()
        self._known: dict[tuple[int | None, ...], bool] | None = {} if fields is not None else None

    def holds(self, values: Mapping[str, int], scope: Scope, context: Context) -> bool:
        """Tell whether a call with these fields keeps the rule."""
        if self._known is None:
            return keeps(self.rule, scope, context)
        key = tuple(map(values.get, self._fields))
        kept = self._known.get(key)
        if kept is None:
            kept = keeps(self.rule, scope, context)
            self._known[key] = kept
            if len(self._known) > _FEW:
                self._known = None
        return kept


class Meaning:
    """Turns the fields of one request of an ABI into a conversion.

    Only for ABIs whose request names one range in its own fields; `config` as for `hvabi.abi.registry.Spec`. A field
    that a trace does not show has its default.

    Raises:
        UsageError: ``unknown-abi``, ``unknown-revision`` and ``unknown-transport``; ``no-conversion`` for an ABI that
            converts nothing, or several ranges at once.

    """

    def __init__(
        self,
        abi: str,
        *,
        revision: str | None = None,
        transport: str | None = None,
        call: str | None = None,
        config: Mapping[str, int] | None = None,
    ) -> None:
        spec = load(abi, revision=revision)
        self._call = self._chosen(spec, call)
        self.abi = abi
        self._spec = spec
        place = spec.transport(transport)
        codec = spec.message(self._call.request, transport=place.name, config=config)
        message = codec.message
        self._default = codec.placer.default
        self._message = message
        self.widths = {name: field.bits for name, field in message.fields.items()}
        self._words = {name: LayoutCodec(field.word) for name, field in message.fields.items() if field.word}
        self._static = spec.names(place, spec.config(config))
        self._define = {name: item.expr for name, item in self._call.define.items()}
        assert self._call.convert is not None  # or it had not been chosen
        self._convert = self._call.convert
        guest = [rule for rule in self._rules("guest", place.name) if rule.level in _BINDING]
        self._guest_rules = [_Check(rule, self._looks_at(rule)) for rule in guest]
        host = [rule for rule in self._rules("host", place.name) if rule.scope == "call"]
        self._host_rules = [_Check(rule, self._looks_at(rule)) for rule in host]
        self._context = Context(
            backend=None,
            readable=lambda _: True,
            selected=lambda _: True,
            message=message,
            element=element_enums(message, None),
        )
        self._known = lru_cache(maxsize=_CACHE)(self._work_out)

    @staticmethod
    def _chosen(spec: Spec, name: str | None) -> Call:
        found = spec.abi.convert_call if name is None else spec.abi.calls[name]
        if found is None or found.convert is None or found.convert.each is not None or found.convert.bits is not None:
            raise UsageError(f"{spec.id} has no call that converts one range", code="no-conversion", abi=spec.id)
        return found

    def _rules(self, binds: str, transport: str) -> list[Rule]:
        rules = self._call.rules
        return [r for r in rules if r.binds == binds and r.on == "request" and r.guard.serves(transport)]

    def _looks_at(self, rule: Rule) -> tuple[str, ...] | None:
        """Return the fields on which a rule depends, or None where that is not plain."""
        found: set[str] = set()
        left = [expr for group in rule.operands.values() for expr in group]
        left += [rule.when] if rule.when is not None else []
        while left:
            expr = left.pop()
            left += children(expr)
            if isinstance(expr, Name):
                if expr.name in self._define:
                    left.append(self._define[expr.name])
                elif expr.name == "request":
                    return None
                elif expr.name in self._message.fields:
                    found.add(expr.name)
        return tuple(sorted(found))

    def fits(self, **fields: int) -> bool:
        """Tell whether each value fits into its field."""
        return all(0 <= value < 1 << self.widths[name] for name, value in fields.items())

    def of(self, **fields: int) -> Reading:
        """Return what a request with these fields asks for; words with bit fields are given as numbers."""
        return self._known(tuple(sorted(fields.items())))

    def asking(self, gpa: int, pages: int, to: PageState) -> dict[str, int]:
        """Return the fields with which a guest asks for pages, as numbers, by the specification's own `guest` part.

        Raises:
            UsageError: ``no-guest`` where the specification does not say how.

        """
        guest = self._call.guest
        if guest is None:
            raise UsageError(f"{self.abi} does not say how a guest asks", code="no-guest", abi=self.abi)
        scope = Scope(
            self._static,
            define=self._define,
            local={"start": gpa, "pages": pages, "to": state_number(to.value), "scratch": 0, "attempt": 0},
        )
        return {name: scope.int(expr) for name, expr in guest.request.items() if "." not in name}

    def _scope(self, values: Mapping[str, int]) -> Scope:
        names = _Names(self)
        for name, value in values.items():
            word = self._words.get(name)
            names[name] = value if word is None else word.decode(value.to_bytes(word.size, word.layout.endian))
        names["request"] = names
        return cast("Scope", names)

    def missing(self, name: str, names: _Names) -> Any:
        """Return the value of a name of an expression that is no field that was given."""
        if name in self._define:
            return evaluate(self._define[name], names)
        if name in self._message.fields:
            return self._default(self._message.fields[name], cast("Scope", names))
        return self._static[name]

    def _work_out(self, fields: tuple[tuple[str, int], ...]) -> Reading:
        values = dict(fields)
        scope = self._scope(values)
        context = self._context
        broken = [check.rule.id for check in self._guest_rules if not check.holds(values, scope, context)]
        first = next((check.rule for check in self._host_rules if not check.holds(values, scope, context)), None)
        refused = None
        if first is not None and first.means != Status.DONE:
            refused = Status(first.means or Status.INVALID)
            broken.append(first.id)
        return Reading(
            self.abi,
            scope.int(self._convert.start),
            max(scope.int(self._convert.pages), 0),
            direction(self._convert.to, scope),
            refused,
            tuple(broken),
        )
