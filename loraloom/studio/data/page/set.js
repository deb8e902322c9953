// One set: filters beside the images, each image with its caption to be edited in place.

import { ask, read, watch, write } from "../api.js";
import { button, dialog, drawAnew, fail, heading, nothing, say, showCommand, thumbnail, withCommand } from "../parts.js";
import { openBulk } from "./bulk.js";
import { addFiles, openHistory, openJob } from "./more.js";
import { openImage } from "./viewer.js";

const STATES = { all: "all", trained: "trained on", heldout: "held out", captioned: "with caption", uncaptioned: "without caption", masked: "with mask", unmasked: "without mask" };
const SMALL = 300; // images of a set that is looked over without being asked
const PER_PAGE = 60;

const drafts = new Map(); // path of a set -> {text, base} by image: captions that are not written yet, and what they were made of; they wait while another section is shown
addEventListener("beforeunload", (event) => { if ([...drafts.values()].some((one) => one.size)) event.preventDefault(); });

export async function showSet(main, path, query) {
  const view = new SetView(main, path, query);
  try {
    await view.load();
  } catch (error) { // what is said then is all there is: no list, nothing to filter
    main.replaceChildren(heading(view.name, make("a", { class: "as-button", href: "#/data" }, "All sets")));
    throw error;
  }
  return view.watched();
}

class SetView {
  constructor(main, path, query) {
    this.main = main;
    this.path = path;
    this.filter = {};
    for (const name of ["only", "tagged", "state", "finding", "bucket", "resolution", "multiple", "crops", "step", "buckets"]) if (query.get(name)) this.filter[name] = query.get(name);
    this.offset = Number(query.get("offset") ?? 0);
    this.chosen = new Set();
    this.kept = new Map(); // name -> its row, while nothing of it changes
    this.lint = null;
    if (!drafts.has(path)) drafts.set(path, new Map());
    this.unsaved = drafts.get(path);
    this.trigger = make("input", { type: "text", placeholder: "Trigger word", "aria-label": "Trigger word, for the findings about it", spellcheck: false });
    this.build();
  }

  get name() { return this.path.split("/").filter(Boolean).pop() ?? this.path; }
  get edit() { return ["data", "edit", this.path]; }

  build() {
    this.head = make("div", { class: "set-head" });
    this.notes = make("div", { class: "set-notes" });
    this.lost = make("p", { class: "note fault", role: "alert", hidden: true }); // the folder cannot be read any more
    this.side = make("div", { class: "set-side" });
    this.found = make("section", {});
    this.buckets = null;
    this.bucketList = make("div", { class: "entries" });
    this.tagList = make("section", { class: "tags" });
    this.side.append(this.found, this.sizes(), this.tagList);
    this.rows = make("div", { class: "set-rows" });
    this.pager = make("nav", { class: "pager", "aria-label": "Pages" });
    this.bar = this.toolbar();
    const aside = make("details", { class: "set-aside", open: matchMedia("(min-width: 900px)").matches }, make("summary", {}, "Findings, tags, sizes"), this.side);
    this.main.append(this.head, this.lost, this.notes, this.bar, make("div", { class: "set-body" }, aside, make("div", { class: "set-list" }, this.rows, this.pager)));
    this.dropping();
  }

  toolbar() {
    const text = make("input", { type: "search", placeholder: "Captions that contain", "aria-label": "Captions that contain", value: this.filter.only ?? "" });
    text.addEventListener("input", () => { clearTimeout(this.due); this.due = setTimeout(() => this.narrow({ only: text.value }), 200); });
    const state = make("select", { "aria-label": "Which images" });
    for (const [name, label] of Object.entries(STATES)) state.append(make("option", { value: name }, label));
    state.value = this.filter.state ?? "all";
    state.addEventListener("change", () => this.narrow({ state: state.value === "all" ? "" : state.value }));
    this.states = state;
    this.select = make("input", { type: "checkbox", "aria-label": "Select all images that are shown" });
    this.select.addEventListener("change", () => {
      for (const item of this.page.items) if (this.select.checked) this.chosen.add(item.name); else this.chosen.delete(item.name);
      this.drawRows();
    });
    this.count = make("span", { class: "soft" });
    this.active = make("span", { class: "chips" });
    return make("div", { class: "set-bar" }, make("label", { class: "check" }, this.select, "Select"), text, state, this.active, make("span", { class: "gap" }), this.count);
  }

  narrow(values) {
    const before = { ...this.filter };
    for (const [name, value] of Object.entries(values)) if (value) this.filter[name] = value; else delete this.filter[name];
    this.offset = 0;
    this.load().catch((error) => {
      if (error.status === 400) this.filter = before; // what is refused is not asked again with the next edit
      fail(error);
    });
  }

  // A load that a newer one took the place of ends with that one: what waits for it is not left undone.
  load() {
    const own = this.reload().catch((error) => {
      if (error?.name === "AbortError" && this.loading !== own) return this.loading;
      throw error;
    });
    this.loading = own;
    return own;
  }

  async reload() {
    this.request?.abort();
    this.request = new AbortController();
    const state = this.page?.state;
    this.page = await read("data/set", { set: this.path, ...this.filter, offset: this.offset, limit: PER_PAGE }, { signal: this.request.signal });
    if (!this.main.isConnected) return undefined; // another page is shown by now, and the address is that one's
    if (state !== this.page.state) this.buckets = null;
    if (this.offset >= this.page.shown && this.offset > 0) { this.offset = 0; return this.load(); }
    const query = new URLSearchParams({ ...this.filter, ...(this.offset ? { offset: this.offset } : {}) });
    history.replaceState(null, "", `#/data/${encodeURIComponent(this.path)}${query.size ? `?${query}` : ""}`);
    this.draw();
    return undefined;
  }

  watched() {
    const ends = [
      watch(`data_set:${this.path}`, (state, error) => {
        this.lost.textContent = error ?? "";
        this.lost.hidden = !error;
        if (state && state !== this.page.state) this.load().catch(fail);
      }),
      watch(`data_lint:${this.path}`, (value) => {
        this.lint = value ?? null;
        this.drawSide();
        if (value && !value.running && value.number !== this.page.lint) this.load().catch(fail);
      }),
    ];
    if (this.page.total <= SMALL) this.look().catch(fail);
    return () => { clearTimeout(this.due); this.request?.abort(); for (const end of ends) end(); };
  }

  // --- what is shown

  draw() {
    const at = document.activeElement, typed = at?.matches?.(".caption textarea") ? [at.closest(".row")?.dataset.name, at.selectionStart, at.selectionEnd] : null;
    const place = (node) => node.closest(".row")?.dataset.name ?? node.closest(".set-head, .set-side, .pager")?.className;
    const focused = at?.matches?.("button") && this.main.contains(at) ? [place(at), at.textContent] : null;
    this.drawAll();
    if (typed && !at.isConnected) { // its caption was changed by something else: what was typed is in the new row
      const text = [...this.rows.children].find((one) => one.dataset.name === typed[0])?.querySelector("textarea");
      text?.focus({ preventScroll: true });
      text?.setSelectionRange(typed[1], typed[2]);
    }
    if (focused) [...this.main.querySelectorAll("button")].find((one) => place(one) === focused[0] && one.textContent === focused[1])?.focus({ preventScroll: true });
  }

  drawAll() {
    const { page } = this;
    const seals = !page.writable;
    const edit = (label, act, words, more = {}) => { const node = button(label, { act, words, ...more }); if (seals) node.disabled = true; return node; };
    const undo = page.undo ? edit("Undo", () => this.undo({ number: page.undo.number }), [...this.edit, "--undo"], { title: `Undo edit ${page.undo.number}: ${page.undo.command}` }) : null;
    const choose = make("input", { type: "file", multiple: true, accept: "image/*,.txt,.caption", hidden: true, "aria-label": "Images to add" });
    choose.addEventListener("change", () => this.add([...choose.files]));
    this.head.replaceChildren(heading(this.name,
      make("span", { class: "soft" }, `${many(page.total, "image")}, ${page.counts.captioned} with caption, ${page.counts.heldout} held out${page.counts.masked ? `, ${page.counts.masked} with mask` : ""}`)),
    make("div", { class: "actions" },
      edit("Edit captions…", () => openBulk(this), null, { kind: "primary" }),
      ...(undo ? [undo] : []),
      button("History", { act: () => openHistory(this), words: [...this.edit, "--history"], writes: false }),
      edit("Caption…", () => openJob(this, "caption"), null, { title: "Caption the images that have none, with a model on this machine" }),
      edit("Masks…", () => openJob(this, "mask"), null, { title: "Make masks of the images that have none, with a model on this machine" }),
      edit("Add images…", () => choose.click(), null), choose,
      ...(by("nav").querySelector("[data-name=new_run]") ? [make("a", { class: "train", href: `#/new_run?data=${encodeURIComponent(this.path)}` }, "Train on this set…")] : []),
      ...this.ofChosen(edit)));
    this.count.textContent = page.shown === page.total ? "" : `${page.shown} of ${page.total} shown`;
    this.drawNotes(edit);
    this.drawActive();
    this.drawSide();
    this.drawRows();
    this.drawPager();
  }

  ofChosen(edit) {
    if (!this.chosen.size) return [];
    const names = [...this.chosen], held = names.filter((name) => name.startsWith("heldout/")), rest = names.filter((name) => !name.startsWith("heldout/"));
    const found = [make("span", { class: "soft" }, `${names.length} selected:`)];
    if (rest.length) found.push(edit(`Hold out ${rest.length}`, () => this.move("hold_out", rest), [...this.edit, "--hold-out", ...rest.map(dashed)]));
    if (held.length) found.push(edit(`Train on ${held.length}`, () => this.move("train", held), [...this.edit, "--train", ...held.map(dashed)]));
    found.push(button("Select none", { act: () => { this.chosen.clear(); this.draw(); }, writes: false }));
    return found;
  }

  drawNotes(edit) {
    const { page } = this;
    const found = [];
    if (!page.writable) found.push(make("p", { class: "note" }, "This set is shown, not edited: it lies outside the Studio's folders (--root DIR adds one), or the Studio is read-only."));
    if (page.interrupted) {
      found.push(make("div", { class: "note" }, make("p", {}, `An edit was interrupted: ${page.interrupted.command}`), make("div", { class: "actions" },
        edit("Finish it", () => this.undo({ finish: true }), [...this.edit, "--finish"]), edit("Take it back", () => this.undo({ finish: page.interrupted.state === "undoing" }), [...this.edit, page.interrupted.state === "undoing" ? "--finish" : "--undo"]))));
    }
    const some = page.counts.masked;
    if (some && some < page.total) found.push(make("p", { class: "soft" }, `${many(page.total - some, "image")} without a mask: data.masks=files needs one for each.`));
    if (page.faults.length) {
      found.push(make("details", { class: "faults" }, make("summary", {}, `Training would refuse this set: ${many(page.faults.length, "fault")}`),
        make("ul", {}, ...page.faults.slice(0, 100).map((one) => make("li", {}, one)))));
    }
    drawAnew(this.notes, ...found);
  }

  drawActive() {
    const labels = { tagged: "tag", finding: "finding", bucket: "bucket" };
    const chips = [];
    for (const [name, label] of Object.entries(labels)) {
      for (const value of (this.filter[name] ?? "").split(name === "tagged" ? "," : "\0").filter(Boolean)) {
        const rest = name === "tagged" ? this.filter.tagged.split(",").filter((one) => one !== value).join(",") : "";
        const node = make("button", { type: "button", class: "chip", title: "Remove this filter" }, `${label}: ${value} ✕`);
        node.addEventListener("click", () => this.narrow({ [name]: rest }));
        chips.push(node);
      }
    }
    this.active.replaceChildren(...chips);
  }

  look() {
    return ask("data/lint", { set: this.path, ...this.shape(), trigger: this.trigger.value });
  }

  lintWords() {
    const trigger = this.trigger.value.trim(), sides = (this.filter.resolution ?? "").split(",");
    return ["data", "lint", this.path, ...(trigger ? [`--trigger=${trigger}`] : []), ...(sides[0] ? ["--resolution", String(Math.max(...sides))] : []), ...(this.page.counts.masked ? ["--masks", "auto"] : [])];
  }

  // The fields for sizes stay: what is typed in them is not drawn over.
  drawSide() {
    if (!this.page) return;
    const focused = document.activeElement === this.trigger;
    drawAnew(this.found, ...this.findings());
    if (focused) this.trigger.focus({ preventScroll: true });
    this.bucketList.replaceChildren(...this.bucketEntries());
    this.tagList.replaceChildren(...this.tags());
  }

  findings() {
    const { lint } = this;
    const box = [make("h3", {}, "Findings")];
    const look = make("div", { class: "look" }, this.trigger, button(lint ? "Look again" : "Look it over", { act: () => this.look(), words: () => this.lintWords(), writes: false }));
    if (!lint) return [...box, look];
    if (lint.running) return [...box, make("p", { class: "soft" }, lint.total ? `${lint.done} of ${lint.total} images read` : "Reading…")];
    if (lint.error) box.push(make("p", { class: "fault" }, lint.error));
    for (const one of lint.findings) box.push(this.entry(one.check, one.images.length, this.filter.finding === one.check, () => this.narrow({ finding: this.filter.finding === one.check ? "" : one.check }), `${one.what}. ${one.advice}`));
    if (!lint.findings.length && !lint.error) box.push(make("p", { class: "soft" }, "none"));
    const words = [...lint.faults.map((one) => make("li", { class: "field-fault" }, one)), ...lint.notes.map((one) => make("li", {}, one))];
    if (words.length) box.push(make("details", {}, make("summary", {}, `${many(lint.faults.length, "fault")}, ${many(lint.notes.length, "note")}`), make("ul", {}, ...words)));
    if (lint.stale) box.push(make("p", { class: "soft" }, "The set changed since."));
    return [...box, look];
  }

  entry(label, number, pressed, act, title = "") {
    const node = make("button", { type: "button", class: "entry", title, "aria-pressed": String(pressed) }, make("span", {}, label), make("span", { class: "number" }, String(number)));
    node.addEventListener("click", act);
    return node;
  }

  tags() {
    const { most, different } = this.page.tags;
    const box = [make("h3", {}, `Tags (${different})`)];
    const chosen = (this.filter.tagged ?? "").split(",").filter(Boolean);
    for (const one of most) {
      const on = chosen.includes(one.tag);
      box.push(this.entry(one.tag, one.images, on, () => this.narrow({ tagged: (on ? chosen.filter((tag) => tag !== one.tag) : [...chosen, one.tag]).join(",") })));
    }
    if (different > most.length) box.push(make("p", { class: "soft" }, `and ${different - most.length} more`));
    return box;
  }

  sizes() {
    const box = make("section", { class: "sizes" }, make("h3", {}, "Buckets and crops"));
    const side = make("input", { type: "text", inputMode: "numeric", placeholder: "1024", value: this.filter.resolution ?? "" });
    const multiple = make("select", { title: "Pixels that the model needs widths and heights to be multiples of: 8 for SD and SDXL, 16 for FLUX.1, SD 3 and most newer ones, 32 for Sana" });
    for (const one of [8, 16, 32]) multiple.append(make("option", { value: one }, String(one)));
    multiple.value = this.filter.multiple ?? "8";
    const crops = make("input", { type: "number", min: 1, max: 64, value: this.filter.crops ?? "1", title: "As data.crops: random crops of each image, 1 is the centre" });
    const step = make("input", { type: "number", min: 0, max: 2048, step: 8, placeholder: "64", value: this.filter.step ?? "", title: "As data.bucket_step: pixels between the sides of two buckets" });
    const squares = make("input", { type: "checkbox", checked: this.filter.buckets === "false", title: "As data.buckets=false" });
    const go = () => {
      this.buckets = null;
      this.narrow({ resolution: side.value.trim(), multiple: multiple.value === "8" ? "" : multiple.value, crops: crops.value === "1" ? "" : crops.value, step: step.value, buckets: squares.checked ? "false" : "", bucket: "" });
    };
    for (const one of [side, multiple, crops, step, squares]) one.addEventListener("change", go);
    box.append(make("div", { class: "trio" }, make("label", { class: "field" }, "Resolution", side), make("label", { class: "field" }, "Multiple", multiple), make("label", { class: "field" }, "Crops", crops)),
      make("div", { class: "trio" }, make("label", { class: "field" }, "Bucket step", step), make("label", { class: "check" }, squares, "squares")), this.bucketList);
    return box;
  }

  bucketEntries() {
    if (!this.filter.resolution) return [];
    if (!this.buckets) {
      const own = [];
      this.buckets = own;
      read("data/buckets", { set: this.path, ...this.shape() }).then(({ buckets }) => { if (this.buckets === own) { this.buckets = buckets; this.drawSide(); } }, fail); // else it is of a size before
    }
    return this.buckets.map((one) => this.entry(one.bucket, one.images, this.filter.bucket === one.bucket, () => this.narrow({ bucket: this.filter.bucket === one.bucket ? "" : one.bucket })));
  }

  shape() {
    const { resolution, multiple, crops, step, buckets } = this.filter;
    return { resolution, multiple, crops, step, buckets };
  }

  // --- the images

  drawRows() {
    const { items } = this.page;
    this.select.checked = items.length > 0 && items.every((item) => this.chosen.has(item.name));
    if (!items.length) { this.kept.clear(); this.rows.replaceChildren(nothing("No image of the set is shown by this filter.")); return; }
    const kept = new Map();
    items.forEach((item, place) => {
      const { captions, v, heldout, file, sealed, mask, fault, path } = item;
      const state = JSON.stringify([captions, v, heldout, file, sealed, mask, fault, path, this.page.writable]);
      let own = this.kept.get(item.name);
      if (own?.state !== state) own = { state, ...this.row(item) };
      own.pick.checked = this.chosen.has(item.name);
      const looks = JSON.stringify([item.mask_v, item.crops, item.findings]);
      if (own.looks !== looks) { own.looks = looks; own.look(item); }
      kept.set(item.name, own);
      if (this.rows.children[place] !== own.node) this.rows.insertBefore(own.node, this.rows.children[place] ?? null); // what is typed in stays where it is
    });
    while (this.rows.children.length > items.length) this.rows.lastChild.remove();
    this.kept = kept;
  }

  row(item) {
    const pick = make("input", { type: "checkbox", checked: this.chosen.has(item.name), "aria-label": `Select ${item.name}` });
    pick.addEventListener("change", () => { if (pick.checked) this.chosen.add(item.name); else this.chosen.delete(item.name); this.draw(); });
    const open = make("button", { type: "button", class: "picture", title: `Open ${item.name}`, "aria-label": `Open ${item.name}` });
    open.addEventListener("click", () => openImage(this, this.page.items.find((one) => one.name === item.name) ?? item));
    const held = item.heldout;
    const names = dashed(item.name);
    const toggle = button(held ? "Train on it" : "Hold out", { act: () => this.move(held ? "train" : "hold_out", [item.name]), words: [...this.edit, held ? "--train" : "--hold-out", names] });
    if (!this.page.writable) toggle.disabled = true;
    const marks = make("div", { class: "chips" });
    const look = (now) => {
      open.replaceChildren(now.fault ? make("span", { class: "fault" }, now.fault) : pictured(now, 192));
      marks.replaceChildren(...marksOf(now));
    };
    const node = make("article", { class: "row", "data-name": item.name }, pick, open,
      make("div", { class: "about" }, make("div", { class: "line" }, make("strong", {}, item.name), make("span", { class: "soft" }, item.size ? item.size.join(" × ") : ""), make("span", { class: "gap" }), toggle), this.caption(item), marks));
    return { node, pick, look };
  }

  caption(item) {
    if (item.captions.length > 1 || item.sealed) {
      const box = make("div", { class: "sealed" }, ...item.captions.map((one) => make("p", {}, one)));
      if (item.sealed) box.append(make("p", { class: "soft" }, item.sealed));
      return box;
    }
    const own = item.captions[0] ?? "", draft = this.unsaved.get(item.name);
    const over = draft !== undefined && draft.base !== own && draft.text.trim() !== own; // something else changed it since this was typed
    const base = draft?.base ?? own;
    const text = make("textarea", { rows: 2, value: draft?.text ?? own, placeholder: "No caption", spellcheck: false, "aria-label": `Caption of ${item.name}` });
    if (!this.page.writable) text.readOnly = true;
    const words = () => [...this.edit, "--set-caption", dashed(item.name), text.value.trim().startsWith("-") ? ` ${text.value.trim()}` : text.value.trim()];
    const save = button(over ? "Save over it" : "Save", { act: () => this.saveCaption(item, text.value), words, kind: over ? "danger" : "primary" });
    const reset = button("Discard", { act: () => { this.unsaved.delete(item.name); text.value = own; tell(); }, writes: false });
    const meanwhile = over ? make("p", { class: "note", role: "status" }, own ? `Changed meanwhile; it is now: ${own}` : "Removed meanwhile: the image has no caption now.") : null;
    const row = make("div", { class: "save" }, ...(meanwhile ? [meanwhile] : []), save, reset, make("span", { class: "soft" }, "Ctrl+Enter"));
    const tell = () => {
      row.hidden = text.value.trim() === own;
      if (row.hidden) this.unsaved.delete(item.name); else this.unsaved.set(item.name, { text: text.value, base });
    };
    text.addEventListener("input", () => { tell(); showCommand(words()); });
    text.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !row.hidden) { event.preventDefault(); save.click(); } });
    withCommand(text, () => (row.hidden ? null : words()));
    row.hidden = text.value.trim() === own;
    return make("div", { class: "caption" }, text, row);
  }

  drawPager() {
    const { shown, offset } = this.page;
    if (shown <= PER_PAGE) { this.pager.replaceChildren(); return; }
    const turn = (label, to, off) => { const node = button(label, { act: async () => { this.offset = to; await this.load(); scrollTo({ top: 0 }); }, writes: false }); node.disabled = off; return node; };
    this.pager.replaceChildren(turn("Earlier", Math.max(0, offset - PER_PAGE), offset === 0), make("span", {}, `${offset + 1} to ${Math.min(offset + PER_PAGE, shown)} of ${shown}`), turn("Later", offset + PER_PAGE, offset + PER_PAGE >= shown));
  }

  // --- what is changed

  async make(values, written = () => {}) {
    const made = await write("data/edit", { set: this.path, ...values });
    written();
    showCommand(made.words, "Done");
    await this.load();
    return made;
  }

  async saveCaption(item, text) {
    const own = item.captions[0] ?? "", draft = this.unsaved.get(item.name);
    this.unsaved.delete(item.name);
    try {
      await this.make({ kind: "caption", image: item.name, text, was: own }, () => {
        const since = this.unsaved.get(item.name); // typed since: upon what is saved now
        if (since) { since.base = text.trim(); this.kept.delete(item.name); }
      });
    } catch (error) {
      if (!this.unsaved.has(item.name)) this.unsaved.set(item.name, draft ?? { text, base: own });
      if (error.status === 400) this.load().catch(() => {}); // it may have been changed meanwhile: the row says so
      throw error;
    }
  }

  async move(kind, images) {
    const other = (name) => (kind === "hold_out" ? `heldout/${name}` : name.slice("heldout/".length));
    const renamed = (from, to) => { const draft = this.unsaved.get(from); if (draft) { this.unsaved.delete(from); this.unsaved.set(to, draft); } };
    for (const name of images) renamed(name, other(name)); // a caption that is not saved goes with its image
    try {
      await this.make({ kind, images });
    } catch (error) {
      for (const name of images) renamed(other(name), name);
      throw error;
    }
    for (const name of images) this.chosen.delete(name);
    this.draw();
  }

  async undo(values = {}) {
    try {
      const made = await write("data/undo", { set: this.path, ...values });
      say(`Edit ${made.edit.number} is ${made.edit.state === "undone" ? "undone" : "finished"}: ${made.edit.command}`);
    } catch (error) {
      if (!error.faults?.length || values.keep_changed) throw error;
      const flag = values.finish ? "--finish" : "--undo";
      const box = dialog("Changed since", make("p", {}, error.message), make("div", { class: "actions" },
        button("Leave these, undo the others", { act: async () => { box.close(); await this.undo({ ...values, keep_changed: true }); }, words: [...this.edit, flag, "--keep-changed"], kind: "danger" })));
      return;
    }
    await this.load();
  }

  async add(files) {
    if (files.length) await addFiles(this, files).catch(fail);
  }

  dropping() {
    const is = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
    this.main.addEventListener("dragover", (event) => { if (is(event)) { event.preventDefault(); this.main.classList.add("dropping"); } });
    this.main.addEventListener("dragleave", (event) => { if (!this.main.contains(event.relatedTarget)) this.main.classList.remove("dropping"); });
    this.main.addEventListener("drop", (event) => {
      if (!is(event)) return;
      event.preventDefault();
      this.main.classList.remove("dropping");
      this.add([...event.dataTransfer.files]);
    });
  }
}

const many = (number, one) => `${number} ${one}${number === 1 ? "" : "s"}`;

// A name of an image as a word of the command: an option is not taken for it.
export const dashed = (name) => (name.startsWith("-") ? `./${name}` : name);

function marksOf(item) {
  const chip = (label, kind = "") => make("span", { class: `chip ${kind}` }, label);
  return [
    ...(item.heldout ? [chip("held out", "held")] : []),
    ...(item.mask ? [chip("mask")] : []),
    ...item.findings.map((check) => chip(check, "finding")),
    ...item.crops.flatMap((crop) => [chip(crop.bucket), ...(crop.enlarged ? [chip("enlarged", "finding")] : [])]),
  ];
}

// The thumbnail with its mask (left out is dark) and the first crop of each size.
export function pictured(item, side) {
  const box = make("span", { class: "pictured" }, thumbnail(item.path, { side, version: item.v, alt: "" }));
  if (item.mask_path) {
    const mask = thumbnail(item.mask_path, { side, version: item.mask_v, alt: "" });
    mask.className = "mask";
    mask.addEventListener("error", () => mask.replaceWith(make("span", { class: "chip finding mask-fault" }, "mask cannot be read")));
    box.append(mask);
  }
  for (const crop of item.crops) for (const [left, top, width, height] of crop.boxes) box.append(frame(left, top, width, height));
  return box;
}

export function frame(left, top, width, height) {
  const node = make("span", { class: "crop" });
  Object.assign(node.style, { left: `${left * 100}%`, top: `${top * 100}%`, width: `${width * 100}%`, height: `${height * 100}%` });
  return node;
}
