// What the sections are made of: buttons that show their command, messages, dialogs, tables, thumbnails, paging.

import { address, commandOf } from "./api.js";
import { closed, isQuiet, opening, wait, waited, waits } from "./focus.js";

const page = () => location.hash.split("?")[0];
let shown = null; // the element whose command is in the bar
let led = false; // whether what was done last leads to another page

// Shows a command in the bar below: of what is pointed at or focused, or of what was just done.
export function showCommand(words, kind = "Command") {
  by("command-kind").textContent = kind;
  by("command").textContent = words ? commandOf(words) : "";
  by("command-copy").disabled = !words;
}

// Shows the page's own command, when it was read: not in place of one that was done, nor of that of an open dialog.
export function showOwn(words) {
  if (by("command-kind").textContent !== "Done" && !document.querySelector("dialog[open]")) showCommand(words);
}

// The bar on the way to another page: empty, but for what a button did that led there.
export function leaveCommand() {
  if (!led) showCommand(null);
  led = false;
}

// Marks an element with its command: `words` is a list, or a function that gives it (null: there is none now).
export function withCommand(node, words) {
  const tell = () => {
    const now = typeof words === "function" ? words() : words;
    if (!now || isQuiet()) return;
    shown = node;
    showCommand(now);
  };
  node.addEventListener("pointerenter", tell);
  node.addEventListener("focus", tell);
  node.addEventListener("input", tell);
  return node;
}

// A button. `words` is the command that does the same; `act` may be async: the button waits for it, and what it refuses is shown;
// it may give the command of what it did. `act` is given a function that leads to another page, unless somebody went elsewhere meanwhile.
// `ready` says whether it may be pressed again after it was; one that led to another page is not.
export function button(label, { act, words = null, writes = true, title = "", kind = "", ready = () => true }) {
  const node = make("button", { type: "button", class: kind, title }, label);
  const sealed = () => Boolean(writes && document.body.dataset.sealed);
  if (sealed()) node.disabled = true;
  if (words) withCommand(node, words);
  node.addEventListener("click", async () => {
    wait(node);
    const now = typeof words === "function" ? words() : words; // of what is done: the fields may be empty afterwards
    const here = page();
    let left = false;
    const lead = (to) => { if (page() === here) { left = true; location.hash = to; } };
    try {
      const place = location.hash, made = await act(lead);
      const done = Array.isArray(made) ? made : now; // the command of what was made, where only that is known: a file's name
      led = Boolean(done) && location.hash !== place;
      if (done && (shown === node || !node.isConnected)) showCommand(done, "Done"); // a button that was drawn anew is another node
    } catch (error) {
      fail(error);
    } finally {
      waited(node, sealed() || left || !ready());
    }
  });
  return node;
}

// Lets a button be pressed, or not; one that waits for what it does is let by its `ready` afterwards.
export function allow(node, yes) {
  node.disabled = !yes || waits(node);
}

// A message that goes by itself, or stays until it is closed where it is a fault, or lasts; gives its element.
export function say(text, { fault = false, lasts = fault } = {}, ...more) {
  const close = make("button", { type: "button", title: "Close", "aria-label": "Close" }, "✕");
  const node = make("div", { class: fault ? "message fault" : "message" }, make("pre", {}, text), ...more, close);
  close.addEventListener("click", () => node.remove());
  const sheet = [...document.querySelectorAll("dialog[open]")].pop(); // what is behind an open dialog can be neither seen well nor closed
  if (sheet) node.setAttribute("role", fault ? "alert" : "status");
  (sheet ?? by("messages")).append(node);
  if (fault && !more.length) node.dataset.since = performance.now(); // with a link it is of a job, wherever one goes
  if (!lasts) setTimeout(() => node.remove(), 5000);
  return node;
}

const READ = 5000; // milliseconds after which a fault was seen

// What was wrong on the page before is not said of the next one: but for what has only just come, and for what is of a job.
export function leaveMessages() {
  for (const node of by("messages").querySelectorAll(".message[data-since]")) if (performance.now() - node.dataset.since > READ) node.remove();
}

const told = new WeakSet(); // what two wait for is refused once

export function fail(error) {
  if (error?.name === "AbortError" || told.has(error)) return;
  if (error instanceof Error) told.add(error);
  say(error?.message ?? String(error), { fault: true });
}

// A dialog with a title; gives {dialog, close}. Esc closes it, and the focus goes back to what opened it, as it is drawn then.
export function dialog(title, ...inside) {
  const close = () => node.close();
  const x = make("button", { type: "button", "aria-label": "Close", title: "Close (Esc)" }, "✕");
  x.addEventListener("click", () => { if (node.dispatchEvent(new Event("cancel", { cancelable: true }))) close(); }); // as Esc: what is not saved may be asked about
  const head = make("h2", { id: `title-${crypto.randomUUID()}` }, title);
  const node = make("dialog", { class: "sheet", "aria-labelledby": head.id }, make("div", { class: "stage-bar" }, head, make("span", { class: "gap" }), x), ...inside);
  node.addEventListener("close", () => {
    by("messages").append(...node.querySelectorAll(":scope > .message"));
    node.remove();
    closed(node);
  });
  opening(node);
  document.body.append(node);
  node.showModal();
  return { dialog: node, close };
}

// Asks before something that cannot be undone; true when it is to be done.
export function confirmed(question, label) {
  return new Promise((resolve) => {
    let done = false;
    const yes = button(label, { act: () => { done = true; box.close(); }, kind: "danger" });
    const no = button("Cancel", { act: () => box.close(), writes: false });
    const box = dialog("Sure?", make("p", {}, question), make("div", { class: "stage-bar" }, make("span", { class: "gap" }), no, yes));
    box.dialog.addEventListener("close", () => resolve(done));
  });
}

// An image of a file, as a thumbnail; `version` (its time of change or hash) lets the browser keep it.
export function thumbnail(path, { side = 192, alt = "", version = null } = {}) {
  return make("img", { src: address("image", { path, side, v: version }), alt, loading: "lazy", decoding: "async", class: "thumbnail" });
}

// Another image in the same element: the one before is faint until the new one is there, as what is said of it is the new one's.
export function showImage(node, source) {
  node.src = source;
  node.classList.toggle("coming", !node.complete);
  node.onload = node.onerror = () => node.classList.remove("coming");
}

// A table of facts: rows are [name, text or node].
export function facts(rows) {
  const body = make("tbody");
  for (const [name, value] of rows) if (value !== null && value !== undefined && value !== "") body.append(make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, value)));
  return make("table", { class: "settings" }, body);
}

// Draws a box anew, and keeps what is open in it and what is typed and not saved.
export function drawAnew(box, ...inside) {
  const label = (node) => node.textContent.replace(/\d+/g, "#");
  const open = new Set([...box.querySelectorAll("details[open] > summary")].map(label));
  const name = (node) => node.getAttribute("aria-label") ?? node.closest("label")?.textContent;
  const typed = new Map([...box.querySelectorAll("input")].filter((node) => node.value !== node.defaultValue).map((node) => [name(node), node.value]));
  box.replaceChildren(...inside);
  for (const summary of box.querySelectorAll("details > summary")) if (open.has(label(summary))) summary.parentElement.open = true;
  for (const node of box.querySelectorAll("input")) if (typed.has(name(node))) node.value = typed.get(name(node));
}

export function heading(title, ...actions) {
  return make("div", { class: "heading" }, make("h1", {}, title), make("span", { class: "gap" }), ...actions);
}

export function nothing(text, ...more) {
  return make("div", { class: "nothing" }, make("p", {}, text), ...more);
}

export function spellSeconds(seconds) {
  if (seconds === null || seconds === undefined) return "";
  const whole = Math.round(seconds), hours = Math.floor(whole / 3600), minutes = Math.floor(whole / 60) % 60;
  const two = (number) => String(number).padStart(2, "0");
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

export function spellBytes(count) {
  let value = count;
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (value < 1024) return unit === "B" ? `${value} B` : `${value.toFixed(1)} ${unit}`;
    value /= 1024;
  }
  return `${value.toFixed(1)} TiB`;
}
