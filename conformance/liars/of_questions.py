"""Host liars that find the wrong thing, or tell it of the wrong page."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from hvabi.abi.expr import Binary, Int, names
from hvabi.conformance.liars import hosts, keepers, model
from hvabi.conformance.liars.exprs import moved
from hvabi.conformance.liars.liar import Planted
from hvabi.conformance.liars.made import Made, engine
from hvabi.conformance.liars.sight import Sight

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hvabi.abi.calls import Query


class QuestionLies(Sight):
    """Makes them."""

    def questions(self) -> Iterator[Made]:
        """Yield hosts that take the question for another one."""
        query = self.call.query
        assert query is not None  # the caller has looked
        yield _other("start-one-page-more", "It looks one page too far.", start=moved(query.start, 4096))
        if self.widest(query.start) > 32:
            low = Binary("&", query.start, Int(0xFFFFFFFF, 16))
            yield _other("start-low-half", "It keeps the low 32 bits of the start only.", start=low)
        if query.first is not None:
            yield _other("first-one-more", "It skips the first element.", first=moved(query.first, 1))
            yield _other("first-zero", "It begins with the first element, whatever is asked for.", first=Int(0))
        if query.count is not None:
            yield _other("count-one-less", "It forgets the last element.", count=moved(query.count, -1))
        if query.answer_each:
            yield _other("lists-left-out", "It does not write the answers per element.", answer_each={})
        if query.left is not None:
            yield _other("left-bits-zero", "The bits behind the last page are 0.", left=None)
        if query.runs is not None:
            runs = query.runs
            for name, expr in runs.element.items():
                other = replace(runs, element={**runs.element, name: moved(expr, 1)})
                yield _other(f"run-{name}-one-more", f"{name} of every run is one more.", runs=other)
            for amount, word in ((1, "more"), (-1, "less")):
                other = replace(runs, most=moved(runs.most, amount))
                yield _other(f"most-runs-one-{word}", f"It has room for one run {word}.", runs=other)

    def asking_engines(self) -> Iterator[Made]:
        """Yield hosts whose work is done the wrong way."""
        query = self.call.query
        assert query is not None  # the caller has looked
        yield engine("work", "state-inverted", keepers.FindsTheOther, "done")
        yield engine("work", "always-private", keepers.FindsPrivate, "done")
        yield engine("work", "always-shared", keepers.FindsShared, "done")
        if self._tells_runs():
            yield engine("work", "run-not-cut", keepers.RunsOn, "done")
            if self.abi.facts:
                yield engine("work", "run-over-facts", keepers.IgnoresFacts, "done")
        if query.answer_each:
            yield engine("work", "list-one-late", keepers.ListOneLate, "done")
            yield engine("work", "list-one-early", keepers.ListOneEarly, "done")
        blocks = self.transport.placements[self.call.request].blocks.values()
        if any(block.space is None and block.at is not None and block.access != "out" for block in blocks):
            yield engine("memory", "read-twice", hosts.ReadsTwice, "memory-flip")

    def _tells_runs(self) -> bool:
        """Whether an answer says how many pages are alike."""
        exprs = [expr for told in self.answers() for expr in self.placed(told.answer).values()]
        todo = {name for expr in exprs for name in names(expr)}
        todo |= {name for item in self.call.define.values() if item.name in todo for name in names(item.expr)}
        return "run_pages" in todo


def _other(name: str, what: str, **changes: object) -> Made:
    return Made(
        kind="question",
        name=name,
        what=what,
        hints=("done",),
        planted=Planted(spec=partial(model.with_query, change=partial(_replaced, changes=changes))),
    )


def _replaced(query: Query, changes: dict[str, object]) -> Query:
    return replace(query, **changes)  # type: ignore[arg-type]  # fields of Query


__all__ = ["QuestionLies"]
