// Runs side by side: their curves over one another, and the settings that differ.

import { ask } from "../api.js";
import { heading, nothing } from "../parts.js";
import { curvesOf } from "./curves.js";
import { runLink, shortNumber } from "./words.js";

export async function showCompare(main, _argument, query) {
  const paths = query.getAll("path");
  main.append(heading("Compare", make("a", { class: "link-button", href: "#/runs" }, "Choose others")));
  if (paths.length < 2) { main.append(nothing("Choose 2 to 6 runs in the list.", make("a", { href: "#/runs" }, "To the list"))); return; }
  const found = await ask("runs/compare", { paths });
  const head = make("tr", {}, make("th", {}, ""), ...found.runs.map((run) => make("th", { scope: "col" }, make("a", { href: runLink(run.path) }, run.label))));
  const row = (name, values) => make("tr", {}, make("th", { scope: "row" }, name), ...values.map((value) => make("td", { class: "wrap" }, value)));
  const summary = (name, value) => row(name, found.runs.map((run) => value(run.summary)));
  const table = make("table", { class: "values left compare-table" }, make("thead", {}, head), make("tbody", {},
    summary("steps done", (one) => String(one.step)),
    summary("held-out loss, best", (one) => shortNumber(one.heldout_best)),
    summary("last loss", (one) => shortNumber(one.loss)),
    ...found.settings.map(({ name, values }) => row(name, values)),
  ));
  const curves = curvesOf();
  main.append(curves.node, make("section", { class: "card" }, make("h2", {}, found.settings.length ? "Settings that differ" : "All settings are the same"), make("div", { class: "scroll" }, table)));
  curves.show(found.charts);
}
