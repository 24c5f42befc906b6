"""What a request does, by brute force: element by element, piece by piece, on plain page sets."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from hvabi.abi.calls import GATHERED
from hvabi.conformance.oracle.asked import PAGE, Asked
from hvabi.conformance.oracle.checks import first_failing
from hvabi.conformance.oracle.held import number_of
from hvabi.conformance.oracle.pages import inside
from hvabi.conformance.oracle.walk import STATES, Names, value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hvabi.abi.calls import Answer, Rule
    from hvabi.abi.expr import Expr
    from hvabi.conformance.case import Pages

_LAST_PAGE = 1 << 52


class End(Exception):  # how the brute-force work ends early
    """The work ended before all of it was done: by a rule, by an answer of its own, or with a status."""

    def __init__(self, status: str, rule: Rule | None = None, answer: Answer | None = None) -> None:
        super().__init__(status)
        self.status = status
        self.rule = rule
        self.answer = answer


class Working(Asked):
    """A request that can be carried out; `done`, `index` and the page sets say how far it came."""

    _rest: Pages = ()

    def _local(self) -> Names:
        local: dict[str, Any] = {
            "done_pages": self.done,
            "done_bytes": self.done * PAGE,
            "part_pages": self.part,
            "index": self.index,
            "errno": self.errno,
        }
        if self.to is not None:
            local["to"] = STATES[self.to.replace("-", "_")]
        items = self.elements()
        if self.index < len(items):
            local["it"] = items[self.index]
        if self.call.handle is not None:
            local["handle"] = number_of(self, self.call.handle)
        return self.names.plus(**local)

    def elements(self) -> Sequence[Any]:
        """Return the elements that the call goes through: those that are kept under its handle too."""
        if self.each is None:
            return ()
        if self.call.handle is not None:
            found: Sequence[Any] = self.names.local.get(GATHERED, ())
            return found
        items: Sequence[Any] = self.names.fields.get(self.each, ())
        return items

    def _elements(self) -> list[tuple[int, Any, Names]]:
        convert = self.call.convert
        assert convert is not None  # the caller has looked
        if convert.bits is not None:
            return self._bit_runs(convert.bits)
        if convert.each is None:
            return [(0, None, self.names)]
        if self.shared.elements is None:
            items = self.elements()
            first = value(convert.first, self.names) if convert.first is not None else 0
            last = value(convert.count, self.names) if convert.count is not None else len(items)
            inside, rows = self.names.inside(items), range(first, min(last, len(items)))
            self.shared.elements = first, [(number, items[number], inside[number]) for number in rows]
        self.index, elements = self.shared.elements
        return elements

    def _bit_runs(self, name: str) -> list[tuple[int, Any, Names]]:
        """Return one row for each run of equal bits; ``run`` of its names says which pages of the range it has."""
        convert = self.call.convert
        assert convert is not None  # the caller has looked
        width = self.message.fields[name].bits
        bits = [item >> bit & 1 for item in self.names.fields[name] for bit in range(width)]
        bits = bits[: max(value(convert.pages, self.names), 0)]
        rows, at = [], 0
        for bit, group in itertools.groupby(bits):
            size = len(list(group))
            rows.append((0, None, self.names.plus(it=bit, run=(at, size))))
            at += size
        return rows

    def named(self) -> list[tuple[Names, int, int, str | None]]:
        """Return what the request names: for each element its names, first page, pages and the state asked for."""
        rows = zip(self._elements(), self._all_wanted(), strict=True)
        return [(names, start, pages, to) for (_, _, names), (start, pages, to, _) in rows]

    def _all_wanted(self) -> list[tuple[int, int, str | None, bool]]:
        if self.shared.wanted is None:
            self.shared.wanted = [self._wanted(names) for _, _, names in self._elements()]
        return self.shared.wanted

    def _wanted(self, names: Names) -> tuple[int, int, str | None, bool]:
        """Return first page, pages, state asked for and whether the direction is known at all."""
        convert = self.call.convert
        assert convert is not None  # the caller has looked
        start, pages = value(convert.start, names) // PAGE, max(value(convert.pages, names), 0)
        if convert.bits is not None:
            offset, pages = names.local["run"]
            start += offset
        if convert.to is None:
            return start, pages, None, True
        number = value(convert.to.of, names)
        if number in convert.to.states:
            word = convert.to.states[number]
        elif convert.to.has_otherwise:
            word = convert.to.otherwise
        else:
            return start, pages, None, False
        return start, pages, None if word in (None, "none") else word, True

    def _work(self) -> None:
        """Do all of the work. Raises `End` where it ends early."""
        pages, facts = self.pages.copy(), self.facts.copy()
        try:
            self._do()
        except End:
            partial = self.call.outcomes.get("partial", ())
            serving = [a for a in partial if a.guard.transports is None or self.transport.name in a.guard.transports]
            if all(answer.cannot is not None for answer in serving):
                # There is no way to say how far the host came, so it came nowhere.
                self.pages, self.facts = pages, facts
                self.done = self.part = 0
            raise

    def _do(self) -> None:
        convert = self.call.convert
        assert convert is not None  # the caller has looked
        elements = self._elements()
        begin = self.index
        wanted = self._all_wanted()
        self._rest = tuple((start, start + pages) for start, pages, to, _ in wanted if to and pages)
        prevalidate = self.call.prevalidate and self.call.prevalidate[0].value == "true"
        if prevalidate:
            for position, ((number, _, names), (start, pages, to, _)) in enumerate(zip(elements, wanted, strict=True)):
                self.index = number
                rule = self._first_broken(names, position)
                if rule is not None:
                    self.index = begin
                    raise End(rule.means or "invalid", rule)
                bad = self._bad_page(start, start + pages, names) if to is not None or convert.facts else None
                if bad is not None:
                    self.index = begin
                    raise End(bad[1].means or "invalid", bad[1])
                if to is not None and pages and not self._present(start, pages, to):
                    self.index = begin
                    raise End("out-of-range")
        budget = self._budget()
        for position, ((number, item, names), (start, pages, to, known)) in enumerate(
            zip(elements, wanted, strict=True)
        ):
            self.index, self.part = number, 0
            rule = None if prevalidate else self._first_broken(names, position)
            if rule is not None:
                raise End(rule.means or "invalid", rule)
            self.to = to or self.to
            if not known and pages:
                raise End("invalid")
            if pages and (to is not None or convert.facts):
                self._convert_one(start, pages, to, budget, names, item, last=position == len(elements) - 1)
            self._mark(number, item, names)
            self.index, self.part = number + 1, 0

    def _budget(self) -> int | None:
        if self.inject is None or self.inject.fault != "stop-after":
            return None
        return int(self.inject.arguments["pages"])

    def _convert_one(
        self, start: int, pages: int, to: str | None, budget: int | None, names: Names, item: Any, *, last: bool
    ) -> None:
        progress = self.call.progress
        chunk = None
        # Pieces show only where an event comes between them.
        if progress and progress.chunk is not None and self.inject is not None and self.inject.fault == "event-pending":
            chunk = value(progress.chunk, self.names)
        done_here = 0
        asked_first = self.done == 0
        chunks = getattr(self, "_chunks", 0)
        while done_here < pages:
            size = pages - done_here if chunk is None else min(chunk, pages - done_here)
            if budget is not None and budget - self.done < size:
                size = self._rounded(budget - self.done)
                if size <= 0:
                    self._mark_part(item, names)
                    raise End("partial")
            bad = self._bad_page(start + done_here, start + done_here + size, names)
            if bad is not None:
                size = self._whole_units(bad[0] - start) - done_here
                if size <= 0:
                    self._mark_part(item, names)
                    raise End(bad[1].means or "invalid", bad[1])
            if asked_first and self.inject is not None and self.inject.fault == "vmm-error":
                self._vmm_error(names)
            asked_first = False
            self._change(start + done_here, size, to, names)
            done_here += size
            self.done += size
            self.part = done_here
            if bad is not None:
                self._mark_part(item, names)
                raise End(bad[1].means or "invalid", bad[1])
            chunks += 1
            self._chunks = chunks
            whole = done_here == pages
            if self._event_due(chunks, chunk) and not (whole and last):
                if whole:
                    self._mark(self.index, item, names)
                    self.index, self.part = self.index + 1, 0
                else:
                    self._mark_part(item, names)
                raise End("partial")

    _chunks = 0

    def _event_due(self, chunks: int, chunk: int | None) -> bool:
        if chunk is None or self.inject is None or self.inject.fault != "event-pending":
            return False
        return chunks >= int(self.inject.arguments["after"])

    def _bad_page(self, low: int, high: int, names: Names) -> tuple[int, Rule] | None:
        """Return the first page of [low, high) that breaks a rule about single pages, and the first such rule."""
        rules = self._rules("page")
        if not rules:
            return None
        kept, self.names = self.names, names
        try:
            found = [
                (page, number, rule)
                for number, rule in enumerate(rules)
                if (page := first_failing(rule, self, low, high)) is not None
            ]
        finally:
            self.names = kept
        first = min(found, key=lambda one: one[:2], default=None)
        return None if first is None else (first[0], first[2])

    def _whole_units(self, pages: int) -> int:
        """Return the pages before a bad one that a host can say are done, from the start of the element."""
        return pages if self.call.progress is None else self._rounded(pages)

    def _rounded(self, left: int) -> int:
        progress = self.call.progress
        if progress is None or (progress.unit == "element" and not progress.mark_part):
            return 0
        unit = 1
        if progress.unit == "granule" and progress.granule is not None:
            unit = max(value(progress.granule, self.names) // PAGE, 1)
        return left // unit * unit

    def _vmm_error(self, names: Names) -> None:
        vmm = self.call.vmm
        errno = int(self.inject.arguments["errno"]) if self.inject else 0
        if vmm is None or not errno:
            return
        self.errno = errno
        for row in vmm.errno:
            if row.errno not in (None, errno):
                continue
            if row.guard.transports is None or self.transport.name in row.guard.transports:
                raise End(row.outcome or "failed", answer=row.answer)
        raise End("failed")

    def _present(self, start: int, pages: int, to: str) -> bool:
        absent = self.call.absent[0].value if self.call.absent else "allow"
        if absent == "allow" or (absent == "allow-shared" and to != "private"):
            return True
        return inside(self.memory, start, start + pages)

    def _change(self, start: int, pages: int, to: str | None, names: Names) -> None:
        if start + pages > _LAST_PAGE:
            raise End("out-of-range")
        if to is not None:
            if not self._present(start, pages, to):
                raise End("out-of-range")
            after = self.pages.copy()
            after.lay(start, start + pages, to)
            bound = self.setup.max_ranges
            if bound is not None and len(self.pages.ranges()) < len(after.ranges()) > bound:
                raise End("limit")
            self.pages = after
        if self.call.convert is None or not self.call.convert.facts:
            return
        names = names.plus(**self._local().local)
        for name, expr in self.call.convert.facts.items():
            self.facts.lay(name, start, start + pages, bool(value(expr, names)))

    def _mark(self, number: int, item: Any, names: Names) -> None:
        progress = self.call.progress
        if item is not None and progress is not None and progress.mark:
            self.marks.append((number, self._updates(progress.mark, names)))

    def _mark_part(self, item: Any, names: Names) -> None:
        progress = self.call.progress
        if item is not None and progress is not None and progress.mark_part and self.part:
            self.marks.append((self.index, self._updates(progress.mark_part, names.plus(part_pages=self.part))))

    @staticmethod
    def _updates(fields: Mapping[str, Expr], names: Names) -> dict[str, int]:
        return {name: int(value(expr, names)) for name, expr in fields.items()}
