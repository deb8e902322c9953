const byPlace = new Map(data.cells.map((cell) => [cell.place.join(), cell]));

const state = {
  rows: data.rows, // index of an axis, or null
  columns: data.columns,
  at: data.axes.map(() => 0), // the value shown of every axis that is neither
  open: null, // the cell in the viewer
  held: null, // A of a comparison
  pairing: false,
  mode: "slider",
  cut: 50, // % of the image where A ends and B begins
};

const labels = (cell) => cell.place.map((value, axis) => `${data.axes[axis].name} ${data.axes[axis].labels[value]}`);
const spoken = (cell) => (labels(cell).join(", ") || data.title) + (cell.image === null ? `: ${cell.status}` : "");
const source = (cell) => data.images[cell.image];

// ---- the grid

function others() {
  return data.axes.map((_, index) => index).filter((index) => index !== state.rows && index !== state.columns);
}

function cellAt(change) {
  const place = [...state.at];
  for (const [axis, value] of Object.entries(change)) place[axis] = value;
  return byPlace.get(place.join());
}

function cellButton(cell) {
  if (!cell) return make("span", { class: "empty", title: "This grid has no such cell" }, "–");
  const button = make("button", { type: "button", class: "cell", "aria-label": spoken(cell), tabIndex: -1 });
  button.dataset.place = cell.place.join();
  if (cell === state.held) button.classList.add("held");
  if (cell.image === null) {
    button.classList.add("broken");
    button.append(make("span", {}, `${cell.status}: ${cell.error ?? ""}`));
  } else {
    button.append(make("img", { src: source(cell), alt: "", decoding: "async", draggable: false }));
  }
  button.addEventListener("click", (event) => choose(cell, event.shiftKey));
  return button;
}

function drawGrid() {
  const { rows, columns } = state;
  const grid = by("grid");
  const focused = document.activeElement?.dataset?.place;
  if (rows === null || columns === null) {
    const axis = rows ?? columns;
    const flow = make("div", { class: "flow" });
    const values = axis === null ? [null] : data.axes[axis].labels.map((_, index) => index);
    for (const value of values) {
      const cell = cellAt(value === null ? {} : { [axis]: value });
      const caption = value === null ? [] : [make("figcaption", {}, data.axes[axis].labels[value])];
      flow.append(make("figure", {}, ...caption, cellButton(cell)));
    }
    grid.replaceChildren(flow);
  } else {
    const title = (scope, text) => make("th", { scope }, make("span", {}, text));
    const corner = make("td", { class: "corner" }, `${data.axes[rows].name} ↓   ${data.axes[columns].name} →`);
    const head = make("tr", {}, corner, ...data.axes[columns].labels.map((label) => title("col", label)));
    const body = data.axes[rows].labels.map((label, row) => make("tr", {}, title("row", label),
      ...data.axes[columns].labels.map((_, column) => make("td", {}, cellButton(cellAt({ [rows]: row, [columns]: column }))))));
    grid.replaceChildren(make("table", { class: "grid" }, make("thead", {}, head), make("tbody", {}, ...body)));
  }
  const buttons = [...grid.querySelectorAll(".cell")];
  const start = buttons.find((button) => button.dataset.place === focused) ?? buttons[0];
  if (start) start.tabIndex = 0;
  if (focused && start?.dataset.place === focused) start.focus();
}

function drawBar() {
  const bar = by("axes");
  const choice = (text, values, chosen, onChange) => {
    const select = make("select", { "aria-label": text }, ...values.map(([value, label]) => make("option", { value, selected: value === chosen }, label)));
    select.addEventListener("change", () => onChange(Number(select.value)));
    return make("label", {}, text, select);
  };
  const names = data.axes.map((axis, index) => [index, axis.name]);
  const parts = [];
  if (data.axes.length > 1) {
    const swap = (side, other) => (index) => {
      if (state[other] === index) state[other] = state[side];
      state[side] = index;
      drawAll();
    };
    parts.push(choice("Rows", names, state.rows, swap("rows", "columns")), choice("Columns", names, state.columns, swap("columns", "rows")));
  }
  for (const axis of others()) {
    if (data.axes.length < 2) continue;
    const values = data.axes[axis].labels.map((label, index) => [index, label]);
    parts.push(choice(data.axes[axis].name, values, state.at[axis], (index) => { state.at[axis] = index; drawGrid(); }));
  }
  bar.replaceChildren(...parts);
}

function drawAll() { drawBar(); drawGrid(); }

function choose(cell, extend) {
  if (state.held && state.held !== cell && (state.pairing || extend)) { state.pairing = false; hint(); openCell(cell); return; }
  if (state.pairing || extend) { hold(state.held === cell ? null : cell); return; }
  openCell(cell);
}

function hold(cell) {
  if (cell && cell.image === null) { hint("A cell without an image cannot be compared."); return; }
  state.held = cell;
  drawGrid();
  hint(cell && !by("viewer").open ? `A is ${spoken(cell)}. Choose the cell to compare it with.` : "");
  if (state.open) showCell();
}

function hint(text = "") {
  by("hint").textContent = text || (state.pairing ? "Choose the first cell of the comparison." : "");
  by("pair").setAttribute("aria-pressed", String(state.pairing));
}

// ---- the viewer

function openCell(cell) {
  state.open = cell;
  zoom.reset(false);
  if (!by("viewer").open) by("viewer").showModal();
  showCell();
}

function showCell() {
  const cell = state.open;
  const comparing = state.held !== null && state.held !== cell && cell.image !== null;
  const mode = comparing ? state.mode : "single";
  by("caption").textContent = labels(cell).join(" · ") || data.title;
  by("stage").dataset.mode = mode;
  by("modes").hidden = !comparing;
  for (const button of by("modes").children) button.setAttribute("aria-pressed", String(button.dataset.mode === state.mode));
  by("sides").hidden = !comparing;
  if (comparing) {
    const differs = cell.place.map((value, axis) => value !== state.held.place[axis] ? axis : -1).filter((axis) => axis >= 0);
    const side = (one) => differs.map((axis) => `${data.axes[axis].name} ${data.axes[axis].labels[one.place[axis]]}`).join(" · ");
    by("sides").replaceChildren(make("span", {}, make("b", {}, "A "), side(state.held)), make("span", {}, side(cell), make("b", {}, " B")));
  }
  by("pin").textContent = state.held === cell ? "This is A: flip to its B" : state.held ? "Stop comparing" : "Compare from here";
  by("pin").setAttribute("aria-pressed", String(state.held !== null));
  by("pin").disabled = cell.image === null && !state.held;
  fillWorld(cell, comparing, mode);
  fillFacts(cell);
  place();
}

function fillWorld(cell, comparing, mode) {
  const world = by("world");
  if (cell.image === null) {
    world.replaceChildren(make("p", { class: "fault" }, `${cell.status}: ${cell.error ?? ""}`));
    return;
  }
  const imageTag = (one, label) => make("img", { src: source(one), alt: label + spoken(one), draggable: false });
  if (!comparing) {
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
  for (const image of world.querySelectorAll("img")) image.addEventListener("load", place);
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

function fillFacts(cell) {
  const steppers = data.axes.map((axis, index) => {
    const step = (by_, text) => {
      const button = make("button", { type: "button", "aria-label": `${text} ${axis.name}`, disabled: !reach(index, by_) }, by_ < 0 ? "‹" : "›");
      button.addEventListener("click", () => flip(index, by_));
      return button;
    };
    const label = make("span", {}, make("small", {}, `${axis.name} · ${cell.place[index] + 1} of ${axis.labels.length}`), axis.labels[cell.place[index]]);
    return make("div", { class: "stepper" }, step(-1, "Previous"), label, step(1, "Next"));
  });
  by("steppers").replaceChildren(...steppers);
  by("fault").hidden = !cell.error;
  by("fault").textContent = cell.error ?? "";
  fillTable("settings", [...cell.settings, ["status", `${cell.status}${cell.seconds ? `, ${cell.seconds.toFixed(2)} s` : ""}`]]);
  fillTable("details", [...cell.details, ["key", cell.key]]);
  by("parameters").textContent = cell.parameters;
  by("parameters").parentElement.hidden = !cell.parameters;
  by("save").hidden = cell.image === null;
  if (cell.image !== null) {
    by("save").href = source(cell);
    by("save").download = `${cell.key.slice(0, 12)}.${data.kind}`;
    by("save").textContent = data.kind === "png" ? "Save PNG" : "Save image (the PNG is in images/)";
  }
}

function fillTable(id, rows) {
  by(id).tBodies[0].replaceChildren(...rows.map(([name, value]) => make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, value))));
}

// The nearest cell that exists in a direction of an axis.
function reach(axis, step) {
  const place = [...state.open.place];
  for (place[axis] += step; place[axis] >= 0 && place[axis] < data.axes[axis].labels.length; place[axis] += step) {
    const cell = byPlace.get(place.join());
    if (cell) return cell;
  }
  return null;
}

function flip(axis, step) {
  const cell = axis === undefined || axis === null ? null : reach(axis, step);
  if (!cell) return;
  state.open = cell;
  for (const other of others()) state.at[other] = cell.place[other];
  showCell();
}

// ---- zoom and move

function frames() { return [...by("world").querySelectorAll(".frame")]; }

// Size every frame so that the image fits, small ones enlarged; then apply zoom and offset.
function place() {
  const stage = by("stage").getBoundingClientRect();
  const all = frames();
  for (const frame of all) {
    const image = frame.querySelector("img");
    if (!image.naturalWidth) continue;
    const room = [(stage.width - 12 * (all.length - 1)) / all.length, stage.height];
    const [width, height] = fitted(image, ...room);
    frame.style.width = `${width}px`;
    frame.style.height = `${height}px`;
  }
  zoom.apply(by("stage"));
  by("stage").style.setProperty("--zoom", zoom.view.zoom);
  by("zoom").textContent = `${Math.round(zoom.view.zoom * 100)} %`;
  setCut(state.cut);
}

function cutFrom(event) {
  const box = frames()[0].getBoundingClientRect();
  setCut((event.clientX - box.left) / box.width * 100);
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

// ---- keys

function inGrid(event) {
  const at = document.activeElement;
  if (!at?.classList.contains("cell")) return;
  const cell = byPlace.get(at.dataset.place);
  if (event.key === "c") { hold(state.held === cell ? null : cell); state.pairing = state.held !== null; hint(by("hint").textContent); return; }
  const buttons = [...by("grid").querySelectorAll(".cell")];
  const box = at.getBoundingClientRect();
  const middle = (one) => { const r = one.getBoundingClientRect(); return [r.left + r.width / 2, r.top + r.height / 2]; };
  const [x, y] = middle(at);
  const along = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
  if (!along) return;
  event.preventDefault();
  const ahead = buttons.filter((one) => {
    const [a, b] = middle(one);
    const forward = (a - x) * along[0] + (b - y) * along[1];
    const aside = Math.abs((a - x) * along[1]) + Math.abs((b - y) * along[0]);
    return forward > 4 && aside < Math.max(box.width, box.height) / 2 + 4;
  });
  const far = (one) => { const [a, b] = middle(one); return Math.abs(a - x) + Math.abs(b - y); };
  const next = ahead.sort((a, b) => far(a) - far(b))[0];
  if (!next) return;
  at.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
  next.scrollIntoView({ block: "nearest", inline: "nearest" });
}

function inViewer(event) {
  const [outer] = others();
  const flips = {
    ArrowRight: [state.columns ?? state.rows, 1], ArrowLeft: [state.columns ?? state.rows, -1],
    ArrowDown: [state.rows ?? state.columns, 1], ArrowUp: [state.rows ?? state.columns, -1], PageDown: [outer, 1], PageUp: [outer, -1],
  }[event.key];
  if (flips) { event.preventDefault(); flip(...flips); return; }
  if (event.key === "+" || event.key === "=") zoom.to(zoom.view.zoom * 1.5);
  else if (event.key === "-") zoom.to(zoom.view.zoom / 1.5);
  else if (event.key === "0") zoom.reset();
  else if (event.key === "c") hold(state.held ? null : state.open);
  else if (event.key === " " && event.target.tagName !== "BUTTON") { event.preventDefault(); by("stage").classList.add("peek"); }
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || ["SELECT", "INPUT"].includes(event.target.tagName)) return;
  if (event.key === "?" && !by("help").open) { by("help").showModal(); return; }
  if (by("help").open) return;
  if (by("viewer").open) inViewer(event);
  else inGrid(event);
});
document.addEventListener("keyup", (event) => { if (event.key === " ") by("stage").classList.remove("peek"); });

// ---- buttons

by("close").addEventListener("click", () => by("viewer").close());
by("viewer").addEventListener("click", (event) => { if (event.target === by("viewer")) by("viewer").close(); });
by("viewer").addEventListener("close", () => {
  const place = state.open?.place.join();
  state.open = null;
  drawAll();
  by("grid").querySelector(`.cell[data-place="${place}"]`)?.focus();
});
by("in").addEventListener("click", () => zoom.to(zoom.view.zoom * 1.5));
by("out").addEventListener("click", () => zoom.to(zoom.view.zoom / 1.5));
by("fit").addEventListener("click", () => zoom.reset());
by("pin").addEventListener("click", () => hold(state.held ? null : state.open));
by("keys").addEventListener("click", () => by("help").showModal());
by("pair").addEventListener("click", () => { state.pairing = !state.pairing; if (!state.pairing) hold(null); hint(); });
for (const button of by("modes").children) button.addEventListener("click", () => { state.mode = button.dataset.mode; zoom.reset(false); showCell(); });
by("tile").addEventListener("input", () => document.documentElement.style.setProperty("--tile", `${by("tile").value}px`));
by("pixels").addEventListener("click", () => {
  const on = document.body.classList.toggle("crisp");
  by("pixels").setAttribute("aria-pressed", String(on));
});
copies(by("copy"), "parameters");

const narrow = matchMedia("(max-width: 760px)").matches;
by("tile").value = narrow ? Math.min(data.tile, 112) : data.tile;
document.documentElement.style.setProperty("--tile", `${by("tile").value}px`);
drawAll();

// A grid that is still being drawn: the page is loaded again, but not from under what is looked at.
if (data.refresh !== null) {
  setInterval(() => {
    if (!by("viewer").open && !by("help").open && !state.pairing && state.held === null) location.reload();
  }, 1000 * data.refresh);
}
