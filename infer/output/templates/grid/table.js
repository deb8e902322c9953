// Draws the table, with super-rows as headings and super-columns over the columns; one axis alone, and a ranking, as a list of tiles.

const measured = document.createElement("canvas").getContext("2d");

// Pixels of the row labels: as wide as the longest, within what leaves room for the images.
function sideWidth(texts, own) {
  if (!texts.length) return 0;
  const family = getComputedStyle(document.body).fontFamily;
  measured.font = `500 14px ${family}`;
  const longest = Math.max(...texts.map((one) => measured.measureText(one).width));
  measured.font = `12px ${family}`;
  return Math.ceil(Math.min(Math.max(longest, measured.measureText(own).width) + 10, 224));
}

function room() {
  return document.documentElement.clientWidth - 2 * (narrow.matches ? 16 : 28);
}

// Pixels between tiles: few where there are many columns.
function gapOf(columns) { return columns > 20 ? 3 : 8; }

// The tile's side: chosen, or as large as lets all columns fit, no larger than suits the images.
function tileSide(columns, side) {
  if (state.tile !== null) return state.tile;
  const gap = gapOf(columns);
  const free = room() - (side ? side + gap : 0) - gap * (columns - 1);
  return Math.max(LEAST, Math.min(data.tile, Math.floor(free / Math.max(columns, 1))));
}

function sizeUp(columns, side, { least = 0 } = {}) {
  const tile = tileSide(columns, narrow.matches ? 0 : side);
  const tallest = Math.max(1, ...aspects());
  const style = by("grid").style;
  lines.tile = tile;
  style.setProperty("--tile", `${tile}px`);
  style.setProperty("--column", `${Math.max(tile, least)}px`);
  style.setProperty("--high", `${Math.ceil(tile * Math.min(tallest, 4))}px`);
  style.setProperty("--side", `${side}px`);
  style.setProperty("--columns", String(columns));
  style.setProperty("--gap", `${gapOf(columns)}px`);
  by("tile").value = tile;
  by("fit-tiles").setAttribute("aria-pressed", String(state.tile === null));
}

let aspectsOf = [-1, []];
function aspects() {
  if (aspectsOf[0] !== data.images.length) aspectsOf = [data.images.length, [...new Set(data.images.map(([, , width, height]) => height / width))]];
  return aspectsOf[1];
}

function drawGrid() {
  const grid = by("grid");
  const focused = document.activeElement?.dataset?.place;
  lines.watched?.disconnect();
  lines.list = [];
  const axes = [...state.rows, ...state.columns];
  if (state.view === "ranking") grid.replaceChildren(...listOf(ranking(), (cell) => rankCaption(cell)));
  else if (axes.length <= 1) grid.replaceChildren(...listOf(flow(axes[0]), (cell) => axes.length ? labelOf(axes[0], cell.place[axes[0]]) : ""));
  else grid.replaceChildren(...tableOf());
  if (!lines.list.length) grid.replaceChildren(make("p", { class: "nothing" }, state.onlyMarked ? "No marked cell is shown." : "Every cell is hidden: see Axes."));
  grid.style.setProperty("--head", `${grid.querySelector(".head")?.offsetHeight ?? 0}px`);
  watchLines();
  const start = cellAt(focused) ?? lines.list.flatMap(({ cells }) => cells).find(Boolean);
  const button = start && buttonOf(start);
  if (button) {
    button.tabIndex = 0;
    if (focused === button.dataset.place) button.focus({ preventScroll: true });
  }
}

function cellAt(name) {
  return name === undefined ? undefined : cellsByNumber.get(numberOf(name ? name.split(",").map(Number) : []));
}

// The cells of one axis, or the only cell there is.
function flow(axis) {
  const { rows, columns, cell } = tableNow();
  return axis === undefined ? [cellsByNumber.get(state.select.reduce((sum, one) => sum + state.at[one] * steps[one], 0))].filter(shows)
    : rows.flatMap((row) => columns.map((column) => cell(row, column)).filter(Boolean));
}

function rankCaption(cell) {
  const varied = cell.place.map((value, axis) => data.axes[axis].labels.length > 1 ? labelOf(axis, value) : "").filter(Boolean);
  return varied.join(" · ");
}

function listOf(cells, caption) {
  const tile = tileSide(narrow.matches ? 3 : 4, 0);
  const each = Math.max(1, Math.floor((room() + 8) / (Math.max(tile, 84) + 8)));
  sizeUp(each, 0, { least: 84 });
  const found = [];
  for (let start = 0; start < cells.length; start += each) {
    const part = cells.slice(start, start + each);
    found.push(line(null, part, part.map(caption)));
  }
  by("grid").className = "list";
  return found;
}

function tableOf() {
  const { rows, columns, cell } = tableNow();
  const inner = state.rows.at(-1);
  const names = inner === undefined ? [] : rows.map(({ list }) => labelOf(inner, list.at(-1)));
  sizeUp(columns.length, sideWidth(names, corner(inner, state.columns.at(-1))));
  by("grid").className = `table${lines.tile < 64 ? " upright" : ""}`;
  const parts = rows.length ? [header(columns, inner)] : [];
  let before = [];
  rows.forEach((row, index) => {
    parts.push(...headings(row.list, before));
    before = row.list;
    parts.push(line(names[index] ?? null, columns.map((column) => cell(row, column))));
  });
  return parts;
}

function corner(row, column) {
  return [row === undefined ? "" : `${data.axes[row].name} ↓`, column === undefined ? "" : `${data.axes[column].name} →`].join("  ").trim();
}

// A heading where another combination of super-rows begins.
function headings(list, before) {
  const outer = list.slice(0, -1);
  if (!outer.length || outer.join() === before.slice(0, -1).join()) return [];
  return [make("h2", { class: "super" }, ...outer.map((value, index) => {
    const label = labelOf(state.rows[index], value);
    return make("span", { title: label }, make("small", {}, data.axes[state.rows[index]].name), ` ${label}`);
  }))];
}

// The columns' labels, a line for each of their axes; those of super-columns span theirs.
function header(columns, inner) {
  const found = make("div", { class: "head", role: "rowgroup" });
  const side = inner !== undefined;
  state.columns.forEach((axis, level) => {
    const names = make("div", { class: "line names", role: "row" });
    if (side) names.append(make("div", { class: "side corner" }, corner(level === state.columns.length - 1 ? inner : undefined, axis)));
    for (let start = 0; start < columns.length;) {
      let end = start + 1;
      const same = (index) => columns[index].list.slice(0, level + 1).join() === columns[start].list.slice(0, level + 1).join();
      while (end < columns.length && same(end)) end += 1;
      const label = labelOf(axis, columns[start].list[level]);
      const name = make("div", { class: level < state.columns.length - 1 ? "name spans" : "name", role: "columnheader", title: label }, make("span", {}, label));
      name.style.gridColumn = `span ${end - start}`;
      names.append(name);
      start = end;
    }
    found.append(names);
  });
  return found;
}

function drawAll() { drawBar(); drawGrid(); remember(); }
