"""The line protocol's frames and words: one JSON object a line after a prefix, integers as hex strings.

docs/protocol.md has the whole protocol. Nothing here knows what the commands mean.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from hvabi.abi.errors import HvAbiError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import BinaryIO

PREFIX = "@hvabi "
VERSION = 1
MAX_LINE = 1 << 20
"""Longest line in bytes, prefix and line end included."""

_ENCODE = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
_HEX_NUMBER = re.compile(r"0x[0-9a-f]+\Z")
_REGISTER = re.compile(r"[a-z][a-z0-9_]{0,31}\Z")
_WIDEST = 128


class ProtocolError(HvAbiError):
    """A line or an argument that the protocol does not allow; answered with ``error``, never an ABI status."""

    code = "protocol"


class Unsupported(HvAbiError):
    """Something known not to be there; answered with ``unsupported``, so that a runner skips."""

    code = "unsupported"


def parse_line(line: str) -> dict[str, Any] | None:
    """Return the object of a prefixed line, or None for log text. Raises `ProtocolError` for a broken frame."""
    if not line.startswith(PREFIX):
        return None
    try:
        value = json.loads(line[len(PREFIX) :])
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"the line holds no JSON: {error}") from error
    if not isinstance(value, dict):
        raise ProtocolError("the line holds no JSON object")
    return value


def format_line(value: Mapping[str, Any]) -> str:
    """Return an object as a line, with its end."""
    return PREFIX + _ENCODE(value) + "\n"


def read_lines(stream: BinaryIO) -> Iterator[str | None]:
    """Yield lines as text without their ends; None for one that is too long, which is skipped to its end."""
    while True:
        raw = stream.readline(MAX_LINE + 1)
        if not raw:
            return
        if len(raw) > MAX_LINE:
            prefixed = raw.startswith(PREFIX.encode())
            while raw and not raw.endswith(b"\n"):
                raw = stream.readline(MAX_LINE + 1)
            # Log text may be as long as it likes.
            if prefixed:
                yield None
            continue
        yield raw.decode("utf-8", "replace").rstrip("\r\n")


# -- words ------------------------------------------------------------------------------------------------------


def argument(command: Mapping[str, Any], name: str) -> Any:
    """Return an argument that must be there."""
    if name not in command:
        raise ProtocolError(f"the argument `{name}` is missing", code="missing-argument")
    return command[name]


def number(value: Any, what: str, *, bits: int = 64) -> int:
    """Read a ``"0x…"`` string of at most `bits` bits."""
    found = _hex_number(value) if isinstance(value, str) and len(value) <= 2 + _WIDEST // 4 else None
    if found is None:
        raise ProtocolError(f'{what} is a lower-case "0x…" string, not {shown(value)}', code="bad-number")
    if found >> bits:
        raise ProtocolError(f"{what} does not fit {bits} bits: {value}", code="bad-number")
    return found


@lru_cache(maxsize=1 << 12)
def _hex_number(text: str) -> int | None:
    return int(text, 16) if _HEX_NUMBER.match(text) else None


def plain_number(value: Any, what: str) -> int:
    """Read a JSON number that is a small integer of zero or more."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 32:
        raise ProtocolError(f"{what} is a JSON number of zero or more, not {shown(value)}", code="bad-number")
    return value


def word(value: Any, what: str) -> str:
    """Read a string."""
    if not isinstance(value, str):
        raise ProtocolError(f"{what} is a string, not {shown(value)}", code="bad-word")
    return value


def data(value: Any, what: str) -> bytes:
    """Read bytes as even-length lower-case hex."""
    try:
        found = bytes.fromhex(value)
    except (TypeError, ValueError):
        found = b""
    # fromhex takes blanks and capital letters too: what it has read is written back.
    if found.hex() != value:
        raise ProtocolError(f"{what} is even-length lower-case hex without 0x, not {shown(value)}", code="bad-hex")
    return found


@lru_cache(maxsize=1024)
def _is_register(name: str) -> bool:
    return _REGISTER.match(name) is not None


def registers(value: Any) -> dict[str, int]:
    """Read ``regs``."""
    if not isinstance(value, dict):
        raise ProtocolError(f"regs is an object, not {shown(value)}", code="bad-regs")
    out: dict[str, int] = {}
    for name, item in value.items():
        if not _is_register(name):
            raise ProtocolError(f"{shown(name)} is no register name", code="bad-regs")
        out[name] = number(item, f"register {name}", bits=128 if name.startswith("xmm") else 64)
    return out


def memory(value: Any) -> tuple[tuple[int, bytes], ...]:
    """Read ``mem``: sorted, disjoint pieces of memory."""
    out: list[tuple[int, bytes]] = []
    end = 0
    for gpa, item in _rows(value, "mem", 2):
        start, piece = number(gpa, "gpa of mem"), data(item, "bytes of mem")
        if start < end or start + len(piece) > 1 << 64:
            raise ProtocolError(f"mem is not sorted and disjoint at {start:#x}", code="not-sorted")
        end = start + len(piece)
        out.append((start, piece))
    return tuple(out)


def page_ranges(value: Any, what: str, *, adjacent: bool = True) -> list[tuple[int, int]]:
    """Read ``[[gpa, pages]…]`` as sorted, disjoint ``(first page, end page)``."""
    return [(start, end) for start, end, _ in _spans(value, what, 2) if start < end]


def state_ranges(value: Any, what: str, state: Callable[[Any], Any]) -> list[tuple[int, int, Any]]:
    """Read ``[[gpa, pages, state]…]`` as sorted, disjoint ``(first page, end page, state)``."""
    rows = [(start, end, state(rest[0])) for start, end, rest in _spans(value, what, 3)]
    return [row for row in rows if row[0] < row[1]]


def _spans(value: Any, what: str, width: int) -> Iterator[tuple[int, int, list[Any]]]:
    last = 0
    for gpa, pages, *rest in _rows(value, what, width):
        start, count = number(gpa, f"gpa of {what}"), number(pages, f"pages of {what}")
        if start % 4096 or (start >> 12) + count > 1 << 52:
            raise ProtocolError(f"{what} has no whole 4 KiB pages at {start:#x}", code="bad-range")
        if start >> 12 < last:
            raise ProtocolError(f"{what} is not sorted and disjoint at {start:#x}", code="not-sorted")
        last = (start >> 12) + count
        yield start >> 12, last, rest


def _rows(value: Any, what: str, width: int) -> Iterable[list[Any]]:
    if not isinstance(value, list) or any(not isinstance(row, list) or len(row) != width for row in value):
        raise ProtocolError(f"{what} is a list of lists of {width}", code="bad-list")
    return value


def shown(value: Any) -> str:
    """Return a short form of any JSON value for a message."""
    try:
        text = json.dumps(value)
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


# -- what is sent -----------------------------------------------------------------------------------------------


def hex_regs(regs: Mapping[str, int]) -> dict[str, str]:
    """Return registers as the protocol writes them."""
    return {name: hex(value) for name, value in regs.items()}


def hex_mem(mem: Iterable[tuple[int, bytes]]) -> list[list[str]]:
    """Return memory as the protocol writes it."""
    return [[hex(gpa), piece.hex()] for gpa, piece in mem]


def hex_pages(ranges: Iterable[tuple[int, int]], *more: str) -> list[list[str]]:
    """Return ``(first page, end page)`` ranges as ``[gpa, pages, …]``."""
    return [[hex(start << 12), hex(end - start), *more] for start, end in ranges]
