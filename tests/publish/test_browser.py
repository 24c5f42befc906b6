"""The pages in a real browser: nothing is refused or fails, the decoder is right on examples and on wrong input."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from hvabi.abi.registry import abi_ids, bundled, load
from hvabi.abi.values import number_of
from hvabi.abi.wire import Wire
from hvabi.publish.book import read_book
from hvabi.publish.docs import manual
from hvabi.publish.samples import hexdump, samples

if TYPE_CHECKING:
    from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: the pages cannot be opened")

# Runs after the page's own scripts: works the form as a person would, and leaves what it saw in the page.
DRIVER = """
(() => {
  const seen = { examples: [], wrong: [], loaded: performance.getEntriesByType("resource").map((entry) => entry.name) };
  const model = JSON.parse(document.getElementById("model").textContent);
  const root = document.getElementById("try");
  const said = () => {
    const node = root.querySelector(".said");
    return { text: node.textContent, bad: node.classList.contains("bad") };
  };
  const type = (input, value) => {
    input.focus();
    input.value = value;
    input.dispatchEvent(new Event("input", { bubbles: true }));
    input.blur();
  };
  const pairs = (where) => Object.fromEntries(
    Array.from(root.querySelectorAll(where), (input) => [input.getAttribute("aria-label"), input.value]));
  const look = () => ({
    said: said(),
    fields: pairs(".side:first-child .row[data-path] > input"),
    regs: pairs(".side:last-child .row > input"),
    memory: (root.querySelector("textarea") || { value: "" }).value,
  });
  const example = (n) => {
    const select = Array.from(root.querySelectorAll(".settings select")).pop();
    select.value = String(n);
    select.dispatchEvent(new Event("change", { bubbles: true }));
  };
  model.examples.forEach((item, n) => { example(n); seen.examples.push(look()); });
  const first = model.examples.findIndex((item) => item.message);
  const wrong = (what, change) => {
    example(first);
    const input = change(root);
    const marked = Boolean(root.querySelector(".bad:not(.said)"));
    seen.wrong.push({ what, said: said(), marked, value: input ? input.value : "" });
  };
  const field = (n) => root.querySelectorAll(".side:first-child .row:not(.reserved)[data-path] > input")[n];
  wrong("a word", () => { const input = field(0); type(input, "nonsense"); return input; });
  wrong("too large", () => { const input = field(0); type(input, "0x1" + "0".repeat(40)); return input; });
  wrong("nothing", () => { const input = field(0); type(input, ""); return input; });
  const register = () => root.querySelector(".side:last-child .row > input");
  wrong("a register too large", () => { if (register()) type(register(), "0x1" + "0".repeat(40)); return register(); });
  const area = () => root.querySelector("textarea");
  wrong("no hex", () => { if (area()) type(area(), "00001000  zz"); return area(); });
  wrong("cut short", () => { if (area()) type(area(), area().value.split("\\n")[0].slice(0, 12)); return area(); });
  // Every field that can be edited takes its own value again and nothing else changes.
  example(first);
  const before = look();
  const every = Array.from(root.querySelectorAll(".side:first-child .row[data-path] > input"));
  for (const input of every) type(input, input.value);
  seen.steady = JSON.stringify(before) === JSON.stringify(look());
  const out = document.createElement("pre");
  out.id = "seen";
  out.textContent = JSON.stringify(seen);
  document.body.append(out);
})();
"""


@cache
def site() -> dict[str, bytes]:
    return manual(read_book())


def browse(path: Path, profile: Path, *, query: str = "") -> tuple[str, str]:
    """Open a page; return the document as the scripts left it and what the browser had to say about it."""
    assert CHROMIUM is not None
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking",
            f"--user-data-dir={profile}", "--enable-logging=stderr", "--v=0", "--dump-dom", f"file://{path}{query}",
        ],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    said = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    return done.stdout, said


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("site")
    for name, data in site().items():
        (path / name).write_bytes(data)
    return path


def driven(page: str) -> str:
    """Return a page that lets our own driver run too; that the page's policy forbids it is tested apart."""
    without = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    assert without != page
    return without.replace("</body>", f"<script>{DRIVER}</script></body>")


def printed(item: Any, value: int) -> str:
    name = item.enum.name_of(value) if item.enum is not None else None
    return name or (f"{value:#x}" if value >= 0 else f"-{-value:#x}")


def expected_fields(abi: str, load_of: Any) -> dict[str, str]:
    """Return what the inputs of the page must hold for an example, by the Python codec."""
    spec = load(abi, revision=load_of["revision"], profile=load_of["profile"])
    config = {key: int(value, 0) for key, value in load_of["config"].items()}
    codec = spec.message(load_of["message"], transport=load_of["transport"], config=config)
    wire = Wire(regs={name: int(value, 0) for name, value in load_of["regs"].items()},
                mem=tuple((int(at, 0), bytes.fromhex(text)) for at, text in load_of["mem"]))  # fmt: skip
    value = codec.decode(wire)
    found: dict[str, str] = {}
    for name, item in codec.message.fields.items():
        if item.is_list or codec.placer.place_of(name) is not None:
            found.update(flat(name, item, getattr(value, name)))
    return found


def flat(path: str, item: Any, value: Any) -> dict[str, str]:
    if item.is_list:
        found: dict[str, str] = {}
        for number, part in enumerate(value[:64]):
            own = f"{path}[{number}]"
            if item.items is None:
                found[own] = printed(item, int(part))
            else:
                for name, inner in item.items.fields.items():
                    found.update(flat(f"{own}.{name}", inner, getattr(part, name)))
        return found
    if item.word is not None:
        from hvabi.abi._compile import layout_node

        found = {path: f"{layout_node(item.word).to_int(value, path=path):#x}"}
        for name, inner in item.word.fields.items():
            found.update(flat(f"{path}.{name}", inner, getattr(value, name)))
        return found
    return {path: printed(item, int(value))}


@pytest.mark.parametrize("abi", abi_ids())
def test_decoder(abi: str, folder: Path, tmp_path: Path) -> None:
    path = folder / f"{abi}.driven.html"
    path.write_text(driven(site()[f"{abi}.html"].decode()))
    dom, said = browse(path, tmp_path / "profile")
    path.unlink()
    assert said == ""
    match = re.search(r'<pre id="seen">(.*?)</pre>', dom, re.S)
    assert match is not None
    seen = json.loads(html.unescape(match[1]))
    assert seen["loaded"] == []
    shown = samples(bundled(abi))
    assert len(seen["examples"]) == len(shown)
    for sample, found in zip(shown, seen["examples"], strict=True):
        assert not found["said"]["bad"], (sample.name, found["said"])
        if "layout" in sample.load:
            assert found["regs"]["bytes"].replace(" ", "") == sample.load["hex"]
            continue
        assert found["fields"] == expected_fields(abi, sample.load), sample.name
        assert {name: int(value, 0) for name, value in found["regs"].items()} == {
            name: int(sample.load["regs"].get(name, "0"), 0) for name in found["regs"]
        }
        if found["memory"]:
            pieces = [(int(at, 0), bytes.fromhex(text)) for at, text in sample.load["mem"]]
            assert found["memory"].split("\n") == [line for line in hexdump(pieces) if line], sample.name
    check_wrong(seen["wrong"])
    assert seen["steady"]


CODES = {
    "a word": {"wrong-type"},
    "too large": {"value-too-large"},
    "nothing": {"wrong-type"},
    "a register too large": {"value-too-large", "const-mismatch"},
    "no hex": {"bad-hex"},
    "cut short": {"truncated"},
}
"""What the page must say to wrong input."""


def check_wrong(seen: list[dict[str, Any]]) -> None:
    for item in seen:
        if not item["value"] and item["what"] != "nothing":
            continue  # this message has no register, or no memory
        assert item["said"]["bad"], item
        assert item["said"]["text"].partition(":")[0] in CODES[item["what"]], item
        assert item["marked"], item


@pytest.mark.parametrize(
    "name", ["index.html", "compare.html", "statuses.html", "bugs.html", "glossary.html", "tdx-map-gpa.html"]
)
def test_a_page_as_it_is(name: str, folder: Path, tmp_path: Path) -> None:
    """With its own policy in force no script or style of it is refused and nothing fails."""
    _, said = browse(folder / f"{name}.html", tmp_path / "profile")
    assert said == ""


def test_the_policy_refuses_what_is_not_of_the_page(folder: Path, tmp_path: Path) -> None:
    page = site()["tdx-map-gpa.html"].decode()
    path = folder / "foreign.html"
    path.write_text(
        page.replace(
            "</body>", "<script>document.title = 'taken over'</script><img src='https://example.org/x.png'></body>"
        )
    )
    dom, said = browse(path, tmp_path / "profile")
    path.unlink()
    assert "taken over</title>" not in dom
    assert said.count("Content Security Policy") == 2


@pytest.mark.parametrize(
    ("query", "name", "page"),
    [
        ("?q=TDX-MAPGPA-06", "TDX-MAPGPA-06", "tdx-map-gpa.html#TDX-MAPGPA-06"),
        ("?q=0x80000010", "EXIT_SNP_PSC", "ghcb-psc.html#value-ghcb-exit-code-EXIT_SNP_PSC"),
        ("?q=KVM_HC_MAP_GPA_RANGE", "KVM_HC_MAP_GPA_RANGE", "kvm-exit-hypercall.html#const-KVM_HC_MAP_GPA_RANGE"),
        ("?q=cur_entry", "cur_entry", "ghcb-psc.html#field-request-cur_entry"),
    ],
)
def test_search(query: str, name: str, page: str, folder: Path, tmp_path: Path) -> None:
    dom, said = browse(folder / "search.html", tmp_path / "profile", query=query)
    assert said == ""
    hits = re.findall(r'<li class=""><a class="" href="([^"]*)">([^<]*)</a>', dom) or re.findall(
        r'<li><a href="([^"]*)">([^<]*)</a>', dom
    )
    assert (page, name) in hits[:4], hits[:4]


def test_search_for_nothing_that_is_there(folder: Path, tmp_path: Path) -> None:
    dom, _ = browse(folder / "search.html", tmp_path / "profile", query="?q=zzzzqqq%3Cscript%3E")
    assert "0 hits" in dom


def test_a_link_to_a_message(folder: Path, tmp_path: Path) -> None:
    regs = {"rax": "0x0", "r10": "0x0", "r11": "0x10001", "rcx": "0x3c00", "r12": "0x123000", "r13": "0x2000"}
    state = {"message": "request", "transport": "tdcall", "revision": "ghci-1.5", "profile": "spec", "config": {}}
    link = "#try=" + quote(json.dumps({**state, "regs": regs, "mem": []}))
    dom, said = browse(folder / "tdx-map-gpa.html", tmp_path / "profile", query=link)
    assert said == ""
    assert "make private: 2 pages at 0x123000" in dom
    dom, said = browse(folder / "tdx-map-gpa.html", tmp_path / "profile", query=link[:50])
    assert said == ""
    assert "the link to a message cannot be read" in dom


def test_number_of_is_what_the_page_prints() -> None:
    """The names that the inputs show are names that the Python codec takes."""
    enum = bundled("ghcb-psc").enums["operation"]
    assert number_of(enum, "SHARED", message="", path="") == 2
