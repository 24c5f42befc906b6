"""Names in texts: where a page explains them. Texts of specifications are plain; here they get links and code marks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hvabi.abi.glossary import entries as glossary
from hvabi.abi.values import ident

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hvabi.abi.glossary import Entry
    from hvabi.abi.specification import Abi

_TOKEN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:[.@-][A-Za-z0-9_]+)*")
_MARKED = re.compile(r".*_|[A-Z0-9]{4,}$|[A-Z][A-Z0-9]*(-[A-Z0-9]+)*-[0-9]+$|[a-z0-9]+(-[a-z0-9]+)+$")
"""What stands for a name even within a sentence: ``cur_entry``, ``RETRY``, ``GHCB-PSC-01``, ``ghcb-psc``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a name is explained: an address in the site, and the explanation in a few words."""

    href: str
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A part of a text: plain, or a name with its target."""

    text: str
    target: Target | None = None


_FIRST = ("rule", "field of", "constant", "value of", "config key", "policy", "fact")
"""Kinds of names in the order in which they are meant where several things have one name."""
_NEVER = ("outcome", "ABI", "message", "revision", "transport", "layout", "enum", "profile")
"""Kinds of names that are words of the language too, or stand in texts as such."""


def _rank(entry: Entry) -> int:
    return next((number for number, kind in enumerate(_FIRST) if entry.kind.startswith(kind)), len(_FIRST))


class Names:
    """Every name that the page of an ABI explains, and the other pages of the site."""

    def __init__(self, abi: Abi | None, abis: Iterable[Abi] = ()) -> None:
        self._targets: dict[str, Target] = {}
        self._seen: dict[tuple[str, bool], tuple[Piece, ...]] = {}
        for other in abis:
            if abi is None or other.id != abi.id:
                self._add(other.id, f"{other.id}.html", other.title)
        if abi is not None:
            self._page(abi)

    def _add(self, name: str, href: str, title: str) -> None:
        self._targets.setdefault(name, Target(href=href, title=title))

    def _page(self, abi: Abi) -> None:
        entries = sorted((item for item in glossary(abi) if item.kind not in _NEVER), key=_rank)
        for call in abi.calls.values():
            for define in call.define.values():
                self._add(define.name, f"#define-{call.name}-{define.name}", define.doc)
        for entry in entries:
            number = f"{entry.number:#x}: " if entry.number is not None else ""
            self._add(entry.name, f"#{entry.anchor}", f"{number}{entry.text}")
            if entry.kind.startswith("value of "):
                self._add(f"{ident(entry.kind[9:])}.{entry.name}", f"#{entry.anchor}", f"{number}{entry.text}")
        for message in abi.messages.values():
            for item in message.fields.values():
                for layout, shown in ((item.word, item.name), (item.items, f"{item.name}[]")):
                    for part in layout.fields.values() if layout is not None else ():
                        href = f"#layout-{layout.name}-{part.name}" if layout is not None else ""
                        self._add(f"{shown}.{part.name}", href, part.doc)
        for transport in abi.transports.values():
            for limit in transport.limits.values():
                self._add(limit.name, f"#transport-{transport.name}", limit.doc)
        for source in abi.sources.values():
            self._add(source.name, f"#source-{source.name}", source.title)

    def find(self, name: str) -> Target | None:
        """Return the target of a name, or None."""
        return self._targets.get(name)

    def prose(self, text: str) -> tuple[Piece, ...]:
        """Return a sentence in pieces: only what cannot be an ordinary word counts as a name."""
        return self._read(text, prose=True)

    def code(self, text: str) -> tuple[Piece, ...]:
        """Return an expression, or several, in pieces: every known name counts."""
        return self._read(text, prose=False)

    def _read(self, text: str, *, prose: bool) -> tuple[Piece, ...]:
        # A page says the same thing in several places.
        found = self._seen.get((text, prose))
        if found is None:
            found = self._seen[text, prose] = tuple(self._pieces(text, prose=prose))
        return found

    def _pieces(self, text: str, *, prose: bool) -> Iterator[Piece]:
        at = 0
        for match in _TOKEN.finditer(text):
            for start, end in self._names(match):
                name = text[start:end]
                if prose and not _MARKED.match(name):
                    continue
                if start > at:
                    yield Piece(text=text[at:start])
                yield Piece(text=name, target=self._targets.get(name) or _NOWHERE)
                at = end
        if at < len(text):
            yield Piece(text=text[at:])

    def _names(self, match: re.Match[str]) -> Iterator[tuple[int, int]]:
        """Yield the known names within a token: all of it, else its longest parts."""
        text, start = match[0], match.start()
        if text in self._targets:
            yield match.span()
            return
        parts = list(re.finditer(r"[A-Za-z0-9_]+", text))
        first = 0
        while first < len(parts):
            for last in range(len(parts), first, -1):
                low, high = parts[first].start(), parts[last - 1].end()
                if text[low:high] in self._targets:
                    yield start + low, start + high
                    first = last
                    break
            else:
                if "_" in parts[first][0].strip("_"):
                    yield start + parts[first].start(), start + parts[first].end()
                first += 1


_NOWHERE = Target(href="", title="")
"""The target of what is code and explained nowhere."""
