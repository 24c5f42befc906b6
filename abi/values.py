"""Typed values of messages and layouts: named tuples, and open enums."""

from __future__ import annotations

import enum
import re
from collections import namedtuple
from functools import cache, wraps
from typing import TYPE_CHECKING, Any, TypeVar

from hvabi.abi.errors import CodecError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from hvabi.abi.model import Enum

T = TypeVar("T")
R = TypeVar("R")
_MOST_KEPT = 1 << 14

Value = Any
"""A named tuple whose fields are integers, members of an open enum, other values, or tuples of them."""


def by_identity(function: Callable[[T], R]) -> Callable[[T], R]:
    """Keep what a function gives for each object, by the object's identity: for values that are slow to hash.

    The object is kept too, so that its id is not given to another one. The store is emptied when it is full.
    """
    known: dict[int, tuple[T, R]] = {}

    @wraps(function)
    def kept(thing: T) -> R:
        found = known.get(id(thing))
        if found is None:
            if len(known) >= _MOST_KEPT:
                known.clear()
            found = known[id(thing)] = thing, function(thing)
        return found[1]

    return kept


@cache
def ident(name: str) -> str:
    """Return a kebab-case name of a specification as a Python identifier; the only place that converts."""
    return re.sub(r"[^A-Za-z0-9_]", "_", name)


def class_name(name: str) -> str:
    """Return a kebab-case name in CamelCase."""
    return "".join(part[:1].upper() + part[1:] for part in re.split(r"[^A-Za-z0-9]+", name) if part)


@cache
def value_class(name: str, fields: tuple[str, ...]) -> type[Any]:
    """Return the named tuple class for a message or layout. Equal arguments give the same class."""
    return namedtuple(class_name(name), fields)  # the fields are data, not code


@cache
def _enum_class(name: str, members: tuple[tuple[str, int], ...]) -> type[enum.IntEnum]:
    return enum.IntEnum(class_name(name), members)  # type: ignore[return-value]  # the functional API gives the class


@by_identity
def opener(spec: Enum) -> Callable[[int], int]:
    """Return a function from a number to its member, or to the number itself where the enum has no name for it."""
    return _opener(spec.name, tuple((value.name, value.value) for value in spec.values.values()))


@cache
def _opener(name: str, members: tuple[tuple[str, int], ...]) -> Callable[[int], int]:
    known: dict[int, int] = {int(member): member for member in _enum_class(name, members)}

    def open_value(number: int) -> int:
        return known.get(number, number)

    return open_value


def number_of(spec: Enum | None, given: object, *, message: str, path: str) -> int:
    """Return what a caller gave for a field (a number, or a name of its enum) as an integer.

    Raises `CodecError` with code ``wrong-type`` for anything else, naming the known names.
    """
    if isinstance(given, int):
        return int(given)
    if isinstance(given, str) and spec is not None and given in spec.values:
        return spec.values[given].value
    names = ", ".join(spec.values) if spec is not None else ""
    raise CodecError(
        "wrong-type",
        "is not a number" if spec is None else f"is neither a number nor one of {names}",
        message_name=message,
        path=path,
        found=given,
    )


def plain(value: object) -> Any:
    """Return a value as dictionaries, lists and integers; members of enums become their names."""
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {name: plain(item) for name, item in zip(value._fields, value, strict=True)}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def check_names(given: Iterable[str], known: Mapping[str, object], *, message: str, path: str = "") -> None:
    """Raise `CodecError` ``unknown-field`` for the first name that the message does not have."""
    for name in given:
        if name not in known:
            raise CodecError(
                "unknown-field",
                f"there is no field {name!r}",
                message_name=message,
                path=path,
                expected="one of " + ", ".join(known),
            )
