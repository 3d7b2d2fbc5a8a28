// A cell is ordered by its data-value (a number) or its text; cells without a value always come last.
function compare(column, sign) {
  return (first, second) => {
    const [a, b] = [first.cells[column], second.cells[column]];
    if (!("value" in a.dataset)) return sign * a.textContent.localeCompare(b.textContent, undefined, { numeric: true });
    if (a.dataset.value === "" || b.dataset.value === "") return (a.dataset.value === "") - (b.dataset.value === "");
    return sign * (a.dataset.value - b.dataset.value);
  };
}

for (const button of document.querySelectorAll("thead button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th");
    const body = head.closest("table").tBodies[0];
    const ascending = head.getAttribute("aria-sort") !== "ascending";
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    body.append(...[...body.rows].sort(compare(head.cellIndex, ascending ? 1 : -1)));
  });
}
