// What is told of a job that a button has started, wherever one goes meanwhile: that it waits or runs until it ends, and how it ended.

import { watch } from "./api.js";
import { say } from "./parts.js";

const link = ({ id }) => make("a", { href: `#/runs/job/${encodeURIComponent(id)}` }, "Job");

const ENDS = { failed: "failed", refused: "was refused", interrupted: "was interrupted", lost: "was killed" };
const shown = new Map(); // id -> ends what is told of it: one message a job

// `ended` is called when it is done. `added` is false of a job that was there before.
export function followJob(job, { added = true, ended = () => {} } = {}) {
  shown.get(job.id)?.();
  const text = ({ state, command }) => `${state === "waiting" ? "Waits in the queue" : "Runs"}${added ? "" : " already"}: ${command}`;
  const node = say(text(job), { lasts: true }, link(job));
  let over = false, stop = () => {};
  const close = () => { over = true; stop(); node.remove(); shown.delete(job.id); };
  shown.set(job.id, close);
  stop = watch(`job:${job.id}`, (now, error) => {
    if (error) { close(); return; } // it was removed
    if (["waiting", "running"].includes(now.state)) { node.querySelector("pre").textContent = text(now); return; }
    close();
    if (now.state === "done") { say(`Done: ${now.command}`); ended(); } else say(`The job ${ENDS[now.state]}: ${now.command}`, { fault: true }, link(now));
  });
  if (over) stop(); // its end was known at once
}
