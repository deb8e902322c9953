// Sweeps: the folders of --multirun, and the runs of one as a table with the best marked.

import { read } from "../api.js";
import { button, heading, nothing } from "../parts.js";
import { runLink, shortNumber, spellTime } from "./words.js";

const LIMIT = 50;

export async function showSweeps(main, _argument, query) {
  const offset = Number(query.get("offset") ?? 0);
  const found = await read("runs/sweeps", { offset, limit: LIMIT });
  main.append(heading("Sweeps", make("a", { class: "link-button", href: "#/runs" }, "All runs")));
  if (!found.total) { main.append(nothing("No sweeps yet. A setting of a new run may have several values, with commas.", make("a", { href: "#/new_run" }, "New run"))); return; }
  const link = (sweep) => make("a", { href: `#/runs/sweep/${encodeURIComponent(sweep.path)}` }, sweep.name);
  main.append(make("div", { class: "scroll" }, make("table", { class: "values left" },
    make("thead", {}, make("tr", {}, ...["sweep", "begun", "runs", "state"].map((name) => make("th", { scope: "col" }, name)))),
    make("tbody", {}, ...found.rows.map((sweep) => make("tr", {}, make("th", { scope: "row" }, link(sweep)), make("td", {}, spellTime(sweep.name.replace(/^[a-z]+-/, ""))), make("td", { class: "number" }, String(sweep.runs)), make("td", {}, sweep.ended ? "ended" : "not ended")))),
  )));
  if (found.total > LIMIT) {
    const to = (place) => { location.hash = `#/runs/sweeps?offset=${place}`; };
    const newer = button("Newer", { writes: false, act: () => to(Math.max(0, offset - LIMIT)) }), older = button("Older", { writes: false, act: () => to(offset + LIMIT) });
    newer.disabled = offset === 0;
    older.disabled = offset + LIMIT >= found.total;
    main.append(make("nav", { class: "pager" }, newer, older));
  }
}

export async function showSweep(main, path) {
  const sweep = await read("runs/sweep", { path });
  let by = null, down = false; // the column that is sorted by
  const columns = [
    ["run", (run) => run.number], ...sweep.settings.map((name) => [name, (run) => run.settings[name]]),
    ["held-out loss", (run) => run.value], ["result", (run) => (run.exit_code ? `exit code ${run.exit_code}` : "done")],
  ];
  const table = make("div", { class: "scroll" });
  const choose = make("a", { class: "link-button" }, "Compare");
  const chosen = new Set();
  const mark = () => {
    choose.hidden = chosen.size < 2 || chosen.size > 6;
    choose.href = `#/runs/compare?${new URLSearchParams([...chosen].map((one) => ["path", one]))}`;
  };
  main.append(heading(sweep.name, make("span", { class: "soft" }, sweep.ended ? `${sweep.runs.length} runs` : `${sweep.runs.length} runs have ended so far`), choose, make("a", { class: "link-button", href: "#/runs/sweeps" }, "All sweeps")));
  if (sweep.summary.length) main.append(make("ul", { class: "sentences" }, ...sweep.summary.map((line) => make("li", {}, line))));
  main.append(table);

  function spelled(value) {
    return value === null || value === undefined ? "" : typeof value === "number" ? shortNumber(value) : typeof value === "string" ? value : JSON.stringify(value);
  }

  function compareValues(one, other) {
    if (typeof one === "number" && typeof other === "number") return one - other;
    if ((one ?? null) === null || (other ?? null) === null) return ((one ?? null) === null) - ((other ?? null) === null);
    return spelled(one).localeCompare(spelled(other), undefined, { numeric: true });
  }

  function draw() {
    const value = by === null ? null : columns[by][1];
    const rows = value ? [...sweep.runs].sort((a, b) => (down ? -1 : 1) * compareValues(value(a), value(b))) : sweep.runs;
    const head = columns.map(([name], place) => {
      const sort = make("button", { type: "button", class: "sort" }, name, make("span", { "aria-hidden": "true" }, by === place ? (down ? " ↓" : " ↑") : ""));
      sort.addEventListener("click", () => { down = by === place && !down; by = place; draw(); table.querySelectorAll("button.sort")[place].focus(); });
      return make("th", { scope: "col", "aria-sort": by === place ? (down ? "descending" : "ascending") : "none" }, sort);
    });
    table.replaceChildren(make("table", { class: "values left sweep-table" }, make("thead", {}, make("tr", {}, make("th", {}, ""), ...head)), make("tbody", {}, ...rows.map((run) => {
      const best = run.number === sweep.best;
      const box = make("input", { type: "checkbox", checked: chosen.has(run.folder), disabled: !run.folder, "aria-label": `Compare run ${run.number}` });
      box.addEventListener("change", () => { if (box.checked) chosen.add(run.folder); else chosen.delete(run.folder); mark(); });
      const cells = columns.map(([name, own]) => {
        if (name === "run") return make("th", { scope: "row" }, run.folder ? make("a", { href: runLink(run.folder) }, String(run.number)) : String(run.number), best ? make("strong", { class: "best" }, " best") : "");
        if (name === "result" && run.error) return make("td", { class: "wrap" }, `${own(run)}: ${run.error}`);
        return make("td", { class: "wrap" }, spelled(own(run)));
      });
      return make("tr", { class: best ? "good" : "" }, make("td", {}, box), ...cells);
    }))));
  }
  mark();
  draw();
}
