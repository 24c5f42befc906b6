"""What a request that only asks is answered, by brute force: every page is looked at for itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hvabi.conformance.oracle.asked import PAGE
from hvabi.conformance.oracle.walk import STATES, Names, Undefined, value
from hvabi.conformance.oracle.work import End, Working

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hvabi.abi.calls import Query, Runs

_LAST_PAGE = 1 << 52
_MOST_ANSWERS = 1 << 20


class Questioned(Working):
    """A request that can ask; `lists` has the answers per element, from the first element that is asked about."""

    lists: Mapping[str, tuple[int, list[Any]]] = {}
    _found = 0

    def _local(self) -> Names:
        names = super()._local()
        query = self.call.query
        if query is not None and query.runs is not None:
            names = names.plus(found=self._found)
        if query is None or (query.each is not None and "it" not in names.local):
            return names
        return self._looked_up(query, names)

    def _looked_up(self, query: Query, names: Names) -> Names:
        """Return the names with the state of the first page that is asked about and the length of its run."""
        state, run = "private", 1
        try:
            start, pages = value(query.start, names) // PAGE, value(query.pages, names)
        except Undefined:
            start, pages = -1, 0
        if pages > 0 and 0 <= start < _LAST_PAGE:
            state, run = self.pages.state(start), self._run(start, min(start + pages, _LAST_PAGE))
            if query.told is not None and (budget := self._budget()) is not None:
                run = min(run, max(budget, 1))
        return names.plus(state_of=STATES[state.replace("-", "_")], run_pages=run)

    def _run(self, start: int, end: int) -> int:
        """Return how many pages from `start` on have its state and its facts; only at an edge can they change."""
        facts = {name: pages for name, pages in self.facts.pages().items() if name in self.abi.facts}
        edges = {edge for low, high, _ in self.pages.ranges() for edge in (low, high)}
        edges |= {edge for pages in facts.values() for pair in pages for edge in pair}

        def kind(page: int) -> Any:
            known = frozenset(name for name, rows in facts.items() if any(low <= page < high for low, high in rows))
            return self.pages.state(page), known

        return min((edge for edge in edges if start < edge < end and kind(edge) != kind(start)), default=end) - start

    def _ask(self) -> None:
        """Find the answers. Raises `End` where it ends early."""
        query = self.call.query
        assert query is not None  # the caller has looked
        if query.each is None:
            self._ask_range(query)
            return
        items = self.names.fields[query.each]
        first = value(query.first, self.names) if query.first is not None else 0
        last = value(query.count, self.names) if query.count is not None else len(items)
        self.index = first
        rows = [(n, self.names.plus(it=items[n], index=n)) for n in range(first, min(last, len(items)))]
        prevalidate = self.call.prevalidate and self.call.prevalidate[0].value == "true"
        if prevalidate:
            for number, names in rows:
                self._judge_element(number, names)
        self.lists = {name: (first, []) for name in query.answer_each}
        for number, names in rows:
            self.index = number
            if not prevalidate:
                self._judge_element(number, names)
            pages = max(value(query.pages, names), 0)
            if pages and value(query.start, names) // PAGE + pages > _LAST_PAGE:
                raise End("out-of-range")
            budget = self._budget() if self.call.progress is not None else None
            if budget is not None and budget < self.done + pages:
                raise End("partial")
            found = self._looked_up(query, names)
            for name, expr in query.answer_each.items():
                self.lists[name][1].append(int(value(expr, found)))
            self.done += pages
            self.index = number + 1

    def _judge_element(self, number: int, names: Names) -> None:
        rule = self._first_broken(names, number)
        if rule is not None:
            raise End(rule.means or "invalid", rule)

    def _ask_range(self, query: Query) -> None:
        start, pages = value(query.start, self.names) // PAGE, max(value(query.pages, self.names), 0)
        if pages and start + pages > _LAST_PAGE:
            raise End("out-of-range")
        if query.answer_each and (pages + query.pack - 1) // query.pack > _MOST_ANSWERS:
            raise End("limit")
        lists: dict[str, tuple[int, list[Any]]] = {}
        for name, expr in query.answer_each.items():
            answers = []
            for page in range(start, start + pages):
                state = STATES[self.pages.state(page).replace("-", "_")]
                answers.append(int(value(expr, self.names.plus(state_of=state))))
            if query.pack > 1:
                groups = [answers[at : at + query.pack] for at in range(0, pages, query.pack)]
                answers = [sum(1 << bit for bit, answer in enumerate(group) if answer) for group in groups]
                if query.left is not None and pages % query.pack:
                    left = value(query.left, self.names)
                    answers[-1] += sum(left & 1 << bit for bit in range(pages % query.pack, query.pack))
            lists[name] = (0, answers)
        if query.runs is not None:
            lists[query.runs.field] = (0, self._runs_of(query.runs, start, start + pages))
        self.lists = lists
        self.done = pages

    def _runs_of(self, wanted: Runs, start: int, end: int) -> list[dict[str, int]]:
        """Return the elements of a list of runs. Raises `End` where there are too many."""
        edges = {edge for low, high, _ in self.pages.ranges() for edge in (low, high) if start < edge < end}
        rows: list[list[int]] = []
        for low in sorted({start, *edges}) if start < end else ():
            high = min((edge for edge in edges if edge > low), default=end)
            if value(wanted.where, self.names.plus(state_of=STATES[self.pages.state(low).replace("-", "_")])):
                if rows and rows[-1][1] == low:
                    rows[-1][1] = high
                else:
                    rows.append([low, high])
        self._found = len(rows)
        if self._found > value(wanted.most, self.names):
            raise End("limit")
        return [
            {name: int(value(expr, self.names.plus(run_start=low * PAGE, run_pages=high - low)))
             for name, expr in wanted.element.items()}
            for low, high in rows
        ]  # fmt: skip


__all__ = ["Questioned"]
