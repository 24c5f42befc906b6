"""What mails and terminals put around the text of a line, taken off."""

from __future__ import annotations

import pytest

from hvabi.traces.text import clean, is_blank, is_elision, without_colours

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
