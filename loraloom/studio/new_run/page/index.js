// New run: what a training begins with, every setting, and its plan as one types.

import { read, write } from "../api.js";
import { allow, button, fail, heading, showCommand } from "../parts.js";
import { formOf } from "./form.js";
import { planOf } from "./plan.js";

export async function show(main, _parts, query) {
  const from = query.get("from"); // read before a field is there: nothing that is typed is written over
  const before = from ? read("new_run/from", { path: from }).catch((error) => { fail(error); return null; }) : null;
  const [described, sources, given] = await Promise.all([read("new_run/settings"), read("new_run/sources"), before]);
  if (!main.isConnected) return null; // another page is shown by now, and the command is that one's
  const first = make("input", { type: "checkbox" }), sweep = make("input", { type: "checkbox" });
  const startWords = () => ["queue", "add", ...(first.checked ? ["--first"] : []), "train", ...words()];
  const words = () => [...(sweep.checked ? ["--multirun"] : []), ...form.words()];

  const start = button("Start", { kind: "primary", words: startWords, title: "Add to the queue: it starts when nothing else runs", ready: () => startable, act: async (lead) => {
    const job = await write("new_run/start", { words: words(), first: first.checked });
    lead(`#/runs/job/${encodeURIComponent(job.id)}?follow=true`);
  } });
  let startable = false; // planned as it is, without a fault
  const changed = () => { showCommand(["train", ...words()]); plan.ask(words()); };
  const form = formOf(described, sources, { changed, sweeping: () => sweep.checked });
  const plan = planOf({
    asked: () => { startable = false; start.disabled = true; }, // until the plan of what is there now has come
    shows: (name) => described.settings.some((row) => row.name === name),
    planned: (found) => { form.faults(found.faults); form.planned(found.plan); startable = !found.faults.length; allow(start, startable && !document.body.dataset.sealed); },
    command: () => ["train", ...words()],
  });
  sweep.addEventListener("change", changed);
  const side = make("aside", { class: "plan-side", "aria-label": "Plan" },
    make("div", { class: "start-bar" }, start, make("label", {}, first, " start first"), make("label", { title: "Run every combination of the comma-separated values: lora.rank=4,8,16" }, sweep, " sweep (--multirun)")),
    plan.node);
  main.append(heading("New run"), make("div", { class: "new-run" }, form.node, side));

  if (given) form.fill(given.words);
  const data = query.get("data");
  if (data) form.fill([["data.path", data]]);
  const base = query.get("base");
  if (base) form.fill([["base", base]]);
  changed();
  return () => plan.stop();
}
