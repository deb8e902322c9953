// A run's checkpoint by blind votes: plan, draw, vote, rank, keep the winner as NAME@best.

import { address, ask, read, watch, write } from "../api.js";
import { button, facts, nothing, spellSeconds } from "../parts.js";
import { jobBox } from "./job.js";
import { to } from "./links.js";
import { frameOf } from "./vote.js";

const FIELDS = [
  ["checkpoints", "Checkpoints", "steps, best, last, or all; empty: three over the run, the best and the last among them"],
  ["weights", "Weights", "of each checkpoint; empty: 0.7,1"],
  ["prompts", "Prompts", "captions of held-out images that are drawn (12)"],
  ["seeds", "Seeds", "a prompt (2)"],
];

export async function showChoice(main, query) {
  const run = query.get("run");
  main.append(make("div", { class: "heading" }, make("a", { href: to("") }, "Grids"), make("h1", {}, "Choose a checkpoint")));
  if (!run) return showRuns(main);
  main.append(make("p", { class: "soft where-run" }, run));
  const question = { run, texts: query.getAll("text") };
  const valueOf = (name, text) => (["prompts", "seeds"].includes(name) && /^\d+$/.test(text) ? Number(text) : text);
  for (const [name] of FIELDS) if (query.get(name)) question[name] = valueOf(name, query.get(name));
  const form = make("div", { class: "card" }), plan = make("div", { class: "card", role: "status", "aria-live": "polite" }, make("p", { class: "soft" }, "Planning …")), place = make("div", { class: "voting" });
  main.append(form, plan, place);
  let number = 0, later = null, end = null, followed = null;

  const inputs = FIELDS.map(([name, label, help]) => {
    const input = make("input", { type: "text", autocomplete: "off", spellcheck: false, value: question[name] ?? "" });
    input.addEventListener("input", () => {
      const text = input.value.trim();
      if (!text) delete question[name];
      else question[name] = valueOf(name, text);
      clearTimeout(later);
      later = setTimeout(update, 250);
    });
    return make("label", { class: "field" }, make("span", {}, label), input, make("span", { class: "soft field-help" }, help));
  });
  const texts = make("textarea", { rows: 2, value: question.texts.join("\n") });
  texts.addEventListener("input", () => { question.texts = texts.value.split("\n").filter((one) => one.trim()); clearTimeout(later); later = setTimeout(update, 250); });
  form.append(make("div", { class: "fields" }, ...inputs, make("label", { class: "field" }, make("span", {}, "Prompts of your own"), texts, make("span", { class: "soft field-help" }, "one a line, in place of the captions"))));

  async function update() {
    if (!form.isConnected) return; // another page is shown by now, and the address is that one's
    const mine = ++number, asked = structuredClone(question); // the buttons do what is planned, whatever is typed meanwhile
    const { texts: own, ...given } = question;
    const address = new URLSearchParams([...Object.entries(given), ...own.map((text) => ["text", text])]);
    history.replaceState(null, "", `#/grids/choose?${address}`); // a page that is opened again asks the same
    const slow = setTimeout(() => { if (mine === number) plan.replaceChildren(make("p", { class: "soft" }, "Planning …")); }, 500); // a slow one
    let found;
    try {
      found = await ask("grids/choose_plan", asked);
      found.asked = asked;
    } catch (error) {
      if (mine === number) plan.replaceChildren(...(error.faults?.length ? error.faults : [error.message]).map((text) => make("p", { class: "field-fault" }, text)));
      return;
    } finally {
      clearTimeout(slow);
    }
    if (mine !== number) return;
    const { grid } = found.plan;
    const same = found.folder ? null : found.jobs.find((job) => job.same);
    if (same) follow(same.id);
    plan.replaceChildren(
      facts([
        ["Candidates", found.plan.candidates.join(" | ")],
        ["Images", `${grid.distinct}, ${grid.to_draw} to draw${grid.seconds !== null && grid.to_draw ? `, about ${spellSeconds(grid.seconds)}` : ""}`],
        ["Votes", found.plan.detects],
        ["Winner", `becomes ${found.plan.alias}`],
      ]),
      ...grid.notes.map((note) => make("p", { class: "note" }, note)),
      ...found.jobs.filter((job) => !job.same).map((job) => make("p", { class: "note" }, "Another choice of this run is in the queue: ", make("a", { href: `#/runs/job/${job.id}` }, job.command))),
      make("div", { class: "stage-bar" }, ...(found.folder ? drawn(found) : same ? [] : [draw(found)])),
    );
  }

  const draw = (found) => button("Draw the images", {
    kind: "primary", words: found.words,
    act: async () => {
      follow((await write("grids/choose_draw", found.asked)).id);
      await update();
    },
  });

  // Shows how a job is until it ends; what there is to do then is planned anew.
  function follow(id) {
    if (followed === id) return;
    followed = id;
    const box = jobBox();
    place.replaceChildren(box.node);
    end?.();
    end = watch(`grids-job:${id}`, (now, error) => {
      if (followed !== id) return;
      if (error) box.fail(error); // it was removed
      else box.fill(now);
      if (!error && ["waiting", "running"].includes(now.state)) return;
      followed = null;
      if (error || now.state === "done") place.replaceChildren();
      update();
    });
  }

  const drawn = (found) => [
    button("Vote", {
      kind: "primary", words: found.words.filter((word) => word !== "--no-vote"),
      act: async () => {
        const { session } = await write("grids/choose_vote", found.asked);
        place.replaceChildren(frameOf("Votes", address("grids/ballot", { session })));
      },
    }),
    button("Ranking", { writes: false, words: ["rank", found.folder, "--compare", "adapter"], act: () => { place.replaceChildren(frameOf("Ranking", address("grids/choose_ranking", { question: JSON.stringify(found.asked) }))); } }),
    button(`Keep the winner as ${found.plan.alias}`, {
      words: found.words,
      act: async () => {
        const result = await write("grids/choose", found.asked);
        place.replaceChildren(make("div", { class: "card" }, make("p", { class: result.alias ? "" : "soft", id: "verdict" }, result.verdict), facts([["Alias", result.alias], ["Adapter", result.adapter], ["Votes", String(result.votes)]])));
      },
    }),
    make("a", { class: "as-button", href: to("grid", { folder: found.folder }) }, "Images"),
  ];

  await update();
  return () => { clearTimeout(later); end?.(); };
}

async function showRuns(main) {
  const runs = await read("grids/runs");
  if (!runs.length) { main.append(nothing("No finished training run is below the folders of this Studio.")); return; }
  main.append(make("ul", { class: "card run-list" }, ...runs.map(({ folder, name, stamp }) => make("li", {}, make("a", { href: to("choose", { run: folder }) }, name), make("span", { class: "soft" }, ` ${stamp}`)))));
}
