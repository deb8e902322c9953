// The bar over the grid: one chooser for each selected axis, the score, the tiles' size.

function drawBar() {
  const parts = state.select.map((axis) => {
    const own = values(axis);
    const { name } = data.axes[axis];
    const show = (value) => { state.at[axis] = value; drawGrid(); drawBar(); remember(); };
    const at = own.indexOf(state.at[axis]);
    return make("span", { class: "select" }, make("label", {}, name, chooser(name, own.map((value) => [String(value), labelOf(axis, value)]), String(state.at[axis]), (value) => show(Number(value)))),
      push("‹", `Previous ${name}`, () => show(own[at - 1]), at <= 0),
      push("›", `Next ${name}`, () => show(own[at + 1]), at < 0 || at + 1 >= own.length),
      cycleButton(axis, "grid"));
  });
  const active = document.activeElement?.getAttribute("aria-label");
  by("axes").replaceChildren(...parts);
  if (active && document.activeElement === document.body) [...by("axes").querySelectorAll("button, select")].find((one) => one.getAttribute("aria-label") === active)?.focus();
  by("sides").setAttribute("aria-expanded", String(!by("panel").hidden));
  by("sides").hidden = data.axes.length === 0;
  const hidden = state.hidden.reduce((sum, one) => sum + one.size, 0);
  by("sides").textContent = hidden ? `Axes (${hidden} hidden)` : "Axes";
  by("score").value = String(state.score ?? "");
  by("view").value = state.view;
  by("pixels").setAttribute("aria-pressed", String(state.crisp));
  document.body.classList.toggle("crisp", state.crisp);
  drawMarks();
  drawSides();
}

by("score").append(...data.scores.map(({ name }, index) => make("option", { value: String(index) }, name)));
by("score").parentElement.hidden = !data.scores.length;
by("score").addEventListener("change", () => {
  state.score = by("score").value === "" ? null : Number(by("score").value);
  const one = data.scores[state.score];
  hint(one ? `${one.name}: ${one.definition}${one.better ? ` (${one.better} is better)` : ""}` : "");
  drawAll();
});
by("view").addEventListener("change", () => { state.view = by("view").value; drawAll(); });
by("sides").addEventListener("click", () => { by("panel").hidden = !by("panel").hidden; drawBar(); });
by("tile").addEventListener("input", () => { state.tile = Number(by("tile").value); drawGrid(); remember(); });
by("fit-tiles").addEventListener("click", () => { state.tile = null; drawGrid(); remember(); });
by("pixels").addEventListener("click", () => { state.crisp = !state.crisp; drawAll(); });

// The window's width, which the parts that do not scroll sideways keep to.
let viewWidth = 0;

function measureView() {
  const now = document.documentElement.clientWidth;
  const changed = now !== viewWidth;
  viewWidth = now;
  document.documentElement.style.setProperty("--view", `${now}px`);
  document.documentElement.style.setProperty("--bar", `${document.querySelector(".bar").offsetHeight}px`);
  return changed;
}

measureView();
new ResizeObserver(measureView).observe(document.querySelector(".bar"));
new ResizeObserver(() => { if (measureView() && (state.tile === null || by("grid").className === "list")) drawGrid(); }).observe(document.documentElement);
