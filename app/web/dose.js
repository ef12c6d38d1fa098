// Dose and response: four curves with their intervals, and the pictures of the dose under the pointer. What is shown was
// computed by the server (app/dose.py).

const part = name => element.querySelector(`[data-part="${name}"]`);
const W = 320, H = 180, LEFT = 44, RIGHT = 8, TOP = 22, BOTTOM = 26;
let found = null, at = 0, follows = true;

const letter = () => (found.knob === "rho" ? "ρ" : "strength");
const short = x => (x === 0 ? "0" : Math.abs(x) >= 100 ? x.toFixed(0) : x.toPrecision(2).replace(/\.?0+$/, ""));
const escaped = text => { const p = document.createElement("p"); p.textContent = text; return p.innerHTML; };

function panel([name, title]) {
  const all = [found.plain, ...found.points].map(point => point.estimates[name]), doses = found.doses;
  let [low, high] = name === "probability" ? [0, 1] : [Math.min(...all.map(e => e[1])), Math.max(...all.map(e => e[2]))];
  if (name === "pixels" || name === "features") low = 0;
  if (high - low < 1e-9) high = low + 1;
  const x = dose => LEFT + (W - LEFT - RIGHT) * (dose - doses[0]) / (doses[doses.length - 1] - doses[0]);
  const y = value => TOP + (H - TOP - BOTTOM) * (1 - (value - low) / (high - low));
  const points = found.points.map(point => [x(point.dose), ...point.estimates[name].map(y)]);
  const band = [...points.map(p => `${p[0]},${p[3]}`), ...[...points].reverse().map(p => `${p[0]},${p[2]}`)].join(" ");
  const plain = y(found.plain.estimates[name][0]), now = points[at];
  const ticks = [low, (low + high) / 2, high].map(v => `<line class="grid" x1="${LEFT}" x2="${W - RIGHT}" y1="${y(v)}" y2="${y(v)}"/><text x="${LEFT - 5}" y="${y(v) + 3}" text-anchor="end">${short(v)}</text>`).join("");
  const below = doses.map((d, i) => (i % 2 ? "" : `<text x="${x(d)}" y="${H - 10}" text-anchor="middle">${short(d)}</text>`)).join("");
  return `<figure><svg viewBox="0 0 ${W} ${H}" role="img" aria-label="${escaped(title)} against ${letter()} of ${found.stage}">` +
    `<text class="title" x="0" y="12">${escaped(title)}</text>${ticks}${below}` +
    `<line class="plain" x1="${LEFT}" x2="${W - RIGHT}" y1="${plain}" y2="${plain}"/>` +
    (points.length > 1 ? `<polygon points="${band}"/><polyline points="${points.map(p => `${p[0]},${p[1]}`).join(" ")}"/>` : "") +
    points.map(p => `<line class="whisker" x1="${p[0]}" x2="${p[0]}" y1="${p[2]}" y2="${p[3]}"/><circle cx="${p[0]}" cy="${p[1]}" r="3"/>`).join("") +
    (now ? `<line class="now" x1="${now[0]}" x2="${now[0]}" y1="${TOP}" y2="${H - BOTTOM}"/>` : "") + `</svg></figure>`;
}

function render() {
  const section = element.querySelector(".dose");
  section.hidden = !found || !found.points.length;
  if (section.hidden) return;
  part("panels").innerHTML = Object.entries(found.measures).map(panel).join("");
  const slider = part("dose"), point = found.points[at];
  slider.max = found.points.length - 1;
  slider.value = at;
  slider.setAttribute("aria-valuetext", `${letter()} ${point.dose}`);
  const e = point.estimates, interval = ([mean, low, high]) => `${mean.toFixed(3)} (${low.toFixed(3)} to ${high.toFixed(3)})`;
  const told = Object.keys(found.measures).map(name => `${name} ${interval(e[name])}`).join(", ");
  part("readout").textContent = `${found.stage}, ${letter()} ${point.dose}: ${told}. The dotted line is the plain pictures.`;
  const line = (name, images) => `<span>${name}</span>` + images.map((uri, i) => `<img src="${uri}" alt="${name}, seed ${found.seeds[i]}">`).join("");
  part("strip").style.setProperty("--num", found.seeds.length);
  part("strip").innerHTML = line("plain", found.plain.images) + line(`${letter()} ${point.dose}`, point.images);
}

function goTo(i) {
  const next = Math.max(0, Math.min(found.points.length - 1, i));
  follows = next === found.points.length - 1;
  if (next === at) return;
  at = next;
  render();
}

part("dose").addEventListener("input", event => goTo(Number(event.target.value)));
part("panels").addEventListener("pointermove", event => {
  const svg = event.target.closest("svg");
  if (!svg) return;
  const box = svg.getBoundingClientRect(), x = (event.clientX - box.left) * W / box.width;
  goTo(Math.round((found.doses.length - 1) * (x - LEFT) / (W - LEFT - RIGHT)));
});

function receive() {
  const fresh = props.value;
  if (!fresh) return;
  if (!found || !fresh.points.length || fresh.points.length < found.points.length) follows = true;
  found = fresh;
  if (follows || at >= found.points.length) at = Math.max(0, found.points.length - 1);
  render();
}
watch("value", receive);
