"use strict";
(function () {
  const table = document.getElementById("table");
  const body = table.tBodies[0];
  const heads = Array.from(table.tHead.rows[0].cells);
  const rows = Array.from(body.rows);

  function compare(column, turn) {
    return (one, other) => {
      const a = one.cells[column].dataset.value;
      const b = other.cells[column].dataset.value;
      if (a === "" || b === "") { return (a === "") - (b === ""); }  // what is missing stays last
      const x = Number(a);
      const y = Number(b);
      const both = !Number.isNaN(x) && !Number.isNaN(y);
      return turn * (both ? x - y : a.localeCompare(b, undefined, { numeric: true }));
    };
  }

  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const turn = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", turn === 1 ? "ascending" : "descending");
      rows.sort(compare(column, turn));
      body.append(...rows);
    });
  });

  const find = document.getElementById("find");
  const marked = document.getElementById("marked");
  const count = document.getElementById("count");
  function filter() {
    const words = find.value.trim().toLowerCase();
    let shown = 0;
    rows.forEach((row) => {
      const name = row.cells[0].dataset.value + " " + row.cells[1].dataset.value;
      row.hidden = !name.toLowerCase().includes(words) || (marked.checked && row.dataset.marks === "0");
      shown += row.hidden ? 0 : 1;
    });
    count.textContent = shown === rows.length ? "" : shown + " of " + rows.length + " scans shown";
  }
  find.addEventListener("input", filter);
  marked.addEventListener("change", filter);
  document.getElementById("all").addEventListener("change", (event) => {
    table.classList.toggle("all", event.target.checked);
  });

  const dots = new Map();
  table.querySelectorAll(".strip circle").forEach((dot) => {
    dots.set(dot.dataset.row, (dots.get(dot.dataset.row) || []).concat(dot));
  });
  function point(event, on) {
    const row = event.target.closest("tr");
    (dots.get(row && row.dataset.row) || []).forEach((dot) => dot.classList.toggle("here", on));
  }
  body.addEventListener("mouseover", (event) => point(event, true));
  body.addEventListener("mouseout", (event) => point(event, false));
  body.addEventListener("focusin", (event) => point(event, true));
  body.addEventListener("focusout", (event) => point(event, false));
})();
