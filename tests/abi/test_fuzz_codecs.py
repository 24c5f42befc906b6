"""Decoders under 100 000 mutated inputs for each ABI: a value that encodes to itself, or a clear error.

Each message is decoded from a wire (registers and memory) and from its body alone, each layout from its bytes, both
with and without `strict`. What decodes is encoded again: every bit that a field covers must come back.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from hvabi.abi.errors import CodecError, ExprError, UsageError
from hvabi.abi.model import BlockPlace, PairPlace, RegisterPlace
from hvabi.abi.registry import abi_ids, bundled, load
from hvabi.abi.scope import Fields, Scope
from hvabi.abi.wire import Wire
from tests.fuzzing import opened
from tests.mutating import Mutator

if TYPE_CHECKING:
    from collections.abc import Callable

    from hvabi.abi.codec import LayoutCodec, MessageCodec
    from hvabi.abi.model import Field

INPUTS = 100_000
"""Inputs for each ABI, spread over its messages, transports, revisions and layouts."""
CHUNKS = 2
_SEEDS = 24
"""Valid messages that each decoder's inputs are mutated from."""
_CODES = {"truncated", "oversized", "const-mismatch", "reserved-bits", "value-too-large"}
_OF_BODIES = {"missing-field"}
"""What a body alone can lack: a count that lies in a register."""


class MessageTarget:
    """A decoder of a message, and valid wires for it."""

    def __init__(self, codec: MessageCodec, mutator: Mutator) -> None:
        self.codec = codec
        self.mutator = mutator
        self.rng = mutator.rng
        self.last: Any = None
        """The input that was decoded last, for a report."""
        self.request: Any = None
        self.seeds: list[Wire] = []
        if codec.request is not None:
            self.request = self._valid(codec.request, None)
        for _ in range(_SEEDS * 8):
            value = self._valid(codec, self.request)
            if value is None:
                continue
            try:
                wire = codec.encode(value, request=self.request)
                codec.decode(wire, request=self.request)
            except CodecError:
                continue
            if sum(len(data) for _, data in wire.mem) <= 1 << 13:
                self.seeds.append(wire)
            if len(self.seeds) == _SEEDS:
                break
        try:
            codec.decode(b"\0" * (1 << 12), request=self.request)
        except UsageError:
            self.has_body = False
        except CodecError:
            self.has_body = True
        else:
            self.has_body = True

    def __str__(self) -> str:
        return f"{self.codec.label} on {self.codec.transport.name}"

    def _valid(self, codec: MessageCodec, request: Any) -> Any:
        rng = self.rng
        given: dict[str, Any] = {}
        for name, item in codec.message.fields.items():
            if item.is_list:
                count = self._count(codec, item, request)
                parts = (item.items.fields if item.items else {}).items()
                given[name] = tuple(
                    {part: self._number(inner) for part, inner in parts} if item.items else rng.getrandbits(item.bits)
                    for _ in range(count)
                )
            elif item.const is None and (item.default is None or rng.random() < 0.2):
                given[name] = self._number(item)
        try:
            value = codec.complete(given, request=request)
        except CodecError:
            return None
        scope = Scope(codec.static)
        for path, expr in codec.placer.placement.parts.items():
            name, _, part = path.partition(".")
            value = value._replace(**{name: getattr(value, name)._replace(**{part: scope.int(expr)})})
        return value

    def _count(self, codec: MessageCodec, item: Field, request: Any) -> int:
        """Return how many elements a list has: as many as the request says where it does, else any small number."""
        if request is not None and item.count is not None:
            known = dict(zip(request._fields, request, strict=True))
            sent = Fields(known, known.__getitem__)
            try:
                return min(max(Scope(codec.static, local={"request": sent}).int(item.count), 0), 1 << 12)
            except ExprError:
                pass  # it is counted by a field of its own
        return self.rng.choice((0, 1, 2, 3, 8))

    def _number(self, item: Field) -> int:
        rng = self.rng
        if item.reserved is not None:
            return 0
        if item.enum is not None and rng.random() < 0.8:
            known = [value.value for value in item.enum.values.values()]
            return rng.choice(known) & (1 << item.bits) - 1
        if item.bits >= 32 and item.word is None:
            return rng.randrange(0x10, 0x400) << 12
        return rng.getrandbits(item.bits) if rng.random() < 0.5 else 0

    def one(self) -> bool:
        """Decode one mutated input; tell whether it was accepted."""
        rng = self.rng
        wire, strict = rng.choice(self.seeds), rng.random() < 0.3
        if self.has_body and rng.random() < 0.5:
            body = mutated(rng, wire.body)
            self.last = body, strict
            value = decoded(lambda: self.codec.decode(body, request=self.request, strict=strict), _CODES | _OF_BODIES)
            if value is not None:
                self._same_body(value, body)
            return value is not None
        regs, mem = dict(wire.regs), wire.mem
        for _ in range(rng.choice((0, 1, 1, 2))):
            if mem and rng.random() < 0.5:
                address, data = rng.choice(mem)
                new = mutated(rng, data) if rng.random() < 0.4 else self.mutator.bytes_of(((address, data),))[0][1]
                mem = tuple((at, new if at == address else old) for at, old in mem if new or at != address)
            elif regs:
                name = rng.choice(list(regs))
                regs[name] = self.mutator.register(regs[name]) if rng.random() < 0.97 else -1 - rng.getrandbits(70)
        self.last = regs, mem, strict
        value = decoded(lambda: self.codec.decode(Wire(regs, mem), request=self.request, strict=strict))
        if value is not None:
            self._same_wire(value, regs, mem)
        return value is not None

    def _same_body(self, value: Any, body: bytes) -> None:
        wire = self.codec.encode(value, request=self.request)
        again = bytes(wire)
        # What was cut off may be bytes that belong to no field.
        assert len(again) >= len(body), "encoded to fewer bytes"
        assert self.codec.decode(again, request=self.request) == value, "the body does not encode to itself"

    def _same_wire(self, value: Any, regs: dict[str, int], mem: tuple[tuple[int, bytes], ...]) -> None:
        wire = self.codec.encode(value, request=self.request)
        for name, mask in self._masks().items():
            # A register that was left out is 0.
            assert (wire.regs.get(name, 0) ^ regs.get(name, 0)) & mask == 0, f"{name} does not encode to itself"
        assert self.codec.decode(wire, request=self.request) == value, "the wire does not encode to itself"
        old, new = flat(mem), flat(wire.mem)
        for start, end in self._covered(value):
            for address in range(start, end):
                assert old.get(address) == new.get(address), f"byte {address:#x} does not encode to itself"

    def _masks(self) -> dict[str, int]:
        masks: dict[str, int] = {}
        for name, item in self.codec.message.fields.items():
            match self.codec.placer.place_of(name):
                case RegisterPlace(register=register, hi=hi, lo=lo):
                    width = item.bits if hi is None else hi - lo + 1
                    masks[register] = masks.get(register, 0) | ((1 << width) - 1) << lo
                case PairPlace(high=high, low=low):
                    masks[high] = masks[low] = 0xFFFFFFFF
                case _:
                    pass
        return masks

    def _covered(self, value: Any) -> list[tuple[int, int]]:
        """Return the addresses of all whole-byte fields that lie in memory."""
        known = dict(zip(value._fields, value, strict=True))
        own = Fields(known, known.__getitem__)
        placer, scope = self.codec.placer, Scope(self.codec.static, request=own)
        if self.request is not None:
            asked = dict(zip(self.request._fields, self.request, strict=True))
            sent = Fields(asked, asked.__getitem__)
            scope = Scope(self.codec.static, request=own, response=sent, local={"request": sent, "response": own})
        out = []
        for name, item in self.codec.message.fields.items():
            place = placer.place_of(name)
            if not isinstance(place, BlockPlace) or placer.blocks[place.block].registers:
                continue
            inner = item.word or item.items
            if inner is not None and inner.partial:
                continue  # bits of no field are lost
            base = placer.address(placer.blocks[place.block], scope)
            if not item.is_list:
                offset, size, lo, bits = placer.span(item, place, scope)
                if (lo, bits) == (0, size * 8):
                    out.append((base + offset, base + offset + size))
                continue
            size = item.bits // 8
            stride = scope.int(place.stride) if place.stride is not None else size
            at = base + scope.int(place.at)
            out += [(at + number * stride, at + number * stride + size) for number in range(len(known[name]))]
        return out


class LayoutTarget:
    """A decoder of a word or structure of fixed size."""

    def __init__(self, codec: LayoutCodec, mutator: Mutator) -> None:
        self.codec = codec
        self.rng = mutator.rng
        self.last: Any = None
        self.seeds = [bytes(codec.size), *(mutator.rng.randbytes(codec.size) for _ in range(_SEEDS))]

    def __str__(self) -> str:
        return self.codec.layout.name

    def one(self) -> bool:
        raw, strict = self.rng.choice(self.seeds), self.rng.random() < 0.3
        if self.rng.random() < 0.8:
            raw = mutated(self.rng, raw)
        self.last = raw, strict
        value = decoded(lambda: self.codec.decode(raw, strict=strict))
        if value is None:
            return False
        again = self.codec.encode(value)
        assert again == raw or self.codec.layout.partial, "the layout does not encode to itself"
        assert self.codec.decode(again) == value
        assert self.codec.encode(opened(value)) == again, "a mapping does not encode as the value does"
        return True


def mutated(rng: Random, data: bytes) -> bytes:
    """Return bytes that were cut, extended or changed in some places."""
    out = bytearray(data)
    match rng.randrange(8):
        case 0:
            return bytes(out[: rng.randrange(len(out) + 1)])
        case 1:
            return bytes(out) + rng.randbytes(rng.randint(1, 40))
        case 2:
            return rng.randbytes(len(out))
        case 3:
            return bytes(out)
        case _:
            for _ in range(rng.choice((1, 1, 2, 4)) if out else 0):
                at = rng.randrange(len(out))
                out[at] = rng.choice((0, 0xFF, out[at] ^ 1 << rng.randrange(8), rng.randrange(256)))
            return bytes(out)


def flat(mem: tuple[tuple[int, bytes], ...]) -> dict[int, int]:
    """Return memory byte by byte; of pieces that overlap the first counts, as it does for the decoder."""
    return {at + n: byte for at, data in reversed(mem) for n, byte in enumerate(data)}


def decoded(decode: Callable[[], Any], codes: set[str] = _CODES) -> Any:
    """Return the value, None for a `CodecError` that says what is wrong; anything else is an error of ours."""
    try:
        return decode()
    except CodecError as caught:
        error = caught
    assert error.code in codes, error
    assert error.message
    assert error.message_name or error.path, error
    assert error.path or error.byte_offset is not None, error
    return None


def targets(abi: str, rng: Random) -> list[MessageTarget | LayoutTarget]:
    """Return every decoder of an ABI: messages on each transport in each revision, and layouts."""
    mutator = Mutator(abi, rng)
    found: list[MessageTarget | LayoutTarget] = []
    for revision in bundled(abi).revisions:
        spec = load(abi, revision=revision)
        found += [
            MessageTarget(spec.message(message, transport=transport.name), mutator)
            for transport in spec.abi.transports.values()
            for message in transport.placements
        ]
        found += [LayoutTarget(spec.layout(name), mutator) for name in spec.abi.layouts]
    return found


@pytest.mark.parametrize("chunk", [0, *(pytest.param(chunk, marks=pytest.mark.slow) for chunk in range(1, CHUNKS))])
@pytest.mark.parametrize("abi", abi_ids())
def test_decoders_give_a_value_that_encodes_to_itself_or_a_clear_error(abi: str, chunk: int) -> None:
    rng = Random(f"{abi} {chunk}")
    every = targets(abi, rng)
    for target in every:
        assert target.seeds, f"no valid {target}"
        accepted = 0
        inputs = -(-INPUTS // CHUNKS // len(every))
        for number in range(inputs):
            try:
                accepted += target.one()
            except Exception as error:
                error.add_note(f"input {number} of {target}: {target.last!r}")
                raise
        assert accepted * 10 >= inputs, f"{accepted} of {inputs} accepted by {target}"
