"""What a host was asked and what its answer says, read back from registers and bytes with the codecs alone.

The host's own account (`HostAnswer.done_pages`, `changes`) is not looked at: what counts is what the wire says.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from hvabi.abi.errors import CodecError, HvAbiError
from hvabi.abi.expr import names
from hvabi.abi.model import BlockPlace, PairPlace, RegisterPlace
from hvabi.abi.scope import Fields, Scope
from hvabi.abi.wire import merge
from hvabi.adapters.host import field_values
from hvabi.backend import GPA_PAGES, PageState, Status

if TYPE_CHECKING:
    from hvabi.abi.calls import Answer, Call, Rule
    from hvabi.abi.expr import Expr
    from hvabi.adapters.values import HostAnswer
    from tests.fuzzing import Combo, Input, Memory


class Image:
    """Registers and bytes before or after a call, as a source of the codec: what is not there is 0."""

    def __init__(self, regs: dict[str, int], mem: Memory) -> None:
        self.regs = regs
        self.mem = mem

    def register(self, name: str) -> int:
        return self.regs.get(name, 0)

    def read(self, block: str, address: int, size: int) -> bytes:
        for start, data in self.mem:
            if start <= address and address + size <= start + len(data):
                return data[address - start : address - start + size]
        if size > 1 << 20:
            raise CodecError("truncated", "more than there is", message_name=block)
        out = bytearray(size)
        for start, data in self.mem:
            first, last = max(start, address), min(start + len(data), address + size)
            if first < last:
                out[first - address : last - address] = data[first - start : last - start]
        return bytes(out)


class Reading:
    """What a call asked for and what its answer says, read from the wire."""

    def __init__(self, combo: Combo, given: Input, answer: HostAnswer) -> None:
        self.combo, self.given, self.answer = combo, given, answer
        self.sent = Image(dict(given.regs), given.mem)
        # An answer lies over what was sent; a byte that flipped after it was read is still what was sent.
        self.after = Image({**given.regs, **answer.regs}, merge([*given.mem, *answer.mem]))
        self.call = self._called()
        self.request, self.scope = self._open(self.call, self.sent)

    def _open(self, call: Call, source: Image) -> tuple[Fields, Scope]:
        codec = self.combo.codec(call.request, self.given.config)
        fields = Fields(codec.message.fields, lambda name: codec.placer.fetch(name, scope, source))
        scope = Scope(
            codec.static,
            define={name: item.expr for name, item in call.define.items()},
            request=fields,
            local={"cpl": self.given.cpl, "enabled": int(self.given.enabled)},
        )
        return fields, scope

    def _called(self) -> Call:
        """Return the first call whose constants and fixed registers were sent, else by constants, else the first."""
        calls = list(self.combo.calls.values())
        right = [call for call in calls if self._constants_are_right(call)] if len(calls) > 1 else []
        for call in right:
            _, scope = self._open(call, self.sent)
            fixed = self.combo.transport.placements[call.request].fixed
            if all(self.sent.register(register) == scope.int(expr) for register, expr in fixed.items()):
                return call
        return (right or calls)[0]

    def _constants_are_right(self, call: Call) -> bool:
        fields, scope = self._open(call, self.sent)
        placement = self.combo.transport.placements[call.request]
        try:
            return all(
                fields[name] == scope.int(item.const)
                for name, item in self.combo.abi.messages[call.request].fields.items()
                if item.const is not None and placement.place.get(name)
            )
        except HvAbiError:
            return False

    # -- pages --------------------------------------------------------------------------------------------------

    def parts(self) -> list[tuple[int, int, PageState | None]]:
        """Return what the request names, element by element: first page, pages, the state asked for."""
        convert = self.call.convert
        if convert is None:
            return []
        if convert.bits is not None:
            return self._by_bits(convert.bits)
        if convert.each is None:
            return [self._part(self.scope)]
        if self.call.handle is not None and self.call.handle.does != "open":
            return []  # each call is the first one of its host, which keeps nothing
        items = self.request[convert.each]
        first, scope = self.first(), self._with_handle(self.scope)
        last = scope.int(convert.count) if convert.count is not None else len(items)
        return [
            self._part(scope.with_locals(it=item, index=index)) if index >= first else (0, 0, None)
            for index, item in enumerate(items[: max(last, 0)])
        ]

    def _with_handle(self, scope: Scope) -> Scope:
        """Return names with those of the handle that a first call is to get."""
        use = self.call.handle
        if use is None or use.does != "open":
            return scope
        kept = {name: self.scope.int(expr) for name, expr in use.keep.items()}
        scope = scope.with_locals(gathered=self.request[use.list or ""], kept=kept, parts=1, handles=0, held=0)
        return scope.with_locals(complete=1 if use.complete is None else int(self.scope.true(use.complete)))

    def _by_bits(self, name: str) -> list[tuple[int, int, PageState | None]]:
        """Return the runs of pages of which the bits are alike."""
        convert = self.call.convert
        assert convert is not None  # the caller has looked
        width = self.combo.abi.messages[self.call.request].fields[name].bits
        text = "".join(f"{item:0{width}b}"[::-1] for item in self.request[name])
        at, parts = self.scope.int(convert.start) // 4096, []
        for bit, run in itertools.groupby(text[: max(self.scope.int(convert.pages), 0)]):
            pages = len(list(run))
            _, _, to = self._part(self.scope.with_locals(it=int(bit)))
            parts.append((at, pages, to))
            at += pages
        return parts

    def first(self) -> int:
        """Return the element that the call begins with."""
        convert = self.call.convert
        return self.scope.int(convert.first) if convert and convert.first is not None else 0

    def _part(self, scope: Scope) -> tuple[int, int, PageState | None]:
        convert = self.call.convert
        assert convert is not None  # the caller has looked
        pages = max(scope.int(convert.pages), 0)
        start = scope.int(convert.start) // 4096
        if convert.to is None:
            return start, pages, None
        word = convert.to.states.get(scope.int(convert.to.of), convert.to.otherwise)
        return start, pages, None if word in (None, "none") else PageState(word)

    def reported(self) -> list[tuple[int, int, PageState | None]]:
        """Return the pages that the answer says are done: first page, pages, state."""
        if self.answer.end == "replay":
            return self._replayed()
        if self.answer.end != "return" or self.call.response is None or self.call.convert is None:
            return []
        scope = self._response_scope()
        progress = self.call.progress
        if progress is None:
            return self.parts() if self._says_done(scope) else []
        if scope.true(progress.done_when):
            return self.parts()
        again = scope.true(progress.again_when)
        counts = progress.counts_when is not None and scope.true(progress.counts_when)
        if not again and not counts and not self._written(progress.completed):
            return []
        done = self._with_handle(scope).int(progress.completed)
        if progress.unit == "element":
            parts = self.parts()
            if (not again or done == self.first()) and not self.first() <= done < len(parts):
                return []  # an error before the list was looked at, or an answer that says nothing
            assert self.first() <= done <= len(parts), "progress outside the list"
            out = parts[:done]
            if progress.within is not None and done < len(parts):
                # The element says how far it is in all; what it said before the call was not done by this one.
                start, pages, to = parts[done]
                before = self._response_scope(self.sent)
                within = scope.with_locals(index=done).int(progress.within)
                part = within - before.with_locals(index=done).int(progress.within)
                assert 0 <= part <= pages, "progress outside the element"
                out.append((start, part, to))
            return out
        unit = 4096 if progress.unit == "page" else 1
        if progress.unit == "granule" and progress.granule is not None:
            unit = scope.int(progress.granule)
        ((start, pages, to),) = self.parts()
        if not again and not 0 <= done * unit <= pages * 4096:
            return []
        assert done * unit % 4096 == 0, "progress within a page"
        assert 0 <= done * unit // 4096 <= pages, "progress outside the range"
        return [(start, done * unit // 4096, to)]

    def _written(self, completed: Expr) -> bool:
        """Whether a failing answer of an ABI with an exact footprint says anew how far the host came."""
        progress, response = self.call.progress, self.call.response
        if progress is None or response is None or progress.footprint != "exact":
            return False
        placement = self.combo.transport.placements[response]
        places = [placement.place[name][0] for name in names(completed) if name in placement.place]
        return all(isinstance(place, RegisterPlace) and place.register in self.answer.regs for place in places)

    def mended(self, rule: Rule) -> tuple[int, int, bool]:
        """Return the pages that a rule on a fact is about, and the value that it wants: first page, pages, value."""
        _, scope = self._open(self.call, self.after)
        start, length, wanted = (scope.int(rule.operands[key][0]) for key in ("start", "length", "is"))
        return start // 4096, -(-(start + length) // 4096) - start // 4096, bool(wanted)

    def _replayed(self) -> list[tuple[int, int, PageState | None]]:
        """Return the pages that the call will not do when it is executed again with the registers it now has."""
        convert = self.call.convert
        if convert is None:
            return []
        _, scope = self._open(self.call, self.after)
        if convert.each is None:
            ((start, pages, to),) = self.parts()
            done = pages - max(scope.int(convert.pages), 0)
            assert 0 <= done <= pages, "replay outside the range"
            assert scope.int(convert.start) // 4096 == start + done, "replay of other pages"
            return [(start, done, to)]
        if convert.first is None:
            return []
        again = scope.int(convert.first)
        assert self.first() <= again <= len(self.parts()), "replay outside the list"
        return self.parts()[:again]

    def _response_scope(self, source: Image | None = None) -> Scope:
        """Return names over request and response; blocks lie where the request says."""
        assert self.call.response is not None  # the caller has looked
        codec = self.combo.codec(self.call.response, self.given.config)
        image = source or self.after
        response = Fields(codec.message.fields, lambda name: codec.placer.fetch(name, places, image))
        sent = self.request
        both = Fields(sent.names | response.names, lambda name: sent[name] if name in sent else response[name])
        places = Scope(codec.static, request=both, local={"request": sent, "response": response})
        return Scope(
            codec.static,
            define={name: item.expr for name, item in self.call.define.items()},
            request=sent,
            response=response,
            local={"cpl": 0, "enabled": 1, "response": response},
        )

    def _says_done(self, scope: Scope) -> bool:
        """Whether the response is what the outcome `done` answers."""
        local = scope.with_locals(done_pages=0, done_bytes=0, part_pages=0, index=0, errno=0, to=0)
        response = scope["response"]
        for answer in self.call.outcomes["done"]:
            if answer.cannot is None and answer.guard.serves(self.combo.transport.name):
                wanted = field_values(answer.fields, local)
                if not wanted:  # a success that writes nothing: no guest can tell it, only the host's own word counts
                    return self.answer.status is Status.DONE
                return all(
                    all(getattr(response[name], inner) == number for inner, number in value.items())
                    if isinstance(value, dict)
                    else response[name] == value
                    for name, value in wanted.items()
                )
        return False

    def fact_after(self, expr: Expr, index: int) -> PageState:
        """Return what a fact becomes on the pages of a part that is done: SHARED stands for true."""
        convert, scope = self.call.convert, self.scope
        if convert is not None and convert.each is not None:
            scope = scope.with_locals(it=self.request[convert.each][index], index=index)
        return PageState.SHARED if scope.true(expr) else PageState.PRIVATE

    # -- bytes --------------------------------------------------------------------------------------------------

    def blocks(self, *access: str) -> list[tuple[int, int]]:
        """Return where the blocks of the call with this access lie: first address, address behind the last byte."""
        blocks = dict(self.combo.transport.placements[self.call.request].blocks)
        if self.call.response is not None:
            blocks.update(self.combo.transport.placements[self.call.response].blocks)
        out = []
        for block in blocks.values():
            if block.access in access and block.at is not None:
                start = self.scope.int(block.at)
                out.append((start, start + max(self.scope.int(block.size), 0)))
        return out


def registers_of(combo: Combo, call: Call) -> set[str]:
    """Return the registers that an answer may write."""
    if call.response is None:
        return set()
    placement = combo.transport.placements[call.response]
    found: set[str] = set()
    for places in placement.place.values():
        match places[0]:
            case RegisterPlace(register=register):
                found.add(register)
            case PairPlace(high=high, low=low):
                found |= {high, low}
            case BlockPlace():
                pass
    blocks = {**combo.transport.placements[call.request].blocks, **placement.blocks}
    return found | {register for block in blocks.values() if block.access != "in" for register in block.registers}


def endings(call: Call) -> set[tuple[str, str | None]]:
    """Return how the call may end: what its rules, outcomes and its user space's errnos say."""
    answers: list[Answer | None] = [rule.answer for rule in call.rules]
    answers += [answer for choices in call.outcomes.values() for answer in choices]
    answers += [row.answer for row in call.vmm.errno] if call.vmm else []
    return {(answer.end, answer.fault) for answer in answers if answer is not None and answer.cannot is None}


def laid(ranges: list[tuple[int, int, PageState]], parts: list[tuple[int, int, PageState | None]]) -> Any:
    """Return sorted and joined ranges that are not private, after parts were given their states one by one."""
    for start, pages, to in parts:
        end = min(start + pages, GPA_PAGES)
        if to is None or start >= end:
            continue
        kept = []
        for first, last, state in ranges:
            if first < start:
                kept.append((first, min(last, start), state))
            if last > end:
                kept.append((max(first, end), last, state))
        ranges = sorted([*kept, (start, end, to)] if to is not PageState.PRIVATE else kept)
    out: list[tuple[int, int, PageState]] = []
    for first, last, state in ranges:
        if first >= last:
            continue
        if out and out[-1][1] == first and out[-1][2] is state:
            out[-1] = (out[-1][0], last, state)
        else:
            out.append((first, last, state))
    return out
