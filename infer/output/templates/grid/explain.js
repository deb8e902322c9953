// The tab of the open cell that says how its image came about, as `loraloom explain` has written it, or how to have it written.

const isExplaining = () => state.tab === "explain" && state.open !== null && state.open.image !== null && !comparing();

function showTab(cell, both) {
  by("tabs").hidden = both || cell.image === null;
  const explaining = isExplaining();
  for (const button of by("tabs").children) button.setAttribute("aria-pressed", String((button.dataset.tab === "explain") === explaining));
  by("stage").hidden = explaining;
  by("tools").hidden = explaining;
  by("explained").hidden = !explaining;
  if (explaining) fillExplained(cell);
}

let explainedKey = null; // of the cell that the tab was filled for: it stays where it was scrolled to

function fillExplained(cell) {
  if (explainedKey === cell.key) return;
  explainedKey = cell.key;
  const html = data.explained[cell.key];
  if (html && data.served) { askExplanation(cell); return; }
  by("explained").replaceChildren(...(html ? explanation(cell, html) : wayThere(cell)));
}

async function askExplanation(cell) {
  by("explained").replaceChildren(make("p", { class: "way" }, "Reading …"));
  let inside;
  try {
    const answer = await fetch(`${data.served.panel}&key=${cell.key}`);
    const value = await answer.json();
    if (!answer.ok) throw new Error(value.error);
    inside = explanation(cell, value.html);
  } catch (error) {
    inside = [make("p", { class: "fault" }, error.message)];
  }
  if (explainedKey === cell.key) by("explained").replaceChildren(...inside);
}

// The same as the page of `loraloom explain`, whose template has escaped everything that a person wrote.
function explanation(cell, html) {
  const inner = make("div", { class: "explained" });
  inner.innerHTML = html;
  for (const one of inner.querySelectorAll("img")) one.addEventListener("error", () => { one.alt = "missing: this page was moved without the folder explain/ beside it"; });
  if (data.kind || data.served) return [inner];
  const address = `explain/${cell.key.slice(0, 16)}/explain.html`;
  return [make("p", { class: "actions" }, make("a", { href: address, target: "_blank", rel: "noopener" }, "Open as a page")), inner];
}

function wayThere(cell) {
  if (cell.status === "outside") return [make("p", { class: "way" }, "This image was made elsewhere: nothing is known of how.")];
  const command = make("pre", { id: "explain-command", tabIndex: 0 }, `loraloom explain ${ownFolder()} --cells ${cell.key.slice(0, 16)}`);
  const copy = make("button", { type: "button" }, "Copy");
  const way = make("div", { class: "way" },
    make("p", {}, "This cell is not explained yet. The command draws its image again and puts here: its tokens and the words nearest to them, what it looked like at each step, and what its negative prompt, guidance, start image, ControlNets, embeddings and adapters changed. --all in place of --cells explains every cell. Then load this page again."),
    make("div", { class: "copyable" }, make("div", { class: "stage-bar" }, make("h3", {}, "Command that explains it"), make("span", { class: "gap" }), copy), command));
  setTimeout(() => copies(copy, "explain-command")); // once they are in the page
  return [way];
}

// The folder of this page for a shell; FOLDER where it was moved out of it.
function ownFolder() {
  if (data.served) return forShell(data.served.folder);
  if (location.protocol !== "file:" || !location.pathname.endsWith("/report.html")) return "FOLDER";
  let path = location.pathname.slice(0, -"/report.html".length);
  try { path = decodeURIComponent(path); } catch { /* as it is */ }
  if (/^\/[A-Za-z]:/.test(path)) path = path.slice(1); // Windows
  return forShell(path);
}

const forShell = (path) => /^[\w@%+=:,./-]+$/.test(path) ? path : `'${path.replaceAll("'", `'\\''`)}'`;

function turnTab() {
  if (by("tabs").hidden) return;
  state.tab = state.tab === "explain" ? "image" : "explain";
  showCell();
  if (isExplaining()) by("explained").focus({ preventScroll: true });
}

// What scrolls the tab while it has the focus flips no cell.
function scrollsExplained(event) {
  return by("explained").contains(event.target) && ["ArrowUp", "ArrowDown", "PageUp", "PageDown", "Home", "End", " "].includes(event.key);
}

by("tabs").addEventListener("click", (event) => {
  const { tab } = event.target.dataset;
  if (!tab || tab === state.tab) return;
  state.tab = tab;
  showCell();
});
