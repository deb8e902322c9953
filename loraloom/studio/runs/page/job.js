// The page of a job that is no single run: a grid, a merge, a sweep, or one that failed before it made anything.

import { read, watch, write } from "../api.js";
import { button, confirmed, fail, facts, heading } from "../parts.js";
import { logOf } from "./log.js";
import { stopButton } from "./stop.js";
import { againWords, chipOf, madeLink, progressNode, removeWords, runLink, spellTime } from "./words.js";

export async function showJob(main, id, query) {
  let job = await read("runs/job", { id });
  if (!main.isConnected) return null; // another page is shown by now
  // A training that was just started: its run's page, as soon as it has one.
  const follow = () => {
    const [run] = job.made;
    if (query.get("follow") !== "true" || !run || job.words[0] !== "train" || job.words.includes("--multirun")) return false;
    location.replace(runLink(run));
    return true;
  };
  if (follow()) return null;
  const top = make("div", { class: "run-top" }), body = make("div", { class: "card" });
  const ended = () => !["waiting", "running"].includes(job.state);
  const log = logOf(id, () => !ended());
  main.append(top, body, log.node);

  let tooled = null; // what the buttons are of: one that is drawn anew under the pointer takes no click

  function drawTools() {
    if (tooled === `${job.state} ${job.stops}`) return;
    tooled = `${job.state} ${job.stops}`;
    const tools = [];
    if (job.state === "running") tools.push(stopButton(job, ""));
    else {
      if (ended()) tools.push(button("Run again", { act: async (lead) => { const found = await write("runs/again", { id }); lead(`#/runs/job/${encodeURIComponent(found.id)}`); }, words: () => againWords(id) }));
      tools.push(button("Remove", { kind: "danger", words: () => removeWords(id), act: async (lead) => {
        if (!await confirmed("The job and its log are removed; what it has made stays.", "Remove")) return;
        await write("runs/remove", { id });
        lead("#/runs");
      } }));
    }
    top.replaceChildren(heading("Job", chipOf(job.state), ...tools));
  }

  const progress = make("div"), about = make("div"), made = make("div", { class: "made-list" });
  let known = null; // what `about` shows
  body.append(progress, about);

  // Only what has changed: what is selected or focused in the rest stays so.
  function draw() {
    drawTools();
    progress.replaceChildren(...(job.state === "running" ? [progressNode(job.progress)] : []));
    progress.hidden = job.state !== "running";
    made.append(...job.made.slice(made.children.length).map((path) => make("div", {}, madeLink(job, path)))); // it only grows
    const { command, folder, created, began, ended: end, exit_code: code } = job;
    const now = JSON.stringify([job.state, began, end, code, job.made.length > 0]);
    if (now === known) return;
    known = now;
    const lost = code === null ? "not known: what watched over it was killed, or the machine went off" : `killed by signal ${-code}`;
    about.replaceChildren(facts([
      ["command", make("code", {}, command)], ["folder", folder], ["added", spellTime(created)], ["began", spellTime(began)],
      ["ended", spellTime(end)], ["exit code", code === null ? "" : String(code)], ["how it ended", job.state === "lost" ? lost : ""], ["made", job.made.length ? made : ""],
    ]));
  }
  draw();
  const end = watch(`job:${id}`, (value, error) => {
    if (error) { fail(new Error(error)); return; }
    const before = job.state;
    job = value;
    if (follow()) return;
    if (!ended() || before !== job.state) draw();
  });
  return () => { log.stop(); end(); };
}
