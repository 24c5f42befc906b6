"""Hosts that keep shared pages in a list of nodes, with its bugs, and hosts that trip over memory slots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from hvabi.adapters.host import _HostCall
from hvabi.backend import Backend, Conversion, Outcome, PageState, Run, Status
from hvabi.conformance.liars.hosts import LyingHost

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hvabi.abi.calls import Rule
    from hvabi.abi.scope import Scope

Nodes = list[tuple[int, int]]


class _NodeList(Backend):
    """Keeps ``(first page, end page)`` nodes beside the right map, and shows the nodes."""

    joined: ClassVar[bool] = True

    def __init__(self, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.nodes: Nodes = []

    def reset(self, *arguments: Any, **keywords: Any) -> None:
        """Take the state over."""
        super().reset(*arguments, **keywords)
        self.nodes = [(run.start, run.end) for run in super().query()]

    def convert(self, conversion: Conversion, **keywords: Any) -> Outcome:
        """Do it in both."""
        outcome = super().convert(conversion, **keywords)
        if outcome.status is Status.DONE and conversion.page_count:
            if conversion.to is PageState.PRIVATE:
                self.remove(conversion.start, conversion.end)
            else:
                self.add(conversion.start, conversion.end)
            self.nodes.sort()
        return outcome

    def add(self, start: int, end: int) -> None:
        """Add a node, joined with all that it meets."""
        met = [node for node in self.nodes if node[0] <= end and start <= node[1]]
        self.nodes = [node for node in self.nodes if node not in met]
        self.nodes.append((min([start, *(node[0] for node in met)]), max([end, *(node[1] for node in met)])))

    def remove(self, start: int, end: int) -> None:
        """Cut a range out of every node."""
        self.nodes = [piece for node in self.nodes for piece in _cut(node, start, end)]

    def query(self, *arguments: Any, **keywords: Any) -> tuple[Run[PageState], ...]:
        """Show the nodes, joined where they overlap."""
        out: Nodes = []
        for start, end in sorted(self.nodes):
            if out and start <= out[-1][1] and self.joined:
                out[-1] = (out[-1][0], max(out[-1][1], end))
            else:
                out.append((start, end))
        return tuple(Run(start, end, PageState.SHARED) for start, end in out)


def _cut(node: tuple[int, int], start: int, end: int) -> Iterator[tuple[int, int]]:
    if end <= node[0] or node[1] <= start:
        yield node
        return
    if node[0] < start:
        yield node[0], start
    if end < node[1]:
        yield end, node[1]


class _FirstOnly(_NodeList):
    def remove(self, start: int, end: int) -> None:
        """Stop behind the first node that is met."""
        for number, node in enumerate(self.nodes):
            if start < node[1] and node[0] < end:
                self.nodes[number : number + 1] = _cut(node, start, end)
                return


class _Overruns(_FirstOnly):
    def add(self, start: int, end: int) -> None:
        """Make the node in which the range begins longer, over whatever comes next."""
        for number, node in enumerate(self.nodes):
            if node[0] <= start <= node[1]:
                self.nodes[number] = (node[0], max(node[1], end))
                return
        super().add(start, end)


class _Duplicates(_FirstOnly):
    def add(self, start: int, end: int) -> None:
        """Put a node in before one that begins inside the range."""
        if any(start < node[0] < end for node in self.nodes):
            self.nodes.append((start, end))
            return
        super().add(start, end)


class _ForwardOnly(_NodeList):
    joined = False

    def add(self, start: int, end: int) -> None:
        """Join with nodes that begin left of the range, not with one that begins at its end."""
        met = [node for node in self.nodes if node[0] < end and start <= node[1]]
        self.nodes = [node for node in self.nodes if node not in met]
        self.nodes.append((min([start, *(node[0] for node in met)]), max([end, *(node[1] for node in met)])))


class _OneSlot(Backend):
    def convert(self, conversion: Conversion, **keywords: Any) -> Outcome:
        """Refuse what is not all in one slot."""
        slots = self.layout.slots
        if slots is not None and conversion.page_count:
            inside = [slot for slot in slots if slot[0] <= conversion.start and conversion.end <= slot[1]]
            met = [slot for slot in slots if slot[0] < conversion.end and conversion.start < slot[1]]
            if len(met) > 1 and not inside:
                return Outcome(Status.FAILED, 0, conversion.start)
        return super().convert(conversion, **keywords)


class OverrunsNextNode(LyingHost):
    """Makes a node longer, over the next one, and takes only the first of them away."""

    backend_class = _Overruns


class InsertsDuplicate(LyingHost):
    """Puts a second node beside one that begins in the range."""

    backend_class = _Duplicates


class JoinsForwardOnly(LyingHost):
    """Does not join a range with the node behind it."""

    backend_class = _ForwardOnly


class RefusesTwoSlots(LyingHost):
    """Refuses a range over two slots."""

    backend_class = _OneSlot


class _Panics(_HostCall):
    def refuse(self, rule: Rule, scope: Scope, work: Any = None) -> Any:
        """Give up on what is not known."""
        if rule.check == "selected":
            raise RuntimeError("not implemented: unknown request")
        return super().refuse(rule, scope, work)


class PanicsOnUnknown(LyingHost):
    """Ends on a request that it does not know."""

    call_class = _Panics
