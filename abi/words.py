"""Parts of a specification in words: rules, answers, conversions, progress, places."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvabi.abi.calls import GATHERED
from hvabi.abi.expr_readable import readable as to_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hvabi.abi.calls import Answer, Contents, Convert, Progress, Rule
    from hvabi.abi.expr import Expr
    from hvabi.abi.model import Field, Guard


def guard(item: Guard) -> str:
    """Return when something holds: ``revision v10; transport smc; where past-end is refuse``, or nothing."""
    parts = []
    if item.revisions is not None:
        parts.append(f"revision {' or '.join(item.revisions)}")
    if item.transports is not None:
        parts.append(f"transport {' or '.join(item.transports)}")
    parts += [f"where {name} is {value}" for name, value in item.policy.items()]
    return "; ".join(parts)


def answer(item: Answer) -> str:
    """Return how a call ends."""
    if item.cannot is not None:
        return f"never: {item.cannot}"
    fields = ", ".join(f"{name} = {to_text(expr)}" for name, expr in item.fields.items())
    if item.end == "return":
        text = fields or "nothing is written"
    elif item.end == "fault":
        text = f"the guest takes exception {item.fault}"
    elif item.end == "stop":
        text = f"stop: {item.reason}"
    else:
        text = "the guest executes the call again" + (f", {fields}" if fields else "")
    if item.when is not None:
        text += f", when {to_text(item.when)}"
    if item.may_change:
        text += f"; may change: {', '.join(item.may_change)}"
    held = guard(item.guard)
    return text + (f" ({held})" if held else "")


def check(rule: Rule) -> str:
    """Return what a rule tests: ``aligned: gpa, size to 4096``."""
    parts = []
    for name, exprs in rule.operands.items():
        text = ", ".join(map(to_text, exprs))
        parts.append(text if name in ("of", "expr") else f"{name} {text}")
    parts += [value if name == "of" else f"{name} {value}" for name, value in rule.words.items()]
    when = f", when {to_text(rule.when)}" if rule.when is not None else ""
    each = {"element": ", each element", "page": ", each page"}.get(rule.scope, "")
    return f"{rule.check}{': ' if parts else ''}{'; '.join(parts)}{each}{when}"


def assigned(items: Mapping[str, Expr]) -> str:
    """Return a mapping of expressions in one line."""
    return ", ".join(f"{name} = {to_text(expr)}" for name, expr in items.items())


def convert(item: Convert) -> Iterator[tuple[str, str]]:
    """Yield what a request means, in rows."""
    each = f", for each of {item.each if item.each != GATHERED else 'the elements of the handle'}" if item.each else ""
    yield "start", f"{to_text(item.start)} (bytes){each}"
    yield "pages", f"{to_text(item.pages)} (4 KiB)"
    if item.bits is not None:
        yield "bits", f"it is one bit of {item.bits} for each page, the lowest bit of the first element first"
    if item.to is not None:
        states = ", ".join(f"{value:#x} is {state or 'no change'}" for value, state in item.to.states.items())
        other = f", else {item.to.otherwise or 'no change'}" if item.to.has_otherwise else ""
        yield "to", f"{to_text(item.to.of)}: {states}{other}"
    for name, expr in (("first", item.first), ("count", item.count), ("page size hint", item.hint)):
        if expr is not None:
            yield name, to_text(expr)
    if item.facts:
        yield "facts", assigned(item.facts)
    for state, facts in item.stands_for.items():
        yield f"{state} stands for", ", ".join(f"{name} = {int(value)}" for name, value in facts.items())
    for state, what in item.contents.items():
        yield f"bytes of a page made {state}", contents(what)


def progress(item: Progress) -> Iterator[tuple[str, str]]:
    """Yield how a call says how far it came, in rows."""
    if item.doc:
        yield "", item.doc
    yield "completed", f"{to_text(item.completed)}, in {item.unit}s"
    for name, expr in (
        ("within", item.within),
        ("granule", item.granule),
        ("done when", item.done_when),
        ("again when", item.again_when),
        ("counts when", item.counts_when),
        ("chunk", item.chunk),
    ):
        if expr is not None:
            yield name, to_text(expr)
    if item.next:
        yield "next request", assigned(item.next)
    if item.mark or item.mark_part:
        yield "marks", assigned({**item.mark, **item.mark_part})
    yield "goes on by", item.resume
    yield "done before", f"{item.already_done}; footprint of a failed call: {item.footprint}"
    yield "at most", f"{to_text(item.bound)} requests, {item.stalls} in a row without progress"


def made_of(item: Field) -> str:
    """Return the width of a field and what kind of number it is."""
    if item.is_list:
        what = item.items.name if item.items is not None else f"u{item.bits}"
        return f"list of {what}"
    parts = [f"{'i' if item.signed else 'u'}{item.bits}"]
    if item.word is not None:
        parts = [item.word.name]
    if item.enum is not None:
        parts.append(item.enum.name)
    if item.unit is not None:
        parts.append(item.unit)
    return " ".join(parts)


def text_of(item: Field) -> str:
    """Return what a field is for, its constant or default, and when it exists."""
    parts = []
    if item.const is not None:
        parts.append(f"Always {to_text(item.const)}.")
    elif item.default is not None:
        parts.append(f"Default {to_text(item.default)}.")
    if item.is_list and item.count is not None:
        parts.append(f"{to_text(item.count)} elements.")
    parts.append(item.doc)
    if item.reserved is not None:
        parts.append(f"(Sent as {item.reserved.send}, receivers {item.reserved.receive} it.)")
    if item.chosen_by_host:
        parts.append("(The host chooses it.)")
    held = guard(item.guard)
    return " ".join(parts) + (f" ({held})" if held else "")


def contents(item: Contents) -> str:
    """Return what becomes of the bytes of a page."""
    return f"{item.kind}. {item.doc} ({item.source})"


def joined(parts: Sequence[str]) -> str:
    """Return words as a list in a sentence: ``a, b and c``."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else ""


def size_of(size: int) -> str:
    """Return a number of bytes in the largest unit that divides it: ``4 KiB``."""
    for shift, unit in ((60, "EiB"), (50, "PiB"), (40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size and size % (1 << shift) == 0:
            return f"{size >> shift} {unit}"
    return f"{size} byte{'' if size == 1 else 's'}"
