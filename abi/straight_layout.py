"""Straight-line code for words and structures, written from their layouts: the fast side of `hvabi.abi._compile`.

The node of construct is the reference. What is generated here gives exactly what the node gives, or None: then the node
is asked, which knows the right answer and every error. Tests hold the two equal for all layouts.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from hvabi.abi.expr import evaluate
from hvabi.abi.values import by_identity, opener, value_class

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hvabi.abi.model import Endian, Field, Layout

WORDS = {1: "B", 2: "H", 4: "I", 8: "Q"}
"""Format characters of `struct` for whole integers, by their size in bytes."""

_TABLE_BITS = 8
"""Widest enum that is looked up in a table with every number in it."""


def array_format(endian: Endian, count: int, size: int) -> str:
    """Return the format of `struct` for `count` integers of `size` bytes, which must be in `WORDS`."""
    return f"{'<' if endian == 'little' else '>'}{count}{WORDS[size]}"


class LayoutCode:
    """The generated functions of one layout.

    Attributes:
        from_int: a whole integer to a value.
        many: a tuple of values out of bytes: the bytes, how many, and their distance.

    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        scope = self._functions(_reading)
        self.from_int: Callable[[int], Any] = scope["from_int"]
        self.many: Callable[[bytes, int, int], tuple[Any, ...]] = scope["many"]

    def _functions(self, write: Callable[[Layout, dict[str, Any]], list[str]]) -> dict[str, Any]:
        layout = self.layout
        scope: dict[str, Any] = {
            "new": tuple.__new__,
            "cls": value_class(layout.name, tuple(layout.fields)),
            "names": frozenset(layout.fields),
            "array_format": array_format,
            "size": layout.size,
            "endian": layout.endian,
        }
        exec(compile("\n".join(write(layout, scope)), f"<hvabi layout {layout.name}>", "exec"), scope)
        return scope

    @cached_property
    def _writers(self) -> dict[str, Any]:
        # Written when they are needed: who only decodes does not pay for them.
        return self._functions(_writing)

    @cached_property
    def to_int(self) -> Callable[[Any], int | None]:
        """A value, or a dict of its fields, to the whole integer; None where the node has to be asked."""
        return self._writers["to_int"]  # type: ignore[no-any-return]  # the code above is ours

    @cached_property
    def ints(self) -> Callable[[Sequence[Any]], list[int] | None]:
        """Whole integers of a list of values or dicts; None where the node has to be asked for one of them."""
        return self._writers["ints"]  # type: ignore[no-any-return]  # as above

    def from_bytes(self, raw: bytes) -> Any:
        """Decode exactly the layout's bytes."""
        return self.from_int(int.from_bytes(raw, self.layout.endian))


def shift_of(item: Field, layout: Layout) -> int:
    """Return the lowest bit of a field in the whole layout taken as one integer."""
    # In a big-endian layout the first byte holds the highest bits of the whole integer.
    first = item.at if layout.endian == "little" else layout.size - item.at - item.size
    return first * 8 + item.lo


def covered(layout: Layout) -> int:
    """Return the bits of the whole integer that belong to fields."""
    mask = 0
    for item in layout.fields.values():
        mask |= ((1 << item.bits) - 1) << shift_of(item, layout)
    return mask


def _reading(layout: Layout, scope: dict[str, Any]) -> list[str]:
    parts = []
    for number, item in enumerate(layout.fields.values()):
        shift = shift_of(item, layout)
        code = f"w >> {shift} & {(1 << item.bits) - 1:#x}" if shift else f"w & {(1 << item.bits) - 1:#x}"
        parts.append(opened(code, item, number, scope))
    value = f"new(cls, ({''.join(part + ', ' for part in parts)}))"
    lines = ["def from_int(w):", f"    return {value}", "def many(raw, count, stride):"]
    if layout.size in WORDS:
        lines += [
            "    if stride == size:",
            f"        return tuple([{value} for w in unpack(array_format(endian, count, size), raw)])",
        ]
        from struct import unpack

        scope["unpack"] = unpack
    scope["from_bytes"] = int.from_bytes
    starts = "range(0, count * stride, stride)"
    lines.append(f"    return tuple([{value} for w in [from_bytes(raw[i : i + size], endian) for i in {starts}]])")
    return lines


def opened(code: str, item: Field, number: int, scope: dict[str, Any]) -> str:
    """Return code for the typed value of a field of which `code` gives the bits, `number` tells its helpers apart."""
    if item.signed:
        sign = 1 << (item.bits - 1)
        code = f"(({code}) ^ {sign:#x}) - {sign:#x}"
    return typed(code, item, str(number), scope)


def typed(code: str, item: Field, key: str, scope: dict[str, Any], *, in_range: bool = True) -> str:
    """Return code for the typed value of a number; `in_range` where it is known to fit the field."""
    if item.word is not None:
        scope[f"word_{key}"] = layout_code(item.word).from_int
        return f"word_{key}({code})"
    if item.enum is None:
        return code
    known = opener(item.enum)
    if in_range and item.bits <= _TABLE_BITS and not item.signed:
        scope[f"table_{key}"] = tuple(map(known, range(1 << item.bits)))
        return f"table_{key}[{code}]"
    scope[f"open_{key}"] = known
    return f"open_{key}({code})"


def _writing(layout: Layout, scope: dict[str, Any]) -> list[str]:
    """Return the functions that give an integer. Whatever is no integer in its range gives None."""
    names = [f"v{number}" for number in range(len(layout.fields))]
    unpacked = "".join(f"{name}, " for name in names)
    body = ["if type(v) is cls:", f"    {unpacked}= v", "elif type(v) is dict and names.issuperset(v):"]
    checks, bits, words = [], ["0"], []
    for number, (name, item) in enumerate(zip(names, layout.fields.values(), strict=True)):
        body.append(f"    {name} = v.get({item.name!r})")
        literal = item.const or item.default
        default = 0 if literal is None else evaluate(literal, {}, "int")
        if item.word is not None:
            scope[f"int{number}"] = layout_code(item.word).to_int
            words.append(f"{name} = int{number}({name}) if {name} is not None else {default}")
        else:
            words.append(f"if {name} is None: {name} = {default}")
        low, high = (-(1 << (item.bits - 1)), 1 << (item.bits - 1)) if item.signed else (0, 1 << item.bits)
        checks.append(f"{low} <= {name} < {high:#x}")
        masked = f"({name} & {(1 << item.bits) - 1:#x})" if item.signed else name
        shift = shift_of(item, layout)
        bits.append(f"{masked} << {shift}" if shift else masked)
    body += [
        "elif type(v) is int and 0 <= v < 1 << size * 8:",
        "    @whole",
        "else:",
        "    return None",
        *words,
        f"if not ({' and '.join(checks)}):",
        "    return None",
        f"w = {' | '.join(bits)}",
        # Anything that only acts like an integer spreads into the sum, and the node refuses it.
        "if type(w) is not int:",
        "    return None",
    ]

    def lines(indent: str, whole: str) -> list[str]:
        return [indent + line.replace("@whole", whole) for line in body]

    return [
        "def to_int(v):",
        "    try:",
        *lines("        ", "return v"),
        "    except TypeError:",
        "        return None",
        "    return w",
        "def ints(values):",
        "    out = []",
        "    put = out.append",
        "    try:",
        "        for v in values:",
        *lines("            ", "put(v); continue"),
        "            put(w)",
        "    except TypeError:",
        "        return None",
        "    return out",
    ]


@by_identity
def layout_code(layout: Layout) -> LayoutCode:
    """Return the generated code of a layout, made once."""
    return LayoutCode(layout)


def whole_number(layout: Layout, given: Any, path: str) -> int:
    """Return the whole integer of what was given for a layout; the node says what is wrong with it."""
    found = layout_code(layout).to_int(given)
    if found is None:
        # Imported when it is needed: construct takes longer to import than most messages to decode.
        from hvabi.abi._compile import layout_node

        found = layout_node(layout).to_int(given, path=path)
    return found
