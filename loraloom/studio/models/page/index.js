// The section Models: #/models the registry, #/models/one/ID one model, #/models/duplicates what is there twice.

import { showDuplicates } from "./duplicates.js";
import { showList } from "./list.js";
import { showModel } from "./model.js";

export function show(main, parts, query) {
  const [what, id] = parts;
  if (what === "one" && id) return showModel(main, id);
  if (what === "duplicates") return showDuplicates(main);
  return showList(main, query);
}
