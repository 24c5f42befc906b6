"""The work of a host call that only asks: which pages, what is found there, and where it stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hvabi.abi.errors import CodecError, ExprError
from hvabi.abi.scope import STATE_NUMBERS, Scope, state_number
from hvabi.adapters.work import Stopped
from hvabi.backend import GPA_PAGES, PAGE_SHIFT, Change, ModelError, OutsideMemory, PageState, Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hvabi.abi.calls import Query, Runs
    from hvabi.adapters.host import _HostCall
    from hvabi.backend import Backend

MOST_ANSWERS = 1 << 20
"""Most elements of a list of answers: what one message of the line protocol could hold."""
_NOWHERE = {"state_of": STATE_NUMBERS["private"], "run_pages": 1}


def found_at(backend: Backend, query: Query, scope: Scope, most: int | None = None) -> dict[str, int]:
    """Return the state of the first page asked about, and how many have it; private and 1 where no page is named.

    A host that stops early, after `most` pages, tells of no more, where an answer may be about fewer than have it.
    """
    try:
        start, pages = scope.int(query.start) >> PAGE_SHIFT, scope.int(query.pages)
    except (OutsideMemory, ModelError, CodecError, ExprError):
        return _NOWHERE
    if pages < 1 or not 0 <= start < GPA_PAGES:
        return _NOWHERE
    state, run = backend.run_at(start, min(start + pages, GPA_PAGES))
    if query.told is not None and most is not None:
        run = min(run, max(most, 1))
    return {"state_of": state_number(state.value), "run_pages": run}


class Asking:
    """Goes through the elements of a question, or its one range, and keeps the answers.

    Attributes:
        done: pages that were asked about and answered.
        found: runs that the list of runs has.
        lists: fields of the response with the index of the first answer and the answers.
        changes: none; a conversion has some.

    """

    changes: tuple[Change[PageState], ...] = ()

    def __init__(self, call: _HostCall, query: Query) -> None:
        self.call = call
        self.query = query
        self.backend = call.host.backend
        self.done = 0
        self.index = 0
        self.found = 0
        self.lists: dict[str, tuple[int, list[Any]]] = {}
        prevalidate = call.definition.prevalidate
        self.prevalidate = bool(prevalidate) and prevalidate[0].value == "true"

    def scope(self, to: PageState | None = None) -> Scope:
        """Return the names of outcomes at this point."""
        scope = self.call.scope.with_locals(
            done_pages=self.done, done_bytes=self.done << PAGE_SHIFT, part_pages=0, index=self.index, errno=0
        )
        if self.query.runs is not None:
            scope = scope.with_locals(found=self.found)
        if self.query.each is not None:
            items = self.call.fields.known.get(self.query.each, ())
            if not 0 <= self.index < len(items):
                return scope
            scope = scope.with_locals(it=items[self.index])
        return scope.with_locals(**found_at(self.backend, self.query, scope, self.call.inject.stop_after))

    def run(self) -> None:
        """Find every answer. Raises `Stopped` where it ends early."""
        if self.query.each is None:
            self._range()
            return
        elements = list(self._elements())
        first = self.index
        if self.prevalidate:
            for index, scope in elements:
                self._judge(index, scope)
            self.index = first
        for name in self.query.answer_each:
            self.lists[name] = (first, [])
        for index, scope in elements:
            if not self.prevalidate:
                self._judge(index, scope)
            self._element(index, scope)

    def _elements(self) -> Iterator[tuple[int, Scope]]:
        scope, query = self.call.scope, self.query
        items = self.call.fields[query.each or ""]
        first = scope.int(query.first) if query.first is not None else 0
        last = scope.int(query.count) if query.count is not None else len(items)
        self.index = first
        for index in range(first, min(last, len(items))):
            yield index, scope.with_locals(it=items[index], index=index)

    def _judge(self, index: int, scope: Scope) -> None:
        rule = self.call.first_broken("element", scope)
        if rule is not None:
            # Where the whole list is judged before the first answer, none of it is answered.
            self.index = self.index if self.prevalidate else index
            raise Stopped(Status(rule.means or "invalid"), rule=rule)

    def _element(self, index: int, scope: Scope) -> None:
        self.index = index
        pages = max(scope.int(self.query.pages), 0)
        if pages and (scope.int(self.query.start) >> PAGE_SHIFT) + pages > GPA_PAGES:
            raise Stopped(Status.OUT_OF_RANGE)
        limit = self.call.inject.stop_after if self.call.definition.progress is not None else None
        if limit is not None and self.done + pages > limit:
            raise Stopped(Status.PARTIAL)
        scope = scope.with_locals(**found_at(self.backend, self.query, scope))
        for name, expr in self.query.answer_each.items():
            self.lists[name][1].append(scope.int(expr))
        self.done += pages
        self.index = index + 1

    # -- one range ----------------------------------------------------------------------------------------------

    def _range(self) -> None:
        scope, query = self.call.scope, self.query
        start, pages = scope.int(query.start) >> PAGE_SHIFT, max(scope.int(query.pages), 0)
        if pages and start + pages > GPA_PAGES:
            raise Stopped(Status.OUT_OF_RANGE)
        if query.answer_each:
            if -(-pages // query.pack) > MOST_ANSWERS:
                raise Stopped(Status.LIMIT)
            for name in query.answer_each:
                self.lists[name] = (0, self._per_page(name, start, pages))
        if query.runs is not None:
            self._list_of_runs(query.runs, start, pages)
        self.done = pages

    def _list_of_runs(self, wanted: Runs, start: int, pages: int) -> None:
        """Make an element for each run of pages that are asked for, whatever else tells two of them apart."""
        scope = self.call.scope
        runs: list[tuple[int, int]] = []
        for run in self.backend.runs(start, start + pages) if pages else ():
            if not scope.with_locals(state_of=state_number(run.state.value)).true(wanted.where):
                continue
            if runs and runs[-1][1] == run.start:
                runs[-1] = (runs[-1][0], run.end)
            else:
                runs.append((run.start, run.end))
        self.found = len(runs)
        if self.found > min(scope.int(wanted.most), MOST_ANSWERS):
            raise Stopped(Status.LIMIT)
        elements = []
        for low, high in runs:
            local = scope.with_locals(run_start=low << PAGE_SHIFT, run_pages=high - low)
            elements.append({name: local.int(expr) for name, expr in wanted.element.items()})
        self.lists[wanted.field] = (0, elements)

    def _per_page(self, name: str, start: int, pages: int) -> list[int]:
        """Return one answer per page, or packed bits; pages of one state have one answer, worked out once."""
        expr, pack = self.query.answer_each[name], self.query.pack
        values = [0] * -(-pages // pack)
        for run in self.backend.runs(start, start + pages) if pages else ():
            answer = self.call.scope.with_locals(state_of=state_number(run.state.value)).int(expr)
            at, end = run.start - start, run.end - start
            while at < end:
                element, bit = divmod(at, pack)
                whole = (end - at) // pack if bit == 0 else 0
                if pack == 1:
                    values[element : element + whole] = [answer] * whole
                elif whole:
                    values[element : element + whole] = [((1 << pack) - 1) * bool(answer)] * whole
                else:
                    values[element] |= bool(answer) << bit
                at += max(whole * pack, 1)
        over = pages % pack
        if over and self.query.left is not None:
            values[-1] |= self.call.scope.int(self.query.left) >> over << over & (1 << pack) - 1
        return values


__all__ = ["Asking", "found_at"]
