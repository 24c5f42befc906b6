"""How fast a trace is replayed, against a bare regular-expression loop over the same file in the same run.

python benchmarks/traces.py [MEGABYTES]

The bare loop reads the file line by line and looks for the records of one format, time and values, with one expression;
it keeps no state and counts only. A large file is one piece of 64 MB again and again.
"""

from __future__ import annotations

import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BARE = re.compile(
    rb"\[\s*(\d+\.\d+)\] page_enc_status_hc invoked, gpa = ([0-9a-f]+), npages\s+= ([0-9a-f]+), enc = (\d+)"
)
OTHERS = [
    b"systemd[1]: Started Journal Service.",
    b"usb 1-1: new high-speed USB device number 2 using xhci_hcd",
    b"virtio_blk virtio2: [vda] 20971520 512-byte logical blocks (10.7 GB/10.0 GiB)",
    b"EXT4-fs (vda1): mounted filesystem with ordered data mode. Opts: (null)",
    b"kvm_exit: vcpu 0 reason npf rip 0xffffffff8106b2c5 info1 0x0000000100000014 info2 0x00000000fee000b0",
    b"random: crng init done",
]


def make(path: Path, size: int, part: float, *, pages: int = 4000, seed: int = 1) -> int:
    """Write a log of `size` bytes of which a part of the lines are calls about `pages` pages; return how many."""
    rng = random.Random(seed)
    now, calls, written = 1.0, 0, 0
    with path.open("w+b") as stream:
        while written < min(size, 64 << 20):
            block = []
            for _ in range(20_000):
                now += 20e-6
                if rng.random() < part:
                    calls += 1
                    gpa = 0x1000_0000 + int(rng.random() * pages) * 4096
                    call = b"page_enc_status_hc invoked, gpa = %x, npages  = 1, enc = %d" % (gpa, rng.random() < 0.5)
                    block.append(b"[%12.6f] %b\n" % (now, call))
                else:
                    block.append(b"[%12.6f] %b\n" % (now, OTHERS[int(rng.random() * len(OTHERS))]))
            data = b"".join(block)
            stream.write(data)
            written += len(data)
        stream.seek(0)
        data = stream.read()
        times = max(1, size // len(data))
        for _ in range(times - 1):
            stream.write(data)
    return calls * times


def bare(path: Path) -> tuple[float, int]:
    """Return the seconds and finds of a loop over the lines that does nothing else."""
    begun, found, search = time.process_time(), 0, BARE.search
    with path.open("rb") as stream:
        for line in stream:
            if search(line):
                found += 1
    return time.process_time() - begun, found


REPLAY = """
import re, sys, time
from pathlib import Path
from hvabi.traces import replay_sources
begun = time.process_time()
found = replay_sources([sys.argv[1]])
seconds, status = time.process_time() - begun, Path("/proc/self/status").read_text()
print(seconds, found.calls, re.search(r"VmHWM:\\s+(\\d+)", status)[1])
"""
# ru_maxrss would count what the process had before it became this one.


def replayed(path: Path) -> tuple[float, int, int]:
    """Return the seconds, calls and peak KiB of a replay in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", REPLAY, str(path)], capture_output=True, text=True, check=True
    ).stdout.split()
    return float(done[0]), int(done[1]), int(done[2])


def measure(path: Path, size: int, part: float, *, pages: int = 4000, rounds: int = 2) -> tuple[float, int]:
    """Return the ratio of the speeds and the peak in KiB; the better of the rounds, in turns."""
    calls = make(path, size, part, pages=pages)
    ours, theirs, peak = 1e9, 1e9, 0
    for _ in range(rounds):
        seconds, found = bare(path)
        theirs = min(theirs, seconds)
        assert found == calls
        seconds, found, peak = replayed(path)
        ours = min(ours, seconds)
        assert found == calls
    ratio = theirs / ours
    print(
        f"{size >> 20:>6} MB, {part:>4.0%} calls of {pages:>7} pages: bare loop {theirs:6.2f} s,"
        f" replay {ours:6.2f} s, ratio {ratio:.2f}, peak {peak >> 10} MiB"
    )
    return ratio, peak


def main() -> None:
    size = (int(sys.argv[1]) if len(sys.argv) > 1 else 100) << 20
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.log"
        measure(path, size, 0.01)
        measure(path, size, 0.01, pages=1_000_000)
        measure(path, size, 1.0)
    print(f"(benchmark itself: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MiB)")


if __name__ == "__main__":
    main()
