"""Checks of handles: what is kept under them, and what each call does with one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvabi.abi.lint_context import listed
from hvabi.abi.lint_scope import NameScope, static_entries
from hvabi.abi.schema import near

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hvabi.abi.calls import HandleUse, Rule
    from hvabi.abi.lint_call_scopes import CallScopes
    from hvabi.abi.lint_context import Context

IDS: Mapping[str, str] = {
    "handle-unknown": "A call or a rule is about a handle, and the ABI or the call has none.",
    "handle-unused": "The ABI has handles and no call that gives them out.",
    "handle-key": "What a call does with a handle needs a key that is missing, or has one that means nothing.",
    "handle-list": "The elements that a call adds are not those that are kept.",
    "handle-keep": "A call that gives out a handle does not say exactly the numbers that are kept.",
    "handle-answer": "A call that gives out a handle has no response field that is `chosen-by: host`.",
}
"""Every id of this module, with one sentence each."""

_KEYS = {
    "open": (("list", "complete"), ("of",)),
    "continue": (("of", "list", "complete"), ("keep",)),
    "close": (("of",), ("list", "complete", "keep")),
}
"""What each use needs, and what means nothing there."""
STATES = ("open", "complete")
"""What a handle can be asked to be: elements are missing, or all are there."""


def check_handles(context: Context) -> None:
    """Check what is kept under handles, and that a call gives them out."""
    handles = context.abi.handles
    if handles is None:
        return
    NameScope(context=context, entries=static_entries(context), revisions=context.revisions).check_int(
        (*handles.pointer, "first")
    )
    if not any(call.handle and call.handle.does == "open" for call in context.abi.calls.values()):
        context.report.error(handles.pointer, "handle-unused", "no call gives out handles: `handle: {does: open, …}`")


class HandleChecks:
    """The checks of one call."""

    def __init__(self, scopes: CallScopes) -> None:
        self.scopes = scopes
        self.report = scopes.report
        self.call = scopes.call

    def check(self) -> None:
        """Check what the call does with a handle, and the rules that are about one."""
        use = self.call.handle
        for rule in self.call.rules:
            self._check_rule(rule, use)
        if use is None:
            return
        if self.scopes.context.abi.handles is None:
            self.report.error(use.pointer, "handle-unknown", "the file says nothing of handles: `handles: {…}`")
            return
        self._check_keys(use)
        self._check_fields(use)
        scope = self.scopes.scope()
        scope.check_int((*use.pointer, "complete"))
        for name in use.keep:
            scope.check_int((*use.pointer, "keep", name))

    def _check_rule(self, rule: Rule, use: HandleUse | None) -> None:
        about = rule.check == "handle" or rule.drops
        if about and (use is None or use.does == "open" or rule.binds == "guest"):
            self.report.error(rule.pointer, "handle-unknown", f"rule {rule.id}: no handle comes with this request")
        if rule.check == "handle" and rule.words["is"] not in STATES:
            where = (*rule.pointer, "is")
            self.report.error(where, "handle-key", f"a handle is {listed(STATES)}, not `{rule.words['is']}`")

    def _check_keys(self, use: HandleUse) -> None:
        needed, unwanted = _KEYS[use.does]
        given = {"of": use.of, "list": use.list, "complete": use.complete, "keep": use.keep}
        for key in needed:
            if given[key] is None:
                self.report.error(use.pointer, "handle-key", f"a call that does `{use.does}` needs `{key}`")
        for key in unwanted:
            if given[key]:
                self.report.error(use.pointer, "handle-key", f"`{key}` means nothing where a call does `{use.does}`")
        handles = self.scopes.context.abi.handles
        if use.does == "open" and handles is not None and set(use.keep) != set(handles.keep):
            hint = f"`handles.keep` has {listed(tuple(handles.keep)) or 'none'}"
            self.report.error((*use.pointer, "keep"), "handle-keep", "these are not the numbers that are kept", hint)

    def _check_fields(self, use: HandleUse) -> None:
        sent, answered, handles = self.scopes.request, self.scopes.response, self.scopes.context.abi.handles
        for key, name in (("of", use.of), ("list", use.list)):
            if name is not None and sent is not None and name not in sent.fields:
                self.report.error(
                    (*use.pointer, key),
                    "unknown-field",
                    f"message `{sent.name}` has no field `{name}`",
                    near(name, sent.fields),
                )
        item = sent.fields.get(use.list or "") if sent is not None else None
        if item is not None and handles is not None and (item.items is None or item.items.name != handles.items.name):
            text = f"`{item.name}` is no list of `{handles.items.name}`"
            self.report.error((*use.pointer, "list"), "handle-list", text)
        chosen = answered is not None and any(field.chosen_by_host for field in answered.fields.values())
        if use.does == "open" and not chosen:
            self.report.error(use.pointer, "handle-answer", "no field of the response is `chosen-by: host`")
