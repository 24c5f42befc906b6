"""What the fuzz tests share: engines by revision, transport and profile, right requests, and numbers worth trying.

Nothing here knows an ABI: everything comes from the specification.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import product
from typing import TYPE_CHECKING, Any

from hvabi.abi.expr import Int, walk
from hvabi.abi.registry import bundled, load
from hvabi.abi.specification import SPEC_PROFILE
from hvabi.adapters.batch import plan
from hvabi.adapters.registry import guest_class, host_class
from hvabi.adapters.values import Injection
from hvabi.backend import PageState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hvabi.abi.calls import Call, Rule
    from hvabi.abi.codec import MessageCodec
    from hvabi.abi.registry import Spec
    from hvabi.adapters.host import Host
    from hvabi.adapters.values import HostAnswer

Memory = tuple[tuple[int, bytes], ...]
Ranges = tuple[tuple[int, int, PageState], ...]
Config = tuple[tuple[str, int], ...]

SCRATCH = (0x10, 0x14)
"""Pages where structures in memory lie."""
AREA = (0x200, 0x600)
"""Pages that requests convert before they are mutated."""
SHAPES = ((0x200, 1), (0x203, 3), (0x200, 16), (0x1FE, 70), (0x200, 512), (0x1FF, 1030))
"""First page and pages of the conversions that requests are made from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """One call to a host with all that bears on its answer: a reproducer, when printed."""

    combo: int
    call: str
    config: Config = ()
    regs: Mapping[str, int] = field(default_factory=dict)
    mem: Memory = ()
    cpl: int = 0
    enabled: bool = True
    slots: tuple[tuple[int, int], ...] | None = None
    before: Ranges = ()
    facts: tuple[tuple[str, int, int], ...] = ()
    inject: Injection = field(default_factory=Injection)
    max_ranges: int | None = None
    exits: bool = False

    def shown(self) -> str:
        """Return the input as Python without bytes of 0 in memory: a reproducer for people."""
        mem = tuple(
            (address + run.start(), run.group())
            for address, data in self.mem
            for run in re.finditer(rb"[^\0](?:\0{0,7}[^\0])*", data)
        )
        return repr(replace(self, mem=mem))


class Combo:
    """One ABI as one revision under one profile on one transport."""

    def __init__(self, spec: Spec, transport: str) -> None:
        self.spec = spec
        self.abi = spec.abi
        self.transport = spec.transport(transport)
        self.calls = {n: c for n, c in self.abi.calls.items() if c.request in self.transport.placements}
        self.configs = _configs(spec)
        self._codecs: dict[tuple[str, Config], MessageCodec] = {}
        self._hosts: dict[tuple[Config, bool], Host] = {}
        self._bases: dict[tuple[str, Config, int, PageState], dict[str, Any] | None] = {}

    def __str__(self) -> str:
        return f"{self.spec.id}@{self.abi.revision} {self.transport.name} {self.abi.profile} {dict(self.abi.chosen)}"

    def codec(self, message: str, config: Config) -> MessageCodec:
        """Return the codec of a message, made once."""
        key = (message, config)
        if key not in self._codecs:
            self._codecs[key] = self.spec.message(message, transport=self.transport.name, config=dict(config))
        return self._codecs[key]

    def host(self, config: Config, *, enabled: bool) -> Host:
        """Return a host, made once; its backend and memory are the caller's to replace."""
        key = (config, enabled)
        if key not in self._hosts:
            self._hosts[key] = host_class(self.spec.id)(
                self.spec, transport=self.transport.name, config=dict(config), enabled=enabled
            )
        return self._hosts[key]

    def rules(self) -> list[Rule]:
        """Return the rules that a host may answer by here."""
        return [
            rule
            for call in self.calls.values()
            for rule in call.rules
            if rule.binds == "host"
            and rule.on == "request"
            and rule.guard.serves(self.transport.name)
            and (rule.level != "observed" or self.abi.profile != SPEC_PROFILE)
        ]

    def base(self, call: Call, config: Config, shape: int, to: PageState) -> dict[str, Any] | None:
        """Return the fields of a right request, None where the ABI has none of this shape."""
        key = (call.name, config, shape, to)
        if key not in self._bases:
            self._bases[key] = self._make_base(call, config, shape, to)
        return self._bases[key]

    def _make_base(self, call: Call, config: Config, shape: int, to: PageState) -> dict[str, Any] | None:
        # A call that goes on with a handle has nothing right to ask for by itself.
        if call.guest is None or (call.handle is not None and call.handle.of is not None):
            codec = self.codec(call.request, config)
            wanted = [n for n, f in codec.message.fields.items() if f.const is f.default is None and not f.is_list]
            given = {n: 0x200000 for n in wanted if codec.message.fields[n].bits >= 32}
            given.update({n: 0 for n in wanted if n not in given})
            return fields_of(codec.complete(given))
        guest = guest_class(self.spec.id)(
            self.spec, transport=self.transport.name, config=dict(config), scratch=SCRATCH, call=call.name
        )
        start, pages = SHAPES[shape]
        codec_scope = guest.scope()
        granule = codec_scope.int(call.guest.granule) // 4096 if call.guest.granule is not None else 1
        start, pages = start // granule * granule, -(-pages // granule) * granule
        if not guest.can_name(start << 12, pages, to):
            return None
        return fields_of(next(plan(guest, start, pages, to)).request)


def _configs(spec: Spec) -> list[Config]:
    """Return every configuration of choices and bounds, the default first; each key alone where they are many."""
    default = tuple(sorted(spec.config().items()))
    options = {
        key.name: tuple(key.choices) or tuple(n for n in (key.minimum, key.default, key.maximum) if n is not None)
        for key in spec.abi.config.values()
    }
    every = [tuple(sorted(zip(options, values, strict=True))) for values in product(*options.values())]
    if len(every) > 24:
        every = [
            tuple(sorted({**dict(default), name: value}.items()))
            for name, values in options.items()
            for value in values
        ]
    return list(dict.fromkeys([default, *every]))


@cache
def combos(abi: str) -> tuple[Combo, ...]:
    """Return every revision, profile and transport; and for rules under no profile, policies that switch them on."""
    whole = bundled(abi)
    found = [
        Combo(spec, transport)
        for revision in whole.revisions
        for profile in (SPEC_PROFILE, *whole.profiles)
        for spec in (load(abi, revision=revision, profile=profile),)
        for transport in spec.abi.transports
    ]
    reached = {rule.id for combo in found for rule in combo.rules()}
    for call in whole.calls.values():
        for rule in call.rules:
            if rule.binds == "host" and rule.id not in reached:
                profile = next(iter(whole.profiles), SPEC_PROFILE)
                spec = load(abi, profile=profile, policies=rule.guard.policy)
                more = [Combo(spec, transport) for transport in spec.abi.transports]
                found += [combo for combo in more if rule.id in {r.id for r in combo.rules()}][:1]
    return tuple(found)


def mending(combo: Combo, answer: HostAnswer) -> Rule | None:
    """Return the rule for which a host replays a call, having seen to it that it is kept the next time, or None."""
    if answer.end != "replay" or answer.rule is None:
        return None
    rule = next(rule for call in combo.calls.values() for rule in call.rules if rule.id == answer.rule)
    return rule if rule.check == "fact" else None


def host_rules(abi: str) -> set[str]:
    """Return the ids of all rules of an ABI that a host answers by."""
    return {r.id for c in bundled(abi).calls.values() for r in c.rules if r.binds == "host" and r.on == "request"}


def fields_of(value: Any) -> dict[str, Any]:
    """Return the fields of a decoded message, open."""
    return {name: opened(item) for name, item in zip(value._fields, value, strict=True)}


def opened(value: Any) -> Any:
    """Return a decoded value as mappings, tuples and plain integers."""
    if hasattr(value, "_fields"):
        return {name: opened(item) for name, item in zip(value._fields, value, strict=True)}
    return tuple(opened(part) for part in value) if isinstance(value, tuple) else int(value)


@cache
def numbers_of(abi: str) -> tuple[int, ...]:
    """Return numbers that the specification names, and their neighbours."""
    whole = bundled(abi)
    found = {constant.value for constant in whole.constants.values()}
    found |= {value.value for enum in whole.enums.values() for value in enum.values.values()}
    found |= {limit.value for transport in whole.transports.values() for limit in transport.limits.values()}
    for key in whole.config.values():
        found |= {*key.choices, key.default, key.minimum or 0, key.maximum or 0}
    for call in whole.calls.values():
        for rule in call.rules:
            exprs = [expr for group in (*rule.operands.values(), rule.tries) for expr in group]
            found |= {node.value for expr in exprs for node in walk(expr) if isinstance(node, Int)}
    near = {number + step for number in found for step in (-1, 0, 1)}
    powers = {1 << n for n in found if 0 <= n <= 64}
    return tuple(sorted(near | powers | {n - 1 for n in powers}))
