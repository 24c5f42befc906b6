"""From plain data to the calls of the model; the second half of `hvabi.abi.build`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hvabi.abi.calls import (
    Alternative,
    Answer,
    Call,
    Contents,
    Convert,
    Define,
    Direction,
    ErrnoAnswer,
    Guest,
    HandleUse,
    Progress,
    Query,
    Rule,
    Runs,
    Vmm,
)
from hvabi.abi.errors import HvAbiError

if TYPE_CHECKING:
    from hvabi.abi.build import Builder, Data
    from hvabi.abi.expr import Expr
    from hvabi.abi.model import Pointer

_WORD_OPERANDS = {"readable": ("of",), "in-state": ("state",), "fact": ("name",), "handle": ("is",)}
"""Operands that are names and not expressions, by check."""
_OPERANDS = (
    "of", "to", "limit", "start", "length", "width", "size", "low", "high", "bit", "mask", "values",
    "state", "name", "is", "each", "expr",
)  # fmt: skip
_ANSWER_KEYS = ("answer", "end", "fault", "reason", "cannot")


class BuildError(HvAbiError):
    """A place in a specification file that cannot be turned into the model."""

    code = "build"

    def __init__(self, message: str, pointer: Pointer, *, code: str = "build", hint: str | None = None) -> None:
        super().__init__(message, code=code, hint=hint, pointer=pointer)
        self.pointer = pointer


def _answer(builder: Builder, data: Data, pointer: Pointer) -> Answer:
    return Answer(
        end=data.get("end", "return"),
        fields=builder.exprs(data.get("answer"), (*pointer, "answer")),
        may_change=tuple(data.get("may-change", ())),
        nonzero=tuple(data.get("nonzero", ())),
        fault=data.get("fault"),
        reason=data.get("reason"),
        cannot=data.get("cannot"),
        when=builder.optional(data, "when", pointer),
        doc=data.get("doc"),
        guard=builder.guard(data),
        pointer=pointer,
    )


def _answers(builder: Builder, data: Any, pointer: Pointer) -> tuple[Answer, ...]:
    if isinstance(data, list):
        return tuple(_answer(builder, item, (*pointer, number)) for number, item in enumerate(data))
    return (_answer(builder, data, pointer),)


def _rule(builder: Builder, data: Data, pointer: Pointer) -> Rule:
    check = data["check"]
    words: dict[str, str] = {}
    operands: dict[str, tuple[Expr, ...]] = {}
    for key in _OPERANDS:
        if key not in data:
            continue
        value = data[key]
        if key == "each" or key in _WORD_OPERANDS.get(check, ()):
            words[key] = str(value)
        elif isinstance(value, list):
            operands[key] = tuple(builder.expr(item, (*pointer, key, n)) for n, item in enumerate(value))
        else:
            operands[key] = (builder.expr(value, (*pointer, key)),)
    has_answer = any(key in data for key in _ANSWER_KEYS)
    answer = None
    if has_answer:
        # ``when`` and the guard of a rule limit the rule itself, not its answer.
        own = {key: data[key] for key in (*_ANSWER_KEYS, "may-change", "nonzero") if key in data}
        answer = _answer(builder, own, pointer)
    return Rule(
        id=data["id"],
        binds=data["binds"],
        on=data.get("about", "request"),
        scope=data.get("scope", "call"),
        check=check,
        operands=operands,
        words=words,
        level=data["level"],
        source=data["source"],
        text=data["text"],
        when=builder.optional(data, "when", pointer),
        answer=answer,
        means=data.get("means"),
        drops=data.get("drops", False),
        shadowed_by=data.get("shadowed-by"),
        tries=tuple(builder.expr(item, (*pointer, "try", n)) for n, item in enumerate(data.get("try", ()))),
        guard=builder.guard(data),
        pointer=pointer,
    )


def _direction(builder: Builder, data: Data, pointer: Pointer) -> Direction:
    states: dict[int, str | None] = {}
    for key, state in data["map"].items():
        number = _number(builder, key, (*pointer, "map", key))
        states[number] = None if state == "none" else state
    otherwise = data.get("else")
    return Direction(
        of=builder.expr(data["of"], (*pointer, "of")),
        states=states,
        otherwise=None if otherwise == "none" else otherwise,
        has_otherwise=otherwise is not None,
    )


def _number(builder: Builder, text: str, pointer: Pointer) -> int:
    """Return a key of ``map:`` as a number: a literal, a constant or an enum value name."""
    name = str(text)
    try:
        return int(name, 0)
    except ValueError:
        pass
    if name in builder.constants:
        return builder.constants[name].value
    prefix, _, last = name.rpartition(".")
    for enum in builder.enums.values():
        if last in enum.values and prefix in ("", enum.name.replace("-", "_")):
            return enum.values[last].value
    raise BuildError(f"`{name}` is no number, constant or enum value", pointer, code="unknown-name")


def _convert(builder: Builder, data: Data, pointer: Pointer) -> Convert:
    return Convert(
        start=builder.expr(data["start"], (*pointer, "start")),
        pages=builder.expr(data["pages"], (*pointer, "pages")),
        to=_direction(builder, data["to"], (*pointer, "to")) if "to" in data else None,
        each=data.get("each"),
        bits=data.get("bits"),
        first=builder.optional(data, "first", pointer),
        count=builder.optional(data, "count", pointer),
        hint=builder.optional(data, "hint", pointer),
        facts=builder.exprs(data.get("facts"), (*pointer, "facts")),
        stands_for={
            state: {name: bool(value) for name, value in facts.items()}
            for state, facts in data.get("stands-for", {}).items()
        },
        contents={
            name: Contents(
                kind=item["is"], source=item["source"], doc=item["doc"], pointer=(*pointer, "contents", name)
            )
            for name, item in data.get("contents", {}).items()
        },
        pointer=pointer,
    )


def _query(builder: Builder, data: Data, pointer: Pointer) -> Query:
    return Query(
        start=builder.expr(data["start"], (*pointer, "start")),
        pages=builder.expr(data["pages"], (*pointer, "pages")),
        each=data.get("each"),
        first=builder.optional(data, "first", pointer),
        count=builder.optional(data, "count", pointer),
        answer_each=builder.exprs(data.get("answer-each"), (*pointer, "answer-each")),
        pack=data.get("pack", 1),
        left=builder.optional(data, "left", pointer),
        runs=_runs(builder, data["runs"], (*pointer, "runs")) if "runs" in data else None,
        told=builder.optional(data, "told", pointer),
        pointer=pointer,
    )


def _runs(builder: Builder, data: Data, pointer: Pointer) -> Runs:
    return Runs(
        field=data["field"],
        where=builder.expr(data["where"], (*pointer, "where")),
        element=builder.exprs(data["element"], (*pointer, "element")),
        most=builder.expr(data["most"], (*pointer, "most")),
        pointer=pointer,
    )


def _progress(builder: Builder, data: Data, pointer: Pointer) -> Progress:
    return Progress(
        unit=data["unit"],
        granule=builder.optional(data, "granule", pointer),
        completed=builder.expr(data["completed"], (*pointer, "completed")),
        within=builder.optional(data, "within", pointer),
        done_when=builder.expr(data["done-when"], (*pointer, "done-when")),
        again_when=builder.expr(data["again-when"], (*pointer, "again-when")),
        counts_when=builder.optional(data, "counts-when", pointer),
        next=builder.exprs(data.get("next"), (*pointer, "next")),
        resume=data["resume"],
        already_done=data.get("already-done", "ok"),
        footprint=data["footprint"],
        mark=builder.exprs(data.get("mark"), (*pointer, "mark")),
        mark_part=builder.exprs(data.get("mark-part"), (*pointer, "mark-part")),
        chunk=builder.optional(data, "chunk", pointer),
        stalls=data.get("stalls", 0),
        anywhere=data.get("stops") == "anywhere",
        bound=builder.expr(data["bound"], (*pointer, "bound")),
        doc=data.get("doc", ""),
        pointer=pointer,
    )


def _vmm(builder: Builder, data: Data, pointer: Pointer) -> Vmm:
    rows = []
    for number, item in enumerate(data["errno"]):
        where = (*pointer, "errno", number)
        own = {key: item[key] for key in (*_ANSWER_KEYS, "may-change", "nonzero") if key in item}
        rows.append(
            ErrnoAnswer(
                errno=None if item["is"] == "any" else _number(builder, item["is"], (*where, "is")),
                outcome=item.get("outcome"),
                answer=_answer(builder, own, where) if own else None,
                guard=builder.guard(item),
                pointer=where,
            )
        )
    return Vmm(
        abi=data.get("abi"),
        call=data.get("call"),
        merge=builder.optional(data, "merge", pointer),
        request=builder.exprs(data.get("request", {}), (*pointer, "request")),
        errno=tuple(rows),
        pointer=pointer,
    )


def _guest(builder: Builder, data: Data, pointer: Pointer) -> Guest:
    within = data.get("within")
    return Guest(
        request=builder.exprs(data["request"], (*pointer, "request")),
        element=builder.exprs(data.get("element"), (*pointer, "element")),
        element_pages=tuple(data.get("element-pages", ())),
        max_elements=builder.optional(data, "max-elements", pointer),
        part_elements=builder.optional(data, "part-elements", pointer),
        max_pages=builder.optional(data, "max-pages", pointer),
        smaller_when=builder.optional(data, "smaller-when", pointer),
        granule=builder.optional(data, "granule", pointer),
        within=(
            builder.expr(within[0], (*pointer, "within", 0)),
            builder.expr(within[1], (*pointer, "within", 1)),
        )
        if within
        else None,
        states=tuple(data.get("states", ())),
        scratch=builder.exprs(data.get("scratch"), (*pointer, "scratch")),
        steps_before=dict(data.get("steps", {}).get("before", {})),
        steps_after=dict(data.get("steps", {}).get("after", {})),
        pointer=pointer,
    )


def _handle(builder: Builder, data: Data, pointer: Pointer) -> HandleUse:
    return HandleUse(
        does=data["does"],
        of=data.get("of"),
        list=data.get("list"),
        complete=builder.optional(data, "complete", pointer),
        keep=builder.exprs(data.get("keep"), (*pointer, "keep")),
        pointer=pointer,
    )


def _alternatives(builder: Builder, data: Any, pointer: Pointer) -> tuple[Alternative, ...]:
    items = data if isinstance(data, list) else [{"is": data}]
    return tuple(
        Alternative(value=str(item["is"]).lower(), guard=builder.guard(item), pointer=(*pointer, number))
        for number, item in enumerate(items)
    )


def build_call(builder: Builder, name: str, data: Data, pointer: Pointer) -> Call:
    """Build one call. Raises `hvabi.abi.build.BuildError` with the pointer of a place that is wrong."""
    call = _call(builder, name, data, pointer)
    return _with_every_answer(call) if call.every_answer or call.every_may_change else call


def _with_every_answer(call: Call) -> Call:
    """Return the call with its `every-answer` in each answer that writes a field."""

    def more(answer: Answer | None) -> Answer | None:
        if answer is None or not answer.fields:
            return answer
        loose = (*answer.may_change, *call.every_may_change)
        return replace(answer, fields={**call.every_answer, **answer.fields}, may_change=loose)

    return replace(
        call,
        rules=tuple(replace(rule, answer=more(rule.answer)) for rule in call.rules),
        outcomes={
            status: tuple(found for answer in answers if (found := more(answer)) is not None)
            for status, answers in call.outcomes.items()
        },
        vmm=replace(call.vmm, errno=tuple(replace(row, answer=more(row.answer)) for row in call.vmm.errno))
        if call.vmm
        else None,
    )


def _call(builder: Builder, name: str, data: Data, pointer: Pointer) -> Call:
    return Call(
        name=name,
        doc=data["doc"],
        request=data["request"],
        response=data.get("response"),
        order=data.get("order", "stated"),
        define={
            key: Define(
                name=key,
                expr=builder.expr(item["expr"], (*pointer, "define", key, "expr")),
                doc=item["doc"],
                pointer=(*pointer, "define", key),
            )
            for key, item in data.get("define", {}).items()
        },
        rules=tuple(
            _rule(builder, item, (*pointer, "rules", number)) for number, item in enumerate(data.get("rules", ()))
        ),
        outcomes={
            key: _answers(builder, item, (*pointer, "outcomes", key)) for key, item in data.get("outcomes", {}).items()
        },
        every_may_change=tuple(data.get("every-may-change", ())),
        every_answer=builder.exprs(data.get("every-answer"), (*pointer, "every-answer")),
        convert=_convert(builder, data["convert"], (*pointer, "convert")) if "convert" in data else None,
        query=_query(builder, data["query"], (*pointer, "query")) if "query" in data else None,
        progress=_progress(builder, data["progress"], (*pointer, "progress")) if "progress" in data else None,
        vmm=_vmm(builder, data["vmm"], (*pointer, "vmm")) if "vmm" in data else None,
        guest=_guest(builder, data["guest"], (*pointer, "guest")) if "guest" in data else None,
        handle=_handle(builder, data["handle"], (*pointer, "handle")) if "handle" in data else None,
        absent=_alternatives(builder, data["absent"], (*pointer, "absent")) if "absent" in data else (),
        prevalidate=_alternatives(builder, data["prevalidate"], (*pointer, "prevalidate"))
        if "prevalidate" in data
        else (),
        guard=builder.guard(data),
        pointer=pointer,
    )
