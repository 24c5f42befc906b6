"""What a guest puts into one request: a piece of the range, or elements of a list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hvabi.abi.expr import compiled, names, paths
from hvabi.abi.scope import Fields, state_number
from hvabi.adapters.errors import AdapterError
from hvabi.backend import PAGE_SHIFT, PAGE_SIZE, PageState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hvabi.abi.calls import Progress
    from hvabi.abi.expr import Expr
    from hvabi.adapters.guest import Guest, _Answer


class Batch:
    """One request of a guest and how far the host has come with it.

    Attributes:
        first: first page, `pages` of them.
        request: the value to send first.
        each: name of the list field, or None for a range.
        element_pages: pages of each element.
        rest: elements that further calls bring, where one does not hold them all.
        before: pages done as of the last answer.

    """

    def __init__(
        self,
        guest: Guest,
        first: int,
        pages: int,
        request: Any,
        each: str | None,
        element_pages: tuple[int, ...],
        rest: tuple[Any, ...] = (),
    ) -> None:
        self.guest = guest
        self.first = first
        self.pages = pages
        self.request = request
        self.each = each
        self.element_pages = element_pages
        self.rest = rest
        self.before = 0

    def done_pages(self, answer: _Answer, progress: Progress, left: int, *, within: bool) -> int | None:
        """Return the pages that the answer says are done, or None where that is backwards, outside or uneven.

        Without `within` the element at which the host stopped counts for nothing: it is the one that failed.
        """
        completed = answer.int(progress.completed)
        if progress.unit != "element":
            unit = PAGE_SIZE if progress.unit == "page" else 1
            if progress.unit == "granule" and progress.granule is not None:
                unit = answer.int(progress.granule)
            size = completed * unit
            return size // PAGE_SIZE if size % PAGE_SIZE == 0 and self.before <= size // PAGE_SIZE <= left else None
        count = len(self.element_pages)
        if not 0 <= completed <= count:
            return None
        done = sum(self.element_pages[:completed])
        if not within:
            # An error is about an element that there is. What an earlier answer said of it stays believed.
            if completed == count or self.before >= done + self.element_pages[completed]:
                return None
            return done
        if progress.within is not None and completed < count:
            part = answer.int(progress.within, index=completed)
            if not 0 <= part <= self.element_pages[completed]:
                return None
            done += part
        return done if self.before <= done <= self.pages else None

    def next_request(self, answer: _Answer, progress: Progress, value: Any) -> Any:
        """Return the value of the following request."""
        updates: dict[str, Any] = {}
        for path, expr in progress.next.items():
            name, _, inner = path.partition(".")
            number = answer.int(expr)
            if inner:
                word = updates.get(name, getattr(value, name))
                updates[name] = word._replace(**{inner: number})
            else:
                updates[name] = number
        if progress.resume == "same-buffer" and self.each is not None:
            updates.update(self._same_buffer(answer, progress, value))
        return value._replace(**updates)

    def _same_buffer(self, answer: _Answer, progress: Progress, value: Any) -> dict[str, Any]:
        """Take over from the host's buffer what tells progress, and nothing else: it could have changed more."""
        updates: dict[str, Any] = {
            name: answer.fields[name]
            for name in answer.fields.names
            if name in value._fields and name != self.each and _tells(progress, name)
        }
        marks = set(progress.mark) | set(progress.mark_part)
        each = self.each or ""
        if marks and each in answer.fields:
            ours, theirs = getattr(value, each), answer.fields[each]
            # Behind the first element that is not done nothing can be done yet: a mark there would have it skipped.
            reached = answer.int(progress.completed) + 1
            updates[each] = (
                *(
                    item._replace(**{name: getattr(other, name) for name in marks})
                    for item, other in zip(ours[:reached], theirs[:reached], strict=False)
                ),
                *ours[reached:],
            )
        return updates


def _tells(progress: Progress, name: str) -> bool:
    """Whether the expression of progress reads this response field."""
    return f"response.{name}" in paths(progress.completed) or name in paths(progress.completed)


def plan(
    guest: Guest, first: int, pages: int, to: PageState, *, smallest: bool = False, attempt: int = 0
) -> Iterator[Batch]:
    """Split a conversion into requests, as large as the ABI and the transport allow.

    Args:
        guest: the guest.
        first: first page.
        pages: how many.
        to: the state asked for.
        smallest: whether only the smallest elements are used, or one granule per request.
        attempt: number of the first request.

    """
    own = guest.batches(first, pages, to)
    if own is not None:
        yield from own
        return
    definition = guest.definition.guest
    convert = guest.definition.convert or guest.definition.query
    if definition is None or convert is None:
        raise AdapterError(f"{guest.abi.id} has no guest role", code="no-guest-role")
    end = first + pages
    while first < end:
        if convert.each is None:
            batch = _range(guest, first, end - first, to, attempt, smallest=smallest)
        else:
            batch = _list(guest, convert.each, first, end - first, to, attempt, smallest=smallest)
        yield batch
        first += batch.pages
        attempt += 1


def _range(guest: Guest, first: int, left: int, to: PageState, attempt: int, *, smallest: bool) -> Batch:
    definition = guest.definition.guest
    assert definition is not None  # looked at by plan
    scope = guest.scope()
    most = scope.int(definition.max_pages) if definition.max_pages is not None else left
    if smallest:
        most = guest.granule_pages()
    pages = min(left, max(most, 1))
    request = _request(guest, first, pages, to, attempt, None, ())
    return Batch(guest, first, pages, request, None, ())


def _list(guest: Guest, each: str, first: int, left: int, to: PageState, attempt: int, *, smallest: bool) -> Batch:
    definition = guest.definition.guest
    assert definition is not None  # looked at by plan
    most = _most_elements(guest, each, first, to, attempt)
    sizes = definition.element_pages or (1,)
    sizes = sizes[-1:] if smallest else sizes
    plain = definition.element["value"] if set(definition.element) == {"value"} else None
    scope = guest.scope(to=state_number(to.value))
    element = [(name, compiled(expr, "int")) for name, expr in definition.element.items()]
    items: list[Any] = []
    element_pages: list[int] = []
    at = first
    while left and len(items) < most:
        size = next((size for size in sizes if size <= left and at % size == 0), sizes[-1])
        scope.put(start=at << PAGE_SHIFT, pages=size, index=len(items))
        items.append({name: number(scope) for name, number in element} if plain is None else scope.int(plain))
        element_pages.append(size)
        at += size
        left -= size
    part = _elements_of(guest, definition.part_elements, each, first, to, attempt)
    part = len(items) if part is None else part if guest.part_limit is None else guest.part_limit
    request = _request(guest, first, at - first, to, attempt, each, tuple(items[:part]), count=len(items))
    return Batch(guest, first, at - first, request, each, tuple(element_pages), tuple(items[part:]))


def _most_elements(guest: Guest, each: str, first: int, to: PageState, attempt: int) -> int:
    """Return how many elements fit one request, which may depend on where its blocks lie."""
    definition = guest.definition.guest
    assert definition is not None  # looked at by plan
    return _elements_of(guest, definition.max_elements, each, first, to, attempt) or 1


def _elements_of(guest: Guest, expr: Expr | None, each: str, first: int, to: PageState, attempt: int) -> int | None:
    """Return a number of elements that may depend on the fields of the request, None where there is no such number."""
    if expr is None:
        return None
    empty = _request(guest, first, 1, to, attempt, each, ())
    known = dict(zip(empty._fields, empty, strict=True))
    return max(guest.scope(Fields(known, known.__getitem__)).int(expr), 1)


def _request(
    guest: Guest,
    first: int,
    pages: int,
    to: PageState,
    attempt: int,
    each: str | None,
    items: tuple[Any, ...],
    *,
    count: int | None = None,
) -> Any:
    definition = guest.definition.guest
    assert definition is not None  # looked at by plan
    scope = guest.scope(
        start=first << PAGE_SHIFT,
        pages=pages,
        count=len(items) if count is None else count,
        to=state_number(to.value),
        attempt=attempt,
    )
    given: dict[str, Any] = {}
    for path, expr in definition.request.items():
        name, _, inner = path.partition(".")
        number = scope.int(expr)
        if inner:
            given.setdefault(name, {})[inner] = number
        else:
            given[name] = number
    bits = guest.definition.convert.bits if guest.definition.convert is not None else None
    if bits is not None:
        given[bits] = _all_bits(guest, bits, given, set_=scope.true(definition.element["value"]))
    if each is not None:
        given[each] = items
        if not items:
            given.update(_no_elements(guest, each, given))
    return guest.request.complete(given)


def _all_bits(guest: Guest, name: str, given: dict[str, Any], *, set_: bool) -> tuple[int, ...]:
    """Return as many integers as the list has, with every bit of them set, or none."""
    field = guest.request.message.fields[name]
    empty = guest.request.complete(given)
    known = dict(zip(empty._fields, empty, strict=True))
    scope = guest.scope(Fields(known, known.__getitem__))
    count = scope.int(field.count) if field.count is not None else 0
    return ((1 << field.bits) - 1 if set_ else 0,) * count


def _no_elements(guest: Guest, each: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return values for fields whose default counts the elements, while there are none yet."""
    return {
        name: 0
        for name, field in guest.request.message.fields.items()
        if name not in given and field.default is not None and each in names(field.default)
    }
