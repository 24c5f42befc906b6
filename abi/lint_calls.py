"""Checks of calls: every name in every expression, fields of answers and requests, complete outcomes, progress."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from hvabi.abi.calls import TAXONOMY
from hvabi.abi.expr import names as names_of
from hvabi.abi.lint_call_scopes import RUN_TIME, CallScopes
from hvabi.abi.lint_context import covers, listed, policy_choices
from hvabi.abi.lint_places import blocks_of
from hvabi.abi.lint_scope import WHERE
from hvabi.abi.schema import near

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hvabi.abi.model import Guard, Pointer

IDS: Mapping[str, str] = {
    "define-cycle": "Names in `define:` depend on each other in a circle.",
    "define-shadows": "A name in `define:` hides a field, a constant or a config key, or is a word of the language.",
    "unknown-fact": "A fact that is named does not exist.",
    "stands-for": "`stands-for` names a fact that the call does not set, or the call has a direction already.",
    "bits-of-range": "`bits` is no list of integers, or goes with a key that says something per element.",
    "contents-state": "What becomes of a page is said for a state or fact that the call never gives.",
    "outcome-missing": "A call that converts or asks does not say what the host answers for a member of the taxonomy.",
    "outcome-gap": "No alternative of an outcome or errno holds in some revision, transport and policy.",
    "outcome-unreachable": "An alternative can never be taken: an earlier one always holds.",
    "progress-unit": "The unit of progress needs a key that is missing, or has one that means nothing.",
    "progress-next": "A caller that reissues needs `next`, one that executes again has none.",
    "guest-field-missing": "The guest does not say how to fill a field that has no default.",
    "guest-state": "The guest can ask for a state that no request means.",
    "guest-without-convert": "A call has a guest's side and does not say what it converts or asks.",
    "query-converts": "A call both converts and asks.",
    "vmm-unknown-abi": "The ABI of the inner call does not exist.",
    "vmm-unknown-field": "The request of the inner call has no such field.",
    "vmm-field-missing": "A field of the inner call's request has no default and is not set.",
}
"""Every id of this module, with one sentence each."""


class _Choice(NamedTuple):
    """One alternative: its guard, whether it has a `when` too, and where it stands."""

    guard: Guard
    conditional: bool
    pointer: Pointer


class CallChecks(CallScopes):
    """The checks of one call. Those of its rules are in `hvabi.abi.lint_rules`."""

    def check(self) -> None:
        """Check everything but the rules."""
        self._check_define()
        self._check_meaning()
        self._check_outcomes()
        self._check_progress()
        self._check_vmm()
        self._check_guest()

    def _check_define(self) -> None:
        wide = self.scope("outcomes", element=True, response=True, rule_of_element=True, more=("cpl", "enabled"))
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
        self._check_query()
        convert = self.call.convert
        if convert is None:
            return
        inside = self.scope(element=convert.each is not None)
        self.scope(element=convert.each is not None, more=("it",) if convert.bits is not None else ()).check_int(
            (*convert.pointer, "to", "of")
        )
        self._check_bits()
        self._check_stands_for()
        for name in convert.facts:
            inside.check_int((*convert.pointer, "facts", name))
            if name not in self.context.abi.facts:
                where = (*convert.pointer, "facts")
                hint = near(name, self.context.abi.facts)
                self.report.error(where, "unknown-fact", f"there is no fact `{name}`", hint, key=name)
        given = {*convert.to.states.values(), convert.to.otherwise} if convert.to is not None else set()
        for name in convert.contents:
            if name not in {*given, *convert.facts}:
                hint = near(name, [*convert.facts, *(state for state in given if state)])
                message = f"the call makes no page `{name}`"
                self.report.error((*convert.pointer, "contents"), "contents-state", message, hint, key=name)

    def _check_query(self) -> None:
        query = self.call.query
        if query is None:
            return
        if self.call.convert is not None:
            self.report.error(query.pointer, "query-converts", f"call `{self.call.name}` converts and asks")
        where = (*query.pointer, "answer-each")
        if query.answer_each and self.response is None:
            self.report.error(where, "no-response", f"call `{self.call.name}` has no response")
        self.check_fields(query.answer_each, self.response, where)
        inside = self.scope(element=query.each is not None, more=("state_of", *(("run_pages",) if query.each else ())))
        for name in query.answer_each:
            inside.check_int((*where, name))
            item = self.response.fields.get(name) if self.response is not None else None
            if item is not None and not item.is_list:
                self.report.error(where, "not-a-list", f"field `{name}` is no list", key=name)
        self.scope(response=True).check_int((*query.pointer, "told"))
        if query.pack > 1 and (query.each is not None or not query.answer_each):
            self.report.error((*query.pointer, "pack"), "no-elements", "`pack` is for `answer-each` of one range")
        if query.left is not None and query.pack == 1:
            self.report.error((*query.pointer, "left"), "no-elements", "`left` is for `pack`: only then bits are left")
        self.scope().check_int((*query.pointer, "left"))
        self._check_runs()

    def _check_bits(self) -> None:
        convert = self.call.convert
        assert convert is not None  # the only caller has looked
        if convert.bits is None or self.request is None:
            return
        item = self.request.fields.get(convert.bits)
        problem = None
        if item is None:
            self.unknown_field((*convert.pointer, "bits"), convert.bits, self.request)
        elif not item.is_list or item.items is not None:
            problem = "`bits` names a list of integers"
        elif convert.each is not None or convert.to is None or convert.hint is not None or convert.facts:
            problem = "`bits` says for each page of one range what `to` it gets: no `each`, `hint` or `facts`"
        if problem is not None:
            self.report.error((*convert.pointer, "bits"), "bits-of-range", problem)

    def _check_runs(self) -> None:
        query = self.call.query
        assert query is not None  # the only caller has looked
        if query.runs is None:
            return
        runs = query.runs
        item = self.response.fields.get(runs.field) if self.response is not None else None
        if item is None or item.items is None or query.each is not None:
            text = "`runs` fills a list of structures of the response, and the call asks about one range"
            self.report.error((*runs.pointer, "field"), "no-elements", text)
            return
        for name in item.items.fields:
            if name not in runs.element:
                self.report.error((*runs.pointer, "element"), "no-elements", f"an element has `{name}` too")
        for name in runs.element:
            if name not in item.items.fields:
                hint = near(name, item.items.fields)
                message = f"layout `{item.items.name}` has no `{name}`"
                self.report.error((*runs.pointer, "element"), "unknown-field", message, hint, key=name)
            self.scope(more=("run_start", "run_pages")).check_int((*runs.pointer, "element", name))
        self.scope(more=("state_of",)).check_int((*runs.pointer, "where"))
        self.scope().check_int((*runs.pointer, "most"))

    def _check_stands_for(self) -> None:
        convert = self.call.convert
        assert convert is not None  # the only caller has looked
        where = (*convert.pointer, "stands-for")
        if convert.stands_for and convert.to is not None:
            self.report.error(where, "stands-for", "the call has `to`, which says what a state stands for")
        for state, facts in convert.stands_for.items():
            for name in facts:
                if name not in convert.facts:
                    hint = near(name, convert.facts)
                    self.report.error((*where, state), "stands-for", f"`facts` does not set `{name}`", hint, key=name)

    def _check_outcomes(self) -> None:
        call = self.call
        wide = self.scope("outcomes", element=True)
        self.check_fields(call.every_answer, self.response, (*call.pointer, "every-answer"))
        for name in call.every_answer:
            wide.check((*call.pointer, "every-answer", name))
        for status, answers in call.outcomes.items():
            for answer in answers:
                self.check_answer(answer, self.scope("outcomes", element=True, guards=[answer.guard]))
            choices = [_Choice(answer.guard, answer.when is not None, answer.pointer) for answer in answers]
            self._check_idle(choices, f"outcome `{status}`")
            self._check_gap(choices, (*call.pointer, "outcomes"), f"outcome `{status}`", key=status)
        for what, alternatives in (("absent", call.absent), ("prevalidate", call.prevalidate)):
            self._check_idle([_Choice(item.guard, False, item.pointer) for item in alternatives], f"`{what}`")
        if (call.convert is not None or call.query is not None) and call.response is not None:
            wanted = TAXONOMY if call.convert is not None else ("done", "invalid")
            missing = [status for status in wanted if status not in call.outcomes]
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
            inside = self.scope("outcomes", element=True, guards=[row.guard], more=RUN_TIME["vmm"])
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
        if call.convert is None and call.query is None:
            self.report.error(where, "guest-without-convert", f"call `{call.name}` has `guest` and no `convert`")
        elif call.handle is not None and call.handle.does == "continue":
            pass  # It goes on with what another call has asked for.
        elif (call.convert is None) != (not guest.states):
            problem = "a guest that converts says which `states` it can ask for, one that asks says none"
            self.report.error(where, "guest-state", problem)
        elif call.convert is not None and (call.convert.to is not None or call.convert.stands_for):
            to = call.convert.to
            known = {*to.states.values(), to.otherwise} if to is not None else {*call.convert.stands_for}
            key = "to" if to is not None else "stands-for"
            for number, state in enumerate(guest.states):
                if state not in known:
                    self.report.error(
                        (*where, "states", number),
                        "guest-state",
                        f"the guest can ask for {state} and `convert.{key}` never gives that state",
                    )
        scope = self.scope("guest", response=True)
        self.check_fields(guest.request, self.request, (*where, "request"))
        for name in guest.request:
            scope.check((*where, "request", name))
        self.check_element(guest.element, (*where, "element"), self.scope("guest", element=True))
        for key in ("max-elements", "max-pages", "granule", "smaller-when"):
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
