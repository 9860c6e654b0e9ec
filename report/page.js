for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const words = new Intl.Collator("en", { numeric: true });

  function key(row, column) {
    const cell = row.cells[column];
    if (cell.className === "number") return Number(cell.dataset.value ?? NaN);
    return cell.textContent.trim().replace(/\d+\.\d+/g, (decimal) => Number(decimal).toFixed(9));
  }

  function empty(value) {
    return value === "" || Number.isNaN(value);
  }

  function compare(a, b) {
    return typeof a === "number" ? (a > b) - (a < b) : words.compare(a, b);
  }

  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const descending = head.getAttribute("aria-sort") === "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const keyed = [...body.rows].map((row) => ({ row, value: key(row, column) }));
    keyed.sort((a, b) => empty(a.value) - empty(b.value) || (empty(a.value) ? 0 : (descending ? -1 : 1) * compare(a.value, b.value)));
    body.append(...keyed.map(({ row }) => row));
  }));
}
