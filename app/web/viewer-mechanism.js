// A position is chosen: mechanism.js shows its inside. Follows viewer-input.js.

view.looked = null; // { scale, position }
view.lookedFor = ""; // settings and sample that were asked about last

function lookInside(position) {
  view.looked = { scale: Math.min(view.scale, numDrawn() - 1), position };
  askInside();
  keepView();
}

function askInside() {
  if (!view.looked || !view.model || !isFinished()) return;
  const block = isAmplifiedBlock() ? null : Number(part("block").value), head = isAmplifiedBlock() ? 0 : Number(part("head").value);
  view.lookedFor = `${keyOf(view.model)}/${view.sample}`;
  markLooked();
  tellLooking("Looking inside …");
  insideOne.ask({ ...view.looked, sample: view.sample, block, head });
}

// How far it is stands where values are read; mechanism.js is told what to show.
function tellLooking(words, found) {
  const isWaiting = !["", "Stopped."].includes(words);
  part("looking").textContent = words === "Stopped." ? "Stopped: click the position again to look inside." : words;
  part("looking").parentElement.setAttribute("aria-busy", String(isWaiting));
  window.dispatchEvent(new CustomEvent("hieramp-inside", { detail: { isWaiting, found } }));
}
const insideOne = inPieces("position", "halt-looking", tellLooking, found => tellLooking("", found));

// The ring around the position, on both pictures while its scale is shown.
function markLooked() {
  all('[data-pane="pair"] .frame').forEach(frame => {
    let ring = frame.querySelector(".looked");
    if (!ring) {
      ring = document.createElement("i");
      ring.className = "looked";
      ring.setAttribute("aria-hidden", "true");
      frame.append(ring);
    }
    const looked = view.looked;
    ring.hidden = !looked || looked.scale !== Math.min(view.scale, numDrawn() - 1);
    if (ring.hidden) return;
    const n = sideOf(looked.scale), cell = 100 / n;
    ring.style.cssText = `left:${cell * (looked.position % n)}%;top:${cell * Math.floor(looked.position / n)}%;width:${cell}%;height:${cell}%;right:auto;bottom:auto`;
  });
}

maps.forEach((canvas, side) => {
  canvas.addEventListener("click", event => {
    if (view.painting || !view.model || !isFinished()) return;
    lookInside(view.cursor ?? cellAt(canvas, event)); // a click is told in whole pixels
  });
  canvas.addEventListener("keydown", event => {
    if (event.key !== "Enter" || (side === 1 && canPaint()) || !view.model || !isFinished()) return;
    event.preventDefault();
    lookInside(view.cursor ?? 0);
  });
});
for (const name of ["block", "head"]) part(name).addEventListener("input", askInside);
new MutationObserver(markLooked).observe(part("readout"), { childList: true, characterData: true, subtree: true });

// Other settings, another sample: the same position again.
function followLooked() {
  if (!view.looked || !view.model || !isFinished()) return;
  if (`${keyOf(view.model)}/${view.sample}` !== view.lookedFor) askInside();
}
new MutationObserver(followLooked).observe(root, { attributes: true, attributeFilter: ["aria-busy", "data-sample"] });
