// The list of grids: newest first, paged, searched; taken up anew when one is begun, goes on or ends.

import { address, read, watch } from "../api.js";
import { fail, heading, nothing } from "../parts.js";
import { linkTo, nameOf, spellCounts, spellStamp, STATES, to } from "./links.js";

const LIMIT = 24;

export async function showList(main, query) {
  let offset = Math.max(0, Number(query.get("offset")) || 0);
  const search = make("input", { type: "search", placeholder: "Search name, base, axes", "aria-label": "Search grids", value: query.get("search") ?? "" });
  const cards = make("div", { class: "grid-cards" });
  const foot = make("div", { class: "stage-bar pager" });
  const queue = make("div", { class: "queue-strip" });
  main.append(heading("Grids", search, linkTo("Choose a checkpoint", "choose"), linkTo("New grid", "new", {}, "primary")), queue, cards, foot);
  let asked = 0;

  async function fill() {
    const own = ++asked;
    const found = await read("grids/list", { offset, limit: LIMIT, search: search.value });
    if (own !== asked) return;
    if (offset && offset >= found.total) { offset = Math.max(0, Math.floor((found.total - 1) / LIMIT) * LIMIT); return fill(); }
    const focused = document.activeElement?.dataset?.folder;
    cards.replaceChildren(...found.rows.map(card));
    if (focused) cards.querySelector(`[data-folder="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
    if (!found.rows.length) cards.replaceChildren(empty(search.value));
    foot.replaceChildren(...pager(found));
  }

  function pager({ total, whole }) {
    const page = (label, at, off) => {
      const node = make("button", { type: "button", disabled: off }, label);
      node.addEventListener("click", () => { offset = at; remember(); fill().catch(fail); main.scrollIntoView({ block: "start" }); });
      return node;
    };
    const cut = whole ? [] : [make("span", { class: "soft" }, "The folders are too many to look into all of them: start the Studio with narrower ones.")];
    if (total <= LIMIT) return cut;
    const last = Math.min(total, offset + LIMIT);
    return [page("Newer", Math.max(0, offset - LIMIT), offset === 0), make("span", { class: "soft" }, `${offset + 1} to ${last} of ${total}`), page("Older", offset + LIMIT, last >= total), ...cut];
  }

  function remember() {
    const values = { ...(offset ? { offset } : {}), ...(search.value ? { search: search.value } : {}) };
    history.replaceState(null, "", to("", values));
  }

  let later = null;
  search.addEventListener("input", () => {
    clearTimeout(later);
    later = setTimeout(() => { offset = 0; remember(); fill().catch(fail); }, 150);
  });
  let lines = []; // of jobs: one stays while only its progress changes, as a link that is drawn anew under the pointer takes no click
  const showJobs = (jobs) => {
    const now = jobs.map(jobLine), same = now.length === lines.length && now.every((line, at) => line.href === lines[at].href && line.children[1].textContent === lines[at].children[1].textContent);
    if (same) now.forEach((line, at) => lines[at].lastChild.replaceWith(line.lastChild));
    else queue.replaceChildren(...(lines = now));
  };
  await fill();
  let first = true;
  const ends = [
    watch("grids", () => { if (first) first = false; else fill().catch(() => {}); }),
    watch("grids-jobs", (jobs) => showJobs((jobs ?? []).filter(({ state }) => state === "running" || state === "waiting"))),
  ];
  return () => { clearTimeout(later); ends.forEach((end) => end()); };
}

function empty(search) {
  if (search) return nothing("No grid has these words in its name, base or axes.");
  return nothing("No grid is below the folders of this Studio yet.", linkTo("New grid", "new", {}, "primary"));
}

function card(row) {
  const state = STATES[row.state];
  const axes = make("p", { class: "chips" }, ...row.axes.map((axis) => make("span", { class: "chip", title: axis.values }, axis.count === null ? `${axis.name}: ${axis.values}` : `${axis.name} × ${axis.count}`)));
  const link = make("a", { class: "grid-card", href: to("grid", { folder: row.folder }) },
    pictures(row),
    make("div", { class: "grid-text" },
      make("strong", {}, nameOf(row)),
      make("span", { class: "soft" }, spellStamp(row.stamp)),
      make("span", {}, [spellCounts(row), state].filter(Boolean).join(" · ")),
      make("span", { class: "soft" }, [row.base, row.votes ? `${row.votes} ${row.votes === 1 ? "vote" : "votes"}` : ""].filter(Boolean).join(" · ")),
      axes));
  link.dataset.folder = row.folder;
  if (row.state === "drawing") link.classList.add("live");
  return link;
}

function jobLine(job) {
  const { progress } = job;
  const far = job.state === "running" && progress?.total ? `${progress.stage} ${progress.done} of ${progress.total}` : job.state;
  const link = job.grid ? to("grid", { folder: job.grid }) : to("job", { id: job.id });
  return make("a", { class: "card job-line", href: link }, make("strong", {}, job.words[0]), make("span", { class: "soft job-words" }, job.words.slice(1).join(" ")), make("span", { class: "gap" }), make("span", {}, far));
}

// The sheet, or the first images.
function pictures(row) {
  const box = make("div", { class: row.sheet ? "grid-pictures sheet-picture" : "grid-pictures tiles" });
  box.dataset.count = String(row.images.length);
  for (const path of row.images) {
    const image = make("img", { src: address("image", { path, side: row.sheet ? 384 : 192, v: row.version }), alt: "", loading: "lazy", decoding: "async" });
    image.addEventListener("error", () => image.remove());
    box.append(image);
  }
  return box;
}
