"""Lines of a trace, streaming and in bounded memory, whatever the file is.

`LineSource` cuts a stream of bytes into lines; what a mail program, a log daemon or a terminal put around the
text is taken off by the small functions here, one per kind of wrapping. Quoted-printable is in
`hvabi.traces.quoted_printable`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from hvabi.traces.errors import TraceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_LINE = 8192
"""Bytes kept of a line. The longest record of the kernel's log buffer is about 1000."""

PROGRESS_STEP = 1 << 20
"""Bytes between two calls of a progress function."""

_BLOCK = 1 << 16
_SAMPLE = 1 << 12

_MAGIC: tuple[tuple[bytes, str, str], ...] = (
    (b"\x1f\x8b", "a gzip file", "decompress it first: zcat FILE > trace.log"),
    (b"\x28\xb5\x2f\xfd", "a zstd file", "decompress it first: zstdcat FILE > trace.log"),
    (b"\xfd7zXZ\0", "an xz file", "decompress it first: xzcat FILE > trace.log"),
    (b"BZh", "a bzip2 file", "decompress it first: bzcat FILE > trace.log"),
    (b"PK\x03\x04", "a zip file", "unpack it first"),
    (b"PERFILE2", "a perf.data file", "print it as text first: perf script -i FILE > trace.log"),
    (b"\x17\x08\x44tracing", "a trace-cmd file", "print it as text first: trace-cmd report FILE > trace.log"),
    (b"LPKSHHRH", "a systemd journal file", "print it as text first: journalctl --file FILE -k > trace.log"),
    (b"\xff\xfe", "text in UTF-16", "convert it first: iconv -f UTF-16 -t UTF-8 FILE > trace.log"),
    (b"\xfe\xff", "text in UTF-16", "convert it first: iconv -f UTF-16 -t UTF-8 FILE > trace.log"),
)
_CONTROL = bytes(byte for byte in range(32) if byte not in b"\t\n\v\f\r\x1b") + b"\x7f"

_ANSI = re.compile(rb"\x1b\[[0-9;?]*[ -/]*[@-~]")
_QUOTE = re.compile(r"[ \t]{0,3}>(?:[ \t]{0,3}>)*[ \t]?")
_QUOTE_BYTES = re.compile(rb"(?:[ \t]{0,3}>)+[ \t]?")
_ELISION = re.compile(
    rb"[\s>]*(?:\.{3,}|\xe2\x80\xa6|[<\[({-]+\s*(?:\.{3,}|\xe2\x80\xa6|snip(?:ped)?)\s*[>\])}-]+|\*?snip\*?)\s*",
    re.IGNORECASE,
)
_BRACKET_TIME = re.compile(r"\[\s{0,12}(\d{1,9}\.\d{1,9})(?:\s{1,4}<[ \d.]{1,24}>)?\]")
_KMSG_TIME = re.compile(r"\d{1,4},\d{1,20},(\d{1,18}),[^;\[]{0,40};")


class RawLine(NamedTuple):
    """A line as bytes without its end; `cut` says that only its first `MAX_LINE` bytes are here."""

    # A tuple and not a frozen dataclass: a log of gigabytes makes a hundred million of them.
    number: int
    data: bytes
    cut: bool = False


class LineSource:
    r"""The lines of a stream of bytes, at most `max_line` bytes of each.

    A line ends with ``\n``; ``\r`` before it goes. Iterate once. The counts below grow on the way.

    Args:
        stream: a buffered stream in binary mode.
        name: how messages call it.
        max_line: bytes kept of a line; what is longer is read past, never held.
        progress: called with the bytes read so far, about once a MiB and at the end.

    Attributes:
        bytes_read: bytes taken from the stream.
        lines: lines seen.
        cut_lines: lines longer than `max_line`.
        first_cut: number of the first of them, or None.

    Raises:
        TraceError: from the iterator, ``binary-trace`` when the beginning is no text, ``unreadable-trace`` when the
            stream fails.

    """

    def __init__(
        self,
        stream: BinaryIO,
        *,
        name: str,
        max_line: int = MAX_LINE,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self.name = name
        self.bytes_read = 0
        self.lines = 0
        self.cut_lines = 0
        self.first_cut: int | None = None
        self._stream = stream
        self._max_line = max_line
        self._progress = progress
        self._next_progress = PROGRESS_STEP
        self._sample = b""
        self._sampled = False

    def __iter__(self) -> Iterator[RawLine]:
        while piece := self._readline(self._max_line + 1):
            self.lines += 1
            number = self.lines
            if not piece.endswith(b"\n") and len(piece) > self._max_line:
                self._skip_rest()
                self.cut_lines += 1
                if self.first_cut is None:
                    self.first_cut = number
                yield RawLine(number, piece[: self._max_line], True)
            else:
                yield RawLine(number, piece.rstrip(b"\r\n"))
        if not self._sampled:
            self._judge()
        if self._progress is not None:
            self._progress(self.bytes_read)

    def _readline(self, limit: int) -> bytes:
        try:
            piece = self._stream.readline(limit)
        except (OSError, EOFError) as error:
            raise TraceError(
                f"{self.name}: cannot be read after {self.bytes_read} bytes: {error}",
                code="unreadable-trace",
                source=self.name,
                line=self.lines + 1,
            ) from error
        self.bytes_read += len(piece)
        if not self._sampled:
            self._sample += piece
            if len(self._sample) >= _SAMPLE:
                self._judge()
        if self._progress is not None and self.bytes_read >= self._next_progress:
            self._next_progress = self.bytes_read + PROGRESS_STEP
            self._progress(self.bytes_read)
        return piece

    def _skip_rest(self) -> None:
        while piece := self._readline(_BLOCK):
            if piece.endswith(b"\n"):
                return

    def _judge(self) -> None:
        """Raise for a beginning that is no text. The sample grows line by line, so that a pipe is not waited for."""
        sample, self._sample, self._sampled = self._sample, b"", True
        for magic, what, hint in _MAGIC:
            if sample.startswith(magic):
                raise _binary(self.name, f"{what}, not a text log", hint)
        controls = len(sample) - len(sample.translate(None, _CONTROL))
        # Serial consoles drop a few odd bytes into good logs; a twentieth of all bytes is no accident.
        if controls * 20 > len(sample):
            raise _binary(
                self.name,
                f"binary data, not a text log ({controls} of the first {len(sample)} bytes are control codes)",
                "give the log as text, for example the output of dmesg or journalctl -k",
            )


def _binary(name: str, problem: str, hint: str) -> TraceError:
    return TraceError(f"{name}: this is {problem}", code="binary-trace", hint=hint, source=name)


def without_colours(data: bytes) -> bytes:
    """Return a line without the codes by which dmesg and grep colour it."""
    return _ANSI.sub(b"", data) if b"\x1b" in data else data


def clean(data: bytes) -> str:
    """Return a line as text: UTF-8, without the quote marks of mails at any depth."""
    text = data.decode("utf-8", "replace")
    quote = _QUOTE.match(text)
    return text[quote.end() :] if quote else text


def quote_prefix(data: bytes) -> bytes:
    """Return the quote marks of a mail at the beginning of a line, with the space behind them."""
    match = _QUOTE_BYTES.match(data)
    return match.group() if match else b""


def is_blank(data: bytes) -> bool:
    """Tell whether a line has nothing but spaces and quote marks."""
    return not data.strip(b" \t\r\f\v>")


def is_elision(data: bytes) -> bool:
    """Tell whether a line says that lines were left out: ``....``, ``<snip>``, ``[...]`` and the like."""
    return _ELISION.fullmatch(data) is not None


def printk_time(prefix: str) -> float | None:
    """Return the kernel's seconds since boot from what stands before a record, or None.

    Knows ``[   56.146336] ``, alone or behind what syslog or the journal put before it, with the caller or the
    difference that the kernel and dmesg can add, and the records of ``/dev/kmsg``. Times of day are no such time.
    """
    found = None
    for match in _BRACKET_TIME.finditer(prefix):
        found = match
    if found is not None:
        return float(found.group(1))
    kmsg = _KMSG_TIME.match(prefix)
    return int(kmsg.group(1)) / 1e6 if kmsg else None
