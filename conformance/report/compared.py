"""What was sent, what was right and what came, decoded field by field, for one step of a case."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hvabi.abi.annotate import annotate
from hvabi.abi.errors import HvAbiError
from hvabi.abi.given import Given, GivenReader
from hvabi.abi.meaning import meaning
from hvabi.abi.registry import Spec, load
from hvabi.abi.wire import merge
from hvabi.conformance.alternatives import differing_policies
from hvabi.conformance.report.comparison import Compared, Item, MemoryLine, Part
from hvabi.conformance.report.summary import column
from hvabi.conformance.report.text import one_line
from hvabi.conformance.result import Exchanged

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hvabi.abi.annotation import Annotation, Row
    from hvabi.abi.codec import MessageCodec
    from hvabi.conformance.case import Case, Expected, HostStep
    from hvabi.conformance.result import CaseResult, Finding

MAX_ROWS = 48
"""Most fields of a message that a report shows; those that differ come first."""
MAX_PIECES = 256
"""Most pieces of memory that are laid over each other; an implementation may name any number."""
MAX_MEMORY_LINES = 16
MAX_STEPS = 12
"""Most steps of a case that are decoded; the ones with findings, and those before them."""

Memory = tuple[tuple[int, bytes], ...]


def compared(result: CaseResult) -> tuple[Compared, ...]:
    """Return the exchanges of a case, decoded. Never fails: what cannot be decoded is a note."""
    case = result.case
    try:
        spec: Spec | None = load(case.abi, revision=case.revision, profile=case.profile or "spec")
    except HvAbiError:
        spec = None
    if case.role == "guest":
        shown = result.exchanged[:MAX_STEPS]
        return tuple(_guest(case, spec, number, item) for number, item in enumerate(shown))
    return tuple(_host(result, spec))


# -- calls to a host --------------------------------------------------------------------------------------------


def _host(result: CaseResult, spec: Spec | None) -> Iterator[Compared]:
    case = result.case
    memory: Memory = ()
    last = max((finding.step for finding in result.findings), default=len(case.steps))
    following = 0
    for number, step, exchanged in _paired(case.steps, result.exchanged):
        if step is not None and step.fresh:
            memory = ()
        memory = _laid(memory, exchanged.sent_mem)
        if last - MAX_STEPS < number <= last:
            findings = [finding for finding in result.findings if finding.step == number]
            yield _step(case, spec, number, step, exchanged, memory, findings)
        memory = _laid(memory, exchanged.got_mem)
        following = number + 1
    if column(result) == "broke" and following < len(case.steps):
        step = case.steps[following]
        memory = _laid(() if step.fresh else memory, step.mem)
        sent = Exchanged(sent_regs=step.regs, sent_mem=step.mem)
        yield _step(case, spec, following, step, sent, memory, [])


def _paired(
    steps: Sequence[HostStep], exchanged: Sequence[Exchanged]
) -> Iterator[tuple[int, HostStep | None, Exchanged]]:
    """Yield each exchange with its step. Steps behind a failed one are left out, so what was sent tells."""
    number = 0
    for item in exchanged:
        same = (
            n for n in range(number, len(steps)) if steps[n].regs == item.sent_regs and steps[n].mem == item.sent_mem
        )
        number = next(same, number)
        yield number, steps[number] if number < len(steps) else None, item
        number += 1


def _step(
    case: Case,
    spec: Spec | None,
    number: int,
    step: HostStep | None,
    exchanged: Exchanged,
    memory: Memory,
    findings: list[Finding],
) -> Compared:
    alternatives = step.expected if step is not None else ()
    right = nearest(alternatives, exchanged, findings)
    answered = bool(exchanged.got_end)
    out = Compared(
        number=number,
        expected_end=_end(right) if right is not None and answered else "",
        found_end=one_line(exchanged.got_end, 40),
        why=right.why if right is not None else "",
        others=tuple(_alternative(one, alternatives) for one in alternatives if one is not right),
        notes=_too_many(exchanged),
    )
    if not answered:
        out = replace(out, notes=(*out.notes, "No answer to this call was recorded."))
        right = None
    sent = Given(regs=exchanged.sent_regs, mem=memory)
    codecs = _codecs(case, spec)
    if codecs is None:
        out = replace(out, notes=(*out.notes, "There is no specification here to decode this with."))
        return replace(out, parts=_plain_parts(right, exchanged, ()), memory=_memory(right, exchanged, memory))
    request, response = codecs
    value = None
    try:
        annotation = annotate(request, sent)
        value = annotation.value
        items, hidden = _items(annotation)
        out = replace(out, means=meaning(spec.abi, request, annotation) if spec else "", sent=items)
        if hidden:
            out = replace(out, notes=(*out.notes, f"{hidden} more fields of the call are not shown."))
    except HvAbiError as error:
        out = replace(out, notes=(*out.notes, f"The call cannot be decoded: {one_line(str(error), 300)}"))
    parts: tuple[Part, ...] = ()
    if response is not None and exchanged.got_end in ("return", "replay"):
        try:
            parts, hidden = _parts(response, value, sent, right, exchanged)
            if hidden:
                out = replace(out, notes=(*out.notes, f"{hidden} more fields of the answer are not shown."))
        except HvAbiError as error:
            out = replace(out, notes=(*out.notes, f"The answer cannot be decoded: {one_line(str(error), 300)}"))
    known = tuple(dict.fromkeys(part.where.split(" ")[0] for part in parts))
    return replace(
        out,
        parts=(*parts, *_plain_parts(right, exchanged, known)),
        memory=_memory(right, exchanged, memory),
    )


def _too_many(exchanged: Exchanged) -> tuple[str, ...]:
    count = len(exchanged.got_mem)
    return (f"Only {MAX_PIECES} of {count} pieces of memory are shown.",) if count > MAX_PIECES else ()


def nearest(
    alternatives: tuple[Expected, ...], exchanged: Exchanged, findings: Sequence[Finding] = ()
) -> Expected | None:
    """Return the right answer that is nearest to what came; those that the findings speak of are preferred."""
    rules = {finding.rule for finding in findings if finding.rule}

    def distance(one: Expected) -> tuple[int, int, int]:
        wrong = sum(exchanged.got_regs.get(name, exchanged.sent_regs.get(name, 0)) != v for name, v in one.regs.items())
        got = dict(exchanged.got_mem[:MAX_PIECES])
        return (
            bool(rules) and one.rule not in rules,
            _end(one) != exchanged.got_end,
            wrong + sum(got.get(at) != data for at, data in one.mem),
        )

    return min(alternatives, key=distance, default=None)


def _end(right: Expected) -> str:
    return f"fault {right.fault}" if right.end == "fault" and right.fault else right.end


def _alternative(one: Expected, alternatives: tuple[Expected, ...]) -> str:
    open_ = differing_policies(one, alternatives)
    regs = ", ".join(f"{name}={value:#x}" for name, value in one.regs.items())
    parts = [_end(one) + (f" with {regs}" if regs else "")]
    if open_:
        parts.append("where " + " and ".join(f"{name} is {value}" for name, value in open_.items()))
    if one.rule:
        parts.append(f"by {one.rule}")
    return ", ".join(parts)


# -- calls of a guest -------------------------------------------------------------------------------------------


def _guest(case: Case, spec: Spec | None, number: int, exchanged: Exchanged) -> Compared:
    # A guest's call is what was sent, and the runner's answer is what came back.
    out = Compared(number=number)
    codecs = _codecs(case, spec)
    if codecs is None or spec is None:
        return out
    request, response = codecs
    call = Given(regs=exchanged.sent_regs, mem=_laid((), exchanged.sent_mem))
    try:
        annotation = annotate(request, call)
        items, _ = _items(annotation)
        out = replace(out, means=meaning(spec.abi, request, annotation), sent=items)
        if response is not None and (exchanged.got_regs or exchanged.got_mem):
            after = Given(regs={**call.regs, **exchanged.got_regs}, mem=_laid(call.mem, exchanged.got_mem))
            answer, _ = _items(annotate(response, after, request=annotation.value))
            out = replace(out, answer=answer)
    except HvAbiError as error:
        out = replace(out, notes=(*out.notes, f"This cannot be decoded: {one_line(str(error), 300)}"))
    return out


# -- messages ---------------------------------------------------------------------------------------------------


def _codecs(case: Case, spec: Spec | None) -> tuple[MessageCodec, MessageCodec | None] | None:
    if spec is None or not spec.abi.calls:
        return None
    call = spec.abi.calls[case.call] if case.call else spec.abi.convert_call or next(iter(spec.abi.calls.values()))
    try:
        request = spec.message(call.request, transport=case.transport, config=case.setup.config)
        if call.response is None:
            return request, None
        return request, spec.message(call.response, transport=case.transport, config=case.setup.config)
    except HvAbiError:
        return None


def _laid(below: Memory, above: Memory) -> Memory:
    return merge([*below, *above[:MAX_PIECES]]) if above else below


def _items(annotation: Annotation) -> tuple[tuple[Item, ...], int]:
    rows = [row for row in annotation.rows if row.given and not (row.reserved and not row.raw)]
    shown = [
        Item(path=row.path, where=row.where, depth=row.depth, value=_value(row), text=_words(row))
        for row in rows[:MAX_ROWS]
    ]
    return tuple(shown), len(rows) - len(shown) + annotation.left_out


def _value(row: Row) -> str:
    return f"{row.symbol} ({row.hex})" if row.symbol else row.hex


def _words(row: Row) -> str:
    if row.problem is not None and row.problem.level != "note":
        return row.problem.message
    if row.symbol is not None or row.kind == "list":
        return row.meaning or row.doc
    return f"{row.meaning}. {row.doc}" if row.meaning else row.doc


def _parts(
    codec: MessageCodec, request: Any, sent: Given, right: Expected | None, exchanged: Exchanged
) -> tuple[tuple[Part, ...], int]:
    found = Given(regs={**sent.regs, **exchanged.got_regs}, mem=_laid(sent.mem, exchanged.got_mem))
    found_rows = {row.path: row for row in annotate(codec, found, request=request).rows}
    rows: dict[str, Row] = {}
    base: dict[str, int] = {}
    if right is not None and right.end in ("return", "replay"):
        wanted = Given(regs={**sent.regs, **right.regs}, mem=_laid(sent.mem, right.mem))
        rows = {row.path: row for row in annotate(codec, wanted, request=request).rows}
        reader = GivenReader(codec, wanted)
        reader.start(request)
        for row in rows.values():
            if row.block is not None and row.block not in base:
                base[row.block] = reader.base(row.block)
    parts = [
        _part(rows.get(path), found_rows.get(path), right, base)
        for path in dict.fromkeys([*rows, *found_rows])
        if _is_given(rows.get(path), found_rows.get(path))
    ]
    return _trimmed(parts)


def _is_given(wanted: Row | None, found: Row | None) -> bool:
    return any(row is not None and row.given and row.kind != "fixed" for row in (wanted, found))


def _part(wanted: Row | None, found: Row | None, right: Expected | None, base: Mapping[str, int]) -> Part:
    row = wanted or found
    assert row is not None  # one of the two lists has it
    part = Part(
        path=row.path,
        where=row.where,
        depth=row.depth,
        expected=_value(wanted) if wanted is not None else "",
        found=_value(found) if found is not None else "",
        bits=row.bits,
        lo=row.lo if row.kind != "list" else 0,
        expected_raw=wanted.raw if wanted is not None else None,
        found_raw=found.raw if found is not None else None,
    )
    if right is None or wanted is None:
        return replace(part, status="open", expected=part.expected or "")
    if _is_open(wanted, right, base):
        return replace(part, status="open", expected="anything")
    free = _nonzero(wanted, right)
    if free and found is not None:
        rest = wanted.raw & ~free != found.raw & ~free
        wrong = rest or not found.raw & free
        return replace(part, expected="anything but 0", status="differs" if wrong else "same")
    return replace(part, status="differs" if found is None or wanted.raw != found.raw else "same")


def _is_open(row: Row, right: Expected, base: Mapping[str, int]) -> bool:
    if row.register is not None:
        return all(name in right.may_change for name in row.register.split(":"))
    if row.block is None or row.offset is None or row.block not in base:
        return False
    start = base[row.block] + row.offset
    size = -(-row.bits // 8) if row.kind != "list" else 1
    return any(at <= start and start + size <= at + length for at, length in right.may_change_mem)


def _nonzero(row: Row, right: Expected) -> int:
    """Return the bits of a row that may have any value but 0."""
    return sum(mask >> row.lo & ((1 << row.bits) - 1) for register, mask in right.nonzero if register == row.register)


def _trimmed(parts: list[Part]) -> tuple[tuple[Part, ...], int]:
    """Return at most `MAX_ROWS` parts in order: those that differ, what they are part of, and then the first ones."""
    if len(parts) <= MAX_ROWS:
        return tuple(parts), 0
    bad = [number for number, part in enumerate(parts) if part.status == "differs"]
    above = {parts[number].path.rpartition(".")[0] for number in bad}
    parents = [number for number, part in enumerate(parts) if part.path in above]
    kept = sorted(dict.fromkeys([*bad, *parents, *range(len(parts))]).keys(), key=_first([*bad, *parents]))[:MAX_ROWS]
    return tuple(parts[number] for number in sorted(kept)), len(parts) - len(kept)


def _first(urgent: list[int]) -> Any:
    rank = {number: place for place, number in enumerate(dict.fromkeys(urgent))}
    return lambda number: (rank.get(number, len(rank)), number)


def _plain_parts(right: Expected | None, exchanged: Exchanged, known: tuple[str, ...]) -> tuple[Part, ...]:
    """Return the registers outside the message that are not as they had to be; all of them where none is known."""
    if right is None:
        return ()
    out = []
    for name in sorted({*right.regs, *exchanged.got_regs}):
        if name in known or name in right.may_change or any(register == name for register, _ in right.nonzero):
            continue
        sent = exchanged.sent_regs.get(name, 0)
        wanted, found = right.regs.get(name, sent), exchanged.got_regs.get(name, sent)
        if wanted != found:
            unchanged = ", as it was" if name not in right.regs else ""
            bits = 128 if max(wanted, found) >> 64 else 64
            out.append(
                Part(path=f"register {name}", where=name, depth=0, expected=f"{wanted:#0{2 + bits // 4}x}{unchanged}",
                     found=f"{found:#0{2 + bits // 4}x}", bits=bits, expected_raw=wanted,
                     found_raw=found, status="differs")
            )  # fmt: skip
    return tuple(out[:MAX_ROWS])


def _memory(right: Expected | None, exchanged: Exchanged, before: Memory) -> tuple[MemoryLine, ...]:
    """Return the lines of 16 bytes that are not as they had to be."""
    if right is None or _end(right) != exchanged.got_end:
        return ()
    out = []
    wanted, found = _laid(before, right.mem), _laid(before, exchanged.got_mem)
    for start, data in merge([*right.mem, *exchanged.got_mem[:MAX_PIECES]]):
        first = start & ~15
        for at in range(first, start + len(data), 16):
            left, right_bytes = _read(wanted, at), _read(found, at)
            if left == right_bytes:
                continue
            open_ = _open_bytes(at, right)
            if any(left[n] != right_bytes[n] and not open_ >> n & 1 for n in range(16)):
                out.append(MemoryLine(address=at, expected=left, found=right_bytes, open=open_))
                if len(out) == MAX_MEMORY_LINES:
                    return tuple(out)
    return tuple(out)


def _open_bytes(at: int, right: Expected) -> int:
    mask = 0
    for start, length in right.may_change_mem:
        for n in range(max(start - at, 0), min(start + length - at, 16)):
            mask |= 1 << n
    return mask


def _read(pieces: Memory, at: int) -> bytes:
    """Return 16 bytes; what no piece covers is 0."""
    out = bytearray(16)
    for start, data in pieces:
        low, high = max(start, at), min(start + len(data), at + 16)
        if low < high:
            out[low - at : high - at] = data[low - start : high - start]
    return bytes(out)
