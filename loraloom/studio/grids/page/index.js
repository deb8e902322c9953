// The section Grids: #/grids the list, #/grids/grid?folder= one, #/grids/new the builder, #/grids/vote?folder= and #/grids/ranking?folder=, #/grids/choose?run=.

import { showList } from "./list.js";
import { showGrid } from "./grid.js";

const PAGES = { "": showList, grid: showGrid };

export async function show(main, parts, query) {
  return (PAGES[parts[0] ?? ""] ?? showList)(main, query);
}
