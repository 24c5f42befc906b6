"""Host cases at the edges of fields: high bits, high addresses, stale outputs, guards that are off, odd stops."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hvabi.abi.expr import names as names_of
from hvabi.abi.model import PairPlace, RegisterPlace
from hvabi.backend import PageState
from hvabi.conformance.case import Inject
from hvabi.conformance.generate.basis import NEIGHBOURS, PLACE, Basis, Question, as_fields, vary
from hvabi.conformance.generate.handled import handled_fields
from hvabi.conformance.generate.judged import Judged, compose, judge
from hvabi.conformance.generate.variants import basis_request, configurations
from hvabi.conformance.oracle.answers import Request
from hvabi.conformance.oracle.checks import holds
from hvabi.conformance.oracle.walk import value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hvabi.abi.calls import Rule
    from hvabi.abi.model import Place
    from hvabi.conformance.case import Case
    from hvabi.conformance.generate.rules import RuleCases

HIGH_PAGE = 0x100200
"""A page above 4 GiB."""
HIGH_SCRATCH = (0x100010, 0x100014)
"""Pages above 4 GiB for structures."""
_BITS = (32, 44)
"""Bits that a truncated field loses."""
_STALE = 0x55


def edge_cases(basis: Basis, rules: RuleCases) -> Iterator[Case]:
    """Yield all of them."""
    yield from _high_bits(basis)
    yield from _high_addresses(basis)
    yield from _stale(basis, rules)
    yield from _guards(basis, rules)
    yield from _inside_element(basis)
    yield from _limit_on_the_way(basis)
    yield from _at_the_limit(basis)
    yield from _wrapping(basis)


def _case(basis: Basis, judged: Judged, group: str, name: str, why: str) -> Case:
    rule = basis.call.rule(judged.rule) if judged.rule else None
    return basis.case(
        judged.question,
        group,
        name,
        rules=[rule.id] if rule else [],
        why=why,
        kind="edge",
        expected=judged.answers,
        level=rule.level if rule else "must",
    )


def _high_bits(basis: Basis) -> Iterator[Case]:
    """Yield requests in which one field differs from a right one in a bit that a shorter field would lose."""
    for to in basis.states():
        question = basis.question(PLACE, basis.granule(), to)
        if question is None:
            continue
        for label, changed in _flipped(basis, question):
            judged = judge(basis, changed)
            if judged is not None and not judged.accepted:
                judged = judge(basis, _laid_anew(basis, changed, to)) or judged
            if judged is None:
                continue
            case = _case(
                basis, judged, "high-bits", f"{label}-to-{to}", "Only a high bit tells this from a right request."
            )
            # What no guest may send, no host need answer in one way.
            yield case if _may_be_sent(basis, judged.question) else replace(case, level="unspecified")


def _laid_anew(basis: Basis, question: Question, to: str) -> Question:
    """Return the question with the pages that it now names in the other state, amid others."""
    convert = basis.call.convert
    if convert is None or convert.each is not None:
        return question
    names = basis_request(basis, question)
    start, pages = int(value(convert.start, names)) >> 12, int(value(convert.pages, names))
    if not (start >= NEIGHBOURS and 0 < pages <= (1 << 52) - NEIGHBOURS - start):
        return question
    return vary(question, **basis.laid(start, pages, to))


def _may_be_sent(basis: Basis, question: Question) -> bool:
    """Whether a request keeps what binds the guest."""
    asked = Request(
        basis.oracle(question.setup), basis.abi, question.call, question.fields, question.cpl, None, (), {}, None
    )
    return all(
        holds(rule, asked)
        for rule in basis.call.rules
        if rule.binds == "guest" and rule.on == "request" and rule.scope == "call" and rule.level == "must"
        and rule.guard.serves(basis.transport)
    )  # fmt: skip


def _flipped(basis: Basis, question: Question) -> Iterator[tuple[str, Question]]:
    outputs = _outputs(basis)  # what they hold before the call is another question
    progress, convert = basis.call.progress, basis.call.convert
    # A host that works in pieces would do millions of them.
    slow = names_of(convert.pages) if convert is not None and progress is not None and progress.chunk else set()
    for name, field in basis.abi.messages[basis.call.request].fields.items():
        if field.is_list or field.word is not None or name in outputs or not basis.carries(name):
            continue
        for bit in _BITS:
            if bit < field.bits and not (name in slow and bit > _BITS[0]):
                changed = vary(question, fields={name: question.fields[name] ^ 1 << bit})
                yield f"{name.replace('_', '-')}-bit-{bit}", changed


def _at_the_limit(basis: Basis) -> Iterator[Case]:
    """Yield ranges whose last byte is the first that a limit forbids, so that the page before is still allowed."""
    question = basis.usual()
    meaning = basis.call.meaning
    if question is None or meaning is None:
        return
    fields = basis.abi.messages[basis.call.request].fields
    lengths = [name for name in names_of(meaning.pages) if name in fields and fields[name].unit == "byte"]
    for rule in basis.call.rules:
        if rule.binds != "host" or rule.check != "below" or rule.scope != "call" or len(lengths) != 1:
            continue
        for label, configured in configurations(basis, question, rule):
            limit = value(rule.operands["limit"][0], basis_request(basis, configured))
            for name, field in fields.items():
                if field.unit != "byte" or name == lengths[0] or limit < 4096:
                    continue
                kept = judge(basis, vary(configured, fields={name: limit - 4096, lengths[0]: 4096}))
                if kept is not None and kept.accepted:
                    yield _case(basis, kept, "done", f"last-page-allowed{label}", "The last page that is allowed.")
                over = judge(basis, vary(configured, fields={name: limit - 4096, lengths[0]: 4097}))
                if over is not None and over.rule == rule.id:
                    yield _case(basis, over, rule.id, f"one-byte-too-far{label}", "The last byte is one too far.")


def _wrapping(basis: Basis) -> Iterator[Case]:
    """Yield lengths with which the end of the range wraps to a small number, where other rules may be broken too."""
    question = basis.usual()
    if question is None:
        return
    fields = basis.abi.messages[basis.call.request].fields
    for rule in basis.call.rules:
        mine = rule.binds == "host" and rule.scope == "call" and "each" not in rule.words
        if not mine or rule.check != "no-wrap" or not rule.guard.serves(basis.transport):
            continue
        names = basis_request(basis, question)
        room = (1 << value(rule.operands["width"][0], names)) - value(rule.operands["start"][0], names)
        for name in names_of(rule.operands["length"][0]):
            if name not in fields or room + 4096 >> fields[name].bits:
                continue
            judged = judge(basis, vary(question, fields={name: room + 4096}))
            if judged is not None:
                yield _case(
                    basis, judged, rule.id, f"{name}-wraps".replace("_", "-"), "The end wraps to a small number."
                )


def _high_addresses(basis: Basis) -> Iterator[Case]:
    """Yield right requests for pages, and with structures, above 4 GiB."""
    granule = basis.granule()
    for to in basis.states():
        fields = basis.request(HIGH_PAGE, granule, to)
        if fields is not None:
            judged = judge(basis, Question(fields=fields, **basis.laid(HIGH_PAGE, granule, to), call=basis.call.name))
            if judged is not None and judged.accepted:
                yield _case(basis, judged, "done", f"above-4g-to-{to}", "The pages lie above 4 GiB.")
    if not basis.states() or basis.call.guest is None or basis.continues:
        return
    guest = basis.guest(scratch=HIGH_SCRATCH)
    for to in basis.states():
        if not guest.can_name(PLACE << 12, granule, PageState(to)):
            continue
        fields = as_fields(basis.first_request(guest, PLACE, granule, to))
        if fields == basis.request(PLACE, granule, to):
            return
        judged = judge(basis, Question(fields=fields, **basis.laid(PLACE, granule, to), call=basis.call.name))
        if judged is not None and judged.accepted:
            yield _case(basis, judged, "done", f"structures-above-4g-to-{to}", "The structures lie above 4 GiB.")


def _outputs(basis: Basis) -> list[str]:
    """Return fields of the request that lie where the answer writes, and that the request may hold anything in."""
    transport = basis.abi.transports[basis.transport]
    if basis.call.response is None or basis.call.response not in transport.placements:
        return []
    sent, answered = transport.placements[basis.call.request].place, transport.placements[basis.call.response].place
    fields = basis.abi.messages[basis.call.request].fields
    loose = transport.placements[basis.call.response].may_change
    written = {str(_where(places)) for places in answered.values() if places and not _is_loose(places[0], loose)}
    read = _read(basis)
    return [
        name
        for name, places in sent.items()
        if places and str(_where(places)) in written and not fields[name].is_list and fields[name].const is None
        and not (isinstance(places[0], RegisterPlace) and name in read)
    ]  # fmt: skip


def _read(basis: Basis) -> set[str]:
    """Return names that the rules of a host, and what the call means, look at, through definitions."""
    exprs = [
        expr
        for rule in basis.call.rules
        if rule.binds == "host"
        for expr in (*(e for operand in rule.operands.values() for e in operand), rule.when)
    ]
    convert = basis.call.convert
    if convert is not None:
        exprs += [convert.start, convert.pages, convert.to.of if convert.to is not None else None]
    todo = {name for expr in exprs if expr is not None for name in names_of(expr)}
    seen: set[str] = set()
    while todo:
        name = todo.pop()
        seen.add(name)
        if name in basis.call.define:
            todo |= names_of(basis.call.define[name].expr) - seen
    return seen


def _is_loose(place: Any, loose: tuple[str, ...]) -> bool:
    """Whether what lies there is not compared, whatever is answered."""
    names = {getattr(place, "register", None), getattr(place, "block", None)}
    return bool(names & set(loose))


def _where(places: Any) -> Any:
    return replace(places[0], pointer=())


def _stale(basis: Basis, rules: RuleCases) -> Iterator[Case]:
    """Yield calls whose output fields hold something before: a host must write every one that it answers in."""
    outputs = [name for name in _outputs(basis) if name not in handled_fields(basis)]
    registers = _output_registers(basis)
    question = basis.usual(3)
    if not (outputs or registers) or question is None:
        return
    rows: list[tuple[str, Question]] = [("done", question)]
    rows += [(rule, found[0][2].question) for rule, found in rules.found.items() if found]
    if basis.call.reports_parts(basis.transport):
        rows.append(("partial", vary(question, inject=Inject(fault="stop-after", arguments={"pages": 1}))))
    if basis.call.vmm is not None:
        rows.append(("refused", vary(question, inject=Inject(fault="vmm-error", arguments={"errno": 22}))))
    converts = basis.call.convert is not None
    shared = basis.question(PLACE, basis.granule(), "shared") if converts and "shared" in basis.states() else None
    if shared is not None and not basis.stands_for("shared"):
        rows.append(("limit", vary(shared, setup=replace(shared.setup, max_ranges=0), before=())))
    for label, row in rows:
        for name in outputs:
            if row.fields.get(name) != question.fields[name]:
                continue  # the row itself is about this field
            judged = judge(basis, vary(row, fields={name: _STALE}))
            # Where the old content breaks a rule of its own, the answer is about that.
            if judged is not None and judged.rule in (None, label):
                place = f"{label}.{name}".lower().replace("_", "-").replace(".", "-")
                yield _case(basis, judged, "stale", place, "An output field holds something before the call.")
        for register, bits in registers.items():
            stale = _STALE | 3 if bits > 8 else (1 << bits) - 1
            judged = judge(basis, vary(row, regs={**row.regs, register: stale}))
            if judged is not None:
                place = f"{label}.{register}".lower().replace("_", "-").replace(".", "-")
                yield _case(basis, judged, "stale", place, "An output register holds something before the call.")


def _output_registers(basis: Basis) -> dict[str, int]:
    """Return registers of the CPU that only the answer uses, with the bits of the field that lies there."""
    transport = basis.abi.transports[basis.transport]
    if transport.isa in ("ioctl", "kvm-run"):
        return {}
    if basis.call.response is None or basis.call.response not in transport.placements:
        return {}
    sent, answered = transport.placements[basis.call.request], transport.placements[basis.call.response]
    used = {*sent.fixed, *(one for places in sent.place.values() for place in places for one in _registers(place))}
    fields = basis.abi.messages[basis.call.response].fields
    return {
        register: fields[name].bits
        for name, places in answered.place.items()
        for register in (_registers(places[0]) if places else ())
        if register not in used
    }


def _registers(place: Place) -> tuple[str, ...]:
    match place:
        case RegisterPlace(register=register):
            return (register,)
        case PairPlace(high=high, low=low):
            return high, low
        case _:
            return ()


def _guards(basis: Basis, rules: RuleCases) -> Iterator[Case]:
    """Yield requests that would break a rule if it applied, under a configuration in which it does not."""
    for rule in basis.call.rules:
        if rule.when is None or not rules.found.get(rule.id):
            continue
        yield from _guard(basis, rule, rules)
        if rule.scope != "element":
            yield from _other_way(basis, rule, rules)


def _other_way(basis: Basis, rule: Rule, rules: RuleCases) -> Iterator[Case]:
    """Yield what breaks the rule with a request, such as that for the other state, to which it does not apply."""
    assert rule.when is not None  # the caller has looked
    name, base, broken = rules.found[rule.id][0]
    for other in rules.bases:
        names = basis_request(basis, other)
        if basis.call.each is not None and other.fields[basis.call.each]:
            names = names.plus(it=other.fields[basis.call.each][0], index=0)
        if other.setup != base.setup or value(rule.when, names):
            continue
        changed = compose(base, broken.question, other)
        judged = judge(basis, changed) if changed is not None and changed != other else None
        if judged is not None:
            why = f"{rule.id} does not apply to this request."
            case = _case(basis, judged, rule.id, f"{name}-does-not-matter", why)
            yield replace(case, rules=tuple(dict.fromkeys((rule.id, *case.rules))))
            return


def _guard(basis: Basis, rule: Rule, rules: RuleCases) -> Iterator[Case]:
    assert rule.when is not None  # the caller has looked
    used = names_of(rule.when)
    name, base, broken = rules.found[rule.id][0]
    for key in basis.abi.config.values():
        if key.name not in used:
            continue
        for choice in key.choices:
            if choice == base.setup.config.get(key.name, key.default):
                continue
            config = {**base.setup.config, key.name: choice}
            other = compose(base, broken.question, vary(base, setup=replace(base.setup, config=config)))
            judged = judge(basis, other) if other is not None else None
            if judged is None:
                continue
            case = _case(
                basis,
                judged,
                rule.id,
                f"{name}-under-{key.name.replace('_', '-')}-{choice}",
                f"Under this configuration {rule.id} does not apply.",
            )
            yield replace(case, rules=tuple(dict.fromkeys((rule.id, *case.rules))))


def _inside_element(basis: Basis) -> Iterator[Case]:
    """Yield a stop inside an element of many pages, where the ABI can say so."""
    progress = basis.call.progress
    if progress is None or not progress.mark_part:
        return
    for to in basis.states():
        question = basis.question(PLACE, 512, to)
        if question is None:
            continue
        for stop in (5, 511):
            inject = Inject(fault="stop-after", arguments={"pages": stop})
            judged = judge(basis, vary(question, inject=inject))
            if judged is not None and judged.accepted:
                yield _case(
                    basis, judged, "progress", f"inside-element-{stop}-to-{to}", "The host stops inside an element."
                )


def _limit_on_the_way(basis: Basis) -> Iterator[Case]:
    """Yield a list whose first element fits the bound on ranges and whose last does not."""
    each = basis.call.each
    question = basis.question(PLACE, 3, "shared") if "shared" in basis.states() else None
    if each is None or question is None or basis.call.convert is None:
        return
    items = question.fields[each]
    if len(items) < 2:
        return
    last = items[-1]
    if isinstance(last, dict):
        page = next((name for name, item in last.items() if item == PLACE + len(items) - 1), None)
        far: Any = {**last, page: PLACE + 100} if page else last
    else:
        far = last + 100
    changed = vary(
        question,
        fields={each: (*items[:-1], far)},
        before=((PLACE - 1, PLACE, "shared"),),
        setup=replace(question.setup, max_ranges=1),
    )
    judged = judge(basis, changed)
    if judged is not None and judged.accepted:
        yield _case(basis, judged, "limit", "at-the-last-element", "The bound on ranges is met on the way.")
