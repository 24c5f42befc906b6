"""Changes of a resolved specification: each returns a copy with one thing wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hvabi.abi.model import BlockPlace, PairPlace, RegisterPlace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hvabi.abi.calls import Answer, Call, Convert, Progress, Query, Rule
    from hvabi.abi.expr import Expr
    from hvabi.abi.model import Endian, Field, Layout, Message, Place, Placement
    from hvabi.abi.specification import Abi


def the_call(abi: Abi) -> Call:
    """Return the call that lies are made of: the one that converts, or the only one, see `narrowed`."""
    return abi.convert_call or next(iter(abi.calls.values()))


def narrowed(abi: Abi, call: str) -> Abi:
    """Return the ABI with one call only, so that lies are made of it."""
    return replace(abi, calls={call: abi.calls[call]})


def in_call(abi: Abi, call: str, change: Callable[[Abi], Abi]) -> Abi:
    """Return the ABI with a change made to one of its calls."""
    changed = change(narrowed(abi, call))
    return replace(changed, calls={**abi.calls, **changed.calls})


def with_call(abi: Abi, call: Call) -> Abi:
    """Return the ABI with a call of this name replaced."""
    return replace(abi, calls={**abi.calls, call.name: call})


def with_rules(abi: Abi, rules: tuple[Rule, ...]) -> Abi:
    """Return the ABI with other rules of the converting call."""
    return with_call(abi, replace(the_call(abi), rules=rules))


def without_rule(abi: Abi, rule_id: str) -> Abi:
    """Return the ABI without a rule."""
    return with_rules(abi, tuple(rule for rule in the_call(abi).rules if rule.id != rule_id))


def swapped(abi: Abi, one: str, other: str) -> Abi:
    """Return the ABI with two rules in each other's place."""
    rules = list(the_call(abi).rules)
    at = {rule.id: number for number, rule in enumerate(rules)}
    rules[at[one]], rules[at[other]] = rules[at[other]], rules[at[one]]
    return with_rules(abi, tuple(rules))


def with_rule(abi: Abi, rule: Rule) -> Abi:
    """Return the ABI with the rule of this id replaced."""
    return with_rules(abi, tuple(rule if old.id == rule.id else old for old in the_call(abi).rules))


def with_added_rule(abi: Abi, rule: Rule, after: str | None = None) -> Abi:
    """Return the ABI with a rule more, at the end or behind another one."""
    rules = the_call(abi).rules
    at = len(rules) if after is None else 1 + [old.id for old in rules].index(after)
    return with_rules(abi, (*rules[:at], rule, *rules[at:]))


def with_rule_answer(abi: Abi, rule_id: str, change: Callable[[Answer], Answer]) -> Abi:
    """Return the ABI with the answer of a rule changed."""
    rule = the_call(abi).rule(rule_id)
    assert rule is not None  # the caller took the id from this ABI
    assert rule.answer is not None  # and it has an answer
    return with_rule(abi, replace(rule, answer=change(rule.answer)))


def with_outcome(abi: Abi, status: str, number: int, change: Callable[[Answer], Answer]) -> Abi:
    """Return the ABI with one answer of an outcome changed."""
    call = the_call(abi)
    answers = list(call.outcomes[status])
    answers[number] = change(answers[number])
    return with_call(abi, replace(call, outcomes={**call.outcomes, status: tuple(answers)}))


def with_answer_field(answer: Answer, field: str, expr: Expr) -> Answer:
    """Return an answer with one field changed."""
    return replace(answer, fields={**answer.fields, field: expr})


def with_convert(abi: Abi, change: Callable[[Convert], Convert]) -> Abi:
    """Return the ABI with another meaning of its request."""
    call = the_call(abi)
    assert call.convert is not None  # it is the call that converts
    return with_call(abi, replace(call, convert=change(call.convert)))


def with_query(abi: Abi, change: Callable[[Query], Query]) -> Abi:
    """Return the ABI with another meaning of its question."""
    call = the_call(abi)
    assert call.query is not None  # it is a call that asks
    return with_call(abi, replace(call, query=change(call.query)))


def with_progress(abi: Abi, change: Callable[[Progress], Progress]) -> Abi:
    """Return the ABI with other progress."""
    call = the_call(abi)
    assert call.progress is not None  # the caller has looked
    return with_call(abi, replace(call, progress=change(call.progress)))


def _with_inner(layout: Layout, name: str, change: Callable[[Field], Field]) -> Layout:
    return replace(layout, fields={**layout.fields, name: change(layout.fields[name])})


def _with_message(abi: Abi, message: Message) -> Abi:
    return replace(abi, messages={**abi.messages, message.name: message})


def with_list_endian(abi: Abi, message: str, name: str) -> Abi:
    """Return the ABI with the bytes of a list's elements the other way round."""
    found = abi.messages[message]
    field = found.fields[name]
    assert field.items is not None  # the caller has looked
    items = replace(field.items, endian=other_endian(field.items.endian))
    return _with_message(abi, replace(found, fields={**found.fields, name: replace(field, items=items)}))


def other_endian(endian: Endian) -> Endian:
    """Return the other byte order."""
    return "big" if endian == "little" else "little"


def with_placement(abi: Abi, transport: str, message: str, change: Callable[[Placement], Placement]) -> Abi:
    """Return the ABI with a message placed differently on one transport."""
    found = abi.transports[transport]
    placements = {**found.placements, message: change(found.placements[message])}
    return replace(abi, transports={**abi.transports, transport: replace(found, placements=placements)})


def with_place(abi: Abi, transport: str, message: str, field: str, place: Place) -> Abi:
    """Return the ABI with one field in another place."""
    return with_placement(
        abi, transport, message, lambda placed: replace(placed, place={**placed.place, field: (place,)})
    )


def with_block_endian(abi: Abi, transport: str, message: str, block: str) -> Abi:
    """Return the ABI with the integers of a block the other way round."""

    def change(placed: Placement) -> Placement:
        found = placed.blocks[block]
        return replace(placed, blocks={**placed.blocks, block: replace(found, endian=other_endian(found.endian))})

    return with_placement(abi, transport, message, change)


def registers_of(placement: Placement) -> dict[str, str]:
    """Return the register of every field that lies in one, by field."""
    found: dict[str, str] = {}
    for name, places in placement.place.items():
        match places[0] if places else None:
            case RegisterPlace(register=register):
                found[name] = register
            case PairPlace(low=low):
                found[name] = low
            case _:
                pass
    return found


def blocks_of(placement: Placement) -> dict[str, list[str]]:
    """Return the fields that lie in each block, by block."""
    found: dict[str, list[str]] = {}
    for name, places in placement.place.items():
        if places and isinstance(places[0], BlockPlace):
            found.setdefault(places[0].block, []).append(name)
    return found


def said(answer: Answer) -> tuple[object, ...]:
    """Return what tells one answer from another."""
    return (answer.end, tuple(sorted((name, str(expr)) for name, expr in answer.fields.items())), answer.fault)


def answers_of(outcomes: Mapping[str, tuple[Answer, ...]], status: str, transport: str) -> list[tuple[int, Answer]]:
    """Return the answers of an outcome that can be given on a transport, with their numbers."""
    return [
        (number, answer)
        for number, answer in enumerate(outcomes.get(status, ()))
        if answer.cannot is None and answer.guard.serves(transport)
    ]
