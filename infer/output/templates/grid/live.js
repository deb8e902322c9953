// A grid that is being drawn: its cells come in parts, as scripts beside the page, and are put where they belong.

const live = { part: 0, done: 0, seen: new Set() };

function livePart(part) {
  for (const [index, change, address] of part.cells) {
    if (live.seen.has(`${part.part} ${index}`)) continue;
    live.seen.add(`${part.part} ${index}`);
    const cell = data.cells[index];
    if (address) data.images[change.image] = address;
    Object.assign(cell, change);
    const filled = lines.list.find(({ cells }) => cells.includes(cell))?.filled;
    if (filled) redraw(cell);
    if (state.open === cell) showCell();
  }
  live.fresh = part.cells.length > 0;
  if (part.full) live.part += 1;
  live.full = part.full;
}

function loadPart() {
  if (data.served) { askPart(); return; }
  const script = make("script", { src: `live/${live.part}.js?${Date.now()}` });
  script.addEventListener("load", () => {
    script.remove();
    countLive();
    setTimeout(loadPart, live.full ? 0 : 2000);
  });
  script.addEventListener("error", () => {
    script.remove();
    setTimeout(reloadUnread, 2000); // the parts are deleted when the grid is done
  });
  document.head.append(script);
}

// The same of the server that sent this page.
async function askPart() {
  let part;
  try {
    const answer = await fetch(`${data.served.part}&part=${live.part}`, { cache: "no-store" });
    part = await answer.json();
    if (!answer.ok) throw new Error(part.error);
    if (part.ended) { setTimeout(reloadUnread, 500); return; }
  } catch (error) {
    hint(error.message);
    setTimeout(askPart, 4000);
    return;
  }
  livePart(part);
  countLive();
  setTimeout(askPart, live.full ? 0 : 1000);
}

// Not from under what is looked at.
function reloadUnread() {
  if (by("viewer").open || by("help").open || by("marked").open) setTimeout(reloadUnread, 1000);
  else location.reload();
}

function countLive() {
  const waiting = data.cells.filter(({ status }) => status !== "outside" && status !== "absent");
  const done = waiting.filter(({ status }) => status !== "missing").length;
  by("progress").hidden = false;
  by("progress").textContent = `Being drawn: ${done} of ${waiting.length} ${waiting.length === 1 ? "cell is" : "cells are"} done; this page takes in the others as they come. `
    + "If nothing changes any more the run was ended: start it again, and it goes on in a new folder, where nothing is drawn again that was drawn.";
}
