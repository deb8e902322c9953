// Addresses of the section's own pages.

export const to = (page, values = {}) => `#/grids${page ? `/${page}` : ""}${Object.keys(values).length ? `?${new URLSearchParams(values)}` : ""}`;

export function linkTo(label, page, values, kind = "") {
  return make("a", { class: `as-button ${kind}`, href: to(page, values) }, label);
}

// 20260131-120000 as a person reads it.
export function spellStamp(stamp) {
  const found = /^(\d{4})(\d\d)(\d\d)-(\d\d)(\d\d)(\d\d)(.*)$/.exec(stamp);
  if (!found) return stamp;
  const [, year, month, day, hour, minute, , more] = found;
  return `${year}-${month}-${day} ${hour}:${minute}${more}`;
}

export function spellCounts({ cells, done, failed, state }) {
  const all = `${cells} ${cells === 1 ? "cell" : "cells"}`;
  const broken = failed ? ` · ${failed} failed` : "";
  return state === "done" && done === cells ? all : `${done} of ${all}${broken}`;
}

// A grid of a run's checkpoints lies in a folder of the run, under a name that says nothing to a person.
export const nameOf = ({ name, run }) => (run ? `Checkpoints of ${run.split("/").at(-2) ?? "a run"}` : name);

export const STATES = { drawing: "being drawn", killed: "ended early", done: "" };
