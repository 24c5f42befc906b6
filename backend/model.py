"""The common conversion: what every ABI's call means once its wire format is gone.

Pages are 4 KiB always, whatever unit an ABI counts in. A page number is a guest physical address
without its low 12 bits and without any alias bit (TDX shared bit, vTOM, CCA's upper half).
All intervals are half open: `start` is the first page, `end` the first page behind.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT

#: Page numbers of guest physical memory lie in [0, GPA_PAGES): 64-bit addresses of 4 KiB pages.
GPA_PAGES = 1 << (64 - PAGE_SHIFT)

S = TypeVar("S")


class PageState(enum.StrEnum):
    """Who may access a page. The set is closed; what else an ABI knows of a page is a fact."""

    #: Only the guest can use the content. Every page starts so.
    PRIVATE = "private"
    #: The host may read and write.
    SHARED = "shared"
    #: The host may read but not write (Hyper-V's visibility 1).
    SHARED_READ_ONLY = "shared-read-only"


class Status(enum.StrEnum):
    """How a conversion ended. Each ABI's specification maps these to its own codes and back."""

    #: All pages are in the wanted state.
    DONE = "done"
    #: A first part was done; the caller goes on at `next`.
    PARTIAL = "partial"
    #: Nothing is wrong with the request; the caller asks again, from `next`.
    RETRY = "retry"
    #: The request makes no sense: empty, wrapping, unknown value.
    INVALID = "invalid"
    #: An address or a length is not a multiple of the ABI's granule.
    MISALIGNED = "misaligned"
    #: Pages lie outside the guest's memory or outside its address width.
    OUT_OF_RANGE = "out-of-range"
    #: The pages are in that state already, where the ABI makes this an answer of its own.
    ALREADY = "already"
    #: A bound of the host is reached (ranges, bytes, entries); nothing was changed.
    LIMIT = "limit"
    #: The caller may not do this, or not to these pages.
    DENIED = "denied"
    #: Someone else holds the pages just now.
    BUSY = "busy"
    #: The host does not offer the call, or has not switched it on.
    UNSUPPORTED = "unsupported"
    #: The host tried and failed for a reason of its own.
    FAILED = "failed"


class ModelError(ValueError):
    """A mistake of the code that calls this package; never an answer to a guest.

    `code` is stable and meant for programs; `fields` holds the values at fault.
    """

    def __init__(self, code: str, message: str, **fields: object) -> None:
        super().__init__(message)
        self.code = code
        self.fields = fields


class Run(NamedTuple, Generic[S]):
    """Pages [start, end) that are all in one state."""

    # A tuple and not a frozen dataclass: a walk over a million ranges makes a million of them.
    start: int
    end: int
    state: S


class Change(NamedTuple, Generic[S]):
    """Pages [start, end) that went from state `before` to state `after`; the two differ."""

    start: int
    end: int
    before: S
    after: S


@dataclass(frozen=True, slots=True)
class Conversion:
    """The wish that pages [start, start + page_count) be in state `to`.

    `start` is a page number (gpa >> 12). 0 <= start, 0 <= page_count and start + page_count <= 2**52.
    `page_size_hint` is the size in bytes of the guest's own mapping, a power of two of at least 4096,
    or None. It is a hint: it never changes which pages are meant.

    Raises:
        ModelError: `bad-conversion`, when one of these does not hold.

    """

    start: int
    page_count: int
    to: PageState
    page_size_hint: int | None = None

    def __post_init__(self) -> None:
        start, count, hint = self.start, self.page_count, self.page_size_hint
        if not (isinstance(start, int) and isinstance(count, int)):
            problem = "start and page_count must be integers"
        elif start < 0 or count < 0:
            problem = "start and page_count must not be negative"
        elif start + count > GPA_PAGES:
            problem = "start + page_count must not exceed 2**52"
        elif not isinstance(self.to, PageState):
            problem = "to must be a PageState"
        elif hint is not None and (not isinstance(hint, int) or hint < PAGE_SIZE or hint & (hint - 1)):
            problem = "page_size_hint must be None or a power of two of at least 4096 bytes"
        else:
            return
        raise ModelError(
            "bad-conversion",
            f"{problem} (start={start!r}, page_count={count!r}, to={self.to!r}, page_size_hint={hint!r})",
            start=start,
            page_count=count,
            to=self.to,
            page_size_hint=hint,
        )

    @property
    def end(self) -> int:
        """The first page behind the range."""
        return self.start + self.page_count

    @property
    def start_gpa(self) -> int:
        """The guest physical address of the first byte."""
        return self.start << PAGE_SHIFT


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a conversion ended.

    `pages_done` counts 4 KiB pages from the conversion's start; `next` is the page number where work
    stopped. `changed` lists the runs whose state is now another one, sorted and disjoint; it is empty
    when the pages were in the wanted state before.
    """

    status: Status
    pages_done: int
    next: int
    changed: tuple[Change[PageState], ...] = ()
