"""Codecs: a page state change buffer of 253 entries, and the registers of one call, by us and by other means.

Every contender is checked to have read the same numbers before it is measured. ``construct`` is used as its
documentation has it: a ``BitStruct`` for the bits of a word. The class of ``kaitaistruct`` is written by hand as its
compiler writes one, since the compiler is a program in Scala.
"""

from __future__ import annotations

import ctypes
import random
import struct
from collections import namedtuple
from enum import IntEnum

import construct

from benchmarks.measure import OURS, Effort, Goal, Report, Work, compare
from hvabi.abi.registry import load

ENTRIES = 253
SHIFTS = {"cur_page": (0, 12), "gfn": (12, 40), "operation": (52, 4), "pagesize": (56, 1), "reserved": (57, 7)}

Entry = namedtuple("Entry", SHIFTS)


class Operation(IntEnum):
    PRIVATE = 1
    SHARED = 2
    PSMASH = 3
    UNSMASH = 4


OPERATIONS = {int(each): each for each in Operation}


def buffer(count: int = ENTRIES) -> bytes:
    """Return a buffer as a guest fills it: 4 KiB and 2 MiB pages, in both directions."""
    rng = random.Random(1)
    words = [rng.getrandbits(40) << 12 | rng.choice((1, 2)) << 52 | rng.getrandbits(1) << 56 for _ in range(count)]
    return struct.pack(f"<HHI{count}Q", 0, min(count - 1, 0xFFFF), 0, *words)


def plain_entry() -> construct.Construct:
    return construct.ByteSwapped(
        construct.BitStruct(
            "reserved" / construct.BitsInteger(7),
            "pagesize" / construct.BitsInteger(1),
            "operation" / construct.Enum(construct.BitsInteger(4), PRIVATE=1, SHARED=2, PSMASH=3, UNSMASH=4),
            "gfn" / construct.BitsInteger(40),
            "cur_page" / construct.BitsInteger(12),
        )
    )


def plain_buffer() -> construct.Construct:
    return construct.Struct(
        "cur_entry" / construct.Int16ul,
        "end_entry" / construct.Int16ul,
        "reserved" / construct.Int32ul,
        "entries" / construct.Array(construct.this.end_entry + 1, plain_entry()),
    )


def by_struct_tuples(raw: bytes) -> tuple:
    head = struct.unpack_from("<HHI", raw)
    return (
        *head,
        [
            (w & 0xFFF, w >> 12 & 0xFFFFFFFFFF, w >> 52 & 0xF, w >> 56 & 1, w >> 57)
            for (w,) in struct.iter_unpack("<Q", raw[8:])
        ],
    )


def by_struct_typed(raw: bytes) -> tuple:
    head = struct.unpack_from("<HHI", raw)
    known = OPERATIONS.get
    return (
        *head,
        [
            Entry(w & 0xFFF, w >> 12 & 0xFFFFFFFFFF, known(w >> 52 & 0xF, w >> 52 & 0xF), w >> 56 & 1, w >> 57)
            for (w,) in struct.iter_unpack("<Q", raw[8:])
        ],
    )


class CEntry(ctypes.LittleEndianStructure):
    _fields_ = [(name, ctypes.c_uint64, bits) for name, (_, bits) in SHIFTS.items()]


class CBuffer(ctypes.LittleEndianStructure):
    _fields_ = [
        ("cur_entry", ctypes.c_uint16),
        ("end_entry", ctypes.c_uint16),
        ("reserved", ctypes.c_uint32),
        ("entries", CEntry * ENTRIES),
    ]


def by_ctypes(raw: bytes) -> tuple:
    whole = CBuffer.from_buffer_copy(raw)
    return (
        whole.cur_entry,
        whole.end_entry,
        whole.reserved,
        [(e.cur_page, e.gfn, e.operation, e.pagesize, e.reserved) for e in whole.entries],
    )


def kaitai() -> type | None:
    """Return the buffer's class, with its fields in the order of their bits as the compiler reads them."""
    try:
        from kaitaistruct import BytesIO, KaitaiStream, KaitaiStruct
    except ImportError:
        return None

    class KaitaiEntry(KaitaiStruct):
        def __init__(self, io, parent=None, root=None):
            super().__init__(io)
            self._parent = parent
            self._root = root or self
            self._read()

        def _read(self):
            self.cur_page = self._io.read_bits_int_le(12)
            self.gfn = self._io.read_bits_int_le(40)
            self.operation = self._io.read_bits_int_le(4)
            self.pagesize = self._io.read_bits_int_le(1)
            self.reserved = self._io.read_bits_int_le(7)

    class KaitaiBuffer(KaitaiStruct):
        def __init__(self, io, parent=None, root=None):
            super().__init__(io)
            self._parent = parent
            self._root = root or self
            self._read()

        def _read(self):
            self.cur_entry = self._io.read_u2le()
            self.end_entry = self._io.read_u2le()
            self.reserved = self._io.read_u4le()
            self.entries = []
            for _ in range(self.end_entry + 1):
                self._io.align_to_byte()
                self.entries.append(KaitaiEntry(self._io, self, self._root))

        @classmethod
        def from_bytes(cls, data):
            return cls(KaitaiStream(BytesIO(data)))

    return KaitaiBuffer


def rows_of(entries: object) -> list[tuple[int, ...]]:
    """Return entries of any form as numbers."""
    out = []
    for each in entries:  # type: ignore[attr-defined]  # a script
        if not isinstance(each, tuple):
            each = tuple(each[name] if isinstance(each, dict) else getattr(each, name) for name in SHIFTS)
        out.append(tuple(int(value) for value in each))
    return out


def psc(report: Report, effort: Effort) -> None:
    workload = f"PSC buffer, {ENTRIES} entries, typed values"
    codec = load("ghcb-psc").message("request")
    raw = buffer()
    plain = plain_buffer()
    compiled = plain.compile()
    right = by_struct_tuples(raw)[3]
    assert rows_of(codec.decode(raw).entries) == right
    assert rows_of(by_struct_typed(raw)[3]) == rows_of(by_ctypes(raw)[3]) == right
    assert rows_of(plain.parse(raw).entries) == rows_of(compiled.parse(raw).entries) == right
    contenders: dict[str, Work] = {
        OURS: lambda: codec.decode(raw),
        "hand-written struct, tuples": lambda: by_struct_tuples(raw),
        "hand-written struct, named tuples and enum": lambda: by_struct_typed(raw),
        "ctypes bit fields, every field read": lambda: by_ctypes(raw),
        "construct, compiled": lambda: compiled.parse(raw),
        "construct": lambda: plain.parse(raw),
    }
    absent = {}
    made = kaitai()
    if made is None:
        absent["kaitaistruct"] = "not installed"
    else:
        assert rows_of(made.from_bytes(raw).entries) == right
        contenders["kaitaistruct"] = lambda: made.from_bytes(raw)
    notes = {"kaitaistruct": "class written by hand as its compiler writes it; plain numbers"}
    compare(report, workload, contenders, effort, unit="buffer", notes=notes, absent=absent)
    against = report.ratio(workload, OURS, "hand-written struct, tuples")
    report.goals.append(
        Goal(text="PSC buffer: against hand-written struct that builds tuples", measured=against, limit=3)
    )
    against = report.ratio(workload, "construct")
    report.goals.append(Goal(text="PSC buffer: faster than plain construct", measured=against, limit=20, at_least=True))
    value = codec.decode(raw)
    reference = plain.parse(raw)
    assert bytes(codec.encode(value)) == plain.build(reference) == raw
    workload = f"PSC buffer, {ENTRIES} entries, built"
    building: dict[str, Work] = {
        OURS: lambda: codec.encode(value),
        "construct": lambda: plain.build(reference),
    }
    compare(report, workload, building, effort, unit="buffer", notes={OURS: "the whole GHCB page with it"})


def bulk(report: Report, effort: Effort) -> None:
    try:
        import numpy as np
    except ImportError:
        report.notes.append("numpy is not installed: no bulk codec, no bitmap of numpy")
        report.goals.append(Goal(text="bulk: against raw numpy", measured=None, limit=2, note="numpy is not installed"))
        return
    from hvabi.abi.bulk import BulkLayout

    ours = BulkLayout(load("ghcb-psc").layout("psc-entry"))

    def by_numpy(raw: bytes) -> dict[str, object]:
        words = np.frombuffer(raw, "<u8")
        return {name: words >> shift & ((1 << bits) - 1) for name, (shift, bits) in SHIFTS.items()}

    for count, text in ((ENTRIES, f"{ENTRIES} entries"), (1_000_000, "a million entries")):
        raw = buffer(count)[8:]
        found, wanted = ours.decode(raw), by_numpy(raw)
        assert all((found[name] == wanted[name]).all() for name in SHIFTS)
        workload = f"PSC entries in bulk, {text}"
        compare(
            report,
            workload,
            {OURS: lambda raw=raw: ours.decode(raw), "raw numpy": lambda raw=raw: by_numpy(raw)},
            effort,
            unit="array",
        )
        against = report.ratio(workload, OURS, "raw numpy")
        report.goals.append(Goal(text=f"bulk, {text}: against raw numpy", measured=against, limit=2))


def registers(report: Report, effort: Effort) -> None:
    """Registers of one call: decode and encode alone."""
    codec = load("kvm-map-gpa-range").message("request")
    regs = dict(codec.encode(gpa=0x100000, npages=16, attributes={"encrypted": 0}).regs)
    plain = kvm_request()
    raw = struct.pack("<4Q", 12, 0x100000, 16, 0)
    assert plain.parse(raw).gpa == codec.decode(regs).gpa == 0x100000
    contenders: dict[str, Work] = {
        OURS: lambda: codec.decode(regs),
        "construct": lambda: plain.parse(raw),
        "hand-written struct, tuples": lambda: by_hand(raw),
    }
    compare(report, "KVM_HC_MAP_GPA_RANGE in registers, typed values", contenders, effort)


def by_hand(raw: bytes) -> tuple:
    nr, gpa, npages, word = struct.unpack("<4Q", raw)
    return nr, gpa, npages, (word & 0xF, word >> 4 & 1, word >> 5)


def kvm_request() -> construct.Construct:
    """Return the four registers of KVM's hypercall 12 as plain construct has them."""
    return construct.Struct(
        "nr" / construct.Int64ul,
        "gpa" / construct.Int64ul,
        "npages" / construct.Int64ul,
        "attributes"
        / construct.ByteSwapped(
            construct.BitStruct(
                "reserved" / construct.BitsInteger(59),
                "encrypted" / construct.BitsInteger(1),
                "page_size" / construct.Enum(construct.BitsInteger(4), SIZE_4K=0, SIZE_2M=1, SIZE_1G=2),
            )
        ),
    )


def run(report: Report, effort: Effort) -> None:
    psc(report, effort)
    bulk(report, effort)
    registers(report, effort)
