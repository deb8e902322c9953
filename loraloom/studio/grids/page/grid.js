// One grid: the report's viewer in a frame, and what can be done with the grid and with the open cell.

import { address, read, watch, write } from "../api.js";
import { button, dialog, say, spellSeconds, withCommand } from "../parts.js";
import { stopButton } from "../runs/stop.js";
import { jobBox } from "./job.js";
import { refused } from "./frame.js";
import { linkTo, nameOf, spellCounts, spellStamp, STATES, to } from "./links.js";

export async function showGrid(main, query) {
  const folder = query.get("folder") ?? "";
  const row = await read("grids/grid", { folder });
  const title = make("h1", {}, nameOf(row));
  const state = make("span", { class: "soft" });
  const actions = make("div", { class: "stage-bar grid-actions" });
  const frame = make("iframe", { class: "grid-frame", title: `The cells of ${nameOf(row)}`, src: address("grids/viewer", { folder }) });
  main.classList.add("one-grid");
  main.append(make("div", { class: "heading" }, make("a", { href: to("") }, "Grids"), title, make("span", { class: "soft" }, spellStamp(row.stamp)), state), actions, frame);
  frame.addEventListener("load", () => { if (refused(frame)) turn(null); else theme(frame); });
  const told = ({ source, origin, data }) => { if (source === frame.contentWindow && origin === location.origin && data?.opencell !== undefined) turn(data.opencell); };
  addEventListener("message", told); // a cell can be opened before all images are there
  const turn = (key) => { open = key; fill(); };
  let open = null, now = row, unwatch = null;

  let filled = null; // what the buttons are of: one that is drawn anew under the pointer takes no click

  function fill() {
    const { job } = now, left = job?.progress?.seconds_left;
    state.textContent = [spellCounts(now), STATES[now.state], left && `about ${spellSeconds(left)} left`].filter(Boolean).join(" · ");
    const own = JSON.stringify([now.state, open, now.done > 1, now.votes > 0, now.run, job && [job.id, job.stops]]);
    if (own !== filled) actions.replaceChildren(...buttons());
    filled = own;
  }

  function buttons() {
    const found = [];
    if (now.job) found.push(stopButton(now.job, "As Ctrl-C: what is drawn stays"));
    if (now.state === "killed") found.push(mendButton());
    found.push(linkTo("Again with changes", "new", { folder }));
    if (open) found.push(linkTo("Vary this cell", "new", { folder, cell: open }), explainButton(open));
    if (now.done > 1) found.push(linkTo("Vote", "vote", { folder }));
    if (now.votes) found.push(linkTo("Ranking", "ranking", { folder }));
    if (now.run) found.push(linkTo("Choose a checkpoint", "choose", { run: now.run }));
    if (now.state === "done") found.push(scoreButton());
    return found;
  }

  function explainButton(key) {
    return button("Explain this cell", {
      words: ["explain", folder, "--cells", key.slice(0, 16)],
      title: "Draws the cell again and shows in its tab Explain how the image came about",
      act: async () => follows(await write("grids/explain", { folder, key })),
    });
  }

  function scoreButton() {
    return button("Score", {
      words: ["score", folder],
      act: async () => {
        const known = await read("grids/scores");
        const boxes = known.map(({ score, summary, options }) => {
          const box = make("input", { type: "checkbox", value: score });
          const value = make("input", { type: "text", "aria-label": `Options of ${score}`, placeholder: Object.keys(options).length ? Object.keys(options).join(", ") : "", hidden: !Object.keys(options).length });
          return { box, value, node: make("div", { class: "score-choice" }, make("label", {}, box, make("strong", {}, ` ${score}`)), make("span", { class: "soft" }, summary), value) };
        });
        const chosen = () => boxes.filter(({ box }) => box.checked).map(({ box, value }) => (value.value.trim() ? `${box.value}=${value.value.trim()}` : box.value));
        const words = () => ["score", folder, ...chosen().flatMap((one) => ["--score", one])];
        for (const { box, value } of boxes) for (const one of [box, value]) withCommand(one, words);
        const go = button("Score", {
          kind: "primary", words,
          act: async () => {
            const job = await write("grids/score", { folder, scores: chosen() });
            sheet.close();
            follows(job);
          },
        });
        const sheet = dialog("Score the images", make("p", { class: "soft" }, "None ticked: those of the grid's own settings, else those that need nothing. Nothing is drawn."), ...boxes.map(({ node }) => node), make("div", { class: "stage-bar" }, make("span", { class: "gap" }), go));
      },
    });
  }

  // Says how a job is until it ends, and shows what it did.
  function follows(job) {
    const box = jobBox();
    box.node.classList.add("job-of-grid");
    main.querySelector(".job-of-grid")?.remove();
    actions.after(box.node);
    unwatch?.();
    unwatch = watch(`grids-job:${job.id}`, (value, error) => {
      if (error) { box.fail(error); return; }
      box.fill(value);
      if (value.state === "done") box.node.remove();
    });
  }

  function mendButton() {
    return button("Make its report whole", {
      words: ["report", folder],
      title: "The grid was ended before its end: what it drew is shown, and the rest is marked as not drawn",
      act: async () => {
        const { there, cells } = await write("grids/mend", { folder });
        say(`${there} of ${cells} cells are there.`);
        frame.contentWindow.location.reload();
      },
    });
  }

  fill();
  const end = watch(`grids-grid:${folder}`, (value) => {
    if (!value) return;
    const changed = value.state === "done" && now.state === "done" && value.report !== now.report;
    now = value;
    fill();
    if (changed) frame.contentWindow.location.reload(); // scored or explained since
  });
  const dark = new MutationObserver(() => theme(frame));
  dark.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
  return () => { removeEventListener("message", told); end(); unwatch?.(); dark.disconnect(); };
}

// The frame's page is light or dark as this one is.
function theme(frame) {
  const own = frame.contentDocument?.documentElement, chosen = document.documentElement.dataset.theme;
  if (!own) return;
  if (chosen) own.dataset.theme = chosen;
  else delete own.dataset.theme;
}
