// The builder of a grid: every setting as a value or as an axis, with its help and range; the plan and the faults follow as one types.

import { commandOf, read, write } from "../api.js";
import { allow, button, heading, showCommand, spellSeconds } from "../parts.js";
import { fieldOf } from "./field.js";
import { to } from "./links.js";

const WAIT = 120; // milliseconds without a key before the plan is asked for
const KEPT = "loraloom grid form"; // of this tab, until the grid is drawn

export async function showBuilder(main, query) {
  const waiting = make("p", { class: "soft" }, "Reading the settings …");
  main.append(heading("New grid"), waiting);
  const { fields, groups } = await read("grids/form");
  const form = await startFrom(query, fields);
  const page = crypto.randomUUID();
  let number = 0, later = null, asked = null, words = null;

  const own = new Map(); // name -> field
  for (const one of fields) {
    const field = fieldOf(one, form, changed);
    own.set(one.name, field);
    if (one.axis) own.set(`axes.${one.axis}`, field);
  }
  const cards = groups.map((group) => cardOf(group, fields.filter((one) => one.group === group).map((one) => own.get(one.name))));
  const plan = make("div", { class: "plan-facts", role: "status", "aria-live": "polite" }, make("p", { class: "soft" }, "The first plan takes a few seconds."));
  const faults = make("ul", { class: "plan-faults" });
  const command = make("pre", { id: "grid-command", tabIndex: 0, "aria-label": "Command" });
  const copy = make("button", { type: "button" }, "Copy");
  const draw = button("Draw", {
    kind: "primary", words: () => words && ["grid", ...words], ready: () => Boolean(words) && !aside.dataset.waiting,
    act: async (lead) => {
      const job = await write("grids/draw", { form });
      sessionStorage.removeItem(KEPT);
      lead(to("job", { id: job.id }));
    },
  });
  const clear = make("button", { type: "button" }, "Start anew");
  clear.addEventListener("click", () => { sessionStorage.removeItem(KEPT); location.hash = to("new", { fresh: Date.now() }); });
  const aside = make("aside", { class: "card plan", "aria-label": "Plan" },
    make("h2", {}, "Plan"), plan, faults, make("div", { class: "stage-bar" }, draw, clear),
    make("div", { class: "copyable" }, make("div", { class: "stage-bar" }, make("h3", {}, "Command"), make("span", { class: "gap" }), copy), command));
  waiting.replaceWith(make("div", { class: "builder" }, make("div", { class: "builder-fields" }, ...cards), aside));
  copies(copy, "grid-command");

  function changed() {
    sessionStorage.setItem(KEPT, JSON.stringify(form));
    aside.dataset.waiting = "true";
    draw.disabled = true; // until the plan of what is there now has come
    number += 1; // an answer about what was there before is late
    clearTimeout(later);
    later = setTimeout(update, WAIT);
  }

  async function update() {
    asked?.abort();
    asked = new AbortController();
    const mine = ++number;
    let found;
    try {
      found = await write("grids/plan", { form, page, number: mine }, { signal: asked.signal });
    } catch (error) {
      if (error.name === "AbortError" || mine !== number) return;
      found = { words: null, plan: null, faults: [{ setting: null, text: error.message }], notes: [] };
    }
    if (mine !== number || found.overtaken) return;
    delete aside.dataset.waiting;
    words = found.faults.length ? null : found.words;
    allow(draw, words && !document.body.dataset.sealed);
    command.textContent = found.words ? commandOf(["grid", ...found.words]) : "";
    if (words) showCommand(["grid", ...words]);
    for (const field of new Set(own.values())) field.fault(found.faults.filter(({ setting }) => setting && own.get(setting) === field).map(({ text }) => text));
    faults.replaceChildren(...found.faults.map(({ setting, text }) => faultLine(text, own.get(setting))));
    plan.replaceChildren(...(found.plan ? planFacts(found) : []));
  }

  draw.disabled = true;
  await update();
  return () => { clearTimeout(later); asked?.abort(); };
}

// The settings to begin with: of a grid, of one of its cells, as the address gives them, or as this tab left them.
async function startFrom(query, fields) {
  const folder = query.get("folder"), cell = query.get("cell");
  if (folder) return read("grids/again", cell ? { folder, cell } : { folder });
  const adapter = query.get("adapter"); // of a model's page: beside the base alone
  if (adapter) return { values: query.get("base") ? { base: query.get("base") } : {}, axes: { adapter: ["none", adapter], prompt: [""], seed: ["1-4"] } };
  const given = Object.fromEntries([...query].filter(([name]) => fields.some((one) => one.name === name)));
  if (Object.keys(given).length) return { values: given, axes: given.prompt ? {} : { prompt: [""], seed: ["1-4"] } };
  try {
    const kept = JSON.parse(sessionStorage.getItem(KEPT));
    if (kept?.values && kept?.axes) return kept;
  } catch { /* another form */ }
  return { values: {}, axes: { prompt: [""], seed: ["1-4"] } };
}

function cardOf(group, fields) {
  if (group !== "More") return make("section", { class: "card", "aria-label": group }, make("h2", {}, group), make("div", { class: "fields" }, ...fields.map(({ node }) => node)));
  const search = make("input", { type: "search", placeholder: "Search settings", "aria-label": "Search settings" });
  search.addEventListener("input", () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const { node } of fields) node.hidden = !words.every((word) => node.dataset.words.includes(word));
  });
  const node = make("details", { class: "card" }, make("summary", {}, `More settings (${fields.length})`), search, make("div", { class: "fields" }, ...fields.map((field) => field.node)));
  if (fields.some((field) => field.given())) node.open = true;
  return node;
}

function faultLine(text, field) {
  const line = make("li", {}, text);
  if (!field) return line;
  const go = make("button", { type: "button", class: "to-field" }, "Show");
  go.addEventListener("click", () => field.focus());
  line.append(" ", go);
  return line;
}

function planFacts({ plan, notes }) {
  const row = (name, value) => make("div", {}, make("dt", {}, name), make("dd", {}, value));
  const count = (number, word) => `${number.toLocaleString("en")} ${word}${number === 1 ? "" : "s"}`;
  const facts = [
    row("Cells", Object.keys(plan.axes).length ? `${plan.cells} (${Object.values(plan.axes).map(({ length }) => length).join(" × ")})` : String(plan.cells)),
    row("To draw", plan.to_draw === plan.distinct ? count(plan.to_draw, "image") : `${count(plan.to_draw, "image")}, ${plan.stored} there already`),
    row("Work", `${count(plan.forwards, "denoiser call")}, ${count(plan.model_loads, "model load")}, ${count(plan.encodes, "encoding")}`),
    row("Time", plan.to_draw === 0 ? "none" : plan.seconds === null ? "not known: nothing like it was drawn here" : `about ${spellSeconds(plan.seconds)}`),
  ];
  if (plan.memory) facts.push(row("Memory", JSON.stringify(plan.memory)));
  const sides = [plan.rows && `${plan.rows} ↓`, plan.columns && `${plan.columns} →`].filter(Boolean).join("  ");
  if (sides) facts.push(row("Sheet", sides));
  const axes = Object.entries(plan.axes).map(([name, labels]) => row(name, labels.slice(0, 8).join(" | ") + (labels.length > 8 ? ` | and ${labels.length - 8} more` : "")));
  return [make("dl", { class: "facts-list" }, ...facts, ...axes), ...[...notes, ...plan.notes].map((note) => make("p", { class: "note" }, note))];
}
