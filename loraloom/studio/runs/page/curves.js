// Charts that follow a run: each is updated in place, a new one is put where it belongs.

// Gives {node, expect, show}: show(charts, range) draws them, range being the steps to choose from.
export function curvesOf() {
  const node = make("div", { class: "charts" });
  const known = new Map(); // key -> {figure, chart}
  // The places of charts that come: what is below them stays where it is when they are there. None: they do not come.
  const expect = (count, words = "") => {
    for (const place of node.querySelectorAll(":scope > .chart-to-come")) place.remove();
    node.append(...Array.from({ length: count }, (_, place) => make("p", { class: "card soft chart-to-come" }, place ? "" : words)));
  };
  const show = (charts, range = null) => {
    expect(0);
    charts.forEach((chart, place) => {
      let found = known.get(chart.key);
      const lines = chart.lines.map((line) => line.name).join("\n");
      if (!found || found.lines !== lines) {
        const figure = Chart.figure(chart);
        found?.figure.remove();
        node.insertBefore(figure, node.children[place] ?? null);
        found = { figure, lines, chart: new Chart(figure, chart, range) };
        known.set(chart.key, found);
        return;
      }
      found.chart.range = range;
      found.chart.set(chart);
    });
    const keys = new Set(charts.map((chart) => chart.key));
    for (const [key, found] of known) if (!keys.has(key)) { found.figure.remove(); known.delete(key); }
  };
  return { node, expect, show };
}
