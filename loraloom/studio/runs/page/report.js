// The report of a run, in a frame that can neither reach this page nor go anywhere else.

import { address } from "../api.js";
import { heading } from "../parts.js";
import { runLink } from "./words.js";

export function showReport(main, path) {
  const frame = make("iframe", { class: "report-frame", title: "Report", sandbox: "allow-scripts", src: address("runs/report", { path }) });
  main.append(heading("Report", make("a", { class: "link-button", href: runLink(path) }, "Back to the run")), frame);
}
