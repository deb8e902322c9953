// The lineage of a model as a graph: ancestors above, what was made from it below; every node leads to its model.

import { read } from "../api.js";
import { button, showCommand } from "../parts.js";
import { lineageWords } from "./words.js";

const HEIGHT = 50, ACROSS = 18, DOWN = 46;
const sizes = (width) => (width < 430 ? { WIDTH: Math.max(120, Math.floor((width - ACROSS) / 2)), LETTERS: 17 } : { WIDTH: 176, LETTERS: 22 }); // two beside each other on a phone

const drawn = (tag, given, ...inside) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(given)) node.setAttribute(name, value);
  node.append(...inside);
  return node;
};
const short = (text, letters) => (text.length > letters ? `${text.slice(0, letters - 1)}…` : text);
const natural = new Intl.Collator(undefined, { numeric: true });

export function lineageCard(id, reference) {
  const inside = make("div", { class: "scrolls lineage", tabIndex: 0, role: "region", "aria-label": "Lineage graph" }, make("p", { class: "soft" }, "Tracing…"));
  const facts = make("p", { class: "soft" });
  const card = make("section", { class: "card" }, make("div", { class: "stage-bar" }, make("h2", {}, "Lineage"), button("Show the command", { act: () => showCommand(lineageWords(reference())), words: () => lineageWords(reference()), writes: false })), inside, facts);
  read("models/lineage", { id }).then((graph) => {
    inside.replaceChildren(graph.nodes.length > 1 ? picture(graph, id, Math.max(320, inside.clientWidth)) : make("p", { class: "soft" }, "Nothing is recorded of what it was made from, and nothing that is registered was made from it."));
    const said = [graph.inherited ? `Licence that follows from its sources: ${graph.inherited}.` : "", graph.unknown.length ? `Licence not known: ${graph.unknown.join(", ")}.` : "", graph.more ? `${graph.more} more were made from it.` : ""];
    facts.textContent = said.filter(Boolean).join(" ");
  }).catch((error) => inside.replaceChildren(make("p", { class: "field-fault" }, error.message)));
  return card;
}

// Places the nodes in rows by level; a level that is wider than the card takes several rows.
export function placed(graph, width) {
  const { WIDTH } = sizes(width);
  const levels = new Map();
  for (const node of graph.nodes) levels.set(node.level, [...(levels.get(node.level) ?? []), node]);
  const most = Math.max(1, Math.floor((width + ACROSS) / (WIDTH + ACROSS)));
  const at = new Map();
  const sorted = [...levels.keys()].sort((a, b) => a - b);
  const neighbours = new Map(graph.nodes.map((node) => [node.key, []]));
  for (const line of graph.lines) { neighbours.get(line.above)?.push(line.below); neighbours.get(line.below)?.push(line.above); }
  let y = 0, widest = 0;
  const rows = [];
  for (const level of sorted) {
    const centre = (node) => { const known = neighbours.get(node.key).map((key) => at.get(key)?.x).filter((x) => x !== undefined); return known.length ? known.reduce((a, b) => a + b, 0) / known.length : 0; };
    const nodes = levels.get(level).slice().sort((a, b) => centre(a) - centre(b) || natural.compare(a.name, b.name));
    for (let begin = 0; begin < nodes.length; begin += most) {
      const row = nodes.slice(begin, begin + most);
      row.forEach((node, number) => at.set(node.key, { x: number * (WIDTH + ACROSS), y }));
      widest = Math.max(widest, row.length * (WIDTH + ACROSS) - ACROSS);
      rows.push(row);
      y += HEIGHT + (begin + most < nodes.length ? 16 : DOWN);
    }
  }
  for (const row of rows) {
    const shift = (widest - (row.length * (WIDTH + ACROSS) - ACROSS)) / 2;
    for (const node of row) at.get(node.key).x += shift;
  }
  return { at, width: widest, height: y - DOWN };
}

function picture(graph, id, width) {
  const { WIDTH, LETTERS } = sizes(width);
  const { at, width: wide, height } = placed(graph, width);
  const touching = new Map(graph.nodes.map((node) => [node.key, []]));
  const svg = drawn("svg", { viewBox: `-2 -2 ${wide + 4} ${height + 4}`, width: wide + 4, height: height + 4, role: "group", "aria-label": `${graph.nodes.length} models` });
  for (const line of graph.lines) {
    const above = at.get(line.above), below = at.get(line.below);
    if (!above || !below) continue;
    const from = [above.x + WIDTH / 2, above.y + HEIGHT], to = [below.x + WIDTH / 2, below.y], bend = Math.max(16, (to[1] - from[1]) / 2);
    const path = drawn("path", { d: `M${from[0]} ${from[1]} C${from[0]} ${from[1] + bend} ${to[0]} ${to[1] - bend} ${to[0]} ${to[1]}`, class: "lineage-line" }, drawn("title", {}, line.role));
    for (const key of [line.above, line.below]) touching.get(key).push(path);
    svg.append(path);
  }
  const roles = new Map();
  for (const line of graph.lines) { const key = line.above; roles.set(key, new Set([...(roles.get(key) ?? []), line.role])); }
  for (const node of graph.nodes) {
    const { x, y } = at.get(node.key);
    const what = node.id ? [node.kind, node.family, node.level < 0 ? [...(roles.get(node.key) ?? [])].filter((role) => role !== node.kind).join(", ") : ""].filter(Boolean).join(" · ") : "not registered";
    const shape = [
      drawn("title", {}, `${node.name}\n${what}${node.licence ? `\n${node.licence}` : ""}`), drawn("rect", { x, y, width: WIDTH, height: HEIGHT, rx: 8 }),
      drawn("text", { x: x + 10, y: y + 21, class: "lineage-name" }, short(node.name, LETTERS)), drawn("text", { x: x + 10, y: y + 39, class: "lineage-kind" }, short(what, LETTERS + 2)),
    ];
    const kind = node.id === id ? "own" : node.id ? "" : "hole";
    const shown = node.id && node.id !== id ? drawn("a", { href: `#/models/one/${node.id}`, class: `lineage-node ${kind}`, "aria-label": `${node.name}, ${what}` }, ...shape) : drawn("g", { class: `lineage-node ${kind}` }, ...shape);
    const light = (on) => { for (const path of touching.get(node.key)) path.classList.toggle("lit", on); };
    for (const event of ["pointerenter", "focus"]) shown.addEventListener(event, () => light(true));
    for (const event of ["pointerleave", "blur"]) shown.addEventListener(event, () => light(false));
    svg.append(shown);
  }
  return svg;
}
