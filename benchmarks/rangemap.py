"""What a set on a RangeMap costs as it grows: microseconds, and the ratio to a thousand ranges.

python benchmarks/rangemap.py
"""

from __future__ import annotations

import random
import time

from hvabi.backend import PageState, RangeMap

SIZES = (60, 1_000, 50_000, 1_000_000)


def cost(subject: RangeMap[PageState], ranges: int) -> float:
    """Return the seconds of a set that adds or removes a range, best of several rounds over the whole map."""
    drawn = random.Random(1)
    starts = [drawn.randrange(ranges) * (1 << 20) for _ in range(2000)]
    best = 1.0
    for _ in range(7):
        begun = time.perf_counter()
        for start in starts:
            subject.set(start + 9, start + 10, PageState.SHARED)
            subject.set(start + 9, start + 10, PageState.PRIVATE)
        best = min(best, (time.perf_counter() - begun) / (2 * len(starts)))
    return best


def main() -> None:
    found = {}
    for ranges in SIZES:
        subject: RangeMap[PageState] = RangeMap()
        for i in range(ranges):
            subject.set(i << 20, (i << 20) + 2, PageState.SHARED)
        found[ranges] = cost(subject, ranges)
        ratio = found[ranges] / found.get(1_000, found[ranges])
        print(
            f"{ranges:>9} ranges  {found[ranges] * 1e6:6.2f} us  {ratio:5.2f} x  {subject.memory_bytes / ranges:5.1f} B"
        )


if __name__ == "__main__":
    main()
