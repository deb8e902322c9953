// The command lines that do what the buttons of this section do, as lists of words.

const option = (name, value) => (value.startsWith("-") ? [`${name}=${value}`] : [name, value]);
const behind = (...texts) => (texts.some((text) => text.startsWith("-")) ? ["--", ...texts] : texts);

export function tagWords(references, add, remove) {
  const [first, ...more] = references;
  const options = [...remove.flatMap((tag) => option("--remove", tag)), ...(more.length ? ["--also", ...more] : [])];
  const given = [first, ...add];
  return ["registry", "tag", ...(given.some((word) => word.startsWith("-")) ? [...options, "--", ...given] : [...given, ...options])];
}

export const noteWords = (reference, text) => (text ? ["registry", "note", ...behind(reference, text)] : setWords(reference, { forget: ["notes"] }));

export const aliasWords = (reference, alias, remove = false) => ["registry", "alias", ...(remove ? ["--remove"] : []), ...behind(reference, alias)];

export function setWords(reference, { kind, family, variant, licence, image, triggers = [], forget = [] }) {
  const one = (name, value) => (value ? option(`--${name}`, value) : []);
  return [
    "registry", "set", reference, ...one("kind", kind), ...one("family", family), ...one("variant", variant), ...one("licence", licence), ...one("image", image),
    ...forget.flatMap((name) => ["--forget", name]), ...triggers.flatMap((word) => option("--trigger", word)),
  ];
}

export const verifyWords = (reference) => ["registry", "verify", reference];
export const removeWords = (reference) => ["registry", "rm", reference];
export const lineageWords = (reference) => ["registry", "lineage", reference];
export const fitsWords = (adapter, base) => ["registry", "fits", ...behind(adapter, base)];
export const findWords = (file) => ["registry", "find", ...behind(file)];
export const convertWords = (reference, form, output, family = "") => ["registry", "convert", reference, "--to", form, ...(family ? ["--family", family] : []), ...option("--output", output)];
export const exportWords = (references, layout, folder) => ["registry", "export", ...references, "--layout", layout, folder];
export const pickleWords = (file) => ["registry", "convert", ...option("--output", file.replace(/\.\w+$/, ".safetensors")), "--to", "safetensors", ...behind(file)];
export const scanWords = (folder, hash) => ["registry", "scan", ...(hash ? ["--hash"] : []), ...behind(folder)];
export const addWords = (source, name = "") => ["registry", "add", ...(name ? option("--name", name) : []), ...behind(source)];

// The listing of a selection, as `registry list` takes it.
export function listWords({ text, kind, family, rank, tags, licence, warning, missing, sort }, offset, limit) {
  const one = (name, value) => (value ? option(`--${name}`, value) : []);
  return [
    "registry", "list", ...one("kind", kind), ...one("family", family), ...one("rank", rank), ...(tags ?? []).flatMap((tag) => option("--tag", tag)),
    ...one("licence", licence), ...one("warning", warning), ...(missing ? ["--missing"] : []), ...(text ?? "").split(/\s+/).filter(Boolean).flatMap((word) => option("--find", word)),
    ...one("sort", sort), ...(offset ? ["--offset", String(offset)] : []), "--limit", String(limit),
  ];
}
