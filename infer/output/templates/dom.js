"use strict";
// What every page shares: elements, copying, light and dark. Everything a person wrote is set as text, never as markup.

const by = (id) => document.getElementById(id);

function make(tag, given = {}, ...inside) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (name === "class") node.className = value;
    else if (name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...inside);
  return node;
}

// A button that copies the text of an element.
function copies(button, id) {
  const own = button.textContent;
  button.addEventListener("click", async () => {
    let done = false;
    try {
      await navigator.clipboard.writeText(by(id).textContent);
      done = true;
    } catch {
      const range = document.createRange(); // pages opened from the disk may not use the clipboard: select the text and copy that
      range.selectNodeContents(by(id));
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      done = document.execCommand("copy");
    }
    button.textContent = done ? "Copied" : "Press Ctrl+C";
    setTimeout(() => { button.textContent = own; }, 1600);
  });
}

// The choice is remembered while it differs from the system's.
const THEME = "loraloom theme";
const system = matchMedia("(prefers-color-scheme: dark)");

try {
  const chosen = localStorage.getItem(THEME);
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
} catch { /* a browser that keeps nothing */ }

by("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const now = root.dataset.theme ?? (system.matches ? "dark" : "light");
  const next = now === "dark" ? "light" : "dark";
  const own = (next === "dark") === system.matches;
  if (own) delete root.dataset.theme;
  else root.dataset.theme = next;
  try {
    if (own) localStorage.removeItem(THEME);
    else localStorage.setItem(THEME, next);
  } catch { /* then this page alone has it */ }
});
