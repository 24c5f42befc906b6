"""Quoted-printable: decoded where the file is in it, and left alone where it is not."""

from __future__ import annotations

import io
import quopri
import random

import pytest

from hvabi.traces.blocks import MAX_LINE, Blocks, LineSource
from hvabi.traces.quoted_printable import QuotedPrintable

HEADER = b"Subject: =?utf-8?Q?a=3Db?=\nContent-Transfer-Encoding: quoted-printable\nX: a=b\n\n"


def decoded(data: bytes) -> tuple[list[tuple[int, bytes]], QuotedPrintable]:
    decoder, source = QuotedPrintable(), LineSource()
    lines = [line for block in Blocks(io.BytesIO(data), name="t") for line in source.split(block)]
    return [(line.number, line.data) for line in decoder.decode(lines)], decoder


CASES = {
    "the-break-inside-npages": (
        b"gpa =3D 1f018000, npages  =\n=3D 1, enc =3D 1\nx\n",
        [(1, b"gpa = 1f018000, npages  = 1, enc = 1"), (3, b"x")],
    ),
    "a-break-before-the-first-evidence": (b"gpa =\n=3D 1\nx\n", [(1, b"gpa = 1"), (3, b"x")]),
    "three-pieces": (b"a =3D b=\nc=\nd\n", [(1, b"a = bcd")]),
    "spaces-after-the-break": (b"a =3D b= \t\nc\n", [(1, b"a = bc")]),
    "dos": (b"a =3D b=\r\nc\r\n", [(1, b"a = bc")]),
    "break-at-the-end-of-the-file": (b"a =3D b=", [(1, b"a = b")]),
    "quoted-without-decoding": (b"> > a =3D =\n> > b\n", [(1, b"> > a = b")]),
    "quoted-and-then-encoded": (b"> > a =3D =\nb\n", [(1, b"> > a = b")]),
    "encoded-line-end": (b"a =3D 1=0D=0Ab =3D 2\n", [(1, b"a = 1"), (1, b"b = 2")]),
    "utf-8": (b"caf=C3=A9 =3D\n", [(1, "café =".encode())]),
    # Conservative: what a log of the kernel has is not quoted-printable.
    "log": (b"a = 1\nb=3D\n", [(1, b"a = 1"), (2, b"b=3D")]),
    "option": (b"root=UUID=3D\n", [(1, b"root=UUID=3D")]),
    "trailing-equals-sign": (b"a=\nb\n", [(1, b"a="), (2, b"b")]),
    "trailing-equals-sign-in-a-log": (b"a=\nb = 1\n", [(1, b"a="), (2, b"b = 1")]),
    "no-evidence": (b"a=20b\n", [(1, b"a=20b")]),
    "taken-back": (b"x=3D\nb = 1\nc=3D\n", [(1, b"x="), (2, b"b = 1"), (3, b"c=3D")]),
    "taken-back-after-a-break": (b"x=3D1=\nb = 1\n", [(1, b"x=3D1="), (2, b"b = 1")]),
    # A header decides for the body below it, and headers themselves are not in it.
    "header": (
        HEADER + b"a=20b = =3D\n",
        [
            (1, b"Subject: =?utf-8?Q?a=3Db?="),
            (2, b"Content-Transfer-Encoding: quoted-printable"),
            (3, b"X: a=b"),
            (4, b""),
            (5, b"a b = ="),
        ],
    ),
    "quoted-header": (
        b"> Content-Transfer-Encoding: quoted-printable\n\na=20b\n",
        [(1, b"> Content-Transfer-Encoding: quoted-printable"), (2, b""), (3, b"a=20b")],
    ),
    "next-mail": (
        HEADER + b"a=20b\nFrom me@host Mon Jan  1 00:00:00 2024\n\nc=20d = 1\n",
        [
            (1, b"Subject: =?utf-8?Q?a=3Db?="),
            (2, b"Content-Transfer-Encoding: quoted-printable"),
            (3, b"X: a=b"),
            (4, b""),
            (5, b"a b"),
            (6, b"From me@host Mon Jan  1 00:00:00 2024"),
            (7, b""),
            (8, b"c=20d = 1"),
        ],
    ),
    "other-encoding": (
        b"Content-Transfer-Encoding: 8bit\n\na = 1=20\n",
        [(1, b"Content-Transfer-Encoding: 8bit"), (2, b""), (3, b"a = 1=20")],
    ),
}


@pytest.mark.parametrize(("data", "expected"), CASES.values(), ids=CASES.keys())
def test_lines(data: bytes, expected: list[tuple[int, bytes]]) -> None:
    assert decoded(data)[0] == expected


def test_what_is_reported() -> None:
    _, by_content = decoded(b"x\na =3D b=\nc=\nd\n")
    assert (by_content.declared, by_content.detected, by_content.soft_breaks) == (None, 2, 2)
    _, by_header = decoded(HEADER + b"a=\nb\n")
    assert (by_header.declared, by_header.detected, by_header.soft_breaks) == (2, None, 1)
    _, neither = decoded(b"a = 1\n")
    assert (neither.declared, neither.detected, neither.soft_breaks) == (None, None, 0)
    _, base64 = decoded(b"A: b\nContent-Transfer-Encoding: base64\n\nYWJj\n")
    assert (base64.base64, base64.declared) == (2, None)


def test_what_the_standard_library_encodes_comes_back() -> None:
    rng = random.Random(7)
    text = [b"x = 1"]
    text += [
        bytes(rng.choice(b"ab=> \t\xc3\xa9.") for _ in range(rng.randrange(200))).rstrip(b" \t") for _ in range(300)
    ]
    # No line that the joining of undecoded quotes could touch: marks only where a piece cannot begin.
    text = [line.replace(b">", b"") for line in text]
    found, _ = decoded(quopri.encodestring(b"\n".join(text) + b"\n"))
    assert [line for _, line in found] == text


def test_a_line_joined_without_end_is_cut() -> None:
    found, decoder = decoded(b"a =3D b=\n" + b"0123456789=\n" * 100_000 + b"z\nnext\n")
    assert [number for number, _ in found] == [1, 100_003]
    assert found[0][1].startswith(b"a = b0123456789012")
    assert len(found[0][1]) <= MAX_LINE
    assert found[1][1] == b"next"
    assert (decoder.cut_lines, decoder.first_cut) == (1, 1)
