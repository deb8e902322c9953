// The keyboard, and the mouse over the grid.

function inGrid(event) {
  const at = document.activeElement;
  if (!at?.classList.contains("cell")) return;
  const cell = cellAt(at.dataset.place);
  if (event.key === "c") { hold(state.held === cell ? null : cell); state.pairing = state.held !== null; hint(by("hint").textContent); return; }
  if (event.key === "m") { mark(cell); return; }
  const along = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
  if (!along) return;
  event.preventDefault();
  const row = lines.list.findIndex(({ cells }) => cells.includes(cell));
  let next;
  for (let y = row + along[0], x = lines.list[row].cells.indexOf(cell) + along[1]; !next; y += along[0], x += along[1]) {
    if (!(y in lines.list) || !(x in lines.list[y].cells)) return;
    next = lines.list[y].cells[x];
  }
  const button = buttonOf(next);
  at.tabIndex = -1;
  button.tabIndex = 0;
  button.focus({ preventScroll: true });
  button.scrollIntoView({ block: "nearest", inline: "nearest" });
}

function inViewer(event) {
  if (event.key === " " && comparing() && event.target.tagName !== "SELECT") { event.preventDefault(); by("stage").classList.add("peek"); return; }
  if (["INPUT", "SELECT"].includes(event.target.tagName) || scrollsExplained(event)) return;
  const along = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (along && state.view === "ranking") { event.preventDefault(); flipInList(along); return; }
  const columns = state.columns.at(-1) ?? state.rows.at(-1);
  const rows = state.rows.at(-1) ?? columns;
  const outer = [...state.rows.slice(0, -1), ...state.columns.slice(0, -1), ...state.select][0];
  const flips = { ArrowRight: [columns, 1], ArrowLeft: [columns, -1], ArrowDown: [rows, 1], ArrowUp: [rows, -1], PageDown: [outer, 1], PageUp: [outer, -1] }[event.key];
  const modes = [...by("modes").children].map((button) => button.dataset.mode);
  if (flips) { event.preventDefault(); flip(...flips); return; }
  if (event.key === "+" || event.key === "=") zoom.to(zoom.view.zoom * 1.5);
  else if (event.key === "-") zoom.to(zoom.view.zoom / 1.5);
  else if (event.key === "0") zoom.reset();
  else if (event.key === "c") hold(state.held ? null : state.open);
  else if (event.key === "m") mark(state.open);
  else if (event.key === "e") turnTab();
  else if (modes[Number(event.key) - 1] && comparing()) setMode(modes[Number(event.key) - 1]);
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (["SELECT", "INPUT"].includes(event.target.tagName) && !by("viewer").open) return;
  if (by("help").open || by("marked").open) return;
  if (event.key === "?") { by("help").showModal(); return; }
  if (by("viewer").open) inViewer(event);
  else inGrid(event);
});
document.addEventListener("keyup", (event) => {
  const { classList } = by("stage");
  if (event.key !== " " || !classList.contains("peek")) return;
  event.preventDefault(); // Firefox presses a button here
  classList.remove("peek");
});
addEventListener("blur", () => by("stage").classList.remove("peek")); // the key is let go elsewhere
by("keys").addEventListener("click", () => by("help").showModal());

by("grid").addEventListener("click", (event) => {
  const button = event.target.closest(".cell");
  if (button) choose(cellAt(button.dataset.place), event.shiftKey);
});
