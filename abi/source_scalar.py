"""What a plain (unquoted) YAML scalar means, and which are refused because YAML 1.1 and 1.2 disagree."""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_INTEGER = 1 << 128
"""Largest absolute value of an integer."""

_NUMERIC = frozenset("0123456789+-.")
_WORDS: dict[str, bool | None] = {"true": True, "false": False, "null": None}
_AMBIGUOUS = {
    **dict.fromkeys(("yes", "on", "y", "true"), "true"),
    **dict.fromkeys(("no", "off", "n", "false"), "false"),
    **dict.fromkeys(("null", "~"), "null"),
}

_DECIMAL = re.compile(r"[-+]?(?:0|[1-9][0-9]*)\Z")
_PREFIXED = re.compile(r"0x[0-9a-fA-F]+\Z|0o[0-7]+\Z")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9_]+\Z")
_BASE_60 = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-9_]+)+(?:\.[0-9_]*)?\Z")
_TIMESTAMP = re.compile(
    r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}"
    r"(?:(?:[Tt]|[ \t]+)[0-9]{1,2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]*)?"
    r"(?:[ \t]*(?:Z|[-+][0-9]{1,2}(?::?[0-9]{2})?))?)?\Z"
)
_FLOAT = re.compile(
    r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*|[0-9][0-9_]*(?=[eE]))(?:[eE][-+]?[0-9]+)?\Z"
    r"|[-+]?\.(?:inf|Inf|INF)\Z|\.(?:nan|NaN|NAN)\Z"
)
_ODD_NUMBER = re.compile(r"[-+]?0[xX][0-9a-fA-F_]+\Z|[-+]?0[bB][01_]+\Z|[-+]?0[oO][0-7_]+\Z|[-+]?[0-9][0-9_]*\Z")
_LONGEST_NUMBER = 64


class Refusal(NamedTuple):
    """Why a scalar is refused; the fields are those of a diagnostic."""

    id: str
    message: str
    hint: str


def resolve(text: str) -> str | int | bool | Refusal | None:
    """Return the value of a plain scalar, or why it is refused.

    Values are ``true``, ``false``, ``null``, decimal, ``0x`` and ``0o`` integers; everything else is a
    string, unless a YAML 1.1 parser would read something else.
    """
    if not text:
        return Refusal("yaml-empty-value", "the value is missing", 'write null, "", [] or {}')
    if text[0] in _NUMERIC:
        return _number(text)
    if len(text) <= 5:
        if text in _WORDS:
            return _WORDS[text]
        if text.lower() in _AMBIGUOUS:
            meant = _AMBIGUOUS[text.lower()]
            hint = f'write {meant}, or "{text}" in quotes for text'
            return Refusal("yaml-ambiguous-word", f"{text} means different things in YAML 1.1 and 1.2", hint)
    if text == "<<":
        return Refusal("yaml-merge-key", "merge keys are not part of YAML 1.2", 'write the keys out, or quote "<<"')
    if text == "=":
        return Refusal("yaml-ambiguous-word", "= has a special meaning in YAML 1.1", 'write "=" in quotes')
    return text


def _number(text: str) -> str | int | Refusal:
    if _DECIMAL.match(text) or _PREFIXED.match(text):
        value = int(text, 0) if len(text) <= _LONGEST_NUMBER else MAX_INTEGER + 1
        if abs(value) > MAX_INTEGER:
            return Refusal("yaml-integer-range", "the integer is beyond 2**128", "write it in quotes if it is text")
        return value
    if text[0] == "." and not _FLOAT.match(text):
        return text
    shown = text if len(text) <= _LONGEST_NUMBER else text[:_LONGEST_NUMBER] + "…"
    quoted = f'write "{shown}" in quotes for text'
    if _LEADING_ZERO.match(text):
        digits = text.lstrip("+-").replace("_", "").lstrip("0") or "0"
        number = f"{text[0] if text[0] == '-' else ''}{digits[:_LONGEST_NUMBER]}"
        octal = f", 0o{digits} if it is octal" if re.fullmatch("[0-7]{1,22}", digits) and text[0] == "0" else ""
        reason = f"{shown} has a leading zero, which YAML 1.1 reads as octal"
        return Refusal("yaml-leading-zero", reason, f"write {number} if it is decimal{octal}, or {quoted[6:]}")
    if _BASE_60.match(text):
        pair = re.fullmatch(r"([0-9]{1,4}):([0-9]{1,4})", text)
        bits = f"write [{int(pair[1])}, {int(pair[2])}] for a range of bits, or " if pair else ""
        reason = f"{shown} is a number in base 60 in YAML 1.1"
        return Refusal("yaml-base-60", reason, f"{bits}{quoted[6:] if pair else quoted}")
    if _TIMESTAMP.match(text):
        return Refusal("yaml-timestamp", f"{shown} is a time stamp in YAML 1.1", quoted)
    if _FLOAT.match(text):
        return Refusal("yaml-float", f"{shown} is a fraction; there are only integers", quoted)
    if _ODD_NUMBER.match(text):
        hint = f"write decimal, 0x or 0o digits without _, or {quoted[6:]}"
        return Refusal("yaml-ambiguous-number", f"{shown} is a number in YAML 1.1 and text in 1.2", hint)
    return text
