const field = document.querySelector(".search input");
const cards = [...document.querySelectorAll(".cards li")];
const sections = [...document.querySelectorAll("section[data-layer]")];

// Every word typed must occur in a card's words.
function search() {
  const wanted = field.value.toLowerCase().split(/\s+/).filter(Boolean);
  let found = 0;
  for (const card of cards) {
    card.hidden = !wanted.every((word) => card.dataset.words.includes(word));
    found += !card.hidden;
  }
  for (const section of sections) {
    const left = section.querySelectorAll(".cards li:not([hidden])").length;
    section.hidden = left === 0;
    section.querySelector(".count").textContent = left;
  }
  document.querySelector("output").textContent = `${found} / ${cards.length}`;
  document.querySelector(".none").hidden = found > 0;
}

field.addEventListener("input", search);
search();
