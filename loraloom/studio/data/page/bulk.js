// Edits of many captions, with what they change shown before anything is done.

import { ask } from "../api.js";
import { allow, button, dialog } from "../parts.js";

const KINDS = {
  replace: ["Find and replace", ["old", "new"]],
  add: ["Add a tag", ["tag"]],
  remove: ["Remove a tag", ["tag"]],
  rename: ["Rename a tag", ["old", "new"]],
  dedupe: ["Each tag once", []],
  sort: ["Sort tags", []],
};
const LABELS = { old: { replace: "Find", rename: "Tag" }, new: { replace: "Replace with", rename: "New name" }, tag: { add: "Tag", remove: "Tag" } };

export function openBulk(view) {
  const kind = make("select", { "aria-label": "Operation" });
  for (const [name, [label]] of Object.entries(KINDS)) kind.append(make("option", { value: name }, label));
  const inputs = {};
  for (const name of ["old", "new", "tag"]) inputs[name] = make("input", { type: "text", spellcheck: false, autocomplete: "off" });
  const regex = make("input", { type: "checkbox" }), end = make("input", { type: "checkbox" }), lines = make("input", { type: "checkbox" });
  const fields = make("div", { class: "bulk-fields" });
  const scope = make("select", { "aria-label": "Which captions" });
  const narrowed = view.page.shown !== view.page.total;
  const scopes = [["all", `all ${view.page.total} images`], ...(narrowed ? [["filtered", `the ${view.page.shown} that are shown`]] : []), ...(view.chosen.size ? [["selected", `the ${view.chosen.size} selected`]] : [])];
  for (const [value, label] of scopes) scope.append(make("option", { value }, label));
  scope.value = scopes.at(-1)[0];
  const found = make("div", { class: "bulk-found", role: "status" });
  const list = make("div", { class: "bulk-list" });
  let words = null, number = 0, due, planned = false; // whether what is shown is of the fields as they are

  const values = () => ({
    set: view.path, kind: "operation", operation: kind.value, old: inputs.old.value, new: inputs.new.value, tag: inputs.tag.value, regex: regex.checked, end: end.checked, lines: lines.checked,
    scope: scope.value, ...(scope.value === "filtered" ? view.filter : {}), images: scope.value === "selected" ? [...view.chosen] : [],
  });
  const wanted = () => (kind.value === "replace" || kind.value === "rename" ? inputs.old.value && (kind.value === "replace" || inputs.new.value) : kind.value === "add" || kind.value === "remove" ? inputs.tag.value.trim() : true);

  const go = button("Change", { act: async () => { const made = await view.make(values()); words = made.words; box.close(); }, words: () => words, kind: "primary", ready: () => planned });
  const preview = async () => {
    const own = ++number;
    planned = false;
    go.disabled = true;
    if (!wanted()) { words = null; found.textContent = ""; list.replaceChildren(); go.textContent = "Change"; return; }
    try {
      const plan = await ask("data/plan", values());
      if (own !== number) return;
      words = plan.words;
      found.className = "bulk-found soft";
      found.textContent = `${plan.changed} of ${plan.images} images change${plan.changed > plan.changes.length ? `; the first ${plan.changes.length} are shown` : ""}.${plan.without_caption ? ` ${plan.without_caption} without a caption: not changed.` : ""}`;
      list.replaceChildren(...plan.changes.map(change));
      go.textContent = plan.changed === 1 ? "Change 1 caption" : `Change ${plan.changed} captions`;
      planned = plan.changed > 0;
      allow(go, planned);
    } catch (error) {
      if (own !== number) return;
      words = null;
      list.replaceChildren();
      found.className = "bulk-found field-fault";
      found.textContent = error.message;
    }
  };
  const soon = () => { clearTimeout(due); due = setTimeout(preview, 200); number += 1; planned = false; go.disabled = true; };
  const lay = () => {
    const own = KINDS[kind.value][1].map((name) => make("label", { class: "field" }, LABELS[name][kind.value], inputs[name]));
    if (kind.value === "replace") own.push(make("label", { class: "check" }, regex, "Regular expression (Python; \\1 is the first group)"));
    if (kind.value === "add") own.push(make("label", { class: "check" }, end, "At the end"));
    if (kind.value !== "replace") own.push(make("label", { class: "check" }, lines, "Each line is a caption (data.captions=lines)"));
    fields.replaceChildren(...own);
    preview();
  };
  kind.addEventListener("change", lay);
  scope.addEventListener("change", preview);
  for (const one of [...Object.values(inputs), regex, end, lines]) one.addEventListener("input", soon);
  const box = dialog("Edit captions", make("div", { class: "pair" }, kind, scope), fields, found, list,
    make("div", { class: "actions" }, make("span", { class: "gap" }), button("Cancel", { act: () => box.close(), writes: false }), go));
  box.dialog.classList.add("wide");
  lay();
  inputs.old.focus();
}

// A caption before and after: what differs in the middle is marked.
export function change({ image, before, after, what }) {
  const node = make("div", { class: "change" }, make("strong", {}, image));
  if (what !== "caption") { node.append(make("p", { class: "soft" }, what)); return node; }
  const old = before ?? "", now = after ?? "";
  let begin = 0, end = 0;
  while (begin < Math.min(old.length, now.length) && old[begin] === now[begin]) begin += 1;
  while (end < Math.min(old.length, now.length) - begin && old.at(-1 - end) === now.at(-1 - end)) end += 1;
  const marked = (text, tag) => make("p", {}, text.slice(0, begin), ...(text.length - end > begin ? [make(tag, {}, text.slice(begin, text.length - end))] : []), text.slice(text.length - end));
  node.append(marked(old, "del"), marked(now, "ins"));
  return node;
}
