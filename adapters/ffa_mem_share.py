"""FF-A: a host that remembers the regions it gave handles for, and a guest that sends long lists in fragments.

Which call opens, continues and closes a region, what is kept of it and how much, the specification says
(`handles:`, `handle:`); this module only remembers it from one call to the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hvabi.abi.errors import CodecError
from hvabi.abi.expr import Name
from hvabi.abi.scope import Fields, Scope
from hvabi.adapters.batch import Batch
from hvabi.adapters.guest import Guest, Refused, _Answer, fields_of
from hvabi.adapters.host import Host
from hvabi.adapters.values import GuestCall
from hvabi.backend import PAGE_SHIFT, PAGE_SIZE, PageState, Status

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hvabi.abi.calls import HandleUse
    from hvabi.adapters.guest import RestOfCalls, _Conversation
    from hvabi.adapters.host import _HostCall
    from hvabi.adapters.values import HostAnswer

_NAMES = ("gathered", "kept", "parts", "complete", "handles", "held", "handle")


@dataclass(slots=True)
class Region:
    """What a host keeps under one handle.

    Attributes:
        kept: numbers of the call that opened it.
        items: its elements, as far as they have come.
        parts: calls that have brought elements.
        complete: whether all are there.

    """

    kept: Mapping[str, int]
    items: tuple[Any, ...]
    parts: int
    complete: bool


class HostAdapter(Host):
    """A host with handles. What a guest can make it keep is bounded by the rules of the specification."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self._regions: dict[int, Region] = {}
        self._given = 0

    def reset(self) -> None:
        """Forget every handle."""
        self._regions.clear()
        self._given = 0

    def has_handle(self, number: int, state: str) -> bool:
        """Whether a number is a handle of this host, and in this state."""
        region = self._regions.get(number)
        return region is not None and region.complete == (state == "complete")

    def more_names(self, call: _HostCall) -> Fields | None:
        """Return what a call knows of the handle that it uses."""
        use = call.definition.handle
        return None if use is None else Fields(_NAMES, _Names(self, call, use).fetch)

    def region(self, number: int) -> Region:
        """Return what is kept under a handle. Raises `CodecError` where there is no such handle."""
        found = self._regions.get(number)
        if found is None:
            raise CodecError("missing-field", "no such handle was given out", message_name=self.abi.id, found=number)
        return found

    def next_handle(self) -> int:
        """Return the handle that the next region gets: the numbers count up, and none has two regions."""
        assert self.abi.handles is not None  # only such an ABI asks
        number = Scope(self.static).int(self.abi.handles.first) + self._given
        while number in self._regions:
            number += 1
        return number

    def handle_count(self) -> int:
        """Return how many handles are alive."""
        return len(self._regions)

    def held(self) -> int:
        """Return the elements that are kept under all handles."""
        return sum(len(region.items) for region in self._regions.values())

    def ended(self, call: _HostCall, answer: HostAnswer) -> None:
        """Keep a region that was opened or got elements; forget one that is closed or cannot be finished."""
        use, names = call.definition.handle, call.more
        if use is None or names is None or answer.end != "return":
            return
        rule = call.definition.rule(answer.rule) if answer.rule is not None else None
        if rule is None and answer.status is Status.DONE:
            if use.does == "close":
                self._regions.pop(call.fields[use.of or ""], None)
                return
            self._regions[names["handle"]] = Region(
                names["kept"], tuple(names["gathered"]), names["parts"], bool(names["complete"])
            )
            self._given += use.does == "open"
        elif rule is not None and rule.drops:
            self._regions.pop(call.fields[use.of or ""], None)
        elif rule is None and use.does == "continue" and names.known.get("complete"):
            # The last elements have come and the work could not be done: nothing can come any more.
            self._regions.pop(call.fields[use.of or ""], None)


class GuestAdapter(Guest):
    """A guest that sends a long list in fragments, and takes back with its handle what it has shared.

    It takes back whole regions only: a range of which a region is only a part cannot be named.
    """

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        #: Handles that the host gave, each with the pages of its region: ``(first page, end page)``.
        self._shared: dict[int, tuple[int, int]] = {}
        uses = {call.handle.does: call.name for call in self.abi.calls.values() if call.handle and call.guest}
        self._more = self._other(uses["continue"])
        self._back = self._other(uses["close"])

    def _other(self, call: str) -> Guest:
        """Return a guest like this one that makes another call."""
        return Guest(self.spec, transport=self.transport.name, config=self.config, scratch=self.scratch, call=call)

    def reset(self) -> None:
        """Forget what has been shared."""
        self._shared.clear()

    # -- taking back --------------------------------------------------------------------------------------------

    def can_name(self, start_gpa: int, pages: int, to: PageState) -> bool:
        """Whether there is a call for this: one that shares, or regions that together are the range."""
        back = self._back.definition.guest
        assert back is not None  # looked at in the constructor of that guest
        if self.definition.name == self._back.definition.name or to.value not in back.states:
            return super().can_name(start_gpa, pages, to)
        if not self.enabled or pages <= 0 or start_gpa % PAGE_SIZE:
            return False
        first = start_gpa >> PAGE_SHIFT
        return self._regions_of(first, first + pages) is not None

    def _regions_of(self, first: int, end: int) -> list[tuple[int, int, int]] | None:
        """Return the regions that together are a range, as (first page, end page, handle), None where they are not."""
        found = sorted((*pages, handle) for handle, pages in self._shared.items() if first <= pages[0] < end)
        at = first
        for start, stop, _ in found:
            if start != at or stop > end:
                return None
            at = stop
        return found if at == end else None

    def batches(self, first: int, pages: int, to: PageState) -> list[Batch] | None:
        """Return one request for each region that is taken back."""
        back = self._back.definition.guest
        if back is None or to.value not in back.states:
            return None
        regions = self._regions_of(first, first + pages) or []
        return [
            Batch(self._back, start, stop - start, self._with_handle(self._back, handle), None, ())
            for start, stop, handle in regions
        ]

    @staticmethod
    def _with_handle(guest: Guest, handle: int, **more: Any) -> Any:
        """Return a request about a handle."""
        definition = guest.definition.guest
        assert definition is not None  # looked at in the constructor of that guest
        scope = guest.scope(handle=handle)
        given = {name: scope.int(expr) for name, expr in definition.request.items()}
        return guest.request.complete({**given, **more})

    # -- sharing ------------------------------------------------------------------------------------------------

    def answer_names(self, sent: Fields) -> dict[str, Any]:
        """Return what a first request says of the region: the numbers that the host is to keep, and the elements."""
        use = self.definition.handle
        if use is None or use.does != "open":
            return {}
        scope = self.scope(sent)
        return {
            "kept": {name: scope.int(expr) for name, expr in use.keep.items()},
            "gathered": sent[use.list or ""],
        }

    def rest(self, conversation: _Conversation, batch: Batch, answer: _Answer) -> RestOfCalls:
        """Send the rest of a list, one fragment after another; return the last answer. Raises `Refused`."""
        more = self._more
        definition, use, progress = more.definition.guest, more.definition.handle, more.definition.progress
        first = self.definition.progress
        assert definition is not None  # looked at in the constructor of that guest
        assert use is not None  # as above: it is a call that goes on with a handle
        assert progress is not None  # lint holds it for a call that is answered in parts
        assert first is not None  # that is why there is a rest
        handle = self._given(answer)
        part = more.scope().int(definition.part_elements) if definition.part_elements is not None else 1
        most = self.scope(answer.sent).int(first.bound)
        kept, gathered = answer.scope["kept"], tuple(answer.scope["gathered"])
        left, made = batch.rest, 1
        while left:
            if handle is None or made >= most:
                raise Refused("no end within the bound" if handle is not None else "the host gives no handle")
            value = self._with_handle(more, handle, **{use.list or "": left[:part]})
            wire = more.request.encode(value)
            gathered, left = (*gathered, *left[:part]), left[part:]
            made += 1
            conversation.calls += 1
            reply = yield GuestCall(regs=wire.regs, mem=wire.mem)
            sent = fields_of(value)
            answer = _Answer(
                more, sent, wire.regs, wire.mem, reply, conversation.to, kept=kept, gathered=gathered, handle=handle
            )
            answer.check()
            if answer.true(progress.done_when):
                if left:
                    raise Refused("the host says that all is done, and a part of it was never sent")
                return answer
            if not answer.true(progress.again_when):
                raise Refused("the host refuses")
        raise Refused("the host asks for more than there is")

    def ended(self, batch: Batch, answer: _Answer) -> None:
        """Remember a region that is shared, and forget one that is taken back."""
        if batch.guest is self._back:
            self._shared.pop(answer.sent[self._back.definition.handle.of or ""], None)  # type: ignore[union-attr]  # it closes one
            return
        handle = self._given(answer)
        if handle is None or handle in self._shared:
            raise Refused("the host gives no handle of its own for the region")
        self._shared[handle] = (batch.first, batch.first + batch.pages)

    @staticmethod
    def _given(answer: _Answer) -> int | None:
        """Return the handle that an answer gives: that of the first outcome `done` whose named values it has."""
        guest = answer.guest
        fields = guest.response.message.fields
        for outcome in guest.definition.outcomes.get("done", ()):
            plain = {
                name: expr
                for name, expr in outcome.fields.items()
                if isinstance(expr, Name) and expr.name in guest.static
            }
            if all(answer.fields[name] == answer.int(expr) for name, expr in plain.items()):
                return next((answer.fields[name] for name in outcome.fields if fields[name].chosen_by_host), None)
        return None


class _Names:
    """What one call knows of the handle that it uses, worked out when it is asked for."""

    def __init__(self, host: HostAdapter, call: _HostCall, use: HandleUse) -> None:
        self.host = host
        self.call = call
        self.use = use

    def fetch(self, name: str) -> Any:
        """Return the value of one of `_NAMES`."""
        scope, use, host = self.call.scope, self.use, self.host
        if name == "handles":
            return host.handle_count()
        if name == "held":
            return host.held()
        if name == "handle":
            return host.next_handle() if use.does == "open" else self.call.fields[use.of or ""]
        region = None if use.does == "open" else host.region(self.call.fields[use.of or ""])
        match name:
            case "kept":
                return region.kept if region else {key: scope.int(expr) for key, expr in use.keep.items()}
            case "gathered":
                added = self.call.fields[use.list] if use.list is not None else ()
                return (*(region.items if region else ()), *added)
            case "parts":
                return (region.parts if region else 0) + (use.does != "close")
            case _:
                return int(use.complete is None or scope.true(use.complete))
