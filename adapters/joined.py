"""Elements of a list that follow each other in memory, converted as one range where nobody can tell.

A list of 253 pages in a row is then one change of the map. The same answers, the same pages and the same marks come out
as one element after the other; tests hold the two equal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvabi.backend import GPA_PAGES, Conversion, Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hvabi.adapters.work import Part, Work


def adjoins(group: Sequence[Part], part: Part) -> bool:
    """Whether a part asks for the same as those before it, for the pages behind theirs."""
    last = group[-1]
    if part.to is not last.to or part.to is None or not last.pages or not part.pages:
        return False
    return part.start == last.start + last.pages


def may_join(work: Work) -> bool:
    """Whether no rule, no fault and no request to user space comes between the elements of this call."""
    call, convert, inject = work.call, work.convert, work.inject
    return (
        convert.each is not None
        and convert.to is not None
        and not convert.facts
        and work.definition.vmm is None
        and inject.stop_after is None
        and inject.event_after is None
        # A rule about the state of pages sees what the elements before this one did.
        and not call.host.rules(work.definition, "page")
        and not any(rule.check == "in-state" for rule in call.host.rules(work.definition, "element"))
    )


def at_once(work: Work, group: Sequence[Part]) -> bool:
    """Convert parts that adjoin; where one of them alone might get another answer, nothing has changed."""
    first, last = group[0], group[-1]
    end = last.start + last.pages
    # Done one after the other they are one range that grows: at no time more than the two ranges that any one may add.
    if first.to is None or end > GPA_PAGES or not work.backend.has_spare:
        return False
    outcome = work.backend.convert(Conversion(first.start, end - first.start, first.to, None), absent=work.absent)
    if outcome.status is not Status.DONE:
        return False
    work.changes += outcome.changed
    work.last_to = first.to
    work.done += outcome.pages_done
    for part in group:
        work.finish_part(part)
    return True
