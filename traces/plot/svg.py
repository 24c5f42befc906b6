"""The few SVG elements that the pictures need, and how they look.

The colours are of Okabe and Ito's palette, which people with any colour vision can tell apart; what is told by
colour is also told by place, words or brightness. Every class has a light and a dark look, chosen by the viewer's
own setting.
"""

from __future__ import annotations

from html import escape

WIDE = 960
NARROW = 420

STYLE = """
text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;font-size:13px;fill:#1f2328}
.title{font-size:16px;font-weight:600}
.note{fill:#59636e}
.bg{fill:#ffffff}
.grid{stroke:#d1d9e0;stroke-width:1;fill:none}
.axis{stroke:#59636e;stroke-width:1;fill:none}
.row{fill:#f3f5f7}
.share{fill:#d55e00}
.unshare{fill:#0072b2}
.idle{fill:#8c959f}
.most{fill:#0072b2;fill-opacity:.25}
.line{stroke:#0072b2;stroke-width:2;fill:none;stroke-linejoin:round}
.bar{fill:#0072b2}
.m1{fill:#fde3cf}.m2{fill:#fbbd8d}.m3{fill:#f28e3f}.m4{fill:#d55e00}.m5{fill:#943f00}
@media (prefers-color-scheme:dark){
text{fill:#e6edf3}.note{fill:#9198a1}.bg{fill:#0d1117}
.grid{stroke:#30363d}.axis{stroke:#9198a1}.row{fill:#161b22}
.share{fill:#e69f00}.unshare{fill:#56b4e9}.idle{fill:#6e7681}
.most{fill:#56b4e9;fill-opacity:.3}.line{stroke:#56b4e9}.bar{fill:#56b4e9}
.m1{fill:#4a2a0c}.m2{fill:#7d4300}.m3{fill:#b56a00}.m4{fill:#e69f00}.m5{fill:#ffe0a3}
}
"""


def number(value: float) -> str:
    """Return a coordinate, as short as is exact enough."""
    return f"{value:.1f}".removesuffix(".0")


def text(x: float, y: float, words: str, *, cls: str = "", anchor: str = "start") -> str:
    """Return words at a place."""
    extra = f' class="{cls}"' if cls else ""
    where = f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text x="{number(x)}" y="{number(y)}"{extra}{where}>{escape(words)}</text>'


def rect(x: float, y: float, width: float, height: float, cls: str) -> str:
    """Return a rectangle."""
    return f'<rect x="{number(x)}" y="{number(y)}" width="{number(width)}" height="{number(height)}" class="{cls}"/>'


def line(x1: float, y1: float, x2: float, y2: float, cls: str) -> str:
    """Return a straight line."""
    return f'<path d="M{number(x1)} {number(y1)}L{number(x2)} {number(y2)}" class="{cls}"/>'


def path(data: str, cls: str) -> str:
    """Return a path; nothing where it has no points."""
    return f'<path d="{data}" class="{cls}"/>' if data else ""


def box(x: float, y: float, width: float, height: float) -> str:
    """Return a rectangle as a piece of a path: thousands of them are one element."""
    return f"M{number(x)} {number(y)}h{number(width)}v{number(height)}h{number(-width)}z"


def document(width: float, height: float, body: str, *, title: str, inline: bool = False) -> str:
    """Return a whole SVG; `inline` ones stand in a page that has the style."""
    style = "" if inline else f"<style>{STYLE}</style>"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {number(width)} {number(height)}"'
        f' width="{number(width)}" height="{number(height)}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{style}{rect(0, 0, width, height, 'bg')}{body}</svg>\n"
    )
