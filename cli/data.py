"""What `hvabi decode` is given: hex, a file, standard input, or registers as ``r12=0x1000``."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

from hvabi.abi.errors import CodecError, UsageError, show
from hvabi.abi.given import Given
from hvabi.abi.wire import register_bits
from hvabi.cli.target import integer

LIMIT = 1 << 20
"""Most bytes of a message: the frame limit of the line protocol."""

_TEXT_LIMIT = 4 * LIMIT
_SEPARATORS = re.compile(r"[\s:,_-]+")
_HEX = re.compile(r"[0-9A-Fa-f]*\Z")
_REGISTER = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")
_MEMORY = re.compile(r"mem\[([^\]]*)\]\Z")
_PLAIN = frozenset(range(0x20, 0x7F)) | {0x09, 0x0A, 0x0D}


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """The data, and in words what it was taken for."""

    data: bytes | Given
    said: str


def looks_like_data(text: str) -> bool:
    """Whether an argument is data and no name of an ABI: ``-``, an assignment, hex digits, or a file."""
    return text == "-" or "=" in text or is_hex(text) or _exists(text)


def is_hex(text: str) -> bool:
    """Whether a text is hex digits and separators only, with at least one digit."""
    return bool(_digits(text)) and bool(_HEX.match(_digits(text)))


def _digits(text: str) -> str:
    return "".join(part.removeprefix("0x").removeprefix("0X") for part in _SEPARATORS.split(text))


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):
        return False


def read_input(args: tuple[str, ...], *, raw: bool = False) -> Input:
    """Read the arguments of a command.

    Args:
        args: hex digits, joined; ``NAME=VALUE`` registers and ``mem[ADDRESS]=HEX`` pieces; one file; or ``-``.
        raw: take the bytes of a file or of standard input as they are, whatever they look like.

    Raises:
        CodecError: ``bad-hex``.
        UsageError: for empty or oversized input, a folder, a file that does not exist.

    """
    if not args or not any(arg.strip() for arg in args):
        raise _nothing("there is nothing to decode")
    if args == ("-",):
        return _from_bytes(sys.stdin.buffer.read(_TEXT_LIMIT + 1), "standard input", raw=raw)
    if len(args) == 1 and not is_hex(args[0]) and "=" not in args[0]:
        return _from_file(args[0], raw=raw)
    if len(args) == 1 and len(_digits(args[0])) % 2 and _exists(args[0]):
        return _from_file(args[0], raw=raw)
    if "-" in args:
        raise UsageError("- stands alone", code="bad-input", hint="pipe all of the data in, or write it as arguments")
    return _from_text(" ".join(args), "the arguments")


def _nothing(message: str) -> UsageError:
    return UsageError(
        message,
        code="empty-input",
        hint="give hex digits, registers as rax=12 rbx=0x1000, a file, or - for standard input",
    )


def _from_file(text: str, *, raw: bool) -> Input:
    path = Path(text)
    if not _exists(text):
        if re.search(r"[./\\]", text) or len(text) > 200:
            raise UsageError(f"there is no file {show(text)}", code="no-file", hint="or give the data as hex digits")
        raise _bad_hex(text, "the argument", "and there is no such file")
    if path.is_dir():
        raise UsageError(f"{text} is a folder", code="is-folder", hint="name a file in it")
    with path.open("rb") as stream:
        return _from_bytes(stream.read(_TEXT_LIMIT + 1), text, raw=raw)


def _from_bytes(data: bytes, where: str, *, raw: bool) -> Input:
    """Decide by content: hex text or assignments where everything is, else raw bytes."""
    if not data:
        raise _nothing(f"{where} is empty")
    if not raw and all(byte in _PLAIN for byte in data[:_TEXT_LIMIT]):
        if len(data) > _TEXT_LIMIT:
            raise _too_long(where, len(data))
        text = "\n".join(line.split("#", 1)[0] for line in data.decode("ascii").splitlines())
        if not text.strip():
            raise _nothing(f"{where} has no data")
        if "=" in text or is_hex(text):
            return _from_text(text, where)
        raise _bad_hex(text, where, "and it is text")
    if len(data) > LIMIT:
        raise _too_long(where, len(data))
    return Input(data=data, said=f"{_count(len(data))}, raw, from {where}")


def _too_long(where: str, size: int) -> UsageError:
    return UsageError(
        f"{where} has more than {LIMIT if size <= _TEXT_LIMIT else _TEXT_LIMIT} bytes: no message is that long",
        code="oversized",
        hint="cut out the bytes of the message, for example with dd or head -c",
    )


def _count(size: int) -> str:
    return f"{size} byte{'' if size == 1 else 's'}"


def _bad_hex(text: str, where: str, also: str) -> CodecError:
    digits = _digits(text)
    at = next((number for number, char in enumerate(digits) if not _HEX.match(char)), 0)
    found = digits[at : at + 1]
    return CodecError(
        "bad-hex",
        f"{where}: {show(found)} is no hex digit (number {at + 1}), {also}",
        hint="give pairs of digits 0-9 a-f; xxd -p FILE makes them; --raw takes a file's bytes as they are",
    )


def _from_text(text: str, where: str) -> Input:
    if "=" in text:
        given = _assignments(text)
        parts = [*given.regs, *(f"{_count(len(data))} at {at:#x}" for at, data in given.mem)]
        return Input(data=given, said=", ".join(parts[:12]) + (", …" if len(parts) > 12 else "") + f" from {where}")
    data = _hex(text, where)
    return Input(data=data, said=f"{_count(len(data))}, hex digits, from {where}")


def _hex(text: str, where: str) -> bytes:
    digits = _digits(text)
    if not _HEX.match(digits):
        raise _bad_hex(text, where, "which is neither hex nor NAME=VALUE")
    if not digits:
        raise _nothing(f"{where}: no hex digits")
    if len(digits) % 2:
        raise CodecError(
            "bad-hex",
            f"{where}: {len(digits)} hex digits are no whole number of bytes",
            hint="a digit is missing or one too many; a number such as 0x1000 goes to a register: rbx=0x1000",
        )
    if len(digits) // 2 > LIMIT:
        raise _too_long(where, len(digits) // 2)
    return bytes.fromhex(digits)


def _assignments(text: str) -> Given:
    regs: dict[str, int] = {}
    mem: list[tuple[int, bytes]] = []
    for token in re.split(r"[\s,;]+", text.strip()):
        name, equals, value = token.partition("=")
        if not equals:
            raise UsageError(
                f"{show(token)} stands among registers and is no NAME=VALUE",
                code="bad-register",
                hint="write all of it as registers, rax=12 rbx=0x1000, or all of it as hex digits",
            )
        if memory := _MEMORY.match(name):
            mem.append((_address(memory[1]), _hex(value, name[:40])))
            continue
        if not _REGISTER.match(name):
            raise UsageError(
                f"{show(name)} is no register", code="bad-register", hint="for example rax=12 or mem[0x1000]=0c00"
            )
        name = name.lower()
        number = integer(value, name[:40])
        bits = register_bits(name)
        if not -(1 << (bits - 1)) <= number < 1 << bits:
            raise UsageError(
                f"{name}={show(number)} does not fit {bits} bits",
                code="bad-register",
                hint=f"{bits // 4} hex digits at most",
            )
        if name in regs:
            raise UsageError(f"{name} is given twice", code="bad-register", hint="leave one out")
        regs[name] = number & ((1 << bits) - 1)
    return Given(regs=regs, mem=tuple(mem))


def _address(text: str) -> int:
    number = integer(text, "the address of mem[…]")
    if not 0 <= number < 1 << 64:
        raise UsageError(
            f"address {show(number)} does not fit 64 bits", code="bad-register", hint="for example mem[0x1000]=0c00"
        )
    return number
