"""Bytes out of files: packed, cut off, broken, growing; what can be read is read, and the rest is said in words."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import threading
import time
from typing import TYPE_CHECKING

import pytest

from hvabi.traces import TraceError, TraceSummary, replay_sources
from hvabi.traces.replay import Replay
from hvabi.traces.sources import read_into
from hvabi.traces.streams import Following

if TYPE_CHECKING:
    from pathlib import Path

LINE = "[{:12.6f}] page_enc_status_hc invoked, gpa = {:x}, npages  = 1, enc = {}\n"
LOG = "".join(LINE.format(index / 1000, 0x1000 * (index % 64), index // 64 % 2) for index in range(20_000)).encode()


def zstd(data: bytes) -> bytes:
    zstandard = pytest.importorskip("zstandard", reason="zstandard is a dependency that is not installed here")
    packed: bytes = zstandard.compress(data)
    return packed


PACKERS = {"gzip": gzip.compress, "zstd": zstd, "xz": lzma.compress, "bzip2": bz2.compress}


def replayed(data: bytes) -> TraceSummary:
    return replay_sources([("t", io.BytesIO(data))])


@pytest.mark.parametrize("packing", PACKERS)
def test_a_packed_file_is_unpacked(packing: str) -> None:
    found = replayed(PACKERS[packing](LOG))
    (read,) = found.reads
    assert (found.calls, read.lines, read.bytes_read, read.packing) == (20_000, 20_000, len(LOG), packing)
    assert read.complete


@pytest.mark.parametrize("packing", PACKERS)
def test_of_a_packed_file_that_is_cut_off_the_beginning_is_used(packing: str) -> None:
    packed = PACKERS[packing](LOG)
    if packing == "bzip2":  # its blocks are up to 900 kB: nothing comes out before one is whole
        packed = bz2.compress(LOG[:500_000]) + bz2.compress(LOG[500_000:])
    found = replayed(packed[: len(packed) * 4 // 5])
    (read,) = found.reads
    assert 5_000 < found.calls < 20_000
    assert not read.complete
    note = next(note for note in read.notes if note.code == "cut-short")
    assert packing in note.text
    assert "what was read before is used" in note.text


def test_a_packed_file_that_is_broken_in_the_middle() -> None:
    packed = bytearray(gzip.compress(LOG))
    packed[len(packed) // 2 : len(packed) // 2 + 100] = bytes(100)
    found = replayed(bytes(packed))
    assert 0 < found.calls < 20_000
    assert "broken" in found.reads[0].notes[0].text


def test_packed_files_one_behind_the_other_are_one() -> None:
    found = replayed(gzip.compress(LOG) + gzip.compress(LOG) + bytes(512))
    assert (found.calls, found.reads[0].complete) == (40_000, True)


def test_something_else_behind_the_packed_data_is_said() -> None:
    found = replayed(gzip.compress(LOG) + b"hello")
    assert (found.calls, found.reads[0].complete) == (20_000, False)


def test_a_packed_file_with_nothing_of_use() -> None:
    with pytest.raises(TraceError) as caught:
        replayed(gzip.compress(b"hello\n"))
    assert caught.value.code == "no-events"
    with pytest.raises(TraceError) as caught:
        replayed(gzip.compress(b"")[:15])
    assert caught.value.code == "empty-trace"


def test_a_stream_that_fails_in_the_middle() -> None:
    class Failing(io.RawIOBase):
        def __init__(self) -> None:
            self.left = [LOG[:1_000_000]]

        def readable(self) -> bool:
            return True

        def read1(self, _: int) -> bytes:
            if self.left:
                return self.left.pop()
            raise OSError(5, "Input/output error")

    found = replay_sources([("t", Failing())])  # type: ignore[list-item]  # has what is used of a stream
    assert found.calls == 1_000_000 // len(LINE.format(0, 0, 0)) or found.calls > 10_000
    assert "Input/output error" in found.reads[0].notes[0].text


def test_binary_junk_in_the_middle_of_a_log() -> None:
    junk = random.Random(1).randbytes(200_000).replace(b"\x1f\x8b", b"")
    found = replayed(LOG + junk + b"\n" + LOG)
    assert found.calls == 40_000


def test_a_log_that_is_cut_in_the_middle_of_a_line() -> None:
    found = replayed(LOG[:-30])
    (read,) = found.reads
    assert (found.calls, read.malformed) == (19_999, 1)
    assert "unfinished-line" in {note.code for note in read.notes}


def test_a_line_of_100_megabytes() -> None:
    class Long(io.RawIOBase):
        def __init__(self) -> None:
            self.pieces = iter([LOG, *[b"x" * (1 << 20)] * 100, b"\n", LOG])

        def read1(self, _: int) -> bytes:
            return next(self.pieces, b"")

    found = replay_sources([("t", Long())])  # type: ignore[list-item]  # has what is used of a stream
    (read,) = found.reads
    assert (found.calls, read.lines) == (40_000, 40_001)
    assert [(note.code, note.count, note.line) for note in read.notes] == [("line-cut", 1, 20_001)]


# A file that grows


def test_following_a_file_that_grows_and_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "boot.log"
    first = LINE.format(1, 0x1000, 0)
    file.write_text(first + "[ 2.0] page_enc_status_hc inv")
    seen: list[int] = []
    run = Replay()

    def write() -> None:
        def until(calls: int) -> None:
            deadline = time.monotonic() + 20
            while run.calls < calls and time.monotonic() < deadline:
                time.sleep(0.02)
            seen.append(run.calls)

        until(1)
        with file.open("a") as stream:  # the rest of a line
            stream.write("oked, gpa = 2000, npages  = 1, enc = 0\n")
        until(2)
        file.rename(tmp_path / "boot.log.1")
        file.write_text(LINE.format(3, 0x3000, 0))
        until(3)
        file.write_text("")  # shorter: from its start
        time.sleep(0.5)
        file.write_text(LINE.format(4, 0x4000, 0))

    writer = threading.Thread(target=write)
    writer.start()
    with Following(file, idle_seconds=2.0) as stream:
        report = read_into(run, stream, "boot.log")
    writer.join()
    assert seen == [1, 2, 3]
    assert (run.calls, report.lines) == (4, 4)


def test_an_open_call_is_shown_while_a_file_is_idle(tmp_path: Path) -> None:
    file = tmp_path / "qemu.log"
    file.write_text("kvm_convert_memory start 0x4000 size 0x1000 private_to_shared\n")
    run, seen = Replay(), []
    with Following(file, idle_seconds=0.5, waiting=lambda: seen.append(run.calls)) as stream:
        read_into(run, stream, "qemu.log")
    assert seen[-1] == 1
