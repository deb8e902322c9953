// One setting of the builder: a value, or an axis with a list of values; its help, its range, its faults.

import { read } from "../api.js";
import { pickModels } from "./pick.js";

let count = 0;

// `form` is changed in place, and `changed` called. Gives {node, fault(texts), focus(), given()}.
export function fieldOf(setting, form, changed) {
  const id = `field-${++count}`, { name, axis } = setting;
  const head = make("div", { class: "field-head" }, make("label", { htmlFor: id, class: "field-name" }, setting.only_axis ? axis : name), make("span", { class: "gap" }));
  const control = make("div", { class: "field-control" });
  const help = make("p", { class: "soft field-help", id: `${id}-help` });
  const fault = make("p", { class: "field-fault", id: `${id}-fault`, role: "alert", hidden: true });
  const node = make("div", { class: "setting" }, head, control, help, fault);
  node.dataset.name = name;
  node.dataset.words = `${name} ${axis ?? ""} ${setting.help} ${setting.axis_help}`.toLowerCase();
  const suggestions = suggestionsOf(setting, `${id}-list`);
  if (suggestions) node.append(suggestions.list);
  const parts = { setting, form, changed, id, suggestions };
  const varied = () => axis && form.axes[axis] !== undefined;

  function fill() {
    const many = varied();
    control.replaceChildren(many ? listOf(parts) : setting.only_axis ? make("span", { class: "soft" }, "not varied") : valueOf(parts));
    const words = many || setting.only_axis ? setting.axis_help : [setting.help, setting.range && `(${setting.range})`].filter(Boolean).join(" ");
    help.textContent = help.title = words;
    for (const one of control.querySelectorAll("input, select, textarea")) one.setAttribute("aria-describedby", `${help.id} ${fault.id}`);
    node.classList.toggle("is-given", Boolean(many || form.values[name]));
    for (const one of modes) one.setAttribute("aria-pressed", String((one.dataset.mode === "axis") === Boolean(many)));
  }

  const modes = axis ? ["value", "axis"].map((mode) => {
    const one = make("button", { type: "button" }, mode === "axis" ? "Axis" : setting.only_axis ? "Off" : "Value");
    one.dataset.mode = mode;
    one.setAttribute("aria-label", `${name}: ${one.textContent.toLowerCase()}`);
    one.addEventListener("click", () => { turn(mode); fill(); changed(); control.querySelector("input, select, textarea")?.focus(); });
    return one;
  }) : [];
  if (axis) head.append(make("span", { class: "segments", role: "group", "aria-label": `${name} is` }, ...modes));

  // What was typed is kept from one mode to the other.
  function turn(mode) {
    if (mode === "axis" && !varied()) {
      form.axes[axis] = form.values[name] ? [form.values[name]] : [""];
      delete form.values[name];
    } else if (mode === "value" && varied()) {
      const first = form.axes[axis].find((text) => text.trim());
      delete form.axes[axis];
      const fits = !/number/.test(setting.type) || Number.isFinite(Number(first)); // 1-4 is no value
      if (first && fits && !setting.only_axis) form.values[name] = first;
    }
  }

  fill();
  return {
    node,
    given: () => Boolean(varied() || form.values[name]),
    fault(texts) {
      fault.hidden = !texts.length;
      fault.textContent = texts.join("\n");
      for (const one of control.querySelectorAll("input, select, textarea")) one.setAttribute("aria-invalid", String(texts.length > 0));
    },
    focus() {
      node.closest("details")?.setAttribute("open", "");
      node.hidden = false;
      node.scrollIntoView({ block: "center" });
      control.querySelector("input, select, textarea")?.focus({ preventScroll: true });
    },
  };
}

function set({ setting: { name }, form, changed }, text) {
  if (text.trim()) form.values[name] = text;
  else delete form.values[name];
  changed();
}

function valueOf(parts) {
  const { setting, form, id, suggestions } = parts;
  const now = form.values[setting.name] ?? "";
  if (setting.name === "adapters" && (now === "" || simple(now))) return adaptersOf(parts);
  if (setting.choices.length && setting.choices.length < 8) {
    const select = make("select", { id }, make("option", { value: "" }, setting.default ? `${setting.default} (default)` : "default"), ...setting.choices.map((one) => make("option", { value: one }, one)));
    if (now && !setting.choices.includes(now)) select.append(make("option", { value: now }, now));
    select.value = now;
    select.addEventListener("change", () => set(parts, select.value));
    return select;
  }
  const input = setting.long ? make("textarea", { id, rows: 2, value: now }) : make("input", { id, type: "text", value: now, placeholder: setting.default, autocomplete: "off", spellcheck: false });
  if (suggestions && !setting.long) suggestions.of(input);
  input.addEventListener("input", () => set(parts, input.value));
  if (!setting.kind) return input;
  return make("div", { class: "list-row" }, input, picking(setting, ([name]) => { input.value = name; set(parts, name); }));
}

// A button that opens the registered models as cards.
function picking({ name, kind }, picked, several = false) {
  const node = make("button", { type: "button", class: "pick-open", "aria-label": `Pick ${name}` }, several ? "Pick …" : "Pick");
  node.addEventListener("click", () => pickModels(kind, { several, picked }));
  return node;
}

// --- adapters with their weights: ink:0.6+hat:0.4

const simple = (text) => !/[[{"']/.test(text);

function adaptersOf(parts) {
  const { form, id, suggestions } = parts;
  const rows = (form.values.adapters ?? "").split("+").filter(Boolean).map((one) => {
    const found = /^(.*?)(?::(-?[\d.]+))?$/.exec(one);
    return { name: found[1], weight: found[2] ?? "1" };
  });
  if (!rows.length) rows.push({ name: "", weight: "1" });
  const box = make("div", { class: "list-editor" });
  const put = () => set(parts, rows.filter(({ name }) => name.trim()).map(({ name, weight }) => (weight.trim() && Number(weight) !== 1 ? `${name.trim()}:${weight.trim()}` : name.trim())).join("+"));
  function fill() {
    box.replaceChildren(...rows.map((row, at) => {
      const name = make("input", { type: "text", value: row.name, placeholder: "none", autocomplete: "off", spellcheck: false, "aria-label": `Adapter ${at + 1}`, ...(at ? {} : { id }) });
      suggestions?.of(name);
      name.addEventListener("input", () => { row.name = name.value; put(); });
      const weight = make("input", { type: "number", step: "0.1", value: row.weight, class: "weight", "aria-label": `Weight of adapter ${at + 1}` });
      weight.addEventListener("input", () => { row.weight = weight.value; put(); });
      return make("div", { class: "list-row" }, name, weight, removal(`Remove adapter ${at + 1}`, () => { rows.splice(at, 1); if (!rows.length) rows.push({ name: "", weight: "1" }); fill(); put(); }));
    }), adding("Add adapter", () => { rows.push({ name: "", weight: "1" }); fill(); box.querySelectorAll(".list-row input:first-child")[rows.length - 1].focus(); }), pick);
  }
  const pick = picking(parts.setting, (names) => {
    rows.splice(0, rows.length, ...rows.filter(({ name }) => name.trim()), ...names.map((name) => ({ name, weight: "1" })));
    if (!rows.length) rows.push({ name: "", weight: "1" });
    fill();
    put();
  }, true);
  fill();
  return box;
}

// --- the values of an axis

function listOf({ setting, form, changed, id, suggestions }) {
  const values = form.axes[setting.axis];
  const box = make("div", { class: "list-editor" });
  function fill(focus = null) {
    box.replaceChildren(...values.map(row), adding("Add value", () => { values.push(""); fill(values.length - 1); changed(); }), ...(pick ? [pick] : []));
    if (focus !== null) box.querySelectorAll("textarea, input")[focus]?.focus();
  }
  const pick = setting.kind && picking(setting, (names) => {
    const kept = values.filter((one) => one.trim());
    values.splice(0, values.length, ...kept, ...names.filter((one) => !kept.includes(one)));
    if (!values.length) values.push("");
    fill();
    changed();
  }, true);
  function row(text, at) {
    const given = { value: text, "aria-label": `${setting.axis} ${at + 1}`, ...(at ? {} : { id }) };
    const input = setting.long ? make("textarea", { rows: 1, ...given }) : make("input", { type: "text", autocomplete: "off", spellcheck: false, ...given });
    if (!setting.long) suggestions?.of(input);
    input.addEventListener("input", () => { values[at] = input.value; changed(); });
    input.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); values.splice(at + 1, 0, ""); fill(at + 1); changed(); }
      else if (event.key === "Backspace" && !input.value && values.length > 1) { event.preventDefault(); values.splice(at, 1); fill(Math.max(0, at - 1)); changed(); }
    });
    input.addEventListener("paste", (event) => { // several lines are several values
      const lines = event.clipboardData.getData("text").split(/\r?\n/).filter((one) => one.trim());
      if (lines.length < 2) return;
      event.preventDefault();
      values.splice(at, input.value.trim() ? 0 : 1, ...lines);
      fill(at + lines.length - 1);
      changed();
    });
    return make("div", { class: "list-row" }, input, removal(`Remove ${setting.axis} ${at + 1}`, () => { values.splice(at, 1); if (!values.length) values.push(""); fill(Math.max(0, at - 1)); changed(); }));
  }
  fill();
  return box;
}

function removal(label, act) {
  const node = make("button", { type: "button", class: "remove", "aria-label": label, title: label }, "✕");
  node.addEventListener("click", act);
  return node;
}

function adding(label, act) {
  const node = make("button", { type: "button", class: "add" }, label);
  node.addEventListener("click", act);
  return node;
}

// --- what can be chosen: words of a table, or registered models as one types

function suggestionsOf({ kind, choices, axis }, id) {
  if (!kind && choices.length < 8 && !(axis && choices.length)) return null;
  const list = make("datalist", { id }, ...choices.map((one) => make("option", { value: one })));
  let asked = null;
  async function fill(typed) {
    if (asked === typed) return;
    asked = typed;
    const last = typed.split("+").at(-1).split(":")[0];
    const found = await read("grids/models", { kind, typed: last }).catch(() => []);
    if (asked === typed) list.replaceChildren(...found.map((one) => make("option", { value: one.name }, [one.family, ...one.triggers].filter(Boolean).join(" · "))));
  }
  return {
    list,
    of(input) {
      input.setAttribute("list", id);
      if (!kind) return;
      input.addEventListener("focus", () => fill(input.value));
      input.addEventListener("input", () => fill(input.value));
    },
  };
}
