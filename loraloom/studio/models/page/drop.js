// A file that is dropped on the page: an image's metadata name its models; a model file is looked for by its hashes, none of it is sent.

import { ask, commandOf, upload } from "../api.js";
import { dialog, facts, say, showCommand, spellBytes } from "../parts.js";
import { addWords, findWords, pickleWords } from "./words.js";

export const WHOLE = 512 * 2 ** 20; // bytes up to which a file is hashed whole, in the page's memory
const LARGEST_IMAGE = 64 * 2 ** 20, LARGEST_HEADER = 100_000_000;
const MODELS = /\.(safetensors|sft|ckpt|pt|pth|bin|pkl|gguf)$/i;
const PICKLES = /\.(ckpt|pt|pth|bin|pkl)$/i;
const IMAGES = /\.(png|jpe?g|webp|gif|avif)$/i;

// Takes files that are dropped anywhere on the section; gives what ends that.
export function dropZone(main) {
  const has = (event) => event.dataTransfer?.types.includes("Files");
  const over = (event) => { if (has(event)) { event.preventDefault(); main.dataset.dropping = "true"; } };
  const leave = (event) => { if (!event.relatedTarget) delete main.dataset.dropping; };
  const drop = (event) => { if (!has(event)) return; event.preventDefault(); delete main.dataset.dropping; dropped([...event.dataTransfer.files]); };
  addEventListener("dragover", over);
  addEventListener("dragleave", leave);
  addEventListener("drop", drop);
  return () => { removeEventListener("dragover", over); removeEventListener("dragleave", leave); removeEventListener("drop", drop); };
}

function dropped(files) {
  if (files.length > 1) say(`${files.length} files were dropped; one is looked for at a time: ${files[0].name}.`);
  if (files.length) findFile(files[0]);
}

export async function findFile(file) {
  const inside = make("div", { class: "section", role: "status" }, make("p", { class: "soft" }, "Looking…"));
  const box = dialog(file.name, inside);
  showCommand(null); // that of a file before it
  inside.addEventListener("click", (event) => { if (event.target.closest("a")) box.close(); });
  try {
    inside.replaceChildren(...await (IMAGES.test(file.name) ? ofImage(file) : ofModel(file, (text) => inside.replaceChildren(make("p", { class: "soft" }, text)))));
  } catch (error) {
    inside.replaceChildren(make("p", { class: "field-fault" }, error.message ?? String(error)));
  }
}

const link = (one) => make("a", { href: `#/models/one/${one.id}` }, one.name);

async function ofImage(file) {
  if (file.size > LARGEST_IMAGE) throw new Error(`${file.name} has ${spellBytes(file.size)}; an image of at most ${spellBytes(LARGEST_IMAGE)} is read here. ${commandOf(findWords(file.name))} reads any.`);
  const found = await upload("models/image-models", file, { name: file.name });
  showCommand(findWords(file.name));
  if (!found.models.length) return [make("p", {}, `Made by ${found.tool}, which names no model in it.`)];
  const list = make("ul", { class: "plain found" });
  for (const one of found.models) {
    const here = one.id ? [link({ id: one.id, name: one.registered }), make("span", { class: "soft" }, ` by ${one.by}`)] : ["not registered"];
    list.append(make("li", {}, make("strong", {}, `${one.what} ${one.name ?? ""}`.trim()), make("span", {}, ": ", ...here),
      ...(one.hash ? [make("div", { class: "soft paths" }, "hash in the image ", make("code", {}, one.hash.slice(0, 12)))] : []), ...(one.fault ? [make("div", { class: "soft" }, one.fault.split(" Or give ")[0])] : [])));
  }
  return [make("p", { class: "soft" }, `Made by ${found.tool}.`), list];
}

const hex = (bytes) => [...new Uint8Array(bytes)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
const sha256 = async (blob) => hex(await crypto.subtle.digest("SHA-256", await blob.arrayBuffer()));

// The header of a safetensors file: {start of the data, metadata, names of tensors}; null where it is none.
export async function headerOf(file) {
  if (file.size < 8) return null;
  const length = Number(new DataView(await file.slice(0, 8).arrayBuffer()).getBigUint64(0, true));
  if (length > LARGEST_HEADER || 8 + length > file.size) return null;
  try {
    const { __metadata__: metadata = {}, ...tensors } = JSON.parse(await file.slice(8, 8 + length).text());
    return { start: 8 + length, metadata, tensors: Object.keys(tensors).length };
  } catch { return null; }
}

// The hashes that are cheap: AutoV1 of 64 KiB at 1 MiB, AutoV3 from the metadata, and up to WHOLE the file's and its data section's.
export async function hashesOf(file, header) {
  const hashes = {};
  if (file.size > 0x100000) hashes.autov1 = (await sha256(file.slice(0x100000, 0x110000))).slice(0, 8);
  for (const key of ["sshs_model_hash", "modelspec.hash_sha256"]) {
    const value = String(header?.metadata?.[key] ?? "").trim().toLowerCase().replace(/^0x/, "");
    if (!hashes.autov3 && /^[0-9a-f]{12,64}$/.test(value)) hashes.autov3 = value.slice(0, 12);
  }
  if (file.size <= WHOLE) {
    hashes.sha256 = await sha256(file);
    if (header) hashes.kohya = await sha256(file.slice(header.start));
  }
  return hashes;
}

async function ofModel(file, tell) {
  const header = await headerOf(file);
  tell(`Reading ${spellBytes(Math.min(file.size, WHOLE))}…`);
  const hashes = await hashesOf(file, header);
  const { found, likely } = await ask("models/file", { name: file.name, bytes: file.size, hashes });
  const digits = hashes.sha256 ?? hashes.autov3 ?? hashes.autov1;
  const rows = [["Size", spellBytes(file.size)], ["Tensors", header ? String(header.tensors) : "no safetensors file"], ...Object.entries(hashes).map(([name, value]) => [name, make("code", {}, value)])];
  const about = make("details", {}, make("summary", {}, "What was read"), make("div", { class: "paths" }, facts(rows)),
    ...(hashes.sha256 ? [] : [make("p", { class: "soft" }, `More than ${spellBytes(WHOLE)}: only its header and 64 KiB of it were read.`)]));
  if (found.length) {
    showCommand(digits ? ["registry", "find", digits] : null);
    return [...found.map((one) => make("p", {}, one.by === "autov1" ? "Probably registered" : one.file === file.name ? "Registered" : "Registered under another name", ": ", link(one), make("span", { class: "soft" }, ` ${one.kind}${one.family ? ` of ${one.family}` : ""}, found by ${one.by}`), make("br"), make("code", {}, one.path ?? ""))), about];
  }
  if (!header && (/\.(safetensors|sft)$/i.test(file.name) || !MODELS.test(file.name))) {
    const what = MODELS.test(file.name) ? "This is no whole safetensors file: its header cannot be read. Copy or download it again." : "This is neither an image nor a model file.";
    return [make("p", { class: "field-fault" }, what), about];
  }
  if (PICKLES.test(file.name)) {
    showCommand(pickleWords(file.name));
    return [make("p", {}, "Not registered here. It is a pickle, which can run code when it is loaded: it is registered as a safetensors file. In its folder:"), make("pre", {}, commandOf(pickleWords(file.name))), about];
  }
  showCommand(addWords(file.name));
  if (likely.length) return [make("p", {}, "Not found by its hashes; of the same name and size, and not hashed here yet:"), ...likely.map((one) => make("p", {}, link(one), make("br"), make("code", {}, one.path ?? ""))), make("p", { class: "soft" }, "Verify hashes it; drop the file again then."), about];
  return [make("p", {}, "Not registered here. Register it where it lies (a browser does not tell where that is):"), make("pre", {}, `loraloom registry add FOLDER/${file.name}`), about];
}
