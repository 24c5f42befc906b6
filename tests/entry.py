"""An entry point, how its inputs are changed, and what a run of them is judged by.

An entry point takes bytes. It returns, or raises one of its own errors; anything else, more than `SECONDS` for one
input, or memory that grows by more than `GROWTH` over a run is a finding, printed with its input. `tests/data/corpus`
keeps the inputs that runs begin with, findings of earlier runs among them.
"""

from __future__ import annotations

import os
import re
import resource
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

CORPUS = Path(__file__).parent / "data" / "corpus"
SECONDS = 10.0
"""Most processor time for one input; the slowest that was seen takes a small part of it."""
GROWTH = 256 << 20
"""Most bytes that a run of one entry point may add to the peak of the process."""
LONGEST = 1 << 15
"""Most bytes of a mutated input."""
MUTATED = 6000
"""Most bytes of a kept input that is mutated; longer ones are only taken as they are."""

_WORD = re.compile(rb"[A-Za-z0-9_.-]+")
_NUMBERS = (0, -1, 1 << 31, 1 << 63, 1 << 64, 1 << 200)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry point, the errors that belong to it, and words that its inputs are made of.

    Inputs that are `text` are changed by lines and words too: most of what is read behind the syntax needs that.
    """

    name: str
    take: Callable[[bytes], object]
    errors: tuple[type[BaseException], ...]
    words: tuple[bytes, ...] = ()
    text: bool = True


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    memory = "/dev/shm"  # a disk waits at every file that is written again
    return tempfile.TemporaryDirectory(prefix="hvabi-fuzz-", dir=memory if os.access(memory, os.W_OK) else None)


def as_file(data: bytes, name: str = "input") -> Path:
    """Write an input into a file of that name, in a folder that goes with the process; return its path."""
    path = Path(_folder().name, name)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


def corpus(name: str) -> list[bytes]:
    """Return the kept inputs of an entry point, in the order of their names."""
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]


class Mutator:
    """Changes one of some seeds in a few places; the same for the same state of `rng`."""

    def __init__(self, rng: Random, seeds: Sequence[bytes], words: tuple[bytes, ...] = (), *, text: bool = False):
        self._rng = rng
        self._seeds = seeds
        self._words = words
        self._text = text
        self._lines = sorted({line for seed in seeds for line in seed.split(b"\n")}) if text else []
        self._known = sorted({word for seed in seeds for word in _WORD.findall(seed)}) if text else []

    def __call__(self) -> bytes:
        """Return a changed seed, or one that is put together of two."""
        rng = self._rng
        out = bytearray(rng.choice(self._seeds))
        change = self._change_text if self._text and rng.random() < 0.6 else self._change
        for _ in range(rng.choice((1, 1, 2, 4, 8) if change == self._change else (1, 1, 1, 2, 3))):
            out = change(out)
        return bytes(out[:LONGEST])

    def _change(self, out: bytearray) -> bytearray:
        rng = self._rng
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
            case 4 if self._words:
                out[at:at] = rng.choice(self._words)
            case 5:
                part = bytes(out[at : at + rng.choice((1, 8, 40))])
                out[at:at] = part * rng.choice((1, 2, 30))
            case 6:
                other = rng.choice(self._seeds)
                start = rng.randrange(len(other) + 1)
                out[at : at + rng.choice((0, 8, 64))] = other[start : start + rng.choice((8, 64, 400))]
            case 7:
                out = out[:at]
            case _:
                out[at:at] = str(rng.choice(_NUMBERS)).encode()
        return out

    def _change_text(self, out: bytearray) -> bytearray:
        rng = self._rng
        at = rng.randrange(len(out) + 1)
        if rng.randrange(2):
            found = _WORD.search(out, at) or _WORD.search(out)
            if found is not None:
                new = (rng.choice(self._known) if self._known and rng.randrange(4)
                       else str(rng.choice(_NUMBERS)).encode() if rng.randrange(2)
                       else rng.choice(self._words or (b"",)))  # fmt: skip
                out[found.start() : found.end()] = new
            return out
        start = out.rfind(b"\n", 0, at) + 1
        end = out.find(b"\n", at) + 1 or len(out)
        line = bytes(out[start:end])
        match rng.randrange(6):
            case 0:
                del out[start:end]
            case 1:
                out[start:start] = line
            case 2:
                out[start:end] = rng.choice(self._lines) + b"\n"
            case 3:
                out[start:start] = rng.choice(self._lines) + b"\n"
            case 4:  # a line further in or out
                out[start:end] = b"  " + line if rng.randrange(2) else line.removeprefix(b"  ")
            case _:  # with the line behind it the other way round
                after = out.find(b"\n", end) + 1 or len(out)
                out[start:after] = bytes(out[end:after]) + line
        return out


class Finding(AssertionError):
    """An input that an entry point does not take as it should."""


def take(entry: Entry, data: bytes) -> bool:
    """Give an input to an entry point; tell whether it was accepted. Raises `Finding`."""
    begun = time.perf_counter()
    accepted = _take(entry, data)
    if time.perf_counter() - begun > SECONDS:  # perhaps the machine was busy; the other clock takes long to ask
        processor = time.process_time()
        _take(entry, data)
        if time.process_time() - processor > SECONDS:
            raise Finding(f"{entry.name}: {time.process_time() - processor:.1f} s for {data!r}")
    return accepted


def _take(entry: Entry, data: bytes) -> bool:
    try:
        entry.take(data)
    except entry.errors:
        return False
    except Exception as error:
        raise Finding(f"{entry.name}: {type(error).__name__}: {error} for {data!r}") from error
    return True


def peak() -> int:
    """Return the most memory that this process ever had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def fuzz(
    entry: Entry, count: int, seed: int, found: Callable[[Finding], object] | None = None
) -> Iterator[tuple[bytes, bool]]:
    """Take the corpus and then `count` mutated inputs; yield each with whether it was accepted.

    Raises `Finding`, or calls `found` with it and goes on.
    """
    seeds = corpus(entry.name)
    small = [data for data in seeds if len(data) <= MUTATED] or seeds
    mutated = Mutator(Random(f"{entry.name} {seed}"), small, entry.words, text=entry.text)
    before = 0
    for number in range(len(seeds) + count):
        if number == len(seeds):
            before = peak()
        data = seeds[number] if number < len(seeds) else mutated()
        try:
            accepted = take(entry, data)
        except Finding as finding:
            if found is None:
                raise
            found(finding)
            accepted = False
        yield data, accepted
    if count and peak() - before > GROWTH:
        grown = Finding(f"{entry.name}: memory grew by {(peak() - before) >> 20} MiB over {count} inputs")
        if found is None:
            raise grown
        found(grown)
