// The second half of the viewer: the pointer, the keyboard, painting, and what arrives. Follows viewer.js.

// Painting

const bitsOf = mask => { const bits = []; for (let i = 0, m = mask; m; i += 1, m >>= 1n) if (m & 1n) bits.push(i); return bits; };

function readPainted(text) {
  view.painted = {};
  for (const item of (text || "").split(";").filter(Boolean)) {
    const [scale, mask] = item.split(":");
    view.painted[scale] = BigInt("0x" + mask);
  }
}

function paintCell(i) {
  const scale = view.scale, bit = 1n << BigInt(i), mask = view.painted[scale] || 0n;
  if (view.brush === null) view.brush = !(mask & bit);
  view.painted[scale] = view.brush ? mask | bit : mask & ~bit;
  if (!view.painted[scale]) delete view.painted[scale];
  renderStage();
}

function sendPainted() {
  const text = Object.entries(view.painted).map(([scale, mask]) => `${scale}:${mask.toString(16)}`).join(";");
  trigger("paint", { text });
}

const canPaint = () => view.painting && isFinished() && view.scene.live[view.scale];

function paintHelp() {
  const stage = view.scene && view.scene.stages[view.scale], isLive = view.scene && view.scene.live[view.scale];
  const text = !view.painting ? "Choose positions by hand and amplify those instead."
    : isLive ? "Drag over the amplified picture, or use arrow keys and space."
      : stage ? `Scale ${view.scale} is ${stage}, which is not amplified: give ${stage} a strength to paint here.`
        : "Scale 0 has one position and is never amplified: choose another scale.";
  if (part("paint-help").textContent !== text) part("paint-help").textContent = text;
}

// The pointer and the keyboard

function cellAt(canvas, event) {
  const box = canvas.getBoundingClientRect(), n = sideOf(Math.min(view.scale, numDrawn() - 1));
  const at = (position, length) => Math.max(0, Math.min(n - 1, Math.floor(n * position / length)));
  return at(event.clientY - box.top, box.height) * n + at(event.clientX - box.left, box.width);
}

maps.forEach((canvas, side) => {
  canvas.addEventListener("pointermove", event => {
    if (!view.scene || !numDrawn()) return;
    view.cursor = cellAt(canvas, event);
    if (view.brush !== null && side === 1) paintCell(view.cursor); else renderStage();
  });
  canvas.addEventListener("pointerleave", event => { if (event.pointerType !== "mouse") return; view.cursor = null; if (view.scene) renderStage(); });
  canvas.addEventListener("pointerdown", event => {
    if (event.pointerType !== "mouse" && view.scene && numDrawn()) { view.cursor = cellAt(canvas, event); renderStage(); }
    if (side !== 1 || !canPaint()) return;
    canvas.setPointerCapture(event.pointerId);
    event.preventDefault();
    paintCell(cellAt(canvas, event));
  });
  canvas.addEventListener("pointerup", () => { if (view.brush !== null) { view.brush = null; sendPainted(); } });
  canvas.addEventListener("blur", () => { view.cursor = null; if (view.scene) renderStage(); });
  canvas.addEventListener("keydown", event => {
    const n = sideOf(view.scale), i = view.cursor ?? 0, x = i % n, y = Math.floor(i / n);
    const moves = { ArrowLeft: [x - 1, y], ArrowRight: [x + 1, y], ArrowUp: [x, y - 1], ArrowDown: [x, y + 1] };
    if (event.key in moves) {
      const [nx, ny] = moves[event.key].map(v => Math.max(0, Math.min(n - 1, v)));
      view.cursor = view.cursor === null ? 0 : ny * n + nx;
      part("readout").setAttribute("aria-live", "polite");
    } else if ((event.key === " " || event.key === "Enter") && side === 1 && canPaint()) {
      paintCell(view.cursor ?? 0);
      view.brush = null;
      sendPainted();
    } else return;
    event.preventDefault();
    renderStage();
  });
});

// In Compare the pictures are bare: what lies over them is out of reach.
function showAs(name) {
  element.querySelector(".stage").dataset.view = name;
  all("button[data-view]").forEach(other => other.setAttribute("aria-pressed", String(other.dataset.view === name)));
  for (const control of ["opacity", "outline", "marks", "shared", "paint"]) part(control).disabled = name === "compare";
  part("bare").hidden = name !== "compare";
  if (view.scene && numDrawn()) renderStage();
}
all("button[data-view]").forEach(button => button.addEventListener("click", () => showAs(button.dataset.view)));
all("[data-go]").forEach(button => button.addEventListener("click", () => {
  if (!view.scene || !numDrawn()) return;
  const moves = { first: 0, back: view.scale - 1, next: view.scale + 1, last: Infinity };
  if (button.dataset.go === "play") play(); else go(Math.min(moves[button.dataset.go], view.scene.sides.length - 1));
}));
for (const name of ["opacity", "outline", "marks", "finished"]) part(name).addEventListener("input", () => view.scene && renderStage());
for (const name of ["shared", "head"]) part(name).addEventListener("input", () => { renderStrip(); renderStage(); });
part("block").addEventListener("input", () => { part("head").value = "0"; renderStrip(); renderStage(); askCloser(); });
part("split").addEventListener("input", event => root.style.setProperty("--split", `${event.target.value}%`));
part("paint").addEventListener("click", () => {
  view.painting = !view.painting;
  part("paint").setAttribute("aria-pressed", String(view.painting));
  root.classList.toggle("painting", view.painting);
  paintHelp();
  if (view.painting && innerWidth < 1025) element.querySelector(".stage").scrollIntoView({ block: "start" });
  if (view.scene) renderStage();
});
part("clear").addEventListener("click", () => { delete view.painted[view.scale]; renderStage(); sendPainted(); });
new ResizeObserver(() => {
  root.classList.toggle("medium", element.clientWidth <= 800);
  root.classList.toggle("small", element.clientWidth <= 520);
  if (view.scene) renderStage();
}).observe(element);

const ramp = part("ramp").getContext("2d");
for (let i = 0; i < 256; i += 1) {
  ramp.fillStyle = `rgb(${palette[3 * i]},${palette[3 * i + 1]},${palette[3 * i + 2]})`;
  ramp.fillRect(i, 0, 1, 1);
}

// What arrives

// The first scene comes with the page; an address with other settings waits for its own.
function isAskedFor(scene) {
  const asked = new URLSearchParams(location.search);
  return Object.entries(scene.query).every(([name, value]) => [null, value].includes(asked.get(name)));
}

function receive() {
  const scene = props.value;
  if (!scene || !scene.sides || (!view.scene && !isAskedFor(scene))) return;
  const asked = new URLSearchParams(location.search), isFirst = !view.scene, grows = isFirst && opensFresh(asked, scene);
  if (isFirst) readView(asked, scene);
  const isNew = !view.scene || keyOf(view.scene) !== keyOf(scene);
  const isWhole = scene.steps.length === scene.sides.length;
  if (!isNew && isFinished() && !isWhole) return; // the same again, from memory: what is there stays
  const known = isNew ? null : view.scene.seconds; // from memory it comes without
  view.scene = { ...scene, seconds: scene.seconds ?? known };
  if (view.sample >= count()) view.sample = 0;
  if (view.follows) view.scale = isWhole ? scene.sides.length - 1 : Math.max(0, numDrawn() - 1);
  if (isNew && view.brush === null) readPainted(scene.query.paint);
  render();
  const isLooked = view.closer && JSON.stringify(view.closer.key) === keyOf(scene);
  if (isWhole && !isAmplifiedBlock() && !isLooked) askCloser();
  if (grows && isWhole) growOnce();
}
window.addEventListener("hieramp-closer", event => { view.closer = event.detail; if (view.scene) { renderStrip(); renderStage(); } });
// Gradio tells one's place in the queue in #place; it is said in the line where everything else is said.
const place = document.getElementById("place");
if (place) {
  new MutationObserver(() => {
    const found = /queue: (\d+)/.exec(place.textContent);
    view.place = found ? Number(found[1]) : null;
    if (view.scene) renderStatus();
  }).observe(place, { childList: true, characterData: true, subtree: true });
}
