"""Values of a YAML file that know where they stand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from hvabi.abi.diagnostics import Diagnostic, Severity
from hvabi.abi.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

NodeValue: TypeAlias = "dict[str, Node] | list[Node] | str | int | bool | None"
Plain: TypeAlias = "dict[str, Plain] | list[Plain] | str | int | bool | None"
Style = Literal["plain", "single", "double", "literal", "folded", "flow", "block"]
Trail: TypeAlias = "tuple[Trail, str | int] | None"


# Not frozen: a file has thousands of nodes, and a frozen class takes three times as long to make one.
@dataclass(slots=True, eq=False)
class Node:
    """One value of a YAML file and its place, never changed after it is made. Nodes compare by identity.

    Attributes:
        value: a mapping or list of nodes, or a string, integer, truth value or null.
        line: 1-based.
        column: 1-based, in characters, of the first character (the quote, the ``|``, the ``[``).
        end_column: 1-based column after the last character on `line`.
        path: the file as the user named it.
        style: how it is written; ``flow`` and ``block`` for mappings and lists.
        keys: of a mapping, the place of each key as a node whose value is the key; empty otherwise.

    """

    value: NodeValue
    line: int
    column: int
    end_column: int
    path: str = field(repr=False)
    style: Style = "plain"
    keys: dict[str, Node] = field(default_factory=dict, repr=False)
    trail: Trail = field(default=None, repr=False)
    """Parent's trail and the key or index in it: a pointer that costs nothing until it is asked for."""

    @property
    def pointer(self) -> str:
        """JSON pointer (RFC 6901) of the value in its file; empty for the root."""
        parts: list[str] = []
        trail = self.trail
        while trail is not None:
            trail, key = trail
            parts.append("/" + str(key).replace("~", "~0").replace("/", "~1"))
        return "".join(reversed(parts))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SourceFile:
    """A YAML file that was read without an error.

    Attributes:
        path: the file as the user named it.
        lines: its lines without line ends.
        root: its only document.

    """

    path: str
    lines: tuple[str, ...] = field(repr=False)
    root: Node

    def line(self, number: int) -> str | None:
        """Return the text of a line by its 1-based number, or None when there is no such line."""
        return self.lines[number - 1] if 0 < number <= len(self.lines) else None

    def diagnostic(
        self,
        node: Node,
        id: str,
        message: str,
        hint: str | None = None,
        *,
        severity: Severity = "error",
        offset: int | None = None,
        length: int = 1,
    ) -> Diagnostic:
        """Return a diagnostic that points at a node of this file.

        Args:
            node: the value, or a key from `key_node`.
            id: stable kebab-case name of the kind of problem.
            message: what is wrong, one sentence without a full stop.
            hint: what to do.
            severity: ``error`` or ``warning``.
            offset: 0-based offset into the text of a string, to point at a part of it, for example where an
                expression has its error (`ExprError.column` minus 1). The whole value is marked when the text
                does not stand in the file letter by letter.
            length: characters to mark from `offset`.

        """
        line, column, end_column = node.line, node.column, node.end_column
        if offset is not None and isinstance(node.value, str):
            place = self._place(node, node.value, offset)
            if place is not None:
                line, column = place
                end_column = column + max(length, 1)
        return Diagnostic(
            id=id,
            severity=severity,
            path=self.path,
            line=line,
            column=column,
            end_column=end_column,
            message=message,
            hint=hint,
            source_line=self.line(line),
        )

    def _place(self, node: Node, text: str, offset: int) -> tuple[int, int] | None:
        """Find where a character of a string stands in the file."""
        offset = min(max(offset, 0), len(text))
        row = 0
        if node.style == "literal":
            row = 1 + text.count("\n", 0, offset)
            start = text.rfind("\n", 0, offset) + 1
            text, offset = text[start:].split("\n", 1)[0], offset - start
        line = self.line(node.line + row)
        if line is None:
            return None
        first = 0 if row else node.column - 1 + (node.style in {"single", "double"})
        at = line.find(text, first)
        return None if at < 0 or (not row and at != first) else (node.line + row, at + offset + 1)


def plain(node: Node) -> Plain:
    """Return the value as ordinary Python data: dict, list, str, int, bool, None."""
    value = node.value
    if isinstance(value, dict):
        return {key: plain(child) for key, child in value.items()}
    if isinstance(value, list):
        return [plain(child) for child in value]
    return value


def find(node: Node, path: Sequence[str | int]) -> Node:
    """Return the value below a node by its keys and indexes, for example ``("messages", "request", 0)``.

    Raises:
        UsageError: ``unknown-key``; its ``pointer`` field says how far the path led.

    """
    for part in path:
        value = node.value
        child: Node | None = None
        if isinstance(value, dict):
            child = value.get(str(part))
        elif isinstance(value, list) and str(part).isdecimal() and int(part) < len(value):
            child = value[int(part)]
        if child is None:
            known = value if isinstance(value, dict) else map(str, range(len(value))) if isinstance(value, list) else ()
            raise UsageError.unknown("key", part, known)
        node = child
    return node


def key_node(mapping: Node, key: str) -> Node:
    """Return the place of a key in a mapping, as a node whose value is the key.

    Raises:
        UsageError: ``unknown-key``.

    """
    if key not in mapping.keys:
        raise UsageError.unknown("key", key, mapping.keys)
    return mapping.keys[key]
