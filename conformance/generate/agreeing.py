"""Requests in which other fields follow a changed one, as a sender would work them out: lengths, offsets, sums."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hvabi.abi.errors import HvAbiError
from hvabi.abi.expr import names as names_of
from hvabi.abi.expr import paths
from hvabi.conformance.generate.question import Question, as_fields

if TYPE_CHECKING:
    from collections.abc import Collection

    from hvabi.conformance.generate.basis import Basis


def followers(basis: Basis, changed: str) -> set[str]:
    """Return the fields of the request whose default is worked out from a field, through other defaults too."""
    found: set[str] = set()
    fields = basis.abi.messages[basis.call.request].fields
    todo = [changed]
    while todo:
        name = todo.pop()
        for other, field in fields.items():
            if field.default is not None and name in names_of(field.default) and other not in found | {changed}:
                found.add(other)
                todo.append(other)
    return found


def worked_out(basis: Basis, question: Question, names: Collection[str]) -> Question | None:
    """Return the question with these fields as their defaults say, None where they cannot be worked out."""
    from hvabi.conformance.generate.basis import vary

    left = {name: item for name, item in question.fields.items() if name not in names}
    try:
        return vary(question, fields=as_fields(basis.codec(question.setup).complete(left)))
    except HvAbiError:
        return None


def followed(basis: Basis, question: Question, changed: str) -> Question | None:
    """Return the question with all that follows one field worked out anew, None where nothing follows it."""
    names = followers(basis, changed)
    return worked_out(basis, question, names) if names else None


def summed(basis: Basis, question: Question, name: str, number: int) -> Question | None:
    """Return the question with a field that is a sum over elements at `number`, its last element making up for it.

    The pages that it then names are in no state of their own.
    """
    from hvabi.conformance.generate.basis import vary

    each = basis.call.each
    default = basis.abi.messages[basis.call.request].fields[name].default
    if each is None or default is None or each not in names_of(default) or not question.fields.get(each):
        return None
    *others, last = question.fields[each]
    parts = {path.partition(".")[2] for path in paths(default) if "." in path}
    if not isinstance(last, dict) or len(parts) != 1 or not parts <= set(last):
        return None
    (part,) = parts
    item: dict[str, Any] = {**last, part: last[part] + number - question.fields[name]}
    if item[part] < 0:
        return None
    changed = worked_out(basis, vary(question, fields={each: (*others, item)}, before=()), {name})
    return changed if changed is not None and changed.fields[name] == number else None


__all__ = ["followed", "followers", "summed", "worked_out"]
