"""Quoted-printable (RFC 2045 §6.7) taken off a stream of lines, where the stream is in it.

Mail archives keep many logs in this form: ``=`` is written ``=3D`` and long lines are broken, even inside
``npages  =`` and ``=3D 1``. So it must go before a reader looks at the text. But a kernel log is full of equals signs
of its own, so a part of a file counts as quoted-printable only when its mail header says so, or when its first
equals signs are all legal there and one of them is ``=3D``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from hvabi.traces.blocks import MAX_LINE, RawLine
from hvabi.traces.text import quote_prefix

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_ENCODING = re.compile(rb"content-transfer-encoding:\s{0,8}\"?([a-z0-9-]{1,40})", re.IGNORECASE)
_NEW_MAIL = re.compile(rb"From \S{1,200} .{0,80}\b\d{4}\b")
_ESCAPE = re.compile(rb"=([0-9A-Fa-f]{2})")
_ILLEGAL = re.compile(rb"=(?![0-9A-Fa-f]{2}|[ \t\r]*(?:\n|$))")
_SOFT = re.compile(rb"=[ \t\r]*\n")
_EVIDENCE = b"=3D"

_State = Literal["open", "yes", "no"]


class QuotedPrintable:
    """Decodes the lines that are in quoted-printable and passes on all others.

    Attributes:
        declared: line of the first mail header that says so, or None.
        detected: line where the content showed it, or None.
        soft_breaks: broken lines that were joined.
        cut_lines: joined lines that were longer than `MAX_LINE` bytes.
        first_cut: number of the first of them, or None.
        base64: line of the first mail header that says base64, or None; such parts are not decoded.

    """

    def __init__(self) -> None:
        self.declared: int | None = None
        self.detected: int | None = None
        self.soft_breaks = 0
        self.cut_lines = 0
        self.first_cut: int | None = None
        self.base64: int | None = None
        self._state: _State = "open"
        self._by_header = False
        self._announced: bool | None = None  # what a header says of the body that follows it
        self._held: RawLine | None = None  # a line whose end is a break

    def decode(self, lines: Iterable[RawLine]) -> Iterator[RawLine]:
        """Return the lines as they were before the mail was sent; each has the number of its first line."""
        for line in lines:
            yield from self.feed(line)
        yield from self.flush()

    def feed(self, line: RawLine) -> Iterator[RawLine]:
        """Take a line; yield those that are whole."""
        if self._held is None and self._plain(line):
            yield line
            return
        self._look(line)
        if self._held is not None and self._state != "yes":
            # Nothing has shown that the `=` at the end of the line before was a break.
            yield self._held
            self._held = None
        if self._state == "no" or (self._state == "open" and not _ends_softly(line)):
            yield line
            return
        whole = line if self._held is None else self._join(self._held, line)
        if _ends_softly(line):
            self._held = whole
        else:
            self._held = None
            yield from self._finished(whole)

    def flush(self) -> Iterator[RawLine]:
        """Yield the line that waits for more, at the end."""
        held, self._held = self._held, None
        if held is not None:
            yield from self._finished(held) if self._state == "yes" else (held,)

    def passes(self, block: bytes, *, header: bool) -> bool:
        """Tell whether all lines of a block pass as they are, and learn what there is to learn from them.

        `header` says whether a line of it begins a mail or says its encoding.
        """
        if self._state == "yes" or self._announced is not None or self._held is not None or header:
            return False
        if self._state == "open" and b"=" in block:
            if _EVIDENCE in block or _SOFT.search(block):
                return False
            if _ILLEGAL.search(block):
                self._state = "no"
        return True

    def _plain(self, line: RawLine) -> bool:
        """Note what headers say; tell whether the line can pass as it is. The common case, so it is cheap."""
        data = line.data
        if not data:
            if self._announced is not None:
                # Another encoding proves nothing: people quote such mails without decoding them.
                self._state = "yes" if self._announced else "open"
                self._by_header, self._announced = self._announced, None
            return True
        first = data[0]
        if first in b"Cc" and (match := _ENCODING.match(data)):
            encoding = match.group(1).lower()
            self._announced = encoding == b"quoted-printable"
            if self._announced and self.declared is None:
                self.declared = line.number
            if encoding == b"base64" and self.base64 is None:
                self.base64 = line.number
            return True
        if first == 0x46 and _NEW_MAIL.match(data):  # F
            self._state, self._by_header, self._announced = "open", False, None
            return True
        if self._announced is not None:
            return True  # still among the headers, which are not encoded
        return b"=" not in data or self._state == "no"

    def _look(self, line: RawLine) -> None:
        """Learn from the equals signs of a line. What a header says stands; what content showed can be taken back."""
        if self._by_header or self._state == "no" or b"=" not in line.data:
            return
        if _ILLEGAL.search(line.data):
            self._state = "no"
        elif self._state == "open" and _EVIDENCE in line.data:
            self._state = "yes"
            if self.detected is None:
                self.detected = line.number

    def _join(self, held: RawLine, line: RawLine) -> RawLine:
        self.soft_breaks += 1
        head, tail = held.data.rstrip(b" \t")[:-1], line.data
        # Programs that quote without decoding put the marks before every broken piece.
        prefix = quote_prefix(head)
        if prefix and tail.startswith(prefix):
            tail = tail[len(prefix) :]
        if len(head) + len(tail) > MAX_LINE:
            if not held.cut:
                self.cut_lines += 1
                self.first_cut = self.first_cut or held.number
            # The end stays, so that a break there is seen and the rest goes the same way.
            end = b"=" if tail.rstrip(b" \t").endswith(b"=") else b""
            return RawLine(held.number, (head + tail)[:MAX_LINE].rstrip(b" \t=") + end, True)
        return RawLine(held.number, head + tail, held.cut or line.cut)

    def _finished(self, line: RawLine) -> Iterator[RawLine]:
        data = line.data.rstrip(b" \t")
        if data.endswith(b"="):
            data = data[:-1]
        for piece in _ESCAPE.sub(_byte, data).split(b"\n"):
            yield RawLine(line.number, piece.rstrip(b"\r"), line.cut)


def _ends_softly(line: RawLine) -> bool:
    return line.data.rstrip(b" \t").endswith(b"=") and not line.cut


def _byte(match: re.Match[bytes]) -> bytes:
    return bytes((int(match.group(1), 16),))
