// What the pages of the section share: links, states, times, progress, and the command line of each action.

import { spellSeconds } from "../parts.js";

export const runLink = (path) => `#/runs/run/${encodeURIComponent(path)}`;
export const jobLink = (id) => `#/runs/job/${encodeURIComponent(id)}`;
export const againLink = (path) => `#/new_run?from=${encodeURIComponent(path)}`;

// A folder that a job has made, with the page that shows it.
export function madeLink({ words: [word] }, path) {
  const to = /[\\/]sweeps[\\/]/.test(path) ? `#/runs/sweep/${encodeURIComponent(path)}` : word === "train" ? runLink(path) : word === "grid" ? `#/grids/grid?${new URLSearchParams({ folder: path })}` : null;
  return to ? make("a", { href: to }, path) : path;
}

// Of a job's state what it is in the list.
const OF_JOBS = { done: "finished", refused: "failed", lost: "failed", interrupted: "stopped" };
export const ofJob = (state) => OF_JOBS[state] ?? state;

export function chipOf(state) {
  return make("span", { class: `state ${ofJob(state)}` }, state);
}

// "20261129-183806" (UTC) or ISO 8601 as local time.
export function spellTime(text) {
  if (!text) return "";
  const found = /^(\d{4})(\d\d)(\d\d)-(\d\d)(\d\d)(\d\d)/.exec(text);
  const at = found ? new Date(Date.UTC(...found.slice(1).map(Number).map((one, place) => (place === 1 ? one - 1 : one)))) : new Date(text);
  if (Number.isNaN(at.getTime())) return text;
  const two = (number) => String(number).padStart(2, "0");
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${two(at.getHours())}:${two(at.getMinutes())}`;
}

export function shortNumber(value) {
  if (value === null || value === undefined) return "";
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e6) return String(value);
  return size !== 0 && (size < 0.001 || size >= 1e5) ? value.toExponential(2) : String(Number(value.toPrecision(4)));
}

// A meter with what is known of a job's progress in words.
export function progressNode(progress) {
  if (!progress) return make("p", { class: "soft" }, "starting");
  const { stage, done, total, values, note, seconds_left: left } = progress;
  const share = total ? Math.min(1, done / total) : 0;
  const fill = make("span");
  fill.style.width = `${(100 * share).toFixed(1)}%`;
  const meter = make("div", { class: "meter", role: "progressbar", "aria-valuemin": "0", "aria-valuemax": "100", "aria-valuenow": String(Math.round(100 * share)), "aria-label": stage }, fill);
  const words = [`${stage} ${total ? `${done}/${total}` : done}`];
  for (const [name, value] of Object.entries(values ?? {})) if (value !== null) words.push(`${name} ${shortNumber(value)}`);
  if (left !== null && left !== undefined) words.push(`${spellSeconds(left)} left`);
  if (note) words.push(note);
  return make("div", { class: "progress" }, meter, make("p", { class: "progress-words" }, ...words.map((word) => make("span", {}, word))));
}

// The adapter of a run: "lora, rank 16".
export function adapterOf(summary) {
  if (!summary.kind) return "";
  return summary.kind === "none" ? "tokens alone" : summary.rank === null ? summary.kind : `${summary.kind}, rank ${summary.rank}`;
}

export const stopWords = (id) => ["queue", "stop", id];
export const removeWords = (id) => ["queue", "remove", id];
export const againWords = (id) => ["queue", "resume", id];
export const resumeWords = (path) => ["queue", "add", "train", `resume=${path}`];
export const reportWords = (path) => ["queue", "add", "report", path];
export const controlWords = (path, what) => ["control", path, what];
export const pauseWords = (paused) => ["queue", paused ? "start" : "pause"];

// The move of a waiting job to a place, by the ids that wait in their order; null where it would change nothing.
export function moveWords(waiting, id, place) {
  const at = waiting.indexOf(id), last = waiting.length - 1;
  if (at < 0 || (at === 0 && (place === "first" || place === "up")) || (at === last && (place === "last" || place === "down"))) return null;
  if (place === "first") return ["queue", "move", id, "--first"];
  if (place === "up") return ["queue", "move", id, "--before", waiting[at - 1]];
  if (place === "down" && at + 2 <= last) return ["queue", "move", id, "--before", waiting[at + 2]];
  return ["queue", "move", id, "--last"];
}
