"""The common model of a conversion and the state that all ABIs share.

Pages, ranges, bounds, memory slots and guest memory; nothing here knows an ABI.
"""

from hvabi.backend.export import from_bitmap, from_list, to_bitmap, to_list
from hvabi.backend.facts import FactOutcome, Facts
from hvabi.backend.generations import Generations
from hvabi.backend.invariants import InvariantError
from hvabi.backend.memory import MAX_BLOCK, CallMemory, GuestMemory, OutsideMemory
from hvabi.backend.model import (
    GPA_PAGES,
    PAGE_SHIFT,
    PAGE_SIZE,
    Change,
    Conversion,
    ModelError,
    Outcome,
    PageState,
    Run,
    Status,
)
from hvabi.backend.rangemap import CHUNK_SIZE, PAGE_LIMIT, RANGE_BYTES, RangeMap
from hvabi.backend.slots import MemoryLayout, Slot
from hvabi.backend.snapshot import Snapshot
from hvabi.backend.sparse import SparseBytes
from hvabi.backend.state import Absent, Backend

__all__ = [
    "CHUNK_SIZE",
    "GPA_PAGES",
    "MAX_BLOCK",
    "PAGE_LIMIT",
    "PAGE_SHIFT",
    "PAGE_SIZE",
    "RANGE_BYTES",
    "Absent",
    "Backend",
    "CallMemory",
    "Change",
    "Conversion",
    "FactOutcome",
    "Facts",
    "Generations",
    "GuestMemory",
    "InvariantError",
    "MemoryLayout",
    "ModelError",
    "Outcome",
    "OutsideMemory",
    "PageState",
    "RangeMap",
    "Run",
    "Slot",
    "Snapshot",
    "SparseBytes",
    "Status",
    "from_bitmap",
    "from_list",
    "to_bitmap",
    "to_list",
]
