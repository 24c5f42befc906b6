"""Bugs of a guest's engine, each a class to be laid over the bundled guest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from hvabi.adapters.batch import Batch, _most_elements, plan
from hvabi.adapters.guest import Guest, GuestConversation, Refused, _Conversation
from hvabi.adapters.values import GuestCall, GuestReply, GuestResult
from hvabi.backend import PAGE_SHIFT, PAGE_SIZE, PageState

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from hvabi.abi.calls import Progress
    from hvabi.abi.wire import Wire
    from hvabi.adapters.guest import _Answer
    from hvabi.adapters.values import GuestStep

Whole = tuple[tuple[int, int], ...]


class LyingConversation(_Conversation):
    """A conversation with places to go wrong: its batches, its end, its failure."""

    def run(self) -> GuestConversation:
        """Do as the right one does, through the methods below."""
        guest = self.guest
        if not guest.can_name(self.start_gpa, self.pages, self.to):
            return GuestResult(to=self.to, done=False, ranges=(), calls=0, reason="the call cannot name this")
        first = self.start_gpa >> PAGE_SHIFT
        whole = ((first, first + self.pages),)
        definition = guest.definition.guest
        assert definition is not None  # looked at in the constructor
        try:
            yield from self.step(definition.steps_before, whole)
            for batch in self.batches(first):
                too_large = yield from self.converse(batch)
                if too_large is not None:
                    start, size = too_large
                    yield from self.all_of(start, size, smallest=True)
                    yield from self.all_of(start + size, batch.first + batch.pages - start - size)
        except Refused as refusal:
            return self.given_up(refusal, whole)
        yield from self.step(definition.steps_after, self.accepted(whole))
        return GuestResult(to=self.to, done=True, ranges=self.ranges(), calls=self.calls)

    def batches(self, first: int) -> Iterator[Batch]:
        """Yield the requests."""
        return plan(self.guest, first, self.pages, self.to)

    def given_up(self, refusal: Refused, whole: Whole) -> GuestResult:
        """Return what is believed after a failure."""
        return GuestResult(
            to=self.to, done=False, ranges=self.ranges(), calls=self.calls, reason=refusal.reason, rule=refusal.rule
        )

    def accepted(self, whole: Whole) -> Whole:
        """Return the pages of the local half behind the host's."""
        return whole


class LyingGuest(Guest):
    """A guest whose conversations are of another class."""

    conversation_class: ClassVar[type[LyingConversation]] = LyingConversation

    def convert(self, start_gpa: int, pages: int, to: PageState) -> GuestConversation:
        """Convert the wrong way."""
        return self.conversation_class(self, start_gpa, pages, to).run()


def _guest(conversation: type[LyingConversation]) -> type[Guest]:
    """Return a guest with conversations of a class."""
    return type(conversation.__name__.lstrip("_"), (LyingGuest,), {"conversation_class": conversation})


# -- belief -----------------------------------------------------------------------------------------------------------


class _BelievesAll(LyingConversation):
    def given_up(self, refusal: Refused, whole: Whole) -> GuestResult:
        """Believe everything."""
        return GuestResult(to=self.to, done=False, ranges=whole, calls=self.calls)


class _SaysDone(LyingConversation):
    def given_up(self, refusal: Refused, whole: Whole) -> GuestResult:
        """Call it a success."""
        return GuestResult(to=self.to, done=True, ranges=whole, calls=self.calls)


class _ForgetsProgress(LyingConversation):
    def given_up(self, refusal: Refused, whole: Whole) -> GuestResult:
        """Believe nothing, though a part is done."""
        return GuestResult(to=self.to, done=False, ranges=(), calls=self.calls)


class _IgnoresAnswers(LyingConversation):
    def converse(self, batch: Batch) -> Generator[GuestCall | GuestStep, GuestReply, tuple[int, int] | None]:
        """Make the call and look at nothing."""
        wire = self.guest.request.encode(batch.request)
        self.calls += 1
        yield GuestCall(regs=wire.regs, mem=wire.mem)
        self.believe(batch.first, batch.pages)
        return None


class _ExecutesAnew(LyingConversation):
    def left_behind(self, wire: Wire, reply: GuestReply) -> Wire:
        """Take the call as it was first made."""
        return wire


class _AcceptsTail(LyingConversation):
    """Accepts only what the last request named."""

    tail: tuple[int, int] | None = None

    def believe(self, first: int, pages: int) -> None:
        """Remember the last piece that became done."""
        super().believe(first, pages)
        if pages > 0:
            self.tail = (first, first + pages)

    def accepted(self, whole: Whole) -> Whole:
        """Accept that piece only."""
        return whole if self.tail is None else (self.tail,)


# -- requests ---------------------------------------------------------------------------------------------------------


class _ForgetsLastBatch(LyingConversation):
    def batches(self, first: int) -> Iterator[Batch]:
        """Leave the last, short request out."""
        every = list(plan(self.guest, first, self.pages, self.to))
        if len(every) > 1:
            last = every.pop()
            self.believe(last.first, last.pages)
        return iter(every)


class _FullBatchesOnly(LyingConversation):
    def batches(self, first: int) -> Iterator[Batch]:
        """Make the call only once the list is full."""
        for attempt, batch in enumerate(plan(self.guest, first, self.pages, self.to)):
            if len(batch.element_pages) < _most_elements(self.guest, batch.each or "", batch.first, self.to, attempt):
                self.believe(batch.first, batch.pages)
                continue
            yield batch


class _OtherState(LyingConversation):
    def batches(self, first: int) -> Iterator[Batch]:
        """Ask for the other state."""
        other = PageState.PRIVATE if self.to is not PageState.PRIVATE else PageState.SHARED
        return plan(self.guest, first, self.pages, other)


class _OnePageMore(LyingConversation):
    def batches(self, first: int) -> Iterator[Batch]:
        """Ask for the page behind the range too."""
        return plan(self.guest, first, self.pages + 1, self.to)


class _OnePageLess(LyingConversation):
    def batches(self, first: int) -> Iterator[Batch]:
        """Forget the last page."""
        self.believe(first + self.pages - 1, 1)
        return plan(self.guest, first, self.pages - 1, self.to)


class _NeverCalls(LyingConversation):
    def batches(self, first: int) -> Iterator[Batch]:
        """Make no call at all."""
        self.believe(first, self.pages)
        return iter(())


def sends(path: str) -> type[Guest]:
    """Return a guest that sets the lowest bit of a reserved field: ``name``, ``word.name`` or ``list.name``."""
    name, _, inner = path.partition(".")

    class Sends(LyingConversation):
        def batches(self, first: int) -> Iterator[Batch]:
            """Set the bit."""
            for batch in plan(self.guest, first, self.pages, self.to):
                old = getattr(batch.request, name)
                if not inner:
                    new: Any = 1
                elif isinstance(old, tuple) and not hasattr(old, "_fields"):
                    new = (old[0]._replace(**{inner: 1}), *old[1:])
                else:
                    new = old._replace(**{inner: 1})
                batch.request = batch.request._replace(**{name: new})
                yield batch

    return _guest(Sends)


# -- progress ---------------------------------------------------------------------------------------------------------


class _LenientBatch(Batch):
    """Takes whatever progress it is told, cut to what was asked."""

    def done_pages(self, answer: _Answer, progress: Progress, left: int, *, within: bool) -> int | None:
        """Take it."""
        found = super().done_pages(answer, progress, left, within=within)
        if found is not None:
            return found
        completed = answer.int(progress.completed)
        if progress.unit == "element":
            return sum(self.element_pages[: max(completed, 0)])
        unit = {"page": PAGE_SIZE, "byte": 1}.get(progress.unit, PAGE_SIZE)
        if progress.unit == "granule" and progress.granule is not None:
            unit = answer.int(progress.granule)
        return min(max(completed * unit // PAGE_SIZE, 0), left)


class _ForgetfulBatch(_LenientBatch):
    """Believes its own last request to be the first one: no memory of what was done."""

    def done_pages(self, answer: _Answer, progress: Progress, left: int, *, within: bool) -> int | None:
        """Forget what was done before."""
        self.before = 0
        return super().done_pages(answer, progress, left, within=within)


class _TakesBuffer(Batch):
    """Goes on with the host's buffer as it is."""

    def _same_buffer(self, answer: _Answer, progress: Progress, value: Any) -> dict[str, Any]:
        place_of = self.guest.response.placer.place_of
        here = getattr(place_of(self.each or ""), "block", None)
        return {
            name: answer.fields[name]
            for name in answer.fields.names
            if name in value._fields and getattr(place_of(name), "block", None) == here
        }


class _OffBuffer(Batch):
    """Goes on one element further or one element back than the host's buffer says."""

    step: ClassVar[int] = 1

    def _same_buffer(self, answer: _Answer, progress: Progress, value: Any) -> dict[str, Any]:
        updates = super()._same_buffer(answer, progress, value)
        return {
            name: max(item + self.step, 0) if isinstance(item, int) and name != self.each else item
            for name, item in updates.items()
        }


class _OffBufferBack(_OffBuffer):
    step = -1


def _with_batches(name: str, batch_class: type[Batch]) -> type[Guest]:
    class Conversation(LyingConversation):
        def batches(self, first: int) -> Iterator[Batch]:
            """Use other batches."""
            for batch in plan(self.guest, first, self.pages, self.to):
                batch.__class__ = batch_class
                yield batch

    Conversation.__name__ = name
    return _guest(Conversation)


def granule_of(guest: Guest) -> int:
    """Return the least pages that one conversion has."""
    definition = guest.definition.guest
    if definition is None or definition.granule is None:
        return 1
    return max(guest.scope().int(definition.granule) // PAGE_SIZE, 1)


# -- what is asked ----------------------------------------------------------------------------------------------------


class CallsWhereSwitchedOff(Guest):
    """Makes the call where it is not offered."""

    def can_name(self, start_gpa: int, pages: int, to: PageState) -> bool:
        """Look at everything but whether the call is offered."""
        kept, self.enabled = self.enabled, True
        try:
            return super().can_name(start_gpa, pages, to)
        finally:
            self.enabled = kept


class RoundsToGranule(Guest):
    """Widens a range to whole granules."""

    def convert(self, start_gpa: int, pages: int, to: PageState) -> GuestConversation:
        """Widen."""
        unit = granule_of(self)
        first = start_gpa // PAGE_SIZE // unit * unit
        last = -(-(start_gpa // PAGE_SIZE + pages) // unit) * unit if pages else first
        return super().convert(first * PAGE_SIZE, last - first, to)


class RoundsUnaligned(Guest):
    """Rounds an unaligned address down to its page."""

    def convert(self, start_gpa: int, pages: int, to: PageState) -> GuestConversation:
        """Round."""
        return super().convert(start_gpa // PAGE_SIZE * PAGE_SIZE, pages, to)


class CallsForNothing(Guest):
    """Takes an empty range for one page."""

    def convert(self, start_gpa: int, pages: int, to: PageState) -> GuestConversation:
        """Ask for a page where there is none."""
        return super().convert(start_gpa, pages or granule_of(self), to)


BelievesAll = _guest(_BelievesAll)
SaysDone = _guest(_SaysDone)
ForgetsProgress = _guest(_ForgetsProgress)
IgnoresAnswers = _guest(_IgnoresAnswers)
AcceptsTail = _guest(_AcceptsTail)
ExecutesAnew = _guest(_ExecutesAnew)
ForgetsLastBatch = _guest(_ForgetsLastBatch)
FullBatchesOnly = _guest(_FullBatchesOnly)
OtherState = _guest(_OtherState)
OnePageMore = _guest(_OnePageMore)
OnePageLess = _guest(_OnePageLess)
NeverCalls = _guest(_NeverCalls)
Lenient = _with_batches("Lenient", _LenientBatch)
Forgetful = _with_batches("Forgetful", _ForgetfulBatch)
TakesBuffer = _with_batches("TakesBuffer", _TakesBuffer)
OneElementLate = _with_batches("OneElementLate", _OffBuffer)
OneElementEarly = _with_batches("OneElementEarly", _OffBufferBack)
