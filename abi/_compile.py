"""The construct nodes of the codecs. construct is imported here and nowhere else.

A word with bit fields is one integer read and shifts, not a ``BitStruct``: on a page state change buffer of 253
entries that is about five times faster, and it can name the bits of a field in an error.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import construct

from hvabi.abi.errors import CodecError
from hvabi.abi.expr import evaluate
from hvabi.abi.values import check_names, number_of, opener, value_class

if TYPE_CHECKING:
    from collections.abc import Callable

    from hvabi.abi.model import Endian, Field, Layout


class IntegerNode(construct.Construct):  # type: ignore[type-arg]  # construct is generic in its stubs only
    """An unsigned or signed integer of any number of bytes."""

    def __init__(self, size: int, endian: Endian, *, signed: bool = False) -> None:
        super().__init__()
        self.size = size
        self.endian = endian
        self.signed = signed

    def _parse(self, stream: Any, context: Any, path: str) -> int:
        return int.from_bytes(construct.stream_read(stream, self.size, path), self.endian, signed=self.signed)

    def _build(self, obj: Any, stream: Any, context: Any, path: str) -> Any:
        construct.stream_write(stream, obj.to_bytes(self.size, self.endian, signed=self.signed), self.size, path)
        return obj

    def _sizeof(self, context: Any, path: str) -> int:
        return self.size


class LayoutNode(construct.Construct):  # type: ignore[type-arg]  # as above
    """A layout: its bytes are read once, as one integer where it is a word; fields are shifts and masks."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.layout = layout
        self.value_class = value_class(layout.name, tuple(layout.fields))
        self.parts = [_Part(item, layout) for item in layout.fields.values()]

    def _parse(self, stream: Any, context: Any, path: str) -> Any:
        raw = construct.stream_read(stream, self.layout.size, path)
        return self.from_bytes(raw)

    def from_bytes(self, raw: bytes) -> Any:
        """Decode exactly the layout's bytes."""
        word = int.from_bytes(raw, self.layout.endian)
        return self.value_class._make([part.get(word) for part in self.parts])

    def from_int(self, word: int) -> Any:
        """Decode a word that was already read as an integer."""
        return self.value_class._make([part.get(word) for part in self.parts])

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
        self.open: Callable[[int], Any] | None = None
        if field.word is not None:
            self.open = layout_node(field.word).from_int
        elif field.enum is not None:
            self.open = opener(field.enum)
        self.default = 0
        if (literal := field.const or field.default) is not None:
            self.default = evaluate(literal, {}, "int")

    def get(self, word: int) -> Any:
        number = (word >> self.shift) & self.mask
        if self.field.signed and number >> (self.field.bits - 1):
            number -= self.mask + 1
        return number if self.open is None else self.open(number)

    def put(self, given: Any, *, path: str) -> int:
        where = f"{path}.{self.name}" if path else self.name
        field = self.field
        if given is None:
            number = self.default
        elif field.word is not None:
            number = layout_node(field.word).to_int(given, path=where)
        else:
            number = number_of(field.enum, given, message=self.layout_name, path=where)
        low, high = (-(1 << (field.bits - 1)), 1 << (field.bits - 1)) if field.signed else (0, 1 << field.bits)
        if not low <= number < high:
            raise CodecError(
                "value-too-large",
                f"does not fit {field.bits} bits",
                message_name=self.layout_name,
                path=where,
                bit_range=(field.hi, field.lo),
                byte_offset=field.at,
                expected=f"{low:#x} to {high - 1:#x}",
                found=number,
            )
        return (number & self.mask) << self.shift


_NODES: dict[int, LayoutNode] = {}
_KEPT: list[Layout] = []


def layout_node(layout: Layout) -> LayoutNode:
    """Return the node of a layout; the same object for the same layout."""
    node = _NODES.get(id(layout))
    if node is None:
        node = _NODES[id(layout)] = LayoutNode(layout)
        _KEPT.append(layout)  # keeps the id in use
    return node


def parse_integer(raw: bytes, size: int, endian: Endian, *, signed: bool = False) -> int:
    """Decode an integer of exactly `size` bytes."""
    return int(IntegerNode(size, endian, signed=signed).parse(raw))


def build_integer(number: int, size: int, endian: Endian, *, signed: bool = False) -> bytes:
    """Encode an integer in `size` bytes."""
    return IntegerNode(size, endian, signed=signed).build(number)


def parse_list(raw: bytes, node: LayoutNode | IntegerNode, count: int, stride: int) -> tuple[Any, ...]:
    """Decode `count` elements that start `stride` bytes apart."""
    size = node.layout.size if isinstance(node, LayoutNode) else node.size
    if stride == size:
        return tuple(construct.Array(count, node).parse(raw))
    padded = construct.Padded(stride, node)
    stream = io.BytesIO(raw)
    # The last element needs no padding behind it.
    head = [padded.parse_stream(stream) for _ in range(count - 1)]
    return (*head, node.parse_stream(stream)) if count else ()
