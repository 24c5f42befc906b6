"""Guest memory as the host sees it: hostile, sparse, and read once per call.

Addresses are guest physical, in bytes. Another vCPU may change guest memory between any two reads of the
host; reading a byte twice in one call is how time-of-check to time-of-use bugs are made. So a host works
on a `CallMemory`, which fetches each byte at most once.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from hvabi.backend.model import PAGE_SHIFT, ModelError
from hvabi.backend.rangemap import RangeMap
from hvabi.backend.slots import MemoryLayout
from hvabi.backend.sparse import ByteSet, SparseBytes

if TYPE_CHECKING:
    from collections.abc import Iterable

ADDRESS_LIMIT = 1 << 64

#: The largest block that one read or write may have, unless the caller says otherwise: 1 MiB.
MAX_BLOCK = 1 << 20


class OutsideMemory(LookupError):
    """An access touched a byte that is not memory: the guest's doing, so data for the ABI to answer.

    `gpa` is the address of the first such byte; 2**64 where the access runs over the end.
    """

    code = "outside-memory"

    def __init__(self, gpa: int) -> None:
        super().__init__(f"there is no guest memory at {gpa:#x}")
        self.gpa = gpa


class GuestMemory:
    """The bytes of a guest's memory.

    Args:
        layout: what is memory; None means everything. May be replaced at any time (`layout` is settable).
        fill: the bytes of untouched memory, repeated; 1, 2, 4 … 4096 of them. Zero by default.
        max_block: the largest `size` of one access in bytes; `ModelError` `block-too-large` beyond it.
            Nothing is allocated for a size that is refused.
        max_pages: how many pages may hold bytes of their own; `ModelError` `memory-full` beyond it.
        count_reads: keep the account that `reads_of` answers from. It grows with what is read.

    """

    def __init__(
        self,
        layout: MemoryLayout | None = None,
        *,
        fill: bytes = b"\0",
        max_block: int = MAX_BLOCK,
        max_pages: int = 1 << 14,
        count_reads: bool = False,
    ) -> None:
        self.layout = layout if layout is not None else MemoryLayout(None)
        self.max_block = max_block
        self._store = SparseBytes(fill, max_pages)
        self._reads: RangeMap[int] | None = RangeMap(0) if count_reads else None
        self._lock = threading.Lock()

    def require(self, gpa: int, size: int) -> None:
        """Check an access without doing it.

        Raises:
            OutsideMemory: when one of the bytes lies outside the layout.
            ModelError: `block-too-large` above `max_block`, `bad-address` for a negative number.

        """
        _require_block(gpa, size)
        if not size:
            return
        if gpa + size > ADDRESS_LIMIT:
            hole = self.layout.first_hole(gpa >> PAGE_SHIFT, ADDRESS_LIMIT >> PAGE_SHIFT)
            raise OutsideMemory(max(gpa, ADDRESS_LIMIT if hole is None else hole << PAGE_SHIFT))
        hole = self.layout.first_hole(gpa >> PAGE_SHIFT, ((gpa + size - 1) >> PAGE_SHIFT) + 1)
        if hole is not None:
            raise OutsideMemory(max(gpa, hole << PAGE_SHIFT))
        if size > self.max_block:
            raise ModelError(
                "block-too-large",
                f"an access of {size} bytes at {gpa:#x} exceeds max_block = {self.max_block}",
                gpa=gpa,
                size=size,
            )

    def read(self, gpa: int, size: int) -> bytes:
        """Return the bytes that a host reads; counted. Errors as for `require`."""
        self.require(gpa, size)
        if not size:
            return b""
        with self._lock:
            if self._reads is not None:
                for run in tuple(self._reads.runs(gpa, gpa + size)):
                    self._reads.set(run.start, run.end, run.state + 1)
            return self._store.get(gpa, size)

    def write(self, gpa: int, data: bytes) -> None:
        """Write as a host does. Errors as for `require`, and `memory-full`; nothing is written then."""
        self.require(gpa, len(data))
        with self._lock:
            self._store.put(gpa, data)

    def peek(self, gpa: int, size: int) -> bytes:
        """Return the bytes at gpa, whether that is memory or not; not counted. For tests and runners."""
        self._require_size(gpa, size)
        with self._lock:
            return self._store.get(gpa, size) if size else b""

    def poke(self, gpa: int, data: bytes) -> None:
        """Place bytes, whether gpa is memory or not: what the guest or a device writes."""
        self._require_size(gpa, len(data))
        with self._lock:
            self._store.put(gpa, data)

    def reads_of(self, gpa: int) -> int:
        """Count how often the byte at gpa was read since the start or the last `clear_reads`."""
        if self._reads is None:
            raise ModelError("reads-not-counted", "make the GuestMemory with count_reads=True", gpa=gpa)
        with self._lock:
            return self._reads.state_at(gpa)

    def clear_reads(self) -> None:
        """Begin the account of reads anew."""
        if self._reads is not None:
            with self._lock:
                self._reads.clear()

    def clear(self) -> None:
        """Go back to untouched memory, with no reads; the layout stays."""
        self.clear_reads()
        with self._lock:
            self._store.clear()

    def _require_size(self, gpa: int, size: int) -> None:
        _require_block(gpa, size)
        if size > self.max_block or gpa + size > ADDRESS_LIMIT:
            raise ModelError(
                "block-too-large",
                f"{size} bytes at {gpa:#x} exceed max_block = {self.max_block} or the address space",
                gpa=gpa,
                size=size,
            )


class CallMemory:
    """Guest memory during one host call.

    Each byte is fetched from guest memory once, when it is first read; later reads see that snapshot,
    or what the call itself has written. Writes go to guest memory at once. An access that
    `GuestMemory.require` refuses fetches and changes nothing.

    Args:
        memory: the guest memory.
        flips: (gpa, bytes) that a hostile guest puts in place of what the host read: each byte right
            after its first fetch, unless the call wrote it before.
        snapshot: False fetches on every read. No honest host wants that; it is there so that a planted
            double fetch can be shown to be one.
        max_pages: how many pages one call may touch; `ModelError` `memory-full` beyond it.

    """

    def __init__(
        self,
        memory: GuestMemory,
        *,
        flips: Iterable[tuple[int, bytes]] = (),
        snapshot: bool = True,
        max_pages: int = 1 << 14,
    ) -> None:
        self._memory = memory
        self._snapshot = snapshot
        self._seen = SparseBytes(max_pages=max_pages)
        self._settled = ByteSet()  # what is not fetched any more
        self._written = ByteSet()
        self._fetches: list[tuple[int, int]] = []
        hostile = tuple(flips)
        self._flips = _Flips(hostile) if hostile else None

    def read(self, gpa: int, size: int) -> bytes:
        """Return the bytes at gpa as this call sees them. Errors as for `GuestMemory.read`."""
        self._memory.require(gpa, size)
        if not size:
            return b""
        for start, end in self._settled.gaps(gpa, gpa + size):
            self._fetch(start, end)
        return self._seen.get(gpa, size)

    def write(self, gpa: int, data: bytes) -> None:
        """Write bytes; later reads of this call see them. Errors as for `GuestMemory.write`."""
        self._memory.write(gpa, data)
        if not data:
            return
        self._seen.put(gpa, data)
        self._written.add(gpa, gpa + len(data))
        self._settled.add(gpa, gpa + len(data))

    @property
    def written(self) -> tuple[tuple[int, bytes], ...]:
        """The after-image of all bytes that this call wrote: (gpa, bytes), merged and sorted."""
        return tuple((start, self._seen.get(start, end - start)) for start, end in self._written)

    @property
    def fetched(self) -> tuple[tuple[int, int], ...]:
        """Where this call has read guest memory: (gpa, size), merged and sorted."""
        fetched = ByteSet()
        for start, end in self._fetches:
            fetched.add(start, end)
        return tuple((start, end - start) for start, end in fetched)

    def reads_of(self, gpa: int) -> int:
        """Count how often this call fetched the byte at gpa from guest memory; at most 1 with a snapshot."""
        return sum(start <= gpa < end for start, end in self._fetches)

    def _fetch(self, start: int, end: int) -> None:
        self._seen.put(start, self._memory.read(start, end - start))
        self._fetches.append((start, end))
        if self._snapshot:
            self._settled.add(start, end)
        if self._flips is not None:
            self._flips.put(self._memory, start, end)


class _Flips:
    """What a hostile guest puts in place of what a host has read, each byte once."""

    def __init__(self, flips: Iterable[tuple[int, bytes]]) -> None:
        self._left: RangeMap[bool] = RangeMap(False)
        self._bytes = SparseBytes()
        for gpa, data in flips:
            _require_block(gpa, len(data))
            if gpa + len(data) > ADDRESS_LIMIT:
                raise ModelError("bad-address", f"a flip at {gpa:#x} runs over the address space", gpa=gpa)
            self._left.set(gpa, gpa + len(data), True)
            self._bytes.put(gpa, data)

    def put(self, memory: GuestMemory, start: int, end: int) -> None:
        """Put down what is left of the flips within [start, end)."""
        for flip in tuple(self._left.runs(start, end)):
            if flip.state:
                memory.poke(flip.start, self._bytes.get(flip.start, flip.end - flip.start))
        self._left.set(start, end, False)


def _require_block(gpa: int, size: int) -> None:
    if gpa < 0 or size < 0:
        raise ModelError("bad-address", f"gpa {gpa} and size {size} must not be negative", gpa=gpa, size=size)
