"""The guest role of any ABI: convert a range, one call at a time, right and bounded whatever the host answers.

The guest never trusts an answer: progress must go forward and stay inside what was asked, a rule that binds the
guest's reading of an answer must hold, and only pages that an answer says are done count as done.
"""

from __future__ import annotations

from collections.abc import Generator
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hvabi.abi.errors import CodecError, ExprError
from hvabi.abi.scope import Fields, Scope, definitions, state_number
from hvabi.abi.wire import Wire, WireSource, laid_over, merge
from hvabi.adapters.batch import Batch, plan
from hvabi.adapters.checks import Context, element_enums, keeps
from hvabi.adapters.errors import AdapterError
from hvabi.adapters.host import field_values
from hvabi.adapters.values import GuestCall, GuestReply, GuestResult, GuestStep
from hvabi.backend import PAGE_SHIFT, PAGE_SIZE, PageState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hvabi.abi.calls import Call, Rule
    from hvabi.abi.codec import MessageCodec
    from hvabi.abi.registry import Spec

    RestOfCalls = Generator[GuestCall | GuestStep, GuestReply, "_Answer"]

GuestConversation = Generator[GuestCall | GuestStep, GuestReply, GuestResult]
"""A conversion in progress: yields calls (and local steps), is sent the host's replies, returns its belief."""


class Refused(Exception):  # not an error: the guest gives up on an answer
    """The guest does not accept an answer."""

    def __init__(self, reason: str, rule: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.rule = rule


class Guest:
    """One guest on one transport.

    Args:
        spec: the ABI as one revision under one profile.
        transport: name of the transport, the first by default.
        config: the ABI's own configuration keys that differ from their defaults.
        scratch: first page and end page of the area where the guest may keep its structures.
        enabled: whether the call is offered.
        steps: whether the guest's local halves (accept, rescind) are yielded too.
        call: name of the call, the one that converts by default; one that asks has requests and no conversation.

    """

    def __init__(
        self,
        spec: Spec,
        *,
        transport: str | None = None,
        config: Mapping[str, int] | None = None,
        scratch: tuple[int, int] = (0x10, 0x20),
        enabled: bool = True,
        steps: bool = False,
        call: str | None = None,
    ) -> None:
        self.spec = spec
        self.abi = spec.abi
        self.transport = spec.transport(transport)
        found = self.abi.calls[call] if call is not None else self.abi.convert_call
        if found is None or found.guest is None or found.response is None:
            raise AdapterError(f"{self.abi.id} has no guest role", code="no-guest-role")
        self.definition: Call = found
        self.config = spec.config(config)
        self.static = spec.names(self.transport, self.config)
        self.request = spec.message(found.request, transport=self.transport.name, config=self.config)
        self.response = spec.message(found.response, transport=self.transport.name, config=self.config)
        self.scratch = scratch
        self.enabled = enabled
        self.steps = steps
        #: Most elements that a first request brings, where that is to be other than what fits.
        self.part_limit: int | None = None

    def reset(self) -> None:
        """Forget what earlier conversations left behind; a guest with such state overrides this."""

    def batches(self, first: int, pages: int, to: PageState) -> Iterable[Batch] | None:
        """Return the requests of a conversion where they are others than the specification's own, else None."""
        return None

    def answer_names(self, sent: Fields) -> dict[str, Any]:
        """Return names for expressions over an answer besides those of the messages."""
        return {}

    def rest(self, conversation: _Conversation, batch: Batch, answer: _Answer) -> RestOfCalls:
        """Make the further calls that bring the rest of a list; return the last answer. Raises `Refused`."""
        raise Refused("the host asks for more, and there is no way to send it")

    def ended(self, batch: Batch, answer: _Answer) -> None:
        """Take note of a request that is done as a whole; a guest with state overrides this."""

    @cached_property
    def rules_of_answers(self) -> tuple[Rule, ...]:
        """The rules that the guest must or should hold an answer to."""
        return tuple(
            rule
            for rule in self.definition.rules
            if rule.binds == "guest"
            and rule.on == "response"
            and rule.level in ("must", "should")
            and rule.guard.serves(self.transport.name)
        )

    def names(self) -> dict[str, Any]:
        """Return the run-time names that hold for the whole conversation."""
        return {
            "scratch": self.scratch[0] << PAGE_SHIFT,
            "scratch_pages": self.scratch[1] - self.scratch[0],
            "cpl": 0,
            "enabled": int(self.enabled),
        }

    def scope(self, request: Fields | None = None, response: Fields | None = None, **local: Any) -> Scope:
        """Return a scope over the guest's names and the messages that there are."""
        return Scope(
            self.static,
            define=definitions(self.definition),
            request=request,
            response=response,
            local={**self.names(), **local},
        )

    def can_name(self, start_gpa: int, pages: int, to: PageState) -> bool:
        """Whether the ABI has a way to ask for this conversion."""
        guest = self.definition.guest
        assert guest is not None  # looked at in the constructor
        if not self.enabled or pages <= 0 or start_gpa % PAGE_SIZE:
            return False
        if self.definition.query is None and to.value not in guest.states:
            return False
        scope = self.scope()
        size = pages * PAGE_SIZE
        if guest.within is not None:
            low, high = (scope.int(expr) for expr in guest.within)
            if not low <= start_gpa <= start_gpa + size <= high:
                return False
        granule = self.granule_pages() * PAGE_SIZE
        return start_gpa % granule == 0 and size % granule == 0

    def granule_pages(self) -> int:
        """Return the least 4 KiB pages that a request can name."""
        guest = self.definition.guest
        if guest is None or guest.granule is None:
            return 1
        return max(self.scope().int(guest.granule) // PAGE_SIZE, 1)

    def convert(self, start_gpa: int, pages: int, to: PageState) -> GuestConversation:
        """Convert 4 KiB pages. A range that the ABI cannot name ends at once, not done, without a call."""
        return _Conversation(self, start_gpa, pages, to).run()


class _Conversation:
    """One conversion: its batches, what is believed done, and how many calls were made."""

    def __init__(self, guest: Guest, start_gpa: int, pages: int, to: PageState) -> None:
        self.guest = guest
        self.start_gpa = start_gpa
        self.pages = pages
        self.to = to
        self.calls = 0
        self.believed: list[tuple[int, int]] = []
        self.bound = 0

    def run(self) -> GuestConversation:
        guest = self.guest
        if not guest.can_name(self.start_gpa, self.pages, self.to):
            return GuestResult(to=self.to, done=False, ranges=(), calls=0, reason="the call cannot name this")
        first = self.start_gpa >> PAGE_SHIFT
        whole = ((first, first + self.pages),)
        definition = guest.definition.guest
        assert definition is not None  # looked at in the constructor
        try:
            yield from self.step(definition.steps_before, whole)
            yield from self.all_of(first, self.pages)
        except Refused as refusal:
            return GuestResult(
                to=self.to, done=False, ranges=self.ranges(), calls=self.calls, reason=refusal.reason, rule=refusal.rule
            )
        yield from self.step(definition.steps_after, whole)
        return GuestResult(to=self.to, done=True, ranges=self.ranges(), calls=self.calls)

    def all_of(
        self, first: int, pages: int, *, smallest: bool = False
    ) -> Generator[GuestCall | GuestStep, GuestReply, None]:
        """Make all requests for a range; what the host finds too large follows in the smallest size, in its turn."""
        todo = [(first, pages, smallest)]
        while todo:
            first, pages, smallest = todo.pop()
            end = first + pages
            for batch in plan(self.guest, first, pages, self.to, smallest=smallest, attempt=self.calls):
                too_large = yield from self.converse(batch)
                if too_large is not None:
                    start, size = too_large
                    todo += [(start + size, end - start - size, smallest), (start, size, True)]
                    break

    def step(
        self, steps: Mapping[str, str], ranges: tuple[tuple[int, int], ...]
    ) -> Generator[GuestCall | GuestStep, GuestReply, None]:
        """Show the local half that belongs to the state asked for."""
        word = steps.get(self.to.value)
        if word is not None and self.guest.steps:
            yield GuestStep(step=word, ranges=ranges)

    def believe(self, first: int, pages: int) -> None:
        """Note pages that an answer says are done."""
        if pages > 0:
            self.believed.append((first, first + pages))

    def ranges(self) -> tuple[tuple[int, int], ...]:
        """Return the believed pages, sorted and joined."""
        out: list[tuple[int, int]] = []
        for start, end in sorted(self.believed):
            if out and start <= out[-1][1]:
                out[-1] = (out[-1][0], max(out[-1][1], end))
            else:
                out.append((start, end))
        return tuple(out)

    def converse(self, batch: Batch) -> Generator[GuestCall | GuestStep, GuestReply, tuple[int, int] | None]:
        """Make calls until the batch is done. Raises `Refused` where an answer does not allow to go on.

        Returns first page and pages of what the host finds too large to be done at once; nothing behind it is done.
        """
        guest = batch.guest
        progress = guest.definition.progress
        value = batch.request
        first, left, stalls = batch.first, batch.pages, 0
        bound: int | None = None
        made = 0
        left_behind: Wire | None = None
        while True:
            sent = fields_of(value)
            if progress is not None and bound is None:
                bound = guest.scope(sent, start=batch.first << PAGE_SHIFT, pages=batch.pages).int(progress.bound)
            if bound is not None and made >= bound:
                raise Refused("no end within the bound")
            wire = guest.request.encode(value) if left_behind is None else left_behind
            made += 1
            self.calls += 1
            reply = yield GuestCall(regs=wire.regs, mem=wire.mem)
            answer = _Answer(guest, sent, wire.regs, wire.mem, reply, self.to, **guest.answer_names(sent))
            answer.check()
            smaller_when = guest.definition.guest.smaller_when if guest.definition.guest else None
            if smaller_when is not None and answer.true(smaller_when):
                return self.too_large(batch, answer, first, left)
            if answer.true(progress.done_when if progress else None):
                if batch.rest:
                    raise Refused("the host says that all is done, and a part of it was never sent")
                self.believe(first, left)
                self.guest.ended(batch, answer)
                return None
            if progress is None:
                raise Refused("the host refuses")
            again = answer.true(progress.again_when)
            if not again and not (progress.counts_when is not None and answer.true(progress.counts_when)):
                raise Refused("the host refuses")
            if again and progress.resume == "fragment":
                answer = yield from self.guest.rest(self, batch, answer)
                self.believe(first, left)
                self.guest.ended(batch, answer)
                return None
            done = batch.done_pages(answer, progress, left, within=again)
            if done is None:
                raise Refused("the progress is outside of what was asked")
            self.believe(first if batch.each is None else batch.first, done)
            if not again:
                raise Refused("the host refuses the rest")
            if done == left and batch.each is None:
                # Nothing is left to ask for, and no rule of the guest refused such an answer.
                return None
            stalls = stalls + 1 if done == batch.before else 0
            if stalls > progress.stalls:
                raise Refused("no progress")
            advanced = done - batch.before
            batch.before = done
            if progress.resume == "reissue" and batch.each is None:
                first, left, batch.before = first + advanced, left - advanced, 0
            if progress.resume == "reexecute":
                left_behind = self.left_behind(wire, reply)
                value = self.same_request(left_behind, sent)
            else:
                value = batch.next_request(answer, progress, value)

    def left_behind(self, wire: Wire, reply: GuestReply) -> Wire:
        """Return registers and blocks of a call as the host left them, for the instruction that is executed again."""
        regs = {name: reply.regs.get(name, number) for name, number in wire.regs.items()}
        return Wire(regs=regs, mem=tuple((at, laid_over(at, data, reply.mem)) for at, data in wire.mem))

    def same_request(self, wire: Wire, sent: Fields) -> Any:
        """Return the request as the host left it. Raises `Refused` where it has become another one."""
        guest, convert = self.guest, self.guest.definition.convert
        assert convert is not None  # a call that converts
        try:
            value = guest.request.decode(wire)
            fields = fields_of(value)
            if convert.each is not None:
                same = sent[convert.each] == fields[convert.each]
            else:
                before, now = guest.scope(sent), guest.scope(fields)
                asked = [convert.start, convert.pages, *([convert.to.of] if convert.to is not None else [])]
                same = all(before.int(expr) == now.int(expr) for expr in asked)
        except (CodecError, ExprError) as error:
            raise Refused(f"the request cannot be read any more: {error.message}") from error
        if not same:
            raise Refused("the host has made another request of this one")
        return value

    def too_large(self, batch: Batch, answer: _Answer, first: int, left: int) -> tuple[int, int]:
        """Return first page and pages of the element, or of the range, that the host finds too large."""
        guest = self.guest
        if batch.each is None:
            if left <= guest.granule_pages():
                raise Refused("the host finds the smallest size too large")
            return first, left
        progress = guest.definition.progress
        done = batch.done_pages(answer, progress, left, within=False) if progress is not None else 0
        if done is None:
            raise Refused("the progress is outside of what was asked")
        self.believe(batch.first, done)
        at = batch.first
        for pages in batch.element_pages:
            if at == batch.first + done:
                break
            at += pages
        if pages <= (guest.definition.guest.element_pages or (1,))[-1]:  # type: ignore[union-attr]  # it has elements
            raise Refused("the host finds the smallest size too large")
        return at, pages


class _Answer:
    """One reply of the host, over the request that it answers."""

    def __init__(
        self,
        guest: Guest,
        sent: Fields,
        regs: Mapping[str, int],
        mem: tuple[tuple[int, bytes], ...],
        reply: GuestReply,
        to: PageState,
        **local: Any,
    ) -> None:
        self.guest = guest
        self.sent = sent
        codec: MessageCodec = guest.response
        source = WireSource({**regs, **reply.regs}, merge([*mem, *reply.mem]), message=codec.label)
        self.fields = Fields(codec.message.fields, lambda name: codec.placer.fetch(name, self.places, source))
        # Blocks lie where the request says, whatever the answer holds under the same names.
        self.places = Scope(
            guest.static, request=_overlaid(self.fields, sent), local={"request": sent, "response": self.fields}
        )
        self.scope = guest.scope(sent, self.fields, to=state_number(to.value), **local)

    def check(self) -> None:
        """Raise `Refused` where the answer cannot be read or breaks a rule that the guest must or should keep."""
        context = Context(
            backend=None,
            readable=lambda name: True,
            selected=lambda operands: True,
            message=self.guest.response.message,
            element=element_enums(self.guest.response.message, None),
        )
        for rule in self.guest.rules_of_answers:
            try:
                kept = keeps(rule, self.scope, context)
            except (CodecError, ExprError) as error:
                raise Refused(f"the answer cannot be read: {error.message}", rule.id) from error
            if not kept:
                raise Refused(rule.text, rule.id)

    def true(self, expr: Any) -> bool:
        """Evaluate a condition over the answer; without one, whether the outcome `done` was answered."""
        try:
            if expr is not None:
                return self.scope.true(expr)
            return self._is_done()
        except (CodecError, ExprError) as error:
            raise Refused(f"the answer cannot be read: {error.message}") from error

    def int(self, expr: Any, **local: Any) -> int:
        """Evaluate a number over the answer."""
        try:
            return self.scope.with_locals(**local).int(expr)
        except (CodecError, ExprError) as error:
            raise Refused(f"the answer cannot be read: {error.message}") from error

    def _is_done(self) -> bool:
        """Whether every field that the outcome `done` sets has that value."""
        for answer in self.guest.definition.outcomes.get("done", ()):
            if answer.cannot is not None or not answer.guard.serves(self.guest.transport.name):
                continue
            scope = self.scope.with_locals(done_pages=0, done_bytes=0, part_pages=0, index=0, errno=0)
            wanted = field_values(answer.fields, scope)
            return all(
                self.fields[name] == value
                if not isinstance(value, dict)
                else all(getattr(self.fields[name], inner) == number for inner, number in value.items())
                for name, value in wanted.items()
            )
        return False


def fields_of(value: Any) -> Fields:
    """Return the fields of a decoded message."""
    known = dict(zip(value._fields, value, strict=True))
    return Fields(known, known.__getitem__)


def _overlaid(front: Fields, back: Fields) -> Fields:
    """Return fields of the request where there are such, else of the response."""

    def fetch(name: str) -> Any:
        return back[name] if name in back else front[name]

    return Fields(front.names | back.names, fetch)
