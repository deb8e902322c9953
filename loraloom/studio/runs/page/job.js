// The page of a job that is no single run: a grid, a merge, a sweep, or one that failed before it made anything.

import { read, watch, write } from "../api.js";
import { button, confirmed, fail, facts, heading } from "../parts.js";
import { logOf } from "./log.js";
import { stopButton } from "./stop.js";
import { againWords, chipOf, progressNode, removeWords, runLink, spellTime } from "./words.js";

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

  function draw() {
    drawTools();
    const made = make("div", { class: "made-list" }, ...job.made.map((path) => make("div", {}, /[\\/]sweeps[\\/]/.test(path) ? make("a", { href: `#/runs/sweep/${encodeURIComponent(path)}` }, path) : job.words[0] === "train" ? make("a", { href: runLink(path) }, path) : job.words[0] === "grid" ? make("a", { href: `#/grids/grid?${new URLSearchParams({ folder: path })}` }, path) : path)));
    body.replaceChildren(
      ...(job.state === "running" ? [progressNode(job.progress)] : []),
      facts([
        ["command", make("code", {}, job.command)], ["folder", job.folder], ["added", spellTime(job.created)], ["began", spellTime(job.began)],
        ["ended", spellTime(job.ended)], ["exit code", job.exit_code === null ? "" : String(job.exit_code)], ["made", job.made.length ? made : ""],
      ]),
    );
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
