"""The worked examples of a specification as requests to vary: what its guest never sends is in them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hvabi.abi.registry import bundled
from hvabi.conformance.case import Setup
from hvabi.conformance.generate.question import Question, as_fields

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hvabi.abi.calls import Rule
    from hvabi.conformance.generate.basis import Basis


def other_lists(basis: Basis, rule: Rule, used: set[str]) -> list[str]:
    """Return the list fields that a rule looks at and that are not the one whose elements the call is about."""
    fields = basis.abi.messages[basis.call.request].fields
    own = {basis.call.each, basis.call.handle.list if basis.call.handle is not None else None}
    named = used | {rule.words.get("each", "")}
    return [name for name, field in fields.items() if field.is_list and name in named and name not in own]


def with_lists(basis: Basis, names: list[str]) -> list[Question]:
    """Return the requests of worked examples of this call that have elements in one of these lists."""
    return [question for _, question in worked(basis, names)]


def worked(basis: Basis, names: list[str] | None = None) -> Iterator[tuple[str, Question]]:
    """Yield the same with the names of the examples as ids have them; all lists that its own guest leaves empty."""
    if names is None:
        own = {basis.call.each, basis.call.handle.list if basis.call.handle is not None else None}
        fields = basis.abi.messages[basis.call.request].fields
        names = [name for name, field in fields.items() if field.is_list and name not in own]
    for example in basis.abi.examples:
        data = example.data
        request = data.get("request", {})
        about = data.get("call"), data.get("transport"), data.get("revision", bundled(basis.spec.id).default_revision)
        if about != (basis.call.name, basis.transport, basis.abi.revision) or data.get("profile") is not None:
            continue
        if not any(request.get(name) for name in names):
            continue
        setup = Setup(config=data.get("config", {}))
        before = tuple((gpa >> 12, (gpa >> 12) + pages, state) for gpa, pages, state in data.get("before", ()))
        codec = basis.codec(setup)
        fields = as_fields(codec.decode(codec.encode(request)))
        slug = "-".join(re.findall("[a-z0-9]+", example.name.lower()))
        yield slug, Question(fields=fields, setup=setup, before=before, call=basis.call.name)


__all__ = ["other_lists", "with_lists", "worked"]
