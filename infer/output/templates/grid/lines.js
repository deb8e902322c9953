// Lines of cells that are filled as they come into view, and emptied when they are far away: a page holds the images that are looked at.

const AHEAD = 700; // pixels above and below the window
const lines = { list: [], watched: null };

function cellButton(cell) {
  const button = make("button", { type: "button", class: "cell", "aria-label": spoken(cell), tabIndex: -1 });
  button.dataset.place = cell.place.join();
  if (cell === state.held) button.classList.add("held");
  if (state.marked.has(cell.key)) button.classList.add("marked");
  if (cell.image === null) {
    button.classList.add("broken");
    if (cell.status === "missing" && data.live) button.classList.add("waiting");
    button.append(make("span", {}, `${cell.status}: ${cell.error ?? ""}`));
    return button;
  }
  const [address, small, width, height] = image(cell);
  const large = state.crisp || lines.tile * devicePixelRatio > 400;
  const picture = make("img", { alt: "", decoding: "async", draggable: false, width, height });
  picture.addEventListener("error", () => lost(button, address), { once: true });
  picture.src = small && !large ? small : address;
  button.append(picture);
  const score = scoreOf(cell, state.score);
  if (score !== null) button.append(make("span", { class: "score" }, spell(score)));
  return button;
}

// An image that is not where the page expects it.
function lost(button, address) {
  button.classList.add("broken");
  button.replaceChildren(make("span", {}, address.startsWith("data:") ? "This image cannot be read." : `${decodeURIComponent(address)} is missing.`));
  if (!address.startsWith("data:")) hint("Images are missing: this page was moved without the folders images/ and thumbs/ beside it.");
}

function spell(score) {
  const size = Math.abs(score);
  return size && (size < 0.001 || size >= 10000) ? score.toExponential(2) : String(Number(score.toPrecision(4)));
}

function inTile(cell, caption) {
  if (!cell) return make("span", { class: "empty", title: "This grid has no such cell" }, "–");
  return caption === undefined ? cellButton(cell) : make("figure", {}, make("figcaption", { title: caption }, caption), cellButton(cell));
}

// A line: its label (or null) and its cells; `captions` stand over cells of a list.
function line(label, cells, captions) {
  const node = make("div", { class: "line", role: "row" });
  if (label !== null) node.append(make("div", { class: "side", role: "rowheader" }, make("span", {}, label)));
  const one = { node, cells, captions, filled: false };
  node.line = one;
  lines.list.push(one);
  return node;
}

function fill(one) {
  if (one.filled) return;
  one.filled = true;
  one.node.append(...one.cells.map((cell, index) => {
    return make("div", { class: "tile", role: "cell" }, inTile(cell, one.captions?.[index]));
  }));
}

function empty(one) {
  if (!one.filled || one.node.contains(document.activeElement)) return;
  one.filled = false;
  one.node.style.minHeight = `${one.node.offsetHeight}px`;
  for (const tile of [...one.node.querySelectorAll(":scope > .tile")]) tile.remove();
}

function watchLines() {
  lines.watched?.disconnect();
  lines.watched = new IntersectionObserver((seen) => {
    for (const { target, isIntersecting } of seen) (isIntersecting ? fill : empty)(target.line);
  }, { rootMargin: `${AHEAD}px 0px` });
  const near = lines.list.filter(({ node }) => {
    const { top, bottom } = node.getBoundingClientRect();
    return top < innerHeight + AHEAD && bottom > -AHEAD;
  });
  near.forEach(fill);
  for (const one of lines.list) lines.watched.observe(one.node);
}

// The button of a cell, its line filled for it.
function buttonOf(cell) {
  const one = lines.list.find(({ cells }) => cells.includes(cell));
  if (!one) return null;
  fill(one);
  return one.node.querySelector(`.cell[data-place="${cell.place.join()}"]`);
}

// Draws the cell again where it stands: its mark, its image, A.
function redraw(cell) {
  const old = by("grid").querySelector(`.cell[data-place="${cell.place.join()}"]`);
  if (!old) return;
  const button = cellButton(cell);
  button.tabIndex = old.tabIndex;
  const focused = old === document.activeElement;
  old.replaceWith(button);
  if (focused) button.focus();
}
