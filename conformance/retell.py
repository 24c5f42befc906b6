"""A story of the regression collection as cases: fields to registers and bytes, on every transport that it names.

The values of right and wrong answers are those of the story; only their place on the wire comes from the
specification.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from hvabi.abi.errors import ExprError, show
from hvabi.abi.expr import parse
from hvabi.abi.registry import Spec, bundled, load
from hvabi.abi.schema import near
from hvabi.conformance.case import Case, Expected, GuestScript, GuestTurn, HostStep, Inject, Setup
from hvabi.conformance.oracle.walk import Names, Undefined, value
from hvabi.conformance.retell_host import HostCall
from hvabi.conformance.story import Retold, Story, WrongGuest, WrongHost
from hvabi.conformance.story_parts import StoryError, facts_of, local_of, pages_of, ranges_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hvabi.abi.codec import MessageCodec
    from hvabi.abi.model import Pointer

GUEST_SCRATCH = (0x10, 0x14)
"""Pages of a guest's own area where a story names none."""


def retell(abi: str, data: Mapping[str, Any], where: str) -> Story:
    """Return the story of one entry, with a case per revision and transport.

    Args:
        abi: id of the ABI.
        data: the entry, already checked against the schema.
        where: file and line of it.

    Raises `StoryError`.

    """
    _check_names(abi, data)
    default = bundled(abi).resolve(revision=None).revision
    cases = []
    for revision in data.get("revisions", [default]):
        spec = load(abi, revision=revision, profile=data.get("profile", "spec"))
        for transport in _transports(spec, data):
            cases.append(Teller(spec, transport, data).tell())
    return Story(
        id=data["id"],
        abi=abi,
        numbers=tuple(data.get("numbers", ())),
        title=data["title"],
        text=data["text"],
        reference=tuple(data["reference"]),
        tag=data["tag"],
        role=data["role"],
        rules=tuple(data["rules"]),
        cases=tuple(cases),
        where=where,
    )


def _check_names(abi: str, data: Mapping[str, Any]) -> None:
    """Raise `StoryError` for a name that the ABI does not have, or where the keys do not fit the role."""
    spec = bundled(abi)
    rules = {rule.id for call in spec.calls.values() for rule in call.rules}

    def known(word: str, names: Iterable[str], given: str, *pointer: str | int) -> None:
        if given not in names:
            message, hint = f"{abi} has no {word} {show(given)}", near(given, names)
            raise StoryError(message, pointer, code="story-unknown", hint=hint)

    for index, name in enumerate(data["rules"]):
        known("rule", rules, name, "rules", index)
    for index, name in enumerate(data.get("revisions", ())):
        known("revision", spec.revisions, name, "revisions", index)
    for index, name in enumerate(data.get("transports", ())):
        known("transport", spec.transports, name, "transports", index)
    known("profile", ("spec", *spec.profiles), data.get("profile", "spec"), "profile")
    if "call" in data:
        known("call", spec.calls, data["call"], "call")
    for name in data.get("setup", {}).get("config", {}):
        known("config key", spec.config, name, "setup", "config", name)
    host, guest = ("steps",), ("script", "right", "wrong")
    wanted, unwanted = (host, guest) if data["role"] == "host" else (guest, host)
    if any(key not in data for key in wanted) or any(key in data for key in unwanted):
        hint = f"give {', '.join(wanted)} and not {', '.join(unwanted)}"
        raise StoryError("the keys do not fit the role", ("role",), code="story-role", hint=hint)
    if data["role"] == "host" and not any("wrong" in step for step in data["steps"]):
        raise StoryError("no step says what the wrong answer was", ("steps",), code="story-role")
    if data["tag"] == "confirmed" and not data["reference"]:
        raise StoryError("a confirmed bug has a reference", ("reference",), code="story-role")


def _transports(spec: Spec, data: Mapping[str, Any]) -> list[str]:
    call = spec.abi.calls[data["call"]] if "call" in data else spec.abi.convert_call
    if call is None:
        raise StoryError(f"{spec.id} converts nothing", ("role",), code="story-role")
    carrying = [name for name, transport in spec.abi.transports.items() if call.request in transport.placements]
    return list(data.get("transports", carrying))


class Teller:
    """One story on one transport."""

    def __init__(self, spec: Spec, transport: str, data: Mapping[str, Any]) -> None:
        self.spec = spec
        self.abi = spec.abi
        self.transport = transport
        self.data = data
        self.profile = self.abi.profile
        call = self.abi.calls[data["call"]] if "call" in data else self.abi.convert_call
        assert call is not None  # `_transports` has looked
        self.call = call
        self.setup = self._setup()
        self.before = ranges_of(data.get("before", ()), ("before",))
        self.facts = facts_of(data.get("facts", {}), self.abi.facts, ("facts",))
        # Names of constants, enums and config: what a story may write in place of numbers.
        self.names = Names(self.abi, self.abi.transports[transport], spec.config(self.setup.config), {}, {})

    def tell(self) -> Retold:
        """Return the case and the wrong behaviour."""
        data = self.data
        steps: tuple[HostStep, ...] = ()
        script: GuestScript | None = None
        wrong: WrongHost | WrongGuest
        features: list[str] = []
        if data["role"] == "host":
            steps, wrong = self._steps()
            if any(step.inject is not None for step in steps):
                features.append("inject")
        else:
            script, wrong = self._script(), self._wrong_guest()
            if script.local_steps:
                features.append("local-steps")
        word = "Historic bug" if data["tag"] == "confirmed" else "Hazard"
        case = Case(
            id=f"{self.spec.id}@{self.abi.revision}.{data['role']}.{self.transport}.regression.{data['id']}",
            abi=self.spec.id,
            revision=self.abi.revision,
            role=data["role"],
            transport=self.transport,
            rules=tuple(data["rules"]),
            level=data["level"],
            why=f"{word}: {data['title']}.",
            kind="regression",
            setup=self.setup,
            before=self.before,
            facts=self.facts,
            steps=steps,
            script=script,
            profile=None if self.profile == "spec" else self.profile,
            features=tuple(features),
            reference="; ".join(data["reference"]) or None,
            call=None if self.call is self.abi.convert_call else self.call.name,
        )
        return Retold(case=case, wrong=wrong)

    def _setup(self) -> Setup:
        given = self.data.get("setup", {})
        scratch = None
        if "scratch" in given:
            gpa, pages = given["scratch"]
            scratch = (gpa >> 12, (gpa >> 12) + pages)
        elif self.data["role"] == "guest":
            scratch = GUEST_SCRATCH
        return Setup(
            config=given.get("config", {}),
            memory=pages_of(given["memory"], ("setup", "memory")) if "memory" in given else None,
            enabled=given.get("enabled", True),
            max_ranges=given.get("max-ranges"),
            scratch=scratch,
        )

    # -- values -------------------------------------------------------------------------------------------------

    def number(self, given: Any, pointer: Pointer) -> int:
        """Return what a story writes for a number: itself, a name of the ABI, an expression over such names."""
        if isinstance(given, int):
            return given
        if not isinstance(given, str):
            raise StoryError(f"{show(given)} is no number", pointer, hint="write a number, a name, or an expression")
        try:
            found = value(parse(given), self.names)
        except (ExprError, Undefined) as error:
            raise StoryError(f"{show(given)} has no value: {error}", pointer) from error
        if not isinstance(found, int):
            raise StoryError(f"{show(given)} is no number, it has parts", pointer, hint="write NAME.PART")
        return int(found)

    def deep(self, given: Any, pointer: Pointer) -> Any:
        """Return the same for lists and mappings."""
        if isinstance(given, dict):
            return {name: self.deep(item, (*pointer, name)) for name, item in given.items()}
        if isinstance(given, list):
            return tuple(self.deep(item, (*pointer, number)) for number, item in enumerate(given))
        return self.number(given, pointer)

    def inject(self, given: Mapping[str, Any] | None, pointer: Pointer) -> Inject | None:
        """Return the fault of a call. Raises `StoryError` where its arguments are not those of the fault."""
        if given is None:
            return None
        wanted = {"vmm-error": ("errno",), "stop-after": ("pages",), "event-pending": ("after",)}
        keys = wanted.get(given["fault"], ("gpa", "hex"))
        if set(given) != {"fault", *keys}:
            raise StoryError(f"{given['fault']} takes {' and '.join(keys)}", pointer)
        return Inject(
            fault=given["fault"],
            arguments={
                key: bytes.fromhex(given[key]) if key == "hex" else self.number(given[key], (*pointer, key))
                for key in keys
            },
        )

    # -- hosts --------------------------------------------------------------------------------------------------

    def _steps(self) -> tuple[tuple[HostStep, ...], WrongHost]:
        steps: list[HostStep] = []
        wrong: list[Expected | None] = []
        crashes: list[int] = []
        before, facts = self.before, self.facts
        for number, given in enumerate(self.data["steps"]):
            pointer: Pointer = ("steps", number)
            step = HostCall(self, given, pointer, before, facts)
            steps.append(step.step)
            wrong.append(step.wrong)
            if step.crash:
                crashes.append(number)
            states = {expected.state for expected in step.step.expected}
            if len(states) > 1 and number + 1 < len(self.data["steps"]):
                raise StoryError("right answers that leave different pages end a story", (*pointer, "right"))
            before, facts = step.step.expected[0].state, step.step.expected[0].facts
        return tuple(steps), WrongHost(answers=tuple(wrong), crashes=tuple(crashes))

    def codec(self) -> MessageCodec:
        """Return the codec of the request."""
        return self.spec.message(self.call.request, transport=self.transport, config=self.setup.config)

    def policies(self, given: Mapping[str, str], pointer: Pointer) -> dict[str, str]:
        """Return the policy values of an answer: the open ones at their defaults, and what the story says."""
        if self.profile != "spec":
            return dict(given)
        for name, word in given.items():
            policy = self.abi.policies.get(name)
            if policy is None or word not in policy.values:
                known = self.abi.policies if policy is None else policy.values
                hint = near(name if policy is None else word, known)
                raise StoryError(
                    f"there is no policy {name}: {word}", (*pointer, name), code="story-unknown", hint=hint
                )
        return {**{p.name: p.default for p in self.abi.policies.values() if p.open}, **given}

    # -- guests -------------------------------------------------------------------------------------------------

    def _script(self) -> GuestScript:
        given, right = self.data["script"], self.data["right"]
        if self.call.guest is None or self.call.response is None:
            raise StoryError(f"{self.spec.id} has no guest role", ("role",), code="story-role")
        return GuestScript(
            gpa=given["gpa"],
            pages=given["pages"],
            to=given["to"],
            turns=tuple(
                self._turn(turn, ("script", "turns", number)) for number, turn in enumerate(given.get("turns", ()))
            ),
            repeat_last=given.get("repeat-last", False),
            done=None if right["done"] == "either" else right["done"],
            calls=cast("tuple[int, int]", tuple(right["calls"])) if "calls" in right else None,
            must_not_believe=pages_of(right.get("not-believed", ()), ("right", "not-believed")),
            must_believe=pages_of(right.get("believed", ()), ("right", "believed")),
            local_steps=local_of(right.get("local", ()), ("right", "local")),
        )

    def _turn(self, given: Mapping[str, Any], pointer: Pointer) -> GuestTurn:
        response = self.abi.messages[self.call.response or ""]
        blocks = self.abi.transports[self.transport].placements[self.call.request].blocks
        say = given.get("say", {})
        for name, text in say.items():
            if name not in response.fields:
                hint = near(name, response.fields)
                raise StoryError(f"no response field {name}", (*pointer, "say", name), code="story-unknown", hint=hint)
            if isinstance(text, str):
                try:
                    parse(text)
                except ExprError as error:
                    raise StoryError(f"{show(text)}: {error.message}", (*pointer, "say", name)) from error
        for number, (block, _, _) in enumerate(given.get("mem-at", ())):
            if block not in blocks:
                raise StoryError(
                    f"there is no block {show(block)} on {self.transport}",
                    (*pointer, "mem-at", number),
                    code="story-unknown",
                    hint=near(block, blocks),
                )
        if given["kind"] == "say" and "inject" in given:
            raise StoryError("a fault needs a host that serves", (*pointer, "inject"))
        return GuestTurn(
            kind=given["kind"],
            inject=self.inject(given.get("inject"), (*pointer, "inject")),
            say=dict(say),
            regs=given.get("regs", {}),
            mem_at=tuple((block, offset, bytes.fromhex(text)) for block, offset, text in given.get("mem-at", ())),
            above=given.get("above"),
        )

    def _wrong_guest(self) -> WrongGuest:
        given = self.data["wrong"]
        return WrongGuest(
            done=given.get("done"),
            calls=given.get("calls"),
            endless=given.get("endless", False),
            believed=pages_of(given["believed"], ("wrong", "believed")) if "believed" in given else None,
            local_steps=local_of(given["local"], ("wrong", "local")) if "local" in given else None,
        )
