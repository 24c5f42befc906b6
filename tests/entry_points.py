"""Fuzzing of all that reads what others wrote: the entry points, and a run.

    python -m tests.entry_points [--count N] [--seed N] [ENTRY[=COUNT] ...]

What an entry point is and what counts as a finding stands in `tests.entry`; those that take part in a run of cases are
in `tests.entry_runs`. With `tests.by_coverage` atheris chooses the inputs.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import re
import struct
import sys
import time
import traceback
from functools import cache
from typing import TYPE_CHECKING, Any

from hvabi.abi.difference import differences
from hvabi.abi.errors import CodecError, ExprError, SpecError, UsageError
from hvabi.abi.expr import evaluate, parse
from hvabi.abi.lint import lint_paths
from hvabi.abi.registry import Spec, abi_ids, bundled, load, read_abi
from hvabi.abi.source import load_text
from hvabi.abi.wire import Wire
from hvabi.adapters.registry import host_class
from hvabi.backend import Backend, GuestMemory, ModelError
from hvabi.conformance.frame import PREFIX
from hvabi.conformance.iut import Session
from hvabi.conformance.known import load_known
from hvabi.conformance.stories import load_stories
from hvabi.evidence.headers.claims import read_claims
from hvabi.traces import replay_sources
from hvabi.traces.errors import TraceError
from hvabi.traces.ndjson import Writer
from tests.entry import CORPUS, Entry, Finding, as_file, fuzz, peak
from tests.entry_runs import RUNS

if TYPE_CHECKING:
    from pathlib import Path

    from hvabi.abi.codec import MessageCodec
    from hvabi.adapters.host import Host


def _yaml(data: bytes) -> None:
    load_text(data, "fuzz.yaml")


_NAME = re.compile(rb"^(?:abi|shared|platform): *([a-z0-9-]{1,60})$", re.MULTILINE)


@cache
def _other() -> Path:
    return as_file((CORPUS / "spec" / "shapes").read_bytes(), "other.yaml")


def _spec(data: bytes) -> None:
    """As `hvabi lint`, `diff` and `layout-check` read it; where lint finds nothing, every message of it is decoded."""
    name = _NAME.search(data)
    path = as_file(data, f"{name[1].decode() if name else 'fuzz'}.yaml")
    try:
        found = lint_paths([path])
        for item in found:
            item.text()
        if not any(item.severity == "error" for item in found):
            if b"\nabi: " in data:
                _use(Spec(read_abi(path).resolve()))
        elif len(data) % 4 == 0 and not found[0].id.startswith("yaml-"):
            for read in (lambda: differences(_other(), path), lambda: read_claims([path]), lambda: read_abi(path)):
                with contextlib.suppress(SpecError, UsageError):
                    read()
    finally:
        path.unlink()


def _use(spec: Spec) -> None:
    for transport in spec.abi.transports.values():
        for message in transport.placements:
            with contextlib.suppress(CodecError, ExprError):
                spec.message(message, transport=transport.name).decode(bytes(16), strict=False)


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
    """As `hvabi replay` reads it: what is found is read again as it was written, drawn and told."""
    from hvabi.cli.replay_text import show
    from hvabi.traces.plot.page import page

    written = io.StringIO()
    summary = replay_sources([("fuzz", io.BytesIO(data))], writer=Writer(written))
    if len(data) % 4 == 0:
        again = replay_sources([("fuzz", io.BytesIO(written.getvalue().encode()))])
        assert again.calls == summary.calls
    if len(data) % 32 == 0:  # a picture takes longer than all else
        page(summary)
        json.dumps(summary.to_json())
        list(show(summary, 80))


def _known(data: bytes) -> None:
    load_known(as_file(data))


def _story(data: bytes) -> None:
    load_stories(as_file(data, "kvm-page-enc-status.yaml"))


_OF_CODECS = (CodecError, ExprError, UsageError)
_WORDS = (b"\xff" * 8, b"\0" * 8, b"\0\x10" + b"\0" * 6)
_OF_YAML = (b"&a ", b"*a", b"<<: ", b"!!int ", b": ", b"- ", b"? ")
_OF_SPECS = (b"bits: ", b"enum: ", b"[63, 0]", b"at: ", b"list: ", b"{}", b"null", b"~", b"[]", b"true")
_OF_EXPRESSIONS = (b"sum(", b" for x in ", b"<<", b"//", b"))")
_OF_LINES = (b"@hvabi ", b'"regs":{', b'"0x', b'"mem":[', b"1e999", b"[" * 50)
_OF_TRACES = (b"gpa = ", b"npages", b"=\n", b"\0", b"9" * 30, b"[...]")

_ALL = (
    Entry(name="yaml", take=_yaml, errors=(SpecError,), words=_OF_YAML),
    Entry(name="spec", take=_spec, errors=(), words=_OF_SPECS),
    Entry(name="expression", take=_expression, errors=(ExprError,), words=_OF_EXPRESSIONS),
    Entry(name="decoder", take=_decoder, errors=_OF_CODECS, words=_WORDS, text=False),
    Entry(name="adapter", take=_adapter, errors=(ModelError,), words=_WORDS, text=False),
    Entry(name="protocol", take=_protocol, errors=(), words=_OF_LINES),
    Entry(name="traces", take=_traces, errors=(TraceError,), words=_OF_TRACES),
    Entry(name="known", take=_known, errors=(SpecError,), words=(b"- case: ", b"kind: ", b"*")),
    Entry(name="story", take=_story, errors=(SpecError,), words=_OF_SPECS),
    *RUNS,
)
ENTRIES = {entry.name: entry for entry in _ALL}


def _counts(given: list[str], count: int) -> dict[str, int]:
    """Return how many inputs each entry point gets."""
    pairs = [text.partition("=") for text in given] or [(name, "", "") for name in ENTRIES]
    unknown = [name for name, _, _ in pairs if name not in ENTRIES]
    if unknown:
        sys.exit(f"there is no entry point {unknown[0]}; there are {', '.join(ENTRIES)}")
    return {name: int(number or count) for name, _, number in pairs}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("entries", nargs="*", metavar="ENTRY[=COUNT]")
    given: Any = parser.parse_args()
    found: set[str] = set()

    def show(finding: Finding) -> None:
        """Print the first finding of each place; a run goes on behind it."""
        calls = traceback.extract_tb(finding.__cause__.__traceback__) if finding.__cause__ is not None else ()
        place = f"{calls[-1].filename}:{calls[-1].lineno}" if calls else str(finding)
        if place not in found:
            print(f"{place}: {finding}", flush=True)
        found.add(place)

    total = 0
    for name, count in _counts(given.entries, given.count).items():
        begun, inputs, accepted, before, slowest = time.process_time(), 0, 0, peak(), 0.0
        last = time.perf_counter()
        for _, good in fuzz(ENTRIES[name], count, given.seed, show):
            inputs += 1
            accepted += good
            now = time.perf_counter()
            slowest, last = max(slowest, now - last), now
        spent, grown = time.process_time() - begun, (peak() - before) >> 20
        total += inputs
        print(
            f"{name}: {inputs} inputs, {accepted / inputs:.0%} accepted, {spent:.0f} s, slowest {slowest:.2f} s, "
            f"peak +{grown} MiB, seed {given.seed}",
            flush=True,
        )
    print(f"{total} inputs, {len(found)} findings, peak {peak() >> 20} MiB")
    return int(bool(found))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
