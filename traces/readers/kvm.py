"""KVM's tracepoints, as ftrace, trace-cmd and ``perf script`` print them.

``kvm_hypercall`` shows the registers of a call and not its result; page state changes and MapGPA do not come by it.
``kvm_vmgexit_enter`` and ``_exit`` show the exit code and the results of a call through a GHCB page and never its
entries, so the pages of a Page State Change are not known. ``kvm_vmgexit_msr_protocol_enter`` and ``_exit`` show
the whole word, which is the whole call. What a number, a code or a word is, the specifications say.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from hvabi.backend import Status
from hvabi.traces.clocks import kernel_time
from hvabi.traces.event import Ambiguity, Sighting, TraceEvent
from hvabi.traces.lookup import exits, failure, forms, matching, msr_register, readings
from hvabi.traces.readers.base import REMEMBERED, LineReader, malformed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hvabi.traces.event import Kind, Record
    from hvabi.traces.lookup import Exit, Form
    from hvabi.traces.readers.base import Line

_NAME = re.compile(r"kvm_(hypercall|vmgexit_enter|vmgexit_exit|vmgexit_msr_protocol_(?:enter|exit)|userspace_exit):\s+")
_HYPERCALL = re.compile(
    r"nr 0x([0-9a-f]{1,16}) a0 0x([0-9a-f]{1,16}) a1 0x([0-9a-f]{1,16}) a2 0x([0-9a-f]{1,16}) a3 0x([0-9a-f]{1,16})\b"
)
_VMGEXIT = re.compile(
    r"vcpu (\d{1,10}), exit_reason ([0-9a-f]{1,16}), exit_info1 ([0-9a-f]{1,16}), exit_info2 ([0-9a-f]{1,16})(?![\w.])"
)
_MSR = re.compile(r"vcpu (\d{1,10}), ghcb_gpa ([0-9a-f]{16})(?:, result (-?\d{1,10}))?(?![\w.])")
_EXIT = re.compile(r"reason (\w{1,60} \(-?\d{1,10}\))")

_REGISTERS = ("rax", "rbx", "rcx", "rdx", "rsi")
"""The number of a KVM hypercall and its arguments, in the order in which the tracepoint prints them."""

MAX_VCPUS = 4096
"""Virtual processors whose open calls are kept."""


class KvmReader(LineReader):
    """Reads kvm_hypercall, kvm_vmgexit_*, kvm_vmgexit_msr_protocol_* and kvm_userspace_exit."""

    name = "kvm-trace"
    title = "KVM tracepoints of ftrace, trace-cmd or perf script (kvm_hypercall, kvm_vmgexit_*, kvm_userspace_exit)"
    marks = (b"kvm_hypercall:", b"kvm_vmgexit_", b"kvm_userspace_exit:")

    def __init__(self) -> None:
        self._hypercalls: dict[str, tuple[Any, ...]] = {}
        self._msr = ""
        self._words: dict[int, tuple[TraceEvent, Form, int]] = {}  # open calls by vCPU
        self._codes: dict[int, tuple[Sighting, int]] = {}

    def read(self, line: Line) -> Iterator[Record | None]:
        """Return what one line shows."""
        text = line.text
        match = _NAME.search(text)
        while match is not None:
            at, what = match.start(), match.group(1)
            if what == "hypercall":
                yield from self._hypercall(line, at, match.end())
            elif what == "userspace_exit":
                yield from self._userspace_exit(line, at, match.end())
            elif what.startswith("vmgexit_msr"):
                yield from self._word(line, at, match.end(), begins=what.endswith("enter"))
            else:
                yield from self._vmgexit(line, at, match.end(), begins=what.endswith("enter"))
            match = _NAME.search(text, match.end())

    def settle(self) -> Iterator[Record]:
        """Return the calls whose end is not in the trace."""
        for event, _, _ in self._words.values():
            yield event
        for sighting, _ in self._codes.values():
            yield sighting
        self._words.clear()
        self._codes.clear()

    # -- hypercalls ---------------------------------------------------------------------------------------------

    def _hypercall(self, line: Line, at: int, start: int) -> Iterator[Record]:
        text = line.text
        known = self._hypercalls.get(text[start:])
        if known is None:
            match = _HYPERCALL.match(text, start)
            if match is None:
                yield malformed(line, "expected `nr 0x… a0 0x… a1 0x… a2 0x… a3 0x…` behind kvm_hypercall", at)
                return
            known = _asked([int(number, 16) for number in match.groups()])
            if not line.cut:
                if len(self._hypercalls) >= REMEMBERED:
                    self._hypercalls.clear()
                self._hypercalls[text[start:]] = known
        time = _seconds(text, at)
        if len(known) == 2:
            yield self._sighting(line, time, "other-call", *known, "kvm_hypercall")
        else:
            yield TraceEvent.plain(line.source, line.number, time, *known)

    # -- the GHCB MSR protocol ----------------------------------------------------------------------------------

    def _word(self, line: Line, at: int, start: int, *, begins: bool) -> Iterator[Record | None]:
        match = _MSR.match(line.text, start)
        if match is None or (match.group(3) is None) is not begins:
            yield malformed(
                line, "expected `vcpu N, ghcb_gpa` and 16 hexadecimal digits" + ("" if begins else ", `result N`"), at
            )
            return
        vcpu, word = int(match.group(1)), int(match.group(2), 16)
        self._msr = self._msr or msr_register()
        registers = {self._msr: word}
        time = _seconds(line.text, at)
        if not begins:
            yield from self._word_ends(vcpu, word)
            return
        open_ = self._words.pop(vcpu, None)
        if open_ is not None:
            yield open_[0]
        form = next((form for form in matching(self._msr, registers) if form.role == "request"), None)
        if form is None:
            yield self._sighting(
                line, time, "other-call", "GHCB MSR, unknown", f"word {word:#018x}", "vmgexit-msr", vcpu
            )
        elif form.converts:
            meant = form.meaning().of(**form.fields(registers))
            event = TraceEvent.plain(
                line.source, line.number, time, *meant[:4], True, None, *meant[4:], "vmgexit-msr", "boot"
            )._replace(vcpu=vcpu)
            if len(self._words) >= MAX_VCPUS:
                yield self._words.pop(next(iter(self._words)))[0]
            self._words[vcpu] = (event, form, word)
            yield None
        else:
            ends = form.call is not None and form.call.response is None
            kind: Kind = "terminated" if ends else "other-call"
            name = f"{form.spec.id}/{form.message}"
            yield self._sighting(line, time, kind, name, form.text(registers), "vmgexit-msr", vcpu)

    def _word_ends(self, vcpu: int, word: int) -> Iterator[Record | None]:
        open_ = self._words.pop(vcpu, None)
        if open_ is None:
            yield None  # the end of a call that converts nothing, or of one before the trace begins
            return
        event, form, sent = open_
        if word != sent:
            # Otherwise KVM has passed the call on, and its answer is not shown here.
            call = form.call
            assert call is not None
            answer = next((f for f in forms(self._msr, (self._msr,)) if f.message == call.response), None)
            if answer is not None and answer.spec.id == form.spec.id:
                request, response = form.fields({self._msr: sent}), answer.fields({self._msr: word})
                reason = failure(call, form.spec, request, response)
                event = event._replace(attempt=False, outcome=Status.DONE if reason is None else Status.FAILED)
        yield event

    # -- calls through a GHCB page ------------------------------------------------------------------------------

    def _vmgexit(self, line: Line, at: int, start: int, *, begins: bool) -> Iterator[Record | None]:
        match = _VMGEXIT.match(line.text, start)
        if match is None:
            yield malformed(line, "expected `vcpu N, exit_reason N, exit_info1 N, exit_info2 N`", at)
            return
        vcpu = int(match.group(1))
        code, info1, info2 = (int(number, 16) for number in match.groups()[1:])
        time = _seconds(line.text, at)
        call = exits().get(code)
        open_ = self._codes.get(vcpu)
        if open_ is not None and (begins or open_[1] == code):
            del self._codes[vcpu]
            yield open_[0] if begins else _ended(open_[0], call, info1, info2)
        if call is None or not call.whole or not call.converts:
            if begins:
                name = (
                    f"{call.spec.id}, or another call through VMMCALL" if call is not None else f"exit code {code:#x}"
                )
                text = "its arguments stand in its kvm_hypercall line" if call is not None else "converts nothing"
                yield self._sighting(line, time, "other-call", name, text, "vmgexit", vcpu)
            yield None
        elif begins:
            text = "the trace does not show which pages"
            if len(self._codes) >= MAX_VCPUS:
                yield self._codes.pop(next(iter(self._codes)))[0]
            sighting = self._sighting(line, time, "hidden-call", call.spec.id, text, "vmgexit", vcpu)
            self._codes[vcpu] = (sighting, code)
            yield None
        elif open_ is None or open_[1] != code:
            ended = _ended(self._sighting(line, time, "orphan", call.spec.id, "", "vmgexit", vcpu), call, info1, info2)
            yield ended._replace(text="the end of a call whose begin is not in the trace")

    # -- exits to user space ------------------------------------------------------------------------------------

    def _userspace_exit(self, line: Line, at: int, start: int) -> Iterator[Record]:
        match = _EXIT.match(line.text, start)
        if match is None:
            yield malformed(line, "expected `reason NAME (N)` behind kvm_userspace_exit", at)
            return
        yield self._sighting(line, _seconds(line.text, at), "exit", match.group(1), "", "kvm_userspace_exit")

    @staticmethod
    def _sighting(
        line: Line, time: float | None, kind: Kind, name: str, text: str, what: str, vcpu: int | None = None
    ) -> Sighting:
        return Sighting(line.source, line.number, time, kind, name, text, "", what, "boot", vcpu)


def _seconds(text: str, at: int) -> float | None:
    time = kernel_time(text[:at])
    return None if time is None else time[0]


def _asked(numbers: list[int]) -> tuple[Any, ...]:
    """Return the fields of an event behind its time, or name and text of a call that converts nothing."""
    found = readings(_REGISTERS[0], dict(zip(_REGISTERS, numbers, strict=True)))
    if not found:
        return f"KVM hypercall {numbers[0]}", " ".join(map(hex, numbers[1:]))
    first, open_ = found[0], None
    if len(found) > 1:
        other = found[1]
        open_ = Ambiguity("a2", hex(numbers[3]), str(first.abi), str(other.abi), other)
    abi, gpa, pages, to, refused, broken = first
    return abi, gpa, pages, to, True, open_, refused, broken, "kvm_hypercall", "boot"


def _ended(sighting: Sighting, call: Exit | None, info1: int, info2: int) -> Sighting:
    failed = call.failure(info1, info2) if call is not None else None
    return sighting._replace(result="no error shown" if failed is None else failed)
