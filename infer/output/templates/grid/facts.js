// What is known of the cell in the viewer: its place on each axis, settings, scores, source images, and how to draw it again.

function fillFacts(cell) {
  const steppers = data.axes.map((axis, index) => {
    const step = (by_, words) => {
      const button = make("button", { type: "button", "aria-label": `${words} ${axis.name}`, disabled: !reach(index, by_) }, by_ < 0 ? "‹" : "›");
      button.addEventListener("click", () => flip(index, by_));
      return button;
    };
    const label = make("span", {}, make("small", {}, `${axis.name} · ${cell.place[index] + 1} of ${axis.labels.length}`), axis.labels[cell.place[index]]);
    return make("div", { class: "stepper" }, step(-1, "Previous"), label, step(1, "Next"), cycleButton(index, "viewer"));
  });
  by("steppers").replaceChildren(...steppers);
  by("fault").hidden = !cell.error;
  by("fault").textContent = cell.error ?? "";
  fillTable("scores", data.scores.map((score, index) => {
    const value = scoreOf(cell, index);
    return [score.name, value === null ? "–" : spell(value), `${score.definition}${score.better ? ` (${score.better} is better)` : ""}`];
  }));
  fillTable("settings", [...pairs(cell.settings), ["status", `${cell.status}${cell.seconds ? `, ${cell.seconds.toFixed(2)} s` : ""}`]]);
  fillTable("details", [...pairs(data.tables[cell.details]), ["key", cell.key]]);
  by("cell-sources").replaceChildren(...cell.sources.map((number) => figure(data.sources[number])));
  fillText("parameters", cell.parameters);
  fillText("command", cell.command);
  by("save").hidden = cell.image === null;
  if (cell.image !== null) {
    by("save").href = source(cell);
    const kind = kindOf(source(cell));
    by("save").download = data.kind || data.served ? `${cell.key.slice(0, 12)}.${kind}` : "";
    by("save").textContent = data.kind === "webp" ? "Save image (the file itself is in images/)" : `Save ${kind.toUpperCase()}`;
  }
}

function figure([label, address]) {
  return make("figure", {}, make("img", { src: address, alt: "" }), make("figcaption", {}, label));
}

function fillText(id, words) {
  by(id).textContent = words;
  by(id).closest(".copyable").hidden = !words;
}

// "png" of a data: address or a file's.
function kindOf(address) {
  return (/^data:image\/(\w+)/.exec(address) ?? /\.(\w+)$/.exec(address) ?? [null, "png"])[1];
}

function fillTable(id, rows) {
  by(id).hidden = !rows.length;
  by(id).tBodies[0].replaceChildren(...rows.map(([name, value, title]) => make("tr", title ? { title } : {}, make("th", { scope: "row" }, name), make("td", {}, value))));
}

// The nearest cell that is shown in a direction of an axis; `around` goes on at the other end.
function reach(axis, step, { around = false } = {}) {
  const own = values(axis);
  const start = own.indexOf(state.open.place[axis]);
  for (let count = 1; count < own.length; count += 1) {
    const at = start + step * count;
    if (!around && !(at in own)) return null;
    const place = [...state.open.place];
    place[axis] = own[(at + own.length * count) % own.length];
    const cell = cellsByNumber.get(numberOf(place));
    if (cell && (!state.onlyMarked || state.marked.has(cell.key))) return cell;
  }
  return null;
}

function flip(axis, step, options) {
  const cell = axis === undefined || axis === null ? null : reach(axis, step, options);
  return turnTo(cell);
}

// The next cell of the list of all cells, or the one before.
function flipInList(step) {
  const cells = ranking();
  return turnTo(cells[cells.indexOf(state.open) + step]);
}

function turnTo(cell) {
  if (!cell) return false;
  state.open = cell;
  for (const one of state.select) state.at[one] = cell.place[one];
  showCell();
  return true;
}

copies(by("copy"), "parameters");
copies(by("copy-command"), "command");
by("copy-link").addEventListener("click", () => { by("link").textContent = `${location.href.split("#")[0]}#${addressNow()}`; });
copies(by("copy-link"), "link");
