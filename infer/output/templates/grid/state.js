// What is shown, and how: the cells with their texts, and everything a person chooses.

const LEAST = 16; // pixels a tile
const narrow = matchMedia("(max-width: 760px)");
const text = (number) => data.texts[number];
const pairs = (list) => list.flatMap((name, at) => at % 2 ? [] : [[text(name), text(list[at + 1])]]);

// Each place has one number, so that a cell is found by arithmetic.
const steps = data.axes.map((_, axis) => data.axes.slice(axis + 1).reduce((count, one) => count * one.labels.length, 1));
const numberOf = (place) => place.reduce((sum, value, axis) => sum + value * steps[axis], 0);
const cellsByNumber = new Map(data.cells.map((cell) => [numberOf(cell.place), cell]));
data.cells.forEach((cell, index) => { cell.index = index; });

const state = {
  rows: [], columns: [], select: [], // axes, the outermost first
  at: data.axes.map(() => 0), // the value shown of an axis that is selected
  hidden: data.axes.map(() => new Set()),
  sought: data.axes.map(() => ""), // in the panel's list of the axis' values
  sorted: data.axes.map(() => null), // index of the score that orders the axis' values
  view: "grid", // or "ranking": all cells in one list
  score: null, // index of the score on the tiles, which orders the ranking
  tile: null, // pixels; null: as large as lets all columns fit
  crisp: false,
  marked: new Set(), // keys of cells
  onlyMarked: false,
  open: null, // the cell in the viewer
  tab: "image", // of the viewer, or "explain"
  held: null, // A of a comparison
  pairing: false,
  mode: "slider",
  cut: 50, // % of the image where A ends and B begins
  gain: 1, // of a difference
  seconds: 1, // between two images of a blink or a cycle
};

const labelOf = (axis, value) => data.axes[axis].labels[value];
const labels = (cell) => cell.place.map((value, axis) => `${data.axes[axis].name} ${labelOf(axis, value)}`);
const spoken = (cell) => (labels(cell).join(", ") || data.title) + (cell.image === null ? `: ${cell.status}` : "");
const image = (cell) => data.images[cell.image];
const source = (cell) => image(cell)[0];

// Which axes go where at first: those of the sheet on its sides, further ones as super-columns where they fit, as super-rows, else selected.
function firstSides() {
  state.rows = data.rows === null ? [] : [data.rows];
  state.columns = data.columns === null ? [] : [data.columns];
  state.select = [];
  const most = narrow.matches ? 4 : 8;
  let columns = data.columns === null ? 1 : data.axes[data.columns].labels.length;
  let blocks = 1;
  data.axes.forEach(({ labels: { length } }, axis) => {
    if (axis === data.rows || axis === data.columns) return;
    if (columns * length <= most) {
      columns *= length;
      state.columns.unshift(axis);
    } else if (blocks * length <= 12) {
      blocks *= length;
      state.rows.unshift(axis);
    } else {
      state.select.push(axis);
    }
  });
}
