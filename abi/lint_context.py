"""What the checks of lint share: one file, its model, and where findings go."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hvabi.abi.errors import UsageError
from hvabi.abi.schema import locate
from hvabi.abi.source_node import find

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from hvabi.abi.calls import Answer, Call
    from hvabi.abi.diagnostics import Collector, Severity
    from hvabi.abi.expr import Expr
    from hvabi.abi.model import Guard, Pointer
    from hvabi.abi.source_node import Node, SourceFile
    from hvabi.abi.specification import Abi

FROM_SHARED = "uses"
"""First part of the pointers of what comes from a shared file; such a place is reported in that file."""


@dataclass(slots=True, kw_only=True)
class Report:
    """Findings in one file. A place that comes from a shared file is left to the lint of that file."""

    source: SourceFile
    collector: Collector
    errors: int = 0

    def error(self, pointer: Pointer, id_: str, message: str, hint: str | None = None, **at: Any) -> None:
        """Report an error. `at`: ``key`` to point at a key, ``offset`` and ``length`` for a part of a text."""
        self._add("error", pointer, id_, message, hint, **at)

    def warning(self, pointer: Pointer, id_: str, message: str, hint: str | None = None, **at: Any) -> None:
        """Report a warning; see `error`."""
        self._add("warning", pointer, id_, message, hint, **at)

    def _add(
        self,
        severity: Severity,
        pointer: Pointer,
        id_: str,
        message: str,
        hint: str | None,
        *,
        key: str | None = None,
        offset: int | None = None,
        length: int = 1,
    ) -> None:
        if is_shared(pointer):
            return
        self.errors += severity == "error"
        node = self.node(pointer, key)
        self.collector.add(
            self.source.diagnostic(node, id_, message, hint, severity=severity, offset=offset, length=length)
        )

    def node(self, pointer: Pointer, key: str | None = None) -> Node:
        """Return the value at a pointer, or the nearest one around it that stands in the file."""
        while True:
            try:
                find(self.source.root, pointer)
            except UsageError:
                pointer = pointer[:-1]
            else:
                return locate(self.source, pointer, key)


def is_shared(pointer: Pointer) -> bool:
    """Whether a place lies in a shared file and not in the file itself."""
    return len(pointer) > 1 and pointer[0] == FROM_SHARED and isinstance(pointer[1], str)


@dataclass(slots=True, kw_only=True)
class Context:
    """One ABI file under lint.

    Attributes:
        data: its plain data.
        abi: its model; what could not be built has a stand-in and was reported.
        exprs: every expression of the file by its pointer.
        used: names that expressions use, for what is declared and never used.

    """

    report: Report
    data: Mapping[str, Any]
    abi: Abi
    exprs: Mapping[Pointer, Expr]
    used: set[str] = field(default_factory=set)

    @property
    def revisions(self) -> tuple[str, ...]:
        """Names of all revisions of the file."""
        return tuple(self.abi.revisions)

    def revisions_of(self, *guards: Guard) -> tuple[str, ...]:
        """Return the revisions in which all of the guards hold, policies aside."""
        return tuple(
            name
            for name in self.abi.revisions
            if all(guard.revisions is None or name in guard.revisions for guard in guards)
        )


def covers(earlier: Guard, later: Guard) -> bool:
    """Whether the earlier guard holds wherever the later one does."""
    return (
        (earlier.revisions is None or set(later.revisions or ("",)) <= set(earlier.revisions))
        and (earlier.transports is None or set(later.transports or ("",)) <= set(earlier.transports))
        and all(later.policy.get(name) == value for name, value in earlier.policy.items())
    )


def policy_choices(abi: Abi, guards: Iterable[Guard]) -> Iterator[dict[str, str]]:
    """Yield every combination of values of the policies that the guards mention; at most 4096."""
    names = sorted({name for guard in guards for name in guard.policy if name in abi.policies})
    values = [tuple(abi.policies[name].values) for name in names]
    for chosen in itertools.islice(itertools.product(*values), 4096):
        yield dict(zip(names, chosen, strict=True))


def answers_of(call: Call) -> Iterator[Answer]:
    """Yield every answer of a call: of its rules, its outcomes, and what an errno of user space becomes."""
    for rule in call.rules:
        if rule.answer is not None:
            yield rule.answer
    for answers in call.outcomes.values():
        yield from answers
    for row in call.vmm.errno if call.vmm else ():
        if row.answer is not None:
            yield row.answer


def listed(names: Sequence[str], limit: int = 8) -> str:
    """Return names as text, the rest counted."""
    shown = ", ".join(f"`{name}`" for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
