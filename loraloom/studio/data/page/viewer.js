// One image at its size: crops over it, and its mask, which is painted here.

import { address, read, upload } from "../api.js";
import { allow, button, confirmed, dialog, facts, fail, showCommand } from "../parts.js";
import { Painter } from "./paint.js";
import { dashed, frame } from "./set.js";

export async function openImage(view, given) {
  if (given.fault) { dialog(given.name, make("p", { class: "fault" }, given.fault)); return; }
  let item = given;
  const crops = make("div", { class: "frames", hidden: true });
  const stage = make("div", { class: "paint-stage" });
  const canvas = make("canvas", { tabIndex: 0, role: "img", "aria-label": `${item.name}, with what its mask leaves out in red. Arrow keys move the brush, Space paints, X changes brush and eraser.` });
  const image = make("img", { alt: item.name, src: address("image", { path: item.path, v: item.v, ...(WEB.test(item.path) ? {} : { side: 768 }) }) });
  const inner = make("div", { class: "paint-inner" }, image, crops);
  stage.append(inner);
  stage.setAttribute("aria-busy", "true"); // until it takes strokes
  const side = make("div", { class: "paint-side" });
  const box = dialog(item.name, make("div", { class: "paint" }, stage, side));
  box.dialog.classList.add("viewer");
  let painter = null;
  const leave = async () => (!painter?.changed || (await confirmed("What was painted is not saved.", "Discard it")));
  box.dialog.addEventListener("cancel", (event) => { if (painter?.changed) { event.preventDefault(); leave().then((yes) => { if (yes) box.close(); }); } });
  const turn = (label, title, by) => {
    const next = view.page.items[view.page.items.findIndex((one) => one.name === item.name) + by];
    const node = button(label, { writes: false, title, act: async () => {
      if (!(await leave())) return;
      box.close();
      await openImage(view, view.page.items.find((one) => one.name === next.name) ?? next); // as it is by now
    } });
    node.disabled = !next || !view.page.items.some((one) => one.name === item.name);
    return node;
  };
  const back = turn("Previous", "Page Up", -1), on = turn("Next", "Page Down", 1);
  side.append(make("div", { class: "actions" }, back, on));
  box.dialog.addEventListener("keydown", (event) => {
    const node = { PageUp: back, PageDown: on }[event.key];
    if (node) { event.preventDefault(); node.click(); }
  });
  try {
    await image.decode();
  } catch {
    stage.removeAttribute("aria-busy");
    side.append(make("p", { class: "fault" }, item.fault ?? "The browser does not show this image."));
    return;
  }
  const [width, height] = item.size ?? [image.naturalWidth, image.naturalHeight];
  inner.style.aspectRatio = `${width} / ${height}`;
  inner.style.setProperty("--shape", width / height);
  painter = new Painter(canvas, width, height);
  let unread = ""; // why its mask is not shown
  if (item.mask) {
    const mask = { set: view.path, image: item.name, v: item.mask_v };
    await painter.load(address("data/mask", mask)).catch(async () => { // the browser does not say what the server refused it with
      unread = await read("data/mask", mask).then(() => "", (error) => error.message);
    });
  }
  if (!box.dialog.isConnected) return; // closed meanwhile, or turned to another image
  tools();
  inner.insertBefore(canvas, crops); // where it is seen, it is painted on: its place is settled, and nothing is drawn over what is painted
  stage.removeAttribute("aria-busy");
  resolution();

  function tools() {
    const writable = view.page.writable && !document.body.dataset.sealed;
    const show = make("input", { type: "checkbox", checked: true });
    show.addEventListener("change", () => { canvas.style.opacity = show.checked ? "" : "0"; });
    const size = make("input", { type: "range", min: 1, max: Math.max(16, Math.round(Math.max(width, height) / 4)), value: Math.max(4, Math.round(Math.max(width, height) / 16)), "aria-label": "Size of the brush" });
    const wide = make("span", { class: "soft number" });
    const told = () => { painter.size = Number(size.value); wide.textContent = `${size.value} px`; };
    size.addEventListener("input", told);
    told();
    const brush = tool("Brush", "keeps: white in the mask", () => painter.use("keep")), eraser = tool("Eraser", "leaves out: black in the mask", () => painter.use("leave"));
    painter.onTool = (which) => { brush.setAttribute("aria-pressed", String(which === "keep")); eraser.setAttribute("aria-pressed", String(which === "leave")); };
    painter.use("keep");
    const undo = tool("Undo stroke", "Ctrl+Z", () => painter.undo());
    let words = null;
    const save = button("Save the mask", { kind: "primary", ready: () => savable(), words: () => words ?? [...view.edit, "--set-mask", dashed(item.name), "MASK.png"], act: async () => {
      const drawn = painter.past.at(-1);
      const { file } = await upload("data/upload", await painter.png(), { name: "mask.png" });
      const made = await view.make({ kind: "mask", image: item.name, file, was: item.mask_v ?? "" }).catch(async (error) => {
        item = await read("data/image", { set: view.path, image: item.name }); // it may have been changed meanwhile: saved again it is written over
        throw error;
      });
      ({ words } = made);
      item = { ...await read("data/image", { set: view.path, image: item.name }), mask_v: made.masks[item.name] }; // not another's that came since
      painter.saved({ since: painter.past.at(-1) !== drawn });
      if (document.activeElement === document.body) canvas.focus({ preventScroll: true }); // nothing is left to be saved
      return words;
    } });
    const drop = button("Remove the mask", { words: [...view.edit, "--remove-mask", dashed(item.name)], ready: () => removable(), act: async () => {
      const drawn = painter.past.at(-1);
      await view.make({ kind: "unmask", images: [item.name] });
      item = { ...await read("data/image", { set: view.path, image: item.name }), mask_v: null };
      if (painter.past.at(-1) === drawn) {
        painter.fill("leave", { keepHistory: false });
        painter.saved();
      } else painter.saved({ since: true }); // what was painted meanwhile stays
      if (document.activeElement === document.body) canvas.focus({ preventScroll: true }); // nothing is left to be removed
    } });
    const savable = () => writable && painter.changed && !painter.isEmpty(), removable = () => Boolean(writable && item.mask);
    painter.onChange = () => { allow(save, savable()); undo.disabled = !painter.strokes; allow(drop, removable()); };
    painter.onChange();
    side.append(
      make("section", {}, make("h3", {}, "Mask"), make("p", { class: "soft" }, item.masks > 1 ? "This image has several mask files: keep one." : item.mask ? item.mask : "none yet: brush over what is to be learned"),
        ...(unread ? [make("p", { class: "fault", role: "alert" }, unread)] : []),
        make("div", { class: "actions" }, brush, eraser), make("label", { class: "check" }, size, wide),
        make("div", { class: "actions" }, undo, tool("Invert", "", () => painter.invert()), tool("Clear", "all is left out", () => painter.fill("leave")), tool("Fill", "all is kept", () => painter.fill("keep"))),
        make("label", { class: "check" }, show, "Show the mask"), make("div", { class: "actions" }, save, drop)),
      make("section", {}, make("h3", {}, "Image"), facts([["size", `${width} × ${height}`], ["caption", item.captions.join("\n")], ["file", item.file], ["findings", item.findings.join(", ")]])));
    if (!item.mask || unread) { painter.fill("keep", { keepHistory: false }); painter.saved(); painter.fresh = true; }
  }

  function tool(label, title, act) {
    const node = make("button", { type: "button", title }, label);
    node.addEventListener("click", () => { act(); canvas.focus({ preventScroll: true }); });
    return node;
  }

  function resolution() {
    const { resolution: wanted } = view.filter;
    if (!wanted) { side.append(make("p", { class: "soft" }, "Give a resolution beside the list to see the crops.")); return; }
    read("data/image", { set: view.path, image: item.name, ...view.shape() }).then((found) => {
      const list = make("section", {}, make("h3", {}, "Crops"));
      for (const crop of found.crops) {
        const left = Math.round(crop.cropped * 100);
        list.append(make("p", {}, `${crop.bucket}: ${crop.boxes.length === 1 ? "1 crop" : `${crop.boxes.length} crops`}, ${left ? `${left} % left out` : "nothing left out"}${crop.enlarged ? ", enlarged" : ""}`));
        for (const one of crop.boxes) crops.append(frame(...one));
      }
      crops.hidden = false;
      side.append(list);
    }, fail);
    showCommand(["data", "lint", view.path, "--resolution", wanted.split(",")[0]]);
  }
}

const WEB = /\.(png|jpe?g|webp|gif|bmp|avif)$/i;
