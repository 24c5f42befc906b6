"""Host cases that no single rule gives: conversions that succeed, stops on the way, refusals, bounds, flips."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hvabi.abi.errors import HvAbiError
from hvabi.conformance.case import HostStep, Inject, Setup
from hvabi.conformance.generate.basis import PLACE, Basis, Question, vary
from hvabi.conformance.generate.followup import executed_again, next_fields
from hvabi.conformance.generate.judged import judge
from hvabi.conformance.generate.variants import basis_request
from hvabi.conformance.generate.worked import worked
from hvabi.conformance.oracle.walk import value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hvabi.conformance.case import Case, Expected

_SPANS = (("one-page", PLACE, 1), ("three-pages", PLACE, 3), ("2m", PLACE, 512), ("across-2m", PLACE + 510, 5))
_ERRNOS = (11, 22, 12, 5)
_STOPS = (0, 1, 2)


def _rounded(basis: Basis, pages: int) -> int:
    granule = basis.granule()
    return -(-pages // granule) * granule


def _question(basis: Basis, start: int, pages: int, to: str) -> Question | None:
    granule = basis.granule()
    return basis.question(start // granule * granule, _rounded(basis, pages), to)


def done_cases(basis: Basis) -> Iterator[Case]:
    """Yield conversions that succeed: spans, both directions, repeated, over mixed states, from another vCPU."""
    for to in basis.states():
        for name, start, pages in _SPANS:
            if name == "2m" and basis.single_pages and to != basis.states()[-1]:
                continue  # one list as long as it can be is enough
            question = _question(basis, start, pages, to)
            if question is None:
                continue
            judged = judge(basis, question)
            if judged is None or not judged.usual:
                continue
            yield basis.case(
                judged.question, "done", f"{name}-to-{to}", rules=[], kind="done",
                why=f"Converts pages to {to}; the neighbours keep their state.", expected=judged.answers,
            )  # fmt: skip
        question = _question(basis, PLACE, 3, to)
        if question is None:
            continue
        yield from _special(basis, question, to)
    yield from _full_list(basis)
    yield from _bit_patterns(basis)
    if basis.call.convert is not None and basis.call.convert.each is not None:
        yield from _worked_lists(basis)


def _worked_lists(basis: Basis) -> Iterator[Case]:
    """Yield worked examples with lists that a guest's own requests leave empty."""
    for name, question in worked(basis):
        judged = judge(basis, question)
        if judged is not None and judged.usual:
            yield basis.case(
                judged.question, "done", name, rules=[], kind="done", expected=judged.answers,
                why="A worked example that has more lists than the one that is converted.",
            )  # fmt: skip


def _bit_patterns(basis: Basis) -> Iterator[Case]:
    """Yield requests with a bit for each page in which neighbours differ, over pages of both states."""
    bits = basis.call.convert.bits if basis.call.convert is not None else None
    pages = _rounded(basis, 20)
    question = _question(basis, PLACE, pages, basis.states()[0]) if bits is not None else None
    if bits is None or question is None:
        return
    count, width = len(question.fields[bits]), basis.abi.messages[basis.call.request].fields[bits].bits
    patterns = {
        "every-other": sum(1 << bit for bit in range(0, pages, 2)),
        "the-others": sum(1 << bit for bit in range(1, pages, 2)),
        "first-bit": 1,
        "last-bit": 1 << pages - 1,
        "ninth-bit": 1 << 8,
        "all-but-the-first": (1 << pages) - 2,
    }
    half = ((PLACE + 3, PLACE + pages // 2 + 1, "shared"),)
    for name, number in patterns.items():
        items = tuple(number >> width * at & ((1 << width) - 1) for at in range(count))
        judged = judge(basis, vary(question, fields={bits: items}, before=half))
        if judged is not None and judged.accepted:
            yield basis.case(
                judged.question, "done", f"bits-{name}", rules=[], kind="done", expected=judged.answers,
                why="Each page has a bit of its own, the first page the lowest.",
            )  # fmt: skip


def _full_list(basis: Basis) -> Iterator[Case]:
    """Yield a list with as many elements as a guest puts into a request."""
    guest = basis.call.guest
    if guest is None or guest.max_elements is None or not basis.states():
        return
    to = basis.states()[0]
    most = basis.most_elements()
    question = basis.question(PLACE + 1, most, to) if 1 < most < 512 else None
    judged = judge(basis, question) if question is not None else None
    if judged is not None and judged.accepted:
        yield basis.case(
            judged.question, "done", f"full-list-to-{to}", rules=[], kind="done", expected=judged.answers,
            why="A list with as many elements as fit.",
        )  # fmt: skip


def _special(basis: Basis, question: Question, to: str) -> Iterator[Case]:
    pages = _rounded(basis, 3)
    wanted = basis.stands_for(to)
    already = () if to == "private" or wanted else ((PLACE, PLACE + pages, to),)
    facts = {name: ((PLACE, PLACE + pages),) for name, value in wanted.items() if value}
    rows = [(f"already-{to}", vary(question, before=already, facts=facts), "The pages are in the state already.")]
    if pages >= 3 and not wanted:
        mixed = vary(question, before=((PLACE + 1, PLACE + 2, "shared"),))
        rows.append((f"mixed-to-{to}", mixed, "Some of the pages are in the state already."))
    for name, changed, why in rows:
        judged = judge(basis, changed)
        if judged is not None:
            rules = [rule for answer in judged.answers if (rule := basis.call.rule(answer.rule or "")) is not None]
            yield basis.case(
                judged.question, "done", name, rules=[rule.id for rule in rules], kind="done", why=why,
                expected=judged.answers, level=rules[0].level if rules else "must",
            )  # fmt: skip
    judged = judge(basis, question)
    if judged is not None and not judged.accepted and basis.abi.handles is None:
        # Some hosts do not do that much at once.
        single = _question(basis, PLACE, 1, to)
        judged = judge(basis, single) if single is not None else None
    if judged is None or not (judged.accepted or (judged.usual and basis.abi.handles is not None)):
        return
    # The same call twice, the second time from another virtual CPU: state belongs to the guest.
    asked, first = judged.question, judged.answers[0]
    twice = vary(asked, before=first.state, facts=first.facts)
    if basis.abi.handles is not None:
        twice = vary(asked, way=(*asked.way, asked))
    second = judge(basis, twice)
    if second is not None:
        # A host that refuses the first under an open policy refuses the second in the same way.
        refused = tuple(answer for answer in judged.answers if answer.rule is not None)
        step = replace(basis.step(second.question, (*second.answers, *refused)), vcpu=1)
        refusal = basis.call.rule(second.rule) if second.rule is not None else None
        yield basis.case(
            judged.question, "done", f"twice-to-{to}", rules=[refusal.id] if refusal else [], kind="done",
            level=refusal.level if refusal else "must",
            why="The call is made again on another virtual CPU.", expected=(first, *refused), more=(step,),
        )  # fmt: skip


def reserved_cases(basis: Basis) -> Iterator[Case]:
    """Yield requests with reserved bits set that the receiver ignores."""
    message = basis.abi.messages[basis.call.request]
    question = basis.usual()
    if question is None:
        return
    for path, bits, changed in _reserved(message, question, basis):
        judged = judge(basis, changed)
        if judged is None or not (judged.accepted or (judged.usual and basis.continues)):
            continue
        yield basis.case(
            judged.question, "reserved", f"{path}-bit-{bits}", rules=[],
            kind="reserved", level="should", expected=judged.answers,
            why="Reserved bits bind the sender; the receiver ignores them.",
        )  # fmt: skip


def _reserved(message: Any, question: Question, basis: Basis) -> Iterator[tuple[str, int, Question]]:
    for name, field in message.fields.items():
        if not basis.carries(name):
            continue
        if field.is_list:
            items = question.fields[name]
            if field.items is None or not items:
                continue
            for inner, part in field.items.fields.items():
                if part.reserved is not None and part.reserved.receive == "ignore":
                    for bit in sorted({0, part.bits - 1}):
                        item = {**items[0], inner: 1 << bit}
                        yield (
                            f"{name}-{inner}".replace("_", "-"),
                            bit,
                            vary(question, fields={name: (item, *items[1:])}),
                        )
        elif field.word is not None:
            for inner, part in field.word.fields.items():
                if part.reserved is not None and part.reserved.receive == "ignore":
                    for bit in sorted({0, part.bits - 1}):
                        yield (
                            f"{name}-{inner}".replace("_", "-"),
                            bit,
                            vary(question, fields={name: {**question.fields[name], inner: 1 << bit}}),
                        )
        elif field.reserved is not None and field.reserved.receive == "ignore":
            for bit in sorted({0, field.bits - 1}):
                yield name.replace("_", "-"), bit, vary(question, fields={name: 1 << bit})


def progress_cases(basis: Basis) -> Iterator[Case]:
    """Yield calls that the host stops on the way, each followed by the call with which the guest goes on."""
    progress = basis.call.progress
    if progress is None:
        return
    for to in basis.states() if basis.call.reports_parts(basis.transport) else ():
        question = _question(basis, PLACE + 510, 6, to)
        if question is None:
            continue
        for stop in (*_STOPS, _rounded(basis, 6) - 1):
            inject = Inject(fault="stop-after", arguments={"pages": stop})
            yield from _stopped(basis, question, inject, f"stop-after-{stop}-to-{to}", "stops")
    if progress.chunk is not None:
        chunk = basis_int(basis, progress.chunk)
        for to in basis.states():
            question = _question(basis, PLACE, 2 * chunk + 1, to)
            if question is None:
                continue
            for after in (1, 2, 3):
                inject = Inject(fault="event-pending", arguments={"after": after})
                yield from _stopped(basis, question, inject, f"event-after-{after}-to-{to}", "has an event pending")


def basis_int(basis: Basis, expr: Any) -> int:
    """Evaluate an expression over config and constants only."""
    return int(value(expr, basis_request(basis, Question(fields={}, setup=Setup(), call=basis.call.name))))


def next_step(basis: Basis, question: Question, expected: tuple[Expected, ...]) -> HostStep:
    """Return the step that goes on after a partial answer; one that is executed again finds memory as it was left."""
    step = basis.step(question, expected)
    progress = basis.call.progress
    return replace(step, mem=()) if progress is not None and progress.resume == "reexecute" else step


def _stopped(basis: Basis, question: Question, inject: Inject, name: str, what: str) -> Iterator[Case]:
    judged = judge(basis, vary(question, inject=inject))
    if judged is None or not judged.accepted:
        return
    answer = judged.answers[0]
    more: tuple[HostStep, ...] = ()
    if answer.status != "done":
        follow = next_fields(basis, judged.question, answer)
        if answer.end == "replay":
            follow = executed_again(basis, judged.question, answer)
        if follow is not None:
            second = judge(basis, vary(question, fields=follow, before=answer.state, facts=answer.facts))
            if second is not None:
                more = (next_step(basis, second.question, second.answers),)
    yield basis.case(
        judged.question, "progress", name, rules=[], kind="progress", expected=judged.answers, more=more,
        why=f"The host {what} on the way; the guest then goes on where the answer says.",
    )  # fmt: skip


def fault_cases(basis: Basis) -> Iterator[Case]:
    """Yield refusals of user space, the bound on ranges, holes in memory, and bytes that change under the host."""
    question = basis.usual(3)
    if question is None:
        return
    if basis.call.vmm is not None:
        for errno in _ERRNOS:
            inject = Inject(fault="vmm-error", arguments={"errno": errno})
            judged = judge(basis, vary(question, inject=inject))
            if judged is not None and judged.accepted:
                yield basis.case(
                    judged.question, "vmm", f"errno-{errno}", rules=[], kind="fault", expected=judged.answers,
                    level="must" if errno in (11, 22) else "should",
                    why="The host's user space refuses the first request.",
                )  # fmt: skip
    if basis.call.convert is not None:
        yield from _limit_cases(basis)
    yield from _hole_cases(basis)
    yield from _flip_cases(basis, question)


def _limit_cases(basis: Basis) -> Iterator[Case]:
    if "shared" not in basis.states() or basis.stands_for("shared"):
        return
    granule = basis.granule()
    apart = max(32, 2 * granule)
    far = ((PLACE - 2 * apart, PLACE - 2 * apart + granule, "shared"),)
    two = (*far, (PLACE - apart, PLACE - apart + granule, "shared"))
    rows = (
        ("one-more-range", "shared", PLACE, two, "would add a range beyond the bound"),
        ("joins-a-range", "shared", PLACE - apart + granule, two, "joins a range and adds none"),
        ("removes-a-range", "private", PLACE - apart, two, "removes a range"),
        (
            "splits-a-range", "private", PLACE + granule,
            (*far, (PLACE, PLACE + 3 * granule, "shared")),
            "would split a range beyond the bound",
        ),
    )  # fmt: skip
    for name, to, start, before, why in rows:
        fields = basis.request(start, granule, to) if to in basis.states() else None
        if fields is None:
            continue
        question = Question(fields=fields, before=before, call=basis.call.name)
        bounded = vary(question, setup=replace(question.setup, max_ranges=2))
        judged = judge(basis, bounded)
        if judged is not None and judged.accepted:
            yield basis.case(
                judged.question, "limit", name, rules=[], kind="limit", expected=judged.answers, level="should",
                why=f"At the bound on ranges a conversion that {why}.",
            )  # fmt: skip


def _hole_cases(basis: Basis) -> Iterator[Case]:
    granule = basis.granule()
    pages = 3 * granule
    for to in basis.states():
        question = _question(basis, PLACE, pages, to)
        if question is None:
            continue
        low = (0, PLACE)
        for name, slots in (
            ("no-memory-behind", (low, (PLACE, PLACE + granule))),
            ("hole-inside", (low, (PLACE, PLACE + granule), (PLACE + 2 * granule, PLACE + pages))),
            ("adjacent-slots", (low, (PLACE, PLACE + granule), (PLACE + granule, PLACE + pages))),
        ):
            judged = judge(basis, vary(question, setup=replace(question.setup, memory=slots), before=()))
            if judged is None:
                continue
            yield basis.case(
                judged.question, "memory", f"{name}-to-{to}", rules=[r for r in (judged.rule,) if r], kind="memory",
                level="should", expected=judged.answers, why="Where the range is not all memory, or two slots meet.",
            )  # fmt: skip


def _flip_cases(basis: Basis, question: Question) -> Iterator[Case]:
    """Yield calls during which every byte of a block changes right after it was read: the answer must not."""
    judged = judge(basis, question)
    if judged is None or not judged.accepted:
        return
    regs, mem = basis.wire(judged.question)
    codec = basis.codec(question.setup)
    written = [(start, start + len(data)) for answer in judged.answers for start, data in answer.mem]
    for name, block in codec.placer.blocks.items():
        if block.at is None or block.space is not None:
            continue
        _, scope = codec.reader(_Sent(regs, mem))
        try:
            start, size = codec.placer.address(block, scope), scope.int(block.size)
        except HvAbiError:
            continue
        for label, byte in (("all-ones", 0xFF), ("all-zero", 0x00)):
            inject = Inject(fault="memory-flip", arguments={"gpa": start, "hex": bytes([byte]) * min(size, 4096)})
            answers = tuple(
                replace(answer, may_change_mem=(*answer.may_change_mem, *_outside(start, min(size, 4096), written)))
                for answer in judged.answers
            )
            yield basis.case(
                vary(judged.question, inject=inject), "memory-flip", f"{name}-{label}", rules=[], kind="fault",
                expected=answers, why="Guest memory changes right after the host has read it; the host must read once.",
            )  # fmt: skip


def _outside(start: int, size: int, written: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the parts of an area that no right answer writes: there the flipped bytes stay."""
    out: list[tuple[int, int]] = []
    at = start
    for low, high in sorted(written):
        if low < start + size and high > start:
            if at < low:
                out.append((at, low - at))
            at = max(at, high)
    if at < start + size:
        out.append((at, start + size - at))
    return out


class _Sent:
    def __init__(self, regs: Any, mem: Any) -> None:
        self._regs = regs
        self._mem = mem

    def register(self, name: str) -> int | None:
        return int(self._regs.get(name, 0))

    def read(self, block: str, address: int, size: int) -> bytes | None:
        for start, data in self._mem:
            if start <= address and address + size <= start + len(data):
                return bytes(data[address - start : address - start + size])
        return bytes(size)
