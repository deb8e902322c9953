// One grid: the report's viewer in a frame, and what can be done with the grid and with the open cell.

import { address, read, watch, write } from "../api.js";
import { button, say } from "../parts.js";
import { linkTo, spellCounts, spellStamp, STATES, to } from "./links.js";

export async function showGrid(main, query) {
  const folder = query.get("folder") ?? "";
  const row = await read("grids/grid", { folder });
  const title = make("h1", {}, row.name);
  const state = make("span", { class: "soft" });
  const actions = make("div", { class: "stage-bar grid-actions" });
  const frame = make("iframe", { class: "grid-frame", title: `The cells of ${row.name}`, src: address("grids/viewer", { folder }) });
  main.classList.add("one-grid");
  main.append(make("div", { class: "heading" }, make("a", { href: to("") }, "Grids"), title, make("span", { class: "soft" }, spellStamp(row.stamp)), state), actions, frame);
  frame.addEventListener("load", () => follow(frame, (key) => { open = key; fill(); }));
  let open = null, now = row;

  function fill() {
    state.textContent = [spellCounts(now), STATES[now.state]].filter(Boolean).join(" · ");
    actions.replaceChildren(...buttons());
  }

  function buttons() {
    const found = [];
    if (now.state === "killed") found.push(mendButton());
    return found;
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
  const end = watch(`grids-grid:${folder}`, (value) => { if (value) { now = value; fill(); } });
  const dark = new MutationObserver(() => theme(frame));
  dark.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
  return () => { end(); dark.disconnect(); };
}

// The frame's page says which cell is open, and is light or dark as this one is.
function follow(frame, tell) {
  tell(null);
  frame.contentDocument?.addEventListener("opencell", (event) => tell(event.detail));
  theme(frame);
}

function theme(frame) {
  const own = frame.contentDocument?.documentElement, chosen = document.documentElement.dataset.theme;
  if (!own) return;
  if (chosen) own.dataset.theme = chosen;
  else delete own.dataset.theme;
}
