"""The look of the HTML report: its style and its script, both in the file itself."""

from __future__ import annotations

STYLE = """
:root {
  color-scheme: light dark;
  --bg: #ffffff; --panel: #f5f6f8; --line: #d5d9e0; --text: #1a1d23; --dim: #5b6472; --link: #0b57c4;
  --bad: #b3261e; --badbg: #fdecea; --good: #14692f; --goodbg: #e6f4ea; --warn: #7a4f00; --warnbg: #fff4dc;
  --note: #3f4a5a; --notebg: #e9edf3; --mark: #ffd9d4; --marktext: #8c0f06;
}
@media (prefers-color-scheme: dark) {
  :root {
    --bg: #14171c; --panel: #1d2128; --line: #363d48; --text: #e4e7ec; --dim: #a0a9b8; --link: #8ab4f8;
    --bad: #ff9d94; --badbg: #43201d; --good: #7fd99a; --goodbg: #17361f; --warn: #f3c66b; --warnbg: #3b2f12;
    --note: #c3ccd9; --notebg: #2b323c; --mark: #6d231c; --marktext: #ffe3df;
  }
}
* { box-sizing: border-box; }
html { scroll-padding-top: 4rem; }
body { margin: 0 auto; padding: 1rem 1.25rem 4rem; max-width: 72rem; background: var(--bg); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.35rem; margin: 0 0 .25rem; }
h2 { font-size: 1.15rem; margin: 2.25rem 0 .75rem; border-bottom: 1px solid var(--line); padding-bottom: .25rem; }
h3 { font-size: .95rem; margin: 1.1rem 0 .35rem; color: var(--dim); font-weight: 600; }
p { margin: .4rem 0; }
a { color: var(--link); }
code, pre, .mono { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: .84em; }
pre { background: var(--panel); border: 1px solid var(--line); border-radius: 6px; padding: .6rem .75rem;
  margin: .35rem 0; overflow-x: auto; white-space: pre-wrap; }
pre.bits, pre.hex { white-space: pre; }
pre.log { max-height: 22rem; overflow-y: auto; }
pre.cmd { user-select: all; }
mark { background: var(--mark); color: var(--marktext); font-weight: 700; text-decoration: underline;
  border-radius: 2px; }
.dim { color: var(--dim); }
.verdict { border-radius: 8px; padding: .7rem 1rem; margin: .75rem 0; font-size: 1.05rem; font-weight: 600; }
.verdict.good { background: var(--goodbg); color: var(--good); }
.verdict.bad { background: var(--badbg); color: var(--bad); }
ul.problems { background: var(--badbg); border-radius: 8px; padding: .6rem 1rem .6rem 2rem; margin: .75rem 0; }
.chip { display: inline-block; border-radius: 999px; padding: 0 .6em; font-size: .78rem; line-height: 1.6;
  font-weight: 700; white-space: nowrap; background: var(--notebg); color: var(--note); }
.chip.fail, .chip.broke, .chip.not-run { background: var(--badbg); color: var(--bad); }
.chip.pass { background: var(--goodbg); color: var(--good); }
.chip.warn, .chip.known { background: var(--warnbg); color: var(--warn); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
table.narrow { width: auto; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid var(--line); }
th { color: var(--dim); font-weight: 600; font-size: .82rem; }
th { white-space: nowrap; }
td.k { white-space: nowrap; }
td.v { min-width: 24ch; }
td.t { min-width: 14ch; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.zero { color: var(--dim); opacity: .55; }
td.red { color: var(--bad); font-weight: 700; }
tr.total td { font-weight: 700; }
tr.differs td { background: var(--badbg); }
tr.open td { color: var(--dim); }
td.d1 { padding-left: 1.6rem; } td.d2 { padding-left: 2.8rem; } td.d3 { padding-left: 4rem; }
details.case { border: 1px solid var(--line); border-left: 4px solid var(--bad); border-radius: 6px; margin: .6rem 0;
  padding: .5rem .9rem; }
details.case.warn, details.case.known { border-left-color: var(--warn); }
details.case > summary { cursor: pointer; }
details.case > summary .mono { font-weight: 600; }
details.case > summary .why { display: block; color: var(--dim); font-size: .9rem; margin-left: 1.1rem; }
blockquote { margin: .4rem 0; padding: .35rem .9rem; border-left: 3px solid var(--line); background: var(--panel);
  border-radius: 0 6px 6px 0; }
blockquote footer { color: var(--dim); font-size: .85rem; }
.filters { position: sticky; top: 0; background: var(--bg); padding: .6rem 0; border-bottom: 1px solid var(--line);
  display: flex; flex-wrap: wrap; gap: .4rem .9rem; align-items: center; font-size: .9rem; z-index: 1; }
.filters[hidden] { display: none; }
.filters input[type=search] { flex: 1 1 14rem; min-width: 0; }
.filters input[type=search], .filters select { font: inherit; padding: .25rem .5rem; border: 1px solid var(--line);
  border-radius: 6px; background: var(--panel); color: var(--text); }
.filters label { white-space: nowrap; }
table.cases td:first-child { width: 8rem; }
.foot { margin-top: 3rem; color: var(--dim); font-size: .85rem; }
@media (max-width: 40rem) {
  body { padding: .75rem .75rem 3rem; font-size: 15px; }
  table.cases thead { display: none; }
  table.cases tr { display: block; border-bottom: 1px solid var(--line); padding: .35rem 0; }
  table.cases tr[hidden] { display: none; }
  table.cases td { display: block; border: 0; padding: .1rem 0; width: auto !important; }
  .filters { position: static; }
  th, td { padding: .25rem .4rem; }
  details.case { padding: .5rem .6rem; }
}
@media print {
  :root { --bg: #fff; --panel: #fff; --line: #999; --text: #000; --dim: #333; --bad: #7a0000; --badbg: #fff;
    --good: #000; --goodbg: #fff; --warn: #000; --warnbg: #fff; --note: #000; --notebg: #fff; --mark: #ddd;
    --marktext: #000; --link: #000; }
  body { max-width: none; font-size: 10pt; }
  .filters { display: none; }
  .verdict, .chip { border: 1px solid #000; }
  pre.log { max-height: none; }
  details.case, tr { break-inside: avoid; }
  h2 { break-after: avoid; }
}
"""

SCRIPT = """
"use strict";
(function () {
  var form = document.getElementById("filters");
  var body = document.getElementById("cases");
  if (form && body) {
    var rows = Array.prototype.slice.call(body.rows);
    var texts = rows.map(function (row) { return row.textContent.toLowerCase(); });
    var shown = document.getElementById("shown");
    var apply = function () {
      var words = form.elements.q.value.toLowerCase().split(/\\s+/).filter(Boolean);
      var group = form.elements.group.value;
      var on = {};
      Array.prototype.forEach.call(form.querySelectorAll("input[type=checkbox]"), function (box) {
        on[box.value] = box.checked;
      });
      var count = 0;
      rows.forEach(function (row, n) {
        var keep = on[row.dataset.column] && (!group || row.dataset.group === group) &&
          words.every(function (word) { return texts[n].indexOf(word) >= 0; });
        row.hidden = !keep;
        count += keep ? 1 : 0;
      });
      shown.textContent = count + " of " + rows.length;
    };
    form.addEventListener("input", apply);
    form.addEventListener("submit", function (event) { event.preventDefault(); });
    form.hidden = false;
    apply();
  }
  var open = function () {
    var target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target && target.tagName === "DETAILS") { target.open = true; target.scrollIntoView(); }
  };
  window.addEventListener("hashchange", open);
  open();
  window.addEventListener("beforeprint", function () {
    Array.prototype.forEach.call(document.querySelectorAll("details"), function (item) { item.open = true; });
  });
})();
"""
