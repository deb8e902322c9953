// The section Runs: the list, a run's page, a job's page, runs side by side, sweeps.

import { showCompare } from "./compare.js";
import { showJob } from "./job.js";
import { showList } from "./list.js";
import { showReport } from "./report.js";
import { showRun } from "./run.js";
import { showSweep, showSweeps } from "./sweeps.js";

const PAGES = { run: showRun, job: showJob, compare: showCompare, sweeps: showSweeps, sweep: showSweep, report: showReport };

export function show(main, parts, query) {
  const [page, argument] = parts;
  return (PAGES[page] ?? showList)(main, argument ?? "", query);
}
