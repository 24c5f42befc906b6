"""Host liars that answer wrongly: another status, a wrong account of progress, a field left out."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from hvabi.abi.expr import Int, Name, Unary, names
from hvabi.conformance.liars import hosts, model
from hvabi.conformance.liars.exprs import moved, moved_names, parse, rewrite
from hvabi.conformance.liars.liar import Planted
from hvabi.conformance.liars.made import Made, engine
from hvabi.conformance.liars.sight import Sight

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hvabi.abi.calls import Answer, Progress
    from hvabi.abi.expr import Expr
    from hvabi.abi.model import Enum
    from hvabi.abi.specification import Abi

    Changing = Callable[[Abi, Callable[[Answer], Answer]], Abi]


PROGRESS_NAMES = ("done_pages", "done_bytes", "part_pages", "index", "run_pages")
"""Names of expressions that say how far a host came, or how far what it found goes."""


class AnswerLies(Sight):
    """Makes them."""

    def statuses(self) -> Iterator[Made]:
        """Yield a host per status in an answer that answers another of the same enum."""
        for told in self.answers():
            for path, expr in self.placed(told.answer).items():
                enum = self._enum(path)
                other = None if enum is None else self._other(enum, expr)
                if other is None:
                    continue
                yield Made(
                    kind="status-swapped",
                    name=f"{told.name}-{path}-{other[0]}",
                    what=f"For {told.words} it answers {other[0]} in {path}.",
                    planted=Planted(
                        spec=partial(told.change, change=partial(model.with_answer_field, field=path, expr=other[1]))
                    ),
                    hints=told.hints,
                    equivalent=told.never or self._not_compared(told.answer, path, other[1]),
                )

    def _not_compared(self, answer: Answer, path: str, other: Expr | None = None) -> str | None:
        """Say that the host may choose what it answers in a field, but not 0 where it must not be 0; else None."""
        if {path, path.partition(".")[0]} & {*answer.may_change} or (path in answer.nonzero and other != Int(0)):
            return f"the specification lets the host choose {path} here"
        placement = self.transport.placements[self.call.response or ""]
        for place in placement.place.get(path.partition(".")[0], ())[:1]:
            if getattr(place, "block", None) in placement.may_change:
                return f"what lies where {path} does is not compared on this transport"
        return None

    def _enum(self, path: str) -> Enum | None:
        field = self.response_field(path)
        return field.enum if field is not None else None

    def _other(self, enum: Enum, expr: Expr) -> tuple[str, Expr] | None:
        """Return another value of the enum than the one that an expression names."""
        now = enum.values[expr.name].value if isinstance(expr, Name) and expr.name in enum.values else None
        for value in enum.values.values():
            if value.value != now and (now is not None or value.value != 0):
                return value.name, _number(value.value)
        return None

    def numbers(self) -> Iterator[Made]:
        """Yield hosts whose account of progress is off by one, or that leave a field of an answer out."""
        unit = {"done_bytes": 4096}
        for told in self.answers():
            placed = self.placed(told.answer)
            for path, expr in placed.items():
                if self._not_compared(told.answer, path) is not None:
                    continue
                used = sorted(names(expr) & set(PROGRESS_NAMES))
                for local in used:
                    for sign, word in ((1, "more"), (-1, "less")):
                        wrong = moved_names(expr, (local,), sign * unit.get(local, 1))
                        if sign < 0 and names(expr) == {local}:
                            # A count below zero is no number of any field; such an engine would stay at 0.
                            wrong = _floored(expr, local, unit.get(local, 1))
                        yield Made(
                            kind="progress",
                            name=f"{told.name}-{path}-one-{word}",
                            what=f"For {told.words} {path} says one {_unit_word(local)} {word} than was done.",
                            planted=Planted(
                                spec=partial(
                                    told.change, change=partial(model.with_answer_field, field=path, expr=wrong)
                                )
                            ),
                            hints=told.hints,
                            equivalent=told.never,
                        )
            for path in placed:
                if len(placed) > 1 and "." not in path:
                    yield Made(
                        kind="field-left-out",
                        name=f"{told.name}-{path}",
                        what=f"For {told.words} it does not write {path}.",
                        planted=Planted(spec=partial(told.change, change=partial(_without_field, path=path))),
                        hints=told.hints,
                        equivalent=told.never or self._not_compared(told.answer, path),
                    )
        progress = self.call.progress
        if progress is None:
            return
        for key in ("mark", "mark_part"):
            for field, expr in getattr(progress, key).items():
                yield Made(
                    kind="progress",
                    name=f"{key.replace('_', '-')}-{field}-one-more",
                    what=f"{field} of an element says one page more than was done.",
                    planted=Planted(spec=partial(_with_mark, key=key, field=field, expr=moved(expr, 1))),
                )
        if progress.mark:
            yield Made(
                kind="progress",
                name="no-marks",
                what="It does not write into the elements how far it came.",
                planted=Planted(spec=partial(model.with_progress, change=_unmarked)),
            )
        if progress.chunk is not None:
            for amount, word in ((1, "more"), (-1, "less")):
                yield Made(
                    kind="progress",
                    name=f"chunk-one-page-{word}",
                    what=f"Its pieces are one page {word}.",
                    planted=Planted(spec=partial(_with_chunk, expr=moved(progress.chunk, amount))),
                    hints=("event",),
                )
            yield engine("progress", "event-ignored", hosts.IgnoresEvents, "event")
            yield engine("progress", "event-one-chunk-late", hosts.EventOneChunkLate, "event")


def _number(value: int) -> Expr:
    return Int(value) if value >= 0 else Unary("-", Int(-value))


def _floored(expr: Expr, local: str, unit: int) -> Expr:
    """Return the expression with a name one unit less, but never below zero."""
    less = parse(f"max({local} - {unit}, 0)")
    return rewrite(expr, lambda node: less if isinstance(node, Name) and node.name == local else None)


def _unit_word(local: str) -> str:
    return "element" if local == "index" else "page"


def _without_field(answer: Answer, path: str) -> Answer:
    return replace(answer, fields={name: expr for name, expr in answer.fields.items() if name != path})


def _with_mark(abi: Abi, key: str, field: str, expr: Expr) -> Abi:
    def change(progress: Progress) -> Progress:
        if key == "mark":
            return replace(progress, mark={**progress.mark, field: expr})
        return replace(progress, mark_part={**progress.mark_part, field: expr})

    return model.with_progress(abi, change)


def _with_chunk(abi: Abi, expr: Expr) -> Abi:
    return model.with_progress(abi, lambda progress: replace(progress, chunk=expr))


def _unmarked(progress: Progress) -> Progress:
    return replace(progress, mark={}, mark_part={})
