// Which bases an adapter fits, and which adapters fit a base: by modules and shapes, one after the other.

import { read } from "../api.js";
import { button, fail } from "../parts.js";
import { fitsWords } from "./words.js";

export function fitsCard(id, kind, reference) {
  const ofAdapter = kind === "adapter";
  const list = make("ul", { class: "plain fits" }), status = make("span", { class: "soft", role: "status" });
  let stopped = false, partners = [];

  const pair = (other) => (ofAdapter ? [id, other] : [other, id]);
  const check = async (other) => {
    const [adapter, base] = pair(other.id);
    other.answer.textContent = "…";
    try {
      const found = await read("models/fits", { adapter, base });
      other.answer.textContent = found.text;
      other.row.dataset.fits = String(found.ok);
    } catch (error) {
      other.answer.textContent = error.message;
      other.row.dataset.fits = "unknown"; // a file that is gone or cannot be read
    }
  };
  const all = button("Check all", {
    writes: false,
    act: async () => {
      stopped = false;
      for (const [number, other] of partners.entries()) {
        if (stopped || !card.isConnected) break;
        status.textContent = `${number + 1} of ${partners.length}`;
        await check(other);
      }
      status.textContent = "";
    },
  });
  const stop = button("Stop", { act: () => { stopped = true; }, writes: false });
  all.disabled = stop.disabled = true; // until it is known what there is
  const card = make("section", { class: "card" }, make("div", { class: "stage-bar" }, make("h2", {}, ofAdapter ? "Bases it fits" : "Adapters that fit it"), status, all, stop), list);

  read("models/partners", { id }).then((found) => {
    partners = found.partners;
    if (!partners.length) { list.append(make("li", { class: "soft" }, ofAdapter ? "No base of its family is registered." : "No adapter of its family is registered.")); return; }
    all.disabled = stop.disabled = false;
    for (const other of partners) {
      const [first, second] = ofAdapter ? [reference(), other.id] : [other.id, reference()];
      other.answer = make("span", { class: "soft fit-answer" });
      other.row = make("li", {}, button("Check", { act: () => check(other), words: fitsWords(first, second), writes: false }), make("a", { href: `#/models/one/${other.id}` }, other.name), other.answer);
      list.append(other.row);
    }
  }).catch(fail);
  return card;
}
