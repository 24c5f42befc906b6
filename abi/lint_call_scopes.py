"""The names that each place of a call knows, and checks that every part of a call needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvabi.abi.calls import GATHERED
from hvabi.abi.lint_places import check_output
from hvabi.abi.lint_scope import (
    INT,
    WHERE,
    Entry,
    NameScope,
    Type,
    defined_entries,
    entries,
    field_type,
    handle_entries,
    message_type,
    static_entries,
)
from hvabi.abi.model import Field
from hvabi.abi.schema import near

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from hvabi.abi.calls import Answer, Call, Convert, Query
    from hvabi.abi.lint_context import Context
    from hvabi.abi.model import Guard, Message, Pointer

IDS: Mapping[str, str] = {
    "not-a-list": "`each` names a field that is no list.",
    "no-elements": "Something is said per element, and the call has no `each`.",
    "no-response": "An answer writes fields, and the call has no response.",
}
"""Every id of this module, with one sentence each."""

RUN_TIME: Mapping[str, tuple[str, ...]] = {
    "rules": ("cpl", "enabled"),
    "outcomes": ("to", "done_pages", "done_bytes", "part_pages", "errno"),
    "vmm": ("to", "piece_start", "piece_pages", "piece_hint", "errno"),
    "guest": ("start", "pages", "to", "scratch", "scratch_pages", "attempt", "count"),
}


class CallScopes:
    """The scopes of one call, and the checks that its parts share."""

    def __init__(self, context: Context, call: Call) -> None:
        self.context = context
        self.report = context.report
        self.call = call
        abi = context.abi
        self.handles = abi.handles if call.handle is not None else None
        self.request: Message | None = abi.messages.get(call.request)
        self.response: Message | None = abi.messages.get(call.response or "")
        self.transports = [transport for transport in abi.transports.values() if call.request in transport.placements]
        self.each = self._each(call.meaning)
        self.static = static_entries(context, self.transports)
        self.sent = entries(self.request.fields) if self.request else {}
        self.answered = entries(self.response.fields) if self.response else {}
        self.known: dict[str, Entry] = {**self.sent}
        if self.request:
            self.known["request"] = Entry(type=message_type(self.request, "request"))
        if self.handles is not None:
            self.known.update(handle_entries(self.handles))
        definitions = {name: item.expr for name, item in call.define.items()}
        self.define = defined_entries(definitions, {**self.static, **self.known})
        self.revisions = context.revisions_of(call.guard)

    def _each(self, meaning: Convert | Query | None) -> Field | None:
        """Return the list field whose elements are converted or asked about."""
        if meaning is None or meaning.each is None or self.request is None:
            return None
        item = self.request.fields.get(meaning.each)
        if meaning.each == GATHERED and self.gathered is not None:
            return self.gathered
        if item is None:
            self.unknown_field((*meaning.pointer, "each"), meaning.each, self.request)
        elif not item.is_list:
            self.report.error((*meaning.pointer, "each"), "not-a-list", f"field `{meaning.each}` is no list")
        return item if item is not None and item.is_list else None

    @property
    def gathered(self) -> Field | None:
        """The elements of a call that uses a handle, as a list field; None for other calls."""
        if self.handles is None:
            return None
        items = self.handles.items
        return Field(name=GATHERED, doc=self.handles.doc, bits=items.size * 8, items=items, is_list=True)

    # -- scopes -------------------------------------------------------------------------------------------------

    def scope(
        self,
        place: str = "",
        *,
        element: bool = False,
        response: bool = False,
        rule_of_element: bool = False,
        guards: Sequence[Guard] = (),
        more: Iterable[str] = (),
    ) -> NameScope:
        """Return the names of a place of this call.

        Args:
            place: a key of the run-time names: rules, outcomes, vmm or guest.
            element: whether `it` and `index` are known.
            response: whether there is a response to look at.
            rule_of_element: whether it is an answer to one element, or a name that may be used in such a one.
            guards: what limits the item; fields must exist in all revisions that are left.
            more: other run-time names.

        """
        answered = {**self.answered} if response else {}
        if response and self.response:
            answered["response"] = Entry(type=message_type(self.response, "response"))
        names = {name: Entry() for name in (*RUN_TIME.get(place, ()), *more)}
        if self.handles is not None and place in ("outcomes", "guest"):
            names["handle"] = Entry()
        if element and self.each is not None:
            names["index"] = Entry()
            names["it"] = Entry(type=element_type(self.each))
        query = self.call.query
        # A list has no one state: each of its elements has.
        if place == "outcomes" and query is not None and (query.each is None or rule_of_element):
            names["state_of"] = names["run_pages"] = Entry()
        if place == "outcomes" and query is not None and query.runs is not None:
            names["found"] = Entry()
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

    def check_element(self, table: Mapping[str, object], where: Pointer, scope: NameScope) -> None:
        """Check fields of an element and their expressions."""
        if self.call.convert is not None and self.call.convert.bits is not None and set(table) == {"value"}:
            scope.check((*where, "value"))
            return
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


def element_type(item: Field) -> Type:
    """Return the type of `it` for a list field."""
    return field_type(item).item or INT
