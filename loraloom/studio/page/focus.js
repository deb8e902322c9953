// The focus stays where it was when a part of the page is drawn anew: its element is found again by its label and its row.

let last = null; // what was focused or pressed last, and where it was
let quiet = false; // the focus is given back: nobody went there, so its command is not shown
const waiting = new Set(); // buttons that wait: a browser takes the focus from them
const openers = new WeakMap(); // dialog -> what was focused when it was opened

export const isQuiet = () => quiet;

const ROWS = "tr, li, article, [data-name]"; // what there are many of, with the same buttons in each
const words = (node) => (node?.textContent ?? "").trim().replace(/\s+/g, " ");

function nameOf(row) {
  const head = row.querySelector("a[href], h1, h2, h3, th, strong");
  return row.dataset.name ?? head?.getAttribute("href") ?? words(head);
}

function rowsOf(node) {
  const found = [];
  for (let row = node.closest(ROWS); row; row = row.parentElement?.closest(ROWS)) found.push(nameOf(row));
  return found.join("\n");
}

const labelOf = (node) => node.getAttribute("aria-label") ?? (node.id || words(node.closest("label")) || node.placeholder || words(node)); // not node.labels: each looks through the page
const bare = (label) => label.replace(/\d+/g, "#"); // a count in a label may be another one now
const page = () => location.hash.split("?")[0];
const onTop = () => [...document.querySelectorAll("dialog[open]")].pop() ?? null;
const lost = () => !document.activeElement || document.activeElement === document.body;

// What `node` shares its label and row with, in the order of the page.
function alike(node, place, spell = (label) => label) {
  return [...document.querySelectorAll(place.tag)].filter((one) => one.closest("dialog") === place.sheet && spell(labelOf(one)) === spell(place.label) && rowsOf(one) === place.rows);
}

function placeOf(node) {
  const place = { node, tag: node.localName, sheet: node.closest("dialog"), label: labelOf(node), rows: rowsOf(node), page: page() };
  const all = alike(node, place);
  return { ...place, at: all.indexOf(node), of: all.length };
}

// The element of a place as it is drawn now; null where there is none, or where it cannot be said which of several it is.
function found(place) {
  if (place.node.isConnected) return place.node;
  if (place.page !== page()) return null;
  for (const spell of [(label) => label, bare]) {
    const all = alike(place.node, place, spell);
    if (all.length === 1 || (all.length && all.length === place.of)) return all[Math.min(place.at, all.length - 1)] ?? null;
    if (all.length) return null;
  }
  return null;
}

function give(node, before) {
  quiet = true;
  node.focus({ preventScroll: true });
  quiet = false;
  if (node !== before && Number.isInteger(before.selectionStart) && Number.isInteger(node.selectionStart)) node.setSelectionRange(before.selectionStart, before.selectionEnd);
}

// Gives the focus back where a browser took it from what is drawn anew, or from a button that waited.
function regain() {
  if (!last || !lost() || onTop() !== last.sheet) return;
  const node = found(last);
  if (node && !node.disabled) give(node, last.node);
  else if (last.back && !waiting.has(node)) toFirst(); // a dialog was closed, and what opened it is gone
}

const toFirst = () => (onTop()?.querySelector("a[href], button, input, select, textarea") ?? by("main")).focus({ preventScroll: true });

function remember(node) {
  const own = node?.closest?.("a[href], button, input, select, textarea, summary, [tabindex]");
  last = own && own !== document.body && own.id !== "main" ? placeOf(own) : null;
}

export const waits = (node) => waiting.has(node);

// A button that waits is disabled; the focus is given back when it does not any more.
export function wait(node) {
  waiting.add(node);
  node.disabled = true;
}

export function waited(node, disabled) {
  waiting.delete(node);
  node.disabled = disabled;
  regain();
}

// To be called before a dialog is shown, and when it is closed: the focus goes back to what opened it, or to the section.
export function opening(sheet) {
  if (!lost()) remember(document.activeElement);
  openers.set(sheet, last);
}

export function closed(sheet) {
  let opener = openers.get(sheet);
  while (opener?.sheet && !opener.sheet.open) opener = openers.get(opener.sheet); // a dialog on a dialog, and both are closed
  if (!lost()) return;
  last = opener ? { ...opener, back: true } : null;
  if (last) regain();
  else toFirst();
}

// To be called once: follows the focus, and what is drawn anew.
export function keepFocus() {
  document.addEventListener("focusin", (event) => remember(event.target));
  document.addEventListener("click", (event) => { if (event.isTrusted) remember(event.target); }, true); // some browsers do not focus a button that is clicked
  document.addEventListener("focusout", (event) => {
    const { target } = event;
    queueMicrotask(() => { if (last?.node === target && target.isConnected && !target.disabled && lost()) last = null; }); // it was left
  });
  new MutationObserver(() => { if (last && !last.node.isConnected) regain(); }).observe(document.body, { childList: true, subtree: true });
}
