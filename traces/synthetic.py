"""Traces that are made up: no full trace of a boot is public, but some of its numbers are.

Each corpus has the published numbers that it is made from, and everything else is drawn at random from a fixed
seed: its lines have the form that a program prints, and no machine ever printed them. The first lines say so.

Run ``python -m hvabi.traces.synthetic NAME`` to write one to standard output.
"""

from __future__ import annotations

import random
import sys
from typing import TYPE_CHECKING, NamedTuple

from hvabi.abi.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PAGE = 4096
_MIB = 1 << 20


class Corpus(NamedTuple):
    """A trace that is made up: what it is like, whose numbers it has, and what makes its lines."""

    title: str
    numbers: str
    lines: Callable[[random.Random], Iterator[str]]


def _below(rng: random.Random, bound: int) -> int:
    """Return a number below a bound. Only `random` itself is the same in every version of Python."""
    return int(rng.random() * bound)


def _sev_boot(rng: random.Random) -> Iterator[str]:
    """Yield 19,479 calls of an SEV guest with 512 MiB: 18,200 of the firmware's DMA, 1,279 of the kernel."""
    now, left = 2.0, 18_200
    buffers = [0x1E00_0000 + _below(rng, 3000) * _PAGE for _ in range(48)]

    def printed(gpa: int, pages: int, enc: int) -> str:
        # 10 to 27 microseconds lie between two calls of the seed's log.
        nonlocal now
        now += 10e-6 + rng.random() * 17e-6
        return f"[{now:12.6f}] page_enc_status_hc invoked, gpa = {gpa:x}, npages  = {pages}, enc = {enc}"

    while left:
        # A request to the disk maps one or two buffers and unmaps them again.
        some = [buffers[_below(rng, len(buffers))] for _ in range(min(1 + _below(rng, 2), left // 2))]
        for enc in (0, 1):
            for gpa in some:
                yield printed(gpa, 1, enc)
        left -= 2 * len(some)
        now += rng.random() * 2e-3
    now, left = 56.0, 1_279
    for index in range(9):  # MMIO and per-CPU pages: they stay shared
        yield printed(0x1D00_0000 + index * 0x8_0000, 16, 0)
    left -= 9
    rings = [0x1F00_0000 + _below(rng, 64) * _PAGE for _ in range(12)]
    while left:
        some = [rings[_below(rng, len(rings))] for _ in range(min(2, left // 2))] or [rings[0]]
        for enc in (0, 1) if left > 1 else (0,):
            for gpa in some:
                yield printed(gpa, 1, enc)
                left -= 1
        now += rng.random() * 40e-3


def _tdvf_boot(rng: random.Random) -> Iterator[str]:
    """Yield about 5,000 conversions of TDVF up to grub, most of them of less than 32 KiB."""

    def printed(start: int, length: int, mode: str) -> str:
        return f"TdxDxe:SetMemorySharedOrPrivate: Cr3Base=0x0 Physical=0x{start:X} Length=0x{length:X} Mode={mode}"

    yield printed(0x8000_0000, 0x6000_0000, "Shared")  # the MMIO window, as the posted line has it
    yield printed(0xFEC0_0000, _PAGE, "Shared")
    made = 2
    while made < 5_000:
        draw = rng.random()
        pages = 1 + _below(rng, 7) if draw < 0.9 else 8 + _below(rng, 24) if draw < 0.98 else 64 + _below(rng, 192)
        start = 0x7000_0000 + _below(rng, 0x8000) * _PAGE
        for mode in ("Shared", "Private"):
            yield printed(start, pages * _PAGE, mode)
        made += 2


def _swiotlb(rng: random.Random) -> Iterator[str]:
    """Yield a guest with 16 GiB that shares 6 % for bounce buffers, in pieces of 2 MiB, and ends with 60 ranges."""
    now = 1_760_000_000.0

    def printed(gpa: int, size: int, shared: bool) -> Iterator[str]:
        nonlocal now
        now += 20e-6 + rng.random() * 60e-6
        attributes, word = ("0x0", "private_to_shared") if shared else ("0x10", "shared_to_private")
        head = f"4711@{now:.6f}:"
        yield f"{head}kvm_hc_map_gpa_range gpa {gpa:#x} size {size:#x} attributes {attributes} flags 0x1"
        yield f"{head}kvm_convert_memory start {gpa:#x} size {size:#x} {word}"

    pool = 0x1_4000_0000
    for piece in range(16 * 1024 * 6 // 100 // 2):  # 983 MiB, rounded down to whole pieces
        yield from printed(pool + piece * 2 * _MIB, 2 * _MIB, True)
    now += 0.4
    for index in range(59):
        yield from printed(0x1_0000_0000 + index * 64 * _PAGE, (1 + _below(rng, 8)) * _PAGE, True)
        now += rng.random() * 5e-3
    for _ in range(400):
        page = 0x1_8000_0000 + _below(rng, 256) * _PAGE
        yield from printed(page, _PAGE, True)
        yield from printed(page, _PAGE, False)
        now += rng.random() * 3e-3


CORPORA = {
    "sev-boot-19479": Corpus(
        "an SEV guest with 512 MiB boots, 2021",
        "19,479 hypercalls in all, 1,279 of them of the kernel (Ashish Kalra, 2021-02-24,"
        " 20210224175122.GA19661@ashkalra_ubuntu_server); times between calls as in the log of 2020-12-12",
        _sev_boot,
    ),
    "tdvf-boot-5000": Corpus(
        "TDVF boots up to grub, 2022",
        "about 5,000 conversions, most of less than 32 KiB (Min M Xu, 2022-12-18, edk2 c4e76d2fbaa2)",
        _tdvf_boot,
    ),
    "swiotlb-60-ranges": Corpus(
        "a guest with 16 GiB sets up its bounce buffers",
        "6 % of RAM shared at boot (Michael Kelley, 2024-08-28), 2 MiB an exit (KVM), about 60 ranges in the end"
        " (Steve Rutherford, 2020-12-07)",
        _swiotlb,
    ),
}
"""Every corpus by name."""


def lines(name: str, *, seed: int = 1) -> Iterator[str]:
    """Yield the lines of a corpus. Raises `UsageError` ``unknown-corpus``."""
    if name not in CORPORA:
        raise UsageError.unknown("corpus", name, CORPORA)
    corpus = CORPORA[name]
    yield f"# SYNTHETIC, no machine printed this: {corpus.title}"
    yield f"# made from published numbers: {corpus.numbers}"
    yield f"# made by: python -m hvabi.traces.synthetic {name} (seed {seed})"
    yield from corpus.lines(random.Random(seed))


def main(arguments: list[str]) -> int:
    """Write the corpus that is named to standard output."""
    if len(arguments) != 1 or arguments[0] not in CORPORA:
        sys.stderr.write(f"usage: python -m hvabi.traces.synthetic {'|'.join(CORPORA)}\n")
        return 2
    for line in lines(arguments[0]):
        sys.stdout.write(line + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
