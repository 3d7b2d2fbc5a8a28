const field = document.querySelector(".search input");
const cells = [...document.querySelectorAll(".cell")];
const chosen = new Image();
chosen.className = "chosen";
document.querySelector(".map aside").prepend(chosen);

function choose(cell) {
  for (const other of cells) other.setAttribute("aria-pressed", other === cell);
  for (const panel of document.querySelectorAll(".map article")) {
    panel.hidden = panel.id !== cell.getAttribute("aria-controls");
  }
  const picture = cell.querySelector("img");
  chosen.src = picture.src;
  chosen.alt = picture.alt;
}

// Every word typed must occur in a cell's words; the others fade.
function search() {
  const wanted = field.value.toLowerCase().split(/\s+/).filter(Boolean);
  let found = 0;
  for (const cell of cells) {
    const fits = wanted.every((word) => cell.dataset.words.includes(word));
    cell.classList.toggle("other", !fits);
    found += fits;
  }
  document.querySelector("output").textContent = `${found} / ${cells.length}`;
}

for (const cell of cells) cell.addEventListener("click", () => choose(cell));
field.addEventListener("input", search);
search();
choose(cells.reduce((best, cell) => (near(cell) < near(best) ? cell : best)));

// The cell nearest to the middle is shown first.
function near(cell) {
  const grid = document.querySelector(".grid").getBoundingClientRect();
  const box = cell.getBoundingClientRect();
  return Math.hypot(
    box.x + box.width / 2 - grid.x - grid.width / 2,
    box.y + box.height / 2 - grid.y - grid.height / 2,
  );
}
