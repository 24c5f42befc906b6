"""Questions of the comparison matrix about how a request is judged and what its answers look like."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvabi.abi.comparison import Cell, unstated
from hvabi.abi.expr_readable import readable
from hvabi.abi.words import joined

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hvabi.abi.called import Called
    from hvabi.abi.calls import Answer, Rule

_WIDE = 16
"""Fields of fewer bits have no top bit that would stand for an error."""
_BAD = ("invalid", "misaligned", "out-of-range", "limit", "denied", "unsupported", "failed", "already")
_ANY = "anything but 0"


def order(at: Called) -> Cell:
    """Answer in which order the host checks, and whether that order is promised."""
    judged = [rule for rule in at.call.rules if rule.binds == "host" and rule.level != "observed"]
    if not judged:
        return unstated("no check")
    steps = [step(at, rule) for rule in judged]
    word = {"stated": "stated", "per-profile": "by implementation", "undefined": "open"}[at.call.order]
    data = {
        "order": at.call.order,
        "checks": [
            {"rule": rule.id, "check": rule.check, "means": rule.means, "level": rule.level, "scope": rule.scope}
            for rule in judged
        ],
    }
    return Cell(lines=(word, *steps), data=data, rules=tuple(rule.id for rule in judged))


def step(at: Called, rule: Rule) -> str:
    """Return what a rule looks at, in a few words: ``aligned gpa, size``."""
    operands = [readable(expr) for name in ("of", "start", "expr") for expr in rule.operands.get(name, ())]
    if rule.check in ("fact", "in-state", "within-memory"):
        return f"{rule.check} {rule.words.get('name') or rule.words.get('state') or ''}".strip()
    of = operands or list(rule.words.values())
    return f"{'' if rule.check == 'expr' else rule.check} {', '.join(map(at.shown, of))}".strip()


def errors(at: Called) -> Cell:
    """Answer whether an error is a negative number, a positive one, or one with the top bit set."""
    answers = [answer for status in _BAD for answer in at.call.outcomes.get(status, ())]
    answers += [rule.answer for rule in at.call.rules if rule.answer is not None and rule.means in _BAD]
    values: dict[str, dict[str, int]] = {}
    for answer in answers:
        for path, number, name in statuses(at, answer):
            if number:
                values.setdefault(path, {})[name] = number
    if not values:
        ends = sorted({answer.end for answer in answers if answer.end != "return" and answer.cannot is None})
        return Cell(lines=("no status; " + joined(ends),), data={"ends": ends}) if ends else unstated()
    lines, data = [], {}
    for path, found in values.items():
        item = at.field(path)
        bits = item.bits if item is not None else 64
        named = {name: number for name, number in found.items() if name != _ANY}
        signs = [word for word, test in _SIGNS if any(test(number, bits) for number in named.values())]
        signs += [_ANY] if _ANY in found and not named else []
        lines.append(f"{path}: {joined(signs)}")
        data[path] = {"bits": bits, "signs": signs, "values": {name: _number(number) for name, number in named.items()}}
    return Cell(lines=tuple(lines), data=data)


_SIGNS: tuple[tuple[str, Callable[[int, int], bool]], ...] = (
    ("negative", lambda number, bits: number < 0),
    ("top bit set", lambda number, bits: number > 0 and bits >= _WIDE and bool(number >> (bits - 1))),
    ("positive", lambda number, bits: number > 0 and (bits < _WIDE or not number >> (bits - 1))),
)


def _number(number: int) -> str:
    return str(number) if -9999 < number < 0 else f"{number:#x}"


def statuses(at: Called, answer: Answer) -> Iterable[tuple[str, int, str]]:
    """Yield the fields that say how it ended, of those that an answer sets: path, value, name of the value."""
    if answer.cannot is not None or at.response is None:
        return
    for path in answer.nonzero:
        yield path, 1, _ANY
    for path, expr in answer.fields.items():
        item = at.field(f"response.{path}")
        if item is None or item.enum is None or path in answer.nonzero:
            continue
        number = at.number(expr)
        if number is not None:
            yield path, number, item.enum.name_of(number) or _number(number)
