"""What a guest asks: its registers and memory read as a request of the ABI, and the rules that bind the guest."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from hvabi.abi.errors import HvAbiError
from hvabi.abi.expr import parse
from hvabi.abi.model import RegisterPlace
from hvabi.abi.registry import load
from hvabi.abi.scope import Fields, Scope
from hvabi.abi.specification import SPEC_PROFILE
from hvabi.abi.values import ident
from hvabi.abi.wire import Wire, WireSink
from hvabi.conformance.oracle.answers import Oracle, Request
from hvabi.conformance.oracle.checks import holds
from hvabi.conformance.oracle.held import number_of
from hvabi.conformance.oracle.walk import STATES, Names, Undefined, value

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hvabi.abi.calls import Call, Convert, Rule
    from hvabi.abi.codec import MessageCodec
    from hvabi.conformance.case import Expected, GuestTurn, Held, Inject, Memory, Pages, Ranges, Setup
    from hvabi.conformance.oracle.asked import Shared

_PAGE = 4096


_parsed = lru_cache(maxsize=1024)(parse)


class Unreadable(Exception):  # a finding about the guest, not an error of ours
    """What the guest sent is no request of the ABI; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request of a guest.

    Attributes:
        call: name of the call in the specification.
        value: the decoded message.
        fields: the same as the oracle takes it.
        names: what names mean over these fields.
        pages: what is to be converted: ``(first page, end page, state or None for a hint)``.
        broken: rules that bind the guest and that the request does not keep.
        held: what the host keeps under handles when the request comes.
        shared: what the oracle has worked out of the request, for its answer.

    """

    call: Call
    value: Any
    fields: Mapping[str, Any]
    names: Names
    pages: tuple[tuple[int, int, str | None], ...]
    broken: tuple[Rule, ...]
    held: Held | None = None
    shared: Shared | None = None


class Reader:
    """Reads requests of one ABI on one transport.

    Args:
        abi, revision, transport, setup, profile: what the guest was configured with.

    """

    def __init__(self, abi: str, revision: str, transport: str, setup: Setup, *, profile: str) -> None:
        self.spec = load(abi, revision=revision, profile=profile)
        self.abi = self.spec.abi
        self.transport = self.spec.transport(transport)
        self.oracle = Oracle(abi, revision, transport, setup, profile=profile)
        self.setup = setup
        self._codecs: dict[str, MessageCodec] = {}
        self._read: tuple[Wire, Any] | None = None

    def codec(self, message: str) -> MessageCodec:
        """Return the codec of a message."""
        if message not in self._codecs:
            self._codecs[message] = self.spec.message(message, transport=self.transport.name, config=self.setup.config)
        return self._codecs[message]

    def read(self, regs: Mapping[str, int], mem: Memory, held: Held | None = None) -> Asked:
        """Return the request to a host that keeps `held`. Raises `Unreadable` where it is none of the ABI's calls."""
        calls = [call for call in self.abi.calls.values() if call.request in self.transport.placements]
        first = self.abi.convert_call
        calls.sort(key=lambda call: call is not first)
        reasons: list[str] = []
        for call in calls:
            try:
                decoded = self.codec(call.request).decode(Wire(regs=regs, mem=mem))
                request = self._request(call, _open(decoded), regs, held)
                if not request.is_selected(set()):
                    reasons.append(f"fixed registers are not those of `{call.name}`")
                    continue
                return Asked(
                    call=call,
                    value=decoded,
                    fields=request.names.fields,
                    names=request.names,
                    pages=tuple(_pages(call.convert, request)),
                    broken=tuple(self._broken(call, request)),
                    held=held,
                    shared=request.shared,
                )
            except (HvAbiError, Undefined) as error:
                reasons.append(str(error))
        raise Unreadable(reasons[0] if reasons else "no call of the ABI goes over this transport")

    def _request(self, call: Call, fields: Mapping[str, Any], regs: Mapping[str, int], held: Held | None) -> Request:
        return Request(self.oracle, self.abi, call.name, fields, 0, None, (), {}, regs, held)

    def _again(self, asked: Asked) -> Request:
        return self._request(asked.call, asked.fields, {}, asked.held)

    def _broken(self, call: Call, request: Request) -> Iterator[Rule]:
        """Yield the rules about requests that bind the guest and are broken, each once."""
        names = request.names
        for rule in call.rules:
            if rule.binds != "guest" or rule.on != "request" or not rule.guard.serves(self.transport.name):
                continue
            if rule.level == "observed" and self.abi.profile == SPEC_PROFILE:
                continue
            scopes = [names] if rule.scope == "call" else names.inside(request.elements())
            for scope in scopes:
                request.names = scope
                try:
                    kept = holds(rule, request)
                except Undefined:
                    kept = True
                finally:
                    request.names = names
                if not kept:
                    yield rule
                    break

    # -- the host's side ----------------------------------------------------------------------------------------

    def serve(
        self,
        asked: Asked,
        regs: Mapping[str, int],
        *,
        inject: Inject | None,
        before: Ranges,
        facts: Mapping[str, Pages],
    ) -> Expected:
        """Return the oracle's answer to a request under the default policies. Raises `Undefined`."""
        shared = None if asked.shared is None else asked.shared.of_request()
        request = Request(
            self.oracle, self.abi, asked.call.name, asked.fields, 0, inject, before, facts, regs, asked.held, shared
        )
        return next(request.answers({}))

    def bound(self, asked: Asked) -> int | None:
        """Return how many requests a guest may make for what this one asks, None where the ABI has no progress."""
        progress = asked.call.progress
        if progress is None:
            return None
        pages = sum(end - start for start, end, _ in asked.pages)
        start = min((start for start, _, _ in asked.pages), default=0)
        try:
            return int(value(progress.bound, asked.names.plus(start=start * _PAGE, pages=pages)))
        except Undefined:
            return None

    def say(
        self, asked: Asked, turn: GuestTurn, *, to: str, answer: Wire | None = None
    ) -> tuple[dict[str, int], list[tuple[int, bytes]]]:
        """Return the registers and bytes that a script says to a request.

        Args:
            asked: the request.
            turn: the script's turn.
            to: the state that the guest was asked for.
            answer: the request with the right answer over it, for what is said over that; None where there is none.

        """
        regs: dict[str, int] = {}
        mem: list[tuple[int, bytes]] = []
        request_codec = self.codec(asked.call.request)
        known = dict(zip(asked.value._fields, asked.value, strict=True))
        fields = Fields(known, known.__getitem__)
        scope = Scope(request_codec.static, request=fields, local={"request": fields})
        if turn.say and asked.call.response is not None:
            codec = self.codec(asked.call.response)
            sink = WireSink()
            # A field that fills a part of its register leaves the rest of the right answer as it is.
            sink.regs.update(answer.regs if answer is not None else {})
            known_regs = dict(sink.regs)
            for name, item in _said(self._numbers(asked, turn.say, to, answer), codec, scope).items():
                codec.placer.store(name, item, scope, sink)
            regs.update((name, item) for name, item in sink.regs.items() if known_regs.get(name) != item)
            mem.extend(sink.mem)
        regs.update(turn.regs)
        blocks = {**request_codec.placer.blocks}
        if asked.call.response is not None:
            blocks.update(self.codec(asked.call.response).placer.blocks)
        for block, offset, data in turn.mem_at:
            mem.append((request_codec.placer.address(blocks[block], scope) + offset, data))
        return regs, mem

    def _numbers(self, asked: Asked, say: Mapping[str, int | str], to: str, answer: Wire | None) -> dict[str, int]:
        """Return what is said as integers. Raises `HvAbiError` for an expression that has no value."""
        local: dict[str, Any] = dict.fromkeys(("done_pages", "done_bytes", "part_pages", "index", "errno"), 0)
        local["to"] = STATES[ident(to)]
        local["request"] = asked.fields
        if asked.call.handle is not None:
            local["handle"] = number_of(self._again(asked), asked.call.handle)
        if answer is not None:
            local["response"] = self._response(asked, answer)
        names = asked.names.plus(**local)
        numbers: dict[str, int] = {}
        for path, item in say.items():
            try:
                numbers[path] = item if isinstance(item, int) else int(value(_parsed(item), names))
            except Undefined as error:
                raise HvAbiError(f"the script's {path}: {error}", code="bad-case") from error
        return numbers

    def is_so(self, asked: Asked, text: str, answer: Wire) -> bool:
        """Whether an EXPR over a request and an answer holds; `answer` is the request with it over it."""
        names = _with_response(asked.names, self._response(asked, answer))
        try:
            return bool(value(_parsed(text), names))
        except Undefined as error:
            raise HvAbiError(f"the script's {text}: {error}", code="bad-case") from error

    def _response(self, asked: Asked, wire: Wire) -> Any:
        if self._read is None or self._read[0] is not wire:
            # Several questions are put to one answer.
            self._read = wire, _open(self.codec(asked.call.response or "").decode(wire, request=asked.value))
        return self._read[1]

    def said_done(self, asked: Asked, wire: Wire) -> list[tuple[int, int]]:
        """Return the pages of a request that an answer says are done.

        `wire` is the request with the answer over it. An answer that cannot be read says nothing.
        """
        call, progress = asked.call, asked.call.progress
        pages = [(start, end) for start, end, state in asked.pages if state is not None]
        try:
            names = _with_response(asked.names, self._response(asked, wire))
            if progress is None:
                return pages if self._is_done(call, names) else []
            if value(progress.done_when, names):
                return pages
            if not value(progress.again_when, names) and not (
                progress.counts_when is not None and value(progress.counts_when, names)
            ):
                return []
            completed = value(progress.completed, names)
            if progress.unit == "element":
                return _elements_done(asked, self._again(asked), completed, names)
            unit = {"page": _PAGE, "byte": 1}.get(progress.unit, _PAGE)
            if progress.unit == "granule" and progress.granule is not None:
                unit = value(progress.granule, names)
            return [(start, min(end, start + max(completed, 0) * unit // _PAGE)) for start, end in pages]
        except (HvAbiError, Undefined):
            return []

    def told(self, asked: Asked, wire: Wire) -> int | None:
        """Return how many pages an answer to a question is about, None where it does not say; `wire` as above."""
        query = asked.call.query
        if query is None or query.told is None:
            return None
        try:
            return int(value(query.told, _with_response(asked.names, self._response(asked, wire))))
        except (HvAbiError, Undefined):
            return None

    def executes_again(self, asked: Asked, wire: Wire) -> bool:
        """Whether an answer tells the guest to execute the same call again; `wire` is the request with it over it."""
        progress = asked.call.progress
        if progress is None or progress.resume != "reexecute":
            return False
        try:
            names = _with_response(asked.names, self._response(asked, wire))
            return bool(value(progress.again_when, names) and not value(progress.done_when, names))
        except (HvAbiError, Undefined):
            return False

    def _is_done(self, call: Call, names: Names) -> bool:
        """Whether a response has every field that the outcome `done` sets."""
        response = names.local["response"]
        local = names.plus(done_pages=0, done_bytes=0, part_pages=0, index=0, errno=0)
        for answer in call.outcomes.get("done", ()):
            if answer.cannot is not None or not answer.guard.serves(self.transport.name):
                continue
            for path, expr in answer.fields.items():
                have = response
                for part in path.split("."):
                    have = have[part]
                if have != value(expr, local):
                    return False
            return True
        return False


def _with_response(names: Names, response: Mapping[str, Any]) -> Names:
    """Return the names of both messages: a response's field has its bare name where the request has none of it."""
    fields = {**response, **names.fields}
    local = {**names.local, "response": response, "request": names.fields}
    return Names(names.abi, names.transport, names.config, names.define, fields, local)


def _elements_done(asked: Asked, request: Request, completed: int, names: Names) -> list[tuple[int, int]]:
    """Return the pages of the elements before the first that is not done, and those done within it."""
    convert, progress = asked.call.convert, asked.call.progress
    assert convert is not None  # only conversions have pages
    assert progress is not None  # the caller has looked
    first = value(convert.first, names) if convert.first is not None else 0
    whole = max(completed - first, 0)
    done = [(start, end) for start, end, _ in asked.pages[:whole]]
    if progress.within is not None and whole < len(asked.pages):
        start, end, _ = asked.pages[whole]
        at = names.plus(it=request.elements()[completed], index=completed)
        before = value(convert.start, at) // _PAGE
        part = value(progress.within, names.plus(index=completed))
        done.append((start, min(end, max(start, before + part))))
    return done


def _said(say: Mapping[str, int], codec: MessageCodec, scope: Scope) -> dict[str, Any]:
    """Gather ``word.field`` names, and add the constants that share a register with a field that is said."""
    values: dict[str, Any] = {}
    for path, number in say.items():
        name, _, inner = path.partition(".")
        if inner:
            values.setdefault(name, {})[inner] = number
        else:
            values[name] = number
    placer = codec.placer
    touched = {place.register for name in values if isinstance(place := placer.place_of(name), RegisterPlace)}
    for name, field in codec.message.fields.items():
        place = placer.place_of(name)
        fixed = field.const is not None or field.default is not None
        if name not in values and fixed and isinstance(place, RegisterPlace) and place.register in touched:
            values[name] = placer.default(field, scope)
    return values


def _open(item: Any) -> Any:
    """Return a decoded value as mappings, tuples and integers."""
    if not isinstance(item, tuple):
        return int(item)
    # Most are plain integers already: they are not asked about.
    parts = [part if type(part) is int else _open(part) for part in item]
    return dict(zip(item._fields, parts, strict=True)) if hasattr(item, "_fields") else tuple(parts)


def _pages(convert: Convert | None, request: Request) -> Iterator[tuple[int, int, str | None]]:
    """Yield the pages that a request names, with the state that it asks for."""
    if convert is None:
        return
    for names, start, pages, to in request.named():
        if pages or convert.bits is not None:
            yield start, start + pages, to if convert.to is not None else _stood_for(convert, names)


def _stood_for(convert: Convert, names: Names) -> str | None:
    """Return the state for which the facts stand that a request sets, None where there is none."""
    facts = {name: bool(value(expr, names)) for name, expr in convert.facts.items()}
    for state, wanted in convert.stands_for.items():
        if wanted.items() <= facts.items():
            return state
    return None


__all__ = ["Asked", "Reader", "Unreadable"]
