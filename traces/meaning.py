"""What the fields of a traced call mean: the specification's own conversion and its rules for the guest."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from hvabi.abi.errors import UsageError
from hvabi.abi.registry import load
from hvabi.abi.scope import Fields, Scope, static_names
from hvabi.adapters.checks import Context, element_enums, keeps
from hvabi.adapters.work import direction
from hvabi.backend import Status

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hvabi.backend import PageState

_CACHE = 1 << 13
"""Calls whose meaning is kept: guests convert the same pages over and over."""


class Meant(NamedTuple):
    """`pages` of 4 KiB from the byte address `gpa` on, and the rest as in `hvabi.traces.event.TraceEvent`."""

    gpa: int
    pages: int
    to: PageState | None
    refused: Status | None
    broken: tuple[str, ...]


class Meaning:
    """Turns the fields of one request of an ABI into a conversion.

    Only for ABIs whose request names one range in its own fields; `config` as for `hvabi.abi.registry.Spec`.

    Raises:
        UsageError: ``unknown-abi`` and ``unknown-revision``; ``no-conversion`` for an ABI that converts nothing, or
            several ranges at once.

    """

    def __init__(self, abi: str, *, revision: str | None = None, config: Mapping[str, int] | None = None) -> None:
        spec = load(abi, revision=revision)
        call = spec.abi.convert_call
        if call is None or call.convert is None or call.convert.each is not None:
            raise UsageError(f"{abi} has no call that converts one range", code="no-conversion", abi=abi)
        message = spec.abi.messages[call.request]
        self.abi = abi
        self.widths = {name: field.bits for name, field in message.fields.items()}
        self._static = static_names(spec.abi, spec.transport(), spec.config(config))
        self._define = {name: item.expr for name, item in call.define.items()}
        self._convert = call.convert
        self._guest_rules = tuple(rule for rule in call.rules if rule.binds == "guest" and rule.on == "request")
        self._host_rules = tuple(rule for rule in call.rules if rule.binds == "host" and rule.scope == "call")
        self._context = Context(
            backend=None,
            readable=lambda _: True,
            selected=lambda _: True,
            message=message,
            element=element_enums(message, None),
        )
        self._known = lru_cache(maxsize=_CACHE)(self._work_out)

    def fits(self, **fields: int) -> bool:
        """Tell whether each value fits into its field."""
        return all(0 <= value < 1 << self.widths[name] for name, value in fields.items())

    def of(self, **fields: int) -> Meant:
        """Return what a request with these fields asks for. Every field that the conversion reads must be there."""
        return self._known(tuple(sorted(fields.items())))

    def _work_out(self, fields: tuple[tuple[str, int], ...]) -> Meant:
        values = dict(fields)
        scope = Scope(
            self._static,
            define=self._define,
            request=Fields(values, values.__getitem__),
            local={"cpl": 0, "enabled": 1},
        )
        broken = [rule.id for rule in self._guest_rules if not keeps(rule, scope, self._context)]
        first = next((rule for rule in self._host_rules if not keeps(rule, scope, self._context)), None)
        refused = None
        if first is not None and first.means != Status.DONE:
            refused = Status(first.means or Status.INVALID)
            broken.append(first.id)
        return Meant(
            scope.int(self._convert.start),
            max(scope.int(self._convert.pages), 0),
            direction(self._convert.to, scope),
            refused,
            tuple(broken),
        )
