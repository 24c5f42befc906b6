"""Checks of calls: every name in every expression, fields of answers and requests, complete outcomes, progress."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from hvabi.abi.calls import TAXONOMY
from hvabi.abi.expr import names as names_of
from hvabi.abi.lint_context import covers, listed, policy_choices
from hvabi.abi.lint_scope import (
    INT,
    WHERE,
    Entry,
    NameScope,
    Type,
    defined_entries,
    entries,
    field_type,
    message_type,
    static_entries,
)
from hvabi.abi.lint_transports import blocks_of, check_output
from hvabi.abi.schema import near

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from hvabi.abi.calls import Answer, Call, Convert, Query
    from hvabi.abi.lint_context import Context
    from hvabi.abi.model import Field, Guard, Message, Pointer

IDS: Mapping[str, str] = {
    "define-cycle": "Names in `define:` depend on each other in a circle.",
    "define-shadows": "A name in `define:` hides a field, a constant or a config key, or is a word of the language.",
    "not-a-list": "`each` names a field that is no list.",
    "no-elements": "Something is said per element, and the call has no `each`.",
    "no-response": "An answer writes fields, and the call has no response.",
    "unknown-fact": "A fact that is named does not exist.",
    "outcome-missing": "A call that converts does not say what the host answers for a member of the taxonomy.",
    "outcome-gap": "No alternative of an outcome or errno holds in some revision, transport and policy.",
    "outcome-unreachable": "An alternative can never be taken: an earlier one always holds.",
    "progress-unit": "The unit of progress needs a key that is missing, or has one that means nothing.",
    "progress-next": "A caller that reissues needs `next`, one that executes again has none.",
    "guest-field-missing": "The guest does not say how to fill a field that has no default.",
    "guest-without-convert": "A call has a guest's side and does not say what it converts.",
    "vmm-unknown-abi": "The ABI of the inner call does not exist.",
    "vmm-unknown-field": "The request of the inner call has no such field.",
}
"""Every id of this module, with one sentence each."""

_RUN_TIME: Mapping[str, tuple[str, ...]] = {
    "rules": ("cpl", "enabled"),
    "outcomes": ("to", "done_pages", "done_bytes", "part_pages", "errno"),
    "vmm": ("to", "piece_start", "piece_pages", "piece_hint", "errno"),
    "guest": ("start", "pages", "to", "scratch", "scratch_pages", "attempt"),
}


class _Choice(NamedTuple):
    """One alternative: its guard, whether it has a `when` too, and where it stands."""

    guard: Guard
    conditional: bool
    pointer: Pointer


class CallScopes:
    """The scopes of one call, and the checks of its expressions. Rules are in `hvabi.abi.lint_rules`."""

    def __init__(self, context: Context, call: Call) -> None:
        self.context = context
        self.report = context.report
        self.call = call
        abi = context.abi
        self.request: Message | None = abi.messages.get(call.request)
        self.response: Message | None = abi.messages.get(call.response or "")
        self.transports = [transport for transport in abi.transports.values() if call.request in transport.placements]
        self.each = self._each(call.convert) or self._each(call.query)
        self.static = static_entries(context, self.transports)
        self.sent = entries(self.request.fields) if self.request else {}
        self.answered = entries(self.response.fields) if self.response else {}
        self.known: dict[str, Entry] = {**self.sent}
        if self.request:
            self.known["request"] = Entry(type=message_type(self.request, "request"))
        definitions = {name: item.expr for name, item in call.define.items()}
        self.define = defined_entries(definitions, {**self.static, **self.known})
        self.revisions = context.revisions_of(call.guard)

    def _each(self, meaning: Convert | Query | None) -> Field | None:
        """Return the list field whose elements are converted or asked about."""
        if meaning is None or meaning.each is None or self.request is None:
            return None
        item = self.request.fields.get(meaning.each)
        if item is None:
            self.unknown_field((*meaning.pointer, "each"), meaning.each, self.request)
        elif not item.is_list:
            self.report.error((*meaning.pointer, "each"), "not-a-list", f"field `{meaning.each}` is no list")
        return item if item is not None and item.is_list else None

    # -- scopes -------------------------------------------------------------------------------------------------

    def scope(
        self,
        place: str = "",
        *,
        element: bool = False,
        response: bool = False,
        guards: Sequence[Guard] = (),
        more: Iterable[str] = (),
    ) -> NameScope:
        """Return the names of a place of this call.

        Args:
            place: a key of the run-time names: rules, outcomes, vmm or guest.
            element: whether `it` and `index` are known.
            response: whether there is a response to look at.
            guards: what limits the item; fields must exist in all revisions that are left.
            more: other run-time names.

        """
        answered = {**self.answered} if response else {}
        if response and self.response:
            answered["response"] = Entry(type=message_type(self.response, "response"))
        names = {name: Entry() for name in (*_RUN_TIME.get(place, ()), *more)}
        if element and self.each is not None:
            names["index"] = Entry()
            names["it"] = Entry(type=element_type(self.each))
        if place == "outcomes" and self.call.query is not None:
            names["state_of"] = Entry()
        limits = [guard.transports for guard in guards if guard.transports is not None]
        static = self.static
        if limits:
            static = static_entries(self.context, [t for t in self.transports if t.name in limits[0]])
        elsewhere = {**dict.fromkeys(self.answered, "for the response"), **WHERE}
        for transport in self.transports:
            elsewhere.update((name, f"on transport {transport.name}") for name in transport.limits)
        return NameScope(
            context=self.context,
            entries={
                **static,
                **answered,
                **self.known,
                **self.define,
                **names,
            },
            revisions=self.context.revisions_of(self.call.guard, *guards),
            elsewhere=elsewhere,
        )

    def unknown_field(self, where: Pointer, name: str, message: Message, *, key: bool = False) -> None:
        """Report a field that a message does not have."""
        self.report.error(
            where,
            "unknown-field",
            f"message `{message.name}` has no field `{name}`",
            near(name, message.fields),
            key=name if key else None,
        )

    def check_fields(self, names: Iterable[str], message: Message | None, where: Pointer) -> None:
        """Check the keys of a mapping by field: FIELD, or FIELD.PART of a word."""
        for name in names if message is not None else ():
            assert message is not None  # the loop is empty otherwise
            first, _, part = name.partition(".")
            item = message.fields.get(first)
            if item is None:
                self.unknown_field(where, name, message, key=True)
            elif part and (item.word is None or part not in item.word.fields):
                known = item.word.fields if item.word else ()
                self.report.error(
                    where, "unknown-field", f"`{first}` has no part `{part}`", near(part, known), key=name
                )

    def check_answer(self, answer: Answer, scope: NameScope) -> None:
        """Check one answer: its condition, its fields, and what may change."""
        scope.check_int((*answer.pointer, "when"))
        if answer.fields and self.response is None:
            self.report.error((*answer.pointer, "answer"), "no-response", f"call `{self.call.name}` has no response")
        self.check_fields(answer.fields, self.response, (*answer.pointer, "answer"))
        for name in answer.fields:
            scope.check((*answer.pointer, "answer", name))
        for number, name in enumerate(answer.may_change):
            if self.response is None or name not in self.response.fields:
                where = (*answer.pointer, "may-change", number)
                check_output(self.context, name, self.transports, self.call.response or "", where)

    # -- the parts of a call ------------------------------------------------------------------------------------

    def check(self) -> None:
        """Check everything but the rules."""
        self._check_define()
        self._check_meaning()
        self._check_outcomes()
        self._check_progress()
        self._check_vmm()
        self._check_guest()

    def _check_define(self) -> None:
        wide = self.scope("outcomes", element=True, response=True, more=("cpl", "enabled"))
        for name, item in self.call.define.items():
            if name in {*self.static, *self.sent, *self.answered, *WHERE}:
                self.report.error(
                    (*self.call.pointer, "define"),
                    "define-shadows",
                    f"`{name}` is the name of something else",
                    "choose another name",
                    key=name,
                )
            wide.check((*item.pointer, "expr"))
            if self._reaches(name, name, set()):
                self.report.error(
                    (*self.call.pointer, "define"), "define-cycle", f"`{name}` depends on itself", key=name
                )

    def _reaches(self, start: str, target: str, seen: set[str]) -> bool:
        for each in names_of(self.call.define[start].expr):
            if each == target:
                return True
            if each in self.call.define and each not in seen:
                seen.add(each)
                if self._reaches(each, target, seen):
                    return True
        return False

    def _check_meaning(self) -> None:
        for meaning in (self.call.convert, self.call.query):
            if meaning is None:
                continue
            inside = self.scope(element=meaning.each is not None)
            for key in ("start", "pages", "hint"):
                inside.check_int((*meaning.pointer, key))
            outside = self.scope()
            for key in ("first", "count"):
                outside.check_int((*meaning.pointer, key))
        convert = self.call.convert
        if convert is None:
            return
        inside = self.scope(element=convert.each is not None)
        inside.check_int((*convert.pointer, "to", "of"))
        for name in convert.facts:
            inside.check_int((*convert.pointer, "facts", name))
            if name not in self.context.abi.facts:
                where = (*convert.pointer, "facts")
                hint = near(name, self.context.abi.facts)
                self.report.error(where, "unknown-fact", f"there is no fact `{name}`", hint, key=name)

    def _check_outcomes(self) -> None:
        call = self.call
        for status, answers in call.outcomes.items():
            for answer in answers:
                self.check_answer(answer, self.scope("outcomes", element=True, guards=[answer.guard]))
            choices = [_Choice(answer.guard, answer.when is not None, answer.pointer) for answer in answers]
            self._check_idle(choices, f"outcome `{status}`")
            self._check_gap(choices, (*call.pointer, "outcomes"), f"outcome `{status}`", key=status)
        if call.convert is not None and call.response is not None:
            missing = [status for status in TAXONOMY if status not in call.outcomes]
            if missing:
                self.report.error(
                    (*call.pointer, "outcomes"),
                    "outcome-missing",
                    f"call `{call.name}` does not say what the host answers for {listed(missing, 12)}",
                    "write an answer, or `{cannot: reason}`",
                )

    def _check_idle(self, choices: Sequence[_Choice], what: str) -> None:
        """Report alternatives that an earlier one always comes before."""
        for number, choice in enumerate(choices):
            if any(not e.conditional and covers(e.guard, choice.guard) for e in choices[:number]):
                self.report.error(
                    choice.pointer,
                    "outcome-unreachable",
                    f"{what}: an earlier alternative holds wherever this one does",
                )

    def _check_gap(self, choices: Sequence[_Choice], where: Pointer, what: str, *, key: str | None = None) -> None:
        """Check that in every revision, transport and policy one alternative holds."""
        guards = [choice.guard for choice in choices if not choice.conditional]
        for revision in self.revisions:
            for transport in self.transports:
                if transport.guard.revisions is not None and revision not in transport.guard.revisions:
                    continue
                for chosen in policy_choices(self.context.abi, guards):
                    if not any(g.holds(revision, chosen) and g.serves(transport.name) for g in guards):
                        under = ", ".join(f"{name}: {value}" for name, value in chosen.items())
                        self.report.error(
                            where,
                            "outcome-gap",
                            f"{what} has no alternative without `when` for revision {revision} on transport "
                            f"{transport.name}{' under ' + under if under else ''}",
                            "add one without `when`, `policy`, `revisions` and `transports` at the end",
                            key=key,
                        )
                        return

    def _check_progress(self) -> None:
        progress = self.call.progress
        if progress is None:
            return
        where = progress.pointer
        both = self.scope(response=True)
        for key in ("completed", "done-when", "again-when", "counts-when"):
            both.check_int((*where, key))
        self.scope(response=True, element=True).check_int((*where, "within"))
        sent = self.scope()
        for key in ("granule", "bound", "chunk"):
            sent.check_int((*where, key))
        self.check_fields(progress.next, self.request, (*where, "next"))
        for name in progress.next:
            both.check((*where, "next", name))
        part = self.scope("outcomes", element=True)
        for key, table in (("mark", progress.mark), ("mark-part", progress.mark_part)):
            self.check_element(table, (*where, key), part)
        self._check_unit()

    def _check_unit(self) -> None:
        progress = self.call.progress
        assert progress is not None  # the only caller has looked
        where, problem = progress.pointer, None
        if progress.unit == "granule" and progress.granule is None:
            problem = "unit granule needs `granule`"
        elif progress.unit == "element" and self.each is None:
            problem = "unit element needs a list: `convert.each`"
        elif progress.unit != "element" and progress.within is not None:
            problem = "`within` means something for unit element only"
        if problem is not None:
            self.report.error((*where, "unit"), "progress-unit", problem)
        if progress.resume == "reissue" and not progress.next:
            self.report.error((*where, "resume"), "progress-next", "a call that is reissued needs `next`")
        elif progress.resume == "reexecute" and progress.next:
            self.report.error((*where, "next"), "progress-next", "a call that is executed again is the same call")

    def check_element(self, table: Mapping[str, object], where: Pointer, scope: NameScope) -> None:
        """Check fields of an element and their expressions."""
        if table and self.each is None:
            self.report.error(where, "no-elements", f"call `{self.call.name}` has no `each`")
            return
        for name in table:
            scope.check((*where, name))
            items = self.each.items if self.each else None
            known = items.fields if items else {"value": None}
            if name not in known:
                what = f"layout `{items.name}`" if items else "an element that is a plain integer"
                self.report.error(where, "unknown-field", f"{what} has no `{name}`", near(name, known), key=name)

    def _check_vmm(self) -> None:
        vmm = self.call.vmm
        if vmm is None:
            return
        scope = self.scope("vmm", element=True)
        scope.check_int((*vmm.pointer, "merge"))
        for name in vmm.request:
            scope.check((*vmm.pointer, "request", name))
        rows = []
        for row in vmm.errno:
            inside = self.scope("outcomes", element=True, guards=[row.guard], more=_RUN_TIME["vmm"])
            inside.check_int((*row.pointer, "when"))
            if row.answer is not None:
                self.check_answer(row.answer, inside)
            raw = self.context.data["calls"][self.call.name]["vmm"]["errno"][row.pointer[-1]]
            rows.append((row, "when" in raw))
        where = (*vmm.pointer, "errno")
        for errno in dict.fromkeys(row.errno for row, _ in rows):
            what = f"errno {'any' if errno is None else errno}"
            choices = [
                _Choice(row.guard, conditional, row.pointer) for row, conditional in rows if row.errno in {errno, None}
            ]
            own = [row.pointer for row, _ in rows if row.errno == errno]
            last = next((n for n, choice in enumerate(choices) if choice.pointer == own[-1]), 0)
            self._check_idle(choices[: last + 1], what)
            self._check_gap(choices, where, what)
        if all(row.errno is not None for row, _ in rows):
            hint = "end with `{is: any, …}`"
            self.report.error(where, "outcome-gap", "errno has no entry for any other number", hint)

    def _check_guest(self) -> None:
        guest, call = self.call.guest, self.call
        if guest is None:
            return
        where = guest.pointer
        if call.convert is None:
            self.report.error(where, "guest-without-convert", f"call `{call.name}` has `guest` and no `convert`")
        scope = self.scope("guest", response=True)
        self.check_fields(guest.request, self.request, (*where, "request"))
        for name in guest.request:
            scope.check((*where, "request", name))
        self.check_element(guest.element, (*where, "element"), self.scope("guest", element=True))
        for key in ("max-elements", "max-pages", "granule"):
            scope.check_int((*where, key))
        for number in (0, 1):
            scope.check_int((*where, "within", number))
        blocks = {name for t in self.transports for name in blocks_of(self.context, t, call.request)}
        for name in guest.scratch:
            scope.check_int((*where, "scratch", name))
            if name not in blocks:
                self.report.error(
                    (*where, "scratch"),
                    "unknown-block",
                    f"there is no block `{name}`",
                    near(name, blocks),
                    key=name,
                )
        for item in self.request.fields.values() if self.request else ():
            given = item.const is not None or item.default is not None or item.reserved is not None
            if given or item is self.each or item.is_list:
                continue
            if item.name not in {name.partition(".")[0] for name in guest.request}:
                self.report.error(
                    (*where, "request"),
                    "guest-field-missing",
                    f"field `{item.name}` of the request has no default and the guest does not set it",
                )


def element_type(item: Field) -> Type:
    """Return the type of `it` for a list field."""
    return field_type(item).item or INT


__all__ = ["IDS", "CallScopes", "element_type"]
