"""Pictures: well formed, of all the data, bounded, and the one of the README up to date."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest

from hvabi.backend import PageState
from hvabi.traces import TraceEvent, TraceSummary, replay, replay_sources
from hvabi.traces.plot import svg
from hvabi.traces.plot.page import page, picture
from hvabi.traces.plot.scale import seconds, si, size, step, ticks, time_unit

P, S = PageState.PRIVATE, PageState.SHARED
ROOT = Path(__file__).parent.parent.parent
SEED = ROOT / "tests" / "data" / "traces" / "page_enc_status_hc.log"
SPACE = "{http://www.w3.org/2000/svg}"


def call(line: int, first: int, pages: int, to: PageState, time: float | None) -> TraceEvent:
    return TraceEvent("t", line, time, None, first << 12, pages, to, True)


def words(text: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(text).iter(f"{SPACE}text")]


def test_the_picture_in_the_readme_is_up_to_date() -> None:
    found = replay_sources([SEED], by_calls=True)
    assert picture(found) == (ROOT / "docs" / "images" / "replay.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize("by_calls", [None, True])
def test_the_four_pictures_of_the_seed(by_calls: bool | None) -> None:
    found = replay_sources([SEED], by_calls=by_calls)
    text = picture(found)
    shown = words(text)
    for title in (
        "Memory that was shared, over time",
        "Ranges that are not private, over time",
        "How often pages changed",
    ):
        assert title in shown
    assert ("Direction of each call" if by_calls else "Conversions per second") in shown
    assert {"2 pages", "9 pages", "100 pages", "0x1d766000", "at most 4, 3 at the end"} <= set(shown)
    assert "prefers-color-scheme:dark" in text
    # In the dark every class that has a colour has another one.
    light, dark = svg.STYLE.split("@media")
    assert set(re.findall(r"\.(\w+)\{", light)) - {"title"} == set(re.findall(r"\.(\w+)\{", dark))


def test_the_page_has_wide_and_narrow_pictures_and_needs_nothing_else() -> None:
    text = page(replay_sources([SEED]))
    checker = HTMLParser()
    checker.feed(text)
    checker.close()
    assert text.count("<svg") == 8
    assert text.count('class="wide"') == text.count('class="narrow"') == 4
    assert not re.search(r"(?:src|href)=|<script|url\(|@import", text)
    assert "What a pool of freed pages would save" in text


def test_foreign_names_cannot_break_the_page() -> None:
    import io

    line = b"page_enc_status_hc invoked, gpa = 1000, npages  = 1, enc = 0\n"
    found = replay_sources([("<script>alert(1)</script>&\"'", io.BytesIO(line))])
    assert "<script" not in page(found)
    ET.fromstring(picture(found))


def storm(calls: int) -> TraceSummary:
    return replay(call(n, n * 7919 % 100_000, 1 + n % 3, S if n % 3 else P, n / 1000) for n in range(calls))


SUMMARIES = {
    "nothing": replay([]),
    "one-call": replay([call(1, 0, 1, S, None)]),
    "one-time": replay([call(n, n, 1, S, 5.0) for n in range(3)]),
    "no-clock": replay([call(n, 9, 1, S if n % 2 else P, None) for n in range(50)]),
    "no-effect": replay([call(1, 0, 1, P, 1.0)]),
    "everything": replay([call(1, 0, 2**52 - 1, S, 1.0), call(2, 0, 1, P, 2e9)]),
    "storm": storm(20_000),
}


@pytest.mark.parametrize("name", SUMMARIES)
def test_any_summary_can_be_drawn(name: str) -> None:
    for width in (svg.WIDE, svg.NARROW):
        text = picture(SUMMARIES[name], width)
        root = ET.fromstring(text)
        high = float(root.get("height") or 0)
        assert len(text) < 1_500_000
        assert not re.search(r"nan|inf", re.sub(r"<style>.*?</style>|<text.*?</text>", "", text))
        for element in root.iter(f"{SPACE}rect"):
            assert float(element.get("width") or 0) >= 0
            assert float(element.get("height") or 0) >= 0
            assert float(element.get("y") or 0) <= high
    assert page(SUMMARIES[name]).endswith("</html>\n")


def test_axes_show_round_numbers() -> None:
    assert [step(10, 5), step(7, 5), step(0.031, 4), step(0, 3)] == [2.0, 2.0, 0.01, 1.0]
    assert ticks(10, 5) == [0, 2, 4, 6, 8, 10]
    assert ticks(3, 5, whole=True) == [0, 1, 2, 3]
    assert [si(0), si(1500), si(2e6), si(0.25)] == ["0", "1.5k", "2M", "0.25"]
    assert [time_unit(60), time_unit(0.3), time_unit(1e-5)] == [(1.0, "s"), (1e-3, "ms"), (1e-6, "µs")]
    assert seconds(0.25, 1e-3) == "250"
    assert [size(96), size(15876), size(3 << 30)] == ["96 B", "15.5 KiB", "3 GiB"]
