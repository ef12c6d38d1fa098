// The viewer: lays pictures, maps and marks of a scene over one another. What it shows was computed by the server
// (app/scenes.py); here is only what follows the pointer, the keyboard and the player.

const SIDES = ["Baseline", "Amplified"];
const part = name => element.querySelector(`[data-part="${name}"]`);
const all = selector => [...element.querySelectorAll(selector)];
const view = {
  scene: null, sample: 0, scale: 0, follows: true, cursor: null, closer: null,
  painting: false, brush: null, painted: {}, timer: null, strip: "", blocks: "", place: null,
};
const root = element.querySelector(".viewer");
const palette = Uint8Array.from(atob(props.palette), c => c.charCodeAt(0));
const maps = all(".map");

// Reading the scene

const count = () => view.scene.seeds.length;
const row = side => side * count() + view.sample;
const sideOf = scale => view.scene.sides[scale];
const grid = scale => `${sideOf(scale)}×${sideOf(scale)}`;
const step = scale => view.scene.steps[scale];
const isFinished = () => view.scene.steps.length === view.scene.sides.length;
const numDrawn = () => view.scene.steps.length;
const isAmplifiedBlock = () => part("block").value === "";

function mapOf(scale, side) {
  const closer = view.closer;
  if (!isAmplifiedBlock() && closer && JSON.stringify(closer.key) === keyOf(view.scene) && closer.sample === view.sample
      && closer.block === Number(part("block").value)) {
    return closer.maps[scale][side][Number(part("head").value)];
  }
  return step(scale).maps[row(side)];
}

function topOf(scale, side) {
  const tops = [0, 1].map(s => Math.max(...mapOf(scale, s)));
  return part("shared").checked ? Math.max(...tops) : tops[side];
}

function chosenOf(scale, side) {
  if (view.painted[scale] && side === 1) return bitsOf(view.painted[scale]);
  const chosen = step(scale).chosen;
  return chosen ? chosen[row(side)] : [];
}

const keyOf = scene => JSON.stringify(scene.query);

// Drawing

function render() {
  const scene = view.scene;
  if (!scene) return;
  const drawn = numDrawn();
  root.setAttribute("aria-busy", String(!isFinished()));
  root.classList.toggle("many", scene.sides.length > 7);
  root.style.setProperty("--num-scales", scene.sides.length);
  part("name").textContent = scene.name;
  renderStatus();
  element.querySelector(".bar i").style.width = `${100 * drawn / scene.sides.length}%`;
  buildStrip();
  buildBlocks();
  renderGallery();
  renderStrip();
  renderStage();
}

function renderStatus() {
  const scene = view.scene, words = isFinished() ? scene.caption : `Drawing scale ${numDrawn()}, ${grid(numDrawn())}`;
  const text = view.place ? `Waiting for the device: number ${view.place} in line` : words;
  if (part("status").textContent !== text) part("status").textContent = text;
}

function renderStage() {
  const scene = view.scene, drawn = numDrawn();
  if (!drawn) return;
  const scale = Math.min(view.scale, drawn - 1), shown = part("finished").checked && isFinished() ? drawn - 1 : scale;
  const whose = `${scene.name}, seed ${scene.seeds[view.sample]}`;
  const isLast = shown === scene.sides.length - 1;
  const when = isLast ? "" : `, after scale ${shown} (${grid(shown)})`;
  const uris = [0, 1].map(side => isLast ? scene.finals[row(side)].uri : step(shown).images[row(side)]);
  all('[data-pane="pair"]').forEach((pane, side) => {
    const image = pane.querySelector("img");
    image.src = uris[side];
    image.alt = `${SIDES[side]} picture of ${whose}${when}${isFinished() ? "" : ", unfinished"}`;
    drawMap(pane.querySelector("canvas"), scale, side);
  });
  all('[data-pane="compare"]').forEach((pane, i) => {
    const [under, over] = pane.querySelectorAll("img");
    under.src = uris[1];
    over.src = uris[0];
    under.alt = i ? `Difference between the two pictures of ${whose}${when}` : `Amplified picture of ${whose}${when}, on the right`;
    over.alt = i ? "" : `Baseline picture of ${whose}${when}, on the left`;
  });
  all("[data-save]").forEach((link, side) => {
    const final = scene.finals && scene.finals[row(side)];
    link.style.visibility = final ? "visible" : "hidden";
    if (!final) return;
    link.href = final.uri;
    link.download = final.file;
  });
  part("top").textContent = topOf(scale, 1).toPrecision(2);
  renderBeliefs(scale);
  renderReadout(scale);
  part("clear").disabled = !view.painted[scale];
}

function drawMap(canvas, scale, side) {
  const n = sideOf(scale), size = Math.round((canvas.clientWidth || 300) * (window.devicePixelRatio || 1));
  if (canvas.width !== size) canvas.width = canvas.height = size;
  const pen = canvas.getContext("2d"), cell = size / n, values = mapOf(scale, side);
  const edge = i => Math.round(i * cell), opacity = Number(part("opacity").value);
  pen.clearRect(0, 0, size, size);
  if (opacity > 0) heat(pen, values, topOf(scale, side), n, edge, opacity);
  const line = Math.max(2, size / 160);
  if (part("outline").checked || view.painting) outline(pen, new Set(chosenOf(scale, side)), n, edge, line);
  if (part("marks").checked && side === 1) mark(pen, step(scale).changed[view.sample], n, edge, line);
  if (view.cursor !== null && view.cursor < n * n) {
    const [x, y] = [view.cursor % n, Math.floor(view.cursor / n)];
    for (const [color, width] of [["#000", line * 2], ["#fff", line]]) {
      pen.strokeStyle = color; pen.lineWidth = width;
      pen.strokeRect(edge(x) + line, edge(y) + line, edge(x + 1) - edge(x) - 2 * line, edge(y + 1) - edge(y) - 2 * line);
    }
  }
  const best = values.indexOf(Math.max(...values));
  const whose = `${view.scene.name}, seed ${view.scene.seeds[view.sample]}`;
  canvas.setAttribute("aria-label", `Saliency over the ${SIDES[side].toLowerCase()} picture: ${whose}, scale ${scale}, ` +
    `${grid(scale)}; highest at row ${Math.floor(best / n) + 1}, column ${best % n + 1}, ${values[best].toPrecision(3)} of 1. ` +
    `Arrow keys read the values.`);
}

function heat(pen, values, top, n, edge, opacity) {
  pen.globalAlpha = opacity;
  values.forEach((value, i) => {
    const level = 3 * Math.min(255, Math.round(255 * value / Math.max(top, 1e-12)));
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

function renderReadout(scale) {
  const changed = step(scale).changed[view.sample].length, n = sideOf(scale);
  let text = `Scale ${scale}, ${grid(scale)}: ${changed} of ${n * n} tokens differ.`;
  if (view.cursor !== null && view.cursor < n * n) {
    const i = view.cursor, values = [0, 1].map(side => mapOf(scale, side)[i].toFixed(4));
    const notes = [];
    if (chosenOf(scale, 1).includes(i)) notes.push("chosen");
    if (step(scale).changed[view.sample].includes(i)) notes.push("token differs");
    text = `Row ${Math.floor(i / n) + 1}, column ${i % n + 1}: ${values[0]} baseline, ${values[1]} amplified` +
      (notes.length ? ` (${notes.join(", ")})` : "");
  }
  part("readout").textContent = text;
}

function renderBeliefs(scale) {
  const beliefs = step(scale).beliefs;
  const list = side => beliefs[row(side)].map(([name, p]) =>
    `<li><span>${escaped(name)}</span><i style="width:${(100 * p).toFixed(1)}%"></i><b>${p < 0.005 ? "&lt;1" : (100 * p).toFixed(0)} %</b></li>`).join("");
  part("beliefs").innerHTML = beliefs
    ? [0, 1].map(side => `<div><h4>${SIDES[side]}</h4><ol>${list(side)}</ol></div>`).join("")
    : "<p>This model has no class token at this scale.</p>";
}

const escaped = text => { const p = document.createElement("p"); p.textContent = text; return p.innerHTML; };

// Samples and scales

function renderGallery() {
  const scene = view.scene, gallery = element.querySelector(".gallery"), many = count() > 1;
  gallery.hidden = !many;
  if (!many) return;
  while (gallery.children.length > count()) gallery.lastChild.remove();
  scene.seeds.forEach((seed, i) => {
    let button = gallery.children[i];
    if (!button) {
      button = document.createElement("button");
      button.type = "button";
      button.innerHTML = "<img alt=''><img alt=''><span></span>";
      button.addEventListener("click", () => { view.sample = i; view.cursor = null; render(); askCloser(); });
      gallery.append(button);
    }
    button.setAttribute("aria-pressed", String(i === view.sample));
    button.lastChild.textContent = `seed ${seed}`;
    [0, 1].forEach(side => {
      const image = button.children[side], r = side * count() + i;
      if (numDrawn()) image.src = scene.finals ? scene.finals[r].uri : step(numDrawn() - 1).images[r];
      image.alt = `${SIDES[side]} picture of ${scene.name}, seed ${seed}`;
    });
  });
}

function buildStrip() {
  const scene = view.scene, key = scene.sides.join();
  if (view.strip === key) return;
  view.strip = key;
  part("strip").innerHTML = `<div class="labels" aria-hidden="true"><span></span><span>Baseline</span><span>Amplified</span>` +
    `<span>Saliency, baseline</span><span>Saliency, amplified</span><span>Tokens changed</span></div>` +
    scene.sides.map((n, scale) => `<button type="button" data-scale="${scale}" aria-pressed="false">` +
      `<span class="head"><b>${n}×${n}</b><span>scale ${scale}</span><span>${scene.stages[scale] || "start"}</span></span>` +
      `<img alt=""><img alt=""><canvas aria-hidden="true" width="${n}" height="${n}"></canvas>` +
      `<canvas aria-hidden="true" width="${n}" height="${n}"></canvas><small><span></span><span class="unseen"> tokens differ</span></small></button>`).join("");
  all("[data-scale]").forEach(button => button.addEventListener("click", () => go(Number(button.dataset.scale))));
}

function renderStrip() {
  all("[data-scale]").forEach((button, scale) => {
    const isDrawn = scale < numDrawn();
    button.disabled = !isDrawn && !button.classList.contains("stale");
    button.classList.toggle("stale", !isDrawn && Boolean(button.querySelector("img").src));
    button.setAttribute("aria-pressed", String(scale === Math.min(view.scale, numDrawn() - 1)));
    if (!isDrawn) return;
    const changed = step(scale).changed[view.sample].length, total = sideOf(scale) ** 2;
    button.querySelector("small span").textContent = `${changed} of ${total}`;
    [0, 1].forEach(side => {
      button.querySelectorAll("img")[side].src = step(scale).images[row(side)];
      const canvas = button.querySelectorAll("canvas")[side], pen = canvas.getContext("2d");
      heat(pen, mapOf(scale, side), topOf(scale, side), sideOf(scale), i => i, 1);
    });
  });
}

function go(scale) {
  const last = view.scene.sides.length - 1;
  view.scale = Math.max(0, Math.min(last, scale));
  view.follows = view.scale === last;
  view.cursor = null;
  renderStrip();
  renderStage();
  showInStrip(all("[data-scale]")[view.scale]);
}

// On a narrow page the strip scrolls sideways; the page itself stays where it is.
function showInStrip(button) {
  const strip = part("strip"), [box, mine] = [strip.getBoundingClientRect(), button.getBoundingClientRect()];
  if (mine.right > box.right) strip.scrollLeft += mine.right - box.right;
  if (mine.left < box.left) strip.scrollLeft -= box.left - mine.left;
}

function play() {
  const isPlaying = view.timer !== null;
  clearInterval(view.timer);
  view.timer = null;
  if (!isPlaying) {
    go(0);
    view.timer = setInterval(() => {
      go(view.scale + 1);
      if (view.scale >= view.scene.sides.length - 1) play();
    }, 700);
  }
  element.querySelector('[data-go="play"]').textContent = view.timer === null ? "Play" : "Pause";
}

// Blocks and heads, on request

function buildBlocks() {
  const key = `${props.depth}/${props.heads}`;
  if (view.blocks === key) return;
  view.blocks = key;
  const option = (value, text) => `<option value="${value}">${text}</option>`;
  const blocks = props.heads ? Array.from({ length: props.depth }, (_, i) => option(i, String(i))) : [];
  const heads = Array.from({ length: props.heads }, (_, i) => option(i + 1, String(i)));
  part("block").innerHTML = option("", "amplified") + blocks.join("");
  part("head").innerHTML = option(0, "mean") + heads.join("");
  part("head").disabled = true;
}

function askCloser() {
  part("head").disabled = isAmplifiedBlock();
  if (!isAmplifiedBlock() && isFinished()) trigger("look", { sample: view.sample, block: Number(part("block").value) });
}
