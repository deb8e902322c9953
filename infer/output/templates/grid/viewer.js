// The viewer: one cell large, or two of them compared; zoom and move.

function choose(cell, extend) {
  if (state.held && state.held !== cell && (state.pairing || extend)) { state.pairing = false; hint(); openCell(cell); return; }
  if (state.pairing || extend) { hold(state.held === cell ? null : cell); return; }
  openCell(cell);
}

function hold(cell) {
  if (cell && cell.image === null) { hint("A cell without an image cannot be compared."); return; }
  const before = state.held;
  state.held = cell;
  if (before) redraw(before);
  if (cell) redraw(cell);
  hint(cell && !by("viewer").open ? `A is ${spoken(cell)}. Choose the cell to compare it with.` : "");
  if (state.open) showCell();
  remember();
}

function hint(words = "") {
  by("hint").textContent = words || (state.pairing ? "Choose the first cell of the comparison." : "");
  by("pair").setAttribute("aria-pressed", String(state.pairing));
}

function openCell(cell) {
  state.open = cell;
  zoom.reset(false);
  if (!by("viewer").open) by("viewer").showModal();
  showCell();
}

function comparing() {
  return state.held !== null && state.open !== null && state.held !== state.open && state.open.image !== null;
}

function showCell() {
  const cell = state.open;
  const both = comparing();
  by("caption").textContent = by("caption").title = labels(cell).join(" · ") || data.title;
  by("pin").textContent = state.held === cell ? "This is A: flip to its B" : state.held ? "Stop comparing" : "Compare from here";
  by("pin").setAttribute("aria-pressed", String(state.held !== null));
  by("pin").disabled = cell.image === null && !state.held;
  by("mark").setAttribute("aria-pressed", String(state.marked.has(cell.key)));
  by("mark").textContent = state.marked.has(cell.key) ? "★ Marked" : "☆ Mark";
  showModes(both);
  showTab(cell, both);
  fillWorld(cell, both, both ? state.mode : "single");
  fillFacts(cell);
  place();
  remember();
  tellOpen();
}

// For the page that this one is a frame of: the key of the open cell, null where there is none.
function tellOpen() {
  if (parent !== window && data.served) parent.postMessage({ opencell: state.open?.key ?? null }, location.origin);
}

function fillWorld(cell, both, mode) {
  const world = by("world");
  if (cell.image === null) {
    world.replaceChildren(make("p", { class: "fault" }, `${cell.status}: ${cell.error ?? ""}`));
    return;
  }
  const imageTag = (one, label) => make("img", { src: source(one), alt: label + spoken(one), draggable: false });
  if (!both) {
    world.replaceChildren(make("div", { class: "frame" }, imageTag(cell, "")));
  } else if (mode === "beside") {
    world.replaceChildren(make("div", { class: "frame" }, imageTag(state.held, "A: ")), make("div", { class: "frame" }, imageTag(cell, "B: ")));
  } else {
    const over = imageTag(state.held, "A: ");
    over.className = "over";
    const inside = [imageTag(cell, "B: "), over];
    if (mode === "slider") inside.push(handle());
    world.replaceChildren(make("div", { class: "frame" }, ...inside));
  }
  for (const one of world.querySelectorAll("img")) {
    one.addEventListener("load", place);
    one.addEventListener("error", () => one.isConnected && world.replaceChildren(make("p", { class: "fault" }, `${decodeURIComponent(source(cell)).slice(0, 200)} is missing: this page was moved without the folder images/ beside it.`)));
  }
}

function frames() { return [...by("world").querySelectorAll(".frame")]; }

// Size every frame so that the image fits, small ones enlarged; then apply zoom and offset.
function place() {
  const stage = by("stage").getBoundingClientRect();
  const all = frames();
  for (const frame of all) {
    const one = frame.querySelector("img");
    if (!one.naturalWidth) continue;
    const free = [(stage.width - 12 * (all.length - 1)) / all.length, stage.height];
    const [wide, high] = fitted(one, ...free);
    frame.style.width = `${wide}px`;
    frame.style.height = `${high}px`;
  }
  zoom.apply(by("stage"));
  by("stage").style.setProperty("--zoom", zoom.view.zoom);
  by("zoom").textContent = `${Math.round(zoom.view.zoom * 100)} %`;
  setCut(state.cut);
}

// A drag on the handle, or anywhere in an image that is not enlarged, moves the cut of a slider.
const zoom = makeZoom([by("stage")], place, {
  start: (event, fingers) => {
    const onHandle = event.target.classList.contains("handle");
    const sliding = by("stage").dataset.mode === "slider" && fingers === 1 && (onHandle || zoom.view.zoom === 1);
    if (sliding) cutFrom(event);
    return sliding;
  },
  move: cutFrom,
});
new ResizeObserver(() => { if (by("viewer").open) place(); }).observe(by("stage"));

by("close").addEventListener("click", () => by("viewer").close());
by("viewer").addEventListener("click", (event) => { if (event.target === by("viewer")) by("viewer").close(); });
by("viewer").addEventListener("close", () => {
  const cell = state.open;
  stopCycle();
  blink(false);
  state.open = null;
  tellOpen();
  drawAll();
  const button = cell && buttonOf(cell);
  button?.focus();
  button?.scrollIntoView({ block: "nearest", inline: "nearest" });
});
by("in").addEventListener("click", () => zoom.to(zoom.view.zoom * 1.5));
by("out").addEventListener("click", () => zoom.to(zoom.view.zoom / 1.5));
by("fit").addEventListener("click", () => zoom.reset());
by("pin").addEventListener("click", () => hold(state.held ? null : state.open));
by("mark").addEventListener("click", () => mark(state.open));
by("pair").addEventListener("click", () => { state.pairing = !state.pairing; if (!state.pairing) hold(null); hint(); });
