"""The log of the mail that the project answers, in four wrappings; every expected value is worked out by hand.

The 26 calls, with the page (gpa without its last three digits) and the number of shared ranges after each:

    block 1    1 private 1f018   0  no-op: every page begins private
               2 share   1f00e   1
               3 share   1f00e   1  no-op
               4 share   1f018   2  these two stay to the end
    block 2    5 share   1f008   3
               6 share   1f006   4  the first time that there are four
               7 private 1f008   3
               8 private 1f006   2
    block 3    9 to 12           3 4 3 2  the same with 1f007 and 1f005
    block 4   13 to 16           3 4 3 2  the same with 1e83b and 1e839
    block 5   17 to 20           3 4 3 2  the same with 1e5eb and 1e5e9
    block 6   21 share   1d767 and 99 pages behind it   3
              22 private 1e501   3  no-op
              23 private 1d767 + 100   2
              24 share   1e501   3
              25 share   1d767 + 100   4
              26 private 1e501   3

Share calls: 3 + 2 + 2 + 2 + 2 + 3 (21, 24, 25) = 14. The other 12 are private.
"""

from __future__ import annotations

import io
import quopri
from pathlib import Path
from typing import NamedTuple

import pytest

from hvabi.backend import PageState
from hvabi.traces import TraceSummary, changes_of, replay_sources

DATA = Path(__file__).parent.parent / "data" / "traces"
MAIL = DATA / "lkml-sev-hypercall3.txt"
LOG = DATA / "page_enc_status_hc.log"

P, S = PageState.PRIVATE, PageState.SHARED
RANGES = [0, 1, 1, 2, *([3, 4, 3, 2] * 4), 3, 3, 2, 3, 4, 3]


class Wrapping(NamedTuple):
    """Where calls 1, 3 and 22 (the no-ops) and 6 (the peak) stand, and the lines that are no calls."""

    data: bytes
    no_op_lines: tuple[int, ...] | None
    peak_line: int | None
    lines: int | None
    elisions: int
    blank: int
    unrecognised: int
    quoted_printable: bool


WRAPPINGS = {
    # 192 lines (the last has no end): 26 calls; `...`, `<snip>` and six `....`; 45 with nothing but marks and spaces,
    # as `grep -cE '^[ >]*$'` counts them; 113 are left.
    "mail": Wrapping(MAIL.read_bytes(), (119, 121, 149), 126, 192, 8, 45, 113, False),
    # One line of comment, then 26 calls in blocks of 4, 4, 4, 4, 4 and 6 with `....` behind each.
    "log": Wrapping(LOG.read_bytes(), (2, 4, 28), 8, 33, 6, 0, 1, False),
    # Four header lines, a blank one, one of prose; then two lines for each call, broken inside `npages  =`.
    "quoted-printable-mail": Wrapping(
        (DATA / "page_enc_status_hc.qp.eml").read_bytes(), (7, 11, 54), 18, 64, 6, 1, 5, True
    ),
    # The whole mail, encoded by the standard library, with no header that says so. It shows at the first call only, so
    # the 12 lines of more than 76 characters above it count as the two pieces that they are in.
    "quoted-printable-body": Wrapping(quopri.encodestring(MAIL.read_bytes()), None, None, None, 8, 45, 113 + 12, True),
    "dos-line-ends": Wrapping(MAIL.read_bytes().replace(b"\n", b"\r\n"), (119, 121, 149), 126, 192, 8, 45, 113, False),
    "quoted-deeper": Wrapping(
        b"\n".join(b"> > >> " + line for line in MAIL.read_bytes().split(b"\n")),
        (119, 121, 149),
        126,
        192,
        8,
        45,
        113,
        False,
    ),
}


def replayed(data: bytes, **options: object) -> TraceSummary:
    return replay_sources([("trace", io.BytesIO(data))], **options)  # type: ignore[arg-type]  # options of the tests


@pytest.mark.parametrize("wrapping", WRAPPINGS.values(), ids=WRAPPINGS.keys())
def test_the_replay(wrapping: Wrapping) -> None:
    found = replayed(wrapping.data)
    assert (found.calls, found.share_calls, found.unshare_calls, found.no_op_calls) == (26, 14, 12, 3)
    assert found.attempts == 26
    assert (found.refused, found.broken_rules) == ((), ())

    assert [(each.gpa, each.pages, each.to) for each in found.no_ops] == [
        (0x1F018000, 1, P),
        (0x1F00E000, 1, S),
        (0x1E501000, 1, P),
    ]
    assert [sample.ranges for sample in found.ranges.samples] == RANGES
    assert [sample.call for sample in found.ranges.samples] == list(range(1, 27))
    assert (found.ranges.peak, found.ranges.final, found.ranges.calls_per_sample) == (4, 3, 1)
    assert found.ranges.peak_at is not None
    assert (found.ranges.peak_at.call, found.ranges.peak_at.time_seconds) == (6, 56.180741)
    if wrapping.no_op_lines is not None:
        assert tuple(each.place.line for each in found.no_ops) == wrapping.no_op_lines
        assert found.ranges.peak_at.place.line == wrapping.peak_line
        assert found.ranges.peak_at.place.source == "trace"

    # 0x1d767000 + 100 * 0x1000 = 0x1d7cb000
    assert [(each.gpa, each.end, each.state) for each in found.final] == [
        (0x1D767000, 0x1D7CB000, S),
        (0x1F00E000, 0x1F00F000, S),
        (0x1F018000, 0x1F019000, S),
    ]
    assert found.final_pages == 102

    # Seconds 56.460448 - 56.146336; 26 / 0.314112 = 82.773
    assert (found.timing.timed_calls, found.timing.backwards) == (26, 0)
    assert (found.timing.first_seconds, found.timing.last_seconds) == (56.146336, 56.460448)
    assert found.timing.span_seconds == 0.314112
    assert found.timing.calls_per_second == pytest.approx(82.773, abs=0.001)

    # `100` is the only number that both readings give differently: calls 21, 23 and 25.
    assert found.ambiguity.calls == 3
    (reading,) = found.ambiguity.readings
    assert (reading.text, reading.pages, reading.other_pages, reading.by, reading.calls) == ("100", 100, 256, "hex", 3)

    (read,) = found.reads
    assert (read.events, read.malformed) == ({"page-enc-status": 26}, 0)
    assert (read.elisions, read.blank_lines, read.unrecognised_lines) == (
        wrapping.elisions,
        wrapping.blank,
        wrapping.unrecognised,
    )
    assert read.quoted_printable is wrapping.quoted_printable
    assert read.bytes_read == len(wrapping.data)
    assert wrapping.lines in (None, read.lines)
    notes = {note.code: note.count for note in read.notes}
    assert notes.pop("elisions") == wrapping.elisions
    assert list(notes) == (["quoted-printable"] if wrapping.quoted_printable else [])


def test_the_broken_lines_of_the_quoted_printable_mail_are_counted() -> None:
    (read,) = replayed(WRAPPINGS["quoted-printable-mail"].data).reads
    note = read.notes[0]
    # One broken line for each call; the header that says so is the fourth line.
    assert (note.code, note.count, note.line) == ("quoted-printable", 26, 4)


@pytest.mark.parametrize("name", ["mail", "log", "quoted-printable-mail"])
def test_flips_of_the_pages(name: str) -> None:
    """Pages of calls 2 and 4 change once; the 8 of blocks 2 to 5 and 1e501 twice; the 100 of block 6 three times."""
    flips = replayed(WRAPPINGS[name].data).flips
    assert flips.page_changes == 2 * 1 + 9 * 2 + 100 * 3
    assert (flips.changed_pages, flips.flip_flop_pages) == (2 + 9 + 100, 9 + 100)
    assert (flips.one_in, flips.sampled_from) == (1, None)
    assert [(run.gpa, run.pages, run.changes) for run in flips.top] == [
        (0x1D767000, 100, 3),
        (0x1E501000, 1, 2),
        (0x1E5E9000, 1, 2),
        (0x1E5EB000, 1, 2),
        (0x1E839000, 1, 2),
        (0x1E83B000, 1, 2),
        (0x1F005000, 4, 2),  # 1f005, 1f006, 1f007 and 1f008 lie side by side
    ]
    by_page = {0x1D766FFF: 0, 0x1D767000: 3, 0x1D7CAFFF: 3, 0x1D7CB000: 0, 0x1F00E000: 1, 0x1F018000: 1, 0x1F008FFF: 2}
    assert {gpa: changes_of(flips, gpa) for gpa in by_page} == by_page


def test_bytes_against_a_bitmap() -> None:
    """Highest page 0x1f018: 0x1f019 = 127001 pages, 15875.1 bytes of bits. A range is charged 24 bytes."""
    found = replayed(MAIL.read_bytes()).footprint
    assert (found.guest_bytes, found.guest_bytes_from) == (0x1F019000, "highest-gpa")
    assert found.highest_end == 0x1F019000
    assert (found.bitmap_bytes, found.bytes_per_range) == (15876, 24)
    assert (found.peak_bytes, found.final_bytes) == (4 * 24, 3 * 24)
    # The guest of the posted numbers had 512 MiB: 131072 pages.
    stated = replayed(MAIL.read_bytes(), memory_bytes=512 << 20).footprint
    assert (stated.guest_bytes, stated.guest_bytes_from, stated.bitmap_bytes) == (512 << 20, "stated", 16384)
    assert stated.highest_end == 0x1F019000


@pytest.mark.parametrize("name", ["mail", "log", "quoted-printable-mail"])
def test_the_hexadecimal_reading(name: str) -> None:
    """`100` is 0x100 = 256 pages up to 0x1d767000 + 256 * 0x1000 = 0x1d867000, below 1e501: all else is the same."""
    found = replayed(WRAPPINGS[name].data, radix="hex")
    assert found.read_as == ("hex",)
    assert (found.calls, found.share_calls, found.unshare_calls, found.no_op_calls) == (26, 14, 12, 3)
    assert [sample.ranges for sample in found.ranges.samples] == RANGES
    assert [(each.gpa, each.end) for each in found.final] == [
        (0x1D767000, 0x1D867000),
        (0x1F00E000, 0x1F00F000),
        (0x1F018000, 0x1F019000),
    ]
    assert found.final_pages == 258
    assert found.flips.page_changes == 2 * 1 + 9 * 2 + 256 * 3
    assert (found.flips.changed_pages, found.flips.flip_flop_pages) == (2 + 9 + 256, 9 + 256)
    assert (found.ambiguity.calls, found.ambiguity.readings[0].other_pages) == (3, 256)


def test_both_spellings_of_the_log_are_the_same_calls() -> None:
    """The archive's copy has one space where the posted lines have two; all else is equal."""
    mail, log = replayed(MAIL.read_bytes()).to_json(), replayed(LOG.read_bytes()).to_json()
    for name in ("calls", "share_calls", "no_op_calls", "ambiguity", "flips", "footprint", "final", "timing"):
        assert mail[name] == log[name], name
