// Charts that follow a run: each is updated in place, a new one is put where it belongs.

// Gives {node, show}: show(charts, range) draws them, range being the steps to choose from.
export function curvesOf() {
  const node = make("div", { class: "charts" });
  const known = new Map(); // key -> {figure, chart}
  const show = (charts, range = null) => {
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
  return { node, show };
}
