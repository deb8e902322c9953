// Charts of lines over steps, with their intervals: of the report of a run, and of the Studio.

const Chart = (() => {
  const SVG = "http://www.w3.org/2000/svg";

  function draw(tag, given, ...inside) {
    const node = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(given)) node.setAttribute(name, value);
    node.append(...inside);
    return node;
  }

  const TONES = [0, 1, 2, 3, 4, 6]; // 5 is of levels
  const tone = (index) => `var(--c${TONES[index % TONES.length]})`;
  const toneOf = (line, index) => line.level ? "var(--c5)" : line.name === "each step" ? tone(0) : tone(index);

  function shown(value) {
    const size = Math.abs(value);
    if (size === 0) return "0";
    if (size >= 0.001 && size < 100000) return String(Number(value.toPrecision(4)));
    return value.toExponential(2);
  }

  // About `count` round values between two ends.
  function ticks(low, high, count) {
    const span = high - low || 1;
    const power = 10 ** Math.floor(Math.log10(span / count));
    const step = [1, 2, 5, 10].map((one) => one * power).find((one) => span / one <= count) ?? power * 10;
    const found = [];
    for (let at = Math.ceil(low / step - 1e-9); at * step <= high + 1e-9 * span; at += 1) found.push(at * step);
    return found;
  }

  function logTicks(low, high) {
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
      for (const one of [1, 2, 5]) {
        const value = one * 10 ** power;
        if (value >= low && value <= high) found.push(value);
      }
    }
    return found.length > 1 ? (found.length > 8 ? found.filter((value) => Math.abs(Math.log10(value) % 1) < 1e-9) : found) : ticks(low, high, 5);
  }

  class Chart {
    constructor(node, chart, range) {
      Object.assign(this, { node, range, log: false, at: null, width: 0 });
      this.plot = node.querySelector(".plot");
      this.readout = node.querySelector(".readout");
      this.button = node.querySelector(".scale");
      this.button.addEventListener("click", () => { this.log = !this.log; this.draw(); });
      this.details = node.querySelector("details");
      this.details?.addEventListener("toggle", () => this.fillTable());
      this.set(chart);
      new ResizeObserver(() => { if (this.plot.clientWidth !== this.width) this.draw(); }).observe(this.plot);
    }

    // Shows these lines from now on: of a run that goes on. What is being read stays where its step is still there.
    set(chart) {
      this.chart = chart;
      this.steps = [...new Set(chart.lines.filter((line) => !line.level).flatMap((line) => line.points.map((point) => point[0])))].sort((a, b) => a - b);
      this.button.disabled = this.values().some((value) => value <= 0);
      if (this.button.disabled) this.log = false;
      if (!this.steps.includes(this.at)) this.at = null;
      this.draw();
      this.fillTable();
    }

    values() {
      return this.chart.lines.flatMap((line) => line.points.map((point) => point[1]));
    }

    // Ends of the vertical scale: every mean, level and interval, but of thin lines only what lies near them.
    ends() {
      const main = this.chart.lines.filter((_, index) => !this.isFaint(index));
      const all = main.flatMap((line) => line.points.flatMap((point) => [point[1], point[2] ?? point[1], point[3] ?? point[1]]));
      const faint = this.chart.lines.filter((_, index) => this.isFaint(index)).flatMap((line) => line.points.map((point) => point[1])).sort((a, b) => a - b);
      if (faint.length) all.push(faint[Math.floor(faint.length * 0.02)], faint[Math.ceil(faint.length * 0.98) - 1]);
      let [low, high] = [Math.min(...all), Math.max(...all)];
      if (this.log) {
        low = Math.min(...all.filter((value) => value > 0));
        return low === high ? [low / 2, high * 2] : [low / (high / low) ** 0.05, high * (high / low) ** 0.05];
      }
      if (low === high) { const room = Math.abs(low) * 0.1 || 1; return [low - room, high + room]; }
      const room = (high - low) * 0.06;
      return [low >= 0 && low < room * 4 ? 0 : low - room, high + room];
    }

    isFaint(index) { return this.chart.lines[index].name === "each step"; }

    draw() {
      this.button.setAttribute("aria-pressed", String(this.log));
      const width = this.width = Math.max(260, this.plot.clientWidth);
      const height = 230;
      const [low, high] = this.ends();
      const scale = (value) => this.log ? Math.log(Math.max(value, 1e-300)) : value;
      const marks = this.log ? logTicks(low, high) : ticks(low, high, 5);
      const labels = marks.map(shown);
      const left = 12 + 6.6 * Math.max(...labels.map((label) => label.length));
      const [first, last] = [this.steps[0], this.steps[this.steps.length - 1]];
      this.x = (step) => left + (last === first ? 0.5 : (step - first) / (last - first)) * (width - left - 12);
      this.y = (value) => 8 + (1 - (scale(value) - scale(low)) / (scale(high) - scale(low))) * (height - 34);
      const clip = `clip-${this.chart.key}`;
      const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", tabindex: 0, "aria-label": `${this.chart.title}. Left and right arrow keys read the values.` });
      svg.append(draw("clipPath", { id: clip }, draw("rect", { x: left - 5, y: 3, width: Math.max(1, width - left), height: height - 25 })));
      marks.forEach((mark, index) => svg.append(
        draw("line", { class: "grid-line", x1: left, x2: width - 10, y1: this.y(mark), y2: this.y(mark) }),
        draw("text", { x: left - 6, y: this.y(mark) + 4, "text-anchor": "end" }, labels[index]),
      ));
      for (const mark of ticks(first, last, Math.min(8, Math.floor((width - left) / 60))).filter((one) => Number.isInteger(one))) {
        svg.append(draw("text", { x: this.x(mark), y: height - 6, "text-anchor": "middle" }, String(mark)));
      }
      if (this.range && this.range[0] <= last && this.range[1] >= first) {
        const [from, to] = [this.x(Math.max(first, this.range[0])), this.x(Math.min(last, this.range[1]))];
        svg.append(draw("rect", { class: "range", x: Math.min(from, to - 3), y: 8, width: Math.max(3, to - from), height: height - 34 }, draw("title", {}, "steps to choose from")));
      }
      const inside = draw("g", { "clip-path": `url(#${clip})` });
      const order = this.chart.lines.map((line, index) => [line, index]).sort((a, b) => this.isFaint(b[1]) - this.isFaint(a[1]));
      for (const [line, index] of order) this.drawLine(inside, line, index);
      this.marks = draw("g", {});
      svg.append(inside, this.marks);
      svg.addEventListener("pointermove", (event) => {
        const box = svg.getBoundingClientRect();
        this.read(this.nearest((event.clientX - box.left) / box.width * width));
      });
      svg.addEventListener("pointerleave", () => this.read(null));
      svg.addEventListener("keydown", (event) => {
        const from = this.at === null ? this.steps.length : this.steps.indexOf(this.at);
        const next = { ArrowLeft: from - 1, ArrowRight: from + 1, Home: 0, End: this.steps.length - 1 }[event.key];
        if (event.key === "Escape") this.read(null);
        if (next === undefined) return;
        event.preventDefault();
        this.read(this.steps[Math.min(this.steps.length - 1, Math.max(0, next))]);
      });
      const focused = this.plot.contains(document.activeElement);
      this.plot.replaceChildren(svg);
      if (focused) svg.focus({ preventScroll: true });
      this.read(this.at);
    }

    drawLine(svg, line, index) {
      const banded = line.points.filter((point) => point[2] !== null && point[3] !== null);
      if (banded.length > 1) {
        const floor = (value) => this.log ? Math.max(value, 1e-300) : value;
        const corners = [...banded.map((point) => [point[0], point[3]]), ...banded.reverse().map((point) => [point[0], floor(point[2])])];
        svg.append(draw("polygon", { class: "band", fill: tone(index), points: corners.map(([x, y]) => `${this.x(x)},${this.y(y)}`).join(" ") }));
      }
      const kind = line.level ? "line level" : this.isFaint(index) ? "line faint" : "line";
      const points = line.points.map((point) => `${this.x(point[0])},${this.y(point[1])}`).join(" ");
      svg.append(draw("polyline", { class: kind, stroke: toneOf(line, index), points }));
      if (!line.level && !this.isFaint(index) && line.points.length <= 30) {
        for (const point of line.points) svg.append(draw("circle", { class: "dot", fill: tone(index), r: 3.5, cx: this.x(point[0]), cy: this.y(point[1]) }));
      }
    }

    nearest(x) {
      return this.steps.reduce((best, step) => Math.abs(this.x(step) - x) < Math.abs(this.x(best) - x) ? step : best);
    }

    // The values at a step, under the chart; null: the last ones.
    read(step) {
      this.at = step;
      const wanted = step ?? this.steps[this.steps.length - 1];
      const word = this.chart.key === "spectrum" ? "value" : "step";
      const parts = [make("b", {}, `${word} ${wanted}`)];
      this.marks.replaceChildren();
      if (step !== null) this.marks.append(draw("line", { class: "cross", x1: this.x(step), x2: this.x(step), y1: 8, y2: 204 }));
      this.chart.lines.forEach((line, index) => {
        const point = line.level ? line.points[0] : line.points.find((one) => one[0] === wanted) ?? (step === null ? line.points[line.points.length - 1] : undefined);
        if (!point) return;
        const key = make("i", { class: line.level ? "dashed" : "" });
        key.style.borderTopColor = toneOf(line, index);
        const span = point[2] !== null && point[3] !== null ? ` (${shown(point[2])} to ${shown(point[3])})` : "";
        const own = line.level || point[0] === wanted ? "" : ` at ${word} ${point[0]}`; // of a line that ends before the others
        parts.push(make("span", {}, key, `${line.name} `, make("b", {}, shown(point[1])), span, own));
        if (step !== null && !line.level) this.marks.append(draw("circle", { class: "dot", fill: tone(index), r: 4, cx: this.x(step), cy: this.y(point[1]) }));
      });
      this.readout.replaceChildren(...parts);
    }

    fillTable() {
      if (!this.details?.open) return;
      const lines = this.chart.lines.filter((line) => !line.level);
      const found = lines.map((line) => new Map(line.points.map((point) => [point[0], point])));
      const cell = (point) => point ? shown(point[1]) + (point[2] !== null && point[3] !== null ? ` (${shown(point[2])} to ${shown(point[3])})` : "") : "";
      const rows = this.steps.map((step) => make("tr", {}, make("th", { scope: "row" }, String(step)), ...found.map((one) => make("td", {}, cell(one.get(step))))));
      this.node.querySelector(".values tbody").replaceChildren(...rows);
    }
  }

  // The figure of a chart: the same elements as in the template of a run's report.
  Chart.figure = (chart) => {
    const lines = chart.lines.filter((line) => !line.level);
    const head = make("tr", {}, make("th", {}, "step"), ...lines.map((line) => make("th", {}, line.name)));
    const table = make("table", { class: "values" }, make("thead", {}, head), make("tbody"));
    return make("figure", { class: "chart" },
      make("figcaption", {}, make("h3", {}, chart.title), make("button", { type: "button", class: "scale", "aria-pressed": "false", title: "Linear or logarithmic scale" }, "log")),
      make("div", { class: "plot" }), make("p", { class: "readout" }), make("p", { class: "about" }, chart.about),
      make("details", {}, make("summary", {}, "Values"), make("div", { class: "scroll" }, table)));
  };

  return Chart;
})();
