"""The reader of the 2020 debug print, and how a trace is sorted into events and the rest."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest

from hvabi.abi.errors import UsageError
from hvabi.backend import PageState, Status
from hvabi.traces import Malformed, Trace, TraceError, TraceEvent, open_trace
from hvabi.traces.blocks import MAX_LINE

if TYPE_CHECKING:
    from pathlib import Path

P, S = PageState.PRIVATE, PageState.SHARED
CALL = "page_enc_status_hc invoked, gpa = {}, npages  = {}, enc = {}"


def read(text: str | bytes) -> tuple[list[TraceEvent], Trace]:
    trace = Trace(io.BytesIO(text.encode() if isinstance(text, str) else text), name="t")
    events = list(trace)
    assert all(isinstance(event, TraceEvent) for event in events)
    return events, trace  # type: ignore[return-value]  # tested above


def one(text: str) -> TraceEvent:
    events, trace = read(text)
    assert trace.report().malformed == 0
    (event,) = events
    return event


def test_a_line_as_posted() -> None:
    assert one("[   56.146336] page_enc_status_hc invoked, gpa = 1f018000, npages  = 1, enc = 1\n") == TraceEvent(
        source="t",
        line=1,
        time_seconds=56.146336,
        abi="kvm-page-enc-status",
        gpa=0x1F018000,
        pages=1,
        to=P,
        attempt=True,
        ambiguous=None,
        broken=(),
        format="page-enc-status",
        clock="boot",
    )


SPELLINGS = {
    "two-spaces": "page_enc_status_hc invoked, gpa = a000, npages  = 1, enc = 0",
    "one-space": "page_enc_status_hc invoked, gpa = a000, npages = 1, enc = 0",
    "more-spaces": "page_enc_status_hc invoked, gpa  =  a000,  npages    = 1, enc  = 0",
    "no-break-space": "page_enc_status_hc invoked, gpa = a000, npages\u00a0 = 1, enc = 0",
    "quoted": "> > > [ 1.5] page_enc_status_hc invoked, gpa = a000, npages  = 1, enc = 0",
    "function-name-before": "SVM: svm: page_enc_status_hc invoked, gpa = a000, npages = 1, enc = 0",
    "dos": "page_enc_status_hc invoked, gpa = a000, npages = 1, enc = 0\r",
    "space-behind": "page_enc_status_hc invoked, gpa = a000, npages = 1, enc = 0   ",
    "comma-behind": "page_enc_status_hc invoked, gpa = a000, npages = 1, enc = 0, cpu 1",
    "grep-colours": "\x1b[01;31m\x1b[Kpage_enc_status_hc\x1b[m\x1b[K invoked, gpa = a000, npages = 1, enc = 0",
    "kernel-prefix": "Dec 12 04:50:01 h kernel: [ 1.0] page_enc_status_hc invoked, gpa = a000, npages = 1, enc = 0",
}


@pytest.mark.parametrize("text", SPELLINGS.values(), ids=SPELLINGS.keys())
def test_spellings(text: str) -> None:
    event = one(text)
    assert (event.gpa, event.pages, event.to) == (0xA000, 1, S)


RADIX = {
    # digits: the reading that events carry, and both where they differ
    "one-digit": ("9", 9, None),
    "zero": ("0", 0, None),
    "ten": ("10", 10, (10, 0x10)),
    "as-posted": ("100", 100, (100, 0x100)),
    "two-mebibytes": ("512", 512, (512, 0x512)),
    "leading-zero": ("010", 10, (10, 0x10)),
    "letter": ("1f", 0x1F, None),
    "letters-only": ("ff", 0xFF, None),
    # 20 decimal digits: the hexadecimal reading needs 80 bits, the field has 64. The decimal one names more pages
    # than there are above the second page: 2^52 - 1 are left.
    "hexadecimal-does-not-fit": ("18446744073709551614", 2**52 - 1, None),
    # Both readings name all pages that there are.
    "no-difference": ("5000000000000000", 2**52 - 1, None),
}


@pytest.mark.parametrize(("digits", "pages", "both"), RADIX.values(), ids=RADIX.keys())
def test_the_radix_of_npages_is_open(digits: str, pages: int, both: tuple[int, int] | None) -> None:
    event = one(CALL.format("1000", digits, "0"))
    assert (event.pages, event.refused) == (pages, None)
    assert event.read_as("decimal") is event
    if both is None:
        assert event.ambiguous is None
        assert event.read_as("hex") is event
        return
    assert event.ambiguous is not None
    assert event.ambiguous[:4] == ("npages", digits, "decimal", "hex")
    assert (event.pages, event.read_as("hex").pages) == both
    assert event._replace(pages=both[1]) == event.read_as("hex")


def test_a_call_that_the_abi_refuses_says_so() -> None:
    """The page number 1 and 2^64 - 1 pages reach 2^64: KVM answers an error and changes nothing."""
    event = one(CALL.format("1000", "f" * 16, "0"))
    assert (event.refused, event.broken) == (Status.INVALID, ("KVM-PAGEENC-06",))
    # One page less does not reach it.
    event = one(CALL.format("1000", "f" * 15 + "e", "0"))
    assert (event.refused, event.broken) == (None, ())


def test_letters_in_npages_are_noted_as_what_they_say_of_the_log() -> None:
    text = "\n".join(CALL.format("1000", digits, "0") for digits in ("1", "1f", "100", "a")) + "\n"
    _, trace = read(text)
    (note,) = trace.report().notes
    assert (note.code, note.count, note.line) == ("hex-page-counts", 2, 2)


VALUES = {
    # gpa, npages, enc -> first byte, state, broken rules for the guest
    "shared": ("1000", "1", "0", 0x1000, S, ()),
    "private": ("1000", "1", "1", 0x1000, P, ()),
    "any-other-value-is-private": ("1000", "1", "2", 0x1000, P, ("KVM-PAGEENC-20",)),
    "hexadecimal-value": ("1000", "1", "ff", 0x1000, P, ("KVM-PAGEENC-20",)),
    "low-bits-are-ignored": ("1fff", "1", "0", 0x1000, S, ("KVM-PAGEENC-21",)),
    "no-pages": ("1000", "0", "0", 0x1000, S, ("KVM-PAGEENC-22",)),
    "all-wrong": ("1001", "0", "7", 0x1000, P, ("KVM-PAGEENC-20", "KVM-PAGEENC-21", "KVM-PAGEENC-22")),
    "highest-page": ("fffffffffffff000", "1", "0", 0xFFFFFFFFFFFFF000, S, ()),
}


@pytest.mark.parametrize(("gpa", "npages", "enc", "start", "to", "broken"), VALUES.values(), ids=VALUES.keys())
def test_meaning(gpa: str, npages: str, enc: str, start: int, to: PageState, broken: tuple[str, ...]) -> None:
    event = one(CALL.format(gpa, npages, enc))
    assert (event.gpa, event.to, event.broken) == (start, to, broken)


MALFORMED = {
    "phrase-alone": ("page_enc_status_hc invoked", "`, gpa = "),
    "prose": ("when page_enc_status_hc invoked the handler", "`, gpa = "),
    "prefix-0x": (CALL.format("0x1000", "1", "0"), "`, gpa = "),
    "upper-case": (CALL.format("1F000", "1", "0"), "`, gpa = "),
    "not-hexadecimal": (CALL.format("1g", "1", "0"), "`, gpa = "),
    "negative": (CALL.format("1000", "-1", "0"), "`, npages  = "),
    "wrapped-by-a-mail-program": ("page_enc_status_hc invoked, gpa = 1000, npages  = 1,\n> enc = 0", "`, enc = "),
    "undecoded-quoted-printable": (
        "x = 1 page_enc_status_hc invoked, gpa =3D 1000, npages =3D 1, enc =3D 0",
        "`, gpa = ",
    ),
    "fraction": (CALL.format("1000", "1.5", "0"), "`, npages  = "),
    "other-order": ("page_enc_status_hc invoked, npages = 1, gpa = 1000, enc = 0", "`, gpa = "),
    "without-enc": ("page_enc_status_hc invoked, gpa = 1000, npages = 1", "`, enc = "),
    "gpa-of-65-bits": (CALL.format("1" + "0" * 16, "1", "0"), "does not fit"),
    "npages-of-65-bits": (CALL.format("0", "18446744073709551616", "0"), "does not fit"),
    "enc-of-65-bits": (CALL.format("0", "1", "f" * 17), "does not fit"),
    "endless-number": (CALL.format("0", "1" * 5000, "0"), "`, npages  = "),
    "full-width-digits": (CALL.format("1000", "\uff11", "0"), "`, npages  = "),
}


@pytest.mark.parametrize(("text", "reason"), MALFORMED.values(), ids=MALFORMED.keys())
def test_what_cannot_be_read_is_counted_and_never_guessed(text: str, reason: str) -> None:
    events, trace = read(f"first = line\n{text}\n")
    assert events == []
    report = trace.report()
    assert report.malformed == 1
    (found,) = report.first_malformed
    assert isinstance(found, Malformed)
    assert (found.source, found.line) == ("t", 2)
    assert reason in found.reason
    assert found.excerpt.startswith("page_enc_status_hc invoked")
    assert len(found.excerpt) <= 100


def test_an_excerpt_cannot_steer_a_terminal() -> None:
    _, trace = read("page_enc_status_hc invoked\x1b]0;owned\x07 \u202e")
    assert trace.report().first_malformed[0].excerpt == r"page_enc_status_hc invoked\x1b]0;owned\x07 \u202e"


def test_only_the_first_malformed_records_are_kept() -> None:
    _, trace = read("page_enc_status_hc invoked\n" * 25)
    report = trace.report()
    assert report.malformed == 25
    assert [found.line for found in report.first_malformed] == list(range(1, 11))


def test_two_records_in_one_line() -> None:
    """Consoles lose line ends: a whole record after a torn one, and two whole ones, each with its own time."""
    torn = "[ 1.0] page_enc_status_hc invoked, gpa = 1f0[ 2.0] " + CALL.format("1000", "1", "0")
    events, trace = read(torn)
    assert [(event.gpa, event.time_seconds) for event in events] == [(0x1000, 2.0)]
    assert trace.report().malformed == 1
    events, _ = read("[ 1.0] " + CALL.format("1000", "1", "0") + "[ 2.0] " + CALL.format("2000", "1", "1"))
    assert [(event.gpa, event.time_seconds, event.to) for event in events] == [(0x1000, 1.0, S), (0x2000, 2.0, P)]
    events, _ = read("[ 1.0] " + CALL.format("1000", "1", "0") + " " + CALL.format("2000", "1", "1"))
    assert [event.time_seconds for event in events] == [1.0, None]


def test_a_record_that_the_cut_goes_through_is_not_read() -> None:
    record = CALL.format("1000", "1", "1")
    inside = "x" * (MAX_LINE - len(record) - 1) + record + " more"
    at_the_cut = "x" * (MAX_LINE - len(record)) + record + "2345"
    events, trace = read(f"{inside}\n{at_the_cut}\n{record}\n")
    assert [event.line for event in events] == [1, 3]
    report = trace.report()
    assert [found.line for found in report.first_malformed] == [2]
    assert [(note.code, note.count, note.line) for note in report.notes] == [("line-cut", 2, 1)]


def test_every_line_is_counted_once() -> None:
    text = f"""hello
> {CALL.format("1000", "1", "0")}
>
> ....
page_enc_status_hc invoked, gpa

<snip>
svm_page_enc_status_hc(kvm, gpa)
"""
    events, trace = read(text)
    report = trace.report()
    assert len(events) == 1
    assert report.events == {"page-enc-status": 1}
    assert (report.lines, report.malformed, report.elisions, report.blank_lines, report.unrecognised_lines) == (
        8,
        1,
        2,
        2,
        2,
    )
    assert report.bytes_read == len(text)
    (note,) = report.notes
    assert (note.code, note.count, note.line) == ("elisions", 2, 4)


def test_formats_can_be_chosen() -> None:
    text = io.BytesIO(CALL.format("1000", "1", "0").encode())
    assert list(Trace(text, name="t", formats=[])) == []
    with pytest.raises(UsageError, match="page-enc-status") as caught:
        Trace(text, name="t", formats=["page-enc-statsu"])
    assert caught.value.code == "unknown-format"


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    cases: dict[str, str | Path] = {"none": tmp_path / "none", "folder": tmp_path, "nul": "a\0b"}
    for name, path in cases.items():
        with pytest.raises(TraceError) as caught:
            open_trace(path)
        assert caught.value.code == "unreadable-trace", name
        assert str(path) in caught.value.message, name
