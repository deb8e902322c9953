// Marked cells: kept by the browser for this grid, shown alone, copied and saved.

const MARKS = `loraloom marks ${data.id}`;

let keeps = true; // whether this browser keeps marks

// The keys that are kept now, by this page or by another tab: null where nothing can be kept.
function keptMarks() {
  let found;
  try { found = localStorage.getItem(MARKS); } catch { return null; }
  try {
    const keys = JSON.parse(found ?? "[]");
    return new Set(Array.isArray(keys) ? keys : []);
  } catch {
    return new Set(); // what another page wrote
  }
}

function readMarks() {
  const known = new Set(data.cells.map(({ key }) => key));
  state.marked = new Set([...keptMarks() ?? []].filter((key) => known.has(key)));
}

function mark(cell) {
  changeMarks(state.marked.has(cell.key) ? "delete" : "add", [cell.key]);
  showMarks(new Set([cell.key]));
}

// The change is made to what is kept now, which another tab may have written since.
function changeMarks(change, keys) {
  const kept = keeps ? keptMarks() : null;
  for (const set of [state.marked, ...kept ? [kept] : []]) for (const key of keys) set[change](key);
  try {
    if (kept) localStorage.setItem(MARKS, JSON.stringify([...kept]));
    keeps = kept !== null;
  } catch {
    keeps = false;
  }
  if (!keeps) hint("This browser keeps no marks for this page: copy or save them before you close it.");
  else readMarks();
}

function showMarks(keys) {
  for (const one of data.cells) if (keys.has(one.key)) redraw(one);
  if (state.onlyMarked) drawGrid();
  drawMarks();
  if (state.open) showCell();
}

function drawMarks() {
  by("marks").textContent = `★ ${state.marked.size}`;
  by("marks").setAttribute("aria-label", `${state.marked.size} marked ${state.marked.size === 1 ? "cell" : "cells"}`);
  by("only").setAttribute("aria-pressed", String(state.onlyMarked));
  by("marked-keys").textContent = [...state.marked].join("\n");
  for (const id of ["only", "copy-marks", "save-marks", "clear-marks"]) by(id).disabled = !state.marked.size && !(id === "only" && state.onlyMarked);
}

function saveMarks() {
  const cells = data.cells.filter(({ key }) => state.marked.has(key));
  const rows = cells.map((cell) => ({ key: cell.key, axes: Object.fromEntries(cell.place.map((value, axis) => [data.axes[axis].name, labelOf(axis, value)])) }));
  const content = JSON.stringify({ grid: data.id, title: data.title, marked: rows }, null, 2);
  make("a", { href: `data:application/json,${encodeURIComponent(content)}`, download: "marks.json" }).click();
}

by("marks").addEventListener("click", () => by("marked").showModal());
by("only").addEventListener("click", () => { state.onlyMarked = !state.onlyMarked; drawAll(); });
by("save-marks").addEventListener("click", saveMarks);
by("clear-marks").addEventListener("click", () => { changeMarks("delete", [...state.marked]); state.onlyMarked = false; drawAll(); });
copies(by("copy-marks"), "marked-keys");
addEventListener("storage", ({ key }) => {
  if (!keeps || (key !== MARKS && key !== null)) return; // null: all was deleted
  const before = state.marked;
  readMarks();
  showMarks(new Set([...before, ...state.marked].filter((one) => before.has(one) !== state.marked.has(one))));
});
