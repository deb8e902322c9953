// New run: what a training begins with, every setting, and its plan as one types.

import { read, write } from "../api.js";
import { button, fail, heading, showCommand } from "../parts.js";
import { formOf } from "./form.js";
import { planOf } from "./plan.js";

export async function show(main, _parts, query) {
  const [described, sources] = await Promise.all([read("new_run/settings"), read("new_run/sources")]);
  const first = make("input", { type: "checkbox" }), sweep = make("input", { type: "checkbox" });
  const startWords = () => ["queue", "add", ...(first.checked ? ["--first"] : []), "train", ...words()];
  const words = () => [...(sweep.checked ? ["--multirun"] : []), ...form.words()];

  const start = button("Start", { kind: "primary", words: startWords, title: "Add to the queue: it starts when nothing else runs", act: async () => {
    const job = await write("new_run/start", { words: words(), first: first.checked });
    location.hash = `#/runs/job/${encodeURIComponent(job.id)}?follow=true`;
  } });
  const changed = () => { showCommand(["train", ...words()]); plan.ask(words()); };
  const form = formOf(described, sources, { changed, sweeping: () => sweep.checked });
  const plan = planOf({
    asked: () => { start.disabled = true; }, // until the plan of what is there now has come
    shows: (name) => described.settings.some((row) => row.name === name),
    planned: (found) => { form.faults(found.faults); form.planned(found.plan); start.disabled = Boolean(document.body.dataset.sealed) || found.faults.length > 0; },
    command: () => ["train", ...words()],
  });
  sweep.addEventListener("change", changed);
  const side = make("aside", { class: "plan-side", "aria-label": "Plan" },
    make("div", { class: "start-bar" }, start, make("label", {}, first, " start first"), make("label", { title: "Run every combination of the comma-separated values: lora.rank=4,8,16" }, sweep, " sweep (--multirun)")),
    plan.node);
  main.append(heading("New run"), make("div", { class: "new-run" }, form.node, side));

  const from = query.get("from");
  if (from) {
    try {
      form.fill((await read("new_run/from", { path: from })).words);
    } catch (error) { fail(error); }
  }
  const data = query.get("data");
  if (data) form.fill([["data.path", data]]);
  const base = query.get("base");
  if (base) form.fill([["base", base]]);
  changed();
  return () => plan.stop();
}
