"""HTML made of tags: every text is escaped here and nowhere else."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from hvabi.abi.diagnostics import escape

if TYPE_CHECKING:
    from collections.abc import Iterable

_VOID = frozenset({"br", "hr", "input", "meta"})


class Markup(str):
    """Text that is HTML already. Only this module makes it from plain text."""

    __slots__ = ()

    def __html__(self) -> str:
        """Return itself: template engines ask for it before they escape."""
        return str(self)


Child = str | Markup | None
"""A piece of HTML, text that is still to be escaped, or nothing."""


def text(value: str) -> Markup:
    """Return plain text as HTML: markup is escaped, and so are controls, bidi marks and surrogates; lines stay."""
    shown = escape(value) if "\n" not in value else "\n".join(map(escape, value.split("\n")))
    return Markup(html.escape(shown, quote=True))


def join(children: Iterable[Child]) -> Markup:
    """Return the pieces one after another."""
    return Markup("".join(child if isinstance(child, Markup) else text(child) for child in children if child))


def tag(name: str, /, *children: Child, **attributes: str | bool | None) -> Markup:
    """Return an element.

    ``class_`` is the attribute class and ``data_x`` is data-x; True is an attribute without a value, None is none.
    """
    parts = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        shown = key.rstrip("_").replace("_", "-")
        parts.append(shown if value is True else f'{shown}="{text(str(value))}"')
    opened = f"<{' '.join(parts)}>"
    return Markup(opened) if name in _VOID else Markup(f"{opened}{join(children)}</{name}>")


def raw(value: str) -> Markup:
    """Return our own style or script, which is not escaped. Never for anything that came from outside."""
    return Markup(value)
