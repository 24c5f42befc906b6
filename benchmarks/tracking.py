"""Tracking which pages are shared: our range map alone, and other structures made to do the same.

Every contender keeps the same promise: disjoint ranges, neighbours in one state joined. The work is one page that
becomes shared somewhere in the map and private again, which adds a range and takes it away; and a guest that shares
every other page. Contenders are checked to agree on the pages before they are measured. A bitmap and pyroaring do not
know how many ranges there are, so nothing can be bounded by them; that is said beside their times.
"""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING, Any

from benchmarks.measure import OURS, Effort, Goal, Report, allocated, compare
from hvabi.backend import PageState, RangeMap

if TYPE_CHECKING:
    from collections.abc import Callable

SHARED, PRIVATE = PageState.SHARED, PageState.PRIVATE
GAP = 1000
SIZES = (60, 1_000, 50_000, 1_000_000)


class Ours:
    name = OURS
    most = 10**7

    def __init__(self) -> None:
        self.map: RangeMap[PageState] = RangeMap()
        self.set = self.map.set

    def share(self, start: int, end: int) -> None:
        self.set(start, end, SHARED)

    def unshare(self, start: int, end: int) -> None:
        self.set(start, end, PRIVATE)

    def pages(self) -> set[int]:
        return {page for run in self.map for page in range(run.start, run.end)}


class Tree:
    """intervaltree: what touches is joined, what is taken away is chopped off."""

    name = "intervaltree"
    most = 50_000

    def __init__(self) -> None:
        from intervaltree import IntervalTree

        self.tree = IntervalTree()

    def share(self, start: int, end: int) -> None:
        touching = self.tree.overlap(start - 1, end + 1)
        for each in touching:
            self.tree.remove(each)
            start, end = min(start, each.begin), max(end, each.end)
        self.tree.addi(start, end)

    def unshare(self, start: int, end: int) -> None:
        self.tree.chop(start, end)

    def pages(self) -> set[int]:
        return {page for each in self.tree for page in range(each.begin, each.end)}


class Portion:
    name = "portion"
    most = 1_000

    def __init__(self) -> None:
        import portion

        self.portion = portion
        self.value = portion.empty()

    def share(self, start: int, end: int) -> None:
        self.value |= self.portion.closedopen(start, end)

    def unshare(self, start: int, end: int) -> None:
        self.value -= self.portion.closedopen(start, end)

    def pages(self) -> set[int]:
        return {page for each in self.value for page in range(each.lower, each.upper)}


class Sorted:
    """A map from boundaries to states on a SortedDict, as one writes it in an hour."""

    name = "map on sortedcontainers"
    most = 10**7

    def __init__(self) -> None:
        from sortedcontainers import SortedDict

        self.map = SortedDict()

    def _set(self, start: int, end: int, shared: bool) -> None:
        bounds = self.map
        i = bounds.bisect_left(start)
        j = bounds.bisect_right(end)
        left = bounds.peekitem(i - 1)[1] if i else False
        right = bounds.peekitem(j - 1)[1] if j else False
        for key in list(bounds.islice(i, j)):
            del bounds[key]
        if left != shared:
            bounds[start] = shared
        if right != shared:
            bounds[end] = right

    def share(self, start: int, end: int) -> None:
        self._set(start, end, True)

    def unshare(self, start: int, end: int) -> None:
        self._set(start, end, False)

    def pages(self) -> set[int]:
        found: set[int] = set()
        keys = list(self.map)
        for start, end in itertools.pairwise(keys):
            if self.map[start]:
                found.update(range(start, end))
        return found


class Roaring:
    """pyroaring in C, with 64 bits, as page numbers have up to 52."""

    name = "pyroaring, 64 bit"
    most = 10**7
    kind = "BitMap64"

    def __init__(self) -> None:
        import pyroaring

        self.map = getattr(pyroaring, self.kind)()
        self.share, self.unshare = self.map.add_range, self.map.remove_range

    share: Callable[[int, int], None]
    unshare: Callable[[int, int], None]

    def pages(self) -> set[int]:
        return set(self.map)


class Roaring32(Roaring):
    name = "pyroaring, 32 bit"
    kind = "BitMap"


class Bitmap:
    """One bit a page in a bytearray of fixed size."""

    name = "bitmap"
    most = 10**7

    def __init__(self) -> None:
        self.bits = bytearray()

    def _grow(self, end: int) -> None:
        if end > len(self.bits) * 8:
            self.bits.extend(bytes(max(end // 8 + 1, len(self.bits) * 2) - len(self.bits)))

    def share(self, start: int, end: int) -> None:
        self._grow(end)
        bits = self.bits
        for page in range(start, end):
            bits[page >> 3] |= 1 << (page & 7)

    def unshare(self, start: int, end: int) -> None:
        bits = self.bits
        for page in range(start, end):
            bits[page >> 3] &= ~(1 << (page & 7))

    def pages(self) -> set[int]:
        return {page for page in range(len(self.bits) * 8) if self.bits[page >> 3] >> (page & 7) & 1}


KINDS: tuple[Any, ...] = (Ours, Tree, Portion, Sorted, Roaring, Roaring32, Bitmap)
NOTES = {
    "pyroaring, 64 bit": "C; knows no count of ranges, so no bound",
    "pyroaring, 32 bit": "C; knows no count of ranges, so no bound; pages below 16 TiB",
    "bitmap": "one bit a page; a cost a page, no count of ranges",
}


def made(kind: Any, ranges: int) -> Any:
    subject = kind()
    for index in range(ranges):
        subject.share(index * GAP, index * GAP + 2)
    return subject


def agree(kinds: list[Any]) -> None:
    """Have all do the same at random and compare the pages."""
    rng = random.Random(7)
    subjects = [kind() for kind in kinds]
    for _ in range(300):
        start = rng.randrange(400)
        end = start + rng.randint(1, 12)
        shared = rng.random() < 0.6
        for each in subjects:
            (each.share if shared else each.unshare)(start, end)
    wanted = subjects[0].pages()
    assert wanted
    for kind, each in zip(kinds, subjects, strict=True):
        assert each.pages() == wanted, kind.name


def flipped(subject: Any, ranges: int, count: int) -> Callable[[], None]:
    rng = random.Random(1)
    starts = [rng.randrange(ranges) * GAP + 9 for _ in range(count)]

    def work() -> None:
        share, unshare = subject.share, subject.unshare
        for start in starts:
            share(start, start + 1)
            unshare(start, start + 1)

    return work


def direct(subject: Ours, ranges: int, count: int) -> Callable[[], None]:
    """The same for us without a wrapper around the one call that a user makes."""
    rng = random.Random(1)
    starts = [rng.randrange(ranges) * GAP + 9 for _ in range(count)]
    change, shared, private = subject.map.set, SHARED, PRIVATE

    def work() -> None:
        for start in starts:
            change(start, start + 1, shared)
            change(start, start + 1, private)

    return work


def installed() -> tuple[list[Any], dict[str, str]]:
    there, absent = [], {}
    for kind in KINDS:
        try:
            kind()
        except ImportError:
            absent[kind.name] = "not installed"
        else:
            there.append(kind)
    return there, absent


def run(report: Report, effort: Effort) -> None:
    there, absent = installed()
    agree(there)
    for ranges in SIZES:
        if effort.quick and ranges == 1_000_000:
            contenders = {OURS: made(Ours, ranges)}
        else:
            contenders = {kind.name: made(kind, ranges) for kind in there if kind.most >= ranges}
        workload = f"range map alone, {ranges:,} ranges, one page flipped"
        count = 100 if ranges > 1_000 else 20
        works = {
            name: direct(each, ranges, count) if name == OURS else flipped(each, ranges, count)
            for name, each in contenders.items()
        }
        compare(report, workload, works, effort, units=2 * count, unit="set", notes=NOTES, absent=absent)
        ours: Ours = contenders[OURS]
        if ranges in (60, 1_000):
            for peer, limit in (("intervaltree", 20), ("portion", 200)):
                text = f"range map, {ranges:,} ranges: faster than {peer}"
                report.goals.append(Goal(text=text, measured=report.ratio(workload, peer), limit=limit, at_least=True))
            for peer in ("pyroaring, 32 bit", "pyroaring, 64 bit"):
                text = f"range map, {ranges:,} ranges: against {peer}"
                report.goals.append(Goal(text=text, measured=report.ratio(workload, OURS, peer), limit=12))
        if ranges == 1_000_000:
            small = report.of(f"range map alone, {1_000:,} ranges, one page flipped")
            large = report.of(workload)
            ratio = large / small if large and small else None
            report.goals.append(Goal(text="range map, a million ranges: against a thousand", measured=ratio, limit=4))
            report.goals.append(
                Goal(
                    text="range map, a million ranges: bytes a range",
                    measured=ours.map.memory_bytes / ours.map.count,
                    limit=24,
                    unit="bytes",
                )
            )
        del contenders, works
    storm(report, effort, there, absent)
    memory(report, effort, there, absent)


def storm(report: Report, effort: Effort, there: list[Any], absent: dict[str, str]) -> None:
    """A guest shares every other page, one by one, from nothing."""
    pages = 1_000 if effort.quick else 5_000

    def storming(kind: Any) -> Callable[[], None]:
        def work() -> None:
            subject = kind()
            share = subject.share
            for page in range(0, 2 * pages, 2):
                share(page, page + 1)

        return work

    contenders = {kind.name: storming(kind) for kind in there if kind is not Portion}
    workload = f"storm: every other page shared, {pages:,} of them"
    compare(report, workload, contenders, effort, units=pages, unit="set", notes=NOTES, absent=absent)


def memory(report: Report, effort: Effort, there: list[Any], absent: dict[str, str]) -> None:
    """Bytes that Python holds for 50,000 ranges of two pages in 50 million pages; what C holds is not in it."""
    ranges = 1_000 if effort.quick else 50_000
    for kind in there:
        if kind.most < ranges or issubclass(kind, Roaring):
            continue
        _, size = allocated(lambda kind=kind: made(kind, ranges))
        report.notes.append(f"memory: {kind.name}, {ranges:,} ranges: {size / ranges:.1f} bytes a range")
