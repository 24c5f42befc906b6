"""What a guest asks: its registers and memory read as a request of the ABI, and the rules that bind the guest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hvabi.abi.errors import HvAbiError
from hvabi.abi.model import RegisterPlace
from hvabi.abi.placing import Placer
from hvabi.abi.registry import load
from hvabi.abi.scope import Fields, Scope
from hvabi.abi.specification import SPEC_PROFILE
from hvabi.abi.wire import Wire, WireSink
from hvabi.conformance.oracle.answers import Oracle, Request
from hvabi.conformance.oracle.checks import holds
from hvabi.conformance.oracle.walk import Undefined, value

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hvabi.abi.calls import Call, Rule
    from hvabi.abi.codec import MessageCodec
    from hvabi.conformance.case import GuestTurn, Memory, Setup

_PAGE = 4096
_MOST_ELEMENTS = 1 << 16


class Unreadable(Exception):  # noqa: N818  # a finding about the guest, not an error of ours
    """What the guest sent is no request of the ABI; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request of a guest.

    Attributes:
        call: name of the call in the specification.
        value: the decoded message.
        fields: the same as the oracle takes it.
        pages: what is to be converted: ``(first page, end page, state or None for a hint)``.
        broken: rules that bind the guest and that the request does not keep.

    """

    call: Call
    value: Any
    fields: Mapping[str, Any]
    pages: tuple[tuple[int, int, str | None], ...]
    broken: tuple[Rule, ...]


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

    def codec(self, message: str) -> MessageCodec:
        """Return the codec of a message."""
        if message not in self._codecs:
            self._codecs[message] = self.spec.message(
                message, transport=self.transport.name, config=self.setup.config
            )
        return self._codecs[message]

    def read(self, regs: Mapping[str, int], mem: Memory) -> Asked:
        """Return the request. Raises `Unreadable` where it is none of the ABI's calls."""
        calls = [call for call in self.abi.calls.values() if call.request in self.transport.placements]
        first = self.abi.convert_call
        calls.sort(key=lambda call: call is not first)
        reasons: list[str] = []
        for call in calls:
            try:
                decoded = self.codec(call.request).decode(Wire(regs=regs, mem=mem))
                request = self._request(call, decoded, regs)
                if not request.is_selected(set()):
                    reasons.append(f"fixed registers are not those of `{call.name}`")
                    continue
                return Asked(
                    call=call,
                    value=decoded,
                    fields=request.names.fields,
                    pages=tuple(_pages(call, request)),
                    broken=tuple(self._broken(call, request)),
                )
            except (HvAbiError, Undefined) as error:
                reasons.append(str(error))
        raise Unreadable(reasons[0] if reasons else "no call of the ABI goes over this transport")

    def _request(self, call: Call, decoded: Any, regs: Mapping[str, int]) -> Request:
        fields = {name: _open(item) for name, item in zip(decoded._fields, decoded, strict=True)}
        return Request(self.oracle, self.abi, call.name, fields, 0, None, (), {}, regs)

    def _broken(self, call: Call, request: Request) -> Iterator[Rule]:
        """Yield the rules about requests that bind the guest and are broken, each once."""
        names = request.names
        for rule in call.rules:
            if rule.binds != "guest" or rule.on != "request" or not rule.guard.serves(self.transport.name):
                continue
            if rule.level == "observed" and self.abi.profile == SPEC_PROFILE:
                continue
            scopes = [names]
            if rule.scope != "call":
                items = names.fields[request.each] if request.each else ()
                scopes = [names.plus(it=item, index=index) for index, item in enumerate(items)]
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

    def bound(self, asked: Asked) -> int | None:
        """Return how many requests a guest may make for what this one asks, None where the ABI has no progress."""
        progress = asked.call.progress
        if progress is None:
            return None
        request = self._request(asked.call, asked.value, {})
        pages = sum(end - start for start, end, _ in asked.pages)
        start = min((start for start, _, _ in asked.pages), default=0)
        try:
            return int(value(progress.bound, request.names.plus(start=start * _PAGE, pages=pages)))
        except Undefined:
            return None

    def say(self, asked: Asked, turn: GuestTurn) -> tuple[dict[str, int], list[tuple[int, bytes]]]:
        """Return the registers and bytes of a scripted answer to a request."""
        regs: dict[str, int] = {}
        mem: list[tuple[int, bytes]] = []
        request_codec = self.codec(asked.call.request)
        known = dict(zip(asked.value._fields, asked.value, strict=True))
        fields = Fields(known, known.__getitem__)
        scope = Scope(request_codec.static, request=fields, local={"request": fields})
        if turn.say and asked.call.response is not None:
            codec = self.codec(asked.call.response)
            sink = WireSink()
            for name, item in _said(turn.say, codec, scope).items():
                codec.placer.store(name, item, scope, sink)
            regs.update(sink.regs)
            mem.extend(sink.mem)
        regs.update(turn.regs)
        blocks = {**request_codec.placer.blocks}
        if asked.call.response is not None:
            blocks.update(self.codec(asked.call.response).placer.blocks)
        for block, offset, data in turn.mem_at:
            mem.append((request_codec.placer.address(blocks[block], scope) + offset, data))
        return regs, mem


def _said(say: Mapping[str, int], codec: MessageCodec, scope: Scope) -> dict[str, Any]:
    """Gather ``word.field`` names, and add the constants that share a register with a field that is said."""
    values: dict[str, Any] = {}
    for path, number in say.items():
        name, _, inner = path.partition(".")
        if inner:
            values.setdefault(name, {})[inner] = number
        else:
            values[name] = number
    placer: Placer = codec.placer
    touched = {place.register for name in values if isinstance(place := placer.place_of(name), RegisterPlace)}
    for name, field in codec.message.fields.items():
        place = placer.place_of(name)
        fixed = field.const is not None or field.default is not None
        if name not in values and fixed and isinstance(place, RegisterPlace) and place.register in touched:
            values[name] = placer.default(field, scope)
    return values


def _open(item: Any) -> Any:
    """Return a decoded value as mappings, tuples and integers."""
    if hasattr(item, "_fields"):
        return {name: _open(part) for name, part in zip(item._fields, item, strict=True)}
    if isinstance(item, tuple):
        return tuple(_open(part) for part in item)
    return int(item)


def _pages(call: Call, request: Request) -> Iterator[tuple[int, int, str | None]]:
    """Yield the pages that a request names, with the state that it asks for."""
    convert = call.convert
    if convert is None:
        return
    names = request.names
    scopes = [names]
    if convert.each is not None:
        items = names.fields[convert.each]
        first = value(convert.first, names) if convert.first is not None else 0
        last = value(convert.count, names) if convert.count is not None else len(items)
        scopes = [names.plus(it=items[n], index=n) for n in range(first, min(last, len(items), _MOST_ELEMENTS))]
    for scope in scopes:
        start, pages = value(convert.start, scope) // _PAGE, max(value(convert.pages, scope), 0)
        if not pages:
            continue
        word: str | None = None
        if convert.to is not None:
            word = convert.to.states.get(value(convert.to.of, scope), convert.to.otherwise)
        yield start, start + pages, None if word == "none" else word


__all__ = ["Asked", "Reader", "Unreadable"]
