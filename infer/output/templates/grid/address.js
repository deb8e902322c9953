// The view in the address behind #: kept up to date, read again on load. What does not fit this grid is left out; nothing of it is ever markup.

const NUMBER = /^\d{1,6}$/;

function addressNow() {
  const parts = { rows: state.rows.join("."), columns: state.columns.join("."), select: state.select.map((axis) => `${axis}-${state.at[axis]}`).join(".") };
  const hidden = state.hidden.flatMap((set, axis) => [...set].map((value) => `${axis}-${value}`));
  const sorted = state.sorted.flatMap((score, axis) => score === null ? [] : [`${axis}-${score}`]);
  if (hidden.length) parts.hide = hidden.join(".");
  if (sorted.length) parts.order = sorted.join(".");
  if (state.view !== "grid") parts.view = state.view;
  if (state.score !== null) parts.score = state.score;
  if (state.tile !== null) parts.tile = state.tile;
  if (state.crisp) parts.pixels = 1;
  if (state.onlyMarked) parts.marked = 1;
  if (state.held) parts.a = state.held.place.join(".") || "only";
  if (state.open) parts.cell = state.open.place.join(".") || "only";
  if (state.open && state.tab !== "image") parts.tab = state.tab;
  if (state.held && state.open) Object.assign(parts, { mode: state.mode, gain: state.gain });
  return new URLSearchParams(parts).toString();
}

let remembered = "";
let changed = 0;
let later = null;

// At once, but not oftener than browsers allow.
function remember() {
  clearTimeout(later);
  const wait = changed + 200 - performance.now();
  if (wait > 0) { later = setTimeout(remember, wait); return; }
  if (location.hash !== remembered) return; // another one was typed, and is read next
  changed = performance.now();
  try { history.replaceState(null, "", `#${addressNow()}`); } catch { /* a page in a frame has no address of its own */ }
  remembered = location.hash;
}

// Numbers of a list such as 0.2.1, each below `limit`, each once.
function numbersIn(words, limit) {
  const all = (words ?? "").split(".").filter((one) => NUMBER.test(one)).map(Number);
  return [...new Set(all)].filter((one) => one < limit);
}

// Pairs such as 0-3.1-2 of an axis and a number that `fits` it.
function pairsIn(words, fits) {
  const all = (words ?? "").split(".").map((one) => one.split("-")).filter((pair) => pair.length === 2 && pair.every((one) => NUMBER.test(one)));
  return all.map((pair) => pair.map(Number)).filter(([axis, number]) => axis < data.axes.length && fits(axis, number));
}

function cellIn(words) {
  if (words === null) return null;
  const place = words === "only" ? [] : words.split(".").filter((one) => NUMBER.test(one)).map(Number);
  const known = place.length === data.axes.length && place.every((value, axis) => value < data.axes[axis].labels.length);
  return known ? cellsByNumber.get(numberOf(place)) ?? null : null;
}

function readAddress() {
  remembered = location.hash;
  const given = new URLSearchParams(remembered.slice(1));
  const value = (axis, number) => number < data.axes[axis].labels.length;
  firstSides();
  if (given.has("rows") || given.has("columns")) {
    const rows = numbersIn(given.get("rows"), data.axes.length);
    const columns = numbersIn(given.get("columns"), data.axes.length).filter((axis) => !rows.includes(axis));
    Object.assign(state, { rows, columns, select: [...data.axes.keys()].filter((axis) => !rows.includes(axis) && !columns.includes(axis)) });
  }
  for (const [axis, number] of pairsIn(given.get("select"), value)) state.at[axis] = number;
  state.hidden = data.axes.map(() => new Set());
  for (const [axis, number] of pairsIn(given.get("hide"), value)) state.hidden[axis].add(number);
  state.sorted = data.axes.map(() => null);
  for (const [axis, score] of pairsIn(given.get("order"), (_, number) => number < data.scores.length)) state.sorted[axis] = score;
  const number = (name, least, most) => { const found = Number(given.get(name) ?? NaN); return found >= least && found <= most ? found : null; };
  state.view = given.get("view") === "ranking" ? "ranking" : "grid";
  state.score = given.has("score") ? numbersIn(given.get("score"), data.scores.length)[0] ?? null : null;
  state.tile = number("tile", LEAST, 1024);
  state.crisp = given.has("pixels");
  state.onlyMarked = given.has("marked") && state.marked.size > 0;
  state.gain = number("gain", 1, 64) ?? 1;
  const modes = [...by("modes").children].map((button) => button.dataset.mode);
  state.mode = modes.includes(given.get("mode")) ? given.get("mode") : "slider";
  state.tab = given.get("tab") === "explain" ? "explain" : "image";
  const held = cellIn(given.get("a"));
  state.held = held && held.image !== null ? held : null;
  settle();
  drawAll();
  const open = cellIn(given.get("cell"));
  if (open) openCell(open);
  else if (by("viewer").open) by("viewer").close();
}

addEventListener("hashchange", () => { if (location.hash !== remembered) readAddress(); });
