"""Diagnostics: what is wrong in a specification file, where, and what to do about it.

One `Diagnostic` is one problem. It is rendered as text with the source line and a caret, as JSON, or as a
GitHub workflow command. Text from a file never reaches a terminal raw: control characters are escaped.
"""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from hvabi.abi.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Iterable

Severity = Literal["error", "warning"]

_ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*\Z")
_PLAIN = re.compile(r"[ -~]*\Z")
_WINDOW = 140
"""Most characters of a source line that are shown."""

_COLORS = {
    "error": "\x1b[1;31m",
    "warning": "\x1b[1;35m",
    "bold": "\x1b[1m",
    "dim": "\x1b[2m",
    "off": "\x1b[0m",
}


def escape(text: str) -> str:
    r"""Return text with everything escaped that could steer a terminal: controls, bidi marks, surrogates.

    A tab becomes a space; other such characters are written ``\xNN``, ``\uNNNN`` or ``\UNNNNNNNN``.
    """
    if _PLAIN.match(text):
        return text
    return "".join(map(_escape_char, text))


def _escape_char(char: str) -> str:
    if char == "\t":
        return " "
    if unicodedata.category(char) in {"Cc", "Cf", "Cs", "Cn", "Zl", "Zp"}:
        code = ord(char)
        return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    return char


def _width(text: str) -> int:
    """Columns that escaped text takes on a terminal."""
    if _PLAIN.match(text):
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnostic:
    """One problem in one place of one file.

    Attributes:
        id: stable kebab-case name of the kind of problem, for example ``yaml-duplicate-key``.
        severity: ``error`` or ``warning``.
        path: the file as the user named it.
        line: 1-based; 0 when the problem is the file as a whole.
        column: 1-based, in characters; 0 when only the line is known.
        end_column: 1-based column after the last character; at most `column` when unknown.
        message: what is wrong, one sentence without a full stop.
        hint: what to do, or None.
        source_line: the text of the line, or None.

    """

    id: str
    path: str
    message: str
    severity: Severity = "error"
    line: int = 0
    column: int = 0
    end_column: int = 0
    hint: str | None = None
    source_line: str | None = None

    def __post_init__(self) -> None:
        if not _ID.match(self.id):
            raise ValueError(f"diagnostic id must be kebab-case: {self.id!r}")

    @property
    def position(self) -> tuple[str, int, int, str, str]:
        """Sort key: file, line, column, then id and message so that the order never depends on chance."""
        return self.path, self.line, self.column, self.id, self.message

    def text(self, *, color: bool = False) -> str:
        """Return the diagnostic as lines of text, with the source line and a caret where they are known."""
        paint = _COLORS if color else dict.fromkeys(_COLORS, "")
        where = escape(self.path)
        if self.line:
            where += f":{self.line}"
            if self.column:
                where += f":{self.column}"
        kind = f"{paint[self.severity]}{self.severity}[{self.id}]:{paint['off']}"
        out = [f"{paint['bold']}{where}:{paint['off']} {kind} {escape(self.message)}"]
        if self.source_line is not None and self.line:
            shown, before, marked = self._excerpt(self.source_line)
            margin = f"{self.line:>5} | "
            out.append(f"{paint['dim']}{margin}{paint['off']}{shown}".rstrip())
            if self.column:
                gutter = " " * (len(margin) - 2) + "| "
                caret = " " * before + "^" + "~" * (marked - 1)
                out.append(f"{paint['dim']}{gutter}{paint['off']}{paint[self.severity]}{caret}{paint['off']}")
        if self.hint:
            out.append(f"{paint['bold']}hint:{paint['off']} {escape(self.hint)}")
        return "\n".join(out)

    def _excerpt(self, line: str) -> tuple[str, int, int]:
        """Cut a window around the column; return it escaped, and the caret's offset in it and width."""
        start = min(max(self.column - 1, 0), len(line))
        first = 0 if len(line) <= _WINDOW or start < _WINDOW * 3 // 4 else start - _WINDOW // 2
        last = min(len(line), first + _WINDOW)
        lead, tail = "…" if first else "", "…" if last < len(line) else ""
        before = lead + escape(line[first:start])
        marked = escape(line[start : min(max(self.end_column - 1, start + 1), last)])
        return lead + escape(line[first:last]) + tail, _width(before), max(_width(marked), 1)


def render_text(diagnostics: Iterable[Diagnostic], color: bool = False) -> str:
    """Return diagnostics as text for people, in the given order; empty for none."""
    return "\n".join(diagnostic.text(color=color) for diagnostic in diagnostics)


def render_json(diagnostics: Iterable[Diagnostic]) -> str:
    """Return diagnostics as one JSON object with the keys ``errors``, ``warnings`` and ``diagnostics``."""
    rows = [asdict(diagnostic) for diagnostic in diagnostics]
    errors = sum(row["severity"] == "error" for row in rows)
    return json.dumps({"errors": errors, "warnings": len(rows) - errors, "diagnostics": rows}, indent=2)


def render_github(diagnostics: Iterable[Diagnostic]) -> str:
    """Return diagnostics as GitHub workflow commands, one a line; a pull request shows them in place."""
    return "\n".join(map(_github, diagnostics))


def _github(diagnostic: Diagnostic) -> str:
    properties = [("file", diagnostic.path)]
    if diagnostic.line:
        properties.append(("line", str(diagnostic.line)))
        if diagnostic.column:
            properties.append(("col", str(diagnostic.column)))
            if diagnostic.end_column > diagnostic.column:
                properties.append(("endColumn", str(diagnostic.end_column)))
    properties.append(("title", diagnostic.id))
    joined = ",".join(f"{name}={_github_property(value)}" for name, value in properties)
    body = _github_data(diagnostic.message)
    if diagnostic.hint:
        body += "%0A" + _github_data(f"hint: {diagnostic.hint}")
    return f"::{diagnostic.severity} {joined}::{body}"


def _github_data(text: str) -> str:
    # Line breaks travel as %0A; every other control character is escaped for the log that people read.
    lines = re.split(r"\r\n|\r|\n", text)
    return "%0A".join(escape(line).replace("%", "%25") for line in lines)


def _github_property(text: str) -> str:
    return _github_data(text).replace(":", "%3A").replace(",", "%2C")


class Collector:
    """Gathers the diagnostics of one run, so that all errors of a file are shown at once.

    Repeated diagnostics are kept once. At most `limit` are stored; `diagnostics` then ends with one that says
    how many were left out, so that a hostile file cannot fill memory or the screen.
    """

    def __init__(self, *, limit: int = 1000) -> None:
        self._limit = limit
        self._found: dict[Diagnostic, None] = {}
        self._left_out = 0
        self._has_errors = False

    def add(self, diagnostic: Diagnostic) -> None:
        """Take one diagnostic."""
        self._has_errors = self._has_errors or diagnostic.severity == "error"
        if diagnostic in self._found:
            return
        if len(self._found) < self._limit:
            self._found[diagnostic] = None
        else:
            self._left_out += 1

    def extend(self, diagnostics: Iterable[Diagnostic]) -> None:
        """Take several diagnostics, for example those of a caught `SpecError`."""
        for diagnostic in diagnostics:
            self.add(diagnostic)

    def __len__(self) -> int:
        return len(self._found) + self._left_out

    @property
    def has_errors(self) -> bool:
        """Whether any diagnostic, stored or left out, was an error."""
        return self._has_errors

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """Everything gathered, sorted by file, line and column."""
        found = sorted(self._found, key=lambda diagnostic: diagnostic.position)
        if self._left_out:
            found.append(
                Diagnostic(
                    id="too-many-problems",
                    severity="error" if self._has_errors else "warning",
                    path=found[-1].path if found else "",
                    message=f"{self._left_out} more problems are not shown",
                    hint="mend those above first",
                )
            )
        return tuple(found)

    def raise_if_errors(self) -> None:
        """Raise `SpecError` with everything gathered when there is an error; warnings alone pass."""
        if self._has_errors:
            raise SpecError(self.diagnostics)
