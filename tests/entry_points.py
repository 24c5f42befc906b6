"""Fuzzing of all that reads what others wrote: entry points, the errors that each may give, mutation, and a run.

    python -m tests.entry_points [--count N] [--seed N] [ENTRY ...]

An entry point takes bytes. It returns, or raises one of its own errors; anything else, more than `SECONDS` for one
input, or memory that grows by more than `GROWTH` over a run is a finding, printed with its input. `tests/data/corpus`
keeps the inputs that runs begin with, findings of earlier runs among them. With `tests.by_coverage` atheris chooses.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import resource
import struct
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from hvabi.abi.errors import CodecError, ExprError, SpecError, UsageError
from hvabi.abi.expr import evaluate, parse
from hvabi.abi.registry import abi_ids, bundled, load
from hvabi.abi.source import load_text
from hvabi.abi.wire import Wire
from hvabi.adapters.registry import host_class
from hvabi.backend import Backend, GuestMemory, ModelError
from hvabi.conformance.frame import PREFIX
from hvabi.conformance.iut import Session
from hvabi.conformance.known import load_known
from hvabi.conformance.transcript import read_transcript
from hvabi.traces import replay_sources
from hvabi.traces.errors import TraceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hvabi.abi.codec import MessageCodec
    from hvabi.adapters.host import Host

CORPUS = Path(__file__).parent / "data" / "corpus"
SECONDS = 10.0
"""Most processor time for one input; the slowest that was seen takes a small part of it."""
GROWTH = 256 << 20
"""Most bytes that a run of one entry point may add to the peak of the process."""
LONGEST = 1 << 14
"""Most bytes of a mutated input."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry point, the errors that belong to it, and words that its inputs are made of."""

    name: str
    take: Callable[[bytes], object]
    errors: tuple[type[BaseException], ...]
    words: tuple[bytes, ...] = ()


def _file(data: bytes, take: Callable[[Path], object]) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        take(Path(file.name))


def _yaml(data: bytes) -> None:
    load_text(data, "fuzz.yaml")


def _spec(data: bytes) -> None:
    from hvabi.abi.lint import lint_paths

    _file(data, lambda path: lint_paths([path]))


class _Numbers:
    """An environment in which every name is a number."""

    def __getitem__(self, name: str) -> object:
        return len(name) * 0x1001


def _expression(data: bytes) -> None:
    evaluate(parse(data.decode("utf-8", "replace")), _Numbers())


@cache
def _codecs() -> tuple[MessageCodec, ...]:
    return tuple(
        spec.message(message, transport=transport.name)
        for spec in map(load, abi_ids())
        for transport in spec.abi.transports.values()
        for message in transport.placements
    )


def _decoder(data: bytes) -> None:
    """The first two bytes choose the message, the third says whether it is its body, or registers and memory."""
    if len(data) < 3:
        return
    codec = _codecs()[int.from_bytes(data[:2], "little") % len(_codecs())]
    strict, rest = bool(data[2] & 1), data[3:]
    if data[2] & 2:
        codec.decode(rest, strict=strict)
        return
    regs, mem = _registers(codec.placer.registers, rest)
    codec.decode(Wire(regs, mem), strict=strict)


def _registers(names: tuple[str, ...], data: bytes) -> tuple[dict[str, int], tuple[tuple[int, bytes], ...]]:
    """Return registers of 8 bytes each, and what is behind them as memory where the first register points to."""
    size = 8 * len(names)
    padded = data[:size].ljust(size, b"\0")
    regs = dict(zip(names, struct.unpack(f"<{len(names)}Q", padded), strict=True))
    rest = data[size:]
    at = next(iter(regs.values()), 0) & ~0xFFF
    return regs, ((at, rest),) if rest and at < 1 << 63 else ()


@cache
def _hosts() -> tuple[tuple[Host, tuple[str, ...]], ...]:
    found = []
    for abi in abi_ids():
        if bundled(abi).draft:
            continue
        spec = load(abi)
        for transport in spec.abi.transports:
            host = host_class(abi)(spec, transport=transport)
            names = dict.fromkeys(
                name
                for call in spec.abi.calls.values()
                if call.request in spec.abi.transports[transport].placements
                for name in spec.message(call.request, transport=transport).placer.registers
            )
            found.append((host, tuple(names)))
    return tuple(found)


def _adapter(data: bytes) -> None:
    """The first byte chooses the host, the second privilege and whether it is switched on."""
    if len(data) < 2:
        return
    host, names = _hosts()[data[0] % len(_hosts())]
    host.enabled = not data[1] & 1
    host.backend = Backend(facts=host.abi.facts, max_ranges=64)
    host.memory = GuestMemory(None)
    regs, mem = _registers(names, data[2:])
    for address, piece in mem:
        host.memory.poke(address, piece)
    answer = host.answer(regs, cpl=data[1] >> 1 & 3)
    assert answer.end in ("return", "replay", "fault", "stop")
    assert host.backend.count <= 64


def _protocol(data: bytes) -> None:
    session = Session(exits=True, local_steps=True)
    for line in data.decode("utf-8", "replace").split("\n"):
        text = session.handle(line)
        if text is not None:
            assert text.startswith(PREFIX)
            assert "id" in json.loads(text.removeprefix(PREFIX))


def _traces(data: bytes) -> None:
    replay_sources([("fuzz", io.BytesIO(data))])


def _transcript(data: bytes) -> None:
    _file(data, lambda path: list(read_transcript(path)))


def _known(data: bytes) -> None:
    _file(data, load_known)


_OF_CODECS = (CodecError, ExprError, UsageError)
_WORDS = (b"\xff" * 8, b"\0" * 8, b"\0\x10" + b"\0" * 6)
_OF_YAML = (b"&a ", b"*a", b"<<: ", b"!!int ", b": ", b"- ", b"? ")
_OF_SPECS = (b"bits: ", b"enum: ", b"[63, 0]", b"at: ", b"list: ")
_OF_EXPRESSIONS = (b"sum(", b" for x in ", b"<<", b"//", b"))")
_OF_LINES = (b"@hvabi ", b'"regs":{', b'"0x', b'"mem":[', b"1e999", b"[" * 50)
_OF_TRACES = (b"gpa = ", b"npages", b"=\n", b"\0", b"9" * 30, b"[...]")

_ALL = (
    Entry(name="yaml", take=_yaml, errors=(SpecError,), words=_OF_YAML),
    Entry(name="spec", take=_spec, errors=(SpecError,), words=_OF_SPECS),
    Entry(name="expression", take=_expression, errors=(ExprError,), words=_OF_EXPRESSIONS),
    Entry(name="decoder", take=_decoder, errors=_OF_CODECS, words=_WORDS),
    Entry(name="adapter", take=_adapter, errors=(ModelError,), words=_WORDS),
    Entry(name="protocol", take=_protocol, errors=(), words=_OF_LINES),
    Entry(name="traces", take=_traces, errors=(TraceError,), words=_OF_TRACES),
    Entry(name="known", take=_known, errors=(SpecError,), words=(b"- case: ", b"kind: ", b"*")),
    Entry(name="transcript", take=_transcript, errors=(UsageError,), words=(b'"t":', b'"dir":', b"[" * 50)),
)
ENTRIES = {entry.name: entry for entry in _ALL}


def corpus(name: str) -> list[bytes]:
    """Return the kept inputs of an entry point, in the order of their names."""
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]


def mutated(rng: Random, seeds: list[bytes], words: tuple[bytes, ...]) -> bytes:
    """Return one of the seeds, changed in a few places."""
    out = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        at = rng.randrange(len(out) + 1)
        match rng.randrange(9):
            case 0 if out:
                out[min(at, len(out) - 1)] ^= 1 << rng.randrange(8)
            case 1 if out:
                out[min(at, len(out) - 1)] = rng.choice((0, 0xFF, 0x7F, 0x80, rng.randrange(256)))
            case 2:
                del out[at : at + rng.choice((1, 1, 4, 16, 200))]
            case 3:
                out[at:at] = rng.randbytes(rng.choice((1, 2, 8)))
            case 4 if words:
                out[at:at] = rng.choice(words)
            case 5:
                part = bytes(out[at : at + rng.choice((1, 8, 40))])
                out[at:at] = part * rng.choice((1, 2, 30))
            case 6:
                other = rng.choice(seeds)
                start = rng.randrange(len(other) + 1)
                out[at : at + rng.choice((0, 8, 64))] = other[start : start + rng.choice((8, 64, 400))]
            case 7:
                out = out[:at]
            case _:
                out[at:at] = str(rng.choice((0, -1, 1 << 31, 1 << 63, 1 << 64, 1 << 200))).encode()
    return bytes(out[:LONGEST])


class Finding(AssertionError):
    """An input that an entry point does not take as it should."""


def take(entry: Entry, data: bytes) -> bool:
    """Give an input to an entry point; tell whether it was accepted. Raises `Finding`."""
    begun = time.process_time()
    accepted = True
    try:
        entry.take(data)
    except entry.errors:
        accepted = False
    except Exception as error:
        raise Finding(f"{entry.name}: {type(error).__name__}: {error} for {data!r}") from error
    if time.process_time() - begun > SECONDS:
        raise Finding(f"{entry.name}: {time.process_time() - begun:.1f} s for {data!r}")
    return accepted


def peak() -> int:
    """Return the most memory that this process ever had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def fuzz(entry: Entry, count: int, seed: int) -> Iterator[tuple[bytes, bool]]:
    """Take the corpus and then `count` mutated inputs; yield each with whether it was accepted. Raises `Finding`."""
    seeds = corpus(entry.name)
    for data in seeds:
        yield data, take(entry, data)
    rng = Random(f"{entry.name} {seed}")
    before = peak()
    for _ in range(count):
        data = mutated(rng, seeds, entry.words)
        yield data, take(entry, data)
    if peak() - before > GROWTH:
        raise Finding(f"{entry.name}: memory grew by {(peak() - before) >> 20} MiB over {count} inputs")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("entries", nargs="*", choices=[[], *ENTRIES], metavar="ENTRY")
    given: Any = parser.parse_args()
    found = 0
    for name in given.entries or ENTRIES:
        entry = ENTRIES[name]
        begun, inputs, accepted, before = time.process_time(), 0, 0, peak()
        try:
            for _, good in fuzz(entry, given.count, given.seed):
                inputs += 1
                accepted += good
        except Finding as finding:
            found += 1
            print(finding)
        spent, grown = time.process_time() - begun, (peak() - before) >> 20
        share = accepted / max(inputs, 1)
        print(
            f"{name}: {inputs} inputs, {share:.0%} accepted, {spent:.0f} s, peak +{grown} MiB, seed {given.seed}",
            flush=True,
        )
    return int(bool(found))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
