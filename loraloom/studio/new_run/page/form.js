// The settings: what a run begins with, the presets, the dozen that matter, and all others by their sections.

import { fieldOf } from "./field.js";

const GROUPS = { model: "model preset", experiment: "kind of training", hardware: "hardware" }; // on the first page; the other presets stand with their settings

// Gives {node, words, fill, faults, planned}. `changed` is called at every change.
export function formOf({ settings, presets, chosen, first, others: tools }, sources, { changed }) {
  const values = new Map(); // setting -> its text as a command line has it; what is not given is not in it
  const picked = new Map(); // group of presets -> name
  const selects = new Map(); // group -> its input
  const fields = new Map(); // setting -> its field, made when it is first shown
  const rows = new Map(settings.map((row) => [row.name, row]));
  let wrong = [], resolved = null;

  const field = (name) => {
    if (!fields.has(name)) {
      const suggested = name === "base" ? sources.bases : name === "data.path" ? sources.data : null;
      const made = fieldOf(rows.get(name), suggested, (text) => {
        if (text === "") values.delete(name);
        else values.set(name, text);
        wrong = wrong.filter((fault) => fault.setting !== name); // of what was there before
        paint(name);
        changed();
      });
      made.set(values.get(name) ?? "");
      fields.set(name, made);
      paint(name);
    }
    return fields.get(name);
  };

  function paint(name) {
    const made = fields.get(name);
    made.fault(wrong.filter((fault) => fault.setting === name).map((fault) => fault.text));
    made.planned(resolved === null ? undefined : name.split(".").reduce((inside, part) => inside?.[part], resolved));
  }

  function preset(group, label) {
    const about = make("small", { class: "soft" });
    const none = chosen[group];
    const select = make("select", { "aria-label": label, id: `preset-${group}` }, make("option", { value: "" }, none ? `${none} (default)` : "none"), ...Object.keys(presets[group]).filter((name) => name !== none).map((name) => make("option", { value: name }, name)));
    selects.set(group, select);
    const tell = () => { about.textContent = presets[group][select.value || none] ?? ""; };
    select.value = picked.get(group) ?? "";
    select.addEventListener("change", () => {
      if (select.value) picked.set(group, select.value);
      else picked.delete(group);
      tell();
      changed();
    });
    select.addEventListener("input", tell);
    tell();
    return make("label", { class: "field" }, make("span", { class: "field-name" }, label), select, about);
  }

  const begin = make("section", { class: "card first" },
    make("div", { class: "fields two" }, field("base").node, field("data.path").node),
    make("div", { class: "fields three" }, ...Object.entries(GROUPS).filter(([group]) => presets[group]).map(([group, label]) => preset(group, label))),
    make("div", { class: "fields three" }, ...first.filter((name) => rows.has(name)).map((name) => field(name).node)),
  );
  if (sources.cut) begin.append(make("p", { class: "soft" }, "There are more folders than are looked into: a path can be typed."));

  // --- all settings, by section, made when a section is opened or searched

  const shown = new Set(["base", "data.path", ...first]);
  const names = settings.map((row) => row.name).filter((name) => !shown.has(name));
  const sectionOf = (name) => (name.includes(".") ? name.split(".")[0] : "run");
  const others = Object.keys(presets).filter((group) => !GROUPS[group]);
  const search = make("input", { type: "search", placeholder: `Search ${settings.length} settings`, "aria-label": "Search the settings" });
  const count = make("span", { class: "soft", role: "status" });
  const sections = new Map();
  for (const name of names) {
    const key = sectionOf(name);
    if (!sections.has(key)) sections.set(key, []);
    sections.get(key).push(name);
  }
  const details = [...sections].map(([key, inside]) => {
    const fieldsNode = make("div", { class: "fields three" }), given = make("span", { class: "chip", hidden: true });
    const node = make("details", { class: "card settings-section" }, make("summary", {}, key, make("span", { class: "soft" }, ` ${inside.length}`), " ", given), fieldsNode);
    let filled = false;
    const fill = () => {
      if (filled) return;
      filled = true;
      if (others.includes(key)) fieldsNode.append(preset(key, `${key} preset`));
      fieldsNode.append(...inside.map((name) => field(name).node));
    };
    node.addEventListener("toggle", () => { if (node.open) fill(); });
    return { node, inside, fill, given };
  });
  const alone = others.filter((group) => !sections.has(group));
  if (alone.length) details.find(({ node }) => node.querySelector("summary").textContent.startsWith("run"))?.node.append(make("div", { class: "fields three" }, ...alone.map((group) => preset(group, `${group} preset`))));

  // A button that leads to a field of the first card.
  function goTo(name) {
    const link = make("button", { type: "button", class: "to-field" }, name);
    link.addEventListener("click", () => field(name).node.querySelector("[data-setting]").focus());
    return link;
  }

  search.addEventListener("input", () => {
    const typed = search.value.trim().toLowerCase(), wanted = typed.split(/\s+/).filter(Boolean);
    const said = tools[typed.replace(/^-+/, "").replace(/[\s-]+/g, "_")] ?? ""; // what another tool calls so: here this is lora.rank=VALUE
    const meant = new Set([...said.matchAll(/([\w.]+)(?:=| has no )/g)].map(([, name]) => name));
    const matches = (name) => meant.has(name) || wanted.every((word) => `${name} ${rows.get(name).help}`.toLowerCase().includes(word));
    let hits = 0;
    for (const { node, inside, fill } of details) {
      const found = inside.filter(matches);
      hits += found.length;
      node.hidden = wanted.length > 0 && !found.length;
      if (wanted.length && found.length) { fill(); node.open = true; }
      if (!wanted.length) node.open = false;
      for (const name of inside) if (fields.has(name)) fields.get(name).node.hidden = wanted.length > 0 && !found.includes(name);
    }
    const above = wanted.length ? [...shown].filter((name) => rows.has(name) && matches(name)) : [];
    count.replaceChildren(...(wanted.length ? [`${hits + above.length} found`, ...(above.length ? [", above: ", ...above.map(goTo)] : []), said && `. ${typed}: ${said}`] : []));
  });

  function mark() {
    for (const { inside, given, node, fill } of details) {
      const own = inside.filter((name) => values.has(name)).length, bad = inside.filter((name) => wrong.some((fault) => fault.setting === name));
      given.hidden = !own && !bad.length;
      given.textContent = bad.length ? `${bad.length} with a fault` : `${own} given`;
      given.classList.toggle("bad", bad.length > 0);
      if (bad.length) { fill(); node.open = true; }
    }
  }

  const node = make("div", { class: "form" }, begin, make("div", { class: "filters" }, make("h2", {}, "All settings"), search, count), ...details.map((one) => one.node));
  return {
    node,
    words: () => [...[...picked].map(([group, name]) => `${group}=${name}`), ...[...values].map(([name, text]) => `${name}=${text}`)],
    fill: (pairs) => {
      for (const [name, text] of pairs) {
        if (presets[name]?.[text] !== undefined) { // it may be a setting of the same name, too: then it is one of its presets
          picked.set(name, text);
          const select = selects.get(name);
          if (select) { select.value = text; select.dispatchEvent(new Event("input")); }
          continue;
        }
        if (!rows.has(name)) continue;
        values.set(name, text);
        fields.get(name)?.set(text);
      }
      mark();
    },
    faults: (found) => { wrong = found; for (const name of fields.keys()) paint(name); mark(); },
    planned: (plan) => { resolved = plan && !Array.isArray(plan) ? plan.config : null; for (const name of fields.keys()) paint(name); mark(); },
  };
}
