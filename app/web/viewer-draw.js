// Maps, outlines and marks on a canvas. Follows viewer.js.

function drawMap(canvas, scale, side) {
  const n = sideOf(scale), size = Math.round((canvas.clientWidth || 300) * (window.devicePixelRatio || 1));
  if (canvas.width !== size) canvas.width = canvas.height = size;
  const pen = canvas.getContext("2d"), cell = size / n, values = mapOf(scale, side);
  const edge = i => Math.round(i * cell), opacity = Number(part("opacity").value);
  pen.clearRect(0, 0, size, size);
  if (opacity > 0) heat(pen, values, topOf(scale, side), n, edge, opacity);
  const line = Math.max(2, size / 160);
  if (part("outline").checked || view.painting) outline(pen, new Set(chosenOf(scale, side)), n, edge, line);
  if (part("marks").checked && side === 1 && step(scale).changed) mark(pen, step(scale).changed[view.sample], n, edge, line);
  if (view.cursor !== null && view.cursor < n * n) {
    const [x, y] = [view.cursor % n, Math.floor(view.cursor / n)];
    for (const [color, width] of [["#000", line * 2], ["#fff", line]]) {
      pen.strokeStyle = color; pen.lineWidth = width;
      pen.strokeRect(edge(x) + line, edge(y) + line, edge(x + 1) - edge(x) - 2 * line, edge(y + 1) - edge(y) - 2 * line);
    }
  }
  const best = values.indexOf(Math.max(...values));
  const whose = `${view.model.name}, seed ${view.model.seeds[view.sample]}`;
  const [what, unit] = occlusionOf(scale, side) ? ["Occlusion", "nats"] : ["Saliency", "of 1"];
  canvas.setAttribute("aria-label", `${what} over the ${SIDES[side].toLowerCase()} picture: ${whose}, ${nameOf(scale)}; ` +
    `highest at row ${Math.floor(best / n) + 1}, column ${best % n + 1}, ${values[best].toPrecision(3)} ${unit}. ` +
    `Arrow keys read the values.`);
}

function heat(pen, values, top, n, edge, opacity) {
  pen.globalAlpha = opacity;
  values.forEach((value, i) => {
    const level = 3 * Math.max(0, Math.min(255, Math.round(255 * value / Math.max(top, 1e-12))));
    pen.fillStyle = `rgb(${palette[level]},${palette[level + 1]},${palette[level + 2]})`;
    const x = i % n, y = Math.floor(i / n);
    pen.fillRect(edge(x), edge(y), edge(x + 1) - edge(x), edge(y + 1) - edge(y));
  });
  pen.globalAlpha = 1;
}

// The border of a set of cells, dark below light, so that it is seen on any picture.
function outline(pen, cells, n, edge, line) {
  const path = new Path2D(), has = (x, y) => x >= 0 && y >= 0 && x < n && y < n && cells.has(y * n + x);
  for (const i of cells) {
    const x = i % n, y = Math.floor(i / n);
    const sides = [[x, y - 1, x, y, x + 1, y], [x, y + 1, x, y + 1, x + 1, y + 1], [x - 1, y, x, y, x, y + 1], [x + 1, y, x + 1, y, x + 1, y + 1]];
    for (const [ox, oy, x0, y0, x1, y1] of sides) {
      if (!has(ox, oy)) { path.moveTo(edge(x0), edge(y0)); path.lineTo(edge(x1), edge(y1)); }
    }
  }
  pen.lineCap = "square";
  for (const [color, width] of [["rgb(0 0 0 / 70%)", line * 2.5], ["#ffb561", line * 1.2]]) {
    pen.strokeStyle = color; pen.lineWidth = width; pen.stroke(path);
  }
}

function mark(pen, cells, n, edge, line) {
  for (const i of cells) {
    const x = (edge(i % n) + edge(i % n + 1)) / 2, y = (edge(Math.floor(i / n)) + edge(Math.floor(i / n) + 1)) / 2;
    pen.beginPath();
    pen.arc(x, y, line * 1.6, 0, 7);
    pen.fillStyle = "#fff"; pen.strokeStyle = "#000"; pen.lineWidth = line / 2;
    pen.fill(); pen.stroke();
  }
}

