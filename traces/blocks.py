"""Whole lines of a stream in blocks, in bounded memory, whatever the file is.

A log of gigabytes is looked at block by block and not line by line: most of its lines are of no interest, and Python is
slow at each of them. A block begins with a line feed and ends with one, so the bytes between two of them are a line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from hvabi.traces.errors import TraceError
from hvabi.traces.streams import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_LINE = 8192
"""Bytes kept of a line. The longest record of the kernel's log buffer is about 1000."""

PROGRESS_STEP = 1 << 20
"""Bytes between two calls of a progress function."""

IDLE = b"\n"
"""The block of a file that is followed and has no more just now: it has no line."""

_SAMPLE = 1 << 12

_STRANGE: tuple[tuple[bytes, str, str], ...] = (
    (b"PK\x03\x04", "a zip file", "unpack it first"),
    (b"PERFILE2", "a perf.data file", "print it as text first: perf script -i FILE > trace.log"),
    (b"\x17\x08\x44tracing", "a trace-cmd file", "print it as text first: trace-cmd report FILE > trace.log"),
    (b"LPKSHHRH", "a systemd journal file", "print it as text first: journalctl --file FILE -k > trace.log"),
    (b"\xff\xfe", "text in UTF-16", "convert it first: iconv -f UTF-16 -t UTF-8 FILE > trace.log"),
    (b"\xfe\xff", "text in UTF-16", "convert it first: iconv -f UTF-16 -t UTF-8 FILE > trace.log"),
)
_CONTROL = bytes(byte for byte in range(32) if byte not in b"\t\n\v\f\r\x1b") + b"\x7f"


class RawLine(NamedTuple):
    """A line as bytes without its end; `cut` says that only its first `MAX_LINE` bytes are here."""

    # A tuple and not a frozen dataclass: a log of gigabytes makes a hundred million of them.
    number: int
    data: bytes
    cut: bool = False


class Blocks:
    """The lines of a stream in blocks. Iterate once; of a line longer than `max_line`, one byte more than that stays.

    Args:
        stream: a stream in binary mode; the caller closes it.
        name: how messages call it.
        max_line: bytes that a line may have.
        progress: called with the bytes taken from the stream, about once a MiB and at the end.

    Attributes:
        bytes_read: bytes of text so far.
        unfinished: whether the last line had no end.

    Raises:
        TraceError: from the iterator, ``binary-trace`` when the beginning is no text, and as `Source`.

    """

    def __init__(
        self,
        stream: BinaryIO,
        *,
        name: str,
        max_line: int = MAX_LINE,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self.bytes_read = 0
        self.unfinished = False
        self._source = Source(stream, name=name)
        self._max_line = max_line
        self._progress = progress
        self._next_progress = PROGRESS_STEP
        self._sample: bytes | None = b""

    @property
    def problem(self) -> str | None:
        """Why the bytes ended too early, or None."""
        return self._source.problem

    @property
    def packing(self) -> str | None:
        """How the stream is packed, or None."""
        return self._source.packing

    def __iter__(self) -> Iterator[bytes]:
        rest = b"\n"  # the last line feed and what follows it
        for piece in self._source:
            if piece is None:
                yield IDLE
                continue
            self._count(piece)
            data = rest + piece
            last = data.rfind(b"\n")
            if last:
                rest = data[last:]
                yield data[: last + 1]
            else:
                rest = data
            if len(rest) > self._max_line + 2:
                # Nobody needs the rest of an endless line.
                rest = rest[: self._max_line + 2]
        if self._sample is not None:
            self._judge(self._sample)
        if len(rest) > 1:
            self.unfinished = True
            yield rest + b"\n"
        if self._progress is not None:
            self._progress(self._source.position)

    def _count(self, piece: bytes) -> None:
        self.bytes_read += len(piece)
        if self._sample is not None:
            # The sample grows piece by piece, so that a pipe is not waited for.
            self._sample = self._sample[:_SAMPLE] + piece[:_SAMPLE]
            if len(self._sample) >= _SAMPLE:
                self._judge(self._sample)
                self._sample = None
        if self._progress is not None and self._source.position >= self._next_progress:
            self._next_progress = self._source.position + PROGRESS_STEP
            self._progress(self._source.position)

    def _judge(self, sample: bytes) -> None:
        """Raise for a beginning that is no text."""
        sample = sample[:_SAMPLE]
        for magic, what, hint in _STRANGE:
            if sample.startswith(magic):
                raise self._binary(f"{what}, not a text log", hint)
        controls = len(sample) - len(sample.translate(None, _CONTROL))
        # Serial consoles drop a few odd bytes into good logs; a twentieth of all bytes is no accident.
        if controls * 20 > len(sample):
            raise self._binary(
                f"binary data, not a text log ({controls} of the first {len(sample)} bytes are control codes)",
                "give the log as text, for example the output of dmesg or journalctl -k",
            )

    def _binary(self, problem: str, hint: str) -> TraceError:
        name = self._source.name
        return TraceError(f"{name}: this is {problem}", code="binary-trace", hint=hint, source=name)


class LineSource:
    r"""The lines of blocks one by one, at most `max_line` bytes of each, ``\r`` at the end gone.

    Attributes:
        lines: lines seen.
        cut_lines: lines that were longer than `max_line`.
        first_cut: number of the first of them, or None.

    """

    def __init__(self, max_line: int = MAX_LINE) -> None:
        self.lines = 0
        self.cut_lines = 0
        self.first_cut: int | None = None
        self._max_line = max_line

    def split(self, block: bytes) -> Iterator[RawLine]:
        """Yield the lines of a block."""
        if len(block) < 2:
            return
        for data in block[1:-1].split(b"\n"):
            self.lines += 1
            if len(data) > self._max_line and len(data.rstrip(b"\r")) > self._max_line:
                self.cut_lines += 1
                if self.first_cut is None:
                    self.first_cut = self.lines
                yield RawLine(self.lines, data[: self._max_line], True)
            else:
                yield RawLine(self.lines, data.rstrip(b"\r"))

    def skip(self, block: bytes) -> None:
        """Count the lines of a block of which none is too long."""
        self.lines += block.count(b"\n") - 1


def has_long_line(block: bytes, max_line: int = MAX_LINE) -> bool:
    """Tell whether a block may have a line of more than `max_line` bytes; never False where it has one."""
    # Such a line covers at least one whole window of half that size.
    window = max_line // 2
    return any(block.find(b"\n", at, at + window) < 0 for at in range(0, len(block) - window, window))
