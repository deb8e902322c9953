for (const node of document.querySelectorAll(".chart")) {
  const key = node.dataset.chart;
  if (key === "spectrum" && data.spectrum === null) { node.remove(); continue; }
  new Chart(node, key === "spectrum" ? data.spectrum : data.charts[Number(key)], key === "spectrum" ? null : data.range);
}

// ---- images by step

const name = (step) => step === 0 ? "base" : `step ${step}`;
const nearWords = (near) => near ? `nearest: ${near.name}, ${near.bits} of 63 bits` : "";

function tile(image, words, about, kind) {
  const button = make("button", { type: "button", "aria-label": `Enlarge ${words}` }, make("img", { src: data.images[image], alt: words, decoding: "async" }));
  button.addEventListener("click", () => enlarge(image, words, about));
  return make("figure", { class: kind }, button, make("figcaption", {}, words, ...(about ? [make("br"), about] : [])));
}

function enlarge(image, words, about) {
  by("large-title").textContent = words;
  by("large-image").src = data.images[image];
  by("large-image").alt = words;
  by("large-about").textContent = about;
  by("large").showModal();
}

function showStep(index) {
  const place = Math.min(data.steps.length - 1, Math.max(0, index));
  by("step").value = place;
  by("step").setAttribute("aria-valuetext", name(data.steps[place]));
  by("shown").textContent = data.steps[place] === 0 ? "0 (base)" : data.steps[place];
  by("previous").disabled = place === 0;
  by("next").disabled = place === data.steps.length - 1;
  const [here, base] = [data.copies[data.steps[place]], data.copies[0]];
  by("near").textContent = here === undefined ? "" : `Mean distance to the nearest training image: ${(here * 63).toFixed(1)} of 63 bits`
    + (base === undefined || data.steps[place] === 0 ? "." : `; the base's images at the same seeds: ${(base * 63).toFixed(1)}.`);
  data.cards.forEach((card, number) => {
    const node = document.querySelector(`[data-card="${number}"]`);
    const cell = card.images[place];
    const base = data.steps[0] === 0 ? card.images[0] : null;
    const parts = [];
    if (base) parts.push(tile(base.image, "base", nearWords(base.nearest), "first"));
    if (cell && (place > 0 || !base)) parts.push(tile(cell.image, name(data.steps[place]), "", "now"));
    const near = (cell ?? base)?.nearest;
    if (near) parts.push(tile(near.image, `nearest training image: ${near.name}`, `${near.bits} of 63 bits differ`, "beside"));
    node.querySelector(".trio").replaceChildren(...parts);
    [...node.querySelectorAll(".strip button")].forEach((button) => button.setAttribute("aria-pressed", String(Number(button.dataset.place) === place)));
  });
}

if (data.cards.length) {
  data.cards.forEach((card, number) => {
    const strip = document.querySelector(`[data-card="${number}"] .strip`);
    card.images.forEach((cell, place) => {
      if (!cell) return;
      const button = make("button", { type: "button", "aria-label": name(data.steps[place]), "aria-pressed": "false" },
        make("img", { src: data.images[cell.image], alt: "" }), make("span", {}, data.steps[place] === 0 ? "base" : String(data.steps[place])));
      button.dataset.place = place;
      button.addEventListener("click", () => showStep(place));
      strip.append(button);
    });
  });
  by("step").addEventListener("input", () => showStep(Number(by("step").value)));
  by("previous").addEventListener("click", () => showStep(Number(by("step").value) - 1));
  by("next").addEventListener("click", () => showStep(Number(by("step").value) + 1));
  const chosen = data.range ? data.steps.findIndex((step) => step >= data.range[0]) : -1;
  showStep(chosen > 0 ? chosen : data.steps.length - 1);
}

by("large").addEventListener("click", (event) => { if (event.target === by("large")) by("large").close(); });
copies(by("copy"), "command");
