// The registry as cards or as a table: facets, search, order, pages, and tags of many models at once.

import { address, ask, read, watch, write } from "../api.js";
import { allow, button, fail, heading, nothing, say, showOwn, spellBytes, withCommand } from "../parts.js";
import { dropZone, findFile } from "./drop.js";
import { exportDialog } from "./forms.js";
import { addDialog, startJob } from "./jobs.js";
import { listWords, tagWords } from "./words.js";

const A_PAGE = 60;
const SLOW = 2 ** 31; // bytes without a hash from which tagging is a job: a model is hashed before it is annotated
const SORTS = { "": "As registered", newest: "Newest first", name: "By name", size: "Largest first" };
const FACETS = [["kind", "Kind"], ["family", "Family"], ["rank", "Rank"], ["tag", "Tags"], ["licence", "Licence"], ["warning", "Warnings"]];

export function showList(main, query) {
  const state = {
    text: query.get("text") ?? "", kind: query.get("kind"), family: query.get("family"), rank: query.get("rank"), licence: query.get("licence"),
    warning: query.get("warning"), tags: query.getAll("tag"), missing: query.get("missing") === "true", sort: query.get("sort") || null,
    view: query.get("view") === "table" ? "table" : "cards", offset: Number(query.get("offset")) || 0,
  };
  const chosen = new Set(); // ids
  const opened = new Map(FACETS.map(([name]) => [name, ["kind", "family", "tag"].includes(name) || Boolean(state[name])]));
  let cards = [], total = 0, last = null, request = null, gone = false, later = null;

  const count = make("span", { class: "soft", role: "status" });
  const search = make("input", { type: "search", placeholder: "Search names, tags, notes, paths, hashes", "aria-label": "Search", value: state.text });
  const sort = make("select", { "aria-label": "Order" }, ...Object.entries(SORTS).map(([value, label]) => make("option", { value }, label)));
  sort.value = state.sort ?? "";
  const views = make("span", { class: "segments" }, ...[["cards", "Cards"], ["table", "Table"]].map(([name, label]) => {
    const one = make("button", { type: "button" }, label);
    one.addEventListener("click", () => { state.view = name; draw(); remember(); });
    one.dataset.view = name;
    return one;
  }));
  const facets = make("div", { class: "facets" });
  const filters = make("details", { class: "filters" }, make("summary", {}, "Filters"), facets);
  filters.open = innerWidth > 900;
  const file = make("input", { type: "file", class: "away", tabIndex: -1, "aria-label": "Image or model file" });
  file.addEventListener("change", () => { if (file.files[0]) findFile(file.files[0]); file.value = ""; });
  const bulk = make("div", { class: "bulk", role: "group", "aria-label": "Selected models" });
  const body = make("div", { class: "models-body" });
  const pager = make("nav", { class: "pager", "aria-label": "Pages" });
  main.append(
    heading("Models", count,
      button("Find by file…", { act: () => file.click(), writes: false, title: "The models of an image, or whether a model file is registered. Files can be dropped on the page, too." }), file,
      make("a", { href: "#/models/duplicates", class: "as-button" }, "Duplicates"),
      button("Add models…", { act: () => { addDialog(() => load()); }, kind: "primary" })),
    make("div", { class: "models-layout" }, filters, make("div", { class: "models-main" }, make("div", { class: "tools" }, search, sort, views), bulk, body, pager)),
  );
  const undrop = dropZone(main);

  search.addEventListener("input", () => { clearTimeout(later); later = setTimeout(() => change({ text: search.value.trim() }), 200); });
  sort.addEventListener("change", () => change({ sort: sort.value || null }));
  withCommand(search, () => words());
  withCommand(sort, () => words());

  const selection = () => ({
    words: state.text ? [state.text] : [], kind: state.kind, family: state.family, rank: state.rank, tags: state.tags, licence: state.licence,
    warning: state.warning, missing: state.missing, sort: state.sort,
  });
  const words = () => listWords(state, state.offset, A_PAGE);

  function change(given) {
    Object.assign(state, { offset: 0 }, given);
    remember();
    return load();
  }

  function remember() {
    const query = new URLSearchParams();
    for (const name of ["text", "kind", "family", "rank", "licence", "warning", "sort"]) if (state[name]) query.set(name, state[name]);
    for (const tag of state.tags) query.append("tag", tag);
    if (state.missing) query.set("missing", "true");
    if (state.view === "table") query.set("view", "table");
    if (state.offset) query.set("offset", state.offset);
    history.replaceState(null, "", `#/models${query.size ? `?${query}` : ""}`);
  }

  let wanted = false; // whether a load that somebody asked for is under way, or overtaken by one that nobody did

  async function load({ behind = false } = {}) { // behind: nobody asked for it
    wanted ||= !behind;
    request?.abort();
    const own = request = new AbortController();
    main.setAttribute("aria-busy", "true");
    try {
      const page = await ask("models/list", { ...selection(), offset: state.offset, limit: A_PAGE }, { signal: request.signal });
      if (gone) return;
      cards = page.cards;
      total = page.total;
      if (!cards.length && total && state.offset) { change({}); return; }
      count.textContent = total === page.everything ? `${total.toLocaleString("en")} records` : `${total.toLocaleString("en")} of ${page.everything.toLocaleString("en")} records`;
      known.replaceChildren(...page.facets.tag.values.map(([tag]) => make("option", { value: tag })));
      drawFacets(page);
      draw();
      if (wanted) showOwn(words());
      wanted = false;
      if (page.images_wait) setTimeout(() => { if (!gone) load({ behind: true }); }, 1500);
    } catch (error) {
      if (error.status === 400) refused(error);
      else fail(error);
    } finally {
      if (own === request) main.removeAttribute("aria-busy"); // else a newer one is under way
    }
  }

  const cleared = { text: "", kind: null, family: null, rank: null, licence: null, warning: null, tags: [], missing: false };

  function clearing(label, more = {}) {
    const node = make("button", { type: "button" }, label);
    node.addEventListener("click", () => { search.value = ""; if ("sort" in more) sort.value = ""; change({ ...cleared, ...more }); });
    return node;
  }

  // An address that was typed, or is of another version: what is known, and a way on. Without a filter it is the index that cannot be read.
  function refused(error) {
    const faults = error.faults.length ? error.faults : [error.message];
    const asked = ["text", "kind", "family", "rank", "licence", "warning", "sort", "missing"].some((name) => state[name]) || state.tags.length > 0;
    const list = make("ul", { class: "plain", role: "alert" }, ...faults.map((text) => make("li", { class: "field-fault" }, text)));
    [cards, total] = [[], 0];
    count.textContent = "";
    pager.replaceChildren();
    drawBulk();
    body.replaceChildren(nothing("Nothing can be listed:", list, asked ? clearing("Clear all filters and the order", { sort: null }) : button("Try again", { act: () => load(), writes: false })));
  }

  function drawFacets(page) {
    const held = document.activeElement?.dataset?.facet;
    facets.replaceChildren();
    for (const [name, label] of FACETS) {
      const { values, count: different } = page.facets[name];
      const own = name === "tag" ? state.tags : [state[name]].filter(Boolean);
      for (const value of own) if (!values.some(([one]) => one === value)) values.unshift([value, 0]);
      if (!values.length || (values.length === 1 && values[0][0] === "none" && !own.length)) continue;
      const list = make("ul", {});
      for (const [value, number] of values) {
        const on = own.includes(value);
        const one = make("button", { type: "button", class: "facet" }, make("span", {}, value === "none" && name !== "tag" && name !== "warning" ? "not known" : value), make("span", { class: "soft" }, number.toLocaleString("en")));
        one.setAttribute("aria-pressed", String(on));
        one.dataset.facet = `${name} ${value}`;
        one.addEventListener("click", () => change(name === "tag" ? { tags: on ? own.filter((tag) => tag !== value) : [...own, value] } : { [name]: on ? null : value }));
        list.append(make("li", {}, one));
      }
      const box = make("details", { class: "facet-box" }, make("summary", {}, label), list);
      if (different > values.length) box.append(make("p", { class: "soft" }, `the ${values.length} most frequent of ${different.toLocaleString("en")}`));
      box.open = opened.get(name) || own.length > 0;
      box.addEventListener("toggle", () => { if (box.isConnected) opened.set(name, box.open); });
      facets.append(box);
    }
    const missing = make("input", { type: "checkbox", checked: state.missing });
    missing.dataset.facet = "missing";
    missing.addEventListener("change", () => change({ missing: missing.checked }));
    facets.append(make("label", { class: "check" }, missing, `File is gone (${page.missing.toLocaleString("en")})`));
    if (state.text || state.missing || state.tags.length || FACETS.some(([name]) => state[name])) {
      facets.append(clearing("Clear all filters"));
    }
    if (held) [...facets.querySelectorAll("[data-facet]")].find((one) => one.dataset.facet === held)?.focus();
  }

  function draw() {
    for (const one of views.children) one.setAttribute("aria-pressed", String(one.dataset.view === state.view));
    if (!cards.length) body.replaceChildren(nothing(total || state.text || state.tags.length || FACETS.some(([name]) => state[name]) ? "No record has all of this." : "There is nothing yet. Add models, or drop a file here."));
    else body.replaceChildren(state.view === "cards" ? make("ul", { class: "cards" }, ...cards.map(card)) : table());
    drawBulk();
    drawPager();
  }

  const link = (one, ...inside) => make("a", { href: `#/models/one/${one.id}`, class: "model-link", "aria-label": one.name }, ...inside); // the same with an image as without: the focus finds it again

  function box(one, index) {
    const node = make("input", { type: "checkbox", checked: chosen.has(one.id), "aria-label": `Select ${one.name}` });
    node.addEventListener("click", (event) => {
      const on = node.checked;
      const range = event.shiftKey && last !== null ? cards.slice(Math.min(last, index), Math.max(last, index) + 1) : [one];
      for (const each of range) if (on) chosen.add(each.id); else chosen.delete(each.id);
      last = index;
      for (const other of body.querySelectorAll("input[data-id]")) { other.checked = chosen.has(other.dataset.id); other.closest(".model-card, tr").dataset.chosen = String(other.checked); }
      drawBulk();
    });
    node.dataset.id = one.id;
    return node;
  }

  function card(one, index) {
    const source = one.image ? address("models/image", { id: one.id, side: 384, v: one.image }) : null;
    const picture = source ? make("img", { src: source, alt: "", loading: "lazy", decoding: "async" }) : make("span", { class: "no-image" }, one.kind);
    picture.addEventListener("error", () => picture.replaceWith(make("span", { class: "no-image" }, one.kind)), { once: true }); // a damaged preview
    const node = make("li", { class: "model-card" }, link(one, make("span", { class: "card-image" }, picture), make("strong", {}, one.name)), make("span", { class: "soft card-facts" }, ...facts(one)), ...marks(one), box(one, index));
    node.dataset.chosen = String(chosen.has(one.id));
    return node;
  }

  function facts(one) {
    return [[one.kind, one.family ?? (one.candidates.length ? one.candidates.join(" or ") : null), one.rank ? `rank ${one.rank}` : null, one.bytes ? spellBytes(one.bytes) : null].filter(Boolean).join(" · ")];
  }

  function marks(one) {
    const chips = [...one.warnings.map((each) => make("span", { class: "chip warn", title: each.message }, each.code)), ...one.tags.slice(0, 4).map((tag) => make("span", { class: "chip" }, tag))];
    if (one.tags.length > 4) chips.push(make("span", { class: "soft" }, `+${one.tags.length - 4}`));
    return chips.length ? [make("span", { class: "chips" }, ...chips)] : [];
  }

  function table() {
    const heads = ["", "Name", "Kind", "Family", "Rank", "Type", "Size", "Tags", "Warnings", "Registered"];
    const rows = cards.map((one, index) => {
      const cells = [box(one, index), link(one, one.name), one.kind, one.family ?? "", one.rank ?? "", one.dtype ?? "", one.bytes ? spellBytes(one.bytes) : "", one.tags.join(", "), one.warnings.map((each) => each.code).join(", "), (one.created ?? "").slice(0, 10)];
      const row = make("tr", {}, ...cells.map((cell) => make("td", {}, cell)));
      row.dataset.chosen = String(chosen.has(one.id));
      return row;
    });
    return make("div", { class: "scrolls", tabIndex: 0, role: "region", "aria-label": "Table of models" }, make("table", { class: "models-table" }, make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))), make("tbody", {}, ...rows)));
  }

  // Takes out of the selection what another process has removed; gives what is said of it, "" where all is there.
  async function forget() {
    const { gone: lost } = chosen.size ? await ask("models/unhashed", { ids: [...chosen] }) : { gone: [] };
    for (const id of lost) chosen.delete(id);
    drawBulk();
    return lost.length ? `${lost.length} of the selected models ${lost.length === 1 ? "is" : "are"} not registered any more, and no longer selected.` : "";
  }

  const tags = make("input", { type: "text", placeholder: "tags, with commas between", "aria-label": "Tags", autocomplete: "off" });
  const known = make("datalist", { id: "all-tags" });
  tags.setAttribute("list", known.id);
  const split = () => [...new Set(tags.value.split(",").map((tag) => tag.trim()).filter(Boolean))];
  const tagging = (removes) => async () => {
    const ids = [...chosen], given = split(), typed = tags.value;
    if (!given.length) { tags.focus(); return; }
    const lost = await forget();
    if (lost) throw new Error(`${lost} Nothing was changed: do it again for the others.`);
    const { bytes: unread } = await ask("models/unhashed", { ids });
    const [add, remove] = removes ? [[], given] : [given, []];
    if (unread > SLOW) await startJob(tagWords(ids, add, remove), load);
    else say(`Tags of ${(await write("models/tag", { ids, add, remove })).changed} models changed.`);
    if (tags.value === typed) tags.value = ""; // else more was typed meanwhile
    await load();
  };
  const doing = (removes) => () => (chosen.size && split().length ? tagWords([...chosen], removes ? [] : split(), removes ? split() : []) : null);
  const addTag = button("Add tags", { act: tagging(false), words: doing(false) }), dropTag = button("Remove tags", { act: tagging(true), words: doing(true) });
  withCommand(tags, doing(false));
  tags.addEventListener("keydown", (event) => { if (event.key === "Enter") addTag.click(); });
  const number = make("span", { role: "status" });
  const all = button("", { act: async () => { for (const id of (await ask("models/ids", selection())).ids) chosen.add(id); draw(); }, writes: false, ready: () => total > 0 });
  const none = button("Clear", { act: () => { chosen.clear(); draw(); }, writes: false, ready: () => chosen.size > 0 });
  const exporting = button("Export…", { act: async () => exportDialog([...chosen], (await read("models/layouts")).layouts, load), writes: false });
  bulk.append(number, all, none, make("span", { class: "gap" }), known, tags, addTag, dropTag, exporting);

  function drawBulk() {
    number.textContent = chosen.size ? `${chosen.size.toLocaleString("en")} selected` : "None selected";
    all.textContent = `Select all ${total.toLocaleString("en")}`;
    allow(all, total > 0);
    allow(none, chosen.size > 0);
    for (const node of [tags, addTag, dropTag, exporting]) node.hidden = !chosen.size;
    tags.disabled = Boolean(document.body.dataset.sealed);
  }

  function drawPager() {
    const end = Math.min(state.offset + A_PAGE, total);
    const go = (label, offset, name) => {
      const one = make("button", { type: "button", disabled: offset < 0 || offset >= total || offset === state.offset, "aria-label": name, title: name }, label);
      one.addEventListener("click", async () => { await change({ offset }); main.scrollIntoView({ block: "start" }); });
      return one;
    };
    pager.replaceChildren();
    if (total <= A_PAGE) return;
    pager.append(
      go("«", 0, "First page"), go("‹", Math.max(0, state.offset - A_PAGE), "Page before"), make("span", {}, `${(state.offset + 1).toLocaleString("en")} to ${end.toLocaleString("en")} of ${total.toLocaleString("en")}`),
      go("›", state.offset + A_PAGE, "Next page"), go("»", Math.floor((total - 1) / A_PAGE) * A_PAGE, "Last page"),
    );
  }

  let seen = null, soon = null;
  const unwatch = watch("models", (value) => {
    const now = JSON.stringify(value);
    if (seen !== null && seen !== now && !soon) soon = setTimeout(() => { soon = null; if (!gone) load({ behind: true }).then(forget).then((lost) => lost && say(lost, { fault: true })).catch(fail); }, 1500);
    seen = now;
  });
  load();
  return () => { gone = true; request?.abort(); clearTimeout(later); clearTimeout(soon); unwatch(); undrop(); };
}
