// The viewer: lays pictures, maps and marks of a viewModel over one another. What it shows was computed by the server
// (app/view_models.py); here is only what follows the pointer, the keyboard and the player.

const SIDES = ["Baseline", "Amplified"];
const part = name => element.querySelector(`[data-part="${name}"]`);
const all = selector => [...element.querySelectorAll(selector)];
const view = {
  model: null, sample: 0, scale: 0, follows: true, cursor: null, closer: null,
  painting: false, brush: null, painted: {}, timer: null, strip: "", blocks: "", place: null,
};
const root = element.querySelector(".viewer");
const palette = Uint8Array.from(atob(props.palette), c => c.charCodeAt(0));
const maps = all(".map");

// Reading the viewModel

const count = () => view.model.seeds.length;
const row = side => side * count() + view.sample;
const sideOf = scale => view.model.sides[scale];
const titleOf = scale => view.model.titles[scale];
const nameOf = scale => `${view.model.unit} ${view.model.numbers[scale]}, ${titleOf(scale)}`;
const grid = scale => `${sideOf(scale)}×${sideOf(scale)}`;
const step = scale => view.model.steps[scale];
const isFinished = () => view.model.steps.length === view.model.sides.length;
const numDrawn = () => view.model.steps.length;
const isAmplifiedBlock = () => part("block").value === "";

function mapOf(scale, side) {
  const occluded = occlusionOf(scale, side); // viewer-opinion.js
  if (occluded) return occluded;
  const closer = view.closer;
  if (!isAmplifiedBlock() && closer && JSON.stringify(closer.key) === keyOf(view.model) && closer.sample === view.sample
      && closer.block === Number(part("block").value)) {
    return closer.maps[scale][side][Number(part("head").value)];
  }
  return againstAverage(scale, step(scale).maps[row(side)]); // viewer-average.js
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

const inSeconds = seconds => `${seconds < 0.095 ? seconds.toFixed(2) : seconds.toFixed(1)} s`;
const keyOf = viewModel => JSON.stringify(viewModel.query);

// Drawing

function render() {
  const viewModel = view.model;
  if (!viewModel) return;
  const drawn = numDrawn();
  root.dataset.sample = view.sample;
  root.classList.toggle("many", viewModel.sides.length > 7);
  root.classList.toggle("long", viewModel.sides.length > 12);
  root.style.setProperty("--num-scales", viewModel.sides.length);
  part("name").textContent = viewModel.name;
  part("size").textContent = `${viewModel.size}×${viewModel.size} pixels, enlarged` +
    (viewModel.seconds === null ? "" : `; the ${count() > 1 ? `${count()} pairs` : "pair"} drawn in ${inSeconds(viewModel.seconds)} on this machine`);
  part("notice").textContent = viewModel.notice;
  part("notice").hidden = !viewModel.notice;
  renderDrawing();
  element.querySelector(".bar i").style.width = `${100 * drawn / viewModel.sides.length}%`;
  buildStrip();
  buildBlocks();
  renderGallery();
  renderStrip();
  renderStage();
}

function renderStatus() {
  const text = view.place ? `Waiting for the device: number ${view.place} in line` : drawingWords(); // viewer-progress.js
  if (part("status").textContent !== text) part("status").textContent = text;
}

function renderStage() {
  const viewModel = view.model, drawn = numDrawn();
  if (!drawn) return;
  const scale = Math.min(view.scale, drawn - 1), shown = part("finished").checked && isFinished() ? drawn - 1 : scale;
  const whose = `${viewModel.name}, seed ${viewModel.seeds[view.sample]}`;
  const isLast = shown === viewModel.sides.length - 1;
  const when = isLast ? "" : `, after ${nameOf(shown)}`;
  const uris = [0, 1].map(side => isLast ? viewModel.finals[row(side)].uri : step(shown).images[row(side)]);
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
    const final = viewModel.finals && viewModel.finals[row(side)];
    link.style.visibility = final ? "visible" : "hidden";
    if (!final) return;
    link.href = final.uri;
    link.download = final.file;
  });
  part("top").textContent = `${topOf(scale, 1).toPrecision(2)}${unitOf(scale, 1) || (props.kind === "var" ? " of its attention" : "")}`;
  renderBeliefs(scale);
  renderReadout(scale);
  paintHelp();
  keepView();
  part("clear").disabled = !view.painted[scale];
}

function renderReadout(scale) {
  const changed = step(scale).changed && step(scale).changed[view.sample], n = sideOf(scale);
  const what = changed
    ? `${changed.length} of ${n * n} tokens differ, pixels by ${(100 * step(scale).moved[view.sample]).toFixed(1)}\u00a0% on average.`
    : `${chosenOf(scale, 1).length} of ${n * n} positions amplified, pixels differ by ${(100 * step(scale).moved[view.sample]).toFixed(1)}\u00a0% on average.`;
  let text = `${nameOf(scale)[0].toUpperCase()}${nameOf(scale).slice(1)}: ${what}`;
  if (view.cursor !== null && view.cursor < n * n) {
    const i = view.cursor, values = [0, 1].map(side => mapOf(scale, side)[i].toFixed(4));
    const notes = [];
    if (chosenOf(scale, 1).includes(i)) notes.push("chosen");
    if (changed && changed.includes(i)) notes.push("token differs");
    const unit = unitOf(scale, 1);
    text = `Row ${Math.floor(i / n) + 1}, column ${i % n + 1}: ${values[0]}${unit} baseline, ${values[1]}${unit} amplified` +
      (notes.length ? ` (${notes.join(", ")})` : "");
  }
  part("readout").textContent = text;
}

function renderBeliefs(scale) {
  const beliefs = step(scale).beliefs;
  if (!props.believes) { part("beliefs").hidden = true; return; }
  const list = side => beliefs[row(side)].map(([name, p]) =>
    `<li><span>${escaped(name)}</span><i style="width:${(100 * p).toFixed(1)}%"></i><b>${p < 0.005 ? "&lt;1" : (100 * p).toFixed(0)} %</b></li>`).join("");
  part("beliefs").innerHTML = beliefs
    ? [0, 1].map(side => `<div><h4>${SIDES[side]}</h4><ol>${list(side)}</ol></div>`).join("")
    : "<p>This model has no class token at this scale.</p>";
}

const escaped = text => { const p = document.createElement("p"); p.textContent = text; return p.innerHTML; };
