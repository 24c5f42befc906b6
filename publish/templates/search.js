"use strict";
(() => {
  const MOST = 80;
  const form = document.getElementById("search"), list = document.getElementById("hits"), count = form.querySelector("output");
  const rows = JSON.parse(document.getElementById("index").textContent).map(([name, kind, abi, href, text, more]) => ({
    name, kind, abi, href, text, low: name.toLowerCase(), all: (name + " " + kind + " " + abi + " " + more + " " + text).toLowerCase(),
    exact: new Set((more + " " + name).toLowerCase().split(/\s+/)),
  }));
  const order = ["ABI", "rule", "value", "constant", "field", "layout", "enum", "policy", "profile", "bug", "example"];
  const weight = (kind) => { const at = order.findIndex((word) => kind.startsWith(word)); return at < 0 ? order.length : at; };
  const score = (row, words, whole) => {
    if (!words.every((word) => row.all.includes(word))) return -1;
    if (row.low === whole) return 0;
    if (row.exact.has(whole)) return 1;
    if (row.low.startsWith(whole)) return 2;
    if (words.every((word) => row.low.includes(word))) return 3;
    return words.every((word) => row.exact.has(word)) ? 4 : 5;
  };
  const node = (name, cls, text) => { const made = document.createElement(name); if (cls) made.className = cls; made.textContent = text; return made; };
  const find = () => {
    const whole = form.elements.q.value.trim().toLowerCase(), words = whole.split(/\s+/).filter(Boolean);
    list.replaceChildren();
    count.textContent = "";
    if (!words.length) return;
    const hits = rows.map((row, n) => [score(row, words, whole), weight(row.kind), n]).filter(([value]) => value >= 0)
      .sort((a, b) => a[0] - b[0] || a[1] - b[1] || a[2] - b[2]);
    for (const [, , n] of hits.slice(0, MOST)) {
      const row = rows[n], item = node("li", "", ""), link = node("a", "", row.name);
      link.href = row.href;
      item.append(link, " ", node("span", "dim", row.kind === "ABI" ? "ABI" : row.kind + " · " + row.abi), node("span", "text", row.text));
      list.append(item);
    }
    count.textContent = hits.length > MOST ? MOST + " of " + hits.length : hits.length + (hits.length === 1 ? " hit" : " hits");
  };
  form.hidden = false;
  form.elements.q.value = new URLSearchParams(location.search).get("q") || "";
  form.addEventListener("input", find);
  form.addEventListener("submit", (event) => { event.preventDefault(); const first = list.querySelector("a"); if (first) location.href = first.href; });
  find();
  form.elements.q.focus();
})();
