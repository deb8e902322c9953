// A mask that is painted: the canvas is opaque where the mask is black (left out) and clear where it is white (kept).

const MOST = 30; // strokes that can be undone
const MOST_BYTES = 400e6; // of them

export class Painter {
  constructor(canvas, width, height) {
    Object.assign(this, { canvas, width, height, size: 24, tool: "keep", changed: false, fresh: false, onTool: () => {}, onChange: () => {} });
    canvas.width = width;
    canvas.height = height;
    this.draw = canvas.getContext("2d", { willReadFrequently: true });
    this.past = [];
    this.cursor = [width / 2, height / 2];
    this.listen();
  }

  get strokes() { return this.past.length; }

  use(tool) { this.tool = tool; this.onTool(tool); }

  async load(source) {
    const image = new Image();
    image.src = source;
    await image.decode();
    this.draw.clearRect(0, 0, this.width, this.height);
    this.draw.drawImage(image, 0, 0, this.width, this.height);
    const pixels = this.pixels(), { data } = pixels;
    for (let at = 0; at < data.length; at += 4) {
      const grey = (0.299 * data[at] + 0.587 * data[at + 1] + 0.114 * data[at + 2]) * data[at + 3] / 255;
      data.set([200, 30, 30, 255 - Math.round(grey)], at);
    }
    this.draw.putImageData(pixels, 0, 0);
  }

  pixels() { return this.draw.getImageData(0, 0, this.width, this.height); }

  // --- strokes

  listen() {
    const { canvas } = this;
    let last = null;
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      event.preventDefault();
      canvas.focus({ preventScroll: true });
      canvas.setPointerCapture(event.pointerId);
      this.begin();
      last = this.place(event);
      this.line(last, last);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!last) return;
      for (const one of event.getCoalescedEvents?.() ?? [event]) { const now = this.place(one); this.line(last, now); last = now; }
    });
    const end = () => { if (last) { last = null; this.end(); } };
    canvas.addEventListener("pointerup", end);
    canvas.addEventListener("pointercancel", end);
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  key(event) {
    const step = Math.max(1, this.size / 2);
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z") this.undo();
    else if (event.key in moves) {
      const from = this.cursor;
      this.cursor = [Math.min(this.width, Math.max(0, from[0] + moves[event.key][0])), Math.min(this.height, Math.max(0, from[1] + moves[event.key][1]))];
      if (event.shiftKey) { this.begin(); this.line(from, this.cursor); this.end(); }
    } else if (event.key === " ") { this.begin(); this.line(this.cursor, this.cursor); this.end(); }
    else if (event.key.toLowerCase() === "x") this.use(this.tool === "keep" ? "leave" : "keep");
    else return;
    event.preventDefault();
  }

  place(event) {
    const box = this.canvas.getBoundingClientRect();
    return [(event.clientX - box.left) * this.width / box.width, (event.clientY - box.top) * this.height / box.height];
  }

  begin() {
    if (this.fresh && this.tool === "keep") { // the first stroke of a new mask: all else is left out
      this.remember();
      this.cover("leave");
    } else this.remember();
    this.fresh = false;
  }

  line(from, to) {
    const { draw } = this;
    draw.globalCompositeOperation = this.tool === "keep" ? "destination-out" : "source-over";
    draw.strokeStyle = "rgb(200, 30, 30)";
    draw.lineCap = draw.lineJoin = "round";
    draw.lineWidth = this.size;
    draw.beginPath();
    draw.moveTo(...from);
    draw.lineTo(to[0] + 0.01, to[1]);
    draw.stroke();
    draw.globalCompositeOperation = "source-over";
    this.cursor = to;
  }

  end() { this.changed = true; this.onChange(); }

  remember() {
    this.past.push({ pixels: this.pixels(), fresh: this.fresh, changed: this.changed });
    while (this.past.length > MOST || (this.past.length > 1 && this.past.length * this.width * this.height * 4 > MOST_BYTES)) this.past.shift();
  }

  undo() {
    const last = this.past.pop();
    if (!last) return;
    this.draw.putImageData(last.pixels, 0, 0);
    this.fresh = last.fresh;
    this.changed = last.changed;
    this.onChange();
  }

  invert() {
    this.remember();
    this.fresh = false;
    const pixels = this.pixels(), { data } = pixels;
    for (let at = 0; at < data.length; at += 4) data.set([200, 30, 30, 255 - data[at + 3]], at);
    this.draw.putImageData(pixels, 0, 0);
    this.end();
  }

  fill(what, { keepHistory = true } = {}) {
    if (keepHistory) this.remember(); else this.past = [];
    this.fresh = false;
    this.cover(what);
    this.end();
  }

  cover(what) {
    this.draw.clearRect(0, 0, this.width, this.height);
    if (what === "keep") return;
    this.draw.fillStyle = "rgb(200, 30, 30)";
    this.draw.fillRect(0, 0, this.width, this.height);
  }

  // --- what is written

  // The mask was written. `since`: what is seen is not what was, as something was painted or undone meanwhile.
  saved({ since = false } = {}) {
    this.changed = since;
    for (const one of this.past) one.changed = true; // what an undo brings back is not what was saved
    this.onChange();
  }

  isEmpty() {
    const { data } = this.pixels();
    for (let at = 3; at < data.length; at += 4) if (data[at] !== 255) return false;
    return true;
  }

  // The mask as a grey PNG: white is kept.
  png() {
    const pixels = this.pixels(), { data } = pixels;
    for (let at = 0; at < data.length; at += 4) { const grey = 255 - data[at + 3]; data.set([grey, grey, grey, 255], at); }
    const whole = new OffscreenCanvas(this.width, this.height);
    whole.getContext("2d").putImageData(pixels, 0, 0);
    return whole.convertToBlob({ type: "image/png" });
  }
}
