"""Lines out of bytes: bounded, whatever the file is, and freed from what mails and logs put around them."""

from __future__ import annotations

import io
import os
import random
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from hvabi.traces import TraceError
from hvabi.traces.text import MAX_LINE, LineSource, clean, is_blank, is_elision, printk_time, without_colours

if TYPE_CHECKING:
    from typing_extensions import Buffer


def lines_of(data: bytes, max_line: int = MAX_LINE) -> list[tuple[int, bytes, bool]]:
    source = LineSource(io.BytesIO(data), name="t", max_line=max_line)
    return [(line.number, line.data, line.cut) for line in source]


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
        source = LineSource(io.BytesIO(data + b"next\n"), name="t", max_line=4)
        assert [tuple(line) for line in source] == [expected, (2, b"next", False)]
        assert (source.cut_lines, source.first_cut) == ((1, 1) if expected[2] else (0, None))
        assert source.bytes_read == len(data) + 5


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
        source = LineSource(io.BufferedReader(Endless()), name="t")
        found = [(line.number, len(line.data), line.cut) for line in source]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == [(1, MAX_LINE, True), (2, 4, False)]
    assert source.bytes_read == 100_000_006
    assert peak < 2_000_000


def test_progress_comes_about_once_a_mebibyte_and_at_the_end() -> None:
    seen: list[int] = []
    data = (b"x" * 1023 + b"\n") * (3 * 1024 + 1)  # 3 MiB and 1 KiB
    list(LineSource(io.BytesIO(data), name="t", progress=seen.append))
    assert seen == [1 << 20, 2 << 20, 3 << 20, (3 << 20) + 1024]


BINARY = {
    "gzip": (b"\x1f\x8b\x08\0\0\0\0\0rest", "gzip file", "zcat"),
    "zstd": (b"\x28\xb5\x2f\xfdrest", "zstd file", "zstdcat"),
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
    with pytest.raises(TraceError, match="after 0 bytes") as caught:
        list(LineSource(io.BufferedReader(Broken()), name="t"))
    assert caught.value.code == "unreadable-trace"


CLEAN = {
    "plain": (b"a > b", "a > b"),
    "quoted": (b"> a", "a"),
    "quoted-without-space": (b">a", "a"),
    "twice": (b"> > a", "a"),
    "dense": (b">>>> a", "a"),
    "mixed": (b">> > >  a", " a"),
    "deep": (b"> " * 200 + b"a", "a"),
    "only-marks": (b"> >", ""),
    "log-level": (b"<6>[    1.0] a", "<6>[    1.0] a"),
    "not-utf-8": (b"caf\xe9", "caf\N{REPLACEMENT CHARACTER}"),
}


@pytest.mark.parametrize(("data", "text"), CLEAN.values(), ids=CLEAN.keys())
def test_quotes_go(data: bytes, text: str) -> None:
    assert clean(data) == text


def test_colours_go() -> None:
    assert without_colours(b"\x1b[32m[    1.0] \x1b[0m\x1b[33ma\x1b[0m b") == b"[    1.0] a b"
    assert without_colours(b"x \x1b[01;31m\x1b[Kphrase\x1b[m\x1b[K y") == b"x phrase y"
    assert without_colours(b"\x1b no code") == b"\x1b no code"


ELISIONS = [b"....", b"...", b"> ....", b"> > <snip>", b" [...] ", b"[snip]", b"<SNIP>", b"-- snip --", "…".encode()]
NONE = [b"..", b".", b"> .", b"a ....", b".... a", b"snippet", b"", b"> ", b"--", b"[ 1.0]"]


@pytest.mark.parametrize("data", ELISIONS, ids=repr)
def test_a_line_that_says_that_lines_are_missing(data: bytes) -> None:
    assert is_elision(data)


@pytest.mark.parametrize("data", NONE, ids=repr)
def test_a_line_that_does_not_say_so(data: bytes) -> None:
    assert not is_elision(data)


def test_blank_lines() -> None:
    assert all(map(is_blank, [b"", b" ", b"\t", b">", b"> > >"]))
    assert not any(map(is_blank, [b"a", b"> a", b"....", b"> ."]))


TIMES = {
    "printk": ("[   56.146336] ", 56.146336),
    "archive-with-one-space": ("[ 56.146336] ", 56.146336),
    "long-uptime": ("[123456.000001] ", 123456.000001),
    "level": ("<6>[   56.146336] ", 56.146336),
    "caller": ("[   56.146336][  T123] ", 56.146336),
    "difference": ("[   56.146336 <    0.000015>] ", 56.146336),
    "syslog": ("Dec 12 04:50:01 host kernel: [   56.146336] ", 56.146336),
    "journal-iso": ("2020-12-12T04:50:01+0000 host kernel: [   56.146336] ", 56.146336),
    "journal-monotonic": ("[   56.146336] host kernel: ", 56.146336),
    "dmesg-x": ("kern  :info  : [   56.146336] ", 56.146336),
    "kmsg": ("6,1234,56146336,-;", 56.146336),
    "two-clocks": ("[   99.000000] host kernel: [   56.146336] ", 56.146336),
    "syslog-without": ("Dec 12 04:50:01 host kernel: ", None),
    "time-of-day": ("[Sat Dec 12 04:56:03 2020] ", None),
    "nothing": ("", None),
    "no-fraction": ("[ 56] ", None),
}


@pytest.mark.parametrize(("prefix", "seconds"), TIMES.values(), ids=TIMES.keys())
def test_times(prefix: str, seconds: float | None) -> None:
    assert printk_time(prefix) == seconds
