"""The text of a YAML file before it means anything: size, characters, syntax, and where the problems are."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml

from hvabi.abi.diagnostics import Collector, Diagnostic
from hvabi.abi.errors import show

if TYPE_CHECKING:
    from collections.abc import Generator

MAX_BYTES = 1 << 20
"""Longest file, in bytes."""

# The C parser where PyYAML was built with it; both give the same events.
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Event = Any
"""An event of PyYAML; its classes share no typed base with the fields that are used here."""

_BREAK = re.compile(r"\r\n|\r|\n")
# What YAML calls printable, without the line breaks that only YAML 1.1 knows and without bidi controls.
FORBIDDEN = re.compile(
    "[^\t\n\r\x20-\x7e\xa0-\u200d\u2010-\u2027\u202f-\u2065\u206a-\ud7ff"
    "\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
_MOST_FORBIDDEN = 20

_SYNTAX_HINTS = (
    ("mapping values are not allowed", "put text that has `: ` in it in quotes, and check the indentation"),
    ("expected key", "check the indentation of this line and of the one before"),
    ("<block end>", "check the indentation of this line and of the one before"),
    ("expected ':'", "a key needs `: ` after it; check the indentation, too"),
    ("',' or", "check that every [ and { is closed and that items are divided by commas"),
    ("end of stream", "check that every quote is closed"),
    ("escape", "inside double quotes write \\\\ for a backslash, or use single quotes"),
    ("'-' indicator", "check the indentation of this line and of the one before"),
    ("entries are not allowed", "put the text in quotes, and check the indentation"),
    ("tab character", "indent with spaces, not with tabs"),
    ("cannot start any token", "put the text in quotes"),
)


class Stop(Exception):
    """The reader cannot go on; the collector says why."""


class Text:
    """The lines of one file and the problems found in it.

    Args:
        given: the document, as text or as UTF-8.
        path: what diagnostics call it.

    """

    def __init__(self, given: str | bytes, path: str) -> None:
        self._given = given
        self.path = path
        self.problems = Collector()
        self.lines: tuple[str, ...] = ()
        self._opened: list[Event] = []

    def report(
        self, line: int, column: int, id: str, message: str, hint: str | None = None, *, end_column: int = 0
    ) -> None:
        """Take a problem; line and columns are 0-based, as PyYAML counts."""
        source_line = self.lines[line] if line < len(self.lines) else None
        self.problems.add(
            Diagnostic(
                id=id,
                path=self.path,
                line=line + 1,
                column=column + 1,
                end_column=end_column + 1,
                message=message,
                hint=hint,
                source_line=source_line,
            )
        )

    def report_file(self, id: str, message: str, hint: str) -> None:
        """Take a problem of the file as a whole."""
        self.problems.add(Diagnostic(id=id, path=self.path, message=message, hint=hint))

    def report_event(self, event: Event, id: str, message: str, hint: str | None = None) -> None:
        """Take a problem of one event."""
        start, end = event.start_mark, event.end_mark
        end_column = end.column if end.line == start.line else start.column + 1
        self.report(start.line, start.column, id, message, hint, end_column=end_column)

    def decode(self) -> str:
        """Return the text after checking its size and its characters."""
        data = self._given
        self._check_size(data)
        try:
            if isinstance(data, str):
                data = data.encode("utf-8")
                self._check_size(data)
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            before = error.object[: error.start].decode("utf-8")
            self._set_lines(error.object.decode("utf-8", "replace"))
            line, column = self._locate(before)
            message = f"byte 0x{error.object[error.start]:02x} is not UTF-8"
            self.report(line, column, "yaml-not-utf8", message, "save the file as UTF-8")
            raise Stop from None
        except UnicodeEncodeError as error:
            self._set_lines(error.object)
            line, column = self._locate(error.object[: error.start])
            self.report(line, column, "yaml-not-utf8", "the text has a lone surrogate", "save the file as UTF-8")
            raise Stop from None
        self._set_lines(text)
        if not text.isascii() or not text.isprintable():
            self._check_characters(text)
        return text

    def _check_size(self, data: str | bytes) -> None:
        if len(data) > MAX_BYTES:
            message = f"the file has more than {MAX_BYTES} bytes"
            self.report_file("yaml-file-too-large", message, "split it")
            raise Stop

    def _set_lines(self, text: str) -> None:
        self.lines = tuple(_BREAK.split(text))

    @staticmethod
    def _locate(before: str) -> tuple[int, int]:
        rows = _BREAK.split(before)
        return len(rows) - 1, len(rows[-1])

    def _check_characters(self, text: str) -> None:
        for number, match in enumerate(FORBIDDEN.finditer(text)):
            if number == _MOST_FORBIDDEN:
                break
            line, column = self._locate(text[: match.start()])
            code = ord(match[0])
            hint = "save the file without a byte order mark" if code == 0xFEFF else "remove it"
            message = f"character U+{code:04X} is not allowed"
            self.report(line, column, "yaml-control-character", message, hint, end_column=column + 1)
        if len(self.problems):
            raise Stop

    def events(self, text: str) -> Generator[Event, None, None]:
        """Yield the events of the one document; anything after it is a problem."""
        first = self._next_line(0)
        if first is not None and self.lines[first].startswith("%"):
            self._refuse_directive(first)
        documents = 0
        opened = self._opened
        parser = None
        try:
            parser = LOADER(text)
            while True:
                event = parser.get_event()
                kind = type(event)
                if kind is yaml.StreamEndEvent:
                    return
                if kind is yaml.DocumentEndEvent:
                    self._check_rest(event.end_mark.line)
                elif kind is yaml.DocumentStartEvent:
                    documents += 1
                    if documents > 1:
                        self._refuse_document(event.start_mark.line)
                elif kind is not yaml.StreamStartEvent:
                    if kind is yaml.SequenceStartEvent or kind is yaml.MappingStartEvent:
                        opened.append(event)
                    elif kind is yaml.SequenceEndEvent or kind is yaml.MappingEndEvent:
                        opened.pop()
                    yield event
        except yaml.MarkedYAMLError as error:
            self._report_syntax(error)
            raise Stop from None
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            # The pure Python parser converts character escapes without checking them.
            message = f"the parser gives up: {show(str(error))}"
            self.report_file("yaml-syntax", message, "check for unusual characters and escapes")
            raise Stop from None
        finally:
            if parser is not None:
                parser.dispose()

    def _is_end(self, line: int, column: int) -> bool:
        rest = self.lines[line][column:].strip() if line < len(self.lines) else ""
        return not rest and self._next_line(line + 1) is None

    def _next_line(self, start: int) -> int | None:
        """Return the next line with content, as a 0-based number."""
        for number in range(start, len(self.lines)):
            line = self.lines[number].strip()
            if line and not line.startswith("#"):
                return number
        return None

    def _check_rest(self, start: int) -> None:
        # Directives are never parsed: the C parser compares each %TAG with all before it.
        following = self._next_line(start)
        while following is not None and self.lines[following].startswith("..."):
            following = self._next_line(following + 1)
        if following is not None and self.lines[following].startswith("%"):
            self._refuse_directive(following)

    def _refuse_directive(self, line: int) -> None:
        self.report(line, 0, "yaml-directive", "directives are not allowed", "remove the line", end_column=1)
        raise Stop

    def _refuse_document(self, line: int) -> None:
        message = "there is a second document"
        self.report(line, 0, "yaml-multiple-documents", message, "keep one document in a file", end_column=3)
        raise Stop

    def _report_syntax(self, error: yaml.MarkedYAMLError) -> None:
        mark, start = error.problem_mark or error.context_mark, error.context_mark
        problem = (error.problem or "syntax error").strip()
        line, column = (mark.line, mark.column) if mark else (0, 0)
        message = f"{problem}, {error.context}" if error.context else problem
        if start is not None and (start.line, start.column) == (line, column):
            start = None
        at_end = self._is_end(line, column)
        if at_end and start is None and self._opened and self._opened[-1].flow_style:
            start = self._opened[-1].start_mark
            message = problem = "found the end of the file, expected ',' or the end of the list or mapping"
        if start is not None and at_end:
            # The end of the file says nothing; the place of what was left open does.
            line, column = start.line, start.column
            message += " that starts here"
        elif start is not None and start.line != line:
            message += f" that starts at line {start.line + 1}"
        hint = next((hint for words, hint in _SYNTAX_HINTS if words in problem), None)
        if line < len(self.lines) and self.lines[line][column : column + 1] == "\t":
            hint = "indent with spaces, not with tabs"
        self.report(line, column, "yaml-syntax", message, hint, end_column=column + 1)
