"""A whole ABI as read from its file, and the form of it that one engine uses."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from hvabi.abi.errors import UsageError
from hvabi.abi.model import ALWAYS, Guard, Pointer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from hvabi.abi.calls import Call
    from hvabi.abi.expr import Expr
    from hvabi.abi.model import Block, Constant, Enum, Field, Layout, Message, Place, Placement, Transport

T = TypeVar("T")

SPEC_PROFILE = "spec"
"""The profile that every ABI has: what the specification itself says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A document or a piece of code that the file was written from."""

    name: str
    title: str
    revision: str
    url: str | None = None
    note: str | None = None
    pointer: Pointer = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """A version of the ABI within its file."""

    name: str
    doc: str
    default: bool
    pointer: Pointer = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigKey:
    """An integer that an engine is configured with: one of `choices`, or between `minimum` and `maximum`."""

    name: str
    doc: str
    default: int
    choices: tuple[int, ...] = ()
    minimum: int | None = None
    maximum: int | None = None
    pointer: Pointer = ()

    def accepts(self, value: int) -> bool:
        """Whether the value is allowed."""
        if self.choices:
            return value in self.choices
        return (self.minimum is None or value >= self.minimum) and (self.maximum is None or value <= self.maximum)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A legitimate difference. `open`: under the profile ``spec`` every value is right."""

    name: str
    doc: str
    values: Mapping[str, str]
    default: str
    open: bool
    pointer: Pointer = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A named set of policy values: one implementation in one version."""

    name: str
    doc: str
    source: str
    policies: Mapping[str, str]
    config: Mapping[str, int] = field(default_factory=dict)
    enabled: bool | None = None
    pointer: Pointer = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Handles:
    """What a host keeps from one call to the next under a number that it chooses: elements, and numbers beside them.

    Attributes:
        items: the layout of the elements.
        first: the first handle of the bundled host; the next ones count up.
        keep: the numbers, with what each is.

    """

    doc: str
    items: Layout
    first: Expr
    keep: Mapping[str, str]
    pointer: Pointer = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A worked example: plain data as in the file, see docs/spec-language.md."""

    name: str
    provenance: str
    data: Mapping[str, Any]
    guard: Guard = ALWAYS
    pointer: Pointer = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Abi:
    """One ABI.

    A `draft` is read, linted and coded, but no adapter serves it yet. `revision` and `profile` are set once it is
    resolved; then no item has another revision or policy.
    """

    id: str
    title: str
    vendor: str
    doc: str
    roles: Mapping[str, str]
    path: str
    revisions: Mapping[str, Revision]
    sources: Mapping[str, Source]
    uses: tuple[str, ...]
    constants: Mapping[str, Constant]
    config: Mapping[str, ConfigKey]
    facts: Mapping[str, str]
    enums: Mapping[str, Enum]
    layouts: Mapping[str, Layout]
    messages: Mapping[str, Message]
    transports: Mapping[str, Transport]
    calls: Mapping[str, Call]
    policies: Mapping[str, Policy]
    profiles: Mapping[str, Profile]
    examples: tuple[Example, ...]
    handles: Handles | None = None
    draft: bool = False
    revision: str = ""
    profile: str = ""
    chosen: Mapping[str, str] = field(default_factory=dict)

    @property
    def default_revision(self) -> str:
        """Name of the revision that is taken where none is asked for."""
        return next((r.name for r in self.revisions.values() if r.default), next(iter(self.revisions)))

    @property
    def convert_call(self) -> Call | None:
        """The call that converts pages, the one with a guest's side first; None for an ABI that only asks or tells."""
        found = [call for call in self.calls.values() if call.convert is not None]
        return next((call for call in found if call.guest is not None), found[0] if found else None)

    @property
    def served_calls(self) -> tuple[Call, ...]:
        """The calls that cases are made of: the one that converts, those with handles, those that ask, and plain ones.

        A plain call has one request only, as `is_plain` says, and converts or has a rule that a host must keep. One
        that only asks and has none is left out: its answer is the host's own.
        """
        first = (self.convert_call,) if self.convert_call is not None else ()
        handling = tuple(call for call in self.calls.values() if call.handle is not None and call not in first)
        asking = tuple(call for call in self.calls.values() if call.query is not None)
        plain = tuple(
            call
            for call in self.calls.values()
            if call not in (*first, *handling, *asking)
            and self.is_plain(call)
            and (call.convert is not None or any(rule.binds == "host" for rule in call.rules))
        )
        return (*first, *handling, *asking, *plain)

    def is_plain(self, call: Call) -> bool:
        """Whether every request of a call is the same: each field has a constant or default, or is reserved."""
        fields = self.messages[call.request].fields.values()
        return call.guest is None and all(
            item.const is not None or item.default is not None or item.reserved is not None for item in fields
        )

    def policies_of(self, profile: str) -> dict[str, str]:
        """Return the value of every policy under a profile. Raise `UsageError` for an unknown profile."""
        values = {policy.name: policy.default for policy in self.policies.values()}
        if profile != SPEC_PROFILE:
            if profile not in self.profiles:
                raise UsageError.unknown("profile", profile, [SPEC_PROFILE, *self.profiles])
            values.update(self.profiles[profile].policies)
        return values

    def resolve(
        self,
        *,
        revision: str | None = None,
        profile: str = SPEC_PROFILE,
        policies: Mapping[str, str] | None = None,
    ) -> Abi:
        """Return this ABI as one revision under one profile, single `policies` set otherwise.

        Raises `UsageError` for a revision, profile, policy or policy value that does not exist.
        """
        name = revision or self.default_revision
        if name not in self.revisions:
            raise UsageError.unknown("revision", name, self.revisions)
        chosen = self.policies_of(profile)
        for policy, value in (policies or {}).items():
            if policy not in self.policies:
                raise UsageError.unknown("policy", policy, self.policies)
            if value not in self.policies[policy].values:
                raise UsageError.unknown("policy value", value, self.policies[policy].values)
            chosen[policy] = value

        def holds(guard: Guard) -> bool:
            return guard.holds(name, chosen)

        def kept(items: Iterable[T]) -> tuple[T, ...]:
            return tuple(item for item in items if holds(item.guard))  # type: ignore[attr-defined]  # all guarded

        def named(items: Mapping[str, T]) -> dict[str, T]:
            return {key: item for key, item in items.items() if holds(item.guard)}  # type: ignore[attr-defined]  # as above

        def field(item: Field) -> Field:
            return replace(item, default=next((choice.expr for choice in kept(item.defaults)), None))

        def placement(item: Placement) -> Placement:
            places: dict[str, tuple[Place, ...]] = {}
            known = messages[item.message].fields if item.message in messages else {}
            for key, choices in item.place.items():
                if key in known and (left := kept(choices)):
                    places[key] = left[:1]
            blocks: dict[str, Block] = {
                key: block if block.layout is None else replace(block, layout=layouts[block.layout.name])
                for key, block in named(item.blocks).items()
            }
            return replace(item, place=places, blocks=blocks)

        def call(item: Call) -> Call:
            return replace(
                item,
                rules=kept(item.rules),
                outcomes={key: kept(choices) for key, choices in item.outcomes.items()},
                absent=kept(item.absent),
                prevalidate=kept(item.prevalidate),
                vmm=replace(item.vmm, errno=kept(item.vmm.errno)) if item.vmm else None,
            )

        enums = {key: of_revision(item, name) for key, item in self.enums.items()}
        layouts = {key: _with_enums(item, enums) for key, item in self.layouts.items()}
        messages = {
            key: replace(
                item,
                fields=_fields_with_enums(
                    {n: field(f) if f.defaults else f for n, f in named(item.fields).items()}, enums
                ),
            )
            for key, item in named(self.messages).items()
        }
        return replace(
            self,
            enums=enums,
            layouts=layouts,
            messages=messages,
            transports={
                k: replace(t, placements={n: placement(p) for n, p in t.placements.items() if n in messages})
                for k, t in named(self.transports).items()
            },
            calls={k: call(c) for k, c in named(self.calls).items()},
            examples=kept(self.examples),
            revision=name,
            profile=profile,
            chosen=chosen,
        )


def of_revision(enum: Enum, revision: str) -> Enum:
    """Return an enum with the values of a revision, and their numbers there; itself where nothing differs."""
    values = {
        key: replace(item, value=item.by_revision.get(revision, item.value)) if item.by_revision else item
        for key, item in enum.values.items()
        if item.guard.holds(revision, {})
    }
    if values == enum.values:
        return enum
    numbers = {number for item in enum.values.values() for number in (item.value, *item.by_revision.values())}
    return replace(enum, values=values, elsewhere=frozenset(numbers - {item.value for item in values.values()}))


def _fields_with_enums(fields: Mapping[str, Field], enums: Mapping[str, Enum]) -> dict[str, Field]:
    return {key: _field_with_enums(item, enums) for key, item in fields.items()}


def _field_with_enums(item: Field, enums: Mapping[str, Enum]) -> Field:
    """Return a field with the enums of one revision, at any depth; itself where none differs."""
    enum = enums[item.enum.name] if item.enum is not None else None
    word = _with_enums(item.word, enums) if item.word is not None else None
    items = _with_enums(item.items, enums) if item.items is not None else None
    if enum is item.enum and word is item.word and items is item.items:
        return item
    return replace(item, enum=enum, word=word, items=items)


def _with_enums(layout: Layout, enums: Mapping[str, Enum]) -> Layout:
    fields = _fields_with_enums(layout.fields, enums)
    return layout if all(fields[key] is item for key, item in layout.fields.items()) else replace(layout, fields=fields)
