"""The HTML report, read with an HTML parser: links resolve, nothing is fetched, nothing foreign becomes markup."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest

from hvabi.conformance.report import html
from hvabi.conformance.report.markup import Markup, join, tag, text
from hvabi.conformance.report.page import SCRIPT, STYLE
from tests.conformance.report_runs import every_verdict, failed, hostile, passing

if TYPE_CHECKING:
    from hvabi.conformance.result import RunResult

VOID = {"meta", "input", "br", "hr"}
KNOWN = {
    "html", "head", "meta", "title", "style", "body", "script", "h1", "h2", "h3", "p", "code", "ul", "li", "div",
    "table", "thead", "tbody", "tr", "th", "td", "details", "summary", "span", "b", "blockquote", "footer", "a", "pre",
    "mark", "form", "input", "select", "option", "label", "output",
}  # fmt: skip
RUNS = [every_verdict(), hostile(), passing(), passing(0), replace(passing(), complete=False)]
IDS = ["every verdict", "hostile", "good", "empty", "given up"]


class Page(HTMLParser):
    """What a page is made of; tags must nest."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.stack: list[str] = []
        self.texts: dict[str, str] = {}
        self.text = ""
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), attrs
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        where = self.stack[-1] if self.stack else ""
        self.texts[where] = self.texts.get(where, "") + data
        if where not in ("script", "style"):
            self.text += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.mark.parametrize("run", RUNS, ids=IDS)
def test_structure(run: RunResult) -> None:
    page = Page(html.render(run))
    assert page.stack == []
    assert {name for name, _ in page.tags} <= KNOWN
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.tags:
        assert not {name for name in attributes if name.startswith("on")}
        assert "src" not in attributes
        assert "style" not in attributes
    for link in page.of("a"):
        href = link["href"] or ""
        assert href.removeprefix("#") in ids if href.startswith("#") else re.match(r"https?://", href)
    assert len(page.of("title")) == 1
    assert page.of("html")[0]["lang"] == "en"
    assert any(item.get("name") == "viewport" for item in page.of("meta"))


@pytest.mark.parametrize("run", RUNS, ids=IDS)
def test_nothing_is_fetched_and_only_our_script_runs(run: RunResult) -> None:
    source = html.render(run)
    page = Page(source)
    assert page.texts["script"] == SCRIPT
    assert page.texts["style"] == STYLE
    assert len(page.of("script")) == len(page.of("style")) == 1
    (policy,) = [item["content"] for item in page.of("meta") if item.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    for word in ("http", "url(", "@import", "fetch(", "XMLHttpRequest", "import("):
        assert word not in STYLE
        assert word not in SCRIPT
    assert not page.of("link")
    assert not page.of("img")
    assert not page.of("iframe")


def test_hostile_text_is_shown_as_text() -> None:
    source = html.render(hostile())
    assert "<script>alert" not in source
    assert "<script>alert(1)</script>" in Page(source).text
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\ud800-\udfff]", source)
    source.encode("utf-8")
    assert len(source) < 500_000


def test_a_failure_shows_both_messages_with_the_differing_bits_marked() -> None:
    run = replace(passing(0), results=(failed(),))
    source = html.render(run)
    page = Page(source)
    assert "ALIGN_ERROR (0x8000000000000002)" in page.text
    assert "INVALID_OPERAND (0x8000000000000000)" in page.text
    assert "0x800000000000000<mark>2</mark>" in source
    assert "0x800000000000000<mark>0</mark>" in source
    assert "bits of status in r10" in page.text
    assert "000000<mark>1</mark>0  expected" in source
    assert "TDX-MAPGPA-06 (must)" in page.text
    assert "Linux arch/x86/kvm/vmx/tdx.c, tdx_map_gpa(), 7.3.4" in page.text
    assert "toy-vmm: MapGPA gpa" in page.text
    assert run.results[0].reproduce in page.text
    (details,) = page.of("details")
    assert "open" in details


def test_every_case_is_in_the_table_and_can_be_filtered() -> None:
    run = every_verdict()
    page = Page(html.render(run))
    rows = [attributes for attributes in page.of("tr") if "data-column" in attributes]
    assert len(rows) == len(run.results)
    boxes = {item["value"] for item in page.of("input") if item.get("type") == "checkbox"}
    assert boxes == {row["data-column"] for row in rows}
    groups = {item["value"] for item in page.of("option")}
    assert {row["data-group"] for row in rows} == groups - {""}


def test_the_first_cases_are_shown_in_full_and_the_rest_is_in_the_table() -> None:
    run = replace(passing(0), results=tuple(failed(f"n{number}") for number in range(30)))
    page = Page(html.render(run, limit=5))
    assert len(page.of("details")) == 5
    assert "25 more below" in page.text
    assert len([row for row in page.of("tr") if "data-column" in row]) == 30


def test_equal_runs_give_equal_pages() -> None:
    assert html.render(every_verdict()) == html.render(every_verdict(seconds=77.0))


def test_light_dark_print_and_phone() -> None:
    for media in ("prefers-color-scheme: dark", "@media print", "max-width: 40rem"):
        assert media in STYLE


def test_only_markup_is_not_escaped() -> None:
    assert text("<&\"'>") == "&lt;&amp;&quot;&#x27;&gt;"
    assert join(["<b>", Markup("<i>"), None]) == "&lt;b&gt;<i>"
    assert tag("td", "<", class_='a"b', hidden=True, title=None) == '<td class="a&quot;b" hidden>&lt;</td>'
