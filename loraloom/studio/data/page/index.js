// Data: the list of sets, and one set. #/data, #/data/<path of a set>?only=...&tagged=...&state=...&finding=...&offset=...

import { read } from "../api.js";
import { facts, heading, nothing, thumbnail } from "../parts.js";
import { showSet } from "./set.js";

export async function show(main, parts, query) {
  if (parts.length) return showSet(main, parts[0], query);
  const { sets, cut } = await read("data/sets");
  main.append(heading("Data", make("span", { class: "soft" }, `${sets.length} sets`)));
  if (cut) main.append(make("p", { class: "note" }, "There are more folders than are looked into. Start the Studio in a folder nearer to your sets, or name them with --root."));
  if (!sets.length) {
    main.append(nothing("There is no folder with images below the working folder, and no dataset is registered.",
      make("p", {}, "Put images into a folder here, each with its caption in NAME.txt, or start the Studio with --root DIR.")));
    return undefined;
  }
  const search = make("input", { type: "search", placeholder: "Filter by name", "aria-label": "Filter by name" });
  const list = make("div", { class: "sets" });
  for (const one of sets) list.append(card(one));
  search.addEventListener("input", () => {
    const wanted = search.value.toLowerCase();
    for (const node of list.children) node.hidden = !node.dataset.name.includes(wanted);
  });
  if (sets.length > 8) main.append(search);
  main.append(list);
  return undefined;
}

function card(one) {
  const cover = make("div", { class: "cover", "aria-hidden": "true" });
  for (const path of one.first) {
    const small = thumbnail(path, { side: 96, version: one.changed });
    small.addEventListener("error", () => small.remove()); // a file that is no image: the set says so
    cover.append(small);
  }
  const rest = one.images - one.captions;
  return make("a", { class: "card set-card", href: `#/data/${encodeURIComponent(one.path)}`, "data-name": one.name.toLowerCase(), title: one.path },
    cover, make("h2", {}, one.name === "." ? one.path.split("/").pop() : one.name),
    facts([
      ["images", String(one.images)],
      ["captions", one.table ? `in ${one.table}` : rest ? `${one.captions}, ${rest} without` : String(one.captions)],
      ["held out", one.heldout ? String(one.heldout) : null],
      ["masks", one.masks ? String(one.masks) : null],
      ["registered", one.registered],
    ]));
}
