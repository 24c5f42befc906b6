"""Foreign text in reports: what an implementation printed, made harmless, and cut where it is long."""

from __future__ import annotations

import re

from hvabi.abi.diagnostics import escape

MAX_LINE = 2000
"""Longest line of foreign text that a report repeats, in characters."""

_CUT = " […] "
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def one_line(text: str, most: int = MAX_LINE) -> str:
    """Return foreign text as one line: controls, bidi marks and surrogates escaped, the middle left out if long."""
    text = " ".join(text.split("\n")) if "\n" in text else text
    return cut(escape(text[: most * 4]) if len(text) > most * 4 else escape(text), most)


def cut(text: str, most: int) -> str:
    """Return text of at most `most` characters; what is left out is in the middle."""
    if len(text) <= most:
        return text
    rest = max(most - len(_CUT), 2)
    return text[: rest - rest // 3] + _CUT + text[len(text) - rest // 3 :]


def tail(text: str, *, lines: int, characters: int) -> list[str]:
    """Return the last lines of a log as harmless text, not more than `characters` in all."""
    kept = text[-characters:]
    rows = kept.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n").split("\n") if kept.strip() else []
    dropped = len(kept) < len(text) or len(rows) > lines
    rows = [one_line(row) for row in rows[-lines:]]
    return ["[… earlier text left out]", *rows] if rows and dropped else rows


def xml_text(text: str) -> str:
    """Return text with every character that XML 1.0 does not allow written as an escape."""
    return _NOT_XML.sub(lambda found: _code(found[0]), text)


def json_text(text: str) -> str:
    """Return text without lone surrogates, which strict JSON readers refuse."""
    return text.encode("utf-8", "backslashreplace").decode()


def _code(char: str) -> str:
    number = ord(char)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def plural(count: int, one: str, many: str | None = None) -> str:
    """Return a count with its word."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def bit_list(mask: int) -> str:
    """Return the bits of a mask, highest first: ``bit 1``, ``bits 63, 12:3 and 0``. Empty for 0."""
    runs: list[str] = []
    while mask:
        high = mask.bit_length() - 1
        low = high
        while low and mask >> (low - 1) & 1:
            low -= 1
        runs.append(str(high) if high == low else f"{high}:{low}")
        mask &= (1 << low) - 1
    if not runs:
        return ""
    word = "bit" if len(runs) == 1 and ":" not in runs[0] else "bits"
    return f"{word} {runs[0]}" if len(runs) == 1 else f"{word} {', '.join(runs[:-1])} and {runs[-1]}"
