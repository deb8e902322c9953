// The plan of the words as they are now: asked 150 ms after the last change; a question that a newer one overtakes is given up.

import { ask, commandOf } from "../api.js";
import { fail, spellBytes, spellSeconds } from "../parts.js";

const WAIT = 150; // milliseconds
const SLOW = 500; // milliseconds after which an answer is said to be on its way

// Gives {node, ask, stop}. `asked` is called before each question, `planned` with its answer; `command` gives the words to copy, `shows` tells whether a setting has a field.
export function planOf({ asked, planned, command, shows }) {
  const page = crypto.randomUUID();
  let number = 0, timer = null, abort = new AbortController(), last = null, slow = null;
  const state = make("p", { class: "soft plan-state", role: "status" }, "The first plan takes a few seconds: torch is loaded.");
  const faults = make("ul", { class: "plan-faults", hidden: true });
  const figures = make("dl", { class: "figures" }), notes = make("ul", { class: "plan-notes", hidden: true });
  const text = make("pre", { class: "plan-text", tabindex: "0", "aria-label": "Plan" });
  const line = make("pre", { id: "new-run-command", tabindex: "0" }), copy = make("button", { type: "button" }, "Copy");
  const node = make("div", { class: "card plan" }, state, faults, figures, notes, text, make("h3", {}, "Command"), make("div", { class: "copyable" }, line, copy));

  function figure(name, value) {
    return value === "" ? [] : [make("div", {}, make("dt", {}, name), make("dd", {}, value))];
  }

  function figuresOf(plan) {
    if (Array.isArray(plan)) {
      const seconds = plan.every((one) => one.seconds_estimate !== null) ? plan.reduce((sum, one) => sum + one.seconds_estimate, 0) : null;
      return [...figure("runs", String(plan.length)), ...figure("time of all", seconds === null ? "" : `about ${spellSeconds(seconds)}`)];
    }
    return [
      ...figure("images", String(plan.pictures)), ...figure("held out", plan.heldout ? String(plan.heldout.pictures ?? plan.heldout.count ?? "") : "none"),
      ...figure("steps", String(plan.config.steps)), ...figure("epochs", plan.epochs === null ? "" : plan.epochs.toFixed(1)),
      ...figure("memory", `about ${spellBytes(plan.memory_peak)}`), ...figure("time", plan.seconds_estimate === null ? "" : `about ${spellSeconds(plan.seconds_estimate)}`), ...figure("disk", spellBytes(plan.disk_bytes)),
    ];
  }

  function show(found) {
    const own = found.faults.filter((fault) => fault.setting === null || !shows(fault.setting));
    const elsewhere = ({ setting }) => (setting === null ? "" : ` (${setting} is not among the settings of this page: give it on the command line.)`);
    faults.replaceChildren(...own.map((fault) => make("li", { class: "field-fault" }, `${fault.text}${elsewhere(fault)}`)));
    faults.hidden = !own.length;
    node.classList.toggle("refused", found.faults.length > 0);
    if (found.faults.length) {
      const beside = found.faults.length - own.length;
      state.textContent = beside ? `${beside} ${beside === 1 ? "setting has a fault" : "settings have faults"}: ${[...new Set(found.faults.filter((fault) => !own.includes(fault)).map((fault) => fault.setting))].join(", ")}` : "This cannot be started yet.";
    } else {
      state.textContent = "Planned: this can be started.";
      figures.replaceChildren(...figuresOf(found.plan));
      notes.replaceChildren(...found.notes.map((note) => make("li", {}, note)));
      notes.hidden = !found.notes.length;
      text.textContent = found.text;
    }
    planned(found);
  }

  async function go(words) {
    const own = ++number;
    abort.abort();
    abort = new AbortController();
    node.setAttribute("aria-busy", "true");
    try {
      const found = await ask("new_run/plan", { words, page, number: own }, { signal: abort.signal });
      if (own === number && !found.overtaken) show(found);
    } catch (error) {
      if (own !== number) return;
      last = null; // the same words may be asked about again
      state.replaceChildren("There is no plan of this. ", again);
      fail(error);
    } finally {
      if (own === number) { clearTimeout(slow); node.removeAttribute("aria-busy"); }
    }
  }

  copies(copy, "new-run-command");
  function question(words) {
    line.textContent = commandOf(command());
    const key = JSON.stringify(words);
    if (key === last) return;
    const wait = last === null ? 0 : WAIT;
    const first = last === null;
    last = key;
    number += 1; // an answer about what was there before is late
    asked();
    clearTimeout(timer);
    clearTimeout(slow);
    if (!first) slow = setTimeout(() => { state.textContent = "Planning …"; }, SLOW);
    timer = setTimeout(() => go(words), wait);
  }
  const again = make("button", { type: "button" }, "Plan again");
  again.addEventListener("click", () => { state.textContent = "Planning …"; question(command().slice(1)); });
  return {
    node,
    ask: question,
    stop: () => { clearTimeout(timer); clearTimeout(slow); number += 1; abort.abort(); },
  };
}
