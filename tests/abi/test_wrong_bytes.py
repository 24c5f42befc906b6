"""Bytes of the wrong length, byte order or revision: a clear error or a finding, and every legal reading is named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from hvabi.abi.errors import HvAbiError
from hvabi.abi.given import Given
from hvabi.abi.readings import readings, swapped
from hvabi.abi.registry import abi_ids, bundled, load
from hvabi.abi.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hvabi.abi.codec import MessageCodec


def requests(abi: str) -> Iterator[tuple[str, MessageCodec, Wire, Any]]:
    """Yield the first worked request of each call, revision and transport: its name, codec, wire and value."""
    seen = set()
    for example in bundled(abi).examples:
        data = example.data
        if "request" not in data or data.get("profile"):
            continue
        spec = load(abi, revision=data.get("revision"))
        call = spec.abi.calls[data["call"]] if "call" in data else next(iter(spec.abi.calls.values()))
        key = (call.name, spec.abi.revision, data["transport"])
        if key in seen:
            continue
        seen.add(key)
        codec = spec.message(call.request, transport=data["transport"], config=data.get("config"))
        value = codec.complete(data["request"])
        yield "/".join(key), codec, codec.encode(value), value


def what(codec: MessageCodec, given: Any) -> Any:
    """Return the value of bytes, or the code of a clear error. Anything else that is raised fails the test."""
    try:
        return codec.decode(given)
    except HvAbiError as error:
        told = error
    assert told.message
    return told.code


@pytest.mark.parametrize("abi", abi_ids())
def test_wrong_size(abi: str) -> None:
    """A byte less, a byte more and nothing at all are errors that say so."""
    checked = 0
    for name, codec, wire, _ in requests(abi):
        body = bytes(wire)
        if not body or not isinstance(what(codec, body), tuple):
            continue
        if any(block.registers for block in codec.placer.blocks.values()):
            continue  # registers behind the last that a short list fills are not looked at
        assert what(codec, body[:-1]) == "truncated", name
        assert what(codec, body + b"\0") == "oversized", name
        assert what(codec, b"") in {"truncated", "const-mismatch"}, name
        assert isinstance(readings(body[:-1], abis=[abi]).readings, tuple)
        checked += 1
    assert checked


@pytest.mark.parametrize("abi", abi_ids())
def test_wrong_endian(abi: str) -> None:
    """Words the other way round are an error, or another message; and where they only are turned, a hint says so."""
    checked = 0
    for name, codec, wire, value in requests(abi):
        regs = {register: number for register, number in wire.regs.items() if number}
        turned = swapped(Given(regs=regs), 8) if regs and all(number < 1 << 64 for number in regs.values()) else None
        if isinstance(turned, Given):
            found = what(codec, Wire(regs={**wire.regs, **turned.regs}, mem=wire.mem))
            assert isinstance(found, str) or found != value, name
            checked += 1
        body = bytes(wire)
        other = swapped(body, 8) if body else None
        if other is not None and other != body:
            found = what(codec, other)
            assert isinstance(found, str) or found != value, name
            checked += 1
    assert checked


@pytest.mark.parametrize("abi", abi_ids())
def test_every_revision_that_reads_the_registers_is_named(abi: str) -> None:
    """What another revision makes of a request is an error or a reading; of those that are none, each is named."""
    checked = 0
    for name, codec, wire, _ in requests(abi):
        config = {key.name: key.default for key in bundled(abi).config.values()}
        named = {
            (item.revision, item.message, item.transport)
            for item in readings(Given(regs=wire.regs, mem=wire.mem), abis=[abi]).readings
        }
        for revision in bundled(abi).revisions:
            spec = load(abi, revision=revision)
            for transport in spec.abi.transports.values():
                for message in transport.placements:
                    one = spec.message(message, transport=transport.name, config=config)
                    calls = {call.request for call in spec.abi.calls.values()}
                    if message not in calls or set(one.placer.registers) != set(codec.placer.registers):
                        continue
                    if isinstance(what(one, Wire(regs=wire.regs, mem=wire.mem)), str):
                        continue
                    assert (revision, message, transport.name) in named, name
                    checked += 1
    assert checked


@pytest.mark.parametrize(("number", "meant"), [(0x4018AEC5, ["get"]), (0x4018AEC6, ["share", "get"]),
                                               (0x4018AEC7, ["set"]), (0x4018AEC8, ["get"])])  # fmt: skip
def test_a_number_of_another_post_is_another_message(number: int, meant: list[str]) -> None:
    """The numbers of the bitmap's posts moved: v6 SET is v7 GET."""
    struct = bytes.fromhex("400000000000000008000000000000000020000000000000")
    found = readings(
        Given(regs={"cmd": number, "arg": 0x1000}, mem=((0x1000, struct), (0x2000, bytes(8)))),
        abis=["kvm-page-enc-bitmap"],
    )
    sure = {(item.revision, item.message) for item in found.readings if item.sure == "constants-matched"}
    whole = {revision: load("kvm-page-enc-bitmap", revision=revision).abi.calls for revision, _ in sure}
    names = [name for revision, message in sorted(sure) for name, call in whole[revision].items()
             if call.request == message]  # fmt: skip
    assert names == meant
