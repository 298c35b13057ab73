// Put into a page after its own script: says what is drawn, what overlaps and how tables sort, in an element of its own.
addEventListener("load", () => {
  const loaded = performance.now();
  const tall = document.documentElement.offsetHeight; // forces the layout
  const measurements = { loaded, laidOut: performance.now(), tall, wide: document.documentElement.scrollWidth, window: innerWidth };
  const figures = [...document.querySelectorAll("figure")];
  measurements.figures = figures.filter((figure) => {
    const box = figure.querySelector("svg").getBoundingClientRect();
    return box.width > 100 && box.height > 50;
  }).map((figure) => figure.dataset.figure);
  const level = (node) => !/rotate\((?!-?0[ ,])/.test(node.getAttribute("transform") ?? "");
  const meet = (a, b) =>
    Math.min(a.right, b.right) - Math.max(a.left, b.left) > 2 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3;
  measurements.overlaps = figures.flatMap((figure) => {
    const labels = [...figure.querySelectorAll("svg text")].filter((node) => node.textContent.trim() && level(node));
    const boxes = labels.map((node) => [node.textContent.trim(), node.getBoundingClientRect()]);
    return boxes.flatMap(([text, box], i) =>
      boxes.slice(i + 1).filter(([, other]) => meet(box, other)).map(([other]) => [figure.dataset.figure, text, other]));
  });
  const key = (cell) => cell.dataset.v ?? cell.textContent;
  measurements.sorted = [...document.querySelectorAll("table.sortable")].flatMap((table) =>
    [...table.tHead.rows[0].cells].map((head, column) => {
      const orders = [1, 2].map(() => {
        head.querySelector("button").click();
        return [...table.tBodies[0].rows].map((row) => key(row.cells[column]));
      });
      return [head.textContent.trim(), head.getAttribute("aria-sort"), ...orders];
    }));
  const answer = document.createElement("pre");
  answer.id = "probe";
  answer.textContent = JSON.stringify(measurements);
  document.body.append(answer);
});
