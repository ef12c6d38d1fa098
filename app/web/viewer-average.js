// Against the average map: how many times what its position gets on average. Follows viewer-opinion.js; the average
// was measured on many drawings (app/average_map.py).

const averageOf = scale => (props.average && part("against").checked && isAmplifiedBlock() ? props.average.maps[scale] : null);
const againstAverage = (scale, values) => {
  const average = averageOf(scale);
  return average ? values.map((value, i) => value / Math.max(average[i], 1e-6)) : values;
};
const isAgainst = (scale, side) => averageOf(scale) !== null && !occlusionOf(scale, side);

// What the numbers over a map are, after a number.
function unitOf(scale, side) {
  if (occlusionOf(scale, side)) return " nats";
  return isAgainst(scale, side) ? " times the average" : "";
}

function renderAverage() {
  if (!props.average || !view.model || !numDrawn()) return;
  const scale = Math.min(view.scale, numDrawn() - 1), words = props.average.words[scale];
  const on = isAgainst(scale, 0) ? " Shown is how many times the average each position gets: 1 is what any picture of this model has there." : "";
  part("against").disabled = !isAmplifiedBlock() || wantsOcclusion();
  if (part("position").textContent !== words + on) part("position").textContent = words + on;
}

for (const one of [part("against").closest("label"), part("position")]) one.hidden = !props.average;
part("against").addEventListener("input", () => { if (view.model && numDrawn()) { renderStrip(); renderStage(); } renderAverage(); });
for (const name of ["map", "block"]) part(name).addEventListener("input", renderAverage);
new MutationObserver(renderAverage).observe(part("readout"), { childList: true, characterData: true, subtree: true });
