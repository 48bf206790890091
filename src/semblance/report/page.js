"use strict";
// Curves: a line follows the pointer or the arrow keys, and the legend shows that epoch's values.
for (const figure of document.querySelectorAll(".chart")) {
  const data = JSON.parse(figure.dataset.chart);
  const svg = figure.querySelector("svg");
  const cursor = figure.querySelector(".cursor");
  const values = figure.querySelectorAll(".legend .key b");
  const at = figure.querySelector(".at b");
  const last = data.epochs.length - 1;
  let now = last;
  const show = (i, live) => {
    now = i;
    figure.classList.toggle("live", live);
    cursor.setAttribute("x1", data.x[i]);
    cursor.setAttribute("x2", data.x[i]);
    at.textContent = data.epochs[i];
    values.forEach((cell, s) => { cell.textContent = data.values[s][i]; });
  };
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
    let best = 0;
    data.x.forEach((value, i) => { if (Math.abs(value - x) < Math.abs(data.x[best] - x)) best = i; });
    show(best, true);
  });
  svg.addEventListener("pointerleave", () => show(last, false));
  svg.addEventListener("blur", () => show(last, false));
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    show(Math.min(last, Math.max(0, now + step)), true);
  });
}

// The map.
(() => {
  const canvas = document.getElementById("plot");
  if (!canvas) return;
  const data = JSON.parse(document.getElementById("points").textContent);
  const sheet = document.getElementById("sheet");
  const root = document.getElementById("atlas");
  const card = document.getElementById("card");
  const paint = canvas.getContext("2d");
  const count = data.names.length;
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let layout = 0, marks = "pictures", only = -1, chosen = -1, pinned = false;
  let view = { k: 1, x: 0, y: 0 };
  let width = 0, height = 0, colours = {}, waiting = false, flight = 0;
  const spots = new Float32Array(2 * count);

  const frames = data.layouts.map(({ points }) => {
    let w = 1, h = 1;
    for (let i = 0; i < count; i++) {
      w = Math.max(w, Math.abs(points[2 * i] - data.grid / 2) * 2);
      h = Math.max(h, Math.abs(points[2 * i + 1] - data.grid / 2) * 2);
    }
    return { w, h };
  });

  const fetchColours = () => {
    const style = getComputedStyle(document.documentElement);
    const read = (name) => style.getPropertyValue(name).trim();
    colours = { ink: read("--ink"), soft: read("--soft"), ground: read("--raised"), accent: read("--accent") };
    colours.label = data.labels.map((_, i) => read("--m" + i));
  };
  const colourOf = (i) => {
    if (!data.labels.length) return colours.accent;
    return data.label[i] < 0 ? colours.soft : colours.label[data.label[i]];
  };
  const shown = (i) => only < 0 || data.label[i] === only;
  const tile = () => Math.min(64, Math.max(20, (width < 500 ? 20 : 28) * Math.pow(view.k, 0.35)));

  const place = () => {
    const margin = Math.min(32, width / 14), frame = frames[layout];
    const scale = Math.min((width - 2 * margin) / frame.w, (height - 2 * margin) / frame.h) * view.k;
    const points = data.layouts[layout].points;
    for (let i = 0; i < count; i++) {
      spots[2 * i] = width / 2 + view.x + (points[2 * i] - data.grid / 2) * scale;
      spots[2 * i + 1] = height / 2 + view.y - (points[2 * i + 1] - data.grid / 2) * scale;
    }
  };
  const drawTile = (to, i, x, y, size) => {
    const sx = (i % data.columns) * data.side, sy = Math.floor(i / data.columns) * data.side;
    to.drawImage(sheet, sx, sy, data.side, data.side, x, y, size, size);
  };
  const inside = (x, y, pad) => x > -pad && y > -pad && x < width + pad && y < height + pad;

  // Pictures never overlap: the first come keep their place, the others are dots until one zooms in.
  const crowded = (cells, x, y, size) => {
    const cx = Math.floor(x / size), cy = Math.floor(y / size);
    for (let a = cx - 1; a <= cx + 1; a++) {
      for (let b = cy - 1; b <= cy + 1; b++) {
        const other = cells.get(a * 65536 + b);
        if (other && Math.abs(other[0] - x) < size && Math.abs(other[1] - y) < size) return true;
      }
    }
    cells.set(cx * 65536 + cy, [x, y]);
    return false;
  };
  const draw = () => {
    waiting = false;
    place();
    paint.clearRect(0, 0, width, height);
    const size = tile(), half = size / 2, step = size + (data.labels.length ? 5 : 2);
    const pictures = [], cells = new Map();
    const dot = Math.min(5, 2.2 * Math.pow(view.k, 0.3));
    for (let i = 0; i < count; i++) {
      const x = spots[2 * i], y = spots[2 * i + 1];
      if (!inside(x, y, 2 * size)) continue;
      if (marks === "pictures" && shown(i) && !crowded(cells, x, y, step)) { pictures.push(i); continue; }
      paint.globalAlpha = shown(i) ? (marks === "pictures" ? 0.5 : 0.75) : 0.12;
      paint.fillStyle = colourOf(i);
      paint.beginPath();
      paint.arc(x, y, dot, 0, 7);
      paint.fill();
    }
    paint.globalAlpha = 1;
    for (const i of pictures) {
      const x = spots[2 * i] - half, y = spots[2 * i + 1] - half;
      if (data.labels.length) { paint.fillStyle = colourOf(i); paint.fillRect(x - 2, y - 2, size + 4, size + 4); }
      drawTile(paint, i, x, y, size);
    }
    if (chosen >= 0) drawChosen(size);
  };
  const drawChosen = (size) => {
    const x = spots[2 * chosen], y = spots[2 * chosen + 1];
    paint.strokeStyle = colours.ink;
    paint.lineWidth = 1.5;
    for (const j of data.near[chosen]) {
      paint.globalAlpha = 0.6;
      paint.beginPath();
      paint.moveTo(x, y);
      paint.lineTo(spots[2 * j], spots[2 * j + 1]);
      paint.stroke();
      paint.globalAlpha = 1;
      const s = size * 0.8;
      drawTile(paint, j, spots[2 * j] - s / 2, spots[2 * j + 1] - s / 2, s);
      paint.strokeRect(spots[2 * j] - s / 2, spots[2 * j + 1] - s / 2, s, s);
    }
    const s = Math.max(48, size * 1.35);
    paint.fillStyle = colours.ink;
    paint.fillRect(x - s / 2 - 3, y - s / 2 - 3, s + 6, s + 6);
    drawTile(paint, chosen, x - s / 2, y - s / 2, s);
  };
  const later = () => { if (!waiting) { waiting = true; requestAnimationFrame(draw); } };

  const sized = (element, w, h) => {
    const ratio = window.devicePixelRatio || 1;
    element.width = Math.round(w * ratio);
    element.height = Math.round(h * ratio);
    const context = element.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.imageSmoothingQuality = "high";
    return context;
  };
  const choose = (i) => {
    if (i === chosen) return;
    chosen = i;
    card.hidden = i < 0;
    if (i >= 0) {
      document.getElementById("card-name").textContent = data.names[i];
      const label = data.labels.length && data.label[i] >= 0 ? data.labels[data.label[i]] : "";
      document.getElementById("card-label").textContent = label;
      drawTile(sized(document.getElementById("big"), 96, 96), i, 0, 0, 96);
      const holder = document.getElementById("card-near");
      holder.replaceChildren();
      const near = data.near[i], strip = document.createElement("canvas");
      if (near.length) {
        strip.setAttribute("role", "img");
        strip.setAttribute("aria-label", "Nearest on the map's sample: " + near.map((j) => data.names[j]).join(", "));
        holder.append(strip);
        const context = sized(strip, 6 * 36 - 4, 32);
        near.forEach((j, n) => drawTile(context, j, n * 36, 0, 32));
      }
      card.classList.toggle("up", spots[2 * i + 1] > height * 0.62);
      card.classList.toggle("over", spots[2 * i] > width * 0.55);
    }
    later();
  };
  const under = (x, y, reach) => {
    let best = -1, least = reach * reach;
    for (let i = 0; i < count; i++) {
      const dx = spots[2 * i] - x, dy = spots[2 * i + 1] - y, d = dx * dx + dy * dy;
      if (d < least && shown(i)) { least = d; best = i; }
    }
    return best;
  };
  const bound = () => {
    const reach = Math.max(width, height) * view.k / 2;
    view.x = Math.max(-reach, Math.min(reach, view.x));
    view.y = Math.max(-reach, Math.min(reach, view.y));
  };
  const zoom = (factor, x = width / 2, y = height / 2) => {
    const k = Math.max(1, Math.min(40, view.k * factor)), f = k / view.k;
    view = { k, x: (view.x - (x - width / 2)) * f + (x - width / 2), y: (view.y - (y - height / 2)) * f + (y - height / 2) };
    if (k === 1) view = { k: 1, x: 0, y: 0 };
    canvas.style.touchAction = k > 1 ? "none" : "pan-x pan-y";
    bound();
    later();
  };
  const glide = (factor) => {
    cancelAnimationFrame(flight);
    if (still.matches) { zoom(factor); return; }
    let left = 8;
    const step = () => { zoom(Math.pow(factor, 1 / 8)); if (--left) flight = requestAnimationFrame(step); };
    step();
  };
  const fit = () => { view = { k: 1, x: 0, y: 0 }; canvas.style.touchAction = "pan-x pan-y"; later(); };
  const reveal = (i) => {
    const x = spots[2 * i], y = spots[2 * i + 1], edge = 40;
    if (x < edge || x > width - edge) view.x += width / 2 - x;
    if (y < edge || y > height - edge) view.y += height / 2 - y;
    later();
  };

  // Pointers: a mouse drags and hovers; one finger taps (and drags once zoomed in), two pinch.
  const fingers = new Map();
  let moved = 0, gap = 0;
  const spot = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left - canvas.clientLeft, event.clientY - box.top - canvas.clientTop];
  };
  const spread = () => {
    const [a, b] = [...fingers.values()];
    return [Math.hypot(a[0] - b[0], a[1] - b[1]), (a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    fingers.set(event.pointerId, spot(event));
    canvas.setPointerCapture(event.pointerId);
    if (fingers.size === 1) moved = 0;
    if (fingers.size === 2) gap = spread();
  });
  canvas.addEventListener("pointermove", (event) => {
    const to = spot(event), from = fingers.get(event.pointerId);
    if (!from) { if (!pinned) choose(under(to[0], to[1], 28)); return; }
    fingers.set(event.pointerId, to);
    moved += Math.hypot(to[0] - from[0], to[1] - from[1]);
    if (fingers.size === 2) {
      const next = spread();
      view.x += next[1] - gap[1];
      view.y += next[2] - gap[2];
      zoom(next[0] / Math.max(1, gap[0]), next[1], next[2]);
      gap = next;
    } else if (fingers.size === 1 && moved > 4 && (event.pointerType === "mouse" || view.k > 1)) {
      canvas.classList.add("drag");
      view.x += to[0] - from[0];
      view.y += to[1] - from[1];
      bound();
      later();
    }
  });
  const release = (event) => {
    const at = fingers.get(event.pointerId);
    fingers.delete(event.pointerId);
    if (fingers.size) return;
    canvas.classList.remove("drag");
    if (event.type === "pointerup" && at && moved <= 6) {
      const found = under(at[0], at[1], 32);
      pinned = found >= 0 && !(pinned && found === chosen);
      choose(pinned || event.pointerType === "mouse" ? found : -1);
    }
  };
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", release);
  canvas.addEventListener("pointerleave", (event) => { if (!pinned && event.pointerType === "mouse") choose(-1); });
  canvas.addEventListener("touchmove", (event) => { if (event.touches.length > 1) event.preventDefault(); }, { passive: false });
  canvas.addEventListener("touchstart", (event) => { if (event.touches.length > 1) event.preventDefault(); }, { passive: false });
  canvas.addEventListener("wheel", (event) => {
    if (document.activeElement !== canvas && !event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    const [x, y] = spot(event);
    zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0018)), x, y);
  }, { passive: false });

  const walk = (dx, dy) => {
    if (chosen < 0) { choose(under(width / 2, height / 2, 1e9)); return; }
    const x = spots[2 * chosen], y = spots[2 * chosen + 1];
    let best = -1, least = Infinity;
    for (let i = 0; i < count; i++) {
      if (i === chosen || !shown(i)) continue;
      const ax = spots[2 * i] - x, ay = spots[2 * i + 1] - y;
      const along = ax * dx + ay * dy, across = Math.abs(ax * dy) + Math.abs(ay * dx);
      if (along <= 0.5 || across > along * 1.5) continue;
      const cost = along + 2 * across;
      if (cost < least) { least = cost; best = i; }
    }
    if (best >= 0) { choose(best); reveal(best); }
  };
  canvas.addEventListener("keydown", (event) => {
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (arrows[event.key]) { pinned = true; walk(...arrows[event.key]); }
    else if (event.key === "+" || event.key === "=") glide(1.5);
    else if (event.key === "-") glide(1 / 1.5);
    else if (event.key === "0") fit();
    else if (event.key === "Escape") { pinned = false; choose(-1); }
    else return;
    event.preventDefault();
  });

  const press = (buttons, button) => buttons.forEach((b) => b.setAttribute("aria-pressed", String(b === button)));
  const each = (name, act) => {
    const buttons = root.querySelectorAll("[data-" + name + "]");
    buttons.forEach((button) => button.addEventListener("click", () => act(button, buttons)));
  };
  each("layout", (button, all) => {
    press(all, button);
    layout = Number(button.dataset.layout);
    document.getElementById("map-note").textContent = data.layouts[layout].note;
    fit();
  });
  each("marks", (button, all) => { press(all, button); marks = button.dataset.marks; later(); });
  each("zoom", (button) => {
    if (button.dataset.zoom === "fit") fit();
    else glide(button.dataset.zoom === "in" ? 1.6 : 1 / 1.6);
  });
  each("label", (button, all) => {
    const i = Number(button.dataset.label);
    only = only === i ? -1 : i;
    press(all, only < 0 ? null : button);
    later();
  });

  const resize = () => {
    width = canvas.clientWidth;
    height = canvas.clientHeight;
    sized(canvas, width, height);
    later();
  };
  dark.addEventListener("change", () => { fetchColours(); later(); });
  if (window.ResizeObserver) new ResizeObserver(resize).observe(canvas);
  else window.addEventListener("resize", resize);
  fetchColours();
  fit();
  resize();
  sheet.decode().then(later, later);
})();
