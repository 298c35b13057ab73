// Sort a table by the button in its column's head; empty cells stay last. The heading tells screen readers the order.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const announcement = table.parentElement.querySelector("[aria-live]");
  const compare = new Intl.Collator(undefined, { numeric: true }).compare;
  table.tHead.addEventListener("click", (event) => {
    const head = event.target.closest("button")?.closest("th");
    if (!head) return;
    const up = head.getAttribute("aria-sort") !== "ascending";
    for (const other of head.parentElement.cells) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const column = head.cellIndex;
    const keyed = [...body.rows].map((row) => [row.cells[column].dataset.v ?? row.cells[column].textContent, row]);
    const numbers = keyed.every(([key]) => key === "" || !Number.isNaN(Number(key)));
    keyed.sort(([a], [b]) => {
      if (a === "" || b === "") return (a === "") - (b === "");
      return (numbers ? a - b : compare(a, b)) * (up ? 1 : -1);
    });
    body.append(...keyed.map(([, row]) => row));
    announcement.textContent = `Sorted by ${head.textContent.trim()}, ${up ? "ascending" : "descending"}.`;
  });
}
