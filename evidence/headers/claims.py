"""What the specifications say about public headers: every `mirrors:` with its place, and what mirrors nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from hvabi.abi.source import Node, load_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

Kind = Literal["value", "mask", "size", "member", "bits"]

_MASK = re.compile(r"[A-Z][A-Z0-9_]*\Z")
_WORD = (1 << 64) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One statement of a specification file about a symbol of a header.

    Attributes:
        path: the specification file.
        line: 1-based line of the `mirrors:`.
        abi: id of the ABI, or name of the shared file.
        name: what it is called in the file: ``ENUM.VALUE``, ``CONSTANT``, ``layout``, ``layout.field``.
        kind: ``value`` of a constant, ``mask`` as a macro has it, ``size`` of a structure in bytes, ``member`` of a
            structure, or ``bits`` of one.
        symbol: the constant, the mask, the structure, or the member of `owner`.
        value: the number, the mask, or the size in bytes; for a member its size in bytes; for bits the structure with
            only these set, as a little-endian integer.
        offset: of a member, in bytes.
        partial: of a structure, whether the specification has only its first part.
        owner: the structure of a member.
        bits: width to which numbers are compared; a signed number is compared in two's complement.

    """

    path: str
    line: int
    abi: str
    name: str
    kind: Kind
    symbol: str
    value: int
    offset: int = 0
    partial: bool = False
    owner: str | None = None
    bits: int = 64

    @property
    def id(self) -> str:
        """The name with its ABI."""
        return f"{self.abi}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmirrored:
    """A number or structure of a specification file that names no public symbol."""

    path: str
    line: int
    abi: str
    name: str


def read_claims(paths: Iterable[Path]) -> tuple[list[Claim], list[Unmirrored]]:
    """Return all claims of specification files, and what makes none.

    Raises `SpecError` for a file that is no YAML. The shape of a file is lint's business: what has not the expected
    shape is passed over.
    """
    claims: list[Claim] = []
    others: list[Unmirrored] = []
    for path in paths:
        root = load_file(path).root
        abi = path.stem
        for item in (*_constants(root), *_enum_values(root), *_layouts(root)):
            name, node, about = item
            mirrors = _text(node, "mirrors")
            if mirrors is None:
                others.append(Unmirrored(path=str(path), line=node.line, abi=abi, name=name))
            else:
                claims.append(_claim(str(path), abi, name, node, mirrors, about))
    return claims, others


@dataclass(frozen=True, slots=True, kw_only=True)
class _About:
    kind: Literal["value", "layout", "field"]
    value: int
    bits: int = 64
    offset: int = 0
    owner: str | None = None
    mask: int = 0
    has_bits: bool = False


def _claim(path: str, abi: str, name: str, node: Node, mirrors: str, about: _About) -> Claim:
    line = _children(node)["mirrors"].line
    make = partial(Claim, path=path, line=line, abi=abi, name=name, symbol=mirrors)
    if about.kind == "value":
        return make(kind="value", value=about.value & ((1 << about.bits) - 1), bits=about.bits)
    if about.kind == "layout":
        return make(kind="size", value=about.value, partial=_child(node, "partial") is not None)
    if _MASK.match(mirrors):
        return make(kind="mask", value=about.mask)
    if about.has_bits:
        return make(kind="bits", value=about.mask << 8 * about.offset, owner=about.owner)
    return make(kind="member", value=about.value, offset=about.offset, owner=about.owner)


Found = tuple[str, Node, _About]


def _constants(root: Node) -> Iterator[Found]:
    for name, node in _children(_child(root, "constants")).items():
        value = _int(node, "value")
        if value is not None:
            yield name, node, _About(kind="value", value=value)


def _enum_values(root: Node) -> Iterator[Found]:
    for enum, node in _children(_child(root, "enums")).items():
        bits = _int(node, "bits") or 64
        for name, item in _children(_child(node, "values")).items():
            value = _int(item, "value")
            if value is not None:
                yield f"{enum}.{name}", item, _About(kind="value", value=value, bits=min(bits, 64))


def _layouts(root: Node) -> Iterator[Found]:
    for name, node in _children(_child(root, "layouts")).items():
        size = _int(node, "size")
        if size is None:
            continue
        owner = _text(node, "mirrors")
        yield name, node, _About(kind="layout", value=size)
        for field, item in _children(_child(node, "fields")).items():
            if owner is not None or _text(item, "mirrors") is not None:
                yield f"{name}.{field}", item, _field(item, size, owner)


def _field(node: Node, layout_size: int, owner: str | None) -> _About:
    """Return where a field lies: bytes for a member, the mask of its bits inside its integer for a bit field."""
    size, bits = _int(node, "size"), _bit_range(node)
    width = size if size is not None else layout_size
    mask = _WORD if bits is None else ((1 << (bits[0] - bits[1] + 1)) - 1) << bits[1]
    at = _int(node, "at") or 0
    return _About(kind="field", value=width, offset=at, owner=owner, mask=mask & _WORD, has_bits=bits is not None)


def _bit_range(node: Node) -> tuple[int, int] | None:
    bits = _child(node, "bits")
    if bits is None or not isinstance(bits.value, list) or len(bits.value) != 2:
        return None
    high, low = (item.value for item in bits.value)
    return (high, low) if isinstance(high, int) and isinstance(low, int) else None


def _children(node: Node | None) -> dict[str, Node]:
    return node.value if node is not None and isinstance(node.value, dict) else {}


def _child(node: Node | None, key: str) -> Node | None:
    return _children(node).get(key)


def _text(node: Node, key: str) -> str | None:
    child = _child(node, key)
    return child.value if child is not None and isinstance(child.value, str) else None


def _int(node: Node, key: str) -> int | None:
    child = _child(node, key)
    return child.value if child is not None and type(child.value) is int else None
