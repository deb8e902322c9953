// What is there more than once: the same file, or the same weights in another form.

import { read } from "../api.js";
import { heading, nothing, showCommand } from "../parts.js";

export async function showDuplicates(main) {
  main.append(heading("Duplicates", make("a", { href: "#/models", class: "as-button" }, "All models")), make("p", { class: "soft" }, "Of everything that is hashed. The Studio deletes no file."));
  showCommand(["registry", "duplicates"]);
  const { duplicates } = await read("models/duplicates");
  if (!duplicates.length) { main.append(nothing("Nothing that is hashed is there twice. Scan a folder with hashing to compare all of it.")); return; }
  for (const one of duplicates) {
    const records = one.records.map((record) => make("li", {}, make("a", { href: `#/models/one/${record.id}` }, record.name), make("span", { class: "soft" }, ` ${record.dialect ?? ""}`)));
    main.append(make("section", { class: "card" }, make("h2", {}, one.same === "file" ? "The same file" : "The same weights in another form"), make("ul", { class: "plain" }, ...records),
      make("ul", { class: "plain paths" }, ...one.paths.map((path) => make("li", {}, make("code", {}, path)))), make("p", { class: "soft paths" }, `${one.same === "file" ? "sha256" : "content"} ${one.hash}`)));
  }
}
