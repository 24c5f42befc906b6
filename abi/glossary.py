"""Every name that the specifications give a meaning: rules, statuses, constants, fields, policies and the rest."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hvabi.abi import words
from hvabi.abi.calls import TAXONOMY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hvabi.abi.calls import Call, Rule
    from hvabi.abi.model import Enum, Field, Layout
    from hvabi.abi.specification import Abi

_CODEC = {
    "truncated": "The bytes end before the message does.",
    "oversized": "There are bytes behind the message, or it would be longer than any message may be.",
    "value-too-large": "A value has more bits than its field.",
    "unknown-field": "The message has no field of that name.",
    "missing-field": "A field has neither a value nor a default.",
    "wrong-type": "A value is neither a number nor a name of the field's enum.",
    "reserved-bits": "Bits that must be zero are set.",
    "const-mismatch": "A field that always has one value has another: it is not this message.",
    "bad-hex": "Text that should be hex digits is not.",
    "fixed-mismatch": "A register that selects the call has another value: it is not this call.",
    "unknown-value": "A number has no name in the enum of its field.",
    "unread-bits": "A register has bits that no field of the message covers.",
}
"""Codes of errors and problems of messages, see `hvabi.abi.errors` and `hvabi.abi.annotation`."""

LEVELS = {
    "must": "Breaking it is a failure.",
    "should": "Breaking it is a warning.",
    "may": "Noted only.",
    "unspecified": "The specification leaves it open; noted only.",
    "observed": "What some implementation does; asserted only under a profile that names it.",
}
"""What the level of a rule or case means for a verdict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One meaning of one name.

    `anchor` is its place in the page of its ABI, empty where it has none. `number` is set for constants and enum
    values; `rows` are details.
    """

    name: str
    kind: str
    abi: str
    text: str
    anchor: str = ""
    also: tuple[str, ...] = ()
    number: int | None = None
    rows: tuple[tuple[str, str], ...] = field(default=())


def entries(abi: Abi) -> Iterator[Entry]:
    """Yield everything that an ABI gives a name, its own name first."""
    yield Entry(
        name=abi.id, kind="ABI", abi=abi.id, text=abi.title, anchor="top", rows=(("more", f"hvabi show {abi.id}"),)
    )
    for call in abi.calls.values():
        for rule in call.rules:
            yield _rule(abi, call, rule)
        yield from _outcomes(abi, call)
    for enum in abi.enums.values():
        yield from _enum(abi, enum)
    for constant in abi.constants.values():
        also = (constant.mirrors,) if constant.mirrors else ()
        yield Entry(
            name=constant.name, kind="constant", abi=abi.id, text=constant.doc, also=also, number=constant.value,
            anchor=f"const-{constant.name}",
            rows=(("value", f"{constant.value:#x}"), *(("public header", name) for name in also)),
        )  # fmt: skip
    for message in abi.messages.values():
        anchor = f"message-{message.name}"
        yield Entry(name=message.name, kind="message", abi=abi.id, text=message.doc, anchor=anchor)
        for item in message.fields.values():
            yield _field(abi, item, f"field of {message.name}", f"field-{message.name}-{item.name}")
    for layout in abi.layouts.values():
        yield from _layout(abi, layout)
    yield from _choices(abi)


def _rule(abi: Abi, call: Call, rule: Rule) -> Entry:
    source = abi.sources.get(rule.source)
    rows = [
        ("binds", f"the {rule.binds} ({abi.roles.get(rule.binds, '')}), in the {rule.on} of call {call.name}"),
        ("level", f"{rule.level}: {LEVELS[rule.level]}"),
        ("holds when", words.check(rule)),
    ]
    if rule.answer is not None:
        rows.append(("else", words.answer(rule.answer)))
    if rule.means is not None:
        rows.append(("means", rule.means))
    if held := words.guard(rule.guard):
        rows.append(("only", held))
    if rule.shadowed_by is not None:
        rows.append(("never first", f"behind {rule.shadowed_by}"))
    rows.append(("source", f"{source.title}, {source.revision}" if source is not None else rule.source))
    if not abi.draft:
        rows.append(("test it", f"hvabi conform --iut CONN --rule {rule.id}"))
    return Entry(name=rule.id, kind="rule", abi=abi.id, text=rule.text, anchor=rule.id, rows=tuple(rows))


def _outcomes(abi: Abi, call: Call) -> Iterator[Entry]:
    for name in TAXONOMY:
        for answer in call.outcomes.get(name, ()):
            yield Entry(
                name=name, kind="outcome", abi=abi.id, text=words.answer(answer), anchor=f"outcomes-{call.name}"
            )


def _enum(abi: Abi, enum: Enum) -> Iterator[Entry]:
    text = f"{enum.doc} {', '.join(enum.values)}"
    yield Entry(name=enum.name, kind="enum", abi=abi.id, text=text, anchor=f"enum-{enum.name}")
    for value in enum.values.values():
        rows = [
            ("value", f"{value.value:#x}" + (f" ({value.value})" if abs(value.value) > 9 else "")),
            ("of", enum.doc),
        ]
        if value.mirrors:
            rows.append(("public header", value.mirrors))
        if value.note:
            rows.append(("note", value.note))
        if held := words.guard(value.guard):
            rows.append(("only", held))
        yield Entry(
            name=value.name, kind=f"value of {enum.name}", abi=abi.id, text=value.doc,
            anchor=f"value-{enum.name}-{value.name}",
            also=(value.mirrors,) if value.mirrors else (), number=value.value, rows=tuple(rows),
        )  # fmt: skip


def _field(abi: Abi, item: Field, kind: str, anchor: str) -> Entry:
    rows = (("is", words.made_of(item)),)
    return Entry(name=item.name, kind=kind, abi=abi.id, text=words.text_of(item), anchor=anchor, rows=rows)


def _layout(abi: Abi, layout: Layout) -> Iterator[Entry]:
    size = f"{layout.size} bytes, {layout.endian} endian"
    anchor = f"layout-{layout.name}"
    yield Entry(name=layout.name, kind="layout", abi=abi.id, text=layout.doc, anchor=anchor, rows=(("is", size),))
    for item in layout.fields.values():
        kind = f"field of {layout.name}, bits {item.hi}:{item.lo} at byte {item.at}"
        yield _field(abi, item, kind, f"{anchor}-{item.name}")


def _choices(abi: Abi) -> Iterator[Entry]:
    for policy in abi.policies.values():
        rows = tuple(policy.values.items())
        anchor = f"policy-{policy.name}"
        yield Entry(name=policy.name, kind="policy", abi=abi.id, text=policy.doc, anchor=anchor, rows=rows)
    for profile in abi.profiles.values():
        rows = tuple((name, value) for name, value in profile.policies.items())
        anchor = f"profile-{profile.name}"
        yield Entry(name=profile.name, kind="profile", abi=abi.id, text=profile.doc, anchor=anchor, rows=rows)
    for key in abi.config.values():
        text = f"{key.doc} Default {key.default:#x}."
        yield Entry(name=key.name, kind="config key", abi=abi.id, text=text, anchor=f"config-{key.name}")
    for name, doc in abi.facts.items():
        yield Entry(name=name, kind="fact", abi=abi.id, text=doc, anchor=f"fact-{name}")
    for transport in abi.transports.values():
        anchor = f"transport-{transport.name}"
        yield Entry(name=transport.name, kind="transport", abi=abi.id, text=transport.doc, anchor=anchor)
    for revision in abi.revisions.values():
        yield Entry(name=revision.name, kind="revision", abi=abi.id, text=revision.doc, anchor="top")


def codes() -> Iterator[Entry]:
    """Yield the codes of errors, of problems, and of everything that lint finds."""
    from hvabi.abi.lint import ALL_IDS

    for name, text in _CODEC.items():
        yield Entry(name=name, kind="error of a message", abi="", text=text)
    for name, text in ALL_IDS.items():
        yield Entry(name=name, kind="diagnostic of hvabi lint", abi="", text=text)
