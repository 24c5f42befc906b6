"""What the fields of a traced call mean: the specification's own conversion and its rules."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from hvabi.abi.codec import LayoutCodec
from hvabi.abi.errors import UsageError
from hvabi.abi.registry import Spec, load
from hvabi.abi.scope import Fields, Scope, state_number
from hvabi.adapters.checks import Context, element_enums, keeps
from hvabi.adapters.work import direction
from hvabi.backend import Status
from hvabi.traces.event import Reading

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hvabi.abi.calls import Call, Rule
    from hvabi.backend import PageState

_CACHE = 1 << 13
"""Calls whose meaning is kept: guests convert the same pages over and over."""

_BINDING = ("must", "should")


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
        self._guest_rules = [rule for rule in self._rules("guest", place.name) if rule.level in _BINDING]
        self._host_rules = [rule for rule in self._rules("host", place.name) if rule.scope == "call"]
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
        if found is None or found.convert is None or found.convert.each is not None:
            raise UsageError(f"{spec.id} has no call that converts one range", code="no-conversion", abi=spec.id)
        return found

    def _rules(self, binds: str, transport: str) -> list[Rule]:
        rules = self._call.rules
        return [r for r in rules if r.binds == binds and r.on == "request" and r.guard.serves(transport)]

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

    def name(self, name: str, **fields: int) -> int:
        """Return the value of a defined name or constant of the specification for a request with these fields."""
        found = self._scope(fields)[name]
        return int(found)

    def _scope(self, values: Mapping[str, int]) -> Scope:
        def fetch(name: str) -> Any:
            if name not in values:
                return self._default(self._message.fields[name], scope)
            word = self._words.get(name)
            if word is None:
                return values[name]
            return word.decode(values[name].to_bytes(word.size, word.layout.endian))

        scope = Scope(
            self._static,
            define=self._define,
            request=Fields(self._message.fields, fetch),
            local={"cpl": 0, "enabled": 1},
        )
        return scope

    def _work_out(self, fields: tuple[tuple[str, int], ...]) -> Reading:
        scope = self._scope(dict(fields))
        broken = [rule.id for rule in self._guest_rules if not keeps(rule, scope, self._context)]
        first = next((rule for rule in self._host_rules if not keeps(rule, scope, self._context)), None)
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
