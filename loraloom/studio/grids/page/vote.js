// Blind votes on a grid, in the page of `loraloom vote`; and the ranking, in that of `loraloom rank`.

import { address, read, write } from "../api.js";
import { button, nothing, showCommand } from "../parts.js";
import { refused } from "./frame.js";
import { to } from "./links.js";

const TICK = "This grid varies several axes: tick what is compared. Pairs are equal in all others.";

const compare = (axes) => (axes.length ? ["--compare", axes.join(",")] : []);

// A page of ours in a frame: light or dark as this one is.
export function frameOf(title, src) {
  const frame = make("iframe", { class: "grid-frame", title, src });
  frame.addEventListener("load", () => {
    const own = frame.contentDocument;
    if (!own?.body || refused(frame)) return;
    own.body.classList.add("framed");
    const chosen = document.documentElement.dataset.theme;
    if (chosen) own.documentElement.dataset.theme = chosen;
    else delete own.documentElement.dataset.theme;
    own.getElementById("voter")?.focus();
  });
  return frame;
}

function head(title, folder, ...more) {
  return make("div", { class: "heading" }, make("a", { href: to("") }, "Grids"), make("a", { href: to("grid", { folder }) }, folder.split("/").at(-2) ?? "grid"), make("h1", {}, title), make("span", { class: "gap" }), ...more);
}

// Which axes are compared, as boxes to tick.
function axesBox(found, chosen, changed) {
  const boxes = found.axes.map((axis) => {
    const box = make("input", { type: "checkbox", value: axis, checked: chosen.includes(axis) });
    box.addEventListener("change", () => changed([...boxes.filter((one) => one.checked).map((one) => one.value)]));
    return box;
  });
  return make("fieldset", { class: "compared" }, make("legend", {}, "Compare"), ...boxes.map((box) => make("label", {}, box, ` ${box.value}`)));
}

export async function showVote(main, query) {
  const folder = query.get("folder") ?? "", given = query.get("compare");
  const found = await read("grids/comparable", { folder, compare: given });
  const place = make("div", { class: "voting" });
  const chosen = given ? given.split(",") : found.compared;
  const ranking = make("a", { class: "as-button", href: to("ranking", { folder, ...(chosen.length ? { compare: chosen.join(",") } : {}) }) }, "Ranking");
  main.classList.add("one-grid");
  main.append(head("Vote", folder, ranking), axesBox(found, chosen, (axes) => { location.hash = to("vote", { folder, ...(axes.length ? { compare: axes.join(",") } : {}) }); }), place);
  if (found.fault) { place.append(nothing(chosen.length ? found.fault : TICK)); return; }
  const start = button("Vote on pairs", {
    kind: "primary", words: ["vote", folder, ...compare(chosen)],
    act: async () => {
      const { session, preview } = await write("grids/vote", { folder, compare: chosen.join(",") });
      place.replaceChildren(frameOf(`Votes: ${preview}`, address("grids/ballot", { session })));
    },
  });
  place.append(make("div", { class: "card" }, make("p", {}, `Two images at a time, of the same settings but for ${chosen.join(" and ")}: which is better? What they were drawn with is hidden.`), make("p", { class: "soft" }, `${found.votes} ${found.votes === 1 ? "vote is" : "votes are"} there.`), make("div", { class: "stage-bar" }, start)));
  if (!start.disabled) start.click();
}

export async function showRanking(main, query) {
  const folder = query.get("folder") ?? "", given = query.get("compare");
  const found = await read("grids/comparable", { folder, compare: given });
  const chosen = given ? given.split(",") : found.compared;
  const vote = make("a", { class: "as-button", href: to("vote", { folder, ...(chosen.length ? { compare: chosen.join(",") } : {}) }) }, "Vote");
  main.classList.add("one-grid");
  main.append(head("Ranking", folder, vote), axesBox(found, chosen, (axes) => { location.hash = to("ranking", { folder, ...(axes.length ? { compare: axes.join(",") } : {}) }); }));
  if (found.fault) { main.append(nothing(chosen.length ? found.fault : TICK)); return; }
  showCommand(["rank", folder, ...compare(chosen)]);
  main.append(frameOf("Ranking", address("grids/ranking", { folder, compare: chosen.join(",") })));
}
