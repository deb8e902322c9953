// Zoom and pan of one stage, or of several that move together. `draw` places what is in them; `grab` may take a drag for itself.

function makeZoom(stages, draw, grab = { start: () => false, move: () => {} }) {
  const view = { zoom: 1, x: 0, y: 0 };
  const pointers = new Map();
  let grabbed = false;

  // Moves a stage's world, within what the zoom leaves outside.
  function apply(stage) {
    const box = stage.getBoundingClientRect();
    view.x = Math.min(0, Math.max(-(view.zoom - 1) * box.width, view.x));
    view.y = Math.min(0, Math.max(-(view.zoom - 1) * box.height, view.y));
    stage.querySelector(".world").style.transform = `translate(${view.x}px, ${view.y}px) scale(${view.zoom})`;
  }

  function to(zoom, event, stage = stages[0]) {
    const box = stage.getBoundingClientRect();
    const x = (event?.clientX ?? box.left + box.width / 2) - box.left;
    const y = (event?.clientY ?? box.top + box.height / 2) - box.top;
    const next = Math.min(16, Math.max(1, zoom));
    view.x = x - (x - view.x) * (next / view.zoom);
    view.y = y - (y - view.y) * (next / view.zoom);
    view.zoom = next;
    draw();
  }

  function reset(again = true) {
    Object.assign(view, { zoom: 1, x: 0, y: 0 });
    if (again) draw();
  }

  function follow(stage) {
    stage.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      pointers.set(event.pointerId, event);
      stage.setPointerCapture(event.pointerId);
      grabbed = grab.start(event, pointers.size);
    });
    stage.addEventListener("pointermove", (event) => {
      const before = pointers.get(event.pointerId);
      if (!before) return;
      pointers.set(event.pointerId, event);
      if (pointers.size === 2) {
        const [other] = [...pointers.values()].filter((one) => one.pointerId !== event.pointerId);
        const far = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
        const middle = { clientX: (event.clientX + other.clientX) / 2, clientY: (event.clientY + other.clientY) / 2 };
        if (far(before)) to(view.zoom * far(event) / far(before), middle, stage);
      } else if (grabbed) {
        grab.move(event);
      } else {
        view.x += event.clientX - before.clientX;
        view.y += event.clientY - before.clientY;
        draw();
      }
    });
    for (const name of ["pointerup", "pointercancel"]) stage.addEventListener(name, (event) => pointers.delete(event.pointerId));
    stage.addEventListener("wheel", (event) => { event.preventDefault(); to(view.zoom * Math.exp(-event.deltaY / 400), event, stage); }, { passive: false });
    stage.addEventListener("dblclick", (event) => to(view.zoom > 1 ? 1 : 3, event, stage));
  }

  for (const stage of stages) follow(stage);
  return { view, apply, to, reset };
}

// The size of an image in the room it has: small ones are enlarged, up to 12 times of 64 pixels.
function fitted(image, width, height) {
  const scale = Math.min(width / image.naturalWidth, height / image.naturalHeight, Math.max(1, 12 * 64 / image.naturalWidth));
  return [image.naturalWidth * scale, image.naturalHeight * scale];
}
