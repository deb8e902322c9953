// The shell of the page: navigation by the part of the address after #, one section at a time.

import { read } from "./api.js";
import { keepFocus } from "./focus.js";
import { fail, leaveCommand, leaveMessages, nothing } from "./parts.js";

let leave = null; // what the shown section wants called when it goes
let number = 0, turned = false; // turned: another address than the one that was opened

const decoded = (part) => { try { return decodeURIComponent(part); } catch { return part; } }; // an address that was typed, or cut

// A section's index.js exports show(main, parts, query): parts of the address after its name, as texts; gives a function to call on leaving, or nothing.
async function show() {
  const own = ++number;
  leaveCommand();
  leaveMessages();
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, ...parts] = path.split("/").map(decoded);
  const section = sections.find((one) => one.name === name) ?? sections[0];
  if (!section) { by("main").replaceChildren(nothing("There is no section.")); return; }
  for (const link of by("nav").children) {
    if (link.dataset.name === section.name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${section.title} · LoRA Loom Studio`;
  let module;
  try {
    [module] = await Promise.all([import(`./${section.name}/index.js`), style(section.name)]);
  } catch (error) {
    fail(error);
    return;
  }
  if (own !== number) return;
  leave?.();
  leave = null;
  const main = make("div", { class: `section ${section.name}` });
  by("main").replaceChildren(main);
  if (turned && (document.activeElement === document.body || !document.activeElement?.isConnected)) by("main").focus({ preventScroll: true }); // the link that led here is gone
  try {
    const gone = await module.show(main, name === section.name ? parts : [], new URLSearchParams(query ?? ""));
    if (own === number) leave = gone ?? null;
    else gone?.();
  } catch (error) {
    main.append(make("p", { class: "fault", role: "alert" }, error.message));
  }
}

// Once it is there nothing of the section moves under the pointer.
function style(name) {
  if (document.querySelector(`link[data-section="${name}"]`)) return undefined;
  const link = make("link", { rel: "stylesheet", href: `app/${name}/index.css`, "data-section": name });
  document.head.append(link);
  return new Promise((done) => { link.onload = done; link.onerror = () => { link.remove(); done(); }; }); // one that did not come is asked for again
}

const about = await read("studio");
const sections = about.sections;
if (about.read_only) { document.body.dataset.sealed = "true"; by("sealed").hidden = false; }
by("where").textContent = about.folder;
by("where").title = `Working folder ${about.folder}; home ${about.home}`;
for (const section of sections) by("nav").append(make("a", { href: `#/${section.name}`, "data-name": section.name }, section.title));
copies(by("command-copy"), "command");
document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); by("main").focus(); });
keepFocus();
addEventListener("hashchange", () => { turned = true; show(); });
show();
