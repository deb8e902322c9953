"use strict";
// What the pages of a grid and of a run share. Everything a person wrote is set as text, never as markup.

const data = JSON.parse(document.getElementById("data").textContent);
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
    setTimeout(() => { button.textContent = "Copy"; }, 1600);
  });
}

by("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});
