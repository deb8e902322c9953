// The list: what runs and waits, in its order, then runs and jobs that have ended, the newest first.

import { read, watch, write } from "../api.js";
import { allow, button, confirmed, fail, heading, nothing } from "../parts.js";
import { stopButton } from "./stop.js";
import { adapterOf, chipOf, jobLink, madeLink, moveWords, ofJob, pauseWords, progressNode, removeWords, runLink, shortNumber, spellTime } from "./words.js";

const STATES = ["running", "waiting", "finished", "stopped", "failed", "elsewhere"];
const LIMIT = 50;

export async function showList(main, _argument, query) {
  const chosen = new Set();
  const asked = { text: query.get("text") ?? "", state: query.get("state") ?? "", offset: Number(query.get("offset") ?? 0) };
  let version = null, gone = false, paused = false, stuck = false, overtaken = new AbortController();
  let kept = new Map(); // id -> {drawn, node} of a job: a row stays while only its progress changes, as a button that is drawn anew under the pointer takes no click

  const search = make("input", { type: "search", value: asked.text, placeholder: "Name, path or command", "aria-label": "Filter by text" });
  const state = make("select", { "aria-label": "Filter by state" }, make("option", { value: "" }, "all states"), ...STATES.map((one) => make("option", { value: one }, one)));
  state.value = STATES.includes(asked.state) ? asked.state : "";
  const compare = button("Compare", { writes: false, ready: () => comparable(), act: (lead) => { lead(`#/runs/compare?${new URLSearchParams([...chosen].map((path) => ["path", path]))}`); } });
  const stands = () => paused || stuck; // nothing is started
  const pause = button("Pause the queue", { act: async () => { ({ paused } = await write("runs/pause", { paused: !stands() })); stuck = false; showPaused(); }, words: () => pauseWords(stands()) });
  const waits = make("p", { class: "note", role: "status", hidden: true }, "Nothing runs, and jobs wait: what should have started the next one was killed, or the machine went off. ", make("code", {}, "loraloom queue start"), " goes on.");
  const active = make("ol", { class: "active-jobs", "aria-label": "Jobs that run and wait" });
  const index = make("div", { class: "note fault", role: "status", hidden: true }); // why the runs of the index are not among them
  const table = make("div", { class: "scroll" });
  const pager = make("nav", { class: "pager", "aria-label": "Pages" });
  main.append(
    heading("Runs", pause, make("a", { class: "link-button", href: "#/runs/sweeps" }, "Sweeps"), make("a", { class: "link-button primary", href: "#/new_run" }, "New run")),
    index, waits, active,
    make("div", { class: "filters" }, search, state, make("span", { class: "gap" }), compare),
    table, pager,
  );

  function showPaused() {
    waits.hidden = !stuck;
    pause.textContent = stands() ? "Start the queue" : "Pause the queue";
    active.classList.toggle("paused", paused);
  }

  function showActive(jobs) {
    const wanted = jobs.filter((job) => (!asked.state || ofJob(job.state) === asked.state) && (!asked.text || job.command.toLowerCase().includes(asked.text.toLowerCase())));
    const waiting = jobs.filter((job) => job.state === "waiting").map((job) => job.id);
    const focus = active.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    const rows = wanted.map((job) => {
      const drawn = JSON.stringify([job.state, job.stops, job.command, job.made, job.state === "waiting" && [waiting, paused]]);
      const before = kept.get(job.id), own = before?.drawn === drawn ? before : { drawn, node: activeRow(job, waiting) };
      if (own === before && job.state === "running") own.node.lastChild.replaceWith(progressNode(job.progress));
      return [job.id, own];
    });
    kept = new Map(rows);
    const nodes = rows.map(([, { node }]) => node);
    if (nodes.length !== active.children.length || nodes.some((node, at) => node !== active.children[at])) active.replaceChildren(...nodes);
    active.hidden = !wanted.length;
    if (focus) [...active.querySelectorAll("[data-key]")].find((node) => node.dataset.key === focus && !node.disabled)?.focus({ preventScroll: true });
  }

  function activeRow(job, waiting) {
    const run = job.made.at(-1);
    const title = make("a", { href: run && job.words[0] === "train" ? runLink(run) : jobLink(job.id), class: "job-command", title: job.command }, job.command.replace(/^loraloom /, ""));
    title.dataset.key = `${job.id} title`;
    const tools = make("div", { class: "tools" });
    const put = (node, key) => { node.dataset.key = `${job.id} ${key}`; tools.append(node); return node; };
    const add = (label, options, key) => put(button(label, options), key);
    if (job.state === "running") {
      put(stopButton(job, "A training saves a checkpoint first"), job.stops ? "end" : "stop");
      return make("li", { class: "job running" }, make("div", { class: "job-head" }, chipOf(job.state), title, tools), progressNode(job.progress));
    }
    const move = async (place) => { if (moveWords(waiting, job.id, place)) await write("runs/move", { id: job.id, place }); };
    for (const [place, sign, words] of [["first", "⤒", "First"], ["up", "↑", "Up"], ["down", "↓", "Down"], ["last", "⤓", "Last"]]) {
      const node = add(sign, { act: () => move(place), words: () => moveWords(waiting, job.id, place), title: `${words} (Alt+${{ first: "Home", up: "↑", down: "↓", last: "End" }[place]})` }, place);
      node.setAttribute("aria-label", `${words}: ${job.command}`);
      if (!moveWords(waiting, job.id, place)) node.disabled = true;
    }
    add("Remove", { act: () => write("runs/remove", { id: job.id }), words: () => removeWords(job.id) }, "remove");
    const place = waiting.indexOf(job.id) + 1;
    const row = make("li", { class: "job waiting" }, make("div", { class: "job-head" }, make("span", { class: "state waiting" }, paused ? `${place}. paused` : `${place}. waiting`), title, tools));
    row.addEventListener("keydown", (event) => {
      const to = event.altKey && { Home: "first", ArrowUp: "up", ArrowDown: "down", End: "last" }[event.key];
      if (!to || document.body.dataset.sealed) return;
      event.preventDefault();
      move(to).catch(fail);
    });
    return row;
  }

  function row(entry) {
    const { summary, job } = entry;
    const title = entry.path ? make("a", { href: runLink(entry.path), title: entry.path }, entry.name) : make("a", { href: jobLink(job.id), class: "job-command", title: job.command }, job.command.replace(/^loraloom /, ""));
    const box = make("input", { type: "checkbox", "aria-label": `Compare ${entry.name ?? "this job"} ${entry.stamp}`, checked: chosen.has(entry.path), disabled: !entry.here });
    box.addEventListener("change", () => { if (box.checked) chosen.add(entry.path); else chosen.delete(entry.path); showChosen(); });
    const made = job && !entry.path && job.made.length ? make("span", { class: "soft made" }, madeLink(job, job.made.at(-1))) : "";
    const steps = summary.steps === null ? "" : summary.step === summary.steps || !entry.here ? String(summary.steps) : `${summary.step} of ${summary.steps}`;
    const heldout = summary.heldout_best === null ? "" : summary.heldout_base === null ? shortNumber(summary.heldout_best) : `${shortNumber(summary.heldout_base)} → ${shortNumber(summary.heldout_best)}`;
    const span = (name, value) => make("td", { class: name }, value);
    return make("tr", {}, make("td", { class: "box" }, box), make("th", { scope: "row" }, title, made), make("td", {}, chipOf(entry.path ? entry.state : job.state)),
      span("wide", summary.base ?? ""), span("wide", adapterOf(summary)), span("number wide", summary.images === null ? "" : String(summary.images)), span("number", steps),
      span("number middle", shortNumber(summary.loss)), span("number middle", heldout), span("time", spellTime(entry.stamp)));
  }

  const comparable = () => chosen.size >= 2 && chosen.size <= 6;

  function showChosen() {
    allow(compare, comparable());
    compare.textContent = chosen.size ? `Compare ${chosen.size}` : "Compare";
    compare.title = "Choose 2 to 6 runs";
  }

  async function load() {
    overtaken.abort();
    overtaken = new AbortController();
    let found;
    try {
      found = await read("runs/list", { ...asked, limit: LIMIT }, { signal: overtaken.signal });
    } catch (error) { fail(error); return; }
    if (gone) return;
    ({ paused, stuck } = found);
    showPaused();
    index.hidden = !found.index;
    index.textContent = found.index ? `Only the runs that lie below these folders, or that a job has made, are shown. ${found.index}` : "";
    if (asked.offset && asked.offset >= found.total) { asked.offset = Math.max(0, Math.floor((found.total - 1) / LIMIT) * LIMIT); await load(); return; }
    showActive(found.active);
    if (found.rows.length) {
      const names = [["box", ""], ["", "run"], ["", "state"], ["wide", "base"], ["wide", "adapter"], ["number wide", "images"], ["number", "steps"], ["number middle", "loss"], ["number middle", "held-out loss"], ["time", "begun"]];
      table.replaceChildren(make("table", { class: "values left runs-table" }, make("thead", {}, make("tr", {}, ...names.map(([kind, name]) => make("th", { class: kind, scope: "col" }, name)))), make("tbody", {}, ...found.rows.map(row))));
    } else {
      table.replaceChildren(nothing(asked.text || asked.state ? "No run matches." : "No runs yet.", ...(asked.text || asked.state ? [] : [make("a", { href: "#/new_run" }, "Start the first one")])));
    }
    const to = (offset) => { asked.offset = offset; load(); };
    const last = Math.min(found.total, asked.offset + LIMIT);
    pager.replaceChildren(...(found.total > LIMIT ? [
      button("Newer", { writes: false, act: () => to(Math.max(0, asked.offset - LIMIT)) }),
      make("span", { class: "soft" }, `${asked.offset + 1} to ${last} of ${found.total}`),
      button("Older", { writes: false, act: () => to(asked.offset + LIMIT) }),
    ] : []));
    if (found.total > LIMIT) { pager.firstChild.disabled = asked.offset === 0; pager.lastChild.disabled = last === found.total; }
    showChosen();
  }

  let due = null;
  const filter = () => {
    Object.assign(asked, { text: search.value.trim(), state: state.value, offset: 0 });
    const values = new URLSearchParams(Object.entries(asked).filter(([, value]) => value)).toString();
    history.replaceState(null, "", values ? `#/runs?${values}` : "#/runs");
    load();
  };
  search.addEventListener("input", () => { clearTimeout(due); due = setTimeout(filter, 200); });
  state.addEventListener("change", filter);

  await load();
  const end = watch("runs", (value, error) => {
    if (error) { fail(new Error(error)); return; }
    ({ paused, stuck } = value);
    showPaused();
    showActive(value.active);
    if (version !== null && version !== value.version) load();
    ({ version } = value);
  });
  return () => { gone = true; clearTimeout(due); overtaken.abort(); end(); };
}
