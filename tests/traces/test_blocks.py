"""Blocks and lines out of bytes: bounded, whatever the file is."""

from __future__ import annotations

import io
import os
import random
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from hvabi.traces import TraceError
from hvabi.traces.blocks import MAX_LINE, Blocks, LineSource, RawLine, has_long_line

if TYPE_CHECKING:
    from typing_extensions import Buffer


def read(stream: io.BytesIO | io.BufferedReader, max_line: int = MAX_LINE) -> tuple[list[RawLine], LineSource, Blocks]:
    blocks, source = Blocks(stream, name="t", max_line=max_line), LineSource(max_line)
    return [line for block in blocks for line in source.split(block)], source, blocks


def lines_of(data: bytes, max_line: int = MAX_LINE) -> list[tuple[int, bytes, bool]]:
    return [(line.number, line.data, line.cut) for line in read(io.BytesIO(data), max_line)[0]]


ENDS = {
    "unix": (b"a\nb\n", [b"a", b"b"]),
    "no-newline-at-the-end": (b"a\nb", [b"a", b"b"]),
    "dos": (b"a\r\nb\r\n", [b"a", b"b"]),
    "serial-console": (b"a\r\r\nb", [b"a", b"b"]),
    "empty-lines": (b"\n\na\n", [b"", b"", b"a"]),
    "nothing": (b"", []),
}


@pytest.mark.parametrize(("data", "expected"), ENDS.values(), ids=ENDS.keys())
def test_line_ends(data: bytes, expected: list[bytes]) -> None:
    assert lines_of(data) == [(number, line, False) for number, line in enumerate(expected, 1)]


CUTS = {
    # max_line is 4: the line, what is kept, whether it is cut
    "shorter": (b"abc\n", (1, b"abc", False)),
    "exact": (b"abcd\n", (1, b"abcd", False)),
    "exact-at-the-end": (b"abcd", (1, b"abcd", False)),
    "one-more": (b"abcde\n", (1, b"abcd", True)),
    "one-more-at-the-end": (b"abcde", (1, b"abcd", True)),
    "many-more": (b"abcd" + b"x" * 200_000 + b"\n", (1, b"abcd", True)),
}


@pytest.mark.parametrize(("data", "expected"), CUTS.values(), ids=CUTS.keys())
def test_a_long_line_is_cut_and_the_next_one_is_not_lost(data: bytes, expected: tuple[int, bytes, bool]) -> None:
    assert lines_of(data, max_line=4) == [expected]
    if data.endswith(b"\n"):
        found, source, blocks = read(io.BytesIO(data + b"next\n"), 4)
        assert [tuple(line) for line in found] == [expected, (2, b"next", False)]
        assert (source.cut_lines, source.first_cut) == ((1, 1) if expected[2] else (0, None))
        assert blocks.bytes_read == len(data) + 5


class Endless(io.RawIOBase):
    """100 MB without a newline, then a line; nothing of it exists before it is read."""

    def __init__(self) -> None:
        self.left = 100_000_000
        self.tail = b"\nlast\n"

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer) -> int:
        view = memoryview(buffer).cast("B")
        size = min(len(view), self.left)
        if size:
            view[:size] = b"x" * size
            self.left -= size
            return size
        size = min(len(view), len(self.tail))
        view[:size] = self.tail[:size]
        self.tail = self.tail[size:]
        return size


def test_a_line_of_100_mb_is_never_held() -> None:
    tracemalloc.start()
    try:
        lines, _, blocks = read(io.BufferedReader(Endless()))
        found = [(line.number, len(line.data), line.cut) for line in lines]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == [(1, MAX_LINE, True), (2, 4, False)]
    assert blocks.bytes_read == 100_000_006
    assert peak < 2_000_000


def test_progress_comes_about_once_a_mebibyte_and_at_the_end() -> None:
    seen: list[int] = []
    data = (b"x" * 1023 + b"\n") * (3 * 1024 + 1)  # 3 MiB and 1 KiB
    list(Blocks(io.BytesIO(data), name="t", progress=seen.append))
    assert seen == [1 << 20, 2 << 20, 3 << 20, (3 << 20) + 1024]


BINARY = {
    "zip": (b"PK\x03\x04rest of it", "zip file", "unpack"),
    "perf": (b"PERFILE2" + bytes(100), r"perf\.data", "perf script"),
    "utf-16": ("[    1.0] hello\n".encode("utf-16"), "UTF-16", "iconv"),
    "zeros": (bytes(10_000), "binary data", "dmesg"),
    "random": (random.Random(1).randbytes(100_000), "binary data", "dmesg"),
    "program": (b"\x7fELF\2\1\1" + bytes(57) + b"text\nmore text\n" * 20, "binary data", "dmesg"),
    "one-line": (b"\x01\x02", "binary data", "dmesg"),
}


@pytest.mark.parametrize(("data", "what", "hint"), BINARY.values(), ids=BINARY.keys())
def test_a_binary_file_is_refused_with_what_to_do(data: bytes, what: str, hint: str) -> None:
    with pytest.raises(TraceError, match=what) as caught:
        lines_of(data)
    assert caught.value.code == "binary-trace"
    assert hint in str(caught.value)
    assert str(caught.value).startswith("t: ")


def test_a_few_odd_bytes_make_no_binary_file() -> None:
    data = b"\0\0\x1b[32m[    1.0] caf\xe9 \xff\n" + b"text " * 20 + b"\n"
    assert len(lines_of(data)) == 2


class Broken(io.RawIOBase):
    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer) -> int:
        raise OSError(5, os.strerror(5))


def test_a_stream_that_fails() -> None:
    with pytest.raises(TraceError, match="t: cannot be read: Input/output error") as caught:
        list(Blocks(io.BufferedReader(Broken()), name="t"))
    assert caught.value.code == "unreadable-trace"


@pytest.mark.parametrize("size", [8191, 8192, 8193, 8194, 12_000, 20_000])
@pytest.mark.parametrize("before", [0, 1, 4095, 4096, 5000])
def test_no_long_line_is_overlooked(size: int, before: int) -> None:
    block = b"\n" + b"a" * before + b"\n" + b"x" * size + b"\nnext\n"
    assert has_long_line(block) or size <= MAX_LINE


def test_short_lines_are_no_long_ones() -> None:
    assert not has_long_line(b"\n" + b"a line of no great length\n" * 10_000)
