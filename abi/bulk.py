"""Arrays of equal words or structures, and of register values, as numpy columns: for buffers, vectors and long traces.

numpy is optional (``pip install hvabi[bulk]``). Columns hold plain numbers, no members of enums. A field that is a word
of its own gives a column for each of its fields, ``attributes.encrypted``, and none for itself. Values are those of
`hvabi.abi.codec`; tests hold the two equal for all layouts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hvabi.abi.errors import CodecError, UsageError
from hvabi.abi.expr import evaluate
from hvabi.abi.model import RegisterPlace
from hvabi.abi.straight_layout import WORDS, shift_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hvabi.abi.codec import LayoutCodec, MessageCodec
    from hvabi.abi.model import Field, Layout

Column = Any
"""A one-dimensional array of integers."""


def _numpy() -> Any:
    try:
        import numpy
    except ImportError as error:
        raise UsageError("numpy is not installed", code="no-numpy", hint="pip install hvabi[bulk]") from error
    return numpy


class BulkLayout:
    """An array of one layout, in both directions.

    Args:
        codec: the layout, as `hvabi.abi.registry.Spec.layout` gives it.

    Raises:
        UsageError: ``no-numpy``; ``no-bulk`` where a field lies in an integer that is not of 1, 2, 4 or 8 bytes.

    """

    def __init__(self, codec: LayoutCodec) -> None:
        self.layout: Layout = codec.layout
        self._np = _numpy()
        order = "<" if self.layout.endian == "little" else ">"
        places: dict[tuple[int, int], str] = {}
        self._fields = list(_leaves(self.layout, "", 0, None))
        self._at: list[tuple[str, int]] = []
        whole = self.layout.size if self.layout.size in WORDS else 0
        for name, item, shift in self._fields:
            at, size = (0, whole) if whole else _integer(self.layout, item, shift, name)
            places.setdefault((at, size), f"i{at}_{size}")
            base = at if self.layout.endian == "little" else self.layout.size - at - size
            self._at.append((places[at, size], shift - base * 8))
        self._dtype = self._np.dtype(
            {
                "names": list(places.values()),
                "formats": [f"{order}u{size}" for _, size in places],
                "offsets": [at for at, _ in places],
                "itemsize": self.layout.size,
            }
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all columns, in order."""
        return tuple(name for name, _, _ in self._fields)

    def decode(self, data: bytes) -> dict[str, Column]:
        """Return every field as an array. Raises `CodecError` ``truncated`` where the last element is cut off."""
        if len(data) % self.layout.size:
            raise CodecError(
                "truncated",
                "ends within an element",
                message_name=self.layout.name,
                byte_offset=len(data) - len(data) % self.layout.size,
                expected=f"elements of {self.layout.size} bytes",
                found=len(data),
            )
        np = self._np
        rows = np.frombuffer(data, self._dtype)
        words = {name: rows[name] for name in self._dtype.names}
        if self._dtype.byteorder != "=":
            words = {name: word.astype(word.dtype.newbyteorder("=")) for name, word in words.items()}
        return {
            name: _bits(np, words[place], shift, item)
            for (name, item, _), (place, shift) in zip(self._fields, self._at, strict=True)
        }

    def encode(self, columns: Mapping[str, Column]) -> bytes:
        """Return the bytes of an array; a column that is left out is the field's default or 0.

        Raises `CodecError` ``unknown-field``, ``value-too-large`` with the index, ``wrong-type``, ``missing-field``
        where there is no column at all.
        """
        np = self._np
        unknown = [name for name in columns if name not in self.names]
        if unknown or not columns:
            raise CodecError(
                "unknown-field" if unknown else "missing-field",
                f"there is no column {unknown[0]!r}" if unknown else "there is no column",
                message_name=self.layout.name,
                expected="one of " + ", ".join(self.names),
            )
        lengths = {len(column) for column in columns.values()}
        if len(lengths) != 1:
            raise CodecError("wrong-type", "columns differ in length", message_name=self.layout.name)
        rows = np.zeros(lengths.pop(), self._dtype)
        for (name, item, _), (place, shift) in zip(self._fields, self._at, strict=True):
            given = columns.get(name)
            if given is None:
                literal = item.const or item.default
                numbers = np.full(len(rows), 0 if literal is None else evaluate(literal, {}, "int"), "u8")
            else:
                numbers = self._checked(name, item, given)
            rows[place] |= numbers.astype("u8") << np.uint64(shift)
        return bytes(rows.tobytes())

    def _checked(self, name: str, item: Field, given: Column) -> Column:
        np = self._np
        column = np.asarray(given)
        if column.dtype.kind not in "iu":
            raise CodecError("wrong-type", "is no column of integers", message_name=self.layout.name, path=name)
        low, high = (-(1 << (item.bits - 1)), 1 << (item.bits - 1)) if item.signed else (0, 1 << item.bits)
        bad = np.zeros(len(column), bool)
        limits = np.iinfo(column.dtype)
        if limits.min < low:
            bad |= column < low
        if limits.max >= high:
            bad |= column >= high
        if bad.any():
            index = int(bad.argmax())
            raise CodecError(
                "value-too-large",
                f"does not fit {item.bits} bits",
                message_name=self.layout.name,
                path=f"[{index}].{name}",
                bit_range=(item.hi, item.lo),
                expected=f"{low:#x} to {high - 1:#x}",
                found=int(column[index]),
            )
        return column.astype("u8") & np.uint64((1 << item.bits) - 1)


def register_columns(codec: MessageCodec, registers: Mapping[str, Column]) -> dict[str, Column]:
    """Return the fields of many calls at once, from arrays of register values.

    Fields that lie in a register which is not given, or in no register, are left out. Constants are not judged: compare
    their columns. Raises `UsageError` ``no-numpy``.
    """
    np = _numpy()
    found: dict[str, Column] = {}
    for name, item in codec.message.fields.items():
        place = codec.placer.place_of(name)
        if not isinstance(place, RegisterPlace) or place.register not in registers:
            continue
        word = np.asarray(registers[place.register]).astype("u8", copy=False)
        width = item.bits if place.hi is None else place.hi - place.lo + 1
        if item.word is not None:
            mask = np.uint64((1 << min(width, 64)) - 1)
            for part, inner, shift in _leaves(item.word, f"{name}.", 0, None):
                found[part] = _bits(np, word >> np.uint64(place.lo) & mask, shift, inner)
        else:
            found[name] = _bits(np, word, place.lo, item, width=min(width, item.bits))
    return found


def _leaves(layout: Layout, prefix: str, base: int, cut: int | None) -> Iterator[tuple[str, Field, int]]:
    """Yield the fields that are no words, with their lowest bit in the outermost integer."""
    for name, item in layout.fields.items():
        shift = base + shift_of(item, layout)
        if item.word is not None:
            yield from _leaves(item.word, f"{prefix}{name}.", shift, cut)
        else:
            yield f"{prefix}{name}", item, shift


def _integer(layout: Layout, item: Field, shift: int, name: str) -> tuple[int, int]:
    """Return byte offset and size of the smallest aligned integer that holds the bits."""
    first, last = shift // 8, (shift + item.bits - 1) // 8
    for size in sorted(WORDS):
        start = first // size * size
        if last < start + size <= layout.size:
            return (start if layout.endian == "little" else layout.size - start - size), size
    raise UsageError(
        f"{layout.name}.{name} lies across integers of 8 bytes",
        code="no-bulk",
        hint="decode the elements one by one",
    )


def _bits(np: Any, word: Column, shift: int, item: Field, width: int | None = None) -> Column:
    bits = item.bits if width is None else width
    full = word.dtype.itemsize * 8
    if shift:
        word = word >> word.dtype.type(shift)
    if bits + shift < full:
        word = word & word.dtype.type((1 << bits) - 1)
    if item.signed:
        signed = word.astype(f"i{word.dtype.itemsize}")
        spare = full - bits
        return (signed << spare) >> spare if spare else signed
    return word
