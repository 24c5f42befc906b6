"""A story of the regression collection as cases: fields to registers and bytes, on every transport that it names.

The values of right and wrong answers are those of the story; only their place on the wire comes from the
specification.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

from hvabi.abi.calls import Answer
from hvabi.abi.errors import CodecError, ExprError, HvAbiError, show
from hvabi.abi.expr import parse
from hvabi.abi.registry import Spec, bundled, load
from hvabi.abi.schema import near
from hvabi.abi.scope import Fields, Scope
from hvabi.abi.values import plain
from hvabi.abi.wire import merge
from hvabi.conformance.case import Case, Expected, GuestScript, GuestTurn, HostStep, Inject, Setup
from hvabi.conformance.oracle.answers import Oracle, Request
from hvabi.conformance.oracle.placed import place_answer
from hvabi.conformance.oracle.walk import Names, Undefined, value
from hvabi.conformance.story import LocalStep, Retold, Story, WrongGuest, WrongHost

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hvabi.abi.codec import MessageCodec
    from hvabi.abi.model import Pointer
    from hvabi.conformance.case import Memory, Pages, Ranges

GUEST_SCRATCH = (0x10, 0x14)
"""Pages of a guest's own area where a story names none."""


class StoryError(HvAbiError):
    """A story does not fit its ABI. `pointer` leads to the place inside the story."""

    code = "story-value"

    def __init__(self, message: str, pointer: Pointer, *, code: str = "story-value", hint: str | None = None) -> None:
        super().__init__(message, code=code, hint=hint)
        self.pointer = pointer


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
            cases.append(_Teller(spec, transport, data).tell())
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
    for key, given, known in (
        ("rules", data["rules"], rules),
        ("revisions", data.get("revisions", ()), spec.revisions),
        ("transports", data.get("transports", ()), spec.transports),
    ):
        for index, name in enumerate(given):
            if name not in known:
                raise StoryError(
                    f"{abi} has no {key[:-1]} {show(name)}", (key, index), code="story-unknown", hint=near(name, known)
                )
    for key, known in (("profile", ("spec", *spec.profiles)), ("call", tuple(spec.calls))):
        if key in data and data[key] not in known:
            raise StoryError(
                f"{abi} has no {key} {show(data[key])}", (key,), code="story-unknown", hint=near(data[key], known)
            )
    for index, name in enumerate(data.get("setup", {}).get("config", {})):
        if name not in spec.config:
            raise StoryError(f"{abi} has no config key {show(name)}", ("setup", "config", name), code="story-unknown")
        del index
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


class _Teller:
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
        self.before = _ranges(data.get("before", ()), ("before",))
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
            steps=steps,
            script=script,
            profile=None if self.profile == "spec" else self.profile,
            features=tuple(features),
            reference="; ".join(data["reference"]) or None,
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
            memory=_pages(given["memory"], ("setup", "memory")) if "memory" in given else None,
            enabled=given.get("enabled", True),
            max_ranges=given.get("max-ranges"),
            scratch=scratch,
        )

    # -- values -------------------------------------------------------------------------------------------------

    def _number(self, given: Any, pointer: Pointer) -> int:
        if isinstance(given, int):
            return given
        try:
            return int(value(parse(given), self.names))
        except (ExprError, Undefined) as error:
            raise StoryError(f"{show(given)} has no value: {error}", pointer) from error

    def _deep(self, given: Any, pointer: Pointer) -> Any:
        if isinstance(given, dict):
            return {name: self._deep(item, (*pointer, name)) for name, item in given.items()}
        if isinstance(given, list):
            return tuple(self._deep(item, (*pointer, number)) for number, item in enumerate(given))
        return self._number(given, pointer)

    def _inject(self, given: Mapping[str, Any] | None, pointer: Pointer) -> Inject | None:
        if given is None:
            return None
        wanted = {"vmm-error": ("errno",), "stop-after": ("pages",), "event-pending": ("after",)}
        keys = wanted.get(given["fault"], ("gpa", "hex"))
        if set(given) != {"fault", *keys}:
            raise StoryError(f"{given['fault']} takes {' and '.join(keys)}", pointer)
        return Inject(
            fault=given["fault"],
            arguments={
                key: bytes.fromhex(given[key]) if key == "hex" else self._number(given[key], (*pointer, key))
                for key in keys
            },
        )

    # -- hosts --------------------------------------------------------------------------------------------------

    def _steps(self) -> tuple[tuple[HostStep, ...], WrongHost]:
        steps: list[HostStep] = []
        wrong: list[Expected | None] = []
        crashes: list[int] = []
        before = self.before
        for number, given in enumerate(self.data["steps"]):
            pointer: Pointer = ("steps", number)
            step = _HostStep(self, given, pointer, before)
            steps.append(step.step)
            wrong.append(step.wrong)
            if step.crash:
                crashes.append(number)
            states = {expected.state for expected in step.step.expected}
            if len(states) > 1 and number + 1 < len(self.data["steps"]):
                raise StoryError("right answers that leave different pages end a story", (*pointer, "right"))
            before = step.step.expected[0].state
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
                raise StoryError(f"there is no policy {name}: {word}", (*pointer, name), code="story-unknown", hint=hint)
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
            must_not_believe=_pages(right.get("not-believed", ()), ("right", "not-believed")),
            must_believe=_pages(right.get("believed", ()), ("right", "believed")),
            local_steps=_local(right.get("local", ()), ("right", "local")),
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
            inject=self._inject(given.get("inject"), (*pointer, "inject")),
            say=dict(say),
            regs=given.get("regs", {}),
            mem_at=tuple((block, offset, bytes.fromhex(text)) for block, offset, text in given.get("mem-at", ())),
        )

    def _wrong_guest(self) -> WrongGuest:
        given = self.data["wrong"]
        return WrongGuest(
            done=given.get("done"),
            calls=given.get("calls"),
            endless=given.get("endless", False),
            believed=_pages(given["believed"], ("wrong", "believed")) if "believed" in given else None,
            local_steps=_local(given["local"], ("wrong", "local")) if "local" in given else None,
        )


class _HostStep:
    """One call of a host story: the step with its right answers, and the wrong one."""

    def __init__(self, teller: _Teller, given: Mapping[str, Any], pointer: Pointer, before: Ranges) -> None:
        self.teller = teller
        self.given = given
        self.pointer = pointer
        self.before = before
        try:
            codec = teller.codec()
            wire = codec.encode(teller._deep(given["request"], (*pointer, "request")))
        except CodecError as error:
            path = error.path.partition("[")[0].partition(".")[0]
            raise StoryError(str(error), (*pointer, "request", path) if path else (*pointer, "request")) from error
        self.regs = {**wire.regs, **given.get("regs", {})}
        self.mem = merge([*wire.mem, *_mem(given.get("mem", ()))])
        self.fields = read_back(codec, self.regs, self.mem)
        self.inject = teller._inject(given.get("inject"), (*pointer, "inject"))
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
            self.wrong = self._expected({**rights[0], **wrong}, (*pointer, "wrong"))

    def _expected(self, given: Mapping[str, Any], pointer: Pointer) -> Expected:
        teller, end = self.teller, given.get("end", "return")
        if end == "crash":
            raise StoryError("a host that breaks is never right", (*pointer, "end"))
        oracle = Oracle(
            teller.spec.id, teller.abi.revision, teller.transport, teller.setup, profile=teller.profile
        )
        request = Request(
            oracle,
            teller.abi,
            teller.call.name,
            self.fields,
            self.given.get("cpl", 0),
            self.inject,
            self.before,
            {},
            self.regs,
        )
        known = teller.abi.messages[teller.call.response].fields if teller.call.response else {}
        response = given.get("response", {}) if end != "stop" else {}
        for name in response:
            if name not in known:
                place = (*pointer, "response", name)
                raise StoryError(f"no response field {name}", place, code="story-unknown", hint=near(name, known))
        request.marks = [
            (int(index), {name: teller._number(item, (*pointer, "elements", index, name)) for name, item in part.items()})
            for index, part in given.get("elements", {}).items()
        ]
        answer = Answer(
            end=end,
            fields={
                name: parse(str(teller._number(item, (*pointer, "response", name)))) for name, item in response.items()
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
            mem=merge([*placed.mem, *_mem(given.get("mem", ()))]),
            may_change=placed.may_change,
            nonzero=placed.nonzero,
            may_change_mem=placed.may_change_mem,
            fault=given.get("fault"),
            state=_ranges(given["after"], (*pointer, "after")),
            loose=_pages(given.get("loose", ()), (*pointer, "loose")),
            policies=teller.policies(given.get("policies", {}), (*pointer, "policies")),
            rule=teller.data["rules"][0],
            status="regression",
            why=f"{teller.data['title']}.",
        )


class _Zeroes:
    """A source over what was placed: everything else is zero."""

    def __init__(self, regs: Mapping[str, int], mem: Memory) -> None:
        self._regs = regs
        self._mem = mem

    def register(self, name: str) -> int | None:
        return self._regs.get(name, 0)

    def read(self, block: str, address: int, size: int) -> bytes | None:
        out = bytearray(size)
        for start, data in self._mem:
            first, last = max(start, address), min(start + len(data), address + size)
            if first < last:
                out[first - address : last - address] = data[first - start : last - start]
        return bytes(out)


def read_back(codec: MessageCodec, regs: Mapping[str, int], mem: Memory) -> dict[str, Any]:
    """Return the fields of a request as a host finds them on the wire: integers, mappings, tuples of those."""
    source = _Zeroes(regs, mem)
    fields = Fields(codec.message.fields, lambda name: codec.placer.fetch(name, scope, source))
    scope = Scope(codec.static, request=fields)
    return {name: _open(fields[name]) for name in codec.message.fields}


def _open(item: Any) -> Any:
    if hasattr(item, "_fields"):
        return {name: _open(part) for name, part in zip(item._fields, item, strict=True)}
    if isinstance(item, tuple):
        return tuple(_open(part) for part in item)
    return int(item)


def _mem(rows: Iterable[Any]) -> Memory:
    return tuple((row[0], bytes.fromhex(row[1]) * (row[2] if len(row) > 2 else 1)) for row in rows)


def _pages(rows: Iterable[Any], pointer: Pointer) -> Pages:
    out = []
    for index, (gpa, pages) in enumerate(rows):
        _whole(gpa, (*pointer, index))
        out.append((gpa >> 12, (gpa >> 12) + pages))
    _sorted(out, pointer)
    return tuple(out)


def _ranges(rows: Iterable[Any], pointer: Pointer) -> Ranges:
    out = []
    for index, (gpa, pages, state) in enumerate(rows):
        _whole(gpa, (*pointer, index))
        out.append((gpa >> 12, (gpa >> 12) + pages, state))
    _sorted([row[:2] for row in out], pointer)
    return tuple(out)


def _whole(gpa: int, pointer: Pointer) -> None:
    if gpa % 4096:
        raise StoryError(f"{gpa:#x} is not a multiple of 4 KiB", pointer)


def _sorted(rows: list[tuple[int, int]], pointer: Pointer) -> None:
    for one, other in pairwise(rows):
        if other[0] < one[1]:
            raise StoryError("the ranges are not sorted, or they overlap", pointer, code="story-order")


def _local(rows: Iterable[Any], pointer: Pointer) -> tuple[LocalStep, ...]:
    return tuple(
        (row["step"], row["when"], _pages(row["pages"], (*pointer, index, "pages"))) for index, row in enumerate(rows)
    )


__all__ = ["StoryError", "read_back", "retell"]
