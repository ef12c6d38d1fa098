// The view as a figure, the growth as an animation, the maps: made by the server (app/exports.py), saved here. Follows
// viewer-opening.js.

let savings = 0; // requests so far; an answer to an older page load is not this one's

all("[data-save-as]").forEach(button => button.addEventListener("click", () => {
  if (!view.model || !isFinished()) { part("copied").textContent = "Wait until the pictures are finished."; return; }
  const isBare = element.querySelector(".stage").dataset.view === "compare";
  savings += 1;
  part("copied").textContent = "Making the file …";
  trigger("save", {
    what: button.dataset.saveAs, number: savings, sample: view.sample, scale: view.scale, overlay: Number(part("opacity").value),
    outline: part("outline").checked, shared: part("shared").checked, finished: part("finished").checked, compare: isBare,
    block: isAmplifiedBlock() ? null : Number(part("block").value), head: Number(part("head").value), occlusion: wantsOcclusion(),
  });
}));

window.addEventListener("hieramp-saved", event => {
  const found = event.detail;
  if (!found || found.number !== savings) return;
  const link = document.createElement("a");
  link.href = found.address;
  link.download = found.name;
  link.click();
  part("copied").textContent = `Saved as ${found.name}.`;
  setTimeout(() => { part("copied").textContent = ""; }, 5000);
});
