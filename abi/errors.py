"""Exceptions of hvabi: our mistakes and the caller's, never a wire status and never a verdict.

Each has a stable kebab-case ``code`` for programs, a ``message`` for people, an optional ``hint`` that says
what to do next, and ``fields`` with the facts. All survive pickling, so that worker processes can raise them.
"""

from __future__ import annotations

import reprlib
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hvabi.abi.diagnostics import Diagnostic

CodecCode = Literal[
    "truncated",
    "oversized",
    "value-too-large",
    "unknown-field",
    "missing-field",
    "wrong-type",
    "reserved-bits",
    "const-mismatch",
    "bad-hex",
]
"""Why bytes or field values cannot be coded."""

ExprCode = Literal[
    "expr-syntax",
    "expr-unknown-name",
    "expr-unknown-field",
    "expr-division-by-zero",
    "expr-wrong-type",
    "expr-index",
    "expr-empty-list",
    "expr-shift",
    "expr-too-deep",
    "expr-too-large",
    "expr-too-many-steps",
]
"""Why an expression cannot be read or evaluated."""

_SHOWN = 120
"""Longest piece of foreign input that a message repeats, in characters."""

_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _SHOWN

_LISTED = 12
"""Most names that a hint lists."""


def _rebuild(cls: type[HvAbiError], args: tuple[Any, ...], state: dict[str, Any]) -> HvAbiError:
    error = cls.__new__(cls, *args)
    error.__dict__.update(state)
    return error


def show(value: object) -> str:
    """Return a short, printable form of any value for a message: integers in decimal or hex, else a repr."""
    if isinstance(value, int) and not isinstance(value, bool):
        if value.bit_length() > 4 * _SHOWN:
            return f"an integer of {value.bit_length()} bits"
        return str(int(value)) if abs(value) < 1 << 16 else hex(value)
    try:
        text = _REPR.repr(value).encode("ascii", "backslashreplace").decode()
    except ValueError:  # a list of integers too long for decimal text
        text = f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


class HvAbiError(Exception):
    """Base of every exception that hvabi raises on purpose.

    Attributes:
        code: stable kebab-case name of the kind of error.
        message: one sentence, without the hint.
        hint: what to do next, or None.
        fields: the facts of the error by name; read-only.

    """

    code: str = "hvabi"

    def __init__(self, message: str, *, code: str | None = None, hint: str | None = None, **fields: object) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if code is not None:
            self.code = code
        self._fields = fields

    @property
    def fields(self) -> Mapping[str, object]:
        """The facts of the error by name; read-only."""
        return MappingProxyType(self._fields)

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


class SpecError(HvAbiError):
    """A specification file is wrong. ``str()`` shows every diagnostic with its source line."""

    code = "spec"

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics: tuple[Diagnostic, ...] = tuple(diagnostics)
        count = sum(diagnostic.severity == "error" for diagnostic in self.diagnostics)
        files = len({diagnostic.path for diagnostic in self.diagnostics})
        super().__init__(
            f"{count} error{'' if count == 1 else 's'} in {files} file{'' if files == 1 else 's'}",
            errors=count,
            ids=tuple(diagnostic.id for diagnostic in self.diagnostics),
        )

    def __str__(self) -> str:
        return "\n".join(diagnostic.text() for diagnostic in self.diagnostics) or self.message


class CodecError(HvAbiError):
    """A message cannot be encoded or decoded.

    Attributes:
        code: one of `CodecCode`.
        message_name: the message, for example ``ghcb-psc/request``.
        path: the field inside it, for example ``entries[3].operation``; empty for the whole message.
        bit_range: ``(hi, lo)`` of the field in its word, or None.
        byte_offset: offset of the word or of the missing byte in its block, in bytes, or None.
        expected: what would have been right.
        found: what was there.

    """

    code = "codec"

    def __init__(
        self,
        code: CodecCode,
        reason: str,
        *,
        message_name: str = "",
        path: str = "",
        bit_range: tuple[int, int] | None = None,
        byte_offset: int | None = None,
        expected: object = None,
        found: object = None,
        hint: str | None = None,
    ) -> None:
        place = []
        if bit_range is not None:
            hi, lo = bit_range
            place.append(f"bit {hi}" if hi == lo else f"bits {hi}:{lo}")
        if byte_offset is not None:
            place.append(f"byte {byte_offset}")
        where = ": ".join(part for part in (message_name, path) if part)
        if place:
            where = f"{where} ({', '.join(place)})".lstrip()
        facts = []
        if expected is not None:
            facts.append(f"expected {expected if isinstance(expected, str) else show(expected)}")
        if found is not None:
            facts.append(f"found {show(found)}")
        text = ": ".join(part for part in (where, reason, ", ".join(facts)) if part)
        super().__init__(
            text,
            code=code,
            hint=hint,
            message_name=message_name,
            path=path,
            bit_range=bit_range,
            byte_offset=byte_offset,
            expected=expected,
            found=found,
        )
        self.reason = reason
        self.message_name = message_name
        self.path = path
        self.bit_range = bit_range
        self.byte_offset = byte_offset
        self.expected = expected
        self.found = found


class UsageError(HvAbiError):
    """The caller asked for something that does not exist or does not fit."""

    code = "usage"

    @classmethod
    def unknown(cls, kind: str, name: object, known: Iterable[str]) -> Self:
        """Return the error for a name that nothing is known by; its code is ``unknown-<kind>``.

        Args:
            kind: what was looked up, in words: ``abi``, ``revision``, ``transport``, ``message``.
            name: the name as given; any value.
            known: the names that exist; the hint offers the nearest or lists them.

        """
        names = sorted(known)
        import difflib  # only where somebody has mistyped

        near = difflib.get_close_matches(str(name)[:_SHOWN], names, n=3, cutoff=0.6)
        if near:
            hint = f"did you mean {' or '.join(near)}?"
        elif names:
            more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
            hint = f"known: {', '.join(names[:_LISTED])}{more}"
        else:
            hint = f"no {kind} is known here"
        return cls(
            f"unknown {kind} {show(name)}",
            code=f"unknown-{kind.replace(' ', '-')}",
            hint=hint,
            name=name if isinstance(name, (str, int)) else show(name),
            known=tuple(names),
        )


class ExprError(HvAbiError):
    """An expression cannot be read or evaluated.

    Attributes:
        code: one of `ExprCode`.
        subexpr: the part at fault as canonical text; empty for a syntax error.
        column: 1-based column of a syntax error, offset by the parser's ``column0``; None when evaluating.
        end_column: 1-based column after the part at fault, or None.

    """

    code = "expr"

    def __init__(
        self,
        code: ExprCode,
        reason: str,
        *,
        subexpr: str = "",
        column: int | None = None,
        end_column: int | None = None,
        hint: str | None = None,
    ) -> None:
        shown = subexpr if len(subexpr) <= _SHOWN else subexpr[: _SHOWN - 1] + "…"
        text = f"`{shown}`: {reason}" if shown else reason
        if column is not None:
            text = f"column {column}: {text}"
        super().__init__(text, code=code, hint=hint, subexpr=subexpr, column=column, end_column=end_column)
        self.reason = reason
        self.subexpr = subexpr
        self.column = column
        self.end_column = end_column
