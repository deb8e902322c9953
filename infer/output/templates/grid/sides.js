// The panel of axes: where each goes, in which order, and which of its values are shown.

const SIDES = { rows: "Rows", columns: "Columns", select: "One at a time" };

function sideOf(axis) { return Object.keys(SIDES).find((side) => state[side].includes(axis)); }

function putAxis(axis, side) {
  for (const one of Object.keys(SIDES)) state[one] = state[one].filter((other) => other !== axis);
  state[side].push(axis);
  settle();
  drawAll();
}

// One place further out, or further in, on its side.
function moveAxis(axis, by_) {
  const list = state[sideOf(axis)];
  const from = list.indexOf(axis);
  if (!(from + by_ in list)) return;
  list.splice(from, 1);
  list.splice(from + by_, 0, axis);
  drawAll();
}

// A selected axis shows a value that is not hidden.
function settle() {
  for (const axis of state.select) {
    const own = values(axis);
    if (own.length && !own.includes(state.at[axis])) [state.at[axis]] = own;
  }
}

function chooser(name, options, chosen, onChange) {
  const select = make("select", { "aria-label": name }, ...options.map(([value, label]) => make("option", { value, selected: value === chosen }, label)));
  select.addEventListener("change", () => onChange(select.value));
  return select;
}

function push(label, title, onClick, disabled = false) {
  const button = make("button", { type: "button", "aria-label": title, title, disabled }, label);
  button.addEventListener("click", onClick);
  return button;
}

const MANY = 12; // values from which on a list has a field to search it
const isSought = (axis, value) => labelOf(axis, value).toLowerCase().includes(state.sought[axis].toLowerCase());

function searchField(axis, list) {
  const field = make("input", { type: "search", placeholder: "Find", "aria-label": `Find in ${data.axes[axis].name}`, value: state.sought[axis] });
  field.addEventListener("input", () => {
    state.sought[axis] = field.value;
    [...list.querySelectorAll("label")].forEach((label, value) => { label.hidden = !isSought(axis, value); });
  });
  return field;
}

function valueBox(axis, value) {
  const box = make("input", { type: "checkbox", checked: !state.hidden[axis].has(value) });
  box.addEventListener("change", () => {
    if (box.checked) state.hidden[axis].delete(value);
    else state.hidden[axis].add(value);
    settle();
    drawAll();
  });
  return make("label", { hidden: !isSought(axis, value) }, box, make("span", {}, labelOf(axis, value)));
}

function axisCard(axis) {
  const { name, labels: all } = data.axes[axis];
  const side = sideOf(axis);
  const list = state[side];
  const hide = (hidden) => () => {
    for (const value of all.keys()) if (isSought(axis, value)) state.hidden[axis][hidden ? "add" : "delete"](value);
    settle();
    drawAll();
  };
  const sorts = [["", "as given"], ...data.scores.map((score, index) => [String(index), `by ${score.name}`])];
  const sort = data.scores.length ? [make("label", {}, "Order ", chooser(`Order of ${name}`, sorts, String(state.sorted[axis] ?? ""), (value) => {
    state.sorted[axis] = value === "" ? null : Number(value);
    drawAll();
  }))] : [];
  const boxes = make("fieldset", {}, make("legend", {}, `Values of ${name}`), ...all.map((_, value) => valueBox(axis, value)));
  return make("section", { class: "axis", "data-axis": axis },
    make("div", { class: "axis-head" }, make("h3", {}, name),
      chooser(`Place of ${name}`, Object.entries(SIDES), side, (value) => putAxis(axis, value)),
      push("↑", `${name}: further out`, () => moveAxis(axis, -1), list[0] === axis),
      push("↓", `${name}: further in`, () => moveAxis(axis, 1), list.at(-1) === axis)),
    ...sort,
    ...(all.length >= MANY ? [searchField(axis, boxes)] : []),
    boxes,
    make("div", { class: "axis-head" }, push("All", `Show all of ${name}`, hide(false)), push("None", `Hide all of ${name}`, hide(true))));
}

function drawSides() {
  const panel = by("panel");
  if (panel.hidden) return;
  const controls = (card) => [...card.querySelectorAll("button, select, input")];
  const before = document.activeElement.closest(".axis");
  const place = before ? controls(before).indexOf(document.activeElement) : -1;
  const scrolled = new Map([...panel.children].map((card) => [card.dataset.axis, card.querySelector("fieldset").scrollTop]));
  panel.replaceChildren(...[...state.rows, ...state.columns, ...state.select].map(axisCard));
  for (const card of panel.children) card.querySelector("fieldset").scrollTop = scrolled.get(card.dataset.axis) ?? 0;
  const again = place < 0 ? null : controls([...panel.children].find((card) => card.dataset.axis === before.dataset.axis))[place];
  (again?.disabled ? again.parentElement.querySelector("button:enabled") : again)?.focus(); // an axis that is at an end moves the other way
}
