"""What a command is about: ``ABI[@REV][/MESSAGE]``, and ``--set KEY=NUMBER``."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass

from hvabi.abi.errors import UsageError
from hvabi.abi.registry import Spec as Spec
from hvabi.abi.registry import abi_ids, load

MAX_DIGITS = 4000
"""Longest number that is read from a command line, in characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """An ABI in one revision, and the message or layout asked for, if any."""

    spec: Spec
    name: str | None
    revision_given: bool

    @property
    def is_layout(self) -> bool:
        """Whether a layout was named and no message is called so."""
        abi = self.spec.abi
        return self.name is not None and self.name not in abi.messages and self.name in abi.layouts


def target(text: str) -> Target:
    """Read ``ABI[@REV][/MESSAGE]``. Raises `UsageError` with the nearest names for one that does not exist."""
    head, slash, name = text.partition("/")
    abi, at, revision = head.partition("@")
    if abi not in abi_ids():
        raise UsageError.unknown("abi", abi, abi_ids())
    if (slash and not name) or (at and not revision):
        raise UsageError(
            f"{text!r} stops in the middle", code="bad-target", hint="write ABI, ABI@REVISION or ABI/MESSAGE"
        )
    spec = load(abi, revision=revision or None)
    if name:
        known = [*spec.abi.messages, *spec.abi.layouts]
        if name not in known:
            raise UsageError.unknown("message", name, known)
    return Target(spec=spec, name=name or None, revision_given=bool(revision))


def integer(text: str, what: str) -> int:
    """Read a decimal, ``0x``, ``0b`` or ``0o`` number. Raises `UsageError` ``bad-number``."""
    text = text.strip()
    if len(text) <= MAX_DIGITS:
        with contextlib.suppress(ValueError):
            return int(text, 0)
    hint = "write a number as 4096 or 0x1000"
    if re.fullmatch(r"[0-9A-Fa-f]{1,40}", text):
        hint = f"a hexadecimal number begins with 0x: 0x{text}"
    raise UsageError(f"{what}: {text[:80]!r} is no number", code="bad-number", hint=hint)


def settings(items: tuple[str, ...]) -> dict[str, int]:
    """Read ``KEY=NUMBER`` items. Raises `UsageError` ``bad-setting``."""
    found: dict[str, int] = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise UsageError(f"--set {item!r} is no KEY=NUMBER", code="bad-setting", hint="for example --set gpaw=52")
        found[key] = integer(value, f"--set {key}")
    return found
