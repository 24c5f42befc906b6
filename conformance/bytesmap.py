"""Guest memory as the runner knows it: what was placed and written, zero elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hvabi.conformance.case import Memory

_PAGE = 4096


class Bytes:
    """Bytes by address; what was never set is 0."""

    def __init__(self, pieces: Iterable[tuple[int, bytes]] = ()) -> None:
        self._pages: dict[int, bytearray] = {}
        self.lay(pieces)

    def lay(self, pieces: Iterable[tuple[int, bytes]]) -> None:
        """Set bytes; later pieces win."""
        for address, data in pieces:
            at = 0
            while at < len(data):
                page, offset = divmod(address + at, _PAGE)
                part = data[at : at + _PAGE - offset]
                if page not in self._pages:
                    self._pages[page] = bytearray(_PAGE)
                self._pages[page][offset : offset + len(part)] = part
                at += len(part)

    def read(self, address: int, size: int) -> bytes:
        """Return bytes."""
        out = bytearray()
        while len(out) < size:
            page, offset = divmod(address + len(out), _PAGE)
            part = min(size - len(out), _PAGE - offset)
            known = self._pages.get(page)
            out += known[offset : offset + part] if known is not None else bytes(part)
        return bytes(out)

    def pieces(self) -> Memory:
        """Return every page that was ever touched, as pieces."""
        return tuple((page * _PAGE, bytes(self._pages[page])) for page in sorted(self._pages))


class Spans:
    """A set of bytes, as sorted and disjoint ``[start, end)``."""

    def __init__(self, spans: Iterable[tuple[int, int]] = ()) -> None:
        self.spans: list[tuple[int, int]] = []
        for start, end in sorted(spans):
            if start >= end:
                continue
            if self.spans and start <= self.spans[-1][1]:
                self.spans[-1] = (self.spans[-1][0], max(end, self.spans[-1][1]))
            else:
                self.spans.append((start, end))

    def minus(self, other: Spans) -> Spans:
        """Return what is here and not there."""
        out: list[tuple[int, int]] = []
        for start, end in self.spans:
            at = start
            for low, high in other.spans:
                if high <= at or low >= end:
                    continue
                if low > at:
                    out.append((at, low))
                at = max(at, high)
            if at < end:
                out.append((at, end))
        return Spans(out)

    def within(self, other: Spans) -> bool:
        """Whether everything here is there too."""
        return not self.minus(other).spans

    def __bool__(self) -> bool:
        return bool(self.spans)


def text_of(spans: list[tuple[int, int]]) -> str:
    """Return pages for people: first to last, the first four."""
    shown = ", ".join(f"{start:#x} to {end - 1:#x}" for start, end in spans[:4])
    return (shown or "no pages") + (", …" if len(spans) > 4 else "")
