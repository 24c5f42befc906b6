"""One call of a host story: the request, its right answers and the wrong one, placed on the wire."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hvabi.abi.calls import Answer
from hvabi.abi.errors import CodecError
from hvabi.abi.expr import parse
from hvabi.abi.schema import near
from hvabi.abi.values import plain
from hvabi.abi.wire import merge
from hvabi.conformance.case import Expected, HostStep
from hvabi.conformance.oracle.answers import Oracle, Request
from hvabi.conformance.oracle.placed import place_answer
from hvabi.conformance.story_parts import StoryError, facts_of, memory_of, pages_of, ranges_of, read_back

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hvabi.abi.model import Pointer
    from hvabi.conformance.case import Ranges
    from hvabi.conformance.retell import Teller
    from hvabi.conformance.story_parts import Facts


class HostCall:
    """One call of a host story: the step with its right answers, and the wrong one."""

    def __init__(
        self, teller: Teller, given: Mapping[str, Any], pointer: Pointer, before: Ranges, facts: Facts
    ) -> None:
        self.teller = teller
        self.given = given
        self.pointer = pointer
        self.before = before
        self.facts = facts
        try:
            codec = teller.codec()
            wire = codec.encode(teller.deep(given["request"], (*pointer, "request")))
        except CodecError as error:
            path = error.path.partition("[")[0].partition(".")[0]
            raise StoryError(str(error), (*pointer, "request", path) if path else (*pointer, "request")) from error
        self.regs = {**wire.regs, **given.get("regs", {})}
        self.mem = merge([*wire.mem, *memory_of(given.get("mem", ()))])
        self.fields = read_back(codec, self.regs, self.mem)
        self.inject = teller.inject(given.get("inject"), (*pointer, "inject"))
        rights = given["right"] if isinstance(given["right"], list) else [given["right"]]
        places = [(*pointer, "right", n) if isinstance(given["right"], list) else (*pointer, "right")
                  for n in range(len(rights))]  # fmt: skip
        expected = tuple(self._expected(right, place) for right, place in zip(rights, places, strict=True))
        self.step = HostStep(
            regs=self.regs,
            mem=self.mem,
            cpl=given.get("cpl", 0),
            inject=self.inject,
            expected=expected,
            fields={name: plain(item) for name, item in self.fields.items()},
        )
        wrong = given.get("wrong")
        self.crash = wrong is not None and wrong.get("end") == "crash"
        self.wrong = None
        if wrong is not None and not self.crash:
            # A wrong answer is what one host did: it leaves nothing open.
            kept = {key: item for key, item in rights[0].items() if key not in ("nonzero", "loose", "policies")}
            self.wrong = self._expected({**kept, **wrong}, (*pointer, "wrong"))

    def _expected(self, given: Mapping[str, Any], pointer: Pointer) -> Expected:
        teller, end = self.teller, given.get("end", "return")
        if end == "crash":
            raise StoryError("a host that breaks is never right", (*pointer, "end"))
        oracle = Oracle(teller.spec.id, teller.abi.revision, teller.transport, teller.setup, profile=teller.profile)
        request = Request(
            oracle,
            teller.abi,
            teller.call.name,
            self.fields,
            self.given.get("cpl", 0),
            self.inject,
            self.before,
            self.facts,
            self.regs,
        )
        known = teller.abi.messages[teller.call.response].fields if teller.call.response else {}
        response = given.get("response", {}) if end != "stop" else {}
        for name in response:
            if name.partition(".")[0] not in known:
                place = (*pointer, "response", name)
                raise StoryError(f"no response field {name}", place, code="story-unknown", hint=near(name, known))
        request.marks = [
            (
                int(index),
                {name: teller.number(item, (*pointer, "elements", index, name)) for name, item in part.items()},
            )
            for index, part in given.get("elements", {}).items()
        ]
        answer = Answer(
            end=end,
            fields={
                name: parse(str(teller.number(item, (*pointer, "response", name)))) for name, item in response.items()
            },
            may_change=tuple(given.get("may-change", ())),
            nonzero=tuple(given.get("nonzero", ())),
            fault=given.get("fault"),
        )
        try:
            placed = place_answer(request, answer, request.names)
        except (CodecError, IndexError, KeyError) as error:
            raise StoryError(f"the answer cannot be placed: {error}", pointer) from error
        return Expected(
            end=end,
            regs={**placed.regs, **given.get("regs", {})},
            mem=merge([*placed.mem, *memory_of(given.get("mem", ()))]),
            may_change=placed.may_change,
            nonzero=placed.nonzero,
            may_change_mem=placed.may_change_mem,
            fault=given.get("fault"),
            state=ranges_of(given["after"], (*pointer, "after")),
            facts=facts_of(given["facts"], teller.abi.facts, (*pointer, "facts")) if "facts" in given else self.facts,
            loose=pages_of(given.get("loose", ()), (*pointer, "loose")),
            policies=teller.policies(given.get("policies", {}), (*pointer, "policies")),
            rule=next(iter(teller.data["rules"]), None),
            status="regression",
            why=f"{teller.data['title']}.",
        )
