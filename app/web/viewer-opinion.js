// The classifier's opinion: its verdict under every picture, and its occlusion map as a second overlay. Follows
// viewer-mechanism.js; what it shows was computed by the server (app/opinion.py).

view.opinion = null;
let opinionAsked = "", occluding = ""; // how far the occlusion map is, in words

const isOpinionOf = (opinion, viewModel) => opinion && viewModel && JSON.stringify(opinion.key) === keyOf(viewModel);
const wantsOcclusion = () => part("map").value === "occlusion";

function askOpinion() {
  if (!props.classifier || !view.model || !isFinished()) return;
  const asked = `${keyOf(view.model)}/${wantsOcclusion() ? view.sample : "-"}`;
  if (asked === opinionAsked) return;
  opinionAsked = asked;
  occlusionMap.end(); // of another pair, or no longer looked at
  if (!wantsOcclusion()) { trigger("opinion", { sample: view.sample }); return; }
  occluding = "Blurring one position after another …";
  occlusionMap.ask({ sample: view.sample });
}

// The occlusion map in place of the saliency; null where the saliency is to be shown.
function occlusionOf(scale, side) {
  const opinion = view.opinion;
  const isThere = wantsOcclusion() && isOpinionOf(opinion, view.model) && opinion.maps && opinion.sample === view.sample;
  return isThere ? opinion.maps[scale][side] : null;
}

function renderOpinion() {
  const opinion = isOpinionOf(view.opinion, view.model) ? view.opinion : null;
  all("[data-verdict]").forEach((line, side) => {
    const found = opinion && opinion.verdicts[row(side)];
    line.hidden = !props.classifier;
    line.textContent = found ? `classifier: ${found[0]}\u00a0${share(found[1])}` +
      (found[0] === view.model.name ? "" : `, ${view.model.name}\u00a0${share(opinion.asked[row(side)])}`) : "classifier: …";
  });
  [0, 1].forEach(side => {
    const label = all(".strip .labels span")[3 + side];
    if (label) label.textContent = `${occlusionOf(0, side) ? "Occlusion" : "Saliency"}, ${SIDES[side].toLowerCase()}`;
  });
  const scale = Math.min(view.scale, numDrawn() - 1);
  part("agreement").hidden = !wantsOcclusion();
  if (!wantsOcclusion()) return;
  if (!occlusionOf(scale, 0)) { part("agreement").textContent = occluding; return; }
  const said = (what, values) => `${what} ${values.map(ranked).join(" and ")}`;
  const n = sideOf(scale) ** 2;
  part("agreement").textContent = `How much less likely ${view.model.name} is to the classifier, in nats, when a position of the finished picture is blurred. ` +
    (n < 9 ? `${n} position${n > 1 ? "s are" : " is"} too few to rank.` :
      `${said(`Rank correlation with the ${props.kind === "var" ? "saliency of this scale" : "map M of this step"}:`, view.opinion.agreement[scale])} (baseline and amplified, ${n} positions). ` +
      `${said("A map that is only brightest in the middle has", view.opinion.centre[scale])}.`);
}

const ranked = r => (r === null ? "–" : (r.toFixed(2) === "-0.00" ? "0.00" : r.toFixed(2)).replace("-", "−"));

// A number stays on one line with its sign, and with the name that it is of.
const share = p => (p > 0.995 ? ">99\u00a0%" : p < 0.005 ? "<1\u00a0%" : `${(100 * p).toFixed(0)}\u00a0%`);

part("map").closest("label").hidden = !props.classifier;
part("map").options[0].textContent = props.map;
part("map").addEventListener("input", () => {
  if (view.model && Number(part("opacity").value) === 0) toggleSaliency(); // who chooses a map wants to see it
  askOpinion();
  if (view.model) { renderStrip(); renderStage(); }
  renderOpinion();
});
function showOpinion(opinion) {
  view.opinion = opinion;
  if (view.model && numDrawn()) { renderStrip(); renderStage(); renderOpinion(); }
}
const occlusionMap = inPieces("occlusion", "halt-occlusion", words => {
  occluding = words && (words === "Stopped." ? "Stopped: choose the map again to have it." : words);
  if (view.model && numDrawn()) renderOpinion();
}, showOpinion);
window.addEventListener("hieramp-opinion", event => showOpinion(event.detail));
new MutationObserver(() => { askOpinion(); renderOpinion(); }).observe(root, { attributes: true, attributeFilter: ["aria-busy", "data-sample"] });
new MutationObserver(renderOpinion).observe(part("readout"), { childList: true, characterData: true, subtree: true });
