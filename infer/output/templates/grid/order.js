// Which values of an axis are shown, in which order, and the rows and columns that they span.

function scoreOf(cell, score) {
  const found = score === null ? undefined : cell.scores[data.scores[score].name];
  return found === undefined ? null : found;
}

// Compares two numbers so that the better one comes first; those that are missing come last.
function better(score, one, other) {
  if (one === null || other === null) return (one === null) - (other === null);
  return data.scores[score].better === "lower" ? one - other : other - one;
}

function shows(cell) {
  return cell !== undefined && (!state.onlyMarked || state.marked.has(cell.key))
    && cell.place.every((value, axis) => !state.hidden[axis].has(value))
    && state.select.every((axis) => cell.place[axis] === state.at[axis]);
}

// The mean of a score over the cells that are shown, for each value of an axis.
function means(axis, score) {
  const sums = data.axes[axis].labels.map(() => [0, 0]);
  for (const cell of data.cells) {
    const value = shows(cell) ? scoreOf(cell, score) : null;
    if (value === null) continue;
    sums[cell.place[axis]][0] += value;
    sums[cell.place[axis]][1] += 1;
  }
  return sums.map(([sum, count]) => count ? sum / count : null);
}

function values(axis) {
  const all = data.axes[axis].labels.map((_, value) => value).filter((value) => !state.hidden[axis].has(value));
  const score = state.sorted[axis];
  if (score === null || state.select.includes(axis)) return all;
  const mean = means(axis, score);
  return all.sort((one, other) => better(score, mean[one], mean[other]) || one - other);
}

// Every combination of the shown values of some axes, as lists of values.
function product(axes) {
  return axes.reduce((lists, axis) => { const own = values(axis); return lists.flatMap((list) => own.map((value) => [...list, value])); }, [[]]);
}

// The table as it is shown: the combinations that have cells, and the cell of each pair of them.
function tableNow() {
  const base = state.select.reduce((sum, axis) => sum + state.at[axis] * steps[axis], 0);
  const offset = (axes, list) => list.reduce((sum, value, index) => sum + value * steps[axes[index]], 0);
  const rows = product(state.rows).map((list) => ({ list, offset: base + offset(state.rows, list) }));
  const columns = product(state.columns).map((list) => ({ list, offset: offset(state.columns, list) }));
  const cell = (row, column) => {
    const found = cellsByNumber.get(row.offset + column.offset);
    return shows(found) ? found : undefined;
  };
  const used = new Set();
  const kept = rows.filter((row) => {
    let any = false;
    for (const column of columns) if (cell(row, column)) { used.add(column); any = true; }
    return any;
  });
  return { rows: kept, columns: columns.filter((column) => used.has(column)), cell };
}

// All cells that are shown, the best of the chosen score first.
function ranking() {
  const cells = data.cells.filter(shows);
  return state.score === null ? cells : cells.sort((one, other) => better(state.score, scoreOf(one, state.score), scoreOf(other, state.score)));
}
