"""The construct nodes of the codecs. construct is imported here and nowhere else.

A word with bit fields is one integer read and shifts, not a ``BitStruct``: on a page state change buffer of 253
entries that is about five times faster, and it can name the bits of a field in an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import construct

from hvabi.abi.errors import CodecError
from hvabi.abi.expr import evaluate
from hvabi.abi.values import check_names, number_of, opener, value_class

if TYPE_CHECKING:
    from collections.abc import Callable

    from hvabi.abi.model import Field, Layout


class LayoutNode(construct.Construct):  # type: ignore[type-arg]  # as above
    """A layout: its bytes are read once, as one integer where it is a word; fields are shifts and masks."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.layout = layout
        self.value_class = value_class(layout.name, tuple(layout.fields))
        self._make = self.value_class._make
        self.parts = [_Part(item, layout) for item in layout.fields.values()]

    def _parse(self, stream: Any, context: Any, path: str) -> Any:
        raw = construct.stream_read(stream, self.layout.size, path)
        return self.from_bytes(raw)

    def from_bytes(self, raw: bytes) -> Any:
        """Decode exactly the layout's bytes."""
        return self.from_int(int.from_bytes(raw, self.layout.endian))

    def from_int(self, word: int) -> Any:
        """Decode a word that was already read as an integer."""
        values = []
        for part in self.parts:
            number = word >> part.shift & part.mask
            values.append(number if part.open is None else part.open(number))
        return self._make(values)

    def _build(self, obj: Any, stream: Any, context: Any, path: str) -> Any:
        raw = self.to_int(obj, path="").to_bytes(self.layout.size, self.layout.endian)
        construct.stream_write(stream, raw, self.layout.size, path)
        return obj

    def to_int(self, given: Any, *, path: str) -> int:
        """Encode a value, a mapping (missing fields are 0 or their default) or a whole integer as one integer."""
        layout = self.layout
        if isinstance(given, int):
            if given < 0 or given >> (layout.size * 8):
                raise CodecError(
                    "value-too-large",
                    f"does not fit {layout.size * 8} bits",
                    message_name=layout.name,
                    path=path,
                    found=given,
                )
            return int(given)
        if type(given) is self.value_class:
            word = 0
            for part, item in zip(self.parts, given, strict=True):
                word |= part.put(item, path=path)
            return word
        if isinstance(given, tuple) and hasattr(given, "_fields"):
            given = dict(zip(given._fields, given, strict=True))
        if not isinstance(given, dict):
            raise CodecError(
                "wrong-type",
                "a layout is a number or names its fields",
                message_name=layout.name,
                path=path,
                found=given,
            )
        check_names(given, layout.fields, message=layout.name, path=path)
        word = 0
        for part in self.parts:
            word |= part.put(given.get(part.name), path=path)
        return word

    def _sizeof(self, context: Any, path: str) -> int:
        return self.layout.size


class _Part:
    """One field of a layout as a shift and a mask in the whole layout taken as one integer."""

    def __init__(self, field: Field, layout: Layout) -> None:
        self.field = field
        self.name = field.name
        self.layout_name = layout.name
        self.mask = (1 << field.bits) - 1
        # In a big-endian layout the first byte holds the highest bits of the whole integer.
        first = field.at if layout.endian == "little" else layout.size - field.at - field.size
        self.shift = first * 8 + field.lo
        self.low, self.high = (
            (-(1 << (field.bits - 1)), 1 << (field.bits - 1)) if field.signed else (0, 1 << field.bits)
        )
        self.open: Callable[[int], Any] | None = None
        if field.word is not None:
            self.open = layout_node(field.word).from_int
        elif field.enum is not None:
            self.open = opener(field.enum)
        if field.signed:
            self.open = _signed(field.bits, self.open)
        self.default = 0
        if (literal := field.const or field.default) is not None:
            self.default = evaluate(literal, {}, "int")

    def put(self, given: Any, *, path: str) -> int:
        """Return the field's bits at their place in the whole integer."""
        if given is None:
            number = self.default
        elif self.field.word is not None:
            number = layout_node(self.field.word).to_int(given, path=self._where(path))
        elif type(given) is int:
            number = given
        else:
            number = number_of(self.field.enum, given, message=self.layout_name, path=self._where(path))
        if not self.low <= number < self.high:
            raise CodecError(
                "value-too-large",
                f"does not fit {self.field.bits} bits",
                message_name=self.layout_name,
                path=self._where(path),
                bit_range=(self.field.hi, self.field.lo),
                byte_offset=self.field.at,
                expected=f"{self.low:#x} to {self.high - 1:#x}",
                found=number,
            )
        return (number & self.mask) << self.shift

    def _where(self, path: str) -> str:
        return f"{path}.{self.name}" if path else self.name


def _signed(bits: int, opened: Callable[[int], Any] | None) -> Callable[[int], Any]:
    """Return a reader of the two's complement number that `bits` bits hold."""

    def read(number: int) -> Any:
        number -= number >> (bits - 1) << bits
        return number if opened is None else opened(number)

    return read


_NODES: dict[int, LayoutNode] = {}
_KEPT: list[Layout] = []


def layout_node(layout: Layout) -> LayoutNode:
    """Return the node of a layout; the same object for the same layout."""
    node = _NODES.get(id(layout))
    if node is None:
        node = _NODES[id(layout)] = LayoutNode(layout)
        _KEPT.append(layout)  # keeps the id in use
    return node
