// A job of this section: how far it is, the end of its log; a grid is opened as soon as its folder is there.

import { watch, write } from "../api.js";
import { button, spellSeconds } from "../parts.js";
import { stopButton } from "../runs/stop.js";
import { to } from "./links.js";

const WORDS = { waiting: "waits for the jobs before it", running: "runs", done: "is done", failed: "failed", refused: "was refused", interrupted: "was interrupted", lost: "was killed" };

export async function showJob(main, query) {
  const id = query.get("id") ?? "";
  const box = jobBox();
  main.append(make("div", { class: "heading" }, make("a", { href: to("") }, "Grids"), make("h1", {}, "Job")), box.node);
  return watch(`grids-job:${id}`, (job, error) => {
    if (error) { box.fail(error); return; }
    box.fill(job);
    if (job.words[0] === "grid" && job.grid) location.replace(to("grid", { folder: job.grid }));
  });
}

// The button that ends a job: one that waits is removed.
function ending(job) {
  const { id, state } = job;
  if (state === "running") return [stopButton(job, "As Ctrl-C: what is drawn stays")];
  return state === "waiting" ? [button("Remove from the queue", { act: () => write("runs/remove", { id }), words: ["queue", "remove", id] })] : [];
}

// What a page shows of a job: {node, fill(job), fail(text)}.
export function jobBox() {
  const head = make("p", { role: "status" }), command = make("pre", { class: "job-command", tabIndex: 0 });
  const meter = make("div", { class: "meter", hidden: true }, make("span"));
  const log = make("pre", { class: "job-log", tabIndex: 0, "aria-label": "Log", hidden: true });
  const tools = make("div", { class: "stage-bar" });
  let drawn = null;
  return {
    node: make("div", { class: "card" }, make("div", { class: "stage-bar" }, head, make("span", { class: "gap" }), tools), meter, command, log),
    fill(job) {
      const { progress } = job;
      const far = job.state === "running" && progress ? `: ${progress.stage} ${progress.done}${progress.total ? ` of ${progress.total}` : ""}${progress.seconds_left ? `, about ${spellSeconds(progress.seconds_left)} left` : ""}` : "";
      head.textContent = `The job ${WORDS[job.state]}${far}.`;
      meter.hidden = job.state !== "running" || !progress?.total;
      if (!meter.hidden) meter.firstChild.style.width = `${(100 * progress.done) / progress.total}%`;
      command.textContent = job.command;
      const now = `${job.state} ${job.stops}`;
      if (drawn !== now) tools.replaceChildren(...ending(job));
      drawn = now;
      log.hidden = !job.log;
      if (log.textContent !== job.log) log.textContent = job.log;
    },
    fail(text) { head.textContent = text; head.className = "fault"; tools.replaceChildren(); },
  };
}
