"""FF-A: a host that remembers the regions it gave handles for, and a guest that sends long lists in fragments.

Which call opens, continues and closes a region, what is kept of it and how much, the specification says
(`handles:`, `handle:`); this module only remembers it from one call to the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hvabi.abi.errors import CodecError
from hvabi.abi.scope import Fields, Scope
from hvabi.adapters.host import Host
from hvabi.backend import Status

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hvabi.abi.calls import HandleUse
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
