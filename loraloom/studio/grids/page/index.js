// The section Grids: #/grids the list, #/grids/grid?folder= one, #/grids/new the builder, #/grids/job?id= a job of it,
// #/grids/vote?folder= and #/grids/ranking?folder=, #/grids/choose?run= a run's checkpoint.

import { showBuilder } from "./builder.js";
import { showChoice } from "./choose.js";
import { showGrid } from "./grid.js";
import { showJob } from "./job.js";
import { showList } from "./list.js";
import { showRanking, showVote } from "./vote.js";

const PAGES = { "": showList, grid: showGrid, new: showBuilder, job: showJob, vote: showVote, ranking: showRanking, choose: showChoice };

export async function show(main, parts, query) {
  return (PAGES[parts[0] ?? ""] ?? showList)(main, query);
}
