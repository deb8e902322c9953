// One model's page: its images, facts, annotations, lineage, what fits it, and what can be made of it.

import { address, read, watch, write } from "../api.js";
import { allow, button, confirmed, drawAnew, fail, facts, heading, say, showImage, showOwn, spellBytes, withCommand } from "../parts.js";
import { dropZone } from "./drop.js";
import { convertDialog, exportDialog } from "./forms.js";
import { startJob } from "./jobs.js";
import { lineageCard } from "./lineage.js";
import { fitsCard } from "./fits.js";
import { aliasWords, noteWords, removeWords, setWords, tagWords, verifyWords } from "./words.js";

const SLOW = 2 ** 30; // bytes from which reading the whole file is a job

const runAddress = (folder) => `#/runs/run/${encodeURIComponent(folder)}`;

export function showModel(main, id) {
  const undrop = dropZone(main);
  let gone = false, one = null, newest = null, looked = null; // looked: the path of the image that was chosen to be seen
  let noted = false, overtaken = false; // whether notes were saved here just now; the notes changed elsewhere while others are typed here
  const head = make("div", {}), warnings = make("div", { class: "warnings" }), images = make("section", { class: "card" }), own = make("section", { class: "card" });
  const about = make("section", { class: "card" }), files = make("section", { class: "card" }), rest = make("div", { class: "section" });
  main.append(head, warnings, make("div", { class: "model-columns" }, make("div", { class: "section" }, images, own), make("div", { class: "section" }, about, files)), rest);

  // A load that a newer one took the place of ends with that one.
  function load() {
    const own = read("models/one", { id }).then((found) => (gone ? undefined : own === newest ? show(found) : newest));
    newest = own;
    return own;
  }

  function show(found) {
    const first = one === null;
    one = found;
    if (first) showOwn(["registry", "show", one.reference]);
    document.title = `${one.record.name} · Models · LoRA Loom Studio`;
    drawHead(); drawWarnings(); drawImages(); drawOwn(); drawAbout(); drawFiles();
    if (one.images_wait) setTimeout(() => { if (!gone) load().catch(fail); }, 1500);
  }

  const reload = () => (gone ? undefined : load().catch(fail));
  const changed = async (route, values, text) => { await write(route, { id, ...values }); say(text); await load(); };

  function drawHead() {
    const { record, reference } = one;
    const actions = [];
    const query = (name) => new URLSearchParams([[name, reference]]).toString();
    const base = record.parents.find((parent) => parent.role === "base")?.ref;
    if (record.kind === "adapter") actions.push(make("a", { class: "as-button primary", href: `#/grids/new?${query("adapter")}${base ? `&${new URLSearchParams([["base", base]])}` : ""}` }, "Draw with it"));
    if (record.kind === "checkpoint") actions.push(make("a", { class: "as-button primary", href: `#/grids/new?${query("base")}` }, "Draw with it"), make("a", { class: "as-button", href: `#/new_run?${query("base")}` }, "Train on it"));
    if (record.kind === "run") actions.push(make("a", { class: "as-button primary", href: runAddress(one.path) }, "Open the run"));
    if (record.kind === "dataset") actions.push(make("a", { class: "as-button primary", href: `#/data/${encodeURIComponent(one.path)}` }, "Open the set"));
    if (!["dataset", "run"].includes(record.kind)) {
      actions.push(button("Verify", { act: verify, words: verifyWords(reference), title: "Reads every byte again and compares it with the registered hash" }));
      if (one.forms.length) actions.push(button("Convert…", { act: () => convertDialog(one, reload), writes: false }));
      actions.push(button("Export…", { act: () => exportDialog([one.reference], one.layouts, reload), writes: false }));
    }
    if (!one.embedded) actions.push(button("Remove", { act: remove, words: removeWords(reference), kind: "danger", title: "Out of the index; its files stay" }));
    head.replaceChildren(make("p", { class: "soft crumbs" }, make("a", { href: "#/models" }, "Models"), " / ", [record.kind, record.family].filter(Boolean).join(" · ")), heading(record.name, ...actions));
  }

  async function verify() {
    if (one.bytes > SLOW) { await startJob(verifyWords(one.reference), reload); return; }
    const check = await write("models/verify", { id });
    say(`${check.name}: ${check.status}. ${check.message}`, { fault: !["ok", "new", "skipped"].includes(check.status) });
    await load();
  }

  async function remove(lead) {
    if (!await confirmed(`Remove ${one.record.name} from the index, with its tags, notes and aliases? Its files stay where they are.`, "Remove")) return;
    gone = true; // the index changes: this page is not read again
    const done = await write("models/remove", { id }).catch((error) => { gone = false; throw error; });
    if (done.derived.length) say(`Made from ${done.name}, a parent that is not registered now: ${done.derived.join(", ")}.`);
    lead("#/models");
  }

  function drawWarnings() {
    warnings.replaceChildren(...one.record.warnings.map((each) => make("div", { class: "note" }, make("strong", {}, each.code), ` ${each.message}`, ...(one.meanings[each.code] ? [make("div", { class: "soft" }, one.meanings[each.code])] : []))));
  }

  // --- images

  const source = (image, side) => address("models/image", { id, path: image.path, side, v: image.v });

  function drawImages() {
    const { record, images: all, reference } = one;
    if (!all.length) { images.replaceChildren(make("h2", {}, "Images"), make("p", { class: "soft" }, "None yet: draw a grid with it, or put NAME.preview.png beside its file.")); return; }
    let shown = all.find(({ path }) => path === looked) ?? all[0];
    const big = make("img", { class: "shown", alt: "" }), caption = make("p", { class: "soft shown-caption" });
    const use = button("Show it on the card", { ready: () => one.record.image !== shown.path, act: () => changed("models/set", { image: shown.path }, "This image is on its card now."), words: () => setWords(reference, { image: shown.path }) });
    const forget = button("Forget the chosen one", { act: () => changed("models/set", { forget: ["image"] }, "Its card shows the first image that there is."), words: setWords(reference, { forget: ["image"] }) });
    const small = make("ul", { class: "gallery" });
    const pick = (image) => {
      shown = image;
      showImage(big, source(image, 768));
      big.alt = `${record.name}: ${image.label}`;
      const of = image.source === "grid" ? [`#/grids/grid?${new URLSearchParams([["folder", image.folder]])}`, "its grid"] : image.source === "run" ? [runAddress(image.folder), "its run"] : null;
      caption.replaceChildren(image.label, ...(of ? [" · ", make("a", { href: of[0] }, of[1])] : []));
      allow(use, record.image !== image.path && !document.body.dataset.sealed);
      for (const node of small.querySelectorAll("button")) node.setAttribute("aria-pressed", String(node.dataset.path === image.path));
    };
    for (const image of all) {
      const node = make("button", { type: "button", title: image.label, "aria-label": image.label }, make("img", { src: source(image, 96), alt: "", loading: "lazy", decoding: "async" }));
      node.dataset.path = image.path;
      node.addEventListener("click", () => { looked = image.path; pick(image); });
      small.append(make("li", {}, node));
    }
    pick(shown);
    images.replaceChildren(make("div", { class: "stage-bar" }, make("h2", {}, `Images (${all.length})`), use, ...(record.image ? [forget] : [])), big, caption, ...(all.length > 1 ? [small] : []));
  }

  // --- what a person says of it

  function chipsOf(values, { drop, words, fixed = [] }) {
    const chips = values.map((value) => make("span", { class: "chip" }, value, " ", button("✕", { act: () => drop(value), words: words(value), title: `Remove ${value}`, kind: "drop" })));
    return make("div", { class: "chips" }, ...chips, ...fixed.map((value) => make("span", { class: "chip soft", title: "from its file" }, value)));
  }

  function adder(label, placeholder, act, words) {
    const input = make("input", { type: "text", placeholder, "aria-label": label, autocomplete: "off" });
    if (label === "Add tags") input.setAttribute("list", "known-tags");
    const value = () => input.value.trim();
    const add = button("Add", {
      act: async () => {
        const text = value();
        input.focus();
        if (!text) return;
        input.value = ""; // what is drawn anew keeps what is typed and not saved
        try {
          await act(text);
        } catch (error) {
          const now = [...own.querySelectorAll("input")].find((node) => node.getAttribute("aria-label") === label); // it may be drawn anew
          if (now && !now.value) now.value = text;
          throw error;
        }
      },
      words: () => (value() ? words(value()) : null),
    });
    withCommand(input, () => (value() ? words(value()) : null));
    input.addEventListener("keydown", (event) => { if (event.key === "Enter") add.click(); });
    if (document.body.dataset.sealed) input.disabled = true;
    return make("div", { class: "adder" }, input, add);
  }

  function drawOwn() {
    const { record, reference, own_triggers: given } = one;
    const commas = (text) => [...new Set(text.split(",").map((word) => word.trim()).filter(Boolean))];
    const setTriggers = (triggers) => ({ forget: ["triggers"], triggers });
    const label = (node) => node.getAttribute("aria-label");
    const typed = new Map([...own.querySelectorAll("input, textarea")].filter((node) => node.value !== node.defaultValue).map((node) => [label(node), node.value]));
    const at = own.contains(document.activeElement) ? document.activeElement : null;
    const before = own.querySelector("textarea"), now = record.notes ?? "";
    const unsaved = before !== null && before.value !== before.defaultValue && before.value !== now;
    overtaken = unsaved && !noted && (overtaken || before.defaultValue !== now);
    noted = false;
    const note = make("textarea", { rows: 4, "aria-label": "Notes", defaultValue: record.notes ?? "", disabled: Boolean(document.body.dataset.sealed) });
    const save = button("Save notes", { act: async () => {
      const text = note.value.trim() ? note.value : "";
      await (text ? write("models/note", { id, text }) : write("models/set", { id, forget: ["notes"] }));
      say(text ? "Notes saved." : "Notes removed.");
      noted = true; // what is typed since is upon these
      await load();
    }, words: () => noteWords(reference, note.value.trim() ? note.value : "") });
    withCommand(note, () => noteWords(reference, note.value.trim() ? note.value : ""));
    own.replaceChildren(
      make("datalist", { id: "known-tags" }, ...one.known_tags.map((tag) => make("option", { value: tag }))),
      make("h2", {}, "Tags"),
      chipsOf(record.tags, { drop: (tag) => tagged([], [tag]), words: (tag) => tagWords([reference], [], [tag]) }),
      adder("Add tags", "tags, with commas between", (text) => tagged(commas(text), []), (text) => tagWords([reference], commas(text), [])),
      make("h2", {}, "Trigger words"),
      chipsOf(given, {
        drop: (word) => changed("models/set", setTriggers(given.filter((each) => each !== word)), "Trigger words changed."),
        words: (word) => setWords(reference, setTriggers(given.filter((each) => each !== word))), fixed: record.triggers.filter((word) => !given.includes(word)),
      }),
      adder("Add trigger words", "words, with commas between", (text) => changed("models/set", { triggers: commas(text) }, "Trigger words changed."), (text) => setWords(reference, { triggers: commas(text) })),
      make("h2", {}, "Aliases"),
      chipsOf(record.aliases, { drop: (alias) => changed("models/alias", { alias, remove: true }, "Alias removed."), words: (alias) => aliasWords(reference, alias, true) }),
      adder("Add an alias", `best: then it is ${record.name}@best`, (text) => changed("models/alias", { alias: text }, "Alias added."), (text) => aliasWords(reference, text)),
      make("h2", {}, "Notes"), note, ...(overtaken ? [make("p", { class: "note" }, now ? "The notes were changed meanwhile, and saving replaces them: " : "The notes were removed meanwhile; saving writes yours.", now)] : []), make("div", { class: "stage-bar" }, make("span", { class: "gap" }), save),
      make("h2", {}, "Licence"),
      make("p", {}, record.licence ?? make("span", { class: "soft" }, "not known")),
      adder("Licence", "cc-by-4.0, openrail, ...", (text) => changed("models/set", { licence: text }, "Licence set."), (text) => setWords(reference, { licence: text })),
    );
    for (const node of own.querySelectorAll("input, textarea")) {
      if (typed.has(label(node))) node.value = typed.get(label(node));
      if (at && label(node) === label(at)) {
        node.focus();
        node.setSelectionRange(at.selectionStart, at.selectionEnd); // in what is typed in the middle of
      }
    }
  }

  async function tagged(add, remove) {
    await write("models/tag", { ids: [id], add, remove });
    await load();
  }

  // --- facts

  function drawAbout() {
    const { record } = one;
    const rows = [
      ["Kind", record.kind], ["Family", record.family ?? (record.candidates.length ? `${record.candidates.join(" or ")}: not decided` : null)], ["Variant", record.variant],
      ["Prediction", record.prediction.value && `${record.prediction.value}${record.prediction.source ? ` (${record.prediction.source})` : ""}`], ["Form", record.dialect],
      ["Algorithms", record.algorithms.join(", ")], ["DoRA", record.dora === null ? null : record.dora ? "yes" : "no"], ["Rank", record.rank], ["Alpha", record.alpha], ["Type", record.dtype],
      ["Components", record.components.join(", ")], ["Size", one.bytes ? `${spellBytes(one.bytes)} (${one.bytes.toLocaleString("en")} bytes)` : null], ["Registered", record.created?.replace("T", " ").replace("Z", " UTC")], ["Id", record.id],
    ].map(([name, value]) => [name, value === null || value === undefined ? value : String(value)]);
    const evidence = record.evidence.length ? [make("details", {}, make("summary", {}, `Evidence (${record.evidence.length})`), make("ul", { class: "plain" }, ...record.evidence.map((line) => make("li", {}, line))))] : [];
    drawAnew(about, make("h2", {}, "Facts"), facts(rows), ...evidence, correction(record));
  }

  function correction(record) {
    const family = make("input", { type: "text", defaultValue: record.family ?? "", placeholder: "sd1, sdxl, flux1, ...", autocomplete: "off" });
    const words = () => (family.value.trim() && family.value.trim() !== record.family ? setWords(one.reference, { family: family.value.trim() }) : null);
    const set = button("Set", { act: async () => { if (words()) await changed("models/set", { family: family.value.trim() }, "Family set."); }, words });
    const back = button("As detected", { act: () => changed("models/set", { forget: ["family"] }, "Family as detected."), words: setWords(one.reference, { forget: ["family"] }) });
    withCommand(family, words);
    return make("details", {}, make("summary", {}, "Detection is wrong"), make("label", { class: "field" }, "Family", make("span", { class: "adder" }, family, set, back)));
  }

  function drawFiles() {
    const { record } = one;
    const copies = record.metadata.copies ?? [];
    const list = record.files.slice(0, 30).map((file) => make("li", {}, make("code", {}, file.path), make("span", { class: "soft" }, ` ${spellBytes(file.bytes)}`)));
    if (record.files.length > 30) list.push(make("li", { class: "soft" }, `and ${record.files.length - 30} more`));
    const hashes = Object.entries(record.hashes).filter(([, value]) => value).map(([name, value]) => [name, make("code", {}, value)]);
    const metadata = Object.entries(record.metadata).filter(([name]) => !["copies", "root", "files_sha256"].includes(name));
    drawAnew(files,
      make("h2", {}, one.there ? "Files" : "Files (gone)"), make("ul", { class: "plain paths" }, ...(list.length ? list : [make("li", {}, make("code", {}, one.path ?? ""))]), ...copies.map((path) => make("li", {}, make("code", {}, path), make("span", { class: "soft" }, " a copy")))),
      make("h2", {}, "Hashes"), hashes.length ? make("div", { class: "paths" }, facts(hashes)) : make("p", { class: "soft" }, "None yet: Verify computes them."),
      ...(record.recipe ? [make("details", {}, make("summary", {}, "Recipe"), make("pre", {}, JSON.stringify(record.recipe, null, 1)))] : []),
      ...(metadata.length ? [make("details", {}, make("summary", {}, `Metadata (${metadata.length})`), make("div", { class: "paths" }, facts(metadata.map(([name, value]) => [name, typeof value === "string" ? value : JSON.stringify(value)]))))] : []),
    );
  }

  let seen = null;
  const unwatch = watch("models", (value) => {
    const now = JSON.stringify(value), editing = [...about.querySelectorAll("input")].some((input) => input.value !== input.defaultValue);
    if (seen !== null && seen !== now && !editing) reload();
    seen = now;
  });
  load().then(() => {
    if (gone) return;
    rest.append(lineageCard(id, () => one.reference));
    if (["adapter", "checkpoint"].includes(one.record.kind)) rest.append(fitsCard(id, one.record.kind, () => one.reference));
  }).catch((error) => main.replaceChildren(make("p", { class: "fault", role: "alert" }, error.message), make("a", { href: "#/models" }, "All models")));
  return () => { gone = true; unwatch(); undrop(); };
}
