"""The templates of the manual and what they may call: links, expressions, drawings. Jinja is imported here only."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import jinja2

from hvabi.abi import words
from hvabi.abi.expr import Int
from hvabi.abi.expr_readable import readable
from hvabi.conformance.report.markup import Markup, join, raw, tag
from hvabi.publish import svg

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hvabi.abi.expr import Expr
    from hvabi.abi.model import Field, Guard
    from hvabi.abi.specification import Profile
    from hvabi.publish.drawing import Drawing
    from hvabi.publish.linked import Names, Piece
    from hvabi.publish.marked import Format
    from hvabi.publish.samples import Sample


@cache
def text_of(name: str) -> str:
    """Return a file of the templates."""
    return files("hvabi.publish").joinpath("templates", name).read_text(encoding="utf-8")


class _Loader(jinja2.BaseLoader):
    def get_source(
        self, environment: jinja2.Environment, template: str
    ) -> tuple[str, str | None, Callable[[], bool] | None]:
        return text_of(template), None, lambda: True


@cache
def environment(*, html: bool) -> jinja2.Environment:
    """Return the template engine: for HTML everything is escaped, a name that is not there is an error everywhere."""
    made = jinja2.Environment(
        loader=_Loader(),
        autoescape=html,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        extensions=["jinja2.ext.do"],
    )
    made.globals.update(
        words=words,
        readable=readable,
        hexadecimal=hexadecimal,
        range_of_bits=lambda hi, lo: str(lo) if hi == lo else f"{hi}:{lo}",
    )
    return made


def hexadecimal(number: int) -> str:
    """Return a number as people look for it: hex, small and small negative ones in decimal."""
    return str(number) if -(1 << 16) < number < 10 else f"{number:#x}" if number >= 0 else f"-{-number:#x}"


def shown(expr: Expr) -> str:
    """Return an expression for people, a lone number as `hexadecimal` has it."""
    return hexadecimal(expr.value) if isinstance(expr, Int) else readable(expr)


# -- HTML -------------------------------------------------------------------------------------------------------


def html_of(pieces: Iterable[Piece], *, whole: bool) -> Markup:
    """Return a text with links; `whole` where all of it is code, else each name is code of its own."""
    parts: list[Markup | str] = []
    for piece in pieces:
        if piece.target is None:
            parts.append(piece.text)
            continue
        inner = piece.text if whole else tag("code", piece.text)
        if piece.target.href:
            parts.append(tag("a", inner, href=piece.target.href, title=piece.target.title, class_="n"))
        else:
            parts.append(inner)
    return tag("code", *parts) if whole else join(parts)


def html_helpers(names: Names) -> dict[str, Any]:
    """Return what the templates of a page call: texts and expressions with the links of that page."""
    return {
        "prose": lambda text: html_of(names.prose(text), whole=False),
        "code": lambda text: html_of(names.code(text), whole=True) if text else "",
        "expr": lambda item: html_of(names.code(shown(item)), whole=True),
        "drawn": _drawn,
    }


def _drawn(wide: Drawing, narrow: Drawing) -> Markup:
    """Return a diagram twice, for wide and for narrow pages; the page's style shows one of them."""
    return tag(
        "div",
        svg.draw(wide, svg.WIDE, class_="wide"),
        svg.draw(narrow, svg.NARROW, class_="narrow"),
        class_="drawing",
    )


# -- plain formats ----------------------------------------------------------------------------------------------


def plain_helpers(form: Format) -> dict[str, Any]:
    """Return what the templates of Markdown and reStructuredText call."""

    def when(guard: Guard) -> str:
        held = words.guard(guard)
        return f" ({form.prose(held)})" if held else ""

    def field_text(item: Field) -> str:
        return form.prose(words.text_of(item))

    def profile_text(profile: Profile) -> str:
        return ", ".join(f"{name}: {value}" for name, value in profile.policies.items())

    return {"f": form, "when": when, "field_text": field_text, "profile_text": profile_text,
            "example_lines": example_lines}  # fmt: skip


def example_lines(sample: Sample) -> list[str]:
    """Return a worked example as lines of text."""
    parts = [
        list(sample.fields),
        [f"{name:<12} {value}" for name, value in sample.regs],
        list(sample.dump),
        ["answer:", *sample.response, *sample.answer] if sample.response or sample.answer else [],
        [f"{name:<12} {value}" for name, value in sample.answer_regs],
        list(sample.answer_dump),
    ]
    out: list[str] = []
    for part in parts:
        if part:
            out += [*([""] if out else []), *part]
    return out


def policy(scripts: Iterable[str], style: str) -> str:
    """Return the content security policy of a page: its own style and scripts, and nothing from anywhere."""
    allowed = " ".join(f"'sha256-{_sum(text)}'" for text in scripts) or "'none'"
    return (
        f"default-src 'none'; style-src 'sha256-{_sum(style)}'; script-src {allowed}; img-src data:; "
        "base-uri 'none'; form-action 'self' file:"
    )


def _sum(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def inline(text: str) -> Markup:
    """Return our own style or script for a page as it stands."""
    return raw(text)
