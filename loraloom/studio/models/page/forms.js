// The dialogs that convert and export a model: the plan first, as --dry-run gives it.

import { ask, write } from "../api.js";
import { allow, button, dialog, fail, say, withCommand } from "../parts.js";
import { startJob } from "./jobs.js";
import { convertWords, exportWords } from "./words.js";

// A dialog whose plan follows its fields. `words` is null while something is missing; `shown` gives nodes of a plan.
function planned(title, fields, words, shown, act) {
  const plan = make("div", { class: "plan", role: "status" });
  let turn = 0, request = null, good = null; // good: the plan of the fields as they are
  const look = async () => {
    const own = ++turn, now = words();
    good = null;
    go.disabled = true;
    request?.abort();
    request = new AbortController();
    plan.replaceChildren(...(now ? [make("p", { class: "soft" }, "Planning …")] : []));
    if (!now) return;
    try {
      const found = await ask("models/plan", { words: now }, { signal: request.signal });
      if (own !== turn) return;
      good = found;
      plan.replaceChildren(...shown(found));
      allow(go, !document.body.dataset.sealed);
    } catch (error) {
      if (error.name === "AbortError" || own !== turn) return;
      plan.replaceChildren(make("p", { class: "field-fault" }, error.message));
    }
  };
  const go = button(title, { act: async () => { await act(words(), good); box.close(); }, words, kind: "primary", ready: () => good !== null });
  go.disabled = true;
  let later = null;
  for (const field of fields) {
    withCommand(field.querySelector("input, select"), words);
    field.addEventListener("input", () => { good = null; turn += 1; go.disabled = true; clearTimeout(later); later = setTimeout(look, 250); });
  }
  const box = dialog(title, ...fields, plan, make("div", { class: "stage-bar" }, make("span", { class: "gap" }), go));
  look().catch(fail);
  return box;
}

const notes = (list) => list.map((note) => make("p", { class: "note" }, note));

export function convertDialog(one, ended) {
  const form = make("select", {}, ...one.forms.map((name) => make("option", { value: name }, name)));
  const output = make("input", { type: "text", autocomplete: "off", spellcheck: false });
  const bare = one.record.name.replace(/[^\w.+-]+/g, "_");
  let suggested = "";
  const suggest = () => {
    const own = output.value !== suggested; // another name was typed
    suggested = `${bare}-${form.value}${form.value === "folder" ? "" : ".safetensors"}`;
    if (!own) output.value = suggested;
  };
  suggest();
  form.addEventListener("change", suggest);
  const { candidates } = one.record; // nothing in the file decides between them
  const family = make("select", {}, make("option", { value: "" }, "not decided"), ...candidates.map((name) => make("option", { value: name }, name)));
  const words = () => (output.value.trim() ? convertWords(one.reference, form.value, output.value.trim(), family.value) : null);
  return planned("Convert", [make("label", { class: "field" }, "Form", form), ...(candidates.length ? [make("label", { class: "field" }, "Family", family)] : []), make("label", { class: "field" }, "File to write, below the working folder or a root", output)], words, (plan) => [
    make("p", {}, `${plan.kind} of ${plan.family ?? "unknown family"}, as ${plan.to}: `, make("code", {}, plan.output)), make("p", { class: "soft" }, `It is compared with the original before it is saved, and registered as ${plan.name}.`), ...notes(plan.notes ?? []),
  ], (given) => startJob(given, ended));
}

export function exportDialog(references, layouts, ended) {
  const layout = make("select", {}, ...layouts.map(({ name, title }) => make("option", { value: name }, title)));
  const folder = make("input", { type: "text", placeholder: "ComfyUI", autocomplete: "off", spellcheck: false });
  const words = () => (folder.value.trim() ? exportWords(references, layout.value, folder.value.trim()) : null);
  return planned("Export", [make("label", { class: "field" }, "For", layout), make("label", { class: "field" }, "The tool's own folder, below the working folder or a root", folder)], words, (plan) =>
    plan.items.slice(0, 100).flatMap((item) => [make("p", {}, `${item.name}, ${item.how}: `, make("code", {}, item.target)), ...notes(item.notes)]),
  async (given, plan) => {
    if (plan.items.some((item) => item.how === "convert")) { await startJob(given, ended); return; }
    const done = await write("models/export", { words: given });
    say(done.items.slice(0, 20).map((item) => `${item.name}: ${item.how}, ${item.target}`).join("\n"));
    ended();
  });
}
