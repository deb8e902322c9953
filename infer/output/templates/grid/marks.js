// Marked cells: kept by the browser for this grid, shown alone, copied and saved.

const MARKS = `loraloom marks ${data.id}`;

function readMarks() {
  try {
    const found = JSON.parse(localStorage.getItem(MARKS) ?? "[]");
    const known = new Set(data.cells.map(({ key }) => key));
    state.marked = new Set(Array.isArray(found) ? found.filter((key) => known.has(key)) : []);
  } catch {
    state.marked = new Set(); // a browser that keeps nothing, or what another page wrote
  }
}

function mark(cell) {
  if (state.marked.has(cell.key)) state.marked.delete(cell.key);
  else state.marked.add(cell.key);
  keepMarks();
  for (const one of data.cells) if (one.key === cell.key) redraw(one);
  if (state.onlyMarked) drawGrid();
  drawMarks();
  if (state.open) showCell();
}

function keepMarks() {
  try {
    localStorage.setItem(MARKS, JSON.stringify([...state.marked]));
  } catch {
    hint("This browser keeps no marks for this page: copy or save them before you close it.");
  }
}

function drawMarks() {
  by("marks").textContent = `★ ${state.marked.size}`;
  by("marks").setAttribute("aria-label", `${state.marked.size} marked cells`);
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
by("clear-marks").addEventListener("click", () => { state.marked.clear(); state.onlyMarked = false; keepMarks(); drawAll(); });
copies(by("copy-marks"), "marked-keys");
