// Previews by step: one step of all prompts at a time, chosen by a slider; a click enlarges, with the arrow keys through the steps.

import { address } from "../api.js";
import { dialog, showImage } from "../parts.js";

const name = (step) => (step === 0 ? "base" : `step ${step}`);

// Gives {node, show}: show(previews) takes {steps, prompts}, and stays at the last step where it was there.
export function previewsOf() {
  let found = { steps: [], prompts: [] }, at = -1;
  const slider = make("input", { type: "range", min: "0", step: "1", "aria-label": "Step that is shown" });
  const shownStep = make("output", {}), tiles = make("div", { class: "preview-tiles" });
  const before = make("button", { type: "button", "aria-label": "Previous step" }, "‹"), after = make("button", { type: "button", "aria-label": "Next step" }, "›");
  before.addEventListener("click", () => go(at - 1));
  after.addEventListener("click", () => go(at + 1));
  slider.addEventListener("input", () => go(Number(slider.value)));
  const node = make("section", { class: "card", hidden: true }, make("div", { class: "stage-bar" }, make("h2", {}, "Images by step"), before, slider, after, shownStep), tiles);

  function go(place) {
    at = Math.min(found.steps.length - 1, Math.max(0, place));
    const step = found.steps[at];
    slider.value = String(at);
    slider.setAttribute("aria-valuetext", name(step));
    shownStep.textContent = name(step);
    before.disabled = at === 0;
    after.disabled = at === found.steps.length - 1;
    tiles.replaceChildren(...found.prompts.map((row) => tile(row, step)));
  }

  function tile(row, step) {
    const image = row.images[step];
    const caption = make("figcaption", {}, row.prompt);
    if (!image) return make("figure", {}, make("div", { class: "no-image" }, "not drawn"), caption);
    const open = make("button", { type: "button", class: "preview", "aria-label": `Enlarge ${row.prompt}, ${name(step)}` }, make("img", { src: address("image", { path: image.path, side: 384, v: image.v }), alt: "", decoding: "async" }));
    open.addEventListener("click", () => enlarge(row, step));
    return make("figure", {}, open, caption);
  }

  function enlarge(row, first) {
    const steps = found.steps.filter((step) => row.images[step]);
    let place = steps.indexOf(first);
    const image = make("img", { class: "large-preview", alt: "" }), words = make("p", { class: "soft" });
    const put = (next) => {
      place = Math.min(steps.length - 1, Math.max(0, next));
      const { path, v } = row.images[steps[place]];
      showImage(image, address("image", { path, v }));
      image.alt = `${row.prompt}, ${name(steps[place])}`;
      words.textContent = `${name(steps[place])}, ${place + 1} of ${steps.length}. Left and right arrow keys go through the steps.`;
    };
    const box = dialog(row.prompt, image, words);
    box.dialog.addEventListener("keydown", (event) => {
      const to = { ArrowLeft: place - 1, ArrowRight: place + 1, Home: 0, End: steps.length - 1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      put(to);
    });
    put(place);
  }

  function show(previews) {
    const last = at < 0 || at === found.steps.length - 1;
    const step = found.steps[at];
    found = previews;
    node.hidden = !found.steps.length;
    if (!found.steps.length) return;
    slider.max = String(found.steps.length - 1);
    go(last ? found.steps.length - 1 : Math.max(0, found.steps.indexOf(step)));
  }
  return { node, show };
}
