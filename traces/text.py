"""Lines of a trace as text: small functions, one for each kind of wrapping that mails, logs and terminals add.

Bytes become lines in `hvabi.traces.blocks`; quoted-printable is in `hvabi.traces.quoted_printable`.
"""

from __future__ import annotations

import re

_ANSI = re.compile(rb"\x1b\[[0-9;?]*[ -/]*[@-~]")
_QUOTE = re.compile(r"[ \t]{0,3}>(?:[ \t]{0,3}>)*[ \t]?")
_QUOTE_BYTES = re.compile(rb"(?:[ \t]{0,3}>)+[ \t]?")
_ELISION = re.compile(
    rb"[\s>]*(?:\.{3,}|\xe2\x80\xa6|[<\[({-]+\s*(?:\.{3,}|\xe2\x80\xa6|snip(?:ped)?)\s*[>\])}-]+|\*?snip\*?)\s*",
    re.IGNORECASE,
)


def without_colours(data: bytes) -> bytes:
    """Return a line without the codes by which dmesg and grep colour it."""
    return _ANSI.sub(b"", data) if b"\x1b" in data else data


def clean(data: bytes) -> str:
    """Return a line as text: UTF-8, without the quote marks of mails at any depth."""
    text = data.decode("utf-8", "replace")
    # A mark stands within the first four columns or not at all.
    quote = _QUOTE.match(text) if b">" in data[:4] else None
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
