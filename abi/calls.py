"""What calls mean: rules, conversions, progress, answers, the host's own user space, and the guest's side."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from hvabi.abi.model import ALWAYS, Guard, Pointer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hvabi.abi.expr import Expr

End = Literal["return", "replay", "fault", "stop"]
Level = Literal["must", "should", "may", "unspecified", "observed"]
Scope = Literal["call", "element", "page"]

GATHERED = "gathered"
"""The elements of a call that uses a handle: those that are kept under it, and behind them its own."""

STATUS_DOCS = {
    "done": "All pages are in the wanted state.",
    "partial": "A first part is done; the caller goes on behind it.",
    "retry": "Nothing is wrong with the request; the caller asks again.",
    "invalid": "The request makes no sense: empty, wrapping, an unknown value.",
    "misaligned": "An address or a length is not a multiple of the granule.",
    "out-of-range": "Pages lie outside the guest's memory or outside its address width.",
    "already": "The pages are in that state already, where that is an answer of its own.",
    "limit": "A bound of the host is reached: ranges, bytes, entries. Nothing was changed.",
    "denied": "The caller may not do this, or not to these pages.",
    "busy": "Someone else holds the pages just now.",
    "unsupported": "The host does not offer the call, or has not switched it on.",
    "failed": "The host tried and failed for a reason of its own.",
}
"""The common statuses, as `hvabi.backend` spells them, and what they mean; the specification language has its own copy
of the words because the two layers do not know each other. A test holds them equal."""

TAXONOMY = tuple(STATUS_DOCS)
"""The names of the common statuses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """How a call ends: the response fields that are written, or a replay, a fault or a stop.

    `cannot` is the reason why this answer never happens; then nothing else is set. Of a field in `nonzero` any value
    but 0 is right under the profile ``spec``: the host chooses it.
    """

    end: End = "return"
    fields: Mapping[str, Expr] = field(default_factory=dict)
    may_change: tuple[str, ...] = ()
    nonzero: tuple[str, ...] = ()
    fault: str | None = None
    reason: str | None = None
    cannot: str | None = None
    when: Expr | None = None
    doc: str | None = None
    guard: Guard = ALWAYS
    pointer: Pointer = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One requirement. `operands` are the parameters of its check, each a tuple of expressions or names.

    With the answer of a rule that `drops`, the host forgets the handle that the request names.
    """

    id: str
    binds: Literal["guest", "host"]
    on: Literal["request", "response"]
    scope: Scope
    check: str
    operands: Mapping[str, tuple[Expr, ...]]
    words: Mapping[str, str]
    level: Level
    source: str
    text: str
    when: Expr | None = None
    answer: Answer | None = None
    means: str | None = None
    drops: bool = False
    shadowed_by: str | None = None
    tries: tuple[Expr, ...] = ()
    guard: Guard = ALWAYS
    pointer: Pointer = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Direction:
    """The state asked for: the value of `of` looked up in `states` (None: nothing changes)."""

    of: Expr
    states: Mapping[int, str | None]
    otherwise: str | None
    has_otherwise: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What becomes of the bytes of a page: ``kept``, ``zeroed``, ``lost`` (nothing is promised), or ``separate``.

    ``separate``: either state has memory of its own; the bytes stay where they are and are seen again later.
    """

    kind: Literal["kept", "zeroed", "lost", "separate"]
    source: str
    doc: str
    pointer: Pointer = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Convert:
    """Which pages a request names: start in bytes, pages of 4 KiB; for lists once per element.

    `bits` is a list of integers that has one bit for each page of the range, the first page the lowest: ``it`` of `to`.
    `stands_for` says of a call that changes facts only which facts each state of a guest's conversion stands for.
    `contents` has what is said of the bytes of a page by the state or fact that it gets.
    """

    start: Expr
    pages: Expr
    to: Direction | None
    each: str | None = None
    bits: str | None = None
    first: Expr | None = None
    count: Expr | None = None
    hint: Expr | None = None
    facts: Mapping[str, Expr] = field(default_factory=dict)
    stands_for: Mapping[str, Mapping[str, bool]] = field(default_factory=dict)
    contents: Mapping[str, Contents] = field(default_factory=dict)
    pointer: Pointer = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """A list of the response, `field`, with one `element` for each run of pages for which `where` holds.

    Of more runs than `most` none is told.
    """

    field: str
    where: Expr
    element: Mapping[str, Expr]
    most: Expr
    pointer: Pointer = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Which pages a request asks about, and the lists of the response that have one answer for each.

    Values of `answer_each` are worked out for every element of `each`, without it for every page. With `pack` above 1
    they are single bits, that many in one element of the list, the first the lowest; the last element has the bits of
    `left` behind the last page. `told` is the number of pages that an answer is about, where a host may tell of fewer
    than have the state.
    """

    start: Expr
    pages: Expr
    each: str | None = None
    first: Expr | None = None
    count: Expr | None = None
    answer_each: Mapping[str, Expr] = field(default_factory=dict)
    pack: int = 1
    left: Expr | None = None
    runs: Runs | None = None
    told: Expr | None = None
    pointer: Pointer = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How a call says how far it came and how the next one goes on."""

    unit: Literal["byte", "page", "granule", "element"]
    completed: Expr
    done_when: Expr
    again_when: Expr
    resume: Literal["reissue", "reexecute", "same-buffer", "fragment"]
    footprint: Literal["exact", "unspecified"]
    already_done: str
    stalls: int
    bound: Expr
    doc: str
    granule: Expr | None = None
    within: Expr | None = None
    counts_when: Expr | None = None
    next: Mapping[str, Expr] = field(default_factory=dict)
    mark: Mapping[str, Expr] = field(default_factory=dict)
    mark_part: Mapping[str, Expr] = field(default_factory=dict)
    chunk: Expr | None = None
    anywhere: bool = False
    pointer: Pointer = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrnoAnswer:
    """What an errno of the host's user space becomes: an outcome of the taxonomy, or an answer of its own."""

    errno: int | None
    outcome: str | None
    answer: Answer | None
    guard: Guard = ALWAYS
    pointer: Pointer = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Vmm:
    """What a host that is split in two asks of its user space for every piece.

    `abi` is None where how it asks is no message of an ABI here: then only its refusals are known.
    """

    abi: str | None
    request: Mapping[str, Expr]
    errno: tuple[ErrnoAnswer, ...]
    call: str | None = None
    merge: Expr | None = None
    pointer: Pointer = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """How a guest makes the call: fields of one request from what is to be converted."""

    request: Mapping[str, Expr]
    states: tuple[str, ...]
    element: Mapping[str, Expr] = field(default_factory=dict)
    element_pages: tuple[int, ...] = ()
    max_elements: Expr | None = None
    part_elements: Expr | None = None
    max_pages: Expr | None = None
    smaller_when: Expr | None = None
    granule: Expr | None = None
    within: tuple[Expr, Expr] | None = None
    scratch: Mapping[str, Expr] = field(default_factory=dict)
    steps_before: Mapping[str, str] = field(default_factory=dict)
    steps_after: Mapping[str, str] = field(default_factory=dict)
    pointer: Pointer = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HandleUse:
    """What a call does with a handle: give out a new one, bring more elements of one, or end one.

    Attributes:
        of: the request field that holds the handle; None for a new one.
        list: the request field whose elements are put behind those that are kept, or None.
        complete: whether all elements are there after this call; None: they are.
        keep: numbers that are kept with a new handle.

    """

    does: Literal["open", "continue", "close"]
    of: str | None = None
    list: str | None = None
    complete: Expr | None = None
    keep: Mapping[str, Expr] = field(default_factory=dict)
    pointer: Pointer = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """One word under a guard: the value of ``absent`` or ``prevalidate`` for a policy."""

    value: str
    guard: Guard = ALWAYS
    pointer: Pointer = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Define:
    """A name for an expression of a call."""

    name: str
    expr: Expr
    doc: str
    pointer: Pointer = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of an ABI: request and response, rules in order, meaning, progress and answers.

    `every_answer` and `every_may_change` are in every answer already that writes a field; they stand here for those
    who show the call.
    """

    name: str
    doc: str
    request: str
    response: str | None
    order: Literal["stated", "per-profile", "undefined"]
    define: Mapping[str, Define]
    rules: tuple[Rule, ...]
    outcomes: Mapping[str, tuple[Answer, ...]]
    every_answer: Mapping[str, Expr] = field(default_factory=dict)
    every_may_change: tuple[str, ...] = ()
    convert: Convert | None = None
    query: Query | None = None
    progress: Progress | None = None
    vmm: Vmm | None = None
    guest: Guest | None = None
    handle: HandleUse | None = None
    absent: tuple[Alternative, ...] = ()
    prevalidate: tuple[Alternative, ...] = ()
    guard: Guard = ALWAYS
    pointer: Pointer = ()

    @property
    def meaning(self) -> Convert | Query | None:
        """Which pages the call is about: those that it converts, or asks about."""
        return self.convert or self.query

    @property
    def each(self) -> str | None:
        """The list field whose elements are converted or asked about, or None."""
        return self.meaning.each if self.meaning is not None else None

    def reports_parts(self, transport: str) -> bool:
        """Whether a host can say over a transport that it did a part of the call."""
        partial = [answer for answer in self.outcomes.get("partial", ()) if answer.guard.serves(transport)]
        return self.progress is not None and any(answer.cannot is None for answer in partial)

    def rule(self, rule_id: str) -> Rule | None:
        """Return the rule with this id, or None."""
        return next((rule for rule in self.rules if rule.id == rule_id), None)
