"""Bugs of a host that lie in how it keeps the state of pages and looks it up, each laid over the bundled host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from hvabi.adapters.host import _HostCall
from hvabi.backend import (
    GPA_PAGES,
    Backend,
    Conversion,
    FactOutcome,
    Outcome,
    PageState,
    Run,
    Status,
)
from hvabi.conformance.liars.hosts import LyingHost

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hvabi.abi.scope import Scope
    from hvabi.adapters.asking import Asking


# -- state ------------------------------------------------------------------------------------------------------------


class _ForgetsLast(Backend):
    def set_fact(self, name: str, start: int, end: int, value: bool) -> FactOutcome:
        """Leave the last page as it is."""
        return super().set_fact(name, start, max(end - 1, start), value)

    def convert(self, conversion: Conversion, **keywords: Any) -> Outcome:
        """Leave the last page as it is."""
        if conversion.page_count < 1:
            return super().convert(conversion, **keywords)
        return super().convert(Conversion(conversion.start, conversion.page_count - 1, conversion.to), **keywords)


class _Overruns(Backend):
    def set_fact(self, name: str, start: int, end: int, value: bool) -> FactOutcome:
        """Change a page behind the range too."""
        return super().set_fact(name, start, min(end + 1, 1 << 52), value)

    def convert(self, conversion: Conversion, **keywords: Any) -> Outcome:
        """Change a page behind the range too."""
        done = super().convert(conversion, **keywords)
        if done.status is Status.DONE and conversion.page_count and conversion.end < 1 << 52:
            super().convert(Conversion(conversion.end, 1, conversion.to), absent="allow")
        return done


class _StartsLate(Backend):
    def set_fact(self, name: str, start: int, end: int, value: bool) -> FactOutcome:
        """Leave the first page as it is."""
        return super().set_fact(name, min(start + 1, end), end, value)

    def convert(self, conversion: Conversion, **keywords: Any) -> Outcome:
        """Leave the first page as it is."""
        if conversion.page_count < 1:
            return super().convert(conversion, **keywords)
        return super().convert(Conversion(conversion.start + 1, conversion.page_count - 1, conversion.to), **keywords)


class _FirstRangeOnly(Backend):
    def convert(self, conversion: Conversion, **keywords: Any) -> Outcome:
        """Stop behind the first run of pages that changes."""
        if conversion.to is PageState.PRIVATE:
            for run in self.query():
                low, high = max(run.start, conversion.start), min(run.end, conversion.end)
                if low < high:
                    super().convert(Conversion(low, high - low, conversion.to), **keywords)
                    return Outcome(Status.DONE, conversion.page_count, conversion.end)
        return super().convert(conversion, **keywords)


class _Lazy(Backend):
    def set_fact(self, name: str, start: int, end: int, value: bool) -> FactOutcome:
        """Do nothing and say that all is done."""
        return FactOutcome(Status.DONE)

    def convert(self, conversion: Conversion, **keywords: Any) -> Outcome:
        """Do nothing and say that all is done."""
        return Outcome(Status.DONE, conversion.page_count, conversion.end)


class _TakesHoles(Backend):
    def convert(self, conversion: Conversion, **keywords: Any) -> Outcome:
        """Take what is no memory for memory."""
        return super().convert(conversion, absent="allow")


class ForgetsLastPage(LyingHost):
    """Leaves the last page of every piece as it was."""

    backend_class = _ForgetsLast


class FirstRangeOnly(LyingHost):
    """Makes only the first of several shared ranges private."""

    backend_class = _FirstRangeOnly


class OverrunsByOne(LyingHost):
    """Changes the page behind every piece too."""

    backend_class = _Overruns


class StartsOnePageLate(LyingHost):
    """Leaves the first page of every piece as it was."""

    backend_class = _StartsLate


class DoesNothing(LyingHost):
    """Says that all is done and changes nothing."""

    backend_class = _Lazy


class TakesHoles(LyingHost):
    """Converts pages that are no memory."""

    backend_class = _TakesHoles


class IgnoresBound(LyingHost):
    """Keeps more ranges than it was allowed."""

    bounded = False


# -- what is found ----------------------------------------------------------------------------------------------------


class _Finder(Backend):
    """Finds another state than there is."""

    states: ClassVar[Mapping[PageState, PageState]] = {}

    def run_at(self, start: int, end: int) -> tuple[PageState, int]:
        """Return a wrong state."""
        state, pages = super().run_at(start, end)
        return self.states.get(state, state), pages

    def runs(self, start: int, end: int) -> tuple[Run[PageState], ...]:
        """Return wrong states."""
        return tuple(Run(run.start, run.end, self.states.get(run.state, run.state)) for run in super().runs(start, end))


class _TheOther(_Finder):
    states: ClassVar[Mapping[PageState, PageState]] = {
        PageState.PRIVATE: PageState.SHARED,
        PageState.SHARED: PageState.PRIVATE,
    }


class _Private(_Finder):
    states: ClassVar[Mapping[PageState, PageState]] = dict.fromkeys(PageState, PageState.PRIVATE)


class _Shared(_Finder):
    states: ClassVar[Mapping[PageState, PageState]] = dict.fromkeys(PageState, PageState.SHARED)


class _RunsOn(Backend):
    def run_at(self, start: int, end: int) -> tuple[PageState, int]:
        """Go on behind what is asked about."""
        return super().run_at(start, GPA_PAGES)


class _StatesOnly(Backend):
    def run_at(self, start: int, end: int) -> tuple[PageState, int]:
        """Look at states and not at facts."""
        run = self.runs(start, end)[0]
        return run.state, run.end - start


class FindsTheOther(LyingHost):
    """Takes private pages for shared ones and shared pages for private ones."""

    backend_class = _TheOther


class FindsPrivate(LyingHost):
    """Finds every page private."""

    backend_class = _Private


class FindsShared(LyingHost):
    """Finds every page shared."""

    backend_class = _Shared


class RunsOn(LyingHost):
    """Counts pages behind those that it is asked about."""

    backend_class = _RunsOn


class IgnoresFacts(LyingHost):
    """Takes pages for alike whose facts are not."""

    backend_class = _StatesOnly


class _Late(_HostCall):
    late: ClassVar[bool] = True

    def write_lists(self, asking: Asking, scope: Scope) -> None:
        """Write the answers of other elements."""
        for name, (first, answers) in asking.lists.items():
            shifted = [0, *answers[:-1]] if self.late else [*answers[1:], 0]
            asking.lists[name] = (first, shifted if answers else [])
        super().write_lists(asking, scope)


class _Early(_Late):
    late = False


class ListOneLate(LyingHost):
    """Answers for each element what it found for the one before."""

    call_class = _Late


class ListOneEarly(LyingHost):
    """Answers for each element what it found for the one behind."""

    call_class = _Early
