"""The work of one host call: which pages, in which pieces, and where it stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hvabi.abi.model import BlockPlace
from hvabi.abi.scope import Scope, state_number
from hvabi.adapters.joined import adjoins, at_once, may_join
from hvabi.adapters.vmm import ask, errno_of
from hvabi.backend import (
    GPA_PAGES,
    PAGE_SHIFT,
    PAGE_SIZE,
    Change,
    Conversion,
    Outcome,
    PageState,
    Status,
    from_bitmap,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from hvabi.abi.calls import Answer, Convert, Direction, Rule
    from hvabi.adapters.host import _HostCall
    from hvabi.adapters.values import VmmReply, VmmRequest


class Stopped(Exception):  # not an error: how the work ends early
    """The work ended before all of it was done: by a rule, by an answer of user space, or with a status.

    `pages` of the piece that was under way are done.
    """

    def __init__(
        self,
        status: Status,
        *,
        to: PageState | None = None,
        rule: Rule | None = None,
        answer: Answer | None = None,
        pages: int = 0,
    ) -> None:
        super().__init__(status.value)
        self.status = status
        self.to = to
        self.rule = rule
        self.answer = answer
        self.pages = pages


class Part:
    """What one element, or the one range of a request, names: pages from `start` on, `pages` of them."""

    __slots__ = ("hint", "index", "item", "pages", "start", "to")

    def __init__(self, index: int, item: Any, start: int, pages: int, to: PageState | None, hint: int) -> None:
        self.index = index
        self.item = item
        self.start = start
        self.pages = pages
        self.to = to
        self.hint = hint


class Work:
    """Goes through the elements of a request, piece by piece, and keeps count."""

    def __init__(self, call: _HostCall, convert: Convert) -> None:
        self.call = call
        self.convert = convert
        self.definition = call.definition
        self.backend = call.host.backend
        self.inject = call.inject
        self.done = 0
        self.part_done = 0
        self.index = 0
        self.errno = 0
        self.chunks = 0
        self.asked = 0
        self.last_to: PageState | None = None
        self.changes: list[Change[PageState]] = []
        self.fact_changes: list[tuple[str, Change[bool]]] = []
        vmm = self.definition.vmm
        # Whether each piece is asked of user space where it can be seen.
        self.shows = call.exits and vmm is not None and vmm.abi is not None
        progress = self.definition.progress
        self.chunk = call.scope.int(progress.chunk) if progress and progress.chunk is not None else None
        self.unit_pages = 1
        if progress is not None and progress.unit == "granule" and progress.granule is not None:
            self.unit_pages = max(call.scope.int(progress.granule) // PAGE_SIZE, 1)
        self.whole_elements = progress is not None and progress.unit == "element" and not progress.mark_part
        transport = call.host.transport.name
        partial = [a for a in self.definition.outcomes.get("partial", ()) if a.guard.serves(transport)]
        # A host that has no way to say how far it came must not have come anywhere.
        self.all_or_nothing = all(answer.cannot is not None for answer in partial)
        absent = self.definition.absent
        self.absent: Any = absent[0].value if absent else "allow"
        prevalidate = self.definition.prevalidate
        self.prevalidate = bool(prevalidate) and prevalidate[0].value == "true"

    def scope(self, to: PageState | None) -> Scope:
        """Return the names of outcomes at this point of the work."""
        local: dict[str, Any] = {
            "done_pages": self.done,
            "done_bytes": self.done * PAGE_SIZE,
            "part_pages": self.part_done,
            "index": self.index,
            "errno": self.errno,
        }
        if to is not None:
            local["to"] = state_number(to.value)
        if self.convert.each is not None:
            items = self.call.known_items(self.convert.each)
            if self.index < len(items):
                local["it"] = items[self.index]
        return self.call.scope.with_locals(**local)

    # -- the elements -------------------------------------------------------------------------------------------

    def run(self) -> Generator[VmmRequest, VmmReply, None]:
        """Do all of the work. Raises `Stopped` where it ends early."""
        if self.prevalidate:
            self._prevalidate()
        try:
            yield from self._all()
        except Stopped:
            if self.all_or_nothing:
                self._take_back()
            raise

    def _all(self) -> Generator[VmmRequest, VmmReply, None]:
        parts = self.parts(judge=not self.prevalidate)
        vmm = self.definition.vmm
        asks_for_groups = vmm is not None and vmm.merge is not None
        if not asks_for_groups and not may_join(self):
            # One after the other: a rule about the pages of an element sees what the elements before it did.
            for each in parts:
                yield from self._convert([each])
            return
        joins = self._joins if asks_for_groups else adjoins
        part = next(parts, None)
        while part is not None:
            group = [part]
            part = next(parts, None)
            while part is not None and joins(group, part):
                group.append(part)
                part = next(parts, None)
            if asks_for_groups or len(group) == 1:
                yield from self._convert(group)
            elif not at_once(self, group):
                for each in group:
                    yield from self._convert([each])

    def _take_back(self) -> None:
        """Put everything back as it was."""
        self._put_back(self.changes)
        self._restore_facts(self.fact_changes)
        self.changes.clear()
        self.fact_changes.clear()
        self.done = self.part_done = 0

    def _put_back(self, changes: list[Change[PageState]]) -> None:
        """Undo changes, the last one first.

        Before and behind a conversion there are no more ranges than may be. Between its parts there can be one more,
        where a part that was private is still to come: then that one goes first.
        """
        waiting: list[Change[PageState]] = []
        for change in reversed(changes):
            waiting = [one for one in (*waiting, change) if not self._undone(one)]
            waiting = [one for one in waiting if not self._undone(one)]

    def _undone(self, change: Change[PageState]) -> bool:
        conversion = Conversion(change.start, change.end - change.start, change.before, None)
        return self.backend.convert(conversion, absent="allow").status is Status.DONE

    def _prevalidate(self) -> None:
        first = self._first()
        for part in self.parts():
            if isinstance(part, _Broken):
                # Nothing is done: the answer counts from the first element, not from the bad one.
                self.index = first
                raise Stopped(Status(part.rule.means or "invalid"), rule=part.rule)
            bad = self._bad_page(part, part.start, part.start + part.pages) if self._changes(part) else None
            if bad is not None:
                self.index = first
                raise Stopped(Status(bad[1].means or "invalid"), to=part.to, rule=bad[1])
            if part.to is not None and part.pages and self.absent != "allow":
                must = self.absent == "refuse" or part.to is PageState.PRIVATE
                if must and not self.backend.layout.contains(part.start, part.start + part.pages):
                    self.index = first
                    raise Stopped(Status.OUT_OF_RANGE, to=part.to)
        self.index = first

    def _changes(self, part: Part) -> bool:
        """Whether the part has pages that would change."""
        return bool(part.pages and (part.to is not None or self.convert.facts))

    def _bad_page(self, part: Part, low: int, high: int) -> tuple[int, Rule] | None:
        """Return the first page of [low, high) of a part that breaks a rule of scope `page`, and that rule."""
        scope = self.call.scope if part.item is None else self._local(part)
        return self.call.first_bad_page(scope, low, high)

    def _room(self, group: list[Part], at: int, size: int) -> tuple[int, Rule] | None:
        """Return how many of the `size` pages behind `at` can be done before one breaks a rule, and that rule."""
        if not self.call.host.rules(self.definition, "page"):
            return None
        offset = 0
        for part in group:
            low, high = max(at, offset), min(at + size, offset + part.pages)
            shift = part.start - offset
            bad = self._bad_page(part, low + shift, high + shift) if low < high else None
            if bad is not None:
                before = 0 if self.whole_elements else (bad[0] - part.start) // self.unit_pages * self.unit_pages
                return max(offset + before - at, 0), bad[1]
            offset += part.pages
        return None

    def _first(self) -> int:
        return self.call.scope.int(self.convert.first) if self.convert.first is not None else 0

    def parts(self, *, judge: bool = True) -> Iterator[Part]:
        """Yield the parts in order; with `judge`, a part that breaks a rule says so and is the last."""
        if self.convert.bits is not None:
            yield from self._runs_of_bits(self.convert.bits)
            return
        if self.convert.each is None:
            yield self._part(0, None, self.call.scope)
            return
        items = self.call.items(self.convert.each)
        scope = self.call.scope
        last = scope.int(self.convert.count) if self.convert.count is not None else len(items)
        self.index = self._first()
        local = scope.with_locals()
        for index in range(self._first(), min(last, len(items))):
            item = items[index]
            local.put(it=item, index=index)
            rule = self.call.first_broken("element", local) if judge else None
            if rule is not None:
                yield _broken(index, item, rule)
                return
            yield self._part(index, item, local)

    def _runs_of_bits(self, name: str) -> Iterator[Part]:
        """Yield a part for each run of equal bits: the pages of a part are asked for in one state."""
        scope, width = self.call.scope, self.call.placer.message.fields[name].bits
        start, pages = scope.int(self.convert.start) >> PAGE_SHIFT, max(scope.int(self.convert.pages), 0)
        raw = b"".join(item.to_bytes(width // 8, "little") for item in self.call.fields[name])
        pages = min(pages, len(raw) * 8)
        for run in from_bitmap(raw, 0, pages).runs(0, pages) if pages else ():
            bit = int(run.state is PageState.PRIVATE)
            to = direction(self.convert.to, scope.with_locals(it=bit))
            yield Part(0, None, start + run.start, run.end - run.start, to, 1)

    def _part(self, index: int, item: Any, scope: Scope) -> Part:
        pages = scope.int(self.convert.pages)
        start = scope.int(self.convert.start) >> PAGE_SHIFT
        to = direction(self.convert.to, scope)
        hint = scope.int(self.convert.hint) if self.convert.hint is not None else 1
        return Part(index, item, start, max(pages, 0), to, hint)

    def _joins(self, group: list[Part], part: Part) -> bool:
        """Whether user space is asked for this part together with those before it."""
        vmm = self.definition.vmm
        if vmm is None or vmm.merge is None or self.inject.stop_after is not None:
            return False
        if not adjoins(group, part) or part.hint != group[-1].hint:
            return False
        return self.call.scope.with_locals(it=part.item, index=part.index).true(vmm.merge)

    # -- one group of parts that follow each other --------------------------------------------------------------

    def _convert(self, group: list[Part]) -> Generator[VmmRequest, VmmReply, None]:
        first = group[0]
        self.index, self.part_done = first.index, 0
        if isinstance(first, _Broken):
            raise Stopped(Status(first.rule.means or "invalid"), rule=first.rule)
        self.last_to = first.to or self.last_to
        total = sum(part.pages for part in group)
        if total and self.convert.to is not None and first.to is None and not self._known(first):
            raise Stopped(Status.INVALID)
        if not any(self._changes(part) for part in group):
            for part in group:
                self.finish_part(part)
            return
        at = 0
        while at < total:
            size = self._next_size(first, first.start + at, total - at)
            if size <= 0:
                raise Stopped(Status.PARTIAL, to=first.to)
            bad = self._room(group, at, size)
            size = size if bad is None else bad[0]
            if size:
                try:
                    yield from self._piece(first, first.start + at, size)
                except Stopped as stop:
                    if stop.pages:
                        self.done += stop.pages
                        self._count(group, at + stop.pages)
                    raise
                at += size
                self.done += size
                self._count(group, at)
            if bad is not None:
                raise Stopped(Status(bad[1].means or "invalid"), to=first.to, rule=bad[1])
            self.chunks += 1 if self.chunk is None else -(-size // self.chunk)
            due = self.inject.event_after
            if self.chunk is not None and due is not None and self.chunks >= due and not self._is_last(group, at):
                raise Stopped(Status.PARTIAL, to=first.to)

    def _known(self, part: Part) -> bool:
        """Whether the direction is one that the specification maps to no change, and not just unknown."""
        to = self.convert.to
        if to is None or to.has_otherwise:
            return True
        scope = self.call.scope if part.item is None else self.call.scope.with_locals(it=part.item)
        return scope.int(to.of) in to.states

    def _next_size(self, part: Part, start: int, left: int) -> int:
        size = self._step(part, start, left)
        limit = self.inject.stop_after
        if limit is None:
            return size
        budget = limit - self.done
        if budget >= size:
            return size
        if self.whole_elements:
            return 0
        return budget // self.unit_pages * self.unit_pages

    def _step(self, part: Part, start: int, left: int) -> int:
        """Return the pages to do at once: a chunk, or as many chunks as cannot be told from doing one by one.

        A guest may name more chunks than there is time for.
        """
        if self.chunk is None:
            return left
        if self.shows:
            return min(left, self.chunk)
        size = left
        if self.inject.event_after is not None:
            size = min(size, max(self.inject.event_after - self.chunks, 1) * self.chunk)
        if self.absent == "refuse" or (self.absent == "allow-shared" and part.to is PageState.PRIVATE):
            hole = self.backend.layout.first_hole(start, start + size)
            if hole is not None:
                size = min(size, max((hole - start) // self.chunk, 1) * self.chunk)
        return size

    def _is_last(self, group: list[Part], at: int) -> bool:
        if at < sum(part.pages for part in group):
            return False
        if self.convert.each is None:
            return True
        items = self.call.items(self.convert.each)
        last = self.call.scope.int(self.convert.count) if self.convert.count is not None else len(items)
        return group[-1].index + 1 >= last

    def _piece(self, part: Part, start: int, pages: int) -> Generator[VmmRequest, VmmReply, None]:
        """Ask user space, then change the pages. Raises `Stopped` with what it says."""
        vmm = self.definition.vmm
        if vmm is not None:
            errno = yield from self._ask(part, start, pages)
            if errno:
                self._refused(errno, part)
        if start + pages > GPA_PAGES:
            # No page has such a number. Where user space has already agreed, its word stands.
            if not self.shows:
                raise Stopped(Status.OUT_OF_RANGE, to=part.to)
            start = min(start, GPA_PAGES)
            pages = GPA_PAGES - start
        facts = self._set_facts(part, start, pages)
        if part.to is None:
            self.fact_changes += facts
            return
        outcome = self.backend.convert(Conversion(start, pages, part.to, None), absent=self.absent)
        if outcome.status is not Status.DONE:
            self._restore_facts(facts)
            raise Stopped(outcome.status, to=part.to, pages=self._kept(part, outcome))
        self.changes += outcome.changed
        self.fact_changes += facts

    def _kept(self, part: Part, outcome: Outcome) -> int:
        """Return the pages of a piece that ended in the middle which count as done; the others are put back."""
        done = outcome.pages_done
        keep = 0 if self.whole_elements else done // self.unit_pages * self.unit_pages
        if not done:
            return 0
        start = outcome.next - done
        kept = start + keep
        self._put_back([one._replace(start=max(one.start, kept)) for one in outcome.changed if one.end > kept])
        self.changes += [one._replace(end=min(one.end, kept)) for one in outcome.changed if one.start < kept]
        if keep:
            self.fact_changes += self._set_facts(part, start, keep)
        return keep

    def _ask(self, part: Part, start: int, pages: int) -> Generator[VmmRequest, VmmReply, int]:
        vmm = self.definition.vmm
        assert vmm is not None  # the caller has looked
        self.asked += 1
        if self.shows:
            local: dict[str, Any] = {"piece_start": start << PAGE_SHIFT, "piece_pages": pages, "piece_hint": part.hint}
            if part.to is not None:
                local["to"] = state_number(part.to.value)
            if part.item is not None:
                local["it"] = part.item
            request = ask(vmm, self.call.scope.with_locals(**local))
            reply = yield request
            return errno_of(vmm, request, reply)
        if self.asked == 1 and self.inject.vmm_errno:
            return self.inject.vmm_errno
        return 0

    def _refused(self, errno: int, part: Part) -> None:
        """Raise `Stopped` with what an errno of user space becomes."""
        vmm = self.definition.vmm
        assert vmm is not None  # the caller has looked
        self.errno = errno
        for row in vmm.errno:
            if row.errno is not None and row.errno != errno:
                continue
            if not row.guard.serves(self.call.host.transport.name):
                continue
            status = Status(row.outcome) if row.outcome else Status.FAILED
            raise Stopped(status, to=part.to, answer=row.answer)
        raise Stopped(Status.FAILED, to=part.to)

    def _set_facts(self, part: Part, start: int, pages: int) -> list[tuple[str, Change[bool]]]:
        """Set all facts of the pages and return what changed; at a bound set none and raise `Stopped`."""
        changed: list[tuple[str, Change[bool]]] = []
        for name, expr in self.convert.facts.items():
            value = self.scope(self.last_to).true(expr)
            outcome = self.backend.set_fact(name, start, start + pages, value)
            if outcome.status is not Status.DONE:
                self._restore_facts(changed)
                raise Stopped(outcome.status, to=part.to)
            changed += [(name, change) for change in outcome.changed]
        return changed

    def _restore_facts(self, changed: list[tuple[str, Change[bool]]]) -> None:
        """Put facts back as they were: the way back was within the bound on the way here."""
        for name, change in reversed(changed):
            self.backend.set_fact(name, change.start, change.end, change.before)

    # -- the account of elements --------------------------------------------------------------------------------

    def _count(self, group: list[Part], at: int) -> None:
        """Mark the parts that are finished after `at` pages of the group, and the one in the middle."""
        for part in group:
            if at >= part.pages:
                at -= part.pages
                if part.index >= self.index:
                    self.finish_part(part)
                continue
            if part.index >= self.index:
                self.index, self.part_done = part.index, at
                if at:
                    self._mark_part(part)
            return

    def finish_part(self, part: Part) -> None:
        """Mark a part that is done, and go on to the next."""
        progress = self.definition.progress
        if part.item is not None and progress is not None and progress.mark:
            self._mark(part, {name: self._local(part).int(expr) for name, expr in progress.mark.items()})
        self.index, self.part_done = part.index + 1, 0

    def _mark_part(self, part: Part) -> None:
        progress = self.definition.progress
        if part.item is not None and progress is not None and progress.mark_part:
            scope = self._local(part).with_locals(part_pages=self.part_done)
            self._mark(part, {name: scope.int(expr) for name, expr in progress.mark_part.items()})

    def _local(self, part: Part) -> Scope:
        return self.call.scope.with_locals(it=part.item, index=part.index)

    def _mark(self, part: Part, updates: dict[str, int]) -> None:
        """Write an element back with updated fields."""
        call = self.call
        each = self.convert.each or ""
        place = call.placer.place_of(each)
        if not isinstance(place, BlockPlace):
            return
        field = call.placer.message.fields[each]
        block = call.placer.blocks[place.block]
        item = part.item._replace(**updates)
        raw = call.placer.element_bytes(field, item, block, f"{each}[{part.index}]")
        stride = call.scope.int(place.stride) if place.stride is not None else len(raw)
        offset = call.scope.int(place.at) + part.index * stride
        call.placer.write(block, offset, raw, call.scope, call)


class _Broken(Part):
    """An element that breaks a rule."""

    __slots__ = ("rule",)
    rule: Rule


def _broken(index: int, item: Any, rule: Rule) -> _Broken:
    part = _Broken(index, item, 0, 0, None, 1)
    part.rule = rule
    return part


def direction(to: Direction | None, scope: Scope) -> PageState | None:
    """Return the state that a request asks for, or None where it changes nothing or is not known."""
    if to is None:
        return None
    word = to.states.get(scope.int(to.of), to.otherwise)
    return None if word is None or word == "none" else PageState(word)
