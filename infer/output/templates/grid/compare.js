// Two cells compared: slider, side by side, blink, difference with gain, and how far they are apart in numbers.

const UNREADABLE = "A page that was opened from the disk may not read images beside it: for the number use a page with --single-file, or one that is served by http.";
const apart = new Map(); // "key key" -> the text about their difference
let blinking = null;

function showModes(both) {
  const stage = by("stage");
  stage.dataset.mode = both ? state.mode : "single";
  by("modes").hidden = !both;
  for (const button of by("modes").children) button.setAttribute("aria-pressed", String(button.dataset.mode === state.mode));
  by("gain-label").hidden = !(both && state.mode === "difference");
  by("gain").value = String(Math.log2(state.gain));
  by("gain-text").textContent = `× ${state.gain}`;
  stage.style.setProperty("--gain", state.gain);
  by("speed-label").hidden = !(both && state.mode === "blink") && cycling === null;
  by("pair-text").hidden = !both;
  by("apart").hidden = !both;
  if (both) {
    const differs = state.open.place.map((value, axis) => value !== state.held.place[axis] ? axis : -1).filter((axis) => axis >= 0);
    const side = (one) => differs.map((axis) => `${data.axes[axis].name} ${labelOf(axis, one.place[axis])}`).join(" · ");
    by("pair-text").replaceChildren(make("span", { title: side(state.held) }, make("b", {}, "A "), side(state.held)), make("span", { title: side(state.open) }, side(state.open), make("b", {}, " B")));
    tellApart(state.held, state.open);
  }
  blink(both && state.mode === "blink");
}

function blink(on) {
  clearInterval(blinking);
  by("stage").classList.remove("other");
  blinking = on ? setInterval(() => by("stage").classList.toggle("other"), 1000 * state.seconds) : null;
}

// The mean absolute difference over all pixels and channels, of 255, as it is in the images' own pixels.
async function tellApart(one, other) {
  const name = [one.key, other.key].join(" ");
  if (!apart.has(name)) {
    by("apart").textContent = "…";
    apart.set(name, await difference(source(one), source(other)));
  }
  if (state.held === one && state.open === other) by("apart").textContent = apart.get(name);
}

async function difference(first, second) {
  try {
    const [a, b] = await Promise.all([pixelsOf(first), pixelsOf(second)]);
    if (a.width !== b.width || a.height !== b.height) return `No number: ${a.width} × ${a.height} and ${b.width} × ${b.height} pixels.`;
    let [sum, most, changed] = [0, 0, 0];
    for (let at = 0; at < a.data.length; at += 4) {
      const [r, g, bl] = [0, 1, 2].map((channel) => Math.abs(a.data[at + channel] - b.data[at + channel]));
      sum += r + g + bl;
      const largest = Math.max(r, g, bl);
      most = Math.max(most, largest);
      changed += largest > 0;
    }
    const count = a.data.length / 4;
    const kind = data.kind === "webp" ? " (of the page's WebP, not of the PNGs)" : "";
    return `Mean difference ${(sum / (3 * count)).toFixed(3)} of 255, largest ${most}, ${(100 * changed / count).toFixed(1)} % of the pixels differ${kind}`;
  } catch (error) {
    return error.name === "SecurityError" ? UNREADABLE : "No number: an image cannot be read.";
  }
}

async function pixelsOf(address) {
  const picture = new Image();
  picture.src = address;
  await picture.decode();
  const canvas = document.createElement("canvas");
  canvas.width = picture.naturalWidth;
  canvas.height = picture.naturalHeight;
  const context = canvas.getContext("2d", { willReadFrequently: true, colorSpace: "srgb" });
  context.drawImage(picture, 0, 0);
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

function handle() {
  const node = make("div", { class: "handle", role: "slider", tabIndex: 0, "aria-label": "Where A ends and B begins, in percent" });
  node.setAttribute("aria-valuemin", "0");
  node.setAttribute("aria-valuemax", "100");
  node.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -2, ArrowRight: 2, Home: -100, End: 100 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    setCut(state.cut + step);
  });
  return node;
}

function setCut(cut) {
  state.cut = Math.min(100, Math.max(0, cut));
  by("stage").style.setProperty("--cut", `${state.cut}%`);
  const node = by("world").querySelector(".handle");
  if (node) node.setAttribute("aria-valuenow", String(Math.round(state.cut)));
}

function cutFrom(event) {
  const box = frames()[0].getBoundingClientRect();
  setCut((event.clientX - box.left) / box.width * 100);
}

function setMode(mode) {
  state.mode = mode;
  zoom.reset(false);
  if (state.open) showCell();
}

for (const button of by("modes").children) button.addEventListener("click", () => setMode(button.dataset.mode));
by("gain").addEventListener("input", () => { state.gain = 2 ** Number(by("gain").value); showModes(comparing()); remember(); });
