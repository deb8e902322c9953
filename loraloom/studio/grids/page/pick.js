// Registered models as cards to pick from: one for a value, several for an axis. The cards are those of the section Models.

import { address, ask } from "../api.js";
import { button, dialog, fail } from "../parts.js";

const LIMIT = 60;

// Calls picked(names) with what was picked, in the order of the clicks.
export function pickModels(kind, { several = false, picked }) {
  const chosen = new Set();
  const search = make("input", { type: "search", placeholder: "Search", "aria-label": `Search ${kind}s` });
  const cards = make("div", { class: "pick-cards" }), more = make("p", { class: "soft" });
  const take = button(several ? "Add" : "Take", { kind: "primary", writes: false, act: () => { sheet.close(); picked([...chosen]); } });
  const sheet = dialog(several ? `Add ${kind}s` : `Pick a ${kind}`, search, cards, more, ...(several ? [make("div", { class: "stage-bar" }, make("span", { class: "gap" }), take)] : []));
  sheet.dialog.classList.add("pick");
  let asked = 0, later = null;

  async function fill() {
    const own = ++asked;
    const found = await ask("models/list", { kind, words: search.value.split(/\s+/).filter(Boolean), limit: LIMIT });
    if (own !== asked) return;
    cards.replaceChildren(...found.cards.map(card));
    more.textContent = found.total > LIMIT ? `The first ${LIMIT} of ${found.total}: search for others.` : found.total ? "" : `No ${kind} is registered${search.value ? " that has these words" : ""}.`;
  }

  function card(one) {
    const picture = make("span", { class: "pick-picture" });
    if (one.image) picture.append(make("img", { src: address("models/image", { id: one.id, side: 192, v: one.image }), alt: "", loading: "lazy", decoding: "async" }));
    const known = [one.family, one.rank ? `rank ${one.rank}` : "", ...one.triggers.slice(0, 3)].filter(Boolean).join(" · ");
    const node = make("button", { type: "button", class: "pick-card", "aria-pressed": String(chosen.has(one.name)) }, picture, make("strong", {}, one.name), make("span", { class: "soft" }, known));
    node.addEventListener("click", () => {
      if (!several) { sheet.close(); picked([one.name]); return; }
      if (chosen.has(one.name)) chosen.delete(one.name);
      else chosen.add(one.name);
      node.setAttribute("aria-pressed", String(chosen.has(one.name)));
      take.textContent = chosen.size ? `Add ${chosen.size}` : "Add";
    });
    return node;
  }

  search.addEventListener("input", () => { clearTimeout(later); later = setTimeout(() => fill().catch(fail), 150); });
  fill().catch(fail);
  search.focus();
}
