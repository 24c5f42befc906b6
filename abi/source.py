"""Strict YAML: every value with its place, every problem of a file at once, no surprises.

PyYAML reads ``51:12`` as 3072, ``010`` as 8, ``off`` as false, and lets the last duplicate key win. This
loader takes PyYAML's event stream (the C parser where there is one) and gives it the YAML 1.2 core meaning.
What YAML 1.1 reads otherwise is refused with a hint, and so are anchors, aliases, tags, merge keys, duplicate
keys, fractions, missing values, directives and more than one document. Aliases are refused before anything is
expanded, nesting is counted on an explicit stack, and all sizes are bounded, so a hostile file costs bounded
time and memory.
"""

from __future__ import annotations

import stat
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from hvabi.abi.diagnostics import Diagnostic
from hvabi.abi.errors import SpecError, show
from hvabi.abi.source_node import Node, NodeValue, Plain, SourceFile, Style, Trail, find, key_node, plain
from hvabi.abi.source_scalar import Refusal, resolve
from hvabi.abi.source_text import FORBIDDEN, MAX_BYTES, Event, Stop, Text

if TYPE_CHECKING:
    import os

__all__ = [
    "MAX_BYTES",
    "MAX_DEPTH",
    "MAX_NODES",
    "MAX_SCALAR",
    "Node",
    "NodeValue",
    "Plain",
    "SourceFile",
    "find",
    "key_node",
    "load_file",
    "load_text",
    "plain",
]

MAX_DEPTH = 40
"""Most mappings and lists inside each other."""
MAX_NODES = 100_000
"""Most values and keys of a file."""
MAX_SCALAR = 1 << 16
"""Longest string, in characters."""

_STYLES: dict[str, Style] = {"'": "single", '"': "double", "|": "literal", ">": "folded"}


def load_file(path: str | os.PathLike[str]) -> SourceFile:
    """Read a YAML file.

    Raises:
        SpecError: with every problem of the file, or ``yaml-unreadable``.

    """
    name = str(path)
    try:
        # A pipe or a device might never end.
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise _unreadable(name, "is not a regular file")
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise _unreadable(name, f"cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise _unreadable(name, f"cannot be read: {error}") from error
    return load_text(data, name)


def _unreadable(path: str, reason: str) -> SpecError:
    return SpecError([Diagnostic(id="yaml-unreadable", path=path, message=f"the file {reason}")])


def load_text(text: str | bytes, path: str = "<text>") -> SourceFile:
    """Read YAML text.

    Args:
        text: the document, as text or as UTF-8.
        path: what diagnostics call it.

    Raises:
        SpecError: with every problem of the text; a syntax error ends the search.

    """
    return _Builder(Text(text, str(path))).build()


class _Frame:
    """A mapping or list that is being read."""

    __slots__ = ("column", "drop", "flow", "items", "key", "keys", "line", "mapping", "numbers", "trail")

    def __init__(self, event: Event, trail: Trail, *, mapping: bool) -> None:
        self.mapping = mapping
        self.items: Any = {} if mapping else []
        self.keys: dict[str, Node] = {}
        self.numbers: dict[int, str] = {}
        self.key: str | None = None
        """The key that waits for its value."""
        self.drop = False
        """Whether the next value belongs to a key that was refused."""
        self.trail = trail
        self.line = event.start_mark.line
        self.column = event.start_mark.column
        self.flow = bool(event.flow_style)


class _Builder:
    """Makes nodes of events, on an explicit stack."""

    def __init__(self, text: Text) -> None:
        self._text = text
        self._root: Node | None = None
        self._stack: list[_Frame] = []
        self._count = 0

    def build(self) -> SourceFile:
        with suppress(Stop):
            self._read()
        self._text.problems.raise_if_errors()
        if self._root is None:
            raise AssertionError("no document and no problem")
        return SourceFile(path=self._text.path, lines=self._text.lines, root=self._root)

    def _read(self) -> None:
        with closing(self._text.events(self._text.decode())) as events:
            for event in events:
                self._take(event)
        if self._root is None and not len(self._text.problems):
            self._text.report_file("yaml-empty-document", "the file has no content", "write a mapping")

    def _take(self, event: Event) -> None:
        kind = type(event)
        if kind is yaml.ScalarEvent:
            self._count_node(event)
            self._check_properties(event)
            frame = self._stack[-1] if self._stack else None
            if frame is not None and frame.mapping and frame.key is None and not frame.drop:
                self._take_key(frame, event)
            else:
                self._attach(self._scalar(event, frame))
        elif kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
            self._count_node(event)
            self._check_properties(event)
            self._open(event, mapping=kind is yaml.MappingStartEvent)
        elif kind is yaml.AliasEvent:
            self._count_node(event)
            self._text.report_event(event, "yaml-alias", "aliases are not allowed", "write the value out")
            self._attach(self._node(None, event))
        else:
            self._close(event)

    def _count_node(self, event: Event) -> None:
        self._count += 1
        if self._count > MAX_NODES:
            message = f"the file has more than {MAX_NODES} values"
            self._text.report_event(event, "yaml-too-many-nodes", message, "split it")
            raise Stop

    def _check_properties(self, event: Event) -> None:
        if event.anchor is not None:
            self._text.report_event(
                event, "yaml-anchor", "anchors are not allowed", "write the value where it is needed"
            )
        if event.tag is not None:
            message = f"tags such as {show(event.tag)} are not allowed"
            self._text.report_event(event, "yaml-tag", message, "remove the tag; quote the value if it is text")

    def _trail(self, frame: _Frame | None) -> Trail:
        if frame is None:
            return None
        if not frame.mapping:
            return frame.trail, len(frame.items)
        return frame.trail, "?" if frame.key is None else frame.key

    def _node(self, value: NodeValue, event: Event, *, trail: Trail = None, style: Style = "plain") -> Node:
        start, end = event.start_mark, event.end_mark
        line, column = start.line, start.column
        end_column = end.column
        if end.line != line:
            end_column = len(self._text.lines[line].rstrip()) if line < len(self._text.lines) else column
        return Node(value, line + 1, column + 1, max(end_column, column) + 1, self._text.path, style, {}, trail)

    def _scalar(self, event: Event, frame: _Frame | None) -> Node:
        text: str = event.value
        value: str | int | bool | None = text
        style = _STYLES.get(event.style, "plain")
        if style == "plain" and event.tag is None:
            result = resolve(text)
            if isinstance(result, Refusal):
                if text or frame is None or frame.key is None:
                    self._text.report_event(event, *result)
                else:
                    self._report_empty(frame, frame.key, result)
            else:
                value = result
        else:
            self._check_text(event, text, style)
        if len(text) > MAX_SCALAR:
            message = f"the text has {len(text)} characters, the limit is {MAX_SCALAR}"
            self._text.report_event(event, "yaml-scalar-too-long", message, "split it")
        return self._node(value, event, trail=self._trail(frame), style=style)

    def _report_empty(self, frame: _Frame, key: str, refusal: Refusal) -> None:
        """Point at the key: the missing value has no place of its own."""
        at = frame.keys[key]
        message = f"{show(key)} has no value"
        self._text.report(at.line - 1, at.column - 1, refusal.id, message, refusal.hint, end_column=at.end_column - 1)

    def _check_text(self, event: Event, text: str, style: Style) -> None:
        if style == "double" and not text.isprintable():
            match = FORBIDDEN.search(text.replace("\r", "\0"))
            if match is not None:
                code = ord(text[match.start()])
                message = f"the text has the character U+{code:04X}, which is not allowed"
                self._text.report_event(event, "yaml-control-character", message, "remove the escape")

    def _take_key(self, frame: _Frame, event: Event) -> None:
        text: str = event.value
        style = _STYLES.get(event.style, "plain")
        number: int | None = None
        if style == "plain":
            result = resolve(text)
            if not text:
                self._text.report_event(event, "yaml-empty-key", "the key is missing", 'write a key, or ""')
                frame.drop = True
            elif isinstance(result, Refusal) and result.id != "yaml-integer-range":
                hint = "remove it; " if result.id == "yaml-merge-key" else ""
                hint += f"write {_quoted(text)} in quotes if it is the name of a key"
                self._text.report_event(event, result.id, f"{result.message} (as a key)", hint)
            elif result is None or isinstance(result, bool):
                message = f"{text} is no string, and keys are strings"
                self._text.report_event(event, "yaml-non-string-key", message, f"write {_quoted(text)} in quotes")
            elif isinstance(result, int):
                number = result
        else:
            self._check_text(event, text, style)
        if len(text) > MAX_SCALAR:
            message = f"the key has {len(text)} characters, the limit is {MAX_SCALAR}"
            self._text.report_event(event, "yaml-scalar-too-long", message, "write a short one")
        if frame.drop:
            return
        twin = text if text in frame.keys else frame.numbers.get(number) if number is not None else None
        if twin is not None:
            first = frame.keys[twin]
            same = "" if twin == text else f", as {twin}"
            message = f"the key {show(text)} is given twice, first at line {first.line}{same}"
            self._text.report_event(event, "yaml-duplicate-key", message, "keep one of the two")
            frame.drop = True
            return
        if number is not None:
            frame.numbers[number] = text
        frame.key = text
        frame.keys[text] = self._node(text, event, trail=(frame.trail, text), style=style)

    def _open(self, event: Event, *, mapping: bool) -> None:
        frame = self._stack[-1] if self._stack else None
        if frame is not None and frame.mapping and frame.key is None and not frame.drop:
            hint = "write a plain name; a list or mapping as a value needs a key before it"
            self._text.report_event(event, "yaml-complex-key", "a list or mapping cannot be a key", hint)
        if len(self._stack) == MAX_DEPTH:
            message = f"values are nested more than {MAX_DEPTH} levels deep"
            self._text.report_event(event, "yaml-too-deep", message, "make the structure flatter")
            raise Stop
        self._stack.append(_Frame(event, self._trail(frame), mapping=mapping))

    def _close(self, event: Event) -> None:
        frame = self._stack.pop()
        end = event.end_mark
        end_column = end.column
        if not frame.flow or end.line != frame.line:
            end_column = len(self._text.lines[frame.line].rstrip())
        style: Style = "flow" if frame.flow else "block"
        column = frame.column
        last = max(end_column, column) + 1
        self._attach(
            Node(frame.items, frame.line + 1, column + 1, last, self._text.path, style, frame.keys, frame.trail)
        )

    def _attach(self, node: Node) -> None:
        if not self._stack:
            self._root = node
            return
        frame = self._stack[-1]
        if not frame.mapping:
            frame.items.append(node)
        elif frame.key is not None:
            frame.items[frame.key] = node
            frame.key = None
        else:
            # The value of a refused key is dropped; a list, mapping or alias in place of a key becomes one.
            frame.drop = not frame.drop


def _quoted(text: str) -> str:
    return f'"{text}"' if len(text) <= 40 else "it"
