// The inside of one token. The viewer says which position (viewer-mechanism.js); what is shown was computed by the
// server (app/inside.py).

const part = name => element.querySelector(`[data-part="${name}"]`);
const palette = Uint8Array.from(atob(props.palette), c => c.charCodeAt(0));
const percent = p => (p >= 0.1 ? `${(100 * p).toFixed(0)} %` : p >= 0.001 ? `${(100 * p).toFixed(1)} %` : p > 0 ? "<0.1 %" : "0 %");
const NAMES = { baseline: "plain", spared: "amplified, but not at this scale", amplified: "amplified" };
const invitation = part("words").textContent;
let found = null;

// Keys: those of the scales so far in their order, and behind them perhaps the class token.

function places() {
  let start = 0;
  return found.sides.map((n, scale) => { const at = start; start += n * n; return { scale, n, at }; });
}

function nameOfKey(key) {
  const at = places().findLast(place => place.at <= key), i = key - at.at;
  if (i >= at.n * at.n) return "the class token";
  return `scale ${at.scale}, row ${Math.floor(i / at.n) + 1}, column ${i % at.n + 1}`;
}

function readKey(key) {
  const row = found.row, isChosen = row.chosen.includes(key);
  const change = !isChosen ? "" : found.mode === "logit" ? ` + β ${row.strength}` : `, γ ${row.strength}`;
  const which = found.head ? "logit" : "mean logit";
  part("key").textContent = `${nameOfKey(key)}: ${which} ${row.logits[key].toFixed(2)}${change}; weight ${percent(row.before[key])} → ` +
    `${percent(row.after[key])}; in the plain picture ${percent(found.plain[key])}`;
}

function cell(canvas, event) {
  const box = canvas.getBoundingClientRect(), n = Number(canvas.dataset.n);
  const at = (p, length) => Math.max(0, Math.min(n - 1, Math.floor(n * p / length)));
  return Number(canvas.dataset.at) + at(event.clientY - box.top, box.height) * n + at(event.clientX - box.left, box.width);
}

function paintRow(line, color) {
  for (const canvas of line.querySelectorAll("canvas")) {
    const n = Number(canvas.dataset.n), start = Number(canvas.dataset.at), pen = canvas.getContext("2d");
    for (let i = 0; i < n * n; i += 1) {
      pen.fillStyle = color(start + i);
      pen.fillRect(i % n, Math.floor(i / n), 1, 1);
    }
  }
}

function renderRows() {
  const row = found.row, rows = part("rows"), isLogit = found.mode === "logit";
  const top = Math.max(...row.before, ...row.after);
  const heat = values => key => {
    const level = 3 * Math.min(255, Math.round(255 * Math.sqrt(values[key] / top)));
    return `rgb(${palette[level]},${palette[level + 1]},${palette[level + 2]})`;
  };
  const chosen = new Set(row.chosen), style = getComputedStyle(element);
  const [accent, paper] = [style.getPropertyValue("--color-accent"), style.getPropertyValue("--border-color-primary")];
  const change = found.amplified ? `${isLogit ? `+ β ${row.strength}` : `× γ ${row.strength}`} on the chosen` : "no change in this block";
  const lines = [["before", heat(row.before)], [change, key => (chosen.has(key) ? accent : paper)], [isLogit ? "after the softmax" : "after", heat(row.after)]];
  const canvases = (what, i) => places().map(p =>
    `<canvas width="${p.n}" height="${p.n}" data-n="${p.n}" data-at="${p.at}" ${i === 1 ? "aria-hidden='true'" : `tabindex="0" role="application" aria-roledescription="attention map" aria-label="Attention ${what} over scale ${p.scale}, ${p.n}×${p.n}. Arrow keys read the values."`}></canvas>`).join("");
  rows.style.setProperty("--num", found.sides.length);
  rows.innerHTML = `<div class="line heads" aria-hidden="true"><span></span>${found.sides.map(n => `<b>${n}×${n}</b>`).join("")}</div>` +
    lines.map(([name], i) => `<div class="line"><span>${name}</span>${canvases(name, i)}</div>`).join("");
  [...rows.children].slice(1).forEach((line, i) => paintRow(line, lines[i][1]));
  for (const canvas of rows.querySelectorAll("canvas")) listen(canvas);
}

function listen(canvas) {
  let at = 0;
  const n = Number(canvas.dataset.n);
  canvas.addEventListener("pointermove", event => readKey(cell(canvas, event)));
  canvas.addEventListener("pointerdown", event => readKey(cell(canvas, event)));
  canvas.addEventListener("focus", () => { part("key").setAttribute("aria-live", "polite"); readKey(Number(canvas.dataset.at) + at); });
  canvas.addEventListener("keydown", event => {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (!(event.key in moves)) return;
    const [dx, dy] = moves[event.key], within = v => Math.max(0, Math.min(n - 1, v));
    at = within(Math.floor(at / n) + dy) * n + within(at % n + dx);
    event.preventDefault();
    readKey(Number(canvas.dataset.at) + at);
  });
}

function renderWords() {
  const n = found.sides[found.scale], i = found.position, row = found.row, drawn = found.drawn;
  const who = found.head ? `head ${found.head - 1}` : "mean of the heads";
  part("words").textContent = `Scale ${found.scale} (${n}×${n}), row ${Math.floor(i / n) + 1}, column ${i % n + 1}; block ${found.block}, ${who}; the amplified picture.`;
  const letter = found.mode === "logit" ? "β is added to their logits" : "γ multiplies their weights";
  part("attention").textContent = found.amplified
    ? `The maps are the tokens that this position sees. The chosen ones are the most salient of this scale; ${letter}. They held ${percent(row.share[0])} of its attention, then ${percent(row.share[1])}${found.mode === "logit" ? "" : " (γ does not renormalise)"}.`
    : "The maps are the tokens that this position sees. Nothing is amplified in this block at this scale, so the row stays as it is.";
  const same = drawn.baseline === drawn.amplified ? `Both pictures drew code ${drawn.amplified}.` : `The plain picture drew code ${drawn.baseline}, the amplified one ${drawn.amplified}.`;
  const here = `β at this scale alone moved ${percent(found.moved.spared)} of the probability; with the scales before it is ${percent(found.moved.baseline)}.`;
  const spared = drawn.spared === drawn.amplified ? "Spared here, with the same noise, it would have drawn the same code." : `Spared here, with the same noise, it would have drawn code ${drawn.spared}.`;
  const strength = found.mode === "logit" ? here : here.replace("β", "γ");
  part("chances").textContent = found.amplified ? `${same} ${strength} ${spared}` : `${same} The scales before moved ${percent(found.moved.baseline)} of the probability.`;
  part("adding").textContent = `Up to this scale, with the code and without it: it changed the pixels by ${(255 * found.added.rms).toFixed(1)} of 255 (root mean square over the picture). The difference is shown eight times as strong, grey is none.`;
}

function renderCodes() {
  const most = Math.max(...found.codes.flatMap(one => [one.baseline, one.spared, one.amplified]));
  const kinds = found.amplified ? ["baseline", "spared", "amplified"] : ["baseline", "amplified"];
  part("codes").innerHTML = found.codes.map(one => {
    const marks = kinds.filter(kind => found.drawn[kind] === one.code).map(kind => NAMES[kind]);
    const bars = kinds.map(kind => `<span class="bar ${kind}"><i style="width:${(100 * one[kind] / most).toFixed(1)}%"></i><span class="unseen">${NAMES[kind]} </span><b>${percent(one[kind])}</b></span>`).join("");
    const isDrawn = found.drawn.amplified === one.code;
    return `<li${isDrawn ? " class='drawn'" : ""}><img src="${one.patch}" alt=""><img src="${one.effect}" alt=""><span class="code">${one.code}</span><span class="bars">${bars}</span>` +
      `<small>${marks.length ? `drawn: ${marks.join("; ")}` : ""}</small></li>`;
  }).join("");
  part("legend").innerHTML = kinds.map(kind => `<span class="bar ${kind}"><i></i>${NAMES[kind]}</span>`).join("");
}

function renderAdded() {
  const [left, top, wide] = found.added.box.map(x => `${100 * x}%`);
  const frame = `<i style="left:${left};top:${top};width:${wide};height:${wide}"></i>`;
  const one = (what, text) => `<figure><div>${`<img src="${found.added[what]}" alt="The amplified picture up to this scale, ${text}">`}${frame}</div><figcaption>${text}</figcaption></figure>`;
  part("added").innerHTML = one("without", "without the code") + one("image", "with it") + one("difference", "difference");
}

// Of another position until the new one is there; nothing where that was stopped.
function show({ isWaiting, found: seen }) {
  if (isWaiting) { part("body").setAttribute("aria-busy", "true"); return; }
  found = seen;
  part("body").removeAttribute("aria-busy");
  part("body").hidden = !found;
  if (!found) { part("words").textContent = invitation; return; }
  renderWords();
  renderRows();
  renderCodes();
  renderAdded();
  part("key").textContent = "Point at a map, or use the arrow keys in it, to read a weight.";
}

window.addEventListener("hieramp-inside", event => show(event.detail));
