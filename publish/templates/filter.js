"use strict";
(function () {
  const form = document.getElementById("filter");
  const rows = Array.from(document.querySelectorAll("[data-abi]"));
  const texts = rows.map((row) => row.dataset.abi + " " + row.textContent.toLowerCase());
  const names = new Set(rows.map((row) => row.dataset.abi));
  const apply = () => {
    const words = form.elements[0].value.toLowerCase().split(/\s+/).filter(Boolean);
    const kept = new Set();
    rows.forEach((row, n) => { if (words.every((word) => texts[n].includes(word))) kept.add(row.dataset.abi); });
    rows.forEach((row) => { row.hidden = !kept.has(row.dataset.abi); });
    form.querySelector("output").textContent = words.length ? kept.size + " of " + names.size : "";
  };
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
})();
