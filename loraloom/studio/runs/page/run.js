// A run's page: how far it is, curves and previews as they come, the log, the plan, settings and files.

import { read, watch, write } from "../api.js";
import { followJob } from "../jobs.js";
import { button, confirmed, fail, facts, heading, say, spellBytes, spellSeconds } from "../parts.js";
import { curvesOf } from "./curves.js";
import { logOf } from "./log.js";
import { previewsOf } from "./previews.js";
import { stopButton } from "./stop.js";
import { adapterOf, againLink, chipOf, controlWords, progressNode, removeWords, reportWords, resumeWords, runLink, shortNumber, spellTime } from "./words.js";

const FIRST = ["training_loss", "heldout_loss"]; // the curves above all else
const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);

export async function showRun(main, path) {
  const run = await read("runs/run", { path });
  if (run.state === "elsewhere") { showElsewhere(main, run); return null; }
  let { glance } = run, log = null, gone = false, loading = null;
  const range = run.verdict?.steps ?? null;
  let known = about(run);
  const top = make("div", {}), progress = make("div", {}), logs = make("div", {}), fileTable = make("div", { class: "scroll" });
  const curves = curvesOf(), rest = curvesOf(), previews = previewsOf();
  const others = make("details", { class: "card curves-more" }, make("summary", {}, "More curves"), rest.node);
  const empty = make("p", { class: "soft", role: "status", hidden: true }, "There is no step yet.");
  main.append(top, progress, known, empty, curves.node, previews.node, others, logs, ...more(run, fileTable));

  function actions() {
    const { state, job } = glance;
    const busy = job && ["waiting", "running"].includes(job.state);
    const found = [];
    if (state === "running") {
      found.push(...["save", "sample"].map((what) => request(path, what)));
      if (!busy) found.push(button("Stop", { act: async () => { await write("runs/ask", { path, what: "stop" }); say("It stops after the next step, and saves a checkpoint first."); }, words: () => controlWords(path, "stop"), title: "A checkpoint is saved first" }));
      else found.push(...(job.stops ? [make("span", { class: "soft" }, "stops after this step, and saves a checkpoint")] : []), stopButton(job, "A checkpoint is saved first"));
    } else if (busy && job.state === "running") { // it loads what it goes on with, or writes what it ends with
      found.push(make("span", { class: "soft" }, "its job runs"), stopButton(job, ""));
    } else if (busy) {
      found.push(make("span", { class: "soft" }, "its job waits"));
      found.push(button("Remove from the queue", { act: () => write("runs/remove", { id: job.id }), words: () => removeWords(job.id) }));
    } else {
      if (state === "stopped") found.push(button("Resume", { act: () => write("runs/resume", { path }), words: () => resumeWords(path), kind: "primary" }));
      if (job) found.push(button("Remove from the queue", { words: () => removeWords(job.id), act: async () => {
        if (!await confirmed("The job and its log are removed. The run folder stays.", "Remove")) return;
        await write("runs/remove", { id: job.id });
      } }));
    }
    if (glance.report[0] >= 0) found.push(make("a", { class: "link-button", href: `#/runs/report/${encodeURIComponent(path)}` }, "Open report"));
    else if (state === "stopped" && glance.metrics[0] > 0) found.push(button("Make the report", { act: async () => { const job = await write("runs/make_report", { path }); followJob(job, { added: job.added }); }, words: () => reportWords(path) }));
    found.push(make("a", { class: "link-button", href: againLink(path) }, "Again with changes"));
    if (state === "finished" && run.adapter) found.push(make("a", { class: "link-button", href: `#/grids/new?${new URLSearchParams([["adapter", run.adapter.reference], ...(run.summary.base ? [["base", run.summary.base]] : [])])}` }, "Draw with it"));
    if (state === "finished") found.push(make("a", { class: "link-button", href: `#/grids/choose?${new URLSearchParams({ run: path })}` }, "Choose a checkpoint"));
    return found;
  }

  function draw() {
    const focus = top.contains(document.activeElement) ? document.activeElement.textContent : null;
    top.replaceChildren(heading(run.name, chipOf(glance.state), make("span", { class: "soft" }, spellTime(run.stamp)), ...actions()));
    if (focus) [...top.querySelectorAll("button, a")].find((node) => node.textContent === focus)?.focus({ preventScroll: true });
    if (glance.job && log === null) { log = logOf(glance.job.id, () => glance.state === "running"); log.id = glance.job.id; logs.replaceChildren(log.node); }
    else if (glance.job && log.id !== glance.job.id) { log.stop(); log = null; draw(); return; }
  }

  function drawProgress() {
    const now = glance.state === "running" ? glance : glance.job?.state === "running" ? glance.job : null;
    progress.hidden = !now;
    progress.replaceChildren(...(now ? [make("div", { class: "card" }, progressNode(now.progress))] : []));
  }

  // The curves again: one request at a time, and never more than a fifth of the time.
  function loadCurves() {
    if (loading || gone) return;
    const began = performance.now(), seen = glance.metrics;
    loading = read("runs/curves", { path }).then((found) => {
      if (gone) return;
      empty.hidden = found.charts.length > 0;
      curves.show(found.charts.filter((chart) => FIRST.includes(chart.key)), range);
      rest.show(found.charts.filter((chart) => !FIRST.includes(chart.key)), range);
      others.hidden = found.charts.every((chart) => FIRST.includes(chart.key));
    }).catch((error) => { curves.expect(0); fail(error); }).finally(() => {
      const took = performance.now() - began;
      setTimeout(() => { loading = null; if (!same(seen, glance.metrics)) loadCurves(); }, took * 4);
    });
  }

  // Not from under a preview that is looked at.
  function reloadUnread() {
    if (gone) return;
    if (document.querySelector("dialog[open]")) setTimeout(reloadUnread, 1000);
    else location.reload();
  }

  function showFiles(files) {
    fileTable.replaceChildren(make("table", { class: "values left" }, make("tbody", {}, ...files.map((file) => make("tr", {}, make("th", { scope: "row" }, file.files === null ? file.name : `${file.name}/`), make("td", { class: "number" }, file.files === null ? "" : `${file.files} files`), make("td", { class: "number" }, spellBytes(file.bytes)))))));
  }

  draw();
  drawProgress();
  previews.show(run.previews);
  showFiles(run.files);
  if (glance.metrics[0] > 0) curves.expect(run.summary.heldout_base === null ? 1 : FIRST.length, "Reading the curves …");
  loadCurves();
  const end = watch(`run:${path}`, (value, error) => {
    if (error) { fail(new Error(error)); return; }
    const before = glance;
    glance = value;
    drawProgress();
    if (before.state !== value.state || before.job?.id !== value.job?.id || before.job?.state !== value.job?.state || before.job?.stops !== value.job?.stops || !same(before.report, value.report)) draw();
    if (!same(before.metrics, value.metrics) || !same(before.checkpoints, value.checkpoints)) loadCurves();
    if (!same(before.samples, value.samples)) read("runs/previews", { path }).then((found) => { if (!gone) previews.show(found); }).catch(fail);
    if (before.state === "running" && value.state === "finished") reloadUnread();
    else if (before.state !== value.state) read("runs/run", { path }).then((found) => { if (!gone) { const anew = about(found); known.replaceWith(anew); known = anew; } }).catch(fail);
    else if (!same(before.checkpoints, value.checkpoints)) read("runs/files", { path }).then((found) => { if (!gone) showFiles(found); }).catch(fail);
  });
  return () => { gone = true; end(); log?.stop(); };
}

// What is asked of a training, which answers after its next step.
function request(path, what) {
  const said = { save: "A checkpoint is saved after the next step.", sample: "Previews are drawn after the next step." };
  return button({ save: "Save now", sample: "Sample now" }[what], { act: async () => { await write("runs/ask", { path, what }); say(said[what]); }, words: () => controlWords(path, what) });
}

function about(run) {
  const { summary } = run, running = run.glance.state === "running"; // then progress and curves have it
  const heldout = summary.heldout_best === null ? "" : `${summary.heldout_base === null ? "" : `${shortNumber(summary.heldout_base)} (base) → `}${shortNumber(summary.heldout_best)}`;
  const rows = [
    ["base", summary.base], ["adapter", adapterOf(summary)], ["registered as", run.adapter ? make("a", { href: `#/models/one/${encodeURIComponent(run.adapter.id)}` }, summary.adapter) : summary.adapter], ["images", summary.images === null ? "" : `${summary.images}${run.data ? ` from ${run.data}` : ""}`],
    ["steps", summary.steps === null ? "" : running ? String(summary.steps) : `${summary.step} of ${summary.steps}`], ["held-out loss", running ? "" : heldout], ["took", summary.seconds === null ? "" : spellSeconds(summary.seconds)], ["folder", run.path],
    ["damaged", summary.damaged],
  ].filter(([, value]) => value);
  const list = make("dl", { class: "facts-row" }, ...rows.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
  const sentences = run.sentences.length ? [make("ul", { class: "sentences" }, ...run.sentences.map((one) => make("li", {}, one)))] : [];
  return make("section", { class: "card" }, list, ...sentences);
}

function more(run, fileTable) {
  const settings = make("table", { class: "values left" }, make("tbody", {}, ...run.settings.map(([name, value]) => make("tr", {}, make("th", { scope: "row" }, name), make("td", { class: "wrap" }, value)))));
  return [
    ...(run.plan ? [make("details", { class: "card" }, make("summary", {}, "Plan"), make("pre", { tabindex: "0" }, run.plan))] : []),
    make("details", { class: "card" }, make("summary", {}, `${run.settings.length} settings that are not the defaults`), make("div", { class: "scroll" }, settings), make("pre", { tabindex: "0", class: "again" }, run.command)),
    make("details", { class: "card" }, make("summary", {}, "Files"), fileTable),
  ];
}

function showElsewhere(main, run) {
  main.append(
    heading(run.name, chipOf("elsewhere"), make("span", { class: "soft" }, spellTime(run.stamp)),
      make("a", { class: "link-button", href: againLink(run.path) }, "Again with changes"), make("a", { class: "link-button", href: `#/models/one/${encodeURIComponent(run.id)}` }, "In the registry")),
    make("p", { class: "note" }, "The index has this run, and its folder is not on this machine: it was trained on another one, moved or deleted. Put back at its path below it is shown whole again, and goes on. In the registry it is taken out of the index."),
    make("section", { class: "card" }, facts([
      ["folder", run.path], ["base", run.summary.base], ["adapter", adapterOf(run.summary)], ["steps", run.summary.steps === null ? "" : String(run.summary.steps)], ["registered", spellTime(run.created)],
      ...run.parents.map((parent) => [parent.role, `${parent.ref ?? ""} ${parent.sha256 ? `sha256 ${parent.sha256.slice(0, 12)}` : ""}`]),
    ])),
    make("details", { class: "card" }, make("summary", {}, `${run.settings.length} settings`), make("div", { class: "scroll" }, make("table", { class: "values left" }, make("tbody", {}, ...run.settings.map(([name, value]) => make("tr", {}, make("th", { scope: "row" }, name), make("td", { class: "wrap" }, value))))))),
  );
}
