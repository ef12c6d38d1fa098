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

const canPaint = () => view.painting && isFinished() && view.model.live[view.scale];

function paintHelp() {
  const stage = view.model && view.model.stages[view.scale], isLive = view.model && view.model.live[view.scale];
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
    if (!view.model || !numDrawn()) return;
    view.cursor = cellAt(canvas, event);
    if (view.brush !== null && side === 1) paintCell(view.cursor); else renderStage();
  });
  canvas.addEventListener("pointerleave", event => { if (event.pointerType !== "mouse") return; view.cursor = null; if (view.model) renderStage(); });
  canvas.addEventListener("pointerdown", event => {
    if (view.model && numDrawn()) { view.cursor = cellAt(canvas, event); renderStage(); }
    if (side !== 1 || !canPaint()) return;
    canvas.setPointerCapture(event.pointerId);
    event.preventDefault();
    paintCell(cellAt(canvas, event));
  });
  canvas.addEventListener("pointerup", () => { if (view.brush !== null) { view.brush = null; sendPainted(); } });
  canvas.addEventListener("blur", () => { view.cursor = null; if (view.model) renderStage(); });
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
  if (view.model && numDrawn()) renderStage();
}
all("button[data-view]").forEach(button => button.addEventListener("click", () => showAs(button.dataset.view)));
all("[data-go]").forEach(button => button.addEventListener("click", () => {
  if (!view.model || !numDrawn()) return;
  const moves = { first: 0, back: view.scale - 1, next: view.scale + 1, last: Infinity };
  if (button.dataset.go === "play") play(); else go(Math.min(moves[button.dataset.go], view.model.sides.length - 1));
}));
for (const name of ["opacity", "outline", "marks", "finished"]) part(name).addEventListener("input", () => view.model && renderStage());
for (const name of ["shared", "head"]) part(name).addEventListener("input", () => { renderStrip(); renderStage(); });
part("block").addEventListener("input", () => { part("head").value = "0"; renderStrip(); renderStage(); askCloser(); });
part("split").addEventListener("input", event => root.style.setProperty("--split", `${event.target.value}%`));
part("paint").addEventListener("click", () => {
  view.painting = !view.painting;
  part("paint").setAttribute("aria-pressed", String(view.painting));
  root.classList.toggle("painting", view.painting);
  paintHelp();
  if (view.painting && innerWidth < 1025) element.querySelector(".stage").scrollIntoView({ block: "start" });
  if (view.model) renderStage();
});
part("clear").addEventListener("click", () => { delete view.painted[view.scale]; renderStage(); sendPainted(); });
new ResizeObserver(() => {
  root.classList.toggle("medium", element.clientWidth <= 800);
  root.classList.toggle("small", element.clientWidth <= 520);
  if (view.model) renderStage();
}).observe(element);

const ramp = part("ramp").getContext("2d");
for (let i = 0; i < 256; i += 1) {
  ramp.fillStyle = `rgb(${palette[3 * i]},${palette[3 * i + 1]},${palette[3 * i + 2]})`;
  ramp.fillRect(i, 0, 1, 1);
}

// What arrives

// The first viewModel comes with the page; an address with other settings waits for its own.
function isAskedFor(viewModel) {
  const asked = new URLSearchParams(location.search);
  return Object.entries(viewModel.query).every(([name, value]) => [null, value].includes(asked.get(name)));
}

function receive() {
  const viewModel = props.value;
  if (!viewModel || !viewModel.sides || (!view.model && !isAskedFor(viewModel))) return;
  const asked = new URLSearchParams(location.search), isFirst = !view.model, grows = isFirst && opensFresh(asked, viewModel);
  if (isFirst) readView(asked, viewModel);
  const isNew = !view.model || keyOf(view.model) !== keyOf(viewModel);
  const isWhole = viewModel.steps.length === viewModel.sides.length;
  if (!isNew && isFinished() && !isWhole) return; // the same again, from memory: what is there stays
  followDrawing(view.model, viewModel, isNew);
  const known = isNew ? null : view.model.seconds; // from memory it comes without
  view.model = { ...viewModel, seconds: viewModel.seconds ?? known };
  if (view.sample >= count()) view.sample = 0;
  if (view.follows) view.scale = isWhole ? viewModel.sides.length - 1 : Math.max(0, numDrawn() - 1);
  if (isNew && view.brush === null) readPainted(viewModel.query.paint);
  render();
  const isLooked = view.closer && JSON.stringify(view.closer.key) === keyOf(viewModel);
  if (isWhole && !isAmplifiedBlock() && !isLooked) askCloser();
  if (grows && isWhole) growOnce();
}
window.addEventListener("hieramp-closer", event => { view.closer = event.detail; if (view.model) { renderStrip(); renderStage(); } });
// Gradio tells one's place in the queue in #place; it is said in the line where everything else is said.
const place = document.getElementById("place");
if (place) {
  new MutationObserver(() => {
    const found = /queue: (\d+)/.exec(place.textContent);
    view.place = found ? Number(found[1]) : null;
    if (view.model) renderStatus();
  }).observe(place, { childList: true, characterData: true, subtree: true });
}
