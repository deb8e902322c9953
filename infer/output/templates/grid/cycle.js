// One value of an axis after the other, by itself: of a selected axis over the grid, of any axis in the viewer.

let cycling = null; // { axis, where, timer }

function cycleButton(axis, where) {
  const on = cycling?.axis === axis && cycling.where === where;
  const { name } = data.axes[axis];
  const button = push(on ? "⏸" : "▶", on ? `Stop the cycle along ${name}` : `Cycle along ${name}`, () => { on ? stopCycle() : startCycle(axis, where); refresh(where); }, values(axis).length < 2);
  button.setAttribute("aria-pressed", String(on));
  return button;
}

function refresh(where) {
  if (where === "viewer" && state.open) showCell();
  by("speed-bar").hidden = cycling?.where !== "grid";
  drawBar();
}

function startCycle(axis, where) {
  stopCycle();
  cycling = { axis, where, timer: setInterval(() => next(axis, where), 1000 * state.seconds) };
}

function stopCycle() {
  if (cycling) clearInterval(cycling.timer);
  cycling = null;
}

function next(axis, where) {
  if (where === "viewer") { if (!flip(axis, 1, { around: true })) stopCycle(); return; }
  const own = values(axis);
  state.at[axis] = own[(own.indexOf(state.at[axis]) + 1) % own.length];
  drawGrid();
  drawBar();
}

for (const id of ["speed", "speed-2"]) {
  by(id).addEventListener("change", () => {
    state.seconds = Number(by(id).value);
    by("speed").value = by("speed-2").value = by(id).value;
    if (cycling) startCycle(cycling.axis, cycling.where);
    if (state.open) showModes(comparing());
  });
}
