// Requests to the server of the Studio, and topics that are watched. Addresses are relative: the page's own begins with the token.

export class Refusal extends Error {
  constructor(message, faults, status) {
    super(message);
    this.faults = faults; // several refusals in one, each with its text
    this.status = status;
  }
}

const NOTHING = "There is nothing here."; // as the server says of what is not below its token

async function answered(request) {
  let response;
  try {
    response = await request;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    by("offline").hidden = false;
    throw new Refusal("The Studio's server does not answer.", [], 0);
  }
  let value;
  try {
    value = await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(`The Studio's server did not understand this: ${response.status} ${response.statusText}.`, [], response.status);
  }
  const ended = response.status === 404 && value.error === NOTHING; // another Studio has the port now
  by("offline").hidden = !ended;
  if (ended) throw new Refusal("The Studio of this page has ended. Open the address of the one that runs now.", [], 404);
  if (!response.ok) throw new Refusal(value.error ?? response.statusText, value.faults ?? [], response.status);
  return value;
}

// The address of an answer, for links and images: address("image", {path, side: 256}).
export function address(path, values = {}) {
  const query = new URLSearchParams(Object.entries(values).filter(([, value]) => value !== null && value !== undefined));
  return `api/${path}${query.size ? `?${query}` : ""}`;
}

export const read = (path, values = {}, { signal } = {}) => answered(fetch(address(path, values), { signal, cache: "no-store" }));

const body = (path, values, signal) =>
  answered(fetch(`api/${path}`, { method: "POST", signal, headers: { "Content-Type": "application/json" }, body: JSON.stringify(values) }));

// Something is changed (write), or asked with values that are too long for an address (ask).
export const write = (path, values = {}, { signal } = {}) => body(path, values, signal);
export const ask = (path, values = {}, { signal } = {}) => body(path, values, signal);

export const upload = (path, bytes, values = {}) =>
  answered(fetch(address(path, values), { method: "POST", headers: { "Content-Type": "application/octet-stream" }, body: bytes }));

// --- topics. One connection for all pages of a browser, held by a shared worker: HTTP/1.1 has six connections a host.

const watched = new Map(); // topic -> Set of functions
const latest = new Map();
let post = null;

function connect() {
  if (post) return;
  const arrived = (event) => {
    const { topic, value, error, open } = event.data;
    if (open !== undefined) { by("offline").hidden = open; return; }
    latest.set(topic, event.data);
    for (const tell of watched.get(topic) ?? []) tell(value, error);
  };
  if (globalThis.SharedWorker) {
    const { port } = new SharedWorker("app/events.js", { name: location.pathname });
    port.onmessage = arrived;
    post = (message) => port.postMessage(message);
  } else {
    const worker = new Worker("app/events.js");
    worker.onmessage = arrived;
    post = (message) => worker.postMessage(message);
  }
  addEventListener("pagehide", () => post({ topics: [] }));
  addEventListener("pageshow", (event) => { if (event.persisted) post({ topics: [...watched.keys()] }); });
}

// Calls tell(value, error) with a topic's value now and whenever it changes; gives a function that ends it.
export function watch(topic, tell) {
  connect();
  if (!watched.has(topic)) {
    watched.set(topic, new Set());
    latest.delete(topic);
  }
  watched.get(topic).add(tell);
  if (latest.has(topic)) tell(latest.get(topic).value, latest.get(topic).error);
  post({ topics: [...watched.keys()] });
  return () => {
    const tells = watched.get(topic);
    if (!tells?.delete(tell)) return;
    if (!tells.size) watched.delete(topic);
    post({ topics: [...watched.keys()] });
  };
}

// --- commands, as a shell takes them

const HIDDEN = /[\u0000-\u001f\u007f-\u009f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]/gu;

const escaped = (letter) => {
  const code = letter.charCodeAt(0);
  const bytes = code >= 0xdc80 && code <= 0xdcff ? [code - 0xdc00] : new TextEncoder().encode(letter); // a byte of a name that is no UTF-8
  return [...bytes].map((byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join("");
};

// What a terminal acts on, or shows in another order, is an escape, as in the commands' own messages (registry/printable.py).
export function shellWord(word) {
  if (word.search(HIDDEN) >= 0) return `$'${word.replace(/[\\']/g, "\\$&").replace(HIDDEN, escaped)}'`;
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`;
}
export const commandOf = (words) => ["loraloom", ...words].map(shellWord).join(" ");
