// Mouse and fingers on the pictures of the viewer: the wheel, dragging, and two fingers apart.

const far = ([one, other]) => Math.hypot(one.x - other.x, one.y - other.y);

// `zoom(by)` and `move(right, down)` go to all pictures; frames and windows to the one that is pointed at.
export function listen(sides, { zoom, move }) {
  sides.addEventListener("wheel", (event) => {
    event.preventDefault();
    const figure = event.target.closest("figure");
    const way = Math.sign(event.deltaY || event.deltaX);
    // of a volume the wheel goes from slice to slice, as in a radiologist's viewer; with Ctrl it zooms
    if (figure && (figure.frames > 1 ? !event.ctrlKey : event.shiftKey)) figure.scroll(way);
    else zoom(way < 0 ? 1.2 : 1 / 1.2);
  }, { passive: false });
  const down = new Map(); // pointers, each where it was last
  let figure = null;
  let leveling = false;
  sides.addEventListener("pointerdown", (event) => {
    down.set(event.pointerId, { x: event.clientX, y: event.clientY });
    figure = event.target.closest("figure");
    leveling = event.button === 2 || event.altKey;
    sides.setPointerCapture(event.pointerId);
  });
  sides.addEventListener("pointermove", (event) => {
    const before = down.get(event.pointerId);
    if (!before) return;
    const now = { x: event.clientX, y: event.clientY };
    const apart = down.size > 1 ? far([...down.values()]) : 0;
    down.set(event.pointerId, now);
    if (apart) zoom(far([...down.values()]) / apart);
    // unmagnified there is nothing to move: dragging changes the window
    else if (leveling || !move(now.x - before.x, now.y - before.y)) figure?.level(now.x - before.x, now.y - before.y);
  });
  sides.addEventListener("contextmenu", (event) => event.preventDefault());
  const up = (event) => down.delete(event.pointerId);
  sides.addEventListener("pointerup", up);
  sides.addEventListener("pointercancel", up);
}
