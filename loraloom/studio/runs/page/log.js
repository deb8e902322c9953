// The log of a job: its end first, what is added as it comes, and what was before on demand.

import { read } from "../api.js";
import { button, fail } from "../parts.js";

const PART = 65536, MOST = 2_000_000, EVERY = 1000; // bytes at once, characters that stay, milliseconds between two looks

// Gives {node, stop}. `running` is asked whether the job may still write.
export function logOf(id, running) {
  const text = make("pre", { class: "log", tabindex: "0", "aria-label": "Log" });
  const follow = make("input", { type: "checkbox", checked: true });
  let at = 0, timer = null, gone = false, whole = "", turn = 0; // turn: of who reads, so that nothing is added twice
  const earlier = button("From the beginning", { writes: false, act: async () => {
    const own = ++turn;
    clearTimeout(timer);
    try {
      let next = 0, all = "";
      for (;;) {
        const found = await read("runs/log", { id, start: next });
        if (gone || own !== turn) return;
        all += found.text;
        if (found.next <= next) break;
        ({ next } = found);
      }
      [at, whole] = [next, all];
      earlier.hidden = true;
      follow.checked = false;
      put();
      text.scrollTop = 0;
    } finally {
      if (!gone && own === turn) timer = setTimeout(look, EVERY);
    }
  } });
  earlier.hidden = true; // until it is known that there is more

  function put() {
    if (whole.length > MOST) whole = whole.slice(-MOST);
    text.textContent = whole;
    if (follow.checked) text.scrollTop = text.scrollHeight;
  }

  async function look(first) {
    if (gone) return;
    const own = turn;
    try {
      const found = await read("runs/log", first ? { id } : { id, start: at });
      if (gone || own !== turn) return;
      if (first) { whole = found.text; earlier.hidden = found.next <= PART; }
      else whole += found.text;
      at = found.next;
      if (found.text || first) put();
      if (running() || found.text) timer = setTimeout(look, EVERY);
      else timer = setTimeout(look, 5 * EVERY); // it may be started, or end, meanwhile
    } catch (error) {
      if (error.status !== 0) fail(error); // 0: there is no answer, as the page says already; it goes on when there is
      else if (!gone && own === turn) timer = setTimeout(look, 5 * EVERY, first);
    }
  }
  look(true);
  const node = make("section", { class: "card" }, make("div", { class: "stage-bar" }, make("h2", {}, "Log"), make("span", { class: "gap" }), make("label", {}, follow, " follow"), earlier), text);
  return { node, stop: () => { gone = true; clearTimeout(timer); } };
}
