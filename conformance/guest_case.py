"""Runs one guest case: the runner plays the host, by the oracle or by a script.

It judges what the guest asks, when it does its local half, and what it believes at the end.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hvabi.abi.errors import HvAbiError
from hvabi.abi.wire import Wire, merge
from hvabi.conformance.answer import Converted, GuestAsk, LocalStep
from hvabi.conformance.ask import Asked, Reader, Unreadable
from hvabi.conformance.bytesmap import Bytes, Spans, text_of
from hvabi.conformance.case import GuestTurn, Held
from hvabi.conformance.judge import state_differences
from hvabi.conformance.modelled import undone, untrue, visible, with_chosen
from hvabi.conformance.oracle.walk import Undefined
from hvabi.conformance.outcome import Outcome, Unseen
from hvabi.conformance.result import Exchanged, Finding, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hvabi.conformance.case import Case, Expected, GuestScript, Memory, Pages, Ranges
    from hvabi.conformance.client import Client

MOST_STALLS = 1000
"""Calls in a row that convert nothing after which a guest is taken not to end, whatever the ABI's bound."""
_SPARE_CALLS = 16
_MOST_SHOWN = 64
"""Most exchanges of one conversion that are kept for reports."""
_MOST_REPLAYS = 4096
_ENDED_WELL = ("done", "partial", "retry")


class GuestCase:
    """One guest case against one session; see `HostCase` for the parameters."""

    def __init__(
        self, client: Client, case: Case, *, profile: str, features: frozenset[str], check_time: Callable[[], None]
    ) -> None:
        if case.script is None:
            raise HvAbiError(f"{case.id} is a guest case without a script", code="bad-case")
        self.client = client
        self.case = case
        self.features = features
        self.check_time = check_time
        self.outcome = Outcome(case=case, profile=profile)
        self.reader = Reader(case.abi, case.revision, case.transport, case.setup, profile=profile)
        # -- what the model host knows
        self.state: Ranges = case.before
        self.facts: Mapping[str, Pages] = case.facts
        self.held = Held()
        self.memory = Bytes()
        #: Calls of conversions before this one.
        self.earlier = 0
        self._begin(case.script)

    def _begin(self, script: GuestScript) -> None:
        """Begin a conversion: what is known of an earlier one is only what the model host knows."""
        self.script = script
        self.range = (script.gpa >> 12, (script.gpa >> 12) + script.pages)
        #: Whether every answer so far was the model's own, and whether none of them refused anything.
        self.served = True
        self.refused = False
        #: Whether a turn under a condition had its word.
        self.told = False
        self.calls = 0
        self.stalled = 0
        self.bound = 0
        #: Pages that calls have named, and those that answers have said are done.
        self.named: list[tuple[int, int]] = []
        self.said: list[tuple[int, int]] = []
        self.steps: dict[str, list[tuple[int, int]]] = {}
        #: Registers and blocks that must come again as they are, after an answer that says to execute the call again.
        self.again: Wire | None = None

    def run(self) -> Outcome:
        """Ask for the conversion and answer the guest's calls to the end."""
        self.client.reset(self.case.before, self.case.facts)
        while self._convert() and self.script.then is not None:
            self.earlier += self.calls
            self._begin(self.script.then)
        return self.outcome

    def _convert(self) -> bool:
        """Ask for one conversion; return whether it ended, and as it should."""
        shown = self.client.convert(self.script.gpa, self.script.pages, self.script.to)
        while not isinstance(shown, Converted):
            self.check_time()
            if isinstance(shown, LocalStep):
                self._local_step(shown)
                shown = self.client.resume()
                continue
            answer = self._answer(shown)
            if answer is None:
                # Nothing that the host could say; the reset of the next case ends the conversation.
                return False
            shown = self.client.resume(*answer)
        self._end(shown)
        return not self.outcome.failed

    def _find(self, what: str, expected: str, found: str, *, rule: str | None = None, level: str | None = None) -> None:
        step = max(self.earlier + self.calls - 1, 0)
        self.outcome.add(Finding(what=what, expected=expected, found=found, step=step, rule=rule), level)

    # -- calls --------------------------------------------------------------------------------------------------

    def _answer(self, asked: GuestAsk) -> tuple[dict[str, int], Memory] | None:
        """Judge one call and return the host's answer, None where there is none."""
        self.calls += 1
        turn = self._turn()
        repeated = self._judge_again(asked)
        self.memory.lay(asked.mem)
        seen = visible(asked.mem, self.memory)
        try:
            read = self.reader.read(asked.regs, seen, self.held)
        except Unreadable as error:
            self._find("request", "a call of this ABI", str(error), level="must")
            self._show(asked, {}, ())
            return None
        self._count(read)
        if turn.above is not None and sum(end - start for start, end, _ in read.pages) <= turn.above:
            turn = GuestTurn()
        if not repeated:
            self._judge_request(read)
        self.named += [(start, end) for start, end, _ in read.pages]
        regs: dict[str, int] = {}
        mem: list[tuple[int, bytes]] = []
        if turn.kind == "serve":
            served = self._serve(asked, seen, read, turn)
            if served is None:
                self._show(asked, {}, ())
                return None
            regs, mem = served
        else:
            self.stalled += 1
        over = Wire(regs={**asked.regs, **regs}, mem=merge([*seen, *mem]))
        right = over if turn.kind == "serve" else None
        says = turn.kind == "say" or bool(turn.say or turn.regs or turn.mem_at)
        if turn.when is not None and right is not None:
            says = says and self.reader.is_so(read, turn.when, right)
            self.told = self.told or says
        if says:
            self.served = False
            self.refused = True
            said, bytes_said = self.reader.say(read, turn, to=self.script.to, answer=right)
            regs.update(said)
            mem += bytes_said
            over = Wire(regs={**asked.regs, **regs}, mem=merge([*seen, *mem]))
        mem = list(merge(mem))
        self.said += self.reader.said_done(read, over)
        self.memory.lay(mem)
        if self.reader.executes_again(read, over):
            blocks = tuple((at, self.memory.read(at, len(data))) for at, data in asked.mem)
            self.again = Wire(regs={name: over.regs[name] for name in asked.regs}, mem=blocks)
        self._show(asked, regs, tuple(mem))
        return regs, tuple(mem)

    def _judge_again(self, asked: GuestAsk) -> bool:
        """Hold the guest to the call that it was told to execute again; return whether this is that call."""
        wanted, self.again = self.again, None
        if wanted is None:
            return False
        sent = Bytes(self.memory.pieces())
        sent.lay(asked.mem)
        wrong = [
            (f"register {name}", hex(number), hex(asked.regs.get(name, 0)))
            for name, number in wanted.regs.items()
            if asked.regs.get(name, 0) != number
        ]
        wrong += [
            (f"bytes at {at:#x}", data.hex(), sent.read(at, len(data)).hex())
            for at, data in wanted.mem
            if sent.read(at, len(data)) != data
        ]
        for what, expected, found in wrong:
            self._find(f"{what} of the call that is executed again", f"{expected}, as the host left it", found)
        return not wrong

    def _show(self, asked: GuestAsk, regs: Mapping[str, int], mem: Memory) -> None:
        if len(self.outcome.exchanged) < _MOST_SHOWN:
            self.outcome.exchanged.append(
                Exchanged(sent_regs=asked.regs, sent_mem=asked.mem, got_end="return", got_regs=regs, got_mem=mem)
            )

    def _turn(self) -> GuestTurn:
        turns = self.script.turns
        if self.calls <= len(turns):
            return turns[self.calls - 1]
        return turns[-1] if turns and self.script.repeat_last else GuestTurn()

    def _count(self, read: Asked) -> None:
        """Hold the guest to the bound of the specification for the whole range."""
        if not self.bound:
            pages = sum(end - start for start, end, _ in read.pages)
            batches = -(-self.script.pages // max(pages, 1))
            one = self.reader.bound(read)
            self.bound = (one * batches if one is not None else self.script.pages) + _SPARE_CALLS
            if self.script.calls is not None:
                self.bound = max(self.bound, self.script.calls[1])
        if self.calls > self.bound:
            raise Unseen(Verdict.NO_PROGRESS, f"the guest made {self.calls} calls, and the bound is {self.bound}")
        if self.stalled > MOST_STALLS:
            raise Unseen(Verdict.NO_PROGRESS, f"the guest made {self.stalled} calls in a row that converted nothing")

    def _judge_request(self, read: Asked) -> None:
        for rule in read.broken:
            self._find(f"rule {rule.id}", rule.text, "a request that breaks it", rule=rule.id, level=rule.level)
        for start, end, state in read.pages:
            if start < end and not (self.range[0] <= start and end <= self.range[1]):
                wanted = f"pages {self.range[0]:#x} to {self.range[1] - 1:#x} or a part of them"
                self._find("pages of the request", wanted, f"{start:#x} to {end - 1:#x}", level="must")
            # After a refusal a guest may be rolling back.
            elif state is not None and state != self.script.to and not self.refused:
                self._find("state of the request", self.script.to, state, level="must")

    def _serve(
        self, asked: GuestAsk, seen: Memory, read: Asked, turn: GuestTurn
    ) -> tuple[dict[str, int], list[tuple[int, bytes]]] | None:
        """Let the model host do the call; guests see the last answer of a call that is replayed."""
        regs: dict[str, int] = {}
        mem: list[tuple[int, bytes]] = []
        inject = turn.inject
        for _ in range(_MOST_REPLAYS):
            try:
                expected = self.reader.serve(
                    read, {**asked.regs, **regs}, inject=inject, before=self.state, facts=self.facts
                )
            except Undefined as error:
                self._find("request", "one that a host can answer", str(error), level="must")
                return None
            self._note_progress(expected)
            regs.update(with_chosen(expected))
            mem += expected.mem
            if expected.end != "replay":
                break
            inject = None
            read = self.reader.read({**asked.regs, **regs}, seen, self.held)
        if expected.end != "return":
            why = f"{expected.end} {expected.fault or ''}".strip() + (f" ({expected.rule})" if expected.rule else "")
            self._find("request", "one that the host returns from", why, rule=expected.rule)
            return None
        self.refused = self.refused or expected.rule is not None or expected.status not in _ENDED_WELL
        return regs, mem

    def _note_progress(self, expected: Expected) -> None:
        """Take over what the model host has done."""
        changed = state_differences(self.state, expected.state, (), "private") or self.facts != expected.facts
        self.stalled = 0 if changed else self.stalled + 1
        self.state, self.facts, self.held = expected.state, expected.facts, expected.held

    # -- local steps --------------------------------------------------------------------------------------------

    def _local_step(self, shown: LocalStep) -> None:
        """Judge when a guest does its local half: before the host's for some states, behind it for others."""
        if "local-steps" not in self.features:
            raise Unseen(Verdict.PROTOCOL, "the guest yields a local step and has not the feature local-steps")
        spans = Spans((start, end) for start, end, _ in shown.ranges)
        self.steps.setdefault(shown.step, []).extend(spans.spans)
        if not spans.within(Spans([self.range])):
            self._find(f"step {shown.step}", "pages of the conversion", text_of(spans.spans), level="must")
        for word, when in self._wanted_steps():
            if word != shown.step:
                continue
            early = spans.minus(Spans(self.said)).spans
            late = spans.minus(spans.minus(Spans(self.named))).spans
            if when == "after" and early:
                self._find(f"step {word}", "after the host has converted the pages", f"before, at {text_of(early)}")
            if when == "before" and late:
                self._find(f"step {word}", "before the call that names the pages", f"behind it, at {text_of(late)}")

    def _wanted_steps(self) -> list[tuple[str, str]]:
        """Return when a word has its place; one that the ABI has on both sides has none."""
        if self.script.local_steps:
            return [(word, when) for word, when, _ in self.script.local_steps]
        call = self.reader.abi.convert_call
        if call is None or call.guest is None:
            return []
        before = call.guest.steps_before.get(self.script.to)
        after = call.guest.steps_after.get(self.script.to)
        both = [(before, "before"), (after, "after")]
        return [(word, when) for word, when in both if word is not None and before != after]

    def _judge_steps(self) -> None:
        """Compare the pages of the local steps with what the script asks for."""
        if "local-steps" not in self.features:
            return
        for word, _, pages in self.script.local_steps:
            have, want = Spans(self.steps.get(word, ())), Spans(pages)
            if have.spans != want.spans:
                self._find(f"pages of step {word}", text_of(want.spans), text_of(have.spans))

    # -- the end ------------------------------------------------------------------------------------------------

    def _end(self, result: Converted) -> None:
        if not self.told and any(turn.when is not None for turn in self.script.turns):
            whole = ((self.range[0], self.range[1]),)
            self.script = replace(self.script, done=True, must_not_believe=(), must_believe=whole)
        script = self.script
        if result.stop is not None:
            if script.done is True:
                self._find("end of the conversion", "done", f"stop: {result.stop}")
        else:
            if script.done is not None and result.done != script.done:
                self._find("done", str(script.done).lower(), str(result.done).lower())
            self._judge_belief(result)
        self._judge_steps()
        if script.calls is not None and not script.calls[0] <= self.calls <= script.calls[1]:
            low, high = script.calls
            self._find("calls", str(low) if low == high else f"{low} to {high}", str(self.calls))

    def _judge_belief(self, result: Converted) -> None:
        script = self.script
        believed = Spans((start, end) for start, end, state in result.ranges if state == script.to)
        wrong = [f"{state} {start:#x} to {end - 1:#x}" for start, end, state in result.ranges if state != script.to]
        if wrong and not self.refused:
            self._find("state of the ranges at the end", script.to, ", ".join(wrong[:4]))
        whole = Spans([self.range] if script.pages else [])
        outside = believed.minus(whole).spans
        if outside:
            self._find("ranges at the end", "pages of the conversion", text_of(outside), level="must")
        if result.done and not whole.within(believed):
            self._find("ranges at the end", "the whole, as done is true", text_of(believed.spans))
        forbidden = [
            (max(low, start), min(high, end))
            for low, high in believed.spans
            for start, end in script.must_not_believe
            if max(low, start) < min(high, end)
        ]
        if forbidden:
            self._find("pages that the guest believes", "not these, which are not converted", text_of(forbidden))
        elif self.served and not outside:
            call = self.reader.abi.convert_call
            stands_for = call.convert.stands_for if call is not None and call.convert is not None else {}
            if script.to in stands_for:
                lost = untrue(self.facts, believed, stands_for[script.to])
            else:
                lost = undone(self.state, believed, script.to)
            if lost:
                self._find("pages that the guest believes", "only what the host has done", text_of(lost))
        missing = Spans(script.must_believe).minus(believed).spans
        if missing and (result.done or script.done is not True):
            self._find("pages that the guest believes", "all that the host has done", f"not {text_of(missing)}")


__all__ = ["MOST_STALLS", "GuestCase"]
