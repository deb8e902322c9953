const stages = [by("stage-left"), by("stage-right")];
let voter = data.voter;
let state = null; // what the server, or this page's own list, last said
let began = 0; // when the pair came into view
let away = 0; // milliseconds that the page was hidden since then
let hidden = null;
let busy = false;

// ---- images

const zoom = makeZoom(stages, place);

function place() {
  for (const stage of stages) {
    const frame = stage.querySelector(".frame");
    const image = frame?.querySelector("img");
    if (!image?.naturalWidth) continue;
    const box = stage.getBoundingClientRect();
    const [width, height] = fitted(image, box.width, box.height);
    frame.style.width = `${width}px`;
    frame.style.height = `${height}px`;
    zoom.apply(stage);
  }
  by("zoom").textContent = `${Math.round(zoom.view.zoom * 100)} %`;
}

async function fill(trial) {
  const ready = [];
  for (const [index, side] of ["left", "right"].entries()) {
    const image = make("img", { src: backend.image(trial[side]), alt: "", draggable: false });
    image.addEventListener("load", place);
    stages[index].querySelector(".world").replaceChildren(make("div", { class: "frame" }, image));
    ready.push(image.decode());
  }
  zoom.reset(false);
  try {
    await Promise.all(ready);
  } catch {
    trial.broken = true; // nobody votes on what cannot be seen
    throw new Error("An image of this pair cannot be shown. Skip the pair.");
  }
  place();
}

// ---- where votes go: the server that sent this page, or this page itself

const remote = {
  image: (name) => `${data.image}${name}`,
  async ask(path, more = {}, again = path === "start" || path === "vote") {
    let answer;
    try {
      answer = await fetch(`${data.at}${path}`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ voter, ...data.given, ...more }) });
    } catch {
      if (again) return this.ask(path, more, false); // a connection that was idle for long; the same vote counts once
      throw new Error("The server does not answer. Every vote that was confirmed is kept; start it again and open its new address.");
    }
    const value = await answer.json();
    if (!answer.ok) throw new Error(value.error);
    return value;
  },
};

const local = {
  votes: [],
  order: [], // numbers of pairs, those skipped at the end
  image: (name) => data.images[name],
  store: `loraloom votes ${data.salt}`,
  keep() {
    try { localStorage.setItem(this.store, JSON.stringify(this.votes)); } catch { /* a page from the disk may have no storage: the votes are saved at the end */ }
    by("text").value = this.document();
  },
  document() {
    const rows = this.votes.map(({ number, ...vote }) => vote);
    return JSON.stringify({ format: data.format, salt: data.salt, votes: rows });
  },
  own() { return this.votes.filter((vote) => vote.voter === voter); },
  begin() {
    try { this.votes = JSON.parse(localStorage.getItem(this.store)) ?? []; } catch { this.votes = []; }
    const done = new Set(this.own().map((vote) => vote.number));
    this.order = data.trials.map((_, number) => number).filter((number) => !done.has(number));
    this.keep();
  },
  async ask(path, more = {}) {
    const [number] = this.order;
    if (path === "start") this.begin();
    if (path === "vote") {
      const [left, right] = data.trials[number];
      const id = [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
      this.votes.push({ id, left, right, choice: more.choice, voter, seconds: more.seconds, at: new Date().toISOString(), number });
      this.order.shift();
      this.keep();
    }
    if (path === "skip") this.order.push(this.order.shift());
    if (path === "undo") {
      const last = this.own().at(-1);
      this.votes.splice(this.votes.lastIndexOf(last), 1);
      this.order.unshift(last.number);
      this.keep();
    }
    return this.state();
  },
  state() {
    const own = this.own();
    const times = own.map((vote) => vote.seconds).sort((a, b) => a - b);
    const [number] = this.order;
    const [left, right, prompt] = number === undefined ? [] : data.trials[number];
    return {
      trial: number === undefined ? null : { id: String(number), left, right, prompt },
      done: own.length, total: data.trials.length, undo: own.length > 0, more: false, worth: "",
      seconds_left: times.length ? times[times.length >> 1] * this.order.length : null,
    };
  },
};

const backend = data.mode === "server" ? remote : local;

// ---- one vote

async function act(path, more) {
  if (busy) return;
  busy = true;
  enable();
  try {
    state = await backend.ask(path, more);
    by("fault").hidden = true;
    await show();
  } catch (error) {
    by("fault").textContent = error.message;
    by("fault").hidden = false;
  } finally {
    busy = false;
    enable();
  }
}

function cast(choice) {
  if (!state?.trial || state.trial.broken || busy) return;
  const seconds = Math.round((performance.now() - began - away) / 100) / 10;
  act("vote", { id: state.trial.id, choice, seconds: Math.max(0, Math.min(86400, seconds)) });
}

function enable() {
  for (const button of document.querySelectorAll(".choices button, #more, #undo-end")) button.disabled = busy;
  for (const button of document.querySelectorAll("[data-choice]")) button.disabled = busy || Boolean(state?.trial?.broken);
  by("undo").disabled = by("undo-end").disabled = busy || !state?.undo;
  by("more").hidden = !state?.more;
}

async function show() {
  const { trial, done, total, seconds_left } = state;
  by("start").hidden = true;
  by("pair").hidden = trial === null;
  by("end").hidden = trial !== null;
  by("progress").value = done;
  by("progress").max = Math.max(1, total);
  by("count").textContent = `${done} of ${total}`;
  by("left").textContent = trial && seconds_left ? spellTime(seconds_left) : "";
  if (trial === null) {
    by("thanks").textContent = data.mode === "server"
      ? `${done} ${done === 1 ? "vote is" : "votes are"} saved. loraloom rank shows what they say.`
      : `${done} ${done === 1 ? "vote" : "votes"}. Save them, and send the file to whoever gave you this page.`;
    by("worth").textContent = state.worth;
    return;
  }
  by("prompt").textContent = trial.prompt ?? "";
  by("prompt").hidden = !trial.prompt;
  await fill(trial);
  began = performance.now();
  away = 0;
}

function spellTime(seconds) {
  const minutes = Math.ceil(seconds / 60);
  return minutes < 2 ? "about a minute left" : `about ${minutes} minutes left`;
}

function save() {
  const link = make("a", { href: URL.createObjectURL(new Blob([local.document()], { type: "application/json" })), download: "votes.json" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// ---- keys and buttons

const KEYS = { ArrowLeft: "left", ArrowRight: "right", ArrowDown: "tie", t: "tie", ArrowUp: "both_bad", b: "both_bad" };

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || ["INPUT", "TEXTAREA"].includes(event.target.tagName) || by("help").open) return;
  if (event.key === "?") { by("help").showModal(); return; }
  if (event.key === "u" || event.key === "Backspace") { if (state?.undo) act("undo"); return; }
  if (!state?.trial) return;
  if (event.key in KEYS) { event.preventDefault(); cast(KEYS[event.key]); }
  else if (event.key === "s") act("skip", { id: state.trial.id });
  else if (event.key === "+" || event.key === "=") zoom.to(zoom.view.zoom * 1.5);
  else if (event.key === "-") zoom.to(zoom.view.zoom / 1.5);
  else if (event.key === "0") zoom.reset();
});

document.addEventListener("visibilitychange", () => {
  if (document.hidden) hidden = performance.now();
  else if (hidden !== null) { away += performance.now() - Math.max(hidden, began); hidden = null; }
});

for (const button of document.querySelectorAll("[data-choice]")) button.addEventListener("click", () => cast(button.dataset.choice));
by("skip").addEventListener("click", () => act("skip", { id: state.trial.id }));
by("undo").addEventListener("click", () => act("undo"));
by("undo-end").addEventListener("click", () => act("undo"));
by("more").addEventListener("click", () => act("more"));
by("in").addEventListener("click", () => zoom.to(zoom.view.zoom * 1.5));
by("out").addEventListener("click", () => zoom.to(zoom.view.zoom / 1.5));
by("fit").addEventListener("click", () => zoom.reset());
by("keys").addEventListener("click", () => by("help").showModal());
for (const id of ["save", "save-end"]) by(id)?.addEventListener("click", save);
by("who").addEventListener("submit", (event) => {
  event.preventDefault();
  voter = by("voter").value.trim();
  if (voter) act("start");
});
new ResizeObserver(place).observe(stages[0]);

by("start").hidden = false;
if (voter !== null) {
  by("voter").value = voter;
  by("voter").readOnly = true;
}
by("go").focus();
