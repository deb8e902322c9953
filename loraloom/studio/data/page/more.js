// The edits that were made, jobs that caption and mask, and files that are dropped.

import { ask, read, upload, write } from "../api.js";
import { followJob } from "../jobs.js";
import { allow, button, dialog, say, showCommand } from "../parts.js";

export async function openHistory(view) {
  const { edits, all } = await read("data/history", { set: view.path });
  const list = make("ol", { class: "edits" });
  for (const one of edits) list.append(make("li", { class: one.state === "undone" ? "soft" : "" }, make("span", { class: "number" }, String(one.number)), make("div", {}, make("code", {}, one.command), make("p", { class: "soft" }, `${one.when} UTC, ${one.images} ${one.images === 1 ? "image" : "images"}${one.state === "done" ? "" : `, ${one.state}`}`))));
  const newest = edits.find((one) => one.state !== "undone");
  const undo = button("Undo the newest", { act: async () => { box.close(); await view.undo({ number: newest?.number ?? 0 }); }, words: [...view.edit, "--undo"] });
  if (!view.page.undo || !view.page.writable) undo.disabled = true;
  const box = dialog("Edits of this set", edits.length ? list : make("p", { class: "soft" }, "None was made yet."), ...(all > edits.length ? [make("p", { class: "soft" }, `and ${all - edits.length} older ones`)] : []),
    make("div", { class: "actions" }, make("span", { class: "gap" }), undo));
  box.dialog.classList.add("wide");
}

const FIELDS = {
  caption: [["model", "Model: a folder on this machine", "/models/wd-swinv2-tagger-v3"], ["trigger", "Trigger word", ""], ["prefix", "Put before each caption", ""], ["suffix", "Put after each caption", ""], ["prompt", "Prompt of a chat model, or a task such as <CAPTION>", ""]],
  mask: [["model", "Model: a folder of transformers, or a file .onnx or .tflite", "/models/segformer_b2_clothes"], ["labels", "Classes that are kept, with commas (none: all but the background)", ""], ["threshold", "White from this probability on (none: grey)", "0.5"], ["expand", "Grow by so many pixels", ""]],
};
const ABOUT = {
  caption: "Images that have no caption get one, beside them as NAME.txt. Existing captions stay as they are.",
  mask: "Images that have no mask get one, beside them as NAME-masklabel.png. Existing files stay as they are.",
};

export function openJob(view, kind) {
  const inputs = {};
  let words = null, due, number = 0;
  const fault = make("p", { class: "field-fault", role: "status" });
  const values = () => ({ set: view.path, kind, ...Object.fromEntries(Object.entries(inputs).map(([name, node]) => [name, node.value])) });
  const start = button("Start", { act: async () => { const made = await write("data/job", values()); ({ words } = made); followJob(made); box.close(); }, words: () => words, kind: "primary", ready: () => words !== null });
  const check = async () => {
    const own = ++number;
    if (!inputs.model.value.trim()) { fault.textContent = ""; return; }
    try {
      const found = await ask("data/job_words", values());
      if (own !== number || !box.dialog.isConnected) return; // typed on meanwhile, or closed
      ({ words } = found);
      fault.textContent = "";
      allow(start, !document.body.dataset.sealed);
      showCommand(words);
    } catch (error) { if (own === number) fault.textContent = error.message; }
  };
  const soon = () => { words = null; start.disabled = true; number += 1; clearTimeout(due); due = setTimeout(check, 200); };
  const fields = FIELDS[kind].map(([name, label, hint]) => {
    inputs[name] = make("input", { type: "text", placeholder: hint, spellcheck: false });
    inputs[name].addEventListener("input", soon);
    return make("label", { class: "field" }, label, inputs[name]);
  });
  const box = dialog(kind === "caption" ? "Caption by a model" : "Masks by a model", make("p", { class: "soft" }, ABOUT[kind]), ...fields, fault, make("div", { class: "actions" }, make("span", { class: "gap" }), button("Cancel", { act: () => box.close(), writes: false }), start));
  start.disabled = true;
}

// Uploads files and adds them to the set, in one edit.
export async function addFiles(view, files) {
  const kept = [], before = view.count.textContent;
  let made;
  try {
    for (const [number, file] of files.entries()) {
      view.count.textContent = `${number + 1} of ${files.length}: ${file.name}`;
      kept.push((await upload("data/upload", file, { name: file.name })).file);
    }
    made = await view.make({ kind: "add", files: kept });
  } catch (error) {
    view.count.textContent = before;
    throw error;
  }
  say(`${made.changed} ${made.changed === 1 ? "file is" : "files are"} in the set.`);
}
