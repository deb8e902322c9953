// Commands that read or write for long run as jobs of the queue: started here.

import { write } from "../api.js";
import { followJob } from "../jobs.js";
import { button, dialog, withCommand } from "../parts.js";
import { addWords, scanWords } from "./words.js";

// Starts the command as a job; `ended` is called when it is done.
export async function startJob(words, ended = () => {}) {
  const job = await write("models/queue", { words });
  followJob(job, { ended });
  return job;
}

// The dialog that scans a folder, adds a file or folder, or downloads from the Hub.
export function addDialog(ended) {
  const field = (label, given) => {
    const input = make("input", { type: "text", autocomplete: "off", spellcheck: false, ...given });
    return [input, make("label", { class: "field" }, label, input)];
  };
  const [folder, folderField] = field("Folder to look through", { placeholder: "models, or /data/loras", name: "folder" });
  const hash = make("input", { type: "checkbox", name: "hash" });
  const [source, sourceField] = field("File, folder or hf:owner/repo[@revision][/file]", { placeholder: "lora.safetensors, hf:owner/repo", name: "source" });
  const [name, nameField] = field("Name (default: the file's)", { name: "name" });
  const scan = () => scanWords(folder.value.trim(), hash.checked);
  const add = () => addWords(source.value.trim(), name.value.trim());
  const start = (input, words) => async () => {
    if (!input.value.trim()) { input.focus(); return; }
    await startJob(words(), ended);
    box.close();
  };
  const scanButton = button("Scan", { act: start(folder, scan), words: () => (folder.value.trim() ? scan() : null), kind: "primary" });
  const addButton = button("Add", { act: start(source, add), words: () => (source.value.trim() ? add() : null), kind: "primary" });
  for (const input of [folder, hash]) withCommand(input, () => (folder.value.trim() ? scan() : null));
  for (const input of [source, name]) withCommand(input, () => (source.value.trim() ? add() : null));
  const box = dialog(
    "Add models",
    make("p", { class: "soft" }, "Nothing is moved or changed. Relative paths are below the working folder; other folders must be below a --root of this Studio."),
    make("h3", {}, "Look through a folder"), folderField,
    make("div", { class: "stage-bar" }, make("label", { class: "check" }, hash, "Hash what is found as well (reads every byte)"), make("span", { class: "gap" }), scanButton),
    make("h3", {}, "One model"), sourceField, nameField,
    make("div", { class: "stage-bar" }, make("span", { class: "gap" }), addButton),
  );
  folder.focus();
  return box;
}

