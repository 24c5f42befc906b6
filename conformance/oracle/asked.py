"""One request under one set of policies: its names, and which rules it breaks."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any

from hvabi.abi.model import BlockPlace, PairPlace, RegisterPlace
from hvabi.abi.specification import SPEC_PROFILE
from hvabi.abi.values import by_identity
from hvabi.conformance.case import Held
from hvabi.conformance.oracle.checks import holds
from hvabi.conformance.oracle.held import names_of
from hvabi.conformance.oracle.pages import FactSet, PageSet, inside
from hvabi.conformance.oracle.walk import Names, PartlyRead, Read, Undefined, Unread, value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hvabi.abi.calls import Call, Rule
    from hvabi.abi.expr import Expr
    from hvabi.abi.model import Message, Transport
    from hvabi.abi.specification import Abi
    from hvabi.conformance.case import Expected, Inject, Pages, Ranges, Setup

PAGE = 4096
_OF_STATE = ("in-state", "fact")
"""Checks that look at what work changes."""


class Shared:
    """What is the same for a request under several sets of policies: they differ in rules and answers only.

    `names` are those of the request as placed, the blocks that nobody can read, and the names as they can be read.
    `broken` has whether a rule is broken, by the rule's identity and the position of the element. Rules about state
    are not among them: the state depends on what was done before. `refused` has the answers of rules that are broken
    before anything is done, by the identity of the rule.
    """

    def __init__(self) -> None:
        self.names: tuple[Names, frozenset[str], Names] | None = None
        self.broken: dict[tuple[int, int | None], bool] = {}
        self.elements: tuple[int, list[tuple[int, Any, Names]]] | None = None
        self.wanted: list[tuple[int, int, str | None, bool]] | None = None
        self.refused: dict[int, Expected] = {}

    def of_request(self) -> Shared:
        """Return what is the same for the request whatever the state of the pages is."""
        shared = copy(self)
        shared.refused = {}
        return shared


class Asked:
    """One request under one set of policies."""

    def __init__(
        self,
        setup: Setup,
        transport: str,
        abi: Abi,
        call: str | None,
        fields: Mapping[str, Any],
        cpl: int,
        inject: Inject | None,
        before: Ranges,
        facts: Mapping[str, Pages],
        regs: Mapping[str, int] | None,
        held: Held | None = None,
        shared: Shared | None = None,
    ) -> None:
        self.setup = setup
        self.abi = abi
        self.transport: Transport = abi.transports[transport]
        self.call: Call = abi.calls[call] if call else abi.convert_call or next(iter(abi.calls.values()))
        self.message = abi.messages[self.call.request]
        self.placement = self.transport.placements[self.call.request]
        self.memory = setup.memory
        self.inject = inject
        self.regs = regs
        self.pages = PageSet(before)
        self.facts = FactSet(facts)
        self.each = self.call.each
        config = dict(_defaults(abi))
        if abi.profile != SPEC_PROFILE:
            config.update(abi.profiles[abi.profile].config)
        config.update(setup.config)
        self.config = config
        self.held = held or Held()
        self.shared = shared or Shared()
        if self.shared.names is None:
            self.placed = Names(
                abi,
                self.transport,
                config,
                _definitions(self.call),
                dict(fields),
                {"cpl": cpl if self.transport.shows_cpl else 0, "enabled": int(setup.enabled)},
            )
            self.names = self.placed
            self.placed = self._with_handle()
            self._lost = frozenset(name for name in self.placement.blocks if not self._is_memory(name))
            unread = frozenset(name for name in fields if self._lies_in(name) in self._lost)
            self.names = self.names.with_fields(PartlyRead(fields, unread) if unread else Read(fields))
            self.shared.names = self.placed, self._lost, self._with_handle()
        self.placed, self._lost, self.names = self.shared.names
        self.done = 0
        self.part = 0
        self.index = 0
        self.errno = 0
        self.to: str | None = None
        self.marks: list[tuple[int, dict[str, int]]] = []

    def _with_handle(self) -> Names:
        """Return the names with those of what is kept under the handle that the call is about."""
        return self.names if self.call.handle is None else names_of(self, self.call.handle)

    # -- what rules ask -----------------------------------------------------------------------------------------

    def is_selected(self, named: set[str]) -> bool:
        """Whether the constants (those named, or all that lie in registers) and fixed registers match."""
        for name, const in _constants(self.message):
            if named and name not in named:
                continue
            place = self.placement.place.get(name, (None,))[0]
            if place is None or not (named or isinstance(place, RegisterPlace)):
                continue
            if self.names.fields[name] != value(const, self.names):
                return False
        if named or self.regs is None:
            return True
        for path, expr in self.placement.parts.items():
            name, _, part = path.partition(".")
            place = self.placement.place.get(name, (None,))[0]
            if isinstance(place, RegisterPlace | PairPlace) and self._part(name, part) != value(expr, self.names):
                return False
        return all(
            self.regs.get(register, 0) == value(expr, self.names) for register, expr in self.placement.fixed.items()
        )

    def _part(self, name: str, part: str) -> int:
        word = self.names.fields[name]
        return int(word[part] if isinstance(word, dict) else getattr(word, part))

    def is_readable(self, name: str) -> bool:
        """Whether every byte of a block is memory. Raises `Unread` where nobody can know its address."""
        at = self.placement.blocks[name].at if name in self._lost else None
        if at is not None:
            value(at, self.names)
        return name not in self._lost

    def is_memory(self, start: int, size: int) -> bool:
        """Whether every byte of an area is memory."""
        if start < 0 or start + size > 1 << 64 or size > 1 << 20:
            return False
        return inside(self.memory, start // PAGE, -(-(start + size) // PAGE) if size else start // PAGE)

    def is_writable(self, start: int, size: int) -> bool:
        """Whether an answer can be written to an area; what is no guest memory, such as a run page, has no holes."""
        placements = self.transport.placements.values()
        own_space = any(block.space is not None for placement in placements for block in placement.blocks.values())
        return own_space or self.is_memory(start, size)

    def _is_memory(self, name: str) -> bool:
        """Whether a block of the request lies in memory, by the bytes that were placed, wherever they were."""
        block = self.placement.blocks[name]
        if block.at is None or block.space is not None:
            return True
        try:
            return self.is_memory(value(block.at, self.names), max(value(block.size, self.names), 0))
        except Undefined:
            return True

    def _lies_in(self, name: str) -> str | None:
        """Return the block that a field of the request lies in."""
        place = self.placement.place.get(name, (None,))[0]
        return place.block if isinstance(place, BlockPlace) else None

    def _rules(self, scope: str) -> tuple[Rule, ...]:
        """Return the rules of a scope that the host is held to."""
        return _held(self.call)[self.transport.name, scope, self.abi.profile]

    def _first_broken(self, names: Names, element: int) -> Rule | None:
        """Return the first rule about elements that one of them breaks."""
        for rule in self._rules("element"):
            if self._breaks(rule, names, element):
                return rule
        return None

    def _breaks(self, rule: Rule, names: Names, element: int | None = None) -> bool:
        if rule.check in _OF_STATE:
            return self._breaks_now(rule, names)
        known, key = self.shared.broken, (id(rule), element)
        broken = known.get(key)
        if broken is None:
            broken = known[key] = self._breaks_now(rule, names)
        return broken

    def _breaks_now(self, rule: Rule, names: Names) -> bool:
        kept = self.names
        self.names = names
        try:
            return not holds(rule, self)
        except Unread:
            raise
        except Undefined:
            return False
        finally:
            self.names = kept

    def broken(self) -> list[str]:
        """Return the ids of all rules of the whole call that the request breaks, in the order of the specification.

        Bytes count as they were placed, also where nobody can read them.
        """
        return [rule.id for rule in self._rules("call") if self._breaks_now(rule, self.placed)]

    def _faults(self) -> list[Rule | None]:
        """Return the rules of the whole call that are broken, in order; None stands for those that cannot be judged."""
        found: list[Rule | None] = []
        for rule in self._rules("call"):
            try:
                if self._breaks(rule, self.names):
                    found.append(rule)
            except Unread:
                found += [None] if None not in found else []
        return found

    def _missed(self) -> Rule | None:
        """Return the rule by which a request is refused that cannot be read, None where there is none."""
        rules = [rule for rule in self._rules("call") if rule.check == "readable"]
        return next((rule for rule in rules if rule.words["of"] in self._lost), next(iter(rules), None))


class _Held(dict[tuple[str, str, str], "tuple[Rule, ...]"]):
    """The rules of a call that a host is held to, by transport, scope and profile; found once."""

    def __init__(self, call: Call) -> None:
        super().__init__()
        self._call = call

    def __missing__(self, key: tuple[str, str, str]) -> tuple[Rule, ...]:
        transport, scope, profile = key
        found = self[key] = tuple(
            rule
            for rule in self._call.rules
            if rule.binds == "host"
            and rule.on == "request"
            and rule.scope == scope
            and (rule.level != "observed" or profile != SPEC_PROFILE)
            and (rule.guard.transports is None or transport in rule.guard.transports)
        )
        return found


@by_identity
def _defaults(abi: Abi) -> dict[str, int]:
    """Return the configuration where nothing else is said."""
    return {key.name: key.default for key in abi.config.values()}


@by_identity
def _definitions(call: Call) -> dict[str, Expr]:
    """Return what a call's own names stand for."""
    return {name: item.expr for name, item in call.define.items()}


@by_identity
def _constants(message: Message) -> tuple[tuple[str, Expr], ...]:
    """Return the fields of a message that are constant, with what they are."""
    return tuple((name, field.const) for name, field in message.fields.items() if field.const is not None)


@by_identity
def _held(call: Call) -> _Held:
    return _Held(call)
