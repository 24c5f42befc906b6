"""Liars of historic bugs, from ``historic.yaml``: a change of the specification, an engine, or both."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from importlib import resources
from typing import TYPE_CHECKING, Any

import yaml

from hvabi.abi.errors import HvAbiError
from hvabi.abi.expr import Int, parse
from hvabi.abi.registry import bundled, load
from hvabi.abi.scope import enum_names
from hvabi.conformance.liars import guests, hosts, keepers, model, nodes
from hvabi.conformance.liars.liar import Liar, Planted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from hvabi.abi.calls import Progress
    from hvabi.abi.specification import Abi

_FOR_EVER = 1 << 40


@cache
def _bugs() -> tuple[Mapping[str, Any], ...]:
    text = resources.files("hvabi.conformance.liars").joinpath("historic.yaml").read_text("utf-8")
    return tuple(yaml.safe_load(text)["bugs"])


def historic(abi: str) -> Iterator[Liar]:
    """Yield the liars of historic bugs of an ABI, one per revision and transport that the bug fits."""
    for row in _bugs():
        if row["abi"] != abi:
            continue
        for revision in row.get("revisions", bundled(abi).revisions):
            for transport in row.get("transports", load(abi, revision=revision).abi.transports):
                yield _liar(row, revision, transport)


def _liar(row: Mapping[str, Any], revision: str, transport: str) -> Liar:
    number = row["bug"]
    engine = _engine(row["engine"]) if "engine" in row else None
    role = row["role"]
    return Liar(
        id=f"{row['abi']}@{revision}.{role}.{transport}.bug.{number}",
        abi=row["abi"],
        revision=revision,
        transport=transport,
        role=role,
        family="historic",
        what=row["what"],
        planted=Planted(
            spec=_planted(row) if "change" in row else None,
            host=engine if role == "host" else None,
            guest=engine if role == "guest" else None,
        ),
        hints=(f"-{number.partition('-')[0].lower()}-",),
        reference=row.get("reference"),
        breaks=row.get("breaks", False),
    )


def _planted(row: Mapping[str, Any]) -> Callable[[Abi], Abi]:
    """Return the change of a row, to the call that it names or to the one that converts."""
    change = partial(_changed, rows=row["change"])
    return partial(model.in_call, call=row["call"], change=change) if "call" in row else change


def _engine(name: str) -> type[Any]:
    for module in (hosts, keepers, nodes, guests):
        if hasattr(module, name):
            found: type[Any] = getattr(module, name)
            return found
    raise HvAbiError(f"historic.yaml: there is no engine {name}", code="unknown-engine")


def _changed(abi: Abi, rows: list[dict[str, Any]]) -> Abi:
    for row in rows:
        key = next(iter(row))
        if key not in _CHANGES:
            raise HvAbiError(f"historic.yaml: there is no change {key}", code="unknown-change")
        after = _CHANGES[key](abi, row)
        if after == abi:
            raise HvAbiError(f"historic.yaml: {row} changes nothing of {abi.id}", code="no-change")
        abi = after
    return abi


def _skip_rule(abi: Abi, row: dict[str, Any]) -> Abi:
    return model.without_rule(abi, row["skip-rule"])


def _rule(abi: Abi, row: dict[str, Any]) -> Abi:
    """Change operands of a rule, or put another one with its answer before it."""
    old = model.the_call(abi).rule(row["rule"])
    if old is None:
        raise HvAbiError(f"historic.yaml: there is no rule {row['rule']}", code="unknown-rule")
    operands = {name: (parse(str(text)),) for name, text in row.items() if name not in ("rule", "add-before", "check")}
    if not row.get("add-before"):
        return model.with_rule(abi, replace(old, operands={**old.operands, **operands}))
    added = replace(old, id=f"{old.id}-BUG", check=row["check"], operands=operands, words={}, when=None)
    rules = model.the_call(abi).rules
    at = rules.index(old)
    return model.with_rules(abi, (*rules[:at], added, *rules[at:]))


def _define(abi: Abi, row: dict[str, Any]) -> Abi:
    call = model.the_call(abi)
    item = replace(call.define[row["define"]], expr=parse(str(row["expr"])))
    return model.with_call(abi, replace(call, define={**call.define, item.name: item}))


def _outcome(abi: Abi, row: dict[str, Any]) -> Abi:
    answers = model.the_call(abi).outcomes[row["outcome"]]
    number = next(number for number, answer in enumerate(answers) if row["field"] in answer.fields)
    change = partial(model.with_answer_field, field=row["field"], expr=parse(str(row["expr"])))
    return model.with_outcome(abi, row["outcome"], number, change)


def _direction(abi: Abi, row: dict[str, Any]) -> Abi:
    to = model.the_call(abi).convert.to  # type: ignore[union-attr]  # bugs of this kind are of calls that convert
    assert to is not None  # and that have a direction
    if row["direction"] == "else":
        changed = replace(to, otherwise=row["to"], has_otherwise=True)
    else:
        number = enum_names(abi)[row["direction"]]
        changed = replace(to, states={**to.states, number: row["to"]})
    return model.with_convert(abi, lambda convert: replace(convert, to=changed))


def _direction_of(abi: Abi, row: dict[str, Any]) -> Abi:
    of = parse(row["direction-of"])
    return model.with_convert(
        abi,
        lambda convert: replace(convert, to=replace(convert.to, of=of)),  # type: ignore[type-var]  # it has a direction
    )


def _pages(abi: Abi, row: dict[str, Any]) -> Abi:
    return model.with_convert(abi, lambda convert: replace(convert, pages=parse(row["pages"])))


def _errno(abi: Abi, row: dict[str, Any]) -> Abi:
    call = model.the_call(abi)
    assert call.vmm is not None  # bugs of this kind are of split hosts
    rows = tuple(
        replace(item, outcome=row["outcome"], answer=None) if item.errno == row["errno"] else item
        for item in call.vmm.errno
    )
    return model.with_call(abi, replace(call, vmm=replace(call.vmm, errno=rows)))


def _done_when(abi: Abi, row: dict[str, Any]) -> Abi:
    return model.with_progress(abi, lambda old: replace(old, done_when=parse(row["done-when"])))


def _again_when(abi: Abi, row: dict[str, Any]) -> Abi:
    return model.with_progress(abi, lambda old: replace(old, again_when=parse(row["again-when"])))


def _next(abi: Abi, row: dict[str, Any]) -> Abi:
    def change(progress: Progress) -> Progress:
        return replace(progress, next={**progress.next, row["next"]: parse(row["expr"])})

    return model.with_progress(abi, change)


def _for_ever(abi: Abi, row: dict[str, Any]) -> Abi:
    return model.with_progress(abi, lambda old: replace(old, stalls=_FOR_EVER, bound=Int(_FOR_EVER)))


def _guest_field(abi: Abi, row: dict[str, Any]) -> Abi:
    call = model.the_call(abi)
    assert call.guest is not None  # bugs of this kind are of guests
    request = {**call.guest.request, row["guest-field"]: parse(str(row["expr"]))}
    return model.with_call(abi, replace(call, guest=replace(call.guest, request=request)))


def _smaller(abi: Abi, row: dict[str, Any]) -> Abi:
    call = model.the_call(abi)
    assert call.guest is not None  # bugs of this kind are of guests
    return model.with_call(abi, replace(call, guest=replace(call.guest, smaller_when=None)))


def _steps(abi: Abi, row: dict[str, Any]) -> Abi:
    call = model.the_call(abi)
    assert call.guest is not None  # bugs of this kind are of guests
    guest = replace(call.guest, steps_before=row["steps-before"], steps_after=row["steps-after"])
    return model.with_call(abi, replace(call, guest=guest))


_CHANGES: Mapping[str, Callable[[Abi, dict[str, Any]], Abi]] = {
    "skip-rule": _skip_rule,
    "rule": _rule,
    "define": _define,
    "outcome": _outcome,
    "direction": _direction,
    "direction-of": _direction_of,
    "pages": _pages,
    "errno": _errno,
    "done-when": _done_when,
    "again-when": _again_when,
    "next": _next,
    "for-ever": _for_ever,
    "guest-field": _guest_field,
    "smaller-when": _smaller,
    "steps-before": _steps,
}

__all__ = ["historic"]
