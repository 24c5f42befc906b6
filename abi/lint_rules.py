"""Checks of rules: ids, operands, answers, reachability; and that every status can be produced."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvabi.abi.calls import GATHERED
from hvabi.abi.expr import Attr, Int, Name, Unary, names, walk
from hvabi.abi.lint_call_scopes import element_type
from hvabi.abi.lint_context import answers_of, covers, is_shared, listed
from hvabi.abi.lint_places import blocks_of
from hvabi.abi.lint_scope import Entry
from hvabi.abi.schema import load, near

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from hvabi.abi.calls import Answer, Call, Rule
    from hvabi.abi.expr import Expr
    from hvabi.abi.lint_call_scopes import CallScopes
    from hvabi.abi.lint_context import Context
    from hvabi.abi.model import Enum, Field, Layout, Pointer

IDS: Mapping[str, str] = {
    "rule-duplicate-id": "Two rules, in the same file or in two files, have the same id.",
    "rule-answer-missing": "A rule that binds the host does not say how a violation is answered.",
    "rule-answer-unwanted": "A rule that binds the guest has an answer, which only a host gives.",
    "rule-about": "A rule about the response binds the host, or there is no response.",
    "rule-page": "A rule about pages does not bind the host, looks at no page, or its call converts none.",
    "rule-operand": "A rule has an operand that its check does not use, or one of the wrong kind.",
    "rule-shadow": "`shadowed-by` does not name an earlier rule of the same call.",
    "rule-unreachable": "An earlier rule makes the same check wherever this one does, so this one never fails first.",
    "rule-observed": "A rule of level `observed` is under no policy, so that no profile can name it.",
    "rule-reserved": "A field that a check `reserved` names is not declared as reserved.",
    "answer-status": "An answer writes some fields of the response and no status.",
    "status-not-produced": "No answer produces a value of a status enum, and no note says why.",
}
"""Every id of this module, with one sentence each."""

_PAGE_CHECKS = frozenset(("fact", "in-state", "within-memory"))
_OPERANDS = frozenset(
    ("of", "to", "limit", "start", "length", "width", "size", "low", "high", "bit", "mask", "values")
) | {"state", "name", "is", "each", "expr"}


def operands_of(check: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return the operands that a check needs, as the schema says, and those that it may have besides."""
    needed: set[str] = set()
    for branch in load("abi")["$defs"]["rule"]["allOf"]:
        if branch["if"]["properties"].get("check", {}).get("const") == check:
            needed |= set(branch["then"]["required"])
    more = {"known-value": {"values"}, "selected": {"of"}, "fact": {"is"}}.get(check, set())
    return frozenset(needed), frozenset(more)


class RuleChecks:
    """The checks of the rules of one call."""

    def __init__(self, scopes: CallScopes) -> None:
        self.scopes = scopes
        self.context = scopes.context
        self.report = scopes.report
        self.call = scopes.call

    def check(self) -> None:
        """Check every rule."""
        seen: dict[str, Rule] = {}
        for rule in self.call.rules:
            data = self._data(rule)
            self._check_form(rule, data)
            self._check_operands(rule, data)
            self._check_names(rule)
            self._check_reach(rule, seen)
            seen.setdefault(rule.id, rule)

    def _data(self, rule: Rule) -> Mapping[str, object]:
        found: Mapping[str, object] = self.context.data["calls"][self.call.name]["rules"][rule.pointer[-1]]
        return found

    def _check_form(self, rule: Rule, data: Mapping[str, object]) -> None:
        answers = "answer" in data or "end" in data
        if rule.binds == "host" and not answers:
            self.report.error(
                rule.pointer,
                "rule-answer-missing",
                f"rule {rule.id} binds the host and has no answer",
                "write `answer: {FIELD: EXPR}` or `end: fault`, `replay` or `stop`",
            )
        if rule.binds == "guest" and answers:
            self.report.error(rule.pointer, "rule-answer-unwanted", f"rule {rule.id} binds the guest and has an answer")
        if rule.on == "response" and (rule.binds == "host" or self.scopes.response is None):
            why = "binds the host" if rule.binds == "host" else "has no response to look at"
            self.report.error((*rule.pointer, "about"), "rule-about", f"rule {rule.id} is about the response and {why}")
        if rule.level == "observed" and not rule.guard.policy:
            self.report.error(
                rule.pointer,
                "rule-observed",
                f"rule {rule.id} is only observed and under no policy",
                "give it `policy: {NAME: VALUE}` that the profiles set",
            )
        if rule.scope == "element" and self.scopes.each is None:
            self.report.error(
                (*rule.pointer, "scope"),
                "no-elements",
                f"rule {rule.id} is about elements and call `{self.call.name}` has no `each`",
            )
        replays = rule.answer is not None and rule.answer.end == "replay"
        unfit = rule.check not in _PAGE_CHECKS or rule.binds != "host" or not self.call.convert or replays
        if rule.scope == "page" and unfit:
            self.report.error(
                (*rule.pointer, "scope"),
                "rule-page",
                f"rule {rule.id} is about pages and cannot be judged page by page",
                f"it binds the host, its call converts, it does not replay, and its check is one of "
                f"{listed(sorted(_PAGE_CHECKS))}",
            )

    def _check_operands(self, rule: Rule, data: Mapping[str, object]) -> None:
        needed, more = operands_of(rule.check)
        more |= {"each"}
        for key in data:
            if key in _OPERANDS and key not in needed | more:
                uses = listed(sorted(needed | more)) or "no operands"
                self.report.error(
                    rule.pointer,
                    "rule-operand",
                    f"`{key}` is no operand of check `{rule.check}`",
                    f"it uses {uses}",
                    key=key,
                )
        where = rule.pointer
        if rule.check == "readable":
            blocks = {name for t in self.scopes.transports for name in blocks_of(self.context, t, self.call.request)}
            if (name := rule.words["of"]) not in blocks:
                self.report.error((*where, "of"), "unknown-block", f"there is no block `{name}`", near(name, blocks))
        if rule.check == "fact" and (name := rule.words["name"]) not in self.context.abi.facts:
            hint = near(name, self.context.abi.facts)
            self.report.error((*where, "name"), "unknown-fact", f"there is no fact `{name}`", hint)
        if "each" in rule.words and (self._elements(rule) is None or rule.scope != "call"):
            text = f"rule {rule.id} is about the elements of `{rule.words['each']}`"
            hint = "it names a list of the message, and the rule has no other scope than `call`"
            self.report.error((*where, "each"), "rule-operand", text, hint)
        if rule.check == "same-half" and len(rule.operands["of"]) != 2:
            self.report.error((*where, "of"), "rule-operand", "same-half compares two values: `of: [a, b]`")
        for item in self._tested(rule):
            if rule.check == "reserved" and item.reserved is None:
                self.report.error(
                    (*where, "of"),
                    "rule-reserved",
                    f"field `{item.name}` is not declared as reserved",
                    "give it `reserved: {send: …, receive: …}`, or use check `equals`",
                )
            if rule.check == "known-value" and item.enum is None and "values" not in rule.operands:
                self.report.error(
                    (*where, "of"),
                    "rule-operand",
                    f"field `{item.name}` has no enum that says which values are known",
                    "list them in `values:`",
                )

    def _tested(self, rule: Rule) -> Iterator[Field]:
        """Yield the fields that `of` names, where it names fields."""
        for expr in rule.operands.get("of", ()):
            item = self._field(expr, rule)
            if item is not None:
                yield item

    def _field(self, expr: Expr, rule: Rule) -> Field | None:
        sent, answered = self.scopes.request, self.scopes.response
        match expr:
            case Name(name):
                for message in (sent, answered if rule.on == "response" else None):
                    if message is not None and name in message.fields:
                        return message.fields[name]
            case Attr(Name("request"), name):
                return sent.fields.get(name) if sent else None
            case Attr(Name("response"), name):
                return answered.fields.get(name) if answered else None
            case Attr(base, name):
                layout: Layout | None = None
                if isinstance(base, Name) and base.name == "it":
                    elements = self._elements(rule) if "each" in rule.words else self.scopes.each
                    layout = elements.items if elements else None
                elif (outer := self._field(base, rule)) is not None:
                    layout = outer.word
                return layout.fields.get(name) if layout else None
            case _:
                pass
        return None

    def _elements(self, rule: Rule) -> Field | None:
        """Return the list that a rule names in `each`, None where there is no such list."""
        name = rule.words["each"]
        message = self.scopes.response if rule.on == "response" else self.scopes.request
        item = self.scopes.gathered if name == GATHERED else message.fields.get(name) if message is not None else None
        return item if item is not None and item.is_list else None

    def _check_names(self, rule: Rule) -> None:
        # What a rule about pages names, it names once for the call, or for the element where there are elements.
        element = rule.scope == "element" or (rule.scope == "page" and self.scopes.each is not None)
        scope = self.scopes.scope("rules", element=element, response=rule.on == "response", guards=[rule.guard])
        if "each" in rule.words and (elements := self._elements(rule)) is not None:
            scope = scope.with_names({"it": Entry(type=element_type(elements)), "index": Entry()})
        scope.check_int((*rule.pointer, "when"))
        for key, exprs in rule.operands.items():
            for number in range(len(exprs)):
                if (*rule.pointer, key, number) in self.context.exprs:
                    scope.check_int((*rule.pointer, key, number))
                else:
                    scope.check_int((*rule.pointer, key))
        for number in range(len(rule.tries)):
            scope.check((*rule.pointer, "try", number))
        if rule.answer is not None:
            inside = self.scopes.scope(
                "outcomes",
                element=element,
                rule_of_element=element,
                guards=[rule.guard],
                more=("cpl", "enabled"),
            )
            self.scopes.check_answer(rule.answer, inside)

    def _check_reach(self, rule: Rule, seen: Mapping[str, Rule]) -> None:
        if rule.id in seen:
            return  # Reported for all files together.
        if rule.shadowed_by is not None:
            if rule.shadowed_by not in seen:
                self.report.error(
                    (*rule.pointer, "shadowed-by"),
                    "rule-shadow",
                    f"rule {rule.shadowed_by} does not stand before {rule.id} in this call",
                    near(rule.shadowed_by, seen),
                )
            return
        for earlier in seen.values():
            if (
                (earlier.binds, earlier.on, earlier.scope, earlier.check, earlier.operands, earlier.words)
                == (rule.binds, rule.on, rule.scope, rule.check, rule.operands, rule.words)
                and earlier.when in {None, rule.when}
                and covers(earlier.guard, rule.guard)
            ):
                self.report.error(
                    rule.pointer,
                    "rule-unreachable",
                    f"rule {earlier.id} makes the same check, so {rule.id} is never the first to fail",
                    f"remove it, or say `shadowed-by: {earlier.id}`",
                )
                return


def check_statuses(context: Context) -> None:
    """Check that the values of every status enum are produced by an answer, or have a note.

    A status is a field of the response that some failing answer writes; what only ``done`` writes is a result.
    """
    abi = context.abi
    needed: dict[str, tuple[Enum, set[str], set[int]]] = {}
    for call in abi.calls.values():
        response = abi.messages.get(call.response or "")
        for item in response.fields.values() if response else ():
            parts = {item.name: item.enum}
            for part in item.word.fields.values() if item.word else ():
                parts[f"{item.name}.{part.name}"] = part.enum
            for name, enum in parts.items():
                if enum is None or is_shared(enum.pointer) or not _tells_failure(call, name):
                    continue
                _, used, numbers = needed.setdefault(enum.name, (enum, set(), set()))
                for expr in _written(call, name):
                    used |= names(expr) | {each.name for each in walk(expr) if isinstance(each, Attr)}
                    numbers |= set(_literals(expr))
    for enum, used, numbers in needed.values():
        for value in enum.values.values():
            if value.note is None and value.name not in used and value.value not in numbers:
                context.report.error(
                    (*enum.pointer, "values"),
                    "status-not-produced",
                    f"no answer produces {value.name} of enum `{enum.name}`",
                    "write the rule or outcome that does, or a `note` that says why there is none",
                    key=value.name,
                )


def check_status_written(context: Context) -> None:
    """Check that every answer that writes something writes a status: a field with an enum that tells failure."""
    for call in context.abi.calls.values():
        response = context.abi.messages.get(call.response or "")
        statuses = [
            item.name
            for item in (response.fields.values() if response else ())
            if (item.enum or (item.word and any(part.enum for part in item.word.fields.values())))
            and _tells_failure(call, item.name)
        ]
        for answer in answers_of(call) if statuses else ():
            if answer.end == "return" and answer.fields and not any(_writes(answer, name) for name in statuses):
                context.report.error(
                    (*answer.pointer, "answer"),
                    "answer-status",
                    f"this answer writes none of {listed(statuses)}, so nothing tells success from failure",
                )


def _writes(answer: Answer, name: str) -> bool:
    return any(field.partition(".")[0] == name for field in answer.fields)


def _tells_failure(call: Call, name: str) -> bool:
    outer = name.partition(".")[0]
    failing = [answers for status, answers in call.outcomes.items() if status != "done"]
    answers = [rule.answer for rule in call.rules if rule.answer] + [each for group in failing for each in group]
    return any({name, outer} & set(answer.fields) for answer in answers)


def _literals(expr: Expr) -> Iterator[int]:
    """Yield the number that an answer is, where it is a plain one."""
    match expr:
        case Int(number):
            yield number
        case Unary("-", Int(number)):
            yield -number
        case _:
            pass


def _written(call: Call, name: str) -> Iterator[Expr]:
    """Yield every expression that some answer of a call writes to a response field, or to a part of it."""
    outer = name.partition(".")[0]
    for answer in answers_of(call):
        for field, expr in answer.fields.items():
            if field in {name, outer}:
                yield expr


def check_rule_ids(contexts: Iterable[Context]) -> None:
    """Check that no two rules of all the files have the same id."""
    first: dict[str, tuple[str, Pointer]] = {}
    for context in contexts:
        for call in context.abi.calls.values():
            for rule in call.rules:
                earlier = first.setdefault(rule.id, (context.abi.path, rule.pointer))
                if earlier != (context.abi.path, rule.pointer):
                    where = "of this file" if earlier[0] == context.abi.path else f"in {earlier[0]}"
                    context.report.error(
                        (*rule.pointer, "id"),
                        "rule-duplicate-id",
                        f"another rule {where} is {rule.id} already",
                        "ids are permanent: give the newer rule the next free number",
                    )
